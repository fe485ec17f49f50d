//! Runs a script against a store and the model, and compares them.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mlrs_db::vfs::{MemoryVfs, OpenMode, OsVfs, Vfs};
use mlrs_db::{
    Dataset, DatasetInput, Error, ExperimentHandle, ExperimentOptions, ExperimentSearch, Metric, Options,
    Point, Points, Run, RunData, RunOptions, RunSearch, RunStatus, Series, SharedMapping, Store, ViewType,
};
use proptest::prelude::*;

use crate::reference::{
    self, Outcome, RUN_NAME_TAG, Reference, Refusal, history, key_rule, latest, time_rule,
};
use crate::script::{Op, Opening, RawPoint};

type Verdict<T = ()> = Result<T, TestCaseError>;

const EXPERIMENTS: [&str; 6] = ["Default", "mnist", "\u{e9} b", "a", "b", " "];
const RUNS: [&str; 4] = ["", "first", "second", "\u{6570}"];
const METRICS: [&str; 7] = ["loss", "train/loss", "acc", "\u{e9}", "a b", "_", "bad//key"];
const KEYS: [&str; 8] = ["lr", "seed", "opt", "\u{e9}", "a b", RUN_NAME_TAG, "bad//key", "never-set"];
const VALUES: [&str; 4] = ["0.1", "x\ny", "", "\u{1f980}"];
const STATUSES: [RunStatus; 5] =
    [RunStatus::Running, RunStatus::Scheduled, RunStatus::Finished, RunStatus::Failed, RunStatus::Killed];
/// How far the coarse clock may be from the clock of the test, either way.
const CLOCK_SLACK_MS: i64 = 1_000;

