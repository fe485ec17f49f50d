//! Memory and speed on one large file. Not part of the ordinary run: it writes gigabytes.
//!
//! `MLRS_LINES=100000000 cargo test --release --test mlruns_large -- --ignored --nocapture`

#[path = "mlruns_support/sink.rs"]
mod sink;

use std::fs;
use std::io::{BufWriter, Write};
use std::time::Instant;

use mlrs_db::mlruns::{ImportOptions, import};
use sink::Sink;

fn peak_anonymous_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "writes gigabytes; see the first lines"]
fn one_large_metric_file_and_one_large_stray_file_stay_within_the_memory() {
    let lines: u64 = std::env::var("MLRS_LINES").map_or(10_000_000, |n| n.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("1/00112233445566778899aabbccddeeff");
    fs::create_dir_all(run.join("metrics")).unwrap();
    fs::write(directory.path().join("1/meta.yaml"), "experiment_id: '1'\nlifecycle_stage: active\nname: x\n")
        .unwrap();
    fs::write(run.join("meta.yaml"), "experiment_id: '1'\nstatus: 3\n").unwrap();
    let mut file = BufWriter::new(fs::File::create(run.join("metrics/loss")).unwrap());
    for step in 0..lines {
        let value = 1.0 / (step as f64 + 1.3) + 0.1;
        writeln!(file, "{} {value:?} {step}", 1_700_000_000_000 + step * 50).unwrap();
    }
    file.flush().unwrap();
    fs::File::create(run.join("stray")).unwrap().set_len(1 << 30).unwrap();
    // A line without an end.
    fs::File::create(run.join("metrics/endless")).unwrap().set_len(1 << 30).unwrap();

    let mut sink = Sink::default();
    let mut peak = 0;
    let start = Instant::now();
    let mut points_done = None;
    let report = import(directory.path(), &mut sink, &ImportOptions::default(), &mut |progress| {
        peak = peak.max(peak_anonymous_kib());
        if progress.points == lines && points_done.is_none() {
            points_done = Some(start.elapsed());
        }
    })
    .unwrap();
    assert_eq!((sink.points, report.points), (lines, lines));
    println!("{lines} lines, {} bytes in {:?}; peak RssAnon {} KiB", report.bytes, start.elapsed(), peak);
    assert!(peak < 200 * 1024, "{peak} KiB");
}
