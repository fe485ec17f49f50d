//! Latest values and summaries of a run's metrics.
//!
//! Contract: "latest" is MLflow's: greatest (step, timestamp, value). Answers come from the summaries in directories;
//! only what no directory covers yet is decoded. They are cached until the log changes, as far as the cache has room.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use rayon::prelude::*;
use serde::Serialize;

use crate::catalog::Entity;
use crate::codec::summary::Summary;
use crate::error::{Error, Result};
use crate::format::declare::OwnerKind;
use crate::id::Uid;
use crate::limits::CACHED_RUN_ITEMS_MAX;
use crate::log::{ColumnReader, View};
use crate::model::{Point, RunData};
use crate::query::snapshot::{OriginParts, Snapshot};
use crate::query::walk::{Piece, Walk};
use crate::store::state::Want;
use crate::store::{Inner, Store};

/// Runs from which on metrics are computed by several threads.
const PARALLEL_RUNS_MIN: usize = 64;
/// Threads of one such computation.
const PARALLEL_THREADS_MAX: usize = 8;

/// What is known of one metric without reading its history.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricSummary {
    /// The key.
    pub key: String,
    /// Points.
    pub points: u64,
    /// The latest one as MLflow defines it.
    pub latest: Point,
    /// The greatest step.
    pub last_step: i64,
    /// The least value; NaN if all are.
    pub min: f64,
    /// The greatest value; NaN if all are.
    pub max: f64,
    /// How many values are NaN.
    pub nan_count: u64,
    /// The greatest timestamp.
    pub newest_ms: i64,
}

/// Metrics of a run by key.
pub(crate) type RunMetrics = BTreeMap<String, MetricSummary>;

#[derive(Debug)]
struct CachedRun {
    view: Arc<View>,
    metrics: Arc<RunMetrics>,
    /// The run as it was rendered from this entity and these metrics.
    data: Option<(Arc<Entity>, Arc<RunData>)>,
}

impl CachedRun {
    /// What it takes of [`CACHED_RUN_ITEMS_MAX`].
    fn items(&self) -> usize {
        let data = self.data.as_ref().map_or(0, |(_, data)| data.params.len() + data.tags.len());
        1 + self.metrics.len() + data
    }
}

/// What was computed for runs, as long as the log stays the same: what it has overtaken goes. It never holds more than
/// its maximum: then further runs are computed anew each time. (Letting the oldest go would leave nothing for the next
/// search of all runs, which asks in the same order.)
#[derive(Debug)]
pub(crate) struct MetricsCache {
    runs: HashMap<Uid, CachedRun>,
    items: usize,
    items_max: usize,
    /// What was outdated for this view was thrown out.
    swept: Option<Arc<View>>,
}

impl Default for MetricsCache {
    fn default() -> Self {
        Self { runs: HashMap::new(), items: 0, items_max: CACHED_RUN_ITEMS_MAX, swept: None }
    }
}

impl MetricsCache {
    /// What is known of a run, if its log is still this.
    fn get(&self, run: Uid, view: &Arc<View>) -> Option<&CachedRun> {
        self.runs.get(&run).filter(|cached| Arc::ptr_eq(&cached.view, view))
    }

    fn remove(&mut self, run: Uid) {
        if let Some(old) = self.runs.remove(&run) {
            self.items -= old.items();
        }
    }

    /// Remembers a run, if there is room.
    fn insert(&mut self, run: Uid, cached: CachedRun) {
        self.remove(run);
        let items = cached.items();
        let is_swept = self.swept.as_ref().is_some_and(|view| Arc::ptr_eq(view, &cached.view));
        // Once for each view: all that is left then is current, and looking at it again would cost a search of many
        // runs the square of their number. Not only where there is no room: an entry holds its view, and views are as
        // large as the store, so one for each run that was looked at while others were logged would fill the memory.
        if !is_swept {
            self.swept = Some(Arc::clone(&cached.view));
            self.runs.retain(|_, old| Arc::ptr_eq(&old.view, &cached.view));
            self.items = self.runs.values().map(CachedRun::items).sum();
        }
        if self.items.saturating_add(items) <= self.items_max {
            self.items += items;
            self.runs.insert(run, cached);
        }
    }
}

/// The summary of one origin's points. Points that are missing are an error ([`Error::Gap`] of run and key), unless
/// another look would miss them, too.
pub(super) fn origin_summary(
    run: Uid,
    key: &str,
    parts: &OriginParts,
    reader: &mut ColumnReader,
    holes_stay: bool,
) -> Result<Option<Summary>> {
    let mut whole: Option<Summary> = None;
    let mut add = |summary: Summary| {
        whole = Some(match &whole {
            Some(known) => known.merge(&summary),
            None => summary,
        });
    };
    let walk = Walk {
        run: &run.to_string(),
        key,
        holes_allowed: holes_stay || reader.holes_allowed,
        is_enough: &|_| true,
        take: &mut |piece| match piece {
            Piece::Summary(summary) => add(summary),
            Piece::Points(points) => {
                let summary = Summary::of(&points.steps, &points.timestamps_ms, &points.values);
                summary.into_iter().for_each(&mut add);
            }
        },
    };
    walk.run(parts, reader)?;
    Ok(whole)
}

