//! The one error type of the crate.
//!
//! Contract: every fallible public call returns [`Error`]; a variant carries what a person needs to act (path,
//! offset, expected, found) and its text ends with what to do. Nothing else in the crate defines an error.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, in the terms of the person at the keyboard.
///
/// Non-exhaustive: match on what you handle and keep a wildcard arm.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation. The store is unchanged unless the text says otherwise.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb ("open", "append to").
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },

    /// The disk is full (ENOSPC or EDQUOT). Nothing acknowledged is lost; logging goes on once there is space.
    #[error("no space left to {action} {}: free some space and repeat the call", path.display())]
    DiskFull {
        /// What was being done.
        action: &'static str,
        /// The file that could not grow.
        path: PathBuf,
    },

    /// Bytes on disk are not what was written.
    #[error("{}: damaged at byte {offset}: expected {expected}, found {found}; run `mlrs-db verify` for a full report", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where the damage was noticed.
        offset: u64,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },

    /// A file ends inside a frame: the tail of an interrupted write. Everything before `offset` is intact.
    #[error("{}: ends inside a frame at byte {offset} ({missing} bytes short); everything before it is intact", path.display())]
    TornTail {
        /// The file.
        path: PathBuf,
        /// Start of the incomplete frame.
        offset: u64,
        /// How many bytes the frame lacks.
        missing: u64,
    },

    /// The bytes need a newer program than this one.
    #[error("{}: {what} has format version {found}, this program reads up to {supported}: use a newer mlrs-db", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Which structure.
        what: &'static str,
        /// The version or feature bits found.
        found: String,
        /// The newest that this program understands.
        supported: String,
    },

    /// A directory that should be a store is not one.
    #[error("{} is not an mlrs-db store: {reason}", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },

    /// Something named does not exist.
    #[error("{what} '{name}' does not exist")]
    NotFound {
        /// "run", "experiment", "metric", ...
        what: &'static str,
        /// As the caller named it.
        name: String,
    },

    /// A name or id is already taken.
    #[error("{what} '{name}' already exists{hint}")]
    AlreadyExists {
        /// "experiment", ...
        what: &'static str,
        /// The name.
        name: String,
        /// What to do, starting with a separator; may be empty.
        hint: String,
    },

    /// An argument breaks a rule or a limit.
    #[error("{0}")]
    InvalidArgument(String),

    /// The operation is not allowed in the entity's present state (a deleted run, a changed param, ...).
    #[error("{0}")]
    InvalidState(String),

    /// Somebody else holds what the call needs, or the disk cannot keep up. Nothing was changed.
    #[error("busy: {what} is held by {holder}; try again")]
    Busy {
        /// The lock or resource.
        what: String,
        /// Who holds it, as far as known.
        holder: String,
    },

    /// An earlier failed write or sync left this handle unusable. Open the store again.
    #[error("this handle stopped after an earlier failure ({reason}); open the store again")]
    Poisoned {
        /// The first failure.
        reason: String,
    },

    /// A snapshot could not be completed: ordinals of a series are missing.
    #[error("points {first}..{next} of '{key}' in run {run} are missing from the log; run `mlrs-db verify`")]
    Gap {
        /// Run id.
        run: String,
        /// Metric key.
        key: String,
        /// First missing ordinal.
        first: u64,
        /// First ordinal present again.
        next: u64,
    },

    /// The input of an import is damaged and `strict` was asked for; nothing was imported.
    #[error("{problems} problem{} found in {} and --strict was given; nothing was imported", if *problems == 1 { "" } else { "s" }, path.display())]
    StrictImport {
        /// The tree.
        path: PathBuf,
        /// How many problems.
        problems: u64,
    },

    /// The handle was opened for reading only.
    #[error("{} was opened read-only", path.display())]
    ReadOnly {
        /// The store.
        path: PathBuf,
    },
}

impl Error {
    /// Wraps an I/O error; full disks become [`Error::DiskFull`].
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        // What only looks needs no space, whatever a network file system calls it: its error is not to be repeated, and
        // must never pass for damage.
        let only_looks = matches!(action, "read" | "stat" | "measure" | "list");
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) if !only_looks => Self::DiskFull { action, path },
            _ => Self::Io { action, path, source },
        }
    }

    /// A sync that failed, for whatever reason: what the medium holds is unknown from now on, so this is never
    /// [`Error::DiskFull`], which a caller may repeat.
    pub(crate) fn failed_sync(path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { action: "sync", path: path.as_ref().to_path_buf(), source }
    }

    /// Damage at a place.
    pub(crate) fn corrupt(
        path: impl AsRef<Path>,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Corrupt {
            path: path.as_ref().to_path_buf(),
            offset,
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// A broken rule or limit.
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::InvalidArgument(text.into())
    }

    /// Something named is not there.
    pub(crate) fn not_found(what: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound { what, name: name.into() }
    }
}

/// What a pure decoder found wrong in a slice of bytes. Whoever knows the file turns it into [`Error::Corrupt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where in the slice.
    pub offset: usize,
    /// What should stand there, in words.
    pub expected: &'static str,
    /// The offending number (a length, a count, a tag), or 0.
    pub found: u64,
}

impl Malformed {
    /// Damage at `offset` of the slice.
    pub const fn new(offset: usize, expected: &'static str, found: u64) -> Self {
        Self { offset, expected, found }
    }

    /// The same damage, told of a file in which the slice starts at `base`.
    pub fn at(self, path: impl AsRef<Path>, base: u64) -> Error {
        let offset = base.saturating_add(self.offset as u64);
        Error::corrupt(path, offset, self.expected, self.found.to_string())
    }
}
