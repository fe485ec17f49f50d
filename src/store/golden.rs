//! The golden store of this format version: how it was made, and what of it the public API does not show.
//!
//! Contract: `tests/golden/v1` is written once and never again; a program of any later version reads it with the same
//! answers (`tests/golden.rs`). It holds every kind of frame and record of version 1.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::changes::{self, NewRun, RunUpdate};
use crate::catalog::{Catalog, run_id};
use crate::codec::Compression;
use crate::codec::axis::Axis;
use crate::codec::extra::Extra;
use crate::format::blob::{encode_chunk, encode_manifest, encode_whole};
use crate::format::declare::{Declaration, SeriesKey};
use crate::format::event::{EntityKind, Event, Field, Operation, Value, ValueRef};
use crate::format::event_record::{encode_event, entities_of};
use crate::format::live::LiveHeader;
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::id::{BlobId, Origin, SegmentId, Stamp, StoreId, Uid, WriterId};
use crate::log::{BatchColumn, LiveOptions, LiveWriter, LogReader, Medium, SegmentWriter, seal_segment};
use crate::model::{Dataset, DatasetInput, Point, RunStatus};
use crate::vfs::{MemoryVfs, OpenMode, OsVfs, Vfs};

const WRITER: WriterId = WriterId::from_bytes([0xa1; 16]);
const OTHER: WriterId = WriterId::from_bytes([0xb2; 16]);
const STORE: StoreId = StoreId::from_bytes([0x5e; 16]);
const RUN: Uid = Uid::from_bytes([0x12; 16]);
/// A kind, a field and a type that this version does not know.
const STRANGE_KIND: EntityKind = EntityKind(0x6001);
const STRANGE_FIELD: Field = Field(0x4321);
const STRANGE_TAG: u8 = 99;
const STRANGER: Uid = Uid::from_bytes([0x34; 16]);
const NOW_MS: u64 = 1_700_000_000_000;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// A blob of two chunks; whole ones are shorter.
fn long_blob() -> (Vec<u8>, Vec<u8>) {
    (vec![b'x'; 3000], b"the end\n".to_vec())
}

/// Stamps events one after the other and keeps the state that changes are made against.
struct Author {
    catalog: Catalog,
    counter: u32,
}

impl Author {
    fn event(&mut self, writer: WriterId, operations: Vec<Operation>) -> Event {
        self.counter += 1;
        let stamp = Stamp { millis: NOW_MS, counter: self.counter, writer };
        let event = Event { stamp, operations, attributes: vec![(7, b"of a later program".to_vec())] };
        self.catalog.apply(&event).unwrap();
        event
    }
}

fn record(event: &Event) -> (Vec<u8>, Vec<(EntityKind, Uid)>) {
    let mut record = Vec::new();
    encode_event(event, &mut record).unwrap();
    (record, entities_of(&event.operations))
}

fn append(segment: &mut SegmentWriter, event: &Event) {
    let (record, entities) = record(event);
    segment.append_event(&record, &entities).unwrap();
}

fn declaration(number: u32, key: &str, origin: Origin) -> Arc<Declaration> {
    let attributes = if key == "acc" { vec![(3, b"percent".to_vec())] } else { Vec::new() };
    Arc::new(Declaration { number, series: SeriesKey::of_run(RUN, key), origin, attributes })
}

fn begin(vfs: &Arc<dyn Vfs>, writer: WriterId, number: u64, kind: SegmentKind) -> SegmentWriter {
    let id = |number: u64| SegmentId::derived("golden", &[writer.as_bytes(), &number.to_le_bytes()]);
    let header = SegmentHeader {
        features: 0,
        kind,
        id: id(number),
        writer,
        number,
        predecessor: number.checked_sub(1).map_or(SegmentId::default(), id),
        predecessor_len: 0,
        created_ms: NOW_MS,
        store: STORE,
    };
    SegmentWriter::create(Arc::clone(vfs), Path::new("log"), header, Compression::Zstd).unwrap()
}

fn column<'a>(
    declaration: &'a Arc<Declaration>,
    first_ordinal: u64,
    axis: usize,
    values: &'a [f64],
    extras: &'a [Extra],
) -> BatchColumn<'a> {
    BatchColumn { declaration, first_ordinal, axis, values, extras }
}

