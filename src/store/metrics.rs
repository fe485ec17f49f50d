//! Latest values and summaries of a run's metrics.
//!
//! Contract: "latest" is MLflow's: greatest (step, timestamp, value). Answers come from the summaries in directories;
//! only what no directory covers yet is decoded. They are cached until the log changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use rayon::prelude::*;
use serde::Serialize;

use crate::catalog::Entity;
use crate::codec::bytes::Reader;
use crate::codec::summary::Summary;
use crate::error::{Error, Result};
use crate::format::declare::OwnerKind;
use crate::id::Uid;
use crate::log::{ColumnReader, View};
use crate::model::{Point, RunData};
use crate::query::snapshot::{OriginParts, Snapshot};
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

/// What was computed for runs, as long as their log stays the same.
#[derive(Debug, Default)]
pub(crate) struct MetricsCache {
    runs: HashMap<Uid, CachedRun>,
}

/// The summary of one origin's points.
fn origin_summary(parts: &OriginParts, reader: &mut ColumnReader) -> Result<Option<Summary>> {
    let mut whole: Option<Summary> = None;
    let mut add = |summary: Summary| {
        whole = Some(match &whole {
            Some(known) => known.merge(&summary),
            None => summary,
        });
    };
    // Parts of different segments may hold the same points (a copy that was merged in twice): summaries count only
    // where ordinals follow each other.
    let mut sorted: Vec<_> = parts.parts.iter().collect();
    sorted.sort_by_key(|p| (p.extent.first_ordinal, std::cmp::Reverse(p.extent.points)));
    let mut next = 0;
    for part in sorted {
        if part.end() <= next {
            continue;
        }
        if part.extent.first_ordinal >= next && !part.extent.summary.is_empty() {
            let mut bytes = Reader::new(&part.extent.summary);
            add(Summary::decode(&mut bytes).map_err(|m| m.at(&part.segment.path, 0))?);
        } else {
            // The tail of a segment, or an overlap: column by column, each point once.
            let mut places = reader.places(part, next..u64::MAX)?;
            places.sort_by_key(|p| (p.column.first_ordinal, std::cmp::Reverse(p.column.points)));
            let mut from = next;
            for place in places.iter().filter(|place| place.column.points > 0) {
                if place.end() <= from {
                    continue;
                }
                let mut column = reader.read(place)?;
                let known = from.saturating_sub(column.first_ordinal);
                column.drop_front(usize::try_from(known).unwrap_or(usize::MAX));
                from = place.end();
                Summary::of(&column.steps, &column.timestamps_ms, &column.values)
                    .into_iter()
                    .for_each(&mut add);
            }
        }
        next = part.end();
    }
    if let Some(live) = &parts.live {
        // What was recovered from the live file already counts once.
        let mut live = live.clone();
        live.drop_front(usize::try_from(next.saturating_sub(live.first_ordinal)).unwrap_or(usize::MAX));
        Summary::of(&live.steps, &live.timestamps_ms, &live.values).into_iter().for_each(&mut add);
    }
    Ok(whole)
}

/// Summaries of a run's metrics by key.
pub(crate) type RunSummaries = BTreeMap<String, Summary>;

/// The summary of every metric of a run, from the log.
pub(crate) fn run_summaries(snapshot: &Snapshot, run: Uid) -> Result<RunSummaries> {
    let mut all = RunSummaries::new();
    let mut reader = ColumnReader::of_many_series();
    for (series, origins) in snapshot.run_series(run)? {
        if series.owner != OwnerKind::RUN {
            continue;
        }
        let mut whole: Option<Summary> = None;
        for origin in &origins {
            if let Some(summary) = origin_summary(origin, &mut reader)? {
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
        };
        (key, metric)
    };
    summaries.into_iter().map(metric).collect()
}

impl Inner {
    /// Computes the metrics of many runs at once, on a pool that lives for this call, so that what follows finds them
    /// in the cache.
    pub(crate) fn warm_metrics(&self, snapshot: &Snapshot, runs: &[Uid]) -> Result<()> {
        let missing: Vec<Uid> = {
            let cache = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = |run: &Uid| cache.runs.get(run).is_some_and(|c| Arc::ptr_eq(&c.view, &snapshot.view));
            runs.iter().copied().filter(|run| !fits(run)).collect()
        };
        if missing.len() < PARALLEL_RUNS_MIN {
            return Ok(());
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(PARALLEL_THREADS_MAX);
        // Without threads (a limit of the system) the caller does it all, one after the other.
        let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() else { return Ok(()) };
        pool.install(|| missing.par_iter().try_for_each(|run| self.metrics_of(snapshot, *run).map(drop)))
    }

    /// Metrics of a run from the cache or the log.
    pub(crate) fn metrics_of(&self, snapshot: &Snapshot, run: Uid) -> Result<Arc<RunMetrics>> {
        let live = snapshot.has_live(run);
        if !live {
            let cache = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = cache.runs.get(&run).filter(|c| Arc::ptr_eq(&c.view, &snapshot.view)) {
                return Ok(Arc::clone(&known.metrics));
            }
        }
        let indexed =
            if live { None } else { self.index_image().and_then(|image| image.summaries(snapshot, run)) };
        let summaries = match indexed {
            Some(summaries) => summaries,
            None => run_summaries(snapshot, run)?,
        };
        let metrics = Arc::new(metrics_from(summaries));
        if !live {
            let mut cache = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
            let view = Arc::clone(&snapshot.view);
            cache.runs.insert(run, CachedRun { view, metrics: Arc::clone(&metrics), data: None });
        }
        Ok(metrics)
    }

    /// A run as callers see it. `entity` is its present state, `render` draws it without metrics.
    pub(crate) fn run_snapshot(
        &self,
        snapshot: &Snapshot,
        entity: &Arc<Entity>,
        render: impl FnOnce() -> RunData,
    ) -> Result<Arc<RunData>> {
        let run = entity.uid();
        let metrics = self.metrics_of(snapshot, run)?;
        let mut cache = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = cache.runs.get_mut(&run).filter(|c| Arc::ptr_eq(&c.metrics, &metrics));
        if let Some((_, data)) =
            cached.as_ref().and_then(|c| c.data.as_ref()).filter(|(e, _)| Arc::ptr_eq(e, entity))
        {
            return Ok(Arc::clone(data));
        }
        let mut data = render();
        data.metrics = metrics.iter().map(|(key, metric)| (key.clone(), metric.latest)).collect();
        let data = Arc::new(data);
        if let Some(cached) = cached {
            cached.data = Some((Arc::clone(entity), Arc::clone(&data)));
        }
        Ok(data)
    }
}

impl Store {
    /// A run by uid, with its metrics.
    pub(crate) fn run_data(&self, uid: Uid) -> Result<Arc<RunData>> {
        let snapshot = self.inner.snapshot()?;
        let mut state = self.inner.current(Want::Entity(uid))?;
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
        self.inner.run_snapshot(&snapshot, &entity, || catalog.render_run(&entity))
    }

    /// The metrics of a run: points, latest value, last step, least and greatest value, without reading histories.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn metrics(&self, run_id: &str) -> Result<Vec<MetricSummary>> {
        let uid = self.inner.run_uid(run_id)?;
        let snapshot = self.inner.snapshot()?;
        Ok(self.inner.metrics_of(&snapshot, uid)?.values().cloned().collect())
    }

    /// The greatest step of every metric of a run: where to go on after a restart.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn last_steps(&self, run_id: &str) -> Result<BTreeMap<String, i64>> {
        Ok(self.metrics(run_id)?.into_iter().map(|m| (m.key, m.last_step)).collect())
    }
}
