//! Network mode, and files of other hosts: nothing of another's is touched, nothing flushed is lost or doubled, and what
//! a client sees late is old or a told hole, never wrong.
//!
//! [`remote::Remote`] stands for what a network file system does: old sizes, pages and listings, locks that everybody
//! gets, writes that arrive late, in any order, or not at all.

#[path = "support/chance.rs"]
mod chance;
#[path = "support/child.rs"]
mod child;
#[path = "network/remote.rs"]
mod remote;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlrs_db::vfs::{MemoryVfs, OsVfs};
use mlrs_db::{Error, Network, Options, Points, RunOptions, RunSearch, Store};

use chance::{Random, cycles, random};
use child::{Child, Said, Watchdog};
use remote::{Age, Met, Remote, Stale, Writes};

fn network() -> Options {
    Store::options().network(Network::On).flush_interval_ms(5).sync_interval_ms(5)
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn live_files(store: &Path) -> Vec<PathBuf> {
    let names = names(&store.join("live"));
    names.iter().filter(|n| n.ends_with(".live")).map(|n| store.join("live").join(n)).collect()
}

/// Makes a live file one of another host, as if it had been written there.
fn move_to_host(live: &Path, host: &str) {
    let mut bytes = fs::read(live).unwrap();
    bytes[80] = host.len() as u8;
    bytes[81..144].fill(0);
    bytes[81..81 + host.len()].copy_from_slice(host.as_bytes());
    // Another host runs another kernel.
    bytes[48..64].fill(0x77);
    let crc = crc32fast::hash(&bytes[..252]);
    bytes[252..256].copy_from_slice(&crc.to_le_bytes());
    fs::write(live, bytes).unwrap();
}

fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

fn values(store: &Store, run: &str, key: &str) -> Vec<f64> {
    store.history(run, key).unwrap().collect::<Points>().unwrap().values
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What a killed process leaves: a copy of the store of a living one. Returns the run, with points 0..count of `x`.
fn killed(root: &Path, count: i64) -> (PathBuf, String) {
    let (living, image) = (root.join("living"), root.join("image"));
    let store = Store::open(&living).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let series = run.series("x").unwrap();
    for step in 0..count {
        series.log_at(step, 1_000 + step, step as f64).unwrap();
    }
    copy_tree(&living, &image);
    (image, run.id().to_owned())
}

#[test]
fn files_of_another_host_are_read_and_left_until_it_is_said_to_be_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (image, run) = killed(directory.path(), 500);
    let live = live_files(&image).remove(0);
    move_to_host(&live, "node7");
    let before = fs::read(&live).unwrap();
    let expected: Vec<f64> = (0..500).map(f64::from).collect();
    for round in 0..2 {
        // The lock of a copied file is free, whoever lives.
        let store = Store::open(&image).unwrap();
        store.run(&run).unwrap().log_param(&format!("p{round}"), "1").unwrap();
        assert_eq!(values(&store, &run, "x"), expected);
        store.compact(&mut |_| {}).unwrap();
        store.close().unwrap();
        assert_eq!(fs::read(&live).unwrap(), before, "round {round}");
    }
    let store = Store::open(&image).unwrap();
    let report = store.verify(&mut |_| {}).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert!(report.findings.iter().any(|f| f.text.contains("500 points of a writer on node7")), "{report:?}");
    // Another name is another host.
    let other = store.recover_host("node8", false).unwrap();
    assert_eq!((other.files, other.points), (0, 0));
    assert_eq!(other.elsewhere[0].host, "node7");
    let would = store.recover_host("node7", true).unwrap();
    assert!(would.dry_run && live.exists());
    let done = store.recover_host("node7", false).unwrap();
    assert_eq!((would.files, would.points), (done.files, done.points));
    assert_eq!((done.files, done.points, done.elsewhere.len()), (1, 500, 0));
    assert!(!live.exists());
    assert_eq!(values(&store, &run, "x"), expected);
    // The writer lived: its file comes again, longer.
    let mut longer = before.clone();
    longer[..].copy_from_slice(&before);
    fs::write(&live, &longer).unwrap();
    assert_eq!(values(&store, &run, "x"), expected);
    assert_eq!(store.recover_host("node7", false).unwrap().points, 0, "known already");
    assert_eq!(values(&store, &run, "x"), expected);
    assert!(store.verify(&mut |_| {}).unwrap().findings.is_empty());
}

#[test]
fn a_file_of_this_host_is_brought_home_by_the_next_writer_also_after_a_reboot() {
    for reboot in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (image, run) = killed(directory.path(), 50);
        if reboot {
            move_to_host(&live_files(&image)[0], &host_name());
        }
        let store = Store::open(&image).unwrap();
        store.run(&run).unwrap().log_param("p", "1").unwrap();
        assert_eq!(live_files(&image), [] as [PathBuf; 0], "reboot: {reboot}");
        assert_eq!(values(&store, &run, "x").len(), 50);
    }
}

