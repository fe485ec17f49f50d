//! Compaction, garbage collection and statistics.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlrs_db::vfs::{OpenMode, OsVfs, Vfs};
use mlrs_db::{Error, GcOptions, Points, RunOptions, RunSearch, Store, ViewType};

fn temp() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every file below a folder with its bytes.
fn image(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for name in files(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            found.extend(image(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found
}

/// Makes all files of the log an hour old.
fn age(store: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for name in files(&store.join("log")) {
        let file = fs::File::options().append(true).open(store.join("log").join(name)).unwrap();
        file.set_modified(hour_ago).unwrap();
    }
}

fn compact(store: &Store) -> mlrs_db::CompactReport {
    store.compact(&mut |_| {}).unwrap()
}

/// A store with `count` closed segments, one run each; returns the runs.
fn many(path: &Path, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| {
            let store = Store::open(path).unwrap();
            let experiment = store.experiment("e").unwrap();
            let run = experiment.start_run(RunOptions::new().param("n", n.to_string())).unwrap();
            let series = run.series("loss").unwrap();
            for step in 0..500 {
                series.log_at(step, step, (n as i64 * 1000 + step) as f64).unwrap();
            }
            let id = run.id().to_owned();
            drop((series, run, experiment));
            store.close().unwrap();
            id
        })
        .collect()
}

fn check(store: &Store, runs: &[String]) {
    for (n, run) in runs.iter().enumerate() {
        let points: Points = store.history(run, "loss").unwrap().collect().unwrap();
        assert_eq!(points.len(), 500);
        assert!(points.iter().all(|p| p.value == (n as i64 * 1000 + p.step) as f64));
        assert_eq!(store.get_run(run).unwrap().params["n"], n.to_string());
        assert_eq!(store.get_run(run).unwrap().metrics["loss"].step, 499);
    }
}

#[test]
fn replaced_files_wait_for_readers_and_go_away_later() {
    let (_directory, path) = temp();
    let runs = many(&path, 5);
    let store = Store::open(&path).unwrap();
    let reader = Store::options().read_only(true).open(&path).unwrap();
    let mut seen = Vec::new();
    let report = store.compact(&mut |progress| seen.push(*progress)).unwrap();
    assert_eq!((report.segments_before, report.segments_after, report.points), (5, 1, 2_500));
    assert!(report.bytes_after < report.bytes_before && report.bytes_after > 0);
    assert!(seen.iter().all(|p| p.bytes_done <= p.bytes_total && p.bytes_total == report.bytes_before));
    let last = seen.last().unwrap();
    assert_eq!((last.bytes_done, last.points), (report.bytes_before, 2_500));
    assert_eq!((report.files_waiting, files(&path.join("log")).len()), (5, 6));
    // Young files stay.
    assert_eq!(store.gc(&GcOptions::default()).unwrap().files, Vec::<PathBuf>::new());
    age(&path);
    let gone = store.gc(&GcOptions { dry_run: true, ..Default::default() }).unwrap();
    assert_eq!((gone.files.len(), files(&path.join("log")).len()), (5, 6));
    let gone = store.gc(&GcOptions::default()).unwrap();
    assert_eq!((gone.files.len(), files(&path.join("log")).len()), (5, 1));
    assert!(gone.files.iter().all(|f| f.starts_with("log")) && gone.bytes > 0);
    for handle in [&store, &reader, &Store::open(&path).unwrap()] {
        check(handle, &runs);
    }
    assert_eq!(compact(&store).segments_before, 0);
}

#[test]
fn a_replaced_file_stays_if_its_replacement_is_damaged() {
    let (_directory, path) = temp();
    let runs = many(&path, 3);
    let before = files(&path.join("log"));
    compact(&Store::open(&path).unwrap());
    let replacement = files(&path.join("log")).into_iter().find(|name| !before.contains(name)).unwrap();
    let replacement = path.join("log").join(replacement);
    let sound = fs::read(&replacement).unwrap();
    for at in (0..sound.len()).step_by(sound.len() / 29) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&replacement, bytes).unwrap();
        age(&path);
        // Damaged metadata are an error already before anything is looked at.
        let done = Store::open(&path).and_then(|store| store.gc(&GcOptions::default()));
        assert!(done.is_err() || done.is_ok_and(|done| done.files.is_empty()), "damaged at {at}");
        assert!(before.iter().all(|name| path.join("log").join(name).exists()), "damaged at {at}");
    }
    fs::write(&replacement, sound).unwrap();
    age(&path);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.gc(&GcOptions::default()).unwrap().files.len(), 3);
    check(&store, &runs);
}

