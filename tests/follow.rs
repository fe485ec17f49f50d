//! Following runs, who writes them, and what becomes of runs whose writer is gone.
//!
//! Contract: whatever is done to the files meanwhile (handed over, sealed, compacted, recovered, killed in between), a
//! follower gets each point once, in the order of its origin, and without a gap. Lag and the cost of an idle look are
//! printed, not judged.

#![allow(unsafe_code)]

#[path = "support/child.rs"]
mod child;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use mlrs_db::{
    Error, Follow, FollowCursor, FollowedPoint, Points, RunLiveness, RunOptions, RunStatus, Store,
    WriterLiveness,
};
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(30);

/// What a follower got: by key and origin, the values in their order.
#[derive(Default)]
struct Got(BTreeMap<(String, String), Vec<f64>>);

impl Got {
    fn take(&mut self, points: Vec<FollowedPoint>) {
        for point in points {
            let values = self.0.entry((point.key.to_string(), point.origin.to_string())).or_default();
            assert_eq!(
                point.ordinal,
                values.len() as u64,
                "{} of {}: a gap or a double",
                point.key,
                point.origin
            );
            values.push(point.point.value);
        }
    }

    fn drain(&mut self, follow: &mut Follow) {
        loop {
            let points = follow.next_batch(Duration::ZERO).unwrap();
            if points.is_empty() {
                return;
            }
            self.take(points);
        }
    }

