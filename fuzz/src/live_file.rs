//! Live files as the fuzzer says, their checks put right where it says so.

use std::path::PathBuf;

use mlrs_db::Point;
use mlrs_db::format::declare::{Declaration, SeriesKey, encode_declarations};
use mlrs_db::format::frame::seeded_crc;
use mlrs_db::format::live::{
    BLOCK_DECLARATIONS, BLOCK_POINTS, BLOCK_RECORDS, LiveHeader, RELEASED_AT, declaration_seed,
    encode_block_header, encode_cursor, encode_record, live_seed,
};
use mlrs_db::limits::{LIVE_BLOCK_BYTES, LIVE_RECORD_BYTES};

use crate::{RUN, STORE, WRITER, byte, number, take};

const BLOCKS_MAX: usize = 4;

fn put_words(block: &mut [u8], at: usize, words: [u64; 4]) {
    for (slot, word) in block[at..at + LIVE_RECORD_BYTES].chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
}

/// A block of points, some records as raw bytes.
fn points(input: &mut &[u8], seed: u64) -> Vec<u8> {
    let mut block = vec![0; LIVE_BLOCK_BYTES];
    let first = number(input, 8);
    put_words(&mut block, 0, encode_block_header(seed, BLOCK_POINTS, first));
    let count = usize::from(byte(input)).min(BLOCK_RECORDS);
    for slot in 0..count {
        let at = (slot + 1) * LIVE_RECORD_BYTES;
        if byte(input) == 0xff {
            let raw = take(input, LIVE_RECORD_BYTES);
            block[at..at + raw.len()].copy_from_slice(raw);
        } else {
            let series = number(input, 1) as u32;
            let (step, timestamp_ms) = (number(input, 8) as i64, number(input, 8) as i64);
            let point = Point { step, timestamp_ms, value: f64::from_bits(number(input, 8)) };
            let sequence = first.wrapping_add(slot as u64);
            put_words(&mut block, at, encode_record(seed, sequence, series, point));
        }
    }
    block
}

/// A block of declarations of series 0 to 3 of [`RUN`], some entries as raw bytes.
fn declarations(input: &mut &[u8], seed: u64) -> Vec<u8> {
    let mut block = vec![0; LIVE_BLOCK_BYTES];
    put_words(&mut block, 0, encode_block_header(seed, BLOCK_DECLARATIONS, number(input, 8)));
    let mut at = LIVE_RECORD_BYTES;
    for series in 0..byte(input) % 4 {
        let entry = if byte(input) == 0xff {
            let len = usize::from(byte(input));
            take(input, len).to_vec()
        } else {
            let one = Declaration {
                number: series.into(),
                series: SeriesKey::of_run(RUN, "loss"),
                origin: WRITER.into(),
                attributes: Vec::new(),
            };
            let mut bytes = Vec::new();
            encode_declarations(WRITER, &[&one], &mut bytes);
            // Without the count in front.
            bytes.split_off(1)
        };
        let len = if byte(input) == 0xff { number(input, 4) as u32 } else { entry.len() as u32 };
        let crc = seeded_crc(declaration_seed(WRITER), &entry);
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&entry);
        block[at..at + bytes.len()].copy_from_slice(&bytes);
        at += bytes.len().next_multiple_of(8);
    }
    block
}

/// Where the file lies.
pub fn live_path() -> PathBuf {
    PathBuf::from(format!("/s/live/{WRITER}.live"))
}

/// A live file with the count of released records and the blocks that the input names.
pub fn live_file(input: &mut &[u8], is_cursor_whole: bool) -> Vec<u8> {
    let header = LiveHeader {
        writer: WRITER,
        store: STORE,
        boot: [0; 16],
        pid: 1,
        created_ms: 1,
        host: "host".into(),
    };
    let mut file = header.encode();
    let seed = live_seed(WRITER);
    let cursor = encode_cursor(seed, RELEASED_AT, number(input, 8));
    let len = if is_cursor_whole { cursor.len() } else { cursor.len() / 2 };
    file[RELEASED_AT..RELEASED_AT + len].copy_from_slice(&cursor[..len]);
    for _ in 0..BLOCKS_MAX {
        if input.is_empty() {
            break;
        }
        match byte(input) % 3 {
            0 => file.extend(declarations(input, seed)),
            1 => file.extend(points(input, seed)),
            _ => {
                let len = usize::from(byte(input));
                let raw = take(input, len);
                file.extend_from_slice(raw);
                file.resize(file.len() + LIVE_BLOCK_BYTES - raw.len(), 0);
            }
        }
    }
    file
}
