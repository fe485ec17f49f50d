//! Checking one segment completely.
//!
//! Contract: reads every byte and believes nothing: frames by walking, not by directories; then whether directories and
//! footer say what the frames hold. What is wrong is named by the smallest unit that has a checksum: a column, an axis,
//! a directory block, a head, a header. Never fails for what it finds, only when the system cannot read.

use std::collections::HashMap;
use std::sync::Arc;

use crate::codec::axis::Axis;
use crate::codec::summary::Summary;
use crate::error::{Error, Malformed, Result};
use crate::format::batch::{self, AxisEntry, Scratch};
use crate::format::blob::{BlobFrame, blob_of, decode_blob};
use crate::format::declare::{Declaration, SeriesKey, decode_declarations};
use crate::format::directory::FrameEntry;
use crate::format::event::Event;
use crate::format::event_record::{Record, decode_event, entities_of};
use crate::format::frame::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, check_payload, finish_frame, frame_seed,
};
use crate::format::live::{BATCH_PREFIX_BYTES, decode_batch_prefix};
use crate::format::segment::{
    FOOTER_FRAME_BYTES, Footer, SEGMENT_HEADER_BYTES, SegmentKind, decode_replaced,
};
use crate::id::{BlobId, Origin, Uid};
use crate::log::check_directory::Interval;
use crate::log::column_reader::DecodedColumn;
use crate::log::segment_reader::{Damage, Segment};

/// Bytes read at a time where no frame says how many belong together.
const PIECE_BYTES: u64 = 1024 * 1024;
/// A footer of which no more bytes differ is a damaged footer, not the tail of an interrupted write.
const FOOTER_BYTES_DAMAGED_MAX: usize = FOOTER_FRAME_BYTES / 4;

/// Points of one column, as its batch names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ColumnSpan {
    pub first_ordinal: u64,
    pub end: u64,
    /// Fingerprint of the points; `None` if they cannot be read.
    pub fingerprint: Option<u32>,
}

/// What a segment holds and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct SegmentCheck {
    pub bytes: u64,
    pub frames: u64,
    pub columns: u64,
    pub points: u64,
    pub events: u64,
    pub blobs: u64,
    pub damage: Vec<Damage>,
    /// An interrupted write at the end: where it starts, and its bytes.
    pub torn: Option<(u64, u64)>,
    /// Worth knowing: (offset, text).
    pub notes: Vec<(u64, String)>,
    /// Points of columns whose series is not known any more.
    pub orphans: u64,
    /// Columns of every series.
    pub spans: HashMap<(SeriesKey, Origin), Vec<ColumnSpan>>,
    pub is_closed: bool,
}

pub(super) struct Checker<'a> {
    pub(super) segment: &'a Segment,
    pub(super) found: SegmentCheck,
    hasher: blake3::Hasher,
    hashed_to: u64,
    pub(super) declared: HashMap<u32, Arc<Declaration>>,
    /// Declarations as directories repeat them; read when one is missing.
    repeated: Option<HashMap<u32, Arc<Declaration>>>,
    pub(super) interval: Interval,
    pub(super) counted: Footer,
    /// Where the frames begin that count only if the next one is whole.
    group: Option<u64>,
    last_frame: u64,
    scratch: Scratch,
    sound: &'a mut dyn Sound,
    advanced: &'a mut dyn FnMut(u64),
}

/// Gets what is sound in a segment, in the order of the file.
pub(super) trait Sound {
    /// Whether columns are wanted; else their points are not kept.
    fn wants_columns(&self) -> bool;
    /// An event with its record.
    fn event(&mut self, offset: u64, payload: &[u8], event: &Event) -> Result<()>;
    /// A column of the batch at an offset.
    fn column(&mut self, batch: u64, declaration: &Arc<Declaration>, column: DecodedColumn) -> Result<()>;
    /// A blob frame; a manifest only if all its chunks are sound.
    fn blob(&mut self, offset: u64, payload: &[u8], frame: &BlobFrame) -> Result<()>;
}

/// Whoever checks wants the events.
struct Events<'a>(&'a mut dyn FnMut(u64, Event));

impl Sound for Events<'_> {
    fn wants_columns(&self) -> bool {
        false
    }

    fn event(&mut self, offset: u64, _: &[u8], event: &Event) -> Result<()> {
        (self.0)(offset, event.clone());
        Ok(())
    }

    fn column(&mut self, _: u64, _: &Arc<Declaration>, _: DecodedColumn) -> Result<()> {
        Ok(())
    }

    fn blob(&mut self, _: u64, _: &[u8], _: &BlobFrame) -> Result<()> {
        Ok(())
    }
}

