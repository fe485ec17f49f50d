//! Which request goes where.
//!
//! Contract: every endpoint of MLflow 3.18 is in one of two lists: the routes of the rooms, or what is refused with
//! 501. `/api/` (clients) and `/ajax-api/` (browsers) are the same, as is `preview/` (clients of MLflow 1). In a path
//! `<x>` stands for one segment, `<path:x>` for the rest.

use std::collections::HashMap;

use super::failure::Failure;
use super::request::{Call, decoded};
use super::{
    artifacts, assessments, experiments, history, inputs, log_batch, logged_models, registry, runs, search,
    server_info, traces,
};

/// What a handler gives: the JSON of status 200, or why not.
pub(super) type Answered = Result<Vec<u8>, Failure>;
/// Answers one kind of request.
pub(super) type Handler = fn(&Call<'_>) -> Answered;

/// One endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    method: &'static str,
    /// After `/api/`.
    path: &'static str,
    handler: Handler,
}

impl Route {
    pub(super) const fn get(path: &'static str, handler: Handler) -> Self {
        Self { method: "GET", path, handler }
    }

    pub(super) const fn post(path: &'static str, handler: Handler) -> Self {
        Self { method: "POST", path, handler }
    }

    pub(super) const fn patch(path: &'static str, handler: Handler) -> Self {
        Self { method: "PATCH", path, handler }
    }

    pub(super) const fn delete(path: &'static str, handler: Handler) -> Self {
        Self { method: "DELETE", path, handler }
    }
}

const ROOMS: &[&[Route]] = &[
    artifacts::ROUTES,
    assessments::ROUTES,
    experiments::ROUTES,
    history::ROUTES,
    inputs::ROUTES,
    log_batch::ROUTES,
    logged_models::ROUTES,
    registry::ROUTES,
    runs::ROUTES,
    search::ROUTES,
    server_info::ROUTES,
    traces::ROUTES,
];

/// What MLflow has and mlrs-db does not: the start of the path, and what it is called.
const REFUSED: &[(&str, &str)] = &[
    ("2.0/mlflow/artifacts/presigned-", "presigned URLs of artifacts"),
    ("2.0/mlflow/gateway-proxy", "the gateway"),
    ("2.0/mlflow/get-online-trace-details", "unified traces"),
    ("2.0/mlflow/traces", "the traces of MLflow 2, and links of traces"),
    ("3.0/mlflow/traces/calculate-filter-correlation", "correlations of traces"),
    ("3.0/mlflow/traces/metrics", "metrics of traces"),
    ("2.0/mlflow/unified-traces", "unified traces"),
    ("2.0/mlflow/runs/create-promptlab-run", "the prompt lab"),
    ("2.0/mlflow/webhooks", "webhooks"),
    ("2.0mlflow/experiments/search-datasets", "this path; it is 2.0/mlflow/experiments/search-datasets"),
    ("2.0/mlflow-artifacts/mpu/", "multipart uploads of artifacts"),
    ("2.0/mlflow-artifacts/presigned/", "presigned URLs of artifacts"),
    ("2.0/mlflow-artifacts/artifacts/", "artifacts as JSON; a server carries their bytes"),
    ("3.0/mlflow/datasets", "evaluation data sets"),
    ("3.0/mlflow/demo/", "demos"),
    ("3.0/mlflow/gateway/", "the gateway"),
    ("3.0/mlflow/genai/", "evaluation"),
    ("3.0/mlflow/issues", "issues"),
    ("3.0/mlflow/jobs/", "jobs"),
    ("3.0/mlflow/label-schemas/", "label schemas"),
    ("3.0/mlflow/mcp-servers", "MCP servers"),
    ("3.0/mlflow/prompt-optimization/", "prompt optimization"),
    ("3.0/mlflow/review-queues/", "review queues"),
    ("3.0/mlflow/scorer/", "scorers"),
    ("3.0/mlflow/scorers/", "scorers"),
    ("3.0/mlflow/skills", "skills"),
    ("3.0/mlflow/ui-telemetry", "telemetry"),
    ("3.0/mlflow/workspaces", "workspaces"),
];

