//! Online features over HTTP beyond what Feast does: columns as Arrow, ages, deadlines, stores that fail.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request};
use feast::FeatureStore;
use feast_core::{ErrorCode, OnlineRead, OnlineRows, OnlineStore, OnlineWrite, Result, TableChange};
use feast_server::{ServeOptions, router, serve};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use crate::fixture;

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: to_bytes(body, usize::MAX).await.unwrap() }
}

async fn ask(router: &Router, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut request = Request::post("/get-online-features").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(router, request.body(Body::from(body.to_string())).unwrap()).await
}

async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

fn trips(drivers: &[i64]) -> Value {
    json!({"features": ["driver_stats:trips"], "entities": {"driver_id": drivers}})
}

/// The store of the repository, which can be told to stop answering.
#[derive(Debug)]
struct Stalling {
    store: Arc<dyn OnlineStore>,
    stalls: AtomicBool,
    reading: Notify,
}

impl fmt::Display for Stalling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl Stalling {
    async fn stall(&self) {
        if self.stalls.load(Ordering::Relaxed) {
            self.reading.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl OnlineStore for Stalling {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        self.stall().await;
        self.store.read(reads).await
    }
    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        self.store.write(write).await
    }
    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        self.store.update(changes).await
    }
    async fn check(&self) -> Result<()> {
        self.stall().await;
        self.store.check().await
    }
    fn preferred_batch_rows(&self) -> usize {
        self.store.preferred_batch_rows()
    }
}

/// A server over the same data with more in its configuration, and its store.
async fn server(more: &str, options: &ServeOptions) -> (tempfile::TempDir, Router, Arc<Stalling>) {
    let (folder, store) = fixture::feature_store().await;
    let stalling = Arc::new(Stalling {
        store: Arc::clone(store.online_store().unwrap()),
        stalls: AtomicBool::new(false),
        reading: Notify::new(),
    });
    let builder = FeatureStore::builder(fixture::config(folder.path(), more));
    let store = builder.online_store(Arc::clone(&stalling) as Arc<dyn OnlineStore>).open().unwrap();
    (folder, router(store, options), stalling)
}

