//! New points of a run, look after look.
//!
//! Contract: each point once and in the order of its origin, whatever happens to the files meanwhile: where it stands
//! is the next ordinal per key and origin, so sealing, compaction, recovery and merging change nothing. A look goes
//! against the flow, live files first, segments second, as every snapshot does. It reads only what is new: live records
//! from where the last look ended (`log::LiveTail`), and of segments those that are new or have grown. Where that
//! leaves a hole, everything is looked at anew.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::declare::{Declaration, OwnerKind, SeriesKey};
use crate::id::{Origin, Uid, WriterId};
use crate::log::{
    ColumnReader, DecodedColumn, LIVE_DIR, LiveRecord, LiveTail, LiveWindow, LogReader, News, OriginStream,
    View, parse_live_name, read_live_window,
};
use crate::model::Point;
use crate::query::snapshot::OriginParts;
use crate::vfs::Vfs;

/// Series and origins that are read side by side, in the order of time; more come one after the other.
const LANES_MAX: usize = 64;
/// Points of one of them that are read at a time.
const CHUNK_POINTS: usize = 1024;
/// Looks that may find the same hole before it is reported.
const LOOKS_MAX: usize = 3;

/// One point of a followed run.
#[derive(Clone, Debug, PartialEq)]
pub struct FollowedPoint {
    /// The metric key.
    pub key: Arc<str>,
    /// Who logged it.
    pub origin: Origin,
    /// Its place among the points of this key and origin, from 0 without gaps.
    pub ordinal: u64,
    /// The point.
    pub point: Point,
}

/// Where to begin with a key and origin that no position names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At its first point.
    First,
    /// This many points before its end at the first look; what appears later, at its first point.
    BeforeEnd(u64),
}

/// The next ordinal of each key and origin.
pub(crate) type Positions = BTreeMap<(Arc<str>, Origin), u64>;

/// What to follow, and how far it got.
pub(crate) struct Follower {
    run: Uid,
    run_id: String,
    /// None: all.
    keys: Option<BTreeSet<String>>,
    holes_allowed: bool,
    start: Start,
    next: Positions,
    /// Where segments end, as of `view`.
    ends: HashMap<(Arc<str>, Origin), u64>,
    /// What the last look saw; none before the first one, and when all is to be looked at anew.
    view: Option<Arc<View>>,
    tails: HashMap<WriterId, Tail>,
    /// What the last look found and was not handed out yet.
    waiting: VecDeque<(Arc<str>, OriginParts)>,
    lanes: Vec<Lane>,
    reader: ColumnReader,
    hole: Option<Error>,
    holes_seen: usize,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("run", &self.run_id)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// A live file, and the ordinal of the next record of each of its wanted series.
#[derive(Debug)]
struct Tail {
    file: LiveTail,
    ordinals: HashMap<u32, u64>,
}

/// New points of one key and origin.
#[derive(Debug)]
struct Lane {
    key: Arc<str>,
    origin: Origin,
    next: u64,
    stream: OriginStream,
    ready: DecodedColumn,
    at: usize,
    /// Greatest timestamp given out.
    timestamp_max: i64,
}

/// Live points by key and origin.
type LiveColumns = BTreeMap<(Arc<str>, Origin), DecodedColumn>;

impl Follower {
    pub(crate) fn new(run: Uid, run_id: String, holes_allowed: bool) -> Self {
        let mut reader = ColumnReader::default();
        reader.holes_allowed = holes_allowed;
        Self {
            run,
            run_id,
            keys: None,
            holes_allowed,
            start: Start::First,
            next: Positions::new(),
            ends: HashMap::new(),
            view: None,
            tails: HashMap::new(),
            waiting: VecDeque::new(),
            lanes: Vec::new(),
            reader,
            hole: None,
            holes_seen: 0,
        }
    }

    pub(crate) fn set_keys(&mut self, keys: BTreeSet<String>) {
        self.keys = Some(keys);
        self.forget();
    }

    pub(crate) fn set_start(&mut self, start: Start, next: Positions) {
        self.start = start;
        self.next = next;
        self.forget();
    }

    pub(crate) fn allow_holes(&mut self, holes_allowed: bool) {
        self.holes_allowed = holes_allowed;
        self.forget();
    }

    pub(crate) fn run(&self) -> Uid {
        self.run
    }

    pub(crate) fn run_id(&self) -> &str {
        &self.run_id
    }

