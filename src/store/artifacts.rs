//! Artifacts: files of a run, a logged model or a trace.
//!
//! Contract: without a given location they are inside the store, under `artifacts/<experiment>/<run>/artifacts`,
//! `artifacts/<experiment>/models/<model id>/artifacts` and `artifacts/<experiment>/traces/<trace>/artifacts`, and the
//! location is rendered for whoever asks, so a store can be moved. A path that leaves the folder is refused. An
//! artifact is written aside, synced and renamed, so it is there whole or not at all; what a killed process left aside
//! is nobody's artifact, and `gc` removes it.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::format::event::Field;
use crate::id::Uid;
use crate::model::{Experiment, LoggedModel, RunData};
use crate::store::state::Want;
use crate::store::{Inner, Store};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// One artifact, or a folder of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArtifactInfo {
    /// Path relative to the run's artifacts, with `/`.
    pub path: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Bytes; none for a folder.
    pub size: Option<u64>,
}

/// A relative path inside a run's artifacts.
pub(crate) fn relative(path: &str) -> Result<PathBuf> {
    let refused = || Error::invalid(format!("Invalid path: '{path}' leaves the artifacts of its run"));
    if path.contains('\0') {
        return Err(refused());
    }
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => return Err(refused()),
        }
    }
    Ok(clean)
}

/// Extension of an artifact that is being written, before a random uid.
const PART: &str = "part-";

/// Where an artifact is written before it has its name.
pub(super) fn aside(target: &Path) -> Result<PathBuf> {
    // With what is put behind it a name must not become too long for the file system.
    const STEM_CHARACTERS_MAX: usize = 50;
    let stem = target.file_stem().unwrap_or_default().to_string_lossy();
    let stem = crate::catalog::rules::truncated(&stem, STEM_CHARACTERS_MAX);
    Ok(target.with_file_name(format!("{stem}.{PART}{}", Uid::random()?)))
}

/// Whether a file is an artifact that somebody is writing, or was when it was killed.
pub(super) fn is_aside(path: &Path) -> bool {
    let uid = path.extension().and_then(|extension| extension.to_str()?.strip_prefix(PART));
    uid.is_some_and(|uid| uid.parse::<Uid>().is_ok())
}

