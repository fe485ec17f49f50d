//! Locks between processes, and between handles of one process.
//!
//! Contract: open-file-description locks (`F_OFD_SETLK`). Unlike POSIX record locks they are not lost when another
//! part of the process closes the same file, and two handles of one process exclude each other. Their one trap is
//! fork: the child shares the description, so the lock would outlive a killed parent. Therefore every lock has a
//! descriptor of its own, and an atfork handler closes these in the child; a lock dropped in a child does nothing.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::HeldLock;
use super::fork::ForkGuard;

/// Locks one process can hold at a time.
pub(super) const LOCKS_MAX: usize = 1024;

/// Descriptors of held locks, for the atfork handler; -1 is a free place. A fixed array of atomics because the
/// handler may neither allocate nor lock.
static DESCRIPTORS: [AtomicI32; LOCKS_MAX] = [const { AtomicI32::new(-1) }; LOCKS_MAX];
static HANDLER_INSTALLED: AtomicBool = AtomicBool::new(false);

/// Closing shares nothing with unlocking: the parent's description, and with it the lock, stays.
extern "C" fn close_inherited_locks() {
    for place in &DESCRIPTORS {
        let descriptor = place.swap(-1, Ordering::Relaxed);
        if descriptor >= 0 {
            // SAFETY: the descriptor belongs to an OsLock of the parent, which never closes it in a child.
            unsafe { libc::close(descriptor) };
        }
    }
}

