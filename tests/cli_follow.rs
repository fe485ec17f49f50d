//! `tail`, `top`, `runs reap`, and how lists tell a running run from one whose writer is gone.
#![cfg(feature = "cli")]

#[path = "support/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};

use serde_json::Value;

use program::Fixture;

/// `mlrs-db log` that waits for more lines.
struct Logger {
    process: Child,
    lines: Option<ChildStdin>,
    run: String,
}

impl Logger {
    fn say(&mut self, line: &str) {
        let lines = self.lines.as_mut().unwrap();
        writeln!(lines, "{line}").unwrap();
        lines.flush().unwrap();
    }

    fn end(mut self) {
        drop(self.lines.take());
        assert!(self.process.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Fixture {
    fn logger(&self, name: &str) -> Logger {
        let mut process = self
            .command(&["log", "--run", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut run = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut run).unwrap();
        let lines = process.stdin.take();
        Logger { process, lines, run: run.trim().to_owned() }
    }

    /// Waits until the run has so many points of "loss".
    fn wait_for_points(&self, run: &str, points: usize) {
        for _ in 0..400 {
            let output = self.run(&["metrics", "get", run, "loss", "--csv"]);
            if String::from_utf8_lossy(&output.stdout).lines().count() > points {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("the points did not show up");
    }

    fn tail(&self, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut command = self.command(&[&["tail"], arguments].concat());
        let mut tail = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(tail.stdout.take().unwrap());
        (tail, lines)
    }
}

fn line(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn tail_prints_points_as_they_come_and_ends_with_the_run() {
    let fixture = Fixture::new();
    let mut logger = fixture.logger("live");
    logger.say(r#"{"step":1,"timestamp":1000,"loss":0.5,"acc":1}"#);
    fixture.wait_for_points(&logger.run, 1);
    let (tail, mut lines) = fixture.tail(&["live", "loss", "--interval", "5ms"]);
    assert_eq!(line(&mut lines), "step\ttimestamp\tkey\tvalue");
    assert_eq!(line(&mut lines), "1\t1970-01-01T00:00:01.000Z\tloss\t0.5");
    for step in 2..5 {
        logger
            .say(&format!(r#"{{"step":{step},"timestamp":{step}000,"loss":NaN}}"#).replace("NaN", "\"nan\""));
        assert_eq!(line(&mut lines), format!("{step}\t1970-01-01T00:00:0{step}.000Z\tloss\tNaN"));
    }
    logger.end();
    let output = tail.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(line(&mut lines), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the run has ended: FINISHED"), "{said}");

    let last = fixture.text(&["tail", "live", "--last", "1", "--no-follow"]);
    assert_eq!(last.lines().count(), 3, "one point of each of two metrics: {last}");
    let all = fixture.json(&["tail", "live", "--from-start", "--no-follow"]);
    assert_eq!(all.len(), 5);
    assert_eq!(
        (&all[4]["key"], &all[4]["ordinal"], &all[4]["value"]),
        (&"loss".into(), &3.into(), &"NaN".into())
    );
    assert_eq!(fixture.run(&["tail", "nobody"]).status.code(), Some(3));
    assert_eq!(fixture.run(&["tail", "live", "--interval", "0"]).status.code(), Some(2));
    assert_eq!(fixture.run(&["tail", "live", "--last", "3", "--from-start"]).status.code(), Some(2));
}

#[test]
fn a_closed_pipe_ends_tail_quietly() {
    let fixture = Fixture::new();
    let mut logger = fixture.logger("live");
    logger.say(r#"{"loss":0.5}"#);
    fixture.wait_for_points(&logger.run, 1);
    let (mut tail, mut lines) = fixture.tail(&["live", "--interval", "5ms"]);
    line(&mut lines);
    line(&mut lines);
    drop(lines);
    let mut status = None;
    while status.is_none() {
        logger.say(r#"{"loss":0.5}"#);
        std::thread::sleep(std::time::Duration::from_millis(5));
        status = tail.try_wait().unwrap();
    }
    assert_eq!(status.unwrap().code(), Some(0));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut tail.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, "");
    logger.end();
}

#[test]
fn a_run_whose_process_was_killed_is_told_apart_and_reaped_when_asked() {
    let fixture = Fixture::new();
    let mut logger = fixture.logger("doomed");
    logger.say(r#"{"loss":0.5}"#);
    let run = logger.run.clone();
    fixture.wait_for_points(&run, 1);
    let state = || fixture.json(&["runs", "ls"])[0]["liveness"]["state"].clone();
    let status = || {
        let text = fixture.text(&["runs", "ls"]);
        text.lines().nth(1).unwrap().split('\t').nth(3).unwrap().to_owned()
    };
    assert_eq!((state(), status().as_str()), ("alive".into(), "RUNNING"));
    let top = fixture.json(&["top", "--interval", "20ms"]);
    assert_eq!(top.len(), 1, "{top:?}");
    assert_eq!((&top[0]["liveness"], &top[0]["runs"][0]), (&"alive".into(), &Value::from(run.as_str())));
    assert_eq!((&top[0]["points"], &top[0]["points_waiting"]), (&1.into(), &1.into()));
    assert_eq!(top[0]["points_per_s"], 0.0);
    assert!(top[0]["pid"].as_u64().is_some() && top[0]["bytes"].as_u64() > Some(0));
    let text = fixture.text(&["top", "--once", "--interval", "1ms"]);
    assert!(text.starts_with("writer\tstate\tpid\t") && text.lines().count() == 2, "{text}");
    assert_eq!(fixture.text(&["runs", "reap", "--after", "0s"]).lines().count(), 1, "it lives");

    logger.kill();
    assert_eq!(state(), "gone");
    assert!(status().starts_with("RUNNING (writer gone since 20"), "{}", status());
    assert!(fixture.text(&["runs", "show", &run]).contains("status\tRUNNING (writer gone since 20"));
    assert_eq!(fixture.json(&["top", "--interval", "1ms"])[0]["liveness"], "gone");
    let (mut tail, _lines) = fixture.tail(&["doomed"]);
    let told = line(&mut BufReader::new(tail.stderr.take().unwrap()));
    assert!(told.contains("its writer is gone since 20"), "{told}");
    tail.kill().unwrap();
    tail.wait().unwrap();

    assert_eq!(fixture.json(&["runs", "reap", "--after", "1d"]), [] as [Value; 0]);
    let planned = fixture.json(&["runs", "reap", "--after", "0s", "--dry-run"]);
    assert_eq!((planned.len(), &planned[0]["id"]), (1, &Value::from(run.as_str())));
    assert_eq!(fixture.json(&["runs", "show", &run])[0]["status"], "RUNNING");
    let reaped = fixture.text(&["runs", "reap", "--after", "0s"]);
    assert!(reaped.contains(&format!("{run}\tdoomed\t20")), "{reaped}");
    let shown = &fixture.json(&["runs", "show", &run])[0];
    assert_eq!((&shown["status"], &shown["end_ms"]), (&"FAILED".into(), &planned[0]["end_ms"]));
    assert_eq!(shown["liveness"], Value::Null);
    assert_eq!(fixture.run(&["runs", "reap"]).status.code(), Some(2), "how long has to be said");
}
