//! A live file that holds some records and nothing else: how a copy of a store takes the points of a living writer.
//!
//! Contract: a plain copy of a file that is written meanwhile has holes where later blocks were copied after earlier
//! ones. An image has none: what it holds joins, in the format of any live file, under the same writer and sequences.

use std::collections::BTreeSet;

use crate::format::declare::put_declaration;
use crate::format::frame::seeded_crc;
use crate::format::live::{
    BLOCK_DECLARATIONS, BLOCK_POINTS, BLOCK_RECORDS, RELEASED_AT, SYNCED_AT, declaration_seed,
    encode_block_header, encode_cursor, encode_record, live_seed,
};
use crate::limits::{LIVE_BLOCK_BYTES, LIVE_RECORD_BYTES};
use crate::log::live_reader::{LiveRecord, LiveWindow};

/// The bytes of a live file of the window's writer with `records`, which join from `from` on; all before it are in
/// frames.
pub(crate) fn live_image(window: &LiveWindow, from: u64, records: &[LiveRecord]) -> Vec<u8> {
    let writer = window.header.writer;
    let seed = live_seed(writer);
    let mut image = window.header.encode();
    let end = from.saturating_add(records.len() as u64);
    for (at, word) in [(RELEASED_AT, from), (SYNCED_AT, end)] {
        let cursor = encode_cursor(seed, at, word);
        image.iter_mut().skip(at).zip(cursor).for_each(|(to, byte)| *to = byte);
    }
    let numbers: BTreeSet<u32> = records.iter().map(|r| r.series).collect();
    let mut block = Vec::new();
    let mut blocks = 0;
    for declaration in numbers.iter().filter_map(|number| window.declarations.get(number)) {
        let mut bytes = Vec::new();
        put_declaration(writer, declaration, None, &mut bytes);
        let len = 8 + bytes.len().next_multiple_of(8);
        if block.len() + len > LIVE_BLOCK_BYTES {
            end_block(&mut image, &mut block);
        }
        if block.is_empty() {
            put_words(&mut block, encode_block_header(seed, BLOCK_DECLARATIONS, blocks));
            blocks += 1;
        }
        let crc = seeded_crc(declaration_seed(writer), &bytes);
        block.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        block.extend_from_slice(&crc.to_le_bytes());
        block.extend_from_slice(&bytes);
        block.resize(block.len().next_multiple_of(8), 0);
    }
    end_block(&mut image, &mut block);
    for part in records.chunks(BLOCK_RECORDS) {
        let Some(first) = part.first() else { break };
        block.reserve(LIVE_RECORD_BYTES * (part.len() + 1));
        put_words(&mut block, encode_block_header(seed, BLOCK_POINTS, first.sequence));
        for record in part {
            put_words(&mut block, encode_record(seed, record.sequence, record.series, record.point));
        }
        end_block(&mut image, &mut block);
    }
    image
}

fn put_words(out: &mut Vec<u8>, words: [u64; 4]) {
    words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
}

fn end_block(image: &mut Vec<u8>, block: &mut Vec<u8>) {
    if !block.is_empty() {
        block.resize(LIVE_BLOCK_BYTES, 0);
        image.append(block);
    }
}
