//! Import of a tree: the walk over experiments, and what is the same for every kind of entity.
//!
//! Contract: one run is in memory at a time, metric files and other large files pass through in blocks. An entity is
//! committed before its points, and its metric files after them, so an import that was interrupted anywhere is
//! completed by the next one. A dry run takes the same path and only leaves out the writing.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::content::{Content, INLINE_BYTES_MAX};
use super::export::{is_purged, layout_of};
use super::files::{Files, TreeFiles};
use super::import_anew::complete_operations;
use super::meta::{integer_of, text_of};
use super::path::{key_of, safe_path};
use super::plan::{EntityPlan, GONE, META};
use super::registry::{MODELS, is_registered_model, registered_model, version_directory};
use super::report::{ImportOptions, ImportReport, Progress};
use super::tree::{FoundExperiment, TreeIdentity, check_tree, is_experiment};
use super::yaml_emit::emit;
use super::yaml_node::Node;
use super::yaml_read::{YAML_BYTES_MAX, YamlProblem, read};
use super::{BlobRef, ImportTarget, Registers};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::Uid;
use crate::limits::{BLOB_CHUNK_BYTES_MAX, EVENT_BYTES_MAX, EVENT_OPS_MAX};

/// Deepest directory nesting below an entity.
const DIRECTORY_DEPTH_MAX: usize = 128;
/// Stray YAML up to this size is read as a document; larger files are blobs.
const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024;
/// Longest value of a param or tag that is a register; what is longer is kept as a file.
pub(super) const VALUE_BYTES_MAX: u64 = 8 * 1024 * 1024;

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

/// A directory entry: its path, and what it is after following links.
pub(super) struct Item {
    pub(super) path: PathBuf,
    pub(super) is_dir: bool,
}

impl Item {
    /// Its name.
    pub(super) fn name(&self) -> &std::ffi::OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Its name where it is UTF-8.
    pub(super) fn text(&self) -> Option<&str> {
        self.name().to_str()
    }
}

/// A YAML file that was read.
pub(super) struct YamlFile {
    pub(super) bytes: Vec<u8>,
    /// What it says, if it is YAML.
    pub(super) document: Option<Node>,
    /// Whether the emitter gives the same bytes for the document.
    pub(super) canonical: bool,
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
        let mut files = TreeFiles { importer: self, root };
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
        let placed = registered_model(&mut TreeFiles { importer: self, root }, directory, (uid, &source))?;
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

