//! Which segment files there are at one moment, and which of them need not be opened.
//!
//! Contract: a file stays closed only if an open, closed segment says that it replaces the file of that name up to at
//! least its length. Names carry a random writer id and files are only ever appended to or sealed, so what such a file
//! holds is there. That a copy made such a file longer is noticed within a second. After a compaction hundreds of
//! replaced files wait until they may go; neither an open nor a question must pay for them.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::format::segment::SegmentKind;
use crate::id::WriterId;
use crate::log::parse_segment_name;
use crate::log::reader::{LogReader, Problem, View};
use crate::log::segment_reader::Segment;
use crate::vfs::Metadata;

/// Up to so many new files are opened without asking what replaces them: asking costs a call a file, too.
const OPENED_AT_ONCE_MAX: usize = 64;

/// What happens to files that others replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacing {
    /// Where there are many they are left closed.
    LeaveClosed,
    Open,
}

/// How long the length of a file that was left closed is believed. Only a copy can make it longer.
const BELIEVED: Duration = Duration::from_secs(1);

type Name = (WriterId, u64);

/// A file that was not opened, because a closed segment replaces all it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftClosed {
    len: u64,
    modified_ms: u64,
}

impl LeftClosed {
    /// Whether nobody wrote to it since a moment.
    pub(super) fn is_older_than(&self, moment_ms: u64) -> bool {
        self.modified_ms <= moment_ms
    }
}

/// By name: the lengths that closed segments read of the file. A file of another length is opened: a longer one has
/// more, and a shorter one may be the sealed copy of a segment that was still growing when it was read.
#[derive(Default)]
struct Replaced(HashSet<(Name, u64)>);

impl Replaced {
    /// Takes in what a segment says of others.
    fn add(&mut self, name: Name, segment: &Segment) {
        let state = segment.state();
        if state.footer.is_none() {
            return;
        }
        let others = state.replaced.iter().filter(|one| (one.writer, one.number) != name);
        self.0.extend(others.map(|one| ((one.writer, one.number), one.valid_len)));
    }

    fn covers(&self, name: &Name, len: u64) -> bool {
        self.0.contains(&(*name, len))
    }
}

impl LogReader {
    /// The segments that are there now; what `known` has is not opened again.
    pub(super) fn list(&self, known: &View, replacing: Replacing) -> Result<View> {
        let mut view = View { skip_damage: self.skip_damage, ..View::default() };
        let entries = match self.vfs.list(&self.log_dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(view),
            Err(e) => return Err(Error::io("list", &self.log_dir, e)),
        };
        let mut unknown = Vec::new();
        for entry in entries {
            let Some(name) = parse_segment_name(&entry.name) else { continue };
            let path = self.log_dir.join(&entry.name);
            match known.all.get(&name) {
                Some(segment) => self.take(&mut view, name, path, Some(segment))?,
                None => unknown.push((name, path)),
            }
        }
        let many = unknown.len() > OPENED_AT_ONCE_MAX || !known.left_closed.is_empty();
        if replacing == Replacing::Open || !many {
            for (name, path) in unknown {
                self.take(&mut view, name, path, None)?;
            }
        } else {
            let mut replaced = Replaced::default();
            view.all.iter().for_each(|(name, segment)| replaced.add(*name, segment));
            let mut last = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
            let is_believed = last.is_some_and(|moment| moment.elapsed() < BELIEVED);
            if !is_believed {
                *last = Some(Instant::now());
            }
            drop(last);
            let mut measured = Vec::with_capacity(unknown.len());
            for (name, path) in unknown {
                if let Some(known) = known.left_closed.get(&name).filter(|_| is_believed) {
                    measured.push((*known, name, path));
                    continue;
                }
                match self.vfs.metadata(&path) {
                    Ok(Metadata { len, modified_ms, .. }) => {
                        measured.push((LeftClosed { len, modified_ms }, name, path))
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => view.problems.push(vanished(path)),
                    Err(e) => return Err(Error::io("stat", &path, e)),
                }
            }
            // What replaces many is longer than each of them, so it comes first.
            measured.sort_by_key(|(file, name, _)| (std::cmp::Reverse(file.len), *name));
            for (file, name, path) in measured {
                if replaced.covers(&name, file.len) {
                    view.left_closed.insert(name, file);
                } else {
                    self.take(&mut view, name, path, None)?;
                    view.all.get(&name).into_iter().for_each(|segment| replaced.add(name, segment));
                }
            }
        }
        view.settle(&self.log_dir);
        Ok(view)
    }

    /// Adds one file to a view.
    fn take(&self, view: &mut View, name: Name, path: PathBuf, known: Option<&Arc<Segment>>) -> Result<()> {
        match self.segment(known, &path) {
            Ok(segment) => {
                view.all.insert(name, segment);
            }
            Err(error @ (Error::NewerFormat { .. } | Error::DiskFull { .. })) => return Err(error),
            // Gone since the listing (sealed or removed): the next listing knows.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                view.problems.push(vanished(path));
            }
            // A header that is not written yet: a segment of a writer that has just begun, or a partial copy.
            Err(Error::TornTail { offset: 0, .. }) => {}
            // The system could not read it now; what it holds must not silently be missing from an answer.
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(error) => view.problems.push(Problem { path, text: error.to_string() }),
        }
        Ok(())
    }

