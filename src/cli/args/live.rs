//! What the verbs take that look at runs while they are logged: `tail`, `top`, and `runs reap`.

use clap::Args;

use super::Damage;
use super::time;

#[derive(Debug, Args)]
pub(in crate::cli) struct Tail {
    /// Run id, a unique start of one, or a unique run name
    pub(in crate::cli) run: String,
    /// Only these metrics; they need not be there yet [default: all]
    #[arg(value_name = "KEY")]
    pub(in crate::cli) keys: Vec<String>,
    /// Begin with the last N points of each metric (and of each process that logged it)
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    pub(in crate::cli) last: u64,
    /// Begin with the first point
    #[arg(long, conflicts_with = "last")]
    pub(in crate::cli) from_start: bool,
    /// Print what is there and end
    #[arg(long)]
    pub(in crate::cli) no_follow: bool,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = interval)]
    pub(in crate::cli) interval: u64,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Top {
    /// Look once (two looks, a second apart, for the rates); also with --json, and where there is no terminal
    #[arg(long)]
    pub(in crate::cli) once: bool,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    pub(in crate::cli) interval: u64,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunsReap {
    /// Only runs without a sign of life for this long: 10m, 2h, 1d
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    pub(in crate::cli) after: u64,
    /// Tell which, change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// Not so short that looking is all that the machine does.
fn interval(text: &str) -> Result<u64, String> {
    match time::parse_duration(text)? {
        0 => Err("the shortest interval is 1ms".into()),
        ms => Ok(ms),
    }
}
