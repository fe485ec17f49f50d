//! SIGSTOP: a writer that does not go on and does not go away, also while it holds the store's lock, or the index's in
//! the middle of a transaction.
//!
//! Contract: the others log, open, read and close as if nothing were; a claim of theirs succeeds or says who holds the
//! lock. Every stop is preceded by the same work of the others while all go, so that the figures compare.

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mlrs_db::{Error, Points, RunOptions, RunSearch, Store};

use crate::child::{self, Child, Said, Watchdog};
use crate::{Place, Random, cycles, random};

/// Claims of others give up after this.
const PATIENCE_MS: u64 = 150;
/// No call of others may need longer.
const HANGS: Duration = Duration::from_secs(10);
/// Calls of others that are measured in each phase.
const CALLS: u64 = 200;
/// Points of one visit: a process that opens, logs and closes.
const VISIT_POINTS: u64 = 3;
/// Runs of the store with an index, and how many of them one round changes: their rows are written in one transaction.
const INDEXED: usize = 600;
const CHANGED: usize = 300;
/// redb holds this byte of its file exclusively as long as a write transaction runs.
const REDB_WRITER_BYTE: i64 = 1 << 62;

/// `stop-claim STORE`: two threads that claim all the time, and log beside it.
pub fn claim(args: &[String]) {
    let store = Store::options().flush_interval_ms(5).sync_interval_ms(5).open(&args[0]).unwrap();
    let run = store.experiment("stopped").unwrap().start_run(RunOptions::new().name("stopped one")).unwrap();
    child::say_word("run", run.id());
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (store, run) = (&store, &run);
            scope.spawn(move || {
                let series = run.series(&format!("points {thread}")).unwrap();
                for at in 0i64.. {
                    store.experiment(&format!("claimed {thread} {at}")).unwrap();
                    series.log_at(at, at, at as f64).unwrap();
                    child::say_count(&format!("points{thread}"), at as u64 + 1);
                }
            });
        }
    });
}

/// `stop-index STORE`: opens, changes many runs and closes, so that it is in the index much of its time.
pub fn index(args: &[String]) {
    let mut points = [0i64; 2];
    let mut run_id = String::new();
    for round in 0.. {
        let store = Store::open(&args[0]).unwrap();
        if round == 0 {
            let experiment = store.experiment("stopped").unwrap();
            run_id = experiment.start_run(RunOptions::new().name("stopped one")).unwrap().id().to_owned();
            child::say_word("run", &run_id);
        }
        let found = store.search_runs(&RunSearch { max_results: CHANGED, ..RunSearch::default() }).unwrap();
        for run in &found.items {
            store.run(&run.id).unwrap().set_tag("round", &round.to_string()).unwrap();
        }
        let run = store.run(&run_id).unwrap();
        for (thread, next) in points.iter_mut().enumerate() {
            run.series(&format!("points {thread}")).unwrap().log_at(*next, *next, *next as f64).unwrap();
            *next += 1;
            child::say_count(&format!("points{thread}"), *next as u64);
        }
        drop(run);
        store.close().unwrap();
        child::say_count("rounds", round + 1);
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// Whether somebody has a lock that excludes one of this kind, on all of a file or on a byte; asks and takes nothing.
fn is_locked(path: &Path, kind: i32, byte: Option<i64>) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return false };
    // SAFETY: plain integers, for which zero is a value; OFD locks require `l_pid` to be 0.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = kind as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    (request.l_start, request.l_len) = byte.map_or((0, 0), |byte| (byte, 1));
    // SAFETY: the descriptor is open, and `request` outlives the call.
    let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut request) };
    asked == 0 && i32::from(request.l_type) != libc::F_UNLCK
}

/// Where a process was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    Elsewhere,
    /// It holds the store's lock.
    Lock,
    /// It holds the index's lock, outside a transaction.
    Index,
    /// In a write transaction of the index.
    Transaction,
}

fn spot(store: &Path) -> Spot {
    let whole = |name: &str| is_locked(&store.join(name), libc::F_WRLCK, None);
    match (whole("lock"), whole("index.lock")) {
        (true, _) => Spot::Lock,
        // Readers share this byte's neighbours, never this byte.
        (_, true) if is_locked(&store.join("index.redb"), libc::F_RDLCK, Some(REDB_WRITER_BYTE)) => {
            Spot::Transaction
        }
        (_, true) => Spot::Index,
        _ => Spot::Elsewhere,
    }
}

/// What others felt, in nanoseconds.
#[derive(Debug, Default)]
struct Felt {
    calls: Vec<u64>,
    opens: Vec<u64>,
    closes: Vec<u64>,
}

/// Microseconds below which this share of the values is.
fn quantile(values: &[u64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |n| *n as f64 / 1e3)
}

fn count(store: &Store, run: &str, key: &str) -> u64 {
    let points: Points = store.history(run, key).unwrap().collect().unwrap();
    for (at, point) in (0i64..).zip(points.iter()) {
        assert_eq!((point.step, point.value), (at, at as f64), "'{key}': lost, doubled or out of order");
    }
    points.len() as u64
}

