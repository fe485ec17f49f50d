//! Every maximum of the engine, with its unit in its name.
//!
//! Contract: a limit is checked where data enters (the API) and again where bytes are read, in release builds too.

/// Longest key of a metric, param or tag in bytes. MLflow allows 250 characters (1,000 bytes of UTF-8); old trees
/// hold longer ones, so what is read may be longer than what the API takes.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// Longest key the API takes, in characters (MLflow's limit).
pub const KEY_CHARS_MAX: usize = 250;
/// Longest value of a tag or of metadata of a trace that the API takes, in characters.
pub const TRACE_VALUE_CHARS_MAX: usize = 100_000;
/// Most spans that one call logs: one event names them all.
pub const SPANS_MAX: usize = 10_000;
/// Longest beginning of a span's name, and of its type, that is kept outside of its blob, in characters.
pub const SPAN_NAME_CHARS_MAX: usize = 500;
/// Most bytes of one span as JSON.
pub const SPAN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest param value the API takes, in characters (MLflow's limit).
pub const PARAM_VALUE_CHARS_MAX: usize = 6_000;
/// Longest run tag value the API takes, in characters (MLflow's limit).
pub const RUN_TAG_VALUE_CHARS_MAX: usize = 8_000;
/// Longest experiment name, in characters (MLflow's limit).
pub const EXPERIMENT_NAME_CHARS_MAX: usize = 500;
/// Longest experiment tag value, in characters (MLflow's limit).
pub const EXPERIMENT_TAG_VALUE_CHARS_MAX: usize = 20_000;
/// Longest tag value of a registered model or model version, in characters (MLflow's limit).
pub const REGISTRY_TAG_VALUE_CHARS_MAX: usize = 100_000;
/// Longest alias of a registered model, in characters (MLflow's limit).
pub const REGISTERED_MODEL_ALIAS_CHARS_MAX: usize = 255;
/// Longest artifact location, in characters (MLflow's limit).
pub const ARTIFACT_LOCATION_CHARS_MAX: usize = 2_048;
/// Metrics in one `log_batch` (MLflow's limit).
pub const BATCH_METRICS_MAX: usize = 1_000;
/// Params in one `log_batch` (MLflow's limit).
pub const BATCH_PARAMS_MAX: usize = 100;
/// Tags in one `log_batch` (MLflow's limit).
pub const BATCH_TAGS_MAX: usize = 100;
/// All items of one `log_batch` together (MLflow's limit).
pub const BATCH_ITEMS_MAX: usize = 1_000;
/// Most results of one search page (MLflow's limit).
pub const SEARCH_RESULTS_MAX: usize = 50_000;
/// Most registered models of one search page (MLflow's limit).
pub const REGISTERED_MODELS_MAX: usize = 1_000;
/// Most model versions of one search page (MLflow's limit).
pub const MODEL_VERSIONS_MAX: usize = 200_000;
/// What a handle remembers of runs between two calls, in metrics, params and tags (some 200 bytes each: 50 MiB).
pub const CACHED_RUN_ITEMS_MAX: usize = 1 << 18;
/// Longest filter or `order_by` text in bytes (MLflow has no limit; a list of 30,000 run ids fits).
pub const FILTER_BYTES_MAX: usize = 1024 * 1024;
/// Comparisons in one filter.
pub const FILTER_CLAUSES_MAX: usize = 1_000;
/// How deep parentheses and NOT may nest in a filter.
pub const FILTER_DEPTH_MAX: usize = 64;
/// Longest pattern of LIKE and ILIKE in bytes: matching costs at most pattern times value.
pub const LIKE_PATTERN_BYTES_MAX: usize = 10_000;
/// Keys in one `order_by` list.
pub const ORDER_BY_KEYS_MAX: usize = 100;
/// Longest data set name, in characters.
pub const DATASET_NAME_CHARS_MAX: usize = 500;
/// Longest data set digest, in characters.
pub const DATASET_DIGEST_CHARS_MAX: usize = 36;
/// Longest data set schema, in characters.
pub const DATASET_SCHEMA_CHARS_MAX: usize = 1_048_575;
/// Longest data set source, in characters.
pub const DATASET_SOURCE_CHARS_MAX: usize = 65_535;
/// Longest data set profile, in characters.
pub const DATASET_PROFILE_CHARS_MAX: usize = 16_777_215;
/// Longest input tag key, in characters.
pub const INPUT_TAG_KEY_CHARS_MAX: usize = 255;
/// Longest input tag value, in characters.
pub const INPUT_TAG_VALUE_CHARS_MAX: usize = 500;
/// Data sets in one `log_inputs`.
pub const INPUTS_MAX: usize = 1_000;

/// Points of one column: what sealing makes, and the most a reader accepts.
pub const COLUMN_POINTS_MAX: usize = 4_096;
/// Columns shorter than this carry no summary: decoding them is as cheap.
pub const SUMMARY_POINTS_MIN: usize = 512;
/// Columns in one batch.
pub const BATCH_COLUMNS_MAX: usize = 65_536;
/// Points in one batch.
pub const BATCH_POINTS_MAX: usize = 4 * 1024 * 1024;
/// Largest payload of one frame in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest metadata record in bytes: bincode never allocates past it.
pub const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Columns of a chart that a series is sampled for; more than any screen has.
pub const SAMPLE_COLUMNS_MAX: usize = 65_536;
/// Operations in one event.
pub const EVENT_OPS_MAX: usize = 1 << 20;
/// Chunk of a blob in bytes.
pub const BLOB_CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// A directory frame is written at least this often, so a reader scans no more than this of a tail.
pub const DIRECTORY_INTERVAL_BYTES: u64 = 4 * 1024 * 1024;
/// A directory frame is also written after so many columns: a reader sums up no more than these of a tail.
pub const DIRECTORY_INTERVAL_COLUMNS: u64 = 1024;
/// And after so many points: a reader decodes no more than about these for a latest value.
pub const DIRECTORY_INTERVAL_POINTS: u64 = 256 * 1024;
/// A segment is sealed when it reaches this size.
pub const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Block of a live file in bytes. Under loom two records and the header: every step of a block is there to be tried.
pub const LIVE_BLOCK_BYTES: usize = if cfg!(all(test, loom)) { 3 * LIVE_RECORD_BYTES } else { 64 * 1024 };
/// Record of a live file in bytes.
pub const LIVE_RECORD_BYTES: usize = 32;
/// The live file grows to this by default.
pub const LIVE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Points handed over from the live file into one batch.
pub const HANDOVER_POINTS: usize = 16 * 1024;
/// Stamps past the year 2200 are damage, not time (milliseconds since 1970).
pub const STAMP_MILLIS_MAX: u64 = 7_258_118_400_000;

const _: () = assert!(LIVE_BLOCK_BYTES.is_multiple_of(LIVE_RECORD_BYTES));
const _: () = assert!(COLUMN_POINTS_MAX >= SUMMARY_POINTS_MIN);
const _: () = assert!(BLOB_CHUNK_BYTES_MAX < FRAME_BYTES_MAX && EVENT_BYTES_MAX < FRAME_BYTES_MAX);
