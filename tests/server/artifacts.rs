//! Artifacts through the proxy: every path that leads to one, and none that leads elsewhere.

use serde_json::{Value, json};

use super::served::{Response, Served, scratch, store_in};
use super::{found, new_run};

const PROXY: &str = "/api/2.0/mlflow-artifacts/artifacts";

fn put(served: &Served, path: &str, body: &[u8]) -> Response {
    served.ask("PUT", path, &[("Content-Type", "application/octet-stream")], body)
}

fn names(answer: &Value) -> Vec<&str> {
    found(answer, "files").iter().map(|file| file["path"].as_str().unwrap()).collect()
}

/// Where a run's artifacts are, below the proxy.
fn folder_of(served: &Served, run: &str) -> String {
    let answer = served.get(&format!("/api/2.0/mlflow/runs/get?run_id={run}")).json();
    let uri = answer["run"]["info"]["artifact_uri"].as_str().unwrap();
    uri.strip_prefix("mlflow-artifacts:/").expect("a proxied location").to_owned()
}

#[test]
fn go_up_and_come_down_and_are_listed() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let run = new_run(&served);
    let folder = folder_of(&served, &run);
    for (path, body) in [
        ("model/MLmodel", "flavors: {}"),
        ("empty", ""),
        ("model/data/a%20b%25.bin", "\0\u{1}"),
        ("%C3%A9.png", "picture"),
        ("model/MLmodel", "flavors: {python_function: {}}"),
    ] {
        let answer = put(&served, &format!("{PROXY}/{folder}/{path}"), body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let down = served.get(&format!("/ajax-api/2.0/mlflow-artifacts/artifacts/{folder}/{path}"));
        assert_eq!((down.status, down.text()), (200, body), "{path}");
        assert_eq!(down.header("x-content-type-options"), Some("nosniff"));
        assert!(down.header("content-disposition").unwrap().starts_with("attachment; filename="));
        let head = served.ask("HEAD", &format!("{PROXY}/{folder}/{path}"), &[], b"");
        assert_eq!(head.header("content-length"), Some(body.len().to_string().as_str()));
    }
    let kind = |path: &str| {
        let answer = served.get(&format!("{PROXY}/{folder}/{path}"));
        answer.header("content-type").unwrap().to_owned()
    };
    assert_eq!(kind("model/MLmodel"), "text/plain");
    assert_eq!(kind("%C3%A9.png"), "image/png");
    assert_eq!(kind("model/data/a%20b%25.bin"), "application/octet-stream");

    let listed = served.get(&format!("{PROXY}?path={folder}/model")).json();
    assert_eq!(names(&listed), ["MLmodel", "data"]);
    let of_run = served.get(&format!("/api/2.0/mlflow/artifacts/list?run_id={run}&path=model")).json();
    assert_eq!(names(&of_run), ["model/MLmodel", "model/data"]);
    assert_eq!(of_run["files"][0]["file_size"], 30);

    for path in ["run_id", "run_uuid"] {
        let answer = served.get(&format!("/get-artifact?{path}={run}&path=model/MLmodel"));
        assert_eq!(answer.text(), "flavors: {python_function: {}}");
    }
    let part = served.ask("GET", &format!("{PROXY}/{folder}/model/MLmodel"), &[("Range", "bytes=2-5")], b"");
    assert_eq!((part.status, part.text()), (206, "avor"));
    assert_eq!(part.header("content-range"), Some("bytes 2-5/30"));

    for (path, status) in [("model/none", 404), ("model", 400), ("empty/x", 404), ("", 404)] {
        let answer = served.get(&format!("{PROXY}/{folder}/{path}"));
        assert!([status, 400].contains(&answer.error().0), "{path}: {answer:?}");
    }
    assert_eq!(served.ask("DELETE", &format!("{PROXY}/{folder}/model"), &[], b"").status, 200);
    assert_eq!(served.get(&format!("{PROXY}/{folder}/model/MLmodel")).status, 404);
    assert_eq!(served.ask("DELETE", &format!("{PROXY}/{folder}/model"), &[], b"").status, 200, "again");
    let left = served.get(&format!("/api/2.0/mlflow/artifacts/list?run_id={run}")).json();
    assert_eq!(names(&left), ["empty", "\u{e9}.png"]);
}

