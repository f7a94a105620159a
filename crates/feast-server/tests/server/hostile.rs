//! Whatever a client sends, it gets an answer that blames the client, and the server goes on.

use std::sync::{LazyLock, OnceLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use feast_server::{ServeOptions, router};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::fixture;

const ROUTES: [&str; 5] =
    ["/get-online-features", "/push", "/write-to-online-store", "/materialize", "/materialize-incremental"];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

fn with_limits(options: &ServeOptions) -> (TempDir, Router) {
    let (folder, store) = RUNTIME.block_on(fixture::feature_store());
    (folder, router(store, options))
}

fn ask(router: &Router, path: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let request = Request::post(path).header("content-type", "application/json").body(Body::from(body.into())).unwrap();
    RUNTIME.block_on(async {
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    })
}

fn shared() -> &'static Router {
    static SHARED: OnceLock<(TempDir, Router)> = OnceLock::new();
    &SHARED.get_or_init(|| with_limits(&ServeOptions::default())).1
}

/// Any JSON, with the names and texts that mean something more often than chance would have them.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("driver_id"),
        Just("driver"),
        Just("id"),
        Just("driver_stats"),
        Just("driver_push_source"),
        Just("driver_stats:trips"),
        Just("shapes:d"),
        Just("glob:g"),
        Just("trips"),
        Just("conv_rate"),
        Just("city"),
        Just("event_timestamp"),
        Just("created"),
        Just("2026-11-20T12:00:00Z"),
        Just("NaN"),
        Just("online"),
        Just("online_and_offline"),
        Just("__dummy_id"),
        Just("extras"),
        Just("m"),
        Just("j"),
        Just("u"),
    ];
    let text = prop_oneof![4 => word.prop_map(str::to_owned), 1 => ".{0,12}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just(1001), Just(0), Just(-1)].prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..6).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// A body with the members of a route, some right and some not.
fn any_body() -> impl Strategy<Value = Value> {
    let member = prop_oneof![
        Just("entities"),
        Just("features"),
        Just("feature_service"),
        Just("full_feature_names"),
        Just("push_source_name"),
        Just("df"),
        Just("to"),
        Just("feature_view_name"),
        Just("start_ts"),
        Just("end_ts"),
        Just("feature_views"),
        Just("disable_event_timestamp"),
        Just("version"),
    ];
    let right = json!({
        "entities": {"driver_id": [1001]}, "features": ["driver_stats:trips"], "push_source_name": "driver_push_source",
        "feature_view_name": "driver_stats", "start_ts": "2026-11-01", "end_ts": "2026-11-21",
        "df": {"driver_id": [1], "conv_rate": [1], "trips": [1], "city": ["a"],
               "event_timestamp": ["2026-11-20"], "created": ["2026-11-20"]},
    });
    prop::collection::vec((member, any_json()), 0..4).prop_map(move |members| {
        let mut body = right.clone();
        for (name, value) in members {
            body[name] = value;
        }
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_json_breaks_the_server(route in prop::sample::select(ROUTES.to_vec()), body in prop_oneof![any_json(), any_body()]) {
        let (status, answer) = ask(shared(), route, body.to_string());
        // 501 is the honest answer to a version that exists in no store.
        prop_assert!(status < 500 || status == 501, "{status} {answer} for {body}");
    }

    #[test]
    fn no_bytes_break_the_server(route in prop::sample::select(ROUTES.to_vec()), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let (status, answer) = ask(shared(), route, body);
        prop_assert!((400..500).contains(&status), "{status} {answer}");
    }

    #[test]
    fn no_cut_or_changed_body_breaks_the_server(cut in 0usize..200, byte in any::<u8>()) {
        let body = json!({"features": ["driver_stats:trips"], "entities": {"driver_id": [1001, "a\n", null, 1.5, [1], {"a": 2}]}});
        let mut bytes = body.to_string().into_bytes();
        let at = cut % bytes.len();
        let mut changed = bytes.clone();
        changed[at] = byte;
        bytes.truncate(at);
        for body in [bytes, changed] {
            let (status, answer) = ask(shared(), "/get-online-features", body);
            prop_assert!((400..500).contains(&status), "{status} {answer}");
        }
    }
}

#[test]
fn deep_bodies_are_refused() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let body = format!(r#"{{"features": ["driver_stats:trips"], "entities": {{"driver_id": [{deep}]}}}}"#);
        let (status, answer) = ask(shared(), "/get-online-features", body);
        assert_eq!(status, 422, "{answer}");
    }
}

#[test]
fn large_requests_and_answers_are_refused() {
    let options = ServeOptions {
        request_limit_bytes: 2000,
        request_limit_values: 50,
        response_limit_values: 20,
        ..ServeOptions::default()
    };
    let (_folder, router) = with_limits(&options);
    let body =
        |rows: usize| json!({"features": ["driver_stats:trips"], "entities": {"driver_id": vec![1; rows]}}).to_string();
    for (rows, expected) in [(10, 200), (11, 413), (51, 413), (1000, 413)] {
        let (status, answer) = ask(&router, "/get-online-features", body(rows));
        assert_eq!(status, expected, "{rows} rows: {answer}");
    }
}

/// A body that is understood in one pass means the same as one that takes several.
#[test]
fn both_ways_of_reading_a_body_agree() {
    let bodies = [
        json!({"features": ["driver_stats:trips", "driver_stats:city"], "entities": {"driver_id": [1001, 7, 1001]}}),
        json!({"feature_service": "driver_service", "entities": {"driver": ["1001", "1002"]}, "full_feature_names": true}),
        json!({"features": ["shapes:s", "shapes:dl"], "entities": {"id": ["0", "1"]},
               "include_feature_view_version_metadata": true}),
        json!({"features": ["glob:g"], "entities": {"driver_id": [1001]}}),
        json!({"features": ["driver_stats:trips"], "entities": {"driver_id": ["x"]}}),
        json!({"features": ["driver_stats:tripz"], "entities": {"driver_id": [1]}}),
        json!({"features": ["driver_stats:trips"], "entities": {"drivr_id": [1]}}),
    ];
    for body in bodies {
        let quick = ask(shared(), "/get-online-features", body.to_string());
        let mut longer = body.clone();
        longer["nobody_asks_for_this"] = Value::Null;
        assert_eq!(quick, ask(shared(), "/get-online-features", longer.to_string()), "{body}");
    }
}

#[test]
fn bodies_that_do_not_come_are_not_waited_for() {
    let options = ServeOptions {
        max_concurrent_requests: 1,
        max_queued_requests: 0,
        request_timeout: std::time::Duration::from_millis(100),
        body_memory_bytes: 64 << 10,
        ..ServeOptions::default()
    };
    let (_folder, router) = with_limits(&options);
    RUNTIME.block_on(async {
        let endless = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let post = |body: Body| Request::post("/push").header("content-type", "application/json").body(body).unwrap();
        let mut first = std::pin::pin!(router.clone().oneshot(post(endless)));
        assert!(futures::poll!(&mut first).is_pending());
        // Whoever sends nothing takes nobody's place.
        let second = router.clone().oneshot(post(Body::from("{}"))).await.unwrap();
        assert_eq!(second.status(), 422);
        assert_eq!(first.await.unwrap().status(), 408);
        // All bodies together have a limit.
        let large = router.clone().oneshot(post(Body::from(vec![b' '; 100_000]))).await.unwrap();
        assert_eq!((large.status().as_u16(), large.headers()["retry-after"].to_str().unwrap()), (503, "1"));
        let small = router.clone().oneshot(post(Body::from(vec![b' '; 10_000]))).await.unwrap();
        assert_eq!(small.status(), 422);
    });
}
