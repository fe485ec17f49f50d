//! Repair: what is sound is kept, what is damaged is set aside and told, nothing is removed.

use std::fs;
use std::path::{Path, PathBuf};

use mlrs_db::{Points, RepairKind, RepairReport, RunOptions, Store};

const KEYS: [&str; 3] = ["a", "b", "c"];

fn repair(path: &Path, dry_run: bool) -> RepairReport {
    Store::options().repair(path, dry_run, &mut |_| {}).unwrap()
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(path.join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|e| e == "seg"));
    all.sort();
    all
}

/// All files of a store with their bytes.
fn image(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut pending) = (Vec::new(), vec![path.to_path_buf()]);
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                pending.push(entry)
            } else {
                found.push((entry.clone(), fs::read(&entry).unwrap()))
            }
        }
    }
    found.sort();
    found
}

/// A store with one run, three metrics of 3,000 points, params; in `sealed` or in many small batches.
fn source(path: &Path, sealed: bool) -> String {
    let store = Store::open(path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new().param("lr", "0.1")).unwrap();
    for round in 0..30 {
        for key in KEYS {
            let steps: Vec<i64> = (round * 100..round * 100 + 100).collect();
            let values: Vec<f64> = steps.iter().map(|s| ((s * 7919) % 1009) as f64 / 7.0).collect();
            run.series(key).unwrap().log_columns(&steps, &steps, &values).unwrap();
        }
        run.log_param(&format!("p{round}"), "v").unwrap();
    }
    let id = run.id().to_owned();
    store.sync().unwrap();
    if sealed {
        store.close().unwrap();
    } else {
        let open = segments(path).remove(0);
        let bytes = fs::read(&open).unwrap();
        store.close().unwrap();
        fs::write(open, bytes).unwrap();
    }
    id
}

fn points(store: &Store, run: &str, key: &str) -> Points {
    store.history(run, key).unwrap().allow_gaps(true).collect().unwrap()
}

fn is_subset(part: &Points, all: &Points) -> bool {
    let mut at = 0;
    part.iter().all(|point| {
        let found = (at..all.len()).find(|&n| all.steps[n] == point.step);
        at = found.map_or(at, |n| n + 1);
        found.is_some_and(|n| all.values[n].to_bits() == point.value.to_bits())
    })
}

#[test]
fn a_sound_store_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    source(&path, true);
    let before = image(&path);
    for dry_run in [true, false] {
        let report = repair(&path, dry_run);
        assert_eq!(report, RepairReport { dry_run, ..RepairReport::default() });
        let after: Vec<_> = image(&path).into_iter().filter(|(p, _)| !p.ends_with("compact.lock")).collect();
        assert_eq!(after, before);
    }
}

