//! mlrs-db: an embedded storage engine for high-throughput metric logging.
#![warn(missing_docs)]

pub mod catalog;
#[cfg(feature = "cli")]
pub mod cli;
pub mod codec;
pub mod error;
pub mod format;
pub mod id;
pub mod index;
pub mod limits;
pub mod log;
#[cfg(feature = "mlflow")]
pub mod mlflow;
pub mod mlruns;
pub mod model;
pub mod query;
#[cfg(feature = "server")]
pub mod server;
pub mod store;
mod sync;
pub mod vfs;

pub use error::{Error, Result};
pub use model::{
    Assessment, AssessmentError, AssessmentValue, Dataset, DatasetInput, Experiment, Lifecycle, LoggedModel,
    LoggedModelMetric, LoggedModelStatus, ModelOutput, ModelStage, ModelVersion, Point, Points,
    RegisteredModel, RunData, RunStatus, Span, TraceInfo, TraceState,
};
pub use query::ViewType;
pub use query::follow::FollowedPoint;
pub use query::grammar::{DatasetFilter, Dialect};
pub use query::order_models::LoggedModelOrderKey;
pub use query::sample::Sample;
pub use store::report::{
    BackupReport, CompactReport, CopyReport, Finding, GcReport, LostPoints, MergeReport, Progress,
    RecoverReport, RepairAction, RepairKind, RepairReport, Severity, Stats, VerifyReport, WritersElsewhere,
};
pub use store::{
    ArtifactFile, ArtifactInfo, ArtifactUpload, AssessmentUpdate, Durability, ExperimentHandle,
    ExperimentOptions, ExperimentSearch, Follow, FollowCursor, GcOptions, History, HistoryPage,
    LoggedModelOptions, LoggedModelSearch, Metric, MetricSummary, ModelMetric, ModelVersionOptions, Network,
    Options, Page, ReapedRun, RegisteredModelOptions, Run, RunLiveness, RunOptions, RunSearch, Search,
    Series, SharedMapping, Store, TraceSearch, WriterInfo, WriterLiveness,
};

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
