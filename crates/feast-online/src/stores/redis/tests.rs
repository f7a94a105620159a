#![allow(clippy::unwrap_used, reason = "tests")]
//! Against real servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array as _, ArrayRef, AsArray, Float32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use feast_core::{
    EntityKeyEncoder, EntityKeys, ErrorCode, Field, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite,
    TableChange, ValueType,
};
use feast_testing::services::redis::{Certificates, RedisCluster, RedisSentinel, RedisServer, free_port, wait_for};
use feast_testing::{Limit, StartedStore};
use futures::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::write::record_batch;

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
async fn one_request_asks_once_per_entity() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let tables = [drivers("proj", "one"), drivers("proj", "two"), drivers("proj", "three")];
    for table in &tables {
        write(&store, table, &[(1, T0, 10), (2, T0, 20)]).await;
    }
    let keys = keys(&[1, 2, 3]);
    let wanted = tables.map(|table| table.wanted([1]));
    let reads = wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys });
    let answers = store.read(&reads).await.unwrap();
    let values = answers.iter().map(|answer: &OnlineRows| answer.values.column(0).as_primitive::<Int64Type>().value(1));
    assert_eq!((values.collect::<Vec<i64>>(), calls(&server, "hmget")), (vec![20, 20, 20], 3));
}

#[tokio::test]
async fn commands_of_many_callers_go_out_together() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let table = drivers("proj", "driver_stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    let packets = || -> u64 {
        let told = server.command(&["INFO", "stats"]);
        let line = told.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap();
        line.trim().parse().unwrap()
    };
    // All connections are open afterwards.
    join_all((0..4).map(|_| trips(&store, &table, &[1]))).await;
    let before = packets();
    join_all((0..64).map(|_| trips(&store, &table, &[1]))).await;
    let sent = packets() - before;
    assert!(sent < 10, "{sent} packets for 64 commands");
}

#[tokio::test]
async fn whole_hashes_are_read_where_that_is_less_work() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let columns: Vec<Field> = (0..20).map(|number| Field::new(format!("f{number}"), ValueType::Int64)).collect();
    let (table, other) = (OnlineTable { columns, ..drivers("proj", "wide") }, drivers("proj", "other"));
    // Hashes of different fields in different orders.
    write(&store, &other, &[(3, T0, 10)]).await;
    let ids = keys(&[1, 2, 3]);
    let number = |row: i64, column: i64| 100 * row + column;
    let arrays =
        (0..20).map(|column| Arc::new(Int64Array::from_iter_values((1..4).map(|row| number(row, column)))) as ArrayRef);
    let rows = record_batch(&table.columns, arrays.collect(), 3).unwrap();
    let times = TimestampMicrosecondArray::from(vec![T0; 3]);
    let wide =
        OnlineWrite { table: &table, keys: &ids, rows: &rows, event_timestamps: &times, created_timestamps: None };
    store.write(wide).await.unwrap();
    write(&store, &other, &[(1, T0, 20)]).await;

    let asked = keys(&[3, 9, 1, 2]);
    let (backwards, some): (Vec<usize>, Vec<usize>) = ((0..20).rev().collect(), (5..14).collect());
    let trips = async |columns: &[usize]| {
        let reads = [
            OnlineRead { wanted: &table.clone().wanted(columns.iter().copied()), keys: &asked },
            OnlineRead { wanted: &other.clone().wanted([1]), keys: &asked },
            OnlineRead { wanted: &table.clone().wanted([7, 0]), keys: &asked },
        ];
        let answers = store.read(&reads).await.unwrap();
        let of = |answer: &OnlineRows, column: usize| {
            answer.values.column(column).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()
        };
        for (position, column) in columns.iter().enumerate() {
            let value = |row: i64| Some(number(row, *column as i64));
            assert_eq!(of(&answers[0], position), [value(3), None, value(1), value(2)]);
        }
        assert_eq!(of(&answers[1], 0), [Some(10), None, Some(20), None]);
        assert_eq!(of(&answers[2], 0), [Some(307), None, Some(107), Some(207)]);
        let there = |answer: &OnlineRows| answer.event_timestamps.iter().map(|time| time.is_some()).collect::<Vec<_>>();
        assert_eq!(
            (there(&answers[0]), there(&answers[1])),
            (vec![true, false, true, true], vec![true, false, true, false])
        );
        (calls(&server, "hmget"), calls(&server, "hgetall"))
    };
    assert_eq!(trips(&backwards).await, (4, 0), "nothing is known of the hashes");
    assert_eq!(trips(&backwards).await, (4, 4), "most of each hash is wanted");
    assert_eq!(trips(&some[..1]).await, (8, 4), "few fields are wanted");
    assert_eq!(trips(&some).await, (8, 8), "at least half");
    assert_eq!(trips(&some[..6]).await, (12, 8), "less than half");
}

