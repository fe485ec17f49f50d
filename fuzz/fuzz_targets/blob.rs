//! Blob frames: chunks, manifests, whole blobs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlrs_db::format::blob::{BlobFrame, blob_of, decode_blob, encode_chunk, encode_whole};

fuzz_target!(|input: &[u8]| {
    let id = blob_of(input);
    let mut bytes = Vec::new();
    match decode_blob(input) {
        Ok(BlobFrame::Chunk(chunk)) => {
            assert_eq!(id, None);
            encode_chunk(&chunk, &mut bytes);
            assert_eq!(decode_blob(&bytes), Ok(BlobFrame::Chunk(chunk)));
        }
        Ok(BlobFrame::Whole { id: whole, bytes: content }) => {
            assert_eq!(id, Some(whole));
            encode_whole(whole, &content, &mut bytes);
            assert_eq!(decode_blob(&bytes), Ok(BlobFrame::Whole { id: whole, bytes: content }));
        }
        Ok(BlobFrame::Manifest { id: manifest, .. }) => assert_eq!(id, Some(manifest)),
        Err(_) => {}
    }
});
