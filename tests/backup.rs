//! Backups of a store that is written meanwhile: all that was acknowledged before is there, and the copy is a store.

#[path = "support/child.rs"]
mod child;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlrs_db::{Error, Points, RunOptions, Store};

use child::Child;

const STUCK: Duration = Duration::from_secs(120);

/// Logs at full speed until it is killed: points, columns, params, artifacts, with small segments that are sealed.
fn log_at_full_speed(path: &str) {
    let store = Store::options().segment_bytes_max(1).flush_interval_ms(3).open(path).unwrap();
    let run = store.experiment("busy").unwrap().start_run(RunOptions::new()).unwrap();
    let (points, columns) = (run.series("points").unwrap(), run.series("columns").unwrap());
    child::say_word("run", run.id());
    for n in 0i64.. {
        points.log_at(n, n, n as f64).unwrap();
        if n % 64 == 63 {
            let steps: Vec<i64> = (n - 63..=n).collect();
            let values: Vec<f64> = steps.iter().map(|s| *s as f64).collect();
            columns.log_columns(&steps, &steps, &values).unwrap();
        }
        if n % 1024 == 1023 {
            let name = (n / 1024).to_string();
            run.log_param(&format!("p{name}"), &name).unwrap();
            store.put_artifact_bytes(run.id(), name.as_bytes(), &format!("a/{name}.txt")).unwrap();
        }
        child::say_count("logged", n as u64 + 1);
    }
}

#[test]
fn child_process() {
    let Some((_, args)) = child::called() else { return };
    child::die_with_parent();
    log_at_full_speed(&args[0]);
}

fn values(store: &Store, run: &str, key: &str) -> Vec<f64> {
    store.history(run, key).unwrap().collect::<Points>().unwrap().values
}

/// Checks that a backup holds what was acknowledged, without holes, and is sound. Returns its points.
fn check(path: &Path, run: &str, acknowledged: u64) -> usize {
    let store = Store::options().read_only(true).open(path).unwrap();
    let report = store.verify(&mut |_| {}).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let points = values(&store, run, "points");
    assert!(points.len() as u64 >= acknowledged, "{} points of {acknowledged}", points.len());
    assert!(points.iter().enumerate().all(|(n, v)| *v == n as f64));
    let columns = values(&store, run, "columns");
    assert!(columns.len() as u64 >= acknowledged / 64 * 64, "{} in columns of {acknowledged}", columns.len());
    assert!(columns.iter().enumerate().all(|(n, v)| *v == n as f64));
    let params = store.get_run(run).unwrap().params.len() as u64;
    assert!(params >= acknowledged / 1024, "{params} params of {acknowledged}");
    for n in 0..acknowledged / 1024 {
        let artifact = store.artifact_path(run, &format!("a/{n}.txt")).unwrap();
        assert_eq!(fs::read_to_string(artifact).unwrap(), n.to_string());
    }
    points.len()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_backup_beside_a_writer_at_full_speed_holds_all_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (path, dest) = (directory.path().join("store"), directory.path().join("backup"));
    Store::open(&path).unwrap().close().unwrap();
    let writer = Child::spawn("log", &[path.to_str().unwrap().to_owned()]);
    let source = Store::options().read_only(true).open(&path).unwrap();
    let mut points = 0;
    for round in 0..6u64 {
        let wanted = 3_000 * (round + 1);
        writer.wait_until(STUCK, "logging", |said| said.count("logged") >= wanted);
        let (acknowledged, run) = {
            let said = writer.said();
            (said.count("logged"), said.words["run"].clone())
        };
        let report = source.backup(&dest, &mut |_| {}).unwrap();
        assert_eq!(report.is_incremental, round > 0);
        assert_eq!(report.copied.problems, []);
        points = check(&dest, &run, acknowledged);
        // It opens for writing, too; on a copy, so that the next round is incremental to what the backup wrote.
        let copy = directory.path().join(format!("copy-{round}"));
        copy_tree(&dest, &copy);
        let store = Store::open(&copy).unwrap();
        store.run(&run).unwrap().log_metric("more", 0, 1.0).unwrap();
        assert_eq!(values(&store, &run, "points").len(), points);
        store.close().unwrap();
        check(&copy, &run, acknowledged);
    }
    writer.kill();
    println!(
        "backup: 6 beside a writer at full speed, {points} points in the last, 0 acknowledged ones missing"
    );
}

