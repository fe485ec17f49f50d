//! Registered models and their versions: which keys a filter can name, and what they mean.
//!
//! Contract: both have one filter and one order, which differ in their keys. Prompts are registered models, and
//! nobody's search for models finds them: unless a filter asks for prompts (the tag [`IS_PROMPT`] is `true`), those
//! are passed over.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{ModelVersion, RegisteredModel};

use super::Dialect;
use super::clause::{Identifier, LISTED, Number, Passing, TEXT, TextTest, clip, invalid_key};
use super::expr::{self, Expr};
use super::group::{Comparator, Comparison, Operand};
use super::lex::Kind;

/// The tag that makes a registered model a prompt, if it is `true`.
pub const IS_PROMPT: &str = "mlflow.prompt.is_prompt";

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryEntity {
    /// Registered models.
    Model,
    /// Versions of all registered models.
    Version,
}

/// Attributes that are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryText {
    /// `name`
    Name,
    /// `run_id`, of a version.
    RunId,
    /// `source_path`, of a version.
    Source,
}

/// Attributes that are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryNumber {
    /// `version_number`, of a version.
    Version,
    /// `creation_timestamp`, milliseconds since 1970.
    Created,
    /// `last_updated_timestamp`, milliseconds since 1970.
    Updated,
}

/// What a filter and an order see of a registered model or version. A missing value is `None`.
pub trait RegistryFields {
    /// A text attribute.
    fn text(&self, attribute: RegistryText) -> Option<Cow<'_, str>>;
    /// A numeric attribute.
    fn number(&self, attribute: RegistryNumber) -> Option<i64>;
    /// A tag.
    fn tag(&self, key: &str) -> Option<&str>;
}

impl RegistryFields for RegisteredModel {
    fn text(&self, attribute: RegistryText) -> Option<Cow<'_, str>> {
        (attribute == RegistryText::Name).then_some(Cow::Borrowed(&*self.name))
    }

    fn number(&self, attribute: RegistryNumber) -> Option<i64> {
        match attribute {
            RegistryNumber::Version => None,
            RegistryNumber::Created => self.created_ms,
            RegistryNumber::Updated => self.updated_ms,
        }
    }

    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.get(key).map(String::as_str)
    }
}

impl RegistryFields for ModelVersion {
    fn text(&self, attribute: RegistryText) -> Option<Cow<'_, str>> {
        match attribute {
            RegistryText::Name => Some(Cow::Borrowed(&*self.name)),
            RegistryText::RunId => self.run_id.as_deref().map(Cow::Borrowed),
            RegistryText::Source => self.source.as_deref().map(Cow::Borrowed),
        }
    }

    fn number(&self, attribute: RegistryNumber) -> Option<i64> {
        match attribute {
            RegistryNumber::Version => i64::try_from(self.version).ok(),
            RegistryNumber::Created => self.created_ms,
            RegistryNumber::Updated => self.updated_ms,
        }
    }

    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.get(key).map(String::as_str)
    }
}

macro_rules! forward_registry_fields {
    ($($pointer:ty),*) => {$(
        impl<T: RegistryFields + ?Sized> RegistryFields for $pointer {
            fn text(&self, attribute: RegistryText) -> Option<Cow<'_, str>> {
                T::text(self, attribute)
            }
            fn number(&self, attribute: RegistryNumber) -> Option<i64> {
                T::number(self, attribute)
            }
            fn tag(&self, key: &str) -> Option<&str> {
                T::tag(self, key)
            }
        }
    )*};
}
forward_registry_fields!(&T, Arc<T>);

/// An attribute that a filter or an order can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegistryAttribute {
    Text(RegistryText),
    Number(RegistryNumber),
}

/// Whether an identifier names a tag; anything else is an attribute.
fn is_tag(identifier: Identifier<'_>, valid: &[&str]) -> Result<bool> {
    match identifier.entity {
        None => Ok(false),
        Some(word) if valid.contains(&word) => Ok(word.starts_with("tag")),
        Some(other) => {
            let valid: Vec<String> = valid.iter().map(|word| format!("'{word}'")).collect();
            Err(Error::invalid(format!(
                "Invalid entity type '{}'. Valid entity types are ({})",
                clip(other),
                valid.join(", ")
            )))
        }
    }
}

/// The attribute that an order names.
pub(crate) fn order_attribute(identifier: Identifier<'_>, of: RegistryEntity) -> Result<RegistryAttribute> {
    if is_tag(identifier, &["attribute", "attributes", "tag", "tags"])? {
        return Err(Error::invalid("Invalid order_by entity: tag"));
    }
    Ok(match (identifier.key, of) {
        ("name", _) => RegistryAttribute::Text(RegistryText::Name),
        ("creation_timestamp", _) => RegistryAttribute::Number(RegistryNumber::Created),
        ("last_updated_timestamp", _) | ("timestamp", RegistryEntity::Model) => {
            RegistryAttribute::Number(RegistryNumber::Updated)
        }
        ("version_number", RegistryEntity::Version) => RegistryAttribute::Number(RegistryNumber::Version),
        (key, RegistryEntity::Model) => {
            return Err(invalid_key(
                "order by",
                key,
                &["creation_timestamp", "last_updated_timestamp", "name", "timestamp"],
            ));
        }
        (key, RegistryEntity::Version) => {
            return Err(invalid_key(
                "order by",
                key,
                &["creation_timestamp", "last_updated_timestamp", "name", "version_number"],
            ));
        }
    })
}