    /// The entries of a directory by name. What cannot be read is a problem, not the end.
    pub(super) fn list(&mut self, directory: &Path) -> Result<Vec<Item>> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) => {
                self.report.problem(directory, None, format!("cannot be listed ({e}); left out"));
                return Ok(Vec::new());
            }
        };
        let mut items = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list", directory, e))?;
            let path = entry.path();
            let is_link = entry.file_type().map_or(true, |kind| kind.is_symlink());
            let is_dir =
                if is_link { path.is_dir() } else { entry.file_type().is_ok_and(|kind| kind.is_dir()) };
            if is_dir && is_link && self.leads_up(&path) {
                self.report.problem(&path, None, "a link to a directory above it; left out");
                continue;
            }
            items.push(Item { path, is_dir });
        }
        items.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(items)
    }

    /// Whether a link would make the walk endless.
    fn leads_up(&self, link: &Path) -> bool {
        match (fs::canonicalize(link), link.parent().map(fs::canonicalize)) {
            (Ok(target), Some(Ok(parent))) => parent.starts_with(&target),
            _ => true,
        }
    }

    /// A file or directory that belongs to no entity of its own. `mlflow` says that it is one of MLflow's files.
    pub(super) fn stray(
        &mut self,
        plan: &mut EntityPlan,
        base: &Path,
        item: &Item,
        mlflow: bool,
        depth: usize,
    ) -> Result<()> {
        let key = key_of(item.path.strip_prefix(base).unwrap_or(&item.path));
        if item.is_dir {
            if depth > DIRECTORY_DEPTH_MAX {
                self.report.problem(&item.path, None, "directories nested more than 128 deep; left out");
                return Ok(());
            }
            let children = self.list(&item.path)?;
            if children.is_empty() {
                plan.layout.empty.push(key);
            }
            let mlflow = mlflow && item.text() != Some("artifacts");
            return children.iter().try_for_each(|child| self.stray(plan, base, child, mlflow, depth + 1));
        }
        if let Some(content) = self.content_of(&item.path, mlflow)? {
            plan.set(Field::FILE, key, content.to_value());
        }
        Ok(())
    }

    /// The content of a file; nothing (and a problem) if it cannot be read.
    pub(super) fn content_of(&mut self, path: &Path, mlflow: bool) -> Result<Option<Content>> {
        let Ok(metadata) = fs::metadata(path) else {
            return Ok(match fs::read_link(path) {
                Ok(target) => Some(Content::DanglingLink(target.as_os_str().as_bytes().to_vec())),
                Err(e) => {
                    self.report.problem(path, None, format!("cannot be read ({e}); left out"));
                    None
                }
            });
        };
        if !metadata.is_file() {
            self.report.problem(path, None, "neither a file nor a directory; left out");
            return Ok(None);
        }
        let yaml = path.extension().is_some_and(|e| e == "yaml") && metadata.len() <= DOCUMENT_BYTES_MAX;
        if !yaml && metadata.len() > INLINE_BYTES_MAX {
            self.report.other_files += 1;
            return Ok(self.blob_of(path, u64::MAX)?.map(Content::Blob));
        }
        let Some(bytes) = self.read_file(path, DOCUMENT_BYTES_MAX.max(INLINE_BYTES_MAX))? else {
            return Ok(None);
        };
        if yaml {
            self.report.yaml_files += u64::from(mlflow);
            match parse_yaml(&bytes) {
                Ok((document, true)) => return Ok(Some(Content::Document(document))),
                Ok((_, false)) => {}
                Err(problem) if mlflow => self.yaml_problem(path, &problem),
                Err(_) => {}
            }
            self.report.yaml_verbatim += u64::from(mlflow);
        } else {
            self.report.other_files += 1;
        }
        self.bytes_content(bytes).map(Some)
    }

    /// Reports what is wrong with a YAML file.
    pub(super) fn yaml_problem(&mut self, path: &Path, problem: &YamlProblem) {
        let text = format!("not readable as YAML: {}; kept as it is", problem.text);
        self.report.problem(path, Some(problem.line), text);
    }

    /// Bytes, in the register or as a blob.
    pub(super) fn bytes_content(&mut self, bytes: Vec<u8>) -> Result<Content> {
        if bytes.len() as u64 <= INLINE_BYTES_MAX {
            return Ok(Content::Inline(bytes));
        }
        Ok(Content::Blob(self.put_blob(&mut bytes.as_slice())?))
    }

    /// A whole file in memory; nothing (and a problem) if it is larger than `max` or cannot be read.
    pub(super) fn read_file(&mut self, path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        // Opening a pipe would wait for somebody to write.
        let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let outcome = match is_file {
            true => fs::File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes)),
            false => Err(std::io::Error::other("it is no regular file")),
        };
        match outcome {
            Err(e) => {
                self.report.problem(path, None, format!("cannot be read ({e}); left out"));
                Ok(None)
            }
            Ok(_) if bytes.len() as u64 > max => {
                self.report.problem(path, None, format!("larger than {max} bytes; kept as a file"));
                Ok(None)
            }
            Ok(count) => {
                self.report.bytes += count as u64;
                Ok(Some(bytes))
            }
        }
    }

    /// A file that is looked at before its kind is known; none if it is no regular file or larger than any of its kind.
    pub(super) fn read_small(&self, path: &Path) -> Option<Vec<u8>> {
        let metadata = fs::metadata(path).ok()?;
        (metadata.is_file() && metadata.len() <= YAML_BYTES_MAX).then(|| fs::read(path).ok())?
    }

    /// The bytes of a file that is the value of one thing; nothing, and no problem, if it cannot be one.
    pub(super) fn read_value(&mut self, path: &Path) -> Result<Option<Vec<u8>>> {
        let is_value = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= VALUE_BYTES_MAX);
        if is_value { self.read_file(path, VALUE_BYTES_MAX) } else { Ok(None) }
    }

    /// A YAML file of an entity.
    pub(super) fn read_yaml(&mut self, path: &Path) -> Result<Option<YamlFile>> {
        let Some(bytes) = self.read_file(path, YAML_BYTES_MAX)? else { return Ok(None) };
        self.report.yaml_files += 1;
        let (document, canonical) = match parse_yaml(&bytes) {
            Ok((document, canonical)) => (Some(document), canonical),
            Err(problem) => {
                self.yaml_problem(path, &problem);
                (None, false)
            }
        };
        Ok(Some(YamlFile { bytes, document, canonical }))
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
        for kind in
            [EntityKind::EXPERIMENT, EntityKind::RUN, EntityKind::REGISTERED_MODEL, EntityKind::MODEL_VERSION]
        {
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

    /// The first `limit` bytes of a file as a blob.
    pub(super) fn blob_of(&mut self, path: &Path, limit: u64) -> Result<Option<BlobRef>> {
        match fs::File::open(path) {
            Ok(file) => {
                let blob = self.put_blob(&mut file.take(limit))?;
                self.report.bytes += blob.len;
                Ok(Some(blob))
            }
            Err(e) => {
                self.report.problem(path, None, format!("cannot be read ({e}); left out"));
                Ok(None)
            }
        }
    }

    fn put_blob(&mut self, bytes: &mut dyn Read) -> Result<BlobRef> {
        if !self.dry {
            return self.target.put_blob(bytes);
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BLOB_CHUNK_BYTES_MAX];
        let mut len = 0;
        loop {
            let count = bytes.read(&mut buffer).map_err(|e| Error::io("read", self.root, e))?;
            if count == 0 {
                let mut id = [0; 16];
                hasher.finalize_xof().fill(&mut id);
                return Ok(BlobRef { id: crate::id::BlobId::from_bytes(id), len });
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
            len += count as u64;
        }
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

/// A document, and whether it is written again with the same bytes.
pub(super) fn parse_yaml(bytes: &[u8]) -> std::result::Result<(Node, bool), YamlProblem> {
    let document = read(bytes)?;
    let same = emit(&document).is_ok_and(|again| again == bytes);
    Ok((document, same))
}

/// The value of a file that is a param or tag.
pub(super) fn text_value(bytes: Vec<u8>) -> Value {
    match String::from_utf8(bytes) {
        Ok(text) => Value::Text(text),
        Err(e) => Value::Bytes(e.into_bytes()),
    }
}
