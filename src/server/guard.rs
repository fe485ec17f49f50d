//! Who is answered: by host, origin and token; and what every answer says to browsers.
//!
//! Contract: nothing behind this sees a request that is not let in. `/health` is answered to everybody, `/version` to
//! every host, as in MLflow. Tokens are compared by digest, so time says nothing about them, and are never shown.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{App, api, bodies};
use crate::mlflow::Answer;
use crate::query::page::decode_base64;

const INVALID_HOST: &str = "Invalid Host header - possible DNS rebinding attack detected";
const CROSS_ORIGIN: &str = "Cross-origin request blocked";

/// A secret that opens the server: as bearer token, or as the password of any user.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(blake3::Hash);

impl Token {
    /// The token with this text.
    pub fn new(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Lets a request through, or not.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let host = host_of(request.headers());
    let origin =
        request.headers().get(header::ORIGIN).map(|value| value.to_str().unwrap_or("null").to_owned());
    let allows_origin = origin.as_deref().map(|origin| app.hosts.is_origin_allowed(origin, &host));
    let refused = refusal(&app, &request, &host, allows_origin);
    let is_preflight = request.method() == Method::OPTIONS && origin.is_some();
    let mut response = match refused {
        Some(response) => {
            let (parts, body) = request.into_parts();
            bodies::forget(body, &parts.headers).await;
            response
        }
        None if is_preflight => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    if let (Some(origin), Some(true)) = (origin, allows_origin) {
        welcome(headers, &origin, app.hosts.takes_any_origin(), is_preflight);
    }
    response
}

/// The one host of a request; empty if there is none, or more than one.
fn host_of(headers: &HeaderMap) -> String {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

fn refusal(app: &App, request: &Request, host: &str, allows_origin: Option<bool>) -> Option<Response> {
    let (method, path) = (request.method(), request.uri().path());
    if !matches!(path, "/health" | "/version") && !app.hosts.is_allowed(host) {
        return Some(forbidden(INVALID_HOST));
    }
    let changes = [Method::POST, Method::PUT, Method::DELETE, Method::PATCH].contains(method);
    if changes && allows_origin == Some(false) {
        return Some(forbidden(CROSS_ORIGIN));
    }
    // A browser asks for leave without saying who it is.
    let asks = *method == Method::OPTIONS && allows_origin.is_some();
    let open = path == "/health" || asks || app.options.tokens.is_empty();
    (!open && !has_token(app, request.headers())).then(|| {
        let message = "You are not authenticated. Set MLFLOW_TRACKING_TOKEN to the token of this server, or \
                       MLFLOW_TRACKING_USERNAME to any name and MLFLOW_TRACKING_PASSWORD to the token.";
        let mut response = api::response(Answer::error(401, "UNAUTHENTICATED", message));
        let scheme = HeaderValue::from_static("Basic realm=\"mlflow\", Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        response
    })
}

fn forbidden(text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn has_token(app: &App, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, rest)) = given.and_then(|given| given.split_once(' ')) else { return false };
    let rest = rest.trim();
    let secret = match scheme {
        scheme if scheme.eq_ignore_ascii_case("bearer") => Some(rest.to_owned()),
        scheme if scheme.eq_ignore_ascii_case("basic") => password(rest),
        _ => None,
    };
    let Some(secret) = secret else { return false };
    let digest = blake3::hash(secret.as_bytes());
    // All of them, each in constant time.
    app.options.tokens.iter().fold(false, |found, token| found | (token.0 == digest))
}

/// The password in `user:password` in base64.
fn password(encoded: &str) -> Option<String> {
    let pair = String::from_utf8(decode_base64(encoded.as_bytes())?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

/// Tells a browser that a page of this origin may have the answer.
fn welcome(headers: &mut HeaderMap, origin: &str, any: bool, is_preflight: bool) {
    let mut say = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    say(header::VARY, "Origin");
    say(header::ACCESS_CONTROL_ALLOW_ORIGIN, if any { "*" } else { origin });
    if !any {
        say(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    if is_preflight {
        say(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS, PATCH");
        say(header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-mlflow-experiment-id");
        say(header::ACCESS_CONTROL_MAX_AGE, "600");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_may_hold_colons() {
        // "me:a:b", "me"
        assert_eq!(password("bWU6YTpi").as_deref(), Some("a:b"));
        assert_eq!(password("bWU="), None);
        assert_eq!(password("not base64"), None);
    }

    #[test]
    fn tokens_are_never_shown() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Token(..)");
        assert!(Token::new("secret") == Token::new("secret") && Token::new("secret") != Token::new("secre"));
    }
}
