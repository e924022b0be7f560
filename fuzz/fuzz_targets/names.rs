//! Names, tags, properties, ports and UUIDs.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| admin_api::name::fuzz_names(input));
