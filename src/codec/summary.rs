//! What a directory says of a column, so that most questions need no decoding.
//!
//! Contract: a summary of two columns merged in order equals the summary of the joined column, except that `sum` may
//! differ in its last places. NaN values count, but are not in `min`, `max` and `sum`. Layout:
//!
//! ```text
//! varint count | u8 flags | u8 sources | [varint NaN count]
//! zigzag first step | zigzag last step - first step | zigzag first timestamp | zigzag last - first timestamp
//! [zigzag least - first step, zigzag greatest - first step] | [zigzag greatest - first timestamp]
//! first value, last value, [min], [max]: f32 if flag 1, else f64 | sum: f32 if flag 2, else f64
//! [latest: zigzag step - first step, zigzag timestamp - first timestamp, f64] | [rival: f64]
//! ```

use super::bytes::{Reader, put_varint, put_zigzag};
use crate::error::Malformed;
use crate::model::Point;

const VALUES_F32: u8 = 0x01;
const SUM_F32: u8 = 0x02;
const HAS_NAN: u8 = 0x04;
const HAS_STEP_RANGE: u8 = 0x08;
const HAS_TIMESTAMP: u8 = 0x10;
const HAS_LATEST: u8 = 0x20;
const HAS_RIVAL: u8 = 0x40;
/// Where `min` (low two bits) and `max` (next two) come from.
const GIVEN: u8 = 0;
const FIRST: u8 = 1;
const LAST: u8 = 2;
const ABSENT: u8 = 3;

/// Facts about a column of at least one point, in the order it was logged.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Points.
    pub count: u64,
    /// The first one logged.
    pub first: Point,
    /// The last one logged.
    pub last: Point,
    /// The one MLflow calls latest: greatest (step, timestamp, value). NaN compares false both ways, so it stays only
    /// if it was the first with that step and timestamp.
    pub latest: Point,
    /// When `latest` is NaN: the greatest other value at its step and timestamp, which wins if an earlier column has a
    /// number there.
    pub rival: Option<f64>,
    /// Least value; none if all are NaN.
    pub min: Option<f64>,
    /// Greatest value; none if all are NaN.
    pub max: Option<f64>,
    /// Sum of the values that are not NaN.
    pub sum: f64,
    /// NaN values.
    pub nan_count: u64,
    /// Least step.
    pub step_min: i64,
    /// Greatest step.
    pub step_max: i64,
    /// Greatest timestamp.
    pub timestamp_max: i64,
}

impl PartialEq for Summary {
    /// Bit for bit, so that NaN equals itself.
    fn eq(&self, other: &Self) -> bool {
        let bits = |v: Option<f64>| v.map(f64::to_bits);
        self.count == other.count
            && same(&self.first, &other.first)
            && same(&self.last, &other.last)
            && same(&self.latest, &other.latest)
            && bits(self.rival) == bits(other.rival)
            && bits(self.min) == bits(other.min)
            && bits(self.max) == bits(other.max)
            && self.sum.to_bits() == other.sum.to_bits()
            && self.nan_count == other.nan_count
            && (self.step_min, self.step_max) == (other.step_min, other.step_max)
            && self.timestamp_max == other.timestamp_max
    }
}

fn same(a: &Point, b: &Point) -> bool {
    (a.step, a.timestamp_ms, a.value.to_bits()) == (b.step, b.timestamp_ms, b.value.to_bits())
}

impl Summary {
    /// The summary of one point.
    pub fn of_point(point: Point) -> Self {
        let number = (!point.value.is_nan()).then_some(point.value);
        Self {
            count: 1,
            first: point,
            last: point,
            latest: point,
            rival: None,
            min: number,
            max: number,
            sum: number.unwrap_or(0.0),
            nan_count: u64::from(number.is_none()),
            step_min: point.step,
            step_max: point.step,
            timestamp_max: point.timestamp_ms,
        }
    }

