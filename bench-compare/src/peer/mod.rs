//! The peers: what a workload asks of one, and the list of them.
//!
//! Contract: a peer stores what it is given in its usual way and gives it back unchanged; who asks checks that. A new
//! peer is a file here and a line in [`PEERS`].

mod append;
mod columns;
mod fjall;
mod key_value;
mod lmdb;
mod mlrs;
mod redb;
mod row;
mod sqlite;
mod sqlite_compact;
mod sqlite_mlflow;

use std::ops::Range;
use std::path::Path;

use crate::Outcome;
use crate::data::{LongRun, SmallRun};
use crate::workload::{Context, Workload, run, run_ours};

pub use columns::{Checksum, Columns};
pub use mlrs::{BySeries, Mlrs, ids_path};
pub use row::{RunRow, RunView};

/// One store of one peer, in a directory of its own.
pub trait Peer: Sized {
    /// A run with its params, tags and latest metrics, as this peer gives it.
    type Run: RunView;

    /// Whether timestamps are kept as given; otherwise the peer takes its own clock's.
    const GIVES_TIMES: bool = true;

    /// Opens the store, or makes it. If `is_synced`, every transaction, and every run, is durable when its call returns.
    fn open(directory: &Path, is_synced: bool) -> Outcome<Self>;

    /// Makes the long run and its keys, before the clock starts.
    fn begin_long(&mut self, _keys: usize) -> Outcome {
        Ok(())
    }

    /// Logs these steps of all keys of the long run, as one transaction where the peer has them.
    fn log_steps(&mut self, data: &LongRun, steps: Range<usize>) -> Outcome;

    /// Logs one point of the long run, as one call.
    fn log_point(&mut self, key: usize, step: i64, timestamp_ms: i64, value: f64) -> Outcome;

    /// Logs a small run with all it has.
    fn log_run(&mut self, run: &SmallRun) -> Outcome;

    /// Makes durable what was logged.
    fn sync(&mut self) -> Outcome;

    /// Closes the store.
    fn close(self) -> Outcome;

    /// All points of a key of the long run, in order of steps.
    fn history(&self, key: usize) -> Outcome<Columns>;

    /// A checksum of all points of a key; without their timestamps, if those are the peer's own.
    fn checksum(&self, key: usize) -> Outcome<Checksum> {
        let mut columns = self.history(key)?;
        if !Self::GIVES_TIMES {
            columns.timestamps_ms.fill(0);
        }
        Ok(columns.checksum())
    }

    /// All runs.
    fn runs(&self) -> Outcome<Vec<Self::Run>>;

    /// The runs that R3 asks for, those with the greatest `m3` first, whole.
    fn top(&self) -> Outcome<Vec<Self::Run>>;

    /// One run.
    fn run(&self, number: usize) -> Outcome<Self::Run>;
}

/// A peer and what is known of it.
pub struct PeerInfo {
    /// How it is named on the command line and in results.
    pub name: &'static str,
    /// How it is named in tables.
    pub label: &'static str,
    /// What `kill -9` and a power cut cost.
    pub kill: &'static str,
    pub power: &'static str,
    /// Where it is measured.
    pub workloads: &'static [Workload],
    /// Every transaction of it is durable, not only in workloads that ask for that.
    pub is_synced: bool,
    /// So slow that one repetition must do.
    pub is_slow: bool,
    engine: Engine,
}

/// What runs a peer.
enum Engine {
    /// This program.
    Rust(fn(&Context) -> Outcome),
    /// A script of `python/`, with its first argument.
    Python(&'static str, &'static str),
}

impl PeerInfo {
    pub fn named(name: &str) -> Option<&'static PeerInfo> {
        PEERS.iter().find(|peer| peer.name == name)
    }

    /// The script and its first argument, if it is one of Python's.
    pub fn script(&self) -> Option<(&'static str, &'static str)> {
        match self.engine {
            Engine::Python(script, argument) => Some((script, argument)),
            Engine::Rust(_) => None,
        }
    }

    /// Runs a workload, in this process.
    pub fn run(&self, context: &Context) -> Outcome {
        match self.engine {
            Engine::Rust(run) => run(context),
            Engine::Python(script, _) => Err(format!("{} is run by {script}", self.name).into()),
        }
    }
}

use Workload::{
    Idle, ManyKeys, R1, R2, R3, R3Large, R4, R4Growth, W1, W1Large, W1Synced, W2, W2Keys, W2Long, W2Threads,
    W3, W3Large,
};

const NOTHING: &str = "nothing";
const SINCE_SYNC: &str = "all since the last sync";

