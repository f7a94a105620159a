//! The online store `remote` against this server: what it reads is what the server's own store holds, in one request,
//! and what it writes arrives there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use feast::FeatureStore;
use feast_core::{
    DUMMY_JOIN_KEY, EntityKeyEncoder, EntityKeys, ErrorCode, OnlineRead, OnlineStore, OnlineTable, OnlineWrite, Tags,
    ValueType,
};
use feast_server::{ServeOptions, serve};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::fixture;

/// The server, a proxy before it that counts requests, and a store behind the proxy.
struct Started {
    _folder: tempfile::TempDir,
    feast: FeatureStore,
    remote: Arc<dyn OnlineStore>,
    requests: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

async fn start() -> Started {
    let (folder, feast) = fixture::feature_store().await;
    let (tell, ready) = oneshot::channel::<SocketAddr>();
    let (stop, stopped) = oneshot::channel::<()>();
    let options = ServeOptions { port: 0, ..ServeOptions::default() };
    tokio::spawn(serve(feast.clone(), options, |address| tell.send(address).unwrap(), stopped));
    let server = ready.await.unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = format!("http://{}/", proxy.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((client, _)) = proxy.accept().await {
            let (upstream, counted) = (TcpStream::connect(server).await.unwrap(), Arc::clone(&counted));
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), upstream.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
                    counted.fetch_add(usize::from(buffer.starts_with(b"POST ")), Ordering::Relaxed);
                    to_server.write_all(&buffer[..n]).await.unwrap();
                }
            });
        }
    });
    let remote = feast_online::connect("remote", &json!({"path": path}), std::path::Path::new("/")).unwrap();
    Started { _folder: folder, feast, remote, requests, _stop: stop }
}

async fn table(feast: &FeatureStore, view: &str) -> OnlineTable {
    OnlineTable::of("proj", &feast.contents(false).await.unwrap().feature_views[view])
}

