//! A live file of a dead writer: read and followed by a reader, then recovered by a writer. Record checks and
//! declaration crcs fit where the input says so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlrs_db_fuzz::live_file::{live_file, live_path};
use mlrs_db_fuzz::{ask_everything, byte};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let first = byte(&mut rest);
    let write = first % 32 == 31;
    let file = live_file(&mut rest, first & 32 == 0);
    ask_everything(live_path(), file, write);
});
