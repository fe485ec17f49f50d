//! What a writer logs, call by call, and what a store must hold of it afterwards.
//!
//! Contract: a writer is some threads of one process with one run of their own and one run shared by all writers. The
//! n-th call of a thread follows from its seed, and so does everything in the store after n calls. A thread calls one
//! after the other, so what is found of a dead one must be what n calls leave for some n not below those that returned.

use std::collections::BTreeMap;

use mlrs_db::{Metric, Points, Result, Run, Series, Store};

use crate::Random;

pub const THREADS: u64 = 3;
/// Points of one `log_columns`: one batch, so whole or not at all.
const COLUMN_POINTS: u64 = 100;
/// Room for the ordinal in a value of the shared run.
const TOKEN_SHIFT: f64 = 4_294_967_296.0;

#[derive(Clone, Copy, Debug)]
pub enum Call {
    Point,
    Metrics,
    Batch,
    Param,
    Tag,
    Columns(u64),
    SharedPoint,
    SharedParam,
}

/// How much there is of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub points: u64,
    pub metrics: u64,
    pub batches: u64,
    pub params: u64,
    pub tags: u64,
    pub shared_points: u64,
    pub shared_params: u64,
}

impl State {
    pub fn after(self, call: Call) -> Self {
        let mut next = self;
        match call {
            Call::Point => next.points += 1,
            Call::Columns(points) => next.points += points,
            Call::Metrics => next.metrics += 1,
            Call::Batch => next.batches += 1,
            Call::Param => next.params += 1,
            Call::Tag => next.tags += 1,
            Call::SharedPoint => next.shared_points += 1,
            Call::SharedParam => next.shared_params += 1,
        }
        next
    }

    /// Whether nothing of `other` is more.
    pub fn covers(&self, other: &Self) -> bool {
        self.points >= other.points
            && self.metrics >= other.metrics
            && self.batches >= other.batches
            && self.params >= other.params
            && self.tags >= other.tags
            && self.shared_points >= other.shared_points
            && self.shared_params >= other.shared_params
    }

    pub fn all_points(&self) -> u64 {
        self.points + 2 * self.metrics + 2 * self.batches + self.shared_points
    }
}

/// One thread of one writer.
#[derive(Clone, Debug)]
pub struct Script {
    pub seed: u64,
    pub thread: u64,
    /// Names the thread among all writers of a test.
    pub token: u64,
}

impl Script {
    /// The threads of the writer with this number.
    pub fn threads(seed: u64, writer: u64) -> Vec<Self> {
        let script = |thread| Self {
            seed: seed ^ (writer * THREADS + thread),
            thread,
            token: writer * THREADS + thread,
        };
        (0..THREADS).map(script).collect()
    }

    pub fn call(&self, n: u64) -> Call {
        let mut random = Random(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(n));
        match random.below(100) {
            0..=54 => Call::Point,
            55..=64 => Call::Metrics,
            65..=69 => Call::Batch,
            70..=71 => Call::Param,
            72..=73 => Call::Tag,
            74..=75 => Call::Columns(random.between(1, COLUMN_POINTS)),
            76..=98 => Call::SharedPoint,
            _ => Call::SharedParam,
        }
    }

    pub fn state(&self, calls: u64) -> State {
        (0..calls).fold(State::default(), |state, n| state.after(self.call(n)))
    }

    fn key(&self, name: &str) -> String {
        format!("t{}/{name}", self.thread)
    }

    fn value(&self, at: u64) -> f64 {
        at as f64 * 0.5 + self.thread as f64
    }

    fn shared_value(&self, at: u64) -> f64 {
        self.token as f64 * TOKEN_SHIFT + at as f64
    }
}

/// What one thread logs with.
pub struct Hand {
    pub script: Script,
    run: Run,
    points: Series,
    shared: Run,
    shared_points: Series,
    pub state: State,
}

impl Hand {
    pub fn new(script: Script, run: &Run, shared: &Run) -> Result<Self> {
        let points = run.series(&script.key("points"))?;
        let shared_points = shared.series("shared")?;
        Ok(Self {
            script,
            run: run.clone(),
            points,
            shared: shared.clone(),
            shared_points,
            state: State::default(),
        })
    }

    pub fn make(&mut self, call: Call) -> Result<()> {
        let (script, state) = (&self.script, self.state);
        match call {
            Call::Point => {
                let at = state.points;
                self.points.log_at(at as i64, at as i64, script.value(at))?;
            }
            Call::Columns(count) => {
                let all = state.points..state.points + count;
                let steps: Vec<i64> = all.clone().map(|at| at as i64).collect();
                let values: Vec<f64> = all.map(|at| script.value(at)).collect();
                self.points.log_columns(&steps, &steps, &values)?;
            }
            Call::Metrics => {
                let at = state.metrics;
                let values = ["m0", "m1"].map(|name| (script.key(name), script.value(at)));
                self.run.log_metrics(at as i64, values.iter().map(|(key, value)| (key.as_str(), *value)))?;
            }
            Call::Batch => {
                let at = state.batches;
                let metric = |name: &str, at: u64| Metric::new(script.key(name), at as i64, script.value(at));
                let metrics = [metric("batch", 2 * at), metric("batch", 2 * at + 1)];
                let (param, tag) = (script.key(&format!("bp{at}")), script.key(&format!("bt{at}")));
                self.run.log_batch(&metrics, &[(&param, "v")], &[(&tag, "v")])?;
            }
            Call::Param => self.run.log_param(&script.key(&format!("p{}", state.params)), "v")?,
            Call::Tag => self.run.set_tag(&script.key(&format!("t{}", state.tags)), "v")?,
            Call::SharedPoint => {
                let at = state.shared_points;
                self.shared_points.log_at(at as i64, at as i64, script.shared_value(at))?;
            }
            // A param of somebody else's run is a claim: under the store's lock.
            Call::SharedParam => {
                let key = format!("p{}-{}", script.token, state.shared_params);
                self.shared.log_param(&key, "v")?;
            }
        }
        self.state = state.after(call);
        Ok(())
    }
}

