//! Series of points as a chart of characters.
//!
//! Contract: pure. A chart is made in two passes over the points, so memory does not grow with them: [`Survey`] finds
//! the ranges, [`Trace`] gathers first, last, least and greatest value of every column. Every finite point of the range
//! lies within the drawn stroke of its column; non-finite values are counted and marked, and break the line.

use super::args::Axis;
use super::output::{count, exact, paint, plural, rounded};
use super::plot_canvas::{Canvas, GLYPHS, trace_tone};
use super::plot_ticks::{time_unit, value_ticks, x_ticks};
use crate::model::Point;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Width of everything in characters.
    pub(super) width: usize,
    /// Height of the drawing area in lines.
    pub(super) height: usize,
    pub(super) ascii: bool,
    pub(super) colour: bool,
    pub(super) log_y: bool,
    pub(super) x: Axis,
}

/// What the first pass learns of one series.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    pub(super) points: u64,
    pub(super) nan: u64,
    pub(super) infinite: u64,
    /// Finite, but not on a logarithmic axis.
    pub(super) not_positive: u64,
    /// Range of what runs along the bottom, in steps or milliseconds.
    pub(super) x: Option<(i64, i64)>,
    /// Least and greatest finite value, each with where it stands.
    pub(super) min: Option<(f64, i64)>,
    pub(super) max: Option<(f64, i64)>,
    pub(super) last: Option<(f64, i64)>,
    /// Range of the values that can be drawn.
    drawn: Option<(f64, f64)>,
}

fn place(point: &Point, axis: Axis) -> i64 {
    match axis {
        Axis::Step => point.step,
        Axis::Time => point.timestamp_ms,
    }
}

/// A value's height on the axis: none if it has no place there.
fn height_of(value: f64, log_y: bool) -> Option<f64> {
    match (value.is_finite(), log_y) {
        (false, _) => None,
        (true, false) => Some(value),
        (true, true) => (value > 0.0).then(|| value.log10()),
    }
}

impl Survey {
    /// Takes one point into account.
    pub(super) fn add(&mut self, point: &Point, style: &Style) {
        let x = place(point, style.x);
        let value = point.value;
        self.points += 1;
        self.last = Some((value, x));
        self.x = Some(self.x.map_or((x, x), |(low, high)| (low.min(x), high.max(x))));
        if value.is_nan() {
            self.nan += 1;
            return;
        }
        if value.is_infinite() {
            self.infinite += 1;
            return;
        }
        if self.min.is_none_or(|(min, _)| value < min) {
            self.min = Some((value, x));
        }
        if self.max.is_none_or(|(max, _)| value > max) {
            self.max = Some((value, x));
        }
        match height_of(value, style.log_y) {
            Some(y) => self.drawn = Some(self.drawn.map_or((y, y), |(low, high)| (low.min(y), high.max(y)))),
            None => self.not_positive += 1,
        }
    }

    /// Where a place lies on the common axis: times count from each series' own first point.
    fn offset(&self, x: i64, axis: Axis) -> i64 {
        match (axis, self.x) {
            (Axis::Time, Some((first, _))) => x.saturating_sub(first),
            _ => x,
        }
    }

    fn range(&self, axis: Axis) -> Option<(i64, i64)> {
        self.x.map(|(low, high)| (self.offset(low, axis), self.offset(high, axis)))
    }
}

/// The ranges all series of a chart share.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    style: Style,
    x: (i64, i64),
    y: (f64, f64),
    gutter: usize,
    /// Values of the rows that carry a label, as (row, label).
    ticks: Vec<(usize, String)>,
    /// Columns of dots.
    columns: usize,
}