/// Summaries of a run's metrics by key.
pub(crate) type RunSummaries = BTreeMap<String, Summary>;

/// The summary of every metric of a run, from the log; of what is intact if `skip_damage`.
pub(crate) fn run_summaries(snapshot: &Snapshot, run: Uid, skip_damage: bool) -> Result<RunSummaries> {
    let mut all = RunSummaries::new();
    let mut reader = ColumnReader::of_many_series();
    reader.holes_allowed = skip_damage;
    for (series, origins) in snapshot.run_series(run)? {
        if series.owner != OwnerKind::RUN {
            continue;
        }
        let mut whole: Option<Summary> = None;
        for origin in &origins {
            if let Some(summary) = origin_summary(run, &series.key, origin, &mut reader, snapshot.holes_stay)?
            {
                whole = Some(whole.map_or(summary, |known| known.merge(&summary)));
            }
        }
        if let Some(summary) = whole {
            all.insert(series.key.to_string(), summary);
        }
    }
    Ok(all)
}

fn metrics_from(summaries: RunSummaries) -> RunMetrics {
    let metric = |(key, summary): (String, Summary)| {
        let metric = MetricSummary {
            key: key.clone(),
            points: summary.count,
            latest: summary.latest,
            last_step: summary.step_max,
            min: summary.min.unwrap_or(f64::NAN),
            max: summary.max.unwrap_or(f64::NAN),
            nan_count: summary.nan_count,
            newest_ms: summary.timestamp_max,
        };
        (key, metric)
    };
    summaries.into_iter().map(metric).collect()
}

impl Inner {
    /// The metrics of many runs, in their order; where much is to be computed, on a pool that lives for this call.
    pub(crate) fn metrics_of_all(&self, snapshot: &Snapshot, runs: &[Uid]) -> Result<Vec<Arc<RunMetrics>>> {
        let missing = {
            let cache = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
            runs.iter().filter(|run| cache.get(**run, &snapshot.view).is_none()).count()
        };
        if missing >= PARALLEL_RUNS_MIN {
            let threads =
                std::thread::available_parallelism().map_or(1, usize::from).min(PARALLEL_THREADS_MAX);
            // Without threads (a limit of the system) this one does it all.
            if let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
                return pool.install(|| runs.par_iter().map(|run| self.metrics_of(snapshot, *run)).collect());
            }
        }
        runs.iter().map(|run| self.metrics_of(snapshot, *run)).collect()
    }

    /// Metrics of a run from the cache or the log.
    pub(crate) fn metrics_of(&self, snapshot: &Snapshot, run: Uid) -> Result<Arc<RunMetrics>> {
        let live = snapshot.has_live(run);
        if !live {
            let cache = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = cache.get(run, &snapshot.view) {
                return Ok(Arc::clone(&known.metrics));
            }
        }
        let indexed =
            if live { None } else { self.index_image().and_then(|image| image.summaries(snapshot, run)) };
        let summaries = match indexed {
            Some(summaries) => summaries,
            None => run_summaries(snapshot, run, self.options.skip_damage)?,
        };
        let metrics = Arc::new(metrics_from(summaries));
        if !live {
            let mut cache = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
            let view = Arc::clone(&snapshot.view);
            cache.insert(run, CachedRun { view, metrics: Arc::clone(&metrics), data: None });
        }
        Ok(metrics)
    }

    /// A run as callers see it. `entity` is its present state, `metrics` are what [`Inner::metrics_of`] gave, `render`
    /// draws it without metrics.
    pub(crate) fn run_snapshot(
        &self,
        entity: &Arc<Entity>,
        metrics: &Arc<RunMetrics>,
        render: impl FnOnce() -> RunData,
    ) -> Arc<RunData> {
        let run = entity.uid();
        let mut cache = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = cache.runs.get(&run).filter(|c| Arc::ptr_eq(&c.metrics, metrics));
        if let Some((_, data)) =
            cached.and_then(|c| c.data.as_ref()).filter(|(known, _)| Arc::ptr_eq(known, entity))
        {
            return Arc::clone(data);
        }
        let mut data = render();
        data.metrics = metrics.iter().map(|(key, metric)| (key.clone(), metric.latest)).collect();
        let data = Arc::new(data);
        if let Some(view) = cached.map(|c| Arc::clone(&c.view)) {
            let data = Some((Arc::clone(entity), Arc::clone(&data)));
            cache.insert(run, CachedRun { view, metrics: Arc::clone(metrics), data });
        }
        data
    }
}

