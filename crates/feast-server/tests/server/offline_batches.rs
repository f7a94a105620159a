//! Pushes to the offline store that wait for each other: all rows get there, when they should, and wrong ones are refused
//! with the push.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use feast_server::{ServeOptions, serve};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fixture;

/// Rows of the source before anybody pushes.
const BEFORE: i64 = 5;

/// How long to wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(40);

struct Running {
    address: SocketAddr,
    folder: TempDir,
    stop: oneshot::Sender<()>,
    served: JoinHandle<feast_core::Result<()>>,
}

impl Running {
    async fn start(rows: usize, seconds: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let batching = format!(
            "feature_server:\n  offline_push_batching_enabled: true\n  offline_push_batching_batch_size: {rows}\n  \
             offline_push_batching_batch_interval_seconds: {seconds}\n"
        );
        let config = fixture::config(folder.path(), &batching);
        let options = ServeOptions { port: 0, ..ServeOptions::configured(&config) };
        let store = fixture::filled(folder.path(), config).await;
        let (tell, ready) = oneshot::channel::<SocketAddr>();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(store, options, |address| tell.send(address).unwrap(), stopped));
        Self { address: ready.await.unwrap(), folder, stop, served }
    }

    /// The answer to a request, head and body.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn push(&self, to: &str, trips: &[i64]) -> String {
        let column = |value: Value| vec![value; trips.len()];
        let rows = json!({
            "driver_id": (0..trips.len()).map(|row| 2000 + row).collect::<Vec<_>>(),
            "event_timestamp": column(json!("2026-11-20T13:00:00Z")),
            "created": column(json!("2026-11-20T13:00:00Z")),
            "conv_rate": column(json!(0.5)),
            "trips": trips,
            "city": column(json!("z")),
        });
        self.ask("POST", "/push", &json!({"push_source_name": "driver_push_source", "to": to, "df": rows})).await
    }

    fn rows(&self) -> i64 {
        rows(self.folder.path())
    }

    async fn has(&self, rows: i64) {
        let start = Instant::now();
        while self.rows() != rows {
            assert!(start.elapsed() < PATIENCE, "{} instead of {rows} rows", self.rows());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the server and gives the rows that are there then.
    async fn stop(self) -> i64 {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
        rows(self.folder.path())
    }
}

fn rows(folder: &Path) -> i64 {
    let file = File::open(folder.join("driver.parquet")).unwrap();
    SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_written_when_there_are_enough() {
    let server = Running::start(5, 3600).await;
    for trips in [[1, 2], [3, 4]] {
        assert!(server.push("offline", &trips).await.starts_with("HTTP/1.1 202"));
    }
    assert_eq!(server.rows(), BEFORE);
    assert!(!server.ask("GET", "/metrics", &Value::Null).await.contains("feast_offline_push_write_total{"));
    // The online store does not wait.
    assert!(server.push("online_and_offline", &[7]).await.starts_with("HTTP/1.1 202"));
    let read = json!({"features": ["driver_push:trips"], "entities": {"driver_id": [2000]}});
    assert!(server.ask("POST", "/get-online-features", &read).await.contains(r#""values":[7]"#));
    server.has(BEFORE + 5).await;
    // What goes online alone is written as ever.
    assert!(server.push("online", &[8]).await.starts_with("HTTP/1.1 200"));
    assert_eq!(server.stop().await, BEFORE + 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_written_when_they_have_waited() {
    let server = Running::start(1_000_000, 1).await;
    assert!(server.push("offline", &[1, 2, 3]).await.starts_with("HTTP/1.1 202"));
    server.has(BEFORE + 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_written_when_the_server_stops() {
    let server = Running::start(1_000_000, 3600).await;
    for trips in 0..20 {
        assert!(server.push("offline", &[trips]).await.starts_with("HTTP/1.1 202"));
    }
    assert_eq!(server.rows(), BEFORE);
    assert_eq!(server.stop().await, BEFORE + 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_history_refuses_is_refused_with_the_push() {
    let server = Running::start(1_000_000, 3600).await;
    let frame = |created: &str| {
        json!({"driver_id": [3000], "event_timestamp": ["2026-11-20T13:00:00Z"], created: ["2026-11-20T13:00:00Z"],
               "conv_rate": [0.5], "trips": [9], "city": ["z"]})
    };
    for to in ["offline", "online_and_offline"] {
        let push = json!({"push_source_name": "driver_push_source", "to": to, "df": frame("creatd")});
        let answer = server.ask("POST", "/push", &push).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("`creatd`"), "{answer}");
    }
    let read = json!({"features": ["driver_push:trips"], "entities": {"driver_id": [3000]}});
    assert!(server.ask("POST", "/get-online-features", &read).await.contains(r#""values":[null]"#));
    assert_eq!(server.stop().await, BEFORE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_wait_for_a_store_that_is_away() {
    let server = Running::start(1_000_000, 1).await;
    assert!(server.push("offline", &[1, 2]).await.starts_with("HTTP/1.1 202"));
    let (source, hidden) = (server.folder.path().join("driver.parquet"), server.folder.path().join("hidden"));
    fs::rename(&source, &hidden).unwrap();
    let failed = r#"feast_offline_push_write_total{push_source="driver_push_source",status="failure"}"#;
    let start = Instant::now();
    while !server.ask("GET", "/metrics", &Value::Null).await.contains(failed) {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::rename(&hidden, &source).unwrap();
    server.has(BEFORE + 2).await;
}
