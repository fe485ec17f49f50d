//! Real MLflow as a peer: its environments, its trees, its answers.
//!
//! `tests/mlflow/setup.sh` makes one Python environment per version. A test that cannot find one fails and says so:
//! a comparison that was not made must not look like one that came out well.
#![allow(dead_code, reason = "each test binary uses its part of this module")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Map, Value};
use tempfile::TempDir;

/// The three generations whose trees and readers are tested.
pub const VERSIONS: [&str; 3] = ["1.22.0", "2.22.5", "3.18.0"];

/// A scratch directory below cargo's, as some trees are too large for a `/tmp` in memory.
pub fn scratch() -> TempDir {
    TempDir::with_prefix_in("mlflow-", env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory")
}

/// Unpacks the trees that a version of MLflow left behind: `mlruns`, and `poison/mlruns`, which it wrote but cannot
/// read. (In tars, as git would drop their empty directories.)
pub fn unpack(version: &str, into: &Path) -> PathBuf {
    let tar = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/mlflow-{version}.tar.gz"));
    assert!(tar.is_file(), "{} is missing; it belongs to the repository", tar.display());
    let place = into.join(format!("mlflow-{version}"));
    std::fs::create_dir_all(&place).expect("a directory to unpack into");
    succeed(Command::new("tar").arg("xzf").arg(&tar).arg("-C").arg(&place));
    place
}

/// The Python of one version's environment.
pub fn python(version: &str) -> PathBuf {
    let venvs = match std::env::var_os("MLRS_MLFLOW_VENVS") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target directory").join("mlflow"),
    };
    let venv = venvs.join(format!("venv-{version}"));
    // The stamp is written last: without it the set-up was broken off.
    assert!(
        venv.join(".stamp").is_file(),
        "MLflow {version} is not installed in {}: run tests/mlflow/setup.sh",
        venv.display()
    );
    venv.join("bin/python")
}

/// Runs one of the scripts beside this file with a version's Python, and returns the JSON it printed.
pub fn script<I, S>(version: &str, name: &str, arguments: I) -> Value
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlflow").join(name);
    // MLflow 1 reads metric files in the locale's encoding.
    let mut command = Command::new(python(version));
    command.env("PYTHONUTF8", "1").env("PYTHONDONTWRITEBYTECODE", "1").arg(path).args(arguments);
    let output = succeed(&mut command);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name} printed no JSON: {error}"))
}

/// Everything `version` of MLflow answers about the file store `tree`; see `read_tree.py`.
pub fn mlflow_reads(version: &str, tree: &Path) -> Value {
    let answer = script(version, "read_tree.py", [tree]);
    assert_eq!(answer["mlflow"], version, "the environment holds another version");
    assert!(
        answer.get("error").is_none(),
        "MLflow {version} did not read {}: {}",
        tree.display(),
        answer["error"]
    );
    answer
}

/// A new tree, written by `version` of MLflow itself, and the counts it must have; see `write_tree.py`.
pub fn mlflow_writes(version: &str, into: &Path, seed: u64) -> (PathBuf, Value) {
    let tree = into.join(format!("written-by-{version}")).join("mlruns");
    std::fs::create_dir_all(tree.parent().expect("a parent")).expect("a directory to write into");
    let counts =
        script(version, "write_tree.py", [tree.as_os_str(), "--seed".as_ref(), seed.to_string().as_ref()]);
    (tree, counts)
}

