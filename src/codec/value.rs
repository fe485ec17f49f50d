//! VCOL: a column of f64 as a constant, a grid, f32 or f64, whichever is smallest; zstd over it where that helps.
//!
//! Contract: every f64 comes back bit for bit (NaN payloads, -0.0, infinities, subnormals): the encoder checks each
//! value of a lossy-looking form and lists the ones that do not come back as exceptions. A NaN is never converted
//! between float types. Layout (the count of values is the caller's):
//!
//! ```text
//! VCOL  := u8 kind | 0x80 if what follows is a zstd frame without its magic number
//!          then, possibly compressed:
//!   0 CONST    the value's bits, most significant byte first, trailing zero bytes dropped
//!   1 GRID     divisor, exceptions, INT of k [INT of residuals]      value = k / divisor, residual ulps on
//!              (residuals in 32-bit lanes)
//!   2 F32      exceptions, INT over the order of f32 (32-bit lanes)
//!   3 F64      INT over the order of f64
//!   4 GRID32   as GRID, the quotient rounded to f32, residuals in ulps of f32
//! divisor    := varint: 2d, or 1 and then the bits of an f64
//! exceptions := varint (count << 2 | flags) | count x { varint gap, u64 bits }
//!               flags of a grid: 1 if residuals follow, 2 if k is in 32-bit lanes
//! ```
//!
//! The order of floats: bits as a signed integer, negative ones with all but the sign inverted. A zstd frame holds
//! its content size and no checksum.

use super::bytes::{Reader, put_varint};
use super::grid::{self, Grid, POSITION_MAX, RESIDUAL_MAX, ordinal, ordinal32};
use super::int::{self, Planner, WidePlanner};
use super::simd;
use crate::error::Malformed;
use crate::limits::COLUMN_POINTS_MAX;

const CONSTANT: u8 = 0;
const GRID: u8 = 1;
const F32: u8 = 2;
const F64: u8 = 3;
const GRID32: u8 = 4;
const ZSTD: u8 = 0x80;
/// Flags of a grid's exceptions.
const RESIDUALS: u8 = 1;
const NARROW: u8 = 2;

const ZSTD_LEVEL: i32 = 1;
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Bodies shorter than this are not worth a frame's header.
const ZSTD_BYTES_MIN: usize = 48;

/// Whether finished value columns are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Never: about twice as fast to write.
    None,
    /// zstd level 1 where it saves more than 6 %.
    #[default]
    Zstd,
}

