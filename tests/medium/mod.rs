//! The suites run in every mode of the file system: `MLRS_TEST_MEDIUM` is `plain` (no mapped live file), `network`, or
//! not set. Only tests read it; the library has options.

use mlrs_db::{Network, Options, SharedMapping, Store};

/// Options of the mode that was asked for.
pub fn options() -> Options {
    match std::env::var("MLRS_TEST_MEDIUM").as_deref() {
        Ok("plain") => Store::options().shared_mapping(SharedMapping::Off),
        Ok("network") => Store::options().network(Network::On),
        Ok(other) => panic!("MLRS_TEST_MEDIUM is plain or network, not {other}"),
        Err(_) => Store::options(),
    }
}

/// Whether nobody's locks and files are trusted.
#[allow(dead_code, reason = "not every suite asks")]
pub fn is_network() -> bool {
    std::env::var("MLRS_TEST_MEDIUM").is_ok_and(|medium| medium == "network")
}
