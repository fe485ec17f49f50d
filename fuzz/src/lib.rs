//! What the targets share: a store in memory whose files are what the fuzzer says, with the checksums put right.
//!
//! Contract: checksums protect against rot, not against whoever can compute them, so the targets compute them: what is
//! behind a checksum is fuzzed, too.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use mlrs_db::id::{SegmentId, StoreId, Uid, WriterId};
use mlrs_db::vfs::MemoryVfs;
use mlrs_db::vfs::memory::Tree;
use mlrs_db::{Error, Points, RunSearch, Store, ViewType};

pub const WRITER: WriterId = WriterId::from_bytes([0x11; 16]);
pub const SEGMENT: SegmentId = SegmentId::from_bytes([0x22; 16]);
pub const STORE: StoreId = StoreId::from_bytes([0x33; 16]);
pub const RUN: Uid = Uid::from_bytes([0x44; 16]);

/// Takes bytes off the front; fewer at the end.
pub fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}

/// The next byte, 0 at the end.
pub fn byte(input: &mut &[u8]) -> u8 {
    take(input, 1).first().copied().unwrap_or(0)
}

/// The next little-endian number, zeros at the end.
pub fn number(input: &mut &[u8], bytes: usize) -> u64 {
    take(input, bytes).iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// An empty store, with one file added.
fn store_with(path: &str, bytes: Vec<u8>) -> MemoryVfs {
    static EMPTY: OnceLock<Tree> = OnceLock::new();
    let mut tree = EMPTY
        .get_or_init(|| {
            let vfs = MemoryVfs::new();
            let store = Store::options().vfs(Arc::new(vfs.clone())).open("/s").unwrap();
            store.close().unwrap();
            vfs.tree()
        })
        .clone();
    tree.insert(PathBuf::from(path), Some(bytes));
    MemoryVfs::from_tree(&tree).unwrap()
}

/// Asks everything that can be asked of a store with this file, as a reader or (a hundred times slower) as a writer that
/// recovers and seals. Errors are fine; panics, overflows and memory out of proportion are what the fuzzer looks for.
pub fn ask_everything(path: &str, bytes: Vec<u8>, write: bool) {
    let vfs = store_with(path, bytes);
    {
        let read_only = !write;
        let options = Store::options().vfs(Arc::new(vfs.clone())).read_only(read_only);
        let Ok(store) = options.open(Path::new("/s")) else { return };
        let _ = ask(&store);
        if !read_only {
            let _ = store.experiment("new").and_then(|e| {
                let run = e.start_run(mlrs_db::RunOptions::new())?;
                run.log_metric("loss", 0, 1.0)
            });
            let _ = ask(&store);
            let _ = store.close();
        }
    }
}

fn ask(store: &Store) -> Result<(), Error> {
    let all = RunSearch { view: ViewType::All, ..RunSearch::default() };
    let mut runs = vec![RUN.to_string()];
    if let Ok(found) = store.search_runs(&all) {
        runs.extend(found.items.iter().map(|run| run.id.clone()));
    }
    for run in runs {
        let _ = store.get_run(&run);
        let mut keys = vec!["loss".to_owned()];
        keys.extend(store.metrics(&run).unwrap_or_default().into_iter().map(|m| m.key));
        for key in keys {
            let Ok(history) = store.history(&run, &key) else { continue };
            let _ = history.collect::<Points>();
            let _ = history.clone().allow_gaps(true).steps(0..3).collect::<Points>();
            let _ = history.page(3, None).and_then(|p| history.page(5, p.next_page_token.as_deref()));
        }
    }
    Ok(())
}
