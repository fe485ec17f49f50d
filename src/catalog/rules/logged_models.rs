//! Rules of logged models.

use super::{name, within};
use crate::catalog::{Entity, logged_model_id};
use crate::error::{Error, Result};
use crate::format::event::Field;
use crate::limits::KEY_CHARS_MAX;

/// The name of a logged model.
///
/// # Errors
/// [`Error::InvalidArgument`] with MLflow's text; so do all rules, unless they say otherwise.
pub fn logged_model_name(text: &str) -> Result<()> {
    if text.is_empty() || text.contains(['/', ':', '.', '%', '"', '\'']) {
        let shown = if text.contains('\'') && !text.contains('"') {
            format!("\"{text}\"")
        } else {
            format!("'{}'", text.replace('\'', "\\'"))
        };
        return Err(Error::invalid(format!(
            "Invalid model name ({shown}) provided. Model name must be a non-empty string and cannot contain the \
             following characters: ('/', ':', '.', '%', '\"', \"'\")"
        )));
    }
    Ok(())
}

/// A tag of a logged model; MLflow bounds only its key.
///
/// # Errors
/// See [`logged_model_name`].
pub fn logged_model_tag(key: &str) -> Result<()> {
    name(key, "", "key")?;
    within("key", key, KEY_CHARS_MAX)
}

/// The id of a logged model that a run names. It may be one of another store.
///
/// # Errors
/// See [`logged_model_name`].
pub fn model_id(id: &str) -> Result<()> {
    if id.is_empty() || id == "." || id == ".." || id.contains(['/', '\\', '\0']) || id.len() > KEY_CHARS_MAX
    {
        return Err(Error::invalid(format!("Invalid model ID: '{id}'")));
    }
    Ok(())
}

/// A param keeps its first value; the same value again is fine (`Ok(false)`: nothing to write).
///
/// # Errors
/// [`Error::InvalidState`].
pub fn model_param_unchanged(model: &Entity, key: &str, value: &str) -> Result<bool> {
    let Some(old) = model.get(Field::PARAM, key).and_then(|v| v.lossy_text()) else { return Ok(true) };
    if old == value {
        return Ok(false);
    }
    Err(super::param_changed("model", &logged_model_id(model), key, &old, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_mlflow_takes() {
        for good in ["m", "my model", "a-b_c", "\u{e9}", " "] {
            logged_model_name(good).unwrap();
        }
        for bad in ["", "a/b", "a:b", "a.b", "a%", "\"", "it's"] {
            assert!(logged_model_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            logged_model_name("a.b").unwrap_err().to_string(),
            "Invalid model name ('a.b') provided. Model name must be a non-empty string and cannot contain the \
             following characters: ('/', ':', '.', '%', '\"', \"'\")"
        );
    }
}
