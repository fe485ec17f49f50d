//! Where a version of a registered model may come from.
//!
//! Contract: a server must not hand out files that whoever registers a model could not have put there. So, as in
//! MLflow, a source that the server itself would serve, or that is a path on its machine, lies in the artifacts of the
//! run or the logged model that the request names; other stores are the client's business. Within a process
//! ([`Door::Files`]) every source is the caller's own. `models:/<name>/<...>` stands for the version that it names.

use super::Door;
use super::failure::Failure;
use super::request::{Call, decoded};
use crate::error::Error;
use crate::model::{ModelStage, ModelVersion};
use crate::store::{Store, path_of_uri};

/// What MLflow's clients give as source of a prompt.
const PROMPT_SOURCES: &[&str] = &["dummy-source", "prompt-template"];
/// The path of the artifact proxy, in URLs.
const PROXY_PATH: &[&str] = &["api", "2.0", "mlflow-artifacts", "artifacts"];

/// What a version is made of.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) source: String,
    pub(super) run_id: Option<String>,
    pub(super) model_id: Option<String>,
}

/// The source of a prompt: it has none.
pub(super) fn of_prompt(source: &str) -> Result<Source, Failure> {
    if !PROMPT_SOURCES.contains(&source) {
        return Err(Failure::invalid(format!(
            "Invalid prompt source: '{source}'. Prompt sources must use an MLflow placeholder."
        )));
    }
    Ok(Source { source: source.to_owned(), run_id: None, model_id: None })
}

/// Which thing must own a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner<'a> {
    Run(&'a str),
    Model(&'a str),
}

impl Owner<'_> {
    const fn param(self) -> &'static str {
        match self {
            Self::Run(_) => "run_id",
            Self::Model(_) => "model_id",
        }
    }
}

fn not_of(source: &str, owner: Owner<'_>) -> Failure {
    Failure::invalid(format!(
        "Invalid model version source: '{source}'. The {} request parameter must identify the resource that contains \
         the source.",
        owner.param()
    ))
}

/// The source of a model, checked, with the run and the logged model that it belongs to.
pub(super) fn of_model(
    call: &Call<'_>,
    source: &str,
    run_id: Option<&str>,
    model_id: Option<&str>,
) -> Result<Source, Failure> {
    let given = |text: Option<&str>| text.map(str::to_owned);
    if let Some(version) = version_named(call.store(), source)? {
        let differs = |asked: Option<&str>, is: &Option<String>| {
            asked.is_some_and(|asked| asked != is.as_deref().unwrap_or_default())
        };
        if differs(run_id, &version.run_id) || differs(model_id, &version.model_id) {
            return Err(Failure::invalid(format!(
                "Invalid model version source: '{source}'. The run_id and model_id request parameters must match the \
                 referenced model version."
            )));
        }
        return Ok(Source {
            source: format!("models:/{}/{}", version.name, version.version),
            run_id: given(run_id).or(version.run_id),
            model_id: given(model_id).or(version.model_id),
        });
    }
    if call.door() == Door::Proxy {
        let model = model_id.filter(|id| !id.is_empty()).map(Owner::Model);
        check(call, source, model.unwrap_or(Owner::Run(run_id.unwrap_or_default())))?;
    }
    Ok(Source { source: source.to_owned(), run_id: given(run_id), model_id: given(model_id) })
}

