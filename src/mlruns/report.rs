//! Options and reports of import and export: plain data.
//!
//! Contract: a report counts everything and lists at most `PROBLEMS_LISTED_MAX` problems, so a tree of rubbish
//! cannot fill the memory; `problems_total` is the true number.

use std::path::PathBuf;

/// Problems listed in a report; more are only counted.
pub const PROBLEMS_LISTED_MAX: usize = 10_000;

/// What to do with the files under `artifacts/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArtifactMode {
    /// Copy them into the store, sharing the blocks where the file system can.
    #[default]
    Copy,
    /// Hard-link them; where that is not possible (another file system), copy.
    Link,
    /// Remember where they are and read them there at export.
    Reference,
    /// Leave them out.
    Skip,
}

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Name of the tree, part of every identity; the canonical path of the source if not given.
    pub tree: Option<String>,
    /// Artifacts.
    pub artifacts: ArtifactMode,
    /// Fail, and import nothing, if there is any problem.
    pub strict: bool,
    /// Only look; the report is that of an import.
    pub dry_run: bool,
    /// Take files that changed since they were imported, over what the store has. A run with a changed param, or a
    /// metric file that did not only grow, is taken anew as a whole, unless it was changed in the store.
    pub replace: bool,
}

/// Something wrong with the tree, or a change that was not taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file or directory.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: Option<u64>,
    /// What is wrong and what was done.
    pub text: String,
}

/// How far an import or export is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Experiments begun.
    pub experiments: u64,
    /// Runs done.
    pub runs: u64,
    /// Runs in all, as far as known.
    pub runs_total: u64,
    /// Points read (import) or written (export).
    pub points: u64,
    /// Bytes read or written.
    pub bytes: u64,
}

/// What an import did.
#[derive(Clone, Debug, Default)]
pub struct ImportReport {
    /// Experiments in the tree.
    pub experiments: u64,
    /// Runs in the tree.
    pub runs: u64,
    /// Points in the tree.
    pub points: u64,
    /// Points that were new to the store.
    pub points_added: u64,
    /// Registers that were new or changed.
    pub registers_written: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Artifact files in the tree.
    pub artifacts: u64,
    /// YAML files of MLflow (artifacts not counted).
    pub yaml_files: u64,
    /// Of these, kept as their original bytes.
    pub yaml_verbatim: u64,
    /// Metric files of runs.
    pub metric_files: u64,
    /// Of these, kept as their original bytes beside the points.
    pub metric_verbatim: u64,
    /// Of these, with some lines that are kept as they are.
    pub metric_irregular: u64,
    /// Of these, with values not spelled as `repr(float)` (kept as a column).
    pub metric_respelled: u64,
    /// Other files that are no entities.
    pub other_files: u64,
    /// Problems, the first `PROBLEMS_LISTED_MAX` of them.
    pub problems: Vec<Problem>,
    /// How many problems in all.
    pub problems_total: u64,
}

impl ImportReport {
    /// Adds a problem.
    pub(super) fn problem(&mut self, path: impl Into<PathBuf>, line: Option<u64>, text: impl Into<String>) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_LISTED_MAX {
            self.problems.push(Problem { path: path.into(), line, text: text.into() });
        }
    }
}

/// How to export.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// Only this tree (its name), as it was.
    pub tree: Option<String>,
    /// Replace what is in the target. What was there is removed once the export is complete.
    pub overwrite: bool,
    /// Artifact locations that start with the first text start with the second instead.
    pub rewrite_uris: Vec<(String, String)>,
    /// Leave artifacts out.
    pub skip_artifacts: bool,
}

/// Something of the store that has no place in the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexportable {
    /// What: "experiment", "run", "metric", "param", ...
    pub what: &'static str,
    /// Its name or path.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What an export did.
#[derive(Clone, Debug, Default)]
pub struct ExportReport {
    /// Experiments written.
    pub experiments: u64,
    /// Runs written.
    pub runs: u64,
    /// Points written.
    pub points: u64,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What could not be written: every experiment and run, and the first `PROBLEMS_LISTED_MAX` of the rest.
    pub unexportable: Vec<Unexportable>,
    /// How many in all.
    pub unexportable_total: u64,
}

impl ExportReport {
    /// Adds something that has no place.
    pub(super) fn refuse(&mut self, what: &'static str, name: impl Into<String>, reason: impl Into<String>) {
        self.unexportable_total += 1;
        let is_whole = matches!(what, "experiment" | "run");
        if is_whole || self.unexportable.len() < PROBLEMS_LISTED_MAX {
            self.unexportable.push(Unexportable { what, name: name.into(), reason: reason.into() });
        }
    }
}
