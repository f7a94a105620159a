#![allow(clippy::unwrap_used, reason = "tests")]
//! Against real servers.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray, Float32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use feast_core::{
    EntityKeyEncoder, EntityKeys, ErrorCode, Field, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite,
    TableChange, ValueType,
};
use feast_testing::services::redis::{RedisCluster, RedisSentinel, RedisServer};
use feast_testing::{Limit, StartedStore};
use serde_json::{Value, json};

use super::*;
use crate::write::record_batch;

mod connections;
mod reading;

const LIMITS: &[Limit] = &[Limit::NoTables, Limit::NoCreatedTimes, Limit::LostColumnsComeBack];
const T0: i64 = 1_795_176_000_000_000;
const SECOND: i64 = 1_000_000;

fn store(connection_string: &str, more: Value) -> RedisStore {
    let mut options = json!({"type": "redis", "connection_string": connection_string});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    RedisStore::connect(&options).unwrap()
}

async fn standalone() -> StartedStore {
    let server = RedisServer::start();
    StartedStore::with_guard(Arc::new(store(&server.address(), json!({}))), server).limited(LIMITS)
}

async fn cluster() -> StartedStore {
    let addresses = RedisCluster::shared().addresses();
    StartedStore::new(Arc::new(store(&addresses, json!({"redis_type": "redis_cluster"})))).limited(LIMITS)
}

fn of_sentinel(servers: &RedisSentinel) -> RedisStore {
    let options = json!({"redis_type": "redis_sentinel", "sentinel_master": RedisSentinel::MASTER});
    store(&servers.sentinel.address(), options)
}

async fn sentinel() -> StartedStore {
    StartedStore::new(Arc::new(of_sentinel(RedisSentinel::shared()))).limited(LIMITS)
}

mod on_a_server {
    feast_testing::online_store_conformance!(super::super::standalone);
}

mod in_a_cluster {
    feast_testing::online_store_conformance!(super::super::cluster);
}

mod behind_a_sentinel {
    feast_testing::online_store_conformance!(super::super::sentinel);
}

/// Feast's example: a view with a rate, a number of trips and a city.
fn drivers(project: &str, view: &str) -> OnlineTable {
    OnlineTable {
        project: project.to_owned(),
        view: view.to_owned(),
        join_keys: vec![Field::new("driver_id", ValueType::Int64)],
        columns: vec![
            Field::new("conv_rate", ValueType::Float),
            Field::new("trips", ValueType::Int64),
            Field::new("city", ValueType::String),
        ],
        tags: feast_core::Tags::new(),
    }
}

fn keys(ids: &[i64]) -> EntityKeys {
    let ids = Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
    let encoder = EntityKeyEncoder::new(&[Field::new("driver_id", ValueType::Int64)], 3).unwrap();
    encoder.encode(RecordBatch::try_from_iter([("driver_id", ids)]).unwrap()).unwrap()
}

/// Writes rows of id, event time and trips; rate and city go with trips.
async fn try_write(store: &dyn OnlineStore, table: &OnlineTable, rows: &[(i64, i64, i64)]) -> Result<()> {
    let column = |make: &dyn Fn(i64) -> i64| rows.iter().map(|row| make(row.2)).collect::<Vec<_>>();
    let trips = column(&|trips| trips);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(trips.iter().map(|trips| Some(*trips as f32 / 100.0)).collect::<Float32Array>()),
        Arc::new(Int64Array::from(trips.clone())),
        Arc::new(trips.iter().map(|trips| (trips % 40 != 0).then(|| city(*trips))).collect::<StringArray>()),
    ];
    let event_timestamps = TimestampMicrosecondArray::from(rows.iter().map(|row| row.1).collect::<Vec<_>>());
    store
        .write(OnlineWrite {
            table,
            keys: &keys(&rows.iter().map(|row| row.0).collect::<Vec<_>>()),
            rows: &record_batch(&table.columns, columns, rows.len()).unwrap(),
            event_timestamps: &event_timestamps,
            created_timestamps: None,
        })
        .await
}

fn city(trips: i64) -> &'static str {
    ["a", "b", "c", "d", "e"][(trips / 10 - 1).rem_euclid(5) as usize]
}

async fn write(store: &dyn OnlineStore, table: &OnlineTable, rows: &[(i64, i64, i64)]) {
    try_write(store, table, rows).await.unwrap();
}