impl Frame {
    /// The frame that holds all surveyed series; none if there is no point at all.
    pub(super) fn new(surveys: &[Survey], style: Style) -> Option<Self> {
        let style = Style { width: style.width.max(20), height: style.height.max(2), ..style };
        let ranges = surveys.iter().filter_map(|survey| survey.range(style.x));
        let x = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        let drawn = surveys.iter().filter_map(|survey| survey.drawn);
        let (low, high) = drawn.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0.0, 1.0));
        // A constant series gets a band around it instead of a division by zero.
        let y = if low < high {
            (low, high)
        } else {
            let half = if low == 0.0 { 0.5 } else { low.abs() * 0.05 };
            ((low - half).max(f64::MIN), (high + half).min(f64::MAX))
        };
        let ticks = value_ticks(y, style.height, style.log_y);
        let gutter =
            ticks.iter().map(|(_, label)| label.len()).max().unwrap_or(0).clamp(3, style.width / 3) + 1;
        let cells = style.width.saturating_sub(gutter + 1).max(1);
        let columns = if style.ascii { cells } else { cells * 2 };
        Some(Self { style, x, y, gutter, ticks, columns })
    }

    fn column(&self, x: i64) -> usize {
        let (low, high) = (i128::from(self.x.0), i128::from(self.x.1));
        let span = high - low;
        if span == 0 {
            return 0;
        }
        let last = self.columns as i128 - 1;
        let at = ((i128::from(x) - low) * 2 * last + span) / (2 * span);
        usize::try_from(at.clamp(0, last)).unwrap_or(0)
    }

    /// The value that stands at a height of the axis.
    pub(super) fn value_at(&self, height: f64) -> f64 {
        if self.style.log_y { 10f64.powf(height) } else { height }
    }

    /// 0 for the bottom of the axis, 1 for its top; halves keep the span of all floats finite.
    fn fraction(&self, y: f64) -> f64 {
        ((y / 2.0 - self.y.0 / 2.0) / (self.y.1 / 2.0 - self.y.0 / 2.0)).clamp(0.0, 1.0)
    }
}

/// What falls into one column of dots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bin {
    /// Points that can be drawn; the values below are their heights.
    pub(super) drawn: u64,
    pub(super) nan: u64,
    pub(super) infinite: u64,
    pub(super) first: f64,
    pub(super) last: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// How many values of a kind a column has.
type BinCount = fn(&Bin) -> u64;

impl Bin {
    /// Points that have no place on the axis.
    pub(super) const fn not_finite(&self) -> u64 {
        self.nan + self.infinite
    }
}

/// One series, gathered into the columns of a frame.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) label: String,
    pub(super) survey: Survey,
    pub(super) bins: Vec<Bin>,
}

impl Trace {
    /// An empty trace for the frame.
    pub(super) fn new(label: impl Into<String>, survey: Survey, frame: &Frame) -> Self {
        Self { label: label.into(), survey, bins: vec![Bin::default(); frame.columns] }
    }

    /// Takes one point in; points outside the frame (logged since the survey) are left out.
    pub(super) fn add(&mut self, point: &Point, frame: &Frame) {
        let x = self.survey.offset(place(point, frame.style.x), frame.style.x);
        if x < frame.x.0 || x > frame.x.1 {
            return;
        }
        let Some(bin) = self.bins.get_mut(frame.column(x)) else { return };
        let Some(y) = height_of(point.value, frame.style.log_y) else {
            bin.nan += u64::from(point.value.is_nan());
            bin.infinite += u64::from(point.value.is_infinite());
            return;
        };
        if bin.drawn == 0 {
            *bin = Bin { first: y, last: y, min: y, max: y, ..*bin };
        }
        bin.drawn += 1;
        bin.last = y;
        bin.min = bin.min.min(y);
        bin.max = bin.max.max(y);
    }
}

