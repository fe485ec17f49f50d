//! Logged models that a run used or made, as MLflow's files show them: `inputs/<hash>/meta.yaml` and
//! `outputs/<model id>/meta.yaml`.
//!
//! Contract: a file that MLflow would write again is a register alone; any other is kept as a file, and the register is
//! for whoever asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::content::Content;
use super::digest::{md5_of, short};
use super::files::Files;
use super::meta::{input_document, read_input, text_at};
use super::plan::{EntityPlan, META};
use super::yaml_emit::emit;
use super::yaml_node::Node;
use crate::error::Result;
use crate::format::event::{Field, Value};
use crate::format::input_tags::encode_input_tags;

/// What MLflow calls a data set as input, and a logged model.
pub(super) const DATASET: &str = "DATASET";
pub(super) const MODEL: &str = "MODEL";

/// A model that a run used or made.
pub(super) struct RunModel {
    pub(super) id: String,
    pub(super) field: Field,
    pub(super) value: Value,
    /// Where MLflow keeps it, and what it writes.
    directory: String,
    document: Node,
}

impl RunModel {
    /// A model that was used.
    pub(super) fn input(id: &str, run_id: &str, tags: &BTreeMap<String, String>) -> Self {
        Self {
            id: id.to_owned(),
            field: Field::MODEL_INPUT,
            value: Value::Bytes(encode_input_tags(tags)),
            directory: format!("inputs/{}", md5_of(&[id, run_id])),
            document: input_document(MODEL, id, tags),
        }
    }

    /// A model that was made.
    pub(super) fn output(id: &str, step: i64) -> Self {
        let pair = |key: &str, value: Node| (Node::text(key), value);
        let document = Node::Mapping(vec![
            pair("destination_id", Node::text(id)),
            pair("destination_type", Node::text("MODEL_OUTPUT")),
            pair("source_id", Node::text(id)),
            pair("source_type", Node::text("RUN_OUTPUT")),
            pair("step", Node::integer(step)),
            pair("tags", Node::Mapping(Vec::new())),
        ]);
        let (field, value) = (Field::MODEL_OUTPUT, Value::Integer(step));
        Self { id: id.to_owned(), field, value, directory: format!("outputs/{id}"), document }
    }

    /// What a file says, if it is about a model.
    fn read(document: &Node, run_id: &str) -> Option<Self> {
        match text_at(document, "source_type")?.as_str() {
            MODEL => {
                let (id, tags) = read_input(document, MODEL)?;
                Some(Self::input(&id, run_id, &tags))
            }
            "RUN_OUTPUT" => {
                let step = document.get("step").and_then(Node::as_integer).unwrap_or(0);
                Some(Self::output(&text_at(document, "source_id")?, step))
            }
            _ => None,
        }
    }

    /// Where the file is.
    pub(super) fn file(&self) -> PathBuf {
        Path::new(&self.directory).join(META)
    }

    /// What it says.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        emit(&self.document)
    }

    /// Key of the override that says: this one is written by a file of its own.
    pub(super) fn override_key(&self) -> String {
        let above = if self.field == Field::MODEL_INPUT { "inputs" } else { "outputs" };
        format!("{above}/{}", self.id)
    }

    /// Sets the register; with `by_file` a file is kept beside it.
    fn set(&self, plan: &mut EntityPlan, by_file: bool) {
        plan.set(self.field, &*self.id, self.value.clone());
        if by_file {
            let guard = short(self.id.as_bytes());
            plan.set(Field::VERBATIM, self.override_key(), Content::Missing.to_override(guard));
        }
    }
}

/// Takes the model that a directory of inputs or outputs is about. Whether all of the directory is said with that.
pub(super) fn take_run_model(
    files: &mut dyn Files,
    plan: &mut EntityPlan,
    directory: &Path,
    run_id: &str,
) -> Result<bool> {
    let file = directory.join(META);
    let Some(model) = files.peek(&file).and_then(|document| RunModel::read(&document, run_id)) else {
        return Ok(false);
    };
    let alone = files.children(directory)?.len() == 1;
    let is_new = !plan.registers.contains_key(&(model.field, model.id.clone()));
    let canonical = alone
        && is_new
        && model.file() == file
        && files.value(&file)?.is_some_and(|bytes| model.bytes().is_ok_and(|again| again == bytes));
    model.set(plan, !canonical);
    Ok(canonical)
}

/// Every model that files in registers of a run are about: those stay where they are.
pub(super) fn derive_run_models(files: &mut dyn Files, plan: &mut EntityPlan, run_id: &str) -> Result<()> {
    for above in ["inputs", "outputs"] {
        for directory in files.children(Path::new(above))? {
            let document = files.peek(&directory.path.join(META));
            if let Some(model) = document.and_then(|document| RunModel::read(&document, run_id)) {
                model.set(plan, true);
            }
        }
    }
    Ok(())
}
