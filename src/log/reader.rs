//! All segments of a store at one moment.
//!
//! Contract: a [`View`] is immutable; [`LogReader::refresh`] makes the next one and shares what did not change. A
//! listing is no snapshot, so one in which a writer's number is neither present nor replaced is taken again; what is
//! still missing after three times is reported, never hidden.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::format::blob::BLOB_ENTITY;
use crate::format::declare::Declaration;
use crate::format::directory::{EntityEntry, Extent, FrameEntry};
use crate::format::event::{EntityKind, Event};
use crate::format::event_record::{Record, decode_event, entities_of};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameKind};
use crate::format::segment::{Replaced, SegmentKind};
use crate::id::{SegmentId, Uid, WriterId};
use crate::log::LOG_DIR;
use crate::log::coverage::Told;
use crate::log::listing::{LeftClosed, Replacing};
use crate::log::segment_reader::{LoadedDirectory, Segment, SegmentState};
use crate::vfs::Vfs;

/// How often a listing with holes is repeated.
const LISTINGS_MAX: usize = 3;

/// Something wrong with a file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub path: PathBuf,
    pub text: String,
}

/// Reads the log of one store.
#[derive(Debug)]
pub(crate) struct LogReader {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) log_dir: PathBuf,
    view: RwLock<Arc<View>>,
    refreshing: Mutex<()>,
    /// When the files that are left closed were measured last.
    pub(super) measured: Mutex<Option<Instant>>,
    pub(super) skip_damage: bool,
}

/// The segments at one moment, each with what was known of it then.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// In the order of (writer, number), without those that others replace.
    pub segments: Vec<(Arc<Segment>, Arc<SegmentState>)>,
    /// All that were opened, replaced ones included.
    pub(super) all: BTreeMap<(WriterId, u64), Arc<Segment>>,
    /// Files that were not opened, because closed segments replace all they hold.
    pub(super) left_closed: BTreeMap<(WriterId, u64), LeftClosed>,
    /// By writer: its live records below this are in the segments as they were then. (Segments themselves go on.)
    pub(super) live_to: HashMap<WriterId, u64>,
    /// The same as far as the frames before the first damage in one of its segments say it.
    pub(super) sure_live_to: HashMap<WriterId, u64>,
    /// Writers one of whose segments is missing, or shorter than it or the next one says.
    pub(super) cut: HashSet<WriterId>,
    /// By writer: what was found out already. The view does not change, so neither does this.
    pub(super) told: Arc<Mutex<HashMap<WriterId, Told>>>,
    /// Files that could not be opened, and numbers that are missing.
    pub problems: Vec<Problem>,
    /// Whether damaged events are passed over.
    pub(crate) skip_damage: bool,
}

/// What one directory or tail knows of an entity, with the frames its postings point to.
pub(crate) type EntityPlace = (Arc<Segment>, Vec<FrameEntry>, EntityEntry);

/// Some columns of one series and origin, in one segment.
#[derive(Clone, Debug)]
pub(crate) struct SeriesPart {
    pub segment: Arc<Segment>,
    pub declaration: Declaration,
    /// First ordinal, count and summary (which may be empty) of all its columns.
    pub extent: Extent,
    /// Frames that hold its columns, with the extent of the column where the directory says it.
    pub frames: Vec<(FrameEntry, Option<Extent>)>,
}

impl SeriesPart {
    /// The ordinal after the last.
    pub(crate) fn end(&self) -> u64 {
        self.extent.first_ordinal + self.extent.points
    }
}

