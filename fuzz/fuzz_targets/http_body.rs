//! See `feast_fuzz::http_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feast_fuzz::http_body::fuzz(bytes));
