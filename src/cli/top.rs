//! `top`: who writes, how much, and how far the disk is behind.
//!
//! Contract: on a terminal the same screen again and again until ^C; elsewhere one answer. Rates are what two looks
//! differ by.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::args::Top;
use super::failure::Outcome;
use super::output::{Output, Tone, paint, plural};
use super::run_view::short_id;
use super::table::{Cell, Column, Table};
use super::{json, time};
use crate::{Store, WriterInfo, WriterLiveness};

/// Between the two looks of a single answer.
const ONCE: Duration = Duration::from_secs(1);
/// Home, and clear to the end of the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the writers of the store.
pub(super) fn top(out: &mut Output<'_>, store: &Store, args: &Top) -> Outcome {
    let interval = Duration::from_millis(args.interval);
    let mut before = Look::take(store)?;
    if args.once || out.json || out.terminal.is_none() {
        if !before.writers.is_empty() {
            std::thread::sleep(ONCE.min(interval));
        }
        return print(out, &before, &Look::take(store)?);
    }
    let mut now = before.clone();
    loop {
        out.now_ms = time::now_ms();
        out.out.write_all(CLEAR.as_bytes())?;
        let heading = format!("{}   {}   ^C ends", store.path().display(), time::iso(out.now_ms));
        writeln!(out.out, "{}\n", paint(out.colour, Tone::Strong, heading))?;
        print(out, &before, &now)?;
        out.out.flush()?;
        std::thread::sleep(interval);
        before = std::mem::replace(&mut now, Look::take(store)?);
    }
}

/// The writers at one moment.
#[derive(Clone)]
struct Look {
    at: Instant,
    writers: Vec<WriterInfo>,
}

impl Look {
    fn take(store: &Store) -> Outcome<Self> {
        Ok(Self { at: Instant::now(), writers: store.writers()? })
    }

    /// Points a second of each writer since a look; none for one that was not there.
    fn rates(&self, before: &Self) -> HashMap<&str, f64> {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        let known: HashMap<&str, u64> = before.writers.iter().map(|w| (w.id.as_str(), w.points)).collect();
        let rate = |writer: &WriterInfo| {
            let points = writer.points.saturating_sub(*known.get(writer.id.as_str())?);
            (seconds > 0.0).then_some(points as f64 / seconds)
        };
        self.writers.iter().filter_map(|writer| Some((writer.id.as_str(), rate(writer)?))).collect()
    }
}

fn print(out: &mut Output<'_>, before: &Look, now: &Look) -> Outcome {
    let rates = now.rates(before);
    if out.json {
        for writer in &now.writers {
            out.json_line(&json::writer(writer, rates.get(writer.id.as_str()).copied()))?;
        }
        return Ok(());
    }
    if now.writers.is_empty() {
        out.note("nobody writes");
    }
    Ok(table(&now.writers, &rates, out.now_ms).write(out)?)
}

fn table(writers: &[WriterInfo], rates: &HashMap<&str, f64>, now_ms: i64) -> Table {
    let mut table = Table::new(vec![
        Column::text("writer").whole(),
        Column::text("state"),
        Column::number("pid"),
        Column::text("host"),
        Column::text("since"),
        Column::number("points"),
        Column::number("points/s"),
        Column::number("waiting"),
        Column::number("bytes"),
        Column::text("newest"),
        Column::text("run"),
    ]);
    for writer in writers {
        let rate = rates.get(writer.id.as_str());
        let runs = match writer.runs.as_slice() {
            [] => Cell::default(),
            [run] => Cell::both(short_id(run), run),
            [run, rest @ ..] => {
                let more = format!("{} and {}", short_id(run), plural(rest.len() as u64, "other"));
                Cell::both(more, writer.runs.join(","))
            }
        };
        table.row(vec![
            Cell::both(short_id(&writer.id), &writer.id),
            match writer.liveness {
                WriterLiveness::Alive => Cell::text("alive").toned(Tone::Good),
                WriterLiveness::Gone => Cell::text("gone").toned(Tone::Bad),
                WriterLiveness::Unknown => Cell::text("not seen from here").toned(Tone::Warn),
            },
            writer.pid.map_or_else(Cell::default, |pid| Cell::text(pid.to_string())),
            writer.host.as_ref().map_or_else(Cell::default, Cell::text),
            Cell::age(i64::try_from(writer.since_ms).ok(), now_ms),
            Cell::count(writer.points),
            rate.map_or_else(Cell::default, |rate| Cell::both(format!("{rate:.0}"), format!("{rate:.3}"))),
            Cell::count(writer.points_waiting),
            Cell::bytes(writer.bytes),
            Cell::age(writer.newest_ms, now_ms),
            runs,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(points: u64, liveness: WriterLiveness) -> WriterInfo {
        WriterInfo {
            id: "3f2a9c00112233445566778899aabbcc".into(),
            liveness,
            pid: Some(4711),
            host: Some("node7".into()),
            boot: None,
            since_ms: 1_000,
            newest_ms: Some(59_000),
            points,
            points_waiting: 7,
            bytes: 1536,
            runs: vec!["a".into(), "b".into(), "c".into()],
        }
    }

    #[test]
    fn rates_are_what_two_looks_differ_by() {
        let at = Instant::now();
        let before = Look { at, writers: vec![writer(1_000, WriterLiveness::Alive)] };
        let after =
            Look { at: at + Duration::from_secs(2), writers: vec![writer(5_000, WriterLiveness::Alive)] };
        assert_eq!(after.rates(&before).values().copied().collect::<Vec<_>>(), [2_000.0]);
        let none = Look { at, writers: Vec::new() };
        assert!(after.rates(&none).is_empty(), "one look says nothing of a rate");
        let text = table(&after.writers, &after.rates(&before), 60_000).fitted(160, false);
        for part in
            ["3f2a9c001122  alive", "4711  node7", "5,000", "2000", "1.5 KiB", "1 s ago", "a and 2 others"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
