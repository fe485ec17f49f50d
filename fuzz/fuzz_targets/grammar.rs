//! Filters and orders of searches, in both dialects.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlrs_db::Dialect;
use mlrs_db::query::grammar::{ExperimentFilter, RunFilter};
use mlrs_db::query::order::{ExperimentOrder, RunOrder};

fuzz_target!(|text: &str| {
    for dialect in [Dialect::MlFlow, Dialect::Extended] {
        let _ = RunFilter::parse(text, dialect);
        let _ = ExperimentFilter::parse(text, dialect);
        let keys: Vec<String> = text.split(';').map(str::to_owned).collect();
        let _ = RunOrder::parse(&keys, dialect);
        let _ = ExperimentOrder::parse(&keys, dialect);
    }
});
