//! Entities in a store that was made by a program which did not know their kind: it kept their files as registers of
//! the tree or experiment that they lie in, and those say what an import would have made of them.
//!
//! Contract: pure. What is derived depends on the registers alone and has their stamps, so it may be derived any number
//! of times, written or not, in any copy of a store: applying it changes nothing that was said later. The files stay
//! where they are; [`covered`] says which of them an export leaves to the entities.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::content::Content;
use super::export::layout_of;
use super::files::{Child, Files};
use super::import_files::{VALUE_BYTES_MAX, YamlFile, parse_yaml, text_value};
use super::logged_model::{Identities, OwnerContext, logged_model, logged_model_at};
use super::meta::text_of;
use super::path::{key_of, safe_path};
use super::plan::EntityPlan;
use super::registry::{MODELS, Placed, is_registered_model, registered_model};
use super::run_models::derive_run_models;
use super::trace::{trace, trace_at, trace_directories};
use super::yaml_emit::emit;
use super::yaml_node::Node;
use super::{BlobRef, Registers};
use crate::error::Result;
use crate::format::event::{EntityKind, Event, Field, Operation, Value};
use crate::id::{Stamp, Uid};
use crate::model::Point;

/// Gives the bytes of a blob of at most this length; nothing if it cannot be had.
pub(crate) type ReadBlob<'a> = &'a dyn Fn(BlobRef) -> Option<Vec<u8>>;

/// What the registers of a tree, experiment or run say of other entities, or of itself: one event for each of them.
/// `is_taken` says whether an identity belongs to something that is of another experiment.
///
/// # Errors
/// What is damaged in the registers.
pub(crate) fn entities(
    kind: EntityKind,
    uid: Uid,
    registers: &Registers,
    read_blob: ReadBlob<'_>,
    is_taken: &dyn Fn(EntityKind, Uid) -> bool,
) -> Result<Vec<Event>> {
    let mut files = StoredFiles::new(registers, read_blob)?;
    let uid_of = |field| match registers.get(&(field, String::new())) {
        Some((_, Value::Uid(uid))) => *uid,
        _ => Uid::default(),
    };
    let mut placed: Vec<Placed> = Vec::new();
    match (kind, registers.get(&(Field::SOURCE, String::new()))) {
        (EntityKind::TREE, Some((_, Value::Bytes(source)))) => {
            for directory in covered_in(kind, &mut files)? {
                placed.extend(registered_model(&mut files, &directory, (uid, source))?);
            }
        }
        (EntityKind::EXPERIMENT, _) => {
            let (id, tree) = (text_of(registers, Field::NUMERIC_ID, ""), uid_of(Field::TREE));
            let context = OwnerContext { tree, experiment: uid, experiment_id: id.as_ref() };
            for directory in covered_in(kind, &mut files)? {
                if let Some(identities) = logged_model_at(&mut files, &directory, uid) {
                    let kind = EntityKind::LOGGED_MODEL;
                    let own = identities.own.filter(|own| !is_taken(kind, *own));
                    placed.extend(logged_model(
                        &mut files,
                        &directory,
                        own.unwrap_or(identities.hashed),
                        &context,
                    )?);
                }
            }
            for directory in trace_directories(&mut files)? {
                if let Some(identities) = trace_at(&mut files, &directory, uid) {
                    let own = identities.own.filter(|own| !is_taken(EntityKind::TRACE, *own));
                    placed.extend(trace(&mut files, &directory, own.unwrap_or(identities.hashed), &context)?);
                }
            }
        }
        (EntityKind::RUN, _) => {
            let mut plan = EntityPlan::new(kind, uid, String::new());
            let id = text_of(registers, Field::RUN_ID_TEXT, "").unwrap_or_else(|| uid.to_string());
            derive_run_models(&mut files, &mut plan, &id)?;
            return Ok(files.event_of_itself(plan));
        }
        _ => {}
    }
    let mut events = Vec::with_capacity(placed.len());
    for (plan, directory) in placed {
        let stamp = files.newest(&directory);
        let operations = plan.operations(&Registers::new(), false, &mut Vec::new())?;
        events.push(Event { stamp, operations, attributes: Vec::new() });
    }
    Ok(events)
}

