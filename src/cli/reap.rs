//! `runs reap`: runs whose writer is gone become failed ones.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::args::RunsReap;
use super::failure::Outcome;
use super::json;
use super::output::{Output, plural};
use super::resolve;
use super::run_view::short_id;
use super::table::{Cell, Column, Table};

/// Marks the runs, or tells which would be.
pub(super) fn reap(out: &mut Output<'_>, path: &Path, args: &RunsReap) -> Outcome {
    let store =
        if args.dry_run { resolve::open_to_read(path, false)? } else { resolve::open_to_write(path)? };
    let reaped = store.reap_runs(Duration::from_millis(args.after), args.dry_run)?;
    store.close()?;
    if out.json {
        return Ok(reaped.iter().try_for_each(|run| out.json_line(&json::plain(run)))?);
    }
    let mut table =
        Table::new(vec![Column::text("run_id").whole(), Column::text("name"), Column::text("ended")]);
    for run in &reaped {
        let ended = Cell::age(Some(run.end_ms), out.now_ms);
        table.row(vec![Cell::both(short_id(&run.id), &run.id), Cell::text(&run.name), ended]);
    }
    if !reaped.is_empty() || out.terminal.is_none() {
        table.write(out)?;
    }
    out.out.flush()?;
    let runs = plural(reaped.len() as u64, "run");
    out.note(match args.dry_run {
        true => format!("would mark {runs} as FAILED"),
        false => format!("marked {runs} as FAILED"),
    });
    Ok(())
}
