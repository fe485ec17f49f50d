//! A whole writer with its thread: hand-over, bulk appends, closing, while others take snapshots.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::point;
use crate::codec::Compression;
use crate::format::declare::{OwnerKind, SeriesKey};
use crate::id::{StoreId, Uid, WriterId};
use crate::limits::LIVE_BLOCK_BYTES;
use crate::log::medium::Medium;
use crate::log::{
    BulkColumn, ColumnReader, LIVE_DIR, LogReader, LogWriter, SeriesNumber, WriterOptions, live_path,
};
use crate::query::follow::Follower;
use crate::query::snapshot::Snapshot;
use crate::sync::{AtomicU64, explore, thread};
use crate::vfs::power::Disk;
use crate::vfs::{FaultVfs, MemoryVfs, Vfs};

const ROOT: &str = "store";
const RUN: Uid = Uid::from_bytes([3; 16]);

/// A writer whose live file grows to so many blocks; nothing happens because time passes.
fn writer(vfs: Arc<dyn Vfs>, medium: Medium, blocks_max: usize) -> Arc<LogWriter> {
    vfs.create_dir_all(Path::new(ROOT)).unwrap();
    let never = Duration::from_secs(3600);
    let options = WriterOptions {
        flush_interval: never,
        sync_interval: never,
        stall_timeout: never,
        live_bytes_max: (blocks_max * LIVE_BLOCK_BYTES) as u64,
        medium,
        compression: Compression::None,
        ..WriterOptions::default()
    };
    let id = WriterId::from_bytes([7; 16]);
    Arc::new(LogWriter::new(vfs, Path::new(ROOT), StoreId::default(), id, options))
}

fn series(writer: &LogWriter, key: &str) -> SeriesNumber {
    writer.series(&SeriesKey::of_run(RUN, key)).unwrap()
}

/// Ends the thread and leaves the files as they are.
fn leave(writer: &LogWriter) {
    let _ = writer.shared.poison.set("the test is over".into());
    assert!(writer.close().is_err());
}

/// The values of the series in order, at one look. Their ordinals join.
fn look(vfs: &Arc<dyn Vfs>) -> Vec<f64> {
    let reader = LogReader::new(Arc::clone(vfs), Path::new(ROOT));
    let snapshot = Snapshot::take(vfs.as_ref(), Path::new(ROOT), &reader).unwrap();
    let mut values = Vec::new();
    for origin in snapshot.series(RUN, OwnerKind::RUN, "a").unwrap() {
        let mut columns = ColumnReader::default();
        let mut stream = origin.stream(&mut columns, 0..origin.end()).unwrap();
        while let Some(column) = stream.next(&mut columns, 100).unwrap() {
            assert_eq!(column.first_ordinal, values.len() as u64, "a hole");
            values.extend(column.values);
        }
    }
    values
}

fn values(points: std::ops::Range<u64>) -> Vec<f64> {
    points.map(|n| point(n).value).collect()
}

/// How the live file is written. Mapped words can be read in many states, so with them fewer preemptions are tried; by
/// `pwrite` each record is there or not.
const MEDIA: [(Medium, usize); 2] = [(Medium::Plain, 3), (Medium::Mapped, 1)];

/// A writer whose live file grows to so many blocks, with its first points.
fn begin(medium: Medium, blocks_max: usize, points: u64) -> (Arc<dyn Vfs>, Arc<LogWriter>, SeriesNumber) {
    let vfs: Arc<dyn Vfs> = Arc::new(match medium {
        Medium::Mapped => MemoryVfs::with_maps(Ordering::Acquire),
        _ => MemoryVfs::new(),
    });
    let writer = writer(Arc::clone(&vfs), medium, blocks_max);
    let series = series(&writer, "a");
    // Otherwise every model would begin with all orders in which the thread does this.
    writer.shared.begin_live_if_none();
    writer.start_thread().unwrap();
    (0..points).for_each(|n| writer.log_one(&series, point(n)).unwrap());
    (vfs, writer, series)
}

fn append(writer: &LogWriter, series: &SeriesNumber, n: u64) {
    let columns = [point(n), point(n + 1)];
    let column = BulkColumn {
        series,
        first_ordinal: None,
        steps: &columns.map(|p| p.step),
        timestamps_ms: &columns.map(|p| p.timestamp_ms),
        values: &columns.map(|p| p.value),
        extras: &[],
    };
    writer.append_columns(&[column]).unwrap();
}

