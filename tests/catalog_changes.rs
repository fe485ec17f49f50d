//! What the verbs of the API do to the metadata, told as stories; the choices are listed in `catalog::changes`.

use std::collections::BTreeMap;

use mlrs_db::Error;
use mlrs_db::catalog::changes::{self, NewRun, Resolution, RunUpdate};
use mlrs_db::catalog::{Catalog, Clock, Conflict, rules};
use mlrs_db::format::event::{EntityKind, Event, Field, Operation, Value};
use mlrs_db::id::{Uid, WriterId};
use mlrs_db::model::{Dataset, DatasetInput, Lifecycle, RunStatus};

/// A store without a log: what it would write is applied at once and remembered.
struct Node {
    catalog: Catalog,
    clock: Clock,
    events: Vec<Event>,
    now: u64,
}

impl Node {
    fn new(n: u8) -> Self {
        let clock = Clock::new(WriterId::from_bytes([n; 16]));
        Self { catalog: Catalog::new(), clock, events: Vec::new(), now: 1_000 * u64::from(n) }
    }

    fn write(&mut self, operations: Result<Vec<Operation>, Error>) {
        self.now += 1;
        let event = Event {
            stamp: self.clock.next(self.now).unwrap(),
            operations: operations.unwrap(),
            attributes: Vec::new(),
        };
        self.catalog.apply(&event).unwrap();
        self.events.push(event);
    }

    fn experiment(&mut self, name: &str) -> Uid {
        match changes::get_or_create_experiment(&self.catalog, name, self.now as i64).unwrap() {
            Resolution::Exists(uid) => uid,
            Resolution::Create { uid, operations } => {
                self.write(Ok(operations));
                uid
            }
        }
    }

    fn run(&mut self, experiment: Uid, n: u8) -> Uid {
        let uid = Uid::from_bytes([n; 16]);
        let new = NewRun { uid, experiment, start_ms: 5, random: 3, ..NewRun::default() };
        self.write(changes::create_run(&self.catalog, &new));
        uid
    }

    /// `rsync` of the other's log.
    fn copy(&mut self, other: &Self) {
        for event in &other.events {
            self.catalog.apply(event).unwrap();
            self.clock.observe(event.stamp).unwrap();
        }
    }

    fn lifecycles(&self, experiment: Uid) -> Vec<(Lifecycle, Option<i64>)> {
        let render = |run: &_| self.catalog.render_run(run);
        self.catalog.runs_of(experiment).map(|r| render(r)).map(|r| (r.lifecycle, r.deleted_ms)).collect()
    }
}

#[test]
fn one_name_on_two_machines_is_one_experiment() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let (on_a, on_b) = (a.experiment("mnist"), b.experiment("mnist"));
    assert_eq!(on_a, on_b);
    a.run(on_a, 1);
    b.run(on_b, 2);
    a.copy(&b);
    assert_eq!(a.catalog.experiments().count(), 1);
    assert_eq!(a.catalog.runs_of(on_a).count(), 2);
    assert_eq!(a.catalog.conflicts(), []);
    let seen = a.catalog.render_experiment(a.catalog.experiment_by_name("mnist").unwrap());
    assert!(seen.id.len() == 18 && seen.id == b.catalog.experiment_id(on_b));
    assert_eq!(a.catalog.experiment_by_id(&seen.id).unwrap().uid(), on_a);
}

#[test]
fn a_name_that_was_renamed_away_or_purged_starts_a_new_experiment() {
    let mut node = Node::new(1);
    let first = node.experiment("mnist");
    node.write(changes::rename_experiment(&node.catalog, first, "old mnist", 7));
    let second = node.experiment("mnist");
    assert_ne!(first, second);
    node.write(changes::purge_experiment(&node.catalog, second));
    let third = node.experiment("mnist");
    assert!(third != first && third != second);
    assert_eq!(node.catalog.experiment_by_name("old mnist").unwrap().uid(), first);
    assert!(node.catalog.experiment(second).is_none() && node.catalog.experiments().count() == 2);
}

#[test]
fn the_default_experiment_has_id_0() {
    let mut node = Node::new(1);
    let uid = node.experiment("Default");
    assert_eq!(node.catalog.experiment_id(uid), "0");
    assert_eq!(node.catalog.experiment_by_id("0").unwrap().uid(), uid);
    node.write(changes::delete_experiment(&node.catalog, uid, 9));
    assert_eq!(node.catalog.experiment(uid).unwrap().lifecycle(), Lifecycle::Deleted);
}

