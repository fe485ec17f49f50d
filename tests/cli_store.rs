//! The program on a real store: what is logged is listed, found, printed, drawn, checked and taken care of.
#![cfg(feature = "cli")]

#[path = "support/program.rs"]
mod program;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use program::{Fixture, stderr};

impl Fixture {
    /// Flips a bit in the middle of a segment.
    fn damage_largest_segment(&self) -> PathBuf {
        let segments =
            std::fs::read_dir(self.store().join("log")).unwrap().map(|entry| entry.unwrap().path());
        let segment = segments.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
        let mut bytes = std::fs::read(&segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(&segment, bytes).unwrap();
        segment
    }

    /// Changes the byte in the middle of each place of the log where this text stands, and drops the index if there is one.
    fn damage(&self, text: &str) {
        let mut found = 0;
        for entry in std::fs::read_dir(self.store().join("log")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let places: Vec<usize> = (0..bytes.len())
                .filter(|at| bytes[*at..].starts_with(text.as_bytes()))
                .map(|at| at + text.len() / 2)
                .collect();
            places.iter().for_each(|at| bytes[*at] ^= 0x04);
            found += places.len();
            std::fs::write(&path, bytes).unwrap();
        }
        assert!(found > 0, "'{text}' is not in the log");
        let _ = std::fs::remove_file(self.store().join("index.redb"));
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
    let segment = fixture.damage_largest_segment();

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
fn a_damaged_event_stops_an_answer_unless_damage_is_skipped() {
    let fixture = Fixture::new();
    let lost = fixture.logged(&["-e", "x", "--run", "spoiled-run"], CSV);
    let run = fixture.logged(&["-e", "x", "--run", "sound-run"], CSV);
    fixture.damage("spoiled-run");
    let target = fixture.dir.path().join("out");
    let export = ["export", target.to_str().unwrap()];
    for arguments in [
        &["runs", "ls"][..],
        &["runs", "search", "metrics.acc > 0"],
        &["runs", "show", "sound-run"],
        &["experiments", "show", "x"],
        &["metrics", "ls", "sound-run"],
        &["metrics", "get", "sound-run", "acc"],
        &["metrics", "plot", "sound-run", "acc"],
        &["stats"],
        &export,
    ] {
        let output = fixture.run(arguments);
        assert_eq!(output.status.code(), Some(4), "{arguments:?} {}", stderr(&output));
        assert!(stderr(&output).contains("hint: --skip-damage"), "{arguments:?} {}", stderr(&output));
        let output = fixture.run(&[arguments, &["--skip-damage"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?} {}", stderr(&output));
    }
    let listed = fixture.json(&["runs", "ls", "--skip-damage"]);
    let ids: Vec<&str> = listed.iter().map(|run| run["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&run.as_str()) && ids.contains(&lost.as_str()), "{ids:?}");
    let experiment = listed.iter().find(|one| one["id"] == run.as_str()).unwrap()["experiment_id"].clone();
    assert!(target.join(experiment.as_str().unwrap()).join(run).is_dir());
    assert_eq!(fixture.run(&["verify", "--skip-damage"]).status.code(), Some(2), "it skips nothing");
}

/// What is said of a run whose metadata is damaged, however it is named. `name` is what is left of its name.
fn check_points_are_there(fixture: &Fixture, run: &str, name: &str) {
    let warning = "could not be read; run `mlrs-db verify`";
    for spelling in [run, &run[..8]] {
        for verb in [&["runs", "show", spelling][..], &["metrics", "ls", spelling]] {
            let output = fixture.run(&[verb, &["--skip-damage"]].concat());
            assert_eq!(output.status.code(), Some(0), "{verb:?} {}", stderr(&output));
            assert!(stderr(&output).contains(warning), "{verb:?} {}", stderr(&output));
        }
        let get = ["metrics", "get", spelling, "loss", "--csv", "--skip-damage"];
        assert_eq!(fixture.text(&get).lines().count(), 4, "{spelling}");
        let shown = &fixture.json(&["runs", "show", spelling, "--skip-damage"])[0];
        assert_eq!((&shown["name"], &shown["metrics"]["acc"]["value"]), (&name.into(), &0.75.into()));
    }
    let listed = fixture.json(&["runs", "ls", "--view", "all", "--skip-damage"]);
    assert!(listed.iter().any(|one| one["id"] == run));
    assert_eq!(fixture.json(&["stats", "--skip-damage"])[0]["runs"], listed.len());
}

#[test]
fn intact_points_of_a_run_with_damaged_metadata_are_found_by_every_name() {
    let fixture = Fixture::new();
    let run = fixture.logged(&["-e", "x", "--run", "first"], CSV);
    fixture.logged(&["-e", "x", "--run", "second"], CSV);
    let sound = fixture.run(&["runs", "ls", "--skip-damage"]);
    assert_eq!(stderr(&sound), "", "nothing was passed over");
    fixture.logged(&["--run-id", &run, "--tag", "note=spoil-this"], "");
    fixture.damage("spoil-this");
    check_points_are_there(&fixture, &run, "first");
}

#[test]
fn points_of_a_run_whose_beginning_is_lost_are_found_by_its_id() {
    let fixture = Fixture::new();
    let run = fixture.logged(&["-e", "x", "--run", "spoiled-run"], CSV);
    fixture.logged(&["-e", "x", "--run", "second"], CSV);
    fixture.damage("spoiled-run");
    check_points_are_there(&fixture, &run, "");
}

#[test]
fn damaged_points_are_left_out_where_damage_is_skipped() {
    let fixture = Fixture::new();
    let lines: String = (0..20_000).map(|i| format!("{{\"loss\":{}}}\n", f64::from(i).sin())).collect();
    let run = fixture.logged(&[], &lines);
    fixture.damage_largest_segment();

    let get = ["metrics", "get", &run, "loss", "--csv"];
    let output = fixture.run(&get);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: --skip-damage"), "{}", stderr(&output));
    let points = fixture.text(&[&get[..], &["--skip-damage"]].concat()).lines().count() - 1;
    assert!((15_000..20_000).contains(&points), "one column is gone, all others are there: {points}");
    let target = fixture.dir.path().join("out");
    let report = &fixture.json(&["export", target.to_str().unwrap(), "--skip-damage"])[0];
    assert_eq!(report["points"], points);
}

#[test]
fn a_damaged_identity_is_damage_and_hides_nothing() {
    let sound = b"MLRSDB\n\0";
    type Spoil = fn(&mut Vec<u8>);
    let spoil: [(&str, Spoil, &str); 4] = [
        ("empty", |bytes| bytes.clear(), "damaged at byte 0: expected 40 bytes, found 0"),
        ("short", |bytes| bytes.truncate(39), "damaged at byte 39: expected 40 bytes, found 39"),
        ("magic", |bytes| bytes[1] = b'X', "damaged at byte 0: expected 'MLRSDB\\n\\x00', found 'MXRSDB"),
        ("id", |bytes| bytes[20] ^= 1, "damaged at byte 36: expected crc "),
    ];
    for (name, spoil, complaint) in spoil {
        let fixture = Fixture::new();
        fixture.logged(&["-e", "x"], CSV);
        let path = fixture.store().join("MLRS");
        let mut bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(sound));
        spoil(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();

        let tree = fixture.dir.path().join("mlruns");
        std::fs::create_dir_all(tree.join("0")).unwrap();
        std::fs::write(tree.join("0/meta.yaml"), "experiment_id: '0'\nname: Default\n").unwrap();
        let tree = tree.to_str().unwrap();
        for arguments in [
            &["runs", "ls"][..],
            &["experiments", "show", "x"],
            &["stats"],
            &["compact"],
            &["gc"],
            &["log"],
            &["init"],
            &["import", tree],
        ] {
            let output = fixture.run(arguments);
            assert_eq!(output.status.code(), Some(4), "{name} {arguments:?} {}", stderr(&output));
            assert!(stderr(&output).contains(complaint), "{name} {arguments:?} {}", stderr(&output));
        }
        let output = fixture.run(&["verify", "--json"]);
        assert_eq!(output.status.code(), Some(4), "{name} {}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        assert_eq!((findings.len(), &findings[0]["path"]), (1, &"MLRS".into()), "{name} {report}");
        assert_eq!((&report["sound"], &report["points"]), (&false.into(), &5.into()), "the rest is checked");

        assert_eq!(fixture.json(&["runs", "ls", "--skip-damage"]).len(), 1, "{name}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}: nobody touched it");
        // What the hint says to do.
        let advice = stderr(&fixture.run(&["compact"]));
        assert!(advice.contains("move this file away and run `mlrs-db init`"), "{name} {advice}");
        std::fs::remove_file(&path).unwrap();
        fixture.text(&["init"]);
        assert_eq!(fixture.json(&["runs", "ls"]).len(), 1, "{name}");
    }
}

#[test]
fn a_directory_of_other_things_is_never_proposed_as_a_store() {
    let fixture = Fixture::new();
    let other = fixture.dir.path().join("thesis");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("thesis.tex"), "text").unwrap();
    for (arguments, code) in [(&["runs", "ls"][..], 3), (&["verify"], 3), (&["compact"], 3), (&["init"], 1)] {
        let output = fixture.run(&[arguments, &["--store", other.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains("not empty") && !said.contains("mlrs-db init"), "{arguments:?} {said}");
    }
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn an_export_into_or_around_the_store_is_refused() {
    let fixture = Fixture::new();
    fixture.logged(&["-e", "x"], CSV);
    let inside = fixture.store().join("inside");
    let roundabout = fixture.store().join("../store/artifacts/new/deep");
    for (target, complaint) in [
        (inside.as_path(), "is inside the store"),
        (&roundabout, "is inside the store"),
        (&fixture.store(), "is inside the store"),
        (fixture.dir.path(), "is around the store"),
    ] {
        let output = fixture.run(&["export", target.to_str().unwrap(), "--overwrite"]);
        assert_eq!(output.status.code(), Some(2), "{}: {}", target.display(), stderr(&output));
        assert!(stderr(&output).contains(complaint), "{}", stderr(&output));
    }
    assert!(!inside.exists());
    assert_eq!(fixture.json(&["verify"])[0]["sound"], true);
    // Beside it, under a name that starts the same, is outside.
    fixture.json(&["export", fixture.dir.path().join("store-2").to_str().unwrap()]);
}

#[test]
fn a_time_before_1970_is_a_bad_line() {
    let fixture = Fixture::new();
    let output = fixture.log(&["--run", "old"], "timestamp,loss\n-1,0.5\n0,0.25\n1969-12-31T23:59:59Z,1\n");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    for part in ["line 2: the time -1 is before 1970", "line 4: the time 1969-12-31T23:59:59Z is before 1970"]
    {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    assert_eq!(
        fixture.text(&["metrics", "get", "old", "loss", "--csv"]),
        "step,timestamp_ms,loss\n0,0,0.25\n"
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

/// A tree of one experiment and one run.
fn small_tree(fixture: &Fixture) -> PathBuf {
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
    tree
}

#[test]
fn a_tree_goes_in_and_comes_out() {
    let fixture = Fixture::new();
    let tree = small_tree(&fixture);
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
    assert_eq!(refused.status.code(), Some(1), "a directory that is not empty is not written to");
    assert!(stderr(&refused).contains("hint: --overwrite"), "{}", stderr(&refused));
    fixture.json(&["export", out.to_str().unwrap(), "--overwrite"]);
}

#[test]
fn a_damaged_store_is_repaired_and_healed_by_its_backup() {
    let fixture = Fixture::new();
    let input: String = std::iter::once("step,loss\n".to_owned())
        .chain((0..20_000).map(|n| format!("{n},{}\n", f64::from(n * 7919 % 10_007).sqrt())))
        .collect();
    let run = fixture.logged(&["--run", "r"], &input);
    let backup = fixture.dir.path().join("backup");
    let backup = backup.to_str().unwrap();
    let first = &fixture.json(&["backup", backup])[0];
    assert_eq!((&first["is_incremental"], &first["copied"]["segments"]), (&false.into(), &1.into()));
    assert!(
        fixture.text(&["backup", backup]).starts_with("copied what was new: 0 segments (1 there already)")
    );
    fixture.damage_largest_segment();

    let dry = fixture.run(&["repair", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(4), "{}", stderr(&dry));
    let text = String::from_utf8(dry.stdout).unwrap();
    assert!(text.contains("rewritten\tlog/") && text.contains("nothing was touched"), "{text}");
    assert!(!fixture.store().join("quarantine").exists());
    // Something was lost, and is told.
    let done = fixture.run(&["repair", "--json"]);
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(4), "{report}");
    assert_eq!(
        (&report["lost"][0]["key"], &report["lost"][0]["run"]),
        (&"loss".into(), &run.as_str().into())
    );
    assert_eq!(std::fs::read_dir(fixture.store().join("quarantine")).unwrap().count(), 1);
    let merged = fixture.text(&["merge", backup]);
    assert!(merged.contains("took in 1 segment"), "{merged}");
    assert_eq!(fixture.text(&["metrics", "get", &run, "loss", "--csv"]).lines().count(), 20_001);
    fixture.text(&["verify"]);
    assert_eq!(fixture.text(&["repair"]), "nothing to repair\n");
    let recovered = fixture.text(&["recover", "--host", "node7"]);
    assert_eq!(recovered, "brought home 0 points from 0 live files of node7\n");
}

#[test]
fn two_runs_with_one_id_are_told_apart() {
    let fixture = Fixture::new();
    let tree = small_tree(&fixture);
    let tree = tree.to_str().unwrap();
    let id = "00112233445566778899aabbccddeeff";
    fixture.text(&["import", tree, "--tree", "a"]);
    assert_eq!(stderr(&fixture.run(&["runs", "show", id])), "");
    fixture.text(&["import", tree, "--tree", "team b"]);

    let ambiguous = fixture.run(&["runs", "show", "0011"]);
    assert_eq!(ambiguous.status.code(), Some(2));
    let said = stderr(&ambiguous);
    assert!(said.matches(", uid ").count() == 2 && said.contains("give the uid"), "{said}");
    assert_eq!(said.matches("in experiment mnist (").count(), 2, "{said}");

    let taken = fixture.run(&["metrics", "get", id, "loss"]);
    assert_eq!(taken.status.code(), Some(0), "{}", stderr(&taken));
    let warning = stderr(&taken);
    assert!(warning.starts_with("warning: 2 runs have this id; this is uid "), "{warning}");
    // Each is reached by its uid, and what is asked about it is answered about it.
    let uid = warning.rsplit(": uid ").next().unwrap().split(' ').next().unwrap();
    assert_ne!(uid, id);
    fixture.logged(&["--run-id", uid], "{\"loss\":7}\n");
    assert_eq!(fixture.text(&["metrics", "get", uid, "loss"]).lines().count(), 4);
    assert_eq!(fixture.text(&["metrics", "get", id, "loss"]).lines().count(), 3);

    // One directory has room for one of them: even a quiet export says which is left out, and what to do.
    let out = fixture.dir.path().join("out");
    let export = fixture.run(&["export", out.to_str().unwrap(), "--quiet"]);
    let said = stderr(&export);
    assert_eq!(export.status.code(), Some(0), "{said}");
    assert!(
        said.contains("\n  experiment 1 (mnist), with 1 runs: another experiment has its id\n"),
        "{said}"
    );
    assert!(said.contains("hint: export each tree with --tree NAME: --tree a, --tree 'team b'\n"), "{said}");
    let missing = fixture.run(&["export", "elsewhere", "--tree", "nosuch"]);
    assert_eq!(missing.status.code(), Some(3), "{}", stderr(&missing));
    assert!(stderr(&missing).contains("--tree a, --tree 'team b'"), "{}", stderr(&missing));
}

#[test]
fn what_a_killed_export_left_goes_with_the_next_one() {
    let fixture = Fixture::new();
    fixture.logged(&["-e", "x"], CSV);
    let at = |name: &str| fixture.dir.path().join(name);
    let names =
        ["out.partial-0123abcd", "out.partial-4567cdef", "out.partial-notes", "other.partial-0123abcd"];
    for name in names {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::write(at(name).join("meta.yaml"), "half").unwrap();
    }
    // Somebody is still writing this one.
    let busy = std::fs::File::open(at("out.partial-4567cdef")).unwrap();
    busy.lock().unwrap();
    fixture.text(&["export", at("out").to_str().unwrap()]);
    let there: Vec<bool> = names.iter().map(|name| at(name).exists()).collect();
    assert_eq!(there, [false, true, true, true]);
    assert!(at("out").is_dir());
}

#[test]
fn a_refused_question_says_how_to_ask() {
    let fixture = Fixture::new();
    fixture.logged(&["-e", "x", "--run", "spoiled-run"], CSV);
    for (arguments, code, hint) in [
        (&["runs", "search", "metrics.loss <"][..], 2, "hint: see `mlrs-db runs search --help`"),
        (&["runs", "search", "foo.bar = 1"], 2, "hint: see `mlrs-db runs search --help`"),
        (&["runs", "ls", "-o", "metrics.loss SIDEWAYS"], 2, "--order-by \"metrics.loss ASC\""),
        (&["experiments", "ls", "-f", "nome = 'x'"], 2, "hint: see `mlrs-db experiments ls --help`"),
        (&["import", "./no/such/mlruns"], 3, "hint: name the directory that MLflow wrote"),
        (&["export", "out", "--tree", "nosuch"], 3, "hint: no tree was imported"),
        (&["import", "x", "--tree", ""], 2, "--tree"),
    ] {
        let output = fixture.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {}", stderr(&output));
        assert!(stderr(&output).contains(hint), "{arguments:?} {}", stderr(&output));
    }
    // Verbs that write cannot pass over damage; there is a verb that does something about it.
    fixture.damage("spoiled-run");
    let tree = small_tree(&fixture);
    for arguments in [&["import", tree.to_str().unwrap()][..], &["gc"]] {
        let output = fixture.run(arguments);
        assert_eq!(output.status.code(), Some(4), "{arguments:?} {}", stderr(&output));
        for word in ["`mlrs-db verify`", "`mlrs-db repair`"] {
            assert!(stderr(&output).contains(word), "{arguments:?} {}", stderr(&output));
        }
    }
}

#[test]
fn colours_that_were_asked_for_are_in_a_pipe_as_well() {
    let fixture = Fixture::new();
    let run = fixture.logged(&["-e", "x"], CSV);
    for arguments in [&["runs", "ls"][..], &["stats"], &["metrics", "get", &run, "loss"]] {
        assert!(!fixture.text(arguments).contains('\x1b'), "{arguments:?}");
        let coloured = fixture.text(&[&["--color", "always"], arguments].concat());
        assert!(coloured.contains('\x1b'), "{arguments:?} {coloured}");
    }
}