    /// The summary of columns of equal length; none if there is no point.
    pub fn of(steps: &[i64], timestamps_ms: &[i64], values: &[f64]) -> Option<Self> {
        let points = || {
            let columns = steps.iter().zip(timestamps_ms).zip(values);
            columns.map(|((&step, &timestamp_ms), &value)| Point { step, timestamp_ms, value })
        };
        let mut summary = Self::of_point(points().next()?);
        summary.last =
            Point { step: *steps.last()?, timestamp_ms: *timestamps_ms.last()?, value: *values.last()? };
        summary.count = values.len() as u64;
        // A loop for each fact: all but the sum, whose order counts, become vector instructions.
        summary.nan_count = values.iter().map(|v| u64::from(v.is_nan())).sum();
        summary.sum = values.iter().fold(0.0, |sum, v| sum + if v.is_nan() { 0.0 } else { *v });
        // NaN fails each comparison, so it changes neither end.
        let min = values.iter().fold(f64::INFINITY, |min, &v| if v < min { v } else { min });
        let max = values.iter().fold(f64::NEG_INFINITY, |max, &v| if v > max { v } else { max });
        let numbers = summary.nan_count < summary.count;
        (summary.min, summary.max) = (numbers.then_some(min), numbers.then_some(max));
        summary.step_min = steps.iter().copied().fold(i64::MAX, i64::min);
        summary.step_max = steps.iter().copied().fold(i64::MIN, i64::max);
        summary.timestamp_max = timestamps_ms.iter().copied().fold(i64::MIN, i64::max);
        // Only points with the greatest step can be the latest; mostly that is one.
        let step_max = summary.step_max;
        let timestamp_ms = points().filter(|p| p.step == step_max).map(|p| p.timestamp_ms).max()?;
        let mut candidates = points().filter(|p| p.step == step_max && p.timestamp_ms == timestamp_ms);
        summary.latest = candidates.next()?;
        candidates.for_each(|point| summary.offer(point, None));
        Some(summary)
    }

    /// Takes a later candidate for `latest` into account.
    fn offer(&mut self, point: Point, rival: Option<f64>) {
        let (mine, theirs) = ((self.latest.step, self.latest.timestamp_ms), (point.step, point.timestamp_ms));
        if theirs > mine {
            (self.latest, self.rival) = (point, rival);
        } else if theirs == mine {
            let best = if point.value.is_nan() { rival } else { Some(point.value) };
            let Some(best) = best else { return };
            if !self.latest.value.is_nan() {
                if best > self.latest.value {
                    self.latest.value = best;
                }
            } else if self.rival.is_none_or(|r| best > r) {
                self.rival = Some(best);
            }
        }
    }

    /// The summary of this column followed by a later one.
    pub fn merge(&self, later: &Self) -> Self {
        let mut merged = *self;
        merged.offer(later.latest, later.rival);
        merged.count = self.count.saturating_add(later.count);
        merged.nan_count = self.nan_count.saturating_add(later.nan_count);
        merged.last = later.last;
        merged.sum += later.sum;
        merged.step_min = self.step_min.min(later.step_min);
        merged.step_max = self.step_max.max(later.step_max);
        merged.timestamp_max = self.timestamp_max.max(later.timestamp_max);
        merged.min = pick(self.min, later.min, |mine, theirs| theirs < mine);
        merged.max = pick(self.max, later.max, |mine, theirs| theirs > mine);
        merged
    }

