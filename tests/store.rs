//! The store API by example.

mod medium;

use mlrs_db::{
    Dataset, DatasetInput, Error, ExperimentOptions, ExperimentSearch, Metric, Point, Points, RunOptions,
    RunSearch, RunStatus, Search, Store,
};

fn temp() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

#[test]
fn what_is_logged_is_read_back_by_the_same_handle_and_after_reopening() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let experiment = store.experiment("mnist").unwrap();
    let run =
        experiment.start_run(RunOptions::new().name("lr-3").param("lr", "0.1").tag("host", "a")).unwrap();
    run.log_param("seed", "7").unwrap();
    let loss = run.series("train/loss").unwrap();
    for step in 0..10_000 {
        loss.log_at(step, 1_700_000_000_000 + step, 1.0 / (step + 1) as f64).unwrap();
    }
    run.log_metrics(3, [("acc", 0.5), ("lr", 0.1)]).unwrap();
    let check = |store: &Store| {
        let points: Points = store.history(run.id(), "train/loss").unwrap().collect().unwrap();
        assert_eq!(points.len(), 10_000);
        assert!(points.iter().enumerate().all(|(at, p)| p
            == Point {
                step: at as i64,
                timestamp_ms: 1_700_000_000_000 + at as i64,
                value: 1.0 / (at + 1) as f64
            }));
        let data = store.get_run(run.id()).unwrap();
        assert_eq!(data.name, "lr-3");
        assert_eq!(data.params["lr"], "0.1");
        assert_eq!(data.params["seed"], "7");
        assert_eq!(data.tags["host"], "a");
        assert_eq!(data.metrics["train/loss"].step, 9_999);
        assert_eq!(data.metrics["acc"].value, 0.5);
    };
    check(&store);
    check(&medium::options().read_only(true).open(&path).unwrap());
    run.finish(RunStatus::Finished).unwrap();
    store.clone().close().unwrap();
    let store = medium::options().open(&path).unwrap();
    check(&store);
    assert_eq!(store.get_run(run.id()).unwrap().status, RunStatus::Finished);
    assert_eq!(store.experiment("mnist").unwrap().id(), experiment.id());
}

#[test]
fn a_batch_is_logged_whole_or_not_at_all() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    run.log_batch(&[Metric::new("loss", 0, 1.0)], &[("lr", "0.1")], &[("a", "b")]).unwrap();
    let refused = run.log_batch(&[Metric::new("loss", 1, 2.0)], &[("lr", "0.2")], &[("a", "c")]);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("Changing param values is not allowed"), "{text}");
    let data = store.get_run(run.id()).unwrap();
    assert_eq!((data.metrics["loss"].value, data.tags["a"].as_str()), (1.0, "b"));
    run.log_metric("loss", 5, 3.0).unwrap();
    run.log_batch(&[Metric::new("loss", 6, 4.0)], &[], &[("a", "d")]).unwrap();
    let points: Points = store.history(run.id(), "loss").unwrap().collect().unwrap();
    assert_eq!(points.values, [1.0, 3.0, 4.0]);
}

#[test]
fn columns_come_behind_points_and_pages_join() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let series = run.series("x").unwrap();
    series.log_at(-1, 5, 0.5).unwrap();
    let n = 20_000i64;
    let steps: Vec<i64> = (0..n).collect();
    let values: Vec<f64> = steps.iter().map(|s| (*s as f64).sin()).collect();
    series.log_columns(&steps, &steps, &values).unwrap();
    series.log_at(n, n, 7.0).unwrap();
    let all: Points = store.history(run.id(), "x").unwrap().collect().unwrap();
    assert_eq!(all.len(), n as usize + 2);
    assert_eq!((all.steps[0], all.steps[1], all.steps[n as usize + 1]), (-1, 0, n));
    let history = store.history(run.id(), "x").unwrap();
    let (mut token, mut paged) = (None, Points::default());
    loop {
        let page = history.page(777, token.as_deref()).unwrap();
        page.points.iter().for_each(|p| paged.push(p));
        // What arrives later moves no page.
        series.log_at(1, 1, 1.0).unwrap();
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);
    let some: Points = store.history(run.id(), "x").unwrap().steps(100..=110).collect().unwrap();
    assert_eq!(some.steps, (100..=110).collect::<Vec<_>>());
}

