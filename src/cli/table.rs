//! Tables: fitted to the terminal for people, tab-separated for programs.
//!
//! Contract: both have the same columns in the same order. On a terminal a cell shows its short form, cut to fit;
//! elsewhere the exact form, never cut, control characters escaped, one header line, one line per row.

use std::io::{self, Write};

use comfy_table::{
    Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row, Table as Grid, presets,
};

use super::output::{self, Tone, for_plain, for_terminal, paint};
use super::time;

/// A column's heading and how it is laid out.
#[derive(Clone, Debug)]
pub(super) struct Column {
    title: String,
    right: bool,
    whole: bool,
}

impl Column {
    /// A column of text.
    pub(super) fn text(title: impl Into<String>) -> Self {
        Self { title: title.into(), right: false, whole: false }
    }

    /// A column of numbers, aligned to the right.
    pub(super) fn number(title: impl Into<String>) -> Self {
        Self { right: true, ..Self::text(title) }
    }

    /// Never cut: half an id is of no use.
    pub(super) fn whole(self) -> Self {
        Self { whole: true, ..self }
    }
}

/// One cell in both its forms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    short: String,
    exact: String,
    tone: Tone,
}

impl Cell {
    /// The same text in both forms.
    pub(super) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { short: text.clone(), exact: text, tone: Tone::Plain }
    }

    /// A short form for people, an exact one for programs.
    pub(super) fn both(short: impl Into<String>, exact: impl Into<String>) -> Self {
        Self { short: short.into(), exact: exact.into(), tone: Tone::Plain }
    }

    /// A float.
    pub(super) fn value(value: f64) -> Self {
        let tone = if value.is_finite() { Tone::Plain } else { Tone::Warn };
        Self::both(output::rounded(value), output::exact(value)).toned(tone)
    }

    /// A count.
    pub(super) fn count(number: u64) -> Self {
        Self::both(output::count(number), number.to_string())
    }

    /// A number of bytes.
    pub(super) fn bytes(number: u64) -> Self {
        Self::both(output::bytes(number), number.to_string())
    }

    /// A time, or nothing.
    pub(super) fn time(ms: Option<i64>, now_ms: i64) -> Self {
        ms.map_or_else(Self::default, |ms| Self::both(time::human(ms, now_ms), time::iso(ms)))
    }

    /// A time of which a narrow table shows only the age.
    pub(super) fn age(ms: Option<i64>, now_ms: i64) -> Self {
        ms.map_or_else(Self::default, |ms| Self::both(time::relative(ms, now_ms), time::iso(ms)))
    }

    /// More for people; the exact form stays.
    pub(super) fn and(mut self, more: &str) -> Self {
        self.short.push_str(more);
        self
    }

    /// The same cell in a tone.
    pub(super) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    wrap: bool,
    header: bool,
}

