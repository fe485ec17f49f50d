//! The writing side of one process: live file, segments, and the thread that moves points from one to the other.
//!
//! Contract: a logged point is in the live file when the call returns; an event is in the segment. Order of durability:
//! directory entry once per new file, segment before live file, removal last. A full disk is an error of the call that
//! needed space and nothing else; a failed sync or write error stops the handle for good ([`Error::Poisoned`]).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::codec::Compression;
use crate::codec::axis::Axis;
use crate::codec::extra::Extra;
use crate::error::{Error, Result};
use crate::format::batch::share_axes;
use crate::format::blob::{encode_chunk, encode_manifest, encode_whole};
use crate::format::declare::{Declaration, SeriesKey};
use crate::format::event::{EntityKind, Event};
use crate::format::event_record::{encode_event, entities_of};
use crate::format::live::LiveHeader;
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::id::{BlobId, Origin, SegmentId, StoreId, Uid, WriterId};
use crate::limits::{
    BLOB_CHUNK_BYTES_MAX, COLUMN_POINTS_MAX, HANDOVER_POINTS, LIVE_BYTES_MAX, SEGMENT_BYTES_MAX,
};
use crate::log::live_writer::{Held, LiveWriter};
use crate::log::seal::seal_segment;
use crate::log::segment_writer::{BatchColumn, SegmentWriter};
use crate::log::{LIVE_DIR, LOG_DIR};
use crate::model::{Point, Points};
use crate::vfs::{FileSystem, Vfs, process};

/// Most records handed over in one batch, so that it never has too many columns.
const HANDOVER_RECORDS_MAX: u64 = 64 * 1024;
/// Why a closed writer refuses.
pub(super) const CLOSED: &str = "the store was closed";
/// How long a drop waits for the thread before it leaves it behind.
const DROP_PATIENCE: Duration = Duration::from_millis(500);

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
    /// Map the live file where the file system allows it.
    pub shared_mapping: bool,
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
            shared_mapping: true,
            compression: Compression::Zstd,
        }
    }
}

/// An encoded event, and the entities it touches.
type EncodedEvent<'a> = (&'a [u8], &'a [(EntityKind, Uid)]);

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

/// The segment side: everything behind one lock, which no logging call takes.
#[derive(Debug, Default)]
struct SegmentSide {
    segment: Option<SegmentWriter>,
    blobs: Option<SegmentWriter>,
    next_number: u64,
    predecessor: (SegmentId, u64),
    /// Next ordinal by series number.
    ordinals: HashMap<u32, u64>,
    /// Closed segments that may be worth sealing.
    closed: Vec<PathBuf>,
    record: Vec<u8>,
}

#[derive(Debug, Default)]
struct Signal {
    stop: bool,
    hand_over: bool,
}

#[derive(Debug)]
struct Shared {
    vfs: Arc<dyn Vfs>,
    log_dir: PathBuf,
    live_dir: PathBuf,
    id: WriterId,
    store: StoreId,
    options: WriterOptions,
    live: OnceLock<LiveWriter>,
    live_begin: Mutex<()>,
    series: RwLock<HashMap<(SeriesKey, Origin), SeriesNumber>>,
    side: Mutex<SegmentSide>,
    poison: OnceLock<String>,
    signal: Mutex<Signal>,
    woken: Condvar,
    /// Set by the thread when it has ended.
    ended: AtomicBool,
}

