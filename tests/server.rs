//! `mlrs-db server` over real sockets: what is served, to whom, and what clients may cost.
#![cfg(feature = "cli")]

#[path = "support/served.rs"]
mod served;

#[path = "server/artifacts.rs"]
mod artifacts;
#[path = "server/hostile.rs"]
mod hostile;
#[path = "server/many.rs"]
mod many;

use serde_json::{Value, json};

use served::{Served, command, scratch, store_in};

/// A run in the default experiment.
fn new_run(served: &Served) -> String {
    served.post("runs/create", json!({ "experiment_id": "0" }))["run"]["info"]["run_id"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn machines_ask_how_it_is() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    assert_eq!(served.get("/health").text(), "OK");
    assert_eq!(served.get("/version").text(), mlrs_db::server::MLFLOW_VERSION);
    let run = new_run(&served);
    served.post("runs/log-metric", json!({ "run_id": run, "key": "loss", "value": 1, "timestamp": 1 }));
    let metrics = served.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        "mlrs_http_requests_total{kind=\"log_metric\",status=\"200\"} 1",
        "mlrs_http_request_seconds_count{kind=\"log_metric\"} 1",
        "mlrs_open_runs 1",
        "mlrs_store_runs 1",
        "mlrs_store_points 1",
    ] {
        assert!(metrics.text().lines().any(|found| found == line), "{line}\n{}", metrics.text());
    }
    // Prometheus' format: comments, or a name, perhaps labels, and a number.
    for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("mlrs_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn the_protocol_is_below_its_prefixes() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let mut client = served.client();
    for path in [
        "/api/2.0/mlflow/experiments/get?experiment_id=0",
        "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0",
        "/api/2.0/preview/mlflow/experiments/get?experiment_id=0",
        // What MLflow 3 dropped and clients of MLflow 1 need.
        "/api/2.0/mlflow/experiments/list",
        "/api/2.0/preview/mlflow/registered-models/list",
        "/ajax-api/3.0/mlflow/server-info",
    ] {
        let answer = client.ask("GET", path, &[], b"");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let head = client.ask("HEAD", path, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    let missing = client.ask("GET", "/api/2.0/mlflow/none", &[], b"");
    assert_eq!(missing.error(), (404, "ENDPOINT_NOT_FOUND".to_owned()));
    assert_eq!(client.ask("GET", "/none", &[], b"").error().0, 404);
    assert_eq!(client.ask("DELETE", "/health", &[], b"").status, 404);
    assert_eq!(client.ask("POST", "/api/2.0/mlflow-artifacts/mpu/create/a/b", &[], b"{}").error().0, 501);
    let plain = [("Content-Type", "text/plain")];
    let refused = client.ask("POST", "/api/2.0/mlflow/runs/create", &plain, b"{\"experiment_id\": \"0\"}");
    assert_eq!(refused.error(), (400, "BAD_REQUEST".to_owned()));
    let with_charset = [("Content-Type", "application/json; charset=utf-8")];
    let body = b"{\"experiment_id\": \"0\"}";
    assert_eq!(client.ask("POST", "/api/2.0/mlflow/runs/create", &with_charset, body).status, 200);
}

#[test]
fn a_browser_gets_pages() {
    let scratch = scratch();
    let store = store_in(&scratch);
    let bare = Served::start(&store, &[]);
    let page = bare.get("/");
    assert!(page.text().contains("mlflow.set_tracking_uri") && page.text().contains("--ui DIR"));
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert_eq!(bare.get("/static-files/main.js").status, 404);
    drop(bare);

    // Pages, as MLflow's package has them, and a secret beside them.
    let build = scratch.path().join("venv/lib/python3.11/site-packages/mlflow/server/js/build");
    std::fs::create_dir_all(build.join("static/js")).unwrap();
    std::fs::write(build.join("index.html"), "<html>MLflow</html>").unwrap();
    std::fs::write(build.join("static/js/main.js"), "main()").unwrap();
    std::fs::write(build.parent().unwrap().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", build.join("link")).unwrap();
    let mut found = command(&store, &["--ui", "auto"]);
    found.env("VIRTUAL_ENV", scratch.path().join("venv"));
    for served in [Served::run(found), Served::run(command(&store, &["--ui", build.to_str().unwrap()]))] {
        assert_eq!(served.said["ui"], json!(build));
        assert_eq!(served.get("/").text(), "<html>MLflow</html>");
        let script = served.get("/static-files/static/js/main.js");
        assert_eq!((script.text(), script.status), ("main()", 200));
        assert!(script.header("content-type").unwrap().starts_with("text/javascript"));
        assert!(script.header("cache-control").unwrap().contains("max-age"));
        for outside in
            ["../secret", "static/../../secret", "%2e%2e/secret", "link", "static", "/etc/passwd", "."]
        {
            let answer = served.get(&format!("/static-files/{outside}"));
            assert_eq!(answer.status, 404, "{outside}");
        }
    }
}

#[test]
fn a_token_opens_it() {
    let scratch = scratch();
    let store = store_in(&scratch);
    let file = scratch.path().join("tokens");
    let with = |text: &str| {
        std::fs::write(&file, text).unwrap();
        command(&store, &["--ui", "off", "--auth-token-file", file.to_str().unwrap()])
    };
    for bad in ["", "\n\n", "two words\n"] {
        assert_eq!(with(bad).output().unwrap().status.code(), Some(2), "{bad:?}");
    }
    let served = Served::run(with("s3cret\nolder:one\n"));
    let path = "/api/2.0/mlflow/experiments/get?experiment_id=0";
    let ask = |value: &str| served.ask("GET", path, &[("Authorization", value)], b"").status;
    assert_eq!(ask("Bearer s3cret"), 200);
    assert_eq!(ask("bearer older:one"), 200);
    // "me:s3cret" and ":older:one" in base64.
    assert_eq!(ask("Basic bWU6czNjcmV0"), 200);
    assert_eq!(ask("Basic Om9sZGVyOm9uZQ=="), 200);
    for bad in [
        "Bearer s3cre",
        "Bearer",
        "Bearer ",
        "Basic s3cret",
        "Basic !!!!",
        "Digest s3cret",
        "s3cret",
        "Basic bWU6eA==",
    ] {
        assert_eq!(ask(bad), 401, "{bad}");
    }
    let refused = served.get(path);
    assert_eq!(refused.error(), (401, "UNAUTHENTICATED".to_owned()));
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic"));
    assert!(!refused.text().contains("s3cret"));
    for closed in ["/", "/metrics", "/version", "/static-files/x", "/api/2.0/mlflow-artifacts/artifacts/a"] {
        assert_eq!(served.get(closed).status, 401, "{closed}");
    }
    assert_eq!(served.get("/health").status, 200);
}

#[test]
fn beyond_this_machine_it_wants_a_token() {
    let scratch = scratch();
    let refused = command(&store_in(&scratch), &["--host", "0.0.0.0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--auth-token-file") && said.contains("--no-auth"), "{said}");
    let open = Served::start(&store_in(&scratch), &["--host", "0.0.0.0", "--no-auth"]);
    assert!(open.url.starts_with("http://127.0.0.1:"), "{}", open.url);
}

#[test]
fn hosts_and_origins_are_looked_at() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &["--cors-allowed-origins", "https://app.example"]);
    let port = served.address.rsplit(':').next().unwrap().to_owned();
    let path = "/api/2.0/mlflow/experiments/search";
    let body = b"{\"max_results\": 1}";
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        ("192.168.1.7:5000".to_owned(), 200),
        ("evil.example".to_owned(), 403),
        ("127.0.0.1.evil.example".to_owned(), 403),
        (String::new(), 403),
    ] {
        let answer = served.ask("POST", path, &[("Host", &host)], body);
        assert_eq!(answer.status, status, "{host}: {answer:?}");
        if status == 403 {
            assert_eq!(answer.text(), "Invalid Host header - possible DNS rebinding attack detected");
        }
        // Who only looks whether it lives need not know its name.
        assert_eq!(served.ask("GET", "/health", &[("Host", &host)], b"").status, 200);
    }
    let own = format!("http://{}", served.address);
    for (origin, status) in [
        (own.as_str(), 200),
        ("http://localhost:3000", 200),
        ("https://app.example", 200),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let answer = served.ask("POST", path, &[("Origin", origin)], body);
        assert_eq!(answer.status, status, "{origin}");
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, (status == 200).then_some(origin));
        // Reading is the browser's to refuse, which it does without that header.
        let read =
            served.ask("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", &[("Origin", origin)], b"");
        assert_eq!((read.status, read.header("access-control-allow-origin")), (200, allowed));
        let asked = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        let preflight = served.ask("OPTIONS", path, &asked, b"");
        assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, allowed));
    }
    let any = Served::start(&store_in(&scratch), &["--cors-allowed-origins", "*", "--allowed-hosts", "*"]);
    let answer = any.ask("POST", path, &[("Origin", "https://evil.example"), ("Host", "x")], body);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let port = served.address.rsplit(':').next().unwrap();
    let second = command(&store_in(&scratch), &["--port", port]).output().unwrap();
    assert_eq!(second.status.code(), Some(2), "given twice");
    let mut plain = std::process::Command::new(env!("CARGO_BIN_EXE_mlrs-db"));
    let second =
        plain.arg("--store").arg(store_in(&scratch)).args(["server", "--port", port]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains(&served.address));
}