    /// Where it stands: points below these were handed out.
    pub(crate) fn positions(&self) -> &Positions {
        &self.next
    }

    /// Whether it has looked, so that a start before the end is settled.
    pub(crate) fn has_begun(&self) -> bool {
        self.start == Start::First
    }

    /// Looks at everything anew the next time. What was handed out stays so.
    fn forget(&mut self) {
        self.view = None;
        self.ends.clear();
        self.tails.clear();
        self.waiting.clear();
        self.lanes.clear();
        self.reader = ColumnReader::default();
        self.reader.holes_allowed = self.holes_allowed;
    }

    fn wants(&self, series: &SeriesKey) -> bool {
        series.run == self.run
            && series.owner == OwnerKind::RUN
            && self.keys.as_ref().is_none_or(|keys| keys.contains(&*series.key))
    }

    fn next_of(&self, key: &Arc<str>, origin: Origin) -> u64 {
        self.next.get(&(Arc::clone(key), origin)).copied().unwrap_or(0)
    }

    /// At most `max` points that were not handed out before; none if there is nothing new.
    ///
    /// A hole that three looks find is an error, after all that does join; the next call looks again.
    pub(crate) fn next_points(
        &mut self,
        vfs: &dyn Vfs,
        root: &Path,
        reader: &LogReader,
        max: usize,
    ) -> Result<Vec<FollowedPoint>> {
        loop {
            self.look(vfs, root, reader)?;
            let points = match self.take(max) {
                Err(error) => {
                    self.forget();
                    return Err(error);
                }
                Ok(points) => points,
            };
            if !points.is_empty() {
                return Ok(points);
            }
            let Some(hole) = self.hole.take() else {
                self.holes_seen = 0;
                return Ok(points);
            };
            self.forget();
            self.holes_seen += 1;
            if self.holes_seen >= LOOKS_MAX {
                self.holes_seen = 0;
                return Err(hole);
            }
        }
    }

    /// Looks, unless something of the last look is left.
    pub(crate) fn look(&mut self, vfs: &dyn Vfs, root: &Path, reader: &LogReader) -> Result<()> {
        let mut attempt = 1;
        while self.lanes.is_empty() && self.waiting.is_empty() {
            match self.look_once(vfs, root, reader) {
                Ok(()) => break,
                Err(error) => {
                    self.forget();
                    // Files change hands while they are looked at.
                    if !matches!(error, Error::Io { .. }) || attempt == LOOKS_MAX {
                        return Err(error);
                    }
                    attempt += 1;
                }
            }
        }
        Ok(())
    }

