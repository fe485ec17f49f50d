//! Spans of traces: what the catalog knows of each, and how that is kept.
//!
//! Contract: a span's JSON is a blob of the log; its register says which, and what lists and filters ask for most.
//! Names and texts, so that a program which knows more of them keeps what an older one wrote.

use std::collections::BTreeMap;

use super::Entity;
use crate::format::event::{Field, ValueRef};
use crate::format::input_tags::{decode_input_tags, encode_input_tags};
use crate::id::BlobId;
use crate::limits::SPAN_NAME_CHARS_MAX;
use crate::model::Span;

/// A span without its content, and where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanRef {
    /// The span; its `content` is empty, name and type may be cut.
    pub span: Span,
    /// The blob that has its content.
    pub blob: BlobId,
    /// How long that is, in bytes.
    pub length: u64,
}

/// The bytes of a reference to a span; its id is the key that they stand under.
pub fn encode_span(span: &Span, blob: BlobId, length: u64) -> Vec<u8> {
    let beginning = |text: &str| text.chars().take(SPAN_NAME_CHARS_MAX).collect::<String>();
    let given = [
        ("blob", Some(blob.to_string())),
        ("length", Some(length.to_string())),
        ("name", Some(beginning(&span.name))),
        ("type", span.span_type.as_deref().map(beginning)),
        ("status", Some(span.status.clone())),
        ("parent", span.parent_id.clone()),
        ("start_ns", Some(span.start_ns.to_string())),
        ("end_ns", span.end_ns.map(|end| end.to_string())),
    ];
    let texts: BTreeMap<_, _> =
        given.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))).collect();
    encode_input_tags(&texts)
}

/// The reference in bytes; nothing for what is none.
pub fn decode_span(id: &str, bytes: &[u8]) -> Option<SpanRef> {
    let mut texts = decode_input_tags(bytes).ok()?;
    let mut take = |name: &str| texts.remove(name);
    let blob = take("blob")?.parse().ok()?;
    let length = take("length")?.parse().ok()?;
    let span = Span {
        id: id.to_owned(),
        parent_id: take("parent"),
        name: take("name").unwrap_or_default(),
        span_type: take("type"),
        status: take("status").unwrap_or_default(),
        start_ns: take("start_ns")?.parse().ok()?,
        end_ns: take("end_ns").and_then(|end| end.parse().ok()),
        content: String::new(),
    };
    Some(SpanRef { span, blob, length })
}

/// The spans of a trace, in the order in which they began.
pub fn spans_of(trace: &Entity) -> Vec<SpanRef> {
    let mut found: Vec<SpanRef> = trace
        .entries(Field::SPAN)
        .filter_map(|(id, _, value)| match value {
            ValueRef::Bytes(bytes) => decode_span(id, bytes),
            _ => None,
        })
        .collect();
    found.sort_by(|a, b| (a.span.start_ns, &a.span.id).cmp(&(b.span.start_ns, &b.span.id)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_back() {
        let mut span = Span {
            id: "00f067aa0ba902b7".into(),
            parent_id: Some("00f067aa0ba902b6".into()),
            name: "f".into(),
            span_type: Some("LLM".into()),
            status: "OK".into(),
            start_ns: -1,
            end_ns: Some(i64::MAX),
            content: String::new(),
        };
        let blob = BlobId::derived("test", &[b"b"]);
        let back = |span: &Span| decode_span(&span.id, &encode_span(span, blob, 7));
        assert_eq!(back(&span), Some(SpanRef { span: span.clone(), blob, length: 7 }));
        (span.parent_id, span.span_type, span.end_ns) = (None, None, None);
        assert_eq!(back(&span), Some(SpanRef { span: span.clone(), blob, length: 7 }));
        span.name = "\u{e9}".repeat(2 * SPAN_NAME_CHARS_MAX);
        assert_eq!(back(&span).unwrap().span.name.chars().count(), SPAN_NAME_CHARS_MAX);
        assert_eq!(decode_span("x", b"odd"), None);
    }
}
