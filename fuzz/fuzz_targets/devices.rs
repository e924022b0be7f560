//! The lines of devices that qubesd prints.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| admin_api::call::device::fuzz_devices(input));
