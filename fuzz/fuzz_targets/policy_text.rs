//! Files of qrexec policy, parsed and evaluated.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| policy::evaluate::fuzz_policy(input));
