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

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::names::run_name;
use super::render::{RUN_NAME_TAG, run_id};
use super::{Catalog, Entity, fallback_id, rules};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value, ValueRef};
use crate::format::input_tags::encode_input_tags;
use crate::id::Uid;
use crate::model::{DatasetInput, Lifecycle, RunStatus};

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

/// A new run.
#[derive(Clone, Debug, Default)]
pub struct NewRun<'a> {
    /// Its identity, and as 32 hex digits its run id.
    pub uid: Uid,
    /// Its experiment.
    pub experiment: Uid,
    /// Its name; empty for a generated one.
    pub name: &'a str,
    /// Who runs it.
    pub user: &'a str,
    /// When it starts, in milliseconds since 1970.
    pub start_ms: i64,
    /// Params.
    pub params: &'a [(&'a str, &'a str)],
    /// Tags.
    pub tags: &'a [(&'a str, &'a str)],
    /// Where its artifacts are, if the caller says so.
    pub artifact_uri: Option<&'a str>,
    /// A random number, for the generated name.
    pub random: u64,
}

/// A change of a run; what is none stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunUpdate<'a> {
    /// The new status.
    pub status: Option<RunStatus>,
    /// The new end, in milliseconds since 1970.
    pub end_ms: Option<i64>,
    /// The new name; an empty one stays unused, as in MLflow.
    pub name: Option<&'a str>,
}

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

fn experiment(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    let found = catalog.experiment(uid).map(|e| &**e);
    found.ok_or_else(|| Error::not_found("experiment", fallback_id(uid)))
}

fn active_experiment(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    let entity = experiment(catalog, uid)?;
    rules::experiment_is_active(catalog, entity).map(|()| entity)
}

fn run(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    catalog.run(uid).map(|e| &**e).ok_or_else(|| Error::not_found("run", uid.to_string()))
}

