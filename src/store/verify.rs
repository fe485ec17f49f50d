//! `verify`: every checksum, ordinal and claim of a store.
//!
//! Contract: reads everything and changes nothing; what is wrong is a finding, not an error, and is named by file and
//! place. Segments are checked side by side on a pool of this call. Taken against the flow of data like a snapshot, so
//! it may run while others log; what they are just writing is a torn tail at most.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::format::declare::SeriesKey;
use crate::format::live::LiveHeader;
use crate::id::{Origin, SegmentId, WriterId};
use crate::log::{
    ColumnSpan, LIVE_DIR, LOG_DIR, LiveWindow, Segment, SegmentCheck, View, check_segment, parse_live_name,
    parse_segment_name, read_live_window,
};
use crate::store::repair::QUARANTINE_DIR;
use crate::store::report::{Finding, Progress, Severity, VerifyReport};
use crate::store::{Inner, Store, identity};
use crate::vfs::process;

/// More threads than this wait for the disk.
const THREADS_MAX: usize = 8;
/// A window whose blocks were taken again while it was read is read again.
const WINDOWS_MAX: usize = 3;

/// What the threads tell.
enum Told {
    Advanced(u64),
    Checked(PathBuf, Box<Result<(Arc<Segment>, SegmentCheck)>>),
}

type Spans = HashMap<(SeriesKey, Origin), Vec<(ColumnSpan, usize)>>;
/// Ordinals from and to, of every series.
pub(super) type Ranges = HashMap<(SeriesKey, Origin), Vec<(u64, u64)>>;

impl Store {
    /// Checks everything: every checksum, every column decoded, that directories and footers say what the frames hold,
    /// that no point is missing between two others, that live files join, that no two claim the same name.
    ///
    /// `progress` is called now and then with what was read so far.
    ///
    /// # Errors
    /// Only if the system cannot list the store. What is wrong with it is in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(&Progress)) -> Result<VerifyReport> {
        self.inner().verify(progress).map(|(report, _)| report)
    }
}

impl Inner {
    /// The report, and which points can be read.
    pub(super) fn verify(&self, progress: &mut dyn FnMut(&Progress)) -> Result<(VerifyReport, Ranges)> {
        let mut verifier = Verifier {
            store: self,
            report: VerifyReport::default(),
            spans: Spans::new(),
            sound: Ranges::new(),
            segments: Vec::new(),
        };
        verifier.identity();
        let windows = verifier.live_windows()?;
        verifier.segments(progress)?;
        // The view after the windows, as for every snapshot; it also says which numbers are missing.
        let view = self.reader.refresh_whole()?;
        verifier.problems(&view);
        verifier.set_aside()?;
        verifier.chains();
        verifier.ordinals();
        for window in &windows {
            verifier.live(window, &view);
        }
        let mut report = std::mem::take(&mut verifier.report);
        report.findings.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        Ok((report, verifier.sound))
    }
}

struct Verifier<'a> {
    store: &'a Inner,
    report: VerifyReport,
    spans: Spans,
    sound: Ranges,
    /// Each with the length that counts and whether it is closed.
    segments: Vec<(Arc<Segment>, u64, bool)>,
}

