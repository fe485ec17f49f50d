//! Appending to one's own segment.
//!
//! Contract: one frame group per call, one `pwrite` per group; state advances only when the write succeeded, so after a
//! full disk the same group is written again at the same offset. A directory frame closes every 4 MiB, 1024 columns
//! or 256 Ki points, and a series is declared again after each, so that every such interval can be read by itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::Compression;
use crate::codec::axis::Axis;
use crate::codec::extra::Extra;
use crate::codec::summary::Summary;
use crate::error::{Error, Result};
use crate::format::batch::{self, ColumnInput, Scratch};
use crate::format::blob::BLOB_ENTITY;
use crate::format::declare::{Declaration, encode_declarations};
use crate::format::directory::{Directory, EntityEntry, Extent, FrameEntry, Posting, SeriesEntry};
use crate::format::event::EntityKind;
use crate::format::frame::{FLAG_GROUPED, FRAME_HEADER_BYTES, FrameKind, finish_frame, frame_seed};
use crate::format::live::{BATCH_PREFIX_BYTES, encode_batch_prefix};
use crate::format::segment::{
    FOOTER_FRAME_BYTES, Footer, Replaced, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind, encode_replaced,
};
use crate::id::{BlobId, Uid};
use crate::limits::{
    DIRECTORY_INTERVAL_BYTES, DIRECTORY_INTERVAL_COLUMNS, DIRECTORY_INTERVAL_POINTS, SUMMARY_POINTS_MIN,
};
use crate::log::segment_path;
use crate::vfs::{HeldLock, OpenMode, Vfs, VfsFile};

/// Garbage is covered by frames of this size at most.
const FILLER_BYTES_MAX: usize = 1024 * 1024;
/// About what a series takes in a directory, and where it is declared again.
const SERIES_ENTRY_BYTES: u64 = 160;
/// Directories that come early for the number of columns take at most this part of the log.
const EARLY_DIRECTORY_SHARE: u64 = 16;
/// Columns of this many points are not put together with others later, so they get their final form at once.
const COMPRESSED_POINTS_MIN: usize = 2048;
/// Those that come early for the number of points have at least so many for each series, however little these take: a
/// fifth of a byte a point, until the segment is sealed.
const ENTRY_POINTS_MIN: u64 = 512;

/// One column to append.
#[derive(Clone, Debug)]
pub(crate) struct BatchColumn<'a> {
    pub declaration: &'a Arc<Declaration>,
    pub first_ordinal: u64,
    pub axis: usize,
    pub values: &'a [f64],
    pub extras: &'a [Extra],
}

/// Consecutive points of a series as far as the next directory will cover them.
#[derive(Debug)]
struct PendingSeries {
    declaration: Arc<Declaration>,
    extent: Extent,
    summary: Summary,
    postings: Vec<Posting>,
}

/// A batch in the buffer, not written yet.
struct BuiltBatch {
    frames: u64,
    entry: FrameEntry,
}

/// A segment that this process appends to.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
    /// Says that the writer lives, also where it has no live file. Where locks cannot be had, others leave alone what
    /// has no footer.
    _lock: Option<Box<dyn HeldLock>>,
    pub(super) header: SegmentHeader,
    pub(super) offset: u64,
    hasher: blake3::Hasher,
    compression: Compression,
    declared: HashSet<u32>,
    covers_from: u64,
    frames: Vec<FrameEntry>,
    series: HashMap<u32, Vec<PendingSeries>>,
    /// Columns that no directory covers yet.
    columns: u64,
    /// Their points.
    points: u64,
    events: BTreeMap<Uid, (EntityKind, Vec<u64>)>,
    footer: Footer,
    live_to: u64,
    last_crc: u32,
    /// Its name in the folder is durable.
    pub(super) entry_synced: bool,
    /// Bytes that are durable.
    pub(super) synced_to: u64,
    buffer: Vec<u8>,
    scratch: Scratch,
}

