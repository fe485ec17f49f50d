//! Import of the metric files of a run: points in blocks, continued where an earlier import stopped.
//!
//! Contract: the points of a file have one origin, hashed from run and key, and their ordinals are their order in
//! the file. Points that the store has already are compared, not written again. A file whose imported beginning
//! changed is reported and left: points are never taken back, but the whole run can be taken anew (`import_anew`).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::content::Content;
use super::digest::long;
use super::import::Importer;
use super::metric_file::{MetricParser, MetricSink, Parsed, without_first};
use super::metric_record::MetricRecord;
use super::path::safe_path;
use super::plan::{GONE, IMPORT_BESIDE, TAKE_ANEW};
use super::{EXTRA_SPELLING, EXTRA_TAIL, ImportTarget, PointBlock, Registers, Which};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::{Origin, Uid};

/// Bytes read at a time.
const READ_BYTES: usize = 1024 * 1024;
/// Problems reported of one file; a file of rubbish says no more after these.
const FILE_PROBLEMS_MAX: u64 = 20;

/// Hands the blocks of one file to the store.
struct Store<'a> {
    target: &'a mut dyn ImportTarget,
    dry: bool,
    run: Uid,
    key: &'a str,
    origin: Origin,
    /// Points the store has of this origin.
    stored: u64,
    /// Stored points are what the file says.
    same: bool,
    added: u64,
    /// Lines before this one were reported by an earlier import.
    known_lines: u64,
    problems: Vec<(u64, String)>,
    problems_total: u64,
}

impl MetricSink for Store<'_> {
    fn points(&mut self, first: u64, block: &PointBlock<'_>) -> Result<()> {
        let count = block.values.len();
        let known = usize::try_from(self.stored.saturating_sub(first)).unwrap_or(usize::MAX).min(count);
        if known > 0 && self.same {
            self.same = self.compare(first, block, known)?;
        }
        if known == count || !self.same {
            return Ok(());
        }
        self.added += (count - known) as u64;
        if self.dry {
            return Ok(());
        }
        if known == 0 {
            return self.target.put_points(self.run, self.key, self.origin, first, block);
        }
        let extras: Vec<_> = block.extras.iter().map(|extra| without_first(extra, known)).collect();
        let rest = PointBlock {
            steps: block.steps.get(known..).unwrap_or_default(),
            timestamps: block.timestamps.get(known..).unwrap_or_default(),
            values: block.values.get(known..).unwrap_or_default(),
            extras: &extras,
        };
        self.target.put_points(self.run, self.key, self.origin, first + known as u64, &rest)
    }

    fn problem(&mut self, line: u64, text: &str) {
        if line < self.known_lines {
            return;
        }
        self.problems_total += 1;
        if self.problems_total <= FILE_PROBLEMS_MAX {
            self.problems.push((line, text.to_owned()));
        }
    }
}

impl Store<'_> {
    /// Whether the first `known` points of a block are those that are stored from `first` on.
    fn compare(&self, first: u64, block: &PointBlock<'_>, known: usize) -> Result<bool> {
        let mut at = 0;
        let mut same = true;
        let outcome =
            self.target.read_points(self.run, self.key, Which::From(self.origin, first), &mut |stored| {
                let points = stored.steps.iter().zip(stored.timestamps).zip(stored.values);
                for (place, ((step, timestamp), value)) in points.enumerate() {
                    if at >= known {
                        break;
                    }
                    same &= [EXTRA_SPELLING, EXTRA_TAIL]
                        .into_iter()
                        .all(|kind| extra_of(block, kind, at) == extra_of(stored, kind, place));
                    same &= block.steps.get(at) == Some(step)
                        && block.timestamps.get(at) == Some(timestamp)
                        && block.values.get(at).is_some_and(|v| v.to_bits() == value.to_bits());
                    at += 1;
                }
                // An error stops the reading; this one is nobody's.
                if at < known { Ok(()) } else { Err(Error::InvalidState(String::new())) }
            });
        if at < known {
            outcome?;
        }
        Ok(same && at == known)
    }
}