fn name_of<const N: usize>(names: &[&'static str; N], index: u8) -> &'static str {
    names[usize::from(index) % N]
}

fn pairs(raw: &[(u8, u8)]) -> Vec<(String, String)> {
    raw.iter().map(|(k, v)| (name_of(&KEYS, *k).to_owned(), name_of(&VALUES, *v).to_owned())).collect()
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

fn point(raw: &RawPoint) -> Point {
    Point { step: raw.0, timestamp_ms: raw.1, value: raw.2 }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Where the files of a store are.
pub enum Place {
    Memory(MemoryVfs),
    Disk(tempfile::TempDir),
}

impl Place {
    pub fn memory() -> Self {
        Self::Memory(MemoryVfs::new())
    }

    pub fn disk() -> Self {
        Self::Disk(tempfile::tempdir().unwrap())
    }

    fn vfs(&self) -> Arc<dyn Vfs> {
        match self {
            Self::Memory(vfs) => Arc::new(vfs.clone()),
            Self::Disk(_) => Arc::new(OsVfs),
        }
    }

    fn root(&self) -> PathBuf {
        match self {
            Self::Memory(_) => PathBuf::from("/store"),
            Self::Disk(directory) => directory.path().join("store"),
        }
    }

    /// What a process that is killed now leaves behind. On disk the files are copied against the flow of data: live
    /// files first.
    fn image(&self) -> Self {
        match self {
            Self::Memory(vfs) => Self::Memory(vfs.image()),
            Self::Disk(_) => {
                let copy = Self::disk();
                let (from, to) = (self.root(), copy.root());
                for folder in ["live", "log", ""] {
                    copy_files(&from.join(folder), &to.join(folder));
                }
                copy
            }
        }
    }

    fn file_names(&self, folder: &str) -> Vec<String> {
        let entries = self.vfs().list(&self.root().join(folder)).unwrap_or_default();
        entries.into_iter().map(|e| e.name).collect()
    }
}

fn copy_files(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    std::fs::create_dir_all(to).unwrap();
    for entry in entries.map(Result::unwrap).filter(|e| e.path().is_file()) {
        match std::fs::copy(entry.path(), to.join(entry.file_name())) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("copy {entry:?}: {e}"),
            _ => {}
        }
    }
}

/// A handle on a run, and what it remembers by contract: that the run was active, and its series.
struct Handle {
    run: Run,
    checked: bool,
    series: BTreeMap<String, Series>,
}

struct Pager {
    run: usize,
    key: &'static str,
    token: String,
    rest: VecDeque<Point>,
}

pub struct Driver {
    place: Place,
    store: Option<Store>,
    model: Reference,
    /// Ids of the writers, by opening; known once they wrote something.
    origins: Vec<Option<String>>,
    experiments: BTreeMap<usize, ExperimentHandle>,
    handles: BTreeMap<usize, Handle>,
    pagers: Vec<Pager>,
    old_index: Option<Vec<u8>>,
    runs_started: i64,
}

/// Both did it, or both refused it alike.
fn agree<T, U>(what: &str, real: Result<T, Error>, model: Outcome<U>) -> Verdict<Option<(T, U)>> {
    match (real, model) {
        (Ok(real), Ok(model)) => Ok(Some((real, model))),
        (Err(error), Err(refusal)) => {
            prop_assert_eq!(Refusal::from(&error), refusal, "{}: {}", what, error);
            Ok(None)
        }
        (Ok(_), Err(refusal)) => Err(TestCaseError::fail(format!("{what}: done, expected {refusal:?}"))),
        (Err(error), Ok(_)) => Err(TestCaseError::fail(format!("{what}: {error}"))),
    }
}

fn works<T>(what: &str, real: Result<T, Error>) -> Verdict<T> {
    real.map_err(|error| TestCaseError::fail(format!("{what}: {error}")))
}

fn same_point(a: &Point, b: &Point) -> bool {
    (a.step, a.timestamp_ms, a.value.to_bits()) == (b.step, b.timestamp_ms, b.value.to_bits())
}

fn same_points<'a>(what: &str, real: &Points, model: impl ExactSizeIterator<Item = &'a Point>) -> Verdict {
    prop_assert_eq!(real.len(), model.len(), "{}: number of points", what);
    for (at, (real, model)) in real.iter().zip(model).enumerate() {
        prop_assert!(same_point(&real, model), "{what}: point {at} is {real:?}, logged {model:?}");
    }
    Ok(())
}

fn options(place: &Place, opening: Opening) -> Options {
    let options = crate::medium::options();
    let options = if opening.unmapped { options.shared_mapping(SharedMapping::Off) } else { options };
    options
        .vfs(place.vfs())
        .flush_interval_ms(if opening.flushes { 1 } else { 60_000 })
        .sync_interval_ms(if opening.flushes { 1 } else { 1_000 })
        .segment_bytes_max(if opening.rolls { 1 } else { u64::MAX })
        .live_bytes_max(1)
}

impl Driver {
    pub fn begin(place: Place, opening: Opening) -> Self {
        let store = options(&place, opening).open(place.root()).unwrap();
        Self {
            place,
            store: Some(store),
            model: Reference::default(),
            origins: vec![None],
            experiments: BTreeMap::new(),
            handles: BTreeMap::new(),
            pagers: Vec::new(),
            old_index: None,
            runs_started: 0,
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Finds the id of the present writer by the files it made.
    fn learn_origin(&mut self) {
        let names = ["live", "log"].into_iter().flat_map(|folder| self.place.file_names(folder));
        let mut ids = names.filter_map(|name| name.get(..32).map(str::to_owned));
        if self.origins.last() == Some(&None)
            && let Some(new) = ids.find(|id| !self.origins.contains(&Some(id.clone())))
        {
            *self.origins.last_mut().unwrap() = Some(new);
        }
    }

    fn epoch(&self) -> usize {
        self.origins.len() - 1
    }

    fn experiment(&self, index: u8) -> Option<usize> {
        let count = self.model.experiments.len();
        (count > 0).then(|| usize::from(index) % count)
    }

    fn run(&self, index: u8) -> Option<usize> {
        let count = self.model.runs.len();
        (count > 0).then(|| usize::from(index) % count)
    }

    fn handle(&mut self, run: usize) -> Verdict<&mut Handle> {
        if !self.handles.contains_key(&run) {
            let real = works("run by id", self.store().run(&self.model.runs[run].id))?;
            prop_assert_eq!(real.id(), &self.model.runs[run].id);
            self.handles.insert(run, Handle { run: real, checked: false, series: BTreeMap::new() });
        }
        Ok(self.handles.get_mut(&run).unwrap())
    }

    /// Resolves a series in store and model.
    fn series(&mut self, run: usize, key: &str) -> Verdict<Option<Series>> {
        let active = self.model.runs[run].active();
        let handle = self.handle(run)?;
        let expected = match handle.series.contains_key(key) || handle.checked {
            true if handle.series.contains_key(key) => Ok(()),
            true => key_rule(key),
            false => key_rule(key).and(active),
        };
        handle.checked |= expected.is_ok();
        let Some((series, ())) = agree("series", handle.run.series(key), expected)? else { return Ok(None) };
        handle.series.insert(key.to_owned(), series.clone());
        Ok(Some(series))
    }

    /// What resolving these keys one after the other gives, without doing it.
    fn expect_series<'a>(&mut self, run: usize, keys: impl Iterator<Item = &'a str>) -> Verdict<Outcome> {
        let active = self.model.runs[run].active();
        let handle = self.handle(run)?;
        let mut outcome = Ok(());
        for key in keys {
            if !handle.series.contains_key(key) {
                outcome = key_rule(key).and(if handle.checked { Ok(()) } else { active });
                if outcome.is_err() {
                    break;
                }
                handle.checked = true;
                // It is resolved now; asking again is free.
                handle.series.insert(key.to_owned(), works("series", handle.run.series(key))?);
            }
        }
        Ok(outcome)
    }

    /// Notes points that were logged without a time: the model learns it from the store.
    fn learn_times(&mut self, run: usize, points: &[(&str, i64, f64)], since: i64) -> Verdict {
        let (epoch, until) = (self.epoch(), now_ms() + CLOCK_SLACK_MS);
        for (key, step, value) in points {
            let all: Points = works("history", self.history_of(run, key))?;
            let fits = |p: &Point| {
                (p.step, p.value.to_bits()) == (*step, value.to_bits())
                    && (since - CLOCK_SLACK_MS..=until).contains(&p.timestamp_ms)
            };
            let Some(timestamp_ms) = all.iter().filter(fits).map(|p| p.timestamp_ms).max() else {
                return Err(TestCaseError::fail(format!("'{key}' step {step} was logged but is not there")));
            };
            self.model.runs[run].log(epoch, key, Point { step: *step, timestamp_ms, value: *value });
        }
        Ok(())
    }

    fn history_of(&self, run: usize, key: &str) -> Result<Points, Error> {
        self.store().history(&self.model.runs[run].id, key)?.collect()
    }

    fn log_all(&mut self, run: usize, key: &str, points: impl IntoIterator<Item = Point>) {
        let epoch = self.epoch();
        points.into_iter().for_each(|p| self.model.runs[run].log(epoch, key, p));
    }

    pub fn step(&mut self, op: &Op) -> Verdict {
        match op {
            Op::Experiment { .. }
            | Op::CreateExperiment { .. }
            | Op::RenameExperiment { .. }
            | Op::DeleteExperiment { .. }
            | Op::RestoreExperiment { .. }
            | Op::TagExperiment { .. }
            | Op::UntagExperiment { .. } => self.step_experiment(op)?,
            Op::StartRun { experiment, name, params, tags, parent } => {
                self.start_run(*experiment, *name, params, tags, *parent)?;
            }
            Op::Resume { run }
            | Op::DeleteRun { run }
            | Op::RestoreRun { run }
            | Op::RenameRun { run, .. }
            | Op::SetStatus { run, .. }
            | Op::Finish { run, .. }
            | Op::LogParams { run, .. }
            | Op::SetTags { run, .. }
            | Op::DeleteTag { run, .. }
            | Op::LogInputs { run, .. } => {
                if let Some(run) = self.run(*run) {
                    self.step_run(run, op)?;
                }
            }
            Op::LogSeries { run, .. }
            | Op::LogMany { run, .. }
            | Op::LogMetric { run, .. }
            | Op::LogMetrics { run, .. }
            | Op::LogColumns { run, .. }
            | Op::LogNoise { run, .. }
            | Op::LogUnevenColumns { run, .. }
            | Op::LogBatch { run, .. } => {
                if let Some(run) = self.run(*run) {
                    self.step_points(run, op)?;
                }
            }
            Op::BeginPages { run, key, size } => {
                if let Some(run) = self.run(*run) {
                    self.learn_origin();
                    let key = name_of(&METRICS, *key);
                    let rest = self.expected(run, key).into();
                    let pager = Pager { run, key, token: String::new(), rest };
                    self.next_page(pager, usize::from(*size), None)?;
                }
            }
            Op::NextPage { pager, size } => {
                if !self.pagers.is_empty() {
                    let pager = self.pagers.swap_remove(usize::from(*pager) % self.pagers.len());
                    let token = pager.token.clone();
                    self.next_page(pager, usize::from(*size), Some(&token))?;
                }
            }
            Op::Sync => works("sync", self.store().sync())?,
            // Long enough for the background to hand points over, where it does so every millisecond.
            Op::Pause => std::thread::sleep(Duration::from_millis(3)),
            Op::Close { opening } => {
                self.learn_origin();
                works("close", self.store().clone().close())?;
                self.reopen(*opening)?;
            }
            Op::Drop { opening } => self.reopen(*opening)?,
            Op::Kill { opening } => {
                self.learn_origin();
                let image = self.place.image();
                let killed = std::mem::replace(&mut self.place, image);
                self.reopen(*opening)?;
                drop(killed);
            }
            Op::LoseIndex { how, opening } => {
                self.learn_origin();
                works("close", self.store().clone().close())?;
                self.tamper_with_index(*how);
                self.reopen(*opening)?;
            }
            Op::Check { run } => {
                if let Some(run) = self.run(*run) {
                    self.learn_origin();
                    self.check_run(self.store(), run)?;
                }
            }
            Op::CheckAll { by_reader } => {
                self.learn_origin();
                if *by_reader {
                    let options = options(&self.place, Opening::default()).read_only(true);
                    let reader = works("open to read", options.open(self.place.root()))?;
                    self.check_all(&reader)?;
                } else {
                    self.check_all(self.store())?;
                }
            }
        }
        Ok(())
    }

    /// Drops every handle and opens what is at the place now.
    fn reopen(&mut self, opening: Opening) -> Verdict {
        self.learn_origin();
        self.handles.clear();
        self.experiments.clear();
        self.store = None;
        // Dropping the last handle may have been what wrote the first file.
        self.learn_origin();
        self.origins.push(None);
        self.store = Some(works("reopen", options(&self.place, opening).open(self.place.root()))?);
        Ok(())
    }

    fn tamper_with_index(&mut self, how: u8) {
        let (vfs, path) = (self.place.vfs(), self.place.root().join("index.redb"));
        let Ok(file) = vfs.open(&path, OpenMode::Read) else { return };
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        vfs.remove_file(&path).unwrap();
        let old = self.old_index.get_or_insert_with(|| bytes.clone());
        match how {
            0 => return,
            1 => bytes.iter_mut().step_by(97).for_each(|b| *b ^= 0x5a),
            _ => bytes.clone_from(old),
        }
        vfs.open(&path, OpenMode::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
    }

    fn step_experiment(&mut self, op: &Op) -> Verdict {
        let (store, model) = (self.store.clone().unwrap(), &mut self.model);
        let made = match op {
            Op::Experiment { name } => {
                let name = name_of(&EXPERIMENTS, *name);
                agree("experiment", store.experiment(name), model.get_or_create(name))?
            }
            Op::CreateExperiment { name, location, tag } => {
                let (name, tags) = (name_of(&EXPERIMENTS, *name), tag.map(|t| (t, t)));
                let tags = pairs(tags.as_slice());
                let location = location.then(|| format!("s3://bucket/{name}"));
                let mut options = ExperimentOptions::new();
                if let Some(location) = &location {
                    options = options.artifact_location(location);
                }
                for (key, value) in &tags {
                    options = options.tag(key, value);
                }
                let expected = model.create_experiment(name, location, &tags);
                agree("create experiment", store.create_experiment(name, options), expected)?
            }
            _ => None,
        };
        if let Some((handle, at)) = made {
            let known = &mut model.experiments[at];
            if known.id.is_empty() {
                known.id = handle.id().to_owned();
            }
            prop_assert_eq!(handle.id(), &known.id);
            self.experiments.insert(at, handle);
        }
        let (Op::RenameExperiment { experiment, .. }
        | Op::DeleteExperiment { experiment }
        | Op::RestoreExperiment { experiment }
        | Op::TagExperiment { experiment, .. }
        | Op::UntagExperiment { experiment, .. }) = op
        else {
            return Ok(());
        };
        let Some(at) = self.experiment(*experiment) else { return Ok(()) };
        let model = &mut self.model;
        let id = model.experiments[at].id.clone();
        match op {
            Op::RenameExperiment { name, .. } => {
                let name = name_of(&EXPERIMENTS, *name);
                agree("rename", store.rename_experiment(&id, name), model.rename_experiment(at, name))?;
            }
            Op::DeleteExperiment { .. } => {
                agree("delete", store.delete_experiment(&id), model.move_experiment(at, true))?;
            }
            Op::RestoreExperiment { .. } => {
                agree("restore", store.restore_experiment(&id), model.move_experiment(at, false))?;
            }
            Op::TagExperiment { key, value, .. } => {
                let (key, value) = (name_of(&KEYS, *key), name_of(&VALUES, *value));
                let known = &mut model.experiments[at];
                let expected = key_rule(key).and(if known.deleted { Err(Refusal::State) } else { Ok(()) });
                if expected.is_ok() {
                    known.tags.insert(key.into(), value.into());
                }
                agree("tag experiment", store.set_experiment_tag(&id, key, value), expected)?;
            }
            Op::UntagExperiment { key, .. } => {
                let key = name_of(&KEYS, *key);
                let known = &mut model.experiments[at];
                let expected = match known.deleted {
                    true => Err(Refusal::State),
                    false => known.tags.remove(key).map(|_| ()).ok_or(Refusal::Missing),
                };
                agree("untag experiment", store.delete_experiment_tag(&id, key), expected)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn start_run(
        &mut self,
        experiment: u8,
        name: u8,
        params: &[(u8, u8)],
        tags: &[(u8, u8)],
        parent: Option<u8>,
    ) -> Verdict {
        let Some(at) = self.experiment(experiment) else { return Ok(()) };
        let (name, params, mut tags) = (name_of(&RUNS, name), pairs(params), pairs(tags));
        if !self.experiments.contains_key(&at) {
            let by_name = self.model.get_or_create(&self.model.experiments[at].name.clone());
            let handle = self.store().experiment(&self.model.experiments[at].name);
            let Some((handle, _)) = agree("experiment to start in", handle, by_name)? else { return Ok(()) };
            self.experiments.insert(at, handle);
        }
        self.runs_started += 1;
        let mut options = RunOptions::new().name(name).user("somebody").start_ms(self.runs_started);
        for (key, value) in &params {
            options = options.param(key, value);
        }
        for (key, value) in &tags {
            options = options.tag(key, value);
        }
        if let Some(parent) = parent.and_then(|p| self.run(p)) {
            options = options.parent(&self.model.runs[parent].id);
            tags.push(("mlflow.parentRunId".into(), self.model.runs[parent].id.clone()));
        }
        let expected = self.model.start_run(at, name, self.runs_started, &params, &tags);
        let started = self.experiments[&at].start_run(options);
        if let Some((run, mut model)) = agree("start run", started, expected)? {
            model.id = run.id().to_owned();
            if model.name.is_empty() {
                model.name = works("run", run.data())?.name.clone();
                prop_assert!(!model.name.is_empty(), "a run without a name");
                model.tags.insert(RUN_NAME_TAG.into(), model.name.clone());
            }
            self.handles
                .insert(self.model.runs.len(), Handle { run, checked: true, series: BTreeMap::new() });
            self.model.runs.push(model);
        }
        Ok(())
    }

    fn step_run(&mut self, at: usize, op: &Op) -> Verdict {
        let id = self.model.runs[at].id.clone();
        if let Op::Resume { .. } = op {
            self.handles.remove(&at);
        }
        let real = self.handle(at)?.run.clone();
        let store = self.store().clone();
        let model = &mut self.model.runs[at];
        match op {
            Op::DeleteRun { .. } => {
                works("delete run", store.delete_run(&id))?;
                model.deleted = true;
            }
            Op::RestoreRun { .. } => {
                works("restore run", store.restore_run(&id))?;
                model.deleted = false;
            }
            Op::RenameRun { name, .. } => {
                let name = name_of(&RUNS, *name);
                if agree("rename run", real.rename(name), model.active())?.is_some() && !name.is_empty() {
                    model.name = name.to_owned();
                    model.tags.insert(RUN_NAME_TAG.into(), name.into());
                }
            }
            Op::SetStatus { status, end, .. } => {
                let status = STATUSES[usize::from(*status) % 5];
                if agree("set status", real.set_status(status, *end), model.active())?.is_some() {
                    model.status = status;
                    model.end_ms = end.or(model.end_ms);
                }
            }
            Op::Finish { status, .. } => {
                let (status, before) = (STATUSES[usize::from(*status) % 5], now_ms());
                if agree("finish", real.finish(status), model.active())?.is_some() {
                    let end_ms = works("run", real.data())?.end_ms;
                    if status.is_terminated() {
                        let end = end_ms.unwrap_or(i64::MIN);
                        prop_assert!((before..=now_ms()).contains(&end), "ended at {end}, not now");
                        model.end_ms = end_ms;
                    }
                    model.status = status;
                }
            }
            Op::LogParams { params, .. } => {
                let params = pairs(params);
                let expected = model.log_batch(&params, &[]);
                agree("log params", real.log_params(borrowed(&params)), expected)?;
            }
            Op::SetTags { tags, .. } => {
                let tags = pairs(tags);
                agree("set tags", real.set_tags(borrowed(&tags)), model.log_batch(&[], &tags))?;
            }
            Op::DeleteTag { key, .. } => {
                let key = name_of(&KEYS, *key);
                let expected = model.active().and_then(|()| model.tags.remove(key).ok_or(Refusal::Missing));
                agree("delete tag", real.delete_tag(key), expected)?;
            }
            Op::LogInputs { inputs, .. } => {
                let inputs: Vec<DatasetInput> = inputs.iter().map(|i| input(*i)).collect();
                let expected = self.model.log_inputs(at, &inputs);
                agree("log inputs", real.log_inputs(&inputs), expected)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn step_points(&mut self, run: usize, op: &Op) -> Verdict {
        let since = now_ms();
        match op {
            Op::LogSeries { key, points, .. } => {
                let key = name_of(&METRICS, *key);
                let Some(series) = self.series(run, key)? else { return Ok(()) };
                let mut logged = Vec::new();
                for p in points.iter().map(point) {
                    let outcome = series.log_at(p.step, p.timestamp_ms, p.value);
                    if agree("log", outcome, time_rule(p.timestamp_ms))?.is_some() {
                        logged.push(p);
                    }
                }
                self.log_all(run, key, logged);
            }
            Op::LogMany { key, count, .. } => {
                let key = name_of(&METRICS, *key);
                let Some(series) = self.series(run, key)? else { return Ok(()) };
                let points = (0..i64::from(*count)).map(|n| Point {
                    step: n,
                    timestamp_ms: n / 3,
                    value: (n % 100) as f64,
                });
                for p in points.clone() {
                    works("log", series.log_at(p.step, p.timestamp_ms, p.value))?;
                }
                self.log_all(run, key, points);
            }
            Op::LogColumns { key, points, .. } => {
                let points: Points = points.iter().map(point).collect();
                self.log_columns(run, name_of(&METRICS, *key), &points)?;
            }
            Op::LogNoise { key, count, seed, .. } => {
                // A linear congruence: values that no codec makes small, so that segments fill up.
                let mut state = *seed;
                let points = (0..i64::from(*count)).map(|n| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    Point { step: n, timestamp_ms: n, value: f64::from_bits(state) }
                });
                let points: Points = points.collect();
                self.log_columns(run, name_of(&METRICS, *key), &points)?;
            }
            Op::LogUnevenColumns { key, .. } => {
                if let Some(series) = self.series(run, name_of(&METRICS, *key))? {
                    agree::<_, ()>(
                        "uneven",
                        series.log_columns(&[1, 2], &[1], &[0.5]),
                        Err(Refusal::Argument),
                    )?;
                }
            }
            Op::LogMetric { key, step, value, .. } => {
                let key = name_of(&METRICS, *key);
                let expected = self.expect_series(run, std::iter::once(key))?;
                let logged = self.handle(run)?.run.log_metric(key, *step, *value);
                if agree("log metric", logged, expected)?.is_some() {
                    self.learn_times(run, &[(key, *step, *value)], since)?;
                }
            }
            Op::LogMetrics { step, values, .. } => {
                let values: Vec<_> = values.iter().map(|(k, v)| (name_of(&METRICS, *k), *v)).collect();
                let expected = self.expect_series(run, values.iter().map(|v| v.0))?;
                let logged = self.handle(run)?.run.log_metrics(*step, values.iter().copied());
                if agree("log metrics", logged, expected)?.is_some() {
                    let points: Vec<_> = values.iter().map(|(k, v)| (*k, *step, *v)).collect();
                    self.learn_times(run, &points, since)?;
                }
            }
            Op::LogBatch { metrics, params, tags, .. } => {
                let metrics: Vec<_> =
                    metrics.iter().map(|(k, p)| (name_of(&METRICS, *k), point(p))).collect();
                self.log_batch(run, &metrics, &pairs(params), &pairs(tags))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn log_columns(&mut self, run: usize, key: &str, points: &Points) -> Verdict {
        let Some(series) = self.series(run, key)? else { return Ok(()) };
        let expected = points.timestamps_ms.iter().try_for_each(|time| time_rule(*time));
        let outcome = series.log_columns(&points.steps, &points.timestamps_ms, &points.values);
        if agree("log columns", outcome, expected)?.is_some() {
            self.log_all(run, key, points.iter());
        }
        Ok(())
    }

    fn log_batch(
        &mut self,
        run: usize,
        metrics: &[(&str, Point)],
        params: &[(String, String)],
        tags: &[(String, String)],
    ) -> Verdict {
        let list: Vec<Metric> =
            metrics.iter().map(|(key, point)| Metric { key: (*key).into(), point: *point }).collect();
        let mut expected = metrics
            .iter()
            .try_for_each(|(key, point)| key_rule(key).and_then(|()| time_rule(point.timestamp_ms)));
        if expected.is_ok() {
            let active = self.model.runs[run].active();
            let handle = self.handle(run)?;
            if (!params.is_empty() || !tags.is_empty()) && !handle.checked {
                expected = active;
                handle.checked = expected.is_ok();
            }
        }
        if expected.is_ok() {
            expected = self.expect_series(run, metrics.iter().map(|m| m.0))?;
        }
        if expected.is_ok() && (!params.is_empty() || !tags.is_empty()) {
            expected = self.model.runs[run].log_batch(params, tags);
        }
        let logged = self.handle(run)?.run.log_batch(&list, &borrowed(params), &borrowed(tags));
        if agree("log batch", logged, expected)?.is_some() {
            for (key, point) in metrics {
                self.log_all(run, key, [*point]);
            }
        }
        Ok(())
    }

    fn expected(&self, run: usize, key: &str) -> Vec<Point> {
        let series = &self.model.runs[run].series;
        series.get(key).map_or_else(Vec::new, |lanes| history(lanes, &self.origins))
    }

    fn next_page(&mut self, mut pager: Pager, size: usize, token: Option<&str>) -> Verdict {
        let history = works("history", self.store().history(&self.model.runs[pager.run].id, pager.key))?;
        let page = works("page", history.page(size, token))?;
        let points: Vec<Point> = pager.rest.drain(..size.min(pager.rest.len())).collect();
        same_points("page", &page.points, points.iter())?;
        prop_assert_eq!(
            page.next_page_token.is_none(),
            pager.rest.is_empty(),
            "whether there is a next page"
        );
        if let Some(token) = page.next_page_token {
            self.pagers.push(Pager { token, ..pager });
        }
        Ok(())
    }

    fn check_data(&self, data: &RunData, run: usize) -> Verdict {
        let model = &self.model.runs[run];
        let experiment = &self.model.experiments[model.experiment];
        prop_assert_eq!(&data.id, &model.id);
        prop_assert_eq!(&data.experiment_id, &experiment.id);
        prop_assert_eq!(&data.name, &model.name);
        prop_assert_eq!(data.status, model.status);
        prop_assert_eq!(
            data.lifecycle == mlrs_db::Lifecycle::Deleted,
            model.deleted,
            "lifecycle of {}",
            model.id
        );
        prop_assert_eq!(data.deleted_ms.is_some(), model.deleted);
        prop_assert_eq!(data.start_ms, Some(model.start_ms));
        prop_assert_eq!(data.end_ms, model.end_ms);
        prop_assert_eq!(&data.user, "somebody");
        prop_assert_eq!(&data.params, &model.params);
        prop_assert_eq!(&data.tags, &model.tags);
        let mut inputs = data.inputs.clone();
        inputs
            .sort_by(|a, b| (&a.dataset.name, &a.dataset.digest).cmp(&(&b.dataset.name, &b.dataset.digest)));
        prop_assert_eq!(inputs, self.model.inputs(model));
        let keys: Vec<_> = data.metrics.keys().collect();
        let expected: Vec<_> = model.series.keys().collect();
        prop_assert_eq!(keys, expected, "keys of metrics");
        for (key, real) in &data.metrics {
            let wanted = latest(&model.series[key], &self.origins).unwrap();
            prop_assert!(same_point(real, &wanted), "latest '{key}' is {real:?}, expected {wanted:?}");
        }
        Ok(())
    }

    fn check_run(&self, store: &Store, run: usize) -> Verdict {
        let model = &self.model.runs[run];
        let data = works("get run", store.get_run(&model.id))?;
        self.check_data(&data, run)?;
        for (at, summary) in works("metrics", store.metrics(&model.id))?.iter().enumerate() {
            let (key, lanes) = model.series.iter().nth(at).unwrap();
            let points: Vec<&Point> = lanes.values().flatten().collect();
            prop_assert_eq!(&summary.key, key);
            prop_assert_eq!(summary.points, points.len() as u64, "points of '{}'", key);
            let numbers = || points.iter().map(|p| p.value).filter(|v| !v.is_nan());
            prop_assert_eq!(summary.nan_count, (points.len() - numbers().count()) as u64);
            prop_assert!(
                summary.min == numbers().fold(f64::INFINITY, f64::min) || numbers().next().is_none()
            );
            prop_assert!(
                summary.max == numbers().fold(f64::NEG_INFINITY, f64::max) || numbers().next().is_none()
            );
        }
        let last: BTreeMap<String, i64> = model
            .series
            .iter()
            .map(|(key, lanes)| (key.clone(), lanes.values().flatten().map(|p| p.step).max().unwrap()))
            .collect();
        prop_assert_eq!(works("last steps", store.last_steps(&model.id))?, last);
        for key in METRICS {
            self.check_history(store, run, key)?;
        }
        Ok(())
    }

    fn check_history(&self, store: &Store, run: usize, key: &str) -> Verdict {
        let ask = || works("history", store.history(&self.model.runs[run].id, key));
        let all = self.expected(run, key);
        same_points(key, &works("history", ask()?.collect())?, all.iter())?;
        let (Some(a), Some(b)) = (all.get(all.len() / 3), all.get(all.len() * 2 / 3)) else { return Ok(()) };
        let (low, high) = (a.step.min(b.step), a.step.max(b.step));
        let wanted: Vec<Point> = all.iter().filter(|p| (low..=high).contains(&p.step)).copied().collect();
        same_points("steps", &works("steps", ask()?.steps(low..=high).collect())?, wanted.iter())?;
        let (low, high) = (a.timestamp_ms.min(b.timestamp_ms), a.timestamp_ms.max(b.timestamp_ms));
        let wanted: Vec<Point> =
            all.iter().filter(|p| (low..high).contains(&p.timestamp_ms)).copied().collect();
        same_points("times", &works("times", ask()?.timestamps(low..high).collect())?, wanted.iter())?;
        let some = all.len() / 2;
        same_points("limit", &works("limit", ask()?.limit(some).collect())?, all[..some].iter())
    }

    fn check_all(&self, store: &Store) -> Verdict {
        for run in 0..self.model.runs.len() {
            self.check_run(store, run)?;
        }
        for experiment in &self.model.experiments {
            let by_id = works("experiment by id", store.get_experiment(&experiment.id))?;
            let by_name = works("experiment by name", store.get_experiment_by_name(&experiment.name))?;
            prop_assert_eq!(&by_id, &by_name);
            prop_assert_eq!(&by_id.id, &experiment.id);
            prop_assert_eq!(&by_id.name, &experiment.name);
            prop_assert_eq!(&by_id.artifact_location, &experiment.location);
            prop_assert_eq!(&by_id.tags, &experiment.tags);
            prop_assert_eq!(by_id.lifecycle == mlrs_db::Lifecycle::Deleted, experiment.deleted);
        }
        self.check_searches(store)
    }

    fn check_searches(&self, store: &Store) -> Verdict {
        type Test<'a> = &'a dyn Fn(&reference::Run) -> bool;
        let filters: [(&str, Test<'_>); 4] = [
            ("", &|_| true),
            ("params.lr = '0.1'", &|run| run.params.get("lr").is_some_and(|v| v == "0.1")),
            ("tags.seed = '' AND status = 'RUNNING'", &|run| {
                run.tags.get("seed").is_some_and(String::is_empty) && run.status == RunStatus::Running
            }),
            ("metrics.`train/loss` >= 0.5", &|run| {
                let lanes = run.series.get("train/loss");
                lanes.and_then(|l| latest(l, &self.origins)).is_some_and(|p| p.value >= 0.5)
            }),
        ];
        for (view, deleted) in
            [(ViewType::ActiveOnly, Some(false)), (ViewType::DeletedOnly, Some(true)), (ViewType::All, None)]
        {
            for (filter, test) in filters {
                let wanted: Vec<usize> = (0..self.model.runs.len())
                    .filter(|at| deleted.is_none_or(|d| self.model.runs[*at].deleted == d))
                    .filter(|at| test(&self.model.runs[*at]))
                    .collect();
                let mut search = RunSearch {
                    filter: filter.into(),
                    view,
                    order_by: vec!["start_time ASC".into()],
                    max_results: 2,
                    ..RunSearch::default()
                };
                let mut found = 0;
                loop {
                    let page = works("search runs", store.search_runs(&search))?;
                    for data in &page.items {
                        let Some(run) = wanted.get(found) else {
                            return Err(TestCaseError::fail(format!("'{filter}' finds {} too", data.id)));
                        };
                        self.check_data(data, *run)?;
                        found += 1;
                    }
                    search.page_token = page.next_page_token;
                    if search.page_token.is_none() {
                        break;
                    }
                }
                prop_assert_eq!(found, wanted.len(), "results of '{}'", filter);
            }
            let search =
                ExperimentSearch { view, order_by: vec!["name ASC".into()], ..ExperimentSearch::default() };
            let found = works("search experiments", store.search_experiments(&search))?;
            let found: Vec<_> = found.items.iter().map(|e| e.name.clone()).collect();
            let mut wanted: Vec<_> = self.model.experiments.iter().collect();
            wanted.retain(|e| deleted.is_none_or(|d| e.deleted == d));
            let mut wanted: Vec<_> = wanted.into_iter().map(|e| e.name.clone()).collect();
            wanted.sort();
            prop_assert_eq!(found, wanted);
        }
        Ok(())
    }

    /// Everything once more, by this handle, after a close, and by a reader.
    pub fn end(mut self) -> Verdict {
        self.step(&Op::CheckAll { by_reader: true })?;
        self.check_all(self.store())?;
        self.step(&Op::Close { opening: Opening::default() })?;
        self.check_all(self.store())?;
        while let Some(pager) = self.pagers.pop() {
            let token = pager.token.clone();
            self.next_page(pager, usize::MAX, Some(&token))?;
        }
        Ok(())
    }

    /// Puts a point into the model alone.
    pub fn forge_point(&mut self) {
        self.log_all(0, METRICS[0], [Point { step: 0, timestamp_ms: 0, value: 0.0 }]);
    }
}

fn input((name, digest, variant): (u8, u8, u8)) -> DatasetInput {
    // The same name and digest with another source: the first one stays.
    let dataset = Dataset {
        name: format!("data-{name}"),
        digest: format!("{digest:08x}"),
        source_type: "local".into(),
        source: format!("{{\"uri\": \"/data/{variant}\"}}"),
        schema: (variant == 1).then(|| "{}".to_owned()),
        profile: None,
    };
    let tags = BTreeMap::from([("mlflow.data.context".to_owned(), format!("use {variant}"))]);
    DatasetInput { dataset, tags }
}
