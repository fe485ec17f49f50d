//! The model registry: registered models and their versions.
//!
//! Contract: a registered model is known by its name, a version by its model's name and its number. Prompts are
//! registered models with the tag `mlflow.prompt.is_prompt`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::Uid;

/// Where a model version stands in its life. MLflow's four stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ModelStage {
    /// In none of the others.
    #[default]
    None,
    /// Being tried.
    Staging,
    /// In use.
    Production,
    /// No longer in use.
    Archived,
}

impl ModelStage {
    /// All of them, in MLflow's order.
    pub const ALL: [Self; 4] = [Self::None, Self::Staging, Self::Production, Self::Archived];

    /// MLflow's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Staging => "Staging",
            Self::Production => "Production",
            Self::Archived => "Archived",
        }
    }

    /// Whether versions in it are the ones that are looked at: only these can be archived by a transition.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Staging | Self::Production)
    }
}

impl fmt::Display for ModelStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ModelStage {
    type Err = Error;

    /// Letters may be of either case, as in MLflow.
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| {
            Error::invalid(format!(
                "Invalid Model Version stage: {text}. Value must be one of None, Staging, Production, Archived."
            ))
        })
    }
}

/// A registered model: a name under which versions of a model are kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegisteredModel {
    /// Identity inside the engine; calls that take a name take it too.
    #[serde(serialize_with = "super::as_text")]
    pub uid: Uid,
    /// The name.
    pub name: String,
    /// What somebody wrote about it.
    pub description: Option<String>,
    /// When it was made.
    pub created_ms: Option<i64>,
    /// When it last changed.
    pub updated_ms: Option<i64>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Version numbers by alias.
    pub aliases: BTreeMap<String, u64>,
    /// The greatest version in each stage that has one, in the order of stages.
    pub latest_versions: Vec<ModelVersion>,
}

/// A version of a registered model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelVersion {
    /// Identity inside the engine.
    #[serde(serialize_with = "super::as_text")]
    pub uid: Uid,
    /// The name of its registered model.
    pub name: String,
    /// Its number within the model, from 1; never given out twice.
    pub version: u64,
    /// Where it stands.
    pub stage: ModelStage,
    /// What somebody wrote about it.
    pub description: Option<String>,
    /// When it was made.
    pub created_ms: Option<i64>,
    /// When it last changed.
    pub updated_ms: Option<i64>,
    /// Who made it.
    pub user: Option<String>,
    /// Where the model was when it was registered.
    pub source: Option<String>,
    /// Where its files are, if that is not the source.
    pub storage_location: Option<String>,
    /// The run that made it; also one that this store does not have.
    pub run_id: Option<String>,
    /// A page that shows that run.
    pub run_link: Option<String>,
    /// The logged model that was registered.
    pub model_id: Option<String>,
    /// `READY`, unless imported otherwise.
    pub status: String,
    /// Why the status is what it is.
    pub status_message: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// The aliases that name it, sorted.
    pub aliases: Vec<String>,
}

impl ModelVersion {
    /// Where its files are to be had.
    pub fn download_uri(&self) -> Option<&str> {
        let given = self.storage_location.as_deref().filter(|location| !location.is_empty());
        given.or(self.source.as_deref())
    }
}
