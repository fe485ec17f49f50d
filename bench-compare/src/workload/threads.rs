//! W2 from several threads: each logs to ten keys of its own, through one store.
//!
//! Contract: first calls as a whole, by one thread and by four; then four with a clock around each call. Counts and sums
//! of every key are checked.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use mlrs_db::{Run, RunOptions, Series, Store};

use crate::Outcome;
use crate::data::{KEYS, LongRun};
use crate::measure::{emit, emit_calls, measured, ready};
use crate::peer::Checksum;
use crate::workload::Context;

const THREADS: usize = 4;
const CLOCKED_CALLS: usize = 500_000;

/// What one thread did.
#[derive(Default)]
struct Work {
    steps: usize,
    nanos: Vec<f64>,
}

pub fn calls_from_threads(context: &Context) -> Outcome {
    let data = LongRun::new();
    let rows = data.rows();
    ready();
    for (threads, prefix) in [(1, "one_thread_"), (THREADS, "")] {
        let directory = context.directory.join(threads.to_string());
        std::fs::create_dir_all(&context.directory)?;
        let store = Store::open(&directory)?;
        let run = store.experiment("compare")?.start_run(RunOptions::new())?;
        let series: Vec<Vec<Series>> = (0..threads)
            .map(|thread| (0..KEYS).map(|key| Ok(run.series(&name(thread, key))?)).collect())
            .collect::<Outcome<_>>()?;
        let started = Instant::now();
        let time = Duration::from_secs_f64(context.sizes.call_seconds);
        let works = together(&series, |own| log(own, &data, &rows, 0, started + time))?;
        let calls: usize = works.iter().map(|work| work.steps * KEYS).sum();
        emit(&format!("{prefix}us_per_call"), started.elapsed().as_secs_f64() / calls as f64 * 1e6);
        let mut steps: Vec<usize> = works.iter().map(|work| work.steps).collect();
        if threads == THREADS {
            let from = steps.iter().copied().max().unwrap_or_default();
            let until = Instant::now() + time;
            let clocked = together(&series, |own| log_clocked(own, &data, &rows, from, until))?;
            let nanos: Vec<f64> = clocked.iter().flat_map(|work| work.nanos.iter().copied()).collect();
            emit_calls("", &nanos);
            check(store, &run, &data, &steps, &clocked, from)?;
        } else {
            check(store, &run, &data, &steps, &[], 0)?;
        }
        steps.clear();
        remove(&directory)?;
    }
    measured();
    Ok(())
}

fn name(thread: usize, key: usize) -> String {
    format!("thread-{thread}/loss_{key}")
}

/// Runs the work of each thread, all begun at once.
fn together(series: &[Vec<Series>], work: impl Fn(&[Series]) -> Outcome<Work> + Sync) -> Outcome<Vec<Work>> {
    let barrier = Barrier::new(series.len());
    let begin = |own| {
        barrier.wait();
        work(own)
    };
    let begin = &begin;
    std::thread::scope(|scope| {
        let threads: Vec<_> = series.iter().map(|own| scope.spawn(move || begin(own))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")?).collect()
    })
}

fn log(own: &[Series], data: &LongRun, rows: &[f64], from: usize, until: Instant) -> Outcome<Work> {
    let mut step = from;
    while !step.is_multiple_of(100) || Instant::now() < until {
        let (timestamp_ms, _) = data.point(0, step);
        let row = &rows[step % data.timestamps_ms.len() * KEYS..][..KEYS];
        for (series, value) in own.iter().zip(row) {
            series.log_at(step as i64, timestamp_ms, *value)?;
        }
        step += 1;
    }
    Ok(Work { steps: step - from, nanos: Vec::new() })
}

fn log_clocked(own: &[Series], data: &LongRun, rows: &[f64], from: usize, until: Instant) -> Outcome<Work> {
    let mut work = Work { steps: 0, nanos: Vec::with_capacity(CLOCKED_CALLS) };
    while work.nanos.len() < CLOCKED_CALLS && Instant::now() < until {
        let step = from + work.steps;
        let (timestamp_ms, _) = data.point(0, step);
        let row = &rows[step % data.timestamps_ms.len() * KEYS..][..KEYS];
        for (series, value) in own.iter().zip(row) {
            let before = Instant::now();
            series.log_at(step as i64, timestamp_ms, *value)?;
            work.nanos.push(before.elapsed().as_nanos() as f64);
        }
        work.steps += 1;
    }
    Ok(work)
}

/// Closes, opens, and compares every key with what was logged: `steps` from 0, then `clocked` from `from`.
fn check(store: Store, run: &Run, data: &LongRun, steps: &[usize], clocked: &[Work], from: usize) -> Outcome {
    let (path, id) = (store.path().to_path_buf(), run.id().to_owned());
    store.close()?;
    let store = Store::options().read_only(true).open(path)?;
    for (thread, steps) in steps.iter().enumerate() {
        let later = clocked.get(thread).map_or(0, |work| work.steps);
        for key in 0..KEYS {
            let mut expected = Checksum::default();
            for step in (0..*steps).chain(from..from + later) {
                let (timestamp_ms, value) = data.point(key, step);
                expected.add(step as i64, timestamp_ms, value);
            }
            let points: mlrs_db::Points = store.history(&id, &name(thread, key))?.collect()?;
            let mut found = Checksum::default();
            points.iter().for_each(|p| found.add(p.step, p.timestamp_ms, p.value));
            if found != expected {
                return Err(format!("thread {thread}, key {key}: {} points came back", found.points).into());
            }
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> Outcome {
    Ok(std::fs::remove_dir_all(directory)?)
}
