//! Many clients and many runs: nothing that was acknowledged is lost, and memory stays small.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use super::new_run;
use super::served::{Served, scratch, store_in};

const CLIENTS: usize = 64;
/// What a server may take of memory of its own after thousands of runs, in KiB. Pages of its code and of mapped files
/// are printed with it, and not judged: the build decides how many there are.
const OWN_KIB_MAX: u64 = 40 * 1024;

#[test]
fn what_was_acknowledged_to_64_clients_survives_a_kill() {
    let scratch = scratch();
    let store = store_in(&scratch);
    let mut served = Served::start(&store, &[]);
    let runs: Vec<String> = (0..CLIENTS).map(|_| new_run(&served)).collect();
    let acknowledged: Vec<AtomicU64> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    let (all, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (run, acknowledged) in runs.iter().zip(&acknowledged) {
            let (mut client, all, is_over) = (served.client(), &all, &is_over);
            scope.spawn(move || {
                for step in 0u64.. {
                    let point =
                        json!({ "key": "loss", "value": step, "timestamp": 1_000 + step, "step": step });
                    let (path, body) = match step % 8 {
                        7 => ("log-batch", json!({ "run_id": run, "metrics": [point] })),
                        _ => {
                            let mut body = point;
                            body["run_id"] = json!(run);
                            ("log-metric", body)
                        }
                    };
                    let path = format!("/api/2.0/mlflow/runs/{path}");
                    let sent = client.send("POST", &path, &[], body.to_string().as_bytes());
                    match sent.and_then(|()| client.receive(false)) {
                        Ok(answer) => assert_eq!(answer.status, 200, "{answer:?}"),
                        // Only the kill may cut a connection.
                        Err(error) => {
                            assert!(is_over.load(Ordering::SeqCst), "{error}");
                            return;
                        }
                    }
                    acknowledged.store(step + 1, Ordering::SeqCst);
                    all.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while all.load(Ordering::SeqCst) < 10_000 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        is_over.store(true, Ordering::SeqCst);
        served.kill();
    });
    // The next server brings it home.
    let served = Served::start(&store, &[]);
    for (run, acknowledged) in runs.iter().zip(&acknowledged) {
        let acknowledged = acknowledged.load(Ordering::SeqCst);
        let history =
            served.get(&format!("/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=loss")).json();
        let steps: Vec<u64> =
            super::found(&history, "metrics").iter().map(|point| point["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, (0..steps.len() as u64).collect::<Vec<_>>(), "each once, in order");
        // The request that was under way may have been answered by nobody.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&(steps.len() as u64)),
            "{acknowledged} {}",
            steps.len()
        );
    }
    println!("{CLIENTS} clients, {} requests acknowledged before the kill", all.load(Ordering::SeqCst));
}

/// What a point costs that is logged by a request of its own; printed, as a time is nothing to assert.
#[test]
fn every_request_on_a_kept_connection_is_a_point() {
    const POINTS: usize = 3_000;
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let (run, mut client) = (new_run(&served), served.client());
    let mut took = Vec::with_capacity(POINTS);
    for step in 0..POINTS {
        let body = json!({ "run_id": run, "key": "loss", "value": 0.5, "timestamp": 1, "step": step });
        let began = std::time::Instant::now();
        client.post("runs/log-metric", body);
        took.push(began.elapsed());
    }
    let history =
        served.get(&format!("/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=loss")).json();
    assert_eq!(super::found(&history, "metrics").len(), POINTS);
    took.sort_unstable();
    let (median, rare) = (took[POINTS / 2], took[POINTS * 99 / 100]);
    println!(
        "log-metric over a kept connection: {median:?} (median), {rare:?} (one in a hundred takes more)"
    );
}

#[test]
fn thousands_of_runs_take_little_memory() {
    let scratch = scratch();
    let served = Served::start(&store_in(&scratch), &[]);
    let runs = std::env::var("MLRS_SERVER_RUNS").map_or(2_000, |text| text.parse().unwrap());
    let mut client = served.client();
    for number in 0..runs {
        let run = client.post("runs/create", json!({ "experiment_id": "0", "start_time": number }));
        let run = run["run"]["info"]["run_id"].clone();
        let metrics: Vec<_> = (0..20)
            .map(|step| json!({ "key": format!("m{}", step % 4), "value": 0.5, "timestamp": step, "step": step }))
            .collect();
        let params: Vec<_> =
            (0..5).map(|param| json!({ "key": format!("p{param}"), "value": number.to_string() })).collect();
        client.post("runs/log-batch", json!({ "run_id": run, "metrics": metrics, "params": params }));
        client.post("runs/update", json!({ "run_id": run, "status": "FINISHED", "end_time": number }));
    }
    let search = json!({ "experiment_ids": ["0"], "max_results": 100, "order_by": ["metrics.m0 DESC"] });
    assert_eq!(super::found(&client.post("runs/search", search), "runs").len(), 100);
    let (own, resident) = (served.memory_kib("RssAnon"), served.memory_kib("VmRSS"));
    println!("{runs} runs: {own} KiB of its own, {resident} KiB resident with its code and mapped files");
    assert!(own <= OWN_KIB_MAX, "{own} KiB");
}
