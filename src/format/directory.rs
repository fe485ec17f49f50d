//! Directory frames: the log is its own index.
//!
//! Contract: a directory says, for the frames from `covers_from` up to itself, which entity has events and columns
//! where. The checked part of the payload (the head) is a table sorted by uid; each entity's block has its own crc, so
//! that one run is found and read without summing the others. Directories of a segment are linked backwards.
//!
//! Head: previous directory u64 (0 none), covers-from u64, live-to u64 (the greatest that a batch of this segment
//! states so far, see `live`), varint frame count, for each batch frame {varint offset delta, varint bytes of its
//! checked part}, varint entity count, for each {uid 16, kind u16, block offset u32 (in the payload), block length
//! u32, block crc u32}.
//!
//! Block: varint event count, varint offset deltas (from covers-from); varint series count, for each a declaration
//! (see `declare`), varint first ordinal, varint points, summary (varint length, bytes; of all these points), varint
//! posting count, for each varint (frame index delta << 1 | has summary), [varint first ordinal, varint points,
//! summary]. A single posting never has its own: the series' is the same.

use std::collections::BTreeMap;

use crate::codec::bytes::{Reader, put_slice, put_varint};
use crate::error::Malformed;
use crate::format::declare::{Declaration, put_declaration, take_declaration};
use crate::format::event::EntityKind;
use crate::format::frame::seeded_crc;
use crate::id::{Uid, WriterId};

/// Bytes of one row of the entity table.
const ROW_BYTES: usize = 16 + 2 + 4 + 4 + 4;
/// Longest encoded summary that is read.
const SUMMARY_BYTES_MAX: usize = 256;

/// A batch frame that postings point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Where it starts in the segment.
    pub offset: u64,
    /// Bytes of its checked part, so that header and head are read at once.
    pub checked_len: u32,
}

/// Some consecutive points of a series, with their encoded summary.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Extent {
    /// Ordinal of the first point.
    pub first_ordinal: u64,
    /// How many points.
    pub points: u64,
    /// Encoded [`crate::codec::summary::Summary`]; empty if there is none.
    pub summary: Vec<u8>,
}

impl Extent {
    /// The ordinal after the last point.
    pub const fn end(&self) -> u64 {
        self.first_ordinal + self.points
    }

    /// Grows to hold `first..end`, too. What may now be missing between is for the reader to notice.
    pub fn include(&mut self, first: u64, end: u64) {
        let end = end.max(self.end());
        self.first_ordinal = self.first_ordinal.min(first);
        self.points = end - self.first_ordinal;
    }
}

/// Where one column of a series is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Index into the directory's frames.
    pub frame: u32,
    /// What the column holds, if it is long enough to say.
    pub extent: Option<Extent>,
}

/// One series of an entity, as far as a directory covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesEntry {
    /// The declaration, repeated.
    pub declaration: Declaration,
    /// All points that the directory covers.
    pub extent: Extent,
    /// Its columns, in the order of the frames.
    pub postings: Vec<Posting>,
}

/// One entity, as far as a directory covers it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EntityEntry {
    /// Offsets of event frames (blob chunks for a blob).
    pub events: Vec<u64>,
    /// Its series.
    pub series: Vec<SeriesEntry>,
}

/// A directory being made.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Offset of the directory before, 0 for none.
    pub previous: u64,
    /// First byte that it covers.
    pub covers_from: u64,
    /// Live sequences below it are in frames of this segment or before it.
    pub live_to: u64,
    /// Batch frames it points to.
    pub frames: Vec<FrameEntry>,
    /// What it knows of each entity.
    pub entities: BTreeMap<Uid, (EntityKind, EntityEntry)>,
}

impl Directory {
    /// Appends the payload; returns the length of its checked part. Block crcs start from `seed` (the frame's).
    pub fn encode(&self, writer: WriterId, seed: u32, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let mut blocks = Vec::new();
        let mut rows = Vec::with_capacity(self.entities.len());
        for (uid, (kind, entry)) in &self.entities {
            let from = blocks.len();
            encode_block(writer, self.covers_from, entry, &mut blocks);
            rows.push((uid, kind, from, blocks.len() - from, seeded_crc(seed, &blocks[from..])));
        }
        out.extend_from_slice(&self.previous.to_le_bytes());
        out.extend_from_slice(&self.covers_from.to_le_bytes());
        out.extend_from_slice(&self.live_to.to_le_bytes());
        put_varint(out, self.frames.len() as u64);
        let mut last = self.covers_from;
        for frame in &self.frames {
            put_varint(out, frame.offset - last);
            put_varint(out, u64::from(frame.checked_len));
            last = frame.offset;
        }
        put_varint(out, rows.len() as u64);
        let head_len = out.len() - start + rows.len() * ROW_BYTES;
        for (uid, kind, from, len, crc) in rows {
            out.extend_from_slice(uid.as_bytes());
            out.extend_from_slice(&kind.0.to_le_bytes());
            out.extend_from_slice(&((head_len + from) as u32).to_le_bytes());
            out.extend_from_slice(&(len as u32).to_le_bytes());
            out.extend_from_slice(&crc.to_le_bytes());
        }
        debug_assert_eq!(out.len() - start, head_len);
        out.extend_from_slice(&blocks);
        head_len
    }
}

