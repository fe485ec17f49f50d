//! Logged models, from their files.
//!
//! Contract: a directory in an experiment's `models/` is a logged model if its `meta.yaml` names one; anything else is
//! kept as files of the experiment. A model keeps its id as identity if its directory is named by it and nothing else
//! in the store has it; otherwise its identity is hashed and the id is a text beside it.

use std::path::Path;

use super::Registers;
use super::files::{Files, describe};
use super::meta::{
    Fields, integer_at, integer_node, integer_of, integer_value, lifecycle_at, lifecycle_of, text_at,
    text_node, text_of, text_value,
};
use super::path::key_of;
use super::plan::{EntityPlan, META};
use super::registry::Placed;
use super::shape::{Described, Key};
use super::yaml_node::Node;
use crate::catalog::logged_model_uid;
use crate::error::Result;
use crate::format::event::{EntityKind, Field, Value};
use crate::id::Uid;
use crate::model::{Lifecycle, LoggedModelStatus};

/// A logged model as its file shows it.
#[derive(Clone, Debug, Default)]
pub(super) struct LoggedModelMeta {
    pub(super) id: String,
    /// The id of the experiment it is in; not a field of its own.
    pub(super) experiment_id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) model_type: Option<String>,
    pub(super) run_id: Option<String>,
    pub(super) status: Option<i64>,
    pub(super) status_message: Option<String>,
    pub(super) lifecycle: Option<Lifecycle>,
    pub(super) artifact_location: Option<String>,
    pub(super) created: Option<i64>,
    pub(super) updated: Option<i64>,
}

impl LoggedModelMeta {
    /// What a file says, if it names a model; oddities go to `notes`.
    pub(super) fn from_document(
        document: &Node,
        experiment: Option<&String>,
        notes: &mut Vec<String>,
    ) -> Option<Self> {
        let id = text_at(document, "model_id")?;
        if text_at(document, "experiment_id").as_ref() != experiment {
            notes.push("experiment_id is not that of the experiment; MLflow cannot get this model".into());
        }
        Some(Self {
            id,
            experiment_id: experiment.cloned(),
            name: text_at(document, "name"),
            model_type: text_at(document, "model_type"),
            run_id: text_at(document, "source_run_id"),
            status: integer_at(document, "status", notes),
            status_message: text_at(document, "status_message"),
            lifecycle: document.get("lifecycle_stage").and_then(|_| lifecycle_at(document, notes)),
            artifact_location: text_at(document, "artifact_location"),
            created: integer_at(document, "creation_timestamp", notes),
            updated: integer_at(document, "last_updated_timestamp", notes),
        })
    }

    /// From the store.
    pub(super) fn from_registers(registers: &Registers, id: String, experiment_id: Option<String>) -> Self {
        let text = |field| text_of(registers, field, "");
        Self {
            id,
            experiment_id,
            name: text(Field::NAME),
            model_type: text(Field::MODEL_TYPE),
            run_id: text(Field::RUN_ID),
            status: integer_of(registers, Field::STATUS),
            status_message: text(Field::STATUS_MESSAGE),
            lifecycle: lifecycle_of(registers),
            artifact_location: text(Field::ARTIFACT_LOCATION),
            created: integer_of(registers, Field::CREATED_MS),
            updated: integer_of(registers, Field::UPDATED_MS),
        }
    }

    /// For the store.
    pub(super) fn fields(&self) -> Fields {
        let lifecycle = self.lifecycle.unwrap_or(Lifecycle::Active);
        vec![
            (Field::NAME, text_value(self.name.as_ref())),
            (Field::MODEL_TYPE, text_value(self.model_type.as_ref())),
            (Field::RUN_ID, text_value(self.run_id.as_ref())),
            (Field::STATUS, integer_value(self.status)),
            (Field::STATUS_MESSAGE, text_value(self.status_message.as_ref())),
            (Field::LIFECYCLE, Value::Text(lifecycle.as_str().into())),
            (Field::ARTIFACT_LOCATION, text_value(self.artifact_location.as_ref())),
            (Field::CREATED_MS, integer_value(self.created)),
            (Field::UPDATED_MS, integer_value(self.updated)),
        ]
    }
}

