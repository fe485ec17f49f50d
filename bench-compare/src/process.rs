//! One workload of one peer in a process of its own, watched from outside.
//!
//! Contract: the child prints a JSON line a figure. At `ready` (its data are made) and `measured` (what follows only
//! checks) it waits for an answer, so that memory is exactly what the store took in between.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::Outcome;
use crate::measure::memory_mib;

/// How often memory is looked at: at first often, in long workloads seldom.
const LOOK: Duration = Duration::from_millis(1);
const LOOKS_OFTEN: usize = 2_000;

/// A figure by name.
pub type Figure = (String, f64);

/// Runs a command and returns what it measured. `watches_memory` costs the child a little time.
pub fn figures(command: &mut Command, watches_memory: bool) -> Outcome<Vec<Figure>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let errors = child.stderr.take();
    // Read as they come, so that a talkative child never waits for its reader.
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.map(|mut errors| errors.read_to_string(&mut text));
        text
    });
    let outcome = listen(&mut child, watches_memory);
    if outcome.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let errors = errors.join().unwrap_or_default();
    let last = errors.lines().last().unwrap_or_default();
    let figures = outcome.map_err(|error| format!("{error}: {last}"))?;
    if status.success() { Ok(figures) } else { Err(format!("{status}: {last}").into()) }
}

fn listen(child: &mut Child, watches_memory: bool) -> Outcome<Vec<Figure>> {
    let pid = child.id();
    let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut answers = child.stdin.take().ok_or("no input")?;
    let (peak, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let look = || memory_mib(pid).unwrap_or_default();
    std::thread::scope(|scope| {
        if watches_memory {
            scope.spawn(|| {
                let mut looks = 0;
                while !is_over.load(Ordering::Acquire) {
                    // Floats that are not negative are ordered as their bits are.
                    peak.fetch_max(look().to_bits(), Ordering::AcqRel);
                    looks += 1;
                    std::thread::sleep(if looks < LOOKS_OFTEN { LOOK } else { LOOK * 20 });
                }
            });
        }
        let mut figures = Vec::new();
        let mut base = 0.0;
        let each_line = || -> Outcome {
            for line in lines {
                let line = line?;
                let value: Value = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
                if value.get("ready").is_some() {
                    base = look();
                    peak.store(0, Ordering::Release);
                    answer(&mut answers)?;
                } else if value.get("measured").is_some() {
                    if watches_memory {
                        let peak = look().max(f64::from_bits(peak.load(Ordering::Acquire)));
                        figures.push(("memory_peak_mib".to_owned(), peak));
                        figures.push(("memory_store_mib".to_owned(), peak - base));
                    }
                    is_over.store(true, Ordering::Release);
                    answer(&mut answers)?;
                } else {
                    let metric = value["metric"].as_str().ok_or("a figure without a name")?;
                    let value = value["value"].as_f64().ok_or_else(|| format!("{metric}: no number"))?;
                    figures.push((metric.to_owned(), value));
                }
            }
            Ok(())
        };
        let outcome = each_line();
        is_over.store(true, Ordering::Release);
        outcome.map(|()| figures)
    })
}

fn answer(answers: &mut ChildStdin) -> Outcome {
    answers.write_all(b"\n")?;
    Ok(answers.flush()?)
}

/// Takes a peer's store of a workload away, with what lies beside it under the same name.
pub fn remove_store(directory: &Path) -> Outcome {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    let ids = directory.with_extension("ids");
    if ids.exists() {
        std::fs::remove_file(ids)?;
    }
    Ok(())
}
