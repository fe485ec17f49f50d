//! Bytes per whole 24-byte point on real training series, everything counted: frame header, heads, checksums, axes,
//! and what a directory keeps per column. A change of the codec that costs bytes fails here.

#[path = "series_sample/mod.rs"]
mod series_sample;

use mlrs_db::codec::Compression;
use mlrs_db::codec::axis::Axis;
use mlrs_db::codec::summary::Summary;
use mlrs_db::codec::value;
use mlrs_db::format::batch::{self, ColumnInput, Scratch};
use mlrs_db::limits::SUMMARY_POINTS_MIN;

const FRAME_HEADER_BYTES: usize = 32;
/// What a directory holds per column beside its summary: where it is.
const POSTING_BYTES: usize = 5;
/// Small columns are only counted.
const SMALL_POSTING_BYTES: usize = 2;

fn bytes_per_point(points_per_column: usize, compression: Compression) -> f64 {
    let sample = series_sample::load();
    let mut scratch = Scratch::default();
    let (mut bytes, mut points) = (0, 0);
    let (mut heads, mut axis_bytes, mut directory, mut columns_total) = (0, 0, 0, 0);
    for flush in series_sample::flushes(&sample, points_per_column) {
        let axes: Vec<Axis<'_>> =
            flush.columns.iter().map(|c| Axis { steps: c.steps, timestamps_ms: c.timestamps_ms }).collect();
        let shared = batch::share_axes(&axes);
        let unique: Vec<Axis<'_>> = shared.axes.iter().map(|i| axes[*i]).collect();
        let columns: Vec<ColumnInput<'_>> = flush
            .columns
            .iter()
            .zip(&shared.of_series)
            .map(|(c, axis)| ColumnInput {
                series: c.series,
                seed: c.series,
                first_ordinal: c.first_ordinal,
                axis: *axis,
                values: c.values,
                extras: &[],
            })
            .collect();
        let mut payload = Vec::new();
        let head_len = batch::encode(&unique, &columns, compression, &mut scratch, &mut payload);
        bytes += FRAME_HEADER_BYTES + payload.len();
        heads += FRAME_HEADER_BYTES + head_len;
        let head = batch::decode_head(&payload[..head_len], payload.len()).unwrap();
        axis_bytes += head.axes.iter().map(|a| a.len).sum::<usize>();
        columns_total += head.columns.len();

        for column in &flush.columns {
            points += column.values.len();
            directory += if column.values.len() >= SUMMARY_POINTS_MIN {
                let mut summary = Vec::new();
                Summary::of(column.steps, column.timestamps_ms, column.values).unwrap().encode(&mut summary);
                summary.len() + POSTING_BYTES
            } else {
                SMALL_POSTING_BYTES
            };
        }
    }
    bytes += directory;
    let per_point = |bytes: usize| bytes as f64 / points as f64;
    println!(
        "{points_per_column} a column, {compression:?}: {:.4} B/point (heads {:.4}, axes {:.4}, directory {:.4}, values {:.4}; {columns_total} columns, {:.1} B of directory each)",
        per_point(bytes),
        per_point(heads),
        per_point(axis_bytes),
        per_point(directory),
        per_point(bytes - heads - axis_bytes - directory),
        directory as f64 / columns_total as f64,
    );
    per_point(bytes)
}

#[test]
fn batches_of_1024_take_at_most_2_45_bytes_a_point() {
    assert!(bytes_per_point(1024, Compression::Zstd) <= 2.45);
}

#[test]
fn batches_of_128_take_at_most_2_65_bytes_a_point() {
    assert!(bytes_per_point(128, Compression::Zstd) <= 2.65);
}

#[test]
fn sealed_columns_of_4096_take_at_most_2_40_bytes_a_point() {
    assert!(bytes_per_point(4096, Compression::Zstd) <= 2.40);
}

#[test]
fn without_zstd_batches_of_1024_take_at_most_2_55_bytes_a_point() {
    assert!(bytes_per_point(1024, Compression::None) <= 2.55);
}

#[test]
fn the_real_series_come_back() {
    let sample = series_sample::load();
    let mut scratch = value::Scratch::default();
    for points in [1, 33, 1000, 4096] {
        for flush in series_sample::flushes(&sample, points).iter().step_by(7) {
            for column in &flush.columns {
                let mut bytes = Vec::new();
                value::encode(column.values, Compression::Zstd, &mut scratch, &mut bytes);
                let mut read = vec![0.0; column.values.len()];
                value::decode(&bytes, &mut read, &mut scratch).unwrap();
                let same = column.values.iter().zip(&read).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "series {} at {}", column.series, column.first_ordinal);
            }
        }
    }
}
