#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Float32Type;
use feast_core::{ErrorCode, Field, ValueType};
use feast_testing::StartedStore;
use rusqlite::Connection;
use rusqlite::types::Value as SqlValue;
use serde_json::json;

use super::*;

async fn start() -> StartedStore {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::connect(&json!({"type": "sqlite"}), folder.path()).unwrap();
    StartedStore::with_guard(Arc::new(store), folder)
}

feast_testing::online_store_conformance!(super::start);

#[test]
fn unknown_options_are_named() {
    let error = SqliteConfig::parse(&json!({"type": "sqlite", "pth": "x"})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidConfiguration);
    assert_eq!(error.message(), "`online_store.pth` is not a key of online store `sqlite`");
    assert_eq!(error.hint(), Some("did you mean `path`?"));
    let error = SqliteConfig::parse(&json!({"path": 5})).unwrap_err();
    assert!(error.to_string().starts_with("`online_store.path` is wrong: invalid type"), "{error}");
}

/// A vector of driver 1.
async fn write(store: &SqliteStore, table: &OnlineTable, event: i64, vector: &[f32]) {
    try_write(store, table, event, vector).await.unwrap();
}

async fn try_write(store: &SqliteStore, table: &OnlineTable, event: i64, vector: &[f32]) -> Result<()> {
    let ids = Arc::new(arrow::array::Int64Array::from(vec![1])) as ArrayRef;
    let encoder = feast_core::EntityKeyEncoder::new(&table.join_keys, 3).unwrap();
    let keys = encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap();
    let vector = [Some(vector.iter().copied().map(Some))];
    let vector = Arc::new(arrow::array::ListArray::from_iter_primitive::<Float32Type, _, _>(vector)) as ArrayRef;
    let number = Arc::new(arrow::array::Int64Array::from(vec![7])) as ArrayRef;
    let rows = crate::write::record_batch(&table.columns, vec![vector, number], 1).unwrap();
    let event_timestamps = TimestampMicrosecondArray::from(vec![event]);
    let write =
        OnlineWrite { table, keys: &keys, rows: &rows, event_timestamps: &event_timestamps, created_timestamps: None };
    store.write(write).await
}

fn vectors() -> OnlineTable {
    OnlineTable {
        project: "p".to_owned(),
        view: "vectors".to_owned(),
        join_keys: vec![Field::new("id", ValueType::Int64)],
        columns: vec![Field::new("v", ValueType::FloatList), Field::new("n", ValueType::Int64)],
        tags: feast_core::Tags::new(),
    }
}

