//! Experiments, runs, data sets and inputs as their YAML files show them.
//!
//! Contract: each type is read leniently from a document ([`RunMeta::from_document`], ...), becomes registers and
//! comes back from them; [`Described`] says what MLflow writes for it. Ids and names are text here, whatever YAML
//! thinks of them.

use std::collections::BTreeMap;

use super::Registers;
use super::resolver::Kind;
use super::shape::{Described, Key};
use super::yaml_node::Node;
use crate::format::event::{Field, Value};
use crate::model::{Lifecycle, RunStatus};

/// The text of a register, if it holds text.
pub(super) fn text_of(registers: &Registers, field: Field, key: &str) -> Option<String> {
    match registers.get(&(field, key.to_owned())) {
        Some((_, Value::Text(text))) => Some(text.clone()),
        Some((_, Value::Bytes(bytes))) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

/// The integer of a register, if it holds one.
pub(super) fn integer_of(registers: &Registers, field: Field) -> Option<i64> {
    match registers.get(&(field, String::new())) {
        Some((_, Value::Integer(number))) => Some(*number),
        _ => None,
    }
}

pub(super) fn text_value(text: Option<&String>) -> Value {
    text.map_or(Value::Absent, |text| Value::Text(text.clone()))
}

pub(super) fn integer_value(number: Option<i64>) -> Value {
    number.map_or(Value::Absent, Value::Integer)
}

pub(super) fn text_node(text: Option<&String>) -> Node {
    text.map_or_else(Node::null, Node::text)
}

pub(super) fn integer_node(number: Option<i64>) -> Node {
    number.map_or_else(Node::null, Node::integer)
}

pub(super) fn text_at(document: &Node, key: &str) -> Option<String> {
    document.get(key).and_then(Node::as_text).map(str::to_owned)
}

/// An integer, with a note if there is something else. Of a float (1.x let them through) the whole part.
pub(super) fn integer_at(document: &Node, key: &'static str, notes: &mut Vec<String>) -> Option<i64> {
    let node = document.get(key)?;
    let number = node.as_integer();
    if node.is_null() || number.is_some() {
        return number;
    }
    let float = match node {
        Node::Scalar(Kind::Float, text) => {
            super::number::read_float(text.as_bytes()).filter(|f| f.abs() < 9e18)
        }
        _ => None,
    };
    notes.push(format!(
        "{key} is not an integer{}",
        if float.is_some() { "; its whole part was taken" } else { "" }
    ));
    float.map(|float| float as i64)
}

pub(super) fn lifecycle_at(document: &Node, notes: &mut Vec<String>) -> Option<Lifecycle> {
    let text = document.get("lifecycle_stage")?.as_text();
    let known = [Lifecycle::Active, Lifecycle::Deleted].into_iter().find(|l| text == Some(l.as_str()));
    if known.is_none() {
        notes.push("lifecycle_stage is neither active nor deleted".into());
    }
    known
}

pub(super) fn lifecycle_of(registers: &Registers) -> Option<Lifecycle> {
    let text = text_of(registers, Field::LIFECYCLE, "")?;
    Some(if text == Lifecycle::Deleted.as_str() { Lifecycle::Deleted } else { Lifecycle::Active })
}

/// Operations of an entity's own fields.
pub(super) type Fields = Vec<(Field, Value)>;

/// An experiment.
#[derive(Clone, Debug, Default)]
pub(super) struct ExperimentMeta {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) lifecycle: Option<Lifecycle>,
    pub(super) artifact_location: Option<String>,
    pub(super) created: Option<i64>,
    pub(super) updated: Option<i64>,
}

impl ExperimentMeta {
    /// What a file says; oddities go to `notes`.
    pub(super) fn from_document(document: &Node, notes: &mut Vec<String>) -> Self {
        Self {
            id: text_at(document, "experiment_id"),
            name: text_at(document, "name"),
            lifecycle: lifecycle_at(document, notes),
            artifact_location: text_at(document, "artifact_location"),
            created: integer_at(document, "creation_time", notes),
            updated: integer_at(document, "last_update_time", notes),
        }
    }

    /// From the store.
    pub(super) fn from_registers(registers: &Registers) -> Self {
        Self {
            id: text_of(registers, Field::NUMERIC_ID, ""),
            name: text_of(registers, Field::NAME, ""),
            lifecycle: lifecycle_of(registers),
            artifact_location: text_of(registers, Field::ARTIFACT_LOCATION, ""),
            created: integer_of(registers, Field::CREATED_MS),
            updated: integer_of(registers, Field::UPDATED_MS),
        }
    }

    /// For the store.
    pub(super) fn fields(&self) -> Fields {
        let lifecycle = self.lifecycle.unwrap_or(Lifecycle::Active);
        vec![
            (Field::NUMERIC_ID, text_value(self.id.as_ref())),
            (Field::NAME, text_value(self.name.as_ref())),
            (Field::LIFECYCLE, Value::Text(lifecycle.as_str().into())),
            (Field::ARTIFACT_LOCATION, text_value(self.artifact_location.as_ref())),
            (Field::CREATED_MS, integer_value(self.created)),
            (Field::UPDATED_MS, integer_value(self.updated)),
        ]
    }
}

impl Described for ExperimentMeta {
    const KEYS: &'static [Key] = &[
        Key::new("artifact_location"),
        Key::new("creation_time"),
        Key::new("experiment_id"),
        Key::new("last_update_time"),
        Key::new("lifecycle_stage"),
        Key::new("name"),
        Key::rare_fixed("effective_trace_archival_retention"),
        Key::rare_fixed("trace_location"),
        Key::rare_fixed("workspace"),
    ];

    fn node(&self, key: &str) -> Option<Node> {
        Some(match key {
            "artifact_location" => text_node(self.artifact_location.as_ref()),
            "creation_time" => integer_node(self.created),
            "experiment_id" => text_node(self.id.as_ref()),
            "last_update_time" => integer_node(self.updated),
            "lifecycle_stage" => Node::text(self.lifecycle.unwrap_or(Lifecycle::Active).as_str()),
            "name" => text_node(self.name.as_ref()),
            "effective_trace_archival_retention" | "trace_location" => Node::null(),
            "workspace" => Node::text("default"),
            _ => return None,
        })
    }
}

