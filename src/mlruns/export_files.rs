//! The files of an export: written beside the target, renamed to it when all is there.
//!
//! Contract: the target is either as it was or complete. Everything goes to `<target>.partial-<random>`, which is
//! locked meanwhile; an export that is killed leaves that directory, which nothing takes for a tree, and the next
//! export to the same target removes it. A path that cannot exist (it clashes with another, a component is too long)
//! is refused and reported, never an error; no path leaves the directory.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::ExportSource;
use super::artifact::{copy_file, create_parent};
use super::content::Content;
use super::path::safe_path;
use super::report::{ExportOptions, ExportReport, Progress};
use super::yaml_emit::emit;
use super::yaml_node::Node;
use crate::error::{Error, Result};

/// Keys of MLflow's files that hold locations.
const LOCATION_KEYS: &[&str] = &["artifact_location", "artifact_uri", "storage_location", "source"];

/// One export under way.
pub(super) struct Exporter<'a> {
    pub(super) source: &'a dyn ExportSource,
    pub(super) options: &'a ExportOptions,
    progress: &'a mut dyn FnMut(&Progress),
    pub(super) state: Progress,
    pub(super) report: ExportReport,
    /// Where the tree will be.
    pub(super) destination: PathBuf,
    partial: PathBuf,
    /// Held as long as the export goes on.
    _lock: File,
    created: HashSet<PathBuf>,
    links: Vec<(PathBuf, Vec<u8>)>,
}

