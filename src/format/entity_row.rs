//! An entity's registers with their stamps as bytes: the row that the index keeps.
//!
//! Contract: laid out by hand, little-endian; the index (which may be deleted at any moment) checks its crc before. A
//! row of another version is [`Malformed`]: whoever reads it goes back to the log. Stamps are written once each and
//! referred to by position, so a run made by one event costs 15 bytes a register beside its text.
//!
//! ```text
//! kind u16 = 2, version u16 = 1, length u32 of the rest
//! entity kind u16, uid 16 B, created stamp 28 B
//! stamps u32, times: millis u64, counter u32, writer 16 B
//! registers u32, times: field u16, stamp position u32, key length u32, value tag u8, value length u32, key, value
//! ```

use super::event::{EntityKind, Field, ValueRef};
use crate::error::Malformed;
use crate::id::{Stamp, Uid, WriterId};

const KIND_ROW: u16 = 2;
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 8;
const STAMP_BYTES: usize = 28;
const REGISTER_BYTES_MIN: usize = 15;

/// A row as read: its parts lie in the bytes it was read from.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The entity's kind.
    pub kind: EntityKind,
    /// The entity.
    pub uid: Uid,
    /// Its smallest stamp.
    pub created: Stamp,
    /// Its registers, in the order written.
    pub registers: Vec<RowRegister<'a>>,
}

/// One register of a row.
#[derive(Clone, Copy, Debug)]
pub struct RowRegister<'a> {
    /// The property.
    pub field: Field,
    /// The key within it.
    pub key: &'a str,
    /// When it was set.
    pub stamp: Stamp,
    /// Its value.
    pub value: ValueRef<'a>,
}

/// Appends a row to `out`. `stamps` must be sorted and hold the stamp of every register.
pub fn encode_row<'a>(
    (kind, uid, created): (EntityKind, Uid, Stamp),
    stamps: &[Stamp],
    registers: impl ExactSizeIterator<Item = RowRegister<'a>>,
    out: &mut Vec<u8>,
) {
    let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let put_stamp = |out: &mut Vec<u8>, stamp: &Stamp| {
        out.extend_from_slice(&stamp.millis.to_le_bytes());
        out.extend_from_slice(&stamp.counter.to_le_bytes());
        out.extend_from_slice(stamp.writer.as_bytes());
    };
    let start = out.len();
    out.extend_from_slice(&KIND_ROW.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.0.to_le_bytes());
    out.extend_from_slice(uid.as_bytes());
    put_stamp(out, &created);
    out.extend_from_slice(&word(stamps.len()));
    stamps.iter().for_each(|stamp| put_stamp(out, stamp));
    out.extend_from_slice(&word(registers.len()));
    for RowRegister { field, key, stamp, value } in registers {
        let position = stamps.partition_point(|s| *s < stamp);
        out.extend_from_slice(&field.0.to_le_bytes());
        out.extend_from_slice(&word(position));
        out.extend_from_slice(&word(key.len()));
        out.push(value.tag());
        value.with_bytes(|bytes| {
            out.extend_from_slice(&word(bytes.len()));
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(bytes);
        });
    }
    let length = word(out.len() - start - HEADER_BYTES);
    if let Some(place) = out.get_mut(start + 4..start + HEADER_BYTES) {
        place.copy_from_slice(&length);
    }
}

/// Reads a row that fills `bytes` exactly.
///
/// # Errors
/// [`Malformed`] with the place; never panics, and allocates no more than a few times the bytes.
pub fn decode_row(bytes: &[u8]) -> Result<Row<'_>, Malformed> {
    let mut input = Input { bytes, at: 0 };
    let (kind, version, length) = (input.u16()?, input.u16()?, input.length()?);
    if (kind, version) != (KIND_ROW, VERSION) {
        return Err(Malformed::new(0, "a row of version 1", version.into()));
    }
    if length != bytes.len() - HEADER_BYTES {
        return Err(Malformed::new(4, "the length of the rest of the row", length as u64));
    }
    let kind = EntityKind(input.u16()?);
    let uid = Uid::from_bytes(*input.array()?);
    let created = input.stamp()?;
    let stamp_count = input.count(STAMP_BYTES)?;
    let stamps = (0..stamp_count).map(|_| input.stamp()).collect::<Result<Vec<_>, _>>()?;
    let register_count = input.count(REGISTER_BYTES_MIN)?;
    let mut registers = Vec::with_capacity(register_count);
    for _ in 0..register_count {
        let field = Field(input.u16()?);
        let position = input.length()?;
        let stamp = *stamps.get(position).ok_or(input.malformed("the position of a stamp", position))?;
        let key_length = input.length()?;
        let [tag] = *input.array()?;
        let value_length = input.length()?;
        let key = std::str::from_utf8(input.take(key_length)?)
            .map_err(|_| input.malformed("a key in UTF-8", key_length))?;
        let value = ValueRef::from_parts(tag, input.take(value_length)?)
            .map_err(|expected| input.malformed(expected, value_length))?;
        registers.push(RowRegister { field, key, stamp, value });
    }
    match bytes.len() - input.at {
        0 => Ok(Row { kind, uid, created, registers }),
        rest => Err(input.malformed("the end of the row", rest)),
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn malformed(&self, expected: &'static str, found: usize) -> Malformed {
        Malformed::new(self.at, expected, found as u64)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.rest().get(..length).ok_or(self.malformed("more bytes of the row", length))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let taken = self.rest().first_chunk().ok_or(self.malformed("more bytes of the row", N))?;
        self.at += N;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(*self.array()?))
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let word = u32::from_le_bytes(*self.array()?);
        usize::try_from(word).map_err(|_| self.malformed("a length", 0))
    }

    fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = self.length()?;
        if count > self.rest().len() / least {
            return Err(self.malformed("a count that the row has room for", count));
        }
        Ok(count)
    }

    fn stamp(&mut self) -> Result<Stamp, Malformed> {
        Ok(Stamp {
            millis: u64::from_le_bytes(*self.array()?),
            counter: u32::from_le_bytes(*self.array()?),
            writer: WriterId::from_bytes(*self.array()?),
        })
    }
}
