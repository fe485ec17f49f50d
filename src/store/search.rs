//! Searching runs, experiments, registered models and their versions, logged models.
//!
//! Contract: MLflow's grammar, order and tokens (`query::grammar`); the extended dialect is for our API and CLI.
//! Results are shared immutable snapshots, not copies.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::{Entity, is_deleted_version};
use crate::error::Result;
use crate::format::event::{EntityKind, Field};
use crate::id::Uid;
use crate::limits::{MODEL_VERSIONS_MAX, REGISTERED_MODELS_MAX, SEARCH_RESULTS_MAX};
use crate::model::{Experiment, Lifecycle, LoggedModel, ModelVersion, RegisteredModel, RunData, TraceInfo};
use crate::query::grammar::{
    DatasetFilter, Dialect, ExperimentFilter, LoggedModelFilter, RegistryEntity, RegistryFilter, RunFields,
    RunFilter, TraceFilter,
};
use crate::query::order::{ExperimentOrder, RegistryOrder, RunOrder};
use crate::query::order_models::{LoggedModelOrder, LoggedModelOrderKey};
use crate::query::order_traces::TraceOrder;
use crate::query::snapshot::Snapshot;
use crate::query::{
    ViewType, page, search_experiments, search_logged_models, search_registry, search_runs, search_traces,
};
use crate::store::state::Want;
use crate::store::{Inner, Store};

/// Results of one page when the caller does not say.
const RESULTS_DEFAULT: usize = 1_000;
/// The same of logged models, which is MLflow's.
const LOGGED_MODELS_DEFAULT: usize = 100;

/// What to search: runs ([`Store::search_runs`]), experiments ([`Store::search_experiments`]), registered models
/// ([`Store::search_registered_models`]) or versions ([`Store::search_model_versions`]).
#[derive(Clone, Debug)]
pub struct Search {
    /// Runs of these experiments only, or these experiments only, by id or uid; empty means all. The registry belongs
    /// to none, so there it says nothing.
    pub experiment_ids: Vec<String>,
    /// The filter; empty means all. See `docs/search.md`.
    pub filter: String,
    /// Which grammar the filter is in.
    pub dialect: Dialect,
    /// Active ones, deleted ones, or both; in the registry nothing deleted is kept to be shown.
    pub view: ViewType,
    /// Keys to order by, each with `ASC` or `DESC`.
    pub order_by: Vec<String>,
    /// Results of one page, at most 50,000; of registered models 1,000, of versions 200,000.
    pub max_results: usize,
    /// Where the page starts.
    pub page_token: Option<String>,
}

/// What runs to search.
pub type RunSearch = Search;
/// What experiments to search.
pub type ExperimentSearch = Search;

impl Default for Search {
    fn default() -> Self {
        Self {
            experiment_ids: Vec::new(),
            filter: String::new(),
            dialect: Dialect::Extended,
            view: ViewType::ActiveOnly,
            order_by: Vec::new(),
            max_results: RESULTS_DEFAULT,
            page_token: None,
        }
    }
}

/// One page of results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The results, in order.
    pub items: Vec<T>,
    /// The token of the next page; none if this is the last.
    pub next_page_token: Option<String>,
}

fn paged<T>(page: page::Page<T>) -> Page<T> {
    let next_page_token = page.next_token();
    Page { items: page.items, next_page_token }
}

impl Search {
    /// Checks filter, order, number of results and token as a search of runs would, without searching.
    ///
    /// # Errors
    /// As [`Store::search_runs`].
    pub fn check_runs(&self) -> Result<()> {
        RunFilter::parse(&self.filter, self.dialect)?;
        RunOrder::parse(&self.order_by, self.dialect)?;
        self.range(SEARCH_RESULTS_MAX).map(|_| ())
    }

    /// How many results, at most as many as given, and from which on.
    fn range(&self, most: usize) -> Result<(usize, usize)> {
        range(self.max_results, self.page_token.as_deref(), most)
    }

    fn experiments(&self, store: &Inner) -> Result<Option<BTreeSet<Uid>>> {
        experiments_named(&self.experiment_ids, store)
    }
}

/// What traces to search ([`Store::search_traces`]); nothing of them is kept in a bin, so `view` says nothing.
pub type TraceSearch = Search;

/// What logged models to search ([`Store::search_logged_models`]).
#[derive(Clone, Debug)]
pub struct LoggedModelSearch {
    /// Models of these experiments only, by id or uid; empty means all.
    pub experiment_ids: Vec<String>,
    /// The filter; empty means all. See `docs/search.md`.
    pub filter: String,
    /// Which grammar the filter is in.
    pub dialect: Dialect,
    /// Only what was measured on these data sets counts; empty means all.
    pub datasets: Vec<DatasetFilter>,
    /// Keys to order by.
    pub order_by: Vec<LoggedModelOrderKey>,
    /// Results of one page, at most 50,000.
    pub max_results: usize,
    /// Where the page starts.
    pub page_token: Option<String>,
}

