//! See `feast_fuzz::configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feast_fuzz::configuration::fuzz(bytes));