/// A run.
#[derive(Clone, Debug, Default)]
pub(super) struct RunMeta {
    /// The run id as it is spelled.
    pub(super) id: String,
    /// The id of the experiment it is in; not a field of its own.
    pub(super) experiment_id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) lifecycle: Option<Lifecycle>,
    pub(super) status: Option<i64>,
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
    pub(super) deleted: Option<i64>,
    pub(super) user: Option<String>,
    pub(super) artifact_uri: Option<String>,
}

impl RunMeta {
    /// What a file says; oddities go to `notes`. The ids are those of the directories it is in.
    pub(super) fn from_document(
        document: &Node,
        id: String,
        experiment: Option<&String>,
        notes: &mut Vec<String>,
    ) -> Self {
        let written = text_at(document, "run_id").or_else(|| text_at(document, "run_uuid"));
        if written.as_ref().is_some_and(|written| *written != id) {
            notes
                .push("run_id is not the name of the directory; MLflow cannot get this run by its id".into());
        }
        let parent = text_at(document, "experiment_id");
        if parent.as_ref() != experiment {
            notes.push("experiment_id is not that of the experiment; MLflow does not show this run".into());
        }
        let status = match document.get("status").map(|node| (node, node.as_integer())) {
            None => None,
            Some((_, Some(number))) if RunStatus::from_number(number).is_some() => Some(number),
            Some((node, _)) => {
                notes.push(
                    "status is not one of the numbers 1 to 5; MLflow cannot search this experiment".into(),
                );
                node.as_text().and_then(|text| text.parse::<RunStatus>().ok()).map(|status| status as i64)
            }
        };
        Self {
            id: written.unwrap_or(id),
            experiment_id: experiment.cloned(),
            name: text_at(document, "run_name"),
            lifecycle: lifecycle_at(document, notes),
            status,
            start: integer_at(document, "start_time", notes),
            end: integer_at(document, "end_time", notes),
            deleted: integer_at(document, "deleted_time", notes),
            user: text_at(document, "user_id"),
            artifact_uri: text_at(document, "artifact_uri"),
        }
    }

