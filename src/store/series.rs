//! One metric of one run, resolved: the fast path of logging.
//!
//! Contract: a call that returned has its points in the live file; they survive the death of the process and others see
//! them. Per point: one lock, the coarse clock unless a timestamp is given, no allocation.

use std::borrow::Cow;
use std::sync::Arc;

use crate::catalog::rules;
use crate::error::{Error, Result};
use crate::format::declare::SeriesKey;
use crate::id::{Origin, Uid};
use crate::limits::COLUMN_POINTS_MAX;
use crate::log::{BulkColumn, LogWriter, SeriesNumber};
use crate::model::Point;
use crate::store::Store;
use crate::store::runs::coarse_now;

/// A series to log to. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Series {
    store: Store,
    number: SeriesNumber,
}

impl Series {
    pub(crate) fn new(store: &Store, run: Uid, key: &str) -> Result<Self> {
        let number = store.inner().writer()?.series(&SeriesKey::of_run(run, key))?;
        Ok(Self { store: store.clone(), number })
    }

    pub(crate) fn number(&self) -> &SeriesNumber {
        &self.number
    }

    /// The number of this series with a writer: its own, or the one that a forked child became.
    pub(crate) fn number_of(&self, writer: &LogWriter) -> Result<Cow<'_, SeriesNumber>> {
        if self.number.origin == Origin::from(writer.id()) {
            return Ok(Cow::Borrowed(&self.number));
        }
        writer.series(&self.number.series).map(Cow::Owned)
    }

    /// The metric key.
    pub fn key(&self) -> &str {
        &self.number.series.key
    }

    /// Logs a value, now.
    ///
    /// # Errors
    /// [`Error::Busy`] if the disk has been behind for too long, [`Error::DiskFull`]; the point is not logged then.
    pub fn log(&self, step: i64, value: f64) -> Result<()> {
        self.log_at(step, coarse_now(), value)
    }

    /// Logs a value with its time, in milliseconds since 1970. As in MLflow a step may be negative, a time not.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a time before 1970, and as [`Series::log`].
    pub fn log_at(&self, step: i64, timestamp_ms: i64, value: f64) -> Result<()> {
        rules::metric_timestamp(self.key(), value, timestamp_ms, "")?;
        let writer = self.store.inner().writer()?;
        writer.log_one(&*self.number_of(writer)?, Point { step, timestamp_ms, value })
    }

    /// Columns of one length, no time before 1970.
    pub(crate) fn check_columns(&self, steps: &[i64], timestamps_ms: &[i64], values: &[f64]) -> Result<()> {
        if steps.len() != values.len() || timestamps_ms.len() != values.len() {
            return Err(Error::invalid(format!(
                "columns of different lengths: {} steps, {} timestamps, {} values",
                steps.len(),
                timestamps_ms.len(),
                values.len()
            )));
        }
        if let Some(at) = timestamps_ms.iter().position(|timestamp_ms| *timestamp_ms < 0) {
            let of = |column: &[i64]| column.get(at).copied().unwrap_or_default();
            let value = values.get(at).copied().unwrap_or_default();
            rules::metric_timestamp(self.key(), value, of(timestamps_ms), &format!("[{at}]"))?;
        }
        Ok(())
    }

    /// Logs columns of equal length, behind what was logged before. They become batches at once: no live file, no copy
    /// per point. Any length; every 4,096 points are a column.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for columns of different lengths and for a time before 1970: then nothing is logged.
    /// [`Error::DiskFull`]: then a prefix of whole columns may be.
    pub fn log_columns(&self, steps: &[i64], timestamps_ms: &[i64], values: &[f64]) -> Result<()> {
        self.check_columns(steps, timestamps_ms, values)?;
        let writer = self.store.inner().writer()?;
        let number = self.number_of(writer)?;
        // Several columns a batch, so that a long history costs few writes.
        let batch = COLUMN_POINTS_MAX * 16;
        let batches = steps.chunks(batch).zip(timestamps_ms.chunks(batch)).zip(values.chunks(batch));
        for ((steps, timestamps_ms), values) in batches {
            let chunks = steps.chunks(COLUMN_POINTS_MAX).zip(timestamps_ms.chunks(COLUMN_POINTS_MAX));
            let columns: Vec<BulkColumn<'_>> = chunks
                .zip(values.chunks(COLUMN_POINTS_MAX))
                .map(|((steps, timestamps_ms), values)| BulkColumn {
                    series: &number,
                    first_ordinal: None,
                    steps,
                    timestamps_ms,
                    values,
                    extras: &[],
                })
                .collect();
            writer.append_columns(&columns)?;
        }
        Ok(())
    }
}

impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.number, &other.number)
    }
}
