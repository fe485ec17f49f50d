//! From figures to tables: medians, spreads, ratios of pairs, goals.
//!
//! Contract: a ratio is the median of the ratios of single repetitions, whose figures were measured side by side.

mod goals;
mod table;

use std::path::PathBuf;

use crate::Outcome;
use crate::measure::median;
use crate::workload::Workload;

pub use table::write;

/// A figure of one repetition.
#[derive(Clone, Debug)]
pub struct Record {
    pub workload: Workload,
    pub peer: String,
    pub rep: usize,
    pub metric: String,
    pub value: f64,
}

impl Record {
    /// Its line of JSON.
    pub fn line(&self) -> String {
        let (workload, peer) = (self.workload.info().name, &self.peer);
        serde_json::json!({
            "workload": workload, "peer": peer, "rep": self.rep, "metric": self.metric, "value": self.value,
        })
        .to_string()
    }

    /// The figure of such a line.
    fn parse(line: &str) -> Outcome<Self> {
        let fields: serde_json::Value = serde_json::from_str(line)?;
        let text = |name: &str| fields[name].as_str().ok_or_else(|| format!("no {name}: {line}"));
        let workload =
            Workload::named(text("workload")?).ok_or_else(|| format!("no such workload: {line}"))?;
        let rep = fields["rep"].as_u64().ok_or_else(|| format!("no rep: {line}"))? as usize;
        let value = fields["value"].as_f64().ok_or_else(|| format!("no value: {line}"))?;
        Ok(Self { workload, peer: text("peer")?.into(), rep, metric: text("metric")?.into(), value })
    }
}

/// What a figure is: of which peer, by which name.
pub type Name<'a> = (Workload, &'a str, &'a str);

/// All figures of a run.
#[derive(Default)]
pub struct Results {
    records: Vec<Record>,
    /// Workload, peer, and why.
    pub failures: Vec<(Workload, String, String)>,
}

/// A median, with the least and the greatest.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let least = values.iter().copied().reduce(f64::min)?;
        let greatest = values.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(values), least, greatest })
    }
}

impl Results {
    /// What earlier runs left. A workload must be of one run alone: ratios are made within a repetition.
    pub fn read(paths: &[PathBuf]) -> Outcome<Self> {
        let mut results = Self::default();
        for path in paths {
            let mut records = Vec::new();
            for line in std::fs::read_to_string(path)?.lines() {
                records.push(Record::parse(line)?);
            }
            let is_known =
                |record: &&Record| results.records.iter().any(|known| known.workload == record.workload);
            if let Some(record) = records.iter().find(is_known) {
                return Err(format!(
                    "{}: {} is in another file, too",
                    path.display(),
                    record.workload.info().name
                )
                .into());
            }
            results.records.append(&mut records);
        }
        Ok(results)
    }

    pub fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// A failure, once for each workload and peer.
    pub fn note_failure(&mut self, workload: Workload, peer: &str, why: &str) {
        if !self.failures.iter().any(|(known, of, _)| *known == workload && of == peer) {
            self.failures.push((workload, peer.to_owned(), why.to_owned()));
        }
    }

    pub fn has(&self, workload: Workload) -> bool {
        self.records.iter().any(|record| record.workload == workload)
    }

    /// (repetition, value) of a figure.
    fn values(&self, (workload, peer, metric): Name<'_>) -> Vec<(usize, f64)> {
        let is_it = |r: &&Record| r.workload == workload && r.peer == peer && r.metric == metric;
        self.records.iter().filter(is_it).map(|record| (record.rep, record.value)).collect()
    }

    pub fn spread(&self, name: Name<'_>) -> Option<Spread> {
        Spread::of(&self.values(name).iter().map(|(_, value)| *value).collect::<Vec<_>>())
    }

    /// One figure by another, repetition by repetition.
    pub fn ratio(&self, of: Name<'_>, by: Name<'_>) -> Option<Spread> {
        let others = self.values(by);
        let pair = |(rep, value): (usize, f64)| {
            let other = others.iter().find(|(of_rep, _)| *of_rep == rep)?;
            Some(value / other.1)
        };
        Spread::of(&self.values(of).into_iter().filter_map(pair).collect::<Vec<_>>())
    }
}
