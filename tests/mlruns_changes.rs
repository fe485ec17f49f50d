//! What happens when the tree, or the store, changes after an import; and stores that were never a tree.

mod mlruns_support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use mlruns_support::{Memory, difference, export_tree, import_tree, unpack};

use mlrs_db::format::event::{EntityKind, Field, Value};
use mlrs_db::format::input_tags::encode_input_tags;
use mlrs_db::id::{Origin, Uid};
use mlrs_db::mlruns::{ArtifactMode, Entities, ExportOptions, ImportOptions, export, import};

const NOTHING: [String; 0] = [];

fn append(path: &Path, text: &str) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A small tree: experiment 7 with one run.
fn small_tree(root: &Path) -> (PathBuf, PathBuf, Uid) {
    let tree = root.join("tree");
    let id = "0123456789abcdef0123456789abcdef";
    let run = tree.join("7").join(id);
    for name in ["metrics/train", "params", "tags", "artifacts"] {
        fs::create_dir_all(run.join(name)).unwrap();
    }
    fs::create_dir(tree.join(".trash")).unwrap();
    fs::write(
        tree.join("7/meta.yaml"),
        "artifact_location: file:///x/7\ncreation_time: 5\nexperiment_id: '7'\nlast_update_time: 6\nlifecycle_stage: active\nname: seven\n",
    )
    .unwrap();
    fs::write(run.join("meta.yaml"), meta(id, 1, "null")).unwrap();
    fs::write(run.join("metrics/loss"), "1000 0.5 0\n1001 0.25 1\n").unwrap();
    fs::write(run.join("metrics/train/acc"), "1000 1 0\n").unwrap();
    fs::write(run.join("params/lr"), "0.1").unwrap();
    fs::write(run.join("tags/mlflow.runName"), "first").unwrap();
    fs::write(run.join("tags/note"), "hello").unwrap();
    (tree, run, id.parse().unwrap())
}

fn meta(id: &str, status: u8, end: &str) -> String {
    format!(
        "artifact_uri: file:///x/7/{id}/artifacts\nend_time: {end}\nentry_point_name: ''\nexperiment_id: '7'\nlifecycle_stage: active\n\
         run_id: {id}\nrun_name: first\nrun_uuid: {id}\nsource_name: ''\nsource_type: 4\nsource_version: ''\nstart_time: 1000\nstatus: {status}\n\
         tags: []\nuser_id: me\n"
    )
}

#[test]
fn a_tree_that_has_grown_adds_exactly_what_is_new() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, uid) = small_tree(directory.path());
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    let first = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!((first.points_added, first.problems_total), (3, 0), "{:?}", first.problems);

    append(&run.join("metrics/loss"), "1002 0.125 2\n1003 0.5 3");
    fs::write(run.join("metrics/new"), "1 1.5 0\n").unwrap();
    append(&run.join("metrics/train/acc"), "1001 2 1");
    fs::write(run.join("params/seed"), "7").unwrap();
    fs::write(run.join("tags/extra"), "x").unwrap();
    fs::write(run.join("artifacts/model.bin"), b"\0\x01").unwrap();
    let other = "fedcba9876543210fedcba9876543210";
    fs::create_dir_all(tree.join("7").join(other).join("metrics")).unwrap();
    fs::write(tree.join("7").join(other).join("meta.yaml"), meta(other, 3, "2000")).unwrap();
    let second = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!(
        (second.points_added, second.points, second.runs, second.problems_total),
        (2, 5, 2, 2),
        "{:?}",
        second.problems
    );
    assert_eq!(
        memory.metric(uid, "loss"),
        [(1000, 0.5, 0), (1001, 0.25, 1), (1002, 0.125, 2)],
        "a line without its line feed may be half of one"
    );
    let target = directory.path().join("one");
    export_tree(&memory, &target);
    assert_eq!(difference(&tree, &target), NOTHING);

    // The line that had no end goes on; the run ends.
    append(&run.join("metrics/loss"), "\n1004 0.75 4\n");
    // Integers: how they are spelled is a column, which is cut where the stored points end.
    append(&run.join("metrics/train/acc"), "\n1002 3.5 2\n1003 4 3\n");
    fs::write(run.join("meta.yaml"), meta(&uid.to_string(), 3, "3000")).unwrap();
    let third = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!((third.points_added, third.problems_total), (5, 0), "{:?}", third.problems);
    assert_eq!(memory.entities[&uid].1[&(Field::STATUS, String::new())].1, Value::Integer(3));
    let target = directory.path().join("two");
    export_tree(&memory, &target);
    assert_eq!(difference(&tree, &target), NOTHING);

    // A fresh import of the grown tree is the same store.
    let mut fresh = Memory::new(&directory.path().join("fresh"));
    import_tree(&tree, &mut fresh, &ImportOptions::default());
    assert!(fresh.state() == memory.state());

    // A line that was cut short ("step 1" of "step 12") is taken when it is whole, and only then.
    append(&run.join("metrics/new"), "2 0.5 1");
    let report = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!((report.points_added, report.problems_total), (0, 1), "{:?}", report.problems);
    assert!(report.problems[0].path.ends_with("metrics/new"));
    append(&run.join("metrics/new"), "2\n3 0.5 13\n");
    let report = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!((report.points_added, report.problems_total), (2, 0), "{:?}", report.problems);
    assert_eq!(memory.metric(uid, "new"), [(1, 1.5, 0), (2, 0.5, 12), (3, 0.5, 13)]);
    let target = directory.path().join("three");
    export_tree(&memory, &target);
    assert_eq!(difference(&tree, &target), NOTHING);
}