impl SegmentWriter {
    /// Creates `path` (whose name must be free, or that of a header which found no space) and writes the header.
    pub(crate) fn create_at(
        vfs: Arc<dyn Vfs>,
        path: PathBuf,
        header: SegmentHeader,
        compression: Compression,
    ) -> Result<Self> {
        let file = match vfs.open(&path, OpenMode::CreateNew) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => unfinished(vfs.as_ref(), &path)?,
            file => file.map_err(|e| Error::io("create", &path, e))?,
        };
        let lock = file.try_lock().ok().flatten();
        let bytes = header.encode();
        file.write_all_at(&bytes, 0).map_err(|e| Error::io("write", &path, e))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let offset = SEGMENT_HEADER_BYTES as u64;
        Ok(Self {
            vfs,
            path,
            file,
            _lock: lock,
            header,
            offset,
            hasher,
            compression,
            declared: HashSet::new(),
            covers_from: offset,
            frames: Vec::new(),
            series: HashMap::new(),
            columns: 0,
            points: 0,
            events: BTreeMap::new(),
            footer: Footer::default(),
            live_to: 0,
            last_crc: 0,
            entry_synced: false,
            synced_to: 0,
            buffer: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    /// Creates the segment under its final name in `log_dir`.
    pub(crate) fn create(
        vfs: Arc<dyn Vfs>,
        log_dir: &Path,
        header: SegmentHeader,
        compression: Compression,
    ) -> Result<Self> {
        Self::create_at(vfs, segment_path(log_dir, header.writer, header.number), header, compression)
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Length so far.
    pub(crate) fn len(&self) -> u64 {
        self.offset
    }

    pub(crate) fn points(&self) -> u64 {
        self.footer.points
    }

    /// Ends the frame begun at `start` of the buffer; returns its offset in the segment.
    fn end_frame(&mut self, start: usize, kind: FrameKind, flags: u16, checked_len: usize) -> u64 {
        let offset = self.offset + start as u64;
        let seed = frame_seed(self.header.id, offset);
        finish_frame(&mut self.buffer, start, kind, flags, checked_len, seed, self.footer.last_event);
        let crc = self.buffer.get(start + 16..start + 20).and_then(|b| b.try_into().ok());
        self.last_crc = crc.map_or(0, u32::from_le_bytes);
        offset
    }

    fn begin_frame(&mut self) -> usize {
        let start = self.buffer.len();
        self.buffer.resize(start + FRAME_HEADER_BYTES, 0);
        start
    }

    /// Writes the buffer behind the last frame; `frames` of them.
    fn write_buffer(&mut self, frames: u64) -> Result<()> {
        let written = self.file.write_all_at(&self.buffer, self.offset);
        if let Err(source) = written {
            self.buffer.clear();
            return Err(Error::io("append to", &self.path, source));
        }
        self.hasher.update(&self.buffer);
        self.offset += self.buffer.len() as u64;
        self.footer.frames += frames;
        self.buffer.clear();
        Ok(())
    }

    /// Appends columns (sorted by series number) as one batch, declaring what is not declared yet. `live_to`: the
    /// writer's live records below it are covered with this batch.
    pub(crate) fn append_batch(
        &mut self,
        axes: &[Axis<'_>],
        columns: &[BatchColumn<'_>],
        live_to: u64,
    ) -> Result<()> {
        self.directory_if_due()?;
        let batch = self.build_batch(axes, columns, live_to, 0);
        self.write_buffer(batch.frames)?;
        self.note_batch(axes, columns, live_to, &batch);
        Ok(())
    }

    /// Appends columns and an event that count only together: one write, and a torn one leaves neither.
    pub(crate) fn append_batch_and_event(
        &mut self,
        axes: &[Axis<'_>],
        columns: &[BatchColumn<'_>],
        live_to: u64,
        record: &[u8],
        entities: &[(EntityKind, Uid)],
    ) -> Result<()> {
        self.directory_if_due()?;
        let batch = self.build_batch(axes, columns, live_to, FLAG_GROUPED);
        let event = self.build_event(record);
        self.write_buffer(batch.frames + 1)?;
        self.note_batch(axes, columns, live_to, &batch);
        self.note_event(entities, event);
        Ok(())
    }

    fn build_batch(
        &mut self,
        axes: &[Axis<'_>],
        columns: &[BatchColumn<'_>],
        live_to: u64,
        flags: u16,
    ) -> BuiltBatch {
        let mut fresh: Vec<&Declaration> = Vec::new();
        for column in columns {
            let number = column.declaration.number;
            if !self.declared.contains(&number) && fresh.last().is_none_or(|d| d.number != number) {
                fresh.push(column.declaration);
            }
        }
        let mut frames = 1;
        if !fresh.is_empty() {
            let start = self.begin_frame();
            encode_declarations(self.header.writer, &fresh, &mut self.buffer);
            let len = self.buffer.len() - start - FRAME_HEADER_BYTES;
            self.end_frame(start, FrameKind::Declare, flags, len);
            frames += 1;
        }
        let start = self.begin_frame();
        self.buffer.extend_from_slice(&encode_batch_prefix(0, live_to));
        let inputs: Vec<ColumnInput<'_>> = columns
            .iter()
            .map(|c| ColumnInput {
                series: c.declaration.number,
                seed: c.declaration.series.seed(),
                first_ordinal: c.first_ordinal,
                axis: c.axis,
                values: c.values,
                extras: c.extras,
            })
            .collect();
        let compression = self.compression_of(axes);
        let head_len = batch::encode(axes, &inputs, compression, &mut self.scratch, &mut self.buffer);
        let checked_len = BATCH_PREFIX_BYTES + head_len;
        let offset = self.end_frame(start, FrameKind::Batch, flags, checked_len);
        BuiltBatch { frames, entry: FrameEntry { offset, checked_len: checked_len as u32 } }
    }

    /// Short columns of a log segment are put together when it is sealed: compressing them here, on the path of whoever
    /// logs, would be for nothing.
    fn compression_of(&self, axes: &[Axis<'_>]) -> Compression {
        let longest = axes.iter().map(|axis| axis.steps.len()).max().unwrap_or(0);
        let is_final = self.header.kind == SegmentKind::Sealed || longest >= COMPRESSED_POINTS_MIN;
        if is_final { self.compression } else { Compression::None }
    }

    fn note_batch(
        &mut self,
        axes: &[Axis<'_>],
        columns: &[BatchColumn<'_>],
        live_to: u64,
        built: &BuiltBatch,
    ) {
        self.declared.extend(columns.iter().map(|c| c.declaration.number));
        self.columns += columns.len() as u64;
        self.live_to = self.live_to.max(live_to);
        let frame = self.frames.len() as u32;
        self.frames.push(built.entry);
        for column in columns {
            if let Some(axis) = axes.get(column.axis)
                && let Some(summary) = Summary::of(axis.steps, axis.timestamps_ms, column.values)
            {
                self.footer.points += column.values.len() as u64;
                self.points += column.values.len() as u64;
                self.note_column(column, summary, frame);
            }
        }
    }

    fn note_column(&mut self, column: &BatchColumn<'_>, summary: Summary, frame: u32) {
        let points = column.values.len() as u64;
        let extent = (column.values.len() >= SUMMARY_POINTS_MIN).then(|| Extent {
            first_ordinal: column.first_ordinal,
            points,
            summary: encoded(&summary),
        });
        let posting = Posting { frame, extent };
        let runs = self.series.entry(column.declaration.number).or_default();
        // Points behind a hole are an entry of their own, so that first ordinal and count always say the end.
        match runs.last_mut().filter(|p| p.extent.end() == column.first_ordinal) {
            Some(pending) => {
                pending.summary = pending.summary.merge(&summary);
                pending.extent.points += points;
                // Several columns of one series in one frame are one posting: the reader takes all of them.
                if pending.postings.last().is_some_and(|p| p.frame == frame) {
                    if let Some(last) = pending.postings.last_mut() {
                        last.extent = None;
                    }
                } else {
                    pending.postings.push(posting);
                }
            }
            None => runs.push(PendingSeries {
                declaration: Arc::clone(column.declaration),
                extent: Extent { first_ordinal: column.first_ordinal, points, summary: Vec::new() },
                summary,
                postings: vec![posting],
            }),
        }
    }

    /// Appends an encoded event that touches `entities`.
    pub(crate) fn append_event(&mut self, record: &[u8], entities: &[(EntityKind, Uid)]) -> Result<()> {
        self.directory_if_due()?;
        let offset = self.build_event(record);
        self.write_buffer(1)?;
        self.note_event(entities, offset);
        Ok(())
    }

    fn build_event(&mut self, record: &[u8]) -> u64 {
        let start = self.begin_frame();
        self.buffer.extend_from_slice(record);
        self.end_frame(start, FrameKind::Event, 0, record.len())
    }

    fn note_event(&mut self, entities: &[(EntityKind, Uid)], offset: u64) {
        self.footer.last_event = offset;
        self.footer.events += 1;
        self.note_entities(entities, offset);
    }

    fn note_entities(&mut self, entities: &[(EntityKind, Uid)], offset: u64) {
        for (kind, uid) in entities {
            let (_, offsets) = self.events.entry(*uid).or_insert_with(|| (*kind, Vec::new()));
            if offsets.last() != Some(&offset) {
                offsets.push(offset);
            }
        }
    }

    /// Appends a blob frame; `completes` names the blob that it is the last frame of. Returns its offset.
    pub(crate) fn append_blob(&mut self, payload: &[u8], completes: Option<BlobId>) -> Result<u64> {
        self.directory_if_due()?;
        let start = self.begin_frame();
        self.buffer.extend_from_slice(payload);
        let offset = self.end_frame(start, FrameKind::Blob, 0, payload.len());
        self.write_buffer(1)?;
        if let Some(id) = completes {
            self.note_entities(&[(BLOB_ENTITY, Uid::from_bytes(*id.as_bytes()))], offset);
        }
        Ok(offset)
    }

    /// Appends an ignorable frame of a kind that this program does not know.
    #[cfg(test)]
    pub(crate) fn append_stranger(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        let start = self.begin_frame();
        self.buffer.extend_from_slice(payload);
        let flags = crate::format::frame::FLAG_IGNORABLE;
        self.end_frame(start, FrameKind::Unknown(kind), flags, payload.len());
        self.write_buffer(1)
    }

    /// Appends the list of what this segment replaces; before anything else.
    pub(crate) fn append_replaced(&mut self, list: &[Replaced]) -> Result<()> {
        let start = self.begin_frame();
        encode_replaced(list, &mut self.buffer);
        let len = self.buffer.len() - start - FRAME_HEADER_BYTES;
        self.end_frame(start, FrameKind::Replaces, 0, len);
        self.write_buffer(1)
    }

    /// Says that live records below `live_to` are covered, without a batch (a sealed copy).
    pub(crate) fn cover_live(&mut self, live_to: u64) {
        self.live_to = self.live_to.max(live_to);
    }

    /// Before an append, never after it: a directory that finds no space must not make a call fail whose frames are
    /// written, or it would be repeated.
    fn directory_if_due(&mut self) -> Result<()> {
        let behind = self.offset - self.covers_from;
        let entries = SERIES_ENTRY_BYTES * self.series.len() as u64;
        let many_columns =
            self.columns >= DIRECTORY_INTERVAL_COLUMNS && behind >= EARLY_DIRECTORY_SHARE * entries;
        let many_points =
            self.points >= DIRECTORY_INTERVAL_POINTS.max(ENTRY_POINTS_MIN * self.series.len() as u64);
        if many_columns || many_points || behind >= DIRECTORY_INTERVAL_BYTES {
            self.append_directory()?;
        }
        Ok(())
    }

    fn append_directory(&mut self) -> Result<()> {
        let mut directory = Directory {
            previous: self.footer.last_directory,
            covers_from: self.covers_from,
            live_to: self.live_to,
            frames: self.frames.clone(),
            entities: BTreeMap::new(),
        };
        for (uid, (kind, offsets)) in &self.events {
            let entry = EntityEntry { events: offsets.clone(), series: Vec::new() };
            directory.entities.insert(*uid, (*kind, entry));
        }
        for pending in self.series.values().flatten() {
            let run = pending.declaration.series.run;
            let (_, entry) =
                directory.entities.entry(run).or_insert((EntityKind::RUN, EntityEntry::default()));
            entry.series.push(SeriesEntry {
                declaration: Declaration::clone(&pending.declaration),
                extent: Extent { summary: encoded(&pending.summary), ..pending.extent },
                postings: pending.postings.clone(),
            });
        }
        for (_, entry) in directory.entities.values_mut() {
            entry.series.sort_by(|a, b| {
                let key = |s: &'_ SeriesEntry| (s.declaration.origin, s.extent.first_ordinal);
                a.declaration.series.cmp(&b.declaration.series).then_with(|| key(a).cmp(&key(b)))
            });
        }
        let start = self.begin_frame();
        let seed = frame_seed(self.header.id, self.offset + start as u64);
        let checked_len = directory.encode(self.header.writer, seed, &mut self.buffer);
        let offset = self.end_frame(start, FrameKind::Directory, 0, checked_len);
        self.write_buffer(1)?;
        self.footer.last_directory = offset;
        self.covers_from = self.offset;
        self.declared.clear();
        self.frames.clear();
        self.series.clear();
        (self.columns, self.points) = (0, 0);
        self.events.clear();
        Ok(())
    }

    /// Writes the last directory and the footer: the segment is closed, self-indexing and unchanging.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.covers_from < self.offset || self.footer.last_directory == 0 {
            self.append_directory()?;
        }
        self.cover_garbage()?;
        self.footer.digest = *self.hasher.finalize().as_bytes();
        let start = self.begin_frame();
        self.footer.encode(&mut self.buffer);
        let len = self.buffer.len() - start - FRAME_HEADER_BYTES;
        self.end_frame(start, FrameKind::Footer, 0, len);
        debug_assert_eq!(self.buffer.len(), FOOTER_FRAME_BYTES);
        self.write_buffer(1)
    }

    /// An earlier append that failed half-way may have left bytes behind the last frame; the footer must be the last
    /// thing in the file, so they are wrapped into an ignorable frame.
    fn cover_garbage(&mut self) -> Result<()> {
        let len = self.file.len().map_err(|e| Error::io("measure", &self.path, e))?;
        while len > self.offset {
            let start = self.begin_frame();
            let garbage = usize::try_from(len - self.offset).unwrap_or(usize::MAX);
            self.buffer.resize(garbage.clamp(FRAME_HEADER_BYTES, FILLER_BYTES_MAX), 0);
            self.end_frame(start, FrameKind::Filler, 0, 0);
            self.write_buffer(1)?;
        }
        Ok(())
    }
}

/// A file with no more than a header is what an earlier try left when it found no space: the name is this writer's own.
fn unfinished(vfs: &dyn Vfs, path: &Path) -> Result<Arc<dyn VfsFile>> {
    let file = vfs.open(path, OpenMode::ReadWrite).map_err(|e| Error::io("create", path, e))?;
    let len = file.len().map_err(|e| Error::io("measure", path, e))?;
    if len > SEGMENT_HEADER_BYTES as u64 {
        return Err(Error::io("create", path, io::ErrorKind::AlreadyExists.into()));
    }
    Ok(file)
}

fn encoded(summary: &Summary) -> Vec<u8> {
    let mut out = Vec::new();
    summary.encode(&mut out);
    out
}
