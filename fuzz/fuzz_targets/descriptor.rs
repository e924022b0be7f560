//! The line with which qrexec announces a call.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| qubes_rpc::descriptor::fuzz_descriptor(input));
