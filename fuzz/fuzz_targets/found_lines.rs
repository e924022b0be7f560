//! What `grep` in a qube has found, in one read and byte by byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| qubes_rpc::run::fuzz_found_lines(input));