fn encode_block(writer: WriterId, covers_from: u64, entry: &EntityEntry, out: &mut Vec<u8>) {
    put_varint(out, entry.events.len() as u64);
    let mut last = covers_from;
    for &offset in &entry.events {
        put_varint(out, offset - last);
        last = offset;
    }
    put_varint(out, entry.series.len() as u64);
    let mut previous_run = None;
    for series in &entry.series {
        put_declaration(writer, &series.declaration, previous_run, out);
        previous_run = Some(series.declaration.series.run);
        put_extent(&series.extent, out);
        put_varint(out, series.postings.len() as u64);
        let mut last_frame = 0;
        for posting in &series.postings {
            let extent = posting.extent.as_ref().filter(|_| series.postings.len() > 1);
            put_varint(out, u64::from(posting.frame - last_frame) << 1 | u64::from(extent.is_some()));
            last_frame = posting.frame;
            if let Some(extent) = extent {
                put_extent(extent, out);
            }
        }
    }
}

fn put_extent(extent: &Extent, out: &mut Vec<u8>) {
    put_varint(out, extent.first_ordinal);
    put_varint(out, extent.points);
    put_slice(out, &extent.summary);
}

fn take_extent(cursor: &mut Reader<'_>) -> Result<Extent, Malformed> {
    let at = cursor.position();
    let first_ordinal = cursor.varint()?;
    let points = cursor.varint()?;
    if first_ordinal.checked_add(points).is_none() {
        return Err(Malformed::new(at, "ordinals within 64 bits", first_ordinal));
    }
    let summary = cursor.slice(SUMMARY_BYTES_MAX, "a summary of at most 256 bytes")?.to_vec();
    Ok(Extent { first_ordinal, points, summary })
}

/// One row of a directory's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityRow {
    /// The entity.
    pub uid: Uid,
    /// Its kind.
    pub kind: EntityKind,
    /// Where its block is in the payload.
    pub block_offset: u32,
    /// The block's length.
    pub block_len: u32,
    /// The block's crc, from the frame's seed.
    pub block_crc: u32,
}

/// The checked part of a directory, decoded; blocks are read on demand.
#[derive(Clone, Debug, Default)]
pub struct DirectoryHead {
    /// Offset of the directory before, 0 for none.
    pub previous: u64,
    /// First byte that it covers.
    pub covers_from: u64,
    /// Live sequences below it are in frames of this segment or before it.
    pub live_to: u64,
    /// Batch frames, in order.
    pub frames: Vec<FrameEntry>,
    /// Entities, sorted by uid.
    pub rows: Vec<EntityRow>,
}

impl DirectoryHead {
    /// Reads the checked part of the directory frame at `own_offset`.
    pub fn decode(bytes: &[u8], payload_len: u32, own_offset: u64) -> Result<Self, Malformed> {
        let mut cursor = Reader::new(bytes);
        let previous = cursor.u64()?;
        let covers_from = cursor.u64()?;
        let live_to = cursor.u64()?;
        if previous >= own_offset || covers_from > own_offset {
            return Err(Malformed::new(0, "a directory that looks backwards", previous));
        }
        let count = cursor.count(bytes.len() / 2, "a count of frames that fits")?;
        let mut frames = Vec::with_capacity(count);
        let mut offset = covers_from;
        for _ in 0..count {
            let at = cursor.position();
            offset = offset
                .checked_add(cursor.varint()?)
                .filter(|&o| o < own_offset)
                .ok_or(Malformed::new(at, "a frame before its directory", offset))?;
            let checked_len =
                u32::try_from(cursor.varint()?).map_err(|_| Malformed::new(at, "a length below 4 GiB", 0))?;
            frames.push(FrameEntry { offset, checked_len });
        }
        let count = cursor.count(cursor.remaining() / ROW_BYTES, "a count of entities that fits")?;
        let mut rows: Vec<EntityRow> = Vec::with_capacity(count);
        for _ in 0..count {
            let at = cursor.position();
            let row = EntityRow {
                uid: Uid::from_bytes(cursor.array()?),
                kind: EntityKind(cursor.u16()?),
                block_offset: cursor.u32()?,
                block_len: cursor.u32()?,
                block_crc: cursor.u32()?,
            };
            let end = u64::from(row.block_offset) + u64::from(row.block_len);
            if end > u64::from(payload_len) || rows.last().is_some_and(|last| last.uid >= row.uid) {
                return Err(Malformed::new(at, "sorted blocks inside the payload", end));
            }
            rows.push(row);
        }
        Ok(Self { previous, covers_from, live_to, frames, rows })
    }

    /// The row of an entity. O(log n).
    pub fn find(&self, uid: Uid) -> Option<&EntityRow> {
        self.rows.binary_search_by_key(&uid, |row| row.uid).ok().and_then(|at| self.rows.get(at))
    }

