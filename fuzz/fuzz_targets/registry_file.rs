//! See `feast_fuzz::registry_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feast_fuzz::registry_file::fuzz(bytes));
