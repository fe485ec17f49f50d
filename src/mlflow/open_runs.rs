//! Runs that are being logged to, held open between requests.
//!
//! Contract: a handle knows its series, so a request does not look them up again; whether the run was deleted is looked
//! at again for every handle that was not asked for a second. So logging to a run that another process deleted is
//! refused within a second, and at once if it was deleted through this protocol ([`OpenRuns::close`]).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::store::{Run, Store};

/// Handles held at a time; the least recently checked half goes when there are more. A handle with a few series takes
/// some 5 KB, and opening it again well under a millisecond.
const RUNS_MAX: usize = 1_024;
/// How long a look at a run's lifecycle counts.
const CHECKED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct OpenRuns {
    runs: Mutex<HashMap<String, (Run, Instant)>>,
}

impl OpenRuns {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Run, Instant)>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The run with this id, to log to.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`]; [`crate::Error::InvalidState`] if it is deleted.
    pub(super) fn get(&self, store: &Store, id: &str) -> Result<Run> {
        let known = self.lock().get(id).cloned();
        let run = match known {
            Some((run, checked)) if checked.elapsed() < CHECKED_FOR => return Ok(run),
            Some((run, _)) => run,
            None => store.run(id)?,
        };
        run.check_active_again()?;
        self.keep(id, run.clone());
        Ok(run)
    }

    /// Holds a run open that was seen to be active just now.
    pub(super) fn keep(&self, id: &str, run: Run) {
        let mut runs = self.lock();
        if runs.len() >= RUNS_MAX && !runs.contains_key(id) {
            let mut checked: Vec<Instant> = runs.values().map(|(_, checked)| *checked).collect();
            checked.sort_unstable();
            let median = checked.get(checked.len() / 2).copied();
            runs.retain(|_, (_, checked)| Some(*checked) > median);
        }
        runs.insert(id.to_owned(), (run, Instant::now()));
    }

    /// Forgets that a run was active; or all runs, where an experiment changed.
    pub(super) fn close(&self, id: Option<&str>) {
        let mut runs = self.lock();
        match id {
            Some(id) => {
                runs.remove(id);
            }
            None => runs.clear(),
        }
    }
}