#[tokio::test]
async fn columns_come_as_arrow_when_asked_for() {
    let (_folder, router, _) = server("", &ServeOptions::default()).await;
    let body = json!({"features": ["driver_stats:trips", "glob:g"], "entities": {"driver_id": [1001, 7, 1001]}});
    let accept = [("accept", "application/json;q=0.5, application/vnd.apache.arrow.stream")];
    let answer = ask(&router, &accept, &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/vnd.apache.arrow.stream");
    let batches: Vec<RecordBatch> =
        StreamReader::try_new(answer.body.as_ref(), None).unwrap().collect::<std::result::Result<_, _>>().unwrap();
    let [batch] = &batches[..] else { panic!("one batch") };
    let ids = batch["driver_id"].as_primitive::<Int64Type>();
    assert_eq!(ids.values(), &[1001, 7, 1001]);
    let trips = batch["trips"].as_primitive::<Int64Type>();
    assert_eq!((trips.value(0), trips.is_null(1), trips.value(2)), (30, true, 30));
    let schema = batch.schema();
    let statuses_of = |feature: &str| -> Vec<String> {
        let name = &schema.field_with_name(feature).unwrap().metadata()["feast:status"];
        batch[name.as_str()].as_string::<i32>().iter().map(|status| status.unwrap().to_owned()).collect()
    };
    assert_eq!(statuses_of("trips"), ["PRESENT", "NOT_FOUND", "PRESENT"]);
    assert_eq!(statuses_of("g"), ["PRESENT"; 3]);
    let times = &schema.field_with_name("trips").unwrap().metadata()["feast:event_timestamp"];
    let times = batch[times.as_str()].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(times.values(), &[fixture::NOON, 0, fixture::NOON]);
    // Errors stay JSON.
    let wrong = ask(&router, &accept, &json!({"features": ["nope:x"], "entities": {"driver_id": [1]}})).await;
    assert_eq!((wrong.status, &wrong.headers["content-type"]), (404, &"application/json".parse().unwrap()));
}

#[tokio::test]
async fn old_values_follow_the_policy_of_the_configuration() {
    for (policy, value, status) in [
        ("ignore", json!(30), "PRESENT"),
        ("status", json!(30), "OUTSIDE_MAX_AGE"),
        ("hide", json!(null), "OUTSIDE_MAX_AGE"),
    ] {
        let more = format!("online_serving: {{ttl_policy: {policy}}}\n");
        let (_folder, router, _) = server(&more, &ServeOptions::default()).await;
        // One view has a ttl of a day, the other has none.
        let body = json!({"features": ["driver_stats:trips", "driver_push:city"], "entities": {"driver_id": [1001]}});
        let answer = ask(&router, &[], &body).await.json();
        assert_eq!(
            (&answer["results"][1]["values"][0], &answer["results"][1]["statuses"][0]),
            (&value, &json!(status))
        );
        assert_eq!(
            (&answer["results"][2]["values"][0], &answer["results"][2]["statuses"][0]),
            (&json!("c"), &json!("PRESENT"))
        );
        assert_eq!(answer["results"][1]["event_timestamps"][0], "2026-11-20T12:00:00Z");
    }
}

#[tokio::test]
async fn a_store_that_stalls_takes_nobody_down_and_comes_back() {
    let options = ServeOptions {
        max_concurrent_requests: 1,
        max_queued_requests: 0,
        request_timeout: Duration::from_secs(30),
        ..ServeOptions::default()
    };
    let (_folder, router, store) = server("", &options).await;
    store.stalls.store(true, Ordering::Relaxed);
    // A request that is being answered takes the only place.
    let (patient, asked) = (router.clone(), trips(&[1001]));
    let patient = tokio::spawn(async move { ask(&patient, &[("x-request-timeout-ms", "1500")], &asked).await });
    store.reading.notified().await;
    let refused = ask(&router, &[], &trips(&[1001])).await;
    assert_eq!((refused.status, refused.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(get(&router, "/health").await.status, 200);
    let started = Instant::now();
    let ready = get(&router, "/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["online_store"]["status"], "the online store does not answer");
    assert_eq!(ready.json()["registry"]["status"], "ok");
    assert!(started.elapsed() < Duration::from_secs(10), "bounded by its own limit");
    assert_eq!(patient.await.unwrap().status, 504);
    let impatient = ask(&router, &[("x-request-timeout-ms", "20")], &trips(&[1001])).await;
    assert_eq!(impatient.status, 504);
    // It comes back by itself.
    store.stalls.store(false, Ordering::Relaxed);
    assert_eq!(ask(&router, &[], &trips(&[1001])).await.json()["results"][1]["values"], json!([30]));
    while get(&router, "/ready").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn views_fall_back_to_null_where_the_configuration_says_so() {
    let more = "online_serving: {fallback_views: [driver_stats], timeout_seconds: 30}\n";
    let (_folder, router, store) = server(more, &ServeOptions::default()).await;
    store.stalls.store(true, Ordering::Relaxed);
    let brief = [("x-request-timeout-ms", "200")];
    let answer = ask(&router, &brief, &trips(&[1001])).await;
    assert_eq!((answer.status, &answer.json()["results"][1]["values"]), (200, &json!([null])));
    assert_eq!(answer.json()["results"][1]["statuses"], json!(["INVALID"]));
    let both = json!({"features": ["driver_stats:trips", "driver_push:city"], "entities": {"driver_id": [1001]}});
    assert_eq!(ask(&router, &brief, &both).await.status, 504);
    let metrics = get(&router, "/metrics").await;
    let text = std::str::from_utf8(&metrics.body).unwrap();
    assert!(text.contains("feast_online_view_fallback_total{feature_view=\"driver_stats\"} 1"), "{text}");
}

#[tokio::test]
async fn a_wrong_deadline_is_the_clients_mistake() {
    let (_folder, router, _) = server("", &ServeOptions::default()).await;
    for value in ["soon", "0", "-1", "1.5", ""] {
        assert_eq!(ask(&router, &[("x-request-timeout-ms", value)], &trips(&[1001])).await.status, 400, "{value}");
    }
    assert_eq!(ask(&router, &[("x-request-timeout-ms", "999999999999999")], &trips(&[1001])).await.status, 200);
}

#[tokio::test]
async fn phases_are_measured_by_service() {
    let (_folder, router, _) = server("", &ServeOptions::default()).await;
    let service = json!({"feature_service": "driver_service", "entities": {"driver_id": [1001]}});
    assert_eq!(ask(&router, &[], &service).await.status, 200);
    assert_eq!(ask(&router, &[], &trips(&[1001])).await.status, 200);
    let unknown = json!({"feature_service": "made_up_by_a_client", "entities": {"driver_id": [1001]}});
    assert_eq!(ask(&router, &[], &unknown).await.status, 404);
    let metrics = get(&router, "/metrics").await;
    let text = std::str::from_utf8(&metrics.body).unwrap();
    for phase in ["parse", "plan", "store", "transform", "encode"] {
        for service in ["driver_service", ""] {
            let line = format!("feast_feature_server_phase_seconds_count{{service=\"{service}\",phase=\"{phase}\"}} 1");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
    assert!(!text.contains("made_up_by_a_client"));
    let requests = |status: &str| {
        format!("feast_feature_server_request_total{{endpoint=\"/get-online-features\",status=\"{status}\"}}")
    };
    assert!(text.contains(&format!("{} 2", requests("success"))), "{text}");
    assert!(text.contains(&format!("{} 1", requests("error"))), "{text}");
}

#[tokio::test]
async fn answers_are_compressed_only_where_both_sides_want_it() {
    let (_folder, plain, _) = server("", &ServeOptions::default()).await;
    let (_folder, packing, _) = server("", &ServeOptions { gzip: true, ..ServeOptions::default() }).await;
    let gzip = [("accept-encoding", "gzip")];
    assert!(!ask(&plain, &gzip, &trips(&[1001; 50])).await.headers.contains_key("content-encoding"));
    assert!(!ask(&packing, &[], &trips(&[1001; 50])).await.headers.contains_key("content-encoding"));
    let packed = ask(&packing, &gzip, &trips(&[1001; 50])).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.starts_with(&[0x1f, 0x8b]), "the magic number of gzip");
}

#[tokio::test]
async fn configured_authentication_is_not_left_out() {
    let (folder, _) = fixture::feature_store().await;
    let store = FeatureStore::open(fixture::config(folder.path(), "auth: {type: kubernetes}\n")).unwrap();
    let error = serve(store, ServeOptions { port: 0, ..ServeOptions::default() }, |_| {}, std::future::pending::<()>());
    let error = error.await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert_eq!(
        error.message(),
        "feature_store.yaml asks for `auth` of type `kubernetes`, which this server cannot enforce yet, so it does not start"
    );
}