    fn of(&self, key: &str) -> Vec<f64> {
        let mut all: Vec<f64> =
            self.0.iter().filter(|((of, _), _)| of == key).flat_map(|(_, v)| v.clone()).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn points(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

fn reader(path: &Path) -> Store {
    Store::options().read_only(true).open(path).unwrap()
}

fn history(store: &Store, run: &str, key: &str) -> Vec<f64> {
    let mut values = store.history(run, key).unwrap().collect::<Points>().unwrap().values;
    values.sort_by(f64::total_cmp);
    values
}

fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[test]
fn a_run_is_followed_from_start_from_now_and_from_its_last_points() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    for step in 0..10 {
        run.log_metrics(step, [("loss", step as f64), ("acc", -step as f64)]).unwrap();
    }
    let other = reader(store.path());
    let (mut start, mut now) = (other.follow(run.id()).unwrap(), other.follow(run.id()).unwrap().from_now());
    let mut last = other.follow(run.id()).unwrap().keys(["loss"]).from_last(3);
    assert_eq!(now.next_batch(Duration::ZERO).unwrap(), []);
    let values = |points: Vec<FollowedPoint>| points.iter().map(|p| p.point.value).collect::<Vec<_>>();
    assert_eq!(values(last.next_batch(LONG).unwrap()), [7.0, 8.0, 9.0]);
    let first = start.next_batch(LONG).unwrap();
    assert_eq!((first.len(), &*first[0].key, &*first[1].key, first[2].point.step), (20, "acc", "loss", 1));

    // A new key, and one more point of the others.
    run.log_metrics(10, [("loss", 10.0), ("acc", -10.0), ("new", 0.5)]).unwrap();
    assert_eq!(values(last.next_batch(LONG).unwrap()), [10.0]);
    assert_eq!(values(now.next_batch(LONG).unwrap()), [-10.0, 10.0, 0.5]);
    assert_eq!(start.next_batch(LONG).unwrap().len(), 3);
    let begun = Instant::now();
    assert_eq!(start.next_batch(Duration::from_millis(120)).unwrap(), []);
    assert!(begun.elapsed() >= Duration::from_millis(120), "it waits as long as it may");
    assert!(matches!(other.follow("0123"), Err(Error::NotFound { .. })));
}

#[test]
fn a_cursor_goes_on_elsewhere_whatever_became_of_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::options().segment_bytes_max(1).open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let id = run.id().to_owned();
    let loss = run.series("loss").unwrap();
    (0..100).for_each(|n| loss.log(n, n as f64).unwrap());
    let mut got = Got::default();
    let follower = reader(&path);
    let mut follow = follower.follow(&id).unwrap().from_now();
    let empty = follow.cursor().unwrap();
    assert_eq!(follow.next_batch(Duration::ZERO).unwrap(), [], "a cursor is a look");
    (100..150).for_each(|n| loss.log(n, n as f64).unwrap());
    // Out of the iterator, so that some points are read but not given out.
    let mut follow = follower.follow(&id).unwrap();
    got.take((0..70).map(|_| follow.next().unwrap().unwrap()).collect());
    let saved = follow.cursor().unwrap().to_string();
    drop((follow, follower));

    loss.log_columns(&[150, 151], &[1, 1], &[150.0, 151.0]).unwrap();
    drop((loss, run));
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    store.run(&id).unwrap().log_metric("loss", 152, 152.0).unwrap();
    store.compact(&mut |_| {}).unwrap();
    let again = reader(&path);
    let cursor: FollowCursor = saved.parse().unwrap();
    let mut follow = again.follow(&id).unwrap().from_cursor(&cursor).unwrap();
    got.drain(&mut follow);
    assert_eq!(got.of("loss"), (0..153).map(f64::from).collect::<Vec<_>>());
    assert_eq!(
        follow.cursor().unwrap().to_string().parse::<FollowCursor>().unwrap(),
        follow.cursor().unwrap()
    );
    let mut after = Got::default();
    let mut follow = again.follow(&id).unwrap().from_cursor(&empty).unwrap();
    let points =
        std::iter::from_fn(|| Some(follow.next_batch(Duration::ZERO).unwrap()).filter(|p| !p.is_empty()));
    for mut point in points.flatten() {
        // Its first origin begins behind the hundred points that were there.
        point.ordinal -= if point.point.value < 152.0 { 100 } else { 0 };
        after.take(vec![point]);
    }
    assert_eq!(after.of("loss"), (100..153).map(f64::from).collect::<Vec<_>>());

    let other = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    assert!(matches!(again.follow(other.id()).unwrap().from_cursor(&cursor), Err(Error::InvalidArgument(_))));
}

#[test]
fn the_iterator_ends_with_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let id = run.id().to_owned();
    let follow = reader(&path).follow(&id).unwrap().interval(Duration::from_millis(1));
    let follower =
        std::thread::spawn(move || follow.map(|point| point.unwrap().point.step).collect::<Vec<_>>());
    for step in 0..50 {
        run.log_metric("loss", step, 0.0).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
    run.finish(RunStatus::Finished).unwrap();
    drop(run);
    store.close().unwrap();
    assert_eq!(follower.join().unwrap(), (0..50).collect::<Vec<_>>());
}

/// `log STORE RUN POINTS`: a point or a few at a time, its value the moment; 0 points: until killed.
fn log(args: &[String]) {
    let [path, run, points] = args else { panic!("{args:?}") };
    let points: u64 = points.parse().unwrap();
    // Handed over and sealed as often as can be.
    let options = Store::options().flush_interval_ms(15).sync_interval_ms(10).segment_bytes_max(64 * 1024);
    let store = options.open(path).unwrap();
    let run = store.run(run).unwrap();
    let (loss, bulk) = (run.series("loss").unwrap(), run.series("bulk").unwrap());
    let mut n = 0;
    while points == 0 || n < points {
        loss.log(n as i64, monotonic_ns() as f64).unwrap();
        if n % 97 == 0 {
            let steps: Vec<i64> = (0..50).map(|at| (n * 50 + at) as i64).collect();
            bulk.log_columns(&steps, &[1; 50], &steps.iter().map(|s| *s as f64).collect::<Vec<_>>()).unwrap();
        }
        if n == 400 {
            child::say_word("state", "busy");
        }
        if n % 1_000 == 999 {
            // Many at once, so that blocks are handed over and taken again while somebody reads them.
            for at in 0..3_000 {
                run.log_metrics(at, [("burst/a", at as f64), ("burst/b", at as f64)]).unwrap();
            }
        }
        n += 1;
        std::thread::sleep(Duration::from_micros(500));
    }
    store.close().unwrap();
}

fn idle(args: &[String]) {
    let [path, run] = args else { panic!("{args:?}") };
    let store = Store::open(path).unwrap();
    let run = store.run(run).unwrap();
    run.log_metric("loss", 1, 1.0).unwrap();
    child::say_word("state", "idle");
    std::thread::sleep(LONG * 10);
}

#[test]
fn child_process() {
    let Some((what, args)) = child::called() else { return };
    child::die_with_parent();
    match what.as_str() {
        "log" => log(&args),
        "idle" => idle(&args),
        _ => panic!("{what}"),
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn writers_of_other_processes_are_followed_while_they_are_killed_sealed_and_compacted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::options().segment_bytes_max(1).open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let id = run.id().to_owned();
    let spawn = |points: u64| child::Child::spawn("log", &[text(&path), id.clone(), points.to_string()]);
    let follower = reader(&path);
    let mut follow = follower.follow(&id).unwrap().interval(Duration::from_millis(5));
    let (mut got, mut lags) = (Got::default(), Vec::new());
    let mut take = |got: &mut Got, follow: &mut Follow, timeout| {
        let points = follow.next_batch(timeout).unwrap();
        let now = monotonic_ns();
        let logged = points.iter().filter(|p| &*p.key == "loss").map(|p| p.point.value as u64);
        lags.extend(logged.map(|at| now.saturating_sub(at)));
        let more = !points.is_empty();
        got.take(points);
        more
    };
    for round in 0..3 {
        let (killed, ends) = (spawn(0), spawn(2_500));
        let begun = Instant::now();
        let mut busy = false;
        while !busy || begun.elapsed() < Duration::from_millis(700) {
            take(&mut got, &mut follow, Duration::from_millis(20));
            busy = killed.said().words.contains_key("state");
            assert!(begun.elapsed() < LONG, "the writer does not get going");
        }
        killed.kill();
        take(&mut got, &mut follow, Duration::ZERO);
        // Recovers the dead one, then folds what is closed.
        store.compact(&mut |_| {}).unwrap();
        run.log_metric("mine", round, round as f64).unwrap();
        take(&mut got, &mut follow, Duration::ZERO);
        if round == 1 {
            // Goes on in another process, as it were.
            let saved = follow.cursor().unwrap().to_bytes();
            let cursor = FollowCursor::from_bytes(&saved).unwrap();
            follow = follower.follow(&id).unwrap().from_cursor(&cursor).unwrap();
            follow = follow.interval(Duration::from_millis(5));
        }
        let ending = std::thread::spawn(move || ends.finish(LONG * 2));
        while !ending.is_finished() {
            take(&mut got, &mut follow, Duration::from_millis(20));
        }
        ending.join().unwrap();
        store.compact(&mut |_| {}).unwrap();
    }
    drop(run);
    store.close().unwrap();
    while take(&mut got, &mut follow, Duration::ZERO) {}
    let fresh = reader(&path);
    for key in ["loss", "bulk", "burst/a", "burst/b", "mine"] {
        assert_eq!(got.of(key), history(&fresh, &id, key), "{key}");
    }
    lags.sort_unstable();
    let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    println!(
        "follow: {} points of {} origins, each once; lag from the log call to its receipt, looking every 5 ms: \
         p50 {:.2} ms, p99 {:.2} ms, most {:.1} ms",
        got.points(),
        got.0.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(got.points() > 20_000, "{}", got.points());
}

#[test]
fn an_idle_look_reads_little() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let loss = run.series("loss").unwrap();
    (0..10_000).for_each(|n| loss.log(n, n as f64).unwrap());
    let mut follow = reader(&path).follow(run.id()).unwrap();
    let mut got = Got::default();
    got.drain(&mut follow);
    assert_eq!(got.points(), 10_000);
    let looks = 200;
    let begun = Instant::now();
    (0..looks).for_each(|_| assert_eq!(follow.next_batch(Duration::ZERO).unwrap(), []));
    println!(
        "follow: an idle look beside 10,000 waiting points: {:.0} us",
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(looks)
    );
    let begun = Instant::now();
    (0..looks)
        .for_each(|_| drop(reader(&path).history(run.id(), "loss").unwrap().collect::<Points>().unwrap()));
    println!(
        "follow: opening and reading all of it: {:.0} us",
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(looks)
    );
}

#[test]
fn writers_are_listed_and_runs_know_whether_theirs_lives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new().name("lost")).unwrap();
    let (id, ended) =
        (run.id().to_owned(), store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap());
    ended.finish(RunStatus::Finished).unwrap();
    let ended = ended.id().to_owned();
    drop(run);
    store.close().unwrap();

