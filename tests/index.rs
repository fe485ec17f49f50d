//! The index is a cache that may be lost, garbled or behind: it then says "use the log", and never anything wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mlrs_db::id::{SegmentId, StoreId, Uid};
use mlrs_db::index::{Checkpoint, Index, IndexWriter, Lookup, Mark, Outcome};
use mlrs_db::vfs::{MemoryVfs, OsVfs, Vfs};

const STORE: StoreId = StoreId::from_bytes([1; 16]);
const RUN: u8 = 0;
const EXPERIMENT: u8 = 1;

fn uid(i: u64) -> Uid {
    Uid::derived("test", &[&i.to_le_bytes()])
}

fn segment(i: u64) -> SegmentId {
    SegmentId::derived("test", &[&i.to_le_bytes()])
}

/// The row that run `i` has in generation `g`; longer for some, so that pages are of several sizes.
fn row(i: u64, g: u64) -> Vec<u8> {
    let mut row = format!("run {i} generation {g} ").into_bytes();
    row.resize(100 + usize::try_from(i % 7).unwrap() * 40 + if i % 100 == 3 { 9000 } else { 0 }, b'.');
    row
}

fn mark(i: u64, g: u64) -> Mark {
    Mark { segment: segment(i), offset: 1000 * g, crc: u32::try_from(g).unwrap() }
}

fn checkpoint(runs: std::ops::Range<u64>, g: u64) -> Checkpoint {
    Checkpoint {
        rows: runs.clone().map(|i| (RUN, uid(i), row(i, g))).collect(),
        postings: runs.map(|i| (uid(i), vec![segment(i % 5), segment(g)])).collect(),
        marks: (0..5).map(|i| mark(i, g)).collect(),
        ..Checkpoint::default()
    }
}

fn writer(path: &Path) -> IndexWriter<'static> {
    IndexWriter::open(&OsVfs, path, &STORE, "test").expect("nobody else writes")
}

fn write(path: &Path, checkpoint: &Checkpoint) {
    assert_eq!(writer(path).checkpoint(checkpoint), Outcome::Written);
}

fn reader(path: &Path) -> Option<Index> {
    Index::open_read(&OsVfs, path, &STORE)
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn index(&self) -> PathBuf {
        self.0.path().join("index.redb")
    }
}

#[test]
fn what_a_checkpoint_puts_in_every_reader_gets() {
    let directory = Directory::new();
    let path = directory.index();
    assert!(reader(&path).is_none(), "no index is no error");
    write(&path, &checkpoint(0..300, 1));
    let index = reader(&path).unwrap();
    assert_eq!(index.row(RUN, &uid(7)), Lookup::Found(row(7, 1)));
    assert_eq!(index.row(RUN, &uid(300)), Lookup::Absent);
    assert_eq!(index.row(EXPERIMENT, &uid(7)), Lookup::Absent, "kinds are apart");
    assert_eq!(index.row(240, &uid(7)), Lookup::Miss);
    assert_eq!(index.segments(&uid(7)), Lookup::Found(vec![segment(2), segment(1)]));
    let mut marks = index.marks().unwrap();
    marks.sort_by_key(|m| m.segment);
    let mut wanted: Vec<_> = (0..5).map(|i| mark(i, 1)).collect();
    wanted.sort_by_key(|m| m.segment);
    assert_eq!(marks, wanted);
    let rows = index.rows(RUN).unwrap();
    let wanted: BTreeMap<_, _> = (0..300).map(|i| (uid(i), row(i, 1))).collect();
    assert!(rows.iter().eq(wanted.iter().map(|(uid, row)| (*uid, row.as_slice()))));
    assert_eq!((rows.len(), index.rows(EXPERIMENT).unwrap().is_empty()), (300, true));
}

#[test]
fn readers_follow_later_checkpoints_while_the_writer_lives() {
    let directory = Directory::new();
    let path = directory.index();
    let mut first = writer(&path);
    assert_eq!(first.checkpoint(&checkpoint(0..50, 1)), Outcome::Written);
    let index = reader(&path).unwrap();
    for g in 2..6 {
        let mut change = checkpoint(10..20, g);
        change.removed_rows.push((RUN, uid(40 + g)));
        change.removed_segments.push(segment(4));
        change.marks.retain(|m| m.segment != segment(4));
        assert_eq!(first.checkpoint(&change), Outcome::Written);
        assert_eq!(index.row(RUN, &uid(15)), Lookup::Found(row(15, g)));
        assert_eq!(index.row(RUN, &uid(5)), Lookup::Found(row(5, 1)));
        assert_eq!(index.row(RUN, &uid(40 + g)), Lookup::Absent);
        assert_eq!(
            (index.rows(RUN).unwrap().len(), index.marks().unwrap().len()),
            (51 - usize::try_from(g).unwrap(), 4)
        );
        assert!(index.is_current(&OsVfs));
    }
    assert_eq!(first.marks().len(), 4);
}

