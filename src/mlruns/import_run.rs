//! Import of a run: its `meta.yaml`, params, tags, inputs, artifacts, and the walk over its metric files.
//!
//! Contract: a run keeps its id as identity if its directory is named by it and nothing else in the store has it;
//! otherwise, and when it was taken anew (`import_anew`), its identity is hashed and the id is a text beside it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::artifact::{Stored, store};
use super::content::Content;
use super::digest::{md5_of, short};
use super::files::TreeFiles;
use super::import::Importer;
use super::import_experiment::ExperimentContext;
use super::import_files::{Item, text_value};
use super::meta::{RunMeta, input_document, read_input};
use super::path::{is_text, key_of};
use super::plan::{EntityPlan, META};
use super::report::ArtifactMode;
use super::run_models::{DATASET, take_run_model};
use super::yaml_emit::emit;
use super::yaml_read::read;
use crate::error::Result;
use crate::format::event::{EntityKind, Field, Value};
use crate::format::input_tags::encode_input_tags;
use crate::id::Uid;

/// Key of the override that says: this input is written by a file of its own.
pub(super) fn input_file(dataset: &Uid) -> String {
    format!("inputs/{dataset}")
}

impl Importer<'_> {
    /// Imports one run.
    pub(super) fn run_directory(&mut self, path: &Path, experiment: &ExperimentContext) -> Result<()> {
        self.report.runs += 1;
        let (name, read) = self.begin(path, "what else the run has was taken")?;
        let meta_path = path.join(META);
        let document = read.as_ref().and_then(|file| file.document.as_ref());
        let mut notes = Vec::new();
        let mut meta = match document {
            Some(document) => {
                RunMeta::from_document(document, name.clone(), experiment.id.as_ref(), &mut notes)
            }
            None => RunMeta { id: name.clone(), experiment_id: experiment.id.clone(), ..RunMeta::default() },
        };
        for note in notes {
            self.report.problem(&meta_path, None, note);
        }
        if meta.name.is_none() {
            // Before 1.30 the name of a run was only a tag.
            meta.name =
                self.read_small(&path.join("tags/mlflow.runName")).and_then(|name| match text_value(name) {
                    Value::Text(name) => Some(name),
                    _ => None,
                });
        }
        let first = self.run_uid(&name, &meta.id, path, experiment)?;
        let mut generations = self.generations(first, experiment)?;
        let uid = generations.uid;
        if self.is_left_out(uid, path)? {
            return Ok(());
        }
        let mut plan = EntityPlan::new(EntityKind::RUN, uid, name);
        plan.layout.directory = key_of(Path::new(path.file_name().unwrap_or_default()));
        plan.set(Field::TREE, "", Value::Uid(self.identity.uid));
        plan.set(Field::EXPERIMENT, "", Value::Uid(experiment.uid));
        if meta.id != uid.to_string() {
            plan.set(Field::RUN_ID_TEXT, "", Value::Text(meta.id.clone()));
        }
        self.describe(&mut plan, read, &meta, meta.fields())?;
        let mut metrics = None;
        for item in self.list(path)? {
            match item.text() {
                Some(META) if !item.is_dir => self.undescribed(&mut plan, path, &item)?,
                Some("tags") if item.is_dir => self.values(&mut plan, path, &item, Field::TAG)?,
                Some("params") if item.is_dir => self.values(&mut plan, path, &item, Field::PARAM)?,
                Some("inputs") if item.is_dir => self.inputs(&mut plan, path, &item, &meta.id, experiment)?,
                Some("outputs") if item.is_dir => self.outputs(&mut plan, path, &item, &meta.id)?,
                Some("artifacts") if item.is_dir => self.artifacts(&mut plan, path, &item)?,
                Some("metrics") if item.is_dir => metrics = Some(item),
                _ => self.stray(&mut plan, path, &item, true, 0)?,
            }
        }
        let mut files = Vec::new();
        if let Some(metrics) = metrics {
            self.find_metrics(&mut plan, path, &metrics, &mut files)?;
        }
        self.plan_anew(&mut plan, &mut generations, &meta.id, path, &files)?;
        let uid = plan.uid;
        self.commit(plan, path)?;
        let artifacts = path.join("artifacts");
        if artifacts.is_dir() {
            self.copy_artifacts(uid, &artifacts)?;
        }
        let complete = self.metrics(EntityKind::RUN, uid, path, files)?;
        self.retire(&generations, path, complete)
    }

    fn run_uid(&mut self, name: &str, id: &str, path: &Path, experiment: &ExperimentContext) -> Result<Uid> {
        let place = path.strip_prefix(self.root).unwrap_or(path).as_os_str().as_bytes();
        // An experiment that moved to .trash takes its runs along.
        let place = place.strip_prefix(b".trash/").unwrap_or(place);
        let derived = Uid::derived("mlruns run", &[&self.identity.source, place]);
        let own = match name.parse::<Uid>() {
            Ok(own) if name == id => own,
            _ => return Ok(derived),
        };
        if self.target.kind(derived)?.is_some() || !self.taken_from(derived, experiment)?.is_empty() {
            return Ok(derived);
        }
        if !self.taken_from(own, experiment)?.is_empty() {
            return Ok(own);
        }
        if self.target.kind(own)?.is_none() {
            // Not one that is gone because another tree's run was taken anew.
            return Ok(if self.replacements.contains_key(&own) { derived } else { own });
        }
        let registers = self.target.registers(own)?;
        let is = |field: Field, uid: Uid| {
            registers.get(&(field, String::new())).is_some_and(|(_, value)| *value == Value::Uid(uid))
        };
        Ok(if is(Field::TREE, self.identity.uid) && is(Field::EXPERIMENT, experiment.uid) {
            own
        } else {
            derived
        })
    }

    /// Inputs, data sets and logged models, become registers; everything else stays files.
    fn inputs(
        &mut self,
        plan: &mut EntityPlan,
        base: &Path,
        directory: &Item,
        run_id: &str,
        experiment: &ExperimentContext,
    ) -> Result<()> {
        let items = self.list(&directory.path)?;
        if items.is_empty() {
            plan.layout.empty.push("inputs".into());
        }
        for item in items {
            let children = if item.is_dir { self.list(&item.path)? } else { Vec::new() };
            let alone = matches!(children.as_slice(), [only] if only.text() == Some(META) && !only.is_dir);
            let bytes = if alone { self.read_small(&item.path.join(META)) } else { None };
            let input = bytes
                .as_ref()
                .and_then(|bytes| read(bytes).ok())
                .and_then(|document| read_input(&document, DATASET));
            let dataset = input.as_ref().and_then(|(source, _)| experiment.datasets.get(source));
            if let (Some((source, tags)), Some(dataset), Some(bytes)) = (&input, dataset, bytes) {
                plan.set(Field::INPUT, dataset.to_string(), Value::Bytes(encode_input_tags(tags)));
                let canonical = item.text() == Some(&md5_of(&[source, run_id]))
                    && emit(&input_document(DATASET, source, tags)).is_ok_and(|again| again == bytes);
                if canonical {
                    self.report.yaml_files += 1;
                    self.report.bytes += bytes.len() as u64;
                    continue;
                }
                // The register is for whoever asks; the file says how it is written.
                let guard = short(dataset.as_bytes());
                plan.set(Field::VERBATIM, input_file(dataset), Content::Missing.to_override(guard));
            } else if self.run_model(plan, base, &item, run_id)? {
                continue;
            }
            self.stray(plan, base, &item, true, 0)?;
        }
        Ok(())
    }

    /// Logged models that the run made become registers; everything else stays files.
    fn outputs(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Item, run_id: &str) -> Result<()> {
        let items = self.list(&directory.path)?;
        if items.is_empty() {
            plan.layout.empty.push("outputs".into());
        }
        for item in items {
            if !self.run_model(plan, base, &item, run_id)? {
                self.stray(plan, base, &item, true, 0)?;
            }
        }
        Ok(())
    }

    /// Takes the logged model that a directory is about. Whether nothing of it is left to be kept.
    fn run_model(&mut self, plan: &mut EntityPlan, base: &Path, item: &Item, run_id: &str) -> Result<bool> {
        let relative = item.path.strip_prefix(base).unwrap_or(&item.path).to_path_buf();
        let mut files = TreeFiles::new(self, base);
        let canonical = item.is_dir && take_run_model(&mut files, plan, &relative, run_id)?;
        if canonical {
            self.report.yaml_files += 1;
            plan.elsewhere.insert(relative);
        }
        Ok(canonical)
    }

    /// What the registers say of the files under `artifacts/`.
    pub(super) fn artifacts(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Item) -> Result<()> {
        let mut pending = vec![directory.path.clone()];
        while let Some(path) = pending.pop() {
            let items = self.list(&path)?;
            if items.is_empty() || self.options.artifacts == ArtifactMode::Skip {
                plan.layout.empty.push(key_of(path.strip_prefix(base).unwrap_or(&path)));
            }
            for item in items {
                if item.is_dir {
                    pending.push(item.path);
                    continue;
                }
                self.report.artifacts += 1;
                let is_file = std::fs::metadata(&item.path).is_ok_and(|m| m.is_file());
                match self.options.artifacts {
                    ArtifactMode::Skip => {}
                    _ if !is_file => self.stray(plan, base, &item, false, 0)?,
                    ArtifactMode::Reference => {
                        let key = key_of(item.path.strip_prefix(base).unwrap_or(&item.path));
                        let content = Content::Reference(item.path.as_os_str().as_bytes().to_vec());
                        plan.set(Field::FILE, key, content.to_value());
                    }
                    ArtifactMode::Copy | ArtifactMode::Link => {}
                }
            }
        }
        Ok(())
    }

    /// Brings the files under `artifacts/` into the store. The run is there already: only the store knows where its
    /// artifacts are.
    pub(super) fn copy_artifacts(&mut self, run: Uid, directory: &Path) -> Result<()> {
        let mode = self.options.artifacts;
        if !matches!(mode, ArtifactMode::Copy | ArtifactMode::Link) {
            return Ok(());
        }
        // A dry run only counts: the store does not know the run.
        let target = if self.dry { None } else { Some(self.target.artifact_directory(run)?) };
        let mut pending = vec![directory.to_path_buf()];
        while let Some(path) = pending.pop() {
            for item in self.list(&path)? {
                if item.is_dir {
                    pending.push(item.path);
                    continue;
                }
                let Ok(metadata) = std::fs::metadata(&item.path) else { continue };
                if !metadata.is_file() {
                    continue;
                }
                let relative = item.path.strip_prefix(directory).unwrap_or(&item.path);
                if let Some(target) = &target
                    && store(target, relative, &item.path, mode, self.options.replace)? == Stored::Different
                {
                    self.report.problem(
                        &item.path,
                        None,
                        "differs from the artifact in the store, which was kept (--replace takes the tree's)",
                    );
                }
                self.tell(metadata.len());
            }
        }
        Ok(())
    }

    /// The metric files of a run by key; what cannot be one is kept as a file.
    pub(super) fn find_metrics(
        &mut self,
        plan: &mut EntityPlan,
        base: &Path,
        directory: &Item,
        files: &mut Vec<(String, std::path::PathBuf)>,
    ) -> Result<()> {
        let mut pending = vec![directory.path.clone()];
        while let Some(path) = pending.pop() {
            let items = self.list(&path)?;
            if items.is_empty() {
                plan.layout.empty.push(key_of(path.strip_prefix(base).unwrap_or(&path)));
            }
            for item in items {
                let relative = item.path.strip_prefix(&directory.path).unwrap_or(&item.path);
                if item.is_dir {
                    pending.push(item.path);
                } else if is_text(relative) && std::fs::metadata(&item.path).is_ok_and(|m| m.is_file()) {
                    files.push((key_of(relative), item.path));
                } else {
                    self.report.problem(
                        &item.path,
                        None,
                        "not a metric file (its name is not UTF-8, or it is no file); kept as a file",
                    );
                    self.stray(plan, base, &item, false, 0)?;
                }
            }
        }
        files.sort();
        Ok(())
    }
}
