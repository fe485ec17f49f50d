//! Histories as callers ask for them.
//!
//! Contract: a builder over `query::history`. Nothing is read before [`History::collect`] or [`History::page`].

use std::ops::RangeBounds;

use crate::error::{Error, Result};
use crate::format::declare::OwnerKind;
use crate::id::Uid;
use crate::log::ColumnReader;
use crate::model::Points;
use crate::query::history::{HistoryStream, HistoryToken, PointFilter, inclusive};
use crate::query::sample::{Sample, sample};
use crate::query::thinning::Thinner;
use crate::store::Store;
use crate::store::metrics::origin_summary;

/// The history of one metric of one run.
#[derive(Clone, Debug)]
pub struct History {
    store: Store,
    run: Uid,
    run_id: String,
    key: String,
    filter: Option<PointFilter>,
    limit: Option<usize>,
    gaps_allowed: bool,
}

/// Some points, and where the next ones are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryPage {
    /// The points.
    pub points: Points,
    /// The token of the next page; none if this is the last.
    pub next_page_token: Option<String>,
}

impl Store {
    /// The history of a metric, in the order of logging; duplicates are kept. A metric that was never logged has an
    /// empty history.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such run.
    pub fn history(&self, run_id: &str, key: &str) -> Result<History> {
        let run = self.inner().run_uid(run_id)?;
        Ok(History {
            store: self.clone(),
            run,
            run_id: run_id.to_owned(),
            key: key.to_owned(),
            filter: Some(PointFilter::default()),
            limit: None,
            gaps_allowed: self.inner().options.skip_damage,
        })
    }
}

impl History {
    /// Only points with these steps.
    pub fn steps(mut self, steps: impl RangeBounds<i64>) -> Self {
        self.filter =
            self.filter.zip(inclusive(&steps)).map(|(filter, steps)| PointFilter { steps, ..filter });
        self
    }

    /// Only points with these timestamps, in milliseconds since 1970.
    pub fn timestamps(mut self, timestamps_ms: impl RangeBounds<i64>) -> Self {
        let range = inclusive(&timestamps_ms);
        self.filter =
            self.filter.zip(range).map(|(filter, timestamps_ms)| PointFilter { timestamps_ms, ..filter });
        self
    }

    /// At most this many points.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Reads what is there although points are missing from the log (after damage); otherwise that is
    /// [`Error::Gap`], unless [`crate::Options::skip_damage`] says so for the whole store.
    pub fn allow_gaps(mut self, gaps_allowed: bool) -> Self {
        self.gaps_allowed = gaps_allowed;
        self
    }

    fn with_stream<R>(
        &self,
        token: Option<&HistoryToken>,
        read: impl Fn(HistoryStream) -> Result<R>,
    ) -> Result<R> {
        self.store.inner().with_snapshot(|snapshot| {
            let origins = snapshot.series(self.run, OwnerKind::RUN, &self.key)?;
            HistoryStream::new(&self.run_id, &self.key, &origins, token, self.gaps_allowed).and_then(&read)
        })
    }

    /// Reads the points into any collection of [`crate::model::Points`]' shape.
    ///
    /// # Errors
    /// [`Error::Gap`] if points are missing, [`Error::Corrupt`] if they are damaged.
    pub fn collect<C: From<Points>>(&self) -> Result<C> {
        let Some(filter) = self.filter else { return Ok(Points::default().into()) };
        let points = self.with_stream(None, |mut stream| match self.limit {
            None => stream.collect(&filter),
            Some(limit) => {
                let mut points = Points::default();
                stream.next_points(&filter, limit, &mut |p, _, _| points.push(p))?;
                Ok(points)
            }
        })?;
        Ok(points.into())
    }

