//! Power cuts one by one: small scripts of what the model in `power` found, and what must come of each.

use std::sync::Arc;

use mlrs_db::vfs::fault::{Call, Fault, Plan};
use mlrs_db::vfs::power::{Change, Keep};
use mlrs_db::vfs::{FaultVfs, MemoryVfs};
use mlrs_db::{Metric, Points, RunOptions};

use super::power::end_boot;
use crate::*;

/// Found by the model: a hole between two events, of which none was synced, set a live file aside with all its points.
#[test]
fn synced_points_stay_whatever_becomes_of_later_events() {
    let vfs = FaultVfs::with_power_model(MemoryVfs::new()).unwrap();
    let store = quiet(Arc::new(vfs.clone())).open(ROOT).unwrap();
    let run = store.experiment("power").unwrap().start_run(RunOptions::new()).unwrap();
    let loss = run.series("loss").unwrap();
    for step in 0..10 {
        loss.log_at(step, step, 0.5).unwrap();
    }
    store.sync().unwrap();
    for param in ["first", "second", "third"] {
        run.log_param(param, "1").unwrap();
    }
    let disk = vfs.disk();
    let frames = |change: &Change| matches!(change, Change::Write { bytes, .. } if bytes.len() > 100);
    let events: Vec<usize> = (0..disk.pending().len()).filter(|n| frames(&disk.pending()[*n])).collect();
    assert_eq!(events.len(), 3);
    let mut with_hole = 0;
    for lost in 0..8 {
        let is_lost =
            |n: usize| events.iter().position(|event| *event == n).is_some_and(|at| lost >> at & 1 == 1);
        let image = disk.after_crash(|n, _| if is_lost(n) { Keep::Lost } else { Keep::Whole });
        end_boot(&image);
        let store = quiet(Arc::new(image)).open(ROOT).unwrap();
        with_hole += u32::from(!verify(&store).is_sound());
        for recovered in [false, true] {
            let found: Points = store.history(run.id(), "loss").unwrap().collect().unwrap();
            assert_eq!(found.len(), 10, "lost {lost:03b}, recovered: {recovered}");
            store.experiment("next").unwrap();
        }
    }
    println!(
        "power: 8 disks with some of 3 later events, {with_hole} with a hole: 10 of 10 synced points in each"
    );
    assert_eq!(with_hole, 4);
}

/// Brought home in several parts; if the first were lost and the second not, both would count as covered.
#[test]
fn a_power_cut_while_many_points_are_brought_home_costs_none() {
    const POINTS: usize = 70_000;
    let memory = MemoryVfs::new();
    let vfs = FaultVfs::new(Arc::new(memory.clone()));
    let store = quiet(Arc::new(vfs.clone())).open(ROOT).unwrap();
    let id = store.experiment("power").unwrap().start_run(RunOptions::new()).unwrap().id().to_owned();
    store.close().unwrap();
    let store = quiet(Arc::new(vfs.clone())).open(ROOT).unwrap();
    let run = store.run(&id).unwrap();
    run.log_metric("loss", 0, 0.0).unwrap();
    // No new segment: what is logged stays in the live file.
    vfs.fail(Plan { call: Some(Call::Open), nth: 1, fault: Fault::Error(libc::ENOSPC), forever: true });
    let steps: Vec<i64> = (1..POINTS as i64).collect();
    for part in steps.chunks(500) {
        let metrics: Vec<Metric> = part.iter().map(|step| Metric::new("loss", *step, 0.5)).collect();
        run.log_batch(&metrics, &[], &[]).unwrap();
    }
    let killed = FaultVfs::with_power_model(memory.image()).unwrap();
    let disks: Arc<std::sync::Mutex<Vec<_>>> = Arc::default();
    let seen = Arc::clone(&disks);
    killed.before_sync(move |disk| seen.lock().unwrap().push(disk.clone()));
    let next = quiet(Arc::new(killed)).open(ROOT).unwrap();
    next.experiment("next").unwrap();
    let mut images = 0;
    for disk in std::mem::take(&mut *disks.lock().unwrap()) {
        for lost in 0..=disk.pending().len() {
            images += 1;
            let image = disk.after_crash(|n, _| if n == lost { Keep::Lost } else { Keep::Whole });
            let store = quiet(Arc::new(image)).open(ROOT).unwrap();
            for recovered in [false, true] {
                let found: Points = store.history(&id, "loss").unwrap().collect().unwrap();
                assert_eq!(
                    found.len(),
                    POINTS,
                    "{lost} of {} lost, recovered: {recovered}",
                    disk.pending().len()
                );
                store.experiment("again").unwrap();
            }
        }
    }
    println!("power: {POINTS} points brought home, {images} disks on the way: all of them in each");
    assert!(images >= 8, "two parts, each with its sync");
}
