//! qubesd's stream of events, in one piece and byte by byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| admin_api::event::fuzz_events(input));
