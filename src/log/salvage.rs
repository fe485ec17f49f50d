//! What is sound in a damaged segment, written anew.
//!
//! Contract: takes exactly what checking finds sound (frames by walking, never by directories), with every identity
//! kept: columns with their origin and ordinals, events as the bytes they are, blobs that are whole. The result is
//! closed and durable. It accounts for the number of what it was made of, and claims to hold nothing of it: should a
//! sound copy arrive under the old name, that counts as well, and identities tell the points apart.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::codec::Compression;
use crate::error::{Error, Result};
use crate::format::blob::{BlobFrame, encode_manifest};
use crate::format::declare::{Declaration, SeriesKey};
use crate::format::event::Event;
use crate::format::event_record::{encode_event, entities_of};
use crate::format::frame::FrameKind;
use crate::format::segment::{Replaced, SegmentHeader};
use crate::id::{Origin, SegmentId, Stamp, WriterId};
use crate::log::check::{Sound, check_sound};
use crate::log::column_reader::DecodedColumn;
use crate::log::recover::covers_live;
use crate::log::seal::append;
use crate::log::segment_path;
use crate::log::segment_reader::Segment;
use crate::log::segment_writer::SegmentWriter;
use crate::vfs::Vfs;

/// What was kept of a damaged segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Salvaged {
    pub points: u64,
    pub events: u64,
    pub blobs: u64,
}

/// What a segment of a repair is made of.
pub(crate) enum Remains<'a> {
    /// A segment that can be opened, up to where an interrupted write begins.
    Of(&'a Segment, u64),
    /// A file whose header is lost, and with it all of it: its writer and number are known by its name.
    Nothing(WriterId, u64),
}

struct Salvage<'a> {
    segment: &'a Segment,
    /// Frames from here on were never acknowledged.
    end: u64,
    writer: SegmentWriter,
    numbers: HashMap<(SeriesKey, Origin), Arc<Declaration>>,
    /// Columns of one batch.
    pending: Vec<(Arc<Declaration>, DecodedColumn)>,
    batch: u64,
    accepts: &'a dyn Fn(&Event) -> bool,
    kept: Salvaged,
}

impl Salvage<'_> {
    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.pending.sort_by_key(|(declaration, column)| (declaration.number, column.first_ordinal));
        append(&mut self.writer, &self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

impl Sound for Salvage<'_> {
    fn wants_columns(&self) -> bool {
        true
    }

    fn event(&mut self, offset: u64, payload: &[u8], event: &Event) -> Result<()> {
        self.flush()?;
        if offset < self.end && (self.accepts)(event) {
            self.writer.append_event(payload, &entities_of(&event.operations))?;
            self.kept.events += 1;
        }
        Ok(())
    }

    fn column(&mut self, batch: u64, declaration: &Arc<Declaration>, column: DecodedColumn) -> Result<()> {
        if batch >= self.end {
            return Ok(());
        }
        if self.batch != batch {
            self.flush()?;
            self.batch = batch;
        }
        let next = self.numbers.len() as u32;
        let key = (declaration.series.clone(), declaration.origin);
        let own = self
            .numbers
            .entry(key)
            .or_insert_with(|| Arc::new(Declaration { number: next, ..Declaration::clone(declaration) }));
        self.kept.points += column.values.len() as u64;
        self.pending.push((Arc::clone(own), column));
        Ok(())
    }

    fn blob(&mut self, offset: u64, payload: &[u8], frame: &BlobFrame) -> Result<()> {
        if offset >= self.end {
            return Ok(());
        }
        match frame {
            // Written with its manifest.
            BlobFrame::Chunk(_) => return Ok(()),
            BlobFrame::Whole { id, .. } => {
                self.writer.append_blob(payload, Some(*id))?;
            }
            BlobFrame::Manifest { id, len, chunks } => {
                let mut places = Vec::with_capacity(chunks.len());
                for &chunk in chunks {
                    let bytes = self.segment.read_payload(chunk, FrameKind::Blob)?;
                    places.push(self.writer.append_blob(&bytes, None)?);
                }
                let mut manifest = Vec::new();
                encode_manifest(*id, *len, &places, &mut manifest);
                self.writer.append_blob(&manifest, Some(*id))?;
            }
        }
        self.kept.blobs += 1;
        Ok(())
    }
}

/// Writes what is sound of `remains` as the segment of `header`. Events that `accepts` refuses are left out.
pub(crate) fn salvage_segment(
    vfs: &Arc<dyn Vfs>,
    log_dir: &Path,
    remains: &Remains<'_>,
    header: SegmentHeader,
    accepts: &dyn Fn(&Event) -> bool,
) -> Result<Salvaged> {
    let path = segment_path(log_dir, header.writer, header.number);
    let temporary = path.with_extension("seg.tmp");
    let writer = SegmentWriter::create_at(Arc::clone(vfs), temporary.clone(), header, Compression::Zstd)?;
    let written = write(remains, writer, accepts).and_then(|kept| {
        vfs.rename(&temporary, &path).map(|()| kept).map_err(|e| Error::io("rename", &temporary, e))
    });
    let kept = written.inspect_err(|_| {
        // Only a copy; should it stay, `gc` finds it.
        let _ = vfs.remove_file(&temporary);
    })?;
    vfs.sync_dir(log_dir).map_err(|e| Error::failed_sync(log_dir, e))?;
    Ok(kept)
}

fn write(
    remains: &Remains<'_>,
    mut writer: SegmentWriter,
    accepts: &dyn Fn(&Event) -> bool,
) -> Result<Salvaged> {
    let replaced = |writer, number, id| Replaced { writer, number, id, valid_len: 0, last_crc: 0 };
    let (segment, end) = match *remains {
        Remains::Of(segment, end) => (segment, end),
        Remains::Nothing(of, number) => {
            writer.append_replaced(&[replaced(of, number, SegmentId::default())])?;
            writer.finish()?;
            writer.sync()?;
            return Ok(Salvaged::default());
        }
    };
    let state = segment.state();
    let of = segment.header;
    let mut list: Vec<Replaced> = state.replaced.iter().filter(|one| one.id != of.id).copied().collect();
    list.push(replaced(of.writer, of.number, of.id));
    writer.append_replaced(&list)?;
    if state.live_to > 0 {
        let header = *writer.header();
        let stamp = Stamp { millis: header.created_ms, counter: 0, writer: header.writer };
        let event = covers_live(stamp, of.writer, state.live_to);
        let mut record = Vec::new();
        encode_event(&event, &mut record)?;
        writer.append_event(&record, &entities_of(&event.operations))?;
    }
    let mut salvage = Salvage {
        segment,
        end,
        writer,
        numbers: HashMap::new(),
        pending: Vec::new(),
        batch: 0,
        accepts,
        kept: Salvaged::default(),
    };
    check_sound(segment, &mut salvage)?;
    salvage.flush()?;
    salvage.writer.finish()?;
    salvage.writer.sync()?;
    Ok(salvage.kept)
}