#[test]
fn one_writer_at_a_time_and_the_lock_names_it() {
    let directory = Directory::new();
    let path = directory.index();
    let held = IndexWriter::open(&OsVfs, &path, &STORE, "pid 1").unwrap();
    assert!(IndexWriter::open(&OsVfs, &path, &STORE, "pid 2").is_none());
    assert_eq!(OsVfs.lock_holder(&path.with_file_name("index.lock")), "pid 1");
    drop(held);
    assert!(IndexWriter::open(&OsVfs, &path, &STORE, "pid 2").is_some());
}

#[test]
fn another_store_s_index_is_a_miss_and_is_replaced() {
    let directory = Directory::new();
    let path = directory.index();
    write(&path, &checkpoint(0..10, 1));
    let other = StoreId::from_bytes([2; 16]);
    assert!(Index::open_read(&OsVfs, &path, &other).is_none());
    assert!(IndexWriter::open(&OsVfs, &path, &other, "x").unwrap().marks().is_empty());
    assert!(Index::open_read(&OsVfs, &path, &other).unwrap().rows(RUN).unwrap().is_empty());
    assert!(reader(&path).is_none());
}

#[test]
fn in_memory_there_is_no_index_and_no_file_appears() {
    let memory = MemoryVfs::new();
    let path = std::env::temp_dir().join("mlrs-db-must-not-appear/index.redb");
    memory.create_dir_all(path.parent().unwrap()).unwrap();
    assert!(IndexWriter::open(&memory, &path, &STORE, "x").is_none());
    assert!(Index::open_read(&memory, &path, &STORE).is_none());
    assert!(!path.exists());
}

#[test]
fn a_row_kind_or_size_over_the_limit_is_refused_and_changes_nothing() {
    let directory = Directory::new();
    let path = directory.index();
    write(&path, &checkpoint(0..10, 1));
    let mut bad = checkpoint(0..10, 2);
    bad.rows.push((240, uid(0), vec![]));
    assert!(matches!(writer(&path).checkpoint(&bad), Outcome::Refused(_)));
    assert_eq!(reader(&path).unwrap().row(RUN, &uid(3)), Lookup::Found(row(3, 1)));
}

/// Whatever the file is: each answer is the one of `generations`, or a miss; and a writer makes it work again.
/// Returns how many of the answers were there.
fn never_wrong(path: &Path, runs: u64, generations: &[u64]) -> usize {
    let mut answers = 0;
    if let Some(index) = reader(path) {
        for i in (0..runs).step_by(7) {
            match index.row(RUN, &uid(i)) {
                Lookup::Found(found) => {
                    assert!(generations.iter().any(|g| found == row(i, *g)), "a wrong row for {i}");
                    answers += 1;
                }
                Lookup::Absent => panic!("row {i} is said not to exist"),
                Lookup::Miss => {}
            }
            match index.segments(&uid(i)) {
                Lookup::Found(found) => {
                    assert!(generations.iter().any(|g| found == [segment(i % 5), segment(*g)]));
                    answers += 1;
                }
                Lookup::Absent => panic!("segments of {i} are said not to exist"),
                Lookup::Miss => {}
            }
        }
        match index.row(RUN, &uid(1_000_000)) {
            Lookup::Found(_) => panic!("a row out of nothing"),
            Lookup::Absent => answers += 1,
            Lookup::Miss => {}
        }
        if let Some(rows) = index.rows(RUN) {
            let is = |g: u64| {
                let wanted: BTreeMap<_, _> = (0..runs).map(|i| (uid(i), row(i, g))).collect();
                rows.iter().eq(wanted.iter().map(|(uid, row)| (*uid, row.as_slice())))
            };
            assert!(generations.iter().any(|g| is(*g)), "the rows are no state that ever was");
            answers += 1;
        }
        if let Some(mut marks) = index.marks() {
            marks.sort_by_key(|m| (0..5).position(|i| segment(i) == m.segment));
            assert!(generations.iter().any(|g| marks == (0..5).map(|i| mark(i, *g)).collect::<Vec<_>>()));
            answers += 1;
        }
    }
    answers
}

