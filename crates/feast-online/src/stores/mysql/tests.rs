//! The store against a real server.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, StringArray};
use feast_core::{ErrorCode, OnlineStore, ValueType};
use feast_testing::StartedStore;
use feast_testing::services::mysql::{MysqlServer, PASSWORD, USER};
use serde_json::json;

use super::layout::MICROS;
use super::*;
use crate::stores::sql;
use crate::stores::sql::tests::{ensure, int, read, table, write};

fn store(server: &MysqlServer, database: &str, more: serde_json::Value) -> SqlStore<Mysql> {
    let mut options = json!({
        "type": "mysql", "host": server.host(), "port": server.port(), "database": database, "user": USER,
        "password": PASSWORD,
    });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    connect(&options).unwrap()
}

async fn start() -> StartedStore {
    let server = MysqlServer::shared();
    StartedStore::new(Arc::new(store(server, &server.create_database(), json!({}))))
}

feast_testing::online_store_conformance!(super::start);

#[tokio::test]
async fn tables_and_cells_are_what_feast_writes_and_ours_beside() {
    let server = MysqlServer::shared();
    let database = server.create_database();
    let store = store(server, &database, json!({}));
    let table = table(&[("t", ValueType::String), ("n", ValueType::Int64)]);
    ensure(&store, &table).await;
    server.execute(
        &database,
        "CREATE TABLE theirs (entity_key VARCHAR(512), feature_name VARCHAR(256), value BLOB, \
         event_ts timestamp NULL DEFAULT NULL, created_ts timestamp NULL DEFAULT NULL, \
         PRIMARY KEY(entity_key, feature_name)); ALTER TABLE theirs ADD INDEX theirs_ek (entity_key)",
    );
    let lines = |name: &str| {
        let described = server.execute(&database, &format!("SHOW CREATE TABLE {name}")).replace(name, "table");
        let lines: Vec<String> = described.split("\\n").map(str::to_owned).collect();
        lines.into_iter().filter(|line| !line.contains("_micros")).collect::<Vec<_>>()
    };
    assert_eq!(lines("p_v"), lines("theirs"));
    assert!(lines("p_v").iter().any(|line| line.contains("KEY `table_ek`")));
    let row: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["it's \\ é"])), Arc::new(Int64Array::from(vec![None]))];
    write(&store, &table, &[1001], 1_795_176_000_999_999, &row).await.unwrap();
    let found = server.execute(
        &database,
        "SET time_zone = '+00:00'; SELECT feature_name, HEX(value), event_ts, created_ts, event_ts_micros FROM p_v \
         WHERE entity_key = '01000000020000000200000069640400000008000000e903000000000000' ORDER BY 1",
    );
    assert_eq!(
        found,
        "n\t\t2026-11-20 12:00:00\tNULL\t1795176000999999\n\
         t\t120969742773205C20C3A9\t2026-11-20 12:00:00\tNULL\t1795176000999999"
    );
}

#[tokio::test]
async fn what_feast_wrote_meanwhile_counts() {
    let server = MysqlServer::shared();
    let database = server.create_database();
    let store = store(server, &database, json!({}));
    let table = table(&[("n", ValueType::Int64)]);
    let feasts = "(entity_key VARCHAR(512), feature_name VARCHAR(256), value BLOB, \
                  event_ts timestamp NULL DEFAULT NULL, created_ts timestamp NULL DEFAULT NULL, \
                  PRIMARY KEY(entity_key, feature_name))";
    server.execute(&database, &format!("CREATE TABLE p_v {feasts}"));
    let key = "01000000020000000200000069640400000008000000e903000000000000";
    let by_feast = |value: &str, at: &str| {
        let sql = format!(
            "SET time_zone = '+00:00'; INSERT INTO p_v (entity_key, feature_name, value, event_ts, created_ts) \
             VALUES ('{key}', 'n', X'{value}', '{at}', NULL) ON DUPLICATE KEY UPDATE value = X'{value}', \
             event_ts = '{at}', created_ts = NULL"
        );
        server.execute(&database, &sql)
    };
    // Before our columns are there: whole seconds count.
    by_feast("2001", "2026-11-20 12:00:00");
    let noon = 1_795_176_000_000_000;
    assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon), vec![Some(1)]));
    write(&store, &table, &[1001], noon - 1, &[int(2)]).await.unwrap();
    assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon), vec![Some(1)]));
    write(&store, &table, &[1001], noon + 5, &[int(3)]).await.unwrap();
    assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon), vec![Some(3)]));
    let listed = StoredTable { name: "p_v".to_owned(), missing_columns: MICROS.map(str::to_owned).to_vec() };
    assert_eq!(store.stored_tables("p").await.unwrap(), Some(vec![listed.clone()]));
    ensure(&store, &table).await;
    let listed = StoredTable { missing_columns: vec![], ..listed };
    assert_eq!(store.stored_tables("p").await.unwrap(), Some(vec![listed]));
    assert_eq!(store.stored_tables("q").await.unwrap(), Some(vec![]));
    write(&store, &table, &[1001], noon + 1_500_000, &[int(4)]).await.unwrap();
    assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon + 1_500_000), vec![Some(4)]));
    // Feast goes back in time, as it does.
    by_feast("2005", "2026-11-20 11:00:00");
    assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon - 3_600_000_000), vec![Some(5)]));
    write(&store, &table, &[1001], noon, &[int(6)]).await.unwrap();
    assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon), vec![Some(6)]));
}

