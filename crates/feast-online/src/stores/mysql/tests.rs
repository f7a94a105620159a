//! The store against a real server.

#![allow(clippy::unwrap_used, reason = "tests")]

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use feast_core::{EntityKeyEncoder, EntityKeys, Field, ValueType};
use feast_testing::StartedStore;
use feast_testing::services::mysql::{MysqlServer, PASSWORD, USER};
use serde_json::json;

use super::*;
use crate::write::record_batch;

fn store(server: &MysqlServer, database: &str, more: serde_json::Value) -> MysqlStore {
    let mut options = json!({
        "type": "mysql", "host": server.host(), "port": server.port(), "database": database, "user": USER,
        "password": PASSWORD,
    });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    MysqlStore::connect(&options).unwrap()
}

async fn start() -> StartedStore {
    let server = MysqlServer::shared();
    StartedStore::new(Arc::new(store(server, &server.create_database(), json!({}))))
}

feast_testing::online_store_conformance!(super::start);

fn table(columns: &[(&str, ValueType)]) -> OnlineTable {
    OnlineTable {
        project: "p".to_owned(),
        view: "v".to_owned(),
        join_keys: vec![Field::new("id", ValueType::Int64)],
        columns: columns.iter().map(|(name, value_type)| Field::new(*name, *value_type)).collect(),
        tags: feast_core::Tags::new(),
    }
}

fn keys(ids: &[i64]) -> EntityKeys {
    let encoder = EntityKeyEncoder::new(&[Field::new("id", ValueType::Int64)], 3).unwrap();
    let ids = Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
    encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap()
}

/// Writes the same row for some entities.
async fn write(store: &MysqlStore, table: &OnlineTable, ids: &[i64], event: i64, row: &[ArrayRef]) -> Result<()> {
    let repeated = row.iter().map(|cell| {
        let positions = arrow::array::UInt32Array::from(vec![0; ids.len()]);
        arrow::compute::take(cell, &positions, None).unwrap()
    });
    let write = OnlineWrite {
        table,
        keys: &keys(ids),
        rows: &record_batch(&table.columns, repeated.collect(), ids.len()).unwrap(),
        event_timestamps: &TimestampMicrosecondArray::from(vec![event; ids.len()]),
        created_timestamps: None,
    };
    store.write(write).await
}

fn int(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

async fn ensure(store: &MysqlStore, table: &OnlineTable) {
    store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
}

/// Event time and numbers of one entity.
async fn read(store: &MysqlStore, table: &OnlineTable, id: i64) -> Result<(Option<i64>, Vec<Option<i64>>)> {
    let wanted = table.clone().wanted(0..table.columns.len());
    let mut answers = store.read(&[OnlineRead { wanted: &wanted, keys: &keys(&[id]) }]).await?;
    let answer = answers.remove(0);
    let number = |column: &ArrayRef| column.is_valid(0).then(|| column.as_primitive::<Int64Type>().value(0));
    let time = answer.event_timestamps.is_valid(0).then(|| answer.event_timestamps.value(0));
    Ok((time, answer.values.columns().iter().map(number).collect()))
}

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
    let store = store(server, &server.create_database(), json!({}));
    let narrow = table(&[("b", ValueType::Int64)]);
    let wide = table(&[("a", ValueType::Int64), ("b", ValueType::Int64)]);
    ensure(&store, &narrow).await;
    write(&store, &narrow, &[1], 10, &[int(1)]).await.unwrap();
    // An older row must not give a value to the feature that is new.
    write(&store, &wide, &[1, 2], 9, &[int(2), int(2)]).await.unwrap();
    assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![None, Some(1)]));
    assert_eq!(read(&store, &wide, 2).await.unwrap(), (Some(9), vec![Some(2), Some(2)]));
    write(&store, &wide, &[1], 10, &[int(3), int(3)]).await.unwrap();
    assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![Some(3), Some(3)]));
}

/// Writers that share nothing but the server, as processes do, write equally old and older rows of the same few
/// entities; whoever reads meanwhile sees each row whole and never going back in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_never_torn() {
    let server = MysqlServer::shared();
    let database = server.create_database();
    let names: Vec<String> = (0..8).map(|n| format!("f{n}")).collect();
    let table = table(&names.iter().map(|name| (name.as_str(), ValueType::Int64)).collect::<Vec<_>>());
    ensure(&store(server, &database, json!({})), &table).await;
    let writer = |number: i64| {
        let (store, table) = (store(server, &database, json!({})), table.clone());
        async move {
            for round in 0..20 {
                // Half of the events are shared by all writers, so that ties are frequent.
                let event = round / 2 * 2;
                let mut ids = if number % 2 == 0 { vec![1, 2, 3] } else { vec![3, 1] };
                ids.push(100 + round);
                let row: Vec<ArrayRef> = names_of(&table).map(|_| int(round * 10 + number)).collect();
                write(&store, &table, &ids, event, &row).await.unwrap();
            }
        }
    };
    let writers: Vec<_> = (0..6).map(|number| tokio::spawn(writer(number))).collect();
    let reader = store(server, &database, json!({}));
    let (mut newest, mut seen) = (None, 0);
    while seen < 20 || !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let (time, values) = read(&reader, &table, 1).await.unwrap();
        assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "torn: {values:?}");
        assert!(time >= newest, "{time:?} after {newest:?}");
        assert!(values[0].is_none_or(|value| time == Some(value / 10 / 2 * 2)), "{time:?} with {values:?}");
        newest = time;
        seen += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(read(&reader, &table, 1).await.unwrap().0, Some(18));
    assert_eq!(server.execute(&database, "SELECT count(*) FROM p_v WHERE value IS NULL"), "0");
}

fn names_of(table: &OnlineTable) -> impl Iterator<Item = &str> {
    table.columns.iter().map(|column| column.name.as_str())
}

#[tokio::test]
async fn tables_may_be_made_by_many_at_once() {
    let server = MysqlServer::shared();
    let database = server.create_database();
    let table = table(&[("n", ValueType::Int64)]);
    let update = || async {
        let store = store(server, &database, json!({}));
        for _ in 0..3 {
            store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
        }
    };
    futures::future::join_all((0..6).map(|_| update())).await;
    let store = store(server, &database, json!({}));
    write(&store, &table, &[1], 1, &[int(5)]).await.unwrap();
    assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(5)]));
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
    lease.connection().unwrap().query_drop("LOCK TABLES p_v WRITE").await.unwrap();
    for _ in 0..=MOST_CONNECTIONS {
        let read = tokio::time::timeout(Duration::from_millis(30), read(&blocked, &table, 1)).await;
        assert!(read.is_err(), "the table is locked");
    }
    lease.connection().unwrap().query_drop("UNLOCK TABLES").await.unwrap();
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
