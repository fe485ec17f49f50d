//! The workloads: what is asked of every peer, checked before its time counts.
//!
//! Contract: each runs in a process of its own, on a store of its own or on the one that W1 or W3 of the same peer left.

mod calls;
mod ingest;
mod open;
mod read;
mod sizes;

use std::path::PathBuf;

use crate::Outcome;
use crate::peer::{Peer, PeerInfo};

pub use sizes::Sizes;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Workload {
    W1,
    W1Large,
    W1Synced,
    W2,
    W3,
    R1,
    R2,
    R3,
    R4,
}

/// What is known of a workload.
pub struct WorkloadInfo {
    pub workload: Workload,
    /// On the command line and in results.
    pub name: &'static str,
    pub title: &'static str,
    /// The figure that ratios are made of, its unit, and by what it is multiplied to be that.
    pub metric: &'static str,
    pub unit: &'static str,
    /// Further figures of the table: metric, head of its column.
    pub columns: &'static [(&'static str, &'static str)],
    /// The directory of its store, within the peer's.
    pub store: &'static str,
}

const INGEST: &[(&str, &str)] = &[
    ("closed_us_per_point", "closed, us/pt"),
    ("cpu_us_per_point", "CPU us/pt"),
    ("bytes_per_point", "B/pt"),
    ("memory_peak_mib", "peak MiB"),
    ("memory_store_mib", "of it the store's"),
];
const READ: &[(&str, &str)] = &[
    ("first_ms", "first, ms"),
    ("cpu_ms", "CPU ms"),
    ("memory_peak_mib", "peak MiB"),
    ("memory_store_mib", "of it the store's"),
];

pub static WORKLOADS: &[WorkloadInfo] = &[
    WorkloadInfo {
        workload: Workload::W1,
        name: "W1",
        title: "one run, 1 M points, 1,000 a batch, durable at the end",
        metric: "us_per_point",
        unit: "us/pt",
        columns: INGEST,
        store: "w1",
    },
    WorkloadInfo {
        workload: Workload::W1Large,
        name: "W1-10k",
        title: "the same, 10,000 a batch",
        metric: "us_per_point",
        unit: "us/pt",
        columns: INGEST,
        store: "w1-10k",
    },
    WorkloadInfo {
        workload: Workload::W1Synced,
        name: "W1-synced",
        title: "one run, 1 M points, 1,000 a batch, each batch durable",
        metric: "us_per_point",
        unit: "us/pt",
        columns: INGEST,
        store: "w1-synced",
    },
    WorkloadInfo {
        workload: Workload::W2,
        name: "W2",
        title: "one point a call, safe from kill -9",
        metric: "us_per_call",
        unit: "us/call",
        columns: &[
            ("p50_us", "p50"),
            ("p99_us", "p99"),
            ("p999_us", "p99.9"),
            ("max_us", "max"),
            ("cpu_us_per_call", "CPU us"),
            ("memory_store_mib", "store's peak MiB"),
        ],
        store: "w2",
    },
    WorkloadInfo {
        workload: Workload::W3,
        name: "W3",
        title: "1,000 runs of 20 params, 5 tags, 20 metrics x 10 steps",
        metric: "ms_per_run",
        unit: "ms/run",
        columns: &[
            ("closed_ms_per_run", "closed, ms/run"),
            ("cpu_ms_per_run", "CPU ms/run"),
            ("bytes_per_point", "B/pt"),
            ("memory_peak_mib", "peak MiB"),
            ("memory_store_mib", "of it the store's"),
        ],
        store: "w3",
    },
    WorkloadInfo {
        workload: Workload::R1,
        name: "R1",
        title: "one metric's 100,000 points, warm",
        metric: "ms",
        unit: "ms",
        columns: READ,
        store: "w1",
    },
    WorkloadInfo {
        workload: Workload::R2,
        name: "R2",
        title: "all 1,000 runs with params, tags and latest metrics, warm",
        metric: "ms",
        unit: "ms",
        columns: READ,
        store: "w3",
    },
    WorkloadInfo {
        workload: Workload::R3,
        name: "R3",
        title: "filter and order by a metric, the top 100 of 1,000 runs, warm",
        metric: "ms",
        unit: "ms",
        columns: READ,
        store: "w3",
    },
    WorkloadInfo {
        workload: Workload::R4,
        name: "R4",
        title: "open and read one of 1,000 runs, files not cached",
        metric: "cold_ms",
        unit: "ms",
        columns: &[("warm_ms", "cached, ms"), ("memory_store_mib", "store's peak MiB")],
        store: "w3",
    },
];

impl Workload {
    pub fn info(self) -> &'static WorkloadInfo {
        &WORKLOADS[self as usize]
    }

    /// Whether it begins a store of its own; otherwise it asks the one that is there.
    pub fn makes_store(self) -> bool {
        !matches!(self, Self::R1 | Self::R2 | Self::R3 | Self::R4)
    }

    /// Whether others ask its store later.
    pub fn leaves_store(self) -> bool {
        !matches!(self, Self::W1Large | Self::W1Synced | Self::W2)
    }

    pub fn named(name: &str) -> Option<Workload> {
        WORKLOADS.iter().find(|info| info.name.eq_ignore_ascii_case(name)).map(|info| info.workload)
    }
}

/// One workload of one peer in this process.
pub struct Context {
    pub peer: &'static PeerInfo,
    pub workload: Workload,
    /// The store's directory.
    pub directory: PathBuf,
    pub sizes: Sizes,
}

impl Context {
    /// Whether every transaction is to be durable.
    pub fn is_synced(&self) -> bool {
        self.peer.is_synced || self.workload == Workload::W1Synced
    }

    pub fn open<P: Peer>(&self) -> Outcome<P> {
        P::open(&self.directory, self.is_synced())
    }
}

/// Runs a workload of a peer of this program.
pub fn run<P: Peer>(context: &Context) -> Outcome {
    match context.workload {
        Workload::W1 | Workload::W1Synced => ingest::long_run::<P>(context, 1_000),
        Workload::W1Large => ingest::long_run::<P>(context, 10_000),
        Workload::W2 => calls::one_point_a_call::<P>(context),
        Workload::W3 => ingest::small_runs::<P>(context),
        Workload::R1 => read::history::<P>(context),
        Workload::R2 => read::all_runs::<P>(context),
        Workload::R3 => read::top_runs::<P>(context),
        Workload::R4 => open::open_and_read::<P>(context),
    }
}
