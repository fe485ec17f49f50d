//! Tests of charts, golden text included.

use proptest::prelude::*;

use super::*;

fn style() -> Style {
    Style { width: 40, height: 6, ascii: true, colour: false, log_y: false, x: Axis::Step }
}

fn points(values: &[f64]) -> Vec<Point> {
    (0..).zip(values).map(|(step, &value)| Point { step, timestamp_ms: 1_000 * step, value }).collect()
}

fn traces(all: &[(&str, Vec<Point>)], style: Style) -> Option<(Frame, Vec<Trace>)> {
    let surveys: Vec<Survey> = all
        .iter()
        .map(|(_, points)| {
            let mut survey = Survey::default();
            points.iter().for_each(|point| survey.add(point, &style));
            survey
        })
        .collect();
    let frame = Frame::new(&surveys, style)?;
    let traces = all
        .iter()
        .zip(surveys)
        .map(|((label, points), survey)| {
            let mut trace = Trace::new(*label, survey, &frame);
            points.iter().for_each(|point| trace.add(point, &frame));
            trace
        })
        .collect();
    Some((frame, traces))
}

fn chart(all: &[(&str, Vec<Point>)], style: Style) -> String {
    traces(all, style).map_or_else(String::new, |(frame, traces)| draw(&frame, &traces))
}

#[test]
fn a_line_in_ascii() {
    let text = chart(&[("loss", points(&[1.0, 0.5, 0.25, 0.125, 0.0]))], style());
    assert_eq!(
        text,
        "\
* loss  5 points, min 0 at step 4, max 1 at step 0, last 0
1.0 +**
    |  ***
    |     ***
0.5 +        *****
    |             *****************
0.0 +                              *****
    ++----------------+----------------+
     0                2                4
                  step
"
    );
}

#[test]
fn a_line_in_braille() {
    let values: Vec<f64> = (0..64).map(|i| (f64::from(i) / 10.0).sin()).collect();
    let text = chart(&[("sin", points(&values))], Style { ascii: false, ..style() });
    assert_eq!(
        text,
        "\
⣿ sin  64 points, min -0.999923 at step 47, max 0.999574 at step 16, last 0.0168139
    │    ⢀⠤⠒⠉⠉⠉⠑⠢⢄
    │  ⡠⠒⠁        ⠑⢄⡀
  0 ┤⡠⠊             ⠈⠢⡀                ⢀
    │                 ⠈⠢⡀             ⡠⠃
    │                   ⠑⠤⣀        ⢀⠔⠊
    │                      ⠑⠤⢄⣀⣀⣀⠤⠊⠁
    └┬──────────────────────────┬───────
     0                         50
                  step
"
    );
}

#[test]
fn a_spike_is_never_lost() {
    let mut values = vec![0.0; 100_000];
    values[54_321] = 1_000.0;
    values[70_000] = -500.0;
    let text = chart(&[("loss", points(&values))], Style { ascii: false, ..style() });
    assert!(text.contains("max 1000 at step 54321") && text.contains("min -500 at step 70000"), "{text}");
    let rows: Vec<&str> = text.lines().collect();
    // The first row under the legend and the last above the axis hold nothing but the two spikes.
    let dots = |row: &str| row.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count();
    assert_eq!((dots(rows[1]), dots(rows[6])), (1, 1), "{text}");
}

#[test]
fn nan_and_infinities_are_marked_and_break_the_line() {
    let mut values = vec![1.0; 18];
    values[9] = f64::NAN;
    values[15] = f64::INFINITY;
    let text = chart(&[("loss", points(&values))], style());
    assert!(text.contains("1 NaN, 1 infinite"), "{text}");
    let line = text.lines().find(|line| line.contains("***")).expect(&text);
    let places = ["NaN |", "inf |"].map(|label| {
        let marks = text.lines().find(|line| line.contains(label)).expect(&text);
        assert_eq!(marks.matches('!').count(), 1, "{text}");
        let gap = marks.find('!').unwrap();
        assert_eq!(&line[gap..=gap], " ", "{text}");
        gap
    });
    assert!(places[0] < places[1], "{text}");
    let finite = chart(&[("loss", points(&[1.0, 2.0]))], style());
    assert!(!finite.contains("NaN") && !finite.contains("inf"), "{finite}");
}