impl LogReader {
    /// A reader of the store at `root`; nothing is read yet.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, root: &Path) -> Self {
        Self {
            vfs,
            log_dir: root.join(LOG_DIR),
            view: RwLock::default(),
            refreshing: Mutex::new(()),
            measured: Mutex::new(None),
            skip_damage: false,
        }
    }

    /// Whether damaged events are passed over instead of being errors.
    pub(crate) fn with_skip_damage(mut self, skip_damage: bool) -> Self {
        self.skip_damage = skip_damage;
        self
    }

    /// What was seen last.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Lists and reads what is new. Of many files those that others replace are not opened.
    pub(crate) fn refresh(&self) -> Result<Arc<View>> {
        self.refresh_with(Replacing::LeaveClosed)
    }

    /// The same with every file opened: for what looks after the files themselves.
    pub(crate) fn refresh_whole(&self) -> Result<Arc<View>> {
        self.refresh_with(Replacing::Open)
    }

    fn refresh_with(&self, replacing: Replacing) -> Result<Arc<View>> {
        let _one_at_a_time = self.refreshing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = self.view();
        let mut next = View::default();
        for attempt in 1..=LISTINGS_MAX {
            next = self.list(&known, replacing)?;
            if next.problems.is_empty() || attempt == LISTINGS_MAX {
                break;
            }
        }
        if next.is_same(&known) {
            return Ok(known);
        }
        let next = Arc::new(next);
        *self.view.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::clone(&next);
        Ok(next)
    }
}

impl View {
    fn is_same(&self, other: &Self) -> bool {
        let same = |a: &(Arc<Segment>, Arc<SegmentState>), b: &(Arc<Segment>, Arc<SegmentState>)| {
            Arc::ptr_eq(&a.0, &b.0) && Arc::ptr_eq(&a.1, &b.1)
        };
        self.segments.len() == other.segments.len()
            && self.all.len() == other.all.len()
            && self.all.values().zip(other.all.values()).all(|(a, b)| Arc::ptr_eq(a, b))
            && self.left_closed.keys().eq(other.left_closed.keys())
            && self.segments.iter().zip(&other.segments).all(|(a, b)| same(a, b))
            && self.problems == other.problems
    }

    /// Events that `known` did not have, each once per segment.
    pub(crate) fn new_events(&self, known: &View, visit: &mut dyn FnMut(Event)) -> Result<()> {
        let before: HashMap<SegmentId, &Arc<SegmentState>> =
            known.segments.iter().map(|(s, state)| (s.header.id, state)).collect();
        for (segment, state) in &self.segments {
            let mut from = 0;
            match before.get(&segment.header.id) {
                Some(old) if Arc::ptr_eq(old, state) => continue,
                Some(old) => from = old.valid_len,
                // A sealed or compacted copy of what was known in full has nothing new.
                None if is_copy_of_known(state, &before) => continue,
                None => {}
            }
            for offset in event_offsets(segment, state, from)? {
                read_intact_event(segment, offset, self.skip_damage)?.into_iter().for_each(&mut *visit);
            }
        }
        Ok(())
    }

