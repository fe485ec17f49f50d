//! Extra columns: a small dictionary and an index per point.
//!
//! Contract: they carry what a point has besides step, time and value (fields of MLflow's longer metric lines, how an
//! old file spelt a number). Unknown kinds are kept. A constant one takes its entry and a few bytes, whatever the
//! count of points. Layout:
//!
//! ```text
//! extras := u8 count, count x extra
//! extra  := u8 kind | varint entries (>= 1) | entries x { varint length, bytes } | if entries > 1: INT of indices
//! ```

use super::bytes::{Reader, put_varint};
use super::int::{self, WidePlanner};
use crate::error::Malformed;

/// Extra columns of one column of points.
pub const EXTRAS_MAX: usize = 16;

/// One value of a small set per point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// What it means; the codec does not know.
    pub kind: u8,
    /// The values that occur: at least one, at most one per point.
    pub dictionary: Vec<Vec<u8>>,
    /// For each point its place in the dictionary; when the dictionary has one entry all are 0.
    pub indices: Vec<u32>,
}

impl Extra {
    /// The value of a point; empty where the column is too short.
    pub fn get(&self, point: usize) -> &[u8] {
        let index = self.indices.get(point).and_then(|&index| usize::try_from(index).ok());
        index.and_then(|index| self.dictionary.get(index)).map_or(&[], Vec::as_slice)
    }
}

/// Working space; reuse it.
#[derive(Debug, Default)]
pub struct Scratch {
    indices: Vec<i64>,
    planner: WidePlanner,
}

/// Appends the extras of a column.
///
/// # Panics
/// When there are more than [`EXTRAS_MAX`], a dictionary is empty or larger than the column, or an index is outside.
pub fn encode(extras: &[Extra], scratch: &mut Scratch, out: &mut Vec<u8>) {
    assert!(extras.len() <= EXTRAS_MAX, "at most {EXTRAS_MAX} extra columns");
    out.push(extras.len() as u8);
    for extra in extras {
        let entries = extra.dictionary.len();
        assert!(entries > 0 && entries <= extra.indices.len(), "1 to n entries for n points");
        assert!(extra.indices.iter().all(|i| (*i as usize) < entries), "indices inside the dictionary");
        out.push(extra.kind);
        put_varint(out, entries as u64);
        for entry in &extra.dictionary {
            put_varint(out, entry.len() as u64);
            out.extend_from_slice(entry);
        }
        if entries > 1 {
            scratch.indices.clear();
            scratch.indices.extend(extra.indices.iter().map(|i| i64::from(*i)));
            scratch.planner.plan(&scratch.indices);
            scratch.planner.write(0, out);
        }
    }
}

/// Reads the extras of a column of `points`.
///
/// # Errors
/// When the bytes are not such extras.
pub fn decode(
    reader: &mut Reader<'_>,
    points: usize,
    scratch: &mut Scratch,
) -> Result<Vec<Extra>, Malformed> {
    let count = usize::from(reader.u8()?);
    if count > EXTRAS_MAX {
        return Err(reader.malformed("at most 16 extra columns", count as u64));
    }
    let mut extras = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = reader.u8()?;
        let entries = reader.count(points, "at most one entry per point")?;
        if entries == 0 {
            return Err(reader.malformed("at least one entry", 0));
        }
        // Every entry takes a byte at least, so the bytes that are there bound the allocation.
        let mut dictionary = Vec::with_capacity(entries.min(reader.rest().len()));
        for _ in 0..entries {
            let len = reader.count(reader.rest().len(), "an entry inside the column")?;
            dictionary.push(reader.take(len)?.to_vec());
        }
        let indices = if entries == 1 {
            vec![0; points]
        } else {
            scratch.indices.resize(points, 0);
            int::decode(reader, &mut scratch.indices)?;
            let inside = |i: &i64| u32::try_from(*i).ok().filter(|i| (*i as usize) < entries);
            let indices: Option<Vec<u32>> = scratch.indices.iter().map(inside).collect();
            indices.ok_or_else(|| reader.malformed("indices inside the dictionary", entries as u64))?
        };
        extras.push(Extra { kind, dictionary, indices });
    }
    Ok(extras)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_constant_extra_takes_its_entry_and_four_bytes() {
        let extra = Extra { kind: 3, dictionary: vec![b"ds-1".to_vec()], indices: vec![0; 4096] };
        let mut out = Vec::new();
        encode(std::slice::from_ref(&extra), &mut Scratch::default(), &mut out);
        assert_eq!(out.len(), 4 + 4);
        assert_eq!(decode(&mut Reader::new(&out), 4096, &mut Scratch::default()), Ok(vec![extra]));
    }

    proptest! {
        #[test]
        fn extras_come_back(
            shapes in prop::collection::vec((any::<u8>(), 1usize..9, prop::collection::vec(any::<u8>(), 0..9)), 0..5),
            points in 9usize..300, seed: u32,
        ) {
            let extras: Vec<Extra> = shapes.into_iter().map(|(kind, entries, text)| Extra {
                kind,
                dictionary: (0..entries).map(|i| [text.as_slice(), &[i as u8]].concat()).collect(),
                indices: (0..points)
                    .map(|i| ((i as u32).wrapping_mul(seed | 1) >> 7) % entries as u32)
                    .collect(),
            }).collect();
            let mut out = Vec::new();
            encode(&extras, &mut Scratch::default(), &mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(decode(&mut reader, points, &mut Scratch::default()), Ok(extras));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), points in 0usize..300,
        ) {
            let _ = decode(&mut Reader::new(&bytes), points, &mut Scratch::default());
        }
    }
}
