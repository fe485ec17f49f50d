//! A store that is copied while its writers run, again and again, as `rsync -a` does it.
//!
//! Contract: between the copies the destination is opened, logged to and compacted, and recovers what looks like dead
//! writers to it. After the writers were killed and one last copy was made, everything acknowledged is there exactly
//! once, and artifacts are whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlrs_db::{Error, Points, RunOptions, Store};

use crate::child::{self, Child};
use crate::killed::{Dead, Writer, make};
use crate::script::look_at_shared;
use crate::{Place, Random, cycles, files, random};

const WRITERS: u64 = 2;
const COPIES: u64 = 3;
const FOLDERS: [&str; 3] = ["log", "live", "artifacts"];

/// What `rsync -a` makes of a file: none if size and time are the same, else a new one under the old name.
#[derive(Default)]
struct Copied {
    files: u64,
    unchanged: u64,
}

/// Copies as `rsync -a FROM/{log,live,artifacts} TO` does, but in any order: the list with sizes and times first, then
/// file by file into a temporary name, the time of the list, and a rename. Nothing is deleted. `always`: folders copied with `--ignore-times`.
fn rsync(from: &Path, to: &Path, always: &[&str], random: &mut Random) -> Copied {
    let mut list: Vec<(PathBuf, u64, SystemTime)> = Vec::new();
    for folder in FOLDERS {
        for file in files(&from.join(folder)) {
            let path = Path::new(folder).join(file);
            if let Ok(metadata) = fs::metadata(from.join(&path)) {
                list.push((path, metadata.len(), metadata.modified().unwrap()));
            }
        }
    }
    for at in (1..list.len()).rev() {
        list.swap(at, random.below(at as u64 + 1) as usize);
    }
    let mut copied = Copied::default();
    for (path, len, modified) in list {
        let target = to.join(&path);
        let same = fs::metadata(&target).is_ok_and(|m| m.len() == len && m.modified().unwrap() == modified);
        if same && !always.iter().any(|folder| path.starts_with(folder)) {
            copied.unchanged += 1;
            continue;
        }
        // What vanished is no error of a copy.
        let Ok(mut bytes) = fs::read(from.join(&path)) else { continue };
        bytes.truncate(len as usize);
        let folder = target.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        let name = target.file_name().unwrap().to_str().unwrap();
        let half = folder.join(format!(".{name}.{:06x}", random.below(1 << 24)));
        fs::write(&half, &bytes).unwrap();
        fs::File::options().append(true).open(&half).unwrap().set_modified(modified).unwrap();
        fs::rename(&half, &target).unwrap();
        copied.files += 1;
    }
    copied
}

fn artifact(n: u64) -> Vec<u8> {
    (0..10_000 + n * 1_000).map(|at| (at * 31 + n) as u8).collect()
}

/// What one does with a store at home: look, log, compact.
fn use_at_home(path: &Path, dead: &[Option<String>], round: u64, random: &mut Random) -> u64 {
    let store = Store::options().flush_interval_ms(2).open(path).unwrap();
    let run =
        store.experiment("home").unwrap().start_run(RunOptions::new().name(format!("home {round}"))).unwrap();
    let series = run.series("home").unwrap();
    (0..100).for_each(|at| series.log_at(at, at, at as f64).unwrap());
    let mut holes = 0;
    for id in dead.iter().flatten() {
        for metric in match store.metrics(id) {
            // A run whose first segment is not here yet.
            Err(Error::NotFound { .. } | Error::Gap { .. }) => continue,
            other => other.unwrap(),
        } {
            match store.history(id, &metric.key).unwrap().collect::<Points>() {
                // Half of a copy may have a hole, and says so; what it shows has none.
                Ok(points) => assert!(points.iter().zip(0..).all(|(p, at)| p.step == at), "'{}'", metric.key),
                Err(Error::Gap { .. }) => holes += 1,
                Err(error) => panic!("'{}': {error}", metric.key),
            }
        }
    }
    if random.one_in(2) {
        store.compact(&mut |_| {}).unwrap();
    }
    drop((series, run));
    if random.one_in(2) {
        store.close().unwrap()
    } else {
        drop(store)
    }
    holes
}

