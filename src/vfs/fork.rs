//! Noticing a fork.
//!
//! Contract: a [`ForkGuard`] made in one process says `forked` in every descendant process, for the price of one
//! relaxed load (`getpid` costs about 100 ns). Making and asking takes no lock, so a child may do both however the
//! parent's other threads stood when it forked.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// A page that the kernel fills with zeros in a forked child (`MADV_WIPEONFORK`); holds the mark of this process.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// The next mark. An ordinary word, so a child counts on from its parent and never repeats an ancestor's mark.
static NEXT_MARK: AtomicU64 = AtomicU64::new(1);

const PAGE_BYTES: usize = 4096;

/// Remembers the process it was made in.
#[derive(Clone, Copy, Debug)]
pub struct ForkGuard {
    /// None where the kernel knows no `MADV_WIPEONFORK` (before 4.14): the pid decides then.
    page: Option<&'static AtomicU64>,
    mark: u64,
    pid: u32,
}

impl ForkGuard {
    /// A guard of this process.
    pub fn new() -> Self {
        let page = page();
        let mark = page.map_or(0, |page| {
            let fresh = NEXT_MARK.fetch_add(1, Ordering::Relaxed);
            page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed)
                .map_or_else(|mark| mark, |_| fresh)
        });
        Self { page, mark, pid: std::process::id() }
    }

    /// Whether the asking process is a descendant of the one that made the guard.
    #[inline]
    pub fn forked(&self) -> bool {
        match self.page {
            Some(page) => page.load(Ordering::Relaxed) != self.mark,
            None => std::process::id() != self.pid,
        }
    }
}

impl Default for ForkGuard {
    fn default() -> Self {
        Self::new()
    }
}

/// The process's page, mapped by whoever comes first. No `OnceLock`: a child forked in the middle of its
/// initialization by another thread would wait for ever.
fn page() -> Option<&'static AtomicU64> {
    let present = PAGE.load(Ordering::Acquire);
    if !present.is_null() {
        // SAFETY: a pointer stored in PAGE is a live, page-aligned, zero-initialized mapping that is never unmapped.
        return Some(unsafe { &*present });
    }
    // SAFETY: a fresh anonymous mapping at an address the kernel chooses; no existing memory is touched.
    let raw = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: `raw` is the mapping made above, PAGE_BYTES long, private and anonymous as the advice requires.
    let wiped = unsafe { libc::madvise(raw, PAGE_BYTES, libc::MADV_WIPEONFORK) } == 0;
    let mine = raw.cast::<AtomicU64>();
    if wiped {
        match PAGE.compare_exchange(ptr::null_mut(), mine, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: `mine` is mapped, aligned, zeroed, and from here on never unmapped.
            Ok(_) => return Some(unsafe { &*mine }),
            Err(theirs) => {
                // SAFETY: nobody has seen `raw`: it lost the exchange.
                unsafe { libc::munmap(raw, PAGE_BYTES) };
                // SAFETY: as for `present` above.
                return Some(unsafe { &*theirs });
            }
        }
    }
    // SAFETY: nobody has seen `raw`.
    unsafe { libc::munmap(raw, PAGE_BYTES) };
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Runs `child` in a forked child and returns what it returned (0..=255). The child must not panic and leaves by
    /// `_exit`, so no destructor of the test runs twice.
    pub(crate) fn in_forked_child(child: impl FnOnce() -> u8) -> u8 {
        let pid = spawn_forked_child(child);
        wait_for_child(pid)
    }

    pub(crate) fn spawn_forked_child(child: impl FnOnce() -> u8) -> i32 {
        // SAFETY: the child only runs `child`, which takes no lock of the test process, and leaves by `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let code = child();
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(i32::from(code)) };
        }
        pid
    }

    pub(crate) fn wait_for_child(pid: i32) -> u8 {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the answer; `pid` is our own child.
        let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(waited, pid);
        assert!(libc::WIFEXITED(status), "child ended by a signal: {status:#x}");
        u8::try_from(libc::WEXITSTATUS(status)).unwrap()
    }

    #[test]
    fn a_child_and_a_grandchild_know_that_they_were_forked() {
        let parent = ForkGuard::new();
        assert!(parent.page.is_some(), "this kernel has MADV_WIPEONFORK");
        assert!(!parent.forked() && !ForkGuard::new().forked());
        let code = in_forked_child(|| {
            if !parent.forked() {
                return 1;
            }
            let child = ForkGuard::new();
            // Making the child's own guard must not make the inherited one look at home again.
            if child.forked() || !parent.forked() {
                return 2;
            }
            in_forked_child(|| {
                let grandchild = ForkGuard::new();
                if child.forked() && parent.forked() && !grandchild.forked() { 0 } else { 3 }
            })
        });
        assert_eq!(code, 0);
        assert!(!parent.forked());
    }

    #[test]
    fn without_the_page_the_pid_decides() {
        let guard = ForkGuard { page: None, mark: 0, pid: std::process::id() };
        assert!(!guard.forked());
        assert_eq!(in_forked_child(|| u8::from(guard.forked())), 1);
    }
}