/// MLflow 1.22 leaves out the slash between the proxy and the path.
#[test]
fn of_old_clients_have_no_slash() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let folder = folder_of(&served, &new_run(&served));
    assert_eq!(put(&served, &format!("{PROXY}{folder}/a.txt"), b"hello").status, 200);
    assert_eq!(served.get(&format!("{PROXY}{folder}/a.txt")).text(), "hello");
    assert_eq!(served.get(&format!("{PROXY}/{folder}/a.txt")).text(), "hello");
}

#[test]
fn of_models_are_found_by_their_names() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let run = new_run(&served);
    let folder = folder_of(&served, &run);
    put(&served, &format!("{PROXY}/{folder}/model/MLmodel"), b"of the run");
    served.post("registered-models/create", json!({ "name": "wine" }));
    for source in [format!("runs:/{run}/model"), format!("mlflow-artifacts:/{folder}/model")] {
        let body = json!({ "name": "wine", "source": source, "run_id": run });
        let version = served.post("model-versions/create", body)["model_version"]["version"].to_string();
        let version = version.trim_matches('"');
        let path = format!("/model-versions/get-artifact?name=wine&version={version}&path=MLmodel");
        assert_eq!(served.get(&path).text(), "of the run", "{source}");
    }
    for (query, status) in
        [("name=wine&version=9&path=x", 404), ("name=wine&version=x&path=x", 400), ("name=wine", 400)]
    {
        assert_eq!(served.get(&format!("/model-versions/get-artifact?{query}")).error().0, status, "{query}");
    }

    let made =
        served.post("logged-models", json!({ "experiment_id": "0", "name": "m" }))["model"]["info"].clone();
    let (id, uri) = (made["model_id"].as_str().unwrap(), made["artifact_uri"].as_str().unwrap());
    let folder = uri.strip_prefix("mlflow-artifacts:/").unwrap();
    put(&served, &format!("{PROXY}/{folder}/sub/MLmodel"), b"of itself");
    let files = format!("/ajax-api/2.0/mlflow/logged-models/{id}/artifacts");
    assert_eq!(served.get(&format!("{files}/files?artifact_file_path=sub/MLmodel")).text(), "of itself");
    let listed = served.get(&format!("{files}/directories?artifact_directory_path=sub")).json();
    assert_eq!(names(&listed), ["sub/MLmodel"]);
    assert_eq!(served.get(&format!("{files}/files")).error(), (400, "BAD_REQUEST".to_owned()));
    assert_eq!(served.get(&format!("{files}/files?artifact_file_path=../x")).status, 400);
}

/// No spelling of a path leads out of the store's artifacts, to read, to write, to list or to delete.
#[test]
fn are_inside_the_store_only() {
    let scratch = scratch();
    let store = store_in(&scratch);
    let served = Served::start(&store, &[]);
    let run = new_run(&served);
    let folder = folder_of(&served, &run);
    put(&served, &format!("{PROXY}/{folder}/here"), b"here");
    std::fs::create_dir(scratch.path().join("outside")).unwrap();
    let secret = scratch.path().join("outside/secret");
    std::fs::write(&secret, "nobody's business").unwrap();
    std::os::unix::fs::symlink(&secret, store.join("artifacts/link")).unwrap();
    std::os::unix::fs::symlink(scratch.path().join("outside"), store.join("artifacts/folder")).unwrap();

    let absolute = secret.to_str().unwrap();
    let encoded = absolute.replace('/', "%2f");
    let paths = [
        "../../outside/secret",
        "a/../../../outside/secret",
        "..%2f..%2foutside%2fsecret",
        "%2e%2e/%2e%2e/outside/secret",
        "%252e%252e%252f%252e%252e%252foutside%252fsecret",
        "..\\..\\outside\\secret",
        "%5c..%5coutside",
        "a%00/../secret",
        "secret%00.txt",
        absolute,
        encoded.as_str(),
        "file:///etc/passwd",
        "c:/windows",
        "link",
        "folder/secret",
        "folder/new",
        "a%23b",
        "../MLRS",
        "..",
    ];
    for path in paths {
        for proxy in [PROXY, "/ajax-api/2.0/mlflow-artifacts/artifacts"] {
            for slash in ["/", ""] {
                let path = format!("{proxy}{slash}{path}");
                for method in ["GET", "PUT", "DELETE"] {
                    let answer = served.ask(method, &path, &[], if method == "PUT" { b"evil" } else { b"" });
                    // An absolute path behind the slash of the proxy, or in place of it, is a path inside.
                    let is_inside = path.contains(absolute) || path.contains(&encoded);
                    match (answer.status, is_inside) {
                        (400 | 404, _) => assert!(answer.error().0 >= 400),
                        (200, true) => {}
                        _ => panic!("{method} {path}: {answer:?}"),
                    }
                    assert!(!String::from_utf8_lossy(&answer.body).contains("business"), "{path}");
                }
            }
        }
        let query: String = path.replace('\\', "%5c");
        let listed = served.get(&format!("{PROXY}?path={query}"));
        assert!(listed.status == 400 || names(&listed.json()).is_empty(), "{path}: {listed:?}");
        let got = served.get(&format!("/get-artifact?run_id={run}&path={query}"));
        assert!([400, 404].contains(&got.status), "{path}: {got:?}");
        let got = served.get(&format!("/api/2.0/mlflow/artifacts/list?run_id={run}&path={query}"));
        assert!(got.status == 400 || names(&got.json()).is_empty(), "{path}: {got:?}");
    }
    assert_eq!(served.ask("DELETE", &format!("{PROXY}/"), &[], b"").status, 501, "all of it");
    assert_eq!(served.ask("DELETE", &format!("{PROXY}/."), &[], b"").status, 400, "all of it");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "nobody's business");
    assert_eq!(std::fs::read_dir(scratch.path().join("outside")).unwrap().count(), 1);
    assert!(store.join("MLRS").is_file());
    assert_eq!(served.get(&format!("{PROXY}/{folder}/here")).text(), "here");
}