#[test]
fn damage_anywhere_costs_what_it_hit_and_nothing_else() {
    let mut kept_all = 0;
    let mut cases = 0;
    for sealed in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("whole");
        let run = source(&whole, sealed);
        let name = segments(&whole).remove(0);
        let bytes = fs::read(&name).unwrap();
        let expected: Vec<Points> = {
            let store = Store::options().read_only(true).open(&whole).unwrap();
            KEYS.iter().map(|key| points(&store, &run, key)).collect()
        };
        // Bits all over the file, and a hole of 300 bytes.
        for (round, at) in
            (0..24).map(|n| (n, (n * 2 + 1) * bytes.len() / 48)).chain([(24, 5), (25, bytes.len() - 60)])
        {
            let path = directory.path().join(format!("damaged-{round}"));
            for folder in ["log", "live", "artifacts"] {
                fs::create_dir_all(path.join(folder)).unwrap();
            }
            fs::copy(whole.join("MLRS"), path.join("MLRS")).unwrap();
            let mut damaged = bytes.clone();
            if round % 3 == 2 && round < 24 {
                let end = (at + 300).min(bytes.len());
                damaged[at..end].fill(0xee);
            } else {
                damaged[at] ^= 0x10;
            }
            let file = path.join("log").join(name.file_name().unwrap());
            fs::write(&file, &damaged).unwrap();
            let looked = Store::options().read_only(true).skip_damage(true).open(&path).unwrap();
            let verified = looked.verify(&mut |_| {}).unwrap();
            drop(looked);
            let before = image(&path);
            let dry = repair(&path, true);
            assert_eq!(image(&path), before, "a dry run touches nothing");
            let done = repair(&path, false);
            assert_eq!((&done.lost, done.points), (&dry.lost, dry.points), "at {at}");
            let same_actions = done.actions.iter().map(|a| a.kind).eq(dry.actions.iter().map(|a| a.kind));
            assert!(same_actions, "{done:?} {dry:?}");
            if verified.is_sound() {
                // A torn tail at most.
                assert_eq!(done.actions, []);
                continue;
            }
            cases += 1;
            assert_eq!(done.actions.len(), 1, "at {at}: {done:?}");
            assert_eq!(done.actions[0].kind, RepairKind::Rewritten, "at {at}: {done:?}");
            // The damaged file is kept.
            let aside = path.join("quarantine").join(name.file_name().unwrap());
            assert_eq!(fs::read(aside).unwrap(), damaged);
            let store = Store::open(&path).unwrap();
            let report = store.verify(&mut |_| {}).unwrap();
            let damage: Vec<_> =
                report.findings.iter().filter(|f| f.severity == mlrs_db::Severity::Damage).collect();
            assert_eq!(damage, done.remaining.iter().collect::<Vec<_>>());
            // What remains are holes, and only where points were lost.
            assert!(damage.iter().all(|f| f.text.contains("are missing before this segment")), "{damage:?}");
            let mut found = 0;
            if store.get_run(&run).is_ok() {
                for (key, all) in KEYS.iter().zip(&expected) {
                    let points = points(&store, &run, key);
                    assert!(is_subset(&points, all), "{key} at {at}");
                    found += points.len() as u64;
                }
                assert_eq!(found, done.points, "at {at}");
            }
            let lost: u64 = done.lost.iter().map(|lost| lost.end - lost.first).sum();
            // Without directories nobody knows what a batch held whose head is gone.
            let known = done.points + lost + done.orphans;
            let is_flip = damaged.iter().zip(&bytes).filter(|(a, b)| a != b).count() == 1;
            assert!(known == 9_000 || known < 9_000 && !(sealed && is_flip), "at {at}: {done:?}");
            kept_all += u64::from(done.points == 9_000);
            // Again, there is nothing to do.
            store.close().unwrap();
            assert_eq!(repair(&path, false).actions, []);
            // A sound copy heals it.
            let store = Store::open(&path).unwrap();
            let merged = store.merge(&whole, false, &mut |_| {}).unwrap();
            assert_eq!(merged.copied.problems, []);
            for (key, all) in KEYS.iter().zip(&expected) {
                assert_eq!(
                    &store.history(&run, key).unwrap().collect::<Points>().unwrap(),
                    all,
                    "{key} at {at}"
                );
            }
            assert!(store.verify(&mut |_| {}).unwrap().is_sound());
            store.compact(&mut |_| {}).unwrap();
            assert_eq!(store.stats().unwrap().points, 9_000);
        }
    }
    assert!(cases > 30 && kept_all > 2, "{cases} cases, {kept_all} without a loss");
    println!("repair: {cases} damaged segments, {kept_all} without a lost point, 0 sound points lost");
}

#[test]
fn a_segment_without_a_header_is_set_aside_and_its_number_accounted_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    // Segments that are closed at once: the same writer has several.
    let store = Store::options().segment_bytes_max(1).open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let values: Vec<f64> = (0..4_000).map(|n| f64::from(n * 7919 % 1009).sqrt()).collect();
    let steps: Vec<i64> = (0..4_000).collect();
    for key in ["x", "y", "z"] {
        for _ in 0..4 {
            run.series(key).unwrap().log_columns(&steps, &steps, &values).unwrap();
        }
    }
    let id = run.id().to_owned();
    drop(run);
    store.close().unwrap();
    let all = segments(&path);
    assert!(all.len() > 2, "{all:?}");
    let mut bytes = fs::read(&all[1]).unwrap();
    bytes[30..100].fill(0);
    fs::write(&all[1], &bytes).unwrap();
    let report = repair(&path, false);
    assert_eq!(report.actions.iter().map(|a| a.kind).collect::<Vec<_>>(), [RepairKind::SetAside]);
    let store = Store::open(&path).unwrap();
    let verified = store.verify(&mut |_| {}).unwrap();
    assert!(
        verified.findings.iter().all(|f| !f.text.contains("but segment")),
        "its number is not missed: {:?}",
        verified.findings
    );
    assert!(store.get_run(&id).is_ok());
}

