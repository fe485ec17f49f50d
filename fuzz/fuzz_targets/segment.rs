//! A whole segment of frames whose checksums fit: what reading, following, recovering and sealing make of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlrs_db::format::frame::{FRAME_HEADER_BYTES, FrameKind, finish_frame, frame_seed};
use mlrs_db::format::segment::{SegmentHeader, SegmentKind};
use mlrs_db::id::SegmentId;
use mlrs_db_fuzz::{SEGMENT, STORE, WRITER, ask_everything, byte, number, take};

const FRAMES_MAX: usize = 12;

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let write = byte(&mut rest) % 32 == 31;
    let header = SegmentHeader {
        features: 0,
        kind: match byte(&mut rest) % 3 {
            0 => SegmentKind::Log,
            1 => SegmentKind::Sealed,
            _ => SegmentKind::Blobs,
        },
        id: SEGMENT,
        writer: WRITER,
        number: 0,
        predecessor: SegmentId::default(),
        predecessor_len: 0,
        created_ms: 1,
        store: STORE,
    };
    let mut file = header.encode().to_vec();
    for _ in 0..FRAMES_MAX {
        if rest.is_empty() {
            break;
        }
        let kind = FrameKind::from_number(byte(&mut rest) % 10);
        let flags = u16::from(byte(&mut rest) & 3);
        let len = number(&mut rest, 2) as usize;
        let unchecked = number(&mut rest, 2) as usize;
        let payload = take(&mut rest, len);
        let start = file.len();
        file.resize(start + FRAME_HEADER_BYTES, 0);
        file.extend_from_slice(payload);
        let checked = payload.len().saturating_sub(unchecked);
        finish_frame(&mut file, start, kind, flags, checked, frame_seed(SEGMENT, start as u64), 0);
    }
    ask_everything(format!("/s/log/{WRITER}-0.seg").into(), file, write);
});
