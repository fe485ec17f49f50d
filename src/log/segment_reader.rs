//! Reading one segment, closed or still growing.
//!
//! Contract: opening costs a few reads whatever the size: a closed segment is read through its footer and directories,
//! an open one through its last directory and at most 4 MiB of tail. What a reader knows is an immutable
//! [`SegmentState`]; [`Segment::refresh`] replaces it. A torn tail is no error; damage is recorded with its place and
//! everything outside it stays readable.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use crate::error::{Error, Result};
use crate::format::blob::{BLOB_ENTITY, blob_of};
use crate::format::declare::{Declaration, decode_declarations};
use crate::format::directory::{
    Directory, DirectoryHead, EntityEntry, EntityRow, Extent, FrameEntry, Posting, SeriesEntry,
};
use crate::format::event::EntityKind;
use crate::format::event_record::event_entities;
use crate::format::frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind, check_payload, frame_seed, read_frame_header,
    seeded_crc,
};
use crate::format::live::{BATCH_PREFIX_BYTES, decode_batch_prefix};
use crate::format::segment::{
    FOOTER_FRAME_BYTES, Footer, HeaderProblem, Replaced, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind,
    decode_replaced,
};
use crate::format::{batch, frame};
use crate::id::Uid;
use crate::limits::FRAME_BYTES_MAX;
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// Bytes before a mark's offset that its crc covers.
const MARK_BYTES: u64 = 64;
/// Window of the backward search for the last directory.
const SEARCH_BYTES: usize = 1024 * 1024;

/// A place in a segment that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub offset: u64,
    pub expected: String,
    pub found: String,
}

/// A directory whose head is in memory.
#[derive(Debug)]
pub(crate) struct LoadedDirectory {
    payload_offset: u64,
    seed: u32,
    pub head: DirectoryHead,
}

/// What is known of a segment at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentState {
    /// End of the last whole frame.
    pub valid_len: u64,
    /// Bytes behind it when last looked: a write in progress, or a torn tail.
    pub torn: u64,
    /// Directories, oldest first.
    pub directories: Vec<Arc<LoadedDirectory>>,
    /// What follows the last directory.
    pub tail: Arc<Directory>,
    /// Declarations since the last directory.
    declared: Arc<HashMap<u32, Arc<Declaration>>>,
    /// Present once closed.
    pub footer: Option<Footer>,
    /// What it replaces.
    pub replaced: Arc<Vec<Replaced>>,
    /// Places that could not be read.
    pub damage: Arc<Vec<Damage>>,
    /// The writer's live records below this are covered by this segment or earlier ones.
    pub live_to: u64,
}

impl SegmentState {
    /// Entities (not blobs) that it knows something of.
    pub(crate) fn uids(&self) -> impl Iterator<Item = Uid> + '_ {
        let rows = self.directories.iter().flat_map(|d| d.head.rows.iter().map(|r| (r.uid, r.kind)));
        let tail = self.tail.entities.iter().map(|(uid, (kind, _))| (*uid, *kind));
        rows.chain(tail).filter(|(_, kind)| *kind != BLOB_ENTITY).map(|(uid, _)| uid)
    }

    /// Whether it knows something of an entity. O(log n).
    pub(crate) fn knows(&self, uid: Uid) -> bool {
        self.tail.entities.contains_key(&uid) || self.directories.iter().any(|d| d.head.find(uid).is_some())
    }
}

/// One segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub path: PathBuf,
    pub header: SegmentHeader,
    /// Identity of the file, to notice that another one took its name.
    pub identity: u64,
    file: Arc<dyn VfsFile>,
    state: RwLock<Arc<SegmentState>>,
}

impl Segment {
    /// Opens a segment and learns what is in it.
    pub(crate) fn open(vfs: &dyn Vfs, path: &Path) -> Result<Self> {
        let file = vfs.open(path, OpenMode::Read).map_err(|e| Error::io("open", path, e))?;
        let identity = file.metadata().map_err(|e| Error::io("stat", path, e))?.identity;
        let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
        let read = file.read_at(&mut bytes, 0).map_err(|e| Error::io("read", path, e))?;
        let missing = (SEGMENT_HEADER_BYTES - read) as u64;
        if missing > 0 {
            return Err(Error::TornTail { path: path.to_path_buf(), offset: 0, missing });
        }
        let header = SegmentHeader::decode(&bytes).map_err(|problem| match problem {
            HeaderProblem::Malformed(malformed) => malformed.at(path, 0),
            HeaderProblem::Newer(found, supported) => {
                Error::NewerFormat { path: path.to_path_buf(), what: "the segment", found, supported }
            }
        })?;
        let state = RwLock::new(Arc::new(SegmentState::default()));
        let segment = Self { path: path.to_path_buf(), header, identity, file, state };
        let first = segment.load()?;
        segment.replace_state(first);
        Ok(segment)
    }

