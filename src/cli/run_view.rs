//! How a run looks: as a row, and in full.
//!
//! Contract: pure over the data types; nothing here asks a store.

use std::io::Write as _;

use super::experiments::lifecycle;
use super::failure::Outcome;
use super::output::{Output, Tone, paint};
use super::table::{Cell, Column, Table};
use super::time;
use crate::model::{Lifecycle, RunData, RunStatus};
use crate::{ArtifactInfo, RunLiveness};

/// Digits of an id that a row shows on a terminal; enough to be unique, and accepted everywhere an id is.
const ID_DIGITS: usize = 12;

/// Columns that were asked for.
pub(super) struct Extra<'a> {
    pub(super) lifecycle: bool,
    pub(super) metrics: &'a [String],
    pub(super) params: &'a [String],
    pub(super) tags: &'a [String],
}

/// The headings of a list of runs.
pub(super) fn columns(extra: &Extra<'_>) -> Table {
    let mut columns = vec![
        Column::text("run_id").whole(),
        Column::text("name"),
        Column::text("experiment"),
        Column::text("status"),
        Column::text("started"),
        Column::number("duration"),
    ];
    if extra.lifecycle {
        columns.push(Column::text("lifecycle"));
    }
    columns.extend(extra.metrics.iter().map(Column::number));
    columns.extend(extra.params.iter().chain(extra.tags).map(Column::text));
    Table::new(columns)
}

/// One run under these headings.
pub(super) fn cells(
    run: &RunData,
    experiment: &str,
    alive: Option<&RunLiveness>,
    extra: &Extra<'_>,
    now_ms: i64,
) -> Vec<Cell> {
    let mut cells = vec![
        Cell::both(short_id(&run.id), &run.id),
        Cell::text(&run.name),
        Cell::text(experiment),
        status(run.status, alive, now_ms),
        Cell::age(run.start_ms, now_ms),
        duration(run, now_ms),
    ];
    if extra.lifecycle {
        cells.push(lifecycle(run.lifecycle));
    }
    let metric = |key| run.metrics.get(key).map_or_else(Cell::default, |point| Cell::value(point.value));
    cells.extend(extra.metrics.iter().map(metric));
    let text = |value: Option<&String>| value.map_or_else(Cell::default, Cell::text);
    cells.extend(extra.params.iter().map(|key| text(run.params.get(key))));
    cells.extend(extra.tags.iter().map(|key| text(run.tags.get(key))));
    cells
}

/// The start of a usual id; odd imported ids stay whole.
pub(super) fn short_id(id: &str) -> &str {
    let usual = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if usual { id.get(..ID_DIGITS).unwrap_or(id) } else { id }
}

/// The status; of a run that is called running, what has become of its writer, if that is known to be otherwise.
fn status(status: RunStatus, alive: Option<&RunLiveness>, now_ms: i64) -> Cell {
    match alive {
        Some(RunLiveness::Gone { since_ms }) => {
            let short = format!("writer gone {}", time::relative(*since_ms, now_ms));
            let exact = format!("{status} (writer gone since {})", time::iso(*since_ms));
            return Cell::both(short, exact).toned(Tone::Bad);
        }
        Some(RunLiveness::Unknown { host: Some(host) }) => {
            let text = format!("{status} (on host {host}, cannot be seen from here)");
            return Cell::text(text).toned(Tone::Warn);
        }
        _ => {}
    }
    Cell::text(status.as_str()).toned(match status {
        RunStatus::Running => Tone::Info,
        RunStatus::Scheduled => Tone::Faint,
        RunStatus::Finished => Tone::Good,
        RunStatus::Failed => Tone::Bad,
        RunStatus::Killed => Tone::Warn,
    })
}

/// From start to end; to now for a run that is still going on.
fn duration(run: &RunData, now_ms: i64) -> Cell {
    let end = run.end_ms.or_else(|| (run.status == RunStatus::Running).then_some(now_ms));
    match (run.start_ms, end) {
        (Some(start), Some(end)) => {
            let ms = end.saturating_sub(start);
            Cell::both(time::span(ms), format!("{:.3}", ms as f64 / 1_000.0))
        }
        _ => Cell::default(),
    }
}

