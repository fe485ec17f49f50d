//! Runs: start, log, finish, delete, restore.
//!
//! Contract: one event and one write per call. Runs that this process started need no lock; a param of a run that
//! another writer started is a claim. MLflow allows logging to a finished run, and so do we; a deleted one refuses.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::catalog::changes::{self, NewRun, RunUpdate};
use crate::catalog::{Catalog, rules};
use crate::error::{Error, Result};
use crate::format::event::{Field, Operation};
use crate::id::Uid;
use crate::limits::{BATCH_COLUMNS_MAX, BATCH_POINTS_MAX, COLUMN_POINTS_MAX};
use crate::log::{BulkColumn, SeriesNumber};
use crate::model::{DatasetInput, Point, RunData, RunStatus};
use crate::store::experiments::{now_ms, pairs};
use crate::store::state::Want;
use crate::store::{Series, Store};
use crate::vfs::{PerProcess, process};

/// How a run is started.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    name: String,
    user: String,
    start_ms: Option<i64>,
    params: Vec<(String, String)>,
    tags: Vec<(String, String)>,
    parent: Option<String>,
    artifact_uri: Option<String>,
}

impl RunOptions {
    /// Nothing given: a generated name, now, no params, no tags.
    pub fn new() -> Self {
        Self::default()
    }

    /// The display name; also kept as tag `mlflow.runName`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Who runs it; also kept as tag `mlflow.user` by MLflow's own clients, not here.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// When it started, in milliseconds since 1970, if not now.
    pub fn start_ms(mut self, start_ms: i64) -> Self {
        self.start_ms = Some(start_ms);
        self
    }

    /// Adds a param.
    pub fn param(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.push((key.into(), value.into()));
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// The run that this one is part of (tag `mlflow.parentRunId`).
    pub fn parent(mut self, run_id: impl Into<String>) -> Self {
        self.parent = Some(run_id.into());
        self
    }

    /// Where its artifacts are, if not inside the store; kept as it is.
    pub fn artifact_uri(mut self, uri: impl Into<String>) -> Self {
        self.artifact_uri = Some(uri.into());
        self
    }
}

/// One value of `log_batch`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The metric key.
    pub key: String,
    /// The point.
    pub point: Point,
}

impl Metric {
    /// A value now.
    pub fn new(key: impl Into<String>, step: i64, value: f64) -> Self {
        Self { key: key.into(), point: Point { step, timestamp_ms: coarse_now(), value } }
    }
}

/// A number from a random uid, for a name that is made up.
pub(crate) fn name_seed(uid: Uid) -> u64 {
    uid.as_bytes().iter().fold(0u64, |hash, &b| hash.rotate_left(8) ^ u64::from(b))
}

/// Milliseconds since 1970 from the coarse clock: 2.5 ns instead of 20, and a few ms behind at most.
pub(crate) fn coarse_now() -> i64 {
    i64::try_from(process::coarse_now_ms()).unwrap_or(i64::MAX)
}

#[derive(Debug)]
struct RunInner {
    store: Store,
    uid: Uid,
    id: String,
    known: PerProcess<Known>,
}

/// What this process knows of a run.
#[derive(Debug, Default)]
struct Known {
    /// It started the run: its params are no claims.
    own: bool,
    series: RwLock<HashMap<String, Series>>,
    /// Set once the run was seen not to be deleted.
    active: OnceLock<()>,
}

/// A run to log to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Run {
    inner: Arc<RunInner>,
}

impl Run {
    fn new(store: &Store, uid: Uid, id: String, own: bool) -> Self {
        let known = PerProcess::new(Known { own, ..Known::default() });
        Self { inner: Arc::new(RunInner { store: store.clone(), uid, id, known }) }
    }

    /// Whether this process started it: then its params are no claims.
    pub(super) fn is_own(&self) -> bool {
        self.known().own
    }

    fn known(&self) -> &Known {
        self.inner.known.get(|_| Known::default())
    }

