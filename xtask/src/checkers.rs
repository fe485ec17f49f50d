//! Tools that watch the tests run: loom for the order of threads' steps, the address sanitizer and valgrind for memory.
//!
//! Contract: a tool that could not find anything is an error, so each is first given a mistake to find; a run of no test
//! is one, too. Each builds in a target directory of its own and ends with one line: tests run, findings none.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Outcome;
use crate::measure::option;
use crate::test_programs::{Tests, build, passed};

/// Test programs and the tests of each that are run.
type Watched = (Tests, &'static [&'static str]);

/// What reads bytes that others wrote, and what writes them.
const SANITIZED: &[Watched] = &[
    (Tests::Library, &["codec::", "format::", "log::"]),
    (Tests::File("codec_columns"), &[]),
    (Tests::File("damage"), &[]),
];
/// The part with the maps, locks and forks.
const UNDER_VALGRIND: &[Watched] =
    &[(Tests::Library, &["vfs::"]), (Tests::File("vfs"), &[]), (Tests::File("vfs_faults"), &[])];
/// How valgrind ends where it found something.
const FINDING: i32 = 99;

fn target_dir(root: &Path, name: &str) -> PathBuf {
    root.join("target").join(name)
}

/// `cargo xtask loom`: every order of steps of a few threads, in the code that ships.
pub fn loom(root: &Path, args: &[String]) -> Outcome {
    let directory = target_dir(root, "loom").display().to_string();
    let options = ["--no-default-features", "--target-dir", &directory];
    let program = build(root, Tests::Library, &options, &[("RUSTFLAGS", "--cfg loom".into())])?;
    let mut command = Command::new(program);
    command.args(["interleavings::", "--show-output"]).current_dir(root);
    if let Some(preemptions) = option(args, "--preemptions") {
        command.env("LOOM_MAX_PREEMPTIONS", preemptions);
    }
    let begun = Instant::now();
    let mut orders = 0u64;
    let said = watch(command, &mut |line| {
        if let Some((_, figures)) = line.split_once("loom: ") {
            println!("{figures}");
            let number = figures.split_once(" orders").and_then(|(before, _)| before.rsplit(' ').next());
            orders += number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    })?;
    let tests =
        passed(&said).filter(|&tests| tests > 0 && orders > 0).ok_or("loom: a finding, or no test ran")?;
    println!("loom: {tests} tests, {orders} orders in {:.0} s, findings: 0", begun.elapsed().as_secs_f64());
    Ok(())
}

/// `cargo xtask sanitize`: the address sanitizer, which a stable compiler has but hides behind `RUSTC_BOOTSTRAP`.
pub fn sanitize(root: &Path) -> Outcome {
    let host = host()?;
    let directory = target_dir(root, "sanitize");
    let canary = canary(root, &directory, &["-Zsanitizer=address"])?;
    let found = Command::new(&canary).output()?;
    let text = String::from_utf8_lossy(&found.stderr);
    if found.status.success() || !text.contains("AddressSanitizer: heap-buffer-overflow") {
        return Err(format!("the sanitizer does not find the mistake in {}", canary.display()).into());
    }
    let directory = directory.display().to_string();
    // With a target named, build scripts and procedural macros are compiled without the sanitizer.
    let options = ["--all-features", "--target", &host, "--target-dir", &directory];
    let variables =
        [("RUSTC_BOOTSTRAP", "1".into()), ("CARGO_ENCODED_RUSTFLAGS", "-Zsanitizer=address".to_owned())];
    run(root, "sanitize", SANITIZED, &options, &variables, &[])
}

/// `cargo xtask valgrind`: memory that is read before it is written or not ours, in arguments of system calls too.
pub fn valgrind(root: &Path) -> Outcome {
    let exit = format!("--error-exitcode={FINDING}");
    let tool = [
        "valgrind",
        "--quiet",
        &exit,
        // A forked child has lost the threads of its parent, and what they held is lost memory there. The sanitizer
        // looks for leaks.
        "--leak-check=no",
        "--child-silent-after-fork=yes",
    ];
    let directory = target_dir(root, "valgrind");
    let canary = canary(root, &directory, &[])?;
    let found = Command::new(tool[0]).args(&tool[1..]).arg(&canary).output();
    let found = found.map_err(|e| format!("valgrind: {e}; the package of that name has it"))?;
    if found.status.code() != Some(FINDING) {
        let text = String::from_utf8_lossy(&found.stderr);
        return Err(format!("valgrind does not find the mistake in {}: {text}", canary.display()).into());
    }
    // As `cargo test --workspace --all-features` builds them, so nothing is built twice.
    run(root, "valgrind", UNDER_VALGRIND, &["--workspace", "--all-features"], &[], &tool)
}

/// Builds and runs test programs, by `tool` if one is named.
fn run(
    root: &Path,
    name: &str,
    watched: &[Watched],
    options: &[&str],
    variables: &[(&str, String)],
    tool: &[&str],
) -> Outcome {
    let begun = Instant::now();
    let mut sum = 0;
    for (tests, filters) in watched {
        let program = build(root, *tests, options, variables)?;
        let mut command = match tool {
            [] => Command::new(&program),
            [tool, options @ ..] => {
                let mut command = Command::new(tool);
                command.args(options).arg(&program);
                command
            }
        };
        command.args(*filters).current_dir(root);
        let said = watch(command, &mut |_| {})?;
        let tests = passed(&said).filter(|&tests| tests > 0);
        let tests =
            tests.ok_or_else(|| format!("{name}: a finding in {}, or no test ran", program.display()))?;
        println!("{name}: {tests} tests of {}", program.display());
        sum += tests;
    }
    println!("{name}: {sum} tests in {:.0} s, findings: 0", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a test program, shows its lines to `see`, and returns them. If it fails they are printed.
fn watch(mut command: Command, see: &mut dyn FnMut(&str)) -> Result<String, Box<dyn std::error::Error>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line?;
        see(&line);
        said += &line;
        said.push('\n');
    }
    let status = child.wait()?;
    if !status.success() {
        eprint!("{said}");
        return Err(format!("{}: {status}", command.get_program().display()).into());
    }
    Ok(said)
}

/// Compiles the program with a mistake.
fn canary(root: &Path, directory: &Path, flags: &[&str]) -> Result<PathBuf, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(directory)?;
    let program = directory.join("reads_past_the_end");
    let mut command = Command::new("rustc");
    command.args(["--edition=2024", "-Copt-level=0"]).args(flags).env("RUSTC_BOOTSTRAP", "1");
    command.arg("-o").arg(&program).arg(root.join("xtask/canary/reads_past_the_end.rs"));
    let status = command.status().map_err(|e| format!("rustc: {e}"))?;
    if !status.success() {
        return Err("the program with a mistake does not build: is this toolchain without sanitizers?".into());
    }
    Ok(program)
}

/// The target that the compiler itself runs on.
pub fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output().map_err(|e| format!("rustc -vV: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV does not name the host".to_owned())
}