/// The peers, in the order of the tables. Durability is what their documentation says of these settings.
pub static PEERS: &[PeerInfo] = &[
    PeerInfo {
        name: "mlrs",
        label: "**mlrs-db**, resolved series",
        kill: NOTHING,
        power: "about 1 s; nothing once `sync` returned",
        workloads: &[
            W1, W1Large, W1Synced, W2, W3, R1, R2, R3, R4, Idle, W2Keys, W2Threads, W2Long, W3Large, R3Large,
            R4Growth, ManyKeys,
        ],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run_ours),
    },
    PeerInfo {
        name: "mlrs-key",
        label: "**mlrs-db**, string key and clock",
        kill: NOTHING,
        power: "about 1 s; nothing once `sync` returned",
        workloads: &[W2, W2Keys, W2Long],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<Mlrs<mlrs::ByKey>>),
    },
    PeerInfo {
        name: "mlrs-batch",
        label: "**mlrs-db**, `log_batch`",
        kill: NOTHING,
        power: "about 1 s; nothing once `sync` returned",
        workloads: &[W1, W1Synced],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<Mlrs<mlrs::ByBatch>>),
    },
    PeerInfo {
        name: "mlrs-columns",
        label: "**mlrs-db**, `log_columns`",
        kill: NOTHING,
        power: "about 1 s; nothing once `sync` returned",
        workloads: &[W1, W1Large, W1Synced],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<Mlrs<mlrs::ByColumns>>),
    },
    PeerInfo {
        name: "raw",
        label: "raw append of 24 bytes a point",
        kill: "64 KiB of buffer (W2: nothing)",
        power: SINCE_SYNC,
        workloads: &[W1, W1Synced, W2, W3, R1, R2, R3, R4, W2Keys, W2Long],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<append::Append<append::Plain>>),
    },
    PeerInfo {
        name: "raw-zstd",
        label: "raw append, zstd-1 per MB",
        kill: "1 MB of buffer",
        power: SINCE_SYNC,
        workloads: &[W1, W1Synced, W3, R1, R2, R3, R4],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<append::Append<append::Zstd>>),
    },
    PeerInfo {
        name: "lmdb-nosync",
        label: "LMDB (heed), NO_SYNC",
        kill: NOTHING,
        power: "**may corrupt the store**",
        workloads: &[W1, W1Large, W2, W3, R1, R2, R3, R4, W2Keys, W3Large, R3Large],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<key_value::KeyValuePeer<lmdb::Lmdb>>),
    },
    PeerInfo {
        name: "lmdb-sync",
        label: "LMDB (heed), synced",
        kill: NOTHING,
        power: NOTHING,
        workloads: &[W1Synced],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<key_value::KeyValuePeer<lmdb::Lmdb>>),
    },
    PeerInfo {
        name: "redb-none",
        label: "redb, Durability::None",
        kill: "**all since the last durable commit**",
        power: "the same",
        workloads: &[W1, W1Large, W2, W3],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<key_value::KeyValuePeer<redb::Redb>>),
    },
    PeerInfo {
        name: "redb-immediate",
        label: "redb, Immediate",
        kill: NOTHING,
        power: NOTHING,
        workloads: &[W1, W1Large, W1Synced, W2, W3, R1, R2, R3, R4],
        is_synced: true,
        is_slow: false,
        engine: Engine::Rust(run::<key_value::KeyValuePeer<redb::Redb>>),
    },
    PeerInfo {
        name: "fjall",
        label: "fjall, journal to the OS",
        kill: NOTHING,
        power: "since the last persist",
        workloads: &[W1, W1Large, W2, W3, R1, R2, R3, R4, W2Keys],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<key_value::KeyValuePeer<fjall::Fjall>>),
    },
    PeerInfo {
        name: "fjall-sync",
        label: "fjall, SyncData",
        kill: NOTHING,
        power: NOTHING,
        workloads: &[W1Synced],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<key_value::KeyValuePeer<fjall::Fjall>>),
    },
    PeerInfo {
        name: "sqlite-compact",
        label: "SQLite, compact, WAL NORMAL",
        kill: NOTHING,
        power: "commits since the last checkpoint",
        workloads: &[W1, W1Large, W2, R1],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<sqlite_compact::SqliteCompact>),
    },
    PeerInfo {
        name: "sqlite-compact-full",
        label: "SQLite, compact, WAL FULL",
        kill: NOTHING,
        power: NOTHING,
        workloads: &[W1Synced],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<sqlite_compact::SqliteCompact>),
    },
    PeerInfo {
        name: "sqlite-mlflow",
        label: "SQLite, MLflow's schema, WAL NORMAL",
        kill: NOTHING,
        power: "commits since the last checkpoint",
        workloads: &[W1, W1Large, W2, W3, R1, R2, R3, R4],
        is_synced: false,
        is_slow: false,
        engine: Engine::Rust(run::<sqlite_mlflow::SqliteMlflow>),
    },
    PeerInfo {
        name: "duckdb",
        label: "DuckDB 2.0 (Python)",
        kill: NOTHING,
        power: NOTHING,
        workloads: &[W1, W1Large, W2, W3, R1, R2, R3, R4],
        is_synced: false,
        is_slow: false,
        engine: Engine::Python("peer_duckdb.py", "duckdb"),
    },
    PeerInfo {
        name: "mlflow-file",
        label: "MLflow 3.18, FileStore",
        kill: NOTHING,
        power: "up to the OS's write-back (~30 s)",
        workloads: &[W1, W2, W3, R1, R2, R3, R4],
        is_synced: false,
        is_slow: true,
        engine: Engine::Python("peer_mlflow.py", "file"),
    },
    PeerInfo {
        name: "mlflow-sqlite",
        label: "MLflow 3.18, SQLite store",
        kill: NOTHING,
        power: NOTHING,
        workloads: &[W1, W2, W3, R1, R2, R3, R4],
        is_synced: false,
        is_slow: true,
        engine: Engine::Python("peer_mlflow.py", "sqlite"),
    },
];
