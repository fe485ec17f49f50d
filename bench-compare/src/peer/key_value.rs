//! One layout for all ordered key-value stores, so that they differ by the store alone.
//!
//! Contract: big-endian keys, the first byte the kind: `m` run, key, step, sequence -> timestamp, value; `l` run, key ->
//! latest value, timestamp, step; `p` and `t` run, name -> text; `r` run -> start and end.

use std::ops::Range;
use std::path::Path;

use crate::Outcome;
use crate::data::{
    KEYS, LongRun, M3_BELOW, RUN_STEPS, START_MS, STEPS, SmallRun, TOP, metric_key, param_key, tag_key,
};
use crate::peer::{Columns, Peer, RunRow};

/// A transaction's way of putting one entry.
pub type Put<'a> = dyn FnMut(&[u8], &[u8]) -> Outcome + 'a;

/// An ordered key-value store.
pub trait KeyValue: Sized {
    fn open(directory: &Path, is_synced: bool) -> Outcome<Self>;
    /// One transaction.
    fn write(&mut self, fill: &mut dyn FnMut(&mut Put<'_>) -> Outcome) -> Outcome;
    fn get(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>>;
    /// Entries from `low` to below `high`, in order.
    fn scan(&self, low: &[u8], high: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Outcome) -> Outcome;
    fn sync(&mut self) -> Outcome;
}

/// A peer made of one.
pub struct KeyValuePeer<S> {
    store: S,
}

fn point_key(run: u64, key: u32, step: i64) -> [u8; 25] {
    let mut bytes = [0; 25];
    bytes[0] = b'm';
    bytes[1..9].copy_from_slice(&run.to_be_bytes());
    bytes[9..13].copy_from_slice(&key.to_be_bytes());
    bytes[13..21].copy_from_slice(&(step as u64 ^ 1 << 63).to_be_bytes());
    bytes
}

fn point_value(timestamp_ms: i64, value: f64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&timestamp_ms.to_le_bytes());
    bytes[8..].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn run_key(kind: u8, run: u64, name: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&run.to_be_bytes());
    bytes.extend_from_slice(name);
    bytes
}

fn word(bytes: &[u8], at: usize) -> Outcome<[u8; 8]> {
    Ok(bytes.get(at..at + 8).ok_or("an entry is too short")?.try_into()?)
}

fn integer(bytes: &[u8], at: usize) -> Outcome<i64> {
    Ok(i64::from_le_bytes(word(bytes, at)?))
}

fn float(bytes: &[u8], at: usize) -> Outcome<f64> {
    Ok(f64::from_le_bytes(word(bytes, at)?))
}

fn text(bytes: &[u8]) -> Outcome<String> {
    Ok(String::from_utf8(bytes.to_vec())?)
}

fn put_run(put: &mut Put<'_>, run: &SmallRun) -> Outcome {
    let number = run.number as u64;
    put(&run_key(b'r', number, b""), &[START_MS.to_le_bytes(), (START_MS + 1).to_le_bytes()].concat())?;
    for (at, param) in run.params.iter().enumerate() {
        put(&run_key(b'p', number, param_key(at).as_bytes()), param.as_bytes())?;
    }
    for (at, tag) in run.tags.iter().enumerate() {
        put(&run_key(b't', number, tag_key(at).as_bytes()), tag.as_bytes())?;
    }
    for (metric, values) in run.metrics.iter().enumerate() {
        for (step, value) in values.iter().enumerate() {
            let timestamp_ms = SmallRun::timestamp_ms(run.number, step);
            put(&point_key(number, metric as u32, step as i64), &point_value(timestamp_ms, *value))?;
        }
        let last = RUN_STEPS - 1;
        let mut latest = run.last(metric).to_le_bytes().to_vec();
        latest.extend_from_slice(&SmallRun::timestamp_ms(run.number, last).to_le_bytes());
        latest.extend_from_slice(&(last as i64).to_le_bytes());
        put(&run_key(b'l', number, &(metric as u32).to_be_bytes()), &latest)?;
    }
    Ok(())
}

impl<S: KeyValue> KeyValuePeer<S> {
    /// Runs of a range of numbers, with everything.
    fn runs_of(&self, numbers: Range<u64>) -> Outcome<Vec<RunRow>> {
        let mut runs: Vec<RunRow> = Vec::new();
        let first = numbers.start;
        let place =
            |key: &[u8]| Ok::<_, crate::Failure>((u64::from_be_bytes(word(key, 1)?) - first) as usize);
        let scan = |kind: u8, visit: &mut dyn FnMut(&[u8], &[u8]) -> Outcome| {
            self.store.scan(&run_key(kind, numbers.start, b""), &run_key(kind, numbers.end, b""), visit)
        };
        scan(b'r', &mut |key, value| {
            let number = u64::from_be_bytes(word(key, 1)?) as usize;
            runs.push(RunRow { number, start_ms: integer(value, 0)?, ..RunRow::default() });
            Ok(())
        })?;
        scan(b'p', &mut |key, value| {
            runs[place(key)?].params.push((text(&key[9..])?, text(value)?));
            Ok(())
        })?;
        scan(b't', &mut |key, value| {
            runs[place(key)?].tags.push((text(&key[9..])?, text(value)?));
            Ok(())
        })?;
        scan(b'l', &mut |key, value| {
            let metric = metric_key(u32::from_be_bytes(key[9..13].try_into()?) as usize);
            let latest = (metric, integer(value, 16)?, integer(value, 8)?, float(value, 0)?);
            runs[place(key)?].metrics.push(latest);
            Ok(())
        })?;
        Ok(runs)
    }
}

impl<S: KeyValue> Peer for KeyValuePeer<S> {
    type Run = RunRow;

    fn open(directory: &Path, is_synced: bool) -> Outcome<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { store: S::open(directory, is_synced)? })
    }

