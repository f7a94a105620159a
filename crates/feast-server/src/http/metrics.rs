//! `GET /metrics`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use axum::http::StatusCode;
use axum::response::IntoResponse;

use crate::error::{Answer, Rejection};
use crate::state::Server;

/// What Prometheus reads.
pub(crate) async fn metrics(State(server): State<Arc<Server>>) -> Answer<Response<Body>> {
    if !server.options.metrics {
        return Err(Rejection::Refused(StatusCode::NOT_FOUND, "Not Found".to_owned()));
    }
    let contents = server.store.contents(false).await.ok();
    let age = server.store.registry().health().age;
    let text = server.metrics.render(contents.as_deref(), age);
    Ok(([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
