//! mlrs-db, with its default options, through each of its ways of logging.
//!
//! Contract: ids of runs go to a file beside the store (`<directory>.ids`), because the engine makes them up; what they
//! take is not the store's.

use std::fs;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlrs_db::{
    ExperimentHandle, Metric, Point, Points, Run, RunData, RunOptions, RunSearch, RunStatus, Series, Store,
};

use crate::Outcome;
use crate::data::{
    KEYS, LongRun, M3_BELOW, METRICS, RUN_STEPS, START_MS, SmallRun, TOP, long_key, metric_key, param_key,
    tag_key,
};
use crate::peer::{Checksum, Columns, Peer, RunView};

/// How points of the long run are logged.
pub trait Way {
    /// Whether timestamps are given, or the engine's clock.
    const GIVES_TIMES: bool = true;
    fn log_steps(long: &Long, data: &LongRun, steps: Range<usize>) -> Outcome;
    fn log_point(long: &Long, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome;
}

/// The long run.
pub struct Long {
    run: Run,
    keys: Vec<String>,
    series: Vec<Series>,
}

/// `Series::log_at`, point by point.
pub struct BySeries;

impl Way for BySeries {
    fn log_steps(long: &Long, data: &LongRun, steps: Range<usize>) -> Outcome {
        for step in steps {
            for (series, values) in long.series.iter().zip(&data.values) {
                series.log_at(step as i64, data.timestamps_ms[step], values[step])?;
            }
        }
        Ok(())
    }

    fn log_point(long: &Long, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome {
        Ok(long.series[key].log_at(step, timestamp_ms, value)?)
    }
}

/// `Run::log_metric`: a string key, and the clock.
pub struct ByKey;

impl Way for ByKey {
    const GIVES_TIMES: bool = false;

    fn log_steps(long: &Long, data: &LongRun, steps: Range<usize>) -> Outcome {
        for step in steps {
            for (key, values) in long.keys.iter().zip(&data.values) {
                long.run.log_metric(key, step as i64, values[step])?;
            }
        }
        Ok(())
    }

    fn log_point(long: &Long, key: usize, step: i64, _: i64, value: f64) -> Outcome {
        Ok(long.run.log_metric(&long.keys[key], step, value)?)
    }
}

/// `Run::log_batch`, at most 1,000 points a call.
pub struct ByBatch;

impl Way for ByBatch {
    fn log_steps(long: &Long, data: &LongRun, steps: Range<usize>) -> Outcome {
        let metric = |step: usize, key: usize| Metric {
            key: long.keys[key].clone(),
            point: Point {
                step: step as i64,
                timestamp_ms: data.timestamps_ms[step],
                value: data.values[key][step],
            },
        };
        let batch: Vec<Metric> = steps.flat_map(|step| (0..KEYS).map(move |key| metric(step, key))).collect();
        Ok(long.run.log_batch(&batch, &[], &[])?)
    }

    fn log_point(long: &Long, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome {
        let metric = Metric { key: long.keys[key].clone(), point: Point { step, timestamp_ms, value } };
        Ok(long.run.log_batch(&[metric], &[], &[])?)
    }
}

/// `Run::log_columns`, a call for all keys.
pub struct ByColumns;

impl Way for ByColumns {
    fn log_steps(long: &Long, data: &LongRun, steps: Range<usize>) -> Outcome {
        let numbers: Vec<i64> = steps.clone().map(|step| step as i64).collect();
        let keys = long.keys.iter().map(String::as_str);
        let columns: Vec<(&str, &[f64])> =
            keys.zip(data.values.iter().map(|values| &values[steps.clone()])).collect();
        Ok(long.run.log_columns(&numbers, &data.timestamps_ms[steps], &columns)?)
    }

    fn log_point(long: &Long, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome {
        Ok(long.series[key].log_columns(&[step], &[timestamp_ms], &[value])?)
    }
}

pub struct Mlrs<W> {
    store: Store,
    ids_path: PathBuf,
    /// Ids of the runs by number; read when a run is asked for.
    ids: Vec<String>,
    long: Option<Long>,
    experiment: Option<ExperimentHandle>,
    is_synced: bool,
    /// Runs were started.
    is_changed: bool,
    way: PhantomData<W>,
}

/// Points of a page when a long history is checked.
const PAGE_POINTS: usize = 1 << 20;

/// Where the ids of a store's runs are.
pub fn ids_path(directory: &Path) -> PathBuf {
    directory.with_extension("ids")
}

impl<W> Mlrs<W> {
    fn experiment(&mut self) -> Outcome<&ExperimentHandle> {
        if self.experiment.is_none() {
            self.experiment = Some(self.store.experiment("compare")?);
            self.is_changed = true;
        }
        self.experiment.as_ref().ok_or_else(|| "no experiment".into())
    }

    fn id(&self, number: usize) -> Outcome<&str> {
        self.ids.get(number).map(String::as_str).ok_or_else(|| format!("no run {number}").into())
    }

    fn search(&self, search: RunSearch) -> Outcome<Vec<Arc<RunData>>> {
        Ok(self.store.search_runs(&search)?.items)
    }
}

impl<W: Way> Peer for Mlrs<W> {
    type Run = Arc<RunData>;

    const GIVES_TIMES: bool = W::GIVES_TIMES;

