//! fork without exec, as data loaders do it: with handles on a store, and while other threads hold its locks.
//!
//! Contract: a child neither keeps, frees nor harms what it inherited; a child that logs through an inherited handle is
//! a writer of its own; nothing is lost, nothing hangs, and a killed parent is recovered while its child lives. Every
//! scenario is a process of its own, so that no other test's threads or pipes are inherited.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mlrs_db::id::Origin;
use mlrs_db::{Follow, Metric, Points, Run, RunOptions, Series, Store};

use crate::child::{self, Child};
use crate::{Place, SetAtEnd, cycles, random};

/// No child may need longer, whatever the machine is doing; a deadlock never ends.
const HANGS: Duration = Duration::from_secs(10);
const SCENARIO: Duration = Duration::from_secs(120);
const TOKEN_SHIFT: f64 = 4_294_967_296.0;
/// Points of `points` and of `more` that one round leaves.
const ROUND_POINTS: u64 = 4;
const ROUND_MORE: u64 = 2;

/// Handles as a training loop has them; what a fork inherits.
struct Handles {
    store: Store,
    run: Run,
    series: Series,
}

impl Handles {
    fn open(path: &str) -> Self {
        let store = Store::options().flush_interval_ms(3).sync_interval_ms(3).open(path).unwrap();
        let run = store.experiment("forked").unwrap().start_run(RunOptions::new().name("shared")).unwrap();
        child::say_word("run", run.id());
        let series = run.series("points").unwrap();
        Self { store, run, series }
    }

    /// Every kind of call once. `token` names who logs, `at` counts its rounds; acknowledged at the end.
    fn round(&self, token: u64, at: u64) {
        let value = |n: u64| token as f64 * TOKEN_SHIFT + n as f64;
        let (first, more) = (at * ROUND_POINTS, at * ROUND_MORE);
        self.series.log_at(first as i64, first as i64, value(first)).unwrap();
        let rest: Vec<i64> = (first + 1..first + ROUND_POINTS).map(|n| n as i64).collect();
        let values: Vec<f64> = rest.iter().map(|n| value(*n as u64)).collect();
        self.series.log_columns(&rest, &rest, &values).unwrap();
        self.run.log_metrics(more as i64, [("more", value(more))]).unwrap();
        let metric = Metric::new("more", more as i64 + 1, value(more + 1));
        self.run.log_batch(&[metric], &[(&format!("b{token}-{at}"), "v")], &[]).unwrap();
        self.run.log_param(&format!("p{token}-{at}"), "v").unwrap();
        self.run.set_tag(&format!("t{token}"), &at.to_string()).unwrap();
        self.store.experiment(&format!("claimed by {token}")).unwrap();
        if at.is_multiple_of(8) {
            self.store.sync().unwrap();
        }
        let data = self.store.get_run(self.run.id()).unwrap();
        assert_eq!(data.tags.get(&format!("t{token}")), Some(&at.to_string()), "own tag");
        let points: Points = self.store.history(self.run.id(), "points").unwrap().collect().unwrap();
        let own = points.values.iter().filter(|v| (**v / TOKEN_SHIFT) as u64 == token).count() as u64;
        assert_eq!(own, first + ROUND_POINTS, "a process sees its own points");
        child::say_count(&format!("rounds{token}"), at + 1);
    }

    fn rounds(&self, token: u64, all: std::ops::Range<u64>) {
        all.for_each(|at| self.round(token, at));
    }
}

/// Runs `run` in a forked child, which ends without running anything of its parent's.
fn fork(run: impl FnOnce()) -> i32 {
    // SAFETY: the child goes on with a copy of this thread alone; that the library and this test can bear that is what is
    // tested. It leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        // SAFETY: ends this process, and nothing else.
        unsafe { libc::_exit(if ended.is_ok() { 0 } else { 101 }) };
    }
    pid
}

