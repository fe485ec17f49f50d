//! Reading one segment, closed or still growing.
//!
//! Contract: opening costs a few reads whatever the size: a closed segment is read through its footer and directories,
//! an open one through its last directory and at most 4 MiB of tail. What a reader knows is an immutable
//! [`SegmentState`]; [`Segment::refresh`] replaces it. A torn tail is no error; damage is recorded with its place and
//! everything outside it stays readable.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::format::batch;
use crate::format::blob::BLOB_ENTITY;
use crate::format::declare::Declaration;
use crate::format::directory::{Directory, DirectoryHead, EntityEntry, EntityRow, FrameEntry, Posting};
use crate::format::event::EntityKind;
use crate::format::frame::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, check_payload, frame_seed, read_frame_header, seeded_crc,
};
use crate::format::live::{BATCH_PREFIX_BYTES, decode_batch_prefix};
use crate::format::segment::{
    FOOTER_FRAME_BYTES, Footer, HeaderProblem, Replaced, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind,
    decode_replaced,
};
use crate::id::Uid;
use crate::limits::FRAME_BYTES_MAX;
use crate::log::segment_scan::damage_of;
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// What is read at first where a frame's length is not known.
const SHORT_READ_BYTES: usize = 4096;
/// Bytes before a mark's offset that its crc covers.
const MARK_BYTES: u64 = 64;

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
    /// Whether it has a row of a writer; few have one, and every look at a live file asks.
    pub has_writers: bool,
}

/// What is known of a segment at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentState {
    /// End of the last whole frame.
    pub valid_len: u64,
    /// Payload crc of that frame; 0 for none.
    pub last_crc: u32,
    /// Bytes behind it when last looked: a write in progress, or a torn tail.
    pub torn: u64,
    /// Directories, oldest first.
    pub directories: Vec<Arc<LoadedDirectory>>,
    /// What follows the last directory.
    pub tail: Arc<Directory>,
    /// Declarations since the last directory.
    pub(super) declared: Arc<HashMap<u32, Arc<Declaration>>>,
    /// Present once closed.
    pub footer: Option<Footer>,
    /// What it replaces.
    pub replaced: Arc<Vec<Replaced>>,
    /// Places that could not be read.
    pub damage: Arc<Vec<Damage>>,
    /// The writer's live records below this are covered by this segment or earlier ones.
    pub live_to: u64,
    /// The same as far as the frames before the first damage say it.
    pub(super) sure_live_to: Option<u64>,
}

