//! Power cuts: what was synced is there, and of each series a beginning.

use std::sync::{Arc, Mutex};

use mlrs_db::format::live::LiveHeader;
use mlrs_db::vfs::memory::Tree;
use mlrs_db::vfs::power::{Change, Disk, Keep};
use mlrs_db::vfs::{FaultVfs, MemoryVfs};
use mlrs_db::{Metric, Points, Run, RunOptions};

use crate::*;

/// A power cut ends the boot, too.
fn after_boot(mut tree: Tree) -> Tree {
    for path in files(&tree, ".live") {
        let page = file(&mut tree, &path);
        if let Ok(Ok(header)) = LiveHeader::decode(page) {
            let other = LiveHeader { boot: [9; 16], ..header }.encode();
            page[..256].copy_from_slice(&other[..256]);
        }
    }
    tree
}

#[derive(Clone, Default)]
struct Truth {
    run: Option<Run>,
    points: BTreeMap<String, Points>,
    params: Vec<String>,
}

/// How much of the truth was durable when a look at the disk was taken.
#[derive(Clone, Default)]
struct Durable {
    points: BTreeMap<String, usize>,
    params: usize,
}

impl Truth {
    fn durable(&self) -> Durable {
        let points = self.points.iter().map(|(key, points)| (key.clone(), points.len())).collect();
        Durable { points, params: self.params.len() }
    }