    /// Leaves out what others replace, and looks for missing numbers.
    pub(super) fn settle(&mut self, log_dir: &Path) {
        let mut replaced: HashMap<SegmentId, (u64, u32)> = HashMap::new();
        let mut replaced_numbers: HashSet<(WriterId, u64)> = HashSet::new();
        let states: Vec<_> = self.all.iter().map(|(name, s)| (*name, Arc::clone(s), s.state())).collect();
        // Only a closed segment replaces others: a copy that is still arriving, or was cut, holds less than it names.
        for (name, segment, state) in states.iter().filter(|(_, _, state)| state.footer.is_some()) {
            for one in state.replaced.iter().filter(|one| one.id != segment.header.id) {
                let longest = replaced.entry(one.id).or_default();
                *longest = (*longest).max((one.valid_len, one.last_crc));
                if (one.writer, one.number) != *name {
                    replaced_numbers.insert((one.writer, one.number));
                }
            }
        }
        // How much of each is there: in its own file, or in one that replaces it.
        let mut lengths: HashMap<SegmentId, u64> =
            replaced.iter().map(|(id, (valid_len, _))| (*id, *valid_len)).collect();
        for (_, segment, state) in &states {
            let len = lengths.entry(segment.header.id).or_default();
            *len = state.valid_len.max(*len);
        }
        let mut next_number: HashMap<WriterId, u64> = HashMap::new();
        for ((writer, number), segment, state) in states {
            let before = lengths.get(&segment.header.predecessor).copied().unwrap_or(0);
            // A repair that set the predecessor aside says that nothing of it is left to wait for.
            if before > 0 && before < segment.header.predecessor_len {
                self.cut.insert(writer);
            }
            // One that was rewritten is written as a whole before it gets its name, and says first what it takes over.
            if segment.header.kind == SegmentKind::Sealed && state.footer.is_none() {
                self.cut.insert(writer);
            }
            // What it holds says whose records it covers, whatever name somebody gave it.
            let live_to = self.live_to.entry(segment.header.writer).or_default();
            if let Some(sure) = state.sure_live_to {
                self.sure_live_to.entry(segment.header.writer).or_insert(sure.max(*live_to));
            }
            *live_to = state.live_to.max(*live_to);
            let expected = next_number.entry(writer).or_default();
            for missing in *expected..number {
                if !replaced_numbers.contains(&(writer, missing)) {
                    self.cut.insert(writer);
                    self.problems.push(Problem {
                        path: super::segment_path(log_dir, writer, missing),
                        text: format!("is missing, but segment {number} of the same writer is there"),
                    });
                }
            }
            *expected = number + 1;
            // A longer copy than the one that was read still counts: identities tell its points apart.
            let covered = replaced.get(&segment.header.id).is_some_and(|&one| state.is_within(one));
            if !covered {
                self.segments.push((segment, state));
            }
        }
        // Numbers below one that others replace are there, too, or replaced.
        let mut numbers: HashMap<WriterId, (u64, u64)> = HashMap::new();
        let known = self.all.keys().filter(|name| !replaced_numbers.contains(*name));
        for (writer, number) in known.chain(&replaced_numbers) {
            let (count, end) = numbers.entry(*writer).or_default();
            *count += 1;
            *end = number.saturating_add(1).max(*end);
        }
        self.cut
            .extend(numbers.into_iter().filter(|(_, (count, end))| count < end).map(|(writer, _)| writer));
    }

    /// Places that answers lack so far: what was passed over, could not be taken in, or is not there.
    pub(crate) fn places_passed_over(&self) -> usize {
        let of_segment = |(segment, state): &(Arc<Segment>, Arc<SegmentState>)| {
            let mut places = segment.passed_over();
            places.extend(state.damage.iter().map(|damage| damage.offset));
            places.len()
        };
        self.problems.len() + self.segments.iter().map(of_segment).sum::<usize>()
    }

