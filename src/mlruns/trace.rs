//! Traces, from and to their files: `trace_info.yaml` as MLflow 2 and 3 write it, a file for each tag and each piece of
//! metadata, a YAML file for each assessment. Spans are an artifact.
//!
//! Contract: the files of an imported trace stay files of its experiment; what they say is derived from them, so every
//! store that holds such files shows traces. An export writes a file as it is as long as the store says what it says.

use std::path::Path;

use super::derive::directories_of;
use super::files::Files;
use super::logged_model::{Identities, OwnerContext};
use super::path::key_of;
use super::plan::EntityPlan;
use super::registry::Placed;
use super::resolver::Kind;
use super::yaml_node::Node;
use crate::catalog::rules::json_text;
use crate::catalog::{encode_assessment, trace_uid};
use crate::error::Result;
use crate::format::event::{EntityKind, Field, Value};
use crate::id::Uid;
use crate::model::{Assessment, AssessmentError, AssessmentValue, TraceInfo, moment_of, moment_text};

/// The directory of an experiment that traces are in.
pub(super) const TRACES: &str = "traces";
/// The file that says what a directory is.
pub(super) const TRACE_INFO: &str = "trace_info.yaml";
/// Directories of a trace, and what the files in them are.
pub(super) const TRACE_VALUES: [(&str, Field); 2] =
    [("request_metadata", Field::METADATA), ("tags", Field::TAG)];
/// The directory of a trace's assessments.
pub(super) const ASSESSMENTS: &str = "assessments";

/// The directories of an experiment that are traces.
pub(super) fn trace_directories(files: &mut dyn Files) -> Result<Vec<std::path::PathBuf>> {
    let mut found = directories_of(files, Path::new(TRACES))?;
    found.retain(|directory| trace_at(files, directory, Uid::default()).is_some());
    Ok(found)
}

fn id_of(document: &Node) -> Option<String> {
    let id = document.get("trace_id").or_else(|| document.get("request_id"))?;
    id.as_text().filter(|id| !id.is_empty()).map(str::to_owned)
}

/// The identities of the trace in a directory; nothing if it is none.
pub(super) fn trace_at(files: &mut dyn Files, directory: &Path, experiment: Uid) -> Option<Identities> {
    let id = id_of(&files.peek(&directory.join(TRACE_INFO))?)?;
    let name = directory.file_name().and_then(|name| name.to_str());
    let own = trace_uid(&id).filter(|_| name == Some(&*id));
    let hashed = Uid::derived("mlruns trace", &[experiment.as_bytes(), key_of(directory).as_bytes()]);
    Some(Identities { own, hashed })
}

/// The trace in a directory.
pub(super) fn trace(
    files: &mut dyn Files,
    directory: &Path,
    uid: Uid,
    context: &OwnerContext<'_>,
) -> Result<Option<Placed>> {
    let Some(document) = files.peek(&directory.join(TRACE_INFO)) else { return Ok(None) };
    let Some(id) = id_of(&document) else { return Ok(None) };
    let mut plan = EntityPlan::new(EntityKind::TRACE, uid, key_of(directory));
    plan.set(Field::TREE, "", Value::Uid(context.tree));
    plan.set(Field::EXPERIMENT, "", Value::Uid(context.experiment));
    if id != format!("tr-{uid}") {
        plan.set(Field::RUN_ID_TEXT, "", Value::Text(id));
    }
    let text = |name: &str| document.get(name).and_then(Node::as_text).map(str::to_owned);
    let integer = |name: &str| document.get(name).and_then(Node::as_integer);
    let began = integer("timestamp_ms").or_else(|| moment_of(&text("request_time")?));
    let texts = [
        (Field::STATUS, text("state").or_else(|| text("status"))),
        (Field::CLIENT_REQUEST_ID, text("client_request_id")),
        (Field::REQUEST_PREVIEW, text("request_preview")),
        (Field::RESPONSE_PREVIEW, text("response_preview")),
    ];
    let integers = [
        (Field::START_MS, began),
        (Field::EXECUTION_MS, integer("execution_duration_ms").or_else(|| integer("execution_time_ms"))),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            plan.set(field, "", Value::Text(text));
        }
    }
    for (field, number) in integers {
        if let Some(number) = number {
            plan.set(field, "", Value::Integer(number));
        }
    }
    for (name, field) in TRACE_VALUES {
        files.values(&mut plan, directory, &directory.join(name), field)?;
    }
    for child in files.children(&directory.join(ASSESSMENTS))? {
        let said = files.peek(&child.path).and_then(|document| read_assessment(&document));
        if let Some(said) = said.filter(|_| !child.is_dir) {
            plan.set(Field::ASSESSMENT, said.id.clone(), Value::Bytes(encode_assessment(&said)));
        }
    }
    Ok(Some((plan, directory.to_path_buf())))
}

