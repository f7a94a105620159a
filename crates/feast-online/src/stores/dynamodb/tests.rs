//! The store against moto, which implements DynamoDB's protocol.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use feast_core::{EntityKeyEncoder, EntityKeys, Field, OnlineTable, ValueType};
use feast_testing::services::moto::MotoServer;
use feast_testing::{Limit, StartedStore};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::write::record_batch;

const NOON: i64 = 1_795_176_000_000_000;

fn options(endpoint: &str) -> Value {
    // All tests share a server, so their tables have names of their own.
    static STORES: AtomicUsize = AtomicUsize::new(0);
    let number = STORES.fetch_add(1, Ordering::Relaxed);
    json!({
        "type": "dynamodb", "region": "eu-west-1", "endpoint_url": endpoint,
        "table_name_template": format!("t{number}.{{project}}.{{table_name}}"),
    })
}

fn connect(options: &Value) -> DynamoStore {
    DynamoStore::with_signer(options, |config| AwsSigner::with_key(&config.region, "dynamodb", "key", "secret"))
        .unwrap()
}

async fn start() -> StartedStore {
    let store = connect(&options(&MotoServer::shared().endpoint()));
    StartedStore::new(Arc::new(store)).limited(&[Limit::NoCreatedTimes, Limit::PlainTableNames])
}

feast_testing::online_store_conformance!(super::start);

