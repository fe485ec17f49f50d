//! What mlrs-db is to reach, as ratios to a peer of the same run or as figures.

use crate::report::{Name, Results, Spread};
use crate::workload::Workload;

/// What a goal is measured by.
enum By {
    /// A figure of a peer, of the same workload or of another.
    Peer(&'static str, &'static str),
    Other(Workload, &'static str, &'static str),
    /// The least figure of these peers, each with the workload it does best.
    BestOf(&'static [(Workload, &'static str)], &'static str),
    /// An absolute figure, 1 in its unit.
    Unit(&'static str),
}

pub struct Goal {
    pub what: &'static str,
    workload: Workload,
    ours: &'static str,
    metric: &'static str,
    by: By,
    at_most: f64,
}

use Workload::{
    Idle, ManyKeys, R1, R2, R3, R3Large, R4, R4Growth, W1, W1Large, W1Synced, W2, W2Keys, W2Long, W2Threads,
    W3,
};

/// Peers that lose nothing at `kill -9` and never their store.
const SAFE_BULK: &[(Workload, &str)] = &[
    (W1, "sqlite-compact"),
    (W1, "fjall"),
    (W1, "redb-immediate"),
    (W1Large, "sqlite-compact"),
    (W1Large, "fjall"),
    (W1Large, "redb-immediate"),
    (W1Large, "duckdb"),
];

const fn goal(
    what: &'static str,
    workload: Workload,
    ours: &'static str,
    metric: &'static str,
    by: By,
    at_most: f64,
) -> Goal {
    Goal { what, workload, ours, metric, by, at_most }
}

