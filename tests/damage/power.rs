//! Power cuts: what was synced is there, and of each writer a beginning, or it is told that something is missing.
//!
//! Contract: a script of operations by two writers of one store, on the model of a disk in `vfs::power`. At every sync of
//! a file or folder, before it takes effect, the disk is rebuilt with none, all, and single ones of the changes that are
//! not durable, in their order up to one of them, torn at sectors and at any byte, and as random mixtures. Short here;
//! `MLRS_SOAK_CYCLES` operations with every change by itself in the long form (`cargo xtask soak power`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mlrs_db::format::live::LiveHeader;
use mlrs_db::vfs::power::{Change, Disk, Keep};
use mlrs_db::vfs::{FaultVfs, MemoryVfs, OpenMode, Vfs};
use mlrs_db::{Error, Metric, Points, Run, RunOptions, Store};

use crate::chance::{number, random};
use crate::*;

const OPERATIONS: u64 = 100;
/// Cuts of one boundary in the short form, besides none and all; in the long form each change is tried by itself.
const CUTS: usize = 5;
/// Mixtures of one boundary in the long form.
const MIXTURES: usize = 8;
/// After so many operations all writers are closed and the next ones log to another run: what is durable is looked at
/// less often from then on.
const OPERATIONS_OF_RUN: u64 = 100;
/// Of so many disks one is looked at for all earlier runs, and opened once more.
const WHOLE_LOOKS: usize = 16;
/// Disks that are looked at at the same time.
const THREADS: usize = 2;
/// Writers that are open at the same time.
const SLOTS: usize = 2;
const KEYS: [&str; 3] = ["a", "b", "c"];
const ARTIFACTS: [&str; 3] = ["model.bin", "plots/loss.png", "plots/deep/er.txt"];
const TOKEN_SHIFT: f64 = 4_294_967_296.0;

/// A power cut ends the boot, too.
pub(super) fn end_boot(image: &MemoryVfs) {
    let live = Path::new(ROOT).join("live");
    for entry in image.list(&live).unwrap_or_default() {
        let file = image.open(&live.join(&entry.name), OpenMode::ReadWrite).unwrap();
        let mut page = vec![0; 4096];
        if file.read_at(&mut page, 0).unwrap() == page.len()
            && let Ok(Ok(header)) = LiveHeader::decode(&page)
        {
            let other = LiveHeader { boot: [9; 16], ..header }.encode();
            file.write_all_at(&other[..256], 0).unwrap();
        }
    }
}

/// One writer: a store that was opened once.
#[derive(Clone, Debug, Default)]
struct Writer {
    /// Points in the order of the calls, by key: the first, and how many.
    points: Vec<(usize, u64, u64)>,
    /// Params in the order of the calls, each with how many entries of `points` belong to the same call.
    params: Vec<(String, Range<usize>)>,
    logged: [u64; KEYS.len()],
    /// So many entries of both are durable.
    durable: (usize, usize),
}

impl Writer {
    fn count(points: &[(usize, u64, u64)]) -> u64 {
        points.iter().map(|(_, _, count)| count).sum()
    }

    fn everything(&self) -> (usize, usize) {
        (self.points.len(), self.params.len())
    }
}

/// What is durable of an artifact, and what is being written.
type Artifact = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What was logged, and how much of it may not be lost.
#[derive(Clone, Debug, Default)]
struct Truth {
    run: String,
    writers: Vec<Writer>,
    artifacts: BTreeMap<&'static str, Artifact>,
}

/// What a rebuilt disk holds of one writer.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    /// Points, and params, that are there from the first one on.
    joined: (u64, usize),
    /// Whether later ones are there, or half of a call that is one group of frames.
    more: bool,
}

/// What a store says.
struct Look {
    found: Vec<Found>,
    /// Whether an answer said that something is missing.
    told: bool,
}

