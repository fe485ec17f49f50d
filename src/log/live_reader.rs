//! Live files of any writer, alive or dead: what is in them now.
//!
//! Contract: reads with `pread`, writes nothing, takes no lock. Only checks decide what is valid. The caller reads
//! segments afterwards and drops what frames cover ([`crate::log::View::live_to`]).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::cursor::Cursor;
use crate::format::declare::{Declaration, take_declaration};
use crate::format::frame::seeded_crc;
use crate::format::live::{
    BLOCK_POINTS, BLOCK_RECORDS, LIVE_HEADER_BYTES, LIVE_VERSION, LiveHeader, RELEASED_AT, declaration_seed,
    decode_block_header, decode_record, live_seed,
};
use crate::limits::{LIVE_BLOCK_BYTES, LIVE_RECORD_BYTES};
use crate::log::parse_live_name;
use crate::model::Point;
use crate::vfs::{OpenMode, Vfs, VfsFile};

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
}

impl LiveWindow {
    /// Records from `from` on that join without a hole, and how many follow behind the first hole.
    pub(crate) fn joined(&self, from: u64) -> (&[LiveRecord], usize) {
        let start = self.records.partition_point(|r| r.sequence < from);
        let rest = self.records.get(start..).unwrap_or_default();
        let follows =
            |(at, record): &(usize, &LiveRecord)| record.sequence.checked_sub(from) == Some(*at as u64);
        let joined = rest.iter().enumerate().take_while(follows).count();
        (rest.get(..joined).unwrap_or_default(), rest.len() - joined)
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

/// Reads one live file; `None` if it is gone or has no header yet.
pub(crate) fn read_live_window(vfs: &dyn Vfs, path: &Path) -> Result<Option<LiveWindow>> {
    let file = match vfs.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let Some(page) = read_full(&*file, path, 0, LIVE_HEADER_BYTES)? else { return Ok(None) };
    let header = match LiveHeader::decode(&page) {
        Ok(Ok(header)) => header,
        Ok(Err(version)) => {
            return Err(Error::NewerFormat {
                path: path.to_path_buf(),
                what: "the live file",
                found: version.to_string(),
                supported: LIVE_VERSION.to_string(),
            });
        }
        // A file whose first page is still zero belongs to a writer that is just beginning.
        Err(_) if page.iter().all(|&b| b == 0) => return Ok(None),
        Err(malformed) => return Err(malformed.at(path, 0)),
    };
    let mut window = LiveWindow {
        path: path.to_path_buf(),
        released: word_at(&page, RELEASED_AT),
        header,
        declarations: HashMap::new(),
        records: Vec::new(),
    };
    let seed = live_seed(window.header.writer);
    let mut offset = LIVE_HEADER_BYTES as u64;
    while let Some(head) = read_full(&*file, path, offset, LIVE_RECORD_BYTES)? {
        if let Some((kind, number)) = decode_block_header(seed, words_at(&head, 0)) {
            let useful =
                kind != BLOCK_POINTS || number.saturating_add(BLOCK_RECORDS as u64) > window.released;
            if useful && let Some(block) = read_full(&*file, path, offset, LIVE_BLOCK_BYTES)? {
                window.take_block(seed, &block);
            }
        }
        offset += LIVE_BLOCK_BYTES as u64;
    }
    // Released meanwhile: the frames hold it, and its blocks may have been taken again while they were read.
    if let Some(word) = read_full(&*file, path, RELEASED_AT as u64, 8)? {
        window.released = window.released.max(word_at(&word, 0));
    }
    let released = window.released;
    window.records.retain(|r| r.sequence >= released);
    window.records.sort_unstable_by_key(|r| r.sequence);
    window.records.dedup_by_key(|r| r.sequence);
    Ok(Some(window))
}

impl LiveWindow {
    fn take_block(&mut self, seed: u64, block: &[u8]) {
        // The header may have changed since it was looked at; this copy decides.
        let Some((kind, number)) = decode_block_header(seed, words_at(block, 0)) else { return };
        if kind != BLOCK_POINTS {
            return self.take_declarations(block);
        }
        for slot in 1..=BLOCK_RECORDS {
            let Some(sequence) = number.checked_add(slot as u64 - 1) else { return };
            let words = words_at(block, slot * LIVE_RECORD_BYTES);
            match decode_record(seed, sequence, words) {
                Some((series, point)) => self.records.push(LiveRecord { sequence, series, point }),
                // Zeros end a block that was never full; anything else may be a torn record with valid ones behind it.
                None if words == [0; 4] => return,
                None => {}
            }
        }
    }

    fn take_declarations(&mut self, block: &[u8]) {
        let writer = self.header.writer;
        let mut at = LIVE_RECORD_BYTES;
        loop {
            let mut cursor = Cursor::new(block.get(at..).unwrap_or_default());
            let (Ok(len), Ok(crc)) = (cursor.u32(), cursor.u32()) else { return };
            let Ok(bytes) = cursor.take(len as usize) else { return };
            if len == 0 || seeded_crc(declaration_seed(writer), bytes) != crc {
                return;
            }
            let Ok(declaration) = take_declaration(writer, &mut Cursor::new(bytes), None) else { return };
            self.declarations.insert(declaration.number, Arc::new(declaration));
            at += 8 + (len as usize).next_multiple_of(8);
        }
    }
}

fn read_full(file: &dyn VfsFile, path: &Path, offset: u64, len: usize) -> Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, offset).map_err(|e| Error::io("read", path, e))?;
    Ok((read == len).then_some(bytes))
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    Cursor::new(bytes.get(at..).unwrap_or_default()).u64().unwrap_or(0)
}

fn words_at(bytes: &[u8], at: usize) -> [u64; 4] {
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
}
