//! Taking in what another store holds.
//!
//! Contract: does what copying `log/ live/ artifacts/` with rsync does, and looks before: whether the other is a store
//! of a format this program reads, whether its segments are whole, what both claim. Identities tell points and events
//! apart, so taking in a store again, a copy of this one, or an old copy doubles nothing and brings nothing back that
//! was purged. The other store is only read, and may be in use.

use std::collections::HashSet;
use std::path::Path;

use crate::catalog::Conflict;
use crate::error::{Error, Result};
use crate::format::event::EntityKind;
use crate::id::Uid;
use crate::log::{LIVE_DIR, LOG_DIR};
use crate::store::Store;
use crate::store::copying::{ARTIFACTS_DIR, Source, Target};
use crate::store::report::{CopyReport, MergeReport, Progress};
use crate::store::state::Want;

impl Store {
    /// Takes in what the store at `other` holds: runs, points, artifacts. Segments that are damaged are left out and
    /// listed; `repair` the other store first. With `dry_run` nothing is written and the report says what would be.
    ///
    /// Names, numeric ids and params that both claim for different things are listed in the report; nothing is dropped
    /// (see [`Store::conflicts`]).
    ///
    /// # Errors
    /// [`Error::NotAStore`] and [`Error::NewerFormat`] for the other one, [`Error::InvalidArgument`] if it is this one;
    /// [`Error::DiskFull`]: then it may be repeated.
    pub fn merge(
        &self,
        other: &Path,
        dry_run: bool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<MergeReport> {
        let inner = self.inner();
        if !dry_run {
            inner.writer()?;
        }
        let identity_of = |path: &Path| inner.vfs.metadata(path).map(|m| m.identity).ok();
        if identity_of(other).is_some() && identity_of(other) == identity_of(&inner.root) {
            return Err(Error::invalid(format!("{} is the store itself", other.display())));
        }
        // Damage must not keep the rest from coming home.
        let options = inner.options.clone().read_only(true).create(false).skip_damage(true).use_index(false);
        let source = Source::take(options.open(other)?.inner())?;
        let before: Vec<Conflict> = inner.current(Want::All)?.catalog.conflicts();
        let purged: HashSet<Uid> = {
            let state = inner.current(Want::All)?;
            let runs = state
                .catalog
                .entries()
                .filter(|e| matches!(e.kind(), EntityKind::RUN | EntityKind::LOGGED_MODEL) && e.is_purged());
            runs.map(|e| e.uid()).collect()
        };
        let mut copied = CopyReport::default();
        let target = Target { vfs: &inner.vfs, root: &inner.root, refuse_damage: true, dry_run };
        if !dry_run {
            for folder in [LOG_DIR, LIVE_DIR, ARTIFACTS_DIR] {
                super::artifacts::create_dirs_durably(inner.vfs.as_ref(), &inner.root.join(folder))?;
            }
        }
        source.copy_log(&target, &mut copied, progress)?;
        source.copy_artifacts(&target, &|run| purged.contains(&run), &mut copied)?;
        let after = inner.current(Want::All)?.catalog.conflicts();
        let conflicts = after.iter().filter(|one| !before.contains(one)).map(ToString::to_string).collect();
        Ok(MergeReport { dry_run, copied, conflicts })
    }
}
