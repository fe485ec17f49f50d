//! The model registry by example: names, numbers, stages, aliases, tags, searches, and what merging makes of them.

mod medium;

use std::path::{Path, PathBuf};

use mlrs_db::catalog::Conflict;
use mlrs_db::{
    Dialect, Error, ModelStage, ModelVersion, ModelVersionOptions, RegisteredModelOptions, Search, Store,
};

fn temp() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

fn open(path: &Path) -> Store {
    medium::options().open(path).unwrap()
}

fn model(store: &Store, name: &str) {
    store.create_registered_model(name, RegisteredModelOptions::new()).unwrap();
}

fn version(store: &Store, name: &str) -> u64 {
    store.create_model_version(name, ModelVersionOptions::new("s3://bucket/model")).unwrap().version
}

fn names(store: &Store, filter: &str, order_by: &[&str]) -> Vec<String> {
    let order_by = order_by.iter().map(|key| key.to_string()).collect();
    let search = Search { filter: filter.into(), order_by, dialect: Dialect::MlFlow, ..Search::default() };
    store.search_registered_models(&search).unwrap().items.iter().map(|model| model.name.clone()).collect()
}

fn versions(store: &Store, filter: &str) -> Vec<String> {
    let search = Search { filter: filter.into(), dialect: Dialect::MlFlow, ..Search::default() };
    let found = store.search_model_versions(&search).unwrap().items;
    found.iter().map(|version| format!("{}/{}", version.name, version.version)).collect()
}

#[test]
fn a_model_with_versions_is_read_back_by_any_handle() {
    let (_directory, path) = temp();
    let store = open(&path);
    let options = RegisteredModelOptions::new().description("finds cats").tag("team", "vision");
    let made = store.create_registered_model("Cat finder", options).unwrap();
    assert_eq!((made.name.as_str(), made.description.as_deref()), ("Cat finder", Some("finds cats")));
    let options = ModelVersionOptions::new("runs:/abc/model")
        .run_id("abc")
        .run_link("http://x/abc")
        .description("first")
        .user("ana")
        .model_id("m-1")
        .tag("acc", "0.9");
    let first = store.create_model_version("Cat finder", options).unwrap();
    assert_eq!((first.version, first.stage, first.status.as_str()), (1, ModelStage::None, "READY"));
    assert_eq!(version(&store, "Cat finder"), 2);
    store.set_registered_model_alias("Cat finder", "champion", 1).unwrap();
    let check = |store: &Store| {
        let model = store.get_registered_model("Cat finder").unwrap();
        assert_eq!((model.tags["team"].as_str(), model.aliases["champion"]), ("vision", 1));
        assert_eq!(model.latest_versions.iter().map(|v| v.version).collect::<Vec<_>>(), [2]);
        assert!(model.updated_ms >= model.created_ms && model.created_ms.is_some());
        let champion = store.get_model_version_by_alias("Cat finder", "champion").unwrap();
        assert_eq!(champion, store.get_model_version("Cat finder", 1).unwrap());
        let expected = ModelVersion { aliases: vec!["champion".into()], ..(*first).clone() };
        assert_eq!(*champion, expected);
        assert_eq!(champion.download_uri(), Some("runs:/abc/model"));
        assert_eq!(store.get_model_version_by_alias("Cat finder", "LATEST").unwrap().version, 2);
    };
    check(&store);
    check(&medium::options().read_only(true).open(&path).unwrap());
    store.close().unwrap();
    check(&open(&path));
}

#[test]
fn names_are_taken_freed_and_given_away() {
    let (_directory, path) = temp();
    let store = open(&path);
    model(&store, "a");
    let again = store.create_registered_model("a", RegisteredModelOptions::new());
    assert!(matches!(again, Err(Error::AlreadyExists { what: "registered model", .. })));
    model(&store, "b");
    version(&store, "a");
    assert!(matches!(store.rename_registered_model("a", "b"), Err(Error::AlreadyExists { .. })));
    assert!(store.rename_registered_model("a", " ").is_err());
    let renamed = store.rename_registered_model("a", "c").unwrap();
    assert_eq!((renamed.name.as_str(), renamed.latest_versions[0].name.as_str()), ("c", "c"));
    assert_eq!(store.rename_registered_model("c", "c").unwrap(), renamed, "its own name: nothing happens");
    assert!(matches!(store.get_registered_model("a"), Err(Error::NotFound { .. })));
    // The name is free again, and whoever takes it gets another model.
    model(&store, "a");
    assert!(store.get_registered_model("a").unwrap().latest_versions.is_empty());
    assert_eq!(version(&store, "a"), 1);
    store.delete_registered_model("a").unwrap();
    assert!(matches!(store.get_model_version("a", 1), Err(Error::NotFound { .. })));
    assert!(matches!(store.delete_registered_model("a"), Err(Error::NotFound { .. })));
    model(&store, "a");
    assert_eq!(version(&store, "a"), 1, "a new model counts anew");
    assert_eq!(names(&store, "", &[]), ["a", "b", "c"]);
}

