//! Bodies of requests for online features, pushes and writes. The first byte says which; whatever comes, the answer
//! blames the client, and the server goes on.

use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use feast_server::{ServeOptions, router};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::{RUNTIME, fixture, run};

const ROUTES: [&str; 3] = ["/get-online-features", "/push", "/write-to-online-store"];

static SERVER: LazyLock<(TempDir, Router)> = LazyLock::new(|| {
    let (folder, store) = RUNTIME.block_on(fixture::feature_store());
    (folder, router(store, &ServeOptions::default()))
});

/// One input.
pub fn fuzz(bytes: &[u8]) {
    let Some((which, body)) = bytes.split_first() else { return };
    let path = ROUTES[usize::from(*which) % ROUTES.len()];
    let request = Request::post(path).header("content-type", "application/json").body(Body::from(body.to_vec()));
    let router = SERVER.1.clone();
    let (status, answer) = run(async {
        let response = router.oneshot(request.expect("the path is one")).await.expect("routers do not fail");
        let status = response.status().as_u16();
        (status, to_bytes(response.into_body(), usize::MAX).await.expect("the answer has an end"))
    });
    // 501 is the honest answer to what this process has no Python for.
    assert!(status < 500 || status == 501, "{path}: {status} {}", String::from_utf8_lossy(&answer));
    // A push that went well says nothing more.
    let is_json = serde_json::from_slice::<serde_json::Value>(&answer).is_ok();
    assert!(is_json || status == 200 && answer.is_empty(), "{path}: {status} {}", String::from_utf8_lossy(&answer));
}
