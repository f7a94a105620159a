//! The server on a socket: it says when it is ready, answers, and stops without cutting anybody off.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod fixture;

use std::net::SocketAddr;

use feast_core::ErrorCode;
use feast_server::{ServeOptions, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

fn options() -> ServeOptions {
    ServeOptions { port: 0, ..ServeOptions::default() }
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_requests_are_answered_before_the_server_stops() {
    let (_folder, store) = fixture::feature_store().await;
    let (tell, ready) = oneshot::channel::<SocketAddr>();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(store, options(), |address| tell.send(address).unwrap(), stopped));
    let address = ready.await.unwrap();

    let body = r#"{"features": ["driver_stats:trips"], "entities": {"driver_id": [1001]}}"#;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /get-online-features HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\n\r\n",
        body.len()
    );
    send(&mut stream, &head).await;
    // The server asks for the body: the request is being answered.
    let mut answer = [0; 512];
    let n = stream.read(&mut answer).await.unwrap();
    assert!(answer[..n].starts_with(b"HTTP/1.1 100"));
    stop.send(()).unwrap();
    send(&mut stream, body).await;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200") && rest.contains(r#""values":[30]"#), "{rest}");
    assert!(rest.to_ascii_lowercase().contains("x-request-id: "), "{rest}");
    server.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_served_is_said_at_once() {
    let (_folder, store) = fixture::feature_store().await;
    let never = || std::future::pending::<()>();
    let tls = ServeOptions { tls_cert_path: Some("cert.pem".into()), ..options() };
    let error = serve(store.clone(), tls, |_| {}, never()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let busy = ServeOptions { port: taken.local_addr().unwrap().port(), ..options() };
    let error = serve(store, busy, |_| {}, never()).await.unwrap_err();
    assert!(error.to_string().starts_with("the server cannot listen on `127.0.0.1:"), "{error}");
}