impl Described for LoggedModelMeta {
    const KEYS: &'static [Key] = &[
        Key::new("artifact_location"),
        Key::new("creation_timestamp"),
        Key::fixed("experiment_id"),
        Key::new("last_updated_timestamp"),
        Key::rare("lifecycle_stage"),
        Key::fixed("model_id"),
        Key::new("model_type"),
        Key::new("name"),
        Key::new("source_run_id"),
        Key::new("status"),
        Key::new("status_message"),
    ];

    fn node(&self, key: &str) -> Option<Node> {
        Some(match key {
            "artifact_location" => text_node(self.artifact_location.as_ref()),
            "creation_timestamp" => integer_node(self.created),
            "experiment_id" => text_node(self.experiment_id.as_ref()),
            "last_updated_timestamp" => integer_node(self.updated),
            // MLflow writes "active" into a model that is new, and leaves it out from its first change on.
            "lifecycle_stage" => {
                let deleted = self.lifecycle.filter(|lifecycle| *lifecycle == Lifecycle::Deleted);
                return deleted.map(|lifecycle| Node::text(lifecycle.as_str()));
            }
            "model_id" => Node::text(&self.id),
            "model_type" => text_node(self.model_type.as_ref()),
            "name" => text_node(self.name.as_ref()),
            "source_run_id" => text_node(self.run_id.as_ref()),
            "status" => Node::integer(self.status.unwrap_or(LoggedModelStatus::Ready as i64)),
            "status_message" => text_node(self.status_message.as_ref()),
            _ => return None,
        })
    }
}

/// What logged models and traces need to know of where they lie.
pub(super) struct OwnerContext<'a> {
    pub(super) tree: Uid,
    pub(super) experiment: Uid,
    pub(super) experiment_id: Option<&'a String>,
}

/// The identities that something in an experiment can have.
pub(super) struct Identities {
    /// The one that its id stands for, if its directory is named by that.
    pub(super) own: Option<Uid>,
    /// For one whose own is something else's.
    pub(super) hashed: Uid,
}

/// The identities of the logged model in a directory; nothing if it is none.
pub(super) fn logged_model_at(
    files: &mut dyn Files,
    directory: &Path,
    experiment: Uid,
) -> Option<Identities> {
    let id = text_at(&files.peek(&directory.join(META))?, "model_id")?;
    let name = directory.file_name().and_then(|name| name.to_str());
    let own = logged_model_uid(&id).filter(|own| name == Some(&*format!("m-{own}")) && name == Some(&*id));
    let place = key_of(directory);
    let hashed = Uid::derived("mlruns logged model", &[experiment.as_bytes(), place.as_bytes()]);
    Some(Identities { own, hashed })
}

/// The logged model in a directory.
pub(super) fn logged_model(
    files: &mut dyn Files,
    directory: &Path,
    uid: Uid,
    context: &OwnerContext<'_>,
) -> Result<Option<Placed>> {
    let mut notes = Vec::new();
    let file = directory.join(META);
    let read = files.yaml(&file)?;
    let document = read.as_ref().and_then(|file| file.document.as_ref());
    let meta = document.and_then(|d| LoggedModelMeta::from_document(d, context.experiment_id, &mut notes));
    let Some(meta) = meta else { return Ok(None) };
    let name = directory.file_name().and_then(|name| name.to_str());
    if name != Some(&meta.id) {
        notes
            .push("model_id is not the name of the directory; MLflow cannot get this model by its id".into());
    }
    notes.into_iter().for_each(|note| files.problem(&file, note));
    let place = key_of(directory);
    let mut plan = EntityPlan::new(EntityKind::LOGGED_MODEL, uid, place);
    plan.set(Field::TREE, "", Value::Uid(context.tree));
    plan.set(Field::EXPERIMENT, "", Value::Uid(context.experiment));
    if meta.id != format!("m-{uid}") {
        plan.set(Field::RUN_ID_TEXT, "", Value::Text(meta.id.clone()));
    }
    for child in files.children(directory)? {
        match child.name() {
            Some(META) if !child.is_dir => {}
            Some("tags") if child.is_dir => files.values(&mut plan, directory, &child.path, Field::TAG)?,
            Some("params") if child.is_dir => {
                files.values(&mut plan, directory, &child.path, Field::PARAM)?
            }
            Some("metrics") if child.is_dir => files.metrics(&mut plan, directory, &child)?,
            Some("artifacts") if child.is_dir => files.artifacts(&mut plan, directory, &child)?,
            _ => files.stray(&mut plan, directory, &child)?,
        }
    }
    describe(&mut plan, read, &meta, meta.fields(), &mut |bytes| files.keep(bytes))?;
    Ok(Some((plan, directory.to_path_buf())))
}
