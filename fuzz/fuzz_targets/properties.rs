//! The lines of properties that qubesd prints.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| admin_api::call::property::fuzz_properties(input));
