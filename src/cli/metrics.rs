//! `metrics ls` and `metrics get`.
//!
//! Contract: a history is printed page by page, so its length does not matter.

use std::io::{self, Write};

use super::args::{MetricsGet, MetricsLs, Range};
use super::failure::Outcome;
use super::output::{Output, Tone, exact, paint};
use super::table::{Cell, Column, Table};
use super::{json, resolve, time};
use crate::model::{Point, Points, RunData};
use crate::{Error, History, HistoryPage, MetricSummary, Store};

const PAGE_POINTS: usize = 16 * 1024;

/// Lists the metrics of a run.
pub(super) fn ls(out: &mut Output<'_>, store: &Store, args: &MetricsLs) -> Outcome {
    let run = resolve::run(out, store, &args.run)?;
    let metrics = store.metrics(&run.uid.to_string())?;
    if out.json {
        return Ok(metrics.iter().try_for_each(|metric| out.json_line(&json::metric(metric)))?);
    }
    if metrics.is_empty() {
        out.note("no metrics");
    }
    Ok(table(&metrics, out.now_ms).write(out)?)
}

fn table(metrics: &[MetricSummary], now_ms: i64) -> Table {
    let mut table = Table::new(vec![
        Column::text("key"),
        Column::number("points"),
        Column::number("latest"),
        Column::number("step"),
        Column::number("min"),
        Column::number("max"),
        Column::text("logged"),
    ]);
    for metric in metrics {
        table.row(vec![
            Cell::text(&metric.key),
            Cell::count(metric.points),
            Cell::value(metric.latest.value),
            Cell::text(metric.latest.step.to_string()),
            Cell::value(metric.min),
            Cell::value(metric.max),
            Cell::age(Some(metric.latest.timestamp_ms), now_ms),
        ]);
    }
    table
}

/// The history of a metric that the run has, within a range.
pub(super) fn history(store: &Store, run: &RunData, key: &str, range: &Range) -> Outcome<History> {
    if !run.metrics.contains_key(key) {
        return Err(Error::NotFound { what: "metric", name: key.into() }.into());
    }
    let mut history = store.history(&run.uid.to_string(), key)?;
    if let Some(steps) = range.steps {
        history = history.steps(steps);
    }
    match (range.since, range.until) {
        (Some(since), Some(until)) => history = history.timestamps(since..until),
        (Some(since), None) => history = history.timestamps(since..),
        (None, Some(until)) => history = history.timestamps(..until),
        (None, None) => {}
    }
    Ok(history)
}

/// Hands the points of a history over, page by page; `each` says whether it wants more.
pub(super) fn pages(history: &History, mut each: impl FnMut(Points) -> Outcome<bool>) -> Outcome {
    let mut token: Option<String> = None;
    loop {
        let HistoryPage { points, next_page_token: next_token, .. } =
            history.page(PAGE_POINTS, token.as_deref())?;
        if !each(points)? || next_token.is_none() {
            return Ok(());
        }
        token = next_token;
    }
}

/// How points are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Terminal { colour: bool },
    Plain { colour: bool },
    Csv,
    Json,
}

/// Prints the history of a metric.
pub(super) fn get(out: &mut Output<'_>, store: &Store, args: &MetricsGet) -> Outcome {
    let run = resolve::run(out, store, &args.run)?;
    let history = history(store, &run, &args.key, &args.range)?;
    let form = match (out.json, args.csv, out.terminal) {
        (true, _, _) => Form::Json,
        (_, true, _) => Form::Csv,
        (_, _, Some(_)) => Form::Terminal { colour: out.colour },
        _ => Form::Plain { colour: out.colour },
    };
    write_header(&mut out.out, form, &args.key)?;
    let mut left = args.limit.unwrap_or(usize::MAX);
    pages(&history, |points| {
        for point in points.iter().take(left) {
            write_point(&mut out.out, form, &point)?;
        }
        left = left.saturating_sub(points.len());
        Ok(left > 0)
    })
}

