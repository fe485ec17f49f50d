//! What the verbs on registered models and their versions write.
//!
//! Contract: see the module above; names and version numbers are claims, and whatever depends on them (creating,
//! renaming, deleting, setting an alias) needs all of the registry loaded.

use super::{Changes, delete_tag, purge};
use crate::catalog::registry::{is_deleted_version, stage_of};
use crate::catalog::{Catalog, DELETED_STAGE, Entity, rules};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::Uid;
use crate::model::ModelStage;

/// A new version of a registered model.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewModelVersion<'a> {
    /// Its identity; random.
    pub uid: Uid,
    /// Where the model is.
    pub source: &'a str,
    /// Where its files are, if that is not the source.
    pub storage_location: Option<&'a str>,
    /// The run that made it.
    pub run_id: Option<&'a str>,
    /// A page that shows that run.
    pub run_link: Option<&'a str>,
    /// The logged model that is registered.
    pub model_id: Option<&'a str>,
    /// What somebody wrote about it.
    pub description: Option<&'a str>,
    /// Who makes it.
    pub user: Option<&'a str>,
    /// Tags.
    pub tags: &'a [(&'a str, &'a str)],
}

fn registered_model<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Entity> {
    rules::registered_model_name(name)?;
    let found = catalog.registered_model_by_name(name).map(|e| &**e);
    found.ok_or_else(|| Error::not_found("registered model", name))
}

/// A registered model and one of its versions that is not deleted.
fn version<'a>(catalog: &'a Catalog, name: &str, number: u64) -> Result<(&'a Entity, &'a Entity)> {
    let model = registered_model(catalog, name)?;
    let found = catalog.version(model.uid(), number).filter(|version| !is_deleted_version(version));
    let found = found.ok_or_else(|| Error::not_found("model version", format!("{name}/{number}")))?;
    Ok((model, found))
}

fn touch(entity: &Entity, now_ms: i64) -> Changes {
    let mut changes = Changes::of(entity.kind(), entity.uid());
    changes.set(Field::UPDATED_MS, Value::Integer(now_ms));
    changes
}

fn name_is_free(catalog: &Catalog, name: &str) -> Result<()> {
    match catalog.registered_model_by_name(name) {
        None => Ok(()),
        Some(_) => {
            let hint = String::new();
            Err(Error::AlreadyExists { what: "registered model", name: name.to_owned(), hint })
        }
    }
}

/// A new registered model. Its uid follows from its name, so that the same name on ten machines is one model: the first
/// number whose uid was not renamed away or deleted.
///
/// # Errors
/// [`Error::AlreadyExists`] when the name is held; else as the rules say.
pub fn create_registered_model(
    catalog: &Catalog,
    name: &str,
    description: Option<&str>,
    tags: &[(&str, &str)],
    now_ms: i64,
) -> Result<(Uid, Vec<Operation>)> {
    rules::registered_model_name(name)?;
    name_is_free(catalog, name)?;
    tags.iter().try_for_each(|(key, value)| rules::registry_tag(key, value))?;
    let uid = super::uid_of_name(catalog, EntityKind::REGISTERED_MODEL, "registered model", name)?;
    let mut changes = Changes::of(EntityKind::REGISTERED_MODEL, uid);
    changes.set_text(Field::NAME, name);
    changes.set(Field::CREATED_MS, Value::Integer(now_ms));
    changes.set(Field::UPDATED_MS, Value::Integer(now_ms));
    changes.set_tags(tags);
    if let Some(description) = description {
        changes.set_text(Field::DESCRIPTION, description);
    }
    Ok((uid, changes.operations))
}

/// Renames a registered model, and with it its versions. Nothing to write when it has that name.
///
/// # Errors
/// [`Error::NotFound`], [`Error::AlreadyExists`] when the name is held.
pub fn rename_registered_model(
    catalog: &Catalog,
    name: &str,
    new_name: &str,
    now_ms: i64,
) -> Result<Vec<Operation>> {
    if new_name.trim().is_empty() {
        return Err(Error::invalid("Missing value for required parameter 'new_name'."));
    }
    rules::registered_model_name(new_name)?;
    let model = registered_model(catalog, name)?;
    if model.text(Field::NAME) == Some(new_name) {
        return Ok(Vec::new());
    }
    name_is_free(catalog, new_name)?;
    let mut changes = touch(model, now_ms);
    changes.set_text(Field::NAME, new_name);
    let versions = catalog.versions_of(model.uid()).flat_map(|version| touch(version, now_ms).operations);
    Ok(changes.operations.into_iter().chain(versions).collect())
}

