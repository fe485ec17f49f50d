//! Experiments: get or create, rename, delete, restore, tags.
//!
//! Contract: a name is a claim, so what takes or gives one holds the store's lock for a moment. Rules and messages are
//! MLflow's (`catalog::rules`).

use std::sync::Arc;

use crate::catalog::changes::{self, Resolution};
use crate::catalog::rules;
use crate::error::{Error, Result};
use crate::id::Uid;
use crate::model::{Experiment, Lifecycle};
use crate::store::state::Want;
use crate::store::{Run, RunOptions, Store};
use crate::vfs::process;

/// How an experiment is made.
#[derive(Clone, Debug, Default)]
pub struct ExperimentOptions {
    pub(crate) artifact_location: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
}

impl ExperimentOptions {
    /// Nothing given: artifacts are kept inside the store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where artifacts are, as a URI; it is kept as it is.
    pub fn artifact_location(mut self, location: impl Into<String>) -> Self {
        self.artifact_location = Some(location.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }
}

/// An experiment to log to.
#[derive(Clone, Debug)]
pub struct ExperimentHandle {
    store: Store,
    uid: Uid,
    id: String,
    name: String,
}

impl ExperimentHandle {
    /// MLflow's experiment id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name when the handle was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its identity inside the engine.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// Starts a run: one event with its params and tags.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for keys and values that break MLflow's rules, [`Error::InvalidState`] if the
    /// experiment was deleted.
    pub fn start_run(&self, options: RunOptions) -> Result<Run> {
        Run::start(&self.store, self.uid, &options)
    }
}

/// Key-value pairs as the catalog takes them.
pub(crate) fn pairs(list: &[(String, String)]) -> Vec<(&str, &str)> {
    list.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(process::now_ms()).unwrap_or(i64::MAX)
}

impl Store {
    fn handle(&self, uid: Uid) -> Result<ExperimentHandle> {
        let state = self.inner().current(Want::Experiments)?;
        let entity =
            state.catalog.experiment(uid).ok_or_else(|| Error::not_found("experiment", uid.to_string()))?;
        let experiment = state.catalog.render_experiment(entity);
        Ok(ExperimentHandle { store: self.clone(), uid, id: experiment.id, name: experiment.name })
    }

    /// The experiment of this name; made if there is none. The same name made on other machines is the same experiment
    /// once their stores are merged.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if it was deleted; [`Error::Busy`] if the store's lock cannot be had.
    pub fn experiment(&self, name: &str) -> Result<ExperimentHandle> {
        {
            let state = self.inner().current(Want::Experiments)?;
            if let Some(entity) = state.catalog.experiment_by_name(name) {
                rules::experiment_is_active(&state.catalog, entity)?;
                let uid = entity.uid();
                drop(state);
                return self.handle(uid);
            }
        }
        let mut found = None;
        self.inner().change(&[Want::Experiments], true, |catalog| {
            match changes::get_or_create_experiment(catalog, name, now_ms())? {
                // Somebody made it (and perhaps deleted it) since the look above.
                Resolution::Exists(uid) => {
                    if let Some(entity) = catalog.experiment(uid) {
                        rules::experiment_is_active(catalog, entity)?;
                    }
                    found = Some(uid);
                    Ok(Vec::new())
                }
                Resolution::Create { uid, operations } => {
                    found = Some(uid);
                    Ok(operations)
                }
            }
        })?;
        self.handle(found.ok_or_else(|| Error::not_found("experiment", name))?)
    }

    /// Makes an experiment.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the name is taken, also by a deleted one.
    pub fn create_experiment(&self, name: &str, options: ExperimentOptions) -> Result<ExperimentHandle> {
        let mut made = None;
        self.inner().change(&[Want::Experiments], true, |catalog| {
            let tags = pairs(&options.tags);
            let (uid, operations) = changes::create_experiment(
                catalog,
                name,
                options.artifact_location.as_deref(),
                &tags,
                now_ms(),
            )?;
            made = Some(uid);
            Ok(operations)
        })?;
        self.handle(made.ok_or_else(|| Error::not_found("experiment", name))?)
    }

    /// The experiment with this id (or uid), deleted ones included.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get_experiment(&self, id: &str) -> Result<Arc<Experiment>> {
        let uid = self.inner().experiment_uid(id)?;
        let state = self.inner().held(Want::Entity(uid))?;
        let entity = state.catalog.experiment(uid).ok_or_else(|| Error::not_found("experiment", id))?;
        Ok(Arc::new(state.catalog.render_experiment(entity)))
    }

    /// The experiment with this name, deleted ones included.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get_experiment_by_name(&self, name: &str) -> Result<Arc<Experiment>> {
        let state = self.inner().current(Want::Experiments)?;
        let entity =
            state.catalog.experiment_by_name(name).ok_or_else(|| Error::not_found("experiment", name))?;
        Ok(Arc::new(state.catalog.render_experiment(entity)))
    }

    /// Gives an experiment another name.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if it is taken, [`Error::InvalidState`] if the experiment is deleted.
    pub fn rename_experiment(&self, id: &str, name: &str) -> Result<()> {
        let uid = self.inner().experiment_uid(id)?;
        let wants = [Want::Experiments];
        self.inner()
            .change(&wants, true, |catalog| changes::rename_experiment(catalog, uid, name, now_ms()))?;
        Ok(())
    }

    /// Puts an experiment and its active runs into the bin.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for one that is in the bin already.
    pub fn delete_experiment(&self, id: &str) -> Result<()> {
        let uid = self.inner().experiment_uid(id)?;
        self.inner().change(&[Want::All], false, |catalog| {
            let deleted = catalog.experiment(uid).is_none_or(|e| e.lifecycle() == Lifecycle::Deleted);
            if deleted {
                return Err(Error::not_found("active experiment", id));
            }
            changes::delete_experiment(catalog, uid, now_ms())
        })?;
        Ok(())
    }

    /// Takes an experiment and all its runs out of the bin.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn restore_experiment(&self, id: &str) -> Result<()> {
        let uid = self.inner().experiment_uid(id)?;
        self.inner()
            .change(&[Want::All], false, |catalog| changes::restore_experiment(catalog, uid, now_ms()))?;
        Ok(())
    }

    /// Sets a tag of an experiment.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for keys and values that break MLflow's rules.
    pub fn set_experiment_tag(&self, id: &str, key: &str, value: &str) -> Result<()> {
        let uid = self.inner().experiment_uid(id)?;
        let wants = [Want::Experiments];
        self.inner()
            .change(&wants, false, |catalog| changes::set_experiment_tags(catalog, uid, &[(key, value)]))?;
        Ok(())
    }

    /// Deletes a tag of an experiment.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such tag.
    pub fn delete_experiment_tag(&self, id: &str, key: &str) -> Result<()> {
        let uid = self.inner().experiment_uid(id)?;
        self.inner().change(&[Want::Experiments], false, |catalog| {
            changes::delete_experiment_tag(catalog, uid, key)
        })?;
        Ok(())
    }
}
