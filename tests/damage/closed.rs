//! Closed segments: single bits, stretches, and a segment inside a blob.

use std::path::PathBuf;
use std::sync::Arc;

use mlrs_db::vfs::MemoryVfs;
use mlrs_db::vfs::memory::Tree;
use mlrs_db::{Error, Points};

use crate::*;

/// A closed store whose one segment is about as long as wanted, with what is true of it.
fn closed(runs: usize, points: i64) -> (Tree, PathBuf, Answers, Vec<String>) {
    let memory = MemoryVfs::new();
    let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
    let ids = fill(&store, runs, points);
    let truth = answers(&store).unwrap();
    store.close().unwrap();
    let tree = memory.tree();
    let [path] = files(&tree, ".seg").try_into().unwrap();
    (tree, path, truth, ids)
}

/// Frames of a sound segment: (start, end).
fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut at = 128;
    let mut frames = Vec::new();
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        frames.push((at, at + 32 + len));
        at += 32 + len;
    }
    frames
}

/// All answers of a damaged store are right or errors; returns how many were right.
fn check_answers(tree: &Tree, truth: &Answers, what: &str) -> usize {
    let store = open_to_read(tree);
    let mut right = 0;
    for ((id, key), points) in &truth.points {
        let history = store.history(id, key);
        match history.as_ref().map_err(|e| e.to_string()).map(|h| h.collect::<Points>()) {
            Ok(Ok(found)) => {
                assert_eq!(bits(&found), bits(points), "{what}: {key}");
                right += 1;
            }
            Ok(Err(Error::Corrupt { .. } | Error::Gap { .. })) | Err(_) => {}
            Ok(Err(other)) => panic!("{what}: {key}: {other}"),
        }
        if let Ok(history) = history
            && let Ok(found) = history.allow_gaps(true).collect::<Points>()
        {
            assert!(is_subsequence(&found, points), "{what}: {key} with gaps");
        }
    }
    for (id, run) in &truth.runs {
        if let Ok(found) = store.get_run(id) {
            assert_eq!(&*found, run, "{what}");
            right += 1;
        }
    }
    if let Ok(found) = answers(&store) {
        assert_eq!(found.runs, truth.runs, "{what}: search");
        right += 1;
    }
    right
}

#[test]
fn every_flipped_bit_is_found_at_its_frame_and_no_answer_is_wrong() {
    let (tree, path, truth, _) = closed(4, 600);
    let all = truth.points.len() + truth.runs.len() + 1;
    assert_eq!(check_answers(&tree, &truth, "sound"), all);
    let sound = tree[&path].clone().unwrap();
    assert!(sound.len() > 24 * 1024, "{} bytes", sound.len());
    let frames = frames(&sound);
    // Every byte, one bit of it each time; answers for a sample, because each is many reads.
    let mut random = Random(1);
    for at in 0..sound.len() {
        let flips = if scale() > 1 { 0..8 } else { 0..1 };
        for flip in flips {
            let bit = (random.below(8) + flip) % 8;
            let mut damaged = tree.clone();
            file(&mut damaged, &path)[at] ^= 1 << bit;
            let what = format!("byte {at} bit {bit}");
            let start = frames.iter().find(|(start, end)| (*start..*end).contains(&at)).map_or(0, |f| f.0);
            let report = verify(&open_to_read(&damaged));
            let found = damage_in(&report, &path);
            let named = |offset: &Option<u64>| offset.is_some_and(|o| o >= start as u64 && o <= at as u64);
            assert!(found.iter().any(named), "{what} in the frame at {start}: {:?}", report.findings);
            if at % 13 < scale() {
                // One frame of one segment: most answers do not need it.
                let right = check_answers(&damaged, &truth, &what);
                assert!(right > 0, "{what}");
            }
        }
    }
}

