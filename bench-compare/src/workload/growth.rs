//! R4 as the store grows from 10^5 to 10^9 points: open cold and read one run, with the index, without, and after a
//! writer was killed.
//!
//! Contract: one store that grows, closed before each question. A run has 20 params, 5 tags and 100 metrics of up to
//! 10,000 points, logged in columns.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use mlrs_db::{ExperimentHandle, RunOptions, RunStatus, Store};

use crate::Outcome;
use crate::data::{LongRun, SmallRun, SmallRuns, param_key, tag_key};
use crate::measure::{Stopwatch, disk_bytes, drop_cache, emit, measured, median, ready};
use crate::workload::Context;

const METRICS: usize = 100;
const METRIC_POINTS: usize = 10_000;
/// Opens of each kind.
const TIMES: usize = 5;
/// Points that are in the live file when a writer is killed.
const LIVE_POINTS: usize = 50_000;

/// A run that is in the store: its id, what it was made from, how long its metrics are.
struct Known {
    id: String,
    small: SmallRun,
    points: usize,
}

pub fn open_as_it_grows(context: &Context) -> Outcome {
    let data = LongRun::new();
    let mut small = SmallRuns::new();
    let mut known: Vec<Known> = Vec::new();
    let mut points = 0;
    ready();
    for exponent in 5..=context.sizes.growth_exponent {
        let goal = 10usize.pow(exponent);
        let watch = Stopwatch::start();
        let store = Store::open(&context.directory)?;
        let experiment = store.experiment("compare")?;
        while points < goal {
            let each = METRIC_POINTS.min((goal - points) / METRICS);
            let run = small.next().ok_or("no run")?;
            let id = fill(&experiment, &data, &run, each)?;
            known.push(Known { id, small: run, points: each });
            points += each * METRICS;
        }
        store.close()?;
        let asked = &known[known.len() / 2];
        let name = |metric: &str| format!("{metric}_1e{exponent}");
        emit(&name("fill_seconds"), watch.seconds());
        emit(&name("bytes_per_point"), disk_bytes(&context.directory)? / points as f64);
        emit(&name("warm_ms"), open(context, asked, &data, false)?);
        emit(&name("cold_ms"), open(context, asked, &data, true)?);
        let index = context.directory.join("index.redb");
        if index.exists() {
            let aside = context.directory.with_extension("index");
            std::fs::rename(&index, &aside)?;
            emit(&name("no_index_cold_ms"), open(context, asked, &data, true)?);
            std::fs::rename(&aside, &index)?;
        }
        kill_a_writer(&context.directory)?;
        emit(&name("killed_cold_ms"), open(context, asked, &data, true)?);
    }
    measured();
    Ok(())
}

fn fill(experiment: &ExperimentHandle, data: &LongRun, small: &SmallRun, points: usize) -> Outcome<String> {
    let mut options = RunOptions::new().name(small.number.to_string());
    for (at, value) in small.params.iter().enumerate() {
        options = options.param(param_key(at), value);
    }
    for (at, value) in small.tags.iter().enumerate() {
        options = options.tag(tag_key(at), value);
    }
    let run = experiment.start_run(options)?;
    let steps: Vec<i64> = (0..points as i64).collect();
    for metric in 0..METRICS {
        let (timestamps_ms, values) = column(data, small.number, metric, points);
        run.series(&format!("metric-{metric}"))?.log_columns(&steps, timestamps_ms, values)?;
    }
    run.finish(RunStatus::Finished)?;
    Ok(run.id().to_owned())
}

/// A piece of the long run, another one for each run and metric.
fn column(data: &LongRun, run: usize, metric: usize, points: usize) -> (&[i64], &[f64]) {
    let from = (run * 37 + metric * 101) * 7 % (data.timestamps_ms.len() - points);
    (&data.timestamps_ms[from..][..points], &data.values[(run + metric) % data.keys()][from..][..points])
}

/// Milliseconds until a store gave a run that is right.
fn open(context: &Context, asked: &Known, data: &LongRun, is_cold: bool) -> Outcome<f64> {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        if is_cold {
            drop_cache(&context.directory)?;
        }
        let watch = Stopwatch::start();
        let store = Store::options().read_only(true).open(&context.directory)?;
        let run = store.get_run(&asked.id)?;
        times.push(watch.seconds() * 1e3);
        let is_same = (0..METRICS).all(|metric| {
            let (_, values) = column(data, asked.small.number, metric, asked.points);
            run.metrics.get(&format!("metric-{metric}")).map(|point| point.value) == values.last().copied()
        });
        if !is_same || run.params.get("p7") != Some(&asked.small.params[7]) {
            return Err(format!("run {} came back changed", asked.small.number).into());
        }
    }
    Ok(median(&times))
}

/// Starts a process that logs and kills it, so that its live file stays.
fn kill_a_writer(directory: &Path) -> Outcome {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["child-to-kill".as_ref(), directory.as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let heard = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    child.kill()?;
    child.wait()?;
    if matches!(heard, Some(Ok(1..))) { Ok(()) } else { Err("the writer to be killed said nothing".into()) }
}

/// `child-to-kill DIRECTORY`: logs, says so and waits.
pub fn log_and_wait(directory: &Path) -> Outcome {
    let store = Store::open(directory)?;
    let run = store.experiment("compare")?.start_run(RunOptions::new().name("killed"))?;
    let series = run.series("loss")?;
    for step in 0..LIVE_POINTS as i64 {
        series.log(step, step as f64)?;
    }
    println!("logged");
    loop {
        std::thread::park();
    }
}
