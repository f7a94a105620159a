//! How fast the Redis store is beside the least that Redis needs: the same commands, serialized beforehand, sent
//! through a bare socket, whose replies nobody looks at.
//!
//! ```console
//! $ cargo run --release -p feast-online --example redis            # 200,000 entities; or another number
//! ```
//!
//! It starts a server of its own, and shows for both sides the time that passed, and of it the time of the processors
//! used by this process and by the server.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program to measure with")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use feast_core::{EntityKeyEncoder, EntityKeys, Field, OnlineRead, OnlineStore, OnlineTable, OnlineWrite, ValueType};
use feast_online::stores::redis::RedisStore;
use feast_testing::services::redis::RedisServer;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

const FEATURES: usize = 10;
const BATCH: i64 = 16_384;
const TIME: i64 = 1_795_176_000_000_000;

fn main() {
    let entities: i64 = std::env::args().nth(1).map_or(200_000, |number| number.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = RedisServer::start();
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_nodelay(true).unwrap();
    let options = |skip_dedup: bool| json!({"connection_string": server.address(), "skip_dedup": skip_dedup});
    let store = Arc::new(RedisStore::connect(&options(false)).unwrap());
    let hasty = Arc::new(RedisStore::connect(&options(true)).unwrap());

    println!("writing {entities} rows of {FEATURES} features");
    let pipelines = raw_writes(entities);
    for case in ["new keys", "same rows"] {
        measure(&server, &format!("raw HSET, {case}"), entities, || send_writes(&mut socket, &pipelines));
    }
    drop(pipelines);
    for (name, store) in [("skip_dedup", &hasty), ("newest wins", &store)] {
        server.command(&["FLUSHALL"]);
        for (case, time) in [("new keys", TIME), ("same rows", TIME), ("newer rows", TIME + 1)] {
            let writing = write(store, "view_0", entities, time);
            measure(&server, &format!("{name}, {case}"), entities, || runtime.block_on(writing));
        }
    }

    let ids: Vec<i64> = (0..1000).collect();
    for (n_views, n_keys, rounds) in [(1, 1, 20_000), (5, 1, 20_000), (5, 100, 1_000), (25, 500, 20)] {
        server.command(&["FLUSHALL"]);
        let tables: Vec<OnlineTable> = (0..n_views).map(|view| table(&format!("view_{view}"))).collect();
        for table in &tables {
            runtime.block_on(write(&store, &table.view, ids.len() as i64, TIME));
        }
        println!("reading {n_keys} entities, {n_views} views of {FEATURES} features, {rounds} times");
        let keys = keys(&ids[..n_keys]);
        let wanted: Vec<_> = tables.iter().map(|table| table.clone().wanted(0..FEATURES)).collect();
        let commands = raw_read(&tables, &keys);
        let mut replies = replies_to(&mut socket, &commands);
        measure(&server, "raw HMGET", rounds, || {
            for _ in 0..rounds {
                socket.write_all(&commands).unwrap();
                socket.read_exact(&mut replies).unwrap();
            }
        });
        // In a task, as the requests of a server are.
        let store = Arc::clone(&store);
        let reading = async move {
            for _ in 0..rounds {
                let reads: Vec<OnlineRead<'_>> =
                    wanted.iter().map(|wanted| OnlineRead { wanted, keys: &keys }).collect();
                assert_eq!(store.read(&reads).await.unwrap().len(), n_views);
            }
        };
        measure(&server, "store", rounds, || runtime.block_on(runtime.spawn(reading)).unwrap());
    }
}

fn table(view: &str) -> OnlineTable {
    OnlineTable {
        project: "bench".to_owned(),
        view: view.to_owned(),
        join_keys: vec![Field::new("driver_id", ValueType::Int64)],
        columns: (0..FEATURES).map(|number| Field::new(format!("feature_{number}"), ValueType::Double)).collect(),
        tags: feast_core::Tags::new(),
    }
}

fn keys(ids: &[i64]) -> EntityKeys {
    let ids = Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
    let encoder = EntityKeyEncoder::new(&[Field::new("driver_id", ValueType::Int64)], 3).unwrap();
    encoder.encode(RecordBatch::try_from_iter([("driver_id", ids)]).unwrap()).unwrap()
}

fn value(id: i64, feature: usize) -> f64 {
    (id as f64).mul_add(0.1, feature as f64)
}

/// Batches as a materialization has them, two at a time.
async fn write(store: &RedisStore, view: &str, entities: i64, time: i64) {
    let table = &table(view);
    let batches = (0..entities).step_by(BATCH as usize).map(|start| async move {
        let ids: Vec<i64> = (start..entities.min(start + BATCH)).collect();
        let columns = table.columns.iter().enumerate().map(|(feature, column)| {
            let values = ids.iter().map(|id| value(*id, feature)).collect::<Float64Array>();
            (column.name.as_str(), Arc::new(values) as ArrayRef)
        });
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let times = TimestampMicrosecondArray::from(vec![time; ids.len()]);
        let keys = keys(&ids);
        let write = OnlineWrite { table, keys: &keys, rows: &rows, event_timestamps: &times, created_timestamps: None };
        store.write(write).await
    });
    futures::stream::iter(batches).buffer_unordered(2).try_collect::<()>().await.unwrap();
}

fn put(out: &mut Vec<u8>, argument: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
    out.extend_from_slice(argument);
    out.extend_from_slice(b"\r\n");
}

/// Pipelines of `HSET`, with their numbers of commands.
fn raw_writes(entities: i64) -> Vec<(Vec<u8>, usize)> {
    let ids: Vec<i64> = (0..entities).collect();
    let pipeline = |ids: &[i64]| {
        let keys = keys(ids);
        let mut out = Vec::new();
        for (row, id) in ids.iter().enumerate() {
            out.extend_from_slice(format!("*{}\r\n", 4 + 2 * FEATURES).as_bytes());
            put(&mut out, b"HSET");
            put(&mut out, &[keys.encoded.value(row), b"bench"].concat());
            put(&mut out, b"_ts:view_0");
            put(&mut out, b"\x08\xc0\xec\x80\xd8\x06");
            for feature in 0..FEATURES {
                put(&mut out, &(feature as u32 * 0x1e37_79b1).to_le_bytes());
                put(&mut out, &[&[0x29][..], &value(*id, feature).to_le_bytes()].concat());
            }
        }
        (out, ids.len())
    };
    ids.chunks(1024).map(pipeline).collect()
}

/// Sends pipelines, up to four before their replies, which are numbers.
fn send_writes(socket: &mut TcpStream, pipelines: &[(Vec<u8>, usize)]) {
    let mut buffer = vec![0; 1 << 18];
    let mut missing = 0;
    for (bytes, n_replies) in pipelines {
        socket.write_all(bytes).unwrap();
        missing += n_replies;
        while missing > 3 * 1024 {
            missing -= replied(socket, &mut buffer);
        }
    }
    while missing > 0 {
        missing -= replied(socket, &mut buffer);
    }
}

fn replied(socket: &mut TcpStream, buffer: &mut [u8]) -> usize {
    let read = socket.read(buffer).unwrap();
    buffer[..read].iter().filter(|byte| **byte == b'\n').count()
}

/// What the store sends: one `HMGET` per key for all views.
fn raw_read(tables: &[OnlineTable], keys: &EntityKeys) -> Vec<u8> {
    let mut out = Vec::new();
    for key in &keys.encoded {
        out.extend_from_slice(format!("*{}\r\n", 2 + tables.len() * (FEATURES + 1)).as_bytes());
        put(&mut out, b"HMGET");
        put(&mut out, &[key.unwrap(), b"bench"].concat());
        for table in tables {
            for column in &table.columns {
                let name = format!("{}:{}", table.view, column.name);
                put(&mut out, &murmur3::murmur3_32(&mut name.as_bytes(), 0).unwrap().to_le_bytes());
            }
            put(&mut out, format!("_ts:{}", table.view).as_bytes());
        }
    }
    out
}

/// All that is answered to some commands.
fn replies_to(socket: &mut TcpStream, commands: &[u8]) -> Vec<u8> {
    socket.write_all(commands).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut replies = Vec::new();
    let silence = socket.read_to_end(&mut replies).unwrap_err();
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    socket.set_read_timeout(None).unwrap();
    replies
}

/// Seconds of user and system time of a process.
fn processor_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn measure(server: &RedisServer, name: &str, count: i64, work: impl FnOnce()) {
    let used = || (processor_seconds("self"), processor_seconds(server.process()));
    let (before, start) = (used(), Instant::now());
    work();
    let (took, after) = (start.elapsed(), used());
    let each = |seconds: f64| seconds * 1e6 / count as f64;
    println!(
        "  {name:26} {:9.1} µs each; processor: {:8.1} µs here, {:8.1} µs Redis",
        each(took.as_secs_f64()),
        each(after.0 - before.0),
        each(after.1 - before.1)
    );
}