#[test]
fn a_lost_identity_is_found_in_the_segments() {
    for missing in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let run = source(&path, true);
        let id = Store::options().read_only(true).open(&path).unwrap().id();
        if missing {
            fs::remove_file(path.join("MLRS")).unwrap();
        } else {
            fs::write(path.join("MLRS"), b"garbage").unwrap();
            assert!(Store::open(&path).is_err());
        }
        let dry = repair(&path, true);
        assert_eq!(dry.actions[0].kind, RepairKind::Identity);
        let done = repair(&path, false);
        assert_eq!((done.actions.len(), done.remaining.len()), (1, 0), "{done:?}");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.id(), id);
        assert_eq!(points(&store, &run, "a").len(), 3_000);
        assert_eq!(path.join("quarantine/MLRS").exists(), !missing);
    }
}

#[test]
fn a_segment_under_a_wrong_name_gets_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let run = source(&path, true);
    let name = segments(&path).remove(0);
    let wrong = path.join("log").join("0123456789abcdef0123456789abcdef-0.seg");
    fs::rename(&name, &wrong).unwrap();
    let report = repair(&path, false);
    assert_eq!(report.actions.iter().map(|a| a.kind).collect::<Vec<_>>(), [RepairKind::Renamed]);
    assert_eq!(report.remaining, []);
    assert!(name.exists() && !wrong.exists());
    assert_eq!(points(&Store::open(&path).unwrap(), &run, "a").len(), 3_000);
}

#[test]
fn what_a_living_writer_appends_to_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    for n in 0..50 {
        run.log_param(&format!("p{n}"), "some value that takes room").unwrap();
    }
    let file = segments(&path).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    // In place: the writer has the file open.
    use std::os::unix::fs::FileExt as _;
    fs::OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&bytes[at..=at], at as u64).unwrap();
    let report = repair(&path, false);
    assert_eq!(report.actions.iter().map(|a| a.kind).collect::<Vec<_>>(), [RepairKind::Left]);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    run.log_param("later", "1").unwrap();
    store.close().unwrap();
    let report = repair(&path, false);
    assert_eq!(report.actions.iter().map(|a| a.kind).collect::<Vec<_>>(), [RepairKind::Rewritten]);
    assert_eq!((report.events, report.remaining.len()), (52, 0), "{report:?}");
}

#[test]
fn blobs_that_are_whole_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, path) = (directory.path().join("mlruns"), directory.path().join("store"));
    let folder = tree.join("0/.trash_of_notes");
    fs::create_dir_all(&folder).unwrap();
    let tree_file = |name: &str, n: u8, len: usize| {
        let mut state = u64::from(n);
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let bytes: Vec<u8> = (0..len).map(|_| noise()).collect();
        fs::write(folder.join(name), &bytes).unwrap();
    };
    tree_file("long", 1, 2_500_000);
    tree_file("other", 2, 1_300_000);
    fs::write(tree.join("0/meta.yaml"), "artifact_location: x\ncreation_time: 1\nexperiment_id: '0'\nlast_update_time: 1\nlifecycle_stage: active\nname: Default\n").unwrap();
    let store = Store::open(&path).unwrap();
    store.import(&tree, &Default::default(), &mut |_| {}).unwrap();
    store.close().unwrap();
    let store = Store::options().read_only(true).open(&path).unwrap();
    let blobs = store.verify(&mut |_| {}).unwrap().blobs;
    drop(store);
    if blobs < 2 {
        println!("no blobs in this tree: nothing to test");
        return;
    }
    let file = segments(&path).into_iter().max_by_key(|p| fs::metadata(p).unwrap().len()).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    // In the last of the long ones.
    let at = bytes.len() - 400_000;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let report = repair(&path, false);
    assert_eq!((report.blobs, report.remaining.len()), (blobs - 1, 0), "{report:?}");
    let store = Store::options().read_only(true).open(&path).unwrap();
    assert_eq!(store.verify(&mut |_| {}).unwrap().blobs, blobs - 1);
}
