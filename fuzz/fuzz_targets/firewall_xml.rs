//! The file in which qubesd keeps a qube's rules.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| admin_api::firewall_xml::fuzz_firewall_xml(input));
