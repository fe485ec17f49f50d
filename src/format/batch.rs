//! The payload of a batch frame: columns of points that were logged together, and the axes they share.
//!
//! Contract: `payload := head | axes | columns`, pure. The head says where every piece is, so one column, its axis and
//! (where that refers to it) axis 0 can be read alone. Its own checksum is the frame's; each piece has one here, and a
//! column's is seeded by the caller from run and key, so that bytes read from a wrong place never pass. Layout:
//!
//! ```text
//! head   := varint n_axes | varint n_columns | n_axes x axis | n_columns x column
//! axis   := varint points << 1 | 1 if it refers to axis 0 | varint length | u32 crc32 (seed 0)
//! column := varint series - series of the column before | varint axis << 1 | 1 if it has extras
//!           | zigzag first ordinal - that of the column before | varint length | u32 crc32 (the caller's seed)
//! ```
//!
//! Pieces follow each other without gaps, in the order of the head; columns are sorted by (series, first ordinal). The
//! bytes of an axis are [`crate::codec::axis`], of a column `[extras] VCOL` ([`crate::codec::extra`],
//! [`crate::codec::value`]).

use std::collections::HashMap;

use crate::codec::axis::{self, Axis};
use crate::codec::bytes::{Reader, put_varint, put_zigzag};
use crate::codec::extra::{self, Extra};
use crate::codec::value::{self, Compression};
use crate::error::Malformed;
use crate::format::frame::seeded_crc;
use crate::limits::{BATCH_COLUMNS_MAX, BATCH_POINTS_MAX, COLUMN_POINTS_MAX, FRAME_BYTES_MAX};

/// Fewest bytes of an axis or column in the head.
const ENTRY_BYTES_MIN: usize = 6;

/// One column to write.
#[derive(Clone, Copy, Debug)]
pub struct ColumnInput<'a> {
    /// The series' number in its segment.
    pub series: u32,
    /// What its checksum starts from: derived from run and key.
    pub seed: u32,
    /// Ordinal of the first point.
    pub first_ordinal: u64,
    /// Which of the batch's axes it has.
    pub axis: usize,
    /// One value per point of the axis.
    pub values: &'a [f64],
    /// Further columns.
    pub extras: &'a [Extra],
}

/// Working space of reading and writing; reuse it, then neither allocates per column.
#[derive(Debug, Default)]
pub struct Scratch {
    values: value::Scratch,
    axes: axis::Scratch,
    extras: extra::Scratch,
    body: Vec<u8>,
    order: Vec<u32>,
}

/// Where one axis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisEntry {
    /// Points.
    pub points: usize,
    /// Whether axis 0 is needed to read it.
    pub refers_to_first: bool,
    /// First byte, in the payload.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
    /// Checksum of the bytes.
    pub crc: u32,
}

/// Where one column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnEntry {
    /// The series' number in its segment.
    pub series: u32,
    /// Index of its axis.
    pub axis: usize,
    /// Ordinal of the first point.
    pub first_ordinal: u64,
    /// Points: those of its axis.
    pub points: usize,
    /// Whether extra columns stand before the values.
    pub has_extras: bool,
    /// First byte, in the payload.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
    /// Checksum of the bytes, from the caller's seed.
    pub crc: u32,
}

/// What a batch holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The axes.
    pub axes: Vec<AxisEntry>,
    /// The columns, sorted by (series, first ordinal).
    pub columns: Vec<ColumnEntry>,
}

impl Head {
    /// The columns of one series.
    pub fn of_series(&self, series: u32) -> &[ColumnEntry] {
        let start = self.columns.partition_point(|c| c.series < series);
        let end = self.columns.partition_point(|c| c.series <= series);
        self.columns.get(start..end).unwrap_or_default()
    }
}

