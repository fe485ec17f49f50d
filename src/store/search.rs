//! Searching runs and experiments.
//!
//! Contract: MLflow's grammar, order and tokens (`query::grammar`); the extended dialect is for our API and CLI.
//! Results are shared immutable snapshots, not copies.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Result;
use crate::id::Uid;
use crate::limits::SEARCH_RESULTS_MAX;
use crate::model::{Experiment, RunData};
use crate::query::grammar::{Dialect, ExperimentFilter, RunFilter};
use crate::query::order::{ExperimentOrder, RunOrder};
use crate::query::{ViewType, page, search_experiments, search_runs};
use crate::store::Store;
use crate::store::state::Want;

/// Results of one page when the caller does not say.
const RESULTS_DEFAULT: usize = 1_000;

/// What runs to search.
#[derive(Clone, Debug)]
pub struct RunSearch {
    /// Ids of experiments; empty means all.
    pub experiment_ids: Vec<String>,
    /// The filter; empty means all. See `docs/search.md`.
    pub filter: String,
    /// Which grammar the filter is in.
    pub dialect: Dialect,
    /// Active runs, deleted ones, or both.
    pub view: ViewType,
    /// Keys to order by, each with `ASC` or `DESC`.
    pub order_by: Vec<String>,
    /// Results of one page, at most 50,000.
    pub max_results: usize,
    /// Where the page starts.
    pub page_token: Option<String>,
}

impl Default for RunSearch {
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

/// What experiments to search.
#[derive(Clone, Debug)]
pub struct ExperimentSearch {
    /// The filter; empty means all. See `docs/search.md`.
    pub filter: String,
    /// Which grammar the filter is in.
    pub dialect: Dialect,
    /// Active experiments, deleted ones, or both.
    pub view: ViewType,
    /// Keys to order by, each with `ASC` or `DESC`.
    pub order_by: Vec<String>,
    /// Results of one page, at most 50,000.
    pub max_results: usize,
    /// Where the page starts.
    pub page_token: Option<String>,
}

impl Default for ExperimentSearch {
    fn default() -> Self {
        Self {
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

fn checked_max(max_results: usize) -> Result<usize> {
    page::check_max_results(i64::try_from(max_results).unwrap_or(SEARCH_RESULTS_MAX as i64 + 1))
}

impl Store {
    /// Runs that pass a filter, in order.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] for a filter, order or token that is none; [`crate::Error::NotFound`] for an
    /// experiment that does not exist.
    pub fn search_runs(&self, search: &RunSearch) -> Result<Page<Arc<RunData>>> {
        let filter = RunFilter::parse(&search.filter, search.dialect)?;
        let order = RunOrder::parse(&search.order_by, search.dialect)?;
        let max_results = checked_max(search.max_results)?;
        let offset = page::decode_token(search.page_token.as_deref().unwrap_or_default())?;
        let experiments: Result<Vec<Uid>> =
            search.experiment_ids.iter().map(|id| self.inner.experiment_uid(id)).collect();
        let experiments = experiments?;
        let snapshot = self.inner.snapshot()?;
        let state = self.inner.current(Want::All)?;
        let catalog = &state.catalog;
        // One experiment may be named twice, by its id and its uid.
        let chosen: BTreeSet<Uid> = if experiments.is_empty() {
            catalog.experiments().map(|e| e.uid()).collect()
        } else {
            experiments.into_iter().collect()
        };
        let entities: Vec<_> = chosen
            .into_iter()
            .flat_map(|experiment| catalog.runs_of(experiment))
            .filter(|run| search.view.includes(run.lifecycle()))
            .collect();
        self.inner.warm_metrics(&snapshot, &entities.iter().map(|run| run.uid()).collect::<Vec<_>>())?;
        let mut runs = Vec::with_capacity(entities.len());
        for entity in entities {
            runs.push(self.inner.run_snapshot(&snapshot, entity, || catalog.render_run(entity))?);
        }
        drop(state);
        Ok(paged(search_runs(runs, &filter, &order, max_results, offset)))
    }

    /// Experiments that pass a filter, in order.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] for a filter, order or token that is none.
    pub fn search_experiments(&self, search: &ExperimentSearch) -> Result<Page<Arc<Experiment>>> {
        let filter = ExperimentFilter::parse(&search.filter, search.dialect)?;
        let order = ExperimentOrder::parse(&search.order_by, search.dialect)?;
        let max_results = checked_max(search.max_results)?;
        let offset = page::decode_token(search.page_token.as_deref().unwrap_or_default())?;
        let state = self.inner.current(Want::Experiments)?;
        let all: Vec<Arc<Experiment>> = state
            .catalog
            .experiments()
            .filter(|e| search.view.includes(e.lifecycle()))
            .map(|e| Arc::new(state.catalog.render_experiment(e)))
            .collect();
        drop(state);
        Ok(paged(search_experiments(all, &filter, &order, max_results, offset)))
    }
}
