//! Entities of trees beside experiments and runs, through a store: what MLflow wrote is shown as what it is, edits show
//! in an export and nothing else changes, and stores that kept the files as they were show the same.

mod medium;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlrs_db::mlruns::{ExportOptions, ImportOptions, ImportReport};
use mlrs_db::{
    Dialect, Lifecycle, LoggedModelOptions, LoggedModelOrderKey, LoggedModelSearch, LoggedModelStatus,
    Metric, ModelMetric, ModelOutput, ModelStage, ModelVersionOptions, RegisteredModelOptions, Search, Store,
};

fn unpack(archive: &str, into: &Path) {
    let tar = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(archive);
    fs::create_dir_all(into).unwrap();
    assert!(Command::new("tar").arg("xzf").arg(&tar).arg("-C").arg(into).status().unwrap().success());
}

/// The tree that a version of MLflow wrote, and an empty store.
struct Work {
    directory: tempfile::TempDir,
    tree: PathBuf,
    store: PathBuf,
}

impl Work {
    fn new(version: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        unpack(&format!("mlflow-{version}.tar.gz"), directory.path());
        let (tree, store) = (directory.path().join("mlruns"), directory.path().join("store"));
        Self { directory, tree, store }
    }

    /// The same with a store that a program made of both trees which knew experiments, runs and data sets only.
    fn of_files(version: &str) -> Self {
        let work = Self::new(version);
        unpack("store-of-files.tar.gz", work.directory.path());
        work
    }

    fn open(&self) -> Store {
        medium::options().open(&self.store).unwrap()
    }

    fn import(&self, store: &Store) -> ImportReport {
        self.import_with(store, &ImportOptions::default())
    }

    fn import_with(&self, store: &Store, options: &ImportOptions) -> ImportReport {
        store.import(&self.tree, options, &mut |_| {}).unwrap()
    }

    /// What differs between the tree and an export of it.
    fn differences(&self, store: &Store) -> Vec<String> {
        let target = self.directory.path().join("exported");
        let mut trees = store.tree_names().unwrap();
        let tree = trees.iter().position(|name| tree_is_at(name, &self.tree)).map(|at| trees.swap_remove(at));
        let options = ExportOptions { tree, overwrite: true, ..ExportOptions::default() };
        let report = store.export(&target, &options, &mut |_| {}).unwrap();
        assert_eq!(report.unexportable.len(), 0, "{:?}", report.unexportable);
        let diff = Command::new("diff").arg("-r").arg(&self.tree).arg(&target).output().unwrap();
        let text =
            String::from_utf8(diff.stdout).unwrap().replace(self.directory.path().to_str().unwrap(), "");
        text.lines().map(str::to_owned).collect()
    }
}

/// Whether an imported tree is the one at a path, by the version of MLflow that made it. The name of a tree that a test
/// imports has no version: all of the store is exported then, with what the test made beside the tree.
fn tree_is_at(name: &str, path: &Path) -> bool {
    let versions = ["2.22.5", "3.18.0"].into_iter();
    let mut named = versions.filter(|version| name.contains(version));
    named.any(|version| fs::read_to_string(path.join("0/meta.yaml")).unwrap().contains(version))
}