    /// Looks at what is new and makes it ready to be taken.
    fn look_once(&mut self, vfs: &dyn Vfs, root: &Path, reader: &LogReader) -> Result<()> {
        let mut live = LiveColumns::new();
        let windows = self.look_at_live_files(vfs, &root.join(LIVE_DIR), &mut live)?;
        let view = reader.refresh()?;
        if self.view.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &view)) {
            self.tails.values_mut().for_each(|tail| tail.file.segments_changed());
        }
        let parts = match &self.view {
            Some(known) if Arc::ptr_eq(known, &view) => Vec::new(),
            Some(known) => view.series_since(self.run, known)?,
            None => view.series(self.run)?,
        };
        let mut found: BTreeMap<(Arc<str>, Origin), OriginParts> = BTreeMap::new();
        for part in parts {
            if !self.wants(&part.declaration.series) {
                continue;
            }
            let key = (Arc::clone(&part.declaration.series.key), part.declaration.origin);
            let end = self.ends.entry(key.clone()).or_insert(0);
            *end = part.end().max(*end);
            let origin = key.1;
            let empty = || OriginParts { origin, parts: Vec::new(), live: None };
            found.entry(key).or_insert_with(empty).parts.push(part);
        }
        for (writer, window) in &windows {
            self.begin_tail(*writer, window, &view, &mut live)?;
        }
        self.view = Some(view);
        for (key, column) in live {
            let origin = key.1;
            let empty = || OriginParts { origin, parts: Vec::new(), live: None };
            found.entry(key).or_insert_with(empty).live = Some(column);
        }
        if let Start::BeforeEnd(points) = self.start {
            for (key, parts) in &found {
                self.next.insert(key.clone(), parts.end().saturating_sub(points));
            }
            self.start = Start::First;
        }
        for ((key, origin), parts) in found {
            if parts.end() > self.next_of(&key, origin) {
                self.waiting.push_back((key, parts));
            }
        }
        Ok(())
    }

    /// Takes new records of the live files that are followed; returns those files that have to be read as a whole.
    fn look_at_live_files(
        &mut self,
        vfs: &dyn Vfs,
        live_dir: &Path,
        live: &mut LiveColumns,
    ) -> Result<Vec<(WriterId, LiveWindow)>> {
        let entries = match vfs.list(live_dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::io("list", live_dir, e)),
        };
        let writers: Vec<(WriterId, String)> =
            entries.into_iter().filter_map(|e| Some((parse_live_name(&e.name)?, e.name))).collect();
        // A file that is gone had nothing that segments do not have.
        self.tails.retain(|writer, _| writers.iter().any(|(known, _)| known == writer));
        let mut windows = Vec::new();
        for (writer, name) in writers {
            let mut records = Vec::new();
            let mut news = News::Gone;
            if let Some(tail) = self.tails.get_mut(&writer) {
                news = tail.file.look(&mut |record| records.push(record))?;
            }
            if news == News::Gone {
                let Some(file) = LiveTail::open(vfs, &live_dir.join(&name))? else { continue };
                let tail = Tail { file, ordinals: HashMap::new() };
                news = match self.tails.entry(writer) {
                    Entry::Occupied(mut known) => {
                        known.insert(tail);
                        known.into_mut()
                    }
                    Entry::Vacant(place) => place.insert(tail),
                }
                .file
                .look(&mut |_| {})?;
            }
            if news == News::Joined && self.take_records(writer, &records, live) {
                continue;
            }
            let Some(tail) = self.tails.get_mut(&writer) else { continue };
            tail.file.stop_following();
            let Some(tail) = self.tails.get(&writer) else { continue };
            if tail.file.declarations().values().any(|d| self.wants(&d.series)) {
                windows.extend(read_live_window(vfs, tail.file.path())?.map(|window| (writer, window)));
            }
        }
        Ok(windows)
    }

    /// Puts records into columns by their ordinals; false if these are not known, and the whole file must be read.
    fn take_records(&mut self, writer: WriterId, records: &[LiveRecord], live: &mut LiveColumns) -> bool {
        let Some(mut tail) = self.tails.remove(&writer) else { return false };
        let mut columns = LiveColumns::new();
        let mut known = tail.file.is_following();
        for record in records {
            let Some(declaration) = tail.file.declarations().get(&record.series) else {
                known = false;
                break;
            };
            if !self.wants(&declaration.series) {
                continue;
            }
            let Some(ordinal) = tail.ordinals.get_mut(&record.series) else {
                known = false;
                break;
            };
            put(&mut columns, declaration, *ordinal, record.point);
            *ordinal = ordinal.saturating_add(1);
        }
        self.tails.insert(writer, tail);
        if known {
            live.append(&mut columns);
        }
        known
    }

    /// Takes what a whole live file holds and segments do not, and follows it from there.
    fn begin_tail(
        &mut self,
        writer: WriterId,
        window: &LiveWindow,
        view: &View,
        live: &mut LiveColumns,
    ) -> Result<()> {
        let (covered, joins) = view.covered(window)?;
        let records = window.joined(covered).0;
        let mut ordinals: HashMap<u32, u64> = HashMap::new();
        for declaration in window.declarations.values().filter(|d| self.wants(&d.series)) {
            let key = (Arc::clone(&declaration.series.key), declaration.origin);
            let end = self.ends.get(&key).copied().unwrap_or(0);
            let first = match joins {
                true => end,
                // Where points are missing before them, they must not look as if they joined, neither what segments
                // hold nor what was handed out, which may be more than the segments that are seen.
                false => end.max(self.next.get(&key).copied().unwrap_or(0)).saturating_add(1),
            };
            ordinals.insert(declaration.number, first);
        }
        for record in records {
            if let Some(ordinal) = ordinals.get_mut(&record.series)
                && let Some(declaration) = window.declarations.get(&record.series)
            {
                put(live, declaration, *ordinal, record.point);
                *ordinal = ordinal.saturating_add(1);
            }
        }
        if let Some(tail) = self.tails.get_mut(&writer).filter(|_| joins) {
            tail.ordinals = ordinals;
            tail.file.go_on_at(covered.saturating_add(records.len() as u64));
        }
        Ok(())
    }

    /// At most `max` of the points that the last look found.
    fn take(&mut self, max: usize) -> Result<Vec<FollowedPoint>> {
        let mut points = Vec::new();
        let mut ended = Vec::new();
        while points.len() < max {
            self.fill_lanes(&mut ended)?;
            let first = (0..self.lanes.len()).min_by(|a, b| {
                let order = |index: &usize| self.lanes.get(*index).map(Lane::order);
                order(a).cmp(&order(b))
            });
            let Some(lane) = first.and_then(|index| self.lanes.get_mut(index)) else { break };
            points.extend(lane.give());
        }
        // Only now: after an error none of them is handed out.
        let open = self.lanes.iter().map(|lane| (lane.key.clone(), lane.origin, lane.next));
        for (key, origin, next) in ended.into_iter().chain(open) {
            self.next.insert((key, origin), next);
        }
        Ok(points)
    }

    /// Fills as many lanes as there may be; those that ended go to `ended`.
    fn fill_lanes(&mut self, ended: &mut Vec<(Arc<str>, Origin, u64)>) -> Result<()> {
        let mut index = 0;
        loop {
            if self.lanes.len() < LANES_MAX
                && let Some((key, parts)) = self.waiting.pop_front()
            {
                let (origin, next) = (parts.origin, self.next_of(&key, parts.origin));
                let stream = parts.stream(&mut self.reader, next..u64::MAX)?.allow_holes(self.holes_allowed);
                let ready = DecodedColumn::default();
                self.lanes.push(Lane { key, origin, next, stream, ready, at: 0, timestamp_max: i64::MIN });
                continue;
            }
            let Some(lane) = self.lanes.get_mut(index) else { return Ok(()) };
            let hole = match lane.fill(&mut self.reader, self.holes_allowed)? {
                Filled::Ready => {
                    index += 1;
                    continue;
                }
                Filled::Empty => None,
                Filled::Hole(next) => Some(next),
            };
            let lane = self.lanes.swap_remove(index);
            if let Some(next) = hole {
                let (run, key) = (self.run_id.clone(), lane.key.to_string());
                self.hole.get_or_insert(Error::Gap { run, key, first: lane.next, next });
            }
            ended.push((lane.key, lane.origin, lane.next));
        }
    }
}