/// The others: one that logs all the time, and processes that come, look, log and go.
struct Others<'a> {
    path: &'a Path,
    store: &'a Store,
    run: String,
    stopped_run: String,
    logged: AtomicU64,
    visits: Cell<u64>,
    claims: Cell<u64>,
}

impl Others<'_> {
    /// All that others do; how long an open with its answers and a close took. `said` and `logged` is what must be there.
    fn work(&self, said: &Said, logged: u64) -> (Duration, Duration) {
        let n = self.claims.replace(self.claims.get() + 1);
        let begun = Instant::now();
        let reader = Store::options().read_only(n.is_multiple_of(2)).open(self.path).unwrap();
        let found = reader.search_runs(&RunSearch { max_results: 50_000, ..RunSearch::default() }).unwrap();
        assert!(found.items.iter().any(|run| run.id == self.run), "a run is not found");
        let opened = begun.elapsed();
        for thread in 0..2 {
            let least = said.count(&format!("points{thread}"));
            let found = count(&reader, &self.stopped_run, &format!("points {thread}"));
            assert!(found >= least, "{least} acknowledged, {found} found");
        }
        let found = count(&reader, &self.run, "points");
        assert!(found >= logged, "{logged} acknowledged, {found} found");
        drop(reader);
        // One that comes for a moment; when it closes, it would bring the index up to date.
        let visitor = Store::open(self.path).unwrap();
        let run = visitor.run(&self.run).unwrap();
        let (first, series) = (self.visits.get() * VISIT_POINTS, run.series("visits").unwrap());
        for at in (first..first + VISIT_POINTS).map(|at| at as i64) {
            series.log_at(at, at, at as f64).unwrap();
        }
        self.visits.set(self.visits.get() + 1);
        drop((series, run));
        let begun = Instant::now();
        match n % 2 {
            0 => visitor.close().unwrap(),
            _ => drop(visitor),
        }
        (opened, begun.elapsed())
    }

    /// Claims a new name; whether the lock was free. If not, the error names the holder.
    fn claim(&self, holder: u32) -> bool {
        match self.store.experiment(&format!("from outside {}", self.claims.get())) {
            Ok(_) => true,
            Err(Error::Busy { holder: named, .. }) => {
                let pid = format!("pid {holder} on ");
                assert!(named.starts_with(&pid), "held by {pid:?}, but the error names {named:?}");
                false
            }
            Err(error) => panic!("a claim while another process is stopped: {error}"),
        }
    }
}

