//! Metadata events: what changed, to which entity, when.
//!
//! Contract: an event is a list of operations on *registers*, all with one stamp; applying events is commutative,
//! associative and idempotent (`catalog` does it). The record is bincode (fixed-int, little-endian, byte-limited)
//! inside an envelope with kind and version. Records are frozen per version: never edit `EventV1`, add `EventV2`.
//! Unknown entity kinds and fields are carried along, so an older program preserves what a newer one wrote.

use std::borrow::Cow;
use std::cmp::Ordering;

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
    /// A writing process; its uid is the writer id.
    pub const WRITER: Self = Self(5);
    /// A registered model; prompts are such.
    pub const REGISTERED_MODEL: Self = Self(6);
    /// A version of a registered model.
    pub const MODEL_VERSION: Self = Self(7);
    /// A model that was logged to an experiment; its uid is that of the model id, unless imported otherwise.
    pub const LOGGED_MODEL: Self = Self(8);
    /// A trace.
    pub const TRACE: Self = Self(9);

    /// Those that this program knows.
    pub const KNOWN: [Self; 9] = [
        Self::EXPERIMENT,
        Self::RUN,
        Self::DATASET,
        Self::TREE,
        Self::WRITER,
        Self::REGISTERED_MODEL,
        Self::MODEL_VERSION,
        Self::LOGGED_MODEL,
        Self::TRACE,
    ];
}

/// Which property of an entity a register holds. The number is on disk; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field(pub u16);

impl Field {
    /// Flag: removed for good; wins over everything and stays. (any entity)
    pub const PURGED: Self = Self(1);
    /// Text: the claimed name. (experiment, tree, registered model; the display name of a run or logged model)
    pub const NAME: Self = Self(2);
    /// Text "active" or "deleted". (experiment, run, logged model)
    pub const LIFECYCLE: Self = Self(3);
    /// Integer: milliseconds since 1970. (experiment, registered model, model version, logged model)
    pub const CREATED_MS: Self = Self(4);
    /// Integer: milliseconds since 1970. (experiment, registered model, model version, logged model)
    pub const UPDATED_MS: Self = Self(5);
    /// Text, keyed: a tag. `Absent` is a deleted tag. (experiment, run, registered model, model version, logged model,
    /// trace)
    pub const TAG: Self = Self(6);
    /// Text, keyed: a param; the smallest stamp wins. (run, logged model)
    pub const PARAM: Self = Self(7);
    /// Text: MLflow's numeric experiment id, a claim. (experiment)
    pub const NUMERIC_ID: Self = Self(8);
    /// Text: where artifacts are, if somebody said so; absent means inside the store, of a model version that they are
    /// at its source. (experiment, model version, logged model)
    pub const ARTIFACT_LOCATION: Self = Self(9);
    /// Uid of the experiment. (run, data set, logged model, trace)
    pub const EXPERIMENT: Self = Self(10);
    /// Integer: 1 running, 2 scheduled, 3 finished, 4 failed, 5 killed. (run) 1 pending, 2 ready, 3 failed. (logged
    /// model) Text: MLflow's word. (model version, trace)
    pub const STATUS: Self = Self(11);
    /// Integer: milliseconds since 1970. (run, trace)
    pub const START_MS: Self = Self(12);
    /// Integer: milliseconds since 1970; absent while running. (run)
    pub const END_MS: Self = Self(13);
    /// Integer: when the run was deleted. (run)
    pub const DELETED_MS: Self = Self(14);
    /// Text. (run, model version)
    pub const USER: Self = Self(15);
    /// Text: where this run's artifacts are, if given or imported. (run)
    pub const ARTIFACT_URI: Self = Self(16);
    /// Text: the id as the tree spells it, where it is not the one that follows from the uid. (run, logged model,
    /// trace)
    pub const RUN_ID_TEXT: Self = Self(17);
    /// Bytes, keyed by data set uid (hex): a data set input with its tags. (run)
    pub const INPUT: Self = Self(18);
    /// Text. (data set)
    pub const DIGEST: Self = Self(19);
    /// Text. (data set)
    pub const SOURCE_TYPE: Self = Self(20);
    /// Text. (data set, model version) Bytes: what identities of the tree are derived from. (tree)
    pub const SOURCE: Self = Self(21);
    /// Text. (data set)
    pub const SCHEMA: Self = Self(22);
    /// Text. (data set)
    pub const PROFILE: Self = Self(23);
    /// Text. (registered model, model version)
    pub const DESCRIPTION: Self = Self(24);
    /// Uid of the registered model. (model version)
    pub const MODEL: Self = Self(25);
    /// Integer: the number of a version within its model, a claim. (model version)
    pub const VERSION: Self = Self(26);
    /// Text: MLflow's word for the stage; "Deleted_Internal" for a deleted version. (model version)
    pub const STAGE: Self = Self(27);
    /// Uid of a model version, keyed by alias. (registered model)
    pub const ALIAS: Self = Self(28);
    /// Text: the id of the run that made it. (model version, logged model)
    pub const RUN_ID: Self = Self(29);
    /// Text. (model version)
    pub const RUN_LINK: Self = Self(30);
    /// Text. (model version, logged model)
    pub const STATUS_MESSAGE: Self = Self(31);
    /// Text: a model id. (model version)
    pub const MODEL_ID: Self = Self(32);
    /// Text. (logged model)
    pub const MODEL_TYPE: Self = Self(33);
    /// Bytes, keyed by model id: a logged model that the run used, with tags as of a data set input. (run)
    pub const MODEL_INPUT: Self = Self(34);
    /// Integer, keyed by model id: a logged model that the run made, at this step. (run)
    pub const MODEL_OUTPUT: Self = Self(35);
    /// Integer: how long the request took, in milliseconds. (trace)
    pub const EXECUTION_MS: Self = Self(36);
    /// Text: what the application calls the request. (trace)
    pub const CLIENT_REQUEST_ID: Self = Self(37);
    /// Text: the beginning of what was asked. (trace)
    pub const REQUEST_PREVIEW: Self = Self(38);
    /// Text: the beginning of what was answered. (trace)
    pub const RESPONSE_PREVIEW: Self = Self(39);
    /// Uid of the tree an entity came from. (any imported)
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
    /// Uid of the run that a run was taken anew from, by an import that replaced it: the first one; with key "last"
    /// the one before. (run)
    pub const REPLACES: Self = Self(45);

