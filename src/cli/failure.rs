//! How a command fails: exit codes, and what to do next.
//!
//! Contract: [`exit_code`] gives every [`Error`] one of the documented codes (0 ok, 1 failure, 2 usage, 3 not found,
//! 4 corruption, 5 busy); the match has no wildcard, so a new variant must choose.

use std::io;
use std::path::Path;

use super::output::shell_quoted;
use crate::Error;

/// The file that says which store a directory is.
const IDENTITY_FILE: &str = "MLRS";

pub(super) const FAILURE: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const NOT_FOUND: u8 = 3;
pub(super) const CORRUPTION: u8 = 4;
pub(super) const BUSY: u8 = 5;

/// Why a command stopped.
#[derive(Debug)]
pub(super) enum Failure {
    /// The engine said no.
    Engine(Error),
    /// The engine said no, and the verb knows better what to do about it.
    Advised {
        /// What it said.
        error: Error,
        /// What to do.
        advice: String,
        /// The exit code, where the verb decides it.
        code: u8,
    },
    /// The command line makes no sense, in words, with what to write instead.
    Usage(String),
    /// Standard output could not be written. A closed pipe is no failure: who reads had enough.
    Output(io::Error),
    /// All has been said already (on stderr, or as the answer itself); only the code is left.
    Told(u8),
}

/// What commands return.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// Only for writing to standard output; every other file operation is wrapped in [`Error::Io`] where it happens.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// The process's exit code.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Engine(error) => exit_code(error),
            Self::Advised { code, .. } => *code,
            Self::Usage(_) => USAGE,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) => FAILURE,
            Self::Told(code) => *code,
        }
    }

    /// What stderr says, without the leading `error:`; none if there is nothing to say.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Engine(error) | Self::Advised { error, .. } => Some(error.to_string()),
            Self::Usage(text) => Some(text.clone()),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::Output(error) => Some(format!("write to standard output: {error}")),
            Self::Told(_) => None,
        }
    }

    /// What to do next, where the text does not say it. `can_skip_damage`: the verb has a flag for it, not given yet.
    pub(super) fn advice(&self, can_skip_damage: bool) -> Option<String> {
        match self {
            Self::Engine(error) => advice(error, can_skip_damage),
            Self::Advised { advice, .. } => Some(advice.clone()),
            _ => None,
        }
    }

    /// The same failure with advice of the verb, if it has some about this error.
    pub(super) fn advised(self, advice: impl FnOnce(&Error) -> Option<String>) -> Self {
        match self {
            Self::Engine(error) => match advice(&error) {
                Some(advice) => Self::Advised { code: exit_code(&error), advice, error },
                None => Self::Engine(error),
            },
            other => other,
        }
    }
}

/// The exit code of an engine error.
pub(super) fn exit_code(error: &Error) -> u8 {
    match error {
        Error::NotAStore { .. } | Error::NotFound { .. } => NOT_FOUND,
        Error::InvalidArgument(_) => USAGE,
        Error::Corrupt { .. } | Error::TornTail { .. } | Error::Gap { .. } | Error::StrictImport { .. } => {
            CORRUPTION
        }
        Error::Busy { .. } => BUSY,
        Error::Io { .. }
        | Error::DiskFull { .. }
        | Error::NewerFormat { .. }
        | Error::AlreadyExists { .. }
        | Error::InvalidState(_)
        | Error::Poisoned { .. }
        | Error::ReadOnly { .. } => FAILURE,
    }
}

/// What to do about an engine error whose text names no remedy of the command line.
fn advice(error: &Error, can_skip_damage: bool) -> Option<String> {
    let variable = super::args::STORE_VARIABLE;
    let text = match error {
        Error::NotAStore { path, .. } if may_become_a_store(path) => {
            let path = shell_quoted(path);
            format!("make one with `mlrs-db init {path}`, or name another with --store DIR or {variable}")
        }
        Error::NotAStore { .. } => format!("name a store with --store DIR or {variable}"),
        Error::Corrupt { .. } | Error::TornTail { .. } | Error::Gap { .. } if can_skip_damage => {
            "--skip-damage answers from what is intact; `mlrs-db verify` says what is damaged, `mlrs-db repair` sets \
             it aside"
                .into()
        }
        Error::Corrupt { path, .. } if path.ends_with(IDENTITY_FILE) => {
            "what was logged lies in other files: reading verbs do with --skip-damage; to write again, run `mlrs-db \
             repair`, or move this file away and run `mlrs-db init` on the directory, which gives the store a new \
             identity"
                .into()
        }
        Error::Corrupt { .. } | Error::TornTail { .. } | Error::Gap { .. } => {
            "`mlrs-db verify` says what is damaged; `mlrs-db repair` keeps what is intact and sets the rest aside"
                .into()
        }
        Error::NotFound { what: "run", .. } => "`mlrs-db runs ls --view all` lists every run".into(),
        Error::NotFound { what: "experiment", .. } => {
            "`mlrs-db experiments ls --view all` lists every experiment".into()
        }
        Error::NotFound { what: "metric", .. } => {
            "`mlrs-db metrics ls RUN` lists the metrics of a run".into()
        }
        Error::StrictImport { .. } => {
            "`mlrs-db import --dry-run` lists the problems; without --strict all that is readable is taken in"
                .into()
        }
        Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "check who owns the files and whether you may read and write them".into()
        }
        _ => return None,
    };
    Some(text)
}

