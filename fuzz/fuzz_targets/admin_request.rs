//! A request to qubesd.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| admin_api::request::fuzz_request(input));
