//! What `server` takes.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::super::time;

#[derive(Debug, Args)]
pub(in crate::cli) struct Server {
    /// Name or address to listen at; 0.0.0.0 for every address of the machine
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", value_hint = ValueHint::Hostname)]
    pub(in crate::cli) host: String,
    /// Port to listen at; 0 for any free one, which is printed
    #[arg(short, long, value_name = "PORT", default_value_t = 5000)]
    pub(in crate::cli) port: u16,
    /// The pages: MLflow's, if it is installed (auto), those in a directory, or none (off)
    #[arg(long, value_name = "auto|DIR|off", default_value = "auto", value_hint = ValueHint::DirPath)]
    pub(in crate::cli) ui: PathBuf,
    /// Let in only who has a token; the file holds one per line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(in crate::cli) auth_token_file: Option<PathBuf>,
    /// Listen beyond this machine without a token
    #[arg(long, conflicts_with = "auth_token_file")]
    pub(in crate::cli) no_auth: bool,
    /// Values of the header Host that are answered, with * for any text [default: local names, private addresses, and
    /// --host]
    #[arg(
        long,
        value_name = "HOSTS",
        value_delimiter = ',',
        env = "MLFLOW_SERVER_ALLOWED_HOSTS",
        hide_env_values = true
    )]
    pub(in crate::cli) allowed_hosts: Option<Vec<String>>,
    /// Origins of other pages that may change something, with * for any text
    #[arg(
        long,
        value_name = "ORIGINS",
        value_delimiter = ',',
        env = "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
        hide_env_values = true
    )]
    pub(in crate::cli) cors_allowed_origins: Vec<String>,
    /// Longest JSON body: 16MiB, 500k
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    pub(in crate::cli) max_json: u64,
    /// Longest artifact [default: what the disk holds]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(in crate::cli) max_artifact: Option<u64>,
    /// Connections at a time; further ones wait
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(in crate::cli) max_connections: u32,
    /// How long requests under way may take once the server is asked to stop
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = time::parse_duration)]
    pub(in crate::cli) drain: u64,
    /// A request is answered after its data were synced, so it survives a power cut
    #[arg(long)]
    pub(in crate::cli) sync: bool,
}

/// A number of bytes, perhaps with a unit.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        other => return Err(format!("'{other}' is no unit: B, k, KiB, M, MiB, G, GiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{digits}' is no whole number"))?;
    match number.checked_mul(factor) {
        Some(0) => Err("nothing would be accepted".into()),
        Some(bytes) => Ok(bytes),
        None => Err("too large".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("500", 500), ("500k", 500_000), ("16MiB", 16 << 20), ("2gib", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "0", "MiB", "-1", "1.5k", "1 parsec", "99999999999999999999", "99999999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
