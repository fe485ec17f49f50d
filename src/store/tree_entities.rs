//! What an import knows of the entities of the store it writes to.
//!
//! Contract: of every entity the kind and the tree it came from are in memory, some 40 bytes; in full only the few that
//! were asked for last. So memory does not grow by what the runs of a tree say. What was let go of is read from the log
//! again, own writes included. What others write meanwhile is not looked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use crate::error::Result;
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::Uid;
use crate::mlruns::Registers;
use crate::store::Store;
use crate::store::state::Want;

/// Entities kept in full: those of the run under way, of its experiment and of runs it may be mistaken for.
const RECENT_MAX: usize = 64;

/// The kinds that trees have.
pub(super) const KINDS: [EntityKind; 8] = [
    EntityKind::EXPERIMENT,
    EntityKind::RUN,
    EntityKind::DATASET,
    EntityKind::TREE,
    EntityKind::REGISTERED_MODEL,
    EntityKind::MODEL_VERSION,
    EntityKind::LOGGED_MODEL,
    EntityKind::TRACE,
];

#[derive(Clone, Copy, Debug)]
struct Known {
    kind: EntityKind,
    purged: bool,
    /// This import wrote points of it.
    has_new_points: bool,
    /// Place of its tree in [`KnownEntities::trees`].
    tree: Option<u32>,
}

/// The entities of a store, for the length of an import.
pub(super) struct KnownEntities<'a> {
    store: &'a Store,
    all: BTreeMap<Uid, Known>,
    trees: Vec<Uid>,
    /// Runs that were taken anew: from what, and as what.
    replaced: Vec<(Uid, Uid)>,
    /// Those in full, oldest question first.
    recent: RefCell<VecDeque<Uid>>,
}

impl<'a> KnownEntities<'a> {
    /// Looks at every entity once.
    pub(super) fn of(store: &'a Store) -> Result<Self> {
        let (all, recent) = (BTreeMap::new(), RefCell::default());
        let mut known = Self { store, all, trees: Vec::new(), replaced: Vec::new(), recent };
        let inner = store.inner();
        let mut state = inner.lock_state();
        state.refresh(&inner.reader)?;
        if inner.options.skip_damage {
            // Everything is loaded then, also what only the index knows.
            inner.ensure(&mut state, Want::All)?;
        }
        let mut uids: Vec<Uid> = state.view().entities().into_keys().collect();
        uids.extend(state.catalog.entries().map(|entity| entity.uid()));
        uids.sort_unstable();
        uids.dedup();
        for uid in uids {
            let was_loaded = state.has(Want::Entity(uid));
            inner.ensure(&mut state, Want::Entity(uid))?;
            let entities: Vec<_> =
                KINDS.into_iter().filter_map(|kind| state.catalog.entry(kind, uid)).collect();
            if let Some(entity) = entities.iter().find(|e| !e.is_purged()).or(entities.first()) {
                let replaces = entity.reference(Field::REPLACES).filter(|_| !entity.is_purged());
                known.note(entity.kind(), uid, entity.reference(Field::TREE), replaces);
                known.note_purged(uid, entity.is_purged());
            }
            for kind in [EntityKind::TREE, EntityKind::EXPERIMENT] {
                state.derive(kind, uid);
            }
            if !was_loaded {
                state.forget(uid);
            }
        }
        for entity in state.derived() {
            known.note(entity.kind(), entity.uid(), entity.reference(Field::TREE), None);
        }
        drop(state);
        Ok(known)
    }

    fn note(&mut self, kind: EntityKind, uid: Uid, tree: Option<Uid>, replaces: Option<Uid>) {
        let place = tree.and_then(|tree| {
            let place = self.trees.iter().rposition(|known| *known == tree).unwrap_or_else(|| {
                self.trees.push(tree);
                self.trees.len() - 1
            });
            u32::try_from(place).ok()
        });
        let new = Known { kind, purged: false, has_new_points: false, tree: None };
        let known = self.all.entry(uid).or_insert(new);
        known.tree = place.or(known.tree);
        if let Some(first) = replaces.filter(|_| kind == EntityKind::RUN) {
            self.replaced.push((first, uid));
        }
    }

    fn note_purged(&mut self, uid: Uid, purged: bool) {
        if let Some(known) = self.all.get_mut(&uid) {
            known.purged |= purged;
        }
    }