#[tokio::test]
async fn large_first_reads_wait_until_it_is_known_how_hashes_are_kept() {
    const KEYS: usize = 500;
    let server = RedisServer::start();
    let columns: Vec<Field> = (0..20).map(|number| Field::new(format!("f{number}"), ValueType::Int64)).collect();
    let table = OnlineTable { columns, ..drivers("proj", "wide") };
    let ids = keys(&(0..KEYS as i64).collect::<Vec<_>>());
    let numbers = Arc::new((0..KEYS as i64).collect::<Int64Array>()) as ArrayRef;
    let rows = record_batch(&table.columns, vec![numbers; 20], KEYS).unwrap();
    let times = TimestampMicrosecondArray::from(vec![T0; KEYS]);
    let write =
        OnlineWrite { table: &table, keys: &ids, rows: &rows, event_timestamps: &times, created_timestamps: None };
    store(&server.address(), json!({})).write(write).await.unwrap();
    // What is known of hashes is kept with what is wanted.
    let wanted = || table.clone().wanted(0..20);
    let asked = || {
        let commands = ["hlen", "object|encoding", "hmget", "hgetall"];
        let asked = commands.map(|command| calls(&server, command));
        server.command(&["CONFIG", "RESETSTAT"]);
        asked
    };
    asked();

    // Many that come at the same time to a store that has just started.
    let (first, first_wanted) = (store(&server.address(), json!({})), wanted());
    let reads = join_all((0..8).map(async |_| {
        let rows = first.read(&[OnlineRead { wanted: &first_wanted, keys: &ids }]).await.unwrap().remove(0);
        rows.values.column(19).as_primitive::<Int64Type>().values().to_vec()
    }));
    for values in reads.await {
        assert!(values.into_iter().eq(0..KEYS as i64));
    }
    let [lengths, encodings, one_by_one, whole] = asked();
    assert_eq!((one_by_one, whole), (0, 8 * KEYS as i64), "nobody reads in the wrong way before the answer is there");
    assert!((1..=8).contains(&lengths) && encodings == lengths, "{lengths} and {encodings} questions");

    // It is not asked again.
    first.read(&[OnlineRead { wanted: &first_wanted, keys: &ids }]).await.unwrap();
    assert_eq!(asked(), [0, 0, 0, KEYS as i64]);

    // A small read does not wait: it asks beside what it reads.
    let (second, few) = (store(&server.address(), json!({})), keys(&[1, 2]));
    second.read(&[OnlineRead { wanted: &wanted(), keys: &few }]).await.unwrap();
    assert_eq!(asked(), [1, 1, 2, 0]);

    // One of entities that are not there learns nothing, and is answered all the same.
    let (third, absent) = (store(&server.address(), json!({})), keys(&(1000..1500).collect::<Vec<_>>()));
    let rows = third.read(&[OnlineRead { wanted: &wanted(), keys: &absent }]).await.unwrap().remove(0);
    assert_eq!(rows.event_timestamps.null_count(), KEYS);
    assert_eq!(asked()[2..], [KEYS as i64, 0]);
}

