//! W1 and W3: logging in bulk, until it is durable and until the store is closed.

use crate::Outcome;
use crate::data::{KEYS, LongRun, METRICS, RUN_STEPS, RUNS, SmallRun, SmallRuns};
use crate::measure::{Stopwatch, disk_bytes, emit, measured, ready, sync_tree};
use crate::peer::{Checksum, Peer};
use crate::workload::Context;
use crate::workload::read::check_history;

/// W1: the long run in batches of so many points. The store stays for R1.
pub fn long_run<P: Peer>(context: &Context, batch_points: usize) -> Outcome {
    let data = LongRun::new();
    let steps = context.sizes.steps;
    ready();
    let mut store: P = context.open()?;
    store.begin_long(KEYS)?;
    let watch = Stopwatch::start();
    for from in (0..steps).step_by(batch_points / KEYS) {
        store.log_steps(&data, from..steps.min(from + batch_points / KEYS))?;
    }
    let points = (steps * KEYS) as f64;
    finish(store, &watch, context, "us_per_point", points / 1e6)?;
    measured();
    emit("bytes_per_point", disk_bytes(&context.directory)? / points);
    let store: P = context.open()?;
    for key in 0..KEYS {
        check_history(&store, &data, key, steps)?;
    }
    Ok(())
}

/// W3: small runs, each with all it has. The store stays for R2 to R4.
pub fn small_runs<P: Peer>(context: &Context, runs: usize) -> Outcome {
    // Made ahead of the clock, in parts, so that many runs do not fill the memory.
    let mut all = SmallRuns::new();
    let mut next: Vec<SmallRun> = all.by_ref().take(runs.min(RUNS)).collect();
    ready();
    let mut store: P = context.open()?;
    let mut watch = Stopwatch::start();
    let mut logged = 0;
    while !next.is_empty() {
        for run in &next {
            store.log_run(run)?;
        }
        logged += next.len();
        watch.pause();
        next = all.by_ref().take((runs - logged).min(RUNS)).collect();
        watch.resume();
    }
    finish(store, &watch, context, "ms_per_run", runs as f64 / 1e3)?;
    measured();
    let points = (runs * METRICS * RUN_STEPS) as f64;
    emit("bytes_per_point", disk_bytes(&context.directory)? / points);
    Ok(())
}

/// Syncs and closes; emits times per unit, of which there are `units` million or thousand.
fn finish<P: Peer>(mut store: P, watch: &Stopwatch, context: &Context, metric: &str, units: f64) -> Outcome {
    store.sync()?;
    emit(metric, watch.seconds() / units);
    store.close()?;
    sync_tree(&context.directory)?;
    emit(&format!("closed_{metric}"), watch.seconds() / units);
    emit(&format!("cpu_{metric}"), watch.cpu_seconds() / units);
    Ok(())
}

/// What a history of the long run's first steps must sum up to.
pub fn expected_checksum(data: &LongRun, key: usize, steps: usize, gives_times: bool) -> Checksum {
    let mut sum = Checksum::default();
    for step in 0..steps {
        let (timestamp_ms, value) = data.point(key, step);
        sum.add(step as i64, if gives_times { timestamp_ms } else { 0 }, value);
    }
    sum
}