fn works_again(path: &Path, runs: u64) {
    let mut writer = writer(path);
    let outcome = writer.checkpoint(&checkpoint(0..runs, 9));
    if outcome == Outcome::Rebuilt {
        assert!(writer.marks().is_empty());
        assert_eq!(writer.checkpoint(&checkpoint(0..runs, 9)), Outcome::Written);
    } else {
        assert_eq!(outcome, Outcome::Written);
    }
    drop(writer);
    let index = reader(path).unwrap();
    assert_eq!(index.row(RUN, &uid(1)), Lookup::Found(row(1, 9)));
    assert_eq!(index.marks().unwrap().len(), 5);
}

/// A file with some history in it, so that it has free pages with older rows.
fn lived_in(path: &Path, runs: u64) -> Vec<u8> {
    for g in 1..4 {
        write(path, &checkpoint(0..runs, g));
    }
    fs::read(path).unwrap()
}

/// Every 64th byte in the short form, every one with `MLRS_TEST_SCALE=2`.
#[test]
fn a_garbled_byte_is_never_a_wrong_answer() {
    let directory = Directory::new();
    let path = directory.index();
    let good = lived_in(&path, 60);
    let complete = never_wrong(&path, 60, &[3]);
    assert_eq!(complete, 9 * 2 + 3);
    let (mut trials, mut missed) = (0, 0);
    let step = if std::env::var("MLRS_TEST_SCALE").is_ok_and(|scale| scale != "1") { 1 } else { 64 };
    for (trial, position) in (0..good.len()).step_by(step).enumerate() {
        trials += 1;
        let mut bad = good.clone();
        // One bit, the whole byte, or zero: not always the same.
        bad[position] = match trial % 3 {
            0 => bad[position] ^ 1 << (trial % 8),
            1 => !bad[position],
            _ if bad[position] == 0 => 0xff,
            _ => 0,
        };
        fs::write(&path, &bad).unwrap();
        missed += usize::from(never_wrong(&path, 60, &[3]) < complete);
        if trial % 50 == 0 {
            works_again(&path, 60);
        }
    }
    println!("bytes of an index of {} bytes: {trials} garbled, {missed} made it a miss, 0 wrong", good.len());
    assert!(missed > 0, "no garbled byte was ever noticed");
}

#[test]
fn zeroed_or_swapped_blocks_are_never_a_wrong_answer() {
    let directory = Directory::new();
    let path = directory.index();
    let good = lived_in(&path, 60);
    const STORED: usize = 4100;
    let blocks = good.len() / STORED;
    for i in 0..blocks {
        let mut bad = good.clone();
        bad[i * STORED..(i + 1) * STORED].fill(0);
        fs::write(&path, &bad).unwrap();
        never_wrong(&path, 60, &[3]);
        let mut bad = good.clone();
        bad.copy_within(i * STORED..(i + 1) * STORED, (i + 1) % blocks * STORED);
        fs::write(&path, &bad).unwrap();
        never_wrong(&path, 60, &[3]);
    }
    works_again(&path, 60);
}

#[test]
fn a_file_cut_short_empty_or_foreign_is_a_miss_and_then_works_again() {
    let directory = Directory::new();
    let path = directory.index();
    let good = lived_in(&path, 60);
    for len in (0..good.len()).step_by(good.len() / 40) {
        fs::write(&path, &good[..len]).unwrap();
        never_wrong(&path, 60, &[3]);
        works_again(&path, 60);
    }
    for foreign in [b"redb".to_vec(), b"not an index".repeat(5000), vec![0; 8192], vec![0xff; 4100 * 8]] {
        fs::write(&path, &foreign).unwrap();
        assert!(reader(&path).is_none());
        works_again(&path, 60);
    }
    // A file of redb's own without the checksums.
    drop(redb::Database::create(directory.0.path().join("plain")).unwrap());
    fs::copy(directory.0.path().join("plain"), &path).unwrap();
    assert!(reader(&path).is_none());
    works_again(&path, 60);
}