    pub(crate) fn start(store: &Store, experiment: Uid, options: &RunOptions) -> Result<Self> {
        let uid = Uid::random()?;
        let params = pairs(&options.params);
        let mut tags = pairs(&options.tags);
        if let Some(parent) = &options.parent {
            tags.push(("mlflow.parentRunId", parent));
        }
        let new = NewRun {
            uid,
            experiment,
            name: &options.name,
            user: &options.user,
            start_ms: options.start_ms.unwrap_or_else(now_ms),
            params: &params,
            tags: &tags,
            artifact_uri: options.artifact_uri.as_deref(),
            random: name_seed(uid),
        };
        // The run's uid is new, so there is nothing to load of it; of the experiment its lifecycle matters.
        let wants = [Want::Entity(experiment)];
        store.inner().change(&wants, false, |catalog| changes::create_run(catalog, &new))?;
        let run = Self::new(store, uid, uid.to_string(), true);
        let _ = run.known().active.set(());
        Ok(run)
    }

    /// The run id.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Its identity inside the engine.
    pub fn uid(&self) -> Uid {
        self.inner.uid
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What is known of it now.
    ///
    /// # Errors
    /// As [`Store::get_run`].
    pub fn data(&self) -> Result<Arc<RunData>> {
        self.inner.store.run_data(self.inner.uid)
    }

    /// A series of this run, resolved once: the fast way to log many points of one key.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a key that breaks MLflow's rules.
    pub fn series(&self, key: &str) -> Result<Series> {
        let known = self.known().series.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(series) = known {
            return Ok(series);
        }
        rules::metric_key(key, "")?;
        self.check_active()?;
        let series = Series::new(&self.inner.store, self.inner.uid, key)?;
        let mut all = self.known().series.write().unwrap_or_else(PoisonError::into_inner);
        Ok(all.entry(key.to_owned()).or_insert(series).clone())
    }

    /// A deleted run refuses; looked at once per handle, so that logging stays at memory speed.
    pub(super) fn check_active(&self) -> Result<()> {
        if self.known().active.get().is_none() {
            let state = self.inner.store.inner().current(Want::Entity(self.inner.uid))?;
            let run = state.catalog.run(self.inner.uid).ok_or_else(|| Error::not_found("run", self.id()))?;
            rules::run_is_active(run)?;
            let _ = self.known().active.set(());
        }
        Ok(())
    }

    /// Looks again whether the run was deleted since the handle was made, by whomever: other calls look once.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if it is deleted, [`Error::NotFound`] if it is gone for good.
    pub fn check_active_again(&self) -> Result<()> {
        let state = self.inner.store.inner().current(Want::Entity(self.inner.uid))?;
        let run = state.catalog.run(self.inner.uid).ok_or_else(|| Error::not_found("run", self.id()))?;
        rules::run_is_active(run)
    }

    /// Logs one value, now.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a bad key, [`Error::Busy`] if the disk has been behind for too long,
    /// [`Error::DiskFull`].
    pub fn log_metric(&self, key: &str, step: i64, value: f64) -> Result<()> {
        self.series(key)?.log(step, value)
    }

    /// Logs several values with one step and one timestamp: all of them or none.
    ///
    /// # Errors
    /// As [`Run::log_metric`].
    pub fn log_metrics<'a>(&self, step: i64, values: impl IntoIterator<Item = (&'a str, f64)>) -> Result<()> {
        let timestamp_ms = coarse_now();
        // The caller's iterator may log, too, so it is used up before the lock.
        let values: Vec<(&str, f64)> = values.into_iter().collect();
        let mut numbers: Vec<SeriesNumber> = Vec::with_capacity(values.len());
        {
            let known = self.known().series.read().unwrap_or_else(PoisonError::into_inner);
            let known = values.iter().map_while(|(key, _)| known.get(*key));
            numbers.extend(known.map(|series| Arc::clone(series.number())));
        }
        for (key, _) in values.get(numbers.len()..).unwrap_or_default() {
            numbers.push(Arc::clone(self.series(key)?.number()));
        }
        let point = |value| Point { step, timestamp_ms, value };
        let points: Vec<_> =
            numbers.iter().zip(&values).map(|(number, (_, value))| (number, point(*value))).collect();
        if points.is_empty() { Ok(()) } else { self.inner.store.inner().writer()?.log(&points) }
    }

    /// Logs several series that share their steps and timestamps: a key and its values each, as long as the steps. They
    /// become batches at once, behind what was logged before: no live file, no copy per point, and steps and
    /// timestamps are stored once. Every 4,096 steps are a write of their own.
    ///
    /// ```
    /// # fn main() -> mlrs_db::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// let store = mlrs_db::Store::open(directory.path().join("my-store"))?;
    /// let run = store.experiment("mnist")?.start_run(mlrs_db::RunOptions::new())?;
    /// let (steps, timestamps_ms) = ([0, 1, 2], [10, 20, 30]);
    /// run.log_columns(&steps, &timestamps_ms, &[("loss", &[0.9, 0.7, 0.6]), ("acc", &[0.1, 0.3, 0.4])])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for columns of different lengths, a bad key and a time before 1970: then nothing is
    /// logged. [`Error::DiskFull`]: then some of the writes may be there, each with all series (up to
    /// 1,024).
    pub fn log_columns(
        &self,
        steps: &[i64],
        timestamps_ms: &[i64],
        columns: &[(&str, &[f64])],
    ) -> Result<()> {
        let mut series = Vec::with_capacity(columns.len());
        for (key, values) in columns {
            let one = self.series(key)?;
            one.check_columns(steps, timestamps_ms, values)?;
            series.push(one);
        }
        let writer = self.inner.store.inner().writer()?;
        let numbers = series.iter().map(|one| one.number_of(writer)).collect::<Result<Vec<_>>>()?;
        let chunks = steps.chunks(COLUMN_POINTS_MAX).zip(timestamps_ms.chunks(COLUMN_POINTS_MAX));
        // A batch has room for so many points of all its columns.
        let width = (BATCH_POINTS_MAX / COLUMN_POINTS_MAX).min(BATCH_COLUMNS_MAX);
        for (at, (steps, timestamps_ms)) in chunks.enumerate() {
            let part = at * COLUMN_POINTS_MAX..at * COLUMN_POINTS_MAX + steps.len();
            for (numbers, columns) in numbers.chunks(width).zip(columns.chunks(width)) {
                let batch: Vec<_> = numbers
                    .iter()
                    .zip(columns)
                    .map(|(number, (_, values))| BulkColumn {
                        series: number,
                        first_ordinal: None,
                        steps,
                        timestamps_ms,
                        values: values.get(part.clone()).unwrap_or_default(),
                        extras: &[],
                    })
                    .collect();
                writer.append_columns(&batch)?;
            }
        }
        Ok(())
    }

    /// Logs metrics, params and tags in one event and one write: all of it or nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] past MLflow's limits (1,000 metrics, 100 params, 100 tags, 1,000 in all), for bad
    /// keys and for a param that has another value already; then nothing is logged.
    pub fn log_batch(
        &self,
        metrics: &[Metric],
        params: &[(&str, &str)],
        tags: &[(&str, &str)],
    ) -> Result<()> {
        rules::batch(metrics.len(), params.len(), tags.len())?;
        self.check_metrics(metrics)?;
        let points: Result<Vec<_>> = metrics.iter().map(|m| Ok((self.series(&m.key)?, m.point))).collect();
        let points = points?;
        if params.is_empty() && tags.is_empty() {
            let points: Vec<_> = points.iter().map(|(series, point)| (series.number(), *point)).collect();
            return if points.is_empty() { Ok(()) } else { self.inner.store.inner().writer()?.log(&points) };
        }
        self.check_active()?;
        let grouped = GroupedColumns::new(&points);
        let (uid, claim) = (self.inner.uid, !self.known().own && !params.is_empty());
        let columns = grouped.columns();
        self.inner.store.inner().change_with(&[Want::Entity(uid)], claim, &columns, |catalog| {
            changes::log_batch(catalog, uid, params, tags)
        })?;
        Ok(())
    }

    /// Checks keys and timestamps of a batch; a key that has a series passed the rules once.
    fn check_metrics(&self, metrics: &[Metric]) -> Result<()> {
        let known = self.known().series.read().unwrap_or_else(PoisonError::into_inner);
        for (at, metric) in metrics.iter().enumerate() {
            if !known.contains_key(metric.key.as_str()) {
                rules::metric_key(&metric.key, &format!("metrics[{at}]"))?;
            }
            if metric.point.timestamp_ms < 0 {
                let (value, timestamp_ms) = (metric.point.value, metric.point.timestamp_ms);
                rules::metric_timestamp(&metric.key, value, timestamp_ms, &format!("metrics[{at}]"))?;
            }
        }
        Ok(())
    }

    /// Logs a param; the same value again is fine, another one is refused.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a changed value or a bad key.
    pub fn log_param(&self, key: &str, value: &str) -> Result<()> {
        self.log_params([(key, value)])
    }

    /// Logs params: all or none.
    ///
    /// # Errors
    /// As [`Run::log_param`].
    pub fn log_params<'a>(&self, params: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<()> {
        let params: Vec<_> = params.into_iter().collect();
        self.change(!self.known().own, |catalog, uid| changes::log_params(catalog, uid, &params))
    }

    /// Sets a tag.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for keys and values that break MLflow's rules.
    pub fn set_tag(&self, key: &str, value: &str) -> Result<()> {
        self.set_tags([(key, value)])
    }

    /// Sets tags: all or none.
    ///
    /// # Errors
    /// As [`Run::set_tag`].
    pub fn set_tags<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<()> {
        let tags: Vec<_> = tags.into_iter().collect();
        self.change(false, |catalog, uid| changes::set_run_tags(catalog, uid, &tags))
    }

    /// Deletes a tag.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such tag.
    pub fn delete_tag(&self, key: &str) -> Result<()> {
        self.change(false, |catalog, uid| changes::delete_run_tag(catalog, uid, key))
    }

    /// Names data sets that the run used. One that is named already stays as it is.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] past MLflow's limits.
    pub fn log_inputs(&self, inputs: &[DatasetInput]) -> Result<()> {
        let uid = self.inner.uid;
        let store = self.inner.store.inner();
        let experiment = {
            let state = store.current(Want::Entity(uid))?;
            state.catalog.run(uid).and_then(|run| run.reference(Field::EXPERIMENT)).unwrap_or_default()
        };
        // A data set that was logged before keeps what it says, so it must be known, whoever logged it.
        let dataset = |input: &DatasetInput| {
            Want::Entity(changes::dataset_uid(experiment, &input.dataset.name, &input.dataset.digest))
        };
        let wants: Vec<Want> = std::iter::once(Want::Entity(uid)).chain(inputs.iter().map(dataset)).collect();
        store.change(&wants, false, |catalog| changes::log_inputs(catalog, uid, inputs))?;
        Ok(())
    }

    /// Gives the run another name.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if it is deleted.
    pub fn rename(&self, name: &str) -> Result<()> {
        self.update(None, None, Some(name))
    }

    /// Sets the status; a final one also sets the end time. A run may be set back to running.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if it is deleted.
    pub fn finish(&self, status: RunStatus) -> Result<()> {
        let end_ms = status.is_terminated().then(now_ms);
        self.update(Some(status), end_ms, None)
    }

    /// Sets status and end time as given.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if the run is deleted.
    pub fn set_status(&self, status: RunStatus, end_ms: Option<i64>) -> Result<()> {
        self.update(Some(status), end_ms, None)
    }

    /// Sets status, end time (in milliseconds since 1970) and name in one event; what is none stays, as does the name
    /// where it is empty.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if the run is deleted.
    pub fn update(&self, status: Option<RunStatus>, end_ms: Option<i64>, name: Option<&str>) -> Result<()> {
        let update = RunUpdate { status, end_ms, name };
        self.change(false, |catalog, uid| changes::update_run(catalog, uid, update))
    }

    /// Adds a model's description (JSON) to the list that MLflow 1 and 2 keep in the tag `mlflow.log-model.history`.
    /// The list has no greatest length, as in MLflow.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if the run is deleted.
    pub fn append_model_history(&self, model: &str) -> Result<()> {
        self.change(false, |catalog, uid| changes::append_model_history(catalog, uid, model))
    }

    /// Changes metadata of this run alone; see [`crate::store::Inner::change`].
    pub(super) fn change(
        &self,
        claim: bool,
        change: impl FnOnce(&Catalog, Uid) -> Result<Vec<Operation>>,
    ) -> Result<()> {
        let uid = self.inner.uid;
        let wants = [Want::Entity(uid)];
        self.inner.store.inner().change(&wants, claim, |catalog| change(catalog, uid))?;
        Ok(())
    }
}

