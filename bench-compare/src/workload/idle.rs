//! What a handle takes that does nothing, and what comes with the first question and the first point.

use std::time::Duration;

use mlrs_db::{Points, RunOptions, Store};

use crate::Outcome;
use crate::data::long_key;
use crate::measure::{emit, measured, memory_mib, ready};
use crate::peer::ids_path;
use crate::workload::Context;

/// Long enough for threads to begin what they begin.
const PAUSE: Duration = Duration::from_millis(300);

pub fn memory_of_a_handle(context: &Context) -> Outcome {
    let ids = std::fs::read_to_string(ids_path(&context.directory))?;
    let run = ids.lines().next().ok_or("no run")?;
    let now = || memory_mib(std::process::id()).unwrap_or_default();
    ready();
    let before = now();
    let store = Store::open(&context.directory)?;
    std::thread::sleep(PAUSE);
    emit("idle_mib", now() - before);
    let points: Points = store.history(run, &long_key(3))?.collect()?;
    let answer_mib = points.len() as f64 * 24.0 / (1 << 20) as f64;
    emit("after_reading_mib", now() - before - answer_mib);
    drop(points);
    let series = store.experiment("compare")?.start_run(RunOptions::new().name("idle"))?.series("loss")?;
    series.log(0, 1.0)?;
    std::thread::sleep(PAUSE);
    emit("after_a_point_mib", now() - before);
    measured();
    Ok(())
}