#[tokio::test]
async fn all_features_of_a_row_decide_together() {
    let server = MysqlServer::shared();
    sql::tests::all_features_of_a_row_decide_together(store(server, &server.create_database(), json!({}))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_never_torn() {
    let server = MysqlServer::shared();
    let database = server.create_database();
    sql::tests::rows_are_never_torn(|| store(server, &database, json!({}))).await;
    // What writers wait for is not left behind.
    assert_eq!(server.execute(&database, "SELECT count(*) FROM p_v WHERE value IS NULL"), "0");
}

#[tokio::test]
async fn tables_may_be_made_by_many_at_once() {
    let server = MysqlServer::shared();
    let database = server.create_database();
    sql::tests::tables_may_be_made_by_many_at_once(|| store(server, &database, json!({}))).await;
}

#[tokio::test]
async fn a_cancelled_call_returns_its_place_in_the_pool() {
    let server = MysqlServer::shared();
    let database = server.create_database();
    let blocked = store(server, &database, json!({}));
    let table = table(&[("n", ValueType::Int64)]);
    ensure(&blocked, &table).await;
    write(&blocked, &table, &[1], 1, &[int(5)]).await.unwrap();
    let other = store(server, &database, json!({}));
    let mut lease = other.lease().await.unwrap_or_else(|failure| panic!("{:?}", failure.error));
    lease.query_drop("LOCK TABLES p_v WRITE").await.unwrap();
    for _ in 0..=MOST_CONNECTIONS {
        let read = tokio::time::timeout(Duration::from_millis(30), read(&blocked, &table, 1)).await;
        assert!(read.is_err(), "the table is locked");
    }
    lease.query_drop("UNLOCK TABLES").await.unwrap();
    assert_eq!(read(&blocked, &table, 1).await.unwrap(), (Some(1), vec![Some(5)]));
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let mut server = MysqlServer::start();
    let database = server.create_database();
    let store = store(&server, &database, json!({}));
    let table = table(&[("n", ValueType::Int64)]);
    ensure(&store, &table).await;
    for number in 0..2 {
        write(&store, &table, &[1], number, &[int(number)]).await.unwrap();
        let reads = futures::future::join_all((0..6).map(|_| read(&store, &table, 1))).await;
        assert!(reads.into_iter().all(|read| read.unwrap() == (Some(number), vec![Some(number)])));
        server.restart();
    }
    assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(1)]));
    store.check().await.unwrap();
    drop(server);
    let error = store.check().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert_eq!(error.hint(), Some("check `host` and `port`, and that the server runs"));
}

#[tokio::test]
async fn what_is_wrong_is_said_without_the_password() {
    let server = MysqlServer::shared();
    let database = server.create_database();
    for (more, code) in [
        (json!({"password": "s3cret"}), ErrorCode::PermissionDenied),
        (json!({"database": "nowhere"}), ErrorCode::Unavailable),
        (json!({"port": 1}), ErrorCode::Unavailable),
    ] {
        let store = store(server, &database, more);
        let error = store.check().await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        let shown = format!("{store:?} {store} {error:?}");
        assert!(!shown.contains(PASSWORD) && !shown.contains("s3cret"), "{shown}");
    }
    let store = store(server, &database, json!({}));
    let table = table(&[("b", ValueType::Bytes)]);
    ensure(&store, &table).await;
    let long = vec![7; MOST_VALUE_BYTES];
    let row: ArrayRef = Arc::new(BinaryArray::from(vec![long.as_slice()]));
    let error = write(&store, &table, &[1], 1, &[row]).await.unwrap_err();
    assert!(error.message().starts_with("the value of `b` in row 0 has 65539 bytes"), "{error:?}");
    let longest = vec![7; MOST_VALUE_BYTES - 4];
    let row: ArrayRef = Arc::new(BinaryArray::from(vec![longest.as_slice()]));
    write(&store, &table, &(0..40).collect::<Vec<_>>(), 1, &[row]).await.unwrap();
    let long = OnlineTable { view: "v".repeat(64), ..table };
    let error = store.update(&[TableChange::Ensure(long)]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidDefinition, "{error:?}");
}

#[test]
fn options_are_those_of_feast() {
    let config = MysqlConfig::parse(&json!({})).unwrap();
    assert_eq!((config.host.as_str(), config.port, config.user.as_str()), ("127.0.0.1", 3306, "test"));
    let error = MysqlConfig::parse(&json!({"hots": "h"})).unwrap_err();
    assert_eq!(error.message(), "`online_store.hots` is not a key of online store `mysql`");
    assert!(MysqlConfig::parse(&json!({"batch_write": true})).is_err());
    let config = MysqlConfig::parse(&json!({"batch_write": true, "batch_size": 100})).unwrap();
    assert_eq!(config.cells_in_chunk(), 100);
}

#[test]
fn features_that_differ_in_case_are_refused() {
    let change = TableChange::Ensure(table(&[("Rate", ValueType::Int64), ("rate", ValueType::Int64)]));
    let error = refuse_same_features(&[change]).unwrap_err();
    assert!(error.message().contains("`Rate` and `rate`"), "{error:?}");
}
