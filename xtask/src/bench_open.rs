//! `bench-open`: how long until a large store gives its first answer, in a process that knows nothing of it.
//!
//! Contract: 500 runs of 100 keys of 2,000 points, logged by columns. Each time is open plus the first answer, the
//! median of fresh processes with warm files: with the index, with the index deleted, and after a writer was killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mlrs_db::{ExperimentSearch, RunOptions, RunSearch, RunStatus, Store};

use crate::Outcome;
use crate::measure::{Scratch, child, disk_usage, median, number, option};

const KEYS: u64 = 100;
const POINTS: usize = 2_000;
/// Fresh processes per figure.
const TIMES: usize = 9;
const QUESTIONS: [&str; 5] = ["get-run", "page", "history", "experiments", "search"];

fn fill(path: &Path, runs: u64) -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open(path)?;
    let experiments =
        (0..10).map(|n| store.experiment(&format!("experiment-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let mut seed = 1u64;
    for number in 0..runs {
        let experiment = &experiments[(number % 10) as usize];
        let mut options = RunOptions::new().name(format!("run-{number}")).tag("team", "vision");
        for param in 0..10 {
            options = options.param(format!("p{param}"), format!("{}", number * 10 + param));
        }
        let run = experiment.start_run(options)?;
        let steps: Vec<i64> = (0..POINTS as i64).collect();
        let times: Vec<i64> =
            steps.iter().map(|s| 1_700_000_000_000 + number as i64 * 60_000 + s * 250 + s * s % 7).collect();
        for key in 0..KEYS {
            let values: Vec<f64> = steps
                .iter()
                .map(|s| {
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let noise = (seed >> 48) as f64 / 65_536.0;
                    f64::from((2.0 / (1.0 + *s as f64 * 1e-3) + 0.03 * noise) as f32)
                })
                .collect();
            run.series(&format!("metrics/{key}"))?.log_columns(&steps, &times, &values)?;
        }
        run.finish(RunStatus::Finished)?;
    }
    store.close()?;
    Ok(())
}

pub fn run(args: &[String]) -> Outcome {
    let runs = number(args, "--runs", 500)?;
    let scratch = Scratch::new(args, "bench-open")?;
    let path = option(args, "--store").map_or_else(|| scratch.path.join("store"), Into::into);
    if !path.exists() {
        let started = Instant::now();
        fill(&path, runs)?;
        println!("filled in {:.1} s", started.elapsed().as_secs_f64());
    }
    let (bytes, _) = disk_usage(&path)?;
    let segments = std::fs::read_dir(path.join("log"))?.count();
    println!(
        "{} points, {} series, {bytes} bytes, {segments} segments",
        runs * KEYS * POINTS as u64,
        runs * KEYS
    );
    let index = path.join("index.redb");
    ask(&path, "with the index")?;
    if index.exists() {
        std::fs::remove_file(&index)?;
    } else {
        println!("  (there was no index)");
    }
    ask(&path, "index deleted")?;
    kill_a_writer(&path)?;
    ask(&path, "after kill -9 of a writer")?;
    Ok(())
}

fn ask(store: &Path, what: &str) -> Outcome {
    println!("{what}: open + first answer (of it open), ms, median of {TIMES} (least)");
    for question in QUESTIONS {
        let (mut total, mut open) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let text = child(&["child-open", &store.to_string_lossy(), question])?;
            let mut fields = text.split_whitespace().filter_map(|f| f.parse::<f64>().ok());
            open.push(fields.next().ok_or("no time")? / 1e6);
            total.push(fields.next().ok_or("no time")? / 1e6);
        }
        let least = total.iter().copied().fold(f64::INFINITY, f64::min);
        println!("  {question:<12} {:8.2} ({:.2}) least {least:.2}", median(total), median(open));
    }
    Ok(())
}

/// `child-open STORE QUESTION`: nanoseconds of open, and of open plus answer.
pub fn child_open(args: &[String]) -> Outcome {
    let [path, question] = args else { return Err("a store and a question".into()) };
    // Which run is asked for is found out beforehand.
    let asked = {
        let store = Store::options().read_only(true).use_index(false).open(path)?;
        let page = store.search_runs(&RunSearch { max_results: 1, ..RunSearch::default() })?;
        page.items.first().map(|run| run.id.clone()).ok_or("no run")?
    };
    let started = Instant::now();
    let store = Store::open(path)?;
    let open = started.elapsed();
    match question.as_str() {
        "get-run" => {
            let run = store.get_run(&asked)?;
            assert!(!run.params.is_empty(), "a run without params");
        }
        "page" => {
            let page = store.history(&asked, "metrics/42")?.page(1000, None)?;
            assert_eq!(page.points.len(), 1000);
        }
        "history" => {
            let points = store.history(&asked, "metrics/42")?.collect::<mlrs_db::Points>()?;
            assert!(points.len() >= POINTS);
        }
        "experiments" => {
            let all = store.search_experiments(&ExperimentSearch::default())?;
            assert!(all.items.len() >= 10);
        }
        "search" => {
            let search = RunSearch {
                order_by: vec!["metrics.`metrics/7` DESC".into()],
                max_results: 10,
                ..RunSearch::default()
            };
            assert_eq!(store.search_runs(&search)?.items.len(), 10);
        }
        other => return Err(format!("no question {other}").into()),
    }
    println!("{} {}", open.as_nanos(), started.elapsed().as_nanos());
    // How long closing takes is not asked.
    std::process::exit(0);
}

/// `child-log STORE`: logs until it is killed.
pub fn child_log(args: &[String]) -> Outcome {
    let [path] = args else { return Err("a store".into()) };
    let store = Store::open(path)?;
    let run =
        store.experiment("experiment-0")?.start_run(RunOptions::new().name("killed").param("p0", "1"))?;
    let keys: Vec<String> = (0..KEYS).map(|key| format!("metrics/{key}")).collect();
    for step in 0.. {
        run.log_metrics(
            step,
            keys.iter().enumerate().map(|(n, key)| (key.as_str(), (step * 7 + n as i64) as f64 / 1024.0)),
        )?;
        if step == POINTS as i64 {
            println!("logging");
        }
        // A fast loop, but not one that fills the disk.
        if step % 16 == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    Ok(())
}

fn kill_a_writer(store: &Path) -> Outcome {
    let mut child =
        Command::new(std::env::current_exe()?).arg("child-log").arg(store).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
    std::thread::sleep(Duration::from_millis(200));
    child.kill()?;
    child.wait()?;
    let (live, _) = disk_usage(&store.join("live"))?;
    println!("killed a writer; live files: {live} bytes");
    Ok(())
}
