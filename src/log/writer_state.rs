//! What the calls of a writer and its background thread share: hand-over, segments, closing.
//!
//! Contract: everything here runs under the segment lock, or takes it; the live file's own lock is taken inside it and
//! never the other way round. State advances only after a write succeeded.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::codec::axis::Axis;
use crate::error::{Error, Result};
use crate::format::batch::share_axes;
use crate::format::declare::SeriesKey;
use crate::format::live::LiveHeader;
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::id::{Origin, SegmentId, StoreId, WriterId};
use crate::limits::COLUMN_POINTS_MAX;
use crate::log::live_blocks::Waiting;
use crate::log::live_writer::{Held, LiveOptions, LiveWriter};
use crate::log::segment_writer::{BatchColumn, SegmentWriter};
use crate::log::sync_gate::SyncGate;
use crate::log::writer::{BulkColumn, CLOSED, EncodedEvent, SeriesNumber, WriterOptions};
use crate::model::Points;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, OnceLock, RwLock};
use crate::vfs::{Vfs, process};

/// Most records handed over in one batch, so that it never has too many columns.
const HANDOVER_RECORDS_MAX: u64 = 64 * 1024;

/// The segment side: everything behind one lock, which no logging call takes.
#[derive(Debug, Default)]
pub(super) struct SegmentSide {
    pub(super) segment: Option<SegmentWriter>,
    pub(super) blobs: Option<SegmentWriter>,
    /// The last frames hold points that were synced in the live file, and are not synced yet. If a later frame survived
    /// a power cut without them, the live records would count as covered: so nothing is written behind them before.
    pub(super) sync_first: bool,
    pub(super) next_number: u64,
    pub(super) predecessor: (SegmentId, u64),
    /// Next ordinal by series number.
    pub(super) ordinals: HashMap<u32, u64>,
    /// Closed segments that may be worth sealing.
    pub(super) closed: Vec<PathBuf>,
    pub(super) record: Vec<u8>,
}

/// The series that this writer numbered, but for those that only pass through. A hand-over knows numbers, callers keys;
/// there may be millions, so neither looks at all.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    pub(super) by_key: HashMap<(SeriesKey, Origin), SeriesNumber>,
    pub(super) by_number: HashMap<u32, SeriesNumber>,
}

