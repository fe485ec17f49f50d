//! The index may be deleted, garbled or old at any moment: answers stay the same.

use mlrs_db::{RunOptions, RunSearch, Store};
use std::path::Path;

fn log_runs(path: &Path, from: usize, count: usize) {
    let store = Store::open(path).unwrap();
    let experiment = store.experiment("sweep").unwrap();
    for n in from..from + count {
        let run = experiment.start_run(RunOptions::new().param("n", n.to_string()).tag("t", "x")).unwrap();
        run.log_metrics(n as i64, [("loss", n as f64), ("acc", -(n as f64))]).unwrap();
    }
    store.close().unwrap();
}

fn answers(path: &Path, use_index: bool) -> String {
    let store = Store::options().read_only(true).use_index(use_index).open(path).unwrap();
    let search = RunSearch { order_by: vec!["metrics.loss ASC".into()], ..RunSearch::default() };
    let runs = store.search_runs(&search).unwrap().items;
    assert!(runs.len() >= 300);
    format!("{runs:?}")
}

#[test]
fn answers_do_not_depend_on_the_index() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let index = path.join("index.redb");
    log_runs(&path, 0, 300);
    assert!(index.exists(), "300 runs are worth an index");
    let old_index = std::fs::read(&index).unwrap();
    let first = answers(&path, false);
    assert_eq!(answers(&path, true), first);
    log_runs(&path, 300, 10);
    let expected = answers(&path, false);
    assert_ne!(expected, first);
    assert_eq!(answers(&path, true), expected);

    // Behind, older, garbled, truncated, empty, gone.
    std::fs::write(&index, &old_index).unwrap();
    assert_eq!(answers(&path, true), expected);
    for garbage in 0..8 {
        let mut bytes = old_index.clone();
        let len = bytes.len();
        for at in (garbage * 37..len).step_by(509) {
            bytes[at] ^= 0x55;
        }
        std::fs::write(&index, &bytes).unwrap();
        assert_eq!(answers(&path, true), expected, "garbage {garbage}");
    }
    std::fs::write(&index, &old_index[..old_index.len() / 2]).unwrap();
    assert_eq!(answers(&path, true), expected);
    std::fs::write(&index, b"").unwrap();
    assert_eq!(answers(&path, true), expected);
    std::fs::remove_file(&index).unwrap();
    assert_eq!(answers(&path, true), expected);

    // A writer that comes by makes it anew.
    log_runs(&path, 310, 1);
    assert!(index.exists());
    assert_eq!(answers(&path, true), answers(&path, false));
}

#[test]
fn an_index_of_a_log_that_is_gone_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    log_runs(&path, 0, 300);
    let copy = directory.path().join("older");
    assert!(std::process::Command::new("cp").arg("-a").arg(&path).arg(&copy).status().unwrap().success());
    log_runs(&path, 300, 5);
    // The log goes back in time, the index does not.
    for entry in std::fs::read_dir(path.join("log")).unwrap() {
        let entry = entry.unwrap();
        if !copy.join("log").join(entry.file_name()).exists() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    assert_eq!(answers(&path, true), answers(&path, false));
}
