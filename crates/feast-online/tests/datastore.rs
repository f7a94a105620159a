//! Datastore against Google's emulator at `DATASTORE_EMULATOR_HOST`: `make datastore` starts one and runs this.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use feast_testing::StartedStore;
use serde_json::json;

async fn start() -> StartedStore {
    static STORES: AtomicUsize = AtomicUsize::new(0);
    let namespace = format!("n{}-{}", std::process::id(), STORES.fetch_add(1, Ordering::Relaxed));
    #[expect(clippy::disallowed_methods, reason = "the lane says where it started the emulator")]
    let host = std::env::var("DATASTORE_EMULATOR_HOST").unwrap();
    let project = "feast-test";
    let options = json!({"type": "datastore", "project_id": project, "namespace": namespace, "emulator_host": host});
    StartedStore::new(feast_online::connect("datastore", &options, Path::new("/")).unwrap())
}

feast_testing::online_store_conformance!(super::start);
