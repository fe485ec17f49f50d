//! Blobs: files kept as they are, addressed by content, in segments of their own.
//!
//! Contract: a blob is whole in one segment. Up to one chunk it is one frame; longer ones are chunk frames followed by
//! a manifest that names them, so that a reader streams with bounded memory and a torn upload is simply not there.
//!
//! Payload: form u8 (0 chunk, 1 manifest, 2 whole), then
//! * chunk: packing u8 (0 plain, 1 zstd), varint raw length, bytes;
//! * manifest: blob id 16, varint length, varint chunk count, varint offset deltas of the chunk frames;
//! * whole: blob id 16, then as a chunk.

use std::io::Read;

use crate::codec::bytes::{Reader, put_varint};
use crate::error::Malformed;
use crate::format::event::EntityKind;
use crate::id::BlobId;
use crate::limits::BLOB_CHUNK_BYTES_MAX;

/// How a blob's id stands in the directory.
pub const BLOB_ENTITY: EntityKind = EntityKind(0x8001);
/// zstd level for blobs: they are text most of the time, and written once.
const LEVEL: i32 = 3;

/// A decoded blob frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobFrame {
    /// Some bytes of a longer blob.
    Chunk(Vec<u8>),
    /// Where the chunks of a blob are.
    Manifest {
        /// Content address.
        id: BlobId,
        /// Length of the blob.
        len: u64,
        /// Offsets of the chunk frames, in order.
        chunks: Vec<u64>,
    },
    /// A blob of one chunk.
    Whole {
        /// Content address.
        id: BlobId,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// Appends the payload of a chunk.
pub fn encode_chunk(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    put_packed(bytes, out);
}

/// Appends the payload of a manifest.
pub fn encode_manifest(id: BlobId, len: u64, chunks: &[u64], out: &mut Vec<u8>) {
    out.push(1);
    out.extend_from_slice(id.as_bytes());
    put_varint(out, len);
    put_varint(out, chunks.len() as u64);
    let mut last = 0;
    for &offset in chunks {
        put_varint(out, offset - last);
        last = offset;
    }
}

/// Appends the payload of a whole blob.
pub fn encode_whole(id: BlobId, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(2);
    out.extend_from_slice(id.as_bytes());
    put_packed(bytes, out);
}

fn put_packed(bytes: &[u8], out: &mut Vec<u8>) {
    // A compressor that fails leaves the bytes plain: nothing depends on it.
    let packed = zstd::bulk::compress(bytes, LEVEL).ok().filter(|p| p.len() < bytes.len());
    out.push(u8::from(packed.is_some()));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(packed.as_deref().unwrap_or(bytes));
}

fn take_packed(cursor: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let at = cursor.position();
    let packing = cursor.u8()?;
    let raw_len = cursor.count(BLOB_CHUNK_BYTES_MAX, "a chunk of at most 1 MiB")?;
    let body = cursor.take(cursor.remaining())?;
    let bytes = match packing {
        0 => body.to_vec(),
        1 => {
            let mut bytes = Vec::with_capacity(raw_len);
            let decoder = zstd::stream::read::Decoder::with_buffer(body);
            let read = decoder.and_then(|d| d.take(raw_len as u64 + 1).read_to_end(&mut bytes));
            read.map_err(|_| Malformed::new(at, "a zstd frame", body.len() as u64))?;
            bytes
        }
        other => return Err(Malformed::new(at, "packing 0 or 1", u64::from(other))),
    };
    if bytes.len() != raw_len {
        return Err(Malformed::new(at, "the chunk's whole length", bytes.len() as u64));
    }
    Ok(bytes)
}

/// Reads a payload.
pub fn decode_blob(payload: &[u8]) -> Result<BlobFrame, Malformed> {
    let mut cursor = Reader::new(payload);
    match cursor.u8()? {
        0 => Ok(BlobFrame::Chunk(take_packed(&mut cursor)?)),
        1 => {
            let id = BlobId::from_bytes(cursor.array()?);
            let len = cursor.varint()?;
            let count = cursor.count(cursor.remaining(), "a count of chunks that fits")?;
            let mut chunks = Vec::with_capacity(count);
            let mut offset = 0u64;
            for _ in 0..count {
                let at = cursor.position();
                offset =
                    offset.checked_add(cursor.varint()?).ok_or(Malformed::new(at, "an offset", offset))?;
                chunks.push(offset);
            }
            Ok(BlobFrame::Manifest { id, len, chunks })
        }
        2 => {
            let id = BlobId::from_bytes(cursor.array()?);
            Ok(BlobFrame::Whole { id, bytes: take_packed(&mut cursor)? })
        }
        other => Err(Malformed::new(0, "blob form 0, 1 or 2", u64::from(other))),
    }
}

/// The id of the blob that a frame completes, without unpacking it.
pub fn blob_of(payload: &[u8]) -> Option<BlobId> {
    let mut cursor = Reader::new(payload);
    match cursor.u8().ok()? {
        1 | 2 => Some(BlobId::from_bytes(cursor.array().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blobs_round_trip(bytes: Vec<u8>, offsets in proptest::collection::vec(0u64..1 << 40, 0..9)) {
            let id = BlobId::derived("test", &[&bytes]);
            let mut out = Vec::new();
            encode_whole(id, &bytes, &mut out);
            prop_assert_eq!(blob_of(&out), Some(id));
            prop_assert_eq!(decode_blob(&out), Ok(BlobFrame::Whole { id, bytes: bytes.clone() }));
            let mut out = Vec::new();
            encode_chunk(&bytes, &mut out);
            prop_assert_eq!(decode_blob(&out), Ok(BlobFrame::Chunk(bytes)));
            let mut chunks = offsets;
            chunks.sort_unstable();
            let mut out = Vec::new();
            encode_manifest(id, 99, &chunks, &mut out);
            prop_assert_eq!(decode_blob(&out), Ok(BlobFrame::Manifest { id, len: 99, chunks }));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_blob(&bytes);
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_unpacks() {
        let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 3).unwrap();
        let mut out = vec![0u8, 1];
        put_varint(&mut out, 1024);
        out.extend_from_slice(&bomb);
        assert!(decode_blob(&out).is_err());
    }
}
