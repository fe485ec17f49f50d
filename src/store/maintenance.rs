//! Compaction: many segments become few, and the files they replace go away later.
//!
//! Contract: one compaction at a time (`compact.lock`; claims have a lock of their own and are never kept waiting by
//! it), but nothing depends on that: identities decide, so two of them, here and elsewhere, neither double nor drop.
//! Only segments that nobody can append to any more are folded: closed ones, and those of writers that are gone and
//! have no live file. A replaced file is removed [`GRACE_MS`] after its replacement was written, when that is whole and
//! durable, so a reader that has just listed the folder still finds what it listed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Conflict;
use crate::codec::Compression;
use crate::error::{Error, Result};
use crate::format::event::EntityKind;
use crate::format::segment::{FOOTER_FRAME_BYTES, SegmentHeader, SegmentKind};
use crate::id::{SegmentId, Uid, WriterId};
use crate::log::{
    LIVE_DIR, LOG_DIR, LogWriter, Segment, View, compact_segments, holds_points_of, is_understood,
    is_worth_sealing, parse_live_name,
};
use crate::store::report::{CompactReport, Progress};
use crate::store::state::Want;
use crate::store::{Inner, Store};
use crate::vfs::{HeldLock, OpenMode, process};

/// The lock of whoever compacts or collects garbage.
const COMPACT_LOCK_FILE: &str = "compact.lock";
/// How long a replaced file stays.
pub(super) const GRACE_MS: u64 = 10 * 60 * 1000;
/// Input of one output segment.
const GROUP_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A sealed segment of this size is left alone.
const LARGE_SEGMENT_BYTES: u64 = 128 * 1024 * 1024;
/// Segments below this are small.
const SMALL_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// A closing writer folds small segments when there are more of them than this.
const SMALL_SEGMENTS_MAX: usize = 64;
/// What a closing writer folds at most, in bytes of input: well below a second.
const CLOSE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes read at once to check a digest.
const DIGEST_CHUNK_BYTES: usize = 1024 * 1024;

/// What one compaction is to do.
struct Plan {
    /// Each becomes one segment.
    groups: Vec<Vec<Arc<Segment>>>,
    bytes: u64,
}

/// The kinds that have points.
const WITH_POINTS: [EntityKind; 2] = [EntityKind::RUN, EntityKind::LOGGED_MODEL];

impl Store {
    /// Folds segments into few long ones: fewer bytes, fewer files, fewer reads. Points of purged runs are left out.
    /// Reading and logging go on meanwhile; what somebody is still writing is left alone. The files that were folded
    /// stay for ten minutes and are removed by the next [`Store::compact`] or [`Store::gc`], or by a writer that
    /// closes.
    ///
    /// # Errors
    /// [`Error::Busy`] names who else compacts, [`Error::DiskFull`]: then everything is as it was. Damaged segments are
    /// no error: they are left as they are.
    pub fn compact(&self, progress: &mut dyn FnMut(&Progress)) -> Result<CompactReport> {
        let inner = self.inner();
        inner.writer()?;
        let _lock = inner.compact_lock()?;
        inner.recover()?;
        let purged = inner.purged_runs()?;
        let view = inner.reader.refresh()?;
        let plan = plan(inner.foldable(&view)?, &purged)?;
        let mut report = inner.fold(plan, &purged, progress)?;
        let view = inner.reader.refresh_whole()?;
        report.files_waiting = inner.remove_replaced(&view, false, &mut |_, _| {})?;
        Ok(report)
    }

    /// Names and ids that two experiments claim, params that were logged twice with different values, runs without an
    /// experiment: what merging stores could not give to both. Nothing of it was dropped.
    ///
    /// # Errors
    /// Whatever reading the log says.
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        Ok(self.inner().current(Want::All)?.catalog.conflicts())
    }
}

