//! Writing the index.
//!
//! Contract: at most one writer per store at a time, by `index.lock`, taken without waiting. What it finds damaged,
//! or of another version or store, it deletes and begins anew. A checkpoint is one transaction: readers see all of
//! it or nothing. The caller puts in only what is durable in segments.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Builder, ConcurrencyMode, Database, ReadableDatabase, ReadableTable, Table};

use super::checked::CheckedFile;
use super::tables::{self, Key, Tally};
use super::{Contained, Fault, INDEX_LOCK_FILE, Mark, contain, marks_in, tally_in};
use crate::id::{SegmentId, StoreId, Uid};
use crate::limits::FRAME_BYTES_MAX;
use crate::vfs::{FileSystem, HeldLock, OpenMode, Vfs};

/// Memory for pages while writing.
const WRITE_CACHE_BYTES: usize = 4 * 1024 * 1024;
/// The longest wait for one of redb's locks: dropping a store may have to wait this long for a checkpoint under way.
const WRITE_WAIT_MAX: Duration = Duration::from_millis(200);

/// A file this large, and larger than [`SPREAD_MAX`] times what is in it, is made anew. redb keeps every page that a
/// read transaction may need, so a reader that is stopped in one makes the file grow with each commit (1 GB in 8,000
/// of them). The new file is not held back by it.
const BLOAT_BYTES: u64 = if cfg!(test) { 4 } else { 64 } * 1024 * 1024;
/// A file in use is about 2-3 times as large as what is in it, since redb doubles it.
const SPREAD_MAX: u64 = 8;

/// What one checkpoint changes.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Rows to set.
    pub rows: Vec<Row>,
    /// Rows to remove.
    pub removed_rows: Vec<(u8, Uid)>,
    /// The segments of a run, all of them.
    pub postings: Vec<(Uid, Vec<SegmentId>)>,
    /// How far the index covers which segments once this is in.
    pub marks: Vec<Mark>,
    /// Segments whose marks go. Postings may go on naming them; whoever reads postings skips segments that are gone.
    pub removed_segments: Vec<SegmentId>,
}

/// A row to set: the caller's kind (at most 239), uid, bytes.
pub type Row = (u8, Uid, Vec<u8>);

/// How a checkpoint went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in, durably.
    Written,
    /// Another process is in the way; nothing has changed. Try again later.
    Busy,
    /// The index was damaged and is empty now: read the marks and send everything again.
    Rebuilt,
    /// The system refused (a full disk, ...); nothing has changed that a reader could see. The handle is used up.
    Refused(String),
}

/// The handle that may write. Holds `index.lock`; open it for a checkpoint and drop it (see the module above).
pub struct IndexWriter<'a> {
    vfs: &'a dyn Vfs,
    path: PathBuf,
    store: StoreId,
    database: Option<Contained<Database>>,
    // Released after the database is closed: fields drop in order.
    _lock: Box<dyn HeldLock>,
}

impl fmt::Debug for IndexWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'a> IndexWriter<'a> {
    /// Takes `index.lock` beside `path` and opens or makes the index. None if another process has the lock or is in
    /// the way, on a network file system, or where the file cannot be made.
    pub fn open(vfs: &'a dyn Vfs, path: &Path, store: &StoreId, holder: &str) -> Option<Self> {
        if vfs.file_system(path) == FileSystem::Network {
            return None;
        }
        let lock = vfs.try_lock(&path.with_file_name(INDEX_LOCK_FILE), holder).ok()??;
        let mut writer = Self { vfs, path: path.to_path_buf(), store: *store, database: None, _lock: lock };
        writer.database = match writer.open_database() {
            Ok(database) => Some(database),
            Err(Fault::Damaged) => writer.begin_anew().ok(),
            Err(Fault::Busy | Fault::Refused(_)) => None,
        };
        writer.database.is_some().then_some(writer)
    }

    /// What is marked now, to know what to send; empty if damaged.
    pub fn marks(&self) -> Vec<Mark> {
        let read =
            |database: &Database| contain(|| marks_in(&database.begin_read()?.open_table(tables::TABLE)?));
        self.database.as_ref().and_then(Contained::get).and_then(|d| read(d).ok()?).unwrap_or_default()
    }

