//! What the entities' comparisons are made of: identifiers, tests of texts and numbers, and MLflow's refusals.
//!
//! Contract: a test is made once per filter and then answers without allocating. A value that is missing is the
//! caller's business (only IS NULL holds for it); of numeric tests NaN passes `!=` alone, as in both of MLflow's
//! stores.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::error::{Error, Result};

use super::Dialect;
use super::group::{Comparator, Comparison, Operand};
use super::lex::{Kind, Token};
use super::like::Pattern;

/// Comparators of numbers, as MLflow lists them.
pub(crate) const NUMERIC: &[Comparator] = &[
    Comparator::Equal,
    Comparator::NotEqual,
    Comparator::Greater,
    Comparator::GreaterEqual,
    Comparator::Less,
    Comparator::LessEqual,
];
/// Comparators of texts without lists.
pub(crate) const TEXT: &[Comparator] =
    &[Comparator::Equal, Comparator::NotEqual, Comparator::Like, Comparator::Ilike];
/// Comparators of params and tags.
pub(crate) const KEYED: &[Comparator] = &[
    Comparator::Equal,
    Comparator::NotEqual,
    Comparator::Like,
    Comparator::Ilike,
    Comparator::IsNull,
    Comparator::IsNotNull,
];
/// Comparators of texts that lists can name.
pub(crate) const LISTED: &[Comparator] = &[
    Comparator::Equal,
    Comparator::NotEqual,
    Comparator::Like,
    Comparator::Ilike,
    Comparator::In,
    Comparator::NotIn,
];

/// The start of a text, for messages that name what they refuse.
pub(crate) fn clip(text: &str) -> Cow<'_, str> {
    const CHARACTERS: usize = 200;
    match text.char_indices().nth(CHARACTERS) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}...", text.get(..end).unwrap_or_default())),
    }
}

/// The left side of a comparison, split at the first dot, quotes removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identifier<'a> {
    /// The entity word, if there is a dot.
    pub(crate) entity: Option<&'a str>,
    /// The key.
    pub(crate) key: &'a str,
}

impl<'a> Identifier<'a> {
    /// Reads the left side.
    pub(crate) fn new(token: &Token<'a>, dialect: Dialect) -> Result<Self> {
        let expected = "Invalid comparison clause. Expected 'Identifier' found";
        match token.kind {
            Kind::Word => Ok(Self::split(token.text)),
            Kind::WideWord if dialect == Dialect::Extended => Ok(Self::split(token.text)),
            Kind::WideWord => Err(Error::invalid(format!(
                "{expected} '{}'. A key with other characters than letters, digits, '_' and '.' needs quotes, as in \
                 metrics.`train/loss`",
                clip(token.text)
            ))),
            _ => Err(Error::invalid(format!("{expected} '{}'", clip(token.text)))),
        }
    }

    /// Splits a word.
    pub(crate) fn split(word: &'a str) -> Self {
        match word.split_once('.') {
            Some((entity, key)) => Self { entity: Some(unquoted(entity, '`')), key: unquoted_key(key) },
            None => Self { entity: None, key: unquoted_key(word) },
        }
    }
}

/// Removes one pair of quotes, if the text is in one.
fn unquoted(text: &str, quote: char) -> &str {
    text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).unwrap_or(text)
}

fn unquoted_key(key: &str) -> &str {
    let inner = unquoted(key, '\'');
    let inner = if inner.len() == key.len() { unquoted(key, '"') } else { inner };
    unquoted(inner, '`')
}

/// MLflow's refusal of a comparator.
pub(crate) fn check_comparator(comparator: &Comparator, valid: &[Comparator]) -> Result<()> {
    if valid.contains(comparator) {
        return Ok(());
    }
    let valid: Vec<String> = valid.iter().map(|valid| format!("'{}'", valid.as_str())).collect();
    Err(Error::invalid(format!(
        "Invalid comparator '{}' not one of '{{{}}}'",
        clip(comparator.as_str()),
        valid.join(", ")
    )))
}

/// MLflow's refusal of an attribute.
pub(crate) fn invalid_key(what: &str, key: &str, valid: &[&str]) -> Error {
    let valid: Vec<String> = valid.iter().map(|valid| format!("'{valid}'")).collect();
    Error::invalid(format!(
        "Invalid {what} key '{}' specified. Valid keys are '{{{}}}'",
        clip(key),
        valid.join(", ")
    ))
}

/// The text of an operand as written.
fn written<'a>(operand: &Operand<'a>) -> &'a str {
    match operand {
        Operand::Nothing => "",
        Operand::One(token) => token.text,
        Operand::List(text, _) => text,
    }
}

