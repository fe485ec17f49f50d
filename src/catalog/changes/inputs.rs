//! What logging inputs and outputs of a run writes: data sets, logged models.
//!
//! Contract: see the module above; a data set is an entity of its own, a use of it a register of the run.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Changes;
use super::runs::active_run;
use crate::catalog::{Catalog, rules, run_id};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::format::input_tags::encode_input_tags;
use crate::id::Uid;
use crate::model::{DatasetInput, ModelOutput};

/// The identity of a data set: one per experiment, name and digest, on every machine.
pub fn dataset_uid(experiment: Uid, name: &str, digest: &str) -> Uid {
    Uid::derived("dataset", &[experiment.as_bytes(), name.as_bytes(), digest.as_bytes()])
}

/// Logs data set inputs of a run. A data set that the run has as input already is left as it is; of two equal ones in
/// one call the first counts.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when the run is deleted; else as the rules say.
pub fn log_inputs(catalog: &Catalog, uid: Uid, inputs: &[DatasetInput]) -> Result<Vec<Operation>> {
    for input in inputs {
        rules::dataset(&input.dataset)?;
        rules::input_tags(&input.tags)?;
    }
    let entity = active_run(catalog, uid)?;
    let experiment = entity
        .reference(Field::EXPERIMENT)
        .ok_or_else(|| Error::InvalidState(format!("The run {} has no experiment.", run_id(entity))))?;
    let mut datasets = BTreeMap::new();
    let mut changes = Changes::of(EntityKind::RUN, uid);
    for input in inputs {
        let dataset = dataset_uid(experiment, &input.dataset.name, &input.dataset.digest);
        let key = dataset.to_string();
        if entity.get(Field::INPUT, &key).is_some() {
            continue;
        }
        if let Entry::Vacant(vacant) = datasets.entry(dataset) {
            vacant.insert(&input.dataset);
            changes.set_key(Field::INPUT, &key, Value::Bytes(encode_input_tags(&input.tags)));
        }
    }
    let mut operations = changes.operations;
    for (uid, dataset) in datasets {
        if catalog.get(EntityKind::DATASET, uid).is_some() {
            continue;
        }
        let mut changes = Changes::of(EntityKind::DATASET, uid);
        changes.set_text(Field::NAME, &dataset.name);
        changes.set_text(Field::DIGEST, &dataset.digest);
        changes.set_text(Field::SOURCE_TYPE, &dataset.source_type);
        changes.set_text(Field::SOURCE, &dataset.source);
        for (field, text) in [(Field::SCHEMA, &dataset.schema), (Field::PROFILE, &dataset.profile)] {
            if let Some(text) = text {
                changes.set_text(field, text);
            }
        }
        operations.extend(changes.operations);
    }
    Ok(operations)
}

/// Logs logged models that a run used. One that it has as input already stays as it is.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidState`] when the run is deleted; else as the rules say.
pub fn log_model_inputs(catalog: &Catalog, uid: Uid, model_ids: &[&str]) -> Result<Vec<Operation>> {
    model_ids.iter().try_for_each(|id| rules::model_id(id))?;
    let run = active_run(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::RUN, uid);
    for id in model_ids.iter().filter(|id| run.get(Field::MODEL_INPUT, id).is_none()) {
        changes.set_key(Field::MODEL_INPUT, id, Value::Bytes(encode_input_tags(&BTreeMap::new())));
    }
    Ok(changes.operations)
}

/// Logs logged models that a run made. One that it has as output already stays as it is.
///
/// # Errors
/// As [`log_model_inputs`].
pub fn log_model_outputs(catalog: &Catalog, uid: Uid, outputs: &[ModelOutput]) -> Result<Vec<Operation>> {
    outputs.iter().try_for_each(|output| rules::model_id(&output.model_id))?;
    let run = active_run(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::RUN, uid);
    let new = outputs.iter().filter(|output| run.get(Field::MODEL_OUTPUT, &output.model_id).is_none());
    for output in new {
        changes.set_key(Field::MODEL_OUTPUT, &output.model_id, Value::Integer(output.step));
    }
    Ok(changes.operations)
}
