//! R4: from nothing open to one run's params, tags and latest metrics, with files out of the page cache and in it.

use crate::Outcome;
use crate::data::SmallRuns;
use crate::measure::{Stopwatch, drop_cache, emit, measured, median, ready};
use crate::peer::{Peer, RunView};
use crate::workload::Context;

/// Opens of each kind.
const TIMES: usize = 5;

pub fn open_and_read<P: Peer>(context: &Context) -> Outcome {
    let number = context.sizes.runs / 2;
    let expected = SmallRuns::new().nth(number).ok_or("no run")?;
    ready();
    for (metric, is_cold) in [("cold_ms", true), ("warm_ms", false)] {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            if is_cold {
                drop_cache(&context.directory)?;
            }
            let watch = Stopwatch::start();
            let store: P = context.open()?;
            let run = store.run(number)?;
            times.push(watch.seconds() * 1e3);
            run.check(&expected)?;
            store.close()?;
        }
        emit(metric, median(&times));
    }
    measured();
    Ok(())
}
