//! The points of one series in their order.
//!
//! Contract: each point once. Within an origin the order is the order of logging; between origins the order is
//! (greatest timestamp so far within the origin, origin, ordinal), a total order that does not depend on where points
//! are stored, so it is the same before and after sealing, compaction, merging and loss of the index. A page token
//! names where each origin goes on and where it ended at the first page, so later arrivals never move a page.

use std::ops::{Bound, RangeBounds};

use crate::codec::bytes::{Reader, put_varint};
use crate::codec::extra::Extra;
use crate::error::{Error, Result};
use crate::id::{Origin, Uid};
use crate::log::{ColumnReader, DecodedColumn, OriginStream};
use crate::model::{Point, Points};
use crate::query::snapshot::OriginParts;

/// Points read from one origin at a time.
const CHUNK_POINTS: usize = 4096;
/// Points that room is made for before they are read: 24 MiB.
const RESERVED_POINTS_MAX: usize = 1 << 20;
/// Version of the tokens.
const TOKEN_VERSION: u8 = 2;
/// Origins that a token can name; more than a run ever has.
const TOKEN_ORIGINS_MAX: usize = 4096;

/// Which points are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointFilter {
    /// Steps, both ends included.
    pub steps: (i64, i64),
    /// Timestamps in milliseconds, both ends included.
    pub timestamps_ms: (i64, i64),
}

impl Default for PointFilter {
    fn default() -> Self {
        Self { steps: (i64::MIN, i64::MAX), timestamps_ms: (i64::MIN, i64::MAX) }
    }
}

/// Both ends of a range of integers, included; `None` if it is empty.
pub(crate) fn inclusive(range: &impl RangeBounds<i64>) -> Option<(i64, i64)> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.checked_add(1)?,
        Bound::Unbounded => i64::MIN,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end,
        Bound::Excluded(&end) => end.checked_sub(1)?,
        Bound::Unbounded => i64::MAX,
    };
    (start <= end).then_some((start, end))
}

impl PointFilter {
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Those points of a column that are wanted.
    pub(crate) fn only(&self, column: &DecodedColumn) -> DecodedColumn {
        let mut wanted = DecodedColumn { first_ordinal: column.first_ordinal, ..DecodedColumn::default() };
        for ((&step, &timestamp_ms), &value) in
            column.steps.iter().zip(&column.timestamps_ms).zip(&column.values)
        {
            if self.takes(&Point { step, timestamp_ms, value }) {
                wanted.steps.push(step);
                wanted.timestamps_ms.push(timestamp_ms);
                wanted.values.push(value);
            }
        }
        wanted
    }

    fn takes(&self, point: &Point) -> bool {
        (self.steps.0..=self.steps.1).contains(&point.step)
            && (self.timestamps_ms.0..=self.timestamps_ms.1).contains(&point.timestamp_ms)
    }
}

/// Where one origin stands in a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    origin: Origin,
    next: u64,
    end: u64,
    /// Greatest timestamp given out so far.
    timestamp_max: i64,
}

/// A position in a history, for the next page.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct HistoryToken(Vec<Place>);

impl HistoryToken {
    /// Opaque text, for this run and key only.
    pub(crate) fn encode(&self, run: Uid, key: &str) -> String {
        let mut out = vec![TOKEN_VERSION];
        out.extend_from_slice(&series_mark(run, key));
        put_varint(&mut out, self.0.len() as u64);
        for place in &self.0 {
            out.extend_from_slice(place.origin.as_bytes());
            put_varint(&mut out, place.next);
            put_varint(&mut out, place.end);
            out.extend_from_slice(&place.timestamp_max.to_le_bytes());
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Reads the token of a page of this run and key; anything else is an error of the caller.
    pub(crate) fn decode(text: &str, run: Uid, key: &str) -> Result<Self> {
        let (mark, token) = Self::parse(text).ok_or_else(|| {
            Error::invalid("the page token is not one of this program: start again without one")
        })?;
        if mark != series_mark(run, key) {
            let text = format!("the page token is of another run or metric than '{key}' in run {run}");
            return Err(Error::invalid(text));
        }
        Ok(token)
    }

    fn parse(text: &str) -> Option<([u8; 8], Self)> {
        if !text.len().is_multiple_of(2) || !text.is_ascii() {
            return None;
        }
        let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let bytes: Vec<u8> = (0..text.len()).step_by(2).map(pair).collect::<Option<_>>()?;
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut cursor = Reader::new(body);
        if cursor.u8().ok()? != TOKEN_VERSION {
            return None;
        }
        let mark = cursor.array().ok()?;
        let count = cursor.count(TOKEN_ORIGINS_MAX, "origins").ok()?;
        let place = |cursor: &mut Reader<'_>| {
            Some(Place {
                origin: Origin::from_bytes(cursor.array().ok()?),
                next: cursor.varint().ok()?,
                end: cursor.varint().ok()?,
                timestamp_max: i64::from_le_bytes(cursor.array().ok()?),
            })
        };
        let places = (0..count).map(|_| place(&mut cursor)).collect::<Option<_>>()?;
        Some((mark, Self(places)))
    }
}

/// What tells the tokens of two series apart.
fn series_mark(run: Uid, key: &str) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(run.as_bytes()).update(key.as_bytes());
    let mut mark = [0; 8];
    hasher.finalize_xof().fill(&mut mark);
    mark
}

