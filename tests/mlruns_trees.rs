//! The trees that MLflow 1.22, 2.22 and 3.18 wrote go in and come out with the same bytes.

mod mlruns_support;

use std::fs;
use std::path::Path;

use mlruns_support::{Memory, VERSIONS, difference, export_tree, import_tree, unpack};

use mlrs_db::format::event::{EntityKind, Field};
use mlrs_db::mlruns::{ArtifactMode, ExportOptions, ImportOptions, export, import};

const NOTHING: [String; 0] = [];

#[test]
fn all_six_trees_come_back_byte_for_byte_and_almost_nothing_is_verbatim() {
    let directory = tempfile::tempdir().unwrap();
    let (mut yaml_files, mut metric_files) = (0, Vec::new());
    for version in VERSIONS {
        let unpacked = unpack(version, directory.path());
        for part in ["mlruns", "poison/mlruns"] {
            let source = unpacked.join(part);
            let mut memory = Memory::new(&directory.path().join(format!("artifacts-{version}")));
            let report = import_tree(&source, &mut memory, &ImportOptions::default());
            let target = directory.path().join(format!("export-{version}-{}", part.len()));
            let exported = export_tree(&memory, &target);
            assert_eq!(difference(&source, &target), NOTHING, "{version} {part}: {:#?}", report.problems);
            assert_eq!(exported.unexportable, []);
            assert_eq!((exported.runs, exported.points), (report.runs, report.points));
            assert_eq!(report.yaml_verbatim, 0, "{version} {part}");
            if part == "mlruns" {
                yaml_files += report.yaml_files;
                metric_files.push((report.metric_files, report.metric_respelled, report.metric_irregular));
                assert_eq!(report.metric_verbatim, 0);
            } else {
                // One file of each holds nothing but a float time stamp: no point, so it is kept as a file.
                assert_eq!(report.metric_verbatim, 1);
            }
        }
    }
    assert_eq!(yaml_files, 309);
    // The four files of 1.22 that are not `repr(float)` hold integers; how a value was spelled is a column.
    assert_eq!(metric_files, [(37, 4, 0), (41, 0, 0), (44, 0, 0)]);
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("partial")), "{left:?}");
}

/// Reads a metric file the way MLflow does, and fails on anything that it does not expect.
fn naive_metric(path: &Path) -> Vec<(i64, f64, i64)> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            assert!(matches!(fields.len(), 3 | 5), "{line}");
            (fields[0].parse().unwrap(), fields[1].parse().unwrap(), fields[2].parse().unwrap())
        })
        .collect()
}

fn files_below(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_metric_param_and_tag_is_what_the_files_say() {
    let directory = tempfile::tempdir().unwrap();
    for version in VERSIONS {
        let source = unpack(version, directory.path()).join("mlruns");
        let mut memory = Memory::new(&directory.path().join("artifacts"));
        import_tree(&source, &mut memory, &ImportOptions::default());
        let mut checked = [0; 3];
        for uid in memory.uids(EntityKind::RUN) {
            let run = fs::read_dir(&source)
                .unwrap()
                .chain(fs::read_dir(source.join(".trash")).unwrap())
                .map(|e| e.unwrap().path().join(uid.to_string()))
                .find(|path| path.exists())
                .unwrap();
            for (index, (name, field)) in
                [("metrics", None), ("params", Some(Field::PARAM)), ("tags", Some(Field::TAG))]
                    .into_iter()
                    .enumerate()
            {
                let mut files = Vec::new();
                if run.join(name).exists() {
                    files_below(&run.join(name), &mut files);
                }
                checked[index] += files.len();
                for file in files {
                    let key = file.strip_prefix(run.join(name)).unwrap().to_str().unwrap();
                    match field {
                        Some(field) => {
                            assert_eq!(memory.text(uid, field, key), Some(fs::read_to_string(&file).unwrap()))
                        }
                        None => {
                            let (ours, theirs) = (memory.metric(uid, key), naive_metric(&file));
                            assert_eq!(format!("{ours:?}"), format!("{theirs:?}"), "{key}");
                        }
                    }
                }
            }
        }
        assert!(checked.iter().all(|&n| n > 20), "{version}: {checked:?}");
    }
}

#[test]
fn importing_again_changes_nothing_and_adds_no_point() {
    let directory = tempfile::tempdir().unwrap();
    let source = unpack("3.18.0", directory.path()).join("mlruns");
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&source, &mut memory, &ImportOptions::default());
    let before = memory.state();
    let report = import_tree(&source, &mut memory, &ImportOptions::default());
    assert_eq!((report.registers_written, report.points_added, report.points), (0, 0, 1266));
    assert!(memory.state() == before);
}

#[test]
fn an_import_that_was_killed_anywhere_is_completed_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    for version in ["2.22.5", "3.18.0"] {
        let source = unpack(version, directory.path()).join("mlruns");
        let mut whole = Memory::new(&directory.path().join("whole"));
        import_tree(&source, &mut whole, &ImportOptions::default());
        for writes in (0..).step_by(7) {
            let mut memory = Memory::new(&directory.path().join(format!("killed-{version}-{writes}")));
            memory.writes_left = Some(writes);
            if import(&source, &mut memory, &ImportOptions::default(), &mut |_| {}).is_ok() {
                assert!(writes > 100);
                break;
            }
            memory.writes_left = None;
            let report = import_tree(&source, &mut memory, &ImportOptions::default());
            assert_eq!(report.problems_total, 1, "{:?}", report.problems);
            assert!(memory.state() == whole.state(), "after {writes} writes");
        }
    }
}

