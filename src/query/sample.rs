//! A series as a chart shows it: a few numbers for each column of pixels, and no spike lost.
//!
//! Contract: every point is in exactly one [`Sample`], and its value within the sample's `min` and `max`. Summaries of
//! stored columns are used where such a column lies in one column of the chart, or in two that are neighbours; so
//! samples of millions of points read none of them, and where the border between two samples lies may be off by a
//! stored column (4096 points).

use crate::codec::summary::Summary;
use crate::error::{Error, Result};
use crate::limits::{COLUMN_POINTS_MAX, SAMPLE_COLUMNS_MAX};
use crate::log::{ColumnReader, DecodedColumn};
use crate::model::Point;
use crate::query::history::PointFilter;
use crate::query::snapshot::OriginParts;
use crate::query::walk::{Piece, Walk};

/// The points of one column of a chart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Points.
    pub count: u64,
    /// Those that are NaN.
    pub nan_count: u64,
    /// The first one logged; of several writers that with the least step.
    pub first: Point,
    /// The last one logged; of several writers that with the greatest step.
    pub last: Point,
    /// Least value; none if all are NaN.
    pub min: Option<f64>,
    /// Greatest value; none if all are NaN.
    pub max: Option<f64>,
    /// Least step.
    pub step_min: i64,
    /// Greatest step.
    pub step_max: i64,
}

impl Sample {
    fn of(summary: &Summary) -> Self {
        Self {
            count: summary.count,
            nan_count: summary.nan_count,
            first: summary.first,
            last: summary.last,
            min: summary.min,
            max: summary.max,
            step_min: summary.step_min,
            step_max: summary.step_max,
        }
    }
}

/// The columns of a chart over steps from `low` to `high`, both included.
struct Axis {
    low: i64,
    high: i64,
    columns: usize,
}

impl Axis {
    fn span(&self) -> i128 {
        i128::from(self.high) - i128::from(self.low) + 1
    }

    /// The column of a step that is between the ends.
    fn column(&self, step: i64) -> usize {
        let at = (i128::from(step) - i128::from(self.low)) * self.columns as i128 / self.span();
        usize::try_from(at).unwrap_or(0).min(self.columns - 1)
    }

    /// The last step of a column.
    fn last_step(&self, column: usize) -> i64 {
        let next = ((column as i128 + 1) * self.span()).div_euclid(self.columns as i128);
        let exact = (column as i128 + 1) * self.span() % self.columns as i128 == 0;
        let last = i128::from(self.low) + next - i128::from(exact);
        i64::try_from(last).unwrap_or(i64::MAX).min(self.high)
    }

    /// The column that a summary's points are put into together; none if they must be told apart.
    fn column_of(&self, summary: &Summary) -> Option<usize> {
        if summary.step_min < self.low || summary.step_max > self.high {
            return None;
        }
        let (first, last) = (self.column(summary.step_min), self.column(summary.step_max));
        let middle = (i128::from(summary.step_min) + i128::from(summary.step_max)).div_euclid(2);
        let middle = i64::try_from(middle).unwrap_or(summary.step_min);
        // Only a stored column may lie in two: a summary of more would move the border further.
        let is_short = summary.count <= COLUMN_POINTS_MAX as u64;
        (first == last || (last - first == 1 && is_short)).then(|| self.column(middle))
    }
}

/// The samples of one origin, by column.
struct Lane<'a> {
    axis: &'a Axis,
    samples: Vec<Option<Summary>>,
}

impl Lane<'_> {
    fn add(&mut self, column: usize, summary: &Summary) {
        if let Some(sample) = self.samples.get_mut(column) {
            *sample = Some(sample.as_ref().map_or(*summary, |known| known.merge(summary)));
        }
    }

    fn add_points(&mut self, points: &DecodedColumn) {
        let mut at = 0;
        while let Some(&step) = points.steps.get(at) {
            let column = self.axis.column(step);
            let last_step = self.axis.last_step(column);
            // Steps mostly rise, so the next points belong to the same column.
            let rest = points.steps.get(at..).unwrap_or_default();
            let len = rest.iter().take_while(|&&one| one >= step && one <= last_step).count();
            let end = at + len;
            let steps = points.steps.get(at..end).unwrap_or_default();
            let timestamps_ms = points.timestamps_ms.get(at..end).unwrap_or_default();
            let values = points.values.get(at..end).unwrap_or_default();
            if let Some(summary) = Summary::of(steps, timestamps_ms, values) {
                self.add(column, &summary);
            }
            at = end;
        }
    }
}