/// Writes a run in full: in sections on a terminal, else one line per field.
pub(super) fn write(
    out: &mut Output<'_>,
    run: &RunData,
    alive: Option<&RunLiveness>,
    experiment: &str,
    location: &str,
    artifacts: &[ArtifactInfo],
) -> Outcome {
    let now_ms = out.now_ms;
    let mut about = Table::pairs();
    about.pair("run_id", Cell::text(&run.id).toned(Tone::Strong));
    about.pair("name", Cell::text(&run.name));
    about.pair("experiment", Cell::both(format!("{experiment} (id {})", run.experiment_id), experiment));
    about.pair("status", status(run.status, alive, now_ms));
    if run.lifecycle == Lifecycle::Deleted {
        about.pair("lifecycle", lifecycle(run.lifecycle));
        about.pair("deleted", Cell::time(run.deleted_ms, now_ms));
    }
    about.pair("started", Cell::time(run.start_ms, now_ms));
    about.pair("ended", Cell::time(run.end_ms, now_ms));
    about.pair("duration", duration(run, now_ms));
    about.pair("user", Cell::text(&run.user));
    about.pair("artifact_uri", Cell::text(location));
    let sections = [
        (
            "params",
            pairs(out, "param", run.params.iter().map(|(key, value)| (key.as_str(), Cell::text(value)))),
        ),
        ("metrics (latest)", metrics(out, run)),
        ("tags", pairs(out, "tag", run.tags.iter().map(|(key, value)| (key.as_str(), Cell::text(value))))),
        (
            "inputs",
            pairs(out, "input", run.inputs.iter().map(|input| (input.dataset.name.as_str(), dataset(input)))),
        ),
        ("artifacts", pairs(out, "artifact", artifacts.iter().map(|file| (file.path.as_ref(), size(file))))),
    ];
    about.write(out)?;
    for (title, table) in sections {
        if table.is_empty() {
            continue;
        }
        if out.terminal.is_some() {
            writeln!(out.out, "\n{}", paint(out.colour, Tone::Strong, title))?;
        }
        table.write(out)?;
    }
    Ok(())
}

/// Keys with values; off a terminal each key says what it is of (`param.lr`), because there are no headings.
fn pairs<'a>(out: &Output<'_>, kind: &str, all: impl Iterator<Item = (&'a str, Cell)>) -> Table {
    let mut table = Table::pairs();
    for (key, value) in all {
        match out.terminal {
            Some(_) => table.pair(&format!("  {key}"), value),
            None => table.pair(&format!("{kind}.{key}"), value),
        }
    }
    table
}

fn metrics(out: &Output<'_>, run: &RunData) -> Table {
    let cell = |point: &crate::model::Point| {
        let (value, step) = (Cell::value(point.value), point.step);
        value.and(&format!("  (step {step}, {})", time::relative(point.timestamp_ms, out.now_ms)))
    };
    pairs(out, "metric", run.metrics.iter().map(|(key, point)| (key.as_str(), cell(point))))
}

fn dataset(input: &crate::model::DatasetInput) -> Cell {
    let context =
        input.tags.get("mlflow.data.context").map(|context| format!(", {context}")).unwrap_or_default();
    Cell::text(format!("{} ({}{context})", input.dataset.digest, input.dataset.source_type))
}

