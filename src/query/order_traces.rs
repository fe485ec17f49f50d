//! The order of traces.
//!
//! Contract: as `order`: total, and MLflow's: the given keys, then `timestamp_ms DESC`, then `request_id ASC`.

use std::borrow::Borrow;

use super::grammar::{
    Dialect, TraceAttribute, TraceNumber, TraceText, trace_attribute_named, trace_number, trace_text,
};
use super::order::{Order, SortKey, check_count, parse_key};
use crate::error::{Error, Result};
use crate::model::TraceInfo;

/// The order of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceOrder(Vec<(TraceAttribute, bool)>);

impl TraceOrder {
    /// Parses a list of `key [ASC|DESC]`; an empty list is the default order.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with MLflow's words.
    pub fn parse(keys: &[impl AsRef<str>], dialect: Dialect) -> Result<Self> {
        check_count(keys.len())?;
        let mut parsed = Vec::with_capacity(keys.len() + 2);
        for text in keys {
            let (identifier, descending) = parse_key(text.as_ref(), dialect)?;
            match identifier.entity {
                None | Some("attribute" | "attributes" | "trace") => {}
                Some(_) => return Err(Error::invalid("Traces are ordered by attributes.")),
            }
            parsed.push((trace_attribute_named(identifier.key)?, descending));
        }
        parsed.push((TraceAttribute::Number(TraceNumber::Began), true));
        parsed.push((TraceAttribute::Text(TraceText::Id), false));
        Ok(Self(parsed))
    }
}

impl<T: Borrow<TraceInfo>> Order<T> for TraceOrder {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn descending(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|(_, descending)| *descending)
    }

    fn key<'a>(&self, index: usize, trace: &'a T) -> SortKey<'a> {
        let trace = trace.borrow();
        let value = self.0.get(index).and_then(|(key, _)| match key {
            TraceAttribute::Text(attribute) => trace_text(trace, *attribute).map(SortKey::Text),
            TraceAttribute::Number(attribute) => trace_number(trace, *attribute).map(SortKey::Integer),
        });
        value.unwrap_or(SortKey::Missing)
    }
}
