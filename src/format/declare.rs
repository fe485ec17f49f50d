//! Declarations: which series a number stands for.
//!
//! Contract: a segment is self-contained, so a series is declared in each segment before its first batch there, and in
//! the live file before its first record. Numbers are those of the file: a sealed copy numbers its series anew.
//!
//! Payload: varint count, then for each: varint number, flags (bit 0: an origin follows, else it is the segment's
//! writer; bit 1: same run as the entry before; bit 2: attributes follow), [run uid 16], owner kind, varint key length,
//! key, [origin 16], [varint attribute count, each: varint tag, varint length, bytes].

use std::sync::Arc;

use crate::codec::bytes::{Reader, put_slice, put_varint};
use crate::error::Malformed;
use crate::format::frame::seeded_crc;
use crate::id::{Origin, Uid, WriterId};
use crate::limits::KEY_BYTES_MAX;

/// Attributes in one declaration.
const ATTRIBUTES_MAX: usize = 64;
/// Bytes of one attribute.
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;

/// Whose metric a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKind(pub u8);

impl OwnerKind {
    /// A run's metric.
    pub const RUN: Self = Self(0);
    /// A logged model's metric.
    pub const LOGGED_MODEL: Self = Self(1);
}

/// What makes a series: whose, which key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The run (or other owner).
    pub run: Uid,
    /// What kind of owner.
    pub owner: OwnerKind,
    /// The metric key.
    pub key: Arc<str>,
}

impl SeriesKey {
    /// A run's metric.
    pub fn of_run(run: Uid, key: impl Into<Arc<str>>) -> Self {
        Self { run, owner: OwnerKind::RUN, key: key.into() }
    }

    /// Where the crcs of this series' columns start, so that a wrong address can never become a wrong number.
    pub fn seed(&self) -> u32 {
        let seed = seeded_crc(u32::from(self.owner.0), self.run.as_bytes());
        seeded_crc(seed, self.key.as_bytes())
    }
}

/// One declared series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The writer's number for it.
    pub number: u32,
    /// What it is.
    pub series: SeriesKey,
    /// Who logged the points of this number.
    pub origin: Origin,
    /// Attributes: (tag, bytes); unknown ones are kept.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

/// Appends the payload for some declarations of `writer`.
pub fn encode_declarations(writer: WriterId, list: &[&Declaration], out: &mut Vec<u8>) {
    put_varint(out, list.len() as u64);
    let mut previous = None;
    for one in list {
        put_declaration(writer, one, previous, out);
        previous = Some(one.series.run);
    }
}

/// Appends one declaration; the run is left out where it is that of the entry before.
pub(crate) fn put_declaration(
    writer: WriterId,
    one: &Declaration,
    previous_run: Option<Uid>,
    out: &mut Vec<u8>,
) {
    let foreign = one.origin != Origin::from(writer);
    let same_run = previous_run == Some(one.series.run);
    let attributes = !one.attributes.is_empty();
    put_varint(out, u64::from(one.number));
    out.push(u8::from(foreign) | u8::from(same_run) << 1 | u8::from(attributes) << 2);
    if !same_run {
        out.extend_from_slice(one.series.run.as_bytes());
    }
    out.push(one.series.owner.0);
    put_slice(out, one.series.key.as_bytes());
    if foreign {
        out.extend_from_slice(one.origin.as_bytes());
    }
    if attributes {
        put_varint(out, one.attributes.len() as u64);
        for (tag, bytes) in &one.attributes {
            put_varint(out, u64::from(*tag));
            put_slice(out, bytes);
        }
    }
}

/// Reads one declaration.
pub(crate) fn take_declaration(
    writer: WriterId,
    cursor: &mut Reader<'_>,
    previous_run: Option<Uid>,
) -> Result<Declaration, Malformed> {
    let start = cursor.position();
    let number = u32::try_from(cursor.varint()?).map_err(|_| Malformed::new(start, "a series number", 0))?;
    let flags = cursor.u8()?;
    if flags > 7 {
        return Err(Malformed::new(start, "known declaration flags", u64::from(flags)));
    }
    let run = match (flags & 2 != 0, previous_run) {
        (false, _) => Uid::from_bytes(cursor.array()?),
        (true, Some(run)) => run,
        (true, None) => return Err(Malformed::new(start, "a run before 'same run'", 0)),
    };
    let owner = OwnerKind(cursor.u8()?);
    let key = Arc::from(cursor.text(KEY_BYTES_MAX, "a metric key")?);
    let origin = if flags & 1 != 0 { Origin::from_bytes(cursor.array()?) } else { Origin::from(writer) };
    let mut attributes = Vec::new();
    if flags & 4 != 0 {
        for _ in 0..cursor.count(ATTRIBUTES_MAX, "at most 64 attributes")? {
            let at = cursor.position();
            let tag =
                u16::try_from(cursor.varint()?).map_err(|_| Malformed::new(at, "an attribute tag", 0))?;
            attributes.push((tag, cursor.slice(ATTRIBUTE_BYTES_MAX, "an attribute")?.to_vec()));
        }
    }
    Ok(Declaration { number, series: SeriesKey { run, owner, key }, origin, attributes })
}

/// Reads a payload.
pub fn decode_declarations(writer: WriterId, bytes: &[u8]) -> Result<Vec<Declaration>, Malformed> {
    let mut cursor = Reader::new(bytes);
    let count = cursor.count(bytes.len() / 4, "a count of declarations that fits the frame")?;
    let mut list: Vec<Declaration> = Vec::with_capacity(count);
    for _ in 0..count {
        let previous = list.last().map(|d| d.series.run);
        list.push(take_declaration(writer, &mut cursor, previous)?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn declarations_round_trip(
            entries in proptest::collection::vec(
                (any::<u32>(), 0u8..3, 0u8..2, ".{0,40}", any::<bool>(),
                 proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..9)), 0..3)),
                0..20)
        ) {
            let writer = WriterId::from_bytes([7; 16]);
            let list: Vec<_> = entries.into_iter().map(|(number, run, owner, key, foreign, attributes)| Declaration {
                number,
                series: SeriesKey { run: Uid::from_bytes([run; 16]), owner: OwnerKind(owner), key: key.into() },
                origin: if foreign { Origin::from_bytes([9; 16]) } else { writer.into() },
                attributes,
            }).collect();
            let mut bytes = Vec::new();
            encode_declarations(writer, &list.iter().collect::<Vec<_>>(), &mut bytes);
            prop_assert_eq!(decode_declarations(writer, &bytes), Ok(list));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_declarations(WriterId::default(), &bytes);
        }
    }
}