    fn check(&self, tree: &Tree, durable: &Durable, what: &str) -> bool {
        let memory = MemoryVfs::from_tree(tree).unwrap();
        let store = quiet(Arc::new(memory)).open(ROOT).unwrap_or_else(|e| panic!("{what}: {e}"));
        let Some(run) = self.run.as_ref().filter(|_| durable.params > 0) else { return true };
        let mut whole = true;
        for recovered in [false, true] {
            if recovered {
                store.experiment("next").unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            let data = store.get_run(run.id()).unwrap_or_else(|e| panic!("{what}: {e}"));
            for param in &self.params[..durable.params] {
                assert!(data.params.contains_key(param), "{what}: param {param}");
            }
            for (key, points) in &self.points {
                let synced = durable.points.get(key).copied().unwrap_or(0);
                let history = store.history(run.id(), key).unwrap();
                let found: Points = match history.collect() {
                    Ok(found) => found,
                    // Later writes may have arrived without earlier ones; then the hole is named, never closed.
                    Err(mlrs_db::Error::Gap { .. } | mlrs_db::Error::Corrupt { .. }) => {
                        whole = false;
                        let found: Points = history.allow_gaps(true).collect().unwrap();
                        assert!(is_subsequence(&found, points), "{what}: {key}");
                        found.iter().take(synced).collect()
                    }
                    Err(other) => panic!("{what}: {key}: {other}"),
                };
                assert!(is_prefix(&found, points), "{what}: {key}: {} points", found.len());
                assert!(found.len() >= synced, "{what}: {key}: {} of {synced} synced points", found.len());
            }
            if !recovered {
                verify(&store);
            }
        }
        whole
    }
}

#[test]
fn after_a_power_cut_what_was_synced_is_there_and_of_each_series_a_beginning() {
    let (mut looked, mut with_holes) = (0, 0);
    for seed in 0..scale() as u64 {
        let vfs = FaultVfs::with_power_model(MemoryVfs::new()).unwrap();
        let disks: Arc<Mutex<Vec<Disk>>> = Arc::default();
        let seen = Arc::clone(&disks);
        vfs.before_sync(move |disk| seen.lock().unwrap().push(disk.clone()));
        let mut random = Random(seed);
        let mut truth = Truth::default();
        let mut durable = Durable::default();
        let mut store = quiet(Arc::new(vfs.clone())).segment_bytes_max(64 << 10).open(ROOT).unwrap();
        let run = store.experiment("power").unwrap().start_run(RunOptions::new()).unwrap();
        truth.run = Some(run.clone());
        let id = run.id().to_owned();
        let mut moments: Vec<(Disk, Durable, Truth)> = Vec::new();
        let mut run = run;
        let mut next = 0i64;
        for _ in 0..200 {
            let action = random.index(20);
            let key = ["a", "b"][random.index(2)];
            let count = [1, 3, 50, 300][random.index(4)];
            let points: Points = (next..next + count)
                .map(|n| mlrs_db::Point { step: n, timestamp_ms: n, value: n as f64 })
                .collect();
            match action {
                0..=8 => {
                    next += count;
                    let series = run.series(key).unwrap();
                    points.iter().for_each(|p| series.log_at(p.step, p.timestamp_ms, p.value).unwrap());
                    let all = truth.points.entry(key.into()).or_default();
                    points.iter().for_each(|p| all.push(p));
                }
                9..=11 => {
                    next += count;
                    run.series(key)
                        .unwrap()
                        .log_columns(&points.steps, &points.timestamps_ms, &points.values)
                        .unwrap();
                    let all = truth.points.entry(key.into()).or_default();
                    points.iter().for_each(|p| all.push(p));
                }
                12..=15 => {
                    let param = format!("p{}", truth.params.len());
                    let mut metric = Metric::new(key, next, next as f64);
                    metric.point.timestamp_ms = next;
                    next += 1;
                    run.log_batch(&[metric.clone()], &[(&param, "v")], &[]).unwrap();
                    truth.params.push(param);
                    truth.points.entry(key.into()).or_default().push(metric.point);
                }
                16..=18 => {
                    store.sync().unwrap();
                    durable = truth.durable();
                }
                _ => {
                    store.close().unwrap();
                    durable = truth.durable();
                    store = quiet(Arc::new(vfs.clone())).segment_bytes_max(64 << 10).open(ROOT).unwrap();
                    run = store.run(&id).unwrap();
                }
            }
            // Looks before a sync were taken when less was durable than now is.
            let all: Vec<Disk> = std::mem::take(&mut *disks.lock().unwrap());
            if random.index(40) == 0 {
                moments.push((vfs.disk(), durable.clone(), truth.clone()));
            } else if action > 15 && !all.is_empty() && random.index(20) == 0 {
                let before = moments.last().map(|m| m.1.clone()).unwrap_or_default();
                let disk = all[random.index(all.len())].clone();
                moments.push((disk, before, truth.clone()));
            }
        }
        for (disk, durable, truth) in &moments {
            let count = disk.pending().len();
            let mut random = Random(seed ^ count as u64);
            for round in 0..7 {
                let cut = random.index(count + 1);
                let image = disk.after_crash(|n, change| match (round, change) {
                    (0, _) => Keep::Lost,
                    (1, _) => Keep::Whole,
                    (2 | 3, _) if n < cut => Keep::Whole,
                    (2, Change::Write { bytes, .. }) if n == cut => Keep::Prefix(bytes.len() / 2),
                    (2 | 3, _) => Keep::Lost,
                    (4, _) if n == cut => Keep::Lost,
                    (4, _) => Keep::Whole,
                    _ => match random.index(6) {
                        0 => Keep::Lost,
                        1 => Keep::Zeros,
                        2 => Keep::Sectors(random.word()),
                        _ => Keep::Whole,
                    },
                });
                let description = format!("round {round}, {cut} of {count}");
                looked += 1;
                let tree = after_boot(image.tree());
                if !tree.contains_key(&Path::new(ROOT).join("MLRS")) {
                    assert_eq!(durable.params, 0);
                    continue;
                }
                with_holes +=
                    usize::from(!truth.check(&tree, durable, &format!("seed {seed}, {description}")));
            }
        }
    }
    assert!(looked > 20, "{looked} looks");
    // Holes are what mixtures make; most cuts leave none.
    assert!(with_holes * 2 < looked, "{with_holes} of {looked} with holes");
}
