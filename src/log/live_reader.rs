//! Live files of any writer, alive or dead: what is in them now.
//!
//! Contract: reads with `pread`, writes nothing, takes no lock. Only checks decide what is valid. The caller reads
//! segments afterwards and drops what frames cover ([`crate::log::View::live_to`]).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::bytes::Reader;
use crate::error::{Error, Result};
use crate::format::declare::{Declaration, take_declaration};
use crate::format::frame::seeded_crc;
use crate::format::live::{
    BLOCK_POINTS, BLOCK_RECORDS, BULK_MARK, CURSOR_BYTES, LIVE_HEADER_BYTES, LIVE_VERSION, LiveHeader,
    RELEASED_AT, declaration_seed, decode_block_header, decode_cursor, decode_record, is_unused_block,
    live_seed,
};
use crate::id::{StoreId, WriterId};
use crate::limits::{LIVE_BLOCK_BYTES, LIVE_RECORD_BYTES};
use crate::log::parse_live_name;
use crate::model::Point;
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// Reads of a changing word before it counts as damaged.
const RELEASED_READS_MAX: usize = 3;

/// One record of a live file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LiveRecord {
    pub sequence: u64,
    pub series: u32,
    pub point: Point,
}

/// What a live file held when it was read.
#[derive(Debug)]
pub(crate) struct LiveWindow {
    pub path: PathBuf,
    pub header: LiveHeader,
    /// Records below it are in frames.
    pub released: u64,
    /// By series number.
    pub declarations: HashMap<u32, Arc<Declaration>>,
    /// Valid records from `released` on, by sequence.
    pub records: Vec<LiveRecord>,
    /// What is not as it was written: (offset, text). Records and declarations have checks of their own, so the rest of
    /// the file is as good as before.
    pub damage: Vec<(u64, String)>,
}

impl LiveWindow {
    /// Records from `from` on that join without a hole, and how many follow behind the first hole. A bulk append whose
    /// batch is not seen is one.
    pub(crate) fn joined(&self, from: u64) -> (&[LiveRecord], usize) {
        let start = self.records.partition_point(|r| r.sequence < from);
        let rest = self.records.get(start..).unwrap_or_default();
        let follows = |(at, record): &(usize, &LiveRecord)| {
            record.series != BULK_MARK && record.sequence.checked_sub(from) == Some(*at as u64)
        };
        let (joined, behind) =
            rest.split_at_checked(rest.iter().enumerate().take_while(follows).count()).unwrap_or_default();
        (joined, behind.iter().filter(|r| r.series != BULK_MARK).count())
    }
}

/// Reads every live file of the folder. One that vanishes or is not written yet is left out.
pub(crate) fn read_live_windows(vfs: &dyn Vfs, live_dir: &Path) -> Result<Vec<LiveWindow>> {
    let entries = match vfs.list(live_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", live_dir, e)),
    };
    let mut windows = Vec::new();
    for entry in entries {
        if parse_live_name(&entry.name).is_some() {
            windows.extend(read_live_window(vfs, &live_dir.join(&entry.name))?);
        }
    }
    Ok(windows)
}

/// Reads the header of a live file; `None` if it is gone, has none yet, or cannot be made sense of.
pub(crate) fn read_live_header(vfs: &dyn Vfs, path: &Path) -> Result<Option<LiveHeader>> {
    let file = match vfs.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let Some(page) = read_full(&*file, path, 0, LIVE_HEADER_BYTES)? else { return Ok(None) };
    Ok(LiveHeader::decode(&page).ok().and_then(std::result::Result::ok))
}

/// Reads one live file; `None` if it is gone or has no header yet.
pub(crate) fn read_live_window(vfs: &dyn Vfs, path: &Path) -> Result<Option<LiveWindow>> {
    let file = match vfs.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let mut damage = Vec::new();
    let Some(header) = read_header(&*file, path, &mut damage)? else { return Ok(None) };
    let mut window = LiveWindow {
        path: path.to_path_buf(),
        released: 0,
        header,
        declarations: HashMap::new(),
        records: Vec::new(),
        damage,
    };
    let seed = live_seed(window.header.writer);
    window.released = read_released(&*file, path, seed)?.unwrap_or(0);
    let mut offset = LIVE_HEADER_BYTES as u64;
    while let Some(head) = read_full(&*file, path, offset, LIVE_RECORD_BYTES)? {
        if let Some((kind, number)) = decode_block_header(seed, words_at(&head, 0)) {
            let useful =
                kind != BLOCK_POINTS || number.saturating_add(BLOCK_RECORDS as u64) > window.released;
            if useful && let Some(block) = read_full(&*file, path, offset, LIVE_BLOCK_BYTES)? {
                window.take_block(seed, offset, &block);
            }
        } else if !is_unused_block(words_at(&head, 0)) {
            window.damage.push((offset, "expected a block header whose check fits, found another".into()));
        }
        offset += LIVE_BLOCK_BYTES as u64;
    }
    // Released meanwhile: the frames hold it, and its blocks may have been taken again while they were read.
    match read_released(&*file, path, seed)? {
        Some(released) => window.released = window.released.max(released),
        None => {
            let text = "expected a count of released records whose check fits, found another";
            window.damage.push((RELEASED_AT as u64, text.into()));
        }
    }
    // Blocks mostly lie in the order in which they were filled.
    if !window.records.is_sorted_by(|a, b| a.sequence < b.sequence) {
        window.records.sort_unstable_by_key(|r| r.sequence);
        window.records.dedup_by_key(|r| r.sequence);
    }
    let start = window.records.partition_point(|r| r.sequence < window.released);
    window.records.drain(..start);
    Ok(Some(window))
}

