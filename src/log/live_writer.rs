//! One's own live file: where a logged point is first.
//!
//! Contract: a call that returned has published its point; it survives the death of the process. The table in
//! `format::live` says who writes which word in which order. The per-point path takes one lock and no system call,
//! except where the comment "system call" says so: growing the file, and waiting for space.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::format::declare::{Declaration, put_declaration};
use crate::format::frame::seeded_crc;
use crate::format::live::{
    BLOCK_DECLARATIONS, BLOCK_POINTS, BLOCK_RECORDS, LiveHeader, RELEASED_AT, SYNCED_AT, declaration_seed,
    encode_block_header, encode_record, live_seed,
};
use crate::id::WriterId;
use crate::limits::LIVE_BLOCK_BYTES;
use crate::log::live_blocks::{BLOCK_WORDS, Block, RECORD_WORDS};
use crate::log::live_file::{GROWTH_BLOCKS, LiveFile};
use crate::log::live_path;
use crate::log::medium::Medium;
use crate::log::writer::CLOSED;
use crate::model::Point;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::vfs::Vfs;

/// Free blocks below which the file is enlarged ahead of need, and the background asked to take points over.
const FREE_BLOCKS_LOW: usize = GROWTH_BLOCKS / 2;

/// How often a logging call asks for the lock before the system puts it to sleep: some twenty microseconds in all.
const SPIN_ROUNDS: u32 = if cfg!(all(test, loom)) { 0 } else { 24 };
/// Pauses of the processor after the first try; twice as many after each later one, up to about a microsecond.
const SPIN_PAUSES_MIN: u32 = 1;
const SPIN_DOUBLINGS_MAX: u32 = 5;

/// How a live file is made and how large it gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveOptions {
    pub medium: Medium,
    pub bytes_max: u64,
    pub stall_timeout: Duration,
}

/// How a log call left the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    /// Points that wait for a hand-over.
    pub waiting: u64,
    /// Whether few free blocks are left.
    pub is_tight: bool,
}

#[derive(Debug)]
pub(super) struct LiveState {
    pub(super) file: Arc<LiveFile>,
    pub(super) blocks: Vec<Block>,
    pub(super) free: Vec<usize>,
    /// Blocks of points in the order of their sequences: (block, sequence of its first record).
    pub(super) points: VecDeque<(usize, u64)>,
    /// The block that takes the next record, and its next slot.
    pub(super) current: Option<(usize, usize)>,
    /// Sequence of the next record.
    pub(super) sequence: u64,
    /// Records below it are in frames.
    pub(super) handed: u64,
    /// The same, and their blocks were given back: with frames that are synced if the records were.
    pub(super) released: u64,
    /// Records below it were synced in this file at some time.
    pub(super) synced: u64,
    /// Block and next word of the declarations, and how many such blocks there are.
    declarations: Option<(Block, usize)>,
    declaration_blocks: u64,
    /// By series number: whether this file declares it.
    declared: Vec<bool>,
    /// Somebody makes the file longer, without the lock.
    pub(super) is_growing: bool,
    /// Why the background could not enlarge the file: for the next call that needs space.
    growth_error: Option<Error>,
    /// Nothing is logged any more.
    ended: bool,
    /// Nothing is logged until a bulk append is in the log.
    pub(super) is_held: bool,
    /// Records of one call before they are published: (block, word, words). Kept for its memory.
    group: Vec<(usize, usize, [u64; 4])>,
}

impl LiveState {
    /// Records that the current block still takes.
    pub(super) fn room(&self) -> usize {
        self.current.map_or(0, |(_, slot)| (BLOCK_RECORDS + 1).saturating_sub(slot))
    }
}

impl LiveState {
    fn new(file: LiveFile, sequence: u64) -> Self {
        Self {
            file: Arc::new(file),
            blocks: Vec::new(),
            free: Vec::new(),
            points: VecDeque::new(),
            current: None,
            sequence,
            handed: sequence,
            released: sequence,
            synced: sequence,
            declarations: None,
            declaration_blocks: 0,
            declared: Vec::new(),
            is_growing: false,
            growth_error: None,
            ended: false,
            is_held: false,
            group: Vec::new(),
        }
    }

    pub(super) fn add_blocks(&mut self, blocks: Vec<Block>) {
        let first = self.blocks.len();
        self.free.extend(first..first + blocks.len());
        self.blocks.extend(blocks);
        // The first block is taken first.
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }
}

/// The live file of this writer.
pub(crate) struct LiveWriter {
    path: PathBuf,
    header: LiveHeader,
    writer: WriterId,
    pub(super) seed: u64,
    options: LiveOptions,
    pub(super) state: Mutex<LiveState>,
    /// Notified when blocks became free, and when logging may go on.
    pub(super) space: Condvar,
}