#[test]
fn what_changed_otherwise_is_reported_and_left_unless_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, uid) = small_tree(directory.path());
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&tree, &mut memory, &ImportOptions::default());
    let before = directory.path().join("before");
    export_tree(&memory, &before);

    fs::write(run.join("tags/note"), "another").unwrap();
    fs::write(run.join("metrics/loss"), "1000 0.75 0\n1001 0.25 1\n1002 0.0 2\n").unwrap();
    fs::write(
        tree.join("7/meta.yaml"),
        fs::read_to_string(tree.join("7/meta.yaml")).unwrap().replace("seven", "eight"),
    )
    .unwrap();
    let report = import_tree(&tree, &mut memory, &ImportOptions::default());
    let mut named: Vec<_> =
        report.problems.iter().map(|p| p.path.strip_prefix(&tree).unwrap().to_str().unwrap()).collect();
    named.sort_unstable();
    let id = uid.to_string();
    assert_eq!(named, [&format!("7/{id}/metrics/loss"), &format!("7/{id}/tags/note"), "7/meta.yaml"]);
    let after = directory.path().join("after");
    export_tree(&memory, &after);
    assert_eq!(difference(&before, &after), NOTHING);

    let report = import_tree(&tree, &mut memory, &REPLACE);
    // What else changed of the run goes with it.
    assert_eq!((report.points_added, report.problems_total), (4, 2), "{:?}", report.problems);
    let replaced = directory.path().join("replaced");
    export_tree(&memory, &replaced);
    assert_eq!(difference(&tree, &replaced), NOTHING);
    let anew = the_run(&memory);
    assert_ne!(anew, uid);
    assert_eq!(memory.text(anew, Field::RUN_ID_TEXT, ""), Some(id));
    assert_eq!(memory.metric(anew, "loss"), [(1000, 0.75, 0), (1001, 0.25, 1), (1002, 0.0, 2)]);
    for options in [ImportOptions::default(), REPLACE] {
        let again = import_tree(&tree, &mut memory, &options);
        let counts = (again.points_added, again.registers_written, again.problems_total);
        assert_eq!(counts, (0, 0, 0), "{:?}", again.problems);
    }
}

const REPLACE: ImportOptions =
    ImportOptions { tree: None, artifacts: ArtifactMode::Copy, strict: false, dry_run: false, replace: true };

/// The only run there is.
fn the_run(memory: &Memory) -> Uid {
    match memory.uids(EntityKind::RUN)[..] {
        [run] => run,
        ref runs => panic!("{runs:?}"),
    }
}

/// Imports and exports, and says what is not the same.
fn taken(tree: &Path, memory: &mut Memory, options: &ImportOptions) -> (u64, Vec<String>) {
    let report = import_tree(tree, memory, options);
    let target = tempfile::tempdir().unwrap();
    export_tree(memory, &target.path().join("out"));
    (report.problems_total, difference(tree, &target.path().join("out")))
}

