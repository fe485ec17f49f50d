//! Chores of the project: `cargo xtask` lists them.

mod fuzz;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage:
  cargo xtask fuzz [--seconds N] [TARGET...]  builds the fuzz targets and runs each (all by default) for N seconds (60),
                                              after its known inputs
  cargo xtask fuzz --regressions              runs the known inputs alone
  cargo xtask fuzz --build                    builds alone
";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((task, rest)) if task == "fuzz" => fuzz::run(&root(), rest),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
