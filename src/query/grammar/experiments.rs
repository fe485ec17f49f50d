//! Experiments: which keys a filter can name, and what they mean.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::Experiment;

use super::Dialect;
use super::clause::{Identifier, KeyedTest, LISTED, Number, Passing, TEXT, TextTest, clip, invalid_key};
use super::expr::{self, Expr};
use super::group::{Comparator, Comparison, Operand};

/// Attributes of an experiment that are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExperimentText {
    /// `name`
    Name,
    /// `experiment_id`; compares and sorts as a number.
    Id,
}

/// Attributes of an experiment that are points in time, milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExperimentTime {
    /// `creation_time`
    Created,
    /// `last_update_time`
    Updated,
}

/// What a filter and an order see of an experiment. A missing value is `None`.
pub trait ExperimentFields {
    /// A text attribute.
    fn text(&self, attribute: ExperimentText) -> Option<Cow<'_, str>>;
    /// A time attribute.
    fn time(&self, attribute: ExperimentTime) -> Option<i64>;
    /// A tag.
    fn tag(&self, key: &str) -> Option<&str>;
}

impl ExperimentFields for Experiment {
    fn text(&self, attribute: ExperimentText) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(match attribute {
            ExperimentText::Name => &self.name,
            ExperimentText::Id => &self.id,
        }))
    }

    fn time(&self, attribute: ExperimentTime) -> Option<i64> {
        match attribute {
            ExperimentTime::Created => self.created_ms,
            ExperimentTime::Updated => self.updated_ms,
        }
    }

    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.get(key).map(String::as_str)
    }
}

macro_rules! forward_experiment_fields {
    ($($pointer:ty),*) => {$(
        impl<T: ExperimentFields + ?Sized> ExperimentFields for $pointer {
            fn text(&self, attribute: ExperimentText) -> Option<Cow<'_, str>> {
                T::text(self, attribute)
            }
            fn time(&self, attribute: ExperimentTime) -> Option<i64> {
                T::time(self, attribute)
            }
            fn tag(&self, key: &str) -> Option<&str> {
                T::tag(self, key)
            }
        }
    )*};
}
forward_experiment_fields!(&T, Arc<T>);

/// An attribute that a filter or an order can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExperimentAttribute {
    Text(ExperimentText),
    Time(ExperimentTime),
}

/// The attribute an identifier names; none if it names a tag.
pub(crate) fn attribute_named(identifier: Identifier<'_>) -> Result<Option<ExperimentAttribute>> {
    match identifier.entity {
        None | Some("attribute" | "attributes") => {}
        Some("tag" | "tags") => return Ok(None),
        Some(other) => {
            return Err(Error::invalid(format!(
                "Invalid entity type '{}'. Valid entity types are ('attribute', 'attributes', 'tag', 'tags')",
                clip(other)
            )));
        }
    }
    Ok(Some(match identifier.key {
        "name" => ExperimentAttribute::Text(ExperimentText::Name),
        "experiment_id" => ExperimentAttribute::Text(ExperimentText::Id),
        "creation_time" => ExperimentAttribute::Time(ExperimentTime::Created),
        "last_update_time" => ExperimentAttribute::Time(ExperimentTime::Updated),
        key => {
            let valid = ["creation_time", "experiment_id", "last_update_time", "name"];
            return Err(invalid_key("attribute", key, &valid));
        }
    }))
}

/// The order of experiment ids: numbers by their value, then other texts. Total: ids that differ only in leading
/// zeros go by their text.
pub(crate) fn compare_ids(a: &str, b: &str) -> Ordering {
    let key = |id: &'_ str| {
        let number = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
        (!number, if number { canonical_id(id).len() } else { 0 })
    };
    key(a).cmp(&key(b)).then_with(|| canonical_id(a).cmp(canonical_id(b))).then_with(|| a.cmp(b))
}

/// An id without leading zeros.
fn canonical_id(id: &str) -> &str {
    match id.trim_start_matches('0') {
        "" if !id.is_empty() => "0",
        stripped => stripped,
    }
}

