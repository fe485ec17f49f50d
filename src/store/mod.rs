//! STUB: the signatures the program is written against. Replaced by the real store.
#![allow(missing_docs, dead_code, clippy::missing_errors_doc, unused_variables)]
pub mod report;

use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use report::{CompactReport, Finding, GcReport, Progress, Severity, Stats, VerifyReport};

use crate::error::{Error, Result};
use crate::mlruns::{ExportOptions, ExportReport, ImportOptions, ImportReport};
use crate::model::{Experiment, Point, Points, RunData, RunStatus};

fn stub<T>() -> Result<T> {
    Err(Error::InvalidArgument("stub".into()))
}

#[derive(Clone)]
pub struct Store {
    path: PathBuf,
}
#[derive(Clone, Default)]
pub struct Options {}
impl Options {
    pub fn read_only(self, on: bool) -> Self {
        self
    }
    pub fn create(self, on: bool) -> Self {
        self
    }
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(Error::NotAStore { path: path.into(), reason: "there is no such directory".into() });
        }
        stub()
    }
}
#[derive(Clone, Debug, Default)]
pub struct ExperimentOptions {}
#[derive(Clone, Debug, Default)]
pub struct RunOptions {}
impl RunOptions {
    pub fn new() -> Self {
        Self {}
    }
    pub fn name(self, name: impl Into<String>) -> Self {
        self
    }
    pub fn param(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self
    }
    pub fn tag(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self
    }
}
pub struct ExperimentHandle {}
impl ExperimentHandle {
    pub fn id(&self) -> &str {
        ""
    }
    pub fn name(&self) -> &str {
        ""
    }
    pub fn start_run(&self, options: RunOptions) -> Result<Run> {
        stub()
    }
}
pub struct Run {}
impl Run {
    pub fn id(&self) -> &str {
        ""
    }
    pub fn log_param(&self, key: &str, value: &str) -> Result<()> {
        stub()
    }
    pub fn set_tag(&self, key: &str, value: &str) -> Result<()> {
        stub()
    }
    pub fn series(&self, key: &str) -> Result<Series> {
        stub()
    }
    pub fn finish(&self, status: RunStatus) -> Result<()> {
        stub()
    }
}
pub struct Series {}
impl Series {
    pub fn log_at(&self, step: i64, timestamp_ms: i64, value: f64) -> Result<()> {
        stub()
    }
}
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    Mlflow,
    Extended,
}
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViewType {
    #[default]
    ActiveOnly,
    DeletedOnly,
    All,
}
#[derive(Clone, Debug, Default)]
pub struct RunSearch {
    pub experiment_ids: Vec<String>,
    pub filter: String,
    pub dialect: Dialect,
    pub view: ViewType,
    pub order_by: Vec<String>,
    pub max_results: usize,
    pub page_token: Option<String>,
}
#[derive(Clone, Debug, Default)]
pub struct ExperimentSearch {
    pub filter: String,
    pub dialect: Dialect,
    pub view: ViewType,
    pub order_by: Vec<String>,
    pub max_results: usize,
    pub page_token: Option<String>,
}
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_page_token: Option<String>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSummary {
    pub key: String,
    pub points: u64,
    pub latest: Point,
    pub last_step: i64,
    pub min: f64,
    pub max: f64,
}
pub struct History {}
pub struct HistoryPage {
    pub points: Points,
    pub next_token: Option<String>,
}
impl History {
    pub fn steps(self, range: impl RangeBounds<i64>) -> Self {
        self
    }
    pub fn timestamps(self, range: impl RangeBounds<i64>) -> Self {
        self
    }
    pub fn limit(self, n: usize) -> Self {
        self
    }
    pub fn collect<C: FromIterator<Point>>(self) -> Result<C> {
        stub()
    }
    pub fn page(&self, max: usize, token: Option<&str>) -> Result<HistoryPage> {
        stub()
    }
}
#[derive(Clone, Debug, PartialEq)]
pub struct ArtifactInfo {
    pub path: String,
    pub is_dir: bool,
    pub size: Option<u64>,
}
#[derive(Clone, Debug, Default)]
pub struct GcOptions {
    pub older_than_ms: u64,
    pub dry_run: bool,
}

impl Store {
    pub fn options() -> Options {
        Options::default()
    }
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        stub()
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn close(self) -> Result<()> {
        stub()
    }
    pub fn experiment(&self, name: &str) -> Result<ExperimentHandle> {
        stub()
    }
    pub fn get_experiment(&self, id: &str) -> Result<Arc<Experiment>> {
        stub()
    }
    pub fn get_experiment_by_name(&self, name: &str) -> Result<Arc<Experiment>> {
        stub()
    }
    pub fn search_experiments(&self, search: &ExperimentSearch) -> Result<Page<Arc<Experiment>>> {
        stub()
    }
    pub fn search_runs(&self, search: &RunSearch) -> Result<Page<Arc<RunData>>> {
        stub()
    }
    pub fn get_run(&self, id: &str) -> Result<Arc<RunData>> {
        stub()
    }
    pub fn run(&self, id: &str) -> Result<Run> {
        stub()
    }
    pub fn metrics(&self, run_id: &str) -> Result<Vec<MetricSummary>> {
        stub()
    }
    pub fn history(&self, run_id: &str, key: &str) -> Result<History> {
        stub()
    }
    pub fn artifact_location(&self, run_id: &str) -> Result<String> {
        stub()
    }
    pub fn list_artifacts(&self, run_id: &str, path: &str) -> Result<Vec<ArtifactInfo>> {
        stub()
    }
    pub fn stats(&self) -> Result<Stats> {
        stub()
    }
    pub fn verify(&self, progress: &mut dyn FnMut(&Progress)) -> Result<VerifyReport> {
        stub()
    }
    pub fn compact(&self, progress: &mut dyn FnMut(&Progress)) -> Result<CompactReport> {
        stub()
    }
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        stub()
    }
    pub fn import(
        &self,
        source: &Path,
        options: &ImportOptions,
        progress: &mut dyn FnMut(&crate::mlruns::Progress),
    ) -> Result<ImportReport> {
        stub()
    }
    pub fn export(
        &self,
        destination: &Path,
        options: &ExportOptions,
        progress: &mut dyn FnMut(&crate::mlruns::Progress),
    ) -> Result<ExportReport> {
        stub()
    }
}
