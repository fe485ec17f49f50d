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
}

impl Sizes {
    pub fn new(is_quick: bool) -> Self {
        match is_quick {
            false => {
                Self { steps: crate::data::STEPS, runs: crate::data::RUNS, call_seconds: 1.0, questions: 9 }
            }
            true => Self { steps: 10_000, runs: 200, call_seconds: 0.1, questions: 3 },
        }
    }
}