/// A merge of origins.
pub(crate) struct HistoryStream {
    reader: ColumnReader,
    lanes: Vec<Lane>,
    gaps_allowed: bool,
    run: String,
    key: String,
}

struct Lane {
    place: Place,
    stream: OriginStream,
    ready: DecodedColumn,
    at: usize,
}

impl HistoryStream {
    /// A merge of these origins from the beginning, or from where a token stands.
    pub(crate) fn new(
        run: &str,
        key: &str,
        origins: &[OriginParts],
        token: Option<&HistoryToken>,
        gaps_allowed: bool,
    ) -> Result<Self> {
        let mut reader = ColumnReader::default();
        reader.holes_allowed = gaps_allowed;
        let mut lanes = Vec::new();
        for parts in origins {
            let first = Place { origin: parts.origin, next: 0, end: parts.end(), timestamp_max: i64::MIN };
            let place = match token {
                None => first,
                // An origin that came later is not part of the pages that were begun before it.
                Some(token) => match token.0.iter().find(|p| p.origin == parts.origin) {
                    Some(place) => *place,
                    None => continue,
                },
            };
            if place.next < place.end {
                let stream = parts.stream(&mut reader, place.next..place.end)?.allow_holes(gaps_allowed);
                lanes.push(Lane { place, stream, ready: DecodedColumn::default(), at: 0 });
            }
        }
        Ok(Self { reader, lanes, gaps_allowed, run: run.into(), key: key.into() })
    }

    /// Where the next page goes on; `None` at the end.
    pub(crate) fn token(&self) -> Option<HistoryToken> {
        let open: Vec<Place> = self.lanes.iter().map(|l| l.place).filter(|p| p.next < p.end).collect();
        (!open.is_empty()).then_some(HistoryToken(open))
    }

