//! libFuzzer's entry to [`planish_fuzz::read_onnx`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| planish_fuzz::read_onnx(bytes));
