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
use super::import::{VALUE_BYTES_MAX, YamlFile, parse_yaml, text_value};
use super::path::{key_of, safe_path};
use super::plan::EntityPlan;
use super::registry::{MODELS, Placed, is_registered_model, registered_model};
use super::yaml_emit::emit;
use super::yaml_node::Node;
use super::{BlobRef, Registers};
use crate::error::Result;
use crate::format::event::{EntityKind, Event, Field, Value};
use crate::id::{Stamp, Uid};

/// Gives the bytes of a blob of at most this length; nothing if it cannot be had.
pub(crate) type ReadBlob<'a> = &'a dyn Fn(BlobRef) -> Option<Vec<u8>>;

/// What the registers of an entity, which is a tree, say of others: one event for each of them.
///
/// # Errors
/// What is damaged in the registers.
pub(crate) fn entities(
    kind: EntityKind,
    uid: Uid,
    registers: &Registers,
    read_blob: ReadBlob<'_>,
) -> Result<Vec<Event>> {
    let mut files = StoredFiles::new(registers, read_blob)?;
    let mut placed: Vec<Placed> = Vec::new();
    if kind == EntityKind::TREE
        && let Some((_, Value::Bytes(source))) = registers.get(&(Field::SOURCE, String::new()))
    {
        for directory in registered_models(&mut files)? {
            placed.extend(registered_model(&mut files, &directory, (uid, source))?);
        }
    }
    let mut events = Vec::with_capacity(placed.len());
    for (plan, directory) in placed {
        let stamp = files.newest(&directory);
        let operations = plan.operations(&Registers::new(), false, &mut Vec::new())?;
        events.push(Event { stamp, operations, attributes: Vec::new() });
    }
    Ok(events)
}

/// Whether [`entities`] may have anything to say, which is cheap to ask.
pub(crate) fn may_have_entities(kind: EntityKind, key: &str) -> bool {
    match kind {
        EntityKind::TREE => key.starts_with("models/"),
        _ => false,
    }
}

/// The directories whose files are entities of their own.
pub(super) fn covered(
    kind: EntityKind,
    registers: &Registers,
    read_blob: ReadBlob<'_>,
) -> Result<BTreeSet<PathBuf>> {
    let has_any = registers.keys().any(|(field, key)| *field == Field::FILE && may_have_entities(kind, key));
    if !has_any {
        return Ok(BTreeSet::new());
    }
    let mut files = StoredFiles::new(registers, read_blob)?;
    Ok(registered_models(&mut files)?.into_iter().collect())
}

/// Whether a key is of a file in one of these directories, or of that directory.
pub(super) fn is_covered(covered: &BTreeSet<PathBuf>, key: &str) -> bool {
    !covered.is_empty()
        && safe_path(key).is_some_and(|path| path.ancestors().any(|above| covered.contains(above)))
}

fn registered_models(files: &mut StoredFiles<'_>) -> Result<Vec<PathBuf>> {
    let children = files.children(Path::new(MODELS))?;
    let directories: Vec<PathBuf> =
        children.into_iter().filter(|child| child.is_dir).map(|child| child.path).collect();
    Ok(directories.into_iter().filter(|directory| is_registered_model(files, directory)).collect())
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
