//! MLflow's own clients, unmodified, against `mlrs-db server`: the tutorial's quickstart, artifacts, searches, registry.
//!
//! What they do is in `tests/mlflow/use_server.py`. A version that is not installed is a failure, not a pass.
#![cfg(feature = "cli")]

mod mlflow;

#[path = "support/served.rs"]
mod served;

use serde_json::json;

use served::{Served, command};

const STEPS: [&str; 7] =
    ["quickstart", "artifacts", "experiments", "batches_and_searches", "errors", "registry", "logged_models"];

fn used_by(version: &str, served: &Served, directory: &std::path::Path) {
    std::fs::create_dir(directory).unwrap();
    let answer = mlflow::script(version, "use_server.py", [served.url.as_ref(), directory.as_os_str()]);
    assert_eq!(answer["mlflow"], version);
    for (step, traceback) in answer["failed"].as_object().unwrap() {
        println!("MLflow {version}, {step}:\n{}", traceback.as_str().unwrap());
    }
    assert_eq!(answer["failed"], json!({}), "MLflow {version}");
    assert_eq!(answer["done"], json!(STEPS));
}

#[test]
fn clients_of_three_generations_log_to_one_server() {
    let scratch = mlflow::scratch();
    let store = scratch.path().join("store");
    let mut served = Served::start(&store, &[]);
    for version in mlflow::VERSIONS {
        used_by(version, &served, &scratch.path().join(version));
    }
    served.stop();
    let verified = mlrs_db::Store::open(&store).unwrap().verify(&mut |_| ()).unwrap();
    assert!(verified.is_sound(), "{verified:?}");
}

/// The token goes where MLflow's clients put theirs. (That of 1.22 sends none with artifacts.)
#[test]
fn clients_send_their_token() {
    let scratch = mlflow::scratch();
    let file = scratch.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let served =
        Served::run(command(&scratch.path().join("store"), &["--auth-token-file", file.to_str().unwrap()]));
    let code = "import sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]); mlflow.log_metric('m', 1); \
                mlflow.log_artifact(sys.argv[2]); mlflow.end_run()";
    for version in &mlflow::VERSIONS[1..] {
        let run = |variables: &[(&str, &str)]| {
            let mut python = std::process::Command::new(mlflow::python(version));
            python.env("MLFLOW_DISABLE_TELEMETRY", "true").env("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1");
            python.envs(variables.iter().copied()).args(["-c", code, &served.url, file.to_str().unwrap()]);
            python.current_dir(scratch.path()).output().unwrap()
        };
        for variables in [
            &[("MLFLOW_TRACKING_TOKEN", "s3cret")][..],
            &[("MLFLOW_TRACKING_USERNAME", "me"), ("MLFLOW_TRACKING_PASSWORD", "s3cret")],
        ] {
            let output = run(variables);
            assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let output = run(&[("MLFLOW_TRACKING_TOKEN", "wrong")]);
        assert!(!output.status.success(), "{version}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("not authenticated"), "{version}");
    }
}
