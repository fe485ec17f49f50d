//! Points of dead writers: from their live files into a segment of ours.
//!
//! Contract: only by a writer, and only what is this host's by name, under the dead writer's own lock: the lock of a
//! file that was copied, or is on a network, is free whoever lives. Files of another host are read where they are, and
//! brought home when somebody says that the host's writers are gone ([`Which::OfHost`]). (Of one host another boot
//! needs no rule: its processes hold no locks. Containers of one name share the kernel and its locks.) Points keep
//! their origin and ordinals, so a recovery that is repeated, or was not needed, doubles nothing. A live file is
//! removed only when everything in it is in durable frames; what does not join is quarantined beside it and reported.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::declare::{Declaration, SeriesKey};
use crate::format::event::{EntityKind, Event, Field, Operation, Value};
use crate::format::live::LiveHeader;
use crate::id::{Origin, Stamp, StoreId, Uid, WriterId};
use crate::limits::COLUMN_POINTS_MAX;
use crate::log::live_reader::{LiveRecord, LiveWindow, read_live_header, read_live_window};
use crate::log::reader::LogReader;
use crate::log::writer::{BulkColumn, LogWriter};
use crate::log::{LIVE_DIR, parse_live_name};
use crate::model::Points;
use crate::vfs::{OpenMode, Vfs, process};

/// Records recovered in one write.
const RECORDS_MAX: usize = 64 * 1024;

/// Whose live files are brought home.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    /// Nobody's: a network file system.
    None,
    /// This host's; the lock says which of their writers are gone.
    OfThisHost,
    /// Of a host whose writers are gone, as somebody says. A lock that is held contradicts that.
    OfHost { name: &'a str, trusts_locks: bool },
}

impl Which<'_> {
    /// Whether a live file with this host in its header is meant. One whose header cannot be read counts as this
    /// host's: its lock decides.
    fn includes(self, host: &str) -> bool {
        match self {
            Self::None => false,
            Self::OfThisHost => host.is_empty() || host == LiveHeader::host_as_stored(&process::host_name()),
            Self::OfHost { name, .. } => host == LiveHeader::host_as_stored(name),
        }
    }
}

/// What was found and brought home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecoverReport {
    /// Live files of dead writers.
    pub files: u64,
    /// Points that were in no segment.
    pub points: u64,
    /// Files that came without all segments of their writer; they stay until these are there.
    pub waiting: Vec<PathBuf>,
    /// Files kept aside because records in them do not join.
    pub quarantined: Vec<PathBuf>,
    /// Files whose writers live, as their locks say.
    pub alive: Vec<PathBuf>,
    /// Files of other hosts, by host: left as they are.
    pub elsewhere: BTreeMap<String, u64>,
}

/// The event that says: live records of `writer` below `live_to` are in frames.
pub(crate) fn covers_live(stamp: Stamp, writer: WriterId, live_to: u64) -> Event {
    let operation = Operation {
        kind: EntityKind::WRITER,
        uid: Uid::from_bytes(*writer.as_bytes()),
        field: Field::LIVE_TO,
        key: String::new(),
        value: Value::Integer(i64::try_from(live_to).unwrap_or(i64::MAX)),
    };
    Event { stamp, operations: vec![operation], attributes: Vec::new() }
}

/// Points of one series of a window, with the ordinal of the first.
type Recovered = (Arc<Declaration>, u64, Points);

/// The points of a window that frames do not cover, by series, and how many belong to no series that it declares.
fn uncovered(
    window: &LiveWindow,
    records: &[LiveRecord],
    ends: &HashMap<(SeriesKey, Origin), u64>,
) -> (Vec<Recovered>, usize) {
    let mut by_number: BTreeMap<u32, Points> = BTreeMap::new();
    for record in records {
        by_number.entry(record.series).or_default().push(record.point);
    }
    let mut series = Vec::with_capacity(by_number.len());
    let mut undeclared = 0;
    for (number, points) in by_number {
        let Some(declaration) = window.declarations.get(&number) else {
            undeclared += points.len();
            continue;
        };
        let key = (declaration.series.clone(), declaration.origin);
        let first = ends.get(&key).copied().unwrap_or(0);
        series.push((Arc::clone(declaration), first, points));
    }
    (series, undeclared)
}

/// Recovers every live file whose writer is gone.
pub(crate) fn recover_dead_writers(
    vfs: &Arc<dyn Vfs>,
    root: &Path,
    store: StoreId,
    writer: &LogWriter,
    reader: &LogReader,
    which: Which<'_>,
) -> Result<RecoverReport> {
    let mut report = RecoverReport::default();
    let live_dir = root.join(LIVE_DIR);
    let entries = match vfs.list(&live_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(report),
        Err(e) => return Err(Error::io("list", &live_dir, e)),
    };
    for entry in entries {
        if parse_live_name(&entry.name).is_none_or(|w| w == writer.id()) {
            continue;
        }
        let path = live_dir.join(&entry.name);
        let host = read_live_header(vfs.as_ref(), &path)?.map(|header| header.host).unwrap_or_default();
        if which.includes(&host) {
            recover_one(vfs, &path, store, writer, reader, which, &mut report)?;
        } else {
            *report.elsewhere.entry(host).or_default() += 1;
        }
    }
    Ok(report)
}