/// Which segments become one: in the order of time, so that what belongs together comes together.
fn plan(mut foldable: Vec<Arc<Segment>>, purged: &HashSet<Uid>) -> Result<Plan> {
    foldable.sort_by_key(|s| (s.header.created_ms, s.header.writer, s.header.number));
    let mut groups: Vec<Vec<Arc<Segment>>> = Vec::new();
    let mut group_bytes = u64::MAX;
    let mut bytes = 0;
    for segment in foldable {
        if !is_understood(&segment)? {
            continue;
        }
        let len = segment.state().valid_len;
        let has_purged = holds_points_of(&segment, purged)?;
        if segment.header.kind == SegmentKind::Sealed && len >= LARGE_SEGMENT_BYTES && !has_purged {
            continue;
        }
        if group_bytes.saturating_add(len) > GROUP_BYTES_MAX {
            groups.push(Vec::new());
            group_bytes = 0;
        }
        group_bytes += len;
        groups.last_mut().into_iter().for_each(|group| group.push(Arc::clone(&segment)));
    }
    let mut needed = Vec::with_capacity(groups.len());
    for group in groups {
        if let [only] = group.as_slice() {
            let gains = !only.is_closed() || holds_points_of(only, purged)? || is_worth_sealing(only)?;
            if !gains {
                continue;
            }
        }
        bytes += group.iter().map(|s| s.state().valid_len).sum::<u64>();
        needed.push(group);
    }
    Ok(Plan { groups: needed, bytes })
}

impl Inner {
    /// The lock of whoever compacts; none on a network file system, where there is no lock to trust and none is needed.
    pub(super) fn compact_lock(&self) -> Result<Option<Box<dyn HeldLock>>> {
        if !self.medium.trusts_locks() {
            return Ok(None);
        }
        let path = self.root.join(COMPACT_LOCK_FILE);
        let holder =
            format!("pid {} on {} since {} ms", process::pid(), process::host_name(), process::now_ms());
        match self.vfs.try_lock(&path, &holder).map_err(|e| Error::io("lock", &path, e))? {
            Some(lock) => Ok(Some(lock)),
            None => Err(Error::Busy {
                what: format!("the compaction of {}", self.root.display()),
                holder: self.vfs.lock_holder(&path),
            }),
        }
    }

    /// Runs and logged models whose points nobody will ask for again.
    fn purged_runs(&self) -> Result<HashSet<Uid>> {
        let state = self.current(Want::All)?;
        let purged = state.catalog.entries().filter(|e| WITH_POINTS.contains(&e.kind()) && e.is_purged());
        Ok(purged.map(|e| e.uid()).collect())
    }

    /// Those that segments have something of, without reading the rest of the store.
    fn purged_among(&self, segments: &[Arc<Segment>]) -> Result<HashSet<Uid>> {
        let uids: HashSet<Uid> = segments.iter().flat_map(|s| s.state().uids().collect::<Vec<_>>()).collect();
        let mut state = self.lock_state();
        state.refresh(&self.reader)?;
        let mut purged = HashSet::new();
        for uid in uids {
            let was_loaded = state.has(Want::Entity(uid));
            state.ensure(Want::Entity(uid))?;
            let is_purged =
                |kind: &EntityKind| state.catalog.entry(*kind, uid).is_some_and(|owner| owner.is_purged());
            if WITH_POINTS.iter().any(is_purged) {
                purged.insert(uid);
            }
            if !was_loaded {
                state.forget(uid);
            }
        }
        Ok(purged)
    }

    /// Segments that nobody appends to any more.
    fn foldable(&self, view: &View) -> Result<Vec<Arc<Segment>>> {
        let own = self.writer.as_ref().map(LogWriter::id);
        let live_dir = self.root.join(LIVE_DIR);
        // With its live file a writer also says which of its records are in its segments; they stay until it is gone.
        let live: HashSet<WriterId> = match self.vfs.list(&live_dir) {
            Ok(entries) => entries.iter().filter_map(|e| parse_live_name(&e.name)).collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => HashSet::new(),
            Err(e) => return Err(Error::io("list", &live_dir, e)),
        };
        let mut found = Vec::new();
        for (segment, state) in &view.segments {
            let writer = segment.header.writer;
            let is_own = own == Some(writer);
            let in_use = live.contains(&writer) && !is_own;
            if segment.header.kind == SegmentKind::Blobs || in_use {
                continue;
            }
            if state.footer.is_none() && (is_own || !self.has_ended(segment)?) {
                continue;
            }
            if segment.state().damage.is_empty() {
                found.push(Arc::clone(segment));
            }
        }
        Ok(found)
    }