/// The logged models that MLflow's test script made, and the run that used and made some (3.x only).
fn check_logged_models(store: &Store, version: &str) {
    let find = |filter: &str| {
        let search = LoggedModelSearch {
            filter: filter.into(),
            dialect: Dialect::MlFlow,
            order_by: vec![LoggedModelOrderKey { field_name: "name".into(), ascending: true, dataset: None }],
            ..LoggedModelSearch::default()
        };
        let found = store.search_logged_models(&search).unwrap().items;
        found.iter().map(|model| model.name.clone()).collect::<Vec<_>>()
    };
    if version != "3.18.0" {
        return;
    }
    assert_eq!(find(""), ["ext", "mymodel", "pending-model"]);
    assert_eq!(find("metrics.mm > 0.55 AND attributes.status = 'READY'"), ["mymodel"]);
    let search = LoggedModelSearch { filter: "name = 'mymodel'".into(), ..LoggedModelSearch::default() };
    let model = store.search_logged_models(&search).unwrap().items.remove(0);
    assert_eq!(*store.get_logged_model(&model.id).unwrap(), *model);
    assert_eq!((model.params["p/q"].is_empty(), model.tags["t"].is_empty()), (false, false));
    let run = model.source_run_id.clone().unwrap();
    let metrics: Vec<_> = model
        .metrics
        .iter()
        .map(|m| (m.key.as_str(), m.point.step, m.point.value, m.run_id.clone(), m.dataset.clone()))
        .collect();
    let dataset = Some(("nospace".to_owned(), "987cd74d".to_owned()));
    assert_eq!(
        metrics,
        [("mm", 1, 0.5, Some(run.clone()), None), ("mm", 2, 0.6, Some(run.clone()), dataset)]
    );
    let made = store.get_run(&run).unwrap();
    assert_eq!(made.model_outputs, [ModelOutput { model_id: model.id.clone(), step: 0 }]);
    let user = store.get_run("086e91ba35fe45f4ba05bfac3f45e185").unwrap();
    let ext = "m-167f49339fef43ed8f41168a419eb8dc".to_owned();
    assert_eq!((user.model_inputs.as_slice(), user.model_outputs[0].step), (&[ext.clone()][..], 3));
    assert_eq!(user.model_outputs[0].model_id, ext);
    let deleted = store.get_logged_model("m-37af230426ab44a5b8925ba65a8e5d3a").unwrap();
    assert_eq!((deleted.lifecycle, deleted.status), (Lifecycle::Deleted, LoggedModelStatus::Pending));
    // What a run has as metrics is not what its models have.
    assert!(store.metrics(&run).unwrap().iter().all(|metric| metric.key != "mm" || metric.points == 2));
}

fn mlflow(filter: &str) -> Search {
    Search { filter: filter.into(), dialect: Dialect::MlFlow, ..Search::default() }
}

fn names(store: &Store, filter: &str) -> Vec<String> {
    let found = store.search_registered_models(&mlflow(filter)).unwrap().items;
    found.iter().map(|model| model.name.clone()).collect()
}

/// What MLflow's test script registered (`tests/mlflow/make_tree.py`).
fn check_registry(store: &Store) {
    let found = names(store, "");
    for name in ["Reg A", "empty", "m\u{f6}del", "renamed"] {
        assert!(found.iter().any(|known| known == name), "{name} in {found:?}");
    }
    assert_eq!(names(store, "tags.`mlflow.prompt.is_prompt` = 'true'")[0], "my_prompt");
    let model = store.get_registered_model("Reg A").unwrap();
    assert_eq!(model.description.as_deref(), Some("desc\nline2 \u{e9}"));
    assert_eq!((model.aliases["champ"], model.tags.len()), (1, 1));
    let version = store.get_model_version_by_alias("Reg A", "champ").unwrap();
    assert_eq!((version.version, version.stage), (1, ModelStage::Staging));
    assert_eq!((version.aliases.as_slice(), version.status.as_str()), (&["champ".to_owned()][..], "READY"));
    assert_eq!(version.source.as_deref(), Some("file:///srv/models/src"));
    assert_eq!(version.description.as_deref(), Some("mv"));
    assert!(version.run_id.is_some() && version.tags.contains_key("vt") && version.created_ms.is_some());
    assert!(store.get_model_version("empty", 1).is_err(), "MLflow deleted it");
    assert_eq!(store.get_model_version("empty", 2).unwrap().source.as_deref(), Some("s3://x/y2"));
    let prompt = store.get_model_version("my_prompt", 1).unwrap();
    assert!(prompt.tags["mlflow.prompt.text"].contains("{{"), "{:?}", prompt.tags);
}

