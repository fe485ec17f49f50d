//! A metric file as a stream of blocks of points; pure.
//!
//! Contract: [`MetricParser`] takes the bytes of a file piece by piece and hands on blocks of at most
//! [`COLUMN_POINTS_MAX`] points in line order. Lines that are not regular (see `metric_line`) are listed with their
//! bytes and their place, up to a bound; past it the file is kept whole ([`Parsed::verbatim`]). Blocks plus irregular
//! lines are the file, byte for byte. Memory is bounded by a block and the longest accepted line, whatever the file.

use std::collections::HashMap;

use super::metric_line::{LINE_BYTES_MAX, Spelling, parse, parse_canonical, write};
use super::{EXTRA_SPELLING, EXTRA_TAIL, Extra, PointBlock};
use crate::error::Result;
use crate::limits::COLUMN_POINTS_MAX;

/// Irregular lines kept beside the points of one file.
const IRREGULAR_LINES_MAX: usize = 64;
/// Their bytes.
const IRREGULAR_BYTES_MAX: usize = 16 * 1024;

/// A line that writing its point again would not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Irregular {
    /// Line number from 0.
    pub(super) line: u64,
    /// Whether it is (also) a point.
    pub(super) is_point: bool,
    /// The bytes with the line feed, if it had one.
    pub(super) bytes: Vec<u8>,
}

/// What is known of a file when its bytes are used up.
#[derive(Clone, Debug, Default)]
pub(super) struct Parsed {
    /// Lines, good or bad.
    pub(super) lines: u64,
    /// Points.
    pub(super) points: u64,
    /// Points whose value is not spelled as `repr(float)`.
    pub(super) respelled: u64,
    /// Lines to put in as they are.
    pub(super) irregular: Vec<Irregular>,
    /// There were too many of them: the file has to be kept whole.
    pub(super) verbatim: bool,
    /// The last line has no line feed.
    pub(super) unterminated: bool,
}

/// Receives blocks of points and problems.
pub(super) trait MetricSink {
    /// Points `first..` of the file.
    fn points(&mut self, first: u64, block: &PointBlock<'_>) -> Result<()>;
    /// Something is wrong with a line (from 0).
    fn problem(&mut self, line: u64, text: &str);
}

/// A per-point column made point by point, mostly of one value.
#[derive(Default)]
pub(crate) struct ExtraColumn {
    dictionary: Vec<Vec<u8>>,
    lookup: HashMap<Vec<u8>, u32>,
    indices: Vec<u32>,
}

impl ExtraColumn {
    /// The place of a value in the dictionary.
    fn entry(&mut self, value: Vec<u8>) -> u32 {
        let next = self.dictionary.len() as u32;
        *self.lookup.entry(value).or_insert_with_key(|value| {
            self.dictionary.push(value.clone());
            next
        })
    }

    /// Gives points up to `points` the default, which is empty.
    fn fill(&mut self, points: usize) {
        if self.indices.len() < points {
            let default = self.entry(Vec::new());
            self.indices.resize(points, default);
        }
    }

    /// Sets the value of point `index`; points before it that were not set have the default.
    pub(crate) fn set(&mut self, index: usize, value: Vec<u8>) {
        self.fill(index);
        let entry = self.entry(value);
        self.indices.push(entry);
    }

    /// The column of `points` points, and an empty one again; nothing if no point was set.
    pub(crate) fn take(&mut self, kind: u8, points: usize) -> Option<Extra> {
        if self.dictionary.is_empty() {
            return None;
        }
        self.fill(points);
        self.lookup.clear();
        Some(Extra {
            kind,
            dictionary: std::mem::take(&mut self.dictionary),
            indices: std::mem::take(&mut self.indices),
        })
    }
}

/// A column without its first points, and without the values that only they had.
pub(super) fn without_first(extra: &Extra, points: usize) -> Extra {
    let mut column = ExtraColumn::default();
    for index in points..extra.indices.len() {
        column.set(index - points, extra.get(index).to_vec());
    }
    let rest = extra.indices.len().saturating_sub(points);
    let empty = || Extra { kind: extra.kind, dictionary: Vec::new(), indices: Vec::new() };
    column.take(extra.kind, rest).unwrap_or_else(empty)
}

/// Turns bytes into blocks.
pub(super) struct MetricParser {
    /// How many fields MLflow reads behind the step.
    extra_fields: [usize; 2],
    parsed: Parsed,
    /// The beginning of a line whose end has not come yet.
    carry: Vec<u8>,
    /// The carried line is too long and only its first bytes are kept.
    overlong: bool,
    /// The file has ended without a line feed, and this is its last line.
    is_open: bool,
    irregular_bytes: usize,
    steps: Vec<i64>,
    timestamps: Vec<i64>,
    values: Vec<f64>,
    spelling: ExtraColumn,
    tail: ExtraColumn,
    scratch: Vec<u8>,
}

/// How many fields MLflow writes behind the step in a metric file of a run: none, or name and digest of a data set.
const RUN_FIELDS: [usize; 2] = [0, 2];
/// The same of a logged model: the run comes first.
const MODEL_FIELDS: [usize; 2] = [1, 3];

impl MetricParser {
    /// The same for a file of a logged model.
    pub(super) fn of_model(self) -> Self {
        Self { extra_fields: MODEL_FIELDS, ..self }
    }

