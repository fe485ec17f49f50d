//! What the targets share: a store in memory whose files are what the fuzzer says, with the checksums put right.
//!
//! Contract: checksums protect against rot, not against whoever can compute them, so the targets compute them: what is
//! behind a checksum is fuzzed, too. Whatever is read, the engine has [`MEMORY_BYTES_MAX`] for it.

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cap::Cap;
use mlrs_db::id::{SegmentId, StoreId, Uid, WriterId};
use mlrs_db::vfs::MemoryVfs;
use mlrs_db::vfs::memory::Tree;
use mlrs_db::mlruns::ImportOptions;
use mlrs_db::{Error, Points, RunSearch, Store, ViewType};

pub mod live_file;

/// What a target may hold at a time, all of a store with its files included; what libFuzzer and the sanitizer take for
/// themselves is not counted. Asking for more ends the program.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, MEMORY_BYTES_MAX);

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

/// The files of a store that has run [`RUN`] and nothing else.
fn store_of_one_run() -> Tree {
    let tree = std::env::temp_dir().join(format!("mlrs-db-fuzz-{}", std::process::id()));
    let run = tree.join("0").join(RUN.to_string());
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(tree.join("0/meta.yaml"), EXPERIMENT).unwrap();
    std::fs::write(run.join("meta.yaml"), RUN_YAML.replace("RUN", &RUN.to_string())).unwrap();
    let vfs = MemoryVfs::new();
    let store = Store::options().vfs(Arc::new(vfs.clone())).open("/s").unwrap();
    store.import(&tree, &ImportOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(store.get_run(&RUN.to_string()).unwrap().id, RUN.to_string());
    store.close().unwrap();
    std::fs::remove_dir_all(&tree).unwrap();
    vfs.tree()
}

const EXPERIMENT: &str = "artifact_location: /a\ncreation_time: 1\nexperiment_id: '0'\nlast_update_time: 1\n\
    lifecycle_stage: active\nname: Default\n";
const RUN_YAML: &str = "artifact_uri: /a/RUN/artifacts\nend_time: null\nentry_point_name: ''\nexperiment_id: '0'\n\
    lifecycle_stage: active\nrun_id: RUN\nrun_name: fuzzed\nsource_name: ''\nsource_type: 4\n\
    source_version: ''\nstart_time: 1\nstatus: 1\ntags: []\nuser_id: somebody\n";

/// A store with run [`RUN`], and with one file added.
pub fn store_with(path: &Path, bytes: Vec<u8>) -> MemoryVfs {
    static EMPTY: OnceLock<Tree> = OnceLock::new();
    let mut tree = EMPTY.get_or_init(store_of_one_run).clone();
    tree.insert(path.to_path_buf(), Some(bytes));
    MemoryVfs::from_tree(&tree).unwrap()
}

/// Asks everything that can be asked of a store with this file, as a reader or (a hundred times slower) as a writer that
/// recovers and seals. Errors are fine; panics, overflows and memory out of proportion are what the fuzzer looks for.
pub fn ask_everything(path: PathBuf, bytes: Vec<u8>, write: bool) {
    let vfs = store_with(&path, bytes);
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
    let mut follow = store.follow(&RUN.to_string())?.allow_gaps(true);
    for _ in 0..3 {
        let _ = follow.next_batch(Duration::ZERO);
    }
    Ok(())
}
