//! What a store holds and what it costs.
//!
//! Contract: read from footers, directories, tails, frame headers and listings; no column is decoded. Points that two
//! segments hold count once.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::format::blob::BLOB_ENTITY;
use crate::format::declare::SeriesKey;
use crate::format::event::{EntityKind, Field};
use crate::format::segment::SegmentKind;
use crate::format::tree_record::KeptFiles;
use crate::id::Origin;
use crate::index::INDEX_FILE;
use crate::log::{LIVE_DIR, Segment, View, event_offsets, parse_live_name};
use crate::store::report::Stats;
use crate::store::state::Want;
use crate::store::{Inner, Store};

/// Extents of one series and origin: (first ordinal, end).
type Extents = HashMap<(SeriesKey, Origin), Vec<(u64, u64)>>;

impl Store {
    /// Counts what the store holds. Cheap beside reading it: directories are read, columns are not.
    ///
    /// # Errors
    /// Whatever reading the log says.
    pub fn stats(&self) -> Result<Stats> {
        let inner = self.inner();
        let snapshot = inner.snapshot()?;
        let mut stats = Stats::default();
        {
            let state = inner.current(Want::All)?;
            stats.experiments = state.catalog.experiments().count() as u64;
            stats.runs = state.catalog.of_kind(EntityKind::RUN).count() as u64;
            stats.trees = state.catalog.of_kind(EntityKind::TREE).count() as u64;
            stats.count_kept(&kept_files(&state.catalog));
        }
        let mut writers = HashSet::new();
        for segment in inner.reader.refresh_whole()?.all_segments() {
            stats.segments += 1;
            stats.segments_sealed += u64::from(segment.header.kind == SegmentKind::Sealed);
            stats.log_bytes += segment.file_len()?;
            writers.insert(segment.header.writer);
        }
        stats.writers = writers.len() as u64;
        let (extents, frame_bytes) = stats.count_segments(&snapshot.view)?;
        let mut series: HashSet<&SeriesKey> = HashSet::new();
        for ((key, _), extents) in &extents {
            series.insert(key);
            stats.points += union(extents);
        }
        if stats.points > 0 {
            stats.bytes_per_point = frame_bytes as f64 / stats.points as f64;
        }
        let live = snapshot.live_series();
        stats.points += snapshot.live_points();
        stats.series = series.into_iter().chain(live.iter()).collect::<HashSet<_>>().len() as u64;
        inner.count_files(&mut stats);
        Ok(stats)
    }
}

/// How the files of imported trees are kept. What was made through the API has no file yet.
fn kept_files(catalog: &Catalog) -> KeptFiles {
    let mut kept = KeptFiles::default();
    for entity in catalog.entries().filter(|e| !e.is_purged() && e.entries(Field::SHAPE).next().is_some()) {
        // Overrides last: they correct what the inputs said.
        for field in [
            Field::SHAPE,
            Field::INPUT,
            Field::MODEL_INPUT,
            Field::MODEL_OUTPUT,
            Field::FILE,
            Field::METRIC_FILE,
            Field::VERBATIM,
        ] {
            for (key, _, value) in entity.entries(field) {
                kept.add(field, key, value);
            }
        }
    }
    kept
}

/// Ordinals in at least one of the extents.
fn union(extents: &[(u64, u64)]) -> u64 {
    let mut sorted = extents.to_vec();
    sorted.sort_unstable();
    let (mut points, mut next) = (0, 0);
    for (first, end) in sorted {
        points += end.saturating_sub(first.max(next));
        next = end.max(next);
    }
    points
}

impl Stats {
    fn count_kept(&mut self, kept: &KeptFiles) {
        (self.yaml_files, self.yaml_verbatim) = (kept.yaml, kept.yaml_verbatim);
        (self.metric_files, self.metric_verbatim) = (kept.metric, kept.metric_verbatim);
        self.verbatim_bytes = kept.verbatim_bytes;
    }

    /// Counts events; returns where points are, and the bytes of the frames that hold them.
    fn count_segments(&mut self, view: &View) -> Result<(Extents, u64)> {
        let mut extents = Extents::new();
        let mut frame_bytes = 0;
        let mut add = |segment: &Segment, frames: &[crate::format::directory::FrameEntry]| {
            for frame in frames {
                frame_bytes += match segment.frame_header(frame.offset) {
                    Err(Error::Corrupt { .. } | Error::TornTail { .. }) if view.skip_damage => {
                        segment.pass_over(frame.offset);
                        continue;
                    }
                    header => header?.frame_len(),
                };
            }
            crate::Result::Ok(())
        };
        for (segment, state) in &view.segments {
            self.events += match state.footer {
                Some(footer) => footer.events,
                None => event_offsets(segment, state, 0)?.len() as u64,
            };
            for directory in &state.directories {
                add(segment, &directory.head.frames)?;
                for row in directory.head.rows.iter().filter(|row| row.kind != BLOB_ENTITY) {
                    for series in segment.row_entry(directory, row)?.series {
                        let first = series.extent.first_ordinal;
                        let key = (series.declaration.series, series.declaration.origin);
                        extents.entry(key).or_default().push((first, first + series.extent.points));
                    }
                }
            }
            add(segment, &state.tail.frames)?;
            for series in state.tail.entities.values().flat_map(|(_, entry)| &entry.series) {
                let first = series.extent.first_ordinal;
                let key = (series.declaration.series.clone(), series.declaration.origin);
                extents.entry(key).or_default().push((first, first + series.extent.points));
            }
        }
        Ok((extents, frame_bytes))
    }
}

impl Inner {
    fn count_files(&self, stats: &mut Stats) {
        let len = |path: &Path| self.vfs.metadata(path).map_or(0, |m| m.len);
        stats.index_bytes = len(&self.root.join(INDEX_FILE));
        let live_dir = self.root.join(LIVE_DIR);
        let live = self.vfs.list(&live_dir).unwrap_or_default();
        let live = live.iter().filter(|entry| parse_live_name(&entry.name).is_some());
        stats.live_bytes = live.map(|entry| len(&live_dir.join(&entry.name))).sum();
        stats.artifact_bytes = self.tree_bytes(&self.root.join("artifacts"));
    }

    /// Bytes of all files below a folder; links are not followed.
    fn tree_bytes(&self, folder: &Path) -> u64 {
        let mut bytes = 0;
        for entry in self.vfs.list(folder).unwrap_or_default() {
            let path = folder.join(&entry.name);
            if self.vfs.is_symlink(&path) {
                continue;
            }
            bytes += if entry.is_dir {
                self.tree_bytes(&path)
            } else {
                self.vfs.metadata(&path).map_or(0, |m| m.len)
            };
        }
        bytes
    }
}
