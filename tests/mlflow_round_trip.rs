//! The main job, judged by others: `mlrs-db import` and `mlrs-db export` of trees that real MLflow wrote (and of trees
//! made by code that has nothing to do with ours), compared by `diff -r` and by what MLflow itself answers.
#![cfg(feature = "cli")]

mod mlflow;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mlflow::{
    Counts, VERSIONS, assert_same_answers, assert_same_tree, common_part, errors, mlflow_reads, succeed,
    unpack,
};
use serde_json::Value;

/// The program, without what the environment might set for it.
fn mlrs_db() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlrs-db"));
    command.env_remove("MLRS_DB_STORE");
    command
}

fn import(tree: &Path, store: &Path) {
    succeed(mlrs_db().arg("import").arg(tree).arg("--store").arg(store));
}

fn export(store: &Path, destination: &Path) {
    succeed(mlrs_db().arg("export").arg(destination).arg("--store").arg(store));
}

/// Imports a tree into a new store, exports it, and asserts that nothing differs; returns the export.
fn round_trip(tree: &Path, scratch: &Path) -> PathBuf {
    let store = scratch.join("store");
    let exported = scratch.join("exported").join("mlruns");
    std::fs::create_dir_all(scratch.join("exported")).expect("a directory to export into");
    import(tree, &store);
    export(&store, &exported);
    assert_same_tree(tree, &exported);
    exported
}

/// Asserts that MLflow answers the same about both. The export is put where the original lay, as that is the place
/// its URIs name (a tree that came from elsewhere names a place that is gone, in both).
fn assert_mlflow_agrees(versions: &[&str], original: &Path, exported: &Path) {
    let expected: Vec<_> = versions.iter().map(|version| mlflow_reads(version, original)).collect();
    let aside = original.with_extension("aside");
    std::fs::rename(original, &aside).expect("the original is moved aside");
    std::fs::rename(exported, original).expect("the export takes its place");
    for (version, expected) in versions.iter().zip(&expected) {
        let answer = mlflow_reads(version, original);
        assert_same_answers(expected, &answer, &format!("MLflow {version} on original and export"));
    }
    // Reading wrote nothing: the answers were about the trees that `diff -r` compared.
    assert_same_tree(&aside, original);
}

fn tree_of_mlflow_comes_back(version: &str) {
    let scratch = mlflow::scratch();
    let tree = unpack(version, scratch.path()).join("mlruns");
    let exported = round_trip(&tree, scratch.path());
    assert_mlflow_agrees(&[version], &tree, &exported);
}

#[test]
fn the_tree_of_mlflow_1_comes_back() {
    tree_of_mlflow_comes_back("1.22.0");
}

#[test]
fn the_tree_of_mlflow_2_comes_back() {
    tree_of_mlflow_comes_back("2.22.5");
}

#[test]
fn the_tree_of_mlflow_3_comes_back() {
    tree_of_mlflow_comes_back("3.18.0");
}

/// Damage is reported, not fatal: exit code 0, and the same bytes back.
#[test]
fn poisoned_trees_come_back() {
    for version in VERSIONS {
        let scratch = mlflow::scratch();
        let tree = unpack(version, scratch.path()).join("poison/mlruns");
        let exported = round_trip(&tree, scratch.path());
        assert_mlflow_agrees(&[version], &tree, &exported);
    }
}

#[test]
fn trees_written_a_moment_ago_come_back() {
    for version in VERSIONS {
        let scratch = mlflow::scratch();
        let (tree, _) = mlflow::mlflow_writes(version, scratch.path(), 11);
        let exported = round_trip(&tree, scratch.path());
        assert_mlflow_agrees(&[version], &tree, &exported);
    }
}

/// 50 runs of 20 keys in every spelling of a number, small enough for MLflow to read it six times.
#[test]
fn a_made_tree_comes_back() {
    let scratch = mlflow::scratch();
    let (tree, _) = mlflow::make_tree(scratch.path(), &["--points-total", "200000", "--lines-max", "20000"]);
    let exported = round_trip(&tree, scratch.path());
    assert_mlflow_agrees(&VERSIONS, &tree, &exported);
}