#[test]
fn columns_of_many_series_come_behind_their_points_and_bad_ones_log_nothing() {
    let (_directory, path) = temp();
    let store = Store::open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    // More series than a batch has room for where each column is full.
    let keys: Vec<String> = (0..1_100).map(|n| format!("k{n}")).collect();
    run.log_metric("k7", 0, -1.0).unwrap();
    let steps: Vec<i64> = (1..=5_000).collect();
    let values = |n: usize| -> Vec<f64> { steps.iter().map(|step| *step as f64 + n as f64).collect() };
    let all: Vec<Vec<f64>> = (0..keys.len()).map(values).collect();
    let columns: Vec<(&str, &[f64])> =
        keys.iter().map(String::as_str).zip(all.iter().map(Vec::as_slice)).collect();
    run.log_columns(&steps, &steps, &columns).unwrap();
    run.log_metric("k7", 5_001, -2.0).unwrap();
    run.log_columns(&[], &[], &[("k7", &[])]).unwrap();
    run.log_columns(&steps, &steps, &[]).unwrap();
    let short: [(&[i64], &[i64], &[f64]); 3] =
        [(&[1, 2], &[1, 2], &[1.0]), (&[1], &[1, 2], &[1.0]), (&[1], &[-1], &[1.0])];
    for (steps, timestamps_ms, values) in short {
        let fine = vec![0.5; steps.len()];
        let refused = run.log_columns(steps, timestamps_ms, &[("fine", &fine), ("k7", values)]);
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{refused:?}");
    }
    let refused = run.log_columns(&[1], &[1], &[("k7", &[1.0]), ("a\nb", &[1.0])]);
    assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{refused:?}");
    for _ in 0..2 {
        for n in [0, 7, 500, 1_023, 1_024, 1_099] {
            let points: Points = store.history(run.id(), &keys[n]).unwrap().collect().unwrap();
            let (before, after): (&[f64], &[f64]) = if n == 7 { (&[-1.0], &[-2.0]) } else { (&[], &[]) };
            assert_eq!(points.values, [before, &all[n], after].concat(), "k{n}");
        }
        let fine: Points = store.history(run.id(), "fine").unwrap().collect().unwrap();
        assert!(fine.values.is_empty());
        store.sync().unwrap();
    }
}

