//! One live file: publishing, declaring, growing and taking blocks again, while others read it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::point;
use crate::format::declare::{Declaration, SeriesKey};
use crate::format::live::LiveHeader;
use crate::id::{Origin, StoreId, Uid, WriterId};
use crate::limits::LIVE_BLOCK_BYTES;
use crate::log::live_writer::{LiveOptions, LiveWriter};
use crate::log::medium::Medium;
use crate::log::{LiveTail, LiveWindow, News, live_path, read_live_window};
use crate::sync::{AtomicU64, explore, thread};
use crate::vfs::{MemoryVfs, Vfs};

const LIVE: &str = "live";
const WRITER: WriterId = WriterId::from_bytes([7; 16]);

fn declaration(number: u32) -> Arc<Declaration> {
    let series = SeriesKey::of_run(Uid::from_bytes([3; 16]), ["a", "b", "c"][number as usize]);
    Arc::new(Declaration { number, series, origin: Origin::from(WRITER), attributes: Vec::new() })
}

/// A live file that grows to so many blocks.
fn live_file(vfs: &MemoryVfs, blocks_max: usize) -> Arc<LiveWriter> {
    vfs.create_dir_all(Path::new(LIVE)).unwrap();
    let header = LiveHeader {
        writer: WRITER,
        store: StoreId::default(),
        boot: [0; 16],
        pid: 1,
        created_ms: 1,
        host: "node".into(),
    };
    let options = LiveOptions {
        medium: Medium::Mapped,
        bytes_max: (blocks_max * LIVE_BLOCK_BYTES) as u64,
        stall_timeout: Duration::from_secs(3600),
    };
    Arc::new(LiveWriter::create(vfs, Path::new(LIVE), header, options, 0).unwrap())
}

/// Logs points by one call.
fn log(live: &LiveWriter, series: u32, points: Range<u64>) {
    let series = declaration(series);
    let points: Vec<_> = points.map(|n| (&series, point(n))).collect();
    match points[..] {
        [(_, point)] => live.log_one(&series, point, &|| {}).unwrap(),
        _ => live.log(&points, &|| {}).unwrap(),
    };
}

/// What the hand-over does with a live file: records below `to` are in frames (a word stands for these), then their
/// blocks are given back.
fn hand_over(live: &LiveWriter, frames: &AtomicU64, to: u64) {
    frames.store(to, Ordering::Release);
    live.hand(to);
    live.release(to).unwrap();
}

fn window(vfs: &MemoryVfs) -> LiveWindow {
    read_live_window(vfs, &live_path(Path::new(LIVE), WRITER)).unwrap().unwrap()
}

/// Where the records that join from `from` on end. Each is what was logged, and of a series that is declared.
fn end_of(window: &LiveWindow, from: u64) -> u64 {
    let (joined, _) = window.joined(from);
    for record in joined {
        assert_eq!(record.point, point(record.sequence));
        assert!(window.declarations.contains_key(&record.series), "{record:?} of no series");
    }
    from + joined.len() as u64
}

/// One thread makes calls (series, points) while another one looks. Before that so many points were logged, and as many
/// of these were handed over.
fn look_while_logging(
    name: &str,
    reads: Ordering,
    (before, handed): (u64, u64),
    calls: &'static [(u32, Range<u64>)],
) {
    explore(name, 2, move || {
        let vfs = MemoryVfs::with_maps(reads);
        let live = live_file(&vfs, 3);
        (0..before).for_each(|n| log(&live, 0, n..n + 1));
        if handed > 0 {
            hand_over(&live, &AtomicU64::new(0), handed);
        }
        let acknowledged = Arc::new(AtomicU64::new(before));
        let logger = thread::spawn({
            let (live, acknowledged) = (Arc::clone(&live), Arc::clone(&acknowledged));
            move || {
                for (series, points) in calls {
                    log(&live, *series, points.clone());
                    acknowledged.store(points.end, Ordering::Release);
                }
            }
        });
        let known = acknowledged.load(Ordering::Acquire);
        let end = end_of(&window(&vfs), handed);
        assert!(end >= known, "{known} points were acknowledged, {end} are seen");
        assert!(end == before || calls.iter().any(|(_, points)| points.end == end), "half a call: {end}");
        logger.join().unwrap();
        let last = window(&vfs);
        assert_eq!((end_of(&last, handed), last.damage), (calls.last().unwrap().1.end, vec![]));
    });
}

#[test]
fn a_point_is_there_whole_or_not_at_all() {
    look_while_logging("publish", Ordering::Relaxed, (1, 0), &[(0, 1..2)]);
    look_while_logging("publish in a new block", Ordering::Relaxed, (2, 0), &[(0, 2..3)]);
}

#[test]
fn the_points_of_a_call_are_all_there_or_none() {
    look_while_logging("publish two", Ordering::Acquire, (2, 0), &[(0, 2..4)]);
    look_while_logging("publish two where one has room", Ordering::Acquire, (1, 0), &[(0, 1..3)]);
    // The next free block lies before the one in use, so a look comes to it first.
    look_while_logging("publish two, one in front", Ordering::Acquire, (3, 2), &[(0, 3..5)]);
}