    /// Whether nobody appends to a segment any more. If so, all of it is known afterwards: what was seen of it may be
    /// older than the last words of its writer.
    pub(super) fn has_ended(&self, segment: &Segment) -> Result<bool> {
        if segment.is_closed() {
            return Ok(true);
        }
        let has_ended = self.is_abandoned(&segment.path)?;
        if has_ended {
            segment.refresh()?;
        }
        Ok(has_ended)
    }

    /// Whether the process that wrote a file is gone: it holds a lock on it as long as it may append.
    pub(super) fn is_abandoned(&self, path: &Path) -> Result<bool> {
        if !self.medium.trusts_locks() {
            return Ok(false);
        }
        match self.vfs.open(path, OpenMode::ReadWrite).and_then(|file| file.try_lock()) {
            Ok(lock) => Ok(lock.is_some()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("lock", path, e)),
        }
    }

    fn fold(
        &self,
        plan: Plan,
        purged: &HashSet<Uid>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<CompactReport> {
        let log_dir = self.root.join(LOG_DIR);
        // A writer of its own: its numbers have no gaps, whatever else this process writes, and if it is killed.
        let writer = WriterId::random()?;
        let mut report = CompactReport::default();
        let mut previous = (SegmentId::default(), 0);
        let mut now = Progress { bytes_total: plan.bytes, ..Progress::default() };
        for mut sources in plan.groups {
            let before = now;
            let outcome = loop {
                let bytes: u64 = sources.iter().map(|s| s.state().valid_len).sum();
                let header = SegmentHeader {
                    features: 0,
                    kind: SegmentKind::Sealed,
                    id: SegmentId::random()?,
                    writer,
                    number: report.segments_after,
                    predecessor: previous.0,
                    predecessor_len: previous.1,
                    created_ms: sources.iter().map(|s| s.header.created_ms).max().unwrap_or(0),
                    store: self.id,
                };
                let folded = compact_segments(
                    &self.vfs,
                    &log_dir,
                    &sources,
                    header,
                    purged,
                    Compression::Zstd,
                    &mut |written, points| {
                        now.bytes_done = before.bytes_done + written.min(bytes);
                        now.points = before.points + points;
                        progress(&now);
                    },
                );
                match folded {
                    Ok(outcome) => {
                        previous = (header.id, outcome.bytes);
                        report.bytes_before += bytes;
                        report.segments_before += sources.len() as u64;
                        break Some(outcome);
                    }
                    // What cannot be read stays where it is, for `verify` to tell of; the others are folded.
                    Err(Error::Corrupt { path, .. } | Error::TornTail { path, .. })
                        if sources.iter().any(|s| s.path == path) =>
                    {
                        sources.retain(|s| s.path != path);
                        if sources.len() < 2 {
                            break None;
                        }
                    }
                    Err(error) => return Err(error),
                }
            };
            if let Some(outcome) = outcome {
                report.segments_after += 1;
                report.bytes_after += outcome.bytes;
                report.points += outcome.points;
            }
            now.bytes_done = report.bytes_before;
            now.points = report.points;
            progress(&now);
        }
        Ok(report)
    }

    /// Removes files that were replaced long enough ago; `removed` gets each with its length. Returns how many wait.
    pub(super) fn remove_replaced(
        &self,
        view: &View,
        dry_run: bool,
        removed: &mut dyn FnMut(PathBuf, u64),
    ) -> Result<u64> {
        let now = process::now_ms();
        let is_old = |path: &Path| {
            self.vfs.metadata(path).is_ok_and(|m| m.modified_ms.saturating_add(GRACE_MS) <= now)
        };
        let mut checked: HashMap<SegmentId, bool> = HashMap::new();
        let mut waiting = 0;
        let mut any = false;
        for segment in view.replaced_segments() {
            // First, so that what is asked below is asked of all of it.
            let is_final = self.is_final(&segment)?;
            let mut covered = false;
            // A copy that has just arrived may still be in somebody's hands, so its own age counts, too.
            for other in view.replacements(&segment).iter().filter(|o| is_old(&o.path)) {
                covered = is_old(&segment.path)
                    && match checked.get(&other.header.id) {
                        Some(known) => *known,
                        None => {
                            let sound = dry_run || self.is_sound_and_durable(other)?;
                            checked.insert(other.header.id, sound);
                            sound
                        }
                    };
                if covered {
                    break;
                }
            }
            if !covered || !is_final {
                waiting += 1;
                continue;
            }
            let len = segment.file_len()?;
            if !dry_run {
                self.vfs.remove_file(&segment.path).map_err(|e| Error::io("remove", &segment.path, e))?;
                any = true;
            }
            removed(segment.path.clone(), len);
        }
        if any {
            let log_dir = self.root.join(LOG_DIR);
            self.vfs.sync_dir(&log_dir).map_err(|e| Error::io("sync", &log_dir, e))?;
        }
        Ok(waiting)
    }

    /// Whether the file under the segment's name is still that segment, and nobody writes to it.
    fn is_final(&self, segment: &Segment) -> Result<bool> {
        let same = self.vfs.metadata(&segment.path).is_ok_and(|m| m.identity == segment.identity);
        Ok(same && self.has_ended(segment)?)
    }

    /// Whether every byte of a closed segment is what was written. It is synced, because it may have come as a copy.
    fn is_sound_and_durable(&self, segment: &Segment) -> Result<bool> {
        let Some(footer) = segment.state().footer else { return Ok(false) };
        let end = segment.state().valid_len.saturating_sub(FOOTER_FRAME_BYTES as u64);
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(DIGEST_CHUNK_BYTES);
            match segment.read(at, len) {
                Ok(bytes) => hasher.update(&bytes),
                Err(_) => return Ok(false),
            };
            at += len as u64;
        }
        if *hasher.finalize().as_bytes() != footer.digest {
            return Ok(false);
        }
        let path = &segment.path;
        let file = self.vfs.open(path, OpenMode::Read).map_err(|e| Error::io("open", path, e))?;
        file.sync_data().map_err(|e| Error::io("sync", path, e))?;
        let log_dir = self.root.join(LOG_DIR);
        self.vfs.sync_dir(&log_dir).map_err(|e| Error::io("sync", &log_dir, e))?;
        Ok(true)
    }

