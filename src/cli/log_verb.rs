//! `log`: points from standard input into a run.
//!
//! Contract: every line is handed to the engine before the next one is read, so it survives a kill and others see it;
//! a refused line is reported with its number and costs nothing but itself.

use std::io::{self, BufRead, Write as _};
use std::path::Path;

use serde_json::json;

use super::args::Log;
use super::failure::{FAILURE, Failure, Outcome};
use super::log_input::{Lines, Next, Parser, Refusal};
use super::output::{Output, for_terminal, plural};
use super::progress::Bar;
use super::{resolve, time};
use crate::model::RunStatus;
use crate::store::report::Progress;
use crate::{Error, Run, RunOptions, Series, Store};

/// Refused lines that are printed without `--verbose`.
const REFUSALS_SHOWN: u64 = 20;
/// How often a call that found the engine busy is made again; each waits for a while by itself.
const ATTEMPTS_MAX: u32 = 10;

/// Logs what comes in.
pub(super) fn log(out: &mut Output<'_>, path: &Path, args: &Log, input: impl BufRead) -> Outcome {
    let store = resolve::open_to_write(path)?;
    let (run, next_step) = open_run(out, &store, args)?;
    // Who reads the id may be gone already; the points are worth logging all the same.
    let told = tell_run(out, run.id());
    if !matches!(&told, Err(error) if error.kind() == io::ErrorKind::BrokenPipe) {
        told?;
    }
    let mut tally = Tally::default();
    let outcome = copy(out, &run, next_step, args, input, &mut tally);
    let status = match (&outcome, args.status.run_status()) {
        (Err(_), _) => Some(RunStatus::Failed),
        (Ok(()), status) => status,
    };
    if let Some(status) = status {
        let finished = run.finish(status);
        // The first failure is the one to report.
        if outcome.is_ok() {
            finished?;
        }
    }
    outcome?;
    store.close()?;
    out.note(tally.text());
    if tally.refused > 0 { Err(Failure::Told(FAILURE)) } else { Ok(()) }
}

/// The run to log to, and the step of a line that has none.
fn open_run(out: &Output<'_>, store: &Store, args: &Log) -> Outcome<(Run, i64)> {
    let Some(id) = &args.run_id else {
        let mut options = RunOptions::new();
        if let Some(name) = &args.run_name {
            options = options.name(name.as_str());
        }
        for (key, value) in &args.params {
            options = options.param(key.as_str(), value.as_str());
        }
        for (key, value) in &args.tags {
            options = options.tag(key.as_str(), value.as_str());
        }
        return Ok((store.experiment(&args.experiment)?.start_run(options)?, 0));
    };
    let found = resolve::run(out, store, id)?.uid.to_string();
    let last_step = store.metrics(&found)?.iter().map(|metric| metric.last_step).max();
    let run = store.run(&found)?;
    for (key, value) in &args.params {
        run.log_param(key, value)?;
    }
    for (key, value) in &args.tags {
        run.set_tag(key, value)?;
    }
    Ok((run, last_step.map_or(0, |step| step.saturating_add(1))))
}

/// The id comes first and at once, so that whoever started this can look while it runs.
fn tell_run(out: &mut Output<'_>, id: &str) -> io::Result<()> {
    if out.json {
        out.json_line(&json!({"run_id": id}))?;
    } else {
        writeln!(out.out, "{id}")?;
    }
    out.out.flush()
}

/// What happened to the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    lines: u64,
    points: u64,
    refused: u64,
}

impl Tally {
    fn text(&self) -> String {
        let refused = match self.refused {
            0 => String::new(),
            refused => format!("; {} refused", plural(refused, "line")),
        };
        format!("logged {} from {}{refused}", plural(self.points, "point"), plural(self.lines, "line"))
    }
}