/// Checks a whole segment. `event` gets every event that is sound, `advanced` how many bytes were read.
pub(crate) fn check_segment(
    segment: &Segment,
    event: &mut dyn FnMut(u64, Event),
    advanced: &mut dyn FnMut(u64),
) -> Result<SegmentCheck> {
    check(segment, &mut Events(event), advanced)
}

/// Checks a whole segment and hands over what is sound.
pub(super) fn check_sound(segment: &Segment, sound: &mut dyn Sound) -> Result<SegmentCheck> {
    check(segment, sound, &mut |_| {})
}

fn check(segment: &Segment, sound: &mut dyn Sound, advanced: &mut dyn FnMut(u64)) -> Result<SegmentCheck> {
    let from = SEGMENT_HEADER_BYTES as u64;
    let mut checker = Checker {
        segment,
        found: SegmentCheck::default(),
        hasher: blake3::Hasher::new(),
        hashed_to: 0,
        declared: HashMap::new(),
        repeated: None,
        interval: Interval { from, ..Interval::default() },
        counted: Footer::default(),
        group: None,
        last_frame: from,
        scratch: Scratch::default(),
        sound,
        advanced,
    };
    checker.found.damage.extend(segment.header_damage.clone());
    checker.hash_to(from)?;
    let torn = segment.walk(&mut |offset, frame| match frame {
        Ok(header) => checker.frame(offset, header),
        Err(damage) => {
            checker.interval.damaged = true;
            checker.found.damage.push(damage);
            checker.group = None;
            Ok(())
        }
    })?;
    checker.end(torn)?;
    let mut found = checker.found;
    found.bytes = checker.hashed_to;
    found.damage.sort_by_key(|d| d.offset);
    Ok(found)
}

pub(super) fn damage(offset: u64, expected: impl Into<String>, found: impl Into<String>) -> Damage {
    Damage { offset, expected: expected.into(), found: found.into() }
}

pub(super) fn malformed(offset: u64, what: &str, m: Malformed) -> Damage {
    damage(offset, format!("{what}: {}", m.expected), m.found.to_string())
}