impl<'a> Exporter<'a> {
    /// Prepares the directory beside the target.
    pub(super) fn new(
        source: &'a dyn ExportSource,
        destination: &Path,
        options: &'a ExportOptions,
        progress: &'a mut dyn FnMut(&Progress),
    ) -> Result<Self> {
        let destination = std::path::absolute(destination).map_err(|e| Error::io("open", destination, e))?;
        let taken = match fs::read_dir(&destination) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(Error::io("open", &destination, e)),
        };
        if taken && !options.overwrite {
            return Err(Error::AlreadyExists {
                what: "directory",
                name: destination.display().to_string(),
                hint: " and is not empty: name another target, or ask to overwrite it".into(),
            });
        }
        create_parent(&destination)?;
        remove_partials(&destination);
        let (partial, lock) = create_partial(&destination)?;
        let (state, report) = (Progress::default(), ExportReport::default());
        let (created, links) = (HashSet::new(), Vec::new());
        Ok(Self {
            source,
            options,
            progress,
            state,
            report,
            destination,
            partial,
            _lock: lock,
            created,
            links,
        })
    }

    /// Puts the finished tree in place.
    pub(super) fn finish(mut self) -> Result<ExportReport> {
        // Links last: nothing is ever written through one.
        for (path, target) in std::mem::take(&mut self.links) {
            let link = self.partial.join(&path);
            let target = PathBuf::from(std::ffi::OsString::from_vec(target));
            create_parent(&link)?;
            match std::os::unix::fs::symlink(&target, &link) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    self.report.refuse("link", path.to_string_lossy(), "something else has this path");
                }
                outcome => outcome.map_err(|e| Error::io("create", &link, e))?,
            }
        }
        let old = if self.options.overwrite && self.destination.exists() {
            let old = beside(&self.destination, "replaced")?;
            fs::rename(&self.destination, &old).map_err(|e| Error::io("rename", &self.destination, e))?;
            Some(old)
        } else {
            None
        };
        fs::rename(&self.partial, &self.destination)
            .map_err(|e| Error::io("rename to", &self.destination, e))?;
        if let Some(old) = old {
            fs::remove_dir_all(&old).map_err(|e| Error::io("remove", &old, e))?;
        }
        self.tell();
        Ok(self.report)
    }

    /// Removes what was written so far.
    pub(super) fn abandon(self) {
        let _ = fs::remove_dir_all(&self.partial);
    }

    /// Tells the caller how far the export is.
    pub(super) fn tell(&mut self) {
        self.state.bytes = self.report.bytes;
        self.state.points = self.report.points;
        (self.progress)(&self.state);
    }

    /// Forgets which directories exist; between entities, so that the set stays small.
    pub(super) fn forget_directories(&mut self) {
        self.created.clear();
    }

    /// Whether there is something at a path already.
    pub(super) fn is_taken(&self, path: &Path) -> bool {
        self.partial.join(path).exists()
    }

    /// Creates a directory (and its parents).
    pub(super) fn directory(&mut self, what: &'static str, path: &Path) -> Result<bool> {
        self.directory_for(what, path, path)
    }

    /// Creates a directory because `wanted` is to be in it.
    fn directory_for(&mut self, what: &'static str, path: &Path, wanted: &Path) -> Result<bool> {
        if self.created.contains(path) {
            return Ok(true);
        }
        let full = self.partial.join(path);
        match fs::create_dir_all(&full) {
            Ok(()) => {
                self.created.insert(path.to_path_buf());
                Ok(true)
            }
            Err(e) if is_clash(&e) => {
                self.report.refuse(what, wanted.to_string_lossy(), clash_reason(&e));
                Ok(false)
            }
            Err(e) => Err(Error::io("create", full, e)),
        }
    }

    /// A new file; `None`, and a line in the report, if there can be none at this path.
    pub(super) fn create(&mut self, what: &'static str, path: &Path) -> Result<Option<File>> {
        if let Some(parent) = path.parent()
            && !self.directory_for(what, parent, path)?
        {
            return Ok(None);
        }
        let full = self.partial.join(path);
        match File::create_new(&full) {
            Ok(file) => {
                self.report.files += 1;
                Ok(Some(file))
            }
            Err(e) if is_clash(&e) => {
                self.report.refuse(what, path.to_string_lossy(), clash_reason(&e));
                Ok(None)
            }
            Err(e) => Err(Error::io("create", full, e)),
        }
    }

    /// Writes a small file.
    pub(super) fn write(&mut self, what: &'static str, path: &Path, bytes: &[u8]) -> Result<()> {
        if let Some(mut file) = self.create(what, path)? {
            self.append(&mut file, path, bytes)?;
        }
        Ok(())
    }

    /// Appends to a file that [`Exporter::create`] gave.
    pub(super) fn append(&mut self, file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
        self.report.bytes += bytes.len() as u64;
        file.write_all(bytes).map_err(|e| Error::io("write", self.partial.join(path), e))
    }

    /// Writes the content of a register.
    pub(super) fn content(&mut self, what: &'static str, path: &Path, content: &Content) -> Result<()> {
        match content {
            Content::Inline(bytes) => self.write(what, path, bytes),
            Content::Document(node) => {
                let node = self.rewritten(node.clone());
                self.write(what, path, &emit(&node)?)
            }
            Content::Blob(blob) => {
                let Some(mut file) = self.create(what, path)? else { return Ok(()) };
                self.append_blob(&mut file, path, *blob)
            }
            Content::Reference(from) => {
                let from = Path::new(std::ffi::OsStr::from_bytes(from));
                self.copy(what, from, path)
            }
            Content::DanglingLink(target) => {
                self.links.push((path.to_path_buf(), target.clone()));
                Ok(())
            }
            Content::Missing => Ok(()),
        }
    }

    /// Streams a blob into a file.
    pub(super) fn append_blob(&mut self, file: &mut File, path: &Path, blob: super::BlobRef) -> Result<()> {
        let mut bytes = self.source.read_blob(blob)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = bytes.read(&mut buffer).map_err(|e| Error::io("read the blob for", path, e))?;
            if count == 0 {
                return Ok(());
            }
            self.append(file, path, buffer.get(..count).unwrap_or_default())?;
        }
    }

    /// Copies a file from outside.
    pub(super) fn copy(&mut self, what: &'static str, from: &Path, path: &Path) -> Result<()> {
        if !fs::metadata(from).is_ok_and(|m| m.is_file()) {
            self.report.refuse(what, path.to_string_lossy(), format!("{} is gone", from.display()));
            return Ok(());
        }
        let Some(file) = self.create(what, path)? else { return Ok(()) };
        drop(file);
        self.report.bytes += copy_file(from, &self.partial.join(path))?;
        Ok(())
    }

    /// The path of a key below a directory of the tree, or a line in the report.
    pub(super) fn path_of(&mut self, what: &'static str, directory: &Path, key: &str) -> Option<PathBuf> {
        let path = safe_path(key).map(|path| directory.join(path));
        if path.is_none() {
            self.report.refuse(
                what,
                format!("{}/{key}", directory.display()),
                "its name is no path inside the tree",
            );
        }
        path
    }

    /// A location with the rewriting that was asked for.
    fn rewritten_uri(&self, text: &str) -> Option<String> {
        let (from, to) =
            self.options.rewrite_uris.iter().find(|(from, _)| text.starts_with(from.as_str()))?;
        Some(format!("{to}{}", text.get(from.len()..).unwrap_or("")))
    }

    /// A document with the rewriting that was asked for.
    pub(super) fn rewritten(&self, node: Node) -> Node {
        if self.options.rewrite_uris.is_empty() {
            return node;
        }
        match node {
            Node::Mapping(pairs) => {
                let is_location =
                    |key: &Node| matches!(key, Node::Scalar(_, k) if LOCATION_KEYS.contains(&k.as_str()));
                let rewrite = |(key, value): (Node, Node)| {
                    let uri = if is_location(&key) {
                        value.as_text().and_then(|t| self.rewritten_uri(t))
                    } else {
                        None
                    };
                    let value = uri.map_or_else(|| self.rewritten(value), Node::text);
                    (key, value)
                };
                Node::Mapping(pairs.into_iter().map(rewrite).collect())
            }
            Node::Sequence(items) => {
                Node::Sequence(items.into_iter().map(|item| self.rewritten(item)).collect())
            }
            scalar @ Node::Scalar(..) => scalar,
        }
    }
}

