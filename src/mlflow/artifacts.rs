//! Lists of artifacts, and which file a request for bytes is about. The bytes themselves are the carrier's business.
//!
//! Contract: a proxy hands out what is below `artifacts/` of its store and nothing else, whatever location a client
//! gave to an experiment: what the server's user may read is no reason to show it to everybody who can send a request.

use serde::Serialize;

use super::answer::json;
use super::failure::{Code, Failure};
use super::request::{Call, decoded};
use super::routes::{Answered, Route, capture};
use super::{Answer, Door, Protocol};
use crate::store::ArtifactInfo;

/// How locations begin that lead to the proxy of the server that is asked.
const PROXY_SCHEME: &str = "mlflow-artifacts:/";
/// Where the proxy is, after `/api/` or `/ajax-api/`. MLflow 1 leaves out the slash between this and the path.
const PROXY: &str = "2.0/mlflow-artifacts/artifacts";

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
    if call.door() == Door::Files {
        return listed(Some(&root), &call.store().list_artifacts(&run.uid.to_string(), &path)?);
    }
    let folder = run_folder(call, &run.uid.to_string(), &root)?;
    listed(Some(&root), &relative_list(call, &folder, &path)?)
}

/// What is below a path of a folder of artifacts; the paths in it are relative to that folder.
pub(super) fn relative_list(call: &Call<'_>, folder: &str, path: &str) -> Result<Vec<ArtifactInfo>, Failure> {
    let mut files = call.store().list_artifacts_below(&joined(folder, path))?;
    for file in &mut files {
        if let Some(inside) = file.path.strip_prefix(folder) {
            file.path = inside.trim_start_matches('/').to_owned();
        }
    }
    Ok(files)
}

/// A path in a folder.
fn joined(folder: &str, path: &str) -> String {
    match (folder, path) {
        ("", other) | (other, "") => other.to_owned(),
        (folder, path) => format!("{folder}/{path}"),
    }
}

/// The path below the store's artifacts that a location leads to through the proxy.
fn proxied(location: &str) -> Result<Option<String>, Failure> {
    let Some(rest) = location.strip_prefix(PROXY_SCHEME) else { return Ok(None) };
    // Behind two slashes there is a host: another server.
    let is_elsewhere = rest.starts_with('/');
    (!is_elsewhere).then(|| safe_path(rest.trim_end_matches('/'))).transpose()
}

fn elsewhere(what: &str, location: &str) -> Failure {
    let message = format!(
        "The artifacts of {what} are at {location}. This server serves the artifacts that are in its store, and no \
         others: use the tools of that place."
    );
    Failure::new(Code::PermissionDenied, message)
}

/// Where below the store's artifacts those of a run are.
fn run_folder(call: &Call<'_>, run_id: &str, location: &str) -> Result<String, Failure> {
    if let Some(path) = proxied(location)? {
        return Ok(path);
    }
    call.store().run_artifacts_below(run_id)?.ok_or_else(|| elsewhere(&format!("run {run_id}"), location))
}

/// The same for a logged model.
pub(super) fn model_folder(call: &Call<'_>, id: &str, location: &str) -> Result<String, Failure> {
    if let Some(path) = proxied(location)? {
        return Ok(path);
    }
    let folder = call.store().logged_model_artifacts_below(id)?;
    folder.ok_or_else(|| elsewhere(&format!("logged model {id}"), location))
}

/// A source of files: `runs:/<run>/<path>`, `models:/<logged model>`, or a location.
fn source_folder(call: &Call<'_>, source: &str, what: &str) -> Result<String, Failure> {
    if let Some(rest) = source.strip_prefix("runs:/") {
        let (run_id, path) = rest.trim_start_matches('/').split_once('/').unwrap_or((rest, ""));
        let run = call.store().get_run(run_id)?;
        let root = call.door().locations(call.store()).of(&run)?.into_owned();
        return Ok(joined(&run_folder(call, &run.uid.to_string(), &root)?, &safe_path(path)?));
    }
    if let Some(id) = source.strip_prefix("models:/") {
        let model = call.store().get_logged_model(id)?;
        let root = call.door().locations(call.store()).of_model(&model);
        return model_folder(call, id, &root);
    }
    if let Some(path) = proxied(source)? {
        return Ok(path);
    }
    // A path on this machine that is in the store: sources were checked against their run when they were registered.
    let inside = source.strip_prefix(&call.store().artifacts_uri()).and_then(|rest| rest.strip_prefix('/'));
    inside.map(safe_path).unwrap_or_else(|| Err(elsewhere(what, source)))
}

