//! Runs `tests/scenarios/*.yaml` against the router: each file on a repository of its own.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use feast::{FeatureStore, RepoConfig};
use feast_server::{ServeOptions, router};
use feast_testing::services::redis::RedisServer;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::fixture;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    name: String,
    request: Asked,
    status: u16,
    json: Option<Value>,
    text: Option<String>,
    error: Option<Told>,
    problems: Option<Vec<Value>>,
    #[serde(default)]
    contains: Vec<String>,
    /// Read by `against_feast.py` only.
    #[serde(rename = "feast")]
    _feast: Option<Difference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    method: Option<String>,
    path: String,
    json: Option<Value>,
    body: Option<String>,
    #[serde(default)]
    headers: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    class: Option<String>,
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    #[serde(rename = "status")]
    _status: u16,
    #[serde(rename = "why")]
    _why: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios")
}

async fn ask(router: &Router, asked: &Asked) -> (u16, String) {
    let method = asked.method.as_deref().unwrap_or("POST");
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(&asked.path);
    if !asked.headers.contains_key("content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in &asked.headers {
        request = request.header(name, value.as_str().unwrap());
    }
    let body = match (&asked.json, &asked.body) {
        (Some(json), _) => Body::from(json.to_string()),
        (None, Some(text)) => Body::from(text.clone()),
        (None, None) => Body::empty(),
    };
    let response = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// What differs from what is expected.
fn difference(scenario: &Scenario, status: u16, body: &str) -> Option<String> {
    let found = || serde_json::from_str::<Value>(body).unwrap_or_default();
    if status != scenario.status {
        return Some(format!("status {status} instead of {}", scenario.status));
    }
    if let Some(expected) = &scenario.json
        && found() != *expected
    {
        return Some(format!("another body than\n{expected}"));
    }
    if scenario.text.as_ref().is_some_and(|text| text != body) {
        return Some("another text".to_owned());
    }
    if let Some(expected) = &scenario.error {
        let text = found().as_str().unwrap_or_default().to_owned();
        let inner: Value = serde_json::from_str(&text).unwrap_or_default();
        let (class, message) = match inner["class"].as_str() {
            Some(class) => (Some(class.to_owned()), inner["message"].as_str().unwrap_or_default().to_owned()),
            None => (None, text),
        };
        if class != expected.class || !message.contains(&expected.message) {
            return Some(format!("another error than {expected:?}"));
        }
    }
    if let Some(expected) = &scenario.problems {
        let found = found();
        let told: Vec<Value> =
            found["detail"].as_array().into_iter().flatten().map(|p| json!([p["type"], p["loc"]])).collect();
        if told != *expected {
            return Some(format!("other problems than {expected:?}"));
        }
    }
    scenario.contains.iter().find(|part| !body.contains(part.as_str())).map(|part| format!("no `{part}`"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenarios() {
    run(fixture::feature_store).await;
}

/// Redis keeps serialized values, which are written and answered without columns in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenarios_on_redis() {
    let redis = RedisServer::start();
    run(async || {
        drop(redis.command(&["FLUSHALL"]));
        let folder = tempfile::tempdir().unwrap();
        let online_store = format!("{{type: redis, connection_string: '{}'}}", redis.address());
        let text = format!("project: proj\nregistry: data/registry.db\nonline_store: {online_store}\n");
        let store = fixture::filled(folder.path(), RepoConfig::parse(&text, folder.path()).unwrap()).await;
        (folder, store)
    })
    .await;
}

/// Asks what the files say, each file of a feature store of its own.
async fn run(start: impl AsyncFn() -> (TempDir, FeatureStore)) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut differences = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let scenarios: Vec<Scenario> =
            yaml_serde::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (_folder, store) = start().await;
        let router = router(store, &ServeOptions::default());
        for scenario in scenarios {
            let (status, body) = ask(&router, &scenario.request).await;
            if let Some(difference) = difference(&scenario, status, &body) {
                let file = file.file_name().unwrap().to_string_lossy().into_owned();
                differences.push(format!("{file}: {}: {difference}\nfound {status} {body}", scenario.name));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences\n\n{}", differences.len(), differences.join("\n\n"));
}
