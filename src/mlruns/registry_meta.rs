//! Registered models and their versions as their YAML files show them.
//!
//! Contract: as `meta`. Aliases and the model's name are shown in files of several entities, so whoever makes one of
//! these hands them in.

use std::collections::BTreeMap;

use super::Registers;
use super::meta::{
    Fields, integer_at, integer_node, integer_of, integer_value, text_at, text_node, text_of, text_value,
};
use super::shape::{Described, Key};
use super::yaml_node::Node;
use crate::format::event::{Field, Value};

/// A registered model.
#[derive(Clone, Debug, Default)]
pub(super) struct RegisteredModelMeta {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) created: Option<i64>,
    pub(super) updated: Option<i64>,
    /// Version numbers by alias.
    pub(super) aliases: BTreeMap<String, i64>,
}

impl RegisteredModelMeta {
    /// What a file says, if it names a model; oddities go to `notes`.
    pub(super) fn from_document(document: &Node, notes: &mut Vec<String>) -> Option<Self> {
        Some(Self {
            name: text_at(document, "name")?,
            description: text_at(document, "description"),
            created: integer_at(document, "creation_timestamp", notes),
            updated: integer_at(document, "last_updated_timestamp", notes),
            aliases: BTreeMap::new(),
        })
    }

    /// From the store.
    pub(super) fn from_registers(registers: &Registers, aliases: BTreeMap<String, i64>) -> Self {
        Self {
            name: text_of(registers, Field::NAME, "").unwrap_or_default(),
            description: text_of(registers, Field::DESCRIPTION, ""),
            created: integer_of(registers, Field::CREATED_MS),
            updated: integer_of(registers, Field::UPDATED_MS),
            aliases,
        }
    }

    /// For the store.
    pub(super) fn fields(&self) -> Fields {
        vec![
            (Field::NAME, Value::Text(self.name.clone())),
            (Field::DESCRIPTION, text_value(self.description.as_ref())),
            (Field::CREATED_MS, integer_value(self.created)),
            (Field::UPDATED_MS, integer_value(self.updated)),
        ]
    }
}

impl Described for RegisteredModelMeta {
    const KEYS: &'static [Key] = &[
        Key::new("aliases"),
        Key::new("creation_timestamp"),
        Key::new("description"),
        Key::new("last_updated_timestamp"),
        Key::new("name"),
        Key::rare_fixed("deployment_job_id"),
        Key::rare_fixed("deployment_job_state"),
        Key::rare_fixed("workspace"),
    ];

    fn node(&self, key: &str) -> Option<Node> {
        Some(match key {
            "aliases" => {
                let pair =
                    |(alias, version): (&String, &i64)| (Node::text(alias), Node::text(version.to_string()));
                Node::Mapping(self.aliases.iter().map(pair).collect())
            }
            "creation_timestamp" => integer_node(self.created),
            "description" => text_node(self.description.as_ref()),
            "last_updated_timestamp" => integer_node(self.updated),
            "name" => Node::text(&self.name),
            "deployment_job_id" | "deployment_job_state" => Node::null(),
            "workspace" => Node::text("default"),
            _ => return None,
        })
    }
}

/// A version of a registered model.
#[derive(Clone, Debug, Default)]
pub(super) struct ModelVersionMeta {
    /// The name of its model.
    pub(super) model: String,
    pub(super) number: i64,
    pub(super) stage: Option<String>,
    pub(super) description: Option<String>,
    pub(super) created: Option<i64>,
    pub(super) updated: Option<i64>,
    pub(super) user: Option<String>,
    pub(super) source: Option<String>,
    pub(super) storage_location: Option<String>,
    pub(super) run_id: Option<String>,
    pub(super) run_link: Option<String>,
    pub(super) model_id: Option<String>,
    pub(super) status: Option<String>,
    pub(super) status_message: Option<String>,
    /// The aliases that name it.
    pub(super) aliases: Vec<String>,
}