/// Writes to a store's log. Clones of a store share one.
#[derive(Debug)]
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    closed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under a lock leaves data that is still consistent: state advances only after a write succeeded.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogWriter {
    /// A writer with a new random id. Creates no file until there is something to write.
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        root: &Path,
        store: StoreId,
        options: WriterOptions,
    ) -> Result<Self> {
        let shared = Shared {
            log_dir: root.join(LOG_DIR),
            live_dir: root.join(LIVE_DIR),
            vfs,
            id: WriterId::random()?,
            store,
            options,
            live: OnceLock::new(),
            live_begin: Mutex::new(()),
            series: RwLock::default(),
            side: Mutex::default(),
            poison: OnceLock::new(),
            signal: Mutex::default(),
            woken: Condvar::new(),
            ended: AtomicBool::new(true),
        };
        Ok(Self { shared: Arc::new(shared), thread: Mutex::new(None), closed: AtomicBool::new(false) })
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
        let known = self.shared.series.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let mut all = self.shared.series.write().unwrap_or_else(PoisonError::into_inner);
        let next =
            u32::try_from(all.len()).map_err(|_| Error::invalid("more than 2^32 series in one process"))?;
        let number = all.entry(key).or_insert_with_key(|(series, origin)| {
            Arc::new(Declaration {
                number: next,
                series: series.clone(),
                origin: *origin,
                attributes: Vec::new(),
            })
        });
        Ok(Arc::clone(number))
    }

    /// Logs points in order, all of this writer's own series.
    pub(crate) fn log(&self, points: &[(&SeriesNumber, Point)]) -> Result<()> {
        let shared = &self.shared;
        shared.check()?;
        let live = self.live()?;
        let waiting = shared.noted(live.log(points, &|| shared.wake()))?;
        if waiting >= HANDOVER_POINTS as u64 && waiting % 1024 < points.len() as u64 {
            shared.wake();
        }
        if shared.options.sync_always { self.sync() } else { Ok(()) }
    }

    fn live(&self) -> Result<&LiveWriter> {
        if let Some(live) = self.shared.live.get() {
            return Ok(live);
        }
        let _one = lock(&self.shared.live_begin);
        if self.shared.live.get().is_none() {
            let live = self.shared.begin_live()?;
            let _ = self.shared.live.set(live);
            self.start_thread()?;
        }
        self.shared.live.get().ok_or_else(|| Error::invalid("the live file could not be begun"))
    }

    fn start_thread(&self) -> Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            shared.ended.store(false, Ordering::Release);
            let spawned = std::thread::Builder::new().name("mlrs-db-log".into()).spawn(move || {
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
        if self.shared.options.sync_always { self.sync() } else { self.start_thread() }
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
        // Without a live file, none is begun meanwhile.
        let _none = (is_own && shared.live.get().is_none()).then(|| lock(&shared.live_begin));
        let live = shared.live.get().filter(|_| is_own);
        let mut held = live.map(LiveWriter::hold);
        let mut live_to = 0;
        if let (Some(live), Some(held)) = (live, held.as_mut()) {
            live_to = shared.hand_over_held(side, live, held)?;
        }
        shared.append(side, columns, live_to, event)
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
        if shared.options.sync_always { self.sync() } else { self.start_thread() }
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
            std::thread::sleep(Duration::from_micros(200));
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

impl Shared {
    fn check(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
        }
    }

    /// A full disk or a broken rule passes; any other I/O error ends the handle.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error @ Error::Io { .. }) = &result {
            let _ = self.poison.set(error.to_string());
        }
        result
    }

    fn wake(&self) {
        lock(&self.signal).hand_over = true;
        self.woken.notify_all();
    }

    /// A store is made with its folders; a copy of one may lack some.
    fn ensure_folder(&self, folder: &Path) -> Result<()> {
        if self.vfs.metadata(folder).is_ok() {
            return Ok(());
        }
        self.vfs.create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let parent = folder.parent().unwrap_or(Path::new("."));
        self.vfs.sync_dir(parent).map_err(|e| Error::failed_sync(parent, e))
    }

    fn begin_live(&self) -> Result<LiveWriter> {
        self.ensure_folder(&self.live_dir)?;
        let header = LiveHeader {
            writer: self.id,
            store: self.store,
            boot: process::boot_id(),
            pid: u64::from(process::pid()),
            created_ms: process::now_ms(),
            host: process::host_name(),
        };
        let mappable = self.vfs.file_system(&self.live_dir) == FileSystem::Mappable;
        let shared_mapping = self.options.shared_mapping && mappable;
        let (bytes_max, stall) = (self.options.live_bytes_max, self.options.stall_timeout);
        LiveWriter::create(self.vfs.as_ref(), &self.live_dir, &header, shared_mapping, bytes_max, stall)
    }

    fn begin(&self, side: &mut SegmentSide, kind: SegmentKind) -> Result<SegmentWriter> {
        self.ensure_folder(&self.log_dir)?;
        let (predecessor, predecessor_len) = side.predecessor;
        let header = SegmentHeader {
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

    fn segment<'a>(&self, side: &'a mut SegmentSide) -> Result<&'a mut SegmentWriter> {
        let segment = match side.segment.take() {
            Some(segment) => segment,
            None => self.begin(side, SegmentKind::Log)?,
        };
        Ok(side.segment.insert(segment))
    }

    fn blob_segment<'a>(&self, side: &'a mut SegmentSide) -> Result<&'a mut SegmentWriter> {
        let segment = match side.blobs.take() {
            Some(segment) => segment,
            None => self.begin(side, SegmentKind::Blobs)?,
        };
        Ok(side.blobs.insert(segment))
    }

    /// Closes segments that are long enough, or all of them.
    fn roll(&self, side: &mut SegmentSide, all: bool) -> Result<()> {
        let due = |s: &mut SegmentWriter| all || s.len() >= self.options.segment_bytes_max;
        if let Some(mut segment) = side.segment.take_if(due) {
            let closed = segment.finish().and_then(|()| segment.sync());
            if let Err(error) = closed {
                // A full disk: it stays open and is closed later. The footer was not written.
                side.segment = Some(segment);
                return self.noted(Err(error));
            }
            side.predecessor = (segment.header().id, segment.len());
            side.closed.push(segment.path().to_path_buf());
        }
        if let Some(mut blobs) = side.blobs.take_if(due) {
            let closed = blobs.finish().and_then(|()| blobs.sync());
            if let Err(error) = closed {
                side.blobs = Some(blobs);
                return self.noted(Err(error));
            }
        }
        Ok(())
    }

    /// Closes segments that are long enough. What was just appended is in the log whatever becomes of this: a full disk
    /// is tried again later, anything worse is for the next call.
    fn roll_if_due(&self, side: &mut SegmentSide) {
        let _ = self.roll(side, false);
    }

    /// Appends columns, or an event, or both as a group.
    fn append(
        &self,
        side: &mut SegmentSide,
        columns: &[BulkColumn<'_>],
        live_to: u64,
        event: Option<EncodedEvent<'_>>,
    ) -> Result<()> {
        if columns.is_empty() {
            return match event {
                Some((record, entities)) => self.segment(side)?.append_event(record, entities),
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
        let segment = self.segment(side)?;
        match event {
            Some((record, entities)) => {
                segment.append_batch_and_event(&axes, &inputs, live_to, record, entities)?
            }
            None => segment.append_batch(&axes, &inputs, live_to)?,
        }
        side.ordinals.extend(next);
        Ok(())
    }

    /// Moves the points that wait now into batches; not those that come meanwhile, or it might never end.
    fn hand_over(&self, side: &mut SegmentSide) -> Result<()> {
        let Some(live) = self.live.get() else { return Ok(()) };
        let end = live.waiting(&live.hold()).to;
        loop {
            let waiting = live.waiting(&live.hold());
            let to = end.min(waiting.from + HANDOVER_RECORDS_MAX);
            if waiting.from >= to {
                return Ok(());
            }
            self.append_waiting(side, &waiting, to)?;
            live.release(&mut live.hold(), to)?;
        }
    }

    /// The same while nobody can log; returns the sequence up to which all is covered.
    fn hand_over_held(&self, side: &mut SegmentSide, live: &LiveWriter, held: &mut Held<'_>) -> Result<u64> {
        loop {
            let waiting = live.waiting(held);
            let to = waiting.to.min(waiting.from + HANDOVER_RECORDS_MAX);
            if waiting.from < to {
                self.append_waiting(side, &waiting, to)?;
                live.release(held, to)?;
            }
            if to == waiting.to {
                return Ok(to);
            }
        }
    }

    fn append_waiting(
        &self,
        side: &mut SegmentSide,
        waiting: &crate::log::live_writer::Waiting,
        to: u64,
    ) -> Result<()> {
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
        if waiting.was_synced
            && let Some(segment) = side.segment.as_mut()
        {
            segment.sync()?;
        }
        Ok(())
    }

    fn numbers(&self, wanted: impl Iterator<Item = u32>) -> HashMap<u32, SeriesNumber> {
        let wanted: std::collections::HashSet<u32> = wanted.collect();
        let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|d| wanted.contains(&d.number)).map(|d| (d.number, Arc::clone(d))).collect()
    }

    fn put_blob(&self, side: &mut SegmentSide, source: &mut dyn std::io::Read) -> Result<(BlobId, u64)> {
        let mut hasher = blake3::Hasher::new();
        let mut len = 0u64;
        let mut chunks = Vec::new();
        let mut payload = Vec::new();
        let mut buffer = vec![0u8; BLOB_CHUNK_BYTES_MAX];
        let mut ready = fill(source, &mut buffer)?;
        loop {
            let bytes = buffer.get(..ready).unwrap_or_default();
            hasher.update(bytes);
            len += ready as u64;
            payload.clear();
            if ready < BLOB_CHUNK_BYTES_MAX && chunks.is_empty() {
                let id = blob_id(&hasher);
                encode_whole(id, bytes, &mut payload);
                self.blob_segment(side)?.append_blob(&payload, Some(id))?;
                return Ok((id, len));
            }
            if ready > 0 {
                encode_chunk(bytes, &mut payload);
                chunks.push(self.blob_segment(side)?.append_blob(&payload, None)?);
            }
            if ready < BLOB_CHUNK_BYTES_MAX {
                let id = blob_id(&hasher);
                payload.clear();
                encode_manifest(id, len, &chunks, &mut payload);
                self.blob_segment(side)?.append_blob(&payload, Some(id))?;
                return Ok((id, len));
            }
            ready = fill(source, &mut buffer)?;
        }
    }

    fn sync_all(&self) -> Result<()> {
        let mut side = lock(&self.side);
        // Both are looked at before an error is told: what was written stays with its writer.
        let blobs = side.blobs.as_mut().map_or(Ok(()), SegmentWriter::sync);
        let segment = side.segment.as_mut().map_or(Ok(()), SegmentWriter::sync);
        self.noted(blobs.and(segment))?;
        drop(side);
        match self.live.get() {
            Some(live) if live.is_dirty() => self.noted(live.sync()),
            _ => Ok(()),
        }
    }

    /// The background thread.
    fn run(&self) {
        let mut last_sync = Instant::now();
        let mut last_flush = Instant::now();
        loop {
            let (stop, asked) = {
                let signal = lock(&self.signal);
                let wait = |s: &mut Signal| !s.stop && !s.hand_over;
                let pause = self.options.sync_interval;
                let waited = self.woken.wait_timeout_while(signal, pause, wait);
                let mut signal = waited.unwrap_or_else(PoisonError::into_inner).0;
                (signal.stop, std::mem::take(&mut signal.hand_over))
            };
            if stop {
                return;
            }
            if self.poison.get().is_some() {
                // Nothing can be written any more; logging calls say so themselves.
                continue;
            }
            if asked || last_flush.elapsed() >= self.options.flush_interval {
                let mut side = lock(&self.side);
                let moved = self.hand_over(&mut side).and_then(|()| self.roll(&mut side, false));
                // A full disk: the points stay in the live file and the next round tries again.
                let _ = self.noted(moved);
                last_flush = Instant::now();
            }
            if last_sync.elapsed() >= self.options.sync_interval {
                let _ = self.sync_all();
                last_sync = Instant::now();
            }
            if let Some(live) = self.live.get() {
                let _ = self.noted(live.provide());
            }
            let _ = self.noted(self.seal_closed());
        }
    }

    fn seal_closed(&self) -> Result<()> {
        let closed = std::mem::take(&mut lock(&self.side).closed);
        for path in closed {
            seal_segment(&self.vfs, &path, self.options.compression)?;
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
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
        if let Some(live) = self.live.get() {
            // Its points are in segments that were synced when they were closed.
            live.remove(self.vfs.as_ref())?;
            self.vfs.sync_dir(&self.live_dir).map_err(|e| Error::failed_sync(&self.live_dir, e))?;
        }
        self.seal_closed()
    }
}

fn fill(source: &mut dyn std::io::Read, buffer: &mut [u8]) -> Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match source.read(buffer.get_mut(at..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::InvalidArgument(format!("cannot read the source of a blob: {e}"))),
        }
    }
    Ok(at)
}

/// The content address of bytes.
pub(crate) fn blob_address(bytes: &[u8]) -> BlobId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    blob_id(&hasher)
}

fn blob_id(hasher: &blake3::Hasher) -> BlobId {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    BlobId::from_bytes(bytes)
}
