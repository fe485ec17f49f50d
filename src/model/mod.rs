//! The nouns: plain data without I/O.
//!
//! Contract: what a caller gets from the store and hands to it. Timestamps are milliseconds since 1970 (UTC), steps are
//! signed, values are any `f64`, bit-exact.

mod logged_model;
mod moment;
mod registry;
mod trace;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use logged_model::{LoggedModel, LoggedModelMetric, LoggedModelStatus, ModelOutput};
#[cfg(feature = "cli")]
pub(crate) use moment::{day_of, days_of};
pub(crate) use moment::{moment_of, moment_text};
pub use registry::{ModelStage, ModelVersion, RegisteredModel};
pub use trace::{Assessment, AssessmentError, AssessmentValue, Span, TraceInfo, TraceState};

use crate::error::{Error, Result};
use crate::id::Uid;

/// One logged point of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The step; may be negative, may repeat.
    pub step: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The value, bit-exact (NaN payloads, infinities and -0.0 included).
    pub value: f64,
}

/// Points as three columns of equal length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Points {
    /// Steps.
    pub steps: Vec<i64>,
    /// Milliseconds since 1970.
    pub timestamps_ms: Vec<i64>,
    /// Values.
    pub values: Vec<f64>,
}

impl Points {
    /// How many points.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Appends one point.
    pub fn push(&mut self, point: Point) {
        self.steps.push(point.step);
        self.timestamps_ms.push(point.timestamp_ms);
        self.values.push(point.value);
    }

    /// The point at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<Point> {
        Some(Point {
            step: *self.steps.get(index)?,
            timestamp_ms: *self.timestamps_ms.get(index)?,
            value: *self.values.get(index)?,
        })
    }

    /// All points in order.
    pub fn iter(&self) -> impl Iterator<Item = Point> + '_ {
        self.steps
            .iter()
            .zip(&self.timestamps_ms)
            .zip(&self.values)
            .map(|((&step, &timestamp_ms), &value)| Point { step, timestamp_ms, value })
    }
}

impl FromIterator<Point> for Points {
    fn from_iter<T: IntoIterator<Item = Point>>(points: T) -> Self {
        let mut all = Self::default();
        points.into_iter().for_each(|p| all.push(p));
        all
    }
}

/// Where a run stands. MLflow's five statuses, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStatus {
    /// Being executed.
    Running = 1,
    /// To be executed later.
    Scheduled = 2,
    /// Ended well.
    Finished = 3,
    /// Ended with an error.
    Failed = 4,
    /// Ended by somebody.
    Killed = 5,
}

impl RunStatus {
    /// MLflow's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Scheduled => "SCHEDULED",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
        }
    }

    /// From MLflow's number.
    pub const fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Running,
            2 => Self::Scheduled,
            3 => Self::Finished,
            4 => Self::Failed,
            5 => Self::Killed,
            _ => return None,
        })
    }

    /// Whether the run is over.
    pub const fn is_terminated(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Killed)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RunStatus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        (1..=5).filter_map(Self::from_number).find(|s| s.as_str() == text).ok_or_else(|| {
            Error::invalid(format!(
                "'{text}' is not a run status: use RUNNING, SCHEDULED, FINISHED, FAILED or KILLED"
            ))
        })
    }
}

/// Active or deleted. Deleted things can be restored until they are purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// In use.
    Active,
    /// In the bin.
    Deleted,
}

impl Lifecycle {
    /// MLflow's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deleted => "deleted",
        }
    }
}

/// An experiment: a named group of runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Experiment {
    /// Identity inside the engine.
    #[serde(serialize_with = "as_text")]
    pub uid: Uid,
    /// MLflow's experiment id (decimal digits).
    pub id: String,
    /// The name.
    pub name: String,
    /// Active or deleted.
    pub lifecycle: Lifecycle,
    /// Given or imported location of artifacts; none means inside the store, at
    /// [`crate::Store::experiment_artifact_location`].
    pub artifact_location: Option<String>,
    /// When it was made; trees of MLflow 1.x do not say.
    pub created_ms: Option<i64>,
    /// When it last changed.
    pub updated_ms: Option<i64>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A run with its params, tags and latest metric values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunData {
    /// Identity inside the engine.
    #[serde(serialize_with = "as_text")]
    pub uid: Uid,
    /// The run id (32 hex digits, except for odd imported ones).
    pub id: String,
    /// The experiment's identity.
    #[serde(serialize_with = "as_text")]
    pub experiment_uid: Uid,
    /// The experiment's id.
    pub experiment_id: String,
    /// The display name.
    pub name: String,
    /// Status.
    pub status: RunStatus,
    /// Active or deleted.
    pub lifecycle: Lifecycle,
    /// When it started.
    pub start_ms: Option<i64>,
    /// When it ended.
    pub end_ms: Option<i64>,
    /// When it was deleted.
    pub deleted_ms: Option<i64>,
    /// Who ran it.
    pub user: String,
    /// Given or imported artifact URI; none means where its experiment's artifacts are, at
    /// [`crate::Store::run_artifact_location`].
    pub artifact_uri: Option<String>,
    /// Params.
    pub params: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Latest point of every metric: greatest (step, timestamp, value), as MLflow defines it.
    pub metrics: BTreeMap<String, Point>,
    /// Data set inputs.
    pub inputs: Vec<DatasetInput>,
    /// Ids of the logged models that it used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model_inputs: Vec<String>,
    /// Logged models that it made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model_outputs: Vec<ModelOutput>,
}

/// A data set that runs can name as input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// Name.
    pub name: String,
    /// Digest of the content, at most 36 characters.
    pub digest: String,
    /// Kind of source ("local", "s3", ...).
    pub source_type: String,
    /// Where it came from (JSON text).
    pub source: String,
    /// Its schema (JSON text).
    pub schema: Option<String>,
    /// Its profile (JSON text).
    pub profile: Option<String>,
}

/// A data set as input of a run, with the tags of that use (`mlflow.data.context`, ...).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetInput {
    /// The data set.
    pub dataset: Dataset,
    /// Tags of this use.
    pub tags: BTreeMap<String, String>,
}

fn as_text<S: serde::Serializer>(uid: &Uid, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(uid)
}
