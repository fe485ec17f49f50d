//! Many metrics, params and tags of a run in one request: all of it or nothing.
//!
//! Contract: values that MLflow's reading would take are taken (integers and floats as texts, bare `NaN`), what it
//! would refuse is refused in its words, in its order.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::done;
use super::batch_body::{Given, List, MetricItem, PairItem, read};
use super::failure::Failure;
use super::request::{Call, quote_bare_numbers, wrong_type};
use super::routes::{Answered, Route};
use super::runs::{param_value, tag_value};
use crate::catalog::rules;
use crate::error::Error;
use crate::limits::{BATCH_PARAMS_MAX, BATCH_TAGS_MAX};
use crate::model::Point;
use crate::store::{Metric, ModelMetric, Run};

pub(super) const ROUTES: &[Route] = &[Route::post("2.0/mlflow/runs/log-batch", log_batch)];

fn log_batch(call: &Call<'_>) -> Answered {
    let quoted;
    let mut batch = read(call.body);
    if matches!((&batch.run_id, &batch.run_uuid), (Given::Missing, Given::Missing))
        && let Some(bytes) = quote_bare_numbers(call.body)
    {
        quoted = bytes;
        batch = read(&quoted);
    }
    let run_id = match (batch.run_id.read("run_id")?, batch.is_camel) {
        (Some(_), true) => {
            let message = "Request specifies both 'run_id' and 'runId'; provide only one of them.";
            return Err(Failure::invalid(message));
        }
        (Some(run), false) => Some(run),
        (None, _) => batch.run_uuid.read("run_uuid")?,
    };
    let Some(run_id) = run_id else { return Err(Failure::missing_param("run_id")) };

    let metrics = batch.metrics.read("metrics")?.unwrap_or_default();
    let params = batch.params.read("params")?.unwrap_or_default();
    let tags = batch.tags.read("tags")?.unwrap_or_default();
    let counts = (metrics.count, params.count, tags.count);
    let (metrics, measured) = metrics_of(metrics)?;
    let params = pairs_of(params, "params", BATCH_PARAMS_MAX)?;
    let tags = pairs_of(tags, "tags", BATCH_TAGS_MAX)?;

    if !is_run_id(&run_id) {
        let shown = rules::json_text(&run_id);
        return Err(Failure::invalid(format!("Invalid value {shown} for parameter 'run_id' supplied.")));
    }
    for (at, metric) in metrics.iter().enumerate() {
        let Point { value, timestamp_ms, .. } = metric.point;
        // The path is for the refusal alone.
        if rules::metric_key(&metric.key, "").is_err() || timestamp_ms < 0 {
            let path = format!("metrics[{at}]");
            rules::metric_key(&metric.key, &path)?;
            rules::metric_timestamp(&metric.key, value, timestamp_ms, &path)?;
        }
    }
    let params: Vec<(&str, &str)> = params.iter().map(|(key, value)| (&**key, param_value(value))).collect();
    for (at, (key, value)) in params.iter().enumerate() {
        rules::param(key, value, &format!("params[{at}]"))?;
    }
    let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (&**key, tag_value(value))).collect();
    for (at, (key, value)) in tags.iter().enumerate() {
        rules::run_tag(key, value, &format!("tags[{at}]"))?;
    }
    rules::batch(counts.0, counts.1, counts.2)?;
    rules::params_unique(params.iter().map(|(key, _)| *key))?;

    let run = call.protocol.open_runs.get(call.store(), &run_id)?;
    let logged = match measured.is_empty() {
        true => run.log_batch(&metrics, &params, &tags),
        false => run.log_model_batch(&with_measured(metrics, measured), &params, &tags),
    };
    logged.map_err(|error| match error {
        Error::InvalidState(text) => changed_params(&run, &params).unwrap_or_else(|| Failure::invalid(text)),
        other => other.into(),
    })?;
    done()
}

/// MLflow's `^[a-zA-Z0-9][\w\-]{0,255}$`.
fn is_run_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
        && id.chars().count() <= 256
}

/// The logged model that a metric is of, and what it was measured on.
#[derive(Debug, Default)]
struct Measured {
    model_id: Option<String>,
    dataset: Option<(String, String)>,
}

/// The metrics with what was measured; by place.
fn with_measured(metrics: Vec<Metric>, mut measured: BTreeMap<usize, Measured>) -> Vec<ModelMetric> {
    let with = |(at, metric)| {
        let Measured { model_id, dataset } = measured.remove(&at).unwrap_or_default();
        ModelMetric { metric, model_id, dataset }
    };
    metrics.into_iter().enumerate().map(with).collect()
}

