//! Trees that nobody should have, and a large one that code independent of the exporter wrote.

mod mlruns_support;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mlruns_support::{Memory, difference, export_tree, import_tree};
use proptest::prelude::*;

use mlrs_db::format::event::{EntityKind, Field, Value};
use mlrs_db::mlruns::{ImportOptions, ImportReport};

const NOTHING: [String; 0] = [];
const RUN: &str = "00112233445566778899aabbccddeeff";

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn round_trip(tree: &Path, scratch: &Path) -> (Memory, ImportReport) {
    let mut memory = Memory::new(&scratch.join("artifacts"));
    let report = import_tree(tree, &mut memory, &ImportOptions::default());
    let exported = export_tree(&memory, &scratch.join("export"));
    assert_eq!(difference(tree, &scratch.join("export")), NOTHING, "{:#?}", exported.unexportable);
    let again = import_tree(tree, &mut memory, &ImportOptions::default());
    assert_eq!((again.registers_written, again.points_added), (0, 0));
    (memory, report)
}

#[test]
fn a_thoroughly_damaged_tree_goes_in_as_far_as_it_goes_and_comes_out_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    let run = tree.join("1").join(RUN);
    write(&tree.join("stray file"), b"x");
    write(&tree.join("junk dir!/deep/file"), b"x");
    write(&tree.join("5/no meta here"), b"x");
    write(&tree.join(".trash/loose"), b"x");
    fs::create_dir_all(tree.join(".trash/empty")).unwrap();
    write(&tree.join("1/meta.yaml"), b"name: [unclosed\n");
    write(&tree.join("1/.DS_Store"), b"\0\0\0\x01Bud1\0");
    write(&tree.join("1/tags/k"), b"v");
    write(
        &run.join("meta.yaml"),
        b"status: FINISHED\nrun_id: x # hand-made\nstart_time: 12.5\nexperiment_id: 1\n",
    );
    write(&run.join("params/bytes"), b"\xff\xfe\0\r\n");
    write(&run.join("params/meta.yaml"), b"not: meta");
    write(&run.join("params/a/..b"), b"");
    write(&run.join("tags/nl"), b"a\nb\r\n");
    fs::create_dir_all(run.join("tags/left/over")).unwrap();
    write(&run.join("metrics/good"), b"1 0.5 0\n2 nan 1\n");
    write(&run.join("metrics/torn"), b"1 0.5 0\n2 0.25 1\n17000");
    write(&run.join("metrics/blank"), b"1 0.5 0\n\n2 0.25 1\n");
    write(&run.join("metrics/crlf"), "1 0.5 0\r\n".repeat(100).as_bytes());
    write(&run.join("metrics/float"), b"1700000000000.5 0.5 1.5\n1 0.5 2\n");
    write(&run.join("metrics/huge"), b"1 0.5 9223372036854775808\n99999999999999999999 1.0 1\n1 2.0 3\n");
    write(&run.join("metrics/empty"), b"");
    write(&run.join("metrics/.DS_Store"), b"\0\0\0\x01Bud1\n\xff\xff");
    write(&run.join("metrics").join(OsStr::from_bytes(b"bad\xffname")), b"1 0.5 0\n");
    write(&run.join("metrics/latin"), b"1 0.5 0 caf\xe9 x\n1 0.5 1\n");
    write(&run.join("artifacts").join(OsStr::from_bytes(b"b\xe9")).join("f"), b"f");
    fs::create_dir_all(run.join("artifacts/empty")).unwrap();
    write(&run.join("unknown/thing"), &vec![b'q'; 100_000]);
    write(&tree.join("1").join("not a run id").join("meta.yaml"), b"");
    write(&tree.join("1").join("11112233445566778899aabbccddeeff").join("metrics/m"), b"1 1.0 1\n");
    write(&tree.join("models/m/meta.yaml"), b"name: m\nname: twice\n");
    write(&tree.join("2/meta.yaml"), b"");
    write(&tree.join("2/datasets/d/meta.yaml"), b"name: n\ndigest: d\n");
    write(&tree.join("2/datasets/stray"), b"");
    std::os::unix::fs::symlink("/nowhere/at/all", tree.join("2/dangling")).unwrap();
    std::os::unix::fs::symlink(run.join("metrics/good"), tree.join("2/link")).unwrap();

    let (memory, report) = round_trip(&tree, directory.path());
    let uid = memory
        .uids(EntityKind::RUN)
        .into_iter()
        .find(|&uid| memory.text(uid, Field::RUN_ID_TEXT, "").as_deref() == Some("x"))
        .unwrap();
    let steps = |key: &str| memory.metric(uid, key).iter().map(|p| p.2).collect::<Vec<_>>();
    assert_eq!(steps("good"), [0, 1]);
    assert_eq!(steps("torn"), [0, 1]);
    assert_eq!(steps("blank"), [0, 1]);
    assert_eq!(steps("crlf").len(), 100);
    assert_eq!(steps("float"), [2]);
    assert_eq!(steps("huge"), [3]);
    assert_eq!(steps("latin"), [1]);
    let registers = &memory.entities[&uid].1;
    assert_eq!(registers[&(Field::STATUS, String::new())].1, Value::Integer(3));
    assert_eq!(registers[&(Field::START_MS, String::new())].1, Value::Integer(12));
    assert_eq!(registers[&(Field::PARAM, "bytes".into())].1, Value::Bytes(b"\xff\xfe\0\r\n".to_vec()));
    assert_eq!((report.experiments, report.runs), (2, 3), "{:#?}", report.problems);
    let told = |end: &str, line: Option<u64>| {
        assert!(
            report.problems.iter().any(|p| p.path.ends_with(end) && p.line == line),
            "{end} {line:?}: {:#?}",
            report.problems
        );
    };
    told("1/meta.yaml", Some(2));
    told("metrics/torn", Some(3));
    told("metrics/blank", Some(2));
    told("metrics/float", Some(1));
    told("metrics/huge", Some(1));
    told("metrics/huge", Some(2));
    told("metrics/empty", None);
    told("metrics/latin", Some(1));
    told("junk dir!", None);
    told("params/bytes", None);
}