impl Protocol {
    /// Whether a request is about the bytes of an artifact, and where that is below the store's artifacts: paths of the
    /// artifact proxy, `get-artifact` and its likes for versions of models, logged models and traces. None for any
    /// other request. `path` is what stands in the request line; [`Store::open_artifact_below`] and its kin take the
    /// answer.
    ///
    /// [`Store::open_artifact_below`]: crate::Store::open_artifact_below
    pub fn artifact(&self, path: &str) -> Option<Result<String, Answer>> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut call = Call { protocol: self, captured: Vec::new(), is_get: true, query, body: b"" };
        let inner = path.strip_prefix("/api/").or_else(|| path.strip_prefix("/ajax-api/"));
        let found = match (path, inner) {
            ("/get-artifact", _) => of_run(&call),
            ("/model-versions/get-artifact", _) => of_version(&call),
            (_, Some("2.0/mlflow/get-trace-artifact" | "3.0/mlflow/get-trace-artifact")) => of_trace(&call),
            (_, Some(inner)) => match (inner.strip_prefix(PROXY), of_model_file(inner)) {
                (None | Some("" | "/"), None) => return None,
                (Some(rest), _) => safe_path(&decoded(rest.strip_prefix('/').unwrap_or(rest), false)),
                (None, Some(id)) => {
                    call.captured = vec![id];
                    of_model(&call)
                }
            },
            _ => return None,
        };
        Some(found.map_err(|failure| failure.answer()))
    }
}

/// The id in the path for files of logged models.
fn of_model_file(inner: &str) -> Option<String> {
    capture("2.0/mlflow/logged-models/<model_id>/artifacts/files", inner)?.pop()
}

fn of_run(call: &Call<'_>) -> Result<String, Failure> {
    let params = call.params();
    let fields = params.fields();
    let path = safe_path(fields.required_text("path")?)?;
    let run = call.store().get_run(fields.run_id()?)?;
    let root = call.door().locations(call.store()).of(&run)?.into_owned();
    Ok(joined(&run_folder(call, &run.uid.to_string(), &root)?, &path))
}

fn of_version(call: &Call<'_>) -> Result<String, Failure> {
    let params = call.params();
    let fields = params.fields();
    let (name, number) = (fields.required_text("name")?, fields.required_text("version")?);
    let path = safe_path(fields.required_text("path")?)?;
    let number = number.parse().map_err(|_| {
        Failure::invalid(format!("Model version must be an integer, got '{}'", super::failure::clip(number)))
    })?;
    let version = call.store().get_model_version(name, number)?;
    let source = version.download_uri().unwrap_or_default();
    Ok(joined(&source_folder(call, source, &format!("version {number} of model {name}"))?, &path))
}

fn of_model(call: &Call<'_>) -> Result<String, Failure> {
    let params = call.params();
    let path = params.fields().text_or_empty("artifact_file_path")?;
    if path.is_empty() {
        let message = "Request must include the \"artifact_file_path\" query parameter.";
        return Err(Failure::new(Code::BadRequest, message));
    }
    let path = safe_path(path)?;
    let model = call.store().get_logged_model(call.captured(0))?;
    let root = call.door().locations(call.store()).of_model(&model);
    Ok(joined(&model_folder(call, call.captured(0), &root)?, &path))
}

fn of_trace(call: &Call<'_>) -> Result<String, Failure> {
    const SPANS: &str = "traces.json";
    let params = call.params();
    let fields = params.fields();
    let path = safe_path(fields.text("path")?.unwrap_or(SPANS))?;
    let trace = call.store().get_trace(fields.required_text("request_id")?)?;
    let location = call.door().locations(call.store()).of_trace(&trace);
    let folder = proxied(&location)?.ok_or_else(|| elsewhere(&format!("trace {}", trace.id), &location))?;
    Ok(joined(&folder, &path))
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
