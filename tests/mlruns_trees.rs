//! The trees that MLflow 1.22, 2.22 and 3.18 wrote go in and come out with the same bytes.

mod mlruns_support;

use std::fs;

use mlruns_support::{Memory, VERSIONS, difference, export_tree, import_tree, unpack};

use mlrs_db::mlruns::ImportOptions;

#[test]
fn all_six_trees_come_back_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    for version in VERSIONS {
        let unpacked = unpack(version, directory.path());
        for part in ["mlruns", "poison/mlruns"] {
            let source = unpacked.join(part);
            let mut memory = Memory::new(&directory.path().join(format!("artifacts-{version}")));
            let report = import_tree(&source, &mut memory, &ImportOptions::default());
            let target = directory.path().join(format!("export-{version}-{}", part.len()));
            let exported = export_tree(&memory, &target);
            assert_eq!(difference(&source, &target), [String::new(); 0], "{version} {part}: {:#?}", report.problems);
            assert_eq!(exported.unexportable, []);
            assert_eq!((exported.runs, exported.points), (report.runs, report.points));
            println!("{version} {part}: {report:#?}");
        }
    }
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("partial")), "{left:?}");
}
