//! A live file that is looked at again and again: only what came since the last look is read.
//!
//! Contract: reads with `pread`, writes nothing, takes no lock; only checks decide what is valid. A look costs one read
//! of 32 bytes per 64 KiB of the file, one of 8 bytes per block of declarations, and the new records. Records come in
//! the order of their sequences and without a hole. Where that cannot be had (the writer has taken their blocks again,
//! a bulk append stands between, the file is damaged) the answer is [`News::Lost`]: the caller reads the whole window
//! and the segments, and says where to go on.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::declare::Declaration;
use crate::format::live::{
    BLOCK_DECLARATIONS, BLOCK_POINTS, BLOCK_RECORDS, BULK_MARK, LIVE_HEADER_BYTES, decode_block_header,
    decode_record, live_seed,
};
use crate::id::WriterId;
use crate::limits::{LIVE_BLOCK_BYTES, LIVE_RECORD_BYTES};
use crate::log::live_reader::{LiveRecord, declarations_in, read_full, read_header, word_at, words_at};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// Records that a look reads at first; most find none or few.
const FIRST_RECORDS: usize = 32;

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// All records from where the last look ended to the end.
    Joined,
    /// The next record is not where it should be, and later ones are there.
    Lost,
    /// The file was removed, or another one has its name: what was in it is in segments.
    Gone,
}

/// Kind and number of each block; none for one that is not in use.
type Blocks = Vec<Option<(u64, u64)>>;

/// A live file being followed.
#[derive(Debug)]
pub(crate) struct LiveTail {
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    writer: WriterId,
    seed: u64,
    declarations: HashMap<u32, Arc<Declaration>>,
    /// By block: the byte in it where the next declaration will be.
    declared_to: HashMap<usize, usize>,
    blocks: Blocks,
    /// The sequence of the next record, once the caller has said it.
    next: Option<u64>,
    /// Where it was lost last, and how the blocks were then: as long as that stays, asking again would find the same.
    lost: Option<(u64, Blocks)>,
}