    /// From the store.
    pub(super) fn from_registers(registers: &Registers, id: String, experiment_id: Option<String>) -> Self {
        Self {
            id,
            experiment_id,
            name: text_of(registers, Field::NAME, ""),
            lifecycle: lifecycle_of(registers),
            status: integer_of(registers, Field::STATUS),
            start: integer_of(registers, Field::START_MS),
            end: integer_of(registers, Field::END_MS),
            deleted: integer_of(registers, Field::DELETED_MS),
            user: text_of(registers, Field::USER, ""),
            artifact_uri: text_of(registers, Field::ARTIFACT_URI, ""),
        }
    }

    /// For the store.
    pub(super) fn fields(&self) -> Fields {
        let lifecycle = self.lifecycle.unwrap_or(Lifecycle::Active);
        vec![
            (Field::NAME, text_value(self.name.as_ref())),
            (Field::LIFECYCLE, Value::Text(lifecycle.as_str().into())),
            (Field::STATUS, integer_value(self.status)),
            (Field::START_MS, integer_value(self.start)),
            (Field::END_MS, integer_value(self.end)),
            (Field::DELETED_MS, integer_value(self.deleted)),
            (Field::USER, text_value(self.user.as_ref())),
            (Field::ARTIFACT_URI, text_value(self.artifact_uri.as_ref())),
        ]
    }
}

impl Described for RunMeta {
    // Usual are the keys of 2.x: 1.22 needs run_uuid, 3.x reads past it; `name` is 1.x's alone and always empty.
    const KEYS: &'static [Key] = &[
        Key::new("artifact_uri"),
        Key::rare("deleted_time"),
        Key::new("end_time"),
        Key::fixed("entry_point_name"),
        Key::fixed("experiment_id"),
        Key::new("lifecycle_stage"),
        Key::rare_fixed("name"),
        Key::fixed("run_id"),
        Key::new("run_name"),
        Key::fixed("run_uuid"),
        Key::fixed("source_name"),
        Key::fixed("source_type"),
        Key::fixed("source_version"),
        Key::new("start_time"),
        Key::new("status"),
        Key::fixed("tags"),
        Key::new("user_id"),
    ];

    fn node(&self, key: &str) -> Option<Node> {
        Some(match key {
            "artifact_uri" => text_node(self.artifact_uri.as_ref()),
            "deleted_time" => return self.deleted.map(Node::integer),
            "end_time" => integer_node(self.end),
            "experiment_id" => text_node(self.experiment_id.as_ref()),
            "lifecycle_stage" => Node::text(self.lifecycle.unwrap_or(Lifecycle::Active).as_str()),
            "run_id" | "run_uuid" => Node::text(&self.id),
            "run_name" => return self.name.as_ref().map(Node::text),
            "start_time" => integer_node(self.start),
            "status" => Node::integer(self.status.unwrap_or(RunStatus::Running as i64)),
            "user_id" => text_node(self.user.as_ref()),
            "entry_point_name" | "name" | "source_name" | "source_version" => Node::text(""),
            "source_type" => Node::integer(4),
            "tags" => Node::Sequence(Vec::new()),
            _ => return None,
        })
    }
}

