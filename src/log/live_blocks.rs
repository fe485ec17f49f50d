//! Blocks of a live file in memory, as their writer uses them.
//!
//! Contract: words are stored so that a record, header or declaration is whole for whoever sees its first word. Blocks
//! of points that wait for a hand-over are read without any lock: they are not taken again before their release.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::live::{BLOCK_RECORDS, block_header_stores, decode_record};
use crate::limits::{LIVE_BLOCK_BYTES, LIVE_RECORD_BYTES};
use crate::model::Point;
use crate::vfs::SharedWords;

/// Words of a block, and of a record.
pub(super) const BLOCK_WORDS: usize = LIVE_BLOCK_BYTES / 8;
pub(super) const RECORD_WORDS: usize = LIVE_RECORD_BYTES / 8;

/// 1 MiB of blocks: mapped, or a private copy whose records also go out by `pwrite`.
#[derive(Debug, Clone)]
pub(super) enum Memory {
    Mapped(Arc<dyn SharedWords>),
    Plain(Arc<[AtomicU64]>),
}

impl Memory {
    pub(super) fn words(&self) -> &[AtomicU64] {
        match self {
            Self::Mapped(map) => map.words(),
            Self::Plain(words) => words,
        }
    }
}

/// One block of the file.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) memory: Memory,
    /// First word within the memory.
    pub(super) first_word: usize,
    /// First byte in the file.
    pub(super) offset: u64,
}

impl Block {
    /// Stores words `1..` relaxed, then word 0 with release: what has word 0 has all.
    pub(super) fn publish(&self, at: usize, words: &[u64]) -> Option<()> {
        let from = self.first_word + at;
        let slots = self.memory.words().get(from..from + words.len())?;
        for (slot, word) in slots.iter().zip(words).skip(1) {
            slot.store(*word, Ordering::Relaxed);
        }
        slots.first()?.store(*words.first()?, Ordering::Release);
        Some(())
    }

    /// Gives the block a header: whoever looks, or is left with what a killed writer stored, sees the old one, none or
    /// the new one.
    pub(super) fn put_header(&self, header: [u64; RECORD_WORDS]) -> Option<()> {
        let slots = self.memory.words().get(self.first_word..self.first_word + RECORD_WORDS)?;
        for (word, value) in block_header_stores(header) {
            slots.get(word)?.store(value, Ordering::Release);
        }
        Some(())
    }

    /// Zeroes the block.
    pub(super) fn clear(&self) {
        let words = self.memory.words().get(self.first_word..self.first_word + BLOCK_WORDS);
        words.unwrap_or_default().iter().for_each(|word| word.store(0, Ordering::Release));
    }

    fn record(&self, slot: usize) -> Option<[u64; 4]> {
        let from = self.first_word + slot * RECORD_WORDS;
        let slots = self.memory.words().get(from..from + RECORD_WORDS)?;
        let mut words = [0; RECORD_WORDS];
        words.iter_mut().zip(slots).for_each(|(word, slot)| *word = slot.load(Ordering::Acquire));
        Some(words)
    }
}

/// Points that wait for a hand-over; readable without the lock, because their blocks are not reused before the release.
pub(crate) struct Waiting {
    pub(super) blocks: Vec<(Block, u64)>,
    pub(super) seed: u64,
    pub from: u64,
    pub to: u64,
    /// Whether some of them were synced in the live file.
    pub is_synced: bool,
}

impl Waiting {
    /// Calls `take` for each below `to`, in order.
    pub(crate) fn for_each(&self, to: u64, take: &mut dyn FnMut(u32, Point)) {
        for (block, first) in &self.blocks {
            for sequence in self.from.max(*first)..to.min(self.to).min(first + BLOCK_RECORDS as u64) {
                let words = block.record((sequence - first + 1) as usize);
                if let Some((number, point)) = words.and_then(|w| decode_record(self.seed, sequence, w)) {
                    take(number, point);
                }
            }
        }
    }
}
