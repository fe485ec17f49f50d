//! What the carrier of the protocol adds to it: how artifact locations that nobody gave are spelled.
//!
//! Contract: a location that was given, or imported, is handed out as it is. The others are inside the store, at
//! `artifacts/<experiment uid>/<run uid>/artifacts`, and spelled after one prefix, so that a server maps
//! `mlflow-artifacts:/<path>` to `<store>/artifacts/<path>` without asking anything. (By uid, not by MLflow's numeric
//! id: ids are claims, which a merge may settle otherwise; what clients keep of a location must stay true.)

use std::borrow::Cow;
use std::collections::HashMap;

use super::failure::Failure;
use crate::id::Uid;
use crate::model::{Experiment, LoggedModel, RunData, TraceInfo};
use crate::store::{Store, append_to_uri};

/// How artifact locations inside the store are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `mlflow-artifacts:/...`: clients send and fetch artifacts through the server.
    Proxy,
    /// `file:...`: clients reach the store's directory themselves.
    Files,
}

impl Door {
    fn root(self, store: &Store) -> Cow<'static, str> {
        match self {
            Self::Proxy => Cow::Borrowed("mlflow-artifacts:"),
            Self::Files => Cow::Owned(store.artifacts_uri()),
        }
    }

    /// Where an experiment's artifacts are.
    pub(super) fn experiment<'a>(self, store: &Store, experiment: &'a Experiment) -> Cow<'a, str> {
        match &experiment.artifact_location {
            Some(location) => Cow::Borrowed(location),
            None => Cow::Owned(format!("{}/{}", self.root(store), experiment.uid)),
        }
    }

    /// Locations of runs, for one answer.
    pub(super) fn locations(self, store: &Store) -> Locations<'_> {
        Locations { door: self, store, experiments: HashMap::new() }
    }
}

/// Where runs' artifacts are; remembers what experiments say.
#[derive(Debug)]
pub(super) struct Locations<'a> {
    door: Door,
    store: &'a Store,
    experiments: HashMap<Uid, String>,
}

impl Locations<'_> {
    /// Where a run's artifacts are.
    pub(super) fn of<'r>(&mut self, run: &'r RunData) -> Result<Cow<'r, str>, Failure> {
        if let Some(uri) = &run.artifact_uri {
            return Ok(Cow::Borrowed(uri));
        }
        Ok(Cow::Owned(self.below(run.experiment_uid, &format!("{}/artifacts", run.uid))))
    }

    /// Where a logged model's files are.
    pub(super) fn of_model(&mut self, model: &LoggedModel) -> String {
        match &model.artifact_location {
            Some(uri) => uri.clone(),
            None => self.below(model.experiment_uid, &format!("models/m-{}/artifacts", model.uid)),
        }
    }

    /// Where the files of a trace are; the tag that MLflow has for it says otherwise for imported ones.
    pub(super) fn of_trace(&mut self, trace: &TraceInfo) -> String {
        self.below(trace.experiment_uid, &format!("traces/tr-{}/artifacts", trace.uid))
    }

    /// A path below the location of an experiment.
    fn below(&mut self, experiment: Uid, path: &str) -> String {
        let (door, store) = (self.door, self.store);
        let location = self.experiments.entry(experiment).or_insert_with(|| {
            match store.get_experiment(&experiment.to_string()) {
                Ok(experiment) => door.experiment(store, &experiment).into_owned(),
                // Damaged metadata: what belongs to it is there, the experiment is not.
                Err(_) => format!("{}/{experiment}", door.root(store)),
            }
        });
        append_to_uri(location, path)
    }
}
