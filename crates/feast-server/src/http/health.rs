//! `GET /health` and `GET /ready`

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::json;

use crate::error::json_response;
use crate::state::{Readiness, Server};

/// How long an answer of the online store stands.
const READINESS_AGE: Duration = Duration::from_secs(1);

/// How long the online store may take to answer.
const READINESS_TIMEOUT: Duration = Duration::from_secs(2);

/// 200 while there is a registry snapshot to answer from, 503 otherwise; no body, as Feast.
pub(crate) async fn health(State(server): State<Arc<Server>>) -> StatusCode {
    match server.store.contents(false).await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// 200 when features can be answered right now: there is a snapshot and the online store can be reached. The body says
/// which part is not ready. The store is asked at most once a second, however often this is.
pub(crate) async fn ready(State(server): State<Arc<Server>>) -> Response<Body> {
    let registry = server.store.contents(false).await.map(drop).map_err(|error| error.to_string());
    let health = server.store.registry().health();
    let online = online_store(&server).await;
    let ready = registry.is_ok() && online.is_ok();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "status": if ready { "ready" } else { "not ready" },
        "project": server.store.project(),
        "registry": {
            "status": told(&registry),
            "version": health.version.map(|version| version.to_string()),
            "snapshot_age_seconds": health.age.map(|age| age.as_secs_f64()),
            "last_refresh_error": health.failure.map(|(message, _)| message),
        },
        "online_store": {"status": told(&online)},
        "uptime_seconds": server.started.elapsed().as_secs_f64(),
    });
    json_response(status, &body).into_response()
}

/// Whether the online store answers, as of a second ago at most. Who asks while it is being asked waits for that answer.
async fn online_store(server: &Server) -> Result<(), String> {
    let mut readiness = server.readiness.lock().await;
    if let Some(known) = readiness.as_ref().filter(|known| known.asked.elapsed() < READINESS_AGE) {
        return known.online_store.clone();
    }
    let check = async { server.store.online_store()?.check().await };
    let online_store = match tokio::time::timeout(READINESS_TIMEOUT, check).await {
        Ok(checked) => checked.map_err(|error| error.to_string()),
        Err(_) => Err("the online store does not answer".to_owned()),
    };
    *readiness = Some(Readiness { asked: Instant::now(), online_store: online_store.clone() });
    online_store
}

fn told(part: &Result<(), String>) -> &str {
    part.as_ref().map_or_else(String::as_str, |()| "ok")
}