#[test]
fn long_values_and_files_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    let run = tree.join("0").join(RUN);
    let long = "word ".repeat(100_000);
    write(
        &tree.join("0/meta.yaml"),
        format!("experiment_id: '0'\nlifecycle_stage: active\nname: {RUN}\n").as_bytes(),
    );
    write(&run.join("meta.yaml"), b"");
    write(&run.join("params/long"), long.as_bytes());
    write(&run.join("params/longer"), &vec![b'x'; 9 * 1024 * 1024]);
    write(&run.join("metrics/binary"), &vec![0xa5; 3 * 1024 * 1024]);
    write(
        &run.join("metrics/mixed"),
        &[b"1 0.5 0\n".to_vec(), vec![b'7'; 2 * 1024 * 1024], b"\n2 0.5 1\n".to_vec()].concat(),
    );
    let (memory, _) = round_trip(&tree, directory.path());
    let uid = RUN.parse().unwrap();
    assert_eq!(memory.text(uid, Field::PARAM, "long"), Some(long));
    assert_eq!(memory.metric(uid, "mixed"), [(1, 0.5, 0), (2, 0.5, 1)]);
}

/// Fifty runs of twenty keys in every spelling, written by nothing of this crate but `format!`.
#[test]
fn a_generated_tree_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    let spellings = [
        "0.0",
        "-0.0",
        "1.0",
        "0.1",
        "0.3333333333333333",
        "1e-07",
        "1e+16",
        "5e-324",
        "1.7976931348623157e+308",
        "nan",
        "inf",
        "-inf",
        "7",
        "-3",
        "9007199254740992",
        "1e5",
        "1E5",
        "+5",
        "1_000.5",
        "NaN",
        "Infinity",
        "-INF",
        ".5",
        "5.",
        "0.10",
        "00.5",
        "1.2345678901234568e+17",
        "100000000000000000000",
        "0.1000000000000000055511151231257827",
        "1e400",
    ];
    let mut seed = 12345u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        seed >> 33
    };
    write(
        &tree.join("1/meta.yaml"),
        b"artifact_location: s3://b/1\nexperiment_id: '1'\nlifecycle_stage: active\nname: '1e3'\n",
    );
    let mut lines = 0;
    for run in 0..50 {
        let id = format!("{run:032x}");
        let path = tree.join("1").join(&id);
        write(
            &path.join("meta.yaml"),
            format!(
                "end_time: null\nexperiment_id: '1'\nlifecycle_stage: active\nrun_id: '{id}'\nstatus: 1\n"
            )
            .as_bytes(),
        );
        for key in 0..20 {
            let count = if (run, key) == (3, 3) { 1_000_000 } else { random() % 200 + 1 };
            let mut text = String::new();
            for step in 0..count {
                let timestamp = 1_700_000_000_000 + step * 100 + random() % 50;
                match (key, random() % 50) {
                    (0..10, _) => {
                        writeln!(text, "{timestamp} {:?} {step}", random() as f64 / 1e6 + 0.5).unwrap()
                    }
                    (_, pick @ 0..30) => {
                        writeln!(text, "{timestamp} {} {step}", spellings[pick as usize]).unwrap()
                    }
                    (15.., 30..33) => {
                        writeln!(text, "{timestamp} 0.5 {step} data{} d{}", pick_of(&mut random), run)
                            .unwrap()
                    }
                    (16.., 33) => writeln!(text, "{timestamp} 0.5").unwrap(),
                    (17.., 34) => write!(text, "{timestamp} 0.5 {step}\r\n").unwrap(),
                    _ => writeln!(text, "{timestamp} {:?} {}", random() as f64 / 3.0 + 0.01, -(step as i64))
                        .unwrap(),
                }
            }
            lines += count;
            write(&path.join(format!("metrics/group{}/k{key}", key % 3)), text.as_bytes());
        }
    }
    let (_, report) = round_trip(&tree, directory.path());
    assert_eq!(
        (report.points, report.runs, report.metric_files, report.problems_total),
        (lines, 50, 1000, 0),
        "{:?}",
        &report.problems.get(..3)
    );
    assert!(report.metric_verbatim == 0 && report.metric_irregular > 0 && report.metric_respelled > 400);
}

fn pick_of(random: &mut impl FnMut() -> u64) -> u64 {
    random() % 3
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_file_come_back(
        experiment in prop::collection::vec(any::<u8>(), 0..80),
        run in "(status: [0-9x]\n|run_id: [a-z0-9']{0,9}\n|tags: (\\[\\]|\\{\\}|x)\n|name: .{0,20}\n|user_id: [a-z~ :#'\"-]{0,9}\n|end_time: (null|[0-9.]{1,9})\n|[a-z :]{0,9}\n){0,6}",
        metric in prop::collection::vec(any::<u8>(), 0..60),
        tag in prop::collection::vec(any::<u8>(), 0..30),
        name in "[a-zA-Z0-9 ._:é-]{1,12}",
    ) {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        let path = tree.join("1").join(RUN);
        write(&tree.join("1/meta.yaml"), &experiment);
        write(&path.join("meta.yaml"), run.as_bytes());
        write(&path.join("metrics/m"), &metric);
        write(&path.join("metrics/n"), &[b"1 0.5 0\n", metric.as_slice()].concat());
        if name != "." && name != ".." {
            write(&path.join("tags").join(&name), &tag);
        }
        round_trip(&tree, directory.path());
    }
}
