//! R1 to R3: questions to a store that was closed, asked several times in one process.

use crate::Outcome;
use crate::data::{LongRun, SmallRun, SmallRuns, TOP};
use crate::measure::{measured, ready, timed};
use crate::peer::{Columns, Peer, RunView};
use crate::workload::Context;

/// The key that is asked for.
const KEY: usize = 3;

pub fn history<P: Peer>(context: &Context) -> Outcome {
    ready();
    let store: P = context.open()?;
    let columns = timed("", context.sizes.questions, || store.history(KEY))?;
    measured();
    check_columns(&columns, &LongRun::new(), KEY, context.sizes.steps)
}

pub fn check_history<P: Peer>(store: &P, data: &LongRun, key: usize, steps: usize) -> Outcome {
    check_columns(&store.history(key)?, data, key, steps)
}

fn check_columns(columns: &Columns, data: &LongRun, key: usize, steps: usize) -> Outcome {
    let is_same = columns.steps.iter().copied().eq(0..steps as i64)
        && columns.timestamps_ms == data.timestamps_ms[..steps]
        && columns.values == data.values[key][..steps];
    if is_same { Ok(()) } else { Err(format!("the history of key {key} came back changed").into()) }
}

pub fn all_runs<P: Peer>(context: &Context) -> Outcome {
    ready();
    let store: P = context.open()?;
    let mut runs = timed("", context.sizes.questions, || store.runs())?;
    measured();
    runs.sort_by_key(RunView::number);
    check_runs(&runs, SmallRuns::new().take(context.sizes.runs))
}

pub fn top_runs<P: Peer>(context: &Context, runs: usize) -> Outcome {
    ready();
    let store: P = context.open()?;
    let found = timed("", context.sizes.questions, || store.top())?;
    measured();
    let mut wanted: Vec<SmallRun> = SmallRuns::new().take(runs).filter(SmallRun::is_wanted).collect();
    wanted.sort_by(|a, b| b.last(3).total_cmp(&a.last(3)));
    wanted.truncate(TOP);
    check_runs(&found, wanted.into_iter())
}

/// Fails unless these are the expected runs, in order and whole.
fn check_runs<R: RunView>(runs: &[R], expected: impl Iterator<Item = SmallRun>) -> Outcome {
    let mut count = 0;
    for (at, expected) in expected.enumerate() {
        runs.get(at).ok_or_else(|| format!("only {} runs came back", runs.len()))?.check(&expected)?;
        count += 1;
    }
    if runs.len() == count { Ok(()) } else { Err(format!("{} runs instead of {count}", runs.len()).into()) }
}
