//! Spelling answers: what MLflow's messages look like in JSON.
//!
//! Contract: fields are named and left out as MLflow does it: what is not set is not there, nor are empty lists;
//! integers are numbers; floats that JSON has no number for are the texts `"NaN"`, `"Infinity"`, `"-Infinity"`. Answers
//! are written straight from what the store returned.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::failure::{Code, Failure};
use crate::model::{
    DatasetInput, Experiment, LoggedModel, LoggedModelMetric, LoggedModelStatus, Point, RunData,
};

/// The body of an answer.
pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::with_capacity(256);
    match serde_json::to_writer(&mut body, value) {
        Ok(()) => Ok(body),
        Err(error) => Err(Failure::new(Code::InternalError, error.to_string())),
    }
}

/// The answer of a call that says nothing but that it was done.
pub(super) fn done() -> Result<Vec<u8>, Failure> {
    Ok(b"{}".to_vec())
}

/// A float, as proto3's JSON has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Double(pub(super) f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_finite() => serializer.serialize_f64(value),
            value if value.is_nan() => serializer.serialize_str("NaN"),
            value if value > 0.0 => serializer.serialize_str("Infinity"),
            _ => serializer.serialize_str("-Infinity"),
        }
    }
}

/// Keys and values as a list of `{"key", "value"}`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs<'a>(pub(super) &'a BTreeMap<String, String>);

#[derive(Serialize)]
struct Pair<'a> {
    key: &'a str,
    value: &'a str,
}

impl Pairs<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(key, value)| Pair { key, value }))
    }
}

/// One point of a metric.
#[derive(Serialize)]
pub(super) struct MetricAnswer<'a> {
    key: &'a str,
    value: Double,
    timestamp: i64,
    step: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<&'a str>,
}

impl<'a> MetricAnswer<'a> {
    pub(super) fn new(key: &'a str, point: Point, run_id: Option<&'a str>) -> Self {
        Self { key, value: Double(point.value), timestamp: point.timestamp_ms, step: point.step, run_id }
    }
}

/// The latest values of a run's metrics.
struct LatestMetrics<'a>(&'a BTreeMap<String, Point>);

impl Serialize for LatestMetrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(key, point)| MetricAnswer::new(key, *point, None)))
    }
}

#[derive(Serialize)]
pub(super) struct ExperimentAnswer<'a> {
    experiment_id: &'a str,
    name: &'a str,
    artifact_location: Cow<'a, str>,
    lifecycle_stage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_time: Option<i64>,
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    tags: Pairs<'a>,
}

impl<'a> ExperimentAnswer<'a> {
    pub(super) fn new(experiment: &'a Experiment, artifact_location: Cow<'a, str>) -> Self {
        Self {
            experiment_id: &experiment.id,
            name: &experiment.name,
            artifact_location,
            lifecycle_stage: experiment.lifecycle.as_str(),
            last_update_time: experiment.updated_ms,
            creation_time: experiment.created_ms,
            tags: Pairs(&experiment.tags),
        }
    }
}

/// What is known of a run but its data; `artifact_uri` is where the door says its artifacts are.
#[derive(Serialize)]
pub(super) struct RunInfoAnswer<'a> {
    run_id: &'a str,
    /// What MLflow 1 called it.
    run_uuid: &'a str,
    run_name: &'a str,
    experiment_id: &'a str,
    user_id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<i64>,
    artifact_uri: &'a str,
    lifecycle_stage: &'static str,
}

impl<'a> RunInfoAnswer<'a> {
    pub(super) fn new(run: &'a RunData, artifact_uri: &'a str) -> Self {
        Self {
            run_id: &run.id,
            run_uuid: &run.id,
            run_name: &run.name,
            experiment_id: &run.experiment_id,
            user_id: &run.user,
            status: run.status.as_str(),
            start_time: run.start_ms,
            end_time: run.end_ms,
            artifact_uri,
            lifecycle_stage: run.lifecycle.as_str(),
        }
    }
}

struct RunDataAnswer<'a>(&'a RunData);

impl Serialize for RunDataAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.0.metrics.is_empty() {
            map.serialize_entry("metrics", &LatestMetrics(&self.0.metrics))?;
        }
        if !self.0.params.is_empty() {
            map.serialize_entry("params", &Pairs(&self.0.params))?;
        }
        if !self.0.tags.is_empty() {
            map.serialize_entry("tags", &Pairs(&self.0.tags))?;
        }
        map.end()
    }
}

struct DatasetInputs<'a>(&'a [DatasetInput]);

impl Serialize for DatasetInputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct One<'a> {
            #[serde(skip_serializing_if = "Pairs::is_empty")]
            tags: Pairs<'a>,
            dataset: Dataset<'a>,
        }
        #[derive(Serialize)]
        struct Dataset<'a> {
            name: &'a str,
            digest: &'a str,
            source_type: &'a str,
            source: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            schema: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            profile: Option<&'a str>,
        }
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for input in self.0 {
            let dataset = Dataset {
                name: &input.dataset.name,
                digest: &input.dataset.digest,
                source_type: &input.dataset.source_type,
                source: &input.dataset.source,
                schema: input.dataset.schema.as_deref(),
                profile: input.dataset.profile.as_deref(),
            };
            list.serialize_element(&One { tags: Pairs(&input.tags), dataset })?;
        }
        list.end()
    }
}