/// Working space of encoding and decoding; reuse it, then neither allocates.
#[derive(Default)]
pub struct Scratch {
    sample: Vec<f64>,
    positions: Vec<i64>,
    residuals: Vec<i32>,
    wide: Vec<i64>,
    narrow: Vec<i32>,
    exceptions: Vec<u32>,
    wide_plan: Planner<i64>,
    narrow_plan: Planner<i32>,
    position_plan: WidePlanner,
    residual_plan: Planner<i32>,
    frame: Vec<u8>,
    body: Vec<u8>,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// Appends a column.
pub fn encode(values: &[f64], compression: Compression, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let start = out.len();
    // Whoever waits for zstd can wait for this.
    let thorough = compression == Compression::Zstd;
    scratch.wide_plan.set_thorough(thorough);
    scratch.narrow_plan.set_thorough(thorough);
    scratch.position_plan.set_thorough(thorough);
    scratch.residual_plan.set_thorough(thorough);
    encode_plain(values, scratch, out);
    if compression == Compression::Zstd {
        compress(start, scratch, out);
    }
}

fn encode_plain(values: &[f64], s: &mut Scratch, out: &mut Vec<u8>) {
    let Some((first, last)) = values.first().zip(values.last()) else { return };
    if values.iter().all(|v| v.to_bits() == first.to_bits()) {
        out.push(CONSTANT);
        let bits = first.to_bits();
        let significant = 8 - bits.trailing_zeros().min(64) as usize / 8;
        out.extend((0..significant).map(|i| (bits >> (56 - 8 * i)) as u8));
        return;
    }

    let exceptions_max = values.len() / 32;
    let others = count_not_f32(values, exceptions_max);
    let single = others <= exceptions_max;
    let exception_bytes = |count: usize| 2 + count * 10;

    s.sample.clear();
    let stride = values.len().div_ceil(grid::SAMPLE);
    s.sample.extend(values.iter().step_by(stride).filter(|v| v.is_finite()));
    let grid = grid::find(&s.sample, single, values.len(), *first, *last);
    let mut grid_bytes = usize::MAX;
    let mut residuals = false;
    if let Some(grid) = grid {
        residuals = !locate_exactly(grid, values, &mut s.positions);
        s.exceptions.clear();
        if residuals {
            residuals = locate_nearly(grid, values, s);
        }
        if s.exceptions.len() <= values.len() / 8 {
            grid_bytes = 4 + exception_bytes(s.exceptions.len()) + s.position_plan.plan(&s.positions);
            if residuals {
                grid_bytes += s.residual_plan.plan(&s.residuals);
            }
        }
    }

    // A small grid cannot be beaten by the order of its floats; a wide one can.
    let plain_bytes = if grid_bytes.saturating_mul(2) < values.len() {
        usize::MAX
    } else if single {
        s.narrow.clear();
        if others == 0 {
            s.narrow.extend(values.iter().map(|v| ordinal32(*v as f32)));
        } else {
            let mut previous = 0;
            s.narrow.extend(values.iter().map(|v| {
                if is_f32(*v) {
                    previous = ordinal32(*v as f32);
                }
                previous
            }));
        }
        exception_bytes(others) + s.narrow_plan.plan(&s.narrow)
    } else {
        s.wide.clear();
        s.wide.extend(values.iter().map(|v| ordinal(*v)));
        s.wide_plan.plan(&s.wide)
    };

    if let (Some(grid), true) = (grid, grid_bytes < plain_bytes) {
        let narrow = s.position_plan.is_narrow() && s.positions.iter().all(|k| i32::try_from(*k).is_ok());
        let flags = if residuals { RESIDUALS } else { 0 } | if narrow { NARROW } else { 0 };
        out.push(if grid.single { GRID32 } else { GRID });
        put_divisor(grid.divisor, out);
        put_exceptions(&s.exceptions, flags, values, out);
        s.position_plan.write(0, out);
        if residuals {
            s.residual_plan.write(0, out);
        }
    } else if single {
        s.exceptions.clear();
        if others > 0 {
            s.exceptions.extend((0u32..).zip(values).filter_map(|(i, v)| (!is_f32(*v)).then_some(i)));
        }
        out.push(F32);
        put_exceptions(&s.exceptions, 0, values, out);
        s.narrow_plan.write(0, out);
    } else {
        out.push(F64);
        s.wide_plan.write(0, out);
    }
}

/// How many values do not survive as f32; stops counting when they are too many.
fn count_not_f32(values: &[f64], max: usize) -> usize {
    let mut count = 0;
    for chunk in values.chunks(128) {
        count += chunk.iter().filter(|v| !is_f32(**v)).count();
        if count > max {
            break;
        }
    }
    count
}

/// Whether a value survives as f32. NaN does not: payloads are not promised by conversions.
#[inline(always)]
fn is_f32(value: f64) -> bool {
    f64::from(value as f32) == value
}

/// Puts every value on the grid; true if all come back exactly.
fn locate_exactly(grid: Grid, values: &[f64], positions: &mut Vec<i64>) -> bool {
    positions.resize(values.len(), 0);
    let mut misses = 0u64;
    for (value, k) in values.iter().zip(positions.iter_mut()) {
        let x = value * grid.divisor;
        let x = if x.abs() < POSITION_MAX as f64 { x } else { 0.0 };
        *k = grid::nearest(x);
        misses |= grid.value(*k, 0).to_bits() ^ value.to_bits();
    }
    misses == 0
}

/// Puts every value on the grid as well as it goes; values that do not come back become exceptions. Returns whether
/// residuals are needed.
fn locate_nearly(grid: Grid, values: &[f64], s: &mut Scratch) -> bool {
    let near = locate_within(grid, RESIDUAL_MAX, values, s);
    if near > 0 && near <= values.len() / 64 {
        // A few values off the grid are cheaper as exceptions than a column of residuals is.
        locate_within(grid, 0, values, s);
        return false;
    }
    near > 0
}

/// Makes exceptions of the values further than `residual_max` from the grid, which take their predecessor's place;
/// returns how many others have a residual.
fn locate_within(grid: Grid, residual_max: u64, values: &[f64], s: &mut Scratch) -> usize {
    s.exceptions.clear();
    s.residuals.resize(values.len(), 0);
    let (mut previous, mut near) = (0, 0);
    let places = s.positions.iter_mut().zip(s.residuals.iter_mut());
    for ((i, value), (position, place)) in (0u32..).zip(values).zip(places) {
        let (k, residual) = grid.locate(*value);
        let comes_back = residual.unsigned_abs() <= residual_max
            && grid.value(k, residual).to_bits() == value.to_bits()
            && k.abs() < POSITION_MAX;
        if comes_back {
            (previous, *place) = (k, residual as i32);
            near += usize::from(residual != 0);
        } else {
            s.exceptions.push(i);
            *place = 0;
        }
        *position = previous;
    }
    near
}

fn put_divisor(divisor: f64, out: &mut Vec<u8>) {
    if (1.0..4e9).contains(&divisor) && divisor.fract() == 0.0 {
        put_varint(out, (divisor as u64) << 1);
    } else {
        put_varint(out, 1);
        out.extend(divisor.to_bits().to_le_bytes());
    }
}

fn put_exceptions(exceptions: &[u32], flags: u8, values: &[f64], out: &mut Vec<u8>) {
    put_varint(out, (exceptions.len() as u64) << 2 | u64::from(flags));
    let mut next = 0;
    for at in exceptions {
        put_varint(out, u64::from(at - next));
        next = at + 1;
        out.extend(values[*at as usize].to_bits().to_le_bytes());
    }
}

/// Replaces what follows the kind byte at `start` by its zstd frame if that saves more than 6 %.
fn compress(start: usize, s: &mut Scratch, out: &mut Vec<u8>) {
    let Some(body) = out.get(start + 1..).filter(|b| b.len() >= ZSTD_BYTES_MIN) else { return };
    if s.compressor.is_none() {
        s.compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
    }
    let Some(compressor) = &mut s.compressor else { return };
    s.frame.clear();
    s.frame.reserve(zstd::zstd_safe::compress_bound(body.len()));
    if compressor.compress_to_buffer(body, &mut s.frame).is_err() {
        return;
    }
    if let Some(frame) = s.frame.strip_prefix(&ZSTD_MAGIC)
        && frame.len() * 100 < body.len() * 94
    {
        out[start] |= ZSTD;
        out.truncate(start + 1);
        out.extend_from_slice(frame);
    }
}

/// Reads a column of `out.len()` values from exactly `bytes`.
///
/// # Errors
/// When the bytes are not such a column, or more than `COLUMN_POINTS_MAX` values are asked for; `out` then holds
/// anything.
pub fn decode(bytes: &[u8], out: &mut [f64], scratch: &mut Scratch) -> Result<(), Malformed> {
    let Some((kind, body)) = bytes.split_first() else {
        return if out.is_empty() { Ok(()) } else { Err(Malformed::new(0, "a value column", 0)) };
    };
    if out.is_empty() || out.len() > COLUMN_POINTS_MAX {
        return Err(Malformed::new(0, "a column of 1 to 4096 values", out.len() as u64));
    }
    // Offsets inside a compressed body mean nothing in the file: damage there is reported at the column's start.
    if kind & ZSTD != 0 {
        decompress(body, out.len(), scratch)?;
        let inflated = std::mem::take(&mut scratch.body);
        let decoded = decode_body(kind & !ZSTD, &inflated, out, scratch);
        scratch.body = inflated;
        decoded.map_err(|e| Malformed::new(0, e.expected, e.found))
    } else {
        decode_body(*kind, body, out, scratch).map_err(|e| Malformed::new(e.offset + 1, e.expected, e.found))
    }
}

/// Inflates a frame without magic number into `scratch.body`.
fn decompress(frame: &[u8], points: usize, s: &mut Scratch) -> Result<(), Malformed> {
    let damaged = |found: u64| Malformed::new(1, "a zstd frame of a value column", found);
    s.frame.clear();
    s.frame.extend_from_slice(&ZSTD_MAGIC);
    s.frame.extend_from_slice(frame);
    let size = zstd::zstd_safe::get_frame_content_size(&s.frame).ok().flatten().ok_or(damaged(0))?;
    // Nothing the encoder writes is larger: 18 bytes an exception, twice 8 a value and the blocks' heads.
    let size = usize::try_from(size).ok().filter(|s| *s <= 64 + points * 40).ok_or(damaged(size))?;
    if s.decompressor.is_none() {
        s.decompressor = zstd::bulk::Decompressor::new().ok();
    }
    s.body.clear();
    s.body.reserve_exact(size);
    let read = s.decompressor.as_mut().and_then(|d| d.decompress_to_buffer(&s.frame, &mut s.body).ok());
    if read == Some(size) && s.body.len() == size { Ok(()) } else { Err(damaged(size as u64)) }
}

fn decode_body(kind: u8, body: &[u8], out: &mut [f64], s: &mut Scratch) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    match kind {
        CONSTANT => {
            let bytes = reader.take(body.len().min(9))?;
            if bytes.len() > 8 {
                return Err(reader.malformed("at most 8 bytes of a constant", body.len() as u64));
            }
            let bits = bytes.iter().zip(0..).fold(0u64, |bits, (b, i)| bits | u64::from(*b) << (56 - 8 * i));
            out.fill(f64::from_bits(bits));
            return Ok(());
        }
        GRID | GRID32 => {
            let grid = Grid { divisor: read_divisor(&mut reader)?, single: kind == GRID32 };
            let (mut exceptions, count, flags) = skip_exceptions(&mut reader, out.len())?;
            if flags & NARROW != 0 {
                s.narrow.resize(out.len(), 0);
                int::decode(&mut reader, &mut s.narrow)?;
                if flags & RESIDUALS == 0 {
                    simd::quotients(&s.narrow, grid.divisor, grid.single, out);
                } else {
                    out.iter_mut().zip(&s.narrow).for_each(|(value, k)| *value = f64::from(*k));
                }
            } else {
                s.wide.resize(out.len(), 0);
                int::decode(&mut reader, &mut s.wide)?;
                // One check of all positions: |k| < 2^51, where `grid::float` is exact.
                let far = s.wide.iter().fold(0, |far, k| far | (k.wrapping_add(POSITION_MAX) as u64 >> 52));
                if far != 0 {
                    return Err(reader.malformed("grid positions below 2^51", far));
                }
                out.iter_mut().zip(&s.wide).for_each(|(value, k)| *value = grid::float(*k));
                if flags & RESIDUALS == 0 {
                    grid.points(out);
                }
            }
            if flags & RESIDUALS != 0 {
                s.residuals.resize(out.len(), 0);
                int::decode(&mut reader, &mut s.residuals)?;
                for (value, r) in out.iter_mut().zip(&s.residuals) {
                    *value = grid.point(*value, i64::from(*r));
                }
            }
            place_exceptions(&mut exceptions, count, out)?;
        }
        F32 => {
            let (mut exceptions, count, flags) = skip_exceptions(&mut reader, out.len())?;
            if flags != 0 {
                return Err(reader.malformed("no flags of a grid", u64::from(flags)));
            }
            s.narrow.resize(out.len(), 0);
            int::decode(&mut reader, &mut s.narrow)?;
            simd::floats32(&s.narrow, out);
            place_exceptions(&mut exceptions, count, out)?;
        }
        F64 => {
            s.wide.resize(out.len(), 0);
            int::decode(&mut reader, &mut s.wide)?;
            simd::floats64(&s.wide, out);
        }
        _ => return Err(reader.malformed("a kind of value column", u64::from(kind))),
    }
    reader.finish()
}