impl Truth {
    /// Compares a rebuilt disk with what was logged. Whether something was missing before something that is there.
    ///
    /// Promised of each writer: its points are a beginning of those it logged, in the order of the calls, and its
    /// params are, or answers or `verify` say that something is missing. Points may be there without a param that was
    /// set before, and the other way round: they wait in two files, and in what order the medium writes these is not
    /// known (`docs/format.md`, assumption 4).
    fn check(&self, image: &MemoryVfs, is_whole: bool, what: &dyn Fn() -> String) -> bool {
        let options = || quiet(Arc::new(image.clone()));
        let store = options().open(ROOT).unwrap_or_else(|e| panic!("{}: open: {e}", what()));
        let before = self.look(&store, image, what);
        let has_hole = self.must_be_told(&before, &store, what);
        // The first change brings home what is left in live files.
        store.experiment("next").unwrap_or_else(|e| panic!("{}: recovery: {e}", what()));
        let after = self.look(&store, image, what);
        self.must_be_told(&after, &store, what);
        let live = image.list(&Path::new(ROOT).join("live")).unwrap_or_default();
        let set_aside = live.iter().any(|entry| entry.name.ends_with(".quarantine"));
        for (writer, (before, after)) in before.found.iter().zip(&after.found).enumerate() {
            let (before, after) = (before.joined, after.joined);
            // What a reader shows behind a hole it has told of is set aside.
            let kept = after.0 >= before.0 || set_aside;
            assert!(
                kept && after.1 >= before.1,
                "{}: writer {writer}: {before:?}, {after:?} recovered",
                what()
            );
        }
        store.close().unwrap_or_else(|e| panic!("{}: close: {e}", what()));
        if is_whole {
            let store =
                options().read_only(true).open(ROOT).unwrap_or_else(|e| panic!("{}: again: {e}", what()));
            let again = self.look(&store, image, what);
            assert_eq!(again.found, after.found, "{}: closed and opened again", what());
        }
        has_hole
    }

    /// A run whose writers were all closed before: all of it is there, and nothing is told.
    fn check_closed(&self, image: &MemoryVfs, what: &dyn Fn() -> String) {
        let options = quiet(Arc::new(image.clone())).read_only(true);
        let look = self.look(&options.open(ROOT).unwrap(), image, what);
        assert!(!look.told && look.found.iter().all(|found| !found.more), "{}: a closed writer", what());
    }

    /// Whether something is there behind a hole; if so, somebody must say it.
    fn must_be_told(&self, look: &Look, store: &Store, what: &dyn Fn() -> String) -> bool {
        let behind = look.found.iter().position(|found| found.more);
        if let Some(writer) = behind.filter(|_| !look.told) {
            assert!(!verify(store).is_sound(), "{}: writer {writer}: a hole nobody tells of", what());
        }
        behind.is_some()
    }