/// Appends a payload and returns the length of its head.
///
/// # Panics
/// When the limits are exceeded, a column is empty or as long as no axis it names, or an axis' columns differ in
/// length: errors of the program, not of data.
pub fn encode(
    axes: &[Axis<'_>],
    columns: &[ColumnInput<'_>],
    compression: Compression,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> usize {
    assert!(columns.len() <= BATCH_COLUMNS_MAX && axes.len() <= BATCH_COLUMNS_MAX, "columns of a batch");
    assert!(columns.iter().map(|c| c.values.len()).sum::<usize>() <= BATCH_POINTS_MAX, "points of a batch");
    let start = out.len();
    scratch.body.clear();
    put_varint(out, axes.len() as u64);
    put_varint(out, columns.len() as u64);

    let first = axes.first().copied();
    for (i, axis) in axes.iter().enumerate() {
        let points = axis.steps.len();
        assert!((1..=COLUMN_POINTS_MAX).contains(&points), "points of an axis");
        assert_eq!(points, axis.timestamps_ms.len(), "one timestamp per step");
        let at = scratch.body.len();
        let refers = axis::encode(*axis, first.filter(|_| i > 0), &mut scratch.axes, &mut scratch.body);
        put_varint(out, (points as u64) << 1 | u64::from(refers));
        put_piece(0, &scratch.body[at..], out);
    }

    scratch.order.clear();
    scratch.order.extend(0..columns.len() as u32);
    if !columns.is_sorted_by_key(|c| (c.series, c.first_ordinal)) {
        scratch.order.sort_by_key(|i| {
            let column = &columns[*i as usize];
            (column.series, column.first_ordinal)
        });
    }
    let (mut series, mut ordinal) = (0u32, 0u64);
    for index in &scratch.order {
        let column = &columns[*index as usize];
        assert_eq!(column.values.len(), axes[column.axis].steps.len(), "one value per point of the axis");
        let at = scratch.body.len();
        if !column.extras.is_empty() {
            assert!(
                column.extras.iter().all(|e| e.indices.len() == column.values.len()),
                "one index per point"
            );
            extra::encode(column.extras, &mut scratch.extras, &mut scratch.body);
        }
        value::encode(column.values, compression, &mut scratch.values, &mut scratch.body);
        put_varint(out, u64::from(column.series - series));
        put_varint(out, (column.axis as u64) << 1 | u64::from(!column.extras.is_empty()));
        put_zigzag(out, column.first_ordinal.wrapping_sub(ordinal) as i64);
        put_piece(column.seed, &scratch.body[at..], out);
        (series, ordinal) = (column.series, column.first_ordinal);
    }
    let head_len = out.len() - start;
    out.extend_from_slice(&scratch.body);
    head_len
}

fn put_piece(seed: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(out, bytes.len() as u64);
    out.extend(seeded_crc(seed, bytes).to_le_bytes());
}

/// Reads the head, given exactly its bytes and the length of the whole payload.
///
/// # Errors
/// When the bytes are not a head whose pieces fill the payload exactly, within the limits.
pub fn decode_head(bytes: &[u8], payload_len: usize) -> Result<Head, Malformed> {
    let mut reader = Reader::new(bytes);
    let n_axes = reader.count(BATCH_COLUMNS_MAX, "at most 65536 axes")?;
    let n_columns = reader.count(BATCH_COLUMNS_MAX, "at most 65536 columns")?;
    if payload_len > FRAME_BYTES_MAX || n_axes + n_columns > bytes.len() / ENTRY_BYTES_MIN {
        return Err(reader.malformed("as many entries as fit the head", (n_axes + n_columns) as u64));
    }
    let mut head = Head { axes: Vec::with_capacity(n_axes), columns: Vec::with_capacity(n_columns) };
    let mut offset = bytes.len();
    for _ in 0..n_axes {
        let code = reader.count(2 * COLUMN_POINTS_MAX + 1, "at most 4096 points in an axis")?;
        let (points, refers_to_first) = (code >> 1, code & 1 != 0);
        if points == 0 || refers_to_first && head.axes.is_empty() {
            return Err(reader.malformed("an axis of points, the first not relative", code as u64));
        }
        let (len, crc) = read_piece(&mut reader, offset, payload_len)?;
        head.axes.push(AxisEntry { points, refers_to_first, offset, len, crc });
        offset += len;
    }
    let (mut series, mut first_ordinal, mut total) = (0u32, 0u64, 0usize);
    for i in 0..n_columns {
        let delta = reader.varint()?;
        let code = reader.count(2 * BATCH_COLUMNS_MAX, "an axis of the batch")?;
        let next = u32::try_from(delta).ok().and_then(|d| series.checked_add(d));
        let (Some(next), Some(axis)) = (next, head.axes.get(code >> 1)) else {
            return Err(reader.malformed("a series and axis of the batch", delta));
        };
        let before = first_ordinal;
        first_ordinal = first_ordinal.wrapping_add(reader.zigzag()? as u64);
        if i > 0 && delta == 0 && first_ordinal < before {
            return Err(reader.malformed("columns sorted by series and ordinal", first_ordinal));
        }
        series = next;
        let points = axis.points;
        total += points;
        if total > BATCH_POINTS_MAX || first_ordinal.checked_add(points as u64).is_none() {
            return Err(reader.malformed("points and ordinals within their limits", total as u64));
        }
        let (len, crc) = read_piece(&mut reader, offset, payload_len)?;
        let has_extras = code & 1 != 0;
        head.columns.push(ColumnEntry {
            series,
            axis: code >> 1,
            first_ordinal,
            points,
            has_extras,
            offset,
            len,
            crc,
        });
        offset += len;
    }
    reader.finish()?;
    if offset != payload_len {
        return Err(reader.malformed("pieces that fill the payload", offset as u64));
    }
    Ok(head)
}

fn read_piece(reader: &mut Reader<'_>, offset: usize, payload_len: usize) -> Result<(usize, u32), Malformed> {
    let len = reader.count(payload_len.saturating_sub(offset), "a piece inside the payload")?;
    Ok((len, reader.u32()?))
}

fn check(bytes: &[u8], len: usize, seed: u32, crc: u32, expected: &'static str) -> Result<(), Malformed> {
    let found = seeded_crc(seed, bytes);
    if bytes.len() == len && found == crc {
        Ok(())
    } else {
        Err(Malformed::new(0, expected, u64::from(found)))
    }
}

/// Reads an axis from its bytes into arrays of `entry.points`; `first` is the batch's axis 0, needed if the entry
/// refers to it.
///
/// # Errors
/// When the checksum does not match, or the bytes are not such an axis; the arrays then hold anything.
///
/// # Panics
/// When the arrays are not `entry.points` long.
pub fn read_axis(
    bytes: &[u8],
    entry: &AxisEntry,
    first: Option<Axis<'_>>,
    steps: &mut [i64],
    timestamps_ms: &mut [i64],
) -> Result<(), Malformed> {
    assert!(steps.len() == entry.points && timestamps_ms.len() == entry.points, "arrays of the axis' length");
    check(bytes, entry.len, 0, entry.crc, "the checksum of an axis")?;
    axis::decode(bytes, first.filter(|_| entry.refers_to_first), steps, timestamps_ms)
}

/// Reads a column from its bytes into an array of `entry.points`; returns the extra columns, if it has any.
///
/// # Errors
/// When the checksum does not match for this seed, or the bytes are not such a column; the array then holds anything.
///
/// # Panics
/// When the array is not `entry.points` long.
pub fn read_column(
    bytes: &[u8],
    entry: &ColumnEntry,
    seed: u32,
    values: &mut [f64],
    scratch: &mut Scratch,
) -> Result<Vec<Extra>, Malformed> {
    assert_eq!(values.len(), entry.points, "an array of the column's length");
    check(bytes, entry.len, seed, entry.crc, "the checksum of a column")?;
    let mut reader = Reader::new(bytes);
    let mut extras = Vec::new();
    if entry.has_extras {
        extras = extra::decode(&mut reader, entry.points, &mut scratch.extras)?;
    }
    let base = reader.position();
    value::decode(reader.rest(), values, &mut scratch.values)
        .map_err(|e| Malformed::new(base + e.offset, e.expected, e.found))?;
    Ok(extras)
}

/// Which series share an axis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedAxes {
    /// For each axis of the batch, a series that has it. The first is the best to refer to: its length is the most
    /// frequent.
    pub axes: Vec<usize>,
    /// For each series its axis, an index into `axes`.
    pub of_series: Vec<usize>,
}

/// Axes with equal ends compared in full before giving up: a guard against quadratic time, at the cost of bytes.
const SIMILAR_MAX: usize = 8;

/// Finds the series whose steps and timestamps are the same, by address first, then by content.
pub fn share_axes(series: &[Axis<'_>]) -> SharedAxes {
    let ends = |a: &Axis<'_>| {
        let column = |c: &[i64]| (c.first().copied(), c.get(c.len() / 2).copied(), c.last().copied());
        (a.steps.len(), column(a.steps), column(a.timestamps_ms))
    };
    let same = |a: &Axis<'_>, b: &Axis<'_>| {
        let equal = |a: &[i64], b: &[i64]| std::ptr::eq(a, b) || a == b;
        equal(a.steps, b.steps) && equal(a.timestamps_ms, b.timestamps_ms)
    };
    let mut shared = SharedAxes::default();
    let mut similar: HashMap<_, Vec<usize>> = HashMap::new();
    for (i, axis) in series.iter().enumerate() {
        let candidates = similar.entry(ends(axis)).or_default();
        let found = candidates.iter().copied().find(|c| same(axis, &series[shared.axes[*c]]));
        shared.of_series.push(found.unwrap_or(shared.axes.len()));
        if found.is_none() {
            if candidates.len() < SIMILAR_MAX {
                candidates.push(shared.axes.len());
            }
            shared.axes.push(i);
        }
    }
    put_best_first(series, &mut shared);
    shared
}

/// Other axes can refer to axis 0 only if they have its length.
fn put_best_first(series: &[Axis<'_>], shared: &mut SharedAxes) {
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for axis in &shared.axes {
        *lengths.entry(series[*axis].steps.len()).or_default() += series[*axis].steps.len();
    }
    let weight = |axis: &usize| lengths.get(&series[*axis].steps.len()).copied().unwrap_or_default();
    let Some(best) = (0..shared.axes.len()).rev().max_by_key(|i| weight(&shared.axes[*i])) else { return };
    shared.axes.swap(0, best);
    for axis in &mut shared.of_series {
        *axis = match *axis {
            0 => best,
            a if a == best => 0,
            a => a,
        };
    }
}
