//! The only place that touches the file system, memory maps and `unsafe`.
//!
//! Contract: everything above goes through [`Vfs`] and [`VfsFile`], so that the operating system, a memory twin and a
//! fault-injecting twin run the same code. Calls return plain `io::Result`; the caller knows the path and wraps it in
//! the crate's error. Nothing here retries a sync, shortens a file, or knows what the bytes mean.

pub mod fault;
pub mod fork;
mod lock;
pub mod memory;
pub mod os;
pub mod per_process;
pub mod power;
pub mod process;
#[cfg(all(test, loom))]
mod shared_memory;

pub use fault::FaultVfs;
pub use fork::ForkGuard;
pub use memory::MemoryVfs;
pub use os::OsVfs;
pub use per_process::PerProcess;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::sync::AtomicU64;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; it must not exist yet.
    CreateNew,
}

/// What a listing says of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// File name (no path). Entries whose names are not UTF-8 are not listed: the engine never makes such names.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What `stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes.
    pub len: u64,
    /// Identity of the file (device and inode mixed), to notice a file replaced under its name.
    pub identity: u64,
    /// Hard links; 0 once unlinked.
    pub links: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Last modification, milliseconds since 1970.
    pub modified_ms: u64,
}

/// What kind of file system a path is on, as far as the engine cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, xfs, tmpfs, or overlay on these: shared mappings and locks hold what they promise.
    Mappable,
    /// Local, but copy-on-write or unknown (btrfs, zfs, fuse, 9p, ...): plain writes only.
    Local,
    /// On the network (nfs, cifs, lustre, ...): plain writes, no locks to trust, no redb.
    Network,
}

/// A lock held on a file until dropped. Advisory; also excludes other handles of this process.
pub trait HeldLock: Send + Sync + fmt::Debug {}

/// A file system.
pub trait Vfs: Send + Sync + fmt::Debug {
    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;
    /// Lists a directory, in no particular order.
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>>;
    /// Creates a directory and its parents; existing ones are fine.
    fn create_dir_all(&self, directory: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, _directory: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Whether `path` itself is a symbolic link, wherever it leads.
    fn is_symlink(&self, _path: &Path) -> bool {
        false
    }
    /// Renames a file, replacing the target atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, which must not exist yet.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Copies a file to a name that must not exist yet, sharing blocks where the file system can. Nothing is synced;
    /// after an error no half copy is left.
    fn copy_file(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
    /// What is known of a path; `NotFound` if there is nothing.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// The kind of file system that holds `path`.
    fn file_system(&self, path: &Path) -> FileSystem;
    /// Takes an exclusive lock on the file at `path` (created if missing) without waiting; `Ok(None)` if somebody
    /// holds it. On success `holder` (one line of text) is written into the file first thing.
    fn try_lock(&self, path: &Path, holder: &str) -> io::Result<Option<Box<dyn HeldLock>>>;
    /// What the present or last holder wrote into a lock file; empty if unknown.
    fn lock_holder(&self, path: &Path) -> String;
    /// The operating system's own file, for the one library (the index's) that wants to lock parts of it itself;
    /// `Unsupported` where there is no such file.
    fn open_os_file(&self, _path: &Path, _mode: OpenMode) -> io::Result<std::fs::File> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// An open file.
pub trait VfsFile: Send + Sync + fmt::Debug {
    /// Reads at an offset; fewer bytes than asked only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at an offset, growing the file; a short write is continued, EINTR repeated. On an error the
    /// bytes at `offset..` are undefined and the caller may write them again.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Present length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Makes the content (and the length) durable. Never retried after a failure.
    fn sync_data(&self) -> io::Result<()>;
    /// Identity, links and so on of the open file.
    fn metadata(&self) -> io::Result<Metadata>;
    /// Maps `len` bytes at `offset` (both multiples of 4096, inside the file) shared and writable, as words.
    /// `Unsupported` where the twin has no maps.
    fn map(&self, offset: u64, len: usize) -> io::Result<Arc<dyn SharedWords>>;
    /// Takes an exclusive lock on this file without waiting; `Ok(None)` if somebody holds it.
    fn try_lock(&self) -> io::Result<Option<Box<dyn HeldLock>>>;
    /// Whether somebody else holds a lock on this file. Asks and takes nothing, so it is in nobody's way.
    fn is_locked(&self) -> io::Result<bool>;
}

/// Shared memory of a mapped file. Words are atomics because other processes read them while they change.
pub trait SharedWords: Send + Sync + fmt::Debug {
    /// The mapped words, little-endian in the file.
    fn words(&self) -> &[AtomicU64];
    /// Makes all pages present and writable now, so that no later store waits for a fault. A hint; changes no word.
    fn prefault(&self) {}
}