/// The samples of a series; those without a point are left out. `range`: the least and
/// greatest step of all points, if there are any.
pub(crate) fn sample(
    (run, key): (&str, &str),
    origins: &[OriginParts],
    filter: &PointFilter,
    range: Option<(i64, i64)>,
    columns: usize,
    reader: &mut ColumnReader,
) -> Result<Vec<Sample>> {
    if columns == 0 || columns > SAMPLE_COLUMNS_MAX {
        let text = format!("a chart has between 1 and {SAMPLE_COLUMNS_MAX} columns, not {columns}");
        return Err(Error::invalid(text));
    }
    let Some(range) = range else { return Ok(Vec::new()) };
    let axis = Axis { low: range.0.max(filter.steps.0), high: range.1.min(filter.steps.1), columns };
    let mut all: Vec<Option<Sample>> = vec![None; columns];
    if axis.low > axis.high {
        return Ok(Vec::new());
    }
    let any_time = filter.timestamps_ms == PointFilter::default().timestamps_ms;
    for parts in origins {
        let mut lane = Lane { axis: &axis, samples: vec![None; columns] };
        let holes_allowed = reader.holes_allowed;
        let walk = Walk {
            run,
            key,
            holes_allowed,
            is_enough: &|summary| any_time && axis.column_of(summary).is_some(),
            take: &mut |piece| match piece {
                Piece::Summary(summary) => {
                    axis.column_of(&summary).into_iter().for_each(|column| lane.add(column, &summary));
                }
                Piece::Points(points) if filter.is_all() => lane.add_points(&points),
                Piece::Points(points) => lane.add_points(&filter.only(&points)),
            },
        };
        walk.run(parts, reader)?;
        for (sample, summary) in all.iter_mut().zip(&lane.samples) {
            let Some(mine) = summary.as_ref().map(Sample::of) else { continue };
            *sample = Some(sample.map_or(mine, |known| joined(&known, &mine)));
        }
    }
    Ok(all.into_iter().flatten().collect())
}

/// The points of two origins in one column.
fn joined(a: &Sample, b: &Sample) -> Sample {
    let pick = |a: Option<f64>, b: Option<f64>, best: fn(f64, f64) -> f64| match (a, b) {
        (Some(a), Some(b)) => Some(best(a, b)),
        (a, b) => a.or(b),
    };
    let moment = |point: &Point| (point.step, point.timestamp_ms);
    Sample {
        count: a.count.saturating_add(b.count),
        nan_count: a.nan_count.saturating_add(b.nan_count),
        first: if moment(&b.first) < moment(&a.first) { b.first } else { a.first },
        last: if moment(&b.last) > moment(&a.last) { b.last } else { a.last },
        min: pick(a.min, b.min, f64::min),
        max: pick(a.max, b.max, f64::max),
        step_min: a.step_min.min(b.step_min),
        step_max: a.step_max.max(b.step_max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn columns_cover_all_steps_and_none_twice(
            low in any::<i64>(), len in 0u64..5_000, columns in 1usize..40, wide in any::<bool>(),
        ) {
            let high = if wide { i64::MAX } else { low.saturating_add(len as i64) };
            let axis = Axis { low, high, columns };
            prop_assert_eq!(axis.column(low), 0);
            prop_assert!(axis.column(high) < columns);
            let mut from = low;
            for column in 0..columns {
                let last = axis.last_step(column);
                // With fewer steps than columns some have none.
                if last < from {
                    continue;
                }
                prop_assert_eq!((axis.column(from), axis.column(last)), (column, column));
                if last == high {
                    from = high;
                    break;
                }
                from = last + 1;
            }
            prop_assert_eq!(from, high);
        }
    }
}