async fn try_trips(store: &dyn OnlineStore, table: &OnlineTable, ids: &[i64]) -> Result<Vec<Option<i64>>> {
    let read = OnlineRead { wanted: &table.clone().wanted([1]), keys: &keys(ids) };
    let answer = store.read(&[read]).await?.remove(0);
    Ok(answer.values.column(0).as_primitive::<Int64Type>().iter().collect())
}

async fn trips(store: &dyn OnlineStore, table: &OnlineTable, ids: &[i64]) -> Vec<Option<i64>> {
    try_trips(store, table, ids).await.unwrap()
}

/// The key of a driver, in hexadecimal digits.
fn key_of(id: i64, project: &str) -> String {
    let bytes = [keys(&[id]).encoded.value(0), project.as_bytes()].concat();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn rows_have_feasts_bytes() {
    let server = RedisServer::start();
    for skip_dedup in [false, true] {
        server.command(&["FLUSHALL"]);
        let store = store(&server.address(), json!({"skip_dedup": skip_dedup}));
        write(&store, &drivers("proj", "driver_stats"), &[(1001, T0, 30), (1002, T0 - 3600 * SECOND, 40)]).await;
        let key = "0100000002000000090000006472697665725f69640400000008000000e90300000000000070726f6a";
        assert_eq!(key, key_of(1001, "proj"));
        let other = key_of(1002, "proj");
        let time = hex("_ts:driver_stats");
        let mut expected = vec![
            format!("{key} {time} 08c0ec80d806"),
            format!("{key} fa731014 359a99993e"),
            format!("{key} 426aa434 201e"),
            format!("{key} d89d016b 120163"),
            format!("{other} {time} 08b0d080d806"),
            format!("{other} fa731014 35cdcccc3e"),
            format!("{other} 426aa434 2028"),
            format!("{other} d89d016b "),
        ];
        expected.sort();
        assert_eq!(server.dump(), expected, "skip_dedup: {skip_dedup}");
    }
}

#[tokio::test]
async fn a_view_without_entities_has_feasts_key() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let table = OnlineTable {
        view: "glob".to_owned(),
        join_keys: vec![Field::new("__dummy_id", ValueType::String)],
        columns: vec![Field::new("g", ValueType::Int64)],
        ..drivers("proj", "glob")
    };
    let dummy = Arc::new(StringArray::from(vec![""])) as ArrayRef;
    let encoder = EntityKeyEncoder::new(&table.join_keys, 3).unwrap();
    let keys = encoder.encode(RecordBatch::try_from_iter([("__dummy_id", dummy)]).unwrap()).unwrap();
    let rows = record_batch(&table.columns, vec![Arc::new(Int64Array::from(vec![7]))], 1).unwrap();
    let times = TimestampMicrosecondArray::from(vec![T0]);
    let write =
        OnlineWrite { table: &table, keys: &keys, rows: &rows, event_timestamps: &times, created_timestamps: None };
    store.write(write).await.unwrap();
    let key = "01000000020000000a0000005f5f64756d6d795f6964020000000000000070726f6a";
    let time = hex("_ts:glob");
    assert_eq!(server.dump(), [format!("{key} 09b1e9ae 2007"), format!("{key} {time} 08c0ec80d806")]);
    store.update(&[TableChange::Drop(table)]).await.unwrap();
    assert!(server.dump().is_empty());
}

#[tokio::test]
async fn the_newest_wins_unless_told_otherwise() {
    let server = RedisServer::start();
    let table = drivers("proj", "driver_stats");
    let careful = store(&server.address(), json!({}));
    let hasty = store(&server.address(), json!({"skip_dedup": true}));
    write(&careful, &table, &[(1, T0, 10)]).await;
    write(&careful, &table, &[(1, T0 - 1, 20)]).await;
    assert_eq!(trips(&careful, &table, &[1]).await, [Some(10)]);
    write(&hasty, &table, &[(1, T0 - 1, 20), (1, T0 - 2, 30)]).await;
    assert_eq!(trips(&careful, &table, &[1]).await, [Some(20)]);
}

