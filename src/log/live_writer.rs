//! One's own live file: where a logged point is first.
//!
//! Contract: a call that returned has published its point; it survives the death of the process. The table in
//! `format::live` says who writes which word in which order. The per-point path takes one lock and no system call,
//! except where the comment "system call" says so: growing the file, and waiting for space.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::format::declare::{Declaration, put_declaration};
use crate::format::frame::seeded_crc;
use crate::format::live::{
    BLOCK_DECLARATIONS, BLOCK_POINTS, BLOCK_RECORDS, LIVE_HEADER_BYTES, LiveHeader, RELEASED_AT, SYNCED_AT,
    declaration_seed, decode_record, encode_block_header, encode_cursor, encode_record, live_seed,
};
use crate::id::WriterId;
use crate::limits::{LIVE_BLOCK_BYTES, LIVE_RECORD_BYTES};
use crate::log::live_path;
use crate::log::writer::CLOSED;
use crate::model::Point;
use crate::vfs::{HeldLock, OpenMode, SharedWords, Vfs, VfsFile};

/// Blocks by which the file grows: 1 MiB.
const GROWTH_BLOCKS: usize = 16;
/// Tries to create the file while somebody else looks at it.
const CREATE_TRIES_MAX: usize = 100;
const BLOCK_WORDS: usize = LIVE_BLOCK_BYTES / 8;
const RECORD_WORDS: usize = LIVE_RECORD_BYTES / 8;

/// 1 MiB of blocks: mapped, or a private copy whose records also go out by `pwrite`.
#[derive(Debug, Clone)]
enum Memory {
    Mapped(Arc<dyn SharedWords>),
    Plain(Arc<[AtomicU64]>),
}

impl Memory {
    fn words(&self) -> &[AtomicU64] {
        match self {
            Self::Mapped(map) => map.words(),
            Self::Plain(words) => words,
        }
    }
}

/// One block of the file.
#[derive(Debug, Clone)]
struct Block {
    memory: Memory,
    /// First word within the memory.
    first_word: usize,
    /// First byte in the file.
    offset: u64,
}

impl Block {
    /// Stores words `1..` relaxed, then word 0 with release: what has word 0 has all.
    fn publish(&self, at: usize, words: &[u64]) -> Option<()> {
        let from = self.first_word + at;
        let slots = self.memory.words().get(from..from + words.len())?;
        for (slot, word) in slots.iter().zip(words).skip(1) {
            slot.store(*word, Ordering::Relaxed);
        }
        slots.first()?.store(*words.first()?, Ordering::Release);
        Some(())
    }

    fn record(&self, slot: usize) -> Option<[u64; 4]> {
        let from = self.first_word + slot * RECORD_WORDS;
        let slots = self.memory.words().get(from..from + RECORD_WORDS)?;
        let mut words = [0; RECORD_WORDS];
        words.iter_mut().zip(slots).for_each(|(word, slot)| *word = slot.load(Ordering::Acquire));
        Some(words)
    }
}

#[derive(Debug)]
struct LiveState {
    blocks: Vec<Block>,
    free: Vec<usize>,
    /// Blocks of points in the order of their sequences: (block, sequence of its first record).
    points: VecDeque<(usize, u64)>,
    /// The block that takes the next record, and its next slot.
    current: Option<(usize, usize)>,
    /// Sequence of the next record.
    sequence: u64,
    /// Records below it are in frames.
    released: u64,
    /// Records below it were synced in this file at some time.
    synced: u64,
    /// Block and next word of the declarations, and how many such blocks there are.
    declarations: Option<(Block, usize)>,
    declaration_blocks: u64,
    /// By series number: whether this file declares it.
    declared: Vec<bool>,
    /// Nothing is logged any more.
    ended: bool,
    /// Records of one call before they are published: (block, word, words). Kept for its memory.
    group: Vec<(usize, usize, [u64; 4])>,
}

