//! What the verbs take that answer questions: `experiments`, `runs`, `metrics` and `stats`.

use std::ops::Bound;

use clap::{Args, Subcommand, ValueEnum};

use super::RunsReap;
use super::ex;
use super::time;

/// What to do about damage, for verbs that only read.
#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct Damage {
    /// Pass over what is damaged and answer from the rest, instead of stopping with exit code 4; a warning on stderr
    /// says how many places could not be read (`mlrs-db verify` names them)
    #[arg(long)]
    pub(in crate::cli) skip_damage: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum View {
    Active,
    Deleted,
    All,
}

/// How much of a list to print.
#[derive(Debug, Args)]
pub(in crate::cli) struct Listing {
    /// Active ones, deleted ones, or all
    #[arg(long, value_name = "WHICH", default_value = "active")]
    pub(in crate::cli) view: View,
    /// Sort by this key (see the examples), ascending unless DESC follows; may be repeated
    #[arg(short, long, value_name = "KEY [ASC|DESC]")]
    pub(in crate::cli) order_by: Vec<String>,
    /// Print at most N; 0 means all [default: 100 on a terminal, all otherwise]
    #[arg(short = 'n', long, value_name = "N")]
    pub(in crate::cli) limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Experiments {
    /// List experiments
    #[command(after_help = ex::EXPERIMENTS_LS)]
    Ls(ExperimentsLs),
    /// Show one experiment
    #[command(after_help = ex::EXPERIMENTS_SHOW)]
    Show(ExperimentsShow),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExperimentsLs {
    /// Only those that match, e.g. "name LIKE 'mnist%'"
    #[arg(short, long, value_name = "FILTER", default_value = "")]
    pub(in crate::cli) filter: String,
    #[command(flatten)]
    pub(in crate::cli) listing: Listing,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExperimentsShow {
    /// Name or id
    #[arg(value_name = "EXPERIMENT")]
    pub(in crate::cli) experiment: String,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Runs {
    /// List runs, newest first
    #[command(after_help = ex::RUNS_LS)]
    Ls(RunsLs),
    /// List the runs that match a filter
    #[command(after_help = ex::RUNS_SEARCH, long_about = ex::RUNS_SEARCH_ABOUT)]
    Search(RunsSearch),
    /// Show one run: params, tags, latest metrics, inputs, artifacts
    #[command(after_help = ex::RUNS_SHOW)]
    Show(RunsShow),
    /// Mark runs as failed whose process is gone
    #[command(after_help = ex::RUNS_REAP, long_about = ex::RUNS_REAP_ABOUT)]
    Reap(RunsReap),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunsLs {
    /// Only runs of this experiment (name or id); may be repeated
    #[arg(short, long, value_name = "EXPERIMENT")]
    pub(in crate::cli) experiment: Vec<String>,
    /// Add a column with the latest value of this metric; may be repeated
    #[arg(short, long, value_name = "KEY")]
    pub(in crate::cli) metric: Vec<String>,
    /// Add a column with this param; may be repeated
    #[arg(short, long, value_name = "KEY")]
    pub(in crate::cli) param: Vec<String>,
    /// Add a column with this tag; may be repeated
    #[arg(short, long, value_name = "KEY")]
    pub(in crate::cli) tag: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) listing: Listing,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunsSearch {
    /// The filter
    pub(in crate::cli) filter: String,
    #[command(flatten)]
    pub(in crate::cli) ls: RunsLs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunsShow {
    /// Run id, a unique start of one, or a unique run name
    pub(in crate::cli) run: String,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Metrics {
    /// List the metrics of a run
    #[command(after_help = ex::METRICS_LS)]
    Ls(MetricsLs),
    /// Print the history of a metric
    #[command(after_help = ex::METRICS_GET)]
    Get(MetricsGet),
    /// Draw metrics in the terminal
    #[command(after_help = ex::METRICS_PLOT, long_about = ex::METRICS_PLOT_ABOUT)]
    Plot(MetricsPlot),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MetricsLs {
    /// Run id, a unique start of one, or a unique run name
    pub(in crate::cli) run: String,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}

/// Which points of a history.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Range {
    /// Only these steps: 100..200, 100..=200, 100.., ..200 or 100
    #[arg(short, long, value_name = "RANGE", value_parser = time::parse_steps, allow_hyphen_values = true)]
    pub(in crate::cli) steps: Option<(Bound<i64>, Bound<i64>)>,
    /// Only points logged at or after TIME: 2026-11-23T11:56 (UTC), milliseconds, or 2h (two hours ago)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(in crate::cli) since: Option<i64>,
    /// Only points logged before TIME
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(in crate::cli) until: Option<i64>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MetricsGet {
    /// Run id, a unique start of one, or a unique run name
    pub(in crate::cli) run: String,
    /// Metric key
    pub(in crate::cli) key: String,
    #[command(flatten)]
    pub(in crate::cli) range: Range,
    /// Print only the first N points
    #[arg(short = 'n', long, value_name = "N")]
    pub(in crate::cli) limit: Option<usize>,
    /// CSV that `mlrs-db log` takes in again
    #[arg(long, conflicts_with = "json")]
    pub(in crate::cli) csv: bool,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Axis {
    Step,
    /// Hours, minutes or seconds since the first point of each run
    Time,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MetricsPlot {
    /// Run id, a unique start of one, or a unique run name
    pub(in crate::cli) run: String,
    /// Metric keys
    #[arg(value_name = "KEY", required = true)]
    pub(in crate::cli) keys: Vec<String>,
    /// Draw the same keys of this run as well; may be repeated
    #[arg(short = 'r', long = "run", value_name = "RUN")]
    pub(in crate::cli) more_runs: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) range: Range,
    /// What runs along the bottom
    #[arg(short, long, default_value = "step")]
    pub(in crate::cli) x: Axis,
    /// Logarithmic values; those at or below 0 are counted, not drawn
    #[arg(long)]
    pub(in crate::cli) log_y: bool,
    /// Width in characters [default: the terminal's, or 80]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(20..=1000))]
    pub(in crate::cli) width: Option<u16>,
    /// Height of the drawing area in lines
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=200))]
    pub(in crate::cli) height: u16,
    /// Only ASCII characters
    #[arg(long)]
    pub(in crate::cli) ascii: bool,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}

fn moment(text: &str) -> Result<i64, String> {
    time::parse_moment(text, time::now_ms())
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Stats {
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}
