//! Who writes to the store now, and which runs still have their writer.
//!
//! Contract: reads and asks, and takes nothing: whether a writer lives is known from the locks on its files, which are
//! asked about without being taken, so that looking is in nobody's way. Locks say something on local file systems of
//! this machine only; of everybody else the answer is "unknown", never "gone".

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::catalog::changes::{self, RunUpdate};
use crate::catalog::{Entity, run_id};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field};
use crate::format::live::LiveHeader;
use crate::format::segment::SegmentKind;
use crate::id::{Origin, StoreId, Uid, WriterId};
use crate::log::{EntityPlace, LiveWindow};
use crate::model::{Lifecycle, RunStatus};
use crate::query::snapshot::Snapshot;
use crate::store::state::Want;
use crate::store::{Inner, Store};
use crate::vfs::{OpenMode, process};

/// Runs that are marked with one event.
const REAP_MAX: usize = 256;

/// Whether a writer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WriterLiveness {
    /// It holds its lock.
    Alive,
    /// Its lock is free, and it was a process of this machine.
    Gone,
    /// It cannot be seen from here: it runs, or ran, on another machine, or the store is on a network file system.
    Unknown,
}

/// A writer: one process that has the store open and wrote something.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WriterInfo {
    /// Its random id, 32 hex digits.
    pub id: String,
    /// Whether it lives.
    pub liveness: WriterLiveness,
    /// Its process, in its own pid namespace; none if it has logged no point one by one (its files do not say).
    pub pid: Option<u64>,
    /// Its machine, as it calls itself.
    pub host: Option<String>,
    /// The boot of the machine it ran in, 32 hex digits.
    pub boot: Option<String>,
    /// Since when it writes, in milliseconds since 1970.
    pub since_ms: u64,
    /// Timestamp of the newest point it logged (of its runs, if all its points are in batches); none without points.
    pub newest_ms: Option<i64>,
    /// Points it logged, by any call.
    pub points: u64,
    /// Those of them that are not in a batch yet: how far the disk is behind, and what recovery would bring home.
    pub points_waiting: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Ids of the runs that it logs to.
    pub runs: Vec<String>,
}

/// Whether a run's writer lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunLiveness {
    /// Its status says that it does not run; nobody was asked.
    NotRunning,
    /// It runs: a process that logged to it lives.
    Alive,
    /// It is still called running, but nobody who logged to it lives.
    Gone {
        /// Its last sign of life: its newest point, or the last change that its process made.
        since_ms: i64,
    },
    /// It cannot be told from here: it was logged on another machine, or imported.
    Unknown {
        /// The machine, if known.
        host: Option<String>,
    },
}

/// A run that was marked as failed, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReapedRun {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its last sign of life, which became its end.
    pub end_ms: i64,
}

/// A writer that is not known to be gone, or left points behind.
struct Seen<'a> {
    id: WriterId,
    liveness: WriterLiveness,
    window: Option<&'a LiveWindow>,
    waiting: u64,
}

impl Seen<'_> {
    /// Whether it logs to a run. What it brought home for a dead writer is not its own.
    fn logs_to(&self, run: Uid, places: &[EntityPlace]) -> bool {
        let declares = |window: &&LiveWindow| window.declarations.values().any(|d| d.series.run == run);
        let own = Origin::from(self.id);
        self.window.as_ref().is_some_and(declares)
            || places.iter().any(|(segment, _, entry)| {
                let logged = || entry.series.iter().any(|series| series.declaration.origin == own);
                segment.header.writer == self.id && (!entry.events.is_empty() || logged())
            })
    }
}

impl Inner {
    /// Whether a file is locked, if that can be told here; none if the file is gone.
    fn is_locked(&self, path: &Path) -> Result<Option<Option<bool>>> {
        match self.vfs.open(path, OpenMode::Read) {
            Ok(file) => Ok(Some(file.is_locked().ok())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("open", path, e)),
        }
    }

    /// Whether the locks of a store that was made elsewhere, or lies elsewhere, say nothing here.
    fn is_foreign(&self, store: StoreId) -> bool {
        let known = |id: StoreId| id != StoreId::default();
        known(store) && known(self.id) && store != self.id
    }

