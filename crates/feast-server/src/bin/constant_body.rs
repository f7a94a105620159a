//! What no server can be faster than, for `bench/online`: each request is read, and each answer is the same body.
//!
//! `constant_body PORT BYTES` does that with the connections and threads of the feature server; `constant_body PORT BYTES
//! hyper` with the HTTP library below it and nothing else.
#![allow(clippy::unwrap_used, reason = "a tool for the benches")]

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let body = Bytes::from(vec![b' '; arguments[1].parse().unwrap()]);
    let listener = TcpListener::bind(("127.0.0.1", arguments[0].parse().unwrap())).await.unwrap();
    match arguments.get(2).map(String::as_str) {
        Some("hyper") => hyper_alone(listener, body).await,
        _ => feast_server::serve_constant(listener, body).await.unwrap(),
    }
}

async fn hyper_alone(listener: TcpListener, body: Bytes) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let body = body.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let body = body.clone();
                async move {
                    let _read = request.into_body().collect().await;
                    let mut response = Response::new(Full::new(body));
                    let json = hyper::header::HeaderValue::from_static("application/json");
                    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
                    Ok::<_, Infallible>(response)
                }
            });
            let _ended = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
