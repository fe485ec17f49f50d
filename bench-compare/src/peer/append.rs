//! The naive limit: records appended to one file through 64 KiB of buffer, plain or compressed per MB, with no index.
//!
//! Contract: a point is 24 bytes (key, step, timestamp, value). Single calls are one `write` each, so that they survive
//! `kill -9`. Every question reads the whole file. In W3 a record is a kind (P, T, M), the run and what the kind holds.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::data::{
    KEYS, LongRun, M3_BELOW, METRICS, RUN_STEPS, START_MS, STEPS, SmallRun, TOP, metric_key, param_key,
    tag_key,
};
use crate::peer::{Columns, Peer, RunRow};

/// Points of one record.
const RECORD_BYTES: usize = 24;
const BUFFER_BYTES: usize = 64 << 10;
const ZSTD_BLOCK_BYTES: usize = 1 << 20;

/// How bytes become a file and come back.
pub trait Form: Sized {
    fn new() -> Self;
    fn append(&mut self, bytes: &[u8], file: &mut BufWriter<File>) -> Outcome;
    /// What is still held back goes to the file.
    fn flush(&mut self, file: &mut BufWriter<File>) -> Outcome;
    fn read(bytes: Vec<u8>) -> Outcome<Vec<u8>>;
}

pub struct Plain;

impl Form for Plain {
    fn new() -> Self {
        Self
    }

    fn append(&mut self, bytes: &[u8], file: &mut BufWriter<File>) -> Outcome {
        Ok(file.write_all(bytes)?)
    }

    fn flush(&mut self, _: &mut BufWriter<File>) -> Outcome {
        Ok(())
    }

    fn read(bytes: Vec<u8>) -> Outcome<Vec<u8>> {
        Ok(bytes)
    }
}

/// Blocks: compressed length, length, crc of the compressed bytes, those.
pub struct Zstd {
    block: Vec<u8>,
}

impl Form for Zstd {
    fn new() -> Self {
        Self { block: Vec::with_capacity(ZSTD_BLOCK_BYTES + RECORD_BYTES) }
    }

    fn append(&mut self, bytes: &[u8], file: &mut BufWriter<File>) -> Outcome {
        self.block.extend_from_slice(bytes);
        if self.block.len() >= ZSTD_BLOCK_BYTES { self.flush(file) } else { Ok(()) }
    }

    fn flush(&mut self, file: &mut BufWriter<File>) -> Outcome {
        if self.block.is_empty() {
            return Ok(());
        }
        let compressed = zstd::bulk::compress(&self.block, 1)?;
        for word in [compressed.len() as u32, self.block.len() as u32, crc32fast::hash(&compressed)] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&compressed)?;
        self.block.clear();
        Ok(())
    }

    fn read(bytes: Vec<u8>) -> Outcome<Vec<u8>> {
        let mut plain = Vec::new();
        let mut cursor = Cursor { bytes: &bytes };
        while !cursor.bytes.is_empty() {
            let (compressed, length, crc) = (cursor.word()?, cursor.word()?, cursor.word()?);
            let block = cursor.take(compressed as usize)?;
            if crc32fast::hash(block) != crc {
                return Err("a block is damaged".into());
            }
            plain.extend_from_slice(&zstd::bulk::decompress(block, length as usize)?);
        }
        Ok(plain)
    }
}

/// Takes bytes off the front.
struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(length).ok_or("the file ends early")?;
        self.bytes = rest;
        Ok(head)
    }

    fn word(&mut self) -> Outcome<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn text(&mut self) -> Outcome<String> {
        let length = usize::from(self.take(1)?[0]);
        Ok(String::from_utf8(self.take(length)?.to_vec())?)
    }

    /// Key, step, timestamp and value.
    fn record(&mut self) -> Outcome<(u32, i64, i64, f64)> {
        let bytes = self.take(RECORD_BYTES)?;
        let (key, step) =
            (u32::from_le_bytes(bytes[..4].try_into()?), u32::from_le_bytes(bytes[4..8].try_into()?));
        let timestamp_ms = i64::from_le_bytes(bytes[8..16].try_into()?);
        Ok((key, i64::from(step), timestamp_ms, f64::from_le_bytes(bytes[16..].try_into()?)))
    }
}