#[test]
fn a_writer_that_lives_is_not_recovered_whatever_is_said_of_its_host() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let living = Store::open(&path).unwrap();
    let run = living.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    run.series("x").unwrap().log_at(0, 1, 2.0).unwrap();
    let store = Store::open(&path).unwrap();
    for dry_run in [true, false] {
        let report = store.recover_host(&host_name(), dry_run).unwrap();
        assert_eq!((report.files, report.alive.len()), (0, 1), "{report:?}");
    }
    assert_eq!(live_files(&path).len(), 1);
}

#[test]
fn a_network_store_has_no_index_and_waits_for_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = network().open(&path).unwrap();
    let experiment = store.experiment("many").unwrap();
    for n in 0..300 {
        experiment.start_run(RunOptions::new().name(format!("run {n}"))).unwrap();
    }
    store.close().unwrap();
    let names = names(&path);
    assert_eq!(names, ["MLRS", "artifacts", "live", "log"], "no index, no locks");
    let store = network().open(&path).unwrap();
    assert_eq!(store.experiment("many").unwrap().id(), store.experiment("many").unwrap().id());
    store.compact(&mut |_| {}).unwrap();
    assert_eq!(store.stats().unwrap().runs, 300);
}

const HOSTS: u64 = 4;
const WRITERS: u64 = 8;
/// What is told of a store for longer than this, all of whose files this host sees as they are, is lost.
const SETTLED: Duration = Duration::from_secs(10);
const STARTED: Duration = Duration::from_secs(60);
/// What a value says: who logged it, in which of its sessions, and which of that it is.
const TOKEN_SHIFT: f64 = 4_294_967_296.0;
const SESSION_SHIFT: f64 = 16_777_216.0;

fn value(token: u64, session: u64, at: u64) -> f64 {
    token as f64 * TOKEN_SHIFT + session as f64 * SESSION_SHIFT + at as f64
}

fn parts(value: f64) -> (u64, u64, u64) {
    let token = (value / TOKEN_SHIFT) as u64;
    let rest = value - token as f64 * TOKEN_SHIFT;
    let session = (rest / SESSION_SHIFT) as u64;
    (token, session, (rest - session as f64 * SESSION_SHIFT) as u64)
}

fn remote(host: &str, writes: Writes, seed: u64) -> Remote {
    Remote::new(Arc::new(OsVfs), host, Age::Chance(3), writes, seed)
}

