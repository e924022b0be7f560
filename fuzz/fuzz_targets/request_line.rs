//! The line with which a framed request begins.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| contract::request::fuzz_request_line(input));
