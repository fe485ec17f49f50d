//! Sealing and compaction: the same points, sorted by run and key, in long columns.
//!
//! Contract: what comes out holds every event, every point and every identity of what went in; the sources stay until
//! the result is durable. Sealing replaces a writer's own segment under its own name by rename; compaction writes a new
//! segment that names what it replaces. What names others as replaced is closed.
//! Memory is bounded by one batch.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::codec::Compression;
use crate::codec::axis::Axis;
use crate::error::{Error, Result};
use crate::format::batch::share_axes;
use crate::format::blob::BLOB_ENTITY;
use crate::format::declare::{Declaration, SeriesKey};
use crate::format::event_record::{Record, decode_event, encode_event, entities_of, event_entities};
use crate::format::frame::FrameKind;
use crate::format::segment::{Replaced, SegmentHeader, SegmentKind};
use crate::id::{Origin, SegmentId, Stamp, Uid, WriterId};
use crate::limits::COLUMN_POINTS_MAX;
use crate::log::column_reader::{ColumnReader, DecodedColumn};
use crate::log::origin_stream::OriginStream;
use crate::log::reader::{SeriesPart, View, event_offsets};
use crate::log::recover::covers_live;
use crate::log::segment_path;
use crate::log::segment_reader::Segment;
use crate::log::segment_writer::{BatchColumn, SegmentWriter};
use crate::vfs::Vfs;

/// Series of one run that share a batch of a sealed segment: bounds memory, and what a reader of one of them reads.
const BATCH_SERIES_MAX: usize = 64;

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CompactOutcome {
    pub points: u64,
    pub bytes: u64,
}

/// Whether re-batching `segment` would make fewer columns, enough to be worth it.
pub(crate) fn is_worth_sealing(segment: &Arc<Segment>) -> Result<bool> {
    let state = segment.state();
    let (mut columns, mut needed) = (0u64, 0u64);
    let mut ends: BTreeMap<(Uid, u32), (u64, u64)> = BTreeMap::new();
    for directory in &state.directories {
        for row in directory.head.rows.iter().filter(|row| row.kind != BLOB_ENTITY) {
            for series in segment.row_entry(directory, row)?.series {
                columns += series.postings.len() as u64;
                let (_, points) = ends.entry((row.uid, series.declaration.number)).or_default();
                *points += series.extent.points;
            }
        }
    }
    for (_, points) in ends.values() {
        needed += points.div_ceil(COLUMN_POINTS_MAX as u64);
    }
    Ok(columns > needed + needed / 4)
}

/// Seals a closed segment of this writer in place. Returns whether it did (not when nothing would be gained).
pub(crate) fn seal_segment(vfs: &Arc<dyn Vfs>, path: &Path, compression: Compression) -> Result<bool> {
    let segment = Arc::new(Segment::open(vfs.as_ref(), path)?);
    let sound = segment.is_closed() && is_undamaged(&segment);
    let gains = segment.header.kind == SegmentKind::Log && sound && is_worth_sealing(&segment)?;
    if !gains || !is_understood(&segment)? {
        return Ok(false);
    }
    let header = SegmentHeader { kind: SegmentKind::Sealed, id: SegmentId::random()?, ..segment.header };
    let temporary = path.with_extension("seg.tmp");
    // Left by a process that was killed while sealing.
    if vfs.metadata(&temporary).is_ok() {
        vfs.remove_file(&temporary).map_err(|e| Error::io("remove", &temporary, e))?;
    }
    let sealed = SegmentWriter::create_at(Arc::clone(vfs), temporary.clone(), header, compression).and_then(
        |mut writer| {
            rewrite(&[segment], &mut writer, &HashSet::new(), &mut |_, _| {})?;
            writer.finish()?;
            writer.sync()
        },
    );
    if sealed.is_err() {
        // It takes space where there may be none; verify names it if it cannot be removed.
        let _ = vfs.remove_file(&temporary);
    }
    sealed?;
    vfs.rename(&temporary, path).map_err(|e| Error::io("rename", &temporary, e))?;
    let parent = path.parent().unwrap_or(Path::new("."));
    vfs.sync_dir(parent).map_err(|e| Error::failed_sync(parent, e))?;
    Ok(true)
}

/// Whether all of it can be read: a copy of less must never replace it.
fn is_undamaged(segment: &Segment) -> bool {
    segment.header_damage.is_none() && segment.state().damage.is_empty()
}