/// The header of a live file; `None` if none is written yet.
pub(super) fn read_header(
    file: &dyn VfsFile,
    path: &Path,
    damage: &mut Vec<(u64, String)>,
) -> Result<Option<LiveHeader>> {
    let Some(page) = read_full(file, path, 0, LIVE_HEADER_BYTES)? else { return Ok(None) };
    match LiveHeader::decode(&page) {
        Ok(Ok(header)) => Ok(Some(header)),
        Ok(Err(version)) => Err(Error::NewerFormat {
            path: path.to_path_buf(),
            what: "the live file",
            found: version.to_string(),
            supported: LIVE_VERSION.to_string(),
        }),
        // A file whose first page is still zero belongs to a writer that is just beginning.
        Err(_) if page.iter().all(|&b| b == 0) => Ok(None),
        // Checks start from the writer, and the file's name says who that is; the rest of the header is for people,
        // but for the boot, which is taken for another one.
        Err(malformed) => match path.file_name().and_then(|n| n.to_str()).and_then(parse_live_name) {
            Some(writer) => {
                damage.push((0, format!("expected {}, found {}", malformed.expected, malformed.found)));
                Ok(Some(unknown_header(writer)))
            }
            None => Err(malformed.at(path, 0)),
        },
    }
}

fn unknown_header(writer: WriterId) -> LiveHeader {
    LiveHeader {
        writer,
        store: StoreId::default(),
        boot: [0; 16],
        pid: 0,
        created_ms: 0,
        host: String::new(),
    }
}

/// Up to which record all are in frames; `None` if the word is damaged. Read again when its two halves do not fit: it
/// may be changing.
fn read_released(file: &dyn VfsFile, path: &Path, seed: u64) -> Result<Option<u64>> {
    for _ in 0..RELEASED_READS_MAX {
        let Some(bytes) = read_full(file, path, RELEASED_AT as u64, CURSOR_BYTES)? else { return Ok(None) };
        if let Some(released) = decode_cursor(seed, RELEASED_AT, &bytes) {
            return Ok(Some(released));
        }
    }
    Ok(None)
}

impl LiveWindow {
    fn take_block(&mut self, seed: u64, offset: u64, block: &[u8]) {
        // The header may have changed since it was looked at; this copy decides.
        let Some((kind, number)) = decode_block_header(seed, words_at(block, 0)) else { return };
        if kind != BLOCK_POINTS {
            return self.take_declarations(offset, block);
        }
        self.records.reserve(BLOCK_RECORDS);
        let records = block.chunks_exact(LIVE_RECORD_BYTES).skip(1);
        for (at, record) in (0..).zip(records) {
            let Some(sequence) = number.checked_add(at) else { return };
            let words = record_words(record);
            match decode_record(seed, sequence, words) {
                Some((series, point)) => self.records.push(LiveRecord { sequence, series, point }),
                // Zeros end a block that was never full; anything else may be a torn record with valid ones behind it.
                None if words == [0; 4] => return,
                None => {}
            }
        }
    }

    fn take_declarations(&mut self, offset: u64, block: &[u8]) {
        let found = declarations_in(self.header.writer, block);
        self.declarations.extend(found.list.into_iter().map(|one| (one.number, one)));
        if let Some(at) = found.damaged {
            let text = "expected a declaration whose crc fits, found another";
            self.damage.push((offset + at as u64, text.into()));
        }
    }
}

/// What a block of declarations holds.
pub(super) struct BlockDeclarations {
    pub list: Vec<Arc<Declaration>>,
    /// Where the next entry will be.
    pub end: usize,
    /// The first place that is neither an entry nor zero.
    pub damaged: Option<usize>,
}

/// The declarations of a block.
pub(super) fn declarations_in(writer: WriterId, block: &[u8]) -> BlockDeclarations {
    let mut found = BlockDeclarations { list: Vec::new(), end: LIVE_RECORD_BYTES, damaged: None };
    let mut at = LIVE_RECORD_BYTES;
    while at + 8 <= block.len() {
        match take_entry(writer, block.get(at..).unwrap_or_default()) {
            Some((declaration, len)) => {
                found.list.push(Arc::new(declaration));
                at += 8 + len.next_multiple_of(8);
                found.end = at;
                continue;
            }
            // Entries begin at words, so those behind a damaged one are found again.
            None if word_at(block, at) != 0 => found.damaged = found.damaged.or(Some(at)),
            None => {}
        }
        at += 8;
    }
    found
}