impl Default for LoggedModelSearch {
    fn default() -> Self {
        Self {
            experiment_ids: Vec::new(),
            filter: String::new(),
            dialect: Dialect::Extended,
            datasets: Vec::new(),
            order_by: Vec::new(),
            max_results: LOGGED_MODELS_DEFAULT,
            page_token: None,
        }
    }
}

impl LoggedModelSearch {
    /// Checks filter, order, number of results and token as the search would, without searching.
    ///
    /// # Errors
    /// As [`Store::search_logged_models`].
    pub fn check(&self) -> Result<()> {
        LoggedModelFilter::parse(&self.filter, &self.datasets, self.dialect)?;
        LoggedModelOrder::new(&self.order_by, &self.datasets)?;
        range(self.max_results, self.page_token.as_deref(), SEARCH_RESULTS_MAX).map(drop)
    }
}

/// The experiments that are named; none means all. One may be named twice, by its id and its uid.
fn experiments_named(ids: &[String], store: &Inner) -> Result<Option<BTreeSet<Uid>>> {
    let named: Result<BTreeSet<Uid>> = ids.iter().map(|id| store.experiment_uid(id)).collect();
    Ok(Some(named?).filter(|named| !named.is_empty()))
}

/// How many results, at most as many as given, and from which on.
fn range(max_results: usize, page_token: Option<&str>, most: usize) -> Result<(usize, usize)> {
    let max_results = i64::try_from(max_results).unwrap_or(i64::MAX);
    let offset = page::decode_token(page_token.unwrap_or_default())?;
    Ok((page::check_results(max_results, most)?, offset))
}

impl Store {
    /// Runs that pass a filter, in order.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] for a filter, order or token that is none; [`crate::Error::NotFound`] for an
    /// experiment that does not exist.
    pub fn search_runs(&self, search: &RunSearch) -> Result<Page<Arc<RunData>>> {
        self.search_runs_as(search, |run| run)
    }

    /// The same, where each run becomes something else before it is filtered and ordered: somebody who spells artifact
    /// locations in a way of their own lets searches see that.
    ///
    /// # Errors
    /// As [`Store::search_runs`].
    pub fn search_runs_as<T: RunFields>(
        &self,
        search: &RunSearch,
        mut each: impl FnMut(Arc<RunData>) -> T,
    ) -> Result<Page<T>> {
        let filter = RunFilter::parse(&search.filter, search.dialect)?;
        let order = RunOrder::parse(&search.order_by, search.dialect)?;
        let (max_results, offset) = search.range(SEARCH_RESULTS_MAX)?;
        let experiments = search.experiments(self.inner())?;
        let runs =
            self.inner().with_snapshot(|snapshot| self.runs_at(snapshot, search, experiments.as_ref()))?;
        let runs = runs.into_iter().map(&mut each);
        Ok(paged(search_runs(runs, &filter, &order, max_results, offset)))
    }

    /// All runs that a search looks at, as of a snapshot.
    fn runs_at(
        &self,
        snapshot: &Snapshot,
        search: &RunSearch,
        experiments: Option<&BTreeSet<Uid>>,
    ) -> Result<Vec<Arc<RunData>>> {
        let state = self.inner().current(Want::All)?;
        let catalog = &state.catalog;
        let all = || catalog.experiments().map(|e| e.uid()).collect();
        let chosen: BTreeSet<Uid> = experiments.cloned().unwrap_or_else(all);
        // What is left of damaged metadata may be runs of no experiment: they are listed with all.
        let is_stray = |run: &&Arc<Entity>| {
            run.reference(Field::EXPERIMENT).and_then(|uid| catalog.experiment(uid)).is_none()
        };
        let lists_strays = experiments.is_none() && self.inner().options.skip_damage;
        let strays = lists_strays.then(|| catalog.of_kind(EntityKind::RUN).filter(is_stray));
        let entities: Vec<_> = chosen
            .into_iter()
            .flat_map(|experiment| catalog.runs_of(experiment))
            .chain(strays.into_iter().flatten())
            .filter(|run| search.view.includes(run.lifecycle()))
            .collect();
        let uids: Vec<Uid> = entities.iter().map(|run| run.uid()).collect();
        let metrics = self.inner().metrics_of_all(snapshot, &uids)?;
        let snapshots = entities.into_iter().zip(&metrics);
        Ok(snapshots
            .map(|(run, metrics)| self.inner().run_snapshot(run, metrics, || catalog.render_run(run)))
            .collect())
    }

    /// Experiments that pass a filter, in order.
    ///
    /// # Errors
    /// As [`Store::search_runs`].
    pub fn search_experiments(&self, search: &ExperimentSearch) -> Result<Page<Arc<Experiment>>> {
        let filter = ExperimentFilter::parse(&search.filter, search.dialect)?;
        let order = ExperimentOrder::parse(&search.order_by, search.dialect)?;
        let (max_results, offset) = search.range(SEARCH_RESULTS_MAX)?;
        let chosen = search.experiments(self.inner())?;
        let state = self.inner().current(Want::Experiments)?;
        let all: Vec<Arc<Experiment>> = state
            .catalog
            .experiments()
            .filter(|e| chosen.as_ref().is_none_or(|chosen| chosen.contains(&e.uid())))
            .filter(|e| search.view.includes(e.lifecycle()))
            .map(|e| Arc::new(state.catalog.render_experiment(e)))
            .collect();
        drop(state);
        Ok(paged(search_experiments(all, &filter, &order, max_results, offset)))
    }

