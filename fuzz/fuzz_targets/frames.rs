//! The frames of an answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| contract::frame::fuzz_frames(input));