/// The points of a metric file that is kept as it is, each with what follows the step in its line. Lines that are no
/// points have nothing to say.
pub(crate) fn file_points(content: &Value, read_blob: ReadBlob<'_>) -> Result<Vec<(Point, Vec<u8>)>> {
    let bytes = match Content::from_value(content)? {
        Some(Content::Inline(bytes)) => bytes,
        Some(Content::Blob(blob)) => read_blob(blob).unwrap_or_default(),
        _ => Vec::new(),
    };
    let point = |line: super::metric_line::Line<'_>| {
        let point = Point { step: line.step, timestamp_ms: line.timestamp, value: line.value };
        (point, line.tail.to_vec())
    };
    Ok(bytes
        .split(|b| *b == b'\n')
        .filter_map(|line| super::metric_line::parse(line).ok())
        .map(point)
        .collect())
}

/// Whether [`entities`] may have anything to say, which is cheap to ask.
pub(crate) fn may_have_entities(kind: EntityKind, key: &str) -> bool {
    match kind {
        EntityKind::TREE => key.starts_with("models/"),
        EntityKind::EXPERIMENT => key.starts_with("models/") || key.starts_with("traces/"),
        EntityKind::RUN => key.starts_with("inputs/") || key.starts_with("outputs/"),
        _ => false,
    }
}

/// The directories whose files are entities of their own.
pub(super) fn covered(
    kind: EntityKind,
    registers: &Registers,
    read_blob: ReadBlob<'_>,
) -> Result<BTreeSet<PathBuf>> {
    // What a run used and made is written by the files, where these are kept.
    let has_any = kind != EntityKind::RUN
        && registers.keys().any(|(field, key)| *field == Field::FILE && may_have_entities(kind, key));
    if !has_any {
        return Ok(BTreeSet::new());
    }
    let mut files = StoredFiles::new(registers, read_blob)?;
    let mut covered: BTreeSet<PathBuf> = covered_in(kind, &mut files)?.into_iter().collect();
    if kind == EntityKind::EXPERIMENT {
        covered.extend(trace_directories(&mut files)?);
    }
    Ok(covered)
}

/// Whether a key is of a file in one of these directories, or of that directory.
pub(super) fn is_covered(covered: &BTreeSet<PathBuf>, key: &str) -> bool {
    !covered.is_empty()
        && safe_path(key).is_some_and(|path| path.ancestors().any(|above| covered.contains(above)))
}

fn covered_in(kind: EntityKind, files: &mut StoredFiles<'_>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in directories_of(files, Path::new(MODELS))? {
        let is_entity = match kind {
            EntityKind::TREE => is_registered_model(files, &directory),
            _ => logged_model_at(files, &directory, Uid::default()).is_some(),
        };
        if is_entity {
            found.push(directory);
        }
    }
    Ok(found)
}

/// The directories in a directory.
pub(super) fn directories_of(files: &mut dyn Files, directory: &Path) -> Result<Vec<PathBuf>> {
    let children = files.children(directory)?;
    Ok(children.into_iter().filter(|child| child.is_dir).map(|child| child.path).collect())
}

/// The files of a trace that registers hold, and what they say.
pub(super) struct TraceFiles {
    pub(super) id: String,
    /// The identities that it may have.
    pub(super) uids: Vec<Uid>,
    /// From the experiment.
    pub(super) directory: PathBuf,
    /// By path from that directory.
    pub(super) files: BTreeMap<PathBuf, Content>,
    /// Directories without files.
    pub(super) empty: Vec<PathBuf>,
    pub(super) says: Registers,
}

