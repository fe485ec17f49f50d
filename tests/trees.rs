//! The real trees of three MLflow versions, through a store, byte for byte.

use mlrs_db::mlruns::{ExportOptions, ImportOptions};
use mlrs_db::{Points, RunSearch, Stats, Store};
use std::path::{Path, PathBuf};
use std::process::Command;

fn unpack(version: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let tar = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/mlflow-{version}.tar.gz"));
    assert!(tar.exists(), "{} is missing", tar.display());
    assert!(
        Command::new("tar").arg("xzf").arg(&tar).arg("-C").arg(directory.path()).status().unwrap().success()
    );
    directory
}

fn assert_same(a: &Path, b: &Path) {
    let diff = Command::new("diff").arg("-r").arg(a).arg(b).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

/// Through a store and back; what `stats` says of that store, and how many points the tree has.
fn round_trip(tree: &Path) -> (Stats, u64) {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("store");
    let store = Store::open(&path).unwrap();
    let report = store.import(tree, &ImportOptions::default(), &mut |_| {}).unwrap();
    let exported: PathBuf = work.path().join("exported");
    store.export(&exported, &ExportOptions::default(), &mut |_| {}).unwrap();
    assert_same(tree, &exported);
    // And from a store that was closed, sealed and opened again; a second import adds nothing.
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    let again = store.import(tree, &ImportOptions::default(), &mut |_| {}).unwrap();
    assert_eq!((again.points_added, again.registers_written), (0, 0));
    assert_eq!((again.points, again.bytes), (report.points, report.bytes), "what is in the tree");
    let exported: PathBuf = work.path().join("exported-again");
    store.export(&exported, &ExportOptions::default(), &mut |_| {}).unwrap();
    assert_same(tree, &exported);
    let stats = store.stats().unwrap();
    let kept = (stats.yaml_files, stats.yaml_verbatim, stats.metric_files, stats.metric_verbatim);
    let read = (report.yaml_files, report.yaml_verbatim, report.metric_files, report.metric_verbatim);
    assert_eq!(kept, read, "the store says what the import said");
    (stats, report.points)
}

#[test]
fn trees_of_three_versions_come_back_byte_for_byte_and_stats_says_what_is_verbatim() {
    let mut yaml_files = 0;
    for (version, least, metric_files) in [("1.22.0", 1257, 37), ("2.22.5", 1261, 41), ("3.18.0", 1264, 44)] {
        let directory = unpack(version);
        let (stats, points) = round_trip(&directory.path().join("mlruns"));
        assert!(points >= least, "{version}");
        yaml_files += stats.yaml_files;
        assert_eq!((stats.yaml_verbatim, stats.metric_files), (0, metric_files), "{version}");
        // How 1.22 spelled integers is a column of the points, so not even its four files of them are verbatim.
        assert_eq!((stats.metric_verbatim, stats.verbatim_bytes), (0, 0), "{version}");
        // One file of each holds nothing but a float time stamp: no point, so its bytes are all there is.
        let (stats, _) = round_trip(&directory.path().join("poison/mlruns"));
        assert_eq!((stats.yaml_verbatim, stats.metric_verbatim), (0, 1), "{version}");
        assert!((20..60).contains(&stats.verbatim_bytes), "{version}: {}", stats.verbatim_bytes);
    }
    assert_eq!(yaml_files, 309);
}

/// A tree that was imported into two stores, from two places, counts once when the stores are put together.
#[test]
fn one_tree_from_two_paths_is_one_tree_after_a_merge() {
    for version in ["1.22.0", "3.18.0"] {
        let directory = unpack(version);
        let work = tempfile::tempdir().unwrap();
        let elsewhere = work.path().join("elsewhere");
        assert!(
            Command::new("cp").arg("-r").arg(directory.path()).arg(&elsewhere).status().unwrap().success()
        );
        let mut points = Vec::new();
        for (name, root) in [("one", directory.path()), ("two", &*elsewhere)] {
            let store = Store::open(work.path().join(name)).unwrap();
            let report = store.import(&root.join("mlruns"), &ImportOptions::default(), &mut |_| {}).unwrap();
            points.push(report.points);
            store.close().unwrap();
        }
        for entry in std::fs::read_dir(work.path().join("two/log")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), work.path().join("one/log").join(entry.file_name())).unwrap();
        }
        let store = Store::open(work.path().join("one")).unwrap();
        let stats = store.stats().unwrap();
        assert_eq!(points, [stats.points, stats.points], "{version}");
        let runs = store.search_runs(&RunSearch { max_results: 1000, ..RunSearch::default() }).unwrap();
        for run in &runs.items {
            for metric in store.metrics(&run.id).unwrap() {
                let history: Points = store.history(&run.id, &metric.key).unwrap().collect().unwrap();
                let file = files_of(&directory.path().join("mlruns"), &run.id, &metric.key);
                assert_eq!(history.len(), std::fs::read_to_string(file).unwrap().lines().count());
            }
        }
        // MLflow 1.22 wrote no time of creation: there only runs and points are known again, experiments are not.
        assert_eq!(stats.trees, if version == "1.22.0" { 2 } else { 1 }, "{version}");
        if stats.trees == 1 {
            let exported = work.path().join("exported");
            store.export(&exported, &ExportOptions::default(), &mut |_| {}).unwrap();
            assert_same(&directory.path().join("mlruns"), &exported);
        }
    }
}

