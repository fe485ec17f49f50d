//! The public API: a store, its experiments, runs and series.
//!
//! Contract: [`Store`] is a cheap handle (`Clone + Send + Sync`) on one directory; the last one that is dropped closes
//! it. A call that returned `Ok` survives `kill -9`; what else it survives is [`Durability`]. Reading never waits for
//! writers, of this process or others. No logger, setting or thread pool is global (all that a process shares is the
//! bookkeeping of `vfs` that makes `fork` safe), and no thread is left once the last handle is gone.

mod artifact_files;
mod artifacts;
mod backup;
mod change;
mod copying;
mod experiments;
mod follow;
mod gc;
#[cfg(test)]
mod golden;
mod histories;
mod identity;
mod indexing;
mod logged_models;
mod maintenance;
mod merge;
mod metrics;
mod model_metrics;
mod options;
mod recover;
mod registry;
mod repair;
pub mod report;
mod resume;
mod runs;
mod search;
mod series;
mod spans;
pub(crate) mod state;
mod stats;
mod traces;
mod tree_entities;
mod tree_points;
mod trees;
mod verify;
mod writers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::catalog::{Entity, run_id};
use crate::error::{Error, Result};
use crate::format::declare::{OwnerKind, SeriesKey};
use crate::format::event::EntityKind;
use crate::id::{Stamp, StoreId, Uid, WriterId};
use crate::log::{LOG_DIR, LogReader, LogWriter, Medium, RecoverReport, Which, recover_dead_writers};
use crate::query::snapshot::Snapshot;
use crate::vfs::{PerProcess, Vfs};

pub use artifact_files::{ArtifactFile, ArtifactUpload};
pub use artifacts::ArtifactInfo;
#[cfg(feature = "mlflow")]
pub(crate) use artifacts::{append_to_uri, path_of_uri};
pub use experiments::{ExperimentHandle, ExperimentOptions};
pub use follow::{Follow, FollowCursor};
pub use gc::GcOptions;
pub use histories::{History, HistoryPage};
pub use logged_models::LoggedModelOptions;
pub use metrics::MetricSummary;
pub use model_metrics::ModelMetric;
pub use options::{Durability, Network, Options, SharedMapping};
pub use registry::{ModelVersionOptions, RegisteredModelOptions};
pub use runs::{Metric, Run, RunOptions};
pub use search::{ExperimentSearch, LoggedModelSearch, Page, RunSearch, Search, TraceSearch};
pub use series::Series;
pub use traces::AssessmentUpdate;
pub use writers::{ReapedRun, RunLiveness, WriterInfo, WriterLiveness};

use indexing::IndexImage;
use metrics::MetricsCache;
use state::{State, Want};

/// How often a look with a hole is taken again before the hole is reported.
const SNAPSHOTS_MAX: usize = 3;

/// A store: one directory of metric data.
///
/// ```
/// # fn main() -> mlrs_db::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("my-store");
/// use mlrs_db::{Points, RunOptions, RunStatus, Store};
///
/// let store = Store::open(&path)?;
/// let experiment = store.experiment("mnist")?;
/// let run = experiment.start_run(RunOptions::new().name("lr-3").param("lr", "0.1"))?;
/// let loss = run.series("train/loss")?;
/// for step in 0..100 {
///     loss.log(step, 1.0 / (step + 1) as f64)?;
/// }
/// run.finish(RunStatus::Finished)?;
///
/// let points = store.history(run.id(), "train/loss")?.steps(10..).collect::<Points>()?;
/// assert_eq!(points.len(), 90);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    process: Arc<PerProcess<Inner>>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub vfs: Arc<dyn Vfs>,
    pub root: PathBuf,
    pub id: StoreId,
    pub options: Options,
    /// What the file system is trusted with.
    pub medium: Medium,
    pub reader: LogReader,
    writer: Option<LogWriter>,
    /// Held while an event is made and written, so that the catalog it was made from is still true. Never while waiting
    /// for another process; readers do not take it.
    changing: Mutex<()>,
    /// Whether dead writers' live files were looked for.
    recovered: OnceLock<()>,
    recovering: Mutex<()>,
    state: Mutex<State>,
    metrics: Mutex<MetricsCache>,
    /// What the index said when everything was loaded.
    index: OnceLock<IndexImage>,
}

