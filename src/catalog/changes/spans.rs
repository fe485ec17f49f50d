//! What logging spans writes.
//!
//! Contract: see the module above. Spans may come before what is said of their trace, which they make then; of a trace
//! that is done they change nothing but its spans.

use super::Changes;
use super::experiments::active_experiment;
use crate::catalog::{Catalog, Entity, SpanRef, encode_span, rules};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::Uid;
use crate::limits::KEY_CHARS_MAX;
use crate::model::{Span, TraceState};

const NANOS_IN_MS: i64 = 1_000_000;

/// Adds spans to a trace, which is made if it is not there: it begins with its first span and ends with its last, and
/// its state is that of its root.
///
/// # Errors
/// As [`super::start_trace`] says; [`Error::InvalidArgument`] for a span without an id.
pub fn log_spans(
    catalog: &Catalog,
    experiment: Uid,
    uid: Uid,
    id: &str,
    spans: &[SpanRef],
) -> Result<Vec<Operation>> {
    rules::trace_id(id)?;
    for SpanRef { span, .. } in spans {
        if span.id.is_empty() || span.id.len() > KEY_CHARS_MAX {
            return Err(Error::invalid(format!(
                "a span id has 1 to {KEY_CHARS_MAX} bytes, not {}",
                span.id.len()
            )));
        }
    }
    active_experiment(catalog, experiment)?;
    let known = catalog.trace(uid);
    if known.is_some_and(|known| known.reference(Field::EXPERIMENT) != Some(experiment)) {
        return Err(Error::invalid(format!("Trace with ID '{id}' already exists in another experiment.")));
    }
    let mut changes = Changes::of(EntityKind::TRACE, uid);
    if known.is_none() {
        changes.set(Field::EXPERIMENT, Value::Uid(experiment));
        if id != format!("tr-{uid}") {
            changes.set_text(Field::RUN_ID_TEXT, id);
        }
    }
    let state: TraceState =
        known.and_then(|known| known.text(Field::STATUS)?.parse().ok()).unwrap_or_default();
    if !matches!(state, TraceState::Ok | TraceState::Error) {
        let root = spans.iter().map(|one| &one.span).find(|span| span.parent_id.is_none());
        let now = root.map_or(TraceState::InProgress, root_state);
        if now != state {
            changes.set_text(Field::STATUS, now.as_str());
        }
        set_times(&mut changes, known.map(|known| &**known), spans);
    }
    for SpanRef { span, blob, length } in spans {
        changes.set_key(Field::SPAN, &span.id, Value::Bytes(encode_span(span, *blob, *length)));
    }
    Ok(changes.operations)
}

/// MLflow's: all that is no error is well.
fn root_state(root: &Span) -> TraceState {
    if root.status == "ERROR" { TraceState::Error } else { TraceState::Ok }
}

/// From the first beginning to the last end, of these spans and of what was known before.
fn set_times(changes: &mut Changes, known: Option<&Entity>, spans: &[SpanRef]) {
    let of = |field| known.and_then(|known| known.integer(field));
    let known_start = of(Field::START_MS);
    let starts = spans.iter().map(|one| one.span.start_ns.div_euclid(NANOS_IN_MS));
    let Some(start) = starts.chain(known_start).min() else { return };
    if known_start != Some(start) {
        changes.set(Field::START_MS, Value::Integer(start));
    }
    let known_took = of(Field::EXECUTION_MS);
    let known_end = known_start.zip(known_took).map(|(start, took)| start.saturating_add(took));
    let ends = spans.iter().filter_map(|one| Some(one.span.end_ns?.div_euclid(NANOS_IN_MS)));
    let took = ends.chain(known_end).max().map(|end| end.saturating_sub(start));
    if let Some(took) = took.filter(|took| known_took != Some(*took)) {
        changes.set(Field::EXECUTION_MS, Value::Integer(took));
    }
}
