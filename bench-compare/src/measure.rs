//! What a child process measures of itself: time, processor time, bytes on disk; and how files leave the page cache.
//!
//! Contract: figures go to standard output, one JSON line each; whoever started the child knows which workload and peer
//! they belong to.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::Outcome;

/// Prints a figure. Names end with their unit.
pub fn emit(metric: &str, value: f64) {
    println!("{}", serde_json::json!({ "metric": metric, "value": value }));
}

/// Says that data are made and the store comes next: memory from here on is the store's.
pub fn ready() {
    say_and_wait("ready");
}

/// Says that what follows only checks.
pub fn measured() {
    say_and_wait("measured");
}

fn say_and_wait(what: &str) {
    println!("{}", serde_json::json!({ what: true }));
    // At a terminal there is nobody to answer, and nothing to wait for at the end of input.
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Wall and processor time since it was started.
pub struct Stopwatch {
    started: Instant,
    cpu_s: f64,
    /// Since when it stands still.
    paused: Option<Instant>,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { cpu_s: cpu_s(), started: Instant::now(), paused: None }
    }

    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Stands still until [`Stopwatch::resume`]; processor time goes on.
    pub fn pause(&mut self) {
        self.paused = Some(Instant::now());
    }

    pub fn resume(&mut self) {
        if let Some(paused) = self.paused.take() {
            self.started += paused.elapsed();
        }
    }

    /// Of all threads of this process.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_s() - self.cpu_s
    }
}

fn cpu_s() -> f64 {
    let mut clock = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, which lives here.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut clock) };
    clock.tv_sec as f64 + clock.tv_nsec as f64 / 1e9
}

/// Calls `task` `times` times: emits the first and the median time, returns the last result.
pub fn timed<T>(prefix: &str, times: usize, mut task: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let mut walls = Vec::new();
    let mut cpus = Vec::new();
    let mut last = None;
    for _ in 0..times.max(1) {
        // What a caller drops is not the engine's time.
        drop(last.take());
        let watch = Stopwatch::start();
        let result = task()?;
        walls.push(watch.seconds() * 1e3);
        cpus.push(watch.cpu_seconds() * 1e3);
        last = Some(result);
    }
    emit(&format!("{prefix}first_ms"), walls[0]);
    emit(&format!("{prefix}ms"), median(&walls));
    emit(&format!("{prefix}cpu_ms"), median(&cpus));
    last.ok_or_else(|| "nothing was timed".into())
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this share of the values lies.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Emits the quantiles of call times, given in nanoseconds.
pub fn emit_calls(prefix: &str, nanos: &[f64]) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
        emit(&format!("{prefix}{name}_us"), quantile(nanos, share) / 1e3);
    }
}

/// All files under a directory, and the directories.
pub fn files(root: &Path) -> Outcome<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut directories) = (Vec::new(), vec![root.to_path_buf()]);
    let mut next = 0;
    while let Some(directory) = directories.get(next).cloned() {
        next += 1;
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    Ok((files, directories))
}

/// Syncs every file and directory: makes "durable" true of a peer that never syncs.
pub fn sync_tree(root: &Path) -> Outcome {
    let (files, directories) = files(root)?;
    for path in files.iter().chain(&directories) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// Takes the files of a directory out of the page cache.
pub fn drop_cache(root: &Path) -> Outcome {
    sync_tree(root)?;
    for path in files(root)?.0 {
        let file = File::open(path)?;
        // SAFETY: an open descriptor and no memory.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    Ok(())
}

/// Bytes of a directory: the smaller of length and allocation per tree, so that neither holes nor preallocation count.
pub fn disk_bytes(root: &Path) -> Outcome<f64> {
    let (mut apparent, mut allocated) = (0, 0);
    for path in files(root)?.0 {
        let metadata = std::fs::metadata(path)?;
        apparent += metadata.len();
        allocated += metadata.blocks() * 512;
    }
    Ok(apparent.min(allocated) as f64)
}

/// RssAnon and RssShmem of a process, in MiB: what the kernel cannot drop.
pub fn memory_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((kib("RssAnon:")? + kib("RssShmem:")?) / 1024.0)
}
