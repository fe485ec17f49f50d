//! The writing side of one process: live file, segments, and the thread that moves points from one to the other.
//!
//! Contract: a logged point is in the live file when the call returns; an event is in the segment. Order of durability:
//! directory entry once per new file, segment before live file, removal last. A full disk is an error of the call that
//! needed space and nothing else; a failed sync or write error stops the handle for good ([`Error::Poisoned`]).

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::codec::Compression;
use crate::codec::extra::Extra;
use crate::error::{Error, Result};
use crate::format::declare::{Declaration, SeriesKey};
use crate::format::event::{EntityKind, Event};
use crate::format::event_record::{encode_event, entities_of};
use crate::id::{BlobId, Origin, StoreId, Uid, WriterId};
use crate::limits::{HANDOVER_POINTS, LIVE_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::log::live_writer::{LiveWriter, Logged};
use crate::log::medium::Medium;
use crate::log::sync_gate::SyncGate;
use crate::log::writer_state::{SegmentSide, Shared, lock};
use crate::log::{LIVE_DIR, LOG_DIR};
use crate::model::Point;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, OnceLock, RwLock};
use crate::vfs::Vfs;

/// Why a closed writer refuses.
pub(super) const CLOSED: &str = "the store was closed";
/// How long a drop waits for the thread before it leaves it behind.
const DROP_PATIENCE: Duration = Duration::from_millis(if cfg!(all(test, loom)) { 3_600_000 } else { 500 });

/// How a writer works.
#[derive(Clone, Debug)]
pub(crate) struct WriterOptions {
    /// Sync before every call returns.
    pub sync_always: bool,
    /// Points older than this are handed over.
    pub flush_interval: Duration,
    /// The background sync; a power cut costs about this much.
    pub sync_interval: Duration,
    /// The live file grows to this.
    pub live_bytes_max: u64,
    /// How long a logging call waits for the disk before it returns `Busy`.
    pub stall_timeout: Duration,
    /// Segments are closed and sealed at this size.
    pub segment_bytes_max: u64,
    /// What the file system is trusted with.
    pub medium: Medium,
    /// Whether value columns go through zstd.
    pub compression: Compression,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            sync_always: false,
            flush_interval: Duration::from_secs(60),
            sync_interval: Duration::from_secs(1),
            live_bytes_max: LIVE_BYTES_MAX,
            stall_timeout: Duration::from_secs(10),
            segment_bytes_max: SEGMENT_BYTES_MAX,
            medium: Medium::Mapped,
            compression: Compression::Zstd,
        }
    }
}

/// An encoded event, and the entities it touches.
pub(super) type EncodedEvent<'a> = (&'a [u8], &'a [(EntityKind, Uid)]);

/// A series as this writer numbers it.
pub(crate) type SeriesNumber = Arc<Declaration>;

/// One column of a bulk append.
#[derive(Clone, Debug)]
pub(crate) struct BulkColumn<'a> {
    pub series: &'a SeriesNumber,
    /// Ordinal of the first point; `None`: the next one of this writer.
    pub first_ordinal: Option<u64>,
    pub steps: &'a [i64],
    pub timestamps_ms: &'a [i64],
    pub values: &'a [f64],
    pub extras: &'a [Extra],
}

/// Writes to a store's log. Clones of a store share one.
#[derive(Debug)]
pub(crate) struct LogWriter {
    pub(super) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    closed: AtomicBool,
}

