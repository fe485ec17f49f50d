//! Traces: those of a program, and those that MLflow wrote into its trees.

mod medium;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlrs_db::mlruns::{ExportOptions, ImportOptions};
use mlrs_db::{
    Assessment, AssessmentUpdate, AssessmentValue, Dialect, Error, Search, Store, TraceInfo, TraceState,
};

/// The experiment, and the failed trace in it, of the tree that MLflow 3.18 wrote.
const EXPERIMENT: &str = "903891801000624790";
const FAILED: &str = "tr-4cf6ebe9bf4e2e68e818043001e60cc9";
/// A trace of the tree that MLflow 2.22 wrote.
const SECOND: &str = "b01d97d77ccc4e6abe931fe05cad6b3f";

fn unpack(archive: &str, into: &Path) {
    let tar = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(archive);
    fs::create_dir_all(into).unwrap();
    assert!(Command::new("tar").arg("xzf").arg(&tar).arg("-C").arg(into).status().unwrap().success());
}

/// A store that has a tree of MLflow's, and the folder that both are in.
fn imported(version: &str) -> (tempfile::TempDir, Store) {
    let work = tempfile::tempdir().unwrap();
    unpack(&format!("mlflow-{version}.tar.gz"), work.path());
    let store = medium::options().open(work.path().join("store")).unwrap();
    store.import(&work.path().join("mlruns"), &ImportOptions::default(), &mut |_| {}).unwrap();
    (work, store)
}

/// What `diff -r` says of the tree and an export of it.
fn differences(work: &Path, store: &Store) -> Vec<String> {
    let target = work.join("exported");
    let options = ExportOptions { overwrite: true, ..ExportOptions::default() };
    store.export(&target, &options, &mut |_| {}).unwrap();
    let diff = Command::new("diff").arg("-r").arg(work.join("mlruns")).arg(&target).output().unwrap();
    let base = work.display().to_string();
    let said = String::from_utf8(diff.stdout).unwrap();
    said.lines().map(|line| line.replace(&base, "")).collect()
}

fn trace(id: &str, experiment_id: &str) -> TraceInfo {
    TraceInfo {
        uid: Default::default(),
        id: id.into(),
        experiment_uid: Default::default(),
        experiment_id: experiment_id.into(),
        client_request_id: None,
        request_ms: 1_000,
        execution_ms: Some(20),
        state: TraceState::Ok,
        request_preview: Some("in".into()),
        response_preview: None,
        tags: [("mlflow.traceName".to_owned(), "f".to_owned())].into(),
        metadata: [("mlflow.sourceRun".to_owned(), "r".to_owned())].into(),
        assessments: Vec::new(),
    }
}

fn said(value: &str) -> Assessment {
    Assessment {
        name: "good".into(),
        source_type: "HUMAN".into(),
        source_id: "me".into(),
        value: AssessmentValue::Feedback { value: Some(value.into()), error: None },
        ..Assessment::default()
    }
}

fn found(store: &Store, filter: &str) -> Vec<String> {
    let search = Search { filter: filter.into(), dialect: Dialect::MlFlow, ..Search::default() };
    store.search_traces(&search).unwrap().items.iter().map(|trace| trace.id.clone()).collect()
}

#[test]
fn a_trace_is_started_tagged_judged_found_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = medium::options().open(&path).unwrap();
    let experiment = store.experiment("app").unwrap().id().to_owned();
    let ids = ["tr-00000000000000000000000000000001", "tr-chosen"];
    for (at, id) in ids.into_iter().enumerate() {
        let new = TraceInfo { request_ms: 1_000 + at as i64, ..trace(id, &experiment) };
        assert_eq!(store.start_trace(&new).unwrap().id, id);
    }
    // Again: what is new is added.
    let new = trace(ids[1], &experiment);
    let again = TraceInfo { request_ms: 1_001, state: TraceState::Error, tags: Default::default(), ..new };
    assert_eq!(store.start_trace(&again).unwrap().tags.len(), 1);

    store.set_trace_tag(ids[0], "a", "b").unwrap();
    let old = store.create_assessment(ids[0], said("1")).unwrap();
    let new = Assessment { overrides: Some(old.id.clone()), ..said("2") };
    let new = store.create_assessment(ids[0], new).unwrap();
    assert_eq!(store.get_assessment(ids[0], &old.id).unwrap().valid, Some(false));
    let update = AssessmentUpdate { rationale: Some("so".into()), ..AssessmentUpdate::default() };
    assert_eq!(store.update_assessment(ids[0], &new.id, &update).unwrap().overrides, Some(old.id.clone()));
    let wrong = AssessmentUpdate {
        value: Some(AssessmentValue::Expectation { value: "1".into() }),
        ..AssessmentUpdate::default()
    };
    assert!(matches!(store.update_assessment(ids[0], &new.id, &wrong), Err(Error::InvalidArgument(_))));
    store.close().unwrap();

    let store = medium::options().open(&path).unwrap();
    let kept = store.get_trace(ids[0]).unwrap();
    assert_eq!((kept.tags["a"].as_str(), kept.assessments.len()), ("b", 2));
    assert_eq!(found(&store, ""), [ids[1], ids[0]].map(str::to_owned));
    assert_eq!(found(&store, "tag.a = 'b' AND execution_time < 21"), [ids[0]]);
    assert_eq!(found(&store, "status = 'ERROR'"), [ids[1]]);
    assert_eq!(found(&store, "tag.a IS NULL"), [ids[1]]);
    store.delete_assessment(ids[0], &new.id).unwrap();
    assert_eq!(store.get_assessment(ids[0], &old.id).unwrap().valid, Some(true));
    store.delete_trace_tag(ids[0], "a").unwrap();
    assert!(matches!(store.delete_trace_tag(ids[0], "a"), Err(Error::NotFound { .. })));

    assert_eq!(store.delete_traces(&experiment, &[], Some(2_000), Some(1)).unwrap(), 1);
    assert_eq!(found(&store, ""), [ids[1]]);
    assert!(matches!(store.get_trace(ids[0]), Err(Error::NotFound { .. })));
    let elsewhere = store.experiment("other").unwrap().id().to_owned();
    assert!(matches!(store.start_trace(&trace(ids[1], &elsewhere)), Err(Error::InvalidArgument(_))));
    assert!(store.start_trace(&trace("../x", &experiment)).is_err());
}

