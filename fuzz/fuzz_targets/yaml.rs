//! `meta.yaml` files.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mlrs_db::mlruns::fuzzing::yaml(input));
