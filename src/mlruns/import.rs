//! Import of a tree: the walk over experiments, and what is the same for every kind of entity.
//!
//! Contract: one run is in memory at a time, metric files and other large files pass through in blocks. An entity is
//! committed before its points, and its metric files after them, so an import that was interrupted anywhere is
//! completed by the next one. A dry run takes the same path and only leaves out the writing.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::export::{is_purged, layout_of};
use super::files::{Files, TreeFiles};
use super::import_anew::complete_operations;
use super::import_files::{Item, YamlFile};
use super::meta::{integer_of, text_of};
use super::path::safe_path;
use super::plan::{EntityPlan, GONE, META};
use super::registry::{MODELS, is_registered_model, registered_model, version_directory};
use super::report::{ImportOptions, ImportReport, Progress};
use super::tree::{FoundExperiment, TreeIdentity, check_tree, is_experiment};
use super::{ImportTarget, Registers};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::Uid;
use crate::limits::{EVENT_BYTES_MAX, EVENT_OPS_MAX};

/// Takes a tree into a store.
///
/// Problems of the tree do not fail the import; they are in the report. `progress` is called after every run and every
/// few megabytes of a metric file; how many runs there are is known before the first.
///
/// # Errors
/// [`Error::StrictImport`] with `strict` and any problem, in which case nothing was imported; what the file system or
/// the store refuse.
pub fn import(
    source: &Path,
    target: &mut dyn ImportTarget,
    options: &ImportOptions,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ImportReport> {
    let root = check_tree(source)?;
    if options.strict && !options.dry_run {
        let looked = Importer::new(&root, target, options, progress, true).run()?;
        if looked.problems_total > 0 {
            return Err(Error::StrictImport { path: source.to_path_buf(), problems: looked.problems_total });
        }
    }
    let report = Importer::new(&root, target, options, progress, options.dry_run).run()?;
    if options.strict && report.problems_total > 0 {
        return Err(Error::StrictImport { path: source.to_path_buf(), problems: report.problems_total });
    }
    Ok(report)
}

/// One import under way.
pub(super) struct Importer<'a> {
    pub(super) root: &'a Path,
    pub(super) target: &'a mut dyn ImportTarget,
    pub(super) options: &'a ImportOptions,
    pub(super) progress: &'a mut dyn FnMut(&Progress),
    pub(super) state: Progress,
    pub(super) report: ImportReport,
    /// Nothing is written.
    pub(super) dry: bool,
    pub(super) identity: TreeIdentity,
    /// Experiments and runs that the tree has.
    pub(super) seen: HashSet<Uid>,
    /// Runs that were taken anew, by the first uid each had.
    pub(super) replacements: HashMap<Uid, Vec<Uid>>,
    /// What to take away once the entities that stand for it are in the store.
    superseded: Vec<Operation>,
    /// Only looks, and tells nobody how far it is.
    pub(super) quiet: bool,
    /// For the bytes of metric files.
    pub(super) buffer: Vec<u8>,
}

impl<'a> Importer<'a> {
    fn new(
        root: &'a Path,
        target: &'a mut dyn ImportTarget,
        options: &'a ImportOptions,
        progress: &'a mut dyn FnMut(&Progress),
        dry: bool,
    ) -> Self {
        let (state, report) = (Progress::default(), ImportReport::default());
        let (identity, seen, buffer) = (TreeIdentity::default(), HashSet::new(), Vec::new());
        let (replacements, quiet) = (HashMap::new(), false);
        Self {
            root,
            target,
            options,
            progress,
            state,
            report,
            dry,
            identity,
            seen,
            replacements,
            superseded: Vec::new(),
            quiet,
            buffer,
        }
    }

