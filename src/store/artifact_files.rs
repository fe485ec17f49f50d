//! Artifacts of any size, below one folder: opened, uploaded piece by piece, deleted. What a server needs of them.
//!
//! Contract: paths are relative to `artifacts/` of the store, and nothing outside of it is opened, made or removed:
//! neither by `..` nor through a symbolic link below it (`artifacts/` itself may be one). An upload has its name once
//! it is finished, and replaces then what had the name; one that is dropped before leaves nothing behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::artifacts::{ArtifactOwner, aside, is_aside, relative, settle, sync_folder_of};
use crate::vfs::{HeldLock, OpenMode, Vfs, VfsFile};

/// Longest name of a file or folder, as file systems have it, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest path below the folder of artifacts, in bytes: the system's limit is 4096 for the whole.
const PATH_BYTES_MAX: usize = 2048;

/// An artifact that is open for reading. One that is replaced meanwhile is read as it was.
#[derive(Debug)]
pub struct ArtifactFile {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    len: u64,
}

impl ArtifactFile {
    /// Its length in bytes when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads at an offset; fewer bytes than asked only at the end.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buffer, offset).map_err(|e| Error::io("read", &self.path, e))
    }
}

/// An artifact that is being written. Nobody sees it until [`ArtifactUpload::finish`].
#[derive(Debug)]
pub struct ArtifactUpload {
    vfs: Arc<dyn Vfs>,
    file: Arc<dyn VfsFile>,
    aside: PathBuf,
    target: PathBuf,
    len: u64,
    is_placed: bool,
    /// Says that somebody is at it.
    _lock: Option<Box<dyn HeldLock>>,
}

impl ArtifactUpload {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::DiskFull`], and whatever else the disk says.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.len).map_err(|e| Error::io("write", &self.aside, e))?;
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes it an artifact, durably.
    ///
    /// # Errors
    /// Whatever the disk says; then there is no artifact, or the one that was there before.
    pub fn finish(mut self) -> Result<()> {
        settle(self.vfs.as_ref(), self.file.as_ref(), &self.aside, &self.target)?;
        self.is_placed = true;
        sync_folder_of(self.vfs.as_ref(), &self.target)
    }
}

impl Drop for ArtifactUpload {
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = self.vfs.remove_file(&self.aside);
        }
    }
}

impl Store {
    /// The path of a run's artifacts below the folder that [`Store::artifacts_uri`] names; none if they are elsewhere.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a run that is not there.
    pub fn run_artifacts_below(&self, run_id: &str) -> Result<Option<String>> {
        self.owned_below(&self.run_artifacts(run_id)?)
    }

    /// The same of a logged model.
    ///
    /// # Errors
    /// As [`Store::run_artifacts_below`].
    pub fn logged_model_artifacts_below(&self, id: &str) -> Result<Option<String>> {
        self.owned_below(&self.model_artifacts(id)?)
    }

    fn owned_below(&self, owner: &ArtifactOwner) -> Result<Option<String>> {
        let folder = match self.artifact_folder(owner) {
            Ok(folder) => folder,
            // A service's URI.
            Err(Error::InvalidState(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let below = folder.strip_prefix(self.artifacts_path("")?).ok();
        Ok(below.and_then(Path::to_str).filter(|path| relative(path).is_ok()).map(str::to_owned))
    }

    /// A path below the folder of artifacts that leads through no link.
    fn checked_below(&self, path: &str) -> Result<(PathBuf, PathBuf)> {
        let clean = relative(path)?;
        if path.len() > PATH_BYTES_MAX || clean.iter().any(|part| part.len() > NAME_BYTES_MAX) {
            return Err(Error::invalid(format!(
                "Invalid path: a name has at most {NAME_BYTES_MAX} bytes, a path {PATH_BYTES_MAX}"
            )));
        }
        let root = self.artifacts_path("")?;
        let mut at = root.clone();
        for part in &clean {
            at.push(part);
            if self.inner().vfs.is_symlink(&at) {
                return Err(Error::invalid(format!("Invalid path: '{path}' leads through a symbolic link")));
            }
        }
        Ok((root, at))
    }

    /// Opens an artifact by its path below the folder of artifacts.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidArgument`] for a path that leaves the folder and for one of a folder.
    pub fn open_artifact_below(&self, path: &str) -> Result<ArtifactFile> {
        let (_, at) = self.checked_below(path)?;
        let missing = || Error::not_found("artifact", path);
        if is_aside(&at) {
            return Err(missing());
        }
        let file = match self.inner().vfs.open(&at, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if is_nothing(&e) => return Err(missing()),
            Err(e) => return Err(Error::io("open", &at, e)),
        };
        let metadata = file.metadata().map_err(|e| Error::io("stat", &at, e))?;
        if metadata.is_dir {
            return Err(Error::invalid(format!("Artifact path refers to a directory, not a file: '{path}'")));
        }
        Ok(ArtifactFile { file, path: at, len: metadata.len })
    }

    /// Begins to write an artifact by its path below the folder of artifacts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a path that leaves the folder, that is one of a folder, or that leads through a
    /// file; [`Error::ReadOnly`]; whatever the disk says.
    pub fn upload_artifact_below(&self, path: &str) -> Result<ArtifactUpload> {
        self.inner().writer()?;
        let (root, target) = self.checked_below(path)?;
        if target == root || path.ends_with('/') {
            return Err(Error::invalid("Artifact path must include a filename (cannot end with '/')."));
        }
        let vfs = Arc::clone(&self.inner().vfs);
        if is_aside(&target) || vfs.metadata(&target).is_ok_and(|m| m.is_dir) {
            return Err(Error::invalid(format!("Invalid path: '{path}' cannot be the name of a file here")));
        }
        let through = target.ancestors().skip(1).take_while(|folder| folder.starts_with(&root));
        if through.into_iter().any(|folder| vfs.metadata(folder).is_ok_and(|m| !m.is_dir)) {
            return Err(Error::invalid(format!("Invalid path: '{path}' leads through a file")));
        }
        self.make_folder_of(&target)?;
        let aside = aside(&target)?;
        let file = vfs.open(&aside, OpenMode::CreateNew).map_err(|e| Error::io("create", &aside, e))?;
        let lock = file.try_lock().ok().flatten();
        Ok(ArtifactUpload { vfs, file, aside, target, len: 0, is_placed: false, _lock: lock })
    }

    /// Removes an artifact, or a folder of them; what is not there is removed already.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a path that leaves the folder of artifacts, or is all of it.
    pub fn delete_artifacts_below(&self, path: &str) -> Result<()> {
        self.inner().writer()?;
        let (root, at) = self.checked_below(path)?;
        if at == root {
            return Err(Error::invalid("Invalid path: name what is to be deleted"));
        }
        self.inner().remove_tree(&at, false, &mut Vec::new())
    }
}

/// Whether an error says that there is no such file: nothing of that name, or a file where a folder should be.
fn is_nothing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}
