//! Axes: the steps and timestamps that the series logged together share.
//!
//! Contract: any i64 columns come back. An axis is `ICOL steps | ICOL timestamps`; an ICOL is an INT column (see
//! [`int`]) whose first byte carries `OWNER_FLAG` when it holds the difference to the batch's first axis, which must
//! then be of the same length.

use super::bytes::Reader;
use super::int::{self, OWNER_FLAG, WidePlanner};
use crate::error::Malformed;

/// Steps and timestamps of equal length.
#[derive(Clone, Copy, Debug)]
pub struct Axis<'a> {
    /// Steps; may be negative, may repeat.
    pub steps: &'a [i64],
    /// Milliseconds since 1970.
    pub timestamps_ms: &'a [i64],
}

/// Working space; reuse it, then neither direction allocates.
#[derive(Debug, Default)]
pub struct Scratch {
    difference: Vec<i64>,
    own: WidePlanner,
    relative: WidePlanner,
}

/// Appends an axis, relative to `first` where that is smaller; returns whether it refers to `first` at all.
pub fn encode(axis: Axis<'_>, first: Option<Axis<'_>>, scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
    let steps = encode_column(axis.steps, first.map(|f| f.steps), scratch, out);
    let timestamps = encode_column(axis.timestamps_ms, first.map(|f| f.timestamps_ms), scratch, out);
    steps || timestamps
}

fn encode_column(values: &[i64], first: Option<&[i64]>, s: &mut Scratch, out: &mut Vec<u8>) -> bool {
    let own = s.own.plan(values);
    if let Some(first) = first.filter(|f| f.len() == values.len())
        && own > 8
    {
        s.difference.clear();
        s.difference.extend(values.iter().zip(first).map(|(v, f)| v.wrapping_sub(*f)));
        if s.relative.plan(&s.difference) < own {
            s.relative.write(OWNER_FLAG, out);
            return true;
        }
    }
    s.own.write(0, out);
    false
}

/// Reads an axis of `steps.len()` points from exactly `bytes`; `first` is the batch's first axis, if it is at hand.
///
/// # Errors
/// When the bytes are not such an axis, or refer to a first axis that is missing or of another length.
pub fn decode(
    bytes: &[u8],
    first: Option<Axis<'_>>,
    steps: &mut [i64],
    timestamps_ms: &mut [i64],
) -> Result<(), Malformed> {
    let mut reader = Reader::new(bytes);
    decode_column(&mut reader, first.map(|f| f.steps), steps)?;
    decode_column(&mut reader, first.map(|f| f.timestamps_ms), timestamps_ms)?;
    reader.finish()
}

fn decode_column(reader: &mut Reader<'_>, first: Option<&[i64]>, out: &mut [i64]) -> Result<(), Malformed> {
    let relative = reader.rest().first().is_some_and(|head| head & OWNER_FLAG != 0);
    int::decode(reader, out)?;
    if relative {
        let Some(first) = first.filter(|f| f.len() == out.len()) else {
            return Err(reader.malformed("a first axis of the same length", out.len() as u64));
        };
        for (value, first) in out.iter_mut().zip(first) {
            *value = value.wrapping_add(*first);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roundtrip(axis: Axis<'_>, first: Option<Axis<'_>>) -> (usize, bool) {
        let mut out = Vec::new();
        let refers = encode(axis, first, &mut Scratch::default(), &mut out);
        let (mut steps, mut times) = (vec![0; axis.steps.len()], vec![0; axis.steps.len()]);
        decode(&out, first, &mut steps, &mut times).unwrap();
        assert_eq!((steps.as_slice(), times.as_slice()), (axis.steps, axis.timestamps_ms));
        (out.len(), refers)
    }

    #[test]
    fn a_series_logged_a_moment_later_refers_to_the_first() {
        let steps: Vec<i64> = (0..1024).collect();
        let times: Vec<i64> = (0..1024i64).map(|i| 1_700_000_000_000 + i * 250 + i * i * 7919 % 97).collect();
        let later: Vec<i64> = times.iter().map(|t| t + (t % 7 == 0) as i64).collect();
        let first = Axis { steps: &steps, timestamps_ms: &times };
        let (alone, _) = roundtrip(first, None);
        let (relative, refers) = roundtrip(Axis { steps: &steps, timestamps_ms: &later }, Some(first));
        assert!(refers && relative * 4 < alone, "{relative} {alone}");
    }

    #[test]
    fn without_its_first_axis_a_relative_one_is_damage_not_a_wrong_number() {
        let first: Vec<i64> = (0..200i64).map(|i| i * i * i % 1009 * 1_000_003).collect();
        let axis: Vec<i64> = first.iter().map(|v| v + 1).collect();
        let refer = Axis { steps: &first, timestamps_ms: &first };
        let mut out = Vec::new();
        assert!(encode(
            Axis { steps: &axis, timestamps_ms: &axis },
            Some(refer),
            &mut Scratch::default(),
            &mut out
        ));
        let (mut a, mut b) = (vec![0; 200], vec![0; 200]);
        assert!(decode(&out, None, &mut a, &mut b).is_err());
        let short = Axis { steps: &first[1..], timestamps_ms: &first[1..] };
        assert!(decode(&out, Some(short), &mut a, &mut b).is_err());
    }
}
