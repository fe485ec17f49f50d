//! Stores merge by copying files: nothing is lost or doubled, whatever was sealed, compacted, cut or copied twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mlrs_db::mlruns::{ExportOptions, ImportOptions, ImportReport};
use mlrs_db::{Error, Points, RunOptions, RunSearch, Store, ViewType};
use proptest::prelude::*;

struct Place {
    _directory: tempfile::TempDir,
    root: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_path_buf();
        Self { _directory: directory, root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// What `rsync` of `log/ live/ artifacts/` does: each file arrives whole under a name of its own and is renamed.
fn merge(from: &Path, to: &Path) {
    for folder in ["log", "live", "artifacts"] {
        copy_tree(&from.join(folder), &to.join(folder));
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = entries.map(Result::unwrap).collect();
    // As the README says: live files first, because points go from there to the log.
    entries.sort_by_key(|entry| (entry.file_name() != "live", entry.file_name()));
    for entry in entries {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            let aside = to.join(format!(".{}.part", entry.file_name().to_string_lossy()));
            fs::copy(entry.path(), &aside).unwrap();
            fs::rename(&aside, &target).unwrap();
        }
    }
}

/// All histories of a store: by run name and key.
type Histories = BTreeMap<(String, String), Points>;

fn histories(store: &Store) -> Histories {
    let all = RunSearch { view: ViewType::All, max_results: 50_000, ..Default::default() };
    let mut found = Histories::new();
    for run in store.search_runs(&all).unwrap().items {
        for key in run.metrics.keys() {
            let points: Points = store.history(&run.id, key).unwrap().collect().unwrap();
            found.insert((run.name.clone(), key.clone()), points);
        }
    }
    found
}

fn compact(store: &Store) -> mlrs_db::CompactReport {
    store.compact(&mut |_| {}).unwrap()
}

/// Logs `count` points of a run whose values say where they come from.
fn log(store: &Store, run: &str, key: &str, first: i64, count: i64) {
    let series = store.run(run).unwrap().series(key).unwrap();
    for step in first..first + count {
        series.log_at(step, 1_700_000_000_000 + step, step as f64).unwrap();
    }
}

fn start(store: &Store, name: &str) -> String {
    let run = store.experiment("mnist").unwrap().start_run(RunOptions::new().name(name)).unwrap();
    run.id().to_owned()
}

fn steps(store: &Store, run: &str, key: &str) -> Vec<i64> {
    let points: Points = store.history(run, key).unwrap().collect().unwrap();
    assert!(points.iter().all(|p| p.value == p.step as f64));
    points.steps
}

#[test]
fn an_experiment_logged_on_two_nodes_is_one_after_copying() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("b"));
    let mut runs = Vec::new();
    for (path, name) in [(&a, "on-a"), (&b, "on-b")] {
        let store = Store::open(path).unwrap();
        let run = start(&store, name);
        log(&store, &run, "loss", 0, 10_000);
        store.run(&run).unwrap().log_param("node", name).unwrap();
        store.put_artifact_bytes(&run, name.as_bytes(), "note.txt").unwrap();
        store.close().unwrap();
        runs.push(run);
    }
    merge(&a, &b);
    let store = Store::open(&b).unwrap();
    let all = store.search_runs(&RunSearch::default()).unwrap().items;
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|run| run.experiment_id == all[0].experiment_id));
    assert_eq!(store.search_experiments(&Default::default()).unwrap().items.len(), 1);
    assert_eq!(store.conflicts().unwrap(), []);
    for run in &runs {
        assert_eq!(steps(&store, run, "loss"), (0..10_000).collect::<Vec<_>>());
        let artifact = store.artifact_path(run, "note.txt").unwrap();
        assert_eq!(fs::read_to_string(artifact).unwrap(), store.get_run(run).unwrap().params["node"]);
    }
    let stats = store.stats().unwrap();
    assert_eq!((stats.experiments, stats.runs, stats.series, stats.points), (1, 2, 2, 20_000));
}

