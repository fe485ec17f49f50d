//! `import` and `export`.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use super::args::{Artifacts, Export, Import};
use super::failure::Outcome;
use super::output::{Output, Tone, bytes, count, for_terminal, paint, plural};
use super::progress::{Bar, rate};
use super::table::{Cell, Table};
use super::{json, resolve, time};
use crate::{ArtifactMode, ExportOptions, ExportReport, ImportOptions, ImportReport, Problem, Store};

/// Problems that are printed without `--verbose`.
const PROBLEMS_SHOWN: usize = 20;

/// Takes a tree in; the store is made if there is none.
pub(super) fn import(out: &mut Output<'_>, path: &Path, args: &Import) -> Outcome {
    let scratch = Scratch::instead_of(path, args.dry_run);
    let store = Store::options().create(true).open(scratch.as_ref().map_or(path, |scratch| &scratch.0))?;
    let options = ImportOptions {
        tree: args.tree.clone(),
        strict: args.strict,
        dry_run: args.dry_run,
        replace: args.replace,
        artifacts: match args.artifacts {
            Artifacts::Copy => ArtifactMode::Copy,
            Artifacts::Link => ArtifactMode::Link,
            Artifacts::Reference => ArtifactMode::Reference,
            Artifacts::Skip => ArtifactMode::Skip,
        },
        threads: args.threads,
    };
    let mut bar = Bar::new(out, "importing");
    let report = store.import(&args.source, &options, &mut |progress| bar.set(progress))?;
    bar.done();
    store.close()?;
    write_problems(out, &report.problems);
    if out.json {
        return Ok(out.json_line(&json::import(&report))?);
    }
    import_table(&report).write(out)?;
    after(out, report.points, bar.elapsed())?;
    Ok(())
}

/// A store that is gone with the process: a dry run must not leave one behind where there was none.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn instead_of(path: &Path, dry_run: bool) -> Option<Self> {
        (dry_run && !path.exists())
            .then(|| Self(std::env::temp_dir().join(format!("mlrs-db-dry-run-{}", std::process::id()))))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes the store as a tree.
pub(super) fn export(out: &mut Output<'_>, path: &Path, args: &Export) -> Outcome {
    let store = resolve::open_to_read(path)?;
    let options = ExportOptions {
        tree: args.tree.clone(),
        rewrite_uris: args.rewrite_uris.clone(),
        overwrite: args.overwrite,
    };
    let mut bar = Bar::new(out, "exporting");
    let report = store.export(&args.destination, &options, &mut |progress| bar.set(progress))?;
    bar.done();
    if !report.left_out.is_empty() {
        let what = plural(report.left_out.len() as u64, "entity").replace("entitys", "entities");
        out.warn(format_args!("{what} with no place in the mlruns layout left out:"));
        report.left_out.iter().for_each(|left| out.note(format_args!("  {}", for_terminal(left))));
    }
    if out.json {
        return Ok(out.json_line(&json::export(&report))?);
    }
    export_table(&report).write(out)?;
    after(out, report.points, bar.elapsed())?;
    Ok(())
}

/// How long it took, under `--verbose`.
fn after(out: &mut Output<'_>, points: u64, elapsed: Duration) -> io::Result<()> {
    out.out.flush()?;
    if out.verbose {
        let took = time::span(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX));
        out.note(format_args!("{} in {took}", rate(points, elapsed)));
    }
    Ok(())
}

fn write_problems(out: &Output<'_>, problems: &[Problem]) {
    let shown = if out.verbose { problems.len() } else { problems.len().min(PROBLEMS_SHOWN) };
    for problem in problems.iter().take(shown) {
        out.note(problem_line(problem, out.colour_stderr));
    }
    if shown < problems.len() {
        out.note(format_args!("and {} more; --verbose lists all", count((problems.len() - shown) as u64)));
    }
}

/// As compilers write it, so that editors find the place: `path:line: what`.
fn problem_line(problem: &Problem, colour: bool) -> String {
    let path = for_terminal(&problem.path.to_string_lossy());
    let place = match problem.line {
        Some(line) => format!("{path}:{line}:"),
        None => format!("{path}:"),
    };
    format!("{} {}", paint(colour, Tone::Strong, place), for_terminal(&problem.text))
}

fn import_table(report: &ImportReport) -> Table {
    let mut table = Table::pairs();
    table.pair("experiments", Cell::count(report.experiments));
    table.pair("runs", Cell::count(report.runs));
    table.pair("points", Cell::count(report.points));
    table.pair("bytes_in", Cell::bytes(report.bytes_in));
    table.pair(
        "bytes_stored",
        Cell::both(ratio(report.bytes_stored, report.bytes_in), report.bytes_stored.to_string()),
    );
    table.pair("verbatim_files", Cell::count(report.verbatim_files));
    let tone = if report.problems.is_empty() { Tone::Good } else { Tone::Warn };
    table.pair("problems", Cell::count(report.problems.len() as u64).toned(tone));
    if report.dry_run {
        table.pair("dry_run", Cell::both("yes: nothing was stored", "true"));
    }
    table
}

/// Bytes, and how they compare to what they came from.
fn ratio(stored: u64, read: u64) -> String {
    if stored == 0 || read == 0 {
        return bytes(stored);
    }
    format!("{} ({:.1} %)", bytes(stored), stored as f64 / read as f64 * 100.0)
}

fn export_table(report: &ExportReport) -> Table {
    let mut table = Table::pairs();
    table.pair("experiments", Cell::count(report.experiments));
    table.pair("runs", Cell::count(report.runs));
    table.pair("points", Cell::count(report.points));
    table.pair("bytes_out", Cell::bytes(report.bytes_out));
    table.pair("left_out", Cell::count(report.left_out.len() as u64));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_sums_up() {
        let report = ImportReport {
            experiments: 2,
            runs: 1_000,
            points: 5_000_000,
            bytes_in: 200 << 20,
            bytes_stored: 10 << 20,
            dry_run: true,
            ..ImportReport::default()
        };
        assert_eq!(
            import_table(&report).fitted(80, false),
            "experiments     2\nruns            1,000\npoints          5,000,000\nbytes_in        200.0 MiB\n\
             bytes_stored    10.0 MiB (5.0 %)\nverbatim_files  0\nproblems        0\n\
             dry_run         yes: nothing was stored"
        );
    }

    #[test]
    fn problems_name_file_and_line() {
        let problem =
            Problem { path: "0/ab/metrics/loss".into(), line: Some(7), text: "no number: 'x\x1b'".into() };
        assert_eq!(problem_line(&problem, false), "0/ab/metrics/loss:7: no number: 'x\\u{1b}'");
        let problem = Problem { line: None, ..problem };
        assert!(problem_line(&problem, false).starts_with("0/ab/metrics/loss: no"));
    }

    #[test]
    fn a_dry_run_without_a_store_uses_a_scratch_one() {
        let here = tempfile::tempdir().unwrap();
        assert!(Scratch::instead_of(here.path(), true).is_none());
        let missing = here.path().join("none");
        assert!(Scratch::instead_of(&missing, false).is_none());
        let scratch = Scratch::instead_of(&missing, true).unwrap();
        let path = scratch.0.clone();
        std::fs::create_dir_all(&path).unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
