//! Numbers about the server, in Prometheus' text format.
//!
//! Contract: labels have few values, whatever clients send. What the store holds is looked at once a minute at most, as
//! that reads the directories of its files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{App, api};
use crate::store::report::Stats;

/// Upper ends of the classes of the histogram, in seconds.
const CLASSES: [f64; 10] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
/// How long numbers of the store count.
const STATS_FOR: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
struct Latencies {
    classes: [u64; CLASSES.len()],
    count: u64,
    seconds: f64,
}

#[derive(Debug, Default)]
struct Counted {
    requests: BTreeMap<(&'static str, u16), u64>,
    latencies: BTreeMap<&'static str, Latencies>,
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub(super) struct Meters {
    counted: Mutex<Counted>,
    stats: Mutex<Option<(Stats, Instant)>>,
}

/// What kind of request it is.
fn kind(method: &Method, path: &str) -> &'static str {
    let last = path.rsplit('/').next().unwrap_or_default();
    match path {
        "/health" | "/version" | "/metrics" => return "status",
        "/graphql" => return "graphql",
        "/v1/traces" => return "spans",
        _ if path.contains("/mlflow-artifacts/") || path.ends_with("get-artifact") => {
            return match *method {
                Method::PUT => "artifact_upload",
                Method::GET | Method::HEAD => "artifact_download",
                _ => "artifact_other",
            };
        }
        _ if !path.starts_with("/api/") && !path.starts_with("/ajax-api/") => return "page",
        _ => {}
    }
    match last {
        "log-metric" => "log_metric",
        "log-batch" => "log_batch",
        "log-parameter" | "set-tag" | "log-inputs" | "log-model" | "outputs" => "log_other",
        "search" => "search",
        "get-history" | "get-history-bulk" | "get-history-bulk-interval" => "history",
        _ if *method == Method::GET => "read",
        _ => "change",
    }
}

/// Counts a request and times it up to the head of its answer.
pub(super) async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (kind, began) = (kind(request.method(), request.uri().path()), Instant::now());
    let response = next.run(request).await;
    let seconds = began.elapsed().as_secs_f64();
    let mut counted = app.meters.counted.lock().unwrap_or_else(PoisonError::into_inner);
    *counted.requests.entry((kind, response.status().as_u16())).or_default() += 1;
    let latencies = counted.latencies.entry(kind).or_default();
    latencies.count += 1;
    latencies.seconds += seconds;
    for (class, end) in latencies.classes.iter_mut().zip(CLASSES) {
        *class += u64::from(seconds <= end);
    }
    response
}

/// Answers `/metrics`.
pub(super) async fn show(State(app): State<Arc<App>>) -> Response {
    let text = match api::blocking(&app, text).await {
        Ok(text) => text,
        Err(failed) => return api::response(failed),
    };
    let mut response = Response::new(text.into());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(app: &App) -> String {
    let mut out = String::new();
    // Writing to a text cannot fail.
    let _ = write_counted(&mut out, &app.meters.counted.lock().unwrap_or_else(PoisonError::into_inner));
    let gauges = |stats: &Stats| {
        [
            ("mlrs_store_points", "Points in the store.", stats.points),
            ("mlrs_store_runs", "Runs in the store, deleted ones included.", stats.runs),
            ("mlrs_store_experiments", "Experiments in the store, deleted ones included.", stats.experiments),
            ("mlrs_store_log_bytes", "Bytes of the log.", stats.log_bytes + stats.live_bytes),
            ("mlrs_store_artifact_bytes", "Bytes of artifacts.", stats.artifact_bytes),
        ]
    };
    let open = ("mlrs_open_runs", "Runs that are held open for logging.", app.protocol.open_runs() as u64);
    for (name, what, value) in stats(app).iter().flat_map(gauges).chain([open]) {
        let _ = writeln!(out, "# HELP {name} {what}\n# TYPE {name} gauge\n{name} {value}");
    }
    out
}

/// What the store holds, as of a minute ago at most; none while it cannot be read.
fn stats(app: &App) -> Option<Stats> {
    let mut kept = app.meters.stats.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.as_ref().is_none_or(|(_, at)| at.elapsed() >= STATS_FOR) {
        *kept = app.protocol.store().stats().ok().map(|stats| (stats, Instant::now()));
    }
    kept.as_ref().map(|(stats, _)| stats.clone())
}

fn write_counted(out: &mut String, counted: &Counted) -> std::fmt::Result {
    let name = "mlrs_http_requests_total";
    writeln!(out, "# HELP {name} Requests answered, by kind and status.\n# TYPE {name} counter")?;
    for ((kind, status), count) in &counted.requests {
        writeln!(out, "{name}{{kind=\"{kind}\",status=\"{status}\"}} {count}")?;
    }
    let name = "mlrs_http_request_seconds";
    writeln!(out, "# HELP {name} Time to the head of the answer, by kind.\n# TYPE {name} histogram")?;
    for (kind, latencies) in &counted.latencies {
        for (class, end) in latencies.classes.iter().zip(CLASSES) {
            writeln!(out, "{name}_bucket{{kind=\"{kind}\",le=\"{end}\"}} {class}")?;
        }
        writeln!(out, "{name}_bucket{{kind=\"{kind}\",le=\"+Inf\"}} {}", latencies.count)?;
        writeln!(out, "{name}_sum{{kind=\"{kind}\"}} {}", latencies.seconds)?;
        writeln!(out, "{name}_count{{kind=\"{kind}\"}} {}", latencies.count)?;
    }
    Ok(())
}
