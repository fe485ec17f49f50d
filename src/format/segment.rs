//! Segment header, footer, and the list of segments that a segment replaces.
//!
//! Contract: the header is 128 bytes and written once. Feature bits come in three kinds: *incompatible* (a program that
//! does not know one must not read the file), *read-compatible* (may read, must not rewrite), *ignorable*.
//!
//! Header:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `MLRSSEG\n` |
//! | 8 | 2 | major version: 1 |
//! | 10 | 2 | minor version: 0 |
//! | 12 | 4 | header length: 128 |
//! | 16 | 4 | incompatible features |
//! | 20 | 4 | read-compatible features |
//! | 24 | 4 | ignorable features |
//! | 28 | 1 | segment kind: 0 log, 1 sealed, 2 blobs |
//! | 29 | 3 | 0 |
//! | 32 | 16 | segment id, random |
//! | 48 | 16 | writer id |
//! | 64 | 8 | number within the writer, from 0 |
//! | 72 | 16 | segment id of the predecessor, 0 for the first |
//! | 88 | 8 | valid length of the predecessor |
//! | 96 | 8 | created, ms since 1970 |
//! | 104 | 16 | store id |
//! | 120 | 4 | 0 |
//! | 124 | 4 | crc32 of bytes 0..124 |
//!
//! Footer payload (a frame of kind Footer, the last 104 bytes of a closed segment): last directory offset u64, last
//! event offset u64, frames u64, points u64, events u64, BLAKE3 hash (32 bytes) of everything before it.

use crate::codec::bytes::{Reader, put_varint};
use crate::error::Malformed;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::id::{SegmentId, StoreId, WriterId};

/// Bytes of a segment header.
pub const SEGMENT_HEADER_BYTES: usize = 128;
/// First bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"MLRSSEG\n";
/// The major version this program writes and the newest it reads.
pub const SEGMENT_VERSION: u16 = 1;
/// Incompatible features this program knows (none yet).
pub const FEATURES_INCOMPATIBLE_KNOWN: u32 = 0;
/// Read-compatible features this program knows (none yet).
pub const FEATURES_READ_COMPATIBLE_KNOWN: u32 = 0;
/// Bytes of a footer's payload.
pub const FOOTER_PAYLOAD_BYTES: usize = 5 * 8 + 32;
/// Bytes of a whole footer frame.
pub const FOOTER_FRAME_BYTES: usize = FRAME_HEADER_BYTES + FOOTER_PAYLOAD_BYTES;

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// What a writer did, in order.
    Log,
    /// The same, sorted by run and key into long columns.
    Sealed,
    /// Chunks of blobs.
    Blobs,
}

/// A decoded segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What it is for.
    pub kind: SegmentKind,
    /// Read-compatible features: who does not know one may read the segment, and must not rewrite it.
    pub features: u32,
    /// Its random id.
    pub id: SegmentId,
    /// Whose it is.
    pub writer: WriterId,
    /// Number within the writer.
    pub number: u64,
    /// Id of the writer's previous segment, zero for the first.
    pub predecessor: SegmentId,
    /// Length of the predecessor when this one was begun.
    pub predecessor_len: u64,
    /// When it was begun.
    pub created_ms: u64,
    /// The store it was made in (a copy in another store keeps it).
    pub store: StoreId,
}

/// Why a segment header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderProblem {
    /// The bytes are damaged or no segment.
    Malformed(Malformed),
    /// A newer program wrote it: (found, supported).
    Newer(String, String),
}

impl SegmentHeader {
    /// The 128 bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&(SEGMENT_HEADER_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.features.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let kind = match self.kind {
            SegmentKind::Log => 0,
            SegmentKind::Sealed => 1,
            SegmentKind::Blobs => 2,
        };
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.writer.as_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(self.predecessor.as_bytes());
        out.extend_from_slice(&self.predecessor_len.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(self.store.as_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// Reads a header; checks magic, crc, version and features, in this order.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderProblem> {
        Self::decode_inner(bytes).map_err(HeaderProblem::Malformed)?
    }

    /// Reads a header in which one bit is flipped; also says which. The crc tells any two single flips apart.
    pub fn repair(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Option<(Self, usize)> {
        let mut tried = *bytes;
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let flip = |tried: &mut [u8; SEGMENT_HEADER_BYTES]| {
                tried.iter_mut().skip(bit / 8).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            };
            flip(&mut tried);
            if let Ok(header) = Self::decode(&tried) {
                return Some((header, bit));
            }
            flip(&mut tried);
        }
        None
    }

    fn decode_inner(bytes: &[u8]) -> Result<Result<Self, HeaderProblem>, Malformed> {
        let mut cursor = Reader::new(bytes);
        let magic: [u8; 8] = cursor.array()?;
        if magic != SEGMENT_MAGIC {
            return Err(Malformed::new(0, "segment magic 'MLRSSEG'", 0));
        }
        let major = cursor.u16()?;
        let minor = cursor.u16()?;
        let header_len = cursor.u32()?;
        let incompatible = cursor.u32()?;
        let features = cursor.u32()?;
        let _ignorable = cursor.u32()?;
        let kind: [u8; 4] = cursor.array()?;
        let header = Self {
            kind: match kind[0] {
                1 => SegmentKind::Sealed,
                2 => SegmentKind::Blobs,
                _ => SegmentKind::Log,
            },
            features,
            id: SegmentId::from_bytes(cursor.array()?),
            writer: WriterId::from_bytes(cursor.array()?),
            number: cursor.u64()?,
            predecessor: SegmentId::from_bytes(cursor.array()?),
            predecessor_len: cursor.u64()?,
            created_ms: cursor.u64()?,
            store: StoreId::from_bytes(cursor.array()?),
        };
        let _reserved = cursor.u32()?;
        let crc = cursor.u32()?;
        if crc32fast::hash(bytes.get(..124).unwrap_or_default()) != crc {
            return Err(Malformed::new(124, "a segment header whose crc fits", u64::from(crc)));
        }
        // The crc is right, so what follows was meant by whoever wrote it.
        if major > SEGMENT_VERSION {
            let newer = HeaderProblem::Newer(format!("{major}.{minor}"), format!("{SEGMENT_VERSION}.x"));
            return Ok(Err(newer));
        }
        let unknown = incompatible & !FEATURES_INCOMPATIBLE_KNOWN;
        if unknown != 0 || kind[0] > 2 {
            return Ok(Err(HeaderProblem::Newer(
                format!("{major}.{minor} with features {unknown:#x} and kind {}", kind[0]),
                format!("{SEGMENT_VERSION}.x with features {FEATURES_INCOMPATIBLE_KNOWN:#x}"),
            )));
        }
        if header_len as usize != SEGMENT_HEADER_BYTES {
            return Err(Malformed::new(12, "header length 128", u64::from(header_len)));
        }
        Ok(Ok(header))
    }
}

