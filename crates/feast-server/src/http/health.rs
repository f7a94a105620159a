//! `GET /health` and `GET /ready`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use feast_core::Error;
use serde_json::{Value, json};

use crate::error::json_response;
use crate::state::Server;

/// 200 while there is a registry snapshot to answer from, 503 otherwise; no body, as Feast.
pub(crate) async fn health(State(server): State<Arc<Server>>) -> StatusCode {
    match server.store.contents(false).await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// 200 when features can be answered right now: there is a snapshot and the online store can be reached. The body says
/// which part is not ready.
pub(crate) async fn ready(State(server): State<Arc<Server>>) -> Response<Body> {
    let registry = server.store.contents(false).await.map(drop);
    let health = server.store.registry().health();
    let online = async {
        let store = server.store.online_store()?;
        tokio::time::timeout(server.options.request_timeout, store.check())
            .await
            .map_err(|_| Error::unavailable("the online store does not answer"))?
    };
    let online = online.await;
    let ready = registry.is_ok() && online.is_ok();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "status": if ready { "ready" } else { "not ready" },
        "project": server.store.project(),
        "registry": {
            "status": told(registry.as_ref().err()),
            "version": health.version.map(|version| version.to_string()),
            "snapshot_age_seconds": health.age.map(|age| age.as_secs_f64()),
            "last_refresh_error": health.failure.map(|(message, _)| message),
        },
        "online_store": {"status": told(online.as_ref().err())},
        "uptime_seconds": server.started.elapsed().as_secs_f64(),
    });
    json_response(status, &body).into_response()
}

fn told(error: Option<&Error>) -> Value {
    error.map_or_else(|| Value::from("ok"), |error| Value::from(error.to_string()))
}
