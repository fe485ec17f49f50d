//! Thinning out a history: points that show it, each as it was logged.
//!
//! Contract: of any number of points at most a given number is kept, in memory for that number only; among them are the
//! first and the last by (step, timestamp), and the least and the greatest value of every interval, so that no spike
//! vanishes. Intervals have equally many points, in the order of the history. NaN is kept where an interval has nothing
//! else. What is kept is ordered by (step, timestamp). (Where numbers will do in place of points, `sample` is faster.)

use crate::model::{Point, Points};

/// A point and where it stands in the history.
type Placed = (u64, Point);

/// Least and greatest value of an interval.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    min: Placed,
    max: Placed,
}

/// Takes points one after the other.
#[derive(Debug)]
pub(crate) struct Thinner {
    points: u64,
    max: usize,
    seen: u64,
    first: Option<Placed>,
    last: Option<Placed>,
    /// All points where they fit, else extremes.
    whole: Vec<Placed>,
    intervals: Vec<Option<Extremes>>,
}

impl Thinner {
    /// For a history of so many points, of which at most `max` are kept.
    pub(crate) fn new(points: u64, max: usize) -> Self {
        let fits = usize::try_from(points).is_ok_and(|points| points <= max);
        let intervals = if fits { 0 } else { max.saturating_sub(2) / 2 };
        Self {
            points,
            max,
            seen: 0,
            first: None,
            last: None,
            whole: Vec::new(),
            intervals: vec![None; intervals],
        }
    }

    fn fits(&self) -> bool {
        usize::try_from(self.points).is_ok_and(|points| points <= self.max)
    }

    /// The next point of the history.
    pub(crate) fn add(&mut self, point: Point) {
        let at = self.seen;
        self.seen += 1;
        if self.fits() {
            if self.whole.len() < self.max {
                self.whole.push((at, point));
            }
            return;
        }
        let place = |placed: &Placed| (placed.1.step, placed.1.timestamp_ms, placed.0);
        let this = (at, point);
        if self.first.as_ref().is_none_or(|first| place(&this) < place(first)) {
            self.first = Some(this);
        }
        if self.last.as_ref().is_none_or(|last| place(&this) > place(last)) {
            self.last = Some(this);
        }
        let interval = u128::from(at) * self.intervals.len() as u128 / u128::from(self.points.max(1));
        let Some(slot) = self.intervals.get_mut(usize::try_from(interval).unwrap_or(usize::MAX)) else {
            return;
        };
        match slot {
            None => *slot = Some(Extremes { min: this, max: this }),
            Some(known) => {
                // A NaN gives way to any number, and never replaces one.
                if point.value < known.min.1.value || known.min.1.value.is_nan() {
                    known.min = this;
                }
                if point.value > known.max.1.value || known.max.1.value.is_nan() {
                    known.max = this;
                }
            }
        }
    }

    /// What was kept.
    pub(crate) fn finish(self) -> Points {
        let mut kept = self.whole;
        match self.max {
            0 => {}
            1 => kept.extend(self.last),
            _ => kept.extend(self.first.into_iter().chain(self.last)),
        }
        kept.extend(self.intervals.into_iter().flatten().flat_map(|extremes| [extremes.min, extremes.max]));
        kept.sort_unstable_by_key(|(at, point)| (point.step, point.timestamp_ms, *at));
        kept.dedup_by_key(|(at, _)| *at);
        kept.into_iter().map(|(_, point)| point).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn thinned(points: &[Point], max: usize) -> Vec<Point> {
        let mut thinner = Thinner::new(points.len() as u64, max);
        points.iter().for_each(|point| thinner.add(*point));
        thinner.finish().iter().collect()
    }

    fn series(values: &[f64]) -> Vec<Point> {
        let point = |(step, value): (i64, &f64)| Point { step, timestamp_ms: 1_000 + step, value: *value };
        (0..).zip(values).map(point).collect()
    }

    #[test]
    fn a_spike_among_many_points_is_kept() {
        let mut values = vec![0.5; 20_000];
        values[13_337] = 900.0;
        values[3] = -7.0;
        let kept = thinned(&series(&values), 320);
        assert!(kept.len() <= 320);
        let steps: Vec<i64> = kept.iter().map(|point| point.step).collect();
        for step in [0, 3, 13_337, 19_999] {
            assert!(steps.contains(&step), "{step}");
        }
        assert!(steps.is_sorted());
    }

    #[test]
    fn few_points_are_all_kept_and_one_is_the_last() {
        let points = series(&[1.0, f64::NAN, 3.0]);
        assert_eq!(thinned(&points, 3).len(), 3);
        assert_eq!(thinned(&points, 1), [points[2]]);
        assert_eq!(thinned(&points, 2), [points[0], points[2]]);
        assert_eq!(thinned(&[], 5), []);
    }

    proptest! {
        #[test]
        fn extremes_and_ends_are_always_there(
            values in prop::collection::vec(prop_oneof![any::<f64>(), Just(f64::NAN), -5.0..5.0], 1..400),
            steps in prop::collection::vec(-9i64..9, 400),
            max in 4usize..40,
        ) {
            let points: Vec<Point> = values
                .iter()
                .zip(&steps)
                .map(|(value, step)| Point { step: *step, timestamp_ms: 5, value: *value })
                .collect();
            let kept = thinned(&points, max);
            prop_assert!(kept.len() <= max);
            prop_assert!(kept.is_sorted_by_key(|point| point.step));
            let numbers = || points.iter().map(|point| point.value).filter(|value| !value.is_nan());
            for extreme in [numbers().reduce(f64::min), numbers().reduce(f64::max)].into_iter().flatten() {
                prop_assert!(kept.iter().any(|point| point.value == extreme), "{extreme}");
            }
            let ends = [points.iter().map(|p| p.step).min(), points.iter().map(|p| p.step).max()];
            prop_assert_eq!([kept.first().map(|p| p.step), kept.last().map(|p| p.step)], ends);
        }
    }
}
