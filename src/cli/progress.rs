//! Progress bars on stderr.
//!
//! Contract: drawn only when [`Output::progress`] says so, removed when done; never on standard output.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{Output, bytes, count};
use crate::mlruns;
use crate::store::report::Progress;

const UNSIZED: &str = "{spinner} {prefix}  {msg}";
const SIZED: &str = "{prefix} {wide_bar} {percent:>3} %  {bytes} of {total_bytes}, {msg}, {eta} left";
const RUNS: &str = "{prefix} {wide_bar} {human_pos} of {human_len} runs, {msg}, {eta} left";

/// A bar for work that reports [`Progress`].
pub(super) struct Bar {
    bar: ProgressBar,
    since: Instant,
    sized: bool,
}

impl Bar {
    /// A bar with what is being done in front.
    pub(super) fn new(out: &Output<'_>, doing: &'static str) -> Self {
        let bar = if out.progress {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style(UNSIZED));
            bar.set_prefix(doing);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::hidden()
        };
        Self { bar, since: Instant::now(), sized: false }
    }

    /// Moves to what has been done by now.
    pub(super) fn set(&mut self, progress: &Progress) {
        if self.bar.is_hidden() {
            return;
        }
        if progress.bytes_total > 0 {
            self.bar.set_length(progress.bytes_total);
            if !self.sized {
                self.sized = true;
                self.bar.set_style(style(SIZED));
            }
        }
        let points = rate(progress.points, self.since.elapsed());
        self.bar.set_message(if self.sized {
            points
        } else {
            format!("{}, {points}", bytes(progress.bytes_done))
        });
        self.bar.set_position(progress.bytes_done);
    }

    /// Moves to how far an import or export is; it counts runs, of which the number is known first.
    pub(super) fn set_tree(&mut self, progress: &mlruns::Progress) {
        if self.bar.is_hidden() {
            return;
        }
        if progress.runs_total > 0 {
            self.bar.set_length(progress.runs_total);
            if !self.sized {
                self.sized = true;
                self.bar.set_style(style(RUNS));
            }
        }
        let (points, size) = (rate(progress.points, self.since.elapsed()), bytes(progress.bytes));
        self.bar.set_message(format!("{size}, {points}"));
        self.bar.set_position(if self.sized { progress.runs } else { progress.bytes });
    }

    /// Prints a line above the bar.
    pub(super) fn above(&self, line: impl FnOnce()) {
        self.bar.suspend(line);
    }

    /// How long it has been there.
    pub(super) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Takes the bar away.
    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.done();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `1,234,567 points, 1.2 M points/s`.
pub(super) fn rate(points: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if seconds <= 0.0 {
        return format!("{} points", count(points));
    }
    let rate = points as f64 / seconds;
    let text = match rate {
        r if r >= 1e6 => format!("{:.1} M", r / 1e6),
        r if r >= 1e3 => format!("{:.1} k", r / 1e3),
        r => format!("{r:.0}"),
    };
    format!("{} points, {text} points/s", count(points))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [UNSIZED, SIZED, RUNS] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn rates_have_a_unit() {
        assert_eq!(rate(3_000_000, Duration::from_secs(2)), "3,000,000 points, 1.5 M points/s");
        assert_eq!(rate(500, Duration::from_secs(2)), "500 points, 250 points/s");
        assert_eq!(rate(5, Duration::ZERO), "5 points");
    }
}
