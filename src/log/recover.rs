//! Points of dead writers: from their live files into a segment of ours.
//!
//! Contract: only under the dead writer's own lock, only by a writer, only on local file systems. Points keep their
//! origin and ordinals, so a recovery that is repeated, or was not needed, doubles nothing. A live file is removed only
//! when everything in it is in durable frames; what does not join is quarantined beside it and reported.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::declare::{Declaration, SeriesKey};
use crate::id::Origin;
use crate::limits::COLUMN_POINTS_MAX;
use crate::log::live_reader::{LiveRecord, LiveWindow, read_live_window};
use crate::log::reader::LogReader;
use crate::log::writer::{BulkColumn, LogWriter};
use crate::log::{LIVE_DIR, parse_live_name};
use crate::model::Points;
use crate::vfs::{FileSystem, OpenMode, Vfs};

/// What was found and brought home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecoverReport {
    /// Live files of dead writers.
    pub files: u64,
    /// Points that were in no segment.
    pub points: u64,
    /// Files kept aside because records in them do not join.
    pub quarantined: Vec<PathBuf>,
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
    writer: &LogWriter,
    reader: &LogReader,
) -> Result<RecoverReport> {
    let mut report = RecoverReport::default();
    let live_dir = root.join(LIVE_DIR);
    let entries = match vfs.list(&live_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(report),
        Err(e) => return Err(Error::io("list", &live_dir, e)),
    };
    if vfs.file_system(&live_dir) == FileSystem::Network {
        return Ok(report);
    }
    for entry in entries {
        if parse_live_name(&entry.name).is_some_and(|w| w != writer.id()) {
            recover_one(vfs, &live_dir.join(&entry.name), writer, reader, &mut report)?;
        }
    }
    Ok(report)
}

fn recover_one(
    vfs: &Arc<dyn Vfs>,
    path: &Path,
    writer: &LogWriter,
    reader: &LogReader,
    report: &mut RecoverReport,
) -> Result<()> {
    let file = match vfs.open(path, OpenMode::ReadWrite) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    // The lock of a living writer, or of somebody who recovers already.
    let Some(_lock) = file.try_lock().map_err(|e| Error::io("lock", path, e))? else { return Ok(()) };
    if file.metadata().map_err(|e| Error::io("stat", path, e))?.links == 0 {
        return Ok(());
    }
    report.files += 1;
    let window = match read_live_window(vfs.as_ref(), path) {
        Ok(Some(window)) => window,
        // A writer that died before it had a header.
        Ok(None) => return remove(vfs, path),
        Err(Error::Corrupt { .. }) => return quarantine(vfs, path, report),
        // What cannot be read now is no reason to set it aside.
        Err(error) => return Err(error),
    };
    // Segments after the live file: what was handed over meanwhile is in them.
    let view = reader.refresh()?;
    // Frames that a power cut took leave a hole before all that is live.
    let Some(covered) = view.covered(&window) else { return quarantine(vfs, path, report) };
    let (records, behind_hole) = window.joined(covered);
    let mut ends = HashMap::new();
    for declaration in window.declarations.values() {
        for part in view.series(declaration.series.run)? {
            // Not what an interrupted recovery brought home: those points get the same ordinals again.
            if part.is_handed_over(part.declaration.origin) {
                let key = (part.declaration.series.clone(), part.declaration.origin);
                let end = ends.entry(key).or_insert(0);
                *end = part.end().max(*end);
            }
        }
    }
    let (series, undeclared) = uncovered(&window, records, &ends);
    for (declaration, first, points) in &series {
        let own = writer.series_of(&declaration.series, declaration.origin)?;
        let mut ordinal = *first;
        let chunks =
            points.steps.chunks(COLUMN_POINTS_MAX).zip(points.timestamps_ms.chunks(COLUMN_POINTS_MAX));
        for ((steps, timestamps_ms), values) in chunks.zip(points.values.chunks(COLUMN_POINTS_MAX)) {
            writer.append_columns(&[BulkColumn {
                series: &own,
                first_ordinal: Some(ordinal),
                steps,
                timestamps_ms,
                values,
                extras: &[],
            }])?;
            ordinal += values.len() as u64;
        }
        report.points += points.len() as u64;
    }
    writer.sync()?;
    if behind_hole > 0 || undeclared > 0 { quarantine(vfs, path, report) } else { remove(vfs, path) }
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