/// While it lives, nobody logs through this file. Only under the segment lock, so there is one at a time.
pub(crate) struct Held<'a>(pub(super) &'a LiveWriter);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().is_held = false;
        self.0.space.notify_all();
    }
}

impl fmt::Debug for LiveWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LiveWriter {
    /// Creates the file with its first MiB, durably, and takes its lock. Its first record gets the number `sequence`:
    /// what was appended in bulk before took the ones below.
    pub(crate) fn create(
        vfs: &dyn Vfs,
        live_dir: &Path,
        header: LiveHeader,
        options: LiveOptions,
        sequence: u64,
    ) -> Result<Self> {
        let path = live_path(live_dir, header.writer);
        let (writer, seed) = (header.writer, live_seed(header.writer));
        let state = Self::begin(vfs, &path, &header, options, sequence)?;
        vfs.sync_dir(live_dir).map_err(|e| Error::failed_sync(live_dir, e))?;
        Ok(Self { path, header, writer, seed, options, state: Mutex::new(state), space: Condvar::new() })
    }

    fn begin(
        vfs: &dyn Vfs,
        path: &Path,
        header: &LiveHeader,
        options: LiveOptions,
        sequence: u64,
    ) -> Result<LiveState> {
        let file = LiveFile::create(vfs, path, header, options.medium)?;
        if sequence > 0 {
            file.write_cursor(live_seed(header.writer), RELEASED_AT, sequence)?;
        }
        let mut state = LiveState::new(file, sequence);
        let blocks = state.file.grow(0, GROWTH_BLOCKS)?;
        state.add_blocks(blocks);
        Ok(state)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks by which a file of `known` ones may still grow.
    fn growth_left(&self, known: usize) -> usize {
        let max = usize::try_from(self.options.bytes_max).unwrap_or(usize::MAX) / LIVE_BLOCK_BYTES;
        max.saturating_sub(known)
    }

    pub(super) fn may_grow(&self, state: &LiveState) -> bool {
        self.growth_left(state.blocks.len()) >= GROWTH_BLOCKS
    }

    /// Waits until `wanted` blocks are free and nobody keeps points out; gives up after the stall timeout, or if the
    /// file cannot grow.
    fn reserve<'a>(
        &'a self,
        mut state: MutexGuard<'a, LiveState>,
        wanted: usize,
        wake: &dyn Fn(),
    ) -> Result<MutexGuard<'a, LiveState>> {
        let deadline = Instant::now() + self.options.stall_timeout;
        // An earlier one is no news.
        state.growth_error = None;
        while state.free.len() < wanted || state.is_held {
            if let Some(error) = state.growth_error.take() {
                return Err(error);
            }
            if state.ended {
                return Err(Error::Poisoned { reason: CLOSED.into() });
            }
            // The background enlarges the file or takes points over: a disk that hangs must not hang the caller.
            if state.free.len() < wanted {
                wake();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Busy {
                    what: format!("the live file {}", self.path.display()),
                    holder: "points that the disk has not taken yet".into(),
                });
            }
            // System call: logging was faster than the background, or the disk is behind by all of `bytes_max`.
            state = self.space.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state)
    }

    /// The lock, for a call that holds it for some twenty nanoseconds. Threads that log at the same time find it free
    /// again before the system could put them to sleep; who holds it goes on undisturbed meanwhile, so points come in
    /// runs of one thread and their cache lines seldom move.
    #[inline]
    fn lock_to_log(&self) -> MutexGuard<'_, LiveState> {
        for round in 0..SPIN_ROUNDS {
            match self.state.try_lock() {
                Ok(state) => return state,
                Err(TryLockError::Poisoned(state)) => return state.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
            (0..SPIN_PAUSES_MIN << round.min(SPIN_DOUBLINGS_MAX)).for_each(|_| std::hint::spin_loop());
        }
        // System call: whoever holds it lost its processor, or does more than log a point.
        self.lock()
    }

    /// Logs one point. Where its series is declared and a slot is free, which is nearly always so, that is a check and
    /// four stores.
    #[inline]
    pub(crate) fn log_one(
        &self,
        declaration: &Arc<Declaration>,
        point: Point,
        wake: &dyn Fn(),
    ) -> Result<Logged> {
        let mut state = self.lock_to_log();
        if let Some(logged) = self.publish_one(&mut state, declaration.number, point) {
            return Ok(logged);
        }
        drop(state);
        self.log(&[(declaration, point)], wake)
    }

    #[inline]
    fn publish_one(&self, state: &mut LiveState, number: u32, point: Point) -> Option<Logged> {
        let is_declared = state.declared.get(number as usize).copied().unwrap_or(false);
        let (index, slot) = state.current?;
        if !is_declared || slot > BLOCK_RECORDS || state.ended || state.is_held || !state.file.is_mapped() {
            return None;
        }
        let words = encode_record(self.seed, state.sequence, number, point);
        state.blocks.get(index)?.publish(slot * RECORD_WORDS, &words)?;
        state.current = Some((index, slot + 1));
        state.sequence += 1;
        Some(Logged { waiting: state.sequence - state.handed, is_tight: state.free.len() < FREE_BLOCKS_LOW })
    }

    /// Logs points, in order and without others between them: all are there or none. `wake` asks for a hand-over.
    pub(crate) fn log(&self, points: &[(&Arc<Declaration>, Point)], wake: &dyn Fn()) -> Result<Logged> {
        let mut state = self.lock_to_log();
        if state.is_held {
            state = self.reserve(state, 0, wake)?;
        }
        for (declaration, _) in points {
            if !state.declared.get(declaration.number as usize).copied().unwrap_or(false) {
                state = self.declare(state, declaration, wake)?;
            }
        }
        // Waiting lets others log, so the room is measured again after it.
        while points.len() > state.room() {
            let wanted = points.len().div_ceil(BLOCK_RECORDS);
            if state.free.len() >= wanted {
                break;
            }
            state = self.reserve(state, wanted, wake)?;
        }
        if state.ended {
            return Err(Error::Poisoned { reason: CLOSED.into() });
        }
        let mut group = std::mem::take(&mut state.group);
        group.clear();
        let before = (state.sequence, state.current, state.points.len());
        let published = self.publish(&mut state, points, &mut group);
        let taken_back = match &published {
            Ok(()) => Ok(()),
            // None of the call's points is logged. Their sequences are given out again, so no trace of them may stay.
            Err(_) => {
                (state.sequence, state.current) = (before.0, before.1);
                while state.points.len() > before.2 {
                    let block = state.points.pop_back();
                    state.free.extend(block.map(|(index, _)| index));
                    // The file says that these sequences are in that block: it is taken next.
                    state.current = None;
                }
                self.take_back(&state, &group)
            }
        };
        state.group = group;
        taken_back?;
        published?;
        let is_tight = state.free.len() < FREE_BLOCKS_LOW;
        Ok(Logged { waiting: state.sequence - state.handed, is_tight })
    }

    /// Puts points into the next slots.
    fn publish(
        &self,
        state: &mut LiveState,
        points: &[(&Arc<Declaration>, Point)],
        group: &mut Vec<(usize, usize, [u64; 4])>,
    ) -> Result<()> {
        // In one block if one can hold them: readers read a block from its beginning to its end, but blocks in any
        // order.
        if points.len() > state.room() {
            self.next_block(state)?;
        }
        for (declaration, point) in points {
            if state.room() == 0 {
                self.next_block(state)?;
            }
            let Some((index, slot)) = state.current else { break };
            let words = encode_record(self.seed, state.sequence, declaration.number, *point);
            group.push((index, slot * RECORD_WORDS, words));
            state.current = Some((index, slot + 1));
            state.sequence += 1;
        }
        // The last one first: readers take records only as far as they join, so the first one publishes all.
        for (index, at, words) in group.iter().rev() {
            if let Some(block) = state.blocks.get(*index) {
                block.publish(*at, words);
                state.file.write_out(block, *at, words)?;
            }
        }
        Ok(())
    }

    /// Clears the slots of a call that failed. If that fails, too, nothing may be logged behind them any more.
    fn take_back(&self, state: &LiveState, group: &[(usize, usize, [u64; 4])]) -> Result<()> {
        for (index, at, _) in group {
            if let Some(block) = state.blocks.get(*index) {
                block.publish(*at, &[0; RECORD_WORDS]);
                state.file.write_out(block, *at, &[0; RECORD_WORDS]).map_err(|error| match error {
                    Error::DiskFull { action, path } => {
                        let source = io::Error::other("no space left to take a failed call back");
                        Error::Io { action, path, source }
                    }
                    other => other,
                })?;
            }
        }
        Ok(())
    }

    /// Begins a block of points; one was reserved.
    pub(super) fn next_block(&self, state: &mut LiveState) -> Result<()> {
        let Some(&index) = state.free.last() else { return Ok(()) };
        let first = state.sequence;
        let words = encode_block_header(self.seed, BLOCK_POINTS, first);
        if let Some(block) = state.blocks.get(index) {
            block.put_header(words);
            state.file.write_out(block, 0, &words)?;
        }
        state.free.pop();
        state.points.push_back((index, first));
        state.current = Some((index, 1));
        Ok(())
    }

    fn declare<'a>(
        &'a self,
        mut state: MutexGuard<'a, LiveState>,
        declaration: &Declaration,
        wake: &dyn Fn(),
    ) -> Result<MutexGuard<'a, LiveState>> {
        let mut bytes = Vec::new();
        put_declaration(self.writer, declaration, None, &mut bytes);
        let crc = seeded_crc(declaration_seed(self.writer), &bytes);
        let mut words = vec![bytes.len() as u64 | u64::from(crc) << 32];
        words.extend(
            bytes
                .chunks(8)
                .map(|chunk| chunk.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte))),
        );
        if words.len() > BLOCK_WORDS - RECORD_WORDS {
            return Err(Error::invalid(format!("a metric key of {} bytes is too long", bytes.len())));
        }
        let room = state.declarations.as_ref().is_some_and(|(_, at)| at + words.len() <= BLOCK_WORDS);
        if !room {
            state = self.reserve(state, 1, wake)?;
            let Some(block) = state.free.last().and_then(|index| state.blocks.get(*index)).cloned() else {
                return Ok(state);
            };
            // Declarations end at length 0, so a block that held points is zeroed first.
            block.clear();
            state.file.write_out(&block, 0, &[0; BLOCK_WORDS])?;
            let header = encode_block_header(self.seed, BLOCK_DECLARATIONS, state.declaration_blocks);
            block.put_header(header);
            state.file.write_out(&block, 0, &header)?;
            state.free.pop();
            state.declaration_blocks += 1;
            state.declarations = Some((block, RECORD_WORDS));
        }
        let file = Arc::clone(&state.file);
        if let Some((block, at)) = state.declarations.as_mut() {
            block.publish(*at, &words);
            file.write_out(block, *at, &words)?;
            *at += words.len();
        }
        let number = declaration.number as usize;
        if state.declared.len() <= number {
            state.declared.resize(number + 1, false);
        }
        if let Some(known) = state.declared.get_mut(number) {
            *known = true;
        }
        Ok(state)
    }

    /// Refuses every later point.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.space.notify_all();
    }

    /// Makes all records durable that are still here. The segment was synced before.
    pub(crate) fn sync(&self) -> Result<()> {
        let (file, end) = {
            let state = self.lock();
            (Arc::clone(&state.file), state.sequence)
        };
        file.sync()?;
        self.lock().synced = end;
        file.write_cursor(self.seed, SYNCED_AT, end)
    }

    /// Whether a record was logged since the last sync.
    pub(crate) fn is_dirty(&self) -> bool {
        let state = self.lock();
        state.sequence > state.synced.max(state.released)
    }

    /// Enlarges the file ahead of need, to twice its length; others log meanwhile.
    pub(crate) fn provide(&self) {
        let (file, known) = {
            let mut state = self.lock();
            if state.is_growing || state.free.len() >= FREE_BLOCKS_LOW || !self.may_grow(&state) {
                return;
            }
            state.is_growing = true;
            (Arc::clone(&state.file), state.blocks.len())
        };
        let grown = file.grow(known, known.clamp(GROWTH_BLOCKS, self.growth_left(known)));
        let mut state = self.lock();
        // Another file may have taken its place meanwhile.
        if Arc::ptr_eq(&file, &state.file) {
            state.is_growing = false;
            match grown {
                Ok(blocks) => state.add_blocks(blocks),
                // Whoever waits for space gets it; if nobody does, nothing has happened.
                Err(error) => state.growth_error = Some(error),
            }
            self.space.notify_all();
        }
    }

    /// Whether somebody removed the file: what is logged to it now would be lost with this process.
    pub(crate) fn is_unlinked(&self) -> bool {
        let file = Arc::clone(&self.lock().file);
        file.is_unlinked()
    }

    /// Makes a new file in place of one that was removed; all records are in frames.
    pub(crate) fn begin_again(&self, vfs: &dyn Vfs, held: &Held<'_>) -> Result<()> {
        let begun = Self::begin(vfs, &self.path, &self.header, self.options, self.next_sequence(held))?;
        {
            let mut state = self.lock();
            *state = LiveState { ended: state.ended, is_held: state.is_held, ..begun };
        }
        let live_dir = self.path.parent().unwrap_or(Path::new("."));
        vfs.sync_dir(live_dir).map_err(|e| Error::failed_sync(live_dir, e))
    }

    /// Removes the file; everything in it is in durable frames.
    pub(crate) fn remove(&self, vfs: &dyn Vfs) -> Result<()> {
        match vfs.remove_file(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|e| Error::io("remove", &self.path, e)),
        }
    }
}
