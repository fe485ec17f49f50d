//! The n-th call to the file system fails: nothing acknowledged is lost, nothing hangs, nothing panics.
//!
//! Contract: for every n, once and for good, with every error a disk has: logging (plain, mapped, synced), bringing home
//! what a dead writer left, compaction, and reading. A script that takes longer than [`HANGS`] ends the program.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mlrs_db::vfs::fault::{Fault, FaultVfs, Plan};
use mlrs_db::vfs::{MemoryVfs, OsVfs, Vfs};
use mlrs_db::{Durability, Metric, Points, Result, Run, RunOptions, RunStatus, Store};

use crate::*;

const EIO: i32 = 5;
const EINTR: i32 = 4;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
const ESTALE: i32 = 116;
const FAULTS: [Fault; 7] = [
    Fault::Error(ENOSPC),
    Fault::Error(EDQUOT),
    Fault::Error(EIO),
    Fault::Error(EINTR),
    Fault::Short(ENOSPC),
    Fault::Short(EDQUOT),
    Fault::Short(EIO),
];
/// A read does not say that the disk is full; it may say that a file system went away.
const READ_FAULTS: [Fault; 4] =
    [Fault::Error(EIO), Fault::Error(EINTR), Fault::Error(ESTALE), Fault::Error(ENOSPC)];
const HANGS: Duration = Duration::from_secs(10);

/// The script that runs now, for the watchdog; none ends it.
struct Now(Arc<Mutex<Option<(Instant, String)>>>);

impl Drop for Now {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = None;
    }
}

