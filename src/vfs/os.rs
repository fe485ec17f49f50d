//! The operating system's files.
//!
//! Contract: thin calls with the promises the traits make: reads and writes go on after EINTR and short counts, a
//! sync is issued once, descriptors close on exec, locks are open-file-description locks, and a map never reaches
//! past the end of its file at the time of mapping (nobody shortens an engine file, so it never will).

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::sync::AtomicU64;

use super::fork::ForkGuard;
use super::lock::{OsLock, is_locked};
use super::{Entry, FileSystem, HeldLock, Metadata, OpenMode, SharedWords, Vfs, VfsFile};

/// Maps start and end at multiples of this.
const PAGE_BYTES: usize = 4096;
/// What is read of a lock file: pid, host and time in one line.
const HOLDER_BYTES_MAX: usize = 1024;

/// The file systems of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsVfs;

impl Vfs for OsVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(OsFile { file: self.open_os_file(path, mode)?, path: path.to_path_buf() }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                // Removed since the listing began, on a file system that has to look for the type.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_dir = kind.is_dir() || kind.is_symlink() && entry.path().is_dir();
            entries.push(Entry { name, is_dir });
        }
        Ok(entries)
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, directory: &Path) -> io::Result<()> {
        fs::remove_dir(directory)
    }

    fn is_symlink(&self, path: &Path) -> bool {
        path.is_symlink()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn copy_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut source = File::open(from)?;
        let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
        copy_content(&mut source, &mut target).inspect_err(|_| {
            let _ = fs::remove_file(to);
        })
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        match File::open(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })?
            .sync_all()
        {
            // Some network file systems make entries durable at once and refuse fsync of a directory (cifs).
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            result => result,
        }
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        Ok(metadata_of(&fs::metadata(path)?))
    }

    fn file_system(&self, path: &Path) -> FileSystem {
        // A path that does not exist yet is asked for by its nearest ancestor that does.
        path.ancestors()
            .map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p })
            .find_map(file_system_magic)
            .map_or(FileSystem::Local, classify)
    }

    fn try_lock(&self, path: &Path, holder: &str) -> io::Result<Option<Box<dyn HeldLock>>> {
        // A lock on a file that somebody unlinked or replaced meanwhile excludes nobody: take the present one.
        for _ in 0..16 {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let Some(lock) = OsLock::try_new(file)? else { return Ok(None) };
            let locked = metadata_of(&lock.file().metadata()?).identity;
            if !fs::metadata(path).is_ok_and(|m| metadata_of(&m).identity == locked) {
                continue;
            }
            write_holder(lock.file(), holder)?;
            return Ok(Some(Box::new(lock)));
        }
        Err(io::Error::other("the lock file is replaced again and again"))
    }

    fn lock_holder(&self, path: &Path) -> String {
        let mut buffer = [0u8; HOLDER_BYTES_MAX];
        let count = File::open(path).and_then(|file| read_fully(&file, &mut buffer, 0)).unwrap_or(0);
        let text = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default());
        text.lines().next().unwrap_or_default().to_owned()
    }

    fn open_os_file(&self, path: &Path, mode: OpenMode) -> io::Result<File> {
        let mut options = OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
        };
        options.open(path)
    }
}

/// The new line first, the rest of an older and longer one cut off after: a reader always finds one whole line.
fn write_holder(file: &File, holder: &str) -> io::Result<()> {
    let line = holder.replace(['\n', '\r'], " ") + "\n";
    let written = file.write_all_at(line.as_bytes(), 0).and_then(|()| file.set_len(line.len() as u64));
    match written {
        // The line is for people; a full disk must not keep anybody from the lock that may free it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => Ok(()),
        result => result,
    }
}

fn copy_content(source: &mut File, target: &mut File) -> io::Result<()> {
    // SAFETY: both descriptors are open for the length of the call; FICLONE takes the source's as its argument.
    let cloned = unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) } == 0;
    if !cloned {
        // std uses copy_file_range or sendfile where the kernel can.
        io::copy(source, target)?;
    }
    target.set_permissions(fs::Permissions::from_mode(source.metadata()?.permissions().mode() & 0o777))
}

