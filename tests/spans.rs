//! Spans of traces: logged in any order, kept by the log, carried by all that carries a store.

mod medium;

use std::fs;
use std::path::Path;

use mlrs_db::{Error, Span, Store, TraceInfo, TraceState};

const ID: &str = "tr-0af7651916cd43dd8448eb211c80319c";
/// Longer than one chunk of a blob.
const LONG: usize = 3 << 20;

fn span(id: u64, parent: Option<u64>, start_ms: i64, text: &str) -> Span {
    let hex = |id: u64| format!("{id:016x}");
    Span {
        id: hex(id),
        parent_id: parent.map(hex),
        name: format!("step {id}"),
        span_type: Some("LLM".into()),
        status: "OK".into(),
        start_ns: start_ms * 1_000_000,
        end_ns: Some((start_ms + 10) * 1_000_000 + 999_999),
        content: format!("{{\"name\": \"{text}\"}}"),
    }
}

fn ids(store: &Store) -> Vec<u64> {
    store.spans(ID).unwrap().iter().map(|span| u64::from_str_radix(&span.id, 16).unwrap()).collect()
}

fn info(experiment: &str) -> TraceInfo {
    TraceInfo {
        uid: Default::default(),
        id: ID.into(),
        experiment_uid: Default::default(),
        experiment_id: experiment.into(),
        client_request_id: None,
        request_ms: 77,
        execution_ms: Some(5),
        state: TraceState::Error,
        request_preview: None,
        response_preview: None,
        tags: Default::default(),
        metadata: Default::default(),
        assessments: Vec::new(),
    }
}

/// The files as they are now, as a killed process would leave them.
fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copied(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), &target).unwrap()),
        }
    }
}

#[test]
fn spans_make_a_trace_which_the_info_completes() {
    let directory = tempfile::tempdir().unwrap();
    let store = medium::options().open(directory.path().join("store")).unwrap();
    let experiment = store.experiment("app").unwrap().id().to_owned();
    // A child first: its trace is under way.
    let made = store.log_spans(&experiment, ID, &[span(2, Some(1), 20, "child")]).unwrap();
    assert_eq!((made.state, made.request_ms, made.execution_ms), (TraceState::InProgress, 20, Some(10)));
    let done = store.log_spans(&experiment, ID, &[span(1, None, 10, "root")]).unwrap();
    assert_eq!((done.state, done.request_ms, done.execution_ms), (TraceState::Ok, 10, Some(20)));
    let told = store.start_trace(&info(&experiment)).unwrap();
    assert_eq!((told.state, told.request_ms), (TraceState::Error, 77));
    // A straggler does not change what was told.
    let late = store.log_spans(&experiment, ID, &[span(3, Some(1), 1, "late")]).unwrap();
    assert_eq!(late, told);
    assert_eq!(ids(&store), [3, 1, 2]);
    // The same id again replaces.
    store.log_spans(&experiment, ID, &[span(2, Some(1), 20, "other")]).unwrap();
    assert_eq!(store.spans(ID).unwrap()[2], span(2, Some(1), 20, "other"));
    assert_eq!(ids(&store), [3, 1, 2]);
}

#[test]
fn what_is_refused_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = medium::options().open(&path).unwrap();
    let [one, two] = ["one", "two"].map(|name| store.experiment(name).unwrap().id().to_owned());
    store.log_spans(&one, ID, &[span(1, None, 10, "root")]).unwrap();
    let refused = |id: &str, spans: &[Span]| match store.log_spans(&two, id, spans) {
        Err(Error::InvalidArgument(said)) => said,
        other => panic!("{other:?}"),
    };
    let files =
        || fs::read_dir(path.join("log")).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum::<u64>();
    let before = files();
    assert!(refused(ID, &[span(2, None, 1, "x")]).contains("another experiment"));
    assert!(refused("a/b", &[span(2, None, 1, "x")]).contains("Invalid trace ID"));
    assert!(refused("tr-x", &[Span { id: String::new(), ..span(2, None, 1, "x") }]).contains("span id"));
    assert!(matches!(store.log_spans("999", ID, &[]), Err(Error::NotFound { .. })));
    assert_eq!(files(), before);
    assert_eq!(ids(&store), [1]);
}

#[test]
fn spans_outlive_the_process_and_are_carried_along() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let store = medium::options().open(at("store")).unwrap();
    let experiment = store.experiment("app").unwrap().id().to_owned();
    let long = span(2, Some(1), 20, &"x".repeat(LONG));
    let expected = vec![span(1, None, 10, "root"), long.clone()];
    store.log_spans(&experiment, ID, &expected).unwrap();

    // Killed: nothing was closed.
    copied(&at("store"), &at("killed"));
    let killed = medium::options().open(at("killed")).unwrap();
    assert_eq!(killed.spans(ID).unwrap(), expected);
    killed.close().unwrap();

    store.backup(&at("backup"), &mut |_| {}).unwrap();
    assert_eq!(medium::options().open(at("backup")).unwrap().spans(ID).unwrap(), expected);
    store.close().unwrap();

    // Compacted, and merged with a store in which the same trace got another span.
    let store = medium::options().open(at("store")).unwrap();
    store.log_spans(&experiment, ID, &[span(3, Some(1), 30, "third")]).unwrap();
    store.close().unwrap();
    let store = medium::options().open(at("store")).unwrap();
    store.compact(&mut |_| {}).unwrap();
    let other = medium::options().open(at("killed")).unwrap();
    other.log_spans(&experiment, ID, &[span(4, Some(1), 40, "fourth")]).unwrap();
    other.close().unwrap();
    store.merge(&at("killed"), false, &mut |_| {}).unwrap();
    assert_eq!(ids(&store), [1, 2, 3, 4]);
    assert_eq!(store.spans(ID).unwrap()[1], long);
    assert!(store.verify(&mut |_| {}).unwrap().is_sound());

    store.delete_traces(&experiment, &[ID], None, None).unwrap();
    assert!(matches!(store.spans(ID), Err(Error::NotFound { .. })));
}