fn record(key: usize, step: i64, timestamp_ms: i64, value: f64) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..4].copy_from_slice(&(key as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&(step as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&timestamp_ms.to_le_bytes());
    bytes[16..].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// An appended file.
pub struct Append<F> {
    path: PathBuf,
    file: BufWriter<File>,
    form: F,
    is_synced: bool,
}

impl<F: Form> Append<F> {
    fn bytes(&self) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&self.path)?.read_to_end(&mut bytes)?;
        F::read(bytes)
    }

    fn sync_if_asked(&mut self) -> Outcome {
        if self.is_synced { self.sync() } else { Ok(()) }
    }

    fn put(&mut self, kind: u8, run: usize, parts: &[&[u8]]) -> Outcome {
        self.form.append(&[kind], &mut self.file)?;
        self.form.append(&(run as u32).to_le_bytes(), &mut self.file)?;
        parts.iter().try_for_each(|part| self.form.append(part, &mut self.file))
    }

    fn put_pair(&mut self, kind: u8, run: usize, key: &str, value: &str) -> Outcome {
        let (key_length, value_length) = (u8::try_from(key.len())?, u8::try_from(value.len())?);
        self.put(kind, run, &[&[key_length], key.as_bytes(), &[value_length], value.as_bytes()])
    }
}

impl<F: Form> Peer for Append<F> {
    type Run = RunRow;

    fn open(directory: &Path, is_synced: bool) -> Outcome<Self> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join("log");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path, file, form: F::new(), is_synced })
    }

    fn log_steps(&mut self, data: &LongRun, steps: Range<usize>) -> Outcome {
        for step in steps {
            for key in 0..KEYS {
                let record = record(key, step as i64, data.timestamps_ms[step], data.values[key][step]);
                self.form.append(&record, &mut self.file)?;
            }
        }
        self.sync_if_asked()
    }

    fn log_point(&mut self, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome {
        Ok(self.file.get_mut().write_all(&record(key, step, timestamp_ms, value))?)
    }

    fn log_run(&mut self, run: &SmallRun) -> Outcome {
        for (at, value) in run.params.iter().enumerate() {
            self.put_pair(b'P', run.number, &param_key(at), value)?;
        }
        for (at, value) in run.tags.iter().enumerate() {
            self.put_pair(b'T', run.number, &tag_key(at), value)?;
        }
        for step in 0..RUN_STEPS {
            let timestamp_ms = SmallRun::timestamp_ms(run.number, step);
            for metric in 0..METRICS {
                let record = record(metric, step as i64, timestamp_ms, run.metrics[metric][step]);
                self.put(b'M', run.number, &[&record])?;
            }
        }
        self.sync_if_asked()
    }

    fn sync(&mut self) -> Outcome {
        self.form.flush(&mut self.file)?;
        self.file.flush()?;
        Ok(self.file.get_ref().sync_data()?)
    }

    fn close(mut self) -> Outcome {
        self.form.flush(&mut self.file)?;
        Ok(self.file.flush()?)
    }

    fn history(&self, key: usize) -> Outcome<Columns> {
        let bytes = self.bytes()?;
        let mut columns = Columns::with_capacity(STEPS);
        let mut cursor = Cursor { bytes: &bytes };
        while !cursor.bytes.is_empty() {
            let (found, step, timestamp_ms, value) = cursor.record()?;
            if found as usize == key {
                columns.push(step, timestamp_ms, value);
            }
        }
        Ok(columns)
    }

    fn runs(&self) -> Outcome<Vec<RunRow>> {
        let bytes = self.bytes()?;
        let mut runs: Vec<RunRow> = Vec::new();
        let mut cursor = Cursor { bytes: &bytes };
        while !cursor.bytes.is_empty() {
            let kind = cursor.take(1)?[0];
            let number = cursor.word()? as usize;
            if number == runs.len() {
                runs.push(RunRow { number, start_ms: START_MS, ..RunRow::default() });
            }
            let run = &mut runs[number];
            match kind {
                b'P' => run.params.push((cursor.text()?, cursor.text()?)),
                b'T' => run.tags.push((cursor.text()?, cursor.text()?)),
                _ => {
                    let (metric, step, timestamp_ms, value) = cursor.record()?;
                    match run.metrics.get_mut(metric as usize) {
                        Some(latest) => (latest.1, latest.2, latest.3) = (step, timestamp_ms, value),
                        None => run.metrics.push((metric_key(metric as usize), step, timestamp_ms, value)),
                    }
                }
            }
        }
        Ok(runs)
    }

    fn top(&self) -> Outcome<Vec<RunRow>> {
        let mut runs = self.runs()?;
        runs.retain(|run| run.metrics[3].3 < M3_BELOW && run.params[1].1 == "y");
        runs.sort_by(|a, b| b.metrics[3].3.total_cmp(&a.metrics[3].3));
        runs.truncate(TOP);
        Ok(runs)
    }

    fn run(&self, number: usize) -> Outcome<RunRow> {
        self.runs()?.into_iter().nth(number).ok_or_else(|| format!("no run {number}").into())
    }
}
