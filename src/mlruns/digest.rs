//! Short digests: content of files, guards of overrides.
//!
//! Contract: digests are on disk; what is fed to them, and in which order, is part of the format.

use super::yaml_node::{Node, encode};

/// First 8 bytes of the BLAKE3 of something small: tells "the same as then" from "changed".
pub(super) type Short = [u8; 8];
/// First 16 bytes, for content.
pub(super) type Long = [u8; 16];

/// Short digest of bytes.
pub(super) fn short(bytes: &[u8]) -> Short {
    let mut digest = Short::default();
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut digest);
    digest
}

/// Long digest of what a hasher was fed.
pub(super) fn long(hasher: &blake3::Hasher) -> Long {
    let mut digest = Long::default();
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// Short digest of a node or of its absence.
pub(super) fn of_node(node: Option<&Node>) -> Short {
    let mut bytes = Vec::new();
    if let Some(node) = node {
        encode(node, &mut bytes);
    }
    short(&bytes)
}

/// Lower-case hex md5 of texts put together, as MLflow names directories of data sets and inputs.
pub(super) fn md5_of(parts: &[&str]) -> String {
    format!("{:x}", md5::compute(parts.concat()))
}