#[test]
fn what_is_outside_a_damaged_column_stays_readable() {
    let (tree, path, truth, ids) = closed(4, 600);
    let sound = tree[&path].clone().unwrap();
    let mut lost = 0;
    for (start, end) in frames(&sound) {
        if sound[start + 4] != 2 {
            continue;
        }
        // The last byte of a batch is in its last column.
        let mut damaged = tree.clone();
        file(&mut damaged, &path)[end - 1] ^= 0x40;
        let store = open_to_read(&damaged);
        let mut failed = Vec::new();
        for ((id, key), points) in &truth.points {
            let history = store.history(id, key).unwrap();
            match history.collect::<Points>() {
                Ok(found) => assert_eq!(&found, points),
                Err(Error::Corrupt { .. }) => {
                    let rest: Points = history.allow_gaps(true).collect().unwrap();
                    assert!(rest.len() < points.len() && is_subsequence(&rest, points));
                    failed.push((id.clone(), key.clone()));
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(failed.len(), 1, "{failed:?}");
        lost += 1;
        for id in &ids {
            assert_eq!(&*store.get_run(id).unwrap(), &truth.runs[id]);
        }
    }
    assert!(lost > 0);
}

#[test]
fn stretches_of_garbage_cost_only_what_they_cover() {
    let (tree, path, truth, _) = closed(40, 300);
    let sound = tree[&path].clone().unwrap();
    assert!(sound.len() > 100 * 1024, "{}", sound.len());
    let mut random = Random(2);
    for round in 0..20 * scale() {
        let len = (1024 << random.below(7)).min(sound.len() / 2);
        let start = 128 + random.below(sound.len() - len - 128);
        let mut damaged = tree.clone();
        let garbage = (0..len).map(|_| random.next() as u8);
        file(&mut damaged, &path).splice(start..start + len, garbage);
        let what = format!("round {round}: {len} bytes at {start}");
        let report = verify(&open_to_read(&damaged));
        assert!(!damage_in(&report, &path).is_empty(), "{what}");
        let store = open_to_read(&damaged);
        let hit = |frame: &&(usize, usize)| frame.0 < start + len && frame.1 > start;
        let frames = frames(&sound);
        let covered: usize = frames.iter().filter(hit).map(|f| f.1 - f.0).sum();
        let total: usize = truth.points.values().map(Points::len).sum();
        let mut readable = 0;
        for ((id, key), points) in &truth.points {
            // The run itself may be what was lost.
            let Ok(history) = store.history(id, key) else { continue };
            let Ok(found) = history.allow_gaps(true).collect::<Points>() else { continue };
            assert!(is_subsequence(&found, points), "{what}: {key}");
            readable += found.len();
        }
        let kept = 1.0 - covered as f64 / sound.len() as f64;
        assert!(readable as f64 >= total as f64 * kept * 0.5, "{what}: {readable} of {total}, {kept} left");
    }
}

#[test]
fn a_segment_inside_a_blob_is_never_taken_for_the_log() {
    let (inner, path, truth, _) = closed(2, 50);
    let bytes = inner[&path].clone().unwrap();
    let memory = MemoryVfs::new();
    let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
    let run = store.experiment("outer").unwrap().start_run(Default::default()).unwrap();
    // A tag value is as verbatim as a blob: ISO 8859-1 would hold any byte, so every byte below 128 stays itself.
    let text: String = bytes.iter().map(|&b| if b < 128 { char::from(b) } else { '?' }).collect();
    let text: String = text.chars().take(7_000).collect();
    run.set_tag("file", &text).unwrap();
    run.set_tag("after", "x").unwrap();
    store.close().unwrap();
    let tree = memory.tree();
    let [path] = files(&tree, ".seg").try_into().unwrap();
    let sound = tree[&path].clone().unwrap();
    // The whole inner segment as it is, spliced in where a frame was: nothing of it is at the place it was written for.
    for (start, _) in frames(&sound) {
        let mut damaged = tree.clone();
        let target = file(&mut damaged, &path);
        let end = (start + bytes.len()).min(target.len());
        target.splice(start..end, bytes.iter().copied());
        let store = open_to_read(&damaged);
        for id in truth.runs.keys() {
            assert!(store.get_run(id).is_err(), "at {start}");
        }
        let report = verify(&store);
        assert!(!report.is_sound() || !report.findings.is_empty());
    }
}