    /// What is there of each writer, and whether an answer said that something is missing.
    fn look(&self, store: &Store, image: &MemoryVfs, what: &dyn Fn() -> String) -> Look {
        let mut told = false;
        let data = match store.get_run(&self.run) {
            Ok(data) => data,
            // Half a frame before whole ones is damage. What is left is read around it.
            Err(Error::Corrupt { .. }) => {
                told = true;
                let options = quiet(Arc::new(image.clone())).read_only(true).skip_damage(true);
                let around = options.open(ROOT).unwrap();
                around.get_run(&self.run).unwrap_or_else(|e| panic!("{}: the run: {e}", what()))
            }
            Err(error) => panic!("{}: the run: {error}", what()),
        };
        let mut there: Vec<[Vec<u64>; KEYS.len()]> = vec![Default::default(); self.writers.len()];
        for (key, name) in KEYS.iter().enumerate() {
            let history = store.history(&self.run, name).unwrap();
            let points: Points = match history.collect() {
                Ok(points) => points,
                // Later writes may have arrived without earlier ones; then the hole is named, never closed.
                Err(Error::Gap { .. } | Error::Corrupt { .. }) => {
                    told = true;
                    history.allow_gaps(true).collect().unwrap()
                }
                Err(error) => panic!("{}: '{name}': {error}", what()),
            };
            for (step, value) in points.steps.iter().zip(&points.values) {
                let token = (value / TOKEN_SHIFT) as usize;
                let at = (value - token as f64 * TOKEN_SHIFT) as u64;
                assert_eq!(*step, at as i64, "{}: '{name}'", what());
                let all = there.get_mut(token).map(|keys| &mut keys[key]);
                all.unwrap_or_else(|| panic!("{}: a point of nobody", what())).push(at);
            }
        }
        let mut found = Vec::with_capacity(self.writers.len());
        for (token, (writer, there)) in self.writers.iter().zip(&there).enumerate() {
            for (key, all) in there.iter().enumerate() {
                let order = all.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(order, "{}: '{}' of {token}: doubled or out of order", what(), KEYS[key]);
                assert!(all.last().is_none_or(|last| *last < writer.logged[key]), "{}", what());
            }
            // Those of an entry, which are few of many.
            let those = |&(key, first, count): &(usize, u64, u64)| {
                let all = &there[key];
                &all[all.partition_point(|at| *at < first)..all.partition_point(|at| *at < first + count)]
            };
            let (mut joined, mut points_more, mut broken) = (0, false, false);
            for entry in &writer.points {
                let those = those(entry);
                let from_first = those.iter().zip(entry.1..).take_while(|(a, b)| **a == *b).count();
                if !broken {
                    joined += from_first as u64;
                }
                points_more |= if broken { !those.is_empty() } else { from_first < those.len() };
                broken |= (from_first as u64) < entry.2;
            }
            let has: Vec<bool> =
                writer.params.iter().map(|(name, _)| data.params.contains_key(name)).collect();
            let params = has.iter().take_while(|has| **has).count();
            // A group of frames counts as a whole; only the declaration of a series may have been in an earlier one.
            let is_half = |((_, with), has): (&(String, Range<usize>), &bool)| {
                let of_call = &writer.points[with.clone()];
                let all: usize = of_call.iter().map(|entry| those(entry).len()).sum();
                all as u64 != if *has { Writer::count(of_call) } else { 0 }
            };
            let half = writer.params.iter().zip(&has).any(is_half);
            let durable = (Writer::count(&writer.points[..writer.durable.0]), writer.durable.1);
            assert!(
                joined >= durable.0 && params >= durable.1,
                "{}: writer {token}: {joined} points and {params} params of {durable:?} synced ones",
                what(),
            );
            let more = points_more || half || has[params..].contains(&true);
            found.push(Found { joined: (joined, params), more });
        }
        self.check_artifacts(store, image, what);
        Look { found, told }
    }

    fn check_artifacts(&self, store: &Store, image: &MemoryVfs, what: &dyn Fn() -> String) {
        let mut listed = Vec::new();
        for folder in ["", "plots", "plots/deep"] {
            let infos = store.list_artifacts(&self.run, folder).unwrap();
            listed.extend(infos.into_iter().filter(|info| !info.is_dir).map(|info| info.path));
        }
        for path in &listed {
            assert!(self.artifacts.contains_key(path.as_str()), "{}: nobody put '{path}'", what());
        }
        for (path, (durable, written)) in &self.artifacts {
            let Ok(place) = store.artifact_path(&self.run, path) else {
                assert!(durable.is_none(), "{}: artifact '{path}' is lost", what());
                continue;
            };
            let bytes = image.open(&place, OpenMode::Read).map(|file| {
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(&mut bytes, 0).unwrap();
                bytes
            });
            let is_one =
                bytes.ok().is_some_and(|bytes| [durable, written].into_iter().flatten().any(|b| *b == bytes));
            assert!(is_one, "{}: artifact '{path}' is neither the old nor the new one", what());
        }
    }
}

/// Which of the changes that were not durable arrived.
#[derive(Clone, Copy, Debug)]
enum Cut {
    None,
    All,
    Only(usize),
    Without(usize),
    Before(usize),
    /// All before it, and so many bytes of it.
    Torn(usize, usize),
    /// All others, and of it the sectors whose bit is set.
    Sectors(usize, u64),
    Mixture(u64),
}

