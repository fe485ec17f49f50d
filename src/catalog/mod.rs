//! Metadata: from events to the state of experiments, runs, data sets and trees; MLflow's rules about them. Pure: no
//! I/O, no clock, no randomness of its own.
//!
//! Contract: a [`Catalog`] is a function of the set of events and rows it was given, in whatever order and however
//! often: [`Entity`] merges registers, claims follow from the entities. A well-formed event is never rejected for a
//! rule: rules ([`rules`]) are for calls, and the operations of a call come from [`changes`]. Entities are shared
//! (`Arc`) and copied on write, so what a reader holds never changes.

pub mod changes;
mod claims;
mod clock;
mod conflicts;
mod entity;
mod logged_models;
mod names;
mod registry;
mod render;
pub mod rules;
mod spans;
mod traces;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use claims::fallback_id;
pub use clock::{Clock, check_stamp};
pub use conflicts::Conflict;
pub use entity::{CANDIDATES_MAX, Entity, Losing};
pub use logged_models::{logged_model_id, logged_model_uid};
pub use names::run_name;
pub use registry::{DELETED_STAGE, is_deleted_version};
pub use render::{render_dataset, run_id};
pub use spans::{SpanRef, decode_span, encode_span, spans_of};
pub use traces::{decode_assessment, encode_assessment, trace_id, trace_uid};

use crate::error::Malformed;
use crate::format::event::{EntityKind, Event, EventRef, Field, OperationRef};
use crate::id::Uid;
use claims::{Claims, Facts};

/// The state of all metadata, or of the part of it that was loaded.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    entities: BTreeMap<(EntityKind, Uid), Arc<Entity>>,
    claims: Claims,
}

impl Catalog {
    /// A catalog that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an event. Doing so again changes nothing.
    ///
    /// # Errors
    /// [`Malformed`] when its stamp is past the year 2200: damage, to be reported; nothing is applied.
    pub fn apply(&mut self, event: &Event) -> Result<(), Malformed> {
        self.apply_if(&event.borrow(), |_, _| true)
    }

    /// Applies what an event, as it lies in its record, says about the entities that `wanted` names; others are left as
    /// they are, for the store to load when somebody asks.
    ///
    /// # Errors
    /// As [`Catalog::apply`].
    pub fn apply_if(
        &mut self,
        event: &EventRef<'_>,
        wanted: impl Fn(EntityKind, Uid) -> bool,
    ) -> Result<(), Malformed> {
        check_stamp(event.stamp)?;
        let entity = |o: &OperationRef<'_>| (o.kind, o.uid);
        let Some(first) = event.operations.first().map(entity) else { return Ok(()) };
        let ordered;
        let is_single = event.operations.iter().all(|o| entity(o) == first);
        let grouped = if is_single || event.operations.is_sorted_by_key(entity) {
            &event.operations
        } else {
            ordered = {
                let mut copy = event.operations.clone();
                copy.sort_by_key(entity);
                copy
            };
            &ordered
        };
        for group in grouped.chunk_by(|a, b| entity(a) == entity(b)) {
            let Some((kind, uid)) = group.first().map(entity) else { continue };
            if wanted(kind, uid) {
                let new = || Entity::new(kind, uid, event.stamp);
                self.change(kind, uid, new, |e| e.apply(event.stamp, group));
            }
        }
        Ok(())
    }

    /// Takes over a row of the index: merged with what is known of the entity.
    pub fn insert(&mut self, row: Entity) {
        let (kind, uid) = (row.kind(), row.uid());
        if self.entities.contains_key(&(kind, uid)) {
            self.change(kind, uid, || Entity::new(kind, uid, row.created()), |e| e.merge(&row));
        } else {
            self.claims.update(kind, uid, None, Facts::of(&row));
            self.entities.insert((kind, uid), Arc::new(row));
        }
    }

    /// Forgets an entity, so that the store can keep its memory bounded; it comes back with [`Catalog::insert`].
    pub fn evict(&mut self, kind: EntityKind, uid: Uid) {
        if let Some(entity) = self.entities.remove(&(kind, uid)) {
            self.claims.update(kind, uid, Facts::of(&entity), None);
        }
    }

    fn change(
        &mut self,
        kind: EntityKind,
        uid: Uid,
        new: impl FnOnce() -> Entity,
        change: impl FnOnce(&mut Entity),
    ) {
        let mut is_new = false;
        let entity = self.entities.entry((kind, uid)).or_insert_with(|| {
            is_new = true;
            Arc::new(new())
        });
        let before = if is_new { None } else { Facts::of(entity) };
        let entity = Arc::make_mut(entity);
        change(entity);
        self.claims.update(kind, uid, before, Facts::of(entity));
    }

