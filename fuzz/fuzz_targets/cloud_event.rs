#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| whimbrel::fuzzing::cloud_event(input));