    /// What is known now.
    pub(crate) fn state(&self) -> Arc<SegmentState> {
        Arc::clone(&self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn replace_state(&self, state: SegmentState) {
        *self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(state);
    }

    /// Length of the file.
    pub(crate) fn file_len(&self) -> Result<u64> {
        self.file.len().map_err(|e| Error::io("measure", &self.path, e))
    }

    /// Reads exactly `len` bytes.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0u8; len];
        let read = self.file.read_at(&mut bytes, offset).map_err(|e| Error::io("read", &self.path, e))?;
        if read < len {
            return Err(Error::TornTail { path: self.path.clone(), offset, missing: (len - read) as u64 });
        }
        Ok(bytes)
    }

    fn load(&self) -> Result<SegmentState> {
        let len = self.file_len()?;
        let mut state = SegmentState { valid_len: SEGMENT_HEADER_BYTES as u64, ..SegmentState::default() };
        Arc::make_mut(&mut state.tail).covers_from = state.valid_len;
        if let Some(footer) = self.read_footer(len)
            && let Ok(directories) = self.load_directories(footer.last_directory)
        {
            state.live_to = directories.iter().map(|d| d.head.live_to).max().unwrap_or(0);
            state.directories = directories;
            state.footer = Some(footer);
            state.valid_len = len;
            Arc::make_mut(&mut state.tail).covers_from = len;
            self.load_replaced(&mut state)?;
            return Ok(state);
        }
        if let Some((offset, header)) = self.find_last_directory(len)?
            && let Ok(directories) = self.load_directories(offset)
        {
            state.live_to = directories.iter().map(|d| d.head.live_to).max().unwrap_or(0);
            state.directories = directories;
            state.valid_len = offset + header.frame_len();
            Arc::make_mut(&mut state.tail).covers_from = state.valid_len;
            self.load_replaced(&mut state)?;
        }
        self.scan(&mut state, len)?;
        Ok(state)
    }

    /// A Replaces frame, if there is one, is the first frame.
    fn load_replaced(&self, state: &mut SegmentState) -> Result<()> {
        let offset = SEGMENT_HEADER_BYTES as u64;
        let bytes = self.read(offset, FRAME_HEADER_BYTES)?;
        let Ok(header) = read_frame_header(&bytes, self.header.id, offset) else { return Ok(()) };
        if header.kind == FrameKind::Replaces {
            let payload = self.read_checked(offset, &header)?;
            let list = decode_replaced(&payload).map_err(|m| m.at(&self.path, offset + 32))?;
            state.replaced = Arc::new(list);
        }
        Ok(())
    }

    fn read_footer(&self, len: u64) -> Option<Footer> {
        let offset = len.checked_sub(FOOTER_FRAME_BYTES as u64)?;
        if offset < SEGMENT_HEADER_BYTES as u64 {
            return None;
        }
        let bytes = self.read(offset, FOOTER_FRAME_BYTES).ok()?;
        let header = read_frame_header(&bytes, self.header.id, offset).ok()?;
        let payload = bytes.get(FRAME_HEADER_BYTES..)?;
        if header.kind != FrameKind::Footer || !header.is_known() {
            return None;
        }
        check_payload(&header, payload, self.header.id, offset).ok()?;
        Footer::decode(payload).ok()
    }

    /// Loads the directory at `last` and all before it; oldest first.
    fn load_directories(&self, last: u64) -> Result<Vec<Arc<LoadedDirectory>>> {
        let mut directories = Vec::new();
        let mut offset = last;
        while offset != 0 {
            let header = self.frame_header(offset)?;
            if header.kind != FrameKind::Directory || !header.is_known() {
                let found = format!("{:?} version {}", header.kind, header.version);
                return Err(Error::corrupt(&self.path, offset, "a directory frame", found));
            }
            let directory = self.load_directory(offset, &header)?;
            // Decoding made sure that `previous` lies before this one, so the loop ends.
            offset = directory.head.previous;
            directories.push(Arc::new(directory));
        }
        directories.reverse();
        Ok(directories)
    }

    fn load_directory(&self, offset: u64, header: &FrameHeader) -> Result<LoadedDirectory> {
        let payload_offset = offset + FRAME_HEADER_BYTES as u64;
        let checked = self.read_checked(offset, header)?;
        let head = DirectoryHead::decode(&checked, header.payload_len, offset)
            .map_err(|m| m.at(&self.path, payload_offset))?;
        Ok(LoadedDirectory { payload_offset, seed: frame_seed(self.header.id, offset), head })
    }

    /// Reads and checks the frame header at `offset`.
    pub(crate) fn frame_header(&self, offset: u64) -> Result<FrameHeader> {
        let bytes = self.read(offset, FRAME_HEADER_BYTES)?;
        read_frame_header(&bytes, self.header.id, offset).map_err(|m| m.at(&self.path, offset))
    }

    /// Reads and checks the checked part of a frame's payload.
    pub(crate) fn read_checked(&self, offset: u64, header: &FrameHeader) -> Result<Vec<u8>> {
        let checked = self.read(offset + FRAME_HEADER_BYTES as u64, header.checked_len as usize)?;
        check_payload(header, &checked, self.header.id, offset).map_err(|m| m.at(&self.path, offset))?;
        Ok(checked)
    }

    /// Reads the whole payload of a frame that is checked as a whole and must be of `kind`.
    pub(crate) fn read_payload(&self, offset: u64, kind: FrameKind) -> Result<Vec<u8>> {
        let header = self.frame_header(offset)?;
        if header.kind != kind {
            let found = format!("{:?}", header.kind);
            return Err(Error::corrupt(&self.path, offset, format!("a frame of kind {kind:?}"), found));
        }
        self.read_checked(offset, &header)
    }

    /// Searches backwards for the last valid directory frame. A frame is valid only at its place, so what merely looks
    /// like one inside a payload is not taken.
    fn find_last_directory(&self, len: u64) -> Result<Option<(u64, FrameHeader)>> {
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

    /// Takes in what was appended since the last look. Cheap when nothing was.
    pub(crate) fn refresh(&self) -> Result<()> {
        let known = self.state();
        let len = self.file_len()?;
        if known.footer.is_some() || len == known.valid_len + known.torn && known.torn == 0 {
            return Ok(());
        }
        let mut state = SegmentState::clone(&known);
        drop(known);
        self.scan(&mut state, len)?;
        self.replace_state(state);
        Ok(())
    }

    /// Reads frames from `state.valid_len` on.
    fn scan(&self, state: &mut SegmentState, len: u64) -> Result<()> {
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
                Err(error) => match self.resync(offset + 1, len)? {
                    // A valid frame follows, so this is damage and no torn tail.
                    Some(next) => {
                        let damage = match error {
                            Error::Corrupt { offset, expected, found, .. } => {
                                Damage { offset, expected, found }
                            }
                            other => {
                                Damage { offset, expected: "a whole frame".into(), found: other.to_string() }
                            }
                        };
                        Arc::make_mut(&mut state.damage).push(damage);
                        state.valid_len = next;
                    }
                    None => {
                        state.torn = rest;
                        return Ok(());
                    }
                },
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
                return Ok(header.frame_len());
            }
            return Err(self.newer(&header));
        }
        if header.is_grouped() && !self.is_group_whole(end, len)? {
            return Err(Error::TornTail { path: self.path.clone(), offset, missing: 1 });
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
                for (kind, uid) in event_entities(&payload).map_err(malformed)? {
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
        Ok(header.frame_len())
    }

    /// Whether the frames from `offset` on, up to the first that is not grouped, are all whole.
    fn is_group_whole(&self, mut offset: u64, len: u64) -> Result<bool> {
        while offset < len {
            let header = match self.frame_header(offset) {
                Ok(header) => header,
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(_) => return Ok(false),
            };
            let end = offset + header.frame_len();
            if end > len || self.read_checked(offset, &header).is_err() {
                return Ok(false);
            }
            if !header.is_grouped() {
                return Ok(true);
            }
            offset = end;
        }
        Ok(false)
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
        state.live_to = state.live_to.max(live_to);
        let tail = Arc::make_mut(&mut state.tail);
        let frame = tail.frames.len() as u32;
        tail.frames.push(FrameEntry { offset, checked_len: header.checked_len });
        // A run's series come in the same order in every batch, so the next one is most likely the right one.
        let mut likely = 0;
        for column in &head.columns {
            let Some(declaration) = state.declared.get(&column.series) else {
                let expected = format!("a declaration of series {} before its batch", column.series);
                return Err(Error::corrupt(&self.path, offset, expected, "none"));
            };
            let points = column.points as u64;
            let run = declaration.series.run;
            let (_, entry) = tail.entities.entry(run).or_insert((EntityKind::RUN, EntityEntry::default()));
            // As in directories: points behind a hole are an entry of their own.
            let goes_on = |s: &SeriesEntry| {
                s.declaration.number == column.series
                    && s.extent.first_ordinal.checked_add(s.extent.points) == Some(column.first_ordinal)
            };
            if !entry.series.get(likely).is_some_and(goes_on) {
                likely = entry.series.iter().rposition(goes_on).unwrap_or(entry.series.len());
            }
            let known = entry.series.get_mut(likely);
            likely += 1;
            match known {
                Some(series) => {
                    series.extent.points += points;
                    if series.postings.last().is_none_or(|p| p.frame != frame) {
                        series.postings.push(Posting { frame, extent: None });
                    }
                }
                None => entry.series.push(SeriesEntry {
                    declaration: Declaration::clone(declaration),
                    extent: Extent { first_ordinal: column.first_ordinal, points, summary: Vec::new() },
                    postings: vec![Posting { frame, extent: None }],
                }),
            }
        }
        Ok(())
    }

    /// Decodes the checked part of a batch frame.
    fn decode_batch(&self, offset: u64, header: &FrameHeader, checked: &[u8]) -> Result<(u64, batch::Head)> {
        let payload_offset = offset + FRAME_HEADER_BYTES as u64;
        let body = checked.get(BATCH_PREFIX_BYTES..).unwrap_or_default();
        let payload_len = (header.payload_len as usize).saturating_sub(BATCH_PREFIX_BYTES);
        let decoded = decode_batch_prefix(checked)
            .and_then(|(_, live_to)| Ok((live_to, batch::decode_head(body, payload_len)?)));
        decoded.map_err(|m| m.at(&self.path, payload_offset))
    }

    /// Reads the head of the batch frame at `entry`.
    pub(crate) fn batch_head(&self, entry: FrameEntry) -> Result<batch::Head> {
        let len = FRAME_HEADER_BYTES + (entry.checked_len as usize).min(FRAME_BYTES_MAX);
        let bytes = self.read(entry.offset, len)?;
        let header = read_frame_header(&bytes, self.header.id, entry.offset)
            .map_err(|m| m.at(&self.path, entry.offset))?;
        if header.kind != FrameKind::Batch || header.checked_len != entry.checked_len {
            let found = format!("{:?} with {} checked bytes", header.kind, header.checked_len);
            return Err(Error::corrupt(&self.path, entry.offset, "the batch its directory names", found));
        }
        let checked = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        check_payload(&header, checked, self.header.id, entry.offset)
            .map_err(|m| m.at(&self.path, entry.offset))?;
        Ok(self.decode_batch(entry.offset, &header, checked)?.1)
    }

    /// Where in the file byte `at` of a batch's own payload is.
    pub(crate) fn batch_byte(entry: FrameEntry, at: u64) -> u64 {
        entry.offset + (FRAME_HEADER_BYTES + BATCH_PREFIX_BYTES) as u64 + at
    }

    /// What a directory knows of an entity. O(log n) and one read.
    pub(crate) fn entry(&self, directory: &LoadedDirectory, uid: Uid) -> Result<Option<EntityEntry>> {
        directory.head.find(uid).map(|row| self.row_entry(directory, row)).transpose()
    }

    /// Reads the block of a directory's row.
    pub(crate) fn row_entry(&self, directory: &LoadedDirectory, row: &EntityRow) -> Result<EntityEntry> {
        let offset = directory.payload_offset + u64::from(row.block_offset);
        let block = self.read(offset, row.block_len as usize)?;
        if seeded_crc(directory.seed, &block) != row.block_crc {
            return Err(Error::corrupt(
                &self.path,
                offset,
                "a directory block whose crc fits",
                "another crc",
            ));
        }
        directory.head.decode_block(self.header.writer, &block).map_err(|m| m.at(&self.path, offset))
    }

    /// A crc of the last bytes before `offset`, started from the segment's id: whether an index still fits.
    pub(crate) fn mark_crc(&self, offset: u64) -> Result<u32> {
        let from = offset.saturating_sub(MARK_BYTES);
        let bytes = self.read(from, usize::try_from(offset - from).unwrap_or(0))?;
        Ok(seeded_crc(frame_seed(self.header.id, offset), &bytes))
    }

    /// Whether it is closed for good.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().footer.is_some()
    }

    /// Whether it holds blobs.
    pub(crate) fn holds_blobs(&self) -> bool {
        self.header.kind == SegmentKind::Blobs
    }

    /// Walks every frame from the start, whatever directories say; `visit` gets (offset, header) of valid headers and
    /// the damage between them. Returns the torn bytes at the end.
    pub(crate) fn walk(
        &self,
        visit: &mut dyn FnMut(u64, std::result::Result<&FrameHeader, Damage>) -> Result<()>,
    ) -> Result<u64> {
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
        .windows(frame::FRAME_MAGIC.len())
        .enumerate()
        .filter(|(_, w)| *w == FRAME_MAGIC)
        .map(|(at, _)| at)
        .collect()
}
