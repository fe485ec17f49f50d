//! A live file that changes under whoever follows it, in ways that no writer changes one; and cursors of any bytes.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mlrs_db::vfs::{OpenMode, Vfs};
use mlrs_db::{Follow, FollowCursor, Store};
use mlrs_db_fuzz::live_file::{live_file, live_path};
use mlrs_db_fuzz::{RUN, byte, number, store_with, take};

/// Times that the file changes.
const CHANGES_MAX: usize = 6;
/// Questions in a row; damage can make every second one an error.
const QUESTIONS: usize = 4;

/// Takes what is new. Whatever the file says, nothing comes twice or goes back.
fn look(follow: &mut Follow, next: &mut BTreeMap<(String, String), u64>) {
    for _ in 0..QUESTIONS {
        for point in follow.next_batch(Duration::ZERO).unwrap_or_default() {
            let next = next.entry((point.key.to_string(), point.origin.to_string())).or_default();
            assert!(point.ordinal >= *next, "{} again, {next} comes next", point.ordinal);
            *next = point.ordinal.saturating_add(1);
        }
    }
    if let Ok(cursor) = follow.cursor() {
        assert_eq!(FollowCursor::from_bytes(&cursor.to_bytes()).unwrap(), cursor);
    }
}

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let first = byte(&mut rest);
    let vfs = store_with(&live_path(), live_file(&mut rest, first & 1 == 0));
    let Ok(store) = Store::options().vfs(Arc::new(vfs.clone())).read_only(true).open("/s") else { return };
    let Ok(follow) = store.follow(&RUN.to_string()) else { return };
    let mut follow = follow.allow_gaps(first & 2 != 0);
    let mut next = BTreeMap::new();
    look(&mut follow, &mut next);
    for _ in 0..CHANGES_MAX {
        if rest.is_empty() {
            break;
        }
        let offset = number(&mut rest, 3);
        let change = match byte(&mut rest) {
            // The whole file is another one.
            0 => live_file(&mut rest, true),
            len => take(&mut rest, len.into()).to_vec(),
        };
        let Ok(file) = vfs.open(&live_path(), OpenMode::ReadWrite) else { return };
        let offset = if change.len() > usize::from(u8::MAX) { 0 } else { offset };
        file.write_all_at(&change, offset).unwrap();
        look(&mut follow, &mut next);
    }
    let mut cursor = rest.to_vec();
    cursor.extend_from_slice(&crc32fast::hash(&cursor).to_le_bytes());
    if let Ok(cursor) = FollowCursor::from_bytes(&cursor)
        && let Ok(follow) = store.follow(&RUN.to_string())
        && let Ok(mut follow) = follow.from_cursor(&cursor)
    {
        look(&mut follow, &mut BTreeMap::new());
    }
});