#[test]
fn a_closing_writer_folds_when_there_are_many_small_segments() {
    let (_directory, path) = temp();
    let runs = many(&path, 66);
    // Opening for reading changes nothing.
    let store = Store::open(&path).unwrap();
    check(&store, &runs);
    let stats = store.stats().unwrap();
    assert_eq!((stats.runs, stats.points, stats.writers), (66, 33_000, 67));
    store.close().unwrap();
    age(&path);
    // The next writer that closes removes what was replaced long ago.
    let more = many(&path, 1);
    assert!(files(&path.join("log")).len() <= 3, "{:?}", files(&path.join("log")));
    let store = Store::open(&path).unwrap();
    check(&store, &runs);
    check(&store, &more);
}

#[test]
fn what_somebody_still_writes_is_left_alone() {
    let (_directory, path) = temp();
    let runs = many(&path, 2);
    // This writer has no live file: it never logged a point.
    let writing = Store::open(&path).unwrap();
    let run = writing.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let other = Store::open(&path).unwrap();
    assert_eq!(compact(&other).segments_before, 2);
    age(&path);
    assert_eq!(other.gc(&GcOptions::default()).unwrap().files.len(), 2);
    run.log_param("late", "1").unwrap();
    run.series("late").unwrap().log_columns(&[1], &[2], &[3.0]).unwrap();
    assert_eq!(other.get_run(run.id()).unwrap().params["late"], "1");
    // With a live file neither.
    run.log_metric("late", 2, 4.0).unwrap();
    compact(&other);
    age(&path);
    other.gc(&GcOptions::default()).unwrap();
    run.log_metric("late", 3, 5.0).unwrap();
    let points: Points = other.history(run.id(), "late").unwrap().collect().unwrap();
    assert_eq!(points.values, [3.0, 4.0, 5.0]);
    let id = run.id().to_owned();
    drop(run);
    writing.close().unwrap();
    // Once it is closed its segment is folded, too.
    assert_eq!(compact(&other).segments_before, 2);
    let points: Points = other.history(&id, "late").unwrap().collect().unwrap();
    assert_eq!(points.values, [3.0, 4.0, 5.0]);
    check(&other, &runs);
}

#[test]
fn a_second_compaction_at_the_same_time_names_the_first() {
    let (_directory, path) = temp();
    many(&path, 2);
    let (a, b) = (Store::open(&path).unwrap(), Store::open(&path).unwrap());
    let mut refused = None;
    a.compact(&mut |_| {
        refused.get_or_insert_with(|| b.compact(&mut |_| {}).unwrap_err().to_string());
        // Claims go on meanwhile.
        b.experiment("another").unwrap();
    })
    .unwrap();
    let refused = refused.unwrap();
    assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
    let reader = Store::options().read_only(true).open(&path).unwrap();
    assert!(matches!(reader.compact(&mut |_| {}), Err(Error::ReadOnly { .. })));
    assert!(matches!(reader.gc(&GcOptions::default()), Err(Error::ReadOnly { .. })));
}

