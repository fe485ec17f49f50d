//! The n-th call to the file system fails: nothing acknowledged is lost, nothing hangs, nothing panics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mlrs_db::vfs::fault::{Fault, FaultVfs, Plan};
use mlrs_db::vfs::{MemoryVfs, Vfs};
use mlrs_db::{Metric, Points, Result, Run, RunOptions, RunStatus, Store};

use crate::*;

const EIO: i32 = 5;
const EINTR: i32 = 4;
const ENOSPC: i32 = 28;

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
fn script(nth: u64, fault: Fault, forever: bool) -> bool {
    let what = format!("call {nth} {fault:?} forever {forever}");
    let begun = Instant::now();
    let memory = MemoryVfs::new();
    let vfs = FaultVfs::new(Arc::new(memory.clone()));
    vfs.fail(Plan { call: None, nth, fault, forever });
    let mut acknowledged = Acknowledged::default();
    let store = quiet(Arc::new(vfs.clone())).open(ROOT);
    if let Ok(store) = store {
        acknowledged.log(&store, 0);
        // What a killed process leaves at this moment.
        acknowledged.check(&reopened(&memory, false), &format!("{what}, killed"));
        vfs.heal();
        acknowledged.log(&store, 100);
        acknowledged.check(&reopened(&memory, true), &format!("{what}, killed after healing"));
        vfs.fail(Plan { call: None, nth: nth.div_ceil(2), fault, forever });
        let _ = store.close();
    }
    let due = vfs.injected() > 0;
    for write in [false, true] {
        acknowledged.check(&reopened(&memory, write), &format!("{what}, closed, writing {write}"));
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{what}: hangs");
    due
}

fn reopened(memory: &MemoryVfs, write: bool) -> Store {
    let image: Arc<dyn Vfs> = Arc::new(memory.image());
    if image.metadata(&Path::new(ROOT).join("MLRS")).is_err() {
        return quiet(image).open(ROOT).unwrap();
    }
    let store = quiet(image).read_only(!write).open(ROOT).unwrap();
    if write {
        // Recovers what the dead writer left.
        store.experiment("next").unwrap();
    }
    store
}

#[test]
fn whatever_call_fails_nothing_acknowledged_is_lost() {
    let faults = [
        Fault::Error(ENOSPC),
        Fault::Error(EIO),
        Fault::Error(EINTR),
        Fault::Short(ENOSPC),
        Fault::Short(EIO),
    ];
    for forever in [false, true] {
        for fault in faults {
            let mut nth = 1;
            while script(nth, fault, forever) {
                nth += 1;
            }
            assert!(nth > 60, "the script makes only {nth} calls");
        }
    }
}