    fn fill(&mut self, index: usize) -> Result<bool> {
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(false) };
        if lane.at < lane.ready.values.len() {
            return Ok(true);
        }
        if lane.place.next >= lane.place.end {
            return Ok(false);
        }
        let left = usize::try_from(lane.place.end - lane.place.next).unwrap_or(usize::MAX);
        let next = lane.stream.next(&mut self.reader, CHUNK_POINTS.min(left))?;
        let Some(next) = next.filter(|c| c.first_ordinal < lane.place.end) else {
            if !self.gaps_allowed {
                return Err(gap(&self.run, &self.key, lane.place.next, lane.place.end));
            }
            lane.place.next = lane.place.end;
            return Ok(false);
        };
        if next.first_ordinal != lane.place.next {
            if !self.gaps_allowed {
                return Err(gap(&self.run, &self.key, lane.place.next, next.first_ordinal));
            }
            lane.place.next = next.first_ordinal;
        }
        let within = usize::try_from(lane.place.end - next.first_ordinal).unwrap_or(usize::MAX);
        lane.ready = if next.values.len() > within { next.slice(0, within) } else { next };
        lane.at = 0;
        Ok(true)
    }

    /// Gives at most `max` points that pass the filter to `take`, which also gets the extra columns and the point's
    /// place in them. Returns whether there may be more.
    pub(crate) fn next_points(
        &mut self,
        filter: &PointFilter,
        max: usize,
        take: &mut dyn FnMut(Point, &[Extra], usize),
    ) -> Result<bool> {
        let mut left = max;
        loop {
            // The lane with the smallest key is next; there is one lane most of the time.
            let mut best: Option<(i64, Origin, usize)> = None;
            for index in 0..self.lanes.len() {
                if !self.fill(index)? {
                    continue;
                }
                let Some(lane) = self.lanes.get(index) else { continue };
                let timestamp = lane.ready.timestamps_ms.get(lane.at).copied().unwrap_or(i64::MIN);
                let key = (timestamp.max(lane.place.timestamp_max), lane.place.origin, index);
                if best.is_none_or(|b| key < b) {
                    best = Some(key);
                }
            }
            let Some((_, _, index)) = best else { return Ok(false) };
            if left == 0 {
                return Ok(true);
            }
            let single = self.lanes.len() == 1;
            let Some(lane) = self.lanes.get_mut(index) else { return Ok(false) };
            loop {
                let point = Point {
                    step: lane.ready.steps.get(lane.at).copied().unwrap_or_default(),
                    timestamp_ms: lane.ready.timestamps_ms.get(lane.at).copied().unwrap_or_default(),
                    value: lane.ready.values.get(lane.at).copied().unwrap_or_default(),
                };
                if filter.takes(&point) {
                    take(point, &lane.ready.extras, lane.at);
                    left -= 1;
                }
                lane.place.timestamp_max = lane.place.timestamp_max.max(point.timestamp_ms);
                lane.place.next += 1;
                lane.at += 1;
                if !single || left == 0 || lane.at == lane.ready.values.len() {
                    break;
                }
            }
        }
    }

    /// All points at once, as columns; whole columns are copied where there is one origin and no filter.
    pub(crate) fn collect(mut self, filter: &PointFilter) -> Result<Points> {
        let mut points = Points::default();
        if self.lanes.len() == 1 && filter.is_all() {
            // Pages that are touched once; a directory may claim anything, so there is a bound.
            let claimed = self.lanes.first().map_or(0, |lane| lane.place.end - lane.place.next);
            let expected = usize::try_from(claimed).unwrap_or(usize::MAX).min(RESERVED_POINTS_MAX);
            points.steps.reserve_exact(expected);
            points.timestamps_ms.reserve_exact(expected);
            points.values.reserve_exact(expected);
            while self.fill(0)? {
                let Some(lane) = self.lanes.first_mut() else { break };
                points.steps.extend_from_slice(lane.ready.steps.get(lane.at..).unwrap_or_default());
                points
                    .timestamps_ms
                    .extend_from_slice(lane.ready.timestamps_ms.get(lane.at..).unwrap_or_default());
                points.values.extend_from_slice(lane.ready.values.get(lane.at..).unwrap_or_default());
                lane.place.next += (lane.ready.values.len() - lane.at) as u64;
                lane.at = lane.ready.values.len();
            }
            return Ok(points);
        }
        while self.next_points(filter, CHUNK_POINTS, &mut |p, _, _| points.push(p))? {}
        Ok(points)
    }
}

fn gap(run: &str, key: &str, first: u64, next: u64) -> Error {
    Error::Gap { run: run.into(), key: key.into(), first, next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_become_inclusive() {
        assert_eq!(inclusive(&(3..7)), Some((3, 6)));
        assert_eq!(inclusive(&(3..=7)), Some((3, 7)));
        assert_eq!(inclusive(&(..)), Some((i64::MIN, i64::MAX)));
        assert_eq!(inclusive(&(7..7)), None);
        assert_eq!(inclusive(&(..i64::MIN)), None);
    }

    proptest! {
        #[test]
        fn tokens_round_trip_and_garbage_is_refused(
            places in proptest::collection::vec((any::<[u8; 16]>(), any::<u64>(), any::<u64>(), any::<i64>()), 0..5),
            garbage in ".{0,60}",
            key in ".{0,20}",
            other in ".{0,20}",
        ) {
            let (run, other_run) = (Uid::from_bytes([1; 16]), Uid::from_bytes([2; 16]));
            let places = places.into_iter().map(|(origin, next, end, timestamp_max)| Place {
                origin: Origin::from_bytes(origin), next, end, timestamp_max,
            });
            let token = HistoryToken(places.collect());
            let text = token.encode(run, &key);
            prop_assert!(HistoryToken::decode(&text, other_run, &key).is_err());
            prop_assert_eq!(HistoryToken::decode(&text, run, &other).is_ok(), key == other);
            prop_assert_eq!(HistoryToken::decode(&text, run, &key).unwrap(), token);
            prop_assert!(HistoryToken::decode(&garbage, run, &key).is_err());
        }
    }
}