    /// A parser that goes on after what `before` tells.
    pub(super) fn new(before: Parsed) -> Self {
        let irregular_bytes = before.irregular.iter().map(|line| line.bytes.len()).sum();
        Self {
            parsed: before,
            extra_fields: RUN_FIELDS,
            carry: Vec::new(),
            overlong: false,
            is_open: false,
            irregular_bytes,
            steps: Vec::with_capacity(COLUMN_POINTS_MAX),
            timestamps: Vec::with_capacity(COLUMN_POINTS_MAX),
            values: Vec::with_capacity(COLUMN_POINTS_MAX),
            spelling: ExtraColumn::default(),
            tail: ExtraColumn::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes the next bytes of the file.
    pub(super) fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn MetricSink) -> Result<()> {
        if !self.carry.is_empty() || self.overlong {
            let end = bytes.iter().position(|&b| b == b'\n').map(|at| at + 1);
            let (line, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or((bytes, &[]));
            self.carry_on(line);
            bytes = rest;
            if end.is_some() {
                self.end_carried(sink)?;
            }
        }
        while !bytes.is_empty() {
            if let Some((timestamp, value, step, used)) = parse_canonical(bytes) {
                self.push(timestamp, value, step, sink)?;
                self.parsed.lines += 1;
                bytes = bytes.get(used..).unwrap_or_default();
                continue;
            }
            match bytes.iter().position(|&b| b == b'\n') {
                Some(end) => {
                    let (line, rest) = bytes.split_at_checked(end + 1).unwrap_or((bytes, &[]));
                    self.line(line, false, sink)?;
                    bytes = rest;
                }
                None => {
                    self.carry_on(bytes);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// How many points have come so far.
    pub(super) fn points(&self) -> u64 {
        self.parsed.points + self.values.len() as u64
    }

    /// Ends the file.
    pub(super) fn finish(mut self, sink: &mut dyn MetricSink) -> Result<Parsed> {
        if !self.carry.is_empty() || self.overlong {
            self.parsed.unterminated = true;
            // MLflow ends every line it writes, so this is half of one: a process was killed, or is writing now. The
            // half may read as another point ("step 1" of "step 12"), and a stored point is never taken back.
            self.is_open = true;
            self.end_carried(sink)?;
        }
        self.flush(sink)?;
        Ok(self.parsed)
    }

    fn carry_on(&mut self, bytes: &[u8]) {
        let room = (LINE_BYTES_MAX + 1).saturating_sub(self.carry.len());
        self.overlong |= bytes.len() > room;
        self.carry.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }

    fn end_carried(&mut self, sink: &mut dyn MetricSink) -> Result<()> {
        let line = std::mem::take(&mut self.carry);
        let overlong = std::mem::take(&mut self.overlong);
        self.line(&line, overlong, sink)
    }

    /// Any line that the fast path did not take.
    fn line(&mut self, line: &[u8], overlong: bool, sink: &mut dyn MetricSink) -> Result<()> {
        let number = self.parsed.lines;
        let point = match (overlong, self.is_open) {
            (true, _) => Err("a line longer than 64 KiB"),
            (false, true) => Err("no line feed at the end: half a line, taken once it has one"),
            (false, false) => parse(line),
        };
        let (is_point, is_regular) = match point {
            Ok(point) => {
                if !self.extra_fields.contains(&point.extra_fields) {
                    sink.problem(
                        number,
                        "an unusual number of fields: MLflow cannot read this line; its point was taken",
                    );
                }
                self.scratch.clear();
                write(
                    &mut self.scratch,
                    point.timestamp,
                    point.value,
                    point.step,
                    point.spelling,
                    point.tail,
                );
                let is_regular = self.scratch == line;
                let index = self.values.len();
                // Of an irregular line too: one that lacks its line feed may get it later.
                if point.spelling != Spelling::Canonical {
                    self.spelling.set(index, point.spelling.to_stored());
                    self.parsed.respelled += 1;
                }
                if !point.tail.is_empty() {
                    self.tail.set(index, point.tail.to_vec());
                }
                self.push(point.timestamp, point.value, point.step, sink)?;
                (true, is_regular)
            }
            Err(problem) => {
                sink.problem(number, problem);
                (false, false)
            }
        };
        if !is_regular {
            self.irregular_bytes = self.irregular_bytes.saturating_add(line.len());
            if overlong
                || self.irregular_bytes > IRREGULAR_BYTES_MAX
                || self.parsed.irregular.len() >= IRREGULAR_LINES_MAX
            {
                self.parsed.verbatim = true;
                self.parsed.irregular.clear();
            }
            if !self.parsed.verbatim {
                self.parsed.irregular.push(Irregular { line: number, is_point, bytes: line.to_vec() });
            }
        }
        self.parsed.lines += 1;
        Ok(())
    }

    fn push(&mut self, timestamp: i64, value: f64, step: i64, sink: &mut dyn MetricSink) -> Result<()> {
        self.steps.push(step);
        self.timestamps.push(timestamp);
        self.values.push(value);
        if self.values.len() >= COLUMN_POINTS_MAX { self.flush(sink) } else { Ok(()) }
    }

    fn flush(&mut self, sink: &mut dyn MetricSink) -> Result<()> {
        let count = self.values.len();
        if count == 0 {
            return Ok(());
        }
        let extras: Vec<Extra> =
            [self.spelling.take(EXTRA_SPELLING, count), self.tail.take(EXTRA_TAIL, count)]
                .into_iter()
                .flatten()
                .collect();
        let block = PointBlock {
            steps: &self.steps,
            timestamps: &self.timestamps,
            values: &self.values,
            extras: &extras,
        };
        sink.points(self.parsed.points, &block)?;
        self.parsed.points += count as u64;
        self.steps.clear();
        self.timestamps.clear();
        self.values.clear();
        Ok(())
    }
}

/// Writes a file again from its points and irregular lines.
pub(super) struct MetricWriter<'a> {
    irregular: std::iter::Peekable<std::slice::Iter<'a, Irregular>>,
    line: u64,
    /// The line before has no line feed: points came after it, which no file had yet.
    open: bool,
}

impl<'a> MetricWriter<'a> {
    /// A writer at the first line.
    pub(super) fn new(irregular: &'a [Irregular]) -> Self {
        Self { irregular: irregular.iter().peekable(), line: 0, open: false }
    }

    /// Appends the lines of the next points.
    pub(super) fn points(&mut self, block: &PointBlock<'_>, out: &mut Vec<u8>) {
        let extra = |kind: u8| block.extras.iter().find(|extra| extra.kind == kind);
        let (spelling, tail) = (extra(EXTRA_SPELLING), extra(EXTRA_TAIL));
        for (index, ((&step, &timestamp), &value)) in
            block.steps.iter().zip(block.timestamps).zip(block.values).enumerate()
        {
            self.bare_lines(out);
            if let Some(line) = self.irregular.next_if(|line| line.line == self.line) {
                self.irregular_line(line, out);
            } else {
                self.end_line(out);
                let spelling = spelling.map_or(&[][..], |extra| extra.get(index));
                let tail = tail.map_or(&[][..], |extra| extra.get(index));
                write(out, timestamp, value, step, Spelling::from_stored(spelling), tail);
            }
            self.line += 1;
        }
    }

    /// Appends irregular lines that are no points and stand here.
    fn bare_lines(&mut self, out: &mut Vec<u8>) {
        while let Some(line) = self.irregular.next_if(|line| line.line == self.line && !line.is_point) {
            self.irregular_line(line, out);
            self.line += 1;
        }
    }

    fn irregular_line(&mut self, line: &Irregular, out: &mut Vec<u8>) {
        self.end_line(out);
        out.extend_from_slice(&line.bytes);
        self.open = line.bytes.last() != Some(&b'\n');
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.open) {
            out.push(b'\n');
        }
    }

    /// Appends what stands after the last point.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        self.bare_lines(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Block = (Vec<i64>, Vec<i64>, Vec<f64>, Vec<Extra>);

    #[derive(Default)]
    struct Collect {
        blocks: Vec<Block>,
        problems: Vec<u64>,
    }

    impl MetricSink for Collect {
        fn points(&mut self, first: u64, block: &PointBlock<'_>) -> Result<()> {
            assert_eq!(first, self.blocks.iter().map(|b| b.0.len() as u64).sum::<u64>());
            assert!(block.values.len() <= COLUMN_POINTS_MAX);
            self.blocks.push((
                block.steps.into(),
                block.timestamps.into(),
                block.values.into(),
                block.extras.into(),
            ));
            Ok(())
        }

        fn problem(&mut self, line: u64, _: &str) {
            self.problems.push(line);
        }
    }

    fn parse_all(bytes: &[u8], piece: usize) -> (Collect, Parsed) {
        let mut sink = Collect::default();
        let mut parser = MetricParser::new(Parsed::default());
        for piece in bytes.chunks(piece) {
            parser.feed(piece, &mut sink).unwrap();
        }
        let parsed = parser.finish(&mut sink).unwrap();
        (sink, parsed)
    }

    fn again(sink: &Collect, parsed: &Parsed) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = MetricWriter::new(&parsed.irregular);
        for (steps, timestamps, values, extras) in &sink.blocks {
            writer.points(&PointBlock { steps, timestamps, values, extras }, &mut out);
        }
        writer.finish(&mut out);
        out
    }

    const ODD: &[u8] =
        b"\n1 0.5 1\n1 7 2\r\n\n2 1e5 3\n3 0.25 4 ds dig\nrubbish\n4 7 5\n1.5 2 3\n5 nan -1\n6 0.1";

    #[test]
    fn odd_files_come_back_whatever_the_pieces() {
        for piece in [1, 2, 3, 7, 1000] {
            let (sink, parsed) = parse_all(ODD, piece);
            assert_eq!(String::from_utf8_lossy(&again(&sink, &parsed)), String::from_utf8_lossy(ODD));
            assert_eq!((parsed.lines, parsed.points, parsed.unterminated), (11, 6, true));
            assert_eq!(sink.problems, [0, 3, 6, 8, 10]);
            assert!(!parsed.verbatim);
        }
    }

    #[test]
    fn a_file_full_of_rubbish_is_kept_whole_and_its_points_are_still_read() {
        let mut bytes = b"x\n".repeat(IRREGULAR_LINES_MAX + 1);
        bytes.extend_from_slice(b"1 0.5 1\n");
        bytes.extend(std::iter::repeat_n(b'z', 3 * LINE_BYTES_MAX));
        bytes.extend_from_slice(b"\n2 0.5 2\n");
        let (sink, parsed) = parse_all(&bytes, 4096);
        assert!(parsed.verbatim && parsed.irregular.is_empty());
        assert_eq!((parsed.points, parsed.lines, sink.problems.len()), (2, 68, 66));
    }

    #[test]
    fn blocks_are_bounded() {
        let mut bytes = Vec::new();
        for step in 0..10_000 {
            write(&mut bytes, 1_700_000_000_000 + step, step as f64 / 7.0, step, Spelling::Canonical, b"");
        }
        let (sink, parsed) = parse_all(&bytes, 1 << 16);
        assert_eq!(parsed.points, 10_000);
        assert_eq!(sink.blocks.len(), 3);
        assert!(again(&sink, &parsed) == bytes);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(
            lines in prop::collection::vec(prop_oneof![
                Just("1700000000000 0.1 3\n".to_owned()), "[0-9 .e+\n\r-]{0,12}\n?", "[1-9][0-9]{0,3} (nan|[0-9]{1,3}(\\.[0-9]{1,3})?) -?[0-9]( a b)?\r?\n", ".{0,5}",
            ], 0..40),
            piece in 1usize..50,
        ) {
            let bytes = lines.concat().into_bytes();
            let (sink, parsed) = parse_all(&bytes, piece);
            if !parsed.verbatim {
                prop_assert_eq!(again(&sink, &parsed), bytes);
            }
        }
    }
}
