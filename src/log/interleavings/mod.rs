//! The orders in which threads can take their steps, as loom runs through them: what is published, handed over, taken
//! again and synced, and what readers see meanwhile.
//!
//! Contract: the code that ships, on files in memory whose maps are loom's atomics (`vfs::shared_memory`), with blocks
//! of two records and files that grow by three blocks. Each test says what it was seen to catch. `cargo xtask loom`
//! runs them and shows how many orders there were.

#[cfg(all(test, loom))]
mod hand_over;
#[cfg(all(test, loom))]
mod live_file;

use crate::model::Point;

/// The n-th point of a series, as it is logged and must come out.
fn point(n: u64) -> Point {
    Point { step: n as i64, timestamp_ms: 1_000 + n as i64, value: n as f64 }
}
