//! Sealing and compaction: the same points, sorted by run and key, in long columns.
//!
//! Contract: what comes out holds every event, every point and every identity of what went in; the sources stay until
//! the result is durable. Sealing replaces a writer's own segment under its own name by rename; compaction writes a new
//! segment that names what it replaces. Memory is bounded by one batch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::codec::Compression;
use crate::codec::axis::Axis;
use crate::error::{Error, Result};
use crate::format::batch::share_axes;
use crate::format::blob::BLOB_ENTITY;
use crate::format::declare::{Declaration, SeriesKey};
use crate::format::event_record::event_entities;
use crate::format::frame::FrameKind;
use crate::format::segment::{Replaced, SegmentHeader, SegmentKind};
use crate::id::{Origin, SegmentId, Uid};
use crate::limits::COLUMN_POINTS_MAX;
use crate::log::column_reader::{ColumnReader, DecodedColumn};
use crate::log::origin_stream::OriginStream;
use crate::log::reader::{SeriesPart, View, event_offsets};
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
    if segment.header.kind != SegmentKind::Log || !sound || !is_worth_sealing(&segment)? {
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
            rewrite(&[segment], &mut writer).and_then(|()| writer.finish()).and_then(|()| writer.sync())
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

/// Writes everything that `sources` hold into a new, durable segment.
pub(crate) fn compact_segments(
    vfs: &Arc<dyn Vfs>,
    log_dir: &Path,
    sources: &[Arc<Segment>],
    header: SegmentHeader,
    compression: Compression,
) -> Result<CompactOutcome> {
    let mut writer = SegmentWriter::create(Arc::clone(vfs), log_dir, header, compression)?;
    rewrite(sources, &mut writer)?;
    writer.finish()?;
    writer.sync()?;
    Ok(CompactOutcome { points: writer.points(), bytes: writer.len() })
}

fn rewrite(sources: &[Arc<Segment>], writer: &mut SegmentWriter) -> Result<()> {
    let mut replaced = Vec::new();
    let mut view = View::default();
    for segment in sources {
        let state = segment.state();
        if let (false, Some(damage)) = (is_undamaged(segment), state.damage.first()) {
            let (expected, found) = (damage.expected.clone(), damage.found.clone());
            return Err(Error::corrupt(&segment.path, damage.offset, expected, found));
        }
        // What a source replaced is replaced by the result, too: files that are gone stay accounted for.
        replaced.extend(state.replaced.iter().copied());
        replaced.push(Replaced {
            writer: segment.header.writer,
            number: segment.header.number,
            id: segment.header.id,
            valid_len: state.valid_len,
            last_crc: 0,
        });
        if segment.header.writer == writer.header().writer {
            writer.cover_live(state.live_to);
        }
        view.segments.push((Arc::clone(segment), state));
    }
    writer.append_replaced(&replaced)?;
    copy_events(&view, writer)?;
    let mut uids: Vec<Uid> =
        view.entities().into_iter().filter(|(_, k)| *k != BLOB_ENTITY).map(|(u, _)| u).collect();
    uids.sort_unstable();
    let mut numbers = Numbers::default();
    for uid in uids {
        rewrite_run(&view, uid, writer, &mut numbers)?;
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
            let attributes = parts.first().map(|p| p.declaration.attributes.clone()).unwrap_or_default();
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

fn append(writer: &mut SegmentWriter, columns: &[(Arc<Declaration>, DecodedColumn)]) -> Result<()> {
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