#[test]
fn only_nan_has_no_line_but_a_legend() {
    let text = chart(&[("loss", points(&[f64::NAN, f64::NAN]))], style());
    assert!(text.contains("2 points, last NaN, 2 NaN"), "{text}");
}

#[test]
fn several_series_without_colours_have_letters_of_their_own() {
    let all = [("a", points(&[0.0, 1.0])), ("b", points(&[1.0, 0.0]))];
    let text = chart(&all, Style { ascii: false, ..style() });
    assert!(text.starts_with("* a") && text.contains("\no b"), "{text}");
    assert!(text.contains("┤") && !text.contains('⣿'));
    let coloured = chart(&all, Style { ascii: false, colour: true, ..style() });
    assert!(coloured.contains("\x1b[36m") && coloured.contains("\x1b[33m"), "{coloured}");
}

#[test]
fn a_logarithmic_axis_counts_what_it_cannot_show() {
    let text = chart(&[("loss", points(&[1000.0, 10.0, 0.0, 0.1]))], Style { log_y: true, ..style() });
    assert!(text.contains("1 not above 0 (not drawn)"), "{text}");
}

#[test]
fn times_count_from_each_series_own_start() {
    let late: Vec<Point> = points(&[1.0, 2.0])
        .into_iter()
        .map(|p| Point { timestamp_ms: p.timestamp_ms + 1_000_000, ..p })
        .collect();
    let all = [("early", points(&[1.0, 2.0])), ("late", late)];
    let (frame, traces) = traces(&all, Style { x: Axis::Time, ..style() }).unwrap();
    assert_eq!(frame.x, (0, 1_000));
    assert_eq!(traces[0].bins, traces[1].bins);
    assert!(draw(&frame, &traces).contains("seconds"));
}

#[test]
fn nothing_to_draw_is_no_chart() {
    assert!(Frame::new(&[Survey::default()], style()).is_none());
    assert!(Frame::new(&[], style()).is_none());
}

fn any_point() -> impl Strategy<Value = Point> {
    (any::<i64>(), any::<i64>(), any::<f64>()).prop_map(|(step, timestamp_ms, value)| Point {
        step,
        timestamp_ms,
        value,
    })
}

proptest! {
    #[test]
    fn any_points_draw_within_the_width(
        points in prop::collection::vec(any_point(), 0..50),
        more in prop::collection::vec(any_point(), 0..5),
        width in 20usize..120,
        height in 2usize..20,
        ascii: bool,
        log_y: bool,
        by_time: bool,
    ) {
        let x = if by_time { Axis::Time } else { Axis::Step };
        let style = Style { width, height, ascii, colour: false, log_y, x };
        let text = chart(&[("a", points), ("b", more)], style);
        for line in text.lines().skip(2) {
            prop_assert!(line.chars().count() <= width, "{}", text);
        }
    }

    #[test]
    fn every_column_keeps_its_extremes(values in prop::collection::vec(-1e6..1e6f64, 1..500)) {
        let all = points(&values);
        let (frame, traces) = traces(&[("a", all.clone())], style()).unwrap();
        let mut drawn = 0;
        for (i, bin) in traces[0].bins.iter().enumerate() {
            let mine: Vec<f64> = all.iter().filter(|p| frame.column(p.step) == i).map(|p| p.value).collect();
            drawn += bin.drawn;
            if let (Some(&first), Some(&last)) = (mine.first(), mine.last()) {
                let min = mine.iter().copied().fold(f64::INFINITY, f64::min);
                let max = mine.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                prop_assert_eq!((bin.first, bin.last, bin.min, bin.max), (first, last, min, max));
            }
        }
        prop_assert_eq!(drawn, values.len() as u64);
    }
}