    /// Appends the summary.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let source = |v: Option<f64>| match v.map(f64::to_bits) {
            None => ABSENT,
            Some(bits) if bits == self.first.value.to_bits() => FIRST,
            Some(bits) if bits == self.last.value.to_bits() => LAST,
            Some(_) => GIVEN,
        };
        let sources = source(self.min) | source(self.max) << 2;
        let given = [(self.min, sources & 3), (self.max, sources >> 2)];
        let given = given.into_iter().filter(|(_, source)| *source == GIVEN).filter_map(|(v, _)| v);
        let values = [self.first.value, self.last.value].into_iter().chain(given);

        let mut flags = 0;
        let mut set = |flag, condition| flags |= if condition { flag } else { 0 };
        set(VALUES_F32, values.clone().all(is_f32));
        set(SUM_F32, is_f32(self.sum));
        set(HAS_NAN, self.nan_count > 0);
        set(HAS_STEP_RANGE, (self.step_min, self.step_max) != (self.first.step, self.last.step));
        set(HAS_TIMESTAMP, self.timestamp_max != self.last.timestamp_ms);
        set(HAS_LATEST, !same(&self.latest, &self.last));
        set(HAS_RIVAL, self.rival.is_some());

        put_varint(out, self.count);
        out.extend([flags, sources]);
        if flags & HAS_NAN != 0 {
            put_varint(out, self.nan_count);
        }
        let step = |out: &mut Vec<u8>, v: i64| put_zigzag(out, v.wrapping_sub(self.first.step));
        let time = |out: &mut Vec<u8>, v: i64| put_zigzag(out, v.wrapping_sub(self.first.timestamp_ms));
        put_zigzag(out, self.first.step);
        step(out, self.last.step);
        put_zigzag(out, self.first.timestamp_ms);
        time(out, self.last.timestamp_ms);
        if flags & HAS_STEP_RANGE != 0 {
            step(out, self.step_min);
            step(out, self.step_max);
        }
        if flags & HAS_TIMESTAMP != 0 {
            time(out, self.timestamp_max);
        }
        values.for_each(|v| put_float(out, v, flags & VALUES_F32 != 0));
        put_float(out, self.sum, flags & SUM_F32 != 0);
        if flags & HAS_LATEST != 0 {
            step(out, self.latest.step);
            time(out, self.latest.timestamp_ms);
            put_float(out, self.latest.value, false);
        }
        if let Some(rival) = self.rival {
            put_float(out, rival, false);
        }
    }

    /// Reads a summary.
    ///
    /// # Errors
    /// When the bytes are not one.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.varint()?;
        let (flags, sources) = (reader.u8()?, reader.u8()?);
        let has = |flag| flags & flag != 0;
        if count == 0 || flags & 0x80 != 0 || sources >> 4 != 0 {
            return Err(reader.malformed("a summary of at least one point", count));
        }
        let nan_count = if has(HAS_NAN) { reader.varint()? } else { 0 };
        if nan_count > count {
            return Err(reader.malformed("at most as many NaN as points", nan_count));
        }
        let first_step = reader.zigzag()?;
        let last_step = first_step.wrapping_add(reader.zigzag()?);
        let first_time = reader.zigzag()?;
        let last_time = first_time.wrapping_add(reader.zigzag()?);
        let (mut step_min, mut step_max) = (first_step, last_step);
        if has(HAS_STEP_RANGE) {
            step_min = first_step.wrapping_add(reader.zigzag()?);
            step_max = first_step.wrapping_add(reader.zigzag()?);
        }
        let timestamp_max =
            if has(HAS_TIMESTAMP) { first_time.wrapping_add(reader.zigzag()?) } else { last_time };
        let narrow = has(VALUES_F32);
        let (first_value, last_value) = (float(reader, narrow)?, float(reader, narrow)?);
        let mut end = |source| {
            Ok(match source {
                FIRST => Some(first_value),
                LAST => Some(last_value),
                GIVEN => Some(float(reader, narrow)?),
                _ => None,
            })
        };
        let (min, max) = (end(sources & 3)?, end(sources >> 2)?);
        let sum = float(reader, has(SUM_F32))?;
        let last = Point { step: last_step, timestamp_ms: last_time, value: last_value };
        let mut latest = last;
        if has(HAS_LATEST) {
            latest.step = first_step.wrapping_add(reader.zigzag()?);
            latest.timestamp_ms = first_time.wrapping_add(reader.zigzag()?);
            latest.value = float(reader, false)?;
        }
        let rival = if has(HAS_RIVAL) { Some(float(reader, false)?) } else { None };
        let first = Point { step: first_step, timestamp_ms: first_time, value: first_value };
        Ok(Self {
            count,
            first,
            last,
            latest,
            rival,
            min,
            max,
            sum,
            nan_count,
            step_min,
            step_max,
            timestamp_max,
        })
    }
}

