//! The files that make up an entity, wherever they lie: in a tree, or in the registers of a store that kept them as
//! they were.
//!
//! Contract: what an entity is, is told once, in terms of this trait; so a store that was made by a program that did
//! not know an entity shows what an import of the tree would have made of it. Paths are relative to one directory, the
//! *root*; those below it, the *base* of an entity, are what the keys of its registers are relative to.

use std::path::{Path, PathBuf};

use super::content::Content;
use super::import::Importer;
use super::import_files::{Item, YamlFile};
use super::meta::Fields;
use super::plan::{EntityPlan, META};
use super::shape::{Described, Shape};
use super::yaml_emit::emit;
use super::yaml_node::Node;
use crate::error::Result;
use crate::format::event::Field;

/// What lies in a directory.
#[derive(Clone, Debug)]
pub(super) struct Child {
    /// Its path from the root.
    pub(super) path: PathBuf,
    pub(super) is_dir: bool,
}

impl Child {
    /// Its name where it is UTF-8.
    pub(super) fn name(&self) -> Option<&str> {
        self.path.file_name()?.to_str()
    }
}

/// Files below a root.
pub(super) trait Files {
    /// What lies in a directory, by name.
    fn children(&mut self, directory: &Path) -> Result<Vec<Child>>;
    /// What a YAML file says, without taking it; nothing if it says nothing.
    fn peek(&mut self, file: &Path) -> Option<Node>;
    /// A YAML file of an entity; nothing if it cannot be read.
    fn yaml(&mut self, file: &Path) -> Result<Option<YamlFile>>;
    /// The bytes of a file that is the value of one thing; nothing if it is larger than any or cannot be read.
    fn value(&mut self, file: &Path) -> Result<Option<Vec<u8>>>;
    /// A directory of params or tags: a file per key.
    fn values(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Path, field: Field) -> Result<()>;
    /// A directory of metric files.
    fn metrics(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Child) -> Result<()>;
    /// A directory of artifacts.
    fn artifacts(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Child) -> Result<()>;
    /// What belongs to no entity of its own, kept as it is.
    fn stray(&mut self, plan: &mut EntityPlan, base: &Path, child: &Child) -> Result<()>;
    /// Bytes that do not follow from registers.
    fn keep(&mut self, bytes: Vec<u8>) -> Result<Content>;
    /// Something is wrong with a file.
    fn problem(&mut self, file: &Path, text: String);
}

/// The registers, shape and, where needed, the original bytes of an entity's own file. Whether the bytes are kept.
pub(super) fn describe<D: Described>(
    plan: &mut EntityPlan,
    read: Option<YamlFile>,
    described: &D,
    fields: Fields,
    keep: &mut dyn FnMut(Vec<u8>) -> Result<Content>,
) -> Result<bool> {
    for (field, value) in fields {
        plan.set(field, "", value);
    }
    let Some(YamlFile { bytes, document, canonical }) = read else {
        plan.set(Field::VERBATIM, META, Content::Missing.to_override(described.guard()));
        return Ok(false);
    };
    let shape = match &document {
        Some(document) => Shape::of(&bytes, document, described),
        None => Shape::unreadable::<D>(&bytes),
    };
    plan.set(Field::SHAPE, META, shape.to_value());
    let same = document.is_some() && emit(&shape.render(described)).is_ok_and(|again| again == bytes);
    let mut kept = false;
    if !same {
        let content = match document {
            // The emitter gives these bytes from the document, only not from the sorted known keys.
            Some(document) if canonical => Content::Document(document),
            _ => {
                kept = true;
                keep(bytes)?
            }
        };
        plan.set(Field::VERBATIM, META, content.to_override(described.guard()));
    }
    Ok(kept)
}

/// Files of a tree.
pub(super) struct TreeFiles<'a, 'b> {
    pub(super) importer: &'a mut Importer<'b>,
    root: &'a Path,
    /// Metric files that were met, by key.
    pub(super) metric_files: Vec<(String, PathBuf)>,
}

impl<'a, 'b> TreeFiles<'a, 'b> {
    pub(super) fn new(importer: &'a mut Importer<'b>, root: &'a Path) -> Self {
        Self { importer, root, metric_files: Vec::new() }
    }

    fn item(&self, child: &Child) -> Item {
        Item { path: self.root.join(&child.path), is_dir: child.is_dir }
    }
}

impl Files for TreeFiles<'_, '_> {
    fn children(&mut self, directory: &Path) -> Result<Vec<Child>> {
        let items = self.importer.list(&self.root.join(directory))?;
        let child = |item: Item| {
            let path = item.path.strip_prefix(self.root).unwrap_or(&item.path).to_path_buf();
            Child { path, is_dir: item.is_dir }
        };
        Ok(items.into_iter().map(child).collect())
    }

    fn peek(&mut self, file: &Path) -> Option<Node> {
        super::yaml_read::read(&self.importer.read_small(&self.root.join(file))?).ok()
    }

    fn yaml(&mut self, file: &Path) -> Result<Option<YamlFile>> {
        self.importer.read_yaml(&self.root.join(file))
    }

    fn value(&mut self, file: &Path) -> Result<Option<Vec<u8>>> {
        self.importer.read_value(&self.root.join(file))
    }

    fn values(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Path, field: Field) -> Result<()> {
        let item = Item { path: self.root.join(directory), is_dir: true };
        self.importer.values(plan, &self.root.join(base), &item, field)
    }

    fn metrics(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Child) -> Result<()> {
        let item = self.item(directory);
        self.importer.find_metrics(plan, &self.root.join(base), &item, &mut self.metric_files)
    }

    fn artifacts(&mut self, plan: &mut EntityPlan, base: &Path, directory: &Child) -> Result<()> {
        let item = self.item(directory);
        self.importer.artifacts(plan, &self.root.join(base), &item)
    }

    fn stray(&mut self, plan: &mut EntityPlan, base: &Path, child: &Child) -> Result<()> {
        let item = self.item(child);
        self.importer.stray(plan, &self.root.join(base), &item, true, 0)
    }

    fn keep(&mut self, bytes: Vec<u8>) -> Result<Content> {
        self.importer.report.yaml_verbatim += 1;
        self.importer.bytes_content(bytes)
    }

    fn problem(&mut self, file: &Path, text: String) {
        self.importer.report.problem(self.root.join(file), None, text);
    }
}
