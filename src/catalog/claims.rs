//! Who holds a name: names and numeric ids are claims, identities are not.
//!
//! Contract: the claimant with the smallest (creation stamp, uid) holds a text; the others stay reachable by uid, or by
//! an id or number of their own, and are listed. Which claims exist follows from the entities alone, so two stores with
//! the same events agree, in whatever order they read them.

use std::collections::{BTreeMap, BTreeSet};

use super::Entity;
use crate::format::event::{EntityKind, Field};
use crate::id::{Stamp, Uid};

/// Whose claim it is, and the stamp that decides it.
pub(super) type Claimant = (Stamp, Uid);

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

/// One map of claims for each kind of entity.
#[derive(Clone, Debug, Default)]
pub(super) struct KindClaims(BTreeMap<EntityKind, ClaimMap>);

impl KindClaims {
    fn of_mut(&mut self, kind: EntityKind) -> &mut ClaimMap {
        self.0.entry(kind).or_default()
    }

    /// Who of a kind holds `text`, with the stamp that decided it.
    pub(super) fn holder(&self, kind: EntityKind, text: &str) -> Option<Claimant> {
        self.0.get(&kind)?.holder(text)
    }

    /// (text, holder, loser) of every lost claim of a kind.
    pub(super) fn lost(&self, kind: EntityKind) -> impl Iterator<Item = (&str, Uid, Uid)> {
        self.0.get(&kind).into_iter().flat_map(ClaimMap::lost)
    }
}

/// All claims of a catalog, and which entities belong to which.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// Names of experiments, trees and registered models.
    pub(super) names: KindClaims,
    /// Numeric ids of experiments, numbers of model versions (see [`version_claim`]), ids that are no uids.
    pub(super) ids: KindClaims,
    /// The id, or number, that follows from the uid: what an entity answers to where the one it claims is taken.
    pub(super) fallback_ids: KindClaims,
    /// Runs, logged models and traces of an experiment, versions of a registered model: by kind and that.
    children: BTreeMap<(EntityKind, Uid), BTreeSet<Uid>>,
}

/// What of an entity the claims depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    created: Stamp,
    name: Option<Box<str>>,
    id: Option<Box<str>>,
    fallback_id: Option<Box<str>>,
    parent: Option<Uid>,
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
            EntityKind::EXPERIMENT => Some(Self {
                created,
                name: text(Field::NAME),
                id: text(Field::NUMERIC_ID),
                fallback_id: Some(fallback_id(entity.uid()).into()),
                parent: None,
            }),
            EntityKind::TREE | EntityKind::REGISTERED_MODEL => {
                Some(Self { created, name: text(Field::NAME), ..Self::default() })
            }
            EntityKind::RUN | EntityKind::LOGGED_MODEL | EntityKind::TRACE => {
                let id = text(Field::RUN_ID_TEXT);
                // The creation of a run decides nothing unless it claims an id.
                let created = if id.is_some() { created } else { Stamp::default() };
                Some(Self { created, id, parent: entity.reference(Field::EXPERIMENT), ..Self::default() })
            }
            EntityKind::MODEL_VERSION => {
                let model = entity.reference(Field::MODEL);
                let claim = |number: Option<u64>| Some(version_claim(model?, number?).into());
                Some(Self {
                    created,
                    name: None,
                    id: claim(claimed_version(entity)),
                    fallback_id: claim(Some(fallback_version(entity.uid()))),
                    parent: model,
                })
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
            if let Some(parent) = facts.parent
                && let Some(children) = self.children.get_mut(&(kind, parent))
            {
                children.remove(&uid);
                if children.is_empty() {
                    self.children.remove(&(kind, parent));
                }
            }
        }
        if let Some(facts) = after {
            self.each(kind, uid, &facts, ClaimMap::add);
            if let Some(parent) = facts.parent {
                self.children.entry((kind, parent)).or_default().insert(uid);
            }
        }
    }

    fn each(&mut self, kind: EntityKind, uid: Uid, facts: &Facts, change: fn(&mut ClaimMap, &str, Claimant)) {
        let claimant = (facts.created, uid);
        let claims = [
            (&mut self.names, &facts.name),
            (&mut self.ids, &facts.id),
            (&mut self.fallback_ids, &facts.fallback_id),
        ];
        for (map, text) in claims {
            if let Some(text) = text {
                change(map.of_mut(kind), text, claimant);
            }
        }
    }

    /// Those of a kind that belong to an entity, by uid.
    pub(super) fn children(&self, kind: EntityKind, parent: Uid) -> impl Iterator<Item = Uid> {
        self.children.get(&(kind, parent)).into_iter().flatten().copied()
    }
}

/// What a version claims: its number is one within its model.
pub(super) fn version_claim(model: Uid, number: u64) -> String {
    format!("{model}/{number}")
}

/// The number that a version's register holds; none that is no number of a version.
pub(super) fn claimed_version(entity: &Entity) -> Option<u64> {
    entity.integer(Field::VERSION).and_then(|number| u64::try_from(number).ok())
}

/// The number that a version answers to where an older one has the one it claims: far above what is given out in turn,
/// and small enough for the 32 bits that MLflow's tables have for it.
pub(super) fn fallback_version(uid: Uid) -> u64 {
    let hash = u128::from_le_bytes(*uid.as_bytes()) % u128::from(VERSIONS_IN_TURN_MAX);
    VERSIONS_IN_TURN_MAX + u64::try_from(hash).unwrap_or(0)
}

/// Numbers below this are given out in turn.
pub(super) const VERSIONS_IN_TURN_MAX: u64 = 1_000_000_000;

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
