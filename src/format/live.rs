//! The live file: points of a living writer that are not in a batch yet.
//!
//! Contract: a point is published by the one store of its first word; a record is valid only if its check fits the
//! writer, its sequence number and all its words, so a torn, stale or foreign record never validates. Readers trust
//! nothing but checks.
//!
//! File: a header page of 4096 bytes, then blocks of 64 KiB.
//!
//! Header: magic `MLRSLIV\n`, major u16, minor u16, header length u32, writer id 16, store id 16, boot id 16, pid u64,
//! created ms u64, host (length u8, at most 63 bytes), zeros, crc32 of bytes 0..252 at 252. At 256, changing words
//! (u64), each followed by its check (u64): `released` (sequences below it are in written frames), `synced` (sequences
//! below it were synced, here or in frames). Both zero: never written. Without a check, one flipped bit in `released`
//! would hide every point of the file.
//!
//! Sequences count the writer's points one after the other. A bulk append of the writer's own series takes one, too,
//! and its batch says that sequences up to that are covered; in the file a record with series 4294967295 stands at its
//! place. Readers stop there unless the batch is seen: if it was lost in a power cut, no later point may take the place
//! of a lost one. A file that begins after bulk appends starts with `released` at their number.
//!
//! Block: slot 0 is its header (word 0: kind 1 = points, 2 = declarations; word 1: points: sequence of slot 1,
//! declarations: index of this block among them; word 2: check of both; word 3: 0). Points: slots 1..2047 are records
//! (word 0: series number | check << 32; word 1: step; word 2: timestamp; word 3: value bits). Declarations: from byte
//! 32 on entries (length u32, crc32 u32 seeded with the writer, a declaration as in `declare`), ended by length 0.
//!
//! Who writes what, and in which order:
//!
//! | word | writer | order |
//! |---|---|---|
//! | record words 1..3 | the logging thread, under the log lock | relaxed, before word 0 |
//! | record word 0 | the same | release: publishes the point |
//! | block header | the same, when it takes a free block | [`block_header_stores`], release, before any record in it |
//! | declaration entry | the same | bytes, then its length word, release, before the first record of its series |
//! | bulk mark | the appending thread, under both locks | as a record, after the batch is written |
//! | `released`, `synced` | the hand-over thread | written after the frames are (synced, if the records ever were) |
//!
//! A block is taken again only after `released` has passed its last sequence; its old records then fail their check,
//! because the sequence of each slot has changed.

use crate::codec::bytes::Reader;
use crate::error::Malformed;
use crate::format::frame::seeded_crc;
use crate::id::{StoreId, WriterId};
use crate::limits::{LIVE_BLOCK_BYTES, LIVE_RECORD_BYTES};
use crate::model::Point;

/// Bytes of the header page.
pub const LIVE_HEADER_BYTES: usize = 4096;
/// First bytes of a live file.
pub const LIVE_MAGIC: [u8; 8] = *b"MLRSLIV\n";
/// The major version this program writes and the newest it reads.
pub const LIVE_VERSION: u16 = 1;
/// Where `released` is.
pub const RELEASED_AT: usize = 256;
/// Where `synced` is.
pub const SYNCED_AT: usize = 272;
/// Bytes of such a word with its check.
pub const CURSOR_BYTES: usize = 16;
/// Records of one block.
pub const BLOCK_RECORDS: usize = LIVE_BLOCK_BYTES / LIVE_RECORD_BYTES - 1;
/// Kind of a block of points.
pub const BLOCK_POINTS: u64 = 1;
/// Kind of a block of declarations.
pub const BLOCK_DECLARATIONS: u64 = 2;

/// The series number of the mark that a bulk append leaves; no series has it.
pub const BULK_MARK: u32 = u32::MAX;

const HOST_BYTES_MAX: usize = 63;
const CRC_AT: usize = 252;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bytes in front of a batch's own payload: which live records are in frames up to and including this one. Lane u32
/// (0: there is one so far), then u64: records of the segment's writer with a lower sequence are covered.
pub const BATCH_PREFIX_BYTES: usize = 12;

/// The prefix of a batch payload.
pub fn encode_batch_prefix(lane: u32, live_to: u64) -> [u8; BATCH_PREFIX_BYTES] {
    let mut out = [0; BATCH_PREFIX_BYTES];
    out[..4].copy_from_slice(&lane.to_le_bytes());
    out[4..].copy_from_slice(&live_to.to_le_bytes());
    out
}

/// Reads the prefix of a batch payload: (lane, covered up to).
pub fn decode_batch_prefix(bytes: &[u8]) -> Result<(u32, u64), Malformed> {
    let mut cursor = Reader::new(bytes);
    Ok((cursor.u32()?, cursor.u64()?))
}