impl Checker<'_> {
    pub(super) fn report(&mut self, damage: Damage) {
        self.interval.damaged = true;
        self.found.damage.push(damage);
    }

    /// What contradicts frames that are all sound.
    pub(super) fn disagrees(&mut self, offset: u64, expected: impl Into<String>, found: impl Into<String>) {
        if !self.interval.damaged {
            self.found.damage.push(damage(offset, expected, found));
        }
    }

    fn hash_to(&mut self, end: u64) -> Result<()> {
        while self.hashed_to < end {
            let len = (end - self.hashed_to).min(PIECE_BYTES);
            let bytes = self.segment.read(self.hashed_to, usize::try_from(len).unwrap_or(0))?;
            self.hasher.update(&bytes);
            self.hashed_to += len;
            (self.advanced)(len);
        }
        Ok(())
    }

    fn frame(&mut self, offset: u64, header: &FrameHeader) -> Result<()> {
        // The digest is of everything before the footer; what resynchronising skipped is part of it.
        self.hash_to(offset)?;
        self.last_frame = offset;
        let len = usize::try_from(header.frame_len()).unwrap_or(0);
        let bytes = self.segment.read(offset, len)?;
        if header.kind != FrameKind::Footer {
            self.hasher.update(&bytes);
            self.counted.frames += 1;
        }
        self.hashed_to = offset + header.frame_len();
        (self.advanced)(header.frame_len());
        self.found.frames += 1;
        if header.previous_event != self.counted.last_event {
            let expected = format!("a link to the event at {}", self.counted.last_event);
            self.disagrees(offset, expected, header.previous_event.to_string());
        }
        self.group = if header.is_grouped() { self.group.or(Some(offset)) } else { None };
        let payload = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        let checked = payload.get(..header.checked_len as usize).unwrap_or_default();
        if let Err(m) = check_payload(header, checked, self.segment.header.id, offset) {
            self.report(damage(offset, format!("a {:?} frame: {}", header.kind, m.expected), "another crc"));
            // Its own header says that it was closed.
            self.found.is_closed |= header.kind == FrameKind::Footer;
            if header.kind == FrameKind::Directory {
                self.next_interval(offset + header.frame_len());
            }
            return Ok(());
        }
        if !header.is_known() {
            let text = format!("frame kind {} version {}", header.kind.number(), header.version);
            self.found.notes.push((offset, format!("{text} is of a newer program and was not checked")));
            return Ok(());
        }
        match header.kind {
            FrameKind::Declare => self.declare(offset, payload),
            FrameKind::Batch => self.batch(offset, header, payload)?,
            FrameKind::Event => self.event(offset, payload)?,
            FrameKind::Directory => self.directory(offset, header, payload),
            FrameKind::Footer => self.footer(offset, payload)?,
            FrameKind::Blob => self.blob(offset, payload)?,
            FrameKind::Replaces => {
                if let Err(m) = decode_replaced(payload) {
                    self.report(malformed(offset, "a list of replaced segments", m));
                }
            }
            FrameKind::Filler => {
                if let Some(at) = payload.iter().position(|&b| b != 0) {
                    let place = offset + (FRAME_HEADER_BYTES + at) as u64;
                    self.found.damage.push(damage(place, "zeros in a filler", "other bytes"));
                }
            }
            FrameKind::Unknown(_) => {}
        }
        Ok(())
    }

    fn declare(&mut self, offset: u64, payload: &[u8]) {
        match decode_declarations(self.segment.header.writer, payload) {
            Ok(list) => self.declared.extend(list.into_iter().map(|d| (d.number, Arc::new(d)))),
            Err(m) => self.report(malformed(offset, "declarations", m)),
        }
    }

    fn declaration(&mut self, number: u32) -> Result<Option<Arc<Declaration>>> {
        if let Some(known) = self.declared.get(&number) {
            return Ok(Some(Arc::clone(known)));
        }
        let repeated = match self.repeated.take() {
            Some(repeated) => repeated,
            None => repeated_declarations(self.segment)?,
        };
        let found = repeated.get(&number).cloned();
        self.repeated = Some(repeated);
        Ok(found)
    }

    fn batch(&mut self, offset: u64, header: &FrameHeader, payload: &[u8]) -> Result<()> {
        let body = payload.get(BATCH_PREFIX_BYTES..).unwrap_or_default();
        let head_len = (header.checked_len as usize).saturating_sub(BATCH_PREFIX_BYTES);
        let head = body.get(..head_len).unwrap_or_default();
        let decoded = decode_batch_prefix(payload)
            .and_then(|(_, live_to)| Ok((live_to, batch::decode_head(head, body.len())?)));
        let (live_to, head) = match decoded {
            Ok(decoded) => decoded,
            Err(m) => {
                self.report(malformed(offset, "the head of a batch", m));
                return Ok(());
            }
        };
        self.interval.live_to = self.interval.live_to.max(live_to);
        let entry = FrameEntry { offset, checked_len: header.checked_len };
        self.interval.frames.push(entry);
        let mut axes: Vec<Option<(Vec<i64>, Vec<i64>)>> = Vec::with_capacity(head.axes.len());
        for (index, axis) in head.axes.iter().enumerate() {
            let first = axes.first().and_then(|first| first.as_ref());
            // What refers to a damaged axis is lost with it, and reported with it.
            let orphan = axis.refers_to_first && first.is_none();
            let read = if orphan { None } else { Some(read_axis(body, axis, first)) };
            axes.push(match read {
                Some(Ok(axis)) => Some(axis),
                Some(Err(m)) => {
                    let place = Segment::batch_byte(entry, axis.offset as u64);
                    self.report(malformed(place, &format!("axis {index} of the batch at {offset}"), m));
                    None
                }
                None => None,
            });
        }
        for column in &head.columns {
            let place = Segment::batch_byte(entry, column.offset as u64);
            let Some(declaration) = self.declaration(column.series)? else {
                let expected = format!("a declaration of series {} before the batch", column.series);
                self.report(damage(offset, expected, "none"));
                self.found.orphans += column.points as u64;
                continue;
            };
            let bytes = body.get(column.offset..column.offset + column.len).unwrap_or_default();
            let mut values = vec![0.0; column.points];
            let seed = declaration.series.seed();
            let read = batch::read_column(bytes, column, seed, &mut values, &mut self.scratch);
            let axis = axes.get(column.axis).and_then(Option::as_ref);
            let mut summary = None;
            let mut fingerprint = None;
            match (read, axis) {
                (Ok(extras), Some((steps, timestamps_ms))) => {
                    summary = Summary::of(steps, timestamps_ms, &values);
                    let mut crc = crc32fast::Hasher::new();
                    steps.iter().chain(timestamps_ms).for_each(|word| crc.update(&word.to_le_bytes()));
                    values.iter().for_each(|value| crc.update(&value.to_bits().to_le_bytes()));
                    for extra in &extras {
                        extra.dictionary.iter().for_each(|text| crc.update(text));
                    }
                    fingerprint = Some(crc.finalize());
                    self.found.columns += 1;
                    self.found.points += column.points as u64;
                    if self.sound.wants_columns() {
                        let first_ordinal = column.first_ordinal;
                        let (steps, timestamps_ms) = (steps.clone(), timestamps_ms.clone());
                        let decoded = DecodedColumn { first_ordinal, steps, timestamps_ms, values, extras };
                        self.sound.column(offset, &declaration, decoded)?;
                    }
                }
                (Ok(_), None) => {}
                (Err(m), _) => {
                    let series = &declaration.series;
                    let (end, run) = (column.first_ordinal + column.points as u64, series.run);
                    let first = column.first_ordinal;
                    let what = format!("points {first}..{end} of '{}' in run {run}", series.key);
                    self.report(malformed(place, &what, m));
                }
            }
            self.counted.points += column.points as u64;
            let end = column.first_ordinal + column.points as u64;
            let span = ColumnSpan { first_ordinal: column.first_ordinal, end, fingerprint };
            let key = (declaration.series.clone(), declaration.origin);
            self.found.spans.entry(key).or_default().push(span);
            self.interval.column(declaration, span, summary, offset);
        }
        Ok(())
    }

    fn event(&mut self, offset: u64, payload: &[u8]) -> Result<()> {
        match decode_event(payload) {
            Ok(Record::Event(event)) => {
                for (_, uid) in entities_of(&event.operations) {
                    self.interval.entities.entry(uid).or_default().push(offset);
                }
                self.found.events += 1;
                self.sound.event(offset, payload, &event)?;
            }
            Ok(Record::Ignorable) => {
                self.found.notes.push((offset, "an event of a newer program was skipped".into()));
            }
            Ok(Record::Newer { kind, version }) => {
                let text =
                    format!("a metadata record of kind {kind} version {version} needs a newer program");
                self.found.notes.push((offset, text));
            }
            Err(m) => self.report(malformed(offset, "an event", m)),
        }
        self.counted.events += 1;
        self.counted.last_event = offset;
        Ok(())
    }

    fn blob(&mut self, offset: u64, payload: &[u8]) -> Result<()> {
        if let Some(id) = blob_of(payload) {
            let uid = Uid::from_bytes(*id.as_bytes());
            self.interval.entities.entry(uid).or_default().push(offset);
        }
        let decoded = decode_blob(payload);
        let checked = match &decoded {
            Ok(BlobFrame::Chunk(_)) => return Ok(()),
            Ok(BlobFrame::Whole { id, bytes }) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(bytes);
                has_address(&hasher, *id).then_some(()).ok_or_else(|| {
                    damage(offset, format!("the bytes of blob {id}"), "bytes of another address")
                })
            }
            Ok(BlobFrame::Manifest { id, len, chunks }) => self.chunks(offset, *id, *len, chunks),
            Err(m) => Err(malformed(offset, "a blob", *m)),
        };
        match checked {
            Ok(()) => {
                self.found.blobs += 1;
                if let Ok(frame) = &decoded {
                    self.sound.blob(offset, payload, frame)?;
                }
            }
            Err(damage) => self.report(damage),
        }
        Ok(())
    }

    fn chunks(&self, offset: u64, id: BlobId, len: u64, chunks: &[u64]) -> Result<(), Damage> {
        let mut hasher = blake3::Hasher::new();
        let mut total = 0u64;
        for &chunk in chunks.iter() {
            let lost = |found: String| damage(offset, format!("the chunk of blob {id} at {chunk}"), found);
            if chunk >= offset {
                return Err(lost("a place behind its manifest".into()));
            }
            let payload =
                self.segment.read_payload(chunk, FrameKind::Blob).map_err(|e| lost(e.to_string()))?;
            let Ok(BlobFrame::Chunk(bytes)) = decode_blob(&payload) else {
                return Err(lost("another blob frame".into()));
            };
            hasher.update(&bytes);
            total += bytes.len() as u64;
        }
        if total != len || !has_address(&hasher, id) {
            let found = format!("{total} bytes of another address");
            return Err(damage(offset, format!("{len} bytes of blob {id}"), found));
        }
        Ok(())
    }

    fn footer(&mut self, offset: u64, payload: &[u8]) -> Result<()> {
        self.counted.digest = *self.hasher.finalize().as_bytes();
        self.found.is_closed = true;
        match Footer::decode(payload) {
            Ok(footer) if footer.digest != self.counted.digest => {
                // Found already, and named better, if it is in something that has a checksum of its own.
                if self.found.damage.is_empty() {
                    let expected = "a segment whose digest is that of its footer";
                    self.found.damage.push(damage(SEGMENT_HEADER_BYTES as u64, expected, "another digest"));
                }
            }
            Ok(footer) if footer != self.counted && self.found.damage.is_empty() => {
                let counts =
                    |f: &Footer| format!("{} frames, {} points, {} events", f.frames, f.points, f.events);
                self.found.damage.push(damage(offset, counts(&self.counted), counts(&footer)));
            }
            Ok(_) => {}
            Err(m) => self.found.damage.push(malformed(offset, "a footer", m)),
        }
        if self.segment.file_len()? > offset + FOOTER_FRAME_BYTES as u64 {
            let end = offset + FOOTER_FRAME_BYTES as u64;
            self.found.damage.push(damage(end, "the end of the file behind its footer", "more bytes"));
        }
        Ok(())
    }

    fn end(&mut self, torn: u64) -> Result<()> {
        let len = self.segment.file_len()?;
        // It may have grown meanwhile; what was walked counts.
        let start = self.hashed_to.max(len.saturating_sub(torn).min(len));
        if torn > 0 && !self.found.is_closed {
            if self.is_damaged_footer(start, torn)? {
                self.found.damage.push(damage(start, "the footer of a closed segment", "other bytes"));
                self.found.is_closed = true;
            } else if self.segment.header.kind == SegmentKind::Sealed {
                self.found.damage.push(damage(start, "a whole frame in a sealed segment", "other bytes"));
            } else {
                self.found.torn = Some((start, torn));
            }
        } else if !self.found.is_closed && self.found.damage.iter().any(|d| d.offset >= self.last_frame) {
            // A frame as long as it should be of which some bytes never arrived, and nothing follows it.
            let start = self.group.unwrap_or(self.last_frame);
            self.found.damage.retain(|d| d.offset < start);
            self.found.torn = Some((start, len.saturating_sub(start)));
        } else if let Some(start) = self.group {
            self.found.torn = Some((start, len.saturating_sub(start)));
        }
        if torn > 0 {
            self.hash_to(len)?;
        }
        Ok(())
    }

    /// Whether the last bytes are what the footer would be, but for some of them.
    fn is_damaged_footer(&mut self, start: u64, torn: u64) -> Result<bool> {
        if torn != FOOTER_FRAME_BYTES as u64 || self.hashed_to != start {
            return Ok(false);
        }
        self.counted.digest = *self.hasher.finalize().as_bytes();
        let mut expected = vec![0; FRAME_HEADER_BYTES];
        self.counted.encode(&mut expected);
        let payload_len = expected.len() - FRAME_HEADER_BYTES;
        let seed = frame_seed(self.segment.header.id, start);
        let last_event = self.counted.last_event;
        finish_frame(&mut expected, 0, FrameKind::Footer, 0, payload_len, seed, last_event);
        let there = self.segment.read(start, FOOTER_FRAME_BYTES)?;
        let differing = expected.iter().zip(&there).filter(|(a, b)| a != b).count();
        Ok(differing <= FOOTER_BYTES_DAMAGED_MAX)
    }
}