type Metrics = (Vec<Metric>, BTreeMap<usize, Measured>);

fn metrics_of(list: List<Given<MetricItem<'_>>>) -> Result<Metrics, Failure> {
    let mut measured = BTreeMap::new();
    let mut metrics = Vec::with_capacity(list.items.len());
    for (at, item) in list.items.into_iter().enumerate() {
        let name = |part: &str| format!("metrics[{at}].{part}");
        let missing = |part: &str| Failure::missing_param(&name(part));
        let (key, value, timestamp, step) = match item {
            // Most of them by far.
            Given::Read(MetricItem {
                key: Given::Read(key),
                value: Given::Read(value),
                timestamp: Given::Read(timestamp_ms),
                step: Given::Read(step),
                model_id: Given::Missing,
                dataset_name: Given::Missing,
                ..
            }) => (key, value, timestamp_ms, step),
            Given::Read(item) => {
                let model_id = item.model_id.read(&name("model_id"))?.map(Cow::into_owned);
                let dataset_name = item.dataset_name.read(&name("dataset_name"))?.map(Cow::into_owned);
                let digest = item.dataset_digest.read(&name("dataset_digest"))?.map(Cow::into_owned);
                let dataset = dataset_name.zip(digest);
                if model_id.is_some() || dataset.is_some() {
                    measured.insert(at, Measured { model_id, dataset });
                }
                (
                    item.key.read(&name("key"))?.ok_or_else(|| missing("key"))?,
                    item.value.read(&name("value"))?.ok_or_else(|| missing("value"))?,
                    item.timestamp.read(&name("timestamp"))?.ok_or_else(|| missing("timestamp"))?,
                    item.step.read(&name("step"))?.unwrap_or(0),
                )
            }
            Given::Missing => return Err(wrong_type(&format!("metrics[{at}]"), &Value::Null)),
            Given::Wrong(value) => return Err(wrong_type(&format!("metrics[{at}]"), &value)),
        };
        let point = Point { step, timestamp_ms: timestamp, value };
        metrics.push(Metric { key: key.into_owned(), point });
    }
    Ok((metrics, measured))
}

type PairOf<'a> = (Cow<'a, str>, Cow<'a, str>);

fn pairs_of<'a>(
    list: List<Given<PairItem<'a>>>,
    what: &str,
    most: usize,
) -> Result<Vec<PairOf<'a>>, Failure> {
    let mut pairs = Vec::with_capacity(list.items.len().min(most));
    // One more than allowed is looked at, so that what is wrong with the others is told first, as in MLflow.
    for (at, item) in list.items.into_iter().enumerate() {
        let item = match item {
            Given::Read(item) => item,
            Given::Missing => return Err(wrong_type(&format!("{what}[{at}]"), &Value::Null)),
            Given::Wrong(value) => return Err(wrong_type(&format!("{what}[{at}]"), &value)),
        };
        let missing = || Failure::missing_param(&format!("{what}[{at}].key"));
        let key = item.key.read(&format!("{what}[{at}].key"))?.ok_or_else(missing)?;
        let value = item.value.read(&format!("{what}[{at}].value"))?.unwrap_or_default();
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// MLflow's refusal of params that have other values already, all of them at once.
fn changed_params(run: &Run, params: &[(&str, &str)]) -> Option<Failure> {
    let data = run.data().ok()?;
    let changed: Vec<String> = params
        .iter()
        .filter_map(|(key, new)| {
            let old = data.params.get(*key).filter(|old| old != new)?;
            let [key, old, new] = [key, old.as_str(), new].map(python_repr);
            Some(format!("{{'key': {key}, 'old_value': {old}, 'new_value': {new}}}"))
        })
        .collect();
    (!changed.is_empty()).then(|| {
        Failure::invalid(format!(
            "Changing param values is not allowed. Params were already logged='[{}]' for run ID='{}'.",
            changed.join(", "),
            run.id()
        ))
    })
}

/// Python's `repr` of a text.
pub(super) fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut repr = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => repr.push_str("\\\\"),
            '\n' => repr.push_str("\\n"),
            '\r' => repr.push_str("\\r"),
            '\t' => repr.push_str("\\t"),
            c if c == quote => {
                repr.push('\\');
                repr.push(c);
            }
            c => repr.push(c),
        }
    }
    repr.push(quote);
    repr
}
