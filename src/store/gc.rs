//! Garbage: what was deleted long ago, and files that nothing needs any more.
//!
//! Contract: removes what its report lists and nothing else. Purging leaves a tombstone that wins over everything, so a
//! purged run does not come back with an old copy of the log; its points go with the next compaction. The tombstones
//! are durable before the first file is removed. Symbolic links are removed, never followed.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, Entity, changes, logged_model_id, logged_model_uid, run_id};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field};
use crate::id::Uid;
use crate::log::LOG_DIR;
use crate::model::Lifecycle;
use crate::store::artifacts::is_aside;
use crate::store::copying::ARTIFACTS_DIR;
use crate::store::maintenance::GRACE_MS;
use crate::store::report::GcReport;
use crate::store::state::Want;
use crate::store::{Inner, Store};
use crate::vfs::{Metadata, OpenMode, process};

/// Entities purged with one event.
const PURGE_MAX: usize = 10_000;
/// How long nobody has written to an artifact without a name before it counts as left by a killed process.
const ARTIFACT_GRACE_MS: u64 = 24 * 3600 * 1000;

/// What [`Store::gc`] removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Runs, logged models and experiments that were deleted longer ago than this, in milliseconds, are purged. 0: all
    /// deleted ones.
    pub older_than_ms: u64,
    /// Only say what would be removed.
    pub dry_run: bool,
}

impl Default for GcOptions {
    /// Deleted for 30 days.
    fn default() -> Self {
        Self { older_than_ms: 30 * 24 * 3600 * 1000, dry_run: false }
    }
}

/// The kinds that have artifacts.
const WITH_FILES: [EntityKind; 3] = [EntityKind::RUN, EntityKind::LOGGED_MODEL, EntityKind::TRACE];

/// What is to be purged: uid and id of each.
#[derive(Default)]
struct Doomed {
    experiments: Vec<(Uid, String)>,
    runs: Vec<(Uid, String)>,
    models: Vec<(Uid, String)>,
    /// What experiments take along.
    others: Vec<(EntityKind, Uid)>,
}

/// When an entity was deleted: as its tree or the API says, else when the register was set.
fn deleted_ms(entity: &Entity, field: Field) -> Option<u64> {
    let stamp = entity.stamp(Field::LIFECYCLE, "").map(|s| s.millis);
    let said = entity.integer(field).filter(|ms| *ms > 0).and_then(|ms| u64::try_from(ms).ok());
    (entity.lifecycle() == Lifecycle::Deleted).then(|| said.or(stamp).unwrap_or(0))
}

/// Whether a file was written so long ago that nobody is at it any more.
pub(super) fn is_past_grace(metadata: &Metadata) -> bool {
    metadata.modified_ms.saturating_add(GRACE_MS) <= process::now_ms()
}

impl Doomed {
    fn find(catalog: &Catalog, limit_ms: u64, max: usize) -> Self {
        let is_due = |entity: &Entity, field| deleted_ms(entity, field).is_some_and(|ms| ms <= limit_ms);
        let mut doomed = Self::default();
        for run in catalog.of_kind(EntityKind::RUN).filter(|run| is_due(run, Field::DELETED_MS)).take(max) {
            doomed.runs.push((run.uid(), run_id(run)));
        }
        let due_models =
            catalog.of_kind(EntityKind::LOGGED_MODEL).filter(|model| is_due(model, Field::UPDATED_MS));
        for model in due_models.take(max - doomed.runs.len().min(max)) {
            doomed.models.push((model.uid(), logged_model_id(model)));
        }
        let gone: HashSet<Uid> = doomed.runs.iter().map(|(uid, _)| *uid).collect();
        for experiment in catalog.experiments().filter(|e| is_due(e, Field::UPDATED_MS)) {
            // A run that came later, from a store in which the experiment was in use, keeps it.
            let is_empty = catalog.runs_of(experiment.uid()).all(|run| gone.contains(&run.uid()));
            if is_empty && doomed.len() < max {
                doomed.experiments.push((experiment.uid(), catalog.experiment_id(experiment.uid())));
                doomed.others.extend(catalog.others_of(experiment.uid()).map(|one| (one.kind(), one.uid())));
            }
        }
        doomed
    }

    fn len(&self) -> usize {
        self.experiments.len() + self.runs.len() + self.models.len() + self.others.len()
    }