/// Whoever can send requests can also say where an experiment's artifacts are; that shows nobody this machine's files.
#[test]
fn of_other_places_are_not_served() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let outside = scratch.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    for (number, location) in
        [format!("file://{}", outside.display()), outside.display().to_string(), "s3://bucket/x".to_owned()]
            .into_iter()
            .enumerate()
    {
        let body = json!({ "name": format!("e{number}"), "artifact_location": location });
        let experiment = served.post("experiments/create", body)["experiment_id"].clone();
        let run = served.post("runs/create", json!({ "experiment_id": experiment }))["run"]["info"]["run_id"]
            .clone();
        let run = run.as_str().unwrap();
        for path in [
            "/get-artifact?path=../secret",
            "/get-artifact?path=secret",
            "/api/2.0/mlflow/artifacts/list?path=",
        ] {
            let answer = served.get(&format!("{path}&run_id={run}"));
            assert!([400, 403].contains(&answer.error().0), "{location} {path}: {answer:?}");
        }
    }
    // A location at the proxy is one inside.
    let body = json!({ "name": "ours", "artifact_location": "mlflow-artifacts:/ours" });
    let experiment = served.post("experiments/create", body)["experiment_id"].clone();
    let run =
        served.post("runs/create", json!({ "experiment_id": experiment }))["run"]["info"]["run_id"].clone();
    let run = run.as_str().unwrap();
    let folder = folder_of(&served, run);
    assert!(folder.starts_with("ours/"), "{folder}");
    put(&served, &format!("{PROXY}/{folder}/a/b.txt"), b"hello");
    assert_eq!(served.get(&format!("/get-artifact?path=a/b.txt&run_id={run}")).text(), "hello");
    let listed = served.get(&format!("/api/2.0/mlflow/artifacts/list?path=a&run_id={run}")).json();
    assert_eq!(names(&listed), ["a/b.txt"]);
}

#[test]
fn names_that_no_file_can_have_are_refused() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    assert_eq!(put(&served, &format!("{PROXY}/a/file"), b"x").status, 200);
    let long = "x".repeat(256);
    let deep = "d/".repeat(1_100) + "x";
    for path in ["a", "a/file/inside", "a/", "b/x.part-00000000000000000000000000000001", &long, &deep] {
        assert_eq!(put(&served, &format!("{PROXY}/{path}"), b"x").error().0, 400, "{path}");
    }
    let longest = "y".repeat(255);
    assert_eq!(put(&served, &format!("{PROXY}/{longest}"), b"x").status, 200);
    assert_eq!(served.get(&format!("{PROXY}/{longest}")).text(), "x");
}
