//! Rules of the model registry.
//!
//! Contract: see the module above. A name that MLflow's file store refuses (with `%`, say) but its SQL store takes is
//! taken: an export lists what no directory can be named by.

use super::{json_text, name, normal_path, within};
use crate::error::{Error, Result};
use crate::limits::{KEY_CHARS_MAX, REGISTERED_MODEL_ALIAS_CHARS_MAX, REGISTRY_TAG_VALUE_CHARS_MAX};

/// The name of a registered model.
///
/// # Errors
/// [`Error::InvalidArgument`] with MLflow's text; so do all rules, unless they say otherwise.
pub fn registered_model_name(text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::invalid("Missing value for required parameter 'name'."));
    }
    if text.contains(['/', ':']) {
        return Err(Error::invalid(format!("Invalid model name '{text}'. Names cannot contain '/' or ':'.")));
    }
    let normal = normal_path(text);
    if normal != text || normal == "." || normal.starts_with("..") {
        return Err(Error::invalid(format!(
            "Invalid value {} for parameter 'name' supplied: Names may be treated as files in certain cases, and must \
             not resolve to other names when treated as such. This name would resolve to '{normal}'",
            json_text(text)
        )));
    }
    Ok(())
}

/// A tag of a registered model or of a version.
///
/// # Errors
/// See [`registered_model_name`].
pub fn registry_tag(key: &str, value: &str) -> Result<()> {
    registry_tag_key(key)?;
    within("key", key, KEY_CHARS_MAX)?;
    if key == "mlflow.prompt.text" && value.chars().count() > REGISTRY_TAG_VALUE_CHARS_MAX {
        return Err(Error::invalid(format!(
            "Prompt text exceeds max length of {REGISTRY_TAG_VALUE_CHARS_MAX} characters."
        )));
    }
    within("value", value, REGISTRY_TAG_VALUE_CHARS_MAX)
}

/// The key of a tag that is to be deleted.
///
/// # Errors
/// See [`registered_model_name`].
pub fn registry_tag_key(key: &str) -> Result<()> {
    name(key, "", "key")
}

/// An alias that is asked for.
///
/// # Errors
/// See [`registered_model_name`].
pub fn registered_model_alias(alias: &str) -> Result<()> {
    if alias.is_empty() {
        return Err(Error::invalid("Registered model alias name cannot be empty."));
    }
    if !alias.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        return Err(Error::invalid(format!(
            "Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_), and dashes (-)."
        )));
    }
    within("Registered model alias name", alias, REGISTERED_MODEL_ALIAS_CHARS_MAX)
}

/// An alias that is to be set: not one that MLflow's URIs give a meaning of their own.
///
/// # Errors
/// See [`registered_model_name`].
pub fn new_registered_model_alias(alias: &str) -> Result<()> {
    registered_model_alias(alias)?;
    if is_latest(alias) {
        return Err(Error::invalid("'latest' alias name (case insensitive) is reserved."));
    }
    let digits = alias.strip_prefix(['v', 'V']);
    if digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())) {
        return Err(Error::invalid(format!("Version alias name '{alias}' is reserved.")));
    }
    Ok(())
}

/// Whether an alias stands for the greatest version, without being set.
pub fn is_latest(alias: &str) -> bool {
    alias.eq_ignore_ascii_case("latest")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepted and refused by MLflow 3.18's `_validate_model_name` and `_validate_alias_name` (run).
    #[test]
    fn names_and_aliases_are_those_that_mlflow_takes() {
        for good in ["m", "Reg A", "m\u{f6}del", "a.b", ".hid", "a%b", "a\\b", "v1"] {
            registered_model_name(good).unwrap_or_else(|e| panic!("{good:?}: {e}"));
        }
        for bad in ["", "  ", "a/b", "a:b", ".", "..", "..a"] {
            assert!(registered_model_name(bad).is_err(), "{bad:?}");
        }
        for good in ["champ", "a-b_c", "version1", "v1a", "v", "\u{e9}"] {
            new_registered_model_alias(good).unwrap_or_else(|e| panic!("{good:?}: {e}"));
        }
        for bad in ["", "a b", "a.b", "a/b", "latest", "Latest", "v1", "V22"] {
            assert!(new_registered_model_alias(bad).is_err(), "{bad:?}");
        }
        assert!(registered_model_alias("latest").is_ok(), "it can be asked for");
        assert!(new_registered_model_alias(&"a".repeat(256)).is_err());
    }

    #[test]
    fn messages_are_mlflows() {
        let text = |result: Result<()>| result.unwrap_err().to_string();
        assert_eq!(
            text(registered_model_name("a/b")),
            "Invalid model name 'a/b'. Names cannot contain '/' or ':'."
        );
        assert_eq!(
            text(registered_model_name("..")),
            "Invalid value \"..\" for parameter 'name' supplied: Names may be treated as files in certain cases, and \
             must not resolve to other names when treated as such. This name would resolve to '..'"
        );
        assert_eq!(
            text(registry_tag("k", &"x".repeat(100_001))),
            "'value' exceeds the maximum length of 100000 characters"
        );
        assert_eq!(
            text(registry_tag("mlflow.prompt.text", &"x".repeat(100_001))),
            "Prompt text exceeds max length of 100000 characters."
        );
    }
}
