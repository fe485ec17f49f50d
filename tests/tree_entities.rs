//! Entities of trees beside experiments and runs, through a store: what MLflow wrote is shown as what it is, edits show
//! in an export and nothing else changes, and stores that kept the files as they were show the same.

mod medium;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlrs_db::mlruns::{ExportOptions, ImportOptions, ImportReport};
use mlrs_db::{Dialect, ModelStage, ModelVersionOptions, RegisteredModelOptions, Search, Store};

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
        assert_eq!(work.differences(&store), [""; 0]);
        store.close().unwrap();
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
    store.close().unwrap();
    check_registry(&work.open());
    assert_eq!(work.differences(&work.open()), edited);
}
