//! A run that is taken anew: what `--replace` does where the log cannot take back, with points and params.
//!
//! Contract: the run gets a new uid and keeps its id; the old one is purged, and only once all of the new one is in the
//! log, so that an import that is killed anywhere loses nothing and is completed by the next one, with `--replace` or
//! without. The new uid is hashed from the first one the run had and from the params and lines that are taken: stores
//! that take the same state agree, and two that take different ones do not mix after a merge. A run that was changed in
//! the store since it was imported is left as it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::Registers;
use super::artifact::store;
use super::export::is_purged;
use super::import::Importer;
use super::import_experiment::ExperimentContext;
use super::import_metric::{hash_prefix, import_origin};
use super::metric_record::MetricRecord;
use super::path::safe_path;
use super::plan::{EntityPlan, LAYOUT, is_meta};
use super::report::ArtifactMode;
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::{Stamp, Uid};

/// Role of the register that says what an import left: whether anybody changed the run since.
const STATE: &str = "state";
/// Key of the uid that a run was taken anew from; the one without key is the first it had.
const LAST: &str = "last";

/// The entities that one run of a tree is or was.
pub(super) struct Generations {
    /// The uid that follows from the tree.
    first: Uid,
    /// The one that is imported into.
    pub(super) uid: Uid,
    /// Others that still exist.
    older: Vec<Uid>,
}

/// Digest of everything that can be changed in a store, points and artifacts apart.
fn state_of<'a>(registers: impl Iterator<Item = (&'a (Field, String), &'a Value)>) -> Value {
    let mut hasher = blake3::Hasher::new();
    for ((field, key), value) in registers {
        let counts = matches!(*field, Field::TAG | Field::PARAM | Field::INPUT) || is_meta(*field, key);
        if !counts || matches!(*field, Field::SHAPE | Field::VERBATIM) || *value == Value::Absent {
            continue;
        }
        hasher.update(&field.0.to_le_bytes());
        hasher.update(&[value.borrow().tag()]);
        value.borrow().with_bytes(|value| {
            for bytes in [key.as_bytes(), value] {
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
        });
    }
    Value::Bytes(super::digest::short(hasher.finalize().as_bytes()).to_vec())
}

/// What a store has of an entity, without stamps.
fn values(registers: &Registers) -> impl Iterator<Item = (&(Field, String), &Value)> {
    registers.iter().map(|(key, (_, value))| (key, value))
}

fn state_register(registers: &Registers) -> Option<&Value> {
    registers.get(&(Field::SHAPE, STATE.to_owned())).map(|(_, value)| value)
}

/// Whether somebody changed what an import left. An import that was killed before it was done leaves nothing to change.
fn is_changed(registers: &Registers) -> bool {
    registers.contains_key(&(Field::SHAPE, LAYOUT.to_owned()))
        && state_register(registers) != Some(&state_of(values(registers)))
}

/// Puts what makes a run known again among the operations of its import: first what it replaces, and before the layout,
/// which comes last, the state they lead to. `planned` is that of the tree. Once a run was changed in the store it
/// stays so.
pub(super) fn complete_operations(
    uid: Uid,
    current: &Registers,
    planned: Value,
    operations: &mut Vec<Operation>,
) {
    operations.sort_by_key(|operation| operation.field != Field::REPLACES);
    if is_changed(current) {
        return;
    }
    let mut state = planned;
    if current.contains_key(&(Field::SHAPE, LAYOUT.to_owned())) {
        let mut after: std::collections::BTreeMap<_, _> =
            values(current).map(|(key, value)| (key.clone(), value.clone())).collect();
        after.extend(operations.iter().map(|o| ((o.field, o.key.clone()), o.value.clone())));
        state = state_of(after.iter());
    }
    if state_register(current) != Some(&state) {
        let ends = operations.last().is_some_and(|o| o.field == Field::SHAPE && o.key == LAYOUT);
        let at = operations.len() - usize::from(ends);
        let (kind, field, key) = (EntityKind::RUN, Field::SHAPE, STATE.to_owned());
        operations.insert(at, Operation { kind, uid, field, key, value: state });
    }
}

