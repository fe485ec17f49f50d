//! The data types as JSON.
//!
//! Contract: field names are those of the library's types, times are raw milliseconds, non-finite floats are the
//! strings "NaN", "Infinity" and "-Infinity" (MLflow's spelling; JSON has no numbers for them), paths that are no
//! UTF-8 are shown with replacement characters.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::output::exact;
use crate::mlruns::{ExportReport, ImportReport};
use crate::model::{Experiment, Point, RunData};
use crate::store::report::{GcReport, VerifyReport};
use crate::{FollowedPoint, MetricSummary, RunLiveness, WriterInfo};

/// A float.
pub(super) fn float(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| Value::String(exact(value)), Value::Number)
}

/// One point.
pub(super) fn point(point: &Point) -> Value {
    json!({"step": point.step, "timestamp_ms": point.timestamp_ms, "value": float(point.value)})
}

/// One point of a followed run.
pub(super) fn followed(followed: &FollowedPoint) -> Value {
    let point = &followed.point;
    json!({
        "key": &*followed.key,
        "step": point.step,
        "timestamp_ms": point.timestamp_ms,
        "value": float(point.value),
        "origin": followed.origin.to_string(),
        "ordinal": followed.ordinal,
    })
}

/// A writer, and how many points a second it logged between two looks.
pub(super) fn writer(writer: &WriterInfo, points_per_s: Option<f64>) -> Value {
    let mut value = plain(writer);
    if let Value::Object(fields) = &mut value {
        fields.insert("points_per_s".into(), points_per_s.map_or(Value::Null, float));
    }
    value
}

/// A plain data type without floats or paths.
pub(super) fn plain(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn path(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

/// A run with params, tags and latest metrics, and where its artifacts are.
pub(super) fn run(run: &RunData, artifact_uri: String, liveness: Option<&RunLiveness>) -> Value {
    let mut value = plain(run);
    let metrics: Map<String, Value> =
        run.metrics.iter().map(|(key, latest)| (key.clone(), point(latest))).collect();
    if let Value::Object(fields) = &mut value {
        fields.insert("metrics".into(), Value::Object(metrics));
        fields.insert("artifact_uri".into(), artifact_uri.into());
        if let Some(liveness) = liveness {
            fields.insert("liveness".into(), plain(liveness));
        }
    }
    value
}

/// An experiment, and where its artifacts are.
pub(super) fn experiment(experiment: &Experiment, artifact_location: String) -> Value {
    let mut value = plain(experiment);
    if let Value::Object(fields) = &mut value {
        fields.insert("artifact_location".into(), artifact_location.into());
    }
    value
}

/// What is known of one metric of a run.
pub(super) fn metric(metric: &MetricSummary) -> Value {
    json!({
        "key": metric.key,
        "points": metric.points,
        "latest": point(&metric.latest),
        "last_step": metric.last_step,
        "min": float(metric.min),
        "max": float(metric.max),
    })
}

/// What `verify` found.
pub(super) fn verify(report: &VerifyReport) -> Value {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|f| json!({"severity": plain(&f.severity), "path": path(&f.path), "offset": f.offset, "text": f.text}))
        .collect();
    json!({
        "sound": report.is_sound(),
        "files": report.files,
        "bytes": report.bytes,
        "frames": report.frames,
        "columns": report.columns,
        "points": report.points,
        "events": report.events,
        "blobs": report.blobs,
        "findings": findings,
    })
}

/// What `gc` removed.
pub(super) fn gc(report: &GcReport) -> Value {
    json!({
        "runs": report.runs,
        "experiments": report.experiments,
        "files": report.files.iter().map(|file| path(file)).collect::<Vec<_>>(),
        "bytes": report.bytes,
        "dry_run": report.dry_run,
    })
}

/// What an import took in.
pub(super) fn import(report: &ImportReport, bytes_stored: u64, dry_run: bool) -> Value {
    let problems =
        report.problems.iter().map(|p| json!({"path": path(&p.path), "line": p.line, "text": p.text}));
    json!({
        "experiments": report.experiments,
        "runs": report.runs,
        "points": report.points,
        "points_added": report.points_added,
        "registers_written": report.registers_written,
        "artifacts": report.artifacts,
        "bytes_in": report.bytes,
        "bytes_stored": bytes_stored,
        "yaml_files": report.yaml_files,
        "yaml_verbatim": report.yaml_verbatim,
        "metric_files": report.metric_files,
        "metric_verbatim": report.metric_verbatim,
        "metric_irregular": report.metric_irregular,
        "metric_respelled": report.metric_respelled,
        "other_files": report.other_files,
        "dry_run": dry_run,
        "problems_total": report.problems_total,
        "problems": problems.collect::<Vec<_>>(),
    })
}

/// What an export wrote.
pub(super) fn export(report: &ExportReport) -> Value {
    let left_out =
        report.unexportable.iter().map(|l| json!({"what": l.what, "name": l.name, "reason": l.reason}));
    json!({
        "experiments": report.experiments,
        "runs": report.runs,
        "points": report.points,
        "files": report.files,
        "bytes_out": report.bytes,
        "left_out_total": report.unexportable_total,
        "left_out": left_out.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn non_finite_values_are_mlflows_strings() {
        assert_eq!(float(f64::NAN), json!("NaN"));
        assert_eq!(float(f64::INFINITY), json!("Infinity"));
        assert_eq!(float(f64::NEG_INFINITY), json!("-Infinity"));
        assert_eq!(float(-0.0).to_string(), "-0.0");
        assert_eq!(float(0.1).to_string(), "0.1");
    }

    #[test]
    fn a_run_keeps_raw_times_and_nan_metrics() {
        let value = run(&samples::run(), "file:///store/artifacts".into(), None);
        assert_eq!(value["artifact_uri"], json!("file:///store/artifacts"));
        assert_eq!(value["start_ms"], json!(1_795_434_974_123_i64));
        assert_eq!(value["status"], json!("FINISHED"));
        assert_eq!(value["params"]["lr"], json!("0.1"));
        assert_eq!(
            value["metrics"]["loss"],
            json!({"step": 9, "timestamp_ms": 1_795_434_980_000_i64, "value": 0.25})
        );
        assert_eq!(value["metrics"]["grad"]["value"], json!("NaN"));
    }

    #[cfg(unix)]
    #[test]
    fn paths_that_are_no_utf_8_are_shown_not_dropped() {
        use std::os::unix::ffi::OsStrExt;
        let odd = std::path::PathBuf::from(std::ffi::OsStr::from_bytes(b"mlruns/\xff"));
        let report = ImportReport {
            problems: vec![crate::mlruns::Problem { path: odd, line: Some(3), text: "bad".into() }],
            ..ImportReport::default()
        };
        assert_eq!(import(&report, 0, false)["problems"][0]["path"], json!("mlruns/\u{fffd}"));
    }
}
