//! Random scripts of API calls against a plain in-memory model.
//!
//! Contract: whatever a script does (log by every way there is, rename, delete, resume, close, be killed, lose the
//! index), every question has the answer of [`reference::Reference`], which is maps and vectors, bit for bit, and every
//! refused call is refused with the same kind of error and changes nothing. `MLRS_TEST_SCALE` multiplies the scripts.

mod driver;
#[path = "../medium/mod.rs"]
mod medium;
mod reference;
mod script;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use driver::{Driver, Place};

/// Scripts against files in memory, where a kill is an exact copy of one moment.
const MEMORY_SCRIPTS: u32 = 140;
/// Scripts against the disk, with mapped live files and `index.redb`.
const DISK_SCRIPTS: u32 = 20;

fn scale() -> u32 {
    std::env::var("MLRS_TEST_SCALE").ok().and_then(|s| s.parse().ok()).unwrap_or(1)
}

fn run_scripts(scripts: u32, place: fn() -> Place) {
    let config = Config {
        cases: scripts * scale(),
        failure_persistence: None,
        max_shrink_iters: 3_000,
        ..Config::default()
    };
    let strategy = (script::opening(), proptest::collection::vec(script::op(), 1..100));
    let outcome = TestRunner::new(config).run(&strategy, |(opening, script)| {
        let mut driver = Driver::begin(place(), opening);
        // Most of what can be done is done to runs, so there are some from the start.
        for op in script::PRELUDE.iter().chain(&script) {
            driver.step(op)?;
        }
        driver.end()
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (opening, script))) => {
            let lines: String = script.iter().map(|op| format!("    {op:?}\n")).collect();
            panic!("{reason}\n  {opening:?}\n{lines}");
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn scripts_on_files_in_memory_answer_as_the_model() {
    run_scripts(MEMORY_SCRIPTS, Place::memory);
}

#[test]
fn scripts_on_disk_answer_as_the_model() {
    run_scripts(DISK_SCRIPTS, Place::disk);
}

/// The comparison itself can fail: a point that only the model knows is noticed.
#[test]
fn a_point_that_is_missing_is_noticed() {
    let mut driver = Driver::begin(Place::memory(), script::Opening::default());
    let ops = [
        script::Op::Experiment { name: 1 },
        script::Op::StartRun { experiment: 0, name: 0, params: vec![], tags: vec![], parent: None },
        script::Op::LogSeries { run: 0, key: 0, points: vec![(1, 2, 3.0)] },
    ];
    for op in &ops {
        driver.step(op).unwrap();
    }
    driver.forge_point();
    prop_assert_is_err(driver.end());
}

fn prop_assert_is_err(result: Result<(), TestCaseError>) {
    assert!(matches!(result, Err(TestCaseError::Fail(_))), "the model did not notice: {result:?}");
}

/// A script that once missed its last point for a moment: a look at the store must not see half of a hand-over, also
/// when something else looks again before the first look is evaluated.
#[test]
fn a_point_that_is_being_handed_over_is_never_out_of_sight() {
    use script::{Op, Opening};
    for round in 0..150 {
        let flushing = Opening { flushes: true, ..Opening::default() };
        let mut driver = Driver::begin(Place::memory(), flushing);
        let script = [
            Op::LogMetrics { run: 1, step: -9, values: vec![(4, -4.25)] },
            Op::LogMetric { run: 1, key: 3, step: -1, value: 5.0 },
            Op::Kill { opening: flushing },
            Op::LogMetric { run: 1, key: 1, step: 0, value: 1.0 },
        ];
        for op in script::PRELUDE.iter().chain(&script) {
            driver.step(op).unwrap();
        }
        for check in 0..6 {
            let all = Op::CheckAll { by_reader: check % 2 == 0 };
            driver.step(&all).unwrap_or_else(|e| panic!("round {round}, check {check}: {e}"));
        }
    }
}