#[test]
fn a_file_deleted_or_rolled_back_under_a_reader_is_harmless() {
    let directory = Directory::new();
    let path = directory.index();
    write(&path, &checkpoint(0..60, 1));
    let old = fs::read(&path).unwrap();
    write(&path, &checkpoint(0..60, 2));
    let new = directory.0.path().join("new");
    fs::hard_link(&path, &new).unwrap();
    let index = reader(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!index.is_current(&OsVfs));
    assert_eq!(index.row(RUN, &uid(1)), Lookup::Found(row(1, 2)), "the deleted file is still whole");
    assert!(reader(&path).is_none());
    fs::rename(&new, &path).unwrap();
    assert_eq!(never_wrong(&path, 60, &[2]), 9 * 2 + 3);
    drop(index);
    fs::write(&path, &old).unwrap();
    assert_eq!(never_wrong(&path, 60, &[1]), 9 * 2 + 3, "an older copy is an older state");
    works_again(&path, 60);
}

#[test]
fn a_copy_is_a_miss_since_it_may_be_a_mixture() {
    let directory = Directory::new();
    let path = directory.index();
    write(&path, &checkpoint(0..60, 1));
    let moved = directory.0.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    assert!(reader(&moved).is_some());
    fs::copy(&moved, &path).unwrap();
    assert!(reader(&path).is_none());
    works_again(&path, 60);
}

#[test]
fn a_half_finished_copy_of_an_older_file_in_place_never_mixes_rows_or_marks() {
    let directory = Directory::new();
    let path = directory.index();
    write(&path, &checkpoint(0..60, 1));
    let old = fs::read(&path).unwrap();
    write(&path, &checkpoint(0..60, 2));
    write(&path, &checkpoint(0..60, 3));
    let new = fs::read(&path).unwrap();
    let step = 4100;
    for cut in (0..old.len().min(new.len())).step_by(step) {
        fs::write(&path, [&old[..cut], &new[cut..]].concat()).unwrap();
        if let Some(index) = reader(&path) {
            if let Some(rows) = index.rows(RUN) {
                let first = rows.iter().next().unwrap();
                let g = (1..4).find(|g| (0..60).any(|i| uid(i) == first.0 && row(i, *g) == first.1)).unwrap();
                let wanted: BTreeMap<_, _> = (0..60).map(|i| (uid(i), row(i, g))).collect();
                assert!(rows.iter().eq(wanted.iter().map(|(u, r)| (*u, r.as_slice()))), "two states mixed");
            }
            if let Some(marks) = index.marks() {
                assert!(marks.windows(2).all(|m| m[0].offset == m[1].offset));
            }
        }
    }
    works_again(&path, 60);
}

/// A copy of this test program that runs `child_writer` and prints "ready" at the point of interest.
fn spawn_writer(path: &Path, job: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writer", "--nocapture", "--test-threads=1"])
        .env("MLRS_INDEX_PATH", path)
        .env("MLRS_INDEX_JOB", job)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("ready")).unwrap().unwrap();
    child
}

#[test]
fn child_writer() {
    let (Ok(path), Ok(job)) = (std::env::var("MLRS_INDEX_PATH"), std::env::var("MLRS_INDEX_JOB")) else {
        return;
    };
    let path = Path::new(&path);
    match job.as_str() {
        // Holds the index open, all committed.
        "idle" => {
            let mut writer = writer(path);
            assert_eq!(writer.checkpoint(&checkpoint(0..60, 2)), Outcome::Written);
            println!("ready");
            std::thread::sleep(Duration::from_secs(60));
        }
        // Commits without end, opening and closing.
        _ => {
            println!("ready");
            for i in 0u64.. {
                write(path, &checkpoint(0..60, 1 + i % 3));
            }
        }
    }
}

#[test]
fn a_writer_killed_with_the_index_open_leaves_a_miss_until_somebody_writes() {
    let directory = Directory::new();
    let path = directory.index();
    write(&path, &checkpoint(0..60, 1));
    let mut child = spawn_writer(&path, "idle");
    let beside = reader(&path).unwrap();
    assert_eq!(
        beside.row(RUN, &uid(1)),
        Lookup::Found(row(1, 2)),
        "readers follow a writer of another process"
    );
    assert!(IndexWriter::open(&OsVfs, &path, &STORE, "x").is_none(), "one writer at a time");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(beside.row(RUN, &uid(1)), Lookup::Found(row(1, 2)), "who was there before goes on");
    assert!(reader(&path).is_none(), "redb refuses a file left open by a killed writer");
    let writer = writer(&path);
    assert_eq!(writer.marks().len(), 5, "nothing committed is lost");
    drop(writer);
    assert_eq!(never_wrong(&path, 60, &[2]), 9 * 2 + 3);
}