/// MLflow lists nothing of such a tree, so bytes are all there is to compare.
#[test]
fn a_made_tree_with_damage_at_its_root_comes_back() {
    let scratch = mlflow::scratch();
    let (tree, _) = mlflow::make_tree(
        scratch.path(),
        &["--runs", "12", "--points-total", "20000", "--lines-max", "5000", "--damage", "all"],
    );
    round_trip(&tree, scratch.path());
}

/// The same at full size: 7 million lines, the longest file a million. MLflow takes minutes to read it; equal bytes
/// have equal answers.
#[test]
fn a_large_made_tree_comes_back() {
    let scratch = mlflow::scratch();
    let (tree, made) = mlflow::make_tree(scratch.path(), &[]);
    assert!(made["lines"].as_u64().is_some_and(|lines| lines > 5_000_000), "{made}");
    round_trip(&tree, scratch.path());
}

/// One run through `mlrs-db log`; returns its id.
fn log_run(store: &Path, experiment: &str, name: &str, more: &[&str], lines: &str) -> String {
    let mut command = mlrs_db();
    command.args(["log", "--experiment", experiment, "--run", name]).args(more).arg("--store").arg(store);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mlrs-db starts");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("mlrs-db reads its input");
    let output = child.wait_with_output().expect("mlrs-db ends");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("text");
    printed.lines().next().expect("the id of the run").trim().to_owned()
}

/// Timestamp, step and value, as `read_tree.py` orders them.
type Point = (i64, i64, f64);

/// What was logged by [`store_written_through_the_program`], by run: experiment, name, status, params, histories.
struct Logged {
    id: String,
    experiment: &'static str,
    name: &'static str,
    status: &'static str,
    params: &'static [(&'static str, &'static str)],
    histories: Vec<(&'static str, Vec<Point>)>,
}

const FIRST: i64 = 1_700_000_000_000;

/// A store that no tree was imported into.
fn store_written_through_the_program(store: &Path) -> Vec<Logged> {
    let made = mlrs_db().arg("init").arg(store).status().expect("mlrs-db starts");
    assert!(made.success(), "{made}");
    let mut logged = Vec::new();

    let loss: Vec<_> = (0..500).map(|i| (FIRST + i * 1000, i, 3.0 / (1.0 + i as f64))).collect();
    let lines: String = loss
        .iter()
        .map(|(t, s, v)| format!("{{\"step\": {s}, \"timestamp\": {t}, \"train/loss\": {v:?}}}\n"))
        .collect();
    let more = ["--param", "lr=0.1", "--param", "dir/opt=adam", "--tag", "mlflow.note.content=one: 1\n\ntwo"];
    logged.push(Logged {
        id: log_run(store, "written here", "plain", &more, &lines),
        experiment: "written here",
        name: "plain",
        status: "FINISHED",
        params: &[("lr", "0.1"), ("dir/opt", "adam")],
        histories: vec![("train/loss", loss)],
    });

    // Every kind of number, in an order of steps that only the log has, with a point logged twice.
    let values = [0.0, -0.0, 1e-7, 1e16, 1e300, 5e-324, f64::MAX, 0.1 + 0.2, 1.0 / 3.0, -2.5, 1.0, 1.0];
    let steps = [5, 3, 3, -1, 0, -100, 1 << 40, i64::MAX, 5, 7, 8, 8];
    let mut odd: Vec<_> = steps.iter().zip(values).map(|(&s, v)| (FIRST, s, v)).collect();
    let mut lines: String = odd
        .iter()
        .map(|(t, s, v)| format!("{{\"step\": {s}, \"timestamp\": {t}, \"values/\u{e9} x\": {v:?}}}\n"))
        .collect();
    for (text, value) in [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)] {
        lines += &format!("{{\"step\": 9, \"timestamp\": {FIRST}, \"values/\u{e9} x\": {text}}}\n");
        odd.push((FIRST, 9, value));
    }
    let more = ["--status", "failed", "--param", "note=a\r\nb\u{1f680}", "--tag", "empty="];
    logged.push(Logged {
        id: log_run(store, "1e3", "it's: \"odd\"\n", &more, &lines),
        experiment: "1e3",
        name: "it's: \"odd\"\n",
        status: "FAILED",
        params: &[("note", "a\r\nb\u{1f680}")],
        histories: vec![("values/\u{e9} x", odd)],
    });

