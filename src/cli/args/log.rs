//! What `log` takes.

use clap::{Args, ValueEnum};

use super::pairs;
use crate::model::RunStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum InputFormat {
    /// JSON lines if the first character is "{", else CSV
    Auto,
    /// Comma- or tab-separated, with a header line
    Csv,
    /// One JSON object a line
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum EndStatus {
    Finished,
    Failed,
    Killed,
    /// Leave the run open
    Running,
}

impl EndStatus {
    /// The status to end with; none leaves the run open.
    pub(in crate::cli) const fn run_status(self) -> Option<RunStatus> {
        match self {
            Self::Finished => Some(RunStatus::Finished),
            Self::Failed => Some(RunStatus::Failed),
            Self::Killed => Some(RunStatus::Killed),
            Self::Running => None,
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Log {
    /// Experiment of the new run; made if it does not exist
    #[arg(short, long, value_name = "NAME", default_value = "Default")]
    pub(in crate::cli) experiment: String,
    /// Name of the new run
    #[arg(short, long = "run", value_name = "NAME")]
    pub(in crate::cli) run_name: Option<String>,
    /// Go on with this run instead (id or a unique start of one)
    #[arg(long, value_name = "ID", conflicts_with_all = ["run_name", "experiment"])]
    pub(in crate::cli) run_id: Option<String>,
    /// A param of the run; may be repeated
    #[arg(short, long = "param", value_name = "KEY=VALUE", value_parser = pairs::key_value)]
    pub(in crate::cli) params: Vec<(String, String)>,
    /// A tag of the run; may be repeated
    #[arg(short, long = "tag", value_name = "KEY=VALUE", value_parser = pairs::key_value)]
    pub(in crate::cli) tags: Vec<(String, String)>,
    /// What the lines are
    #[arg(short, long, default_value = "auto")]
    pub(in crate::cli) format: InputFormat,
    /// Column or field with the step
    #[arg(long, value_name = "KEY", default_value = "step")]
    pub(in crate::cli) step: String,
    /// Column or field with the time: milliseconds since 1970 or an ISO 8601 date in UTC
    #[arg(long, value_name = "KEY", default_value = "timestamp")]
    pub(in crate::cli) timestamp: String,
    /// Status of the run at the end of the input
    #[arg(long, default_value = "finished", ignore_case = true)]
    pub(in crate::cli) status: EndStatus,
}