    /// All segments that were opened, those that others replace included.
    pub(crate) fn all_segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.all.values()
    }

    /// The same view with closed segments only: what is in them is durable and does not change.
    pub(crate) fn closed(&self) -> Self {
        let mut view = Self { told: Arc::default(), ..self.clone() };
        view.segments.retain(|(_, state)| state.footer.is_some());
        view
    }

    /// Whether a file that others replace and that was not opened was last written to before a moment.
    pub(crate) fn has_left_closed(&self, before_ms: u64) -> bool {
        self.left_closed.values().any(|file| file.is_older_than(before_ms))
    }

    /// Segments that others replace, as far as they were opened.
    pub(crate) fn replaced_segments(&self) -> Vec<Arc<Segment>> {
        let used: HashSet<SegmentId> = self.segments.iter().map(|(s, _)| s.header.id).collect();
        self.all.values().filter(|s| !used.contains(&s.header.id)).cloned().collect()
    }

    /// Every entity of which some segment knows something, with its kind.
    pub(crate) fn entities(&self) -> HashMap<Uid, EntityKind> {
        let mut all = HashMap::new();
        for (_, state) in &self.segments {
            let rows = state.directories.iter().flat_map(|d| d.head.rows.iter().map(|r| (r.uid, r.kind)));
            let tail = state.tail.entities.iter().map(|(uid, (kind, _))| (*uid, *kind));
            for (uid, kind) in rows.chain(tail) {
                // "Run" is also what a directory says of an owner it knows only by its points.
                let known = all.entry(uid).or_insert(kind);
                if *known == EntityKind::RUN {
                    *known = kind;
                }
            }
        }
        all
    }

    /// Whether there are at least two entities of a kind that directories name.
    pub(crate) fn has_several(&self, kind: EntityKind) -> bool {
        let mut first = None;
        let rows = |state: &SegmentState| -> Vec<Uid> {
            let rows = state.directories.iter().flat_map(|d| d.head.rows.iter().map(|r| (r.uid, r.kind)));
            let tail = state.tail.entities.iter().map(|(uid, (kind, _))| (*uid, *kind));
            rows.chain(tail).filter(|(_, one)| *one == kind).map(|(uid, _)| uid).collect()
        };
        self.segments.iter().flat_map(|(_, state)| rows(state)).any(|uid| *first.get_or_insert(uid) != uid)
    }

    /// What each segment knows of an entity.
    pub(crate) fn entries(&self, uid: Uid) -> Result<Vec<EntityPlace>> {
        self.entries_where(uid, |_, _| true, |_| true)
    }

    /// The same of some segments and directories only.
    pub(super) fn entries_where(
        &self,
        uid: Uid,
        in_segment: impl Fn(&Segment, &Arc<SegmentState>) -> bool,
        in_directory: impl Fn(&LoadedDirectory) -> bool,
    ) -> Result<Vec<EntityPlace>> {
        let mut found = Vec::new();
        for (segment, state) in self.segments.iter().filter(|(segment, state)| in_segment(segment, state)) {
            for directory in state.directories.iter().filter(|directory| in_directory(directory)) {
                if let Some(entry) = segment.entry(directory, uid)? {
                    found.push((Arc::clone(segment), directory.head.frames.clone(), entry));
                }
            }
            if let Some((_, entry)) = state.tail.entities.get(&uid) {
                found.push((Arc::clone(segment), state.tail.frames.clone(), entry.clone()));
            }
        }
        Ok(found)
    }

    /// All events that touch an entity, in no particular order.
    pub(crate) fn events(&self, uid: Uid) -> Result<Vec<Event>> {
        self.events_where(uid, |_, _| true)
    }

    /// The same of some segments only.
    pub(crate) fn events_where(
        &self,
        uid: Uid,
        in_segment: impl Fn(&Segment, &Arc<SegmentState>) -> bool,
    ) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for (segment, _, entry) in self.entries_where(uid, in_segment, |_| true)? {
            for offset in entry.events {
                events.extend(read_intact_event(&segment, offset, self.skip_damage)?);
            }
        }
        Ok(events)
    }

    /// All events of all segments, each once, in file order.
    pub(crate) fn for_each_event(&self, visit: &mut dyn FnMut(Event)) -> Result<()> {
        for (segment, state) in &self.segments {
            for offset in event_offsets(segment, state, 0)? {
                read_intact_event(segment, offset, self.skip_damage)?.into_iter().for_each(&mut *visit);
            }
        }
        Ok(())
    }

    /// The series of an owner: every part in every segment.
    pub(crate) fn series(&self, run: Uid) -> Result<Vec<SeriesPart>> {
        Ok(series_of(self.entries(run)?))
    }

    /// The same of segments that are new, or have grown, since `known`.
    pub(crate) fn series_since(&self, run: Uid, known: &Self) -> Result<Vec<SeriesPart>> {
        let before: HashMap<SegmentId, &Arc<SegmentState>> =
            known.segments.iter().map(|(s, state)| (s.header.id, state)).collect();
        let is_new = |segment: &Segment, state: &Arc<SegmentState>| {
            before.get(&segment.header.id).is_none_or(|old| !Arc::ptr_eq(old, state))
        };
        Ok(series_of(self.entries_where(run, is_new, |_| true)?))
    }

    /// The closed segments that hold all of a replaced one.
    pub(crate) fn replacements(&self, replaced: &Segment) -> Vec<Arc<Segment>> {
        let known = replaced.state();
        let holds = |state: &SegmentState| {
            let of_it = |one: &&Replaced| one.id == replaced.header.id;
            let within = |one: &Replaced| known.is_within((one.valid_len, one.last_crc));
            state.footer.is_some() && state.replaced.iter().filter(of_it).any(within)
        };
        let others = self.all.values().filter(|s| s.header.id != replaced.header.id);
        others.filter(|s| holds(&s.state())).cloned().collect()
    }
}