#[test]
fn a_changed_param_is_reported_and_taken_with_the_whole_run_if_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, uid) = small_tree(directory.path());
    fs::write(run.join("artifacts/model.bin"), "weights").unwrap();
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&tree, &mut memory, &ImportOptions::default());
    let ours = memory.artifact_directory(uid).unwrap().join("ours");
    fs::write(ours, "made here").unwrap();
    fs::write(run.join("params/lr"), "0.2").unwrap();
    for options in [ImportOptions::default(), ImportOptions { dry_run: true, ..REPLACE }] {
        let before = memory.state();
        let report = import_tree(&tree, &mut memory, &options);
        assert_eq!(report.problems_total, 1, "{:?}", report.problems);
        assert!(report.problems[0].path.ends_with("params/lr"));
        let said = if options.replace { "the whole run was taken anew" } else { "(--replace takes" };
        assert!(report.problems[0].text.contains(said), "{:?}", report.problems);
        assert!(memory.state() == before);
        assert_eq!(report.points_added, if options.replace { 3 } else { 0 });
    }
    // What only the store has stays with the run.
    let added = format!("+7/{uid}/artifacts/ours");
    assert_eq!(taken(&tree, &mut memory, &REPLACE), (1, vec![added.clone()]));
    let second = the_run(&memory);
    assert_eq!(memory.text(second, Field::PARAM, "lr").as_deref(), Some("0.2"));

    // It grows, as any run, and changes again, in the end to what it was at first.
    append(&run.join("metrics/loss"), "1002 0.125 2\n");
    assert_eq!(taken(&tree, &mut memory, &REPLACE), (0, vec![added.clone()]));
    assert_eq!(the_run(&memory), second);
    let mut seen = vec![uid, second];
    for (param, metric) in [("0.3", "1000 9.0 0\n"), ("0.2", "1000 0.5 0\n1001 0.25 1\n"), ("0.1", "")] {
        fs::write(run.join("params/lr"), param).unwrap();
        fs::write(run.join("metrics/loss"), metric).unwrap();
        assert_eq!(taken(&tree, &mut memory, &REPLACE).1, [added.as_str()], "{param}");
        assert!(!seen.contains(&the_run(&memory)));
        seen.push(the_run(&memory));
    }
    // Another store that takes the same state gives it the same uid, whatever it had in between.
    let mut other = Memory::new(&directory.path().join("other"));
    import_tree(&small_tree(&directory.path().join("again")).0, &mut other, &ImportOptions::default());
    import_tree(&tree, &mut other, &REPLACE);
    assert_eq!(the_run(&other), *seen.last().unwrap());
}

#[test]
fn a_run_that_was_changed_in_the_store_is_not_taken_anew() {
    let edits: [fn(&mut Memory, Uid); 4] = [
        |memory, run| memory.set(EntityKind::RUN, run, Field::TAG, "note", Value::Text("edited".into())),
        |memory, run| memory.set(EntityKind::RUN, run, Field::STATUS, "", Value::Integer(5)),
        |memory, run| memory.log(run, "loss", Origin::from_bytes([1; 16]), &[(5, 1005, 0.5)]),
        |memory, run| memory.log(run, "ours", Origin::from_bytes([1; 16]), &[(5, 1005, 0.5)]),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, run, uid) = small_tree(directory.path());
        let mut memory = Memory::new(&directory.path().join("artifacts"));
        import_tree(&tree, &mut memory, &ImportOptions::default());
        edit(&mut memory, uid);
        // An import in between, which takes what it can, does not make the edit the tree's.
        fs::write(run.join("tags/extra"), "x").unwrap();
        import_tree(&tree, &mut memory, &ImportOptions::default());
        fs::write(run.join("params/lr"), "0.2").unwrap();
        fs::write(run.join("metrics/loss"), "1000 0.75 0\n").unwrap();
        let report = import_tree(&tree, &mut memory, &REPLACE);
        let texts: Vec<&str> = report.problems.iter().map(|p| &*p.text).collect();
        assert!(texts[0].starts_with("was changed in the store ("), "{number}: {texts:?}");
        assert!(texts.iter().filter(|text| text.contains("--tree NAME")).count() == 3, "{number}: {texts:?}");
        assert_eq!(the_run(&memory), uid);
        assert_eq!(memory.text(uid, Field::PARAM, "lr").as_deref(), Some("0.1"));
        assert!(memory.metric(uid, "loss").len() >= 2, "{number}");
        // What the text says to do works: the tree as it is now, beside the old one.
        let named = ImportOptions { tree: Some("now".into()), ..ImportOptions::default() };
        assert_eq!(import_tree(&tree, &mut memory, &named).problems_total, 0);
        let target = directory.path().join("now");
        let options = ExportOptions { tree: Some("now".into()), ..ExportOptions::default() };
        export(&memory, &target, &options, &mut |_| {}).unwrap();
        assert_eq!(difference(&tree, &target), NOTHING);
    }
}

