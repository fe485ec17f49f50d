//! What the verbs on logged models write.
//!
//! Contract: see the module above. A deleted model may still be written to, as in MLflow's SQL store.

use super::experiments::active_experiment;
use super::{Changes, delete_tag};
use crate::catalog::{Catalog, Entity, rules, run_name};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::Uid;
use crate::model::{Lifecycle, LoggedModelStatus};

/// A new logged model.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewLoggedModel<'a> {
    /// Its identity; random.
    pub uid: Uid,
    /// Its experiment.
    pub experiment: Uid,
    /// Its name; none for a generated one.
    pub name: Option<&'a str>,
    /// What kind of model it is.
    pub model_type: Option<&'a str>,
    /// The run that made it.
    pub source_run_id: Option<&'a str>,
    /// Params.
    pub params: &'a [(&'a str, &'a str)],
    /// Tags.
    pub tags: &'a [(&'a str, &'a str)],
    /// A random number, for the generated name.
    pub random: u64,
}

fn logged_model(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    let found = catalog.logged_model(uid).map(|e| &**e);
    found.ok_or_else(|| Error::not_found("logged model", format!("m-{uid}")))
}

fn path(list: &str, at: usize, of: usize) -> String {
    if of > 1 { format!("{list}[{at}]") } else { String::new() }
}

/// A new logged model, whose files are to come.
///
/// # Errors
/// [`Error::NotFound`] without the experiment, [`Error::InvalidState`] when that is deleted; else as the rules say.
pub fn create_logged_model(
    catalog: &Catalog,
    new: &NewLoggedModel<'_>,
    now_ms: i64,
) -> Result<Vec<Operation>> {
    if let Some(name) = new.name {
        rules::logged_model_name(name)?;
    }
    check_params(new.params)?;
    new.tags.iter().try_for_each(|(key, _)| rules::logged_model_tag(key))?;
    active_experiment(catalog, new.experiment)?;
    let mut changes = Changes::of(EntityKind::LOGGED_MODEL, new.uid);
    match new.name {
        Some(name) => changes.set_text(Field::NAME, name),
        None => changes.set_text(Field::NAME, &run_name(new.random)),
    }
    changes.set_lifecycle(Lifecycle::Active);
    changes.set(Field::CREATED_MS, Value::Integer(now_ms));
    changes.set(Field::UPDATED_MS, Value::Integer(now_ms));
    changes.set_tags(new.tags);
    for (key, value) in new.params {
        changes.set_key(Field::PARAM, key, Value::from(*value));
    }
    changes.set(Field::EXPERIMENT, Value::Uid(new.experiment));
    changes.set(Field::STATUS, Value::Integer(LoggedModelStatus::Pending as i64));
    changes.set_given(Field::RUN_ID, new.source_run_id);
    changes.set_given(Field::MODEL_TYPE, new.model_type);
    Ok(changes.operations)
}

fn check_params(params: &[(&str, &str)]) -> Result<()> {
    rules::params_unique(params.iter().map(|param| param.0))?;
    let of = params.len();
    params
        .iter()
        .enumerate()
        .try_for_each(|(at, (key, value))| rules::param(key, value, &path("params", at, of)))
}

/// Says whether a logged model can be used.
///
/// # Errors
/// [`Error::NotFound`].
pub fn finalize_logged_model(
    catalog: &Catalog,
    uid: Uid,
    status: LoggedModelStatus,
    now_ms: i64,
) -> Result<Vec<Operation>> {
    logged_model(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::LOGGED_MODEL, uid);
    changes.set(Field::UPDATED_MS, Value::Integer(now_ms));
    changes.set(Field::STATUS, Value::Integer(status as i64));
    Ok(changes.operations)
}

/// Logs params of a logged model: all or none.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when a param has another value; else as the rules say.
pub fn log_model_params(catalog: &Catalog, uid: Uid, params: &[(&str, &str)]) -> Result<Vec<Operation>> {
    check_params(params)?;
    let model = logged_model(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::LOGGED_MODEL, uid);
    for (key, value) in params {
        if rules::model_param_unchanged(model, key, value)? {
            changes.set_key(Field::PARAM, key, Value::from(*value));
        }
    }
    Ok(changes.operations)
}

/// Sets tags of a logged model.
///
/// # Errors
/// [`Error::NotFound`]; else as the rules say.
pub fn set_model_tags(catalog: &Catalog, uid: Uid, tags: &[(&str, &str)]) -> Result<Vec<Operation>> {
    tags.iter().try_for_each(|(key, _)| rules::logged_model_tag(key))?;
    logged_model(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::LOGGED_MODEL, uid);
    changes.set_tags(tags);
    Ok(changes.operations)
}

/// Deletes a tag of a logged model.
///
/// # Errors
/// [`Error::NotFound`], also for the tag.
pub fn delete_model_tag(catalog: &Catalog, uid: Uid, key: &str) -> Result<Vec<Operation>> {
    delete_tag(logged_model(catalog, uid)?, key)
}

/// Deletes a logged model. Doing so again is fine.
///
/// # Errors
/// [`Error::NotFound`].
pub fn delete_logged_model(catalog: &Catalog, uid: Uid, now_ms: i64) -> Result<Vec<Operation>> {
    let model = logged_model(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::LOGGED_MODEL, uid);
    if model.lifecycle() == Lifecycle::Active {
        changes.set_lifecycle(Lifecycle::Deleted);
        changes.set(Field::UPDATED_MS, Value::Integer(now_ms));
    }
    Ok(changes.operations)
}