    /// Puts everything in, in one durable transaction.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Outcome {
        self.checkpoint_with(checkpoint, &mut std::iter::empty())
    }

    /// The same with further rows, which are asked for one by one: memory holds one of them and redb's small cache,
    /// however many there are. Sorted by kind and uid they are written several times faster. An error among them is
    /// [`Outcome::Refused`].
    pub fn checkpoint_with(
        &mut self,
        checkpoint: &Checkpoint,
        rows: &mut dyn Iterator<Item = crate::error::Result<Row>>,
    ) -> Outcome {
        let Some(database) = self.database.as_ref().and_then(Contained::get) else {
            return Outcome::Refused("the index is not open".to_owned());
        };
        match contain(|| write(database, checkpoint, rows)) {
            Ok(()) => Outcome::Written,
            Err(Fault::Busy) => Outcome::Busy,
            Err(Fault::Refused(text)) => {
                self.database = None;
                Outcome::Refused(text)
            }
            Err(Fault::Damaged) => match self.begin_anew() {
                Ok(database) => {
                    self.database = Some(database);
                    Outcome::Rebuilt
                }
                Err(Fault::Refused(text)) => Outcome::Refused(text),
                Err(Fault::Busy | Fault::Damaged) => {
                    Outcome::Refused("a new index could not be made".to_owned())
                }
            },
        }
    }

    /// Opens what is there, makes what is not. `Damaged` if it is there and no good, or somebody else's.
    fn open_database(&self) -> Result<Contained<Database>, Fault> {
        let refused = |error: std::io::Error| Fault::Refused(error.to_string());
        let (file, fresh) = match self.vfs.open_os_file(&self.path, OpenMode::ReadWrite) {
            Ok(file) => (file, false),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                (self.vfs.open_os_file(&self.path, OpenMode::CreateNew).map_err(refused)?, true)
            }
            Err(error) => return Err(refused(error)),
        };
        let metadata = self.vfs.metadata(&self.path).map_err(refused)?;
        let database = contain(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(WRITE_CACHE_BYTES).set_concurrency_mode(ConcurrencyMode::MultiWriter);
            let file = CheckedFile::new(file, WRITE_WAIT_MAX)?;
            Ok(Contained::new(builder.create_with_backend(file)?))
        })?;
        let Some(handle) = database.get() else { return Err(Fault::Busy) };
        let wanted = tables::header(&self.store, metadata.identity);
        contain(|| {
            if fresh {
                return put_header(handle, &wanted);
            }
            let key = tables::header_key();
            let table = handle.begin_read()?.open_table(tables::TABLE)?;
            let value = table.get(&key)?;
            let ours =
                value.is_some_and(|value| tables::unseal(&key, value.value()) == Some(wanted.as_slice()));
            // A bloated file is treated like a damaged one.
            if ours && metadata.len <= BLOAT_BYTES.max(bytes_in(&table)?.saturating_mul(SPREAD_MAX)) {
                Ok(())
            } else {
                Err(Fault::Damaged)
            }
        })?;
        Ok(database)
    }

    fn begin_anew(&mut self) -> Result<Contained<Database>, Fault> {
        self.database = None;
        match self.vfs.remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Fault::Refused(error.to_string()))
            }
            _ => self.open_database(),
        }
    }
}

fn put_header(database: &Database, header: &[u8]) -> Result<(), Fault> {
    let transaction = database.try_begin_write()?;
    let key = tables::header_key();
    transaction.open_table(tables::TABLE)?.insert(&key, tables::seal(&key, header).as_slice())?;
    Ok(transaction.commit()?)
}

/// Bytes of all values, by the tallies.
fn bytes_in(table: &impl ReadableTable<&'static Key, &'static [u8]>) -> Result<u64, Fault> {
    let mut bytes = 0u64;
    let (first, last) = (tables::tally_key(1), tables::tally_key(u8::MAX));
    for entry in table.range::<&Key>(&first..=&last)? {
        let (key, value) = entry?;
        let tally = tables::unseal(key.value(), value.value()).and_then(Tally::from_bytes);
        bytes = bytes.saturating_add(tally.ok_or(Fault::Damaged)?.bytes);
    }
    Ok(bytes)
}

