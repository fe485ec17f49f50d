//! The command line: verbs, options, their help.
//!
//! Contract: only shapes and texts; nothing here opens a store. Every verb's help ends with examples that work.

use std::ops::Bound;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::examples as ex;
use super::time;
use crate::model::RunStatus;

/// The environment variable that names the store.
pub(super) const STORE_VARIABLE: &str = "MLRS_DB_STORE";

/// An embedded storage engine for metric logging: import and export MLflow's mlruns, look at runs, log from a pipe.
#[derive(Debug, Parser)]
#[command(
    name = "mlrs-db",
    version,
    after_help = ex::TOP,
    disable_help_subcommand = true,
    max_term_width = 110,
    arg_required_else_help = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Directory of the store
    // Not the parser of paths: that refuses an empty variable, even for verbs that need no store.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "DIR",
        env = STORE_VARIABLE,
        hide_env_values = true,
        value_hint = ValueHint::DirPath,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub(super) store: Option<PathBuf>,
    /// Answer in JSON: one object, or one per line for lists; times in milliseconds since 1970
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) json: bool,
    /// When to colour
    #[arg(long, global = true, help_heading = "Global options", value_name = "WHEN", default_value = "auto")]
    pub(super) color: ColorChoice,
    /// No progress, no notes: only answers, warnings and errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(super) quiet: bool,
    /// Tell more: every problem of an import, every bad input line, how long it took
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(super) verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make an empty store
    #[command(after_help = ex::INIT)]
    Init(Init),
    /// Take in a directory of mlruns files
    #[command(after_help = ex::IMPORT)]
    Import(Import),
    /// Write the store as a directory of mlruns files
    #[command(after_help = ex::EXPORT)]
    Export(Export),
    /// List and show experiments
    #[command(subcommand, visible_alias = "exp", after_help = ex::EXPERIMENTS)]
    Experiments(Experiments),
    /// List, search and show runs
    #[command(subcommand, visible_alias = "run", after_help = ex::RUNS)]
    Runs(Runs),
    /// List, print and plot metrics of runs
    #[command(subcommand, visible_alias = "metric", after_help = ex::METRICS)]
    Metrics(Metrics),
    /// Log points from standard input: CSV, TSV or JSON lines
    #[command(after_help = ex::LOG, long_about = ex::LOG_ABOUT)]
    Log(Log),
    /// What the store holds and what it costs
    #[command(after_help = ex::STATS)]
    Stats,
    /// Check every checksum, ordinal and claim; exit code 4 if something is damaged
    #[command(after_help = ex::VERIFY)]
    Verify,
    /// Rewrite small segments into large ones
    #[command(after_help = ex::COMPACT)]
    Compact,
    /// Remove deleted runs and experiments for good
    #[command(after_help = ex::GC)]
    Gc(Gc),
    /// Print a completion script for a shell
    #[command(after_help = ex::COMPLETIONS)]
    Completions(Completions),
    /// Print the manual page, or write one per verb
    #[command(after_help = ex::MAN)]
    Man(Man),
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Where; without it the directory of --store or MLRS_DB_STORE
    #[arg(value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Artifacts {
    /// Copy the files, sharing their blocks where the file system can
    Copy,
    /// Hard links; copies where they are not possible
    Link,
    /// Leave the files where they are and remember their place
    Reference,
    /// Leave artifacts out
    Skip,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The mlruns directory; it is only read
    #[arg(value_name = "SRC", value_hint = ValueHint::DirPath)]
    pub(super) source: PathBuf,
    /// Name of this tree, for `export --tree`; by default made from where it lies
    #[arg(long, value_name = "NAME")]
    pub(super) tree: Option<String>,
    /// Import nothing if anything in the tree is damaged (exit code 4)
    #[arg(long)]
    pub(super) strict: bool,
    /// Read and check everything, store nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Take files that changed since an earlier import instead of reporting them
    #[arg(long)]
    pub(super) replace: bool,
    /// What to do with artifact files
    #[arg(long, value_name = "HOW", default_value = "copy")]
    pub(super) artifacts: Artifacts,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The directory to write; must be empty or not exist
    #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
    pub(super) destination: PathBuf,
    /// Only this imported tree, as it was
    #[arg(long, value_name = "NAME")]
    pub(super) tree: Option<String>,
    /// In artifact locations, replace the start FROM by TO; may be repeated
    #[arg(long, value_name = "FROM=TO", value_parser = key_value)]
    pub(super) rewrite_uris: Vec<(String, String)>,
    /// Leave artifacts out
    #[arg(long)]
    pub(super) skip_artifacts: bool,
    /// Replace what is in DEST; it is removed once the export is complete
    #[arg(long)]
    pub(super) overwrite: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum View {
    Active,
    Deleted,
    All,
}

