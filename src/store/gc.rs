//! Garbage: what was deleted long ago, and files that nothing needs any more.
//!
//! Contract: removes what its report lists and nothing else. Purging leaves a tombstone that wins over everything, so a
//! purged run does not come back with an old copy of the log; its points go with the next compaction. The tombstones
//! are durable before the first file is removed. Symbolic links are removed, never followed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, Entity, changes, run_id};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field};
use crate::id::Uid;
use crate::log::LOG_DIR;
use crate::model::Lifecycle;
use crate::store::maintenance::GRACE_MS;
use crate::store::report::GcReport;
use crate::store::state::Want;
use crate::store::{Inner, Store};
use crate::vfs::{Metadata, OpenMode, process};

/// Entities purged with one event.
const PURGE_MAX: usize = 10_000;

/// What [`Store::gc`] removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Runs and experiments that were deleted longer ago than this, in milliseconds, are purged. 0: all deleted ones.
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

/// What is to be purged: uid and id of each.
#[derive(Default)]
struct Doomed {
    experiments: Vec<(Uid, String)>,
    runs: Vec<(Uid, String)>,
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
        let gone: HashSet<Uid> = doomed.runs.iter().map(|(uid, _)| *uid).collect();
        for experiment in catalog.experiments().filter(|e| is_due(e, Field::UPDATED_MS)) {
            // A run that came later, from a store in which the experiment was in use, keeps it.
            let is_empty = catalog.runs_of(experiment.uid()).all(|run| gone.contains(&run.uid()));
            if is_empty && doomed.runs.len() + doomed.experiments.len() < max {
                doomed.experiments.push((experiment.uid(), catalog.experiment_id(experiment.uid())));
            }
        }
        doomed
    }

    fn is_empty(&self) -> bool {
        self.experiments.is_empty() && self.runs.is_empty()
    }
}

impl Store {
    /// Purges what was deleted long enough ago, with its artifacts inside the store, and removes files that are not
    /// needed any more: segments replaced more than ten minutes ago, and what a killed compaction left half-written. An
    /// experiment is purged when none of its runs is left. This cannot be undone.
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
            purged.extend(doomed.runs.iter().map(|(uid, _)| *uid));
            report.runs.extend(doomed.runs.into_iter().map(|(_, id)| id));
            report.experiments.extend(doomed.experiments.into_iter().map(|(_, id)| id));
            None
        } else {
            let writer = inner.writer()?;
            let lock = inner.compact_lock()?;
            while inner.purge(limit_ms, &mut report)? {}
            writer.sync()?;
            lock
        };
        let state = inner.current(Want::All)?;
        let tombstones = state.catalog.entries().filter(|e| e.kind() == EntityKind::RUN && e.is_purged());
        // Also those that another store purged: their artifacts may have come back with a copy.
        purged.extend(tombstones.map(|e| e.uid()));
        drop(state);
        let mut removed = Vec::new();
        inner.remove_artifacts(&purged, options.dry_run, &mut removed)?;
        let view = inner.reader.refresh_whole()?;
        inner.remove_replaced(&view, options.dry_run, &mut |path, len| removed.push((path, len)))?;
        inner.remove_half_written(options.dry_run, &mut removed)?;
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
            let runs = doomed.runs.iter().map(|(uid, _)| (EntityKind::RUN, *uid));
            let experiments = doomed.experiments.iter().map(|(uid, _)| (EntityKind::EXPERIMENT, *uid));
            Ok(runs.chain(experiments).flat_map(|(kind, uid)| changes::purge(kind, uid)).collect())
        })?;
        let any = !doomed.is_empty();
        report.runs.extend(doomed.runs.into_iter().map(|(_, id)| id));
        report.experiments.extend(doomed.experiments.into_iter().map(|(_, id)| id));
        Ok(any)
    }

    /// Removes `artifacts/<experiment>/<run>` of purged runs.
    fn remove_artifacts(
        &self,
        purged: &HashSet<Uid>,
        dry_run: bool,
        removed: &mut Vec<(PathBuf, u64)>,
    ) -> Result<()> {
        let top = self.root.join("artifacts");
        for experiment in self.vfs.list(&top).unwrap_or_default() {
            let folder = top.join(&experiment.name);
            if !experiment.is_dir || experiment.name.parse::<Uid>().is_err() {
                continue;
            }
            let mut any = false;
            for run in self.vfs.list(&folder).unwrap_or_default() {
                if run.name.parse().is_ok_and(|uid: Uid| purged.contains(&uid)) {
                    self.remove_tree(&folder.join(&run.name), dry_run, removed)?;
                    any = true;
                }
            }
            if any && !dry_run {
                // Refused as long as other runs are there.
                let _ = self.vfs.remove_dir(&folder);
            }
        }
        Ok(())
    }

    /// Removes a file, or a folder with all it holds.
    fn remove_tree(&self, path: &Path, dry_run: bool, removed: &mut Vec<(PathBuf, u64)>) -> Result<()> {
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
