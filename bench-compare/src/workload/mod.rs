//! The workloads: what is asked of every peer, checked before its time counts.
//!
//! Contract: each runs in a process of its own, on a store of its own or on the one that W1 or W3 of the same peer left.

mod calls;
pub mod growth;
mod idle;
mod ingest;
mod many_keys;
mod open;
mod read;
mod sizes;
mod threads;

use std::path::PathBuf;

use crate::Outcome;
use crate::data::LongRun;
use crate::peer::{BySeries, Mlrs, Peer, PeerInfo};

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
    Idle,
    W2Keys,
    W2Threads,
    W2Long,
    W3Large,
    R3Large,
    R4Growth,
    ManyKeys,
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
    /// So long that it runs once, its memory watched meanwhile.
    pub is_long: bool,
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

const CALLS: &[(&str, &str)] = &[
    ("p50_us", "p50"),
    ("p99_us", "p99"),
    ("p999_us", "p99.9"),
    ("max_us", "max"),
    ("cpu_us_per_call", "CPU us"),
    ("memory_store_mib", "store's peak MiB"),
];
const RUNS_COLUMNS: &[(&str, &str)] = &[
    ("closed_ms_per_run", "closed, ms/run"),
    ("cpu_ms_per_run", "CPU ms/run"),
    ("bytes_per_point", "B/pt"),
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
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::W1Large,
        name: "W1-10k",
        title: "the same, 10,000 a batch",
        metric: "us_per_point",
        unit: "us/pt",
        columns: INGEST,
        store: "w1-10k",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::W1Synced,
        name: "W1-synced",
        title: "one run, 1 M points, 1,000 a batch, each batch durable",
        metric: "us_per_point",
        unit: "us/pt",
        columns: INGEST,
        store: "w1-synced",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::W2,
        name: "W2",
        title: "one point a call, safe from kill -9",
        metric: "us_per_call",
        unit: "us/call",
        columns: CALLS,
        store: "w2",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::W3,
        name: "W3",
        title: "1,000 runs of 20 params, 5 tags, 20 metrics x 10 steps",
        metric: "ms_per_run",
        unit: "ms/run",
        columns: RUNS_COLUMNS,
        store: "w3",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::R1,
        name: "R1",
        title: "one metric's 100,000 points, warm",
        metric: "ms",
        unit: "ms",
        columns: READ,
        store: "w1",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::R2,
        name: "R2",
        title: "all 1,000 runs with params, tags and latest metrics, warm",
        metric: "ms",
        unit: "ms",
        columns: READ,
        store: "w3",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::R3,
        name: "R3",
        title: "filter and order by a metric, the top 100 of 1,000 runs, warm",
        metric: "ms",
        unit: "ms",
        columns: READ,
        store: "w3",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::R4,
        name: "R4",
        title: "open and read one of 1,000 runs, files not cached",
        metric: "cold_ms",
        unit: "ms",
        columns: &[("warm_ms", "cached, ms"), ("memory_store_mib", "store's peak MiB")],
        store: "w3",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::Idle,
        name: "idle",
        title: "memory of a handle on W1's store",
        metric: "idle_mib",
        unit: "MiB, idle",
        columns: &[
            ("after_reading_mib", "after reading a history, without it"),
            ("after_a_point_mib", "after a point"),
        ],
        store: "w1",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::W2Keys,
        name: "W2-keys",
        title: "one point a call, 10,000 live keys",
        metric: "us_per_call",
        unit: "us/call",
        columns: CALLS,
        store: "w2-keys",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::W2Threads,
        name: "W2-threads",
        title: "one point a call, from four threads at once",
        metric: "us_per_call",
        unit: "us/call of all",
        columns: &[
            ("one_thread_us_per_call", "one thread, us"),
            ("p50_us", "p50"),
            ("p99_us", "p99"),
            ("p999_us", "p99.9"),
            ("max_us", "max"),
        ],
        store: "w2-threads",
        is_long: false,
    },
    WorkloadInfo {
        workload: Workload::W2Long,
        name: "W2-60s",
        title: "one point a call, for a minute",
        metric: "us_per_call",
        unit: "us/call",
        columns: CALLS,
        store: "w2-long",
        is_long: true,
    },
    WorkloadInfo {
        workload: Workload::W3Large,
        name: "W3-100k",
        title: "100,000 runs of 20 params, 5 tags, 20 metrics x 10 steps",
        metric: "ms_per_run",
        unit: "ms/run",
        columns: RUNS_COLUMNS,
        store: "w3-100k",
        is_long: true,
    },
    WorkloadInfo {
        workload: Workload::R3Large,
        name: "R3-100k",
        title: "filter and order by a metric, the top 100 of 100,000 runs, warm",
        metric: "ms",
        unit: "ms",
        columns: READ,
        store: "w3-100k",
        is_long: true,
    },
    WorkloadInfo {
        workload: Workload::R4Growth,
        name: "R4-growth",
        title: "open and read one run, as the store grows",
        metric: "cold_ms_1e5",
        unit: "ms, cold, 10^5 points",
        columns: &[],
        store: "r4-growth",
        is_long: true,
    },
    WorkloadInfo {
        workload: Workload::ManyKeys,
        name: "many-keys",
        title: "10,000 keys at 1 Hz for a simulated day",
        metric: "us_per_call",
        unit: "us/call",
        columns: &[
            ("day_seconds", "simulated, s"),
            ("closed_us_per_point", "closed, us/pt"),
            ("closed_bytes_per_point", "closed, B/pt"),
            ("bytes_per_point", "compacted, B/pt"),
            ("compact_seconds", "compaction, s"),
            ("index_share", "index / log"),
            ("day_first_ms", "a key's day, first, ms"),
            ("day_ms", "then, ms"),
            ("reader_mib", "its reader, MiB"),
            ("memory_store_mib", "writer's peak MiB"),
        ],
        store: "many-keys",
        is_long: true,
    },
];