impl Store {
    /// Opens a store for reading and writing; makes it if there is none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::default().open(path)
    }

    /// Options, to be finished with [`Options::open`].
    pub fn options() -> Options {
        Options::default()
    }

    pub(crate) fn open_with(root: &Path, options: Options) -> Result<Self> {
        let vfs = Arc::clone(&options.vfs);
        let id = match identity::read(vfs.as_ref(), root) {
            Ok(Some(id)) => id,
            Ok(None) => Self::make(vfs.as_ref(), root, &options)?,
            // Reading needs no identity: the log describes itself.
            Err(Error::Corrupt { .. }) if options.read_only && options.skip_damage => StoreId::default(),
            Err(error) => return Err(error),
        };
        let medium = options.medium(root);
        let writer = if options.read_only {
            None
        } else {
            let id_of_writer = WriterId::random()?;
            Some(LogWriter::new(Arc::clone(&vfs), root, id, id_of_writer, options.writer(medium)))
        };
        let inner = Inner::new(vfs, root, id, options, medium, writer);
        // Refuses at once what a newer program wrote.
        inner.reader.refresh()?;
        Ok(Self { process: Arc::new(PerProcess::new(inner)) })
    }

    /// What this process has of the store. A forked child becomes a reader and writer of its own at its first call.
    #[inline]
    pub(crate) fn inner(&self) -> &Inner {
        self.process.get(Inner::inherited)
    }

    fn make(vfs: &dyn Vfs, root: &Path, options: &Options) -> Result<StoreId> {
        let not_a_store = |reason: &str| Error::NotAStore { path: root.to_path_buf(), reason: reason.into() };
        let occupied = match vfs.list(root) {
            Ok(entries) => !entries.is_empty(),
            Err(e) => e.kind() != std::io::ErrorKind::NotFound,
        };
        // A copied `log/` without its identity is a store all the same.
        if occupied && vfs.metadata(&root.join(LOG_DIR)).is_err() {
            return Err(not_a_store(
                "it is not empty and has no file MLRS; name a new or an empty directory",
            ));
        }
        if options.read_only || !options.create {
            return Err(not_a_store("it has no file MLRS"));
        }
        identity::create(vfs, root)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.inner().root
    }

    /// The random identity that the store got when it was made.
    pub fn id(&self) -> StoreId {
        self.inner().id
    }

    /// Places of the log that answers of this store lack so far, because [`Options::skip_damage`] lets them: damaged
    /// frames, files that cannot be read or are not there. [`Store::verify`] says which. 0 without the option, where a
    /// place that is needed is an error instead.
    pub fn places_skipped(&self) -> u64 {
        let inner = self.inner();
        if !inner.options.skip_damage {
            return 0;
        }
        let identity = u64::from(inner.id == StoreId::default());
        inner.reader.view().places_passed_over() as u64 + identity
    }

    /// Makes everything durable that was logged before the call, whatever [`Durability`] says.
    ///
    /// # Errors
    /// [`Error::Io`] if a sync fails: the handle is poisoned then, because what the system kept is unknown.
    pub fn sync(&self) -> Result<()> {
        match &self.inner().writer {
            Some(writer) => writer.sync(),
            None => Ok(()),
        }
    }

    /// Hands over all points, closes and seals the segments, makes all of it durable and removes the live file.
    /// Dropping the last handle does the same, but has nobody to tell of errors. Other clones fail afterwards.
    ///
    /// # Errors
    /// Whatever the disk says; then nothing acknowledged is lost, and the next open goes on from there.
    pub fn close(self) -> Result<()> {
        self.inner().close()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Errors are for `Store::close`; what was acknowledged is in the log whatever happens here.
        let _ = self.close();
    }
}

