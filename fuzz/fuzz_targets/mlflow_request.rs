//! Requests of MLflow's protocol: method, path with query, body, several in a row against one store.
//!
//! The first line of the input is a method and a path, the second one a body; then the next request. `$run` stands for
//! a run that is there. Whatever is asked, the answer is JSON with a status, and none of the caller's is 500.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mlrs_db::mlflow::{Door, Protocol};
use mlrs_db::vfs::MemoryVfs;
use mlrs_db::{RunOptions, Store};

fuzz_target!(|input: &[u8]| {
    let store = Store::options().vfs(Arc::new(MemoryVfs::new())).open("/s").unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new().name("r").start_ms(1)).unwrap();
    run.log_metric("m", 1, 0.5).unwrap();
    let id = run.id().to_owned();
    let protocol = Protocol::new(store, Door::Proxy).unwrap();
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    for request in lines.chunks(2).take(8) {
        let line = String::from_utf8_lossy(request[0]).replace("$run", &id);
        let (method, path) = line.split_once(' ').unwrap_or(("POST", &line));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/api/2.0/mlflow/{path}") };
        let body = request.get(1).copied().unwrap_or_default();
        // A body that is text may name the run; any other goes in as it is.
        let body = match std::str::from_utf8(body) {
            Ok(text) => text.replace("$run", &id).into_bytes(),
            Err(_) => body.to_vec(),
        };
        let answer = protocol.answer(method, &path, &body);
        assert!(answer.status != 500, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        assert!(matches!(answer.body.first(), Some(b'{')) && answer.body.ends_with(b"}"));
    }
});
