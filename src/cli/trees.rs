//! `import` and `export`.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use super::args::{Artifacts, Export, Import};
use super::failure::{Failure, NOT_FOUND, Outcome};
use super::output::{Output, Tone, bytes, count, for_terminal, paint, plural, shell_quoted};
use super::progress::{Bar, rate};
use super::table::{Cell, Table};
use super::{json, resolve, time};
use crate::id::Uid;
use crate::mlruns::{
    ArtifactMode, ExportOptions, ExportReport, ImportOptions, ImportReport, Problem, Unexportable, check_tree,
};
use crate::{Error, Store};

/// Problems that are printed without `--verbose`.
const PROBLEMS_SHOWN: usize = 20;
/// Trees that a hint names.
const TREES_SHOWN: usize = 10;

/// Takes a tree in; the store is made if there is none.
pub(super) fn import(out: &mut Output<'_>, path: &Path, args: &Import) -> Outcome {
    // Before the store is opened, which may make it: a slip in SRC must not leave an empty store behind.
    check_tree(&args.source).map_err(no_source)?;
    let mut options = ImportOptions {
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
    };
    let mut bar = Bar::new(out, "importing");
    let is_new = !path.exists() || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if is_new && args.strict && !args.dry_run {
        // Nor must a tree with problems. What was looked at here is not looked at twice.
        let look = ImportOptions { dry_run: true, ..options.clone() };
        let scratch = Scratch::new()?;
        let store = Store::options().create(true).open(&scratch.0)?;
        store.import(&args.source, &look, &mut |progress| bar.set_tree(progress))?;
        options.strict = false;
    }
    let scratch = if is_new && args.dry_run { Some(Scratch::new()?) } else { None };
    let path = scratch.as_ref().map_or(path, |scratch| &scratch.0);
    let store = Store::options().create(true).open(path)?;
    let bytes_before = stored(&store)?;
    let report = store.import(&args.source, &options, &mut |progress| bar.set_tree(progress))?;
    bar.done();
    store.close()?;
    if args.strict && report.problems_total > 0 {
        // The tree changed between the two looks.
        return Err(Error::StrictImport { path: args.source.clone(), problems: report.problems_total }.into());
    }
    // Closing seals: only then is it known what the tree costs.
    let bytes_stored = stored(&resolve::open_to_read(path, false)?)?.saturating_sub(bytes_before);
    write_problems(out, &report);
    if out.json {
        return Ok(out.json_line(&json::import(&report, bytes_stored, args.dry_run))?);
    }
    import_table(&report, bytes_stored, args.dry_run).write(out)?;
    after(out, report.points, bar.elapsed())?;
    Ok(())
}

/// A tree that is not there is what was asked for and not found; any other file that is missing is a failure.
fn no_source(error: Error) -> Failure {
    match error {
        Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            let error = Error::NotFound { what: "directory", name: path.display().to_string() };
            let advice =
                "name the directory that MLflow wrote (mlruns, by default where the training ran)".into();
            Failure::Advised { error, advice, code: NOT_FOUND }
        }
        error => error.into(),
    }
}

/// The place of a store that only looks: a dry run must not leave one behind where there was none.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Outcome<Self> {
        let random = Uid::random()?;
        Ok(Self(std::env::temp_dir().join(format!("mlrs-db-dry-run-{random}"))))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes the store as a tree.
pub(super) fn export(out: &mut Output<'_>, store: &Store, args: &Export) -> Outcome {
    let options = ExportOptions {
        tree: args.tree.clone(),
        rewrite_uris: args.rewrite_uris.clone(),
        skip_artifacts: args.skip_artifacts,
        overwrite: args.overwrite,
    };
    let mut bar = Bar::new(out, "exporting");
    let report = store
        .export(&args.destination, &options, &mut |progress| bar.set_tree(progress))
        .map_err(|error| Failure::from(error).advised(|error| export_advice(store, error)))?;
    bar.done();
    // Without all of its trees a hint is not worth a failure.
    let trees = if args.tree.is_none() { store.tree_names().unwrap_or_default() } else { Vec::new() };
    write_left_out(out, &report, &trees);
    if out.json {
        return Ok(out.json_line(&json::export(&report))?);
    }
    export_table(&report).write(out)?;
    after(out, report.points, bar.elapsed())?;
    Ok(())
}

/// What to do where an export is refused.
fn export_advice(store: &Store, error: &Error) -> Option<String> {
    match error {
        Error::AlreadyExists { .. } => Some("--overwrite replaces what is in it".into()),
        Error::NotFound { what: "tree", .. } => Some(match store.tree_names().ok()?.as_slice() {
            [] => "no tree was imported into this store; leave out --tree".into(),
            names => format!("the store has: {}", tree_options(names)),
        }),
        _ => None,
    }
}