/// A YAML value as JSON.
fn json_of(node: &Node) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match node {
        Node::Scalar(Kind::Null, _) => "null".into(),
        Node::Scalar(Kind::Bool, text) => {
            let is_true = ["true", "yes", "on"].contains(&text.to_ascii_lowercase().as_str());
            is_true.to_string()
        }
        Node::Scalar(Kind::Integer, text) if text.parse::<i64>().is_ok() => text.clone(),
        Node::Scalar(Kind::Float, text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => format!("{number:?}"),
            _ => json_text(text),
        },
        Node::Scalar(_, text) => json_text(text),
        Node::Sequence(items) => format!("[{}]", joined(items.iter().map(json_of).collect())),
        Node::Mapping(pairs) => {
            let pair = |(key, value): &(Node, Node)| {
                format!("{}: {}", json_text(key.as_text().unwrap_or("null")), json_of(value))
            };
            format!("{{{}}}", joined(pairs.iter().map(pair).collect()))
        }
    }
}

/// JSON as a YAML value, which JSON mostly is.
fn node_of_json(json: &str) -> Node {
    super::yaml_read::read(json.as_bytes()).unwrap_or_else(|_| Node::text(json))
}

/// An assessment as its file says it.
fn read_assessment(document: &Node) -> Option<Assessment> {
    let text = |name: &str| document.get(name).and_then(Node::as_text).map(str::to_owned);
    let of = |node: Option<&Node>, name: &str| node?.get(name).and_then(Node::as_text).map(str::to_owned);
    let value = if let Some(expectation) = document.get("expectation") {
        let serialized = of(expectation.get("serialized_value"), "value");
        AssessmentValue::Expectation {
            value: serialized
                .or_else(|| expectation.get("value").map(json_of))
                .unwrap_or_else(|| "null".into()),
        }
    } else if let Some(feedback) = document.get("feedback") {
        let error = feedback.get("error").filter(|error| !error.is_null());
        AssessmentValue::Feedback {
            value: feedback.get("value").map(json_of),
            error: error.map(|error| AssessmentError {
                code: of(Some(error), "error_code").unwrap_or_default(),
                message: of(Some(error), "error_message"),
                stack_trace: of(Some(error), "stack_trace"),
            }),
        }
    } else {
        AssessmentValue::Issue { name: of(document.get("issue"), "issue_name")? }
    };
    let mut assessment = Assessment {
        id: text("assessment_id")?,
        name: text("assessment_name").unwrap_or_default(),
        source_type: of(document.get("source"), "source_type").unwrap_or_default(),
        source_id: of(document.get("source"), "source_id").unwrap_or_default(),
        created_ms: text("create_time").and_then(|time| moment_of(&time)),
        updated_ms: text("last_update_time").and_then(|time| moment_of(&time)),
        value,
        rationale: text("rationale"),
        span_id: text("span_id"),
        overrides: text("overrides"),
        valid: text("valid").map(|valid| valid == "true"),
        ..Assessment::default()
    };
    if let Some(Node::Mapping(pairs)) = document.get("metadata") {
        let pair =
            |(key, value): &(Node, Node)| Some((key.as_text()?.to_owned(), value.as_text()?.to_owned()));
        assessment.metadata = pairs.iter().filter_map(pair).collect();
    }
    Some(assessment)
}