impl Store {
    /// A run by uid, with its metrics.
    pub(crate) fn run_data(&self, uid: Uid) -> Result<Arc<RunData>> {
        self.inner().with_snapshot(|snapshot| self.run_data_at(snapshot, uid))
    }

    fn run_data_at(&self, snapshot: &Snapshot, uid: Uid) -> Result<Arc<RunData>> {
        let mut state = self.inner().current(Want::Entity(uid))?;
        let entity =
            state.catalog.run(uid).cloned().ok_or_else(|| Error::not_found("run", uid.to_string()))?;
        // The experiment's id and the data sets stand in other entities.
        state.ensure(Want::Experiments)?;
        let datasets: Vec<Uid> = entity
            .entries(crate::format::event::Field::INPUT)
            .filter_map(|(key, ..)| key.parse().ok())
            .collect();
        for dataset in datasets {
            state.ensure(Want::Entity(dataset))?;
        }
        let catalog = &state.catalog;
        let metrics = self.inner().metrics_of(snapshot, uid)?;
        Ok(self.inner().run_snapshot(&entity, &metrics, || catalog.render_run(&entity)))
    }

    /// The metrics of a run: points, latest value, last step, least and greatest value, without reading histories.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn metrics(&self, run_id: &str) -> Result<Vec<MetricSummary>> {
        let uid = self.inner().run_uid(run_id)?;
        let metrics = self.inner().with_snapshot(|snapshot| self.inner().metrics_of(snapshot, uid))?;
        Ok(metrics.values().cloned().collect())
    }

    /// The greatest step of one metric of a run.
    pub(crate) fn last_step_of(&self, run: Uid, key: &str) -> Result<Option<i64>> {
        let inner = self.inner();
        inner.with_snapshot(|snapshot| {
            let mut reader = ColumnReader::default();
            reader.holes_allowed = inner.options.skip_damage;
            let mut last = None;
            for origin in snapshot.series(run, OwnerKind::RUN, key)? {
                let summary = origin_summary(run, key, &origin, &mut reader, snapshot.holes_stay)?;
                last = last.max(summary.map(|summary| summary.step_max));
            }
            Ok(last)
        })
    }

    /// The greatest step of every metric of a run: where to go on after a restart.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn last_steps(&self, run_id: &str) -> Result<BTreeMap<String, i64>> {
        Ok(self.metrics(run_id)?.into_iter().map(|m| (m.key, m.last_step)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(number: u8) -> Uid {
        Uid::from_bytes([number; 16])
    }

    /// A run with three metrics: four items.
    fn cached(view: &Arc<View>) -> CachedRun {
        let latest = Point { step: 0, timestamp_ms: 0, value: 0.0 };
        let metric = |key: &str| {
            let (key, min, max) = (key.to_owned(), 0.0, 0.0);
            MetricSummary { key, points: 1, latest, last_step: 0, min, max, nan_count: 0, newest_ms: 0 }
        };
        let metrics = ["a", "b", "c"].map(|key| (key.to_owned(), metric(key)));
        CachedRun { view: Arc::clone(view), metrics: Arc::new(metrics.into()), data: None }
    }

    #[test]
    fn the_cache_has_a_maximum_and_what_is_outdated_goes_first() {
        let (old, new) = (Arc::new(View::default()), Arc::new(View::default()));
        let mut cache = MetricsCache { items_max: 10, ..MetricsCache::default() };
        (0..5).for_each(|n| cache.insert(uid(n), cached(&old)));
        let held = |cache: &MetricsCache, view| (0..5).filter(|n| cache.get(uid(*n), view).is_some()).count();
        assert_eq!((held(&cache, &old), cache.items), (2, 8), "what was there first stays");
        // Again the same run: it counts once.
        (0..5).for_each(|_| cache.insert(uid(1), cached(&old)));
        assert_eq!((held(&cache, &old), cache.items), (2, 8));
        cache.insert(uid(4), cached(&new));
        assert_eq!((held(&cache, &old), held(&cache, &new), cache.items), (0, 1, 4));
        // Also where there is room for more: no look at one run keeps an old view.
        let newest = Arc::new(View::default());
        cache.insert(uid(0), cached(&newest));
        assert_eq!((Arc::strong_count(&old), Arc::strong_count(&new)), (1, 1));
        // One run alone may be too much.
        let mut tiny = MetricsCache { items_max: 3, ..MetricsCache::default() };
        tiny.insert(uid(0), cached(&old));
        assert_eq!((tiny.runs.len(), tiny.items), (0, 0));
    }
}