fn write_header(out: &mut dyn Write, form: Form, key: &str) -> io::Result<()> {
    match form {
        Form::Terminal { colour } => {
            writeln!(
                out,
                "{}",
                paint(colour, Tone::Strong, format_args!("{:>12}  {:<24}  VALUE", "STEP", "TIME"))
            )
        }
        Form::Plain { colour } => {
            let titles = ["step", "timestamp", "value"].map(|title| paint(colour, Tone::Strong, title));
            writeln!(out, "{}", titles.join("\t"))
        }
        Form::Csv => writeln!(out, "step,timestamp_ms,{}", csv_field(key)),
        Form::Json => Ok(()),
    }
}

fn write_point(out: &mut dyn Write, form: Form, point: &Point) -> io::Result<()> {
    let Point { step, timestamp_ms, value } = *point;
    match form {
        Form::Terminal { .. } => {
            writeln!(out, "{step:>12}  {:<24}  {}", time::iso(timestamp_ms), exact(value))
        }
        Form::Plain { .. } => writeln!(out, "{step}\t{}\t{}", time::iso(timestamp_ms), exact(value)),
        Form::Csv => writeln!(out, "{step},{timestamp_ms},{}", exact(value)),
        Form::Json => {
            let quote = if value.is_finite() { "" } else { "\"" };
            let value = exact(value);
            writeln!(
                out,
                "{{\"step\":{step},\"timestamp_ms\":{timestamp_ms},\"value\":{quote}{value}{quote}}}"
            )
        }
    }
}

/// A CSV field, quoted where it must be (RFC 4180).
fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r', '\t']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(value: f64) -> Point {
        Point { step: -7, timestamp_ms: 1_500, value }
    }

    fn written(form: Form, value: f64) -> String {
        let mut out = Vec::new();
        write_header(&mut out, form, "a,\"b\"").unwrap();
        write_point(&mut out, form, &point(value)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_point_in_every_form() {
        assert_eq!(
            written(Form::Plain { colour: false }, 0.1),
            "step\ttimestamp\tvalue\n-7\t1970-01-01T00:00:01.500Z\t0.1\n"
        );
        assert_eq!(written(Form::Csv, f64::NAN), "step,timestamp_ms,\"a,\"\"b\"\"\"\n-7,1500,NaN\n");
        assert_eq!(written(Form::Json, 1.0), "{\"step\":-7,\"timestamp_ms\":1500,\"value\":1.0}\n");
        assert_eq!(
            written(Form::Terminal { colour: false }, 1e-7),
            "        STEP  TIME                      VALUE\n          -7  1970-01-01T00:00:01.500Z  1e-7\n"
        );
    }

    #[test]
    fn points_as_json_are_the_same_as_everywhere_else() {
        for value in [0.1, -0.0, 1e300, 1e-300, 123456789.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut line = Vec::new();
            write_point(&mut line, Form::Json, &point(value)).unwrap();
            let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(read, json::point(&point(value)));
        }
    }

    #[test]
    fn metrics_in_rows() {
        let metric = MetricSummary {
            key: "loss".into(),
            points: 12_345,
            latest: Point { step: 99, timestamp_ms: 0, value: 0.123_456_789 },
            last_step: 99,
            min: 0.1,
            max: f64::NAN,
            nan_count: 0,
            newest_ms: 0,
        };
        let table = table(&[metric], 5_000);
        assert_eq!(
            table.fitted(80, false),
            "KEY   POINTS    LATEST  STEP  MIN  MAX  LOGGED\nloss  12,345  0.123457    99  0.1  NaN  5 s ago"
        );
        let mut plain = Vec::new();
        table.write_plain(&mut plain, false, false).unwrap();
        assert_eq!(plain, b"loss\t12345\t0.123456789\t99\t0.1\tNaN\t1970-01-01T00:00:00.000Z\n");
    }
}