/// How to ask for each tree.
fn tree_options(names: &[String]) -> String {
    let mut options: Vec<String> =
        names.iter().take(TREES_SHOWN).map(|name| format!("--tree {}", shell_quoted(name))).collect();
    if names.len() > TREES_SHOWN {
        options.push(format!("and {} more", names.len() - TREES_SHOWN));
    }
    options.join(", ")
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

/// Bytes of what a store holds; the index can be made again, and live files are larger than what is in them.
fn stored(store: &Store) -> Outcome<u64> {
    let stats = store.stats()?;
    Ok(stats.log_bytes.saturating_add(stats.artifact_bytes))
}

fn write_problems(out: &Output<'_>, report: &ImportReport) {
    let shown = if out.verbose { report.problems.len() } else { report.problems.len().min(PROBLEMS_SHOWN) };
    for problem in report.problems.iter().take(shown) {
        out.note(problem_line(problem, out.colour_stderr));
    }
    and_more(out, shown, report.problems.len(), report.problems_total);
}

/// Experiments and runs are named each; of what is in them only some, unless asked.
fn write_left_out(out: &Output<'_>, report: &ExportReport, trees: &[String]) {
    if report.unexportable_total == 0 {
        return;
    }
    out.warn(format_args!(
        "no place in the mlruns layout for {}:",
        plural(report.unexportable_total, "thing")
    ));
    let (whole, parts): (Vec<_>, Vec<_>) =
        report.unexportable.iter().partition(|left| matches!(left.what, "experiment" | "run"));
    whole.iter().for_each(|left| out.tell(left_out_line(left)));
    let shown = match (out.quiet, out.verbose) {
        (true, _) => 0,
        (_, true) => parts.len(),
        _ => parts.len().min(PROBLEMS_SHOWN),
    };
    parts.iter().take(shown).for_each(|left| out.tell(left_out_line(left)));
    let more = report.unexportable_total.saturating_sub((whole.len() + shown) as u64);
    if more > 0 {
        let hint = if shown < parts.len() { "; --verbose lists more" } else { "" };
        out.tell(format_args!("  and {} more{hint}", count(more)));
    }
    // With one tree, or for things that are in none, another export would leave out the same.
    if trees.len() > 1 && !whole.is_empty() {
        out.hint(format_args!("export each tree with --tree NAME: {}", tree_options(trees)));
    }
}

fn left_out_line(left: &Unexportable) -> String {
    format!("  {} {}: {}", left.what, for_terminal(&left.name), for_terminal(&left.reason))
}

/// What a list that was cut left out, and where the rest is to be had.
fn and_more(out: &Output<'_>, shown: usize, listed: usize, total: u64) {
    let more = total.saturating_sub(shown as u64);
    if more > 0 {
        let hint = if shown < listed { "; --verbose lists more" } else { "" };
        out.note(format_args!("and {} more{hint}", count(more)));
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

fn import_table(report: &ImportReport, bytes_stored: u64, dry_run: bool) -> Table {
    let mut table = Table::pairs();
    table.pair("experiments", Cell::count(report.experiments));
    table.pair("runs", Cell::count(report.runs));
    table.pair("points", Cell::count(report.points));
    table.pair("points_added", Cell::count(report.points_added));
    table.pair("artifacts", Cell::count(report.artifacts));
    table.pair("bytes_in", Cell::bytes(report.bytes));
    table.pair("bytes_stored", Cell::both(ratio(bytes_stored, report.bytes), bytes_stored.to_string()));
    table.pair("yaml_files", Cell::count(report.yaml_files));
    table.pair("yaml_verbatim", Cell::count(report.yaml_verbatim));
    table.pair("metric_files", Cell::count(report.metric_files));
    table.pair("metric_verbatim", Cell::count(report.metric_verbatim));
    table.pair("other_files", Cell::count(report.other_files));
    let tone = if report.problems_total == 0 { Tone::Good } else { Tone::Warn };
    table.pair("problems", Cell::count(report.problems_total).toned(tone));
    if dry_run {
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
    table.pair("files", Cell::count(report.files));
    table.pair("bytes_out", Cell::bytes(report.bytes));
    let tone = if report.unexportable_total == 0 { Tone::Good } else { Tone::Warn };
    table.pair("left_out", Cell::count(report.unexportable_total).toned(tone));
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
            points_added: 1_000,
            bytes: 200 << 20,
            problems_total: 3,
            ..ImportReport::default()
        };
        let text = import_table(&report, 10 << 20, true).fitted(80, false);
        for line in [
            "points           5,000,000",
            "points_added     1,000",
            "bytes_in         200.0 MiB",
            "bytes_stored     10.0 MiB (5.0 %)",
            "problems         3",
            "dry_run          yes: nothing was stored",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n---\n{text}");
        }
        assert!(!import_table(&report, 0, false).fitted(80, false).contains("dry_run"));
    }

    #[test]
    fn what_has_no_place_is_named_with_the_reason() {
        let left = Unexportable { what: "run", name: "a\nb".into(), reason: "its id is no file name".into() };
        assert_eq!(left_out_line(&left), "  run a\\nb: its id is no file name");
        let report = ExportReport { files: 7, bytes: 2048, unexportable_total: 1, ..ExportReport::default() };
        assert!(export_table(&report).fitted(80, false).ends_with("bytes_out    2.0 KiB\nleft_out     1"));
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
    fn a_scratch_store_goes_with_its_guard() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.0.clone();
        assert_ne!(path, Scratch::new().unwrap().0);
        std::fs::create_dir_all(&path).unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