    logged.push(Logged {
        id: log_run(store, "written here", "123", &[], ""),
        experiment: "written here",
        name: "123",
        status: "FINISHED",
        params: &[],
        histories: vec![],
    });
    logged
}

/// Python's `float.hex`, for the comparison with `read_tree.py`.
fn hex(value: f64) -> String {
    let sign = if value.is_sign_negative() && !value.is_nan() { "-" } else { "" };
    match value.classify() {
        std::num::FpCategory::Nan => "nan".to_owned(),
        std::num::FpCategory::Infinite => format!("{sign}inf"),
        std::num::FpCategory::Zero => format!("{sign}0x0.0p+0"),
        category => {
            let bits = value.to_bits();
            let mantissa = bits & ((1 << 52) - 1);
            let exponent = i64::try_from((bits >> 52) & 0x7ff).expect("eleven bits");
            let (lead, exponent) =
                if category == std::num::FpCategory::Subnormal { (0, -1022) } else { (1, exponent - 1023) };
            format!("{sign}0x{lead}.{mantissa:013x}p{exponent:+}")
        }
    }
}

fn assert_run_is_as_logged(answer: &Value, logged: &Logged) {
    let experiment = mlflow::members(&answer["experiments"])
        .find(|experiment| experiment["name"] == logged.experiment)
        .unwrap_or_else(|| panic!("no experiment {:?}", logged.experiment));
    let run = &experiment["runs"][&logged.id];
    assert_eq!(run["info"]["status"], logged.status, "{run}");
    assert_eq!(run["info"]["lifecycle_stage"], "active");
    assert_eq!(run["tags"]["mlflow.runName"], logged.name);
    let params: serde_json::Map<_, _> =
        logged.params.iter().map(|&(key, value)| (key.to_owned(), Value::from(value))).collect();
    assert_eq!(run["params"], Value::Object(params));
    let histories: serde_json::Map<_, _> = logged
        .histories
        .iter()
        .map(|(key, points)| {
            let points = points.iter().map(|&(t, s, v)| serde_json::json!([t, s, hex(v)])).collect();
            ((*key).to_owned(), Value::Array(points))
        })
        .collect();
    assert_same_answers(&run["histories"], &Value::Object(histories), "history read by MLflow and as logged");
}

#[test]
fn a_store_written_here_is_read_by_every_mlflow() {
    let scratch = mlflow::scratch();
    let store = scratch.path().join("store");
    let logged = store_written_through_the_program(&store);
    let tree = scratch.path().join("exported").join("mlruns");
    std::fs::create_dir_all(scratch.path().join("exported")).expect("a directory to export into");
    export(&store, &tree);

    let answers = VERSIONS.map(|version| mlflow_reads(version, &tree));
    for (version, answer) in VERSIONS.iter().zip(&answers) {
        assert_eq!(errors(answer), [], "MLflow {version}");
        assert_eq!(Counts::of(answer).runs, logged.len(), "MLflow {version}");
        for run in &logged {
            assert_run_is_as_logged(answer, run);
        }
        assert_same_answers(
            &common_part(&answers[0]),
            &common_part(answer),
            &format!("MLflow {} and MLflow {version}", VERSIONS[0]),
        );
    }

    // And such an export is a tree like any other.
    let again = scratch.path().join("again");
    std::fs::create_dir_all(&again).expect("a directory");
    round_trip(&tree, &again);
}
