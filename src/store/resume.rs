//! Going on with a run that was begun before.
//!
//! Contract: resuming is a claim: it takes the store's lock, so that a run is not marked as failed meanwhile
//! ([`Store::reap_runs`]). Points of the process that resumes are a new origin; ordinals of the old ones stay.

use crate::catalog::changes;
use crate::error::Result;
use crate::store::state::Want;
use crate::store::{Run, Store};

impl Store {
    /// Goes on with a run: its status is running again, its end is taken back. [`Run::last_step`] says where it got to.
    /// A handle from [`Store::run`] logs just as well, but leaves the status as it is.
    ///
    /// ```
    /// # fn main() -> mlrs_db::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = mlrs_db::Store::open(directory.path().join("my-store"))?;
    /// # let run = store.experiment("mnist")?.start_run(mlrs_db::RunOptions::new())?;
    /// # run.log_metric("loss", 41, 0.5)?;
    /// # run.finish(mlrs_db::RunStatus::Failed)?;
    /// # let id = run.id().to_owned();
    /// let run = store.resume_run(&id)?;
    /// let first = run.last_step("loss")?.map_or(0, |step| step + 1);
    /// assert_eq!(first, 42);
    /// # assert_eq!(run.data()?.status, mlrs_db::RunStatus::Running);
    /// # assert_eq!(run.data()?.end_ms, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::NotFound`]; [`crate::Error::InvalidState`] if it is deleted; [`crate::Error::Busy`] if somebody
    /// holds the store's lock for too long.
    pub fn resume_run(&self, id: &str) -> Result<Run> {
        let run = self.run(id)?;
        let uid = run.uid();
        self.inner().change(&[Want::Entity(uid)], true, |catalog| changes::resume_run(catalog, uid))?;
        Ok(run)
    }
}

impl Run {
    /// The greatest step of a metric, by whomever it was logged; none if it never was. From summaries: the cost does
    /// not grow with the points (what no directory covers yet, at most 4 MiB per writer, is decoded).
    ///
    /// # Errors
    /// Whatever reading the log says.
    pub fn last_step(&self, key: &str) -> Result<Option<i64>> {
        self.store().last_step_of(self.uid(), key)
    }
}