/// What a closed segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Footer {
    /// Offset of the last directory frame.
    pub last_directory: u64,
    /// Offset of the last event frame, 0 if none.
    pub last_event: u64,
    /// Frames before the footer.
    pub frames: u64,
    /// Points in all batches.
    pub points: u64,
    /// Events.
    pub events: u64,
    /// BLAKE3 of everything before the footer frame.
    pub digest: [u8; 32],
}

impl SegmentHeader {
    /// Whether this program knows all that it would lose by writing the segment anew.
    pub fn may_rewrite(&self) -> bool {
        self.features & !FEATURES_READ_COMPATIBLE_KNOWN == 0
    }
}

impl Footer {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.last_directory, self.last_event, self.frames, self.points, self.events] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.digest);
    }

    /// Reads a payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Reader::new(bytes);
        Ok(Self {
            last_directory: cursor.u64()?,
            last_event: cursor.u64()?,
            frames: cursor.u64()?,
            points: cursor.u64()?,
            events: cursor.u64()?,
            digest: cursor.array()?,
        })
    }
}

/// One segment that another one holds everything of. A hint that saves reading: identities decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Whose.
    pub writer: WriterId,
    /// Number within the writer.
    pub number: u64,
    /// Its id.
    pub id: SegmentId,
    /// How much of it was read.
    pub valid_len: u64,
    /// Payload crc of the last frame within that length; 0 where it is not said.
    pub last_crc: u32,
}

/// Appends the payload of a Replaces frame.
pub fn encode_replaced(list: &[Replaced], out: &mut Vec<u8>) {
    put_varint(out, list.len() as u64);
    for one in list {
        out.extend_from_slice(one.writer.as_bytes());
        put_varint(out, one.number);
        out.extend_from_slice(one.id.as_bytes());
        put_varint(out, one.valid_len);
        out.extend_from_slice(&one.last_crc.to_le_bytes());
    }
}

/// Reads the payload of a Replaces frame.
pub fn decode_replaced(bytes: &[u8]) -> Result<Vec<Replaced>, Malformed> {
    let mut cursor = Reader::new(bytes);
    let count = cursor.count(bytes.len() / 38, "a count of segments that fits the frame")?;
    (0..count)
        .map(|_| {
            Ok(Replaced {
                writer: WriterId::from_bytes(cursor.array()?),
                number: cursor.varint()?,
                id: SegmentId::from_bytes(cursor.array()?),
                valid_len: cursor.varint()?,
                last_crc: cursor.u32()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Sealed,
            features: 0,
            id: SegmentId::from_bytes([1; 16]),
            writer: WriterId::from_bytes([2; 16]),
            number: 7,
            predecessor: SegmentId::from_bytes([3; 16]),
            predecessor_len: 4096,
            created_ms: 1_700_000_000_000,
            store: StoreId::from_bytes([4; 16]),
        }
    }

    #[test]
    fn header_round_trips_and_notices_every_flipped_bit() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SegmentHeader::decode(&damaged), Err(HeaderProblem::Malformed(_))), "bit {bit}");
            assert_eq!(SegmentHeader::repair(&damaged), Some((header(), bit)));
            damaged[(bit / 8 + 60) % 128] ^= 0x11;
            assert_eq!(SegmentHeader::repair(&damaged), None);
        }
    }

    #[test]
    fn a_newer_version_is_named_with_both_versions() {
        let mut bytes = header().encode();
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
        let Err(HeaderProblem::Newer(found, supported)) = SegmentHeader::decode(&bytes) else { panic!() };
        assert_eq!((found.as_str(), supported.as_str()), ("9.0", "1.x"));
    }

    #[test]
    fn replaced_lists_round_trip() {
        let one = Replaced {
            writer: WriterId::from_bytes([9; 16]),
            number: 3,
            id: SegmentId::from_bytes([8; 16]),
            valid_len: 1 << 20,
            last_crc: 77,
        };
        let mut bytes = Vec::new();
        encode_replaced(&[one, one], &mut bytes);
        assert_eq!(decode_replaced(&bytes), Ok(vec![one, one]));
        assert!(decode_replaced(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode_replaced(&[0xff, 0xff, 0xff, 0x7f]).is_err());
    }
}
