//! Rules of traces.

use super::within;
use crate::error::{Error, Result};
use crate::limits::{KEY_CHARS_MAX, TRACE_VALUE_CHARS_MAX};

/// The id of a trace: the name of a folder.
///
/// # Errors
/// [`Error::InvalidArgument`]; so do all rules.
pub fn trace_id(id: &str) -> Result<()> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.is_empty() || id.len() > KEY_CHARS_MAX || !id.chars().all(is_word) {
        return Err(Error::invalid(format!("Invalid trace ID: '{id}'")));
    }
    Ok(())
}

/// A tag or a piece of metadata of a trace.
///
/// # Errors
/// See [`trace_id`].
pub fn trace_pair(key: &str, value: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid("the key of a tag of a trace cannot be empty"));
    }
    within("key", key, KEY_CHARS_MAX)?;
    within("value", value, TRACE_VALUE_CHARS_MAX)
}
