//! What a power cut can leave.
//!
//! Contract: the model is stricter than any real file system, so code that survives it depends on none. A write is
//! durable once its file was synced after it; a name (made, removed, renamed, or of a directory) once its directory
//! was synced after it; nothing makes anything else durable. Everything not durable may be there, be missing, or be
//! torn, each change by itself. What a failed sync covered stays doubtful for ever: a later sync that succeeds does
//! not bring it back (Linux drops the dirty mark when a write-back fails).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::memory::{MemoryVfs, normal};
use super::{OpenMode, Vfs};

/// The unit a disk writes whole or not at all (`docs/durability.md`, media assumptions).
pub const SECTOR_BYTES: usize = 512;

/// What the medium surely holds, and what is still on its way there.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    names: BTreeMap<PathBuf, Named>,
    content: BTreeMap<u64, Arc<Vec<u8>>>,
    pending: Vec<Change>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A directory.
    Directory,
    /// A file, by its identity.
    File(u64),
}

/// One change that is not durable yet.
#[derive(Clone, Debug)]
pub enum Change {
    /// Bytes of a file.
    Write {
        /// Identity of the file.
        file: u64,
        /// Where in the file.
        offset: u64,
        /// What was written.
        bytes: Arc<[u8]>,
        /// A sync of the file failed after this write.
        doubtful: bool,
    },
    /// A name made, or removed if `to` is None.
    Name {
        /// The name.
        path: PathBuf,
        /// What it stands for from now on.
        to: Option<Named>,
    },
    /// A file renamed within its directory: both names change together or not at all.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name; whatever had it loses it.
        to: PathBuf,
        /// Identity of the file.
        file: u64,
    },
}

/// What becomes of one pending change in a crash. For changes of names, all but `Lost` mean that it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It never reached the medium.
    Lost,
    /// All of it did.
    Whole,
    /// Only the first bytes did.
    Prefix(usize),
    /// Only the sectors whose number (counted from the start of the file, modulo 64) has its bit set.
    Sectors(u64),
    /// The file has grown, but holds zeros there.
    Zeros,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { file, offset, bytes, .. } => {
                write!(f, "write of {} bytes at {offset} of file {file}", bytes.len())
            }
            Self::Name { path, to: Some(_) } => write!(f, "new name {}", path.display()),
            Self::Name { path, to: None } => write!(f, "removal of {}", path.display()),
            Self::Rename { from, to, .. } => write!(f, "rename of {} to {}", from.display(), to.display()),
        }
    }
}

impl Disk {
    /// A disk on which everything that `memory` holds is durable.
    ///
    /// # Errors
    /// When the files change meanwhile.
    pub fn holding(memory: &MemoryVfs) -> io::Result<Self> {
        let mut disk = Self::default();
        for (path, content) in memory.tree() {
            let named = match content {
                None => Named::Directory,
                Some(bytes) => {
                    let file = memory.open(&path, OpenMode::Read)?.metadata()?.identity;
                    disk.content.insert(file, Arc::new(bytes));
                    Named::File(file)
                }
            };
            disk.names.insert(path, named);
        }
        Ok(disk)
    }

    /// The changes that a power cut now may lose, oldest first.
    pub fn pending(&self) -> &[Change] {
        &self.pending
    }