fn read_fully(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => break,
            Ok(count) => {
                total += count;
                offset = offset.saturating_add(count as u64);
                buffer = buffer.get_mut(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

fn metadata_of(metadata: &fs::Metadata) -> Metadata {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Metadata {
        len: metadata.len(),
        identity: metadata.ino() ^ metadata.dev().wrapping_mul(0x9e37_79b9_7f4a_7c15),
        links: metadata.nlink(),
        is_dir: metadata.is_dir(),
        modified_ms: modified.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// `f_type` of statfs(2).
fn file_system_magic(path: &Path) -> Option<u32> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: plain integers, for which zero is a value.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is a terminated string and `answer` a valid place, both for the length of the call.
    let done = unsafe { libc::statfs(path.as_ptr(), &mut answer) } == 0;
    // The magic is 32 bits in a field whose type and sign differ between platforms.
    done.then_some(answer.f_type as u32)
}

/// The allow-list. Numbers from statfs(2) and the kernel's magic.h.
fn classify(magic: u32) -> FileSystem {
    match magic {
        // ext2/3/4, xfs, tmpfs: a page written with zeros and synced has its block; storing to it cannot fail.
        0x0000_ef53 | 0x5846_5342 | 0x0102_1994 => FileSystem::Mappable,
        // Overlay: files are created in its upper layer, which cannot be seen from here. It needs a local file
        // system with xattrs and d_type, in practice one of the above; `shared_mapping(Off)` is there for the rest.
        0x794c_7630 => FileSystem::Mappable,
        // nfs, smb, cifs, smb2, lustre, ceph, afs (2), gpfs, coda, ncp, ocfs2, gfs2, orangefs, beegfs, panfs.
        0x0000_6969 | 0x0000_517b | 0xff53_4d42 | 0xfe53_4d42 | 0x0bd0_0bd0 | 0x00c3_6400 | 0x5346_414f
        | 0x6b41_4653 | 0x4750_4653 | 0x7375_7245 | 0x0000_564c | 0x7461_636f | 0x0116_1970 | 0x2003_0528
        | 0x1983_0326 | 0xaad7_aaea => FileSystem::Network,
        _ => FileSystem::Local,
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    path: PathBuf,
}

impl OsFile {
    /// The same file through a description of its own: a lock belongs to the description, so two locks on one
    /// handle would not exclude each other.
    fn reopen(&self) -> io::Result<File> {
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        // The link in /proc leads to the file even if it was renamed or unlinked.
        open(Path::new(&format!("/proc/self/fd/{}", self.file.as_raw_fd()))).or_else(|_| {
            let again = open(&self.path)?;
            if metadata_of(&again.metadata()?).identity != metadata_of(&self.file.metadata()?).identity {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the file was replaced under its name"));
            }
            Ok(again)
        })
    }
}

impl VfsFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_fully(&self.file, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // std repeats EINTR and continues short writes.
        self.file.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        // fdatasync, which also makes a grown length durable. std repeats it only after EINTR, where nothing failed.
        self.file.sync_data()
    }

    fn metadata(&self) -> io::Result<Metadata> {
        Ok(metadata_of(&self.file.metadata()?))
    }

    fn map(&self, offset: u64, len: usize) -> io::Result<Arc<dyn SharedWords>> {
        if cfg!(all(test, loom)) {
            // Words in a file of the system are not loom's.
            return Err(io::ErrorKind::Unsupported.into());
        }
        let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if len == 0 || !len.is_multiple_of(PAGE_BYTES) || !offset.is_multiple_of(PAGE_BYTES as u64) {
            return invalid("a map starts and ends at multiples of 4096 and is not empty");
        }
        let file_len = self.len()?;
        if offset.checked_add(len as u64).is_none_or(|end| end > file_len) {
            return invalid("a map must lie inside the file");
        }
        let map = MmapOptions::new().offset(offset).len(len).map_raw(&self.file)?;
        map.advise(Advice::DontFork)?;
        Ok(Arc::new(OsWords { map: ManuallyDrop::new(map), guard: ForkGuard::new() }))
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn HeldLock>>> {
        Ok(OsLock::try_new(self.reopen()?)?.map(|lock| Box::new(lock) as Box<dyn HeldLock>))
    }

    fn is_locked(&self) -> io::Result<bool> {
        is_locked(&self.file)
    }
}

/// A live map. A forked child does not have it (`MADV_DONTFORK`): using the words there is a segmentation fault, so
/// whoever holds one asks a [`ForkGuard`] first. Dropping it in a child does nothing.
#[derive(Debug)]
struct OsWords {
    map: ManuallyDrop<MmapRaw>,
    guard: ForkGuard,
}

impl SharedWords for OsWords {
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the pages are mapped for reading and writing for as long as `self` lives, page-aligned, and len / 8
        // words long. Other processes and threads change them at any time, which is what atomics are for; this crate
        // makes no other kind of reference to them. They stay backed by the file because nothing in the engine
        // shortens a file.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.map.len() / 8) }
    }

    fn prefault(&self) {
        // SAFETY: exactly the mapped range; populating changes no byte.
        let done =
            unsafe { libc::madvise(self.map.as_mut_ptr().cast(), self.map.len(), libc::MADV_POPULATE_WRITE) };
        if done != 0 {
            // Before kernel 5.14: an atomic addition of nothing faults the page in for writing.
            for page in self.words().chunks(PAGE_BYTES / 8) {
                if let Some(word) = page.first() {
                    word.fetch_add(0, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Drop for OsWords {
    fn drop(&mut self) {
        if self.guard.forked() {
            // The child has no such map; something else may live at its address.
            return;
        }
        // SAFETY: `map` is dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.map) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::fork::tests::in_forked_child;

    #[test]
    fn only_the_allow_list_is_mapped() {
        assert_eq!(classify(0xef53), FileSystem::Mappable);
        assert_eq!(classify(0x0102_1994), FileSystem::Mappable);
        for network in [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x0bd0_0bd0, 0x00c3_6400] {
            assert_eq!(classify(network), FileSystem::Network);
        }
        // btrfs, zfs, fuse, 9p, ramfs, something new
        for other in [0x9123_683e, 0x2fc1_2fc1, 0x6573_5546, 0x0102_1997, 0x8584_58f6, 0x1234_5678] {
            assert_eq!(classify(other), FileSystem::Local);
        }
        assert_eq!(OsVfs.file_system(Path::new("/proc/self")), FileSystem::Local);
        let here = tempfile::tempdir().unwrap();
        assert_eq!(OsVfs.file_system(&here.path().join("not/yet/there")), OsVfs.file_system(here.path()));
    }

    #[test]
    fn words_of_a_map_are_the_bytes_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = OsVfs.open(&directory.path().join("live"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[0; 3 * PAGE_BYTES], 0).unwrap();
        let map = file.map(PAGE_BYTES as u64, 2 * PAGE_BYTES).unwrap();
        assert_eq!(map.words().len(), 2 * PAGE_BYTES / 8);
        map.prefault();
        map.words()[1].store(0x1122_3344_5566_7788u64.to_le(), Ordering::Release);
        let mut bytes = [0u8; 8];
        assert_eq!(file.read_at(&mut bytes, PAGE_BYTES as u64 + 8).unwrap(), 8);
        assert_eq!(u64::from_le_bytes(bytes), 0x1122_3344_5566_7788);
        file.write_all_at(&7u64.to_le_bytes(), 2 * PAGE_BYTES as u64).unwrap();
        assert_eq!(u64::from_le(map.words()[PAGE_BYTES / 8].load(Ordering::Acquire)), 7);
    }

    #[test]
    fn a_map_outside_the_file_or_off_the_page_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = OsVfs.open(&directory.path().join("live"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[0; PAGE_BYTES], 0).unwrap();
        for (offset, len) in [
            (0, 0),
            (0, 100),
            (8, PAGE_BYTES),
            (0, 2 * PAGE_BYTES),
            (4096, PAGE_BYTES),
            (u64::MAX - 4095, PAGE_BYTES),
        ] {
            assert!(file.map(offset, len).is_err(), "{offset} {len}");
        }
    }

    #[test]
    fn a_forked_child_drops_an_inherited_map_without_harm() {
        let directory = tempfile::tempdir().unwrap();
        let file = OsVfs.open(&directory.path().join("live"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[0; PAGE_BYTES], 0).unwrap();
        let mut map = Some(file.map(0, PAGE_BYTES).unwrap());
        assert_eq!(
            in_forked_child(|| {
                drop(map.take());
                0
            }),
            0
        );
        map.unwrap().words()[0].store(1, Ordering::Relaxed);
    }

    #[test]
    fn a_copy_keeps_content_and_mode_and_never_overwrites() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&from, vec![7u8; 100_000]).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o640)).unwrap();
        OsVfs.copy_file(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), vec![7u8; 100_000]);
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(OsVfs.copy_file(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_lock_file_replaced_under_its_name_is_taken_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let stale = OsVfs.try_lock(&path, "stale").unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        let present = OsVfs.try_lock(&path, "present").unwrap().unwrap();
        assert_eq!(OsVfs.lock_holder(&path), "present");
        assert!(OsVfs.try_lock(&path, "third").unwrap().is_none());
        drop((stale, present));
    }

    #[test]
    fn the_holder_is_one_line_whatever_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        drop(OsVfs.try_lock(&path, "pid 1234567 host a-very-long-host-name").unwrap());
        drop(OsVfs.try_lock(&path, "pid 8\nhost b").unwrap());
        assert_eq!(OsVfs.lock_holder(&path), "pid 8 host b");
        assert_eq!(fs::read(&path).unwrap(), b"pid 8 host b\n");
        fs::write(&path, [0xff; 5000]).unwrap();
        assert!(OsVfs.lock_holder(&path).chars().count() <= HOLDER_BYTES_MAX);
    }
}