fn table(view: &str, columns: &[(&str, ValueType)]) -> OnlineTable {
    OnlineTable {
        project: "p".to_owned(),
        view: view.to_owned(),
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

/// Writes rows of one column at one time.
async fn write(store: &DynamoStore, table: &OnlineTable, ids: &[i64], event: i64, column: ArrayRef) -> Result<()> {
    let write = OnlineWrite {
        table,
        keys: &keys(ids),
        rows: &record_batch(&table.columns, vec![column], ids.len()).unwrap(),
        event_timestamps: &TimestampMicrosecondArray::from(vec![event; ids.len()]),
        created_timestamps: None,
    };
    store.write(write).await
}

fn int(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

async fn read(store: &DynamoStore, table: &OnlineTable, ids: &[i64]) -> Result<OnlineRows> {
    let wanted = table.clone().wanted(0..table.columns.len());
    let mut answers = store.read(&[OnlineRead { wanted: &wanted, keys: &keys(ids) }]).await?;
    Ok(answers.remove(0))
}

/// Event time and number of one entity.
async fn number(store: &DynamoStore, table: &OnlineTable) -> (i64, i64) {
    let answer = read(store, table, &[1001]).await.unwrap();
    (answer.event_timestamps.value(0), answer.values.column(0).as_primitive::<Int64Type>().value(0))
}

async fn ensure(store: &DynamoStore, table: &OnlineTable) {
    store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
}

/// Asks the server, apart from the code under test.
async fn ask(store: &DynamoStore, operation: &'static str, body: Value) -> Value {
    let client = store.client().unwrap();
    let answer = client.1.call(store, operation, body.to_string()).await.unwrap();
    serde_json::from_slice(&answer.unwrap()).unwrap()
}

#[tokio::test]
async fn tables_and_items_are_those_of_feast() {
    let store = connect(&options(&MotoServer::shared().endpoint()));
    let columns = [("n", ValueType::Int64), ("s", ValueType::String)];
    let table = table("v", &columns);
    ensure(&store, &table).await;
    let name = store.config.table_name(&table);
    let described = ask(&store, "DescribeTable", json!({ "TableName": name })).await;
    assert_eq!(described["Table"]["KeySchema"], json!([{"AttributeName": "entity_id", "KeyType": "HASH"}]));
    assert_eq!(described["Table"]["BillingModeSummary"]["BillingMode"], "PAY_PER_REQUEST");
    let texts: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![None::<&str>]));
    let rows = record_batch(&table.columns, vec![int(7), texts], 1).unwrap();
    let write = OnlineWrite {
        table: &table,
        keys: &keys(&[1001]),
        rows: &rows,
        event_timestamps: &TimestampMicrosecondArray::from(vec![NOON + 5]),
        created_timestamps: None,
    };
    store.write(write).await.unwrap();
    let found = ask(&store, "Scan", json!({ "TableName": name })).await;
    let item = json!({
        // What Feast's own function gives for the entity key with `id` 1001.
        "entity_id": {"S": EntityId::of(keys(&[1001]).encoded.value(0)).to_string()},
        "event_ts": {"S": "2026-11-20 12:00:00.000005+00:00"},
        "values": {"M": {"n": {"B": "IAc="}, "s": {"B": ""}}},
    });
    assert_eq!(found["Items"], json!([item]));
}

#[tokio::test]
async fn times_in_other_zones_are_compared_as_times() {
    let store = connect(&options(&MotoServer::shared().endpoint()));
    let table = table("v", &[("n", ValueType::Int64)]);
    ensure(&store, &table).await;
    let id = EntityId::of(keys(&[1001]).encoded.value(0)).to_string();
    let by_others = |time: &str| {
        let item = json!({"entity_id": {"S": id}, "event_ts": {"S": time}, "values": {"M": {"n": {"B": "IAE="}}}});
        json!({"TableName": store.config.table_name(&table), "Item": item})
    };
    // As text these are less than noon in UTC, or greater.
    ask(&store, "PutItem", by_others("2026-11-20 07:00:01-05:00")).await;
    write(&store, &table, &[1001], NOON, int(2)).await.unwrap();
    assert_eq!(number(&store, &table).await, (NOON + 1_000_000, 1));
    ask(&store, "PutItem", by_others("2026-11-20 20:59:59+09:00")).await;
    write(&store, &table, &[1001], NOON, int(3)).await.unwrap();
    assert_eq!(number(&store, &table).await, (NOON, 3));
    ask(&store, "PutItem", by_others("2026-11-20 21:00:00+09:00")).await;
    write(&store, &table, &[1001], NOON, int(4)).await.unwrap();
    assert_eq!(number(&store, &table).await, (NOON, 4), "a correction lands");
}

#[tokio::test]
async fn keys_that_an_answer_leaves_out_are_asked_for_again() {
    let store = connect(&options(&MotoServer::shared().endpoint()));
    let table = table("v", &[("n", ValueType::Bytes)]);
    ensure(&store, &table).await;
    // 70 items of 350 KB are more than the 16 MB of one answer.
    let ids: Vec<i64> = (0..70).collect();
    let blobs: Vec<Vec<u8>> = ids.iter().map(|id| vec![*id as u8; 350_000]).collect();
    let blobs: ArrayRef = Arc::new(BinaryArray::from_iter_values(blobs));
    write(&store, &table, &ids, NOON, blobs).await.unwrap();
    let answer = read(&store, &table, &ids).await.unwrap();
    let found = answer.values.column(0).as_binary::<i32>();
    assert!(
        ids.iter().all(|id| found.value(*id as usize).len() == 350_000 && found.value(*id as usize)[0] == *id as u8)
    );
}

#[tokio::test]
async fn tables_have_the_labels_of_configuration_and_view() {
    let mut options = options(&MotoServer::shared().endpoint());
    options["tags"] = json!({"team": "risk", "stage": "test"});
    let store = connect(&options);
    let mut table = table("v", &[("n", ValueType::Int64)]);
    let labels = async |table: &OnlineTable| {
        let described = ask(&store, "DescribeTable", json!({"TableName": store.config.table_name(table)})).await;
        let arn = &described["Table"]["TableArn"];
        let listed = ask(&store, "ListTagsOfResource", json!({ "ResourceArn": arn })).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let pair = |label: &Value| (text(&label["Key"]), text(&label["Value"]));
        // moto lists a key twice when its value was changed.
        let labels: BTreeMap<String, String> = listed["Tags"].as_array().unwrap().iter().map(pair).collect();
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    table.tags = [("team", "fraud"), ("stage", ""), ("pii", "no")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    ensure(&store, &table).await;
    assert_eq!(labels(&table).await, "pii=no stage=test team=fraud");
    table.tags = [("owner".to_owned(), "me".to_owned())].into();
    ensure(&store, &table).await;
    assert_eq!(labels(&table).await, "owner=me stage=test team=risk");
}

#[tokio::test]
async fn dropping_a_view_leaves_the_tables_of_others() {
    let store = connect(&options(&MotoServer::shared().endpoint()));
    let columns = [("n", ValueType::Int64)];
    let (a, ab) = (table("a", &columns), table("a_b", &columns));
    for table in [&a, &ab] {
        ensure(&store, table).await;
        write(&store, table, &[1001], NOON, int(1)).await.unwrap();
    }
    let names = async || {
        let tables = store.stored_tables("p").await.unwrap().unwrap();
        tables.into_iter().map(|table| table.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["p_a", "p_a_b"]);
    store.update(&[TableChange::Drop(a.clone())]).await.unwrap();
    assert_eq!(names().await, ["p_a_b"]);
    assert_eq!(number(&store, &ab).await, (NOON, 1));
    // Dropped and made in one go.
    store.update(&[TableChange::Drop(ab.clone()), TableChange::Ensure(ab.clone())]).await.unwrap();
    assert!(read(&store, &ab, &[1001]).await.unwrap().event_timestamps.is_null(0));
    // Made and dropped.
    store.update(&[TableChange::Ensure(a.clone()), TableChange::Drop(a.clone())]).await.unwrap();
    assert_eq!(names().await, ["p_a_b"]);
}

/// A way to the server on which the first `count` connections get an answer like those of DynamoDB under load.
async fn throttled(count: usize, status: &'static str, kind: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = MotoServer::shared().port();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut from, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                if number >= count {
                    let mut to = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
                    return;
                }
                let mut asked = [0; 65_536];
                let _ = from.read(&mut asked).await.unwrap();
                let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{kind}","message":"slow down"}}"#);
                let answer =
                    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                from.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_throttled_request_is_sent_again_and_a_refused_one_is_not() {
    let table = table("v", &[("n", ValueType::Int64)]);
    let options = options(&MotoServer::shared().endpoint());
    ensure(&connect(&options), &table).await;
    let by = |endpoint: String| {
        let mut options = options.clone();
        options["endpoint_url"] = endpoint.into();
        connect(&options)
    };
    for (status, kind) in [("400 Bad Request", "ThrottlingException"), ("500 Internal", "InternalServerError")] {
        let store = by(throttled(2, status, kind).await);
        write(&store, &table, &[1001], NOON, int(5)).await.unwrap();
        let store = by(throttled(2, status, kind).await);
        assert_eq!(number(&store, &table).await, (NOON, 5));
        let store = by(throttled(3, status, kind).await);
        let error = read(&store, &table, &[1001]).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
        assert!(error.message().contains(kind), "{error}");
    }
    let store = by(throttled(1, "400 Bad Request", "AccessDeniedException").await);
    let error = read(&store, &table, &[1001]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PermissionDenied, "{error}");
    assert!(error.hint().unwrap().contains("dynamodb:BatchGetItem"), "{error:?}");
    assert_eq!(number(&store, &table).await, (NOON, 5), "it was asked once");
}

#[tokio::test]
async fn a_server_that_is_away_or_silent_is_said_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = options(&format!("http://{free}"));
    let error = connect(&options).check().await.unwrap_err();
    assert_eq!((error.code(), error.message()), (ErrorCode::Unavailable, "could not reach DynamoDB"));
    options["endpoint_url"] = format!("http://{}", silent.local_addr().unwrap()).into();
    options["read_timeout"] = json!(0.1);
    options["connect_timeout"] = json!(0.1);
    let store = connect(&options);
    let table = table("v", &[("n", ValueType::Int64)]);
    for error in [store.check().await.unwrap_err(), read(&store, &table, &[1]).await.unwrap_err()] {
        assert_eq!(error.code(), ErrorCode::Timeout, "{error}");
    }
}

#[test]
fn the_key_stays_secret() {
    let store = connect(&options("http://localhost:1"));
    assert!(!format!("{store:?}").contains("secret"));
    assert_eq!(store.to_string(), "dynamodb at `http://localhost:1`");
}
