//! The lines of firewall rules that qubesd prints and takes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| admin_api::firewall::fuzz_rules(input));