/// Two imported trees both have an experiment 1: both stay reachable, and their runs do not mix.
#[test]
fn a_lost_id_or_name_stays_reachable_and_is_reported() {
    let mut node = Node::new(1);
    let import = |uid, name: &str| {
        [(Field::NAME, name), (Field::NUMERIC_ID, "1")]
            .map(|(field, text)| Operation {
                kind: EntityKind::EXPERIMENT,
                uid,
                field,
                key: String::new(),
                value: Value::from(text),
            })
            .to_vec()
    };
    let (foo, bar) = (Uid::from_bytes([7; 16]), Uid::from_bytes([3; 16]));
    node.write(Ok(import(foo, "same")));
    node.write(Ok(import(bar, "same")));
    assert_eq!(node.catalog.experiment_by_id("1").unwrap().uid(), foo);
    assert_eq!(node.catalog.experiment_by_name("same").unwrap().uid(), foo);
    let own = node.catalog.experiment_id(bar);
    assert_eq!(node.catalog.experiment_by_id(&own).unwrap().uid(), bar);
    assert_eq!(
        node.catalog.conflicts(),
        [
            Conflict::ExperimentName { name: "same".into(), holder: foo, loser: bar },
            Conflict::ExperimentId { id: "1".into(), holder: foo, loser: bar, answers_to: own },
        ]
    );
    node.write(changes::rename_experiment(&node.catalog, foo, "other", 9));
    assert_eq!(node.catalog.experiment_by_name("same").unwrap().uid(), bar);
    node.write(changes::purge_experiment(&node.catalog, foo));
    assert_eq!(node.catalog.experiment_id(bar), "1");
    assert_eq!(node.catalog.conflicts(), []);
}

#[test]
fn deleting_an_experiment_takes_its_active_runs_and_restoring_revives_all() {
    let mut node = Node::new(1);
    let uid = node.experiment("e");
    let early = node.run(uid, 1);
    node.run(uid, 2);
    node.write(changes::delete_run(&node.catalog, early, 10));
    assert_eq!(changes::delete_run(&node.catalog, early, 11).unwrap(), [], "deleted again: nothing to write");
    node.write(changes::delete_experiment(&node.catalog, uid, 20));
    assert_eq!(
        node.lifecycles(uid),
        [(Lifecycle::Deleted, Some(10)), (Lifecycle::Deleted, Some(20))],
        "the run deleted before keeps its time"
    );
    assert!(matches!(changes::delete_experiment(&node.catalog, uid, 21), Err(Error::NotFound { .. })));
    let taken = changes::create_experiment(&node.catalog, "e", None, &[], 22).unwrap_err();
    assert_eq!(
        taken.to_string(),
        "experiment 'e' already exists in deleted state; restore it, or purge it in order to use this experiment name \
         again"
    );
    let id = node.catalog.experiment_id(uid);
    assert_eq!(
        changes::rename_experiment(&node.catalog, uid, "f", 23).unwrap_err().to_string(),
        "Cannot rename a non-active experiment."
    );
    assert_eq!(
        changes::set_experiment_tags(&node.catalog, uid, &[("k", "v")]).unwrap_err().to_string(),
        format!("The experiment {id} must be in the 'active' state. Current state is deleted.")
    );
    let new = NewRun { uid: Uid::from_bytes([3; 16]), experiment: uid, ..NewRun::default() };
    assert!(matches!(changes::create_run(&node.catalog, &new), Err(Error::InvalidState(_))));
    node.write(changes::restore_experiment(&node.catalog, uid, 30));
    assert_eq!(node.lifecycles(uid), [(Lifecycle::Active, None); 2]);
    assert!(matches!(changes::restore_experiment(&node.catalog, uid, 31), Err(Error::NotFound { .. })));
    assert_eq!(changes::restore_run(&node.catalog, early).unwrap(), []);
    assert_eq!(node.catalog.render_experiment(node.catalog.experiment(uid).unwrap()).updated_ms, Some(30));
}

