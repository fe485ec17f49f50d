//! MLflow's rules for what a call may say, with MLflow 3's messages (its `utils/validation.py`).
//!
//! Contract: rules are for calls. What is read from a log or a tree is never refused for one. Where MLflow's SQL and
//! file stores differ, the rule is the one that loses nothing:
//!
//! * A value past its limit is an error that names the limit; nothing is cut silently. MLflow's default cuts param
//!   values and run tags with a warning: its door can do so with [`truncated`] first.
//! * The keys `a` and `a/b` may both exist in one run, as in the SQL store (the file store cannot hold both, so an
//!   export lists them).
//! * Letters and digits of every script are key characters, as in Python's `\w`; combining marks too, which Python
//!   refuses (words of many Indian scripts cannot be written without them).

mod logged_models;
mod registry;
mod traces;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub use logged_models::{logged_model_name, logged_model_tag, model_id, model_param_unchanged};
pub use registry::{
    is_latest, new_registered_model_alias, registered_model_alias, registered_model_name, registry_tag,
    registry_tag_key,
};
pub use traces::{trace_id, trace_pair};

use super::render::run_id;
use super::{Catalog, Entity};
use crate::error::{Error, Result};
use crate::format::event::Field;
use crate::limits::{
    ARTIFACT_LOCATION_CHARS_MAX, BATCH_ITEMS_MAX, BATCH_METRICS_MAX, BATCH_PARAMS_MAX, BATCH_TAGS_MAX,
    DATASET_DIGEST_CHARS_MAX, DATASET_NAME_CHARS_MAX, DATASET_PROFILE_CHARS_MAX, DATASET_SCHEMA_CHARS_MAX,
    DATASET_SOURCE_CHARS_MAX, EXPERIMENT_NAME_CHARS_MAX, EXPERIMENT_TAG_VALUE_CHARS_MAX,
    INPUT_TAG_KEY_CHARS_MAX, INPUT_TAG_VALUE_CHARS_MAX, KEY_CHARS_MAX, PARAM_VALUE_CHARS_MAX,
    RUN_TAG_VALUE_CHARS_MAX,
};
use crate::model::{Dataset, Lifecycle};

/// A metric's key. `path` says where in the request it stands (`metrics[3]`), or is empty.
///
/// # Errors
/// [`Error::InvalidArgument`] with MLflow's text; so do all rules, unless they say otherwise.
pub fn metric_key(key: &str, path: &str) -> Result<()> {
    name(key, path, "name")?;
    within("Metric name", key, KEY_CHARS_MAX)
}

/// A metric's timestamp: not negative. (Steps may be.)
///
/// # Errors
/// See [`metric_key`].
pub fn metric_timestamp(key: &str, value: f64, timestamp_ms: i64, path: &str) -> Result<()> {
    if timestamp_ms >= 0 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid value {timestamp_ms} for parameter '{}' supplied: metric '{key}' (value={value:?}). Timestamp must be \
         a nonnegative long (64-bit integer) ",
        joined(path, "timestamp")
    )))
}

/// A param.
///
/// # Errors
/// See [`metric_key`].
pub fn param(key: &str, value: &str, path: &str) -> Result<()> {
    name(key, path, "key")?;
    within("Param key", key, KEY_CHARS_MAX)?;
    within("Param value", value, PARAM_VALUE_CHARS_MAX)
}

/// A run's tag.
///
/// # Errors
/// See [`metric_key`].
pub fn run_tag(key: &str, value: &str, path: &str) -> Result<()> {
    name(key, path, "key")?;
    within(&joined(path, "key"), key, KEY_CHARS_MAX)?;
    within(&joined(path, "value"), value, RUN_TAG_VALUE_CHARS_MAX)
}

/// An experiment's tag.
///
/// # Errors
/// See [`metric_key`].
pub fn experiment_tag(key: &str, value: &str) -> Result<()> {
    name(key, "", "key")?;
    within("key", key, KEY_CHARS_MAX)?;
    within("value", value, EXPERIMENT_TAG_VALUE_CHARS_MAX)
}

/// An experiment's name: not blank, at most 500 characters.
///
/// # Errors
/// See [`metric_key`].
pub fn experiment_name(text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::invalid(format!("Invalid experiment name: '{text}'")));
    }
    within("name", text, EXPERIMENT_NAME_CHARS_MAX)
}

