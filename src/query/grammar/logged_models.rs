//! Logged models: which keys a filter can name, and what they mean.
//!
//! Contract: a metric of a model has a latest value for each data set that it was measured on; a filter and an order
//! look at the latest of those on the data sets that the search is about, or of all.

use crate::error::{Error, Result};
use crate::model::{LoggedModel, LoggedModelMetric, LoggedModelStatus};

use super::Dialect;
use super::clause::{Identifier, LISTED, Number, Passing, TextTest, clip, invalid_key};
use super::expr::{self, Expr};
use super::group::{Comparator, Comparison};

/// A data set that metrics were measured on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetFilter {
    /// Its name.
    pub name: String,
    /// Its digest; none for any.
    pub digest: Option<String>,
}

impl DatasetFilter {
    fn has(&self, metric: &LoggedModelMetric) -> bool {
        metric.dataset.as_ref().is_some_and(|(name, digest)| {
            *name == self.name && self.digest.as_ref().is_none_or(|wanted| wanted == digest)
        })
    }
}

/// The latest value of a metric on any of these data sets, or on all if none is named: that of the greatest (step,
/// timestamp, value).
pub(crate) fn latest_metric(model: &LoggedModel, key: &str, datasets: &[DatasetFilter]) -> Option<f64> {
    let on_them = |metric: &&LoggedModelMetric| {
        metric.key == key && (datasets.is_empty() || datasets.iter().any(|dataset| dataset.has(metric)))
    };
    let metrics = model.metrics.iter().filter(on_them);
    let latest = metrics.max_by(|a, b| {
        let moment = |metric: &LoggedModelMetric| (metric.point.step, metric.point.timestamp_ms);
        moment(a).cmp(&moment(b)).then(a.point.value.total_cmp(&b.point.value))
    });
    latest.map(|metric| metric.point.value)
}

/// Attributes that are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoggedModelText {
    Id,
    Name,
    Type,
    Status,
    SourceRun,
}

/// Attributes that are points in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoggedModelTime {
    Created,
    Updated,
}

/// An attribute that a filter or an order can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoggedModelAttribute {
    Text(LoggedModelText),
    Time(LoggedModelTime),
}

/// A text attribute of a model.
pub(crate) fn text_of(model: &LoggedModel, attribute: LoggedModelText) -> Option<&str> {
    match attribute {
        LoggedModelText::Id => Some(&model.id),
        LoggedModelText::Name => Some(&model.name),
        LoggedModelText::Type => model.model_type.as_deref(),
        LoggedModelText::Status => Some(model.status.as_str()),
        LoggedModelText::SourceRun => model.source_run_id.as_deref(),
    }
}

/// A time attribute of a model.
pub(crate) fn time_of(model: &LoggedModel, attribute: LoggedModelTime) -> Option<i64> {
    match attribute {
        LoggedModelTime::Created => model.created_ms,
        LoggedModelTime::Updated => model.updated_ms,
    }
}

/// The attribute of a name.
pub(crate) fn attribute_named(key: &str) -> Result<LoggedModelAttribute> {
    Ok(match key {
        "model_id" => LoggedModelAttribute::Text(LoggedModelText::Id),
        "name" => LoggedModelAttribute::Text(LoggedModelText::Name),
        "model_type" => LoggedModelAttribute::Text(LoggedModelText::Type),
        "status" => LoggedModelAttribute::Text(LoggedModelText::Status),
        "source_run_id" => LoggedModelAttribute::Text(LoggedModelText::SourceRun),
        "creation_timestamp" | "creation_time" => LoggedModelAttribute::Time(LoggedModelTime::Created),
        "last_updated_timestamp" | "last_updated_time" => {
            LoggedModelAttribute::Time(LoggedModelTime::Updated)
        }
        _ => {
            let valid = [
                "creation_time",
                "creation_timestamp",
                "last_updated_time",
                "last_updated_timestamp",
                "model_id",
                "model_type",
                "name",
                "source_run_id",
                "status",
            ];
            return Err(invalid_key("attribute", key, &valid));
        }
    })
}

/// One comparison about logged models.
#[derive(Clone, Debug, PartialEq)]
enum LoggedModelClause {
    Metric(String, Passing, f64),
    Param(String, TextTest),
    Tag(String, TextTest),
    Text(LoggedModelText, TextTest),
    Time(LoggedModelTime, Passing, Number),
}

