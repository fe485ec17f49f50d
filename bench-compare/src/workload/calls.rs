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

/// Steps between two looks at the clock.
const STEPS_A_LOOK: usize = 100;
/// Calls with a clock around each, at most.
const CLOCKED_CALLS: usize = 1_000_000;

pub fn one_point_a_call<P: Peer>(context: &Context) -> Outcome {
    let data = LongRun::new();
    ready();
    let mut store: P = context.open()?;
    store.begin_long()?;
    let watch = Stopwatch::start();
    let mut step = 0;
    while watch.seconds() < context.sizes.call_seconds {
        for _ in 0..STEPS_A_LOOK {
            for key in 0..KEYS {
                let (timestamp_ms, value) = data.point(key, step);
                store.log_point(key, step as i64, timestamp_ms, value)?;
            }
            step += 1;
        }
    }
    let calls = (step * KEYS) as f64;
    emit("us_per_call", watch.seconds() / calls * 1e6);
    emit("cpu_us_per_call", watch.cpu_seconds() / calls * 1e6);
    emit("calls", calls);

    let mut nanos = Vec::with_capacity(CLOCKED_CALLS);
    let watch = Stopwatch::start();
    while watch.seconds() < context.sizes.call_seconds / 2.0 && nanos.len() < CLOCKED_CALLS {
        for key in 0..KEYS {
            let (timestamp_ms, value) = data.point(key, step);
            let before = Instant::now();
            store.log_point(black_box(key), step as i64, timestamp_ms, value)?;
            nanos.push(before.elapsed().as_nanos() as f64);
        }
        step += 1;
    }
    emit_calls("", &nanos);
    store.sync()?;
    store.close()?;
    measured();

    let store: P = context.open()?;
    for key in 0..KEYS {
        let mut columns = store.history(key)?;
        if !P::GIVES_TIMES {
            columns.timestamps_ms.fill(0);
        }
        if columns.checksum() != expected_checksum(&data, key, step, P::GIVES_TIMES) {
            return Err(format!("key {key}: {step} points were logged, others came back").into());
        }
    }
    Ok(())
}