#[test]
fn traces_of_trees_are_shown_and_come_back_as_they_were() {
    let (work, store) = imported("3.18.0");
    let failed = store.get_trace(FAILED).unwrap();
    assert_eq!((failed.state, failed.execution_ms), (TraceState::Error, Some(0)));
    assert_eq!((failed.experiment_id.as_str(), failed.tags["mytag"].as_str()), (EXPERIMENT, "v"));
    assert_eq!(failed.metadata["mlflow.user"], "root");
    assert_eq!(failed.assessments.len(), 2);
    let expected = AssessmentValue::Expectation { value: r#"{"a": 1}"#.into() };
    assert!(failed.assessments.iter().any(|one| one.value == expected));
    assert_eq!(found(&store, "tag.mytag = 'v'"), [FAILED]);
    assert_eq!(differences(work.path(), &store), Vec::<String>::new());

    let (work, store) = imported("2.22.5");
    let second = store.get_trace(SECOND).unwrap();
    assert_eq!((second.state, second.request_ms), (TraceState::InProgress, 1_795_429_612_075));
    assert_eq!(differences(work.path(), &store), Vec::<String>::new());
}

#[test]
fn edits_of_a_trace_and_nothing_else_show_in_an_export() {
    let (work, store) = imported("3.18.0");
    store.set_trace_tag(FAILED, "mytag", "w").unwrap();
    store.set_trace_tag(FAILED, "new", "x").unwrap();
    let expectation = store
        .get_trace(FAILED)
        .unwrap()
        .assessments
        .iter()
        .find_map(|one| matches!(one.value, AssessmentValue::Expectation { .. }).then(|| one.id.clone()));
    store.delete_assessment(FAILED, &expectation.clone().unwrap()).unwrap();
    let place = format!("/mlruns/{EXPERIMENT}/traces/{FAILED}");
    let exported = place.replace("/mlruns/", "/exported/");
    let mut expected = vec![
        format!("Only in {place}/assessments: {}.yaml", expectation.unwrap()),
        format!("diff -r {place}/tags/mytag {exported}/tags/mytag"),
        format!("Only in {exported}/tags: new"),
    ];
    let mut differing = differences(work.path(), &store);
    differing.retain(|line| line.starts_with("Only") || line.starts_with("diff"));
    expected.sort();
    differing.sort();
    assert_eq!(differing, expected);

    // It is another store's edit, too, once that has the same tree.
    assert_eq!(store.delete_traces(EXPERIMENT, &[FAILED], None, None).unwrap(), 1);
    let differing = differences(work.path(), &store);
    assert_eq!(differing, [format!("Only in /mlruns/{EXPERIMENT}/traces: {FAILED}")]);
}

#[test]
fn new_traces_are_exported_and_come_in_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { directory.path().join(name) };
    let store = medium::options().open(at("store")).unwrap();
    let experiment = store.experiment("app").unwrap().id().to_owned();
    let id = "tr-00000000000000000000000000000001";
    store.start_trace(&trace(id, &experiment)).unwrap();
    store.create_assessment(id, said(r#"{"deep": [1, "x", null]}"#)).unwrap();
    store.export(&at("mlruns"), &ExportOptions::default(), &mut |_| {}).unwrap();

    let again = medium::options().open(at("again")).unwrap();
    again.import(&at("mlruns"), &ImportOptions::default(), &mut |_| {}).unwrap();
    let (here, there) = (store.get_trace(id).unwrap(), again.get_trace(id).unwrap());
    assert_eq!(
        (here.request_ms, here.execution_ms, here.state),
        (there.request_ms, there.execution_ms, there.state)
    );
    assert_eq!((&here.metadata, &here.assessments), (&there.metadata, &there.assessments));
    assert_eq!(there.tags["mlflow.traceName"], "f");
    again.export(&at("exported"), &ExportOptions::default(), &mut |_| {}).unwrap();
    let diff = Command::new("diff").arg("-r").arg(at("mlruns")).arg(at("exported")).output().unwrap();
    assert_eq!(String::from_utf8(diff.stdout).unwrap(), "");
}

#[test]
fn stores_that_kept_the_files_of_traces_show_them() {
    let work = tempfile::tempdir().unwrap();
    unpack("store-of-files.tar.gz", work.path());
    let store = medium::options().open(work.path().join("store")).unwrap();
    assert_eq!(store.get_trace(FAILED).unwrap().tags["mytag"], "v");
    assert_eq!(store.get_trace(SECOND).unwrap().id, SECOND);
}