#[test]
fn two_experiments_with_one_name_stay_apart_and_are_listed() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("b"));
    let store = Store::open(&a).unwrap();
    let experiment = store.experiment("draft").unwrap();
    experiment.start_run(RunOptions::new().name("on-a")).unwrap();
    store.rename_experiment(experiment.id(), "mnist").unwrap();
    store.close().unwrap();
    let store = Store::open(&b).unwrap();
    store.experiment("mnist").unwrap().start_run(RunOptions::new().name("on-b")).unwrap();
    store.close().unwrap();
    merge(&a, &b);
    let store = Store::open(&b).unwrap();
    let experiments = store.search_experiments(&Default::default()).unwrap().items;
    assert_eq!(experiments.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["mnist", "mnist"]);
    // The older one answers to the name, the other to its id.
    assert_eq!(store.get_experiment_by_name("mnist").unwrap().id, experiment.id());
    for found in experiments {
        let search = RunSearch { experiment_ids: vec![found.id.clone()], ..Default::default() };
        let runs = store.search_runs(&search).unwrap().items;
        let expected = if found.id == experiment.id() { "on-a" } else { "on-b" };
        assert_eq!(runs.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), [expected]);
    }
    let conflicts = store.conflicts().unwrap();
    assert_eq!(conflicts.len(), 1);
    assert!(conflicts[0].to_string().contains("both named 'mnist'"), "{}", conflicts[0]);
}

#[test]
fn copies_that_were_compacted_apart_hold_every_point_once() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("b"));
    let mut run = String::new();
    for round in 0..4 {
        let store = Store::open(&a).unwrap();
        if round == 0 {
            run = start(&store, "shared");
        }
        log(&store, &run, "loss", round * 1_000, 1_000);
        store.close().unwrap();
    }
    let expected = histories(&Store::open(&a).unwrap());
    Store::open(&b).unwrap().close().unwrap();
    merge(&a, &b);
    for path in [&a, &b] {
        let store = Store::open(path).unwrap();
        let report = compact(&store);
        assert_eq!((report.segments_before, report.segments_after, report.points), (4, 1, 4_000));
        assert_eq!(report.files_waiting, 4);
        assert_eq!(histories(&store), expected);
        // There is nothing to gain from doing it again.
        assert_eq!(compact(&store).segments_before, 0);
    }
    merge(&a, &b);
    let store = Store::open(&b).unwrap();
    assert_eq!(histories(&store), expected);
    assert_eq!(store.stats().unwrap().points, 4_000);
    let report = compact(&store);
    assert_eq!((report.segments_before, report.segments_after, report.points), (2, 1, 4_000));
    assert_eq!(histories(&store), expected);
    merge(&b, &a);
    let store = Store::open(&a).unwrap();
    log(&store, &run, "loss", 4_000, 10);
    assert_eq!(steps(&store, &run, "loss"), (0..4_010).collect::<Vec<_>>());
    assert_eq!(store.stats().unwrap().points, 4_010);
}

