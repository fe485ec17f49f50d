//! Which live records segments hold, and whether that is all there was.
//!
//! Contract: a word that records are in segments counts only with the points behind it. Frames of the writer itself, or
//! events of whoever recovered or folded its points, say up to where its live records are covered; where a segment of
//! those who say so is missing, not whole, or (of another host) damaged, live points do not join what is seen, and an
//! answer tells of a hole. Otherwise they would take the ordinals of points that are merely not seen yet.

use crate::error::Result;
use crate::format::event::{EntityKind, Field, Value};
use crate::format::live::LiveHeader;
use crate::id::{Uid, WriterId};
use crate::log::live_reader::LiveWindow;
use crate::log::reader::{View, read_event};
use crate::vfs::process;

/// What segments say of the live records of a writer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Those below this are in segments.
    to: u64,
    /// Whether all segments of those who say so are seen whole: what they took over stands behind the word.
    is_whole: bool,
    /// Whether nothing in them is damaged.
    is_sound: bool,
}

impl View {
    /// What segments say of a writer's live records: its own, or those of whoever recovered or folded them.
    fn told(&self, writer: WriterId) -> Result<Told> {
        let mut known = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(told) = known.get(&writer) {
            return Ok(*told);
        }
        let own = self.live_to.get(&writer).copied().unwrap_or(0);
        let uid = Uid::from_bytes(*writer.as_bytes());
        // By all, by those of whom nothing is missing, by those of whom nothing is damaged.
        let (mut all, mut whole, mut sound) = (own, own, own);
        for (segment, _, entry) in self.entries_where(uid, |_, _| true, |directory| directory.has_writers)? {
            for offset in entry.events {
                let operations = read_event(&segment, offset)?.into_iter().flat_map(|event| event.operations);
                let told_here = operations.filter_map(|o| match o.value {
                    Value::Integer(to)
                        if o.kind == EntityKind::WRITER && o.uid == uid && o.field == Field::LIVE_TO =>
                    {
                        u64::try_from(to).ok()
                    }
                    _ => None,
                });
                let told_here = told_here.max().unwrap_or(0);
                let teller = segment.header.writer;
                all = told_here.max(all);
                if !self.cut.contains(&teller) {
                    whole = told_here.max(whole);
                }
                if !self.is_damaged(teller) {
                    sound = told_here.max(sound);
                }
            }
        }
        let told = Told { to: all, is_whole: whole == all, is_sound: sound == all };
        known.insert(writer, told);
        Ok(told)
    }

    /// Whether a segment of a writer is not as it was written.
    fn is_damaged(&self, writer: WriterId) -> bool {
        let mut segments = self.all.range((writer, 0)..=(writer, u64::MAX));
        segments.any(|(_, segment)| !segment.state().damage.is_empty())
    }

    /// From which live record on a window counts, those before it being in segments; and whether it joins what they
    /// hold. It does not if frames were lost in a power cut, or have not been copied yet.
    pub(crate) fn covered(&self, window: &LiveWindow) -> Result<(u64, bool)> {
        let writer = window.header.writer;
        let told = self.told(writer)?;
        // After a power cut a later frame may be there without an earlier one, and says nothing of that. Where none of
        // the later ones covers more, live records say themselves what is missing: those that were handed over are
        // still there, and a bulk append has left its mark. Where one does, no record behind the hole was ever synced:
        // frames that cover synced ones are synced before anything follows them.
        let holes =
            || self.sure_live_to.get(&writer).is_some_and(|sure| self.live_to.get(&writer) > Some(sure));
        // What another host wrote may be seen late, in any order: there every hole counts.
        let damaged = || self.is_damaged(writer) || !told.is_sound;
        let host = &window.header.host;
        let is_elsewhere = !host.is_empty() && host != LiveHeader::host_as_stored(&process::host_name());
        let may_have_holes = is_elsewhere || window.header.boot != process::boot_id();
        let lost = window.released > told.to
            || self.is_cut(writer)?
            || (may_have_holes && holes())
            || (is_elsewhere && damaged());
        Ok((told.to.max(window.released), !lost))
    }

