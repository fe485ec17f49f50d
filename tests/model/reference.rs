//! What a store should answer: maps and vectors, no cleverness.

use std::collections::BTreeMap;

use mlrs_db::{Dataset, DatasetInput, Error, Point, RunStatus};

/// What kind of error a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Argument,
    State,
    Missing,
    Taken,
    Other,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidArgument(_) => Self::Argument,
            Error::InvalidState(_) => Self::State,
            Error::NotFound { .. } => Self::Missing,
            Error::AlreadyExists { .. } => Self::Taken,
            _ => Self::Other,
        }
    }
}

pub type Outcome<T = ()> = Result<T, Refusal>;

#[derive(Clone, Debug)]
pub struct Experiment {
    pub id: String,
    pub name: String,
    pub deleted: bool,
    pub location: Option<String>,
    pub tags: BTreeMap<String, String>,
}

/// The points of a series by the time the store was open, in the order of logging: each opening is an origin.
pub type Lanes = BTreeMap<usize, Vec<Point>>;

#[derive(Clone, Debug)]
pub struct Run {
    pub id: String,
    pub experiment: usize,
    pub name: String,
    pub status: RunStatus,
    pub deleted: bool,
    pub start_ms: i64,
    pub end_ms: Option<i64>,
    pub params: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    /// By (name, digest): tags of the use. The data set itself belongs to the experiment.
    pub inputs: BTreeMap<(String, String), BTreeMap<String, String>>,
    pub series: BTreeMap<String, Lanes>,
}

#[derive(Debug, Default)]
pub struct Reference {
    pub experiments: Vec<Experiment>,
    pub runs: Vec<Run>,
    pub datasets: BTreeMap<(usize, String, String), Dataset>,
}

pub const RUN_NAME_TAG: &str = "mlflow.runName";

/// The rule for keys, for the keys that scripts use.
pub fn key_rule(key: &str) -> Outcome {
    if key.contains("//") { Err(Refusal::Argument) } else { Ok(()) }
}

/// The rule for times: none before 1970.
pub fn time_rule(timestamp_ms: i64) -> Outcome {
    if timestamp_ms < 0 { Err(Refusal::Argument) } else { Ok(()) }
}

fn unique(pairs: &[(String, String)]) -> Outcome {
    let keys: std::collections::BTreeSet<_> = pairs.iter().map(|p| &p.0).collect();
    if keys.len() == pairs.len() { Ok(()) } else { Err(Refusal::Argument) }
}

impl Run {
    pub fn active(&self) -> Outcome {
        if self.deleted { Err(Refusal::State) } else { Ok(()) }
    }

    pub fn log(&mut self, epoch: usize, key: &str, point: Point) {
        self.series.entry(key.to_owned()).or_default().entry(epoch).or_default().push(point);
    }

    /// Params and tags of one call: all or nothing.
    pub fn log_batch(&mut self, params: &[(String, String)], tags: &[(String, String)]) -> Outcome {
        unique(params)?;
        params.iter().chain(tags).try_for_each(|(key, _)| key_rule(key))?;
        self.active()?;
        if params.iter().any(|(key, value)| self.params.get(key).is_some_and(|old| old != value)) {
            return Err(Refusal::State);
        }
        self.params.extend(params.iter().cloned());
        for (key, value) in tags {
            if key == RUN_NAME_TAG {
                self.name.clone_from(value);
            }
            self.tags.insert(key.clone(), value.clone());
        }
        Ok(())
    }
}

impl Reference {
    pub fn by_name(&self, name: &str) -> Option<usize> {
        self.experiments.iter().position(|e| e.name == name)
    }

    pub fn create_experiment(
        &mut self,
        name: &str,
        location: Option<String>,
        tags: &[(String, String)],
    ) -> Outcome<usize> {
        if name.trim().is_empty() {
            return Err(Refusal::Argument);
        }
        if self.by_name(name).is_some() {
            return Err(Refusal::Taken);
        }
        tags.iter().try_for_each(|(key, _)| key_rule(key))?;
        let tags = tags.iter().cloned().collect();
        let (name, id) = (name.to_owned(), String::new());
        self.experiments.push(Experiment { id, name, deleted: false, location, tags });
        Ok(self.experiments.len() - 1)
    }

    pub fn get_or_create(&mut self, name: &str) -> Outcome<usize> {
        match self.by_name(name) {
            Some(at) if self.experiments[at].deleted => Err(Refusal::State),
            Some(at) => Ok(at),
            None => self.create_experiment(name, None, &[]),
        }
    }