/// A random name beside a directory.
/// Digits that tell directories beside one target apart.
const RANDOM_DIGITS: usize = 8;
/// Times that a new directory may be taken for one that was left behind before it is locked.
const ATTEMPTS_MAX: usize = 8;

/// Makes the directory of an export and locks it.
fn create_partial(destination: &Path) -> Result<(PathBuf, File)> {
    for _ in 0..ATTEMPTS_MAX {
        let partial = beside(destination, "partial")?;
        fs::create_dir(&partial).map_err(|e| Error::io("create", &partial, e))?;
        let Ok(lock) = File::open(&partial) else { continue };
        // A file system without locks refuses others' attempts as well: then nothing is ever removed.
        let is_taken = matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
        if !is_taken && partial.exists() {
            return Ok((partial, lock));
        }
    }
    Err(Error::Busy { what: destination.display().to_string(), holder: "another export".into() })
}

/// Removes what exports to the same target left that were killed. Whatever goes wrong is no reason not to export.
fn remove_partials(destination: &Path) {
    let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else { return };
    let mut prefix = name.to_os_string();
    prefix.push(".partial-");
    let prefix = prefix.as_bytes();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let digits = found.as_bytes().strip_prefix(prefix);
        let is_ours =
            |digits: &[u8]| digits.len() == RANDOM_DIGITS && digits.iter().all(u8::is_ascii_hexdigit);
        if digits.is_some_and(is_ours)
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(lock) = File::open(entry.path())
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn beside(path: &Path, why: &str) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::invalid(format!("{} cannot be a target: name a directory", path.display())));
    };
    let random = crate::id::Uid::random()?.to_string();
    let mut name = name.to_os_string();
    name.push(format!(".{why}-{}", random.get(..RANDOM_DIGITS).unwrap_or("")));
    Ok(path.with_file_name(name))
}

fn is_clash(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory};
    matches!(error.kind(), AlreadyExists | IsADirectory | NotADirectory | InvalidFilename)
}

fn clash_reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidFilename => "its name is too long for a file",
        _ => "another file or directory has this path, or one above it",
    }
}
