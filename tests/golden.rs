//! Stores that older programs wrote, and files of newer ones.
//!
//! Contract: `tests/golden/v1` is read with the answers of `tests/golden/v1.json`, whatever the program's version; it is
//! never written again (`store::golden` says how it was made). What a newer program wrote is refused with both versions
//! named, or skipped where it says that it may be.

use std::path::{Path, PathBuf};

use mlrs_db::format::frame::{FRAME_HEADER_BYTES, FrameKind, finish_frame, frame_seed, seeded_crc};
use mlrs_db::format::segment::SegmentHeader;
use mlrs_db::id::WriterId;
use mlrs_db::{Error, ExperimentSearch, Point, Points, RunData, RunSearch, Store, ViewType};
use serde_json::{Value, json};

const WRITER: WriterId = WriterId::from_bytes([0xa1; 16]);
const LIVE_HEADER_BYTES: usize = 4096;
const LIVE_BLOCK_BYTES: usize = 64 * 1024;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A copy of the store, its live file with the zeros that the committed one ends without.
fn unpacked() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    for folder in ["", "log", "live"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        for entry in std::fs::read_dir(golden("v1").join(folder)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                continue;
            }
            let mut bytes = std::fs::read(entry.path()).unwrap();
            if folder == "live" {
                let blocks = (bytes.len() - LIVE_HEADER_BYTES).div_ceil(LIVE_BLOCK_BYTES);
                bytes.resize(LIVE_HEADER_BYTES + blocks * LIVE_BLOCK_BYTES, 0);
            }
            std::fs::write(root.join(folder).join(entry.file_name()), bytes).unwrap();
        }
    }
    (directory, root)
}

fn read_only(root: &Path) -> Result<Store, Error> {
    Store::options().read_only(true).open(root)
}

fn bits(value: f64) -> Value {
    json!(format!("{:016x} {value:?}", value.to_bits()))
}

/// Everything that the public API says, with every number to the bit.
fn answers(store: &Store) -> Value {
    let experiments = ExperimentSearch { view: ViewType::All, ..ExperimentSearch::default() };
    let experiments = store.search_experiments(&experiments).unwrap().items;
    let experiments: Vec<Value> = experiments.iter().map(|e| serde_json::to_value(&**e).unwrap()).collect();
    let runs = RunSearch { view: ViewType::All, ..RunSearch::default() };
    let runs = store.search_runs(&runs).unwrap().items;
    let runs: Vec<Value> = runs.iter().map(|run| run_answers(store, run)).collect();
    json!({ "store": store.id().to_string(), "experiments": experiments, "runs": runs })
}

fn run_answers(store: &Store, run: &RunData) -> Value {
    let mut metrics = serde_json::Map::new();
    for metric in store.metrics(&run.id).unwrap() {
        let points: Points = store.history(&run.id, &metric.key).unwrap().collect().unwrap();
        let point = |p: Point| json!([p.step, p.timestamp_ms, bits(p.value)]);
        let history: Vec<Value> = points.iter().map(point).collect();
        let answer = json!({
            "points": metric.points,
            "latest": point(metric.latest),
            "min": bits(metric.min),
            "max": bits(metric.max),
            "nan": metric.nan_count,
            "last_step": metric.last_step,
            // Long histories by their sum, short ones in full.
            "history": if history.len() <= 50 { json!(history) } else { json!(digest(&history)) },
        });
        metrics.insert(metric.key.clone(), answer);
    }
    let mut data = serde_json::to_value(run).unwrap();
    data["metrics"] = Value::Object(metrics);
    data
}

fn digest(points: &[Value]) -> String {
    let text: String = points.iter().map(|p| format!("{p}\n")).collect();
    format!("{} points, crc {:08x}", points.len(), seeded_crc(0, text.as_bytes()))
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden("v1.json")).unwrap()).unwrap()
}

#[test]
#[ignore = "only when a golden store is added; read what it writes"]
fn write_expected() {
    let (_directory, root) = unpacked();
    let text = serde_json::to_string_pretty(&answers(&read_only(&root).unwrap())).unwrap();
    std::fs::write(golden("v1.json"), text + "\n").unwrap();
}

#[test]
fn version_1_is_read_by_a_reader_and_by_a_writer_that_recovers_it() {
    let (_directory, root) = unpacked();
    assert_eq!(answers(&read_only(&root).unwrap()), expected());
    let store = Store::open(&root).unwrap();
    assert_eq!(answers(&store), expected());
    // The live file is of another host: it stays until somebody says that its writer is gone.
    store.experiment("another").unwrap();
    assert_eq!(std::fs::read_dir(root.join("live")).unwrap().count(), 1);
    assert_eq!(store.recover_host("golden", false).unwrap().files, 1);
    store.close().unwrap();
    assert_eq!(std::fs::read_dir(root.join("live")).unwrap().count(), 0);
    let recovered = answers(&read_only(&root).unwrap());
    assert_eq!(recovered["runs"], expected()["runs"]);
}

fn closed_segment(root: &Path) -> PathBuf {
    root.join("log").join(format!("{WRITER}-0.seg"))
}

fn patched(root: &Path, at: usize, byte: u8) {
    let path = closed_segment(root);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] = byte;
    let crc = seeded_crc(0, &bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

fn refused(root: &Path, names: &[&str]) {
    for error in [read_only(root).unwrap_err(), Store::open(root).unwrap_err()] {
        assert!(matches!(error, Error::NewerFormat { .. }), "{error}");
        let text = error.to_string();
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
    }
}

#[test]
fn a_newer_segment_is_refused_with_both_versions_named() {
    let (_directory, root) = unpacked();
    patched(&root, 8, 2);
    refused(&root, &["2.0", "1.x", "use a newer mlrs-db"]);
}

#[test]
fn an_unknown_incompatible_feature_is_refused_and_others_are_not() {
    let (_directory, root) = unpacked();
    // Read-compatible and ignorable features.
    patched(&root, 20, 0x80);
    patched(&root, 24, 0x80);
    assert_eq!(answers(&read_only(&root).unwrap()), expected());
    patched(&root, 16, 0x80);
    refused(&root, &["features 0x80", "features 0x0"]);
}

/// Appends a frame to the open segment; `version` as a newer program would write it.
fn append_frame(root: &Path, kind: FrameKind, version: u8, flags: u16) {
    let path = root.join("log").join(format!("{WRITER}-1.seg"));
    let mut bytes = std::fs::read(&path).unwrap();
    let segment = SegmentHeader::decode(&bytes).unwrap().id;
    let start = bytes.len();
    bytes.resize(start + FRAME_HEADER_BYTES, 0);
    bytes.extend_from_slice(b"of another time");
    let seed = frame_seed(segment, start as u64);
    finish_frame(&mut bytes, start, kind, flags, 15, seed, 0);
    bytes[start + 5] = version;
    let crc = seeded_crc(seed, &bytes[start..start + 28]);
    bytes[start + 28..start + 32].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_unknown_frame_is_refused_unless_it_says_that_it_may_be_skipped() {
    const IGNORABLE: u16 = 1;
    for (kind, version) in [(FrameKind::Unknown(77), 0), (FrameKind::Unknown(77), 1), (FrameKind::Event, 2)] {
        let (_directory, root) = unpacked();
        append_frame(&root, kind, version, IGNORABLE);
        assert_eq!(answers(&read_only(&root).unwrap()), expected(), "{kind:?} version {version}");
        append_frame(&root, kind, version, 0);
        refused(&root, &[&format!("kind {} version {version}", kind.number())]);
    }
}