/// The unchanging part of a live file's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveHeader {
    /// Whose.
    pub writer: WriterId,
    /// The store it was made in.
    pub store: StoreId,
    /// The kernel's boot id: the same boot means that every acknowledged point must be there.
    pub boot: [u8; 16],
    /// The writing process.
    pub pid: u64,
    /// When it was made.
    pub created_ms: u64,
    /// The writing host, cut to 63 bytes.
    pub host: String,
}

impl LiveHeader {
    /// The header page.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LIVE_HEADER_BYTES);
        out.extend_from_slice(&LIVE_MAGIC);
        out.extend_from_slice(&LIVE_VERSION.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&(LIVE_HEADER_BYTES as u32).to_le_bytes());
        out.extend_from_slice(self.writer.as_bytes());
        out.extend_from_slice(self.store.as_bytes());
        out.extend_from_slice(&self.boot);
        out.extend_from_slice(&self.pid.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        let host = Self::host_as_stored(&self.host);
        out.push(host.len() as u8);
        out.extend_from_slice(host.as_bytes());
        out.resize(CRC_AT, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(LIVE_HEADER_BYTES, 0);
        out
    }

    /// A host's name as a header has it: cut where it is too long.
    pub fn host_as_stored(name: &str) -> &str {
        let mut len = name.len().min(HOST_BYTES_MAX);
        while !name.is_char_boundary(len) {
            len -= 1;
        }
        name.get(..len).unwrap_or_default()
    }

    /// Reads a header page; `Ok(Err(version))` for one of a newer program.
    pub fn decode(bytes: &[u8]) -> Result<Result<Self, u16>, Malformed> {
        let mut cursor = Reader::new(bytes);
        if cursor.array::<8>()? != LIVE_MAGIC {
            return Err(Malformed::new(0, "live file magic 'MLRSLIV'", 0));
        }
        let major = cursor.u16()?;
        let _minor = cursor.u16()?;
        let _len = cursor.u32()?;
        let header = Self {
            writer: WriterId::from_bytes(cursor.array()?),
            store: StoreId::from_bytes(cursor.array()?),
            boot: cursor.array()?,
            pid: cursor.u64()?,
            created_ms: cursor.u64()?,
            host: String::from_utf8_lossy(cursor.slice(HOST_BYTES_MAX, "a host name")?).into_owned(),
        };
        let covered = bytes.get(..CRC_AT).ok_or(Malformed::new(0, "a header page", bytes.len() as u64))?;
        let stored = Reader::new(bytes.get(CRC_AT..).unwrap_or_default()).u32()?;
        if crc32fast::hash(covered) != stored {
            return Err(Malformed::new(CRC_AT, "a live header whose crc fits", u64::from(stored)));
        }
        Ok(if major > LIVE_VERSION { Err(major) } else { Ok(header) })
    }
}

/// Where the checks of a live file's records start.
pub fn live_seed(writer: WriterId) -> u64 {
    let bytes = writer.as_bytes();
    let (low, high) = bytes.split_at(8);
    let word = |half: &[u8]| half.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    word(low) ^ word(high).rotate_left(32)
}

/// The four words of a record.
pub fn encode_record(seed: u64, sequence: u64, series: u32, point: Point) -> [u64; 4] {
    let words = [u64::from(series), point.step as u64, point.timestamp_ms as u64, point.value.to_bits()];
    [words[0] | u64::from(check(seed, sequence, words)) << 32, words[1], words[2], words[3]]
}

/// The record that stands for a bulk append.
pub fn encode_bulk_mark(seed: u64, sequence: u64) -> [u64; 4] {
    encode_record(seed, sequence, BULK_MARK, Point { step: 0, timestamp_ms: 0, value: 0.0 })
}

/// Reads a record; `None` if it is not the one with this sequence number.
pub fn decode_record(seed: u64, sequence: u64, words: [u64; 4]) -> Option<(u32, Point)> {
    let series = words[0] & 0xffff_ffff;
    let stored = (words[0] >> 32) as u32;
    if stored != check(seed, sequence, [series, words[1], words[2], words[3]]) {
        return None;
    }
    let point =
        Point { step: words[1] as i64, timestamp_ms: words[2] as i64, value: f64::from_bits(words[3]) };
    Some((series as u32, point))
}

/// The header words of a block.
pub fn encode_block_header(seed: u64, kind: u64, number: u64) -> [u64; 4] {
    [kind, number, u64::from(check(seed, !number, [kind, number, 0, 0])), 0]
}

/// The stores that give a block a header, in their order: (word, value). A writer that is killed between any two of
/// them leaves a block that is not in use, or one whose records are all released; never one that looks damaged.
pub fn block_header_stores(header: [u64; 4]) -> [(usize, u64); 6] {
    let [kind, number, check, rest] = header;
    [(0, 0), (2, 0), (1, number), (3, rest), (2, check), (0, kind)]
}

/// Reads a block's header: (kind, number); `None` if the block is not in use, or damaged. One whose kind is missing (it
/// is stored last) is known by its check.
pub fn decode_block_header(seed: u64, words: [u64; 4]) -> Option<(u64, u64)> {
    let fits = |kind: &u64| {
        let whole = encode_block_header(seed, *kind, words[1]);
        words[1..] == whole[1..] && (words[0] == *kind || words[0] == 0)
    };
    [BLOCK_POINTS, BLOCK_DECLARATIONS].into_iter().find(fits).map(|kind| (kind, words[1]))
}

/// Whether a block without a header that can be read is not in use, instead of damaged.
pub fn is_unused_block(words: [u64; 4]) -> bool {
    words[0] == 0 && words[2] == 0
}

/// One of the changing words with its check.
pub fn encode_cursor(seed: u64, at: usize, word: u64) -> [u8; CURSOR_BYTES] {
    let mut bytes = [0; CURSOR_BYTES];
    bytes[..8].copy_from_slice(&word.to_le_bytes());
    bytes[8..].copy_from_slice(&u64::from(check(seed, !(at as u64), [word, 0, 0, 0])).to_le_bytes());
    bytes
}

/// Reads one of the changing words; `None` if it is not what was written.
pub fn decode_cursor(seed: u64, at: usize, bytes: &[u8]) -> Option<u64> {
    let bytes: [u8; CURSOR_BYTES] = bytes.try_into().ok()?;
    if bytes == [0; CURSOR_BYTES] {
        return Some(0);
    }
    let word = Reader::new(&bytes).u64().ok()?;
    (encode_cursor(seed, at, word) == bytes).then_some(word)
}

/// Where the crc of a declaration entry starts.
pub fn declaration_seed(writer: WriterId) -> u32 {
    seeded_crc(0, writer.as_bytes())
}

/// A 32-bit mix of a record's words, its sequence and its writer; never 0, so that zeroed space never validates.
fn check(seed: u64, sequence: u64, words: [u64; 4]) -> u32 {
    let mut hash = seed ^ sequence.wrapping_mul(MULTIPLIER);
    for word in words {
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
        hash ^= hash >> 32;
    }
    ((hash >> 16) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_round_trips() {
        let header = LiveHeader {
            writer: WriterId::from_bytes([1; 16]),
            store: StoreId::from_bytes([2; 16]),
            boot: [3; 16],
            pid: 4711,
            created_ms: 1_700_000_000_000,
            host: "node-7".into(),
        };
        let mut page = header.encode();
        assert_eq!(page.len(), LIVE_HEADER_BYTES);
        page[RELEASED_AT] = 9;
        assert_eq!(LiveHeader::decode(&page), Ok(Ok(header)));
        page[40] ^= 1;
        assert!(LiveHeader::decode(&page).is_err());
        assert!(LiveHeader::decode(&page[..100]).is_err());
    }

    proptest! {
        #[test]
        fn a_record_is_valid_only_under_its_own_sequence_and_writer(
            seed: u64, sequence in 0u64..u64::MAX - 4096, series: u32, step: i64, timestamp_ms: i64, bits: u64,
            flipped in 0usize..256,
        ) {
            let point = Point { step, timestamp_ms, value: f64::from_bits(bits) };
            let words = encode_record(seed, sequence, series, point);
            let (back, read) = decode_record(seed, sequence, words).unwrap();
            let found = (back, read.step, read.timestamp_ms, read.value.to_bits());
            prop_assert_eq!(found, (series, step, timestamp_ms, bits));
            prop_assert!(decode_record(seed, sequence + BLOCK_RECORDS as u64, words).is_none());
            let mut torn = words;
            torn[flipped / 64] ^= 1 << (flipped % 64);
            prop_assert!(decode_record(seed, sequence, torn).is_none());
        }
    }

    #[test]
    fn a_changing_word_is_valid_only_whole_and_at_its_place() {
        let bytes = encode_cursor(7, RELEASED_AT, 1 << 40);
        assert_eq!(decode_cursor(7, RELEASED_AT, &bytes), Some(1 << 40));
        assert_eq!(decode_cursor(7, RELEASED_AT, &[0; CURSOR_BYTES]), Some(0));
        assert_eq!(decode_cursor(7, SYNCED_AT, &bytes), None);
        assert_eq!(decode_cursor(7, RELEASED_AT, &bytes[1..]), None);
        for bit in 0..CURSOR_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_cursor(7, RELEASED_AT, &damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn zeroed_space_is_never_valid() {
        assert!(decode_record(0, 0, [0; 4]).is_none());
        assert!(decode_block_header(0, [0; 4]).is_none());
        assert_eq!(
            decode_block_header(5, encode_block_header(5, BLOCK_POINTS, 77)),
            Some((BLOCK_POINTS, 77))
        );
        assert!(decode_block_header(5, encode_block_header(5, 3, 77)).is_none());
        assert!(is_unused_block([0; 4]) && !is_unused_block(encode_block_header(5, BLOCK_POINTS, 77)));
    }
}
