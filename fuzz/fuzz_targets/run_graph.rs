//! libFuzzer's entry to [`planish_fuzz::run_graph`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| planish_fuzz::run_graph(bytes));