#[test]
fn experiments_and_runs_are_searched_renamed_deleted_and_restored() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let a = store.experiment("a").unwrap();
    let b = store.experiment("b").unwrap();
    for (n, experiment) in [&a, &a, &b].into_iter().enumerate() {
        let run = experiment.start_run(RunOptions::new().param("n", n.to_string())).unwrap();
        run.log_metric("loss", 0, n as f64).unwrap();
    }
    let search = |filter: &str| {
        let search = RunSearch {
            filter: filter.into(),
            order_by: vec!["metrics.loss DESC".into()],
            ..Default::default()
        };
        store.search_runs(&search).unwrap().items.iter().map(|r| r.params["n"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(search(""), ["2", "1", "0"]);
    assert_eq!(search("metrics.loss > 0.5 AND params.n != '2'"), ["1"]);
    store.rename_experiment(a.id(), "c").unwrap();
    store.delete_experiment(a.id()).unwrap();
    assert_eq!(search(""), ["2"]);
    assert!(store.experiment("c").is_err());
    store.restore_experiment(a.id()).unwrap();
    assert_eq!(search(""), ["2", "1", "0"]);
    let found =
        store.search_experiments(&ExperimentSearch { filter: "name LIKE 'c%'".into(), ..Default::default() });
    assert_eq!(found.unwrap().items.len(), 1);
}

#[test]
fn points_of_a_killed_process_are_there_when_the_next_one_opens() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let series = run.series("x").unwrap();
    for step in 0..40_000 {
        series.log_at(step, step, step as f64).unwrap();
    }
    // A copy of the files at this moment is what a killed process leaves behind.
    let image = path.with_file_name("image");
    let status = std::process::Command::new("cp").arg("-r").arg(&path).arg(&image).status().unwrap();
    assert!(status.success());
    for round in 0..3 {
        let copy = if round == 2 {
            medium::options().read_only(true).open(&image)
        } else {
            medium::options().open(&image)
        }
        .unwrap();
        let points: Points = copy.history(run.id(), "x").unwrap().collect().unwrap();
        assert_eq!(points.steps, (0..40_000).collect::<Vec<_>>(), "round {round}");
        if round == 0 {
            // Writing recovers the dead writer's live file, but on a network nobody's is touched.
            copy.run(run.id()).unwrap().log_metric("y", 0, 1.0).unwrap();
            let live = std::fs::read_dir(image.join("live")).unwrap().count();
            assert_eq!(live, if medium::is_network() { 2 } else { 1 });
        }
        copy.close().unwrap();
    }
}

#[test]
fn closing_while_others_log_loses_nothing_that_was_acknowledged() {
    for round in 0..10 {
        let (_directory, path) = temp();
        let store = medium::options().open(&path).unwrap();
        let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
        let id = run.id().to_owned();
        let loggers: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|key| {
                let series = run.series(key).unwrap();
                std::thread::spawn(move || {
                    (0..).take_while(|step| series.log_at(*step, 0, 0.5).is_ok()).count()
                })
            })
            .collect();
        while store.metrics(&id).unwrap().len() < 2 {}
        let also = run.clone();
        let tagger = std::thread::spawn(move || {
            (0..).take_while(|n: &usize| also.set_tag("n", &n.to_string()).is_ok()).count()
        });
        store.clone().close().unwrap();
        let logged = loggers.into_iter().map(|l| l.join().unwrap() as u64).collect::<Vec<_>>();
        let tagged = tagger.join().unwrap();
        let reader = medium::options().read_only(true).open(&path).unwrap();
        let points: Vec<u64> = reader.metrics(&id).unwrap().iter().map(|m| m.points).collect();
        assert_eq!(points, logged, "round {round}");
        let tag = reader.get_run(&id).unwrap().tags.get("n").cloned();
        assert_eq!(tag, tagged.checked_sub(1).map(|n| n.to_string()), "round {round}");
    }
}

#[test]
fn a_data_set_keeps_what_it_was_first_logged_with() {
    let (_directory, path) = temp();
    let input = |source: &str| DatasetInput {
        dataset: Dataset {
            name: "d".into(),
            digest: "1".into(),
            source_type: "local".into(),
            source: source.into(),
            schema: None,
            profile: None,
        },
        tags: Default::default(),
    };
    let start = |store: &Store| store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let store = medium::options().open(&path).unwrap();
    start(&store).log_inputs(&[input("first")]).unwrap();
    store.close().unwrap();
    let store = medium::options().open(&path).unwrap();
    let run = start(&store);
    run.log_inputs(&[input("second")]).unwrap();
    assert_eq!(run.data().unwrap().inputs, [input("first")]);
}

#[test]
fn an_experiment_that_is_named_twice_is_searched_once() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let experiment = store.experiment("e").unwrap();
    experiment.start_run(RunOptions::new()).unwrap();
    let experiment_ids = vec![experiment.id().to_owned(), experiment.uid().to_string()];
    let search = RunSearch { experiment_ids, ..Default::default() };
    assert_eq!(store.search_runs(&search).unwrap().items.len(), 1);
}

