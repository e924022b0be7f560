//! The operator's file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| policy::scope::fuzz_scope(input));