/// Runs `script(n, fault, forever)` for every n until none is due; prints and returns how many there were.
fn for_every_call(what: &str, faults: &[Fault], mut script: impl FnMut(u64, Fault, bool) -> bool) -> u64 {
    let now = Now(Arc::new(Mutex::new(Some((Instant::now(), String::new())))));
    let watched = Arc::clone(&now.0);
    std::thread::spawn(move || {
        loop {
            // The lock must be free while this thread sleeps.
            let now = watched.lock().unwrap().clone();
            let Some((since, script)) = now else { return };
            if since.elapsed() > HANGS {
                eprintln!("{script} hangs: no end after {HANGS:?}");
                std::process::abort();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let (mut scripts, mut least) = (0, u64::MAX);
    for forever in [false, true] {
        for &fault in faults {
            let mut nth = 1;
            loop {
                let script_now = format!("{what}: call {nth} {fault:?} forever {forever}");
                *now.0.lock().unwrap() = Some((Instant::now(), script_now));
                if !script(nth, fault, forever) {
                    break;
                }
                nth += 1;
                scripts += 1;
            }
            least = least.min(nth - 1);
        }
    }
    println!(
        "faults: {what}: {least} calls and more, {scripts} scripts with a fault each: 0 lost, 0 hung, 0 panics"
    );
    least
}

/// Where a script runs: in memory, or on a real file system where the live file is mapped.
enum Disk {
    Memory(MemoryVfs),
    Real(tempfile::TempDir),
}

impl Disk {
    fn memory() -> Self {
        Self::Memory(MemoryVfs::new())
    }

    fn real() -> Self {
        let fast = Path::new("/dev/shm");
        let parent = if fast.is_dir() { fast.to_path_buf() } else { std::env::temp_dir() };
        Self::Real(tempfile::tempdir_in(parent).unwrap())
    }

    fn vfs(&self) -> Arc<dyn Vfs> {
        match self {
            Self::Memory(memory) => Arc::new(memory.clone()),
            Self::Real(_) => Arc::new(OsVfs),
        }
    }

    fn root(&self) -> PathBuf {
        match self {
            Self::Memory(_) => ROOT.into(),
            Self::Real(directory) => directory.path().join(ROOT),
        }
    }

    /// What a killed process leaves at this moment; nothing runs in the background, so a copy is exact.
    fn image(&self) -> Self {
        match self {
            Self::Memory(memory) => Self::Memory(memory.image()),
            Self::Real(_) => {
                let copy = Self::real();
                for folder in ["", "live", "log"] {
                    let Ok(entries) = std::fs::read_dir(self.root().join(folder)) else { continue };
                    std::fs::create_dir_all(copy.root().join(folder)).unwrap();
                    for path in entries.map(|e| e.unwrap().path()).filter(|path| path.is_file()) {
                        std::fs::copy(&path, copy.root().join(folder).join(path.file_name().unwrap()))
                            .unwrap();
                    }
                }
                copy
            }
        }
    }
}

/// What calls said yes to.
#[derive(Default)]
struct Acknowledged {
    run: Option<Run>,
    experiment: bool,
    params: Vec<(String, String)>,
    tags: Vec<(String, String)>,
    points: BTreeMap<String, Vec<(i64, i64, u64)>>,
    /// Values of calls that said no: they may be there, each at most once, or not.
    refused: Vec<f64>,
    finished: bool,
}

impl Acknowledged {
    fn points(&mut self, key: &str, points: &Points, result: &Result<()>) {
        match result {
            Ok(()) => self.points.entry(key.into()).or_default().extend(bits(points)),
            Err(_) => self.refused.extend(&points.values),
        }
    }

    /// Some calls of each kind, from `base` on; goes on after errors.
    fn log(&mut self, store: &Store, base: i64) {
        if self.run.is_none() {
            let started = store.experiment("faults").and_then(|experiment| {
                self.experiment = true;
                experiment.start_run(RunOptions::new().param("lr", "0.1"))
            });
            let Ok(run) = started else { return };
            self.params.push(("lr".into(), "0.1".into()));
            self.run = Some(run);
        }
        let Some(run) = self.run.clone() else { return };
        let (key, value) = (format!("p{base}"), base.to_string());
        if run.log_param(&key, &value).is_ok() {
            self.params.push((key, value));
        }
        let point = |n: i64| -> Points {
            [mlrs_db::Point { step: base + n, timestamp_ms: n, value: (base + n) as f64 + 0.5 }]
                .into_iter()
                .collect()
        };
        if let Ok(series) = run.series("live") {
            for n in 0..4 {
                let logged = series.log_at(base + n, n, (base + n) as f64 + 0.5);
                self.points("live", &point(n), &logged);
            }
            let columns: Points = (4..7).flat_map(|n| point(n).iter().collect::<Vec<_>>()).collect();
            let logged = series.log_columns(&columns.steps, &columns.timestamps_ms, &columns.values);
            self.points("live", &columns, &logged);
        }
        let mut metric = Metric::new("batch", base, base as f64 + 0.25);
        metric.point.timestamp_ms = base;
        let logged = run.log_batch(&[metric.clone()], &[], &[(&format!("t{base}"), "x")]);
        self.points("batch", &[metric.point].into_iter().collect(), &logged);
        if logged.is_ok() {
            self.tags.push((format!("t{base}"), "x".into()));
        }
        if run.set_tag(&format!("s{base}"), "y").is_ok() {
            self.tags.push((format!("s{base}"), "y".into()));
        }
        let _ = store.sync();
        self.finished |= run.finish(RunStatus::Finished).is_ok();
    }

    fn check(&self, store: &Store, what: &str) {
        if self.experiment {
            store.experiment("faults").unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        let Some(run) = &self.run else { return };
        let data = store.get_run(run.id()).unwrap_or_else(|e| panic!("{what}: {e}"));
        for (key, value) in &self.params {
            assert_eq!(data.params.get(key), Some(value), "{what}");
        }
        for (key, value) in &self.tags {
            assert_eq!(data.tags.get(key), Some(value), "{what}");
        }
        assert!(!self.finished || data.status == RunStatus::Finished, "{what}");
        for (key, wanted) in &self.points {
            let history = store.history(run.id(), key).unwrap();
            let found: Points = history.collect().unwrap_or_else(|e| panic!("{what}: {key}: {e}"));
            let mut found = bits(&found);
            // In their order, each once; between them only what was refused, at most once.
            let mut refused: Vec<u64> = self.refused.iter().map(|value| value.to_bits()).collect();
            let mut wanted = wanted.iter().peekable();
            for point in found.drain(..) {
                if wanted.peek() == Some(&&point) {
                    wanted.next();
                } else {
                    let at = refused.iter().position(|value| *value == point.2);
                    refused.swap_remove(
                        at.unwrap_or_else(|| panic!("{what}: {key}: {point:?} was never logged")),
                    );
                }
            }
            assert_eq!(wanted.next(), None, "{what}: {key}: an acknowledged point is lost");
        }
    }
}

/// Runs the script with a fault at its n-th call; returns whether there is one.
fn script(disk: &Disk, durability: Durability, nth: u64, fault: Fault, forever: bool) -> bool {
    let what = format!("call {nth} {fault:?} forever {forever}");
    let vfs = FaultVfs::new(disk.vfs());
    vfs.fail(Plan { call: None, nth, fault, forever });
    let mut acknowledged = Acknowledged::default();
    let store = quiet(Arc::new(vfs.clone())).durability(durability).open(disk.root());
    if let Ok(store) = store {
        acknowledged.log(&store, 0);
        // What a killed process leaves at this moment.
        acknowledged.check(&reopened(disk, false), &format!("{what}, killed"));
        vfs.heal();
        acknowledged.log(&store, 100);
        acknowledged.check(&reopened(disk, true), &format!("{what}, killed after healing"));
        vfs.fail(Plan { call: None, nth: nth.div_ceil(2), fault, forever });
        let _ = store.close();
    }
    let due = vfs.injected() > 0;
    for write in [false, true] {
        acknowledged.check(&reopened(disk, write), &format!("{what}, closed, writing {write}"));
    }
    due
}

/// The store of a copy, which lives as long as it.
struct Reopened {
    store: Store,
    _disk: Disk,
}

impl std::ops::Deref for Reopened {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

fn reopened(disk: &Disk, write: bool) -> Reopened {
    let image = disk.image();
    let made = image.vfs().metadata(&image.root().join("MLRS")).is_ok();
    let store = quiet(image.vfs()).read_only(made && !write).open(image.root()).unwrap();
    if made && write {
        // Recovers what the dead writer left.
        store.experiment("next").unwrap();
    }
    Reopened { store, _disk: image }
}

#[test]
fn whatever_call_fails_nothing_acknowledged_is_lost() {
    let calls = for_every_call("logging, plain", &FAULTS, |nth, fault, forever| {
        script(&Disk::memory(), Durability::Os, nth, fault, forever)
    });
    assert!(calls > 60, "the script makes only {calls} calls");
}

#[test]
fn whatever_call_fails_nothing_synced_is_lost() {
    let calls = for_every_call("logging, synced", &FAULTS, |nth, fault, forever| {
        script(&Disk::memory(), Durability::Sync, nth, fault, forever)
    });
    assert!(calls > 60, "the script makes only {calls} calls");
}

#[test]
fn whatever_call_fails_nothing_in_a_mapped_file_is_lost() {
    let calls = for_every_call("logging, mapped", &FAULTS, |nth, fault, forever| {
        script(&Disk::real(), Durability::Os, nth, fault, forever)
    });
    assert!(calls > 60, "the script makes only {calls} calls");
}

/// Closed segments, a dead writer's live file, and what all of it must answer.
fn busy_store() -> (MemoryVfs, Answers) {
    let memory = MemoryVfs::new();
    let options = || quiet(Arc::new(memory.clone())).segment_bytes_max(1);
    for _ in 0..3 {
        let store = options().open(ROOT).unwrap();
        fill(&store, 1, 40);
        store.close().unwrap();
    }
    let killed = options().open(ROOT).unwrap();
    fill(&killed, 1, 40);
    let image = memory.image();
    drop(killed);
    let answers = answers(&quiet(Arc::new(image.image())).read_only(true).open(ROOT).unwrap()).unwrap();
    assert_eq!((answers.runs.len(), answers.points.len()), (4, 12));
    (image, answers)
}

fn same(what: &str, found: &Answers, wanted: &Answers) {
    assert!(found.runs.keys().eq(wanted.runs.keys()), "{what}: runs {:?}", found.runs.keys());
    for (id, run) in &wanted.runs {
        assert_eq!(&found.runs[id], run, "{what}");
    }
    for (key, points) in &wanted.points {
        assert_eq!(bits(&found.points[key]), bits(points), "{what}: {key:?}");
    }
}

#[test]
fn whatever_call_fails_while_a_dead_writer_is_brought_home_and_all_is_compacted_nothing_is_lost() {
    let (busy, wanted) = busy_store();
    let calls = for_every_call("recovery and compaction", &FAULTS, |nth, fault, forever| {
        let what = format!("call {nth} {fault:?} forever {forever}");
        let memory = busy.image();
        let vfs = FaultVfs::new(Arc::new(memory.clone()));
        vfs.fail(Plan { call: None, nth, fault, forever });
        if let Ok(store) = quiet(Arc::new(vfs.clone())).open(ROOT) {
            let _ = store.compact(&mut |_| {});
            let _ = store.gc(&mlrs_db::GcOptions::default());
            let _ = store.close();
        }
        let due = vfs.injected() > 0;
        vfs.heal();
        for read_only in [true, false] {
            let store = quiet(Arc::new(memory.image())).read_only(read_only).open(ROOT).unwrap();
            if !read_only {
                store.compact(&mut |_| {}).unwrap_or_else(|e| panic!("{what}: compacting again: {e}"));
            }
            same(&what, &answers(&store).unwrap_or_else(|e| panic!("{what}: {e}")), &wanted);
        }
        due
    });
    assert!(calls > 60, "the script makes only {calls} calls");
}

#[test]
fn whatever_call_fails_an_answer_is_right_or_an_error() {
    let (busy, wanted) = busy_store();
    let calls = for_every_call("reading", &READ_FAULTS, |nth, fault, forever| {
        let what = format!("call {nth} {fault:?} forever {forever}");
        let vfs = FaultVfs::new(Arc::new(busy.clone()));
        vfs.fail(Plan { call: None, nth, fault, forever });
        if let Ok(store) = quiet(Arc::new(vfs.clone())).read_only(true).open(ROOT) {
            let first = answers(&store);
            if let Ok(found) = &first {
                same(&format!("{what}, answered"), found, &wanted);
            }
            assert!(first.is_err() || !forever || vfs.injected() == 0, "{what}: answered from nothing");
            // The same handle answers once the disk does.
            let due = vfs.injected();
            vfs.heal();
            same(&what, &answers(&store).unwrap_or_else(|e| panic!("{what}, healed: {e}")), &wanted);
            return due > 0;
        }
        vfs.injected() > 0
    });
    assert!(calls > 60, "the script makes only {calls} calls");
}
