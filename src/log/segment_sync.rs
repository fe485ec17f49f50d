//! Making a segment that is being written durable.
//!
//! Contract: a sync that failed is never tried again. What is to be synced is a task, so that no lock is held
//! meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::id::SegmentId;
use crate::log::segment_writer::SegmentWriter;
use crate::vfs::{Vfs, VfsFile};

/// A sync of a segment as far as it was written at one moment.
#[derive(Debug)]
pub(crate) struct SyncTask {
    segment: SegmentId,
    to: u64,
    file: Option<Arc<dyn VfsFile>>,
    entry: Option<Arc<dyn Vfs>>,
    path: PathBuf,
}

impl SyncTask {
    /// Syncs the file, then its name.
    pub(crate) fn run(&self) -> Result<()> {
        if let Some(file) = &self.file {
            file.sync_data().map_err(|e| Error::failed_sync(&self.path, e))?;
        }
        if let Some(vfs) = &self.entry {
            let parent = self.path.parent().unwrap_or(Path::new("."));
            vfs.sync_dir(parent).map_err(|e| Error::failed_sync(parent, e))?;
        }
        Ok(())
    }
}

impl SegmentWriter {
    /// What has to be synced so that everything written so far is durable; to be run with or without the segment lock.
    pub(crate) fn sync_task(&self) -> Option<SyncTask> {
        (self.synced_to < self.offset || !self.entry_synced).then(|| SyncTask {
            segment: self.header.id,
            to: self.offset,
            file: (self.synced_to < self.offset).then(|| Arc::clone(&self.file)),
            entry: (!self.entry_synced).then(|| Arc::clone(&self.vfs)),
            path: self.path.clone(),
        })
    }

    /// Takes note of a task that was run.
    pub(crate) fn note_synced(&mut self, task: &SyncTask) {
        if task.segment == self.header.id {
            self.synced_to = self.synced_to.max(task.to);
            self.entry_synced = true;
        }
    }

    /// Makes everything written so far durable, the directory entry included. Never retried after a failure.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if let Some(task) = self.sync_task() {
            task.run()?;
            self.note_synced(&task);
        }
        Ok(())
    }
}