fn recover_one(
    vfs: &Arc<dyn Vfs>,
    path: &Path,
    store: StoreId,
    writer: &LogWriter,
    reader: &LogReader,
    which: Which<'_>,
    report: &mut RecoverReport,
) -> Result<()> {
    let file = match vfs.open(path, OpenMode::ReadWrite) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    // The lock of a living writer, or of somebody who recovers already.
    let _lock = match (file.try_lock(), which) {
        (Ok(None), _) => {
            report.alive.push(path.to_path_buf());
            return Ok(());
        }
        (Ok(lock), _) => lock,
        // Somebody said that they are gone, and here a lock could not say more.
        (Err(_), Which::OfHost { trusts_locks: false, .. }) => None,
        (Err(error), _) => return Err(Error::io("lock", path, error)),
    };
    if file.metadata().map_err(|e| Error::io("stat", path, e))?.links == 0 {
        return Ok(());
    }
    report.files += 1;
    // On a network file system segments, and pages of this file, may not be seen as they are yet.
    let sees_late = matches!(which, Which::OfHost { trusts_locks: false, .. });
    let window = match read_live_window(vfs.as_ref(), path) {
        Ok(Some(window)) => window,
        Ok(None) | Err(Error::Corrupt { .. }) if sees_late => {
            report.waiting.push(path.to_path_buf());
            return Ok(());
        }
        // A writer that died before it had a header.
        Ok(None) => return remove(vfs, path),
        Err(Error::Corrupt { .. }) => return quarantine(vfs, path, report),
        // What cannot be read now is no reason to set it aside.
        Err(error) => return Err(error),
    };
    // Segments after the live file: what was handed over meanwhile is in them.
    let view = reader.refresh()?;
    let (covered, joins) = view.covered(&window)?;
    let is_copy = window.header.store != store && window.header.store != StoreId::default();
    if !joins && (is_copy || sees_late || view.is_cut(window.header.writer)?) {
        // Without all of its writer's segments: only with them it is known which ordinals its points have.
        report.waiting.push(path.to_path_buf());
        return Ok(());
    }
    if !joins {
        // Frames that a power cut took leave a hole before all that is live.
        return quarantine(vfs, path, report);
    }
    let (records, behind_hole) = window.joined(covered);
    let mut ends = HashMap::new();
    let runs: HashSet<Uid> = window.declarations.values().map(|d| d.series.run).collect();
    for run in runs {
        for part in view.series(run)? {
            let end = ends.entry((part.declaration.series.clone(), part.declaration.origin)).or_insert(0);
            *end = part.end().max(*end);
        }
    }
    // In the order of logging, and each part together with the word that it is covered: killed at any point, or given
    // the same file once more, whoever comes next goes on behind it.
    let mut undeclared = 0;
    for part in records.chunks(RECORDS_MAX) {
        let Some(last) = part.last() else { break };
        let (series, unknown) = uncovered(&window, part, &ends);
        undeclared += unknown;
        let mut columns = Vec::with_capacity(series.len());
        let mut numbers = Vec::with_capacity(series.len());
        for (declaration, ..) in &series {
            numbers.push(writer.series_of(&declaration.series, declaration.origin)?);
        }
        for ((declaration, first, points), own) in series.iter().zip(&numbers) {
            let mut ordinal = *first;
            let chunks =
                points.steps.chunks(COLUMN_POINTS_MAX).zip(points.timestamps_ms.chunks(COLUMN_POINTS_MAX));
            for ((steps, timestamps_ms), values) in chunks.zip(points.values.chunks(COLUMN_POINTS_MAX)) {
                let first_ordinal = Some(ordinal);
                columns.push(BulkColumn {
                    series: own,
                    first_ordinal,
                    steps,
                    timestamps_ms,
                    values,
                    extras: &[],
                });
                ordinal += values.len() as u64;
            }
            ends.insert((declaration.series.clone(), declaration.origin), ordinal);
            report.points += points.len() as u64;
        }
        let stamp = Stamp { millis: process::now_ms(), counter: 0, writer: writer.id() };
        writer.append_event_with(&covers_live(stamp, window.header.writer, last.sequence + 1), &columns)?;
        // Each part before the next one: should a power cut take the first and leave the second, this file would count
        // as covered by both, and its points, which may have been synced in it, as lost.
        writer.sync()?;
    }
    match behind_hole > 0 || undeclared > 0 {
        false => remove(vfs, path),
        true if sees_late => {
            report.waiting.push(path.to_path_buf());
            Ok(())
        }
        true => quarantine(vfs, path, report),
    }
}

fn remove(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<()> {
    vfs.remove_file(path).map_err(|e| Error::io("remove", path, e))?;
    let parent = path.parent().unwrap_or(Path::new("."));
    vfs.sync_dir(parent).map_err(|e| Error::io("sync", parent, e))
}

fn quarantine(vfs: &Arc<dyn Vfs>, path: &Path, report: &mut RecoverReport) -> Result<()> {
    let aside = path.with_extension("quarantine");
    vfs.rename(path, &aside).map_err(|e| Error::io("rename", path, e))?;
    report.quarantined.push(aside);
    Ok(())
}
