//! Damage: what a store answers, and what `verify` says, when bytes are not what was written.
//!
//! Contract: whatever happens to the bytes, an answer is right or an error, never wrong and never a panic; what lies
//! outside the damage stays readable; and `verify` names the place. `MLRS_TEST_SCALE=n` does n times as much.

#[path = "support/chance.rs"]
mod chance;
mod damage {
    mod closed;
    mod faults;
    mod hung;
    mod live;
    mod power;
    mod power_examples;
    mod power_index;
    mod tails;
}

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use chance::Random;
use mlrs_db::vfs::memory::Tree;
use mlrs_db::vfs::{MemoryVfs, Vfs};
use mlrs_db::{Options, Points, RunData, RunOptions, Severity, Store, VerifyReport};

/// How much more than usual is tried.
pub(crate) fn scale() -> usize {
    chance::number("MLRS_TEST_SCALE").unwrap_or(1) as usize
}

pub(crate) const ROOT: &str = "store";

/// Nothing happens in the background while the test looks.
pub(crate) fn quiet(vfs: Arc<dyn Vfs>) -> Options {
    Store::options().vfs(vfs).flush_interval_ms(3_600_000).sync_interval_ms(3_600_000).stall_timeout_ms(200)
}

pub(crate) fn open(tree: &Tree) -> Store {
    try_open(tree).unwrap()
}

pub(crate) fn try_open(tree: &Tree) -> mlrs_db::Result<Store> {
    quiet(Arc::new(MemoryVfs::from_tree(tree).unwrap())).open(ROOT)
}

pub(crate) fn open_to_read(tree: &Tree) -> Store {
    quiet(Arc::new(MemoryVfs::from_tree(tree).unwrap())).read_only(true).open(ROOT).unwrap()
}

pub(crate) fn files(tree: &Tree, ending: &str) -> Vec<PathBuf> {
    tree.keys().filter(|path| path.to_string_lossy().ends_with(ending)).cloned().collect()
}

pub(crate) fn file<'a>(tree: &'a mut Tree, path: &Path) -> &'a mut Vec<u8> {
    tree.get_mut(path).unwrap().as_mut().unwrap()
}

/// What a store says of everything in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) runs: BTreeMap<String, RunData>,
    pub(crate) points: BTreeMap<(String, String), Points>,
}

pub(crate) fn answers(store: &Store) -> mlrs_db::Result<Answers> {
    let mut all = Answers::default();
    let found = store.search_runs(&mlrs_db::RunSearch::default())?;
    for run in found.items {
        for key in run.metrics.keys() {
            let points: Points = store.history(&run.id, key)?.collect()?;
            all.points.insert((run.id.clone(), key.clone()), points);
        }
        all.runs.insert(run.id.clone(), RunData::clone(&run));
    }
    Ok(all)
}

/// Points bit for bit, so that NaN equals itself.
pub(crate) fn bits(points: &Points) -> Vec<(i64, i64, u64)> {
    points.iter().map(|p| (p.step, p.timestamp_ms, p.value.to_bits())).collect()
}

/// Whether `part` is `whole` with some points left out.
pub(crate) fn is_subsequence(part: &Points, whole: &Points) -> bool {
    let whole = bits(whole);
    let mut rest = whole.iter();
    bits(part).iter().all(|p| rest.any(|w| w == p))
}

pub(crate) fn is_prefix(part: &Points, whole: &Points) -> bool {
    bits(whole).starts_with(&bits(part))
}

/// Frames of a sound segment: (start, end).
pub(crate) fn closed_frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut at = 128;
    let mut frames = Vec::new();
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        frames.push((at, at + 32 + len));
        at += 32 + len;
    }
    frames
}

pub(crate) fn damage_in(report: &VerifyReport, path: &Path) -> Vec<Option<u64>> {
    let relative = path.strip_prefix(ROOT).unwrap();
    let here = |f: &&mlrs_db::Finding| f.severity == Severity::Damage && f.path == relative;
    report.findings.iter().filter(here).map(|f| f.offset).collect()
}

pub(crate) fn verify(store: &Store) -> VerifyReport {
    store.verify(&mut |_| {}).unwrap()
}

/// Some runs with a bit of everything; returns the store, still open.
pub(crate) fn fill(store: &Store, runs: usize, points: i64) -> Vec<String> {
    let experiment = store.experiment("damage").unwrap();
    (0..runs)
        .map(|n| {
            let options =
                RunOptions::new().name(format!("run {n}")).param("n", n.to_string()).tag("kind", "test");
            let run = experiment.start_run(options).unwrap();
            let series: Vec<_> =
                ["loss", "acc", "grad norm"].iter().map(|key| run.series(key).unwrap()).collect();
            for step in 0..points {
                for (k, one) in series.iter().enumerate() {
                    let value = ((step * 7 + k as i64 * 13 + n as i64) as f64).sin();
                    one.log_at(step, 1_700_000_000_000 + step * 10, value).unwrap();
                }
            }
            let steps: Vec<i64> = (0..700).collect();
            let values: Vec<f64> = steps.iter().map(|s| (*s as f64 + n as f64).sqrt()).collect();
            series[0].log_columns(&steps, &steps, &values).unwrap();
            run.log_batch(&[mlrs_db::Metric::new("acc", points, 0.5)], &[("seed", "7")], &[("done", "no")])
                .unwrap();
            run.id().to_owned()
        })
        .collect()
}

#[test]
fn a_sound_store_has_no_findings_open_or_closed_and_everything_is_counted() {
    let memory = MemoryVfs::new();
    let store = quiet(Arc::new(memory.clone())).open(ROOT).unwrap();
    let ids = fill(&store, 3, 500);
    let said = answers(&store).unwrap();
    assert_eq!(said.runs.len(), 3);
    let mut done = 0;
    let report = store.verify(&mut |p| done = p.bytes_done).unwrap();
    assert_eq!(report.findings, [], "open");
    assert!(done > 0);
    assert_eq!(report.points, 3 * (3 * 500 + 700 + 1));
    store.close().unwrap();
    let store = open(&memory.tree());
    let report = verify(&store);
    assert_eq!(report.findings, [], "closed");
    assert_eq!(report.points, 3 * (3 * 500 + 700 + 1));
    assert!(
        report.events >= 7 && report.frames > 10 && report.columns >= 9 && report.files == 2,
        "{report:?}"
    );
    let again = answers(&store).unwrap();
    for id in ids {
        assert_eq!(again.runs[&id], said.runs[&id]);
        assert_eq!(again.points[&(id.clone(), "loss".into())], said.points[&(id, "loss".into())]);
    }
}