#[test]
fn a_run_is_made_in_one_event_and_read_back() {
    let mut node = Node::new(1);
    let experiment = node.experiment("e");
    let uid = Uid::from_bytes([0xaa; 16]);
    let new = NewRun {
        uid,
        experiment,
        name: "lr-3",
        user: "ada",
        start_ms: 77,
        params: &[("lr", "0.1"), ("seed", "7")],
        tags: &[("team", "vision")],
        artifact_uri: None,
        random: 0,
    };
    node.write(changes::create_run(&node.catalog, &new));
    let run = node.catalog.render_run(node.catalog.run_by_id(&uid.to_string()).unwrap());
    assert_eq!(
        (run.name.as_str(), run.user.as_str(), run.start_ms, run.end_ms),
        ("lr-3", "ada", Some(77), None)
    );
    assert_eq!((run.status, run.lifecycle), (RunStatus::Running, Lifecycle::Active));
    assert_eq!(run.experiment_id, node.catalog.experiment_id(experiment));
    assert_eq!(run.params, BTreeMap::from([("lr".into(), "0.1".into()), ("seed".into(), "7".into())]));
    let tags = BTreeMap::from([("mlflow.runName".into(), "lr-3".into()), ("team".into(), "vision".into())]);
    assert_eq!(run.tags, tags);
    assert!(matches!(changes::create_run(&node.catalog, &new), Err(Error::AlreadyExists { .. })));

    let update = RunUpdate { status: Some(RunStatus::Finished), end_ms: Some(99), name: Some("") };
    node.write(changes::update_run(&node.catalog, uid, update));
    let run = node.catalog.render_run(node.catalog.run(uid).unwrap());
    assert_eq!((run.status, run.end_ms, run.name.as_str()), (RunStatus::Finished, Some(99), "lr-3"));
}

#[test]
fn the_name_and_the_name_tag_are_one() {
    let mut node = Node::new(1);
    let experiment = node.experiment("e");
    let uid = node.run(experiment, 1);
    let name = |node: &Node| {
        let run = node.catalog.render_run(node.catalog.run(uid).unwrap());
        assert_eq!(run.tags.get("mlflow.runName"), Some(&run.name));
        run.name
    };
    assert!(name(&node).split('-').count() == 3, "a generated name");
    node.write(changes::update_run(
        &node.catalog,
        uid,
        RunUpdate { name: Some("b"), ..RunUpdate::default() },
    ));
    assert_eq!(name(&node), "b");
    node.write(changes::set_run_tags(&node.catalog, uid, &[("mlflow.runName", "c")]));
    assert_eq!(name(&node), "c");
    let tags = &[("mlflow.runName", "x")];
    let new = NewRun { uid: Uid::from_bytes([9; 16]), experiment, tags, ..NewRun::default() };
    assert!(changes::create_run(&node.catalog, &NewRun { name: "y", ..new.clone() }).is_err());
    node.write(changes::create_run(&node.catalog, &new));
    let run = node.catalog.render_run(node.catalog.run(new.uid).unwrap());
    assert_eq!((run.name.as_str(), run.tags.len()), ("x", 1));
    let empty = NewRun { uid: Uid::from_bytes([8; 16]), name: "z", tags: &[("mlflow.runName", "")], ..new };
    node.write(changes::create_run(&node.catalog, &empty));
    let run = node.catalog.render_run(node.catalog.run(empty.uid).unwrap());
    assert_eq!(run.tags, BTreeMap::from([("mlflow.runName".into(), "z".into())]));
}

#[test]
fn params_do_not_change_and_a_batch_is_all_or_nothing() {
    let mut node = Node::new(1);
    let experiment = node.experiment("e");
    let uid = node.run(experiment, 1);
    node.write(changes::log_params(&node.catalog, uid, &[("p", "1")]));
    assert_eq!(changes::log_params(&node.catalog, uid, &[("p", "1")]).unwrap(), []);
    assert_eq!(
        changes::log_batch(&node.catalog, uid, &[("new", "1"), ("p", "2")], &[("t", "v")])
            .unwrap_err()
            .to_string(),
        format!(
            "Changing param values is not allowed. Param with key='p' was already logged with value='1' for run \
             ID='{uid}'. Attempted logging new value '2'."
        )
    );
    for (params, tags) in
        [(&[("a", "1"), ("a", "1")][..], &[][..]), (&[("a//b", "1")], &[]), (&[], &[("../t", "v")])]
    {
        assert!(matches!(
            changes::log_batch(&node.catalog, uid, params, tags),
            Err(Error::InvalidArgument(_))
        ));
    }
    let long = "v".repeat(8001);
    let wrong = changes::log_batch(&node.catalog, uid, &[], &[("a", "1"), ("b", &long)]).unwrap_err();
    assert_eq!(wrong.to_string(), "'tags[1].value' exceeds the maximum length of 8000 characters");
    node.write(changes::delete_run(&node.catalog, uid, 9));
    assert_eq!(
        changes::log_params(&node.catalog, uid, &[("q", "1")]).unwrap_err().to_string(),
        format!("The run {uid} must be in the 'active' state. Current state is deleted.")
    );
    assert!(matches!(changes::log_params(&node.catalog, experiment, &[]), Err(Error::NotFound { .. })));
}

