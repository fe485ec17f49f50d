//! What the verbs on traces write.
//!
//! Contract: see the module above. Starting a trace that is there adds to it, as spans and the trace itself may come in
//! any order; it stays in its experiment.

use super::experiments::active_experiment;
use super::{Changes, delete_tag};
use crate::catalog::{Catalog, Entity, encode_assessment, rules, trace_id};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::Uid;
use crate::model::{Assessment, TraceInfo};

fn trace(catalog: &Catalog, uid: Uid) -> Result<&Entity> {
    let found = catalog.trace(uid).map(|e| &**e);
    found.ok_or_else(|| Error::not_found("trace", format!("tr-{uid}")))
}

/// A trace, made or added to. `new.uid` is its identity; assessments have ids.
///
/// # Errors
/// [`Error::NotFound`] without the experiment, [`Error::InvalidState`] when that is deleted,
/// [`Error::InvalidArgument`] if the trace is in another experiment; else as the rules say.
pub fn start_trace(catalog: &Catalog, new: &TraceInfo) -> Result<Vec<Operation>> {
    rules::trace_id(&new.id)?;
    for (key, value) in new.tags.iter().chain(&new.metadata) {
        rules::trace_pair(key, value)?;
    }
    active_experiment(catalog, new.experiment_uid)?;
    let known = catalog.trace(new.uid);
    if known.is_some_and(|known| known.reference(Field::EXPERIMENT) != Some(new.experiment_uid)) {
        return Err(Error::invalid(format!(
            "Trace with ID '{}' already exists in another experiment.",
            new.id
        )));
    }
    let mut changes = Changes::of(EntityKind::TRACE, new.uid);
    if known.is_none() {
        changes.set(Field::EXPERIMENT, Value::Uid(new.experiment_uid));
        if new.id != format!("tr-{}", new.uid) {
            changes.set_text(Field::RUN_ID_TEXT, &new.id);
        }
    }
    changes.set_text(Field::STATUS, new.state.as_str());
    changes.set(Field::START_MS, Value::Integer(new.request_ms));
    if let Some(execution_ms) = new.execution_ms {
        changes.set(Field::EXECUTION_MS, Value::Integer(execution_ms));
    }
    changes.set_given(Field::CLIENT_REQUEST_ID, new.client_request_id.as_deref());
    changes.set_given(Field::REQUEST_PREVIEW, new.request_preview.as_deref());
    changes.set_given(Field::RESPONSE_PREVIEW, new.response_preview.as_deref());
    for (key, value) in &new.tags {
        changes.set_key(Field::TAG, key, Value::from(value.as_str()));
    }
    for (key, value) in &new.metadata {
        changes.set_key(Field::METADATA, key, Value::from(value.as_str()));
    }
    for assessment in &new.assessments {
        changes.set_key(Field::ASSESSMENT, &assessment.id, Value::Bytes(encode_assessment(assessment)));
    }
    Ok(changes.operations)
}

/// Sets a tag of a trace.
///
/// # Errors
/// [`Error::NotFound`]; else as the rules say.
pub fn set_trace_tag(catalog: &Catalog, uid: Uid, key: &str, value: &str) -> Result<Vec<Operation>> {
    rules::trace_pair(key, value)?;
    trace(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::TRACE, uid);
    changes.set_tags(&[(key, value)]);
    Ok(changes.operations)
}

/// Deletes a tag of a trace.
///
/// # Errors
/// [`Error::NotFound`], also for the tag.
pub fn delete_trace_tag(catalog: &Catalog, uid: Uid, key: &str) -> Result<Vec<Operation>> {
    delete_tag(trace(catalog, uid)?, key)
}

fn missing_assessment(trace: &Entity, id: &str) -> Error {
    Error::not_found("assessment", format!("{id} of trace {}", trace_id(trace)))
}

/// An assessment as the catalog has it.
///
/// # Errors
/// [`Error::NotFound`], for the trace or the assessment.
pub fn assessment(catalog: &Catalog, uid: Uid, id: &str) -> Result<Assessment> {
    let trace = trace(catalog, uid)?;
    let found = catalog.render_trace(trace).assessments.into_iter().find(|assessment| assessment.id == id);
    found.ok_or_else(|| missing_assessment(trace, id))
}

/// Writes an assessment. One that it overrides is not valid any more.
///
/// # Errors
/// [`Error::NotFound`], also for the assessment that is overridden.
pub fn put_assessment(catalog: &Catalog, uid: Uid, new: &Assessment) -> Result<Vec<Operation>> {
    trace(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::TRACE, uid);
    if let Some(overridden) = new.overrides.as_deref() {
        let old = Assessment { valid: Some(false), ..assessment(catalog, uid, overridden)? };
        changes.set_key(Field::ASSESSMENT, &old.id, Value::Bytes(encode_assessment(&old)));
    }
    changes.set_key(Field::ASSESSMENT, &new.id, Value::Bytes(encode_assessment(new)));
    Ok(changes.operations)
}

/// Deletes an assessment; the one that it overrode is valid again. Deleting one that is not there does nothing.
///
/// # Errors
/// [`Error::NotFound`] without the trace.
pub fn delete_assessment(catalog: &Catalog, uid: Uid, id: &str) -> Result<Vec<Operation>> {
    trace(catalog, uid)?;
    let mut changes = Changes::of(EntityKind::TRACE, uid);
    let Ok(known) = assessment(catalog, uid, id) else { return Ok(Vec::new()) };
    if let Some(Ok(old)) = known.overrides.as_deref().map(|overridden| assessment(catalog, uid, overridden)) {
        let old = Assessment { valid: Some(true), ..old };
        changes.set_key(Field::ASSESSMENT, &old.id, Value::Bytes(encode_assessment(&old)));
    }
    changes.set_key(Field::ASSESSMENT, id, Value::Absent);
    Ok(changes.operations)
}