    /// All of it, each once.
    fn entities(&self) -> BTreeSet<(EntityKind, Uid)> {
        let of =
            |kind, list: &[(Uid, String)]| -> Vec<_> { list.iter().map(|(uid, _)| (kind, *uid)).collect() };
        let mut all: BTreeSet<_> = self.others.iter().copied().collect();
        all.extend(of(EntityKind::RUN, &self.runs));
        all.extend(of(EntityKind::LOGGED_MODEL, &self.models));
        all.extend(of(EntityKind::EXPERIMENT, &self.experiments));
        all
    }

    fn report(self, report: &mut GcReport) {
        report.runs.extend(self.runs.into_iter().map(|(_, id)| id));
        report.logged_models.extend(self.models.into_iter().map(|(_, id)| id));
        report.experiments.extend(self.experiments.into_iter().map(|(_, id)| id));
    }
}

impl Store {
    /// Purges what was deleted long enough ago, with its artifacts inside the store, and removes files that are not
    /// needed any more: segments replaced more than ten minutes ago, and segments and artifacts that killed processes
    /// left half-written. An experiment is purged when none of its runs is left. This cannot be undone.
    ///
    /// # Errors
    /// [`Error::Busy`] names who else compacts or collects; [`Error::ReadOnly`] unless it is a dry run.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        let inner = self.inner();
        let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
        let limit_ms = process::now_ms().saturating_sub(options.older_than_ms);
        let mut purged = HashSet::new();
        let _lock = if options.dry_run {
            let state = inner.current(Want::All)?;
            let doomed = Doomed::find(&state.catalog, limit_ms, usize::MAX);
            purged.extend(doomed.entities().into_iter().map(|(_, uid)| uid));
            doomed.report(&mut report);
            None
        } else {
            let writer = inner.writer()?;
            let lock = inner.compact_lock()?;
            while inner.purge(limit_ms, &mut report)? {}
            writer.sync()?;
            lock
        };
        let state = inner.current(Want::All)?;
        let tombstones = state.catalog.entries().filter(|e| WITH_FILES.contains(&e.kind()) && e.is_purged());
        // Also those that another store purged: their artifacts may have come back with a copy.
        purged.extend(tombstones.map(|e| e.uid()));
        drop(state);
        let mut removed = Vec::new();
        inner.remove_artifacts(&purged, options.dry_run, &mut removed)?;
        let view = inner.reader.refresh_whole()?;
        inner.remove_replaced(&view, options.dry_run, &mut |path, len| removed.push((path, len)))?;
        inner.remove_half_written(options.dry_run, &mut removed)?;
        if inner.medium.trusts_locks() {
            let artifacts = inner.root.join(ARTIFACTS_DIR);
            inner.remove_half_written_artifacts(&artifacts, options.dry_run, &mut removed)?;
        }
        for (path, len) in removed {
            report.bytes += len;
            report.files.push(path.strip_prefix(&inner.root).map(Path::to_path_buf).unwrap_or(path));
        }
        report.files.sort();
        Ok(report)
    }
}

impl Inner {
    /// Purges some of what is due; returns whether there was anything.
    fn purge(&self, limit_ms: u64, report: &mut GcReport) -> Result<bool> {
        let mut doomed = Doomed::default();
        // Names become free, so this is a claim.
        self.change(&[Want::All], true, |catalog| {
            doomed = Doomed::find(catalog, limit_ms, PURGE_MAX);
            Ok(doomed.entities().into_iter().flat_map(|(kind, uid)| changes::purge(kind, uid)).collect())
        })?;
        let any = doomed.len() > 0;
        doomed.report(report);
        Ok(any)
    }

    /// Removes `artifacts/<experiment>/<run>` of purged runs, and `models/<id>` and `traces/<trace>` there.
    fn remove_artifacts(
        &self,
        purged: &HashSet<Uid>,
        dry_run: bool,
        removed: &mut Vec<(PathBuf, u64)>,
    ) -> Result<()> {
        let top = self.root.join(ARTIFACTS_DIR);
        for experiment in self.vfs.list(&top).unwrap_or_default() {
            let folder = top.join(&experiment.name);
            if !experiment.is_dir || experiment.name.parse::<Uid>().is_err() {
                continue;
            }
            for inner in ["models", "traces"] {
                self.remove_purged(&folder.join(inner), purged, dry_run, removed)?;
            }
            self.remove_purged(&folder, purged, dry_run, removed)?;
        }
        Ok(())
    }