    let child = child::Child::spawn("idle", &[text(&path), id.clone()]);
    child.wait_until(LONG, "a point", |said| said.words.contains_key("state"));
    let seen = reader(&path);
    let writers = seen.writers().unwrap();
    assert_eq!(writers.len(), 1, "{writers:?}");
    let writer = &writers[0];
    assert_eq!((writer.liveness, writer.pid), (WriterLiveness::Alive, Some(u64::from(child.pid()))));
    assert_eq!((writer.points, writer.points_waiting, &writer.runs), (1, 1, &vec![id.clone()]));
    assert!(writer.bytes > 0 && writer.newest_ms > Some(0) && writer.host.is_some(), "{writer:?}");
    assert_eq!(seen.run_liveness(&[&id, &ended]).unwrap(), [RunLiveness::Alive, RunLiveness::NotRunning]);
    // Asking must not have been in anybody's way: nobody may recover a living writer's file.
    let other = Store::open(&path).unwrap();
    assert!(other.reap_runs(Duration::ZERO, false).unwrap().is_empty());
    other.experiment("e2").unwrap();
    assert_eq!(seen.writers().unwrap().iter().filter(|w| w.pid.is_some()).count(), 1);

    child.kill();
    let gone = |liveness: &RunLiveness| matches!(liveness, RunLiveness::Gone { since_ms } if *since_ms > 0);
    assert!(gone(&seen.run_liveness(&[&id]).unwrap()[0]));
    let dead: Vec<_> = seen.writers().unwrap().into_iter().filter(|w| w.pid.is_some()).collect();
    assert_eq!((dead.len(), dead[0].liveness, dead[0].points_waiting), (1, WriterLiveness::Gone, 1));
    // Who brings the points home does not become the run's writer by it.
    other.compact(&mut |_| {}).unwrap();
    assert_eq!(history(&seen, &id, "loss"), [1.0]);
    assert!(gone(&seen.run_liveness(&[&id]).unwrap()[0]));
    assert!(seen.writers().unwrap().iter().all(|w| w.liveness == WriterLiveness::Alive));
}

