//! Chance that can be repeated: one generator for all tests, and where its seed comes from.
//!
//! Contract: the same numbers for the same seed on every machine. `MLRS_SEED` sets the seed; a test prints the one it
//! has. Included by path; not every program uses all of it.
#![allow(dead_code)]

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end.max(1)
    }

    /// A place in something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// From 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A number that the environment says.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The seed of this run.
pub fn seed() -> u64 {
    let clock =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64 % 1_000_000_007);
    number("MLRS_SEED").unwrap_or_else(clock)
}

/// The seed of this run, and where chance begins for one test.
pub fn random(test: &str) -> (u64, Random) {
    let seed = seed();
    let salt = test.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    (seed, Random(seed ^ salt.wrapping_mul(0x2545_f491_4f6c_dd1d)))
}

/// How often something is done: as said by the environment, or the short form.
pub fn cycles(short: u64) -> u64 {
    number("MLRS_SOAK_CYCLES").unwrap_or(short)
}
