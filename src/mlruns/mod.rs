//! Import and export of MLflow's plain `mlruns` layout, byte for byte.
//!
//! Contract: [`import`] takes in a tree as far as it goes and reports what is wrong with it; [`export`] gives it back.
//! The rule is *canonical or verbatim*: what MLflow would write again with the same bytes is kept in structured form
//! only; of anything else the original bytes are kept too, and hold until what the file shows is changed. The module
//! knows the engine through two traits, [`ImportTarget`] and [`ExportSource`], and the types of metadata events.
//!
//! Importing the same tree again, or after an interruption, changes nothing or adds what is missing: identities are
//! derived from the tree's name, points have ordinals (their place in the file), and registers that already hold the
//! value are not written.

mod artifact;
mod content;
pub(crate) mod derive;
mod digest;
mod export;
mod export_experiment;
mod export_files;
mod export_model;
mod export_registry;
mod export_run;
mod export_trace;
mod files;
mod import;
mod import_anew;
mod import_experiment;
mod import_files;
mod import_metric;
mod import_run;
mod logged_model;
mod meta;
mod metric_file;
mod metric_line;
mod metric_record;
mod number;
mod path;
mod plan;
mod registry;
mod registry_meta;
mod report;
mod resolver;
mod run_models;
mod shape;
mod trace;
mod tree;
mod wire;
mod yaml_emit;
mod yaml_node;
mod yaml_read;
mod yaml_scalar;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use crate::error::Result;
use crate::format::event::{EntityKind, Field, Operation, Value};
use crate::id::{BlobId, Origin, Stamp, Uid};

pub use crate::codec::extra::Extra;
pub use export::export;
pub use import::import;
pub use report::{
    ArtifactMode, ExportOptions, ExportReport, ImportOptions, ImportReport, Problem, Progress, Unexportable,
};
pub use tree::check_tree;

pub(crate) use derive::file_points;
pub(crate) use metric_file::ExtraColumn;

/// Kind of the per-point column that says how a value was spelled (see `metric_line`).
pub const EXTRA_SPELLING: u8 = 1;
/// Kind of the per-point column with what follows the step in a line: data set name and digest.
pub const EXTRA_TAIL: u8 = 2;

/// Consecutive points of one origin of a series, as columns of equal length.
#[derive(Clone, Copy, Debug)]
pub struct PointBlock<'a> {
    /// Steps.
    pub steps: &'a [i64],
    /// Milliseconds since 1970.
    pub timestamps: &'a [i64],
    /// Values.
    pub values: &'a [f64],
    /// Optional columns.
    pub extras: &'a [Extra],
}

/// Where a blob is: its content address, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// Content address.
    pub id: BlobId,
    /// Length in bytes.
    pub len: u64,
}

/// The registers of an entity: (field, key) to (when, what).
pub type Registers = BTreeMap<(Field, String), (Stamp, Value)>;

/// What both directions ask about entities.
pub trait Entities {
    /// The kind of an entity, if it is known.
    fn kind(&self, uid: Uid) -> Result<Option<EntityKind>>;
    /// Its present registers; none for an unknown one.
    fn registers(&self, uid: Uid) -> Result<Registers>;
    /// All entities of a kind, in a stable order.
    fn entities(&self, kind: EntityKind) -> Result<Vec<Uid>>;

    /// The entities of a kind whose `field` names `owner`: the runs of an experiment, the experiments of a tree.
    /// An implementation with an index overrides this.
    fn owned(&self, kind: EntityKind, field: Field, owner: Uid) -> Result<Vec<Uid>> {
        let mut owned = Vec::new();
        for uid in self.entities(kind)? {
            let registers = self.registers(uid)?;
            if registers.get(&(field, String::new())).is_some_and(|(_, value)| *value == Value::Uid(owner)) {
                owned.push(uid);
            }
        }
        Ok(owned)
    }

    /// The entities of a kind whose `field` names another: that one, and who names it. An implementation with an index
    /// overrides this.
    fn references(&self, kind: EntityKind, field: Field) -> Result<Vec<(Uid, Uid)>> {
        let mut found = Vec::new();
        for uid in self.entities(kind)? {
            if let Some((_, Value::Uid(named))) = self.registers(uid)?.get(&(field, String::new())) {
                found.push((*named, uid));
            }
        }
        Ok(found)
    }