impl LoggedModelClause {
    fn new(comparison: &Comparison<'_>, dialect: Dialect) -> Result<Self> {
        let Identifier { entity, key } = Identifier::new(&comparison.left, dialect)?;
        if matches!(comparison.comparator, Comparator::IsNull | Comparator::IsNotNull) {
            return Err(Error::invalid("IS NULL / IS NOT NULL is not supported for logged model search."));
        }
        let text = |what: &str| TextTest::new(comparison, LISTED, what, None);
        match entity {
            Some("metrics" | "metric") => {
                let number = Number::new(comparison, "metric")?;
                Ok(Self::Metric(key.to_owned(), Passing::new(&comparison.comparator)?, number.as_f64()))
            }
            Some("params" | "param" | "parameters" | "parameter") => {
                Ok(Self::Param(key.to_owned(), text("parameter (e.g. 'my-value')")?))
            }
            Some("tags" | "tag") => Ok(Self::Tag(key.to_owned(), text("tag (e.g. 'my-value')")?)),
            None | Some("attributes" | "attribute" | "attr") => match attribute_named(key)? {
                LoggedModelAttribute::Time(attribute) => {
                    let number = Number::new(comparison, &format!("numeric attribute: {}", clip(key)))?;
                    Ok(Self::Time(attribute, Passing::new(&comparison.comparator)?, number))
                }
                LoggedModelAttribute::Text(LoggedModelText::Status) => {
                    let test = text("attributes")?;
                    if let TextTest::Like(_) = test {
                        let comparator = comparison.comparator.as_str();
                        return Err(Error::invalid(format!(
                            "Invalid comparison operator for status: {comparator}"
                        )));
                    }
                    let known = test.try_map(|status| match status.parse::<LoggedModelStatus>() {
                        Ok(status) => Ok(status.as_str().to_owned()),
                        Err(_) => Err(Error::invalid(format!("Unknown model status in filter: '{status}'"))),
                    })?;
                    Ok(Self::Text(LoggedModelText::Status, known))
                }
                LoggedModelAttribute::Text(attribute) => Ok(Self::Text(attribute, text("attributes")?)),
            },
            Some(other) => Err(Error::invalid(format!(
                "Invalid entity type: '{}'. Expected one of ['attributes', 'metrics', 'params', 'tags'].",
                clip(other)
            ))),
        }
    }

    fn holds(&self, model: &LoggedModel, datasets: &[DatasetFilter]) -> bool {
        match self {
            Self::Metric(key, passing, wanted) => latest_metric(model, key, datasets)
                .is_some_and(|value| passing.passes(value.partial_cmp(wanted))),
            Self::Param(key, test) => model.params.get(key).is_some_and(|param| test.passes(param)),
            Self::Tag(key, test) => model.tags.get(key).is_some_and(|tag| test.passes(tag)),
            Self::Text(attribute, test) => text_of(model, *attribute).is_some_and(|text| test.passes(text)),
            Self::Time(attribute, passing, wanted) => {
                time_of(model, *attribute).is_some_and(|time| passing.passes(wanted.compare(time)))
            }
        }
    }
}

/// A filter of logged models, ready to be asked many times. What is missing passes no comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedModelFilter {
    expression: Expr<LoggedModelClause>,
    datasets: Vec<DatasetFilter>,
    has_metrics: bool,
}

impl LoggedModelFilter {
    /// Parses a filter about models measured on these data sets, or on any; empty text lets every such model pass.
    ///
    /// # Errors
    /// As [`RunFilter::parse`](super::RunFilter::parse).
    pub fn parse(text: &str, datasets: &[DatasetFilter], dialect: Dialect) -> Result<Self> {
        if datasets.iter().any(|dataset| dataset.name.is_empty()) {
            return Err(Error::invalid("`dataset_name` in the `datasets` clause must be specified."));
        }
        let mut has_metrics = false;
        let expression = expr::parse(text, dialect, |comparison| {
            let clause = LoggedModelClause::new(&comparison, dialect)?;
            has_metrics |= matches!(clause, LoggedModelClause::Metric(..));
            Ok(clause)
        })?;
        Ok(Self { expression, datasets: datasets.to_vec(), has_metrics })
    }

    /// Whether a model passes.
    pub fn matches(&self, model: &LoggedModel) -> bool {
        let is_measured =
            || model.metrics.iter().any(|metric| self.datasets.iter().any(|dataset| dataset.has(metric)));
        (self.datasets.is_empty() || self.has_metrics || is_measured())
            && self.expression.holds(&|clause: &LoggedModelClause| clause.holds(model, &self.datasets))
    }
}
