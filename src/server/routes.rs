//! Which part answers which path.
//!
//! Contract: every request passes [`meters::count`] and [`guard::check`], in this order; what no other part knows is a
//! request of the protocol, which refuses what it does not know in MLflow's shape.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{any, get};

use super::{App, MLFLOW_VERSION, api, files, guard, meters, ui};
use crate::mlflow::Answer;

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/health", get(async || text("OK")))
        .route("/version", get(async || text(MLFLOW_VERSION)))
        .route("/metrics", get(meters::show))
        .route("/v1/traces", any(spans))
        .route("/graphql", any(graphql))
        .route("/", get(ui::index))
        .route("/static-files/{*path}", get(ui::file))
        .fallback(protocol)
        .method_not_allowed_fallback(protocol)
        .layer(from_fn_with_state(Arc::clone(&app), guard::check))
        .layer(from_fn_with_state(Arc::clone(&app), meters::count))
        .with_state(app)
}

pub(super) fn text(text: &'static str) -> Response {
    let mut response = Response::new(text.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Artifacts, else the protocol.
async fn protocol(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // Only these may have to look at the store to know which file is meant.
    if path.contains("artifact") {
        let target = path.to_owned();
        match api::blocking(&app, move |app| app.protocol.artifact(&target)).await {
            Ok(Some(Ok(path))) => return files::answer(&app, &parts, path, body).await,
            Ok(Some(Err(refused))) | Err(refused) => {
                super::bodies::forget(body, &parts.headers).await;
                return api::response(refused);
            }
            Ok(None) => {}
        }
    }
    api::response(api::answer(&app, parts, body).await)
}

/// Spans by OpenTelemetry.
async fn spans(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    super::bodies::forget(body, &parts.headers).await;
    api::response(Answer::error(501, "NOT_IMPLEMENTED", "mlrs-db does not implement spans by OpenTelemetry"))
}

/// What MLflow's pages ask by GraphQL.
async fn graphql(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    super::bodies::forget(body, &parts.headers).await;
    api::response(Answer::error(501, "NOT_IMPLEMENTED", "mlrs-db does not implement GraphQL"))
}
