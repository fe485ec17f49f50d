//! `recover`, `repair`, `backup` and `merge`.

use std::io::Write as _;
use std::path::Path;

use super::args::{Backup, Merge, Recover, Repair};
use super::failure::{CORRUPTION, Failure, Outcome};
use super::json;
use super::output::{Output, bytes, count, for_terminal, plural};
use super::progress::Bar;
use super::resolve;
use super::table::{Cell, Column, Table};
use crate::Store;
use crate::store::report::{CopyReport, Finding, RecoverReport, RepairKind, RepairReport};

/// Moves points that a host's dead writers left into the log.
pub(super) fn recover(out: &mut Output<'_>, path: &Path, args: &Recover) -> Outcome {
    let store =
        if args.dry_run { resolve::open_to_read(path, false)? } else { resolve::open_to_write(path)? };
    let report = store.recover_host(&args.host, args.dry_run)?;
    store.close()?;
    if out.json {
        return Ok(out.json_line(&json::plain(&report))?);
    }
    writeln!(out.out, "{}", recover_text(&report))?;
    out.out.flush()?;
    for path in &report.alive {
        out.note(format_args!("{}: its writer lives and holds its lock; left alone", path.display()));
    }
    for path in &report.waiting {
        out.note(format_args!(
            "{}: waits for segments of its writer that were not copied, or are not seen, yet",
            path.display()
        ));
    }
    for path in &report.quarantined {
        out.note(format_args!("{}: some of it does not join; kept aside", path.display()));
    }
    for other in &report.elsewhere {
        let host = if other.host.is_empty() { "a host without a name" } else { &other.host };
        out.note(format_args!("{} of {host} left as they are", plural(other.files, "live file")));
    }
    Ok(())
}

fn recover_text(report: &RecoverReport) -> String {
    let verb = if report.dry_run { "would bring home" } else { "brought home" };
    format!(
        "{verb} {} points from {} of {}",
        count(report.points),
        plural(report.files, "live file"),
        for_terminal(&report.host)
    )
}

/// Copies what is sound, sets aside what is not.
pub(super) fn repair(out: &mut Output<'_>, path: &Path, args: &Repair) -> Outcome {
    let mut bar = Bar::new(out, "repairing");
    let report = Store::options().repair(path, args.dry_run, &mut |progress| bar.set(progress))?;
    bar.done();
    if out.json {
        out.json_line(&json::plain(&report))?;
    } else {
        if !report.actions.is_empty() {
            actions(&report).write(out)?;
        }
        if !report.lost.is_empty() {
            lost(&report).write(out)?;
        }
        if !report.actions.is_empty() || !out.quiet {
            writeln!(out.out, "{}", repair_text(&report))?;
        }
    }
    out.out.flush()?;
    if report.dry_run && !report.actions.is_empty() {
        return Err(Failure::Told(CORRUPTION));
    }
    if report.remaining.is_empty() && report.lost.is_empty() {
        return Ok(());
    }
    let (places, lost) = (report.remaining.len() as u64, report.lost.len() as u64);
    let text =
        format!("{} of damage remain, {} lost", plural(places, "place"), plural(lost, "range of points"));
    out.error(
        text,
        Some("`mlrs-db verify` names what remains; another copy of the store may have it: `mlrs-db merge`"),
    );
    Err(Failure::Told(CORRUPTION))
}

fn actions(report: &RepairReport) -> Table {
    let mut table =
        Table::new(vec![Column::text("action").whole(), Column::text("file").whole(), Column::text("why")]);
    for action in &report.actions {
        let word = match action.kind {
            RepairKind::Identity => "identity",
            RepairKind::Rewritten => "rewritten",
            RepairKind::SetAside => "set aside",
            RepairKind::Renamed => "renamed",
            RepairKind::Removed => "removed",
            RepairKind::Left => "left",
        };
        let file = action.path.to_string_lossy();
        table.row(vec![Cell::text(word), Cell::text(file), Cell::text(&action.text)]);
    }
    table.wrapped()
}

fn lost(report: &RepairReport) -> Table {
    let mut table = Table::new(vec![
        Column::text("lost_run").whole(),
        Column::text("key"),
        Column::number("first").whole(),
        Column::number("points").whole(),
    ]);
    for lost in &report.lost {
        table.row(vec![
            Cell::text(&lost.run),
            Cell::text(&lost.key),
            Cell::text(lost.first.to_string()),
            Cell::text((lost.end - lost.first).to_string()),
        ]);
    }
    table
}