/// Hashes with twelve fields of `view` behind those of 16 other views.
async fn layered(store: &RedisStore, ids: &[i64]) -> (OnlineTable, OnlineTable) {
    let columns: Vec<Field> = (0..11).map(|number| Field::new(format!("f{number}"), ValueType::Int64)).collect();
    let tables =
        (0..16).map(|number| OnlineTable { columns: columns.clone(), ..drivers("proj", &format!("v{number}")) });
    let tables: Vec<OnlineTable> = tables.collect();
    let keys = keys(ids);
    let times = TimestampMicrosecondArray::from(vec![T0; ids.len()]);
    for table in &tables {
        let arrays =
            (0..11).map(|column| Arc::new(ids.iter().map(|id| id + column).collect::<Int64Array>()) as ArrayRef);
        let rows = record_batch(&table.columns, arrays.collect(), ids.len()).unwrap();
        let write = OnlineWrite { table, keys: &keys, rows: &rows, event_timestamps: &times, created_timestamps: None };
        store.write(write).await.unwrap();
    }
    (tables[0].clone(), tables[15].clone())
}

#[tokio::test]
async fn where_the_fields_lie_decides_how_they_are_read() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let (first, last) = layered(&store, &[1, 2]).await;
    let keys = keys(&[2, 1]);
    for (table, ways) in [(first, [(2, 0), (2, 2), (4, 2)]), (last, [(0, 2), (0, 4), (0, 6)])] {
        server.command(&["CONFIG", "RESETSTAT"]);
        // As a feature service does that names a view under three names.
        let wanted = [0, 1, 2].map(|_| table.clone().wanted(0..11));
        for way in ways {
            let reads = wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys });
            for answer in store.read(&reads).await.unwrap() {
                let column = |at: usize| answer.values.column(at).as_primitive::<Int64Type>().values().to_vec();
                assert_eq!((column(0), column(10)), (vec![2, 1], vec![12, 11]));
            }
            assert_eq!((calls(&server, "hmget"), calls(&server, "hgetall")), way, "{}", table.view);
        }
    }
}

#[tokio::test]
async fn more_whole_hashes_than_may_be_on_their_way_are_read_in_turn() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let ids: Vec<i64> = (0..100).collect();
    let (_, table) = layered(&store, &ids).await;
    let keys = keys(&ids);
    let wanted = [0, 1, 2].map(|_| table.clone().wanted(0..11));
    let read = async || {
        let reads = wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys });
        for answer in store.read(&reads).await.unwrap() {
            let numbers = answer.values.column(3).as_primitive::<Int64Type>();
            assert_eq!(numbers.values().to_vec(), ids.iter().map(|id| id + 3).collect::<Vec<_>>());
        }
    };
    read().await;
    // Of 192 fields each: ten times as many as a connection asks for at once.
    join_all((0..32).map(|_| read())).await;
    assert!(calls(&server, "hgetall") >= 3200);
}

#[tokio::test]
async fn tables_are_not_read_whole_for_some_fields() {
    let server = RedisServer::start();
    server.command(&["CONFIG", "SET", "hash-max-listpack-entries", "4"]);
    let store = store(&server.address(), json!({}));
    let (table, _) = layered(&store, &[1]).await;
    let keys = keys(&[1]);
    for _ in 0..3 {
        let wanted = [0, 1, 2].map(|_| table.clone().wanted(0..11));
        store.read(&wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys })).await.unwrap();
    }
    assert_eq!((calls(&server, "hmget"), calls(&server, "hgetall")), (3, 0));
}

#[tokio::test]
async fn an_account_that_may_not_ask_for_shapes_reads_all_the_same() {
    let server = RedisServer::start();
    let admin = store(&server.address(), json!({}));
    let (table, _) = layered(&admin, &[1]).await;
    server.command(&["ACL", "SETUSER", "reader", "on", ">secret", "~*", "+ping", "+hmget", "+hgetall"]);
    let reader = store(&format!("{},username=reader,password=secret", server.address()), json!({}));
    let wanted = table.wanted(0..11);
    for _ in 0..3 {
        let answer = reader.read(&[OnlineRead { wanted: &wanted, keys: &keys(&[1]) }]).await.unwrap().remove(0);
        assert_eq!(answer.values.column(10).as_primitive::<Int64Type>().value(0), 11);
    }
}