    /// An entity that exists; not one that was purged.
    pub fn get(&self, kind: EntityKind, uid: Uid) -> Option<&Arc<Entity>> {
        self.entry(kind, uid).filter(|e| !e.is_purged())
    }

    /// An entity or its tombstone.
    pub fn entry(&self, kind: EntityKind, uid: Uid) -> Option<&Arc<Entity>> {
        self.entities.get(&(kind, uid))
    }

    /// Everything that is known, tombstones and unknown kinds included: what an index keeps.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Arc<Entity>> {
        self.entities.values()
    }

    /// All entities of a kind that exist, by uid.
    pub fn of_kind(&self, kind: EntityKind) -> impl Iterator<Item = &Arc<Entity>> {
        let range = (kind, Uid::from_bytes([0; 16]))..=(kind, Uid::from_bytes([0xff; 16]));
        self.entities.range(range).map(|(_, entity)| entity).filter(|e| !e.is_purged())
    }

    /// All experiments, deleted ones included, by uid.
    pub fn experiments(&self) -> impl Iterator<Item = &Arc<Entity>> {
        self.of_kind(EntityKind::EXPERIMENT)
    }

    /// An experiment by uid.
    pub fn experiment(&self, uid: Uid) -> Option<&Arc<Entity>> {
        self.get(EntityKind::EXPERIMENT, uid)
    }

    /// The experiment that holds a name; deleted ones hold theirs.
    pub fn experiment_by_name(&self, name: &str) -> Option<&Arc<Entity>> {
        self.experiment(self.claims.names.holder(EntityKind::EXPERIMENT, name)?.1)
    }

    /// The experiment that answers to a numeric id: its holder, or the one whose own id it is.
    pub fn experiment_by_id(&self, id: &str) -> Option<&Arc<Entity>> {
        let Claims { ids, fallback_ids, .. } = &self.claims;
        let kind = EntityKind::EXPERIMENT;
        self.experiment(ids.holder(kind, id).or_else(|| fallback_ids.holder(kind, id))?.1)
    }

    /// The numeric id that an experiment answers to: the one it claims, or its own where an older one holds that.
    pub fn experiment_id(&self, uid: Uid) -> String {
        let claimed = self.experiment(uid).and_then(|e| e.text(Field::NUMERIC_ID));
        match claimed {
            Some(id) if self.holds_id(EntityKind::EXPERIMENT, id, uid) => id.to_owned(),
            _ => fallback_id(uid),
        }
    }

    /// Whether an entity holds the id that it claims.
    fn holds_id(&self, kind: EntityKind, id: &str, uid: Uid) -> bool {
        self.claims.ids.holder(kind, id).is_some_and(|holder| holder.1 == uid)
    }

    /// A run by uid.
    pub fn run(&self, uid: Uid) -> Option<&Arc<Entity>> {
        self.get(EntityKind::RUN, uid)
    }

    /// A run by its id: 32 hex digits, or the odd spelling of an imported one.
    pub fn run_by_id(&self, id: &str) -> Option<&Arc<Entity>> {
        self.spelt(EntityKind::RUN, id, id.parse().ok())
    }

    /// The entity of a kind that an id names: the one that has it as text, or the one whose uid it stands for,
    /// whichever is older.
    fn spelt(&self, kind: EntityKind, id: &str, uid: Option<Uid>) -> Option<&Arc<Entity>> {
        let spelt = self.claims.ids.holder(kind, id).and_then(|(_, uid)| self.get(kind, uid));
        let own = uid.and_then(|uid| self.get(kind, uid));
        match (spelt, own) {
            (Some(a), Some(b)) => Some(if (a.created(), a.uid()) <= (b.created(), b.uid()) { a } else { b }),
            (spelt, own) => spelt.or(own),
        }
    }

    /// The runs of an experiment that are loaded, deleted ones included, by uid.
    pub fn runs_of(&self, experiment: Uid) -> impl Iterator<Item = &Arc<Entity>> {
        self.claims.children(EntityKind::RUN, experiment).filter_map(|uid| self.run(uid))
    }

    /// The imported tree that holds a name.
    pub fn tree_by_name(&self, name: &str) -> Option<&Arc<Entity>> {
        self.get(EntityKind::TREE, self.claims.names.holder(EntityKind::TREE, name)?.1)
    }
}