impl Importer<'_> {
    /// Imports the metric files of a run or logged model, then says in one event what was imported. Returns whether all
    /// were.
    pub(super) fn metrics(
        &mut self,
        kind: EntityKind,
        run: Uid,
        directory: &Path,
        files: Vec<(String, PathBuf)>,
    ) -> Result<bool> {
        let current = self.target.registers(run)?;
        self.report_gone(directory, &current);
        let mut operations = Vec::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES, 0);
        let mut complete = true;
        for (key, file) in files {
            self.report.metric_files += 1;
            let before = self.report.bytes;
            complete &= self.metric((kind, run), &key, &file, &current, &mut buffer, &mut operations)?;
            // Parts of it may not have been read, or read twice.
            self.report.bytes = before + std::fs::metadata(&file).map_or(0, |m| m.len());
        }
        self.buffer = buffer;
        self.apply(operations)?;
        Ok(complete)
    }

    /// Whether a metric file is no continuation of what the store has of it.
    pub(super) fn metric_changed(
        &mut self,
        run: Uid,
        key: &str,
        path: &Path,
        current: &Registers,
    ) -> Result<bool> {
        // One that cannot be read says nothing.
        if File::open(path).is_err() {
            return Ok(false);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES, 0);
        let (report, dry) = (std::mem::take(&mut self.report), std::mem::replace(&mut self.dry, true));
        self.quiet = true;
        let taken = self.metric((EntityKind::RUN, run), key, path, current, &mut buffer, &mut Vec::new());
        (self.report, self.dry, self.quiet, self.buffer) = (report, dry, false, buffer);
        taken.map(|taken| !taken)
    }

    /// Metric files that an earlier import brought and that the run has no more.
    fn report_gone(&mut self, directory: &Path, current: &Registers) {
        for ((field, key), (_, value)) in current {
            let file = match *field {
                Field::METRIC_FILE => format!("metrics/{key}"),
                Field::FILE if key.starts_with("metrics/") => key.clone(),
                _ => continue,
            };
            if let Some(path) = safe_path(&file).map(|path| directory.join(path))
                && *value != Value::Absent
                && std::fs::symlink_metadata(&path).is_err()
            {
                self.report.problem(path, None, GONE);
            }
        }
    }

    /// Imports one metric file. Returns whether all of it is in the store.
    fn metric(
        &mut self,
        (kind, run): (EntityKind, Uid),
        key: &str,
        path: &Path,
        current: &Registers,
        buffer: &mut [u8],
        operations: &mut Vec<Operation>,
    ) -> Result<bool> {
        let set = |field: Field, key: &str, value: Value| Operation {
            kind,
            uid: run,
            field,
            key: key.to_owned(),
            value,
        };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) => {
                self.report.problem(path, None, format!("cannot be read ({e}); left out"));
                return Ok(false);
            }
        };
        let mut hasher = blake3::Hasher::new();
        let record = current.get(&(Field::METRIC_FILE, key.to_owned()));
        let record = record.map_or(Ok(None), |(_, value)| MetricRecord::from_value(value))?;
        let mut before = Parsed::default();
        let mut line_start = Vec::new();
        let mut bytes = 0;
        let mut unchanged_so_far = true;
        if let Some(record) = &record {
            before = record.parsed.clone();
            // A line that had no end is read again together with what follows it; one that is too long for a point
            // is not worth the memory, and its file counts as changed if it goes on.
            let overlong = record.tail_bytes > super::metric_line::LINE_BYTES_MAX as u64;
            let whole = record.bytes.saturating_sub(if overlong { 0 } else { record.tail_bytes });
            bytes = hash_prefix(&mut file, &mut hasher, buffer, whole, path)?;
            let mut tail = Vec::new();
            if bytes == whole {
                tail = read_up_to(&mut file, record.tail_bytes, path)?;
                bytes += tail.len() as u64;
            }
            let mut with_tail = hasher.clone();
            with_tail.update(&tail);
            unchanged_so_far = bytes == record.bytes && long(&with_tail) == record.digest;
            hasher = with_tail;
            if overlong {
                let length = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
                if unchanged_so_far && length == record.bytes {
                    self.report.points += record.parsed.points;
                    return Ok(true);
                }
                unchanged_so_far = false;
            } else if record.parsed.unterminated {
                before.lines = before.lines.saturating_sub(1);
                before.irregular.retain(|line| line.line < before.lines);
                before.unterminated = false;
            }
            line_start = tail;
        }
        if !unchanged_so_far {
            let text = format!(
                "its beginning changed since it was imported; the store's was kept ({})",
                self.advice()
            );
            self.report.problem(path, None, text);
            self.report.points += record.map_or(0, |record| record.parsed.points);
            return Ok(false);
        }
        let origin = record.as_ref().map_or_else(|| import_origin(run, key), |record| record.origin);
        let stored = self.target.points_stored(run, key, origin)?;
        let mut store = Store {
            target: &mut *self.target,
            dry: self.dry,
            run,
            key,
            origin,
            stored,
            same: true,
            added: 0,
            known_lines: record.as_ref().map_or(0, |record| record.parsed.lines),
            problems: Vec::new(),
            problems_total: 0,
        };
        let mut tail = Tail::default();
        tail.feed(&line_start);
        let parser = MetricParser::new(before);
        let mut parser = if kind == EntityKind::LOGGED_MODEL { parser.of_model() } else { parser };
        parser.feed(&line_start, &mut store)?;
        loop {
            let count = read_some(&mut file, buffer, path)?;
            let piece = buffer.get(..count).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            hasher.update(piece);
            tail.feed(piece);
            parser.feed(piece, &mut store)?;
            bytes += count as u64;
            self.report.bytes += count as u64;
            if !self.quiet {
                self.state.bytes = self.report.bytes;
                self.state.points = self.report.points + parser.points();
                (self.progress)(&self.state);
            }
        }
        let parsed = parser.finish(&mut store)?;
        let Store { same, added, problems, problems_total, .. } = store;
        for (line, text) in problems {
            self.report.problem(path, Some(line + 1), text);
        }
        if problems_total > FILE_PROBLEMS_MAX {
            let more = problems_total - FILE_PROBLEMS_MAX;
            self.report.problem(path, None, format!("{more} more lines are damaged"));
        }
        self.report.points += parsed.points;
        if !same {
            let text = "differs from the points that an earlier, interrupted import stored; those were kept";
            self.report.problem(path, None, format!("{text} ({})", self.advice()));
            return Ok(false);
        }
        self.report.points_added += added;
        let file_key = format!("metrics/{key}");
        let as_file = (Field::FILE, file_key.clone());
        if parsed.points == 0 {
            if bytes == 0 {
                self.report.problem(path, None, "empty; MLflow cannot read this run");
            }
            // No metric, so it is a file like any other.
            if let Some(content) = self.content_of(path, false)? {
                let value = content.to_value();
                let known = current.get(&as_file).is_some_and(|(_, present)| *present == value);
                if !known {
                    operations.push(set(Field::FILE, &file_key, value));
                }
            }
            self.report.metric_verbatim += u64::from(bytes > 0);
            return Ok(true);
        }
        if current.get(&as_file).is_some_and(|(_, value)| *value != Value::Absent) {
            operations.push(set(Field::FILE, &file_key, Value::Absent));
        }
        self.report.metric_verbatim += u64::from(parsed.verbatim);
        self.report.metric_irregular += u64::from(!parsed.irregular.is_empty());
        self.report.metric_respelled += u64::from(parsed.respelled > 0);
        let digest = long(&hasher);
        if record.as_ref().is_some_and(|record| record.bytes == bytes && record.digest == digest) {
            return Ok(true);
        }
        let original = if parsed.verbatim { self.blob_of(path, bytes)?.map(Content::Blob) } else { None };
        let tail_bytes = if parsed.unterminated { tail.bytes } else { 0 };
        let record = MetricRecord { origin, bytes, digest, parsed, tail_bytes, original };
        operations.push(set(Field::METRIC_FILE, key, record.to_value()));
        Ok(true)
    }

    /// How to get the tree's state of what is not taken back.
    fn advice(&self) -> &'static str {
        if self.options.replace { IMPORT_BESIDE } else { TAKE_ANEW }
    }
}

