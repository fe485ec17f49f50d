//! MLflow's own server and ours, asked alike.
//!
//! Contract: the requests are in `tests/mlflow/requests`; MLflow 3.18's Flask application (SQLite, proxied artifacts)
//! and `Protocol::answer` get each of them, and their answers are compared as JSON once ids and times are made alike.
//! Every case whose answers differ is in the tables of `docs/mlflow.md`, with the reason, and every case that is there
//! differs.

mod mlflow;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use mlrs_db::Store;
use mlrs_db::mlflow::{Door, Protocol};
use serde_json::{Value, json};

/// The version whose answers count.
const VERSION: &str = "3.18.0";

/// One request, with placeholders, and the values of its answer that get a name.
struct Request {
    method: String,
    path: String,
    body: Option<String>,
    saved: Vec<(String, String)>,
}

struct Case {
    name: String,
    requests: Vec<Request>,
}

/// Reads the cases of one file.
fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('%')) {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case { name: name.to_owned(), requests: Vec::new() });
            continue;
        }
        let case = cases.last_mut().expect("a case before its requests");
        if let Some(saved) = line.strip_prefix("> ") {
            let (name, pointer) = saved.split_once(' ').expect("a name and a pointer");
            let request = case.requests.last_mut().expect("a request before what is saved of it");
            request.saved.push((name.to_owned(), pointer.to_owned()));
            continue;
        }
        let mut parts = line.splitn(3, ' ');
        let (method, path) = (parts.next().unwrap(), parts.next().unwrap_or_else(|| panic!("{line}")));
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/api/2.0/mlflow/{path}"),
        };
        let body = parts.next().map(expanded);
        case.requests.push(Request {
            method: method.to_owned(),
            path: expanded(&path),
            body,
            saved: Vec::new(),
        });
    }
    cases
}

/// Writes out `$rep(N,text)` and `$list(N,text)`, the inner ones first.
fn expanded(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(at) = text.rfind("$rep(").max(text.rfind("$list(")) {
        let open = at + text[at..].find('(').unwrap();
        let mut depth = 0;
        let close = open
            + text[open..]
                .find(|c| {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    depth == 0
                })
                .expect("a closing parenthesis");
        let (number, inner) = text[open + 1..close].split_once(',').expect("a number and a text");
        let number: usize = number.parse().expect("a number");
        let whole = match text[at..].starts_with("$rep") {
            true => inner.repeat(number),
            false => {
                let items: Vec<String> = (0..number).map(|n| inner.replace('#', &n.to_string())).collect();
                format!("[{}]", items.join(", "))
            }
        };
        text.replace_range(at..=close, &whole);
    }
    text
}

/// Somebody who answers requests.
trait Side {
    fn answer(&mut self, method: &str, path: &str, body: Option<&str>) -> (u16, String);
}

struct Ours(Protocol);

impl Side for Ours {
    fn answer(&mut self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let answer = self.0.answer(method, path, body.unwrap_or_default().as_bytes());
        (answer.status, String::from_utf8(answer.body).expect("an answer in UTF-8"))
    }
}

struct Theirs {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Theirs {
    fn start(root: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlflow/answer_requests.py");
        let mut child = Command::new(mlflow::python(VERSION))
            .env("PYTHONUTF8", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(script)
            .arg(root)
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(root.join("stderr")).unwrap())
            .spawn()
            .expect("MLflow's Python starts");
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut side = Self { child, input, output };
        let hello = side.line(root);
        assert_eq!(hello["mlflow"], VERSION);
        side
    }

    fn line(&mut self, root: &Path) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).unwrap_or_else(|_| {
            let said = std::fs::read_to_string(root.join("stderr")).unwrap_or_default();
            panic!("MLflow's server is gone:\n{said}")
        })
    }
}