    /// What a writer does after it closed: folds small segments if there are many, removes what was replaced long ago.
    /// Somebody else at it, or an error: left to the next one.
    pub(super) fn tidy_up(&self) -> Result<()> {
        let view = self.reader.refresh()?;
        let is_small = |s: &Segment| s.state().valid_len < SMALL_SEGMENT_BYTES;
        let small = view.segments.iter().filter(|(s, _)| is_small(s)).count();
        let is_due = |view: &View| {
            let grown_old = view.has_left_closed(process::now_ms().saturating_sub(GRACE_MS));
            grown_old || !view.replaced_segments().is_empty()
        };
        if small <= SMALL_SEGMENTS_MAX && !is_due(&view) {
            return Ok(());
        }
        let _lock = match self.compact_lock() {
            Err(Error::Busy { .. }) => return Ok(()),
            other => other?,
        };
        let view = self.reader.refresh()?;
        let mut folded: Vec<_> = self.foldable(&view)?.into_iter().filter(|s| is_small(s)).collect();
        if folded.len() > SMALL_SEGMENTS_MAX {
            folded.sort_by_key(|s| s.header.created_ms);
            let mut bytes = 0;
            folded.retain(|s| {
                bytes += s.state().valid_len;
                bytes <= CLOSE_BYTES_MAX
            });
            let purged = self.purged_among(&folded)?;
            self.fold(plan(folded, &purged)?, &purged, &mut |_| {})?;
        }
        if is_due(&view) {
            self.remove_replaced(self.reader.refresh_whole()?.as_ref(), false, &mut |_, _| {})?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::event::{Field, Operation, Value};
    use crate::store::RunOptions;

    /// A store with an experiment of this name that claims id 1, as an imported one does, and a run of the same name.
    fn claims_id_1(path: &Path, name: &str) -> String {
        let store = Store::open(path).unwrap();
        let experiment = store.experiment(name).unwrap();
        let id = Operation {
            kind: EntityKind::EXPERIMENT,
            uid: experiment.uid(),
            field: Field::NUMERIC_ID,
            key: String::new(),
            value: Value::from("1"),
        };
        store.inner().change(&[Want::Experiments], true, |_| Ok(vec![id])).unwrap();
        experiment.start_run(RunOptions::new().name(name)).unwrap();
        let id = store.get_experiment_by_name(name).unwrap().id.clone();
        drop(experiment);
        store.close().unwrap();
        id
    }

    #[test]
    fn two_experiments_with_id_1_stay_apart_and_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        assert_eq!(claims_id_1(&a, "cats"), "1");
        assert_eq!(claims_id_1(&b, "dogs"), "1");
        for entry in std::fs::read_dir(a.join(LOG_DIR)).unwrap().map(|e| e.unwrap()) {
            std::fs::copy(entry.path(), b.join(LOG_DIR).join(entry.file_name())).unwrap();
        }
        let store = Store::open(&b).unwrap();
        for _ in 0..2 {
            // The older one keeps the id.
            assert_eq!(store.get_experiment("1").unwrap().name, "cats");
            let other = store.get_experiment_by_name("dogs").unwrap();
            assert_ne!(other.id, "1");
            let search = crate::RunSearch { experiment_ids: vec![other.id.clone()], ..Default::default() };
            let runs = store.search_runs(&search).unwrap().items;
            assert_eq!(runs.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["dogs"]);
            let conflicts = store.conflicts().unwrap();
            assert!(
                matches!(&conflicts[..], [Conflict::ExperimentId { id, .. }] if id == "1"),
                "{conflicts:?}"
            );
            store.compact(&mut |_| {}).unwrap();
        }
    }

    /// A closed segment into which a newer program put something that this one does not know.
    fn with_stranger(root: &Path, what: &str) -> PathBuf {
        use crate::format::declare::{Declaration, SeriesKey};
        use crate::log::{BatchColumn, SegmentWriter};
        let vfs: Arc<dyn crate::vfs::Vfs> = Arc::new(crate::vfs::OsVfs);
        let writer = WriterId::random().unwrap();
        let header = SegmentHeader {
            kind: SegmentKind::Log,
            features: u32::from(what == "feature") << 7,
            id: SegmentId::random().unwrap(),
            writer,
            number: 0,
            predecessor: SegmentId::default(),
            predecessor_len: 0,
            created_ms: 1,
            store: crate::id::StoreId::default(),
        };
        let mut segment = SegmentWriter::create(vfs, &root.join(LOG_DIR), header, Compression::Zstd).unwrap();
        let series = SeriesKey::of_run(Uid::from_bytes([7; 16]), "x");
        let declaration =
            Arc::new(Declaration { number: 0, series, origin: writer.into(), attributes: Vec::new() });
        for n in 0..50 {
            let axes = [crate::codec::axis::Axis { steps: &[n], timestamps_ms: &[n] }];
            let column = BatchColumn {
                declaration: &declaration,
                first_ordinal: n as u64,
                axis: 0,
                values: &[n as f64],
                extras: &[],
            };
            segment.append_batch(&axes, &[column], 0).unwrap();
            match what {
                "frame" if n == 20 => segment.append_stranger(200, b"of the future").unwrap(),
                // Kind 1, and a version that may be skipped.
                "record" if n == 20 => {
                    segment.append_event(&[1, 0, 0x02, 0x80, 3, 0, 0, 0, 1, 2, 3], &[]).unwrap();
                }
                _ => {}
            }
        }
        segment.finish().unwrap();
        segment.path().to_path_buf()
    }

    #[test]
    fn what_a_newer_program_wrote_is_neither_sealed_nor_folded() {
        for (what, stays) in [("feature", true), ("frame", true), ("record", true), ("nothing", false)] {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path()).unwrap();
            let path = with_stranger(directory.path(), what);
            let before = std::fs::read(&path).unwrap();
            let report = store.compact(&mut |_| {}).unwrap();
            assert_eq!(report.segments_before == 0, stays, "{what}: {report:?}");
            let vfs: Arc<dyn crate::vfs::Vfs> = Arc::new(crate::vfs::OsVfs);
            let sealed = crate::log::seal_segment(&vfs, &path, Compression::Zstd).unwrap();
            assert_eq!(sealed, !stays, "{what}");
            assert_eq!(std::fs::read(&path).unwrap() == before, stays, "{what}");
            let parts = store.inner().reader.refresh().unwrap().series(Uid::from_bytes([7; 16])).unwrap();
            assert_eq!(parts.iter().map(|p| p.end()).max(), Some(50), "{what}");
        }
    }

