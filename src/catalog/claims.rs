//! Who holds a name: names and numeric ids are claims, identities are not.
//!
//! Contract: the claimant with the smallest (creation stamp, uid) holds a text; the others stay reachable by uid and
//! are listed. Which claims exist follows from the entities alone, so two stores with the same events agree, in
//! whatever order they read them.

use std::collections::{BTreeMap, BTreeSet};

use super::Entity;
use crate::format::event::{EntityKind, Field};
use crate::id::{Stamp, Uid};

type Claimant = (Stamp, Uid);

/// The claimants of each text, the holder first.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimMap(BTreeMap<Box<str>, Vec<Claimant>>);

impl ClaimMap {
    fn add(&mut self, text: &str, claimant: Claimant) {
        match self.0.get_mut(text) {
            Some(claimants) => {
                if let Err(at) = claimants.binary_search(&claimant) {
                    claimants.insert(at, claimant);
                }
            }
            None => {
                self.0.insert(text.into(), vec![claimant]);
            }
        }
    }

    fn remove(&mut self, text: &str, claimant: Claimant) {
        if let Some(claimants) = self.0.get_mut(text) {
            claimants.retain(|c| *c != claimant);
            if claimants.is_empty() {
                self.0.remove(text);
            }
        }
    }

    /// Who holds `text`, with the stamp that decided it.
    pub(super) fn holder(&self, text: &str) -> Option<Claimant> {
        self.0.get(text)?.first().copied()
    }

    /// (text, holder, loser) of every lost claim.
    pub(super) fn lost(&self) -> impl Iterator<Item = (&str, Uid, Uid)> {
        self.0.iter().flat_map(|(text, claimants)| {
            let holder = claimants.first().map(|c| c.1).unwrap_or_default();
            claimants.iter().skip(1).map(move |(_, loser)| (&**text, holder, *loser))
        })
    }
}

/// All claims of a catalog, and which runs an experiment has.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    pub(super) experiment_names: ClaimMap,
    pub(super) experiment_ids: ClaimMap,
    /// Every experiment's own id, derived from its uid: what it answers to where its numeric id is taken.
    pub(super) fallback_ids: ClaimMap,
    pub(super) tree_names: ClaimMap,
    pub(super) run_ids: ClaimMap,
    pub(super) runs: BTreeMap<Uid, BTreeSet<Uid>>,
}

/// What of an entity the claims depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    created: Stamp,
    name: Option<Box<str>>,
    id: Option<Box<str>>,
    experiment: Option<Uid>,
}

impl Facts {
    /// Nothing for purged entities and for kinds without claims.
    pub(super) fn of(entity: &Entity) -> Option<Self> {
        if entity.is_purged() {
            return None;
        }
        let text = |field| entity.text(field).map(Box::from);
        let created = entity.created();
        match entity.kind() {
            EntityKind::EXPERIMENT => {
                Some(Self { created, name: text(Field::NAME), id: text(Field::NUMERIC_ID), experiment: None })
            }
            EntityKind::TREE => Some(Self { created, name: text(Field::NAME), ..Self::default() }),
            EntityKind::RUN => {
                let id = text(Field::RUN_ID_TEXT);
                // The creation of a run decides nothing unless it claims an id.
                let created = if id.is_some() { created } else { Stamp::default() };
                Some(Self { created, name: None, id, experiment: entity.reference(Field::EXPERIMENT) })
            }
            _ => None,
        }
    }
}

impl Claims {
    /// Replaces what an entity claimed before by what it claims now.
    pub(super) fn update(&mut self, kind: EntityKind, uid: Uid, before: Option<Facts>, after: Option<Facts>) {
        if before == after {
            return;
        }
        if let Some(facts) = before {
            self.each(kind, uid, &facts, ClaimMap::remove);
            if let Some(experiment) = facts.experiment
                && let Some(runs) = self.runs.get_mut(&experiment)
            {
                runs.remove(&uid);
                if runs.is_empty() {
                    self.runs.remove(&experiment);
                }
            }
        }
        if let Some(facts) = after {
            self.each(kind, uid, &facts, ClaimMap::add);
            if let Some(experiment) = facts.experiment {
                self.runs.entry(experiment).or_default().insert(uid);
            }
        }
    }

    fn each(&mut self, kind: EntityKind, uid: Uid, facts: &Facts, change: fn(&mut ClaimMap, &str, Claimant)) {
        let claimant = (facts.created, uid);
        let (names, ids) = match kind {
            EntityKind::EXPERIMENT => {
                change(&mut self.fallback_ids, &fallback_id(uid), claimant);
                (&mut self.experiment_names, &mut self.experiment_ids)
            }
            EntityKind::TREE => (&mut self.tree_names, &mut self.run_ids),
            _ => (&mut self.experiment_names, &mut self.run_ids),
        };
        if let Some(name) = &facts.name {
            change(names, name, claimant);
        }
        if let Some(id) = &facts.id {
            change(ids, id, claimant);
        }
    }
}

/// The experiment id that follows from the uid: 18 decimal digits, as MLflow's random ones.
pub fn fallback_id(uid: Uid) -> String {
    const FIRST: u128 = 100_000_000_000_000_000;
    (FIRST + u128::from_le_bytes(*uid.as_bytes()) % (9 * FIRST)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_from_uids_have_18_digits() {
        for byte in [0, 1, 127, 255] {
            let id = fallback_id(Uid::from_bytes([byte; 16]));
            assert!(id.len() == 18 && !id.starts_with('0') && id.bytes().all(|b| b.is_ascii_digit()), "{id}");
        }
        assert_ne!(fallback_id(Uid::from_bytes([1; 16])), fallback_id(Uid::from_bytes([2; 16])));
    }

    #[test]
    fn the_older_claimant_holds_a_text_whoever_came_first() {
        let stamp = |millis| Stamp { millis, ..Stamp::default() };
        let (old, young) = ((stamp(1), Uid::from_bytes([9; 16])), (stamp(2), Uid::from_bytes([1; 16])));
        let mut map = ClaimMap::default();
        map.add("mnist", young);
        assert_eq!(map.holder("mnist"), Some(young));
        map.add("mnist", old);
        map.add("mnist", young);
        assert_eq!(map.holder("mnist"), Some(old));
        assert_eq!(map.lost().collect::<Vec<_>>(), [("mnist", old.1, young.1)]);
        map.remove("mnist", old);
        assert_eq!(map.holder("mnist"), Some(young));
        map.remove("mnist", young);
        assert!(map.0.is_empty());
    }
}