/// A test of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TextTest {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `LIKE`, `ILIKE`
    Like(Pattern),
    /// `IN` (sorted)
    In(Vec<String>),
    /// `NOT IN` (sorted)
    NotIn(Vec<String>),
}

impl TextTest {
    /// Makes the test of `comparison`. `what` names the entity in refusals ("attributes", "tag (e.g. 'my-value')");
    /// `no_list` is the refusal where lists have no place but parentheses deserve a word of their own.
    pub(crate) fn new(
        comparison: &Comparison<'_>,
        valid: &[Comparator],
        what: &str,
        no_list: Option<&str>,
    ) -> Result<Self> {
        let operand = &comparison.operand;
        let list = match operand {
            Operand::One(token) if matches!(token.kind, Kind::Text | Kind::Word | Kind::WideWord) => None,
            Operand::List(_, tokens) if valid.contains(&Comparator::In) => {
                Some(list_of(written(operand), tokens)?)
            }
            Operand::List(..) if no_list.is_some() => {
                return Err(Error::invalid(no_list.unwrap_or_default()));
            }
            _ => return Err(expected_text(what, operand)),
        };
        let one = || match operand {
            Operand::One(token) => text_of(token),
            _ => Err(expected_text(what, operand)),
        };
        // MLflow looks at the value first.
        let one = if list.is_none() { one()? } else { "" };
        check_comparator(&comparison.comparator, valid)?;
        match (&comparison.comparator, list) {
            (Comparator::In, Some(list)) => Ok(Self::In(list)),
            (Comparator::NotIn, Some(list)) => Ok(Self::NotIn(list)),
            (_, Some(_)) => Err(expected_text(what, operand)),
            (Comparator::NotEqual, None) => Ok(Self::NotEqual(one.to_owned())),
            (Comparator::Like, None) => Ok(Self::Like(Pattern::new(one, false)?)),
            (Comparator::Ilike, None) => Ok(Self::Like(Pattern::new(one, true)?)),
            (_, None) => Ok(Self::Equal(one.to_owned())),
        }
    }

    /// Whether a text passes.
    pub(crate) fn passes(&self, text: &str) -> bool {
        match self {
            Self::Equal(wanted) => text == wanted,
            Self::NotEqual(unwanted) => text != unwanted,
            Self::Like(pattern) => pattern.matches(text),
            Self::In(list) => among(list, text),
            Self::NotIn(list) => !among(list, text),
        }
    }

    /// The same test with every text in it replaced; patterns stay.
    pub(crate) fn try_map(self, mut each: impl FnMut(String) -> Result<String>) -> Result<Self> {
        let mut all = |list: Vec<String>| -> Result<Vec<String>> {
            let mut list = list.into_iter().map(&mut each).collect::<Result<Vec<_>>>()?;
            list.sort_unstable();
            Ok(list)
        };
        Ok(match self {
            Self::In(list) => Self::In(all(list)?),
            Self::NotIn(list) => Self::NotIn(all(list)?),
            Self::Equal(text) => Self::Equal(each(text)?),
            Self::NotEqual(text) => Self::NotEqual(each(text)?),
            Self::Like(pattern) => Self::Like(pattern),
        })
    }
}

fn among(sorted: &[String], text: &str) -> bool {
    sorted.binary_search_by(|item| item.as_str().cmp(text)).is_ok()
}

fn expected_text(what: &str, operand: &Operand<'_>) -> Error {
    Error::invalid(format!("Expected a quoted string value for {what}. Got value {}", clip(written(operand))))
}

/// The text a token stands for, quotes removed; nothing inside them is an escape.
fn text_of<'a>(token: &Token<'a>) -> Result<&'a str> {
    let inner = ['\'', '"'].into_iter().find_map(|quote| token.text.strip_prefix(quote)?.strip_suffix(quote));
    inner.ok_or_else(|| {
        Error::invalid(format!(
            "Parameter value is either not quoted or unidentified quote types used for string value {}. Use either \
             single or double quotes.",
            clip(token.text)
        ))
    })
}