fn small(path: &Path) -> (Store, String) {
    let store = Store::open(path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    for step in 0..100 {
        run.log_metric("x", step, step as f64).unwrap();
    }
    let id = run.id().to_owned();
    (store, id)
}

fn seg_names(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(path.join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn a_second_backup_copies_what_is_new_and_removes_what_was_folded() {
    let directory = tempfile::tempdir().unwrap();
    let (path, dest) = (directory.path().join("store"), directory.path().join("backup"));
    let (store, run) = small(&path);
    store.put_artifact_bytes(&run, b"one", "one.txt").unwrap();
    let first = store.backup(&dest, &mut |_| {}).unwrap();
    assert_eq!((first.copied.segments, first.copied.live_points, first.copied.artifacts), (1, 100, 1));
    store.close().unwrap();
    for n in 0..3 {
        let store = Store::open(&path).unwrap();
        store.run(&run).unwrap().log_metric("x", 100 + n, (100 + n) as f64).unwrap();
        store.close().unwrap();
    }
    let store = Store::open(&path).unwrap();
    let second = store.backup(&dest, &mut |_| {}).unwrap();
    assert!(second.is_incremental);
    assert_eq!(
        (second.copied.segments, second.copied.artifacts_known),
        (4, 1),
        "one has grown, three are new"
    );
    assert_eq!((second.copied.live_files, second.copied.files_removed), (0, 1), "the live file that ended");
    let third = store.backup(&dest, &mut |_| {}).unwrap();
    assert_eq!((third.copied.segments, third.copied.segments_known, third.copied.bytes), (0, 4, 0));
    store.compact(&mut |_| {}).unwrap();
    let fourth = store.backup(&dest, &mut |_| {}).unwrap();
    assert_eq!((fourth.copied.segments, fourth.copied.files_removed), (1, 4));
    assert_eq!(seg_names(&dest).len(), 1);
    let copy = Store::open(&dest).unwrap();
    assert_eq!(copy.id(), store.id());
    assert_eq!(values(&copy, &run, "x"), (0..103).map(f64::from).collect::<Vec<_>>());
    assert!(copy.verify(&mut |_| {}).unwrap().findings.is_empty());
}

#[test]
fn an_interrupted_backup_is_no_store_and_is_completed_by_repeating_it() {
    let directory = tempfile::tempdir().unwrap();
    let (path, dest) = (directory.path().join("store"), directory.path().join("backup"));
    let (store, run) = small(&path);
    store.backup(&dest, &mut |_| {}).unwrap();
    // As if it had ended before its last step.
    fs::remove_file(dest.join("MLRS")).unwrap();
    assert!(matches!(Store::options().read_only(true).open(&dest), Err(Error::NotAStore { .. })));
    assert!(!store.backup(&dest, &mut |_| {}).unwrap().is_incremental);
    assert_eq!(values(&Store::open(&dest).unwrap(), &run, "x").len(), 100);
}

#[test]
fn a_backup_refuses_to_write_over_anything_else() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("store"), directory.path().join("other"));
    let (store, _) = small(&path);
    Store::open(&other).unwrap().close().unwrap();
    let papers = directory.path().join("papers");
    fs::create_dir_all(&papers).unwrap();
    fs::write(papers.join("thesis.tex"), "x").unwrap();
    for (dest, why) in [
        (&path, "inside the store"),
        (&path.join("backup"), "inside the store"),
        (&other, "another store"),
        (&papers, "not empty"),
    ] {
        let text = store.backup(dest, &mut |_| {}).unwrap_err().to_string();
        assert!(text.contains(why), "{text}");
    }
    assert_eq!(fs::read_dir(&papers).unwrap().count(), 1);
}

#[test]
fn what_is_damaged_is_copied_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let (path, dest) = (directory.path().join("store"), directory.path().join("backup"));
    small(&path).0.close().unwrap();
    let segment = seg_names(&path).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    fs::write(&segment, &bytes).unwrap();
    let store = Store::options().read_only(true).skip_damage(true).open(&path).unwrap();
    let report = store.backup(&dest, &mut |_| {}).unwrap();
    assert_eq!(report.copied.problems.len(), 1, "{report:?}");
    assert_eq!(fs::read(seg_names(&dest).remove(0)).unwrap(), bytes);
}
