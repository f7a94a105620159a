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
mod written;

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, any, get, post};
use feast::FeatureStore;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either};
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::timeout_at;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use uuid::Uuid;

use self::body::Received;
use self::get_online_features::Here;
use crate::error::json_response;
use crate::metrics::OTHER_PATHS;
use crate::options::ServeOptions;
use crate::state::{Server, too_late};
use crate::threads::Elsewhere;
use crate::traces::{Finished, OnlineParts, Traced};

const ONLINE_FEATURES: &str = "/get-online-features";
const PUSH: &str = "/push";

/// Header that carries the number of a request through logs.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The routes of the feature server, for use without a socket. Limits apply as in [`serve`](crate::serve); the
/// registry is not refreshed in the background beyond what its cache does, no traces are sent, and every push is written at
/// once.
pub fn router(store: FeatureStore, options: &ServeOptions) -> Router {
    let options = ServeOptions { offline_push_batching: None, ..options.clone() };
    routes(&Server::new(&store, &options, None))
}

pub(crate) fn routes(server: &Arc<Server>) -> Router {
    let known: [(&str, MethodRouter<Arc<Server>>); 10] = [
        (ONLINE_FEATURES, post(get_online_features::get_online_features)),
        (PUSH, post(push::push)),
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
        router = router.route(path, method).route(&format!("{path}/"), any(without_slash));
    }
    for path in not_yet::PATHS {
        router = router.route(path, any(not_yet::not_yet)).route(&format!("{path}/"), any(without_slash));
    }
    let router = router
        .method_not_allowed_fallback(|| async { refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "Not Found") })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(server), observe))
        .with_state(Arc::clone(server));
    if server.options.gzip { router.layer(CompressionLayer::new()) } else { router }
}

/// Metrics alone, whatever the path.
pub(crate) fn metrics_alone(server: &Arc<Server>) -> Router {
    Router::new().fallback(metrics::metrics).layer(CatchPanicLayer::custom(panicked)).with_state(Arc::clone(server))
}

/// Sends who wrote a slash behind the path of a route to that route, with the same method and body, as Feast's servers do.
pub(crate) async fn without_slash(uri: Uri) -> Response<Body> {
    let path = uri.path().trim_end_matches('/');
    let place = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

fn refuse(status: StatusCode, sentence: &str) -> Response<Body> {
    json_response(status, &json!({"detail": sentence}))
}

/// A panic is our bug; its text is not for the client.
fn panicked(_: Box<dyn Any + Send>) -> Response<Body> {
    tracing::error!("a request handler panicked");
    json_response(StatusCode::INTERNAL_SERVER_ERROR, &Value::from("the server has a defect; its log says more"))
}

/// The routes on a socket. Requests for online features and pushes, which are small and many, do not go through the
/// router: its layers cost a small one a tenth of its time.
#[derive(Clone)]
pub(crate) struct Routes {
    server: Arc<Server>,
    router: TowerToHyperService<Router>,
    /// Where requests are worked on that may take long, if it is not where connections are answered.
    elsewhere: Option<Handle>,
}

impl Routes {
    pub(crate) fn new(server: &Arc<Server>, elsewhere: Option<Handle>) -> Self {
        Self { server: Arc::clone(server), router: TowerToHyperService::new(routes(server)), elsewhere }
    }
}

type Routed = <TowerToHyperService<Router> as hyper::service::Service<hyper::Request<Incoming>>>::Future;

impl hyper::service::Service<hyper::Request<Incoming>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Routed, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let is_direct = request.method() == Method::POST && !self.server.options.gzip;
        let path = [ONLINE_FEATURES, PUSH].into_iter().find(|path| is_direct && request.uri().path() == *path);
        if let Some(path) = path {
            return Either::Right(Box::pin(direct(path, Arc::clone(&self.server), self.elsewhere.clone(), request)));
        }
        let routed = self.router.call(request);
        match &self.elsewhere {
            Some(runtime) => Either::Right(Box::pin(Elsewhere::run(runtime, routed))),
            None => Either::Left(routed),
        }
    }
}

/// Answers a request of a path that needs no router.
async fn direct(
    path: &'static str,
    server: Arc<Server>,
    elsewhere: Option<Handle>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let observed = Observed::begin(&server, head.method, &head.headers);
    let answering = async {
        let received = Received::read(head.headers, body, &server).await?;
        let deadline = received.deadline;
        let _entered = server.enter(deadline).await?;
        // Not by `admit`: a future that is handed on is moved, and one in another takes the place of both.
        let answer = match path {
            PUSH => timeout_at(deadline.into(), push::answer(&server, &received, elsewhere.as_ref())).await,
            _ => {
                let here = elsewhere.as_ref().map_or(Here::Always, Here::Unless);
                let received = Arc::new(received);
                timeout_at(deadline.into(), get_online_features::answer(&server, &received, here)).await
            }
        };
        answer.unwrap_or_else(|_| Err(too_late()))
    };
    let answer = AssertUnwindSafe(answering).catch_unwind().await;
    Ok(observed.end(&server, path, answer.map_or_else(panicked, IntoResponse::into_response)))
}

async fn observe(
    State(server): State<Arc<Server>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let observed = Observed::begin(&server, request.method().clone(), request.headers());
    let response = next.run(request).await;
    observed.end(&server, path.as_ref().map_or(OTHER_PATHS, MatchedPath::as_str), response)
}

/// Counts and logs a request: route, status, time and size; never bodies, headers or query strings.
struct Observed<G> {
    started: Instant,
    _in_flight: G,
    method: Method,
    request_id: HeaderValue,
    traced: Option<Traced>,
}

impl Observed<()> {
    fn begin(server: &Server, method: Method, headers: &HeaderMap) -> Observed<impl Drop + use<>> {
        Observed {
            started: Instant::now(),
            _in_flight: server.metrics.request_started(),
            method,
            request_id: request_id(headers),
            traced: server.traces.as_ref().and_then(|traces| traces.begin(headers)),
        }
    }
}

impl<G> Observed<G> {
    fn end(self, server: &Server, path: &str, mut response: Response<Body>) -> Response<Body> {
        let duration = self.started.elapsed();
        let status = response.status();
        server.metrics.request_finished(path, status.is_client_error() || status.is_server_error(), duration);
        if let (Some(traces), Some(traced)) = (&server.traces, &self.traced) {
            let parts = response.extensions_mut().remove::<OnlineParts>();
            let finished =
                Finished { started: self.started, method: &self.method, route: path, status, parts: parts.as_ref() };
            traces.end(traced, &finished);
        }
        if server.options.access_log {
            tracing::info!(
                target: "feast::access",
                method = %self.method,
                path,
                status = status.as_u16(),
                milliseconds = duration.as_secs_f64() * 1000.0,
                request_id = self.request_id.to_str().unwrap_or_default(),
                "request",
            );
        }
        response.headers_mut().insert(REQUEST_ID.clone(), self.request_id);
        response
    }
}

/// The number the client gave to the request, when it is fit for a log, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fit = |value: &&HeaderValue| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(plain)
    };
    headers.get(&REQUEST_ID).filter(fit).cloned().unwrap_or_else(new_request_id)
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
fn json_bytes(body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
