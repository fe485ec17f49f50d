//! Logged models: who answers to which id, and how they are shown.
//!
//! Contract: a model id is `m-` and the hex digits of the uid, unless a tree spells it otherwise. Metrics are for the
//! caller to fill in.

use std::sync::Arc;

use super::render::owned;
use super::{Catalog, Entity};
use crate::format::event::{EntityKind, Field};
use crate::id::Uid;
use crate::model::{LoggedModel, LoggedModelStatus};

impl Catalog {
    /// A logged model by uid.
    pub fn logged_model(&self, uid: Uid) -> Option<&Arc<Entity>> {
        self.get(EntityKind::LOGGED_MODEL, uid)
    }

    /// A logged model by its id.
    pub fn logged_model_by_id(&self, id: &str) -> Option<&Arc<Entity>> {
        self.spelt(EntityKind::LOGGED_MODEL, id, logged_model_uid(id))
    }

    /// What else than runs belongs to an experiment.
    pub fn others_of(&self, experiment: Uid) -> impl Iterator<Item = &Arc<Entity>> {
        let of =
            move |kind| self.claims.children(kind, experiment).filter_map(move |uid| self.get(kind, uid));
        of(EntityKind::LOGGED_MODEL).chain(of(EntityKind::TRACE))
    }

    /// A logged model as the caller sees it.
    pub fn render_logged_model(&self, model: &Entity) -> LoggedModel {
        let text = |field| model.text(field).map(str::to_owned);
        let experiment_uid = model.reference(Field::EXPERIMENT).unwrap_or_default();
        LoggedModel {
            uid: model.uid(),
            id: logged_model_id(model),
            experiment_uid,
            experiment_id: self.shown_experiment_id(experiment_uid),
            name: text(Field::NAME).unwrap_or_default(),
            model_type: text(Field::MODEL_TYPE),
            source_run_id: text(Field::RUN_ID),
            status: model
                .integer(Field::STATUS)
                .and_then(LoggedModelStatus::from_number)
                .unwrap_or(LoggedModelStatus::Ready),
            status_message: text(Field::STATUS_MESSAGE),
            lifecycle: model.lifecycle(),
            created_ms: model.integer(Field::CREATED_MS),
            updated_ms: model.integer(Field::UPDATED_MS),
            artifact_location: text(Field::ARTIFACT_LOCATION),
            params: owned(model.params()),
            tags: owned(model.tags()),
            metrics: Vec::new(),
        }
    }
}

/// The uid that a model id stands for.
pub fn logged_model_uid(id: &str) -> Option<Uid> {
    id.strip_prefix("m-").unwrap_or(id).parse().ok()
}

/// The model id as its tree spells it; else the one that follows from the uid.
pub fn logged_model_id(model: &Entity) -> String {
    model.text(Field::RUN_ID_TEXT).map_or_else(|| format!("m-{}", model.uid()), str::to_owned)
}