/// The only segment of a store.
fn only_segment(store: &Path) -> PathBuf {
    let mut found: Vec<_> = fs::read_dir(store.join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// A store with a run of three metrics in one segment, which was not sealed where `sealed` is false.
fn source(path: &Path, sealed: bool) -> String {
    let store = Store::options().flush_interval_ms(1).open(path).unwrap();
    let run = start(&store, "source");
    for round in 0..20 {
        for key in ["a", "b", "c"] {
            log(&store, &run, key, round * 50, 50);
        }
        // Metadata behind points hands these over first: many small batches.
        store
            .run(&run)
            .unwrap()
            .log_batch(&[mlrs_db::Metric::new("m", round, 0.0)], &[], &[("k", "v")])
            .unwrap();
    }
    store.sync().unwrap();
    if sealed {
        store.close().unwrap();
    } else {
        // What a killed process leaves: its live file is not among what is copied here.
        let image = path.with_extension("image");
        copy_tree(&path.join("log"), &image.join("log"));
        store.close().unwrap();
        fs::remove_dir_all(path.join("log")).unwrap();
        copy_tree(&image.join("log"), &path.join("log"));
    }
    run
}

#[test]
fn a_copy_that_was_cut_anywhere_is_completed_by_the_whole_one() {
    for sealed in [false, true] {
        let place = Place::new();
        let a = place.at("a");
        let run = source(&a, sealed);
        let whole = only_segment(&a);
        let bytes = fs::read(&whole).unwrap();
        let expected = histories(&Store::options().read_only(true).open(&a).unwrap());
        let mut cut = 1;
        let mut round = 0;
        while cut < bytes.len() {
            let b = place.at(&format!("b-{sealed}-{round}"));
            fs::create_dir_all(b.join("log")).unwrap();
            let name = b.join("log").join(whole.file_name().unwrap());
            fs::write(&name, &bytes[..cut]).unwrap();
            let store = Store::open(&b).unwrap();
            let own = start(&store, "own");
            log(&store, &own, "loss", 0, 100);
            let before = histories(&store);
            // What is there of the cut copy is a beginning of each history.
            for ((name, key), points) in before.iter().filter(|((name, _), _)| name == "source") {
                let whole = &expected[&(name.clone(), key.clone())];
                assert_eq!(points.values, whole.values[..points.len()], "{key} cut at {cut}");
            }
            compact(&store);
            assert_eq!(histories(&store), before, "cut at {cut}");
            store.close().unwrap();
            merge(&a, &b);
            for _ in 0..2 {
                let store = Store::open(&b).unwrap();
                let mut found = histories(&store);
                assert_eq!(found.remove(&("own".into(), "loss".into())).unwrap().len(), 100);
                assert_eq!(found, expected, "cut at {cut} of {}", bytes.len());
                assert_eq!(steps(&store, &run, "b").len(), 1_000);
                compact(&store);
            }
            round += 1;
            cut += 1 + bytes.len() / 23 + round % 7;
        }
    }
}

#[test]
fn half_a_copy_of_a_compacted_segment_hides_nothing() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("b"));
    for round in 0..3 {
        let store = Store::open(&a).unwrap();
        let run = start(&store, &format!("run-{round}"));
        log(&store, &run, "loss", 0, 3_000);
    }
    Store::open(&b).unwrap().close().unwrap();
    merge(&a, &b);
    let before: Vec<_> = fs::read_dir(a.join("log")).unwrap().map(|e| e.unwrap().file_name()).collect();
    let store = Store::open(&a).unwrap();
    let expected = histories(&store);
    compact(&store);
    store.close().unwrap();
    let compacted = fs::read_dir(a.join("log")).unwrap().map(|e| e.unwrap().path());
    let compacted = compacted.filter(|p| !before.contains(&p.file_name().unwrap().to_owned()));
    for path in compacted {
        let bytes = fs::read(&path).unwrap();
        for part in 1..8 {
            fs::write(b.join("log").join(path.file_name().unwrap()), &bytes[..bytes.len() * part / 8])
                .unwrap();
            assert_eq!(histories(&Store::open(&b).unwrap()), expected, "{part} eighths");
        }
    }
}

#[test]
fn a_live_file_that_is_copied_again_after_its_recovery_doubles_nothing() {
    let place = Place::new();
    let (a, image, b) = (place.at("a"), place.at("image"), place.at("b"));
    let store = Store::open(&a).unwrap();
    let run = start(&store, "killed");
    log(&store, &run, "x", 0, 40_000);
    log(&store, &run, "y", 0, 10);
    copy_tree(&a, &image);
    copy_tree(&image, &b);
    for round in 0..4 {
        let store = Store::open(&b).unwrap();
        assert_eq!(
            steps(&store, &run, "x"),
            (0..40_000).collect::<Vec<_>>(),
            "before writing, round {round}"
        );
        store.run(&run).unwrap().log_param(&format!("p{round}"), "1").unwrap();
        assert_eq!(steps(&store, &run, "x"), (0..40_000).collect::<Vec<_>>(), "round {round}");
        assert_eq!(steps(&store, &run, "y"), (0..10).collect::<Vec<_>>(), "round {round}");
        assert_eq!(store.stats().unwrap().points, 40_010);
        if round == 2 {
            compact(&store);
        }
        store.close().unwrap();
        // Also when the writer's own segments are gone, because they were folded.
        if round == 2 {
            let sources: Vec<_> =
                fs::read_dir(image.join("log")).unwrap().map(|e| e.unwrap().file_name()).collect();
            sources.iter().for_each(|name| fs::remove_file(b.join("log").join(name)).unwrap());
        }
        copy_tree(&image.join("live"), &b.join("live"));
    }
    // The process was not dead at all: it goes on, and its files are copied once more.
    log(&store, &run, "x", 40_000, 20_000);
    log(&store, &run, "y", 10, 10);
    merge(&a, &b);
    let merged = Store::open(&b).unwrap();
    assert_eq!(steps(&merged, &run, "x"), (0..60_000).collect::<Vec<_>>());
    merged.run(&run).unwrap().log_param("last", "1").unwrap();
    assert_eq!(steps(&merged, &run, "x"), (0..60_000).collect::<Vec<_>>());
    assert_eq!(steps(&merged, &run, "y"), (0..20).collect::<Vec<_>>());
}

