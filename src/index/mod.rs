//! The index: a deletable cache of the log, in redb. Nothing else in the crate knows redb.
//!
//! Contract: it knows nothing but rows (uid -> bytes), postings (run -> segments) and marks (segment -> how far the
//! rows and postings cover it). It may be missing, behind, deleted, garbled or replaced by an older copy at any
//! moment: then an answer is [`Lookup::Miss`] or None, which means "use the log", and never a wrong one. (One hole is
//! known: if an older state of the same file is written over it in place and that is interrupted, single rows may be
//! older than the marks. Marks and scans of all rows notice even that.) No error and no panic of redb gets out. Readers
//! need no writer, write nothing and wait at most [`READ_WAIT_MAX`].
//!
//! redb is used in its multi-writer mode, though `index.lock` lets one process write at a time: it is the mode in
//! which readers of other processes follow, a writer may die at any point without a repair, and a forked child that
//! drops a handle it inherited harms nobody. A writer should open, checkpoint and drop: a file left by a killed
//! process is refused to readers until somebody writes again, and closed in between it is never left so.

mod checked;
mod tables;
mod writer;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Builder, ConcurrencyMode, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase};

use self::checked::CheckedFile;
use self::tables::{Key, Tally};
use crate::id::{SegmentId, StoreId, Uid};
use crate::vfs::{FileSystem, ForkGuard, OpenMode, Vfs};

pub use self::writer::{Checkpoint, IndexWriter, Outcome, Row};

/// Name of the file in the store's directory.
pub const INDEX_FILE: &str = "index.redb";
/// Name of the lock that admits a process to writing.
pub const INDEX_LOCK_FILE: &str = "index.lock";
/// The longest wait of a reader, for a writer that was stopped in the microseconds in which it excludes readers.
pub const READ_WAIT_MAX: Duration = Duration::from_millis(50);
/// Memory for pages, per reading handle.
const READ_CACHE_BYTES: usize = 2 * 1024 * 1024;

/// How far the index covers a segment: everything before `offset`, where a frame with this crc ends. A mark whose
/// frame is not there is void, and with it everything the index says of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The segment.
    pub segment: SegmentId,
    /// End of the last frame covered.
    pub offset: u64,
    /// That frame's crc.
    pub crc: u32,
}

/// What the index says of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The value as of the marks.
    Found(T),
    /// As of the marks there is no such value.
    Absent,
    /// The index cannot tell: use the log.
    Miss,
}

/// All rows of one kind, ascending by uid, in one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    bytes: Vec<u8>,
    ends: Vec<(Uid, usize)>,
}

impl Rows {
    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Each row's uid and bytes.
    pub fn iter(&self) -> impl Iterator<Item = (Uid, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        self.ends
            .iter()
            .zip(starts)
            .map(|((uid, end), start)| (*uid, self.bytes.get(start..*end).unwrap_or_default()))
    }

    fn push(&mut self, uid: Uid, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push((uid, self.bytes.len()));
    }
}