impl Verifier<'_> {
    fn find(&mut self, severity: Severity, path: &Path, offset: Option<u64>, text: impl Into<String>) {
        let path = path.strip_prefix(&self.store.root).unwrap_or(path).to_path_buf();
        self.report.findings.push(Finding { severity, path, offset, text: text.into() });
    }

    /// Damage that reading ran into.
    fn find_error(&mut self, path: &Path, error: Error) {
        match error {
            Error::Corrupt { path, offset, expected, found } => {
                self.find(
                    Severity::Damage,
                    &path,
                    Some(offset),
                    format!("expected {expected}, found {found}"),
                );
            }
            Error::TornTail { path, offset, missing } => {
                let text = format!("ends {missing} bytes early: its writing was interrupted");
                self.find(Severity::TornTail, &path, Some(offset), text);
            }
            newer @ Error::NewerFormat { .. } => self.find(Severity::Note, path, None, newer.to_string()),
            other => self.find(Severity::Damage, path, None, other.to_string()),
        }
    }

    fn identity(&mut self) {
        self.report.files += 1;
        let path = self.store.root.join(identity::IDENTITY_FILE);
        match identity::read(self.store.vfs.as_ref(), &self.store.root) {
            Ok(Some(id)) if id == self.store.id => {}
            Ok(Some(_)) => self.find(Severity::Damage, &path, Some(0), "is of another store than it was"),
            Ok(None) => self.find(Severity::Damage, &path, None, "is missing"),
            Err(error) => self.find_error(&path, error),
        }
    }

    fn live_windows(&mut self) -> Result<Vec<LiveWindow>> {
        let folder = self.store.root.join(LIVE_DIR);
        let mut windows = Vec::new();
        for name in self.store.names(LIVE_DIR)? {
            let path = folder.join(&name);
            if name.ends_with(".quarantine") {
                let text = "was set aside: points in it do not join those in the log";
                self.find(Severity::Damage, &path, None, text);
                continue;
            }
            if parse_live_name(&name).is_none() {
                continue;
            }
            let mut read = read_live_window(self.store.vfs.as_ref(), &path);
            for _ in 1..WINDOWS_MAX {
                let doubtful =
                    |window: &LiveWindow| window.joined(window.released).1 > 0 || !window.damage.is_empty();
                if !matches!(&read, Ok(Some(window)) if doubtful(window)) {
                    break;
                }
                read = read_live_window(self.store.vfs.as_ref(), &path);
            }
            match read {
                Ok(Some(window)) => windows.push(window),
                Ok(None) => {}
                Err(error) => self.find_error(&path, error),
            }
        }
        Ok(windows)
    }

    fn segments(&mut self, progress: &mut dyn FnMut(&Progress)) -> Result<()> {
        let folder = self.store.root.join(LOG_DIR);
        let mut paths = Vec::new();
        for name in self.store.names(LOG_DIR)? {
            let path = folder.join(&name);
            if parse_segment_name(&name).is_some() {
                paths.push(path);
            } else if name.ends_with(".seg.tmp") {
                self.find(Severity::Note, &path, None, "was left by a sealing that was interrupted");
            } else {
                self.find(Severity::Note, &path, None, "is no file of the log");
            }
        }
        let sizes = paths.iter().filter_map(|path| self.store.vfs.metadata(path).ok());
        let mut state = Progress { bytes_total: sizes.map(|m| m.len).sum(), ..Progress::default() };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool =
            pool.map_err(|e| Error::io("start threads to check", &folder, io::Error::other(e.to_string())))?;
        let catalog = Mutex::new(Catalog::new());
        let (tell, told) = channel();
        pool.in_place_scope(|scope| {
            for path in paths {
                let (tell, catalog) = (tell.clone(), &catalog);
                let vfs = Arc::clone(&self.store.vfs);
                scope.spawn(move |_| {
                    let checked = check(vfs.as_ref(), &path, catalog, &tell);
                    // The other end goes away only with this call.
                    let _ = tell.send(Told::Checked(path, Box::new(checked)));
                });
            }
            drop(tell);
            for one in told {
                match one {
                    Told::Advanced(bytes) => state.bytes_done += bytes,
                    Told::Checked(path, checked) => {
                        self.checked(&path, *checked);
                        state.points = self.report.points;
                    }
                }
                progress(&state);
            }
        });
        let catalog = catalog.into_inner().unwrap_or_else(PoisonError::into_inner);
        for conflict in catalog.conflicts() {
            self.find(Severity::Conflict, &folder, None, conflict.to_string());
        }
        Ok(())
    }

    fn checked(&mut self, path: &Path, checked: Result<(Arc<Segment>, SegmentCheck)>) {
        let (segment, check) = match checked {
            Ok(checked) => checked,
            // Removed since the listing: what replaced it is checked.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                self.report.files += 1;
                return self.find_error(path, error);
            }
        };
        let report = &mut self.report;
        report.files += 1;
        report.bytes += check.bytes;
        report.frames += check.frames;
        report.columns += check.columns;
        report.points += check.points;
        report.events += check.events;
        report.blobs += check.blobs;
        for damage in check.damage {
            let text = format!("expected {}, found {}", damage.expected, damage.found);
            self.find(Severity::Damage, path, Some(damage.offset), text);
        }
        for (offset, text) in check.notes {
            self.find(Severity::Note, path, Some(offset), text);
        }
        if let Some((offset, bytes)) = check.torn {
            let text = format!("ends in {bytes} bytes of an interrupted write");
            self.find(Severity::TornTail, path, Some(offset), text);
        }
        let name = path.file_name().and_then(|name| name.to_str()).and_then(parse_segment_name);
        let header = &segment.header;
        if name != Some((header.writer, header.number)) {
            let text = format!("is segment {} of writer {} under another name", header.number, header.writer);
            self.find(Severity::Damage, path, Some(0), text);
        }
        let index = self.segments.len();
        for (series, spans) in check.spans {
            let all = self.spans.entry(series).or_default();
            all.extend(spans.into_iter().map(|span| (span, index)));
        }
        let len = check.torn.map_or(check.bytes, |(offset, _)| offset);
        self.segments.push((segment, len, check.is_closed));
    }

    /// Files that are missing, as far as the files themselves did not tell yet.
    fn problems(&mut self, view: &View) {
        let known: HashSet<PathBuf> = self.report.findings.iter().map(|f| f.path.clone()).collect();
        for problem in &view.problems {
            let relative = problem.path.strip_prefix(&self.store.root).unwrap_or(&problem.path);
            if !known.contains(relative) {
                self.find(Severity::Damage, &problem.path, None, &problem.text);
            }
        }
    }

    /// What a repair set aside is no part of the store; people decide about it.
    fn set_aside(&mut self) -> Result<()> {
        for name in self.store.names(QUARANTINE_DIR)? {
            let path = self.store.root.join(QUARANTINE_DIR).join(name);
            let text = "was set aside by a repair; remove it when nothing in it is wanted";
            self.find(Severity::Note, &path, None, text);
        }
        Ok(())
    }

    /// Each header names its predecessor, and how long that was at least; each list of replaced segments how long these
    /// were, and the crc of the last frame.
    fn chains(&mut self) {
        // How much of each is there: in its own file, or in one that replaces it.
        let mut replaced: HashMap<SegmentId, (u64, PathBuf)> = HashMap::new();
        let mut ends: Vec<(SegmentId, u64, u32, PathBuf)> = Vec::new();
        for (segment, ..) in &self.segments {
            for one in segment.state().replaced.iter() {
                let (len, path) = replaced.entry(one.id).or_insert_with(|| (0, segment.path.clone()));
                if *len < one.valid_len {
                    (*len, *path) = (one.valid_len, segment.path.clone());
                }
                ends.push((one.id, one.valid_len, one.last_crc, segment.path.clone()));
            }
        }
        let known: HashMap<SegmentId, (u64, PathBuf, u32)> = self
            .segments
            .iter()
            .map(|(s, len, _)| (s.header.id, (*len, s.path.clone(), s.state().last_crc)))
            .collect();
        for (id, len, crc, path) in ends {
            if let Some((own, original, own_crc)) = known.get(&id)
                && *own == len
                && crc != 0
                && crc != *own_crc
            {
                let name = original.file_name().unwrap_or_default().to_string_lossy();
                let text =
                    format!("replaces {name} as it ended with crc {crc:08x}; it ends with {own_crc:08x}");
                self.find(Severity::Damage, &path, None, text);
            }
        }
        let numbers: HashSet<(WriterId, u64)> =
            self.segments.iter().map(|(s, ..)| (s.header.writer, s.header.number)).collect();
        let headers: Vec<_> = self.segments.iter().map(|(s, ..)| (s.header, s.path.clone())).collect();
        for (header, path) in headers {
            let there = known.get(&header.predecessor).map(|(len, path, _)| (*len, path.clone()));
            let folded = replaced.get(&header.predecessor).cloned();
            // The sealed copy of a predecessor that is still open elsewhere may hold more, or less.
            let longest = there.into_iter().chain(folded).max_by_key(|(len, _)| *len);
            match longest {
                // Set aside by a repair, which said so.
                Some((0, _)) => {}
                Some((len, predecessor)) if len < header.predecessor_len => {
                    let text = format!(
                        "has {len} bytes of segment {}; the next one, {}, says that it had {}",
                        header.predecessor, header.number, header.predecessor_len
                    );
                    self.find(Severity::Damage, &predecessor, Some(len), text);
                }
                Some(_) => {}
                None if header.number == 0 => {}
                // A number that is missing is reported as such.
                None if !numbers.contains(&(header.writer, header.number - 1)) => {}
                None => {
                    let text = format!("follows segment {}, which is not there", header.predecessor);
                    self.find(Severity::Damage, &path, Some(0), text);
                }
            }
        }
    }

    /// Points of an origin count from 0 without gaps, and a point that is stored twice is the same.
    fn ordinals(&mut self) {
        // Until here points were counted as they were read, for the progress; a point that is stored twice is one.
        self.report.points = 0;
        let spans: BTreeMap<_, _> = std::mem::take(&mut self.spans).into_iter().collect();
        for ((series, origin), mut spans) in spans {
            spans.sort_unstable();
            let mut next = 0;
            let mut before: Option<(ColumnSpan, usize)> = None;
            let sound: Vec<_> = spans
                .iter()
                .filter(|(span, _)| span.fingerprint.is_some())
                .map(|(span, _)| (span.first_ordinal, span.end))
                .collect();
            self.sound.insert((series.clone(), origin), sound);
            for (span, segment) in spans {
                let Some(path) = self.segments.get(segment).map(|(s, ..)| s.path.clone()) else { continue };
                if span.first_ordinal > next {
                    let text = format!(
                        "points {next}..{} of '{}' in run {} by {origin} are missing before this segment",
                        span.first_ordinal, series.key, series.run
                    );
                    self.find(Severity::Damage, &path, None, text);
                }
                let same_place =
                    before.filter(|(b, _)| (b.first_ordinal, b.end) == (span.first_ordinal, span.end));
                let differs = same_place.is_some_and(|(b, _)| {
                    b.fingerprint.zip(span.fingerprint).is_some_and(|(one, other)| one != other)
                });
                if differs {
                    let text = format!(
                        "points {}..{} of '{}' in run {} by {origin} are stored twice and differ",
                        span.first_ordinal, span.end, series.key, series.run
                    );
                    self.find(Severity::Damage, &path, None, text);
                }
                self.report.points += span.end.saturating_sub(next.max(span.first_ordinal));
                next = next.max(span.end);
                before = Some((span, segment));
            }
        }
    }

    fn live(&mut self, window: &LiveWindow, view: &View) {
        self.report.files += 1;
        self.report.bytes += self.store.vfs.metadata(&window.path).map_or(0, |m| m.len);
        for (offset, text) in &window.damage {
            self.find(Severity::Damage, &window.path, Some(*offset), text);
        }
        let same_boot = window.header.boot == process::boot_id();
        // What a power cut may take is no damage; what the death of a process took is.
        let lost = if same_boot { Severity::Damage } else { Severity::TornTail };
        let covered = match view.covered(window) {
            Ok((covered, true)) => covered,
            Ok((_, false)) => {
                let text =
                    format!("counts on records below {} in the log, which lacks them", window.released);
                return self.find(lost, &window.path, None, text);
            }
            Err(error) => return self.find(Severity::Damage, &window.path, None, error.to_string()),
        };
        let (joined, behind) = window.joined(covered);
        let host = &window.header.host;
        if !host.is_empty() && host != LiveHeader::host_as_stored(&process::host_name()) {
            let text = format!(
                "has {} points of a writer on {host}; `recover --host {host}` moves them once it is gone",
                joined.len()
            );
            self.find(Severity::Note, &window.path, None, text);
        }
        self.report.points += joined.len() as u64;
        if behind > 0 {
            let text = format!("{behind} points do not join those before them");
            self.find(lost, &window.path, None, text);
        }
        let undeclared: HashSet<u32> =
            joined.iter().map(|r| r.series).filter(|n| !window.declarations.contains_key(n)).collect();
        for number in undeclared {
            let text = format!("has points of series {number}, but no declaration of it");
            self.find(Severity::Damage, &window.path, None, text);
        }
    }
}

fn check(
    vfs: &dyn crate::vfs::Vfs,
    path: &Path,
    catalog: &Mutex<Catalog>,
    tell: &Sender<Told>,
) -> Result<(Arc<Segment>, SegmentCheck)> {
    let segment = Arc::new(Segment::open(vfs, path)?);
    let mut refused = Vec::new();
    let mut apply = |offset, event| {
        let mut catalog = catalog.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(m) = catalog.apply(&event) {
            refused.push((offset, m));
        }
    };
    let mut check = check_segment(&segment, &mut apply, &mut |bytes| {
        let _ = tell.send(Told::Advanced(bytes));
    })?;
    for (offset, m) in refused {
        let (expected, found) = (format!("an event with {}", m.expected), m.found.to_string());
        check.damage.push(crate::log::Damage { offset, expected, found });
    }
    Ok((segment, check))
}
