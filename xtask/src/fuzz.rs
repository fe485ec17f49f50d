//! Fuzzing with the stable compiler and without cargo-fuzz.
//!
//! Contract: the same layout as cargo-fuzz (`fuzz/fuzz_targets`, `fuzz/corpus/TARGET`), the same coverage passes and
//! address sanitizer, which a stable compiler has but hides behind `RUSTC_BOOTSTRAP`. Inputs that once failed are kept in
//! `fuzz/regressions/TARGET` and run first; new ones are written there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::checkers::host;

/// What cargo-fuzz passes: edge coverage with counters and compared values, and the address sanitizer.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Ccodegen-units=1",
];
/// One input may take this long.
const TIMEOUT_SECONDS: u32 = 10;
/// Memory of libFuzzer, the sanitizer and the target; what the engine may take of it is up to the target's allocator
/// (`fuzz/src/lib.rs`).
const MEMORY_MIB: u32 = 2_048;
const INPUT_BYTES_MAX: u32 = 1024 * 1024;

/// Runs the task with its arguments.
pub fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let (mut seconds, mut targets, mut build_only) = (60u32, Vec::new(), false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => {
                let text = rest.next().ok_or("--seconds needs a number")?;
                seconds = text.parse().map_err(|_| format!("--seconds {text}: not a number"))?;
            }
            "--regressions" => seconds = 0,
            "--build" => build_only = true,
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            target => targets.push(target.to_owned()),
        }
    }
    let fuzz = root.join("fuzz");
    let known = known_targets(&fuzz)?;
    if let Some(unknown) = targets.iter().find(|t| !known.contains(t)) {
        return Err(format!("no target {unknown}: there are {}", known.join(", ")));
    }
    if targets.is_empty() {
        targets = known;
    }
    let host = host()?;
    build(root, &host)?;
    if build_only {
        return Ok(());
    }
    let programs = target_dir(root).join(&host).join("release");
    let mut failed = Vec::new();
    for target in &targets {
        if !programs.join(target).exists() {
            eprintln!("fuzz: {target} is not built: its feature in fuzz/Cargo.toml is off");
            continue;
        }
        if !fuzz_target(&fuzz, &programs.join(target), target, seconds)? {
            failed.push(target.as_str());
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("findings in {}: see fuzz/regressions", failed.join(", "))),
    }
}

fn target_dir(root: &Path) -> PathBuf {
    root.join("target").join("fuzz")
}

fn known_targets(fuzz: &Path) -> Result<Vec<String>, String> {
    let folder = fuzz.join("fuzz_targets");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let stem = |entry: fs::DirEntry| Some(entry.path().file_stem()?.to_str()?.to_owned());
    let mut names: Vec<String> = entries.filter_map(Result::ok).filter_map(stem).collect();
    names.sort();
    Ok(names)
}

fn build(root: &Path, host: &str) -> Result<(), String> {
    // With a target named, build scripts and procedural macros are compiled without the sanitizer.
    let status = Command::new("cargo")
        .args(["build", "--release", "--bins", "--manifest-path"])
        .arg(root.join("fuzz").join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir(root))
        .args(["--target", host])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .status()
        .map_err(|e| format!("cargo build: {e}"))?;
    if status.success() { Ok(()) } else { Err("the fuzz targets do not build".to_owned()) }
}

/// Whether the target went through without a finding.
fn fuzz_target(fuzz: &Path, program: &Path, target: &str, seconds: u32) -> Result<bool, String> {
    let (corpus, regressions) = (fuzz.join("corpus").join(target), fuzz.join("regressions").join(target));
    for folder in [&corpus, &regressions] {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let known: Vec<PathBuf> = fs::read_dir(&regressions)
        .map_err(|e| format!("{}: {e}", regressions.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    let command = || {
        let mut command = Command::new(program);
        command.arg(format!("-timeout={TIMEOUT_SECONDS}"));
        command.arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        command.arg(format!("-artifact_prefix={}/", regressions.display()));
        command
    };
    let run = |mut command: Command| {
        let status = command.status().map_err(|e| format!("{}: {e}", program.display()))?;
        Ok::<bool, String>(status.success())
    };
    if !known.is_empty() {
        let mut command = command();
        command.args(&known);
        if !run(command)? {
            return Ok(false);
        }
    }
    if seconds == 0 {
        return Ok(true);
    }
    eprintln!("fuzz: {target} for {seconds} s");
    let mut command = command();
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    command.arg("-print_final_stats=1").args([&corpus, &regressions]);
    // What the golden store holds, as inputs: from there the fuzzer needs not find the layout by itself.
    let seeds = fuzz.join("seeds").join(target);
    if seeds.exists() {
        command.arg(seeds);
    }
    run(command)
}