/// Files below a directory of every run: (run directory, file).
fn files_in_runs(tree: &Path, below: &str) -> Vec<(PathBuf, PathBuf)> {
    let list = |path: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(path).into_iter().flatten().map(|e| e.unwrap().path()).collect()
    };
    let mut found = Vec::new();
    for run in list(tree).iter().chain(&list(&tree.join(".trash"))).flat_map(|e| list(e)) {
        let files = list(&run.join(below)).into_iter().filter(|file| file.is_file());
        found.extend(files.map(|file| (run.clone(), file)));
    }
    found.sort();
    found
}

/// All that is answered about runs: by id, with the parent's.
fn answers(store: &Store) -> Vec<String> {
    let all = RunSearch { max_results: 1000, view: mlrs_db::ViewType::All, ..RunSearch::default() };
    let mut answers = Vec::new();
    for found in store.search_runs(&all).unwrap().items {
        let run = store.get_run(&found.id).unwrap();
        let mut line = format!("{} {:?} {:?} {:?} {:?}", run.id, run.params, run.tags, run.inputs, run.name);
        if let Some(parent) = run.tags.get("mlflow.parentRunId") {
            line.push_str(&store.get_run(parent).unwrap().id);
        }
        for metric in store.metrics(&found.id).unwrap() {
            let points: Points = store.history(&found.id, &metric.key).unwrap().collect().unwrap();
            line.push_str(&format!(
                " {} {} {:?}",
                metric.key,
                metric.latest.value.to_bits(),
                points.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            ));
        }
        for artifact in store.list_artifacts(&found.id, "").unwrap() {
            line.push_str(&format!(" {artifact:?}"));
        }
        answers.push(line);
    }
    answers.sort();
    answers
}

/// Every run with a metric or a param changes where nothing can be taken back: `replace` takes it, and the store
/// answers like one that never knew the tree before.
#[test]
fn changed_trees_of_three_versions_are_taken_with_replace() {
    for version in ["1.22.0", "2.22.5", "3.18.0"] {
        let directory = unpack(version);
        let tree = directory.path().join("mlruns");
        let work = tempfile::tempdir().unwrap();
        let store = Store::open(work.path().join("store")).unwrap();
        store.import(&tree, &ImportOptions::default(), &mut |_| {}).unwrap();
        let mut changed = std::collections::BTreeSet::new();
        for (run, file) in files_in_runs(&tree, "metrics").into_iter().step_by(2) {
            let text = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, format!("1700000000000 0.625 0\n{text}")).unwrap();
            changed.insert(run);
        }
        for (run, file) in files_in_runs(&tree, "params").into_iter().step_by(3) {
            std::fs::write(&file, "another").unwrap();
            changed.insert(run);
        }
        assert!(changed.len() > 3, "{version}");
        let options = ImportOptions { replace: true, ..ImportOptions::default() };
        let look = ImportOptions { dry_run: true, ..options.clone() };
        let look = store.import(&tree, &look, &mut |_| {}).unwrap();
        let report = store.import(&tree, &options, &mut |_| {}).unwrap();
        assert_eq!((look.problems, look.points_added), (report.problems.clone(), report.points_added));
        let told = |run: &PathBuf| {
            report.problems.iter().any(|p| p.path.starts_with(run) && p.text.contains("taken anew"))
        };
        assert!(changed.iter().all(told), "{version}: {:?}", report.problems);
        let fresh = Store::open(work.path().join("fresh")).unwrap();
        fresh.import(&tree, &ImportOptions::default(), &mut |_| {}).unwrap();
        let expected = answers(&fresh);
        assert_eq!(answers(&store), expected, "{version}");
        store.compact(&mut |_| {}).unwrap();
        store.gc(&mlrs_db::GcOptions { older_than_ms: u64::MAX, dry_run: false }).unwrap();
        store.close().unwrap();
        let store = Store::open(work.path().join("store")).unwrap();
        assert_eq!(answers(&store), expected, "{version}");
        let again = store.import(&tree, &options, &mut |_| {}).unwrap();
        assert_eq!((again.points_added, again.registers_written), (0, 0), "{version}");
        let exported = work.path().join("exported");
        store.export(&exported, &ExportOptions::default(), &mut |_| {}).unwrap();
        assert_same(&tree, &exported);
    }
}

fn files_of(tree: &Path, run: &str, key: &str) -> PathBuf {
    let below = |path: &Path| std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    let experiments = below(tree).chain(below(&tree.join(".trash")));
    experiments.map(|e| e.join(run).join("metrics").join(key)).find(|path| path.exists()).unwrap()
}