#[tokio::test]
async fn a_hash_of_very_many_fields_is_not_taken_whole() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let (_, table) = layered(&store, &[1, 2]).await;
    let wanted = [0, 1, 2].map(|_| table.clone().wanted(0..11));
    let read = async |ids: &[i64]| {
        let keys = keys(ids);
        let reads = wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys });
        let answers = store.read(&reads).await.unwrap();
        answers[2].values.column(10).as_primitive::<Int64Type>().values().to_vec()
    };
    for _ in 0..2 {
        assert_eq!(read(&[1, 2]).await, [11, 12]);
    }
    assert_eq!(calls(&server, "hgetall"), 2, "these are read whole");
    let widen = "local key = redis.call('KEYS', '*')[1] \
                 for at = 1, 100000 do redis.call('HSET', key, 'field' .. at, 'something of a length') end";
    server.command(&["EVAL", widen, "0"]);
    // Other calls of the connection that brought it go on.
    let others = join_all((0..8).map(|_| read(&[2, 1]))).await;
    assert!(others.iter().all(|values| *values == [12, 11]), "{others:?}");
    let whole = calls(&server, "hgetall");
    assert_eq!(read(&[1, 2]).await, [11, 12]);
    assert_eq!(calls(&server, "hgetall"), whole, "never again");
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
async fn passwords_and_users_are_used_and_never_shown() {
    let server = RedisServer::start_with(&["--requirepass", "s3cret"]);
    server.command(&["ACL", "SETUSER", "feast", "on", ">pa=ss", "~*", "+@all"]);
    server.command(&["ACL", "SETUSER", "reader", "on", ">r3ader", "~*", "+@read", "+@connection"]);
    let table = drivers("proj", "stats");
    for login in ["password=s3cret", "username=feast,password=pa=ss", "username=default,password=\"s3cret\""] {
        let store = store(&format!("{},{login}", server.address()), json!({}));
        write(&store, &table, &[(1, T0, 10)]).await;
        assert_eq!(trips(&store, &table, &[1]).await, [Some(10)]);
        let shown = format!("{store} {store:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("pa=ss"), "{shown}");
    }
    for (login, code) in
        [("", "NOAUTH"), (",password=wr0ng", "WRONGPASS"), (",username=nobody,password=wr0ng", "WRONGPASS")]
    {
        let store = store(&format!("{}{login}", server.address()), json!({}));
        let error = try_trips(&store, &table, &[1]).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::PermissionDenied);
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(code) && shown.contains("`password`") && !shown.contains("wr0ng"), "{shown}");
        assert_eq!(store.check().await.unwrap_err().code(), ErrorCode::PermissionDenied);
    }
    let reader = store(&format!("{},username=reader,password=r3ader", server.address()), json!({}));
    assert_eq!(trips(&reader, &table, &[1]).await, [Some(10)]);
    let error = try_write(&reader, &table, &[(1, T0, 10)]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PermissionDenied);
    assert!(error.hint().unwrap().contains("+@scripting"), "{error:?}");
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
fn encrypted_server(names: &[&str]) -> (RedisServer, [String; 3], Certificates) {
    let certificates = Certificates::make(names);
    let files = [certificates.authority(), certificates.certificate(), certificates.key()];
    let [authority, certificate, key] = files.map(|file| file.display().to_string());
    let port = free_port().to_string();
    let mut arguments = vec!["--port", "0", "--tls-port", &port, "--tls-auth-clients", "optional"];
    arguments.extend(["--tls-ca-cert-file", &authority, "--tls-cert-file", &certificate, "--tls-key-file", &key]);
    let server = RedisServer::start_with(&arguments);
    (server, [authority, certificate, key], certificates)
}