    /// Loads what operations are about, so that they are applied to all of it.
    pub(super) fn before(&self, operations: &[Operation]) -> Result<()> {
        let mut last = None;
        for operation in operations {
            if last.replace(operation.uid) != Some(operation.uid) && self.all.contains_key(&operation.uid) {
                self.load(operation.uid)?;
            }
        }
        Ok(())
    }

    /// Takes in what was written.
    pub(super) fn wrote(&mut self, kind: EntityKind, uid: Uid, tree: Option<Uid>, purged: bool) {
        let is_new = !self.all.contains_key(&uid);
        self.note(kind, uid, tree, None);
        self.note_purged(uid, purged);
        // What somebody else loaded is not this import's to let go of.
        if is_new {
            self.keep(uid);
        }
    }

    /// What operations say of trees and purges: (kind, uid, tree, purged), once for neighbours of one entity.
    pub(super) fn told(operations: &[Operation]) -> Vec<(EntityKind, Uid, Option<Uid>, bool)> {
        let of_entity = operations.chunk_by(|a, b| (a.kind, a.uid) == (b.kind, b.uid));
        of_entity
            .filter_map(|group| {
                let first = group.first()?;
                let tree = group.iter().find_map(|o| match &o.value {
                    Value::Uid(tree) if o.field == Field::TREE => Some(*tree),
                    _ => None,
                });
                let purged =
                    group.iter().any(|o| o.field == Field::PURGED && matches!(o.value, Value::Flag(true)));
                Some((first.kind, first.uid, tree, purged))
            })
            .collect()
    }

    /// Makes sure that all of an entity is in memory.
    fn load(&self, uid: Uid) -> Result<()> {
        let is_new = !self.store.inner().lock_state().has(Want::Entity(uid));
        if is_new {
            drop(self.store.inner().held(Want::Entity(uid))?);
        }
        if is_new || self.recent.borrow().contains(&uid) {
            self.keep(uid);
        }
        Ok(())
    }

    /// Keeps an entity in full, and lets go of the one that nobody asked for longest.
    fn keep(&self, uid: Uid) {
        let mut recent = self.recent.borrow_mut();
        recent.retain(|known| *known != uid);
        recent.push_back(uid);
        if recent.len() > RECENT_MAX
            && let Some(oldest) = recent.pop_front()
        {
            self.store.inner().lock_state().forget(oldest);
        }
    }

    pub(super) fn kind(&self, uid: Uid) -> Option<EntityKind> {
        self.all.get(&uid).filter(|known| !known.purged).map(|known| known.kind)
    }

    /// The registers of an entity, tombstones included.
    pub(super) fn registers(&self, uid: Uid) -> Result<Registers> {
        if !self.all.contains_key(&uid) {
            return Ok(Registers::new());
        }
        self.load(uid)?;
        let state = self.store.inner().held(Want::Entity(uid))?;
        Ok(super::trees::known_registers(&state.catalog, uid))
    }

    /// Those of a kind that exist, by uid.
    pub(super) fn of_kind(&self, kind: EntityKind) -> Vec<Uid> {
        let of_kind = self.all.iter().filter(|(_, known)| known.kind == kind && !known.purged);
        of_kind.map(|(uid, _)| *uid).collect()
    }

    /// Those of a kind that came from a tree.
    pub(super) fn of_tree(&self, kind: EntityKind, tree: Uid) -> Vec<Uid> {
        let place = self.trees.iter().position(|known| *known == tree).and_then(|at| u32::try_from(at).ok());
        let is_of_it = |known: &Known| known.kind == kind && !known.purged && known.tree == place;
        let found = self.all.iter().filter(|(_, known)| place.is_some() && is_of_it(known));
        found.map(|(uid, _)| *uid).collect()
    }

    /// Runs that were taken anew, as the store had them when the import began: from what, and as what.
    pub(super) fn replaced(&self) -> Vec<(Uid, Uid)> {
        self.replaced.clone()
    }

    pub(super) fn note_points(&mut self, run: Uid) {
        if let Some(known) = self.all.get_mut(&run) {
            known.has_new_points = true;
        }
    }

    pub(super) fn has_new_points(&self, run: Uid) -> bool {
        self.all.get(&run).is_some_and(|known| known.has_new_points)
    }
}
