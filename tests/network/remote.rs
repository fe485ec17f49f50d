//! A file system as one client of a server sees it: the worst that network file systems do to those who share them.
//!
//! Contract: on top of any [`Vfs`], which stands for the server. Sizes and listings may be as they were at some earlier
//! time, each file and folder by itself; pages of others' files may be older than the size, until the size is asked for
//! anew; every lock is given to whoever asks; nothing can be mapped; no file can be opened as the system's own. What a
//! client writes, the others see when it synced, and before that page by page in any order. A client sees its own writes
//! at once. Live files and segments that another client made are never written, renamed or removed: [`Remote::trespasses`]
//! says who tried. A host's name and boot are put into the live files that are made here.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use mlrs_db::vfs::{Entry, FileSystem, HeldLock, Metadata, OpenMode, SharedWords, Vfs, VfsFile};

use crate::chance::Random;

const PAGE: u64 = 4096;

/// What this client believes longer than it is true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    pub live_list: bool,
    pub live_files: bool,
    pub log_list: bool,
    pub log_files: bool,
    /// Only segments whose number is even: the files of one writer are then not of one time.
    pub every_other_log_file: bool,
}

impl Stale {
    pub const NOTHING: Self = Self {
        live_list: false,
        live_files: false,
        log_list: false,
        log_files: false,
        every_other_log_file: false,
    };

    fn file(self, path: &Path) -> bool {
        let even = || {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            name.rsplit_once('-')
                .and_then(|(_, number)| number.parse::<u64>().ok())
                .is_some_and(|n| n % 2 == 0)
        };
        match folder(path) {
            "live" => self.live_files,
            "log" => self.log_files || (self.every_other_log_file && even()),
            _ => false,
        }
    }

    fn list(self, directory: &Path) -> bool {
        match directory.file_name().and_then(|name| name.to_str()) {
            Some("live") => self.live_list,
            Some("log") => self.log_list,
            _ => false,
        }
    }
}

/// How what is known grows old.
#[derive(Clone, Copy, Debug)]
pub enum Age {
    /// Each look at a size or a listing asks the server once in so many times.
    Chance(u64),
    /// Some things stay as they were seen first, the others are as they are.
    Held(Stale),
}

/// When what a client writes reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// At once: a killed process loses nothing.
    Through,
    /// When it is synced, and single pages now and then: what is lost with a host.
    Back,
}

/// What was met, to be printed: a test that met nothing has tested nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    /// Sizes and listings that were not what the server had.
    pub old_sizes: u64,
    pub old_lists: u64,
    /// Pages that were not what the server had.
    pub old_pages: u64,
    /// Locks that were given although somebody had them.
    pub locks: u64,
}

/// The file system of one client.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

struct Shared {
    server: Arc<dyn Vfs>,
    host: String,
    writes: Writes,
    state: Mutex<State>,
}

struct State {
    age: Age,
    close_to_open: bool,
    random: Random,
    /// Files of others, by identity and name: a server gives the identity of a removed file to another one.
    seen: HashMap<(u64, PathBuf), Seen>,
    lists: BTreeMap<PathBuf, Vec<Entry>>,
    /// Files that were made here, by identity, and their names.
    own: HashMap<u64, Own>,
    own_paths: BTreeSet<PathBuf>,
    locked: BTreeSet<u64>,
    met: Met,
    trespasses: Vec<String>,
}

/// What is known of a file of somebody else.
struct Seen {
    metadata: Metadata,
    pages: HashMap<u64, Vec<u8>>,
}

/// A file that was made here, as it is here.
#[derive(Default)]
struct Own {
    content: Vec<u8>,
    unwritten: BTreeSet<u64>,
}

fn folder(path: &Path) -> &str {
    path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("host", &self.shared.host).finish_non_exhaustive()
    }
}

