//! The command line: verbs, options, their help.
//!
//! Contract: only shapes and texts; nothing here opens a store. Every verb's help ends with examples that work.

mod ask;
mod live;
mod log;
mod pairs;
mod server;
mod trees;

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::examples as ex;
use super::time;

pub(super) use ask::{
    Axis, Damage, Experiments, ExperimentsLs, ExperimentsShow, Listing, Metrics, MetricsGet, MetricsLs,
    MetricsPlot, Range, Runs, RunsLs, RunsSearch, RunsShow, Stats, View,
};
pub(super) use live::{RunsReap, Tail, Top};
pub(super) use log::{InputFormat, Log};
pub(super) use server::Server;
pub(super) use trees::{Artifacts, Export, Import};

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
    /// When to use colours
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
    /// Print points of a run as they are logged, until it ends
    #[command(after_help = ex::TAIL)]
    Tail(Tail),
    /// Show who writes to the store now, how much, and how far the disk is behind
    #[command(after_help = ex::TOP_VERB)]
    Top(Top),
    /// What the store holds and what it costs
    #[command(after_help = ex::STATS)]
    Stats(Stats),
    /// Check every checksum, ordinal and claim; exit code 4 if something is damaged
    #[command(after_help = ex::VERIFY)]
    Verify,
    /// Rewrite small segments into large ones
    #[command(after_help = ex::COMPACT)]
    Compact,
    /// Remove deleted runs and experiments for good
    #[command(after_help = ex::GC)]
    Gc(Gc),
    /// Bring home what dead writers of a host left, where no lock can tell that they are dead
    #[command(after_help = ex::RECOVER)]
    Recover(Recover),
    /// Copy what is sound in damaged files to new ones and set the damaged files aside
    #[command(after_help = ex::REPAIR)]
    Repair(Repair),
    /// Copy the store, consistently, while others write
    #[command(after_help = ex::BACKUP)]
    Backup(Backup),
    /// Take in what other stores hold
    #[command(after_help = ex::MERGE)]
    Merge(Merge),
    /// Serve the store to MLflow's clients and pages
    #[command(after_help = ex::SERVER, long_about = ex::SERVER_ABOUT)]
    Server(Server),
    /// Print a completion script for a shell
    #[command(after_help = ex::COMPLETIONS)]
    Completions(Completions),
    /// Print the manual page, or write one per verb
    #[command(after_help = ex::MAN)]
    Man(Man),
}

impl Verb {
    /// What to do about damage; none for verbs that do not only read, and for `verify`, which looks for it.
    pub(super) const fn damage(&self) -> Option<Damage> {
        let damage = match self {
            Self::Export(args) => args.damage,
            Self::Experiments(Experiments::Ls(args)) => args.damage,
            Self::Experiments(Experiments::Show(args)) => args.damage,
            Self::Runs(Runs::Ls(args) | Runs::Search(RunsSearch { ls: args, .. })) => args.damage,
            Self::Runs(Runs::Show(args)) => args.damage,
            Self::Metrics(Metrics::Ls(args)) => args.damage,
            Self::Metrics(Metrics::Get(args)) => args.damage,
            Self::Metrics(Metrics::Plot(args)) => args.damage,
            Self::Tail(args) => args.damage,
            Self::Top(args) => args.damage,
            Self::Stats(args) => args.damage,
            Self::Init(_)
            | Self::Import(_)
            | Self::Runs(Runs::Reap(_))
            | Self::Log(_)
            | Self::Verify
            | Self::Compact
            | Self::Gc(_)
            | Self::Recover(_)
            | Self::Repair(_)
            | Self::Backup(_)
            | Self::Merge(_)
            | Self::Server(_)
            | Self::Completions(_)
            | Self::Man(_) => return None,
        };
        Some(damage)
    }
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Where; without it the directory of --store or MLRS_DB_STORE
    #[arg(value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,
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
pub(super) struct Recover {
    /// The host whose writers are all gone, as `hostname` says it there
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Hostname)]
    pub(super) host: String,
    /// Tell what would be brought home, touch nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Repair {
    /// Tell what would be done, touch nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// A new or empty directory, or an earlier backup of the same store
    #[arg(value_hint = ValueHint::DirPath)]
    pub(super) dest: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Merge {
    /// Stores to take in; they are only read
    #[arg(required = true, value_name = "OTHER", value_hint = ValueHint::DirPath)]
    pub(super) others: Vec<PathBuf>,
    /// Tell what would be taken in, write nothing
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
    fn a_default_experiment_does_not_fight_with_a_run_id() {
        let parsed = Cli::try_parse_from(["mlrs-db", "log", "--run-id", "abcd"]);
        assert!(parsed.is_ok(), "{parsed:?}");
        assert!(Cli::try_parse_from(["mlrs-db", "log", "--run-id", "abcd", "--experiment", "x"]).is_err());
    }
}
