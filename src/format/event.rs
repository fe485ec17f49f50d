//! Metadata events: what changed, to which entity, when.
//!
//! Contract: an event is a list of operations on *registers*, all with one stamp; applying events is commutative,
//! associative and idempotent (`catalog` does it). The record is bincode (fixed-int, little-endian, byte-limited)
//! inside an envelope with kind and version. Records are frozen per version: never edit `EventV1`, add `EventV2`.
//! Unknown entity kinds and fields are carried along, so an older program preserves what a newer one wrote.

use crate::id::{BlobId, Stamp, Uid};

/// What kind of thing an entity is. Kinds this program does not know are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKind(pub u16);

impl EntityKind {
    /// An experiment.
    pub const EXPERIMENT: Self = Self(1);
    /// A run.
    pub const RUN: Self = Self(2);
    /// A data set, which runs name as input.
    pub const DATASET: Self = Self(3);
    /// An imported `mlruns` tree.
    pub const TREE: Self = Self(4);
}

/// Which property of an entity a register holds. The number is on disk; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field(pub u16);

impl Field {
    /// Flag: removed for good; wins over everything and stays. (any entity)
    pub const PURGED: Self = Self(1);
    /// Text: the claimed name. (experiment, tree; a run's display name)
    pub const NAME: Self = Self(2);
    /// Text "active" or "deleted". (experiment, run)
    pub const LIFECYCLE: Self = Self(3);
    /// Integer: milliseconds since 1970. (experiment)
    pub const CREATED_MS: Self = Self(4);
    /// Integer: milliseconds since 1970. (experiment)
    pub const UPDATED_MS: Self = Self(5);
    /// Text, keyed: a tag. `Absent` is a deleted tag. (experiment, run)
    pub const TAG: Self = Self(6);
    /// Text, keyed: a param; the smallest stamp wins. (run)
    pub const PARAM: Self = Self(7);
    /// Text: MLflow's numeric experiment id, a claim. (experiment)
    pub const NUMERIC_ID: Self = Self(8);
    /// Text: where artifacts are, if somebody said so; absent means inside the store. (experiment)
    pub const ARTIFACT_LOCATION: Self = Self(9);
    /// Uid of the experiment. (run)
    pub const EXPERIMENT: Self = Self(10);
    /// Integer: 1 running, 2 scheduled, 3 finished, 4 failed, 5 killed. (run)
    pub const STATUS: Self = Self(11);
    /// Integer: milliseconds since 1970. (run)
    pub const START_MS: Self = Self(12);
    /// Integer: milliseconds since 1970; absent while running. (run)
    pub const END_MS: Self = Self(13);
    /// Integer: when the run was deleted. (run)
    pub const DELETED_MS: Self = Self(14);
    /// Text. (run)
    pub const USER: Self = Self(15);
    /// Text: where this run's artifacts are, if given or imported. (run)
    pub const ARTIFACT_URI: Self = Self(16);
    /// Text: the run id as the tree spells it, where it is not the uid's hex form. (run)
    pub const RUN_ID_TEXT: Self = Self(17);
    /// Bytes, keyed by data set uid (hex): a data set input with its tags. (run)
    pub const INPUT: Self = Self(18);
    /// Text. (data set)
    pub const DIGEST: Self = Self(19);
    /// Text. (data set)
    pub const SOURCE_TYPE: Self = Self(20);
    /// Text. (data set)
    pub const SOURCE: Self = Self(21);
    /// Text. (data set)
    pub const SCHEMA: Self = Self(22);
    /// Text. (data set)
    pub const PROFILE: Self = Self(23);
    /// Uid of the tree an entity came from. (experiment, run, data set)
    pub const TREE: Self = Self(40);
    /// Bytes: how a file of this entity was laid out in its tree; `mlruns` owns the encoding. Keyed by role.
    pub const SHAPE: Self = Self(41);
    /// Bytes, keyed by relative path: the original bytes of a file that does not re-render, `mlruns` owns the
    /// encoding (a blob id, and the stamp it holds for).
    pub const VERBATIM: Self = Self(42);
    /// Bytes, keyed by relative path: a file of the tree that is no entity (yet), `mlruns` owns the encoding.
    pub const FILE: Self = Self(43);
    /// Bytes, keyed by metric key: what has been imported of a metric file (length, hash, spelling).
    pub const METRIC_FILE: Self = Self(44);

    /// Whether the first write stays (params), instead of the last.
    pub const fn first_wins(self) -> bool {
        matches!(self, Self::PARAM)
    }
}

/// What a register holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: a deleted tag, an end time taken back. Stays as a tombstone.
    Absent,
    /// A flag.
    Flag(bool),
    /// An integer.
    Integer(i64),
    /// A number; compared and stored by its bits.
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Anything else: raw bytes, and texts that are not UTF-8.
    Bytes(Vec<u8>),
    /// A reference to an entity.
    Uid(Uid),
    /// A reference to a blob.
    Blob(BlobId),
}

/// One change of one register.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The entity's kind.
    pub kind: EntityKind,
    /// The entity.
    pub uid: Uid,
    /// The property.
    pub field: Field,
    /// The key within the property (tag or param key); empty where the property has none.
    pub key: String,
    /// The new value.
    pub value: Value,
}

/// What one call changed: all of it or nothing is in the log.
///
/// Operations on the same register within one event apply in their order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Event {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub operations: Vec<Operation>,
    /// Attributes of later programs: (tag, bytes). Preserved.
    pub attributes: Vec<(u16, Vec<u8>)>,
}
