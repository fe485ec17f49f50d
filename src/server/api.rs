//! JSON requests: a body in, an answer of the protocol out.
//!
//! Contract: calls of the store block (on a disk, on another process's lock), so they run on threads that may block, a
//! bounded number at a time, and never on those that carry connections. A call that panics is an answer, too.
//!
//! Logging a point takes less than handing it to another thread, but it may wait as well: for a disk that is behind, or
//! for a sync. Then all that is served by the same thread would wait with it, so it is handed over like any other call.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use super::{App, bodies};
use crate::mlflow::{Answer, Protocol};

/// Calls the store on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    call: impl FnOnce(&App) -> T + Send + 'static,
) -> Result<T, Answer> {
    let internal = || Answer::error(500, "INTERNAL_ERROR", "The call failed; the server goes on");
    let _permit = app.store_calls.acquire().await.map_err(|_| internal())?;
    let app = Arc::clone(app);
    tokio::task::spawn_blocking(move || call(&app)).await.map_err(|_| internal())
}

/// The response of an answer.
pub(super) fn response(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Answers a request of the protocol.
pub(super) async fn answer(app: &Arc<App>, parts: Parts, body: Body) -> Answer {
    let method = match parts.method {
        Method::HEAD => Method::GET,
        method => method,
    };
    let body = match bodies::whole(app, &parts.headers, body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    if method != Method::GET && !body.bytes.is_empty() && !is_json(&parts.headers) {
        let message = "Bad Request. Content-Type must be one of ['application/json'].";
        return Answer::error(400, "BAD_REQUEST", message);
    }
    let target = parts.uri;
    let call = move |app: &App| {
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        ask(&app.protocol, method.as_str(), path, &body.bytes)
    };
    blocking(app, call).await.unwrap_or_else(|failed| failed)
}

fn ask(protocol: &Protocol, method: &str, path: &str, body: &[u8]) -> Answer {
    protocol.answer(method, path, body)
}

/// Whether a body says that it is JSON. Pages of other sites cannot say so without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
