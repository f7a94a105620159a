//! The HTTP stack of the server with nothing behind it: reads each request and answers the same body.
//!
//! `constant_body PORT BYTES`: what no server on this stack can be faster than, for `bench/online`.
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
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let (port, length) = (arguments.next().unwrap(), arguments.next().unwrap());
    let body = Bytes::from(vec![b' '; length]);
    let listener = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).await.unwrap();
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
