//! Histories of metrics: whole, in pages, of many runs, and thinned out for charts.
//!
//! Contract: a page never moves by what is logged meanwhile (tokens are the store's, not offsets). What is thinned out
//! keeps the least and the greatest value of every interval, so that no spike vanishes from a chart.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::answer::{MetricAnswer, json};
use super::failure::Failure;
use super::request::Call;
use super::routes::{Answered, Route};
use crate::error::Error;
use crate::model::{Point, Points};

pub(super) const ROUTES: &[Route] = &[
    Route::get("2.0/mlflow/metrics/get-history", get),
    Route::get("2.0/mlflow/metrics/get-history-bulk", bulk),
    Route::get("2.0/mlflow/metrics/get-history-bulk-interval", bulk_interval),
];

/// Runs in one request for many.
const RUNS_MAX: usize = 100;
/// Points in one answer about many runs.
const BULK_POINTS_MAX: i64 = 25_000;
/// Points of one run in a thinned out answer.
const INTERVAL_POINTS_MAX: i64 = 2_500;

/// Points of runs, written one by one.
struct Answer<'a> {
    key: &'a str,
    runs: Vec<(Option<&'a str>, Points)>,
    next_page_token: Option<String>,
    /// Whether `metrics` is there although it is empty.
    always: bool,
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct List<'a>(&'a Answer<'a>);
        impl Serialize for List<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let points: usize = self.0.runs.iter().map(|(_, points)| points.len()).sum();
                let mut list = serializer.serialize_seq(Some(points))?;
                for (run, points) in &self.0.runs {
                    for point in points.iter() {
                        list.serialize_element(&MetricAnswer::new(self.0.key, point, *run))?;
                    }
                }
                list.end()
            }
        }
        let mut map = serializer.serialize_map(None)?;
        if self.always || self.runs.iter().any(|(_, points)| !points.is_empty()) {
            map.serialize_entry("metrics", &List(self))?;
        }
        if let Some(token) = &self.next_page_token {
            map.serialize_entry("next_page_token", token)?;
        }
        map.end()
    }
}

fn get(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let run = fields.run_id()?;
    let key = fields.required_text("metric_key")?;
    let token = fields.text("page_token")?.filter(|token| !token.is_empty());
    let max_results = match fields.integer("max_results")? {
        None => None,
        Some(max) => Some(usize::try_from(max).ok().filter(|max| *max > 0).ok_or_else(|| {
            Failure::invalid(format!(
                "Invalid value {max} for parameter 'max_results' supplied. It must be a positive integer."
            ))
        })?),
    };
    let history = call.store().history(run, key)?;
    let (points, next_page_token) = match (max_results, token) {
        (None, None) => (history.collect::<Points>()?, None),
        (max, token) => {
            let page = history.page(max.unwrap_or(usize::MAX), token).map_err(|error| match error {
                Error::InvalidArgument(text) => Failure::invalid(format!("Invalid page token: {text}")),
                other => other.into(),
            })?;
            (page.points, page.next_page_token)
        }
    };
    json(&Answer { key, runs: vec![(None, points)], next_page_token, always: false })
}

/// The history of one of many runs; of a run that is not there nothing, so that a chart of the others is drawn.
fn of_one_of_many(call: &Call<'_>, run: &str, key: &str) -> Result<Option<crate::store::History>, Failure> {
    match call.store().history(run, key) {
        Ok(history) => Ok(Some(history)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn bulk(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let mut runs = fields.texts("run_id")?;
    if runs.is_empty() {
        return Err(Failure::invalid("GetMetricHistoryBulk request must specify at least one run_id."));
    }
    if runs.len() > RUNS_MAX {
        let got = runs.len();
        return Err(Failure::invalid(format!(
            "GetMetricHistoryBulk request cannot specify more than {RUNS_MAX} run_ids. Received {got} run_ids."
        )));
    }
    let Some(key) = fields.text("metric_key")? else {
        return Err(Failure::invalid("GetMetricHistoryBulk request must specify a metric_key."));
    };
    let max = fields.integer("max_results")?.unwrap_or(BULK_POINTS_MAX).clamp(0, BULK_POINTS_MAX);
    let mut left = usize::try_from(max).unwrap_or(0);
    runs.sort_unstable();
    runs.dedup();
    let mut found = Vec::new();
    for run in runs {
        let Some(history) = of_one_of_many(call, run, key)?.filter(|_| left > 0) else { continue };
        let mut points: Vec<Point> = history.collect::<Points>()?.iter().collect();
        points.sort_by(|a, b| {
            (a.timestamp_ms, a.step).cmp(&(b.timestamp_ms, b.step)).then(a.value.total_cmp(&b.value))
        });
        points.truncate(left);
        left -= points.len();
        found.push((Some(run), points.into_iter().collect()));
    }
    json(&Answer { key, runs: found, next_page_token: None, always: true })
}

fn bulk_interval(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.require("run_ids")?;
    let runs = fields.texts("run_ids")?;
    let see_docs = "See the API docs for more information about request parameters.";
    if runs.len() > RUNS_MAX {
        let got = runs.len();
        return Err(Failure::invalid(format!(
            "GetMetricHistoryBulkInterval request must specify at most {RUNS_MAX} run_ids. Received {got} run_ids. \
             {see_docs}"
        )));
    }
    let key = fields.required_text("metric_key")?;
    let (start, end) = (fields.integer("start_step")?, fields.integer("end_step")?);
    let max = fields.integer("max_results")?.unwrap_or(INTERVAL_POINTS_MAX);
    if !(1..=INTERVAL_POINTS_MAX).contains(&max) {
        let message = format!("max_results must be between 1 and {INTERVAL_POINTS_MAX}. {see_docs}");
        return Err(Failure::invalid(message));
    }
    let steps = match (start, end) {
        (None, None) => i64::MIN..=i64::MAX,
        (Some(start), Some(end)) if start <= end => start..=end,
        (Some(start), Some(end)) => {
            return Err(Failure::invalid(format!(
                "end_step must be greater than start_step. Found start_step={start} and end_step={end}."
            )));
        }
        _ => {
            return Err(Failure::invalid(
                "If either start step or end step are specified, both must be specified.",
            ));
        }
    };
    let max = usize::try_from(max).unwrap_or(1);
    let mut found = Vec::with_capacity(runs.len());
    for run in runs {
        if let Some(history) = of_one_of_many(call, run, key)? {
            found.push((Some(run), history.steps(steps.clone()).thinned(max)?));
        }
    }
    json(&Answer { key, runs: found, next_page_token: None, always: false })
}
