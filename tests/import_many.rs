//! The memory of an import does not grow with the number of runs.
//!
//! The test runs this same program again with [`STORE`] set, in a process of its own, which imports a tree of small
//! runs, closes the store (an index is written then) and prints the most memory it had.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fs, thread};

use mlrs_db::Store;
use mlrs_db::mlruns::ImportOptions;

const STORE: &str = "MLRS_IMPORT_MANY_STORE";
const TREE: &str = "MLRS_IMPORT_MANY_TREE";
const RUNS: u64 = 8_000;
/// It takes about 20 MiB, buffers and redb's cache included, and 370 bytes for each further run. 8,000 runs that were
/// all kept in full took 55 MiB.
const PEAK_KIB_MAX: u64 = 32 * 1024;

/// What the kernel cannot drop.
fn anonymous_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    field("RssAnon:") + field("RssShmem:")
}

fn write_tree(tree: &Path) {
    let experiment = tree.join("1");
    fs::create_dir_all(&experiment).unwrap();
    fs::write(
        experiment.join("meta.yaml"),
        "artifact_location: file:///nowhere/1\ncreation_time: 1700000000000\nexperiment_id: '1'\nlast_update_time: 1700000000000\nlifecycle_stage: active\nname: many\n",
    )
    .unwrap();
    let files = [
        ("params/rate", "0.001"),
        ("params/note", "a text as long as one that somebody writes to find a run again"),
        ("metrics/loss", "1700000000001 0.5 0\n"),
        ("metrics/accuracy", "1700000000001 0.25 0\n"),
    ];
    for (name, text) in &files {
        fs::write(tree.with_extension(name.replace('/', "-")), text).unwrap();
    }
    for number in 0..RUNS {
        let id = format!("{:032x}", u128::from(number + 1) * 0x9e37_79b9_7f4a_7c15_f39c_c060);
        let run = experiment.join(&id);
        for name in ["metrics", "params"] {
            fs::create_dir_all(run.join(name)).unwrap();
        }
        fs::write(
            run.join("meta.yaml"),
            format!(
                "artifact_uri: file:///nowhere/1/{id}/artifacts\nend_time: 1700000900000\nentry_point_name: ''\nexperiment_id: '1'\nlifecycle_stage: active\nrun_id: {id}\nrun_name: many-{number}\nsource_name: ''\nsource_type: 4\nsource_version: ''\nstart_time: 1700000000000\nstatus: 3\ntags: []\nuser_id: nobody\n"
            ),
        )
        .unwrap();
        // The same in all: links are made faster than files.
        for (name, _) in &files {
            fs::hard_link(tree.with_extension(name.replace('/', "-")), run.join(name)).unwrap();
        }
    }
}

/// What the other process runs; nothing in an ordinary run.
#[test]
fn child() {
    let (Ok(store), Ok(tree)) = (env::var(STORE), env::var(TREE)) else { return };
    let ended = AtomicBool::new(false);
    let peak = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = anonymous_kib().max(peak);
                thread::sleep(std::time::Duration::from_millis(2));
            }
            peak
        });
        let store = Store::open(store).unwrap();
        let report = store.import(Path::new(&tree), &ImportOptions::default(), &mut |_| {}).unwrap();
        store.close().unwrap();
        ended.store(true, Ordering::Relaxed);
        assert_eq!((report.runs, report.problems_total), (RUNS, 0), "{:?}", report.problems);
        sampler.join().unwrap()
    });
    println!("peak-kib {peak}");
}

fn import(store: &Path, tree: &Path) -> u64 {
    let output = Command::new(env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(STORE, store)
        .env(TREE, tree)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let peak = text.split("peak-kib ").nth(1).and_then(|rest| rest.split_whitespace().next());
    peak.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
fn many_small_runs_take_no_more_memory_than_a_few() {
    let directory = tempfile::tempdir().unwrap();
    let (store, tree) = (directory.path().join("store"), directory.path().join("mlruns"));
    write_tree(&tree);
    let first = import(&store, &tree);
    assert!(store.join("index.redb").exists(), "closing wrote an index");
    let again = import(&store, &tree);
    println!("peaks: {first} KiB, of a second import {again} KiB");
    assert!(first < PEAK_KIB_MAX, "{first} KiB for {RUNS} runs");
    assert!(again < PEAK_KIB_MAX, "{again} KiB for a second import of {RUNS} runs");

    // With the index that was written row by row and without it, the store says the same.
    let answer = |use_index: bool| {
        let store = Store::options().read_only(true).use_index(use_index).open(&store).unwrap();
        let search = mlrs_db::RunSearch { max_results: 50_000, ..mlrs_db::RunSearch::default() };
        store.search_runs(&search).unwrap().items
    };
    let runs = answer(true);
    assert_eq!(runs.len() as u64, RUNS);
    assert!(runs.iter().all(|run| run.params.len() == 2 && run.metrics.len() == 2));
    assert_eq!(runs, answer(false));
}