/// Changes what is written about a registered model.
///
/// # Errors
/// [`Error::NotFound`].
pub fn update_registered_model(
    catalog: &Catalog,
    name: &str,
    description: Option<&str>,
    now_ms: i64,
) -> Result<Vec<Operation>> {
    let mut changes = touch(registered_model(catalog, name)?, now_ms);
    changes.set_text_or_absent(Field::DESCRIPTION, description);
    Ok(changes.operations)
}

/// Removes a registered model and its versions for good.
///
/// # Errors
/// [`Error::NotFound`].
pub fn delete_registered_model(catalog: &Catalog, name: &str) -> Result<Vec<Operation>> {
    let model = registered_model(catalog, name)?.uid();
    let versions = catalog.versions_of(model).flat_map(|v| purge(EntityKind::MODEL_VERSION, v.uid()));
    Ok(purge(EntityKind::REGISTERED_MODEL, model).into_iter().chain(versions).collect())
}

/// Sets a tag of a registered model.
///
/// # Errors
/// [`Error::NotFound`]; else as the rules say.
pub fn set_registered_model_tag(
    catalog: &Catalog,
    name: &str,
    key: &str,
    value: &str,
) -> Result<Vec<Operation>> {
    rules::registry_tag(key, value)?;
    let model = registered_model(catalog, name)?;
    let mut changes = Changes::of(model.kind(), model.uid());
    changes.set_tags(&[(key, value)]);
    Ok(changes.operations)
}

/// Deletes a tag of a registered model; nothing to write where there is none.
///
/// # Errors
/// [`Error::NotFound`] without the model; else as the rules say.
pub fn delete_registered_model_tag(catalog: &Catalog, name: &str, key: &str) -> Result<Vec<Operation>> {
    rules::registry_tag_key(key)?;
    Ok(delete_tag(registered_model(catalog, name)?, key).unwrap_or_default())
}

/// Makes an alias name a version.
///
/// # Errors
/// [`Error::NotFound`]; else as the rules say.
pub fn set_alias(catalog: &Catalog, name: &str, alias: &str, number: u64) -> Result<Vec<Operation>> {
    rules::new_registered_model_alias(alias)?;
    let (model, version) = version(catalog, name, number)?;
    let mut changes = Changes::of(model.kind(), model.uid());
    changes.set_key(Field::ALIAS, alias, Value::Uid(version.uid()));
    Ok(changes.operations)
}

/// Takes an alias away; nothing to write where there is none.
///
/// # Errors
/// [`Error::NotFound`] without the model; else as the rules say.
pub fn delete_alias(catalog: &Catalog, name: &str, alias: &str) -> Result<Vec<Operation>> {
    rules::registered_model_alias(alias)?;
    let model = registered_model(catalog, name)?;
    let mut changes = Changes::of(model.kind(), model.uid());
    if model.get(Field::ALIAS, alias).is_some_and(|value| value != Value::Absent.borrow()) {
        changes.set_key(Field::ALIAS, alias, Value::Absent);
    }
    Ok(changes.operations)
}

/// A new version of a registered model, with the next number.
///
/// # Errors
/// [`Error::NotFound`] without the model; else as the rules say.
pub fn create_model_version(
    catalog: &Catalog,
    name: &str,
    new: &NewModelVersion<'_>,
    now_ms: i64,
) -> Result<Vec<Operation>> {
    new.tags.iter().try_for_each(|(key, value)| rules::registry_tag(key, value))?;
    let model = registered_model(catalog, name)?;
    let number = i64::try_from(catalog.next_version(model.uid()))
        .map_err(|_| Error::invalid("this model has no version numbers left"))?;
    let mut changes = Changes::of(EntityKind::MODEL_VERSION, new.uid);
    changes.set(Field::CREATED_MS, Value::Integer(now_ms));
    changes.set(Field::UPDATED_MS, Value::Integer(now_ms));
    changes.set_tags(new.tags);
    for (field, text) in [
        (Field::ARTIFACT_LOCATION, new.storage_location),
        (Field::STATUS, Some("READY")),
        (Field::USER, new.user),
        (Field::SOURCE, Some(new.source)),
        (Field::DESCRIPTION, new.description),
    ] {
        changes.set_given(field, text);
    }
    changes.set(Field::MODEL, Value::Uid(model.uid()));
    changes.set(Field::VERSION, Value::Integer(number));
    changes.set_text(Field::STAGE, ModelStage::None.as_str());
    for (field, text) in
        [(Field::RUN_ID, new.run_id), (Field::RUN_LINK, new.run_link), (Field::MODEL_ID, new.model_id)]
    {
        changes.set_given(field, text);
    }
    changes.operations.extend(touch(model, now_ms).operations);
    Ok(changes.operations)
}