#[test]
fn stopping_ends_what_was_begun() {
    let scratch = scratch();
    let store = store_in(&scratch);
    let mut served = Served::start(&store, &[]);
    let run = new_run(&served);
    served.post("runs/log-metric", json!({ "run_id": run, "key": "loss", "value": 0.5, "timestamp": 7 }));
    let mut uploading = served.client();
    let path = "/api/2.0/mlflow-artifacts/artifacts/e/file";
    uploading.send("PUT", path, &[("Content-Length", "10")], b"01234").unwrap();
    let idle = served.client();
    let mut waiting = served.client();
    waiting.send("GET", "/health", &[], b"").unwrap();
    waiting.receive(false).unwrap();
    served.terminate();
    // It takes no more connections once it heard.
    while std::net::TcpStream::connect(&served.address).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::io::Write::write_all(&mut uploading.stream, b"56789").unwrap();
    assert_eq!(uploading.receive(false).unwrap().status, 200);
    assert!(served.ended().success());
    drop((idle, waiting));

    let store = mlrs_db::Store::options().read_only(true).open(&store).unwrap();
    assert_eq!(store.get_run(&run).unwrap().metrics["loss"].value, 0.5);
    let file = store.artifacts_path("e/file").unwrap();
    assert_eq!(std::fs::read(file).unwrap(), b"0123456789");
    let live = std::fs::read_dir(store.path().join("live")).unwrap().count();
    assert_eq!(live, 0, "the store was closed");
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let scratch = scratch();
    let mut served = Served::start(&store_in(&scratch), &["--drain", "200ms"]);
    let mut uploading = served.client();
    let path = "/api/2.0/mlflow-artifacts/artifacts/e/file";
    uploading.send("PUT", path, &[("Content-Length", "10")], b"01234").unwrap();
    new_run(&served);
    served.terminate();
    assert!(served.ended().success());
    assert!(uploading.receive(false).is_err());
    let store = mlrs_db::Store::open(store_in(&scratch)).unwrap();
    assert_eq!(store.list_artifacts_below("e").unwrap(), [], "half an upload is nobody's artifact");
}

#[test]
fn the_first_line_says_what_to_do() {
    let scratch = scratch();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mlrs-db"));
    command.arg("--store").arg(store_in(&scratch)).args(["server", "--port", "0", "--ui", "off"]);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut next = || lines.next().unwrap().unwrap();
    let (first, _, third) = (next(), next(), next());
    child.kill().unwrap();
    child.wait().unwrap();
    let url = first.rsplit(' ').next().unwrap();
    assert!(first.contains("mlrs-db serves") && url.starts_with("http://127.0.0.1:"), "{first}");
    assert_eq!(third.trim(), format!("client  mlflow.set_tracking_uri(\"{url}\")"));
}

/// What the answer of a search holds.
fn found<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}