/// What a path leads to.
pub(super) enum Found {
    Handler(Handler, Vec<String>),
    /// Other methods are known.
    OtherMethods,
    Nothing,
}

/// All routes, for finding.
#[derive(Debug)]
pub(super) struct Routes {
    exact: HashMap<&'static str, Vec<Route>>,
    patterns: Vec<Route>,
}

impl Routes {
    pub(super) fn new() -> Self {
        let mut routes = Self { exact: HashMap::new(), patterns: Vec::new() };
        for route in ROOMS.iter().copied().flatten() {
            match route.path.contains('<') {
                true => routes.patterns.push(*route),
                false => routes.exact.entry(route.path).or_default().push(*route),
            }
        }
        routes
    }

    /// Where a request goes.
    pub(super) fn find(&self, method: &str, path: &str) -> Found {
        let inner = path.strip_prefix("/api/").or_else(|| path.strip_prefix("/ajax-api/"));
        let Some(inner) = inner else { return Found::Nothing };
        let current;
        let inner = match inner.strip_prefix("2.0/preview/") {
            Some(rest) => {
                current = format!("2.0/{rest}");
                current.as_str()
            }
            None => inner,
        };
        let mut other_methods = false;
        for route in self.exact.get(inner).into_iter().flatten() {
            if route.method == method {
                return Found::Handler(route.handler, Vec::new());
            }
            other_methods = true;
        }
        if !other_methods {
            for route in &self.patterns {
                let Some(captured) = capture(route.path, inner) else { continue };
                if route.method == method {
                    return Found::Handler(route.handler, captured);
                }
                other_methods = true;
            }
        }
        match REFUSED.iter().find(|(start, _)| inner.starts_with(start)) {
            // Also where another path with a name in its place is served by another method.
            Some((_, what)) => Found::Handler(refuse, vec![(*what).to_owned()]),
            None if other_methods => Found::OtherMethods,
            None => Found::Nothing,
        }
    }
}

fn refuse(call: &Call<'_>) -> Answered {
    Err(Failure::not_implemented(call.captured(0)))
}

/// What stands at the `<...>` of a pattern, if the path fits.
pub(super) fn capture(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut captured = Vec::new();
    let mut rest = Some(path);
    for part in pattern.split('/') {
        let here = rest?;
        if part.starts_with("<path:") {
            captured.push(decoded(here, false).into_owned());
            rest = None;
            break;
        }
        let (segment, after) = match here.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (here, None),
        };
        match part.starts_with('<') {
            true if segment.is_empty() => return None,
            true => captured.push(decoded(segment, false).into_owned()),
            false if part != segment => return None,
            false => {}
        }
        rest = after;
    }
    rest.is_none().then_some(captured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_capture_segments() {
        let of = |pattern, path| capture(pattern, path);
        let two = of("traces/<id>/tags/<key>", "traces/tr-1/tags/a%2Fb").unwrap();
        assert_eq!(two, ["tr-1", "a/b"]);
        assert_eq!(of("artifacts/<path:p>", "artifacts/a/b%20c").unwrap(), ["a/b c"]);
        for (pattern, path) in
            [("a/<x>", "a/"), ("a/<x>", "a"), ("a/<x>", "a/b/c"), ("a/<x>/b", "a/x"), ("a/<x>", "b/x")]
        {
            assert_eq!(of(pattern, path), None, "{pattern} {path}");
        }
    }

    #[test]
    fn no_endpoint_is_there_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for route in ROOMS.iter().copied().flatten() {
            assert!(seen.insert((route.method, route.path)), "{} {}", route.method, route.path);
            assert!(!REFUSED.iter().any(|(start, _)| route.path == *start), "{}", route.path);
        }
    }
}