    pub fn rename_experiment(&mut self, at: usize, name: &str) -> Outcome {
        if name.trim().is_empty() {
            return Err(Refusal::Argument);
        }
        if self.experiments[at].deleted {
            return Err(Refusal::State);
        }
        match self.by_name(name) {
            Some(holder) if holder != at => Err(Refusal::Taken),
            _ => {
                self.experiments[at].name = name.to_owned();
                Ok(())
            }
        }
    }

    /// Deletes or restores an experiment with its runs.
    pub fn move_experiment(&mut self, at: usize, deleted: bool) -> Outcome {
        if self.experiments[at].deleted == deleted {
            return Err(Refusal::Missing);
        }
        self.experiments[at].deleted = deleted;
        self.runs.iter_mut().filter(|r| r.experiment == at).for_each(|r| r.deleted = deleted);
        Ok(())
    }

    pub fn start_run(
        &self,
        experiment: usize,
        name: &str,
        start_ms: i64,
        params: &[(String, String)],
        tags: &[(String, String)],
    ) -> Outcome<Run> {
        if self.experiments[experiment].deleted {
            return Err(Refusal::State);
        }
        unique(params)?;
        params.iter().chain(tags).try_for_each(|(key, _)| key_rule(key))?;
        let tag = tags.iter().rfind(|(key, _)| key == RUN_NAME_TAG).map_or("", |(_, value)| value);
        if !name.is_empty() && !tag.is_empty() && name != tag {
            return Err(Refusal::Argument);
        }
        let name = if name.is_empty() { tag } else { name };
        let mut run = Run {
            id: String::new(),
            experiment,
            name: name.to_owned(),
            status: RunStatus::Running,
            deleted: false,
            start_ms,
            end_ms: None,
            params: params.iter().cloned().collect(),
            tags: tags.iter().cloned().collect(),
            inputs: BTreeMap::new(),
            series: BTreeMap::new(),
        };
        run.tags.insert(RUN_NAME_TAG.to_owned(), name.to_owned());
        Ok(run)
    }

    pub fn log_inputs(&mut self, run: usize, inputs: &[DatasetInput]) -> Outcome {
        let run = &mut self.runs[run];
        run.active()?;
        for input in inputs {
            let (name, digest) = (input.dataset.name.clone(), input.dataset.digest.clone());
            run.inputs.entry((name.clone(), digest.clone())).or_insert_with(|| input.tags.clone());
            let key = (run.experiment, name, digest);
            self.datasets.entry(key).or_insert_with(|| input.dataset.clone());
        }
        Ok(())
    }

    pub fn inputs(&self, run: &Run) -> Vec<DatasetInput> {
        let input = |((name, digest), tags): (&(String, String), &BTreeMap<String, String>)| DatasetInput {
            dataset: self.datasets[&(run.experiment, name.clone(), digest.clone())].clone(),
            tags: tags.clone(),
        };
        run.inputs.iter().map(input).collect()
    }
}

/// The history of a series: lanes merged by (greatest timestamp so far in the lane, origin, ordinal). `origins` are the
/// ids of the writers by opening.
pub fn history(lanes: &Lanes, origins: &[Option<String>]) -> Vec<Point> {
    let mut keyed = Vec::new();
    for (epoch, points) in lanes {
        let mut greatest = i64::MIN;
        for (ordinal, point) in points.iter().enumerate() {
            greatest = greatest.max(point.timestamp_ms);
            keyed.push(((greatest, origins[*epoch].clone(), ordinal), *point));
        }
    }
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    keyed.into_iter().map(|(_, point)| point).collect()
}

/// MLflow's latest: a later point wins if its (step, timestamp, value) is greater; NaN is greater than nothing and
/// nothing is greater than NaN. Points in the order of origins.
pub fn latest(lanes: &Lanes, origins: &[Option<String>]) -> Option<Point> {
    let mut sorted: Vec<_> = lanes.iter().collect();
    sorted.sort_by_key(|(epoch, _)| &origins[**epoch]);
    let mut best: Option<Point> = None;
    for point in sorted.into_iter().flat_map(|(_, points)| points) {
        let wins = best.is_none_or(|b| {
            let (mine, theirs) = ((point.step, point.timestamp_ms), (b.step, b.timestamp_ms));
            mine > theirs || mine == theirs && point.value > b.value
        });
        if wins {
            best = Some(*point);
        }
    }
    best
}