/// Changes what is written about a version.
///
/// # Errors
/// [`Error::NotFound`].
pub fn update_model_version(
    catalog: &Catalog,
    name: &str,
    number: u64,
    description: Option<&str>,
    now_ms: i64,
) -> Result<Vec<Operation>> {
    let mut changes = touch(version(catalog, name, number)?.1, now_ms);
    changes.set_text_or_absent(Field::DESCRIPTION, description);
    Ok(changes.operations)
}

/// Puts a version into a stage; with `archive_existing` the others that are in it are archived.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::InvalidArgument`] for archiving what no active stage holds.
pub fn transition_stage(
    catalog: &Catalog,
    name: &str,
    number: u64,
    stage: ModelStage,
    archive_existing: bool,
    now_ms: i64,
) -> Result<Vec<Operation>> {
    if archive_existing && !stage.is_active() {
        return Err(Error::invalid(format!(
            "Model version transition cannot archive existing model versions because '{stage}' is not an Active \
             stage. Valid stages are ['Staging', 'Production']"
        )));
    }
    let (model, version) = version(catalog, name, number)?;
    let moved = |version: &Entity, to: ModelStage| {
        let mut changes = touch(version, now_ms);
        changes.set_text(Field::STAGE, to.as_str());
        changes.operations
    };
    let mut operations = moved(version, stage);
    operations.extend(touch(model, now_ms).operations);
    if archive_existing {
        let others = catalog.versions_of(model.uid()).filter(|other| {
            other.uid() != version.uid() && !is_deleted_version(other) && stage_of(other) == stage
        });
        operations.extend(others.flat_map(|other| moved(other, ModelStage::Archived)));
    }
    Ok(operations)
}

/// Deletes a version; its number is never given out again.
///
/// # Errors
/// [`Error::NotFound`], also when it is deleted already.
pub fn delete_model_version(
    catalog: &Catalog,
    name: &str,
    number: u64,
    now_ms: i64,
) -> Result<Vec<Operation>> {
    let (model, version) = version(catalog, name, number)?;
    let mut changes = touch(version, now_ms);
    changes.set_text(Field::STAGE, DELETED_STAGE);
    let mut operations = changes.operations;
    let mut changes = touch(model, now_ms);
    let named =
        model.entries(Field::ALIAS).filter(|(_, _, value)| *value == Value::Uid(version.uid()).borrow());
    named.for_each(|(alias, ..)| changes.set_key(Field::ALIAS, alias, Value::Absent));
    operations.extend(changes.operations);
    Ok(operations)
}

/// Sets a tag of a version.
///
/// # Errors
/// [`Error::NotFound`]; else as the rules say.
pub fn set_model_version_tag(
    catalog: &Catalog,
    name: &str,
    number: u64,
    key: &str,
    value: &str,
) -> Result<Vec<Operation>> {
    rules::registry_tag(key, value)?;
    let (_, version) = version(catalog, name, number)?;
    let mut changes = Changes::of(version.kind(), version.uid());
    changes.set_tags(&[(key, value)]);
    Ok(changes.operations)
}

/// Deletes a tag of a version; nothing to write where there is none.
///
/// # Errors
/// [`Error::NotFound`] without the version; else as the rules say.
pub fn delete_model_version_tag(
    catalog: &Catalog,
    name: &str,
    number: u64,
    key: &str,
) -> Result<Vec<Operation>> {
    rules::registry_tag_key(key)?;
    Ok(delete_tag(version(catalog, name, number)?.1, key).unwrap_or_default())
}
