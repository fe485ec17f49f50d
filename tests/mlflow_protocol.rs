//! MLflow's protocol as a function: what one calls and what comes back.
//!
//! What MLflow's own server answers to the same is in `mlflow_server_peer.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use mlrs_db::mlflow::{Door, Protocol};
use mlrs_db::{RunOptions, RunStatus, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Server {
    protocol: Protocol,
    store: Store,
    directory: TempDir,
}

fn server_with(door: Door) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("my-store")).unwrap();
    Server { protocol: Protocol::new(store.clone(), door).unwrap(), store, directory }
}

fn server() -> Server {
    server_with(Door::Proxy)
}

impl Server {
    /// Asks; the status and the JSON that came back.
    fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask_bytes(method, path, body.as_bytes())
    }

    fn ask_bytes(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/api/2.0/mlflow/{path}") };
        let answer = self.protocol.answer(method, &path, body);
        (answer.status, serde_json::from_slice(&answer.body).expect("answers are JSON"))
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask("POST", path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn run(&self) -> String {
        let experiment = self.post("experiments/create", json!({ "name": "mnist" }))["experiment_id"].clone();
        let run = self.post("runs/create", json!({ "experiment_id": experiment, "start_time": 1 }));
        run["run"]["info"]["run_id"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_training_run_from_start_to_end() {
    let server = server();
    let experiment = server.post("experiments/create", json!({ "name": "mnist" }));
    let id = &experiment["experiment_id"];

    let new = json!({ "experiment_id": id, "run_name": "lr-3", "user_id": "ada", "start_time": 1_700_000_000_000_i64 });
    let run = server.post("runs/create", new);
    let run_id = run["run"]["info"]["run_id"].as_str().unwrap();
    assert_eq!(run["run"]["info"]["status"], "RUNNING");

    server.post("runs/log-parameter", json!({ "run_id": run_id, "key": "lr", "value": "0.1" }));
    let metric = json!({ "run_id": run_id, "key": "loss", "value": 0.5, "timestamp": 5, "step": 1 });
    server.post("runs/log-metric", metric);
    let batch = json!({
        "run_id": run_id,
        "metrics": [
            { "key": "loss", "value": 0.25, "timestamp": 6, "step": 2 },
            { "key": "grad", "value": "NaN", "timestamp": 6, "step": 2 },
        ],
        "params": [{ "key": "seed", "value": "7" }],
        "tags": [{ "key": "team", "value": "vision" }],
    });
    server.post("runs/log-batch", batch);
    let end = json!({ "run_id": run_id, "status": "FINISHED", "end_time": 1_700_000_065_000_i64 });
    assert_eq!(server.post("runs/update", end)["run_info"]["status"], "FINISHED");

    let run = &server.get(&format!("runs/get?run_id={run_id}"))["run"];
    assert_eq!(
        run["data"],
        json!({
            "metrics": [
                { "key": "grad", "value": "NaN", "timestamp": 6, "step": 2 },
                { "key": "loss", "value": 0.25, "timestamp": 6, "step": 2 },
            ],
            "params": [{ "key": "lr", "value": "0.1" }, { "key": "seed", "value": "7" }],
            "tags": [{ "key": "mlflow.runName", "value": "lr-3" }, { "key": "team", "value": "vision" }],
        })
    );
    let history = server.get(&format!("metrics/get-history?run_id={run_id}&metric_key=loss"));
    assert_eq!(history["metrics"][1], json!({ "key": "loss", "value": 0.25, "timestamp": 6, "step": 2 }));

    // It is all in the store, as if it had been logged by its own API.
    let data = server.store.get_run(run_id).unwrap();
    assert_eq!((data.name.as_str(), data.status, data.user.as_str()), ("lr-3", RunStatus::Finished, "ada"));
    assert_eq!(data.params["seed"], "7");
}

#[test]
fn errors_have_mlflows_shape() {
    let server = server();
    let (status, answer) = server.ask("GET", "runs/get?run_id=none", Value::Null);
    assert_eq!(status, 404);
    assert_eq!(
        answer,
        json!({
            "error_code": "RESOURCE_DOES_NOT_EXIST",
            "message": "Run with id=none not found",
            "sqlstate": "KAM00",
            "error_class": "RESOURCE_NOT_FOUND",
        })
    );
    for (method, path, status, code) in [
        ("GET", "/api/2.0/mlflow/nothing", 404, "ENDPOINT_NOT_FOUND"),
        ("GET", "/elsewhere", 404, "ENDPOINT_NOT_FOUND"),
        ("DELETE", "/api/2.0/mlflow/runs/get", 405, "BAD_REQUEST"),
        ("GET", "/api/2.0/mlflow/webhooks", 501, "NOT_IMPLEMENTED"),
    ] {
        let (got, answer) = server.ask(method, path, Value::Null);
        assert_eq!((got, &answer["error_code"]), (status, &json!(code)), "{path}");
    }
}

/// The default experiment is made for an empty store, and for a run that is started in it; a store that came from
/// elsewhere keeps just the experiments it has.
#[test]
fn the_default_experiment_is_there_when_it_is_needed() {
    let server = server();
    assert_eq!(server.get("experiments/get?experiment_id=0")["experiment"]["name"], "Default");

    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("my-store")).unwrap();
    store.experiment("mine").unwrap();
    let protocol = Protocol::new(store, Door::Proxy).unwrap();
    let ask = |method, path, body: &str| protocol.answer(method, path, body.as_bytes()).status;
    assert_eq!(ask("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", ""), 404);
    let run = r#"{"experiment_id": "0", "start_time": 1}"#;
    assert_eq!(ask("POST", "/api/2.0/mlflow/runs/create", run), 200);
    assert_eq!(ask("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", ""), 200);
}

#[test]
fn a_store_open_for_reading_answers_and_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my-store");
    let run = {
        let store = Store::open(&path).unwrap();
        let run = store.experiment("e").unwrap().start_run(RunOptions::new().name("r")).unwrap();
        run.log_metric("loss", 0, 1.0).unwrap();
        let id = run.id().to_owned();
        drop(run);
        store.close().unwrap();
        id
    };
    let store = Store::options().read_only(true).open(&path).unwrap();
    let protocol = Protocol::new(store, Door::Proxy).unwrap();
    let get = protocol.answer("GET", &format!("/api/2.0/mlflow/runs/get?run_id={run}"), b"");
    assert_eq!(get.status, 200);
    let tag = json!({ "run_id": run, "key": "a", "value": "b" }).to_string();
    let refused = protocol.answer("POST", "/api/2.0/mlflow/runs/set-tag", tag.as_bytes());
    assert_eq!(refused.status, 403, "{}", String::from_utf8_lossy(&refused.body));
}

/// The door decides how locations inside the store are spelled; given ones stay.
#[test]
fn artifact_locations_are_the_doors() {
    for (door, prefix) in
        [(Door::Proxy, "mlflow-artifacts:/".to_owned()), (Door::Files, "file:///".to_owned())]
    {
        let server = server_with(door);
        let run = server.run();
        let info = server.get(&format!("runs/get?run_id={run}"))["run"]["info"].clone();
        let uri = info["artifact_uri"].as_str().unwrap();
        assert!(uri.starts_with(&prefix) && uri.ends_with(&format!("/{run}/artifacts")), "{uri}");
        server.store.put_artifact_bytes(&run, b"hello", "model/MLmodel").unwrap();
        let root = server.get(&format!("artifacts/list?run_id={run}"));
        assert_eq!(root, json!({ "root_uri": uri, "files": [{ "path": "model", "is_dir": true }] }));
        let model = server.get(&format!("artifacts/list?run_id={run}&path=model"));
        assert_eq!(model["files"], json!([{ "path": "model/MLmodel", "is_dir": false, "file_size": 5 }]));

        // What the client reads in the location is where the bytes are.
        let inside = uri.strip_prefix("mlflow-artifacts:/").map(|path| format!("my-store/artifacts/{path}"));
        let folder = match inside {
            Some(path) => server.directory.path().join(path),
            None => Path::new(uri.strip_prefix("file://").unwrap()).to_path_buf(),
        };
        assert_eq!(std::fs::read(folder.join("model/MLmodel")).unwrap(), b"hello");

        // Filters see what the answer says.
        let experiment = &info["experiment_id"];
        let filter = format!("artifact_uri = '{uri}'");
        let found = server.post("runs/search", json!({ "experiment_ids": [experiment], "filter": filter }));
        assert_eq!(found["runs"].as_array().unwrap().len(), 1);

        let given = json!({ "name": "given", "artifact_location": "s3://bucket/x?y=z" });
        let given = server.post("experiments/create", given)["experiment_id"].clone();
        let run = server.post("runs/create", json!({ "experiment_id": given, "start_time": 1 }));
        let uri = run["run"]["info"]["artifact_uri"].as_str().unwrap();
        assert!(uri.starts_with("s3://bucket/x/") && uri.ends_with("/artifacts?y=z"), "{uri}");
    }
}

#[test]
fn a_batch_is_all_or_nothing() {
    let server = server();
    let run = server.run();
    server.post("runs/log-parameter", json!({ "run_id": run, "key": "p", "value": "1" }));
    let (status, answer) = server.ask(
        "POST",
        "runs/log-batch",
        json!({
            "run_id": run,
            "params": [{ "key": "q", "value": "2" }, { "key": "p", "value": "3" }],
            "metrics": [{ "key": "m", "value": 1, "timestamp": 1 }],
        }),
    );
    assert_eq!(status, 400);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("[{'key': 'p', 'old_value': '1', 'new_value': '3'}]"), "{message}");
    let data = server.store.get_run(&run).unwrap();
    assert!(!data.params.contains_key("q") && data.metrics.is_empty());
}

/// Python writes `NaN` without quotes, and clients of every age send numbers as texts.
#[test]
fn numbers_may_be_spelled_in_many_ways() {
    let server = server();
    let run = server.run();
    for (at, value) in
        ["NaN", "\"NaN\"", "-Infinity", "\"Infinity\"", "\"1.5\"", "1e3", "7"].iter().enumerate()
    {
        let one = format!(r#"{{"run_id": "{run}", "key": "one", "value": {value}, "timestamp": "{at}"}}"#);
        let (status, answer) = server.ask_bytes("POST", "runs/log-metric", one.as_bytes());
        assert_eq!(status, 200, "{one}: {answer}");
        let many = format!(
            r#"{{"run_id": "{run}", "metrics": [{{"key": "many", "value": {value}, "timestamp": {at}.0}}]}}"#
        );
        let (status, answer) = server.ask_bytes("POST", "runs/log-batch", many.as_bytes());
        assert_eq!(status, 200, "{many}: {answer}");
    }
    let spelled = ["NaN", "NaN", "-Infinity", "Infinity"].map(Value::from);
    let expected: Vec<Value> = spelled.into_iter().chain([json!(1.5), json!(1000.0), json!(7.0)]).collect();
    for key in ["one", "many"] {
        let history = server.get(&format!("metrics/get-history?run_id={run}&metric_key={key}"));
        let values: Vec<Value> =
            history["metrics"].as_array().unwrap().iter().map(|metric| metric["value"].clone()).collect();
        assert_eq!(values, expected, "{key}");
    }
}

#[test]
fn a_spike_is_on_the_chart() {
    let server = server();
    let run = server.run();
    let steps: Vec<i64> = (0..20_000).collect();
    let values: Vec<f64> = steps.iter().map(|step| if *step == 12_345 { 1e6 } else { 0.5 }).collect();
    server.store.run(&run).unwrap().series("loss").unwrap().log_columns(&steps, &steps, &values).unwrap();
    let path = format!("metrics/get-history-bulk-interval?run_ids={run}&metric_key=loss&max_results=320");
    let answer = server.get(&path);
    let metrics = answer["metrics"].as_array().unwrap();
    assert!(metrics.len() <= 320);
    let spike = json!({ "key": "loss", "value": 1e6, "timestamp": 12_345, "step": 12_345, "run_id": run });
    assert!(metrics.contains(&spike));
    assert_eq!([&metrics[0]["step"], &metrics[metrics.len() - 1]["step"]], [0, 19_999]);
}

/// What is logged between two pages moves neither.
#[test]
fn pages_of_a_history_stay() {
    let server = server();
    let run = server.run();
    let log = |step: i64| {
        let metric = json!({ "run_id": run, "key": "m", "value": step, "timestamp": 5, "step": step });
        server.post("runs/log-metric", metric);
    };
    (0..5).for_each(log);
    let mut path = format!("metrics/get-history?run_id={run}&metric_key=m&max_results=2");
    let mut steps = Vec::new();
    loop {
        let page = server.get(&path);
        steps.extend(page["metrics"].as_array().unwrap().iter().map(|m| m["step"].as_i64().unwrap()));
        log(100 + steps.len() as i64);
        let Some(token) = page["next_page_token"].as_str() else { break };
        path = format!("metrics/get-history?run_id={run}&metric_key=m&max_results=2&page_token={token}");
    }
    assert_eq!(steps, [0, 1, 2, 3, 4]);
}

/// A handle that is held open notices what this protocol does at once, and what others do within a second.
#[test]
fn a_deleted_run_is_not_written_to() {
    let server = server();
    let run = server.run();
    let metric = json!({ "run_id": run, "key": "m", "value": 1, "timestamp": 5 });
    server.post("runs/log-metric", metric.clone());
    server.post("runs/delete", json!({ "run_id": run }));
    let (status, answer) = server.ask("POST", "runs/log-metric", metric.clone());
    assert_eq!(status, 400);
    let message = answer["message"].as_str().unwrap();
    assert!(message.ends_with("must be in the 'active' state. Current state is deleted."), "{message}");
    server.post("runs/restore", json!({ "run_id": run }));
    server.post("runs/log-metric", metric);
}

#[test]
fn clients_of_mlflow_1_find_what_they_call() {
    let server = server();
    server.run();
    let listed = server.get("experiments/list?view_type=ALL");
    let names: BTreeSet<&str> =
        listed["experiments"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["Default", "mnist"]));
    server.post("registered-models/create", json!({ "name": "m" }));
    let listed = server.get("/api/2.0/preview/mlflow/registered-models/list?max_results=100");
    assert_eq!(listed["registered_models"][0]["name"], "m");
    assert_eq!(server.ask("GET", "/ajax-api/2.0/preview/mlflow/experiments/list", Value::Null).0, 200);
}

#[test]
fn a_model_is_registered_staged_and_found() {
    let server = server();
    let run = server.run();
    server.post("registered-models/create", json!({ "name": "wine", "description": "red" }));
    let source = server.get(&format!("runs/get?run_id={run}"))["run"]["info"]["artifact_uri"].clone();
    let source = format!("{}/model", source.as_str().unwrap());
    let version = json!({ "name": "wine", "source": source, "run_id": run });
    let version = server.post("model-versions/create", version)["model_version"].clone();
    assert_eq!((&version["version"], &version["status"]), (&json!("1"), &json!("READY")));
    let stage =
        json!({ "name": "wine", "version": "1", "stage": "Production", "archive_existing_versions": true });
    server.post("model-versions/transition-stage", stage);
    server.post("registered-models/alias", json!({ "name": "wine", "alias": "champion", "version": "1" }));
    let model = server.get("registered-models/get?name=wine")["registered_model"].clone();
    assert_eq!(model["latest_versions"][0]["current_stage"], "Production");
    assert_eq!(model["aliases"], json!([{ "alias": "champion", "version": "1" }]));
    let location = server.get("model-versions/get-download-uri?name=wine&version=1");
    assert_eq!(location["artifact_uri"], json!(source));
    // A server must not be talked into serving what is not the run's.
    for source in ["/etc/passwd", "mlflow-artifacts:/other/run/artifacts", "runs:/other/model"] {
        let body = json!({ "name": "wine", "source": source, "run_id": run });
        assert_eq!(server.ask("POST", "model-versions/create", body).0, 400, "{source}");
    }
}

/// Every row of MLflow's table of endpoints leads to a handler or to 501, under both prefixes.
#[test]
fn every_endpoint_of_mlflow_is_known() {
    let server = server();
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mlflow-endpoints.txt");
    let table = std::fs::read_to_string(table).unwrap();
    // Not JSON, so not this function's: a server answers them.
    let elsewhere = ["/graphql"];
    // There is no MLflow behind these paths either.
    let (mut rows, mut served) = (0, 0);
    for row in table.lines().filter(|row| !row.starts_with('#')) {
        let mut words = row.split_whitespace();
        let (method, handler) = (words.next().unwrap(), words.next().unwrap());
        for path in words.filter(|word| *word != "|") {
            if elsewhere.contains(&path) {
                continue;
            }
            rows += 1;
            let filled: Vec<&str> =
                path.split('/').map(|part| if part.starts_with('<') { "x" } else { part }).collect();
            let (status, answer) = server.ask(method, &filled.join("/"), json!({}));
            match status {
                501 => assert_eq!(answer["error_code"], "NOT_IMPLEMENTED", "{method} {path}"),
                200 | 400 | 404 => {
                    assert_ne!(answer["error_code"], "ENDPOINT_NOT_FOUND", "{method} {path} ({handler})");
                    served += 1;
                }
                _ => panic!("{method} {path} ({handler}): {status} {answer}"),
            }
        }
    }
    assert!(rows > 350 && served >= 100, "{rows} paths, {served} served");
}

#[test]
fn hostile_requests_get_answers() {
    let server = server();
    let run = server.run();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let long = "x".repeat(1 << 20);
    for body in [
        &deep,
        &format!(r#"{{"run_id": "{run}", "metrics": {deep}}}"#),
        &format!(r#"{{"run_id": "{run}", "metrics": [{{"key": {deep}}}]}}"#),
        &format!(r#"{{"run_id": "{long}"}}"#),
        &format!(r#"{{"run_id": "{run}", "key": "{long}", "value": 1, "timestamp": 1}}"#),
        &format!(r#"{{"run_id": "{run}", "key": "k", "value": 1e999, "timestamp": {}}}"#, "9".repeat(1000)),
        &"\"".repeat(1000),
        &"{\"a\":".repeat(1000),
        &r#""{\"run_id\": 5}""#.to_owned(),
    ] {
        for path in ["runs/log-batch", "runs/log-metric", "runs/set-tag", "runs/update", "experiments/create"]
        {
            // An update or a batch that names the run and says nothing else it knows is fine.
            let (status, answer) = server.ask_bytes("POST", path, body.as_bytes());
            let (shown, says_nothing) =
                (&body[..body.len().min(60)], matches!(path, "runs/log-batch" | "runs/update"));
            assert!(
                matches!(status, 400 | 404) || (status == 200 && says_nothing),
                "{path} {shown}: {answer}"
            );
        }
    }
    let data = server.store.get_run(&run).unwrap();
    assert!(data.metrics.is_empty() && data.params.is_empty() && data.tags.len() == 1, "{data:?}");
    for body in [&b"\xff\xfe"[..], b"{\"run_id\": \"\xff\"}", b"\0\0\0"] {
        assert_eq!(server.ask_bytes("POST", "runs/log-batch", body).0, 400);
        assert_eq!(server.ask_bytes("POST", "runs/log-metric", body).0, 400);
    }
    for path in [
        "artifacts/list?run_id=%ff%fe&path=..",
        "runs/get?run_id=%00",
        "runs/get?run_id=../../etc",
        &format!("runs/get?run_id={long}"),
        &"x/".repeat(10_000),
        "runs/get?&&&=&=%",
    ] {
        let (status, _) = server.ask("GET", path, Value::Null);
        assert!((400..500).contains(&status), "{}", &path[..path.len().min(60)]);
    }
}
