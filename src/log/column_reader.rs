//! From a place in a segment to points in memory.
//!
//! Contract: reads the head of a batch, the column and its axis, and nothing else of the batch. What is returned passed
//! the crc that starts from run and key, so a wrong address can never become a wrong number.

use std::collections::HashMap;
use std::sync::Arc;

use crate::codec::axis::Axis;
use crate::codec::extra::Extra;
use crate::error::{Error, Result};
use crate::format::batch::{self, AxisEntry, ColumnEntry, Head, Scratch};
use crate::format::directory::FrameEntry;
use crate::id::SegmentId;
use crate::log::{Segment, SeriesPart};
use crate::model::Points;

/// Heads kept while one query runs.
const HEADS_MAX: usize = 4096;
/// Batches larger than this are not read whole.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of whole batches kept while one query runs: the tail of a segment and then some.
const BATCHES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Points of one column.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DecodedColumn {
    pub first_ordinal: u64,
    pub steps: Vec<i64>,
    pub timestamps_ms: Vec<i64>,
    pub values: Vec<f64>,
    pub extras: Vec<Extra>,
}

/// A column whose place is known.
#[derive(Clone, Debug)]
pub(crate) struct ColumnPlace {
    pub segment: Arc<Segment>,
    pub frame: FrameEntry,
    pub head: Arc<Head>,
    pub column: ColumnEntry,
    pub seed: u32,
}

impl ColumnPlace {
    /// The ordinal after the last.
    pub(crate) fn end(&self) -> u64 {
        self.column.first_ordinal + self.column.points as u64
    }
}

/// Payloads of whole batches, for a query that reads many columns of each.
#[derive(Default)]
struct Batches {
    payloads: HashMap<(SegmentId, u64), Arc<Vec<u8>>>,
    bytes: usize,
}

impl Batches {
    fn payload(&mut self, place: &ColumnPlace) -> Result<Option<Arc<Vec<u8>>>> {
        let key = (place.segment.header.id, place.frame.offset);
        if let Some(payload) = self.payloads.get(&key) {
            return Ok(Some(Arc::clone(payload)));
        }
        // Pieces follow each other without gaps, so the last column ends the payload.
        let len = place.head.columns.last().map_or(0, |last| last.offset + last.len);
        if len > BATCH_BYTES_MAX {
            return Ok(None);
        }
        if self.bytes + len > BATCHES_BYTES_MAX {
            self.payloads.clear();
            self.bytes = 0;
        }
        let payload = Arc::new(place.segment.read(Segment::batch_byte(place.frame, 0), len)?);
        self.bytes += len;
        self.payloads.insert(key, Arc::clone(&payload));
        Ok(Some(payload))
    }
}

/// The bytes of a piece of a batch, read for it alone or part of a whole batch.
enum Piece {
    Own(Vec<u8>),
    Part(Arc<Vec<u8>>, std::ops::Range<usize>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Part(payload, range) => payload.get(range.clone()).unwrap_or_default(),
        }
    }
}

/// The axis read last: segment, frame and number, steps, timestamps.
type KnownAxis = ((SegmentId, u64, usize), Vec<i64>, Vec<i64>);

/// Reads columns; keeps heads and scratch space for one query.
#[derive(Default)]
pub(crate) struct ColumnReader {
    heads: HashMap<(SegmentId, u64), Arc<Head>>,
    batches: Option<Batches>,
    axis: Option<KnownAxis>,
    scratch: Scratch,
    /// Whether a batch that is damaged has no columns, instead of being an error.
    pub holes_allowed: bool,
}

impl ColumnReader {
    /// A reader for a query about many series of the same batches: small batches are read once and whole.
    pub(crate) fn of_many_series() -> Self {
        Self { batches: Some(Batches::default()), ..Self::default() }
    }

    fn piece(&mut self, place: &ColumnPlace, at: usize, len: usize) -> Result<Piece> {
        if let Some(batches) = &mut self.batches
            && let Some(payload) = batches.payload(place)?
        {
            return Ok(Piece::Part(payload, at..at.saturating_add(len)));
        }
        Ok(Piece::Own(place.segment.read(Segment::batch_byte(place.frame, at as u64), len)?))
    }

    fn head(&mut self, segment: &Segment, frame: FrameEntry) -> Result<Arc<Head>> {
        let key = (segment.header.id, frame.offset);
        if let Some(head) = self.heads.get(&key) {
            return Ok(Arc::clone(head));
        }
        let head = Arc::new(segment.batch_head(frame)?);
        if self.heads.len() >= HEADS_MAX {
            self.heads.clear();
        }
        self.heads.insert(key, Arc::clone(&head));
        Ok(head)
    }