impl Remote {
    pub fn new(server: Arc<dyn Vfs>, host: &str, age: Age, writes: Writes, seed: u64) -> Self {
        let state = State {
            age,
            close_to_open: false,
            random: Random(seed),
            seen: HashMap::new(),
            lists: BTreeMap::new(),
            own: HashMap::new(),
            own_paths: BTreeSet::new(),
            locked: BTreeSet::new(),
            met: Met::default(),
            trespasses: Vec::new(),
        };
        let shared = Shared { server, host: host.to_owned(), writes, state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// An open shows a file as it is now, as NFS has it unless it is told otherwise.
    pub fn close_to_open(self) -> Self {
        self.state().close_to_open = true;
        self
    }

    /// From now on these things stay as they are known now, and all others are as they are.
    pub fn hold(&self, stale: Stale) {
        let mut state = self.state();
        state.age = Age::Held(stale);
    }

    pub fn met(&self) -> Met {
        self.state().met
    }

    /// Attempts on files of others.
    pub fn trespasses(&self) -> Vec<String> {
        self.state().trespasses.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Whether a file was made here.
    fn is_own(state: &State, path: &Path, identity: u64) -> bool {
        state.own_paths.contains(path) && state.own.contains_key(&identity)
    }

    fn guard(&self, state: &mut State, what: &str, path: &Path) {
        let is_ours = state.own_paths.contains(path);
        let matters = match folder(path) {
            "live" => true,
            // Replaced segments of others go once they are old; here nothing grows old.
            "log" => path.extension().is_some_and(|ending| ending == "seg"),
            _ => false,
        };
        if matters && !is_ours {
            state.trespasses.push(format!("{} {what} {}", self.shared.host, path.display()));
        }
    }

    /// The metadata of a file of somebody else, as this client believes it.
    fn believed(&self, state: &mut State, path: &Path, now: Metadata) -> Metadata {
        let asks = match state.age {
            Age::Chance(one_in) => state.random.one_in(one_in),
            Age::Held(stale) => !stale.file(path),
        };
        let seen = state.seen.entry((now.identity, path.to_path_buf()));
        let seen = seen.or_insert_with(|| Seen { metadata: now, pages: HashMap::new() });
        if asks {
            // With the size a client learns that a file has changed, and forgets its pages.
            seen.metadata = now;
            seen.pages.clear();
        }
        state.met.old_sizes += u64::from(seen.metadata.len != now.len);
        Metadata { links: now.links, ..seen.metadata }
    }

    /// Puts this host's name and boot into the header of a live file.
    fn sign(&self, path: &Path, content: &mut [u8]) {
        if folder(path) != "live" || content.len() < 256 {
            return;
        }
        let host = self.shared.host.as_bytes();
        content[80] = host.len() as u8;
        content[81..144].fill(0);
        content[81..81 + host.len()].copy_from_slice(host);
        // Another host runs another kernel.
        content[48..64]
            .fill(host.iter().fold(0x41, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(*byte)));
        let crc = crc32fast::hash(&content[..252]);
        content[252..256].copy_from_slice(&crc.to_le_bytes());
    }
}

impl Vfs for Remote {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state();
        let file = self.shared.server.open(path, mode)?;
        let now = file.metadata()?;
        let mut is_own = Self::is_own(&state, path, now.identity);
        if mode == OpenMode::CreateNew {
            is_own = true;
            state.own.insert(now.identity, Own::default());
            state.own_paths.insert(path.to_path_buf());
            if let Some(parent) = path.parent() {
                state.lists.remove(parent);
            }
        } else if !is_own {
            if mode == OpenMode::ReadWrite {
                self.guard(&mut state, "opens for writing", path);
            }
            // An open is a look at the size.
            if state.close_to_open {
                state.seen.insert(
                    (now.identity, path.to_path_buf()),
                    Seen { metadata: now, pages: HashMap::new() },
                );
            }
            self.believed(&mut state, path, now);
        }
        let identity = now.identity;
        Ok(Arc::new(RemoteFile { remote: self.clone(), file, path: path.to_path_buf(), identity, is_own }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.state();
        let now = self.shared.server.list(directory)?;
        let asks = match state.age {
            Age::Chance(one_in) => state.random.one_in(one_in),
            Age::Held(stale) => !stale.list(directory),
        };
        if asks || !state.lists.contains_key(directory) {
            state.lists.insert(directory.to_path_buf(), now.clone());
        }
        let believed = state.lists[directory].clone();
        let names = |all: &[Entry]| all.iter().map(|entry| entry.name.clone()).collect::<BTreeSet<_>>();
        state.met.old_lists += u64::from(names(&believed) != names(&now));
        Ok(believed)
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        self.state().lists.clear();
        self.shared.server.create_dir_all(directory)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        self.guard(&mut state, "removes", path);
        state.lists.clear();
        state.own_paths.remove(path);
        self.shared.server.remove_file(path)
    }

    fn remove_dir(&self, directory: &Path) -> io::Result<()> {
        self.state().lists.clear();
        self.shared.server.remove_dir(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        self.guard(&mut state, "renames", from);
        if self.shared.server.metadata(to).is_ok() {
            self.guard(&mut state, "replaces", to);
        }
        state.lists.clear();
        self.shared.server.rename(from, to)?;
        state.own_paths.remove(from);
        state.own_paths.insert(to.to_path_buf());
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.lists.clear();
        state.own_paths.insert(to.to_path_buf());
        self.shared.server.hard_link(from, to)
    }

    fn copy_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.lists.clear();
        state.own_paths.insert(to.to_path_buf());
        self.shared.server.copy_file(from, to)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.shared.server.sync_dir(directory)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let mut state = self.state();
        let now = self.shared.server.metadata(path)?;
        if now.is_dir {
            return Ok(now);
        }
        if let Some(own) = state.own.get(&now.identity).filter(|_| Self::is_own(&state, path, now.identity)) {
            return Ok(Metadata { len: own.content.len() as u64, ..now });
        }
        Ok(self.believed(&mut state, path, now))
    }

    fn file_system(&self, _path: &Path) -> FileSystem {
        FileSystem::Network
    }

    fn try_lock(&self, path: &Path, _holder: &str) -> io::Result<Option<Box<dyn HeldLock>>> {
        let identity = self.shared.server.metadata(path).map_or(0, |metadata| metadata.identity);
        let mut state = self.state();
        state.met.locks += u64::from(!state.locked.insert(identity));
        Ok(Some(Box::new(NoLock)))
    }

    fn lock_holder(&self, _path: &Path) -> String {
        String::new()
    }

    fn open_os_file(&self, path: &Path, _mode: OpenMode) -> io::Result<std::fs::File> {
        self.state().trespasses.push(format!("{} opens {} for redb", self.shared.host, path.display()));
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A lock that was given, and excludes nobody.
#[derive(Debug)]
struct NoLock;

impl HeldLock for NoLock {}

#[derive(Debug)]
struct RemoteFile {
    remote: Remote,
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    identity: u64,
    /// Whether it was made here.
    is_own: bool,
}

fn pages_of(offset: u64, len: usize) -> std::ops::Range<u64> {
    offset / PAGE..(offset + len as u64).div_ceil(PAGE)
}

impl RemoteFile {
    /// Sends a page of an own file to the server.
    fn write_page(&self, own: &mut Own, page: u64) -> io::Result<()> {
        own.unwritten.remove(&page);
        let start = (page * PAGE) as usize;
        let end = (start + PAGE as usize).min(own.content.len());
        self.file.write_all_at(&own.content[start..end], start as u64)
    }
}

impl VfsFile for RemoteFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut guard = self.remote.state();
        let state = &mut *guard;
        if let Some(own) = state.own.get(&self.identity).filter(|_| self.is_own) {
            let rest = own.content.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            return Ok(count);
        }
        let place = (self.identity, self.path.clone());
        if let hash_map::Entry::Vacant(place) = state.seen.entry(place.clone()) {
            place.insert(Seen { metadata: self.file.metadata()?, pages: HashMap::new() });
        }
        let (seen, met) = (state.seen.get_mut(&place).unwrap(), &mut state.met);
        // What lies behind the size that is believed is not asked for.
        let count = (seen.metadata.len.saturating_sub(offset) as usize).min(buffer.len());
        for page in pages_of(offset, count) {
            let mut now = vec![0; PAGE as usize];
            let there = self.file.read_at(&mut now, page * PAGE)?;
            now[there..].fill(0);
            let believed = seen.pages.entry(page).or_insert_with(|| now.clone());
            met.old_pages += u64::from(*believed != now);
            let (first, last) = (offset.max(page * PAGE), (offset + count as u64).min((page + 1) * PAGE));
            let from = &believed[(first - page * PAGE) as usize..(last - page * PAGE) as usize];
            buffer[(first - offset) as usize..(last - offset) as usize].copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut guard = self.remote.state();
        let state = &mut *guard;
        let Some(own) = state.own.get_mut(&self.identity).filter(|_| self.is_own) else {
            self.remote.guard(state, "writes to", &self.path);
            return self.file.write_all_at(bytes, offset);
        };
        let end = offset as usize + bytes.len();
        if own.content.len() < end {
            own.content.resize(end, 0);
        }
        own.content[offset as usize..end].copy_from_slice(bytes);
        if offset == 0 {
            self.remote.sign(&self.path, &mut own.content);
        }
        own.unwritten.extend(pages_of(offset, bytes.len()));
        let due: Vec<u64> = match self.remote.shared.writes {
            Writes::Through => own.unwritten.iter().copied().collect(),
            Writes::Back if state.random.one_in(16) => {
                let at = state.random.index(own.unwritten.len());
                own.unwritten.iter().copied().skip(at).take(1).collect()
            }
            Writes::Back => Vec::new(),
        };
        due.into_iter().try_for_each(|page| self.write_page(own, page))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut guard = self.remote.state();
        if let Some(own) = guard.own.get_mut(&self.identity).filter(|_| self.is_own) {
            while let Some(page) = own.unwritten.first().copied() {
                self.write_page(own, page)?;
            }
        }
        self.file.sync_data()
    }

    fn metadata(&self) -> io::Result<Metadata> {
        let mut state = self.remote.state();
        let now = self.file.metadata()?;
        if let Some(own) = state.own.get(&self.identity).filter(|_| self.is_own) {
            return Ok(Metadata { len: own.content.len() as u64, ..now });
        }
        Ok(self.remote.believed(&mut state, &self.path, now))
    }

    fn map(&self, _offset: u64, _len: usize) -> io::Result<Arc<dyn SharedWords>> {
        let (mut state, path) = (self.remote.state(), self.path.display());
        state.trespasses.push(format!("{} maps {path}", self.remote.shared.host));
        Err(io::ErrorKind::Unsupported.into())
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn HeldLock>>> {
        let mut state = self.remote.state();
        state.met.locks += u64::from(!state.locked.insert(self.identity));
        Ok(Some(Box::new(NoLock)))
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(false)
    }
}
