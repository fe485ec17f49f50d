//! Lines per second of import and export, without a store behind them: parsing and rendering of metric files.

#[path = "../tests/mlruns_support/sink.rs"]
mod sink;

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mlrs_db::error::Result;
use mlrs_db::format::event::{EntityKind, Field, Value};
use mlrs_db::id::{Stamp, Uid};
use mlrs_db::mlruns::{
    BlobRef, Entities, ExportOptions, ExportSource, ImportOptions, PointBlock, PointReader, Registers, Which,
    export, import,
};
use sink::Sink;

const LINES: usize = 1_000_000;

/// A store with one run and one series.
struct One {
    steps: Vec<i64>,
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

const EXPERIMENT: Uid = Uid::from_bytes([1; 16]);
const RUN: Uid = Uid::from_bytes([2; 16]);

impl Entities for One {
    fn kind(&self, uid: Uid) -> Result<Option<EntityKind>> {
        Ok(Some(if uid == RUN { EntityKind::RUN } else { EntityKind::EXPERIMENT }))
    }
    fn registers(&self, uid: Uid) -> Result<Registers> {
        let (field, value) = if uid == RUN {
            (Field::EXPERIMENT, Value::Uid(EXPERIMENT))
        } else {
            (Field::NUMERIC_ID, Value::Text("1".into()))
        };
        Ok([((field, String::new()), (Stamp::default(), value))].into())
    }
    fn entities(&self, kind: EntityKind) -> Result<Vec<Uid>> {
        Ok(match kind {
            EntityKind::RUN => vec![RUN],
            EntityKind::EXPERIMENT => vec![EXPERIMENT],
            _ => Vec::new(),
        })
    }
    fn artifact_directory(&self, _: Uid) -> Result<PathBuf> {
        Ok(PathBuf::from("/nonexistent/artifacts"))
    }
}

impl PointReader for One {
    fn read_points(
        &self,
        _: Uid,
        _: &str,
        _: Which,
        sink: &mut dyn FnMut(&PointBlock<'_>) -> Result<()>,
    ) -> Result<()> {
        for ((steps, timestamps), values) in
            self.steps.chunks(4096).zip(self.timestamps.chunks(4096)).zip(self.values.chunks(4096))
        {
            sink(&PointBlock { steps, timestamps, values, extras: &[] })?;
        }
        Ok(())
    }
}

impl ExportSource for One {
    fn metric_keys(&self, _: Uid) -> Result<Vec<String>> {
        Ok(vec!["loss".into()])
    }
    fn read_blob(&self, _: BlobRef) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(std::io::empty()))
    }
}

fn series(short: bool) -> One {
    let mut seed = 1u64;
    let mut one = One { steps: Vec::new(), timestamps: Vec::new(), values: Vec::new() };
    for step in 0..LINES as i64 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        one.steps.push(step);
        one.timestamps.push(1_700_000_000_000 + step * 50);
        one.values.push(if short {
            (seed >> 50) as f64 / 1000.0
        } else {
            1.0 / (step as f64 + 1.7) + (seed >> 40) as f64 * 1e-9
        });
    }
    one
}

fn lines(c: &mut Criterion) {
    // Data in memory, so that the disk is not measured.
    let directory =
        tempfile::tempdir_in(if PathBuf::from("/dev/shm").exists() { "/dev/shm" } else { "." }).unwrap();
    for (name, short) in [("17 digits", false), ("short decimals", true)] {
        let one = series(short);
        let tree = directory.path().join(format!("tree-{short}"));
        let run = tree.join("1").join(RUN.to_string());
        fs::create_dir_all(run.join("metrics")).unwrap();
        fs::write(tree.join("1/meta.yaml"), "experiment_id: '1'\nlifecycle_stage: active\nname: x\n")
            .unwrap();
        fs::write(run.join("meta.yaml"), format!("experiment_id: '1'\nrun_id: '{RUN}'\nstatus: 3\n"))
            .unwrap();
        let mut text = String::new();
        for i in 0..LINES {
            writeln!(text, "{} {:?} {}", one.timestamps[i], one.values[i], one.steps[i]).unwrap();
        }
        fs::write(run.join("metrics/loss"), text).unwrap();
        let mut group = c.benchmark_group("mlruns");
        group.sample_size(10).throughput(Throughput::Elements(LINES as u64));
        group.bench_function(format!("import, {name}"), |b| {
            b.iter(|| {
                let mut sink = Sink::default();
                let report = import(&tree, &mut sink, &ImportOptions::default(), &mut |_| {}).unwrap();
                assert_eq!(
                    (sink.points, report.problems_total, report.metric_irregular),
                    (LINES as u64, 0, 0)
                );
            });
        });
        let target = directory.path().join("export");
        group.bench_function(format!("export, {name}"), |b| {
            b.iter(|| {
                let options = ExportOptions { overwrite: true, ..ExportOptions::default() };
                let report = export(&one, &target, &options, &mut |_| {}).unwrap();
                assert_eq!(report.points, LINES as u64);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, lines);
criterion_main!(benches);