/// The attribute that a filter names.
fn filter_attribute(key: &str, of: RegistryEntity) -> Result<RegistryAttribute> {
    Ok(match (key, of) {
        ("name", _) => RegistryAttribute::Text(RegistryText::Name),
        ("run_id", RegistryEntity::Version) => RegistryAttribute::Text(RegistryText::RunId),
        ("source_path", RegistryEntity::Version) => RegistryAttribute::Text(RegistryText::Source),
        ("version_number", RegistryEntity::Version) => RegistryAttribute::Number(RegistryNumber::Version),
        (_, RegistryEntity::Model) => return Err(invalid_key("attribute", key, &["name"])),
        (_, RegistryEntity::Version) => {
            return Err(invalid_key("attribute", key, &["name", "run_id", "source_path", "version_number"]));
        }
    })
}

/// One comparison about registered models or versions.
#[derive(Clone, Debug, PartialEq)]
enum RegistryClause {
    Tag(String, TextTest),
    /// Whether it is a prompt.
    Prompt(bool),
    Text(RegistryText, TextTest),
    Number(RegistryNumber, Passing, Number),
}

impl RegistryClause {
    fn new(comparison: &Comparison<'_>, of: RegistryEntity, dialect: Dialect) -> Result<Self> {
        if matches!(comparison.comparator, Comparator::IsNull | Comparator::IsNotNull) {
            let what = match of {
                RegistryEntity::Model => "registered model",
                RegistryEntity::Version => "model version",
            };
            return Err(Error::invalid(format!("IS NULL / IS NOT NULL is not supported for {what} search.")));
        }
        let identifier = Identifier::new(&comparison.left, dialect)?;
        let key = identifier.key;
        if is_tag(identifier, &["attribute", "tag", "tags"])? {
            let test = TextTest::new(comparison, TEXT, "tag (e.g. 'my-value')", None)?;
            return Ok(if key == IS_PROMPT {
                Self::Prompt(asks_for_prompts(&test))
            } else {
                Self::Tag(key.to_owned(), test)
            });
        }
        match filter_attribute(key, of)? {
            RegistryAttribute::Number(attribute) => Ok(Self::Number(
                attribute,
                Passing::new(&comparison.comparator)?,
                whole_number(comparison, key)?,
            )),
            RegistryAttribute::Text(attribute) => {
                let (valid, no_list) = match attribute {
                    RegistryText::Source => (
                        TEXT,
                        Some(
                            "Only ['name', 'run_id'] attributes support comparison with a list of quoted string values.",
                        ),
                    ),
                    _ => (LISTED, None),
                };
                Ok(Self::Text(attribute, TextTest::new(comparison, valid, "attributes", no_list)?))
            }
        }
    }

    fn holds(&self, entity: &(impl RegistryFields + ?Sized)) -> bool {
        match self {
            Self::Tag(key, test) => entity.tag(key).is_some_and(|tag| test.passes(tag)),
            Self::Prompt(wanted) => is_prompt(entity) == *wanted,
            Self::Text(attribute, test) => entity.text(*attribute).is_some_and(|text| test.passes(&text)),
            Self::Number(attribute, passing, wanted) => {
                entity.number(*attribute).is_some_and(|number| passing.passes(wanted.compare(number)))
            }
        }
    }
}

/// MLflow takes only these two for a question about prompts; any other test of the tag asks for models.
fn asks_for_prompts(test: &TextTest) -> bool {
    match test {
        TextTest::Equal(text) => text.eq_ignore_ascii_case("true"),
        TextTest::NotEqual(text) => text.eq_ignore_ascii_case("false"),
        _ => false,
    }
}

fn is_prompt(entity: &(impl RegistryFields + ?Sized)) -> bool {
    entity.tag(IS_PROMPT) == Some("true")
}

/// A whole number, which may be quoted.
fn whole_number(comparison: &Comparison<'_>, key: &str) -> Result<Number> {
    let Operand::One(token) = comparison.operand else {
        return Number::new(comparison, &format!("numeric attribute: {}", clip(key)));
    };
    let inner = match token.kind {
        Kind::Number => token.text,
        _ => token.text.trim_matches(['\'', '"']),
    };
    inner.trim().parse().map(Number::Integer).map_err(|_| {
        Error::invalid(format!("Invalid value for numeric attribute '{}': {}", clip(key), clip(token.text)))
    })
}

/// A filter of registered models or versions, ready to be asked many times. What is missing passes no comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryFilter {
    expression: Expr<RegistryClause>,
    hides_prompts: bool,
}

impl RegistryFilter {
    /// Parses a filter; empty text lets everything pass that is no prompt.
    ///
    /// # Errors
    /// As [`RunFilter::parse`](super::RunFilter::parse).
    pub fn parse(text: &str, of: RegistryEntity, dialect: Dialect) -> Result<Self> {
        let mut hides_prompts = true;
        let expression = expr::parse(text, dialect, |comparison| {
            let clause = RegistryClause::new(&comparison, of, dialect)?;
            // In the extended language the filter says for itself where prompts go.
            hides_prompts &=
                !matches!(clause, RegistryClause::Prompt(wanted) if wanted || dialect == Dialect::Extended);
            Ok(clause)
        })?;
        Ok(Self { expression, hides_prompts })
    }

    /// Whether a registered model or version passes.
    pub fn matches(&self, entity: &(impl RegistryFields + ?Sized)) -> bool {
        !(self.hides_prompts && is_prompt(entity))
            && self.expression.holds(&|clause: &RegistryClause| clause.holds(entity))
    }
}
