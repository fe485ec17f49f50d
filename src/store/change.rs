//! How metadata changes: one event, made from a catalog that is still true when it is written.
//!
//! Contract: a change that claims something (a name, a param of somebody else's run) holds the store's lock between
//! its look at the catalog and its write; every other change only keeps out those of this process. What was written
//! counts in the catalog of this process before the call returns.

use std::sync::PoisonError;
use std::time::Duration;

use super::Inner;
use super::state::{State, Want, claim_lock};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::format::event::Operation;
use crate::id::Stamp;
use crate::log::BulkColumn;

impl Inner {
    pub(crate) fn claim_timeout(&self) -> Duration {
        Duration::from_millis(self.options.stall_timeout_ms)
    }

    /// Changes metadata: `change` sees the current catalog and says what to write; nothing is written if it says
    /// nothing. A `claim` (a name, a param of somebody else's run) holds the store's lock meanwhile.
    pub(crate) fn change(
        &self,
        wants: &[Want],
        claim: bool,
        change: impl FnOnce(&Catalog) -> Result<Vec<Operation>>,
    ) -> Result<Option<Stamp>> {
        self.change_with(wants, claim, &[], change)
    }

    /// The same, with columns of own series that count only together with the change.
    pub(crate) fn change_with(
        &self,
        wants: &[Want],
        claim: bool,
        columns: &[BulkColumn<'_>],
        change: impl FnOnce(&Catalog) -> Result<Vec<Operation>>,
    ) -> Result<Option<Stamp>> {
        let writer = self.writer()?;
        let mut held = None;
        if claim {
            // Caught up before, so that under the lock only the delta is read.
            self.prepare(&mut self.lock_state(), wants, true)?;
            held = claim_lock(self.vfs.as_ref(), &self.root, self.medium, self.claim_timeout())?;
        }
        let one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, event) = {
            let mut state = self.lock_state();
            self.prepare(&mut state, wants, claim)?;
            let operations = change(&state.catalog)?;
            if operations.is_empty() && columns.is_empty() {
                return Ok(None);
            }
            (state.underived(&operations)?, state.event(operations)?)
        };
        // They have stamps of long ago and change nothing, so it does not matter how far a crash lets them come.
        before.iter().try_for_each(|event| writer.append_event_with(event, &[]))?;
        writer.append_event_with(&event, columns)?;
        let stamp = {
            let mut state = self.lock_state();
            before.iter().try_for_each(|event| state.wrote(event).map(drop))?;
            state.wrote(&event)?
        };
        drop(one);
        drop(held);
        // Without any lock, so that callers at the same time share one sync.
        writer.sync_if_always()?;
        Ok(Some(stamp))
    }

    /// Loads what is wanted, and takes in what is new if that matters.
    fn prepare(&self, state: &mut State, wants: &[Want], is_claim: bool) -> Result<()> {
        if is_claim || wants.iter().any(|want| !state.has(*want)) {
            state.refresh(&self.reader)?;
        }
        wants.iter().try_for_each(|want| self.ensure(state, *want))
    }
}