/// A handle for reading. It follows the commits of writers; every call is one short transaction.
pub struct Index {
    database: Contained<ReadOnlyDatabase>,
    path: PathBuf,
    identity: u64,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index of a store, or None if there is none to be had: missing, damaged, a copy, of another format
    /// version or another store, on a network file system, or left open by a killed writer.
    pub fn open_read(vfs: &dyn Vfs, path: &Path, store: &StoreId) -> Option<Self> {
        if vfs.file_system(path) == FileSystem::Network {
            return None;
        }
        let file = vfs.open_os_file(path, OpenMode::Read).ok()?;
        let identity = vfs.metadata(path).ok()?.identity;
        let database = contain(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(READ_CACHE_BYTES).set_concurrency_mode(ConcurrencyMode::MultiWriter);
            let file = CheckedFile::new(file, READ_WAIT_MAX)?;
            Ok(Contained::new(builder.open_read_only_with_backend(file)?))
        })
        .ok()?;
        let index = Self { database, path: path.to_path_buf(), identity };
        let wanted = tables::header(store, identity);
        (index.get(&tables::header_key()) == Lookup::Found(wanted)).then_some(index)
    }

    /// Whether the file read here is still the one of that name; if not, open again to follow the present one.
    pub fn is_current(&self, vfs: &dyn Vfs) -> bool {
        vfs.metadata(&self.path).is_ok_and(|metadata| metadata.identity == self.identity)
    }

    /// How far the index covers which segments. Read this first: rows read later are never older than these marks.
    pub fn marks(&self) -> Option<Vec<Mark>> {
        self.read(marks_in)
    }

    /// One row.
    pub fn row(&self, kind: u8, uid: &Uid) -> Lookup<Vec<u8>> {
        tables::row_key(kind, uid).map_or(Lookup::Miss, |key| self.get(&key))
    }

    /// All rows of a kind as of one commit.
    pub fn rows(&self, kind: u8) -> Option<Rows> {
        let kind = tables::row_kind(kind)?;
        self.read(|table| {
            let mut rows = Rows::default();
            let whole = scan(table, kind, |key, payload| {
                rows.push(Uid::from_bytes(tables::id_of(key)), payload);
                Some(())
            })?;
            Ok(whole.map(|()| rows))
        })
    }

    /// The segments that hold columns of a run.
    pub fn segments(&self, run: &Uid) -> Lookup<Vec<SegmentId>> {
        match self.get(&tables::key(tables::POSTING, run.as_bytes())) {
            Lookup::Found(payload) => tables::posting(&payload).map_or(Lookup::Miss, Lookup::Found),
            Lookup::Absent => Lookup::Absent,
            Lookup::Miss => Lookup::Miss,
        }
    }

    fn get(&self, key: &Key) -> Lookup<Vec<u8>> {
        let found = self.read(|table| {
            let Some(value) = table.get(key)? else { return Ok(Some(Lookup::Absent)) };
            Ok(tables::unseal(key, value.value()).map(|payload| Lookup::Found(payload.to_vec())))
        });
        found.unwrap_or(Lookup::Miss)
    }

    /// Runs one read transaction; None for everything that is not an answer.
    fn read<T>(&self, read: impl FnOnce(&ReadTable) -> Result<Option<T>, Fault>) -> Option<T> {
        let database = self.database.get()?;
        contain(|| read(&database.begin_read()?.open_table(tables::TABLE)?)).ok().flatten()
    }
}

type ReadTable = ReadOnlyTable<&'static Key, &'static [u8]>;

/// Shows all entries of a kind; None if one is damaged or the whole is not the set that was written.
fn scan(
    table: &impl redb::ReadableTable<&'static Key, &'static [u8]>,
    kind: u8,
    mut show: impl FnMut(&Key, &[u8]) -> Option<()>,
) -> Result<Option<()>, Fault> {
    let Some(wanted) = tally_in(table, kind)? else { return Ok(None) };
    let mut found = Tally::default();
    let (first, last) = (tables::key(kind, &[0; 16]), tables::key(kind, &[0xff; 16]));
    for entry in table.range::<&Key>(&first..=&last)? {
        let (key, value) = entry?;
        let (key, value) = (key.value(), value.value());
        if tables::unseal(key, value).and_then(|payload| show(key, payload)).is_none() {
            return Ok(None);
        }
        found.add(key, value);
    }
    Ok((found == wanted).then_some(()))
}

/// The tally of a kind; None if damaged.
fn tally_in(
    table: &impl redb::ReadableTable<&'static Key, &'static [u8]>,
    kind: u8,
) -> Result<Option<Tally>, Fault> {
    let key = tables::tally_key(kind);
    Ok(match table.get(&key)? {
        None => Some(Tally::default()),
        Some(value) => tables::unseal(&key, value.value()).and_then(Tally::from_bytes),
    })
}

