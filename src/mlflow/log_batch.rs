//! Many metrics, params and tags of a run in one request: all of it or nothing.
//!
//! Contract: the body is read straight into columns, without a tree of JSON values between; what is past MLflow's
//! limits is counted, not kept, so memory follows from the limits. Values that MLflow's reading would take are taken
//! (integers and floats as texts, bare `NaN`), what it would refuse is refused in its words.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::answer::done;
use super::failure::Failure;
use super::request::{self, Call, quote_bare_numbers, wrong_type};
use super::routes::{Answered, Route};
use super::runs::{param_value, tag_value};
use crate::catalog::rules;
use crate::error::Error;
use crate::limits::{BATCH_METRICS_MAX, BATCH_PARAMS_MAX, BATCH_TAGS_MAX};
use crate::model::Point;
use crate::store::{Metric, Run};

pub(super) const ROUTES: &[Route] = &[Route::post("2.0/mlflow/runs/log-batch", log_batch)];

/// Items of a value of the wrong type that its refusal names.
const SHOWN_ITEMS_MAX: usize = 20;

/// A value of a request: not there, read, or of the wrong type.
#[derive(Clone, Debug, Default)]
enum Given<T> {
    #[default]
    Missing,
    Read(T),
    Wrong(Value),
}

impl<T> Given<T> {
    /// What was read, if anything was.
    fn read(self, name: &str) -> Result<Option<T>, Failure> {
        match self {
            Self::Missing => Ok(None),
            Self::Read(value) => Ok(Some(value)),
            Self::Wrong(value) => Err(wrong_type(name, &value)),
        }
    }
}

#[derive(Default)]
struct MetricItem<'de> {
    key: Given<Cow<'de, str>>,
    value: Given<f64>,
    timestamp: Given<i64>,
    step: Given<i64>,
    model_id: Given<Cow<'de, str>>,
    dataset_name: Given<Cow<'de, str>>,
    dataset_digest: Given<Cow<'de, str>>,
}

#[derive(Default)]
struct PairItem<'de> {
    key: Given<Cow<'de, str>>,
    value: Given<Cow<'de, str>>,
}

/// A list: the items up to its limit, and how many there were.
struct List<T> {
    items: Vec<T>,
    count: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), count: 0 }
    }
}

#[derive(Default)]
struct Batch<'de> {
    run_id: Given<Cow<'de, str>>,
    run_uuid: Given<Cow<'de, str>>,
    /// `runId`, which alone is not enough for MLflow.
    is_camel: bool,
    metrics: Given<List<Given<MetricItem<'de>>>>,
    params: Given<List<Given<PairItem<'de>>>>,
    tags: Given<List<Given<PairItem<'de>>>>,
}

/// Reads one JSON value of a kind; anything else is kept as what it is.
trait Read<'de>: Sized {
    fn of_text(_: Cow<'de, str>) -> Given<Self> {
        Given::Missing
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
    fn of_text(text: Cow<'de, str>) -> Given<Self> {
        Given::Wrong(Value::from(&*text))
    }

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
    fn of_text(text: Cow<'de, str>) -> Given<Self> {
        Given::Wrong(Value::from(&*text))
    }

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
    fn of_text(text: Cow<'de, str>) -> Given<Self> {
        Given::Wrong(Value::from(&*text))
    }

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
fn read(body: &[u8]) -> Batch<'_> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Seed::<Batch<'_>>::new().deserialize(&mut deserializer);
    match (read, deserializer.end()) {
        (Ok(Given::Read(batch)), Ok(())) => batch,
        _ => Batch::default(),
    }
}

fn log_batch(call: &Call<'_>) -> Answered {
    let quoted;
    let mut batch = read(call.body);
    if matches!((&batch.run_id, &batch.run_uuid), (Given::Missing, Given::Missing))
        && let Some(bytes) = quote_bare_numbers(call.body)
    {
        quoted = bytes;
        batch = read(&quoted);
    }
    let run_id = match (batch.run_id.read("run_id")?, batch.is_camel) {
        (Some(_), true) => {
            let message = "Request specifies both 'run_id' and 'runId'; provide only one of them.";
            return Err(Failure::invalid(message));
        }
        (Some(run), false) => Some(run),
        (None, _) => batch.run_uuid.read("run_uuid")?,
    };
    let Some(run_id) = run_id else { return Err(Failure::missing_param("run_id")) };

    let metrics = batch.metrics.read("metrics")?.unwrap_or_default();
    let params = batch.params.read("params")?.unwrap_or_default();
    let tags = batch.tags.read("tags")?.unwrap_or_default();
    let counts = (metrics.count, params.count, tags.count);
    let metrics = metrics_of(metrics)?;
    let params = pairs_of(params, "params", BATCH_PARAMS_MAX)?;
    let tags = pairs_of(tags, "tags", BATCH_TAGS_MAX)?;

    if !is_run_id(&run_id) {
        let shown = rules::json_text(&run_id);
        return Err(Failure::invalid(format!("Invalid value {shown} for parameter 'run_id' supplied.")));
    }
    for (at, metric) in metrics.iter().enumerate() {
        let Point { value, timestamp_ms, .. } = metric.point;
        // The path is for the refusal alone.
        if rules::metric_key(&metric.key, "").is_err() || timestamp_ms < 0 {
            let path = format!("metrics[{at}]");
            rules::metric_key(&metric.key, &path)?;
            rules::metric_timestamp(&metric.key, value, timestamp_ms, &path)?;
        }
    }
    let params: Vec<(&str, &str)> = params.iter().map(|(key, value)| (&**key, param_value(value))).collect();
    for (at, (key, value)) in params.iter().enumerate() {
        rules::param(key, value, &format!("params[{at}]"))?;
    }
    let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (&**key, tag_value(value))).collect();
    for (at, (key, value)) in tags.iter().enumerate() {
        rules::run_tag(key, value, &format!("tags[{at}]"))?;
    }
    rules::batch(counts.0, counts.1, counts.2)?;
    rules::params_unique(params.iter().map(|(key, _)| *key))?;

    let run = call.protocol.open_runs.get(call.store(), &run_id)?;
    run.log_batch(&metrics, &params, &tags).map_err(|error| match error {
        Error::InvalidState(text) => changed_params(&run, &params).unwrap_or_else(|| Failure::invalid(text)),
        other => other.into(),
    })?;
    done()
}

