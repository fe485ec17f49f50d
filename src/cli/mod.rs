//! The program `mlrs-db`.
//!
//! Contract: uses only the public API of the crate. Answers go to standard output, everything else to stderr; progress
//! is drawn only on a terminal; exit codes are 0 ok, 1 failure, 2 usage, 3 not found, 4 corruption, 5 busy; a closed
//! pipe ends it quietly; an error says what to do next.

mod args;
mod examples;
mod experiments;
mod failure;
mod json;
mod listing;
mod log_input;
mod log_verb;
mod maintain;
mod metrics;
mod output;
mod plot;
mod plot_canvas;
mod plot_ticks;
mod plot_verb;
mod progress;
mod reap;
mod resolve;
mod run_view;
mod runs;
mod safekeeping;
#[cfg(test)]
mod samples;
mod server_verb;
mod shell;
mod table;
mod tail;
mod time;
mod top;
mod trees;

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Experiments, Global, Metrics, Runs, Verb};
use failure::{Failure, Outcome, USAGE};
use output::{Output, plural, use_colour};

use crate::Store;

/// Runs the program on the arguments and environment of the process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, usage errors to stderr; a closed pipe is no news.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let mut out = standard_output(&cli.global);
    let outcome = run(&cli, &mut out).and_then(|()| out.out.flush().map_err(Failure::from));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was answered before the failure is still the answer; the failure itself is what counts.
            let _ = out.out.flush();
            if let Some(text) = failure.text() {
                let can_skip_damage = cli.verb.damage().is_some_and(|damage| !damage.skip_damage);
                out.error(text, failure.advice(can_skip_damage).as_deref());
            }
            failure.exit_code().into()
        }
    }
}

/// Parses with help in the colours that `--color` asks for.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let asked = |choice: &str| {
        let joined = OsString::from(format!("--color={choice}"));
        arguments.contains(&joined)
            || arguments.windows(2).any(|pair| pair[0] == "--color" && pair[1] == choice)
    };
    let colour = match () {
        () if asked("never") => clap::ColorChoice::Never,
        () if asked("always") => clap::ColorChoice::Always,
        () => clap::ColorChoice::Auto,
    };
    Cli::from_arg_matches(&Cli::command().color(colour).try_get_matches_from(arguments)?)
}

fn standard_output(global: &Global) -> Output<'static> {
    let stdout = io::stdout();
    let is_terminal = stdout.is_terminal();
    let stderr_is_terminal = io::stderr().is_terminal();
    let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
    let colour = |is_terminal| use_colour(global.color, is_terminal, no_color.as_deref(), term.as_deref());
    Output {
        terminal: is_terminal.then(|| terminal_width().unwrap_or(80)),
        colour: colour(is_terminal),
        colour_stderr: colour(stderr_is_terminal),
        progress: stderr_is_terminal && !global.quiet && term.as_deref() != Some(OsStr::new("dumb")),
        json: global.json,
        quiet: global.quiet,
        verbose: global.verbose,
        now_ms: time::now_ms(),
        out: Box::new(BufWriter::with_capacity(64 * 1024, stdout.lock())),
    }
}

/// Width of the terminal that standard output is, as comfy-table finds it.
fn terminal_width() -> Option<usize> {
    comfy_table::Table::new().width().map(usize::from).filter(|width| *width > 0)
}

fn run(cli: &Cli, out: &mut Output<'_>) -> Outcome {
    // Verbs that need no store come first, so that they work anywhere.
    match &cli.verb {
        Verb::Completions(args) => return shell::completions(out, args),
        Verb::Man(args) => return shell::man(out, args),
        Verb::Init(args) => return maintain::init(out, args, cli.global.store.as_deref()),
        _ => {}
    }
    let path = store_path(&cli.global)?;
    let looked_at = RefCell::new(None);
    let open_to_read = || {
        let store = resolve::open_to_read(path, cli.verb.damage().is_some_and(|d| d.skip_damage))?;
        looked_at.replace(Some(store.clone()));
        Ok::<Store, Failure>(store)
    };
    let outcome = answer(cli, out, path, &open_to_read);
    let skipped = looked_at.take().map_or(0, |store| store.places_skipped());
    if skipped > 0 {
        out.warn(format_args!("{} could not be read; run `mlrs-db verify`", plural(skipped, "place")));
    }
    outcome
}

/// What verbs do that need a store.
fn answer(
    cli: &Cli,
    out: &mut Output<'_>,
    path: &Path,
    open_to_read: &dyn Fn() -> Outcome<Store>,
) -> Outcome {
    match &cli.verb {
        Verb::Import(args) => trees::import(out, path, args),
        Verb::Export(args) => trees::export(out, &open_to_read()?, args),
        Verb::Experiments(Experiments::Ls(args)) => experiments::ls(out, &open_to_read()?, args),
        Verb::Experiments(Experiments::Show(args)) => experiments::show(out, &open_to_read()?, args),
        Verb::Runs(Runs::Ls(args)) => runs::ls(out, &open_to_read()?, args, ""),
        Verb::Runs(Runs::Search(args)) => runs::ls(out, &open_to_read()?, &args.ls, &args.filter),
        Verb::Runs(Runs::Show(args)) => runs::show(out, &open_to_read()?, args),
        Verb::Runs(Runs::Reap(args)) => reap::reap(out, path, args),
        Verb::Metrics(Metrics::Ls(args)) => metrics::ls(out, &open_to_read()?, args),
        Verb::Metrics(Metrics::Get(args)) => metrics::get(out, &open_to_read()?, args),
        Verb::Metrics(Metrics::Plot(args)) => plot_verb::plot(out, &open_to_read()?, args),
        Verb::Log(args) => log_verb::log(out, path, args, io::stdin().lock()),
        Verb::Tail(args) => tail::tail(out, &open_to_read()?, args),
        Verb::Top(args) => top::top(out, &open_to_read()?, args),
        Verb::Stats(_) => maintain::stats(out, &open_to_read()?),
        // It names the damage, so none may keep it from looking.
        Verb::Verify => maintain::verify(out, &resolve::open_to_read(path, true)?),
        Verb::Compact => maintain::compact(out, path),
        Verb::Gc(args) => maintain::gc(out, path, args),
        Verb::Recover(args) => safekeeping::recover(out, path, args),
        Verb::Repair(args) => safekeeping::repair(out, path, args),
        Verb::Backup(args) => safekeeping::backup(out, path, args),
        Verb::Merge(args) => safekeeping::merge(out, path, args),
        Verb::Server(args) => server_verb::serve(out, path, args),
        Verb::Init(_) | Verb::Completions(_) | Verb::Man(_) => Ok(()),
    }
}

fn store_path(global: &Global) -> Outcome<&Path> {
    // An empty variable is as good as none.
    global.store.as_deref().filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
        Failure::Usage(format!(
            "no store given: use --store DIR or set {}; `mlrs-db init DIR` makes one",
            args::STORE_VARIABLE
        ))
    })
}
