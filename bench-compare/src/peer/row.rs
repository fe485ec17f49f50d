//! A run as peers give it back, and how it is compared with what was logged.

use crate::Outcome;
use crate::data::{METRICS, PARAMS, RUN_STEPS, SmallRun, TAGS, metric_key, param_key, tag_key};

/// What every peer's run can say.
pub trait RunView {
    fn number(&self) -> Option<usize>;
    fn param(&self, key: &str) -> Option<&str>;
    fn tag(&self, key: &str) -> Option<&str>;
    /// Step, timestamp and value of the latest point.
    fn latest(&self, metric: &str) -> Option<(i64, i64, f64)>;
    /// How many params, tags and metrics there are.
    fn counts(&self) -> (usize, usize, usize);

    /// Fails unless the run is this one, whole.
    fn check(&self, expected: &SmallRun) -> Outcome {
        let last = RUN_STEPS - 1;
        let timestamp_ms = SmallRun::timestamp_ms(expected.number, last);
        let params = (0..PARAMS).all(|p| self.param(&param_key(p)) == Some(&expected.params[p]));
        let tags = (0..TAGS).all(|t| self.tag(&tag_key(t)) == Some(&expected.tags[t]));
        let metrics = (0..METRICS)
            .all(|m| self.latest(&metric_key(m)) == Some((last as i64, timestamp_ms, expected.last(m))));
        let whole = self.counts() == (PARAMS, TAGS, METRICS) && self.number() == Some(expected.number);
        match whole && params && tags && metrics {
            true => Ok(()),
            false => Err(format!("run {} came back changed", expected.number).into()),
        }
    }
}

/// A run of a peer that has no type of its own for one.
#[derive(Clone, Debug, Default)]
pub struct RunRow {
    pub number: usize,
    /// Read, as a caller would want it.
    #[allow(dead_code)]
    pub start_ms: i64,
    pub params: Vec<(String, String)>,
    pub tags: Vec<(String, String)>,
    /// Key, step, timestamp and value.
    pub metrics: Vec<(String, i64, i64, f64)>,
}

fn value<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

impl RunView for RunRow {
    fn number(&self) -> Option<usize> {
        Some(self.number)
    }

    fn param(&self, key: &str) -> Option<&str> {
        value(&self.params, key)
    }

    fn tag(&self, key: &str) -> Option<&str> {
        value(&self.tags, key)
    }

    fn latest(&self, metric: &str) -> Option<(i64, i64, f64)> {
        let found = self.metrics.iter().find(|(key, ..)| key == metric)?;
        Some((found.1, found.2, found.3))
    }

    fn counts(&self) -> (usize, usize, usize) {
        (self.params.len(), self.tags.len(), self.metrics.len())
    }
}