/// A data set.
#[derive(Clone, Debug, Default)]
pub(super) struct DatasetMeta {
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) source_type: Option<String>,
    pub(super) source: Option<String>,
    pub(super) schema: Option<String>,
    pub(super) profile: Option<String>,
}

impl DatasetMeta {
    /// What a file says, if it names a data set.
    pub(super) fn from_document(document: &Node) -> Option<Self> {
        Some(Self {
            name: text_at(document, "name")?,
            digest: text_at(document, "digest")?,
            source_type: text_at(document, "source_type"),
            source: text_at(document, "source"),
            schema: text_at(document, "schema"),
            profile: text_at(document, "profile"),
        })
    }

    /// From the store.
    pub(super) fn from_registers(registers: &Registers) -> Self {
        Self {
            name: text_of(registers, Field::NAME, "").unwrap_or_default(),
            digest: text_of(registers, Field::DIGEST, "").unwrap_or_default(),
            source_type: text_of(registers, Field::SOURCE_TYPE, ""),
            source: text_of(registers, Field::SOURCE, ""),
            schema: text_of(registers, Field::SCHEMA, ""),
            profile: text_of(registers, Field::PROFILE, ""),
        }
    }

    /// For the store.
    pub(super) fn fields(&self) -> Fields {
        vec![
            (Field::NAME, Value::Text(self.name.clone())),
            (Field::DIGEST, Value::Text(self.digest.clone())),
            (Field::SOURCE_TYPE, text_value(self.source_type.as_ref())),
            (Field::SOURCE, text_value(self.source.as_ref())),
            (Field::SCHEMA, text_value(self.schema.as_ref())),
            (Field::PROFILE, text_value(self.profile.as_ref())),
        ]
    }

    /// The name of its directory.
    pub(super) fn directory(&self) -> String {
        super::digest::md5_of(&[&self.name, &self.digest])
    }
}

impl Described for DatasetMeta {
    const KEYS: &'static [Key] = &[
        Key::new("digest"),
        Key::new("name"),
        Key::new("profile"),
        Key::new("schema"),
        Key::new("source"),
        Key::new("source_type"),
    ];

    fn node(&self, key: &str) -> Option<Node> {
        Some(match key {
            "digest" => Node::text(&self.digest),
            "name" => Node::text(&self.name),
            "profile" => text_node(self.profile.as_ref()),
            "schema" => text_node(self.schema.as_ref()),
            "source" => text_node(self.source.as_ref()),
            "source_type" => text_node(self.source_type.as_ref()),
            _ => return None,
        })
    }
}

/// The file of an input. MLflow writes the source's id as destination too.
pub(super) fn input_document(source_type: &str, source: &str, tags: &BTreeMap<String, String>) -> Node {
    let tags = tags.iter().map(|(key, value)| (Node::text(key), Node::text(value))).collect();
    let pair = |key: &str, value: Node| (Node::text(key), value);
    Node::Mapping(vec![
        pair("destination_id", Node::text(source)),
        pair("destination_type", Node::text("RUN")),
        pair("source_id", Node::text(source)),
        pair("source_type", Node::text(source_type)),
        pair("tags", Node::Mapping(tags)),
    ])
}

/// The source (a data set's directory, a model's id) and the tags, if a document is an input of this type.
pub(super) fn read_input(document: &Node, source_type: &str) -> Option<(String, BTreeMap<String, String>)> {
    if document.get("source_type").and_then(Node::as_text) != Some(source_type) {
        return None;
    }
    let tags = match document.get("tags") {
        Some(Node::Mapping(pairs)) => pairs
            .iter()
            .map(|(key, value)| match (key, value) {
                (Node::Scalar(Kind::Text, key), Node::Scalar(Kind::Text, value)) => {
                    Some((key.clone(), value.clone()))
                }
                _ => None,
            })
            .collect::<Option<_>>()?,
        _ => BTreeMap::new(),
    };
    Some((text_at(document, "source_id")?, tags))
}
