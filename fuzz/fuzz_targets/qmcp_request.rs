//! A request of the client of qubes-mcp.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| qubes_rpc::fuzz_qmcp_request(input));
