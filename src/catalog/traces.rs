//! Traces: who answers to which id, how they are shown, and what an assessment is as bytes.
//!
//! Contract: a trace id is `tr-` and the hex digits of the uid, unless its maker chose another one. An assessment is a
//! register of its trace: names and texts, so that a program which knows more of them keeps what an older one wrote.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::render::owned;
use super::{Catalog, Entity};
use crate::format::event::{EntityKind, Field, ValueRef};
use crate::format::input_tags::{decode_input_tags, encode_input_tags};
use crate::id::Uid;
use crate::model::{Assessment, AssessmentError, AssessmentValue, TraceInfo};

impl Catalog {
    /// A trace by uid.
    pub fn trace(&self, uid: Uid) -> Option<&Arc<Entity>> {
        self.get(EntityKind::TRACE, uid)
    }

    /// A trace by its id.
    pub fn trace_by_id(&self, id: &str) -> Option<&Arc<Entity>> {
        self.spelt(EntityKind::TRACE, id, trace_uid(id)).filter(|trace| trace_id(trace) == id)
    }

    /// A trace as the caller sees it.
    pub fn render_trace(&self, trace: &Entity) -> TraceInfo {
        let text = |field| trace.text(field).map(str::to_owned);
        let experiment_uid = trace.reference(Field::EXPERIMENT).unwrap_or_default();
        let metadata = trace.entries(Field::METADATA);
        let mut assessments: Vec<Assessment> = trace
            .entries(Field::ASSESSMENT)
            .filter_map(|(id, _, value)| match value {
                ValueRef::Bytes(bytes) => decode_assessment(id, bytes),
                _ => None,
            })
            .collect();
        assessments.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        TraceInfo {
            uid: trace.uid(),
            id: trace_id(trace),
            experiment_uid,
            experiment_id: self.shown_experiment_id(experiment_uid),
            client_request_id: text(Field::CLIENT_REQUEST_ID),
            request_ms: trace.integer(Field::START_MS).unwrap_or(0),
            execution_ms: trace.integer(Field::EXECUTION_MS),
            state: trace.text(Field::STATUS).and_then(|state| state.parse().ok()).unwrap_or_default(),
            request_preview: text(Field::REQUEST_PREVIEW),
            response_preview: text(Field::RESPONSE_PREVIEW),
            tags: owned(trace.tags()),
            metadata: owned(metadata.filter_map(|(key, _, value)| Some((key, value.lossy_text()?)))),
            assessments,
        }
    }
}

/// The uid that a trace id stands for, where it is spelled as ours are.
pub fn trace_uid(id: &str) -> Option<Uid> {
    let uid: Uid = id.strip_prefix("tr-")?.parse().ok()?;
    (id == format!("tr-{uid}")).then_some(uid)
}

/// The trace id as its maker spelled it; else the one that follows from the uid.
pub fn trace_id(trace: &Entity) -> String {
    trace.text(Field::RUN_ID_TEXT).map_or_else(|| format!("tr-{}", trace.uid()), str::to_owned)
}

/// Before the keys of an assessment's own metadata.
const METADATA_PREFIX: &str = "metadata.";

/// The bytes of an assessment; its id is the key that they stand under.
pub fn encode_assessment(assessment: &Assessment) -> Vec<u8> {
    let mut texts = BTreeMap::new();
    let mut put = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            texts.insert(name.to_owned(), text);
        }
    };
    put("name", Some(assessment.name.clone()));
    put("source_type", Some(assessment.source_type.clone()));
    put("source_id", Some(assessment.source_id.clone()));
    put("created_ms", assessment.created_ms.map(|ms| ms.to_string()));
    put("updated_ms", assessment.updated_ms.map(|ms| ms.to_string()));
    put("rationale", assessment.rationale.clone());
    put("span_id", assessment.span_id.clone());
    put("overrides", assessment.overrides.clone());
    put("valid", assessment.valid.map(|valid| valid.to_string()));
    match &assessment.value {
        AssessmentValue::Feedback { value, error } => {
            put("kind", Some("feedback".into()));
            put("value", value.clone());
            if let Some(AssessmentError { code, message, stack_trace }) = error {
                put("error_code", Some(code.clone()));
                put("error_message", message.clone());
                put("error_stack_trace", stack_trace.clone());
            }
        }
        AssessmentValue::Expectation { value } => {
            put("kind", Some("expectation".into()));
            put("value", Some(value.clone()));
        }
        AssessmentValue::Issue { name } => {
            put("kind", Some("issue".into()));
            put("value", Some(name.clone()));
        }
    }
    for (key, value) in &assessment.metadata {
        texts.insert(format!("{METADATA_PREFIX}{key}"), value.clone());
    }
    encode_input_tags(&texts)
}

/// The assessment in bytes; nothing for what is none.
pub fn decode_assessment(id: &str, bytes: &[u8]) -> Option<Assessment> {
    let mut texts = decode_input_tags(bytes).ok()?;
    let mut take = |name: &str| texts.remove(name);
    let kind = take("kind")?;
    let value = take("value");
    let error = take("error_code").map(|code| AssessmentError {
        code,
        message: take("error_message"),
        stack_trace: take("error_stack_trace"),
    });
    let value = match kind.as_str() {
        "feedback" => AssessmentValue::Feedback { value, error },
        "expectation" => AssessmentValue::Expectation { value: value? },
        "issue" => AssessmentValue::Issue { name: value? },
        _ => return None,
    };
    let assessment = Assessment {
        id: id.to_owned(),
        name: take("name").unwrap_or_default(),
        source_type: take("source_type").unwrap_or_default(),
        source_id: take("source_id").unwrap_or_default(),
        created_ms: take("created_ms").and_then(|ms| ms.parse().ok()),
        updated_ms: take("updated_ms").and_then(|ms| ms.parse().ok()),
        value,
        rationale: take("rationale"),
        span_id: take("span_id"),
        overrides: take("overrides"),
        valid: take("valid").map(|valid| valid == "true"),
        metadata: BTreeMap::new(),
    };
    let metadata = texts
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(METADATA_PREFIX)?.to_owned(), value)));
    Some(Assessment { metadata: metadata.collect(), ..assessment })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assessments_come_back() {
        let error = AssessmentError { code: "E".into(), message: Some("m".into()), stack_trace: None };
        for value in [
            AssessmentValue::Feedback { value: Some("true".into()), error: None },
            AssessmentValue::Feedback { value: None, error: Some(error) },
            AssessmentValue::Expectation { value: "{}".into() },
            AssessmentValue::Issue { name: "i".into() },
        ] {
            let assessment = Assessment {
                id: "a-1".into(),
                name: "n".into(),
                source_type: "HUMAN".into(),
                source_id: "me".into(),
                created_ms: Some(5),
                value,
                valid: Some(false),
                metadata: [("name".to_owned(), "x".to_owned())].into(),
                ..Assessment::default()
            };
            assert_eq!(decode_assessment("a-1", &encode_assessment(&assessment)), Some(assessment));
        }
        assert_eq!(decode_assessment("a-1", b"odd"), None);
    }

    #[test]
    fn ids_are_spelled_one_way() {
        let uid = trace_uid("tr-cd04a554723490bcd95a6902cbf7147c").unwrap();
        assert_eq!(format!("tr-{uid}"), "tr-cd04a554723490bcd95a6902cbf7147c");
        for other in ["cd04a554723490bcd95a6902cbf7147c", "tr-CD04a554723490bcd95a6902cbf7147c", "tr-1", ""] {
            assert_eq!(trace_uid(other), None, "{other}");
        }
    }
}
