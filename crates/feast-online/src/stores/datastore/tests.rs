//! The store against Google's emulator: `make datastore`, which names it.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

#[test]
fn options_are_those_of_feast() {
    let config = DatastoreConfig::parse(&json!({"type": "datastore", "project_id": "p"})).unwrap();
    assert_eq!((config.write_concurrency, config.write_batch_size), (40, 50));
    let error = DatastoreConfig::parse(&json!({"projet_id": "p"})).unwrap_err();
    assert_eq!(error.message(), "`online_store.projet_id` is not a key of online store `datastore`");
    assert!(DatastoreConfig::parse(&json!({"write_batch_size": 501})).is_err());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = DatastoreStore::at(Some(free.to_string()), &json!({"project_id": "p"})).unwrap();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert!(error.to_string().contains("onnection refused"), "{error}");
    let store = DatastoreStore::at(Some(free.to_string()), &json!({})).unwrap();
    assert_eq!(store.check().await.unwrap_err().code(), ErrorCode::InvalidConfiguration);
}
