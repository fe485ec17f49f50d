//! The engine inside another program: no global state, nothing left behind.
//!
//! Logs to two stores at once from several threads, reads both back, and shows that no thread is left when the last
//! handle is gone. Takes an empty directory; prints `ok` at the end.

use std::path::PathBuf;

use mlrs_db::{Points, Run, RunOptions, RunStatus, Series, Store};

/// Handles can be kept anywhere and used from any thread: this is checked when the program is compiled.
const _: () = {
    const fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Store>();
    shared::<Run>();
    shared::<Series>();
};

/// Threads of this process, as Linux counts them.
fn threads() -> std::io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

fn log(store: &Store, name: &str) -> mlrs_db::Result<String> {
    let run = store.experiment("embedded")?.start_run(RunOptions::new().name(name))?;
    let loss = run.series("loss")?;
    for step in 0..10_000 {
        loss.log(step, 1.0 / (step + 1) as f64)?;
    }
    run.finish(RunStatus::Finished)?;
    Ok(run.id().to_owned())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory: PathBuf = std::env::args_os().nth(1).ok_or("usage: embed EMPTY-DIRECTORY")?.into();
    let before = threads()?;

    let (left, right) = (Store::open(directory.join("left"))?, Store::open(directory.join("right"))?);
    let runs = std::thread::scope(|scope| {
        let loggers: Vec<_> = [&left, &right, &left]
            .into_iter()
            .enumerate()
            .map(|(n, store)| scope.spawn(move || log(store, &format!("run-{n}"))))
            .collect();
        loggers.into_iter().map(|l| l.join().expect("a logger panicked")).collect::<Result<Vec<_>, _>>()
    })?;
    for (store, run) in [&left, &right, &left].into_iter().zip(&runs) {
        let points: Points = store.history(run, "loss")?.steps(9_990..).collect()?;
        assert_eq!(points.len(), 10, "of run {run}");
    }
    assert!(left.get_run(&runs[1]).is_err(), "two stores do not know of each other");
    assert!(threads()? > before, "the engine works in the background while a store is open");

    let clone = left.clone();
    drop((left, right));
    assert_eq!(clone.get_run(&runs[2])?.name, "run-2", "a clone keeps its store open");
    drop(clone);
    assert_eq!(threads()?, before, "threads after the last handle is gone");
    println!("ok");
    Ok(())
}