impl ModelVersionMeta {
    /// What a file says, if it has a number; oddities go to `notes`.
    pub(super) fn from_document(document: &Node, model: &str, notes: &mut Vec<String>) -> Option<Self> {
        let number = document.get("version").and_then(Node::as_integer).filter(|number| *number >= 0)?;
        Some(Self {
            model: model.to_owned(),
            number,
            stage: text_at(document, "current_stage"),
            description: text_at(document, "description"),
            created: integer_at(document, "creation_timestamp", notes),
            updated: integer_at(document, "last_updated_timestamp", notes),
            user: text_at(document, "user_id"),
            source: text_at(document, "source"),
            storage_location: text_at(document, "storage_location"),
            run_id: text_at(document, "run_id"),
            run_link: text_at(document, "run_link"),
            model_id: text_at(document, "model_id"),
            status: text_at(document, "status"),
            status_message: text_at(document, "status_message"),
            aliases: Vec::new(),
        })
    }

    /// From the store.
    pub(super) fn from_registers(registers: &Registers, model: String, aliases: Vec<String>) -> Self {
        let text = |field| text_of(registers, field, "");
        Self {
            model,
            number: integer_of(registers, Field::VERSION).unwrap_or(0),
            stage: text(Field::STAGE),
            description: text(Field::DESCRIPTION),
            created: integer_of(registers, Field::CREATED_MS),
            updated: integer_of(registers, Field::UPDATED_MS),
            user: text(Field::USER),
            source: text(Field::SOURCE),
            storage_location: text(Field::ARTIFACT_LOCATION),
            run_id: text(Field::RUN_ID),
            run_link: text(Field::RUN_LINK),
            model_id: text(Field::MODEL_ID),
            status: text(Field::STATUS),
            status_message: text(Field::STATUS_MESSAGE),
            aliases,
        }
    }

    /// For the store.
    pub(super) fn fields(&self) -> Fields {
        vec![
            (Field::VERSION, Value::Integer(self.number)),
            (Field::STAGE, text_value(self.stage.as_ref())),
            (Field::DESCRIPTION, text_value(self.description.as_ref())),
            (Field::CREATED_MS, integer_value(self.created)),
            (Field::UPDATED_MS, integer_value(self.updated)),
            (Field::USER, text_value(self.user.as_ref())),
            (Field::SOURCE, text_value(self.source.as_ref())),
            (Field::ARTIFACT_LOCATION, text_value(self.storage_location.as_ref())),
            (Field::RUN_ID, text_value(self.run_id.as_ref())),
            (Field::RUN_LINK, text_value(self.run_link.as_ref())),
            (Field::MODEL_ID, text_value(self.model_id.as_ref())),
            (Field::STATUS, text_value(self.status.as_ref())),
            (Field::STATUS_MESSAGE, text_value(self.status_message.as_ref())),
        ]
    }
}

impl Described for ModelVersionMeta {
    // Usual are the keys that 2.22 and 3.18 both write. 2.x lists the aliases, too, and nobody reads them there.
    const KEYS: &'static [Key] = &[
        Key::rare_fixed("aliases"),
        Key::new("creation_timestamp"),
        Key::new("current_stage"),
        Key::new("description"),
        Key::new("last_updated_timestamp"),
        Key::rare("model_id"),
        Key::new("name"),
        Key::new("run_id"),
        Key::new("run_link"),
        Key::new("source"),
        Key::new("status"),
        Key::new("status_message"),
        Key::new("storage_location"),
        Key::new("user_id"),
        Key::new("version"),
        Key::rare_fixed("deployment_job_state"),
        Key::rare_fixed("workspace"),
    ];

    fn node(&self, key: &str) -> Option<Node> {
        Some(match key {
            "aliases" => Node::Sequence(self.aliases.iter().map(Node::text).collect()),
            "creation_timestamp" => integer_node(self.created),
            "current_stage" => Node::text(self.stage.as_deref().unwrap_or("None")),
            "description" => text_node(self.description.as_ref()),
            "last_updated_timestamp" => integer_node(self.updated),
            "model_id" => text_node(self.model_id.as_ref()),
            "name" => Node::text(&self.model),
            "run_id" => text_node(self.run_id.as_ref()),
            "run_link" => text_node(self.run_link.as_ref()),
            "source" => text_node(self.source.as_ref()),
            "status" => Node::text(self.status.as_deref().unwrap_or("READY")),
            "status_message" => text_node(self.status_message.as_ref()),
            "storage_location" => text_node(self.storage_location.as_ref()),
            "user_id" => text_node(self.user.as_ref()),
            "version" => Node::integer(self.number),
            "deployment_job_state" => Node::null(),
            "workspace" => Node::text("default"),
            _ => return None,
        })
    }
}