impl EntityPlan {
    /// Digest of what can be changed in a store.
    pub(super) fn state(&self) -> Value {
        state_of(self.registers.iter())
    }
}

impl Importer<'_> {
    /// The runs that were taken anew from what had the uid `first`, in an experiment: the latest last.
    pub(super) fn taken_from(&self, first: Uid, experiment: &ExperimentContext) -> Result<Vec<(Stamp, Uid)>> {
        let mut found = Vec::new();
        for &uid in self.replacements.get(&first).into_iter().flatten() {
            let registers = self.target.registers(uid)?;
            let is = |field: Field, uid: Uid| {
                registers.get(&(field, String::new())).is_some_and(|(_, value)| *value == Value::Uid(uid))
            };
            if let Some((stamp, _)) = registers.get(&(Field::REPLACES, LAST.to_owned()))
                // Of a run that was begun and not gone on with, nothing else may be there yet.
                && (is(Field::TREE, self.identity.uid) || !registers.contains_key(&(Field::TREE, String::new())))
                && (is(Field::EXPERIMENT, experiment.uid)
                    || !registers.contains_key(&(Field::EXPERIMENT, String::new())))
            {
                found.push((*stamp, uid));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The entity a run of the tree is now, if it was `first` when it was imported first.
    pub(super) fn generations(&mut self, first: Uid, experiment: &ExperimentContext) -> Result<Generations> {
        let mut older: Vec<Uid> =
            self.taken_from(first, experiment)?.into_iter().map(|(_, uid)| uid).collect();
        let Some(uid) = older.pop() else { return Ok(Generations { first, uid: first, older }) };
        if self.target.kind(first)?.is_some() {
            older.push(first);
        }
        self.seen.extend(&older);
        Ok(Generations { first, uid, older })
    }

    /// With `replace`: whether params or points of the run changed, and if so makes it a plan for another uid.
    pub(super) fn plan_anew(
        &mut self,
        plan: &mut EntityPlan,
        generations: &mut Generations,
        id: &str,
        path: &Path,
        files: &[(String, PathBuf)],
    ) -> Result<()> {
        let old = plan.uid;
        let current = self.target.registers(old)?;
        if !self.options.replace || current.is_empty() {
            return Ok(());
        }
        let mut changed = Vec::new();
        for key in plan.changed_params(&current)? {
            let file = safe_path(&key).unwrap_or_default();
            changed.push((path.join("params").join(file), "differs from what was imported"));
        }
        for (key, file) in files {
            if self.metric_changed(old, key, file, &current)? {
                changed.push((file.clone(), "its beginning changed since it was imported"));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        if let Some(what) = self.edit_of(old, &current)? {
            let text = format!(
                "was changed in the store ({what}) and in the tree, so it was not taken anew (for the tree's, import \
                 it under another name: --tree NAME)"
            );
            self.report.problem(path, None, text);
            return Ok(());
        }
        for (file, what) in changed {
            self.report.problem(file, None, format!("{what}; the whole run was taken anew"));
        }
        let content = self.content_digest(plan, files)?;
        let mut number = 0u64;
        plan.uid = loop {
            let parts: [&[u8]; 3] = [generations.first.as_bytes(), &content, &number.to_le_bytes()];
            let uid = Uid::derived("mlruns run anew", &parts);
            if self.target.registers(uid)?.is_empty() {
                break uid;
            }
            number += 1;
        };
        plan.set(Field::RUN_ID_TEXT, "", Value::Text(id.to_owned()));
        plan.set(Field::REPLACES, "", Value::Uid(generations.first));
        plan.set(Field::REPLACES, LAST, Value::Uid(old));
        generations.uid = plan.uid;
        generations.older.push(old);
        self.seen.insert(plan.uid);
        self.replacements.entry(generations.first).or_default().push(plan.uid);
        Ok(())
    }

    /// Digest of the params and the metric files of a run.
    fn content_digest(&mut self, plan: &EntityPlan, files: &[(String, PathBuf)]) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let Value::Bytes(params) =
            state_of(plan.registers.iter().filter(|((field, _), _)| *field == Field::PARAM))
        else {
            return Err(Error::InvalidState("a digest is bytes".into()));
        };
        hasher.update(&params);
        let mut buffer = vec![0; 64 * 1024];
        for (key, path) in files {
            let mut lines = blake3::Hasher::new();
            if let Ok(mut file) = File::open(path) {
                hash_prefix(&mut file, &mut lines, &mut buffer, u64::MAX, path)?;
            }
            hasher.update(&(key.len() as u64).to_le_bytes());
            hasher.update(key.as_bytes());
            hasher.update(lines.finalize().as_bytes());
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// What was changed in the store of an imported run, if anything was.
    fn edit_of(&self, run: Uid, registers: &Registers) -> Result<Option<String>> {
        if is_changed(registers) {
            return Ok(Some("what it says of itself, params, tags or inputs".into()));
        }
        for (key, origin) in self.target.origins(run)? {
            let record = registers.get(&(Field::METRIC_FILE, key.clone()));
            let record = record.map_or(Ok(None), |(_, value)| MetricRecord::from_value(value))?;
            if origin != import_origin(run, &key) && record.is_none_or(|record| record.origin != origin) {
                return Ok(Some(format!("metric '{key}' was logged to")));
            }
        }
        Ok(None)
    }

    /// Purges what a run was before. `complete`: all that the tree has of it is in the store.
    pub(super) fn retire(&mut self, generations: &Generations, path: &Path, complete: bool) -> Result<()> {
        let now = self.target.registers(generations.uid)?;
        let last = now.get(&(Field::REPLACES, LAST.to_owned())).map(|(_, value)| value);
        for &old in &generations.older {
            let registers = self.target.registers(old)?;
            if registers.is_empty() || is_purged(&registers) {
                continue;
            }
            let kept =
                |why: &str| format!("the store keeps it twice, also as it was before (uid {old}): {why}");
            if !complete {
                self.report.problem(path, None, kept("not all of it could be taken (see there)"));
            } else if last != Some(&Value::Uid(old)) && !self.options.replace {
                self.report.problem(path, None, kept("stores were merged (--replace removes the older one)"));
            } else if let Some(what) = self.edit_of(old, &registers)? {
                self.report.problem(path, None, kept(&format!("it was changed in the store ({what})")));
            } else {
                self.carry_artifacts(old, generations.uid, &path.join("artifacts"))?;
                let (kind, field, key) = (EntityKind::RUN, Field::PURGED, String::new());
                self.apply(vec![Operation { kind, uid: old, field, key, value: Value::Flag(true) }])?;
            }
        }
        Ok(())
    }

    /// Artifacts that only the store has, or that this import leaves out, go along.
    fn carry_artifacts(&mut self, old: Uid, new: Uid, tree: &Path) -> Result<()> {
        if self.dry {
            return Ok(());
        }
        let (from, to) = (self.target.artifact_directory(old)?, self.target.artifact_directory(new)?);
        let mut pending = vec![from.clone()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten() {
                let path = entry.map_err(|e| Error::io("list", &directory, e))?.path();
                let relative = path.strip_prefix(&from).unwrap_or(&path);
                if path.is_dir() {
                    pending.push(path);
                } else if fs::symlink_metadata(to.join(relative)).is_err()
                    && (self.options.artifacts == ArtifactMode::Skip || !tree.join(relative).exists())
                {
                    store(&to, relative, &path, ArtifactMode::Link, false)?;
                }
            }
        }
        Ok(())
    }
}