/// The texts of a list, sorted.
fn list_of(whole: &str, tokens: &[Token<'_>]) -> Result<Vec<String>> {
    let refuse = |why: &str| Error::invalid(format!("While parsing a list in the query, expected {why}"));
    if tokens.is_empty() {
        return Err(refuse("a non-empty list of string values, but got empty list"));
    }
    let mut texts = Vec::with_capacity(tokens.len() / 2 + 1);
    for (at, token) in tokens.iter().enumerate() {
        match (at % 2, token.kind) {
            (0, Kind::Text | Kind::Word) => texts.push(
                text_of(token)
                    .map(str::to_owned)
                    .map_err(|_| refuse("a non-empty list of string values, but got ill-formed list."))?,
            ),
            (0, Kind::Number) => {
                let why = "string value, punctuation, or whitespace, but got different type in list:";
                return Err(refuse(&format!("{why} {}", clip(whole))));
            }
            (1, Kind::Comma) => {}
            _ => return Err(refuse("a non-empty list of string values, but got ill-formed list.")),
        }
    }
    texts.sort_unstable();
    texts.dedup();
    Ok(texts)
}

/// A number as a filter states it: integers exactly, where they fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// Digits only.
    Integer(i64),
    /// With a point or an exponent, or beyond 64 bits.
    Real(f64),
}

impl Number {
    /// Reads a number token; `what` names the entity in the refusal.
    pub(crate) fn new(comparison: &Comparison<'_>, what: &str) -> Result<Self> {
        let parsed = match comparison.operand {
            Operand::One(token) if token.kind == Kind::Number => match token.text.parse::<i64>() {
                Ok(integer) => Some(Self::Integer(integer)),
                Err(_) => token.text.parse::<f64>().ok().map(Self::Real),
            },
            _ => None,
        };
        parsed.ok_or_else(|| {
            let found = written(&comparison.operand);
            Error::invalid(format!("Expected numeric value type for {what}. Found {}", clip(found)))
        })
    }

    /// As the metrics' type.
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Real(real) => real,
        }
    }

    /// How an integer compares to it, exactly; none only for NaN.
    pub(crate) fn compare(self, integer: i64) -> Option<Ordering> {
        match self {
            Self::Integer(wanted) => Some(integer.cmp(&wanted)),
            // Every integral f64 in (-2^63, 2^63) is an i64; past that the sign decides.
            Self::Real(real) if real >= 9_223_372_036_854_775_808.0 => Some(Ordering::Less),
            Self::Real(real) if real < -9_223_372_036_854_775_808.0 => Some(Ordering::Greater),
            Self::Real(real) if real.is_nan() => None,
            Self::Real(real) => {
                let below = real.floor();
                let fraction = if real > below { Ordering::Less } else { Ordering::Equal };
                Some(integer.cmp(&(below as i64)).then(fraction))
            }
        }
    }
}

/// Which results of a numeric comparison pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    less: bool,
    equal: bool,
    greater: bool,
}

impl Passing {
    /// What a comparator lets pass.
    pub(crate) fn new(comparator: &Comparator) -> Result<Self> {
        check_comparator(comparator, NUMERIC)?;
        let (less, equal, greater) = match comparator {
            Comparator::NotEqual => (true, false, true),
            Comparator::Greater => (false, false, true),
            Comparator::GreaterEqual => (false, true, true),
            Comparator::Less => (true, false, false),
            Comparator::LessEqual => (true, true, false),
            _ => (false, true, false),
        };
        Ok(Self { less, equal, greater })
    }

    /// Whether a result passes; none (NaN) is unequal to everything, and nothing else.
    pub(crate) fn passes(self, result: Option<Ordering>) -> bool {
        match result {
            Some(Ordering::Less) => self.less,
            Some(Ordering::Equal) => self.equal,
            Some(Ordering::Greater) => self.greater,
            None => self.less && self.greater && !self.equal,
        }
    }
}

/// A test of a param or a tag: a text that may be missing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum KeyedTest {
    /// `IS NULL`
    Missing,
    /// `IS NOT NULL`
    Present,
    /// Present, and passing.
    Text(TextTest),
}

impl KeyedTest {
    /// Makes the test; `entity` is "parameter" or "tag".
    pub(crate) fn new(comparison: &Comparison<'_>, entity: &str) -> Result<Self> {
        match comparison.comparator {
            Comparator::IsNull => Ok(Self::Missing),
            Comparator::IsNotNull => Ok(Self::Present),
            _ => {
                TextTest::new(comparison, KEYED, &format!("{entity} (e.g. 'my-value')"), None).map(Self::Text)
            }
        }
    }

    /// Whether a value passes.
    pub(crate) fn passes(&self, value: Option<&str>) -> bool {
        match self {
            Self::Missing => value.is_none(),
            Self::Present => value.is_some(),
            Self::Text(test) => value.is_some_and(|text| test.passes(text)),
        }
    }
}