/// Two calls are first at the same time, and the thread begins the live file for both.
#[test]
fn first_calls_wait_for_the_live_file() {
    explore("first calls", 2, || {
        let vfs: Arc<dyn Vfs> = Arc::new(MemoryVfs::new());
        let writer = writer(Arc::clone(&vfs), Medium::Plain, 3);
        let series = series(&writer, "a");
        let other = thread::spawn({
            let (writer, series) = (Arc::clone(&writer), Arc::clone(&series));
            move || writer.log_one(&series, point(0)).unwrap()
        });
        writer.log_one(&series, point(0)).unwrap();
        other.join().unwrap();
        leave(&writer);
        assert_eq!(look(&vfs), [point(0).value; 2]);
    });
}

/// Four points fill two blocks; the fifth waits until the thread has handed over and gives a block back.
#[test]
fn a_snapshot_misses_nothing_while_points_are_handed_over() {
    for (medium, preemptions) in MEDIA {
        explore(&format!("snapshot and hand-over, {medium:?}"), preemptions, move || {
            let (vfs, writer, series) = begin(medium, 3, 4);
            let acknowledged = Arc::new(AtomicU64::new(4));
            let logger = thread::spawn({
                let (writer, acknowledged) = (Arc::clone(&writer), Arc::clone(&acknowledged));
                move || {
                    writer.log_one(&series, point(4)).unwrap();
                    acknowledged.store(5, Ordering::Release);
                }
            });
            let known = acknowledged.load(Ordering::Acquire);
            let seen = look(&vfs);
            assert!(seen.len() as u64 >= known, "{known} points were acknowledged, {seen:?} are seen");
            assert_eq!(seen, values(0..seen.len() as u64));
            logger.join().unwrap();
            leave(&writer);
            assert_eq!(look(&vfs), values(0..5));
        });
    }
}

#[test]
fn a_follower_gets_each_point_once_and_in_order() {
    for (medium, preemptions) in MEDIA {
        explore(&format!("follow, {medium:?}"), preemptions, move || {
            let (vfs, writer, series) = begin(medium, 3, 3);
            let reader = LogReader::new(Arc::clone(&vfs), Path::new(ROOT));
            let mut follower = Follower::new(RUN, String::new(), false);
            let mut seen: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            let mut follow = move || {
                for one in follower.next_points(vfs.as_ref(), Path::new(ROOT), &reader, 100).unwrap() {
                    let known = seen.entry(one.key.to_string()).or_default();
                    assert_eq!(one.ordinal, known.len() as u64);
                    known.push(one.point.value);
                }
                seen.clone()
            };
            assert_eq!(follow(), BTreeMap::from([("a".into(), values(0..3))]));
            let logger = thread::spawn({
                let (writer, other) = (Arc::clone(&writer), self::series(&writer, "b"));
                move || {
                    writer.log_one(&series, point(3)).unwrap();
                    writer.log_one(&other, point(0)).unwrap();
                }
            });
            follow();
            logger.join().unwrap();
            let all = [("a".into(), values(0..4)), ("b".into(), values(0..1))];
            assert_eq!(follow(), all.into());
            leave(&writer);
        });
    }
}

#[test]
fn columns_come_in_the_order_of_calls() {
    explore("columns and points", 3, || {
        let (vfs, writer, series) = begin(Medium::Plain, 3, 1);
        let logger = thread::spawn({
            let (writer, series) = (Arc::clone(&writer), Arc::clone(&series));
            move || writer.log_one(&series, point(1)).unwrap()
        });
        append(&writer, &series, 10);
        let between = look(&vfs);
        logger.join().unwrap();
        leave(&writer);
        let last = look(&vfs);
        assert!([[0.0, 1.0, 10.0, 11.0], [0.0, 10.0, 11.0, 1.0]].contains(&last[..].try_into().unwrap()));
        assert!(last.starts_with(&between) && between.contains(&11.0), "{between:?} then {last:?}");
    });
}

/// The file has no free block: the thread and the call with columns both want to make it longer.
#[test]
fn a_file_grows_in_one_place() {
    explore("grow", 3, || {
        let (vfs, writer, series) = begin(Medium::Plain, 6, 4);
        // Blocks of points that were synced are not given back while nobody can log.
        writer.sync().unwrap();
        let logger = thread::spawn({
            let (writer, series) = (Arc::clone(&writer), Arc::clone(&series));
            move || writer.log_one(&series, point(4)).unwrap()
        });
        append(&writer, &series, 10);
        logger.join().unwrap();
        leave(&writer);
        let last = look(&vfs);
        let orders = [[0.0, 1.0, 2.0, 3.0, 4.0, 10.0, 11.0], [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 4.0]];
        assert!(orders.contains(&last[..].try_into().unwrap()), "{last:?}");
    });
}

