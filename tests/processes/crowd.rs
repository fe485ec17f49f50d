//! A crowd: eight processes of four threads log, four follow, one looks at all of it again and again, one compacts, one
//! deletes the index.
//!
//! Contract: each follower gets of each origin the points joined, once and in order, and in the end exactly what was
//! logged; each look at everything shows the same, and never less than an earlier one. Writers close and open again, so
//! that there is something to compact. The lag, from the log call to the receipt by a follower, is printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use mlrs_db::{Error, Follow, FollowCursor, Run, RunOptions, Store};

use crate::child::{self, Child};
use crate::{Place, Random, cycles, random, seconds};

const WRITERS: u64 = 8;
const THREADS: u64 = 4;
const FOLLOWERS: u64 = 4;
/// Runs that all writers log to, with one key a thread: two keys are logged by all writers.
const RUNS: u64 = 2;
const KEYS: u64 = 2;
/// Between two points of one thread: the crowd shares two cores with whoever else is there.
const PAUSE: Duration = Duration::from_micros(700);
const INDEXED: u64 = 300;
/// A file beside the store that says that all writers have ended.
const OVER: &str = "over";
const TOKEN_SHIFT: f64 = 4_294_967_296.0;
/// Beyond the time of logging: a machine that is busy with other things, and followers that catch up.
const GRACE: Duration = Duration::from_secs(120);
/// Followers look this often, and move to a new handle once in so many batches.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(10);
const MOVES_ONE_IN: u64 = 150;

fn run_name(run: u64) -> String {
    format!("crowd {run}")
}

fn runs(store: &Store) -> Vec<Run> {
    let search = mlrs_db::RunSearch { max_results: 10_000, ..mlrs_db::RunSearch::default() };
    let found = store.search_runs(&search).unwrap();
    let mut all: Vec<_> = found.items.iter().filter(|r| r.name.starts_with("crowd ")).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.iter().map(|run| store.run(&run.id).unwrap()).collect()
}

fn args(path: &Path, seed: u64, number: u64, seconds: u64) -> [String; 4] {
    [path.to_str().unwrap().to_owned(), seed.to_string(), number.to_string(), seconds.to_string()]
}

