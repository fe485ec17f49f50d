//! Bringing home what the writers of a host left: explicitly, because no lock can tell.
//!
//! Contract: somebody who knows says that a host's writers are gone; a lock that is held contradicts, and its file is
//! left alone. Points keep their identities, so whoever was wrong lost nothing: what the writer logged meanwhile is in
//! its own files and counts once.

use crate::error::{Error, Result};
use crate::format::live::LiveHeader;
use crate::log::{
    LIVE_DIR, Which, parse_live_name, read_live_header, read_live_window, recover_dead_writers,
};
use crate::store::report::{RecoverReport, WritersElsewhere};
use crate::store::{Inner, Store};
use crate::vfs::OpenMode;

impl Store {
    /// Moves the points that dead writers of a host left in live files into this store's log. Writers of this host are
    /// found and brought home without this call wherever locks can be trusted; those of other hosts (a copied store, a
    /// network file system) only by it. Their points can be read either way.
    ///
    /// With `dry_run` nothing is touched; [`RecoverReport`] says what would be.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] unless it is a dry run; whatever reading and writing the log says.
    pub fn recover_host(&self, host: &str, dry_run: bool) -> Result<RecoverReport> {
        let inner = self.inner();
        if dry_run {
            return inner.would_recover(host);
        }
        let writer = inner.writer()?;
        let which = Which::OfHost { name: host, trusts_locks: inner.medium.trusts_locks() };
        let _one = inner.recovering.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let done = recover_dead_writers(&inner.vfs, &inner.root, inner.id, writer, &inner.reader, which)?;
        let relative = |paths: Vec<std::path::PathBuf>| {
            paths.into_iter().map(|p| inner.relative(&p)).collect::<Vec<_>>()
        };
        Ok(RecoverReport {
            host: host.to_owned(),
            dry_run: false,
            files: done.files,
            points: done.points,
            waiting: relative(done.waiting),
            quarantined: relative(done.quarantined),
            alive: relative(done.alive),
            elsewhere: done
                .elsewhere
                .into_iter()
                .map(|(host, files)| WritersElsewhere { host, files })
                .collect(),
        })
    }
}

impl Inner {
    /// A path as reports name it: relative to the store.
    pub(crate) fn relative(&self, path: &std::path::Path) -> std::path::PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_path_buf()
    }

    fn would_recover(&self, host: &str) -> Result<RecoverReport> {
        let mut report = RecoverReport { host: host.to_owned(), dry_run: true, ..RecoverReport::default() };
        let live_dir = self.root.join(LIVE_DIR);
        let mut elsewhere = std::collections::BTreeMap::<String, u64>::new();
        let own = self.writer.as_ref().map(crate::log::LogWriter::id);
        let mut windows = Vec::new();
        for name in self.names(LIVE_DIR)? {
            if parse_live_name(&name).is_none_or(|w| Some(w) == own) {
                continue;
            }
            let path = live_dir.join(&name);
            let found = read_live_header(self.vfs.as_ref(), &path)?.map(|h| h.host).unwrap_or_default();
            if found != LiveHeader::host_as_stored(host) {
                *elsewhere.entry(found).or_default() += 1;
                continue;
            }
            let lock = self.vfs.open(&path, OpenMode::ReadWrite).and_then(|file| file.try_lock());
            if matches!(lock, Ok(None)) {
                report.alive.push(self.relative(&path));
                continue;
            }
            drop(lock);
            windows.push((read_live_window(self.vfs.as_ref(), &path), path));
        }
        let view = self.reader.refresh()?;
        for (window, path) in windows {
            match window {
                Ok(Some(window)) => {
                    let (covered, joins) = view.covered(&window)?;
                    let (joined, behind) = window.joined(covered);
                    report.files += 1;
                    let sees_late = !self.medium.trusts_locks();
                    let waits =
                        window.header.store != self.id || sees_late || view.is_cut(window.header.writer)?;
                    if (!joins && waits) || (behind > 0 && sees_late) {
                        report.waiting.push(self.relative(&path));
                    } else if !joins || behind > 0 {
                        report.quarantined.push(self.relative(&path));
                    }
                    report.points += if joins { joined.len() as u64 } else { 0 };
                }
                Ok(None) => {
                    report.files += 1;
                    if !self.medium.trusts_locks() {
                        report.waiting.push(self.relative(&path));
                    }
                }
                Err(Error::Corrupt { .. }) => {
                    report.files += 1;
                    match self.medium.trusts_locks() {
                        true => report.quarantined.push(self.relative(&path)),
                        false => report.waiting.push(self.relative(&path)),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        report.elsewhere =
            elsewhere.into_iter().map(|(host, files)| WritersElsewhere { host, files }).collect();
        Ok(report)
    }

    /// Names in a folder of the store, sorted; a folder that is not there is empty.
    pub(crate) fn names(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.root.join(folder);
        match self.vfs.list(&path) {
            Ok(entries) => {
                let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
                names.sort_unstable();
                Ok(names)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(Error::io("list", &path, e)),
        }
    }
}
