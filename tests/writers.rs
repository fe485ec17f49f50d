//! Random scripts of several writers on several stores, against a plain model.
//!
//! Contract: two nodes and a home, each with writers that are open at the same time and log to the same runs and keys;
//! they are closed, dropped or killed (not one more byte is written), compact, and are copied home whole or in part. At
//! its own store every acknowledged point of a writer is there exactly once and in order at any time; at home what a
//! whole copy brought is there until one in part follows, holes are told of, and in the end everything is where it
//! belongs. `MLRS_SOAK_CYCLES` sets the number of scripts, `MLRS_SEED` where they begin.

#[path = "support/chance.rs"]
mod chance;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mlrs_db::vfs::fault::{Fault, Plan};
use mlrs_db::vfs::{FaultVfs, MemoryVfs, OpenMode, Vfs};
use mlrs_db::{Error, Metric, Points, RunOptions, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use chance::Random;

/// Scripts of the short form.
const SCRIPTS: u64 = 2_000;
const ROOT: &str = "store";
/// Two nodes; the last place is home.
const PLACES: usize = 3;
const HOME: usize = 2;
/// Writers of one place that may be open at the same time.
const SLOTS: usize = 2;
const KEYS: [&str; 3] = ["a", "b", "batch"];
const TOKEN_SHIFT: f64 = 4_294_967_296.0;

type Verdict<T = ()> = Result<T, TestCaseError>;

#[derive(Clone, Debug)]
enum Op {
    Open {
        place: usize,
        slot: usize,
        flushes: bool,
        rolls: bool,
    },
    Log {
        place: usize,
        slot: usize,
        run: usize,
        key: usize,
        count: u64,
        bulk: bool,
    },
    Batch {
        place: usize,
        slot: usize,
        run: usize,
        count: u64,
    },
    Sync {
        place: usize,
        slot: usize,
    },
    Close {
        place: usize,
        slot: usize,
    },
    Drop {
        place: usize,
        slot: usize,
    },
    Kill {
        place: usize,
        slot: usize,
    },
    Compact {
        place: usize,
        slot: usize,
    },
    /// The files of a node whose bit is set, by place in the listing; none: all of them.
    Copy {
        from: usize,
        part: Option<u64>,
    },
    Check {
        place: usize,
        slot: Option<usize>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let at = || (0..PLACES, 0..SLOTS);
    prop_oneof![
        4 => (at(), any::<bool>(), any::<bool>())
            .prop_map(|((place, slot), flushes, rolls)| Op::Open { place, slot, flushes, rolls }),
        8 => (at(), 0..2usize, 0..2usize, prop_oneof![12 => 1u64..30, 1 => 5_000u64..14_000], any::<bool>())
            .prop_map(|((place, slot), run, key, count, bulk)| Op::Log { place, slot, run, key, count, bulk }),
        3 => (at(), 0..2usize, 1u64..4).prop_map(|((place, slot), run, count)| Op::Batch { place, slot, run, count }),
        1 => at().prop_map(|(place, slot)| Op::Sync { place, slot }),
        1 => at().prop_map(|(place, slot)| Op::Close { place, slot }),
        1 => at().prop_map(|(place, slot)| Op::Drop { place, slot }),
        3 => at().prop_map(|(place, slot)| Op::Kill { place, slot }),
        2 => at().prop_map(|(place, slot)| Op::Compact { place, slot }),
        2 => (0..HOME).prop_map(|from| Op::Copy { from, part: None }),
        2 => (0..HOME, any::<u64>()).prop_map(|(from, part)| Op::Copy { from, part: Some(part) }),
        4 => (0..PLACES, prop::option::of(0..SLOTS)).prop_map(|(place, slot)| Op::Check { place, slot }),
    ]
}

/// A series of one writer: (run, key).
type SeriesAt = (usize, usize);

struct Writer {
    store: Store,
    vfs: FaultVfs,
    /// Names the writer in the values it logs.
    token: u64,
}

#[derive(Default)]
struct Known {
    home: usize,
    logged: BTreeMap<SeriesAt, u64>,
    /// As much of it as the last whole copy took home.
    copied: BTreeMap<SeriesAt, u64>,
}

struct World {
    disks: Vec<MemoryVfs>,
    slots: Vec<Vec<Option<Writer>>>,
    runs: Vec<String>,
    writers: Vec<Known>,
    /// Whether home got a part of a node since it last got all of it, by node.
    in_part: [bool; HOME],
}

fn fail(text: String) -> TestCaseError {
    TestCaseError::fail(text)
}

fn works<T>(what: &str, result: Result<T, Error>) -> Verdict<T> {
    result.map_err(|error| fail(format!("{what}: {error}")))
}

fn value(token: u64, at: u64) -> f64 {
    token as f64 * TOKEN_SHIFT + at as f64
}

/// In the order of points, and 5 bytes of each cannot be compressed: a long column fills a segment of the smallest size.
fn noisy_time(token: u64, at: i64) -> i64 {
    at << 40 | (Random(token << 32 ^ at as u64).word() >> 24) as i64
}

fn quiet(vfs: Arc<dyn Vfs>) -> mlrs_db::Options {
    Store::options().vfs(vfs).flush_interval_ms(3_600_000).sync_interval_ms(3_600_000).stall_timeout_ms(2_000)
}

/// Copies files of one disk to another, each under a temporary name that is then renamed.
fn copy(from: &MemoryVfs, to: &MemoryVfs, part: Option<u64>) {
    let in_folder = |path: &Path| ["log", "live"].iter().any(|f| path.starts_with(Path::new(ROOT).join(f)));
    let files = from.tree().into_iter().filter_map(|(path, bytes)| Some((path, bytes?)));
    for (at, (path, bytes)) in files.filter(|(path, _)| in_folder(path)).enumerate() {
        if part.is_some_and(|part| part >> (at % 64) & 1 == 0) {
            continue;
        }
        let half: PathBuf = path.with_extension("half");
        let file = to.open(&half, OpenMode::CreateNew).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        to.rename(&half, &path).unwrap();
    }
}

/// Three stores that know the same two runs: how every script begins.
fn beginning() -> (Vec<MemoryVfs>, Vec<String>) {
    let disks: Vec<MemoryVfs> = (0..PLACES).map(|_| MemoryVfs::new()).collect();
    let store = quiet(Arc::new(disks[0].clone())).open(ROOT).unwrap();
    let experiment = store.experiment("shared").unwrap();
    let start = |name| experiment.start_run(RunOptions::new().name(name)).unwrap().id().to_owned();
    let runs = ["first", "second"].map(start).to_vec();
    drop(experiment);
    store.close().unwrap();
    for disk in &disks[1..] {
        quiet(Arc::new(disk.clone())).open(ROOT).unwrap().close().unwrap();
        copy(&disks[0], disk, None);
    }
    (disks, runs)
}

impl World {
    fn new() -> Self {
        static BEGINNING: OnceLock<(Vec<MemoryVfs>, Vec<String>)> = OnceLock::new();
        let (disks, runs) = BEGINNING.get_or_init(beginning);
        let slots = (0..PLACES).map(|_| (0..SLOTS).map(|_| None).collect()).collect();
        let disks = disks.iter().map(MemoryVfs::image).collect();
        Self { disks, slots, runs: runs.clone(), writers: Vec::new(), in_part: [false; HOME] }
    }

    fn open(&mut self, place: usize, slot: usize, flushes: bool, rolls: bool) -> Verdict<&Writer> {
        if self.slots[place][slot].is_none() {
            let vfs = FaultVfs::new(Arc::new(self.disks[place].clone()));
            let mut options = quiet(Arc::new(vfs.clone())).live_bytes_max(1);
            if flushes {
                options = options.flush_interval_ms(1).sync_interval_ms(1);
            }
            if rolls {
                options = options.segment_bytes_max(1);
            }
            let (store, token) = (works("open", options.open(ROOT))?, self.writers.len() as u64);
            self.writers.push(Known { home: place, ..Known::default() });
            self.slots[place][slot] = Some(Writer { store, vfs, token });
        }
        Ok(self.slots[place][slot].as_ref().unwrap())
    }

    fn step(&mut self, op: &Op) -> Verdict {
        match *op {
            Op::Open { place, slot, flushes, rolls } => drop(self.open(place, slot, flushes, rolls)?),
            Op::Log { place, slot, run, key, count, bulk } => {
                let id = self.runs[run].clone();
                let Writer { store, token, .. } = self.open(place, slot, false, false)?;
                let (store, token) = (store.clone(), *token);
                let logged = self.writers[token as usize].logged.entry((run, key)).or_default();
                let series = works("series", store.run(&id).and_then(|r| r.series(KEYS[key])))?;
                let steps: Vec<i64> = (*logged..*logged + count).map(|at| at as i64).collect();
                let values: Vec<f64> = steps.iter().map(|at| value(token, *at as u64)).collect();
                let times: Vec<i64> = steps.iter().map(|at| noisy_time(token, *at)).collect();
                if bulk {
                    works("log columns", series.log_columns(&steps, &times, &values))?;
                } else {
                    for ((step, time), value) in steps.iter().zip(&times).zip(&values) {
                        works("log", series.log_at(*step, *time, *value))?;
                    }
                }
                *logged += count;
            }
            Op::Batch { place, slot, run, count } => {
                let id = self.runs[run].clone();
                let Writer { store, token, .. } = self.open(place, slot, false, false)?;
                let (run_handle, token) = (works("run", store.run(&id))?, *token);
                let logged = self.writers[token as usize].logged.entry((run, 2)).or_default();
                for _ in 0..count {
                    let mut metric = Metric::new(KEYS[2], *logged as i64, value(token, *logged));
                    metric.point.timestamp_ms = *logged as i64;
                    let param = format!("{token}-{logged}");
                    works("log batch", run_handle.log_batch(&[metric], &[(&param, "v")], &[]))?;
                    *logged += 1;
                }
            }
            Op::Sync { place, slot } => {
                if let Some(writer) = &self.slots[place][slot] {
                    works("sync", writer.store.sync())?;
                }
            }
            Op::Close { place, slot } => {
                if let Some(writer) = self.slots[place][slot].take() {
                    works("close", writer.store.close())?;
                }
            }
            Op::Drop { place, slot } => drop(self.slots[place][slot].take()),
            Op::Kill { place, slot } => {
                if let Some(writer) = self.slots[place][slot].take() {
                    // From here on it reads and writes nothing any more; dropping it frees its locks, as a death does.
                    writer.vfs.fail(Plan { call: None, nth: 1, fault: Fault::Error(5), forever: true });
                    drop(writer.store);
                }
            }
            Op::Compact { place, slot } => {
                let writer = self.open(place, slot, false, false)?;
                works("compact", writer.store.compact(&mut |_| {}))?;
            }
            Op::Copy { from, part } => {
                // What was acknowledged before the copy is in it; a hand-over in between moves it, and loses nothing,
                // because all files are read at one moment.
                copy(&self.disks[from], &self.disks[HOME], part);
                match part {
                    Some(_) => self.in_part[from] = true,
                    None => {
                        self.in_part[from] = false;
                        for known in self.writers.iter_mut().filter(|known| known.home == from) {
                            known.copied = known.logged.clone();
                        }
                    }
                }
            }
            Op::Check { place, slot } => match slot.and_then(|slot| self.slots[place][slot].as_ref()) {
                Some(writer) => self.check(&writer.store, place)?,
                None => self.check_reader(place)?,
            },
        }
        Ok(())
    }

    fn check_reader(&self, place: usize) -> Verdict {
        let store = quiet(Arc::new(self.disks[place].clone())).read_only(true).open(ROOT);
        self.check(&works("open to read", store)?, place)
    }

    /// Compares all histories of a place with what its writers logged and what was copied to it.
    fn check(&self, store: &Store, place: usize) -> Verdict {
        let holes_allowed = place == HOME && self.in_part.iter().any(|part| *part);
        for (run, id) in self.runs.iter().enumerate() {
            for (key, name) in KEYS.iter().enumerate() {
                let what = format!("place {place}, run {run}, '{name}'");
                let history = works(&what, store.history(id, name))?;
                let (points, whole): (Points, bool) = match history.clone().collect() {
                    Err(Error::Gap { .. }) if holes_allowed => {
                        (works(&what, history.allow_gaps(true).collect())?, false)
                    }
                    other => (works(&what, other)?, true),
                };
                let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
                for point in points.iter() {
                    let token = (point.value / TOKEN_SHIFT) as u64;
                    let at = (point.value - value(token, 0)) as u64;
                    prop_assert_eq!(point.step, at as i64, "{}", &what);
                    found.entry(token).or_default().push(at);
                }
                for (token, known) in (0u64..).zip(&self.writers) {
                    let logged = known.logged.get(&(run, key)).copied().unwrap_or(0);
                    let copied = known.copied.get(&(run, key)).copied().unwrap_or(0);
                    let all = found.remove(&token).unwrap_or_default();
                    let count = all.len() as u64;
                    let what = format!("{what}: writer {token} of place {}", known.home);
                    prop_assert!(
                        all.windows(2).all(|pair| pair[0] < pair[1]),
                        "{what}: doubled or out of order: {all:?}"
                    );
                    prop_assert!(
                        !whole || all.last().is_none_or(|last| last + 1 == count),
                        "{what}: a hole nobody told of"
                    );
                    if known.home == place {
                        prop_assert_eq!(count, logged, "{}", &what);
                    } else if place == HOME {
                        prop_assert!(count <= logged, "{what}: {count} of {logged}");
                        // A live file that came without the segment its points went to meanwhile shows less than the
                        // older one did, until the rest comes.
                        if self.in_part[known.home] {
                            continue;
                        }
                        let start: BTreeSet<u64> = all.into_iter().filter(|at| *at < copied).collect();
                        prop_assert_eq!(start.len() as u64, copied, "{}: came with a whole copy", &what);
                    } else {
                        prop_assert_eq!(count, 0, "{}: never copied here", &what);
                    }
                }
                prop_assert!(found.is_empty(), "{what}: points of nobody: {found:?}");
            }
            let data = works("get run", store.get_run(id))?;
            for (token, known) in self.writers.iter().enumerate() {
                let least = match (known.home == place, place == HOME) {
                    (true, _) => &known.logged,
                    (_, true) => &known.copied,
                    _ => continue,
                };
                for at in 0..least.get(&(run, 2)).copied().unwrap_or(0) {
                    let param = format!("{token}-{at}");
                    prop_assert!(
                        data.params.contains_key(&param),
                        "place {place}, run {run}: param {param} is lost"
                    );
                }
            }
        }
        Ok(())
    }

    /// Everybody ends, by a kill or a close; all is copied home, and each place is compacted, home twice.
    fn end(mut self) -> Verdict {
        for (place, slot) in (0..PLACES).flat_map(|place| (0..SLOTS).map(move |slot| (place, slot))) {
            if self.slots[place][slot].is_some() {
                self.step(&Op::Check { place, slot: Some(slot) })?;
            }
            let ended = match (place + slot) % 2 {
                0 => Op::Kill { place, slot },
                _ => Op::Close { place, slot },
            };
            self.step(&ended)?;
        }
        for from in 0..HOME {
            self.step(&Op::Copy { from, part: None })?;
        }
        (0..PLACES).try_for_each(|place| self.check_reader(place))?;
        for place in (0..PLACES).chain([HOME]) {
            self.step(&Op::Compact { place, slot: 0 })?;
            self.step(&Op::Check { place, slot: Some(0) })?;
            self.step(&Op::Close { place, slot: 0 })?;
            self.check_reader(place)?;
        }
        Ok(())
    }
}

/// Runs scripts from a seed on; how many, and the points in them.
fn run_scripts(seed: u64, scripts: u32) -> (u64, u64) {
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { cases: scripts, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let done = std::cell::Cell::new((0u64, 0u64));
    let outcome = runner.run(&prop::collection::vec(op(), 1..40), |script| {
        let mut world = World::new();
        for op in &script {
            world.step(op)?;
        }
        let points = world.writers.iter().flat_map(|w| w.logged.values()).sum::<u64>();
        world.end()?;
        let (scripts, all) = done.get();
        done.set((scripts + 1, all + points));
        Ok(())
    });
    match outcome {
        Ok(()) => done.get(),
        Err(TestError::Fail(reason, script)) => {
            let lines: String = script.iter().map(|op| format!("    {op:?}\n")).collect();
            panic!("lane seed {seed}: {reason}\n{lines}");
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn scripts_of_several_writers_answer_as_the_model() {
    let (seed, scripts) = (chance::seed(), chance::cycles(SCRIPTS));
    println!("writers: seed {seed}, {scripts} scripts");
    let begun = Instant::now();
    // Always two, so that a seed means the same on every machine.
    let lanes = [(seed, scripts.div_ceil(2)), (!seed, scripts / 2)];
    let done = std::thread::scope(|scope| {
        let lanes = lanes.map(|(seed, scripts)| scope.spawn(move || run_scripts(seed, scripts as u32)));
        lanes.map(|lane| lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    println!(
        "writers: seed {seed}: {} scripts, {} points, 0 lost, 0 doubled; {:.1} s",
        done[0].0 + done[1].0,
        done[0].1 + done[1].1,
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(done[0].0 + done[1].0, scripts, "every script that was asked for was run");
}

/// The comparison can fail: a point that the model has and no store is noticed.
#[test]
fn a_point_that_is_missing_is_noticed() {
    let mut world = World::new();
    world.step(&Op::Log { place: 0, slot: 0, run: 0, key: 0, count: 3, bulk: false }).unwrap();
    world.check_reader(0).unwrap();
    world.writers[0].logged.insert((0, 0), 4);
    assert!(matches!(world.check_reader(0), Err(TestCaseError::Fail(_))));
}
