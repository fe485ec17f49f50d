//! What a script may do. Entities are named by small numbers, taken modulo what is there, so that every part of a
//! script is a script.

use proptest::prelude::*;

/// How the store is opened, here and at every reopening.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// Hand over every millisecond instead of every minute.
    pub flushes: bool,
    /// Segments roll at the smallest size there is.
    pub rolls: bool,
    /// Record by record with `pwrite`, also where maps are possible.
    pub unmapped: bool,
}

pub type RawPoint = (i64, i64, f64);

#[derive(Clone, Debug)]
pub enum Op {
    Experiment { name: u8 },
    CreateExperiment { name: u8, location: bool, tag: Option<u8> },
    RenameExperiment { experiment: u8, name: u8 },
    DeleteExperiment { experiment: u8 },
    RestoreExperiment { experiment: u8 },
    TagExperiment { experiment: u8, key: u8, value: u8 },
    UntagExperiment { experiment: u8, key: u8 },
    StartRun { experiment: u8, name: u8, params: Vec<(u8, u8)>, tags: Vec<(u8, u8)>, parent: Option<u8> },
    Resume { run: u8 },
    DeleteRun { run: u8 },
    RestoreRun { run: u8 },
    RenameRun { run: u8, name: u8 },
    SetStatus { run: u8, status: u8, end: Option<i64> },
    Finish { run: u8, status: u8 },
    LogSeries { run: u8, key: u8, points: Vec<RawPoint> },
    LogMany { run: u8, key: u8, count: u16 },
    LogMetric { run: u8, key: u8, step: i64, value: f64 },
    LogMetrics { run: u8, step: i64, values: Vec<(u8, f64)> },
    LogColumns { run: u8, key: u8, points: Vec<RawPoint> },
    LogNoise { run: u8, key: u8, count: u16, seed: u64 },
    LogUnevenColumns { run: u8, key: u8 },
    LogBatch { run: u8, metrics: Vec<(u8, RawPoint)>, params: Vec<(u8, u8)>, tags: Vec<(u8, u8)> },
    LogParams { run: u8, params: Vec<(u8, u8)> },
    SetTags { run: u8, tags: Vec<(u8, u8)> },
    DeleteTag { run: u8, key: u8 },
    LogInputs { run: u8, inputs: Vec<(u8, u8, u8)> },
    BeginPages { run: u8, key: u8, size: u8 },
    NextPage { pager: u8, size: u8 },
    Sync,
    Pause,
    Close { opening: Opening },
    Drop { opening: Opening },
    Kill { opening: Opening },
    LoseIndex { how: u8, opening: Opening },
    Check { run: u8 },
    CheckAll { by_reader: bool },
}

/// What every script begins with.
pub const PRELUDE: [Op; 4] = [
    Op::Experiment { name: 1 },
    Op::CreateExperiment { name: 3, location: true, tag: None },
    Op::StartRun { experiment: 0, name: 1, params: Vec::new(), tags: Vec::new(), parent: None },
    Op::StartRun { experiment: 1, name: 0, params: Vec::new(), tags: Vec::new(), parent: None },
];

pub fn opening() -> impl Strategy<Value = Opening> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(flushes, rolls, unmapped)| Opening {
        flushes,
        rolls,
        unmapped,
    })
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-50i32..50).prop_map(|n| f64::from(n) / 8.0),
        2 => any::<f64>(),
        1 => any::<u64>().prop_map(f64::from_bits),
        2 => prop::sample::select(vec![
            0.0,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            f64::from_bits(0xfff8_0000_0000_0123),
            f64::from_bits(0x7ff0_0000_0000_0001),
            f64::from_bits(1),
            f64::MAX,
        ]),
    ]
}

fn step() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -3i64..12, 1 => prop::sample::select(vec![i64::MIN, i64::MAX, i64::MIN + 1, -1]), 1 => any::<i64>()]
}

/// Mostly times a script can agree on; never near the wall clock, which the driver uses for calls without a time.
fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        12 => 0i64..40,
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, -1, i64::MAX - 1]),
    ]
}

fn point() -> impl Strategy<Value = RawPoint> {
    (step(), timestamp(), value())
}

/// Times as `log_batch` takes them, now and then one that it refuses.
fn batch_point() -> impl Strategy<Value = RawPoint> {
    (step(), prop_oneof![30 => 0i64..40, 1 => Just(i64::MAX), 1 => Just(-1)], value())
}

fn pairs(most: usize) -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0u8..7, 0u8..3), 0..=most)
}

