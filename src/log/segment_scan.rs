//! Walking frames: from a known end on, backwards to the last directory, past damage to the next valid frame.
//!
//! Contract: a frame is valid only at its place, so what merely looks like one inside a payload is never taken. What a
//! valid frame follows is damage; what none follows is a torn tail.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::batch;
use crate::format::blob::{BLOB_ENTITY, blob_of};
use crate::format::declare::{Declaration, decode_declarations};
use crate::format::directory::{Directory, EntityEntry, Extent, FrameEntry, Posting, SeriesEntry};
use crate::format::event::EntityKind;
use crate::format::event_record::decode_event;
use crate::format::frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind, read_frame_header, seeded_crc,
};
use crate::format::segment::{Footer, SEGMENT_HEADER_BYTES, decode_replaced};
use crate::id::Uid;
use crate::log::reader::touched;
use crate::log::segment_reader::{Damage, Segment, SegmentState};

/// Window of a search.
const SEARCH_BYTES: usize = 1024 * 1024;

/// Gets each frame's offset, and its header or the damage in its place.
type Visit<'a> = dyn FnMut(u64, std::result::Result<&FrameHeader, Damage>) -> Result<()> + 'a;

impl Segment {
    /// Searches backwards for the last valid directory frame. A frame is valid only at its place, so what merely looks
    /// like one inside a payload is not taken.
    pub(super) fn find_last_directory(&self, len: u64) -> Result<Option<(u64, FrameHeader)>> {
        let start = SEGMENT_HEADER_BYTES as u64;
        let mut end = len;
        while end > start {
            let from = end.saturating_sub(SEARCH_BYTES as u64).max(start);
            // Overlap, so that a header across the border is seen whole.
            let window_end = (end + FRAME_HEADER_BYTES as u64 - 1).min(len);
            let window = self.read(from, usize::try_from(window_end - from).unwrap_or(0))?;
            let kind_at = |at: usize| window.get(at + 4) == Some(&FrameKind::Directory.number());
            for at in magic_positions(&window).into_iter().rev().filter(|&at| kind_at(at)) {
                let offset = from + at as u64;
                let bytes = window.get(at..).unwrap_or_default();
                if let Ok(header) = read_frame_header(bytes, self.header.id, offset)
                    && header.kind == FrameKind::Directory
                    && offset + header.frame_len() <= len
                {
                    return Ok(Some((offset, header)));
                }
            }
            end = from;
        }
        Ok(None)
    }

