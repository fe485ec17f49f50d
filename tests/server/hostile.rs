//! Requests that nobody means well with, and clients that are slow or never done.

use std::io::{Read, Write};

use serde_json::json;

use super::served::{Served, scratch, store_in};
use super::{found, new_run};

/// What a server may take beyond what it took before, in KiB, while bodies of any length pass through it.
const MORE_KIB: u64 = 32 * 1024;

#[test]
fn nonsense_is_refused_and_the_next_request_answered() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let run = new_run(&served);
    let deep = format!("{{\"run_id\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let huge_step = format!(
        r#"{{"run_id": "{run}", "key": "k", "value": 1, "timestamp": 1, "step": {}}}"#,
        "9".repeat(400)
    );
    let huge_value =
        format!(r#"{{"run_id": "{run}", "key": "k", "value": "x{}", "timestamp": 1}}"#, "9".repeat(5_000));
    for body in [
        deep.as_bytes(),
        huge_step.as_bytes(),
        huge_value.as_bytes(),
        b"{\"run_id\": \"\xff\xfe\", \"key\": \"k\", \"value\": 1, \"timestamp\": 1}",
        b"\xff\xfe\x00",
        b"{",
        b"null",
        b"[1, 2]",
        b"\"text\"",
    ] {
        let answer = served.ask("POST", "/api/2.0/mlflow/runs/log-metric", &[], body);
        assert!([400, 404].contains(&answer.error().0), "{answer:?}");
    }
    for path in [
        "/api/2.0/mlflow/runs/get?run_id=%ff%fe%00",
        "/api/2.0/mlflow/%00",
        "/api/../api/2.0/mlflow/x",
        "//etc/passwd",
        "/api/2.0/mlflow/experiments/get?experiment_id=99999999999999999999999999",
    ] {
        let answer = served.get(path);
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
    }
    // No HTTP at all, or too much of it.
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"
            .to_vec(),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
        "GET / HTTP/1.1\r\n".bytes().chain("X: y\r\n".repeat(1_000).bytes()).chain(*b"\r\n").collect(),
    ] {
        let mut client = served.client();
        // It may be cut before all is sent.
        let _ = client.stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = client.stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let twice = [("Host", "localhost"), ("Host", "localhost")];
    assert_eq!(served.ask("GET", "/", &twice, b"").status, 403);
    served.post("runs/log-metric", json!({ "run_id": run, "key": "k", "value": 1, "timestamp": 1 }));
}

#[test]
fn bodies_that_are_too_long_are_told_so() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &["--max-json", "100k", "--max-artifact", "1MiB"]);
    let before = served.memory_kib("VmRSS");
    let path = "/api/2.0/mlflow/runs/log-batch";
    let at_limit = format!("{{\"run_id\": \"{}\"}}", "x".repeat(99_000));
    assert_eq!(served.ask("POST", path, &[], at_limit.as_bytes()).error().0, 400, "long, but read");
    let too_long = vec![b' '; 100_001];
    assert_eq!(served.ask("POST", path, &[], &too_long).error().0, 413);
    // Without saying how long, and a whole gigabyte announced and sent: the client comes to read the answer.
    let gigabyte = std::env::var("MLRS_SERVER_BYTES").map_or(64 << 20, |text| text.parse().unwrap());
    for chunked in [true, false] {
        let mut client = served.client();
        let length = gigabyte.to_string();
        let header =
            if chunked { ("Transfer-Encoding", "chunked") } else { ("Content-Length", length.as_str()) };
        client.send("POST", path, &[header, ("Content-Type", "application/json")], b"").unwrap();
        let piece = vec![b' '; 1 << 20];
        for _ in 0..gigabyte >> 20 {
            if chunked {
                client.stream.write_all(b"100000\r\n").unwrap();
            }
            client.stream.write_all(&piece).unwrap();
            if chunked {
                client.stream.write_all(b"\r\n").unwrap();
            }
        }
        if chunked {
            client.stream.write_all(b"0\r\n\r\n").unwrap();
        }
        assert_eq!(client.receive(false).unwrap().error().0, 413, "chunked: {chunked}");
    }
    let artifact = "/api/2.0/mlflow-artifacts/artifacts/a/b";
    assert_eq!(served.ask("PUT", artifact, &[], &vec![0; 1 << 20]).status, 200);
    assert_eq!(served.ask("PUT", artifact, &[], &vec![1; (1 << 20) + 1]).error().0, 413);
    assert_eq!(served.get(artifact).body, vec![0; 1 << 20], "what was there stays");
    // One that asks first is told at once.
    let mut asking = served.client();
    let headers = [("Content-Length", "1000000000"), ("Expect", "100-continue")];
    asking.send("POST", path, &headers, b"").unwrap();
    assert_eq!(asking.receive(false).unwrap().status, 413);
    let grown = served.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < MORE_KIB, "{grown} KiB more");
}

