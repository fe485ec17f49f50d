//! A YAML document as data, and its compact form in the log.
//!
//! Contract: scalars keep their text and the type YAML 1.1 gives them, so that a document written by MLflow is the
//! same bytes again after reading, storing and emitting. The encoding is frozen: new words go to the end of [`WORDS`].

use super::resolver::Kind;
use super::wire::{Reader, put_bytes, put_number};
use crate::error::Result;

/// Deepest nesting that is read; MLflow writes four levels.
pub(super) const DEPTH_MAX: usize = 64;

/// A node of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A scalar: its type and its text. Text is [`Kind::Text`], however it was quoted.
    Scalar(Kind, String),
    /// A sequence.
    Sequence(Vec<Node>),
    /// A mapping in the order of the file.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// `null`.
    pub(super) fn null() -> Self {
        Self::Scalar(Kind::Null, "null".into())
    }

    /// A string.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Scalar(Kind::Text, text.into())
    }

    /// An integer.
    pub(super) fn integer(number: i64) -> Self {
        Self::Scalar(Kind::Integer, number.to_string())
    }

    /// The value of a key, if this is a mapping that has it; of a key given twice the last value, as for PyYAML.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Self::Mapping(pairs) = self else { return None };
        pairs
            .iter()
            .rev()
            .find(|(k, _)| matches!(k, Self::Scalar(_, text) if text == key))
            .map(|(_, value)| value)
    }

    /// The text of a scalar of any type except null: ids and names are text even where YAML sees a number.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Scalar(Kind::Null, _) => None,
            Self::Scalar(_, text) => Some(text),
            _ => None,
        }
    }

    /// The value of an integer in decimal.
    pub(super) fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Scalar(Kind::Integer, text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Whether this is null.
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(Kind::Null, _))
    }
}

/// Texts that MLflow's files repeat. Frozen: the position is on disk.
const WORDS: &[&str] = &[
    "",
    "active",
    "deleted",
    "default",
    "artifact_location",
    "artifact_uri",
    "creation_time",
    "creation_timestamp",
    "last_update_time",
    "last_updated_timestamp",
    "lifecycle_stage",
    "name",
    "experiment_id",
    "tags",
    "run_id",
    "run_uuid",
    "run_name",
    "status",
    "status_message",
    "source",
    "source_id",
    "source_type",
    "source_name",
    "source_version",
    "source_run_id",
    "destination_id",
    "destination_type",
    "RUN",
    "DATASET",
    "MODEL",
    "MODEL_OUTPUT",
    "RUN_OUTPUT",
    "step",
    "digest",
    "profile",
    "schema",
    "model_id",
    "model_type",
    "aliases",
    "description",
    "version",
    "current_stage",
    "None",
    "Staging",
    "Production",
    "Archived",
    "READY",
    "user_id",
    "run_link",
    "storage_location",
    "deployment_job_id",
    "deployment_job_state",
    "workspace",
    "trace_id",
    "trace_location",
    "mlflow_experiment",
    "type",
    "MLFLOW_EXPERIMENT",
    "request_time",
    "request_preview",
    "response_preview",
    "execution_duration_ms",
    "execution_time_ms",
    "state",
    "OK",
    "ERROR",
    "request_id",
    "timestamp_ms",
    "assessments",
    "assessment_id",
    "assessment_name",
    "create_time",
    "feedback",
    "expectation",
    "value",
    "rationale",
    "metadata",
    "valid",
    "start_time",
    "end_time",
    "deleted_time",
    "entry_point_name",
    "local",
    "mlflow.data.context",
    "training",
    "effective_trace_archival_retention",
];

const NULL: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const INTEGER: u8 = 3;
const OTHER: u8 = 4;
const TEXT: u8 = 5;
const SEQUENCE: u8 = 6;
const MAPPING: u8 = 7;
/// Tags from here on are words.
const FIRST_WORD: u8 = 16;

const KINDS: [Kind; 7] =
    [Kind::Null, Kind::Bool, Kind::Integer, Kind::Float, Kind::Timestamp, Kind::Special, Kind::Text];