fn read_axis(
    body: &[u8],
    entry: &AxisEntry,
    first: Option<&(Vec<i64>, Vec<i64>)>,
) -> Result<(Vec<i64>, Vec<i64>), Malformed> {
    let bytes = body.get(entry.offset..entry.offset + entry.len).unwrap_or_default();
    let first = first.map(|(steps, timestamps_ms)| Axis { steps, timestamps_ms });
    let (mut steps, mut timestamps_ms) = (vec![0; entry.points], vec![0; entry.points]);
    batch::read_axis(bytes, entry, first, &mut steps, &mut timestamps_ms)?;
    Ok((steps, timestamps_ms))
}

fn has_address(hasher: &blake3::Hasher, id: BlobId) -> bool {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    BlobId::from_bytes(bytes) == id
}

fn repeated_declarations(segment: &Segment) -> Result<HashMap<u32, Arc<Declaration>>> {
    let mut all = HashMap::new();
    let state = segment.state();
    for directory in &state.directories {
        for row in &directory.head.rows {
            match segment.stored_row_entry(directory, row) {
                Ok(entry) => all.extend(
                    entry.series.into_iter().map(|s| (s.declaration.number, Arc::new(s.declaration))),
                ),
                Err(error @ Error::Io { .. }) => return Err(error),
                // Reported where the directory is checked.
                Err(_) => {}
            }
        }
    }
    Ok(all)
}
