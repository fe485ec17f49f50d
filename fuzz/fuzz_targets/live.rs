//! A live file of a dead writer: read by a reader, then recovered by a writer. Record checks and declaration crcs fit
//! where the input says so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlrs_db::Point;
use mlrs_db::format::declare::{Declaration, SeriesKey, encode_declarations};
use mlrs_db::format::frame::seeded_crc;
use mlrs_db::format::live::{
    BLOCK_DECLARATIONS, BLOCK_POINTS, BLOCK_RECORDS, LiveHeader, RELEASED_AT, declaration_seed,
    encode_block_header, encode_record, live_seed,
};
use mlrs_db::limits::{LIVE_BLOCK_BYTES, LIVE_RECORD_BYTES};
use mlrs_db_fuzz::{RUN, STORE, WRITER, ask_everything, byte, number, take};

const BLOCKS_MAX: usize = 4;

fn put_words(block: &mut [u8], at: usize, words: [u64; 4]) {
    for (slot, word) in block[at..at + LIVE_RECORD_BYTES].chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
}

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

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let write = byte(&mut rest) % 32 == 31;
    let header = LiveHeader {
        writer: WRITER,
        store: STORE,
        boot: [0; 16],
        pid: 1,
        created_ms: 1,
        host: "host".into(),
    };
    let mut file = header.encode();
    file[RELEASED_AT..RELEASED_AT + 8].copy_from_slice(&number(&mut rest, 8).to_le_bytes());
    let seed = live_seed(WRITER);
    for _ in 0..BLOCKS_MAX {
        if rest.is_empty() {
            break;
        }
        match byte(&mut rest) % 3 {
            0 => file.extend(declarations(&mut rest, seed)),
            1 => file.extend(points(&mut rest, seed)),
            _ => {
                let len = usize::from(byte(&mut rest));
                let raw = take(&mut rest, len);
                file.extend_from_slice(raw);
                file.resize(file.len() + LIVE_BLOCK_BYTES - raw.len(), 0);
            }
        }
    }
    ask_everything(&format!("s/live/{WRITER}.live"), file, write);
});