impl LiveState {
    /// Records that the current block still takes.
    fn room(&self) -> usize {
        self.current.map_or(0, |(_, slot)| (BLOCK_RECORDS + 1).saturating_sub(slot))
    }
}

/// The live file of this writer.
pub(crate) struct LiveWriter {
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    writer: WriterId,
    seed: u64,
    mapped: bool,
    bytes_max: u64,
    stall_timeout: Duration,
    state: Mutex<LiveState>,
    /// Notified when blocks became free.
    space: Condvar,
    /// Tells the world that the writer lives; others try it before they recover.
    _lock: Box<dyn HeldLock>,
}

/// While it lives, nobody logs through this file.
pub(crate) struct Held<'a>(MutexGuard<'a, LiveState>);

/// Points that wait for a hand-over; readable without the lock, because their blocks are not reused before the release.
pub(crate) struct Waiting {
    blocks: Vec<(Block, u64)>,
    seed: u64,
    pub from: u64,
    pub to: u64,
    /// Some of them were synced here, so their frames must be before the blocks are taken again.
    pub was_synced: bool,
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

/// Creates the file (or takes one that an earlier try left when it found no space: the name is this writer's own) and
/// locks it. Somebody who looks for dead writers may have the lock for a moment, and remove the file.
fn create_locked(vfs: &dyn Vfs, path: &Path) -> Result<(Arc<dyn VfsFile>, Box<dyn HeldLock>)> {
    for _ in 0..CREATE_TRIES_MAX {
        let file = match vfs.open(path, OpenMode::CreateNew) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => vfs.open(path, OpenMode::ReadWrite),
            file => file,
        };
        let file = match file {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(|e| Error::io("create", path, e))?,
        };
        if let Some(lock) = file.try_lock().map_err(|e| Error::io("lock", path, e))?
            && file.metadata().map_err(|e| Error::io("stat", path, e))?.links > 0
        {
            return Ok((file, lock));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::Busy { what: path.display().to_string(), holder: "another process".into() })
}

impl fmt::Debug for LiveWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LiveWriter {
    /// Creates the file with its first MiB, durably, and takes its lock.
    pub(crate) fn create(
        vfs: &dyn Vfs,
        live_dir: &Path,
        header: &LiveHeader,
        shared_mapping: bool,
        bytes_max: u64,
        stall_timeout: Duration,
    ) -> Result<Self> {
        let path = live_path(live_dir, header.writer);
        let (file, lock) = create_locked(vfs, &path)?;
        file.write_all_at(&header.encode(), 0).map_err(|e| Error::io("write", &path, e))?;
        let mut live = Self {
            path,
            file,
            writer: header.writer,
            seed: live_seed(header.writer),
            mapped: shared_mapping,
            bytes_max,
            stall_timeout,
            state: Mutex::new(LiveState {
                blocks: Vec::new(),
                free: Vec::new(),
                points: VecDeque::new(),
                current: None,
                sequence: 0,
                released: 0,
                synced: 0,
                declarations: None,
                declaration_blocks: 0,
                declared: Vec::new(),
                ended: false,
                group: Vec::new(),
            }),
            space: Condvar::new(),
            _lock: lock,
        };
        if live.mapped {
            // Where a map is refused, plain writes keep the same promise.
            let probe = live.file.map(0, LIVE_HEADER_BYTES);
            live.mapped = probe.is_ok();
        }
        live.grow(&mut live.lock())?;
        vfs.sync_dir(live_dir).map_err(|e| Error::failed_sync(live_dir, e))?;
        Ok(live)
    }

