//! Runs: which keys a filter can name, and what they mean.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::RunData;

use super::Dialect;
use super::clause::{Identifier, KeyedTest, LISTED, Number, Passing, TEXT, TextTest, clip, invalid_key};
use super::expr::{self, Expr};
use super::group::{Comparator, Comparison};

/// Attributes of a run that are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunText {
    /// `run_id`
    Id,
    /// `run_name`
    Name,
    /// `status`, as MLflow spells it (`FINISHED`).
    Status,
    /// `user_id`
    User,
    /// `artifact_uri`
    ArtifactUri,
}

/// Attributes of a run that are points in time, milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunTime {
    /// `start_time`
    Start,
    /// `end_time`
    End,
}

/// What a filter and an order see of a run. A missing value is `None`.
pub trait RunFields {
    /// A text attribute.
    fn text(&self, attribute: RunText) -> Option<Cow<'_, str>>;
    /// A time attribute.
    fn time(&self, attribute: RunTime) -> Option<i64>;
    /// The latest value of a metric.
    fn metric(&self, key: &str) -> Option<f64>;
    /// A param.
    fn param(&self, key: &str) -> Option<&str>;
    /// A tag.
    fn tag(&self, key: &str) -> Option<&str>;
    /// Whether `test(name, digest, context)` holds for any data set input. The context is the input's tag
    /// `mlflow.data.context`.
    fn any_dataset(&self, test: &mut dyn FnMut(&str, &str, Option<&str>) -> bool) -> bool;
}

impl RunFields for RunData {
    /// An artifact URI that nobody gave is `None`: only the door that answers knows how to render it, and wraps the
    /// run if filters shall see that.
    fn text(&self, attribute: RunText) -> Option<Cow<'_, str>> {
        match attribute {
            RunText::Id => Some(Cow::Borrowed(&self.id)),
            RunText::Name => Some(Cow::Borrowed(&self.name)),
            RunText::Status => Some(Cow::Borrowed(self.status.as_str())),
            RunText::User => Some(Cow::Borrowed(&self.user)),
            RunText::ArtifactUri => self.artifact_uri.as_deref().map(Cow::Borrowed),
        }
    }

    fn time(&self, attribute: RunTime) -> Option<i64> {
        match attribute {
            RunTime::Start => self.start_ms,
            RunTime::End => self.end_ms,
        }
    }

    fn metric(&self, key: &str) -> Option<f64> {
        self.metrics.get(key).map(|point| point.value)
    }

    fn param(&self, key: &str) -> Option<&str> {
        self.params.get(key).map(String::as_str)
    }

    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.get(key).map(String::as_str)
    }

    fn any_dataset(&self, test: &mut dyn FnMut(&str, &str, Option<&str>) -> bool) -> bool {
        self.inputs.iter().any(|input| {
            let context = input.tags.get("mlflow.data.context").map(String::as_str);
            test(&input.dataset.name, &input.dataset.digest, context)
        })
    }
}

macro_rules! forward_run_fields {
    ($($pointer:ty),*) => {$(
        impl<T: RunFields + ?Sized> RunFields for $pointer {
            fn text(&self, attribute: RunText) -> Option<Cow<'_, str>> {
                T::text(self, attribute)
            }
            fn time(&self, attribute: RunTime) -> Option<i64> {
                T::time(self, attribute)
            }
            fn metric(&self, key: &str) -> Option<f64> {
                T::metric(self, key)
            }
            fn param(&self, key: &str) -> Option<&str> {
                T::param(self, key)
            }
            fn tag(&self, key: &str) -> Option<&str> {
                T::tag(self, key)
            }
            fn any_dataset(&self, test: &mut dyn FnMut(&str, &str, Option<&str>) -> bool) -> bool {
                T::any_dataset(self, test)
            }
        }
    )*};
}
forward_run_fields!(&T, Arc<T>);

/// What stands before the dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEntity {
    Metric,
    Param,
    Tag,
    Attribute,
    Dataset,
}

impl RunEntity {
    /// MLflow's name for it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Metric => "metric",
            Self::Param => "parameter",
            Self::Tag => "tag",
            Self::Attribute => "attribute",
            Self::Dataset => "dataset",
        }
    }
}

/// The entity an identifier names; without a dot it is an attribute.
pub(crate) fn entity_named(word: Option<&str>) -> Result<RunEntity> {
    Ok(match word {
        None | Some("attribute" | "attributes" | "attr" | "run") => RunEntity::Attribute,
        Some("metric" | "metrics") => RunEntity::Metric,
        Some("parameter" | "parameters" | "param" | "params") => RunEntity::Param,
        Some("tag" | "tags") => RunEntity::Tag,
        Some("dataset" | "datasets") => RunEntity::Dataset,
        Some(other) => {
            return Err(Error::invalid(format!(
                "Invalid entity type '{}'. Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']",
                clip(other)
            )));
        }
    })
}

/// An attribute that a filter or an order can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunAttribute {
    Text(RunText),
    Time(RunTime),
}

/// The attribute of a name; only filters know the aliases of the run name.
pub(crate) fn attribute_named(key: &str, filter: bool) -> Result<RunAttribute> {
    Ok(match key {
        "run_id" => RunAttribute::Text(RunText::Id),
        "run_name" => RunAttribute::Text(RunText::Name),
        "run name" | "Run name" | "Run Name" if filter => RunAttribute::Text(RunText::Name),
        "status" => RunAttribute::Text(RunText::Status),
        "user_id" => RunAttribute::Text(RunText::User),
        "artifact_uri" => RunAttribute::Text(RunText::ArtifactUri),
        "start_time" | "created" | "Created" => RunAttribute::Time(RunTime::Start),
        "end_time" => RunAttribute::Time(RunTime::End),
        _ => {
            let mut valid = vec![
                "artifact_uri",
                "created",
                "Created",
                "end_time",
                "run_id",
                "run_name",
                "start_time",
                "status",
                "user_id",
            ];
            if filter {
                valid.extend(["run name", "Run name", "Run Name"]);
            }
            return Err(invalid_key("attribute", key, &valid));
        }
    })
}