#[test]
fn writers_killed_at_any_point_leave_a_state_that_was_committed() {
    let directory = Directory::new();
    let path = directory.index();
    write(&path, &checkpoint(0..60, 1));
    let (mut readable, mut rebuilt) = (0, 0);
    for cycle in 0..12 {
        let mut child = spawn_writer(&path, "busy");
        std::thread::sleep(Duration::from_millis(7 + cycle * 9));
        child.kill().unwrap();
        child.wait().unwrap();
        readable += usize::from(never_wrong(&path, 60, &[1, 2, 3]) > 0);
        // The system may cut a write of several pages at the kill; a block that fits no crc makes the index start anew.
        let marks = writer(&path).marks().len();
        if marks == 0 {
            rebuilt += 1;
            write(&path, &checkpoint(0..60, 1));
        } else {
            assert_eq!(marks, 5, "a state that was never committed");
        }
    }
    println!("readable after the kill without a writer: {readable} of 12, begun anew: {rebuilt}");
    assert!(rebuilt <= 6, "committed states get lost: {rebuilt} of 12");
}

#[test]
fn a_stopped_writer_delays_nobody() {
    let directory = Directory::new();
    let path = directory.index();
    write(&path, &checkpoint(0..60, 1));
    let mut child = spawn_writer(&path, "busy");
    let signal = |name: &str| {
        let done = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
        assert!(done.success());
    };
    let mut longest = Duration::ZERO;
    for pause in 0..20 {
        std::thread::sleep(Duration::from_millis(pause));
        signal("-STOP");
        let start = Instant::now();
        never_wrong(&path, 60, &[1, 2, 3]);
        drop(IndexWriter::open(&OsVfs, &path, &STORE, "x"));
        longest = longest.max(start.elapsed());
        signal("-CONT");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    println!("longest open, 20 lookups and attempt to write beside a stopped writer: {longest:?}");
    // Not a question of speed: redb by itself would wait until the writer goes on, which it does not.
    assert!(longest < Duration::from_secs(30));
}

#[test]
fn writers_and_readers_of_one_process_take_turns() {
    let directory = Directory::new();
    let path = directory.index();
    write(&path, &checkpoint(0..60, 1));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for g in 0..15 {
                    if let Some(mut writer) = IndexWriter::open(&OsVfs, &path, &STORE, "thread") {
                        assert_eq!(writer.checkpoint(&checkpoint(0..60, 1 + g % 3)), Outcome::Written);
                    }
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..30 {
                    never_wrong(&path, 60, &[1, 2, 3]);
                }
            });
        }
    });
    assert_eq!(reader(&path).unwrap().rows(RUN).unwrap().len(), 60);
}

/// `cargo test --release --test index -- --ignored --nocapture timings`
#[test]
#[ignore = "prints timings, proves nothing"]
fn timings() {
    fn median(mut run: impl FnMut()) -> Duration {
        let mut times: Vec<_> = (0..21)
            .map(|_| {
                let start = Instant::now();
                run();
                start.elapsed()
            })
            .collect();
        times.sort();
        times[10]
    }
    for runs in [1_000, 100_000] {
        let directory = Directory::new();
        let path = directory.index();
        let start = Instant::now();
        write(&path, &checkpoint(0..runs, 1));
        println!(
            "{runs} runs: first checkpoint {:?}, file {} KiB",
            start.elapsed(),
            fs::metadata(&path).unwrap().len() / 1024
        );
        let cold =
            median(|| assert!(matches!(reader(&path).unwrap().row(RUN, &uid(runs / 2)), Lookup::Found(_))));
        let index = reader(&path).unwrap();
        let warm = median(|| assert!(matches!(index.row(RUN, &uid(runs / 2)), Lookup::Found(_))));
        let all = median(|| assert_eq!(index.rows(RUN).unwrap().len() as u64, runs));
        println!("{runs} runs: open_read + row {cold:?}, row {warm:?}, all rows {all:?}");
        let mut g = 1;
        let cycle = median(|| {
            g += 1;
            write(&path, &checkpoint(0..1000, g));
        });
        let mut open = writer(&path);
        let commit = median(|| {
            g += 1;
            assert_eq!(open.checkpoint(&checkpoint(0..1000, g)), Outcome::Written);
        });
        println!(
            "{runs} runs: checkpoint of 1000 rows {commit:?} on an open writer, {cycle:?} with open and close"
        );
    }
}
