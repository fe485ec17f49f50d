//! What parts other than `mlruns` may know of the registers of an imported tree: which files are kept as they were.
//!
//! Contract: reads the outer bytes of the values of [`Field::SHAPE`], [`Field::VERBATIM`], [`Field::FILE`],
//! [`Field::METRIC_FILE`] and nothing inside them; the encoding is that of `mlruns`. Bytes that are not of this form
//! count as nothing: whoever uses them reports damage.

use crate::codec::bytes::Reader;
use crate::error::Malformed;
use crate::format::event::{Field, ValueRef};

/// Kind of a content: the bytes follow.
pub const CONTENT_INLINE: u8 = 1;
/// Kind of a content: the bytes are a blob.
pub const CONTENT_BLOB: u8 = 2;
/// Kind of a content: what the emitter writes for a document.
pub const CONTENT_DOCUMENT: u8 = 3;
/// Flag of a metric file: the original bytes are kept beside the points.
pub const METRIC_HAS_ORIGINAL: u8 = 4;

/// The file that describes an entity.
const META: &str = "meta.yaml";
/// The guard before the content of an override.
const GUARD_BYTES: usize = 8;
/// Before the lengths of a metric file: version, flags, origin, digest.
const METRIC_FLAGS_AT: usize = 1;
const METRIC_BYTES_AT: usize = 34;

/// How the files of imported trees are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptFiles {
    /// MLflow's YAML files.
    pub yaml: u64,
    /// Of these, kept as their original bytes.
    pub yaml_verbatim: u64,
    /// Metric files of runs.
    pub metric: u64,
    /// Of these, kept as their original bytes, beside their points or because they hold none.
    pub metric_verbatim: u64,
    /// Bytes of the verbatim ones.
    pub verbatim_bytes: u64,
}

impl KeptFiles {
    /// Counts a register.
    pub fn add(&mut self, field: Field, key: &str, value: ValueRef<'_>) {
        if field == Field::MODEL_OUTPUT && value.integer().is_some() {
            self.yaml += 1;
        }
        let ValueRef::Bytes(bytes) = value else { return };
        match field {
            Field::SHAPE => self.yaml += u64::from(key == META),
            Field::VERBATIM if key == META => {
                let original = bytes.get(GUARD_BYTES..).and_then(original_len);
                self.yaml_verbatim += u64::from(original.is_some());
                self.add_bytes(original.unwrap_or(0));
            }
            // The file is counted where it is kept.
            Field::VERBATIM => {
                let is_elsewhere = key.starts_with("inputs/") || key.starts_with("outputs/");
                self.yaml -= u64::from(is_elsewhere && self.yaml > 0);
            }
            Field::INPUT | Field::MODEL_INPUT => self.yaml += 1,
            Field::METRIC_FILE => {
                let original = bytes.get(METRIC_FLAGS_AT).is_some_and(|f| f & METRIC_HAS_ORIGINAL != 0);
                self.metric += 1;
                self.metric_verbatim += u64::from(original);
                if original && let Some(lengths) = bytes.get(METRIC_BYTES_AT..) {
                    self.add_bytes(Reader::new(lengths).varint().unwrap_or(0));
                }
            }
            Field::FILE => self.add_file(key, bytes),
            _ => {}
        }
    }

    fn add_file(&mut self, key: &str, content: &[u8]) {
        let kind = content.first().copied();
        let original = original_len(content);
        let mut directories = key.split('/').rev().skip(1);
        if key.starts_with("metrics/") {
            self.metric += u64::from(original.is_some());
            self.metric_verbatim += u64::from(original.is_some_and(|len| len > 0));
        } else if key.ends_with(".yaml")
            && !directories.any(|name| name == "artifacts")
            && !key.starts_with("params/")
            && !key.starts_with("tags/")
        {
            self.yaml += u64::from(original.is_some() || kind == Some(CONTENT_DOCUMENT));
            self.yaml_verbatim += u64::from(original.is_some());
        } else {
            return;
        }
        self.add_bytes(original.unwrap_or(0));
    }

    /// A length is what a record says, and records may say anything.
    fn add_bytes(&mut self, bytes: u64) {
        self.verbatim_bytes = self.verbatim_bytes.saturating_add(bytes);
    }
}

/// How long the original bytes are that a content keeps; nothing where it keeps none.
fn original_len(content: &[u8]) -> Option<u64> {
    let read = || -> Result<Option<u64>, Malformed> {
        let mut reader = Reader::new(content);
        match reader.u8()? {
            CONTENT_INLINE => reader.varint().map(Some),
            CONTENT_BLOB => {
                reader.take(16)?;
                reader.varint().map(Some)
            }
            _ => Ok(None),
        }
    };
    read().ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_say_how_long_they_are() {
        assert_eq!(original_len(&[CONTENT_INLINE, 3, b'a', b'b', b'c']), Some(3));
        let mut blob = vec![CONTENT_BLOB];
        blob.extend([7; 16]);
        blob.extend([0x80, 0x20]);
        assert_eq!(original_len(&blob), Some(4096));
        for other in [&[CONTENT_DOCUMENT, 0][..], &[6], &[], &[CONTENT_BLOB, 1], &[CONTENT_INLINE]] {
            assert_eq!(original_len(other), None, "{other:?}");
        }
    }

    #[test]
    fn lengths_past_all_bounds_do_not_overflow() {
        let mut kept = KeptFiles::default();
        let mut endless = vec![CONTENT_INLINE];
        endless.extend([0xff; 9]);
        endless.push(1);
        for _ in 0..2 {
            kept.add(Field::FILE, "metrics/loss", ValueRef::Bytes(&endless));
        }
        assert_eq!((kept.metric_verbatim, kept.verbatim_bytes), (2, u64::MAX));
    }

    #[test]
    fn files_of_artifacts_and_values_are_no_yaml_of_mlflow() {
        let mut kept = KeptFiles::default();
        for key in ["artifacts/a.yaml", "models/m/artifacts/x/MLmodel.yaml", "params/x.yaml", "notes.txt"] {
            kept.add(Field::FILE, key, ValueRef::Bytes(&[CONTENT_INLINE, 0]));
        }
        assert_eq!(kept, KeptFiles::default());
        kept.add(Field::FILE, "models/m/meta.yaml", ValueRef::Bytes(&[CONTENT_INLINE, 1, b'x']));
        kept.add(Field::FILE, "metrics/empty", ValueRef::Bytes(&[CONTENT_INLINE, 0]));
        kept.add(Field::FILE, "metrics/gone", ValueRef::Absent);
        assert_eq!(
            kept,
            KeptFiles { yaml: 1, yaml_verbatim: 1, metric: 1, metric_verbatim: 0, verbatim_bytes: 1 }
        );
    }
}
