//! The search grammar, order and pages against MLflow's observed behaviour and against simple models.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use mlrs_db::Error;
use mlrs_db::id::Uid;
use mlrs_db::limits::{FILTER_BYTES_MAX, FILTER_CLAUSES_MAX, FILTER_DEPTH_MAX, ORDER_BY_KEYS_MAX};
use mlrs_db::model::{Dataset, DatasetInput, Experiment, Lifecycle, Point, RunData, RunStatus};
use mlrs_db::query::grammar::Dialect::{Extended, MlFlow};
use mlrs_db::query::grammar::{Dialect, ExperimentFilter, RunFilter};
use mlrs_db::query::order::{ExperimentOrder, RunOrder};
use mlrs_db::query::page::decode_token;
use mlrs_db::query::{ViewType, search_experiments, search_runs};
use proptest::prelude::*;

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn run(id: &str) -> RunData {
    RunData {
        uid: Uid::derived("run", &[id.as_bytes()]),
        id: id.to_owned(),
        experiment_uid: Uid::default(),
        experiment_id: "1".to_owned(),
        name: "night-owl-7".to_owned(),
        status: RunStatus::Finished,
        lifecycle: Lifecycle::Active,
        start_ms: Some(1_000),
        end_ms: None,
        deleted_ms: None,
        user: "eve".to_owned(),
        artifact_uri: Some("file:///store/1/a/artifacts".to_owned()),
        params: BTreeMap::new(),
        tags: BTreeMap::new(),
        metrics: BTreeMap::new(),
        inputs: Vec::new(),
        model_inputs: Vec::new(),
        model_outputs: Vec::new(),
    }
}

fn with_metrics(mut run: RunData, metrics: &[(&str, f64)]) -> RunData {
    for &(key, value) in metrics {
        run.metrics.insert(key.to_owned(), Point { step: 3, timestamp_ms: 5, value });
    }
    run
}

fn input(name: &str, digest: &str, context: Option<&str>) -> DatasetInput {
    let tags = context.map_or_else(BTreeMap::new, |context| texts(&[("mlflow.data.context", context)]));
    DatasetInput {
        dataset: Dataset {
            name: name.to_owned(),
            digest: digest.to_owned(),
            source_type: "local".to_owned(),
            source: String::new(),
            schema: None,
            profile: None,
        },
        tags,
    }
}

