//! What logging data set inputs writes.
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
use crate::model::DatasetInput;

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
