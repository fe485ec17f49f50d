//! `soak`: the reliability tests for hours, detached and resumable.
//!
//! Contract: a batch is one run of a test program with a seed of its own; a state file holds the first seed and how many
//! batches and cycles are done, so a soak that was ended goes on where it was. The first failure ends it and is printed
//! with its seed. What the tests print goes to standard output, line by line, with the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Outcome;
use crate::measure::{number, option};

/// One test as it is soaked.
struct Test {
    name: &'static str,
    /// The test program and the test in it.
    program: &'static str,
    filter: &'static str,
    /// Cycles of one batch, and how the test is told of them.
    batch: u64,
    variable: &'static str,
}

const CYCLES: &str = "MLRS_SOAK_CYCLES";
const SECONDS: &str = "MLRS_SOAK_SECONDS";

const TESTS: &[Test] = &[
    Test { name: "kill", program: "processes", filter: "killed::", batch: 300, variable: CYCLES },
    Test { name: "crowd", program: "processes", filter: "crowd::", batch: 60, variable: SECONDS },
    Test { name: "stop", program: "processes", filter: "stopped::a_stopped", batch: 200, variable: CYCLES },
    Test {
        name: "stop-index",
        program: "processes",
        filter: "stopped::a_writer_stopped",
        batch: 200,
        variable: CYCLES,
    },
    Test { name: "network", program: "network", filter: "killed_writers", batch: 50, variable: CYCLES },
    Test { name: "fork", program: "processes", filter: "forked::forks_at_any", batch: 200, variable: CYCLES },
    Test {
        name: "orphan",
        program: "processes",
        filter: "forked::a_killed_parent",
        batch: 20,
        variable: CYCLES,
    },
    Test { name: "many", program: "processes", filter: "many::", batch: 20, variable: CYCLES },
    Test { name: "full", program: "processes", filter: "full_disk::", batch: 20, variable: CYCLES },
    Test { name: "copies", program: "processes", filter: "copied::copies", batch: 50, variable: CYCLES },
    Test { name: "writers", program: "writers", filter: "scripts", batch: 500, variable: CYCLES },
];

/// What is done of one soak.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    seed: u64,
    batches: u64,
    cycles: u64,
    seconds: u64,
}

impl State {
    fn read(path: &Path) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let field = |name: &str| -> Result<u64, String> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| format!("{}: no number '{name}'", path.display()))
        };
        let (seed, batches) = (field("seed")?, field("batches")?);
        Ok(Some(Self { seed, batches, cycles: field("cycles")?, seconds: field("seconds")? }))
    }

    /// Whole or not at all, so that a killed soak can go on.
    fn write(&self, path: &Path) -> std::io::Result<()> {
        let Self { seed, batches, cycles, seconds } = self;
        let half = path.with_extension("half");
        fs::write(&half, format!("seed {seed}\nbatches {batches}\ncycles {cycles}\nseconds {seconds}\n"))?;
        fs::rename(&half, path)
    }

    /// The seed of the next batch.
    fn next_seed(&self) -> u64 {
        self.seed.wrapping_add(self.batches.wrapping_mul(1_000_003))
    }
}

fn usage() -> String {
    let names: Vec<&str> = TESTS.iter().map(|t| t.name).collect();
    format!(
        "cargo xtask soak <test> [--cycles N | --hours H] [--seed N] [--state FILE] [--dir DIR] [--optimized]; tests: {}",
        names.join(", ")
    )
}

