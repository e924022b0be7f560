//! A file of the ledger of jobs.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| qubes_rpc::fuzz_ledger_entry(input));