#[test]
fn copies_of_a_store_that_is_written_lose_and_double_nothing() {
    let (seed, mut random) = random("copies");
    let rounds = cycles(6);
    println!("copies: seed {seed}, {rounds} stores");
    let (mut points, mut holes, mut unchanged, mut copied, mut unacknowledged) = (0, 0, 0, 0, 0);
    for round in 0..rounds {
        let place = Place::new();
        let (from, to) = (place.at("node"), place.at("home"));
        let shared = make(&from);
        Store::open(&to).unwrap().close().unwrap();
        let writers: Vec<Writer> =
            (0..WRITERS).map(|n| Writer::spawn(&from, &shared, seed ^ round << 20, n)).collect();
        writers.iter().for_each(Writer::wait_for_first_calls);
        let node = Store::open(&from).unwrap();
        for copy in 0..COPIES {
            std::thread::sleep(Duration::from_millis(random.between(1, 40)));
            node.put_artifact_bytes(&shared, &artifact(copy), &format!("models/{copy}.bin")).unwrap();
            let done = rsync(&from, &to, &["live"], &mut random);
            (copied, unchanged) = (copied + done.files, unchanged + done.unchanged);
            let ids: Vec<_> = writers.iter().map(|w| w.acknowledged().0).collect();
            holes += use_at_home(&to, &ids, copy, &mut random);
        }
        std::thread::sleep(Duration::from_millis(random.between(1, 40)));
        let mut dead: Vec<Dead> = writers.into_iter().map(Writer::kill).collect();
        drop(node);
        rsync(&from, &to, &["live"], &mut random);
        let what = format!("seed {seed}, store {round}");
        for (path, writing) in [(&from, false), (&to, false), (&to, true), (&to, false), (&from, true)] {
            println!("  {what}: {}, writing {writing}", path.file_name().unwrap().to_str().unwrap());
            let store = Store::options().read_only(!writing).open(path).unwrap();
            if writing {
                store.compact(&mut |_| {}).unwrap();
            }
            let found = look_at_shared(&store, &shared);
            let extra: u64 = dead.iter_mut().map(|one| one.check(&store, &found)).sum();
            unacknowledged += if writing { 0 } else { extra };
            for copy in 0..COPIES {
                let at = store.artifact_path(&shared, &format!("models/{copy}.bin")).unwrap();
                assert_eq!(fs::read(&at).unwrap(), artifact(copy), "{what}: {}", at.display());
            }
            for copy in (0..COPIES).filter(|_| path == &to) {
                let search = mlrs_db::RunSearch {
                    filter: format!("attributes.run_name = 'home {copy}'"),
                    ..mlrs_db::RunSearch::default()
                };
                let own = store.search_runs(&search).unwrap();
                let points: Points = store.history(&own.items[0].id, "home").unwrap().collect().unwrap();
                assert_eq!(points.len(), 100, "{what}: what was logged at home");
            }
        }
        points += dead.iter().map(Dead::points).sum::<u64>();
    }
    println!(
        "copies: seed {seed}: {rounds} stores, {} copies ({copied} files, {unchanged} skipped as unchanged), {points} points \
         acknowledged, 0 lost, 0 doubled, artifacts whole; {holes} histories with a hole told of between copies; \
         {unacknowledged} unacknowledged calls there, all whole",
        rounds * (COPIES + 1)
    );
}

/// `log-slowly STORE`: one point a millisecond and nothing else; says each.
pub fn log_slowly(args: &[String]) {
    let store = Store::open(&args[0]).unwrap();
    let run = store.experiment("slow").unwrap().start_run(RunOptions::new()).unwrap();
    child::say_word("run", run.id());
    let series = run.series("points").unwrap();
    for at in 0i64.. {
        series.log_at(at, at, at as f64).unwrap();
        child::say_count("points", at as u64 + 1);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A live file changes through its map, which changes neither its size nor, for long, its time: a copy that goes by these
/// two takes it for unchanged. So `live/` is copied with `--ignore-times`, and then everything is there.
#[test]
fn live_files_are_copied_whatever_their_size_and_time() {
    let (seed, mut random) = random("quick");
    for (on, place) in
        [("tmpfs, if there is room", Place::new()), ("the temporary directory", Place::in_temp())]
    {
        let (from, to) = (place.at("node"), place.at("home"));
        let writer = Child::spawn("log-slowly", &[from.to_str().unwrap().to_owned()]);
        let limit = Duration::from_secs(20);
        writer.wait_until(limit, "the first points", |said| said.count("points") > 50);
        rsync(&from, &to, &[], &mut random);
        fs::copy(from.join("MLRS"), to.join("MLRS")).unwrap();
        let before = writer.said().count("points");
        writer.wait_until(limit, "more points", |said| said.count("points") > before + 50);
        let said = writer.kill();
        let count = |store: &Path| -> u64 {
            let store = Store::options().read_only(true).open(store).unwrap();
            let points: Points = store.history(&said.words["run"], "points").unwrap().collect().unwrap();
            assert!(points.iter().zip(0..).all(|(p, at)| p.step == at));
            points.len() as u64
        };
        rsync(&from, &to, &[], &mut random);
        let by_time = count(&to);
        rsync(&from, &to, &["live"], &mut random);
        let acknowledged = said.count("points");
        println!(
            "quick check on {on}: seed {seed}: {acknowledged} points acknowledged, {by_time} copied by size and time, {} with live/ \
             copied in any case",
            count(&to)
        );
        assert!(count(&to) >= acknowledged && count(&to) == count(&from));
    }
}