impl Inner {
    fn new(
        vfs: Arc<dyn Vfs>,
        root: &Path,
        id: StoreId,
        options: Options,
        medium: Medium,
        writer: Option<LogWriter>,
    ) -> Self {
        let writer_id = writer.as_ref().map_or(WriterId::default(), LogWriter::id);
        Self {
            reader: LogReader::new(Arc::clone(&vfs), root).with_skip_damage(options.skip_damage),
            vfs,
            root: root.to_path_buf(),
            id,
            options,
            medium,
            writer,
            changing: Mutex::new(()),
            recovered: OnceLock::new(),
            recovering: Mutex::new(()),
            state: Mutex::new(State::new(writer_id)),
            metrics: Mutex::default(),
            index: OnceLock::new(),
        }
    }

    /// The same store for a forked child, from what never changes in the parent's.
    fn inherited(parents: &Self) -> Self {
        let (vfs, options, medium) = (Arc::clone(&parents.vfs), parents.options.clone(), parents.medium);
        let writer = parents.writer.as_ref().map(|_| {
            let new =
                |id| LogWriter::new(Arc::clone(&vfs), &parents.root, parents.id, id, options.writer(medium));
            match WriterId::random() {
                Ok(id) => new(id),
                // Two writers with one id would share files: this one refuses every call.
                Err(error) => new(WriterId::default()).refusing(&error),
            }
        });
        Self::new(vfs, &parents.root, parents.id, options, medium, writer)
    }

    /// Closes the writer. After a first time, or in a process that never wrote, there is nothing to do.
    fn close(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        if writer.close()? {
            // What these leave undone the next one does; nothing that was logged depends on it.
            let _ = self.tidy_up();
            let _ = self.checkpoint();
        }
        Ok(())
    }

    pub(crate) fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writing side. The first call brings home what dead writers left in live files.
    pub(crate) fn writer(&self) -> Result<&LogWriter> {
        let writer = self.writer.as_ref().ok_or_else(|| Error::ReadOnly { path: self.root.clone() })?;
        if self.recovered.get().is_none() {
            let _one = self.recovering.lock().unwrap_or_else(PoisonError::into_inner);
            if self.recovered.get().is_none() {
                self.bring_home(writer)?;
                let _ = self.recovered.set(());
            }
        }
        Ok(writer)
    }

    fn bring_home(&self, writer: &LogWriter) -> Result<RecoverReport> {
        let which = if self.medium.trusts_locks() { Which::OfThisHost } else { Which::None };
        recover_dead_writers(&self.vfs, &self.root, self.id, writer, &self.reader, which)
    }

    /// Brings home what was left in live files since the first call.
    pub(crate) fn recover(&self) -> Result<RecoverReport> {
        let writer = self.writer()?;
        let _one = self.recovering.lock().unwrap_or_else(PoisonError::into_inner);
        self.bring_home(writer)
    }