/// How much of a list to print.
#[derive(Debug, Args)]
pub(super) struct Listing {
    /// Active ones, deleted ones, or all
    #[arg(long, value_name = "WHICH", default_value = "active")]
    pub(super) view: View,
    /// Sort by this key, e.g. "metrics.loss ASC"; may be repeated
    #[arg(short, long, value_name = "KEY [ASC|DESC]")]
    pub(super) order_by: Vec<String>,
    /// Print at most N; 0 means all [default: 100 on a terminal, all otherwise]
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Experiments {
    /// List experiments
    #[command(after_help = ex::EXPERIMENTS_LS)]
    Ls(ExperimentsLs),
    /// Show one experiment
    #[command(after_help = ex::EXPERIMENTS_SHOW)]
    Show(ExperimentsShow),
}

#[derive(Debug, Args)]
pub(super) struct ExperimentsLs {
    /// Only those that match, e.g. "name LIKE 'mnist%'"
    #[arg(short, long, value_name = "FILTER", default_value = "")]
    pub(super) filter: String,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[derive(Debug, Args)]
pub(super) struct ExperimentsShow {
    /// Name or id
    #[arg(value_name = "EXPERIMENT")]
    pub(super) experiment: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum Runs {
    /// List runs, newest first
    #[command(after_help = ex::RUNS_LS)]
    Ls(RunsLs),
    /// List the runs that match a filter
    #[command(after_help = ex::RUNS_SEARCH, long_about = ex::RUNS_SEARCH_ABOUT)]
    Search(RunsSearch),
    /// Show one run: params, tags, latest metrics, inputs, artifacts
    #[command(after_help = ex::RUNS_SHOW)]
    Show(RunsShow),
}

#[derive(Debug, Args)]
pub(super) struct RunsLs {
    /// Only runs of this experiment (name or id); may be repeated
    #[arg(short, long, value_name = "EXPERIMENT")]
    pub(super) experiment: Vec<String>,
    /// Add a column with the latest value of this metric; may be repeated
    #[arg(short, long, value_name = "KEY")]
    pub(super) metric: Vec<String>,
    /// Add a column with this param; may be repeated
    #[arg(short, long, value_name = "KEY")]
    pub(super) param: Vec<String>,
    /// Add a column with this tag; may be repeated
    #[arg(short, long, value_name = "KEY")]
    pub(super) tag: Vec<String>,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[derive(Debug, Args)]
pub(super) struct RunsSearch {
    /// The filter
    pub(super) filter: String,
    #[command(flatten)]
    pub(super) ls: RunsLs,
}

#[derive(Debug, Args)]
pub(super) struct RunsShow {
    /// Run id, a unique start of one, or a unique run name
    pub(super) run: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum Metrics {
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
pub(super) struct MetricsLs {
    /// Run id, a unique start of one, or a unique run name
    pub(super) run: String,
}

/// Which points of a history.
#[derive(Clone, Debug, Args)]
pub(super) struct Range {
    /// Only these steps: 100..200, 100..=200, 100.., ..200 or 100
    #[arg(short, long, value_name = "RANGE", value_parser = time::parse_steps, allow_hyphen_values = true)]
    pub(super) steps: Option<(Bound<i64>, Bound<i64>)>,
    /// Only points logged at or after TIME: 2026-11-23T11:56 (UTC), milliseconds, or 2h (two hours ago)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) since: Option<i64>,
    /// Only points logged before TIME
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) until: Option<i64>,
}

#[derive(Debug, Args)]
pub(super) struct MetricsGet {
    /// Run id, a unique start of one, or a unique run name
    pub(super) run: String,
    /// Metric key
    pub(super) key: String,
    #[command(flatten)]
    pub(super) range: Range,
    /// Print only the first N points
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// CSV that `mlrs-db log` takes in again
    #[arg(long, conflicts_with = "json")]
    pub(super) csv: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Axis {
    Step,
    /// Hours, minutes or seconds since the first point of each run
    Time,
}

#[derive(Debug, Args)]
pub(super) struct MetricsPlot {
    /// Run id, a unique start of one, or a unique run name
    pub(super) run: String,
    /// Metric keys
    #[arg(value_name = "KEY", required = true)]
    pub(super) keys: Vec<String>,
    /// Draw the same keys of this run as well; may be repeated
    #[arg(short = 'r', long = "run", value_name = "RUN")]
    pub(super) more_runs: Vec<String>,
    #[command(flatten)]
    pub(super) range: Range,
    /// What runs along the bottom
    #[arg(short, long, default_value = "step")]
    pub(super) x: Axis,
    /// Logarithmic values; those at or below 0 are counted, not drawn
    #[arg(long)]
    pub(super) log_y: bool,
    /// Width in characters [default: the terminal's, or 80]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(20..=1000))]
    pub(super) width: Option<u16>,
    /// Height of the drawing area in lines
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=200))]
    pub(super) height: u16,
    /// Only ASCII characters
    #[arg(long)]
    pub(super) ascii: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum InputFormat {
    /// JSON lines if the first character is "{", else CSV
    Auto,
    /// Comma- or tab-separated, with a header line
    Csv,
    /// One JSON object a line
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EndStatus {
    Finished,
    Failed,
    Killed,
    /// Leave the run open
    Running,
}

impl EndStatus {
    /// The status to end with; none leaves the run open.
    pub(super) const fn run_status(self) -> Option<RunStatus> {
        match self {
            Self::Finished => Some(RunStatus::Finished),
            Self::Failed => Some(RunStatus::Failed),
            Self::Killed => Some(RunStatus::Killed),
            Self::Running => None,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Log {
    /// Experiment of the new run; made if it does not exist
    #[arg(short, long, value_name = "NAME", default_value = "Default")]
    pub(super) experiment: String,
    /// Name of the new run
    #[arg(short, long = "run", value_name = "NAME")]
    pub(super) run_name: Option<String>,
    /// Go on with this run instead (id or a unique start of one)
    #[arg(long, value_name = "ID", conflicts_with_all = ["run_name", "experiment"])]
    pub(super) run_id: Option<String>,
    /// A param of the run; may be repeated
    #[arg(short, long = "param", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) params: Vec<(String, String)>,
    /// A tag of the run; may be repeated
    #[arg(short, long = "tag", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) tags: Vec<(String, String)>,
    /// What the lines are
    #[arg(short, long, default_value = "auto")]
    pub(super) format: InputFormat,
    /// Column or field with the step
    #[arg(long, value_name = "KEY", default_value = "step")]
    pub(super) step: String,
    /// Column or field with the time: milliseconds since 1970 or an ISO 8601 date in UTC
    #[arg(long, value_name = "KEY", default_value = "timestamp")]
    pub(super) timestamp: String,
    /// Status of the run at the end of the input
    #[arg(long, default_value = "finished", ignore_case = true)]
    pub(super) status: EndStatus,
}

#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Only what was deleted longer ago than this: 30d, 12h, 2w
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = time::parse_duration)]
    pub(super) older_than: u64,
    /// Tell what would be removed, remove nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Which shell
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write a page per verb into this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) out: Option<PathBuf>,
}

/// `KEY=VALUE`, split at the first `=`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("'{text}' has no '=': write KEY=VALUE")),
    }
}

fn moment(text: &str) -> Result<i64, String> {
    time::parse_moment(text, time::now_ms())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples_that_parse() {
        fn walk(command: &clap::Command, seen: &mut usize) {
            let help =
                command.get_after_help().unwrap_or_else(|| panic!("{} has no examples", command.get_name()));
            let text = help.to_string();
            assert!(text.starts_with("EXAMPLES:"), "{}", command.get_name());
            for line in text.lines().filter_map(|line| line.trim().strip_prefix("mlrs-db ")) {
                let command =
                    [" < ", " | ", " # "].iter().fold(line, |line, end| line.split(end).next().unwrap());
                let words = shell_words(command);
                let parsed = Cli::try_parse_from(std::iter::once("mlrs-db".into()).chain(words));
                parsed.unwrap_or_else(|e| panic!("example does not parse: {line}\n{e}"));
                *seen += 1;
            }
            command.get_subcommands().for_each(|sub| walk(sub, seen));
        }
        // As the words a shell would make of it; enough for quotes and redirections of the examples.
        fn shell_words(line: &str) -> Vec<String> {
            let mut words = vec![String::new()];
            let mut quote = None;
            for c in line.chars() {
                match (quote, c) {
                    (None, '"' | '\'') => quote = Some(c),
                    (Some(q), c) if q == c => quote = None,
                    (None, ' ') => words.push(String::new()),
                    (None, '>') => break,
                    (_, c) => words.last_mut().unwrap().push(c),
                }
            }
            words.retain(|word| !word.is_empty());
            words
        }
        let mut seen = 0;
        walk(&Cli::command(), &mut seen);
        assert!(seen > 30, "{seen}");
    }

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(key_value("a="), Ok(("a".into(), String::new())));
        assert!(key_value("=a").is_err() && key_value("a").is_err());
    }

    #[test]
    fn a_default_experiment_does_not_fight_with_a_run_id() {
        let parsed = Cli::try_parse_from(["mlrs-db", "log", "--run-id", "abcd"]);
        assert!(parsed.is_ok(), "{parsed:?}");
        assert!(Cli::try_parse_from(["mlrs-db", "log", "--run-id", "abcd", "--experiment", "x"]).is_err());
    }
}
