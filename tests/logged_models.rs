//! Logged models by example: made, filled, measured, searched, deleted.

mod medium;

use std::path::PathBuf;

use mlrs_db::{
    DatasetFilter, Dialect, Error, GcOptions, Lifecycle, LoggedModel, LoggedModelOptions,
    LoggedModelOrderKey, LoggedModelSearch, LoggedModelStatus, Metric, ModelMetric, ModelOutput,
    ModelVersionOptions, Point, RegisteredModelOptions, Run, RunOptions, Store,
};

fn temp() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

fn metric(key: &str, step: i64, value: f64, model: &str, dataset: Option<(&str, &str)>) -> ModelMetric {
    let point = Point { step, timestamp_ms: 1_700_000_000_000 + step, value };
    ModelMetric {
        metric: Metric { key: key.into(), point },
        model_id: (!model.is_empty()).then(|| model.to_owned()),
        dataset: dataset.map(|(name, digest)| (name.to_owned(), digest.to_owned())),
    }
}

/// Key, step, value and data set of each metric.
fn metrics(model: &LoggedModel) -> Vec<(String, i64, f64, String)> {
    let dataset = |dataset: &Option<(String, String)>| {
        dataset.as_ref().map_or_else(String::new, |(name, digest)| format!("{name}@{digest}"))
    };
    let one =
        |m: &mlrs_db::LoggedModelMetric| (m.key.clone(), m.point.step, m.point.value, dataset(&m.dataset));
    model.metrics.iter().map(one).collect()
}

fn start(store: &Store) -> Run {
    store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap()
}

#[test]
fn a_model_is_made_filled_and_read_back() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = start(&store);
    let experiment = run.data().unwrap().experiment_id.clone();
    let options = LoggedModelOptions::new()
        .name("net")
        .model_type("agent")
        .source_run_id(run.id())
        .param("depth", "3")
        .tag("t", "v");
    let made = store.create_logged_model(&experiment, options).unwrap();
    assert_eq!((made.status, made.lifecycle), (LoggedModelStatus::Pending, Lifecycle::Active));
    assert!(made.id.starts_with("m-") && made.id.len() == 34);
    store.log_logged_model_params(&made.id, &[("lr", "0.1"), ("depth", "3")]).unwrap();
    assert!(matches!(
        store.log_logged_model_params(&made.id, &[("depth", "4")]),
        Err(Error::InvalidState(text)) if text.contains("Changing param values is not allowed")
    ));
    store.set_logged_model_tags(&made.id, &[("t", "w"), ("u", "")]).unwrap();
    store.delete_logged_model_tag(&made.id, "u").unwrap();
    assert!(matches!(store.delete_logged_model_tag(&made.id, "u"), Err(Error::NotFound { .. })));
    let ready = store.finalize_logged_model(&made.id, LoggedModelStatus::Ready).unwrap();
    assert!(ready.updated_ms >= made.updated_ms);
    store.put_logged_model_artifact_bytes(&made.id, b"x", "a/b").unwrap();
    let check = |store: &Store| {
        let model = store.get_logged_model(&made.id).unwrap();
        assert_eq!((model.name.as_str(), model.model_type.as_deref()), ("net", Some("agent")));
        assert_eq!(model.source_run_id.as_deref(), Some(run.id()));
        assert_eq!((model.params["lr"].as_str(), model.tags["t"].as_str()), ("0.1", "w"));
        assert_eq!(model.status, LoggedModelStatus::Ready);
        assert_eq!(store.list_logged_model_artifacts(&made.id, "a").unwrap()[0].path, "a/b");
        let location = store.logged_model_artifact_location(&model).unwrap();
        assert!(location.ends_with(&format!("/models/{}/artifacts", made.id)), "{location}");
    };
    check(&store);
    check(&medium::options().read_only(true).open(&path).unwrap());
    store.close().unwrap();
    check(&medium::options().open(&path).unwrap());
}