/// Not promised where loads overtake each other; and loom would see it if the stores did.
#[test]
#[should_panic = "half a call"]
fn a_machine_that_reorders_loads_may_show_half_a_call() {
    look_while_logging("publish two, loads in any order", Ordering::Relaxed, (2, 0), &[(0, 2..4)]);
}

#[test]
fn a_point_that_is_seen_is_of_a_series_that_is_known() {
    look_while_logging("declare", Ordering::Relaxed, (1, 0), &[(1, 1..2)]);
}

/// A live file with four points in two full blocks. The fifth needs a block: so many points are handed over and their
/// blocks given back, by the thread that logs it or, `apart`, by another one, for which it waits. One more thread
/// looks; the first word says what was acknowledged so far, the second one what is in frames.
fn take_a_block_again(
    name: &str,
    (apart, preemptions): (bool, usize),
    handed: u64,
    look: impl Fn(&MemoryVfs, &AtomicU64, &AtomicU64) + Send + Sync + 'static,
) {
    explore(name, preemptions, move || {
        let vfs = MemoryVfs::with_maps(Ordering::Acquire);
        let live = live_file(&vfs, 3);
        log(&live, 0, 0..4);
        let acknowledged = Arc::new(AtomicU64::new(4));
        let frames = Arc::new(AtomicU64::new(0));
        let handing = {
            let (live, frames) = (Arc::clone(&live), Arc::clone(&frames));
            move || hand_over(&live, &frames, handed)
        };
        let logging = {
            let (live, acknowledged) = (Arc::clone(&live), Arc::clone(&acknowledged));
            move || {
                log(&live, 0, 4..5);
                acknowledged.store(5, Ordering::Release);
            }
        };
        let threads = if apart {
            vec![thread::spawn(handing), thread::spawn(logging)]
        } else {
            vec![thread::spawn(move || {
                handing();
                logging();
            })]
        };
        look(&vfs, &acknowledged, &frames);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let last = window(&vfs);
        assert_eq!((last.released, end_of(&last, handed), last.damage), (handed, 5, vec![]));
    });
}

#[test]
fn a_block_that_is_taken_again_loses_nothing() {
    let look = |vfs: &MemoryVfs, acknowledged: &AtomicU64, frames: &AtomicU64| {
        let known = acknowledged.load(Ordering::Acquire);
        let seen = window(vfs);
        let covered = frames.load(Ordering::Acquire);
        assert!(seen.released <= covered);
        assert!(end_of(&seen, seen.released) >= known, "from where the file says");
        assert!(end_of(&seen, covered) >= known, "from where frames say");
    };
    take_a_block_again("take a block again", (false, 2), 2, look);
    take_a_block_again("take a block again, three threads", (true, 1), 2, look);
}

/// Looks once, with all before `next` known; returns what is next then, and the news.
fn look_at_tail(vfs: &MemoryVfs, mut next: u64) -> (u64, News) {
    let mut tail = LiveTail::open(vfs, &live_path(Path::new(LIVE), WRITER)).unwrap().unwrap();
    tail.go_on_at(next);
    let news = tail.look(&mut |record| {
        assert_eq!((record.sequence, record.point), (next, point(next)));
        next += 1;
    });
    (next, news.unwrap())
}

#[test]
fn a_tail_takes_each_record_once_and_in_order_or_says_that_it_is_lost() {
    take_a_block_again("follow a live file", (true, 2), 3, |vfs, acknowledged, frames| {
        let known = acknowledged.load(Ordering::Acquire);
        let (next, news) = look_at_tail(vfs, 1);
        // What it did not come to see is in frames.
        let covered = frames.load(Ordering::Acquire);
        match news {
            News::Joined => assert!(next.max(covered) >= known, "{next}, {covered}: {known}"),
            News::Lost => {}
            News::Gone => panic!("nobody removed it"),
        }
    });
}

#[test]
fn a_tail_goes_on_in_the_next_block_although_one_is_not_full() {
    explore("follow a live file past room", 2, || {
        let vfs = MemoryVfs::with_maps(Ordering::Acquire);
        let live = live_file(&vfs, 3);
        log(&live, 0, 0..1);
        let acknowledged = Arc::new(AtomicU64::new(1));
        let logger = thread::spawn({
            let (live, acknowledged) = (Arc::clone(&live), Arc::clone(&acknowledged));
            move || {
                log(&live, 0, 1..3);
                acknowledged.store(3, Ordering::Release);
            }
        });
        let known = acknowledged.load(Ordering::Acquire);
        let (next, news) = look_at_tail(&vfs, 1);
        assert_eq!(news, News::Joined);
        assert!(next >= known && [1, 3].contains(&next));
        logger.join().unwrap();
        assert_eq!(look_at_tail(&vfs, next), (3, News::Joined));
    });
}