fn pick(mine: Option<f64>, theirs: Option<f64>, better: impl Fn(f64, f64) -> bool) -> Option<f64> {
    match (mine, theirs) {
        (Some(m), Some(t)) => Some(if better(m, t) { t } else { m }),
        (m, t) => m.or(t),
    }
}

fn is_f32(value: f64) -> bool {
    f64::from(value as f32) == value
}

fn put_float(out: &mut Vec<u8>, value: f64, narrow: bool) {
    if narrow {
        out.extend((value as f32).to_bits().to_le_bytes());
    } else {
        out.extend(value.to_bits().to_le_bytes());
    }
}

fn float(reader: &mut Reader<'_>, narrow: bool) -> Result<f64, Malformed> {
    if narrow {
        // A NaN here was not written by `encode`; whatever payload it gets, it is one.
        Ok(f64::from(f32::from_bits(reader.u32()?)))
    } else {
        reader.u64().map(f64::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points() -> impl Strategy<Value = Vec<(i64, i64, f64)>> {
        let value = prop_oneof![
            4 => (-3i32..3).prop_map(f64::from),
            1 => Just(f64::NAN),
            1 => Just(f64::from_bits(0x7ff0_0000_0000_0001)),
            1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(0.1), Just(5e-324)],
        ];
        let step = prop_oneof![8 => -3i64..4, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
        prop::collection::vec((step, -2i64..3, value), 1..40)
    }

    fn of(points: &[(i64, i64, f64)]) -> Option<Summary> {
        let steps: Vec<i64> = points.iter().map(|p| p.0).collect();
        let times: Vec<i64> = points.iter().map(|p| p.1).collect();
        let values: Vec<f64> = points.iter().map(|p| p.2).collect();
        Summary::of(&steps, &times, &values)
    }

    proptest! {
        #[test]
        fn it_comes_back_and_says_what_the_points_say(points in points()) {
            let summary = of(&points).unwrap();
            let mut out = Vec::new();
            summary.encode(&mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(Summary::decode(&mut reader), Ok(summary));
            prop_assert_eq!(reader.finish(), Ok(()));

            // MLflow's rule, as its Python tuples compare.
            let mut latest = points[0];
            for p in &points {
                if (p.0, p.1) > (latest.0, latest.1) || (p.0, p.1) == (latest.0, latest.1) && p.2 > latest.2 {
                    latest = *p;
                }
            }
            prop_assert_eq!((summary.latest.step, summary.latest.timestamp_ms), (latest.0, latest.1));
            prop_assert_eq!(summary.latest.value.to_bits(), latest.2.to_bits());
            let numbers = || points.iter().map(|p| p.2).filter(|v| !v.is_nan());
            prop_assert_eq!(summary.min, numbers().reduce(f64::min));
            prop_assert_eq!(summary.max, numbers().reduce(f64::max));
            prop_assert_eq!(summary.nan_count as usize, points.len() - numbers().count());
            prop_assert_eq!(summary.step_min, points.iter().map(|p| p.0).min().unwrap());
            prop_assert_eq!(summary.timestamp_max, points.iter().map(|p| p.1).max().unwrap());
        }

        #[test]
        fn merged_in_order_it_is_the_summary_of_all(points in points(), cut in 0usize..40) {
            let (a, b) = points.split_at(cut.min(points.len()));
            if let (Some(a), Some(b)) = (of(a), of(b)) {
                let mut merged = a.merge(&b);
                let whole = of(&points).unwrap();
                let close = merged.sum == whole.sum || (merged.sum - whole.sum).abs() < 1e-9
                    || merged.sum.is_nan() && whole.sum.is_nan();
                prop_assert!(close, "{} {}", merged.sum, whole.sum);
                merged.sum = whole.sum;
                prop_assert_eq!(merged, whole);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..90)) {
            let _ = Summary::decode(&mut Reader::new(&bytes));
        }
    }
}
