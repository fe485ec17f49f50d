//! Snapshots, histories and the search grammar.
//!
//! Contract: answers come from the log alone; nothing here writes or waits for a lock. Searches are pure: what to
//! search is handed in. Filters are [`grammar`], orders are [`order`], pages are
//! [`page`]; [`search_runs`] and its like put the three together.

pub mod follow;
pub mod grammar;
pub mod history;
pub mod order;
pub mod order_models;
pub mod order_traces;
pub mod page;
pub mod sample;
pub(crate) mod snapshot;
pub(crate) mod thinning;
pub(crate) mod walk;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::model::{Lifecycle, LoggedModel, TraceInfo};

use grammar::{
    ExperimentFields, ExperimentFilter, LoggedModelFilter, RegistryFields, RegistryFilter, RunFields,
    RunFilter, TraceFilter,
};
use order::{ExperimentOrder, RegistryOrder, RunOrder};
use order_models::LoggedModelOrder;
use order_traces::TraceOrder;
use page::Page;

/// Which entities a search looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ViewType {
    /// Those in use.
    #[default]
    ActiveOnly,
    /// Those in the bin.
    DeletedOnly,
    /// Both.
    All,
}

impl ViewType {
    /// Whether entities in this state are looked at.
    pub const fn includes(self, lifecycle: Lifecycle) -> bool {
        matches!(
            (self, lifecycle),
            (Self::All, _) | (Self::ActiveOnly, Lifecycle::Active) | (Self::DeletedOnly, Lifecycle::Deleted)
        )
    }

    /// MLflow's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ActiveOnly => "ACTIVE_ONLY",
            Self::DeletedOnly => "DELETED_ONLY",
            Self::All => "ALL",
        }
    }

    /// The view of MLflow's number.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::ActiveOnly),
            2 => Some(Self::DeletedOnly),
            3 => Some(Self::All),
            _ => None,
        }
    }
}

impl fmt::Display for ViewType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ViewType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known =
            [Self::ActiveOnly, Self::DeletedOnly, Self::All].into_iter().find(|view| view.as_str() == text);
        known.ok_or_else(|| {
            let text = grammar::clip(text);
            Error::invalid(format!("'{text}' is not a view type: expected ACTIVE_ONLY, DELETED_ONLY or ALL"))
        })
    }
}

/// The runs that pass a filter: `max_results` of them in order, from `offset` on.
///
/// `runs` may be references or `Arc`s; what is not on the page is dropped. The caller leaves out runs that the view
/// type hides, and checks `max_results` ([`page::check_max_results`]).
pub fn search_runs<T: RunFields>(
    runs: impl IntoIterator<Item = T>,
    filter: &RunFilter,
    order: &RunOrder,
    max_results: usize,
    offset: usize,
) -> Page<T> {
    page::select(runs, |run| filter.matches(run), order, max_results, offset)
}

/// The experiments that pass a filter; as [`search_runs`].
pub fn search_experiments<T: ExperimentFields>(
    experiments: impl IntoIterator<Item = T>,
    filter: &ExperimentFilter,
    order: &ExperimentOrder,
    max_results: usize,
    offset: usize,
) -> Page<T> {
    page::select(experiments, |experiment| filter.matches(experiment), order, max_results, offset)
}

/// The registered models or versions that pass a filter; as [`search_runs`].
pub fn search_registry<T: RegistryFields>(
    entities: impl IntoIterator<Item = T>,
    filter: &RegistryFilter,
    order: &RegistryOrder,
    max_results: usize,
    offset: usize,
) -> Page<T> {
    page::select(entities, |entity| filter.matches(entity), order, max_results, offset)
}

/// The traces that pass a filter; as [`search_runs`].
pub fn search_traces<T: Borrow<TraceInfo>>(
    traces: impl IntoIterator<Item = T>,
    filter: &TraceFilter,
    order: &TraceOrder,
    max_results: usize,
    offset: usize,
) -> Page<T> {
    page::select(traces, |trace| filter.matches(trace.borrow()), order, max_results, offset)
}

/// The logged models that pass a filter; as [`search_runs`].
pub fn search_logged_models<T: Borrow<LoggedModel>>(
    models: impl IntoIterator<Item = T>,
    filter: &LoggedModelFilter,
    order: &LoggedModelOrder,
    max_results: usize,
    offset: usize,
) -> Page<T> {
    page::select(models, |model| filter.matches(model.borrow()), order, max_results, offset)
}