/// Whether `init` takes the directory: one that is not there, an empty one, or a log that lost its identity.
fn may_become_a_store(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none() || path.join("log").is_dir(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn io_error(kind: io::ErrorKind) -> Error {
        Error::Io { action: "open", path: "x".into(), source: kind.into() }
    }

    #[test]
    fn every_error_has_its_documented_code() {
        let path = || PathBuf::from("store");
        let text = || String::from("text");
        let table = [
            (io_error(io::ErrorKind::PermissionDenied), 1),
            (io_error(io::ErrorKind::NotFound), 1),
            (Error::DiskFull { action: "append to", path: path() }, 1),
            (Error::Corrupt { path: path(), offset: 7, expected: text(), found: text() }, 4),
            (Error::TornTail { path: path(), offset: 7, missing: 3 }, 4),
            (Error::NewerFormat { path: path(), what: "segment", found: text(), supported: text() }, 1),
            (Error::NotAStore { path: path(), reason: text() }, 3),
            (Error::NotFound { what: "run", name: text() }, 3),
            (Error::AlreadyExists { what: "experiment", name: text(), hint: text() }, 1),
            (Error::InvalidArgument(text()), 2),
            (Error::InvalidState(text()), 1),
            (Error::Busy { what: text(), holder: text() }, 5),
            (Error::Poisoned { reason: text() }, 1),
            (Error::Gap { run: text(), key: text(), first: 1, next: 2 }, 4),
            (Error::StrictImport { path: path(), problems: 2 }, 4),
            (Error::ReadOnly { path: path() }, 1),
        ];
        for (error, code) in table {
            assert_eq!(exit_code(&error), code, "{error:?}");
            assert_eq!(Failure::from(error).exit_code(), code);
        }
    }

    #[test]
    fn one_problem_is_not_many() {
        let text = |problems| Error::StrictImport { path: "tree".into(), problems }.to_string();
        assert!(text(1).starts_with("1 problem found in tree and"), "{}", text(1));
        assert!(text(2).starts_with("2 problems found in tree and"), "{}", text(2));
    }

    #[test]
    fn a_closed_pipe_is_silent_and_no_failure() {
        let closed = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed.exit_code(), closed.text()), (0, None));
        let full = Failure::Output(io::ErrorKind::StorageFull.into());
        assert_eq!(full.exit_code(), 1);
        assert!(full.text().is_some());
    }

    #[test]
    fn a_missing_store_says_how_to_get_one() {
        let advice = |path: &Path| {
            let error = Error::NotAStore { path: path.into(), reason: "no".into() };
            Failure::from(error).advice(false).unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path(), &dir.path().join("missing")] {
            for word in [&format!("mlrs-db init {}`", path.display()), "--store", "MLRS_DB_STORE"] {
                assert!(advice(path).contains(word), "{}", advice(path));
            }
        }
        let spaced = dir.path().join("my store");
        let quoted = format!("`mlrs-db init '{}'`", spaced.display());
        assert!(advice(&spaced).contains(&quoted), "{}", advice(&spaced));
        std::fs::write(dir.path().join("thesis.tex"), "text").unwrap();
        for path in [dir.path(), &dir.path().join("thesis.tex")] {
            assert_eq!(advice(path), "name a store with --store DIR or MLRS_DB_STORE");
        }
        std::fs::create_dir(dir.path().join("log")).unwrap();
        assert!(advice(dir.path()).contains("mlrs-db init"), "a log without its identity");
    }

    #[test]
    fn damage_names_the_flag_where_there_is_one() {
        let damage = |path: &str| Failure::from(Error::corrupt(path, 7, "a", "b"));
        assert!(damage("log/a-0.seg").advice(true).unwrap().contains("--skip-damage"));
        assert!(damage("log/a-0.seg").advice(false).unwrap().contains("`mlrs-db repair`"));
        assert!(damage("store/MLRS").advice(false).unwrap().contains("mlrs-db init"));
    }
}
