//! A store as source and target of `mlruns` trees.
//!
//! Contract: what was committed is in the log; points are in the log before the commit that follows them, so that an
//! interrupted import goes on where it stopped. Columns of one run are gathered into batches, so that metrics that were
//! logged together share their steps and timestamps. What is kept of a run that is done are some bytes (see
//! `tree_entities`); an export holds all metadata, as every search does.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{Catalog, Entity};
use crate::error::{Error, Result};
use crate::format::declare::{OwnerKind, SeriesKey};
use crate::format::event::{EntityKind, Field, Operation, ValueRef};
use crate::id::{BlobId, Origin, Stamp, Uid};
use crate::limits::BLOB_CHUNK_BYTES_MAX;
use crate::log::{BulkColumn, SeriesNumber};
use crate::mlruns::{
    self, BlobRef, Entities, ExportOptions, ExportReport, ExportSource, Extra, ImportOptions, ImportReport,
    ImportTarget, PointBlock, PointReader, Progress, Registers, Which,
};
use crate::query::snapshot::{OriginParts, RunSeries, Snapshot};
use crate::store::Store;
use crate::store::state::Want;
use crate::store::tree_entities::{KINDS, KnownEntities};
use crate::store::tree_points::{read_merged, read_origin};

/// Points gathered before a batch is written: bounds memory, and is what one batch shares axes over.
const GATHERED_POINTS_MAX: usize = 64 * 1024;
/// Columns gathered before a batch is written.
const GATHERED_COLUMNS_MAX: usize = 256;

/// A column that waits for its batch.
struct Gathered {
    series: SeriesKey,
    origin: Origin,
    first_ordinal: u64,
    steps: Vec<i64>,
    timestamps_ms: Vec<i64>,
    values: Vec<f64>,
    extras: Vec<Extra>,
}

/// Next ordinals of a run, by key and origin.
type NextOrdinals = HashMap<(String, Origin), u64>;

/// What an import wrote of one run.
#[derive(Default)]
struct Written {
    run: Uid,
    next: NextOrdinals,
    /// Numbers of its series, so that they are declared once.
    numbers: HashMap<(String, Origin), SeriesNumber>,
}

/// One store, for the length of an import or export.
struct Port<'a> {
    store: &'a Store,
    /// Of an import.
    entities: Option<KnownEntities<'a>>,
    gathered: Vec<Gathered>,
    gathered_points: usize,
    /// Of the run that points came for last.
    written: Written,
    /// Next ordinals of the run that was asked about last, as the log has them.
    known: RefCell<Option<(Uid, NextOrdinals)>>,
    blobs: HashSet<BlobId>,
    /// One look at the store for a whole export; an import looks again.
    frozen: Option<Snapshot>,
    /// Origins of the run that was read last.
    series: RefCell<Option<(Uid, Arc<RunSeries>)>>,
}

impl<'a> Port<'a> {
    fn new(store: &'a Store, frozen: Option<Snapshot>) -> Result<Self> {
        let entities = if frozen.is_some() {
            drop(store.inner().current(Want::All)?);
            None
        } else {
            Some(KnownEntities::of(store)?)
        };
        Ok(Self {
            store,
            entities,
            gathered: Vec::new(),
            gathered_points: 0,
            written: Written::default(),
            known: RefCell::new(None),
            blobs: HashSet::new(),
            frozen,
            series: RefCell::new(None),
        })
    }

    fn snapshot(&self) -> Result<Snapshot> {
        match &self.frozen {
            Some(snapshot) => Ok(snapshot.clone()),
            None => self.store.inner().snapshot(),
        }
    }

    /// The series of a run; kept for a run of an export, whose snapshot does not change.
    fn run_series(&self, run: Uid) -> Result<Arc<RunSeries>> {
        if let Some((_, series)) = self.series.borrow().as_ref().filter(|(known, _)| *known == run) {
            return Ok(Arc::clone(series));
        }
        let series = Arc::new(self.snapshot()?.run_series(run)?);
        if self.frozen.is_some() {
            *self.series.borrow_mut() = Some((run, Arc::clone(&series)));
        }
        Ok(series)
    }

    /// What a series of an entity is of: a run, or a logged model.
    fn owner_kind(&self, uid: Uid) -> Result<OwnerKind> {
        let is_model = self.kind(uid)? == Some(EntityKind::LOGGED_MODEL);
        Ok(if is_model { OwnerKind::LOGGED_MODEL } else { OwnerKind::RUN })
    }