/// `write STORE SHARED HOST TOKEN SEED WRITES`: sessions of logging and closing, until it is killed. It says of each
/// session how many points were logged, and how many synced.
fn write(args: &[String]) {
    let [path, shared, host, token, seed, writes] = args else { panic!("{args:?}") };
    let (token, mut random) = (token.parse::<u64>().unwrap(), Random(seed.parse().unwrap()));
    let writes = if writes == "back" { Writes::Back } else { Writes::Through };
    let remote = remote(host, writes, random.word());
    let mut own = String::new();
    for session in 0.. {
        let options = network().vfs(Arc::new(remote.clone())).flush_interval_ms(random.between(2, 30));
        let options = options.segment_bytes_max([1, u64::MAX][random.index(2)]);
        let store = options.sync_interval_ms(random.between(5, 50)).open(path).unwrap();
        let run = match session {
            0 => store.experiment("crowd").unwrap().start_run(RunOptions::new()).unwrap(),
            _ => store.run(&own).unwrap(),
        };
        own = run.id().to_owned();
        child::say_word("run", &own);
        let series = [run.series("x").unwrap(), store.run(shared).unwrap().series("x").unwrap()];
        let (mut logged, end) = (0, random.between(300, 4_000));
        while logged < end {
            let count = if random.one_in(20) { random.between(1, 50) } else { 1 };
            let steps: Vec<i64> = (logged..logged + count).map(|at| at as i64).collect();
            let values: Vec<f64> = (logged..logged + count).map(|at| value(token, session, at)).collect();
            for series in &series {
                match count {
                    1 => series.log(steps[0], values[0]).unwrap(),
                    _ => series.log_columns(&steps, &steps, &values).unwrap(),
                }
            }
            logged += count;
            child::say_count(&format!("logged{session}"), logged);
            if random.one_in(100) {
                store.sync().unwrap();
                child::say_count(&format!("synced{session}"), logged);
            }
            if random.one_in(8) {
                std::thread::sleep(Duration::from_micros(300));
            }
        }
        if random.one_in(2) {
            // What others closed is folded, too, as far as this host sees it.
            match store.compact(&mut |_| {}) {
                Ok(report) => child::say_count("folded", report.segments_before),
                Err(error) if is_told(&error) => child::say_count("refused", 1),
                Err(error) => panic!("compact: {error}"),
            }
        }
        drop((series, run));
        store.close().unwrap();
        child::say_count(&format!("synced{session}"), logged);
        let trespasses = remote.trespasses();
        assert!(trespasses.is_empty(), "{trespasses:?}");
        child::say_count("old", remote.met().old_sizes + remote.met().old_pages + remote.met().old_lists);
    }
}

/// Whether an error says that what was seen does not fit together, which is allowed for a moment.
fn is_told(error: &Error) -> bool {
    matches!(error, Error::Gap { .. } | Error::Corrupt { .. } | Error::TornTail { .. } | Error::Io { .. })
}

/// Checks that of each session the points are a beginning, each once and in order; how many there are of each.
fn beginnings(points: &Points, what: &str) -> BTreeMap<(u64, u64), u64> {
    let mut found = BTreeMap::new();
    for point in points.iter() {
        let (token, session, at) = parts(point.value);
        let next: &mut u64 = found.entry((token, session)).or_default();
        assert_eq!(at, *next, "{what}: session {session} of writer {token}: lost, doubled or out of order");
        assert_eq!(point.step, at as i64, "{what}");
        *next += 1;
    }
    found
}

/// `look STORE SEED UNTIL`: a fifth host that looks at everything and follows the shared run, until a file is there.
fn look(args: &[String]) {
    let [path, shared, seed, until] = args else { panic!("{args:?}") };
    let mut random = Random(seed.parse().unwrap());
    let (mut looks, mut right, mut told, mut followed) = (0, 0, 0, 0);
    let mut old = [0; 3];
    while !Path::new(until).exists() {
        let remote = remote("looker", Writes::Through, random.word());
        let store = network().vfs(Arc::new(remote.clone())).read_only(true).open(path);
        let store = match store {
            Ok(store) => store,
            Err(error) if is_told(&error) => continue,
            Err(error) => panic!("open: {error}"),
        };
        let mut follow = store.follow(shared).unwrap();
        let mut next: BTreeMap<String, (u64, f64)> = BTreeMap::new();
        for _ in 0..random.between(5, 40) {
            looks += 1;
            let search = RunSearch { max_results: 1_000, ..RunSearch::default() };
            let runs = match store.search_runs(&search) {
                Ok(found) => found.items,
                Err(error) if is_told(&error) => {
                    told += 1;
                    continue;
                }
                Err(error) => panic!("search: {error}"),
            };
            for run in runs {
                match store.history(&run.id, "x").and_then(|history| history.collect::<Points>()) {
                    Ok(points) => {
                        beginnings(&points, "a late look");
                        right += 1;
                    }
                    Err(error) if is_told(&error) => told += 1,
                    Err(error) => panic!("history: {error}"),
                }
            }
            match follow.next_batch(Duration::ZERO) {
                Ok(points) => {
                    for point in &points {
                        let (token, session, at) = parts(point.point.value);
                        let (next, of) =
                            next.entry(point.origin.to_string()).or_insert((0, value(token, session, 0)));
                        assert_eq!((point.ordinal, at), (*next, *next), "a follower: lost or doubled");
                        assert_eq!(value(token, session, 0), *of, "a follower: two sessions are one origin");
                        *next += 1;
                    }
                    followed += points.len() as u64;
                }
                Err(error) if is_told(&error) => told += 1,
                Err(error) => panic!("following: {error}"),
            }
            std::thread::sleep(Duration::from_millis(random.between(0, 10)));
        }
        assert!(remote.trespasses().is_empty(), "{:?}", remote.trespasses());
        let met = remote.met();
        old = [old[0] + met.old_sizes, old[1] + met.old_pages, old[2] + met.old_lists];
    }
    for (name, count) in [("looks", looks), ("right", right), ("told", told), ("followed", followed)]
        .into_iter()
        .chain([("sizes", old[0]), ("pages", old[1]), ("lists", old[2])])
    {
        child::say_count(name, count);
    }
}

