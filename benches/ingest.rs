//! Ingestion rates through the public API: by resolved series, by key, by step, by columns, by batch; then reading back.
//!
//! `cargo bench --bench ingest`. Rates are points per second of one thread.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mlrs_db::{Metric, Points, Run, RunOptions, Store};

struct Scratch {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn scratch() -> Scratch {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("store");
    Scratch { _directory: directory, path }
}

fn new_run(store: &Store) -> Run {
    store.experiment("bench").and_then(|e| e.start_run(RunOptions::new())).expect("a run")
}

/// A loss curve with noise, as a training loop logs it.
fn value(step: i64) -> f64 {
    let noise = (step.wrapping_mul(0x9e37_79b9) >> 8 & 0xffff) as f64 / 65536.0;
    f64::from((2.0 / (1.0 + step as f64 * 1e-3) + 0.03 * noise) as f32)
}

fn by_call(c: &mut Criterion) {
    let mut group = c.benchmark_group("ingest");
    let scratch = scratch();
    let store = Store::open(&scratch.path).expect("a store");
    let run = new_run(&store);

    const CALLS: i64 = 100_000;
    group.throughput(Throughput::Elements(CALLS as u64));
    let series = run.series("loss").expect("a series");
    let mut step = 0;
    group.bench_function("resolved series, time given", |b| {
        b.iter(|| {
            for _ in 0..CALLS {
                step += 1;
                series.log_at(step, 1_700_000_000_000 + step, value(step)).expect("logged");
            }
        })
    });
    group.bench_function("resolved series and clock", |b| {
        b.iter(|| {
            for _ in 0..CALLS {
                step += 1;
                series.log(step, value(step)).expect("logged");
            }
        })
    });
    group.bench_function("string key and clock", |b| {
        b.iter(|| {
            for _ in 0..CALLS {
                step += 1;
                run.log_metric("train/loss", step, value(step)).expect("logged");
            }
        })
    });

    let keys: Vec<String> = (0..30).map(|k| format!("metric/{k}")).collect();
    group.throughput(Throughput::Elements(CALLS as u64 / 30 * 30));
    group.bench_function("step of 30 keys", |b| {
        b.iter(|| {
            for _ in 0..CALLS / 30 {
                step += 1;
                let values = keys.iter().map(|k| (k.as_str(), value(step)));
                run.log_metrics(step, values).expect("logged");
            }
        })
    });
    let batch: Vec<Metric> = (0..1_000).map(|s| Metric::new(&keys[s as usize % 30], s, value(s))).collect();
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("log_batch of 1,000", |b| {
        b.iter(|| (0..100).for_each(|_| run.log_batch(&batch, &[], &[]).expect("logged")))
    });
    group.finish();
}

fn by_columns(c: &mut Criterion) {
    let mut group = c.benchmark_group("ingest");
    let n = 1_000_000i64;
    let steps: Vec<i64> = (0..n).collect();
    let times: Vec<i64> = steps.iter().map(|s| 1_700_000_000_000 + s * 250).collect();
    let values: Vec<f64> = steps.iter().map(|s| value(*s)).collect();
    group.throughput(Throughput::Elements(n as u64));
    group.sample_size(10);
    group.bench_function("columns, durable at the end", |b| {
        b.iter_batched(
            || {
                let scratch = scratch();
                let store = Store::open(&scratch.path).expect("a store");
                let series = new_run(&store).series("loss").expect("a series");
                (scratch, store, series)
            },
            |(scratch, store, series)| {
                series.log_columns(&steps, &times, &values).expect("logged");
                store.sync().expect("synced");
                (scratch, store, series)
            },
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

fn reading(c: &mut Criterion) {
    let scratch = scratch();
    let store = Store::open(&scratch.path).expect("a store");
    let run = new_run(&store);
    for step in 0..100_000i64 {
        run.log_metrics(step, [("loss", value(step)), ("acc", -value(step))]).expect("logged");
    }
    let id = run.id().to_owned();
    drop(run);
    store.close().expect("closed");
    let store = Store::options().read_only(true).open(&scratch.path).expect("a store");
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("history of 100,000 points", |b| {
        b.iter(|| {
            let points: Points = store.history(&id, "loss").and_then(|h| h.collect()).expect("points");
            assert_eq!(black_box(points).len(), 100_000);
        })
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("open, and latest values of a run", |b| {
        b.iter(|| {
            let store = Store::options().read_only(true).open(&scratch.path).expect("a store");
            black_box(store.get_run(&id).expect("a run"));
        })
    });
    group.finish();
}

fn config() -> Criterion {
    Criterion::default().measurement_time(std::time::Duration::from_secs(3)).sample_size(20)
}

criterion_group! { name = benches; config = config(); targets = by_call, by_columns, reading }
criterion_main!(benches);
