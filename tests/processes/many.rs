//! Many short processes: each opens the store, logs a hundred points and ends.
//!
//! Contract: all of it is there; after `compact` the store is few files, whatever came and went; how long an open takes
//! does not follow the number of processes there were (printed, not asserted: clocks of test machines lie).

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use mlrs_db::{Points, RunOptions, RunSearch, Store};

use crate::child::{self, Child};
use crate::{Place, cycles, files, random};

const POINTS: u64 = 100;
const LIMIT: Duration = Duration::from_secs(120);
const OPENS: usize = 9;

/// `short STORE HOW`: one experiment, one run, its points, and one of the ways to end.
pub fn short(args: &[String]) {
    let store = Store::open(&args[0]).unwrap();
    let run = store.experiment("short").unwrap().start_run(RunOptions::new().param("how", &args[1])).unwrap();
    let series = run.series("loss").unwrap();
    for at in 0..POINTS as i64 {
        series.log_at(at, at, at as f64 * 0.25).unwrap();
    }
    child::say_word("run", run.id());
    match args[1].as_str() {
        "close" => {
            drop((series, run));
            store.close().unwrap();
        }
        "drop" => {}
        // As a script that calls `os._exit`.
        // SAFETY: ends this process, nothing is run.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Makes files of the log old, so that what was replaced may go.
fn age(store: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3_600);
    for path in files(&store.join("log")) {
        let file = std::fs::File::options().append(true).open(store.join("log").join(path)).unwrap();
        file.set_modified(hour_ago).unwrap();
    }
}

/// Median time of an open with its first answer.
fn open_time(path: &Path, run: &str) -> f64 {
    let mut all: Vec<f64> = (0..OPENS)
        .map(|_| {
            let begun = Instant::now();
            let store = Store::options().read_only(true).open(path).unwrap();
            store.get_run(run).unwrap();
            begun.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[OPENS / 2]
}

#[test]
fn many_short_processes_leave_few_files() {
    let (rounds, processes) =
        (cycles(4), if std::env::var_os("MLRS_SOAK_CYCLES").is_some() { 64 } else { 16 });
    let (seed, mut random) = random("many");
    println!("many: seed {seed}, {rounds} times {processes} processes");
    let place = Place::new();
    let path = place.at("store");
    let store = Store::open(&path).unwrap();
    let run =
        store.experiment("short").unwrap().start_run(RunOptions::new().name("lives all the time")).unwrap();
    let series = run.series("loss").unwrap();
    let (mut ids, mut times, mut most) = (vec![run.id().to_owned()], Vec::new(), 0);
    for round in 0..rounds {
        let children: Vec<Child> = (0..processes)
            .map(|_| {
                let how = ["close", "drop", "exit"][random.below(3) as usize];
                Child::spawn("short", &[path.to_str().unwrap().to_owned(), how.to_owned()])
            })
            .collect();
        series.log_at(round as i64, round as i64, round as f64).unwrap();
        ids.extend(children.into_iter().map(|c| c.finish(LIMIT).words["run"].clone()));
        most = most.max(files(&path).len());
        times.push(open_time(&path, &ids[1]));
    }
    let before = files(&path).len();
    store.compact(&mut |_| {}).unwrap();
    age(&path);
    // What somebody still had open, and what had to grow old.
    store.compact(&mut |_| {}).unwrap();
    age(&path);
    store.compact(&mut |_| {}).unwrap();
    let after = files(&path.join("log")).len() + files(&path.join("live")).len();
    let compacted = open_time(&path, &ids[1]);
    let points = rounds * processes * POINTS + rounds;
    let most_allowed = 3.0 + (points as f64).log2();
    println!(
        "many: seed {seed}: {} processes, {points} points: {before} files (most {most}), after compact {after} in log and live \
         (at most {most_allowed:.0} with 1 live writer); open and first answer, median ms by round: {}; compacted {compacted:.2}",
        rounds * processes,
        times.iter().map(|t| format!("{t:.2}")).collect::<Vec<_>>().join(" ")
    );
    assert!(after as f64 <= most_allowed, "{after} files: {:?}", files(&path));
    let reader = Store::options().read_only(true).open(&path).unwrap();
    for (at, id) in ids.iter().enumerate() {
        let points: Points = reader.history(id, "loss").unwrap().collect().unwrap();
        assert_eq!(points.len() as u64, if at == 0 { rounds } else { POINTS }, "run {id}");
        assert!(points.iter().zip(0..).all(|(p, at)| p.step == at));
    }
    let search = RunSearch { max_results: 50_000, ..RunSearch::default() };
    assert_eq!(reader.search_runs(&search).unwrap().items.len(), ids.len());
}
