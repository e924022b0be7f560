//! What the network tools of a hostile qube print.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| qubes_rpc::services::network::fuzz_network(input));