pub fn run(root: &Path, args: &[String]) -> Outcome {
    let named = args.first().and_then(|name| TESTS.iter().find(|test| test.name == name));
    let test = named.ok_or_else(usage)?;
    let hours: Option<f64> = option(args, "--hours").map(|text| text.parse()).transpose()?;
    let cycles = match hours {
        Some(_) => u64::MAX,
        None => number(args, "--cycles", test.batch)?,
    };
    let folder = root.join("target").join("soak");
    fs::create_dir_all(&folder)?;
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs());
    let given = option(args, "--seed").map(|text| text.parse::<u64>()).transpose()?;
    let state_path =
        option(args, "--state").map_or_else(|| folder.join(format!("{}.state", test.name)), PathBuf::from);
    let fresh = State { seed: given.unwrap_or_else(clock), ..State::default() };
    let mut state = match State::read(&state_path)? {
        // Another seed is another soak.
        Some(state) if given.is_none_or(|seed| seed == state.seed) => state,
        _ => fresh,
    };
    let program = build(root, test.program, args.iter().any(|a| a == "--optimized"))?;
    println!("{} soak {}: {state:?}, state in {}", stamp(), test.name, state_path.display());
    let limit = hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    while state.cycles < cycles && limit.is_none_or(|limit| Duration::from_secs(state.seconds) < limit) {
        let (batch, seed, begun) = (test.batch.min(cycles - state.cycles), state.next_seed(), Instant::now());
        let mut command = Command::new(&program);
        command.args([test.filter, "--nocapture", "--test-threads=1"]);
        command.env(test.variable, batch.to_string()).env("MLRS_SEED", seed.to_string()).stdin(Stdio::null());
        if let Some(directory) = option(args, "--dir") {
            command.env("MLRS_SOAK_DIR", directory);
        }
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> =
            said.lines().filter(|line| line.contains(": seed") || line.contains("writers,")).collect();
        if !output.status.success() {
            println!("{said}");
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            let again =
                format!("{}={batch} MLRS_SEED={seed} {} {}", test.variable, program.display(), test.filter);
            return Err(format!("{}: a finding after {state:?}: {again}", test.name).into());
        }
        if !said.contains("test result: ok. 1 passed") {
            return Err(format!("{} {}: not one test ran: {said}", program.display(), test.filter).into());
        }
        state.batches += 1;
        state.cycles += batch;
        state.seconds += begun.elapsed().as_secs();
        state.write(&state_path)?;
        let figure = lines.last().map_or("passed", |line| line.rsplit(" ... ").next().unwrap_or(line));
        println!(
            "{} {} of {}: {figure}",
            stamp(),
            state.cycles,
            if hours.is_some() { "as many".into() } else { cycles.to_string() }
        );
    }
    println!(
        "{} soak {}: done, seed {}: {} cycles in {} batches, {:.2} hours, no finding",
        stamp(),
        test.name,
        state.seed,
        state.cycles,
        state.batches,
        state.seconds as f64 / 3600.0
    );
    Ok(())
}

/// Time of day, UTC.
fn stamp() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Builds a test program as the test command does, and says where it is. The copy is this soak's own: what is built
/// meanwhile does not change a soak that runs for hours.
fn build(root: &Path, name: &str, optimized: bool) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let mut command = Command::new("cargo");
    command.args([
        "test",
        "--workspace",
        "--all-features",
        "--test",
        name,
        "--no-run",
        "--message-format=json",
    ]);
    if optimized {
        command.arg("--release");
    }
    let output = command.current_dir(root).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{name} does not build").into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let of_test =
        |line: &&str| line.contains("\"kind\":[\"test\"]") && line.contains(&format!("\"name\":\"{name}\""));
    let executable = text.lines().filter(of_test).find_map(|line| {
        let rest = line.split_once("\"executable\":\"")?.1;
        rest.split_once('"').map(|(path, _)| path.to_owned())
    });
    let built = PathBuf::from(executable.ok_or("cargo did not say where the program is")?);
    let copy = root.join("target").join("soak").join(format!("{name}-{}", std::process::id()));
    fs::copy(&built, &copy)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_and_seeds_differ() {
        let path = std::env::temp_dir().join(format!("mlrs-soak-state-{}", std::process::id()));
        assert_eq!(State::read(&path).unwrap(), None);
        let mut state = State { seed: 7, batches: 3, cycles: 600, seconds: 61 };
        state.write(&path).unwrap();
        assert_eq!(State::read(&path).unwrap(), Some(state));
        let seed = state.next_seed();
        state.batches += 1;
        assert_ne!(state.next_seed(), seed);
        fs::write(&path, "seed x\n").unwrap();
        assert!(State::read(&path).is_err());
        fs::remove_file(&path).unwrap();
    }
}