pub static GOALS: &[Goal] = &[
    goal("W1 until durable, by raw append", W1, "mlrs", "us_per_point", By::Peer("raw", "us_per_point"), 1.0),
    goal(
        "W1 until closed, by raw append",
        W1,
        "mlrs",
        "closed_us_per_point",
        By::Peer("raw", "closed_us_per_point"),
        1.0,
    ),
    goal(
        "W1 in columns until durable, by raw append",
        W1,
        "mlrs-columns",
        "us_per_point",
        By::Peer("raw", "us_per_point"),
        1.0,
    ),
    goal(
        "W1 by the best safe peer",
        W1,
        "mlrs",
        "us_per_point",
        By::BestOf(SAFE_BULK, "us_per_point"),
        0.125,
    ),
    goal("W1 bytes per point", W1, "mlrs", "bytes_per_point", By::Unit("B/pt"), 3.2),
    goal("W1 peak memory", W1, "mlrs", "memory_peak_mib", By::Unit("MiB"), 40.0),
    goal(
        "W1 durable every 1,000, by raw append",
        W1Synced,
        "mlrs",
        "us_per_point",
        By::Peer("raw", "us_per_point"),
        1.0,
    ),
    goal(
        "W2 resolved series, by one write()",
        W2,
        "mlrs",
        "us_per_call",
        By::Peer("raw", "us_per_call"),
        0.06,
    ),
    goal(
        "W2 string key and clock, by one write()",
        W2,
        "mlrs-key",
        "us_per_call",
        By::Peer("raw", "us_per_call"),
        0.16,
    ),
    goal("W3 by LMDB NO_SYNC", W3, "mlrs", "ms_per_run", By::Peer("lmdb-nosync", "ms_per_run"), 0.45),
    goal("R1 by LMDB", R1, "mlrs", "ms", By::Peer("lmdb-nosync", "ms"), 0.2),
    goal("R2 by LMDB", R2, "mlrs", "ms", By::Peer("lmdb-nosync", "ms"), 0.6),
    goal("R3 by LMDB", R3, "mlrs", "ms", By::Peer("lmdb-nosync", "ms"), 0.5),
    goal("R4 by SQLite, cold", R4, "mlrs", "cold_ms", By::Peer("sqlite-mlflow", "cold_ms"), 1.2),
    goal(
        "W2 string keys and clock, 10,000 live keys",
        W2Keys,
        "mlrs-key",
        "us_per_call",
        By::Unit("us"),
        0.2,
    ),
    goal("W2 resolved series, 10,000 live keys", W2Keys, "mlrs", "us_per_call", By::Unit("us"), 0.2),
    goal(
        "W2 resolved series for 60 s, by one write()",
        W2Long,
        "mlrs",
        "us_per_call",
        By::Other(W2, "raw", "us_per_call"),
        0.06,
    ),
    goal(
        "W2 string key and clock for 60 s, by one write()",
        W2Long,
        "mlrs-key",
        "us_per_call",
        By::Other(W2, "raw", "us_per_call"),
        0.16,
    ),
    goal(
        "W2 from four threads, by one thread",
        W2Threads,
        "mlrs",
        "us_per_call",
        By::Peer("mlrs", "one_thread_us_per_call"),
        1.0,
    ),
    goal("W2 from four threads, p99.9 of a call", W2Threads, "mlrs", "p999_us", By::Unit("us"), 5.0),
    goal("R3 of 100,000 runs", R3Large, "mlrs", "ms", By::Unit("ms"), 60.0),
    goal(
        "R4 of 10^9 points, by 10^5 points",
        R4Growth,
        "mlrs",
        "cold_ms_1e9",
        By::Peer("mlrs", "cold_ms_1e5"),
        1.2,
    ),
    goal(
        "R4 of 10^9 points without the index, by with it",
        R4Growth,
        "mlrs",
        "no_index_cold_ms_1e9",
        By::Peer("mlrs", "cold_ms_1e9"),
        1.2,
    ),
    goal(
        "R4 of 10^9 points after kill -9, by before",
        R4Growth,
        "mlrs",
        "killed_cold_ms_1e9",
        By::Peer("mlrs", "cold_ms_1e9"),
        1.2,
    ),
    goal("many keys, bytes per point", ManyKeys, "mlrs", "bytes_per_point", By::Unit("B/pt"), 3.0),
    goal("many keys, index by log", ManyKeys, "mlrs", "index_share", By::Unit("of it"), 0.01),
    goal("many keys, one key's day, first read", ManyKeys, "mlrs", "day_first_ms", By::Unit("ms"), 5.0),
    goal("memory of an idle handle", Idle, "mlrs", "idle_mib", By::Unit("MiB"), 4.0),
];

impl Goal {
    fn ours(&self) -> Name<'static> {
        (self.workload, self.ours, self.metric)
    }

    /// What was measured, if it was.
    pub fn measured(&self, results: &Results) -> Option<Spread> {
        match &self.by {
            By::Peer(peer, metric) => results.ratio(self.ours(), (self.workload, peer, metric)),
            By::Other(workload, peer, metric) => results.ratio(self.ours(), (*workload, peer, metric)),
            By::BestOf(peers, metric) => {
                // The best is chosen by its median, then compared pair by pair.
                let median = |name: Name<'_>| results.spread(name).map(|spread| spread.median);
                let names = peers.iter().map(|(workload, peer)| (*workload, *peer, *metric));
                let best = names.filter_map(|name| Some((median(name)?, name)));
                let best = best.min_by(|a, b| a.0.total_cmp(&b.0))?;
                results.ratio(self.ours(), best.1)
            }
            By::Unit(_) => results.spread(self.ours()),
        }
    }

    /// The goal as text.
    pub fn text(&self) -> String {
        match self.by {
            By::Unit(unit) => format!("<= {} {unit}", self.at_most),
            _ => format!("<= {} x", self.at_most),
        }
    }

    pub fn is_met(&self, measured: &Spread) -> bool {
        measured.median <= self.at_most
    }

    /// How far from the goal: 2.0 is twice too much.
    pub fn distance(&self, measured: &Spread) -> f64 {
        measured.median / self.at_most
    }
}
