//! What `stats`, `verify`, `compact` and `gc` answer: plain data, serialisable.

use std::path::PathBuf;

use serde::Serialize;

/// What a store holds and what it costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Experiments that are not purged, deleted ones included.
    pub experiments: u64,
    /// Runs that are not purged, deleted ones included.
    pub runs: u64,
    /// Series (run and key).
    pub series: u64,
    /// Points.
    pub points: u64,
    /// Metadata events in the log.
    pub events: u64,
    /// Segment files.
    pub segments: u64,
    /// Of these, sealed ones.
    pub segments_sealed: u64,
    /// Bytes of all segments.
    pub log_bytes: u64,
    /// Bytes of live files.
    pub live_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Bytes of artifacts inside the store.
    pub artifact_bytes: u64,
    /// Bytes of metric frames per point (0 without points).
    pub bytes_per_point: f64,
    /// Imported trees.
    pub trees: u64,
    /// YAML files of imported trees.
    pub yaml_files: u64,
    /// Of these, kept as their original bytes, because MLflow would write them otherwise.
    pub yaml_verbatim: u64,
    /// Metric files of imported trees.
    pub metric_files: u64,
    /// Of these, kept as their original bytes too, because their points do not say all.
    pub metric_verbatim: u64,
    /// Bytes of the verbatim ones.
    pub verbatim_bytes: u64,
    /// Writers whose files are in the log.
    pub writers: u64,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Bytes are not what was written: data is lost or unreadable.
    Damage,
    /// An interrupted write: nothing acknowledged is lost.
    TornTail,
    /// Two entities claim one name or id, or a param was written twice: both are kept.
    Conflict,
    /// Worth knowing.
    Note,
}

/// One thing `verify` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file, relative to the store.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: Option<u64>,
    /// What it is, in words.
    pub text: String,
}

/// What `verify` read and found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Frames checked.
    pub frames: u64,
    /// Columns decoded.
    pub columns: u64,
    /// Points counted.
    pub points: u64,
    /// Events applied.
    pub events: u64,
    /// Blobs checked.
    pub blobs: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is damaged (torn tails and conflicts are no damage).
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(|f| f.severity == Severity::Damage)
    }
}

/// What `compact` did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CompactReport {
    /// Segments read.
    pub segments_before: u64,
    /// Segments that hold the same now.
    pub segments_after: u64,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
    /// Points carried over.
    pub points: u64,
    /// Replaced files that stay until their grace time has passed.
    pub files_waiting: u64,
}

/// What `gc` removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GcReport {
    /// Deleted runs purged: their ids.
    pub runs: Vec<String>,
    /// Deleted experiments purged: their ids. Their logged models and traces go with them.
    pub experiments: Vec<String>,
    /// Deleted logged models purged: their ids.
    pub logged_models: Vec<String>,
    /// Files removed, relative to the store.
    pub files: Vec<PathBuf>,
    /// Bytes freed.
    pub bytes: u64,
    /// Whether nothing was touched.
    pub dry_run: bool,
}

/// What `recover` brought home, or would bring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecoverReport {
    /// The host whose writers are gone.
    pub host: String,
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// Live files of its dead writers.
    pub files: u64,
    /// Points that were in no segment.
    pub points: u64,
    /// Files that came without all segments of their writer, or whose segments this host does not see as they are: they
    /// stay until these are there.
    pub waiting: Vec<PathBuf>,
    /// Files kept aside because some of what they hold has no place.
    pub quarantined: Vec<PathBuf>,
    /// Files whose writers hold their locks: they live.
    pub alive: Vec<PathBuf>,
    /// Live files of other hosts.
    pub elsewhere: Vec<WritersElsewhere>,
}

/// Writers of another host that left live files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WritersElsewhere {
    /// The host; empty if the file does not say.
    pub host: String,
    /// Its live files.
    pub files: u64,
}

/// What was copied from one store to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CopyReport {
    /// Segments copied.
    pub segments: u64,
    /// Segments that were there already, as they are or in one that replaced them.
    pub segments_known: u64,
    /// Live files written, for writers that live or left points.
    pub live_files: u64,
    /// Their points.
    pub live_points: u64,
    /// Artifacts copied.
    pub artifacts: u64,
    /// Artifacts that were there already.
    pub artifacts_known: u64,
    /// Files removed because others hold what they held.
    pub files_removed: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// What is damaged in the source, or clashes with the target.
    pub problems: Vec<Finding>,
}

/// What `backup` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackupReport {
    /// Whether there was an earlier one, of which only what is new was copied.
    pub is_incremental: bool,
    /// What was copied.
    pub copied: CopyReport,
}

/// What `merge` did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MergeReport {
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// What was copied.
    pub copied: CopyReport,
    /// What both stores claim, in words: both keep it.
    pub conflicts: Vec<String>,
}

/// What a repair did to one file, or would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairKind {
    /// `MLRS` was written anew.
    Identity,
    /// What is sound in a segment was copied to a new one, and the damaged file set aside.
    Rewritten,
    /// Set aside: nothing of it can be read.
    SetAside,
    /// Got the name that its header says.
    Renamed,
    /// Left by an interrupted write, and removed.
    Removed,
    /// Left as it is: in use, or of a newer program.
    Left,
}

/// One step of a repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairAction {
    /// What was done.
    pub kind: RepairKind,
    /// The file, relative to the store.
    pub path: PathBuf,
    /// Why, and where it is now.
    pub text: String,
}

/// Points that were in a damaged file and are nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostPoints {
    /// Uid of the run.
    pub run: String,
    /// The metric.
    pub key: String,
    /// Who logged them.
    pub origin: String,
    /// Ordinal of the first.
    pub first: u64,
    /// Ordinal after the last.
    pub end: u64,
}

/// What `repair` did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// Step by step.
    pub actions: Vec<RepairAction>,
    /// Points kept of damaged segments.
    pub points: u64,
    /// Events kept of damaged segments.
    pub events: u64,
    /// Blobs kept of damaged segments.
    pub blobs: u64,
    /// Points that are whole but whose series is not known any more, because its declaration is damaged.
    pub orphans: u64,
    /// Points that are gone, as far as it is known which there were.
    pub lost: Vec<LostPoints>,
    /// Damage that a check still finds afterwards (of a dry run: that it found).
    pub remaining: Vec<Finding>,
}

/// Where long work is: for progress bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all, if known (0 if not).
    pub bytes_total: u64,
    /// Points done.
    pub points: u64,
}
