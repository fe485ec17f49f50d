//! A disk that is really full: a small tmpfs in a mount namespace of its own.
//!
//! Contract: a call that finds no room says so and has done nothing; what returned stays; reading goes on; once there is
//! room the same handle goes on. Needs the right to mount, as root or else in a user namespace. Where neither is allowed
//! the test says so on standard error and proves nothing; whoever knows that mounting is allowed sets
//! `MLRS_TEST_REQUIRE_MOUNT`, which makes that a failure. (`tests/run.sh` does not: it runs where it is not known.)

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mlrs_db::{Error, Metric, Points, Run, RunOptions, SharedMapping, Store};

use crate::child::{self, Child, Watchdog};
use crate::{Place, cycles, random};

const DISK_MIB: usize = 24;
/// Times that one disk is filled and freed.
const CYCLES_PER_DISK: u64 = 3;
const RESUMES: Duration = Duration::from_secs(10);
/// A call of each kind must have been refused so often before the disk counts as full.
const REFUSALS: u64 = 3;

/// The command that runs this program where it may mount, and how; none if nothing is allowed.
fn where_mounts_are_allowed(path: &Path) -> Option<Command> {
    // SAFETY: asks for an id.
    let root = unsafe { libc::geteuid() } == 0;
    let flags: &[&str] = if root { &["-m", "-rm"] } else { &["-rm"] };
    flags.iter().find_map(|flags| {
        let mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none"];
        let tried = Command::new("unshare").arg(flags).args(mount).arg(path).output();
        let mut command = Command::new("unshare");
        command.arg(flags).arg(std::env::current_exe().unwrap());
        tried.is_ok_and(|output| output.status.success()).then_some(command)
    })
}

fn mount(path: &Path) {
    let target = CString::new(path.to_str().unwrap()).unwrap();
    let options = CString::new(format!("size={DISK_MIB}m")).unwrap();
    let (none, kind) = (c"none".as_ptr(), c"tmpfs".as_ptr());
    // SAFETY: terminated strings that outlive the call; the namespace is this process's own.
    let done = unsafe { libc::mount(none, target.as_ptr(), kind, 0, options.as_ptr().cast()) };
    assert_eq!(done, 0, "mount: {}", std::io::Error::last_os_error());
}

fn unmount(path: &Path) {
    let target = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a terminated string; the namespace is this process's own.
    let done = unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    assert_eq!(done, 0, "umount: {}", std::io::Error::last_os_error());
}

fn free_bytes(path: &Path) -> u64 {
    let target = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: plain integers, for which zero is a value.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated string and a place for the answer, both for the length of the call.
    unsafe { libc::statvfs(target.as_ptr(), &mut answer) };
    answer.f_bavail.saturating_mul(answer.f_frsize)
}

/// Fills the file system up to `left` bytes.
fn fill(path: &Path, left: usize) {
    let file = File::options().create(true).append(true).open(path).unwrap();
    let chunk = vec![7u8; 64 << 10];
    while (&file).write_all(&chunk).is_ok() {}
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(left as u64)).unwrap();
    // What a set_len keeps of its last page.
    let _ = file.write_at(b"x", len.saturating_sub(left as u64 + 1));
}

/// Logs by every way; the next value of a key is the one after the last that was accepted.
struct Logger {
    store: Store,
    run: Run,
    accepted: [u64; 5],
    refused: [u64; 5],
}

const WAYS: [&str; 5] = ["points", "columns", "metrics", "batch", "param"];

impl Logger {
    fn call(&mut self, way: usize) -> bool {
        let at = self.accepted[way];
        let (step, value, key) = (at as i64, noise(at as i64), WAYS[way]);
        let done = match way {
            0 => self.run.series(key).and_then(|s| s.log_at(step, step, value)),
            1 => {
                let steps: Vec<i64> = (step * 500..step * 500 + 500).collect();
                let values: Vec<f64> = steps.iter().map(|s| noise(*s)).collect();
                self.run.series(key).and_then(|s| s.log_columns(&steps, &steps, &values))
            }
            2 => self.run.log_metrics(step, [(key, value)]),
            3 => {
                let metric = Metric::new(key, step, value);
                self.run.log_batch(&[metric], &[(&format!("b{at}"), &"v".repeat(500))], &[])
            }
            _ => self.run.log_param(&format!("p{at}"), &"v".repeat(500)),
        };
        match done {
            Ok(()) => self.accepted[way] += 1,
            Err(Error::DiskFull { .. } | Error::Busy { .. }) => self.refused[way] += 1,
            Err(error) => panic!("{}: a full disk is no such error: {error}", WAYS[way]),
        }
        self.accepted[way] > at
    }

