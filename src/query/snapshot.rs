//! One consistent look at a store.
//!
//! Contract: taken against the flow of data, live windows first, then segments to the end found now; live records that
//! frames cover are dropped. Ordinals of an origin join; a hole means that the look was not consistent (or that there
//! is damage), and the caller looks again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::format::declare::{OwnerKind, SeriesKey};
use crate::id::{Origin, Uid};
use crate::log::{
    ColumnReader, DecodedColumn, LIVE_DIR, LiveWindow, LogReader, OriginStream, SeriesPart, View,
    read_live_windows,
};
use crate::vfs::Vfs;

/// Segments and live points at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub view: Arc<View>,
    /// Each with the sequence below which its records are in frames, and whether the others join what frames hold.
    live: Arc<Vec<(LiveWindow, u64, bool)>>,
    /// Summaries count what is there although points are missing between: another look would find the same.
    pub holes_stay: bool,
}

/// Everything of one series and origin.
#[derive(Clone, Debug)]
pub(crate) struct OriginParts {
    pub origin: Origin,
    pub parts: Vec<SeriesPart>,
    /// Live points, behind those of the parts.
    pub live: Option<DecodedColumn>,
}

impl OriginParts {
    /// The ordinal after the last point, live ones included.
    pub(crate) fn end(&self) -> u64 {
        let live = self.live.as_ref().map(|l| l.first_ordinal + l.values.len() as u64);
        self.parts.iter().map(SeriesPart::end).chain(live).max().unwrap_or(0)
    }

    /// The points from ordinal `from` on; segments only up to what the parts say, then live points.
    pub(crate) fn stream(
        &self,
        reader: &mut ColumnReader,
        ordinals: std::ops::Range<u64>,
    ) -> Result<OriginStream> {
        let mut places = Vec::new();
        for part in &self.parts {
            places.extend(reader.places(part, ordinals.clone())?);
        }
        Ok(OriginStream::new(places, ordinals.start).with_last(self.live.clone()))
    }
}

/// The series of a run: by owner and key, each origin apart.
pub(crate) type RunSeries = BTreeMap<SeriesKey, Vec<OriginParts>>;

impl Snapshot {
    /// Looks at a store.
    pub(crate) fn take(vfs: &dyn Vfs, root: &Path, reader: &LogReader) -> Result<Self> {
        let live = read_live_windows(vfs, &root.join(LIVE_DIR))?;
        let view = reader.refresh()?;
        let mut windows = Vec::with_capacity(live.len());
        for window in live {
            let (covered, joins) = view.covered(&window)?;
            windows.push((window, covered, joins));
        }
        Ok(Self { view, live: Arc::new(windows), holes_stay: false })
    }

    /// A snapshot of segments alone. What lies between them may be in others, or live.
    pub(crate) fn of_view(view: Arc<View>) -> Self {
        Self { view, live: Arc::default(), holes_stay: true }
    }

    /// Live files, each with the sequence below which its records are in frames.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (&LiveWindow, u64)> {
        self.live.iter().map(|(window, covered, _)| (window, *covered))
    }

    /// Whether any live file has something of a run.
    pub(crate) fn has_live(&self, run: Uid) -> bool {
        self.live.iter().any(|(w, ..)| w.declarations.values().any(|d| d.series.run == run))
    }

    /// Live points that are in no segment yet, of all runs.
    pub(crate) fn live_points(&self) -> u64 {
        self.live.iter().map(|(w, covered, _)| w.joined(*covered).0.len() as u64).sum()
    }

    /// Series that have live points.
    pub(crate) fn live_series(&self) -> BTreeSet<SeriesKey> {
        let mut all = BTreeSet::new();
        for (window, covered, _) in self.live.iter() {
            let numbers: BTreeSet<u32> = window.joined(*covered).0.iter().map(|r| r.series).collect();
            let declared = numbers.iter().filter_map(|number| window.declarations.get(number));
            all.extend(declared.map(|d| d.series.clone()));
        }
        all
    }

    /// All series of a run (or other owner).
    pub(crate) fn run_series(&self, run: Uid) -> Result<RunSeries> {
        self.collect(run, |_| true)
    }

    /// One series: its origins.
    pub(crate) fn series(&self, run: Uid, owner: OwnerKind, key: &str) -> Result<Vec<OriginParts>> {
        let found = self.collect(run, |s| s.owner == owner && &*s.key == key)?;
        Ok(found.into_values().next().unwrap_or_default())
    }

    fn collect(&self, run: Uid, wanted: impl Fn(&SeriesKey) -> bool) -> Result<RunSeries> {
        let mut all: BTreeMap<SeriesKey, BTreeMap<Origin, OriginParts>> = BTreeMap::new();
        let mut entry = |series: &SeriesKey, origin: Origin, change: &mut dyn FnMut(&mut OriginParts)| {
            let origins = all.entry(series.clone()).or_default();
            let empty = || OriginParts { origin, parts: Vec::new(), live: None };
            change(origins.entry(origin).or_insert_with(empty));
        };
        for part in self.view.series(run)? {
            if wanted(&part.declaration.series) {
                let (series, origin) = (part.declaration.series.clone(), part.declaration.origin);
                let mut part = Some(part);
                entry(&series, origin, &mut |o| o.parts.extend(part.take()));
            }
        }
        for (window, covered, joins) in self.live.iter() {
            let mut numbers: Vec<(u32, DecodedColumn)> = window
                .declarations
                .iter()
                .filter(|(_, d)| d.series.run == run && wanted(&d.series))
                .map(|(number, _)| (*number, DecodedColumn::default()))
                .collect();
            if numbers.is_empty() {
                continue;
            }
            numbers.sort_unstable_by_key(|(number, _)| *number);
            // Series that are logged together follow each other again and again.
            let mut likely = 0;
            for record in window.joined(*covered).0 {
                if numbers.get(likely).is_none_or(|(number, _)| *number != record.series) {
                    match numbers.binary_search_by_key(&record.series, |(number, _)| *number) {
                        Ok(found) => likely = found,
                        Err(_) => continue,
                    }
                }
                let Some((_, column)) = numbers.get_mut(likely) else { continue };
                column.steps.push(record.point.step);
                column.timestamps_ms.push(record.point.timestamp_ms);
                column.values.push(record.point.value);
                likely += 1;
            }
            for (number, column) in numbers {
                let Some(declaration) = window.declarations.get(&number) else { continue };
                if column.values.is_empty() {
                    continue;
                }
                let mut column = Some(column);
                entry(&declaration.series, declaration.origin, &mut |o| {
                    // Where points are missing before them, they must not look as if they joined.
                    let first_ordinal = o.end() + u64::from(!joins);
                    o.live = column.take().map(|c| DecodedColumn { first_ordinal, ..c });
                });
            }
        }
        Ok(all.into_iter().map(|(series, origins)| (series, origins.into_values().collect())).collect())
    }
}
