//! Newtypes for everything that is an identity.
//!
//! Contract: all are 128-bit values shown as 32 lower-case hex digits; they order by their bytes. [`Stamp`] is the
//! total order of metadata changes.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// A new random identity from the operating system's generator.
            ///
            /// # Errors
            /// When the system has no randomness to give (never on a running Linux).
            pub fn random() -> Result<Self> {
                let mut bytes = [0u8; 16];
                getrandom::fill(&mut bytes).map_err(|e| {
                    Error::io("read random bytes from", "the operating system", std::io::Error::other(e.to_string()))
                })?;
                Ok(Self(bytes))
            }

            /// The identity derived from a domain and its parts (BLAKE3, each part preceded by its length), so
            /// that the same parts give the same identity on every machine.
            pub fn derived(domain: &str, parts: &[&[u8]]) -> Self {
                let mut hasher = blake3::Hasher::new();
                for part in std::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
                    hasher.update(&(part.len() as u64).to_le_bytes());
                    hasher.update(part);
                }
                let mut bytes = [0u8; 16];
                hasher.finalize_xof().fill(&mut bytes);
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                parse_hex(text)
                    .map(Self)
                    .ok_or_else(|| Error::invalid(format!("'{text}' is not an id: expected 32 lower-case hex digits")))
            }
        }
    };
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let nibble = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'a'..=b'f' => Some(d - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0u8; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

identity! {
    /// An entity: an experiment, a run, an imported tree, ... A run that MLflow or this engine made has the run id
    /// itself as its uid.
    Uid
}
identity! {
    /// One writing process (one open of a store for writing).
    WriterId
}
identity! {
    /// One segment file; random, so that a frame is valid only in the file it was written to.
    SegmentId
}
identity! {
    /// Who logged a point: a writer, or for an import the hash of run, key and source.
    Origin
}
identity! {
    /// A store directory.
    StoreId
}
identity! {
    /// The content address of a blob: the first 16 bytes of its BLAKE3 hash.
    BlobId
}

impl From<WriterId> for Origin {
    fn from(writer: WriterId) -> Self {
        Self(writer.0)
    }
}

/// When a metadata change happened: a hybrid clock, totally ordered over all writers.
///
/// `millis` is the greater of the wall clock and the greatest stamp seen, `counter` counts within it, `writer` breaks
/// ties. The order of the fields is the order of stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Milliseconds since 1970, UTC.
    pub millis: u64,
    /// Position among stamps of the same millisecond.
    pub counter: u32,
    /// The writer that made the change.
    pub writer: WriterId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_as_32_hex_digits() {
        let id = Uid::from_bytes([0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(id.to_string(), "0f0102030405060708090a0b0c0d0eff");
        assert_eq!(id.to_string().parse::<Uid>().unwrap(), id);
        for bad in ["", "0F0102030405060708090A0B0C0D0EFF", "0f01", "zz0102030405060708090a0b0c0d0eff"] {
            assert!(bad.parse::<Uid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_ids_depend_on_every_part_and_its_border() {
        let a = Uid::derived("experiment", &[b"ab", b"c"]);
        assert_eq!(a, Uid::derived("experiment", &[b"ab", b"c"]));
        assert_ne!(a, Uid::derived("experiment", &[b"a", b"bc"]));
        assert_ne!(a, Uid::derived("run", &[b"ab", b"c"]));
    }
}
