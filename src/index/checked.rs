//! redb's storage, with a checksum on every block and a bound on every wait.
//!
//! Contract: redb trusts the file it has closed: ordinary reads do not verify, and of 2,000 flipped bits 1,409 changed
//! answers without a word. So each 4 KiB of redb's file lies here with a crc behind it that also covers its block
//! number, and a block is returned only if it is what was written at that place. redb also waits for locks without
//! limit; here a wait ends with `WouldBlock` after a bound, since the holder may be a stopped process.
//!
//! redb grows its file by setting the length and writes each page before it reads it, so a block of zeros is damage
//! (the usual kind after a power cut) except under the first write of a part of it.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redb::StorageBackend;
use redb::backends::FileBackend;

/// redb's page, and the unit of checking: a page that a reader holds is never in one block with one being written.
const BLOCK_BYTES: usize = 4096;
/// The block and its crc.
const STORED_BYTES: usize = BLOCK_BYTES + 4;
/// Between two attempts at a lock. A commit holds redb's header lock for microseconds, its writer lock for
/// milliseconds.
const LOCK_POLL: Duration = Duration::from_micros(500);

#[derive(Debug)]
pub(super) struct CheckedFile {
    file: FileBackend,
    /// Held from reading a block to writing it back when only part of it changes.
    partial_writes: Mutex<()>,
    wait_max: Duration,
}

type LockResult<T> = Result<T, redb::BackendError>;

impl CheckedFile {
    pub(super) fn new(file: File, wait_max: Duration) -> io::Result<Self> {
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Self { file, partial_writes: Mutex::new(()), wait_max })
    }

    fn wait_for(&self, mut attempt: impl FnMut() -> LockResult<bool>) -> LockResult<()> {
        let start = Instant::now();
        while !attempt()? {
            if start.elapsed() >= self.wait_max {
                return Err(redb::BackendError::Io(io::ErrorKind::WouldBlock.into()));
            }
            std::thread::sleep(LOCK_POLL);
        }
        Ok(())
    }

    /// Reads whole blocks from number `first` on and checks them.
    fn read_blocks(&self, first: u64, blocks: &mut [u8], unwritten: Unwritten) -> io::Result<()> {
        let count = blocks.len() / BLOCK_BYTES;
        let mut stored = vec![0; count * STORED_BYTES];
        self.file.read(stored_offset(first)?, &mut stored)?;
        let numbered =
            (first..).zip(stored.chunks_exact(STORED_BYTES)).zip(blocks.chunks_exact_mut(BLOCK_BYTES));
        for ((number, stored), block) in numbered {
            let (data, crc) = stored.split_at(BLOCK_BYTES);
            let fresh = || unwritten == Unwritten::Allowed && stored.iter().all(|byte| *byte == 0);
            if crc != block_crc(number, data) && !fresh() {
                let text = format!("block {number} of the index is damaged");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            block.copy_from_slice(data);
        }
        Ok(())
    }

    fn write_blocks(&self, first: u64, blocks: &[u8]) -> io::Result<()> {
        let mut stored = Vec::with_capacity(blocks.len() / BLOCK_BYTES * STORED_BYTES);
        for (number, block) in (first..).zip(blocks.chunks_exact(BLOCK_BYTES)) {
            stored.extend_from_slice(block);
            stored.extend_from_slice(&block_crc(number, block));
        }
        self.file.write(stored_offset(first)?, &stored)
    }
}

fn block_crc(number: u64, data: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(data);
    hasher.finalize().to_le_bytes()
}

fn stored_offset(block: u64) -> io::Result<u64> {
    block.checked_mul(STORED_BYTES as u64).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Whether a block of zeros may be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unwritten {
    Allowed,
    Damage,
}

/// The blocks that a range of bytes touches, as the first block's number, the range's start in it, and their count.
fn touched(offset: u64, len: usize) -> io::Result<(u64, usize, usize)> {
    let start = usize::try_from(offset % BLOCK_BYTES as u64).map_err(io::Error::other)?;
    let count = start.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?.div_ceil(BLOCK_BYTES);
    Ok((offset / BLOCK_BYTES as u64, start, count))
}

impl StorageBackend for CheckedFile {
    fn len(&self) -> io::Result<u64> {
        // A torn block at the end of a truncated file does not count; redb misses it by the length.
        Ok(self.file.len()? / STORED_BYTES as u64 * BLOCK_BYTES as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (first, start, count) = touched(offset, out.len())?;
        if start == 0 && out.len().is_multiple_of(BLOCK_BYTES) {
            return self.read_blocks(first, out, Unwritten::Damage);
        }
        let mut blocks = vec![0; count * BLOCK_BYTES];
        self.read_blocks(first, &mut blocks, Unwritten::Damage)?;
        out.copy_from_slice(blocks.get(start..start + out.len()).ok_or(io::ErrorKind::InvalidInput)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the index is made of whole pages"));
        }
        self.file.set_len(stored_offset(len / BLOCK_BYTES as u64)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (first, start, count) = touched(offset, data.len())?;
        let _one_at_a_time = self.partial_writes.lock().unwrap_or_else(PoisonError::into_inner);
        if start == 0 && data.len().is_multiple_of(BLOCK_BYTES) {
            return self.write_blocks(first, data);
        }
        let mut blocks = vec![0; count * BLOCK_BYTES];
        self.read_blocks(first, &mut blocks, Unwritten::Allowed)?;
        blocks.get_mut(start..start + data.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(data);
        self.write_blocks(first, &blocks)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.wait_for(|| self.file.try_lock_range(start, end))
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.wait_for(|| self.file.try_lock_shared_range(start, end))
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.file.query_lock_range(start, end)
    }
}