    /// Registered models that pass a filter, in order. Prompts are passed over unless the filter asks for them.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] for a filter, order or token that is none.
    pub fn search_registered_models(&self, search: &Search) -> Result<Page<Arc<RegisteredModel>>> {
        let filter = RegistryFilter::parse(&search.filter, RegistryEntity::Model, search.dialect)?;
        let order = RegistryOrder::parse(&search.order_by, RegistryEntity::Model, search.dialect)?;
        let (max_results, offset) = search.range(REGISTERED_MODELS_MAX)?;
        let state = self.inner().current(Want::Registry)?;
        let models = state.catalog.of_kind(EntityKind::REGISTERED_MODEL);
        let models: Vec<_> =
            models.map(|model| Arc::new(state.catalog.render_registered_model(model))).collect();
        drop(state);
        Ok(paged(search_registry(models, &filter, &order, max_results, offset)))
    }

    /// Versions of registered models that pass a filter, in order; those of prompts as for
    /// [`Store::search_registered_models`].
    ///
    /// # Errors
    /// As [`Store::search_registered_models`].
    pub fn search_model_versions(&self, search: &Search) -> Result<Page<Arc<ModelVersion>>> {
        let filter = RegistryFilter::parse(&search.filter, RegistryEntity::Version, search.dialect)?;
        let order = RegistryOrder::parse(&search.order_by, RegistryEntity::Version, search.dialect)?;
        let (max_results, offset) = search.range(MODEL_VERSIONS_MAX)?;
        let state = self.inner().current(Want::Registry)?;
        let catalog = &state.catalog;
        let of_model = |model| catalog.versions_of(model).filter(|version| !is_deleted_version(version));
        let versions: Vec<_> = catalog
            .of_kind(EntityKind::REGISTERED_MODEL)
            .flat_map(|model| of_model(model.uid()).map(move |version| (model, version)))
            .map(|(model, version)| Arc::new(catalog.render_version(model, version)))
            .collect();
        drop(state);
        Ok(paged(search_registry(versions, &filter, &order, max_results, offset)))
    }

    /// Logged models in use that pass a filter, in order.
    ///
    /// # Errors
    /// As [`Store::search_runs`].
    pub fn search_logged_models(&self, search: &LoggedModelSearch) -> Result<Page<Arc<LoggedModel>>> {
        let filter = LoggedModelFilter::parse(&search.filter, &search.datasets, search.dialect)?;
        let order = LoggedModelOrder::new(&search.order_by, &search.datasets)?;
        let (max_results, offset) =
            range(search.max_results, search.page_token.as_deref(), SEARCH_RESULTS_MAX)?;
        let inner = self.inner();
        let experiments = experiments_named(&search.experiment_ids, inner)?;
        inner.with_snapshot(|snapshot| {
            let models: Vec<LoggedModel> = {
                let state = inner.current(Want::All)?;
                let all = state.catalog.of_kind(EntityKind::LOGGED_MODEL);
                let is_asked = |model: &&Arc<Entity>| {
                    let experiment = model.reference(Field::EXPERIMENT).unwrap_or_default();
                    experiments.as_ref().is_none_or(|asked| asked.contains(&experiment))
                        && model.lifecycle() == Lifecycle::Active
                };
                all.filter(is_asked).map(|model| state.catalog.render_logged_model(model)).collect()
            };
            let with_metrics = |mut model: LoggedModel| {
                model.metrics = inner.logged_model_metrics(snapshot, model.uid)?;
                Ok(Arc::new(model))
            };
            let models = models.into_iter().map(with_metrics).collect::<Result<Vec<_>>>()?;
            Ok(paged(search_logged_models(models, &filter, &order, max_results, offset)))
        })
    }

    /// Traces that pass a filter, in order, without their spans.
    ///
    /// # Errors
    /// As [`Store::search_runs`].
    pub fn search_traces(&self, search: &TraceSearch) -> Result<Page<Arc<TraceInfo>>> {
        let filter = TraceFilter::parse(&search.filter, search.dialect)?;
        let order = TraceOrder::parse(&search.order_by, search.dialect)?;
        let (max_results, offset) = search.range(SEARCH_RESULTS_MAX)?;
        let chosen = search.experiments(self.inner())?;
        let state = self.inner().current(Want::All)?;
        let is_asked = |trace: &&Arc<Entity>| {
            let experiment = trace.reference(Field::EXPERIMENT).unwrap_or_default();
            chosen.as_ref().is_none_or(|chosen| chosen.contains(&experiment))
        };
        let all = state.catalog.of_kind(EntityKind::TRACE).filter(is_asked);
        let all: Vec<_> = all.map(|trace| Arc::new(state.catalog.render_trace(trace))).collect();
        drop(state);
        Ok(paged(search_traces(all, &filter, &order, max_results, offset)))
    }
}
