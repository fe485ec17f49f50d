//! The engine as other tools link it: `examples/embed`, a package outside this workspace without default features.
//!
//! Contract: runs cargo, in a target directory of its own below this one, with the versions of this package's lock file
//! and without the network: whoever built this test has all it needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Crates that a thin build brings into a program, this one included.
const CRATES_MAX: usize = 35;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn target() -> PathBuf {
    let base = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    base.join("embed")
}

fn cargo(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--offline", "--manifest-path"])
        .arg(root().join("examples/embed/Cargo.toml"))
        .env("CARGO_TARGET_DIR", target())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    output
}

#[test]
fn another_program_links_the_thin_engine() {
    std::fs::copy(root().join("Cargo.lock"), root().join("examples/embed/Cargo.lock")).unwrap();
    let tree = cargo(&["tree", "--edges", "normal", "--prefix", "none"]);
    let tree = String::from_utf8(tree.stdout).unwrap();
    let mut crates: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    crates.retain(|c| !c.starts_with("embed v"));
    assert!(crates.iter().any(|c| c.starts_with("mlrs-db v")), "{tree}");
    assert!(crates.len() <= CRATES_MAX, "{} crates: {crates:#?}", crates.len());
    for heavy in ["tokio", "clap", "log", "tracing"] {
        assert!(!crates.iter().any(|c| c.split(' ').next() == Some(heavy)), "{heavy} is in the thin build");
    }

    cargo(&["build"]);
    let directory = tempfile::tempdir().unwrap();
    let program = target().join("debug").join("embed");
    let output = Command::new(program).arg(directory.path()).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "ok\n");
}
