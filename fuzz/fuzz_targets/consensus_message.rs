//! Fuzz target; its body is in the table of the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quorate_fuzz::run("consensus_message", data));