/// The whole chart: legend, drawing, axes; lines end with a line feed.
pub(super) fn draw(frame: &Frame, traces: &[Trace]) -> String {
    let style = &frame.style;
    // Without colours, dots of several series look the same: then each has its own letter.
    let letters = style.ascii || (traces.len() > 1 && !style.colour);
    let cells = if style.ascii { frame.columns } else { frame.columns / 2 };
    let mut canvas = Canvas::new(cells, style.height, letters);
    for (i, trace) in traces.iter().enumerate() {
        stroke(frame, trace, &mut canvas, i);
    }
    let mut text = String::new();
    for (i, trace) in traces.iter().enumerate() {
        legend(&mut text, trace, i, letters, style);
    }
    let (tick, wall, corner) =
        if style.ascii { ('+', '|', '+') } else { ('\u{2524}', '\u{2502}', '\u{2514}') };
    for row in 0..style.height {
        let label = frame.ticks.iter().find(|(at, _)| *at == row).map(|(_, label)| label.as_str());
        let edge = if label.is_some() { tick } else { wall };
        let gutter = frame.gutter - 1;
        let line =
            format!("{:>gutter$.gutter$} {edge}{}", label.unwrap_or(""), canvas.row(row, style.colour));
        push_line(&mut text, &line);
    }
    let rows: [(&str, BinCount); 2] = [("NaN", |bin| bin.nan), ("inf", |bin| bin.infinite)];
    for (label, number) in rows {
        if let Some(marks) = marks(frame, traces, cells, number) {
            let gutter = frame.gutter - 1;
            push_line(&mut text, &format!("{label:>gutter$} {wall}{marks}"));
        }
    }
    let (divisor, unit) = match style.x {
        Axis::Step => (1, "step"),
        Axis::Time => time_unit(frame.x.1.saturating_sub(frame.x.0)),
    };
    let (ticks, labels) = x_ticks(frame.x, divisor, cells, frame.gutter, style.ascii);
    push_line(&mut text, &format!("{:gutter$}{corner}{ticks}", "", gutter = frame.gutter));
    push_line(&mut text, &labels);
    let middle = frame.gutter + 1 + cells / 2;
    push_line(&mut text, &format!("{:>middle$}", unit));
    text
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn stroke(frame: &Frame, trace: &Trace, canvas: &mut Canvas, number: usize) {
    let (columns, rows) = canvas.size();
    let row = |y: f64| ((1.0 - frame.fraction(y)) * (rows - 1) as f64).round() as usize;
    // Letters are half as fine as dots: the frame's columns are shared among the canvas's.
    let column = |bin: usize| (bin * columns / frame.columns.max(1)).min(columns - 1);
    let mut before: Option<(usize, usize)> = None;
    for (i, bin) in trace.bins.iter().enumerate() {
        if bin.drawn == 0 {
            if bin.not_finite() > 0 {
                before = None;
            }
            continue;
        }
        if let Some(from) = before {
            canvas.line(from, (column(i), row(bin.first)), number);
        }
        canvas.line((column(i), row(bin.max)), (column(i), row(bin.min)), number);
        before = Some((column(i), row(bin.last)));
    }
}

/// A `!` under every character cell that has a number of these values; none if no cell has.
fn marks(frame: &Frame, traces: &[Trace], cells: usize, number: BinCount) -> Option<String> {
    let mut marks = vec![' '; cells];
    for trace in traces {
        for (i, _) in trace.bins.iter().enumerate().filter(|(_, bin)| number(bin) > 0) {
            if let Some(mark) = marks.get_mut(i * cells / frame.columns.max(1)) {
                *mark = '!';
            }
        }
    }
    marks.contains(&'!').then(|| marks.into_iter().collect())
}

fn legend(text: &mut String, trace: &Trace, number: usize, letters: bool, style: &Style) {
    let survey = &trace.survey;
    let mark = match (letters, style.ascii) {
        (true, _) => GLYPHS[number % GLYPHS.len()],
        (false, _) => '\u{28ff}',
    };
    let mut line = format!("{} {}  ", paint(style.colour, trace_tone(number), mark), trace.label);
    line.push_str(&plural(survey.points, "point"));
    let at = |x: i64| match style.x {
        Axis::Step => format!(" at step {x}"),
        Axis::Time => format!(" after {}", super::time::span(survey.offset(x, Axis::Time))),
    };
    if let (Some((min, min_at)), Some((max, max_at))) = (survey.min, survey.max) {
        line.push_str(&format!(", min {}{}, max {}{}", rounded(min), at(min_at), rounded(max), at(max_at)));
    }
    if let Some((last, _)) = survey.last {
        line.push_str(&format!(", last {}", if last.is_finite() { rounded(last) } else { exact(last) }));
    }
    for (number, what) in
        [(survey.nan, "NaN"), (survey.infinite, "infinite"), (survey.not_positive, "not above 0 (not drawn)")]
    {
        if number > 0 {
            line.push_str(&format!(", {} {what}", count(number)));
        }
    }
    push_line(text, &line);
}

#[cfg(test)]
mod tests;
