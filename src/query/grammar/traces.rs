//! Traces: which keys a filter can name, and what they mean.
//!
//! Contract: attributes, tags and metadata. What MLflow's filters say of spans, feedback, expectations, issues and
//! prompts is refused by name.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::model::TraceInfo;

use super::Dialect;
use super::clause::{Identifier, LISTED, Number, Passing, TEXT, TextTest, clip, invalid_key};
use super::expr::{self, Expr};
use super::group::{Comparator, Comparison};

/// The tag that is the name of a trace.
const NAME_TAG: &str = "mlflow.traceName";
/// The metadata that names the run.
const RUN_METADATA: &str = "mlflow.sourceRun";

/// Attributes that are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TraceText {
    Id,
    Status,
    ClientRequest,
    Name,
    Run,
}

/// Attributes that are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TraceNumber {
    Began,
    Took,
    Ended,
}

/// An attribute that a filter or an order can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TraceAttribute {
    Text(TraceText),
    Number(TraceNumber),
}

/// A text attribute of a trace.
pub(crate) fn text_of(trace: &TraceInfo, attribute: TraceText) -> Option<Cow<'_, str>> {
    match attribute {
        TraceText::Id => Some(Cow::Borrowed(&trace.id)),
        TraceText::Status => Some(Cow::Borrowed(trace.state.as_str())),
        TraceText::ClientRequest => trace.client_request_id.as_deref().map(Cow::Borrowed),
        TraceText::Name => trace.tags.get(NAME_TAG).map(|name| Cow::Borrowed(name.as_str())),
        TraceText::Run => trace.metadata.get(RUN_METADATA).map(|run| Cow::Borrowed(run.as_str())),
    }
}

/// A numeric attribute of a trace.
pub(crate) fn number_of(trace: &TraceInfo, attribute: TraceNumber) -> Option<i64> {
    match attribute {
        TraceNumber::Began => Some(trace.request_ms),
        TraceNumber::Took => trace.execution_ms,
        TraceNumber::Ended => trace.execution_ms.map(|took| trace.request_ms.saturating_add(took)),
    }
}

/// The attribute of a name.
pub(crate) fn attribute_named(key: &str) -> Result<TraceAttribute> {
    Ok(match key {
        "request_id" | "trace_id" => TraceAttribute::Text(TraceText::Id),
        "status" => TraceAttribute::Text(TraceText::Status),
        "client_request_id" => TraceAttribute::Text(TraceText::ClientRequest),
        "name" => TraceAttribute::Text(TraceText::Name),
        "run_id" => TraceAttribute::Text(TraceText::Run),
        "timestamp" | "timestamp_ms" => TraceAttribute::Number(TraceNumber::Began),
        "execution_time" | "execution_time_ms" => TraceAttribute::Number(TraceNumber::Took),
        "end_time" | "end_time_ms" => TraceAttribute::Number(TraceNumber::Ended),
        _ => {
            let valid = [
                "client_request_id",
                "end_time",
                "end_time_ms",
                "execution_time",
                "execution_time_ms",
                "name",
                "request_id",
                "run_id",
                "status",
                "timestamp",
                "timestamp_ms",
            ];
            return Err(invalid_key("attribute", key, &valid));
        }
    })
}

/// A test of a text that may be missing.
#[derive(Clone, Debug, PartialEq)]
enum Presence {
    Missing,
    There,
    Passing(TextTest),
}

impl Presence {
    fn new(comparison: &Comparison<'_>, what: &str) -> Result<Self> {
        Ok(match comparison.comparator {
            Comparator::IsNull => Self::Missing,
            Comparator::IsNotNull => Self::There,
            _ => Self::Passing(TextTest::new(comparison, TEXT, what, None)?),
        })
    }

    fn holds(&self, text: Option<&String>) -> bool {
        match self {
            Self::Missing => text.is_none(),
            Self::There => text.is_some(),
            Self::Passing(test) => text.is_some_and(|text| test.passes(text)),
        }
    }
}

/// One comparison about traces.
#[derive(Clone, Debug, PartialEq)]
enum TraceClause {
    Tag(String, Presence),
    Metadata(String, Presence),
    Text(TraceText, TextTest),
    Number(TraceNumber, Passing, Number),
}

impl TraceClause {
    fn new(comparison: &Comparison<'_>, dialect: Dialect) -> Result<Self> {
        let Identifier { entity, key } = Identifier::new(&comparison.left, dialect)?;
        match entity {
            Some("tag" | "tags") => {
                Ok(Self::Tag(key.to_owned(), Presence::new(comparison, "tag (e.g. 'my-value')")?))
            }
            Some("metadata" | "request_metadata") => {
                Ok(Self::Metadata(key.to_owned(), Presence::new(comparison, "metadata (e.g. 'my-value')")?))
            }
            None | Some("attribute" | "attributes" | "trace") => match attribute_named(key)? {
                TraceAttribute::Number(attribute) => {
                    let number = Number::new(comparison, &format!("numeric attribute: {}", clip(key)))?;
                    Ok(Self::Number(attribute, Passing::new(&comparison.comparator)?, number))
                }
                TraceAttribute::Text(attribute) => {
                    Ok(Self::Text(attribute, TextTest::new(comparison, LISTED, "attributes", None)?))
                }
            },
            Some(known @ ("span" | "feedback" | "expectation" | "issue")) => {
                Err(Error::invalid(format!("mlrs-db does not search traces by {known}.")))
            }
            Some(other) => Err(Error::invalid(format!(
                "Invalid entity type '{}'. Valid entity types are ('attribute', 'metadata', 'tag')",
                clip(other)
            ))),
        }
    }

    fn holds(&self, trace: &TraceInfo) -> bool {
        match self {
            Self::Tag(key, test) => test.holds(trace.tags.get(key)),
            Self::Metadata(key, test) => test.holds(trace.metadata.get(key)),
            Self::Text(attribute, test) => text_of(trace, *attribute).is_some_and(|text| test.passes(&text)),
            Self::Number(attribute, passing, wanted) => {
                number_of(trace, *attribute).is_some_and(|number| passing.passes(wanted.compare(number)))
            }
        }
    }
}

/// A filter of traces, ready to be asked many times. What is missing passes no comparison but IS NULL.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceFilter(Expr<TraceClause>);

impl TraceFilter {
    /// Parses a filter; empty text lets every trace pass.
    ///
    /// # Errors
    /// As [`RunFilter::parse`](super::RunFilter::parse).
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self> {
        expr::parse(text, dialect, |comparison| TraceClause::new(&comparison, dialect)).map(Self)
    }

    /// Whether a trace passes.
    pub fn matches(&self, trace: &TraceInfo) -> bool {
        self.0.holds(&|clause: &TraceClause| clause.holds(trace))
    }
}