    /// Text, keyed: what its maker noted of it. (trace)
    pub const METADATA: Self = Self(46);
    /// Bytes, keyed by assessment id: what was said of it, as names and texts. `Absent` is a deleted one. (trace)
    pub const ASSESSMENT: Self = Self(47);
    /// Bytes, keyed by span id: what a span is and which blob has all of it, as names and texts. (trace)
    pub const SPAN: Self = Self(48);

    /// Integer: live records of the writer below this sequence are in frames that others wrote (recovery) or folded
    /// (compaction); of several events the greatest number counts. (writer)
    pub const LIVE_TO: Self = Self(60);

    /// Whether the first write stays (params), instead of the last.
    pub const fn first_wins(self) -> bool {
        matches!(self, Self::PARAM)
    }
}

/// What a register holds. Equality and order are those of the stored bytes, so NaN equals itself.
#[derive(Clone, Debug)]
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
    /// A value of a type that a later program added: kept and written again as it was read.
    Unknown {
        /// Its type on disk; never one of the above.
        tag: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

impl Value {
    /// The value without owning its bytes.
    pub fn borrow(&self) -> ValueRef<'_> {
        match self {
            Self::Absent => ValueRef::Absent,
            Self::Flag(v) => ValueRef::Flag(*v),
            Self::Integer(v) => ValueRef::Integer(*v),
            Self::Real(v) => ValueRef::Real(*v),
            Self::Text(v) => ValueRef::Text(v),
            Self::Bytes(v) => ValueRef::Bytes(v),
            Self::Uid(v) => ValueRef::Uid(*v),
            Self::Blob(v) => ValueRef::Blob(*v),
            Self::Unknown { tag, bytes } => ValueRef::Unknown { tag: *tag, bytes },
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.borrow() == other.borrow()
    }
}

impl Eq for Value {}

/// A [`Value`] whose bytes lie elsewhere: in a record, in an entity.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// See [`Value::Absent`].
    Absent,
    /// See [`Value::Flag`].
    Flag(bool),
    /// See [`Value::Integer`].
    Integer(i64),
    /// See [`Value::Real`].
    Real(f64),
    /// See [`Value::Text`].
    Text(&'a str),
    /// See [`Value::Bytes`].
    Bytes(&'a [u8]),
    /// See [`Value::Uid`].
    Uid(Uid),
    /// See [`Value::Blob`].
    Blob(BlobId),
    /// See [`Value::Unknown`].
    Unknown {
        /// Its type on disk.
        tag: u8,
        /// Its bytes.
        bytes: &'a [u8],
    },
}

impl<'a> ValueRef<'a> {
    /// The tag of [`ValueRef::Text`].
    pub(crate) const TEXT_TAG: u8 = 4;

    /// The number that stands for the type on disk; never reuse one.
    #[inline]
    pub const fn tag(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Flag(_) => 1,
            Self::Integer(_) => 2,
            Self::Real(_) => 3,
            Self::Text(_) => Self::TEXT_TAG,
            Self::Bytes(_) => 5,
            Self::Uid(_) => 6,
            Self::Blob(_) => 7,
            Self::Unknown { tag, .. } => tag,
        }
    }

    /// Hands the value's bytes (without the tag) to `use_bytes`.
    #[inline]
    pub fn with_bytes<R>(self, use_bytes: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Absent => use_bytes(&[]),
            Self::Flag(v) => use_bytes(&[u8::from(v)]),
            Self::Integer(v) => use_bytes(&v.to_le_bytes()),
            Self::Real(v) => use_bytes(&v.to_bits().to_le_bytes()),
            Self::Text(v) => use_bytes(v.as_bytes()),
            Self::Bytes(v) | Self::Unknown { bytes: v, .. } => use_bytes(v),
            Self::Uid(v) => use_bytes(v.as_bytes()),
            Self::Blob(v) => use_bytes(v.as_bytes()),
        }
    }

    /// The value that has this tag and these bytes; `Err` says what the bytes should have been.
    #[inline]
    pub fn from_parts(tag: u8, bytes: &'a [u8]) -> Result<Self, &'static str> {
        Ok(match (tag, bytes) {
            (0, []) => Self::Absent,
            (0, _) => return Err("no bytes in an absent value"),
            (1, [flag @ (0 | 1)]) => Self::Flag(*flag == 1),
            (1, _) => return Err("a flag of one byte, 0 or 1"),
            (2, _) => {
                Self::Integer(i64::from_le_bytes(bytes.try_into().map_err(|_| "an integer of 8 bytes")?))
            }
            (3, _) => Self::Real(f64::from_bits(u64::from_le_bytes(
                bytes.try_into().map_err(|_| "a number of 8 bytes")?,
            ))),
            (4, _) => Self::Text(std::str::from_utf8(bytes).map_err(|_| "text in UTF-8")?),
            (5, _) => Self::Bytes(bytes),
            (6, _) => Self::Uid(Uid::from_bytes(bytes.try_into().map_err(|_| "an identity of 16 bytes")?)),
            (7, _) => {
                Self::Blob(BlobId::from_bytes(bytes.try_into().map_err(|_| "a blob address of 16 bytes")?))
            }
            (tag, bytes) => Self::Unknown { tag, bytes },
        })
    }

    /// The value with bytes of its own.
    pub fn to_value(self) -> Value {
        match self {
            Self::Absent => Value::Absent,
            Self::Flag(v) => Value::Flag(v),
            Self::Integer(v) => Value::Integer(v),
            Self::Real(v) => Value::Real(v),
            Self::Text(v) => Value::Text(v.to_owned()),
            Self::Bytes(v) => Value::Bytes(v.to_vec()),
            Self::Uid(v) => Value::Uid(v),
            Self::Blob(v) => Value::Blob(v),
            Self::Unknown { tag, bytes } => Value::Unknown { tag, bytes: bytes.to_vec() },
        }
    }

    /// The text, where it is one.
    pub const fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, where it is one.
    pub const fn integer(self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(integer),
            _ => None,
        }
    }

    /// Text for people: of bytes that are not UTF-8 what can be shown of them; nothing for the other types.
    pub fn lossy_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Bytes(bytes) => Some(String::from_utf8_lossy(bytes)),
            _ => None,
        }
    }
}