    fn run(mut self) -> Result<ImportReport> {
        let root = self.root;
        let mut plan = EntityPlan::new(EntityKind::TREE, Uid::default(), String::new());
        let mut experiments = Vec::new();
        let mut models = Vec::new();
        for item in self.list(root)? {
            if item.is_dir && item.text() == Some(".trash") {
                for item in self.list(&item.path)? {
                    self.experiment_or_stray(&mut plan, item, true, &mut experiments)?;
                }
                // Stays when all in it is restored: MLflow cannot do without.
                plan.layout.empty.push(".trash".into());
            } else if item.is_dir && item.text() == Some(MODELS) {
                models = self.find_registered_models(&mut plan)?;
            } else {
                self.experiment_or_stray(&mut plan, item, false, &mut experiments)?;
            }
        }
        self.state.runs_total = experiments.iter().map(|found| found.runs).sum();
        self.identity = TreeIdentity::of(self.target, root, self.options.tree.as_deref(), &experiments)?;
        plan.uid = self.identity.uid;
        plan.set(Field::NAME, "", Value::Text(self.identity.name.clone()));
        plan.set(Field::SOURCE, "", Value::Bytes(self.identity.source.clone()));
        plan.elsewhere = models.iter().cloned().collect();
        self.commit(plan, root)?;
        for (first, run) in self.target.references(EntityKind::RUN, Field::REPLACES)? {
            self.replacements.entry(first).or_default().push(run);
        }
        for found in experiments {
            self.experiment(&found)?;
        }
        for directory in models {
            self.registered_model(&directory)?;
        }
        let superseded = std::mem::take(&mut self.superseded);
        self.apply(superseded)?;
        self.report_missing()?;
        self.tell(0);
        Ok(self.report)
    }

    /// The registered models of the tree; what else lies there is kept as files.
    fn find_registered_models(&mut self, plan: &mut EntityPlan) -> Result<Vec<PathBuf>> {
        let root = self.root;
        let mut files = TreeFiles::new(self, root);
        let mut models = Vec::new();
        let children = files.children(Path::new(MODELS))?;
        if children.is_empty() {
            plan.layout.empty.push(MODELS.into());
        }
        for child in children {
            if child.is_dir && is_registered_model(&mut files, &child.path) {
                models.push(child.path);
            } else {
                files.stray(plan, Path::new(""), &child)?;
            }
        }
        Ok(models)
    }

    fn registered_model(&mut self, directory: &Path) -> Result<()> {
        let root = self.root;
        let (uid, source) = (self.identity.uid, self.identity.source.clone());
        let placed = registered_model(&mut TreeFiles::new(self, root), directory, (uid, &source))?;
        for (plan, directory) in placed {
            let directory = root.join(directory);
            if !self.is_left_out(plan.uid, &directory)? {
                self.commit(plan, &directory)?;
            }
        }
        self.tell(0);
        Ok(())
    }

