//! Import of an experiment: its `meta.yaml`, tags, data sets, and the walk over its runs.
//!
//! Contract: an experiment is hashed from tree, directory name, artifact location and creation time, so two trees that
//! both have an experiment 1 stay apart, and one that moved to `.trash` stays itself. Whatever is damaged, its runs are
//! imported.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::files::{Files, TreeFiles, describe};
use super::import::Importer;
use super::import_files::{Item, VALUE_BYTES_MAX, YamlFile, text_value};
use super::logged_model::{Identities, OwnerContext, logged_model, logged_model_at};
use super::meta::{DatasetMeta, ExperimentMeta, Fields};
use super::path::{is_text, key_of};
use super::plan::{EntityPlan, META};
use super::registry::MODELS;
use super::report::ArtifactMode;
use super::shape::Described;
use super::tree::{FoundExperiment, experiment_uid, is_run_name};
use super::yaml_emit::emit;
use crate::catalog::changes::dataset_uid;
use crate::error::Result;
use crate::format::event::{EntityKind, Field, Value};
use crate::id::Uid;
use crate::model::Lifecycle;

/// What runs need to know of their experiment.
pub(super) struct ExperimentContext {
    pub(super) uid: Uid,
    pub(super) id: Option<String>,
    /// Data sets by the name of their directory.
    pub(super) datasets: HashMap<String, Uid>,
}

