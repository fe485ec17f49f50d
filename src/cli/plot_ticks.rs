//! Round numbers along the axes of a chart.
//!
//! Contract: pure and total; at most one label per row, labels along the bottom never touch.

use super::output::rounded;
use super::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};

/// The smallest of 1, 2, 5 times a power of ten that is at least `raw`.
fn round_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= raw * 0.999_999).unwrap_or(raw)
}

/// A label just precise enough to tell ticks `step` apart.
fn label(value: f64, step: f64) -> String {
    let decimals = -step.log10().floor();
    if (0.0..=6.0).contains(&decimals) && value.abs() < 1e7 {
        let text = format!("{value:.*}", decimals as usize);
        // -0.00 reads like a mistake.
        if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) {
            text.trim_start_matches('-').into()
        } else {
            text
        }
    } else {
        rounded(if (value / step).abs() < 1e-9 { 0.0 } else { value })
    }
}

/// Three significant digits: a place between the powers of ten is only roughly where it says.
fn brief(value: f64) -> String {
    format!("{value:.2e}").parse().map_or_else(|_| rounded(value), rounded)
}

/// Rows (0 is the top) with their labels, about one in four.
pub(super) fn value_ticks((low, high): (f64, f64), rows: usize, logarithmic: bool) -> Vec<(usize, String)> {
    let wanted = (rows / 4).max(2) as f64;
    // Halves: the span of all floats is no float.
    let half_span = high / 2.0 - low / 2.0;
    let step = round_step(half_span / wanted * 2.0);
    let last = (rows.max(2) - 1) as f64;
    let mut ticks: Vec<(usize, String)> = Vec::new();
    let whole_powers = logarithmic && step >= 1.0;
    if (logarithmic && !whole_powers) || !step.is_finite() || step <= 0.0 || (low / step).abs() > 1e12 {
        // Within a decade round exponents are no round values, and some spans are too fine for round steps: the
        // values of evenly spread rows then.
        let mut row = 0.0;
        while row <= last {
            let y = high - row / last * 2.0 * half_span;
            ticks.push((row as usize, if logarithmic { brief(10f64.powf(y)) } else { rounded(y) }));
            row += (last / wanted).max(1.0).floor();
        }
        return ticks;
    }
    let mut index = (low / step).ceil();
    // Rounding may make a few more than wanted, never many.
    for _ in 0..rows * 2 {
        let y = index * step;
        if y > high {
            break;
        }
        let fraction = (y / 2.0 - low / 2.0) / half_span;
        let row = ((1.0 - fraction) * last).round().clamp(0.0, last) as usize;
        if !ticks.iter().any(|(at, _)| *at == row) {
            ticks.push((row, if logarithmic { rounded(10f64.powf(y)) } else { label(y, step) }));
        }
        index += 1.0;
    }
    ticks
}

/// The unit for a span of time: its milliseconds and its name.
pub(super) fn time_unit(span_ms: i64) -> (i64, &'static str) {
    if span_ms < 1_000 {
        (1, "ms")
    } else if span_ms < 5 * MINUTE_MS {
        (SECOND_MS, "seconds")
    } else if span_ms < 5 * HOUR_MS {
        (MINUTE_MS, "minutes")
    } else if span_ms < 5 * DAY_MS {
        (HOUR_MS, "hours")
    } else {
        (DAY_MS, "days")
    }
}

/// The line of the axis (without its corner) and the line of labels under it.
pub(super) fn x_ticks(
    (low, high): (i64, i64),
    divisor: i64,
    cells: usize,
    gutter: usize,
    ascii: bool,
) -> (String, String) {
    let (dash, mark) = if ascii { ('-', '+') } else { ('\u{2500}', '\u{252c}') };
    let mut axis = vec![dash; cells];
    let mut labels = vec![' '; gutter + 1 + cells];
    let span = (high as f64 - low as f64) / divisor as f64;
    let step = if span > 0.0 {
        round_step(span / (cells as f64 / 12.0).max(1.0)).max(least_step(divisor))
    } else {
        1.0
    };
    let first = low as f64 / divisor as f64;
    let mut index = (first / step).ceil();
    let mut free = 0;
    for _ in 0..=cells {
        let value = index * step;
        let fraction = if span > 0.0 { (value - first) / span } else { 0.0 };
        if !(0.0..=1.000_001).contains(&fraction) {
            break;
        }
        let cell = (fraction * (cells - 1) as f64).round() as usize;
        let text: Vec<char> = if span > 0.0 { whole(value) } else { whole(first) }.chars().collect();
        // Centred under its tick, pushed back in where it would stand out.
        let start =
            (gutter + 1 + cell).saturating_sub(text.len() / 2).min(labels.len().saturating_sub(text.len()));
        if start >= free {
            if let Some(at) = axis.get_mut(cell) {
                *at = mark;
            }
            labels.iter_mut().skip(start).zip(&text).for_each(|(to, c)| *to = *c);
            free = start + text.len() + 1;
        }
        if span <= 0.0 {
            break;
        }
        index += 1.0;
    }
    (axis.into_iter().collect(), labels.into_iter().collect())
}

/// Steps and milliseconds have no fractions; seconds and longer units do.
const fn least_step(divisor: i64) -> f64 {
    if divisor == 1 { 1.0 } else { 0.0 }
}

/// A number along the bottom: all its digits, unless there are too many.
fn whole(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e12 { format!("{:.0}", value + 0.0) } else { rounded(value) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_are_round() {
        for (raw, step) in [(0.9, 1.0), (1.0, 1.0), (1.1, 2.0), (3.0, 5.0), (70.0, 100.0), (0.03, 0.05)] {
            assert!((round_step(raw) - step).abs() < 1e-9, "{raw}");
        }
    }

    #[test]
    fn values_are_labelled_with_as_many_digits_as_they_need() {
        let ticks = value_ticks((0.0, 1.0), 16, false);
        let labels: Vec<&str> = ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["0.0", "0.5", "1.0"]);
        assert_eq!(ticks.last().unwrap().0, 0, "the greatest value is at the top");
        let decades = value_ticks((-3.0, 0.0), 16, true);
        assert_eq!(
            decades.iter().map(|(_, label)| label.as_str()).collect::<Vec<_>>(),
            ["0.001", "0.01", "0.1", "1"]
        );
    }

    #[test]
    fn the_bottom_axis_counts_in_round_steps() {
        let (axis, labels) = x_ticks((0, 100), 1, 41, 3, true);
        assert_eq!(axis, "+-------------------+-------------------+");
        assert_eq!(labels.trim_end(), "    0                  50                 100");
        let (_, one) = x_ticks((7, 7), 1, 20, 3, true);
        assert_eq!(one.trim(), "7");
    }

    proptest! {
        #[test]
        fn ticks_fit_whatever_the_range(
            a: f64, b: f64, rows in 2usize..60, log: bool, x: i64, y: i64, cells in 1usize..200,
        ) {
            prop_assume!(a.is_finite() && b.is_finite() && a < b);
            let (a, b) = if log { (a.clamp(-320.0, 308.0), b.clamp(-320.0, 308.0)) } else { (a, b) };
            prop_assume!(a < b);
            let ticks = value_ticks((a, b), rows, log);
            prop_assert!(ticks.len() <= rows && ticks.iter().all(|(row, _)| *row < rows), "{:?}", ticks);
            let (axis, labels) = x_ticks((x.min(y), x.max(y)), 1, cells, 8, true);
            prop_assert_eq!(axis.chars().count(), cells);
            prop_assert_eq!(labels.chars().count(), cells + 9);
        }
    }
}