#[test]
fn where_locks_are_not_trusted_nobody_is_called_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let id = {
        let store = Store::options().network(mlrs_db::Network::On).open(&path).unwrap();
        let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
        run.log_metric("loss", 1, 1.0).unwrap();
        run.id().to_owned()
    };
    let store = Store::options().network(mlrs_db::Network::On).open(&path).unwrap();
    assert_eq!(store.run_liveness(&[&id]).unwrap(), [RunLiveness::Unknown { host: None }]);
    assert!(store.reap_runs(Duration::ZERO, false).unwrap().is_empty());
    assert!(matches!(reader(&path).run_liveness(&[&id]).unwrap()[0], RunLiveness::Gone { .. }));
    assert_eq!(store.follow(&id).unwrap().next_batch(LONG).unwrap().len(), 1);
}

#[test]
fn runs_are_reaped_when_asked_and_resumed_where_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let id = {
        let store = Store::open(&path).unwrap();
        let run = store.experiment("e").unwrap().start_run(RunOptions::new().name("lost")).unwrap();
        (0..42).for_each(|step| run.log_metric("loss", step, 0.5).unwrap());
        run.id().to_owned()
    };
    let store = Store::open(&path).unwrap();
    let newest = store.metrics(&id).unwrap()[0].newest_ms;
    store
        .run(&id)
        .unwrap()
        .set_tag("note", "a tag is no sign of life, and who sets it no writer of its points")
        .unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    assert!(store.reap_runs(Duration::from_secs(3600), false).unwrap().is_empty(), "not yet");
    let planned = store.reap_runs(Duration::ZERO, true).unwrap();
    assert_eq!(planned.iter().map(|r| (&*r.id, &*r.name)).collect::<Vec<_>>(), [(&*id, "lost")]);
    assert_eq!(store.get_run(&id).unwrap().status, RunStatus::Running, "a plan changes nothing");
    assert_eq!(store.reap_runs(Duration::ZERO, false).unwrap(), planned);
    let reaped = store.get_run(&id).unwrap();
    assert_eq!((reaped.status, reaped.end_ms), (RunStatus::Failed, Some(planned[0].end_ms)));
    assert!(planned[0].end_ms >= newest && planned[0].end_ms <= newest + 60_000);
    assert!(store.reap_runs(Duration::ZERO, false).unwrap().is_empty(), "once");

    let resumed = store.resume_run(&id).unwrap();
    assert_eq!(resumed.last_step("loss").unwrap(), Some(41));
    assert_eq!(resumed.last_step("never").unwrap(), None);
    let data = resumed.data().unwrap();
    assert_eq!((data.status, data.end_ms), (RunStatus::Running, None));
    assert_eq!(store.run_liveness(&[&id]).unwrap(), [RunLiveness::Alive]);
    assert!(store.reap_runs(Duration::ZERO, false).unwrap().is_empty());
    resumed.log_metric("loss", 42, 0.25).unwrap();
    assert_eq!(resumed.last_step("loss").unwrap(), Some(42));
    resumed.finish(RunStatus::Finished).unwrap();
    store.delete_run(&id).unwrap();
    assert!(matches!(store.resume_run(&id), Err(Error::InvalidState(_))));
}