/// An artifact location that the caller gave.
///
/// # Errors
/// See [`metric_key`].
pub fn artifact_location(location: &str) -> Result<()> {
    if location.starts_with("runs:") {
        return Err(Error::invalid(format!("Artifact location cannot be a runs:/ URI. Given: '{location}'")));
    }
    if location.contains(['#', ';']) {
        return Err(Error::invalid("'artifact_location' URL can't include fragments or params."));
    }
    if location.chars().count() > ARTIFACT_LOCATION_CHARS_MAX {
        return Err(Error::invalid(format!(
            "Invalid artifact path length. The length of the artifact path cannot be greater than \
             {ARTIFACT_LOCATION_CHARS_MAX} characters."
        )));
    }
    Ok(())
}

/// How much one `log_batch` may carry.
///
/// # Errors
/// See [`metric_key`].
pub fn batch(metrics: usize, params: usize, tags: usize) -> Result<()> {
    let all = metrics.saturating_add(params).saturating_add(tags);
    for (what, most, got) in [
        ("metrics", BATCH_METRICS_MAX, metrics),
        ("params", BATCH_PARAMS_MAX, params),
        ("tags", BATCH_TAGS_MAX, tags),
        ("metrics, params, and tags", BATCH_ITEMS_MAX, all),
    ] {
        if got > most {
            return Err(Error::invalid(format!(
                "A batch logging request can contain at most {most} {what}. Got {got} {what}. Please split up {what} \
                 across multiple requests and try again."
            )));
        }
    }
    Ok(())
}

/// No param key stands twice in one request, not even with equal values.
///
/// # Errors
/// See [`metric_key`].
pub fn params_unique<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let keys: Vec<&str> = keys.into_iter().collect();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    if sorted.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    let twice = keys.into_iter().filter(|key| !seen.insert(*key));
    let list: Vec<String> = twice.map(|key| format!("'{key}'")).collect();
    Err(Error::invalid(format!(
        "Duplicate parameter keys have been submitted: [{}]. Please ensure the request contains only one param value \
         per param key.",
        list.join(", ")
    )))
}

/// A param keeps its first value; the same value again is fine (`Ok(false)`: nothing to write).
///
/// # Errors
/// [`Error::InvalidState`] with MLflow's text.
pub fn param_unchanged(run: &Entity, key: &str, value: &str) -> Result<bool> {
    let Some(old) = run.get(Field::PARAM, key).and_then(|v| v.lossy_text()) else { return Ok(true) };
    if old == value {
        return Ok(false);
    }
    Err(param_changed("run", &run_id(run), key, &old, value))
}

/// A param that has another value already; of whom, by what kind of owner.
fn param_changed(owner: &str, id: &str, key: &str, old: &str, value: &str) -> Error {
    Error::InvalidState(format!(
        "Changing param values is not allowed. Param with key='{key}' was already logged with value='{old}' for {owner} \
         ID='{id}'. Attempted logging new value '{value}'."
    ))
}

/// A run's name and its tag `mlflow.runName`, where both are given, are one.
///
/// # Errors
/// See [`metric_key`].
pub fn run_name_and_tag(name: &str, tag: &str) -> Result<()> {
    if name.is_empty() || tag.is_empty() || name == tag {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values \
         (run_name='{name}', mlflow.runName='{tag}')."
    )))
}

/// A data set.
///
/// # Errors
/// See [`metric_key`].
pub fn dataset(dataset: &Dataset) -> Result<()> {
    within("name", &dataset.name, DATASET_NAME_CHARS_MAX)?;
    within("digest", &dataset.digest, DATASET_DIGEST_CHARS_MAX)?;
    within("source", &dataset.source, DATASET_SOURCE_CHARS_MAX)?;
    within("schema", dataset.schema.as_deref().unwrap_or_default(), DATASET_SCHEMA_CHARS_MAX)?;
    within("profile", dataset.profile.as_deref().unwrap_or_default(), DATASET_PROFILE_CHARS_MAX)
}

