//! Frame headers, as they are and behind checksums that fit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlrs_db::format::frame::{FRAME_HEADER_BYTES, check_payload, frame_seed, read_frame_header, seeded_crc};
use mlrs_db_fuzz::SEGMENT;

const OFFSET: u64 = 4096;

fuzz_target!(|input: &[u8]| {
    let _ = read_frame_header(input, SEGMENT, OFFSET);
    if input.len() < FRAME_HEADER_BYTES {
        return;
    }
    let mut bytes = input.to_vec();
    bytes[..4].copy_from_slice(b"MLFR");
    let crc = seeded_crc(frame_seed(SEGMENT, OFFSET), &bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    assert!(read_frame_header(&bytes, SEGMENT, OFFSET + 1).is_err(), "valid at another place");
    if let Ok(header) = read_frame_header(&bytes, SEGMENT, OFFSET) {
        assert!(header.checked_len <= header.payload_len);
        let _ = OFFSET + header.frame_len();
        let _ = check_payload(&header, &bytes[FRAME_HEADER_BYTES..], SEGMENT, OFFSET);
    }
});
