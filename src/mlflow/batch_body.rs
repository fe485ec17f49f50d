//! The body of a `log-batch` request.
//!
//! Contract: read straight into lists, without a tree of JSON values between; what is past MLflow's limits is counted,
//! not kept, so memory follows from the limits. What is of the wrong type is kept as it is, for the refusal.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::request::{self, wrong_type};
use crate::limits::BATCH_METRICS_MAX;

/// Items of a value of the wrong type that its refusal names.
const SHOWN_ITEMS_MAX: usize = 20;

/// A value of a request: not there, read, or of the wrong type.
#[derive(Clone, Debug, Default)]
pub(super) enum Given<T> {
    #[default]
    Missing,
    Read(T),
    Wrong(Value),
}

impl<T> Given<T> {
    /// What was read, if anything was.
    pub(super) fn read(self, name: &str) -> Result<Option<T>, Failure> {
        match self {
            Self::Missing => Ok(None),
            Self::Read(value) => Ok(Some(value)),
            Self::Wrong(value) => Err(wrong_type(name, &value)),
        }
    }
}

#[derive(Default)]
pub(super) struct MetricItem<'de> {
    pub(super) key: Given<Cow<'de, str>>,
    pub(super) value: Given<f64>,
    pub(super) timestamp: Given<i64>,
    pub(super) step: Given<i64>,
    pub(super) model_id: Given<Cow<'de, str>>,
    pub(super) dataset_name: Given<Cow<'de, str>>,
    pub(super) dataset_digest: Given<Cow<'de, str>>,
}

#[derive(Default)]
pub(super) struct PairItem<'de> {
    pub(super) key: Given<Cow<'de, str>>,
    pub(super) value: Given<Cow<'de, str>>,
}

/// A list: the items up to its limit, and how many there were.
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    pub(super) count: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), count: 0 }
    }
}

#[derive(Default)]
pub(super) struct Batch<'de> {
    pub(super) run_id: Given<Cow<'de, str>>,
    pub(super) run_uuid: Given<Cow<'de, str>>,
    /// `runId`, which alone is not enough for MLflow.
    pub(super) is_camel: bool,
    pub(super) metrics: Given<List<Given<MetricItem<'de>>>>,
    pub(super) params: Given<List<Given<PairItem<'de>>>>,
    pub(super) tags: Given<List<Given<PairItem<'de>>>>,
}

/// Reads one JSON value of a kind; anything else is kept as what it is.
pub(super) trait Read<'de>: Sized {
    fn of_text(text: Cow<'de, str>) -> Given<Self> {
        Given::Wrong(Value::from(&*text))
    }
    fn of_flag(_: bool) -> Option<Self> {
        None
    }
    fn of_integer(_: i64) -> Option<Self> {
        None
    }
    fn of_unsigned(_: u64) -> Option<Self> {
        None
    }
    fn of_float(_: f64) -> Option<Self> {
        None
    }
    fn of_list<A: SeqAccess<'de>>(_: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(None)
    }
    fn of_object<A: MapAccess<'de>>(_: &mut A) -> Result<Option<Self>, A::Error> {
        Ok(None)
    }
}

struct Seed<T>(std::marker::PhantomData<T>);