/// The parts that entries name.
fn series_of(entries: Vec<EntityPlace>) -> Vec<SeriesPart> {
    let mut parts = Vec::new();
    for (segment, frames, entry) in entries {
        for series in entry.series {
            let columns = series
                .postings
                .into_iter()
                .filter_map(|p| frames.get(p.frame as usize).map(|frame| (*frame, p.extent)))
                .collect();
            parts.push(SeriesPart {
                segment: Arc::clone(&segment),
                declaration: series.declaration,
                extent: series.extent,
                frames: columns,
            });
        }
    }
    parts
}

fn is_copy_of_known(state: &SegmentState, known: &HashMap<SegmentId, &Arc<SegmentState>>) -> bool {
    let read = |one: &crate::format::segment::Replaced| {
        known.get(&one.id).is_some_and(|old| old.valid_len >= one.valid_len)
    };
    !state.replaced.is_empty() && state.replaced.iter().all(read)
}

/// Offsets of a segment's event frames from `from` on, in order.
pub(crate) fn event_offsets(segment: &Segment, state: &SegmentState, from: u64) -> Result<Vec<u64>> {
    let mut offsets = Vec::new();
    let directories = state.directories.iter().zip(1..);
    for (directory, next) in directories {
        // A directory covers up to the next one's start; the last one up to the tail.
        let end = state.directories.get(next).map_or(state.tail.covers_from, |d| d.head.covers_from);
        if end <= from {
            continue;
        }
        for row in directory.head.rows.iter().filter(|row| row.kind != BLOB_ENTITY) {
            offsets.extend(segment.row_entry(directory, row)?.events);
        }
    }
    let tail = state.tail.entities.values().filter(|(kind, _)| *kind != BLOB_ENTITY);
    offsets.extend(tail.flat_map(|(_, entry)| entry.events.iter().copied()));
    offsets.retain(|&offset| offset >= from);
    offsets.sort_unstable();
    offsets.dedup();
    Ok(offsets)
}

/// Reads one event; `None` if a newer program wrote it as ignorable.
pub(crate) fn read_event(segment: &Segment, offset: u64) -> Result<Option<Event>> {
    let payload = segment.read_payload(offset, FrameKind::Event)?;
    let record =
        decode_event(&payload).map_err(|m| m.at(&segment.path, offset + FRAME_HEADER_BYTES as u64))?;
    event_of(&segment.path, record)
}

/// The event of a record; `None` if a newer program wrote it as ignorable.
fn event_of(path: &Path, record: Record) -> Result<Option<Event>> {
    match record {
        Record::Event(event) => Ok(Some(event)),
        Record::Ignorable => Ok(None),
        Record::Newer { kind, version } => Err(Error::NewerFormat {
            path: path.to_path_buf(),
            what: "a metadata record",
            found: format!("kind {kind} version {version}"),
            supported: "kind 1 version 1".into(),
        }),
    }
}

/// The entities that a record touches, each once.
pub(crate) fn touched(path: &Path, record: Record) -> Result<Vec<(EntityKind, Uid)>> {
    Ok(event_of(path, record)?.map(|event| entities_of(&event.operations)).unwrap_or_default())
}

/// Reads one event. If damage is passed over, a damaged event is none: what it said is lost, all others still count.
pub(crate) fn read_intact_event(segment: &Segment, offset: u64, skip_damage: bool) -> Result<Option<Event>> {
    match read_event(segment, offset) {
        Err(Error::Corrupt { .. } | Error::TornTail { .. }) if skip_damage => {
            segment.pass_over(offset);
            Ok(None)
        }
        other => other,
    }
}
