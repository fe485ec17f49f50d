//! Many processes on one store: killed, stopped, forked, out of space, copied while they write.
//!
//! Contract: a point whose call returned is there exactly once and in order, whatever happens to whichever process;
//! nothing hangs; every open answers. Processes are this program again ([`child`]); a seed decides what happens when and
//! is printed. Short here; `cargo xtask soak` repeats these tests for hours. `MLRS_SEED` sets the seed, `MLRS_SOAK_CYCLES`
//! and `MLRS_SOAK_SECONDS` the length. Every test prints its figure (`--nocapture` shows it).

#![allow(unsafe_code)]

#[path = "../support/chance.rs"]
mod chance;
#[path = "../support/child.rs"]
mod child;
mod copied;
mod crowd;
mod forked;
mod full_disk;
mod killed;
mod many;
#[path = "../medium/mod.rs"]
mod medium;
mod script;
mod stopped;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use chance::{Random, cycles, number, random};

pub(crate) fn seconds(short: u64) -> u64 {
    number("MLRS_SOAK_SECONDS").unwrap_or(short)
}

/// The file system in memory, if there is room. What a kill leaves is in the page cache on any file system; here no
/// disk makes the test wait, so there are more kills.
fn roomy_memory() -> Option<PathBuf> {
    let path = PathBuf::from("/dev/shm");
    // SAFETY: plain integers, for which zero is a value.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated string and a place for the answer, both for the length of the call.
    let known = unsafe { libc::statvfs(c"/dev/shm".as_ptr(), &mut answer) } == 0;
    (known && answer.f_bavail.saturating_mul(answer.f_frsize) > 2 << 30).then_some(path)
}

/// A directory of one test (`MLRS_SOAK_DIR` says where); stays, and says where it is, if the test fails.
pub(crate) struct Place(Option<tempfile::TempDir>);

impl Place {
    pub(crate) fn new() -> Self {
        let named = std::env::var_os("MLRS_SOAK_DIR").map(PathBuf::from);
        let parent = named.or_else(roomy_memory).unwrap_or_else(std::env::temp_dir);
        Self(Some(tempfile::Builder::new().prefix("mlrs-processes-").tempdir_in(parent).unwrap()))
    }

    /// On the file system of temporary files, which is mostly a disk's.
    pub(crate) fn in_temp() -> Self {
        Self(Some(tempfile::Builder::new().prefix("mlrs-processes-").tempdir().unwrap()))
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.as_ref().map(|directory| directory.path().join(name)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.0.take()
        {
            eprintln!("kept for a look: {}", directory.keep().display());
        }
    }
}

/// Tells threads to end, also when the one that tells them panics.
pub(crate) struct SetAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Files below a directory: paths relative to it.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(directory) = pending.pop() {
        // What vanishes while we look is not there.
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(_) => found.extend(entry.path().strip_prefix(root).map(Path::to_path_buf)),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

/// What the other processes run; nothing in an ordinary run.
#[test]
fn child_process() {
    let Some((what, args)) = child::called() else { return };
    child::die_with_parent();
    match what.as_str() {
        "write" => killed::write(&args),
        "crowd-write" => crowd::write(&args),
        "crowd-follow" => crowd::follow(&args),
        "crowd-read" => crowd::read(&args),
        "crowd-compact" => crowd::compact(&args),
        "crowd-delete" => crowd::delete(&args),
        "log-slowly" => copied::log_slowly(&args),
        "short" => many::short(&args),
        "full-disk" => full_disk::inside(&args),
        "full-write" => full_disk::write(&args),
        "stop-claim" => stopped::claim(&args),
        "stop-index" => stopped::index(&args),
        "fork-drop" => forked::drop_inherited(&args),
        "fork-log" => forked::log_inherited(&args),
        "fork-threads" => forked::beside_threads(&args),
        "fork-orphan" => forked::orphan(&args),
        "fork-grandchild" => forked::grandchild(&args),
        other => panic!("no child is called {other}"),
    }
}
