//! A reply of qubesd.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| admin_api::response::fuzz_response(input));