/// Waits for a forked child; one that hangs is killed and told of.
fn wait(pid: i32, what: &str) {
    let deadline = Instant::now() + HANGS;
    loop {
        let mut status = 0;
        // SAFETY: `status` is a place for the answer; `pid` is a child of ours that was not waited for.
        let waited = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
        if waited == pid {
            let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
            assert_eq!(code, Some(0), "{what}: the forked child ended with status {status:#x}");
            return;
        }
        assert_eq!(waited, 0, "waitpid: {}", std::io::Error::last_os_error());
        if Instant::now() >= deadline {
            // SAFETY: as above; it is still our child.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            panic!("{what}: the forked child hangs: no end after {HANGS:?}");
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// `fork-drop STORE`: children that give up what they inherited, in each way there is.
pub fn drop_inherited(args: &[String]) {
    let mut handles = Some(Handles::open(&args[0]));
    handles.as_ref().unwrap().rounds(0, 0..5);
    let pid = fork(|| {
        child::die_with_parent();
        drop(handles.take());
    });
    wait(pid, "drop");
    handles.as_ref().unwrap().rounds(0, 5..10);
    let pid = fork(|| {
        child::die_with_parent();
        let Handles { store, run, series } = handles.take().unwrap();
        drop((run, series));
        // It may refuse, but neither hang nor harm.
        let _ = store.close();
    });
    wait(pid, "close");
    handles.as_ref().unwrap().rounds(0, 10..15);
    let Handles { store, run, series } = handles.unwrap();
    drop((run, series));
    store.close().unwrap();
}

/// `fork-log STORE`: children that log through what they inherited, while the parent does, too.
pub fn log_inherited(args: &[String]) {
    let handles = Handles::open(&args[0]);
    // Before the parent has a live file, and after.
    for token in 1..4 {
        let pid = fork(|| {
            child::die_with_parent();
            handles.rounds(token, 0..20);
        });
        handles.rounds(0, (token - 1) * 10..token * 10);
        wait(pid, "log");
    }
    // A child that also closes what it logged.
    let mut handles = Some(handles);
    let pid = fork(|| {
        child::die_with_parent();
        let Handles { store, run, series } = handles.take().unwrap();
        let own = Handles { store, run, series };
        own.rounds(4, 0..20);
        drop(own);
    });
    wait(pid, "log and drop");
    let Handles { store, run, series } = handles.take().unwrap();
    drop((run, series));
    store.close().unwrap();
}

/// A follower, and the next ordinal of each origin.
struct Followed {
    follow: Follow,
    next: BTreeMap<Origin, u64>,
}

impl Followed {
    /// Takes what is there; each point joins the one before it. Whether there was any.
    fn look(&mut self) -> bool {
        let points = self.follow.next_batch(Duration::ZERO).unwrap();
        for point in &points {
            let next = self.next.entry(point.origin).or_default();
            assert_eq!(point.ordinal, *next, "lost, doubled or out of order for an inherited follower");
            *next += 1;
        }
        !points.is_empty()
    }
}

/// `fork-threads STORE FORKS`: forks at every moment of the other threads' calls.
pub fn beside_threads(args: &[String]) {
    let (mut handles, forks): (_, u64) = (Some(Handles::open(&args[0])), args[1].parse().unwrap());
    let over = AtomicBool::new(false);
    let Handles { store, run, .. } = handles.as_ref().unwrap();
    let mut follow =
        Followed { follow: store.follow(run.id()).unwrap().keys(["points"]), next: BTreeMap::new() };
    // Threads have clones of their own, so that a child may drop the first ones.
    let clones: Vec<Handles> = (0..3)
        .map(|_| {
            let Handles { store, run, series } = handles.as_ref().unwrap();
            Handles { store: store.clone(), run: run.clone(), series: series.clone() }
        })
        .collect();
    std::thread::scope(|scope| {
        for (token, clone) in (0u64..).zip(&clones) {
            let over = &over;
            scope.spawn(move || {
                for at in 0.. {
                    clone.round(token, at);
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(1 + at / 5));
                }
            });
        }
        let _over = SetAtEnd(&over);
        for n in 0..forks {
            // Some children inherit points that were read and not handed out yet.
            follow.look();
            let pid = fork(|| {
                child::die_with_parent();
                let Handles { store, run, .. } = handles.as_ref().unwrap();
                let known: Points = store.history(run.id(), "points").unwrap().collect().unwrap();
                let known = known.len() as u64;
                while follow.look() {}
                assert!(
                    follow.next.values().sum::<u64>() >= known,
                    "an inherited follower sees what was logged"
                );
                handles.as_ref().unwrap().rounds(10 + n, 0..1 + n % 2);
                if n % 2 == 0 {
                    drop(handles.take());
                }
            });
            wait(pid, &format!("fork {n} beside threads"));
        }
    });
    drop(clones);
    drop(handles);
}

/// `fork-orphan STORE STOP_FILE`: the child goes on logging until the file is there; the parent until it is killed.
pub fn orphan(args: &[String]) {
    let (handles, stop) = (Handles::open(&args[0]), Path::new(&args[1]));
    handles.rounds(0, 0..3);
    fork(|| {
        // Nobody waits for it, so it must end by itself whatever happens.
        // SAFETY: sets a timer of this process.
        unsafe { libc::alarm(60) };
        for at in 0.. {
            handles.round(1, at);
            if stop.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(3 + at / 10));
        }
    });
    for at in 3.. {
        handles.round(0, at);
        std::thread::sleep(Duration::from_millis(1 + at / 5));
    }
}

/// `fork-grandchild STORE`: three generations.
pub fn grandchild(args: &[String]) {
    let handles = Handles::open(&args[0]);
    handles.rounds(0, 0..5);
    let pid = fork(|| {
        child::die_with_parent();
        handles.rounds(1, 0..5);
        let pid = fork(|| handles.rounds(2, 0..10));
        handles.rounds(1, 5..10);
        wait(pid, "grandchild");
        // A generation that logged nothing between two that did.
        let pid = fork(|| {
            let pid = fork(|| handles.rounds(3, 0..5));
            wait(pid, "great-grandchild");
        });
        wait(pid, "grandchild that only forks");
        handles.rounds(1, 10..12);
    });
    handles.rounds(0, 5..10);
    wait(pid, "child");
    handles.rounds(0, 10..12);
}

/// Counts what is there by token and compares: each token at least its acknowledged rounds, or exactly these.
fn check(store: &Store, said: &child::Said, exact: bool) -> u64 {
    let run = &said.words["run"];
    let mut all = 0;
    let data = store.get_run(run).unwrap();
    for (key, per_round) in [("points", ROUND_POINTS), ("more", ROUND_MORE)] {
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        let points: Points = store.history(run, key).unwrap().collect().unwrap();
        for point in points.iter() {
            let token = (point.value / TOKEN_SHIFT) as u64;
            let at = (point.value - token as f64 * TOKEN_SHIFT) as u64;
            let next = found.entry(token).or_default();
            assert_eq!(at, *next, "'{key}' of {token}: lost, doubled or out of order");
            *next += 1;
        }
        for (name, rounds) in &said.counts {
            let token: u64 = name.strip_prefix("rounds").unwrap().parse().unwrap();
            let points = found.get(&token).copied().unwrap_or(0);
            let wanted = rounds * per_round;
            assert!(points >= wanted, "'{key}' of {token}: {wanted} acknowledged, {points} found");
            assert!(!exact || points == wanted, "'{key}' of {token}: {wanted} logged, {points} found");
            for at in 0..*rounds {
                assert!(data.params.contains_key(&format!("p{token}-{at}")), "param {at} of {token} is lost");
                assert!(data.params.contains_key(&format!("b{token}-{at}")), "batch {at} of {token} is lost");
            }
            all += points;
        }
    }
    all
}

/// Runs a scenario that ends by itself, then looks; the store must also be writable.
fn scenario(what: &str, more: &[String]) {
    let (place, begun) = (Place::new(), Instant::now());
    let path = place.at("store");
    let args: Vec<String> =
        std::iter::once(path.to_str().unwrap().to_owned()).chain(more.iter().cloned()).collect();
    let said = Child::spawn(what, &args).finish(SCENARIO);
    let mut points = 0;
    for read_only in [true, false, true] {
        let store = Store::options().read_only(read_only).open(&path).unwrap();
        if !read_only {
            store.experiment("after").unwrap();
        }
        points = check(&store, &said, true);
        store.close().unwrap();
    }
    println!(
        "{what}: {} writers, {points} points, 0 lost, 0 doubled, none hung; {:.1} s",
        said.counts.len(),
        begun.elapsed().as_secs_f64()
    );
}

#[test]
fn a_child_that_drops_what_it_inherited_harms_nobody() {
    scenario("fork-drop", &[]);
}

#[test]
fn a_child_logs_through_inherited_handles() {
    scenario("fork-log", &[]);
}

#[test]
fn a_child_of_a_child_is_a_writer_too() {
    scenario("fork-grandchild", &[]);
}

#[test]
fn forks_at_any_moment_of_other_threads_deadlock_nobody() {
    scenario("fork-threads", &[cycles(200).to_string()]);
}

#[test]
fn a_killed_parent_is_recovered_while_its_child_goes_on() {
    let (seed, mut random) = random("orphan");
    let rounds = cycles(3);
    println!("fork-orphan: seed {seed}, {rounds} times");
    let mut points = 0;
    for _ in 0..rounds {
        let place = Place::new();
        let (path, stop) = (place.at("store"), place.at("stop"));
        let args = [&path, &stop].map(|p| p.to_str().unwrap().to_owned());
        let mut parent = Child::spawn("fork-orphan", &args);
        parent.wait_until(HANGS, "rounds of parent and child", |said| {
            said.count("rounds0") > 3 && said.count("rounds1") > 3
        });
        std::thread::sleep(Duration::from_millis(random.between(0, 50)));
        parent.kill_alone();
        let (said, begun) = (parent.said().clone(), Instant::now());
        let store = Store::options().stall_timeout_ms(5_000).open(&path).unwrap();
        // A claim, and the recovery of the parent: neither waits for the child.
        store.experiment("while the child lives").unwrap();
        check(&store, &said, false);
        assert!(begun.elapsed() < HANGS, "open took {:?} while the child lived", begun.elapsed());
        let before = said.count("rounds1");
        parent.wait_until(HANGS, "the child going on", |said| said.count("rounds1") > before + 2);
        check(&store, &parent.said().clone(), false);
        std::fs::write(&stop, b"").unwrap();
        let said = parent.ended();
        points += check(&store, &said, false);
        store.close().unwrap();
        let store = Store::open(&path).unwrap();
        check(&store, &said, false);
    }
    println!("fork-orphan: seed {seed}: {rounds} times, {points} points, 0 lost, 0 doubled");
}
