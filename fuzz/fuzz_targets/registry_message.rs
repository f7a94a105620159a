//! See `feast_fuzz::registry_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feast_fuzz::registry_message::fuzz(bytes));
