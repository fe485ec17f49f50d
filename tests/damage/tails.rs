//! Torn tails: every byte of the last frames, cut off, zeroed or overwritten.

use std::path::Path;
use std::sync::Arc;

use mlrs_db::vfs::MemoryVfs;
use mlrs_db::vfs::memory::Tree;
use mlrs_db::{Metric, Points, RunStatus};

use crate::closed_frames as frames;
use crate::*;

/// What is left at `at` and behind.
#[derive(Clone, Copy, Debug)]
enum Tail {
    Cut,
    Zeros,
    Garbage,
}

fn torn(tree: &Tree, path: &Path, at: usize, tail: Tail) -> Tree {
    let mut torn = tree.clone();
    let bytes = file(&mut torn, path);
    let mut random = Random(at as u64);
    match tail {
        Tail::Cut => bytes.truncate(at),
        Tail::Zeros => bytes[at..].fill(0),
        Tail::Garbage => bytes[at..].iter_mut().for_each(|byte| *byte ^= random.word() as u8 | 1),
    }
    torn
}

fn check_tails(tree: &Tree, truth: &Answers, what: &str) {
    let [path] = files(tree, ".seg").try_into().unwrap();
    let sound = tree[&path].clone().unwrap();
    let frames = frames(&sound);
    for &(start, end) in &frames[frames.len() - 3..] {
        // What a writer leaves that died just before this frame.
        let before = answers(&open_to_read(&torn(tree, &path, start, Tail::Cut))).unwrap();
        let after = answers(&open_to_read(&torn(tree, &path, end, Tail::Cut))).unwrap();
        for (series, points) in &before.points {
            assert!(is_prefix(points, &truth.points[series]), "{what}");
        }
        let step = if scale() > 1 { 1 } else { ((end - start) / 60).max(1) };
        for at in (start..end).step_by(step) {
            for tail in [Tail::Cut, Tail::Zeros, Tail::Garbage] {
                let torn = torn(tree, &path, at, tail);
                if torn[&path] == tree[&path] {
                    continue;
                }
                let what = format!("{what}: {tail:?} at {at}, frame {start}..{end}");
                let store = open_to_read(&torn);
                let found = answers(&store).unwrap_or_else(|e| panic!("{what}: {e}"));
                // The last bytes of a frame may be zeros as they were written.
                let same =
                    |answers: &Answers| (&answers.runs, &answers.points) == (&found.runs, &found.points);
                assert!(same(&before) || same(&after), "{what}");
                let report = verify(&store);
                // Cut between two frames, nothing shows that there was more.
                let clean = matches!(tail, Tail::Cut) && at == start;
                assert!(clean || !report.findings.is_empty(), "{what}");
                if (at / step) % 7 == 0 {
                    check_logs_on(&torn, &found, &what);
                }
            }
        }
    }
}

/// A store goes on, and what it had it still has.
fn check_logs_on(tree: &Tree, found: &Answers, what: &str) {
    let memory = MemoryVfs::from_tree(tree).unwrap();
    let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
    let run = store.experiment("after").unwrap().start_run(Default::default()).unwrap();
    run.log_metric("x", 1, 2.0).unwrap();
    for id in found.runs.keys() {
        store.run(id).unwrap().log_metric("loss", 1_000_000, 0.125).unwrap();
    }
    run.finish(RunStatus::Finished).unwrap();
    store.close().unwrap();
    let store = open_to_read(&memory.tree());
    let x: Points = store.history(run.id(), "x").unwrap().collect().unwrap();
    assert_eq!(x.values, [2.0], "{what}");
    for ((id, key), points) in &found.points {
        let now: Points = store.history(id, key).unwrap().collect().unwrap();
        assert!(is_subsequence(points, &now), "{what}");
        assert_eq!(now.len(), points.len() + usize::from(key == "loss"), "{what}");
    }
}

/// A store whose writer was killed after its last calls made frames of some kind.
fn killed(last: impl FnOnce(&mlrs_db::Run)) -> (Tree, Answers) {
    let memory = MemoryVfs::new();
    let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
    fill(&store, 2, 40);
    let run = store.experiment("damage").unwrap().start_run(Default::default()).unwrap();
    last(&run);
    let truth = answers(&store).unwrap();
    let tree = memory.tree();
    (tree, truth)
}

#[test]
fn torn_events_leave_what_was_before() {
    let (tree, truth) = killed(|run| {
        run.set_tag("a", "1").unwrap();
        run.log_param("b", "2").unwrap();
        run.set_tag("c", "3").unwrap();
    });
    check_tails(&tree, &truth, "events");
}

#[test]
fn torn_batches_and_declarations_leave_what_was_before() {
    let (tree, truth) = killed(|run| {
        let series = run.series("loss").unwrap();
        let steps: Vec<i64> = (0..200).collect();
        let values: Vec<f64> = steps.iter().map(|s| *s as f64 * 0.5).collect();
        series.log_columns(&steps, &steps, &values).unwrap();
        series.log_columns(&steps, &steps, &values).unwrap();
    });
    check_tails(&tree, &truth, "batches");
}

#[test]
fn a_torn_group_leaves_nothing_of_its_call() {
    let (tree, truth) = killed(|run| {
        run.log_batch(
            &[Metric::new("new", 1, 1.0), Metric::new("other", 1, 2.0)],
            &[("p", "1")],
            &[("t", "2")],
        )
        .unwrap();
    });
    check_tails(&tree, &truth, "group");
    // The three last frames are one call: without any of them there is no metric and no param.
    let [path] = files(&tree, ".seg").try_into().unwrap();
    let sound = tree[&path].clone().unwrap();
    for &(start, _) in &frames(&sound)[frames(&sound).len() - 3..] {
        let found = answers(&open_to_read(&torn(&tree, &path, start, Tail::Cut))).unwrap();
        assert!(!found.points.keys().any(|(_, key)| key == "new"));
        assert!(found.runs.values().all(|run| !run.params.contains_key("p") && !run.tags.contains_key("t")));
    }
}

#[test]
fn torn_directories_and_footers_cost_nothing() {
    let memory = MemoryVfs::new();
    let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
    fill(&store, 2, 40);
    let truth = answers(&store).unwrap();
    store.close().unwrap();
    check_tails(&memory.tree(), &truth, "closing");
}

#[test]
fn a_reader_that_saw_half_a_group_sees_all_of_it_later() {
    let (tree, truth) = killed(|run| {
        run.log_batch(&[Metric::new("new", 1, 1.0)], &[("p", "1")], &[("t", "2")]).unwrap();
    });
    let [path] = files(&tree, ".seg").try_into().unwrap();
    let sound = tree[&path].clone().unwrap();
    let group = frames(&sound)[frames(&sound).len() - 3].0;
    for at in (group + 1..sound.len()).step_by(5) {
        let memory = MemoryVfs::from_tree(&torn(&tree, &path, at, Tail::Cut)).unwrap();
        let store = quiet(Arc::new(memory.clone())).read_only(true).open(ROOT).unwrap();
        assert!(!answers(&store).unwrap().points.keys().any(|(_, key)| key == "new"), "{at}");
        let target = mlrs_db::vfs::Vfs::open(&memory, &path, mlrs_db::vfs::OpenMode::ReadWrite).unwrap();
        target.write_all_at(&sound[at..], at as u64).unwrap();
        let found = answers(&store).unwrap();
        assert_eq!((&found.runs, &found.points), (&truth.runs, &truth.points), "{at}");
        assert_eq!(verify(&store).findings, [], "{at}");
    }
}