/// A mapping with the keys that have a value, in the order of MLflow's files: sorted.
fn mapping(mut pairs: Vec<(&str, Option<Node>)>) -> Node {
    pairs.sort_by_key(|(key, _)| *key);
    Node::Mapping(pairs.into_iter().filter_map(|(key, node)| Some((Node::text(key), node?))).collect())
}

/// The file of an assessment.
pub(super) fn assessment_document(trace_id: &str, assessment: &Assessment) -> Node {
    let text = |text: &str| Some(Node::text(text));
    let given = |text: &Option<String>| text.as_deref().map(Node::text);
    let (kind, value) = match &assessment.value {
        AssessmentValue::Feedback { value, error } => {
            let error = error.as_ref().map(|error| {
                mapping(vec![
                    ("error_code", text(&error.code)),
                    ("error_message", given(&error.message)),
                    ("stack_trace", given(&error.stack_trace)),
                ])
            });
            ("feedback", mapping(vec![("value", value.as_deref().map(node_of_json)), ("error", error)]))
        }
        AssessmentValue::Expectation { value } => {
            let is_plain = !value.starts_with(['[', '{']);
            let serialized =
                || mapping(vec![("serialization_format", text("JSON_FORMAT")), ("value", text(value))]);
            let pair = match is_plain {
                true => ("value", Some(node_of_json(value))),
                false => ("serialized_value", Some(serialized())),
            };
            ("expectation", mapping(vec![pair]))
        }
        AssessmentValue::Issue { name } => ("issue", mapping(vec![("issue_name", text(name))])),
    };
    let metadata =
        assessment.metadata.iter().map(|(key, value)| (Node::text(key), Node::text(value))).collect();
    mapping(vec![
        ("assessment_id", text(&assessment.id)),
        ("assessment_name", text(&assessment.name)),
        ("create_time", assessment.created_ms.map(|ms| Node::text(moment_text(ms)))),
        (kind, Some(value)),
        ("last_update_time", assessment.updated_ms.map(|ms| Node::text(moment_text(ms)))),
        ("metadata", (!assessment.metadata.is_empty()).then_some(Node::Mapping(metadata))),
        ("overrides", given(&assessment.overrides)),
        ("rationale", given(&assessment.rationale)),
        ("source", {
            let (of, id) = (&assessment.source_type, &assessment.source_id);
            Some(mapping(vec![("source_id", text(id)), ("source_type", text(of))]))
        }),
        ("span_id", given(&assessment.span_id)),
        ("trace_id", text(trace_id)),
        ("valid", assessment.valid.map(|valid| Node::Scalar(Kind::Bool, valid.to_string()))),
    ])
}

/// The `trace_info.yaml` of a trace, as MLflow 3 writes it.
pub(super) fn trace_document(trace: &TraceInfo) -> Node {
    let given = |text: &Option<String>| text.as_deref().map(Node::text);
    let experiment = mapping(vec![("experiment_id", Some(Node::text(trace.experiment_id.as_str())))]);
    let location = mapping(vec![
        ("mlflow_experiment", Some(experiment)),
        ("type", Some(Node::text("MLFLOW_EXPERIMENT"))),
    ]);
    mapping(vec![
        ("client_request_id", given(&trace.client_request_id)),
        ("execution_duration_ms", Some(trace.execution_ms.map_or_else(Node::null, Node::integer))),
        ("request_preview", given(&trace.request_preview)),
        ("request_time", Some(Node::text(moment_text(trace.request_ms)))),
        ("response_preview", given(&trace.response_preview)),
        ("state", Some(Node::text(trace.state.as_str()))),
        ("trace_id", Some(Node::text(trace.id.as_str()))),
        ("trace_location", Some(location)),
    ])
}