/// Whether this program knows everything in a segment, so that writing it anew loses nothing of what a newer program
/// put there. Reads all frame headers and events.
pub(crate) fn is_understood(segment: &Segment) -> Result<bool> {
    let mut understood = segment.header.may_rewrite();
    if !understood {
        return Ok(false);
    }
    segment.walk(&mut |offset, frame| {
        let Ok(header) = frame else { return Ok(()) };
        understood &= header.is_known();
        if understood && header.kind == FrameKind::Event {
            // Damage is told elsewhere.
            if let Ok(payload) = segment.read_payload(offset, FrameKind::Event) {
                understood &= !matches!(decode_event(&payload), Ok(Record::Ignorable | Record::Newer { .. }));
            }
        }
        Ok(())
    })?;
    Ok(understood)
}

/// Writes everything that `sources` hold into a new, durable segment, except points of `purged` runs. It gets its name
/// when it is whole; a half one is removed, or left as `*.seg.tmp` by a process that is killed. `progress` gets bytes
/// and points written so far.
pub(crate) fn compact_segments(
    vfs: &Arc<dyn Vfs>,
    log_dir: &Path,
    sources: &[Arc<Segment>],
    header: SegmentHeader,
    purged: &HashSet<Uid>,
    compression: Compression,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CompactOutcome> {
    let path = segment_path(log_dir, header.writer, header.number);
    let temporary = path.with_extension("seg.tmp");
    let mut writer = SegmentWriter::create_at(Arc::clone(vfs), temporary.clone(), header, compression)?;
    let written = rewrite(sources, &mut writer, purged, progress)
        .and_then(|()| writer.finish())
        .and_then(|()| writer.sync())
        .and_then(|()| vfs.rename(&temporary, &path).map_err(|e| Error::io("rename", &temporary, e)));
    if let Err(error) = written {
        // Only a copy; should it stay, `gc` finds it.
        let _ = vfs.remove_file(&temporary);
        return Err(error);
    }
    vfs.sync_dir(log_dir).map_err(|e| Error::io("sync", log_dir, e))?;
    Ok(CompactOutcome { points: writer.points(), bytes: writer.len() })
}

/// Whether a segment has points of one of these runs.
pub(crate) fn holds_points_of(segment: &Segment, runs: &HashSet<Uid>) -> Result<bool> {
    let state = segment.state();
    for run in runs {
        for directory in &state.directories {
            if segment.entry(directory, *run)?.is_some_and(|e| !e.series.is_empty()) {
                return Ok(true);
            }
        }
        if state.tail.entities.get(run).is_some_and(|(_, e)| !e.series.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn rewrite(
    sources: &[Arc<Segment>],
    writer: &mut SegmentWriter,
    purged: &HashSet<Uid>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut replaced: BTreeMap<SegmentId, Replaced> = BTreeMap::new();
    let mut replace = |one: Replaced| {
        let known = replaced.entry(one.id).or_insert(one);
        if known.valid_len < one.valid_len {
            *known = one;
        }
    };
    let mut view = View::default();
    let mut live_to: BTreeMap<WriterId, u64> = BTreeMap::new();
    for segment in sources {
        let state = segment.state();
        if let (false, Some(damage)) = (is_undamaged(segment), state.damage.first()) {
            let (expected, found) = (damage.expected.clone(), damage.found.clone());
            return Err(Error::corrupt(&segment.path, damage.offset, expected, found));
        }
        // What a source replaced is replaced by the result, too: files that are gone stay accounted for.
        state.replaced.iter().copied().for_each(&mut replace);
        replace(Replaced {
            writer: segment.header.writer,
            number: segment.header.number,
            id: segment.header.id,
            valid_len: state.valid_len,
            last_crc: state.last_crc,
        });
        let to = live_to.entry(segment.header.writer).or_default();
        *to = state.live_to.max(*to);
        view.segments.push((Arc::clone(segment), state));
    }
    writer.append_replaced(&replaced.into_values().collect::<Vec<_>>())?;
    copy_events(&view, writer)?;
    // The sources said in their headers whose live records they cover; of other writers an event has to.
    for (source, to) in live_to.into_iter().filter(|(_, to)| *to > 0) {
        if source == writer.header().writer {
            writer.cover_live(to);
        } else {
            let header = writer.header();
            let stamp = Stamp { millis: header.created_ms, counter: 0, writer: header.writer };
            let event = covers_live(stamp, source, to);
            let mut record = Vec::new();
            encode_event(&event, &mut record)?;
            writer.append_event(&record, &entities_of(&event.operations))?;
        }
    }
    let owners = view.entities().into_iter().filter(|(_, kind)| *kind != BLOB_ENTITY);
    let mut uids: Vec<Uid> = owners.map(|(uid, _)| uid).filter(|uid| !purged.contains(uid)).collect();
    uids.sort_unstable();
    let mut numbers = Numbers::default();
    for uid in uids {
        rewrite_run(&view, uid, writer, &mut numbers)?;
        progress(writer.len(), writer.points());
    }
    Ok(())
}

/// Events are carried over as the bytes they are; one that two sources hold is written once.
fn copy_events(view: &View, writer: &mut SegmentWriter) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for (segment, state) in &view.segments {
        for offset in event_offsets(segment, state, 0)? {
            let payload = segment.read_payload(offset, FrameKind::Event)?;
            if seen.insert(*blake3::hash(&payload).as_bytes()) {
                let entities = event_entities(&payload).map_err(|m| m.at(&segment.path, offset))?;
                writer.append_event(&payload, &entities)?;
            }
        }
    }
    Ok(())
}

/// Series numbers of the result.
#[derive(Default)]
struct Numbers(u32);

fn rewrite_run(view: &View, run: Uid, writer: &mut SegmentWriter, numbers: &mut Numbers) -> Result<()> {
    let mut series: BTreeMap<(SeriesKey, Origin), Vec<SeriesPart>> = BTreeMap::new();
    for part in view.series(run)? {
        let key = (part.declaration.series.clone(), part.declaration.origin);
        series.entry(key).or_default().push(part);
    }
    let series: Vec<_> = series.into_iter().collect();
    for group in series.chunks(BATCH_SERIES_MAX) {
        let mut reader = ColumnReader::default();
        let mut streams = Vec::with_capacity(group.len());
        for ((series, origin), parts) in group {
            let attributes = attributes_of(parts);
            let declaration =
                Declaration { number: numbers.0, series: series.clone(), origin: *origin, attributes };
            numbers.0 += 1;
            let mut places = Vec::new();
            for part in parts {
                places.extend(reader.places(part, 0..u64::MAX)?);
            }
            let from = places.iter().map(|p| p.column.first_ordinal).min().unwrap_or(0);
            streams.push((Arc::new(declaration), OriginStream::new(places, from)));
        }
        loop {
            let mut columns: Vec<(Arc<Declaration>, DecodedColumn)> = Vec::with_capacity(streams.len());
            for (declaration, stream) in &mut streams {
                if let Some(column) = stream.next(&mut reader, COLUMN_POINTS_MAX)? {
                    columns.push((Arc::clone(declaration), column));
                }
            }
            if columns.is_empty() {
                break;
            }
            append(writer, &columns)?;
        }
    }
    Ok(())
}

/// Attributes of a series: what any segment says of it, each tag once.
fn attributes_of(parts: &[SeriesPart]) -> Vec<(u16, Vec<u8>)> {
    let mut all: Vec<(u16, Vec<u8>)> = Vec::new();
    for (tag, bytes) in parts.iter().flat_map(|part| &part.declaration.attributes) {
        if all.iter().all(|(known, _)| known != tag) {
            all.push((*tag, bytes.clone()));
        }
    }
    all
}

pub(super) fn append(
    writer: &mut SegmentWriter,
    columns: &[(Arc<Declaration>, DecodedColumn)],
) -> Result<()> {
    let all: Vec<Axis<'_>> =
        columns.iter().map(|(_, c)| Axis { steps: &c.steps, timestamps_ms: &c.timestamps_ms }).collect();
    let shared = share_axes(&all);
    let axes: Vec<Axis<'_>> = shared.axes.iter().filter_map(|&i| all.get(i).copied()).collect();
    let inputs: Vec<BatchColumn<'_>> = columns
        .iter()
        .zip(&shared.of_series)
        .map(|((declaration, column), &axis)| BatchColumn {
            declaration,
            first_ordinal: column.first_ordinal,
            axis,
            values: &column.values,
            extras: &column.extras,
        })
        .collect();
    writer.append_batch(&axes, &inputs, 0)
}
