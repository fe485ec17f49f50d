//! What is a tree, what its experiments are, and which tree it is.
//!
//! Contract: looks and writes nothing. A tree that has no name from the user is known by what MLflow wrote when it made
//! it: directory, artifact location and creation time of its first experiment. These stay when the tree is moved,
//! copied, mounted elsewhere or grows, and two trees made at the same path of two machines differ in the time. A tree
//! of an MLflow before 1.29, which wrote no times, is known by its path.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ImportTarget;
use super::meta::{ExperimentMeta, text_of};
use super::plan::META;
use super::yaml_read::{YAML_BYTES_MAX, read};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Value};
use crate::id::Uid;

/// Refuses what is no directory of experiments, and gives its canonical path.
///
/// # Errors
/// What the file system says; [`Error::InvalidArgument`] for a file, or a directory without experiments.
pub fn check_tree(source: &Path) -> Result<PathBuf> {
    let root = fs::canonicalize(source).map_err(|e| Error::io("open", source, e))?;
    if !root.is_dir() {
        return Err(Error::invalid(format!(
            "{} is not a directory; name a directory that holds experiments",
            source.display()
        )));
    }
    if !holds_experiments(&root)? {
        let below = root.join("mlruns");
        let hint = if below.is_dir() && holds_experiments(&below)? { below } else { PathBuf::from("mlruns") };
        return Err(Error::invalid(format!(
            "{} holds no experiment; name the directory that MLflow wrote, such as {}",
            source.display(),
            hint.display()
        )));
    }
    Ok(root)
}

/// Whether MLflow made a directory: it holds experiments, the trash, or registered models.
fn holds_experiments(root: &Path) -> Result<bool> {
    for entry in fs::read_dir(root).map_err(|e| Error::io("list", root, e))? {
        let path = entry.map_err(|e| Error::io("list", root, e))?.path();
        let mlflow = match path.file_name().and_then(|name| name.to_str()) {
            Some(".trash") => true,
            Some("models") => below(&path).any(|model| model.join(META).exists()),
            _ => is_experiment(&path),
        };
        if mlflow && path.is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An experiment has a `meta.yaml`, or at least something that is a run.
pub(super) fn is_experiment(path: &Path) -> bool {
    path.join(META).exists() || below(path).any(|run| is_run_name(&run) && run.join(META).exists())
}

/// Whether the last name of a path is a run id.
pub(super) fn is_run_name(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<Uid>().is_ok())
}

/// What is in a directory, as far as it can be listed.
fn below(path: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// An experiment that has not been read yet.
pub(super) struct FoundExperiment {
    pub(super) path: PathBuf,
    pub(super) in_trash: bool,
    /// Its runs, as far as names tell.
    pub(super) runs: u64,
}

impl FoundExperiment {
    pub(super) fn at(path: PathBuf, in_trash: bool) -> Self {
        let runs = below(&path).filter(|run| is_run_name(run)).count() as u64;
        Self { path, in_trash, runs }
    }

    /// Its directory name and what its file says, if it can be read.
    fn described(&self) -> Option<(String, ExperimentMeta)> {
        let meta = self.path.join(META);
        let metadata = fs::metadata(&meta).ok()?;
        let small = metadata.is_file() && metadata.len() <= YAML_BYTES_MAX;
        let document = small.then(|| fs::read(&meta).ok())?.and_then(|bytes| read(&bytes).ok())?;
        let name = self.path.file_name()?.to_string_lossy().into_owned();
        Some((name, ExperimentMeta::from_document(&document, &mut Vec::new())))
    }
}

/// Which tree it is.
#[derive(Debug, Default)]
pub(super) struct TreeIdentity {
    /// What makes its identities differ from another tree's.
    pub(super) source: Vec<u8>,
    pub(super) uid: Uid,
    /// What it is called: the name that was given, else where it was found.
    pub(super) name: String,
}

impl TreeIdentity {
    /// The identity of the tree at `root`.
    pub(super) fn of(
        target: &dyn ImportTarget,
        root: &Path,
        name: Option<&str>,
        experiments: &[FoundExperiment],
    ) -> Result<Self> {
        if let Some(name) = name {
            return Ok(Self::new(name.as_bytes().to_vec(), name.to_owned()));
        }
        let path = root.as_os_str().as_bytes();
        let name = String::from_utf8_lossy(path).into_owned();
        let described: Vec<_> = experiments.iter().filter_map(FoundExperiment::described).collect();
        let identity = Self::new(first_made(&described).unwrap_or_else(|| path.to_vec()), name);
        if target.kind(identity.uid)?.is_some() {
            return Ok(identity);
        }
        // Its first experiment may be gone (`mlflow gc`), or have got a time since: then it is the tree that was
        // imported from here and has an experiment of it.
        for uid in target.entities(EntityKind::TREE)? {
            let registers = target.registers(uid)?;
            let Some((_, Value::Bytes(source))) = registers.get(&(Field::SOURCE, String::new())) else {
                continue;
            };
            if text_of(&registers, Field::NAME, "").as_ref() != Some(&identity.name) {
                continue;
            }
            for (directory, meta) in &described {
                if target.kind(experiment_uid(source, directory, meta))?.is_some() {
                    return Ok(Self { source: source.clone(), uid, name: identity.name });
                }
            }
        }
        Ok(identity)
    }

    fn new(source: Vec<u8>, name: String) -> Self {
        Self { uid: Uid::derived("mlruns tree", &[&source]), source, name }
    }
}

/// What tells a tree from all others: its experiment 0, which MLflow never removes, else the oldest.
fn first_made(described: &[(String, ExperimentMeta)]) -> Option<Vec<u8>> {
    let made = described.iter().filter_map(|(directory, meta)| {
        let (location, created) = (meta.artifact_location.as_ref()?, meta.created?);
        Some((directory != "0", created, directory, location))
    });
    let (_, created, directory, location) = made.min()?;
    Some(format!("{directory}\0{created}\0{location}").into_bytes())
}

/// The identity of an experiment of a tree.
pub(super) fn experiment_uid(source: &[u8], directory: &str, meta: &ExperimentMeta) -> Uid {
    let location = meta.artifact_location.as_deref().unwrap_or_default();
    let created = meta.created.map(|ms| ms.to_string()).unwrap_or_default();
    let parts = [source, directory.as_bytes(), location.as_bytes(), created.as_bytes()];
    Uid::derived("mlruns experiment", &parts)
}