#[test]
fn taking_a_run_anew_can_be_killed_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    for (number, again) in [ImportOptions::default(), REPLACE].into_iter().enumerate() {
        let mut writes = 0;
        loop {
            let work = directory.path().join(format!("{number}-{writes}"));
            let (tree, run, uid) = small_tree(&work);
            fs::write(run.join("artifacts/model.bin"), "weights").unwrap();
            let mut memory = Memory::new(&work.join("artifacts"));
            import_tree(&tree, &mut memory, &ImportOptions::default());
            fs::write(run.join("metrics/loss"), "1000 0.75 0\n1001 0.25 1\n1002 0.0 2\n").unwrap();
            fs::write(run.join("tags/note"), "another").unwrap();
            memory.writes_left = Some(writes);
            let killed = import(&tree, &mut memory, &REPLACE, &mut |_| {}).is_err();
            memory.writes_left = None;
            // Either the old state is there or the new one is whole.
            let old = memory.kind(uid).unwrap().is_some();
            assert!(old == killed && (!old || memory.metric(uid, "loss").len() == 2));
            let options = if writes == 0 { &REPLACE } else { &again };
            let (problems, differences) = taken(&tree, &mut memory, options);
            assert_eq!(differences, NOTHING, "{writes}");
            assert!(problems == 0 || writes == 0);
            let mut undisturbed = Memory::new(&work.join("undisturbed"));
            import_tree(&small_tree(&work.join("before")).0, &mut undisturbed, &ImportOptions::default());
            import_tree(&tree, &mut undisturbed, &REPLACE);
            assert_eq!(the_run(&memory), the_run(&undisturbed));
            if !killed {
                break;
            }
            writes += 1;
        }
        assert!(writes >= 4, "the run, its points, their records, the end of the old one: {writes}");
    }
}

#[test]
fn trees_with_the_same_run_do_not_take_it_from_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, uid) = small_tree(directory.path());
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&tree, &mut memory, &ImportOptions::default());
    fs::write(run.join("params/lr"), "0.2").unwrap();
    import_tree(&tree, &mut memory, &REPLACE);
    // Its uid is gone with the run that was replaced, not for good.
    let named = ImportOptions { tree: Some("other".into()), ..REPLACE };
    assert_eq!(import_tree(&tree, &mut memory, &named).problems_total, 0);
    fs::write(run.join("params/lr"), "0.3").unwrap();
    for options in [&named, &REPLACE] {
        assert_eq!(import_tree(&tree, &mut memory, options).problems_total, 1);
        assert_eq!(import_tree(&tree, &mut memory, options).problems_total, 0);
    }
    let runs = memory.uids(EntityKind::RUN);
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert_eq!(memory.text(*run, Field::PARAM, "lr").as_deref(), Some("0.3"));
        assert_eq!(memory.text(*run, Field::RUN_ID_TEXT, ""), Some(uid.to_string()));
    }
    // What was removed for good stays so.
    for run in runs {
        memory.set(EntityKind::RUN, run, Field::PURGED, "", Value::Flag(true));
    }
    for options in [&named, &REPLACE] {
        assert_eq!(import_tree(&tree, &mut memory, options).problems_total, 1);
    }
    assert_eq!(memory.uids(EntityKind::RUN), []);
}

#[test]
fn what_the_tree_lost_is_reported_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, uid) = small_tree(directory.path());
    let id = uid.to_string();
    fs::write(run.join("metrics/empty"), "").unwrap();
    fs::write(run.join("stray"), "x").unwrap();
    let other = "fedcba9876543210fedcba9876543210";
    for experiment in ["7", "8"] {
        let other = other.replace('f', experiment);
        fs::create_dir_all(tree.join(experiment).join(&other)).unwrap();
        let meta = meta(&other, 3, "2000").replace("'7'", &format!("'{experiment}'"));
        fs::write(tree.join(experiment).join(&other).join("meta.yaml"), meta).unwrap();
    }
    let seventh = fs::read_to_string(tree.join("7/meta.yaml")).unwrap();
    fs::write(tree.join("8/meta.yaml"), seventh.replace('7', "8").replace("seven", "eight")).unwrap();
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&tree, &mut memory, &ImportOptions::default());
    let before = directory.path().join("before");
    export_tree(&memory, &before);
    assert_eq!(difference(&tree, &before), NOTHING);

    // Never in the tree, so nothing the tree could lose: not now, and not when it was imported again either.
    memory.set(EntityKind::RUN, uid, Field::TAG, "mine", Value::Text("x".into()));
    fs::write(run.join("tags/extra"), "x").unwrap();
    for _ in 0..2 {
        let report = import_tree(&tree, &mut memory, &ImportOptions::default());
        assert_eq!(report.problems_total, 1, "only the empty metric file: {:?}", report.problems);
    }

    for file in ["metrics/loss", "metrics/empty", "params/lr", "tags/note", "stray"] {
        fs::remove_file(run.join(file)).unwrap();
    }
    fs::remove_dir_all(tree.join("7").join(other.replace('f', "7"))).unwrap();
    fs::remove_dir_all(tree.join("8")).unwrap();
    for replace in [false, true, false] {
        let report = import_tree(&tree, &mut memory, &ImportOptions { replace, ..ImportOptions::default() });
        let mut named: Vec<_> = report
            .problems
            .iter()
            .map(|p| (p.path.strip_prefix(&tree).unwrap().to_str().unwrap(), &*p.text))
            .collect();
        named.sort_unstable();
        let gone = |path: &str| path.replace("RUN", &id);
        let expected = [
            gone("7/RUN/metrics/empty"),
            gone("7/RUN/metrics/loss"),
            gone("7/RUN/params/lr"),
            gone("7/RUN/stray"),
            gone("7/RUN/tags/note"),
            gone(&format!("7/{}", other.replace('f', "7"))),
            "8".to_owned(),
        ];
        let mut expected: Vec<_> =
            expected.iter().map(|path| (&**path, "no longer in the tree; the store keeps it")).collect();
        expected.sort_unstable();
        assert_eq!(named, expected);
    }
    assert_eq!(memory.text(uid, Field::TAG, "note").as_deref(), Some("hello"));
    assert_eq!(memory.metric(uid, "loss").len(), 2);
    let after = directory.path().join("after");
    export_tree(&memory, &after);
    let added = [format!("+7/{id}/tags/extra"), format!("+7/{id}/tags/mine")];
    assert_eq!(difference(&before, &after), added);
}