#[test]
fn child_process() {
    let Some((what, args)) = child::called() else { return };
    child::die_with_parent();
    match what.as_str() {
        "write" => write(&args),
        "look" => look(&args),
        other => panic!("no child is called {other}"),
    }
}

/// A writer that is gone.
struct Dead {
    token: u64,
    run: String,
    writes: Writes,
    said: Said,
}

impl Dead {
    fn count(&self, what: &str, session: u64) -> u64 {
        self.said.count(&format!("{what}{session}"))
    }

    fn sessions(&self) -> std::ops::Range<u64> {
        0..(0..).find(|session| self.count("logged", *session) == 0).unwrap()
    }
}

/// Checks what is there of the dead: all that was logged where only processes died, all that was synced where hosts did.
/// Returns points synced.
fn check(store: &Store, shared: &str, dead: &[Dead], when: &str) -> u64 {
    let collect = |run: &str, whole: bool| -> Points {
        let history = store.history(run, "x").unwrap();
        let deadline = Instant::now() + SETTLED;
        loop {
            match history.collect::<Points>() {
                Err(error) if !whole && is_told(&error) => {
                    return history.allow_gaps(true).collect().unwrap();
                }
                // Others fold and remove files meanwhile: for a moment it may not fit together.
                Err(error) if is_told(&error) && Instant::now() < deadline => {}
                found => return found.unwrap_or_else(|e| panic!("{when}: run {run}: {e}")),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let all_through = dead.iter().all(|one| one.writes == Writes::Through);
    let of_shared = collect(shared, all_through);
    let mut synced_points = 0;
    for one in dead {
        let of_own = collect(&one.run, one.writes == Writes::Through);
        for session in one.sessions() {
            let (logged, synced) = (one.count("logged", session), one.count("synced", session));
            let least = if one.writes == Writes::Through { logged } else { synced };
            for (points, of) in [(&of_own, "own"), (&of_shared, "shared")] {
                let what =
                    format!("{when}: {of} run, session {session} of writer {}, {:?}", one.token, one.writes);
                let found: Vec<u64> = points
                    .values
                    .iter()
                    .map(|value| parts(*value))
                    .filter(|(token, of, _)| (*token, *of) == (one.token, session))
                    .map(|(.., at)| at)
                    .collect();
                assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{what}: doubled or out of order");
                let joined = found.iter().zip(0..).take_while(|(at, n)| **at == *n).count() as u64;
                assert!(joined >= least, "{what}: {joined} of {least} (logged {logged}, synced {synced})");
                assert!(one.writes == Writes::Back || joined == found.len() as u64, "{what}: a hole");
            }
            synced_points += 2 * synced;
        }
    }
    synced_points
}

/// The bytes of all live files.
fn live_bytes(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    live_files(store).into_iter().filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect()
}

/// The live files of one dead writer: its process is told of in the header.
fn of_process(files: &BTreeMap<PathBuf, Vec<u8>>, pid: u32) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_its = |bytes: &[u8]| bytes.get(64..72) == Some(u64::from(pid).to_le_bytes().as_slice());
    files
        .iter()
        .filter(|(_, bytes)| is_its(bytes))
        .map(|(path, bytes)| (path.clone(), bytes.clone()))
        .collect()
}

#[derive(Default)]
struct Figures {
    kills: u64,
    synced: u64,
    files: u64,
    waiting: u64,
    said: BTreeMap<&'static str, u64>,
}

/// One store: eight writers on four hosts, killed one after the other while a fifth host looks. In every other store two
/// of the hosts die with their writers, and what was not synced is lost.
fn one_store(random: &mut Random, hosts_die: bool, figures: &mut Figures) {
    let directory = tempfile::tempdir().unwrap();
    let (path, until) = (directory.path().join("store"), directory.path().join("until"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let shared = {
        let store = network().open(&path).unwrap();
        let run = store.experiment("crowd").unwrap().start_run(RunOptions::new().name("shared")).unwrap();
        run.id().to_owned()
    };
    let mut writers: Vec<(u64, Writes, Child)> = (0..WRITERS)
        .map(|token| {
            let dies = hosts_die && token % HOSTS < 2;
            let (writes, name) = if dies { (Writes::Back, "back") } else { (Writes::Through, "through") };
            let args = [
                text(&path),
                shared.clone(),
                format!("node{}", token % HOSTS),
                token.to_string(),
                random.word().to_string(),
                name.to_owned(),
            ];
            (token, writes, Child::spawn("write", &args))
        })
        .collect();
    let looker =
        Child::spawn("look", &[text(&path), shared.clone(), random.word().to_string(), text(&until)]);
    for (_, _, child) in &writers {
        child.wait_until(STARTED, "a sync", |said| said.counts.keys().any(|name| name.starts_with("synced")));
    }
    let mut dead: Vec<Dead> = Vec::new();
    let mut left: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let untouched = |left: &BTreeMap<PathBuf, Vec<u8>>, when: &str| {
        for (file, bytes) in left {
            let now = fs::read(file).unwrap_or_else(|e| panic!("{when}: {}: {e}", file.display()));
            assert!(now == *bytes, "{when}: {} was changed", file.display());
        }
    };
    while !writers.is_empty() {
        std::thread::sleep(Duration::from_millis(random.between(5, 120)));
        let (token, writes, child) = writers.swap_remove(random.index(writers.len()));
        let pid = child.pid();
        let said = child.kill();
        figures.kills += 1;
        for (name, count) in [("folded", said.count("folded")), ("old", said.count("old"))] {
            *figures.said.entry(name).or_default() += count;
        }
        dead.push(Dead { token, run: said.words["run"].clone(), writes, said });
        untouched(&left, "while others wrote");
        left.extend(of_process(&live_bytes(&path), pid));
        check(&network().read_only(true).open(&path).unwrap(), &shared, &dead, "while others write");
    }
    fs::write(&until, b"").unwrap();
    let said = looker.finish(STARTED);
    for name in ["looks", "right", "told", "followed", "sizes", "pages", "lists"] {
        *figures.said.entry(name).or_default() += said.count(name);
    }
    assert!(!left.is_empty(), "nobody left a live file");
    figures.files += left.len() as u64;
    untouched(&left, "in the end");
    // A writer that comes later, on a host of its own, leaves all of them alone.
    let later = remote("later", Writes::Through, random.word());
    let store = network().vfs(Arc::new(later.clone())).open(&path).unwrap();
    store.experiment("later").unwrap().start_run(RunOptions::new()).unwrap();
    store.compact(&mut |_| {}).unwrap();
    store.close().unwrap();
    assert!(later.trespasses().is_empty(), "{:?}", later.trespasses());
    untouched(&left, "after a compaction");
    let store = network().open(&path).unwrap();
    check(&store, &shared, &dead, "after a compaction");
    let sound = |store: &Store, when: &str| {
        let report = store.verify(&mut |_| {}).unwrap();
        assert!(hosts_die || report.is_sound(), "{when}: {:?}", report.findings);
    };
    sound(&store, "after a compaction");
    store.close().unwrap();
    // Somebody says that they are gone, on a host that sees late, too: again and again, until it has seen everything.
    let recoverer = remote("recoverer", Writes::Through, random.word()).close_to_open();
    let store = network().vfs(Arc::new(recoverer)).open(&path).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.clear();
        for host in 0..HOSTS {
            let report = store.recover_host(&format!("node{host}"), false).unwrap();
            assert_eq!(report.quarantined, [] as [PathBuf; 0]);
            waiting.extend(report.waiting);
        }
    }
    store.close().unwrap();
    let store = network().open(&path).unwrap();
    // What a dead host never wrote can be waited for in vain.
    assert!(hosts_die || waiting.is_empty(), "{waiting:?}");
    assert_eq!(live_files(&path).iter().filter(|live| left.contains_key(*live)).count(), waiting.len());
    figures.waiting += waiting.len() as u64;
    check(&store, &shared, &dead, "brought home");
    sound(&store, "brought home");
    store.close().unwrap();
    figures.synced += check(&network().read_only(true).open(&path).unwrap(), &shared, &dead, "closed");
}

#[test]
fn killed_writers_of_four_hosts_lose_nothing_that_was_flushed() {
    let (seed, mut random) = random("network");
    let stores = cycles(4);
    println!("network: seed {seed}, {stores} stores");
    let (begun, mut figures) = (Instant::now(), Figures::default());
    for n in 0..stores {
        let _watchdog = Watchdog::new(format!("network: store {n} (seed {seed})"), 5 * STARTED);
        one_store(&mut random, n % 2 == 1, &mut figures);
    }
    let said = |name: &str| figures.said.get(name).copied().unwrap_or(0);
    println!(
        "network: seed {seed}: {} killed writers on {HOSTS} hosts in {stores} stores, {} points synced, 0 lost, 0 doubled; {} \
         live files of others, 0 touched, then all but {} brought home; {} segments folded; writers met {} old sizes, pages and listings; a \
         fifth host looked {} times ({} old sizes, {} old pages, {} old listings): {} answers right, {} told of a \
         hole, {} points followed; {:.1} s",
        figures.kills,
        figures.synced,
        figures.files,
        figures.waiting,
        said("folded"),
        said("old"),
        said("looks"),
        said("sizes"),
        said("pages"),
        said("lists"),
        said("right"),
        said("told"),
        said("followed"),
        begun.elapsed().as_secs_f64()
    );
    for name in ["old", "sizes", "pages", "lists", "right", "followed"] {
        assert!(said(name) > 0, "no {name}: nothing was tried");
    }
}

/// A reader on another host who saw everything at some stage, and from then on sees some things as they were then.
struct Late {
    stage: usize,
    stale: Stale,
    remote: Remote,
    store: Store,
    follow: mlrs_db::Follow,
    followed: BTreeMap<(String, String), u64>,
}

const KEYS: [&str; 3] = ["x", "y", "z"];
/// Readers that are added after each step of a writer.
const LATE_READERS: usize = 5;

impl Late {
    fn new(server: &MemoryVfs, run: &str, stage: usize, stale: Stale) -> Self {
        let remote =
            Remote::new(Arc::new(server.clone()), "late", Age::Held(Stale::NOTHING), Writes::Through, 0);
        let store = network().vfs(Arc::new(remote.clone())).read_only(true).open("store").unwrap();
        let follow = store.follow(run).unwrap();
        Self { stage, stale, remote, store, follow, followed: BTreeMap::new() }
    }

    /// Looks at all series; whether it was told of a hole. What it gets is a beginning of what was logged.
    fn look(&mut self, run: &str, logged: &Sessions, now: usize) -> bool {
        let what = format!("known since {}, {:?}, now {now}", self.stage, self.stale);
        let mut told = false;
        for (key, name) in KEYS.iter().enumerate() {
            let found = self.store.history(run, name).and_then(|history| history.collect::<Points>());
            let points = match found {
                Ok(points) => points,
                Err(error) if is_told(&error) => {
                    told = true;
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            let found = beginnings(&points, &format!("{what}: '{name}'"));
            for ((_, session), count) in found {
                assert!(count <= logged[session as usize][key], "{what}: '{name}': points of nobody");
            }
        }
        match self.follow.next_batch(Duration::ZERO) {
            Ok(points) => {
                for point in &points {
                    let id = (point.key.to_string(), point.origin.to_string());
                    let next = self.followed.entry(id).or_default();
                    let at = parts(point.point.value).2;
                    assert_eq!((point.ordinal, at), (*next, *next), "{what}: a follower: lost or doubled");
                    *next += 1;
                }
            }
            Err(error) if is_told(&error) => told = true,
            Err(error) => panic!("{what}: following: {error}"),
        }
        told
    }

    /// Once it sees everything as it is, it has everything.
    fn ends(mut self, run: &str, logged: &Sessions, met: &mut Met) {
        self.remote.hold(Stale::NOTHING);
        assert!(!self.look(run, logged, usize::MAX), "a hole that stays");
        for _ in 0..3 {
            self.look(run, logged, usize::MAX);
        }
        for (key, name) in KEYS.iter().enumerate() {
            let points: Points = self.store.history(run, name).unwrap().collect().unwrap();
            let all: u64 = logged.iter().map(|session| session[key]).sum();
            assert_eq!(points.len() as u64, all, "'{name}'");
            let followed =
                self.followed.iter().filter(|((of, _), _)| of == name).map(|(_, n)| n).sum::<u64>();
            assert_eq!(
                followed, all,
                "'{name}': followed; {} {:?} {:?} {:?}",
                self.stage, self.stale, self.followed, logged
            );
        }
        assert!(self.remote.trespasses().is_empty(), "{:?}", self.remote.trespasses());
        let own = self.remote.met();
        met.old_sizes += own.old_sizes;
        met.old_pages += own.old_pages;
        met.old_lists += own.old_lists;
    }
}

/// Points of each key, by session of the writer.
type Sessions = Vec<[u64; KEYS.len()]>;

/// A writer's random life on a server; after every step there are more readers, for each of whom some things stay as they
/// are then.
fn late_readers(random: &mut Random, stages: usize, met: &mut Met) -> (u64, u64) {
    let server = MemoryVfs::new();
    let open = || {
        let options = network().vfs(Arc::new(server.clone())).segment_bytes_max(1);
        options.flush_interval_ms(3_600_000).sync_interval_ms(3_600_000).open("store").unwrap()
    };
    let mut store = open();
    let id = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap().id().to_owned();
    store.close().unwrap();
    store = open();
    let mut logged: Sessions = vec![[0; KEYS.len()]];
    let mut late: Vec<Late> = Vec::new();
    let (mut looks, mut told) = (0, 0);
    for stage in 0..stages {
        let session = logged.len() as u64 - 1;
        match random.below(12) {
            0 => {
                store.close().unwrap();
                store = open();
                logged.push([0; KEYS.len()]);
            }
            1 => drop(store.compact(&mut |_| {}).unwrap()),
            _ => {
                // Keys come one after the other.
                let key = random.index(KEYS.len().min(1 + stage / 2));
                // Segments hold 64 KiB at least, 5 bytes a point.
                let count = match random.below(5) {
                    0..3 => random.between(1, 8),
                    3 => random.between(50, 90),
                    _ => random.between(5_000, 14_000),
                };
                let next = &mut logged[session as usize][key];
                let steps: Vec<i64> = (*next..*next + count).map(|at| at as i64).collect();
                let values: Vec<f64> = (*next..*next + count).map(|at| value(0, session, at)).collect();
                // Times do not compress, so that segments fill.
                let times: Vec<i64> = steps
                    .iter()
                    .map(|at| (session as i64) << 58 | at << 40 | (random.word() >> 24) as i64)
                    .collect();
                let series = store.run(&id).unwrap().series(KEYS[key]).unwrap();
                match random.one_in(2) {
                    true => series.log_columns(&steps, &times, &values).unwrap(),
                    false => {
                        for (at, step) in steps.iter().enumerate() {
                            series.log_at(*step, times[at], values[at]).unwrap();
                        }
                    }
                }
                *next += count;
            }
        }
        store.sync().unwrap();
        for one in &mut late {
            looks += 1;
            told += u64::from(one.look(&id, &logged, stage));
        }
        for _ in 0..LATE_READERS {
            let bits = random.between(1, 31);
            let is_set = |bit: u32| bits >> bit & 1 == 1;
            let stale = Stale {
                live_list: is_set(0),
                live_files: is_set(1),
                log_list: is_set(2),
                log_files: is_set(3),
                every_other_log_file: is_set(4),
            };
            let mut one = Late::new(&server, &id, stage, stale);
            one.look(&id, &logged, stage);
            one.remote.hold(stale);
            late.push(one);
        }
    }
    late.into_iter().for_each(|one| one.ends(&id, &logged, met));
    (looks, told)
}

#[test]
fn what_is_seen_late_is_a_beginning_or_a_told_hole() {
    let (seed, mut random) = random("late");
    let lives = cycles(4);
    println!("late: seed {seed}, {lives} lives");
    let (mut looks, mut told, mut met) = (0, 0, Met::default());
    for _ in 0..lives {
        let (more_looks, more_told) = late_readers(&mut random, 14, &mut met);
        looks += more_looks;
        told += more_told;
    }
    println!(
        "late: seed {seed}: {lives} lives of a writer, {looks} looks of those who see some files and listings late ({} old \
         sizes, {} old pages, {} old listings): 0 wrong, {told} told of a hole, all complete once they see what is there",
        met.old_sizes, met.old_pages, met.old_lists
    );
    assert!(told > 0 && met.old_sizes > 0 && met.old_pages > 0 && met.old_lists > 0, "nothing was tried");
}

/// The size of a closed segment is known from before, the next segment is known as it is: what the first one got
/// meanwhile is missing, and live points must not take its place.
#[test]
fn live_points_do_not_take_the_place_of_those_in_a_segment_that_is_known_too_short() {
    let server = MemoryVfs::new();
    let options = network().vfs(Arc::new(server.clone())).segment_bytes_max(1);
    let store = options.flush_interval_ms(3_600_000).sync_interval_ms(3_600_000).open("store").unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let mut random = Random(1);
    let segments =
        || server.tree().keys().filter(|path| path.extension().is_some_and(|e| e == "seg")).count();
    let mut log = |key: &str, points: std::ops::Range<u64>, columns: bool| {
        let steps: Vec<i64> = points.clone().map(|at| at as i64).collect();
        let values: Vec<f64> = points.map(|at| value(0, 0, at)).collect();
        let times: Vec<i64> = steps.iter().map(|at| at << 32 | (random.word() >> 34) as i64).collect();
        let series = run.series(key).unwrap();
        match columns {
            true => series.log_columns(&steps, &times, &values).unwrap(),
            false => (0..steps.len()).for_each(|at| series.log_at(steps[at], times[at], values[at]).unwrap()),
        }
    };
    log("first", 0..2_000, true);
    let remote = Remote::new(Arc::new(server.clone()), "late", Age::Held(Stale::NOTHING), Writes::Through, 0);
    let reader = network().vfs(Arc::new(remote.clone())).read_only(true).open("store").unwrap();
    assert_eq!(values(&reader, run.id(), "first").len(), 2_000);
    remote.hold(Stale { every_other_log_file: true, ..Stale::NOTHING });
    // Each key once, so that there is nothing to seal.
    let keys: Vec<String> = (0..).map(|n| format!("key {n}")).take(100).collect();
    let mut last = 0;
    while segments() < 2 {
        log(&keys[last], 0..2_000, true);
        last += 1;
    }
    log("in the second segment", 0..50, true);
    keys[..last].iter().for_each(|key| log(key, 2_000..2_010, false));
    store.sync().unwrap();
    let mut told = 0;
    for key in &keys[..last] {
        let look = || reader.history(run.id(), key).and_then(|history| history.collect::<Points>());
        match look() {
            Ok(points) => drop(beginnings(&points, key)),
            Err(error) => told += u64::from(is_told(&error)),
        }
    }
    assert!(told > 0, "nothing was missing");
    remote.hold(Stale::NOTHING);
    for key in &keys[..last] {
        assert_eq!(values(&reader, run.id(), key).len(), 2_010);
    }
}