#[test]
fn a_registry_is_imported_as_what_it_is() {
    for version in ["2.22.5", "3.18.0"] {
        let work = Work::new(version);
        let store = work.open();
        let report = work.import(&store);
        assert_eq!(report.problems_total, 1, "{:?}", report.problems);
        check_registry(&store);
        check_logged_models(&store, version);
        assert_eq!(work.differences(&store), [""; 0]);
        store.close().unwrap();
        check_logged_models(&work.open(), version);
        check_registry(&medium::options().read_only(true).open(&work.store).unwrap());
    }
}

#[test]
fn edits_of_a_registry_show_in_an_export_and_nothing_else_changes() {
    let work = Work::new("3.18.0");
    let store = work.open();
    work.import(&store);
    store.set_registered_model_alias("empty", "best", 2).unwrap();
    store.set_registered_model_tag("renamed", "k", "v").unwrap();
    let differences = work.differences(&store).join("\n");
    let expected = "Only in /exported/models/empty: aliases\n\
                    diff -r /mlruns/models/empty/meta.yaml /exported/models/empty/meta.yaml\n\
                    1c1,2\n< aliases: {}\n---\n> aliases:\n>   best: '2'\n\
                    Only in /exported/models/renamed: tags";
    assert_eq!(differences, expected);
    let exported = work.directory.path().join("exported/models");
    assert_eq!(fs::read(exported.join("empty/aliases/best")).unwrap(), b"2");
    store.delete_registered_model_alias("empty", "best").unwrap();
    store.delete_registered_model_tag("renamed", "k").unwrap();
    // As in MLflow the directories stay.
    let left = ["Only in /exported/models/empty: aliases", "Only in /exported/models/renamed: tags"];
    assert_eq!(work.differences(&store), left);

    store.rename_registered_model("Reg A", "Reg B").unwrap();
    store.transition_model_version_stage("Reg B", 2, ModelStage::Production, false).unwrap();
    store.delete_registered_model("renamed").unwrap();
    let made = store.create_registered_model("new", RegisteredModelOptions::new().tag("a", "b")).unwrap();
    store.create_model_version("new", ModelVersionOptions::new("s3://x").run_id("r")).unwrap();
    work.differences(&store);
    let read = |path: &str| fs::read_to_string(exported.join(path)).unwrap();
    assert!(!exported.join("Reg A").exists() && !exported.join("renamed").exists());
    assert!(read("Reg B/meta.yaml").contains("name: Reg B\n"));
    let version = read("Reg B/version-2/meta.yaml");
    assert!(
        version.contains("current_stage: Production\n") && version.contains("name: Reg B\n"),
        "{version}"
    );
    assert_eq!(read("Reg B/aliases/champ"), "1");
    let created = made.created_ms.unwrap();
    assert_eq!(
        read("new/meta.yaml").lines().filter(|line| !line.starts_with("last_updated")).collect::<Vec<_>>(),
        [
            "aliases: {}".to_owned(),
            format!("creation_timestamp: {created}"),
            "description: null".into(),
            "name: new".into()
        ]
    );
    assert_eq!(read("new/tags/a"), "b");
    assert!(read("new/version-1/meta.yaml").contains("storage_location: s3://x\n"));
    // A tree made of this is taken for what it is, too.
    let again = medium::options().open(work.directory.path().join("again")).unwrap();
    again.import(&work.directory.path().join("exported"), &ImportOptions::default(), &mut |_| {}).unwrap();
    let version = again.get_model_version("Reg B", 2).unwrap();
    assert_eq!(
        (version.stage, version.source.as_deref()),
        (ModelStage::Production, Some("s3://bucket/model"))
    );
}

