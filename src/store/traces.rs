//! Traces: made by applications, tagged and judged by people and programs.
//!
//! Contract: starting a trace that is there adds to it. Deleting one is for good, as in MLflow; its files go with the
//! next garbage collection of its experiment. Spans: see `spans`; those of older clients are a file, `traces.json`.

use std::sync::Arc;

use crate::catalog::{Catalog, changes, trace_uid};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Field, Operation};
use crate::id::Uid;
use crate::model::{Assessment, AssessmentValue, TraceInfo};
use crate::store::experiments::now_ms;
use crate::store::state::Want;
use crate::store::{Inner, Store};

/// What to change of an assessment; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct AssessmentUpdate {
    /// Another name.
    pub name: Option<String>,
    /// Another value, of the same kind.
    pub value: Option<AssessmentValue>,
    /// Another reason.
    pub rationale: Option<String>,
    /// Metadata to add, or to replace.
    pub metadata: Vec<(String, String)>,
}

/// A new assessment id.
fn assessment_id() -> Result<String> {
    Ok(format!("a-{}", Uid::random()?))
}

/// An assessment with what was not said of it.
fn completed(mut assessment: Assessment) -> Result<Assessment> {
    if assessment.id.is_empty() {
        assessment.id = assessment_id()?;
    }
    let now = now_ms();
    assessment.created_ms.get_or_insert(now);
    assessment.updated_ms.get_or_insert(now);
    assessment.valid.get_or_insert(true);
    Ok(assessment)
}

impl Inner {
    /// Resolves a trace id as callers spell it.
    pub(crate) fn trace_uid(&self, id: &str) -> Result<Uid> {
        if let Some(uid) = trace_uid(id) {
            let state = self.current(Want::Entity(uid))?;
            if state.catalog.trace(uid).is_some() {
                return Ok(uid);
            }
        }
        // One that is spelled otherwise, or that only follows from files.
        let state = self.current(Want::All)?;
        let found = state.catalog.trace_by_id(id).map(|trace| trace.uid());
        found.ok_or_else(|| Error::not_found("trace", id))
    }

    fn change_trace(
        &self,
        id: &str,
        change: impl FnOnce(&Catalog, Uid) -> Result<Vec<Operation>>,
    ) -> Result<Uid> {
        let uid = self.trace_uid(id)?;
        self.change(&[Want::Entity(uid)], false, |catalog| change(catalog, uid))?;
        Ok(uid)
    }
}

impl Store {
    /// Makes a trace, or adds to the one that has its id. `uid` and `experiment_uid` of what is given say nothing: the
    /// experiment is the one with `experiment_id`.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the experiment, [`Error::InvalidState`] if that is deleted,
    /// [`Error::InvalidArgument`] for an id that no folder can have, or one of a trace of another experiment.
    pub fn start_trace(&self, trace: &TraceInfo) -> Result<Arc<TraceInfo>> {
        let inner = self.inner();
        let experiment_uid = inner.experiment_uid(&trace.experiment_id)?;
        let uid = inner.uid_for_trace(experiment_uid, &trace.id)?;
        let assessments = trace.assessments.iter().cloned().map(completed).collect::<Result<Vec<_>>>()?;
        let new = TraceInfo { uid, experiment_uid, assessments, ..trace.clone() };
        let wants = [Want::Entity(experiment_uid), Want::Entity(uid)];
        inner.change(&wants, false, |catalog| changes::start_trace(catalog, &new))?;
        self.trace(uid)
    }

    pub(super) fn trace(&self, uid: Uid) -> Result<Arc<TraceInfo>> {
        let mut state = self.inner().current(Want::Entity(uid))?;
        let entity = state.catalog.trace(uid).cloned();
        let entity = entity.ok_or_else(|| Error::not_found("trace", format!("tr-{uid}")))?;
        state.ensure(Want::Experiments)?;
        Ok(Arc::new(state.catalog.render_trace(&entity)))
    }

