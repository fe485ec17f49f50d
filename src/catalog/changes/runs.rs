//! What the verbs on runs write.
//!
//! Contract: see the module above; a batch is all or nothing.

use super::experiments::active_experiment;
use super::{Changes, delete_tag, purge};
use crate::catalog::render::RUN_NAME_TAG;
use crate::catalog::{Catalog, Entity, rules, run_name};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::Uid;
use crate::model::{Lifecycle, RunStatus};

/// Where MLflow 1 and 2 list the models that a run made.
const MODEL_HISTORY_TAG: &str = "mlflow.log-model.history";

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

fn run(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    catalog.run(uid).map(|e| &**e).ok_or_else(|| Error::not_found("run", uid.to_string()))
}

pub(super) fn active_run(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    let entity = run(catalog, uid)?;
    rules::run_is_active(entity).map(|()| entity)
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

/// Sets a run back to running, without an end. There is always something to write, which says that somebody did.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when it is deleted.
pub fn resume_run(catalog: &Catalog, uid: Uid) -> Result<Vec<Operation>> {
    active_run(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::RUN, uid);
    changes.set(Field::STATUS, Value::Integer(RunStatus::Running as i64));
    changes.set(Field::END_MS, Value::Absent);
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

/// Adds a JSON object to the list in the tag `mlflow.log-model.history`.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when the run is deleted, [`Error::InvalidArgument`] when the tag holds
/// no list.
pub fn append_model_history(catalog: &Catalog, uid: Uid, model: &str) -> Result<Vec<Operation>> {
    let entity = active_run(catalog, uid)?;
    let old = entity.get(Field::TAG, MODEL_HISTORY_TAG).and_then(|v| v.lossy_text()).unwrap_or_default();
    let list = match old.trim() {
        "" | "[]" => format!("[{model}]"),
        list => match list.strip_suffix(']').filter(|_| list.starts_with('[')) {
            Some(items) => format!("{items}, {model}]"),
            None => return Err(Error::invalid(format!("the tag {MODEL_HISTORY_TAG} holds no list"))),
        },
    };
    let mut changes = Changes::of(EntityKind::RUN, uid);
    changes.set_tags(&[(MODEL_HISTORY_TAG, &list)]);
    Ok(changes.operations)
}

pub(super) fn move_run(run: &Entity, now_ms: i64, to: Lifecycle) -> Vec<Operation> {
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

/// Removes a run for good.
///
/// # Errors
/// [`Error::NotFound`].
pub fn purge_run(catalog: &Catalog, uid: Uid) -> Result<Vec<Operation>> {
    run(catalog, uid)?;
    Ok(purge(EntityKind::RUN, uid))
}