    /// Reads frames from `state.valid_len` on.
    pub(super) fn scan(&self, state: &mut SegmentState, len: u64) -> Result<()> {
        loop {
            let offset = state.valid_len;
            let rest = len.saturating_sub(offset);
            if rest == 0 {
                state.torn = 0;
                return Ok(());
            }
            match self.scan_frame(state, offset, len) {
                Ok(frame_len) => state.valid_len = offset + frame_len,
                Err(error @ (Error::Io { .. } | Error::NewerFormat { .. })) => return Err(error),
                Err(error) => {
                    // Of a group that is not whole, nothing counts: neither is it where reading goes on.
                    let broken = match &error {
                        Error::TornTail { offset, .. } => *offset,
                        _ => offset,
                    };
                    match self.resync(broken + 1, len)? {
                        // A valid frame follows, so this is damage and no torn tail.
                        Some(next) => {
                            Arc::make_mut(&mut state.damage).push(damage_of(offset, error));
                            state.sure_live_to.get_or_insert(state.live_to);
                            state.valid_len = next;
                        }
                        None => {
                            state.torn = rest;
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// The next valid frame at or after `from`.
    pub(crate) fn resync(&self, from: u64, len: u64) -> Result<Option<u64>> {
        let mut at = from;
        while at + FRAME_HEADER_BYTES as u64 <= len {
            let end = (at + SEARCH_BYTES as u64).min(len);
            let window = self.read(at, usize::try_from(end - at).unwrap_or(0))?;
            for position in magic_positions(&window) {
                let offset = at + position as u64;
                let bytes = window.get(position..).unwrap_or_default();
                if let Ok(header) = read_frame_header(bytes, self.header.id, offset)
                    && offset + header.frame_len() <= len
                {
                    return Ok(Some(offset));
                }
            }
            if end == len {
                break;
            }
            at = end - (FRAME_HEADER_BYTES as u64 - 1);
        }
        Ok(None)
    }

    /// Takes in the frame at `offset`; returns its length.
    fn scan_frame(&self, state: &mut SegmentState, offset: u64, len: u64) -> Result<u64> {
        let header = self.frame_header(offset)?;
        let end = offset + header.frame_len();
        if end > len {
            return Err(Error::TornTail { path: self.path.clone(), offset, missing: end - len });
        }
        if !header.is_known() {
            if header.is_ignorable() {
                state.last_crc = header.payload_crc;
                return Ok(header.frame_len());
            }
            return Err(self.newer(&header));
        }
        if header.is_grouped()
            && let Some(broken) = self.break_in_group(end, len)?
        {
            return Err(Error::TornTail { path: self.path.clone(), offset: broken, missing: 1 });
        }
        let payload_offset = offset + FRAME_HEADER_BYTES as u64;
        let malformed = |m: crate::error::Malformed| m.at(&self.path, payload_offset);
        match header.kind {
            FrameKind::Declare => {
                let payload = self.read_checked(offset, &header)?;
                let list = decode_declarations(self.header.writer, &payload).map_err(malformed)?;
                let declared = Arc::make_mut(&mut state.declared);
                declared.extend(list.into_iter().map(|d| (d.number, Arc::new(d))));
            }
            FrameKind::Batch => self.scan_batch(state, offset, &header)?,
            FrameKind::Event => {
                let payload = self.read_checked(offset, &header)?;
                let record = decode_event(&payload).map_err(malformed)?;
                for (kind, uid) in touched(&self.path, record)? {
                    note_event(state, kind, uid, offset);
                }
            }
            FrameKind::Blob => {
                let payload = self.read_checked(offset, &header)?;
                if let Some(id) = blob_of(&payload) {
                    note_event(state, BLOB_ENTITY, Uid::from_bytes(*id.as_bytes()), offset);
                }
            }
            FrameKind::Directory => {
                let directory = self.load_directory(offset, &header)?;
                state.live_to = state.live_to.max(directory.head.live_to);
                // A directory that covers more than what is damaged before it is the better source; one that starts
                // later leaves the tail before it in force.
                if directory.head.covers_from <= state.tail.covers_from {
                    state.tail = Arc::new(Directory { covers_from: end, ..Directory::default() });
                    state.declared = Arc::default();
                }
                state.directories.push(Arc::new(directory));
            }
            FrameKind::Footer => {
                let payload = self.read_checked(offset, &header)?;
                state.footer = Some(Footer::decode(&payload).map_err(malformed)?);
            }
            FrameKind::Replaces => {
                let payload = self.read_checked(offset, &header)?;
                state.replaced = Arc::new(decode_replaced(&payload).map_err(malformed)?);
            }
            FrameKind::Filler | FrameKind::Unknown(_) => {}
        }
        state.last_crc = header.payload_crc;
        Ok(header.frame_len())
    }

    /// Where the frames from `offset` on, up to the first that is not grouped, are not whole.
    fn break_in_group(&self, mut offset: u64, len: u64) -> Result<Option<u64>> {
        while offset < len {
            let header = match self.frame_header(offset) {
                Ok(header) => header,
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(_) => return Ok(Some(offset)),
            };
            let end = offset + header.frame_len();
            if end > len {
                return Ok(Some(offset));
            }
            match self.read_checked(offset, &header) {
                Ok(_) if !header.is_grouped() => return Ok(None),
                Ok(_) => offset = end,
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(_) => return Ok(Some(offset)),
            }
        }
        Ok(Some(offset))
    }

    fn newer(&self, header: &FrameHeader) -> Error {
        Error::NewerFormat {
            path: self.path.clone(),
            what: "a frame",
            found: format!("kind {} version {}", header.kind.number(), header.version),
            supported: format!("version {} of that kind", header.kind.version_max()),
        }
    }

    fn scan_batch(&self, state: &mut SegmentState, offset: u64, header: &FrameHeader) -> Result<()> {
        let checked = self.read_checked(offset, header)?;
        let (live_to, head) = self.decode_batch(offset, header, &checked)?;
        let end = offset + header.frame_len();
        if self.frame_header(end).is_err() && !self.is_batch_whole(state, offset, header, &head)? {
            // Its writing was interrupted: the pieces lie behind what the frame's crc covers.
            return Err(Error::TornTail { path: self.path.clone(), offset, missing: 1 });
        }
        state.live_to = state.live_to.max(live_to);
        let tail = Arc::make_mut(&mut state.tail);
        let frame = tail.frames.len() as u32;
        tail.frames.push(FrameEntry { offset, checked_len: header.checked_len });
        let mut undeclared = None;
        // A run's series come in the same order in every batch, so the next one is most likely the right one.
        let mut likely = 0;
        for column in &head.columns {
            let Some(declaration) = state.declared.get(&column.series) else {
                // Its declaration was damaged; the other series of the batch are as good as before.
                undeclared = Some(column.series);
                continue;
            };
            let run = declaration.series.run;
            let (_, entry) = tail.entities.entry(run).or_insert((EntityKind::RUN, EntityEntry::default()));
            // As in directories: points behind a hole are an entry of their own.
            let goes_on = |s: &SeriesEntry| {
                s.declaration.number == column.series && s.extent.end() == column.first_ordinal
            };
            if !entry.series.get(likely).is_some_and(goes_on) {
                likely = entry.series.iter().rposition(goes_on).unwrap_or(entry.series.len());
            }
            let known = entry.series.get_mut(likely);
            likely += 1;
            match known {
                Some(series) => {
                    series.extent.points += column.points as u64;
                    if series.postings.last().is_none_or(|p| p.frame != frame) {
                        series.postings.push(Posting { frame, extent: None });
                    }
                }
                None => entry.series.push(SeriesEntry {
                    declaration: Declaration::clone(declaration),
                    extent: Extent {
                        first_ordinal: column.first_ordinal,
                        points: column.points as u64,
                        summary: Vec::new(),
                    },
                    postings: vec![Posting { frame, extent: None }],
                }),
            }
        }
        match undeclared {
            None => Ok(()),
            Some(series) => {
                let expected = format!("a declaration of series {series} before its batch");
                Err(Error::corrupt(&self.path, offset, expected, "none"))
            }
        }
    }

    /// Whether all pieces of a batch are what was written; asked of a batch behind which nothing is valid.
    fn is_batch_whole(
        &self,
        state: &SegmentState,
        offset: u64,
        header: &FrameHeader,
        head: &batch::Head,
    ) -> Result<bool> {
        let entry = FrameEntry { offset, checked_len: header.checked_len };
        let fits = |seed: u32, at: usize, len: usize, crc: u32| -> Result<bool> {
            Ok(seeded_crc(seed, &self.read(Self::batch_byte(entry, at as u64), len)?) == crc)
        };
        for axis in &head.axes {
            if !fits(0, axis.offset, axis.len, axis.crc)? {
                return Ok(false);
            }
        }
        for column in &head.columns {
            let declaration = state.declared.get(&column.series);
            let seed = declaration.map(|declaration| declaration.series.seed());
            if let Some(seed) = seed
                && !fits(seed, column.offset, column.len, column.crc)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Walks every frame from the start, whatever directories say; `visit` gets (offset, header) of valid headers and
    /// the damage between them. Returns the torn bytes at the end.
    pub(crate) fn walk(&self, visit: &mut Visit<'_>) -> Result<u64> {
        let len = self.file_len()?;
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        while offset < len {
            let problem = match self.frame_header(offset) {
                Ok(header) if offset + header.frame_len() <= len => {
                    visit(offset, Ok(&header))?;
                    offset += header.frame_len();
                    continue;
                }
                Ok(header) => (frame_text(&header), format!("only {} bytes", len - offset)),
                Err(Error::Corrupt { expected, found, .. }) => (expected, found),
                Err(Error::TornTail { .. }) => ("a frame header".into(), format!("{} bytes", len - offset)),
                Err(other) => return Err(other),
            };
            match self.resync(offset + 1, len)? {
                Some(next) => {
                    visit(offset, Err(Damage { offset, expected: problem.0, found: problem.1 }))?;
                    offset = next;
                }
                None => return Ok(len - offset),
            }
        }
        Ok(0)
    }
}

pub(super) fn damage_of(offset: u64, error: Error) -> Damage {
    match error {
        Error::Corrupt { offset, expected, found, .. } => Damage { offset, expected, found },
        other => Damage { offset, expected: "a whole frame".into(), found: other.to_string() },
    }
}

fn frame_text(header: &FrameHeader) -> String {
    format!("{} bytes of a {:?} frame", header.frame_len(), header.kind)
}

fn note_event(state: &mut SegmentState, kind: EntityKind, uid: Uid, offset: u64) {
    let tail = Arc::make_mut(&mut state.tail);
    let (known, entry) = tail.entities.entry(uid).or_insert((kind, EntityEntry::default()));
    // A batch may have come first and guessed "run".
    *known = kind;
    if entry.events.last() != Some(&offset) {
        entry.events.push(offset);
    }
}

fn magic_positions(window: &[u8]) -> Vec<usize> {
    window
        .windows(FRAME_MAGIC.len())
        .enumerate()
        .filter(|(_, w)| *w == FRAME_MAGIC)
        .map(|(at, _)| at)
        .collect()
}
