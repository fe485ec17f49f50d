//! Test programs of this package: building one, and what it said.
//!
//! Contract: cargo says where the program is; nothing is guessed from names of files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which tests: those in the library, or those of a file in `tests/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tests {
    Library,
    File(&'static str),
}

/// Builds a test program without running it. `options` go to cargo, `variables` into its environment.
pub fn build(
    root: &Path,
    tests: Tests,
    options: &[&str],
    variables: &[(&str, String)],
) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let (kind, name) = match tests {
        Tests::Library => ("lib", "mlrs_db"),
        Tests::File(name) => ("test", name),
    };
    let mut command = Command::new("cargo");
    command.args(["test", "--no-run", "--message-format=json"]).args(options);
    match tests {
        Tests::Library => command.arg("--lib"),
        Tests::File(name) => command.args(["--test", name]),
    };
    command.envs(variables.iter().cloned()).current_dir(root).stderr(Stdio::inherit());
    let output = command.output().map_err(|e| format!("cargo test: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name} does not build").into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let of_test = |line: &&str| {
        line.contains(&format!("\"kind\":[\"{kind}\"]")) && line.contains(&format!("\"name\":\"{name}\""))
    };
    let executable = text.lines().filter(of_test).find_map(|line| {
        let rest = line.split_once("\"executable\":\"")?.1;
        rest.split_once('"').map(|(path, _)| path.to_owned())
    });
    Ok(PathBuf::from(executable.ok_or("cargo did not say where the program is")?))
}

/// How many tests passed, as a test program says at its end; `None` if it did not say that all did.
pub fn passed(said: &str) -> Option<u64> {
    let rest = said.lines().find_map(|line| line.strip_prefix("test result: ok. "))?;
    rest.split_once(" passed")?.0.parse().ok()
}
