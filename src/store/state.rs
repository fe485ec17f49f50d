//! Metadata in memory: which entities are loaded, and how they follow the log.
//!
//! Contract: an entity is loaded from the events of all segments when somebody first asks, and kept current at every
//! refresh. Order and repetition of events do not matter (`catalog`), so what this process wrote itself is applied at
//! once and again, harmlessly, when it is read back.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::{Catalog, Clock, Entity};
use crate::error::{Error, Result};
use crate::format::event::{EntityKind, Event, Field, Operation};
use crate::id::{Stamp, Uid, WriterId};
use crate::log::{LogReader, Medium, View, event_offsets, read_intact_event};
use crate::mlruns::BlobRef;
use crate::mlruns::derive::{self, may_have_entities};
use crate::store::indexing::IndexImage;
use crate::store::trees::registers_of;
use crate::vfs::{HeldLock, Vfs, process};

/// What must be in memory before a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// One entity.
    Entity(Uid),
    /// All experiments (their names are claims).
    Experiments,
    /// All registered models and their versions (names and numbers are claims).
    Registry,
    /// Everything.
    All,
}

impl Want {
    /// The kinds that are wanted as a whole.
    fn kinds(self) -> &'static [EntityKind] {
        match self {
            Self::Experiments => &[EntityKind::EXPERIMENT],
            // Trees, because they may hold files of models that this store was too old to know as such.
            Self::Registry => &[EntityKind::TREE, EntityKind::REGISTERED_MODEL, EntityKind::MODEL_VERSION],
            Self::Entity(_) | Self::All => &[],
        }
    }
}

/// The catalog as far as it is loaded.
#[derive(Debug)]
pub(crate) struct State {
    pub catalog: Catalog,
    pub clock: Clock,
    view: Arc<View>,
    loaded: HashSet<Uid>,
    /// Let go of since the view was taken, which may know less of them than was written.
    forgotten: HashSet<Uid>,
    /// Kinds that are loaded as a whole.
    kinds: Vec<EntityKind>,
    all: bool,
    /// Entities that only follow from files (`mlruns::derive`), as the events that would have made them: they are
    /// written before something of them is changed, so that what the log has of an entity is all of it.
    derived: HashMap<Uid, Derived>,
}

/// An entity that only follows from files.
#[derive(Debug)]
struct Derived {
    /// The entity that keeps the files.
    source: Uid,
    events: Vec<Event>,
}

impl State {
    /// Nothing is loaded yet.
    pub(crate) fn new(writer: WriterId) -> Self {
        Self {
            catalog: Catalog::new(),
            clock: Clock::new(writer),
            view: Arc::default(),
            loaded: HashSet::new(),
            forgotten: HashSet::new(),
            kinds: Vec::new(),
            all: false,
            derived: HashMap::new(),
        }
    }

    /// Takes in what was logged since the last look, by anybody.
    pub(crate) fn refresh(&mut self, reader: &LogReader) -> Result<()> {
        let next = reader.refresh()?;
        self.follow(next)?;
        self.forgotten.clear();
        Ok(())
    }

    /// Takes in what a newer view has.
    pub(crate) fn follow(&mut self, next: Arc<View>) -> Result<()> {
        if Arc::ptr_eq(&next, &self.view) {
            return Ok(());
        }
        let known = Arc::clone(&self.view);
        // One at a time: of a large import there are more than memory should hold.
        if self.all || !self.kinds.is_empty() || !self.loaded.is_empty() {
            next.new_events(&known, &mut |event| self.apply_loaded(&event))?;
        }
        // Only now: what could not be read is still new the next time, and what was applied may be applied again.
        self.view = next;
        Ok(())
    }

    fn apply_loaded(&mut self, event: &Event) {
        let (all, kinds, loaded) = (self.all, &self.kinds, &self.loaded);
        let wanted = |kind: EntityKind, uid: Uid| all || kinds.contains(&kind) || loaded.contains(&uid);
        // A stamp from beyond the year 2200 is damage: the event does not count, and `verify` names it.
        if self.catalog.apply_if(&event.borrow(), wanted).is_ok() {
            let _ = self.clock.observe(event.stamp);
        }
        let files = event.operations.iter().filter(|o| o.field == Field::FILE);
        let mut sources: Vec<_> =
            files.filter(|o| may_have_entities(o.kind, &o.key)).map(|o| (o.kind, o.uid)).collect();
        sources.dedup();
        for (kind, uid) in sources {
            if self.all
                || self.kinds.contains(&kind)
                || (kind == EntityKind::RUN && self.loaded.contains(&uid))
            {
                self.derive(kind, uid);
            }
        }
    }