    /// The catalog, current, with what is wanted in memory.
    pub(crate) fn current(&self, want: Want) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock_state();
        state.refresh(&self.reader)?;
        self.ensure(&mut state, want)?;
        Ok(state)
    }

    /// The catalog as it is, with what is wanted in memory.
    pub(crate) fn held(&self, want: Want) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock_state();
        self.ensure(&mut state, want)?;
        Ok(state)
    }

    /// Loads what is wanted; everything comes from the index if there is one. Where damage is passed over, everything
    /// is wanted: the index may know what the log has lost, and no answer may depend on how a run was named.
    pub(crate) fn ensure(&self, state: &mut State, want: Want) -> Result<()> {
        let skip_damage = self.options.skip_damage;
        let want = if skip_damage { Want::All } else { want };
        if state.has(want) {
            return Ok(());
        }
        if state.is_behind(want) {
            state.refresh(&self.reader)?;
        }
        if want == Want::All
            && let Some((rows, image)) = self.load_index(state.view())
        {
            state.load_all(Some((rows, &image)))?;
            let _ = self.index.set(image);
        }
        state.ensure(want)?;
        if skip_damage {
            self.take_in_nameless_runs(state)?;
        }
        Ok(())
    }

    /// Runs of which only points are left, because the events that made them are damaged: their uid is all that is
    /// known of them.
    fn take_in_nameless_runs(&self, state: &mut State) -> Result<()> {
        let snapshot = self.snapshot()?;
        let mut runs: BTreeSet<Uid> = snapshot.live_series().iter().filter_map(run_of).collect();
        for (uid, _) in state.view().entities().into_iter().filter(|(_, kind)| *kind == EntityKind::RUN) {
            if state.catalog.entry(EntityKind::RUN, uid).is_none() {
                let parts = state.view().series(uid)?;
                runs.extend(parts.iter().filter_map(|part| run_of(&part.declaration.series)));
            }
        }
        for uid in runs {
            if state.catalog.entry(EntityKind::RUN, uid).is_none() {
                state.catalog.insert(Entity::new(EntityKind::RUN, uid, Stamp::default()));
            }
        }
        Ok(())
    }

    /// The index, once everything was loaded from it.
    pub(crate) fn index_image(&self) -> Option<&IndexImage> {
        self.index.get()
    }

    /// One look at all data.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(self.vfs.as_ref(), &self.root, &self.reader)
    }

    /// Answers from one look at all data. A look that was taken while files changed hands may have a hole, or miss a
    /// file: then it is taken again. A hole that stays is damage: histories name it, summaries count what is there.
    pub(crate) fn with_snapshot<R>(&self, mut answer: impl FnMut(&Snapshot) -> Result<R>) -> Result<R> {
        let mut attempt = 1;
        loop {
            let answered = self.snapshot().and_then(|mut snapshot| {
                snapshot.holes_stay = attempt == SNAPSHOTS_MAX;
                answer(&snapshot)
            });
            match answered {
                Err(Error::Gap { .. } | Error::Io { .. }) if attempt < SNAPSHOTS_MAX => attempt += 1,
                other => return other,
            }
        }
    }

    /// All runs that answer to an id, the one that is taken for it first. Several have one only where several trees
    /// do.
    pub(crate) fn runs_by_id(&self, id: &str) -> Result<Vec<Uid>> {
        let first = self.run_uid(id)?;
        let trees = self.lock_state().view().has_several(EntityKind::TREE);
        let mut runs = vec![first];
        if trees {
            let state = self.current(Want::All)?;
            let others = state.catalog.of_kind(EntityKind::RUN).filter(|run| run.uid() != first);
            runs.extend(others.filter(|run| run_id(run) == id).map(|run| run.uid()));
        }
        Ok(runs)
    }

    /// Resolves a run id as callers spell it.
    pub(crate) fn run_uid(&self, id: &str) -> Result<Uid> {
        let missing = || Error::not_found("run", id);
        if let Ok(uid) = id.parse::<Uid>() {
            let state = self.current(Want::Entity(uid))?;
            if state.catalog.run(uid).is_some() {
                return Ok(uid);
            }
        }
        // An imported run whose directory name is no uid, or whose id another tree had first.
        let state = self.current(Want::All)?;
        state.catalog.run_by_id(id).map(|run| run.uid()).ok_or_else(missing)
    }

    /// Resolves an experiment id (or uid) as callers spell it.
    pub(crate) fn experiment_uid(&self, id: &str) -> Result<Uid> {
        let state = self.current(Want::Experiments)?;
        let by_id = state.catalog.experiment_by_id(id);
        let by_uid = || id.parse().ok().and_then(|uid| state.catalog.experiment(uid));
        let found = by_id.or_else(by_uid).ok_or_else(|| Error::not_found("experiment", id))?;
        Ok(found.uid())
    }
}

/// The run that a series is of, if it is one of a run.
fn run_of(series: &SeriesKey) -> Option<Uid> {
    (series.owner == OwnerKind::RUN).then_some(series.run)
}
