//! The 32-byte header before everything in a segment.
//!
//! Contract: a frame is valid only at the offset and in the segment it was written for, because both crcs start from
//! [`frame_seed`]. The header says how many bytes follow, so a reader can step over kinds it does not know.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `MLFR`, for resynchronising after damage |
//! | 4 | 1 | kind |
//! | 5 | 1 | version of the kind |
//! | 6 | 2 | flags: bit 0 = ignorable if unknown, bit 1 = counts only if the next frame is whole |
//! | 8 | 4 | payload length |
//! | 12 | 4 | checked length: the first bytes of the payload, which the payload crc covers |
//! | 16 | 4 | payload crc |
//! | 20 | 8 | offset of the segment's previous metadata frame, 0 if none |
//! | 28 | 4 | header crc over bytes 0..28 |

use crate::codec::bytes::Reader;
use crate::error::Malformed;
use crate::id::SegmentId;
use crate::limits::FRAME_BYTES_MAX;

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// First bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"MLFR";
/// Flag: a reader that does not know the kind or version may skip the frame.
pub const FLAG_IGNORABLE: u16 = 1;

/// Flag: this frame counts only if the next one is whole, too: what one call wrote is there or not.
pub const FLAG_GROUPED: u16 = 2;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Declarations of series (`declare`).
    Declare,
    /// A batch of metric columns (`batch`).
    Batch,
    /// A metadata event (`event`).
    Event,
    /// Where things are in this segment (`directory`).
    Directory,
    /// The end of a closed segment (`segment`).
    Footer,
    /// A chunk of a blob (`blob`).
    Blob,
    /// Which segments this one replaces (`segment`).
    Replaces,
    /// Bytes of no meaning, left by a write that failed half-way.
    Filler,
    /// A kind of a newer program.
    Unknown(u8),
}

impl FrameKind {
    /// The number on disk.
    pub const fn number(self) -> u8 {
        match self {
            Self::Declare => 1,
            Self::Batch => 2,
            Self::Event => 3,
            Self::Directory => 4,
            Self::Footer => 5,
            Self::Blob => 6,
            Self::Replaces => 7,
            Self::Filler => 8,
            Self::Unknown(number) => number,
        }
    }

    /// From the number on disk.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Declare,
            2 => Self::Batch,
            3 => Self::Event,
            4 => Self::Directory,
            5 => Self::Footer,
            6 => Self::Blob,
            7 => Self::Replaces,
            8 => Self::Filler,
            other => Self::Unknown(other),
        }
    }

    /// The newest version of this kind that this program reads; 0 for unknown kinds.
    pub const fn version_max(self) -> u8 {
        match self {
            Self::Unknown(_) => 0,
            _ => 1,
        }
    }
}

/// A decoded frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it holds.
    pub kind: FrameKind,
    /// Version of the kind.
    pub version: u8,
    /// Flags.
    pub flags: u16,
    /// Length of the payload.
    pub payload_len: u32,
    /// Length of its checked prefix.
    pub checked_len: u32,
    /// Crc of the checked prefix.
    pub payload_crc: u32,
    /// The segment's previous metadata frame.
    pub previous_event: u64,
}

impl FrameHeader {
    /// Whole length of the frame.
    pub const fn frame_len(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + self.payload_len as u64
    }

    /// Whether this program can read the payload.
    pub const fn is_known(&self) -> bool {
        !matches!(self.kind, FrameKind::Unknown(_)) && self.version <= self.kind.version_max()
    }

    /// Whether it may be skipped if not known.
    pub const fn is_ignorable(&self) -> bool {
        self.flags & FLAG_IGNORABLE != 0
    }

    /// Whether it counts only together with the next frame.
    pub const fn is_grouped(&self) -> bool {
        self.flags & FLAG_GROUPED != 0
    }
}

