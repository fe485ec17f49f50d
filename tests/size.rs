//! What a closed store takes on disk: a small one as a whole, a large one per point.

#[path = "series_sample/mod.rs"]
mod series_sample;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mlrs_db::{Run, RunOptions, RunStatus, Series, Store};

/// Bytes of all files below a directory: (their lengths, the blocks that hold them).
fn usage(directory: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let (len, allocated) =
            if metadata.is_dir() { usage(&entry.path()) } else { (metadata.len(), metadata.blocks() * 512) };
        sum = (sum.0 + len, sum.1 + allocated);
    }
    sum
}

#[test]
fn a_store_of_one_run_takes_at_most_256_kib() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path).unwrap();
    let mut options = RunOptions::new().name("only one");
    for n in 0..20 {
        options = options.param(format!("param-{n}"), format!("{}", f64::from(n) / 7.0));
    }
    for n in 0..5 {
        options = options.tag(format!("tag-{n}"), "a value of a few words");
    }
    let run = store.experiment("small").unwrap().start_run(options).unwrap();
    let keys: Vec<String> = (0..10).map(|n| format!("metric/{n}")).collect();
    for step in 0..200 {
        let value = |n: usize| ((step * 31 + n as i64) as f64).sin();
        run.log_metrics(step, keys.iter().enumerate().map(|(n, key)| (key.as_str(), value(n)))).unwrap();
    }
    run.finish(RunStatus::Finished).unwrap();
    store.close().unwrap();
    let (len, allocated) = usage(&path);
    println!("one run, 2,000 points: {len} bytes in {allocated} bytes of blocks");
    assert!(allocated <= 256 * 1024, "{allocated}");
}

/// A series and its values.
type Logged<'a> = (Series, &'a [f64]);

/// Logs every series of the sample under one prefix, as a training loop does: series with the same steps and times by
/// step. Returns the points.
fn log_sample(store: &Store, sample: &series_sample::Sample, prefix: u32) -> u64 {
    let experiment = store.experiment("sample").unwrap();
    let mut runs: BTreeMap<&str, Run> = BTreeMap::new();
    let mut points = 0;
    // By run and axis: series of one axis are logged together.
    let mut together: BTreeMap<(&str, usize), Vec<Logged<'_>>> = BTreeMap::new();
    let mut keys: HashMap<&str, u32> = HashMap::new();
    for series in &sample.series {
        let run = runs.entry(&series.run).or_insert_with(|| {
            experiment.start_run(RunOptions::new().name(format!("{prefix}/{}", series.run))).unwrap()
        });
        let key = keys.entry(&series.run).or_default();
        *key += 1;
        let resolved = run.series(&format!("metric-{key}")).unwrap();
        together.entry((&series.run, series.axis)).or_default().push((resolved, &series.values));
        points += series.values.len() as u64;
    }
    for ((_, axis), members) in &together {
        let axis = &sample.axes[*axis];
        let longest = members.iter().map(|(_, values)| values.len()).max().unwrap();
        for at in 0..longest {
            for (series, values) in members.iter().filter(|(_, values)| at < values.len()) {
                series.log_at(axis.steps[at], axis.timestamps_ms[at], values[at]).unwrap();
            }
        }
    }
    for run in runs.values() {
        run.finish(RunStatus::Finished).unwrap();
    }
    points
}

/// The whole-point goal after sealing (`tests/density.rs`: frames, heads, columns, directories), and what the disk may
/// add to it: declarations, events, headers, unused ends of blocks.
const BYTES_PER_POINT: f64 = 2.40;
const DISK_FACTOR: f64 = 1.15;

#[test]
fn a_million_real_points_take_at_most_2_76_bytes_of_disk_a_point() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let sample = series_sample::load();
    let store = Store::open(&path).unwrap();
    let mut points = 0;
    for prefix in 0.. {
        points += log_sample(&store, &sample, prefix);
        if points >= 1_000_000 {
            break;
        }
    }
    store.close().unwrap();
    let (log, _) = usage(&path.join("log"));
    let (_, allocated) = usage(&path);
    let per_point = |bytes: u64| bytes as f64 / points as f64;
    println!(
        "{points} points: {:.3} bytes of log a point, {:.3} bytes of blocks a point",
        per_point(log),
        per_point(allocated)
    );
    let store = Store::options().read_only(true).open(&path).unwrap();
    assert_eq!(store.stats().unwrap().points, points);
    assert!(per_point(allocated) <= DISK_FACTOR * BYTES_PER_POINT, "{}", per_point(allocated));
}