/// A tree made without MLflow and without our exporter; see `make_tree.py`.
pub fn make_tree(into: &Path, arguments: &[&str]) -> (PathBuf, Value) {
    let tree = into.join("made");
    let counts = script(
        VERSIONS[2],
        "make_tree.py",
        std::iter::once(tree.as_os_str()).chain(arguments.iter().map(OsStr::new)),
    );
    (tree, counts)
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Asserts that `diff -r` has nothing to say: names, bytes, and directories, empty ones too.
pub fn assert_same_tree(original: &Path, other: &Path) {
    let output = Command::new("diff").arg("-r").arg(original).arg(other).output().expect("diff runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let first: String = said.lines().take(40).flat_map(|line| [line, "\n"]).collect();
    assert!(
        output.status.success() && said.is_empty(),
        "diff -r {} {} ({}), {} lines:\n{first}{}",
        original.display(),
        other.display(),
        output.status,
        said.lines().count(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Asserts that two answers are equal; says where they first differ, as they are far too long to print.
pub fn assert_same_answers(one: &Value, other: &Value, what: &str) {
    if let Some((path, one, other)) = first_difference(one, other) {
        panic!("{what}: answers differ at {path}:\n  {one}\n  {other}");
    }
}

fn first_difference(one: &Value, other: &Value) -> Option<(String, String, String)> {
    let within =
        |key: &str, found: (String, String, String)| (format!("/{key}{}", found.0), found.1, found.2);
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.into_iter().find_map(|key| match (a.get(key), b.get(key)) {
                (Some(x), Some(y)) => first_difference(x, y).map(|found| within(key, found)),
                (x, y) => Some((format!("/{key}"), brief(x), brief(y))),
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (x, y))| first_difference(x, y).map(|found| within(&i.to_string(), found))),
        _ if one == other => None,
        _ => Some((String::new(), brief(Some(one)), brief(Some(other)))),
    }
}

fn brief(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "(nothing)".to_owned(), Value::to_string);
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// How much there is in an answer of `read_tree.py`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What `search_experiments` listed.
    pub experiments: usize,
    /// Of these, in lifecycle stage "deleted".
    pub deleted_experiments: usize,
    /// What `search_runs` listed, over all experiments.
    pub runs: usize,
    /// Metric histories that could be read, and the points in them.
    pub metrics: usize,
    pub points: u64,
    pub params: usize,
    pub tags: usize,
    pub dataset_inputs: usize,
    pub logged_models: usize,
    pub traces: usize,
    pub registered_models: usize,
    /// Entities that MLflow could not read.
    pub errors: usize,
}

impl Counts {
    pub fn of(answer: &Value) -> Self {
        let mut counts = Self { experiments: length(&answer["search_experiments"]), ..Self::default() };
        counts.errors = errors(answer).len();
        counts.registered_models = length(&answer["registered_models"]);
        for experiment in members(&answer["experiments"]) {
            counts.deleted_experiments += usize::from(experiment["lifecycle_stage"] == "deleted");
            counts.runs += length(&experiment["search_runs"]);
            counts.logged_models += length(&experiment["logged_models"]);
            counts.traces += length(&experiment["traces"]);
            for run in members(&experiment["runs"]) {
                counts.params += length(&run["params"]);
                counts.tags += length(&run["tags"]);
                counts.dataset_inputs += length(&run["inputs"]["datasets"]);
                for history in members(&run["histories"]).filter(|history| history.get("error").is_none()) {
                    counts.metrics += 1;
                    counts.points += history["points"].as_u64().unwrap_or(length(history) as u64);
                }
            }
        }
        counts
    }
}

/// Where an answer says `{"error": ...}`, with the error's type.
pub fn errors(answer: &Value) -> Vec<(String, String)> {
    fn walk(value: &Value, path: &str, found: &mut Vec<(String, String)>) {
        if let Value::Object(map) = value {
            if let Some(Value::String(error)) = map.get("error") {
                found.push((path.to_owned(), error.clone()));
            }
            for (key, value) in map {
                walk(value, &format!("{path}/{key}"), found);
            }
        }
    }
    let mut found = Vec::new();
    walk(answer, "", &mut found);
    found
}

/// What all three versions answer about a tree: without what a version does not know (run names as fields, times of
/// experiments, inputs) or adds from its own side.
pub fn common_part(answer: &Value) -> Value {
    let mut experiments = Map::new();
    for (id, experiment) in answer["experiments"].as_object().into_iter().flatten() {
        let mut kept = pick(
            experiment,
            &[
                "experiment_id",
                "name",
                "artifact_location",
                "lifecycle_stage",
                "tags",
                "search_runs",
                "error",
            ],
        );
        let mut runs = Map::new();
        for (id, run) in experiment["runs"].as_object().into_iter().flatten() {
            let mut kept = pick(run, &["params", "tags", "latest", "histories", "artifacts", "error"]);
            let info = ["run_id", "experiment_id", "user_id", "status", "start_time", "end_time"];
            let mut info = pick(&run["info"], &info);
            info.append(&mut pick(&run["info"], &["lifecycle_stage", "artifact_uri"]));
            kept.insert("info".to_owned(), Value::Object(info));
            runs.insert(id.clone(), Value::Object(kept));
        }
        kept.insert("runs".to_owned(), Value::Object(runs));
        experiments.insert(id.clone(), Value::Object(kept));
    }
    Value::Object(Map::from_iter([
        ("search_experiments".to_owned(), answer["search_experiments"].clone()),
        ("experiments".to_owned(), Value::Object(experiments)),
    ]))
}

fn pick(value: &Value, keys: &[&str]) -> Map<String, Value> {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(key)?.clone()))).collect()
}

fn length(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(map) if !map.contains_key("error") => map.len(),
        _ => 0,
    }
}

/// The values of an object; none of anything else.
pub fn members(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_object().into_iter().flat_map(Map::values)
}