    fn liveness(&self, locked: Option<bool>, header: Option<&LiveHeader>, store: StoreId) -> WriterLiveness {
        // Locks of a network file system may be free though their holder lives, and the other way round.
        if !self.medium.trusts_locks() {
            return WriterLiveness::Unknown;
        }
        match locked {
            Some(true) => return WriterLiveness::Alive,
            Some(false) => {}
            // A file system without such locks.
            None => return WriterLiveness::Unknown,
        }
        // The kernel's boot id: containers of one machine share it, and see each other's locks.
        let is_here = match header {
            Some(header) => header.boot == process::boot_id() || header.host == process::host_name(),
            None => true,
        };
        if is_here && !self.is_foreign(store) { WriterLiveness::Gone } else { WriterLiveness::Unknown }
    }

    /// Writers with a live file, and writers whose segments are not closed.
    fn writers_seen<'a>(&self, snapshot: &'a Snapshot) -> Result<Vec<Seen<'a>>> {
        let mut seen = Vec::new();
        for (window, covered) in snapshot.windows() {
            let Some(locked) = self.is_locked(&window.path)? else { continue };
            let header = &window.header;
            let waiting = window.joined(covered).0.len() as u64;
            let liveness = self.liveness(locked, Some(header), header.store);
            seen.push(Seen { id: header.writer, liveness, window: Some(window), waiting });
        }
        let mut others: BTreeMap<WriterId, (Option<bool>, StoreId)> = BTreeMap::new();
        for (segment, state) in &snapshot.view.segments {
            let header = &segment.header;
            let is_open = state.footer.is_none() && header.kind != SegmentKind::Sealed;
            if is_open && !seen.iter().any(|one| one.id == header.writer) {
                let locked = segment.is_locked().ok();
                let known = others.entry(header.writer).or_insert((locked, header.store));
                known.0 = if known.0 == Some(true) { known.0 } else { locked };
            }
        }
        for (id, (locked, store)) in others {
            let liveness = self.liveness(locked, None, store);
            // One that is gone and left nothing behind is history.
            if liveness != WriterLiveness::Gone {
                seen.push(Seen { id, liveness, window: None, waiting: 0 });
            }
        }
        Ok(seen)
    }

    /// Whether a run's writer lives, as of a snapshot.
    fn run_liveness(&self, snapshot: &Snapshot, seen: &[Seen<'_>], run: &Entity) -> Result<RunLiveness> {
        if run.integer(Field::STATUS) != Some(RunStatus::Running as i64) {
            return Ok(RunLiveness::NotRunning);
        }
        let places = snapshot.view.entries(run.uid())?;
        let mut unknown = None;
        for one in seen.iter().filter(|one| one.logs_to(run.uid(), &places)) {
            match one.liveness {
                WriterLiveness::Alive => return Ok(RunLiveness::Alive),
                WriterLiveness::Unknown => {
                    unknown = Some(one.window.map(|w| w.header.host.clone()).filter(|host| !host.is_empty()));
                }
                WriterLiveness::Gone => {}
            }
        }
        // Copied from another machine's store; of an imported run MLflow may still write the files.
        let is_elsewhere = !self.medium.trusts_locks()
            || run.reference(Field::TREE).is_some()
            || places.iter().any(|(segment, ..)| self.is_foreign(segment.header.store));
        if let Some(host) = unknown.or(is_elsewhere.then_some(None)) {
            return Ok(RunLiveness::Unknown { host });
        }
        Ok(RunLiveness::Gone { since_ms: self.last_sign_of_life(snapshot, run)? })
    }

    /// The newest point of a run, or the last change that the process made which set its status. What others changed
    /// later (a tag, a note) is no sign of life.
    fn last_sign_of_life(&self, snapshot: &Snapshot, run: &Entity) -> Result<i64> {
        let metrics = self.metrics_of(snapshot, run.uid())?;
        let newest_point = metrics.values().map(|metric| metric.newest_ms).max();
        let by = run.stamp(Field::STATUS, "").map(|stamp| stamp.writer);
        let changed = run.newest_stamp(|field, key| run.stamp(field, key).map(|s| s.writer) == by);
        let changed = changed.and_then(|stamp| i64::try_from(stamp.millis).ok());
        Ok(newest_point.max(changed).max(run.integer(Field::START_MS)).unwrap_or(0))
    }

    fn writer_info(&self, snapshot: &Snapshot, seen: &Seen<'_>) -> Result<WriterInfo> {
        let own = Origin::from(seen.id);
        let segments = || snapshot.view.segments.iter().filter(|(s, _)| s.header.writer == seen.id);
        let mut uids: BTreeSet<Uid> = BTreeSet::new();
        uids.extend(seen.window.iter().flat_map(|w| w.declarations.values()).map(|d| d.series.run));
        uids.extend(segments().flat_map(|(_, state)| state.uids()));
        let header = seen.window.map(|window| &window.header);
        let begun = header.map(|header| header.created_ms).into_iter();
        let since_ms = begun.chain(segments().map(|(s, _)| s.header.created_ms)).min().unwrap_or(0);
        let mut info = WriterInfo {
            id: seen.id.to_string(),
            liveness: seen.liveness,
            pid: header.map(|header| header.pid).filter(|pid| *pid > 0),
            host: header.map(|header| header.host.clone()).filter(|host| !host.is_empty()),
            boot: header.map(|header| Uid::from_bytes(header.boot).to_string()),
            since_ms,
            newest_ms: None,
            points: 0,
            points_waiting: seen.waiting,
            bytes: 0,
            runs: Vec::new(),
        };
        for (segment, _) in segments() {
            info.bytes = info.bytes.saturating_add(segment.file_len()?);
        }
        if let Some(window) = seen.window {
            // Gone by now: its points are in segments.
            info.bytes = info.bytes.saturating_add(self.vfs.metadata(&window.path).map_or(0, |m| m.len));
        }
        for uid in uids {
            let places = snapshot.view.entries(uid)?;
            if !seen.logs_to(uid, &places) {
                continue;
            }
            let Some(id) = self.current(Want::Entity(uid))?.catalog.run(uid).map(|run| run_id(run)) else {
                continue;
            };
            let series = snapshot.run_series(uid)?;
            let origins = series.values().flatten().filter(|parts| parts.origin == own);
            let points: u64 = origins.map(|parts| parts.end()).sum();
            info.points = info.points.saturating_add(points);
            let metrics = self.metrics_of(snapshot, uid)?;
            info.newest_ms = info.newest_ms.max(metrics.values().map(|metric| metric.newest_ms).max());
            info.runs.push(id);
        }
        Ok(info)
    }
}