    fn segment(&self, known: Option<&Arc<Segment>>, path: &Path) -> Result<Arc<Segment>> {
        if let Some(segment) = known {
            // Only a log segment is ever replaced under its own name, by its sealed copy.
            let sealed = segment.header.kind == SegmentKind::Sealed;
            let same = sealed || {
                let metadata = self.vfs.metadata(path).map_err(|e| Error::io("stat", path, e))?;
                metadata.identity == segment.identity
            };
            if same {
                segment.refresh()?;
                return Ok(Arc::clone(segment));
            }
        }
        Segment::open(self.vfs.as_ref(), path).map(Arc::new)
    }
}

fn vanished(path: PathBuf) -> Problem {
    Problem { path, text: "vanished while listing".into() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::codec::Compression;
    use crate::log::sample_segment::{SAMPLE_RUN, sample_header, write_sample};
    use crate::log::{LOG_DIR, compact_segments};
    use crate::vfs::{MemoryVfs, OpenMode, Vfs};

    const FILES: u8 = 100;

    /// Found by a crowd of writers: a segment was folded while it grew, then sealed to fewer bytes that held more.
    #[test]
    fn a_file_that_is_shorter_than_what_was_read_of_its_name_is_opened() {
        let name = (WriterId::from_bytes([1; 16]), 0);
        let replaced = Replaced(HashSet::from([(name, 100), (name, 80)]));
        let lengths = [79, 80, 99, 100, 101].map(|len| replaced.covers(&name, len));
        assert_eq!(lengths, [false, true, false, true, false]);
    }

    /// By writer: up to which ordinal its points are there.
    fn points(view: &View) -> HashMap<WriterId, u64> {
        let mut ends = HashMap::new();
        for part in view.series(SAMPLE_RUN).unwrap() {
            let origin = WriterId::from_bytes(*part.declaration.origin.as_bytes());
            let end = ends.entry(origin).or_insert(0);
            *end = part.end().max(*end);
        }
        ends
    }

    #[test]
    fn files_that_others_replace_stay_closed_until_they_hold_more() {
        let vfs: Arc<dyn Vfs> = Arc::new(MemoryVfs::new());
        let root = Path::new("store");
        let log_dir = root.join(LOG_DIR);
        vfs.create_dir_all(&log_dir).unwrap();
        // As a copy that was made while they were written: each without its second half.
        let mut whole = HashMap::new();
        for n in 0..FILES {
            let writer = WriterId::from_bytes([n + 1; 16]);
            let header = sample_header(writer, 0, SegmentKind::Log);
            let half = write_sample(&vfs, &log_dir, header, 0);
            let path = crate::log::segment_path(&log_dir, writer, 0);
            let file = vfs.open(&path, OpenMode::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_at(&mut bytes, 0).unwrap();
            vfs.remove_file(&path).unwrap();
            let copy = vfs.open(&path, OpenMode::CreateNew).unwrap();
            copy.write_all_at(&bytes[..usize::try_from(half).unwrap()], 0).unwrap();
            whole.insert(writer, bytes);
        }
        let new_reader = || LogReader::new(Arc::clone(&vfs), root);
        let sources: Vec<Arc<Segment>> = new_reader().refresh().unwrap().all_segments().cloned().collect();
        assert_eq!(sources.len(), usize::from(FILES), "nothing says that one of them is replaced");
        let folder = WriterId::from_bytes([0xee; 16]);
        let folded = sample_header(folder, 0, SegmentKind::Sealed);
        compact_segments(
            &vfs,
            &log_dir,
            &sources,
            folded,
            &HashSet::new(),
            Compression::Zstd,
            &mut |_, _| {},
        )
        .unwrap();

        let reader = new_reader();
        let view = reader.refresh().unwrap();
        assert_eq!((view.all.len(), view.left_closed.len()), (1, usize::from(FILES)));
        assert!(view.problems.is_empty(), "{:?}", view.problems);
        assert_eq!(points(&view), whole.keys().map(|writer| (*writer, 5)).collect());
        assert!(Arc::ptr_eq(&view, &reader.refresh().unwrap()), "nothing is new");
        assert_eq!(new_reader().refresh_whole().unwrap().replaced_segments().len(), usize::from(FILES));

        // The rest of one of them arrives.
        let (writer, bytes) = whole.iter().next().unwrap();
        let path = crate::log::segment_path(&log_dir, *writer, 0);
        vfs.open(&path, OpenMode::ReadWrite).unwrap().write_all_at(bytes, 0).unwrap();
        std::thread::sleep(BELIEVED);
        for view in [reader.refresh().unwrap(), new_reader().refresh().unwrap()] {
            assert_eq!((view.all.len(), view.left_closed.len()), (2, usize::from(FILES) - 1));
            assert_eq!(points(&view).get(writer), Some(&10));
            assert_eq!(points(&view).values().sum::<u64>(), 5 * u64::from(FILES) + 5);
        }

        // Without what replaces them all of them count again.
        vfs.remove_file(&crate::log::segment_path(&log_dir, folder, 0)).unwrap();
        for view in [reader.refresh().unwrap(), new_reader().refresh().unwrap()] {
            assert_eq!((view.all.len(), view.left_closed.len()), (usize::from(FILES), 0));
            assert_eq!(points(&view).values().sum::<u64>(), 5 * u64::from(FILES) + 5);
        }
    }
}
