//! Data that tests of rendering share.

use std::collections::BTreeMap;

use crate::id::Uid;
use crate::model::{Experiment, Lifecycle, Point, RunData, RunStatus};

pub(super) const START_MS: i64 = 1_795_434_974_123;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect()
}

/// A finished run with params, tags and metrics, one of them NaN.
pub(super) fn run() -> RunData {
    let point = |value| Point { step: 9, timestamp_ms: 1_795_434_980_000, value };
    RunData {
        uid: Uid::from_bytes([0x3f; 16]),
        id: "3f2a9c00112233445566778899aabbcc".into(),
        experiment_uid: Uid::from_bytes([1; 16]),
        experiment_id: "1".into(),
        name: "lr-3".into(),
        status: RunStatus::Finished,
        lifecycle: Lifecycle::Active,
        start_ms: Some(START_MS),
        end_ms: Some(START_MS + 65_000),
        deleted_ms: None,
        user: "ada".into(),
        artifact_uri: None,
        params: map(&[("lr", "0.1"), ("note", "two\nlines")]),
        tags: map(&[("team", "vision")]),
        metrics: [("grad".into(), point(f64::NAN)), ("loss".into(), point(0.25))].into(),
        inputs: Vec::new(),
        model_inputs: Vec::new(),
        model_outputs: Vec::new(),
    }
}

/// An experiment.
pub(super) fn experiment() -> Experiment {
    Experiment {
        uid: Uid::from_bytes([1; 16]),
        id: "1".into(),
        name: "mnist".into(),
        lifecycle: Lifecycle::Active,
        artifact_location: None,
        created_ms: Some(START_MS),
        updated_ms: None,
        tags: map(&[("owner", "ada")]),
    }
}
