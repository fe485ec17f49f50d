//! `tail`: the points of a run as they are logged.
//!
//! Contract: what was printed was flushed, so a reader of the pipe sees a point as soon as it is read; ends with the
//! run (and says so on stderr), with a closed pipe, or with ^C.

use std::io::{self, Write};
use std::time::Duration;

use super::args::Tail;
use super::failure::Outcome;
use super::output::{Output, Tone, exact, for_plain, for_terminal, paint};
use super::{json, resolve, time};
use crate::{Follow, FollowedPoint, RunLiveness, Store};

/// Longest wait for a point before other questions are asked.
const PATIENCE: Duration = Duration::from_millis(500);
/// Waits without a point after which it is asked whether the writer lives.
const QUIET_WAITS: u32 = 4;

/// Prints points of a run until it ends.
pub(super) fn tail(out: &mut Output<'_>, store: &Store, args: &Tail) -> Outcome {
    let run = resolve::run(out, store, &args.run)?;
    let mut follow = store.follow(&run.uid.to_string())?.interval(Duration::from_millis(args.interval));
    if !args.keys.is_empty() {
        follow = follow.keys(args.keys.iter().cloned());
    }
    follow = if args.from_start { follow.from_start() } else { follow.from_last(args.last) };
    write_header(out)?;
    if args.no_follow {
        loop {
            let points = follow.next_batch(Duration::ZERO)?;
            if points.is_empty() {
                return Ok(());
            }
            write_points(out, &points)?;
        }
    }
    until_over(out, store, &mut follow)
}

fn until_over(out: &mut Output<'_>, store: &Store, follow: &mut Follow) -> Outcome {
    let (mut quiet, mut told) = (0, false);
    out.out.flush()?;
    loop {
        let points = follow.next_batch(PATIENCE)?;
        if !points.is_empty() {
            write_points(out, &points)?;
            out.out.flush()?;
            (quiet, told) = (0, false);
            continue;
        }
        if follow.is_over()? {
            let status = store.get_run(follow.run_id()).map_or("gone", |run| run.status.as_str());
            out.note(format_args!("the run has ended: {status}"));
            return Ok(());
        }
        quiet += 1;
        if quiet >= QUIET_WAITS && !told {
            quiet = 0;
            if let [RunLiveness::Gone { since_ms }] = store.run_liveness(&[follow.run_id()])?[..] {
                out.note(format_args!(
                    "the run is still called running, but its writer is gone since {}; waiting for another \
                     (`mlrs-db runs reap` marks such runs as failed)",
                    time::iso(since_ms)
                ));
                told = true;
            }
        }
    }
}

fn write_header(out: &mut Output<'_>) -> io::Result<()> {
    match (out.json, out.terminal) {
        (true, _) => Ok(()),
        (_, Some(_)) => {
            let heading = format!("{:>12}  {:<24}  {:<20}  VALUE", "STEP", "TIME", "KEY");
            writeln!(out.out, "{}", paint(out.colour, Tone::Strong, heading))
        }
        _ => out.out.write_all(b"step\ttimestamp\tkey\tvalue\n"),
    }
}

fn write_points(out: &mut Output<'_>, points: &[FollowedPoint]) -> io::Result<()> {
    for point in points {
        if out.json {
            out.json_line(&json::followed(point))?;
            continue;
        }
        let (step, at, value) =
            (point.point.step, time::iso(point.point.timestamp_ms), exact(point.point.value));
        match out.terminal {
            Some(_) => writeln!(out.out, "{step:>12}  {at:<24}  {:<20}  {value}", for_terminal(&point.key))?,
            None => writeln!(out.out, "{step}\t{at}\t{}\t{value}", for_plain(&point.key))?,
        }
    }
    Ok(())
}
