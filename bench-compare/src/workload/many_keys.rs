//! Many keys: 10,000 keys at 1 Hz for a simulated day, then one key's day.
//!
//! Contract: every second each key gets one point with that second's time. Bytes are those of the store once it is
//! closed and compacted; one key's day is read by a store that was just opened, with its files in the page cache.

use mlrs_db::{Points, RunOptions, Series, Store};

use crate::Outcome;
use crate::data::{LongRun, START_MS};
use crate::measure::{Stopwatch, disk_bytes, emit, measured, memory_mib, ready, timed};
use crate::workload::Context;

/// The key whose day is read.
const KEY: usize = 4_321;

pub fn one_day(context: &Context) -> Outcome {
    let (keys, seconds) = (context.sizes.many_keys, context.sizes.day_seconds);
    let data = LongRun::new();
    let steps = data.timestamps_ms.len();
    // Ten curves, entered at another place by each key: no key repeats another's noise at the same time.
    let value = |key: usize, second: usize| data.values[key % data.keys()][(second + key * 37) % steps];
    let time_ms = |second: usize| START_MS + second as i64 * 1_000 + (second * 7_919 % 5) as i64;
    ready();
    let store = Store::open(&context.directory)?;
    let run = store.experiment("compare")?.start_run(RunOptions::new().name("day"))?;
    let id = run.id().to_owned();
    let series: Vec<Series> =
        (0..keys).map(|key| Ok(run.series(&format!("host-{key}/load"))?)).collect::<Outcome<_>>()?;
    let watch = Stopwatch::start();
    for second in 0..seconds {
        let timestamp_ms = time_ms(second);
        for (key, series) in series.iter().enumerate() {
            series.log_at(second as i64, timestamp_ms, value(key, second))?;
        }
    }
    let points = (keys * seconds) as f64;
    emit("day_seconds", seconds as f64);
    emit("us_per_call", watch.seconds() / points * 1e6);
    drop((series, run));
    store.close()?;
    emit("closed_us_per_point", watch.seconds() / points * 1e6);
    emit("cpu_us_per_point", watch.cpu_seconds() / points * 1e6);
    emit("closed_bytes_per_point", disk_bytes(&context.directory)? / points);
    let store = Store::open(&context.directory)?;
    let watch = Stopwatch::start();
    store.compact(&mut |_| {})?;
    emit("compact_seconds", watch.seconds());
    let stats = store.stats()?;
    // What compaction replaced stays for ten minutes; what counts is what it wrote.
    emit("bytes_per_point", stats.bytes_per_point);
    emit("index_share", stats.index_bytes as f64 / stats.log_bytes.max(1) as f64);
    store.close()?;
    measured();
    read_one(context, &id, seconds, value)
}

fn read_one(context: &Context, id: &str, seconds: usize, value: impl Fn(usize, usize) -> f64) -> Outcome {
    let before = memory_mib(std::process::id()).unwrap_or_default();
    let store = Store::options().read_only(true).open(&context.directory)?;
    let key = KEY % context.sizes.many_keys;
    let points: Points = timed("day_", context.sizes.questions, || {
        Ok(store.history(id, &format!("host-{key}/load"))?.collect()?)
    })?;
    emit("reader_mib", memory_mib(std::process::id()).unwrap_or_default() - before);
    let is_same = points.steps.iter().copied().eq(0..seconds as i64)
        && points.values.iter().copied().eq((0..seconds).map(|second| value(key, second)));
    if is_same { Ok(()) } else { Err("one key's day came back changed".into()) }
}