fn write(
    database: &Database,
    checkpoint: &Checkpoint,
    more: &mut dyn Iterator<Item = crate::error::Result<Row>>,
) -> Result<(), Fault> {
    let transaction = database.try_begin_write()?;
    let mut changes = Changes { table: transaction.open_table(tables::TABLE)?, tallies: BTreeMap::new() };
    let row_key = |kind, uid: Uid| {
        tables::row_key(kind, &uid).ok_or_else(|| Fault::Refused("row kinds go up to 239".to_owned()))
    };
    // In the order of the keys: several times faster than at random when there are many.
    let mut rows = BTreeMap::new();
    for (kind, uid, row) in &checkpoint.rows {
        rows.insert(row_key(*kind, *uid)?, row);
    }
    for (key, row) in rows {
        changes.set(&key, row)?;
    }
    for row in more {
        let (kind, uid, row) = row.map_err(|error| Fault::Refused(error.to_string()))?;
        changes.set(&row_key(kind, uid)?, &row)?;
    }
    for (kind, uid) in &checkpoint.removed_rows {
        changes.remove(&row_key(*kind, *uid)?)?;
    }
    let postings: BTreeMap<_, _> =
        checkpoint.postings.iter().map(|(run, segments)| (run, segments)).collect();
    for (run, segments) in postings {
        changes.set(&tables::key(tables::POSTING, run.as_bytes()), &tables::posting_payload(segments))?;
    }
    for segment in &checkpoint.removed_segments {
        changes.remove(&tables::key(tables::MARK, segment.as_bytes()))?;
    }
    for mark in &checkpoint.marks {
        changes.set(&tables::key(tables::MARK, mark.segment.as_bytes()), &tables::mark_payload(mark))?;
    }
    changes.finish()?;
    Ok(transaction.commit()?)
}

/// The table with the tallies kept along.
struct Changes<'t> {
    table: Table<'t, &'static Key, &'static [u8]>,
    tallies: BTreeMap<u8, Tally>,
}

impl Changes<'_> {
    fn set(&mut self, key: &Key, payload: &[u8]) -> Result<(), Fault> {
        if payload.len() > FRAME_BYTES_MAX {
            return Err(Fault::Refused(format!("a row of {} bytes is over the limit", payload.len())));
        }
        let mut tally = self.tally(key)?;
        let value = tables::seal(key, payload);
        if let Some(old) = self.table.insert(key, value.as_slice())? {
            tally.remove(key, old.value());
        }
        tally.add(key, &value);
        self.tallies.insert(kind_of(key), tally);
        Ok(())
    }

    fn remove(&mut self, key: &Key) -> Result<(), Fault> {
        let mut tally = self.tally(key)?;
        if let Some(old) = self.table.remove(key)? {
            tally.remove(key, old.value());
        }
        self.tallies.insert(kind_of(key), tally);
        Ok(())
    }

    fn tally(&self, key: &Key) -> Result<Tally, Fault> {
        match self.tallies.get(&kind_of(key)) {
            Some(tally) => Ok(*tally),
            None => tally_in(&self.table, kind_of(key))?.ok_or(Fault::Damaged),
        }
    }

    fn finish(mut self) -> Result<(), Fault> {
        for (kind, tally) in std::mem::take(&mut self.tallies) {
            let key = tables::tally_key(kind);
            self.table.insert(&key, tables::seal(&key, &tally.to_bytes()).as_slice())?;
        }
        Ok(())
    }
}

fn kind_of(key: &Key) -> u8 {
    let [kind, ..] = key;
    *kind
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use crate::vfs::OsVfs;

    #[test]
    fn a_reader_stopped_in_a_transaction_cannot_make_the_file_grow_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.redb");
        let store = StoreId::from_bytes([1; 16]);
        let all: Vec<_> =
            (0..200u64).map(|i| (0, Uid::derived("run", &[&i.to_le_bytes()]), vec![7; 500])).collect();
        let checkpoint = |rows: &[_]| {
            let mut writer = IndexWriter::open(&OsVfs, &path, &store, "test").unwrap();
            let rows = if writer.marks().is_empty() { all.clone() } else { rows.to_vec() };
            let marks = vec![Mark { segment: SegmentId::from_bytes([1; 16]), offset: 1, crc: 1 }];
            assert_eq!(
                writer.checkpoint(&Checkpoint { rows, marks, ..Checkpoint::default() }),
                Outcome::Written
            );
        };
        checkpoint(&[]);
        let reader = Index::open_read(&OsVfs, &path, &store).unwrap();
        let pinned = reader.database.get().unwrap().begin_read().unwrap();
        let mut largest = 0;
        for _ in 0..150 {
            checkpoint(&all);
            largest = largest.max(OsVfs.metadata(&path).unwrap().len);
        }
        drop(pinned);
        assert!(!reader.is_current(&OsVfs), "the file was never made anew; it grew to {largest} bytes");
        assert!(largest <= 4 * BLOAT_BYTES, "{largest}");
        assert_eq!(Index::open_read(&OsVfs, &path, &store).unwrap().rows(0).unwrap().len(), 200);
    }
}
