//! Group commit: callers that want everything synced share one sync.
//!
//! Contract: a call returns `Ok` only after a sync that began after the call did. While one runs, later callers wait,
//! and the first of them then syncs for all who came meanwhile; so any number of callers costs two syncs. An error is
//! told to the caller whose sync it was; what the others do next is up to `sync` itself, which refuses once it failed.

use std::sync::PoisonError;

use crate::error::Result;
use crate::sync::{Condvar, Mutex};

#[derive(Debug, Default)]
struct Progress {
    running: bool,
    /// Number of syncs that have begun.
    begun: u64,
    /// The last one of them that ended well.
    done: u64,
}

/// Where callers of a sync meet.
#[derive(Debug, Default)]
pub(super) struct SyncGate {
    progress: Mutex<Progress>,
    ended: Condvar,
}

/// Lets the next caller sync, however this one's sync ends.
struct Running<'a> {
    gate: &'a SyncGate,
    number: u64,
    is_done: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut progress = self.gate.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.running = false;
        if self.is_done {
            progress.done = self.number;
        }
        self.gate.ended.notify_all();
    }
}

impl SyncGate {
    /// Calls `sync`, or waits for a call of another thread that does as well.
    pub(super) fn run(&self, sync: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = progress.begun + 1;
        loop {
            if progress.done >= wanted {
                return Ok(());
            }
            if !progress.running {
                break;
            }
            progress = self.ended.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        progress.running = true;
        progress.begun += 1;
        let mut running = Running { gate: self, number: progress.begun, is_done: false };
        drop(progress);
        sync()?;
        running.is_done = true;
        Ok(())
    }
}

#[cfg(all(test, loom))]
mod interleavings {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::error::Error;
    use crate::sync::{AtomicU64, explore, thread};

    /// What a caller wrote before is synced when its call returns well, whoever synced, and nobody waits for ever.
    /// Caught: `wanted` without the `+ 1` (a sync that was under way already), no `notify_all`, `done` set whatever
    /// came of it.
    #[test]
    fn a_call_ends_well_only_after_a_sync_that_began_after_it() {
        explore("group commit", 3, || {
            let gate = Arc::new(SyncGate::default());
            let (written, synced) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let call = move |fails: bool| {
                let mine = written.fetch_add(1, Ordering::Relaxed) + 1;
                let ended = gate.run(|| {
                    let seen = written.load(Ordering::Relaxed);
                    if fails {
                        return Err(Error::invalid("no"));
                    }
                    synced.store(seen, Ordering::Relaxed);
                    Ok(())
                });
                assert!(ended.is_err() || synced.load(Ordering::Relaxed) >= mine);
                assert!(ended.is_ok() || fails);
            };
            let callers: Vec<_> = [true, false]
                .into_iter()
                .map(|fails| {
                    let call = call.clone();
                    thread::spawn(move || call(fails))
                })
                .collect();
            call(false);
            callers.into_iter().for_each(|caller| caller.join().unwrap());
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::error::Error;

    #[test]
    fn what_a_caller_did_before_is_synced_when_it_returns() {
        let gate = SyncGate::default();
        let (written, synced, syncs) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                        gate.run(|| {
                            let seen = written.load(Ordering::SeqCst);
                            std::thread::yield_now();
                            synced.fetch_max(seen, Ordering::SeqCst);
                            syncs.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                        .unwrap();
                        assert!(synced.load(Ordering::SeqCst) >= mine);
                    }
                });
            }
        });
        let syncs = syncs.load(Ordering::SeqCst);
        assert!(syncs <= 1600, "{syncs}");
    }

    #[test]
    fn callers_that_wait_share_the_next_sync() {
        let gate = SyncGate::default();
        let syncs = AtomicU64::new(0);
        std::thread::scope(|scope| {
            gate.run(|| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        gate.run(|| {
                            syncs.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                        .unwrap();
                    });
                }
                // All four wait for this one to end.
                std::thread::sleep(std::time::Duration::from_millis(200));
                Ok(())
            })
            .unwrap();
        });
        assert_eq!(syncs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_sync_is_nobody_elses_success() {
        let gate = SyncGate::default();
        assert!(gate.run(|| Err(Error::invalid("no"))).is_err());
        gate.run(|| Ok(())).unwrap();
        assert!(gate.run(|| Err(Error::invalid("no"))).is_err());
    }
}