/// The declaration entry that begins here, and the length of its declaration.
fn take_entry(writer: WriterId, bytes: &[u8]) -> Option<(Declaration, usize)> {
    let mut cursor = Reader::new(bytes);
    let (len, crc) = (cursor.u32().ok()? as usize, cursor.u32().ok()?);
    let bytes = cursor.take(len).ok().filter(|bytes| !bytes.is_empty())?;
    if seeded_crc(declaration_seed(writer), bytes) != crc {
        return None;
    }
    Some((take_declaration(writer, &mut Reader::new(bytes), None).ok()?, len))
}

pub(super) fn read_full(file: &dyn VfsFile, path: &Path, offset: u64, len: usize) -> Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, offset).map_err(|e| Error::io("read", path, e))?;
    Ok((read == len).then_some(bytes))
}

pub(super) fn word_at(bytes: &[u8], at: usize) -> u64 {
    Reader::new(bytes.get(at..).unwrap_or_default()).u64().unwrap_or(0)
}

/// The words of a record; zeros if it is too short.
fn record_words(record: &[u8]) -> [u64; 4] {
    let (words, _) = record.as_chunks::<8>();
    words.try_into().map_or([0; 4], |words: [[u8; 8]; 4]| words.map(u64::from_le_bytes))
}

pub(super) fn words_at(bytes: &[u8], at: usize) -> [u64; 4] {
    [word_at(bytes, at), word_at(bytes, at + 8), word_at(bytes, at + 16), word_at(bytes, at + 24)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{StoreId, WriterId};

    /// Found by fuzzing: the last sequence there is has no successor.
    #[test]
    fn records_join_up_to_the_last_sequence() {
        let header = LiveHeader {
            writer: WriterId::default(),
            store: StoreId::default(),
            boot: [0; 16],
            pid: 0,
            created_ms: 0,
            host: String::new(),
        };
        let record = |sequence| LiveRecord {
            sequence,
            series: 0,
            point: Point { step: 0, timestamp_ms: 0, value: 0.0 },
        };
        let window = |sequences: &[u64]| LiveWindow {
            path: PathBuf::new(),
            header: header.clone(),
            released: 0,
            declarations: HashMap::new(),
            records: sequences.iter().copied().map(record).collect(),
            damage: Vec::new(),
        };
        let joined = |sequences: &[u64], from| {
            let window = window(sequences);
            let (joined, behind) = window.joined(from);
            (joined.len(), behind)
        };
        assert_eq!(joined(&[3, 4, 6], 3), (2, 1));
        assert_eq!(joined(&[3, 4, 6], 4), (1, 1));
        assert_eq!(joined(&[3], 0), (0, 1));
        assert_eq!(joined(&[u64::MAX - 1, u64::MAX], u64::MAX - 1), (2, 0));
        assert_eq!(joined(&[u64::MAX], u64::MAX), (1, 0));
    }

    /// Found by killing writers: one of six thousand died between two stores of a header.
    #[test]
    fn a_writer_killed_while_it_takes_a_block_leaves_no_damage() {
        use crate::format::live::{
            BLOCK_DECLARATIONS, block_header_stores, encode_block_header, encode_cursor, encode_record,
        };
        use crate::vfs::MemoryVfs;
        let writer = WriterId::from_bytes([3; 16]);
        let seed = live_seed(writer);
        let header = LiveHeader {
            writer,
            store: StoreId::default(),
            boot: [1; 16],
            pid: 1,
            created_ms: 1,
            host: String::new(),
        };
        let records = BLOCK_RECORDS as u64;
        let block = |first: u64| -> Vec<u64> {
            let mut words = encode_block_header(seed, BLOCK_POINTS, first).to_vec();
            for sequence in first..first + records {
                let point = Point { step: sequence as i64, timestamp_ms: 1, value: 0.5 };
                words.extend(encode_record(seed, sequence, 0, point));
            }
            words
        };
        let unused = vec![0; LIVE_BLOCK_BYTES / 8];
        // The block that is taken was never used, or held the first records, which are released; the second block
        // holds those that follow.
        for (taken, kind) in
            [(unused, BLOCK_POINTS), (block(0), BLOCK_POINTS), (block(0), BLOCK_DECLARATIONS)]
        {
            let stores = block_header_stores(encode_block_header(seed, kind, 2 * records));
            for stored in 0..=stores.len() {
                let mut taken = taken.clone();
                stores[..stored].iter().for_each(|(word, value)| taken[*word] = *value);
                let mut bytes = header.encode();
                let released = encode_cursor(seed, RELEASED_AT, records);
                bytes[RELEASED_AT..RELEASED_AT + released.len()].copy_from_slice(&released);
                let words = taken.iter().chain(&block(records)).copied().collect::<Vec<u64>>();
                words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
                let vfs = MemoryVfs::new();
                let path = Path::new("x.live");
                vfs.open(path, OpenMode::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
                let window = read_live_window(&vfs, path).unwrap().unwrap();
                // A block of declarations is zeroed before it gets its header.
                if kind == BLOCK_POINTS {
                    assert_eq!(window.damage, [], "after {stored} stores");
                }
                let (joined, behind) = window.joined(records);
                assert_eq!((joined.len() as u64, behind), (records, 0), "after {stored} stores");
            }
        }
    }
}
