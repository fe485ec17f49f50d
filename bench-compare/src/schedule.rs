//! Who runs when: for each repetition and workload all peers, one after the other, beginning with another one each time.
//!
//! Contract: a workload's figures of one repetition lie as close in time as their lengths allow. The first repetition
//! warms up and watches memory; of it only memory counts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::data::{LongRun, RUNS, SmallRun, SmallRuns};
use crate::options::Options;
use crate::peer::PeerInfo;
use crate::process::{figures, remove_store};
use crate::report::{Record, Results, write};
use crate::workload::{WORKLOADS, Workload};

/// A directory that goes with its value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn run(options: &Options) -> Outcome {
    if !options.earlier.is_empty() {
        println!("{}", write(&Results::read(&options.earlier)?, options));
        return Ok(());
    }
    let scratch = Scratch(options.directory.join(format!("bench-compare-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0)?;
    std::fs::create_dir_all(&options.out)?;
    if options.peers.iter().filter_map(|name| PeerInfo::named(name)).any(|peer| peer.script().is_some()) {
        write_data(&scratch.0.join("data"))?;
    }
    let mut lines = std::fs::File::create(options.out.join("results.jsonl"))?;
    let mut results = Results::default();
    let needed: Vec<Workload> =
        WORKLOADS.iter().map(|info| info.workload).filter(|w| is_needed(*w, options)).collect();
    for rep in 0..=options.reps {
        for (turn, workload) in needed.iter().enumerate() {
            let mut peers: Vec<&PeerInfo> = options
                .peers
                .iter()
                .filter_map(|name| PeerInfo::named(name))
                .filter(|peer| peer.workloads.contains(workload) && takes_part(*workload, peer, rep))
                .collect();
            if !peers.is_empty() {
                let places = peers.len();
                peers.rotate_left((rep + turn) % places);
            }
            for peer in peers {
                eprintln!("{rep}/{} {} {}", options.reps, workload.info().name, peer.name);
                let records = match one(options, &scratch.0, *workload, peer, rep) {
                    Ok(records) => records,
                    // A failure is a result, too; others need not suffer from it.
                    Err(error) => {
                        eprintln!("  {error}");
                        results.note_failure(*workload, peer.name, &error.to_string());
                        continue;
                    }
                };
                if options.workloads.contains(workload) {
                    for record in records {
                        writeln!(lines, "{}", record.line())?;
                        results.push(record);
                    }
                }
            }
        }
    }
    let table = write(&results, options);
    std::fs::write(options.out.join("table.md"), &table)?;
    println!("{table}");
    match results.failures.len() {
        0 => Ok(()),
        failures => Err(format!("{failures} failed, see the end of the tables").into()),
    }
}

/// What is long or slow runs once: in the first repetition that counts.
fn takes_part(workload: Workload, peer: &PeerInfo, rep: usize) -> bool {
    rep == 1 || !peer.is_slow && !workload.info().is_long
}

/// Whether a workload was asked for, or makes the store of one that was.
fn is_needed(workload: Workload, options: &Options) -> bool {
    let makes = |other: &Workload| workload.makes_store() && other.info().store == workload.info().store;
    options.workloads.contains(&workload) || options.workloads.iter().any(makes)
}

fn one(
    options: &Options,
    scratch: &Path,
    workload: Workload,
    peer: &PeerInfo,
    rep: usize,
) -> Outcome<Vec<Record>> {
    let info = workload.info();
    let directory = scratch.join(peer.name).join(info.store);
    if workload.makes_store() {
        remove_store(&directory)?;
        std::fs::create_dir_all(scratch.join(peer.name))?;
    }
    let is_single = info.is_long || peer.is_slow;
    let mut command = command(peer, &scratch.join("data"))?;
    command.arg(info.name).arg(peer.name).arg(&directory);
    if options.is_quick {
        command.arg("--quick");
    }
    if let Some(seconds) = options.day_seconds {
        command.args(["--day-seconds", &seconds.to_string()]);
    }
    let figures = figures(&mut command, rep == 0 || is_single)
        .map_err(|error| format!("{} {}: {error}", info.name, peer.name))?;
    if !workload.leaves_store() {
        remove_store(&directory)?;
    }
    let counts = |metric: &str| is_single || (rep == 0) == metric.starts_with("memory_");
    let record = |(metric, value)| Record { workload, peer: peer.name.into(), rep, metric, value };
    Ok(figures.into_iter().filter(|(metric, _)| counts(metric)).map(record).collect())
}

/// The program that runs a peer: this one, or a script in the environment that `python/setup.sh` made.
fn command(peer: &PeerInfo, data: &Path) -> Outcome<Command> {
    let Some((script, mode)) = peer.script() else {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("child");
        return Ok(command);
    };
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let environment = if script == "peer_duckdb.py" { "duckdb" } else { "mlflow" };
    let python = home.join("target/python").join(environment).join("bin/python");
    if !python.exists() {
        return Err(format!("{} is missing: run bench-compare/python/setup.sh", python.display()).into());
    }
    let mut command = Command::new(python);
    command.arg("-B").arg(home.join("python").join(script)).arg(mode).env("BENCH_DATA", data);
    Ok(command)
}

/// The data as files, for peers in other languages.
fn write_data(directory: &Path) -> Outcome {
    std::fs::create_dir_all(directory)?;
    let long = LongRun::new();
    let write = |name: &str, words: Vec<u8>| std::fs::write(directory.join(name), words);
    write("timestamps.i64", long.timestamps_ms.iter().flat_map(|t| t.to_le_bytes()).collect())?;
    write("values.f64", long.values.iter().flatten().flat_map(|v| v.to_le_bytes()).collect())?;
    let runs: Vec<SmallRun> = SmallRuns::new().take(RUNS).collect();
    let values = runs.iter().flat_map(|run| run.metrics.iter().flatten());
    write("metrics.f64", values.flat_map(|v| v.to_le_bytes()).collect())?;
    Ok(write("texts.tsv", runs.iter().map(SmallRun::line).collect::<String>().into_bytes())?)
}