    /// Reads blobs of the log; nothing of those that cannot be had.
    pub(crate) fn blob_reader(&self) -> impl Fn(BlobRef) -> Option<Vec<u8>> + use<> {
        let view = Arc::clone(&self.view);
        move |blob| {
            let mut bytes = Vec::new();
            view.blob_reader(blob.id).ok()??.read_to_end(&mut bytes).ok()?;
            Some(bytes)
        }
    }

    /// Takes in what an entity that was imported by an older program says of others.
    pub(crate) fn derive(&mut self, kind: EntityKind, uid: Uid) {
        let Some(entity) = self.catalog.get(kind, uid) else { return };
        if !entity.entries(Field::FILE).any(|(key, ..)| may_have_entities(kind, key)) {
            return;
        }
        let registers = registers_of(entity);
        let read_blob = self.blob_reader();
        let is_taken = |of: EntityKind, own: Uid| {
            let known = self.catalog.entry(of, own).and_then(|entity| entity.reference(Field::EXPERIMENT));
            known.is_some_and(|experiment| experiment != uid)
        };
        // Registers that are damaged have nothing to say; whoever needs the files themselves is told so.
        for event in derive::entities(kind, uid, &registers, &read_blob, &is_taken).unwrap_or_default() {
            if self.catalog.apply(&event).is_ok()
                && let Some(first) = event.operations.first()
                && first.uid != uid
            {
                let new = || Derived { source: uid, events: Vec::new() };
                let events = &mut self.derived.entry(first.uid).or_insert_with(new).events;
                if !events.contains(&event) {
                    events.push(event);
                }
            }
        }
    }

    /// All that this store has of others in files of entities of a kind.
    fn derive_of(&mut self, kind: EntityKind) {
        let uids: Vec<Uid> = self.catalog.of_kind(kind).map(|entity| entity.uid()).collect();
        uids.into_iter().for_each(|uid| self.derive(kind, uid));
    }

    /// The entities that only follow from files, as far as these were looked at.
    pub(crate) fn derived(&self) -> impl Iterator<Item = &Arc<Entity>> {
        let kinds = [
            EntityKind::REGISTERED_MODEL,
            EntityKind::MODEL_VERSION,
            EntityKind::LOGGED_MODEL,
            EntityKind::TRACE,
        ];
        self.derived.keys().filter_map(move |uid| kinds.iter().find_map(|kind| self.catalog.get(*kind, *uid)))
    }

