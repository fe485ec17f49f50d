//! `order_by` of searches: keys, ties, and where missing values go.
//!
//! Contract: every order is total over entities with distinct ids, and it is MLflow's. Runs: the given keys, then
//! `start_time DESC`, then `run_id ASC`. Experiments: `creation_time DESC, experiment_id ASC` if nothing is given, else
//! the given keys, then `experiment_id DESC`. Registered models: the given keys, then `name ASC`. Versions:
//! `last_updated_timestamp DESC` or the given keys, then `name ASC, version_number DESC`. In both directions values
//! come first, then NaN, then what is missing. Infinities are values, -0.0 equals 0.0, texts compare by code point,
//! experiment ids as numbers.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::limits::{FILTER_BYTES_MAX, ORDER_BY_KEYS_MAX};

use super::grammar::{
    Dialect, ExperimentAttribute, ExperimentFields, ExperimentText, ExperimentTime, Identifier, Kind,
    RegistryAttribute, RegistryEntity, RegistryFields, RegistryNumber, RegistryText, RunAttribute, RunEntity,
    RunFields, RunText, RunTime, clip, compare_experiment_ids, experiment_attribute_named,
    registry_order_attribute, run_attribute_named, run_entity_named, tokens,
};

/// What one key of an order sees of an entity.
#[derive(Clone, Debug)]
pub(crate) enum SortKey<'a> {
    Real(f64),
    Integer(i64),
    Text(Cow<'a, str>),
    ExperimentId(Cow<'a, str>),
    Nan,
    Missing,
}

impl SortKey<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::Real(_) | Self::Integer(_) | Self::Text(_) | Self::ExperimentId(_) => 0,
            Self::Nan => 1,
            Self::Missing => 2,
        }
    }

    /// Both come from the same key, so values are of one kind.
    fn compare(&self, other: &Self, descending: bool) -> Ordering {
        let values = match (self, other) {
            (Self::Real(a), Self::Real(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::ExperimentId(a), Self::ExperimentId(b)) => compare_experiment_ids(a, b),
            _ => return self.rank().cmp(&other.rank()),
        };
        if descending { values.reverse() } else { values }
    }
}

/// How entities of one kind are ordered, for [`select`](super::page::select).
pub(crate) trait Order<T> {
    /// The number of keys; at least 1.
    fn len(&self) -> usize;
    /// What the key at `index` sees.
    fn key<'a>(&self, index: usize, item: &'a T) -> SortKey<'a>;
    /// Whether the key at `index` sorts downwards.
    fn descending(&self, index: usize) -> bool;

    /// The order of two items whose first keys are known.
    fn compare_from_first(&self, a: (&SortKey<'_>, &T), b: (&SortKey<'_>, &T)) -> Ordering {
        let first = a.0.compare(b.0, self.descending(0));
        (1..self.len()).fold(first, |so_far, index| {
            so_far.then_with(|| self.key(index, a.1).compare(&self.key(index, b.1), self.descending(index)))
        })
    }
}

/// One `key [ASC|DESC]`: the identifier and whether it sorts downwards.
pub(super) fn parse_key(text: &str, dialect: Dialect) -> Result<(Identifier<'_>, bool)> {
    let unparsable =
        || Error::invalid(format!("Invalid order_by clause '{}'. Could not be parsed.", clip(text)));
    if text.len() > FILTER_BYTES_MAX {
        return Err(unparsable());
    }
    let tokens = tokens(text);
    let (key, direction) = match tokens.as_slice() {
        [key] => (key, None),
        [key, direction] if direction.kind == Kind::Word => (key, Some(direction)),
        _ => return Err(unparsable()),
    };
    let descending = match direction {
        None => false,
        Some(word) if word.is_keyword("ASC") => false,
        Some(word) if word.is_keyword("DESC") => true,
        Some(_) => {
            return Err(Error::invalid(format!("Invalid ordering key in order_by clause '{}'.", clip(text))));
        }
    };
    match (key.kind, dialect) {
        (Kind::Word, _) | (Kind::WideWord, Dialect::Extended) => {
            Ok((Identifier::split(key.text), descending))
        }
        _ => Err(unparsable()),
    }
}

pub(super) fn check_count(keys: usize) -> Result<()> {
    if keys > ORDER_BY_KEYS_MAX {
        return Err(Error::invalid(format!(
            "Invalid order_by: it has {keys} keys, at most {ORDER_BY_KEYS_MAX} are allowed"
        )));
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq)]
enum RunKey {
    Metric(String),
    Param(String),
    Tag(String),
    Text(RunText),
    Time(RunTime),
}

/// The order of runs.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOrder(Vec<(RunKey, bool)>);

impl RunOrder {
    /// Parses a list of `key [ASC|DESC]`; an empty list is the default order. A key that comes again changes
    /// nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with MLflow's words.
    pub fn parse(keys: &[impl AsRef<str>], dialect: Dialect) -> Result<Self> {
        check_count(keys.len())?;
        let mut parsed = Vec::with_capacity(keys.len() + 2);
        for text in keys {
            let (identifier, descending) = parse_key(text.as_ref(), dialect)?;
            let owned = || identifier.key.to_owned();
            let key = match run_entity_named(identifier.entity)? {
                RunEntity::Metric => RunKey::Metric(owned()),
                RunEntity::Param => RunKey::Param(owned()),
                RunEntity::Tag => RunKey::Tag(owned()),
                RunEntity::Attribute => match run_attribute_named(identifier.key, false)? {
                    RunAttribute::Text(attribute) => RunKey::Text(attribute),
                    RunAttribute::Time(attribute) => RunKey::Time(attribute),
                },
                RunEntity::Dataset => return Err(Error::invalid("Invalid order_by entity type 'dataset'")),
            };
            parsed.push((key, descending));
        }
        if !parsed.iter().any(|(key, _)| *key == RunKey::Time(RunTime::Start)) {
            parsed.push((RunKey::Time(RunTime::Start), true));
        }
        parsed.push((RunKey::Text(RunText::Id), false));
        Ok(Self(parsed))
    }