impl<T> Seed<T> {
    const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<'de, T: Read<'de>> DeserializeSeed<'de> for Seed<T> {
    type Value = Given<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Given<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Read<'de>> Visitor<'de> for Seed<T> {
    type Value = Given<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Given<T>, E> {
        Ok(Given::Missing)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Given<T>, E> {
        Ok(T::of_flag(flag).map_or_else(|| Given::Wrong(Value::from(flag)), Given::Read))
    }

    fn visit_i64<E>(self, integer: i64) -> Result<Given<T>, E> {
        Ok(T::of_integer(integer).map_or_else(|| Given::Wrong(Value::from(integer)), Given::Read))
    }

    fn visit_u64<E: serde::de::Error>(self, integer: u64) -> Result<Given<T>, E> {
        match i64::try_from(integer) {
            Ok(integer) => self.visit_i64(integer),
            Err(_) => {
                Ok(T::of_unsigned(integer).map_or_else(|| Given::Wrong(Value::from(integer)), Given::Read))
            }
        }
    }

    fn visit_f64<E>(self, real: f64) -> Result<Given<T>, E> {
        Ok(T::of_float(real).map_or_else(|| Given::Wrong(Value::from(real)), Given::Read))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Given<T>, E> {
        Ok(T::of_text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Given<T>, E> {
        Ok(T::of_text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Given<T>, A::Error> {
        if let Some(read) = T::of_list(&mut list)? {
            return Ok(Given::Read(read));
        }
        let mut shown = Vec::new();
        while shown.len() < SHOWN_ITEMS_MAX
            && let Some(item) = list.next_element()?
        {
            shown.push(item);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Given::Wrong(Value::Array(shown)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Given<T>, A::Error> {
        if let Some(read) = T::of_object(&mut object)? {
            return Ok(Given::Read(read));
        }
        let mut shown = Map::new();
        while shown.len() < SHOWN_ITEMS_MAX
            && let Some((name, item)) = object.next_entry()?
        {
            shown.insert(name, item);
        }
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Given::Wrong(Value::Object(shown)))
    }
}

impl<'de> Read<'de> for Cow<'de, str> {
    fn of_text(text: Cow<'de, str>) -> Given<Self> {
        // An empty text is as good as none.
        if text.is_empty() { Given::Missing } else { Given::Read(text) }
    }
}

impl Read<'_> for f64 {
    fn of_text(text: Cow<'_, str>) -> Given<Self> {
        if text.is_empty() {
            return Given::Missing;
        }
        request::float_of_text(&text).map_or_else(|| Given::Wrong(Value::from(&*text)), Given::Read)
    }

    fn of_flag(flag: bool) -> Option<Self> {
        Some(f64::from(u8::from(flag)))
    }

    fn of_integer(integer: i64) -> Option<Self> {
        Some(integer as f64)
    }

    fn of_unsigned(integer: u64) -> Option<Self> {
        Some(integer as f64)
    }

    fn of_float(real: f64) -> Option<Self> {
        Some(real)
    }
}

impl Read<'_> for i64 {
    fn of_text(text: Cow<'_, str>) -> Given<Self> {
        if text.is_empty() {
            return Given::Missing;
        }
        text.parse().map_or_else(|_| Given::Wrong(Value::from(&*text)), Given::Read)
    }

    fn of_integer(integer: i64) -> Option<Self> {
        Some(integer)
    }

    fn of_float(real: f64) -> Option<Self> {
        request::integer(&Value::from(real))
    }
}

impl<'de> Read<'de> for MetricItem<'de> {
    fn of_object<A: MapAccess<'de>>(object: &mut A) -> Result<Option<Self>, A::Error> {
        let mut item = Self::default();
        while let Some(name) = object.next_key::<Cow<'de, str>>()? {
            match &*name {
                "key" => item.key = object.next_value_seed(Seed::new())?,
                "value" => item.value = object.next_value_seed(Seed::new())?,
                "timestamp" => item.timestamp = object.next_value_seed(Seed::new())?,
                "step" => item.step = object.next_value_seed(Seed::new())?,
                "model_id" | "modelId" => item.model_id = object.next_value_seed(Seed::new())?,
                "dataset_name" | "datasetName" => item.dataset_name = object.next_value_seed(Seed::new())?,
                "dataset_digest" | "datasetDigest" => {
                    item.dataset_digest = object.next_value_seed(Seed::new())?;
                }
                _ => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(item))
    }
}

impl<'de> Read<'de> for PairItem<'de> {
    fn of_object<A: MapAccess<'de>>(object: &mut A) -> Result<Option<Self>, A::Error> {
        let mut item = Self::default();
        while let Some(name) = object.next_key::<Cow<'de, str>>()? {
            match &*name {
                "key" => item.key = object.next_value_seed(Seed::new())?,
                "value" => item.value = object.next_value_seed(Seed::new())?,
                _ => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(item))
    }
}

impl<'de, T: Read<'de>> Read<'de> for List<Given<T>> {
    fn of_list<A: SeqAccess<'de>>(list: &mut A) -> Result<Option<Self>, A::Error> {
        let mut read = Self::default();
        // The greatest of the limits: what is beyond is refused, whatever it says.
        while read.items.len() < BATCH_METRICS_MAX {
            match list.next_element_seed(Seed::<T>::new())? {
                Some(item) => read.items.push(item),
                None => break,
            }
        }
        read.count = read.items.len();
        if read.count == BATCH_METRICS_MAX {
            while list.next_element::<IgnoredAny>()?.is_some() {
                read.count += 1;
            }
        }
        Ok(Some(read))
    }
}

impl<'de> Read<'de> for Batch<'de> {
    fn of_object<A: MapAccess<'de>>(object: &mut A) -> Result<Option<Self>, A::Error> {
        let mut batch = Self::default();
        while let Some(name) = object.next_key::<Cow<'de, str>>()? {
            match &*name {
                "run_id" => batch.run_id = object.next_value_seed(Seed::new())?,
                "run_uuid" => batch.run_uuid = object.next_value_seed(Seed::new())?,
                "metrics" => batch.metrics = object.next_value_seed(Seed::new())?,
                "params" => batch.params = object.next_value_seed(Seed::new())?,
                "tags" => batch.tags = object.next_value_seed(Seed::new())?,
                other => {
                    batch.is_camel |= other == "runId";
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(batch))
    }
}

/// Reads a body; one that is no JSON object is an empty batch, as in MLflow.
pub(super) fn read(body: &[u8]) -> Batch<'_> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Seed::<Batch<'_>>::new().deserialize(&mut deserializer);
    match (read, deserializer.end()) {
        (Ok(Given::Read(batch)), Ok(())) => batch,
        _ => Batch::default(),
    }
}