#[tokio::test]
async fn connections_are_encrypted_and_certificates_checked() {
    let (server, [authority, certificate, key], _certificates) = encrypted_server(&["localhost", "127.0.0.1"]);
    let table = drivers("proj", "stats");
    let with = |settings: &str| store(&format!("{},ssl=true,{settings}", server.address()), json!({}));
    let trusted = format!("ssl_ca_certs={authority}");
    let ours = format!("{trusted},ssl_certfile={certificate},ssl_keyfile={key}");
    for settings in [trusted.as_str(), &ours, "ssl_cert_reqs=none"] {
        let store = with(settings);
        write(&store, &table, &[(1, T0, 10)]).await;
        let many: Vec<(i64, i64, i64)> = (0..3000).map(|id| (id, T0, 20)).collect();
        write(&store, &table, &many).await;
        assert_eq!(trips(&store, &table, &[1, 2999]).await, [Some(20), Some(20)], "{settings}");
    }
    let error = try_trips(&with(""), &table, &[1]).await.unwrap_err();
    assert!(error.hint().unwrap().contains("ssl_ca_certs"), "{error:?}");
    let plain = store(&server.address(), json!({}));
    let error = try_trips(&plain, &table, &[1]).await.unwrap_err();
    assert!(error.hint().unwrap().contains("ssl=true"), "{error:?}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_told_otherwise() {
    let (server, [authority, ..], _certificates) = encrypted_server(&["redis.example.com"]);
    let table = drivers("proj", "stats");
    let with =
        |settings: &str| store(&format!("{},ssl=true,ssl_ca_certs={authority}{settings}", server.address()), json!({}));
    let error = try_trips(&with(""), &table, &[1]).await.unwrap_err();
    assert!(error.to_string().contains("redis.example.com"), "{error}");
    assert_eq!(trips(&with(",ssl_check_hostname=false"), &table, &[1]).await, [None]);
    // Another authority is refused all the same.
    let others = Certificates::make(&[]);
    let other = others.authority().display().to_string();
    let store =
        store(&format!("{},ssl=true,ssl_ca_certs={other},ssl_check_hostname=false", server.address()), json!({}));
    assert!(try_trips(&store, &table, &[1]).await.is_err());
}

/// Runs a call that has to fail, and how long it took.
async fn failure(store: &RedisStore, table: &OnlineTable) -> (feast_core::Error, Duration) {
    let start = Instant::now();
    (try_trips(store, table, &[1]).await.unwrap_err(), start.elapsed())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_quickly() {
    let address = format!("127.0.0.1:{}", free_port());
    let store = store(&address, json!({}));
    let (error, took) = failure(&store, &drivers("proj", "stats")).await;
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.to_string().contains(&address) && took < Duration::from_secs(2), "{error} {took:?}");
    assert_eq!(store.check().await.unwrap_err().code(), ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_restarted_server_is_used_again() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = store(&server.address(), json!({}));
    let table = drivers("proj", "stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    server.kill();
    assert_eq!(failure(&store, &table).await.0.code(), ErrorCode::Unavailable);
    server.start_again();
    assert_eq!(trips(&store, &table, &[1]).await, [Some(10)]);
    // Scripts are gone with the process.
    write(&store, &table, &[(1, T0 + 1, 20)]).await;
    assert_eq!(trips(&store, &table, &[1]).await, [Some(20)]);
}

#[tokio::test]
async fn a_write_outlasts_a_restart() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = Arc::new(store(&server.address(), json!({})));
    let table = drivers("proj", "stats");
    write(&*store, &table, &[(1, T0, 10)]).await;
    server.kill();
    let writing = tokio::spawn({
        let (store, table) = (Arc::clone(&store), table.clone());
        async move { try_write(&*store, &table, &[(1, T0, 20)]).await }
    });
    let starting = tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    });
    let server = starting.await.unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(trips(&*store, &table, &[1]).await, [Some(20)]);
    drop(server);
}