/// Stops `child` again and again, at a moment that `wait` waits for, until it met all of `wanted`.
fn stop_again_and_again(
    what: &str,
    child: Child,
    path: &Path,
    seed: u64,
    wanted: &[Spot],
    mut wait: impl FnMut(),
) {
    let stops = cycles(40);
    println!("{what}: seed {seed}, {stops} stops");
    child.wait_until(Duration::from_secs(60), "its first points", |said| said.count("points1") > 0);
    let stopped_run = child.said().words["run"].clone();
    let store = Store::options().stall_timeout_ms(PATIENCE_MS).open(path).unwrap();
    let run = loop {
        // The lock may be free for moments only.
        match store.experiment("stopped") {
            Ok(experiment) => break experiment.start_run(RunOptions::new()).unwrap(),
            Err(Error::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let others = Others {
        path,
        store: &store,
        run: run.id().to_owned(),
        stopped_run,
        logged: AtomicU64::new(0),
        visits: Cell::new(0),
        claims: Cell::new(0),
    };
    // 0: nobody measures; 1: all go; 2: one is stopped; 3: it is over.
    let (phase, calls) = (AtomicUsize::new(0), Mutex::new([Vec::new(), Vec::new()]));
    let mut felt = [Felt::default(), Felt::default()];
    let (mut met, mut busy) = (Vec::new(), 0);
    let logged = &others.logged;
    std::thread::scope(|scope| {
        let (phase, calls, run) = (&phase, &calls, &run);
        scope.spawn(move || {
            let series = run.series("points").unwrap();
            loop {
                let now = phase.load(Ordering::Relaxed);
                let at = logged.load(Ordering::Relaxed) as i64;
                let begun = Instant::now();
                series.log_at(at, at, at as f64).unwrap();
                let nanos = begun.elapsed().as_nanos() as u64;
                logged.store(at as u64 + 1, Ordering::Relaxed);
                if now == 3 {
                    return;
                }
                if now > 0 && now == phase.load(Ordering::Relaxed) {
                    calls.lock().unwrap()[now - 1].push(nanos);
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        // Also when a check fails: the scope waits for the thread.
        let _over = SetAtEnd(phase);
        let logs_on = |since: u64| {
            let deadline = Instant::now() + HANGS;
            while logged.load(Ordering::Relaxed) < since + CALLS {
                assert!(Instant::now() < deadline, "nobody logs while another process is stopped");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let mut stop = 0;
        while stop < stops || (wanted.iter().any(|spot| !met.contains(spot)) && stop < 20 * stops) {
            stop += 1;
            let _watchdog = Watchdog::new(format!("{what}: stop {stop} (seed {seed})"), 6 * HANGS);
            let mut measure = |now: usize, said: &Said| {
                phase.store(now, Ordering::Relaxed);
                let before = logged.load(Ordering::Relaxed);
                let (opened, closed) = others.work(said, before);
                logs_on(before);
                phase.store(0, Ordering::Relaxed);
                felt[now - 1].opens.push(opened.as_nanos() as u64);
                felt[now - 1].closes.push(closed.as_nanos() as u64);
            };
            let said = child.said().clone();
            measure(1, &said);
            wait();
            child.signal(libc::SIGSTOP);
            while !is_stopped(child.pid()) {
                std::thread::sleep(Duration::from_micros(100));
            }
            let said = child.said().clone();
            met.push(spot(path));
            busy += u64::from(!others.claim(child.pid()));
            measure(2, &said);
            child.signal(libc::SIGCONT);
            // It goes on where it was.
            let points = said.count("points0") + said.count("points1");
            child.wait_until(Duration::from_secs(30), "going on", |said| {
                said.count("points0") + said.count("points1") > points
            });
        }
    });
    let said = child.kill();
    others.work(&said, logged.load(Ordering::Relaxed));
    let visited = others.visits.get() * VISIT_POINTS;
    assert_eq!(count(&store, run.id(), "visits"), visited, "points of those who came and went");
    let all = logged.load(Ordering::Relaxed);
    drop(run);
    store.close().unwrap();
    let at = |spot: Spot| met.iter().filter(|one| **one == spot).count();
    [felt[0].calls, felt[1].calls] = calls.into_inner().unwrap();
    let [go, stop] = &felt;
    let range =
        |all: &[u64]| format!("{:.0} to {:.0} ms", quantile(all, 0.5) / 1e3, quantile(all, 1.0) / 1e3);
    println!(
        "{what}: seed {seed}: {} stops, {} inside the lock ({busy} claims of others were Busy and named the holder), {} in an \
         index transaction, {} with the index's lock, {} elsewhere; others logged {all} points, p99 of a call {:.2} us while \
         one is stopped, {:.2} us while all go, ratio {:.2}; open and search {} and {}; close or drop, folding included, {} \
         and {} (median to slowest)",
        met.len(),
        at(Spot::Lock),
        at(Spot::Transaction),
        at(Spot::Index),
        at(Spot::Elsewhere),
        quantile(&stop.calls, 0.99),
        quantile(&go.calls, 0.99),
        quantile(&stop.calls, 0.99) / quantile(&go.calls, 0.99),
        range(&stop.opens),
        range(&go.opens),
        range(&stop.closes),
        range(&go.closes),
    );
    for spot in wanted {
        assert!(met.contains(spot), "no stop at {spot:?}: {met:?}");
    }
}

/// Ends the logging thread, also when the one that tells it panics.
struct SetAtEnd<'a>(&'a AtomicUsize);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(3, Ordering::Relaxed);
    }
}

fn pause(random: &mut Random, longest_us: u64) {
    std::thread::sleep(Duration::from_micros(random.between(500, longest_us)));
}

#[test]
fn a_stopped_writer_stops_nobody_else() {
    let (seed, mut random) = random("stop");
    let place = Place::new();
    let path = place.at("store");
    Store::open(&path).unwrap().close().unwrap();
    let child = Child::spawn("stop-claim", &[path.to_str().unwrap().to_owned()]);
    let wanted = [Spot::Lock, Spot::Elsewhere];
    stop_again_and_again("stop", child, &path, seed, &wanted, || pause(&mut random, 15_000));
}

#[test]
fn a_writer_stopped_in_an_index_transaction_stops_nobody_else() {
    let (seed, mut random) = random("stop-index");
    let place = Place::new();
    let path = place.at("store");
    let store = Store::open(&path).unwrap();
    let experiment = store.experiment("many").unwrap();
    for n in 0..INDEXED {
        experiment.start_run(RunOptions::new().name(format!("run {n}"))).unwrap();
    }
    drop(experiment);
    store.close().unwrap();
    assert!(path.join("index.redb").exists(), "a store of {INDEXED} runs has an index");
    let child = Child::spawn("stop-index", &[path.to_str().unwrap().to_owned()]);
    let index_lock = path.join("index.lock");
    let wanted = [Spot::Transaction, Spot::Elsewhere];
    stop_again_and_again("stop-index", child, &path, seed, &wanted, || {
        if random.one_in(4) {
            return pause(&mut random, 15_000);
        }
        // It is on its way to a transaction, in one, or on its way out.
        let deadline = Instant::now() + HANGS;
        while !is_locked(&index_lock, libc::F_WRLCK, None) && Instant::now() < deadline {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(random.below(12_000)));
    });
}