    /// Reads the next `max` points from where `token` says, or from the start. Points that arrive later never move a
    /// page; what was logged after the first page is not on any.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a token that is none of ours or of another run or key, and as
    /// [`History::collect`].
    pub fn page(&self, max: usize, token: Option<&str>) -> Result<HistoryPage> {
        let Some(filter) = self.filter else { return Ok(HistoryPage::default()) };
        if max == 0 {
            return Err(Error::invalid("a page holds at least one point"));
        }
        let token = token.map(|text| HistoryToken::decode(text, self.run, &self.key)).transpose()?;
        self.with_stream(token.as_ref(), |mut stream| {
            let mut points = Points::default();
            let more = stream.next_points(&filter, max, &mut |p, _, _| points.push(p))?;
            let next = if more { stream.token().map(|t| t.encode(self.run, &self.key)) } else { None };
            Ok(HistoryPage { points, next_page_token: next })
        })
    }

    /// Reads at most `max` points that show all of them, ordered by (step, timestamp): the first and the last one, and
    /// of each of equally many points between the least and the greatest value. Nothing is left out where there are no
    /// more than `max`. Every point is read, in memory that does not grow with them; where numbers will do in place of
    /// points, [`History::sample`] is faster.
    ///
    /// # Errors
    /// As [`History::collect`].
    pub fn thinned(&self, max: usize) -> Result<Points> {
        const CHUNK_POINTS: usize = 1 << 16;
        let Some(filter) = self.filter else { return Ok(Points::default()) };
        self.store.inner().with_snapshot(|snapshot| {
            let origins = snapshot.series(self.run, OwnerKind::RUN, &self.key)?;
            let all = |take: &mut dyn FnMut(crate::model::Point)| {
                let mut stream =
                    HistoryStream::new(&self.run_id, &self.key, &origins, None, self.gaps_allowed)?;
                while stream.next_points(&filter, CHUNK_POINTS, &mut |point, _, _| take(point))? {}
                Ok(())
            };
            let mut points = 0;
            all(&mut |_| points += 1)?;
            let mut thinner = Thinner::new(points, max);
            all(&mut |point| thinner.add(point))?;
            Ok(thinner.finish())
        })
    }

    /// A few numbers for each column of a chart that is `columns` wide, over the steps from the least to the greatest
    /// one: count, first, last, least and greatest value. No spike is lost: every point is in exactly one sample.
    /// Columns without a point have none. [`History::limit`] does not count here.
    ///
    /// Of long series the points are not read, but what the log says of each stored column (at most 4096 points); so a
    /// border between two samples may lie that far off. Cost: O(points / 4096) for millions of points, O(points) for
    /// less.
    ///
    /// ```
    /// # fn main() -> mlrs_db::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// let store = mlrs_db::Store::open(directory.path().join("my-store"))?;
    /// let run = store.experiment("mnist")?.start_run(mlrs_db::RunOptions::new())?;
    /// let loss = run.series("loss")?;
    /// for step in 0..1000 {
    ///     loss.log(step, if step == 501 { 99.0 } else { 0.5 })?;
    /// }
    /// let samples = store.history(run.id(), "loss")?.sample(10)?;
    /// assert_eq!(samples.len(), 10);
    /// assert_eq!((samples[5].max, samples[6].max), (Some(99.0), Some(0.5)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no column or more than [`crate::limits::SAMPLE_COLUMNS_MAX`], and as
    /// [`History::collect`].
    pub fn sample(&self, columns: usize) -> Result<Vec<Sample>> {
        let Some(filter) = self.filter else { return Ok(Vec::new()) };
        self.store.inner().with_snapshot(|snapshot| {
            let origins = snapshot.series(self.run, OwnerKind::RUN, &self.key)?;
            let mut reader = ColumnReader::default();
            reader.holes_allowed = self.gaps_allowed;
            let mut range: Option<(i64, i64)> = None;
            for parts in &origins {
                let summary = origin_summary(self.run, &self.key, parts, &mut reader, self.gaps_allowed)?;
                if let Some(one) = summary {
                    let (low, high) = range.unwrap_or((one.step_min, one.step_max));
                    range = Some((low.min(one.step_min), high.max(one.step_max)));
                }
            }
            sample((&self.run_id, &self.key), &origins, &filter, range, columns, &mut reader)
        })
    }
}
