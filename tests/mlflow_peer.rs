//! MLflow itself, without our program: that its three versions are there, that they read the trees they wrote, and
//! that the answers are fit to be compared (equal from one reading to the next, nothing written while reading).
//!
//! What the program makes of these trees is in `mlflow_round_trip.rs`.

mod mlflow;

use mlflow::{Counts, assert_same_answers, assert_same_tree, errors, mlflow_reads, unpack};

fn reads_its_own_tree(version: &str, expected: Counts) {
    let scratch = mlflow::scratch();
    let untouched = unpack(version, &scratch.path().join("a"));
    let read = unpack(version, &scratch.path().join("b"));

    let first = mlflow_reads(version, &read.join("mlruns"));
    assert_eq!(Counts::of(&first), expected);
    assert_eq!(errors(&first), []);

    let second = mlflow_reads(version, &read.join("mlruns"));
    assert_same_answers(&first, &second, "one tree read twice");
    let elsewhere = mlflow_reads(version, &untouched.join("mlruns"));
    assert_same_answers(&first, &elsewhere, "one tree read in two places");
    assert_same_tree(&unpack(version, &scratch.path().join("c")), &read);
}

#[test]
fn mlflow_1_reads_its_own_tree() {
    reads_its_own_tree(
        "1.22.0",
        Counts {
            experiments: 63,
            deleted_experiments: 1,
            runs: 25,
            metrics: 37,
            points: 1257,
            params: 26,
            tags: 104,
            ..Counts::default()
        },
    );
}

#[test]
fn mlflow_2_reads_its_own_tree() {
    reads_its_own_tree(
        "2.22.5",
        Counts {
            experiments: 62,
            deleted_experiments: 1,
            runs: 27,
            metrics: 41,
            points: 1261,
            params: 26,
            tags: 115,
            dataset_inputs: 1,
            traces: 2,
            registered_models: 4,
            ..Counts::default()
        },
    );
}

#[test]
fn mlflow_3_reads_its_own_tree() {
    reads_its_own_tree(
        "3.18.0",
        Counts {
            experiments: 61,
            deleted_experiments: 1,
            runs: 28,
            metrics: 43,
            points: 1264,
            params: 26,
            tags: 118,
            dataset_inputs: 3,
            logged_models: 3,
            traces: 2,
            registered_models: 5,
            ..Counts::default()
        },
    );
}

/// MLflow wrote these and cannot read them: one float among the timestamps hides a whole experiment from search.
#[test]
fn a_poisoned_run_is_an_answer_too() {
    for (version, expected) in [("1.22.0", 3), ("2.22.5", 3), ("3.18.0", 5)] {
        let scratch = mlflow::scratch();
        let tree = unpack(version, scratch.path()).join("poison/mlruns");
        let answer = mlflow_reads(version, &tree);
        let errors = errors(&answer);
        assert_eq!(errors.len(), expected, "MLflow {version}: {errors:?}");
        let of_search: Vec<_> = errors.iter().filter(|(path, _)| path.ends_with("/search_runs")).collect();
        assert!(
            matches!(of_search[..], [(_, error)] if error == "ValueError"),
            "MLflow {version}: {of_search:?}"
        );
        assert_same_answers(&answer, &mlflow_reads(version, &tree), "a poisoned tree read twice");
    }
}

/// Each version still reads what the versions before it wrote, except for one thing: a run that MLflow 3 wrote has no
/// `run_uuid`, and MLflow 1 cannot do without.
#[test]
fn a_version_reads_the_trees_of_its_predecessors() {
    let scratch = mlflow::scratch();
    let trees = mlflow::VERSIONS.map(|version| unpack(version, scratch.path()).join("mlruns"));
    for (i, reader) in mlflow::VERSIONS.iter().enumerate() {
        for (tree, experiments) in trees[..=i].iter().zip([63, 62, 61]) {
            let counts = Counts::of(&mlflow_reads(reader, tree));
            assert_eq!(
                (counts.experiments, counts.errors),
                (experiments, 0),
                "{reader} on {}",
                tree.display()
            );
        }
    }
    let backwards = mlflow_reads("1.22.0", &trees[2]);
    assert_eq!(Counts::of(&backwards).runs, 0);
    assert!(errors(&backwards).iter().any(|(_, error)| error == "TypeError"));
}

#[test]
fn a_fresh_tree_holds_what_was_written() {
    for version in mlflow::VERSIONS {
        let scratch = mlflow::scratch();
        let (tree, written) = mlflow::mlflow_writes(version, scratch.path(), 7);
        let answer = mlflow_reads(version, &tree);
        let counts = Counts::of(&answer);
        assert_eq!(written["experiments"], counts.experiments, "MLflow {version}");
        assert_eq!(written["runs"], counts.runs, "MLflow {version}");
        assert_eq!(written["points"], counts.points, "MLflow {version}");
        // The folder that one experiment chose for its artifacts lies among the experiments.
        assert_eq!(
            errors(&answer)
                .iter()
                .filter(|(path, _)| !path.starts_with("/experiments/elsewhere_1"))
                .collect::<Vec<_>>(),
            Vec::<&(String, String)>::new(),
            "MLflow {version}"
        );
    }
}

/// The generator is a yardstick only if MLflow reads what it makes: all of it but the damage, which has an
/// experiment (777) of its own.
#[test]
fn mlflow_3_reads_a_made_tree() {
    let scratch = mlflow::scratch();
    let (tree, made) = mlflow::make_tree(scratch.path(), &["--points-total", "50000", "--lines-max", "5000"]);
    let answer = mlflow_reads("3.18.0", &tree);
    let strange: Vec<_> = errors(&answer)
        .into_iter()
        .filter(|(path, _)| !path.starts_with("/experiments/777/"))
        .filter(|(path, _)| !path.contains("/not_a_run") && !path.contains("/no_experiment_here"))
        .collect();
    assert_eq!(strange, []);
    let counts = Counts::of(&answer);
    assert_eq!(made["experiments"], counts.experiments);
    // 50 runs, and one in each of the three deleted experiments.
    assert_eq!((counts.runs, counts.deleted_experiments), (53, 2));
    assert!(counts.points > 45_000, "{counts:?}");
}

#[test]
fn one_seed_makes_one_tree() {
    let scratch = mlflow::scratch();
    let arguments = ["--runs", "6", "--points-total", "3000", "--lines-max", "500", "--seed", "3"];
    let (one, counts) = mlflow::make_tree(&scratch.path().join("one"), &arguments);
    let (two, _) = mlflow::make_tree(&scratch.path().join("two"), &arguments);
    assert!(counts["lines"].as_u64().is_some_and(|lines| lines > 3000), "{counts}");
    assert_same_tree(&one, &two);
}