pub fn op() -> impl Strategy<Value = Op> {
    let (run, key, experiment) = (0u8..6, 0u8..7, 0u8..5);
    let r = || run.clone();
    let k = || key.clone();
    let e = || experiment.clone();
    let metadata = prop_oneof![
        4 => (0u8..6).prop_map(|name| Op::Experiment { name }),
        2 => (0u8..6, any::<bool>(), prop::option::of(0u8..4))
            .prop_map(|(name, location, tag)| Op::CreateExperiment { name, location, tag }),
        2 => (e(), 0u8..6).prop_map(|(experiment, name)| Op::RenameExperiment { experiment, name }),
        1 => e().prop_map(|experiment| Op::DeleteExperiment { experiment }),
        2 => e().prop_map(|experiment| Op::RestoreExperiment { experiment }),
        2 => (e(), 0u8..7, 0u8..3).prop_map(|(experiment, key, value)| Op::TagExperiment { experiment, key, value }),
        1 => (e(), 0u8..7).prop_map(|(experiment, key)| Op::UntagExperiment { experiment, key }),
        8 => (e(), 0u8..4, pairs(3), pairs(3), prop::option::of(r())).prop_map(
            |(experiment, name, params, tags, parent)| Op::StartRun { experiment, name, params, tags, parent }
        ),
        4 => r().prop_map(|run| Op::Resume { run }),
        2 => r().prop_map(|run| Op::DeleteRun { run }),
        3 => r().prop_map(|run| Op::RestoreRun { run }),
        2 => (r(), 0u8..4).prop_map(|(run, name)| Op::RenameRun { run, name }),
        2 => (r(), 0u8..5, prop::option::of(any::<i64>()))
            .prop_map(|(run, status, end)| Op::SetStatus { run, status, end }),
        1 => (r(), 0u8..5).prop_map(|(run, status)| Op::Finish { run, status }),
        3 => (r(), pairs(3)).prop_map(|(run, params)| Op::LogParams { run, params }),
        3 => (r(), pairs(3)).prop_map(|(run, tags)| Op::SetTags { run, tags }),
        2 => (r(), 0u8..8).prop_map(|(run, key)| Op::DeleteTag { run, key }),
        3 => (r(), prop::collection::vec((0u8..3, 0u8..3, 0u8..3), 0..4))
            .prop_map(|(run, inputs)| Op::LogInputs { run, inputs }),
    ];
    let points = prop_oneof![
        8 => (r(), k(), prop::collection::vec(point(), 0..12))
            .prop_map(|(run, key, points)| Op::LogSeries { run, key, points }),
        1 => (r(), k(), prop_oneof![9 => 500u16..5_000, 1 => 20_000u16..40_000])
            .prop_map(|(run, key, count)| Op::LogMany { run, key, count }),
        3 => (r(), k(), step(), value()).prop_map(|(run, key, step, value)| Op::LogMetric { run, key, step, value }),
        4 => (r(), step(), prop::collection::vec((k(), value()), 0..5))
            .prop_map(|(run, step, values)| Op::LogMetrics { run, step, values }),
        5 => (r(), k(), prop::collection::vec(point(), 0..12))
            .prop_map(|(run, key, points)| Op::LogColumns { run, key, points }),
        2 => (r(), k(), 1u16..9_000, any::<u64>())
            .prop_map(|(run, key, count, seed)| Op::LogNoise { run, key, count, seed }),
        1 => (r(), k()).prop_map(|(run, key)| Op::LogUnevenColumns { run, key }),
        6 => (r(), prop::collection::vec((k(), batch_point()), 0..6), pairs(2), pairs(2))
            .prop_map(|(run, metrics, params, tags)| Op::LogBatch { run, metrics, params, tags }),
    ];
    let around = prop_oneof![
        1 => Just(Op::Sync),
        3 => Just(Op::Pause),
        3 => opening().prop_map(|opening| Op::Close { opening }),
        1 => opening().prop_map(|opening| Op::Drop { opening }),
        6 => opening().prop_map(|opening| Op::Kill { opening }),
        2 => (0u8..3, opening()).prop_map(|(how, opening)| Op::LoseIndex { how, opening }),
    ];
    let questions = prop_oneof![
        4 => r().prop_map(|run| Op::Check { run }),
        1 => any::<bool>().prop_map(|by_reader| Op::CheckAll { by_reader }),
        3 => (r(), k(), 1u8..9).prop_map(|(run, key, size)| Op::BeginPages { run, key, size }),
        5 => (any::<u8>(), 1u8..9).prop_map(|(pager, size)| Op::NextPage { pager, size }),
    ];
    prop_oneof![10 => metadata, 10 => points, 3 => around, 4 => questions]
}