#[test]
fn an_artifact_location_that_nobody_gave_is_inside_the_store_and_moves_with_it() {
    let (directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let own = store.experiment("own place").unwrap();
    let run = own.start_run(RunOptions::new()).unwrap();
    let location = ExperimentOptions::new().artifact_location("s3://bucket/x/");
    let given = store.create_experiment("given place", location).unwrap();
    let below = given.start_run(RunOptions::new()).unwrap();
    let elsewhere = given.start_run(RunOptions::new().artifact_uri("s3://other/y")).unwrap();
    let check = |store: &Store, place: &str| {
        let inside = format!("file://{}/{place}/artifacts/{}", directory.path().display(), own.uid());
        let of_experiment = |id: &str| store.experiment_artifact_location(&store.get_experiment(id).unwrap());
        assert_eq!(of_experiment(own.id()), inside);
        assert_eq!(of_experiment(given.id()), "s3://bucket/x/");
        let of_run = |id: &str| store.run_artifact_location(&store.get_run(id).unwrap()).unwrap();
        assert_eq!(of_run(run.id()), format!("{inside}/{}/artifacts", run.id()));
        assert_eq!(of_run(below.id()), format!("s3://bucket/x/{}/artifacts", below.id()));
        assert_eq!(of_run(elsewhere.id()), "s3://other/y");
    };
    check(&store, "store");
    store.clone().close().unwrap();
    std::fs::rename(&path, directory.path().join("moved")).unwrap();
    check(&medium::options().open(directory.path().join("moved")).unwrap(), "moved");
}

#[test]
fn a_time_before_1970_is_refused_by_every_call_and_a_negative_step_by_none() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let loss = run.series("loss").unwrap();
    let old = Metric { key: "loss".into(), point: Point { step: 0, timestamp_ms: -1, value: 0.5 } };
    let refused = [
        (loss.log_at(0, -1, 0.5), "'timestamp'"),
        (loss.log_columns(&[0, 1], &[0, i64::MIN], &[0.5, 0.5]), "'[1].timestamp'"),
        (run.log_batch(&[old], &[], &[]), "'metrics[0].timestamp'"),
    ];
    for (outcome, place) in refused {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(place) && text.contains("must be a nonnegative"), "{text}");
    }
    let points: Points = store.history(run.id(), "loss").unwrap().collect().unwrap();
    assert_eq!(points.len(), 0, "of refused columns nothing is logged");
    loss.log_at(-1, 0, 0.5).unwrap();
    loss.log_columns(&[i64::MIN], &[0], &[0.5]).unwrap();
    run.log_batch(&[Metric::new("loss", -3, 0.5)], &[], &[]).unwrap();
    let points: Points = store.history(run.id(), "loss").unwrap().collect().unwrap();
    assert_eq!(points.steps, [-1, i64::MIN, -3]);
}

#[test]
fn a_page_token_is_good_for_its_own_run_and_key_only() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let experiment = store.experiment("e").unwrap();
    let run = |name: &str| {
        let run = experiment.start_run(RunOptions::new().name(name)).unwrap();
        for key in ["loss", "acc"] {
            run.series(key).unwrap().log_columns(&[0, 1, 2], &[0, 1, 2], &[0.0, 1.0, 2.0]).unwrap();
        }
        run
    };
    let (one, other) = (run("one"), run("other"));
    let page = |run: &str, key: &str, token: Option<&str>| store.history(run, key).unwrap().page(2, token);
    let token = page(one.id(), "loss", None).unwrap().next_page_token.unwrap();
    assert_eq!(page(one.id(), "loss", Some(&token)).unwrap().points.values, [2.0]);
    for (run, key) in [(other.id(), "loss"), (one.id(), "acc"), (other.id(), "acc"), (one.id(), "missing")] {
        let error = page(run, key, Some(&token)).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        assert!(error.to_string().contains("of another run or metric"), "{error}");
    }
}

#[test]
fn experiments_can_be_searched_among_some() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let ids = ["a", "b", "c"].map(|name| store.experiment(name).unwrap().id().to_owned());
    let search = Search {
        experiment_ids: vec![ids[0].clone(), ids[2].clone(), ids[0].clone()],
        filter: "name != 'a'".into(),
        ..Search::default()
    };
    let found = store.search_experiments(&search).unwrap();
    assert_eq!(found.items.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["c"]);
    let missing = Search { experiment_ids: vec!["12345".into()], ..Search::default() };
    assert!(matches!(store.search_experiments(&missing), Err(Error::NotFound { .. })));
}