impl Cut {
    /// Cuts of a disk: all that concern single changes and some mixtures, or some of all.
    fn all(disk: &Disk, random: &mut Random, every: bool) -> Vec<Self> {
        let pending = disk.pending();
        let mut single = |n: usize| {
            let len = if let Change::Write { bytes, .. } = &pending[n] { bytes.len() } else { 0 };
            let (torn, mask) = (random.index(len.max(1)), random.word());
            [Self::Only(n), Self::Without(n), Self::Before(n), Self::Torn(n, torn), Self::Sectors(n, mask)]
        };
        let mut cuts = vec![Self::None, Self::All];
        if every {
            for n in 0..pending.len() {
                let [only, others @ ..] = single(n);
                cuts.extend([only, others[(n + pending.len()) % others.len()]]);
            }
            cuts.extend((0..MIXTURES).map(|_| Self::Mixture(random.word())));
            return cuts;
        }
        let places: Vec<usize> = (0..CUTS).map(|at| at * pending.len() / CUTS).collect();
        if !pending.is_empty() {
            let singles: Vec<[Self; 5]> = places.into_iter().map(&mut single).collect();
            cuts.extend(singles.into_iter().map(|all| all[random.index(5)]));
            cuts.push(Self::Mixture(random.word()));
        }
        cuts
    }

    fn keep(self, n: usize, change: &Change, mixture: &mut Random) -> Keep {
        let whole_if = |yes: bool| if yes { Keep::Whole } else { Keep::Lost };
        match self {
            Self::None => Keep::Lost,
            Self::All => Keep::Whole,
            Self::Only(one) => whole_if(n == one),
            Self::Without(one) => whole_if(n != one),
            Self::Before(one) => whole_if(n < one),
            Self::Torn(one, bytes) if n == one => Keep::Prefix(bytes),
            Self::Torn(one, _) => whole_if(n < one),
            Self::Sectors(one, mask) if n == one => Keep::Sectors(mask),
            Self::Sectors(..) => Keep::Whole,
            Self::Mixture(_) => {
                let len = if let Change::Write { bytes, .. } = change { bytes.len() } else { 0 };
                match mixture.below(8) {
                    0 | 1 => Keep::Lost,
                    2 => Keep::Zeros,
                    3 => Keep::Sectors(mixture.word()),
                    4 => Keep::Prefix(mixture.index(len.max(1))),
                    _ => Keep::Whole,
                }
            }
        }
    }

    fn image(self, disk: &Disk) -> MemoryVfs {
        let mut mixture = Random(if let Self::Mixture(seed) = self { seed } else { 0 });
        let image = disk.after_crash(|n, change| self.keep(n, change, &mut mixture));
        end_boot(&image);
        image
    }
}

#[derive(Default)]
struct Figures {
    operations: u64,
    boundaries: u64,
    pending: u64,
    images: u64,
    with_holes: u64,
    artifacts: u64,
    writers: usize,
}

/// The store being written, and what is known of it.
struct Script {
    vfs: FaultVfs,
    disks: Arc<Mutex<Vec<Disk>>>,
    truth: Truth,
    /// Runs to which nobody logs any more.
    past: Vec<Truth>,
    /// By slot: number of the writer, its handles, and whether every call of it is durable.
    slots: [Option<(usize, Store, Run, bool)>; SLOTS],
    random: Random,
    every: bool,
    figures: Figures,
}

