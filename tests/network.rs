//! Network mode, and files of other hosts: nothing of another's is touched, nothing flushed is lost or doubled.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mlrs_db::{Network, Options, Points, RunOptions, Store};

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

const CHILD: &str = "MLRS_NETWORK_CHILD";

/// Logs until it is killed; says how many points are flushed.
#[test]
fn child_process() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let store = network().open(path).unwrap();
    let run = store.experiment("crowd").unwrap().start_run(RunOptions::new()).unwrap();
    let series = run.series("x").unwrap();
    eprintln!("run {}", run.id());
    for n in 0u32.. {
        series.log_at(i64::from(n), i64::from(n), f64::from(n)).unwrap();
        if n % 256 == 255 {
            store.sync().unwrap();
            eprintln!("flushed {}", n + 1);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

struct Writer {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Writer {
    fn spawn(path: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["child_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Kills it; its run and how many points it said were flushed.
    fn kill(mut self) -> (String, u64) {
        let (mut run, mut flushed) = (String::new(), 0);
        let mut heard = 0;
        while heard < 4 {
            let line = self.lines.next().unwrap().unwrap();
            heard += u64::from(take(&line, &mut run, &mut flushed));
        }
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        for line in self.lines.map_while(Result::ok) {
            take(&line, &mut run, &mut flushed);
        }
        (run, flushed)
    }
}

fn take(line: &str, run: &mut String, flushed: &mut u64) -> bool {
    match line.split_once(' ') {
        Some(("run", id)) => *run = id.to_owned(),
        Some(("flushed", count)) => *flushed = count.parse().unwrap(),
        _ => return false,
    }
    true
}

#[test]
fn killed_writers_of_four_hosts_lose_nothing_that_was_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    network().open(&path).unwrap().close().unwrap();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..2 {
        let writers: Vec<_> = (0..4).map(|_| Writer::spawn(&path)).collect();
        for (n, writer) in writers.into_iter().enumerate() {
            let known = live_files(&path);
            let (run, flushed) = writer.kill();
            assert!(flushed > 0);
            expected.insert(run, flushed);
            assert!(known.iter().all(|live| live.exists()), "round {round}, writer {n}: a file was taken");
        }
        for (n, live) in live_files(&path).iter().enumerate() {
            move_to_host(live, &format!("node{}", n % 4));
        }
    }
    assert_eq!(live_files(&path).len(), 8);
    let check = |when: &str| {
        let store = network().read_only(true).open(&path).unwrap();
        for (run, flushed) in &expected {
            let values = values(&store, run, "x");
            assert!(values.len() as u64 >= *flushed, "{when}: {} of {flushed}", values.len());
            assert!(values.iter().enumerate().all(|(n, v)| *v == n as f64), "{when}");
        }
        let report = store.verify(&mut |_| {}).unwrap();
        assert!(report.is_sound(), "{when}: {:?}", report.findings);
    };
    check("after the kills");
    // A writer that comes later leaves all of them alone.
    let store = network().open(&path).unwrap();
    store.experiment("later").unwrap().start_run(RunOptions::new()).unwrap();
    store.compact(&mut |_| {}).unwrap();
    assert_eq!(live_files(&path).len(), 8);
    check("after a compaction");
    for host in 0..4 {
        assert_eq!(store.recover_host(&format!("node{host}"), false).unwrap().files, 2);
    }
    assert_eq!(live_files(&path).len(), 0);
    check("after the recovery");
    store.close().unwrap();
    check("closed");
    let total: u64 = expected.values().sum();
    println!(
        "network: 8 killed writers, {total} points flushed, 0 lost, 0 doubled, 0 files of others touched"
    );
}
