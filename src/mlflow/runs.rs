//! Runs: create, get, change, and the calls that log one thing.

use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::{OneRun, RunAnswer, RunInfoAnswer, done, json};
use super::experiments;
use super::failure::Failure;
use super::request::{Call, Fields, wrong_type};
use super::routes::{Answered, Route};
use crate::catalog::rules;
use crate::error::Error;
use crate::limits::{PARAM_VALUE_CHARS_MAX, RUN_TAG_VALUE_CHARS_MAX};
use crate::model::{Point, RunData, RunStatus};
use crate::store::{Metric, ModelMetric, Run, RunOptions};

pub(super) const ROUTES: &[Route] = &[
    Route::post("2.0/mlflow/runs/create", create),
    Route::post("2.0/mlflow/runs/update", update),
    Route::post("2.0/mlflow/runs/delete", delete),
    Route::post("2.0/mlflow/runs/restore", restore),
    Route::get("2.0/mlflow/runs/get", get),
    Route::post("2.0/mlflow/runs/log-metric", log_metric),
    Route::post("2.0/mlflow/runs/log-parameter", log_param),
    Route::post("2.0/mlflow/runs/set-tag", set_tag),
    Route::post("2.0/mlflow/runs/delete-tag", delete_tag),
    Route::post("2.0/mlflow/runs/log-model", log_model),
];

/// The run that a request logs to.
pub(super) fn open(call: &Call<'_>, fields: Fields<'_>) -> Result<Run, Failure> {
    Ok(call.protocol.open_runs.get(call.store(), fields.run_id()?)?)
}

/// What MLflow's server does with a too long value of a param: it keeps the start, and answers that all is well.
pub(super) fn param_value(value: &str) -> &str {
    rules::truncated(value, PARAM_VALUE_CHARS_MAX)
}

/// The same for a run's tag.
pub(super) fn tag_value(value: &str) -> &str {
    rules::truncated(value, RUN_TAG_VALUE_CHARS_MAX)
}

fn create(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let experiment_id = fields.text_or_empty("experiment_id")?;
    let start_ms = fields.integer("start_time")?.unwrap_or(0);
    let name = fields.text_or_empty("run_name")?;
    let user = fields.text_or_empty("user_id")?;
    let tags = fields.pairs("tags")?;
    if experiment_id.is_empty() {
        return Err(Failure::invalid("Invalid experiment ID: ''"));
    }
    let experiment = experiments::to_start_runs_in(call.store(), experiment_id)?;
    let mut options = RunOptions::new().name(tag_value(name)).user(user).start_ms(start_ms);
    for (key, value) in tags {
        options = options.tag(key, tag_value(value));
    }
    let run = call.store().start_run(&experiment.uid.to_string(), options)?;
    let id = run.id().to_owned();
    let data = run.data()?;
    call.protocol.open_runs.keep(&id, run);
    one(call, &data, true)
}

fn one(call: &Call<'_>, run: &RunData, is_new: bool) -> Answered {
    let artifact_uri = call.door().locations(call.store()).of(run)?.into_owned();
    json(&OneRun { run: RunAnswer { run, artifact_uri: &artifact_uri, is_new } })
}

fn get(call: &Call<'_>) -> Answered {
    let params = call.params();
    one(call, &*call.store().get_run(params.fields().run_id()?)?, false)
}

/// MLflow's enum of statuses, by name or number.
fn status(fields: Fields<'_>) -> Result<Option<RunStatus>, Failure> {
    let Some(value) = fields.value("status")? else { return Ok(None) };
    let by_name = value.as_str().and_then(|text| text.parse().ok());
    let by_number = || super::request::integer(value).and_then(RunStatus::from_number);
    by_name.or_else(by_number).map(Some).ok_or_else(|| wrong_type("status", value))
}

fn update(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let id = fields.run_id()?;
    let end_ms = fields.integer("end_time")?;
    let status = status(fields)?;
    let name = fields.text("run_name")?.map(tag_value);
    let run = call.protocol.open_runs.get(call.store(), id)?;
    run.update(status, end_ms, name)?;
    let data = run.data()?;
    if matches!(status, Some(RunStatus::Finished | RunStatus::Failed | RunStatus::Killed)) {
        // Whoever logs to it once more opens it once more.
        call.protocol.open_runs.close(Some(id));
    }
    let artifact_uri = call.door().locations(call.store()).of(&data)?.into_owned();
    #[derive(Serialize)]
    struct Updated<'a> {
        run_info: RunInfoAnswer<'a>,
    }
    json(&Updated { run_info: RunInfoAnswer::new(&data, &artifact_uri) })
}

