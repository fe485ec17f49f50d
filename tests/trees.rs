//! The real trees of three MLflow versions, through a store, byte for byte.

use mlrs_db::Store;
use mlrs_db::mlruns::{ExportOptions, ImportOptions};
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

fn round_trip(tree: &Path) -> u64 {
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
    let exported: PathBuf = work.path().join("exported-again");
    store.export(&exported, &ExportOptions::default(), &mut |_| {}).unwrap();
    assert_same(tree, &exported);
    report.points
}

#[test]
fn trees_of_three_versions_come_back_byte_for_byte() {
    for (version, points) in [("1.22.0", 1257), ("2.22.5", 1261), ("3.18.0", 1264)] {
        let directory = unpack(version);
        assert!(round_trip(&directory.path().join("mlruns")) >= points, "{version}");
        round_trip(&directory.path().join("poison/mlruns"));
    }
}