/// A `file:` URI of an absolute path (RFC 8089), with everything but unreserved characters percent-encoded.
pub(crate) fn file_uri(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut uri = String::from("file://");
    for byte in absolute.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'/'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'+'
            | b'@'
            | b':' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

/// The path of a `file:` URI or a plain path; `None` for other schemes.
pub(crate) fn path_of_uri(uri: &str) -> Option<PathBuf> {
    let rest = match uri.split_once(':') {
        Some(("file", rest)) => {
            rest.strip_prefix("//localhost").or_else(|| rest.strip_prefix("//")).unwrap_or(rest)
        }
        Some((scheme, _)) if scheme.len() > 1 && !scheme.contains('/') => return None,
        _ => return Some(PathBuf::from(uri)),
    };
    let mut bytes = Vec::with_capacity(rest.len());
    let mut iter = rest.bytes();
    while let Some(byte) = iter.next() {
        if byte == b'%' {
            let pair = [iter.next()?, iter.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(PathBuf::from(String::from_utf8(bytes).ok()?))
}

/// A URI with a path appended to its own, before a query if it has one.
pub(crate) fn append_to_uri(uri: &str, path: &str) -> String {
    let (uri, query) = match uri.split_once('?') {
        // A `?` in a plain path is part of it.
        Some((before, query)) if before.contains(':') => (before, Some(query)),
        _ => (uri, None),
    };
    let appended = format!("{}/{path}", uri.trim_end_matches('/'));
    match query {
        Some(query) => format!("{appended}?{query}"),
        None => appended,
    }
}

/// Makes a folder and those above it; the names of new ones are durable when this returns.
pub(crate) fn create_dirs_durably(vfs: &dyn Vfs, folder: &Path) -> Result<()> {
    let missing = folder.ancestors().take_while(|p| !p.as_os_str().is_empty() && vfs.metadata(p).is_err());
    let missing: Vec<&Path> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    vfs.create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    for parent in missing.iter().filter_map(|made| made.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        vfs.sync_dir(parent).map_err(|e| Error::failed_sync(parent, e))?;
    }
    Ok(())
}

/// Has a file written aside, syncs it, and gives it its name: one that it replaces is there until then. The name is
/// durable once its folder is synced. The lock says that somebody is at it.
pub(super) fn place(
    vfs: &dyn Vfs,
    target: &Path,
    write: impl FnOnce(&Path) -> Result<Arc<dyn VfsFile>>,
) -> Result<()> {
    let aside = aside(target)?;
    let placed = write(&aside).and_then(|file| {
        let _lock = file.try_lock().ok().flatten();
        settle(vfs, file.as_ref(), &aside, target)
    });
    placed.inspect_err(|_| {
        // Not necessarily there.
        let _ = vfs.remove_file(&aside);
    })
}

/// Syncs a file that was written aside and gives it its name.
pub(super) fn settle(vfs: &dyn Vfs, file: &dyn VfsFile, aside: &Path, target: &Path) -> Result<()> {
    file.sync_data().map_err(|e| Error::failed_sync(aside, e))?;
    vfs.rename(aside, target).map_err(|e| Error::io("rename", aside, e))
}

/// Makes the name of a file or folder durable.
pub(super) fn sync_folder_of(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    vfs.sync_dir(folder).map_err(|e| Error::failed_sync(folder, e))
}

impl Inner {
    /// The folder of a run's artifacts inside the store.
    pub(crate) fn artifact_dir(&self, experiment: Uid, run: Uid) -> PathBuf {
        self.experiment_artifact_dir(experiment).join(run.to_string()).join("artifacts")
    }

    /// The folder of a logged model's artifacts inside the store.
    pub(crate) fn model_artifact_dir(&self, experiment: Uid, model: Uid) -> PathBuf {
        self.experiment_artifact_dir(experiment).join("models").join(format!("m-{model}")).join("artifacts")
    }

    /// The folder of a trace's files inside the store.
    pub(crate) fn trace_artifact_dir(&self, experiment: Uid, trace: Uid) -> PathBuf {
        self.experiment_artifact_dir(experiment).join("traces").join(format!("tr-{trace}")).join("artifacts")
    }

    /// The folder of an experiment's artifacts inside the store.
    fn experiment_artifact_dir(&self, experiment: Uid) -> PathBuf {
        self.root.join("artifacts").join(experiment.to_string())
    }
}

/// Whose artifacts, where they are if somebody said so, and what the last part of their location is if not.
pub(crate) struct ArtifactOwner {
    experiment: Uid,
    given: Option<String>,
    /// Below the experiment's: `<run>/artifacts`, `models/<id>/artifacts`, ...
    inside: String,
    /// For people: "run 7", "logged model m-7".
    what: String,
}

impl ArtifactOwner {
    pub(crate) fn run(run: &RunData) -> Self {
        let (experiment, given) = (run.experiment_uid, run.artifact_uri.clone());
        Self { experiment, given, inside: format!("{}/artifacts", run.uid), what: format!("run {}", run.id) }
    }

    pub(crate) fn logged_model(model: &LoggedModel) -> Self {
        let (experiment, given) = (model.experiment_uid, model.artifact_location.clone());
        let inside = format!("models/m-{}/artifacts", model.uid);
        Self { experiment, given, inside, what: format!("logged model {}", model.id) }
    }
}

/// Where somebody's artifacts are.
enum ArtifactRoot {
    Given(String),
    Inside(PathBuf),
}

impl Store {
    fn artifact_root(&self, owner: &ArtifactOwner) -> Result<ArtifactRoot> {
        if let Some(uri) = &owner.given {
            return Ok(ArtifactRoot::Given(uri.clone()));
        }
        let state = self.inner().held(Want::Experiments)?;
        let experiment = state.catalog.experiment(owner.experiment);
        Ok(match experiment.and_then(|e| e.text(Field::ARTIFACT_LOCATION)) {
            Some(location) => ArtifactRoot::Given(append_to_uri(location, &owner.inside)),
            None => ArtifactRoot::Inside(
                self.inner().experiment_artifact_dir(owner.experiment).join(&owner.inside),
            ),
        })
    }

    fn artifact_location_of(&self, owner: &ArtifactOwner) -> Result<String> {
        Ok(match self.artifact_root(owner)? {
            ArtifactRoot::Given(uri) => uri,
            ArtifactRoot::Inside(path) => file_uri(&path),
        })
    }

    /// The `file:` URI of the folder of the artifacts that are inside the store: those of a run are in
    /// `<experiment uid>/<run uid>/artifacts` below it.
    pub fn artifacts_uri(&self) -> String {
        file_uri(&self.inner().root.join("artifacts"))
    }

    /// The path of something below the folder that [`Store::artifacts_uri`] names, whether it is there or not.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a path that leaves that folder.
    pub fn artifacts_path(&self, path: &str) -> Result<PathBuf> {
        Ok(self.inner().root.join("artifacts").join(relative(path)?))
    }

    /// What is directly below such a path, by path; nothing if there is no such folder.
    ///
    /// # Errors
    /// As [`Store::artifacts_path`].
    pub fn list_artifacts_below(&self, path: &str) -> Result<Vec<ArtifactInfo>> {
        self.list_folder(&self.artifacts_path("")?, &relative(path)?)
    }

    /// Where an experiment's artifacts are: the location that was given or imported, else a `file:` URI inside the
    /// store, which is another one once the store is moved.
    pub fn experiment_artifact_location(&self, experiment: &Experiment) -> String {
        match &experiment.artifact_location {
            Some(location) => location.clone(),
            None => file_uri(&self.inner().experiment_artifact_dir(experiment.uid)),
        }
    }

    /// Where a run's artifacts are: the location that was given or imported for it or its experiment, else a `file:`
    /// URI inside the store, which is another one once the store is moved.
    ///
    /// # Errors
    /// Whatever reading the log says; with what a search returned there is nothing left to read.
    pub fn run_artifact_location(&self, run: &RunData) -> Result<String> {
        self.artifact_location_of(&ArtifactOwner::run(run))
    }

    /// Where a logged model's files are, as [`Store::run_artifact_location`].
    ///
    /// # Errors
    /// Whatever reading the log says.
    pub fn logged_model_artifact_location(&self, model: &LoggedModel) -> Result<String> {
        self.artifact_location_of(&ArtifactOwner::logged_model(model))
    }

    /// The folder of somebody's artifacts. What was imported is inside the store although its URI is that of the tree
    /// it came from, so the folder inside the store comes first if it is there.
    pub(super) fn artifact_folder(&self, owner: &ArtifactOwner) -> Result<PathBuf> {
        let inside = self.inner().experiment_artifact_dir(owner.experiment).join(&owner.inside);
        if self.inner().vfs.metadata(&inside).is_ok() {
            return Ok(inside);
        }
        match self.artifact_root(owner)? {
            ArtifactRoot::Inside(path) => Ok(path),
            ArtifactRoot::Given(uri) => path_of_uri(&uri).ok_or_else(|| {
                Error::InvalidState(format!(
                    "artifacts of {} are at {uri}: use that service's own tools",
                    owner.what
                ))
            }),
        }
    }

    pub(super) fn run_artifacts(&self, run_id: &str) -> Result<ArtifactOwner> {
        let uid = self.inner().run_uid(run_id)?;
        let state = self.inner().held(Want::Entity(uid))?;
        let run = state.catalog.run(uid).ok_or_else(|| Error::not_found("run", run_id))?;
        Ok(ArtifactOwner {
            experiment: run.reference(Field::EXPERIMENT).unwrap_or_default(),
            given: run.text(Field::ARTIFACT_URI).map(str::to_owned),
            inside: format!("{uid}/artifacts"),
            what: format!("run {run_id}"),
        })
    }

    pub(super) fn model_artifacts(&self, id: &str) -> Result<ArtifactOwner> {
        let uid = self.inner().logged_model_uid(id)?;
        let state = self.inner().held(Want::Entity(uid))?;
        let model = state.catalog.logged_model(uid).ok_or_else(|| Error::not_found("logged model", id))?;
        Ok(ArtifactOwner::logged_model(&state.catalog.render_logged_model(model)))
    }

    /// Copies a file into a run's artifacts, under a relative path; an existing one is replaced.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a path that leaves the run's folder, [`Error::Io`] if the source cannot be read.
    pub fn put_artifact(&self, run_id: &str, source: &Path, path: &str) -> Result<()> {
        self.copy_artifact(&self.run_artifacts(run_id)?, source, path)
    }

    /// The same for a logged model.
    ///
    /// # Errors
    /// As [`Store::put_artifact`].
    pub fn put_logged_model_artifact(&self, id: &str, source: &Path, path: &str) -> Result<()> {
        self.copy_artifact(&self.model_artifacts(id)?, source, path)
    }

    fn copy_artifact(&self, owner: &ArtifactOwner, source: &Path, path: &str) -> Result<()> {
        let target = self.artifact_target(owner, path)?;
        let vfs = &self.inner().vfs;
        place(vfs.as_ref(), &target, |aside| {
            vfs.copy_file(source, aside).map_err(|e| Error::io("copy", source, e))?;
            vfs.open(aside, OpenMode::ReadWrite).map_err(|e| Error::io("open", aside, e))
        })?;
        sync_folder_of(vfs.as_ref(), &target)
    }

    /// Writes bytes as an artifact; an existing one is replaced.
    ///
    /// # Errors
    /// As [`Store::put_artifact`].
    pub fn put_artifact_bytes(&self, run_id: &str, bytes: &[u8], path: &str) -> Result<()> {
        self.write_artifact(&self.run_artifacts(run_id)?, bytes, path)
    }

    /// The same for a logged model.
    ///
    /// # Errors
    /// As [`Store::put_artifact`].
    pub fn put_logged_model_artifact_bytes(&self, id: &str, bytes: &[u8], path: &str) -> Result<()> {
        self.write_artifact(&self.model_artifacts(id)?, bytes, path)
    }

    pub(super) fn write_artifact(&self, owner: &ArtifactOwner, bytes: &[u8], path: &str) -> Result<()> {
        let target = self.artifact_target(owner, path)?;
        let vfs = &self.inner().vfs;
        place(vfs.as_ref(), &target, |aside| {
            let file = vfs.open(aside, OpenMode::CreateNew).map_err(|e| Error::io("create", aside, e))?;
            file.write_all_at(bytes, 0).map_err(|e| Error::io("write", aside, e))?;
            Ok(file)
        })?;
        sync_folder_of(vfs.as_ref(), &target)
    }

    fn artifact_target(&self, owner: &ArtifactOwner, path: &str) -> Result<PathBuf> {
        self.inner().writer()?;
        let relative = relative(path)?;
        if relative.as_os_str().is_empty() {
            return Err(Error::invalid("an artifact needs a name"));
        }
        let target = self.artifact_folder(owner)?.join(relative);
        self.make_folder_of(&target)?;
        Ok(target)
    }

    /// Makes the folder of an artifact, durably.
    pub(super) fn make_folder_of(&self, target: &Path) -> Result<()> {
        let (vfs, root) = (self.inner().vfs.as_ref(), &self.inner().root);
        if let Some(parent) = target.parent() {
            create_dirs_durably(vfs, parent)?;
            // Whoever made a folder of the store may have died before its name was durable.
            for folder in parent.ancestors().take_while(|folder| *folder != root && folder.starts_with(root))
            {
                sync_folder_of(vfs, folder)?;
            }
        }
        Ok(())
    }

    /// The path of an artifact in the file system, to read it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::InvalidArgument`] for a path that leaves the run's folder.
    pub fn artifact_path(&self, run_id: &str, path: &str) -> Result<PathBuf> {
        self.find_artifact(&self.run_artifacts(run_id)?, path)
    }

    /// The same of a logged model.
    ///
    /// # Errors
    /// As [`Store::artifact_path`].
    pub fn logged_model_artifact_path(&self, id: &str, path: &str) -> Result<PathBuf> {
        self.find_artifact(&self.model_artifacts(id)?, path)
    }

    pub(super) fn find_artifact(&self, owner: &ArtifactOwner, path: &str) -> Result<PathBuf> {
        let found = self.artifact_folder(owner)?.join(relative(path)?);
        match self.inner().vfs.metadata(&found) {
            Ok(_) => Ok(found),
            Err(_) => Err(Error::not_found("artifact", path)),
        }
    }

    /// Artifacts of a run directly under a path (empty for the top), by path.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a path that leaves the run's folder.
    pub fn list_artifacts(&self, run_id: &str, path: &str) -> Result<Vec<ArtifactInfo>> {
        self.artifacts_below(&self.run_artifacts(run_id)?, path)
    }

    /// The same of a logged model.
    ///
    /// # Errors
    /// As [`Store::list_artifacts`].
    pub fn list_logged_model_artifacts(&self, id: &str, path: &str) -> Result<Vec<ArtifactInfo>> {
        self.artifacts_below(&self.model_artifacts(id)?, path)
    }

    fn artifacts_below(&self, owner: &ArtifactOwner, path: &str) -> Result<Vec<ArtifactInfo>> {
        self.list_folder(&self.artifact_folder(owner)?, &relative(path)?)
    }

    fn list_folder(&self, folder: &Path, relative: &Path) -> Result<Vec<ArtifactInfo>> {
        let folder = folder.join(relative);
        let Ok(entries) = self.inner().vfs.list(&folder) else { return Ok(Vec::new()) };
        let mut infos = Vec::with_capacity(entries.len());
        for entry in entries.into_iter().filter(|entry| !is_aside(Path::new(&entry.name))) {
            let metadata = self.inner().vfs.metadata(&folder.join(&entry.name));
            let path = relative.join(&entry.name).to_string_lossy().replace('\\', "/");
            let size = metadata.ok().filter(|_| !entry.is_dir).map(|m| m.len);
            infos.push(ArtifactInfo { path, is_dir: entry.is_dir, size });
        }
        infos.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(infos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for bad in ["../x", "a/../../x", "/etc/passwd", "a\0b"] {
            assert!(relative(bad).is_err(), "{bad}");
        }
        assert_eq!(relative("./a/b c/é").unwrap(), PathBuf::from("a/b c/é"));
        assert_eq!(relative("").unwrap(), PathBuf::new());
    }

    #[test]
    fn what_is_aside_is_told_from_artifacts_with_such_names() {
        let aside = aside(Path::new("a/model.bin")).unwrap();
        assert!(is_aside(&aside) && aside.parent() == Some(Path::new("a")));
        for name in ["model.part-0001", "model.bin", "part-", "a.part-", "x.part-zz"] {
            assert!(!is_aside(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_path_is_appended_before_the_query() {
        assert_eq!(append_to_uri("s3://bucket/x/", "r/artifacts"), "s3://bucket/x/r/artifacts");
        assert_eq!(append_to_uri("s3://bucket/x?a=b", "r"), "s3://bucket/x/r?a=b");
        assert_eq!(append_to_uri("/plain?/x", "r"), "/plain?/x/r");
    }

    #[test]
    fn file_uris_round_trip() {
        let path = Path::new("/tmp/a b/é%20/#x");
        assert_eq!(file_uri(path), "file:///tmp/a%20b/%C3%A9%2520/%23x");
        assert_eq!(path_of_uri(&file_uri(path)).unwrap(), path);
        assert_eq!(path_of_uri("/plain/path"), Some(PathBuf::from("/plain/path")));
        assert_eq!(path_of_uri("s3://bucket/x"), None);
    }
}
