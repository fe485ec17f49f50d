//! Files in memory, for tests.
//!
//! Contract: answers like [`super::OsVfs`] (the same conformance suite runs on both), except that files cannot be
//! mapped. Nothing survives the last handle. Clones share the files; [`MemoryVfs::image`] is a copy that shares
//! nothing and holds no locks, which is what remains after every process was killed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use crate::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use super::process::now_ms;
use super::{Entry, FileSystem, HeldLock, Metadata, OpenMode, SharedWords, Vfs, VfsFile};

/// Largest file. A write at a garbled offset is an error, not an abort for want of memory.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A file system in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryVfs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<PathBuf, Node>,
    inodes: u64,
    #[cfg(all(test, loom))]
    reads_of_maps: Option<Ordering>,
}

#[derive(Clone, Debug)]
enum Node {
    Directory(u64),
    File(Arc<Inode>),
}

#[derive(Debug, Default)]
struct Inode {
    identity: u64,
    /// Shared with whoever took a copy of it, until one of them changes.
    content: RwLock<Arc<Vec<u8>>>,
    links: AtomicU64,
    modified_ms: AtomicU64,
    locked: AtomicBool,
    #[cfg(all(test, loom))]
    maps: super::shared_memory::Maps,
}

/// What [`MemoryVfs::from_tree`] builds and [`MemoryVfs::tree`] shows: directories are None. Two names of one file
/// are two files here.
pub type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn error(kind: io::ErrorKind) -> io::Error {
    kind.into()
}

fn raw(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// One spelling per path: no `.`, no root, `..` resolved by name.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    normal
}

impl State {
    fn next_identity(&mut self) -> u64 {
        self.inodes += 1;
        self.inodes
    }

    fn get(&self, path: &Path) -> io::Result<&Node> {
        self.nodes.get(path).ok_or_else(|| error(io::ErrorKind::NotFound))
    }

    fn file(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.get(path)? {
            Node::File(inode) => Ok(Arc::clone(inode)),
            Node::Directory(_) => Err(raw(libc::EISDIR)),
        }
    }

    fn need_directory(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        match self.get(path)? {
            Node::Directory(_) => Ok(()),
            Node::File(_) => Err(raw(libc::ENOTDIR)),
        }
    }

    /// A new name needs its directory and must be free.
    fn need_free(&self, path: &Path) -> io::Result<()> {
        self.need_directory(path.parent().ok_or_else(|| error(io::ErrorKind::AlreadyExists))?)?;
        if self.nodes.contains_key(path) { Err(error(io::ErrorKind::AlreadyExists)) } else { Ok(()) }
    }

    fn create(&mut self, path: PathBuf, content: Arc<Vec<u8>>) -> io::Result<Arc<Inode>> {
        self.need_free(&path)?;
        let inode = Arc::new(Inode {
            identity: self.next_identity(),
            content: RwLock::new(content),
            links: AtomicU64::new(1),
            modified_ms: AtomicU64::new(now_ms()),
            locked: AtomicBool::new(false),
            #[cfg(all(test, loom))]
            maps: super::shared_memory::Maps::new(self.reads_of_maps),
        });
        self.nodes.insert(path, Node::File(Arc::clone(&inode)));
        Ok(inode)
    }

    fn create_directories(&mut self, path: &Path) -> io::Result<()> {
        let mut ancestors: Vec<_> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        ancestors.reverse();
        for ancestor in ancestors {
            match self.nodes.get(ancestor) {
                Some(Node::Directory(_)) => {}
                Some(Node::File(_)) => return Err(error(io::ErrorKind::AlreadyExists)),
                None => {
                    let identity = self.next_identity();
                    self.nodes.insert(ancestor.to_path_buf(), Node::Directory(identity));
                }
            }
        }
        Ok(())
    }
}

impl Inode {
    fn bytes(&self) -> RwLockReadGuard<'_, Arc<Vec<u8>>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            len: self.bytes().len() as u64,
            identity: self.identity,
            links: self.links.load(Ordering::Relaxed),
            is_dir: false,
            modified_ms: self.modified_ms.load(Ordering::Relaxed),
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.and_then(|end| usize::try_from(end).ok()).ok_or_else(|| raw(libc::EFBIG))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        let content = Arc::make_mut(&mut content);
        if content.len() < end {
            content.resize(end, 0);
        }
        let place = content.get_mut(end - bytes.len()..end).ok_or_else(|| raw(libc::EFBIG))?;
        place.copy_from_slice(bytes);
        self.modified_ms.store(now_ms(), Ordering::Relaxed);
        Ok(())
    }

    fn try_lock(self: &Arc<Self>) -> Option<Box<dyn HeldLock>> {
        let free = self.locked.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        free.then(|| Box::new(MemoryLock(Arc::clone(self))) as Box<dyn HeldLock>)
    }
}