struct RunInputsAnswer<'a>(&'a RunData);

impl Serialize for RunInputsAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.0.inputs.is_empty() {
            map.serialize_entry("dataset_inputs", &DatasetInputs(&self.0.inputs))?;
        }
        if !self.0.model_inputs.is_empty() {
            let models: Vec<_> = self.0.model_inputs.iter().map(|model_id| ModelInput { model_id }).collect();
            map.serialize_entry("model_inputs", &models)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct ModelInput<'a> {
    model_id: &'a str,
}

struct RunOutputsAnswer<'a>(&'a RunData);

impl Serialize for RunOutputsAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.0.model_outputs.is_empty() {
            map.serialize_entry("model_outputs", &self.0.model_outputs)?;
        }
        map.end()
    }
}

/// A run with its data, inputs and outputs.
pub(super) struct RunAnswer<'a> {
    pub(super) run: &'a RunData,
    pub(super) artifact_uri: &'a str,
    /// A new run has no outputs; an old one without any has an empty object.
    pub(super) is_new: bool,
}

impl Serialize for RunAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("info", &RunInfoAnswer::new(self.run, self.artifact_uri))?;
        map.serialize_entry("data", &RunDataAnswer(self.run))?;
        map.serialize_entry("inputs", &RunInputsAnswer(self.run))?;
        if !self.is_new {
            map.serialize_entry("outputs", &RunOutputsAnswer(self.run))?;
        }
        map.end()
    }
}

/// `{"run": ...}`.
#[derive(Serialize)]
pub(super) struct OneRun<'a> {
    pub(super) run: RunAnswer<'a>,
}

/// The protocol's word for the status of a logged model, which is not that of filters.
pub(super) const fn status_name(status: LoggedModelStatus) -> &'static str {
    match status {
        LoggedModelStatus::Pending => "LOGGED_MODEL_PENDING",
        LoggedModelStatus::Ready => "LOGGED_MODEL_READY",
        LoggedModelStatus::Failed => "LOGGED_MODEL_UPLOAD_FAILED",
    }
}

/// A logged model; `artifact_uri` is where the door says its files are.
pub(super) struct LoggedModelAnswer<'a> {
    pub(super) model: &'a LoggedModel,
    pub(super) artifact_uri: &'a str,
}

#[derive(Serialize)]
struct LoggedModelInfo<'a> {
    model_id: &'a str,
    experiment_id: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_timestamp_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_updated_timestamp_ms: Option<i64>,
    artifact_uri: &'a str,
    status: &'static str,
    /// Empty where it was not said, as in MLflow.
    model_type: &'a str,
    source_run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<&'a str>,
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    tags: Pairs<'a>,
}

struct LoggedModelData<'a>(&'a LoggedModel);

impl Serialize for LoggedModelData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.0.params.is_empty() {
            map.serialize_entry("params", &Pairs(&self.0.params))?;
        }
        if !self.0.metrics.is_empty() {
            let answers = self.0.metrics.iter().map(|metric| ModelMetricAnswer::new(&self.0.id, metric));
            map.serialize_entry("metrics", &answers.collect::<Vec<_>>())?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct ModelMetricAnswer<'a> {
    key: &'a str,
    value: Double,
    timestamp: i64,
    step: i64,
    model_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<&'a str>,
}

impl<'a> ModelMetricAnswer<'a> {
    fn new(model_id: &'a str, metric: &'a LoggedModelMetric) -> Self {
        let dataset = metric.dataset.as_ref();
        Self {
            key: &metric.key,
            value: Double(metric.point.value),
            timestamp: metric.point.timestamp_ms,
            step: metric.point.step,
            model_id,
            dataset_name: dataset.map(|(name, _)| name.as_str()),
            dataset_digest: dataset.map(|(_, digest)| digest.as_str()),
            run_id: metric.run_id.as_deref(),
        }
    }
}

impl Serialize for LoggedModelAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { model, artifact_uri } = *self;
        let info = LoggedModelInfo {
            model_id: &model.id,
            experiment_id: &model.experiment_id,
            name: &model.name,
            creation_timestamp_ms: model.created_ms,
            last_updated_timestamp_ms: model.updated_ms,
            artifact_uri,
            status: status_name(model.status),
            model_type: model.model_type.as_deref().unwrap_or_default(),
            source_run_id: model.source_run_id.as_deref().unwrap_or_default(),
            status_message: model.status_message.as_deref(),
            tags: Pairs(&model.tags),
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("info", &info)?;
        map.serialize_entry("data", &LoggedModelData(model))?;
        map.end()
    }
}