    /// Where the artifacts of a run are or would be; the directory need not exist.
    fn artifact_directory(&self, run: Uid) -> Result<PathBuf>;
}

/// Which points of a series are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those of one origin, from an ordinal on, in their order.
    From(Origin, u64),
    /// Those of all other origins, in the order of a history.
    Except(Origin),
    /// All, in the order of a history.
    All,
}

/// Reading points, for both directions.
pub trait PointReader {
    /// Hands the points to `sink`, block by block, until all are read or `sink` fails.
    fn read_points(
        &self,
        run: Uid,
        key: &str,
        which: Which,
        sink: &mut dyn FnMut(&PointBlock<'_>) -> Result<()>,
    ) -> Result<()>;
}

/// A store that is imported into.
pub trait ImportTarget: Entities + PointReader {
    /// Applies operations as one event, all or nothing.
    fn commit(&mut self, operations: Vec<Operation>) -> Result<Stamp>;
    /// How many points of an origin a series has; the next ordinal.
    fn points_stored(&self, run: Uid, key: &str, origin: Origin) -> Result<u64>;
    /// The metrics of a run, each with everybody whose points it has.
    fn origins(&self, run: Uid) -> Result<Vec<(String, Origin)>>;
    /// Appends at most 4,096 points; `first_ordinal` is what [`ImportTarget::points_stored`] would say.
    fn put_points(
        &mut self,
        run: Uid,
        key: &str,
        origin: Origin,
        first_ordinal: u64,
        block: &PointBlock<'_>,
    ) -> Result<()>;
    /// Stores bytes under their content address, streaming; bytes that are stored already are not stored twice.
    fn put_blob(&mut self, bytes: &mut dyn Read) -> Result<BlobRef>;
}

/// A store that is exported from.
pub trait ExportSource: Entities + PointReader {
    /// The metric keys of a run, sorted.
    fn metric_keys(&self, run: Uid) -> Result<Vec<String>>;
    /// The bytes of a blob, streaming.
    fn read_blob(&self, blob: BlobRef) -> Result<Box<dyn Read + '_>>;
}

/// Readers of untrusted files, for the fuzz targets; not part of the API.
#[doc(hidden)]
pub mod fuzzing {
    /// A line of a metric file.
    pub fn metric_line(bytes: &[u8]) {
        let _ = crate::mlruns::metric_line::parse(bytes);
    }

    /// The values of registers that only imports have. What is read is written again with the same meaning.
    pub fn record(bytes: &[u8]) {
        use crate::format::event::{Field, Value};
        use crate::format::tree_record::KeptFiles;
        use crate::mlruns::content::Content;
        use crate::mlruns::metric_record::MetricRecord;
        use crate::mlruns::shape::{Layout, Shape};

        let value = Value::Bytes(bytes.to_vec());
        if let Ok(Some(layout)) = Layout::from_value(&value) {
            assert_eq!(Layout::from_value(&layout.to_value()).ok().flatten().as_ref(), Some(&layout));
        }
        if let Ok(Some(shape)) = Shape::from_value(&value) {
            assert_eq!(Shape::from_value(&shape.to_value()).ok().flatten().as_ref(), Some(&shape));
        }
        if let Ok(Some(content)) = Content::from_value(&value) {
            assert_eq!(Content::from_value(&content.to_value()).ok().flatten().as_ref(), Some(&content));
        }
        let _ = (Content::from_override(&value), MetricRecord::from_value(&value));
        let mut kept = KeptFiles::default();
        for field in [Field::SHAPE, Field::VERBATIM, Field::FILE, Field::METRIC_FILE] {
            for key in ["meta.yaml", "metrics/loss", "inputs/1"] {
                kept.add(field, key, value.borrow());
            }
        }
    }

    /// A YAML file.
    pub fn yaml(bytes: &[u8]) {
        let _ = crate::mlruns::yaml_read::read(bytes);
    }
}