/// What a store says of the shared run: how much of each thread, by token.
#[derive(Debug, Default)]
pub struct Shared {
    pub points: BTreeMap<u64, u64>,
    pub params: BTreeMap<u64, u64>,
}

fn points(store: &Store, run: &str, key: &str) -> Points {
    store.history(run, key).and_then(|h| h.collect()).unwrap_or_else(|e| panic!("run {run} '{key}': {e}"))
}

/// Counts names `{prefix}0`, `{prefix}1`, ...; they must join.
fn joined<'a>(what: &str, prefix: &str, names: impl Iterator<Item = &'a String>) -> u64 {
    let mut numbers: Vec<u64> =
        names.filter_map(|name| name.strip_prefix(prefix)).filter_map(|rest| rest.parse().ok()).collect();
    numbers.sort_unstable();
    for (at, number) in (0..).zip(&numbers) {
        assert_eq!(*number, at, "{what}: {prefix}{at} is missing");
    }
    numbers.len() as u64
}

/// Checks that the shared run holds of each thread its points in order, each once.
pub fn look_at_shared(store: &Store, run: &str) -> Shared {
    let mut shared = Shared::default();
    for point in points(store, run, "shared").iter() {
        let token = (point.value / TOKEN_SHIFT) as u64;
        let at = (point.value - token as f64 * TOKEN_SHIFT) as u64;
        let next = shared.points.entry(token).or_default();
        assert_eq!(at, *next, "shared run: point of thread {token} lost, doubled or out of order");
        assert_eq!(point.step, at as i64);
        *next += 1;
    }
    let data = store.get_run(run).unwrap();
    for (name, at) in data.params.keys().filter_map(|name| name.strip_prefix('p')?.split_once('-')) {
        let (token, at): (u64, u64) = (name.parse().unwrap(), at.parse().unwrap());
        let most = shared.params.entry(token).or_default();
        *most = (*most).max(at + 1);
    }
    for (token, count) in &shared.params {
        assert_eq!(joined("shared run", &format!("p{token}-"), data.params.keys()), *count);
    }
    shared
}

/// Checks order and values of all that a store holds of one thread, and says how much it is. `whole`: the writer is
/// dead, so calls are there whole or not at all.
pub fn look(store: &Store, run: &str, script: &Script, shared: &Shared, whole: bool) -> State {
    let what = format!("run {run} thread {}", script.thread);
    let values = |name: &str| -> u64 {
        let key = script.key(name);
        let points = points(store, run, &key);
        for (at, point) in (0u64..).zip(points.iter()) {
            let found = (point.step, point.value);
            assert_eq!(found, (at as i64, script.value(at)), "{what} '{key}': lost, doubled or out of order");
        }
        points.len() as u64
    };
    let (all_points, metrics, batched) = (values("points"), ["m0", "m1"].map(values), values("batch"));
    let data = store.get_run(run).unwrap_or_else(|e| panic!("{what}: {e}"));
    let params = joined(&what, &script.key("p"), data.params.keys());
    let tags = joined(&what, &script.key("t"), data.tags.keys());
    let batch_params = joined(&what, &script.key("bp"), data.params.keys());
    let batch_tags = joined(&what, &script.key("bt"), data.tags.keys());
    if whole {
        assert!(metrics[0] == metrics[1], "{what}: half of a log_metrics: {metrics:?}");
        let batch = [batched / 2, batched.div_ceil(2), batch_params, batch_tags];
        assert!(batch.iter().all(|b| *b == batch_params), "{what}: half of a log_batch: {batch:?}");
        // The summaries tell the same story as the points.
        for summary in store.metrics(run).unwrap().iter().filter(|s| s.key == script.key("points")) {
            assert_eq!(summary.points, all_points, "{what}: summary");
            assert_eq!(data.metrics[&summary.key].step, all_points as i64 - 1, "{what}: latest");
        }
    }
    State {
        points: all_points,
        metrics: metrics[0].min(metrics[1]),
        batches: [batched / 2, batch_params, batch_tags].into_iter().min().unwrap_or(0),
        params,
        tags,
        shared_points: shared.points.get(&script.token).copied().unwrap_or(0),
        shared_params: shared.params.get(&script.token).copied().unwrap_or(0),
    }
}

/// How many calls left what was found of a dead thread: at least those acknowledged, and every one whole.
pub fn calls_of(script: &Script, found: &State, acknowledged: u64) -> u64 {
    let mut state = State::default();
    for n in 0.. {
        if state == *found {
            assert!(
                n >= acknowledged,
                "thread {}: lost calls {:?}: {found:?} is what {n} leave",
                script.token,
                n..acknowledged
            );
            return n;
        }
        let call = script.call(n);
        state = state.after(call);
        assert!(
            found.covers(&state),
            "thread {}: call {n} ({call:?}) is missing or half there (acknowledged {acknowledged}): {found:?}, it leaves {state:?}",
            script.token,
        );
    }
    unreachable!()
}