#[derive(Debug, Default)]
pub(super) struct Signal {
    pub(super) stop: bool,
    pub(super) hand_over: bool,
    pub(super) begin_live: bool,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) log_dir: PathBuf,
    pub(super) live_dir: PathBuf,
    pub(super) id: WriterId,
    pub(super) store: StoreId,
    pub(super) options: WriterOptions,
    pub(super) live: OnceLock<LiveWriter>,
    /// Held while the live file is begun; how many bulk appends there were before.
    pub(super) live_begin: Mutex<u64>,
    /// Why the live file could not be begun, for the call that waits for it; notified whatever came of it.
    pub(super) begin_error: Mutex<Option<Error>>,
    pub(super) begun: Condvar,
    pub(super) series: RwLock<SeriesTable>,
    /// Numbers that were given out.
    pub(super) series_count: AtomicU64,
    pub(super) side: Mutex<SegmentSide>,
    pub(super) syncs: SyncGate,
    pub(super) poison: OnceLock<String>,
    pub(super) signal: Mutex<Signal>,
    pub(super) woken: Condvar,
    /// Set by the thread when it has ended.
    pub(super) ended: AtomicBool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under a lock leaves data that is still consistent: state advances only after a write succeeded.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn check(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
        }
    }

    /// A full disk or a broken rule passes; any other I/O error ends the handle.
    pub(super) fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error @ Error::Io { .. }) = &result {
            let _ = self.poison.set(error.to_string());
        }
        result
    }

    pub(super) fn wake(&self) {
        lock(&self.signal).hand_over = true;
        self.woken.notify_all();
    }

    /// A store is made with its folders; a copy of one may lack some.
    pub(super) fn ensure_folder(&self, folder: &Path) -> Result<()> {
        if self.vfs.metadata(folder).is_ok() {
            return Ok(());
        }
        self.vfs.create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let parent = folder.parent().unwrap_or(Path::new("."));
        self.vfs.sync_dir(parent).map_err(|e| Error::failed_sync(parent, e))
    }

    /// The live file; the first call that needs it waits until the background has begun it, or the stall timeout is
    /// over: a disk that hangs must not hang the caller.
    pub(super) fn live_begun(&self) -> Result<&LiveWriter> {
        let deadline = Instant::now() + self.options.stall_timeout;
        let mut error = lock(&self.begin_error);
        // An earlier one is no news.
        *error = None;
        loop {
            if let Some(live) = self.live.get() {
                return Ok(live);
            }
            if let Some(error) = error.take() {
                return Err(error);
            }
            self.check()?;
            lock(&self.signal).begin_live = true;
            self.woken.notify_all();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Busy {
                    what: format!("the folder {}", self.live_dir.display()),
                    holder: "a disk that has not made the live file yet".into(),
                });
            }
            error = self.begun.wait_timeout(error, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What the background does about it.
    pub(super) fn begin_live_if_none(&self) {
        let bulk_appends = lock(&self.live_begin);
        let mut failed = None;
        if self.live.get().is_none() {
            match self.begin_live(*bulk_appends) {
                Ok(live) => drop(self.live.set(live)),
                Err(error) => failed = Some(error),
            }
        }
        drop(bulk_appends);
        self.tell_begun(failed);
    }

    pub(super) fn tell_begun(&self, failed: Option<Error>) {
        *lock(&self.begin_error) = failed;
        self.begun.notify_all();
    }

    /// Begins the live file; `sequence` numbers were taken by bulk appends before.
    fn begin_live(&self, sequence: u64) -> Result<LiveWriter> {
        self.ensure_folder(&self.live_dir)?;
        let header = LiveHeader {
            writer: self.id,
            store: self.store,
            boot: process::boot_id(),
            pid: u64::from(process::pid()),
            created_ms: process::now_ms(),
            host: process::host_name(),
        };
        let options = LiveOptions {
            medium: self.options.medium,
            bytes_max: self.options.live_bytes_max,
            stall_timeout: self.options.stall_timeout,
        };
        LiveWriter::create(self.vfs.as_ref(), &self.live_dir, header, options, sequence)
    }

    pub(super) fn begin(&self, side: &mut SegmentSide, kind: SegmentKind) -> Result<SegmentWriter> {
        self.ensure_folder(&self.log_dir)?;
        // A power cut that took an earlier number and left this one would look as if segments were missing, and what is
        // live would not be brought home without them.
        for open in [side.segment.as_mut(), side.blobs.as_mut()].into_iter().flatten() {
            open.sync()?;
        }
        let (predecessor, predecessor_len) = side.predecessor;
        let header = SegmentHeader {
            features: 0,
            kind,
            id: SegmentId::random()?,
            writer: self.id,
            number: side.next_number,
            predecessor,
            predecessor_len,
            created_ms: process::now_ms(),
            store: self.store,
        };
        let writer =
            SegmentWriter::create(Arc::clone(&self.vfs), &self.log_dir, header, self.options.compression)?;
        side.next_number += 1;
        side.predecessor = (header.id, writer.len());
        Ok(writer)
    }

    pub(super) fn segment<'a>(&self, side: &'a mut SegmentSide) -> Result<&'a mut SegmentWriter> {
        let segment = match side.segment.take() {
            Some(segment) => segment,
            None => self.begin(side, SegmentKind::Log)?,
        };
        Ok(side.segment.insert(segment))
    }

    pub(super) fn segment_to_append<'a>(&self, side: &'a mut SegmentSide) -> Result<&'a mut SegmentWriter> {
        if std::mem::take(&mut side.sync_first)
            && let Some(segment) = side.segment.as_mut()
            && let Err(error) = segment.sync()
        {
            side.sync_first = true;
            return Err(error);
        }
        self.segment(side)
    }

    pub(super) fn blob_segment<'a>(&self, side: &'a mut SegmentSide) -> Result<&'a mut SegmentWriter> {
        let segment = match side.blobs.take() {
            Some(segment) => segment,
            None => self.begin(side, SegmentKind::Blobs)?,
        };
        Ok(side.blobs.insert(segment))
    }

    /// Closes segments that are long enough, or all of them.
    pub(super) fn roll(&self, side: &mut SegmentSide, all: bool) -> Result<()> {
        let due = |s: &mut SegmentWriter| all || s.len() >= self.options.segment_bytes_max;
        if let Some(mut segment) = side.segment.take_if(due) {
            // Frames before the footer: one that survived a power cut alone would say that all of them are there.
            let closed = segment.sync().and_then(|()| segment.finish()).and_then(|()| segment.sync());
            if let Err(error) = closed {
                // A full disk: it stays open and is closed later. The footer was not written.
                side.segment = Some(segment);
                return self.noted(Err(error));
            }
            side.sync_first = false;
            side.predecessor = (segment.header().id, segment.len());
            side.closed.push(segment.path().to_path_buf());
        }
        if let Some(mut blobs) = side.blobs.take_if(due) {
            let closed = blobs.sync().and_then(|()| blobs.finish()).and_then(|()| blobs.sync());
            if let Err(error) = closed {
                side.blobs = Some(blobs);
                return self.noted(Err(error));
            }
        }
        Ok(())
    }

    /// Closes segments that are long enough. What was just appended is in the log whatever becomes of this: a full disk
    /// is tried again later, anything worse is for the next call.
    pub(super) fn roll_if_due(&self, side: &mut SegmentSide) {
        let _ = self.roll(side, false);
    }

    /// Appends columns, or an event, or both as a group.
    pub(super) fn append(
        &self,
        side: &mut SegmentSide,
        columns: &[BulkColumn<'_>],
        live_to: u64,
        event: Option<EncodedEvent<'_>>,
    ) -> Result<()> {
        if columns.is_empty() {
            return match event {
                Some((record, entities)) => self.segment_to_append(side)?.append_event(record, entities),
                None => Ok(()),
            };
        }
        let mut sorted: Vec<&BulkColumn<'_>> = columns.iter().collect();
        sorted.sort_by_key(|c| c.series.number);
        let all: Vec<Axis<'_>> =
            sorted.iter().map(|c| Axis { steps: c.steps, timestamps_ms: c.timestamps_ms }).collect();
        let shared = share_axes(&all);
        let axes: Vec<Axis<'_>> = shared.axes.iter().filter_map(|&i| all.get(i).copied()).collect();
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        let mut inputs = Vec::with_capacity(sorted.len());
        for (column, &axis) in sorted.iter().zip(&shared.of_series) {
            let number = column.series.number;
            let known =
                *next.entry(number).or_insert_with(|| side.ordinals.get(&number).copied().unwrap_or(0));
            let first_ordinal = column.first_ordinal.unwrap_or(known);
            next.insert(number, known.max(first_ordinal + column.values.len() as u64));
            inputs.push(BatchColumn {
                declaration: column.series,
                first_ordinal,
                axis,
                values: column.values,
                extras: column.extras,
            });
        }
        let segment = self.segment_to_append(side)?;
        match event {
            Some((record, entities)) => {
                segment.append_batch_and_event(&axes, &inputs, live_to, record, entities)?
            }
            None => segment.append_batch(&axes, &inputs, live_to)?,
        }
        // Columns of other origins state theirs.
        let own = Origin::from(self.id);
        let foreign = |c: &&BulkColumn<'_>| c.series.origin != own && c.first_ordinal.is_some();
        columns.iter().filter(foreign).for_each(|column| {
            next.remove(&column.series.number);
        });
        side.ordinals.extend(next);
        Ok(())
    }

    /// Moves the points that wait now into batches; not those that come meanwhile, or it might never end. Their blocks
    /// are given back by [`Shared::release_handed`].
    pub(super) fn hand_over(&self, side: &mut SegmentSide) -> Result<()> {
        let Some(live) = self.live.get() else { return Ok(()) };
        let end = live.waiting().to;
        loop {
            let waiting = live.waiting();
            let to = end.min(waiting.from + HANDOVER_RECORDS_MAX);
            if waiting.from >= to {
                return Ok(());
            }
            self.append_waiting(side, &waiting, to)?;
            live.hand(to);
        }
    }

    /// The same while nobody can log: then all is handed over, and there is room for one record.
    pub(super) fn hand_over_held(
        &self,
        side: &mut SegmentSide,
        live: &LiveWriter,
        held: &Held<'_>,
    ) -> Result<()> {
        loop {
            let waiting = live.waiting();
            let to = waiting.to.min(waiting.from + HANDOVER_RECORDS_MAX);
            if waiting.from < to {
                self.append_waiting(side, &waiting, to)?;
                live.hand(to);
            }
            if to == waiting.to {
                break;
            }
        }
        match live.releasable() {
            // Nothing of it was synced, so nothing has to be synced first.
            Some((to, false)) => live.release(to)?,
            Some((to, true)) if !live.has_room(held)? => {
                if let Some(segment) = side.segment.as_mut() {
                    segment.sync()?;
                }
                live.release(to)?;
            }
            _ => {}
        }
        // What was just released is room.
        live.has_room(held)?;
        Ok(())
    }

    /// Gives the blocks of points back that are in frames. If any of them was synced here, the frames are synced first,
    /// without a lock.
    pub(super) fn release_handed(&self) -> Result<()> {
        let Some(live) = self.live.get() else { return Ok(()) };
        let Some((to, sync_first)) = live.releasable() else { return Ok(()) };
        if sync_first {
            self.sync_segments()?;
        }
        let _side = lock(&self.side);
        match live.releasable() {
            // A bulk append may have been here first.
            Some((now, _)) if now >= to => live.release(to),
            _ => Ok(()),
        }
    }

    pub(super) fn append_waiting(&self, side: &mut SegmentSide, waiting: &Waiting, to: u64) -> Result<()> {
        let mut by_number: BTreeMap<u32, Points> = BTreeMap::new();
        waiting.for_each(to, &mut |number, point| by_number.entry(number).or_default().push(point));
        let numbers = self.numbers(by_number.keys().copied());
        let mut columns = Vec::with_capacity(by_number.len());
        for (number, points) in &by_number {
            let Some(series) = numbers.get(number) else { continue };
            let chunks =
                points.steps.chunks(COLUMN_POINTS_MAX).zip(points.timestamps_ms.chunks(COLUMN_POINTS_MAX));
            for ((steps, timestamps_ms), values) in chunks.zip(points.values.chunks(COLUMN_POINTS_MAX)) {
                columns.push(BulkColumn {
                    series,
                    first_ordinal: None,
                    steps,
                    timestamps_ms,
                    values,
                    extras: &[],
                });
            }
        }
        self.append(side, &columns, to, None)?;
        side.sync_first = waiting.is_synced;
        Ok(())
    }

    pub(super) fn numbers(&self, wanted: impl Iterator<Item = u32>) -> HashMap<u32, SeriesNumber> {
        let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
        wanted.filter_map(|number| Some((number, Arc::clone(all.by_number.get(&number)?)))).collect()
    }

    pub(super) fn finish(&self) -> Result<()> {
        self.check()?;
        {
            let mut side = lock(&self.side);
            if let Some(live) = self.live.get() {
                // First of all, so that no acknowledged point stays behind in the file that is removed below.
                live.end();
            }
            let result = self.hand_over(&mut side).and_then(|()| self.roll(&mut side, true));
            self.noted(result)?;
            // Before the lock is free, so that nobody begins a segment behind the last one.
            let _ = self.poison.set(CLOSED.into());
        }
        self.tell_begun(None);
        if let Some(live) = self.live.get() {
            // Its points are in segments that were synced when they were closed.
            live.remove(self.vfs.as_ref())?;
            self.vfs.sync_dir(&self.live_dir).map_err(|e| Error::failed_sync(&self.live_dir, e))?;
        }
        self.seal_closed()
    }
}