/// One comparison about experiments.
#[derive(Clone, Debug, PartialEq)]
enum ExperimentClause {
    Tag(String, KeyedTest),
    Name(TextTest),
    Id(TextTest),
    Time(ExperimentTime, Passing, Number),
}

impl ExperimentClause {
    fn new(comparison: &Comparison<'_>, dialect: Dialect) -> Result<Self> {
        let identifier = Identifier::new(&comparison.left, dialect)?;
        let key = identifier.key;
        let attribute = attribute_named(identifier)?;
        let about_null = matches!(comparison.comparator, Comparator::IsNull | Comparator::IsNotNull);
        if about_null && attribute.is_some() {
            return Err(Error::invalid(format!(
                "IS NULL / IS NOT NULL is only supported for tags, not for attribute '{}'",
                clip(key)
            )));
        }
        match attribute {
            None => Ok(Self::Tag(key.to_owned(), KeyedTest::new(comparison, "tag")?)),
            Some(ExperimentAttribute::Time(attribute)) => {
                let number = Number::new(comparison, &format!("numeric attribute: {}", clip(key)))?;
                let passing = Passing::new(&comparison.comparator)?;
                match (number, comparison.operand) {
                    (Number::Real(_), Operand::One(token)) => Err(Error::invalid(format!(
                        "Invalid value for numeric attribute '{}': '{}'",
                        clip(key),
                        clip(token.text)
                    ))),
                    _ => Ok(Self::Time(attribute, passing, number)),
                }
            }
            Some(ExperimentAttribute::Text(ExperimentText::Name)) => {
                let no_list = "Only ['experiment_id'] attributes support comparison with a list of quoted string values.";
                Ok(Self::Name(TextTest::new(comparison, TEXT, "attributes", Some(no_list))?))
            }
            Some(ExperimentAttribute::Text(ExperimentText::Id)) => {
                let test = TextTest::new(comparison, LISTED, "attributes", None)?;
                if let TextTest::Like(_) = test {
                    let comparator = comparison.comparator.as_str();
                    return Err(Error::invalid(format!(
                        "Invalid comparator for experiment_id: {comparator}"
                    )));
                }
                Ok(Self::Id(test.try_map(|id| {
                    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
                        return Err(Error::invalid(format!(
                            "Invalid experiment ID '{}'. Experiment ID must be a valid integer.",
                            clip(&id)
                        )));
                    }
                    Ok(canonical_id(&id).to_owned())
                })?))
            }
        }
    }

    fn holds(&self, experiment: &(impl ExperimentFields + ?Sized)) -> bool {
        match self {
            Self::Tag(key, test) => test.passes(experiment.tag(key)),
            Self::Name(test) => experiment.text(ExperimentText::Name).is_some_and(|name| test.passes(&name)),
            Self::Id(test) => {
                experiment.text(ExperimentText::Id).is_some_and(|id| test.passes(canonical_id(&id)))
            }
            Self::Time(attribute, passing, wanted) => {
                experiment.time(*attribute).is_some_and(|time| passing.passes(wanted.compare(time)))
            }
        }
    }
}

/// A filter of experiments, ready to be asked many times. Missing values as for [`RunFilter`](super::RunFilter).
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentFilter(Expr<ExperimentClause>);

impl ExperimentFilter {
    /// Parses a filter; empty text lets every experiment pass.
    ///
    /// # Errors
    /// As [`RunFilter::parse`](super::RunFilter::parse).
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self> {
        expr::parse(text, dialect, |comparison| ExperimentClause::new(&comparison, dialect)).map(Self)
    }

    /// The filter that lets every experiment pass.
    pub const fn all() -> Self {
        Self(Expr::And(Vec::new()))
    }

    /// Whether an experiment passes.
    pub fn matches(&self, experiment: &(impl ExperimentFields + ?Sized)) -> bool {
        self.0.holds(&|clause: &ExperimentClause| clause.holds(experiment))
    }
}

impl Default for ExperimentFilter {
    fn default() -> Self {
        Self::all()
    }
}
