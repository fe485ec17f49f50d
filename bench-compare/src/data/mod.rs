//! The data that every peer gets: metrics of one long run (W1, W2, R1) and a thousand small runs (W3, R2 to R4).
//!
//! Contract: a fixed seed; every process that asks makes the same bits. Values are float32 loss curves with noise, one
//! timestamp per step that all keys share, some 10 ms apart with jitter.

mod random;

use random::{Random, Ziggurat};

const SEED: u32 = 20_261_123;
/// Milliseconds since 1970 at which everything begins.
pub const START_MS: i64 = 1_760_000_000_000;
/// Keys of the long run.
pub const KEYS: usize = 10;
/// Steps of the long run: a million points.
pub const STEPS: usize = 100_000;
/// Params, tags and metrics of a small run, and steps of each metric.
pub const PARAMS: usize = 20;
pub const TAGS: usize = 5;
pub const METRICS: usize = 20;
pub const RUN_STEPS: usize = 10;
/// Runs of W3.
pub const RUNS: usize = 1_000;
/// R3 asks for runs with `m3` below this and `p1 = 'y'`.
pub const M3_BELOW: f64 = 0.75;
/// How many of them R3 wants, those with the greatest `m3`.
pub const TOP: usize = 100;

/// The long run: `KEYS` metrics that share steps 0.. and timestamps.
pub struct LongRun {
    pub timestamps_ms: Vec<i64>,
    pub values: Vec<Vec<f64>>,
}

impl LongRun {
    pub fn new() -> Self {
        Self::of(KEYS, STEPS)
    }

    /// The same kind of data in another shape.
    pub fn of(keys: usize, steps: usize) -> Self {
        let (mut random, ziggurat) = (Random::new(SEED), Ziggurat::new());
        let mut now_ms = START_MS;
        let mut tick = || {
            now_ms += 8 + i64::from(random.below(5));
            now_ms
        };
        let timestamps_ms = (0..steps).map(|_| tick()).collect();
        let mut curve = || {
            let (fall, floor) = (random.uniform(1.0, 8.0), random.uniform(0.05, 2.0));
            let slowness = random.uniform(2_000.0, 40_000.0);
            let mut value = |step: usize| {
                let noise = random.normal(&ziggurat) * 0.03;
                single((fall * (-(step as f64) / slowness).exp() + floor) * (1.0 + noise))
            };
            (0..steps).map(&mut value).collect()
        };
        let values = (0..keys).map(|_| curve()).collect();
        Self { timestamps_ms, values }
    }

    /// Timestamp and value at a step; past the last one values begin again and time goes on.
    #[inline]
    pub fn point(&self, key: usize, step: usize) -> (i64, f64) {
        let steps = self.timestamps_ms.len();
        let (lap, at) = (step / steps, step % steps);
        let lap_ms = self.timestamps_ms[steps - 1] - START_MS;
        (self.timestamps_ms[at] + lap as i64 * lap_ms, self.values[key][at])
    }

    pub fn keys(&self) -> usize {
        self.values.len()
    }

    /// Values of all keys at step 0, then at step 1, ...: in the order in which they are logged one by one.
    pub fn rows(&self) -> Vec<f64> {
        (0..self.timestamps_ms.len()).flat_map(|step| self.values.iter().map(move |key| key[step])).collect()
    }
}

pub fn long_key(key: usize) -> String {
    format!("train/loss_{key}")
}

/// Float32 precision, as metrics of a training loop have.
fn single(value: f64) -> f64 {
    f64::from(value as f32)
}

/// One small run: texts of params and tags, values of metrics by step.
pub struct SmallRun {
    pub number: usize,
    pub params: [String; PARAMS],
    pub tags: [String; TAGS],
    pub metrics: [[f64; RUN_STEPS]; METRICS],
}

impl SmallRun {
    pub fn timestamp_ms(number: usize, step: usize) -> i64 {
        START_MS + number as i64 * 60_000 + step as i64 * 1_000
    }

    pub fn last(&self, metric: usize) -> f64 {
        self.metrics[metric][RUN_STEPS - 1]
    }

