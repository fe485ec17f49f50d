//! Closed segments: single bits, stretches, and a segment inside a blob.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlrs_db::codec::bytes::put_varint;
use mlrs_db::format::frame::{FRAME_HEADER_BYTES, FrameKind, finish_frame, frame_seed};
use mlrs_db::format::segment::{SegmentHeader, SegmentKind};
use mlrs_db::id::{SegmentId, StoreId, WriterId};
use mlrs_db::vfs::memory::Tree;
use mlrs_db::vfs::{MemoryVfs, OpenMode, Vfs};
use mlrs_db::{Error, Metric, Points, RunOptions};

use crate::closed_frames as frames;
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

/// A closed store whose segment was not worth sealing: one column a series.
fn closed_unsealed() -> (Tree, PathBuf, Answers) {
    let memory = MemoryVfs::new();
    let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
    let experiment = store.experiment("plain").unwrap();
    for n in 0..3i64 {
        let run = experiment.start_run(RunOptions::new().param("n", n.to_string())).unwrap();
        let steps: Vec<i64> = (0..800).collect();
        let values: Vec<f64> = steps.iter().map(|s| ((s + n) as f64).cos()).collect();
        run.series("loss").unwrap().log_columns(&steps, &steps, &values).unwrap();
        run.log_batch(&[Metric::new("acc", n, 0.25)], &[], &[("a", "b")]).unwrap();
    }
    let truth = answers(&store).unwrap();
    store.close().unwrap();
    let tree = memory.tree();
    let [path] = files(&tree, ".seg").try_into().unwrap();
    (tree, path, truth)
}

fn check_flipped_bits(tree: &Tree, path: &Path, truth: &Answers, kind: u8) {
    let all = truth.points.len() + truth.runs.len() + 1;
    assert_eq!(check_answers(tree, truth, "sound"), all);
    let sound = tree[path].clone().unwrap();
    assert_eq!(sound[28], kind);
    let frames = frames(&sound);
    let memory = MemoryVfs::from_tree(tree).unwrap();
    let target = memory.open(path, OpenMode::ReadWrite).unwrap();
    let mut random = Random(1);
    for at in 0..sound.len() {
        let start = frames.iter().find(|(start, end)| (*start..*end).contains(&at)).map_or(0, |f| f.0);
        // Everywhere in the long form; else headers in full and a sample of what they head.
        if scale() == 1 && at - start >= 64 && at % 17 != 0 {
            continue;
        }
        for flip in 0..if scale() > 1 { 8 } else { 1 } {
            let bit = (random.index(8) + flip) % 8;
            target.write_all_at(&[sound[at] ^ 1 << bit], at as u64).unwrap();
            let what = format!("byte {at} bit {bit}");
            let store = quiet(Arc::new(memory.clone())).read_only(true).open(ROOT).unwrap();
            let report = verify(&store);
            let found = damage_in(&report, path);
            let named = |offset: &Option<u64>| offset.is_some_and(|o| o >= start as u64 && o <= at as u64);
            assert!(found.iter().any(named), "{what} in the frame at {start}: {:?}", report.findings);
            if (at - start) % 23 < scale() {
                // One frame of one segment: most answers do not need it.
                let right = check_answers(&memory.tree(), truth, &what);
                assert!(right > 0, "{what}");
            }
        }
        target.write_all_at(&sound[at..=at], at as u64).unwrap();
    }
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found_at_its_frame_and_no_answer_is_wrong() {
    let (tree, path, truth, _) = closed(4, 600);
    check_flipped_bits(&tree, &path, &truth, 1);
}

#[test]
fn every_flipped_bit_of_a_closed_segment_is_found_at_its_frame_and_no_answer_is_wrong() {
    let (tree, path, truth) = closed_unsealed();
    check_flipped_bits(&tree, &path, &truth, 0);
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
        let len = (1024 << random.index(7)).min(sound.len() / 2);
        let start = 128 + random.index(sound.len() - len - 128);
        let mut damaged = tree.clone();
        let garbage = (0..len).map(|_| random.word() as u8);
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
    let (mut tree, inner, truth, _) = closed(2, 50);
    let bytes = tree.remove(&inner).unwrap().unwrap();
    // A segment of blobs, with the other segment as a blob in it, plain.
    let writer = WriterId::from_bytes([7; 16]);
    let header = SegmentHeader {
        features: 0,
        kind: SegmentKind::Blobs,
        id: SegmentId::from_bytes([8; 16]),
        writer,
        number: 0,
        predecessor: SegmentId::default(),
        predecessor_len: 0,
        created_ms: 0,
        store: StoreId::default(),
    };
    let mut outer = header.encode().to_vec();
    let mut put = |payload: &[u8]| {
        let start = outer.len();
        outer.resize(start + FRAME_HEADER_BYTES, 0);
        outer.extend_from_slice(payload);
        let seed = frame_seed(header.id, start as u64);
        finish_frame(&mut outer, start, FrameKind::Blob, 0, payload.len(), seed, 0);
        start
    };
    let mut payload = vec![0, 0];
    put_varint(&mut payload, bytes.len() as u64);
    payload.extend_from_slice(&bytes);
    let start = put(&payload);
    put(&[0, 0, 1, 9]);
    let path = PathBuf::from(format!("{ROOT}/log/{writer}-0.seg"));
    for damaged in [None, Some(start), Some(start + 20), Some(start + 40), Some(start + 90)] {
        let mut bytes = outer.clone();
        damaged.into_iter().for_each(|at| bytes[at] ^= 0xff);
        tree.insert(path.clone(), Some(bytes));
        let store = open_to_read(&tree);
        let report = verify(&store);
        assert_eq!(report.is_sound(), damaged.is_none(), "{damaged:?}: {:?}", report.findings);
        assert_eq!((report.events, report.points), (0, 0), "{damaged:?}");
        assert!(answers(&store).unwrap().runs.is_empty());
        assert!(truth.runs.keys().all(|id| store.get_run(id).is_err()));
    }
}