#[tokio::test]
async fn a_paused_server_costs_bounded_time_and_is_used_again() {
    let server = RedisServer::start();
    let store = store(&format!("{},socket_timeout=0.4,socket_connect_timeout=0.3", server.address()), json!({}));
    let table = drivers("proj", "stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    server.pause();
    // On the open connection, then on attempts to open another.
    for _ in 0..3 {
        let (error, took) = failure(&store, &table).await;
        assert_eq!(error.code(), ErrorCode::Timeout, "{error}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let start = Instant::now();
    let many = futures::future::join_all((0..200).map(|_| try_trips(&store, &table, &[1]))).await;
    assert!(many.iter().all(Result::is_err) && start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(try_write(&store, &table, &[(1, T0, 20)]).await.unwrap_err().code(), ErrorCode::Timeout);
    server.resume();
    wait_until_read(&store, &table, &[1]).await;
}

/// Waits until reads succeed again.
async fn wait_until_read(store: &RedisStore, table: &OnlineTable, ids: &[i64]) -> Vec<Option<i64>> {
    let start = Instant::now();
    loop {
        match try_trips(store, table, ids).await {
            Ok(found) => return found,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(30), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connections_under_load_give_no_wrong_value() {
    let server = RedisServer::start();
    let store = Arc::new(store(&server.address(), json!({})));
    let table = Arc::new(drivers("proj", "stats"));
    let rows: Vec<(i64, i64, i64)> = (0..1000).map(|id| (id, T0, id)).collect();
    write(&*store, &table, &rows).await;
    let readers: Vec<_> = (0..16i64)
        .map(|reader| {
            let (store, table) = (Arc::clone(&store), Arc::clone(&table));
            tokio::spawn(async move {
                let mut failures = 0;
                for round in 0..200 {
                    let ids: Vec<i64> = (0..20).map(|n| (reader * 61 + round * 17 + n * 7) % 1000).collect();
                    match try_trips(&*store, &table, &ids).await {
                        Ok(found) => assert_eq!(found, ids.iter().copied().map(Some).collect::<Vec<_>>()),
                        Err(error) => {
                            assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
                            failures += 1;
                        }
                    }
                }
                failures
            })
        })
        .collect();
    let killer = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        server
    });
    let mut failures = 0;
    for reader in readers {
        failures += reader.await.unwrap();
    }
    // Calls are tried again; rarely one loses its connection every time.
    assert!(failures < 100, "{failures} of 3200 reads failed");
    let server = killer.await.unwrap();
    assert_eq!(wait_until_read(&store, &table, &[7]).await, [Some(7)]);
    drop(server);
}

#[tokio::test]
async fn what_is_no_redis_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        }
    });
    let (error, _) = failure(&store(&address, json!({})), &drivers("proj", "stats")).await;
    assert!(error.to_string().contains("does not speak the protocol of Redis"), "{error}");
}

#[tokio::test]
async fn a_foreign_value_under_our_key_is_told() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let table = drivers("proj", "stats");
    let set = "redis.call('SET', ARGV[1]:gsub('..', function(h) return string.char(tonumber(h, 16)) end), 'x')";
    server.command(&["EVAL", set, "0", &key_of(1, "proj")]);
    let (error, _) = failure(&store, &table).await;
    assert!(error.message().contains("WRONGTYPE") && error.hint().unwrap().contains("another program"), "{error:?}");
    assert!(try_write(&store, &table, &[(1, T0, 10)]).await.unwrap_err().message().contains("WRONGTYPE"));
}

