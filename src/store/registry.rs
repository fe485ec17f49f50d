//! The model registry: registered models, their versions, stages, aliases and tags.
//!
//! Contract: names and version numbers are claims, so what gives or takes one holds the store's lock for a moment;
//! other changes of the registry do not. Rules and messages are MLflow's (`catalog::rules`). Searching it is in
//! `search`.

use std::sync::Arc;

use crate::catalog::changes::{self, NewModelVersion};
use crate::catalog::{Catalog, Entity, is_deleted_version, rules};
use crate::error::{Error, Result};
use crate::format::event::Operation;
use crate::id::Uid;
use crate::model::{ModelStage, ModelVersion, RegisteredModel};
use crate::store::Store;
use crate::store::experiments::{now_ms, pairs};
use crate::store::state::Want;

/// How a registered model is made.
#[derive(Clone, Debug, Default)]
pub struct RegisteredModelOptions {
    description: Option<String>,
    tags: Vec<(String, String)>,
}

impl RegisteredModelOptions {
    /// Nothing given.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is written about it.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }
}

/// How a version of a registered model is made.
#[derive(Clone, Debug, Default)]
pub struct ModelVersionOptions {
    source: String,
    run_id: Option<String>,
    run_link: Option<String>,
    description: Option<String>,
    user: Option<String>,
    model_id: Option<String>,
    tags: Vec<(String, String)>,
}

impl ModelVersionOptions {
    /// A version of what is at `source`, a URI. `models:/<name>/<version>` is another version, whose files this one
    /// shares; `models:/<model id>` a logged model of this store.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), ..Self::default() }
    }

    /// The run that made it; it need not be in this store.
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.run_id = Some(run_id.into());
        self
    }

    /// A page that shows that run.
    pub fn run_link(mut self, run_link: impl Into<String>) -> Self {
        self.run_link = Some(run_link.into());
        self
    }

    /// What is written about it.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Who makes it.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The logged model that is registered.
    pub fn model_id(mut self, model_id: impl Into<String>) -> Self {
        self.model_id = Some(model_id.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }
}

/// A registered model that exists; a name that none can have is refused.
fn find<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Arc<Entity>> {
    rules::registered_model_name(name)?;
    catalog.registered_model_by_name(name).ok_or_else(|| Error::not_found("registered model", name))
}

fn missing_version(name: &str, version: u64) -> Error {
    Error::not_found("model version", format!("{name}/{version}"))
}