impl MemoryVfs {
    /// An empty file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty file system whose files can be mapped, and how those who read them load mapped words.
    #[cfg(all(test, loom))]
    pub(crate) fn with_maps(reads: Ordering) -> Self {
        let state = State { reads_of_maps: Some(reads), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A file system with this content. Parents of listed paths are made as needed.
    ///
    /// # Errors
    /// When a path lies under a file.
    pub fn from_tree(tree: &Tree) -> io::Result<Self> {
        let files = tree.iter();
        Self::from_files(files.map(|(path, content)| (path.clone(), content.clone().map(Arc::new))))
    }

    /// The same without copying what is given.
    pub(super) fn from_files(
        files: impl Iterator<Item = (PathBuf, Option<Arc<Vec<u8>>>)>,
    ) -> io::Result<Self> {
        let vfs = Self::new();
        {
            let mut state = vfs.state();
            for (path, content) in files {
                let path = normal(&path);
                match content {
                    None => state.create_directories(&path)?,
                    Some(bytes) => {
                        state.create_directories(path.parent().unwrap_or(Path::new("")))?;
                        state.create(path, bytes)?;
                    }
                }
            }
        }
        Ok(vfs)
    }

    /// Everything there is, by path.
    pub fn tree(&self) -> Tree {
        let content = |node: &Node| match node {
            Node::Directory(_) => None,
            Node::File(inode) => Some(inode.bytes().to_vec()),
        };
        self.state().nodes.iter().map(|(path, node)| (path.clone(), content(node))).collect()
    }

    /// A copy that shares nothing and holds no locks.
    pub fn image(&self) -> Self {
        let state = self.state();
        let mut copies: BTreeMap<u64, Arc<Inode>> = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        for (path, node) in &state.nodes {
            let copy = match node {
                Node::Directory(identity) => Node::Directory(*identity),
                Node::File(inode) => {
                    Node::File(Arc::clone(copies.entry(inode.identity).or_insert_with(|| {
                        Arc::new(Inode {
                            identity: inode.identity,
                            content: RwLock::new(inode.bytes().clone()),
                            links: AtomicU64::new(inode.links.load(Ordering::Relaxed)),
                            modified_ms: AtomicU64::new(inode.modified_ms.load(Ordering::Relaxed)),
                            locked: AtomicBool::new(false),
                            #[cfg(all(test, loom))]
                            maps: Default::default(),
                        })
                    })))
                }
            };
            nodes.insert(path.clone(), copy);
        }
        Self {
            state: Arc::new(Mutex::new(State {
                nodes,
                inodes: state.inodes,
                #[cfg(all(test, loom))]
                reads_of_maps: None,
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vfs for MemoryVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let path = normal(path);
        let mut state = self.state();
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => state.file(&path)?,
            OpenMode::CreateNew => state.create(path, Arc::default())?,
        };
        Ok(Arc::new(MemoryFile { inode, writable: mode != OpenMode::Read }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let directory = normal(directory);
        let state = self.state();
        state.need_directory(&directory)?;
        let inside = state.nodes.iter().filter(|(path, _)| path.parent() == Some(directory.as_path()));
        let entry = |(path, node): (&PathBuf, &Node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(Entry { name, is_dir: matches!(node, Node::Directory(_)) })
        };
        Ok(inside.filter_map(entry).collect())
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        self.state().create_directories(&normal(directory))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        let mut state = self.state();
        state.file(&path)?.links.fetch_sub(1, Ordering::Relaxed);
        state.nodes.remove(&path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        let mut state = self.state();
        let inode = state.file(&from)?;
        state.need_directory(to.parent().ok_or_else(|| raw(libc::EISDIR))?)?;
        match state.nodes.get(&to) {
            // rename(2): two names of one file stay two names.
            Some(Node::File(target)) if Arc::ptr_eq(target, &inode) => return Ok(()),
            Some(Node::File(target)) => {
                target.links.fetch_sub(1, Ordering::Relaxed);
            }
            Some(Node::Directory(_)) => return Err(raw(libc::EISDIR)),
            None => {}
        }
        state.nodes.remove(&from);
        state.nodes.insert(to, Node::File(inode));
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = normal(to);
        let mut state = self.state();
        let inode = state.file(&normal(from))?;
        state.need_free(&to)?;
        inode.links.fetch_add(1, Ordering::Relaxed);
        state.nodes.insert(to, Node::File(inode));
        Ok(())
    }

    fn copy_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let content = state.file(&normal(from))?.bytes().clone();
        state.create(normal(to), content).map(drop)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.state().need_directory(&normal(directory))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let path = normal(path);
        let state = self.state();
        let directory = |identity| Metadata { len: 0, identity, links: 1, is_dir: true, modified_ms: 0 };
        if path.as_os_str().is_empty() {
            return Ok(directory(0));
        }
        match state.get(&path)? {
            Node::Directory(identity) => Ok(directory(*identity)),
            Node::File(inode) => Ok(inode.metadata()),
        }
    }

    fn file_system(&self, _path: &Path) -> FileSystem {
        // Local: it has no maps.
        FileSystem::Local
    }

    fn try_lock(&self, path: &Path, holder: &str) -> io::Result<Option<Box<dyn HeldLock>>> {
        let path = normal(path);
        let mut state = self.state();
        let inode = match state.file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.create(path, Arc::default())?,
            found => found?,
        };
        let lock = inode.try_lock();
        if lock.is_some() {
            let line = holder.replace(['\n', '\r'], " ") + "\n";
            *inode.content.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(line.into_bytes());
        }
        Ok(lock)
    }

    fn lock_holder(&self, path: &Path) -> String {
        let content =
            self.state().file(&normal(path)).map(|inode| inode.bytes().to_vec()).unwrap_or_default();
        String::from_utf8_lossy(&content).lines().next().unwrap_or_default().to_owned()
    }
}

#[derive(Debug)]
struct MemoryLock(Arc<Inode>);

impl HeldLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.locked.store(false, Ordering::Release);
    }
}

#[derive(Debug)]
struct MemoryFile {
    inode: Arc<Inode>,
    writable: bool,
}

impl VfsFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.inode.bytes();
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        #[cfg(all(test, loom))]
        {
            drop(content);
            self.inode.maps.read_over(buffer.get_mut(..count).unwrap_or_default(), offset);
        }
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.writable {
            return Err(raw(libc::EBADF));
        }
        self.inode.write(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.bytes().len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.inode.metadata())
    }

    #[cfg(not(all(test, loom)))]
    fn map(&self, _offset: u64, _len: usize) -> io::Result<Arc<dyn SharedWords>> {
        Err(error(io::ErrorKind::Unsupported))
    }

    #[cfg(all(test, loom))]
    fn map(&self, offset: u64, len: usize) -> io::Result<Arc<dyn SharedWords>> {
        let mut bytes = vec![0; len];
        self.read_at(&mut bytes, offset)?;
        self.inode.maps.map(offset, &bytes)
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn HeldLock>>> {
        Ok(self.inode.try_lock())
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.inode.locked.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_what_remains_after_every_process_was_killed() {
        let vfs = MemoryVfs::new();
        let file = vfs.open(Path::new("a"), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"one", 0).unwrap();
        vfs.hard_link(Path::new("a"), Path::new("b")).unwrap();
        let held = vfs.try_lock(Path::new("lock"), "me").unwrap().unwrap();
        let image = vfs.image();
        file.write_all_at(b"two", 0).unwrap();
        assert!(image.try_lock(Path::new("lock"), "other").unwrap().is_some());
        assert_eq!(image.tree()[Path::new("a")].as_deref(), Some(b"one".as_slice()));
        // The two names are one file in the image too.
        image.open(Path::new("b"), OpenMode::ReadWrite).unwrap().write_all_at(b"ten", 0).unwrap();
        assert_eq!(image.tree()[Path::new("a")].as_deref(), Some(b"ten".as_slice()));
        drop(held);
    }

    #[test]
    fn a_tree_goes_in_and_comes_out() {
        let tree = Tree::from([
            (PathBuf::from("log"), None),
            (PathBuf::from("log/a-0.seg"), Some(vec![1, 2, 3])),
            (PathBuf::from("empty"), None),
        ]);
        assert_eq!(MemoryVfs::from_tree(&tree).unwrap().tree(), tree);
    }

    #[test]
    fn a_write_at_an_absurd_offset_is_an_error() {
        let vfs = MemoryVfs::new();
        let file = vfs.open(Path::new("a"), OpenMode::CreateNew).unwrap();
        for offset in [u64::MAX, FILE_BYTES_MAX] {
            assert_eq!(file.write_all_at(b"x", offset).unwrap_err().raw_os_error(), Some(libc::EFBIG));
        }
        assert_eq!(file.len().unwrap(), 0);
        assert_eq!(file.read_at(&mut [0; 4], u64::MAX).unwrap(), 0);
    }
}