impl Table {
    /// A table whose long cells are cut on a terminal.
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new(), wrap: false, header: true }
    }

    /// The same with long cells wrapped instead of cut.
    pub(super) fn wrapped(self) -> Self {
        Self { wrap: true, ..self }
    }

    /// Two columns, key and value, without headings on a terminal; long values are wrapped, not cut.
    pub(super) fn pairs() -> Self {
        Self {
            wrap: true,
            header: false,
            ..Self::new(vec![Column::text("key").whole(), Column::text("value")])
        }
    }

    /// Appends a row of as many cells as there are columns.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Appends a row of a [`Table::pairs`].
    pub(super) fn pair(&mut self, key: &str, value: Cell) {
        self.row(vec![Cell::text(key).toned(Tone::Faint), value]);
    }

    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes it the way standard output wants it.
    pub(super) fn write(&self, out: &mut super::output::Output<'_>) -> io::Result<()> {
        match out.terminal {
            Some(width) => writeln!(out.out, "{}", self.fitted(width, out.colour)),
            None => self.write_plain(&mut out.out, true, out.colour),
        }
    }

    /// Tab-separated lines in exact form; in colours where they were asked for.
    pub(super) fn write_plain(&self, out: &mut dyn Write, header: bool, colour: bool) -> io::Result<()> {
        if header && self.header {
            let titles: Vec<String> =
                self.columns.iter().map(|c| paint(colour, Tone::Strong, for_plain(&c.title))).collect();
            writeln!(out, "{}", titles.join("\t"))?;
        }
        for row in &self.rows {
            for (i, cell) in row.iter().enumerate() {
                out.write_all(if i == 0 { b"" } else { b"\t" })?;
                out.write_all(paint(colour, cell.tone, for_plain(&cell.exact)).as_bytes())?;
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Aligned lines no wider than `width` where that is possible, without a trailing line feed.
    pub(super) fn fitted(&self, width: usize, colour: bool) -> String {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_truncation_indicator("\u{2026}")
            .set_width(u16::try_from(width).unwrap_or(u16::MAX).max(20));
        if colour {
            grid.enforce_styling().style_text_only();
        } else {
            grid.force_no_tty();
        }
        if self.header {
            let titles = self.columns.iter().map(|column| {
                let cell = comfy_table::Cell::new(for_terminal(&column.title).to_uppercase());
                align(cell, column).add_attribute(Attribute::Bold)
            });
            grid.set_header(Row::from(titles.collect::<Vec<_>>()));
        }
        for row in &self.rows {
            let cells = row.iter().zip(&self.columns).map(|(cell, column)| {
                let shown = comfy_table::Cell::new(for_terminal(&cell.short));
                tint(align(shown, column), cell.tone)
            });
            let mut line = Row::from(cells.collect::<Vec<_>>());
            if !self.wrap {
                line.max_height(1);
            }
            grid.add_row(line);
        }
        for (i, column) in self.columns.iter().enumerate() {
            if let Some(laid_out) = grid.column_mut(i) {
                laid_out.set_padding((0, if i + 1 == self.columns.len() { 0 } else { 2 }));
                if column.whole {
                    laid_out.set_constraint(ColumnConstraint::ContentWidth);
                }
            }
        }
        grid.trim_fmt()
    }
}

fn align(cell: comfy_table::Cell, column: &Column) -> comfy_table::Cell {
    if column.right { cell.set_alignment(CellAlignment::Right) } else { cell }
}

fn tint(cell: comfy_table::Cell, tone: Tone) -> comfy_table::Cell {
    match tone {
        Tone::Plain => cell,
        Tone::Strong => cell.add_attribute(Attribute::Bold),
        Tone::Faint => cell.add_attribute(Attribute::Dim),
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Bad => cell.fg(Color::DarkRed),
        Tone::Warn => cell.fg(Color::DarkYellow),
        Tone::Info => cell.fg(Color::DarkCyan),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table =
            Table::new(vec![Column::text("id").whole(), Column::text("name"), Column::number("points")]);
        table.row(vec![
            Cell::both("aaaa", "aaaabbbb"),
            Cell::text("a name that is rather long\tfor its own good"),
            Cell::count(1_234_567),
        ]);
        table.row(vec![Cell::text("b"), Cell::text("short").toned(Tone::Good), Cell::count(1)]);
        table
    }

    #[test]
    fn a_terminal_gets_aligned_columns_cut_to_fit() {
        let text = sample().fitted(34, false);
        assert_eq!(
            text,
            "ID    NAME                  POINTS\n\
             aaaa  a name that is…    1,234,567\n\
             b     short                      1"
        );
        assert!(sample().fitted(200, false).contains("long\\tfor its own good  1,234,567"));
    }

    #[test]
    fn colours_are_there_only_when_asked_for() {
        assert!(sample().fitted(80, true).contains("\x1b["));
        assert!(!sample().fitted(80, false).contains('\x1b'));
    }

    #[test]
    fn a_pipe_gets_every_byte_between_tabs() {
        let mut plain = Vec::new();
        sample().write_plain(&mut plain, true, false).unwrap();
        assert_eq!(
            String::from_utf8(plain).unwrap(),
            "id\tname\tpoints\n\
             aaaabbbb\ta name that is rather long\\tfor its own good\t1234567\n\
             b\tshort\t1\n"
        );
    }

    #[test]
    fn pairs_have_no_heading_and_wrap() {
        let mut pairs = Table::pairs();
        pairs.pair("note", Cell::text("one two three four five six seven"));
        let text = pairs.fitted(24, false);
        assert!(text.starts_with("note  one two"), "{text}");
        assert!(text.lines().count() > 1 && text.ends_with("seven"), "{text}");
    }

    #[test]
    fn odd_widths_and_empty_tables_do_not_panic() {
        for width in [0, 1, 5, 70_000] {
            let _ = sample().fitted(width, true);
            let _ = Table::new(vec![Column::text("id")]).fitted(width, true);
        }
    }
}
