//! The live file as the segment side sees it: which points wait, are in frames, or may give their blocks back.
//!
//! Contract: `released <= handed <= sequence`. Records below `handed` are in frames; a block is taken again only after
//! `released`, which the file says before, has passed its last record. All of it under the segment lock, so nobody else
//! changes these; no system call is made under the lock that logging calls take.

use std::sync::Arc;

use crate::error::Result;
use crate::format::live::{BLOCK_RECORDS, RELEASED_AT, encode_bulk_mark};
use crate::log::live_blocks::{RECORD_WORDS, Waiting};
use crate::log::live_file::GROWTH_BLOCKS;
use crate::log::live_writer::{Held, LiveState, LiveWriter};

impl LiveWriter {
    /// Keeps everybody from logging until the guard is dropped: who wants to waits, with the stall timeout.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.lock().is_held = true;
        Held(self)
    }

    /// The window of points that wait for a hand-over.
    pub(crate) fn waiting(&self) -> Waiting {
        let state = self.lock();
        let block = |(index, first): &(usize, u64)| Some((state.blocks.get(*index)?.clone(), *first));
        Waiting {
            blocks: state.points.iter().filter_map(block).collect(),
            seed: self.seed,
            from: state.handed,
            to: state.sequence,
            is_synced: state.synced > state.handed,
        }
    }

    /// Records below `to` are in frames now; their blocks stay as they are until [`LiveWriter::release`].
    pub(crate) fn hand(&self, to: u64) {
        let mut state = self.lock();
        state.handed = state.handed.max(to);
    }

    /// What could be released: the sequence up to which all is in frames, if that is news, and whether these frames
    /// must be synced before.
    pub(crate) fn releasable(&self) -> Option<(u64, bool)> {
        let state = self.lock();
        (state.handed > state.released).then_some((state.handed, state.synced > state.released))
    }

    /// Gives back the blocks of records below `to`. Only under the segment lock, so that the word in the file never
    /// goes back. System call: the word is in the file before a block of it is taken again.
    pub(crate) fn release(&self, to: u64) -> Result<()> {
        let file = Arc::clone(&self.lock().file);
        file.write_cursor(self.seed, RELEASED_AT, to)?;
        let mut state = self.lock();
        state.released = to;
        while let Some(&(index, first)) = state.points.front() {
            // A block ends where the next one begins; it need not be full.
            let end = state.points.get(1).map_or(first + BLOCK_RECORDS as u64, |&(_, next)| next);
            if end > to {
                break;
            }
            state.points.pop_front();
            state.free.push(index);
        }
        // What was the current block is full and may be taken again: the next record takes a new one.
        if state.points.is_empty() {
            state.current = None;
        }
        drop(state);
        self.space.notify_all();
        Ok(())
    }

    /// Makes sure that [`LiveWriter::burn`] finds a place: whether it does. All records are handed over.
    pub(crate) fn has_room(&self, _held: &Held<'_>) -> Result<bool> {
        let (file, known) = {
            let mut state = self.lock();
            let has_room = state.room() > 0 || !state.free.is_empty();
            if has_room || state.is_growing || !self.may_grow(&state) {
                return Ok(has_room);
            }
            state.is_growing = true;
            (Arc::clone(&state.file), state.blocks.len())
        };
        let grown = file.grow(known, GROWTH_BLOCKS);
        let mut state = self.lock();
        state.is_growing = false;
        state.add_blocks(grown?);
        Ok(true)
    }

    /// The number that the next record gets.
    pub(crate) fn next_sequence(&self, _held: &Held<'_>) -> u64 {
        self.lock().sequence
    }

    /// Gives the next number to a bulk append whose frame is written and says so. Should that frame be lost in a power
    /// cut, the mark is a hole: no later point takes the place of a lost one.
    pub(crate) fn burn(&self, _held: &Held<'_>) {
        let mut state = self.lock();
        // System call where the file is not mapped, as for every point there.
        let marked = self.put_mark(&mut state);
        state.sequence += 1;
        state.handed = state.sequence;
        if marked.is_err() {
            // Behind a slot that was not written a reader might see the end; the next record takes a new block.
            state.current = None;
        }
    }

    fn put_mark(&self, state: &mut LiveState) -> Result<()> {
        if state.room() == 0 {
            self.next_block(state)?;
        }
        let Some((index, slot)) = state.current else { return Ok(()) };
        if let Some(block) = state.blocks.get(index) {
            let words = encode_bulk_mark(self.seed, state.sequence);
            block.publish(slot * RECORD_WORDS, &words);
            state.file.write_out(block, slot * RECORD_WORDS, &words)?;
        }
        state.current = Some((index, slot + 1));
        Ok(())
    }

    /// Records below it are in frames.
    pub(crate) fn handed(&self) -> u64 {
        self.lock().handed
    }
}