    /// Removes what is named by a purged uid in a folder, and the folder if nothing else is there.
    fn remove_purged(
        &self,
        folder: &Path,
        purged: &HashSet<Uid>,
        dry_run: bool,
        removed: &mut Vec<(PathBuf, u64)>,
    ) -> Result<()> {
        let mut any = false;
        for entry in self.vfs.list(folder).unwrap_or_default() {
            if logged_model_uid(&entry.name).is_some_and(|uid| purged.contains(&uid)) {
                self.remove_tree(&folder.join(&entry.name), dry_run, removed)?;
                any = true;
            }
        }
        if any && !dry_run {
            // Refused as long as others are there.
            let _ = self.vfs.remove_dir(folder);
        }
        Ok(())
    }

    /// Removes a file, or a folder with all it holds.
    pub(super) fn remove_tree(
        &self,
        path: &Path,
        dry_run: bool,
        removed: &mut Vec<(PathBuf, u64)>,
    ) -> Result<()> {
        let metadata = match self.vfs.metadata(path) {
            Ok(metadata) => Some(metadata),
            // A link that leads nowhere.
            Err(_) if self.vfs.is_symlink(path) => None,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("stat", path, e)),
        };
        let is_link = self.vfs.is_symlink(path);
        if metadata.is_some_and(|m| m.is_dir) && !is_link {
            for entry in self.vfs.list(path).map_err(|e| Error::io("list", path, e))? {
                self.remove_tree(&path.join(entry.name), dry_run, removed)?;
            }
            if !dry_run {
                // Names that are no text are none of ours: their folder stays with them.
                let _ = self.vfs.remove_dir(path);
            }
            return Ok(());
        }
        if !dry_run {
            self.vfs.remove_file(path).map_err(|e| Error::io("remove", path, e))?;
        }
        removed.push((path.to_path_buf(), metadata.filter(|_| !is_link).map_or(0, |m| m.len)));
        Ok(())
    }

    /// Removes artifacts that killed processes left half-written, below a folder: those that nobody has touched for a
    /// day and nobody has locked. A copy has no lock before all of it is there, so there is time for one that stalls.
    /// On a network locks and clocks say nothing of other hosts: there they stay. Links are not followed.
    fn remove_half_written_artifacts(
        &self,
        folder: &Path,
        dry_run: bool,
        removed: &mut Vec<(PathBuf, u64)>,
    ) -> Result<()> {
        for entry in self.vfs.list(folder).unwrap_or_default() {
            let path = folder.join(&entry.name);
            if entry.is_dir && !self.vfs.is_symlink(&path) {
                self.remove_half_written_artifacts(&path, dry_run, removed)?;
            } else if is_aside(&path) && !removed.iter().any(|(known, _)| *known == path) {
                removed.extend(self.remove_half_written_artifact(path, dry_run)?);
            }
        }
        Ok(())
    }

    fn remove_half_written_artifact(&self, path: PathBuf, dry_run: bool) -> Result<Option<(PathBuf, u64)>> {
        let is_old = |m: &Metadata| m.modified_ms.saturating_add(ARTIFACT_GRACE_MS) <= process::now_ms();
        if self.vfs.metadata(&path).ok().filter(is_old).is_none() {
            return Ok(None);
        }
        // It may have got its name meanwhile.
        let Ok(file) = self.vfs.open(&path, OpenMode::ReadWrite) else { return Ok(None) };
        let lock = file.try_lock().map_err(|e| Error::io("lock", &path, e))?;
        let Some(metadata) = file.metadata().ok().filter(is_old).filter(|_| lock.is_some()) else {
            return Ok(None);
        };
        if !dry_run {
            match self.vfs.remove_file(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                removed => removed.map_err(|e| Error::io("remove", &path, e))?,
            }
        }
        Ok(Some((path, metadata.len)))
    }

    /// Removes what killed processes left half-written: old, and locked by nobody.
    pub(super) fn remove_half_written(&self, dry_run: bool, removed: &mut Vec<(PathBuf, u64)>) -> Result<()> {
        let log_dir = self.root.join(LOG_DIR);
        for entry in self.vfs.list(&log_dir).unwrap_or_default() {
            let path = log_dir.join(&entry.name);
            let Some(metadata) = self.vfs.metadata(&path).ok().filter(|_| entry.name.ends_with(".seg.tmp"))
            else {
                continue;
            };
            let is_old = is_past_grace(&metadata);
            if is_old && !dry_run {
                let file =
                    self.vfs.open(&path, OpenMode::ReadWrite).map_err(|e| Error::io("open", &path, e))?;
                let Some(_lock) = file.try_lock().map_err(|e| Error::io("lock", &path, e))? else { continue };
                self.vfs.remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
            }
            if is_old {
                removed.push((path, metadata.len));
            }
        }
        Ok(())
    }
}
