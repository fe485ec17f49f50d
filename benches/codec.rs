//! Points per second and bytes per point of the batch codec, on real training series: whole points with axes, heads
//! and checksums, on one core.
//!
//! `cargo bench --bench codec`; points of all value columns are counted, a shared axis is coded once.

#[path = "../tests/series_sample/mod.rs"]
mod series_sample;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mlrs_db::codec::Compression;
use mlrs_db::codec::axis::Axis;
use mlrs_db::format::batch::{self, ColumnInput, Scratch};

const POINTS_PER_COLUMN: usize = 1024;

struct Input<'a> {
    axes: Vec<Axis<'a>>,
    columns: Vec<ColumnInput<'a>>,
}

/// Where a reader puts an axis.
#[derive(Default)]
struct Arrays {
    steps: Vec<i64>,
    timestamps_ms: Vec<i64>,
}

impl Arrays {
    fn read(&mut self, payload: &[u8], entry: &batch::AxisEntry, first: Option<&Arrays>) {
        self.steps.resize(entry.points, 0);
        self.timestamps_ms.resize(entry.points, 0);
        let first = first.map(|f| Axis { steps: &f.steps, timestamps_ms: &f.timestamps_ms });
        let bytes = &payload[entry.offset..entry.offset + entry.len];
        batch::read_axis(bytes, entry, first, &mut self.steps, &mut self.timestamps_ms).unwrap();
    }
}

fn codec(criterion: &mut Criterion) {
    let sample = series_sample::load();
    let flushes = series_sample::flushes(&sample, POINTS_PER_COLUMN);
    let mut points = 0u64;
    let inputs: Vec<Input<'_>> = flushes
        .iter()
        .map(|flush| {
            let all: Vec<Axis<'_>> = flush
                .columns
                .iter()
                .map(|c| Axis { steps: c.steps, timestamps_ms: c.timestamps_ms })
                .collect();
            let shared = batch::share_axes(&all);
            points += flush.columns.iter().map(|c| c.values.len() as u64).sum::<u64>();
            let columns = flush.columns.iter().zip(&shared.of_series);
            let columns = columns.map(|(c, axis)| ColumnInput {
                series: c.series,
                seed: c.series,
                first_ordinal: c.first_ordinal,
                axis: *axis,
                values: c.values,
                extras: &[],
            });
            Input { axes: shared.axes.iter().map(|i| all[*i]).collect(), columns: columns.collect() }
        })
        .collect();

    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(points));
    for compression in [Compression::None, Compression::Zstd] {
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        group.bench_function(format!("encode/{compression:?}"), |bencher| {
            bencher.iter(|| {
                for input in &inputs {
                    out.clear();
                    black_box(batch::encode(
                        &input.axes,
                        &input.columns,
                        compression,
                        &mut scratch,
                        &mut out,
                    ));
                }
            });
        });

        let payloads: Vec<(Vec<u8>, usize)> = inputs
            .iter()
            .map(|input| {
                let mut out = Vec::new();
                let head_len =
                    batch::encode(&input.axes, &input.columns, compression, &mut scratch, &mut out);
                (out, head_len)
            })
            .collect();
        let bytes: usize = payloads.iter().map(|(payload, _)| payload.len()).sum();
        println!("{compression:?}: {:.4} B/point in the payloads", bytes as f64 / points as f64);

        let (mut first, mut arrays, mut values) = (Arrays::default(), Arrays::default(), Vec::new());
        group.bench_function(format!("decode/{compression:?}"), |bencher| {
            bencher.iter(|| {
                for (payload, head_len) in &payloads {
                    let head = batch::decode_head(&payload[..*head_len], payload.len()).unwrap();
                    for (i, entry) in head.axes.iter().enumerate() {
                        if i == 0 {
                            first.read(payload, entry, None);
                        } else {
                            arrays.read(payload, entry, Some(&first));
                        }
                    }
                    for entry in &head.columns {
                        values.resize(entry.points, 0.0);
                        let bytes = &payload[entry.offset..entry.offset + entry.len];
                        batch::read_column(bytes, entry, entry.series, &mut values, &mut scratch).unwrap();
                    }
                    black_box((&arrays.steps, &arrays.timestamps_ms, &values));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