impl LogWriter {
    /// A writer; `id` is random and nobody else's. Creates no file until there is something to write.
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        root: &Path,
        store: StoreId,
        id: WriterId,
        options: WriterOptions,
    ) -> Self {
        let shared = Shared {
            log_dir: root.join(LOG_DIR),
            live_dir: root.join(LIVE_DIR),
            vfs,
            id,
            store,
            options,
            live: OnceLock::new(),
            live_begin: Mutex::new(0),
            begin_error: Mutex::new(None),
            begun: Condvar::new(),
            series: RwLock::default(),
            series_count: AtomicU64::new(0),
            side: Mutex::default(),
            syncs: SyncGate::default(),
            poison: OnceLock::new(),
            signal: Mutex::default(),
            woken: Condvar::new(),
            ended: AtomicBool::new(true),
        };
        Self { shared: Arc::new(shared), thread: Mutex::new(None), closed: AtomicBool::new(false) }
    }

    /// The same writer, refusing every call because of `error`.
    pub(crate) fn refusing(self, error: &Error) -> Self {
        let _ = self.shared.poison.set(error.to_string());
        self
    }

    pub(crate) fn id(&self) -> WriterId {
        self.shared.id
    }

    /// The number of a series logged by this writer.
    pub(crate) fn series(&self, series: &SeriesKey) -> Result<SeriesNumber> {
        self.series_of(series, Origin::from(self.shared.id))
    }

    /// The number of a series with points of another origin (an import, a recovery).
    pub(crate) fn series_of(&self, series: &SeriesKey, origin: Origin) -> Result<SeriesNumber> {
        let key = (series.clone(), origin);
        let all = self.shared.series.read().unwrap_or_else(PoisonError::into_inner);
        let known = all.by_key.get(&key).cloned();
        drop(all);
        if let Some(known) = known {
            return Ok(known);
        }
        let mut all = self.shared.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.by_key.get(&key) {
            return Ok(Arc::clone(known));
        }
        let number = self.unlisted_series(series, origin)?;
        all.by_number.insert(number.number, Arc::clone(&number));
        all.by_key.insert(key, Arc::clone(&number));
        Ok(number)
    }

    /// A number for a series of another origin that only the caller remembers: another number the next time. So what
    /// passes through, as the runs of an import, leaves nothing in memory. Its columns state their first ordinals.
    pub(crate) fn unlisted_series(&self, series: &SeriesKey, origin: Origin) -> Result<SeriesNumber> {
        let next = |known: u64| (known <= u64::from(u32::MAX)).then_some(known + 1);
        let number = self.shared.series_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let number = number.ok().and_then(|number| u32::try_from(number).ok());
        let number = number.ok_or_else(|| Error::invalid("more than 2^32 series in one process"))?;
        Ok(Arc::new(Declaration { number, series: series.clone(), origin, attributes: Vec::new() }))
    }

    /// Logs a point of one of this writer's own series.
    #[inline]
    pub(crate) fn log_one(&self, series: &SeriesNumber, point: Point) -> Result<()> {
        let shared = &self.shared;
        shared.check()?;
        match self.live()?.log_one(series, point, &|| shared.wake()) {
            Ok(logged) => self.logged(logged, 1),
            Err(error) => shared.noted(Err(error)),
        }
    }

    /// Logs points in order, all of this writer's own series.
    pub(crate) fn log(&self, points: &[(&SeriesNumber, Point)]) -> Result<()> {
        let shared = &self.shared;
        shared.check()?;
        let logged = shared.noted(self.live()?.log(points, &|| shared.wake()))?;
        self.logged(logged, points.len())
    }

    /// What follows a log call: a hand-over where it is due, and the sync where every call promises it.
    #[inline]
    fn logged(&self, logged: Logged, points: usize) -> Result<()> {
        // Once in a while, not at every point.
        let is_due = logged.is_tight || logged.waiting >= HANDOVER_POINTS as u64;
        if is_due && logged.waiting % 1024 < points as u64 {
            self.shared.wake();
        }
        self.sync_if_always()
    }

    fn live(&self) -> Result<&LiveWriter> {
        if let Some(live) = self.shared.live.get() {
            return Ok(live);
        }
        self.start_thread()?;
        self.shared.live_begun()
    }

    pub(super) fn start_thread(&self) -> Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            shared.ended.store(false, Ordering::Release);
            let spawned = thread::Builder::new().name("mlrs-db-log".into()).spawn(move || {
                shared.run();
                shared.ended.store(true, Ordering::Release);
            });
            *thread = Some(
                spawned.map_err(|e| Error::io("start the background thread of", &self.shared.log_dir, e))?,
            );
        }
        Ok(())
    }

    /// Appends an event and columns of this writer's own series in one write: all of it is in the log or nothing.
    /// Nothing is synced; [`LogWriter::sync_if_always`] comes next, when the caller has let go of its locks.
    pub(crate) fn append_event_with(&self, event: &Event, columns: &[BulkColumn<'_>]) -> Result<()> {
        {
            let mut side = self.open_side()?;
            let mut record = std::mem::take(&mut side.record);
            record.clear();
            let appended = encode_event(event, &mut record).and_then(|()| {
                let entities: Vec<(EntityKind, Uid)> = entities_of(&event.operations);
                self.append_with_held(&mut side, columns, Some((&record, &entities)))
            });
            side.record = record;
            self.shared.noted(appended)?;
            self.shared.roll_if_due(&mut side);
        }
        self.start_thread()
    }

    /// Syncs if that is what every call promises.
    #[inline]
    pub(crate) fn sync_if_always(&self) -> Result<()> {
        if self.shared.options.sync_always { self.sync() } else { Ok(()) }
    }

    /// The segment side of a writer that is neither closed nor poisoned, which it stays while this is held.
    fn open_side(&self) -> Result<MutexGuard<'_, SegmentSide>> {
        let side = lock(&self.shared.side);
        self.shared.check()?;
        Ok(side)
    }

    /// Points that were logged before come first; while the columns go in, nobody logs: a point logged meanwhile would
    /// get an ordinal before them and change it.
    fn append_with_held(
        &self,
        side: &mut SegmentSide,
        columns: &[BulkColumn<'_>],
        event: Option<EncodedEvent<'_>>,
    ) -> Result<()> {
        let shared = &self.shared;
        let own = Origin::from(shared.id);
        let is_own = columns.iter().any(|c| c.series.origin == own);
        // Most of it, and its sync, while others still log.
        if is_own {
            shared.hand_over(side)?;
            shared.segment_to_append(side)?;
        }
        // Without a live file, none is begun meanwhile.
        let mut none = (is_own && shared.live.get().is_none()).then(|| lock(&shared.live_begin));
        let live = shared.live.get().filter(|_| is_own);
        let held = live.map(LiveWriter::hold);
        // The columns take a number of their own among the live records, see `format::live`.
        let mut live_to = none.as_ref().map_or(0, |bulk_appends| **bulk_appends + 1);
        if let (Some(live), Some(held)) = (live, held.as_ref()) {
            shared.hand_over_held(side, live, held)?;
            live_to = live.next_sequence(held) + 1;
        }
        shared.append(side, columns, live_to, event)?;
        match (live, held.as_ref(), none.as_mut()) {
            (Some(live), Some(held), _) => live.burn(held),
            (_, _, Some(bulk_appends)) => **bulk_appends += 1,
            _ => {}
        }
        Ok(())
    }

    /// Appends columns as they are, behind the points that were logged before. Columns of at most
    /// [`COLUMN_POINTS_MAX`] points; one batch.
    pub(crate) fn append_columns(&self, columns: &[BulkColumn<'_>]) -> Result<()> {
        let shared = &self.shared;
        {
            let mut side = self.open_side()?;
            let appended = self.append_with_held(&mut side, columns, None);
            shared.noted(appended)?;
            shared.roll_if_due(&mut side);
        }
        self.start_thread()?;
        self.sync_if_always()
    }

    /// Streams a blob into the log; returns its id and length. What is stored already is not written again by the
    /// caller: ask [`crate::log::View::has_blob`] first where the id is known.
    pub(crate) fn put_blob(&self, source: &mut dyn std::io::Read) -> Result<(BlobId, u64)> {
        let mut side = self.open_side()?;
        let put = self.shared.put_blob(&mut side, source);
        let put = self.shared.noted(put)?;
        self.shared.roll_if_due(&mut side);
        Ok(put)
    }

    /// Makes everything durable that was logged before the call: segment first, then live file.
    pub(crate) fn sync(&self) -> Result<()> {
        self.shared.check()?;
        self.shared.sync_all()
    }

    /// Hands over, closes and seals the segments, removes the live file. Further calls fail. Returns whether this call
    /// closed something that was written.
    pub(crate) fn close(&self) -> Result<bool> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(false);
        }
        self.stop_thread();
        let wrote = lock(&self.shared.side).next_number > 0 || self.shared.live.get().is_some();
        let result = self.shared.finish();
        let _ = self.shared.poison.set(CLOSED.into());
        result.map(|()| wrote)
    }

    /// Ends the thread; one that hangs in a system call is left behind after half a second rather than hang the caller.
    fn stop_thread(&self) {
        lock(&self.shared.signal).stop = true;
        self.shared.woken.notify_all();
        let Some(thread) = lock(&self.thread).take() else { return };
        let deadline = Instant::now() + DROP_PATIENCE;
        // While it works (a long hand-over, a sealing) it makes progress under the segment lock; waiting is right then.
        while !self.shared.ended.load(Ordering::Acquire)
            && (Instant::now() < deadline || self.shared.side.try_lock().is_err())
        {
            thread::sleep(Duration::from_micros(200));
        }
        if self.shared.ended.load(Ordering::Acquire) {
            let _ = thread.join();
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // Errors are for `Store::close`; what is in the live file is recovered by the next writer.
        let _ = self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Stamp;
    use crate::log::reader::LogReader;
    use crate::log::recover::covers_live;
    use crate::vfs::power::Keep;
    use crate::vfs::{FaultVfs, MemoryVfs};

    /// A number that is missing makes what is live wait for it.
    #[test]
    fn a_power_cut_leaves_no_segment_whose_predecessor_is_missing_or_shorter_than_it_says() {
        let vfs = FaultVfs::with_power_model(MemoryVfs::new()).unwrap();
        let id = WriterId::from_bytes([5; 16]);
        let options = WriterOptions { medium: Medium::Plain, ..WriterOptions::default() };
        let root = Path::new("store");
        let stamp = Stamp { millis: 1, counter: 0, writer: id };
        for blob_first in [true, false] {
            let writer = LogWriter::new(Arc::new(vfs.clone()), root, StoreId::default(), id, options.clone());
            let put_blob = || writer.put_blob(&mut b"a trace".as_slice()).map(drop);
            let log_event = || writer.append_event_with(&covers_live(stamp, id, 0), &[]);
            if blob_first { put_blob() } else { log_event() }.unwrap();
            if blob_first { log_event() } else { put_blob() }.unwrap();
            let disk = vfs.disk();
            assert!(disk.pending().len() > 1);
            for lost in 0..disk.pending().len() {
                let image = disk.after_crash(|n, _| if n == lost { Keep::Lost } else { Keep::Whole });
                let view = LogReader::new(Arc::new(image), root).refresh().unwrap();
                assert!(!view.is_cut(id).unwrap(), "without {}", disk.pending()[lost]);
            }
            writer.close().unwrap();
            let names: Vec<_> = vfs.list(&root.join(LOG_DIR)).unwrap();
            names.iter().for_each(|entry| vfs.remove_file(&root.join(LOG_DIR).join(&entry.name)).unwrap());
            vfs.sync_dir(&root.join(LOG_DIR)).unwrap();
        }
    }
}
