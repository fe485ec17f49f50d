//! Metrics of logged models: logged by runs, kept for run and model, each with the data set they were measured on.
//!
//! Contract: a point of a model is a point of the run that logged it and one of the model, both in one write. What does
//! not fit a live record (which run, which data set) is a column beside the points, as MLflow's files have it behind
//! the step, so these points go to a batch at once.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::catalog::{changes, rules};
use crate::codec::extra::Extra;
use crate::error::Result;
use crate::format::declare::{OwnerKind, SeriesKey};
use crate::format::event::Field;
use crate::id::Uid;
use crate::limits::COLUMN_POINTS_MAX;
use crate::log::{BulkColumn, SeriesNumber};
use crate::mlruns::{self, EXTRA_TAIL, ExtraColumn};
use crate::model::{LoggedModelMetric, Point};
use crate::query::history::{HistoryStream, PointFilter};
use crate::query::snapshot::Snapshot;
use crate::store::state::Want;
use crate::store::{Inner, Metric, Run};

/// A metric that says what it was measured on.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelMetric {
    /// Key and point.
    pub metric: Metric,
    /// The logged model that was measured.
    pub model_id: Option<String>,
    /// Name and digest of the data set that it was measured on.
    pub dataset: Option<(String, String)>,
}

impl From<Metric> for ModelMetric {
    fn from(metric: Metric) -> Self {
        Self { metric, model_id: None, dataset: None }
    }
}

/// What follows the step in MLflow's files: the run, of a model's metric, and name and digest of the data set.
fn tail(run_id: Option<&str>, dataset: Option<&(String, String)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut word = |word: &str| {
        out.push(b' ');
        out.extend_from_slice(word.as_bytes());
    };
    run_id.into_iter().for_each(&mut word);
    if let Some((name, digest)) = dataset {
        word(name);
        word(digest);
    }
    out
}

/// The run, and the data set, of a model's metric. Names of data sets may have blanks in them, ids and digests have
/// none.
fn read_tail(tail: &[u8]) -> (Option<String>, Option<(String, String)>) {
    let text = String::from_utf8_lossy(tail);
    let text = text.trim();
    let (run, dataset) = text.split_once(' ').unwrap_or((text, ""));
    let run = (!run.is_empty()).then(|| run.to_owned());
    (run, dataset.rsplit_once(' ').map(|(name, digest)| (name.to_owned(), digest.to_owned())))
}

/// The points of one series, with the column beside them.
struct Column {
    series: SeriesNumber,
    steps: Vec<i64>,
    timestamps_ms: Vec<i64>,
    values: Vec<f64>,
    tails: ExtraColumn,
    extras: Vec<Extra>,
}

/// The columns of one call, by series.
#[derive(Default)]
struct Columns(BTreeMap<(u8, Uid, String), Column>);

impl Columns {
    fn push(&mut self, inner: &Inner, series: SeriesKey, point: Point, tail: Vec<u8>) -> Result<()> {
        let key = (series.owner.0, series.run, series.key.to_string());
        let column = match self.0.entry(key) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Column {
                series: inner.writer()?.series(&series)?,
                steps: Vec::new(),
                timestamps_ms: Vec::new(),
                values: Vec::new(),
                tails: ExtraColumn::default(),
                extras: Vec::new(),
            }),
        };
        if !tail.is_empty() {
            column.tails.set(column.values.len(), tail);
        }
        column.steps.push(point.step);
        column.timestamps_ms.push(point.timestamp_ms);
        column.values.push(point.value);
        Ok(())
    }

    fn finish(&mut self) {
        for column in self.0.values_mut() {
            column.extras = column.tails.take(EXTRA_TAIL, column.values.len()).into_iter().collect();
        }
    }

    fn bulk(&self) -> Vec<BulkColumn<'_>> {
        self.0.values().map(Column::bulk).collect()
    }
}

impl Column {
    fn bulk(&self) -> BulkColumn<'_> {
        let Self { series, steps, timestamps_ms, values, extras, .. } = self;
        BulkColumn { series, first_ordinal: None, steps, timestamps_ms, values, extras }
    }
}

const _: () = assert!(crate::limits::BATCH_METRICS_MAX <= COLUMN_POINTS_MAX);

