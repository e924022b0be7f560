//! Our lines within what comes out of a qube, in one read and byte by byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| qubes_rpc::run::fuzz_markers(input));