impl TraceFiles {
    /// No files.
    pub(super) fn new(id: &str, directory: PathBuf) -> Self {
        Self {
            id: id.to_owned(),
            uids: Vec::new(),
            directory,
            files: BTreeMap::new(),
            empty: Vec::new(),
            says: Registers::new(),
        }
    }
}

/// The traces whose files an experiment's registers hold.
pub(super) fn trace_files(
    experiment: Uid,
    registers: &Registers,
    read_blob: ReadBlob<'_>,
) -> Result<Vec<TraceFiles>> {
    if !registers.keys().any(|(field, key)| *field == Field::FILE && key.starts_with("traces/")) {
        return Ok(Vec::new());
    }
    let mut files = StoredFiles::new(registers, read_blob)?;
    let context = OwnerContext { tree: Uid::default(), experiment, experiment_id: None };
    let mut found = Vec::new();
    for directory in trace_directories(&mut files)? {
        let Some(Identities { own, hashed }) = trace_at(&mut files, &directory, experiment) else { continue };
        let uid = own.unwrap_or(hashed);
        let Some((plan, _)) = trace(&mut files, &directory, uid, &context)? else { continue };
        let id = match plan.registers.get(&(Field::RUN_ID_TEXT, String::new())) {
            Some(Value::Text(id)) => id.clone(),
            _ => format!("tr-{uid}"),
        };
        let inner = |path: &Path| path.strip_prefix(&directory).unwrap_or(path).to_path_buf();
        let says = plan.registers.into_iter().map(|(key, value)| (key, (Stamp::default(), value)));
        found.push(TraceFiles {
            id,
            uids: own.into_iter().chain([hashed]).collect(),
            files: files
                .below(&directory)
                .map(|(path, (_, content))| (inner(path), content.clone()))
                .collect(),
            empty: files
                .empty
                .iter()
                .filter(|path| path.starts_with(&directory))
                .map(|path| inner(path))
                .collect(),
            says: says.collect(),
            directory,
        });
    }
    Ok(found)
}

/// The files that registers hold, by path.
struct StoredFiles<'a> {
    files: BTreeMap<PathBuf, (Stamp, Content)>,
    /// Directories without files.
    empty: BTreeSet<PathBuf>,
    read_blob: ReadBlob<'a>,
}

impl<'a> StoredFiles<'a> {
    fn new(registers: &Registers, read_blob: ReadBlob<'a>) -> Result<Self> {
        let mut files = BTreeMap::new();
        for ((field, key), (stamp, value)) in registers {
            if *field == Field::FILE
                && let Some(path) = safe_path(key)
                && let Some(content) = Content::from_value(value)?
            {
                files.insert(path, (*stamp, content));
            }
        }
        let layout = layout_of(registers)?.unwrap_or_default();
        let empty = layout.empty.iter().filter_map(|key| safe_path(key)).collect();
        Ok(Self { files, empty, read_blob })
    }

    /// When the files in a directory were last taken.
    fn newest(&self, directory: &Path) -> Stamp {
        self.below(directory).map(|(_, (stamp, _))| *stamp).max().unwrap_or_default()
    }

    /// What files of an entity say of itself.
    fn event_of_itself(&self, plan: EntityPlan) -> Vec<Event> {
        let EntityPlan { kind, uid, registers, .. } = plan;
        let operations: Vec<_> = registers
            .into_iter()
            .map(|((field, key), value)| Operation { kind, uid, field, key, value })
            .collect();
        let stamp = ["inputs", "outputs"].into_iter().map(|above| self.newest(Path::new(above))).max();
        let event = Event { stamp: stamp.unwrap_or_default(), operations, attributes: Vec::new() };
        if event.operations.is_empty() { Vec::new() } else { vec![event] }
    }

