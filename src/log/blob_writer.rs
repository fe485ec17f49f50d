//! Blobs into segments of their own: whole if small, else in chunks and a manifest.
//!
//! Contract: streamed, never more than a chunk in memory; the id is the content's hash.

use crate::error::{Error, Result};
use crate::format::blob::{encode_chunk, encode_manifest, encode_whole};
use crate::id::BlobId;
use crate::limits::BLOB_CHUNK_BYTES_MAX;
use crate::log::writer_state::{SegmentSide, Shared};

impl Shared {
    pub(super) fn put_blob(
        &self,
        side: &mut SegmentSide,
        source: &mut dyn std::io::Read,
    ) -> Result<(BlobId, u64)> {
        let mut hasher = blake3::Hasher::new();
        let mut len = 0u64;
        let mut chunks = Vec::new();
        let mut payload = Vec::new();
        let mut buffer = vec![0u8; BLOB_CHUNK_BYTES_MAX];
        let mut ready = fill(source, &mut buffer)?;
        loop {
            let bytes = buffer.get(..ready).unwrap_or_default();
            hasher.update(bytes);
            len += ready as u64;
            payload.clear();
            if ready < BLOB_CHUNK_BYTES_MAX && chunks.is_empty() {
                let id = blob_id(&hasher);
                encode_whole(id, bytes, &mut payload);
                self.blob_segment(side)?.append_blob(&payload, Some(id))?;
                return Ok((id, len));
            }
            if ready > 0 {
                encode_chunk(bytes, &mut payload);
                chunks.push(self.blob_segment(side)?.append_blob(&payload, None)?);
            }
            if ready < BLOB_CHUNK_BYTES_MAX {
                let id = blob_id(&hasher);
                payload.clear();
                encode_manifest(id, len, &chunks, &mut payload);
                self.blob_segment(side)?.append_blob(&payload, Some(id))?;
                return Ok((id, len));
            }
            ready = fill(source, &mut buffer)?;
        }
    }
}

fn fill(source: &mut dyn std::io::Read, buffer: &mut [u8]) -> Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match source.read(buffer.get_mut(at..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::InvalidArgument(format!("cannot read the source of a blob: {e}"))),
        }
    }
    Ok(at)
}

/// The content address of bytes.
pub(crate) fn blob_address(bytes: &[u8]) -> BlobId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    blob_id(&hasher)
}

fn blob_id(hasher: &blake3::Hasher) -> BlobId {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    BlobId::from_bytes(bytes)
}