/// What a `models:` URI names.
enum ModelUri<'a> {
    Version(&'a str, u64),
    /// A logged model, by its id.
    Logged(&'a str),
}

impl<'a> ModelUri<'a> {
    /// Nothing for URIs of other schemes.
    fn parse(uri: &'a str) -> Result<Option<Self>> {
        let Some(path) = uri.strip_prefix("models:") else { return Ok(None) };
        let named = match path.trim_start_matches('/').split_once('/') {
            Some((name, number)) => number.parse().ok().map(|number| Self::Version(name, number)),
            None => Some(Self::Logged(path.trim_start_matches('/')))
                .filter(|_| path.len() > 1 && !path.contains('@')),
        };
        named.map(Some).ok_or_else(|| {
            Error::invalid(format!(
                "Unable to fetch model from model URI source artifact location '{uri}'. Name a version \
                 (models:/<name>/<number>) or a logged model (models:/<model id>)"
            ))
        })
    }
}

impl Store {
    fn change_registry(
        &self,
        is_claim: bool,
        change: impl FnOnce(&Catalog) -> Result<Vec<Operation>>,
    ) -> Result<()> {
        self.inner().change(&[Want::Registry], is_claim, change).map(drop)
    }

    /// Makes a registered model. The same name made on other machines is the same model once their stores are merged.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the name is taken; [`Error::InvalidArgument`] for names and tags that break MLflow's
    /// rules; [`Error::Busy`] if the store's lock cannot be had.
    pub fn create_registered_model(
        &self,
        name: &str,
        options: RegisteredModelOptions,
    ) -> Result<Arc<RegisteredModel>> {
        self.change_registry(true, |catalog| {
            let (tags, description) = (pairs(&options.tags), options.description.as_deref());
            changes::create_registered_model(catalog, name, description, &tags, now_ms())
                .map(|(_, made)| made)
        })?;
        self.get_registered_model(name)
    }

    /// The registered model of this name, with the latest version of each stage.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get_registered_model(&self, name: &str) -> Result<Arc<RegisteredModel>> {
        let state = self.inner().current(Want::Registry)?;
        Ok(Arc::new(state.catalog.render_registered_model(find(&state.catalog, name)?)))
    }

    /// Gives a registered model, and with it its versions, another name.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::AlreadyExists`] if the name is taken.
    pub fn rename_registered_model(&self, name: &str, new_name: &str) -> Result<Arc<RegisteredModel>> {
        self.change_registry(true, |catalog| {
            changes::rename_registered_model(catalog, name, new_name, now_ms())
        })?;
        self.get_registered_model(new_name)
    }

    /// Changes what is written about a registered model.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn update_registered_model(
        &self,
        name: &str,
        description: Option<&str>,
    ) -> Result<Arc<RegisteredModel>> {
        self.change_registry(false, |catalog| {
            changes::update_registered_model(catalog, name, description, now_ms())
        })?;
        self.get_registered_model(name)
    }

    /// Removes a registered model and all its versions for good, as MLflow does.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn delete_registered_model(&self, name: &str) -> Result<()> {
        self.change_registry(true, |catalog| changes::delete_registered_model(catalog, name))
    }

    /// Sets a tag of a registered model.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidArgument`] for keys and values that break MLflow's rules.
    pub fn set_registered_model_tag(&self, name: &str, key: &str, value: &str) -> Result<()> {
        self.change_registry(false, |catalog| changes::set_registered_model_tag(catalog, name, key, value))
    }

    /// Deletes a tag of a registered model. One that is not there is fine.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the model.
    pub fn delete_registered_model_tag(&self, name: &str, key: &str) -> Result<()> {
        self.change_registry(false, |catalog| changes::delete_registered_model_tag(catalog, name, key))
    }

    /// Makes an alias name a version, whatever it named before.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidArgument`] for an alias that breaks MLflow's rules.
    pub fn set_registered_model_alias(&self, name: &str, alias: &str, version: u64) -> Result<()> {
        self.change_registry(false, |catalog| changes::set_alias(catalog, name, alias, version))
    }

    /// Takes an alias away. One that is not there is fine.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the model.
    pub fn delete_registered_model_alias(&self, name: &str, alias: &str) -> Result<()> {
        self.change_registry(false, |catalog| changes::delete_alias(catalog, name, alias))
    }

    /// The version that an alias names; `latest` is the one with the greatest number.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the model, or without any version for `latest`; [`Error::InvalidArgument`] without
    /// the alias, as in MLflow.
    pub fn get_model_version_by_alias(&self, name: &str, alias: &str) -> Result<Arc<ModelVersion>> {
        rules::registered_model_alias(alias)?;
        let state = self.inner().current(Want::Registry)?;
        let catalog = &state.catalog;
        let model = find(catalog, name)?;
        let found = match catalog.version_by_alias(model, alias) {
            Some(version) => version,
            None if rules::is_latest(alias) => {
                let latest = catalog.latest_versions(model.uid()).into_iter();
                let greatest = latest.max_by_key(|version| catalog.version_number(version));
                greatest.ok_or_else(|| Error::not_found("latest version of registered model", name))?
            }
            None => return Err(Error::invalid(format!("Registered model alias {alias} not found."))),
        };
        Ok(Arc::new(catalog.render_version(model, found)))
    }

    /// The version with the greatest number in each of these stages, or in each stage if none is named.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn latest_model_versions(&self, name: &str, stages: &[ModelStage]) -> Result<Vec<Arc<ModelVersion>>> {
        let model = self.get_registered_model(name)?;
        let asked = |version: &&ModelVersion| stages.is_empty() || stages.contains(&version.stage);
        Ok(model.latest_versions.iter().filter(asked).cloned().map(Arc::new).collect())
    }

    /// Makes a version of a registered model; it gets the next number.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the model, or the version or logged model that the source names;
    /// [`Error::InvalidArgument`] for tags that break MLflow's rules; [`Error::Busy`] if the store's lock cannot be
    /// had.
    pub fn create_model_version(
        &self,
        name: &str,
        options: ModelVersionOptions,
    ) -> Result<Arc<ModelVersion>> {
        let uid = Uid::random()?;
        let source = ModelUri::parse(&options.source)?;
        // A model that was logged to this store knows where its files are, and which run made it.
        let logged = match source {
            Some(ModelUri::Logged(id)) => Some(self.get_logged_model(id)?),
            _ => None,
        };
        let run_id = match (&options.run_id, &logged, &options.model_id) {
            (Some(run_id), ..) => Some(run_id.clone()),
            (None, Some(model), _) => model.source_run_id.clone(),
            (None, None, Some(id)) => self.get_logged_model(id)?.source_run_id.clone(),
            (None, None, None) => None,
        };
        self.change_registry(true, |catalog| {
            let location = match source {
                Some(ModelUri::Version(name, number)) => {
                    let (model, version) = version(catalog, name, number)?;
                    catalog.render_version(model, version).download_uri().map(str::to_owned)
                }
                Some(ModelUri::Logged(_)) => {
                    logged.as_ref().and_then(|model| model.artifact_location.clone())
                }
                None => Some(options.source.clone()),
            };
            let tags = pairs(&options.tags);
            let new = NewModelVersion {
                uid,
                source: &options.source,
                storage_location: location.as_deref(),
                run_id: run_id.as_deref(),
                run_link: options.run_link.as_deref(),
                model_id: options.model_id.as_deref(),
                description: options.description.as_deref(),
                user: options.user.as_deref(),
                tags: &tags,
            };
            changes::create_model_version(catalog, name, &new, now_ms())
        })?;
        let state = self.inner().held(Want::Registry)?;
        let model = find(&state.catalog, name)?;
        let made = state.catalog.versions_of(model.uid()).find(|version| version.uid() == uid);
        let made = made.ok_or_else(|| Error::not_found("model version", uid.to_string()))?;
        Ok(Arc::new(state.catalog.render_version(model, made)))
    }

    /// A version of a registered model. A deleted one is not found.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get_model_version(&self, name: &str, version_number: u64) -> Result<Arc<ModelVersion>> {
        let state = self.inner().current(Want::Registry)?;
        let (model, version) = version(&state.catalog, name, version_number)?;
        Ok(Arc::new(state.catalog.render_version(model, version)))
    }

    /// Changes what is written about a version.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn update_model_version(
        &self,
        name: &str,
        version: u64,
        description: Option<&str>,
    ) -> Result<Arc<ModelVersion>> {
        self.change_registry(false, |catalog| {
            changes::update_model_version(catalog, name, version, description, now_ms())
        })?;
        self.get_model_version(name, version)
    }

    /// Puts a version into a stage. With `archive_existing` the versions that are in it are archived; that is allowed
    /// for [`ModelStage::Staging`] and [`ModelStage::Production`] only.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidArgument`].
    pub fn transition_model_version_stage(
        &self,
        name: &str,
        version: u64,
        stage: ModelStage,
        archive_existing: bool,
    ) -> Result<Arc<ModelVersion>> {
        // Of two that empty the same stage one comes first.
        self.change_registry(archive_existing, |catalog| {
            changes::transition_stage(catalog, name, version, stage, archive_existing, now_ms())
        })?;
        self.get_model_version(name, version)
    }

    /// Deletes a version, and the aliases that name it. Its number is not given out again.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when it is deleted already.
    pub fn delete_model_version(&self, name: &str, version: u64) -> Result<()> {
        self.change_registry(false, |catalog| changes::delete_model_version(catalog, name, version, now_ms()))
    }

    /// Sets a tag of a version.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidArgument`] for keys and values that break MLflow's rules.
    pub fn set_model_version_tag(&self, name: &str, version: u64, key: &str, value: &str) -> Result<()> {
        self.change_registry(false, |catalog| {
            changes::set_model_version_tag(catalog, name, version, key, value)
        })
    }

    /// Deletes a tag of a version. One that is not there is fine.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the version.
    pub fn delete_model_version_tag(&self, name: &str, version: u64, key: &str) -> Result<()> {
        self.change_registry(false, |catalog| changes::delete_model_version_tag(catalog, name, version, key))
    }
}

/// A registered model, and a version of it that is not deleted.
fn version<'a>(catalog: &'a Catalog, name: &str, number: u64) -> Result<(&'a Arc<Entity>, &'a Arc<Entity>)> {
    let model = find(catalog, name)?;
    let found = catalog.version(model.uid(), number).filter(|version| !is_deleted_version(version));
    Ok((model, found.ok_or_else(|| missing_version(name, number))?))
}