#[test]
fn a_registry_that_went_on_is_taken_and_one_that_changed_is_told() {
    let work = Work::new("2.22.5");
    let store = work.open();
    work.import(&store);
    let model = work.tree.join("models/empty");
    let edit = |path: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    };
    // MLflow registers a version.
    fs::create_dir(model.join("version-3")).unwrap();
    fs::copy(model.join("version-2/meta.yaml"), model.join("version-3/meta.yaml")).unwrap();
    edit(&model.join("version-3/meta.yaml"), "version: 2", "version: 3");
    edit(
        &model.join("meta.yaml"),
        "last_updated_timestamp: 1795429612074",
        "last_updated_timestamp: 1895429612074",
    );
    let report = work.import(&store);
    assert_eq!(report.problems_total, 1, "{:?}", report.problems);
    assert_eq!(store.get_registered_model("empty").unwrap().latest_versions[0].version, 3);
    assert_eq!(store.get_registered_model("empty").unwrap().updated_ms, Some(1_895_429_612_074));
    assert_eq!(work.differences(&store), [""; 0]);
    // What is changed otherwise is reported and left, or taken.
    edit(&model.join("version-2/meta.yaml"), "current_stage: None", "current_stage: Archived");
    fs::remove_dir_all(work.tree.join("models/renamed")).unwrap();
    let texts = |report: &ImportReport| -> Vec<String> {
        let below = |path: &Path| path.strip_prefix(&work.tree).unwrap().display().to_string();
        report.problems.iter().skip(1).map(|p| format!("{}: {}", below(&p.path), p.text)).collect()
    };
    assert_eq!(
        texts(&work.import(&store)),
        [
            "models/empty/version-2/meta.yaml: changed since the last import; the store's state was kept (--replace \
             takes the tree's)",
            "models/renamed: no longer in the tree; the store keeps it"
        ]
    );
    assert_eq!(store.get_model_version("empty", 2).unwrap().stage, ModelStage::None);
    work.import_with(&store, &ImportOptions { replace: true, ..ImportOptions::default() });
    assert_eq!(store.get_model_version("empty", 2).unwrap().stage, ModelStage::Archived);
}