    /// Reads an entity's block (its crc must have been checked).
    pub fn decode_block(&self, writer: WriterId, bytes: &[u8]) -> Result<EntityEntry, Malformed> {
        let mut cursor = Reader::new(bytes);
        let count = cursor.count(bytes.len(), "a count of events that fits")?;
        let mut events = Vec::with_capacity(count);
        let mut offset = self.covers_from;
        for _ in 0..count {
            let at = cursor.position();
            offset = offset.checked_add(cursor.varint()?).ok_or(Malformed::new(
                at,
                "an offset within 64 bits",
                offset,
            ))?;
            events.push(offset);
        }
        let count = cursor.count(bytes.len() / 5, "a count of series that fits")?;
        let mut series: Vec<SeriesEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let previous = series.last().map(|s| s.declaration.series.run);
            let declaration = take_declaration(writer, &mut cursor, previous)?;
            let extent = take_extent(&mut cursor)?;
            let n = cursor.count(cursor.remaining(), "a count of columns that fits")?;
            let mut postings = Vec::with_capacity(n);
            let mut frame = 0u64;
            for _ in 0..n {
                let at = cursor.position();
                let packed = cursor.varint()?;
                frame = frame.saturating_add(packed >> 1);
                if frame >= self.frames.len() as u64 {
                    return Err(Malformed::new(at, "a frame of this directory", frame));
                }
                let own = if packed & 1 != 0 { Some(take_extent(&mut cursor)?) } else { None };
                let extent = own.or_else(|| (n == 1).then(|| extent.clone()));
                postings.push(Posting { frame: frame as u32, extent });
            }
            series.push(SeriesEntry { declaration, extent, postings });
        }
        Ok(EntityEntry { events, series })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::declare::SeriesKey;
    use crate::id::Origin;
    use proptest::prelude::*;

    fn extent(first_ordinal: u64, points: u64) -> Extent {
        Extent { first_ordinal, points, summary: vec![1, 2, 3] }
    }

    fn sample() -> Directory {
        let run = Uid::from_bytes([5; 16]);
        let declaration = |number, key: &str| Declaration {
            number,
            series: SeriesKey::of_run(run, key),
            origin: Origin::from_bytes([7; 16]),
            attributes: vec![],
        };
        let loss = SeriesEntry {
            declaration: declaration(1, "loss"),
            extent: extent(10, 30),
            postings: vec![
                Posting { frame: 0, extent: Some(extent(10, 20)) },
                Posting { frame: 2, extent: None },
            ],
        };
        let single = SeriesEntry {
            declaration: declaration(2, "acc"),
            extent: extent(0, 5),
            postings: vec![Posting { frame: 1, extent: Some(extent(0, 5)) }],
        };
        let mut directory = Directory { previous: 128, covers_from: 1000, ..Directory::default() };
        directory.frames =
            [1000u64, 2000, 9000].map(|offset| FrameEntry { offset, checked_len: 99 }).to_vec();
        let entry = EntityEntry { events: vec![1000, 5000], series: vec![loss, single] };
        directory.entities.insert(run, (EntityKind::RUN, entry));
        let bare = EntityEntry { events: vec![1500], series: vec![] };
        directory.entities.insert(Uid::from_bytes([1; 16]), (EntityKind::EXPERIMENT, bare));
        directory
    }

    #[test]
    fn one_entity_is_found_and_read_alone() {
        let writer = WriterId::from_bytes([7; 16]);
        let directory = sample();
        let mut bytes = Vec::new();
        let head_len = directory.encode(writer, 42, &mut bytes);
        let head = DirectoryHead::decode(&bytes[..head_len], bytes.len() as u32, 10_000).unwrap();
        assert_eq!((head.previous, head.frames.len(), head.rows.len()), (128, 3, 2));
        for (uid, (kind, entry)) in &directory.entities {
            let row = head.find(*uid).unwrap();
            let block = &bytes[row.block_offset as usize..(row.block_offset + row.block_len) as usize];
            assert_eq!(row.kind, *kind);
            assert_eq!(seeded_crc(42, block), row.block_crc);
            assert_eq!(&head.decode_block(writer, block).unwrap(), entry);
        }
        assert!(head.find(Uid::from_bytes([9; 16])).is_none());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), len: u32) {
            if let Ok(head) = DirectoryHead::decode(&bytes, len, u64::MAX) {
                let _ = head.decode_block(WriterId::default(), &bytes);
            }
            let frames = vec![FrameEntry { offset: 0, checked_len: 0 }; 4];
            let head = DirectoryHead { frames, ..Default::default() };
            let _ = head.decode_block(WriterId::default(), &bytes);
        }

        #[test]
        fn mutated_directories_never_panic(at: usize, bit in 0u8..8) {
            let writer = WriterId::from_bytes([7; 16]);
            let mut bytes = Vec::new();
            let head_len = sample().encode(writer, 42, &mut bytes);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(head) = DirectoryHead::decode(&bytes[..head_len], bytes.len() as u32, 10_000) {
                for row in &head.rows {
                    let from = row.block_offset as usize;
                    let _ = head.decode_block(writer, &bytes[from..from + row.block_len as usize]);
                }
            }
        }
    }
}