#[test]
fn a_tree_is_the_same_wherever_it_is_mounted() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, uid) = small_tree(directory.path());
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&tree, &mut memory, &ImportOptions::default());
    let before = memory.state();
    let moved = directory.path().join("mounted/elsewhere");
    fs::create_dir(moved.parent().unwrap()).unwrap();
    fs::rename(&tree, &moved).unwrap();
    let report = import_tree(&moved, &mut memory, &ImportOptions::default());
    assert_eq!(
        (report.points, report.points_added, report.problems_total),
        (3, 0, 0),
        "{:?}",
        report.problems
    );
    assert!(memory.state() == before);

    // It grows, its first experiment is removed for good: from where it was imported before, it is still the same.
    fs::rename(&moved, &tree).unwrap();
    let seventh = fs::read_to_string(tree.join("7/meta.yaml")).unwrap();
    fs::create_dir(tree.join("9")).unwrap();
    let ninth = seventh.replace('7', "9").replace("seven", "nine").replace("time: 5", "time: 6");
    fs::write(tree.join("9/meta.yaml"), ninth).unwrap();
    import_tree(&tree, &mut memory, &ImportOptions::default());
    let kept = directory.path().join("kept");
    fs::rename(tree.join("7"), &kept).unwrap();
    let report = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!((memory.uids(EntityKind::TREE).len(), memory.uids(EntityKind::EXPERIMENT).len()), (1, 2));

    // Another machine made a tree at the same path, later: another tree, even with the same run in it.
    let (other, ..) = small_tree(&directory.path().join("other"));
    fs::write(other.join("7/meta.yaml"), seventh.replace("creation_time: 5", "creation_time: 55")).unwrap();
    let report = import_tree(&other, &mut memory, &ImportOptions::default());
    assert_eq!((report.points_added, report.problems_total), (3, 0), "{:?}", report.problems);
    assert_eq!((memory.uids(EntityKind::TREE).len(), memory.uids(EntityKind::RUN).len()), (2, 2));
    assert_eq!(memory.metric(uid, "loss").len(), 2);
    let _ = run;
}

#[test]
fn a_tree_without_times_is_known_by_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    for machine in ["one", "two"] {
        let (tree, ..) = small_tree(&directory.path().join(machine));
        let meta =
            "artifact_location: ./mlruns/7\nexperiment_id: '7'\nlifecycle_stage: active\nname: seven\n";
        fs::write(tree.join("7/meta.yaml"), meta).unwrap();
        for added in [3, 0] {
            let report = import_tree(&tree, &mut memory, &ImportOptions::default());
            assert_eq!((report.points_added, report.problems_total), (added, 0), "{:?}", report.problems);
        }
    }
    assert_eq!((memory.uids(EntityKind::TREE).len(), memory.uids(EntityKind::RUN).len()), (2, 2));
}