fn active_run(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    let entity = run(catalog, uid)?;
    rules::run_is_active(entity).map(|()| entity)
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
    let mut number = 0u32;
    let uid = loop {
        let uid = Uid::derived("experiment", &[name.as_bytes(), &number.to_le_bytes()]);
        if catalog.entry(EntityKind::EXPERIMENT, uid).is_none() {
            break uid;
        }
        number = number.checked_add(1).ok_or_else(|| Error::invalid("this name was used up"))?;
    };
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

fn move_run(run: &Entity, now_ms: i64, to: Lifecycle) -> Vec<Operation> {
    if run.lifecycle() == to {
        return Vec::new();
    }
    let mut changes = Changes::of(EntityKind::RUN, run.uid());
    changes.set_lifecycle(to);
    changes.set(
        Field::DELETED_MS,
        match to {
            Lifecycle::Deleted => Value::Integer(now_ms),
            Lifecycle::Active => Value::Absent,
        },
    );
    changes.operations
}

/// Removes an experiment and its runs for good.
///
/// # Errors
/// [`Error::NotFound`].
pub fn purge_experiment(catalog: &Catalog, uid: Uid) -> Result<Vec<Operation>> {
    experiment(catalog, uid)?;
    let runs = catalog.runs_of(uid).flat_map(|run| purge(EntityKind::RUN, run.uid()));
    Ok(purge(EntityKind::EXPERIMENT, uid).into_iter().chain(runs).collect())
}

/// Removes a run for good.
///
/// # Errors
/// [`Error::NotFound`].
pub fn purge_run(catalog: &Catalog, uid: Uid) -> Result<Vec<Operation>> {
    run(catalog, uid)?;
    Ok(purge(EntityKind::RUN, uid))
}

/// Removes an entity of any kind for good.
pub fn purge(kind: EntityKind, uid: Uid) -> Vec<Operation> {
    let mut changes = Changes::of(kind, uid);
    changes.set(Field::PURGED, Value::Flag(true));
    changes.operations
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

fn delete_tag(entity: &Entity, key: &str) -> Result<Vec<Operation>> {
    if entity.get(Field::TAG, key).is_none_or(|v| v == ValueRef::Absent) {
        return Err(Error::not_found("tag", key));
    }
    let mut changes = Changes::of(entity.kind(), entity.uid());
    changes.set_key(Field::TAG, key, Value::Absent);
    Ok(changes.operations)
}

/// A new run with its params and tags. Its name and its tag `mlflow.runName` are one; without either it gets a
/// generated name.
///
/// # Errors
/// [`Error::NotFound`] without the experiment, [`Error::InvalidState`] when that is deleted, [`Error::AlreadyExists`]
/// when the uid is taken (also by a purged run); else as the rules say.
pub fn create_run(catalog: &Catalog, new: &NewRun<'_>) -> Result<Vec<Operation>> {
    active_experiment(catalog, new.experiment)?;
    if catalog.entry(EntityKind::RUN, new.uid).is_some() {
        let hint = String::new();
        return Err(Error::AlreadyExists { what: "run", name: new.uid.to_string(), hint });
    }
    rules::params_unique(new.params.iter().map(|p| p.0))?;
    new.params.iter().try_for_each(|(key, value)| rules::param(key, value, ""))?;
    new.tags.iter().try_for_each(|(key, value)| rules::run_tag(key, value, ""))?;
    let tag = new.tags.iter().rfind(|(key, _)| *key == RUN_NAME_TAG).map_or("", |(_, value)| *value);
    rules::run_name_and_tag(new.name, tag)?;
    let generated;
    let name = match (new.name, tag) {
        ("", "") => {
            generated = run_name(new.random);
            generated.as_str()
        }
        ("", tag) => tag,
        (name, _) => {
            rules::run_tag(RUN_NAME_TAG, name, "")?;
            name
        }
    };
    let mut changes = Changes::of(EntityKind::RUN, new.uid);
    changes.operations.reserve(8 + new.params.len() + new.tags.len());
    // In the order of fields, in which an entity keeps its registers: then applying need not sort.
    changes.set_text(Field::NAME, name);
    changes.set_lifecycle(Lifecycle::Active);
    changes.set_tags(&[(RUN_NAME_TAG, name)]);
    for (key, value) in new.tags.iter().filter(|(key, _)| *key != RUN_NAME_TAG) {
        changes.set_key(Field::TAG, key, Value::from(*value));
    }
    for (key, value) in new.params {
        changes.set_key(Field::PARAM, key, Value::from(*value));
    }
    changes.set(Field::EXPERIMENT, Value::Uid(new.experiment));
    changes.set(Field::STATUS, Value::Integer(RunStatus::Running as i64));
    changes.set(Field::START_MS, Value::Integer(new.start_ms));
    changes.set_text(Field::USER, new.user);
    if let Some(uri) = new.artifact_uri {
        changes.set_text(Field::ARTIFACT_URI, uri);
    }
    Ok(changes.operations)
}

/// Changes status, end and name of a run.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when it is deleted; else as the rules say.
pub fn update_run(catalog: &Catalog, uid: Uid, update: RunUpdate<'_>) -> Result<Vec<Operation>> {
    active_run(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::RUN, uid);
    if let Some(status) = update.status {
        changes.set(Field::STATUS, Value::Integer(status as i64));
    }
    if let Some(end_ms) = update.end_ms {
        changes.set(Field::END_MS, Value::Integer(end_ms));
    }
    if let Some(name) = update.name.filter(|name| !name.is_empty()) {
        rules::run_tag(RUN_NAME_TAG, name, "")?;
        changes.set_text(Field::NAME, name);
        changes.set_tags(&[(RUN_NAME_TAG, name)]);
    }
    Ok(changes.operations)
}

/// Deletes a run; nothing to write when it is deleted already.
///
/// # Errors
/// [`Error::NotFound`].
pub fn delete_run(catalog: &Catalog, uid: Uid, now_ms: i64) -> Result<Vec<Operation>> {
    Ok(move_run(run(catalog, uid)?, now_ms, Lifecycle::Deleted))
}

/// Restores a run; nothing to write when it is active.
///
/// # Errors
/// [`Error::NotFound`].
pub fn restore_run(catalog: &Catalog, uid: Uid) -> Result<Vec<Operation>> {
    Ok(move_run(run(catalog, uid)?, 0, Lifecycle::Active))
}

/// Sets tags of a run; the tag `mlflow.runName` renames it.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when it is deleted; else as the rules say.
pub fn set_run_tags(catalog: &Catalog, uid: Uid, tags: &[(&str, &str)]) -> Result<Vec<Operation>> {
    log_batch(catalog, uid, &[], tags)
}

/// Deletes a tag of a run.
///
/// # Errors
/// [`Error::NotFound`], also for the tag; [`Error::InvalidState`] when the run is deleted.
pub fn delete_run_tag(catalog: &Catalog, uid: Uid, key: &str) -> Result<Vec<Operation>> {
    delete_tag(active_run(catalog, uid)?, key)
}

/// Logs params of a run.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when the run is deleted or a param has another value; else as the rules
/// say.
pub fn log_params(catalog: &Catalog, uid: Uid, params: &[(&str, &str)]) -> Result<Vec<Operation>> {
    log_batch(catalog, uid, params, &[])
}

/// Logs params and tags of a run: all or nothing. The caller checks [`rules::batch`], which counts metrics too.
///
/// # Errors
/// As [`log_params`] and [`set_run_tags`].
pub fn log_batch(
    catalog: &Catalog,
    uid: Uid,
    params: &[(&str, &str)],
    tags: &[(&str, &str)],
) -> Result<Vec<Operation>> {
    let path =
        |list: &str, at: usize, of: usize| if of > 1 { format!("{list}[{at}]") } else { String::new() };
    rules::params_unique(params.iter().map(|p| p.0))?;
    for (at, (key, value)) in params.iter().enumerate() {
        rules::param(key, value, &path("params", at, params.len()))?;
    }
    for (at, (key, value)) in tags.iter().enumerate() {
        rules::run_tag(key, value, &path("tags", at, tags.len()))?;
    }
    let entity = active_run(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::RUN, uid);
    for (key, value) in params {
        if rules::param_unchanged(entity, key, value)? {
            changes.set_key(Field::PARAM, key, Value::from(*value));
        }
    }
    changes.set_tags(tags);
    if let Some((_, name)) = tags.iter().rfind(|(key, _)| *key == RUN_NAME_TAG) {
        changes.set_text(Field::NAME, name);
    }
    Ok(changes.operations)
}

/// The identity of a data set: one per experiment, name and digest, on every machine.
pub fn dataset_uid(experiment: Uid, name: &str, digest: &str) -> Uid {
    Uid::derived("dataset", &[experiment.as_bytes(), name.as_bytes(), digest.as_bytes()])
}

/// Logs data set inputs of a run. A data set that the run has as input already is left as it is; of two equal ones in
/// one call the first counts.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when the run is deleted; else as the rules say.
pub fn log_inputs(catalog: &Catalog, uid: Uid, inputs: &[DatasetInput]) -> Result<Vec<Operation>> {
    for input in inputs {
        rules::dataset(&input.dataset)?;
        rules::input_tags(&input.tags)?;
    }
    let entity = active_run(catalog, uid)?;
    let experiment = entity
        .reference(Field::EXPERIMENT)
        .ok_or_else(|| Error::InvalidState(format!("The run {} has no experiment.", run_id(entity))))?;
    let mut datasets = BTreeMap::new();
    let mut changes = Changes::of(EntityKind::RUN, uid);
    for input in inputs {
        let dataset = dataset_uid(experiment, &input.dataset.name, &input.dataset.digest);
        let key = dataset.to_string();
        if entity.get(Field::INPUT, &key).is_some() {
            continue;
        }
        if let Entry::Vacant(vacant) = datasets.entry(dataset) {
            vacant.insert(&input.dataset);
            changes.set_key(Field::INPUT, &key, Value::Bytes(encode_input_tags(&input.tags)));
        }
    }
    let mut operations = changes.operations;
    for (uid, dataset) in datasets {
        if catalog.get(EntityKind::DATASET, uid).is_some() {
            continue;
        }
        let mut changes = Changes::of(EntityKind::DATASET, uid);
        changes.set_text(Field::NAME, &dataset.name);
        changes.set_text(Field::DIGEST, &dataset.digest);
        changes.set_text(Field::SOURCE_TYPE, &dataset.source_type);
        changes.set_text(Field::SOURCE, &dataset.source);
        for (field, text) in [(Field::SCHEMA, &dataset.schema), (Field::PROFILE, &dataset.profile)] {
            if let Some(text) = text {
                changes.set_text(field, text);
            }
        }
        operations.extend(changes.operations);
    }
    Ok(operations)
}
