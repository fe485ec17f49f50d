//! Registered models and versions, from their files.
//!
//! Contract: a directory is a registered model if its `meta.yaml` names one, a version if it has a number; anything
//! else is kept as files of what it lies in. A model is hashed from tree, directory and creation time, a version from
//! that and its directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::{Child, Files, describe};
use super::path::key_of;
use super::plan::{EntityPlan, META};
use super::registry_meta::{ModelVersionMeta, RegisteredModelMeta};
use crate::error::Result;
use crate::format::event::{EntityKind, Field, Value};
use crate::id::Uid;

/// Where registered models are in a tree.
pub(super) const MODELS: &str = "models";
/// Where the aliases of a registered model are.
pub(super) const ALIASES: &str = "aliases";

/// The directory that follows from the number of a version.
pub(super) fn version_directory(number: i64) -> String {
    format!("version-{number}")
}

/// An entity as planned, and where its files are from the root.
pub(super) type Placed = (EntityPlan, PathBuf);

/// Whether a directory is a registered model.
pub(super) fn is_registered_model(files: &mut dyn Files, directory: &Path) -> bool {
    files
        .peek(&directory.join(META))
        .is_some_and(|document| RegisteredModelMeta::from_document(&document, &mut Vec::new()).is_some())
}

/// The registered model in a directory, and its versions. `tree` is the tree's identity and what it is derived from.
pub(super) fn registered_model(
    files: &mut dyn Files,
    directory: &Path,
    tree: (Uid, &[u8]),
) -> Result<Vec<Placed>> {
    let mut notes = Vec::new();
    let file = directory.join(META);
    let read = files.yaml(&file)?;
    let document = read.as_ref().and_then(|file| file.document.as_ref());
    let Some(mut meta) = document.and_then(|d| RegisteredModelMeta::from_document(d, &mut notes)) else {
        return Ok(Vec::new());
    };
    notes.into_iter().for_each(|note| files.problem(&file, note));
    let place = key_of(directory);
    let created = meta.created.map(|ms| ms.to_string()).unwrap_or_default();
    let uid = Uid::derived("mlruns registered model", &[tree.1, place.as_bytes(), created.as_bytes()]);
    // The directory of a model is its name, and follows it.
    let follows = place.strip_prefix("models/").is_some_and(|name| name == meta.name);
    let mut plan =
        EntityPlan::new(EntityKind::REGISTERED_MODEL, uid, if follows { String::new() } else { place });
    plan.set(Field::TREE, "", Value::Uid(tree.0));
    let mut found = Vec::new();
    let mut aliases = None;
    for child in files.children(directory)? {
        match child.name() {
            Some(META) if !child.is_dir => {}
            Some("tags") if child.is_dir => files.values(&mut plan, directory, &child.path, Field::TAG)?,
            Some(ALIASES) if child.is_dir => aliases = Some(child),
            _ if child.is_dir && number_of(files, &child, &meta.name).is_some() => found.push(child),
            _ => files.stray(&mut plan, directory, &child)?,
        }
    }
    let version_uid = |directory: &Child| {
        let name = key_of(Path::new(directory.path.file_name().unwrap_or_default()));
        Uid::derived("mlruns model version", &[uid.as_bytes(), name.as_bytes()])
    };
    let mut numbers = BTreeMap::new();
    for child in &found {
        if let Some(number) = number_of(files, child, &meta.name) {
            numbers.insert(number, version_uid(child));
        }
    }
    if let Some(child) = aliases {
        take_aliases(files, &mut plan, directory, &child, &numbers, &mut meta.aliases)?;
    }
    describe(&mut plan, read, &meta, meta.fields(), &mut |bytes| files.keep(bytes))?;
    let mut placed = vec![(plan, directory.to_path_buf())];
    for child in found {
        placed.extend(version(files, &child, version_uid(&child), uid, &meta, tree.0)?);
    }
    Ok(placed)
}

/// The number that the file of a version says.
fn number_of(files: &mut dyn Files, directory: &Child, model: &str) -> Option<i64> {
    let document = files.peek(&directory.path.join(META))?;
    Some(ModelVersionMeta::from_document(&document, model, &mut Vec::new())?.number)
}

/// A file per alias, which holds the number of a version.
fn take_aliases(
    files: &mut dyn Files,
    plan: &mut EntityPlan,
    base: &Path,
    directory: &Child,
    numbers: &BTreeMap<i64, Uid>,
    aliases: &mut BTreeMap<String, i64>,
) -> Result<()> {
    let children = files.children(&directory.path)?;
    if children.is_empty() {
        plan.layout.empty.push(ALIASES.into());
    }
    for child in children {
        let text = match child.is_dir {
            true => None,
            false => files.value(&child.path)?.and_then(|bytes| String::from_utf8(bytes).ok()),
        };
        let number = text.and_then(|text| text.parse::<i64>().ok().filter(|n| n.to_string() == text));
        let named = number.and_then(|number| Some((number, numbers.get(&number)?)));
        match (child.name(), named) {
            (Some(alias), Some((number, version))) => {
                plan.set(Field::ALIAS, alias, Value::Uid(*version));
                aliases.insert(alias.to_owned(), number);
            }
            // It names a version that is not there: MLflow shows it all the same.
            _ => files.stray(plan, base, &child)?,
        }
    }
    Ok(())
}

fn version(
    files: &mut dyn Files,
    directory: &Child,
    uid: Uid,
    model: Uid,
    of: &RegisteredModelMeta,
    tree: Uid,
) -> Result<Option<Placed>> {
    let base = &directory.path;
    let mut notes = Vec::new();
    let file = base.join(META);
    let read = files.yaml(&file)?;
    let document = read.as_ref().and_then(|file| file.document.as_ref());
    let Some(mut meta) = document.and_then(|d| ModelVersionMeta::from_document(d, &of.name, &mut notes))
    else {
        return Ok(None);
    };
    notes.into_iter().for_each(|note| files.problem(&file, note));
    let names_it = |(_, number): &(&String, &i64)| **number == meta.number;
    meta.aliases = of.aliases.iter().filter(names_it).map(|(alias, _)| alias.clone()).collect();
    let name = key_of(Path::new(base.file_name().unwrap_or_default()));
    let follows = name == version_directory(meta.number);
    let mut plan =
        EntityPlan::new(EntityKind::MODEL_VERSION, uid, if follows { String::new() } else { name });
    plan.set(Field::TREE, "", Value::Uid(tree));
    plan.set(Field::MODEL, "", Value::Uid(model));
    for child in files.children(base)? {
        match child.name() {
            Some(META) if !child.is_dir => {}
            Some("tags") if child.is_dir => files.values(&mut plan, base, &child.path, Field::TAG)?,
            _ => files.stray(&mut plan, base, &child)?,
        }
    }
    describe(&mut plan, read, &meta, meta.fields(), &mut |bytes| files.keep(bytes))?;
    Ok(Some((plan, base.clone())))
}
