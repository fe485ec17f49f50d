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

mod experiments;
mod inputs;
mod runs;

pub use experiments::{
    DEFAULT_EXPERIMENT, Resolution, create_experiment, delete_experiment, delete_experiment_tag,
    get_or_create_experiment, purge_experiment, rename_experiment, restore_experiment, set_experiment_tags,
};
pub use inputs::{dataset_uid, log_inputs};
pub use runs::{
    NewRun, RunUpdate, append_model_history, create_run, delete_run, delete_run_tag, log_batch, log_params,
    purge_run, restore_run, resume_run, set_run_tags, update_run,
};

use super::Entity;
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
