//! Traces: what one request to an application did, as a tree of spans, and what people and programs said of it.
//!
//! Contract: texts that are JSON are kept as they came; the engine reads them only where a filter asks about them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::Uid;

/// How a request ended. MLflow's states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TraceState {
    /// Not said.
    #[default]
    StateUnspecified,
    /// Well.
    Ok,
    /// With an error.
    Error,
    /// Not yet.
    InProgress,
}

impl TraceState {
    const ALL: [Self; 4] = [Self::StateUnspecified, Self::Ok, Self::Error, Self::InProgress];

    /// MLflow's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StateUnspecified => "STATE_UNSPECIFIED",
            Self::Ok => "OK",
            Self::Error => "ERROR",
            Self::InProgress => "IN_PROGRESS",
        }
    }
}

impl fmt::Display for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TraceState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            Error::invalid(format!("'{text}' is not the state of a trace: use OK, ERROR or IN_PROGRESS"))
        })
    }
}

/// A trace, without its spans.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceInfo {
    /// Identity inside the engine.
    #[serde(serialize_with = "super::as_text")]
    pub uid: Uid,
    /// The trace id: `tr-` and 32 hex digits, or whatever its maker chose.
    pub id: String,
    /// The experiment's identity.
    #[serde(serialize_with = "super::as_text")]
    pub experiment_uid: Uid,
    /// The experiment's id.
    pub experiment_id: String,
    /// What the application calls the request.
    pub client_request_id: Option<String>,
    /// When the request came, in milliseconds since 1970.
    pub request_ms: i64,
    /// How long it took.
    pub execution_ms: Option<i64>,
    /// How it ended.
    pub state: TraceState,
    /// The beginning of what was asked.
    pub request_preview: Option<String>,
    /// The beginning of what was answered.
    pub response_preview: Option<String>,
    /// Tags, `mlflow.traceName` among them.
    pub tags: BTreeMap<String, String>,
    /// What its maker noted of it.
    pub metadata: BTreeMap<String, String>,
    /// What was said of it, oldest first.
    pub assessments: Vec<Assessment>,
}

/// A judgement of a trace or a span: feedback on it, or what is expected of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessment {
    /// Its id: `a-` and 32 hex digits; one is made for an assessment without.
    pub id: String,
    /// What is judged ("correctness", ...).
    pub name: String,
    /// Who judges: `HUMAN`, `LLM_JUDGE`, `CODE`, ...
    pub source_type: String,
    /// Who of these.
    pub source_id: String,
    /// When it was made, in milliseconds since 1970; now, if not said.
    pub created_ms: Option<i64>,
    /// When it last changed; now, if not said.
    pub updated_ms: Option<i64>,
    /// What it says.
    pub value: AssessmentValue,
    /// Why.
    pub rationale: Option<String>,
    /// The span it is about, if not the whole trace.
    pub span_id: Option<String>,
    /// The assessment that it replaces, which is not valid any more.
    pub overrides: Option<String>,
    /// Whether it counts; not said of those that MLflow 2 made.
    pub valid: Option<bool>,
    /// More about it.
    pub metadata: BTreeMap<String, String>,
}

/// What an assessment says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssessmentValue {
    /// Feedback: a value as JSON, or why there is none.
    Feedback {
        /// The value, JSON.
        value: Option<String>,
        /// Why judging failed.
        error: Option<AssessmentError>,
    },
    /// What is expected: a value as JSON.
    Expectation {
        /// The value, JSON.
        value: String,
    },
    /// An issue found in the trace: its name.
    Issue {
        /// The name.
        name: String,
    },
}

impl Default for AssessmentValue {
    fn default() -> Self {
        Self::Feedback { value: None, error: None }
    }
}

/// Why judging failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssessmentError {
    /// What kind of error.
    pub code: String,
    /// What it said.
    pub message: Option<String>,
    /// Where it came from.
    pub stack_trace: Option<String>,
}

/// One step of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its id: 16 hex digits.
    pub id: String,
    /// The span that it is a part of; none for the root.
    pub parent_id: Option<String>,
    /// What it did.
    pub name: String,
    /// What kind of step it is (`LLM`, `TOOL`, ...).
    pub span_type: Option<String>,
    /// `OK`, `ERROR` or `UNSET`.
    pub status: String,
    /// When it began, in nanoseconds since 1970.
    pub start_ns: i64,
    /// When it ended.
    pub end_ns: Option<i64>,
    /// All of it as JSON, as MLflow's `Span.to_dict` gives it.
    pub content: String,
}
