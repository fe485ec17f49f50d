//! Logged models: models that runs made or used, with params, tags and metrics of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Lifecycle, Point};
use crate::error::{Error, Result};
use crate::id::Uid;

/// Whether a logged model can be used. MLflow's three statuses, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LoggedModelStatus {
    /// Being uploaded.
    #[serde(rename = "PENDING")]
    Pending = 1,
    /// Complete.
    #[serde(rename = "READY")]
    Ready = 2,
    /// Its upload failed.
    #[serde(rename = "FAILED")]
    Failed = 3,
}

impl LoggedModelStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Ready, Self::Failed];

    /// MLflow's word for it, as filters and its Python objects spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Ready => "READY",
            Self::Failed => "FAILED",
        }
    }

    /// From MLflow's number.
    pub const fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Pending,
            2 => Self::Ready,
            3 => Self::Failed,
            _ => return None,
        })
    }
}

impl fmt::Display for LoggedModelStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for LoggedModelStatus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        (1..=3).filter_map(Self::from_number).find(|status| status.as_str() == text).ok_or_else(|| {
            Error::invalid(format!(
                "'{text}' is not the status of a logged model: use PENDING, READY or FAILED"
            ))
        })
    }
}

/// A model that was logged to an experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoggedModel {
    /// Identity inside the engine.
    #[serde(serialize_with = "super::as_text")]
    pub uid: Uid,
    /// The model id: `m-` and 32 hex digits, except for odd imported ones.
    pub id: String,
    /// The experiment's identity.
    #[serde(serialize_with = "super::as_text")]
    pub experiment_uid: Uid,
    /// The experiment's id.
    pub experiment_id: String,
    /// The name.
    pub name: String,
    /// What kind of model it is, in the words of whoever logged it.
    pub model_type: Option<String>,
    /// The run that made it; also one that this store does not have.
    pub source_run_id: Option<String>,
    /// Whether it can be used.
    pub status: LoggedModelStatus,
    /// Why the status is what it is.
    pub status_message: Option<String>,
    /// Active or deleted.
    pub lifecycle: Lifecycle,
    /// When it was made.
    pub created_ms: Option<i64>,
    /// When it last changed.
    pub updated_ms: Option<i64>,
    /// Given or imported location of its files; none means where its experiment's artifacts are, at
    /// [`crate::Store::logged_model_artifact_location`].
    pub artifact_location: Option<String>,
    /// Params.
    pub params: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Of every metric the latest point for each data set, by key, name and digest.
    pub metrics: Vec<LoggedModelMetric>,
}

/// The latest point of a metric of a logged model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoggedModelMetric {
    /// The metric key.
    pub key: String,
    /// The point.
    pub point: Point,
    /// The run that logged it.
    pub run_id: Option<String>,
    /// Name and digest of the data set it was measured on.
    pub dataset: Option<(String, String)>,
}

/// A logged model that a run made, at a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutput {
    /// The model id.
    pub model_id: String,
    /// At which step of the run.
    pub step: i64,
}
