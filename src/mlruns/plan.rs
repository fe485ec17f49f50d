//! What an entity of the tree should hold, and how that meets what the store already has.
//!
//! Contract: [`EntityPlan::operations`] gives the operations that are missing; none if nothing changed. What the tree
//! did not change since it was imported is left as it is in the store, edited or not. What the tree changed is taken
//! where it only adds; anything else is reported and left, or taken with `replace`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::Registers;
use super::content::Content;
use super::derive::is_covered;
use super::digest::{Short, short};
use super::shape::{Layout, Shape};
use crate::error::Result;
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::{Stamp, Uid};
use crate::model::{LoggedModelStatus, RunStatus};

/// Role of the register that holds the layout of an entity's directory.
pub(super) const LAYOUT: &str = "";
/// The file that describes an entity.
pub(super) const META: &str = "meta.yaml";

/// What is said of something that an earlier import brought and that the tree has no more.
pub(super) const GONE: &str = "no longer in the tree; the store keeps it";

/// What to do about a run whose points or params changed, which are never taken back.
pub(super) const TAKE_ANEW: &str = "--replace takes the tree's: the whole run anew";
/// The same, where that is no way.
pub(super) const IMPORT_BESIDE: &str = "for the tree's, import it under another name: --tree NAME";

/// Registers that an entity's own file determines.
const META_FIELDS: &[Field] = &[
    Field::NAME,
    Field::LIFECYCLE,
    Field::CREATED_MS,
    Field::UPDATED_MS,
    Field::NUMERIC_ID,
    Field::ARTIFACT_LOCATION,
    Field::STATUS,
    Field::START_MS,
    Field::END_MS,
    Field::DELETED_MS,
    Field::USER,
    Field::ARTIFACT_URI,
    Field::RUN_ID_TEXT,
    Field::SOURCE_TYPE,
    Field::SOURCE,
    Field::SCHEMA,
    Field::PROFILE,
    Field::DESCRIPTION,
    Field::VERSION,
    Field::STAGE,
    Field::RUN_ID,
    Field::RUN_LINK,
    Field::STATUS_MESSAGE,
    Field::MODEL_ID,
    Field::MODEL_TYPE,
];

/// Registers that other files of an entity determine, one each.
const VALUE_FIELDS: &[Field] = &[
    Field::TAG,
    Field::PARAM,
    Field::FILE,
    Field::INPUT,
    Field::ALIAS,
    Field::MODEL_INPUT,
    Field::MODEL_OUTPUT,
];

/// Registers that only point to what an entity belongs to; the tree decides.
const PLACE_FIELDS: &[Field] = &[Field::TREE, Field::EXPERIMENT, Field::MODEL];

/// An entity as the tree has it.
pub(super) struct EntityPlan {
    pub(super) kind: EntityKind,
    pub(super) uid: Uid,
    pub(super) registers: BTreeMap<(Field, String), Value>,
    pub(super) layout: Layout,
    /// Directories whose files are entities of their own; an older program kept them as files of this one.
    pub(super) elsewhere: BTreeSet<PathBuf>,
}

/// A difference that was not (or only on request) taken over.
pub(super) struct Difference {
    /// Key of the file, relative to the entity's directory.
    pub(super) file: String,
    /// What happened.
    pub(super) text: String,
}

impl EntityPlan {
    /// An entity without anything yet.
    pub(super) fn new(kind: EntityKind, uid: Uid, directory: String) -> Self {
        let layout = Layout { directory, ..Layout::default() };
        Self { kind, uid, registers: BTreeMap::new(), layout, elsewhere: BTreeSet::new() }
    }

    /// Sets a register; absent values of a new entity are not worth one.
    pub(super) fn set(&mut self, field: Field, key: impl Into<String>, value: Value) {
        if value != Value::Absent {
            self.registers.insert((field, key.into()), value);
        }
    }

    /// Digest of everything but the entity's own file.
    fn values(&self) -> Short {
        let mut hasher = blake3::Hasher::new();
        for ((field, key), value) in &self.registers {
            if VALUE_FIELDS.contains(field) {
                hasher.update(&field.0.to_le_bytes());
                value.borrow().with_bytes(|value| {
                    for bytes in [key.as_bytes(), value] {
                        hasher.update(&(bytes.len() as u64).to_le_bytes());
                        hasher.update(bytes);
                    }
                });
            }
        }
        short(hasher.finalize().as_bytes())
    }

    /// Takes away the files that are entities of their own now: for when these are in the store. Those of a run say
    /// what is its own, and go on to do so.
    pub(super) fn superseded(&self, current: &Registers) -> Vec<Operation> {
        let files = current.iter().filter(|((field, key), (_, value))| {
            self.kind != EntityKind::RUN
                && *field == Field::FILE
                && *value != Value::Absent
                && is_covered(&self.elsewhere, key)
                && !self.registers.contains_key(&(*field, key.clone()))
        });
        let (kind, uid) = (self.kind, self.uid);
        files
            .map(|((field, key), _)| Operation {
                kind,
                uid,
                field: *field,
                key: key.clone(),
                value: Value::Absent,
            })
            .collect()
    }