#[test]
fn a_dry_run_counts_what_an_import_counts_and_the_number_of_runs_is_known_first() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, _) = small_tree(directory.path());
    fs::write(run.join("artifacts/model.bin"), [7; 5000]).unwrap();
    // More damaged lines than are kept one by one: the file is kept whole, beside its points.
    let lines: String = (0..300).map(|step| format!("{step} 0.5 {step}\nrubbish {step}\n")).collect();
    fs::write(run.join("metrics/verbatim"), lines).unwrap();
    // One whose name tells that it is a run, and one that only its file tells.
    for (experiment, name) in [("7", "a run"), ("8", "00000000000000000000000000000001")] {
        fs::create_dir_all(tree.join(experiment).join(name)).unwrap();
        fs::write(tree.join(experiment).join(name).join("meta.yaml"), meta(name, 3, "2000")).unwrap();
    }
    let bytes = |path: &Path| -> u64 {
        let listed =
            std::process::Command::new("find").arg(path).args(["-type", "f", "-printf", "%s\n"]).output();
        String::from_utf8(listed.unwrap().stdout)
            .unwrap()
            .lines()
            .map(|line| line.parse::<u64>().unwrap())
            .sum()
    };
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    for (dry_run, added) in [(true, 303), (false, 303), (false, 0), (true, 0)] {
        let mut totals = Vec::new();
        let options = ImportOptions { dry_run, ..ImportOptions::default() };
        let report = import(&tree, &mut memory, &options, &mut |progress| {
            totals.push((progress.runs, progress.runs_total));
        })
        .unwrap();
        assert_eq!(report.bytes, bytes(&tree), "{dry_run}");
        assert_eq!(
            (report.points, report.points_added, report.metric_verbatim),
            (303, added, 1),
            "{dry_run}"
        );
        assert_eq!((totals.last(), report.runs), (Some(&(3, 3)), 3));
        assert!(totals.iter().all(|(done, total)| *total >= 2 && done <= total), "{totals:?}");
    }
}

#[test]
fn what_was_edited_in_the_store_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, uid) = small_tree(directory.path());
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&tree, &mut memory, &ImportOptions::default());
    memory.set(EntityKind::RUN, uid, Field::TAG, "note", Value::Text("edited".into()));
    memory.set(EntityKind::RUN, uid, Field::STATUS, "", Value::Integer(5));
    let again = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!((again.problems_total, again.registers_written), (0, 0), "{:?}", again.problems);
    assert_eq!(memory.text(uid, Field::TAG, "note").as_deref(), Some("edited"));

    // Something else changes in the tree: the difference is told, the edit stays.
    fs::write(run.join("tags/extra"), "x").unwrap();
    let report = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!(report.problems_total, 1);
    assert!(report.problems[0].path.ends_with("tags/note"), "{:?}", report.problems);
    assert_eq!(memory.text(uid, Field::TAG, "note").as_deref(), Some("edited"));
    assert_eq!(memory.text(uid, Field::TAG, "extra").as_deref(), Some("x"));
}

#[test]
fn one_changed_tag_changes_one_file_and_a_name_the_meta_too() {
    let directory = tempfile::tempdir().unwrap();
    for version in mlruns_support::VERSIONS {
        let source = unpack(version, directory.path()).join("mlruns");
        let mut memory = Memory::new(&directory.path().join("artifacts"));
        import_tree(&source, &mut memory, &ImportOptions::default());
        let run = *memory
            .uids(EntityKind::RUN)
            .iter()
            .find(|&&run| memory.text(run, Field::TAG, "mlflow.runName").is_some())
            .unwrap();
        memory.set(EntityKind::RUN, run, Field::TAG, "mlflow.user", Value::Text("somebody".into()));
        let target = directory.path().join(format!("tag-{version}"));
        export_tree(&memory, &target);
        let differences = difference(&source, &target);
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(differences[0].ends_with(&format!("{run}/tags/mlflow.user")), "{differences:?}");

        memory.set(EntityKind::RUN, run, Field::TAG, "mlflow.runName", Value::Text("yes".into()));
        memory.set(EntityKind::RUN, run, Field::NAME, "", Value::Text("yes".into()));
        let target = directory.path().join(format!("name-{version}"));
        export_tree(&memory, &target);
        let mut differences = difference(&source, &target);
        assert_eq!(differences.len(), 3, "{differences:?}");
        let meta = differences.remove(0);
        assert!(meta.ends_with(&format!("{run}/meta.yaml")), "{meta}");
        let meta = fs::read_to_string(target.join(meta)).unwrap();
        assert!(meta.contains("\nrun_name: 'yes'\n"), "{meta}");
    }
}

