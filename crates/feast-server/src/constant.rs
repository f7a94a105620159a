//! The server with nothing behind it, for `bench/online`.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;

use crate::connections::{Connections, Limits};
use crate::threads::Threads;

/// Reads each request and answers the same body, over the connections and on the threads of [`serve`](crate::serve): what
/// no answer of this server can be faster than. Does not end.
///
/// # Errors
/// Those of starting threads.
#[doc(hidden)]
pub async fn serve_constant(listener: TcpListener, body: Bytes) -> io::Result<()> {
    let answers = service_fn(move |request: Request<Incoming>| {
        let body = body.clone();
        async move {
            let _read = request.into_body().collect().await;
            let mut response = Response::new(Body::from(body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok::<_, Infallible>(response)
        }
    });
    let patience = Duration::from_secs(60);
    let limits = Limits { keep_alive: patience, answer: patience, connections: 10_000 };
    let connections = Connections::new(answers, None, limits).on(Threads::start()?);
    connections.answer_until(listener, &GracefulShutdown::new(), pending::<()>()).await;
    Ok(())
}