    fn series_key(&self, uid: Uid, key: &str) -> Result<SeriesKey> {
        Ok(SeriesKey { run: uid, owner: self.owner_kind(uid)?, key: key.into() })
    }

    fn flush(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        self.gathered_points = 0;
        let writer = self.store.inner().writer()?;
        let mut columns = Vec::with_capacity(gathered.len());
        let mut numbers = Vec::with_capacity(gathered.len());
        for one in &gathered {
            let key = (one.series.key.to_string(), one.origin);
            let number = match self.written.numbers.get(&key) {
                Some(number) => Arc::clone(number),
                None => writer.unlisted_series(&one.series, one.origin)?,
            };
            self.written.numbers.insert(key, Arc::clone(&number));
            numbers.push(number);
        }
        for (one, series) in gathered.iter().zip(&numbers) {
            columns.push(BulkColumn {
                series,
                first_ordinal: Some(one.first_ordinal),
                steps: &one.steps,
                timestamps_ms: &one.timestamps_ms,
                values: &one.values,
                extras: &one.extras,
            });
        }
        if columns.is_empty() { Ok(()) } else { writer.append_columns(&columns) }
    }
}

/// The registers of an entity.
pub(super) fn registers_of(entity: &Entity) -> Registers {
    let register = |(field, key, stamp, value): (Field, &str, Stamp, ValueRef<'_>)| {
        ((field, key.to_owned()), (stamp, value.to_value()))
    };
    entity.all_entries().map(register).collect()
}

/// The registers of an entity in a catalog. Tombstones, too: what was removed for good must not come back with the tree
/// it came from.
pub(super) fn known_registers(catalog: &Catalog, uid: Uid) -> Registers {
    let entity = KINDS.into_iter().find_map(|kind| catalog.entry(kind, uid));
    entity.map(|entity| registers_of(entity)).unwrap_or_default()
}

impl Entities for Port<'_> {
    fn kind(&self, uid: Uid) -> Result<Option<EntityKind>> {
        if let Some(entities) = &self.entities {
            return Ok(entities.kind(uid));
        }
        let state = self.store.inner().lock_state();
        Ok(KINDS.into_iter().find(|kind| state.catalog.get(*kind, uid).is_some()))
    }

    fn registers(&self, uid: Uid) -> Result<Registers> {
        match &self.entities {
            Some(entities) => entities.registers(uid),
            None => Ok(known_registers(&self.store.inner().lock_state().catalog, uid)),
        }
    }

    fn entities(&self, kind: EntityKind) -> Result<Vec<Uid>> {
        if let Some(entities) = &self.entities {
            return Ok(entities.of_kind(kind));
        }
        let state = self.store.inner().lock_state();
        Ok(state.catalog.of_kind(kind).map(|e| e.uid()).collect())
    }

    fn owned(&self, kind: EntityKind, field: Field, owner: Uid) -> Result<Vec<Uid>> {
        if let Some(entities) = self.entities.as_ref().filter(|_| field == Field::TREE) {
            return Ok(entities.of_tree(kind, owner));
        }
        let state = self.store.inner().lock_state();
        if kind == EntityKind::RUN && field == Field::EXPERIMENT {
            return Ok(state.catalog.runs_of(owner).map(|e| e.uid()).collect());
        }
        let owned = state.catalog.of_kind(kind).filter(|e| e.reference(field) == Some(owner));
        Ok(owned.map(|e| e.uid()).collect())
    }

    fn references(&self, kind: EntityKind, field: Field) -> Result<Vec<(Uid, Uid)>> {
        if let Some(entities) = &self.entities
            && (kind, field) == (EntityKind::RUN, Field::REPLACES)
        {
            return Ok(entities.replaced());
        }
        let state = self.store.inner().lock_state();
        Ok(state.catalog.of_kind(kind).filter_map(|e| Some((e.reference(field)?, e.uid()))).collect())
    }

    fn artifact_directory(&self, owner: Uid) -> Result<PathBuf> {
        let inner = self.store.inner();
        let state = inner.held(Want::Entity(owner))?;
        if let Some(model) = state.catalog.logged_model(owner) {
            let experiment = model.reference(Field::EXPERIMENT).unwrap_or_default();
            return Ok(inner.model_artifact_dir(experiment, owner));
        }
        if let Some(trace) = state.catalog.trace(owner) {
            let experiment = trace.reference(Field::EXPERIMENT).unwrap_or_default();
            return Ok(inner.trace_artifact_dir(experiment, owner));
        }
        let run = state.catalog.run(owner).ok_or_else(|| Error::not_found("run", owner.to_string()))?;
        let experiment = run.reference(Field::EXPERIMENT).unwrap_or_default();
        Ok(inner.artifact_dir(experiment, owner))
    }
}