impl Importer<'_> {
    /// Imports one experiment.
    pub(super) fn experiment(&mut self, found: &FoundExperiment) -> Result<()> {
        let path = &*found.path;
        self.state.experiments += 1;
        self.report.experiments += 1;
        let directory = key_of(path.strip_prefix(self.root).unwrap_or(path));
        let (name, read) = self.begin(path, "the experiment is named after its directory")?;
        let meta_path = path.join(META);
        let document = read.as_ref().and_then(|file| file.document.as_ref());
        let mut notes = Vec::new();
        let mut meta = document.map(|d| ExperimentMeta::from_document(d, &mut notes)).unwrap_or_default();
        if document.is_some() {
            if meta.id.as_ref() != Some(&name) {
                notes.push(
                    "experiment_id is not the name of the directory; MLflow does not show this experiment"
                        .into(),
                );
            }
            if document.and_then(|d| d.get("lifecycle_stage")).is_none() {
                notes.push(
                    "no lifecycle_stage; MLflow 2 and 3 cannot list the experiments of this tree".into(),
                );
            }
        }
        for note in notes {
            self.report.problem(&meta_path, None, note);
        }
        meta.id.get_or_insert_with(|| name.clone());
        meta.name.get_or_insert_with(|| name.clone());
        if found.in_trash {
            // MLflow 1.x does not write it; the place decides.
            meta.lifecycle = Some(Lifecycle::Deleted);
        }
        let uid = experiment_uid(&self.identity.source, &name, &meta);
        // What was counted were names.
        self.state.runs_total = self.state.runs_total.saturating_sub(found.runs);
        if self.is_left_out(uid, path)? {
            return Ok(());
        }
        let mut plan = EntityPlan::new(EntityKind::EXPERIMENT, uid, directory);
        plan.layout.deleted = meta.lifecycle == Some(Lifecycle::Deleted);
        plan.set(Field::TREE, "", Value::Uid(self.identity.uid));
        self.describe(&mut plan, read, &meta, meta.fields())?;

        let mut context = ExperimentContext { uid, id: meta.id.clone(), datasets: HashMap::new() };
        let mut runs = Vec::new();
        let mut datasets = Vec::new();
        let mut models = Vec::new();
        for item in self.list(path)? {
            match item.text() {
                Some(META) if !item.is_dir => self.undescribed(&mut plan, path, &item)?,
                Some("tags") if item.is_dir => self.values(&mut plan, path, &item, Field::TAG)?,
                Some("datasets") if item.is_dir => {
                    datasets = self.datasets(&mut plan, path, &item, &mut context)?
                }
                Some(MODELS) if item.is_dir => models = self.find_logged_models(&mut plan, path)?,
                Some("traces") if item.is_dir => self.stray(&mut plan, path, &item, true, 0)?,
                _ if item.is_dir && self.is_run(&item) => runs.push(item),
                _ => self.stray(&mut plan, path, &item, true, 0)?,
            }
        }
        plan.elsewhere = models.iter().cloned().collect();
        self.commit(plan, path)?;
        for (plan, directory) in datasets {
            self.commit(plan, &directory)?;
        }
        self.state.runs_total += runs.len() as u64;
        for run in runs {
            self.run_directory(&run.path, &context)?;
            self.state.runs += 1;
            self.tell(0);
        }
        for directory in models {
            self.logged_model(path, &directory, &context)?;
        }
        Ok(())
    }

    /// The logged models of an experiment; what else lies there is kept as files.
    fn find_logged_models(&mut self, plan: &mut EntityPlan, base: &Path) -> Result<Vec<PathBuf>> {
        let mut files = TreeFiles::new(self, base);
        let mut models = Vec::new();
        let children = files.children(Path::new(MODELS))?;
        if children.is_empty() {
            plan.layout.empty.push(MODELS.into());
        }
        for child in children {
            if child.is_dir && logged_model_at(&mut files, &child.path, Uid::default()).is_some() {
                models.push(child.path);
            } else {
                files.stray(plan, Path::new(""), &child)?;
            }
        }
        Ok(models)
    }

    /// Imports one logged model; `place` is its directory in that of the experiment.
    fn logged_model(&mut self, base: &Path, place: &Path, experiment: &ExperimentContext) -> Result<()> {
        let Some(identities) = logged_model_at(&mut TreeFiles::new(self, base), place, experiment.uid) else {
            return Ok(());
        };
        let uid = self.owned_uid(&identities, experiment)?;
        let (tree, experiment_id) = (self.identity.uid, experiment.id.as_ref());
        let context = OwnerContext { tree, experiment: experiment.uid, experiment_id };
        let mut files = TreeFiles::new(self, base);
        let Some((mut plan, _)) = logged_model(&mut files, place, uid, &context)? else { return Ok(()) };
        let metric_files = files.metric_files;
        let path = base.join(place);
        if self.is_left_out(uid, &path)? {
            return Ok(());
        }
        if matches!(self.options.artifacts, ArtifactMode::Copy | ArtifactMode::Link) {
            plan.elsewhere.insert("artifacts".into());
        }
        self.commit(plan, &path)?;
        let artifacts = path.join("artifacts");
        if artifacts.is_dir() {
            self.copy_artifacts(uid, &artifacts)?;
        }
        self.metrics(EntityKind::LOGGED_MODEL, uid, &path, metric_files)?;
        self.tell(0);
        Ok(())
    }

    /// The identity of something in an experiment: the one that its id stands for, unless that is something else's.
    fn owned_uid(&self, identities: &Identities, experiment: &ExperimentContext) -> Result<Uid> {
        let Identities { own: Some(own), hashed } = *identities else { return Ok(identities.hashed) };
        if self.target.kind(hashed)?.is_some() {
            return Ok(hashed);
        }
        if self.target.kind(own)?.is_none() {
            return Ok(own);
        }
        let registers = self.target.registers(own)?;
        let is = |field: Field, uid: Uid| {
            registers.get(&(field, String::new())).is_some_and(|(_, value)| *value == Value::Uid(uid))
        };
        let is_this = is(Field::TREE, self.identity.uid) && is(Field::EXPERIMENT, experiment.uid);
        Ok(if is_this { own } else { hashed })
    }

    /// A run has a `meta.yaml`; without one it is still a run if it looks like nothing else.
    fn is_run(&mut self, item: &Item) -> bool {
        item.path.join(META).exists()
            || is_run_name(&item.path)
                && ["metrics", "params", "tags"].iter().any(|d| item.path.join(d).is_dir())
    }

    /// The registers, shape and, where needed, the original bytes of an entity's `meta.yaml`.
    pub(super) fn describe<D: Described>(
        &mut self,
        plan: &mut EntityPlan,
        read: Option<YamlFile>,
        described: &D,
        fields: Fields,
    ) -> Result<()> {
        let mut keep = |bytes| self.bytes_content(bytes);
        let kept = describe(plan, read, described, fields, &mut keep)?;
        self.report.yaml_verbatim += u64::from(kept);
        Ok(())
    }

    /// A `meta.yaml` that was too large or could not be read is a file like any other.
    pub(super) fn undescribed(&mut self, plan: &mut EntityPlan, base: &Path, item: &Item) -> Result<()> {
        let described = plan.registers.contains_key(&(Field::SHAPE, META.to_owned()));
        if described { Ok(()) } else { self.stray(plan, base, item, false, 0) }
    }

    /// A directory of params or tags: a file per key.
    pub(super) fn values(
        &mut self,
        plan: &mut EntityPlan,
        base: &Path,
        directory: &Item,
        field: Field,
    ) -> Result<()> {
        let root = directory.path.clone();
        let mut pending = vec![root.clone()];
        while let Some(path) = pending.pop() {
            let items = self.list(&path)?;
            if items.is_empty() {
                plan.layout.empty.push(key_of(path.strip_prefix(base).unwrap_or(&path)));
            }
            for item in items {
                if item.is_dir {
                    pending.push(item.path);
                    continue;
                }
                let relative = item.path.strip_prefix(&root).unwrap_or(&item.path);
                let large =
                    std::fs::metadata(&item.path).map_or(true, |m| !m.is_file() || m.len() > VALUE_BYTES_MAX);
                if large || !is_text(relative) {
                    self.report.problem(
                        &item.path,
                        None,
                        "not a value (its name is not UTF-8, or it is too large or no file); kept as a file",
                    );
                    self.stray(plan, base, &item, false, 0)?;
                } else if let Some(bytes) = self.read_file(&item.path, VALUE_BYTES_MAX)? {
                    let value = text_value(bytes);
                    if matches!(value, Value::Bytes(_)) {
                        self.report.problem(&item.path, None, "not UTF-8; MLflow cannot read it");
                    }
                    plan.set(field, key_of(relative), value);
                }
            }
        }
        Ok(())
    }

    /// The data sets of an experiment. What is no data set in every respect is kept as files of the experiment.
    fn datasets(
        &mut self,
        experiment: &mut EntityPlan,
        base: &Path,
        directory: &Item,
        context: &mut ExperimentContext,
    ) -> Result<Vec<(EntityPlan, std::path::PathBuf)>> {
        let mut plans = BTreeMap::new();
        let items = self.list(&directory.path)?;
        if items.is_empty() {
            experiment.layout.empty.push("datasets".into());
        }
        for item in items {
            let meta_path = item.path.join(META);
            let children = if item.is_dir { self.list(&item.path)? } else { Vec::new() };
            let alone = matches!(children.as_slice(), [only] if only.path == meta_path && !only.is_dir);
            let bytes = if alone { self.read_small(&meta_path) } else { None };
            let document = bytes.as_ref().and_then(|bytes| super::yaml_read::read(bytes).ok());
            let dataset = document.as_ref().and_then(DatasetMeta::from_document);
            match (dataset, document, bytes) {
                (Some(dataset), Some(document), Some(bytes)) if item.text() == Some(&dataset.directory()) => {
                    let uid = dataset_uid(context.uid, &dataset.name, &dataset.digest);
                    let mut plan = EntityPlan::new(EntityKind::DATASET, uid, dataset.directory());
                    plan.set(Field::TREE, "", Value::Uid(self.identity.uid));
                    plan.set(Field::EXPERIMENT, "", Value::Uid(context.uid));
                    self.report.yaml_files += 1;
                    self.report.bytes += bytes.len() as u64;
                    let canonical = emit(&document).is_ok_and(|again| again == bytes);
                    let file = YamlFile { bytes, document: Some(document), canonical };
                    self.describe(&mut plan, Some(file), &dataset, dataset.fields())?;
                    context.datasets.insert(dataset.directory(), uid);
                    plans.insert(uid, (plan, item.path));
                }
                _ => self.stray(experiment, base, &item, true, 0)?,
            }
        }
        Ok(plans.into_values().collect())
    }
}
