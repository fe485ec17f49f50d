//! Facts about this process, its host and the time, as file headers carry them.
//!
//! Contract: nothing here fails: a fact that cannot be had is empty, zero or "cannot tell".

#![allow(unsafe_code)]

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Identity of the running kernel boot, 16 bytes; zeros if unknown. Same boot: the page cache still holds what a
/// killed process wrote. Other boot: only what was synced is sure.
pub fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    parse_uuid(text.trim()).unwrap_or_default()
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u32> =
        text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0u8; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}

/// The host's name; empty if unknown.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Makes the allocator keep what many threads free in one or two places, where the next thread finds it. glibc's own
/// way, a place for each of up to eight threads a core, took twice the memory in a server whose calls wander between
/// threads. For programs, before they make threads; a library leaves its process alone. Nothing where there is no
/// glibc.
pub fn share_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator; no memory is passed.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// This process's id (in its own pid namespace).
pub fn pid() -> u32 {
    std::process::id()
}

/// The wall clock, milliseconds since 1970; 0 before that.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The wall clock as of the last timer tick (1-4 ms old), milliseconds since 1970: several times cheaper than
/// [`now_ms`], for stamping single points.
#[inline]
pub fn coarse_now_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    if unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut time) } != 0 {
        return now_ms();
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(millis)
}

/// When process `pid` started, in clock ticks since boot; with the pid it names a process even if pids are reused.
/// None if there is no such process here.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may itself hold spaces and parentheses; the state is the
    // third field, the start time the 22nd (proc(5)).
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether the process that had `pid` and `start_time` still runs on this host, in this pid namespace. A hint for
/// messages: a process in another container looks dead from here, so only a lock decides about recovery.
pub fn is_alive(pid: u32, started: u64) -> bool {
    start_time(pid) == Some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_finished_child_is_not() {
        let me = start_time(pid()).unwrap();
        assert!(is_alive(pid(), me));
        assert!(!is_alive(pid(), me + 1));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        assert!(is_alive(child.id(), started));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(child.id(), started));
    }

    #[test]
    fn the_boot_has_an_identity_and_the_clocks_agree() {
        assert_ne!(boot_id(), [0; 16]);
        assert_eq!(boot_id(), boot_id());
        assert!(!host_name().is_empty());
        // 2020; the coarse clock lags by a tick of the timer, not by an hour.
        assert!(now_ms() > 1_577_836_800_000);
        assert!(coarse_now_ms().abs_diff(now_ms()) < 3_600_000);
    }

    #[test]
    fn a_garbled_boot_id_is_unknown() {
        assert_eq!(parse_uuid("e3a1f0c2-0000-4000-8000-0000000000ff").unwrap()[0], 0xe3);
        for bad in ["", "e3", "g3a1f0c2-0000-4000-8000-0000000000ff"] {
            assert_eq!(parse_uuid(bad), None);
        }
    }
}
