//! What the verbs on experiments write.
//!
//! Contract: see the module above; deleting, restoring and purging take the experiment's runs along, so all of them
//! must be loaded.

use super::runs::move_run;
use super::{Changes, delete_tag, purge};
use crate::catalog::{Catalog, Entity, fallback_id, rules};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::Uid;
use crate::model::Lifecycle;

/// The experiment that exists without being asked for in MLflow; it has id 0.
pub const DEFAULT_EXPERIMENT: &str = "Default";

/// What get-or-create by name found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The name is held; look at its lifecycle before writing to it.
    Exists(Uid),
    /// It is free: write these operations, and this is the experiment.
    Create {
        /// The new experiment.
        uid: Uid,
        /// What makes it.
        operations: Vec<Operation>,
    },
}

fn experiment(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    let found = catalog.experiment(uid).map(|e| &**e);
    found.ok_or_else(|| Error::not_found("experiment", fallback_id(uid)))
}

pub(super) fn active_experiment(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    let entity = experiment(catalog, uid)?;
    rules::experiment_is_active(catalog, entity).map(|()| entity)
}

/// The experiment called `name`, or what makes it.
///
/// # Errors
/// [`Error::InvalidArgument`] for a name that breaks the rules.
pub fn get_or_create_experiment(catalog: &Catalog, name: &str, now_ms: i64) -> Result<Resolution> {
    if let Some(held) = catalog.experiment_by_name(name) {
        return Ok(Resolution::Exists(held.uid()));
    }
    let (uid, operations) = create_experiment(catalog, name, None, &[], now_ms)?;
    Ok(Resolution::Create { uid, operations })
}

/// A new experiment. Its uid follows from its name, so that the same name on ten machines is one experiment: the first
/// number whose uid was not renamed away or purged.
///
/// # Errors
/// [`Error::AlreadyExists`] when the name is held, also by a deleted experiment; else as the rules say.
pub fn create_experiment(
    catalog: &Catalog,
    name: &str,
    artifact_location: Option<&str>,
    tags: &[(&str, &str)],
    now_ms: i64,
) -> Result<(Uid, Vec<Operation>)> {
    rules::experiment_name(name)?;
    name_is_free(catalog, name)?;
    tags.iter().try_for_each(|(key, value)| rules::experiment_tag(key, value))?;
    let uid = super::uid_of_name(catalog, EntityKind::EXPERIMENT, "experiment", name)?;
    let is_default = name == DEFAULT_EXPERIMENT && catalog.experiment_by_id("0").is_none();
    let mut changes = Changes::of(EntityKind::EXPERIMENT, uid);
    changes.set_text(Field::NAME, name);
    changes.set_text(Field::NUMERIC_ID, &if is_default { "0".to_owned() } else { fallback_id(uid) });
    changes.set_lifecycle(Lifecycle::Active);
    changes.set(Field::CREATED_MS, Value::Integer(now_ms));
    changes.set(Field::UPDATED_MS, Value::Integer(now_ms));
    if let Some(location) = artifact_location.filter(|l| !l.is_empty()) {
        rules::artifact_location(location)?;
        changes.set_text(Field::ARTIFACT_LOCATION, location);
    }
    changes.set_tags(tags);
    Ok((uid, changes.operations))
}

fn name_is_free(catalog: &Catalog, name: &str) -> Result<()> {
    let Some(holder) = catalog.experiment_by_name(name) else { return Ok(()) };
    let hint = match holder.lifecycle() {
        Lifecycle::Active => String::new(),
        Lifecycle::Deleted => {
            " in deleted state; restore it, or purge it in order to use this experiment name again".to_owned()
        }
    };
    Err(Error::AlreadyExists { what: "experiment", name: name.to_owned(), hint })
}

/// Renames an experiment.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when it is deleted, [`Error::AlreadyExists`] when the name is held.
pub fn rename_experiment(catalog: &Catalog, uid: Uid, name: &str, now_ms: i64) -> Result<Vec<Operation>> {
    rules::experiment_name(name)?;
    let entity = experiment(catalog, uid)?;
    if entity.lifecycle() == Lifecycle::Deleted {
        return Err(Error::InvalidState("Cannot rename a non-active experiment.".to_owned()));
    }
    if entity.text(Field::NAME) == Some(name) {
        return Ok(Vec::new());
    }
    name_is_free(catalog, name)?;
    let mut changes = Changes::of(EntityKind::EXPERIMENT, uid);
    changes.set_text(Field::NAME, name);
    changes.set(Field::UPDATED_MS, Value::Integer(now_ms));
    Ok(changes.operations)
}

/// Deletes an experiment and its active runs.
///
/// # Errors
/// [`Error::NotFound`], also when it is deleted already.
pub fn delete_experiment(catalog: &Catalog, uid: Uid, now_ms: i64) -> Result<Vec<Operation>> {
    move_experiment(catalog, uid, now_ms, Lifecycle::Deleted)
}

/// Restores an experiment and all its deleted runs.
///
/// # Errors
/// [`Error::NotFound`], also when it is not deleted.
pub fn restore_experiment(catalog: &Catalog, uid: Uid, now_ms: i64) -> Result<Vec<Operation>> {
    move_experiment(catalog, uid, now_ms, Lifecycle::Active)
}

fn move_experiment(catalog: &Catalog, uid: Uid, now_ms: i64, to: Lifecycle) -> Result<Vec<Operation>> {
    let entity = experiment(catalog, uid)?;
    if entity.lifecycle() == to {
        let other = if to == Lifecycle::Deleted { "active experiment" } else { "deleted experiment" };
        return Err(Error::not_found(other, catalog.experiment_id(uid)));
    }
    let mut changes = Changes::of(EntityKind::EXPERIMENT, uid);
    changes.set_lifecycle(to);
    changes.set(Field::UPDATED_MS, Value::Integer(now_ms));
    let mut operations = changes.operations;
    for run in catalog.runs_of(uid).filter(|run| run.lifecycle() != to) {
        operations.extend(move_run(run, now_ms, to));
    }
    Ok(operations)
}

/// Removes an experiment and what is in it for good.
///
/// # Errors
/// [`Error::NotFound`].
pub fn purge_experiment(catalog: &Catalog, uid: Uid) -> Result<Vec<Operation>> {
    experiment(catalog, uid)?;
    let inside = catalog.runs_of(uid).chain(catalog.others_of(uid));
    let inside = inside.flat_map(|entity| purge(entity.kind(), entity.uid()));
    Ok(purge(EntityKind::EXPERIMENT, uid).into_iter().chain(inside).collect())
}

/// Sets tags of an experiment.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when it is deleted; else as the rules say.
pub fn set_experiment_tags(catalog: &Catalog, uid: Uid, tags: &[(&str, &str)]) -> Result<Vec<Operation>> {
    tags.iter().try_for_each(|(key, value)| rules::experiment_tag(key, value))?;
    active_experiment(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::EXPERIMENT, uid);
    changes.set_tags(tags);
    Ok(changes.operations)
}

/// Deletes a tag of an experiment.
///
/// # Errors
/// [`Error::NotFound`], also for the tag; [`Error::InvalidState`] when the experiment is deleted.
pub fn delete_experiment_tag(catalog: &Catalog, uid: Uid, key: &str) -> Result<Vec<Operation>> {
    delete_tag(active_experiment(catalog, uid)?, key)
}