#[test]
fn a_dry_run_says_the_same_and_writes_nothing_and_strict_imports_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let source = unpack("3.18.0", directory.path()).join("poison/mlruns");
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    let dry = import_tree(&source, &mut memory, &ImportOptions { dry_run: true, ..ImportOptions::default() });
    assert!(memory.entities.is_empty() && memory.points.is_empty() && memory.blobs.is_empty());
    let strict = ImportOptions { strict: true, ..ImportOptions::default() };
    let error = import(&source, &mut memory, &strict, &mut |_| {}).unwrap_err();
    assert!(matches!(error, mlrs_db::Error::StrictImport { problems: 2, .. }), "{error}");
    assert!(memory.entities.is_empty() && memory.points.is_empty());
    let real = import_tree(&source, &mut memory, &ImportOptions::default());
    assert_eq!(format!("{dry:?}"), format!("{real:?}"));
}

#[test]
fn two_trees_with_the_same_ids_keep_apart_and_each_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let source = unpack("2.22.5", directory.path()).join("mlruns");
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    for name in ["left", "right"] {
        import_tree(
            &source,
            &mut memory,
            &ImportOptions { tree: Some(name.into()), ..ImportOptions::default() },
        );
    }
    assert_eq!((memory.uids(EntityKind::RUN).len(), memory.uids(EntityKind::EXPERIMENT).len()), (54, 124));
    for name in ["left", "right"] {
        let target = directory.path().join(name);
        let options = ExportOptions { tree: Some(name.into()), ..ExportOptions::default() };
        let report = export(&memory, &target, &options, &mut |_| {}).unwrap();
        assert_eq!(report.unexportable, []);
        assert_eq!(difference(&source, &target), NOTHING);
    }
    // Merged, the second of each pair has no place, and the report says so.
    let merged = export_tree(&memory, &directory.path().join("merged"));
    assert_eq!(merged.unexportable.iter().filter(|u| u.what == "experiment").count(), 62);
    assert!(
        export(
            &memory,
            &directory.path().join("x"),
            &ExportOptions { tree: Some("none".into()), ..ExportOptions::default() },
            &mut |_| {}
        )
        .is_err()
    );
}

#[test]
fn artifacts_can_be_linked_referenced_or_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let source = unpack("3.18.0", directory.path()).join("mlruns");
    for (mode, name) in
        [(ArtifactMode::Link, "link"), (ArtifactMode::Reference, "reference"), (ArtifactMode::Skip, "skip")]
    {
        let stored = directory.path().join(format!("artifacts-{name}"));
        let mut memory = Memory::new(&stored);
        let report =
            import_tree(&source, &mut memory, &ImportOptions { artifacts: mode, ..ImportOptions::default() });
        assert_eq!(report.artifacts, 10, "of runs and of logged models");
        let target = directory.path().join(name);
        export_tree(&memory, &target);
        let differences = difference(&source, &target);
        if mode == ArtifactMode::Skip {
            assert_eq!(differences.len(), 10, "{differences:?}");
            assert!(differences.iter().all(|d| d.starts_with('-') && d.contains("/artifacts/")));
        } else {
            assert_eq!(differences, NOTHING);
        }
        assert_eq!(stored.exists(), mode == ArtifactMode::Link);
    }
}

#[test]
fn export_refuses_a_target_that_holds_something() {
    let directory = tempfile::tempdir().unwrap();
    let source = unpack("1.22.0", directory.path()).join("poison/mlruns");
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&source, &mut memory, &ImportOptions::default());
    let target = directory.path().join("target");
    fs::create_dir(&target).unwrap();
    export_tree(&memory, &target);
    fs::write(target.join("mine"), "x").unwrap();
    let refused = export(&memory, &target, &ExportOptions::default(), &mut |_| {}).unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    assert!(target.join("mine").exists());
    let overwrite = ExportOptions { overwrite: true, ..ExportOptions::default() };
    export(&memory, &target, &overwrite, &mut |_| {}).unwrap();
    assert_eq!(difference(&source, &target), NOTHING);
}

#[test]
fn uris_are_rewritten_on_request_and_only_then() {
    let directory = tempfile::tempdir().unwrap();
    let source = unpack("3.18.0", directory.path()).join("mlruns");
    let mut memory = Memory::new(&directory.path().join("artifacts"));
    import_tree(&source, &mut memory, &ImportOptions::default());
    let target = directory.path().join("moved");
    let rewrite = ("file:///srv/mlflow/3.18.0".to_owned(), "file:///data".to_owned());
    let options = ExportOptions { rewrite_uris: vec![rewrite], ..ExportOptions::default() };
    export(&memory, &target, &options, &mut |_| {}).unwrap();
    let differences = difference(&source, &target);
    assert!(differences.len() > 80, "{}", differences.len());
    for path in differences {
        assert!(path.ends_with("meta.yaml"), "{path}");
        let (old, new) = (
            fs::read_to_string(source.join(&path)).unwrap(),
            fs::read_to_string(target.join(&path)).unwrap(),
        );
        assert_eq!(new, old.replace("file:///srv/mlflow/3.18.0", "file:///data"));
    }
}