#[test]
fn deleting_and_restoring_moves_the_experiment() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, _, _) = small_tree(directory.path());
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&tree, &mut memory, &ImportOptions::default());
    let experiment = memory.uids(EntityKind::EXPERIMENT)[0];
    memory.set(EntityKind::EXPERIMENT, experiment, Field::LIFECYCLE, "", Value::Text("deleted".into()));
    let target = directory.path().join("deleted");
    export_tree(&memory, &target);
    assert_eq!(difference(&tree, &target), ["-7", "+.trash/7"]);
    let meta = fs::read_to_string(target.join(".trash/7/meta.yaml")).unwrap();
    assert!(meta.contains("lifecycle_stage: deleted"), "{meta}");
    memory.set(EntityKind::EXPERIMENT, experiment, Field::LIFECYCLE, "", Value::Text("active".into()));
    let target = directory.path().join("restored");
    export_tree(&memory, &target);
    assert_eq!(difference(&tree, &target), NOTHING);
}

#[test]
fn points_logged_after_an_import_follow_the_imported_lines() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, uid) = small_tree(directory.path());
    append(&run.join("metrics/loss"), "rubbish");
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    let report = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!(report.problems.iter().map(|p| p.line).collect::<Vec<_>>(), [Some(3)]);
    memory.log(uid, "loss", Origin::from_bytes([1; 16]), &[(2, 1002, 1e-7)]);
    let target = directory.path().join("target");
    export_tree(&memory, &target);
    let text = fs::read_to_string(target.join("7").join(uid.to_string()).join("metrics/loss")).unwrap();
    assert_eq!(text, "1000 0.5 0\n1001 0.25 1\nrubbish\n1002 1e-07 2\n");
}

#[test]
fn a_store_made_through_the_api_gets_the_layout_all_versions_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    let (experiment, run, dataset) =
        (Uid::from_bytes([1; 16]), Uid::from_bytes([2; 16]), Uid::from_bytes([3; 16]));
    let text = |text: &str| Value::Text(text.into());
    for (field, value) in [
        (Field::NAME, text("new")),
        (Field::NUMERIC_ID, text("42")),
        (Field::CREATED_MS, Value::Integer(5)),
        (Field::UPDATED_MS, Value::Integer(6)),
        (Field::LIFECYCLE, text("active")),
    ] {
        memory.set(EntityKind::EXPERIMENT, experiment, field, "", value);
    }
    for (field, value) in [
        (Field::NAME, text("r")),
        (Field::EXPERIMENT, Value::Uid(experiment)),
        (Field::STATUS, Value::Integer(3)),
        (Field::START_MS, Value::Integer(10)),
        (Field::END_MS, Value::Integer(20)),
        (Field::USER, text("me")),
        (Field::LIFECYCLE, text("active")),
    ] {
        memory.set(EntityKind::RUN, run, field, "", value);
    }
    for (field, value) in [
        (Field::NAME, text("ds")),
        (Field::DIGEST, text("d1")),
        (Field::SOURCE_TYPE, text("local")),
        (Field::SOURCE, text("{}")),
    ] {
        memory.set(EntityKind::DATASET, dataset, field, "", value);
    }
    let tags = [("mlflow.data.context".to_owned(), "training".to_owned())].into();
    memory.set(
        EntityKind::RUN,
        run,
        Field::INPUT,
        &dataset.to_string(),
        Value::Bytes(encode_input_tags(&tags)),
    );
    memory.set(EntityKind::RUN, run, Field::PARAM, "a", text("1"));
    memory.set(EntityKind::RUN, run, Field::PARAM, "a/b", text("2"));
    memory.set(EntityKind::RUN, run, Field::TAG, "../../../escape", text("x"));
    let origin = Origin::from_bytes([9; 16]);
    memory.log(run, "loss", origin, &[(0, 10, 0.5), (1, 11, f64::NAN)]);
    memory.log(run, "loss/sub", origin, &[(0, 10, 0.5)]);
    fs::create_dir_all(directory.path().join("artifacts").join(run.to_string()).join("artifacts/deep"))
        .unwrap();
    fs::write(directory.path().join("artifacts").join(run.to_string()).join("artifacts/deep/f"), "f")
        .unwrap();

    let target = directory.path().join("out dir");
    let report = export_tree(&memory, &target);
    let mut refused: Vec<_> = report.unexportable.iter().map(|u| (u.what, u.name.clone())).collect();
    refused.sort();
    let at = format!("42/{run}");
    assert_eq!(
        refused,
        [
            ("metric", format!("{at}/metrics/loss/sub")),
            ("param", format!("{at}/params/a/b")),
            ("tag", format!("{at}/tags/../../../escape")),
        ]
    );
    let uri = format!("file://{}/42", target.display()).replace(' ', "%20");
    assert_eq!(
        fs::read_to_string(target.join("42/meta.yaml")).unwrap(),
        format!(
            "artifact_location: {uri}\ncreation_time: 5\nexperiment_id: '42'\nlast_update_time: 6\nlifecycle_stage: active\nname: new\n"
        )
    );
    // run ids of digits only are quoted, as YAML 1.1 would read a number.
    assert_eq!(
        fs::read_to_string(target.join(&at).join("meta.yaml")).unwrap(),
        format!(
            "artifact_uri: {uri}/{run}/artifacts\nend_time: 20\nentry_point_name: ''\nexperiment_id: '42'\nlifecycle_stage: active\n\
             run_id: '{run}'\nrun_name: r\nrun_uuid: '{run}'\nsource_name: ''\nsource_type: 4\nsource_version: ''\nstart_time: 10\nstatus: 3\ntags: []\nuser_id: me\n"
        )
    );
    let read = |path: &str| fs::read_to_string(target.join(&at).join(path)).unwrap();
    assert_eq!(read("metrics/loss"), "10 0.5 0\n11 nan 1\n");
    assert_eq!(read("tags/mlflow.runName"), "r");
    assert_eq!(read("artifacts/deep/f"), "f");
    // md5 of "dsd1", and of that and the run id.
    let (dataset, input) = ("cc280d004672fc0bd78076cd0b8de64f", "612b4549739cc94d22e24fa05c70b003");
    assert!(target.join("42/datasets").join(dataset).join("meta.yaml").exists());
    assert_eq!(
        read(&format!("inputs/{input}/meta.yaml")),
        format!(
            "destination_id: {dataset}\ndestination_type: RUN\nsource_id: {dataset}\nsource_type: DATASET\ntags:\n  mlflow.data.context: training\n"
        )
    );
    assert!(target.join(".trash").is_dir());

    // What was exported is a tree like any other.
    let mut memory = Memory::new(&directory.path().join("again"));
    let report = import_tree(&target, &mut memory, &ImportOptions::default());
    assert_eq!(
        (report.problems_total, report.yaml_verbatim, report.points),
        (0, 0, 2),
        "{:?}",
        report.problems
    );
    let again = directory.path().join("again-out");
    export(&memory, &again, &ExportOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(difference(&target, &again), NOTHING);
}