fn repair_text(report: &RepairReport) -> String {
    if report.actions.is_empty() {
        return "nothing to repair".into();
    }
    format!(
        "{}: {} points, {} events and {} blobs of damaged segments {}",
        if report.dry_run { "nothing was touched" } else { "repaired" },
        count(report.points),
        count(report.events),
        count(report.blobs),
        if report.dry_run { "would be kept" } else { "were kept" }
    )
}

/// Copies the store while it is written.
pub(super) fn backup(out: &mut Output<'_>, path: &Path, args: &Backup) -> Outcome {
    let store = resolve::open_to_read(path, true)?;
    let mut bar = Bar::new(out, "copying");
    let report = store.backup(&args.dest, &mut |progress| bar.set(progress))?;
    bar.done();
    if out.json {
        out.json_line(&json::plain(&report))?;
    } else {
        let what = if report.is_incremental { "what was new" } else { "all" };
        writeln!(out.out, "copied {what}: {}", copy_text(&report.copied))?;
    }
    out.out.flush()?;
    tell_problems(out, &report.copied.problems, "copied as it is; `mlrs-db verify` says more")
}

fn copy_text(report: &CopyReport) -> String {
    format!(
        "{} ({} there already), {} points from {}, {} ({} there already), {}",
        plural(report.segments, "segment"),
        count(report.segments_known),
        count(report.live_points),
        plural(report.live_files, "live file"),
        plural(report.artifacts, "artifact"),
        count(report.artifacts_known),
        bytes(report.bytes)
    )
}

fn tell_problems(out: &mut Output<'_>, problems: &[Finding], advice: &str) -> Outcome {
    for problem in problems {
        out.error(format_args!("{} {}", problem.path.display(), problem.text), Some(advice));
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::Told(CORRUPTION)) }
}

/// Takes in other stores.
pub(super) fn merge(out: &mut Output<'_>, path: &Path, args: &Merge) -> Outcome {
    let store =
        if args.dry_run { resolve::open_to_read(path, false)? } else { resolve::open_to_write(path)? };
    let mut problems = Vec::new();
    for other in &args.others {
        let mut bar = Bar::new(out, "merging");
        let report = store.merge(other, args.dry_run, &mut |progress| bar.set(progress))?;
        bar.done();
        if out.json {
            let mut line = json::plain(&report);
            line["store"] = other.to_string_lossy().into();
            out.json_line(&line)?;
        } else {
            let verb = if args.dry_run { "would take in" } else { "took in" };
            let name = for_terminal(&other.to_string_lossy());
            writeln!(out.out, "{name}: {verb} {}", copy_text(&report.copied))?;
        }
        out.out.flush()?;
        for conflict in &report.conflicts {
            out.note(conflict);
        }
        problems.extend(report.copied.problems);
    }
    store.close()?;
    tell_problems(out, &problems, "left out: run `mlrs-db repair` on the other store, then merge again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::report::{LostPoints, RepairAction};

    #[test]
    fn reports_in_words() {
        let report = RecoverReport { host: "node7".into(), files: 1, points: 1_234, ..Default::default() };
        assert_eq!(recover_text(&report), "brought home 1,234 points from 1 live file of node7");
        assert_eq!(repair_text(&RepairReport::default()), "nothing to repair");
        let report = RepairReport {
            dry_run: true,
            actions: vec![RepairAction {
                kind: RepairKind::Rewritten,
                path: "log/a-0.seg".into(),
                text: "1 damaged place".into(),
            }],
            points: 5,
            lost: vec![LostPoints {
                run: "ab".into(),
                key: "loss".into(),
                origin: "cd".into(),
                first: 3,
                end: 7,
            }],
            ..Default::default()
        };
        let text = repair_text(&report);
        assert!(text.starts_with("nothing was touched: 5 points, 0 events"), "{text}");
        let mut plain = Vec::new();
        lost(&report).write_plain(&mut plain, false, false).unwrap();
        actions(&report).write_plain(&mut plain, false, false).unwrap();
        let plain = String::from_utf8(plain).unwrap();
        assert_eq!(plain, "ab\tloss\t3\t4\nrewritten\tlog/a-0.seg\t1 damaged place\n");
    }
}
