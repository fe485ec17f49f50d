//! Other processes: this program again, told by the environment what to do, and what they say.
//!
//! Contract: a child says something by one `write` on its standard error, so a killed one has said a line whole or not
//! at all, and a forked one takes no lock for it. `# name number` is a counter, `= name text` a word; anything else, such
//! as a panic, is noise that fails the test. A child dies with its parent. Included by path: the program has a test named
//! `child_process` that does what [`called`] says.
#![allow(dead_code, unsafe_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const WHAT: &str = "MLRS_PROCESSES_CHILD";
const ARGS: &str = "MLRS_PROCESSES_ARGS";
const SEPARATOR: char = '\u{1f}';

/// What this process was started for, if it is a child.
pub fn called() -> Option<(String, Vec<String>)> {
    let what = std::env::var(WHAT).ok()?;
    let args = std::env::var(ARGS).unwrap_or_default();
    Some((what, args.split(SEPARATOR).map(str::to_owned).collect()))
}

pub fn die_with_parent() {
    // SAFETY: sets a property of this process; no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

fn say(line: &str) {
    // SAFETY: `line` is readable for its length. One write of less than PIPE_BUF bytes arrives whole or not at all.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

pub fn say_count(name: &str, number: u64) {
    say(&format!("# {name} {number}\n"));
}

pub fn say_word(name: &str, text: &str) {
    say(&format!("= {name} {}\n", text.replace('\n', " ")));
}

/// What a child said so far.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub counts: BTreeMap<String, u64>,
    pub words: BTreeMap<String, String>,
    pub noise: Vec<String>,
}

impl Said {
    fn take(&mut self, line: &str) {
        let mut parts = line.splitn(3, ' ');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("#"), Some(name), Some(number)) if number.parse::<u64>().is_ok() => {
                let number = number.parse().unwrap();
                match self.counts.get_mut(name) {
                    Some(count) => *count = number,
                    None => drop(self.counts.insert(name.to_owned(), number)),
                }
            }
            (Some("="), Some(name), Some(text)) => drop(self.words.insert(name.to_owned(), text.to_owned())),
            _ => self.noise.push(line.to_owned()),
        }
    }

    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

pub struct Child {
    process: std::process::Child,
    said: Arc<Mutex<Said>>,
    reader: Option<JoinHandle<()>>,
    what: String,
}

/// The command that runs this program as a child.
pub fn command(what: &str, args: &[String]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    as_child(&mut command, what, args);
    command
}

/// Makes `command`, which ends in running this program, run it as a child.
pub fn as_child(command: &mut Command, what: &str, args: &[String]) {
    command
        .args(["child_process", "--exact", "--test-threads=1", "--nocapture"])
        .env(WHAT, what)
        .env(ARGS, args.join(&SEPARATOR.to_string()))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
}

impl Child {
    pub fn spawn(what: &str, args: &[String]) -> Self {
        Self::run(command(what, args), what)
    }

    pub fn run(mut command: Command, what: &str) -> Self {
        let mut process = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let said = Arc::new(Mutex::new(Said::default()));
        let (lines, to) = (BufReader::new(process.stderr.take().unwrap()), Arc::clone(&said));
        let reader = std::thread::spawn(move || {
            for line in lines.lines() {
                let Ok(line) = line else { return };
                to.lock().unwrap().take(&line);
            }
        });
        Self { process, said, reader: Some(reader), what: what.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it said so far; it says no more while this is held.
    pub fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that was not waited for, so the pid is its own.
        let sent = unsafe { libc::kill(self.process.id() as i32, signal) };
        assert_eq!(sent, 0, "signal {signal} to {}: {}", self.what, std::io::Error::last_os_error());
    }

    pub fn wait_until(&self, limit: Duration, what: &str, done: impl Fn(&Said) -> bool) {
        let deadline = Instant::now() + limit;
        loop {
            {
                let said = self.said();
                assert_eq!(said.noise, [] as [String; 0], "{} (waiting for {what})", self.what);
                if done(&said) {
                    return;
                }
                assert!(
                    Instant::now() < deadline,
                    "{}: {what} took longer than {limit:?}: {said:?}",
                    self.what
                );
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    fn reap(mut self) -> (ExitStatus, Said) {
        let status = self.process.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let said = self.said.lock().unwrap().clone();
        assert_eq!(said.noise, [] as [String; 0], "{}: {status}", self.what);
        (status, said)
    }

    /// Kills it; returns all it said. Its own children keep the pipe open, so it must have none.
    pub fn kill(mut self) -> Said {
        self.process.kill().unwrap();
        let what = self.what.clone();
        let (status, said) = self.reap();
        assert_eq!(
            status.signal(),
            Some(libc::SIGKILL),
            "{what} ended by itself: {status}; it said {said:?}"
        );
        said
    }

    /// Kills it alone; children of its own go on, and what they say is heard.
    pub fn kill_alone(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// After [`Self::kill_alone`]: waits until its children are gone, too.
    pub fn ended(self) -> Said {
        self.reap().1
    }

    /// Waits for a good end.
    pub fn finish(mut self, limit: Duration) -> Said {
        let deadline = Instant::now() + limit;
        while self.process.try_wait().unwrap().is_none() {
            if Instant::now() >= deadline {
                let said = self.said.lock().unwrap().clone();
                let _ = self.process.kill();
                let _ = self.process.wait();
                panic!("{} hangs: no end after {limit:?}; it said {said:?}", self.what);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let what = self.what.clone();
        let (status, said) = self.reap();
        assert!(status.success(), "{what}: {status}; it said {said:?}");
        said
    }
}

/// Ends the whole program, loudly, if it is not dropped in time: what hangs cannot be unwound.
pub struct Watchdog(Arc<Mutex<bool>>);

impl Watchdog {
    pub fn new(what: impl Into<String>, limit: Duration) -> Self {
        let (over, what) = (Arc::new(Mutex::new(false)), what.into());
        let seen = Arc::clone(&over);
        std::thread::spawn(move || {
            let deadline = Instant::now() + limit;
            while Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50).min(limit));
                if *seen.lock().unwrap() {
                    return;
                }
            }
            eprintln!("{what} hangs: no end after {limit:?}");
            std::process::abort();
        });
        Self(over)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = true;
    }
}
