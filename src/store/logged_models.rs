//! Logged models: made by runs or beside them, with params, tags and files of their own.
//!
//! Contract: a model id is random, so making one takes no lock; a param of a model is a claim. Their metrics are in
//! `model_metrics`, their files in `artifacts`, searching them in `search`.

use std::sync::Arc;

use crate::catalog::changes::{self, NewLoggedModel};
use crate::catalog::{Catalog, Entity, logged_model_uid};
use crate::error::{Error, Result};
use crate::format::event::Operation;
use crate::id::Uid;
use crate::model::{LoggedModel, LoggedModelStatus, ModelOutput};
use crate::query::snapshot::Snapshot;
use crate::store::experiments::{now_ms, pairs};
use crate::store::runs::name_seed;
use crate::store::state::Want;
use crate::store::{Inner, Run, Store};

/// How a logged model is made.
#[derive(Clone, Debug, Default)]
pub struct LoggedModelOptions {
    name: Option<String>,
    model_type: Option<String>,
    source_run_id: Option<String>,
    params: Vec<(String, String)>,
    tags: Vec<(String, String)>,
}

impl LoggedModelOptions {
    /// Nothing given: a generated name, no params, no tags.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What kind of model it is.
    pub fn model_type(mut self, model_type: impl Into<String>) -> Self {
        self.model_type = Some(model_type.into());
        self
    }

    /// The run that makes it; it need not be in this store.
    pub fn source_run_id(mut self, run_id: impl Into<String>) -> Self {
        self.source_run_id = Some(run_id.into());
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
}

impl Run {
    /// Names logged models that the run used. One that is named already stays as it is.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what cannot be a model id, [`Error::InvalidState`] if the run is deleted.
    pub fn log_model_inputs(&self, model_ids: &[&str]) -> Result<()> {
        self.change(false, |catalog, uid| changes::log_model_inputs(catalog, uid, model_ids))
    }

    /// Names logged models that the run made, and when. One that is named already stays as it is.
    ///
    /// # Errors
    /// As [`Run::log_model_inputs`].
    pub fn log_outputs(&self, outputs: &[ModelOutput]) -> Result<()> {
        self.change(false, |catalog, uid| changes::log_model_outputs(catalog, uid, outputs))
    }
}

impl Inner {
    /// Resolves a model id as callers spell it.
    pub(crate) fn logged_model_uid(&self, id: &str) -> Result<Uid> {
        if let Some(uid) = logged_model_uid(id) {
            let state = self.current(Want::Entity(uid))?;
            if state.catalog.logged_model(uid).is_some() {
                return Ok(uid);
            }
        }
        // An imported one that is spelled otherwise, or that only follows from files.
        let state = self.current(Want::All)?;
        let found = state.catalog.logged_model_by_id(id).map(|model| model.uid());
        found.ok_or_else(|| Error::not_found("logged model", id))
    }

    /// A logged model as callers see it.
    pub(crate) fn logged_model_at(&self, snapshot: &Snapshot, uid: Uid) -> Result<Arc<LoggedModel>> {
        let mut model = {
            let mut state = self.current(Want::Entity(uid))?;
            let entity = state.catalog.logged_model(uid).cloned();
            let entity: Arc<Entity> =
                entity.ok_or_else(|| Error::not_found("logged model", format!("m-{uid}")))?;
            state.ensure(Want::Experiments)?;
            state.catalog.render_logged_model(&entity)
        };
        model.metrics = self.logged_model_metrics(snapshot, uid)?;
        Ok(Arc::new(model))
    }
}

impl Store {
    /// Makes a logged model; it is pending until [`Store::finalize_logged_model`].
    ///
    /// # Errors
    /// [`Error::NotFound`] without the experiment, [`Error::InvalidState`] if that is deleted,
    /// [`Error::InvalidArgument`] for names, keys and values that break MLflow's rules.
    pub fn create_logged_model(
        &self,
        experiment_id: &str,
        options: LoggedModelOptions,
    ) -> Result<Arc<LoggedModel>> {
        let experiment = self.inner().experiment_uid(experiment_id)?;
        let uid = Uid::random()?;
        let (params, tags) = (pairs(&options.params), pairs(&options.tags));
        let new = NewLoggedModel {
            uid,
            experiment,
            name: options.name.as_deref(),
            model_type: options.model_type.as_deref(),
            source_run_id: options.source_run_id.as_deref(),
            params: &params,
            tags: &tags,
            random: name_seed(uid),
        };
        let wants = [Want::Entity(experiment)];
        self.inner()
            .change(&wants, false, |catalog| changes::create_logged_model(catalog, &new, now_ms()))?;
        self.logged_model(uid)
    }

    fn logged_model(&self, uid: Uid) -> Result<Arc<LoggedModel>> {
        self.inner().with_snapshot(|snapshot| self.inner().logged_model_at(snapshot, uid))
    }

    /// A logged model with params, tags and the latest value of each metric; also a deleted one.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get_logged_model(&self, id: &str) -> Result<Arc<LoggedModel>> {
        self.logged_model(self.inner().logged_model_uid(id)?)
    }

    /// Says whether a logged model can be used.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn finalize_logged_model(&self, id: &str, status: LoggedModelStatus) -> Result<Arc<LoggedModel>> {
        let uid = self.change_logged_model(id, false, |catalog, uid| {
            changes::finalize_logged_model(catalog, uid, status, now_ms())
        })?;
        self.logged_model(uid)
    }

    /// Logs params of a logged model: all or none. The same value again is fine, another one is refused.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidState`] for a changed value, [`Error::InvalidArgument`] for a bad key.
    pub fn log_logged_model_params(&self, id: &str, params: &[(&str, &str)]) -> Result<()> {
        self.change_logged_model(id, true, |catalog, uid| changes::log_model_params(catalog, uid, params))
            .map(drop)
    }

    /// Sets tags of a logged model: all or none.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidArgument`] for a bad key.
    pub fn set_logged_model_tags(&self, id: &str, tags: &[(&str, &str)]) -> Result<()> {
        self.change_logged_model(id, false, |catalog, uid| changes::set_model_tags(catalog, uid, tags))
            .map(drop)
    }

    /// Deletes a tag of a logged model.
    ///
    /// # Errors
    /// [`Error::NotFound`], also if there is no such tag.
    pub fn delete_logged_model_tag(&self, id: &str, key: &str) -> Result<()> {
        self.change_logged_model(id, false, |catalog, uid| changes::delete_model_tag(catalog, uid, key))
            .map(drop)
    }

    /// Puts a logged model into the bin. Doing so again is fine.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn delete_logged_model(&self, id: &str) -> Result<()> {
        self.change_logged_model(id, false, |catalog, uid| {
            changes::delete_logged_model(catalog, uid, now_ms())
        })
        .map(drop)
    }

    fn change_logged_model(
        &self,
        id: &str,
        is_claim: bool,
        change: impl FnOnce(&Catalog, Uid) -> Result<Vec<Operation>>,
    ) -> Result<Uid> {
        let uid = self.inner().logged_model_uid(id)?;
        self.inner().change(&[Want::Entity(uid)], is_claim, |catalog| change(catalog, uid))?;
        Ok(uid)
    }
}