#[tokio::test]
async fn vectors_and_numbers_have_columns_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let plain = SqliteStore::connect(&json!({}), folder.path()).unwrap();
    plain.update(&[TableChange::Ensure(vectors())]).await.unwrap();
    // Switched on later: the table is brought up to date.
    let options = json!({"vector_enabled": true, "enable_openai_compatible_store": true});
    let store = SqliteStore::connect(&options, folder.path()).unwrap();
    store.update(&[TableChange::Ensure(vectors())]).await.unwrap();
    write(&store, &vectors(), 0, &[1.0, 0.5]).await;
    let connection = Connection::open(folder.path().join("data/online.db")).unwrap();
    let row = |feature: &str| -> (SqlValue, Option<f64>) {
        let sql = "SELECT vector_value, value_num FROM p_vectors WHERE feature_name = ?";
        connection.query_row(sql, [feature], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    assert_eq!(row("v"), (SqlValue::Blob(vec![0, 0, 128, 63, 0, 0, 0, 63]), None));
    assert_eq!(row("n"), (SqlValue::Integer(7), Some(7.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn small_writes_that_wait_are_written_together_and_do_not_share_errors() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::connect(&json!({}), folder.path()).unwrap();
    store.update(&[TableChange::Ensure(vectors())]).await.unwrap();
    let other = Connection::open(folder.path().join("data/online.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writes: Vec<_> = (0..40)
        .map(|number| {
            let store = store.clone();
            let absent = number % 8 == 3;
            let table = if absent { OnlineTable { view: "absent".to_owned(), ..vectors() } } else { vectors() };
            // Not in the order of their times.
            let event = i64::from((number * 7) % 40);
            tokio::spawn(async move { (absent, try_write(&store, &table, event, &[event as f32]).await) })
        })
        .collect();
    other.execute_batch("COMMIT").unwrap();
    for write in writes {
        let (absent, written) = write.await.unwrap();
        match absent {
            true => assert!(written.unwrap_err().message().contains("absent")),
            false => written.unwrap(),
        }
    }
    let newest = "SELECT max(event_ts_micros), min(event_ts_micros) FROM p_vectors";
    let times: (i64, i64) = other.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(times, (39, 39));
}

#[tokio::test]
async fn a_removed_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::connect(&json!({}), folder.path()).unwrap();
    for _ in 0..2 {
        assert!(store.check().await.unwrap_err().hint().unwrap().contains("feast apply"));
        store.update(&[TableChange::Ensure(vectors())]).await.unwrap();
        write(&store, &vectors(), 0, &[1.0]).await;
        store.check().await.unwrap();
        std::fs::remove_dir_all(folder.path().join("data")).unwrap();
    }
}

#[tokio::test]
async fn a_table_that_feast_makes_anew_is_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::connect(&json!({}), folder.path()).unwrap();
    store.update(&[TableChange::Ensure(vectors())]).await.unwrap();
    write(&store, &vectors(), 1, &[1.0]).await;
    let ids = Arc::new(arrow::array::Int64Array::from(vec![1])) as ArrayRef;
    let encoder = feast_core::EntityKeyEncoder::new(&vectors().join_keys, 3).unwrap();
    let keys = encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap();
    let table = vectors();
    let reads = [OnlineRead { wanted: &table.clone().wanted([1]), keys: &keys }];
    assert_eq!(store.read(&reads).await.unwrap()[0].event_timestamps.value(0), 1);
    let connection = Connection::open(folder.path().join("data/online.db")).unwrap();
    let narrow = "DROP TABLE p_vectors; CREATE TABLE p_vectors (entity_key BLOB, feature_name TEXT, value BLOB, \
                  value_text TEXT, vector_value BLOB, event_ts timestamp, created_ts timestamp, \
                  PRIMARY KEY(entity_key, feature_name))";
    connection.execute_batch(narrow).unwrap();
    assert!(store.read(&reads).await.unwrap()[0].event_timestamps.is_null(0));
    let listed = store.stored_tables("p").await.unwrap().unwrap();
    assert_eq!(listed[0].name, "p_vectors");
    assert_eq!(listed[0].missing_columns, ["event_ts_micros", "created_ts_micros"]);
    write(&store, &vectors(), 2_000_001, &[1.0]).await;
    assert_eq!(store.read(&reads).await.unwrap()[0].event_timestamps.value(0), 2_000_000);
}

#[tokio::test]
async fn several_processes_may_share_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let table = vectors();
    // Separate stores share no connection and no lock of ours, as separate processes do not.
    let stores = || SqliteStore::connect(&json!({}), folder.path()).unwrap();
    let ensure = || async { stores().update(&[TableChange::Ensure(vectors())]).await.unwrap() };
    futures::future::join_all((0..4).map(|_| ensure())).await;
    futures::future::join_all((0..8u8).map(|number| {
        let (store, table) = (stores(), &table);
        async move {
            write(&store, table, i64::from(number), &[f32::from(number)]).await;
        }
    }))
    .await;
    let connection = Connection::open(folder.path().join("data/online.db")).unwrap();
    let sql = "SELECT event_ts_micros, (SELECT count(*) FROM p_vectors) FROM p_vectors WHERE feature_name = 'v'";
    let found: (i64, i64) = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(found, (7, 2));
}
