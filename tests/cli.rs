//! The program where no store is needed: help, usage, advice, completions, manual pages, pipes.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program with nothing of the tester's environment that could change an answer.
fn mlrs_db(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlrs-db"));
    command.args(arguments).env_remove("MLRS_DB_STORE").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    mlrs_db(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const VERBS: &[&[&str]] = &[
    &["init"],
    &["import"],
    &["export"],
    &["experiments", "ls"],
    &["experiments", "show"],
    &["runs", "ls"],
    &["runs", "search"],
    &["runs", "show"],
    &["metrics", "ls"],
    &["metrics", "get"],
    &["metrics", "plot"],
    &["log"],
    &["stats"],
    &["verify"],
    &["compact"],
    &["gc"],
    &["server"],
    &["completions"],
    &["man"],
];

#[test]
fn every_verb_has_help_with_examples_on_standard_output() {
    for verb in VERBS {
        let output = run(&[*verb, &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{verb:?}");
        assert!(stdout(&output).contains("EXAMPLES:\n  "), "{verb:?}");
        assert_eq!(stderr(&output), "");
    }
    let output = run(&["--version"]);
    assert_eq!(stdout(&output), format!("mlrs-db {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn usage_errors_are_exit_code_2_on_stderr() {
    for arguments in [
        &["frobnicate"][..],
        &["runs"],
        &["runs", "ls", "--limit", "many"],
        &["import"],
        &["gc", "--older-than", "1 year"],
        &["metrics", "get", "run", "key", "--steps", "a..b"],
        &["metrics", "get", "run", "key", "--csv", "--json"],
        &["log", "--run-id", "abcd", "--run", "name"],
        &["log", "--param", "no-equals-sign"],
        &["--color", "sometimes", "stats"],
        &["completions", "cmd.exe"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert!(
            stderr(&output).contains("--help") || stderr(&output).contains("Usage"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_pair_without_a_left_side_says_what_to_write() {
    let uris = run(&["export", "out", "--rewrite-uris", "=x"]);
    assert!(stderr(&uris).contains("nothing stands before '=': write FROM=TO"), "{}", stderr(&uris));
    let param = run(&["log", "--param", "lr"]);
    assert!(stderr(&param).contains("it has no '=': write KEY=VALUE"), "{}", stderr(&param));
}

#[test]
fn no_store_given_says_three_ways_to_give_one() {
    for arguments in [&["stats"][..], &["runs", "ls"], &["import", "mlruns"], &["log"], &["init"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
        for word in ["--store", "mlrs-db init"] {
            assert!(stderr(&output).contains(word), "{}", stderr(&output));
        }
    }
    assert!(stderr(&run(&["stats"])).contains("MLRS_DB_STORE"));
}

#[test]
fn a_store_that_is_not_there_is_exit_code_3_with_advice() {
    let here = tempfile::tempdir().unwrap();
    let missing = here.path().join("no-store");
    let missing = missing.to_str().unwrap();
    for verb in [
        &["stats"][..],
        &["runs", "ls"],
        &["verify"],
        &["compact"],
        &["gc"],
        &["log"],
        &["metrics", "ls", "x"],
    ] {
        let output = run(&[verb, &["--store", missing]].concat());
        assert_eq!(output.status.code(), Some(3), "{verb:?} {}", stderr(&output));
        assert_eq!(stdout(&output), "");
        assert!(
            stderr(&output).contains(&format!("hint: make one with `mlrs-db init {missing}`")),
            "{}",
            stderr(&output)
        );
    }
    let output = mlrs_db(&["stats"]).env("MLRS_DB_STORE", missing).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "the variable names the store");
    assert!(!Path::new(missing).exists(), "looking at a store must not make one");
}

#[test]
fn importing_nothing_makes_no_store() {
    let here = tempfile::tempdir().unwrap();
    let (store, source) = (here.path().join("store"), here.path().join("mlrun"));
    let output = run(&["import", source.to_str().unwrap(), "--store", store.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains(source.to_str().unwrap()) && !store.exists(), "{}", stderr(&output));
}

#[test]
fn a_failed_import_leaves_no_store_behind() {
    let here = tempfile::tempdir().unwrap();
    let tree = here.path().join("mlruns");
    std::fs::create_dir_all(tree.join("1")).unwrap();
    std::fs::write(tree.join("1/meta.yaml"), "experiment_id: '1'\nlifecycle_stage: active\nname: {").unwrap();
    let store = here.path().join("store");
    let import = |source: &Path, store: &Path, more: &[&str]| {
        run(&[&["import", source.to_str().unwrap(), "--store", store.to_str().unwrap()], more].concat())
    };
    // A file; a directory that holds no tree, though one is below it; a tree with problems, which are not accepted.
    let output = import(&tree.join("1/meta.yaml"), &store, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let output = import(here.path(), &store, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(tree.to_str().unwrap()), "{}", stderr(&output));
    let output = import(&tree, &store, &["--strict"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(!store.exists());
    // A directory that was there stays empty.
    let empty = tempfile::tempdir().unwrap();
    for more in ["--strict", "--dry-run"] {
        import(&tree, empty.path(), &[more]);
        assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "{more}");
    }
    // What is accepted is imported, with --strict too.
    assert_eq!(import(&tree, &store, &[]).status.code(), Some(0));
    std::fs::write(
        tree.join("1/meta.yaml"),
        "artifact_location: file:///x/1\nexperiment_id: '1'\nlifecycle_stage: active\nname: one\n",
    )
    .unwrap();
    let store = here.path().join("strict");
    let output = import(&tree, &store, &["--strict"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(store.join("MLRS").exists());
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let output = mlrs_db(&["stats"]).env("MLRS_DB_STORE", "").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--store"), "{}", stderr(&output));
    assert_eq!(
        mlrs_db(&["completions", "bash"]).env("MLRS_DB_STORE", "").output().unwrap().status.code(),
        Some(0)
    );
}

#[test]
fn colours_are_off_in_a_pipe_on_when_forced_and_no_color_is_honoured() {
    let coloured = |arguments: &[&str]| stderr(&run(arguments)).contains('\x1b');
    assert!(!coloured(&["stats"]));
    assert!(coloured(&["--color", "always", "stats"]));
    assert!(!coloured(&["--color", "never", "stats"]));
    let forced = mlrs_db(&["--color", "always", "--help"]).output().unwrap();
    assert!(stdout(&forced).contains('\x1b'));
}

#[test]
fn completions_name_every_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        for word in ["import", "experiments", "plot", "order-by"] {
            assert!(stdout(&output).contains(word), "{shell} {word}");
        }
    }
}

#[test]
fn manual_pages_one_or_all() {
    let output = run(&["man"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains(".TH mlrs-db 1"), "{}", stdout(&output));
    let nowhere = run(&["man", "--out", "/proc/no-such-directory/man"]);
    assert_eq!(nowhere.status.code(), Some(1), "a file that cannot be made is no missing answer");
    assert!(stderr(&nowhere).contains("create /proc/no-such-directory/man"), "{}", stderr(&nowhere));
    let here = tempfile::tempdir().unwrap();
    let dir = here.path().join("man/man1");
    let output =
        mlrs_db(&["man", "--out", dir.to_str().unwrap()]).env("MLRS_DB_STORE", "secret").output().unwrap();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), ""));
    for verb in VERBS {
        let page = dir.join(format!("mlrs-db-{}.1", verb.join("-")));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        assert!(text.contains("EXAMPLES") && !text.contains("secret"), "{verb:?}");
    }
}

/// The reader goes away before the first byte, which is the hardest case of `| head`.
#[test]
fn a_closed_pipe_ends_quietly() {
    for arguments in [&["completions", "bash"][..], &["man"], &["--help"], &["metrics", "plot", "--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = mlrs_db(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_under_standard_output_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = mlrs_db(&["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("standard output"), "{}", stderr(&output));
}
