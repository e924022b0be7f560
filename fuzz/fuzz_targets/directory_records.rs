//! What `find` in a qube says of a directory, in one read and byte by byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| qubes_rpc::run::fuzz_directory_records(input));