    fn below<'s>(&'s self, directory: &Path) -> impl Iterator<Item = (&'s PathBuf, &'s (Stamp, Content))> {
        let directory = directory.to_path_buf();
        let from = (Bound::Included(directory.clone()), Bound::Unbounded);
        self.files.range(from).take_while(move |(path, _)| path.starts_with(&directory))
    }

    fn bytes(&self, file: &Path, max: u64) -> Option<Vec<u8>> {
        match &self.files.get(file)?.1 {
            Content::Inline(bytes) => Some(bytes.clone()),
            Content::Document(node) => emit(node).ok(),
            Content::Blob(blob) if blob.len <= max => (self.read_blob)(*blob),
            _ => None,
        }
    }
}

impl Files for StoredFiles<'_> {
    fn children(&mut self, directory: &Path) -> Result<Vec<Child>> {
        let mut children: BTreeMap<PathBuf, bool> = BTreeMap::new();
        let empty: Vec<&PathBuf> = self.empty.iter().filter(|path| path.starts_with(directory)).collect();
        let all =
            self.below(directory).map(|(path, _)| (path, false)).chain(empty.into_iter().map(|p| (p, true)));
        for (path, is_dir) in all {
            let rest = path.strip_prefix(directory).unwrap_or(path);
            let mut parts = rest.components();
            if let Some(name) = parts.next() {
                let is_dir = is_dir || parts.next().is_some();
                *children.entry(directory.join(name)).or_insert(false) |= is_dir;
            }
        }
        Ok(children.into_iter().map(|(path, is_dir)| Child { path, is_dir }).collect())
    }

    fn peek(&mut self, file: &Path) -> Option<Node> {
        match &self.files.get(file)?.1 {
            Content::Document(node) => Some(node.clone()),
            _ => super::yaml_read::read(&self.bytes(file, super::yaml_read::YAML_BYTES_MAX)?).ok(),
        }
    }

    fn yaml(&mut self, file: &Path) -> Result<Option<YamlFile>> {
        let Some(bytes) = self.bytes(file, super::yaml_read::YAML_BYTES_MAX) else { return Ok(None) };
        let (document, canonical) = match parse_yaml(&bytes) {
            Ok((document, canonical)) => (Some(document), canonical),
            Err(_) => (None, false),
        };
        Ok(Some(YamlFile { bytes, document, canonical }))
    }

    fn value(&mut self, file: &Path) -> Result<Option<Vec<u8>>> {
        Ok(self.bytes(file, VALUE_BYTES_MAX))
    }

    fn values(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Path, field: Field) -> Result<()> {
        let key = |path: &Path| key_of(path.strip_prefix(base).unwrap_or(path));
        plan.layout
            .empty
            .extend(self.empty.iter().filter(|path| path.starts_with(directory)).map(|p| key(p)));
        for (path, (_, content)) in self.below(directory) {
            let name = path.strip_prefix(directory).unwrap_or(path);
            match name.to_str().and_then(|name| Some((name, self.bytes(path, VALUE_BYTES_MAX)?))) {
                Some((name, bytes)) => plan.set(field, name, text_value(bytes)),
                None => plan.set(Field::FILE, key(path), content.to_value()),
            }
        }
        Ok(())
    }

    fn metrics(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Child) -> Result<()> {
        // Only an import can make points of them; until then they are read from the files.
        self.stray(plan, base, directory)
    }

    fn artifacts(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Child) -> Result<()> {
        self.stray(plan, base, directory)
    }

    fn stray(&mut self, plan: &mut EntityPlan, base: &Path, child: &Child) -> Result<()> {
        let key = |path: &Path| key_of(path.strip_prefix(base).unwrap_or(path));
        let empty = self.empty.iter().filter(|path| child.is_dir && path.starts_with(&child.path));
        plan.layout.empty.extend(empty.map(|path| key(path)));
        for (path, (_, content)) in self.below(&child.path) {
            plan.set(Field::FILE, key(path), content.to_value());
        }
        Ok(())
    }

    fn keep(&mut self, bytes: Vec<u8>) -> Result<Content> {
        // Whatever its size: it is a register already, or a blob that is named by one which stays.
        Ok(Content::Inline(bytes))
    }

    fn problem(&mut self, _: &Path, _: String) {}
}