#[test]
fn an_old_live_file_of_a_folded_writer_doubles_nothing() {
    let place = Place::new();
    let (a, image) = (place.at("a"), place.at("image"));
    let store = Store::open(&a).unwrap();
    let run = start(&store, "finished");
    log(&store, &run, "x", 0, 30_000);
    store.run(&run).unwrap().log_batch(&[mlrs_db::Metric::new("m", 0, 0.0)], &[], &[("k", "v")]).unwrap();
    log(&store, &run, "x", 30_000, 100);
    copy_tree(&a, &image);
    store.close().unwrap();
    let sources: Vec<_> = fs::read_dir(a.join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    let store = Store::open(&a).unwrap();
    // Something else to fold with.
    start(&store, "another");
    store.close().unwrap();
    let store = Store::open(&a).unwrap();
    assert_eq!(compact(&store).segments_after, 1);
    sources.iter().for_each(|path| fs::remove_file(path).unwrap());
    copy_tree(&image.join("live"), &a.join("live"));
    for round in 0..2 {
        assert_eq!(steps(&store, &run, "x"), (0..30_100).collect::<Vec<_>>(), "round {round}");
        compact(&store);
    }
    assert_eq!(fs::read_dir(a.join("live")).unwrap().count(), 0);
}

#[test]
fn one_writer_recovers_another_twice() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("b"));
    let from = Store::open(&a).unwrap();
    let run = start(&from, "copied alive");
    log(&from, &run, "x", 0, 100);
    Store::open(&b).unwrap().close().unwrap();
    merge(&a, &b);
    let store = Store::open(&b).unwrap();
    start(&store, "own");
    assert_eq!(steps(&store, &run, "x"), (0..100).collect::<Vec<_>>());
    log(&from, &run, "x", 100, 100);
    from.run(&run).unwrap().log_batch(&[mlrs_db::Metric::new("m", 0, 0.0)], &[], &[("k", "v")]).unwrap();
    log(&from, &run, "x", 200, 100);
    merge(&a, &b);
    assert_eq!(steps(&store, &run, "x"), (0..300).collect::<Vec<_>>());
    // Behind a hole: what lies between is in the other writer's segment.
    compact(&store);
    assert_eq!(fs::read_dir(b.join("live")).unwrap().count(), 0);
    assert_eq!(steps(&store, &run, "x"), (0..300).collect::<Vec<_>>());
    assert_eq!(store.stats().unwrap().points, 301);
}

#[test]
fn a_live_file_without_the_segments_of_its_writer_waits_for_them() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("b"));
    let store = Store::open(&a).unwrap();
    let run = start(&store, "killed");
    log(&store, &run, "x", 0, 50_000);
    // Behind a hand-over, so that the live file has only the last points.
    store.run(&run).unwrap().log_batch(&[mlrs_db::Metric::new("m", 0, 0.0)], &[], &[("k", "v")]).unwrap();
    log(&store, &run, "x", 50_000, 100);
    store.sync().unwrap();
    Store::open(&b).unwrap().close().unwrap();
    copy_tree(&a.join("live"), &b.join("live"));
    let other = Store::open(&b).unwrap();
    start(&other, "own");
    other.close().unwrap();
    merge(&a, &b);
    let other = Store::open(&b).unwrap();
    start(&other, "own again");
    assert_eq!(steps(&other, &run, "x"), (0..50_100).collect::<Vec<_>>());
    assert!(matches!(other.get_run("nothing"), Err(Error::NotFound { .. })));
}

