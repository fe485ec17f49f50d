//! Directory frames: the head, then the block of every entity; and summaries, declarations and segment headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlrs_db::codec::bytes::Reader;
use mlrs_db::codec::summary::Summary;
use mlrs_db::format::declare::{decode_declarations, encode_declarations};
use mlrs_db::format::directory::DirectoryHead;
use mlrs_db::format::segment::{Footer, SegmentHeader, decode_replaced};
use mlrs_db_fuzz::{WRITER, number};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let checked = (number(&mut rest, 2) as usize).min(rest.len());
    if let Ok(head) = DirectoryHead::decode(&rest[..checked], rest.len() as u32, 1 << 30) {
        for row in &head.rows {
            let from = row.block_offset as usize;
            // What the decoder let pass lies inside the frame.
            let block = &rest[from..from + row.block_len as usize];
            if let Ok(entry) = head.decode_block(WRITER, block) {
                for series in &entry.series {
                    assert!(series.postings.iter().all(|p| (p.frame as usize) < head.frames.len()));
                    let _ = Summary::decode(&mut Reader::new(&series.extent.summary));
                    let _ = series.extent.first_ordinal + series.extent.points;
                }
            }
        }
    }
    let _ = Summary::decode(&mut Reader::new(rest));
    let _ = decode_replaced(rest);
    let _ = Footer::decode(rest);
    let _ = SegmentHeader::decode(rest);
    if let Ok(list) = decode_declarations(WRITER, rest) {
        let mut bytes = Vec::new();
        encode_declarations(WRITER, &list.iter().collect::<Vec<_>>(), &mut bytes);
        assert_eq!(decode_declarations(WRITER, &bytes), Ok(list));
    }
});