#[test]
fn what_was_deleted_is_purged_and_does_not_come_back() {
    let (directory, path) = temp();
    let runs = many(&path, 3);
    let old = directory.path().join("old");
    for (from, bytes) in image(&path) {
        let to = old.join(from.strip_prefix(&path).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
    let store = Store::open(&path).unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "stays").unwrap();
    for run in &runs {
        store.put_artifact_bytes(run, run.as_bytes(), "deep/model.bin").unwrap();
    }
    let artifact = store.artifact_path(&runs[1], "deep").unwrap();
    std::os::unix::fs::symlink(&outside, artifact.join("link")).unwrap();
    store.delete_run(&runs[1]).unwrap();
    store.sync().unwrap();
    let now = GcOptions { older_than_ms: 0, dry_run: false };
    // Deleted just now: not long enough ago.
    assert_eq!(store.gc(&GcOptions::default()).unwrap().runs, Vec::<String>::new());
    let before = image(&path);
    let told = store.gc(&GcOptions { dry_run: true, ..now }).unwrap();
    assert_eq!((&told.runs[..], told.experiments.len(), told.dry_run), (&runs[1..2], 0, true));
    assert_eq!(image(&path), before);
    let done = store.gc(&now).unwrap();
    assert_eq!((&done.runs, &done.files, done.bytes), (&told.runs, &told.files, told.bytes));
    assert_eq!((done.files.len(), done.bytes), (2, 32));
    assert!(!artifact.exists() && outside.join("precious").exists());
    assert!(store.artifact_path(&runs[0], "deep/model.bin").is_ok());
    assert!(matches!(store.get_run(&runs[1]), Err(Error::NotFound { .. })));
    assert_eq!(store.stats().unwrap().points, 1_500);
    // Its points go with the next compaction, its tombstone stays.
    assert_eq!(compact(&store).points, 1_000);
    store.close().unwrap();
    age(&path);
    Store::open(&path).unwrap().gc(&now).unwrap();
    for name in files(&old.join("log")) {
        fs::copy(old.join("log").join(&name), path.join("log").join(&name)).unwrap();
    }
    let store = Store::open(&path).unwrap();
    let all = RunSearch { view: ViewType::All, ..Default::default() };
    for _ in 0..2 {
        let found = store.search_runs(&all).unwrap().items;
        assert_eq!(found.len(), 2);
        assert!(matches!(store.get_run(&runs[1]), Err(Error::NotFound { .. })));
        assert_eq!(store.stats().unwrap().points, 1_000);
        compact(&store);
    }
    // In a store that never compacted they are hidden just as well, and dropped in turn.
    let other = Store::open(&old).unwrap();
    assert_eq!(other.search_runs(&all).unwrap().items.len(), 3);
    for name in files(&path.join("log")) {
        fs::copy(path.join("log").join(&name), old.join("log").join(&name)).unwrap();
    }
    assert_eq!(other.search_runs(&all).unwrap().items.len(), 2);
    compact(&other);
    assert_eq!(other.stats().unwrap().points, 1_000);
}

#[test]
fn a_purged_experiment_frees_its_name() {
    let (_directory, path) = temp();
    let runs = many(&path, 2);
    let store = Store::open(&path).unwrap();
    let id = store.get_experiment_by_name("e").unwrap().id.clone();
    store.delete_experiment(&id).unwrap();
    store.restore_run(&runs[0]).unwrap();
    let now = GcOptions { older_than_ms: 0, dry_run: false };
    // One of its runs is in use again.
    let done = store.gc(&now).unwrap();
    assert_eq!((&done.runs[..], done.experiments.len()), (&runs[1..], 0));
    store.delete_run(&runs[0]).unwrap();
    assert!(store.create_experiment("e", Default::default()).is_err());
    assert_eq!(store.gc(&now).unwrap().experiments, std::slice::from_ref(&id));
    let again = store.create_experiment("e", Default::default()).unwrap();
    assert_ne!(again.id(), id);
    assert_eq!(store.conflicts().unwrap(), []);
}

#[test]
fn half_written_files_go_when_they_are_old_and_nothing_else_does() {
    let (_directory, path) = temp();
    let runs = many(&path, 1);
    let log = path.join("log");
    fs::write(log.join("00-1.seg.tmp"), "left by a killed process").unwrap();
    fs::write(log.join("notes.txt"), "somebody's").unwrap();
    let store = Store::open(&path).unwrap();
    // A name that only looks like it is an artifact like any other, for backups, too.
    store.put_artifact_bytes(&runs[0], b"one of many", "data/set.part-0001").unwrap();
    let folder = store.artifact_path(&runs[0], "data").unwrap();
    let half = folder.join("set.part-0123456789abcdef0123456789abcdef");
    fs::write(&half, "left by a killed process").unwrap();
    let listed = || store.list_artifacts(&runs[0], "data").unwrap();
    let names: Vec<_> = listed().into_iter().map(|info| info.path).collect();
    assert_eq!(names, ["data/set.part-0001"]);
    assert_eq!(store.gc(&GcOptions::default()).unwrap().files, Vec::<PathBuf>::new());
    age(&path);
    let aged = |hours: u64| {
        for name in files(&folder) {
            let file = fs::File::options().append(true).open(folder.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
        }
    };
    aged(23);
    assert_eq!(store.gc(&GcOptions::default()).unwrap().files, [PathBuf::from("log/00-1.seg.tmp")]);
    aged(25);
    let relative = half.strip_prefix(&path).unwrap();
    let writing = OsVfs.open(&half, OpenMode::ReadWrite).unwrap();
    let lock = writing.try_lock().unwrap().unwrap();
    assert_eq!(store.gc(&GcOptions::default()).unwrap().files, Vec::<PathBuf>::new(), "somebody writes it");
    drop(lock);
    // On a network a lock says nothing, nor does the clock of another host.
    let network = Store::options().network(mlrs_db::Network::On).open(&path).unwrap();
    assert_eq!(network.gc(&GcOptions::default()).unwrap().files, Vec::<PathBuf>::new());
    network.close().unwrap();
    assert_eq!(store.gc(&GcOptions::default()).unwrap().files, [relative.to_path_buf()]);
    assert!(log.join("notes.txt").exists() && !half.exists());
    assert_eq!(listed().len(), 1);
    let dest = path.with_extension("backup");
    assert_eq!(store.backup(&dest, &mut |_| {}).unwrap().copied.artifacts, 1);
    check(&store, &runs);
}

#[test]
fn statistics_count_what_is_there() {
    let (_directory, path) = temp();
    let empty = Store::open(&path).unwrap();
    assert_eq!(empty.stats().unwrap(), mlrs_db::Stats::default());
    drop(empty);
    let runs = many(&path, 3);
    let store = Store::open(&path).unwrap();
    store.put_artifact_bytes(&runs[0], &[0; 1000], "a/b").unwrap();
    let run = store.run(&runs[0]).unwrap();
    for step in 0..100 {
        run.log_metric("live", step, 0.5).unwrap();
    }
    store.delete_run(&runs[2]).unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.experiments, stats.runs, stats.series, stats.points), (1, 3, 4, 1_600));
    assert_eq!((stats.segments, stats.writers, stats.artifact_bytes), (4, 4, 1_000));
    // One experiment, three runs, one deletion.
    assert_eq!(stats.events, 5);
    let bytes: u64 =
        files(&path.join("log")).iter().map(|n| path.join("log").join(n).metadata().unwrap().len()).sum();
    assert_eq!(stats.log_bytes, bytes);
    assert_eq!(
        stats.live_bytes,
        fs::read_dir(path.join("live")).unwrap().next().unwrap().unwrap().metadata().unwrap().len()
    );
    assert!(stats.bytes_per_point > 0.1 && stats.bytes_per_point < 24.0, "{}", stats.bytes_per_point);
    drop(run);
    compact(&store);
    let after = store.stats().unwrap();
    assert_eq!((after.points, after.series, after.segments_sealed), (1_600, 4, 1));
}