impl SegmentState {
    /// Entities (not blobs) that it knows something of.
    pub(crate) fn uids(&self) -> impl Iterator<Item = Uid> + '_ {
        let rows = self.directories.iter().flat_map(|d| d.head.rows.iter().map(|r| (r.uid, r.kind)));
        let tail = self.tail.entities.iter().map(|(uid, (kind, _))| (*uid, *kind));
        rows.chain(tail).filter(|(_, kind)| *kind != BLOB_ENTITY).map(|(uid, _)| uid)
    }

    /// Whether all of it is in what was read up to a length, the last frame there having a crc (0: not said).
    pub(crate) fn is_within(&self, (valid_len, last_crc): (u64, u32)) -> bool {
        let same_end = self.valid_len < valid_len || last_crc == 0 || last_crc == self.last_crc;
        self.valid_len <= valid_len && same_end
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
    /// Set if a bit of the header was flipped; it was read all the same.
    pub header_damage: Option<Damage>,
    file: Arc<dyn VfsFile>,
    state: RwLock<Arc<SegmentState>>,
    /// Frames that were damaged where damage is passed over.
    passed_over: Mutex<BTreeSet<u64>>,
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
        let (header, header_damage) = match SegmentHeader::decode(&bytes) {
            Ok(header) => (header, None),
            Err(HeaderProblem::Newer(found, supported)) => {
                return Err(Error::NewerFormat {
                    path: path.to_path_buf(),
                    what: "the segment",
                    found,
                    supported,
                });
            }
            // Every frame needs the id in the header, so one flipped bit here must not cost the whole file.
            Err(HeaderProblem::Malformed(malformed)) => match SegmentHeader::repair(&bytes) {
                Some((header, bit)) => {
                    let found = format!("bit {} of byte {} flipped", bit % 8, bit / 8);
                    let expected = "a segment header whose crc fits".into();
                    (header, Some(Damage { offset: 0, expected, found }))
                }
                None => return Err(malformed.at(path, 0)),
            },
        };
        let state = RwLock::new(Arc::new(SegmentState::default()));
        let (path, passed_over) = (path.to_path_buf(), Mutex::default());
        let segment = Self { path, header, identity, header_damage, file, state, passed_over };
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

    /// Remembers that the frame at an offset is damaged and an answer goes without it.
    pub(crate) fn pass_over(&self, offset: u64) {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner).insert(offset);
    }

    /// Offsets of the frames that were passed over so far.
    pub(crate) fn passed_over(&self) -> BTreeSet<u64> {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its writer holds its lock, see [`VfsFile::is_locked`].
    pub(crate) fn is_locked(&self) -> Result<bool> {
        self.file.is_locked().map_err(|e| Error::io("ask for the lock of", &self.path, e))
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
        if let Some((footer, crc)) = self.read_footer(len)
            && let Ok(directories) = self.load_directories(footer.last_directory)
        {
            state.live_to = directories.iter().map(|d| d.head.live_to).max().unwrap_or(0);
            state.directories = directories;
            state.footer = Some(footer);
            state.last_crc = crc;
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
            state.last_crc = header.payload_crc;
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
            let list = self.read_checked(offset, &header).and_then(|payload| {
                decode_replaced(&payload).map_err(|m| m.at(&self.path, offset + FRAME_HEADER_BYTES as u64))
            });
            match list {
                Ok(list) => state.replaced = Arc::new(list),
                Err(error @ Error::Io { .. }) => return Err(error),
                // The list saves reading and nothing else: without it everything is still there.
                Err(error) => Arc::make_mut(&mut state.damage).push(damage_of(offset, error)),
            }
        }
        Ok(())
    }

    /// The footer, and the crc of its payload.
    fn read_footer(&self, len: u64) -> Option<(Footer, u32)> {
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
        Some((Footer::decode(payload).ok()?, header.payload_crc))
    }

    /// Loads the directory at `last` and all before it; oldest first.
    fn load_directories(&self, last: u64) -> Result<Vec<Arc<LoadedDirectory>>> {
        let mut directories = Vec::new();
        let mut offset = last;
        while offset != 0 {
            let (header, checked) = self.read_whole(offset)?;
            if header.kind != FrameKind::Directory || !header.is_known() {
                let found = format!("{:?} version {}", header.kind, header.version);
                return Err(Error::corrupt(&self.path, offset, "a directory frame", found));
            }
            let directory = self.decode_directory(offset, &header, &checked)?;
            // Decoding made sure that `previous` lies before this one, so the loop ends.
            offset = directory.head.previous;
            directories.push(Arc::new(directory));
        }
        directories.reverse();
        Ok(directories)
    }

    pub(super) fn load_directory(&self, offset: u64, header: &FrameHeader) -> Result<LoadedDirectory> {
        self.decode_directory(offset, header, &self.read_checked(offset, header)?)
    }

    fn decode_directory(&self, offset: u64, header: &FrameHeader, checked: &[u8]) -> Result<LoadedDirectory> {
        let payload_offset = offset + FRAME_HEADER_BYTES as u64;
        let head = DirectoryHead::decode(checked, header.payload_len, offset)
            .map_err(|m| m.at(&self.path, payload_offset))?;
        let has_writers = head.rows.iter().any(|row| row.kind == EntityKind::WRITER);
        Ok(LoadedDirectory { payload_offset, seed: frame_seed(self.header.id, offset), head, has_writers })
    }

    /// Reads and checks the frame header at `offset`.
    pub(crate) fn frame_header(&self, offset: u64) -> Result<FrameHeader> {
        let bytes = self.read(offset, FRAME_HEADER_BYTES)?;
        read_frame_header(&bytes, self.header.id, offset).map_err(|m| m.at(&self.path, offset))
    }

    /// Reads and checks a frame's header and the checked part of its payload; in one read if that is short.
    fn read_whole(&self, offset: u64) -> Result<(FrameHeader, Vec<u8>)> {
        let mut bytes = vec![0u8; SHORT_READ_BYTES];
        let read = self.file.read_at(&mut bytes, offset).map_err(|e| Error::io("read", &self.path, e))?;
        bytes.truncate(read);
        let header =
            read_frame_header(&bytes, self.header.id, offset).map_err(|m| m.at(&self.path, offset))?;
        let end = FRAME_HEADER_BYTES + header.checked_len as usize;
        if end > bytes.len() {
            let checked = self.read_checked(offset, &header)?;
            return Ok((header, checked));
        }
        bytes.truncate(end);
        bytes.drain(..FRAME_HEADER_BYTES);
        check_payload(&header, &bytes, self.header.id, offset).map_err(|m| m.at(&self.path, offset))?;
        Ok((header, bytes))
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

    /// Takes in what was appended since the last look. Cheap when nothing was.
    pub(crate) fn refresh(&self) -> Result<()> {
        let known = self.state();
        let len = self.file_len()?;
        if known.footer.is_some() || len == known.valid_len + known.torn && known.torn == 0 {
            return Ok(());
        }
        let mut state = SegmentState::clone(&known);
        self.scan(&mut state, len)?;
        let same = (state.valid_len, state.torn) == (known.valid_len, known.torn);
        // A torn tail that stays as it is is no news; a new state would empty every cache above.
        if !same {
            self.replace_state(state);
        }
        Ok(())
    }

    /// Decodes the checked part of a batch frame.
    pub(super) fn decode_batch(
        &self,
        offset: u64,
        header: &FrameHeader,
        checked: &[u8],
    ) -> Result<(u64, batch::Head)> {
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

    /// What a directory's row stands for. If its block is damaged, the frames that the directory covers say the same.
    pub(crate) fn row_entry(&self, directory: &LoadedDirectory, row: &EntityRow) -> Result<EntityEntry> {
        match self.stored_row_entry(directory, row) {
            Err(Error::Corrupt { .. }) => self.rescan_entry(directory, row.uid),
            other => other,
        }
    }

    /// Reads the frames that a directory covers and makes the entry of one entity anew.
    fn rescan_entry(&self, directory: &LoadedDirectory, uid: Uid) -> Result<EntityEntry> {
        let end = directory.payload_offset - FRAME_HEADER_BYTES as u64;
        let mut state = SegmentState { valid_len: directory.head.covers_from, ..SegmentState::default() };
        self.scan(&mut state, end)?;
        let Some((_, entry)) = state.tail.entities.get(&uid) else { return Ok(EntityEntry::default()) };
        let mut entry = entry.clone();
        // Places in the list of frames that was found become places in the list that the directory has.
        let place = |posting: &Posting| {
            let frame = state.tail.frames.get(posting.frame as usize)?;
            let at = directory.head.frames.iter().position(|f| f.offset == frame.offset)?;
            Some(Posting { frame: at as u32, extent: posting.extent.clone() })
        };
        for series in &mut entry.series {
            series.postings = series.postings.iter().filter_map(place).collect();
        }
        Ok(entry)
    }

    /// Reads the block of a directory's row.
    pub(crate) fn stored_row_entry(
        &self,
        directory: &LoadedDirectory,
        row: &EntityRow,
    ) -> Result<EntityEntry> {
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
}