impl Store {
    /// The writers of the store: those that live, those that cannot be seen from here, and those that are gone but left
    /// points which nobody has brought home yet (the next writer does). Costs a look at the store, and the
    /// directories of the runs that they log to.
    ///
    /// # Errors
    /// Whatever reading the log says.
    pub fn writers(&self) -> Result<Vec<WriterInfo>> {
        let inner = self.inner();
        inner.with_snapshot(|snapshot| {
            let seen = inner.writers_seen(snapshot)?;
            seen.iter().map(|one| inner.writer_info(snapshot, one)).collect()
        })
    }

    /// Whether runs that are called running still have their writer; in the order of `run_ids`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn run_liveness<S: AsRef<str>>(&self, run_ids: &[S]) -> Result<Vec<RunLiveness>> {
        let inner = self.inner();
        let uids: Result<Vec<Uid>> = run_ids.iter().map(|id| inner.run_uid(id.as_ref())).collect();
        let uids = uids?;
        inner.with_snapshot(|snapshot| {
            let seen = inner.writers_seen(snapshot)?;
            let one = |uid: &Uid| {
                let run = self.run_entity(*uid)?;
                inner.run_liveness(snapshot, &seen, &run)
            };
            uids.iter().map(one).collect()
        })
    }

    fn run_entity(&self, uid: Uid) -> Result<Arc<Entity>> {
        let state = self.inner().current(Want::Entity(uid))?;
        state.catalog.run(uid).cloned().ok_or_else(|| Error::not_found("run", uid.to_string()))
    }

    /// Whether a run has ended or is gone, and, unless it was `quiet` for long, nobody who logged to it lives.
    pub(crate) fn run_is_over(&self, uid: Uid, quiet: bool) -> Result<bool> {
        let run = match self.run_entity(uid) {
            Err(Error::NotFound { .. }) => return Ok(true),
            run => run?,
        };
        let status = run.integer(Field::STATUS).and_then(RunStatus::from_number);
        if !status.is_some_and(RunStatus::is_terminated) {
            return Ok(false);
        }
        if quiet {
            return Ok(true);
        }
        let inner = self.inner();
        inner.with_snapshot(|snapshot| {
            let places = snapshot.view.entries(uid)?;
            let seen = inner.writers_seen(snapshot)?;
            Ok(!seen.iter().any(|one| one.liveness != WriterLiveness::Gone && one.logs_to(uid, &places)))
        })
    }

    /// Marks runs as failed that are called running but whose writer is gone, and showed its last sign of life at least
    /// `after` ago; that becomes their end. With `dry_run` it only says which. Nothing else ever does this: a run whose
    /// process was killed stays running until somebody calls it otherwise.
    ///
    /// Runs whose writer cannot be seen from here are left alone: those of other machines (also of copies that were
    /// merged in, while their segments say so), imported ones, and all on a network file system. So call it where the
    /// runs are logged, not on a copy of the store. Each run is looked at again under the store's lock, which
    /// [`Store::resume_run`] takes, too: a run that was resumed before stays running, one that is resumed later runs
    /// again. (Logging to a run without resuming it takes no lock; such a run is marked if its process began to log
    /// to it in this very moment.)
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody holds the lock for too long, [`Error::ReadOnly`].
    pub fn reap_runs(&self, after: Duration, dry_run: bool) -> Result<Vec<ReapedRun>> {
        let inner = self.inner();
        let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let limit_ms = i64::try_from(process::now_ms()).unwrap_or(i64::MAX).saturating_sub(after);
        let due = |snapshot: &Snapshot, seen: &[Seen<'_>], run: &Entity| -> Result<Option<ReapedRun>> {
            if run.lifecycle() != Lifecycle::Active {
                return Ok(None);
            }
            Ok(match inner.run_liveness(snapshot, seen, run)? {
                RunLiveness::Gone { since_ms } if since_ms <= limit_ms => {
                    let name = run.text(Field::NAME).unwrap_or_default().to_owned();
                    Some(ReapedRun { id: run_id(run), name, end_ms: since_ms })
                }
                _ => None,
            })
        };
        let running: Vec<Arc<Entity>> = {
            let state = inner.current(Want::All)?;
            let runs = state.catalog.of_kind(EntityKind::RUN);
            runs.filter(|run| run.integer(Field::STATUS) == Some(RunStatus::Running as i64))
                .cloned()
                .collect()
        };
        let found = inner.with_snapshot(|snapshot| {
            let seen = inner.writers_seen(snapshot)?;
            let mut found = Vec::new();
            for run in &running {
                found.extend(due(snapshot, &seen, run)?.map(|reaped| (run.uid(), reaped)));
            }
            Ok(found)
        })?;
        if dry_run {
            return Ok(found.into_iter().map(|(_, reaped)| reaped).collect());
        }
        let mut reaped = Vec::new();
        for chunk in found.chunks(REAP_MAX) {
            let wants: Vec<Want> = chunk.iter().map(|(uid, _)| Want::Entity(*uid)).collect();
            let mut marked = Vec::new();
            inner.change(&wants, true, |catalog| {
                // Again, under the lock: somebody may have resumed it.
                inner.with_snapshot(|snapshot| {
                    let seen = inner.writers_seen(snapshot)?;
                    let mut operations = Vec::new();
                    marked.clear();
                    for (uid, _) in chunk {
                        let Some(run) = catalog.run(*uid) else { continue };
                        let Some(one) = due(snapshot, &seen, run)? else { continue };
                        let (status, end_ms) = (Some(RunStatus::Failed), Some(one.end_ms));
                        let update = RunUpdate { status, end_ms, ..RunUpdate::default() };
                        operations.extend(changes::update_run(catalog, *uid, update)?);
                        marked.push(one);
                    }
                    Ok(operations)
                })
            })?;
            reaped.append(&mut marked);
        }
        Ok(reaped)
    }
}
