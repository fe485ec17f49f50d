//! Power cuts one by one: small scripts of what the model in `power` found, and what must come of each.

use std::sync::Arc;

use mlrs_db::vfs::power::{Change, Keep};
use mlrs_db::vfs::{FaultVfs, MemoryVfs};
use mlrs_db::{Points, Run, RunOptions, Store};

use super::power::end_boot;
use crate::*;

/// A store on a disk that may lose what is not synced, and a run in it.
fn begun() -> (FaultVfs, Store, Run) {
    let vfs = FaultVfs::with_power_model(MemoryVfs::new()).unwrap();
    let store = quiet(Arc::new(vfs.clone())).open(ROOT).unwrap();
    let run = store.experiment("power").unwrap().start_run(RunOptions::new()).unwrap();
    (vfs, store, run)
}

#[test]
fn synced_points_stay_whatever_becomes_of_later_events() {
    let (vfs, store, run) = begun();
    let loss = run.series("loss").unwrap();
    for step in 0..10 {
        loss.log_at(step, step, 0.5).unwrap();
    }
    store.sync().unwrap();
    run.log_param("first", "1").unwrap();
    run.log_param("second", "2").unwrap();
    let disk = vfs.disk();
    let writes: Vec<usize> = (0..disk.pending().len())
        .filter(|n| matches!(&disk.pending()[*n], Change::Write { bytes, .. } if bytes.len() > 16))
        .collect();
    println!("{:?}", disk.pending().iter().map(ToString::to_string).collect::<Vec<_>>());
    let image = disk.after_crash(|n, _| if n == writes[0] { Keep::Lost } else { Keep::Whole });
    end_boot(&image);
    let store = quiet(Arc::new(image.clone())).open(ROOT).unwrap();
    for looks in ["before", "after"] {
        let found = store.history(run.id(), "loss").unwrap().collect::<Points>();
        println!("{looks}: {:?} {:?}", found.map(|p| p.len()), verify(&store).findings);
        store.experiment("next").unwrap();
    }
}