/// The script compares times that no number of Lua holds.
#[tokio::test]
async fn times_far_away_and_before_the_epoch_are_ordered() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let table = drivers("proj", "driver_stats");
    // Years 1 and 9999, both sides of the epoch, and of numbers with one byte more.
    let ends = [-62_135_596_800 * SECOND, 253_402_300_799 * SECOND];
    let edges = [0, 127, 128, 16_383, 16_384, 1 << 28, 1 << 32].map(|seconds| seconds * SECOND);
    let mut times: Vec<i64> = ends
        .into_iter()
        .chain(edges.into_iter().flat_map(|time| [-time - 1, -time, time, time + 1, time + 999_999]))
        .collect();
    times.sort_unstable();
    times.dedup();
    for (id, pair) in times.windows(2).enumerate() {
        let id = id as i64;
        write(&store, &table, &[(id, pair[1], 20)]).await;
        write(&store, &table, &[(id, pair[0], 10)]).await;
        assert_eq!(trips(&store, &table, &[id]).await, [Some(20)], "{pair:?}");
        write(&store, &table, &[(id, pair[1], 30)]).await;
        assert_eq!(trips(&store, &table, &[id]).await, [Some(30)], "{pair:?}");
    }
}

#[tokio::test]
async fn hashes_expire_with_their_last_write() {
    let server = RedisServer::start();
    for skip_dedup in [false, true] {
        let options = json!({"key_ttl_seconds": 1000, "skip_dedup": skip_dedup});
        let store = store(&server.address(), options);
        let table = drivers("proj", "driver_stats");
        write(&store, &table, &[(1, T0, 10)]).await;
        let ttl = "return redis.call('TTL', redis.call('KEYS', '*')[1])";
        let left: i64 = server.command(&["EVAL", ttl, "0"]).parse().unwrap();
        assert!((990..=1000).contains(&left), "{left}");
        server.command(&["FLUSHALL"]);
    }
}

/// Rows of a first load, which are many and new, lie as the script would have put them; those that are there are left to it.
#[tokio::test]
async fn many_new_rows_are_put_there_whole() {
    let server = RedisServer::start();
    let table = drivers("proj", "driver_stats");
    let rows = |ids: std::ops::Range<i64>, time: i64, trips: i64| -> Vec<(i64, i64, i64)> {
        ids.map(|id| (id, time + id, trips + id % 7)).collect()
    };
    let n_rows = 3000;
    for options in [json!({}), json!({"key_ttl_seconds": 1000})] {
        server.command(&["FLUSHALL"]);
        let few = store(&server.address(), options.clone());
        for part in rows(0..n_rows, T0, 10).chunks(MANY_ROWS - 1) {
            write(&few, &table, part).await;
        }
        let expected = server.dump();
        server.command(&["FLUSHALL"]);
        server.command(&["CONFIG", "RESETSTAT"]);
        let many = store(&server.address(), options);
        write(&many, &table, &rows(0..n_rows, T0, 10)).await;
        assert_eq!((calls(&server, "restore"), calls(&server, "evalsha")), (n_rows, 0));
        assert_eq!(server.dump(), expected);
        let form = "return redis.call('OBJECT', 'ENCODING', redis.call('RANDOMKEY'))";
        assert_eq!(server.command(&["EVAL", form, "0"]), "listpack");
    }
    let ttl: i64 = server.command(&["EVAL", "return redis.call('TTL', redis.call('RANDOMKEY'))", "0"]).parse().unwrap();
    assert!((900..=1000).contains(&ttl), "{ttl}");

    // Half of the rows are older than what is there, and behind those that are known there are new ones.
    let store = store(&server.address(), json!({}));
    let mut again = rows(0..n_rows, T0 - n_rows / 2, 70);
    again.iter_mut().for_each(|row| row.1 += if row.0 % 2 == 0 { n_rows } else { 0 });
    again.extend(rows(n_rows..2 * n_rows, T0, 90));
    write(&store, &table, &again).await;
    let ids: Vec<i64> = (0..2 * n_rows).collect();
    let expected = ids.iter().map(|id| {
        Some(
            id % 7
                + if *id >= n_rows {
                    90
                } else if id % 2 == 0 {
                    70
                } else {
                    10
                },
        )
    });
    assert_eq!(trips(&store, &table, &ids).await, expected.collect::<Vec<_>>());

    // Among new ones there are some that are known, by newer and by older times.
    let mut mixed = rows(6 * n_rows..6 * n_rows + 2000, T0, 20);
    mixed.extend(rows(0..100, T0 + 10 * n_rows, 60));
    mixed.extend(rows(n_rows..n_rows + 100, T0 - n_rows, 40));
    server.command(&["CONFIG", "RESETSTAT"]);
    write(&store, &table, &mixed).await;
    assert_eq!(calls(&server, "restore"), 2200);
    let found = trips(&store, &table, &[6 * n_rows, 0, 99, n_rows]).await;
    assert_eq!(found, [Some(20 + 6 * n_rows % 7), Some(60), Some(60 + 99 % 7), Some(90 + n_rows % 7)]);

    // Another view of the same keys comes to lie beside the first.
    let other = drivers("proj", "other");
    write(&store, &other, &rows(n_rows / 2..3 * n_rows, T0, 50)).await;
    write(&store, &table, &rows(2 * n_rows..5 * n_rows, T0, 30)).await;
    assert_eq!(
        trips(&store, &table, &[0, 101, n_rows, 2 * n_rows, 5 * n_rows - 1]).await,
        [
            Some(60),
            Some(10 + 101 % 7),
            Some(90 + n_rows % 7),
            Some(30 + 2 * n_rows % 7),
            Some(30 + (5 * n_rows - 1) % 7),
        ]
    );
    assert_eq!(
        trips(&store, &other, &[0, n_rows, 3 * n_rows - 1, 3 * n_rows]).await,
        [None, Some(50 + n_rows % 7), Some(50 + (3 * n_rows - 1) % 7), None,]
    );
}