    fn lock(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends zeroed blocks. System calls: write, sync, mmap. The zeros are written and synced, not only allocated, so
    /// that a full disk is an error here and not a signal at a later store.
    fn grow(&self, state: &mut LiveState) -> Result<()> {
        let len = GROWTH_BLOCKS * LIVE_BLOCK_BYTES;
        let offset = (LIVE_HEADER_BYTES + state.blocks.len() * LIVE_BLOCK_BYTES) as u64;
        self.file.write_all_at(&vec![0; len], offset).map_err(|e| Error::io("grow", &self.path, e))?;
        self.file.sync_data().map_err(|e| Error::failed_sync(&self.path, e))?;
        let memory = if self.mapped {
            Memory::Mapped(self.file.map(offset, len).map_err(|e| Error::io("map", &self.path, e))?)
        } else {
            Memory::Plain((0..len / 8).map(|_| AtomicU64::new(0)).collect())
        };
        for index in 0..GROWTH_BLOCKS {
            state.free.push(state.blocks.len());
            state.blocks.push(Block {
                memory: memory.clone(),
                first_word: index * BLOCK_WORDS,
                offset: offset + (index * LIVE_BLOCK_BYTES) as u64,
            });
        }
        // The first block is taken first.
        state.free.sort_unstable_by(|a, b| b.cmp(a));
        Ok(())
    }

    fn may_grow(&self, state: &LiveState) -> bool {
        ((state.blocks.len() + GROWTH_BLOCKS) * LIVE_BLOCK_BYTES) as u64 <= self.bytes_max
    }

    /// Waits until `wanted` blocks are free; grows the file, then waits for the hand-over, then gives up.
    fn reserve<'a>(
        &'a self,
        mut state: MutexGuard<'a, LiveState>,
        wanted: usize,
        wake: &dyn Fn(),
    ) -> Result<MutexGuard<'a, LiveState>> {
        let deadline = Instant::now() + self.stall_timeout;
        while state.free.len() < wanted {
            if self.may_grow(&state) {
                self.grow(&mut state)?;
                continue;
            }
            wake();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Busy {
                    what: format!("the live file {}", self.path.display()),
                    holder: "points that the disk has not taken yet".into(),
                });
            }
            // System call: the disk is behind by all of `bytes_max`.
            state = self.space.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state)
    }

    /// In plain mode the words go out by `pwrite`; system call.
    fn write_out(&self, block: &Block, at: usize, words: &[u64]) -> Result<()> {
        if self.mapped {
            return Ok(());
        }
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let offset = block.offset + (at * 8) as u64;
        self.file.write_all_at(&bytes, offset).map_err(|e| Error::io("append to", &self.path, e))
    }

    /// Logs points, in order and without others between them: all are there or none. `wake` asks for a hand-over;
    /// returns how many points wait for one.
    pub(crate) fn log(&self, points: &[(&Arc<Declaration>, Point)], wake: &dyn Fn()) -> Result<u64> {
        let mut state = self.lock();
        for (declaration, _) in points {
            if !state.declared.get(declaration.number as usize).copied().unwrap_or(false) {
                state = self.declare(state, declaration, wake)?;
            }
        }
        // Waiting lets others log, so the room is measured again after it.
        while let missing @ 1.. = points.len().saturating_sub(state.room()) {
            let wanted = missing.div_ceil(BLOCK_RECORDS);
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
                while state.points.len() > before.2 {
                    let block = state.points.pop_back();
                    state.free.extend(block.map(|(index, _)| index));
                }
                (state.sequence, state.current) = (before.0, before.1);
                self.take_back(&state, &group)
            }
        };
        state.group = group;
        taken_back?;
        published?;
        Ok(state.sequence - state.released)
    }

    /// Puts points into the next slots.
    fn publish(
        &self,
        state: &mut LiveState,
        points: &[(&Arc<Declaration>, Point)],
        group: &mut Vec<(usize, usize, [u64; 4])>,
    ) -> Result<()> {
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
                self.write_out(block, *at, words)?;
            }
        }
        Ok(())
    }

    /// Clears the slots of a call that failed. If that fails, too, nothing may be logged behind them any more.
    fn take_back(&self, state: &LiveState, group: &[(usize, usize, [u64; 4])]) -> Result<()> {
        for (index, at, _) in group {
            if let Some(block) = state.blocks.get(*index) {
                block.publish(*at, &[0; RECORD_WORDS]);
                self.write_out(block, *at, &[0; RECORD_WORDS]).map_err(|error| match error {
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
    fn next_block(&self, state: &mut LiveState) -> Result<()> {
        let Some(index) = state.free.pop() else { return Ok(()) };
        let first = state.sequence;
        let words = encode_block_header(self.seed, BLOCK_POINTS, first);
        if let Some(block) = state.blocks.get(index) {
            block.publish(0, &words);
            self.write_out(block, 0, &words)?;
        }
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
            self.clear(&block)?;
            let header = encode_block_header(self.seed, BLOCK_DECLARATIONS, state.declaration_blocks);
            block.publish(0, &header);
            self.write_out(&block, 0, &header)?;
            state.free.pop();
            state.declaration_blocks += 1;
            state.declarations = Some((block, RECORD_WORDS));
        }
        if let Some((block, at)) = state.declarations.as_mut() {
            block.publish(*at, &words);
            self.write_out(block, *at, &words)?;
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

    /// Declarations end at length 0, so a block that held points is zeroed first.
    fn clear(&self, block: &Block) -> Result<()> {
        let words = block.memory.words().get(block.first_word..block.first_word + BLOCK_WORDS);
        words.unwrap_or_default().iter().for_each(|word| word.store(0, Ordering::Release));
        self.write_out(block, 0, &[0; BLOCK_WORDS])
    }

    /// Keeps everybody from logging until the guard is dropped.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held(self.lock())
    }

    /// The window of points that wait for a hand-over.
    pub(crate) fn waiting(&self, held: &Held<'_>) -> Waiting {
        let state = &held.0;
        let block = |(index, first): &(usize, u64)| Some((state.blocks.get(*index)?.clone(), *first));
        Waiting {
            blocks: state.points.iter().filter_map(block).collect(),
            seed: self.seed,
            from: state.released,
            to: state.sequence,
            was_synced: state.synced > state.released,
        }
    }

    /// Records below `to` are in frames: their blocks are free.
    pub(crate) fn release(&self, held: &mut Held<'_>, to: u64) -> Result<()> {
        let state = &mut held.0;
        state.released = to;
        self.write_word(RELEASED_AT, to)?;
        while let Some(&(index, first)) = state.points.front() {
            if first + BLOCK_RECORDS as u64 > to {
                break;
            }
            state.points.pop_front();
            state.free.push(index);
        }
        // What was the current block is full and may be taken again: the next record takes a new one.
        if state.points.is_empty() {
            state.current = None;
        }
        self.space.notify_all();
        Ok(())
    }

    /// Refuses every later point.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
    }

    /// Makes all records durable. The segment was synced before.
    pub(crate) fn sync(&self) -> Result<()> {
        let end = self.lock().sequence;
        self.file.sync_data().map_err(|e| Error::failed_sync(&self.path, e))?;
        let mut state = self.lock();
        state.synced = state.synced.max(end);
        self.write_word(SYNCED_AT, end)
    }

    /// Whether a record was logged since the last sync.
    pub(crate) fn is_dirty(&self) -> bool {
        let state = self.lock();
        state.sequence > state.synced.max(state.released)
    }

    /// Enlarges the file ahead of need, so that the logging thread does not have to.
    pub(crate) fn provide(&self) -> Result<()> {
        let mut state = self.lock();
        if state.free.len() < 2 && self.may_grow(&state) {
            self.grow(&mut state)?;
        }
        Ok(())
    }

    fn write_word(&self, at: usize, word: u64) -> Result<()> {
        let bytes = encode_cursor(self.seed, at, word);
        self.file.write_all_at(&bytes, at as u64).map_err(|e| Error::io("write", &self.path, e))
    }

    /// Removes the file; everything in it is in durable frames.
    pub(crate) fn remove(&self, vfs: &dyn Vfs) -> Result<()> {
        vfs.remove_file(&self.path).map_err(|e| Error::io("remove", &self.path, e))
    }
}
