//! Series as charts show them: every point in one sample, no spike lost.

use mlrs_db::{Point, Points, RunOptions, Sample, Store};
use proptest::prelude::*;

/// What a sample of these points must say.
fn expected(points: &[Point]) -> Sample {
    let numbers = || points.iter().map(|p| p.value).filter(|v| !v.is_nan());
    Sample {
        count: points.len() as u64,
        nan_count: points.iter().filter(|p| p.value.is_nan()).count() as u64,
        first: points[0],
        last: points[points.len() - 1],
        min: numbers().reduce(f64::min),
        max: numbers().reduce(f64::max),
        step_min: points.iter().map(|p| p.step).min().unwrap(),
        step_max: points.iter().map(|p| p.step).max().unwrap(),
    }
}

/// Equal where NaN equals itself.
fn same(a: &Sample, b: &Sample) -> bool {
    let text = |sample: &Sample| format!("{sample:?}");
    text(a) == text(b)
}

/// A store with one run and this series, logged by columns or point by point, closed or not.
fn with_series(path: &std::path::Path, points: &[Point], closed: bool) -> (Store, String) {
    let store = Store::open(path).unwrap();
    let run = store.experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    let series = run.series("loss").unwrap();
    let column = |part: &[Point]| -> Points { part.iter().copied().collect() };
    for (at, part) in points.chunks(points.len().div_ceil(3).max(1)).enumerate() {
        let columns = column(part);
        if at == 1 {
            part.iter().for_each(|p| series.log_at(p.step, p.timestamp_ms, p.value).unwrap());
        } else {
            series.log_columns(&columns.steps, &columns.timestamps_ms, &columns.values).unwrap();
        }
    }
    let id = run.id().to_owned();
    drop((series, run));
    if !closed {
        return (store, id);
    }
    store.close().unwrap();
    (Store::options().read_only(true).open(path).unwrap(), id)
}

#[test]
fn of_a_million_points_each_is_in_one_sample_and_the_spike_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let spike = 654_321;
    let points: Vec<Point> = (0..1_000_000)
        .map(|n| Point { step: n, timestamp_ms: n, value: if n == spike { 1e9 } else { (n % 1000) as f64 } })
        .collect();
    let (store, run) = with_series(directory.path(), &points, true);
    let history = store.history(&run, "loss").unwrap();
    for columns in [1, 7, 100, 2_000, 30_000] {
        let samples = history.sample(columns).unwrap();
        assert!(samples.len() <= columns, "{}", samples.len());
        // Steps rise, so the samples cut the series into pieces that follow each other.
        let mut rest = &points[..];
        for sample in &samples {
            let (mine, later) = rest.split_at(usize::try_from(sample.count).unwrap());
            assert!(same(sample, &expected(mine)), "{sample:?}");
            rest = later;
        }
        assert!(rest.is_empty());
        let spikes: Vec<&Sample> = samples.iter().filter(|s| s.max == Some(1e9)).collect();
        assert_eq!(spikes.len(), 1);
        // A border may be off by a stored column, not more.
        let width = 1_000_000 / columns as i64;
        for (at, sample) in samples.iter().enumerate().filter(|_| columns <= 100) {
            let exact = at as i64 * width;
            assert!((sample.step_min - exact).abs() <= 4096 + 1, "{at}: {sample:?}");
        }
    }
    // A part of it: as if there was nothing else.
    let part = history.clone().steps(500_000..=500_999).sample(10).unwrap();
    let exact: Vec<Sample> = points[500_000..501_000].chunks(100).map(expected).collect();
    assert_eq!(part, exact);
    let late = history.clone().timestamps(999_990..).sample(5).unwrap();
    assert_eq!((late.len(), late.iter().map(|s| s.count).sum::<u64>()), (1, 10));
    assert!(history.clone().steps(5_000_000..).sample(5).unwrap().is_empty());
    assert!(store.history(&run, "never logged").unwrap().sample(5).unwrap().is_empty());
    for columns in [0, 65_537, usize::MAX] {
        assert!(matches!(history.sample(columns), Err(mlrs_db::Error::InvalidArgument { .. })));
    }
}

#[test]
fn writers_of_one_series_come_together() {
    let directory = tempfile::tempdir().unwrap();
    let stores: Vec<Store> = (0..3).map(|_| Store::open(directory.path()).unwrap()).collect();
    let run = stores[0].experiment("e").unwrap().start_run(RunOptions::new()).unwrap();
    for (n, store) in stores.iter().enumerate() {
        let series = store.resume_run(run.id()).unwrap().series("loss").unwrap();
        for step in 0..100 {
            series.log_at(step, step, (n as f64 + 1.0) * if step == 42 { 100.0 } else { 1.0 }).unwrap();
        }
    }
    let samples = stores[1].history(run.id(), "loss").unwrap().sample(10).unwrap();
    assert_eq!(samples.iter().map(|s| s.count).collect::<Vec<_>>(), [30; 10]);
    assert_eq!((samples[4].min, samples[4].max), (Some(1.0), Some(300.0)));
    assert_eq!((samples[3].min, samples[3].max), (Some(1.0), Some(3.0)));
    assert_eq!((samples[9].first.step, samples[9].last.step), (90, 99));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn short_series_are_cut_exactly(
        steps in proptest::collection::vec(prop_oneof![4 => -50i64..50, 1 => any::<i64>()], 1..400),
        columns in 1usize..30,
        closed in any::<bool>(),
    ) {
        let value = |n: usize| if n.is_multiple_of(7) { f64::NAN } else { (n * 31 % 17) as f64 };
        let points: Vec<Point> = steps
            .iter()
            .enumerate()
            .map(|(n, &step)| Point { step, timestamp_ms: n as i64, value: value(n) })
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let (store, run) = with_series(directory.path(), &points, closed);
        let samples = store.history(&run, "loss").unwrap().sample(columns).unwrap();
        let (low, high) = (*steps.iter().min().unwrap(), *steps.iter().max().unwrap());
        let span = i128::from(high) - i128::from(low) + 1;
        let column = |step: i64| (i128::from(step) - i128::from(low)) * columns as i128 / span;
        let exact: Vec<Sample> = (0..columns as i128)
            .filter_map(|c| {
                let mine: Vec<Point> = points.iter().copied().filter(|p| column(p.step) == c).collect();
                (!mine.is_empty()).then(|| expected(&mine))
            })
            .collect();
        prop_assert_eq!(samples.len(), exact.len());
        for (sample, exact) in samples.iter().zip(&exact) {
            prop_assert!(same(sample, exact), "{:?} is not {:?}", sample, exact);
        }
    }
}
