//! The routes, and what happens to every request.

mod body;
mod frame;
mod frame_body;
mod get_online_features;
mod health;
mod materialize;
mod metrics;
mod not_yet;
mod one_kind;
mod online_body;
mod openapi;
mod push;
mod write_to_online_store;

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{MethodRouter, any, get, post};
use feast::FeatureStore;
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use uuid::Uuid;

use crate::error::json_response;
use crate::metrics::OTHER_PATHS;
use crate::options::ServeOptions;
use crate::state::Server;
use crate::traces::{Finished, OnlineParts};

/// Header that carries the number of a request through logs.
const REQUEST_ID: &str = "x-request-id";

/// The routes of the feature server, for use without a socket. Limits apply as in [`serve`](crate::serve); the
/// registry is not refreshed in the background beyond what its cache does, and no traces are sent.
pub fn router(store: FeatureStore, options: &ServeOptions) -> Router {
    routes(&Server::new(&store, options, None))
}

pub(crate) fn routes(server: &Arc<Server>) -> Router {
    let known: [(&str, MethodRouter<Arc<Server>>); 10] = [
        ("/get-online-features", post(get_online_features::get_online_features)),
        ("/push", post(push::push)),
        ("/write-to-online-store", post(write_to_online_store::write_to_online_store)),
        ("/materialize", post(materialize::materialize)),
        ("/materialize-incremental", post(materialize::materialize_incremental)),
        ("/health", get(health::health)),
        ("/ready", get(health::ready)),
        ("/metrics", get(metrics::metrics)),
        ("/openapi.json", get(openapi::openapi)),
        ("/docs", get(openapi::docs)),
    ];
    let mut router = Router::new();
    for (path, method) in known {
        router = router.route(path, method);
    }
    for path in not_yet::PATHS {
        router = router.route(path, any(not_yet::not_yet));
    }
    let router = router
        .method_not_allowed_fallback(|| async { refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "Not Found") })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(server), observe))
        .with_state(Arc::clone(server));
    if server.options.gzip { router.layer(CompressionLayer::new()) } else { router }
}

fn refuse(status: StatusCode, sentence: &str) -> Response<Body> {
    json_response(status, &json!({"detail": sentence}))
}

/// A panic is our bug; its text is not for the client.
fn panicked(_: Box<dyn Any + Send>) -> Response<Body> {
    tracing::error!("a request handler panicked");
    json_response(StatusCode::INTERNAL_SERVER_ERROR, &Value::from("the server has a defect; its log says more"))
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
    let traced = server.traces.as_ref().and_then(|traces| Some((traces, traces.begin(request.headers())?)));
    let mut response = next.run(request).await;
    let duration = started.elapsed();
    let status = response.status();
    let path = path.as_ref().map_or(OTHER_PATHS, MatchedPath::as_str);
    server.metrics.request_finished(path, status.is_client_error() || status.is_server_error(), duration);
    if let Some((traces, traced)) = traced {
        let parts = response.extensions_mut().remove::<OnlineParts>();
        let finished = Finished { started, method: &method, route: path, status, parts: parts.as_ref() };
        traces.end(&traced, &finished);
    }
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
    request.headers().get(REQUEST_ID).filter(fit).cloned().unwrap_or_else(new_request_id)
}

/// A number that no other request has: one for the process, and one that counts.
fn new_request_id() -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| Uuid::new_v4().as_u64_pair().0);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let number = u128::from(*PROCESS) << 64 | u128::from(COUNT.fetch_add(1, Ordering::Relaxed));
    let text: [u8; 32] = std::array::from_fn(|at| DIGITS[(number >> (124 - 4 * at)) as usize & 15]);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
}

/// An answer whose body is JSON that is written already.
fn json_bytes(body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