/// A run with something of everything.
fn sample() -> RunData {
    let mut run = with_metrics(
        run("a1"),
        &[
            ("loss", 0.25),
            ("train/loss", 1.0),
            ("val acc", 0.5),
            ("nan", f64::NAN),
            ("inf", f64::INFINITY),
            ("low", f64::NEG_INFINITY),
            ("zero", -0.0),
            ("a.b", 2.0),
        ],
    );
    run.params = texts(&[
        ("lr", "0.1"),
        ("model name", "Net"),
        ("path", r"C:\"),
        ("quote", "it''s"),
        ("order", "x"),
        ("empty", ""),
    ]);
    run.tags = texts(&[("mlflow.user", "eve"), ("Team", "vision"), ("it's", "yes")]);
    run.inputs = vec![input("mnist", "d1", Some("train")), input("cifar", "d2", None)];
    run
}

#[track_caller]
fn matches(filter: &str, dialect: Dialect) -> bool {
    RunFilter::parse(filter, dialect).unwrap_or_else(|e| panic!("{filter}: {e}")).matches(&sample())
}

#[track_caller]
fn refusal(result: Result<impl std::fmt::Debug, Error>) -> String {
    match result {
        Err(Error::InvalidArgument(text)) => text,
        other => panic!("expected InvalidArgument, got {other:?}"),
    }
}

#[test]
fn filters_that_hold_for_the_sample() {
    for filter in [
        "",
        "metrics.loss < 0.3",
        "metrics.loss<0.3 AND metric.loss>=.25 and metrics.loss != -1e3 AND metrics.loss <= 1.",
        "metrics.`train/loss` = 1 AND metrics.\"val acc\" = 0.5 AND `metrics`.loss = 2.5e-1 AND metrics.a.b = 2",
        "metrics.`a.b` > 1",
        "metrics.inf > 1e308 AND metrics.low < -1e308 AND metrics.zero = 0 AND metrics.inf = 1e999",
        "params.lr = '0.1' AND param.lr = \"0.1\" AND parameter.lr != '0.2' AND parameters.lr LIKE '0._'",
        "params.`model name` ilike 'NET' and params.\"model name\" like 'N%'",
        r"params.path = 'C:\'",
        "params.quote = 'it''s' AND tags.\"it's\" = 'yes' AND tag.mlflow.user = \"eve\"",
        "params.order = 'x' AND params.empty = ''",
        "params.gone IS NULL AND params.lr IS NOT NULL AND tags.gone is null and tags.Team Is Not Null",
        "run_id = 'a1' AND attribute.run_id != 'b' AND run_id IN ('x', \"a1\") AND run.run_id NOT IN ('x','y',)",
        "status = 'FINISHED' AND attr.status LIKE 'FIN%' AND attributes.status ILIKE 'fin%'",
        "run_name = 'night-owl-7' AND `run name` LIKE 'night%' AND attributes.`Run name` != '' AND `Run Name` != 'x'",
        "user_id = 'eve' AND artifact_uri LIKE '%/artifacts'",
        "start_time >= 1000 AND created = 1000 AND Created < 1000.5 AND start_time > 999.5 AND start_time < 99999999999999999999",
        "dataset.name = 'mnist' AND datasets.name = 'cifar' AND dataset.digest IN ('d2', 'd9') AND dataset.name != 'mnist'",
        "dataset.context = 'train' AND dataset.context LIKE 't%' AND dataset.digest NOT IN ('d1')",
        "metrics.loss < 1 AND",
        "AND metrics.loss < 1 AND AND metrics.loss > 0",
        "metrics.loss < 1 metrics.loss > 0",
        "  metrics.loss\n<\t1\n",
        "metrics.nan != 1",
    ] {
        assert!(matches(filter, MlFlow), "{filter}");
    }
}

#[test]
fn filters_that_do_not_hold_for_the_sample() {
    for filter in [
        "metrics.loss > 0.25",
        "metrics.gone != 1",
        "metrics.nan = 1",
        "metrics.nan < 1",
        "metrics.Loss < 1",
        "params.gone != 'x'",
        "params.gone LIKE '%'",
        "params.LR = '0.1'",
        "params.lr like '%0'",
        "params.`model name` LIKE 'net'",
        "params.lr LIKE '0'",
        "params.quote = 'it''''s'",
        "params.lr IS NULL",
        "tags.gone IS NOT NULL",
        "tags.team = 'vision'",
        "run_id NOT IN ('a1')",
        "end_time > 0",
        "end_time != 0",
        "start_time != 1000",
        "start_time > 1000.5",
        "start_time < -99999999999999999999",
        "dataset.context != 'train'",
        "dataset.name = 'train'",
        "metrics.loss < 1 AND metrics.loss > 1",
    ] {
        assert!(!matches(filter, MlFlow), "{filter}");
        if !filter.is_empty() {
            assert!(!matches(filter, Extended), "{filter}");
        }
    }
}

/// Left the filter, right the words of MLflow 3.18 (sets in an order of ours).
#[test]
fn refusals_are_worded_as_mlflow_words_them() {
    let unquoted = "Use either single or double quotes.";
    for (filter, words) in [
        ("params.a = 'x' OR params.b = 'y'", "Invalid clause(s) in filter string: 'OR'"),
        ("metrics.a > 1 or metrics.b > 2 OR metrics.c > 3", "Invalid clause(s) in filter string: 'or', 'OR'"),
        ("NOT params.a = 'x'", "Invalid clause(s) in filter string: 'NOT'"),
        ("(params.a = 'x')", "Invalid clause(s) in filter string: '(params.a = 'x')'"),
        (
            "metrics.a > 1 AND (params.b = 'x' OR params.c='y')",
            "Invalid clause(s) in filter string: '(params.b = 'x' OR params.c='y')'",
        ),
        ("params.a = 'x';", "Invalid clause(s) in filter string: ';'"),
        ("params.a = 'x' -- c", "Invalid clause(s) in filter string: '-- c'"),
        ("params.a = 'x' /* c */", "Invalid clause(s) in filter string: '/* c */'"),
        ("params.a = # 'x'", "Invalid clause(s) in filter string: 'params.a', '=', '# 'x''"),
        (
            "params.a = 'x'; params.b='y'",
            "Search filter contained multiple expression \"params.a = 'x'; params.b='y'\". Provide AND-ed expression list.",
        ),
        (" ", "Invalid filter ' '. Could not be parsed."),
        ("metrics.a", "Invalid clause(s) in filter string: 'metrics.a'"),
        ("metrics.a >", "Invalid clause(s) in filter string: 'metrics.a', '>'"),
        ("metrics.a > +1", "Invalid clause(s) in filter string: 'metrics.a', '>', '+', '1'"),
        ("metrics.a > - 1", "Invalid clause(s) in filter string: 'metrics.a', '>', '-', '1'"),
        ("metrics.a > 1,", "Invalid clause(s) in filter string: ','"),
        ("metrics.a > 1)", "Invalid clause(s) in filter string: ')'"),
        ("params.a = 'open", "Invalid clause(s) in filter string: 'params.a', '=', ''', 'open'"),
        ("run name = 'x'", "Invalid clause(s) in filter string: 'run'"),
        ("run_id IN 'a'", "Invalid clause(s) in filter string: 'run_id', 'IN', ''a''"),
        ("run_id IN ('a'", "Invalid clause(s) in filter string: 'run_id', 'IN', '(', ''a''"),
        ("metrics.a between 1 and 2", "Invalid clause(s) in filter string: 'metrics.a', 'between', '1', '2'"),
        ("1 < metrics.a", "Invalid comparison clause. Expected 'Identifier' found '1'"),
        ("metrics.a/b > 1", "Invalid comparison clause. Expected 'Identifier' found 'metrics.a/b'"),
        ("metrics.a > nan", "Expected numeric value type for metric. Found nan"),
        ("metrics.a > 5m", "Expected numeric value type for metric. Found 5m"),
        ("metrics.a = '1'", "Expected numeric value type for metric. Found '1'"),
        ("start_time > '1'", "Expected numeric value type for numeric attribute: start_time. Found '1'"),
        ("params.a = 1", "Expected a quoted string value for parameter (e.g. 'my-value'). Got value 1"),
        ("tags.a = 1", "Expected a quoted string value for tag (e.g. 'my-value'). Got value 1"),
        (
            "params.a in ('x')",
            "Expected a quoted string value for parameter (e.g. 'my-value'). Got value ('x')",
        ),
        ("status = 1", "Expected a quoted string value for attributes. Got value 1"),
        ("dataset.name = 1", "Expected a quoted string value for dataset attributes. Got value 1"),
        ("params.a = x", unquoted),
        ("params.a = `x`", unquoted),
        (
            "Metrics.a > 1",
            "Invalid entity type 'Metrics'. Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']",
        ),
        ("\"metrics\".a > 1", "Invalid entity type '\"metrics\"'. Valid values are"),
        ("`metrics.a` > 1", "Invalid entity type '`metrics'. Valid values are"),
        (
            "lifecycle_stage = 'active'",
            "Invalid attribute key 'lifecycle_stage' specified. Valid keys are '{",
        ),
        ("experiment_id = '1'", "Invalid attribute key 'experiment_id' specified. Valid keys are '{"),
        (
            "dataset.foo = 'x'",
            "Invalid dataset key 'foo' specified. Valid keys are '{'name', 'digest', 'context'}'",
        ),
        (
            "metrics.a is null",
            "IS NULL / IS NOT NULL is only supported for tags and params, not for 'metric' 'a'",
        ),
        (
            "run_id is not null",
            "IS NULL / IS NOT NULL is only supported for tags and params, not for 'attribute' 'run_id'",
        ),
        ("metrics.a == 1", "Invalid comparator '==' not one of '{'=', '!=', '>', '>=', '<', '<='}'"),
        ("metrics.a LIKE 1", "Invalid comparator 'LIKE' not one of '{'=', '!='"),
        (
            "params.a > 'x'",
            "Invalid comparator '>' not one of '{'=', '!=', 'LIKE', 'ILIKE', 'IS NULL', 'IS NOT NULL'}'",
        ),
        ("params.a not like 'x'", "Invalid comparator 'NOT LIKE' not one of"),
        ("params.a rlike 'x'", "Invalid comparator 'RLIKE' not one of"),
        ("status < 'x'", "Invalid comparator '<' not one of '{'=', '!=', 'LIKE', 'ILIKE'"),
        (
            "dataset.digest > 'x'",
            "Invalid comparator '>' not one of '{'=', '!=', 'LIKE', 'ILIKE', 'IN', 'NOT IN'}'",
        ),
        (
            "status in ('a')",
            "Only ['run_id'] attributes support comparison with a list of quoted string values.",
        ),
        ("run_id = ('a')", "Expected a quoted string value for attributes. Got value ('a')"),
        ("run_id IN ()", "expected a non-empty list of string values, but got empty list"),
        (
            "run_id IN (1)",
            "expected string value, punctuation, or whitespace, but got different type in list: (1)",
        ),
        ("run_id IN ('a' OR 'b')", "expected a non-empty list of string values, but got ill-formed list."),
        ("run_id IN (a)", "expected a non-empty list of string values, but got ill-formed list."),
        ("run_id IN (,)", "expected a non-empty list of string values, but got ill-formed list."),
    ] {
        let refused = refusal(RunFilter::parse(filter, MlFlow));
        assert!(refused.contains(words), "{filter}\n  expected {words}\n  found    {refused}");
    }
}

#[test]
fn the_extended_dialect_has_or_not_and_parentheses() {
    for filter in [
        " ",
        "metrics.loss > 1 OR params.lr = '0.1'",
        "not metrics.loss > 1",
        "NOT NOT (metrics.loss < 1)",
        // AND binds tighter than OR, NOT tighter than AND.
        "metrics.loss < 1 OR metrics.loss < 1 AND metrics.loss > 1",
        "NOT metrics.loss > 1 AND metrics.loss < 1",
        "(run_id IN ('a1') AND (metrics.loss > 1 OR tags.Team = 'vision')) AND",
        "metrics.train/loss = 1 AND NOT(metrics.loss>1)",
        // NOT inverts the outcome: what is missing, or NaN, passes.
        "NOT params.gone = 'x' AND NOT metrics.nan < 1 AND NOT metrics.nan >= 1",
    ] {
        assert!(matches(filter, Extended), "{filter}");
    }
    assert!(!matches("(metrics.loss < 1 OR metrics.loss < 1) AND metrics.loss > 1", Extended));
    assert!(!matches("NOT (metrics.loss > 1 OR metrics.loss < 1)", Extended));
    for (filter, words) in [
        ("(metrics.loss < 1", "a '(' is never closed"),
        ("metrics.loss < 1)", "Invalid clause(s) in filter string: ')'"),
        ("()", "Invalid clause(s) in filter string: ')'"),
        ("metrics.loss < 1 OR", "it ends where a comparison should stand"),
        ("(metrics.loss < 1 AND)", "Invalid clause(s) in filter string: ')'"),
        ("AND metrics.loss < 1", "Invalid clause(s) in filter string: 'AND'"),
        ("metrics.loss < 1 OR AND", "Invalid clause(s) in filter string: 'AND'"),
        ("metrics.a < 1 metrics.b < 1", "AND or OR is missing before 'metrics.b'"),
        ("(metrics.a < 1 metrics.b < 1)", "AND or OR is missing before 'metrics.b'"),
        ("metrics.a < 1 NOT metrics.b < 1", "Invalid clause(s) in filter string: 'NOT'"),
        ("metrics.a < 1; metrics.b < 1", "Search filter contained multiple expression"),
        ("metrics.a < 1 -- x", "Invalid clause(s) in filter string: '-- x'"),
    ] {
        let refused = refusal(RunFilter::parse(filter, Extended));
        assert!(refused.contains(words), "{filter}\n  expected {words}\n  found    {refused}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let nested = |depth: usize| format!("{}metrics.a > 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(RunFilter::parse(&nested(FILTER_DEPTH_MAX), Extended).is_ok());
    assert!(refusal(RunFilter::parse(&nested(FILTER_DEPTH_MAX + 1), Extended)).contains("nest deeper than"));
    assert!(refusal(RunFilter::parse(&nested(300_000), Extended)).contains("nest deeper than"));
    assert!(refusal(RunFilter::parse(&"NOT ".repeat(200_000), Extended)).contains("nest deeper than"));
    let clauses = |count: usize| vec!["metrics.a > 1"; count].join(" AND ");
    for dialect in [MlFlow, Extended] {
        assert!(RunFilter::parse(&clauses(FILTER_CLAUSES_MAX), dialect).is_ok());
        assert!(
            refusal(RunFilter::parse(&clauses(FILTER_CLAUSES_MAX + 1), dialect))
                .contains("comparisons, at most")
        );
        let long = format!("params.a = '{}'", "x".repeat(FILTER_BYTES_MAX));
        assert!(refusal(RunFilter::parse(&long, dialect)).contains("bytes, at most"));
        // What is refused is named, not repeated in full.
        assert!(refusal(RunFilter::parse(&"x ".repeat(100_000), dialect)).len() < 1_000);
    }
    let ids: Vec<String> = (0..20_000).map(|n| format!("'{n:032x}'")).collect();
    let list = RunFilter::parse(&format!("run_id IN ({})", ids.join(",")), MlFlow).unwrap();
    assert!(
        list.matches(&run(&format!("{:032x}", 19_999))) && !list.matches(&run(&format!("{:032x}", 20_000)))
    );
}

/// Texts that make a careless tokeniser quadratic; at this size that would be noticed by anybody who waits.
#[test]
fn hostile_texts_are_answered() {
    for unit in [
        "'", "\"", "`", "(", ")", "a IN (", "'\\'", "a.`", "--", "/*", "a.", "''", "1e", "-", "\\'", "a='",
        "\u{e9}'",
    ] {
        for dialect in [MlFlow, Extended] {
            let text = unit.repeat(FILTER_BYTES_MAX / unit.len());
            let _ = refusal(RunFilter::parse(&text, dialect));
            let _ = refusal(RunFilter::parse(&format!("x{text}"), dialect));
        }
    }
}

fn experiment(id: &str, name: &str, created_ms: Option<i64>) -> Experiment {
    Experiment {
        uid: Uid::derived("experiment", &[id.as_bytes()]),
        id: id.to_owned(),
        name: name.to_owned(),
        lifecycle: Lifecycle::Active,
        artifact_location: None,
        created_ms,
        updated_ms: created_ms.map(|ms| ms + 1),
        tags: texts(&[("team", "vision")]),
    }
}

#[test]
fn experiments_have_their_own_keys() {
    let subject = experiment("12", "mnist", Some(50));
    for (filter, expected) in [
        ("", true),
        ("name = 'mnist' AND attribute.name LIKE 'm%' AND attributes.name ILIKE 'MN%'", true),
        ("experiment_id = '12' AND experiment_id = '012' AND experiment_id IN ('1', '12')", true),
        ("experiment_id != '12'", false),
        ("experiment_id NOT IN ('012')", false),
        ("creation_time >= 50 AND last_update_time > 50 AND creation_time < 99", true),
        (
            "tags.team = 'vision' AND tag.team ILIKE 'V%' AND tags.gone IS NULL AND tags.team IS NOT NULL",
            true,
        ),
        ("tags.gone != 'x'", false),
        ("name = 'Mnist'", false),
    ] {
        let parsed = ExperimentFilter::parse(filter, MlFlow).unwrap_or_else(|e| panic!("{filter}: {e}"));
        assert_eq!(parsed.matches(&subject), expected, "{filter}");
    }
    assert!(
        !ExperimentFilter::parse("creation_time != 1", MlFlow).unwrap().matches(&experiment("1", "x", None))
    );
    assert!(ExperimentFilter::parse("NOT name = 'x' OR tags.a = 'b'", Extended).unwrap().matches(&subject));
    for (filter, words) in [
        ("name='x' OR name='y'", "Invalid clause(s) in filter string: 'OR'"),
        (
            "attr.name='x'",
            "Invalid entity type 'attr'. Valid entity types are ('attribute', 'attributes', 'tag', 'tags')",
        ),
        ("metrics.a > 1", "Invalid entity type 'metrics'"),
        (
            "foo='x'",
            "Invalid attribute key 'foo' specified. Valid keys are '{'creation_time', 'experiment_id', ",
        ),
        ("name is null", "IS NULL / IS NOT NULL is only supported for tags, not for attribute 'name'"),
        (
            "name in ('x')",
            "Only ['experiment_id'] attributes support comparison with a list of quoted string values.",
        ),
        ("name > 'x'", "Invalid comparator '>' not one of"),
        ("experiment_id = 1", "Expected a quoted string value for attributes. Got value 1"),
        ("experiment_id = 'x'", "Invalid experiment ID 'x'. Experiment ID must be a valid integer."),
        ("experiment_id IN ('1', '-')", "Invalid experiment ID '-'. Experiment ID must be a valid integer."),
        ("experiment_id like '1'", "Invalid comparator for experiment_id: LIKE"),
        ("experiment_id > '1'", "Invalid comparator '>' not one of"),
        (
            "creation_time > '5'",
            "Expected numeric value type for numeric attribute: creation_time. Found '5'",
        ),
        ("creation_time = 1.5", "Invalid value for numeric attribute 'creation_time': '1.5'"),
        ("tags.a in ('x')", "Expected a quoted string value for tag (e.g. 'my-value'). Got value ('x')"),
    ] {
        let refused = refusal(ExperimentFilter::parse(filter, MlFlow));
        assert!(refused.contains(words), "{filter}\n  expected {words}\n  found    {refused}");
    }
}

#[test]
fn experiments_are_ordered_as_mlflow_orders_them() {
    let all = [
        experiment("2", "b", Some(5)),
        experiment("10", "a", Some(5)),
        experiment("1", "a", Some(9)),
        experiment("3", "c", None),
    ];
    let ids = |keys: &[&str]| -> Vec<&str> {
        let order = ExperimentOrder::parse(keys, MlFlow).unwrap();
        search_experiments(&all, &ExperimentFilter::all(), &order, 10, 0)
            .items
            .into_iter()
            .map(|e| &*e.id)
            .collect()
    };
    assert_eq!(ids(&[]), ["1", "2", "10", "3"], "newest first, then smallest id as a number");
    assert_eq!(ids(&["name"]), ["10", "1", "2", "3"], "ties: greatest id first");
    assert_eq!(ids(&["creation_time ASC"]), ["10", "2", "1", "3"], "missing last");
    assert_eq!(ids(&["creation_time DESC"]), ["1", "10", "2", "3"], "missing last");
    assert_eq!(ids(&["experiment_id"]), ["1", "2", "3", "10"]);
    assert_eq!(ids(&["attribute.name DESC", "experiment_id"]), ["3", "2", "1", "10"]);
    assert_eq!(refusal(ExperimentOrder::parse(&["tags.a"], MlFlow)), "Invalid order_by entity: tag");
    assert!(
        refusal(ExperimentOrder::parse(&["foo"], MlFlow))
            .starts_with("Invalid attribute key 'foo' specified.")
    );
}

#[test]
fn order_keys_accepted_and_refused() {
    for key in [
        "metrics.a",
        "metrics.a ASC",
        "metrics.a desc",
        "metrics.`a b` DESC",
        "metrics.\"a b\"\tasc",
        "start_time",
        "created",
        "Created DESC",
        "attribute.run_name",
        "params.order DESC",
        " status ",
        "run_id",
        "tags.`x.y` Asc",
        "user_id",
        "artifact_uri",
        "end_time",
    ] {
        assert!(RunOrder::parse(&[key], MlFlow).is_ok(), "{key}");
    }
    assert!(RunOrder::parse(&["metrics.train/loss DESC"], Extended).is_ok());
    for (key, words) in [
        ("", "Invalid order_by clause ''. Could not be parsed."),
        ("metrics.a, params.b", "Invalid order_by clause 'metrics.a, params.b'. Could not be parsed."),
        ("metrics.a ASC DESC", "Invalid order_by clause 'metrics.a ASC DESC'. Could not be parsed."),
        ("params.a-b", "Invalid order_by clause 'params.a-b'. Could not be parsed."),
        ("metrics.a UP", "Invalid ordering key in order_by clause 'metrics.a UP'."),
        ("run name", "Invalid ordering key in order_by clause 'run name'."),
        ("`run name`", "Invalid attribute key 'run name' specified."),
        ("lifecycle_stage", "Invalid attribute key 'lifecycle_stage' specified."),
        ("dataset.name", "Invalid order_by entity type 'dataset'"),
        ("foo.a", "Invalid entity type 'foo'."),
    ] {
        let refused = refusal(RunOrder::parse(&[key], MlFlow));
        assert!(refused.starts_with(words), "{key}: {refused}");
    }
    assert!(refusal(RunOrder::parse(&vec!["run_id"; ORDER_BY_KEYS_MAX + 1], MlFlow)).contains("at most"));
}

#[test]
fn values_come_first_then_nan_then_missing_in_both_directions() {
    let metric = |id: &str, value: f64| with_metrics(run(id), &[("m", value)]);
    let runs = [
        run("missing"),
        metric("nan", f64::NAN),
        metric("inf", f64::INFINITY),
        metric("b", 0.0),
        metric("a", -0.0),
        metric("-inf", f64::NEG_INFINITY),
    ];
    let ids = |key: &str| -> Vec<&str> {
        let order = RunOrder::parse(&[key], MlFlow).unwrap();
        search_runs(&runs, &RunFilter::all(), &order, 10, 0).items.into_iter().map(|run| &*run.id).collect()
    };
    assert_eq!(ids("metrics.m"), ["-inf", "a", "b", "inf", "nan", "missing"]);
    assert_eq!(ids("metrics.m DESC"), ["inf", "a", "b", "-inf", "nan", "missing"]);
}

#[test]
fn view_types_have_mlflows_names_and_numbers() {
    for (number, name, active, deleted) in
        [(1, "ACTIVE_ONLY", true, false), (2, "DELETED_ONLY", false, true), (3, "ALL", true, true)]
    {
        let view = ViewType::from_number(number).unwrap();
        assert_eq!(name.parse::<ViewType>().unwrap(), view);
        assert_eq!(view.to_string(), name);
        assert_eq!((view.includes(Lifecycle::Active), view.includes(Lifecycle::Deleted)), (active, deleted));
    }
    assert!(ViewType::from_number(0).is_none() && "active_only".parse::<ViewType>().is_err());
    assert_eq!(ViewType::default(), ViewType::ActiveOnly);
}

// The models below share nothing with the implementation but the nouns.

const NUMBERS: [f64; 7] = [-1.5, -0.0, 0.0, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
const WORDS: [&str; 6] = ["", "a", "A", "ab", "a b", "\u{e9}"];
const KEYS: [&str; 4] = ["k", "k.x", "a b", "t/l"];

fn any_run() -> impl Strategy<Value = RunData> {
    let texts = || {
        prop::collection::btree_map(prop::sample::select(&KEYS[..]), prop::sample::select(&WORDS[..]), 0..4)
            .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    };
    let metrics = prop::collection::btree_map(
        prop::sample::select(&KEYS[..]),
        prop::sample::select(&NUMBERS[..]),
        0..4,
    );
    let inputs = prop::collection::vec(
        (prop::sample::select(&WORDS[..]), prop::option::of(prop::sample::select(&WORDS[..]))),
        0..3,
    );
    let times = (prop::option::of(-2i64..3), prop::option::of(-2i64..3));
    (times, 1i32..=5, texts(), texts(), metrics, inputs, prop::sample::select(&WORDS[..])).prop_map(
        |((start, end), status, params, tags, metrics, inputs, name)| {
            let mut run = run("r");
            (run.start_ms, run.end_ms) = (start, end);
            run.status = [
                RunStatus::Running,
                RunStatus::Scheduled,
                RunStatus::Finished,
                RunStatus::Failed,
                RunStatus::Killed,
            ][status as usize - 1];
            (run.params, run.tags) = (params, tags);
            run.name = name.to_owned();
            run.inputs = inputs.into_iter().map(|(name, context)| input(name, "d", context)).collect();
            let metrics: Vec<(&str, f64)> = metrics.into_iter().collect();
            with_metrics(run, &metrics)
        },
    )
}

/// A comparison: its text, and whether it holds, computed from the parts.
#[derive(Clone, Debug)]
enum Model {
    Metric(&'static str, &'static str, f64),
    Keyed(&'static str, &'static str, &'static str, &'static str),
    IsNull(&'static str, &'static str, bool),
    Time(&'static str, &'static str, i64),
    Name(&'static str, &'static str),
    Dataset(&'static str, &'static str, &'static str),
    Not(Box<Model>),
    And(Vec<Model>),
    Or(Vec<Model>),
}

fn compare_numbers(op: &str, a: f64, b: f64) -> bool {
    match op {
        "=" => a == b,
        // Both of MLflow 3's stores: NaN is unequal to everything.
        "!=" => a != b,
        "<" => a < b,
        "<=" => a <= b,
        ">" => a > b,
        ">=" => a >= b,
        _ => unreachable!("{op}"),
    }
}

fn compare_texts(op: &str, a: &str, b: &str) -> bool {
    match op {
        "=" => a == b,
        "!=" => a != b,
        // The words hold no wildcard.
        "LIKE" => a == b,
        "ilike" => a.to_lowercase() == b.to_lowercase(),
        _ => unreachable!("{op}"),
    }
}

impl Model {
    fn holds(&self, run: &RunData) -> bool {
        match self {
            Self::Metric(key, op, value) => {
                run.metrics.get(*key).is_some_and(|p| compare_numbers(op, p.value, *value))
            }
            Self::Keyed(entity, key, op, value) => {
                let map = if entity.starts_with('p') { &run.params } else { &run.tags };
                map.get(*key).is_some_and(|found| compare_texts(op, found, value))
            }
            Self::IsNull(entity, key, null) => {
                let map = if entity.starts_with('p') { &run.params } else { &run.tags };
                map.contains_key(*key) != *null
            }
            Self::Time(key, op, value) => {
                let time = if *key == "end_time" { run.end_ms } else { run.start_ms };
                time.is_some_and(|time| compare_numbers(op, time as f64, *value as f64))
            }
            Self::Name(op, value) => compare_texts(op, &run.name, value),
            Self::Dataset(key, op, value) => run.inputs.iter().any(|input| match *key {
                "name" => compare_texts(op, &input.dataset.name, value),
                _ => {
                    input.tags.get("mlflow.data.context").is_some_and(|found| compare_texts(op, found, value))
                }
            }),
            Self::Not(inner) => !inner.holds(run),
            Self::And(parts) => parts.iter().all(|part| part.holds(run)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(run)),
        }
    }

    /// As text; a part that binds looser than `outer` stands in parentheses.
    fn render(&self, outer: u8) -> String {
        let key = |key: &str| if key.contains([' ', '/']) { format!("`{key}`") } else { key.to_owned() };
        let (text, binding) = match self {
            Self::Metric(k, op, value) => (format!("metrics.{} {op} {value:?}", key(k)), 3),
            Self::Keyed(entity, k, op, value) => (format!("{entity}.{} {op} '{value}'", key(k)), 3),
            Self::IsNull(entity, k, true) => (format!("{entity}.{} IS NULL", key(k)), 3),
            Self::IsNull(entity, k, false) => (format!("{entity}.{} is not null", key(k)), 3),
            Self::Time(k, op, value) => (format!("{k}{op}{value}"), 3),
            Self::Name(op, value) => (format!("run_name {op} \"{value}\""), 3),
            Self::Dataset(k, op, value) => (format!("dataset.{k} {op} '{value}'"), 3),
            Self::Not(inner) => (format!("NOT {}", inner.render(2)), 2),
            Self::And(parts) => (parts.iter().map(|p| p.render(2)).collect::<Vec<_>>().join(" AND "), 1),
            Self::Or(parts) => (parts.iter().map(|p| p.render(1)).collect::<Vec<_>>().join(" or "), 0),
        };
        if binding < outer { format!("({text})") } else { text }
    }
}

fn any_comparison() -> impl Strategy<Value = Model> {
    let key = || prop::sample::select(&KEYS[..]);
    let word = || prop::sample::select(&WORDS[..]);
    let number_op = || prop::sample::select(&["=", "!=", "<", "<=", ">", ">="][..]);
    let text_op = || prop::sample::select(&["=", "!=", "LIKE", "ilike"][..]);
    let entity = || prop::sample::select(&["params", "param", "tags", "tag"][..]);
    let literal = prop::sample::select(&[-1.5, -0.0, 0.0, 1.0, 1e300, -2e-5][..]);
    prop_oneof![
        (key(), number_op(), literal).prop_map(|(k, op, v)| Model::Metric(k, op, v)),
        (entity(), key(), text_op(), word()).prop_map(|(e, k, op, v)| Model::Keyed(e, k, op, v)),
        (entity(), key(), any::<bool>()).prop_map(|(e, k, null)| Model::IsNull(e, k, null)),
        (prop::sample::select(&["start_time", "created", "end_time"][..]), number_op(), -2i64..3)
            .prop_map(|(k, op, v)| Model::Time(k, op, v)),
        (text_op(), word()).prop_map(|(op, v)| Model::Name(op, v)),
        (prop::sample::select(&["name", "context"][..]), text_op(), word())
            .prop_map(|(k, op, v)| Model::Dataset(k, op, v)),
    ]
}

fn any_model() -> impl Strategy<Value = Model> {
    any_comparison().prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|model| Model::Not(Box::new(model))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Model::And),
            prop::collection::vec(inner, 2..4).prop_map(Model::Or),
        ]
    })
}

/// Sorts as MLflow's file store does: by start and id, then stably by each key, the last one first.
fn sort_naively(runs: &mut [RunData], keys: &[(&str, bool)]) {
    let last = |a: bool, b: bool| a.cmp(&b);
    runs.sort_by(|a, b| {
        let missing = last(a.start_ms.is_none(), b.start_ms.is_none());
        missing.then(b.start_ms.cmp(&a.start_ms)).then(a.id.cmp(&b.id))
    });
    for &(key, descending) in keys.iter().rev() {
        let turn = |ordering: Ordering| if descending { ordering.reverse() } else { ordering };
        runs.sort_by(|a, b| match key {
            "metrics.k" => {
                let value = |run: &RunData| run.metrics.get("k").map(|point| point.value);
                let class = |value: Option<f64>| value.map_or(2, |value| i32::from(value.is_nan()));
                let (a, b) = (value(a), value(b));
                class(a).cmp(&class(b)).then(turn(a.partial_cmp(&b).unwrap_or(Ordering::Equal)))
            }
            "params.k" => {
                let (a, b) = (a.params.get("k"), b.params.get("k"));
                last(a.is_none(), b.is_none()).then(turn(a.cmp(&b)))
            }
            "start_time" => {
                last(a.start_ms.is_none(), b.start_ms.is_none()).then(turn(a.start_ms.cmp(&b.start_ms)))
            }
            "end_time" => last(a.end_ms.is_none(), b.end_ms.is_none()).then(turn(a.end_ms.cmp(&b.end_ms))),
            "run_id" => turn(a.id.cmp(&b.id)),
            "status" => turn(a.status.as_str().cmp(b.status.as_str())),
            _ => unreachable!("{key}"),
        });
    }
}

fn any_order() -> impl Strategy<Value = Vec<(&'static str, bool)>> {
    let key =
        prop::sample::select(&["metrics.k", "params.k", "start_time", "end_time", "run_id", "status"][..]);
    prop::collection::vec((key, any::<bool>()), 0..4)
}

fn numbered(mut runs: Vec<RunData>) -> Vec<RunData> {
    for (number, run) in runs.iter_mut().enumerate() {
        run.id = format!("{:02}", number * 37 % 100);
    }
    runs
}

fn ids(runs: &[RunData]) -> Vec<&str> {
    runs.iter().map(|run| run.id.as_str()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_rendered_expression_means_what_it_meant(model in any_model(), runs in prop::collection::vec(any_run(), 1..8)) {
        let text = model.render(0);
        let filter = RunFilter::parse(&text, Extended).unwrap();
        for run in &runs {
            prop_assert_eq!(filter.matches(run), model.holds(run), "{}\n{:?}", text, run);
        }
    }

    #[test]
    fn both_dialects_agree_on_what_both_take(
        parts in prop::collection::vec(any_comparison(), 1..5),
        runs in prop::collection::vec(any_run(), 1..8),
        dangling in any::<bool>(),
    ) {
        let mut text = parts.iter().map(|part| part.render(1)).collect::<Vec<_>>().join(" and ");
        if dangling {
            text.push_str(" AND ");
        }
        let (plain, extended) = (RunFilter::parse(&text, MlFlow).unwrap(), RunFilter::parse(&text, Extended).unwrap());
        for run in &runs {
            let expected = Model::And(parts.clone()).holds(run);
            prop_assert_eq!(plain.matches(run), expected, "{}", text);
            prop_assert_eq!(extended.matches(run), expected, "{}", text);
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in ".*") {
        for dialect in [MlFlow, Extended] {
            for error in [
                RunFilter::parse(&text, dialect).err(),
                ExperimentFilter::parse(&text, dialect).err(),
                RunOrder::parse(&[&text], dialect).err(),
                ExperimentOrder::parse(&[&text], dialect).err(),
                decode_token(&text).err(),
                text.parse::<ViewType>().err(),
            ].into_iter().flatten() {
                prop_assert!(matches!(error, Error::InvalidArgument(_)), "{:?}", error);
            }
        }
    }

    #[test]
    fn nearly_a_filter_is_parsed_or_refused(
        pieces in prop::collection::vec(
            prop::sample::select(&[
                "metrics.", "a", "params.b", "=", "<", "'", "\"", "`", "(", ")", ",", " ", " AND ", " OR ", "NOT ", " IN ",
                " IS ", "NULL", "LIKE", "1", "-", ".", "e5", "'x'", "run_id", "--", "/*", "\\", ";", "\u{1f600}", "%",
            ][..]),
            0..24,
        ),
        run in any_run(),
    ) {
        let text = pieces.concat();
        for dialect in [MlFlow, Extended] {
            match RunFilter::parse(&text, dialect) {
                Ok(filter) => { filter.matches(&run); }
                Err(error) => prop_assert!(matches!(error, Error::InvalidArgument(_)), "{:?}", error),
            }
        }
    }

    #[test]
    fn order_equals_a_naive_sort(
        runs in prop::collection::vec(any_run(), 0..40).prop_map(numbered),
        keys in any_order(),
        max_results in 0usize..45,
        offset in 0usize..45,
    ) {
        let texts: Vec<String> =
            keys.iter().map(|(key, desc)| format!("{key} {}", if *desc { "DESC" } else { "asc" })).collect();
        let order = RunOrder::parse(&texts, MlFlow).unwrap();
        let page = search_runs(runs.clone(), &RunFilter::all(), &order, max_results, offset);
        let mut expected = runs;
        sort_naively(&mut expected, &keys);
        let end = (offset + max_results).min(expected.len());
        prop_assert_eq!(ids(&page.items), ids(&expected)[offset.min(end)..end].to_vec(), "{:?}", texts);
        prop_assert!(expected.windows(2).all(|w| order.compare(&w[0], &w[1]) == Ordering::Less));
    }

    #[test]
    fn equal_items_keep_the_order_they_came_in(starts in prop::collection::vec(0i64..3, 0..30), max_results in 1usize..30) {
        let runs: Vec<RunData> = starts.iter().enumerate().map(|(number, start)| {
            let mut run = run("same");
            run.start_ms = Some(*start);
            run.name = number.to_string();
            run
        }).collect();
        let mut expected: Vec<&RunData> = runs.iter().collect();
        expected.sort_by_key(|run| std::cmp::Reverse(run.start_ms));
        expected.truncate(max_results);
        let page = search_runs(&runs, &RunFilter::all(), &RunOrder::default(), max_results, 0);
        prop_assert_eq!(page.items, expected);
    }

    #[test]
    fn all_pages_together_give_every_run_once(
        runs in prop::collection::vec(any_run(), 0..60).prop_map(numbered),
        keys in any_order(),
        comparison in any_comparison(),
        max_results in 1usize..20,
    ) {
        let texts: Vec<String> =
            keys.iter().map(|(key, desc)| format!("{key} {}", if *desc { "DESC" } else { "ASC" })).collect();
        let order = RunOrder::parse(&texts, MlFlow).unwrap();
        let filter = RunFilter::parse(&comparison.render(1), MlFlow).unwrap();
        let (mut seen, mut token) = (Vec::new(), Some(String::new()));
        while let Some(text) = token {
            let page = search_runs(&runs, &filter, &order, max_results, decode_token(&text).unwrap());
            prop_assert!(page.items.len() == max_results || page.next_token().is_none());
            prop_assert!(!page.items.is_empty() || seen.is_empty(), "an empty page at the end");
            token = page.next_token();
            seen.extend(page.items);
        }
        let mut expected: Vec<RunData> = runs.iter().filter(|run| comparison.holds(run)).cloned().collect();
        sort_naively(&mut expected, &keys);
        let seen: Vec<&str> = seen.iter().map(|run| run.id.as_str()).collect();
        prop_assert_eq!(&seen, &ids(&expected));
        prop_assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
    }
}
