//! SIGSTOP: a writer that does not go on and does not go away, also while it holds the store's lock.
//!
//! Contract: the others log, open and read as if nothing were; a claim of theirs succeeds or says who holds the lock.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlrs_db::{Error, Points, RunOptions, Store};

use crate::child::{self, Child, Watchdog};
use crate::{Place, SetAtEnd, cycles, random};

/// Claims of others give up after this.
const PATIENCE_MS: u64 = 150;

/// `claim STORE`: two threads that claim all the time, and log beside it.
pub fn claim(args: &[String]) {
    let store = Store::options().flush_interval_ms(5).sync_interval_ms(5).open(&args[0]).unwrap();
    let run = store.experiment("stopped").unwrap().start_run(RunOptions::new().name("claimer")).unwrap();
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

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// Milliseconds below which 99 of 100 are.
fn p99(mut nanos: Vec<u64>) -> f64 {
    nanos.sort_unstable();
    nanos.get(nanos.len() * 99 / 100).map_or(f64::NAN, |n| *n as f64 / 1e6)
}

fn count(store: &Store, run: &str, key: &str) -> u64 {
    let points: Points = store.history(run, key).unwrap().collect().unwrap();
    for (at, point) in (0i64..).zip(points.iter()) {
        assert_eq!((point.step, point.value), (at, at as f64), "'{key}': lost, doubled or out of order");
    }
    points.len() as u64
}

#[test]
fn a_stopped_writer_stops_nobody_else() {
    let (seed, mut random) = random("stop");
    let stops = cycles(40);
    println!("stop: seed {seed}, {stops} stops");
    let place = Place::new();
    let path = place.at("store");
    Store::open(&path).unwrap().close().unwrap();
    let claimer = Child::spawn("claim", &[path.to_str().unwrap().to_owned()]);
    claimer.wait_until(Duration::from_secs(30), "the first claims", |said| said.count("points1") > 0);
    let claimed_run = claimer.said().words["run"].clone();

    let store = Store::options().stall_timeout_ms(PATIENCE_MS).open(&path).unwrap();
    let run = loop {
        // The claimer leaves the lock free for moments only.
        match store.experiment("stopped") {
            Ok(experiment) => break experiment.start_run(RunOptions::new()).unwrap(),
            Err(Error::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let (is_stop, over, logged) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let (going, stopped) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let (mut busy, mut free) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let series = run.series("points").unwrap();
            while !over.load(Ordering::Relaxed) {
                let (stop, at) = (is_stop.load(Ordering::Relaxed), logged.load(Ordering::Relaxed));
                let begun = Instant::now();
                series.log_at(at as i64, at as i64, at as f64).unwrap();
                let nanos = begun.elapsed().as_nanos() as u64;
                logged.store(at + 1, Ordering::Relaxed);
                if stop == is_stop.load(Ordering::Relaxed) {
                    if stop { &stopped } else { &going }.lock().unwrap().push(nanos);
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let _over = SetAtEnd(&over);
        let mut stop = 0;
        // The lock is held for moments only, so it may take more stops to meet both.
        while stop < stops || ((busy == 0 || free == 0) && stop < 20 * stops) {
            stop += 1;
            let _watchdog = Watchdog::new(format!("stop {stop} (seed {seed})"), Duration::from_secs(30));
            std::thread::sleep(Duration::from_micros(random.between(500, 15_000)));
            claimer.signal(libc::SIGSTOP);
            while !is_stopped(claimer.pid()) {
                std::thread::sleep(Duration::from_micros(100));
            }
            is_stop.store(true, Ordering::Relaxed);
            let (before, said) = (logged.load(Ordering::Relaxed), claimer.said().clone());
            match store.experiment(&format!("from outside {stop}")) {
                Ok(_) => free += 1,
                Err(Error::Busy { holder, .. }) => {
                    busy += 1;
                    let pid = format!("pid {} on ", claimer.pid());
                    assert!(holder.starts_with(&pid), "held by {pid:?}, but the error names {holder:?}");
                }
                Err(error) => panic!("a claim while another process is stopped: {error}"),
            }
            look(&path, &claimed_run, run.id(), &said, before, stop % 2 == 0);
            let deadline = Instant::now() + Duration::from_secs(20);
            while logged.load(Ordering::Relaxed) < before + 10 {
                assert!(Instant::now() < deadline, "nobody logs while another process is stopped");
                std::thread::sleep(Duration::from_millis(1));
            }
            is_stop.store(false, Ordering::Relaxed);
            claimer.signal(libc::SIGCONT);
            // It goes on where it was.
            let points = said.count("points0") + said.count("points1");
            claimer.wait_until(Duration::from_secs(20), "going on", |said| {
                said.count("points0") + said.count("points1") > points
            });
        }
    });
    let said = claimer.kill();
    drop(run);
    store.close().unwrap();
    look(&path, &claimed_run, "", &said, 0, true);
    println!(
        "stop: seed {seed}: {} stops, {busy} of them inside the lock (Busy named the holder), {free} outside; others \
         logged {} points, p99 of a call {:.3} ms while one is stopped, {:.3} ms while all go",
        busy + free,
        logged.load(Ordering::Relaxed),
        p99(stopped.into_inner().unwrap()),
        p99(going.into_inner().unwrap()),
    );
    assert!(busy > 0 && free > 0, "stops must meet both: {busy} inside the lock, {free} outside");
}

/// Opens, and reads what the stopped process and the other one logged.
fn look(path: &Path, claimed: &str, other: &str, said: &child::Said, logged: u64, read_only: bool) {
    let store = Store::options().read_only(read_only).open(path).unwrap();
    for thread in 0..2 {
        let found = count(&store, claimed, &format!("points {thread}"));
        let least = said.count(&format!("points{thread}"));
        assert!(found >= least, "{least} acknowledged, {found} found");
    }
    if !other.is_empty() {
        let found = count(&store, other, "points");
        assert!(found >= logged, "{logged} acknowledged, {found} found");
    }
}