/// One series with its steps, timestamps and values.
type GroupedColumn = (Series, Vec<i64>, Vec<i64>, Vec<f64>);

/// The metrics of one call, by series.
struct GroupedColumns {
    columns: Vec<GroupedColumn>,
}

impl GroupedColumns {
    fn new(points: &[(Series, Point)]) -> Self {
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut columns: Vec<GroupedColumn> = Vec::new();
        for (series, point) in points {
            let place = *places.entry(series.number().number).or_insert_with(|| {
                columns.push((series.clone(), Vec::new(), Vec::new(), Vec::new()));
                columns.len() - 1
            });
            if let Some((_, steps, timestamps_ms, values)) = columns.get_mut(place) {
                steps.push(point.step);
                timestamps_ms.push(point.timestamp_ms);
                values.push(point.value);
            }
        }
        Self { columns }
    }

    fn columns(&self) -> Vec<BulkColumn<'_>> {
        self.columns
            .iter()
            .map(|(series, steps, timestamps_ms, values)| BulkColumn {
                series: series.number(),
                first_ordinal: None,
                steps,
                timestamps_ms,
                values,
                extras: &[],
            })
            .collect()
    }
}

impl Store {
    /// Starts a run in the experiment with this id (or uid); as [`crate::ExperimentHandle::start_run`].
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such experiment, and as there.
    pub fn start_run(&self, experiment_id: &str, options: RunOptions) -> Result<Run> {
        let experiment = self.inner().experiment_uid(experiment_id)?;
        Run::start(self, experiment, &options)
    }

