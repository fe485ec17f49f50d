//! What `import` and `export` take.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum, ValueHint};

use super::ask::Damage;
use super::pairs;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Artifacts {
    /// Copy the files, sharing their blocks where the file system can
    Copy,
    /// Hard links; copies where they are not possible
    Link,
    /// Leave the files where they are and remember their place
    Reference,
    /// Leave artifacts out
    Skip,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// The mlruns directory; it is only read
    #[arg(value_name = "SRC", value_hint = ValueHint::DirPath)]
    pub(in crate::cli) source: PathBuf,
    /// Name of this tree, for `export --tree`; by default the absolute path of SRC
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(in crate::cli) tree: Option<String>,
    /// Import nothing if anything in the tree is damaged (exit code 4)
    #[arg(long)]
    pub(in crate::cli) strict: bool,
    /// Read and check everything, store nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Take files that changed since an earlier import instead of reporting them; a run whose params or logged points
    /// changed is taken anew as a whole, unless it was changed in the store
    #[arg(long)]
    pub(in crate::cli) replace: bool,
    /// What to do with artifact files
    #[arg(long, value_name = "HOW", default_value = "copy")]
    pub(in crate::cli) artifacts: Artifacts,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// The directory to write; empty or not there yet, outside of the store
    #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
    pub(in crate::cli) destination: PathBuf,
    /// Only this imported tree, as it was
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(in crate::cli) tree: Option<String>,
    /// In artifact locations, replace the start FROM by TO; split at the first "="; may be repeated
    #[arg(long, value_name = "FROM=TO", value_parser = pairs::from_to)]
    pub(in crate::cli) rewrite_uris: Vec<(String, String)>,
    /// Leave artifacts out
    #[arg(long)]
    pub(in crate::cli) skip_artifacts: bool,
    /// Replace what is in DEST; it is removed once the export is complete
    #[arg(long)]
    pub(in crate::cli) overwrite: bool,
    #[command(flatten)]
    pub(in crate::cli) damage: Damage,
}
