//! Snapshots, history, latest values, the search grammar.
//!
//! Contract: answers come from the log alone; nothing here writes or waits for a lock.

pub mod history;
pub(crate) mod snapshot;