/// Whose the points of a metric file are. Not the tree's: a run's id is its own, wherever its files are.
pub(super) fn import_origin(run: Uid, key: &str) -> Origin {
    Origin::derived("mlruns metric", &[run.as_bytes(), key.as_bytes()])
}

/// What a per-point column says of a point; nothing where there is no such column.
fn extra_of<'a>(block: &PointBlock<'a>, kind: u8, point: usize) -> &'a [u8] {
    block.extras.iter().find(|extra| extra.kind == kind).map_or(&[], |extra| extra.get(point))
}

/// How many bytes follow the last line feed.
#[derive(Default)]
struct Tail {
    bytes: u64,
}

impl Tail {
    fn feed(&mut self, piece: &[u8]) {
        self.bytes = match piece.iter().rposition(|&b| b == b'\n') {
            Some(at) => (piece.len() - at - 1) as u64,
            None => self.bytes + piece.len() as u64,
        };
    }
}

fn read_some(file: &mut File, buffer: &mut [u8], path: &Path) -> Result<usize> {
    loop {
        match file.read(buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome.map_err(|e| Error::io("read", path, e)),
        }
    }
}

/// Feeds `length` bytes to the hasher, or fewer if the file is shorter: how many.
pub(super) fn hash_prefix(
    file: &mut File,
    hasher: &mut blake3::Hasher,
    buffer: &mut [u8],
    length: u64,
    path: &Path,
) -> Result<u64> {
    let mut done = 0;
    while done < length {
        let want = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
        let count = read_some(file, buffer.get_mut(..want).unwrap_or_default(), path)?;
        if count == 0 {
            break;
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
        done += count as u64;
    }
    Ok(done)
}

fn read_up_to(file: &mut File, length: u64, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    Ok(bytes)
}