#[test]
fn a_growth_that_was_killed_is_completed_and_can_be_exported_before() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, run, uid) = small_tree(directory.path());
    append(&run.join("metrics/loss"), "1002 0.125 2");
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&tree, &mut memory, &ImportOptions::default());
    let lines: String = (3..9000).map(|step| format!("\n{} 0.5 {step}", 1000 + step)).collect();
    append(&run.join("metrics/loss"), &lines);
    // One write is one block of 4,096 points here; the record of the file does not get written.
    memory.writes_left = Some(1);
    assert!(mlrs_db::mlruns::import(&tree, &mut memory, &ImportOptions::default(), &mut |_| {}).is_err());
    memory.writes_left = None;
    memory.log(uid, "loss", Origin::from_bytes([1; 16]), &[(7, 7, 7.0)]);
    let target = directory.path().join("between");
    export_tree(&memory, &target);
    let text = fs::read_to_string(target.join("7").join(uid.to_string()).join("metrics/loss")).unwrap();
    let whole = fs::read_to_string(run.join("metrics/loss")).unwrap();
    let kept = text.strip_suffix("\n7 7.0 7\n").unwrap();
    assert!(whole.starts_with(kept) && kept.lines().count() > 4000, "{}", kept.len());

    let report = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!(report.problems_total, 1, "{:?}", report.problems);
    let target = directory.path().join("after");
    export_tree(&memory, &target);
    let text = fs::read_to_string(target.join("7").join(uid.to_string()).join("metrics/loss")).unwrap();
    assert_eq!(text, format!("{whole}\n7 7.0 7\n"));
}

#[test]
fn an_experiment_that_was_deleted_in_the_tree_is_told_and_its_runs_are_not_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, _, uid) = small_tree(directory.path());
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&tree, &mut memory, &ImportOptions::default());
    fs::rename(tree.join("7"), tree.join(".trash/7")).unwrap();
    let report = import_tree(&tree, &mut memory, &ImportOptions::default());
    assert_eq!((report.problems_total, report.points_added), (1, 0), "{:?}", report.problems);
    assert_eq!(memory.uids(EntityKind::RUN), [uid]);
    import_tree(&tree, &mut memory, &ImportOptions { replace: true, ..ImportOptions::default() });
    let target = directory.path().join("target");
    export_tree(&memory, &target);
    assert_eq!(difference(&tree, &target), NOTHING);
}