/// Two writers that did not know of each other log one param: the first stands, the other is reported.
#[test]
fn a_param_that_lost_is_reported() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let experiment = a.experiment("e");
    let uid = a.run(experiment, 1);
    b.copy(&a);
    b.write(changes::log_params(&b.catalog, uid, &[("lr", "0.2")]));
    a.write(changes::log_params(&a.catalog, uid, &[("lr", "0.1")]));
    a.copy(&b);
    b.copy(&a);
    for node in [&a, &b] {
        let run = node.catalog.run(uid).unwrap();
        assert_eq!(node.catalog.render_run(run).params["lr"], "0.1");
        let [Conflict::Param { run, key, kept, lost, .. }] = &node.catalog.conflicts()[..] else { panic!() };
        assert_eq!((*run, &**key, &**kept, &**lost), (uid, "lr", "0.1", "0.2"));
        assert!(rules::param_unchanged(node.catalog.run(uid).unwrap(), "lr", "0.1").is_ok_and(|new| !new));
    }
}

#[test]
fn tags_are_set_deleted_and_missed() {
    let mut node = Node::new(1);
    let experiment = node.experiment("e");
    let run = node.run(experiment, 1);
    node.write(changes::set_run_tags(&node.catalog, run, &[("t", "1")]));
    node.write(changes::delete_run_tag(&node.catalog, run, "t"));
    assert!(!node.catalog.render_run(node.catalog.run(run).unwrap()).tags.contains_key("t"));
    for missing in ["t", "never"] {
        assert!(matches!(changes::delete_run_tag(&node.catalog, run, missing), Err(Error::NotFound { .. })));
    }
    node.write(changes::set_experiment_tags(&node.catalog, experiment, &[("t", "1")]));
    let tags =
        |node: &Node| node.catalog.render_experiment(node.catalog.experiment(experiment).unwrap()).tags;
    assert_eq!(tags(&node), BTreeMap::from([("t".into(), "1".into())]));
    node.write(changes::delete_experiment_tag(&node.catalog, experiment, "t"));
    assert_eq!(tags(&node), BTreeMap::new());
}

#[test]
fn a_data_set_is_one_per_experiment_and_keeps_its_first_tags() {
    let mut node = Node::new(1);
    let experiment = node.experiment("e");
    let (one, two) = (node.run(experiment, 1), node.run(experiment, 2));
    let input = |context: &str| DatasetInput {
        dataset: Dataset {
            name: "iris".into(),
            digest: "abc".into(),
            source_type: "local".into(),
            source: "{}".into(),
            schema: Some("{\"a\": 1}".into()),
            profile: None,
        },
        tags: BTreeMap::from([("mlflow.data.context".into(), context.into())]),
    };
    node.write(changes::log_inputs(&node.catalog, one, &[input("training"), input("ignored")]));
    assert_eq!(changes::log_inputs(&node.catalog, one, &[input("again")]).unwrap(), []);
    node.write(changes::log_inputs(&node.catalog, two, &[input("test")]));
    for (run, context) in [(one, "training"), (two, "test")] {
        assert_eq!(node.catalog.render_run(node.catalog.run(run).unwrap()).inputs, [input(context)]);
    }
    assert_eq!(node.catalog.of_kind(EntityKind::DATASET).count(), 1);
}

#[test]
fn a_purge_wins_over_everything_and_a_run_left_behind_is_listed() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let experiment = a.experiment("e");
    let run = a.run(experiment, 1);
    b.copy(&a);
    let late = b.run(experiment, 2);
    b.write(changes::log_params(&b.catalog, run, &[("p", "1")]));
    a.write(changes::purge_experiment(&a.catalog, experiment));
    assert!(a.catalog.run(run).is_none() && a.catalog.experiments().count() == 0);
    a.copy(&b);
    assert!(a.catalog.run(run).is_none(), "what the other wrote does not bring it back");
    assert_eq!(a.catalog.conflicts(), [Conflict::Orphan { run: late, experiment: Some(experiment) }]);
    a.write(changes::purge_run(&a.catalog, late));
    assert_eq!(a.catalog.conflicts(), []);
    assert!(matches!(changes::purge_run(&a.catalog, late), Err(Error::NotFound { .. })));
    assert!(a.catalog.entries().len() == 3, "tombstones stay");
}

#[test]
fn an_odd_run_id_of_a_tree_is_found_by_its_text() {
    let mut node = Node::new(1);
    let experiment = node.experiment("e");
    let uid = node.run(experiment, 1);
    node.write(Ok(vec![Operation {
        kind: EntityKind::RUN,
        uid,
        field: Field::RUN_ID_TEXT,
        key: String::new(),
        value: Value::from("my-run"),
    }]));
    assert_eq!(node.catalog.run_by_id("my-run").unwrap().uid(), uid);
    assert_eq!(node.catalog.render_run(node.catalog.run(uid).unwrap()).id, "my-run");
}