fn parse(args: &[String]) -> (String, Random, u64, Instant) {
    let [path, seed, number, seconds] = args else { panic!("{args:?}") };
    let (seed, number): (u64, u64) = (seed.parse().unwrap(), number.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    (path.clone(), Random(seed.wrapping_mul(31).wrapping_add(number)), number, end)
}

/// Microseconds on a clock that all processes of the machine share: the timestamp of points here, so that a follower
/// knows their age. To the store it is a number.
fn now_us() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

/// Who logged a value, and which of his it is.
fn token_of(value: f64) -> (u64, u64) {
    let token = (value / TOKEN_SHIFT) as u64;
    (token, (value - token as f64 * TOKEN_SHIFT) as u64)
}

/// `crowd-write`: says how many points each thread logged.
pub fn write(arguments: &[String]) {
    let (path, mut random, number, end) = parse(arguments);
    let mut logged = [0u64; THREADS as usize];
    while Instant::now() < end {
        let options = Store::options().segment_bytes_max(1).flush_interval_ms(random.between(1, 200));
        let store = options.sync_interval_ms(random.between(10, 500)).open(&path).unwrap();
        let runs = runs(&store);
        // A session, then this process is a new writer with new files.
        let session = end.min(Instant::now() + Duration::from_millis(random.between(200, 1_500)));
        std::thread::scope(|scope| {
            for (thread, logged) in (0u64..).zip(&mut logged) {
                let run = &runs[(thread % RUNS) as usize];
                let token = (number * THREADS + thread) as f64 * TOKEN_SHIFT;
                let mut random = Random(random.word());
                scope.spawn(move || {
                    let series = run.series(&format!("key {}", thread / RUNS)).unwrap();
                    while Instant::now() < session {
                        if random.one_in(50) {
                            let points = random.between(1, 40);
                            let steps: Vec<i64> = (*logged..*logged + points).map(|at| at as i64).collect();
                            let values: Vec<f64> = steps.iter().map(|at| token + *at as f64).collect();
                            let times = vec![now_us(); steps.len()];
                            series.log_columns(&steps, &times, &values).unwrap();
                            *logged += points;
                        } else {
                            series.log_at(*logged as i64, now_us(), token + *logged as f64).unwrap();
                            *logged += 1;
                        }
                        std::thread::sleep(PAUSE);
                    }
                });
            }
        });
        drop(runs);
        match random.one_in(3) {
            true => drop(store),
            false => store.close().unwrap(),
        }
        for (thread, logged) in logged.iter().enumerate() {
            child::say_count(&format!("points{thread}"), *logged);
        }
    }
}

/// Points by token of all runs and keys; panics where points do not join.
fn look(store: &Store, ids: &[String], before: &BTreeMap<u64, u64>) -> BTreeMap<u64, u64> {
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for (id, key) in ids.iter().flat_map(|id| (0..KEYS).map(move |key| (id, format!("key {key}")))) {
        let points: mlrs_db::Points =
            store.history(id, &key).unwrap().collect().unwrap_or_else(|e| panic!("'{key}': {e}"));
        for point in points.iter() {
            let (token, at) = token_of(point.value);
            let next = found.entry(token).or_default();
            assert_eq!(at, *next, "'{key}' of thread {token}: lost, doubled or out of order");
            *next += 1;
        }
    }
    for (token, points) in before {
        let now = found.get(token).copied().unwrap_or(0);
        assert!(now >= *points, "thread {token}: {points} points were there, now {now}");
    }
    found
}

/// What a follower got of one run.
#[derive(Default)]
struct Got {
    /// By key and origin: the next ordinal, and the value before it.
    next: BTreeMap<(String, String), (u64, f64)>,
    /// Points by token.
    tokens: BTreeMap<u64, u64>,
    lags_us: Vec<u32>,
    moves: u64,
}

impl Got {
    fn take(&mut self, follow: &mut Follow, timeout: Duration) -> usize {
        let points = follow.next_batch(timeout).unwrap_or_else(|e| panic!("following: {e}"));
        let now = now_us();
        for point in &points {
            let what = || format!("'{}' of origin {}", point.key, point.origin);
            let next = self.next.entry((point.key.to_string(), point.origin.to_string())).or_default();
            assert_eq!(point.ordinal, next.0, "{}: a hole or a double", what());
            let value = point.point.value;
            // One thread of one process logs a key, so within an origin values go up by one.
            assert!(next.0 == 0 || value == next.1 + 1.0, "{}: {value} after {}", what(), next.1);
            *next = (next.0 + 1, value);
            *self.tokens.entry(token_of(value).0).or_default() += 1;
            self.lags_us.push(u32::try_from(now - point.point.timestamp_ms).unwrap_or(u32::MAX));
        }
        points.len()
    }
}

/// `crowd-follow`: follows all runs, each in a thread, until everybody has logged and nothing more comes. Now and then it
/// goes on from its cursor with a new handle, as another process would.
pub fn follow(arguments: &[String]) {
    let (path, random, number, _) = parse(arguments);
    let open = || Store::options().read_only(number % 2 == 0).open(&path).unwrap();
    let ids: Vec<String> = runs(&open()).iter().map(|run| run.id().to_owned()).collect();
    let follow_one = |id: &str, mut random: Random| {
        let (mut got, mut follow) = (Got::default(), open().follow(id).unwrap().interval(FOLLOW_INTERVAL));
        loop {
            let is_over = Path::new(&path).with_file_name(OVER).exists();
            let timeout = if is_over { Duration::ZERO } else { 5 * FOLLOW_INTERVAL };
            if got.take(&mut follow, timeout) == 0 && is_over {
                return got;
            }
            if random.one_in(MOVES_ONE_IN) {
                let cursor: FollowCursor = follow.cursor().unwrap().to_string().parse().unwrap();
                follow = open().follow(id).unwrap().from_cursor(&cursor).unwrap().interval(FOLLOW_INTERVAL);
                got.moves += 1;
            }
        }
    };
    let all: Vec<Got> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0u64..)
            .zip(&ids)
            .map(|(n, id)| {
                let (random, follow_one) = (Random(random.0 ^ n), &follow_one);
                scope.spawn(move || follow_one(id, random))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (token, points) in all.iter().flat_map(|got| &got.tokens) {
        child::say_count(&format!("points{token}"), *points);
    }
    let mut lags: Vec<u32> = all.iter().flat_map(|got| got.lags_us.iter().copied()).collect();
    lags.sort_unstable();
    let lag =
        |share: f64| lags.get((lags.len() as f64 * share) as usize).or(lags.last()).copied().unwrap_or(0);
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("most", 1.0)] {
        child::say_count(name, lag(share).into());
    }
    child::say_count("origins", all.iter().map(|got| got.next.len() as u64).sum());
    child::say_count("moves", all.iter().map(|got| got.moves).sum());
}

/// `crowd-read`: looks with one store, now and then with a new one.
pub fn read(arguments: &[String]) {
    let (path, mut random, number, end) = parse(arguments);
    let open = |index| Store::options().read_only(number % 2 == 0).use_index(index).open(&path).unwrap();
    let mut store = open(true);
    let ids: Vec<String> = runs(&Store::open(&path).unwrap()).iter().map(|r| r.id().to_owned()).collect();
    let (mut found, mut looks, mut slowest) = (BTreeMap::new(), 0, Duration::ZERO);
    while Instant::now() < end {
        let begun = Instant::now();
        found = look(&store, &ids, &found);
        slowest = slowest.max(begun.elapsed());
        looks += 1;
        if random.one_in(10) {
            store = open(random.one_in(2));
            for id in &ids {
                store.get_run(id).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(random.between(1, 20)));
    }
    child::say_count("looks", looks);
    child::say_count("slowest", slowest.as_micros() as u64);
}

/// `crowd-compact`.
pub fn compact(arguments: &[String]) {
    let (path, mut random, _, end) = parse(arguments);
    let (mut folded, mut times) = (0, 0);
    while Instant::now() < end {
        let store = Store::open(&path).unwrap();
        match store.compact(&mut |_| {}) {
            Ok(report) => {
                times += 1;
                folded += report.segments_before - report.segments_after;
            }
            // A writer that closes folds as well.
            Err(Error::Busy { .. }) => {}
            Err(error) => panic!("compact: {error}"),
        }
        drop(store);
        std::thread::sleep(Duration::from_millis(random.between(20, 200)));
    }
    child::say_count("compactions", times);
    child::say_count("folded", folded);
}

/// `crowd-delete`: what may be deleted at any time.
pub fn delete(arguments: &[String]) {
    let (path, mut random, _, end) = parse(arguments);
    let mut deleted = 0;
    while Instant::now() < end {
        deleted += u64::from(std::fs::remove_file(Path::new(&path).join("index.redb")).is_ok());
        std::thread::sleep(Duration::from_millis(random.between(5, 100)));
    }
    child::say_count("deleted", deleted);
}

#[test]
fn a_crowd_logs_and_everybody_sees_all_of_it() {
    let (seed, mut random) = random("crowd");
    for _ in 0..cycles(1) {
        crowd(seed, random.word(), seconds(5));
    }
}

fn crowd(seed: u64, word: u64, seconds: u64) {
    println!("crowd: seed {seed}, {seconds} s");
    let place = Place::new();
    let path = place.at("store");
    let store = Store::open(&path).unwrap();
    let experiment = store.experiment("crowd").unwrap();
    let ids: Vec<String> = (0..RUNS)
        .map(|n| experiment.start_run(RunOptions::new().name(run_name(n))).unwrap().id().to_owned())
        .collect();
    // From some hundreds of entities on there is an index.
    for n in 0..INDEXED {
        experiment.start_run(RunOptions::new().name(format!("bystander {n}"))).unwrap();
    }
    drop(experiment);
    store.close().unwrap();
    let spawn = |what: &str, number: u64| Child::spawn(what, &args(&path, word, number, seconds));
    let writers: Vec<Child> = (0..WRITERS).map(|n| spawn("crowd-write", n)).collect();
    let followers: Vec<Child> = (0..FOLLOWERS).map(|n| spawn("crowd-follow", n)).collect();
    let reader = spawn("crowd-read", FOLLOWERS);
    let (compactor, deleter) = (spawn("crowd-compact", 0), spawn("crowd-delete", 0));
    let limit = Duration::from_secs(seconds) + GRACE;
    let written: Vec<_> = writers.into_iter().map(|w| w.finish(limit)).collect();
    std::fs::write(place.at(OVER), b"").unwrap();
    let followed: Vec<_> = followers.into_iter().map(|f| f.finish(limit)).collect();
    let looked = reader.finish(limit);
    let (compacted, deleted) = (compactor.finish(limit), deleter.finish(limit));
    let mut logged = BTreeMap::new();
    for (number, said) in (0u64..).zip(&written) {
        for thread in 0..THREADS {
            logged.insert(number * THREADS + thread, said.count(&format!("points{thread}")));
        }
    }
    for (n, said) in followed.iter().enumerate() {
        for (token, points) in &logged {
            let seen = said.count(&format!("points{token}"));
            assert_eq!(seen, *points, "follower {n}: points of thread {token} seen and logged");
        }
    }
    for (read_only, use_index) in [(true, false), (false, true)] {
        let store = Store::options().read_only(read_only).use_index(use_index).open(&path).unwrap();
        let found = look(&store, &ids, &BTreeMap::new());
        assert_eq!(found, logged, "what is there in the end is what was logged");
    }
    let range = |name: &str| {
        let all = || followed.iter().map(|said| said.count(name) as f64 / 1e3);
        let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        format!("{least:.1} to {most:.1} ms")
    };
    let sum = |name: &str| followed.iter().map(|said| said.count(name)).sum::<u64>();
    let looks = looked.count("looks");
    println!(
        "crowd: seed {seed}: {WRITERS} processes x {THREADS} threads, {} points; {FOLLOWERS} followers, each got each point of \
         each of {} series of origins once and in order, moving {} times; lag from the log call to the receipt, looking \
         every {} ms: p50 {}, p99 {}, most {}; {looks} looks at all of it, none with a hole, slowest {:.0} ms; {} \
         compactions of {} segments; index deleted {} times",
        logged.values().sum::<u64>(),
        sum("origins") / FOLLOWERS,
        sum("moves"),
        FOLLOW_INTERVAL.as_millis(),
        range("p50"),
        range("p99"),
        range("most"),
        looked.count("slowest") as f64 / 1e3,
        compacted.count("compactions"),
        compacted.count("folded"),
        deleted.count("deleted"),
    );
    assert!(looks > 0, "nobody looked");
    assert!(compacted.count("compactions") > 0, "nothing was compacted");
    assert!(deleted.count("deleted") > 0, "the index was never deleted");
}