fn install_handler() -> io::Result<()> {
    if HANDLER_INSTALLED.load(Ordering::Acquire) {
        return Ok(());
    }
    // Two threads may both get here; a second handler finds nothing left to close.
    // SAFETY: the handler only uses atomics and close(2), which are async-signal-safe, and lives as long as the code.
    let code = unsafe { libc::pthread_atfork(None, None, Some(close_inherited_locks)) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    HANDLER_INSTALLED.store(true, Ordering::Release);
    Ok(())
}

/// A held lock: a descriptor of its own, listed for the atfork handler.
#[derive(Debug)]
pub(super) struct OsLock {
    file: ManuallyDrop<File>,
    place: &'static AtomicI32,
    guard: ForkGuard,
}

impl HeldLock for OsLock {}

impl OsLock {
    /// Locks the whole file exclusively without waiting. `file` must be a description of its own, open for writing,
    /// that nobody else shares.
    pub(super) fn try_new(file: File) -> io::Result<Option<Self>> {
        install_handler()?;
        let descriptor = file.as_raw_fd();
        let place = DESCRIPTORS
            .iter()
            .find(|p| p.compare_exchange(-1, descriptor, Ordering::Relaxed, Ordering::Relaxed).is_ok())
            .ok_or_else(|| io::Error::other(format!("this process already holds {LOCKS_MAX} file locks")))?;
        // Listed before it is taken, so that no fork in between can carry the lock away.
        let lock = Self { file: ManuallyDrop::new(file), place, guard: ForkGuard::new() };
        Ok(set_lock(&lock.file, libc::F_WRLCK)?.then_some(lock))
    }

    /// The locked file, to write the holder's line into.
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        if self.guard.forked() {
            // The handler has closed the descriptor; its number may be somebody else's by now.
            return;
        }
        // Unlocking explicitly also frees the lock where a child shares the description because it was cloned
        // without running atfork handlers.
        let _ = set_lock(&self.file, libc::F_UNLCK);
        self.place.store(-1, Ordering::Relaxed);
        // SAFETY: `file` is dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

/// Whether another description holds a lock on the file. `F_OFD_GETLK` only asks, so it needs no file that is open for
/// writing, and nobody who tries to take the lock meanwhile is refused because of it.
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    // SAFETY: `flock` is plain integers, for which zero is a value; OFD locks require `l_pid` to be 0.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::F_WRLCK as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed; `request` outlives the call.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut request) } == 0 {
            return Ok(libc::c_int::from(request.l_type) != libc::F_UNLCK);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// Whether the lock was set; false if somebody else is in the way.
fn set_lock(file: &File, kind: libc::c_int) -> io::Result<bool> {
    // SAFETY: `flock` is plain integers, for which zero is a value; OFD locks require `l_pid` to be 0.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = kind as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed; `request` outlives the call.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &request) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::fork::tests::{in_forked_child, spawn_forked_child, wait_for_child};
    use super::super::{OpenMode, OsVfs, Vfs};

    /// The lock as another process sees it.
    fn taken_elsewhere(path: &Path) -> bool {
        in_forked_child(|| match OsVfs.try_lock(path, "child") {
            Ok(Some(_lock)) => 0,
            Ok(None) => 1,
            Err(_) => 2,
        }) == 1
    }

    #[test]
    fn a_lock_excludes_other_processes_until_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = OsVfs.try_lock(&path, "me").unwrap().unwrap();
        assert!(taken_elsewhere(&path));
        assert_eq!(OsVfs.lock_holder(&path), "me");
        drop(held);
        assert!(!taken_elsewhere(&path));
    }

    #[test]
    fn a_file_lock_excludes_other_processes_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.live");
        let file = OsVfs.open(&path, OpenMode::CreateNew).unwrap();
        let held = file.try_lock().unwrap().unwrap();
        assert!(taken_elsewhere(&path));
        drop(held);
        assert!(!taken_elsewhere(&path));
    }

    #[test]
    fn asking_for_a_lock_takes_none_and_needs_no_right_to_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.live");
        let file = OsVfs.open(&path, OpenMode::CreateNew).unwrap();
        let reader = OsVfs.open(&path, OpenMode::Read).unwrap();
        assert!(!reader.is_locked().unwrap());
        let held = file.try_lock().unwrap().unwrap();
        assert!(reader.is_locked().unwrap());
        assert!(file.is_locked().unwrap(), "the lock has a description of its own");
        assert_eq!(in_forked_child(|| u8::from(reader.is_locked().unwrap_or(false))), 1);
        drop(held);
        assert!(!reader.is_locked().unwrap());
        assert!(!taken_elsewhere(&path));
    }

    #[test]
    fn a_child_neither_keeps_nor_frees_what_it_inherited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = OsVfs.try_lock(&path, "parent").unwrap().unwrap();
        // A child that drops the inherited lock leaves it with the parent.
        let mut moved = Some(held);
        assert_eq!(
            in_forked_child(|| {
                drop(moved.take());
                0
            }),
            0
        );
        assert!(taken_elsewhere(&path));
        // A child that lives on (a data-loader worker) does not keep the lock alive.
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let child = spawn_forked_child(|| {
            let mut byte = [0u8];
            std::io::Read::read_exact(&mut reader, &mut byte).map_or(1, |()| 0)
        });
        drop(moved);
        let again = OsVfs.try_lock(&path, "next").unwrap();
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        assert_eq!(wait_for_child(child), 0);
        assert!(again.is_some());
    }

    #[test]
    fn a_killed_holder_frees_the_lock_though_its_own_child_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let (mut ready, mut told) = std::io::pipe().unwrap();
        // The holder takes the lock, forks a worker that waits, and leaves without unlocking, as if killed.
        let code = in_forked_child(|| {
            let Ok(Some(lock)) = OsVfs.try_lock(&path, "holder") else { return 1 };
            std::mem::forget(lock);
            spawn_forked_child(|| {
                let _ = std::io::Write::write_all(&mut told, b"r");
                let mut byte = [0u8];
                std::io::Read::read_exact(&mut reader, &mut byte).map_or(1, |()| 0)
            });
            0
        });
        assert_eq!(code, 0);
        std::io::Read::read_exact(&mut ready, &mut [0u8]).unwrap();
        let next = OsVfs.try_lock(&path, "next").unwrap();
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        assert!(next.is_some());
    }
}
