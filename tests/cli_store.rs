//! The program on a real store: what is logged is listed, found, printed, drawn, checked and taken care of.
#![cfg(feature = "cli")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A fresh store and the program on it.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        assert_eq!(fixture.run(&["init"]).status.code(), Some(0));
        fixture
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlrs-db"));
        command
            .args(arguments)
            .env("MLRS_DB_STORE", self.store())
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as JSON lines.
    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.text(&[arguments, &["--json"]].concat());
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect()
    }

    /// `log` with this input.
    fn log(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(&[&["log"], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Logs and gives the id of the run.
    fn logged(&self, arguments: &[&str], input: &str) -> String {
        let output = self.log(arguments, input);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const CSV: &str = "step,timestamp,loss,acc\n0,1000,1.0,\n1,2000,0.5,0.25\n2,3000,nan,0.75\n";

#[test]
fn init_makes_a_store_once_and_leaves_it_alone_after_that() {
    let fixture = Fixture::new();
    assert!(fixture.store().join("MLRS").is_file());
    let again = fixture.text(&["init"]);
    assert!(again.contains("is a store already"), "{again}");
    let other = fixture.dir.path().join("other");
    let text = fixture.text(&["init", other.to_str().unwrap()]);
    assert!(text.contains("is an empty store now") && other.join("MLRS").is_file(), "{text}");
}

#[test]
fn csv_goes_in_and_comes_out() {
    let fixture = Fixture::new();
    let run =
        fixture.logged(&["-e", "mnist", "--run", "lr-3", "--param", "lr=0.1", "--tag", "team=vision"], CSV);
    assert_eq!(run.len(), 32, "{run}");

    let listed = fixture.text(&["runs", "ls", "--metric", "acc", "--param", "lr"]);
    let mut lines = listed.lines();
    assert_eq!(lines.next(), Some("run_id\tname\texperiment\tstatus\tstarted\tduration\tacc\tlr"));
    let fields: Vec<&str> = lines.next().unwrap().split('\t').collect();
    assert_eq!(
        (&fields[..4], &fields[6..]),
        (&[run.as_str(), "lr-3", "mnist", "FINISHED"][..], &["0.75", "0.1"][..])
    );
    assert_eq!(lines.next(), None);

    assert_eq!(
        fixture.text(&["metrics", "get", &run, "loss"]),
        "step\ttimestamp\tvalue\n0\t1970-01-01T00:00:01.000Z\t1.0\n1\t1970-01-01T00:00:02.000Z\t0.5\n\
         2\t1970-01-01T00:00:03.000Z\tNaN\n"
    );
    assert_eq!(
        fixture.text(&["metrics", "get", &run, "acc", "--csv"]),
        "step,timestamp_ms,acc\n1,2000,0.25\n2,3000,0.75\n"
    );
    assert_eq!(
        fixture.text(&["metrics", "get", &run, "loss", "--json", "--steps", "2.."]),
        "{\"step\":2,\"timestamp_ms\":3000,\"value\":\"NaN\"}\n"
    );
    assert_eq!(
        fixture
            .text(&["metrics", "get", &run, "loss", "--csv", "--since", "1500", "--until", "3000"])
            .lines()
            .count(),
        2
    );
    assert_eq!(fixture.text(&["metrics", "get", &run, "loss", "--csv", "--limit", "1"]).lines().count(), 2);

    let metrics = fixture.json(&["metrics", "ls", &run]);
    assert_eq!(metrics.len(), 2);
    let loss = metrics.iter().find(|metric| metric["key"] == "loss").unwrap();
    assert_eq!(
        (&loss["points"], &loss["latest"]["value"], &loss["min"]),
        (&3.into(), &"NaN".into(), &0.5.into())
    );
}

#[test]
fn json_lines_count_steps_themselves_and_a_run_goes_on() {
    let fixture = Fixture::new();
    let run =
        fixture.logged(&["--status", "running"], "{\"loss\":1}\n{\"loss\":2,\"step\":10}\n{\"loss\":3}\n");
    let csv = |run: &str| fixture.text(&["metrics", "get", run, "loss"]);
    let steps = |text: &str| -> Vec<String> {
        text.lines().skip(1).map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    };
    assert_eq!(steps(&csv(&run)), ["0", "10", "11"]);
    assert_eq!(fixture.json(&["runs", "show", &run])[0]["status"], "RUNNING");
    assert_eq!(fixture.json(&["runs", "show", &run])[0]["end_ms"], Value::Null);

    // The start of the id is enough; steps go on after the last one.
    let same = fixture.logged(&["--run-id", &run[..8], "--param", "more=1"], "{\"loss\":4}\n");
    assert_eq!(same, run);
    assert_eq!(steps(&csv(&run)), ["0", "10", "11", "12"]);
    let shown = &fixture.json(&["runs", "show", &run])[0];
    assert_eq!((&shown["status"], &shown["params"]["more"]), (&"FINISHED".into(), &"1".into()));
}

#[test]
fn bad_lines_are_named_and_the_good_ones_logged() {
    let fixture = Fixture::new();
    let output = fixture.log(&["--run", "mixed"], "step,loss\n0,1.0\n1,oops\nx,2\n3,0.25\n");
    assert_eq!(output.status.code(), Some(1));
    let complaints = stderr(&output);
    for part in [
        "line 3: column 2 ('loss'): 'oops' is no number",
        "line 4: the step 'x' is no integer",
        "2 lines refused",
    ] {
        assert!(complaints.contains(part), "{part}\n---\n{complaints}");
    }
    assert_eq!(fixture.text(&["metrics", "get", "mixed", "loss", "--csv"]).lines().count(), 3);
    assert_eq!(fixture.json(&["runs", "show", "mixed"])[0]["status"], "FINISHED");
}

#[test]
fn the_id_is_told_before_the_first_line() {
    let fixture = Fixture::new();
    let mut child = fixture
        .command(&["log"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut id = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut id).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"loss\":0.5}\n").unwrap();
    stdin.flush().unwrap();
    // A line is readable by another process as soon as it is taken in, long before the input ends.
    let id = id.trim();
    let seen = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(25));
        let output = fixture.run(&["metrics", "get", id, "loss", "--csv"]);
        String::from_utf8_lossy(&output.stdout).lines().count() == 2
    });
    assert!(seen, "the point did not show up");
    assert_eq!(fixture.json(&["runs", "show", id])[0]["status"], "RUNNING");
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert_eq!(fixture.json(&["runs", "show", id])[0]["status"], "FINISHED");
}

#[test]
fn searches_filter_and_order() {
    let fixture = Fixture::new();
    for (name, loss) in [("a", 0.5), ("b", 0.1), ("c", 0.9)] {
        fixture.logged(
            &["-e", "x", "--run", name, "--param", &format!("name={name}")],
            &format!("loss\n{loss}\n"),
        );
    }
    let names = |arguments: &[&str]| -> Vec<String> {
        fixture.json(arguments).iter().map(|run| run["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        names(&["runs", "search", "metrics.loss < 0.6", "--order-by", "metrics.loss ASC"]),
        ["b", "a"]
    );
    assert_eq!(
        names(&["runs", "search", "params.name = 'a' OR params.name = 'c'", "-o", "metrics.loss DESC"]),
        ["c", "a"]
    );
    assert_eq!(names(&["runs", "ls", "-e", "x", "-o", "metrics.loss ASC", "--limit", "2"]), ["b", "a"]);
    assert_eq!(names(&["runs", "ls", "--view", "deleted"]), [""; 0]);
    let cut = fixture.run(&["runs", "ls", "--limit", "2"]);
    assert!(stderr(&cut).contains("the first 2 runs; --limit 0 prints all"), "{}", stderr(&cut));
    let wrong = fixture.run(&["runs", "search", "loss <<< 1"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
}

#[test]
fn experiments_are_listed_and_shown() {
    let fixture = Fixture::new();
    fixture.logged(&["-e", "mnist"], "loss\n1\n");
    fixture.logged(&["-e", "mnist", "--status", "failed"], "loss\n1\n");
    let listed = fixture.json(&["experiments", "ls", "--filter", "name LIKE 'mn%'"]);
    assert_eq!(listed.len(), 1);
    let id = listed[0]["id"].as_str().unwrap();
    let shown = &fixture.json(&["experiments", "show", "mnist"])[0];
    assert_eq!(
        (&shown["id"], &shown["runs"]["FINISHED"], &shown["runs"]["FAILED"]),
        (&id.into(), &1.into(), &1.into())
    );
    assert_eq!(&fixture.json(&["experiments", "show", id])[0], shown);
    assert!(fixture.text(&["experiments", "show", "mnist"]).starts_with("name\tmnist\n"));
}

#[test]
fn artifacts_without_a_given_place_are_shown_inside_the_store() {
    let fixture = Fixture::new();
    let run = fixture.logged(&["-e", "mnist"], CSV);
    let shown = &fixture.json(&["experiments", "show", "mnist"])[0];
    let uid = shown["uid"].as_str().unwrap();
    let location = format!("file://{}/artifacts/{uid}", fixture.store().display());
    assert_eq!(shown["artifact_location"], location.as_str());
    let listed = fixture.json(&["experiments", "ls", "--filter", "name = 'mnist'"]);
    assert_eq!(listed[0]["artifact_location"], location.as_str());
    let text = fixture.text(&["experiments", "show", "mnist"]);
    assert!(text.lines().any(|line| line == format!("artifact_location\t{location}")), "{text}");

    let uri = format!("{location}/{run}/artifacts");
    for arguments in
        [&["runs", "ls"][..], &["runs", "search", "metrics.acc > 0"], &["runs", "show", run.as_str()]]
    {
        assert_eq!(fixture.json(arguments)[0]["artifact_uri"], uri.as_str(), "{arguments:?}");
    }
    let text = fixture.text(&["runs", "show", &run]);
    assert!(text.lines().any(|line| line == format!("artifact_uri\t{uri}")), "{text}");
}

#[test]
fn a_chart_shows_the_spike() {
    let fixture = Fixture::new();
    let lines: String =
        (0..2_000).map(|i| format!("{{\"loss\":{}}}\n", if i == 777 { 50 } else { 1 })).collect();
    let run = fixture.logged(&[], &lines);
    let chart = fixture.text(&["metrics", "plot", &run, "loss", "--ascii", "--width", "60", "--height", "8"]);
    assert!(chart.contains("2,000 points, min 1 at step 0, max 50 at step 777, last 1"), "{chart}");
    assert!(chart.lines().nth(1).unwrap().contains('*'), "{chart}");
    assert!(chart.lines().skip(1).all(|line| line.chars().count() <= 60), "{chart}");
    let json = &fixture.json(&["metrics", "plot", &run, "loss"])[0];
    assert_eq!((&json["points"], &json["max"]["x"]), (&2_000.into(), &777.into()));
    let nothing = fixture.run(&["metrics", "plot", &run, "loss", "--steps", "5000.."]);
    assert_eq!((nothing.status.code(), stderr(&nothing).as_str()), (Some(0), "no points in this range\n"));
}

#[test]
fn what_does_not_exist_is_exit_code_3_with_advice() {
    let fixture = Fixture::new();
    let run = fixture.logged(&[], "loss\n1\n");
    for (arguments, advice) in [
        (&["runs", "show", "no-such-run"][..], "mlrs-db runs ls"),
        (&["runs", "show", "ffffffff"], "mlrs-db runs ls"),
        (&["experiments", "show", "nothing"], "mlrs-db experiments ls"),
        (&["runs", "ls", "-e", "nothing"], "mlrs-db experiments ls"),
        (&["metrics", "get", &run, "nothing"], "mlrs-db metrics ls"),
        (&["metrics", "plot", &run, "nothing"], "mlrs-db metrics ls"),
        (&["log", "--run-id", "no-such-run"], "mlrs-db runs ls"),
        (&["import", "/no/such/tree"], ""),
    ] {
        let output = fixture.run(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?} {}", stderr(&output));
        assert!(output.stdout.is_empty() && stderr(&output).contains(advice), "{}", stderr(&output));
    }
}

#[test]
fn stats_verify_compact_and_gc_answer() {
    let fixture = Fixture::new();
    fixture.logged(&["-e", "x"], CSV);
    fixture.logged(&["-e", "x"], CSV);
    let stats = &fixture.json(&["stats"])[0];
    assert_eq!((&stats["runs"], &stats["points"]), (&2.into(), &10.into()));
    assert!(fixture.text(&["stats"]).contains("\npoints\t10\n"));

    let verified = &fixture.json(&["verify"])[0];
    assert_eq!((&verified["sound"], &verified["points"]), (&true.into(), &10.into()));
    fixture.json(&["compact"]);
    let verified = &fixture.json(&["verify"])[0];
    assert_eq!((&verified["sound"], &verified["points"]), (&true.into(), &10.into()));

    let report = &fixture.json(&["gc", "--dry-run", "--older-than", "30d"])[0];
    assert_eq!((&report["dry_run"], &report["runs"]), (&true.into(), &Value::Array(Vec::new())));
    let words = fixture.run(&["gc"]);
    assert!(stderr(&words).contains("removed 0 runs"), "{}", stderr(&words));
}

#[test]
fn damage_is_exit_code_4_with_file_and_offset() {
    let fixture = Fixture::new();
    let lines: String = (0..5_000).map(|i| format!("{{\"loss\":{}}}\n", f64::from(i).sin())).collect();
    fixture.logged(&[], &lines);
    let segments = std::fs::read_dir(fixture.store().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segments.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&segment, bytes).unwrap();

    let output = fixture.run(&["verify"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let name = segment.file_name().unwrap().to_str().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("damage\t") && line.contains(name)), "{text}");
    let json = fixture.run(&["verify", "--json"]);
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &report["sound"]), (Some(4), &false.into()));
    assert!(
        report["findings"].as_array().unwrap().iter().any(|finding| finding["offset"].is_u64()),
        "{report}"
    );
}

#[test]
fn a_closed_pipe_ends_quietly_and_loses_nothing() {
    let fixture = Fixture::new();
    let lines: String = (0..50_000).map(|i| format!("{{\"loss\":{i}}}\n")).collect();
    let run = fixture.logged(&[], &lines);
    for arguments in [&["metrics", "get", &run, "loss"][..], &["runs", "ls"], &["stats", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = fixture.command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{arguments:?}");
    }
    // Nobody reads the id, but the points are logged.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = fixture
        .command(&["log", "--run", "unread"])
        .stdin(Stdio::piped())
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"loss\":7}\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(fixture.text(&["metrics", "get", "unread", "loss", "--csv"]).lines().count(), 2);
}

#[test]
fn a_tree_goes_in_and_comes_out() {
    let fixture = Fixture::new();
    let tree = fixture.dir.path().join("mlruns");
    let run_dir = tree.join("1/00112233445566778899aabbccddeeff");
    for folder in ["metrics", "params", "tags", "artifacts"] {
        std::fs::create_dir_all(run_dir.join(folder)).unwrap();
    }
    let write = |path: PathBuf, text: &str| std::fs::write(path, text).unwrap();
    write(
        tree.join("1/meta.yaml"),
        "artifact_location: file:///elsewhere/1\ncreation_time: 1700000000000\nexperiment_id: '1'\n\
         last_update_time: 1700000000000\nlifecycle_stage: active\nname: mnist\n",
    );
    write(
        run_dir.join("meta.yaml"),
        "artifact_uri: file:///elsewhere/1/00112233445566778899aabbccddeeff/artifacts\nend_time: 1700000001000\n\
         entry_point_name: ''\nexperiment_id: '1'\nlifecycle_stage: active\n\
         run_id: 00112233445566778899aabbccddeeff\nrun_name: first\nrun_uuid: 00112233445566778899aabbccddeeff\n\
         source_name: ''\nsource_type: 4\nsource_version: ''\nstart_time: 1700000000000\nstatus: 3\ntags: []\n\
         user_id: ada\n",
    );
    write(run_dir.join("metrics/loss"), "1700000000100 1.5 0\n1700000000200 0.5 1\n");
    write(run_dir.join("params/lr"), "0.1");

    let report = &fixture.json(&["import", tree.to_str().unwrap(), "--dry-run"])[0];
    assert_eq!((&report["dry_run"], &report["points"]), (&true.into(), &2.into()));
    assert_eq!(fixture.json(&["runs", "ls"]).len(), 0);
    let report = &fixture.json(&["import", tree.to_str().unwrap()])[0];
    assert_eq!(
        (&report["runs"], &report["points"], &report["problems"]),
        (&1.into(), &2.into(), &Value::Array(Vec::new()))
    );
    assert!(report["bytes_stored"].as_u64().unwrap() > 0, "{report}");
    assert!(fixture.text(&["runs", "show", "0011"]).contains("\nmetric.loss\t0.5\n"));

    let out = fixture.dir.path().join("again");
    let report = &fixture.json(&["export", out.to_str().unwrap()])[0];
    assert_eq!((&report["runs"], &report["left_out_total"]), (&1.into(), &0.into()));
    let diff = Command::new("diff").arg("-r").arg(&tree).arg(&out).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));

    let refused = fixture.run(&["export", out.to_str().unwrap()]);
    assert_ne!(refused.status.code(), Some(0), "a directory that is not empty is not written to");
    fixture.json(&["export", out.to_str().unwrap(), "--overwrite"]);
}