/// 256 MiB, or as many bytes as `MLRS_SERVER_BYTES` says.
#[test]
fn an_artifact_of_any_length_passes_through_little_memory() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let bytes: u64 = std::env::var("MLRS_SERVER_BYTES").map_or(256 << 20, |text| text.parse().unwrap());
    let piece: Vec<u8> = (0..1u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let before = served.memory_kib("VmRSS");
    let mut client = served.client();
    let path = "/api/2.0/mlflow-artifacts/artifacts/large/file";
    client.send("PUT", path, &[("Content-Length", &bytes.to_string())], b"").unwrap();
    for _ in 0..bytes >> 20 {
        client.stream.write_all(&piece).unwrap();
    }
    assert_eq!(client.receive(false).unwrap().status, 200);
    client.send("GET", path, &[], b"").unwrap();
    let mut head = [0u8; 1];
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        client.stream.read_exact(&mut head).unwrap();
        seen.push(head[0]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 200"));
    let mut buffer = vec![0u8; 1 << 20];
    for _ in 0..bytes >> 20 {
        client.stream.read_exact(&mut buffer).unwrap();
        assert!(buffer == piece);
    }
    let grown = served.memory_kib("VmHWM").saturating_sub(before);
    println!("{} MiB up and down; {grown} KiB more memory", bytes >> 20);
    assert!(grown < MORE_KIB, "{grown} KiB more");
}

#[test]
fn slow_clients_wait_for_themselves_alone() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let run = new_run(&served);
    let mut slow = Vec::new();
    for number in 0..60 {
        let mut client = served.client();
        match number % 4 {
            // Half a head; half a body; half an artifact; an answer that nobody reads.
            0 => client.stream.write_all(b"GET /health HTTP/1.1\r\nHo").unwrap(),
            1 => client
                .send("POST", "/api/2.0/mlflow/runs/create", &[("Content-Length", "100000")], b"{")
                .unwrap(),
            2 => client
                .send(
                    "PUT",
                    &format!("/api/2.0/mlflow-artifacts/artifacts/s/{number}"),
                    &[("Content-Length", "9")],
                    b"x",
                )
                .unwrap(),
            _ => client.send("GET", "/metrics", &[], b"").unwrap(),
        }
        slow.push(client);
    }
    for step in 0..100 {
        let body = json!({ "run_id": run, "key": "loss", "value": step, "timestamp": 1, "step": step });
        served.post("runs/log-metric", body);
    }
    let history =
        served.get(&format!("/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=loss")).json();
    assert_eq!(found(&history, "metrics").len(), 100);
    // Those that go on are answered.
    for (number, client) in slow.iter_mut().enumerate() {
        match number % 4 {
            0 => client.stream.write_all(b"st: localhost\r\n\r\n").unwrap(),
            1 => continue,
            2 => client.stream.write_all(b"xxxxxxxx").unwrap(),
            _ => {}
        }
        assert_eq!(client.receive(false).unwrap().status, 200, "{number}");
    }
}