impl PointReader for Port<'_> {
    fn read_points(
        &self,
        run: Uid,
        key: &str,
        which: Which,
        sink: &mut dyn FnMut(&PointBlock<'_>) -> Result<()>,
    ) -> Result<()> {
        let series = self.run_series(run)?;
        let Some(origins) = series.get(&self.series_key(run, key)?) else { return Ok(()) };
        let skip_damage = self.store.inner().options.skip_damage;
        let single = match which {
            Which::From(origin, from) => Some((origins.iter().find(|o| o.origin == origin), from)),
            Which::All if origins.len() == 1 => Some((origins.first(), 0)),
            _ => None,
        };
        if let Some((parts, from)) = single {
            return parts.map_or(Ok(()), |parts| read_origin(parts, from, skip_damage, sink));
        }
        let wanted: Vec<OriginParts> =
            origins.iter().filter(|o| which != Which::Except(o.origin)).cloned().collect();
        read_merged(run, key, &wanted, skip_damage, sink)
    }
}

impl ImportTarget for Port<'_> {
    fn commit(&mut self, operations: Vec<Operation>) -> Result<Stamp> {
        self.flush()?;
        let Some(entities) = &mut self.entities else {
            return Err(Error::InvalidState("an export changes nothing".into()));
        };
        entities.before(&operations)?;
        let told = KnownEntities::told(&operations);
        let stamp = self.store.inner().change(&[], false, |_| Ok(operations))?;
        told.into_iter().for_each(|(kind, uid, tree, purged)| entities.wrote(kind, uid, tree, purged));
        Ok(stamp.unwrap_or_default())
    }

    fn points_stored(&self, run: Uid, key: &str, origin: Origin) -> Result<u64> {
        let of_run = Some(&self.written).filter(|written| written.run == run);
        if let Some(next) = of_run.and_then(|written| written.next.get(&(key.to_owned(), origin))) {
            return Ok(*next);
        }
        let mut known = self.known.borrow_mut();
        if known.as_ref().is_none_or(|(one, _)| *one != run) {
            let mut ends = HashMap::new();
            let reader = &self.store.inner().reader;
            let came_before = self.entities.as_ref().is_some_and(|entities| entities.has_new_points(run));
            let view = if came_before { reader.refresh()? } else { reader.view() };
            let owner = self.owner_kind(run)?;
            for part in view.series(run)? {
                let series = part.declaration.series.clone();
                if series.owner == owner {
                    let end = ends.entry((series.key.to_string(), part.declaration.origin)).or_insert(0);
                    *end = part.end().max(*end);
                }
            }
            *known = Some((run, ends));
        }
        let ends = known.as_ref().map(|(_, ends)| ends);
        Ok(ends.and_then(|e| e.get(&(key.to_owned(), origin))).copied().unwrap_or(0))
    }

    fn origins(&self, run: Uid) -> Result<Vec<(String, Origin)>> {
        let (series, owner) = (self.run_series(run)?, self.owner_kind(run)?);
        let of_run = series.iter().filter(|(series, _)| series.owner == owner);
        Ok(of_run.flat_map(|(s, parts)| parts.iter().map(|p| (s.key.to_string(), p.origin))).collect())
    }

    fn put_points(
        &mut self,
        run: Uid,
        key: &str,
        origin: Origin,
        first_ordinal: u64,
        block: &PointBlock<'_>,
    ) -> Result<()> {
        let points = block.values.len();
        if points == 0 {
            return Ok(());
        }
        if self.written.run != run {
            self.flush()?;
            self.written = Written { run, ..Written::default() };
            // What the log has of this run before; of another it would be out of date once it is asked about again.
            self.known.borrow_mut().take_if(|(known, _)| *known != run);
            if let Some(entities) = &mut self.entities {
                entities.note_points(run);
            }
        }
        self.written.next.insert((key.to_owned(), origin), first_ordinal + points as u64);
        let series = self.series_key(run, key)?;
        self.gathered.push(Gathered {
            series,
            origin,
            first_ordinal,
            steps: block.steps.to_vec(),
            timestamps_ms: block.timestamps.to_vec(),
            values: block.values.to_vec(),
            extras: block.extras.to_vec(),
        });
        self.gathered_points += points;
        if self.gathered_points >= GATHERED_POINTS_MAX || self.gathered.len() >= GATHERED_COLUMNS_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn put_blob(&mut self, bytes: &mut dyn Read) -> Result<BlobRef> {
        // What fits one chunk is looked for before it is written; longer blobs are rare and may be stored twice.
        let mut head = Vec::new();
        let limit = BLOB_CHUNK_BYTES_MAX as u64;
        let read = (&mut *bytes).take(limit).read_to_end(&mut head);
        read.map_err(|e| Error::InvalidArgument(format!("cannot read a file of the tree: {e}")))?;
        if (head.len() as u64) < limit {
            let id = crate::log::blob_address(&head);
            if self.blobs.contains(&id) || self.store.inner().reader.view().has_blob(id)? {
                return Ok(BlobRef { id, len: head.len() as u64 });
            }
        }
        let mut source = Cursor::new(head).chain(bytes);
        let (id, len) = self.store.inner().writer()?.put_blob(&mut source)?;
        self.blobs.insert(id);
        Ok(BlobRef { id, len })
    }
}