#[test]
fn names_keys_and_ids_have_rules() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let experiment = store.experiment("e").unwrap();
    let make = |options| store.create_logged_model(experiment.id(), options);
    assert!(!make(LoggedModelOptions::new()).unwrap().name.is_empty(), "a generated name");
    for bad in [
        LoggedModelOptions::new().name("a/b"),
        LoggedModelOptions::new().param("a//b", "v"),
        LoggedModelOptions::new().param("a", "1").param("a", "1"),
        LoggedModelOptions::new().tag("", "v"),
    ] {
        assert!(matches!(make(bad), Err(Error::InvalidArgument(_))));
    }
    assert!(matches!(store.get_logged_model("m-none"), Err(Error::NotFound { what: "logged model", .. })));
    assert!(matches!(
        store.create_logged_model("77", LoggedModelOptions::new()),
        Err(Error::NotFound { .. })
    ));
    store.delete_experiment(experiment.id()).unwrap();
    assert!(matches!(make(LoggedModelOptions::new()), Err(Error::InvalidState(_))));
}

#[test]
fn a_metric_has_a_latest_value_for_each_data_set() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = start(&store);
    let experiment = run.data().unwrap().experiment_id.clone();
    let model = store.create_logged_model(&experiment, LoggedModelOptions::new()).unwrap().id.clone();
    let (train, test) = (Some(("train set", "d1")), Some(("test", "d2")));
    run.log_model_batch(
        &[
            metric("acc", 1, 0.5, &model, train),
            metric("acc", 2, 0.6, &model, train),
            metric("acc", 2, 0.4, &model, test),
            metric("acc", 3, 0.9, "", None),
            metric("loss", 1, f64::NAN, &model, None),
            metric("loss", 1, 2.0, &model, None),
        ],
        &[("p", "1")],
        &[("t", "2")],
    )
    .unwrap();
    run.log_model_batch(&[metric("acc", 1, 0.7, &model, test)], &[], &[]).unwrap();
    let check = |store: &Store| {
        let found = store.get_logged_model(&model).unwrap();
        let text = |key: &str, step, value, dataset: &str| (key.to_owned(), step, value, dataset.to_owned());
        let known: Vec<_> = metrics(&found).into_iter().filter(|m| !m.2.is_nan()).collect();
        assert_eq!(known, [text("acc", 2, 0.4, "test@d2"), text("acc", 2, 0.6, "train set@d1")]);
        assert!(
            found.metrics.iter().any(|m| m.key == "loss" && m.point.value.is_nan()),
            "the first of equals"
        );
        assert!(found.metrics.iter().all(|m| m.run_id.as_deref() == Some(run.id())));
        // The run has all of them, and nothing of what the model is told beside.
        let data = store.get_run(run.id()).unwrap();
        assert_eq!((data.metrics["acc"].step, data.metrics["acc"].value), (3, 0.9));
        assert_eq!((data.params["p"].as_str(), data.tags["t"].as_str()), ("1", "2"));
        assert_eq!(store.metrics(run.id()).unwrap()[0].points, 5);
    };
    check(&store);
    store.close().unwrap();
    let store = medium::options().open(&path).unwrap();
    check(&store);
    store.compact(&mut |_| {}).unwrap();
    check(&store);
    let run = store.run(run.id()).unwrap();
    let missing = run.log_model_batch(&[metric("acc", 1, 1.0, "m-none", None)], &[], &[]);
    assert!(matches!(missing, Err(Error::NotFound { what: "logged model", .. })));
    assert!(run.log_model_batch(&[metric("a//b", 1, 1.0, &model, None)], &[], &[]).is_err());
}

