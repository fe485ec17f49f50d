//! The reader of `tests/data/series-sample.bin`: real training series, in the `MLC1` form.
//!
//! `MLC1`: magic, u32 version 1, u64 payload length, one zstd frame. Payload: classes, axes (steps, timestamps), series
//! (name "run/metric key", class, axis, values), all counts u32; 64-bit columns are stored as eight planes of bytes,
//! integer ones as zigzag deltas.

// Each test and bench that includes this file uses a part of it.
#![allow(dead_code)]

use std::path::Path;

/// Steps and timestamps that several series share.
pub struct SampleAxis {
    pub steps: Vec<i64>,
    pub timestamps_ms: Vec<i64>,
}

/// One series of a run.
pub struct SampleSeries {
    pub run: String,
    pub axis: usize,
    pub values: Vec<f64>,
}

/// The sample.
pub struct Sample {
    pub axes: Vec<SampleAxis>,
    pub series: Vec<SampleSeries>,
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }

    fn count(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().unwrap()) as usize
    }

    fn text(&mut self) -> String {
        let len = self.count();
        String::from_utf8(self.take(len).to_vec()).unwrap()
    }

    fn words(&mut self, n: usize) -> Vec<u64> {
        let planes = self.take(8 * n);
        (0..n)
            .map(|i| (0..8).fold(0, |word, plane| word | u64::from(planes[plane * n + i]) << (8 * plane)))
            .collect()
    }

    fn integers(&mut self, n: usize) -> Vec<i64> {
        let mut value = 0i64;
        let delta = |w: u64| (w >> 1) as i64 ^ -((w & 1) as i64);
        self.words(n)
            .into_iter()
            .map(|w| {
                value = value.wrapping_add(delta(w));
                value
            })
            .collect()
    }
}

/// Reads the sample of the repository.
pub fn load() -> Sample {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/series-sample.bin");
    let file = std::fs::read(&path).unwrap();
    assert_eq!(&file[..4], b"MLC1");
    let len = u64::from_le_bytes(file[8..16].try_into().unwrap()) as usize;
    let payload = zstd::bulk::decompress(&file[16..], len).unwrap();
    let mut cursor = Cursor(&payload);
    for _ in 0..cursor.count() {
        cursor.text();
    }
    let axes = (0..cursor.count())
        .map(|_| {
            let n = cursor.count();
            SampleAxis { steps: cursor.integers(n), timestamps_ms: cursor.integers(n) }
        })
        .collect();
    let series = (0..cursor.count())
        .map(|_| {
            let name = cursor.text();
            let (_class, axis, n) = (cursor.count(), cursor.count(), cursor.count());
            let values = cursor.words(n).into_iter().map(f64::from_bits).collect();
            SampleSeries { run: name.split_once('/').unwrap().0.to_owned(), axis, values }
        })
        .collect();
    assert!(cursor.0.is_empty());
    Sample { axes, series }
}

/// The points of one batch: one chunk of every series of a run.
pub struct Flush<'a> {
    pub columns: Vec<FlushColumn<'a>>,
}

/// A column of a [`Flush`].
pub struct FlushColumn<'a> {
    pub series: u32,
    pub first_ordinal: u64,
    pub steps: &'a [i64],
    pub timestamps_ms: &'a [i64],
    pub values: &'a [f64],
}

/// What a writer would flush: per run, chunk by chunk, at most `points` a column.
pub fn flushes(sample: &Sample, points: usize) -> Vec<Flush<'_>> {
    let mut runs: Vec<(&str, Vec<(u32, &SampleSeries)>)> = Vec::new();
    for (number, series) in sample.series.iter().enumerate() {
        match runs.iter_mut().find(|(run, _)| *run == series.run) {
            Some((_, members)) => members.push((number as u32, series)),
            None => runs.push((&series.run, vec![(number as u32, series)])),
        }
    }
    let mut flushes = Vec::new();
    for (_, members) in &runs {
        let longest = members.iter().map(|(_, s)| s.values.len()).max().unwrap();
        for start in (0..longest).step_by(points) {
            let columns = members.iter().filter(|(_, s)| s.values.len() > start).map(|(number, s)| {
                let end = s.values.len().min(start + points);
                let axis = &sample.axes[s.axis];
                FlushColumn {
                    series: *number,
                    first_ordinal: start as u64,
                    steps: &axis.steps[start..end],
                    timestamps_ms: &axis.timestamps_ms[start..end],
                    values: &s.values[start..end],
                }
            });
            flushes.push(Flush { columns: columns.collect() });
        }
    }
    flushes
}
