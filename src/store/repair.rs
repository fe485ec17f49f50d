//! Repair: what is sound in damaged files goes into new ones, what is damaged is set aside.
//!
//! Contract: acts on what `verify` finds and on nothing else, and says what it did. No file is removed but what an
//! interrupted write left; a damaged one is moved to `quarantine/` when what is sound in it is durable elsewhere. What
//! a living writer appends to, and what a newer program wrote, is left alone. Repeating it is harmless.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::format::declare::SeriesKey;
use crate::format::event::Event;
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::id::{Origin, SegmentId, StoreId, WriterId};
use crate::index::INDEX_FILE;
use crate::log::{
    LIVE_DIR, LOG_DIR, LogWriter, Remains, Segment, SegmentCheck, check_segment, is_understood,
    parse_segment_name, salvage_segment, segment_path,
};
use crate::store::artifacts::create_dirs_durably;
use crate::store::report::{LostPoints, Progress, RepairAction, RepairKind, RepairReport, Severity};
use crate::store::verify::Ranges;
use crate::store::{Inner, Options, identity};
use crate::vfs::{Vfs, process};

/// Where damaged files go.
pub(super) const QUARANTINE_DIR: &str = "quarantine";

impl Options {
    /// Repairs the store at `path`: copies what is sound in damaged segments to new ones and moves the damaged files to
    /// `quarantine/`, writes a damaged `MLRS` anew, removes what interrupted writes left. With `dry_run` it only says
    /// what it would do. Others may read and log meanwhile.
    ///
    /// # Errors
    /// [`Error::Busy`] names who compacts, [`Error::DiskFull`] and other errors of the system: then it may be repeated.
    /// What cannot be repaired is no error but in the report.
    pub fn repair(
        self,
        path: impl AsRef<Path>,
        dry_run: bool,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<RepairReport> {
        let path = path.as_ref();
        let mut report = RepairReport { dry_run, ..RepairReport::default() };
        let vfs = Arc::clone(&self.vfs);
        if !repair_identity(&vfs, path, &mut report)? {
            // Without it nothing more can be looked at until it is written.
            return Ok(report);
        }
        let options = self.skip_damage(true).use_index(false).create(false).read_only(dry_run);
        let store = options.open(path)?;
        let repair = Repair { inner: store.inner(), dry_run, report, expected: Ranges::new(), writer: None };
        let report = repair.run(progress)?;
        store.close()?;
        Ok(report)
    }
}

/// Writes the file `MLRS` if it is damaged or missing. Returns whether the store can be opened now.
fn repair_identity(vfs: &Arc<dyn Vfs>, root: &Path, report: &mut RepairReport) -> Result<bool> {
    let is_damaged = match identity::read(vfs.as_ref(), root) {
        Ok(Some(_)) => return Ok(true),
        Ok(None) => false,
        Err(Error::Corrupt { .. }) => true,
        Err(error) => return Err(error),
    };
    let log_dir = root.join(LOG_DIR);
    let entries = match vfs.list(&log_dir) {
        Ok(entries) => entries,
        // No log, no file: no store.
        Err(_) if !is_damaged => return Ok(true),
        Err(_) => Vec::new(),
    };
    let mut stores: BTreeMap<StoreId, u64> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| parse_segment_name(&entry.name).is_some()) {
        if let Ok(segment) = Segment::open(vfs.as_ref(), &log_dir.join(&entry.name)) {
            *stores.entry(segment.header.store).or_default() += 1;
        }
    }
    // Of a merged store the segments name several; any will do, so the one that most of them name.
    let known =
        stores.into_iter().filter(|(id, _)| *id != StoreId::default()).max_by_key(|(_, count)| *count);
    let (id, from) = match known {
        Some((id, count)) => (id, format!("with id {id}, which {count} of its segments name")),
        None => (StoreId::random()?, "with a new id: no segment names the old one".to_owned()),
    };
    let what = if is_damaged { "is damaged" } else { "is missing" };
    let path = PathBuf::from(identity::IDENTITY_FILE);
    report.actions.push(RepairAction {
        kind: RepairKind::Identity,
        path,
        text: format!("{what}: written anew {from}"),
    });
    if report.dry_run {
        // A damaged one can be passed over by reading; one that is missing cannot.
        return Ok(is_damaged);
    }
    if is_damaged {
        set_aside(vfs, root, &root.join(identity::IDENTITY_FILE))?;
    }
    identity::write(vfs.as_ref(), root, id)?;
    Ok(true)
}