/// Closed: an experiment, a run, a data set; batches with a summary, shared and relative axes, extras, zstd; a group.
fn first_segment(vfs: &Arc<dyn Vfs>, author: &mut Author) {
    let mut segment = begin(vfs, WRITER, 0, SegmentKind::Log);
    let location = Some("s3://bucket/golden");
    let tags = [("team", "blue")];
    let (experiment, made) =
        changes::create_experiment(&author.catalog, "golden", location, &tags, NOW_MS as i64).unwrap();
    append(&mut segment, &author.event(WRITER, made));
    let run = NewRun {
        uid: RUN,
        experiment,
        name: "first light",
        user: "somebody",
        start_ms: 1_699_999_999_000,
        params: &[("lr", "0.1")],
        tags: &[("host", "node-1"), ("gone", "soon")],
        artifact_uri: None,
        random: 1,
    };
    let started = changes::create_run(&author.catalog, &run).unwrap();
    append(&mut segment, &author.event(WRITER, started));
    let gone = changes::delete_run_tag(&author.catalog, RUN, "gone").unwrap();
    append(&mut segment, &author.event(WRITER, gone));

    // 600 points: a summary; noisy enough that zstd is tried, even enough that it is worth it.
    let (loss, acc) = (declaration(0, "loss", WRITER.into()), declaration(1, "acc", WRITER.into()));
    let steps: Vec<i64> = (0..600).collect();
    let times: Vec<i64> = steps.iter().map(|s| NOW_MS as i64 + s * 100 + s % 3).collect();
    let later: Vec<i64> = times.iter().map(|t| t + 7).collect();
    let values: Vec<f64> = steps.iter().map(|s| ((s * s) % 97) as f64 + 0.1).collect();
    let repeated: Vec<f64> = steps.iter().map(|s| ((s % 50) as f64).exp().sin()).collect();
    let extras = [Extra {
        kind: 1,
        dictionary: vec![b"i".to_vec(), Vec::new()],
        indices: steps.iter().map(|s| u32::from(s % 5 > 0)).collect(),
    }];
    let axes = [Axis { steps: &steps, timestamps_ms: &times }, Axis { steps: &steps, timestamps_ms: &later }];
    let columns = [column(&loss, 0, 0, &values, &[]), column(&acc, 0, 1, &repeated, &extras)];
    segment.append_batch(&axes, &columns, 0).unwrap();

    let special =
        [f64::NAN, f64::from_bits(0xfff8_0000_0000_0123), -0.0, f64::INFINITY, f64::MIN_POSITIVE / 4.0];
    let (steps, times) = ([i64::MIN, -1, 0, i64::MAX, 5], [0, 0, 1, i64::MAX, 1]);
    let axes = [Axis { steps: &steps, timestamps_ms: &times }];
    let logged = changes::log_batch(&author.catalog, RUN, &[("seed", "7")], &[("phase", "two")]).unwrap();
    let (record, entities) = record(&author.event(WRITER, logged));
    let columns = [column(&loss, 600, 0, &special, &[])];
    segment.append_batch_and_event(&axes, &columns, 0, &record, &entities).unwrap();
    segment.finish().unwrap();
}

/// Open, with a tail: a data set, a hand-over of the first two live records.
fn second_segment(vfs: &Arc<dyn Vfs>, author: &mut Author) {
    let mut segment = begin(vfs, WRITER, 1, SegmentKind::Log);
    let dataset = Dataset {
        name: "digits".into(),
        digest: "0badcafe".into(),
        source_type: "local".into(),
        source: "{\"uri\": \"/data\"}".into(),
        schema: Some("{}".into()),
        profile: None,
    };
    let input = DatasetInput { dataset, tags: [("mlflow.data.context".into(), "training".into())].into() };
    let logged = changes::log_inputs(&author.catalog, RUN, &[input]).unwrap();
    append(&mut segment, &author.event(WRITER, logged));
    let live = declaration(2, "live", WRITER.into());
    let axes = [Axis { steps: &[0, 1], timestamps_ms: &[10, 11] }];
    segment.append_batch(&axes, &[column(&live, 0, 0, &[0.5, 0.25], &[])], 2).unwrap();
    let update = RunUpdate { status: Some(RunStatus::Failed), end_ms: Some(1_700_000_009_000), name: None };
    let ended = changes::update_run(&author.catalog, RUN, update).unwrap();
    append(&mut segment, &author.event(WRITER, ended));
}