    pub(super) fn wrote(&mut self, file: u64, offset: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.pending.push(Change::Write { file, offset, bytes: bytes.into(), doubtful: false });
        }
    }

    pub(super) fn named(&mut self, path: &Path, to: Option<Named>) {
        self.pending.push(Change::Name { path: normal(path), to });
    }

    pub(super) fn renamed(&mut self, from: &Path, to: &Path, file: u64) {
        let (from, to) = (normal(from), normal(to));
        if from.parent() == to.parent() {
            self.pending.push(Change::Rename { from, to, file });
        } else {
            // Two directories, each durable by itself: in between the file has both names, or none.
            self.pending.push(Change::Name { path: to, to: Some(Named::File(file)) });
            self.pending.push(Change::Name { path: from, to: None });
        }
    }

    pub(super) fn synced_file(&mut self, synced: u64) {
        for change in std::mem::take(&mut self.pending) {
            match &change {
                Change::Write { file, offset, bytes, doubtful: false } if *file == synced => {
                    // The page that a doubtful write left in memory is written again with this one.
                    self.forget_doubtful(synced, *offset, bytes.len() as u64);
                    write_to(&mut self.content, *file, *offset, bytes);
                }
                _ => self.pending.push(change),
            }
        }
    }

    pub(super) fn failed_to_sync_file(&mut self, failed: u64) {
        for change in &mut self.pending {
            if let Change::Write { file, doubtful, .. } = change {
                *doubtful |= *file == failed;
            }
        }
    }

    pub(super) fn synced_directory(&mut self, directory: &Path) {
        let directory = normal(directory);
        let inside = |path: &Path| path.parent() == Some(directory.as_path());
        for change in std::mem::take(&mut self.pending) {
            match &change {
                Change::Name { path, .. } | Change::Rename { to: path, .. } if inside(path) => {
                    name(&mut self.names, &change);
                }
                _ => self.pending.push(change),
            }
        }
    }

    /// Cuts `offset..offset + len` out of the doubtful writes of a file that were made before it.
    fn forget_doubtful(&mut self, of: u64, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let mut kept = Vec::with_capacity(self.pending.len());
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Write { file, offset: start, bytes, doubtful: true } if file == of => {
                    let cut = |at: u64| {
                        usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(bytes.len())
                    };
                    let (left, right) = (&bytes[..cut(offset)], &bytes[cut(end)..]);
                    let right_start = start + (bytes.len() - right.len()) as u64;
                    for (offset, part) in [(start, left), (right_start, right)] {
                        if !part.is_empty() {
                            kept.push(Change::Write { file, offset, bytes: part.into(), doubtful: true });
                        }
                    }
                }
                change => kept.push(change),
            }
        }
        self.pending = kept;
    }

    /// The files as they are found after a power cut in which each pending change went as `keep` says.
    pub fn after_crash(&self, mut keep: impl FnMut(usize, &Change) -> Keep) -> MemoryVfs {
        let (mut names, mut content) = (self.names.clone(), self.content.clone());
        for (position, change) in self.pending.iter().enumerate() {
            let keep = keep(position, change);
            match change {
                Change::Write { file, offset, bytes, .. } => tear(&mut content, *file, *offset, bytes, keep),
                _ if keep == Keep::Lost => {}
                _ => name(&mut names, change),
            }
        }
        let reachable = |path: &Path| {
            path.ancestors()
                .skip(1)
                .filter(|p| !p.as_os_str().is_empty())
                .all(|p| names.get(p) == Some(&Named::Directory))
        };
        let bytes_of = |named: &Named| match named {
            Named::Directory => None,
            Named::File(file) => Some(content.get(file).cloned().unwrap_or_default()),
        };
        let files = names.iter().filter(|(path, _)| reachable(path));
        let files = files.map(|(path, named)| (path.clone(), bytes_of(named)));
        MemoryVfs::from_files(files).unwrap_or_default()
    }

    /// Crash images with a description each: nothing pending arrived, all of it, each change alone, all but each,
    /// every prefix in time, and `random` mixtures of whole, missing, torn and zeroed changes, the same for the same
    /// seed. Every image is a copy of the whole disk: take what you need.
    pub fn crash_images(&self, seed: u64, random: usize) -> impl Iterator<Item = (String, MemoryVfs)> + '_ {
        let whole_if = |yes: bool| if yes { Keep::Whole } else { Keep::Lost };
        let describe = move |what: &str, i: usize| {
            self.pending.get(i).map_or_else(|| what.to_owned(), |change| format!("{what} #{i}: {change}"))
        };
        let count = self.pending.len();
        let ends = [("none of the pending changes", Keep::Lost), ("all pending changes", Keep::Whole)];
        let ends = ends.into_iter().map(|(text, keep)| (text.to_owned(), self.after_crash(|_, _| keep)));
        let alone = (0..count).map(move |i| (describe("only", i), self.after_crash(|n, _| whole_if(n == i))));
        let without =
            (0..count).map(move |i| (describe("all but", i), self.after_crash(|n, _| whole_if(n != i))));
        let prefixes =
            (1..count).map(move |i| (describe("all before", i), self.after_crash(|n, _| whole_if(n < i))));
        let mixtures = (0..random).map(move |i| {
            let mut random = Random(seed.wrapping_add(i as u64));
            (format!("mixture {i} of seed {seed}"), self.after_crash(|_, change| random.keep(change)))
        });
        ends.chain(alone).chain(without).chain(prefixes).chain(mixtures)
    }
}

fn name(names: &mut BTreeMap<PathBuf, Named>, change: &Change) {
    match change {
        Change::Name { path, to: Some(named) } => {
            names.insert(path.clone(), *named);
        }
        Change::Name { path, to: None } => {
            names.remove(path);
        }
        Change::Rename { from, to, file } => {
            // The old name may by now belong to another file.
            if names.get(from) == Some(&Named::File(*file)) {
                names.remove(from);
            }
            names.insert(to.clone(), Named::File(*file));
        }
        Change::Write { .. } => {}
    }
}

fn tear(content: &mut BTreeMap<u64, Arc<Vec<u8>>>, file: u64, offset: u64, bytes: &[u8], keep: Keep) {
    match keep {
        Keep::Lost => {}
        Keep::Whole => write_to(content, file, offset, bytes),
        Keep::Prefix(len) => write_to(content, file, offset, &bytes[..len.min(bytes.len())]),
        Keep::Zeros => {
            let old = content.get(&file).map_or(0, |old| old.len() as u64);
            let end = offset + bytes.len() as u64;
            if end > old {
                let zeros = vec![0; usize::try_from(end - old).unwrap_or(0)];
                write_to(content, file, old, &zeros);
            }
        }
        Keep::Sectors(mask) => {
            let mut rest = bytes;
            let mut at = offset;
            while !rest.is_empty() {
                let sector = at / SECTOR_BYTES as u64;
                let room = usize::try_from((sector + 1) * SECTOR_BYTES as u64 - at).unwrap_or(SECTOR_BYTES);
                let (part, later) = rest.split_at(room.min(rest.len()));
                if mask >> (sector % 64) & 1 == 1 {
                    write_to(content, file, at, part);
                }
                at += part.len() as u64;
                rest = later;
            }
        }
    }
}

fn write_to(content: &mut BTreeMap<u64, Arc<Vec<u8>>>, file: u64, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let content = Arc::make_mut(content.entry(file).or_default());
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

/// SplitMix64: the same images for the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn keep(&mut self, change: &Change) -> Keep {
        let len = match change {
            Change::Write { bytes, .. } => bytes.len(),
            _ => 0,
        };
        let at = usize::try_from(self.next() % (len as u64 + 1)).unwrap_or(0);
        match self.next() % 8 {
            0..=2 => Keep::Whole,
            3 | 4 => Keep::Lost,
            5 => Keep::Prefix(at),
            6 => Keep::Sectors(self.next()),
            _ => Keep::Zeros,
        }
    }
}
