//! The routes, and what happens to every request.

mod body;
mod frame;

mod get_online_features;
mod health;
mod materialize;
mod metrics;
mod not_yet;
mod openapi;
mod push;
mod write_to_online_store;

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, any, get, post};
use feast::FeatureStore;
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::error::{Answer, Rejection, json_response};
use crate::options::ServeOptions;
use crate::state::Server;

/// Header that carries the number of a request through logs.
const REQUEST_ID: &str = "x-request-id";

/// The routes of the feature server, for use without a socket. Limits apply as in [`serve`](crate::serve); the
/// registry is not refreshed in the background beyond what its cache does.
pub fn router(store: FeatureStore, options: &ServeOptions) -> Router {
    routes(&Server::new(&store, options))
}

pub(crate) fn routes(server: &Arc<Server>) -> Router {
    // Work that must end soon, and waits its turn when there is much of it.
    let limited: [(&str, MethodRouter<Arc<Server>>); 3] = [
        ("/get-online-features", post(get_online_features::get_online_features)),
        ("/push", post(push::push)),
        ("/write-to-online-store", post(write_to_online_store::write_to_online_store)),
    ];
    // Work that takes as long as it takes, and questions about the server itself.
    let unlimited: [(&str, MethodRouter<Arc<Server>>); 7] = [
        ("/materialize", post(materialize::materialize)),
        ("/materialize-incremental", post(materialize::materialize_incremental)),
        ("/health", get(health::health)),
        ("/ready", get(health::ready)),
        ("/metrics", get(metrics::metrics)),
        ("/openapi.json", get(openapi::openapi)),
        ("/docs", get(openapi::docs)),
    ];
    let mut router = Router::new();
    for (path, method) in limited {
        router = router.route(path, method.layer(from_fn_with_state(Arc::clone(server), limit)));
    }
    for (path, method) in unlimited {
        router = router.route(path, method);
    }
    for path in not_yet::PATHS {
        router = router.route(path, any(not_yet::not_yet));
    }
    router
        .method_not_allowed_fallback(|| async { refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "Not Found") })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(server), observe))
        .with_state(Arc::clone(server))
}

fn refuse(status: StatusCode, sentence: &str) -> Response<Body> {
    json_response(status, &json!({"detail": sentence}))
}

/// A panic is our bug; its text is not for the client.
fn panicked(_: Box<dyn Any + Send>) -> Response<Body> {
    tracing::error!("a request handler panicked");
    json_response(StatusCode::INTERNAL_SERVER_ERROR, &Value::from("the server has a defect; its log says more"))
}

/// Lets as many requests work as are allowed, as many wait, and ends those that take too long.
async fn limit(State(server): State<Arc<Server>>, request: Request, next: Next) -> Answer<Response<Body>> {
    let _admitted = server.admitted.try_acquire().map_err(|_| Rejection::Busy)?;
    let answer = async {
        let _working = server.working.acquire().await.map_err(|_| Rejection::Busy)?;
        Ok(next.run(request).await)
    };
    match tokio::time::timeout(server.options.request_timeout, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let sentence = format!("the request took longer than {:?}", server.options.request_timeout);
            Err(Rejection::Refused(StatusCode::GATEWAY_TIMEOUT, sentence))
        }
    }
}

/// Counts and logs every request: route, status, time and size; never bodies, headers or query strings.
async fn observe(
    State(server): State<Arc<Server>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let started = Instant::now();
    let _in_flight = server.metrics.request_started();
    let method = request.method().clone();
    let request_id = request_id(&request);
    let mut response = next.run(request).await;
    let duration = started.elapsed();
    let status = response.status();
    let path = path.as_ref().map_or("other", MatchedPath::as_str);
    server.metrics.request_finished(path, status.is_client_error() || status.is_server_error(), duration);
    if server.options.access_log {
        tracing::info!(
            target: "feast::access",
            %method,
            path,
            status = status.as_u16(),
            milliseconds = duration.as_secs_f64() * 1000.0,
            request_id = request_id.to_str().unwrap_or_default(),
            "request",
        );
    }
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

/// The number the client gave to the request, when it is fit for a log, or a new one.
fn request_id(request: &Request) -> HeaderValue {
    let fit = |value: &&HeaderValue| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(plain)
    };
    request
        .headers()
        .get(REQUEST_ID)
        .filter(fit)
        .cloned()
        .unwrap_or_else(|| HeaderValue::from_str(&Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("-")))
}

/// An answer whose body is JSON that is written already.
fn json_bytes(body: Vec<u8>) -> Response<Body> {
    ([("content-type", "application/json")], body).into_response()
}
