//! Artifact files, in and out of the store.
//!
//! Contract: a file appears under its name only when it is complete (written beside the artifacts, then renamed).
//! All copying goes through [`copy_file`].

use std::fs;
use std::io;
use std::path::Path;

use super::report::ArtifactMode;
use crate::error::{Error, Result};

/// Copies a file; the number of bytes.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<u64> {
    // std uses copy_file_range here, which shares blocks where the file system can.
    fs::copy(from, to).map_err(|e| Error::io("copy", from, e))
}

/// Creates the directory of a file.
pub(super) fn create_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))
}

/// What became of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// It is there now.
    New,
    /// It was there already.
    Same,
    /// Another file is there under its name, and was left.
    Different,
}

/// Brings a file into the artifact directory of a run.
pub(super) fn store(
    root: &Path,
    path: &Path,
    source: &Path,
    mode: ArtifactMode,
    replace: bool,
) -> Result<Stored> {
    let to = root.join(path);
    let exists = fs::metadata(&to).is_ok();
    if exists && same_content(source, &to)? {
        return Ok(Stored::Same);
    }
    if exists && !replace {
        return Ok(Stored::Different);
    }
    create_parent(&to)?;
    let Some(beside) = root.parent() else {
        return Err(Error::invalid(format!("{} cannot hold artifacts", root.display())));
    };
    let partial = beside.join("artifact.partial");
    let _ = fs::remove_file(&partial);
    let linked = mode == ArtifactMode::Link
        && fs::canonicalize(source).is_ok_and(|f| fs::hard_link(f, &partial).is_ok());
    if !linked {
        copy_file(source, &partial)?;
    }
    fs::rename(&partial, &to).map_err(|e| Error::io("rename to", &to, e))?;
    Ok(Stored::New)
}

/// Compares two files block by block.
fn same_content(a: &Path, b: &Path) -> Result<bool> {
    use io::Read;
    let open = |path: &Path| fs::File::open(path).map_err(|e| Error::io("open", path, e));
    let (mut first, mut second) = (open(a)?, open(b)?);
    let length = |file: &fs::File, path: &Path| {
        file.metadata().map(|m| m.len()).map_err(|e| Error::io("read", path, e))
    };
    if length(&first, a)? != length(&second, b)? {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let count = first.read(&mut left).map_err(|e| Error::io("read", a, e))?;
        let (left, right) =
            (left.get(..count).unwrap_or_default(), right.get_mut(..count).unwrap_or_default());
        if count == 0 {
            return Ok(true);
        }
        match second.read_exact(right) {
            Ok(()) if left == right => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(Error::io("read", b, e)),
        }
    }
}