    /// Found by a crowd of writers: what a view knows of a segment may be older than the end of its writer.
    #[test]
    fn a_segment_whose_writer_ended_after_the_look_is_folded_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let writing = Store::open(directory.path()).unwrap();
        let run = writing.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
        run.log_columns(&[0, 1], &[0, 1], &[("x", &[0.0, 1.0])]).unwrap();
        let folding = Store::open(directory.path()).unwrap();
        let view = folding.inner().reader.refresh().unwrap();
        assert!(folding.inner().foldable(&view).unwrap().is_empty(), "its writer lives");
        run.log_columns(&[2, 3], &[2, 3], &[("x", &[2.0, 3.0])]).unwrap();
        drop(run);
        writing.close().unwrap();
        let foldable = folding.inner().foldable(&view).unwrap();
        assert!(!foldable.is_empty());
        for segment in foldable {
            assert_eq!(segment.state().valid_len, segment.file_len().unwrap());
        }
    }

    #[test]
    fn a_replaced_segment_whose_end_is_another_still_counts() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let path = with_stranger(directory.path(), "nothing");
        store.compact(&mut |_| {}).unwrap();
        let view = store.inner().reader.refresh().unwrap();
        let (folded, state) = &view.segments[0];
        let original = view.all_segments().find(|s| s.path == path).unwrap();
        assert_ne!(folded.path, path);
        assert_eq!(state.replaced[0].last_crc, original.state().last_crc);
        assert_ne!(state.replaced[0].last_crc, 0);
        let one = (state.replaced[0].valid_len, state.replaced[0].last_crc);
        assert!(original.state().is_within(one) && original.state().is_within((one.0, 0)));
        assert!(
            !original.state().is_within((one.0, !one.1)) && !original.state().is_within((one.0 - 1, one.1))
        );
        assert!(store.verify(&mut |_| {}).unwrap().findings.is_empty());
    }

    #[test]
    fn folding_at_close_leaves_out_points_of_purged_runs() {
        let directory = tempfile::tempdir().unwrap();
        let mut runs: Vec<String> = Vec::new();
        for n in 0..=SMALL_SEGMENTS_MAX {
            let store = Store::options().stall_timeout_ms(60_000).open(directory.path()).unwrap();
            if n == 1 {
                store.delete_run(&runs[0]).unwrap();
                store.gc(&crate::GcOptions { older_than_ms: 0, dry_run: false }).unwrap();
            }
            let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
            for step in 0..10 {
                run.log_metric("x", step, 1.0).unwrap();
            }
            runs.push(run.id().to_owned());
            drop(run);
            store.close().unwrap();
        }
        let store = Store::options().read_only(true).open(directory.path()).unwrap();
        let view = store.inner().reader.refresh().unwrap();
        assert!(view.segments.len() < SMALL_SEGMENTS_MAX, "{} segments", view.segments.len());
        let gone: HashSet<Uid> = [runs[0].parse().unwrap()].into();
        for (segment, _) in &view.segments {
            assert!(!holds_points_of(segment, &gone).unwrap());
        }
        assert_eq!(store.stats().unwrap().points, 10 * SMALL_SEGMENTS_MAX as u64);
    }
}
