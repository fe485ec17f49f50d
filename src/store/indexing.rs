//! What the index is given, and what is believed of it.
//!
//! Contract: rows and metrics in the index are computed from closed, durable segments alone, and count only if every
//! mark holds: its segment is there (or one that replaced it) and ends with the same bytes. Then the events and columns
//! of unmarked segments are added, in any order and any number of times, to the same result as reading everything. So
//! the index may be deleted, garbled or old, and answers stay the same. Small stores have none: reading their log is as
//! fast, and a redb file is larger than they are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::catalog::{Catalog, Entity};
use crate::codec::bytes::{Reader, put_slice, put_varint};
use crate::codec::summary::Summary;
use crate::error::Result;
use crate::id::{SegmentId, Uid};
use crate::index::{Checkpoint, INDEX_FILE, Index, IndexWriter, Lookup, Mark, Outcome, Row};
use crate::limits::KEY_BYTES_MAX;
use crate::log::{Medium, Segment, SegmentState, View};
use crate::query::snapshot::Snapshot;
use crate::store::Inner;
use crate::store::metrics::{RunSummaries, run_summaries};
use crate::vfs::process;

/// Row kind of an entity's registers: this plus nothing; the entity says its own kind.
const ROW_ENTITY: u8 = 1;
/// Row kind of a run's metric summaries.
const ROW_METRICS: u8 = 2;
/// Entities from which on an index pays.
const ENTITIES_MIN: usize = 256;

/// The index as it was when everything was loaded.
#[derive(Debug, Default)]
pub(crate) struct IndexImage {
    /// Segments that rows and metrics cover in full.
    pub marked: HashSet<SegmentId>,
    /// Encoded summaries by run.
    metrics: HashMap<Uid, Vec<u8>>,
}

impl IndexImage {
    /// The summaries of a run, if no unmarked segment knows more.
    pub(crate) fn summaries(&self, snapshot: &Snapshot, run: Uid) -> Option<RunSummaries> {
        let bytes = self.metrics.get(&run)?;
        let unmarked = snapshot.view.segments.iter().filter(|(s, state)| !self.covers(s, state));
        let known = unmarked.into_iter().any(|(_, state)| state.knows(run));
        if known { None } else { decode_summaries(bytes) }
    }

    /// Whether a segment is covered: marked itself, or made of marked ones.
    pub(crate) fn covers(&self, segment: &Segment, state: &SegmentState) -> bool {
        self.marked.contains(&segment.header.id)
            || (!state.replaced.is_empty() && state.replaced.iter().all(|r| self.marked.contains(&r.id)))
    }
}

fn encode_summaries(summaries: &RunSummaries) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, summaries.len() as u64);
    for (key, summary) in summaries {
        put_slice(&mut out, key.as_bytes());
        let mut bytes = Vec::new();
        summary.encode(&mut bytes);
        put_slice(&mut out, &bytes);
    }
    out
}

fn decode_summaries(bytes: &[u8]) -> Option<RunSummaries> {
    let mut cursor = Reader::new(bytes);
    let count = cursor.count(bytes.len(), "metrics of a run").ok()?;
    let mut all = RunSummaries::new();
    for _ in 0..count {
        let key = cursor.text(KEY_BYTES_MAX, "a metric key").ok()?.to_owned();
        let summary = cursor.slice(bytes.len(), "a summary").ok()?;
        all.insert(key, Summary::decode(&mut Reader::new(summary)).ok()?);
    }
    Some(all)
}

impl Inner {
    fn index_path(&self) -> std::path::PathBuf {
        self.root.join(INDEX_FILE)
    }

    /// Marks that hold in a view; `None` if one does not, and with it the whole index is void.
    fn valid_marks(view: &View, marks: &[Mark]) -> Option<HashSet<SegmentId>> {
        let present: HashMap<SegmentId, &Arc<Segment>> =
            view.all_segments().map(|segment| (segment.header.id, segment)).collect();
        let replaced: HashSet<SegmentId> =
            view.segments.iter().flat_map(|(_, state)| state.replaced.iter().map(|r| r.id)).collect();
        let holds = |mark: &Mark| match present.get(&mark.segment) {
            Some(segment) => segment.mark_crc(mark.offset).is_ok_and(|crc| crc == mark.crc),
            None => replaced.contains(&mark.segment),
        };
        marks.iter().all(holds).then(|| marks.iter().map(|mark| mark.segment).collect())
    }