fn keys(table: &OnlineTable, column: ArrayRef) -> EntityKeys {
    let batch = RecordBatch::try_from_iter([(table.join_keys[0].name.as_str(), column)]).unwrap();
    EntityKeyEncoder::new(&table.join_keys, 3).unwrap().encode(batch).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_reads_what_the_servers_own_store_holds() {
    let started = start().await;
    let drivers = || Arc::new(Int64Array::from(vec![1001, 9999, 1002, 1003])) as ArrayRef;
    let items = || Arc::new(StringArray::from(vec!["0", "5", "6", "nowhere", "8", "11"])) as ArrayRef;
    let mut views = Vec::new();
    for (view, column) in [("driver_stats", drivers()), ("shapes", items()), ("driver_push", drivers())] {
        let table = table(&started.feast, view).await;
        let keys = keys(&table, column);
        let n_columns = table.columns.len();
        views.push((table.wanted((0..n_columns).rev()), keys));
    }
    let reads: Vec<OnlineRead<'_>> = views.iter().map(|(wanted, keys)| OnlineRead { wanted, keys }).collect();
    let expected = started.feast.online_store().unwrap().read(&reads).await.unwrap();
    let answers = started.remote.read(&reads).await.unwrap();
    assert_eq!(started.requests.load(Ordering::Relaxed), 1);
    for ((expected, answer), (wanted, _)) in expected.iter().zip(&answers).zip(&views) {
        for (expected, answer) in expected.values.columns().iter().zip(answer.values.columns()) {
            assert_eq!(answer, expected, "{}", wanted.table.view);
        }
        assert_eq!(answer.event_timestamps, expected.event_timestamps, "{}", wanted.table.view);
    }
    assert!(answers[1].event_timestamps.is_null(3) && answers[1].event_timestamps.is_valid(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_without_entities_is_read() {
    let started = start().await;
    let table = table(&started.feast, "glob").await;
    assert_eq!(table.join_keys[0].name, DUMMY_JOIN_KEY);
    let keys = keys(&table, Arc::new(StringArray::from(vec![""])));
    let read = OnlineRead { wanted: &table.wanted([0]), keys: &keys };
    let expected = started.feast.online_store().unwrap().read(&[read]).await.unwrap();
    let answer = started.remote.read(&[read]).await.unwrap();
    assert_eq!(answer[0].values, expected[0].values);
    assert_eq!(answer[0].event_timestamps, expected[0].event_timestamps);
    assert!(answer[0].event_timestamps.is_valid(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_arrives_and_the_newest_event_wins() {
    let started = start().await;
    // All types of the repository: the rows of one table, given to another entity.
    let shapes = table(&started.feast, "shapes").await;
    let source = keys(&shapes, Arc::new(StringArray::from(vec!["1", "5"])));
    let target = keys(&shapes, Arc::new(StringArray::from(vec!["copy", "copy of 5"])));
    let wanted = shapes.clone().wanted(0..shapes.columns.len());
    let local = started.feast.online_store().unwrap();
    let rows = |keys| OnlineRead { wanted: &wanted, keys };
    let original = local.read(&[rows(&source)]).await.unwrap().remove(0);
    let at = |micros: i64| TimestampMicrosecondArray::from(vec![micros; 2]).with_timezone("UTC");
    let (event, created) = (at(fixture::NOON + 1_000_001), at(fixture::NOON + 2_000_000));
    let write = OnlineWrite {
        table: &shapes,
        keys: &target,
        rows: &original.values,
        event_timestamps: &event,
        created_timestamps: Some(&created),
    };
    started.remote.write(write).await.unwrap();
    let copy = local.read(&[rows(&target)]).await.unwrap().remove(0);
    assert_eq!((&copy.values, &copy.event_timestamps), (&original.values, &event));
    assert_eq!(started.remote.read(&[rows(&target)]).await.unwrap()[0].values, original.values);

    let older = at(fixture::NOON);
    let nothing = original.values.columns().iter().map(|column| arrow::array::new_null_array(column.data_type(), 2));
    let nothing = RecordBatch::try_new(original.values.schema(), nothing.collect()).unwrap();
    started.remote.write(OnlineWrite { rows: &nothing, event_timestamps: &older, ..write }).await.unwrap();
    assert_eq!(local.read(&[rows(&target)]).await.unwrap()[0].values, original.values, "older rows change nothing");
    let newer = at(fixture::NOON + 3_000_000);
    started.remote.write(OnlineWrite { rows: &nothing, event_timestamps: &newer, ..write }).await.unwrap();
    assert_eq!(local.read(&[rows(&target)]).await.unwrap()[0].values, nothing, "newer ones do, also without values");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_refuses_is_said() {
    let started = start().await;
    started.remote.check().await.unwrap();
    let stats = table(&started.feast, "driver_stats").await;
    let unknown = OnlineTable { view: "nowhere".to_owned(), tags: Tags::new(), ..stats.clone() };
    let driver = keys(&stats, Arc::new(Int64Array::from(vec![1001])));
    let error =
        started.remote.read(&[OnlineRead { wanted: &unknown.clone().wanted([0]), keys: &driver }]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FeatureViewNotFound, "{error:?}");
    assert!(error.to_string().contains("nowhere") && error.hint().unwrap().contains("feast apply"), "{error:?}");
    let rows = stats.columns.iter().map(|column| arrow::array::new_null_array(&column.value_type.arrow_type(), 1));
    let fields: Vec<_> = stats.columns.iter().map(|column| column.value_type.arrow_field(&column.name)).collect();
    let rows = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), rows.collect()).unwrap();
    let write = OnlineWrite {
        table: &unknown,
        keys: &driver,
        rows: &rows,
        event_timestamps: &TimestampMicrosecondArray::from(vec![1]),
        created_timestamps: None,
    };
    let error = started.remote.write(write).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FeatureViewNotFound, "{error:?}");
    let mut foreign = stats.clone();
    foreign.columns[0] = feast_core::Field::new("unknown", ValueType::Int64);
    let read = OnlineRead { wanted: &foreign.wanted([0]), keys: &driver };
    let error = started.remote.read(&[read]).await.unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error:?}");
}
