#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_fuzz::sealed_objects::run(data));
