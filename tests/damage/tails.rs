//! Torn tails: every byte of the last three frames of each kind, cut off, zeroed or overwritten.
//!
//! Contract: the frames before are as they were, `verify` calls the rest a torn tail, and logging goes on. Not here: the
//! list of replaced segments is the first frame of a file that gets its name when it is whole, and filler stands only
//! before a footer.

use std::path::Path;
use std::sync::Arc;

use mlrs_db::format::frame::{FLAG_GROUPED, FrameKind};
use mlrs_db::id::WriterId;
use mlrs_db::vfs::MemoryVfs;
use mlrs_db::vfs::memory::Tree;
use mlrs_db::{Metric, Points, RunStatus};

use super::closed::blob_segment;
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

/// Whether the last bytes of a segment are called a torn tail that begins in a frame.
fn is_named_torn(tree: &Tree, path: &Path, start: usize, at: usize) -> bool {
    let report = verify(&open_to_read(tree));
    let relative = path.strip_prefix(ROOT).unwrap();
    let torn = |f: &mlrs_db::Finding| {
        let inside = f.offset.is_some_and(|offset| offset >= start as u64 && offset <= at as u64);
        f.severity == Severity::TornTail && f.path == relative && inside
    };
    report.findings.iter().any(torn)
}

fn check_tails(tree: &Tree, truth: &Answers, what: &str) {
    let [path] = files(tree, ".seg").try_into().unwrap();
    let sound = tree[&path].clone().unwrap();
    let frames = frames(&sound);
    let (mut bytes, mut tails, mut logged_on, mut as_damage) = (0, 0, 0, 0);
    // Where the group begins that a frame belongs to: a torn tail begins there, too.
    let mut group = 0;
    let mut goes_on = false;
    for (n, &(start, end)) in frames.iter().enumerate() {
        group = if goes_on { group } else { start };
        goes_on = sound[start + 6] & FLAG_GROUPED as u8 != 0;
        if n + 3 < frames.len() {
            continue;
        }
        // What a writer leaves that died just before this frame.
        let before = answers(&open_to_read(&torn(tree, &path, start, Tail::Cut))).unwrap();
        let after = answers(&open_to_read(&torn(tree, &path, end, Tail::Cut))).unwrap();
        for (series, points) in &before.points {
            assert!(is_prefix(points, &truth.points[series]), "{what}");
        }
        bytes += end - start;
        for at in start..end {
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
                // Cut between two frames, nothing shows that there was more.
                let clean = matches!(tail, Tail::Cut) && at == group;
                // Of a footer with some bytes wrong nobody can tell a torn write from rot: that is damage.
                let is_footer = sound[start + 4] == FrameKind::Footer.number();
                let named = is_named_torn(&torn, &path, group, end)
                    || is_footer && damage_in(&verify(&open_to_read(&torn)), &path) == [Some(start as u64)];
                as_damage += usize::from(named && !is_named_torn(&torn, &path, group, end));
                assert!(clean || named, "{what}: {:?}", verify(&open_to_read(&torn)).findings);
                tails += 1;
                if scale() > 1 || at % 7 == 0 {
                    check_logs_on(&torn, &found, &what);
                    logged_on += 1;
                }
            }
        }
    }
    println!(
        "tails of {what}: the last 3 frames, {bytes} bytes, {tails} tails: all before intact, each named as torn \
         ({as_damage} as a damaged footer); \
         logging went on behind {logged_on} of {logged_on} tried"
    );
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
    fill(&store, 1, 5);
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
        let steps: Vec<i64> = (0..20).collect();
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
fn torn_blobs_leave_what_was_before() {
    let writer = WriterId::from_bytes([7; 16]);
    let chunks: [&[u8]; 3] = [b"the first chunk", b"the second", b"the third of them"];
    let (path, bytes) = blob_segment(writer, &chunks);
    let (mut tree, _) = killed(|_| {});
    let sound = verify(&open_to_read(&tree)).frames;
    let mut tails = 0;
    for (n, (start, end)) in frames(&bytes).into_iter().enumerate() {
        for at in start..end {
            for tail in [Tail::Cut, Tail::Zeros, Tail::Garbage] {
                tree.insert(path.clone(), Some(bytes.clone()));
                let torn = torn(&tree, &path, at, tail);
                if torn[&path] == tree[&path] {
                    continue;
                }
                let what = format!("blobs: {tail:?} at {at}, frame {start}..{end}");
                // A frame whose header is whole is counted, and then found torn.
                let counted = verify(&open_to_read(&torn)).frames - sound;
                assert!((n as u64..=n as u64 + 1).contains(&counted), "{what}: {counted}");
                let clean = matches!(tail, Tail::Cut) && at == start;
                assert!(clean || is_named_torn(&torn, &path, start, end), "{what}");
                tails += 1;
            }
        }
    }
    println!("tails of blobs: 3 frames, {tails} tails: all before intact, each named as torn");
}

#[test]
fn torn_directories_and_footers_cost_nothing() {
    let memory = MemoryVfs::new();
    let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
    let run = store.experiment("damage").unwrap().start_run(Default::default()).unwrap();
    let steps: Vec<i64> = (0..20).collect();
    let values: Vec<f64> = steps.iter().map(|s| *s as f64 * 0.5).collect();
    run.series("loss").unwrap().log_columns(&steps, &steps, &values).unwrap();
    let truth = answers(&store).unwrap();
    store.close().unwrap();
    let tree = memory.tree();
    let [path] = files(&tree, ".seg").try_into().unwrap();
    assert_eq!(
        tree[&path].as_ref().unwrap()[28],
        0,
        "a sealed one has no tail: it is whole before it has its name"
    );
    check_tails(&tree, &truth, "closing");
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