#[test]
fn a_directory_that_is_no_model_comes_back_as_it_was() {
    let work = Work::new("2.22.5");
    let models = work.tree.join("models");
    for (path, text) in [
        ("stray.txt", "x"),
        ("no meta/a", "b"),
        ("broken/meta.yaml", "name: [\n"),
        ("broken/version-1/meta.yaml", "version: 1\n"),
        ("nameless/meta.yaml", "aliases: {}\n"),
        ("empty/version-7/meta.yaml", "version: seven\n"),
        ("empty/version-8/stray", ""),
        ("empty/aliases/dangling", "99"),
        ("empty/aliases/odd", "02"),
        ("empty/notes/a.md", "#"),
        ("odd place/meta.yaml", "name: elsewhere\nunknown: 1\n"),
        ("odd place/version-x/meta.yaml", "version: 4\nname: another\nextra: [1, 2]\n"),
        ("odd place/version-x/tags/deep/k", "v"),
    ] {
        let path = models.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::create_dir_all(models.join("empty/version-2/tags/left")).unwrap();
    let store = work.open();
    work.import(&store);
    assert_eq!(work.differences(&store), [""; 0]);
    let odd = store.get_registered_model("elsewhere").unwrap();
    assert_eq!(odd.latest_versions[0].tags["deep/k"], "v");
    assert_eq!(odd.latest_versions[0].version, 4);
    assert!(store.get_registered_model("empty").unwrap().aliases.is_empty());
    assert_eq!(work.import(&store).registers_written, 0);
}

#[test]
fn a_store_that_kept_files_shows_a_registry_and_gives_it_back() {
    for version in ["2.22.5", "3.18.0"] {
        let work = Work::of_files(version);
        let store = medium::options().read_only(true).open(&work.store).unwrap();
        // Both trees have these models: the older claim answers to the name, and the others are told.
        check_registry(&store);
        check_logged_models(&store, "3.18.0");
        assert_eq!(names(&store, "name = 'Reg A'").len(), 2);
        assert!(
            store.conflicts().unwrap().iter().any(|lost| lost.to_string().contains("both named 'Reg A'"))
        );
        assert_eq!(work.differences(&store), [""; 0]);
    }
}

#[test]
fn what_was_kept_as_files_can_be_changed_and_stays_whole() {
    let work = Work::of_files("3.18.0");
    let store = work.open();
    store.set_registered_model_tag("m\u{f6}del", "k", "v").unwrap();
    store.update_model_version("Reg A", 2, Some("now")).unwrap();
    let differences = |store: &Store| work.differences(store).join("\n");
    let after = differences(&store);
    assert!(after.contains("tags") && after.contains("> description: now"), "{after}");
    store.close().unwrap();
    // By another handle, which finds an event of the model alone and the rest in files.
    let store = work.open();
    let version = store.get_model_version("Reg A", 2).unwrap();
    assert_eq!(
        (version.description.as_deref(), version.source.as_deref()),
        (Some("now"), Some("s3://bucket/model"))
    );
    assert_eq!(store.get_registered_model("m\u{f6}del").unwrap().tags["k"], "v");
    assert_eq!(differences(&store), after);
    store.delete_registered_model("renamed").unwrap();
    store.close().unwrap();
    let store = work.open();
    assert_eq!(names(&store, "name = 'renamed'").len(), 1, "that of the other tree");
    assert!(differences(&store).contains("Only in /mlruns/models: renamed"));
}

#[test]
fn importing_a_tree_again_makes_entities_of_what_was_kept_as_files() {
    let work = Work::of_files("3.18.0");
    let store = work.open();
    store.update_registered_model("empty", Some("mine")).unwrap();
    let edited = work.differences(&store);
    let report = work.import(&store);
    let other: Vec<_> = report.problems.iter().filter(|p| p.text.contains("longer in the tree")).collect();
    assert!(other.is_empty(), "{other:?}");
    assert_eq!(work.differences(&store), edited, "and the edit stays");
    assert_eq!(work.import(&store).registers_written, 0);
    check_registry(&store);
    check_logged_models(&store, "3.18.0");
    store.close().unwrap();
    check_registry(&work.open());
    check_logged_models(&work.open(), "3.18.0");
    assert_eq!(work.differences(&work.open()), edited);
}

#[test]
fn edits_of_logged_models_show_in_an_export_and_nothing_else_changes() {
    let work = Work::new("3.18.0");
    let store = work.open();
    work.import(&store);
    let (ready, pending) = ("m-abd10f993a954807803077ad17c4ae14", "m-0c50cb5620ff4c05b51a3830568d6de1");
    store.set_logged_model_tags(ready, &[("new", "tag")]).unwrap();
    store.log_logged_model_params(ready, &[("depth", "7")]).unwrap_err();
    store.delete_logged_model(pending).unwrap();
    let run = store.run("6062abd3934044f8a6d74226b480cc25").unwrap();
    let metric = Metric::new("mm", 3, 0.75);
    let dataset = Some(("nospace".to_owned(), "987cd74d".to_owned()));
    let logged = ModelMetric { metric: metric.clone(), model_id: Some(ready.into()), dataset };
    run.log_model_batch(&[logged], &[], &[]).unwrap();
    run.log_outputs(&[ModelOutput { model_id: pending.into(), step: 4 }]).unwrap();
    let text = work.differences(&store).join("\n");
    let experiment = "903891801000624790";
    let exported = work.directory.path().join("exported").join(experiment);
    let line = format!("{} 0.75 3", metric.point.timestamp_ms);
    for expected in [
        format!("> {line} nospace 987cd74d"),
        format!("> {line} {} nospace 987cd74d", run.id()),
        "> lifecycle_stage: deleted".to_owned(),
        format!("Only in /exported/{experiment}/models/{ready}/tags: new"),
        format!("Only in /exported/{experiment}/{}/outputs: {pending}", run.id()),
    ] {
        assert!(text.contains(&expected), "{expected} in {text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with(['<', '>'])).count(), 5, "{text}");
    let output = fs::read_to_string(exported.join(run.id()).join("outputs").join(pending).join("meta.yaml"));
    let expected = format!(
        "destination_id: {pending}\ndestination_type: MODEL_OUTPUT\nsource_id: {pending}\nsource_type: RUN_OUTPUT\n\
         step: 4\ntags: {{}}\n"
    );
    assert_eq!(output.unwrap(), expected);
    // What was made here goes out in MLflow's layout and comes back as what it was.
    let made = store
        .create_logged_model(
            experiment,
            LoggedModelOptions::new().name("made here").param("a", "1").tag("b", "2"),
        )
        .unwrap();
    store.put_logged_model_artifact_bytes(&made.id, b"weights", "data/model.bin").unwrap();
    let logged =
        ModelMetric { metric: Metric::new("acc", 1, 0.5), model_id: Some(made.id.clone()), dataset: None };
    run.log_model_batch(&[logged], &[("used", "yes")], &[]).unwrap();
    store.finalize_logged_model(&made.id, LoggedModelStatus::Ready).unwrap();
    run.log_model_inputs(&[&made.id]).unwrap();
    work.differences(&store);
    let again = medium::options().open(work.directory.path().join("again")).unwrap();
    again.import(&work.directory.path().join("exported"), &ImportOptions::default(), &mut |_| {}).unwrap();
    let (here, there) =
        (store.get_logged_model(&made.id).unwrap(), again.get_logged_model(&made.id).unwrap());
    assert_eq!((&here.name, &here.params, &here.tags), (&there.name, &there.params, &there.tags));
    assert_eq!(
        (&here.metrics, here.status, here.created_ms),
        (&there.metrics, there.status, there.created_ms)
    );
    let bytes = fs::read(again.logged_model_artifact_path(&made.id, "data/model.bin").unwrap()).unwrap();
    assert_eq!(bytes, b"weights");
    assert_eq!(again.get_run(run.id()).unwrap().model_inputs, std::slice::from_ref(&made.id));
}

#[test]
fn odd_logged_models_and_outputs_come_back_as_they_were() {
    let work = Work::new("3.18.0");
    let experiment = work.tree.join("903891801000624790");
    let run = experiment.join("6062abd3934044f8a6d74226b480cc25");
    for (path, text) in [
        ("models/no-id/meta.yaml", "name: x\n"),
        ("models/other/meta.yaml", "model_id: m-00000000000000000000000000000001\nname: moved\n"),
        (
            "models/m-00000000000000000000000000000002/meta.yaml",
            "model_id: m-00000000000000000000000000000002\nstatus: 9\nz: 1\n",
        ),
        ("models/m-00000000000000000000000000000002/metrics/deep/a", "1 2 3 run\n4 5 6 run ds d\nhalf a li"),
        ("models/m-00000000000000000000000000000002/notes", "#"),
        ("models/stray", ""),
    ] {
        fs::create_dir_all(experiment.join(path).parent().unwrap()).unwrap();
        fs::write(experiment.join(path), text).unwrap();
    }
    for (path, text) in [
        ("outputs/other/meta.yaml", "source_id: m-x\nsource_type: RUN_OUTPUT\nstep: 5\n"),
        ("outputs/odd/a", "x"),
        ("inputs/odd/meta.yaml", "source_id: m-y\nsource_type: MODEL\n"),
    ] {
        fs::create_dir_all(run.join(path).parent().unwrap()).unwrap();
        fs::write(run.join(path), text).unwrap();
    }
    let store = work.open();
    work.import(&store);
    assert_eq!(work.differences(&store), [""; 0]);
    assert_eq!(work.import(&store).registers_written, 0);
    let data = store.get_run("6062abd3934044f8a6d74226b480cc25").unwrap();
    assert_eq!(data.model_inputs, ["m-y"]);
    assert!(data.model_outputs.contains(&ModelOutput { model_id: "m-x".into(), step: 5 }));
    assert_eq!(store.get_logged_model("m-00000000000000000000000000000001").unwrap().name, "moved");
    let odd = store.get_logged_model("m-00000000000000000000000000000002").unwrap();
    assert_eq!(odd.metrics.len(), 2);
    assert_eq!(odd.metrics[0].key, "deep/a");
}
