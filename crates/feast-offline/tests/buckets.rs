//! Sources and datasets in buckets: S3 as moto serves it, and the calls of Google Cloud Storage's XML interface.
//!
//! Runs without the test harness: the program starts itself again with credentials in the environment, from which the
//! clients of the clouds take them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use chrono::DateTime;
use feast_core::{
    BatchFeatures, DataSource, DataSourceOptions, ErrorCode, FeatureSelection, FeatureView, FeatureViewKind, Field,
    Project, ProjectContents, RegistryObject, RetrievalPlan, ValueType,
};
use feast_offline::{BatchStream, EntitySource, HistoricalRequest, LatestRequest, OfflineStore, WriteOptions};
use feast_testing::services::s3::S3Server;

const KEY_ID: &str = "AKIAOFTHETESTS";
const SECRET: &str = "s3cret-of-the-bucket";

/// A key with which no token is asked for.
const GOOGLE_KEY: &str =
    r#"{"private_key": "s3cret", "private_key_id": "id", "client_email": "email", "disable_oauth": true}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "--with-credentials") {
        return run(arguments.get(2).map(String::as_str));
    }
    let wanted = arguments.get(1).filter(|argument| !argument.starts_with('-'));
    let status = Command::new(std::env::current_exe().unwrap())
        .arg("--with-credentials")
        .args(wanted)
        .envs([("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_REGION", "eu-north-1")])
        .env("GOOGLE_SERVICE_ACCOUNT_KEY", GOOGLE_KEY)
        .status()
        .unwrap();
    assert!(status.success());
}

fn run(wanted: Option<&str>) {
    let server = S3Server::start();
    server.create_bucket("features");
    let at = Place { endpoint: server.endpoint(), scheme: "s3", server: Some(server) };
    let google = Place { endpoint: fake_google(), scheme: "gs", server: None };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let test = |name: &str, test: &dyn Fn()| {
        if wanted.is_none_or(|wanted| name.contains(wanted)) {
            test();
            println!("test {name} ... ok");
        }
    };
    test("files_of_every_kind_are_read", &|| runtime.block_on(files_of_every_kind_are_read(&at)));
    test("only_what_is_needed_is_read", &|| runtime.block_on(only_what_is_needed_is_read(&at)));
    for place in [&at, &google] {
        test("rows_are_added_and_kept", &|| runtime.block_on(rows_are_added_and_kept(place)));
        test("what_fails_leaves_nothing", &|| runtime.block_on(what_fails_leaves_nothing(place)));
    }
    test("a_delta_table_of_google_is_read", &|| runtime.block_on(a_delta_table_is_read(&google)));
    test("failures_tell_no_secrets", &|| runtime.block_on(failures_tell_no_secrets(&at)));
}

struct Place {
    endpoint: String,
    scheme: &'static str,
    server: Option<S3Server>,
}

impl Place {
    fn path(&self, key: &str) -> String {
        format!("{}://features/{key}", self.scheme)
    }

    fn source(&self, key: &str) -> DataSource {
        let mut source = DataSource::file("stats", self.path(key), "event_timestamp");
        if let DataSourceOptions::File { s3_endpoint_override, .. } = &mut source.options {
            self.endpoint.clone_into(s3_endpoint_override);
        }
        source
    }

    fn options(&self) -> WriteOptions {
        WriteOptions { endpoint: self.endpoint.clone(), ..WriteOptions::default() }
    }
}

fn store() -> OfflineStore {
    OfflineStore::connect(&serde_json::Value::Null, &std::env::temp_dir()).unwrap()
}

fn rows(rows: &[(i64, i64, i64)]) -> RecordBatch {
    let column =
        |pick: fn(&(i64, i64, i64)) -> i64| Arc::new(rows.iter().map(pick).collect::<Int64Array>()) as ArrayRef;
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1 * 1_000_000));
    RecordBatch::try_from_iter([
        ("driver_id", column(|row| row.0)),
        ("event_timestamp", Arc::new(times.with_timezone("UTC")) as ArrayRef),
        ("trips", column(|row| row.2)),
    ])
    .unwrap()
}

