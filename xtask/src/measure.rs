//! What a process used, from `/proc`; options and scratch directories.
//!
//! Contract: memory is RssAnon + RssShmem, the part the kernel cannot drop; CPU is all threads of the process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Kernel ticks per second of `/proc/self/stat`, fixed on Linux.
const TICKS: f64 = 100.0;

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    field("RssAnon").unwrap_or(0) + field("RssShmem").unwrap_or(0)
}

/// Samples memory until it is asked for the peak.
pub struct PeakMemory {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl PeakMemory {
    pub fn start() -> Self {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (to, ended) = (Arc::clone(&peak), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                to.fetch_max(anonymous_kib(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { peak, stop, thread: Some(thread) }
    }

    /// The greatest sum seen, in MiB.
    pub fn finish(mut self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.peak.fetch_max(anonymous_kib(), Ordering::Relaxed);
        self.peak.load(Ordering::Relaxed) as f64 / 1024.0
    }
}

/// Seconds on a core so far: (user, system) of all threads of this process.
pub fn process_seconds() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0) / TICKS;
    (ticks(11), ticks(12))
}

/// Seconds on a core so far of the first thread.
pub fn main_thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok());
    nanos.unwrap_or(0.0) / 1e9
}

/// Bytes that files of a directory take on disk: (apparent, allocated).
pub fn disk_usage(root: &Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = (0, 0);
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else {
                sum.0 += metadata.len();
                sum.1 += metadata.blocks() * 512;
            }
        }
    }
    Ok(sum)
}

/// The value of `--name VALUE`.
pub fn option(args: &[String], name: &str) -> Option<String> {
    let at = args.iter().position(|a| a == name)?;
    args.get(at + 1).cloned()
}

/// The number that follows `--name`, or the default.
pub fn number(args: &[String], name: &str, default: u64) -> Result<u64, Box<dyn std::error::Error>> {
    match option(args, name) {
        None => Ok(default),
        Some(text) => Ok(text.replace('_', "").parse().map_err(|e| format!("{name} {text}: {e}"))?),
    }
}

/// A directory for the files of one chore; removed with it unless `--keep`.
pub struct Scratch {
    pub path: PathBuf,
    keep: bool,
}

impl Scratch {
    pub fn new(args: &[String], name: &str) -> std::io::Result<Self> {
        let parent = option(args, "--dir").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = parent.join(format!("mlrs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path, keep: args.iter().any(|a| a == "--keep") })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            println!("kept: {}", self.path.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Runs this program again in a fresh process and returns what it printed.
pub fn child(args: &[&str]) -> Result<String, Box<dyn std::error::Error>> {
    let output = Command::new(std::env::current_exe()?).args(args).output()?;
    if !output.status.success() {
        return Err(format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The middle one.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