#[tokio::test]
async fn an_account_that_may_not_put_hashes_there_whole_writes_all_the_same() {
    let server = RedisServer::start();
    server.command(&["ACL", "SETUSER", "writer", "on", ">secret", "~*", "+@all", "-restore"]);
    let store = store(&format!("{},username=writer,password=secret", server.address()), json!({}));
    let table = drivers("proj", "driver_stats");
    for time in [T0, T0 + 1] {
        write(&store, &table, &(0..2000).map(|id| (id, time, 10)).collect::<Vec<_>>()).await;
    }
    assert_eq!(trips(&store, &table, &[0, 1999]).await, [Some(10), Some(10)]);
    assert!(store.refuses_whole.load(Ordering::Relaxed));
}

#[tokio::test]
async fn long_values_of_many_new_rows_are_left_to_the_script() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let table = OnlineTable { columns: vec![Field::new("text", ValueType::String)], ..drivers("proj", "texts") };
    let ids: Vec<i64> = (0..2000).collect();
    let texts = StringArray::from_iter_values(ids.iter().map(|id| "x".repeat(*id as usize % 130)));
    let rows = record_batch(&table.columns, vec![Arc::new(texts)], ids.len()).unwrap();
    let (keys, times) = (keys(&ids), TimestampMicrosecondArray::from(vec![T0; ids.len()]));
    let write =
        OnlineWrite { table: &table, keys: &keys, rows: &rows, event_timestamps: &times, created_timestamps: None };
    store.write(write).await.unwrap();
    let wanted = table.wanted(0..1);
    let answer = store.read(&[OnlineRead { wanted: &wanted, keys: &keys }]).await.unwrap().remove(0);
    assert_eq!(answer.values, rows);
    assert!(calls(&server, "restore") > 900);
}

#[tokio::test]
async fn wide_rows_are_written_and_read_whole() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let names: Vec<String> = (0..3000).map(|number| format!("f{number}")).collect();
    let columns: Vec<Field> = names.iter().map(|name| Field::new(name, ValueType::Int64)).collect();
    let table = OnlineTable { columns, ..drivers("proj", "wide") };
    let arrays = (0..3000).map(|number| Arc::new(Int64Array::from(vec![number, -number])) as ArrayRef).collect();
    let times = TimestampMicrosecondArray::from(vec![T0; 2]);
    let keys = keys(&[1, 2]);
    let rows = record_batch(&table.columns, arrays, 2).unwrap();
    let write =
        OnlineWrite { table: &table, keys: &keys, rows: &rows, event_timestamps: &times, created_timestamps: None };
    store.write(write).await.unwrap();
    let all = table.clone().wanted(0..3000);
    let answer = store.read(&[OnlineRead { wanted: &all, keys: &keys }]).await.unwrap().remove(0);
    assert_eq!(answer.values, rows);
    store.update(&[TableChange::Drop(table)]).await.unwrap();
    assert!(server.dump().is_empty());
}

/// How often a command was called.
fn calls(server: &RedisServer, command: &str) -> i64 {
    let stats = server.command(&["INFO", "commandstats"]);
    let prefix = format!("cmdstat_{command}:calls=");
    let count = stats.lines().find_map(|line| line.strip_prefix(&prefix)?.split(',').next()?.parse().ok());
    count.unwrap_or(0)
}