#[test]
fn runs_say_what_they_used_and_made() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = start(&store);
    run.log_model_inputs(&["m-1", "m-2"]).unwrap();
    run.log_model_inputs(&["m-2"]).unwrap();
    let output = |model_id: &str, step| ModelOutput { model_id: model_id.into(), step };
    run.log_outputs(&[output("m-3", 7), output("m-4", 0)]).unwrap();
    run.log_outputs(&[output("m-3", 9)]).unwrap();
    let data = run.data().unwrap();
    assert_eq!(data.model_inputs, ["m-1", "m-2"]);
    assert_eq!(data.model_outputs, [output("m-3", 7), output("m-4", 0)], "as they were first logged");
    for bad in ["", "..", "a/b"] {
        assert!(run.log_model_inputs(&[bad]).is_err() && run.log_outputs(&[output(bad, 0)]).is_err());
    }
    store.delete_run(run.id()).unwrap();
    assert!(matches!(run.log_outputs(&[output("m-5", 0)]), Err(Error::InvalidState(_))));
}

#[test]
fn searches_filter_order_and_page() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = start(&store);
    let experiment = run.data().unwrap().experiment_id.clone();
    let make = |name: &str, kind: &str, size: &str| {
        // Times of creation are milliseconds, and these are to differ.
        std::thread::sleep(std::time::Duration::from_millis(2));
        let options =
            LoggedModelOptions::new().name(name).model_type(kind).param("size", size).tag("team", name);
        store.create_logged_model(&experiment, options).unwrap().id.clone()
    };
    let (a, b, c) = (make("a", "agent", "1"), make("b", "agent", "2"), make("c", "tree", "2"));
    let set = Some(("set", "1"));
    run.log_model_batch(
        &[
            metric("acc", 1, 0.1, &a, set),
            metric("acc", 1, 0.2, &b, set),
            metric("acc", 2, 0.9, &a, Some(("set", "2"))),
            metric("acc", 1, 0.3, &c, Some(("other", "1"))),
        ],
        &[],
        &[],
    )
    .unwrap();
    store.finalize_logged_model(&b, LoggedModelStatus::Ready).unwrap();
    let search = |filter: &str, datasets: &[(&str, Option<&str>)], order: &[(&str, bool)]| {
        let dataset = |(name, digest): &(&str, Option<&str>)| DatasetFilter {
            name: name.to_string(),
            digest: digest.map(str::to_owned),
        };
        LoggedModelSearch {
            experiment_ids: vec![experiment.clone()],
            filter: filter.into(),
            dialect: Dialect::MlFlow,
            datasets: datasets.iter().map(dataset).collect(),
            order_by: order
                .iter()
                .map(|(name, ascending)| LoggedModelOrderKey {
                    field_name: name.to_string(),
                    ascending: *ascending,
                    dataset: None,
                })
                .collect(),
            ..LoggedModelSearch::default()
        }
    };
    let found = |filter: &str, datasets: &[(&str, Option<&str>)], order: &[(&str, bool)]| -> String {
        let page = store.search_logged_models(&search(filter, datasets, order)).unwrap();
        page.items.iter().map(|model| model.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let by_name: &[(&str, bool)] = &[("name", true)];
    assert_eq!(found("", &[], by_name), "a b c");
    assert_eq!(found("", &[], &[]), "c b a", "newest first");
    assert_eq!(found("model_type = 'agent'", &[], by_name), "a b");
    assert_eq!(found("attributes.name IN ('a', 'c') AND params.size = '2'", &[], by_name), "c");
    assert_eq!(found("status = 'READY'", &[], by_name), "b");
    assert_eq!(found("status != 'READY' AND tags.team LIKE 'c%'", &[], by_name), "c");
    assert_eq!(found("creation_timestamp > 0", &[], by_name), "a b c");
    assert_eq!(found("metrics.acc > 0.25", &[], by_name), "a c", "the latest of all data sets");
    assert_eq!(found("metrics.acc > 0.15", &[("set", Some("1"))], by_name), "b");
    assert_eq!(found("", &[("other", None)], by_name), "c", "measured on it");
    assert_eq!(found("", &[], &[("metrics.acc", false)]), "a c b");
    assert_eq!(found("", &[("set", Some("1"))], &[("metrics.acc", false)]), "b a");
    for (bad, message) in [
        ("status = 'DONE'", "Unknown model status in filter: 'DONE'"),
        (
            "spam.x = 'y'",
            "Invalid entity type: 'spam'. Expected one of ['attributes', 'metrics', 'params', 'tags'].",
        ),
        ("status LIKE 'R%'", "Invalid comparison operator for status: LIKE"),
    ] {
        let error = store.search_logged_models(&search(bad, &[], &[])).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let odd = store.search_logged_models(&search("", &[], &[("params.size", true)])).unwrap_err();
    assert_eq!(odd.to_string(), "Invalid order by field name: params, only `metrics.<name>` is allowed.");
    let mut pages = LoggedModelSearch { max_results: 2, ..search("", &[], by_name) };
    let first = store.search_logged_models(&pages).unwrap();
    pages.page_token = first.next_page_token;
    let second = store.search_logged_models(&pages).unwrap();
    assert_eq!((first.items.len(), second.items[0].name.as_str()), (2, "c"));
    assert_eq!(second.next_page_token, None);
    store.delete_logged_model(&c).unwrap();
    assert_eq!(found("", &[], by_name), "a b");
    let elsewhere = store.experiment("other").unwrap();
    let none =
        LoggedModelSearch { experiment_ids: vec![elsewhere.id().into()], ..LoggedModelSearch::default() };
    assert!(store.search_logged_models(&none).unwrap().items.is_empty());
}

#[test]
fn a_registered_model_can_be_a_logged_one() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = start(&store);
    let experiment = run.data().unwrap().experiment_id.clone();
    let options = LoggedModelOptions::new().source_run_id(run.id());
    let logged = store.create_logged_model(&experiment, options).unwrap();
    store.create_registered_model("m", RegisteredModelOptions::new()).unwrap();
    let source = format!("models:/{}", logged.id);
    let options = ModelVersionOptions::new(&source).model_id(&logged.id);
    let version = store.create_model_version("m", options).unwrap();
    assert_eq!((version.run_id.as_deref(), version.model_id.as_deref()), (Some(run.id()), Some(&*logged.id)));
    assert_eq!(version.storage_location, None, "inside this store, wherever that is");
    assert_eq!(version.download_uri(), Some(source.as_str()));
    let unknown = store.create_model_version("m", ModelVersionOptions::new("models:/m-none"));
    assert!(matches!(unknown, Err(Error::NotFound { what: "logged model", .. })));
}

#[test]
fn what_is_deleted_can_be_collected() {
    let (_directory, path) = temp();
    let store = medium::options().open(&path).unwrap();
    let run = start(&store);
    let experiment = run.data().unwrap().experiment_id.clone();
    let make = || store.create_logged_model(&experiment, LoggedModelOptions::new()).unwrap().id.clone();
    let (kept, gone) = (make(), make());
    for id in [&kept, &gone] {
        store.put_logged_model_artifact_bytes(id, b"x", "f").unwrap();
    }
    run.log_model_batch(&[metric("m", 1, 1.0, &gone, None)], &[], &[]).unwrap();
    store.delete_logged_model(&gone).unwrap();
    store.delete_logged_model(&gone).unwrap();
    assert_eq!(store.get_logged_model(&gone).unwrap().lifecycle, Lifecycle::Deleted);
    let folder = store.logged_model_artifact_path(&gone, "f").unwrap();
    let report = store.gc(&GcOptions { older_than_ms: 0, dry_run: false }).unwrap();
    assert_eq!(report.logged_models, std::slice::from_ref(&gone));
    assert!(matches!(store.get_logged_model(&gone), Err(Error::NotFound { .. })));
    assert!(!folder.exists() && store.logged_model_artifact_path(&kept, "f").unwrap().exists());
    // With its experiment goes what is in it.
    store.delete_experiment(&experiment).unwrap();
    let report = store.gc(&GcOptions { older_than_ms: 0, dry_run: false }).unwrap();
    assert_eq!((report.experiments.len(), report.runs.len()), (1, 1));
    assert!(matches!(store.get_logged_model(&kept), Err(Error::NotFound { .. })));
    assert!(store.conflicts().unwrap().is_empty());
}
