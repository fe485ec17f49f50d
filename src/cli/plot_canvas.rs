//! A grid of braille dots, or of letters, that lines are drawn on.
//!
//! Contract: drawing outside the grid is ignored; where two series meet, the later one's colour or letter shows.

use super::output::{Tone, paint};

/// The letters of the series, where dots are not to be had.
pub(super) const GLYPHS: [char; 8] = ['*', 'o', '+', 'x', '#', '@', '%', '&'];

/// The tone of the n-th series.
pub(super) fn trace_tone(number: usize) -> Tone {
    const TONES: [Tone; 5] = [Tone::Info, Tone::Warn, Tone::Good, Tone::Bad, Tone::Strong];
    TONES[number % TONES.len()]
}

#[derive(Clone, Copy, Default)]
struct Spot {
    /// Braille dots as in U+2800, or 1 for a letter.
    dots: u8,
    series: usize,
}

/// Cells of 2 x 4 dots each, or of one letter each.
pub(super) struct Canvas {
    cells: usize,
    rows: usize,
    letters: bool,
    spots: Vec<Spot>,
}

/// Bit of each dot of a braille cell, by row and column (Unicode 1.1, U+2800).
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

impl Canvas {
    /// An empty canvas of `cells` x `rows` characters, at least 1 x 1.
    pub(super) fn new(cells: usize, rows: usize, letters: bool) -> Self {
        let (cells, rows) = (cells.max(1), rows.max(1));
        Self { cells, rows, letters, spots: vec![Spot::default(); cells * rows] }
    }

    /// Columns and rows that can be told apart.
    pub(super) const fn size(&self) -> (usize, usize) {
        if self.letters { (self.cells, self.rows) } else { (self.cells * 2, self.rows * 4) }
    }

    fn set(&mut self, column: usize, row: usize, series: usize) {
        let (cell, line, bit) =
            if self.letters { (column, row, 1) } else { (column / 2, row / 4, DOTS[row % 4][column % 2]) };
        if cell >= self.cells {
            return;
        }
        if let Some(spot) = self.spots.get_mut(line * self.cells + cell) {
            spot.dots |= bit;
            spot.series = series;
        }
    }

    /// A line between two dots, both included (Bresenham's).
    pub(super) fn line(&mut self, from: (usize, usize), to: (usize, usize), series: usize) {
        let (mut column, mut row) = (from.0 as i64, from.1 as i64);
        let (last_column, last_row) = (to.0 as i64, to.1 as i64);
        let (across, down) = ((last_column - column).abs(), -(last_row - row).abs());
        let (step_column, step_row) = ((last_column - column).signum(), (last_row - row).signum());
        let mut error = across + down;
        loop {
            self.set(column as usize, row as usize, series);
            if (column, row) == (last_column, last_row) {
                return;
            }
            let twice = 2 * error;
            if twice >= down {
                error += down;
                column += step_column;
            }
            if twice <= across {
                error += across;
                row += step_row;
            }
        }
    }

    /// One line of characters; neighbours of one colour share an escape sequence.
    pub(super) fn row(&self, row: usize, colour: bool) -> String {
        let start = row * self.cells;
        let spots = self.spots.get(start..start + self.cells).unwrap_or_default();
        let mut text = String::new();
        let mut same = String::new();
        let mut series = None;
        for spot in spots {
            let (character, of) = match (spot.dots, self.letters) {
                (0, _) => (' ', None),
                (_, true) => (GLYPHS[spot.series % GLYPHS.len()], Some(spot.series)),
                (dots, false) => (char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' '), Some(spot.series)),
            };
            if of != series {
                flush(&mut text, &mut same, series, colour);
                series = of;
            }
            same.push(character);
        }
        flush(&mut text, &mut same, series, colour);
        text
    }
}

fn flush(text: &mut String, same: &mut String, series: Option<usize>, colour: bool) {
    match series {
        Some(number) => text.push_str(&paint(colour, trace_tone(number), &*same)),
        None => text.push_str(same),
    }
    same.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_letters() {
        let mut dots = Canvas::new(2, 1, false);
        dots.line((0, 3), (3, 0), 0);
        assert_eq!(dots.row(0, false), "⡠⠊");
        let mut letters = Canvas::new(3, 3, true);
        letters.line((0, 2), (2, 0), 1);
        letters.line((0, 0), (0, 0), 0);
        assert_eq!(
            [letters.row(0, false), letters.row(1, false), letters.row(2, false)],
            ["* o", " o ", "o  "]
        );
    }

    #[test]
    fn outside_is_ignored() {
        let mut canvas = Canvas::new(1, 1, false);
        canvas.line((0, 0), (50, 50), 0);
        assert_eq!(canvas.row(0, false), "⠑");
        assert_eq!(canvas.row(9, false), "");
    }
}