/// Where the crcs of a frame start: it belongs to this place in this segment and nowhere else.
pub fn frame_seed(segment: SegmentId, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(segment.as_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.finalize()
}

/// A crc32 (IEEE) that continues from a seed.
pub fn seeded_crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// Ends a frame whose payload stands behind `FRAME_HEADER_BYTES` bytes reserved at `start` of `out`.
///
/// # Panics
/// If the payload is longer than [`FRAME_BYTES_MAX`] or the checked part longer than the payload: a bug of the caller,
/// which splits long payloads.
pub fn finish_frame(
    out: &mut [u8],
    start: usize,
    kind: FrameKind,
    flags: u16,
    checked_len: usize,
    seed: u32,
    previous_event: u64,
) {
    let payload_start = start + FRAME_HEADER_BYTES;
    let payload_len = out.len() - payload_start;
    assert!(payload_len <= FRAME_BYTES_MAX && checked_len <= payload_len, "frame payload too long");
    let payload_crc = seeded_crc(seed, &out[payload_start..payload_start + checked_len]);
    let mut header = [0u8; FRAME_HEADER_BYTES];
    header[0..4].copy_from_slice(&FRAME_MAGIC);
    header[4] = kind.number();
    header[5] = kind.version_max();
    header[6..8].copy_from_slice(&flags.to_le_bytes());
    header[8..12].copy_from_slice(&(payload_len as u32).to_le_bytes());
    header[12..16].copy_from_slice(&(checked_len as u32).to_le_bytes());
    header[16..20].copy_from_slice(&payload_crc.to_le_bytes());
    header[20..28].copy_from_slice(&previous_event.to_le_bytes());
    let crc = seeded_crc(seed, &header[0..28]);
    header[28..32].copy_from_slice(&crc.to_le_bytes());
    out[start..payload_start].copy_from_slice(&header);
}

/// Reads a frame header that starts at `offset` of `segment`.
pub fn read_frame_header(bytes: &[u8], segment: SegmentId, offset: u64) -> Result<FrameHeader, Malformed> {
    let mut cursor = Reader::new(bytes);
    let magic: [u8; 4] = cursor.array()?;
    if magic != FRAME_MAGIC {
        return Err(Malformed::new(0, "frame magic 'MLFR'", u64::from(u32::from_le_bytes(magic))));
    }
    let kind = FrameKind::from_number(cursor.u8()?);
    let version = cursor.u8()?;
    let flags = cursor.u16()?;
    let payload_len = cursor.u32()?;
    let checked_len = cursor.u32()?;
    let payload_crc = cursor.u32()?;
    let previous_event = cursor.u64()?;
    let crc = cursor.u32()?;
    let covered = bytes.get(0..28).unwrap_or_default();
    let computed = seeded_crc(frame_seed(segment, offset), covered);
    if computed != crc {
        return Err(Malformed::new(28, "a frame header whose crc fits its place", u64::from(crc)));
    }
    if payload_len as usize > FRAME_BYTES_MAX || checked_len > payload_len || previous_event >= offset.max(1)
    {
        return Err(Malformed::new(8, "lengths within limits", u64::from(payload_len)));
    }
    Ok(FrameHeader { kind, version, flags, payload_len, checked_len, payload_crc, previous_event })
}

/// Checks the checked part of a payload against its header.
pub fn check_payload(
    header: &FrameHeader,
    checked: &[u8],
    segment: SegmentId,
    offset: u64,
) -> Result<(), Malformed> {
    if checked.len() != header.checked_len as usize {
        return Err(Malformed::new(FRAME_HEADER_BYTES, "the whole checked payload", checked.len() as u64));
    }
    let computed = seeded_crc(frame_seed(segment, offset), checked);
    if computed != header.payload_crc {
        return Err(Malformed::new(FRAME_HEADER_BYTES, "a payload whose crc fits", u64::from(computed)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(offset: u64) -> Vec<u8> {
        let mut out = vec![0u8; FRAME_HEADER_BYTES];
        out.extend_from_slice(b"hello world");
        finish_frame(&mut out, 0, FrameKind::Event, 0, 5, frame_seed(SegmentId::default(), offset), 128);
        out
    }

    #[test]
    fn a_frame_is_valid_only_where_it_was_written() {
        let bytes = sample(500);
        let header = read_frame_header(&bytes, SegmentId::default(), 500).unwrap();
        assert_eq!((header.kind, header.payload_len, header.checked_len), (FrameKind::Event, 11, 5));
        assert_eq!(header.previous_event, 128);
        check_payload(&header, b"hello", SegmentId::default(), 500).unwrap();
        assert!(read_frame_header(&bytes, SegmentId::default(), 501).is_err());
        assert!(read_frame_header(&bytes, SegmentId::from_bytes([1; 16]), 500).is_err());
    }

    #[test]
    fn every_flipped_bit_of_header_and_checked_payload_is_noticed() {
        let bytes = sample(500);
        for bit in 0..(FRAME_HEADER_BYTES + 5) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let whole = read_frame_header(&damaged, SegmentId::default(), 500).and_then(|h| {
                let end = FRAME_HEADER_BYTES + h.checked_len as usize;
                check_payload(&h, &damaged[FRAME_HEADER_BYTES..end], SegmentId::default(), 500)
            });
            assert!(whole.is_err(), "bit {bit}");
        }
    }
}