/// Moves a file to `quarantine/`, durably; returns where it is.
fn set_aside(vfs: &Arc<dyn Vfs>, root: &Path, path: &Path) -> Result<PathBuf> {
    let folder = root.join(QUARANTINE_DIR);
    create_dirs_durably(vfs.as_ref(), &folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut target = folder.join(&name);
    let mut copy = 1;
    while vfs.metadata(&target).is_ok() {
        target = folder.join(format!("{name}.{copy}"));
        copy += 1;
    }
    vfs.rename(path, &target).map_err(|e| Error::io("rename", path, e))?;
    for folder in [folder.as_path(), path.parent().unwrap_or(root)] {
        vfs.sync_dir(folder).map_err(|e| Error::failed_sync(folder, e))?;
    }
    Ok(target)
}

struct Repair<'a> {
    inner: &'a Inner,
    dry_run: bool,
    report: RepairReport,
    /// Points that damaged segments had, as far as they say.
    expected: Ranges,
    /// Writer, next number and last segment of the segments of this repair.
    writer: Option<(WriterId, u64, (SegmentId, u64))>,
}

impl Repair<'_> {
    fn run(mut self, progress: &mut dyn FnMut(&Progress)) -> Result<RepairReport> {
        let _lock = if self.dry_run {
            None
        } else {
            // Brings home what dead writers left, as every writer does.
            self.inner.writer()?;
            self.inner.compact_lock()?
        };
        let (found, sound) = self.inner.verify(progress)?;
        let mut paths: Vec<PathBuf> = found
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Damage)
            .map(|f| self.inner.root.join(&f.path))
            .collect();
        paths.dedup();
        for path in &paths {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.parent().is_some_and(|parent| parent.ends_with(LOG_DIR)) {
                if let Some((writer, number)) = parse_segment_name(name) {
                    self.segment(path, writer, number)?;
                }
            } else if path.parent().is_some_and(|parent| parent.ends_with(LIVE_DIR))
                && name.ends_with(".quarantine")
            {
                self.move_aside(path, "holds points that do not join those in the log")?;
            }
        }
        self.leftovers()?;
        self.lost(&sound);
        let changed = !self.dry_run && !self.report.actions.is_empty();
        let remaining = if changed {
            // It was made of the damaged files.
            let index = self.inner.root.join(INDEX_FILE);
            match self.inner.vfs.remove_file(&index) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", index, e));
                }
                _ => {}
            }
            self.inner.verify(progress)?.0
        } else {
            found
        };
        let remaining = remaining.findings.into_iter().filter(|f| f.severity == Severity::Damage);
        self.report.remaining = remaining.collect();
        Ok(self.report)
    }

    fn act(&mut self, kind: RepairKind, path: &Path, text: impl Into<String>) {
        let path = self.inner.relative(path);
        self.report.actions.push(RepairAction { kind, path, text: text.into() });
    }

    fn move_aside(&mut self, path: &Path, why: &str) -> Result<()> {
        if !self.dry_run {
            set_aside(&self.inner.vfs, &self.inner.root, path)?;
        }
        self.act(RepairKind::SetAside, path, format!("{why}; moved to {QUARANTINE_DIR}/"));
        Ok(())
    }

    /// The header of the next segment of this repair.
    fn next_header(&mut self, kind: SegmentKind, created_ms: u64) -> Result<SegmentHeader> {
        let (writer, number, previous) = match self.writer {
            Some(known) => known,
            None => (WriterId::random()?, 0, (SegmentId::default(), 0)),
        };
        let id = SegmentId::random()?;
        self.writer = Some((writer, number + 1, (id, 0)));
        Ok(SegmentHeader {
            kind,
            features: 0,
            id,
            writer,
            number,
            predecessor: previous.0,
            predecessor_len: previous.1,
            created_ms,
            store: self.inner.id,
        })
    }

    fn segment(&mut self, path: &Path, writer: WriterId, number: u64) -> Result<()> {
        let log_dir = self.inner.root.join(LOG_DIR);
        let segment = match Segment::open(self.inner.vfs.as_ref(), path) {
            Ok(segment) => segment,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(Error::Corrupt { .. } | Error::TornTail { .. }) => {
                if !self.dry_run {
                    if !self.inner.is_abandoned(path)? {
                        self.act(RepairKind::Left, path, "a process has it open");
                        return Ok(());
                    }
                    let header = self.next_header(SegmentKind::Sealed, process::now_ms())?;
                    let remains = Remains::Nothing(writer, number);
                    salvage_segment(&self.inner.vfs, &log_dir, &remains, header, &|_| true)?;
                }
                return self.move_aside(path, "has no header that could be read, so nothing of it can be");
            }
            Err(error) => return Err(error),
        };
        let own = self.inner.writer.as_ref().map(LogWriter::id);
        let is_own = own == Some(segment.header.writer);
        let is_used = !segment.is_closed() && (is_own || !self.inner.has_ended(&segment)?);
        if is_used {
            self.act(RepairKind::Left, path, "its writer lives; repair again when it has ended");
            return Ok(());
        }
        let place = (segment.header.writer, segment.header.number);
        let mut refused = 0u64;
        let mut count = |_, event: Event| refused += u64::from(!accepts(&event));
        let check = check_segment(&segment, &mut count, &mut |_| {})?;
        if check.damage.is_empty() && refused == 0 {
            // Not its bytes: a name, or what it says of others.
            return if place == (writer, number) { Ok(()) } else { self.rename(path, place) };
        }
        if !is_understood(&segment)? {
            self.act(RepairKind::Left, path, "a newer program wrote in it: repair it with that");
            return Ok(());
        }
        self.take_down(&segment, &check)?;
        self.report.orphans += check.orphans;
        let places = check.damage.len() as u64 + refused;
        if self.dry_run {
            self.report.points += check.points;
            self.report.events += check.events - refused;
            self.report.blobs += check.blobs;
        } else {
            let kind = match segment.header.kind {
                SegmentKind::Blobs => SegmentKind::Blobs,
                SegmentKind::Log | SegmentKind::Sealed => SegmentKind::Sealed,
            };
            let header = self.next_header(kind, segment.header.created_ms)?;
            let end = check.torn.map_or(u64::MAX, |(offset, _)| offset);
            let remains = Remains::Of(&segment, end);
            let kept = salvage_segment(&self.inner.vfs, &log_dir, &remains, header, &accepts)?;
            self.report.points += kept.points;
            self.report.events += kept.events;
            self.report.blobs += kept.blobs;
            set_aside(&self.inner.vfs, &self.inner.root, path)?;
        }
        let text = format!(
            "{places} damaged place{}; {} points, {} events and {} blobs are sound and go to a new segment, the file \
             to {QUARANTINE_DIR}/",
            if places == 1 { "" } else { "s" },
            check.points,
            check.events - refused,
            check.blobs
        );
        self.act(RepairKind::Rewritten, path, text);
        Ok(())
    }

    /// A whole segment under a name that is not its own.
    fn rename(&mut self, path: &Path, (writer, number): (WriterId, u64)) -> Result<()> {
        let log_dir = self.inner.root.join(LOG_DIR);
        let name = segment_path(&log_dir, writer, number);
        if self.inner.vfs.metadata(&name).is_ok() {
            return self.move_aside(path, "has a wrong name, and the right one is taken");
        }
        if !self.dry_run {
            self.inner.vfs.rename(path, &name).map_err(|e| Error::io("rename", path, e))?;
            self.inner.vfs.sync_dir(&log_dir).map_err(|e| Error::failed_sync(&log_dir, e))?;
        }
        let text =
            format!("has a wrong name; it is {}", name.file_name().unwrap_or_default().to_string_lossy());
        self.act(RepairKind::Renamed, path, text);
        Ok(())
    }

    /// Takes down which points a damaged segment had: by its batches, and by its directories where these are whole.
    fn take_down(&mut self, segment: &Segment, check: &SegmentCheck) -> Result<()> {
        for (series, spans) in &check.spans {
            let all = self.expected.entry(series.clone()).or_default();
            all.extend(spans.iter().map(|span| (span.first_ordinal, span.end)));
        }
        for directory in &segment.state().directories {
            for row in &directory.head.rows {
                let entry = match segment.stored_row_entry(directory, row) {
                    Err(Error::Corrupt { .. }) => continue,
                    other => other?,
                };
                for series in entry.series {
                    let key = (series.declaration.series.clone(), series.declaration.origin);
                    let (first, end) = (series.extent.first_ordinal, series.extent.end());
                    self.expected.entry(key).or_default().push((first, end));
                }
            }
        }
        Ok(())
    }

    /// Expected points that nothing holds.
    fn lost(&mut self, sound: &Ranges) {
        let none = Vec::new();
        let mut lost: Vec<LostPoints> = Vec::new();
        for (series, expected) in &self.expected {
            let held = sound.get(series).unwrap_or(&none);
            lost.extend(missing(expected, held).into_iter().map(|range| lost_points(series, range)));
        }
        lost.sort_by(|a, b| (&a.run, &a.key, &a.origin, a.first).cmp(&(&b.run, &b.key, &b.origin, b.first)));
        self.report.lost = lost;
    }

    /// Files that interrupted writes left.
    fn leftovers(&mut self) -> Result<()> {
        let mut removed = Vec::new();
        if self.inner.medium.trusts_locks() {
            self.inner.remove_half_written(self.dry_run, &mut removed)?;
        }
        for entry in self.inner.vfs.list(&self.inner.root).unwrap_or_default() {
            let path = self.inner.root.join(&entry.name);
            let is_old = || self.inner.vfs.metadata(&path).is_ok_and(|m| super::gc::is_past_grace(&m));
            if identity::is_aside(&entry.name) && is_old() {
                if !self.dry_run {
                    self.inner.vfs.remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
                }
                removed.push((path, 0));
            }
        }
        for (path, _) in removed {
            self.act(RepairKind::Removed, &path, "was left by an interrupted write");
        }
        Ok(())
    }
}

