//! A disk that hangs: a logging call waits for the stall timeout, says `Busy` and has done nothing; what hung goes on
//! once the disk does.
//!
//! Contract: on a mapped live file. Where there is no mapping every call is a write, and a write that hangs is waited for.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mlrs_db::vfs::fault::{Call, Fault, FaultVfs, Plan};
use mlrs_db::vfs::{OsVfs, Vfs};
use mlrs_db::{Error, Points, Result, Run, RunOptions, Series, Store};

use crate::quiet;

/// More than any stall timeout here; a call that takes longer hangs.
const HANGS: Duration = Duration::from_secs(10);
/// More than the smallest live file holds.
const POINTS: i64 = 40_000;

fn directory() -> tempfile::TempDir {
    let fast = std::path::Path::new("/dev/shm");
    tempfile::tempdir_in(if fast.is_dir() { fast.to_path_buf() } else { std::env::temp_dir() }).unwrap()
}

/// A store with a run, on a disk that hangs on order.
fn begun(directory: &tempfile::TempDir) -> (FaultVfs, Store, Run) {
    let vfs = FaultVfs::new(Arc::new(OsVfs));
    let options = quiet(Arc::new(vfs.clone())).live_bytes_max(1 << 20).stall_timeout_ms(50);
    let store = options.open(directory.path()).unwrap();
    let run = store.experiment("hung").unwrap().start_run(RunOptions::new()).unwrap();
    (vfs, store, run)
}

fn hang(vfs: &FaultVfs, call: Option<Call>, nth: u64) {
    vfs.fail(Plan { call, nth, fault: Fault::Hang, forever: true });
}

/// Logs `steps` in a thread of its own until a call is refused: what each call said.
fn logging(series: &Series, steps: std::ops::Range<i64>) -> (Receiver<Result<()>>, JoinHandle<()>) {
    let (said, heard) = channel();
    let series = series.clone();
    let thread = std::thread::spawn(move || {
        for step in steps {
            let logged = series.log_at(step, step, step as f64);
            let is_refused = logged.is_err();
            if said.send(logged).is_err() || is_refused {
                return;
            }
        }
    });
    (heard, thread)
}

/// How many calls said yes, and what the one said that did not.
fn heard(calls: &Receiver<Result<()>>, what: &str) -> (i64, Option<Error>) {
    let mut accepted = 0;
    loop {
        match calls.recv_timeout(HANGS) {
            Ok(Ok(())) => accepted += 1,
            Ok(Err(error)) => return (accepted, Some(error)),
            Err(RecvTimeoutError::Disconnected) => return (accepted, None),
            Err(RecvTimeoutError::Timeout) => {
                // The thread that hangs holds what an orderly end would wait for.
                eprintln!("{what}: call {accepted} has not returned after {HANGS:?}");
                std::process::abort();
            }
        }
    }
}

fn steps(store: &Store, run: &Run) -> Vec<i64> {
    let points: Points = store.history(run.id(), "loss").unwrap().collect().unwrap();
    points.steps
}

#[test]
fn the_first_point_does_not_wait_for_ever_for_its_file() {
    for call in [Call::Open, Call::Write, Call::Sync, Call::SyncDirectory, Call::Map] {
        let directory = directory();
        let (vfs, store, run) = begun(&directory);
        let series = run.series("loss").unwrap();
        hang(&vfs, Some(call), 1);
        let (calls, thread) = logging(&series, 0..1);
        let (_, refused) = heard(&calls, &format!("{call:?}"));
        assert!(matches!(refused, Some(Error::Busy { .. })), "{call:?}: {refused:?}");
        thread.join().unwrap();
        vfs.heal();
        series.log_at(7, 7, 7.0).unwrap();
        assert_eq!(steps(&store, &run), [7], "{call:?}");
        store.close().unwrap();
    }
}

#[test]
fn logging_does_not_wait_for_ever_for_columns_of_another_thread() {
    let directory = directory();
    let (vfs, store, run) = begun(&directory);
    let series = run.series("loss").unwrap();
    series.log_at(0, 0, 0.0).unwrap();
    // Nothing waits to be handed over, which would be written first, while others may log.
    series.log_columns(&[1, 2], &[1, 2], &[1.0, 2.0]).unwrap();
    // The background enlarges the new live file; its writes are not meant to hang here.
    let mut calls = 0;
    while std::mem::replace(&mut calls, vfs.calls(None)) != vfs.calls(None) {
        std::thread::sleep(Duration::from_millis(100));
    }
    hang(&vfs, Some(Call::Write), 1);
    let columns = std::thread::spawn({
        let series = series.clone();
        move || series.log_columns(&[3, 4], &[3, 4], &[3.0, 4.0])
    });
    while vfs.injected() == 0 {
        std::thread::yield_now();
    }
    let (calls, thread) = logging(&series, 5..6);
    let (accepted, refused) = heard(&calls, "columns of another thread");
    assert!(matches!(refused, Some(Error::Busy { .. })), "{accepted} {refused:?}");
    thread.join().unwrap();
    vfs.heal();
    columns.join().unwrap().unwrap();
    series.log_at(6, 6, 6.0).unwrap();
    assert_eq!(steps(&store, &run), [0, 1, 2, 3, 4, 6]);
    store.close().unwrap();
}

/// The live file is filled more than once; what the background does about it hangs at each of its calls in turn.
#[test]
fn no_call_of_the_background_keeps_a_logging_call_longer_than_the_stall_timeout() {
    let mut nth = 1;
    loop {
        let what = format!("call {nth}");
        let directory = directory();
        let (vfs, store, run) = begun(&directory);
        let series = run.series("loss").unwrap();
        hang(&vfs, None, nth);
        let (calls, thread) = logging(&series, 0..POINTS);
        let (accepted, refused) = heard(&calls, &what);
        thread.join().unwrap();
        let is_due = vfs.injected() > 0;
        assert_eq!(refused.is_some(), accepted < POINTS, "{what}");
        if let Some(error) = &refused {
            assert!(is_due && matches!(error, Error::Busy { .. }), "{what}: {error}");
        }
        vfs.heal();
        series.log_at(POINTS, 0, 0.0).unwrap_or_else(|e| panic!("{what}: after healing: {e}"));
        let wanted: Vec<i64> = (0..accepted).chain([POINTS]).collect();
        assert!(steps(&store, &run) == wanted, "{what}: {accepted} calls said yes");
        store.close().unwrap();
        let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
        let store = quiet(vfs).open(directory.path()).unwrap();
        assert!(steps(&store, &run) == wanted, "{what}: opened again");
        if !is_due {
            println!("hung: {} calls, each for ever: no logging call waited for it", nth - 1);
            assert!(nth > 10, "the script makes only {} calls", nth - 1);
            return;
        }
        nth += 1;
    }
}