#[test]
fn version_numbers_are_never_given_out_twice() {
    let (_directory, path) = temp();
    let store = open(&path);
    model(&store, "m");
    assert_eq!((version(&store, "m"), version(&store, "m")), (1, 2));
    store.set_registered_model_alias("m", "best", 2).unwrap();
    store.delete_model_version("m", 2).unwrap();
    assert!(matches!(store.get_model_version("m", 2), Err(Error::NotFound { .. })));
    assert!(matches!(store.delete_model_version("m", 2), Err(Error::NotFound { .. })));
    assert!(store.set_model_version_tag("m", 2, "k", "v").is_err());
    assert!(store.get_registered_model("m").unwrap().aliases.is_empty(), "its alias went with it");
    assert!(matches!(store.get_model_version_by_alias("m", "best"), Err(Error::InvalidArgument(_))));
    assert_eq!(version(&store, "m"), 3);
    store.close().unwrap();
    assert_eq!(version(&open(&path), "m"), 4);
}

/// Several handles on one store, as several processes would have.
#[test]
fn writers_at_the_same_time_get_different_numbers() {
    if medium::is_network() {
        // There is no lock to trust: two may get one number, and the younger answers to another.
        return;
    }
    let (_directory, path) = temp();
    model(&open(&path), "m");
    let writer = |_: usize| {
        let path = path.clone();
        std::thread::spawn(move || {
            let store = open(&path);
            (0..10).map(|_| version(&store, "m")).collect::<Vec<_>>()
        })
    };
    let writers: Vec<_> = (0..4).map(writer).collect();
    let mut given: Vec<u64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    given.sort_unstable();
    assert_eq!(given, (1..=40).collect::<Vec<_>>());
}

#[test]
fn stages_hold_the_versions_that_are_put_there() {
    let (_directory, path) = temp();
    let store = open(&path);
    model(&store, "m");
    for number in 1..=4 {
        assert_eq!(version(&store, "m"), number);
    }
    let put = |version, stage, archive| store.transition_model_version_stage("m", version, stage, archive);
    put(1, ModelStage::Production, false).unwrap();
    put(2, ModelStage::Production, false).unwrap();
    put(3, ModelStage::Staging, false).unwrap();
    let latest = |stages: &[ModelStage]| -> Vec<u64> {
        store.latest_model_versions("m", stages).unwrap().iter().map(|v| v.version).collect()
    };
    assert_eq!(latest(&[]), [4, 3, 2], "in the order of stages");
    assert_eq!(latest(&[ModelStage::Production, ModelStage::Archived]), [2]);
    assert_eq!(put(3, ModelStage::Production, true).unwrap().stage, ModelStage::Production);
    let stages = |n| store.get_model_version("m", n).unwrap().stage;
    assert_eq!((stages(1), stages(2)), (ModelStage::Archived, ModelStage::Archived));
    let refused = put(3, ModelStage::Archived, true).unwrap_err().to_string();
    assert_eq!(
        refused,
        "Model version transition cannot archive existing model versions because 'Archived' is not an Active stage. \
         Valid stages are ['Staging', 'Production']"
    );
    assert_eq!("production".parse::<ModelStage>().unwrap(), ModelStage::Production);
    assert_eq!(
        "prod".parse::<ModelStage>().unwrap_err().to_string(),
        "Invalid Model Version stage: prod. Value must be one of None, Staging, Production, Archived."
    );
}