    /// A trace without its spans.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get_trace(&self, id: &str) -> Result<Arc<TraceInfo>> {
        self.trace(self.inner().trace_uid(id)?)
    }

    /// Sets a tag of a trace.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidArgument`] for a key or value that is too long.
    pub fn set_trace_tag(&self, id: &str, key: &str, value: &str) -> Result<()> {
        let change = |catalog: &Catalog, uid| changes::set_trace_tag(catalog, uid, key, value);
        self.inner().change_trace(id, change).map(drop)
    }

    /// Deletes a tag of a trace.
    ///
    /// # Errors
    /// [`Error::NotFound`], also if there is no such tag.
    pub fn delete_trace_tag(&self, id: &str, key: &str) -> Result<()> {
        self.inner().change_trace(id, |catalog, uid| changes::delete_trace_tag(catalog, uid, key)).map(drop)
    }

    /// Adds an assessment to a trace; one without an id gets one. An assessment that it overrides is not valid any
    /// more.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for the assessment that is overridden.
    pub fn create_assessment(&self, trace_id: &str, assessment: Assessment) -> Result<Assessment> {
        let new = completed(assessment)?;
        self.inner().change_trace(trace_id, |catalog, uid| changes::put_assessment(catalog, uid, &new))?;
        Ok(new)
    }

    /// One assessment of a trace.
    ///
    /// # Errors
    /// [`Error::NotFound`], for the trace or the assessment.
    pub fn get_assessment(&self, trace_id: &str, id: &str) -> Result<Assessment> {
        let uid = self.inner().trace_uid(trace_id)?;
        let state = self.inner().current(Want::Entity(uid))?;
        changes::assessment(&state.catalog, uid, id)
    }

    /// Changes an assessment.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidArgument`] for a value of another kind.
    pub fn update_assessment(
        &self,
        trace_id: &str,
        id: &str,
        update: &AssessmentUpdate,
    ) -> Result<Assessment> {
        let mut updated = Assessment::default();
        self.inner().change_trace(trace_id, |catalog, uid| {
            let mut new = changes::assessment(catalog, uid, id)?;
            if let Some(value) = &update.value {
                if std::mem::discriminant(value) != std::mem::discriminant(&new.value) {
                    let (new, old) = match value {
                        AssessmentValue::Expectation { .. } => ("expectation", "a Feedback"),
                        _ => ("feedback", "an Expectation"),
                    };
                    return Err(Error::invalid(format!("Cannot update {new} value on {old} assessment.")));
                }
                new.value = value.clone();
            }
            if let Some(name) = &update.name {
                new.name.clone_from(name);
            }
            if update.rationale.is_some() {
                new.rationale.clone_from(&update.rationale);
            }
            new.metadata.extend(update.metadata.iter().cloned());
            new.updated_ms = Some(now_ms());
            let overrides = new.overrides.take();
            let mut operations = changes::put_assessment(catalog, uid, &new)?;
            if overrides.is_some() {
                new.overrides = overrides;
                operations = changes::put_assessment(catalog, uid, &new)?;
            }
            updated = new;
            Ok(operations)
        })?;
        Ok(updated)
    }

    /// Deletes an assessment; one that it overrode is valid again. Deleting one that is not there does nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the trace.
    pub fn delete_assessment(&self, trace_id: &str, id: &str) -> Result<()> {
        let change = |catalog: &Catalog, uid| changes::delete_assessment(catalog, uid, id);
        self.inner().change_trace(trace_id, change).map(drop)
    }

    /// Deletes traces of an experiment for good: those with these ids, or all if none is named; of these only those
    /// that began at `until_ms` or before, and at most `max`, oldest first. How many there were.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the experiment.
    pub fn delete_traces(
        &self,
        experiment_id: &str,
        ids: &[&str],
        until_ms: Option<i64>,
        max: Option<usize>,
    ) -> Result<usize> {
        let inner = self.inner();
        let experiment = inner.experiment_uid(experiment_id)?;
        let mut doomed: Vec<(i64, String, Uid)> = {
            let state = inner.current(Want::All)?;
            let of_it = state.catalog.others_of(experiment).filter(|one| one.kind() == EntityKind::TRACE);
            of_it
                .map(|trace| {
                    let began_ms = trace.integer(Field::START_MS).unwrap_or(0);
                    (began_ms, crate::catalog::trace_id(trace), trace.uid())
                })
                .filter(|(began_ms, id, _)| {
                    (ids.is_empty() || ids.contains(&id.as_str()))
                        && until_ms.is_none_or(|until| *began_ms <= until)
                })
                .collect()
        };
        doomed.sort_unstable();
        doomed.truncate(max.unwrap_or(usize::MAX));
        for (_, _, uid) in &doomed {
            inner.change(&[Want::Entity(*uid)], false, |_| Ok(changes::purge(EntityKind::TRACE, *uid)))?;
        }
        Ok(doomed.len())
    }
}
