//! From entities to the nouns of `model`.
//!
//! Contract: a register that is missing or of an odd type becomes MLflow's default (a run without a status is running),
//! never an error: what was logged must stay readable.

use super::{Catalog, Entity, fallback_id};
use crate::format::event::{EntityKind, Field, ValueRef};
use crate::format::input_tags::decode_input_tags;
use crate::id::Uid;
use crate::model::{Dataset, DatasetInput, Experiment, ModelOutput, RunData, RunStatus};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The tag that MLflow keeps equal to a run's name.
pub(super) const RUN_NAME_TAG: &str = "mlflow.runName";

impl Catalog {
    /// An experiment as the caller sees it.
    pub fn render_experiment(&self, entity: &Entity) -> Experiment {
        let text = |field| entity.text(field).map(str::to_owned);
        Experiment {
            uid: entity.uid(),
            id: self.experiment_id(entity.uid()),
            name: text(Field::NAME).unwrap_or_default(),
            lifecycle: entity.lifecycle(),
            artifact_location: text(Field::ARTIFACT_LOCATION),
            created_ms: entity.integer(Field::CREATED_MS),
            updated_ms: entity.integer(Field::UPDATED_MS),
            tags: owned(entity.tags()),
        }
    }

    /// A run as the caller sees it; its metrics are for the caller to fill in.
    pub fn render_run(&self, entity: &Entity) -> RunData {
        let text = |field| entity.text(field).map(str::to_owned);
        let experiment_uid = entity.reference(Field::EXPERIMENT).unwrap_or_default();
        let tags = owned(entity.tags());
        RunData {
            uid: entity.uid(),
            id: run_id(entity),
            experiment_uid,
            experiment_id: self.shown_experiment_id(experiment_uid),
            name: text(Field::NAME).or_else(|| tags.get(RUN_NAME_TAG).cloned()).unwrap_or_default(),
            status: entity
                .integer(Field::STATUS)
                .and_then(RunStatus::from_number)
                .unwrap_or(RunStatus::Running),
            lifecycle: entity.lifecycle(),
            start_ms: entity.integer(Field::START_MS),
            end_ms: entity.integer(Field::END_MS),
            deleted_ms: entity.integer(Field::DELETED_MS),
            user: text(Field::USER).unwrap_or_default(),
            artifact_uri: text(Field::ARTIFACT_URI),
            params: owned(entity.params()),
            tags,
            metrics: BTreeMap::new(),
            inputs: self.inputs(entity),
            model_inputs: entity
                .entries(Field::MODEL_INPUT)
                .filter(|(_, _, value)| *value != ValueRef::Absent)
                .map(|(id, ..)| id.to_owned())
                .collect(),
            model_outputs: entity
                .entries(Field::MODEL_OUTPUT)
                .filter_map(|(id, _, step)| {
                    Some(ModelOutput { model_id: id.to_owned(), step: step.integer()? })
                })
                .collect(),
        }
    }

    /// The id of the experiment that something is in.
    pub(super) fn shown_experiment_id(&self, experiment: Uid) -> String {
        match self.experiment(experiment) {
            Some(_) => self.experiment_id(experiment),
            // Only points are left of it.
            None if experiment == Uid::default() => String::new(),
            None => fallback_id(experiment),
        }
    }

    fn inputs(&self, run: &Entity) -> Vec<DatasetInput> {
        run.entries(Field::INPUT)
            .filter_map(|(key, _, value)| {
                let ValueRef::Bytes(bytes) = value else { return None };
                let dataset = self.get(EntityKind::DATASET, key.parse::<Uid>().ok()?)?;
                Some(DatasetInput {
                    dataset: render_dataset(dataset),
                    tags: decode_input_tags(bytes).unwrap_or_default(),
                })
            })
            .collect()
    }
}

/// A data set as the caller sees it.
pub fn render_dataset(entity: &Entity) -> Dataset {
    let text = |field| entity.text(field).map(str::to_owned);
    Dataset {
        name: text(Field::NAME).unwrap_or_default(),
        digest: text(Field::DIGEST).unwrap_or_default(),
        source_type: text(Field::SOURCE_TYPE).unwrap_or_default(),
        source: text(Field::SOURCE).unwrap_or_default(),
        schema: text(Field::SCHEMA),
        profile: text(Field::PROFILE),
    }
}

/// The run id as its tree spells it; else the uid's hex digits.
pub fn run_id(entity: &Entity) -> String {
    entity.text(Field::RUN_ID_TEXT).map_or_else(|| entity.uid().to_string(), str::to_owned)
}

pub(super) fn owned<'a>(pairs: impl Iterator<Item = (&'a str, Cow<'a, str>)>) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.into_owned())).collect()
}