    /// Params that the tree changed since it was imported.
    pub(super) fn changed_params(&self, current: &Registers) -> Result<Vec<String>> {
        let layout = current.get(&(Field::SHAPE, LAYOUT.to_owned()));
        let layout = layout.map_or(Ok(None), |(_, value)| Layout::from_value(value))?;
        if layout.is_some_and(|layout| layout.values == self.values()) {
            return Ok(Vec::new());
        }
        let params = self.registers.iter().filter(|((field, _), _)| *field == Field::PARAM);
        let changed =
            params.filter(|(name, value)| current.get(*name).is_some_and(|(_, present)| present != *value));
        Ok(changed.map(|((_, key), _)| key.clone()).collect())
    }

    /// What is missing in the store, most binding first; the layout, which says "all of this is in", comes last.
    pub(super) fn operations(
        mut self,
        current: &Registers,
        replace: bool,
        differences: &mut Vec<Difference>,
    ) -> Result<Vec<Operation>> {
        self.layout.values = self.values();
        self.layout.empty.sort_unstable();
        let layout_key = (Field::SHAPE, LAYOUT.to_owned());
        let old_layout = match current.get(&layout_key) {
            Some((stamp, value)) => Layout::from_value(value)?.map(|layout| (*stamp, layout)),
            None => None,
        };
        if let Some((_, old)) = &old_layout
            && !self.meta_is_taken(current, old, replace, differences)?
        {
            self.layout.directory.clone_from(&old.directory);
            self.layout.deleted = old.deleted;
        }
        self.note_gone(current, old_layout.as_ref(), differences);
        let untouched = old_layout.as_ref().is_some_and(|(_, old)| old.values == self.layout.values);
        let imported_at = old_layout.as_ref().map(|(stamp, _)| *stamp);
        let mut operations = Vec::new();
        let mut left = false;
        for ((field, key), value) in std::mem::take(&mut self.registers) {
            let take = match current.get(&(field, key.clone())) {
                None => true,
                Some((_, present)) if *present == value => false,
                Some(_) if is_meta(field, &key) || PLACE_FIELDS.contains(&field) => true,
                Some(_) if untouched => false,
                Some((stamp, present)) => {
                    take_changed(field, &key, (*stamp, present), &value, imported_at, replace, differences)
                }
            };
            left |= !take
                && !untouched
                && current.get(&(field, key.clone())).is_some_and(|(_, present)| *present != value);
            if take {
                operations.push(Operation { kind: self.kind, uid: self.uid, field, key, value });
            }
        }
        if left && let Some((_, old)) = &old_layout {
            // Not all of the tree is in: the next import tells again, and can be told to replace.
            self.layout.values = old.values;
        }
        if let Some((_, old)) = &old_layout {
            let foreign = std::mem::replace(&mut self.layout.foreign, old.foreign.clone());
            if self.layout != *old {
                self.layout.foreign = foreign;
            }
        }
        let layout = self.layout.to_value();
        if current.get(&layout_key).is_none_or(|(_, present)| *present != layout) {
            let (field, key) = layout_key;
            operations.push(Operation { kind: self.kind, uid: self.uid, field, key, value: layout });
        }
        Ok(operations)
    }

    /// Tells what the tree has no more, and marks what it never had: keys that the store has got otherwise.
    fn note_gone(
        &mut self,
        current: &Registers,
        old: Option<&(Stamp, Layout)>,
        differences: &mut Vec<Difference>,
    ) {
        for ((field, key), (stamp, value)) in current {
            // Files that are metrics without a point are not planned here, and artifacts stay where they are.
            let is_artifact = self.kind == EntityKind::LOGGED_MODEL && key.starts_with("artifacts/");
            let elsewhere = *field == Field::FILE && (key.starts_with("metrics/") || is_artifact);
            if !VALUE_FIELDS.contains(field)
                || elsewhere
                || (*field == Field::FILE && is_covered(&self.elsewhere, key))
                || *value == Value::Absent
                || self.registers.contains_key(&(*field, key.clone()))
            {
                continue;
            }
            let name = (*field, key.clone());
            match old {
                Some((at, old)) if stamp <= at && !old.foreign.contains(&name) => {
                    differences.push(Difference { file: file_of(*field, key), text: GONE.into() });
                }
                _ => self.layout.foreign.push(name),
            }
        }
    }