impl Ord for ValueRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.tag().cmp(&other.tag()).then_with(|| self.with_bytes(|a| other.with_bytes(|b| a.cmp(b))))
    }
}

impl PartialOrd for ValueRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ValueRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ValueRef<'_> {}

/// One change of one register.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Event {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub operations: Vec<Operation>,
    /// Attributes of later programs: (tag, bytes). Preserved.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

/// An [`Operation`] whose text lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationRef<'a> {
    /// The entity's kind.
    pub kind: EntityKind,
    /// The entity.
    pub uid: Uid,
    /// The property.
    pub field: Field,
    /// The key within the property.
    pub key: &'a str,
    /// The new value.
    pub value: ValueRef<'a>,
}

/// An [`Event`] that lies in the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct EventRef<'a> {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub operations: Vec<OperationRef<'a>>,
    /// Attributes of later programs.
    pub attributes: Vec<(u16, &'a [u8])>,
}

impl Event {
    /// The event without owning its bytes.
    pub fn borrow(&self) -> EventRef<'_> {
        EventRef {
            stamp: self.stamp,
            operations: self.operations.iter().map(Operation::borrow).collect(),
            attributes: self.attributes.iter().map(|(tag, bytes)| (*tag, &**bytes)).collect(),
        }
    }
}

impl Operation {
    /// The operation without owning its bytes.
    pub fn borrow(&self) -> OperationRef<'_> {
        let Self { kind, uid, field, key, value } = self;
        OperationRef { kind: *kind, uid: *uid, field: *field, key, value: value.borrow() }
    }
}

impl EventRef<'_> {
    /// The event with bytes of its own.
    pub fn to_event(&self) -> Event {
        let own = |o: &OperationRef<'_>| Operation {
            kind: o.kind,
            uid: o.uid,
            field: o.field,
            key: o.key.to_owned(),
            value: o.value.to_value(),
        };
        Event {
            stamp: self.stamp,
            operations: self.operations.iter().map(own).collect(),
            attributes: self.attributes.iter().map(|(tag, bytes)| (*tag, bytes.to_vec())).collect(),
        }
    }
}