fn copy(
    out: &Output<'_>,
    run: &Run,
    mut next_step: i64,
    args: &Log,
    input: impl BufRead,
    tally: &mut Tally,
) -> Outcome {
    let mut lines = Lines::new(input);
    let mut parser = Parser::new(args.format, &args.step, &args.timestamp);
    let mut series: Vec<Option<Series>> = Vec::new();
    let mut bar = Bar::new(out, "logging");
    let mut bytes = 0;
    loop {
        let next = lines.next().map_err(|source| Error::Io {
            action: "read",
            path: "standard input".into(),
            source,
        })?;
        let number = lines.number();
        let mut refuse = |why: &str| {
            tally.refused += 1;
            if out.verbose || tally.refused <= REFUSALS_SHOWN {
                bar.above(|| out.warn(format_args!("line {number}: {}", for_terminal(why))));
            } else if tally.refused == REFUSALS_SHOWN + 1 {
                bar.above(|| out.warn("more lines are refused; --verbose lists all"));
            }
        };
        match next {
            Next::End => return Ok(()),
            Next::TooLong => {
                refuse("longer than a line may be (16 MiB)");
                continue;
            }
            Next::Line => {}
        }
        bytes += lines.line().len() as u64;
        match parser.parse(lines.line()) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(Refusal::Line(why)) => {
                refuse(&why);
                continue;
            }
            Err(Refusal::Header(why)) => {
                refuse(&why);
                return Ok(());
            }
        }
        let record = parser.record();
        match resolve_keys(run, &parser, &mut series) {
            // A key the engine does not take; the other lines may be without it.
            Err(Error::InvalidArgument(why)) => {
                refuse(&why);
                continue;
            }
            other => other?,
        }
        let step = record.step.unwrap_or(next_step);
        next_step = step.saturating_add(1);
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(time::now_ms);
        for &(place, value) in &record.values {
            if let Some(Some(series)) = series.get(place) {
                patiently(|| series.log_at(step, timestamp_ms, value))?;
            }
        }
        tally.lines += 1;
        tally.points += record.values.len() as u64;
        // Drawing costs more than logging: now and then is enough.
        if tally.lines.is_multiple_of(256) {
            bar.set(&Progress { bytes_done: bytes, points: tally.points, ..Progress::default() });
        }
    }
}

/// All series of a line before its first point is logged: a line goes in whole or not at all.
fn resolve_keys(run: &Run, parser: &Parser, series: &mut Vec<Option<Series>>) -> Result<(), Error> {
    for &(place, _) in &parser.record().values {
        if series.len() <= place {
            series.resize_with(place + 1, || None);
        }
        if let Some(slot @ None) = series.get_mut(place) {
            *slot = Some(run.series(parser.key(place))?);
        }
    }
    Ok(())
}

/// A pipe has nobody to tell "try again": a disk that cannot keep up slows it down instead.
fn patiently(mut call: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    let mut attempts = 1;
    loop {
        match call() {
            Err(Error::Busy { .. }) if attempts < ATTEMPTS_MAX => attempts += 1,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_says_what_was_refused() {
        let tally = Tally { lines: 400, points: 1_200, refused: 2 };
        assert_eq!(tally.text(), "logged 1,200 points from 400 lines; 2 lines refused");
        assert_eq!(Tally { lines: 1, points: 1, refused: 0 }.text(), "logged 1 point from 1 line");
    }

    #[test]
    fn busy_is_tried_again_but_not_for_ever() {
        let busy = || Error::Busy { what: "the log".into(), holder: "the disk".into() };
        let mut calls = 0;
        let outcome = patiently(|| {
            calls += 1;
            if calls < 3 { Err(busy()) } else { Ok(()) }
        });
        assert!(outcome.is_ok() && calls == 3);
        let mut calls = 0;
        let outcome = patiently(|| {
            calls += 1;
            Err(busy())
        });
        assert!(matches!(outcome, Err(Error::Busy { .. })) && calls == ATTEMPTS_MAX);
    }
}