    /// Loads what the index has: entities, and the image for metrics. `None`: use the log.
    pub(crate) fn load_index(&self, view: &View) -> Option<(Vec<Entity>, IndexImage)> {
        if !self.options.use_index || self.medium == Medium::Network {
            return None;
        }
        let index = Index::open_read(self.vfs.as_ref(), &self.index_path(), &self.id)?;
        let marked = Self::valid_marks(view, &index.marks()?)?;
        let rows = index.rows(ROW_ENTITY)?;
        let mut entities = Vec::with_capacity(rows.len());
        for (_, bytes) in rows.iter() {
            entities.push(Entity::decode(bytes).ok()?);
        }
        let metrics = index.rows(ROW_METRICS)?.iter().map(|(uid, bytes)| (uid, bytes.to_vec())).collect();
        Some((entities, IndexImage { marked, metrics }))
    }

    /// Brings the index up to what closed segments hold, if the store is large enough to gain by it. Whatever goes
    /// wrong, the log is the database: nobody needs to know.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        if !self.options.use_index || self.medium == Medium::Network {
            return Ok(());
        }
        let mut view = self.reader.refresh()?.closed();
        // What passes damage over must not leave an index that hides it from others.
        view.skip_damage = false;
        if view.entities().len() < ENTITIES_MIN {
            return Ok(());
        }
        let holder = format!("pid {} on {}", process::pid(), process::host_name());
        for _ in 0..2 {
            let vfs = self.vfs.as_ref();
            let Some(mut writer) = IndexWriter::open(vfs, &self.index_path(), &self.id, &holder) else {
                return Ok(());
            };
            let marks = writer.marks();
            let marked = Self::valid_marks(&view, &marks);
            let known = marked.clone().unwrap_or_default();
            let image = IndexImage { marked: known, ..IndexImage::default() };
            let (checkpoint, touched) = Self::changes(&view, &image, &marks)?;
            // Rows of an index whose marks do not hold may be of a log that is gone.
            let void = marked.is_none() && !marks.is_empty();
            if void {
                drop(writer);
                let _ = self.vfs.remove_file(&self.index_path());
                continue;
            }
            if checkpoint.marks.is_empty() {
                return Ok(());
            }
            let snapshot = Snapshot::of_view(Arc::new(view.clone()));
            let known = if image.marked.is_empty() {
                None
            } else {
                Index::open_read(vfs, &self.index_path(), &self.id)
            };
            let entities = touched.iter().map(|uid| entity_row(&view, &image, known.as_ref(), *uid));
            let metrics = touched.iter().map(|run| metrics_row(&snapshot, *run));
            if writer.checkpoint_with(&checkpoint, &mut entities.chain(metrics).filter_map(Result::transpose))
                != Outcome::Rebuilt
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What unmarked segments change: marks, and the entities whose rows are to be computed anew.
    fn changes(view: &View, image: &IndexImage, old: &[Mark]) -> Result<(Checkpoint, BTreeSet<Uid>)> {
        let mut checkpoint = Checkpoint::default();
        let mut touched = BTreeSet::new();
        let mut present = HashSet::new();
        for (segment, state) in &view.segments {
            present.insert(segment.header.id);
            if !image.marked.contains(&segment.header.id) {
                let crc = segment.mark_crc(state.valid_len)?;
                checkpoint.marks.push(Mark { segment: segment.header.id, offset: state.valid_len, crc });
            }
            if !image.covers(segment, state) {
                touched.extend(state.uids());
            }
        }
        checkpoint.removed_segments =
            old.iter().map(|m| m.segment).filter(|id| !present.contains(id)).collect();
        Ok((checkpoint, touched))
    }
}

/// The row of an entity: the one of the index and the events of unmarked segments, or all events. One entity at a time,
/// so that memory does not grow with the store.
fn entity_row(view: &View, image: &IndexImage, index: Option<&Index>, uid: Uid) -> Result<Option<Row>> {
    let row = match index.map_or(Lookup::Miss, |index| index.row(ROW_ENTITY, &uid)) {
        Lookup::Found(bytes) => Entity::decode(&bytes).ok(),
        _ => None,
    };
    let is_unmarked = |segment: &Segment, state: &Arc<SegmentState>| !image.covers(segment, state);
    let events = match row {
        Some(_) => view.events_where(uid, is_unmarked)?,
        None => view.events(uid)?,
    };
    if events.is_empty() {
        return Ok(None);
    }
    let mut catalog = Catalog::new();
    row.into_iter().for_each(|row| catalog.insert(row));
    for event in &events {
        // A stamp from beyond the year 2200 is damage: the event does not count.
        let _ = catalog.apply_if(&event.borrow(), |_, one| one == uid);
    }
    Ok(catalog.entries().last().map(|entity| {
        let mut bytes = Vec::new();
        entity.encode(&mut bytes);
        (ROW_ENTITY, uid, bytes)
    }))
}

/// The row of a run's metrics, if it has any.
fn metrics_row(snapshot: &Snapshot, run: Uid) -> Result<Option<Row>> {
    let summaries = run_summaries(snapshot, run, false)?;
    Ok((!summaries.is_empty()).then(|| (ROW_METRICS, run, encode_summaries(&summaries))))
}
