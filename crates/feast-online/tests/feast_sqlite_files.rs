//! SQLite files of Feast: what it wrote is read here, and what is written here is what it would have written.
//!
//! The file comes from `tests/formats/online_sqlite/make.py`, which also reads files of this product with Feast.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use feast_core::{
    EntityKeyEncoder, EntityKeys, Field, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, TableChange,
    Tags, ValueType,
};
use feast_online::stores::sqlite::SqliteStore;
use rusqlite::Connection;
use serde_json::json;

const NOON: i64 = 1_795_176_000_000_000;
const HOUR: i64 = 3_600_000_000;

fn table(view: &str) -> OnlineTable {
    let types = ValueType::ALL.iter().filter(|known| !matches!(known, ValueType::Invalid | ValueType::Null));
    OnlineTable {
        project: "formats".to_owned(),
        view: view.to_owned(),
        join_keys: vec![Field::new("id", ValueType::Int64)],
        columns: types.map(|value_type| Field::new(value_type.name(), *value_type)).collect(),
        tags: Tags::new(),
    }
}

fn keys(ids: &[i64]) -> EntityKeys {
    let ids = Arc::new(Int64Array::from(ids.to_vec())) as _;
    let encoder = EntityKeyEncoder::new(&[Field::new("id", ValueType::Int64)], 3).unwrap();
    encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap()
}

async fn read(store: &dyn OnlineStore, table: &OnlineTable, ids: &[i64]) -> OnlineRows {
    let wanted = table.clone().wanted(0..table.columns.len());
    let read = OnlineRead { wanted: &wanted, keys: &keys(ids) };
    store.read(&[read]).await.unwrap().remove(0)
}

/// Feast's file in a folder of its own, where it may be written to.
fn feasts_file(folder: &Path) -> SqliteStore {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/formats/online_sqlite/online.db");
    std::fs::copy(fixture, folder.join("online.db")).unwrap();
    SqliteStore::connect(&json!({"path": "online.db"}), folder).unwrap()
}

/// Every cell with the type under which SQLite keeps it.
fn dump(file: &Path, table: &str) -> Vec<String> {
    let connection = Connection::open(file).unwrap();
    let columns = ["entity_key", "feature_name", "value", "value_text", "vector_value", "event_ts", "created_ts"];
    let cells = columns.map(|column| format!("typeof({column}), quote({column})")).join(", ");
    let sql = format!("SELECT {cells} FROM {table} ORDER BY entity_key, feature_name");
    let mut statement = connection.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| {
        let cells = (0..columns.len() * 2).map(|cell| row.get::<_, String>(cell));
        Ok(cells.collect::<Result<Vec<_>, _>>()?.join(" "))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn files_written_by_feast_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = feasts_file(folder.path());
    for view in ["types", "old"] {
        let rows = read(&store, &table(view), &[3, 1, 2]).await;
        let times: Vec<Option<i64>> = rows.event_timestamps.iter().collect();
        assert_eq!(times, [None, Some(NOON), Some(NOON - HOUR)]);
        for (column, values) in table(view).columns.iter().zip(rows.values.columns()) {
            let valid: Vec<bool> = (0..3).map(|row| values.is_valid(row)).collect();
            assert_eq!(valid, [false, true, false], "{} of {view}", column.name);
        }
    }
}

#[tokio::test]
async fn files_are_written_as_feast_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let table = table("types");
    let rows = read(&feasts_file(folder.path()), &table, &[1, 2]).await;

    let store = SqliteStore::connect(&json!({"path": "ours/online.db"}), folder.path()).unwrap();
    store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
    let created = TimestampMicrosecondArray::from(vec![Some(NOON + 60_000_000), None]);
    let write = OnlineWrite {
        table: &table,
        keys: &keys(&[1, 2]),
        rows: &rows.values,
        event_timestamps: &rows.event_timestamps,
        created_timestamps: Some(&created),
    };
    store.write(write).await.unwrap();
    let ours = dump(&folder.path().join("ours/online.db"), "formats_types");
    assert_eq!(ours, dump(&folder.path().join("online.db"), "formats_types"));
}

#[tokio::test]
async fn tables_of_feast_are_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let store = feasts_file(folder.path());
    let table = OnlineTable { columns: vec![Field::new("INT64", ValueType::Int64)], ..table("old") };
    let write = async |event: i64, value: i64| {
        let values = Arc::new(Int64Array::from(vec![value])) as _;
        let write = OnlineWrite {
            table: &table,
            keys: &keys(&[1]),
            rows: &RecordBatch::try_from_iter([("INT64", values)]).unwrap(),
            event_timestamps: &TimestampMicrosecondArray::from(vec![event]),
            created_timestamps: None,
        };
        store.write(write).await.unwrap();
        let rows = read(&store, &table, &[1]).await;
        (rows.event_timestamps.value(0), rows.values.column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0))
    };
    // Before `feast apply` there is no room for parts of seconds, afterwards there is.
    assert_eq!(write(NOON - 1, 1).await, (NOON, 1001), "older than what Feast wrote");
    assert_eq!(write(NOON + 1_500_000, 2).await, (NOON + 1_000_000, 2));
    store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
    assert_eq!(write(NOON + 1_700_000, 3).await, (NOON + 1_700_000, 3));
    assert_eq!(write(NOON + 1_600_000, 4).await, (NOON + 1_700_000, 3));
}