    /// What must be written before a change: the entities that it touches, or whose files it takes away, where they
    /// only follow from those so far.
    pub(crate) fn underived(&self, operations: &[Operation]) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        if self.derived.is_empty() {
            return Ok(events);
        }
        let takes_file = |o: &&Operation| o.field == Field::FILE && may_have_entities(o.kind, &o.key);
        let sources: HashSet<Uid> = operations.iter().filter(takes_file).map(|o| o.uid).collect();
        let touched: HashSet<Uid> = operations.iter().map(|o| o.uid).collect();
        for (uid, made) in &self.derived {
            if (touched.contains(uid) || sources.contains(&made.source))
                && self.view.entries(*uid)?.is_empty()
            {
                events.extend_from_slice(&made.events);
            }
        }
        Ok(events)
    }

    /// Whether what is wanted is in memory already.
    pub(crate) fn has(&self, want: Want) -> bool {
        self.all
            || match want {
                Want::All => false,
                Want::Entity(uid) => self.loaded.contains(&uid),
                want => want.kinds().iter().all(|kind| self.kinds.contains(kind)),
            }
    }

    /// Loads what is wanted and not there yet.
    pub(crate) fn ensure(&mut self, want: Want) -> Result<()> {
        match want {
            want if self.has(want) => Ok(()),
            Want::All => self.load_all(None),
            Want::Entity(uid) => {
                let view = Arc::clone(&self.view);
                self.load(&view, uid)
            }
            want => {
                let view = Arc::clone(&self.view);
                let kinds = want.kinds();
                for (uid, _) in view.entities().into_iter().filter(|(_, kind)| kinds.contains(kind)) {
                    self.load(&view, uid)?;
                }
                self.kinds.extend(kinds);
                kinds.iter().for_each(|kind| self.derive_of(*kind));
                Ok(())
            }
        }
    }

    fn load(&mut self, view: &View, uid: Uid) -> Result<()> {
        if !self.loaded.contains(&uid) {
            for event in view.events(uid)? {
                if self.catalog.apply_if(&event.borrow(), |_, one| one == uid).is_ok() {
                    let _ = self.clock.observe(event.stamp);
                }
            }
            self.derive(EntityKind::RUN, uid);
            // Only now: half of an entity is none.
            self.loaded.insert(uid);
        }
        Ok(())
    }

    /// Whether what is wanted must not be loaded before the next [`State::refresh`].
    pub(crate) fn is_behind(&self, want: Want) -> bool {
        match want {
            Want::Entity(uid) => self.forgotten.contains(&uid),
            Want::Experiments | Want::Registry | Want::All => !self.forgotten.is_empty(),
        }
    }

    /// Lets go of an entity, so that memory stays bounded; whoever asks again gets it from the log. What was loaded as
    /// one of all stays.
    pub(crate) fn forget(&mut self, uid: Uid) {
        let is_one_of_all =
            self.all || self.kinds.iter().any(|kind| self.catalog.entry(*kind, uid).is_some());
        if !is_one_of_all && !self.derived.contains_key(&uid) && self.loaded.remove(&uid) {
            EntityKind::KNOWN.into_iter().for_each(|kind| self.catalog.evict(kind, uid));
            self.forgotten.insert(uid);
        }
    }

    /// Loads everything: from rows of the index and the events of segments that it does not cover, or from all events.
    pub(crate) fn load_all(&mut self, index: Option<(Vec<Entity>, &IndexImage)>) -> Result<()> {
        let view = Arc::clone(&self.view);
        let (catalog, clock) = (&mut self.catalog, &mut self.clock);
        let mut apply = |event: Event| {
            if catalog.apply(&event).is_ok() {
                let _ = clock.observe(event.stamp);
            }
        };
        match index {
            None => view.for_each_event(&mut apply)?,
            Some((rows, image)) => {
                for (segment, state) in view.segments.iter().filter(|(s, state)| !image.covers(s, state)) {
                    for offset in event_offsets(segment, state, 0)? {
                        read_intact_event(segment, offset, view.skip_damage)?
                            .into_iter()
                            .for_each(&mut apply);
                    }
                }
                for row in rows {
                    let newest = row.newest_stamp(|_, _| true);
                    self.catalog.insert(row);
                    if let Some(stamp) = newest {
                        let _ = self.clock.observe(stamp);
                    }
                }
            }
        }
        self.all = true;
        let sources = [EntityKind::TREE, EntityKind::EXPERIMENT, EntityKind::RUN];
        sources.into_iter().for_each(|kind| self.derive_of(kind));
        Ok(())
    }

    /// The event of some operations, stamped after everything seen.
    pub(crate) fn event(&mut self, operations: Vec<Operation>) -> Result<Event> {
        let stamp = self.clock.next(process::now_ms())?;
        Ok(Event { stamp, operations, attributes: Vec::new() })
    }

    /// Applies an event that this process wrote.
    pub(crate) fn wrote(&mut self, event: &Event) -> Result<Stamp> {
        // What was created here is known in full; of others only what is loaded may be changed.
        let mut last = None;
        for operation in event.operations.iter().filter(|_| !self.all) {
            let (kind, uid) = (operation.kind, operation.uid);
            if last.replace((kind, uid)) == Some((kind, uid)) || self.loaded.contains(&uid) {
                continue;
            }
            let known = self.catalog.entry(kind, uid).is_some() || self.forgotten.contains(&uid);
            if !known && self.view.entries(uid)?.is_empty() {
                self.loaded.insert(uid);
            }
        }
        if !self.derived.is_empty() {
            event.operations.iter().for_each(|operation| drop(self.derived.remove(&operation.uid)));
        }
        self.apply_loaded(event);
        Ok(event.stamp)
    }

    /// The view that the catalog follows.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }
}

/// Takes the store's lock for a claim; waits at most `timeout`. On a network file system there is no lock to trust:
/// races are settled by stamps and reported.
pub(crate) fn claim_lock(
    vfs: &dyn Vfs,
    root: &Path,
    medium: Medium,
    timeout: Duration,
) -> Result<Option<Box<dyn HeldLock>>> {
    if !medium.trusts_locks() {
        return Ok(None);
    }
    let path = root.join("lock");
    let holder = format!("pid {} on {} since {} ms", process::pid(), process::host_name(), process::now_ms());
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(lock) = vfs.try_lock(&path, &holder).map_err(|e| Error::io("lock", &path, e))? {
            return Ok(Some(lock));
        }
        if Instant::now() >= deadline {
            let holder = vfs.lock_holder(&path);
            return Err(Error::Busy { what: format!("the lock of {}", root.display()), holder });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
