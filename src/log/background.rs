//! What a writer's thread does: hand-over, syncs, sealing, and a new live file for one that was removed.
//!
//! Contract: one round at each sync interval, and whenever a logging call asks. No lock is held while the system syncs.
//! Errors of the disk poison the handle or are tried again; nobody is told here, the next call is.

use std::sync::PoisonError;
use std::time::Instant;

use crate::error::Result;
use crate::log::seal::seal_segment;
use crate::log::segment_sync::SyncTask;
use crate::log::segment_writer::SegmentWriter;
use crate::log::writer_state::{Shared, Signal, lock};

impl Shared {
    /// Makes everything durable that was written or logged before the call: segment first, then live file. Callers at
    /// the same time share one sync; no lock is held while the system works.
    pub(super) fn sync_all(&self) -> Result<()> {
        self.syncs.run(|| {
            self.check()?;
            self.noted(self.sync_once())
        })
    }

    fn sync_once(&self) -> Result<()> {
        let Some(live) = self.live.get() else { return self.sync_segments() };
        let handed = live.handed();
        self.sync_segments()?;
        if live.is_dirty() {
            live.sync()?;
        }
        // Frames of points that were handed over meanwhile: their blocks may have been taken again (then the live file
        // is not even dirty), and what is synced in it must not be covered by less.
        if live.handed() > handed { self.sync_segments() } else { Ok(()) }
    }

    pub(super) fn sync_segments(&self) -> Result<()> {
        let tasks: Vec<SyncTask> = {
            let side = lock(&self.side);
            let open = [side.blobs.as_ref(), side.segment.as_ref()];
            open.into_iter().flatten().filter_map(SegmentWriter::sync_task).collect()
        };
        for task in &tasks {
            task.run()?;
        }
        let mut side = lock(&self.side);
        for task in &tasks {
            side.blobs.iter_mut().for_each(|segment| segment.note_synced(task));
            side.segment.iter_mut().for_each(|segment| segment.note_synced(task));
        }
        // What was appended meanwhile went through the flag itself.
        side.sync_first &= side.segment.as_ref().is_some_and(|segment| segment.sync_task().is_some());
        Ok(())
    }

    /// The background thread.
    pub(super) fn run(&self) {
        let mut last_sync = Instant::now();
        let mut last_flush = Instant::now();
        loop {
            let (stop, begin, asked) = {
                let signal = lock(&self.signal);
                let wait = |s: &mut Signal| !s.stop && !s.hand_over && !s.begin_live;
                let pause = self.options.sync_interval;
                let waited = self.woken.wait_timeout_while(signal, pause, wait);
                let mut signal = waited.unwrap_or_else(PoisonError::into_inner).0;
                let begin = std::mem::take(&mut signal.begin_live);
                (signal.stop, begin, !begin && std::mem::take(&mut signal.hand_over))
            };
            if stop {
                return;
            }
            if begin {
                self.begin_live_if_none();
                continue;
            }
            if self.poison.get().is_some() {
                // Nothing can be written any more; logging calls say so themselves.
                continue;
            }
            // First of all, because whoever logs fast waits for it.
            if let Some(live) = self.live.get() {
                live.provide();
            }
            if asked || last_flush.elapsed() >= self.options.flush_interval {
                let moved = {
                    let mut side = lock(&self.side);
                    self.hand_over(&mut side).and_then(|()| self.roll(&mut side, false))
                };
                // A full disk: the points stay in the live file and the next round tries again.
                let _ = self.noted(moved);
                last_flush = Instant::now();
            }
            let _ = self.noted(self.release_handed());
            if last_sync.elapsed() >= self.options.sync_interval {
                let _ = self.sync_all();
                let _ = self.noted(self.replace_unlinked());
                last_sync = Instant::now();
            }
            let _ = self.noted(self.seal_closed());
        }
    }

    /// A live file that somebody removed would take its points along when this process is killed: what it holds goes
    /// into batches, and a new one takes its place.
    pub(super) fn replace_unlinked(&self) -> Result<()> {
        let Some(live) = self.live.get().filter(|live| live.is_unlinked()) else { return Ok(()) };
        let mut side = lock(&self.side);
        self.check()?;
        let held = live.hold();
        self.hand_over_held(&mut side, live, &held)?;
        self.ensure_folder(&self.live_dir)?;
        live.begin_again(self.vfs.as_ref(), &held)
    }

    pub(super) fn seal_closed(&self) -> Result<()> {
        let closed = std::mem::take(&mut lock(&self.side).closed);
        for path in closed {
            seal_segment(&self.vfs, &path, self.options.compression)?;
        }
        Ok(())
    }
}