#[tokio::test]
async fn an_entity_is_absent_when_nothing_of_the_view_is_there() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let (table, other) = (drivers("proj", "driver_stats"), drivers("proj", "other"));
    write(&store, &other, &[(1, T0, 10)]).await;
    let times = async |id: i64| {
        let read = OnlineRead { wanted: &table.clone().wanted([0, 1, 2]), keys: &keys(&[id]) };
        store.read(&[read]).await.unwrap().remove(0).event_timestamps.iter().next().unwrap()
    };
    assert_eq!(times(1).await, None, "the hash is there, the view is not");
    write(&store, &table, &[(2, 0, 10)]).await;
    assert_eq!(times(2).await, Some(0), "the epoch is a time");
    server.command(&["EVAL", "return redis.call('HDEL', redis.call('KEYS', '*')[1], '_ts:driver_stats') + redis.call('HDEL', redis.call('KEYS', '*')[2], '_ts:driver_stats')", "0"]);
    assert_eq!(times(2).await, Some(0), "values whose time nobody knows");
}

#[tokio::test]
async fn dropping_a_view_touches_no_other_view_and_no_other_project() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let kept = [
        drivers("proj", "stats2"),
        drivers("proj", "sta"),
        drivers("myproj", "stats"),
        drivers("proj2", "stats"),
        drivers("pro*", "stats"),
        OnlineTable { join_keys: vec![Field::new("driver", ValueType::Int64)], ..drivers("proj", "stats") },
    ];
    let dropped = drivers("proj", "stats");
    for table in kept.iter().take(5) {
        write(&store, table, &[(1, T0, 10), (2, T0, 20)]).await;
    }
    // A foreign key of another type that matches the pattern.
    server.command(&["SET", "driver_id proj", "text"]);
    let before = server.command(&["DBSIZE"]);
    let others = server.dump();
    write(&store, &dropped, &[(1, T0, 30), (2, T0, 40), (3, T0, 50)]).await;
    store.update(&[TableChange::Drop(dropped.clone())]).await.unwrap();
    assert_eq!(server.dump(), others);
    assert_eq!(server.command(&["DBSIZE"]), before, "the hash of driver 3 is gone");
    // A project whose name is a pattern.
    store.update(&[TableChange::Drop(kept[4].clone()), TableChange::Drop(kept[5].clone())]).await.unwrap();
    for table in kept.iter().take(4) {
        assert_eq!(trips(&store, table, &[1, 2]).await, [Some(10), Some(20)], "{} {}", table.project, table.view);
    }
    assert_eq!(trips(&store, &kept[4], &[1, 2]).await, [None, None]);
    // The last views of a project leave nothing of it.
    store.update(&kept.iter().cloned().map(TableChange::Drop).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(server.command(&["KEYS", "*"]), "driver_id proj");
}

#[tokio::test]
async fn dropping_leaves_the_rows_where_scans_are_forbidden() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({"full_scan_for_deletion": false}));
    let table = drivers("proj", "stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    store.update(&[TableChange::Drop(table.clone())]).await.unwrap();
    assert_eq!(trips(&store, &table, &[1]).await, [Some(10)]);
}

#[tokio::test]
async fn dropping_a_view_scans_all_keys() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let (table, other) = (drivers("proj", "stats"), drivers("proj", "other"));
    let rows: Vec<(i64, i64, i64)> = (0..5000).map(|id| (id, T0, 10)).collect();
    write(&store, &table, &rows).await;
    write(&store, &other, &rows[..10]).await;
    store.update(&[TableChange::Drop(table)]).await.unwrap();
    assert_eq!(server.command(&["DBSIZE"]), "10");
}

#[tokio::test]
async fn a_database_of_its_own_is_used() {
    let server = RedisServer::start();
    let store = store(&format!("{},db=5,client_name=feast", server.address()), json!({}));
    write(&store, &drivers("proj", "stats"), &[(1, T0, 10)]).await;
    assert_eq!((server.command(&["DBSIZE"]), server.command(&["-n", "5", "DBSIZE"])), ("0".to_owned(), "1".to_owned()));
    assert!(server.command(&["CLIENT", "LIST"]).contains("name=feast"));
}

/// A server that only takes encrypted connections; the file of its authority, of its certificate and of its key.
#[tokio::test]
async fn scripts_have_the_names_by_which_they_are_called() {
    let server = RedisServer::start();
    for script in SCRIPTS {
        assert_eq!(server.command(&["SCRIPT", "LOAD", script.source]), script.sha1);
    }
}