#[test]
fn tags_and_descriptions_come_and_go() {
    let (_directory, path) = temp();
    let store = open(&path);
    model(&store, "m");
    version(&store, "m");
    store.set_registered_model_tag("m", "k", "1").unwrap();
    store.set_model_version_tag("m", 1, "k", "2").unwrap();
    store.set_model_version_tag("m", 1, "k", "3").unwrap();
    assert_eq!(store.get_registered_model("m").unwrap().tags["k"], "1");
    assert_eq!(store.get_model_version("m", 1).unwrap().tags["k"], "3");
    for _ in 0..2 {
        store.delete_registered_model_tag("m", "k").unwrap();
        store.delete_model_version_tag("m", 1, "k").unwrap();
    }
    assert!(store.get_registered_model("m").unwrap().tags.is_empty());
    assert!(store.get_model_version("m", 1).unwrap().tags.is_empty());
    assert_eq!(store.update_registered_model("m", Some("d")).unwrap().description.as_deref(), Some("d"));
    assert_eq!(store.update_registered_model("m", None).unwrap().description, None);
    assert_eq!(store.update_model_version("m", 1, Some("d")).unwrap().description.as_deref(), Some("d"));
    for bad in ["", "a//b"] {
        assert!(store.set_registered_model_tag("m", bad, "v").is_err());
        assert!(store.set_model_version_tag("m", 1, bad, "v").is_err());
    }
    for missing in
        [store.set_registered_model_tag("x", "k", "v"), store.delete_registered_model_tag("x", "k")]
    {
        assert!(matches!(missing, Err(Error::NotFound { .. })));
    }
}

#[test]
fn a_version_of_a_version_shares_its_files() {
    let (_directory, path) = temp();
    let store = open(&path);
    model(&store, "dev");
    model(&store, "prod");
    version(&store, "dev");
    let promoted = store.create_model_version("prod", ModelVersionOptions::new("models:/dev/1")).unwrap();
    assert_eq!(promoted.source.as_deref(), Some("models:/dev/1"));
    assert_eq!(promoted.download_uri(), Some("s3://bucket/model"));
    for bad in ["models:/dev/2", "models:/nobody/1", "models:/dev/Staging", "models:/"] {
        assert!(store.create_model_version("prod", ModelVersionOptions::new(bad)).is_err(), "{bad}");
    }
}

#[test]
fn searches_speak_mlflows_language() {
    let (_directory, path) = temp();
    let store = open(&path);
    for (name, team) in [("cats", "vision"), ("dogs", "vision"), ("text", "nlp")] {
        store.create_registered_model(name, RegisteredModelOptions::new().tag("team", team)).unwrap();
    }
    let prompt = RegisteredModelOptions::new().tag("mlflow.prompt.is_prompt", "true").tag("team", "nlp");
    store.create_registered_model("greeting", prompt).unwrap();
    let text = ModelVersionOptions::new("dummy").tag("mlflow.prompt.is_prompt", "true");
    store.create_model_version("greeting", text).unwrap();
    assert_eq!(names(&store, "", &[]), ["cats", "dogs", "text"]);
    assert_eq!(names(&store, "", &["name DESC"]), ["text", "dogs", "cats"]);
    assert_eq!(names(&store, "tags.team = 'nlp'", &[]), ["text"]);
    assert_eq!(names(&store, "tag.`team` != 'nlp' AND name LIKE '%s'", &[]), ["cats", "dogs"]);
    assert_eq!(names(&store, "name IN ('dogs', 'text', 'greeting')", &[]), ["dogs", "text"]);
    assert_eq!(names(&store, "tags.`mlflow.prompt.is_prompt` = 'true'", &[]), ["greeting"]);
    assert_eq!(
        names(&store, "tags.`mlflow.prompt.is_prompt` = 'false' AND tags.team = 'nlp'", &[]),
        ["text"]
    );
    assert_eq!(names(&store, "tags.`mlflow.prompt.is_prompt` != 'true'", &[]).len(), 3);

    let options = ModelVersionOptions::new("s3://b/1").run_id("r1").tag("q", "good");
    store.create_model_version("cats", options).unwrap();
    store.create_model_version("cats", ModelVersionOptions::new("s3://b/2").run_id("r2")).unwrap();
    store.create_model_version("dogs", ModelVersionOptions::new("s3://c/1").run_id("r1")).unwrap();
    store.create_model_version("dogs", ModelVersionOptions::new("s3://c/2")).unwrap();
    store.delete_model_version("dogs", 2).unwrap();
    let sorted = |filter: &str| {
        let mut found = versions(&store, filter);
        found.sort_unstable();
        found
    };
    assert_eq!(sorted(""), ["cats/1", "cats/2", "dogs/1"]);
    assert_eq!(sorted("name = 'cats'"), ["cats/1", "cats/2"]);
    assert_eq!(sorted("run_id = 'r1'"), ["cats/1", "dogs/1"]);
    assert_eq!(sorted("run_id IN ('r2', 'r9')"), ["cats/2"]);
    assert_eq!(sorted("source_path ILIKE 'S3://B/%'"), ["cats/1", "cats/2"]);
    assert_eq!(sorted("version_number > 1"), ["cats/2"]);
    assert_eq!(sorted("version_number <= '1'"), ["cats/1", "dogs/1"]);
    assert_eq!(sorted("tags.q = 'good'"), ["cats/1"]);
    assert_eq!(sorted("tags.`mlflow.prompt.is_prompt` = 'true'"), ["greeting/1"]);

    let search =
        |filter: &str| Search { filter: filter.into(), dialect: Dialect::MlFlow, ..Search::default() };
    for (filter, message) in [
        ("run_id = 'x'", "Invalid attribute key 'run_id' specified. Valid keys are '{'name'}'"),
        (
            "metrics.x = 'y'",
            "Invalid entity type 'metrics'. Valid entity types are ('attribute', 'tag', 'tags')",
        ),
        ("tags.a IS NULL", "IS NULL / IS NOT NULL is not supported for registered model search."),
        ("name = 'a' OR name = 'b'", "Invalid clause(s) in filter string: 'OR'"),
    ] {
        assert_eq!(store.search_registered_models(&search(filter)).unwrap_err().to_string(), message);
    }
    for (filter, message) in [
        ("tags.a IS NULL", "IS NULL / IS NOT NULL is not supported for model version search."),
        ("version_number = 1.5", "Invalid value for numeric attribute 'version_number': 1.5"),
        (
            "source_path IN ('a')",
            "Only ['name', 'run_id'] attributes support comparison with a list of quoted string values.",
        ),
    ] {
        assert_eq!(store.search_model_versions(&search(filter)).unwrap_err().to_string(), message);
    }
    let many = Search { max_results: 1_001, ..Search::default() };
    assert!(store.search_registered_models(&many).is_err());
    assert!(store.search_model_versions(&many).is_ok());
}

