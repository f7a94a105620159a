//! See `feast_fuzz::connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feast_fuzz::connection::fuzz(bytes));
