//! Blobs out of segments.
//!
//! Contract: streamed in chunks of at most 1 MiB; each is checked by its frame's crc.

use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::blob::{BlobFrame, decode_blob};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameKind};
use crate::id::{BlobId, Uid};
use crate::log::Segment;
use crate::log::reader::View;

impl View {
    fn find_blob(&self, id: BlobId) -> Result<Option<(Arc<Segment>, u64)>> {
        let uid = Uid::from_bytes(*id.as_bytes());
        for (segment, state) in self.segments.iter().filter(|(s, _)| s.holds_blobs()) {
            for directory in &state.directories {
                if let Some(offset) = segment.entry(directory, uid)?.and_then(|e| e.events.last().copied()) {
                    return Ok(Some((Arc::clone(segment), offset)));
                }
            }
            let tail = state.tail.entities.get(&uid).and_then(|(_, e)| e.events.last().copied());
            if let Some(offset) = tail {
                return Ok(Some((Arc::clone(segment), offset)));
            }
        }
        Ok(None)
    }

    /// Whether a blob is stored.
    pub(crate) fn has_blob(&self, id: BlobId) -> Result<bool> {
        Ok(self.find_blob(id)?.is_some())
    }

    /// A blob's bytes, streamed in chunks of at most 1 MiB; `None` if it is not stored.
    pub(crate) fn blob_reader(&self, id: BlobId) -> Result<Option<BlobReader>> {
        let Some((segment, offset)) = self.find_blob(id)? else { return Ok(None) };
        let mut reader = BlobReader { segment, chunks: Vec::new(), ready: Vec::new(), at: 0 };
        match reader.frame(offset)? {
            BlobFrame::Whole { bytes, .. } => reader.ready = bytes,
            BlobFrame::Manifest { mut chunks, .. } => {
                chunks.reverse();
                reader.chunks = chunks;
            }
            BlobFrame::Chunk(_) => {
                let path = &reader.segment.path;
                return Err(Error::corrupt(path, offset, "a blob's last frame", "a chunk"));
            }
        }
        Ok(Some(reader))
    }
}

/// Reads a blob.
#[derive(Debug)]
pub(crate) struct BlobReader {
    segment: Arc<Segment>,
    /// Offsets of the chunks that are still to come, the next one last.
    chunks: Vec<u64>,
    ready: Vec<u8>,
    at: usize,
}

impl BlobReader {
    fn frame(&self, offset: u64) -> Result<BlobFrame> {
        let payload = self.segment.read_payload(offset, FrameKind::Blob)?;
        decode_blob(&payload).map_err(|m| m.at(&self.segment.path, offset + FRAME_HEADER_BYTES as u64))
    }
}

impl io::Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() {
            let Some(offset) = self.chunks.pop() else { return Ok(0) };
            match self.frame(offset).map_err(io::Error::other)? {
                BlobFrame::Chunk(bytes) => (self.ready, self.at) = (bytes, 0),
                _ => return Err(io::Error::other(format!("no blob chunk at byte {offset}"))),
            }
        }
        let ready = self.ready.get(self.at..).unwrap_or_default();
        let len = ready.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..len), ready.get(..len)) {
            to.copy_from_slice(from);
        }
        self.at += len;
        Ok(len)
    }
}