fn size(file: &ArtifactInfo) -> Cell {
    match file.size {
        Some(size) if !file.is_dir => Cell::bytes(size),
        _ if file.is_dir => Cell::text("directory"),
        _ => Cell::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::captured;
    use crate::cli::samples;

    fn extra() -> (Vec<String>, Vec<String>, Vec<String>) {
        (vec!["loss".into(), "grad".into()], vec!["lr".into(), "missing".into()], vec!["team".into()])
    }

    fn row() -> Table {
        let (metrics, params, tags) = extra();
        let extra = Extra { lifecycle: false, metrics: &metrics, params: &params, tags: &tags };
        let mut table = columns(&extra);
        table.row(cells(&samples::run(), "mnist", None, &extra, samples::START_MS + 180_000));
        table
    }

    #[test]
    fn a_run_in_a_row() {
        assert_eq!(
            row().fitted(130, false),
            "RUN_ID        NAME  EXPERIMENT  STATUS    STARTED      DURATION  LOSS  GRAD  LR   MISSING  TEAM\n\
             3f2a9c001122  lr-3  mnist       FINISHED  3 min ago  1 min 05 s  0.25   NaN  0.1           vision"
        );
    }

    #[test]
    fn a_run_in_a_line_of_tabs() {
        let mut plain = Vec::new();
        row().write_plain(&mut plain, false, false).unwrap();
        assert_eq!(
            String::from_utf8(plain).unwrap(),
            "3f2a9c00112233445566778899aabbcc\tlr-3\tmnist\tFINISHED\t2026-11-23T11:56:14.123Z\t65.000\t0.25\tNaN\t\
             0.1\t\tvision\n"
        );
    }

    fn shown(terminal: Option<usize>) -> String {
        let artifacts = [
            ArtifactInfo { path: "model".into(), is_dir: true, size: None },
            ArtifactInfo { path: "out.txt".into(), is_dir: false, size: Some(1536) },
        ];
        captured(terminal, false, |out| {
            write(out, &samples::run(), None, "mnist", "file:///store/artifacts", &artifacts).unwrap();
        })
    }

    #[test]
    fn a_run_in_full_on_a_terminal() {
        let text = shown(Some(100));
        for part in [
            "run_id        3f2a9c00112233445566778899aabbcc\n",
            "experiment    mnist (id 1)\n",
            "started       2026-11-23 11:56:14 (1 min ago)\n",
            "\nparams\n  lr    0.1\n  note  two\\nlines\n",
            "\nmetrics (latest)\n  grad  NaN  (step 9, 54 s ago)\n  loss  0.25  (step 9, 54 s ago)\n",
            "\nartifacts\n  model    directory\n  out.txt  1.5 KiB\n",
        ] {
            assert!(text.contains(part), "{part}\n---\n{text}");
        }
    }

    #[test]
    fn a_run_in_full_in_a_pipe() {
        let text = shown(None);
        for line in
            ["run_id\t3f2a9c00112233445566778899aabbcc", "param.note\ttwo\\nlines", "metric.loss\t0.25"]
        {
            assert!(text.lines().any(|l| l == line), "{line}\n---\n{text}");
        }
        assert!(text.contains("artifact.out.txt\t1536\n"), "{text}");
    }

    #[test]
    fn a_run_without_its_writer_is_told_from_a_running_one() {
        let now_ms = 1_795_434_974_123 + 180_000;
        let cell = |alive| status(RunStatus::Running, alive, now_ms);
        let gone = RunLiveness::Gone { since_ms: 1_795_434_974_123 };
        let exact = "RUNNING (writer gone since 2026-11-23T11:56:14.123Z)";
        assert_eq!(cell(Some(&gone)), Cell::both("writer gone 3 min ago", exact).toned(Tone::Bad));
        let elsewhere = RunLiveness::Unknown { host: Some("node7".into()) };
        let text = "RUNNING (on host node7, cannot be seen from here)";
        assert_eq!(cell(Some(&elsewhere)), Cell::text(text).toned(Tone::Warn));
        for alive in [None, Some(&RunLiveness::Alive), Some(&RunLiveness::Unknown { host: None })] {
            assert_eq!(cell(alive), Cell::text("RUNNING").toned(Tone::Info));
        }
    }

    #[test]
    fn odd_ids_are_shown_whole() {
        assert_eq!(short_id("3f2a9c00112233445566778899aabbcc"), "3f2a9c001122");
        assert_eq!(short_id("my-own-run-id-of-thirty-two-chars"), "my-own-run-id-of-thirty-two-chars");
    }
}
