//! Chores of the repository, in Rust: `cargo xtask` lists them.
//!
//! Contract: each bench prints what it measured beside its goal. Names that begin with
//! `child-` are the parts that must run in a process of their own; nobody calls them by hand.

mod bench_import;
mod bench_open;
mod fuzz;
mod measure;
mod soak;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <chore> [options]
  bench-import [--lines N] [--dir DIR] [--keep]   import and export of a generated mlruns tree: points/s, bytes, memory
  bench-import --runs N [--lines-a-run M]         the same of many small runs (4 lines each): what one run costs
  fuzz [--seconds N] [TARGET...]                  each fuzz target (all by default) for N seconds (60), after its inputs
  fuzz --regressions | --build                    the known inputs alone; building alone
  soak TEST [--cycles N | --hours H] [--seed N]   a reliability test for as long: kill, crowd, stop, stop-index, network,
                                                  fork, orphan, many, full, copies, writers; goes on where it was ended
                                                  (docs/reliability.md)
  bench-open [--runs N] [--dir DIR] [--keep]      open plus first answer: with the index, without, after kill -9";

/// What a chore returns: text for people, no types of its own.
type Outcome = Result<(), Box<dyn std::error::Error>>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let chore = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let outcome = match chore.as_str() {
        "bench-import" => bench_import::run(&rest),
        "child-import" => bench_import::child_import(&rest),
        "child-export" => bench_import::child_export(&rest),
        "fuzz" => fuzz::run(&root(), &rest).map_err(Into::into),
        "soak" => soak::run(&root(), &rest),
        "bench-open" => bench_open::run(&rest),
        "child-open" => bench_open::child_open(&rest),
        "child-log" => bench_open::child_log(&rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {chore}: {error}");
            ExitCode::FAILURE
        }
    }
}
