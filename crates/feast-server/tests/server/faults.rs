//! The server while the store below it fails, or the registry: no wrong value, bounded time, recovery by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use feast::RepoConfig;
use feast_server::{ServeOptions, serve};
use feast_testing::services::redis::RedisServer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::fixture;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What a fault may cost: the longest request, and a busy machine.
const BOUND: Duration = Duration::from_secs(6);

/// How long to wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(40);

struct Running {
    address: SocketAddr,
    folder: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

async fn start(online_store: &str) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "project: proj\nregistry: {{path: data/registry.db, cache_ttl_seconds: 1}}\nonline_store: {online_store}\n"
    );
    let store = fixture::filled(folder.path(), RepoConfig::parse(&text, folder.path()).unwrap()).await;
    let (tell, ready) = oneshot::channel::<SocketAddr>();
    let (stop, stopped) = oneshot::channel::<()>();
    let options = ServeOptions {
        port: 0,
        request_timeout: REQUEST_TIMEOUT,
        registry_ttl_sec: 1,
        access_log: false,
        ..ServeOptions::default()
    };
    tokio::spawn(serve(store, options, |address| tell.send(address).unwrap(), stopped));
    Running { address: ready.await.unwrap(), folder, _stop: stop }
}

/// Status and body of one request on a connection of its own.
async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {path}: `{answer}`"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn features(address: SocketAddr, driver: i64) -> (u16, Value) {
    let body = json!({"features": ["driver_stats:trips", "driver_push:city"], "entities": {"driver_id": [driver]}});
    let (status, body) = ask(address, "POST", "/get-online-features", &body.to_string()).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{status}: {error}: {body}")))
}

/// Trips and city of a driver, as they were materialized.
fn expected(driver: i64) -> [Value; 2] {
    match driver {
        1001 => [json!(30), json!("c")],
        1002 => [json!(40), Value::Null],
        _ => [Value::Null, Value::Null],
    }
}

/// What clients saw that ask without end.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
    refused: AtomicU64,
    longest_micros: AtomicU64,
}

impl Seen {
    /// Waits until so many more requests were answered, or refused.
    async fn more(&self, count: &AtomicU64, n: u64) {
        let (start, started) = (count.load(Ordering::Relaxed), Instant::now());
        while count.load(Ordering::Relaxed) < start + n {
            assert!(started.elapsed() < PATIENCE, "nothing changed in {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_answered(&self) {
        self.more(&self.answered, 50).await;
    }

    async fn until_refused(&self) {
        self.more(&self.refused, 5).await;
    }
}

async fn client(address: SocketAddr, seen: Arc<Seen>) {
    for driver in [1001, 1002, 9999].into_iter().cycle() {
        if seen.stop.load(Ordering::Relaxed) {
            return;
        }
        let started = Instant::now();
        let (status, body) = features(address, driver).await;
        seen.longest_micros.fetch_max(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        if status == 200 {
            let results = body["results"].as_array().unwrap();
            let values = [&results[results.len() - 2]["values"][0], &results[results.len() - 1]["values"][0]];
            let [trips, city] = expected(driver);
            assert_eq!(values, [&trips, &city], "driver {driver}: {body}");
            seen.answered.fetch_add(1, Ordering::Relaxed);
        } else {
            assert!(matches!(status, 503 | 504), "{status}: {body}");
            let told = body.as_str().or(body["detail"].as_str()).unwrap_or_else(|| panic!("{status}: {body}"));
            assert!(told.contains("online store") || told.contains("time"), "{status}: {told}");
            seen.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_under_load_costs_bounded_time_and_no_wrong_value() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let server = start(&format!("{{type: redis, connection_string: '{}'}}", redis.address())).await;
    let address = server.address;
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = (0..8).map(|_| tokio::spawn(client(address, Arc::clone(&seen)))).collect();
    seen.until_answered().await;

    // Dropping connections.
    for _ in 0..20 {
        redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        seen.more(&seen.answered, 10).await;
    }
    // Paused: nothing is answered, nothing is closed.
    redis.pause();
    seen.until_refused().await;
    let (live, _) = ask(address, "GET", "/health", "").await;
    let (ready, body) = ask(address, "GET", "/ready", "").await;
    assert_eq!((live, ready), (200, 503), "{body}");
    redis.resume();
    seen.until_answered().await;
    // Crashed, refusing connections, started again.
    for _ in 0..2 {
        redis.kill();
        seen.until_refused().await;
        redis.start_again();
        seen.until_answered().await;
    }
    let started = Instant::now();
    // An answer of the store stands for a second.
    while ask(address, "GET", "/ready", "").await.0 != 200 {
        assert!(started.elapsed() < PATIENCE, "the server is not ready again");
    }

    seen.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let longest = Duration::from_micros(seen.longest_micros.load(Ordering::Relaxed));
    assert!(longest < BOUND, "a request took {longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_cannot_be_read_leaves_the_last_snapshot_serving() {
    let server = start("{type: sqlite, path: data/online.db}").await;
    let address = server.address;
    let registry = server.folder.path().join("data/registry.db");
    let good = std::fs::read(&registry).unwrap();
    let refresh_error = async || {
        let (status, body) = ask(address, "GET", "/ready", "").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        (status, body["registry"]["last_refresh_error"].clone())
    };
    for broken in [Some(b"\x0a\xff\xff".to_vec()), None] {
        match &broken {
            Some(bytes) => std::fs::write(&registry, bytes).unwrap(),
            None => std::fs::remove_file(&registry).unwrap(),
        }
        let started = Instant::now();
        while refresh_error().await.1.is_null() {
            assert!(started.elapsed() < PATIENCE, "the server did not notice");
            let (status, body) = features(address, 1001).await;
            assert_eq!(status, 200, "{body}");
        }
        let (status, body) = features(address, 1001).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(refresh_error().await.0, 200, "features can be answered");
        let (_, metrics) = ask(address, "GET", "/metrics", "").await;
        let age = metrics.lines().find(|line| line.starts_with("feast_registry_snapshot_age_seconds")).unwrap();
        assert!(age.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 0.0, "{age}");

        std::fs::write(&registry, &good).unwrap();
        let started = Instant::now();
        while !refresh_error().await.1.is_null() {
            assert!(started.elapsed() < PATIENCE, "the server did not recover");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