fn delete(call: &Call<'_>) -> Answered {
    let params = call.params();
    let id = params.fields().run_id()?;
    call.store().delete_run(id)?;
    call.protocol.open_runs.close(Some(id));
    done()
}

fn restore(call: &Call<'_>) -> Answered {
    let params = call.params();
    call.store().restore_run(params.fields().run_id()?)?;
    done()
}

fn log_metric(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.run_id()?;
    let key = fields.required_text("key")?;
    fields.require("value")?;
    let value = fields.float("value")?.unwrap_or_default();
    fields.require("timestamp")?;
    let timestamp_ms = fields.integer("timestamp")?.unwrap_or_default();
    let step = fields.integer("step")?.unwrap_or(0);
    rules::metric_key(key, "")?;
    rules::metric_timestamp(key, value, timestamp_ms, "")?;
    let given = |name| fields.text(name).map(|text| text.filter(|text| !text.is_empty()));
    let model_id = given("model_id")?.map(str::to_owned);
    let dataset = given("dataset_name")?.zip(given("dataset_digest")?);
    let run = open(call, fields)?;
    if model_id.is_none() && dataset.is_none() {
        run.series(key)?.log_at(step, timestamp_ms, value)?;
    } else {
        let metric = Metric { key: key.to_owned(), point: Point { step, timestamp_ms, value } };
        let dataset = dataset.map(|(name, digest)| (name.to_owned(), digest.to_owned()));
        run.log_model_batch(&[ModelMetric { metric, model_id, dataset }], &[], &[])?;
    }
    done()
}

fn log_param(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.run_id()?;
    let (key, value) = (fields.required_text("key")?, fields.text_or_empty("value")?);
    rules::param(key, param_value(value), "")?;
    open(call, fields)?.log_param(key, param_value(value))?;
    done()
}

fn set_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.run_id()?;
    let (key, value) = (fields.required_text("key")?, fields.text_or_empty("value")?);
    rules::run_tag(key, tag_value(value), "")?;
    open(call, fields)?.set_tag(key, tag_value(value))?;
    done()
}

fn delete_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let id = fields.run_id()?;
    let key = fields.required_text("key")?;
    open(call, fields)?.delete_tag(key).map_err(|error| match error {
        Error::NotFound { what: "tag", .. } => {
            Failure::missing(format!("No tag with name: {key} in run with id {id}"))
        }
        other => other.into(),
    })?;
    done()
}

/// What a model's description must say.
const MODEL_FIELDS: [&str; 4] = ["artifact_path", "flavors", "run_id", "utc_time_created"];

/// MLflow 1's and 2's way of saying that a run made a model: one more item of the tag `mlflow.log-model.history`.
fn log_model(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.run_id()?;
    let text = fields.required_text("model_json")?;
    let malformed = || Failure::invalid(format!("Malformed model info. \n {text} \n is not a valid JSON."));
    let Ok(Value::Object(model)) = serde_json::from_str::<Value>(text) else { return Err(malformed()) };
    let missing: Vec<String> = MODEL_FIELDS
        .iter()
        .filter(|name| !model.contains_key(**name))
        .map(|name| format!("'{name}'"))
        .collect();
    if !missing.is_empty() {
        let list = missing.join(", ");
        return Err(Failure::invalid(format!("Model json is missing mandatory fields: {{{list}}}")));
    }
    open(call, fields)?.append_model_history(&Value::Object(summary_of_model(model)).to_string())?;
    done()
}

/// What MLflow keeps of a model's description in the tag.
fn summary_of_model(mut model: Map<String, Value>) -> Map<String, Value> {
    model.retain(|key, _| {
        ["run_id", "utc_time_created", "artifact_path", "model_uuid", "flavors"].contains(&key.as_str())
    });
    model.entry("model_uuid").or_insert(Value::Null);
    if let Some(Value::Object(flavors)) = model.get_mut("flavors") {
        for flavor in flavors.values_mut().filter_map(Value::as_object_mut) {
            flavor.remove("config");
        }
    }
    model
}
