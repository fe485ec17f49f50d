//! How much of each workload is run.

/// Amounts; `--quick` takes the small ones, whose figures are a smoke test and nothing to quote.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Steps of the long run, at most [`crate::data::STEPS`].
    pub steps: usize,
    /// Small runs.
    pub runs: usize,
    /// How long single calls go on.
    pub call_seconds: f64,
    /// Warm repetitions of a question.
    pub questions: usize,
    /// Live keys of W2-keys and many-keys, and how long the day of the latter is.
    pub many_keys: usize,
    pub day_seconds: usize,
    /// How long W2-60s goes on.
    pub long_seconds: f64,
    /// Runs of W3-100k.
    pub many_runs: usize,
    /// R4-growth ends at ten to this power.
    pub growth_exponent: u32,
}

impl Sizes {
    pub fn new(is_quick: bool) -> Self {
        match is_quick {
            false => Self {
                steps: crate::data::STEPS,
                runs: crate::data::RUNS,
                call_seconds: 1.0,
                questions: 9,
                many_keys: 10_000,
                day_seconds: 86_400,
                long_seconds: 60.0,
                many_runs: 100_000,
                growth_exponent: 9,
            },
            true => Self {
                steps: 10_000,
                runs: 200,
                call_seconds: 0.1,
                questions: 3,
                many_keys: 1_000,
                day_seconds: 600,
                long_seconds: 0.5,
                many_runs: 2_000,
                growth_exponent: 6,
            },
        }
    }
}
