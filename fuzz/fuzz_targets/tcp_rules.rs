//! The file of ConnectTCP rules.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| policy::tcp::fuzz_tcp_rules(input));