    fn log_steps(&mut self, data: &LongRun, steps: Range<usize>) -> Outcome {
        self.store.write(&mut |put| {
            for step in steps.clone() {
                for key in 0..KEYS {
                    let value = point_value(data.timestamps_ms[step], data.values[key][step]);
                    put(&point_key(0, key as u32, step as i64), &value)?;
                }
            }
            Ok(())
        })
    }

    fn log_point(&mut self, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome {
        self.store.write(&mut |put| put(&point_key(0, key as u32, step), &point_value(timestamp_ms, value)))
    }

    fn log_run(&mut self, run: &SmallRun) -> Outcome {
        self.store.write(&mut |put| put_run(put, run))
    }

    fn sync(&mut self) -> Outcome {
        self.store.sync()
    }

    fn close(self) -> Outcome {
        drop(self.store);
        Ok(())
    }

    fn history(&self, key: usize) -> Outcome<Columns> {
        let mut columns = Columns::with_capacity(STEPS);
        let (low, high) = (point_key(0, key as u32, i64::MIN), point_key(0, key as u32 + 1, i64::MIN));
        self.store.scan(&low, &high, &mut |key, value| {
            let step = (u64::from_be_bytes(word(key, 13)?) ^ 1 << 63) as i64;
            columns.push(step, integer(value, 0)?, float(value, 8)?);
            Ok(())
        })?;
        Ok(columns)
    }

    fn runs(&self) -> Outcome<Vec<RunRow>> {
        self.runs_of(0..u64::MAX)
    }

    fn top(&self) -> Outcome<Vec<RunRow>> {
        let mut wanted: Vec<(f64, u64)> = Vec::new();
        let m3 = 3u32.to_be_bytes();
        for number in 0.. {
            let Some(latest) = self.store.get(&run_key(b'l', number, &m3))? else { break };
            let value = float(&latest, 0)?;
            if value < M3_BELOW && self.store.get(&run_key(b'p', number, b"p1"))?.as_deref() == Some(b"y") {
                wanted.push((value, number));
            }
        }
        wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
        wanted.truncate(TOP);
        wanted.iter().map(|(_, number)| self.run(*number as usize)).collect()
    }

    fn run(&self, number: usize) -> Outcome<RunRow> {
        let number = number as u64;
        self.runs_of(number..number + 1)?.pop().ok_or_else(|| format!("no run {number}").into())
    }
}