/// Appends the compact form of a node.
pub(super) fn encode(node: &Node, out: &mut Vec<u8>) {
    match node {
        Node::Scalar(Kind::Null, text) if text == "null" => out.push(NULL),
        Node::Scalar(Kind::Bool, text) if text == "true" => out.push(TRUE),
        Node::Scalar(Kind::Bool, text) if text == "false" => out.push(FALSE),
        Node::Scalar(Kind::Integer, text)
            if text.parse::<u64>().is_ok_and(|n| itoa::Buffer::new().format(n) == text) =>
        {
            out.push(INTEGER);
            put_number(out, text.parse().unwrap_or(0));
        }
        Node::Scalar(Kind::Text, text) => match WORDS.iter().position(|w| w == text) {
            Some(word) => out.push(FIRST_WORD + word as u8),
            None => {
                out.push(TEXT);
                put_bytes(out, text.as_bytes());
            }
        },
        Node::Scalar(kind, text) => {
            out.push(OTHER);
            out.push(KINDS.iter().position(|k| k == kind).unwrap_or(0) as u8);
            put_bytes(out, text.as_bytes());
        }
        Node::Sequence(items) => {
            out.push(SEQUENCE);
            put_number(out, items.len() as u64);
            items.iter().for_each(|item| encode(item, out));
        }
        Node::Mapping(pairs) => {
            out.push(MAPPING);
            put_number(out, pairs.len() as u64);
            for (key, value) in pairs {
                encode(key, out);
                encode(value, out);
            }
        }
    }
}

/// Reads the compact form.
pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Node> {
    decode_at(reader, 0)
}

fn decode_at(reader: &mut Reader<'_>, depth: usize) -> Result<Node> {
    // A key of a mapping may nest one deeper than the reader allows.
    if depth > DEPTH_MAX + 1 {
        return Err(reader.damaged());
    }
    Ok(match reader.byte()? {
        NULL => Node::null(),
        TRUE => Node::Scalar(Kind::Bool, "true".into()),
        FALSE => Node::Scalar(Kind::Bool, "false".into()),
        INTEGER => Node::Scalar(Kind::Integer, reader.number()?.to_string()),
        OTHER => {
            let kind = usize::from(reader.byte()?);
            let kind = *KINDS.get(kind).ok_or_else(|| reader.damaged())?;
            Node::Scalar(kind, reader.text()?.to_owned())
        }
        TEXT => Node::text(reader.text()?),
        SEQUENCE => {
            let count = reader.count()?;
            let mut items = Vec::with_capacity(count.min(1024));
            for _ in 0..count {
                items.push(decode_at(reader, depth + 1)?);
            }
            Node::Sequence(items)
        }
        MAPPING => {
            let count = reader.count()?;
            let mut pairs = Vec::with_capacity(count.min(1024));
            for _ in 0..count {
                pairs.push((decode_at(reader, depth + 1)?, decode_at(reader, depth + 1)?));
            }
            Node::Mapping(pairs)
        }
        tag => {
            let word = tag.checked_sub(FIRST_WORD).and_then(|w| WORDS.get(usize::from(w)));
            Node::text(*word.ok_or_else(|| reader.damaged())?)
        }
    })
}

const _: () = assert!(WORDS.len() + FIRST_WORD as usize <= 256);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_survive_the_compact_form() {
        let node = Node::Mapping(vec![
            (Node::text("name"), Node::text("my run")),
            (Node::text("tags"), Node::Mapping(vec![])),
            (Node::text("list"), Node::Sequence(vec![Node::null(), Node::integer(-5), Node::integer(7)])),
            (Node::text("big"), Node::Scalar(Kind::Integer, "123456789012345678901234567890".into())),
            (Node::text("octal"), Node::Scalar(Kind::Integer, "017".into())),
            (Node::Scalar(Kind::Bool, "yes".into()), Node::Scalar(Kind::Float, "1.0".into())),
        ]);
        let mut bytes = Vec::new();
        encode(&node, &mut bytes);
        let mut reader = Reader::new(&bytes, "test");
        assert_eq!(decode(&mut reader).unwrap(), node);
        reader.end().unwrap();
        for end in 0..bytes.len() {
            assert!(decode(&mut Reader::new(&bytes[..end], "test")).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn hostile_nesting_is_refused() {
        let bytes = [SEQUENCE, 1].repeat(100_000);
        assert!(decode(&mut Reader::new(&bytes, "test")).is_err());
    }
}