#[test]
fn a_hole_is_told_of_and_closed_when_the_rest_arrives() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("b"));
    let store = Store::options().segment_bytes_max(64 << 10).open(&a).unwrap();
    let run = start(&store, "long");
    let series = store.run(&run).unwrap().series("x").unwrap();
    let all: Vec<i64> = (0..60_000).collect();
    // Values that do not compress, so that the writer rolls.
    let value = |step: i64| {
        let mixed = (step as u64 ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        f64::from_bits((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 2)
    };
    for part in all.chunks(5_000) {
        let values: Vec<f64> = part.iter().map(|s| value(*s)).collect();
        series.log_columns(part, part, &values).unwrap();
    }
    drop(series);
    store.close().unwrap();
    let mut segments: Vec<_> = fs::read_dir(a.join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() >= 3);
    Store::open(&b).unwrap().close().unwrap();
    merge(&a, &b);
    // Half of one in the middle: points before and behind a hole.
    let middle = b.join("log").join(segments[1].file_name().unwrap());
    let bytes = fs::read(&middle).unwrap();
    fs::write(&middle, &bytes[..bytes.len() / 2]).unwrap();
    let store = Store::open(&b).unwrap();
    let there = |store: &Store| {
        let history = store.history(&run, "x").unwrap();
        assert!(matches!(history.collect::<Points>(), Err(Error::Gap { .. })));
        history.allow_gaps(true).collect::<Points>().unwrap()
    };
    let before = there(&store);
    assert!(before.len() < 60_000 && before.steps.last() == Some(&59_999));
    compact(&store);
    assert_eq!(there(&store), before);
    assert_eq!(store.stats().unwrap().points, before.len() as u64);
    merge(&a, &b);
    for _ in 0..2 {
        let points: Points = store.history(&run, "x").unwrap().collect().unwrap();
        assert_eq!(points.steps, all);
        assert!(points.iter().all(|p| p.value == value(p.step)));
        compact(&store);
    }
}

/// One thing that happens to one of some stores.
#[derive(Clone, Debug)]
enum Step {
    /// Open, log that many points to the shared run, close.
    Log {
        store: usize,
        points: i64,
        stamp: i64,
        bulk: bool,
    },
    /// Log and leave the files as a killed process would.
    Killed {
        store: usize,
        points: i64,
        stamp: i64,
    },
    Compact {
        store: usize,
    },
    Merge {
        from: usize,
        to: usize,
    },
    /// Everything but the log is deletable.
    LoseIndex {
        store: usize,
    },
}

fn step(stores: usize) -> impl Strategy<Value = Step> {
    let store = 0..stores;
    prop_oneof![
        4 => (store.clone(), 1i64..40, 0i64..100, any::<bool>())
            .prop_map(|(store, points, stamp, bulk)| Step::Log { store, points, stamp, bulk }),
        2 => (store.clone(), 1i64..40, 0i64..100)
            .prop_map(|(store, points, stamp)| Step::Killed { store, points, stamp }),
        3 => store.clone().prop_map(|store| Step::Compact { store }),
        3 => (store.clone(), store.clone()).prop_map(|(from, to)| Step::Merge { from, to }),
        1 => store.prop_map(|store| Step::LoseIndex { store }),
    ]
}

/// The same run in each of `count` stores: the first one's log is where all begin.
fn begin(place: &Place, count: usize) -> (Vec<PathBuf>, String) {
    let paths: Vec<PathBuf> = (0..count).map(|n| place.at(&format!("store-{n}"))).collect();
    let store = Store::open(&paths[0]).unwrap();
    let run = start(&store, "shared");
    store.close().unwrap();
    for path in &paths[1..] {
        Store::open(path).unwrap().close().unwrap();
        merge(&paths[0], path);
    }
    (paths, run)
}

fn log_stamped(store: &Store, run: &str, first: i64, points: i64, stamp: i64, bulk: bool) {
    let series = store.run(run).unwrap().series("x").unwrap();
    let steps: Vec<i64> = (first..first + points).collect();
    let stamps: Vec<i64> = steps.iter().map(|s| stamp + s % 7).collect();
    let values: Vec<f64> = steps.iter().map(|s| *s as f64).collect();
    if bulk {
        series.log_columns(&steps, &stamps, &values).unwrap();
    } else {
        for ((step, stamp), value) in steps.iter().zip(&stamps).zip(&values) {
            series.log_at(*step, *stamp, *value).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The order of a history depends on what was logged and by whom, and on nothing else.
    #[test]
    fn order_survives_sealing_compaction_merging_and_a_lost_index(
        count in 1usize..=3,
        script in proptest::collection::vec(step(3), 1..14),
    ) {
        let place = Place::new();
        let (paths, run) = begin(&place, count);
        // Steps say which points a store must have; each is logged once.
        let mut known: Vec<Vec<i64>> = vec![Vec::new(); count];
        let mut next = 0;
        let mut images = 0;
        for step in &script {
            match *step {
                Step::Log { store, points, stamp, bulk } => {
                    let store = store % count;
                    let opened = Store::open(&paths[store]).unwrap();
                    log_stamped(&opened, &run, next, points, stamp, bulk);
                    let order = opened.history(&run, "x").unwrap().collect::<Points>().unwrap();
                    opened.close().unwrap();
                    let sealed = Store::open(&paths[store]).unwrap();
                    prop_assert_eq!(sealed.history(&run, "x").unwrap().collect::<Points>().unwrap(), order);
                    known[store].extend(next..next + points);
                    next += points;
                }
                Step::Killed { store, points, stamp } => {
                    let store = store % count;
                    let image = place.at(&format!("image-{images}"));
                    images += 1;
                    let opened = Store::open(&paths[store]).unwrap();
                    log_stamped(&opened, &run, next, points, stamp, false);
                    copy_tree(&paths[store], &image);
                    drop(opened);
                    fs::remove_dir_all(&paths[store]).unwrap();
                    fs::rename(&image, &paths[store]).unwrap();
                    known[store].extend(next..next + points);
                    next += points;
                }
                Step::Compact { store } => {
                    let opened = Store::open(&paths[store % count]).unwrap();
                    let before = opened.history(&run, "x").unwrap().collect::<Points>().unwrap();
                    compact(&opened);
                    prop_assert_eq!(opened.history(&run, "x").unwrap().collect::<Points>().unwrap(), before);
                }
                Step::Merge { from, to } => {
                    let (from, to) = (from % count, to % count);
                    if from != to {
                        merge(&paths[from], &paths[to]);
                        let more = known[from].clone();
                        known[to].extend(more);
                        known[to].sort_unstable();
                        known[to].dedup();
                    }
                }
                Step::LoseIndex { store } => {
                    let _ = fs::remove_file(paths[store % count].join("index.redb"));
                }
            }
            for (path, known) in paths.iter().zip(&known) {
                let opened = Store::options().read_only(true).open(path).unwrap();
                let mut steps = opened.history(&run, "x").unwrap().collect::<Points>().unwrap().steps;
                steps.sort_unstable();
                let mut expected = known.clone();
                expected.sort_unstable();
                prop_assert_eq!(steps, expected);
            }
        }
        // All stores with everything agree on one order.
        let mut orders = Vec::new();
        for _ in 0..2 {
            for from in 0..count {
                for to in (0..count).filter(|to| *to != from) {
                    merge(&paths[from], &paths[to]);
                }
            }
        }
        for (n, path) in paths.iter().enumerate() {
            let opened = Store::open(path).unwrap();
            if n == 0 {
                compact(&opened);
            }
            orders.push(opened.history(&run, "x").unwrap().collect::<Points>().unwrap());
        }
        prop_assert_eq!(orders[0].len() as i64, next);
        prop_assert!(orders.iter().all(|order| *order == orders[0]));
    }
}

/// A tree of one run, whose lines and param say which state it is in.
fn tree(root: &Path, state: u32) {
    let run = root.join("7/0123456789abcdef0123456789abcdef");
    for name in ["metrics", "params", "tags", "artifacts"] {
        fs::create_dir_all(run.join(name)).unwrap();
    }
    fs::create_dir_all(root.join(".trash")).unwrap();
    fs::write(root.join("7/meta.yaml"), "artifact_location: file:///x/7\ncreation_time: 5\nexperiment_id: '7'\nlast_update_time: 6\nlifecycle_stage: active\nname: seven\n").unwrap();
    fs::write(run.join("meta.yaml"), "artifact_uri: file:///x/7/0123456789abcdef0123456789abcdef/artifacts\nend_time: 2000\nentry_point_name: ''\nexperiment_id: '7'\nlifecycle_stage: active\nrun_id: 0123456789abcdef0123456789abcdef\nrun_name: first\nrun_uuid: 0123456789abcdef0123456789abcdef\nsource_name: ''\nsource_type: 4\nsource_version: ''\nstart_time: 1000\nstatus: 3\ntags: []\nuser_id: me\n").unwrap();
    let lines: String = (0..100).map(|step| format!("{} {state}.5 {step}\n", 1000 + step)).collect();
    fs::write(run.join("metrics/loss"), lines).unwrap();
    fs::write(run.join("params/state"), state.to_string()).unwrap();
    fs::write(run.join("artifacts/weights"), [state as u8; 99]).unwrap();
}

fn import(store: &Path, tree: &Path, replace: bool) -> ImportReport {
    let store = Store::open(store).unwrap();
    let options = ImportOptions { replace, ..ImportOptions::default() };
    let report = store.import(tree, &options, &mut |_| {}).unwrap();
    store.close().unwrap();
    report
}

/// The states the runs of a store are in; each is in one only.
fn states(store: &Path) -> Vec<String> {
    let store = Store::open(store).unwrap();
    let mut states = Vec::new();
    for run in store.search_runs(&RunSearch::default()).unwrap().items {
        let points: Points = store.history(&run.uid.to_string(), "loss").unwrap().collect().unwrap();
        let state = run.params["state"].clone();
        assert_eq!(points.steps, (0..100).collect::<Vec<_>>(), "{state}");
        assert!(points.values.iter().all(|value| value.to_string() == format!("{state}.5")), "{state}");
        assert_eq!(run.metrics["loss"].value.to_string(), format!("{state}.5"));
        states.push(state);
    }
    states.sort_unstable();
    states
}

fn assert_exports(store: &Path, tree: &Path) {
    let work = tempfile::tempdir().unwrap();
    let store = Store::open(store).unwrap();
    store.export(&work.path().join("out"), &ExportOptions::default(), &mut |_| {}).unwrap();
    let diff =
        std::process::Command::new("diff").arg("-r").arg(tree).arg(work.path().join("out")).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[test]
fn a_run_that_was_taken_anew_stays_so_after_a_merge() {
    let place = Place::new();
    let (a, b, c, source) = (place.at("a"), place.at("b"), place.at("c"), place.at("tree"));
    tree(&source, 1);
    for store in [&a, &b, &c] {
        assert_eq!(import(store, &source, false).problems_total, 0);
    }
    tree(&source, 2);
    import(&a, &source, true);
    assert_eq!(states(&a), ["2"]);
    let id = "0123456789abcdef0123456789abcdef";
    let open = Store::open(&a).unwrap();
    assert_eq!(open.get_run(id).unwrap().params["state"], "2");
    assert_eq!(fs::read(open.artifact_path(id, "weights").unwrap()).unwrap(), [2; 99]);
    open.close().unwrap();
    // A store that still has the old one, in both directions; and one that took the same state by itself.
    import(&c, &source, true);
    for (from, to) in [(&a, &b), (&b, &a), (&c, &b)] {
        merge(from, to);
        assert_eq!(states(to), ["2"]);
        assert_exports(to, &source);
        let again = import(to, &source, false);
        let counts = (again.points_added, again.registers_written, again.problems_total);
        assert_eq!(counts, (0, 0, 0), "{:?}", again.problems);
    }
    // Compaction and collection leave nothing of the old one, and take nothing of the new one.
    let open = Store::open(&b).unwrap();
    compact(&open);
    open.gc(&mlrs_db::GcOptions::default()).unwrap();
    open.close().unwrap();
    assert_eq!(states(&b), ["2"]);
    assert_exports(&b, &source);
}

#[test]
fn stores_that_took_different_states_of_a_run_do_not_mix_them() {
    let place = Place::new();
    let (a, b, source) = (place.at("a"), place.at("b"), place.at("tree"));
    tree(&source, 1);
    for store in [&a, &b] {
        import(store, &source, false);
    }
    for (store, state) in [(&a, 2), (&b, 3)] {
        tree(&source, state);
        import(store, &source, true);
    }
    merge(&a, &b);
    assert_eq!(states(&b), ["2", "3"]);
    let report = import(&b, &source, false);
    assert_eq!(report.problems_total, 1, "{:?}", report.problems);
    assert!(report.problems[0].text.contains("stores were merged"), "{:?}", report.problems);
    assert_eq!(states(&b), ["2", "3"], "nothing is removed unasked");
    import(&b, &source, true);
    assert_eq!(states(&b), ["3"]);
    assert_exports(&b, &source);
    assert_eq!(import(&b, &source, true).problems_total, 0);
}

/// Merges through the API.
fn take_in(store: &Store, other: &Path) -> mlrs_db::MergeReport {
    store.merge(other, false, &mut |_| {}).unwrap()
}

#[test]
fn merging_takes_in_living_and_ended_writers_and_doubles_nothing() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("b"));
    let home = Store::open(&b).unwrap();
    let own = start(&home, "own");
    log(&home, &own, "loss", 0, 10);
    let away = Store::open(&a).unwrap();
    let run = start(&away, "away");
    away.put_artifact_bytes(&run, b"weights", "model.bin").unwrap();
    log(&away, &run, "loss", 0, 1_000);
    // While its writer lives.
    let would = home.merge(&a, true, &mut |_| {}).unwrap();
    assert!(would.dry_run && matches!(home.get_run(&run), Err(Error::NotFound { .. })));
    let done = take_in(&home, &a);
    assert_eq!(done.copied, would.copied);
    assert_eq!((done.copied.live_points, done.copied.artifacts, done.conflicts.len()), (1_000, 1, 0));
    assert_eq!(steps(&home, &run, "loss"), (0..1_000).collect::<Vec<_>>());
    // It goes on, ends, is compacted; and home itself goes the other way and comes back.
    log(&away, &run, "loss", 1_000, 500);
    assert_eq!(take_in(&home, &a).copied.live_points, 1_500);
    away.close().unwrap();
    take_in(&home, &a);
    compact(&Store::open(&a).unwrap());
    take_in(&home, &a);
    let again = take_in(&home, &a);
    assert_eq!((again.copied.segments, again.copied.artifacts, again.copied.bytes), (0, 0, 0));
    assert_eq!(steps(&home, &run, "loss"), (0..1_500).collect::<Vec<_>>());
    let away = Store::open(&a).unwrap();
    take_in(&away, &b);
    assert_eq!(histories(&away), histories(&home));
    log(&home, &own, "loss", 10, 5);
    take_in(&home, &a);
    assert_eq!(steps(&home, &own, "loss"), (0..15).collect::<Vec<_>>());
    assert_eq!(home.stats().unwrap().points, 1_515);
    let report = home.verify(&mut |_| {}).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    home.close().unwrap();
    assert_eq!(Store::open(&b).unwrap().stats().unwrap().points, 1_515);
}

#[test]
fn merging_brings_nothing_back_that_was_purged_and_names_what_clashes() {
    let place = Place::new();
    let (a, old, b) = (place.at("a"), place.at("old"), place.at("b"));
    let store = Store::open(&a).unwrap();
    let (run, other) = (start(&store, "gone"), start(&store, "stays"));
    log(&store, &run, "loss", 0, 100);
    log(&store, &other, "loss", 0, 10);
    store.put_artifact_bytes(&run, b"x", "x.txt").unwrap();
    store.close().unwrap();
    copy_tree(&a, &old);
    let store = Store::open(&a).unwrap();
    store.delete_run(&run).unwrap();
    store.gc(&mlrs_db::GcOptions { older_than_ms: 0, dry_run: false }).unwrap();
    for _ in 0..2 {
        assert_eq!(take_in(&store, &old).copied.artifacts, 0);
        assert!(matches!(store.get_run(&run), Err(Error::NotFound { .. })));
        compact(&store);
        assert_eq!(store.stats().unwrap().points, 10);
    }
    // The same param of one run, set apart in two copies.
    Store::open(&old).unwrap().run(&other).unwrap().log_param("lr", "1").unwrap();
    store.run(&other).unwrap().log_param("lr", "2").unwrap();
    let report = take_in(&store, &old);
    assert!(report.conflicts.iter().any(|text| text.contains("lr")), "{report:?}");
    assert_eq!(take_in(&store, &old).conflicts, [] as [String; 0], "told once");
    // Not itself, and nothing that is no store.
    assert!(matches!(store.merge(&a, false, &mut |_| {}), Err(Error::InvalidArgument(_))));
    assert!(matches!(store.merge(&b, false, &mut |_| {}), Err(Error::NotAStore { .. })));
}

#[test]
fn an_older_copy_of_a_live_file_replaces_no_newer_one() {
    let place = Place::new();
    let (a, older, b) = (place.at("a"), place.at("older"), place.at("b"));
    let away = Store::open(&a).unwrap();
    let run = start(&away, "run");
    log(&away, &run, "loss", 0, 100);
    copy_tree(&a, &older);
    log(&away, &run, "loss", 100, 100);
    let home = Store::open(&b).unwrap();
    for other in [&a, &older, &a, &older] {
        take_in(&home, other);
        assert_eq!(steps(&home, &run, "loss"), (0..200).collect::<Vec<_>>());
    }
}

#[test]
fn damaged_segments_are_left_out_of_a_merge_until_they_are_repaired() {
    let place = Place::new();
    let (a, b) = (place.at("a"), place.at("b"));
    let run = source(&a, true);
    let file = only_segment(&a);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let home = Store::open(&b).unwrap();
    let report = take_in(&home, &a);
    assert_eq!((report.copied.segments, report.copied.problems.len()), (0, 1), "{report:?}");
    assert_eq!(fs::read_dir(b.join("log")).unwrap().count(), 0);
    Store::options().repair(&a, false, &mut |_| {}).unwrap();
    let report = take_in(&home, &a);
    assert_eq!((report.copied.segments, report.copied.problems.len()), (1, 0), "{report:?}");
    assert!(home.get_run(&run).is_ok());
}