    /// Decides over `meta.yaml` and the registers it determines: those that stay as they are leave the plan. Says
    /// whether the tree's state was taken.
    fn meta_is_taken(
        &mut self,
        current: &Registers,
        old: &Layout,
        replace: bool,
        differences: &mut Vec<Difference>,
    ) -> Result<bool> {
        let shape_key = (Field::SHAPE, META.to_owned());
        let shape_of = |value: Option<&Value>| value.map_or(Ok(None), Shape::from_value);
        let new_shape = shape_of(self.registers.get(&shape_key))?;
        let old_shape = shape_of(current.get(&shape_key).map(|(_, value)| value))?;
        let same_file = match (&new_shape, &old_shape) {
            (Some(new), Some(old)) => new.file == old.file,
            (new, old) => new.is_none() && old.is_none(),
        };
        let same_place = old.directory == self.layout.directory;
        // A tag can be a run's name: then the name changes with the tag, not with the file.
        let taken = if same_file && same_place {
            false
        } else if same_place && self.has_gone_on(current) {
            true
        } else {
            let what = if same_place { "changed" } else { "moved" };
            let what = format!("{what} since the last import");
            differences.push(Difference {
                file: if same_place { META.into() } else { String::new() },
                text: if replace {
                    format!("{what}; the tree's state was taken")
                } else {
                    format!("{what}; the store's state was kept (--replace takes the tree's)")
                },
            });
            replace
        };
        if taken {
            // What the new file does not have any more is taken back.
            let gone: Vec<_> = current
                .iter()
                .filter(|((field, key), (_, value))| {
                    is_meta(*field, key)
                        && *value != Value::Absent
                        && !self.registers.contains_key(&(*field, key.clone()))
                })
                .map(|(key, _)| key.clone())
                .collect();
            self.registers.extend(gone.into_iter().map(|key| (key, Value::Absent)));
        } else {
            self.registers.retain(|(field, key), _| !is_meta(*field, key));
        }
        Ok(taken)
    }

    /// Whether all that changed in an entity's file is that it went on: a run got another status or an end, a
    /// registered model another version.
    fn has_gone_on(&self, current: &Registers) -> bool {
        let integer = |field: Field| match current.get(&(field, String::new())) {
            Some((_, Value::Integer(number))) => Some(*number),
            _ => None,
        };
        let is_later = |field: Field| match self.registers.get(&(field, String::new())) {
            Some(Value::Integer(number)) => Some(*number) > integer(field),
            _ => false,
        };
        let (goes_on, fields): (bool, &[Field]) = match self.kind {
            EntityKind::RUN => {
                let status = integer(Field::STATUS).and_then(RunStatus::from_number);
                (status.is_some_and(|status| !status.is_terminated()), &[Field::STATUS, Field::END_MS])
            }
            EntityKind::REGISTERED_MODEL => (is_later(Field::UPDATED_MS), &[Field::UPDATED_MS]),
            EntityKind::LOGGED_MODEL => {
                let pending = integer(Field::STATUS) == Some(LoggedModelStatus::Pending as i64);
                (
                    pending && is_later(Field::UPDATED_MS),
                    &[Field::UPDATED_MS, Field::STATUS, Field::STATUS_MESSAGE],
                )
            }
            _ => (false, &[]),
        };
        let free = |field: &Field| fields.contains(field) || [Field::SHAPE, Field::VERBATIM].contains(field);
        let keys: BTreeSet<&(Field, String)> = current.keys().chain(self.registers.keys()).collect();
        goes_on
            && keys.into_iter().filter(|(field, key)| is_meta(*field, key) && !free(field)).all(|key| {
                let present = current.get(key).map_or(&Value::Absent, |(_, value)| value);
                *present == *self.registers.get(key).unwrap_or(&Value::Absent)
            })
    }
}

pub(super) fn is_meta(field: Field, key: &str) -> bool {
    META_FIELDS.contains(&field) || (matches!(field, Field::SHAPE | Field::VERBATIM) && key == META)
}

/// Whether a param, tag or file of the tree replaces what the store has.
fn take_changed(
    field: Field,
    key: &str,
    present: (Stamp, &Value),
    value: &Value,
    imported_at: Option<Stamp>,
    replace: bool,
    differences: &mut Vec<Difference>,
) -> bool {
    if field == Field::FILE && has_grown(present.1, value) {
        return true;
    }
    let who = match imported_at {
        Some(at) if present.0 <= at => "differs from what was imported",
        _ => "was changed in the store",
    };
    let advice = if replace { IMPORT_BESIDE } else { TAKE_ANEW };
    let replace = replace && field != Field::PARAM;
    let text = if replace {
        format!("{who}; the tree's state was taken")
    } else if field == Field::PARAM {
        format!("{who}; the store's value was kept ({advice})")
    } else {
        format!("{who}; the store's state was kept (--replace takes the tree's)")
    };
    differences.push(Difference { file: file_of(field, key), text });
    replace
}

/// The file of a param, tag or file of the tree.
fn file_of(field: Field, key: &str) -> String {
    match field {
        Field::TAG => format!("tags/{key}"),
        Field::PARAM => format!("params/{key}"),
        Field::INPUT => format!("inputs of data set {key}"),
        Field::ALIAS => format!("aliases/{key}"),
        Field::MODEL_INPUT => format!("inputs of logged model {key}"),
        Field::MODEL_OUTPUT => format!("outputs/{key}"),
        _ => key.to_owned(),
    }
}

/// Whether a file only became longer, as logs do.
fn has_grown(present: &Value, value: &Value) -> bool {
    match (Content::from_value(present), Content::from_value(value)) {
        (Ok(Some(Content::Inline(old))), Ok(Some(Content::Inline(new)))) => new.starts_with(&old),
        (Ok(None), Ok(Some(_))) => true,
        _ => false,
    }
}