/// The version that a `models:/<name>/<number, stage or latest>` or `models:/<name>@<alias>` names; none for any other
/// source.
fn version_named(store: &Store, source: &str) -> Result<Option<ModelVersion>, Failure> {
    let Some(path) = source.strip_prefix("models:") else { return Ok(None) };
    if path.starts_with("//") && !path.starts_with("///") {
        return Err(Failure::invalid(format!(
            "Invalid model version source: '{source}'. Registered model sources must use the active model registry."
        )));
    }
    let invalid = || not_of(source, Owner::Model(""));
    let path = path.strip_prefix('/').ok_or_else(invalid)?.trim_start_matches('/');
    let (name, version) = match (path.split_once('/'), path.rsplit_once('@')) {
        (Some((name, rest)), _) if name.trim().is_empty() || rest.trim().is_empty() || rest.contains('/') => {
            return Err(invalid());
        }
        (Some((name, rest)), _) => {
            let latest = |stages: &[ModelStage]| {
                let all = store.latest_model_versions(name, stages)?;
                let greatest = all.into_iter().max_by_key(|version| version.version);
                greatest.ok_or_else(|| Error::NotFound { what: "model version", name: path.to_owned() })
            };
            let version = match rest.parse::<u64>() {
                Ok(number) => store.get_model_version(name, number)?,
                Err(_) if rest.eq_ignore_ascii_case("latest") => latest(&[])?,
                Err(_) => latest(&[rest.parse()?])?,
            };
            (name, version)
        }
        (None, Some((name, alias))) if !name.is_empty() && !alias.is_empty() => {
            (name, store.get_model_version_by_alias(name, alias)?)
        }
        (None, Some(_)) => return Err(invalid()),
        (None, None) if path.trim().is_empty() => return Err(invalid()),
        // A logged model, by its id.
        (None, None) => return Ok(None),
    };
    let prompt = store.get_registered_model(name)?.tags.get("mlflow.prompt.is_prompt").cloned();
    if prompt.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(Failure::invalid(format!(
            "Invalid model version source: '{source}'. Prompt versions cannot be used as model version sources."
        )));
    }
    Ok(Some((*version).clone()))
}