#[test]
fn columns_are_all_there_or_none() {
    for (medium, preemptions) in MEDIA {
        explore(&format!("snapshot and columns, {medium:?}"), preemptions, move || {
            let (vfs, writer, series) = begin(medium, 3, 1);
            let appender = thread::spawn({
                let writer = Arc::clone(&writer);
                move || append(&writer, &series, 10)
            });
            let seen = look(&vfs);
            assert!(seen == [0.0] || seen == [0.0, 10.0, 11.0], "{seen:?}");
            appender.join().unwrap();
            leave(&writer);
            assert_eq!(look(&vfs), [0.0, 10.0, 11.0]);
        });
    }
}

#[test]
fn the_first_calls_of_a_writer_come_at_once() {
    explore("first point and first columns", 3, || {
        let (vfs, writer, series) = begin(Medium::Plain, 3, 0);
        let logger = thread::spawn({
            let (writer, series) = (Arc::clone(&writer), Arc::clone(&series));
            move || writer.log_one(&series, point(1)).unwrap()
        });
        append(&writer, &series, 10);
        logger.join().unwrap();
        leave(&writer);
        let last = look(&vfs);
        assert!([[1.0, 10.0, 11.0], [10.0, 11.0, 1.0]].contains(&last[..].try_into().unwrap()), "{last:?}");
    });
}

#[test]
fn a_point_that_is_acknowledged_while_the_writer_closes_is_kept() {
    explore("log and close", 3, || {
        let (vfs, writer, series) = begin(Medium::Plain, 3, 1);
        let logger = thread::spawn({
            let (writer, series) = (Arc::clone(&writer), Arc::clone(&series));
            move || writer.log_one(&series, point(1)).is_ok()
        });
        assert!(writer.close().unwrap());
        let is_kept = logger.join().unwrap();
        assert_eq!(look(&vfs), values(0..1 + u64::from(is_kept)));
    });
}

/// Somebody removes the live file; a new one takes its place while points are logged.
#[test]
fn a_live_file_that_was_removed_takes_no_point_along() {
    explore("live file removed", 3, || {
        let (vfs, writer, series) = begin(Medium::Plain, 3, 1);
        vfs.remove_file(&live_path(&Path::new(ROOT).join(LIVE_DIR), writer.id())).unwrap();
        let logger = thread::spawn({
            let writer = Arc::clone(&writer);
            move || writer.log_one(&series, point(1)).unwrap()
        });
        writer.shared.replace_unlinked().unwrap();
        logger.join().unwrap();
        leave(&writer);
        assert_eq!(look(&vfs), values(0..2));
    });
}

/// A writer on a disk whose power can be cut.
fn on_disk() -> (FaultVfs, Arc<LogWriter>, SeriesNumber) {
    let memory = MemoryVfs::new();
    memory.create_dir_all(Path::new(ROOT)).unwrap();
    let disk = FaultVfs::with_power_model(memory).unwrap();
    let writer = writer(Arc::new(disk.clone()), Medium::Plain, 3);
    let series = series(&writer, "a");
    (disk, writer, series)
}

/// Whatever became of what was on its way to the disk, the first point is there.
fn has_first_point(disk: &Disk) {
    for (what, image) in disk.crash_images(0, 0) {
        let image: Arc<dyn Vfs> = Arc::new(image);
        assert_eq!(look(&image).first(), Some(&0.0), "after a power cut with {what}");
    }
}

#[test]
fn what_was_logged_before_a_sync_survives_a_power_cut() {
    explore("sync and hand-over", 3, || {
        let (disk, writer, series) = on_disk();
        writer.log_one(&series, point(0)).unwrap();
        // The thread hands over and gives blocks back, whenever it comes to it.
        writer.shared.wake();
        writer.sync().unwrap();
        let disk = disk.disk();
        leave(&writer);
        has_first_point(&disk);
    });
}

#[test]
fn what_was_synced_in_the_live_file_survives_its_hand_over() {
    explore("hand-over of what was synced", 3, || {
        let (disk, writer, series) = on_disk();
        writer.log_one(&series, point(0)).unwrap();
        writer.sync().unwrap();
        writer.shared.wake();
        append(&writer, &series, 1);
        let between = disk.disk();
        leave(&writer);
        has_first_point(&between);
        has_first_point(&disk.disk());
    });
}
