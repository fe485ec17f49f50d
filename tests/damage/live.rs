//! Live files: flipped bytes, truncation, stale blocks, and recovery that is interrupted.

use std::sync::Arc;

use mlrs_db::limits::LIVE_BLOCK_BYTES;
use mlrs_db::vfs::MemoryVfs;
use mlrs_db::vfs::fault::{Fault, FaultVfs, Plan};
use mlrs_db::vfs::memory::Tree;
use mlrs_db::{Points, RunOptions};

use crate::*;

const HEADER: usize = 4096;

/// What a killed writer leaves with its points in the live file only.
fn killed(points: i64) -> (Tree, Answers) {
    let memory = MemoryVfs::new();
    let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
    let run = store.experiment("live").unwrap().start_run(RunOptions::new().name("r")).unwrap();
    let (loss, acc) = (run.series("loss").unwrap(), run.series("acc").unwrap());
    for step in 0..points {
        loss.log_at(step, step, step as f64 * 0.25).unwrap();
        acc.log_at(step, step + 1, -(step as f64)).unwrap();
    }
    let truth = answers(&store).unwrap();
    (memory.tree(), truth)
}

/// Everything found is the beginning of what is true; returns how many points there are.
fn check(tree: &Tree, truth: &Answers, what: &str) -> usize {
    let mut counts = Vec::new();
    for recovered in [false, true] {
        let memory = MemoryVfs::from_tree(tree).unwrap();
        let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
        if recovered {
            store.experiment("live").unwrap().start_run(RunOptions::new()).unwrap();
        }
        let mut count = 0;
        for ((id, key), points) in &truth.points {
            let found: Points = store.history(id, key).unwrap().collect().unwrap();
            assert!(is_prefix(&found, points), "{what}: {key}, recovered: {recovered}: {found:?}");
            count += found.len();
            let metric = store.get_run(id).unwrap().metrics.get(key).copied();
            assert_eq!(metric, found.iter().last(), "{what}: {key}");
        }
        counts.push(count);
    }
    assert_eq!(counts[0], counts[1], "{what}: recovery keeps what was seen");
    counts[0]
}

#[test]
fn every_flipped_byte_leaves_a_true_beginning_and_is_reported_if_points_are_lost() {
    let (tree, truth) = killed(30);
    let [path] = files(&tree, ".live").try_into().unwrap();
    let sound = tree[&path].clone().unwrap();
    let used = |at: &usize| sound[*at] != 0 || sound[at.saturating_sub(8)..*at].iter().any(|&b| b != 0);
    let end = HEADER + 3 * LIVE_BLOCK_BYTES;
    let total = check(&tree, &truth, "sound");
    assert_eq!(total, 60);
    let step = if scale() > 1 { 1 } else { 3 };
    let (mut bytes, mut told) = (0, 0);
    for at in (0..end).filter(used).step_by(step) {
        bytes += 1;
        let mut damaged = tree.clone();
        file(&mut damaged, &path)[at] ^= 0x10;
        let what = format!("byte {at}");
        let found = check(&damaged, &truth, &what);
        let report = verify(&open_to_read(&damaged));
        if at < HEADER {
            assert_eq!(found, total, "{what}: no header is needed to read records");
        }
        // The last record may as well be one that was just being written.
        if found < total - 1 {
            assert!(!report.is_sound(), "{what}: {found} points");
            told += 1;
        }
    }
    println!(
        "bytes of a live file of {} bytes: {bytes} flipped of those in use: {told} cost points and were found, the others cost \
         at most the last point; 0 wrong",
        sound.len()
    );
}

#[test]
fn a_truncated_live_file_leaves_a_true_beginning() {
    let (tree, truth) = killed(1500);
    let [path] = files(&tree, ".live").try_into().unwrap();
    let len = tree[&path].as_ref().unwrap().len();
    for cut in
        (0..len).step_by(HEADER * 4).chain([1, 100, HEADER - 1, HEADER + 31, HEADER + LIVE_BLOCK_BYTES + 64])
    {
        let mut damaged = tree.clone();
        file(&mut damaged, &path).truncate(cut);
        check(&damaged, &truth, &format!("cut at {cut}"));
    }
}

#[test]
fn a_stale_block_is_not_taken() {
    let (tree, truth) = killed(1500);
    let [path] = files(&tree, ".live").try_into().unwrap();
    let total = check(&tree, &truth, "sound");
    for (from, to) in [(0, 5), (1, 5), (1, 6), (2, 7), (2, 15)] {
        let mut damaged = tree.clone();
        let bytes = file(&mut damaged, &path);
        let at = |block: usize| HEADER + block * LIVE_BLOCK_BYTES;
        bytes.copy_within(at(from)..at(from + 1), at(to));
        assert_eq!(check(&damaged, &truth, "a copy of a block"), total);
        // The records of one block under the header of another.
        let mut damaged = tree.clone();
        file(&mut damaged, &path).copy_within(at(1) + 32..at(2), at(2) + 32);
        assert!(check(&damaged, &truth, "records of another block") >= 2047);
    }
}

#[test]
fn an_interrupted_recovery_doubles_nothing() {
    let (tree, truth) = killed(100);
    let mut interrupted = 0;
    for nth in 1.. {
        let memory = MemoryVfs::from_tree(&tree).unwrap();
        let fault = FaultVfs::new(Arc::new(memory.clone()));
        let store = quiet(Arc::new(fault.clone())).open(ROOT).unwrap();
        fault.fail(Plan { call: None, nth, fault: Fault::Short(28), forever: false });
        // Twice in one process, then in the next one.
        let tried = store.experiment("other");
        if fault.injected() == 0 {
            break;
        }
        interrupted += u64::from(tried.is_err());
        for image in [memory.image().tree(), {
            let _ = store.experiment("other");
            memory.image().tree()
        }] {
            let found = check(&image, &truth, &format!("call {nth}"));
            assert_eq!(found, 200, "call {nth}");
        }
    }
    assert!(interrupted > 5, "{interrupted}");
}