#[tokio::test]
async fn a_failover_is_followed() {
    let mut servers = RedisSentinel::start();
    let store = of_sentinel(&servers);
    let table = drivers("proj", "stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    assert_eq!(servers.master.command(&["WAIT", "1", "10000"]), "1");
    servers.master.kill();
    let found = wait_until_read(&store, &table, &[1]).await;
    assert_eq!(found, [Some(10)]);
    write(&store, &table, &[(1, T0 + 1, 20)]).await;
    assert_eq!(trips(&store, &table, &[1]).await, [Some(20)]);
    assert!(servers.replica.command(&["ROLE"]).starts_with("master"));
}

/// The old master lives on as a replica, which would answer reads, of old rows.
#[tokio::test]
async fn a_master_that_became_a_replica_is_left() {
    let servers = RedisSentinel::start();
    let options = json!({"redis_type": "redis_sentinel", "sentinel_master": RedisSentinel::MASTER});
    let store = store(&format!("{},client_name=feast", servers.sentinel.address()), options);
    let table = drivers("proj", "stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    assert_eq!(servers.master.command(&["WAIT", "1", "10000"]), "1");
    // The sentinel needs a moment to find the replica good.
    wait_for(|| (servers.sentinel.command(&["SENTINEL", "FAILOVER", RedisSentinel::MASTER]) == "OK").then_some(()));
    wait_for(|| {
        let is = |server: &RedisServer, role| server.command(&["ROLE"]).starts_with(role);
        (is(&servers.replica, "master") && is(&servers.master, "slave")).then_some(())
    });
    wait_for(|| (!servers.master.command(&["CLIENT", "LIST"]).contains("name=feast")).then_some(()));
    assert_eq!(wait_until_read(&store, &table, &[1]).await, [Some(10)]);
    assert!(servers.replica.command(&["CLIENT", "LIST"]).contains("name=feast"));
    assert!(!servers.master.command(&["CLIENT", "LIST"]).contains("name=feast"));
    write(&store, &table, &[(1, T0 + 1, 20)]).await;
    assert_eq!(trips(&store, &table, &[1]).await, [Some(20)]);
}

#[tokio::test]
async fn a_sentinel_that_knows_no_such_master_is_told() {
    let servers = RedisSentinel::shared();
    let options = json!({"redis_type": "redis_sentinel", "sentinel_master": "other"});
    let (error, _) = failure(&store(&servers.sentinel.address(), options), &drivers("proj", "stats")).await;
    assert!(error.to_string().contains("names no master"), "{error}");
}

#[tokio::test]
async fn moved_slots_are_followed() {
    let cluster = RedisCluster::start();
    let store = store(&cluster.servers[0].address(), json!({"redis_type": "redis_cluster"}));
    let table = drivers("proj", "stats");
    let rows: Vec<(i64, i64, i64)> = (0..500).map(|id| (id, T0, id)).collect();
    let ids: Vec<i64> = (0..500).collect();
    let all: Vec<Option<i64>> = ids.iter().copied().map(Some).collect();
    write(&store, &table, &rows).await;
    assert_eq!(trips(&store, &table, &ids).await, all);
    // Slot by slot, some keys are moved while they are asked for; half way there keys are at both nodes.
    let [from, to] = [&cluster.servers[0], &cluster.servers[1]];
    let (from_id, to_id) = (from.command(&["CLUSTER", "MYID"]), to.command(&["CLUSTER", "MYID"]));
    for id in 0..40 {
        let key = [keys(&[id]).encoded.value(0), b"proj"].concat();
        let slot = commands::hash_slot(&key).to_string();
        if from.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot]) == "0" {
            continue;
        }
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let migrate = "for _, key in ipairs(redis.call('CLUSTER', 'GETKEYSINSLOT', ARGV[1], '100')) do \
            redis.call('MIGRATE', '127.0.0.1', ARGV[2], key, '0', '5000') end";
        let done = from.command(&["EVAL", migrate, "0", &slot, &to.port().to_string()]);
        assert_eq!(done, "", "{done}");
        assert_eq!(trips(&store, &table, &ids).await, all, "asking");
        write(&store, &table, &[(id, T0 + 1, id)]).await;
        for server in &cluster.servers {
            server.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
        assert_eq!(trips(&store, &table, &ids).await, all, "moved");
        write(&store, &table, &[(id, T0 + 2, id)]).await;
    }
    store.update(&[TableChange::Drop(table.clone())]).await.unwrap();
    assert!(cluster.servers.iter().all(|server| server.command(&["DBSIZE"]) == "0"));
}

#[tokio::test]
async fn a_lone_server_is_no_cluster() {
    let server = RedisServer::start();
    let (error, _) =
        failure(&store(&server.address(), json!({"redis_type": "redis_cluster"})), &drivers("proj", "stats")).await;
    assert_eq!(error.code(), ErrorCode::InvalidConfiguration);
    assert!(error.hint().unwrap().contains("`redis_type: redis`"), "{error:?}");
}

#[tokio::test]
async fn scripts_have_the_names_by_which_they_are_called() {
    let server = RedisServer::start();
    for script in SCRIPTS {
        assert_eq!(server.command(&["SCRIPT", "LOAD", script.source]), script.sha1);
    }
}
