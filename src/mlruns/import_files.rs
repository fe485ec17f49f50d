//! What an import reads of the files of a tree, whatever they are.
//!
//! Contract: what cannot be read is a problem in the report, not the end; nothing is larger in memory than the maximum
//! of its kind, other files pass through as blobs. A link to a directory above itself is not followed.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::BlobRef;
use super::content::{Content, INLINE_BYTES_MAX};
use super::import::Importer;
use super::path::key_of;
use super::plan::EntityPlan;
use super::yaml_emit::emit;
use super::yaml_node::Node;
use super::yaml_read::{YAML_BYTES_MAX, YamlProblem, read};
use crate::error::{Error, Result};
use crate::format::event::{Field, Value};
use crate::limits::BLOB_CHUNK_BYTES_MAX;

/// Deepest directory nesting below an entity.
const DIRECTORY_DEPTH_MAX: usize = 128;
/// Stray YAML up to this size is read as a document; larger files are blobs.
const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024;
/// Longest value of a param or tag that is a register; what is longer is kept as a file.
pub(super) const VALUE_BYTES_MAX: u64 = 8 * 1024 * 1024;

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

impl Importer<'_> {
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