impl Run {
    /// Logs metrics with what they were measured on, params and tags: all of it or nothing, as [`Run::log_batch`]. A
    /// metric of a logged model is logged to the model, too.
    ///
    /// # Errors
    /// As [`Run::log_batch`]; [`crate::Error::NotFound`] for a logged model that this store does not have.
    pub fn log_model_batch(
        &self,
        metrics: &[ModelMetric],
        params: &[(&str, &str)],
        tags: &[(&str, &str)],
    ) -> Result<()> {
        rules::batch(metrics.len(), params.len(), tags.len())?;
        for (at, ModelMetric { metric, .. }) in metrics.iter().enumerate() {
            let path = format!("metrics[{at}]");
            rules::metric_key(&metric.key, &path)?;
            rules::metric_timestamp(&metric.key, metric.point.value, metric.point.timestamp_ms, &path)?;
        }
        self.check_active()?;
        let inner = self.store().inner();
        let mut models = BTreeMap::new();
        for id in metrics.iter().filter_map(|metric| metric.model_id.as_deref()) {
            if !models.contains_key(id) {
                models.insert(id, inner.logged_model_uid(id)?);
            }
        }
        let mut columns = Columns::default();
        for ModelMetric { metric, model_id, dataset } in metrics {
            let (key, point, dataset) = (metric.key.as_str(), metric.point, dataset.as_ref());
            columns.push(inner, SeriesKey::of_run(self.uid(), key), point, tail(None, dataset))?;
            if let Some(model) = model_id.as_deref().and_then(|id| models.get(id)) {
                let series = SeriesKey { run: *model, owner: OwnerKind::LOGGED_MODEL, key: key.into() };
                columns.push(inner, series, point, tail(Some(self.id()), dataset))?;
            }
        }
        columns.finish();
        if params.is_empty() && tags.is_empty() {
            let bulk = columns.bulk();
            return if bulk.is_empty() { Ok(()) } else { inner.writer()?.append_columns(&bulk) };
        }
        let (uid, claim) = (self.uid(), !self.is_own() && !params.is_empty());
        inner.change_with(&[Want::Entity(uid)], claim, &columns.bulk(), |catalog| {
            changes::log_batch(catalog, uid, params, tags)
        })?;
        Ok(())
    }
}

/// Whether a point is later than another, as MLflow says it: by step, timestamp and value. NaN is later than nothing.
fn is_later(new: &Point, old: &Point) -> bool {
    let moment = |point: &Point| (point.step, point.timestamp_ms);
    match moment(new).cmp(&moment(old)) {
        Ordering::Equal => new.value > old.value,
        order => order == Ordering::Greater,
    }
}

/// A metric key, and name and digest of the data set that it was measured on.
type Measured = (String, Option<(String, String)>);

/// Keeps the latest point for each key and data set, and the run that logged it.
#[derive(Default)]
struct Latest(BTreeMap<Measured, (Point, Option<String>)>);

impl Latest {
    fn add(&mut self, key: &str, point: Point, tail: &[u8]) {
        let (run, dataset) = read_tail(tail);
        let known = self.0.entry((key.to_owned(), dataset)).or_insert_with(|| (point, run.clone()));
        if is_later(&point, &known.0) {
            *known = (point, run);
        }
    }
}

impl Inner {
    /// The metrics of a logged model: the latest point for each key and data set.
    pub(crate) fn logged_model_metrics(
        &self,
        snapshot: &Snapshot,
        model: Uid,
    ) -> Result<Vec<LoggedModelMetric>> {
        let mut latest = Latest::default();
        for (series, origins) in snapshot.run_series(model)? {
            if series.owner != OwnerKind::LOGGED_MODEL {
                continue;
            }
            let mut stream = HistoryStream::new(
                &model.to_string(),
                &series.key,
                &origins,
                None,
                self.options.skip_damage,
            )?;
            stream.next_points(&PointFilter::default(), usize::MAX, &mut |point, extras, at| {
                let tail = extras.iter().find(|extra| extra.kind == EXTRA_TAIL);
                latest.add(&series.key, point, tail.map_or(&[], |tail| tail.get(at)));
            })?;
        }
        self.add_filed_metrics(model, &mut latest)?;
        let metric = |((key, dataset), (point, run_id))| LoggedModelMetric { key, point, run_id, dataset };
        Ok(latest.0.into_iter().map(metric).collect())
    }

    /// Those that are in files, which a program kept that did not know logged models.
    fn add_filed_metrics(&self, model: Uid, latest: &mut Latest) -> Result<()> {
        let state = self.held(Want::Entity(model))?;
        let Some(entity) = state.catalog.logged_model(model) else { return Ok(()) };
        let read_blob = state.blob_reader();
        for (key, _, value) in entity.entries(Field::FILE) {
            if let Some(key) = key.strip_prefix("metrics/") {
                let points = mlruns::file_points(&value.to_value(), &read_blob)?;
                points.into_iter().for_each(|(point, tail)| latest.add(key, point, &tail));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_mlflows_words() {
        let dataset = ("iris data".to_owned(), "d1".to_owned());
        let text = tail(Some("r"), Some(&dataset));
        assert_eq!(text, b" r iris data d1");
        assert_eq!(read_tail(&text), (Some("r".into()), Some(dataset.clone())));
        assert_eq!(tail(None, Some(&dataset)), b" iris data d1");
        assert_eq!(read_tail(&tail(Some("r"), None)), (Some("r".into()), None));
        assert_eq!(read_tail(b""), (None, None));
    }

    #[test]
    fn later_is_what_mlflow_calls_so() {
        let point = |step, timestamp_ms, value| Point { step, timestamp_ms, value };
        assert!(is_later(&point(2, 1, 0.0), &point(1, 9, 9.0)));
        assert!(is_later(&point(1, 2, 0.0), &point(1, 1, 9.0)));
        assert!(is_later(&point(1, 1, 2.0), &point(1, 1, 1.0)));
        for new in [1.0, f64::NAN] {
            assert!(!is_later(&point(1, 1, new), &point(1, 1, 1.0)));
        }
    }
}
