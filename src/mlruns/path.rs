//! Relative paths as keys of registers, and back as paths that stay inside the target.
//!
//! Contract: [`key_of`] is injective: a UTF-8 path is its own key, any other is NUL and its bytes in hex (no path
//! holds NUL). [`safe_path`] refuses whatever would leave the directory it is joined to, because keys come from
//! stores and a store may be hostile.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Longest name of one component on Linux.
const NAME_BYTES_MAX: usize = 255;
/// Longest path on Linux.
const PATH_BYTES_MAX: usize = 4096;

/// The key of a relative path.
pub(super) fn key_of(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("\0{hex}")
        }
    }
}

/// Whether a path has a key that is its text.
pub(super) fn is_text(path: &Path) -> bool {
    path.to_str().is_some()
}

/// The relative path of a key, if it is one that stays below the directory it is joined to.
pub(super) fn safe_path(key: &str) -> Option<PathBuf> {
    let bytes = match key.strip_prefix('\0') {
        None => key.as_bytes().to_vec(),
        Some(hex) => (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>()?,
    };
    let path = PathBuf::from(OsStr::from_bytes(&bytes));
    if bytes.is_empty() || bytes.len() > PATH_BYTES_MAX || bytes.contains(&0) {
        return None;
    }
    // `components` forgives "a//b", "a/" and "a/./b", which would be another path after a round trip.
    let whole = bytes
        .split(|&b| b == b'/')
        .all(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != b"." && name != b"..");
    (whole && path.components().all(|c| matches!(c, Component::Normal(_)))).then_some(path)
}

/// `file://` URI of an absolute path, percent-encoded as Python's `pathlib` does.
pub(super) fn file_uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_leave_the_target_are_refused() {
        for key in
            ["", ".", "..", "/etc", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b", "\0zz", "\0", "\0\u{32}f"]
        {
            assert_eq!(safe_path(key), None, "{key:?}");
        }
        assert_eq!(safe_path(&"x".repeat(256)), None);
        for key in ["a", "a/..b", " lead", "...", "meta.yaml", "é/ü"] {
            assert_eq!(safe_path(key), Some(PathBuf::from(key)));
        }
    }

    #[test]
    fn uris_are_encoded_like_pathlib() {
        assert_eq!(file_uri(Path::new("/a b/é~x")), "file:///a%20b/%C3%A9~x");
    }

    proptest! {
        #[test]
        fn every_path_has_one_key(names in prop::collection::vec(prop::collection::vec(1u8..=255, 1..20), 1..4)) {
            let without_slash = |name: Vec<u8>| name.into_iter().filter(|&b| b != b'/').collect();
            let names: Vec<Vec<u8>> = names.into_iter().map(without_slash).collect();
            prop_assume!(names.iter().all(|n: &Vec<u8>| !n.is_empty() && n != b"." && n != b".."));
            let path = PathBuf::from(OsStr::from_bytes(&names.join(&b'/')));
            prop_assert_eq!(safe_path(&key_of(&path)), Some(path));
        }
    }
}
