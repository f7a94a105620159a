//! The server on a socket: it says when it is ready, answers, and stops without cutting anybody off.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feast_core::ErrorCode;
use feast_server::{ServeOptions, TraceOptions, serve};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::fixture;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_where_feast_has_them() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut taken = Some(taken);
    for is_free in [false, true] {
        let (_folder, store) = fixture::feature_store().await;
        let (tell, ready) = oneshot::channel::<SocketAddr>();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ServeOptions { metrics_port: Some(port), ..options() };
        let server = tokio::spawn(serve(store, options, |address| tell.send(address).unwrap(), stopped));
        // A port that is taken does not keep the server from starting.
        let address = ready.await.unwrap();
        assert!(health(TcpStream::connect(address).await.unwrap()).await.starts_with("HTTP/1.1 200"));
        let paths: &[&str] = if is_free { &["/", "/metrics"] } else { &[] };
        for path in paths {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            send(&mut stream, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("feast_feature_server_request_total"));
        }
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        taken = None;
    }
    assert!(taken.is_none() && TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_served_is_said_at_once() {
    let (folder, store) = fixture::feature_store().await;
    let never = || std::future::pending::<()>();
    let half = ServeOptions { tls_cert_path: Some("cert.pem".into()), ..options() };
    let error = serve(store.clone(), half, |_| {}, never()).await.unwrap_err();
    assert_eq!(error.message(), "TLS needs a private key and a certificate, but one is missing");
    let key = folder.path().join("key.pem");
    std::fs::write(&key, "no key").unwrap();
    let broken = ServeOptions { tls_cert_path: Some(key.clone()), tls_key_path: Some(key), ..options() };
    let error = serve(store.clone(), broken, |_| {}, never()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidConfiguration);

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let busy = ServeOptions { port: taken.local_addr().unwrap().port(), ..options() };
    let error = serve(store, busy, |_| {}, never()).await.unwrap_err();
    assert!(error.to_string().starts_with("the server cannot listen on `127.0.0.1:"), "{error}");
}

/// A running server; it stops when this is dropped.
struct Running {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
    _folder: tempfile::TempDir,
}

async fn start(change: impl FnOnce(&Path, &mut ServeOptions)) -> Running {
    let (folder, store) = fixture::feature_store().await;
    let (tell, ready) = oneshot::channel::<SocketAddr>();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut options = options();
    change(folder.path(), &mut options);
    tokio::spawn(serve(store, options, |address| tell.send(address).unwrap(), stopped));
    Running { address: ready.await.unwrap(), _stop: stop, _folder: folder }
}

async fn health(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A server may leave out the end of TLS.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// What comes back for a request on a connection of its own.
async fn exchange(address: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    send(&mut stream, &format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"))
        .await;
    send(&mut stream, body).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_are_answered_as_small_ones() {
    let server = start(|_, _| {}).await;
    let features = r#""features": ["driver_stats:trips", "driver_stats:conv_rate"]"#;
    for n_rows in [1, 5000] {
        let ids = vec!["1001"; n_rows].join(",");
        let body = format!(r#"{{{features}, "entities": {{"driver_id": [{ids}]}}}}"#);
        let answer = exchange(server.address, "POST /get-online-features", &body).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..300]);
        let values = format!(r#"{{"values":[{}],"statuses""#, vec!["30"; n_rows].join(","));
        assert!(answer.contains(&values), "{n_rows} rows");
    }
    let metrics = exchange(server.address, "GET /metrics", "").await;
    assert!(metrics.contains("feast_online_features_request_total 2"), "{metrics}");
    assert!(metrics.contains("feast_online_features_entity_count_sum 5001"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_left_and_others_are_answered() {
    let server = start(|_, options| {
        options.keep_alive_timeout = Duration::from_millis(300);
        options.request_timeout = Duration::from_millis(300);
        options.max_concurrent_requests = 1;
        options.max_queued_requests = 1;
    })
    .await;
    let beginnings = [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "GET /health HT",
        "POST /push HTTP/1.1\r\nhost: x\r\nx-a: ",
        "POST /push HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{",
    ];
    let mut slow = Vec::new();
    for beginning in beginnings.iter().cycle().take(60) {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        send(&mut stream, beginning).await;
        slow.push((beginning, stream));
    }
    assert!(health(TcpStream::connect(server.address).await.unwrap()).await.starts_with("HTTP/1.1 200"));
    for (beginning, mut stream) in slow {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection that sent {beginning:?} is still open");
    }
    assert!(health(TcpStream::connect(server.address).await.unwrap()).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_allowed_are_refused_with_a_sentence() {
    let server = start(|_, options| options.max_connections = 3).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        send(&mut stream, "GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = [0; 512];
        let n = stream.read(&mut answer).await.unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 200"));
        open.push(stream);
    }
    for _ in 0..300 {
        let refusal = health(TcpStream::connect(server.address).await.unwrap()).await;
        let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["detail"], "the server has as many connections as it may have; try again later");
    }
    drop(open.pop());
    let started = Instant::now();
    while !health(TcpStream::connect(server.address).await.unwrap()).await.starts_with("HTTP/1.1 200") {
        assert!(started.elapsed() < Duration::from_secs(20), "the place of a closed connection is not free");
    }
}

/// A request for so many rows. The answer to 300,000 is taken as a whole by no buffer on the way, that to 3,000 by no window
/// of HTTP/2.
fn large_request(rows: usize) -> String {
    let ids = vec!["1001"; rows].join(",");
    format!(r#"{{"features": ["driver_stats:trips"], "entities": {{"driver_id": [{ids}]}}}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_its_answer_is_left() {
    let server = start(|_, options| {
        options.answer_timeout = Duration::from_millis(300);
        options.keep_alive_timeout = Duration::from_secs(5);
        options.max_connections = 4;
    })
    .await;
    let body = large_request(300_000);
    let head = "POST /get-online-features HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ";
    let mut left = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        send(&mut stream, &format!("{head}{}\r\n\r\n{body}", body.len())).await;
        left.push(stream);
    }
    // Over HTTP/2, where the connection itself is well.
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = axum::http::Request::post("http://x/get-online-features").header("content-type", "application/json");
    let mut client = client.ready().await.unwrap();
    let (answer, mut sending) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let mut rest = axum::body::Bytes::from(large_request(3_000));
    while !rest.is_empty() {
        sending.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|context| sending.poll_capacity(context)).await.unwrap().unwrap();
        sending.send_data(rest.split_to(room), rest.is_empty()).unwrap();
    }
    let _unread = answer.await.unwrap();

    let closed = tokio::time::timeout(Duration::from_secs(40), connection).await;
    assert!(closed.is_ok(), "the connection of an answer that nobody takes is still open");
    // All places are free again.
    let (started, mut open) = (Instant::now(), Vec::new());
    while open.len() < 4 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        send(&mut stream, "GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = [0; 512];
        if stream.read(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200") {
            open.push(stream);
        }
        assert!(started.elapsed() < Duration::from_secs(20), "a client that reads nothing keeps its place");
    }
    for mut stream in left {
        let mut taken = Vec::new();
        let _cut = stream.read_to_end(&mut taken).await;
        let length: usize = String::from_utf8_lossy(&taken[..400])
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
            .unwrap();
        assert!(taken.len() < length, "{} of {length} bytes", taken.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_its_answer_slowly_gets_all_of_it() {
    let server = start(|_, options| options.answer_timeout = Duration::from_secs(2)).await;
    let body = large_request(300_000);
    let head = "POST /get-online-features HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    send(&mut stream, &format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let (mut taken, mut piece) = (Vec::new(), vec![0; 1 << 12]);
    // Slower than the server writes.
    loop {
        let n = stream.read(&mut piece).await.unwrap();
        if n == 0 {
            break;
        }
        taken.extend_from_slice(&piece[..n]);
    }
    assert!(taken.starts_with(b"HTTP/1.1 200") && taken.ends_with(b"}}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_spoken_too() {
    let server = start(|_, _| {}).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    // Two requests at once on one connection.
    let request = |path: &str| axum::http::Request::get(format!("http://x{path}")).body(()).unwrap();
    let (first, _) = client.send_request(request("/health"), true).unwrap();
    let (second, _) = client.send_request(request("/nope"), true).unwrap();
    assert_eq!(
        (first.await.unwrap().status(), second.await.unwrap().status().as_u16()),
        (200.try_into().unwrap(), 404)
    );
}

/// A certificate for `localhost` with its key in these files.
fn certify(key_file: &Path, certificate_file: &Path) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(key_file, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(certificate_file, made.cert.pem()).unwrap();
    made.cert.der().clone()
}

async fn connect_tls(
    address: SocketAddr,
    certificate: &rustls::pki_types::CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_and_new_certificates_are_taken() {
    let mut files = None;
    let mut certificate = None;
    let server = start(|folder, options| {
        let (key, cert) = (folder.join("key.pem"), folder.join("cert.pem"));
        certificate = Some(certify(&key, &cert));
        options.tls_key_path = Some(key.clone());
        options.tls_cert_path = Some(cert.clone());
        files = Some((key, cert));
    })
    .await;
    let ((key, cert), certificate) = (files.unwrap(), certificate.unwrap());
    let stream = connect_tls(server.address, &certificate, b"http/1.1").await.unwrap();
    assert!(health(stream).await.starts_with("HTTP/1.1 200"));
    let stream = connect_tls(server.address, &certificate, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::get("https://localhost/health").body(()).unwrap();
    let (answer, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    // Whoever does not speak TLS gets nothing, and disturbs nobody.
    assert!(!health(TcpStream::connect(server.address).await.unwrap()).await.contains("200"));

    // Halfway through a replacement the old files stay in use.
    std::fs::write(&key, "half a key").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(connect_tls(server.address, &certificate, b"http/1.1").await.is_ok());
    let renewed = certify(&key, &cert);
    let started = Instant::now();
    while connect_tls(server.address, &renewed, b"http/1.1").await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "the new certificate was not taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(connect_tls(server.address, &certificate, b"http/1.1").await.is_err());
}

/// Takes one message of traces, as a collector does: head and body.
async fn collect(listener: &tokio::net::TcpListener) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    let (head, length) = loop {
        stream.read_buf(&mut received).await.unwrap();
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(received[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>();
        received.drain(..end + 4);
        break (head, length.unwrap());
    };
    while received.len() < length {
        stream.read_buf(&mut received).await.unwrap();
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    (head, received)
}

/// A protobuf message by the numbers of its fields, which are those of OpenTelemetry's public definitions.
struct Fields(Vec<(u64, Vec<u8>)>);

impl Fields {
    fn of(mut bytes: &[u8]) -> Self {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
            let (number, rest) = bytes.split_at(end);
            *bytes = rest;
            number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = match tag & 7 {
                0 => varint(&mut bytes).to_le_bytes().to_vec(),
                kind => {
                    let length = if kind == 1 { 8 } else { varint(&mut bytes) as usize };
                    assert!(matches!(kind, 1 | 2), "wire type {kind}");
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    value.to_vec()
                }
            };
            fields.push((tag >> 3, value));
        }
        Self(fields)
    }

    fn all(&self, number: u64) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(known, _)| *known == number).map(|(_, value)| value.as_slice())
    }

    fn bytes(&self, number: u64) -> &[u8] {
        self.all(number).next().unwrap_or_default()
    }

    fn message(&self, number: u64) -> Self {
        Self::of(self.bytes(number))
    }

    fn text(&self, number: u64) -> String {
        String::from_utf8(self.bytes(number).to_vec()).unwrap()
    }

    fn integer(&self, number: u64) -> u64 {
        self.bytes(number).try_into().map(u64::from_le_bytes).unwrap_or_default()
    }

    /// `key` and `value` of the attributes in this field.
    fn attributes(&self, number: u64) -> Vec<(String, String)> {
        let attribute = |bytes| {
            let attribute = Self::of(bytes);
            let value = attribute.message(2);
            let text = value.text(1);
            (attribute.text(1), if text.is_empty() { value.integer(3).to_string() } else { text })
        };
        self.all(number).map(attribute).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_their_parts_are_traced() {
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    let server = start(|_, options| {
        options.traces = Some(TraceOptions {
            endpoint,
            headers: vec![("x-key".to_owned(), "secret".to_owned())],
            timeout: Duration::from_secs(10),
            resource: vec![("service.name".to_owned(), "features".to_owned())],
            ratio: 0.0,
            parent_based: true,
        });
    })
    .await;
    let body = r#"{"feature_service": "driver_service", "entities": {"driver_id": [1001, 1002]}}"#;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    // The first caller says that it traces, the second that it does not, and the third leaves it to the server.
    let caller = |flag: &str| format!("traceparent: 00-{trace}-b7ad6b7169203331-{flag}\r\n");
    for caller in [caller("01"), caller("00"), String::new()] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            "POST /get-online-features HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json";
        send(&mut stream, &format!("{head}\r\n{caller}content-length: {}\r\n\r\n{body}", body.len())).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let (head, body) = tokio::time::timeout(Duration::from_secs(20), collect(&collector)).await.unwrap();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/x-protobuf") && head.contains("\r\nx-key: secret"), "{head}");
    let message = Fields::of(&body);
    assert_eq!(message.all(1).count(), 1, "one resource");
    let resource_spans = message.message(1);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(resource_spans.message(1).attributes(1), [pair("service.name", "features")]);
    let spans: Vec<Fields> = resource_spans.message(2).all(2).map(Fields::of).collect();
    let names: Vec<String> = spans.iter().map(|span| span.text(5)).collect();
    assert_eq!(names, ["parse", "plan", "store", "transform", "encode", "POST /get-online-features"]);
    let (request, parts) = spans.split_last().unwrap();
    assert_eq!(request.integer(6), 2, "SPAN_KIND_SERVER");
    assert_eq!(request.bytes(4), [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    for part in parts {
        assert_eq!((part.bytes(4), part.bytes(1)), (request.bytes(2), request.bytes(1)));
        assert!(part.integer(7) >= request.integer(7) && part.integer(8) <= request.integer(8));
    }
    assert_eq!(request.bytes(1).iter().map(|byte| format!("{byte:02x}")).collect::<String>(), trace);
    let expected = [
        pair("http.request.method", "POST"),
        pair("http.route", "/get-online-features"),
        pair("http.response.status_code", "200"),
        pair("feast.feature_service", "driver_service"),
        pair("feast.entity_rows", "2"),
    ];
    assert_eq!(request.attributes(9), expected);
}