    fn experiment_or_stray(
        &mut self,
        plan: &mut EntityPlan,
        item: Item,
        in_trash: bool,
        experiments: &mut Vec<FoundExperiment>,
    ) -> Result<()> {
        if item.is_dir && is_experiment(&item.path) {
            experiments.push(FoundExperiment::at(item.path, in_trash));
            return Ok(());
        }
        if item.is_dir && !in_trash {
            let legal = item.text().is_some_and(|name| {
                !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c))
            });
            self.report.problem(
                &item.path,
                None,
                if legal {
                    "a directory without meta.yaml: no experiment; kept as files"
                } else {
                    "no experiment, and a name for which MLflow refuses the whole tree; kept as files"
                },
            );
        }
        let root = self.root;
        self.stray(plan, root, &item, true, 0)
    }

    /// The name of an entity's directory, and its `meta.yaml` if it can be read. `missing` says what is done without.
    pub(super) fn begin(&mut self, path: &Path, missing: &str) -> Result<(String, Option<YamlFile>)> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let meta = path.join(META);
        if meta.exists() {
            return Ok((name, self.read_yaml(&meta)?));
        }
        self.report.problem(&meta, None, format!("missing; {missing}"));
        Ok((name, None))
    }

    /// Marks an entity as one that the tree has. Whether to leave it out, as it was removed from the store for good.
    pub(super) fn is_left_out(&mut self, uid: Uid, path: &Path) -> Result<bool> {
        self.seen.insert(uid);
        let purged = is_purged(&self.target.registers(uid)?);
        if purged {
            self.report.problem(path, None, "was removed from this store for good; left out");
        }
        Ok(purged)
    }

    /// Entities that an earlier import brought and that the tree has no more.
    fn report_missing(&mut self) -> Result<()> {
        let tree = self.identity.uid;
        let mut missing = HashMap::new();
        // What others belong to comes first.
        for kind in [
            EntityKind::EXPERIMENT,
            EntityKind::RUN,
            EntityKind::LOGGED_MODEL,
            EntityKind::REGISTERED_MODEL,
            EntityKind::MODEL_VERSION,
        ] {
            for uid in self.target.owned(kind, Field::TREE, tree)? {
                if self.seen.contains(&uid) {
                    continue;
                }
                let registers = self.target.registers(uid)?;
                let Some(place) = place_of(kind, &registers)?.filter(|_| !is_purged(&registers)) else {
                    continue;
                };
                let mut directory = self.root.to_path_buf();
                if let Some((owner_kind, owner)) = owner_of(&registers) {
                    if missing.contains_key(&owner) {
                        // Goes without saying.
                        continue;
                    }
                    let above = place_of(owner_kind, &self.target.registers(owner)?)?;
                    directory.extend(above.and_then(|place| safe_path(&place)));
                }
                directory.extend(safe_path(&place));
                missing.insert(uid, directory);
            }
        }
        let mut paths: Vec<PathBuf> = missing.into_values().collect();
        paths.sort_unstable();
        for path in paths {
            self.report.problem(path, None, GONE);
        }
        Ok(())
    }

    /// Brings an entity into the store; `directory` is where its files are.
    pub(super) fn commit(&mut self, plan: EntityPlan, directory: &Path) -> Result<()> {
        let current = self.target.registers(plan.uid)?;
        let mut differences = Vec::new();
        let (uid, state) = (plan.uid, (plan.kind == EntityKind::RUN).then(|| plan.state()));
        self.superseded.extend(plan.superseded(&current));
        let mut operations = plan.operations(&current, self.options.replace, &mut differences)?;
        for difference in differences {
            let path = super::path::safe_path(&difference.file)
                .map_or(directory.to_path_buf(), |p| directory.join(p));
            self.report.problem(path, None, difference.text);
        }
        if let Some(state) = state {
            complete_operations(uid, &current, state, &mut operations);
        }
        self.apply(operations)
    }

    /// Writes operations, in one event unless they are too many for one.
    pub(super) fn apply(&mut self, operations: Vec<Operation>) -> Result<()> {
        self.report.registers_written += operations.len() as u64;
        if self.dry {
            return Ok(());
        }
        let (mut event, mut bytes) = (Vec::new(), 0);
        for operation in operations {
            let size = 64 + operation.key.len() + size_of_value(&operation.value);
            if !event.is_empty() && (bytes + size > EVENT_BYTES_MAX / 2 || event.len() >= EVENT_OPS_MAX / 2) {
                self.target.commit(std::mem::take(&mut event))?;
                bytes = 0;
            }
            bytes += size;
            event.push(operation);
        }
        if !event.is_empty() {
            self.target.commit(event)?;
        }
        Ok(())
    }

    /// Adds to the bytes read and tells the caller how far the import is.
    pub(super) fn tell(&mut self, bytes: u64) {
        self.report.bytes += bytes;
        self.state.bytes = self.report.bytes;
        self.state.points = self.report.points;
        (self.progress)(&self.state);
    }
}

/// The entity that another lies in, and its kind.
fn owner_of(registers: &Registers) -> Option<(EntityKind, Uid)> {
    [(Field::EXPERIMENT, EntityKind::EXPERIMENT), (Field::MODEL, EntityKind::REGISTERED_MODEL)]
        .into_iter()
        .find_map(|(field, kind)| match registers.get(&(field, String::new())) {
            Some((_, Value::Uid(owner))) => Some((kind, *owner)),
            _ => None,
        })
}

/// The key of an imported entity's directory, relative to that of the entity it lies in.
fn place_of(kind: EntityKind, registers: &Registers) -> Result<Option<String>> {
    let Some(layout) = layout_of(registers)? else { return Ok(None) };
    Ok(Some(match (layout.directory, kind) {
        (place, EntityKind::REGISTERED_MODEL) if place.is_empty() => {
            format!("{MODELS}/{}", text_of(registers, Field::NAME, "").unwrap_or_default())
        }
        (place, EntityKind::MODEL_VERSION) if place.is_empty() => {
            version_directory(integer_of(registers, Field::VERSION).unwrap_or(0))
        }
        (place, _) => place,
    }))
}

fn size_of_value(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 16,
    }
}