    /// A handle on a run, to log more to it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn run(&self, id: &str) -> Result<Run> {
        let uid = self.inner().run_uid(id)?;
        let state = self.inner().held(Want::Entity(uid))?;
        let id =
            state.catalog.run(uid).map(|run| crate::catalog::run_id(run)).unwrap_or_else(|| id.to_owned());
        drop(state);
        Ok(Run::new(self, uid, id, false))
    }

    /// A run with params, tags and the latest value of each metric. Cached and shared as long as nothing changes.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get_run(&self, id: &str) -> Result<Arc<RunData>> {
        let uid = self.inner().run_uid(id)?;
        self.run_data(uid)
    }

    /// All runs that answer to an id, as [`Store::get_run`] gives them; the one that it takes is the first. A tree that
    /// was imported under two names has each of its runs twice: they differ in [`RunData::uid`], which every call
    /// takes for an id as well.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub fn runs_by_id(&self, id: &str) -> Result<Vec<Arc<RunData>>> {
        let runs = self.inner().runs_by_id(id)?;
        runs.into_iter().map(|uid| self.run_data(uid)).collect()
    }

    /// Puts a run into the bin. Doing so again is fine.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn delete_run(&self, id: &str) -> Result<()> {
        let uid = self.inner().run_uid(id)?;
        self.inner()
            .change(&[Want::Entity(uid)], false, |catalog| changes::delete_run(catalog, uid, now_ms()))?;
        Ok(())
    }

    /// Takes a run out of the bin. Doing so again is fine.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn restore_run(&self, id: &str) -> Result<()> {
        let uid = self.inner().run_uid(id)?;
        self.inner().change(&[Want::Entity(uid)], false, |catalog| changes::restore_run(catalog, uid))?;
        Ok(())
    }
}