#[test]
fn pages_of_models_follow_each_other() {
    let (_directory, path) = temp();
    let store = open(&path);
    (0..7).for_each(|n| model(&store, &format!("m{n}")));
    let mut search = Search { max_results: 3, ..Search::default() };
    let mut found = Vec::new();
    loop {
        let page = store.search_registered_models(&search).unwrap();
        found.extend(page.items.iter().map(|model| model.name.clone()));
        search.page_token = page.next_page_token;
        if search.page_token.is_none() {
            break;
        }
    }
    assert_eq!(found, (0..7).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

/// One model on two machines, which both went on: after a merge it is one, and nothing is lost.
#[test]
fn merged_stores_have_one_model_and_all_versions() {
    let (_directory, path) = temp();
    let (_other_directory, other_path) = temp();
    let (store, other) = (open(&path), open(&other_path));
    for (store, source) in [(&store, "s3://here"), (&other, "s3://there")] {
        model(store, "m");
        store.create_model_version("m", ModelVersionOptions::new(source)).unwrap();
        store.set_registered_model_alias("m", "best", 1).unwrap();
        // Stamps count milliseconds: within one, writers' ids decide which is the older.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    other.close().unwrap();
    store.merge(&other_path, false, &mut |_| {}).unwrap();
    let search = Search::default();
    assert_eq!(store.search_registered_models(&search).unwrap().items.len(), 1);
    let all = store.search_model_versions(&search).unwrap().items;
    let mut sources: Vec<_> = all.iter().filter_map(|v| v.source.clone()).collect();
    sources.sort_unstable();
    assert_eq!(sources, ["s3://here", "s3://there"]);
    assert_eq!(store.get_model_version("m", 1).unwrap().source.as_deref(), Some("s3://here"), "the older");
    let lost = store.conflicts().unwrap();
    let [Conflict::ModelVersion { model, version: 1, answers_to, .. }] = &lost[..] else {
        panic!("{lost:?}")
    };
    assert_eq!(model, "m");
    let younger = store.get_model_version("m", *answers_to).unwrap();
    assert_eq!(younger.source.as_deref(), Some("s3://there"));
    // The later alias won, and names the version that it was given to, whatever its number is here.
    let best = store.get_registered_model("m").unwrap().aliases["best"];
    assert_eq!(best, *answers_to);
    assert_eq!(version(&store, "m"), 2, "numbers go on in turn");
}
