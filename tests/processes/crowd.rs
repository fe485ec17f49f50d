//! A crowd: eight processes of four threads log, four look again and again, one compacts, one deletes the index.
//!
//! Contract: each look shows of each origin the points joined, once and in order, and never fewer than an earlier one;
//! in the end everything acknowledged is there. Writers close and open again, so that there is something to compact.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use mlrs_db::{Error, Run, RunOptions, Store};

use crate::child::{self, Child};
use crate::{Place, Random, cycles, random, seconds};

const WRITERS: u64 = 8;
const THREADS: u64 = 4;
const READERS: u64 = 4;
/// Runs that all writers log to, with one key a thread: two keys are logged by all writers.
const RUNS: u64 = 2;
const KEYS: u64 = 2;
/// Between two points of one thread: the crowd shares two cores with whoever else is there.
const PAUSE: Duration = Duration::from_micros(700);
const INDEXED: u64 = 300;
const TOKEN_SHIFT: f64 = 4_294_967_296.0;
const GRACE: Duration = Duration::from_secs(60);

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
                            series.log_columns(&steps, &steps, &values).unwrap();
                            *logged += points;
                        } else {
                            series.log_at(*logged as i64, *logged as i64, token + *logged as f64).unwrap();
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
            let token = (point.value / TOKEN_SHIFT) as u64;
            let at = (point.value - token as f64 * TOKEN_SHIFT) as u64;
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
    let readers: Vec<Child> = (0..READERS).map(|n| spawn("crowd-read", n)).collect();
    let (compactor, deleter) = (spawn("crowd-compact", 0), spawn("crowd-delete", 0));
    let limit = Duration::from_secs(seconds) + GRACE;
    let written: Vec<_> = writers.into_iter().map(|w| w.finish(limit)).collect();
    let seen: Vec<_> = readers.into_iter().map(|r| r.finish(limit)).collect();
    let (compacted, deleted) = (compactor.finish(limit), deleter.finish(limit));
    let mut logged = BTreeMap::new();
    for (number, said) in (0u64..).zip(&written) {
        for thread in 0..THREADS {
            logged.insert(number * THREADS + thread, said.count(&format!("points{thread}")));
        }
    }
    for (read_only, use_index) in [(true, false), (false, true)] {
        let store = Store::options().read_only(read_only).use_index(use_index).open(&path).unwrap();
        let found = look(&store, &ids, &BTreeMap::new());
        assert_eq!(found, logged, "what is there in the end is what was logged");
    }
    let looks: u64 = seen.iter().map(|said| said.count("looks")).sum();
    println!(
        "crowd: seed {seed}: {WRITERS} processes x {THREADS} threads, {} points; {READERS} readers, {looks} looks, none with a \
         hole, slowest {:.0} ms; {} compactions of {} segments; index deleted {} times",
        logged.values().sum::<u64>(),
        seen.iter().map(|said| said.count("slowest")).max().unwrap_or(0) as f64 / 1e3,
        compacted.count("compactions"),
        compacted.count("folded"),
        deleted.count("deleted"),
    );
    assert!(looks > 0, "nobody looked");
    assert!(compacted.count("compactions") > 0, "nothing was compacted");
    assert!(deleted.count("deleted") > 0, "the index was never deleted");
}