fn marks_in(
    table: &impl redb::ReadableTable<&'static Key, &'static [u8]>,
) -> Result<Option<Vec<Mark>>, Fault> {
    let mut marks = Vec::new();
    let whole = scan(table, tables::MARK, |key, payload| {
        marks.push(tables::mark(key, payload)?);
        Some(())
    })?;
    Ok(whole.map(|()| marks))
}

/// Why redb gave no answer.
#[derive(Debug)]
enum Fault {
    /// Somebody else is in the way; the file is fine.
    Busy,
    /// The file is no good.
    Damaged,
    /// The system refused (full disk, permissions, ...); nothing is known of the file.
    Refused(String),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        use redb::Error as E;
        let error = error.into();
        match error {
            E::DatabaseAlreadyOpen | E::LockProtocolMismatch | E::WouldBlock => Self::Busy,
            E::Io(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Self::Busy,
                // A damaged block, a file that is no redb file, a file that ends too early.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged,
                _ => Self::Refused(error.to_string()),
            },
            _ => Self::Damaged,
        }
    }
}

/// Runs redb with its panics contained. redb documents that it may panic on a file altered behind its back, and
/// asserts more in debug builds. The checksums of [`CheckedFile`] keep altered bytes from it, so this is the second
/// line: for blocks of two states mixed by an interrupted copy. The panic hook prints as usual. Where panics abort,
/// this does nothing.
fn contain<T>(run: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    // Unwind safe: after a panic the redb handle answers errors at most, and no value of ours is half changed.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(Fault::Damaged))
}

/// A redb handle that is not used, unlocked or closed by a forked child, and whose closing cannot panic.
struct Contained<T> {
    handle: Option<T>,
    guard: ForkGuard,
}

impl<T> Contained<T> {
    fn new(handle: T) -> Self {
        Self { handle: Some(handle), guard: ForkGuard::new() }
    }

    fn get(&self) -> Option<&T> {
        self.handle.as_ref().filter(|_| !self.guard.forked())
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            if self.guard.forked() {
                // Its locks belong to the parent too: closing would unlock them.
                std::mem::forget(handle);
            } else {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(handle)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;
    use crate::vfs::fork::tests::in_forked_child;

    const STORE: StoreId = StoreId::from_bytes([1; 16]);

    fn rows(text: &str) -> Checkpoint {
        let rows =
            (0..50u8).map(|i| (0, Uid::from_bytes([i; 16]), format!("{text} {i}").into_bytes())).collect();
        Checkpoint { rows, ..Checkpoint::default() }
    }

    #[test]
    fn a_forked_child_neither_uses_nor_closes_what_it_inherited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(INDEX_FILE);
        let mut writer = IndexWriter::open(&OsVfs, &path, &STORE, "parent").unwrap();
        assert_eq!(writer.checkpoint(&rows("one")), Outcome::Written);
        let index = Index::open_read(&OsVfs, &path, &STORE).unwrap();
        let (mut inherited, mut read) = (Some(writer), Some(index));
        let code = in_forked_child(|| {
            let missed =
                read.as_ref().is_some_and(|index| index.row(0, &Uid::from_bytes([1; 16])) == Lookup::Miss);
            let refused = inherited
                .as_mut()
                .is_some_and(|w| matches!(w.checkpoint(&rows("child")), Outcome::Refused(_)));
            drop((inherited.take(), read.take()));
            let locked = IndexWriter::open(&OsVfs, &path, &STORE, "child").is_none();
            u8::from(!(missed && refused && locked))
        });
        assert_eq!(code, 0);
        let (mut writer, index) = (inherited.unwrap(), read.unwrap());
        assert_eq!(writer.checkpoint(&rows("two")), Outcome::Written);
        assert_eq!(index.row(0, &Uid::from_bytes([7; 16])), Lookup::Found(b"two 7".to_vec()));
        drop(writer);
        assert_eq!(Index::open_read(&OsVfs, &path, &STORE).unwrap().rows(0).unwrap().len(), 50);
    }
}
