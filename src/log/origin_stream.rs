//! The points of one series and origin, in order and each once.
//!
//! Contract: takes the columns of any number of segments, overlapping or repeated, and gives consecutive runs of
//! ordinals. A hole in the ordinals ends a run; the caller decides whether that is an error.

use std::collections::HashMap;

use crate::codec::extra::Extra;
use crate::error::{Error, Result};
use crate::log::column_reader::{ColumnPlace, ColumnReader, DecodedColumn};
use crate::model::Points;

/// Columns of one origin, sorted, with what is left of the one being given out.
#[derive(Debug, Default)]
pub(crate) struct OriginStream {
    /// Sorted by first ordinal; taken from the back.
    places: Vec<ColumnPlace>,
    /// Points read and not given out yet; consecutive.
    ready: DecodedColumn,
    /// Points of `ready` that were given out.
    taken: usize,
    /// A column that does not continue `ready`.
    held_back: Option<DecodedColumn>,
    /// Ordinals below it were given out or skipped.
    next_ordinal: u64,
    /// Comes after all places.
    last: Option<DecodedColumn>,
    /// Whether a column that is damaged is a hole, instead of an error.
    holes_allowed: bool,
}

impl OriginStream {
    /// A stream over columns, from an ordinal on.
    pub(crate) fn new(mut places: Vec<ColumnPlace>, from: u64) -> Self {
        // Longer columns first among equals, so that a re-batched copy is read instead of its many sources.
        places.sort_by_key(|p| (p.column.first_ordinal, std::cmp::Reverse(p.column.points)));
        places.reverse();
        Self { places, next_ordinal: from, ..Self::default() }
    }

    /// Adds a column that is in memory already and comes after all others.
    pub(crate) fn with_last(mut self, last: Option<DecodedColumn>) -> Self {
        self.last = last;
        self
    }

    /// Leaves out what is damaged, as if it was not there.
    pub(crate) fn allow_holes(mut self, holes_allowed: bool) -> Self {
        self.holes_allowed = holes_allowed;
        self
    }

    /// At most `max` points with consecutive ordinals and the same kinds of extra columns; `None` at the end.
    pub(crate) fn next(&mut self, reader: &mut ColumnReader, max: usize) -> Result<Option<DecodedColumn>> {
        while self.ready.values.len() - self.taken < max {
            let Some(column) = self.next_column(reader)? else { break };
            let left = self.ready.values.len() - self.taken;
            if left == 0 {
                self.ready = column;
                self.taken = 0;
            } else if column.first_ordinal == self.ready.first_ordinal + self.ready.values.len() as u64
                && same_kinds(&self.ready.extras, &column.extras)
            {
                self.ready.drop_front(std::mem::take(&mut self.taken));
                self.ready.append(column);
            } else {
                self.held_back = Some(column);
                break;
            }
        }
        let left = self.ready.values.len() - self.taken;
        if left == 0 {
            return Ok(None);
        }
        if self.taken == 0 && left <= max {
            return Ok(Some(std::mem::take(&mut self.ready)));
        }
        let given = self.ready.slice(self.taken, left.min(max));
        self.taken += given.values.len();
        Ok(Some(given))
    }

    /// Appends all points up to the ordinal `end` that follow `next` without a hole; returns the ordinal after the
    /// last.
    /// Columns that nothing overlaps are decoded where they belong.
    pub(crate) fn read_onto(
        &mut self,
        reader: &mut ColumnReader,
        next: u64,
        end: u64,
        points: &mut Points,
    ) -> Result<u64> {
        let mut next = next;
        let is_idle = self.ready.values.len() == self.taken && self.held_back.is_none();
        while is_idle && next == self.next_ordinal {
            let Some(place) = self.places.last() else { break };
            if place.column.first_ordinal != next || place.end() > end || place.column.has_extras {
                break;
            }
            match reader.read_onto(place, points) {
                Ok(_) => next = place.end(),
                Err(Error::Corrupt { .. } | Error::TornTail { .. }) if self.holes_allowed => break,
                Err(error) => return Err(error),
            }
            self.next_ordinal = next;
            self.places.pop();
        }
        Ok(next)
    }

    /// The next column without what was given out before.
    fn next_column(&mut self, reader: &mut ColumnReader) -> Result<Option<DecodedColumn>> {
        if let Some(column) = self.held_back.take() {
            return Ok(Some(column));
        }
        while let Some(place) = self.places.pop() {
            if place.end() <= self.next_ordinal {
                continue;
            }
            let mut column = match reader.read(&place) {
                Err(Error::Corrupt { .. } | Error::TornTail { .. }) if self.holes_allowed => {
                    place.segment.pass_over(place.frame.offset);
                    continue;
                }
                column => column?,
            };
            let known = self.next_ordinal.saturating_sub(column.first_ordinal);
            column.drop_front(usize::try_from(known).unwrap_or(usize::MAX));
            self.next_ordinal = column.first_ordinal + column.values.len() as u64;
            return Ok(Some(column));
        }
        let Some(mut last) = self.last.take() else { return Ok(None) };
        let known = self.next_ordinal.saturating_sub(last.first_ordinal);
        last.drop_front(usize::try_from(known).unwrap_or(usize::MAX));
        self.next_ordinal = self.next_ordinal.max(last.first_ordinal + last.values.len() as u64);
        Ok((!last.values.is_empty()).then_some(last))
    }
}

fn same_kinds(a: &[Extra], b: &[Extra]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.kind == b.kind)
}

impl DecodedColumn {
    /// Drops the first `count` points.
    pub(crate) fn drop_front(&mut self, count: usize) {
        let count = count.min(self.values.len());
        self.first_ordinal += count as u64;
        self.steps.drain(..count);
        self.timestamps_ms.drain(..count);
        self.values.drain(..count);
        for extra in &mut self.extras {
            extra.indices.drain(..count.min(extra.indices.len()));
        }
    }

    /// A copy of some of the points.
    pub(crate) fn slice(&self, from: usize, len: usize) -> Self {
        let part = |column: &[i64]| column.iter().skip(from).take(len).copied().collect();
        Self {
            first_ordinal: self.first_ordinal + from as u64,
            steps: part(&self.steps),
            timestamps_ms: part(&self.timestamps_ms),
            values: self.values.iter().skip(from).take(len).copied().collect(),
            extras: self.extras.iter().map(|extra| joined(extra.kind, &[(extra, from, len)])).collect(),
        }
    }

    /// Appends the points of a column with the same kinds of extra columns.
    fn append(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.timestamps_ms.extend(other.timestamps_ms);
        self.values.extend(other.values);
        for (mine, theirs) in self.extras.iter_mut().zip(other.extras) {
            let (ours, added) = (mine.indices.len(), theirs.indices.len());
            *mine = joined(mine.kind, &[(mine, 0, ours), (&theirs, 0, added)]);
        }
    }
}

/// Parts of extra columns put together: (column, first point, points) each. The dictionary holds what the points use
/// and nothing else, as the codec wants it.
fn joined(kind: u8, parts: &[(&Extra, usize, usize)]) -> Extra {
    let mut extra = Extra { kind, dictionary: Vec::new(), indices: Vec::new() };
    let mut places = HashMap::new();
    for (part, from, len) in parts {
        for point in *from..from + len {
            let value = part.get(point);
            let place = match places.get(value) {
                Some(place) => *place,
                None => {
                    let place = extra.dictionary.len() as u32;
                    extra.dictionary.push(value.to_vec());
                    places.insert(value.to_vec(), place);
                    place
                }
            };
            extra.indices.push(place);
        }
    }
    extra
}