fn read_divisor(reader: &mut Reader<'_>) -> Result<f64, Malformed> {
    let code = reader.varint()?;
    let divisor = if code == 1 { f64::from_bits(reader.u64()?) } else { (code >> 1) as f64 };
    if divisor.is_finite() && divisor != 0.0 && (code == 1 || code % 2 == 0) {
        Ok(divisor)
    } else {
        Err(reader.malformed("a divisor", code))
    }
}

/// Checks the exceptions and steps over them; returns where they start, how many there are, and the flags.
fn skip_exceptions<'a>(reader: &mut Reader<'a>, points: usize) -> Result<(Reader<'a>, usize, u8), Malformed> {
    let head = reader.count(4 * points + 3, "at most one exception per value")?;
    let start = reader.clone();
    for _ in 0..head >> 2 {
        reader.varint()?;
        reader.u64()?;
    }
    Ok((start, head >> 2, (head & 3) as u8))
}

fn place_exceptions(reader: &mut Reader<'_>, count: usize, out: &mut [f64]) -> Result<(), Malformed> {
    let mut rest = out;
    for _ in 0..count {
        let gap = reader.count(COLUMN_POINTS_MAX, "an exception inside the column")?;
        let bits = reader.u64()?;
        let Some((value, after)) = rest.get_mut(gap..).and_then(|r| r.split_first_mut()) else {
            return Err(reader.malformed("an exception inside the column", gap as u64));
        };
        *value = f64::from_bits(bits);
        rest = after;
    }
    Ok(())
}