impl LiveTail {
    /// Opens a live file; `None` if it is gone or has no header yet.
    pub(crate) fn open(vfs: &dyn Vfs, path: &Path) -> Result<Option<Self>> {
        let file = match vfs.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", path, e)),
        };
        // What is wrong with it is for those who read the whole file.
        let Some(header) = read_header(&*file, path, &mut Vec::new())? else { return Ok(None) };
        Ok(Some(Self {
            path: path.to_path_buf(),
            file,
            writer: header.writer,
            seed: live_seed(header.writer),
            declarations: HashMap::new(),
            declared_to: HashMap::new(),
            blocks: Blocks::new(),
            next: None,
            lost: None,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file declared up to the last look, by number.
    pub(crate) fn declarations(&self) -> &HashMap<u32, Arc<Declaration>> {
        &self.declarations
    }

    /// Says that everything below a sequence is known.
    pub(crate) fn go_on_at(&mut self, next: u64) {
        // Still lost at the same place: a hole that stays. It is looked at again when the writer takes another block.
        self.lost = self.lost.take().filter(|(at, _)| *at == next);
        self.next = Some(next);
    }

    /// Says that segments have changed: what was missing may be there now, so a hole is looked at again.
    pub(crate) fn segments_changed(&mut self) {
        self.lost = None;
    }

    /// Only declarations from now on, until it is said where to go on.
    pub(crate) fn stop_following(&mut self) {
        self.next = None;
    }

    /// Whether it was said where to go on.
    pub(crate) fn is_following(&self) -> bool {
        self.next.is_some()
    }

    /// Looks at what is new: declarations, and, if it is known where to go on, records.
    pub(crate) fn look(&mut self, take: &mut dyn FnMut(LiveRecord)) -> Result<News> {
        let metadata = self.file.metadata().map_err(|e| Error::io("stat", &self.path, e))?;
        if metadata.links == 0 {
            return Ok(News::Gone);
        }
        self.read_blocks()?;
        self.read_declarations()?;
        let Some(mut next) = self.next else { return Ok(News::Joined) };
        let mut marked = false;
        while let Some((index, slot)) = self.place(next) {
            let before = next;
            marked = self.read_records(index, slot, &mut next, take)?;
            if marked || next == before {
                break;
            }
        }
        self.next = Some(next);
        let is_behind =
            self.blocks.iter().flatten().any(|&(kind, first)| kind == BLOCK_POINTS && first > next);
        if !marked && !is_behind {
            self.lost = None;
            return Ok(News::Joined);
        }
        if self.lost.as_ref().is_some_and(|(at, blocks)| *at == next && *blocks == self.blocks) {
            return Ok(News::Joined);
        }
        self.lost = Some((next, self.blocks.clone()));
        Ok(News::Lost)
    }

    fn read_blocks(&mut self) -> Result<()> {
        self.blocks.clear();
        let mut offset = LIVE_HEADER_BYTES as u64;
        while let Some(head) = read_full(&*self.file, &self.path, offset, LIVE_RECORD_BYTES)? {
            self.blocks.push(decode_block_header(self.seed, words_at(&head, 0)));
            offset += LIVE_BLOCK_BYTES as u64;
        }
        Ok(())
    }

    fn read_declarations(&mut self) -> Result<()> {
        for (index, block) in self.blocks.iter().enumerate() {
            if !block.is_some_and(|(kind, _)| kind == BLOCK_DECLARATIONS) {
                continue;
            }
            let offset = block_offset(index);
            let from = self.declared_to.get(&index).copied().unwrap_or(LIVE_RECORD_BYTES);
            let room = from + 8 <= LIVE_BLOCK_BYTES;
            let word = if room { read_full(&*self.file, &self.path, offset + from as u64, 8)? } else { None };
            if word.is_none_or(|word| word_at(&word, 0) == 0) {
                continue;
            }
            let Some(bytes) = read_full(&*self.file, &self.path, offset, LIVE_BLOCK_BYTES)? else { continue };
            let found = declarations_in(self.writer, &bytes);
            self.declarations.extend(found.list.into_iter().map(|one| (one.number, one)));
            self.declared_to.insert(index, found.end);
        }
        Ok(())
    }

    /// The block and slot where a record must be, if a block is there for it. Of two that could have it the later one:
    /// a block that was given back before it was full still has its header.
    fn place(&self, sequence: u64) -> Option<(usize, usize)> {
        let blocks = self.blocks.iter().enumerate().filter_map(|(index, block)| Some((index, (*block)?)));
        let holding = blocks.filter_map(|(index, (kind, first))| {
            let slot = usize::try_from(sequence.checked_sub(first)?).ok().filter(|&at| at < BLOCK_RECORDS)?;
            (kind == BLOCK_POINTS).then_some((first, index, slot + 1))
        });
        holding.max().map(|(_, index, slot)| (index, slot))
    }

    /// Takes the records of a block from a slot on, as far as they join; whether it met the mark of a bulk append.
    fn read_records(
        &self,
        index: usize,
        mut slot: usize,
        next: &mut u64,
        take: &mut dyn FnMut(LiveRecord),
    ) -> Result<bool> {
        let mut wanted = FIRST_RECORDS;
        while slot <= BLOCK_RECORDS {
            let records = wanted.min(BLOCK_RECORDS + 1 - slot);
            let offset = block_offset(index) + (slot * LIVE_RECORD_BYTES) as u64;
            let Some(bytes) = read_full(&*self.file, &self.path, offset, records * LIVE_RECORD_BYTES)? else {
                return Ok(false);
            };
            for at in 0..records {
                let words = words_at(&bytes, at * LIVE_RECORD_BYTES);
                match decode_record(self.seed, *next, words) {
                    Some((BULK_MARK, _)) => return Ok(true),
                    Some((series, point)) => take(LiveRecord { sequence: *next, series, point }),
                    None => return Ok(false),
                }
                let Some(following) = next.checked_add(1) else { return Ok(false) };
                *next = following;
            }
            slot += records;
            wanted = BLOCK_RECORDS;
        }
        Ok(false)
    }
}

fn block_offset(index: usize) -> u64 {
    (LIVE_HEADER_BYTES as u64).saturating_add(index as u64 * LIVE_BLOCK_BYTES as u64)
}
