//! Lists of artifacts. Their bytes are the carrier's business.

use serde::Serialize;

use super::answer::json;
use super::failure::Failure;
use super::request::{Call, decoded};
use super::routes::{Answered, Route};
use crate::store::ArtifactInfo;

pub(super) const ROUTES: &[Route] = &[
    Route::get("2.0/mlflow/artifacts/list", list),
    Route::get("2.0/mlflow-artifacts/artifacts", list_proxied),
];

#[derive(Serialize)]
struct FileInfo<'a> {
    path: &'a str,
    is_dir: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_size: Option<u64>,
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    root_uri: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<FileInfo<'a>>,
}

/// The answer of a list of artifacts.
pub(super) fn listed(root_uri: Option<&str>, files: &[ArtifactInfo]) -> Answered {
    fn file(info: &ArtifactInfo) -> FileInfo<'_> {
        FileInfo { path: &info.path, is_dir: info.is_dir, file_size: info.size }
    }
    json(&Listed { root_uri, files: files.iter().map(file).collect() })
}

/// A path inside a folder of artifacts, as MLflow lets it pass: relative, without `..`, however often it is encoded.
pub(super) fn safe_path(path: &str) -> Result<String, Failure> {
    const DECODED_MAX: usize = 10;
    let mut path = path.to_owned();
    for _ in 0..DECODED_MAX {
        let once = decoded(&path, false).into_owned();
        if once == path {
            break;
        }
        path = once;
    }
    let leaves = path.split(['/', '\\']).any(|part| part == "..");
    let drive = path.get(1..3).is_some_and(|rest| rest == ":/" || rest == ":\\");
    let is_absolute = path.starts_with(['/', '\\']) || path.starts_with("file:") || drive;
    if leaves || is_absolute || path.contains(['#', '\0', '\\']) {
        return Err(Failure::invalid("Invalid path"));
    }
    Ok(path)
}

fn list(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let id = fields.run_id()?;
    let path = safe_path(fields.text_or_empty("path")?)?;
    let run = call.store().get_run(id)?;
    let root = call.door().locations(call.store()).of(&run)?.into_owned();
    listed(Some(&root), &call.store().list_artifacts(&run.uid.to_string(), &path)?)
}

/// What is below a path of the artifact proxy; its names are relative to that path.
fn list_proxied(call: &Call<'_>) -> Answered {
    let params = call.params();
    let path = safe_path(params.fields().text_or_empty("path")?)?;
    let mut files = call.store().list_artifacts_below(&path)?;
    for file in &mut files {
        if let Some((_, name)) = file.path.rsplit_once('/') {
            file.path = name.to_owned();
        }
    }
    listed(None, &files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for good in ["", "model", "a/b c", "a/..b", "\u{e9}", "100%"] {
            assert_eq!(safe_path(good).unwrap(), good);
        }
        for bad in [
            "..",
            "a/../b",
            "/etc",
            "%2e%2e/x",
            "%252e%252e/x",
            "a\\..\\b",
            "file:///etc",
            "c:/x",
            "a#b",
            "a%00",
        ] {
            assert!(safe_path(bad).is_err(), "{bad}");
        }
    }
}