    fn open(directory: &Path, is_synced: bool) -> Outcome<Self> {
        let ids_path = ids_path(directory);
        let ids = fs::read_to_string(&ids_path).unwrap_or_default().lines().map(str::to_owned).collect();
        let store = Store::open(directory)?;
        Ok(Self {
            store,
            ids_path,
            ids,
            long: None,
            experiment: None,
            is_synced,
            is_changed: false,
            way: PhantomData,
        })
    }

    fn begin_long(&mut self, keys: usize) -> Outcome {
        let run = self.experiment()?.start_run(RunOptions::new().name("0").start_ms(START_MS))?;
        let keys: Vec<String> = (0..keys).map(long_key).collect();
        let series = keys.iter().map(|key| run.series(key)).collect::<Result<_, _>>()?;
        self.ids.push(run.id().to_owned());
        self.long = Some(Long { run, keys, series });
        Ok(())
    }

    fn log_steps(&mut self, data: &LongRun, steps: Range<usize>) -> Outcome {
        W::log_steps(self.long.as_ref().ok_or("no run")?, data, steps)?;
        if self.is_synced {
            self.store.sync()?;
        }
        Ok(())
    }

    #[inline]
    fn log_point(&mut self, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome {
        match &self.long {
            Some(long) => W::log_point(long, key, step, timestamp_ms, value),
            None => Err("no run".into()),
        }
    }

    fn log_run(&mut self, run: &SmallRun) -> Outcome {
        let mut options = RunOptions::new().name(run.number.to_string()).start_ms(START_MS);
        for (at, value) in run.params.iter().enumerate() {
            options = options.param(param_key(at), value);
        }
        for (at, value) in run.tags.iter().enumerate() {
            options = options.tag(tag_key(at), value);
        }
        let started = self.experiment()?.start_run(options)?;
        let mut metrics = Vec::with_capacity(METRICS * RUN_STEPS);
        for (metric, values) in run.metrics.iter().enumerate() {
            for (step, value) in values.iter().enumerate() {
                let timestamp_ms = SmallRun::timestamp_ms(run.number, step);
                let point = Point { step: step as i64, timestamp_ms, value: *value };
                metrics.push(Metric { key: metric_key(metric), point });
            }
        }
        started.log_batch(&metrics, &[], &[])?;
        started.set_status(RunStatus::Finished, Some(START_MS + 1))?;
        self.ids.push(started.id().to_owned());
        if self.is_synced {
            self.store.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Outcome {
        Ok(self.store.sync()?)
    }

    fn close(mut self) -> Outcome {
        self.long = None;
        self.experiment = None;
        self.store.close()?;
        if self.is_changed {
            fs::write(self.ids_path, self.ids.join("\n"))?;
        }
        Ok(())
    }

    fn history(&self, key: usize) -> Outcome<Columns> {
        let points: Points = self.store.history(self.id(0)?, &long_key(key))?.collect()?;
        Ok(Columns { steps: points.steps, timestamps_ms: points.timestamps_ms, values: points.values })
    }

    fn checksum(&self, key: usize) -> Outcome<Checksum> {
        let history = self.store.history(self.id(0)?, &long_key(key))?;
        let (mut sum, mut token) = (Checksum::default(), None);
        loop {
            let page = history.page(PAGE_POINTS, token.as_deref())?;
            for point in page.points.iter() {
                let timestamp_ms = if W::GIVES_TIMES { point.timestamp_ms } else { 0 };
                sum.add(point.step, timestamp_ms, point.value);
            }
            token = page.next_page_token;
            if token.is_none() {
                return Ok(sum);
            }
        }
    }

    fn runs(&self) -> Outcome<Vec<Arc<RunData>>> {
        let mut runs = Vec::new();
        let mut search = RunSearch { max_results: 50_000, ..RunSearch::default() };
        loop {
            let mut page = self.store.search_runs(&search)?;
            runs.append(&mut page.items);
            search.page_token = page.next_page_token;
            if search.page_token.is_none() {
                return Ok(runs);
            }
        }
    }

    fn top(&self) -> Outcome<Vec<Arc<RunData>>> {
        self.search(RunSearch {
            filter: format!("metrics.m3 < {M3_BELOW} and params.p1 = 'y'"),
            order_by: vec!["metrics.m3 DESC".into()],
            max_results: TOP,
            ..RunSearch::default()
        })
    }

    fn run(&self, number: usize) -> Outcome<Arc<RunData>> {
        Ok(self.store.get_run(self.id(number)?)?)
    }
}

impl RunView for Arc<RunData> {
    fn number(&self) -> Option<usize> {
        self.name.parse().ok()
    }

    fn param(&self, key: &str) -> Option<&str> {
        self.params.get(key).map(String::as_str)
    }

    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.get(key).map(String::as_str)
    }

    fn latest(&self, metric: &str) -> Option<(i64, i64, f64)> {
        let point = self.metrics.get(metric)?;
        Some((point.step, point.timestamp_ms, point.value))
    }

    fn counts(&self) -> (usize, usize, usize) {
        // The name is kept as a tag of MLflow's, too.
        let tags = self.tags.keys().filter(|key| !key.starts_with("mlflow.")).count();
        (self.params.len(), tags, self.metrics.len())
    }
}
