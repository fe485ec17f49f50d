//! kill -9: three writers with threads, one or all of them killed at any moment, again and again.
//!
//! Contract: whatever returned is there exactly once and in order, also while others go on writing; of what did not
//! return each call is there whole or not at all; no open and no question fails.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mlrs_db::{Severity, SharedMapping, Store};

use crate::chance::seed;
use crate::child::{self, Child, Watchdog};
use crate::script::{Hand, Script, calls_of, look, look_at_shared};
use crate::{Place, Random, cycles, number};

const WRITERS: usize = 3;
/// Calls of one thread, so that a writer that lives long does not make the test long.
const CALLS_MAX: u64 = 1_000;
/// Cycles of one store.
const YOUNG_STORE: u64 = 20;
const OLD_STORE: u64 = 150;
const STARTED: Duration = Duration::from_secs(30);

/// How a writer opens the store and how often it acknowledges: `write STORE SHARED_RUN SEED WRITER`.
pub fn write(args: &[String]) {
    let [path, shared, seed, writer] = args else { panic!("{args:?}") };
    let (seed, writer): (u64, u64) = (seed.parse().unwrap(), writer.parse().unwrap());
    let mut random = Random(seed ^ writer.wrapping_mul(0x5851_f42d));
    let mut options = crate::medium::options();
    if random.one_in(2) {
        options = options.flush_interval_ms(random.between(1, 20)).sync_interval_ms(random.between(1, 20));
    }
    if random.one_in(3) {
        options = options.segment_bytes_max(1);
    }
    if random.one_in(4) {
        options = options.shared_mapping(SharedMapping::Off);
    }
    let store = options.open(path).unwrap();
    let experiment = store.experiment("writers").unwrap();
    let run = experiment.start_run(mlrs_db::RunOptions::new().name(format!("writer {writer}"))).unwrap();
    child::say_word("run", run.id());
    let shared = store.run(shared).unwrap();
    let every = [1, 7, 64][random.below(3) as usize];
    let threads: Vec<_> = Script::threads(seed, writer)
        .into_iter()
        .map(|script| {
            let mut hand = Hand::new(script, &run, &shared).unwrap();
            std::thread::spawn(move || {
                for n in 0..CALLS_MAX {
                    let call = hand.script.call(n);
                    if let Err(error) = hand.make(call) {
                        panic!("call {n} ({call:?}): {error}");
                    }
                    if (n + 1) % every == 0 {
                        child::say_count(&format!("calls{}", hand.script.thread), n + 1);
                    }
                    // Leaves the others of many processes on few cores a turn.
                    if n % 16 == 15 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    // Idle, with everything still in its live file, until killed.
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A writer process as the test sees it.
pub struct Writer {
    pub child: Child,
    pub scripts: Vec<Script>,
}

/// A writer that is gone.
pub struct Dead {
    pub run: Option<String>,
    pub scripts: Vec<Script>,
    pub acknowledged: Vec<u64>,
    /// Calls that a look found; later ones must find the same.
    pub found: Vec<Option<u64>>,
}

impl Writer {
    pub fn spawn(store: &Path, shared: &str, seed: u64, number: u64) -> Self {
        let args =
            [store.to_str().unwrap().to_owned(), shared.to_owned(), seed.to_string(), number.to_string()];
        Self { child: Child::spawn("write", &args), scripts: Script::threads(seed, number) }
    }

    pub fn wait_for_first_calls(&self) {
        self.child.wait_until(STARTED, "the first acknowledgements", |said| said.counts.len() as u64 >= 3);
    }

    /// Run and calls acknowledged so far.
    pub fn acknowledged(&self) -> (Option<String>, Vec<u64>) {
        let said = self.child.said();
        let calls = self.scripts.iter().map(|s| said.count(&format!("calls{}", s.thread))).collect();
        (said.words.get("run").cloned(), calls)
    }

    pub fn kill(self) -> Dead {
        let said = self.child.kill();
        let acknowledged = self.scripts.iter().map(|s| said.count(&format!("calls{}", s.thread))).collect();
        let found = vec![None; self.scripts.len()];
        Dead { run: said.words.get("run").cloned(), scripts: self.scripts, acknowledged, found }
    }
}

impl Dead {
    /// Compares with what a store holds, strictly. Returns the calls that are there without an acknowledgement.
    pub fn check(&mut self, store: &Store, shared: &crate::script::Shared) -> u64 {
        let Some(run) = &self.run else { return 0 };
        let mut extra = 0;
        for ((script, acknowledged), known) in
            self.scripts.iter().zip(&self.acknowledged).zip(&mut self.found)
        {
            let state = look(store, run, script, shared, true);
            let calls = calls_of(script, &state, *acknowledged);
            assert_eq!(
                *known.get_or_insert(calls),
                calls,
                "thread {}: calls came or went later",
                script.token
            );
            extra += calls - acknowledged;
        }
        extra
    }

    pub fn points(&self) -> u64 {
        self.scripts.iter().zip(&self.acknowledged).map(|(s, calls)| s.state(*calls).all_points()).sum()
    }
}

/// Makes a store with the run that all writers share.
pub fn make(path: &PathBuf) -> String {
    let store = Store::open(path).unwrap();
    let run =
        store.experiment("writers").unwrap().start_run(mlrs_db::RunOptions::new().name("shared")).unwrap();
    let id = run.id().to_owned();
    drop(run);
    store.close().unwrap();
    id
}

#[derive(Default)]
struct Figures {
    cycles: u64,
    empty: u64,
    most_files: usize,
    kills: u64,
    looks: u64,
    acknowledged: u64,
    unacknowledged: u64,
    slowest_open: Duration,
    looking: Duration,
}

fn open(path: &Path, writing: bool, use_index: bool, figures: &mut Figures) -> Store {
    let begun = Instant::now();
    let store = Store::options().read_only(!writing).use_index(use_index).open(path);
    let store = store.unwrap_or_else(|e| panic!("open (writing: {writing}): {e}"));
    figures.looks += 1;
    figures.slowest_open = figures.slowest_open.max(begun.elapsed());
    store
}

/// Kills writers of one store, `cycles` times, and in the end looks at all of it once more.
fn one_store(seed: u64, cycles: u64, random: &mut Random, figures: &mut Figures) {
    let place = Place::new();
    let path = place.at("store");
    let shared = make(&path);
    let mut slots: Vec<Option<Writer>> = (0..WRITERS).map(|_| None).collect();
    let (mut dead, mut next): (Vec<Dead>, u64) = (Vec::new(), 0);
    for cycle in 0..cycles {
        for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
            *slot = Some(Writer::spawn(&path, &shared, seed, next));
            next += 1;
        }
        // Half of the kills count from the start of the process, so that opening and recovering are met as well.
        if random.one_in(2) {
            slots.iter().flatten().for_each(Writer::wait_for_first_calls);
        }
        std::thread::sleep(Duration::from_millis(random.between(5, 65)));
        let first_new = dead.len();
        match random.one_in(3) {
            true => dead.extend(slots.iter_mut().filter_map(Option::take).map(Writer::kill)),
            false => dead.extend(slots[random.below(WRITERS as u64) as usize].take().map(Writer::kill)),
        }
        figures.kills += (dead.len() - first_new) as u64;
        let looking = Instant::now();
        // What the living have acknowledged before the look must be in it.
        let living = slots.iter().flatten().map(|w| (w.acknowledged(), w.scripts.clone())).next();
        let store = open(&path, cycle % 2 == 1, random.one_in(2), figures);
        if cycle % 2 == 1 {
            // The first change of a writer recovers the dead ones.
            store.experiment("looker").unwrap();
        }
        let found = look_at_shared(&store, &shared);
        for one in &mut dead[first_new..] {
            figures.unacknowledged += one.check(&store, &found);
        }
        if let Some(((run, calls), scripts)) = &living {
            for (script, calls) in scripts.iter().zip(calls).filter(|_| run.is_some()) {
                let (state, least) =
                    (look(&store, run.as_ref().unwrap(), script, &found, false), script.state(*calls));
                assert!(state.covers(&least), "cycle {cycle}: acknowledged {least:?}, found {state:?}");
            }
        }
        store.close().unwrap_or_else(|e| panic!("cycle {cycle}: close: {e}"));
        figures.looking += looking.elapsed();
    }
    dead.extend(slots.iter_mut().filter_map(Option::take).map(Writer::kill));
    for (writing, use_index) in [(false, false), (true, true)] {
        let store = open(&path, writing, use_index, figures);
        if writing {
            store.compact(&mut |_| {}).unwrap();
        }
        let found = look_at_shared(&store, &shared);
        for one in &mut dead {
            one.check(&store, &found);
        }
        let report = store.verify(&mut |_| {}).unwrap();
        let damage: Vec<_> = report.findings.iter().filter(|f| f.severity == Severity::Damage).collect();
        assert!(damage.is_empty(), "{damage:?}");
        store.close().unwrap();
    }
    figures.cycles += cycles;
    figures.acknowledged += dead.iter().map(Dead::points).sum::<u64>();
    figures.empty +=
        dead.iter().filter(|one| one.acknowledged.iter().all(|calls| *calls == 0)).count() as u64;
    figures.most_files = figures.most_files.max(crate::files(&path).len());
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.cycles += other.cycles;
        self.empty += other.empty;
        self.most_files = self.most_files.max(other.most_files);
        self.kills += other.kills;
        self.looks += other.looks;
        self.acknowledged += other.acknowledged;
        self.unacknowledged += other.unacknowledged;
        self.slowest_open = self.slowest_open.max(other.slowest_open);
        self.looking += other.looking;
    }
}

/// Cycles on one store after the other.
fn lane(seed: u64, cycles: u64, old_stores: bool) -> Figures {
    let (mut random, mut figures) = (Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)), Figures::default());
    while figures.cycles < cycles {
        // Every cycle costs more the more dead writers a store has known, so there are many stores, and some old ones.
        let some = if old_stores && random.one_in(4) { OLD_STORE } else { YOUNG_STORE };
        let seed = seed.wrapping_add(figures.cycles);
        one_store(seed, some.min(cycles - figures.cycles), &mut random, &mut figures);
    }
    figures
}

#[test]
fn whatever_is_killed_nothing_acknowledged_is_lost() {
    let (seed, cycles) = (seed(), cycles(200));
    let soaked = number("MLRS_SOAK_CYCLES").is_some();
    println!("kill: seed {seed}, {cycles} cycles");
    let _watchdog = (!soaked).then(|| Watchdog::new("200 cycles of kills", Duration::from_secs(900)));
    let (begun, mut figures) = (Instant::now(), Figures::default());
    // Two stores at a time: most of a cycle is waiting for the moment of the kill.
    std::thread::scope(|scope| {
        let lanes = [(seed, cycles.div_ceil(2)), (!seed, cycles / 2)]
            .map(|(seed, cycles)| scope.spawn(move || lane(seed, cycles, soaked)));
        for lane in lanes {
            figures.add(&lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    println!(
        "kill: seed {seed}: {} cycles, {} kills ({} before the first acknowledgement), {} points acknowledged, 0 lost, 0 \
         doubled; {} unacknowledged calls there, all whole; {} opens, 0 failed, slowest {:.1} ms; at most {} files; {:.1} s, \
         {:.1} of it looking, two at a time",
        figures.cycles,
        figures.kills,
        figures.empty,
        figures.acknowledged,
        figures.unacknowledged,
        figures.looks,
        figures.slowest_open.as_secs_f64() * 1e3,
        figures.most_files,
        begun.elapsed().as_secs_f64(),
        figures.looking.as_secs_f64()
    );
    assert_eq!(figures.cycles, cycles, "the number of cycles is the promise");
    assert!(figures.acknowledged > 0, "no writer ever came to log");
}