    /// Number, params and tags between tabs.
    pub fn line(&self) -> String {
        let texts: Vec<&str> = self.params.iter().chain(&self.tags).map(String::as_str).collect();
        format!("{}\t{}\n", self.number, texts.join("\t"))
    }

    /// Whether R3 asks for it.
    pub fn is_wanted(&self) -> bool {
        self.params[1] == "y" && self.last(3) < M3_BELOW
    }
}

/// Names of params, tags and metrics of small runs.
pub fn param_key(param: usize) -> String {
    format!("p{param}")
}

pub fn tag_key(tag: usize) -> String {
    format!("tag{tag}")
}

pub fn metric_key(metric: usize) -> String {
    format!("m{metric}")
}

/// The small runs, one after the other, without an end.
pub struct SmallRuns {
    random: Random,
    ziggurat: Ziggurat,
    next: usize,
}

impl SmallRuns {
    pub fn new() -> Self {
        Self { random: Random::new(SEED + 3), ziggurat: Ziggurat::new(), next: 0 }
    }
}

impl Iterator for SmallRuns {
    type Item = SmallRun;

    fn next(&mut self) -> Option<SmallRun> {
        let Self { random, ziggurat, next } = self;
        let mut params: [String; PARAMS] = std::array::from_fn(|_| significant6(random.uniform(1e-5, 1.0)));
        params[1] = ["y", "x", "z", "w"][random.below(4) as usize].into();
        let tags = std::array::from_fn(|tag| format!("value-{}-{tag}", random.below(50)));
        let scales: [f64; METRICS] = std::array::from_fn(|_| random.uniform(0.1, 4.0));
        let metrics = scales.map(|scale| {
            std::array::from_fn(|step| {
                single(scale * (-(step as f64) / 4.0).exp() + random.normal(ziggurat) * 0.05 + 0.5)
            })
        });
        let number = *next;
        *next += 1;
        Some(SmallRun { number, params, tags, metrics })
    }
}

/// C's `%.6g`.
fn significant6(value: f64) -> String {
    let scientific = format!("{value:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let trimmed = |text: &str| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    if (-4..6).contains(&exponent) {
        trimmed(&format!("{value:.*}", (5 - exponent) as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first 16 hex digits of a digest over little-endian values.
    fn digest(bytes: impl Iterator<Item = [u8; 8]>) -> String {
        let mut hasher = blake3::Hasher::new();
        bytes.for_each(|word| {
            hasher.update(&word);
        });
        hasher.finalize().to_hex()[..16].to_owned()
    }

    // What NumPy 2.4 made of the same seed by the code in README.md, once, digested the same way.
    #[test]
    fn the_long_run_is_what_numpy_makes() {
        let run = LongRun::new();
        assert_eq!(digest(run.timestamps_ms.iter().map(|t| t.to_le_bytes())), "27df514b9b907e76");
        assert_eq!(digest(run.values.iter().flatten().map(|v| v.to_le_bytes())), "cd7ea28be838bd5c");
    }

    #[test]
    fn the_small_runs_are_what_numpy_makes() {
        let runs: Vec<SmallRun> = SmallRuns::new().take(RUNS).collect();
        let values = runs.iter().flat_map(|run| run.metrics.iter().flatten()).map(|v| v.to_le_bytes());
        assert_eq!(digest(values), "98bfc8dc82380b9a");
        let text: String = runs.iter().map(SmallRun::line).collect();
        assert_eq!(&blake3::hash(text.as_bytes()).to_hex()[..16], "d32e2f09acb56bdf");
        let mut wanted: Vec<f64> = runs.iter().filter(|run| run.is_wanted()).map(|run| run.last(3)).collect();
        wanted.sort_by(|a, b| b.total_cmp(a));
        assert_eq!((wanted.len(), wanted[..TOP].iter().sum::<f64>()), (157, 68.331_639_707_088_47));
    }

    #[test]
    fn six_digits_as_c_prints_them() {
        for (value, text) in [
            (0.5, "0.5"),
            (0.123_456_7, "0.123457"),
            (0.000_123_456_7, "0.000123457"),
            (0.000_012_345_67, "1.23457e-05"),
            (0.000_01, "1e-05"),
            (0.999_999_9, "1"),
        ] {
            assert_eq!(significant6(value), text);
        }
    }
}