/// The tags of a data set input.
///
/// # Errors
/// See [`metric_key`].
pub fn input_tags(tags: &BTreeMap<String, String>) -> Result<()> {
    tags.iter().try_for_each(|(key, value)| {
        within("key", key, INPUT_TAG_KEY_CHARS_MAX)?;
        within("value", value, INPUT_TAG_VALUE_CHARS_MAX)
    })
}

/// Runs are written to only while they are active. (Finished and failed ones may be: MLflow has no rule against it.)
///
/// # Errors
/// [`Error::InvalidState`].
pub fn run_is_active(run: &Entity) -> Result<()> {
    match run.lifecycle() {
        Lifecycle::Active => Ok(()),
        Lifecycle::Deleted => Err(Error::InvalidState(format!(
            "The run {} must be in the 'active' state. Current state is deleted.",
            run_id(run)
        ))),
    }
}

/// Experiments are written to, and get runs, only while they are active.
///
/// # Errors
/// [`Error::InvalidState`].
pub fn experiment_is_active(catalog: &Catalog, experiment: &Entity) -> Result<()> {
    match experiment.lifecycle() {
        Lifecycle::Active => Ok(()),
        Lifecycle::Deleted => Err(Error::InvalidState(format!(
            "The experiment {} must be in the 'active' state. Current state is deleted.",
            catalog.experiment_id(experiment.uid())
        ))),
    }
}

/// The first `most` characters of a text: what MLflow's door stores of a too long param value or tag.
pub fn truncated(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

fn within(what: &str, text: &str, most: usize) -> Result<()> {
    if text.len() > most && text.chars().count() > most {
        return Err(Error::invalid(format!("'{what}' exceeds the maximum length of {most} characters")));
    }
    Ok(())
}

fn joined<'a>(path: &str, part: &'a str) -> Cow<'a, str> {
    if path.is_empty() { Cow::Borrowed(part) } else { Cow::Owned(format!("{path}.{part}")) }
}

fn name(key: &str, path: &str, part: &str) -> Result<()> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !key.is_empty() && key.bytes().all(is_plain) {
        return Ok(());
    }
    let refused = |why: &str| {
        let shown = json_text(key);
        Err(Error::invalid(format!(
            "Invalid value {shown} for parameter '{}' supplied: {why}",
            joined(path, part)
        )))
    };
    let allowed = |c: char| c.is_alphanumeric() || "/_.- :".contains(c);
    if !key.chars().all(allowed) {
        return refused(
            "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and \
             slashes (/).",
        );
    }
    let normal = normal_path(key);
    if normal != key || normal == "." || normal.starts_with("..") || normal.starts_with('/') {
        return refused(&format!(
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. \
             This name would resolve to '{normal}'"
        ));
    }
    Ok(())
}

/// Python's `posixpath.normpath`.
fn normal_path(path: &str) -> String {
    let root = match path.bytes().take_while(|b| *b == b'/').count() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." && parts.last().map_or(root.is_empty(), |last| *last == "..") {
            parts.push(part);
        } else if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    let normal = format!("{root}{}", parts.join("/"));
    if normal.is_empty() { ".".to_owned() } else { normal }
}

