//! A line of the journal, in which qrexec may tell of a denial.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| qubes_rpc::fuzz_denial(input));
