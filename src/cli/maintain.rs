//! `init`, `stats`, `verify`, `compact` and `gc`.

use std::io::{self, Write as _};
use std::path::Path;

use serde_json::json;

use super::args::{Gc, Init};
use super::failure::{CORRUPTION, FAILURE, Failure, Outcome};
use super::output::{Output, Tone, bytes, count, for_terminal, paint, plural, shell_quoted};
use super::progress::Bar;
use super::table::{Cell, Column, Table};
use super::{json, resolve};
use crate::store::report::{CompactReport, GcReport, Severity, Stats, VerifyReport};
use crate::{Error, GcOptions, Store};

/// Makes an empty store; one that is there already is left as it is.
pub(super) fn init(out: &mut Output<'_>, args: &Init, store: Option<&Path>) -> Outcome {
    let path = args.dir.as_deref().or(store).ok_or_else(|| {
        Failure::Usage("where? Write `mlrs-db init DIR`, or give the directory with --store".into())
    })?;
    let existed = match Store::options().read_only(true).create(false).open(path) {
        Ok(_) => true,
        Err(Error::NotAStore { .. } | Error::Io { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    if !existed {
        let made = Store::options().create(true).open(path).and_then(Store::close);
        made.map_err(|error| match error {
            // What is to be made here cannot be missing.
            error @ Error::NotAStore { .. } => {
                let advice = "name an empty directory, or one that is not there yet".into();
                Failure::Advised { error, advice, code: FAILURE }
            }
            error => error.into(),
        })?;
    }
    // Options are only worth a hint where the variable is not set already.
    let shown = for_terminal(&path.to_string_lossy());
    if out.json {
        return Ok(out.json_line(&json!({"store": path.to_string_lossy(), "created": !existed}))?);
    }
    writeln!(out.out, "{shown} {}", if existed { "is a store already" } else { "is an empty store now" })?;
    out.out.flush()?;
    if store.is_none() {
        let shown = shell_quoted(path);
        out.note(format_args!("use it with --store {shown}, or set {}={shown}", super::args::STORE_VARIABLE));
    }
    Ok(())
}

/// What the store holds and what it costs.
pub(super) fn stats(out: &mut Output<'_>, store: &Store) -> Outcome {
    let stats = store.stats()?;
    if out.json {
        return Ok(out.json_line(&json::plain(&stats))?);
    }
    Ok(stats_table(&stats).write(out)?)
}

fn stats_table(stats: &Stats) -> Table {
    let mut table = Table::pairs();
    for (key, number) in [
        ("experiments", stats.experiments),
        ("runs", stats.runs),
        ("series", stats.series),
        ("points", stats.points),
        ("events", stats.events),
        ("writers", stats.writers),
        ("segments", stats.segments),
        ("segments_sealed", stats.segments_sealed),
    ] {
        table.pair(key, Cell::count(number));
    }
    for (key, number) in [
        ("log_bytes", stats.log_bytes),
        ("live_bytes", stats.live_bytes),
        ("index_bytes", stats.index_bytes),
        ("artifact_bytes", stats.artifact_bytes),
    ] {
        table.pair(key, Cell::bytes(number));
    }
    let per_point = stats.bytes_per_point;
    table.pair("bytes_per_point", Cell::both(format!("{per_point:.2}"), format!("{per_point:?}")));
    table.pair("trees", Cell::count(stats.trees));
    for (key, number) in [
        ("yaml_files", stats.yaml_files),
        ("yaml_verbatim", stats.yaml_verbatim),
        ("metric_files", stats.metric_files),
        ("metric_verbatim", stats.metric_verbatim),
    ] {
        table.pair(key, Cell::count(number));
    }
    table.pair("verbatim_bytes", Cell::bytes(stats.verbatim_bytes));
    table
}

/// Checks everything; damage is exit code 4.
pub(super) fn verify(out: &mut Output<'_>, store: &Store) -> Outcome {
    let mut bar = Bar::new(out, "verifying");
    let report = store.verify(&mut |progress| bar.set(progress))?;
    bar.done();
    match write_verify(out, &report).and_then(|()| out.out.flush()) {
        // A reader that went away must not turn damage into success.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe || report.is_sound() => Err(error.into()),
        _ if report.is_sound() => Ok(()),
        _ => {
            let damaged = report.findings.iter().filter(|f| f.severity == Severity::Damage).count() as u64;
            let advice = "what is intact stays readable; `mlrs-db repair` keeps it and sets the rest aside; `mlrs-db merge` brings \
                 what was lost home from another copy of the store";
            out.error(format_args!("{} of damage", plural(damaged, "place")), Some(advice));
            Err(Failure::Told(CORRUPTION))
        }
    }
}

fn write_verify(out: &mut Output<'_>, report: &VerifyReport) -> io::Result<()> {
    if out.json {
        return out.json_line(&json::verify(report));
    }
    if !report.findings.is_empty() {
        findings(report).write(out)?;
    }
    if out.quiet && report.findings.is_empty() {
        return Ok(());
    }
    if out.terminal.is_none() {
        // Off a terminal the findings are the answer, and the summary is for the person who waits.
        out.note(summary(report));
        return Ok(());
    }
    let tone = if report.is_sound() { Tone::Good } else { Tone::Bad };
    let word = if report.is_sound() { "sound" } else { "damaged" };
    writeln!(out.out, "{}: {}", paint(out.colour, tone, word), summary(report))
}

fn summary(report: &VerifyReport) -> String {
    format!(
        "{} in {} ({}), {} columns with {} points, {} events, {} blobs checked",
        plural(report.frames, "frame"),
        plural(report.files, "file"),
        bytes(report.bytes),
        count(report.columns),
        count(report.points),
        count(report.events),
        count(report.blobs)
    )
}

fn findings(report: &VerifyReport) -> Table {
    let mut table = Table::new(vec![
        Column::text("severity").whole(),
        Column::text("file").whole(),
        Column::number("offset").whole(),
        Column::text("finding"),
    ]);
    for finding in &report.findings {
        let (word, tone) = match finding.severity {
            Severity::Damage => ("damage", Tone::Bad),
            Severity::TornTail => ("torn tail", Tone::Warn),
            Severity::Conflict => ("conflict", Tone::Warn),
            Severity::Note => ("note", Tone::Faint),
        };
        table.row(vec![
            Cell::text(word).toned(tone),
            Cell::text(finding.path.to_string_lossy()),
            finding.offset.map_or_else(Cell::default, |offset| Cell::text(offset.to_string())),
            Cell::text(&finding.text),
        ]);
    }
    table.wrapped()
}

/// Rewrites small segments into large ones.
pub(super) fn compact(out: &mut Output<'_>, path: &Path) -> Outcome {
    let store = resolve::open_to_write(path)?;
    let mut bar = Bar::new(out, "compacting");
    let report = store.compact(&mut |progress| bar.set(progress))?;
    bar.done();
    store.close()?;
    if out.json {
        return Ok(out.json_line(&json::plain(&report))?);
    }
    Ok(writeln!(out.out, "{}", compact_text(&report))?)
}

fn compact_text(report: &CompactReport) -> String {
    if report.segments_before == report.segments_after && report.bytes_before == report.bytes_after {
        return format!("nothing to compact: {}", plural(report.segments_before, "segment"));
    }
    let waiting = match report.files_waiting {
        0 => String::new(),
        files => format!("; {} to be unlinked once readers have let go", plural(files, "replaced file")),
    };
    format!(
        "{} ({}) became {} ({}), {} points{waiting}",
        plural(report.segments_before, "segment"),
        bytes(report.bytes_before),
        count(report.segments_after),
        bytes(report.bytes_after),
        count(report.points)
    )
}

/// Removes what was deleted, for good.
pub(super) fn gc(out: &mut Output<'_>, path: &Path, args: &Gc) -> Outcome {
    let store = resolve::open_to_write(path)?;
    let report = store.gc(&GcOptions { older_than_ms: args.older_than, dry_run: args.dry_run })?;
    store.close()?;
    if out.json {
        return Ok(out.json_line(&json::gc(&report))?);
    }
    gc_table(&report).write_plain(&mut out.out, false, out.colour)?;
    out.out.flush()?;
    out.note(gc_text(&report));
    Ok(())
}

fn gc_table(report: &GcReport) -> Table {
    let mut table = Table::new(vec![Column::text("what"), Column::text("which")]);
    let rows = [("run", &report.runs), ("experiment", &report.experiments)];
    for (what, ids) in rows {
        ids.iter().for_each(|id| table.row(vec![Cell::text(what), Cell::text(id)]));
    }
    for file in &report.files {
        table.row(vec![Cell::text("file"), Cell::text(file.to_string_lossy())]);
    }
    table
}

fn gc_text(report: &GcReport) -> String {
    format!(
        "{} {}, {} and {}, {}",
        if report.dry_run { "would remove" } else { "removed" },
        plural(report.runs.len() as u64, "run"),
        plural(report.experiments.len() as u64, "experiment"),
        plural(report.files.len() as u64, "file"),
        bytes(report.bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::captured;
    use crate::store::report::Finding;

    #[test]
    fn stats_in_both_forms() {
        let stats = Stats { runs: 1_234, log_bytes: 1536, bytes_per_point: 2.447, ..Stats::default() };
        let table = stats_table(&stats);
        let text = table.fitted(80, false);
        assert!(
            text.contains("runs             1,234\n") && text.contains("log_bytes        1.5 KiB\n"),
            "{text}"
        );
        assert!(text.contains("bytes_per_point  2.45\n"), "{text}");
        let mut plain = Vec::new();
        table.write_plain(&mut plain, true, false).unwrap();
        let plain = String::from_utf8(plain).unwrap();
        assert!(
            plain.starts_with("experiments\t0\nruns\t1234\n") && plain.contains("\nbytes_per_point\t2.447\n")
        );
    }

    fn damaged() -> VerifyReport {
        let finding = |severity, offset, text: &str| Finding {
            severity,
            path: "log/ab-0.seg".into(),
            offset,
            text: text.into(),
        };
        VerifyReport {
            files: 1,
            bytes: 4096,
            frames: 2,
            findings: vec![
                finding(Severity::Damage, Some(128), "frame crc: expected 1, found 2"),
                finding(Severity::TornTail, None, "interrupted write"),
            ],
            ..VerifyReport::default()
        }
    }

    #[test]
    fn damage_is_listed_with_file_and_offset() {
        let text = captured(Some(100), false, |out| write_verify(out, &damaged()).unwrap());
        assert_eq!(
            text,
            "SEVERITY   FILE          OFFSET  FINDING\n\
             damage     log/ab-0.seg     128  frame crc: expected 1, found 2\n\
             torn tail  log/ab-0.seg          interrupted write\n\
             damaged: 2 frames in 1 file (4.0 KiB), 0 columns with 0 points, 0 events, 0 blobs checked\n"
        );
        let plain = captured(None, false, |out| write_verify(out, &damaged()).unwrap());
        assert!(plain.ends_with("torn tail\tlog/ab-0.seg\t\tinterrupted write\n"), "{plain}");
        let json = captured(None, true, |out| write_verify(out, &damaged()).unwrap());
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["sound"], &value["findings"][0]["offset"]), (&json!(false), &json!(128)));
    }

    #[test]
    fn compaction_and_gc_in_words() {
        let report = CompactReport {
            segments_before: 70,
            segments_after: 2,
            bytes_before: 2048,
            bytes_after: 1024,
            points: 5_000,
            files_waiting: 1,
        };
        assert_eq!(
            compact_text(&report),
            "70 segments (2.0 KiB) became 2 (1.0 KiB), 5,000 points; 1 replaced file to be unlinked once \
             readers have let go"
        );
        let idle = CompactReport { segments_before: 1, segments_after: 1, ..CompactReport::default() };
        assert_eq!(compact_text(&idle), "nothing to compact: 1 segment");
        let report = GcReport { runs: vec!["ab".into()], bytes: 10, dry_run: true, ..GcReport::default() };
        assert_eq!(gc_text(&report), "would remove 1 run, 0 experiments and 0 files, 10 B");
        let mut plain = Vec::new();
        gc_table(&report).write_plain(&mut plain, false, false).unwrap();
        assert_eq!(plain, b"run\tab\n");
    }
}
