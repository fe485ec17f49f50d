//! A copy of a store, consistent, while others write.
//!
//! Contract: everything that was acknowledged before the call is in the copy, and what is there of later calls joins
//! it. The file `MLRS` comes last, so a copy that was interrupted is no store yet. A later backup to the same place
//! copies what is new, and is at every moment a store with at least what the one before held.

use std::path::Path;

use crate::error::{Error, Result};
use crate::log::{LIVE_DIR, LOG_DIR};
use crate::store::copying::{ARTIFACTS_DIR, Source, Target};
use crate::store::report::{BackupReport, CopyReport, Progress};
use crate::store::{Store, identity};

impl Store {
    /// Copies the store to `dest` while it is written: a directory that is new, empty, or an earlier backup of the same
    /// store, of which closed segments and unchanged artifacts are kept. Takes no lock and writes nothing here, so a
    /// read-only handle will do. The copy is synced when this returns; it opens like any store.
    ///
    /// What is damaged is copied as it is and listed in the report.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `dest` is something else, [`Error::DiskFull`]; a backup that failed is
    /// completed by repeating it.
    pub fn backup(&self, dest: &Path, progress: &mut dyn FnMut(&Progress)) -> Result<BackupReport> {
        let inner = self.inner();
        let vfs = &inner.vfs;
        let is_incremental = self.check_backup_target(dest)?;
        for folder in [LOG_DIR, LIVE_DIR, ARTIFACTS_DIR] {
            super::artifacts::create_dirs_durably(vfs.as_ref(), &dest.join(folder))?;
        }
        let mut copied = CopyReport::default();
        let target = Target { vfs, root: dest, refuse_damage: false, dry_run: false };
        let source = Source::take(inner)?;
        source.copy_log(&target, &mut copied, progress)?;
        source.copy_artifacts(&target, &|_| false, &mut copied)?;
        if is_incremental {
            source.remove_covered(&target, &mut copied)?;
        } else {
            identity::write(vfs.as_ref(), dest, inner.id)?;
        }
        Ok(BackupReport { is_incremental, copied })
    }

    /// Whether the target is an earlier backup; an error if it is neither that nor free.
    fn check_backup_target(&self, dest: &Path) -> Result<bool> {
        let inner = self.inner();
        let refuse = |why: &str| {
            let text = format!("cannot back up to {}: {why}", dest.display());
            Err(Error::invalid(text))
        };
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        if absolute(dest).starts_with(absolute(&inner.root)) {
            return refuse("it is inside the store");
        }
        let identity_of = |path: &Path| inner.vfs.metadata(path).map(|m| m.identity).ok();
        if identity_of(dest).is_some() && identity_of(dest) == identity_of(&inner.root) {
            return refuse("it is the store itself");
        }
        match identity::read(inner.vfs.as_ref(), dest)? {
            Some(id) if id == inner.id => return Ok(true),
            Some(_) => return refuse("another store is there"),
            None => {}
        }
        let entries = match inner.vfs.list(dest) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io("list", dest, e)),
        };
        // What an interrupted backup leaves.
        let is_ours =
            |name: &str| [LOG_DIR, LIVE_DIR, ARTIFACTS_DIR].contains(&name) || identity::is_aside(name);
        if entries.iter().all(|entry| is_ours(&entry.name)) {
            return Ok(false);
        }
        refuse("it is not empty and no earlier backup; name a new or an empty directory")
    }
}