impl Side for Theirs {
    fn answer(&mut self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let asked = json!({ "method": method, "path": path, "body": body });
        writeln!(self.input, "{asked}").expect("MLflow's server listens");
        let answer = self.line(Path::new("."));
        (answer["status"].as_u64().unwrap() as u16, answer["body"].as_str().unwrap().to_owned())
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts this side's values in the place of names, longest names first.
fn filled(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut names: Vec<_> = values.iter().collect();
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
}

/// An answer without what may differ: names in the place of ids, no times, keyed lists in order.
fn normalised(status: u16, body: &str, values: &BTreeMap<String, String>) -> Value {
    // Flask answers some errors with a page.
    let Ok(mut body) = serde_json::from_str::<Value>(body) else { return json!({ "status": status }) };
    let mut texts: Vec<(&str, &str)> = values.iter().map(|(n, v)| (v.as_str(), n.as_str())).collect();
    texts.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    let exact: BTreeMap<&str, &str> = values.iter().map(|(n, v)| (v.as_str(), n.as_str())).collect();
    normalise(&mut body, "", &texts, &exact);
    json!({ "status": status, "body": body })
}

/// Replaces a word wherever it stands alone.
fn replaced_word(text: &str, word: &str, by: &str) -> String {
    let (mut out, mut copied) = (String::new(), 0);
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        let alone =
            !text[..at].ends_with(char::is_alphanumeric) && !text[end..].starts_with(char::is_alphanumeric);
        if alone {
            out.push_str(&text[copied..at]);
            out.push_str(by);
            copied = end;
        }
    }
    out + &text[copied..]
}

/// Python's sets have no order: what stands in `{...}` of a message is sorted.
fn with_sorted_sets(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{'") else { return text.to_owned() };
    let Some((inside, after)) = rest.split_once("'}") else { return text.to_owned() };
    let mut items: Vec<&str> = inside.split("', '").collect();
    items.sort_unstable();
    format!("{before}{{'{}'}}{after}", items.join("', '"))
}

const TIMES: &[&str] = &[
    "creation_time",
    "last_update_time",
    "creation_timestamp",
    "last_updated_timestamp",
    "creation_timestamp_ms",
    "last_updated_timestamp_ms",
];

fn normalise(value: &mut Value, key: &str, texts: &[(&str, &str)], exact: &BTreeMap<&str, &str>) {
    match value {
        Value::Object(map) => {
            // Workspaces are one thing that mlrs-db does not have.
            map.remove("workspace");
            // How MLflow's SQL store tells that the trace came, not only spans of it.
            map.remove("mlflow.trace.infoFinalized");
            for time in TIMES {
                if map.contains_key(*time) {
                    map.insert((*time).to_owned(), json!("<time>"));
                }
            }
            map.iter_mut().for_each(|(key, value)| normalise(value, key, texts, exact));
            if map.get("trace_metadata").is_some_and(|metadata| *metadata == json!({})) {
                map.remove("trace_metadata");
            }
            if map.get("key").and_then(Value::as_str) == Some("mlflow.log-model.history") {
                let parsed = map["value"].as_str().and_then(|text| serde_json::from_str(text).ok());
                map.insert("value".to_owned(), parsed.unwrap_or(Value::Null));
            }
        }
        Value::Array(list) => {
            list.iter_mut().for_each(|item| normalise(item, key, texts, exact));
            let keyed = list.iter().all(|item| item.get("key").is_some());
            let is_set = ["params", "tags", "dataset_inputs", "dataset_summaries", "aliases"].contains(&key);
            let latest = key == "metrics" && keyed && list.iter().all(|item| item.get("run_id").is_none());
            let distinct: BTreeSet<_> = list.iter().map(|item| item["key"].to_string()).collect();
            if is_set || (latest && distinct.len() == list.len()) {
                list.sort_by_key(|item| item.to_string());
            }
        }
        Value::String(text) => {
            let is_place =
                key.contains("artifact_") || ["root_uri", "source", "mlflow.artifactLocation"].contains(&key);
            if is_place && text.starts_with("mlflow-artifacts:") {
                *text = "<inside the store>".to_owned();
            } else if let Some(name) = exact.get(text.as_str()) {
                *text = format!("${name}");
            } else if key == "experiment_id" && *text != "0" {
                *text = "<id>".to_owned();
            } else {
                for (value, name) in texts {
                    *text = replaced_word(text, value, &format!("${name}"));
                }
                *text = with_sorted_sets(text);
            }
        }
        _ => {}
    }
}

/// Asks one side everything a case has; the answers, normalised.
fn ask(side: &mut dyn Side, case: &Case, number: usize) -> Vec<Value> {
    let mut values = BTreeMap::from([("case".to_owned(), format!("c{number}x"))]);
    let mut prelude = |path: &str, body: Value, name: &str, pointer: &str, values: &mut BTreeMap<_, _>| {
        let path = format!("/api/2.0/mlflow/{path}");
        let (status, body) = side.answer("POST", &path, Some(&body.to_string()));
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let value = body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{body}"));
        values.insert(name.to_owned(), value.to_owned());
    };
    let name = format!("exp-c{number}x");
    prelude("experiments/create", json!({ "name": name }), "exp", "/experiment_id", &mut values);
    let run = json!({ "experiment_id": values["exp"], "start_time": 1000, "run_name": "first" });
    prelude("runs/create", run, "run", "/run/info/run_id", &mut values);

    let mut answers = Vec::new();
    for request in &case.requests {
        let path = filled(&request.path, &values).replace(' ', "%20");
        let body = request.body.as_ref().map(|body| filled(body, &values));
        let (status, text) = side.answer(&request.method, &path, body.as_deref());
        let parsed: Value = serde_json::from_str(&text).unwrap_or_default();
        for (name, pointer) in &request.saved {
            let value =
                parsed.pointer(pointer).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
            values.insert(name.clone(), value.unwrap_or_else(|| "nothing-saved".to_owned()));
        }
        answers.push(normalised(status, &text, &values));
    }
    answers
}

/// The cases that the tables of `docs/mlflow.md` list: rows whose first cell is a case's name in backquotes.
fn listed() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/mlflow.md");
    let text = std::fs::read_to_string(&path).expect("docs/mlflow.md");
    let row = |line: &str| Some(line.strip_prefix("| `")?.split_once("` |")?.0.to_owned());
    text.lines().filter_map(row).collect()
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(700) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[test]
fn answers_are_mlflows() {
    let scratch = mlflow::scratch();
    let store = Store::open(scratch.path().join("store")).unwrap();
    let mut ours = Ours(Protocol::new(store, Door::Proxy).unwrap());
    let root = scratch.path().join("mlflow");
    std::fs::create_dir(&root).unwrap();
    let mut theirs = Theirs::start(&root);

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlflow/requests");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let all: Vec<Case> =
        files.iter().flat_map(|path| cases(&std::fs::read_to_string(path).unwrap())).collect();
    let only = std::env::var("MLRS_CASE").ok();

    let mut listed = listed();
    let (mut wrong, mut compared, mut requests) = (String::new(), 0, 0);
    for (number, case) in all.iter().enumerate() {
        if only.as_ref().is_some_and(|only| !case.name.contains(only.as_str())) {
            listed.remove(&case.name);
            continue;
        }
        let (our_answers, their_answers) = (ask(&mut ours, case, number), ask(&mut theirs, case, number));
        compared += 1;
        requests += case.requests.len();
        let differing: Vec<usize> = (0..case.requests.len())
            .filter(|&at| {
                let (our, their) = (&our_answers[at], &their_answers[at]);
                // A page of Flask's says nothing but its status.
                our != their && (their.get("body").is_some() || our["status"] != their["status"])
            })
            .collect();
        match (listed.remove(&case.name), differing.is_empty()) {
            (true, true) => {
                wrong += &format!("\n'{}' is listed in docs/mlflow.md and does not differ\n", case.name)
            }
            (false, false) => {
                wrong += &format!("\n== {}\n", case.name);
                for at in differing {
                    let Request { method, path, body, .. } = &case.requests[at];
                    let body = body.as_deref().unwrap_or_default();
                    wrong += &format!("{method} {path} {}\n", body.chars().take(300).collect::<String>());
                    wrong += &format!("  MLflow: {}\n", brief(&their_answers[at]));
                    wrong += &format!("  ours:   {}\n", brief(&our_answers[at]));
                }
            }
            _ => {}
        }
    }
    if only.is_none() {
        for name in listed {
            wrong += &format!("\n'{name}' is listed in docs/mlflow.md and is no case\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    println!("{compared} cases, {requests} requests");
}