impl Script {
    fn new(random: Random, every: bool) -> Self {
        let memory = MemoryVfs::new();
        let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
        let run = store.experiment("power").unwrap().start_run(RunOptions::new()).unwrap();
        let truth = Truth { run: run.id().to_owned(), ..Truth::default() };
        drop(run);
        store.compact(&mut |_| {}).unwrap();
        store.close().unwrap();
        let file = memory.open(Path::new("source"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[7; 3_000], 0).unwrap();
        let vfs = FaultVfs::with_power_model(memory).unwrap();
        let disks: Arc<Mutex<Vec<Disk>>> = Arc::default();
        let seen = Arc::clone(&disks);
        vfs.before_sync(move |disk| seen.lock().unwrap().push(disk.clone()));
        Self {
            vfs,
            disks,
            truth,
            past: Vec::new(),
            slots: [const { None }; SLOTS],
            random,
            every,
            figures: Figures::default(),
        }
    }

    /// Does something, and tries power cuts at every boundary that it passed. What it logs may be there, what was
    /// durable before it must be.
    fn passing<T>(&mut self, done: impl FnOnce() -> T) -> T {
        let result = done();
        let disks = std::mem::take(&mut *self.disks.lock().unwrap());
        for disk in disks {
            self.figures.boundaries += 1;
            self.figures.pending += disk.pending().len() as u64;
            let cuts = Cut::all(&disk, &mut self.random, self.every);
            self.figures.images += cuts.len() as u64;
            let (at, boundary) = (self.figures.operations, self.figures.boundaries);
            let (next, with_holes) = (AtomicUsize::new(0), AtomicU64::new(0));
            let try_cuts = || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cut) = cuts.get(n) else { break };
                    let what = || {
                        let all: Vec<String> = disk.pending().iter().map(ToString::to_string).collect();
                        format!("operation {at}, boundary {boundary}, {cut:?} of {all:#?}")
                    };
                    let (image, is_whole) = (cut.image(&disk), n % WHOLE_LOOKS == 0);
                    for past in self.past.iter().filter(|_| is_whole) {
                        past.check_closed(&image, &what);
                    }
                    let has_hole = self.truth.check(&image, is_whole, &what);
                    with_holes.fetch_add(u64::from(has_hole), Ordering::Relaxed);
                }
            };
            std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(try_cuts))));
            self.figures.with_holes += with_holes.into_inner();
        }
        result
    }

    /// Opens a writer if there is none; its number.
    fn open(&mut self, slot: usize) -> usize {
        if let Some((token, ..)) = &self.slots[slot] {
            return *token;
        }
        let token = self.truth.writers.len();
        self.truth.writers.push(Writer::default());
        let always = self.random.one_in(4);
        let durability = if always { mlrs_db::Durability::Sync } else { mlrs_db::Durability::Os };
        let options = quiet(Arc::new(self.vfs.clone())).segment_bytes_max(1).durability(durability);
        let id = self.truth.run.clone();
        let (store, run) = self.passing(|| {
            let store = options.open(ROOT).unwrap();
            let run = store.run(&id).unwrap();
            (store, run)
        });
        self.slots[slot] = Some((token, store, run, always));
        token
    }

    /// One call that logs.
    fn log(&mut self, slot: usize, keys: &[(usize, u64)], columns: bool, param: bool) {
        let token = self.open(slot);
        let writer = &mut self.truth.writers[token];
        let before = writer.points.len();
        let mut metrics = Vec::new();
        for (key, count) in keys {
            let first = writer.logged[*key];
            writer.logged[*key] += count;
            writer.points.push((*key, first, *count));
            for at in first..first + count {
                let mut metric = Metric::new(KEYS[*key], at as i64, token as f64 * TOKEN_SHIFT + at as f64);
                // Times that cannot be compressed fill segments.
                metric.point.timestamp_ms = (at << 40 | self.random.word() >> 24) as i64;
                metrics.push(metric);
            }
        }
        let name = format!("p{token}-{}", writer.params.len());
        if param {
            writer.params.push((name.clone(), before..writer.points.len()));
        }
        let (_, _, run, always) = self.slots[slot].clone().unwrap();
        self.passing(|| match (columns, metrics.as_slice()) {
            (true, _) => {
                let steps: Vec<i64> = metrics.iter().map(|m| m.point.step).collect();
                let times: Vec<i64> = metrics.iter().map(|m| m.point.timestamp_ms).collect();
                let values: Vec<f64> = metrics.iter().map(|m| m.point.value).collect();
                run.series(&metrics[0].key).unwrap().log_columns(&steps, &times, &values).unwrap();
            }
            (_, []) => run.log_param(&name, "v").unwrap(),
            (_, [one]) if !param => {
                let point = one.point;
                run.series(&one.key).unwrap().log_at(point.step, point.timestamp_ms, point.value).unwrap();
            }
            _ if param => run.log_batch(&metrics, &[(&name, "v")], &[]).unwrap(),
            _ => run.log_batch(&metrics, &[], &[]).unwrap(),
        });
        if always {
            self.all_durable(token);
        }
    }

    fn put_artifact(&mut self, slot: usize) {
        self.open(slot);
        let path = ARTIFACTS[self.random.index(ARTIFACTS.len())];
        let copied = self.random.one_in(3);
        let len = self.random.between(1, 2_000);
        let bytes =
            if copied { vec![7; 3_000] } else { (0..len).map(|_| self.random.word() as u8).collect() };
        self.truth.artifacts.entry(path).or_default().1 = Some(bytes.clone());
        let (_, store, run, _) = self.slots[slot].clone().unwrap();
        self.passing(|| match copied {
            true => store.put_artifact(run.id(), Path::new("source"), path).unwrap(),
            false => store.put_artifact_bytes(run.id(), &bytes, path).unwrap(),
        });
        self.truth.artifacts.insert(path, (Some(bytes), None));
        self.figures.artifacts += 1;
    }

    /// Everything a writer logged is durable.
    fn all_durable(&mut self, token: usize) {
        self.truth.writers[token].durable = self.truth.writers[token].everything();
    }

    fn close(&mut self, slot: usize) {
        if let Some((token, store, run, _)) = self.slots[slot].take() {
            drop(run);
            self.passing(|| store.close().unwrap());
            self.all_durable(token);
        }
    }

    /// Closes all writers; whoever opens next logs to another run.
    fn begin_run(&mut self) {
        (0..SLOTS).for_each(|slot| self.close(slot));
        let options = quiet(Arc::new(self.vfs.clone()));
        let run = self.passing(|| {
            let store = options.open(ROOT).unwrap();
            let run =
                store.experiment("power").unwrap().start_run(RunOptions::new()).unwrap().id().to_owned();
            store.close().unwrap();
            run
        });
        self.figures.writers += self.truth.writers.len();
        self.past.push(std::mem::replace(&mut self.truth, Truth { run, ..Truth::default() }));
    }

    fn operation(&mut self) {
        self.figures.operations += 1;
        if self.figures.operations.is_multiple_of(OPERATIONS_OF_RUN) {
            self.begin_run();
        }
        let slot = self.random.index(SLOTS);
        let key = self.random.index(KEYS.len());
        match self.random.below(24) {
            0..8 => {
                for _ in 0..self.random.between(1, 4) {
                    self.log(slot, &[(key, 1)], false, false);
                }
            }
            8 | 9 => self.log(slot, &[(key, 1), ((key + 1) % KEYS.len(), 1)], false, false),
            10..13 => {
                let count = if self.random.one_in(6) { self.random.between(2_000, 4_000) } else { 20 };
                self.log(slot, &[(key, count)], true, false);
            }
            13 | 14 => self.log(slot, &[(key, 1), ((key + 1) % KEYS.len(), 1)], false, true),
            15 => self.log(slot, &[], false, true),
            16..20 => {
                let token = self.open(slot);
                let (_, store, ..) = self.slots[slot].clone().unwrap();
                self.passing(|| store.sync().unwrap());
                self.all_durable(token);
            }
            20 | 21 => self.put_artifact(slot),
            22 => self.close(slot),
            _ => {
                self.open(slot);
                let (_, store, ..) = self.slots[slot].clone().unwrap();
                self.passing(|| store.compact(&mut |_| {}).map(drop).unwrap());
            }
        }
    }
}

#[test]
fn after_a_power_cut_what_was_synced_is_there_and_of_each_writer_a_beginning() {
    let (seed, random) = random("power");
    let told = number("MLRS_SOAK_CYCLES");
    let operations = told.unwrap_or(OPERATIONS);
    println!("power: seed {seed}, {operations} operations");
    let begun = Instant::now();
    let mut script = Script::new(random, told.is_some());
    for _ in 0..operations {
        script.operation();
    }
    let writers = script.figures.writers + script.truth.writers.len();
    let Figures { boundaries, pending, images, with_holes, artifacts, .. } = script.figures;
    println!(
        "power: seed {seed}: {operations} operations of {} writers, {boundaries} boundaries with {:.0} changes not durable on \
         average, {images} disks rebuilt: everything synced there, each writer a beginning or ({with_holes} disks) told; \
         {artifacts} artifacts old or new; {:.1} s",
        writers,
        pending as f64 / boundaries.max(1) as f64,
        begun.elapsed().as_secs_f64()
    );
    assert!(images > boundaries && artifacts > 0 && with_holes > 0, "nothing was tried");
}
