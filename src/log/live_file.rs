//! A live file as the system sees it: its lock, its growth, and what is written past the map.
//!
//! Contract: the file's lock is held as long as this lives; it tells the world that the writer does. Growth is written
//! and synced before it is used, so that a full disk is an error here and not a signal at a later store. Everything in
//! here is a system call; nothing of it is on the per-point path, but for plain writes where maps are not allowed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::error::{Error, Result};
use crate::format::live::{LIVE_HEADER_BYTES, LiveHeader, encode_cursor};
use crate::limits::LIVE_BLOCK_BYTES;
use crate::log::live_blocks::{Block, Memory};
use crate::log::medium::Medium;
use crate::vfs::{HeldLock, OpenMode, Vfs, VfsFile};

/// Blocks by which the file grows at least: 1 MiB.
pub(super) const GROWTH_BLOCKS: usize = 16;
/// Tries to create the file while somebody else looks at it.
const CREATE_TRIES_MAX: usize = 100;

/// The live file of this writer.
#[derive(Debug)]
pub(super) struct LiveFile {
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    mapped: bool,
    /// Tells the world that the writer lives; others try it before they recover. On a network it may not be had, and
    /// nobody asks for it.
    _lock: Option<Box<dyn HeldLock>>,
}

impl LiveFile {
    /// Creates the file with its header and the count of released records, durably but for the first growth.
    pub(super) fn create(vfs: &dyn Vfs, path: &Path, header: &LiveHeader, medium: Medium) -> Result<Self> {
        let (file, lock) = create_locked(vfs, path, medium)?;
        file.write_all_at(&header.encode(), 0).map_err(|e| Error::io("write", path, e))?;
        // Where a map is refused, plain writes keep the same promise.
        let mapped = medium == Medium::Mapped && file.map(0, LIVE_HEADER_BYTES).is_ok();
        Ok(Self { path: path.to_path_buf(), file, mapped, _lock: lock })
    }

    /// Makes the file longer by zeroed blocks behind the `known` ones.
    pub(super) fn grow(&self, known: usize, blocks: usize) -> Result<Vec<Block>> {
        let len = blocks * LIVE_BLOCK_BYTES;
        let offset = (LIVE_HEADER_BYTES + known * LIVE_BLOCK_BYTES) as u64;
        self.file.write_all_at(&vec![0; len], offset).map_err(|e| Error::io("grow", &self.path, e))?;
        self.sync()?;
        let memory = if self.mapped {
            Memory::Mapped(self.file.map(offset, len).map_err(|e| Error::io("map", &self.path, e))?)
        } else {
            Memory::Plain((0..len / 8).map(|_| AtomicU64::new(0)).collect())
        };
        let block = |index: usize| Block {
            memory: memory.clone(),
            first_word: index * LIVE_BLOCK_BYTES / 8,
            offset: offset + (index * LIVE_BLOCK_BYTES) as u64,
        };
        Ok((0..blocks).map(block).collect())
    }

    /// Whether what is stored in a block is in the file.
    #[inline]
    pub(super) fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// Without a map the words go out by `pwrite`.
    pub(super) fn write_out(&self, block: &Block, at: usize, words: &[u64]) -> Result<()> {
        if self.mapped {
            return Ok(());
        }
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let offset = block.offset + (at * 8) as u64;
        self.file.write_all_at(&bytes, offset).map_err(|e| Error::io("append to", &self.path, e))
    }

    /// Writes one of the changing words of the header.
    pub(super) fn write_cursor(&self, seed: u64, at: usize, word: u64) -> Result<()> {
        let bytes = encode_cursor(seed, at, word);
        self.file.write_all_at(&bytes, at as u64).map_err(|e| Error::io("write", &self.path, e))
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::failed_sync(&self.path, e))
    }

    /// Whether somebody removed it: what is logged to it now would be lost with this process.
    pub(super) fn is_unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.links == 0)
    }
}

/// An open file, and its lock where one can be had.
type Locked = (Arc<dyn VfsFile>, Option<Box<dyn HeldLock>>);

/// Creates the file (or takes one that an earlier try left when it found no space: the name is this writer's own) and
/// locks it. Somebody who looks for dead writers may have the lock for a moment, and remove the file.
fn create_locked(vfs: &dyn Vfs, path: &Path, medium: Medium) -> Result<Locked> {
    for _ in 0..CREATE_TRIES_MAX {
        let file = match vfs.open(path, OpenMode::CreateNew) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => vfs.open(path, OpenMode::ReadWrite),
            file => file,
        };
        let file = match file {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(|e| Error::io("create", path, e))?,
        };
        if !medium.trusts_locks() {
            // The name is random, so it is this writer's own; for people who look, a lock is taken if there is one.
            let lock = file.try_lock().ok().flatten();
            return Ok((file, lock));
        }
        if let Some(lock) = file.try_lock().map_err(|e| Error::io("lock", path, e))?
            && file.metadata().map_err(|e| Error::io("stat", path, e))?.links > 0
        {
            return Ok((file, Some(lock)));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Err(Error::Busy { what: path.display().to_string(), holder: "another process".into() })
}