/// Appends a live point to its column.
fn put(columns: &mut LiveColumns, declaration: &Declaration, ordinal: u64, point: Point) {
    let key = (Arc::clone(&declaration.series.key), declaration.origin);
    let column = columns
        .entry(key)
        .or_insert_with(|| DecodedColumn { first_ordinal: ordinal, ..DecodedColumn::default() });
    column.steps.push(point.step);
    column.timestamps_ms.push(point.timestamp_ms);
    column.values.push(point.value);
}

/// Whether a lane has a point to give.
enum Filled {
    Ready,
    Empty,
    /// Points are missing up to this ordinal.
    Hole(u64),
}

impl Lane {
    fn fill(&mut self, reader: &mut ColumnReader, holes_allowed: bool) -> Result<Filled> {
        if self.at < self.ready.values.len() {
            return Ok(Filled::Ready);
        }
        let Some(next) = self.stream.next(reader, CHUNK_POINTS)? else { return Ok(Filled::Empty) };
        if next.first_ordinal != self.next {
            if !holes_allowed {
                return Ok(Filled::Hole(next.first_ordinal));
            }
            self.next = next.first_ordinal;
        }
        self.ready = next;
        self.at = 0;
        Ok(Filled::Ready)
    }

    /// What decides which of several lanes gives the next point: timestamp (never going back), then
    /// step.
    fn order(&self) -> (i64, i64, &str, Origin) {
        let timestamp = self.ready.timestamps_ms.get(self.at).copied().unwrap_or(i64::MIN);
        let step = self.ready.steps.get(self.at).copied().unwrap_or(i64::MIN);
        (timestamp.max(self.timestamp_max), step, &self.key, self.origin)
    }

    fn give(&mut self) -> Option<FollowedPoint> {
        let point = Point {
            step: *self.ready.steps.get(self.at)?,
            timestamp_ms: *self.ready.timestamps_ms.get(self.at)?,
            value: *self.ready.values.get(self.at)?,
        };
        let ordinal = self.next;
        self.timestamp_max = self.timestamp_max.max(point.timestamp_ms);
        self.at += 1;
        // A directory may claim any ordinal.
        self.next = self.next.saturating_add(1);
        Some(FollowedPoint { key: Arc::clone(&self.key), origin: self.origin, ordinal, point })
    }
}