/// Python's `json.dumps` of a text: ASCII only.
pub fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<()>) -> String {
        result.unwrap_err().to_string()
    }

    /// Accepted and refused by MLflow 3.18's `_validate_param_name` (run), except for the combining mark.
    #[test]
    fn keys_are_those_that_mlflow_takes() {
        for good in [
            "a",
            "a/b",
            "a.b",
            "a-b",
            "a b",
            "a:b",
            " lead",
            "trail ",
            ".hid",
            "-",
            "meta.yaml",
            "\u{e9}",
            "\u{6570}",
            "_",
            "a/..b",
            "x\u{2460}",
            "\u{215c}",
            "\u{930}\u{93e}",
        ] {
            param(good, "", "").unwrap_or_else(|e| panic!("{good:?}: {e}"));
        }
        for bad in [
            "",
            ".",
            "..",
            "...",
            "..a",
            "/a",
            "//a",
            "a/",
            "a//b",
            "./a",
            "a/.",
            "a/../b",
            "a/..",
            "a\n",
            "a#b",
            "a\\b",
            "a\u{0}",
            "a,b",
            "a\tb",
            "a%",
            "\u{1f680}",
        ] {
            assert!(param(bad, "", "").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn messages_are_mlflows() {
        assert_eq!(
            text(param("a#\u{e9}", "", "params[2]")),
            "Invalid value \"a#\\u00e9\" for parameter 'params[2].key' supplied: Names may only contain alphanumerics, \
             underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
        );
        assert_eq!(
            text(metric_key("a//b", "")),
            "Invalid value \"a//b\" for parameter 'name' supplied: Names may be treated as files in certain cases, and \
             must not resolve to other names when treated as such. This name would resolve to 'a/b'"
        );
        assert_eq!(
            text(metric_timestamp("loss", 0.5, -1, "metrics[0]")),
            "Invalid value -1 for parameter 'metrics[0].timestamp' supplied: metric 'loss' (value=0.5). Timestamp must \
             be a nonnegative long (64-bit integer) "
        );
        assert_eq!(
            text(batch(1001, 0, 0)),
            "A batch logging request can contain at most 1000 metrics. Got 1001 metrics. Please split up metrics \
             across multiple requests and try again."
        );
        assert_eq!(
            text(params_unique(["a", "b", "a", "a"])),
            "Duplicate parameter keys have been submitted: ['a', 'a']. Please ensure the request contains only one \
             param value per param key."
        );
        assert_eq!(
            text(run_name_and_tag("a", "b")),
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values (run_name='a', \
             mlflow.runName='b')."
        );
        assert_eq!(text(experiment_name("  ")), "Invalid experiment name: '  '");
    }

    #[test]
    fn limits_count_characters_and_name_themselves() {
        let long = |n| "\u{e9}".repeat(n);
        param(&long(250), &long(6000), "").unwrap();
        assert_eq!(
            text(param(&long(251), "", "params[0]")),
            "'Param key' exceeds the maximum length of 250 characters"
        );
        assert_eq!(
            text(param("k", &long(6001), "")),
            "'Param value' exceeds the maximum length of 6000 characters"
        );
        run_tag("k", &long(8000), "").unwrap();
        assert_eq!(
            text(run_tag("k", &long(8001), "tags[1]")),
            "'tags[1].value' exceeds the maximum length of 8000 characters"
        );
        experiment_tag("k", &long(20_000)).unwrap();
        assert!(experiment_tag("k", &long(20_001)).is_err());
        experiment_name(&long(500)).unwrap();
        assert_eq!(text(experiment_name(&long(501))), "'name' exceeds the maximum length of 500 characters");
        artifact_location(&long(2048)).unwrap();
        for bad in [long(2049), "runs:/1/a".into(), "s3://b/a#c".into(), "s3://b/a;c".into()] {
            assert!(artifact_location(&bad).is_err(), "{bad}");
        }
        batch(800, 100, 100).unwrap();
        for (m, p, t) in [(801, 100, 100), (0, 101, 0), (0, 0, 101), (usize::MAX, 1, 1)] {
            assert!(batch(m, p, t).is_err());
        }
        assert_eq!(truncated(&long(9), 4), long(4));
        assert_eq!(truncated("abc", 4), "abc");
    }

    #[test]
    fn data_sets_have_limits_too() {
        let fine = Dataset {
            name: "n".repeat(500),
            digest: "d".repeat(36),
            source_type: "local".into(),
            source: "s".into(),
            schema: None,
            profile: None,
        };
        dataset(&fine).unwrap();
        assert!(dataset(&Dataset { digest: "d".repeat(37), ..fine.clone() }).is_err());
        assert!(dataset(&Dataset { name: "n".repeat(501), ..fine }).is_err());
        input_tags(&BTreeMap::from([("k".repeat(255), "v".repeat(500))])).unwrap();
        assert!(input_tags(&BTreeMap::from([("k".repeat(256), String::new())])).is_err());
        assert!(input_tags(&BTreeMap::from([(String::new(), "v".repeat(501))])).is_err());
    }

    #[test]
    fn paths_normalise_as_in_python() {
        for (path, normal) in [
            ("", "."),
            ("/", "/"),
            ("//", "//"),
            ("///", "/"),
            ("//a", "//a"),
            ("a/./b//c/../d", "a/b/d"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("../../a", "../../a"),
            ("a/..", "."),
            ("a/../..", ".."),
            ("a/", "a"),
        ] {
            assert_eq!(normal_path(path), normal, "{path:?}");
        }
    }
}