/// Which property of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DatasetKey {
    Name,
    Digest,
    Context,
}

/// One comparison about runs.
#[derive(Clone, Debug, PartialEq)]
enum RunClause {
    Metric(String, Passing, f64),
    Param(String, KeyedTest),
    Tag(String, KeyedTest),
    Text(RunText, TextTest),
    Time(RunTime, Passing, Number),
    Dataset(DatasetKey, TextTest),
}

impl RunClause {
    fn new(comparison: &Comparison<'_>, dialect: Dialect) -> Result<Self> {
        let Identifier { entity, key } = Identifier::new(&comparison.left, dialect)?;
        let entity = entity_named(entity)?;
        let attribute = match entity {
            RunEntity::Attribute => Some(attribute_named(key, true)?),
            _ => None,
        };
        let dataset = match (entity, key) {
            (RunEntity::Dataset, "name") => DatasetKey::Name,
            (RunEntity::Dataset, "digest") => DatasetKey::Digest,
            (RunEntity::Dataset, "context") => DatasetKey::Context,
            (RunEntity::Dataset, _) => {
                return Err(invalid_key("dataset", key, &["name", "digest", "context"]));
            }
            _ => DatasetKey::Name,
        };
        let about_null = matches!(comparison.comparator, Comparator::IsNull | Comparator::IsNotNull);
        if about_null && !matches!(entity, RunEntity::Param | RunEntity::Tag) {
            return Err(Error::invalid(format!(
                "IS NULL / IS NOT NULL is only supported for tags and params, not for '{}' '{}'",
                entity.as_str(),
                clip(key)
            )));
        }
        match (entity, attribute) {
            (_, Some(RunAttribute::Text(attribute))) => {
                // MLflow takes lists for run_id only.
                let (valid, no_list) = match attribute {
                    RunText::Id => (LISTED, None),
                    _ => (
                        TEXT,
                        Some(
                            "Only ['run_id'] attributes support comparison with a list of quoted string values.",
                        ),
                    ),
                };
                Ok(Self::Text(attribute, TextTest::new(comparison, valid, "attributes", no_list)?))
            }
            (_, Some(RunAttribute::Time(attribute))) => {
                let number = Number::new(comparison, &format!("numeric attribute: {}", clip(key)))?;
                Ok(Self::Time(attribute, Passing::new(&comparison.comparator)?, number))
            }
            (RunEntity::Metric, None) => {
                let number = Number::new(comparison, "metric")?;
                Ok(Self::Metric(key.to_owned(), Passing::new(&comparison.comparator)?, number.as_f64()))
            }
            (RunEntity::Tag, None) => Ok(Self::Tag(key.to_owned(), KeyedTest::new(comparison, "tag")?)),
            (RunEntity::Param, None) => {
                Ok(Self::Param(key.to_owned(), KeyedTest::new(comparison, "parameter")?))
            }
            (RunEntity::Dataset | RunEntity::Attribute, None) => {
                Ok(Self::Dataset(dataset, TextTest::new(comparison, LISTED, "dataset attributes", None)?))
            }
        }
    }

    fn holds(&self, run: &(impl RunFields + ?Sized)) -> bool {
        match self {
            Self::Metric(key, passing, wanted) => {
                run.metric(key).is_some_and(|value| passing.passes(value.partial_cmp(wanted)))
            }
            Self::Param(key, test) => test.passes(run.param(key)),
            Self::Tag(key, test) => test.passes(run.tag(key)),
            Self::Text(attribute, test) => run.text(*attribute).is_some_and(|text| test.passes(&text)),
            Self::Time(attribute, passing, wanted) => {
                run.time(*attribute).is_some_and(|time| passing.passes(wanted.compare(time)))
            }
            Self::Dataset(key, test) => run.any_dataset(&mut |name, digest, context| match key {
                DatasetKey::Name => test.passes(name),
                DatasetKey::Digest => test.passes(digest),
                DatasetKey::Context => context.is_some_and(|context| test.passes(context)),
            }),
        }
    }
}

/// A filter of runs, ready to be asked many times.
///
/// A comparison with a value that is missing does not hold, also with `!=`; only `IS NULL` holds for it. Under NOT
/// (extended dialect) it then holds: `NOT params.a = 'x'` includes runs without `a`, other than `params.a != 'x'`. NaN
/// is unequal to every number, and no other comparison holds for it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFilter(Expr<RunClause>);

impl RunFilter {
    /// Parses a filter; empty text lets every run pass.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with MLflow's words, also for texts over
    /// [`FILTER_BYTES_MAX`](crate::limits::FILTER_BYTES_MAX) and its neighbours.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self> {
        expr::parse(text, dialect, |comparison| RunClause::new(&comparison, dialect)).map(Self)
    }

    /// The filter that lets every run pass.
    pub const fn all() -> Self {
        Self(Expr::And(Vec::new()))
    }

    /// Whether a run passes.
    pub fn matches(&self, run: &(impl RunFields + ?Sized)) -> bool {
        self.0.holds(&|clause: &RunClause| clause.holds(run))
    }
}

impl Default for RunFilter {
    fn default() -> Self {
        Self::all()
    }
}
