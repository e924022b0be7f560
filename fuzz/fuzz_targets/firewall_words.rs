//! A firewall rule as callers write it.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| qubes_rpc::services::rules::fuzz_rule_words(input));