#[test]
fn readers_need_no_right_to_write_and_no_living_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let child = child::Child::spawn("idle", &[text(&path), run.id().to_owned()]);
    child.wait_until(LONG, "a point", |said| said.words.contains_key("state"));
    child.signal(libc::SIGSTOP);
    let seen = reader(&path);
    let mut follow = seen.follow(run.id()).unwrap();
    assert_eq!(follow.next_batch(LONG).unwrap().len(), 1);
    assert_eq!(seen.run_liveness(&[run.id()]).unwrap(), [RunLiveness::Alive], "stopped is not dead");
    child.signal(libc::SIGCONT);
    child.kill();
    assert_eq!(seen.follow(run.id()).unwrap().next_batch(LONG).unwrap().len(), 1);
    let before = std::fs::read_dir(path.join("live")).unwrap().count();
    assert_eq!(before, 1, "readers recover nothing");
}

/// What happens in a script.
#[derive(Clone, Debug)]
enum Act {
    /// Points one by one, of a key.
    Log(u8, u16),
    /// Points of three keys at a time.
    Together(u8),
    Columns(u8, u16),
    /// The store is closed and opened again: a new origin.
    Reopen,
    Compact,
    Tag,
    /// The follower looks.
    Look,
    /// The follower goes on from its cursor.
    Save,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0u8..3, 1u16..300).prop_map(|(key, points)| Act::Log(key, points)),
        1 => (0u8..3).prop_map(|key| Act::Log(key, 5_000)),
        2 => (1u8..40).prop_map(Act::Together),
        3 => (0u8..3, 1u16..200).prop_map(|(key, points)| Act::Columns(key, points)),
        1 => Just(Act::Reopen),
        1 => Just(Act::Compact),
        1 => Just(Act::Tag),
        8 => Just(Act::Look),
        2 => Just(Act::Save),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_logged_in_between_comes_once_and_in_order(
        acts in prop::collection::vec(act(), 1..40),
        small_segments: bool,
        plain: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let open = || {
            let mapping = if plain { mlrs_db::SharedMapping::Off } else { mlrs_db::SharedMapping::Auto };
            let options = Store::options().shared_mapping(mapping).flush_interval_ms(1);
            let options = if small_segments { options.segment_bytes_max(1) } else { options };
            options.open(&path).unwrap()
        };
        let mut store = open();
        let mut run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
        let id = run.id().to_owned();
        let seen = reader(&path);
        let mut follow = seen.follow(&id).unwrap();
        let (mut got, mut next, mut said) = (Got::default(), [0u32; 3], 0);
        let keys = ["a", "b", "c"];
        for act in acts {
            match act {
                Act::Log(key, points) => {
                    let series = run.series(keys[usize::from(key)]).unwrap();
                    for _ in 0..points {
                        series.log(0, f64::from(next[usize::from(key)])).unwrap();
                        next[usize::from(key)] += 1;
                    }
                }
                Act::Together(points) => for _ in 0..points {
                    run.log_metrics(0, keys.into_iter().zip(next.map(f64::from))).unwrap();
                    next = next.map(|n| n + 1);
                },
                Act::Columns(key, points) => {
                    let from = next[usize::from(key)];
                    let values: Vec<f64> = (from..from + u32::from(points)).map(f64::from).collect();
                    let zeros = vec![0; values.len()];
                    run.series(keys[usize::from(key)]).unwrap().log_columns(&zeros, &zeros, &values).unwrap();
                    next[usize::from(key)] += u32::from(points);
                }
                Act::Reopen => {
                    drop(run);
                    store.close().unwrap();
                    store = open();
                    run = store.run(&id).unwrap();
                }
                Act::Compact => drop(store.compact(&mut |_| {}).unwrap()),
                Act::Tag => {
                    said += 1;
                    run.set_tag("note", &said.to_string()).unwrap();
                }
                Act::Look => got.drain(&mut follow),
                Act::Save => {
                    let cursor = follow.cursor().unwrap().to_string().parse().unwrap();
                    follow = seen.follow(&id).unwrap().from_cursor(&cursor).unwrap();
                }
            }
        }
        got.drain(&mut follow);
        for (key, next) in keys.into_iter().zip(next) {
            // Within an origin the order is that of logging, and no value is given twice.
            for values in got.0.iter().filter(|((of, _), _)| of == key).map(|(_, values)| values) {
                prop_assert!(values.windows(2).all(|pair| pair[0] + 1.0 == pair[1]));
            }
            prop_assert_eq!(got.of(key), (0..next).map(f64::from).collect::<Vec<_>>());
        }
    }
}