impl ExportSource for Port<'_> {
    fn metric_keys(&self, run: Uid) -> Result<Vec<String>> {
        let (series, owner) = (self.run_series(run)?, self.owner_kind(run)?);
        let runs = series.keys().filter(|s| s.owner == owner);
        Ok(runs.map(|s| s.key.to_string()).collect())
    }

    fn read_blob(&self, blob: BlobRef) -> Result<Box<dyn Read + '_>> {
        let view = self.snapshot()?.view;
        let reader = view.blob_reader(blob.id)?;
        reader
            .map(|r| Box::new(r) as Box<dyn Read>)
            .ok_or_else(|| Error::not_found("blob", blob.id.to_string()))
    }
}

/// Refuses an export into the store, which would become part of it, and one to a directory that the store is in, which
/// would be replaced with everything in it.
fn keep_apart(store: &Path, destination: &Path) -> Result<()> {
    // A store that lives in memory is nowhere near.
    let Ok(store) = std::fs::canonicalize(store) else { return Ok(()) };
    let target = resolved(destination)?;
    let (where_it_lies, advice) = match (target.starts_with(&store), store.starts_with(&target)) {
        (true, _) => ("inside the store", "name a directory outside of it"),
        (_, true) => ("around the store", "name a directory that the store is not in"),
        _ => return Ok(()),
    };
    Err(Error::invalid(format!("the target {} is {where_it_lies}: {advice}", destination.display())))
}

/// Where a path leads, although its last parts may not exist yet.
fn resolved(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|e| Error::io("open", path, e))?;
    let found = absolute.ancestors().find_map(|ancestor| {
        let rest = absolute.strip_prefix(ancestor).ok()?;
        Some(std::fs::canonicalize(ancestor).ok()?.join(rest))
    });
    Ok(found.unwrap_or(absolute))
}

impl Store {
    /// Imports an `mlruns` tree. Doing so again adds what is new; see [`mlruns::import`].
    ///
    /// # Errors
    /// As [`mlruns::import`].
    pub fn import(
        &self,
        source: &Path,
        options: &ImportOptions,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<ImportReport> {
        if options.tree.as_deref() == Some("") {
            return Err(Error::invalid("the name of a tree cannot be empty"));
        }
        if !options.dry_run {
            self.inner().writer()?;
        }
        let mut port = Port::new(self, None)?;
        let report = mlruns::import(source, &mut port, options, progress)?;
        if !options.dry_run {
            port.flush()?;
            self.sync()?;
        }
        Ok(report)
    }

    /// The names of the imported trees, sorted; each is what [`ExportOptions::tree`] takes.
    ///
    /// # Errors
    /// Whatever reading the log says.
    pub fn tree_names(&self) -> Result<Vec<String>> {
        let state = self.inner().current(Want::All)?;
        let trees = state.catalog.of_kind(EntityKind::TREE);
        let mut names: Vec<String> =
            trees.filter_map(|tree| tree.text(Field::NAME).map(str::to_owned)).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Exports to the `mlruns` layout; see [`mlruns::export`].
    ///
    /// # Errors
    /// As [`mlruns::export`]; [`Error::InvalidArgument`] for a target inside the store, or around it.
    pub fn export(
        &self,
        destination: &Path,
        options: &ExportOptions,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<ExportReport> {
        keep_apart(&self.inner().root, destination)?;
        let snapshot = self.inner().snapshot()?;
        let port = Port::new(self, Some(snapshot))?;
        mlruns::export(&port, destination, options, progress)
    }
}