    /// The order of two runs.
    pub fn compare<T: RunFields>(&self, a: &T, b: &T) -> Ordering {
        self.compare_from_first((&self.key(0, a), a), (&self.key(0, b), b))
    }
}

impl Default for RunOrder {
    fn default() -> Self {
        Self(vec![(RunKey::Time(RunTime::Start), true), (RunKey::Text(RunText::Id), false)])
    }
}

impl<T: RunFields> Order<T> for RunOrder {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn descending(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|(_, descending)| *descending)
    }

    fn key<'a>(&self, index: usize, run: &'a T) -> SortKey<'a> {
        let value = self.0.get(index).and_then(|(key, _)| match key {
            RunKey::Metric(key) => {
                run.metric(key).map(|value| if value.is_nan() { SortKey::Nan } else { SortKey::Real(value) })
            }
            RunKey::Param(key) => run.param(key).map(|text| SortKey::Text(Cow::Borrowed(text))),
            RunKey::Tag(key) => run.tag(key).map(|text| SortKey::Text(Cow::Borrowed(text))),
            RunKey::Text(attribute) => run.text(*attribute).map(SortKey::Text),
            RunKey::Time(attribute) => run.time(*attribute).map(SortKey::Integer),
        });
        value.unwrap_or(SortKey::Missing)
    }
}

/// The order of experiments.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentOrder(Vec<(ExperimentAttribute, bool)>);

impl ExperimentOrder {
    /// Parses a list of `key [ASC|DESC]`; an empty list is the default order.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with MLflow's words.
    pub fn parse(keys: &[impl AsRef<str>], dialect: Dialect) -> Result<Self> {
        check_count(keys.len())?;
        if keys.is_empty() {
            return Ok(Self::default());
        }
        let mut parsed = Vec::with_capacity(keys.len() + 1);
        for text in keys {
            let (identifier, descending) = parse_key(text.as_ref(), dialect)?;
            match experiment_attribute_named(identifier)? {
                Some(attribute) => parsed.push((attribute, descending)),
                None => return Err(Error::invalid("Invalid order_by entity: tag")),
            }
        }
        parsed.push((ExperimentAttribute::Text(ExperimentText::Id), true));
        Ok(Self(parsed))
    }

    /// The order of two experiments.
    pub fn compare<T: ExperimentFields>(&self, a: &T, b: &T) -> Ordering {
        self.compare_from_first((&self.key(0, a), a), (&self.key(0, b), b))
    }
}

impl Default for ExperimentOrder {
    fn default() -> Self {
        Self(vec![
            (ExperimentAttribute::Time(ExperimentTime::Created), true),
            (ExperimentAttribute::Text(ExperimentText::Id), false),
        ])
    }
}

impl<T: ExperimentFields> Order<T> for ExperimentOrder {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn descending(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|(_, descending)| *descending)
    }

    fn key<'a>(&self, index: usize, experiment: &'a T) -> SortKey<'a> {
        let value = self.0.get(index).and_then(|(key, _)| match key {
            ExperimentAttribute::Text(ExperimentText::Id) => {
                experiment.text(ExperimentText::Id).map(SortKey::ExperimentId)
            }
            ExperimentAttribute::Text(attribute) => experiment.text(*attribute).map(SortKey::Text),
            ExperimentAttribute::Time(attribute) => experiment.time(*attribute).map(SortKey::Integer),
        });
        value.unwrap_or(SortKey::Missing)
    }
}

/// The order of registered models or of versions.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryOrder(Vec<(RegistryAttribute, bool)>);

impl RegistryOrder {
    /// Parses a list of `key [ASC|DESC]`; an empty list is the default order. A key that comes again changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with MLflow's words.
    pub fn parse(keys: &[impl AsRef<str>], of: RegistryEntity, dialect: Dialect) -> Result<Self> {
        check_count(keys.len())?;
        let mut parsed = Vec::with_capacity(keys.len() + 3);
        for text in keys {
            let (identifier, descending) = parse_key(text.as_ref(), dialect)?;
            parsed.push((registry_order_attribute(identifier, of)?, descending));
        }
        if keys.is_empty() && of == RegistryEntity::Version {
            parsed.push((RegistryAttribute::Number(RegistryNumber::Updated), true));
        }
        parsed.push((RegistryAttribute::Text(RegistryText::Name), false));
        parsed.push((RegistryAttribute::Number(RegistryNumber::Version), true));
        Ok(Self(parsed))
    }
}

impl<T: RegistryFields> Order<T> for RegistryOrder {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn descending(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|(_, descending)| *descending)
    }

    fn key<'a>(&self, index: usize, entity: &'a T) -> SortKey<'a> {
        let value = self.0.get(index).and_then(|(key, _)| match key {
            RegistryAttribute::Text(attribute) => entity.text(*attribute).map(SortKey::Text),
            RegistryAttribute::Number(attribute) => entity.number(*attribute).map(SortKey::Integer),
        });
        value.unwrap_or(SortKey::Missing)
    }
}
