//! MLflow's search grammar: text -> expression -> yes or no for an entity.
//!
//! Contract: pure. Parsing never panics, takes time linear in the text and answers only
//! [`Error::InvalidArgument`](crate::Error::InvalidArgument), worded as MLflow words it where MLflow has a wording
//! (observed on 3.18). A parsed filter holds no reference to its text, and evaluating it allocates nothing.
//!
//! The way: `lex` cuts the text into tokens, `group` joins them to comparisons as MLflow's grouping does, `expr` builds
//! the tree of comparisons, and one module per entity (`runs`, `experiments`, `registry`) says which keys and
//! comparators exist and what they mean, with the parts in `clause` and `like`. A new entity is a new module of that
//! last kind.
//!
//! Where MLflow's tokeniser trips over itself (keys named like SQL keywords, `1e+5`) the text is accepted here.
//! `docs/search.md` is the description for users.

mod clause;
mod experiments;
mod expr;
mod group;
mod lex;
mod like;
mod logged_models;
mod registry;
mod runs;
mod traces;

pub use experiments::{ExperimentFields, ExperimentFilter, ExperimentText, ExperimentTime};
pub use logged_models::{DatasetFilter, LoggedModelFilter};
pub use registry::{IS_PROMPT, RegistryEntity, RegistryFields, RegistryFilter, RegistryNumber, RegistryText};
pub use runs::{RunFields, RunFilter, RunText, RunTime};
pub use traces::TraceFilter;

pub(super) use clause::{Identifier, clip};
pub(super) use experiments::{
    ExperimentAttribute, attribute_named as experiment_attribute_named, compare_ids as compare_experiment_ids,
};
pub(super) use lex::{Kind, tokens};
pub(super) use logged_models::{
    LoggedModelAttribute, LoggedModelText, LoggedModelTime, attribute_named as logged_model_attribute_named,
    latest_metric, text_of as logged_model_text, time_of as logged_model_time,
};
pub(super) use registry::{RegistryAttribute, order_attribute as registry_order_attribute};
pub(super) use runs::{
    RunAttribute, RunEntity, attribute_named as run_attribute_named, entity_named as run_entity_named,
};
pub(super) use traces::{
    TraceAttribute, TraceNumber, TraceText, attribute_named as trace_attribute_named,
    number_of as trace_number, text_of as trace_text,
};

/// Which language a filter or an `order_by` key is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// MLflow's: comparisons joined by AND. OR, NOT, parentheses, `;` and comments are refused; keys with other
    /// characters than letters, digits, `_` and `.` must be quoted. As in MLflow the word AND may be left out,
    /// doubled, or stand first or last.
    MlFlow,
    /// The engine's own API and program: also OR, NOT and parentheses (NOT binds tightest, then AND, then OR), and
    /// keys may hold `/`, `-`, `:`, `@` and `$` unquoted. A last AND may dangle; otherwise AND must join.
    Extended,
}
