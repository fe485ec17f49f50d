//! The order of logged models.
//!
//! Contract: as `order`: total, and MLflow's: the given keys, then `creation_timestamp DESC`, then `model_id ASC`. A
//! metric's value is the latest on the data set that its key names, or on those that the search is about.

use std::borrow::{Borrow, Cow};

use crate::error::{Error, Result};
use crate::limits::ORDER_BY_KEYS_MAX;
use crate::model::LoggedModel;

use super::grammar::{
    DatasetFilter, LoggedModelAttribute, LoggedModelText, LoggedModelTime, clip, latest_metric,
    logged_model_attribute_named, logged_model_text, logged_model_time,
};
use super::order::{Order, SortKey};

/// One key of an order of logged models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedModelOrderKey {
    /// An attribute, or `metrics.<key>`.
    pub field_name: String,
    /// Smallest first.
    pub ascending: bool,
    /// The data set that a metric was measured on; none for any.
    pub dataset: Option<DatasetFilter>,
}

#[derive(Clone, Debug, PartialEq)]
enum Key {
    Metric(String, Vec<DatasetFilter>),
    Attribute(LoggedModelAttribute),
}

/// The order of logged models.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedModelOrder(Vec<(Key, bool)>);

impl LoggedModelOrder {
    /// Reads a list of keys; `datasets` are those that the search is about.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with MLflow's words.
    pub fn new(keys: &[LoggedModelOrderKey], datasets: &[DatasetFilter]) -> Result<Self> {
        if keys.len() > ORDER_BY_KEYS_MAX {
            return Err(Error::invalid(format!(
                "Invalid order_by: it has {} keys, at most {ORDER_BY_KEYS_MAX} are allowed",
                keys.len()
            )));
        }
        let mut parsed = Vec::with_capacity(keys.len() + 2);
        for LoggedModelOrderKey { field_name, ascending, dataset } in keys {
            if dataset.as_ref().is_some_and(|dataset| dataset.name.is_empty()) {
                return Err(Error::invalid(
                    "`dataset_digest` can only be specified if `dataset_name` is also specified.",
                ));
            }
            let key = match field_name.split_once('.') {
                Some(("metrics", key)) => {
                    let of_key = dataset.as_ref().map(std::slice::from_ref);
                    Key::Metric(key.to_owned(), of_key.unwrap_or(datasets).to_vec())
                }
                Some((other, _)) => {
                    return Err(Error::invalid(format!(
                        "Invalid order by field name: {}, only `metrics.<name>` is allowed.",
                        clip(other)
                    )));
                }
                None => Key::Attribute(logged_model_attribute_named(field_name.trim()).map_err(|_| {
                    Error::invalid(format!("Invalid order by field name: {}.", clip(field_name.trim())))
                })?),
            };
            parsed.push((key, !ascending));
        }
        parsed.push((Key::Attribute(LoggedModelAttribute::Time(LoggedModelTime::Created)), true));
        parsed.push((Key::Attribute(LoggedModelAttribute::Text(LoggedModelText::Id)), false));
        Ok(Self(parsed))
    }
}

impl<T: Borrow<LoggedModel>> Order<T> for LoggedModelOrder {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn descending(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|(_, descending)| *descending)
    }

    fn key<'a>(&self, index: usize, model: &'a T) -> SortKey<'a> {
        let model = model.borrow();
        let value = self.0.get(index).and_then(|(key, _)| match key {
            Key::Metric(key, datasets) => latest_metric(model, key, datasets)
                .map(|value| if value.is_nan() { SortKey::Nan } else { SortKey::Real(value) }),
            Key::Attribute(LoggedModelAttribute::Text(attribute)) => {
                logged_model_text(model, *attribute).map(|text| SortKey::Text(Cow::Borrowed(text)))
            }
            Key::Attribute(LoggedModelAttribute::Time(attribute)) => {
                logged_model_time(model, *attribute).map(SortKey::Integer)
            }
        });
        value.unwrap_or(SortKey::Missing)
    }
}