fn blobs(vfs: &Arc<dyn Vfs>) {
    let mut segment = begin(vfs, WRITER, 2, SegmentKind::Blobs);
    let mut payload = Vec::new();
    let small = BlobId::derived("golden", &[b"small"]);
    encode_whole(small, b"a small file\n", &mut payload);
    segment.append_blob(&payload, Some(small)).unwrap();
    let (long, end) = long_blob();
    let chunks = [&long, &end].map(|bytes| {
        let mut payload = Vec::new();
        encode_chunk(bytes, &mut payload);
        segment.append_blob(&payload, None).unwrap()
    });
    payload.clear();
    let id = BlobId::derived("golden", &[b"long"]);
    encode_manifest(id, (long.len() + end.len()) as u64, &chunks, &mut payload);
    segment.append_blob(&payload, Some(id)).unwrap();
    segment.finish().unwrap();
}

/// Of another writer, sealed: points of two origins in small batches, and an entity that this version does not know.
/// What is left of a write that failed stands before its footer.
fn sealed_segment(vfs: &Arc<dyn Vfs>, author: &mut Author) {
    let path = crate::log::segment_path(Path::new("log"), OTHER, 0);
    let mut segment = begin(vfs, OTHER, 0, SegmentKind::Log);
    let operation = |field, key: &str, value| Operation {
        kind: STRANGE_KIND,
        uid: STRANGER,
        field,
        key: key.into(),
        value,
    };
    let strange = vec![
        operation(Field::NAME, "", "a stranger".into()),
        operation(STRANGE_FIELD, "k", Value::Unknown { tag: STRANGE_TAG, bytes: vec![1, 2, 3] }),
    ];
    append(&mut segment, &author.event(OTHER, strange));
    let own = declaration(0, "elsewhere", OTHER.into());
    let imported = declaration(1, "elsewhere", Origin::from_bytes([0xc3; 16]));
    for n in 0..20i64 {
        let (steps, times) = ([2 * n, 2 * n + 1], [100 + n, 100 + n]);
        let axes = [Axis { steps: &steps, timestamps_ms: &times }];
        let values = [n as f64, -n as f64];
        let columns =
            [column(&own, n as u64 * 2, 0, &values, &[]), column(&imported, n as u64 * 2, 0, &values, &[])];
        segment.append_batch(&axes, &columns, 0).unwrap();
    }
    segment.finish().unwrap();
    assert!(seal_segment(vfs, &path, Compression::Zstd).unwrap());
}

fn segment_with_filler(vfs: &Arc<dyn Vfs>, author: &mut Author) {
    let mut segment = begin(vfs, OTHER, 1, SegmentKind::Log);
    let tagged = changes::set_run_tags(&author.catalog, RUN, &[("before", "filler")]).unwrap();
    append(&mut segment, &author.event(OTHER, tagged));
    // A directory comes first when a segment is closed; the garbage must lie behind that.
    let file = vfs.open(segment.path(), OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[0x66; 900], segment.len()).unwrap();
    segment.finish().unwrap();
}

fn live_file(vfs: &Arc<dyn Vfs>) {
    vfs.create_dir_all(Path::new("live")).unwrap();
    let header = LiveHeader {
        writer: WRITER,
        store: STORE,
        boot: [0xb0; 16],
        pid: 1,
        created_ms: NOW_MS,
        host: "golden".into(),
    };
    let directory = Path::new("live");
    let options = LiveOptions { medium: Medium::Plain, bytes_max: 1 << 20, stall_timeout: Duration::ZERO };
    let live = LiveWriter::create(vfs.as_ref(), directory, header, options, 0).unwrap();
    let series = declaration(2, "live", WRITER.into());
    let only = declaration(3, "only live", WRITER.into());
    let point = |step, timestamp_ms, value| Point { step, timestamp_ms, value };
    for (series, point) in [
        (&series, point(0, 10, 0.5)),
        (&series, point(1, 11, 0.25)),
        (&series, point(2, 12, 0.125)),
        (&only, point(-3, 5, f64::NEG_INFINITY)),
        (&series, point(2, 12, 0.125)),
    ] {
        live.log(&[(series, point)], &|| {}).unwrap();
    }
}