    fn check(&self, store: &Store, what: &str) {
        for (way, accepted) in self.accepted.iter().enumerate().take(4) {
            let points: Points = store.history(self.run.id(), WAYS[way]).unwrap().collect().unwrap();
            let wanted = if way == 1 { accepted * 500 } else { *accepted };
            assert_eq!(points.len() as u64, wanted, "{what}: '{}'", WAYS[way]);
            for (at, point) in (0i64..).zip(points.iter()) {
                let found = (point.step, point.value);
                assert_eq!(found, (at, noise(at)), "{what}: '{}'", WAYS[way]);
            }
        }
        let data = store.get_run(self.run.id()).unwrap();
        for (prefix, way) in [("b", 3), ("p", 4)] {
            let found = data.params.keys().filter(|key| key.starts_with(prefix)).count() as u64;
            assert_eq!(found, self.accepted[way], "{what}: params of {}", WAYS[way]);
        }
    }
}

/// Values that no codec makes small, so that they fill the disk.
fn noise(at: i64) -> f64 {
    let bits =
        (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    f64::from_bits(0x3ff0_0000_0000_0000 | (bits >> 12))
}

/// `full-disk MOUNT CYCLES SEED`: runs inside the namespace.
pub fn inside(args: &[String]) {
    let (place, cycles) = (Path::new(&args[0]), args[1].parse::<u64>().unwrap());
    let mut random = crate::Random(args[2].parse().unwrap());
    // A new disk now and then: what is logged to a store fills it for good.
    let mappings = [SharedMapping::Auto, SharedMapping::Off];
    let disks =
        (0..cycles.div_ceil(CYCLES_PER_DISK)).flat_map(|disk| mappings.map(|mapping| (disk, mapping)));
    let mut totals = [(0, 0); 2];
    for (disk, mapping) in disks {
        let cycles = CYCLES_PER_DISK.min(cycles - disk * CYCLES_PER_DISK);
        let mount_at = place.join(format!("{mapping:?}{disk}"));
        std::fs::create_dir(&mount_at).unwrap();
        mount(&mount_at);
        let (path, ballast) = (mount_at.join("store"), mount_at.join("ballast"));
        let options = Store::options().shared_mapping(mapping).stall_timeout_ms(20).flush_interval_ms(5);
        let store = options.sync_interval_ms(5).open(&path).unwrap();
        let run = store.experiment("full").unwrap().start_run(RunOptions::new()).unwrap();
        let mut logger = Logger { store, run, accepted: [0; 5], refused: [0; 5] };
        for cycle in 0..cycles {
            let what = format!("{mapping:?}, cycle {cycle}");
            let _watchdog = Watchdog::new(what.clone(), Duration::from_secs(60));
            for n in 0..500 {
                logger.call(n % 5);
            }
            fill(&ballast, random.below(1 << 20) as usize);
            let before = logger.refused;
            // A way that is refused may have room again when others gave up some; in the end none has.
            while let Some(way) = (0..5).find(|way| logger.refused[*way] < before[*way] + REFUSALS) {
                (0..50).for_each(|_| {
                    logger.call(way);
                });
            }
            // Reading needs no room.
            let reader = Store::options().read_only(true).open(&path).unwrap();
            logger.check(&reader, &format!("{what}, full, reader"));
            logger.check(&logger.store, &format!("{what}, full"));
            // Neither does opening, though writing may.
            match Store::open(&path).and_then(|other| other.experiment("another").map(drop)) {
                Ok(()) | Err(Error::DiskFull { .. } | Error::Busy { .. }) => {}
                Err(error) => panic!("{what}: another process: {error}"),
            }
            std::fs::remove_file(&ballast).unwrap();
            let deadline = Instant::now() + RESUMES;
            for (way, name) in WAYS.iter().enumerate() {
                while !logger.call(way) {
                    let free = free_bytes(&mount_at);
                    assert!(
                        Instant::now() < deadline,
                        "{what}: '{}' does not go on with {free} bytes free",
                        name
                    );
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            logger.check(&logger.store, &format!("{what}, freed"));
        }
        killed_while_full(&path, &ballast);
        let Logger { store, run, accepted, refused } = logger;
        let id = run.id().to_owned();
        drop(run);
        store.close().unwrap();
        let store = Store::open(&path).unwrap();
        let run = store.run(&id).unwrap();
        let logger = Logger { store: store.clone(), run, accepted, refused };
        logger.check(&store, &format!("{mapping:?}, opened again"));
        let total = &mut totals[usize::from(mapping == SharedMapping::Off)];
        *total = (total.0 + accepted.iter().sum::<u64>(), total.1 + refused.iter().sum::<u64>());
        child::say_count(&format!("accepted-{mapping:?}"), total.0);
        child::say_count(&format!("refused-{mapping:?}"), total.1);
        drop(logger);
        drop(store);
        unmount(&mount_at);
    }
}

/// `full-write STORE`: logs until there is no room, and stays.
pub fn write(args: &[String]) {
    let store = Store::options().stall_timeout_ms(20).flush_interval_ms(5).open(&args[0]).unwrap();
    let run = store.experiment("full").unwrap().start_run(RunOptions::new()).unwrap();
    child::say_word("run", run.id());
    let series = run.series("points").unwrap();
    for at in 0i64.. {
        match series.log_at(at, at, noise(at)) {
            Ok(()) => child::say_count("points", at as u64 + 1),
            Err(Error::DiskFull { .. } | Error::Busy { .. }) => {
                child::say_word("full", "yes");
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Killed while there is no room, read while there is none, recovered when there is.
fn killed_while_full(path: &Path, ballast: &Path) {
    let writer = Child::spawn("full-write", &[path.to_str().unwrap().to_owned()]);
    writer.wait_until(Duration::from_secs(30), "the first points", |said| said.count("points") > 100);
    fill(ballast, 0);
    writer.wait_until(Duration::from_secs(60), "a full disk", |said| said.words.contains_key("full"));
    let said = writer.kill();
    for read_only in [true, false] {
        let store = Store::options().read_only(read_only).open(path).unwrap();
        if !read_only {
            std::fs::remove_file(ballast).unwrap();
            store.experiment("after").unwrap();
        }
        let points: Points = store.history(&said.words["run"], "points").unwrap().collect().unwrap();
        assert!(points.iter().zip(0..).all(|(p, at)| (p.step, p.value) == (at, noise(at))));
        assert_eq!(points.len() as u64, said.count("points"), "killed while full, read-only {read_only}");
    }
}

#[test]
fn a_full_disk_loses_nothing_and_logging_goes_on() {
    let (seed, _) = random("full");
    let place = Place::new();
    let at = place.at("mounts");
    std::fs::create_dir(&at).unwrap();
    let Some(mut command) = where_mounts_are_allowed(&at) else {
        let text =
            "full disk: NOT RUN: neither root nor a user namespace may mount a tmpfs here; nothing is proved";
        assert!(std::env::var_os("MLRS_TEST_REQUIRE_MOUNT").is_none(), "{text}");
        // Past the capture of the test program, so that nobody takes it for a success.
        let line = "!".repeat(text.len());
        let _ = writeln!(std::io::stderr(), "\n{line}\n{text}\n{line}");
        return;
    };
    let cycles = cycles(3);
    println!("full disk: seed {seed}, {cycles} times full and freed, mapped and not");
    child::as_child(
        &mut command,
        "full-disk",
        &[at.to_str().unwrap().into(), cycles.to_string(), seed.to_string()],
    );
    let said = Child::run(command, "full-disk").finish(Duration::from_secs(120 + 60 * cycles));
    println!(
        "full disk: seed {seed}: {cycles} times full and freed; mapped: {} calls accepted, {} refused; plain: {} accepted, {} \
         refused; 0 lost, 0 doubled, every kind of call went on with the same handle",
        said.count("accepted-Auto"),
        said.count("refused-Auto"),
        said.count("accepted-Off"),
        said.count("refused-Off")
    );
}