impl Workload {
    pub fn info(self) -> &'static WorkloadInfo {
        &WORKLOADS[self as usize]
    }

    /// Whether it begins a store of its own; otherwise it asks the one that is there.
    pub fn makes_store(self) -> bool {
        !matches!(self, Self::R1 | Self::R2 | Self::R3 | Self::R4 | Self::Idle | Self::R3Large)
    }

    /// Whether others ask its store later.
    pub fn leaves_store(self) -> bool {
        matches!(self.info().store, "w1" | "w3" | "w3-100k") && self != Self::R3Large
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

/// Runs a workload that any peer of this program can do.
pub fn run<P: Peer>(context: &Context) -> Outcome {
    let sizes = context.sizes;
    match context.workload {
        Workload::W1 | Workload::W1Synced => ingest::long_run::<P>(context, 1_000),
        Workload::W1Large => ingest::long_run::<P>(context, 10_000),
        Workload::W2 => calls::one_point_a_call::<P>(context, &LongRun::new(), sizes.call_seconds),
        Workload::W2Keys => {
            let data = LongRun::of(sizes.many_keys, 100);
            calls::one_point_a_call::<P>(context, &data, sizes.call_seconds * 2.0)
        }
        Workload::W2Long => calls::one_point_a_call::<P>(context, &LongRun::new(), sizes.long_seconds),
        Workload::W3 => ingest::small_runs::<P>(context, sizes.runs),
        Workload::W3Large => ingest::small_runs::<P>(context, sizes.many_runs),
        Workload::R1 => read::history::<P>(context),
        Workload::R2 => read::all_runs::<P>(context),
        Workload::R3 => read::top_runs::<P>(context, sizes.runs),
        Workload::R3Large => read::top_runs::<P>(context, sizes.many_runs),
        Workload::R4 => open::open_and_read::<P>(context),
        Workload::Idle | Workload::W2Threads | Workload::R4Growth | Workload::ManyKeys => {
            Err(format!("{} is about mlrs-db alone", context.workload.info().name).into())
        }
    }
}

/// Runs a workload of mlrs-db, those about itself included.
pub fn run_ours(context: &Context) -> Outcome {
    match context.workload {
        Workload::Idle => idle::memory_of_a_handle(context),
        Workload::W2Threads => threads::calls_from_threads(context),
        Workload::R4Growth => growth::open_as_it_grows(context),
        Workload::ManyKeys => many_keys::one_day(context),
        _ => run::<Mlrs<BySeries>>(context),
    }
}