fn stream(batch: &RecordBatch) -> BatchStream {
    BatchStream::from_batches(batch.schema(), vec![batch.clone()])
}

fn view(source: &DataSource) -> Arc<FeatureView> {
    let batch = BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
    let mut view = FeatureView::new("driver_stats", FeatureViewKind::Batch(batch));
    view.entities = vec!["driver".to_owned()];
    view.entity_columns = vec![Field::new("driver_id", ValueType::Int64)];
    view.features = vec![Field::new("trips", ValueType::Int64)];
    Arc::new(view)
}

async fn collected(stream: BatchStream) -> RecordBatch {
    let schema = Arc::clone(stream.schema());
    concat_batches(&schema, &stream.collect().await.unwrap()).unwrap()
}

async fn latest_trips(source: &DataSource) -> Vec<(i64, i64)> {
    let instant = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
    let request = LatestRequest { view: view(source), start: instant(0), end: instant(1_000_000) };
    let batch = collected(store().latest(request).await.unwrap()).await;
    let column = |index: usize| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
    let mut pairs: Vec<(i64, i64)> = column(0).into_iter().zip(column(1)).collect();
    pairs.sort_unstable();
    pairs
}

async fn trained(source: &DataSource, entity: EntitySource) -> feast_core::Result<RecordBatch> {
    let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
    contents.put(RegistryObject::FeatureView(view(source)));
    let references = FeatureSelection::References(vec!["driver_stats:trips".to_owned()]);
    let request = HistoricalRequest {
        plan: Arc::new(RetrievalPlan::resolve(&contents, &references, false).unwrap()),
        entity,
        tables: vec![Arc::new(source.clone())],
        filter_by_created_timestamp: false,
        as_of: None,
    };
    Ok(collected(store().historical(request).await?.batches).await)
}

async fn files_of_every_kind_are_read(at: &Place) {
    let put = |key: &str, body: &[u8]| at.server.as_ref().unwrap().put(&format!("features/{key}"), body);
    let csv = |lines: &str| {
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        write!(zipped, "driver_id,event_timestamp,trips\n{lines}").unwrap();
        zipped.finish().unwrap()
    };
    put("csv/a.csv.gz", &csv("1,1970-01-01T00:00:10Z,1\n2,1970-01-01 00:00:10,2\n"));
    put("csv/b.csv.gz", &csv("1,1970-01-01T00:00:20Z,3\n"));
    put(
        "json/a.jsonl",
        br#"{"driver_id": 1, "event_timestamp": 10, "trips": 1}
{"driver_id": 2, "event_timestamp": 10, "trips": 2}
{"driver_id": 1, "event_timestamp": 20, "trips": 3}"#,
    );
    let write = async |key: &str, batch: &RecordBatch| {
        store().write_dataset(&at.path(key), stream(batch), at.options()).await.unwrap()
    };
    write("one.parquet", &rows(&[(1, 10, 1), (2, 10, 2), (1, 20, 3)])).await;
    write("many/a.parquet", &rows(&[(1, 10, 1), (2, 10, 2)])).await;
    write("many/b.parquet", &rows(&[(1, 20, 3)])).await;
    put("many/_SUCCESS", b"");
    put("many/", b"");
    for key in ["one.parquet", "many", "many/", "many/*.parquet", "man?/[ab].parquet", "man*", "csv", "json/a.jsonl"] {
        let source = at.source(key);
        assert_eq!(latest_trips(&source).await, [(1, 3), (2, 2)], "{key}");
        assert_eq!(store().schema(&source).await.unwrap().fields().len(), 3, "{key}");
        let entity = rows(&[(2, 15, 0), (1, 15, 0), (3, 15, 0), (1, 25, 0)]).project(&[0, 1]).unwrap();
        let answer = trained(&source, EntitySource::Batches(entity.schema(), vec![entity])).await.unwrap();
        let trips: Vec<_> = answer.column(2).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(trips, [Some(2), Some(1), None, Some(3)], "{key}");
        let sql = "SELECT driver_id, event_timestamp FROM stats ORDER BY event_timestamp, driver_id".to_owned();
        let answer = trained(&source, EntitySource::Sql(sql)).await.unwrap();
        let trips: Vec<_> = answer.column(2).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(trips, [Some(1), Some(2), Some(3)], "{key}");
    }
    // Folders become columns, with the escapes of Hive.
    let without = rows(&[(1, 10, 1)]);
    write("hive/city=New%20York/a.parquet", &without).await;
    write("hive/city=Oslo/a.parquet", &without).await;
    let schema = store().schema(&at.source("hive")).await.unwrap();
    assert_eq!(schema.field(3).name(), "city");
    let sql = "SELECT driver_id, event_timestamp, city FROM stats ORDER BY city".to_owned();
    let answer = trained(&at.source("hive"), EntitySource::Sql(sql)).await.unwrap();
    assert_eq!(answer.column(2).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("New York"), Some("Oslo")]);
}

