//! Registers of imported trees: layouts, shapes, contents, metric files.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mlrs_db::mlruns::fuzzing::record(input));