    /// The columns of a part whose ordinals meet `ordinals`, in the order of the file. Frames whose directory says that
    /// they lie outside are not read.
    pub(crate) fn places(
        &mut self,
        part: &SeriesPart,
        ordinals: std::ops::Range<u64>,
    ) -> Result<Vec<ColumnPlace>> {
        let mut places = Vec::new();
        let seed = part.declaration.series.seed();
        for (frame, extent) in &part.frames {
            let outside = extent.as_ref().is_some_and(|e| {
                e.first_ordinal >= ordinals.end || e.first_ordinal + e.points <= ordinals.start
            });
            if outside {
                continue;
            }
            let head = match self.head(&part.segment, *frame) {
                Err(Error::Corrupt { .. } | Error::TornTail { .. }) if self.holes_allowed => {
                    part.segment.pass_over(frame.offset);
                    continue;
                }
                head => head?,
            };
            for column in head.of_series(part.declaration.number) {
                let end = column.first_ordinal.saturating_add(column.points as u64);
                if column.first_ordinal < ordinals.end && end > ordinals.start {
                    places.push(ColumnPlace {
                        segment: Arc::clone(&part.segment),
                        frame: *frame,
                        head: Arc::clone(&head),
                        column: *column,
                        seed,
                    });
                }
            }
        }
        Ok(places)
    }

    /// Reads one column with its axis.
    pub(crate) fn read(&mut self, place: &ColumnPlace) -> Result<DecodedColumn> {
        let mut points = Points::default();
        let extras = self.read_onto(place, &mut points)?;
        let Points { steps, timestamps_ms, values } = points;
        Ok(DecodedColumn { first_ordinal: place.column.first_ordinal, steps, timestamps_ms, values, extras })
    }

    /// Reads one column with its axis behind the points that are there, without a copy on the way; returns its extra
    /// columns. After an error the points are as before.
    pub(crate) fn read_onto(&mut self, place: &ColumnPlace, points: &mut Points) -> Result<Vec<Extra>> {
        let before = points.values.len();
        let read = self.read_axis_onto(place, points).and_then(|()| self.read_values_onto(place, points));
        if read.is_err() {
            points.steps.truncate(before);
            points.timestamps_ms.truncate(before);
            points.values.truncate(before);
        }
        read
    }

    fn read_values_onto(&mut self, place: &ColumnPlace, points: &mut Points) -> Result<Vec<Extra>> {
        let offset = Segment::batch_byte(place.frame, place.column.offset as u64);
        let piece = self.piece(place, place.column.offset, place.column.len)?;
        let before = points.values.len();
        points.values.resize(before + place.column.points, 0.0);
        let values = points.values.get_mut(before..).unwrap_or_default();
        batch::read_column(piece.bytes(), &place.column, place.seed, values, &mut self.scratch)
            .map_err(|m| m.at(&place.segment.path, offset))
    }

    /// Where many series are read, the axis that was read last is kept, because the next one likely has it, too.
    fn read_axis_onto(&mut self, place: &ColumnPlace, points: &mut Points) -> Result<()> {
        if self.batches.is_some() {
            self.read_axis(place)?;
            if let Some((_, steps, timestamps_ms)) = &self.axis {
                points.steps.extend_from_slice(steps);
                points.timestamps_ms.extend_from_slice(timestamps_ms);
            }
            return Ok(());
        }
        self.decode_axis(place, &mut points.steps, &mut points.timestamps_ms)
    }

    fn read_axis(&mut self, place: &ColumnPlace) -> Result<()> {
        let key = (place.segment.header.id, place.frame.offset, place.column.axis);
        if self.axis.as_ref().is_some_and(|(known, ..)| *known == key) {
            return Ok(());
        }
        let (mut steps, mut timestamps_ms) = (Vec::new(), Vec::new());
        self.decode_axis(place, &mut steps, &mut timestamps_ms)?;
        self.axis = Some((key, steps, timestamps_ms));
        Ok(())
    }

    /// Appends the axis of a column, which may refer to the batch's first one.
    fn decode_axis(
        &mut self,
        place: &ColumnPlace,
        steps: &mut Vec<i64>,
        timestamps_ms: &mut Vec<i64>,
    ) -> Result<()> {
        let entry = axis_entry(place, place.column.axis)?;
        if !entry.refers_to_first {
            return self.plain_axis(place, entry, None, steps, timestamps_ms);
        }
        let (mut first_steps, mut first_timestamps_ms) = (Vec::new(), Vec::new());
        self.plain_axis(place, axis_entry(place, 0)?, None, &mut first_steps, &mut first_timestamps_ms)?;
        let first = Axis { steps: &first_steps, timestamps_ms: &first_timestamps_ms };
        self.plain_axis(place, entry, Some(first), steps, timestamps_ms)
    }

    /// Appends an axis, given the one it refers to.
    fn plain_axis(
        &mut self,
        place: &ColumnPlace,
        entry: &AxisEntry,
        first: Option<Axis<'_>>,
        steps: &mut Vec<i64>,
        timestamps_ms: &mut Vec<i64>,
    ) -> Result<()> {
        let piece = self.piece(place, entry.offset, entry.len)?;
        let offset = Segment::batch_byte(place.frame, entry.offset as u64);
        let before = steps.len();
        steps.resize(before + entry.points, 0);
        timestamps_ms.resize(before + entry.points, 0);
        let steps = steps.get_mut(before..).unwrap_or_default();
        let timestamps_ms = timestamps_ms.get_mut(before..).unwrap_or_default();
        batch::read_axis(piece.bytes(), entry, first, steps, timestamps_ms)
            .map_err(|m| m.at(&place.segment.path, offset))
    }
}

fn axis_entry(place: &ColumnPlace, axis: usize) -> Result<&AxisEntry> {
    place.head.axes.get(axis).ok_or_else(|| {
        Error::corrupt(&place.segment.path, place.frame.offset, format!("an axis {axis}"), "fewer axes")
    })
}