/// Forwards connections and counts the bytes of the answers.
fn counting(endpoint: &str) -> (String, Arc<AtomicUsize>) {
    let target = endpoint.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let counted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&counted);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&target).unwrap());
            let (mut to_server, mut from_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                drop(std::io::copy(&mut from_client, &mut to_server));
                drop(to_server.shutdown(std::net::Shutdown::Write));
            });
            let count = Arc::clone(&count);
            thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(read @ 1..) = server.read(&mut buffer) {
                    count.fetch_add(read, Ordering::Relaxed);
                    if client.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                drop(client.shutdown(std::net::Shutdown::Both));
            });
        }
    });
    (address, counted)
}

/// Of a large file, a request reads the row groups and columns it needs.
async fn only_what_is_needed_is_read(at: &Place) {
    let n_rows = 2_200_000i64;
    let numbers = Int64Array::from_iter_values(0..n_rows);
    let batch = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from_iter_values((0..n_rows).map(|row| row % 1000))) as ArrayRef),
        ("event_timestamp", Arc::new(TimestampMicrosecondArray::from_iter_values((0..n_rows).map(|row| row * 1000)))),
        ("trips", Arc::new(numbers)),
        // Does not compress, and nobody asks for it.
        ("ballast", Arc::new(Float64Array::from_iter_values((0..n_rows).map(|row| (row as f64).sin())))),
    ])
    .unwrap();
    let written = store().write_dataset(&at.path("large.parquet"), stream(&batch), at.options()).await.unwrap();
    assert_eq!(written.len(), 1);
    let read = async |endpoint: &str| {
        let mut source = at.source("large.parquet");
        if let DataSourceOptions::File { s3_endpoint_override, .. } = &mut source.options {
            endpoint.clone_into(s3_endpoint_override);
        }
        let entity = rows(&[(7, 2000, 0), (3, 1999, 0)]).project(&[0, 1]).unwrap();
        let mut view = FeatureView::clone(&view(&source));
        view.ttl = Some(chrono::TimeDelta::seconds(10));
        let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
        contents.put(RegistryObject::FeatureView(Arc::new(view)));
        let references = FeatureSelection::References(vec!["driver_stats:trips".to_owned()]);
        let request = HistoricalRequest {
            plan: Arc::new(RetrievalPlan::resolve(&contents, &references, false).unwrap()),
            entity: EntitySource::Batches(entity.schema(), vec![entity]),
            tables: Vec::new(),
            filter_by_created_timestamp: false,
            as_of: None,
        };
        let answer = collected(store().historical(request).await.unwrap().batches).await;
        answer.column(2).as_primitive::<Int64Type>().values().to_vec()
    };
    let (endpoint, counted) = counting(&at.endpoint);
    // The last rows of the two keys at 2000 and 1999 seconds.
    assert_eq!(read(&endpoint).await, [1_999_007, 1_998_003]);
    let size = n_rows as usize * 8;
    let counted = counted.load(Ordering::Relaxed);
    assert!(counted < size / 2, "{counted} bytes were read of more than {size}");
}

