//! W2: one point a call.
//!
//! Contract: first as many calls as fit into the time, timed as a whole, so that the clock costs nothing; then calls with
//! a clock around each (some 25 ns) for their quantiles. Everything is read back.

use std::hint::black_box;
use std::time::Instant;

use crate::Outcome;
use crate::data::{KEYS, LongRun};
use crate::measure::{Stopwatch, emit, emit_calls, measured, ready};
use crate::peer::Peer;
use crate::workload::Context;
use crate::workload::ingest::expected_checksum;

/// Calls with a clock around each, at most.
const CLOCKED_CALLS: usize = 1_000_000;

/// Logs to so many keys in turn, for so long.
pub fn one_point_a_call<P: Peer>(context: &Context, data: &LongRun, seconds: f64) -> Outcome {
    let keys = data.keys();
    // A look at the clock every thousand calls.
    let steps_a_look = 1_000usize.div_ceil(keys);
    let rows = data.rows();
    // What the harness does for a call must not show beside it: no division, values one after the other.
    let row = |step: usize| (data.point(0, step).0, &rows[step % data.timestamps_ms.len() * keys..][..keys]);
    ready();
    let mut store: P = context.open()?;
    store.begin_long(keys)?;
    let watch = Stopwatch::start();
    let mut step = 0;
    while watch.seconds() < seconds {
        for _ in 0..steps_a_look {
            let (timestamp_ms, row) = row(step);
            for (key, value) in row.iter().enumerate() {
                store.log_point(key, step as i64, timestamp_ms, *value)?;
            }
            step += 1;
        }
    }
    let calls = (step * keys) as f64;
    emit("us_per_call", watch.seconds() / calls * 1e6);
    emit("cpu_us_per_call", watch.cpu_seconds() / calls * 1e6);
    emit("calls", calls);

    let mut nanos = Vec::with_capacity(CLOCKED_CALLS);
    let watch = Stopwatch::start();
    while watch.seconds() < seconds / 2.0 && nanos.len() < CLOCKED_CALLS {
        let (timestamp_ms, row) = row(step);
        for (key, value) in row.iter().enumerate() {
            let before = Instant::now();
            store.log_point(black_box(key), step as i64, timestamp_ms, *value)?;
            nanos.push(before.elapsed().as_nanos() as f64);
        }
        step += 1;
    }
    emit_calls("", &nanos);
    store.sync()?;
    store.close()?;
    measured();

    let store: P = context.open()?;
    // All, or of many some: some peers read everything for each key.
    for key in (0..keys).step_by(keys.div_ceil(KEYS)) {
        if store.checksum(key)? != expected_checksum(data, key, step, P::GIVES_TIMES) {
            return Err(format!("key {key}: {step} points were logged, others came back").into());
        }
    }
    Ok(())
}
