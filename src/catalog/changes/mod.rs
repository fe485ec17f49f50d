//! From calls to operations: what each verb of the API writes.
//!
//! Contract: pure. A function checks the rules against the catalog and returns the operations of one event; it changes
//! nothing. An empty list means that there is nothing to write. Randomness and the time come from the caller. Whoever
//! needs a claim (a name, a param of another writer's run) to hold must have caught up under the lock before.
//!
//! Where MLflow's SQL and file stores differ, the choice is the one that loses nothing and surprises neither:
//!
//! * Deleting a deleted run, or restoring an active one, does nothing. Deleting a deleted experiment, or restoring an
//!   active one, is "not found" (both stores).
//! * Deleting an experiment deletes its active runs; those deleted before keep their time (file store). Restoring
//!   revives every run (both stores).
//! * The default experiment can be deleted like any other (SQL).
//! * Renaming an experiment to its own name does nothing; renaming a deleted one is an error; a deleted experiment
//!   keeps its name (both stores).
//! * An equal param again writes nothing; of a batch with one changed param nothing is written (SQL).
//! * Data set inputs keep the tags they were first logged with (both stores).
//! * Deleting a registered model is for good (both stores); a deleted version keeps what it said (file store; SQL blots
//!   out its source and run).
//! * Renaming a registered model to its own name does nothing (SQL; the file store refuses).
//! * A deleted logged model may be written to, and deleted again (SQL). Its params keep their first values: SQL
//!   fails with a message of its own, the file store forgets the first.
//! * A model input or output of a run stays as it was first logged (file store; SQL fails).
//! * Tags and aliases of registered models and versions do not touch the time of the last update (SQL).

mod experiments;
mod inputs;
mod logged_models;
mod registry;
mod runs;
mod spans;
mod traces;

pub use experiments::{
    DEFAULT_EXPERIMENT, Resolution, create_experiment, delete_experiment, delete_experiment_tag,
    get_or_create_experiment, purge_experiment, rename_experiment, restore_experiment, set_experiment_tags,
};
pub use inputs::{dataset_uid, log_inputs, log_model_inputs, log_model_outputs};
pub use logged_models::{
    NewLoggedModel, create_logged_model, delete_logged_model, delete_model_tag, finalize_logged_model,
    log_model_params, set_model_tags,
};
pub use registry::{
    NewModelVersion, create_model_version, create_registered_model, delete_alias, delete_model_version,
    delete_model_version_tag, delete_registered_model, delete_registered_model_tag, rename_registered_model,
    set_alias, set_model_version_tag, set_registered_model_tag, transition_stage, update_model_version,
    update_registered_model,
};
pub use runs::{
    NewRun, RunUpdate, append_model_history, create_run, delete_run, delete_run_tag, log_batch, log_params,
    purge_run, restore_run, resume_run, set_run_tags, update_run,
};

pub use spans::log_spans;
pub use traces::{
    assessment, delete_assessment, delete_trace_tag, put_assessment, set_trace_tag, start_trace,
};

use super::{Catalog, Entity};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value, ValueRef};
use crate::id::Uid;
use crate::model::Lifecycle;

/// Collects the operations on one entity.
struct Changes {
    kind: EntityKind,
    uid: Uid,
    operations: Vec<Operation>,
}

impl Changes {
    fn of(kind: EntityKind, uid: Uid) -> Self {
        Self { kind, uid, operations: Vec::new() }
    }

    fn set(&mut self, field: Field, value: Value) {
        self.set_key(field, "", value);
    }

    fn set_text(&mut self, field: Field, text: &str) {
        self.set(field, Value::from(text));
    }

    /// A text, or its removal.
    fn set_text_or_absent(&mut self, field: Field, text: Option<&str>) {
        self.set(field, text.map_or(Value::Absent, Value::from));
    }

    /// A text of a new entity, if there is one.
    fn set_given(&mut self, field: Field, text: Option<&str>) {
        if let Some(text) = text {
            self.set_text(field, text);
        }
    }

    fn set_key(&mut self, field: Field, key: &str, value: Value) {
        self.operations.push(Operation { kind: self.kind, uid: self.uid, field, key: key.to_owned(), value });
    }

    fn set_tags(&mut self, tags: &[(&str, &str)]) {
        for (key, value) in tags {
            self.set_key(Field::TAG, key, Value::from(*value));
        }
    }

    fn set_lifecycle(&mut self, lifecycle: Lifecycle) {
        self.set_text(Field::LIFECYCLE, lifecycle.as_str());
    }
}

/// The uid that follows from a name: that of the first number which was not renamed away or purged.
fn uid_of_name(catalog: &Catalog, kind: EntityKind, domain: &str, name: &str) -> Result<Uid> {
    let mut number = 0u32;
    loop {
        let uid = Uid::derived(domain, &[name.as_bytes(), &number.to_le_bytes()]);
        if catalog.entry(kind, uid).is_none() {
            return Ok(uid);
        }
        number = number.checked_add(1).ok_or_else(|| Error::invalid("this name was used up"))?;
    }
}

/// Removes an entity of any kind for good.
pub fn purge(kind: EntityKind, uid: Uid) -> Vec<Operation> {
    let mut changes = Changes::of(kind, uid);
    changes.set(Field::PURGED, Value::Flag(true));
    changes.operations
}

fn delete_tag(entity: &Entity, key: &str) -> Result<Vec<Operation>> {
    if entity.get(Field::TAG, key).is_none_or(|v| v == ValueRef::Absent) {
        return Err(Error::not_found("tag", key));
    }
    let mut changes = Changes::of(entity.kind(), entity.uid());
    changes.set_key(Field::TAG, key, Value::Absent);
    Ok(changes.operations)
}
