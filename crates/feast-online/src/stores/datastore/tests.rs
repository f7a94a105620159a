//! The store against a twin of Datastore in this process, and the twin against what Google's emulator said. `make
//! datastore` runs the same promises against the emulator itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feast_core::{EntityKeyEncoder, EntityKeys, Field, Tags, ValueType};
use feast_testing::StartedStore;
use serde_json::json;

use super::twin::{Faults, Twin};
use super::*;

const FEAST: &str = include_str!("../../../../../tests/formats/datastore/feast.jsonl");
const OURS: &str = include_str!("../../../../../tests/formats/datastore/ours.jsonl");

async fn start() -> StartedStore {
    StartedStore::new(Arc::new(store(&Twin::default(), "n")))
}

feast_testing::online_store_conformance!(super::start);

fn store(twin: &Twin, namespace: &str) -> DatastoreStore {
    let options = json!({"project_id": "recorded", "namespace": namespace, "emulator_host": twin.start()});
    DatastoreStore::connect(&options).unwrap()
}

/// A call that was recorded.
struct Recorded {
    method: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn recorded(lines: &str) -> Vec<Recorded> {
    let calls = lines.lines().map(|line| {
        let call: serde_json::Value = serde_json::from_str(line).unwrap();
        let bytes = |name: &str| STANDARD.decode(call[name].as_str().unwrap()).unwrap();
        Recorded {
            method: call["method"].as_str().unwrap().to_owned(),
            request: bytes("request"),
            answer: bytes("answer"),
        }
    });
    calls.collect()
}

/// Makes recorded calls on the twin, and compares what both answered.
fn replay(twin: &Twin, calls: &[Recorded]) {
    let mut transactions: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for Recorded { method, request, answer } in calls {
        let ask = |request: &[u8]| twin.answer(method, request).unwrap_or_else(|status| panic!("{method}: {status}"));
        match method.as_str() {
            "BeginTransaction" => {
                let theirs = m::BeginTransactionResponse::decode(answer.as_slice()).unwrap();
                let ours = m::BeginTransactionResponse::decode(ask(request).as_slice()).unwrap();
                transactions.insert(theirs.transaction, ours.transaction);
            }
            "Lookup" => {
                let mut request = m::LookupRequest::decode(request.as_slice()).unwrap();
                if let Some(id) = request.read_options.as_mut().and_then(|options| options.transaction.as_mut()) {
                    *id = transactions[id.as_slice()].clone();
                }
                let [theirs, ours] = [answer.clone(), ask(&request.encode_to_vec())].map(|answer| {
                    let answer = m::LookupResponse::decode(answer.as_slice()).unwrap();
                    (by_key(answer.found), answer.deferred)
                });
                assert_eq!(ours, theirs);
            }
            "Commit" => {
                let mut request = m::CommitRequest::decode(request.as_slice()).unwrap();
                if let Some(id) = request.transaction.as_mut() {
                    *id = transactions[id.as_slice()].clone();
                }
                ask(&request.encode_to_vec());
            }
            "Rollback" => {
                let mut request = m::RollbackRequest::decode(request.as_slice()).unwrap();
                request.transaction = transactions[request.transaction.as_slice()].clone();
                ask(&request.encode_to_vec());
            }
            "RunQuery" => {
                let [theirs, ours] = [answer.clone(), ask(request)].map(|answer| {
                    let answer = m::RunQueryResponse::decode(answer.as_slice()).unwrap();
                    by_key(answer.batch.unwrap().entity_results)
                });
                assert_eq!(ours, theirs);
            }
            other => panic!("`{other}` was recorded"),
        }
    }
}

/// Entities in an order, whatever the order they came in.
fn by_key(results: Vec<m::EntityResult>) -> Vec<m::Entity> {
    let mut entities: Vec<m::Entity> = results.into_iter().filter_map(|result| result.entity).collect();
    entities.sort_by_key(|entity| entity.key.as_ref().map(prost::Message::encode_to_vec));
    entities
}

#[test]
fn the_twin_answers_as_googles_emulator() {
    for calls in [FEAST, OURS] {
        replay(&Twin::default(), &recorded(calls));
    }
}

/// A view of the recorded repository.
fn pushed() -> OnlineTable {
    OnlineTable {
        project: "interop".to_owned(),
        view: "pushed".to_owned(),
        join_keys: vec![Field::new("thing_id", ValueType::Int64)],
        columns: vec![Field::new("an_int64", ValueType::Int64), Field::new("a_string", ValueType::String)],
        tags: Tags::new(),
    }
}

fn things(ids: &[i64]) -> EntityKeys {
    let ids = Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
    let encoder = EntityKeyEncoder::new(&pushed().join_keys, 3).unwrap();
    encoder.encode(RecordBatch::try_from_iter([("thing_id", ids)]).unwrap()).unwrap()
}

async fn read(store: &DatastoreStore, keys: &EntityKeys) -> OnlineRows {
    let wanted = pushed().wanted(vec![0, 1]);
    store.read(&[OnlineRead { wanted: &wanted, keys }]).await.unwrap().remove(0)
}

#[tokio::test]
async fn what_feast_wrote_is_read_and_written_the_same() {
    let twin = Twin::default();
    let calls = recorded(FEAST);
    let is_write = |call: &&Recorded| ["BeginTransaction", "Commit"].contains(&call.method.as_str());
    replay(&twin, &calls.into_iter().filter(|call| is_write(&call)).collect::<Vec<_>>());
    let keys = things(&[1, 2, 3, 7, 9]);
    let rows = read(&store(&twin, "feast"), &keys).await;
    let numbers = rows.values.column(0).as_primitive::<Int64Type>();
    assert_eq!(numbers.iter().collect::<Vec<_>>(), [Some(0), Some(i64::MIN / 2), None, Some(5), None]);
    let texts = rows.values.column(1).as_string::<i32>();
    assert_eq!(texts.iter().collect::<Vec<_>>(), [Some("abc"), Some("é"), None, Some("feast"), None]);
    // The older of the two pushes came last, and Feast does not compare.
    let at = |seconds: i64| Some(seconds * 1_000_000);
    let times = [at(1_795_176_000), at(1_795_176_060), at(1_795_176_120), at(1_795_222_800), None];
    assert_eq!(rows.event_timestamps.iter().collect::<Vec<_>>(), times);

    let ours = store(&twin, "ours");
    ours.update(&[TableChange::Ensure(pushed())]).await.unwrap();
    let created = [at(1_795_176_000), at(1_795_176_000), at(1_795_176_000), at(1_795_222_800)];
    let created = TimestampMicrosecondArray::from(created.to_vec()).with_timezone("UTC");
    let write = OnlineWrite {
        table: &pushed(),
        keys: &things(&[1, 2, 3, 7]),
        rows: &rows.values.slice(0, 4),
        event_timestamps: &rows.event_timestamps.slice(0, 4),
        created_timestamps: Some(&created),
    };
    ours.write(write).await.unwrap();
    let rows_in = |namespace: &str| -> Vec<m::Entity> {
        let without_namespace = |mut entity: m::Entity| {
            entity.key.as_mut().unwrap().partition_id = None;
            entity
        };
        let is_row = |entity: &m::Entity| {
            let path = &entity.key.as_ref().unwrap().path;
            path.len() == 3 && path[1].name == "pushed"
        };
        let entities = twin.entities(namespace).into_iter().map(without_namespace).filter(is_row);
        by_key(entities.map(|entity| m::EntityResult { entity: Some(entity) }).collect())
    };
    assert_eq!(rows_in("ours").len(), 4);
    assert_eq!(rows_in("ours"), rows_in("feast"));
}

#[tokio::test]
async fn keys_that_are_put_off_are_asked_for_again() {
    let twin = Twin::default();
    let store = store(&twin, "n");
    store.update(&[TableChange::Ensure(pushed())]).await.unwrap();
    let ids: Vec<i64> = (0..20).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.clone())),
        Arc::new(StringArray::from_iter_values(ids.iter().map(ToString::to_string))),
    ];
    let fields: Vec<_> = pushed().columns.iter().map(|field| field.value_type.arrow_field(&field.name)).collect();
    let rows = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns).unwrap();
    let times = TimestampMicrosecondArray::from(vec![1_000_000; 20]).with_timezone("UTC");
    let write = OnlineWrite {
        table: &pushed(),
        keys: &things(&ids),
        rows: &rows,
        event_timestamps: &times,
        created_timestamps: None,
    };
    store.write(write).await.unwrap();
    twin.take_calls();
    twin.fail(Faults { most_answered: 6, ..Faults::default() });
    let found = read(&store, &things(&ids)).await;
    assert_eq!(found.values.columns(), rows.columns());
    assert_eq!(twin.take_calls(), ["Lookup"; 4], "21 keys, those of the rows and that of the table");
}

#[tokio::test]
async fn calls_that_are_refused_for_the_moment_are_made_again() {
    let twin = Twin::default();
    let store = store(&twin, "n");
    twin.fail(Faults { unavailable: 2, ..Faults::default() });
    store.check().await.unwrap();
    assert_eq!(twin.take_calls(), ["Lookup"; 3]);
}

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