async fn rows_are_added_and_kept(at: &Place) {
    let batch = rows(&[(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (5, 5, 5)]);
    let parts = WriteOptions { rows_per_file: 2, ..at.options() };
    let written = store().write_dataset(&at.path("sets/b"), stream(&batch), parts).await.unwrap();
    assert_eq!(written.len(), 3);
    assert!(written[0].to_string_lossy().starts_with(&at.path("sets/b/part-")), "{written:?}");
    store().write_dataset(&at.path("sets/a.parquet"), stream(&batch), at.options()).await.unwrap();
    for key in ["sets/a.parquet", "sets/b"] {
        assert_eq!(latest_trips(&at.source(key)).await, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)], "{key}");
        let error = store().write_dataset(&at.path(key), stream(&batch), at.options()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::SavedDatasetLocationExists);
        let overwrite = WriteOptions { overwrite: true, ..at.options() };
        store().write_dataset(&at.path(key), stream(&batch.slice(0, 1)), overwrite).await.unwrap();
        assert_eq!(latest_trips(&at.source(key)).await, [(1, 1)], "{key}");
    }

    // Writers at the same time do not know of each other, and nothing is lost.
    let source = at.source("sets/b");
    let writers = (1..=8i64).map(|number| {
        let source = source.clone();
        tokio::spawn(async move { store().append(&source, rows(&[(100 + number, 2, number)])).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(writer.await.unwrap().unwrap(), 1);
    }
    assert_eq!(latest_trips(&source).await.len(), 9);
    store().append(&source, rows(&[(1, 1, 9)])).await.unwrap();
    assert_eq!(latest_trips(&source).await[0], (1, 9), "a correction of the same time wins");
    if at.server.is_none() {
        return;
    }
    // A single object is replaced; who comes second begins again.
    let source = at.source("sets/a.parquet");
    let writers = (1..=6i64).map(|number| {
        let source = source.clone();
        tokio::spawn(async move { store().append(&source, rows(&[(100 + number, 2, number)])).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(writer.await.unwrap().unwrap(), 1);
    }
    assert_eq!(latest_trips(&source).await.len(), 7);
}

async fn what_fails_leaves_nothing(at: &Place) {
    // Large enough for an upload in parts.
    let n_rows = 3_000_000;
    let large = RecordBatch::try_from_iter([(
        "ballast",
        Arc::new(Float64Array::from_iter_values((0..n_rows).map(|row| f64::from(row).sin()))) as ArrayRef,
    )])
    .unwrap();
    for key in ["failed/one.parquet", "failed/many"] {
        let failing = [Ok(large.clone()), Err(feast_core::Error::invalid_request("no more"))];
        let failing = BatchStream::new(large.schema(), futures::stream::iter(failing));
        let parts = WriteOptions { rows_per_file: 1_000_000, ..at.options() };
        let error = store().write_dataset(&at.path(key), failing, parts).await.unwrap_err();
        assert_eq!(error.message(), "no more");
    }
    let error = store().schema(&at.source("failed")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FileNotFound, "{error}");
    store().write_dataset(&at.path("whole.parquet"), stream(&large), at.options()).await.unwrap();
    assert_eq!(store().schema(&at.source("whole.parquet")).await.unwrap().fields().len(), 1);
}

async fn a_delta_table_is_read(at: &Place) {
    let put = |key: &str, body: &str| {
        let mut connection = TcpStream::connect(at.endpoint.trim_start_matches("http://")).unwrap();
        let length = body.len();
        write!(connection, "PUT /features/{key} HTTP/1.1\r\nhost: g\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        BufReader::new(connection).read_line(&mut answer).unwrap();
        assert!(answer.contains("200"), "{answer}");
    };
    let field = |name: &str, data_type: &str| serde_json::json!({"name": name, "type": data_type, "nullable": true, "metadata": {}});
    let fields = [field("driver_id", "long"), field("event_timestamp", "timestamp"), field("trips", "long")];
    let schema = serde_json::json!({"type": "struct", "fields": fields}).to_string();
    let mut log = vec![
        serde_json::json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        serde_json::json!({"metaData": {"id": "x", "format": {"provider": "parquet", "options": {}},
            "schemaString": schema, "partitionColumns": [], "configuration": {}}}),
    ];
    for (version, added) in [rows(&[(1, 10, 1), (2, 10, 2)]), rows(&[(1, 20, 3)])].iter().enumerate() {
        let name = format!("{version}.parquet");
        store().write_dataset(&at.path(&format!("lake/{name}")), stream(added), at.options()).await.unwrap();
        let local = tempfile::tempdir().unwrap();
        let copy = local.path().join(&name).display().to_string();
        store().write_dataset(&copy, stream(added), WriteOptions::default()).await.unwrap();
        let size = std::fs::metadata(copy).unwrap().len();
        log.push(serde_json::json!({"add": {"path": name, "partitionValues": {}, "size": size,
            "modificationTime": version, "dataChange": true}}));
        let lines: String = log.drain(..).map(|action| format!("{action}\n")).collect();
        put(&format!("lake/_delta_log/{version:020}.json"), &lines);
    }
    // What is beside the table in the bucket is not of it.
    store().write_dataset(&at.path("lake/9.parquet"), stream(&rows(&[(9, 9, 9)])), at.options()).await.unwrap();
    assert_eq!(latest_trips(&at.source("lake")).await, [(1, 3), (2, 2)]);
    assert_eq!(latest_trips(&at.source("lake@v0")).await, [(1, 1), (2, 2)]);
    let error = store().schema(&at.source("lake@v7")).await.unwrap_err();
    assert!(error.message().contains("has no version 7; its newest is 1"), "{error}");
}

async fn failures_tell_no_secrets(at: &Place) {
    let nowhere = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let refusing = serve(|_| ("403 Forbidden", Vec::new(), Vec::new()));
    // What some say about a request has the names of keys in it.
    let strange = serve(|request| match request.method.as_str() {
        "HEAD" => ("404 Not Found", Vec::new(), Vec::new()),
        _ => ("400 Bad Request", format!("<Error>InvalidAccessKeyId {KEY_ID}</Error>").into_bytes(), Vec::new()),
    });
    for (endpoint, code) in [
        (at.endpoint.clone(), ErrorCode::FileNotFound),
        (nowhere, ErrorCode::Unavailable),
        (refusing, ErrorCode::PermissionDenied),
        (strange, ErrorCode::PermissionDenied),
    ] {
        let source = Place { endpoint, scheme: "s3", server: None }.source("none/rows.parquet");
        let error = store().schema(&source).await.unwrap_err();
        let text = format!("{error} {error:?} {:?}", error.hint());
        assert_eq!(error.code(), code, "{text}");
        assert!(!text.contains(SECRET) && !text.contains(KEY_ID), "{text}");
    }
    let error = store().schema(&DataSource::file("s", "s3:///key", "t")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidDefinition);
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

type Answer = (&'static str, Vec<u8>, Vec<(&'static str, String)>);

fn serve(answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for client in listener.incoming() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut client = client.unwrap();
                let mut reader = BufReader::new(client.try_clone().unwrap());
                while let Some(request) = read_request(&mut reader) {
                    let is_head = request.method == "HEAD";
                    let (status, body, headers) = answer(request);
                    let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
                    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
                    head.push_str("\r\n");
                    let body = if is_head { &[] } else { body.as_slice() };
                    if client.write_all(head.as_bytes()).and_then(|()| client.write_all(body)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path: decoded(path), query: query.to_owned(), headers, body })
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| {
        let (code, rest) = part.split_at(2);
        text + &char::from(u8::from_str_radix(code, 16).unwrap()).to_string() + rest
    })
}

/// The calls of Google's XML interface that reading, writing, listing and deleting need.
fn fake_google() -> String {
    #[derive(Default)]
    struct Objects {
        whole: BTreeMap<String, Vec<u8>>,
        parts: BTreeMap<(String, usize), Vec<u8>>,
    }
    let objects: Mutex<Objects> = Mutex::default();
    serve(move |request| {
        let mut objects = objects.lock().unwrap();
        let key = request.path.trim_start_matches("/features").trim_start_matches('/').to_owned();
        let pairs = || request.query.split('&').filter_map(|pair| pair.split_once('='));
        let query = |name: &str| pairs().find(|(known, _)| *known == name).map(|(_, value)| decoded(value));
        let e_tag = |bytes: &[u8]| {
            ("etag", format!("\"{}-{}\"", bytes.len(), bytes.iter().map(|b| *b as usize).sum::<usize>()))
        };
        let modified = ("last-modified", "Tue, 24 Nov 2026 10:00:00 GMT".to_owned());
        match request.method.as_str() {
            "GET" if request.query.contains("list-type=2") => {
                let (prefix, after) = (query("prefix").unwrap_or_default(), query("start-after").unwrap_or_default());
                let found = objects.whole.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).map(
                    |(key, bytes)| {
                        format!(
                            "<Contents><Key>{key}</Key><LastModified>2026-11-24T10:00:00.000Z</LastModified>\
                         <ETag>{}</ETag><Size>{}</Size></Contents>",
                            e_tag(bytes).1.replace('"', "&quot;"),
                            bytes.len()
                        )
                    },
                );
                let list = format!("<ListBucketResult>{}</ListBucketResult>", found.collect::<String>());
                ("200 OK", list.into_bytes(), Vec::new())
            }
            "POST" if query("uploadId").is_none() => {
                let id = format!(
                    "<InitiateMultipartUploadResult><UploadId>{}</UploadId></InitiateMultipartUploadResult>",
                    objects.parts.len()
                );
                ("200 OK", id.into_bytes(), Vec::new())
            }
            "POST" => {
                let bytes = objects.parts.range((key.clone(), 0)..).take_while(|((of, _), _)| *of == key);
                let bytes: Vec<u8> = bytes.flat_map(|(_, bytes)| bytes.clone()).collect();
                objects.parts.retain(|(of, _), _| *of != key);
                let tag = e_tag(&bytes);
                let body = format!(
                    "<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>",
                    tag.1.replace('"', "&quot;")
                );
                objects.whole.insert(key, bytes);
                ("200 OK", body.into_bytes(), vec![tag])
            }
            "PUT" => {
                let tag = e_tag(&request.body);
                match query("partNumber") {
                    Some(part) => drop(objects.parts.insert((key, part.parse().unwrap()), request.body)),
                    None => drop(objects.whole.insert(key, request.body)),
                }
                ("200 OK", Vec::new(), vec![tag])
            }
            "DELETE" => {
                match query("uploadId") {
                    Some(_) => objects.parts.retain(|(of, _), _| *of != key),
                    None => drop(objects.whole.remove(&key)),
                }
                ("204 No Content", Vec::new(), Vec::new())
            }
            _ => match objects.whole.get(&key) {
                None => ("404 Not Found", Vec::new(), Vec::new()),
                Some(bytes) => {
                    let range = request.headers.get("range").map(|range| {
                        let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                        first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1
                    });
                    let mut headers = vec![e_tag(bytes), modified];
                    match range {
                        None => ("200 OK", bytes.clone(), headers),
                        Some(range) => {
                            let of = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
                            headers.push(("content-range", of));
                            ("206 Partial Content", bytes[range].to_vec(), headers)
                        }
                    }
                }
            },
        }
    })
}
