//! `metrics plot`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::args::{Axis, MetricsPlot};
use super::failure::{Failure, Outcome};
use super::output::{Output, for_terminal};
use super::plot::{Frame, Style, Survey, Trace, draw};
use super::{json, metrics, resolve, run_view};
use crate::model::RunData;
use crate::{History, Store};

/// More lines than this nobody can tell apart.
const SERIES_MAX: usize = 8;

/// Draws metrics of one run or several.
pub(super) fn plot(out: &mut Output<'_>, store: &Store, args: &MetricsPlot) -> Outcome {
    let runs: Outcome<Vec<Arc<RunData>>> = std::iter::once(&args.run)
        .chain(&args.more_runs)
        .map(|text| resolve::run(out, store, text))
        .collect();
    let runs = runs?;
    let mut wanted: Vec<(&RunData, &str, History)> = Vec::new();
    for run in &runs {
        for key in &args.keys {
            wanted.push((run, key, metrics::history(store, run, key, &args.range)?));
        }
    }
    if wanted.len() > SERIES_MAX {
        return Err(Failure::Usage(format!(
            "{} series are too many for one chart: draw at most {SERIES_MAX} at a time",
            wanted.len()
        )));
    }
    let style = Style {
        width: args.width.map(usize::from).or(out.terminal).unwrap_or(80),
        height: usize::from(args.height),
        ascii: args.ascii,
        colour: out.colour,
        log_y: args.log_y,
        x: args.x,
    };
    let mut surveys = Vec::with_capacity(wanted.len());
    for (_, _, history) in &wanted {
        let mut survey = Survey::default();
        metrics::pages(history, |points| {
            points.iter().for_each(|point| survey.add(&point, &style));
            Ok(true)
        })?;
        surveys.push(survey);
    }
    let Some(frame) = Frame::new(&surveys, style) else {
        out.note("no points in this range");
        return Ok(());
    };
    let mut traces = Vec::with_capacity(wanted.len());
    for ((run, key, history), survey) in wanted.iter().zip(surveys) {
        let mut trace = Trace::new(label(key, run, runs.len()), survey, &frame);
        metrics::pages(history, |points| {
            points.iter().for_each(|point| trace.add(&point, &frame));
            Ok(true)
        })?;
        traces.push(trace);
    }
    if out.json {
        for ((run, key, _), trace) in wanted.iter().zip(&traces) {
            out.json_line(&as_json(run, key, trace, &frame, args.x))?;
        }
        return Ok(());
    }
    Ok(out.out.write_all(draw(&frame, &traces).as_bytes())?)
}

/// The key; with several runs also which run.
fn label(key: &str, run: &RunData, runs: usize) -> String {
    let key = for_terminal(key);
    if runs == 1 {
        key
    } else {
        format!("{key} of {} {}", run_view::short_id(&run.id), for_terminal(&run.name))
    }
}

/// One series as the chart has it: a bin for each column.
fn as_json(run: &RunData, key: &str, trace: &Trace, frame: &Frame, axis: Axis) -> Value {
    let value =
        |found: Option<(f64, i64)>| found.map(|(value, at)| json!({"value": json::float(value), "x": at}));
    let bins =
        trace.bins.iter().enumerate().filter(|(_, bin)| bin.drawn + bin.not_finite() > 0).map(|(i, bin)| {
            let shown = |height: f64| (bin.drawn > 0).then(|| json::float(frame.value_at(height)));
            json!({
                "column": i,
                "points": bin.drawn,
                "nan": bin.nan,
                "infinite": bin.infinite,
                "first": shown(bin.first),
                "last": shown(bin.last),
                "min": shown(bin.min),
                "max": shown(bin.max),
            })
        });
    json!({
        "run_id": run.id,
        "key": key,
        "x_axis": match axis { Axis::Step => "step", Axis::Time => "timestamp_ms" },
        "x_range": trace.survey.x.map(|(low, high)| [low, high]),
        "points": trace.survey.points,
        "nan": trace.survey.nan,
        "infinite": trace.survey.infinite,
        "min": value(trace.survey.min),
        "max": value(trace.survey.max),
        "last": value(trace.survey.last),
        "columns": trace.bins.len(),
        "bins": bins.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;
    use crate::model::Point;

    #[test]
    fn labels_name_the_run_only_where_there_are_several() {
        assert_eq!(label("loss", &samples::run(), 1), "loss");
        assert_eq!(label("loss", &samples::run(), 2), "loss of 3f2a9c001122 lr-3");
    }

    #[test]
    fn json_has_a_bin_per_column_that_holds_something() {
        let style = Style { width: 40, height: 5, ascii: true, colour: false, log_y: false, x: Axis::Step };
        let points = [1.0, f64::NAN, 3.0];
        let points: Vec<Point> =
            (0..).zip(points).map(|(step, value)| Point { step, timestamp_ms: 0, value }).collect();
        let mut survey = Survey::default();
        points.iter().for_each(|point| survey.add(point, &style));
        let frame = Frame::new(std::slice::from_ref(&survey), style).unwrap();
        let mut trace = Trace::new("loss", survey, &frame);
        points.iter().for_each(|point| trace.add(point, &frame));
        let value = as_json(&samples::run(), "loss", &trace, &frame, Axis::Step);
        assert_eq!((&value["x_range"], &value["nan"]), (&json!([0, 2]), &json!(1)));
        let bins = value["bins"].as_array().unwrap();
        assert_eq!(bins.len(), 3);
        assert_eq!(
            (&bins[0]["first"], &bins[1]["min"], &bins[2]["max"]),
            (&json!(1.0), &Value::Null, &json!(3.0))
        );
    }
}