/// MLflow's `^[a-zA-Z0-9][\w\-]{0,255}$`.
fn is_run_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
        && id.chars().count() <= 256
}

fn metrics_of(list: List<Given<MetricItem<'_>>>) -> Result<Vec<Metric>, Failure> {
    let mut metrics = Vec::with_capacity(list.items.len());
    for (at, item) in list.items.into_iter().enumerate() {
        let name = |part: &str| format!("metrics[{at}].{part}");
        let missing = |part: &str| Failure::missing_param(&name(part));
        let (key, value, timestamp, step) = match item {
            // Most of them by far.
            Given::Read(MetricItem {
                key: Given::Read(key),
                value: Given::Read(value),
                timestamp: Given::Read(timestamp_ms),
                step: Given::Read(step),
                ..
            }) => (key, value, timestamp_ms, step),
            Given::Read(item) => (
                item.key.read(&name("key"))?.ok_or_else(|| missing("key"))?,
                item.value.read(&name("value"))?.ok_or_else(|| missing("value"))?,
                item.timestamp.read(&name("timestamp"))?.ok_or_else(|| missing("timestamp"))?,
                item.step.read(&name("step"))?.unwrap_or(0),
            ),
            Given::Missing => return Err(wrong_type(&format!("metrics[{at}]"), &Value::Null)),
            Given::Wrong(value) => return Err(wrong_type(&format!("metrics[{at}]"), &value)),
        };
        let point = Point { step, timestamp_ms: timestamp, value };
        metrics.push(Metric { key: key.into_owned(), point });
    }
    Ok(metrics)
}

type PairOf<'a> = (Cow<'a, str>, Cow<'a, str>);

fn pairs_of<'a>(
    list: List<Given<PairItem<'a>>>,
    what: &str,
    most: usize,
) -> Result<Vec<PairOf<'a>>, Failure> {
    let mut pairs = Vec::with_capacity(list.items.len().min(most));
    // One more than allowed is looked at, so that what is wrong with the others is told first, as in MLflow.
    for (at, item) in list.items.into_iter().enumerate() {
        let item = match item {
            Given::Read(item) => item,
            Given::Missing => return Err(wrong_type(&format!("{what}[{at}]"), &Value::Null)),
            Given::Wrong(value) => return Err(wrong_type(&format!("{what}[{at}]"), &value)),
        };
        let missing = || Failure::missing_param(&format!("{what}[{at}].key"));
        let key = item.key.read(&format!("{what}[{at}].key"))?.ok_or_else(missing)?;
        let value = item.value.read(&format!("{what}[{at}].value"))?.unwrap_or_default();
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// MLflow's refusal of params that have other values already, all of them at once.
fn changed_params(run: &Run, params: &[(&str, &str)]) -> Option<Failure> {
    let data = run.data().ok()?;
    let changed: Vec<String> = params
        .iter()
        .filter_map(|(key, new)| {
            let old = data.params.get(*key).filter(|old| old != new)?;
            let [key, old, new] = [key, old.as_str(), new].map(python_repr);
            Some(format!("{{'key': {key}, 'old_value': {old}, 'new_value': {new}}}"))
        })
        .collect();
    (!changed.is_empty()).then(|| {
        Failure::invalid(format!(
            "Changing param values is not allowed. Params were already logged='[{}]' for run ID='{}'.",
            changed.join(", "),
            run.id()
        ))
    })
}

/// Python's `repr` of a text.
fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut repr = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => repr.push_str("\\\\"),
            '\n' => repr.push_str("\\n"),
            '\r' => repr.push_str("\\r"),
            '\t' => repr.push_str("\\t"),
            c if c == quote => {
                repr.push('\\');
                repr.push(c);
            }
            c => repr.push(c),
        }
    }
    repr.push(quote);
    repr
}