    /// Whether something is missing of a writer's segments, or of those of whoever took over its live records: it was
    /// not copied yet, or this host does not see it as it is yet. What it holds is not known, so neither are the
    /// ordinals of what is live.
    pub(crate) fn is_cut(&self, writer: WriterId) -> Result<bool> {
        Ok(self.cut.contains(&writer) || !self.told(writer)?.is_whole)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::codec::Compression;
    use crate::format::segment::SegmentKind;
    use crate::id::StoreId;
    use crate::log::reader::LogReader;
    use crate::log::sample_segment::{SAMPLE_POINTS, sample_header, write_sample};
    use crate::log::segment_reader::Segment;
    use crate::log::{LOG_DIR, compact_segments, segment_path};
    use crate::vfs::{MemoryVfs, OpenMode, Vfs};

    const WRITER: WriterId = WriterId::from_bytes([1; 16]);
    const FOLDER: WriterId = WriterId::from_bytes([2; 16]);

    /// A live file of which nothing was released, as a host sees it that reads an old page.
    fn window() -> LiveWindow {
        LiveWindow {
            path: Path::new("x.live").to_path_buf(),
            header: LiveHeader {
                writer: WRITER,
                store: StoreId::default(),
                boot: process::boot_id(),
                pid: 1,
                created_ms: 1,
                host: process::host_name(),
            },
            released: 0,
            declarations: HashMap::new(),
            records: Vec::new(),
            damage: Vec::new(),
        }
    }

    /// Each segment of the writer folded by itself, as numbers 0, 1, ... of the folder; the originals are removed.
    fn folded_one_by_one(vfs: &Arc<dyn Vfs>, root: &Path, segments: u64) {
        let log_dir = root.join(LOG_DIR);
        vfs.create_dir_all(&log_dir).unwrap();
        for number in 0..segments {
            let header = sample_header(WRITER, number, SegmentKind::Log);
            write_sample(vfs, &log_dir, header, number * SAMPLE_POINTS);
        }
        for number in 0..segments {
            let path = segment_path(&log_dir, WRITER, number);
            let source = Arc::new(Segment::open(vfs.as_ref(), &path).unwrap());
            let header = sample_header(FOLDER, number, SegmentKind::Sealed);
            let nobody = HashSet::new();
            compact_segments(vfs, &log_dir, &[source], header, &nobody, Compression::Zstd, &mut |_, _| {})
                .unwrap();
            vfs.remove_file(&path).unwrap();
        }
    }

    fn look(vfs: &Arc<dyn Vfs>, root: &Path) -> ((u64, bool), bool) {
        let view = LogReader::new(Arc::clone(vfs), root).refresh().unwrap();
        (view.covered(&window()).unwrap(), view.is_cut(WRITER).unwrap())
    }

    /// Found by hosts that see sizes late: it says first what it covers, and the points follow.
    #[test]
    fn a_folded_segment_that_is_not_seen_whole_covers_nothing_for_sure() {
        let vfs: Arc<dyn Vfs> = Arc::new(MemoryVfs::new());
        let root = Path::new("store");
        folded_one_by_one(&vfs, root, 1);
        assert_eq!(look(&vfs, root), ((SAMPLE_POINTS, true), false));
        let path = segment_path(&root.join(LOG_DIR), FOLDER, 0);
        let file = vfs.open(&path, OpenMode::ReadWrite).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        let mut without_points = 0;
        for len in 0..bytes.len() {
            vfs.remove_file(&path).unwrap();
            vfs.open(&path, OpenMode::CreateNew).unwrap().write_all_at(&bytes[..len], 0).unwrap();
            let ((covered, joins), is_cut) = look(&vfs, root);
            assert!(covered == 0 || !joins && is_cut, "{len} of {} bytes", bytes.len());
            without_points += u64::from(covered > 0);
        }
        assert!(without_points > 0, "nothing was told before the points");
    }

    #[test]
    fn what_lies_before_a_folded_segment_is_waited_for() {
        for missing in 0..3 {
            let vfs: Arc<dyn Vfs> = Arc::new(MemoryVfs::new());
            let root = Path::new("store");
            folded_one_by_one(&vfs, root, 3);
            assert_eq!(look(&vfs, root), ((3 * SAMPLE_POINTS, true), false));
            vfs.remove_file(&segment_path(&root.join(LOG_DIR), FOLDER, missing)).unwrap();
            let ((covered, joins), is_cut) = look(&vfs, root);
            match missing {
                // Nothing says that there is a third one.
                2 => assert_eq!((covered, joins, is_cut), (2 * SAMPLE_POINTS, true, false)),
                _ => assert_eq!((covered, joins, is_cut), (3 * SAMPLE_POINTS, false, true), "{missing}"),
            }
        }
    }

    /// The folder of the first two is another one than that of the third.
    #[test]
    fn numbers_below_one_that_is_replaced_are_waited_for() {
        let vfs: Arc<dyn Vfs> = Arc::new(MemoryVfs::new());
        let root = Path::new("store");
        let log_dir = root.join(LOG_DIR);
        vfs.create_dir_all(&log_dir).unwrap();
        write_sample(&vfs, &log_dir, sample_header(WRITER, 1, SegmentKind::Log), SAMPLE_POINTS);
        let path = segment_path(&log_dir, WRITER, 1);
        let source = Arc::new(Segment::open(vfs.as_ref(), &path).unwrap());
        let header = sample_header(FOLDER, 0, SegmentKind::Sealed);
        let nobody = HashSet::new();
        compact_segments(&vfs, &log_dir, &[source], header, &nobody, Compression::Zstd, &mut |_, _| {})
            .unwrap();
        vfs.remove_file(&path).unwrap();
        assert_eq!(look(&vfs, root), ((2 * SAMPLE_POINTS, false), true));
        write_sample(&vfs, &log_dir, sample_header(WRITER, 0, SegmentKind::Log), 0);
        assert_eq!(look(&vfs, root), ((2 * SAMPLE_POINTS, true), false));
    }
}