fn check(call: &Call<'_>, source: &str, owner: Owner<'_>) -> Result<(), Failure> {
    let (scheme, rest) = match source.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
        _ => (String::new(), source),
    };
    if scheme.is_empty() || scheme == "file" {
        return check_local(call, source, owner);
    }
    refuse_relative(source, rest)?;
    let has_host = rest.starts_with("//") && !rest.starts_with("///");
    match (scheme.as_str(), owner) {
        ("runs", Owner::Run(run)) => {
            let named = rest.trim_start_matches('/').split('/').next().unwrap_or_default();
            match !has_host && !run.is_empty() && named == run {
                true => Ok(()),
                false => Err(not_of(source, owner)),
            }
        }
        ("models", Owner::Model(model)) if !has_host && rest.trim_matches('/') == model => Ok(()),
        ("runs", Owner::Model(_)) => Err(not_of(source, owner)),
        ("models", _) => Err(not_of(source, Owner::Model(""))),
        (scheme, _) if is_served(scheme, rest) => match root_of(call, source, owner)? {
            Some(root) if is_within(source, &root) => Ok(()),
            _ => Err(not_of(source, owner)),
        },
        _ => Ok(()),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// Whether the server itself answers a URI.
fn is_served(scheme: &str, rest: &str) -> bool {
    let parts: Vec<String> = path_parts(rest);
    let is_proxy =
        || parts.windows(PROXY_PATH.len()).any(|window| window.iter().zip(PROXY_PATH).all(|(a, b)| a == b));
    scheme == "mlflow-artifacts" || (matches!(scheme, "http" | "https") && is_proxy())
}

/// The artifacts of the owner, if it is named.
fn root_of(call: &Call<'_>, source: &str, owner: Owner<'_>) -> Result<Option<String>, Failure> {
    let missing = |error| match error {
        Error::NotFound { .. } => not_of(source, owner),
        other => Failure::from(other),
    };
    match owner {
        Owner::Run("") | Owner::Model("") => Ok(None),
        Owner::Run(run) => {
            let run = call.store().get_run(run).map_err(missing)?;
            Ok(Some(call.door().locations(call.store()).of(&run)?.into_owned()))
        }
        Owner::Model(model) => {
            let model = call.store().get_logged_model(model).map_err(missing)?;
            Ok(Some(call.door().locations(call.store()).of_model(&model)))
        }
    }
}

/// The parts of a URI's path, behind its host, fully decoded.
fn path_parts(rest: &str) -> Vec<String> {
    let path = match rest.strip_prefix("//") {
        Some(after) => after.split_once('/').map_or("", |(_, path)| path),
        None => rest,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.split('/').filter(|part| !part.is_empty()).map(fully_decoded).collect()
}

fn fully_decoded(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let once = decoded(&text, true).into_owned();
        if once == text {
            return text;
        }
        text = once;
    }
}

/// Whether a URI is below another one: same scheme and host, and its path begins with the other's.
fn is_within(source: &str, root: &str) -> bool {
    let parts = |uri: &str| {
        let (scheme, rest) = uri.split_once(':')?;
        let host = rest.strip_prefix("//").map_or("", |after| after.split('/').next().unwrap_or_default());
        Some((scheme.to_ascii_lowercase(), host.to_ascii_lowercase(), path_parts(rest)))
    };
    match (parts(source), parts(root)) {
        (Some((scheme, host, path)), Some((root_scheme, root_host, root_path))) => {
            scheme == root_scheme
                && host == root_host
                && !root_path.is_empty()
                && path.starts_with(&root_path)
        }
        _ => false,
    }
}

/// A path on this machine lies in the artifacts of the owner, which are on this machine, too.
fn check_local(call: &Call<'_>, source: &str, owner: Owner<'_>) -> Result<(), Failure> {
    let param = owner.param();
    let path = path_of_uri(&fully_decoded(source));
    // MLflow shows the path once it has looked at it.
    let shown = match (&path, owner) {
        (_, Owner::Run("")) | (None, _) => source.to_owned(),
        (Some(path), _) => path.display().to_string(),
    };
    let refused = || {
        Failure::invalid(format!(
            "Invalid model version source: '{shown}'. To use a local path as a model version source, the {param} \
             request parameter has to be specified and the local path has to be contained within the artifact directory \
             of the run specified by the {param}."
        ))
    };
    let root = root_of(call, source, owner)?.ok_or_else(refused)?;
    let has_parent = |path: &std::path::Path| {
        path.components().any(|part| matches!(part, std::path::Component::ParentDir))
    };
    match (&path, path_of_uri(&root)) {
        (Some(path), Some(root)) if !has_parent(path) && path.starts_with(&root) => Ok(()),
        _ => Err(refused()),
    }
}

/// A path with `..` or a NUL in it, however often it is encoded, leads elsewhere than it says.
fn refuse_relative(source: &str, rest: &str) -> Result<(), Failure> {
    let whole = fully_decoded(rest);
    let leaves = whole.contains('\0') || whole.split('/').any(|part| part == ".." || part == ".");
    let is_relative = !whole.starts_with('/') && !whole.is_empty();
    if leaves || is_relative {
        return Err(Failure::invalid(format!(
            "Invalid model version source: '{source}'. If supplying a source as an http, https, local file path, ftp, \
             objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references \
             present. Please provide an absolute path."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_serves_is_known_by_its_path() {
        for served in [
            "mlflow-artifacts:/1/r",
            "mlflow-artifacts://host/1",
            "http://h:5/x/api/2.0/mlflow-artifacts/artifacts/1",
        ] {
            let (scheme, rest) = served.split_once(':').unwrap();
            assert!(is_served(scheme, rest), "{served}");
        }
        for other in ["http://h/api/2.0/mlflow/x", "s3://b/api/2.0/mlflow-artifacts/artifacts/1"] {
            let (scheme, rest) = other.split_once(':').unwrap();
            assert!(!is_served(scheme, rest), "{other}");
        }
    }

    #[test]
    fn within_is_about_whole_parts() {
        let root = "mlflow-artifacts:/e/r/artifacts";
        for inside in [root, "mlflow-artifacts:/e/r/artifacts/model", "mlflow-artifacts:/e//r/%61rtifacts/m"]
        {
            assert!(is_within(inside, root), "{inside}");
        }
        for outside in [
            "mlflow-artifacts:/e/r/artifacts2",
            "mlflow-artifacts:/e/r",
            "mlflow-artifacts://h/e/r/artifacts",
        ] {
            assert!(!is_within(outside, root), "{outside}");
        }
    }

    #[test]
    fn relative_sources_are_refused() {
        for bad in ["/a/../b", "/a/%2e%2e/b", "/a/%252e%252e", "/a%00", "a/b"] {
            assert!(refuse_relative("x", bad).is_err(), "{bad}");
        }
        for good in ["/a/b", "//host/a", ""] {
            assert!(refuse_relative("x", good).is_ok(), "{good}");
        }
    }
}
