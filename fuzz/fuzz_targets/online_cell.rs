//! See `feast_fuzz::online_cell`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feast_fuzz::online_cell::fuzz(bytes));