#[test]
#[ignore = "the files are written once for a format version"]
fn write_golden() {
    let memory = MemoryVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(memory.clone());
    vfs.create_dir_all(Path::new("log")).unwrap();
    let mut author = Author { catalog: Catalog::new(), counter: 0 };
    first_segment(&vfs, &mut author);
    second_segment(&vfs, &mut author);
    blobs(&vfs);
    sealed_segment(&vfs, &mut author);
    segment_with_filler(&vfs, &mut author);
    live_file(&vfs);
    let identity = vfs.open(Path::new("MLRS"), OpenMode::CreateNew).unwrap();
    identity.write_all_at(&super::identity::encode(STORE), 0).unwrap();
    for (path, content) in memory.tree() {
        let Some(mut bytes) = content else { continue };
        // A live file ends in zeros that say nothing: whoever unpacks it puts them back.
        if path.starts_with("live") {
            bytes.truncate(bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1));
        }
        let path = golden().join(path);
        OsVfs.create_dir_all(path.parent().unwrap()).unwrap();
        let _ = OsVfs.remove_file(&path);
        OsVfs.open(&path, OpenMode::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
    }
}

#[test]
fn golden_blobs_are_read() {
    let view = LogReader::new(Arc::new(OsVfs), &golden()).refresh().unwrap();
    assert!(view.problems.is_empty(), "{:?}", view.problems);
    let read = |name: &str| {
        let mut bytes = Vec::new();
        let id = BlobId::derived("golden", &[name.as_bytes()]);
        let found = view.blob_reader(id).unwrap().map(|mut blob| blob.read_to_end(&mut bytes).unwrap());
        found.map(|_| bytes)
    };
    let (mut long, end) = long_blob();
    long.extend(end);
    assert_eq!(read("small").as_deref(), Some(b"a small file\n".as_slice()));
    assert_eq!(read("long"), Some(long));
    assert_eq!(read("another"), None);
}

#[test]
fn what_this_version_does_not_know_is_kept_through_sealing() {
    let view = LogReader::new(Arc::new(OsVfs), &golden()).refresh().unwrap();
    let sealed = view.segments.iter().find(|(s, _)| s.header.writer == OTHER && s.header.number == 0);
    let (segment, state) = sealed.unwrap();
    assert_eq!(segment.header.kind, SegmentKind::Sealed);
    assert_eq!(state.replaced.iter().map(|r| (r.writer, r.number)).collect::<Vec<_>>(), [(OTHER, 0)]);
    let mut catalog = Catalog::new();
    let mut attributes = 0;
    view.for_each_event(&mut |event| {
        attributes += usize::from(event.attributes == [(7, b"of a later program".to_vec())]);
        catalog.apply(&event).unwrap();
    })
    .unwrap();
    let stranger = catalog.get(STRANGE_KIND, STRANGER).unwrap();
    assert_eq!(
        stranger.get(STRANGE_FIELD, "k"),
        Some(ValueRef::Unknown { tag: STRANGE_TAG, bytes: &[1, 2, 3] })
    );
    assert_eq!(stranger.text(Field::NAME), Some("a stranger"));
    assert_eq!(run_id(catalog.run(RUN).unwrap()), RUN.to_string());
    assert!(attributes >= 7, "{attributes} events kept their attributes");
    let parts = view.series(RUN).unwrap();
    let acc = parts.iter().find(|p| &*p.declaration.series.key == "acc").unwrap();
    assert_eq!(acc.declaration.attributes, [(3, b"percent".to_vec())]);
}

#[test]
fn the_filler_frame_is_stepped_over() {
    let view = LogReader::new(Arc::new(OsVfs), &golden()).refresh().unwrap();
    let (segment, _) =
        view.segments.iter().find(|(s, _)| s.header.writer == OTHER && s.header.number == 1).unwrap();
    let mut kinds = Vec::new();
    let torn = segment
        .walk(&mut |_, frame| {
            kinds.push(frame.unwrap().kind.number());
            Ok(())
        })
        .unwrap();
    assert_eq!((torn, kinds), (0, vec![3, 4, 8, 5]), "event, directory, filler, footer");
}