/// Whether an event counts: one whose stamp is damage does not.
fn accepts(event: &Event) -> bool {
    Catalog::new().apply(event).is_ok()
}

/// Parts of `expected` that `held` does not cover.
fn missing(expected: &[(u64, u64)], held: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut held = held.to_vec();
    held.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let mut missing: Vec<(u64, u64)> = Vec::new();
    for (first, end) in expected {
        // What was found missing already is not told twice.
        let mut at = first.max(missing.last().map_or(0, |(_, end)| *end));
        for &(from, to) in held.iter().filter(|(_, to)| *to > first) {
            if from >= end {
                break;
            }
            if from > at {
                missing.push((at, from));
            }
            at = at.max(to);
        }
        if at < end {
            missing.push((at, end));
        }
    }
    // Ranges that follow each other are one.
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, to) in missing {
        match joined.last_mut().filter(|(_, end)| *end == from) {
            Some((_, end)) => *end = to,
            None => joined.push((from, to)),
        }
    }
    joined
}

fn lost_points((series, origin): &(SeriesKey, Origin), (first, end): (u64, u64)) -> LostPoints {
    LostPoints {
        run: series.run.to_string(),
        key: series.key.to_string(),
        origin: origin.to_string(),
        first,
        end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_what_nothing_covers() {
        assert_eq!(missing(&[(0, 10)], &[]), [(0, 10)]);
        assert_eq!(missing(&[(0, 10)], &[(0, 4), (6, 10)]), [(4, 6)]);
        assert_eq!(missing(&[(0, 4), (4, 10), (0, 10)], &[(2, 3), (0, 1), (8, 20)]), [(1, 2), (3, 8)]);
        assert_eq!(missing(&[(5, 10)], &[(0, 5), (10, 12)]), [(5, 10)]);
        assert_eq!(missing(&[(5, 10)], &[(0, 100)]), []);
    }
}
