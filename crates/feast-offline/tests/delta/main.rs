//! Delta Lake tables as sources: written by the `deltalake` package, and by hand where it cannot write what others do.
//!
//! Runs without the test harness: the program starts itself again with credentials in the environment.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field as ArrowField, Float64Type, Int64Type, Schema};
use chrono::DateTime;
use feast_core::{
    BatchFeatures, DataSource, DataSourceOptions, ErrorCode, FeatureSelection, FeatureView, FeatureViewKind, Field,
    FileFormat, NewestValue, Project, ProjectContents, RegistryObject, RetrievalPlan, ValueType,
};
use feast_offline::{BatchStream, EntitySource, HistoricalRequest, LatestRequest, OfflineStore};
use feast_testing::services::s3::S3Server;
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};

const CREDENTIALS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "AKIAOFTHETESTS"), ("AWS_SECRET_ACCESS_KEY", "s3cret"), ("AWS_REGION", "eu-north-1")];

fn main() {
    if std::env::args().nth(1).as_deref() != Some("--with-credentials") {
        let program = std::env::current_exe().unwrap();
        let status = Command::new(program).arg("--with-credentials").envs(CREDENTIALS).status().unwrap();
        assert!(status.success());
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("stats");
    write(&[local.to_str().unwrap()]);
    runtime.block_on(versions_are_read(local.to_str().unwrap(), ""));
    println!("test versions_are_read on a disk ... ok");
    runtime.block_on(what_cannot_be_done_is_said(folder.path(), local.to_str().unwrap()));
    println!("test what_cannot_be_done_is_said ... ok");
    runtime.block_on(files_of_other_times_are_not_opened(&folder.path().join("skipped")));
    println!("test files_of_other_times_are_not_opened ... ok");
    for mapping in ["name", "id"] {
        runtime.block_on(deleted_rows_and_renamed_columns(&folder.path().join(mapping), mapping));
        println!("test deleted_rows_and_renamed_columns by {mapping} ... ok");
    }

    let server = S3Server::start();
    server.create_bucket("features");
    write(&["s3://features/stats", &server.endpoint()]);
    runtime.block_on(versions_are_read("s3://features/stats", &server.endpoint()));
    println!("test versions_are_read in a bucket ... ok");
    let none = source("s3://features/nothing", &server.endpoint());
    let error = runtime.block_on(store().schema(&none)).unwrap_err();
    assert!(error.message().contains("`s3://features/nothing` is not a Delta table"), "{error}");
}

/// Runs the script that writes the table.
fn write(arguments: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/delta/write.py");
    let output = Command::new("python3").arg(script).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`pip install -r scripts/requirements/dev.txt` brings deltalake: {said}");
}

fn store() -> OfflineStore {
    OfflineStore::connect(&serde_json::Value::Null, &std::env::temp_dir()).unwrap()
}

fn source(path: &str, endpoint: &str) -> DataSource {
    let mut source = DataSource::file("stats", path, "event_timestamp");
    if let DataSourceOptions::File { s3_endpoint_override, format, .. } = &mut source.options {
        endpoint.clone_into(s3_endpoint_override);
        *format = Some(FileFormat::Delta { checkpoint_location: String::new(), properties: Default::default() });
    }
    source
}

fn view(source: &DataSource) -> Arc<FeatureView> {
    let batch = BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
    let mut view = FeatureView::new("driver_stats", FeatureViewKind::Batch(batch));
    view.entities = vec!["driver".to_owned()];
    view.entity_columns = vec![Field::new("driver_id", ValueType::Int64)];
    view.features = vec![Field::new("trips", ValueType::Int64), Field::new("city", ValueType::String)];
    Arc::new(view)
}

async fn collected(stream: BatchStream) -> RecordBatch {
    let schema = Arc::clone(stream.schema());
    concat_batches(&schema, &stream.collect().await.unwrap()).unwrap()
}

/// Trips and city of each `(driver, time)`.
async fn trained(source: &DataSource, entity: EntitySource) -> Vec<(Option<i64>, Option<String>)> {
    let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
    contents.put(RegistryObject::FeatureView(view(source)));
    let references = ["driver_stats:trips", "driver_stats:city"].map(str::to_owned).to_vec();
    let request = HistoricalRequest {
        plan: Arc::new(RetrievalPlan::resolve(&contents, &FeatureSelection::References(references), false).unwrap()),
        entity,
        tables: vec![Arc::new(source.clone())],
        filter_by_created_timestamp: false,
        as_of: None,
    };
    let rows = collected(store().historical(request).await.unwrap().batches).await;
    let trips = rows.column_by_name("trips").unwrap().as_primitive::<Int64Type>().iter();
    let cities = rows.column_by_name("city").unwrap().as_string::<i32>().iter();
    trips.zip(cities).map(|(trips, city)| (trips, city.map(str::to_owned))).collect()
}

fn asked(rows: &[(i64, i64)]) -> EntitySource {
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1 * 1_000_000));
    let batch = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))) as ArrayRef),
        ("event_timestamp", Arc::new(times.with_timezone("UTC"))),
    ])
    .unwrap();
    EntitySource::Batches(batch.schema(), vec![batch])
}

async fn latest(source: &DataSource) -> Vec<(i64, i64)> {
    let instant = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
    let request = LatestRequest { view: view(source), start: instant(0), end: instant(1_000_000) };
    let rows = collected(store().latest(request).await.unwrap()).await;
    let column = |index: usize| rows.column(index).as_primitive::<Int64Type>().values().to_vec();
    let mut pairs: Vec<(i64, i64)> = column(0).into_iter().zip(column(1)).collect();
    pairs.sort_unstable();
    pairs
}

async fn versions_are_read(table: &str, endpoint: &str) {
    let (york, oslo) = (Some("New York".to_owned()), Some("Oslo".to_owned()));
    let at = |version: u64| source(&format!("{table}@v{version}"), endpoint);
    let entity = || asked(&[(1, 15), (1, 25), (2, 25), (3, 40)]);
    let none = (None, None);
    for (source, expected) in [
        (at(0), [(Some(1), york.clone()), (Some(1), york.clone()), (Some(2), None), none.clone()]),
        (at(1), [(Some(1), york.clone()), (Some(3), oslo.clone()), (Some(2), None), none.clone()]),
        (at(2), [(Some(1), york.clone()), (Some(3), oslo.clone()), (Some(102), None), none.clone()]),
        (at(3), [(Some(1), york.clone()), (Some(1), york.clone()), (Some(102), None), none]),
        (source(table, endpoint), [(Some(1), york.clone()), (Some(1), york), (Some(102), None), (Some(7), oslo)]),
    ] {
        assert_eq!(trained(&source, entity()).await, expected, "{:?}", source.options);
    }
    assert_eq!(latest(&at(2)).await, [(1, 3), (2, 102)]);
    assert_eq!(latest(&at(3)).await, [(1, 1), (2, 102)]);
    assert_eq!(latest(&source(table, endpoint)).await, [(1, 1), (2, 102), (3, 7)]);

    // A table is one also where the definition does not say so.
    let mut plain = source(table, endpoint);
    if let DataSourceOptions::File { format, .. } = &mut plain.options {
        *format = None;
    }
    assert_eq!(latest(&plain).await, [(1, 1), (2, 102), (3, 7)]);
    let names = |schema: &arrow::datatypes::SchemaRef| -> Vec<String> {
        schema.fields().iter().map(|field| field.name().clone()).collect()
    };
    let columns = ["driver_id", "event_timestamp", "trips", "city", "rating"];
    assert_eq!(names(&store().schema(&plain).await.unwrap()), columns);
    assert_eq!(names(&store().schema(&at(0)).await.unwrap()), columns[..4]);
    let newest = store().newest(&at(3), true).await.unwrap();
    assert_eq!(newest.time, NewestValue::of_micros(Some(10_000_000)));
    let sql = "SELECT driver_id, event_timestamp, rating FROM stats WHERE city = 'Oslo'".to_owned();
    assert_eq!(trained(&plain, EntitySource::Sql(sql)).await, [(Some(7), Some("Oslo".to_owned()))]);
    if endpoint.is_empty() {
        let read = store().read_dataset(&format!("{table}@v0")).await.unwrap();
        assert_eq!(collected(read).await.num_rows(), 2);
    }
    // Filled with nulls where files are older than a column.
    let request = "SELECT driver_id, event_timestamp, rating FROM stats ORDER BY driver_id".to_owned();
    assert_eq!(trained(&plain, EntitySource::Sql(request)).await.len(), 3);
}

async fn what_cannot_be_done_is_said(folder: &Path, table: &str) {
    let error = store().schema(&source(&format!("{table}@v9"), "")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FileNotFound);
    assert_eq!(error.message(), format!("the Delta table `{table}` has no version 9; its newest is 4"));
    let plain = folder.join("plain");
    fs::create_dir(&plain).unwrap();
    for path in [plain.display().to_string(), format!("{}@v3", plain.display())] {
        let error = store().schema(&source(&path, "")).await.unwrap_err();
        assert!(error.message().contains("is not a Delta table: it has no folder `_delta_log`"), "{error}");
    }
    let error = store().schema(&source("nowhere@v3", "")).await.unwrap_err();
    assert_eq!(error.message(), "there is no file at `nowhere@v3`");
    let rows = RecordBatch::new_empty(store().schema(&source(table, "")).await.unwrap());
    let error = store().append(&source(table, ""), rows).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert_eq!(error.message(), "data source `stats` is a Delta table, to which rows cannot be added here");
}

async fn files_of_other_times_are_not_opened(table: &Path) {
    write(&[table.to_str().unwrap()]);
    // Damages the file that was added by version 4, whose row is of second 30.
    let log = fs::read_to_string(table.join("_delta_log/00000000000000000004.json")).unwrap();
    let actions = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let added: Vec<String> = actions.filter_map(|action| Some(action["add"]["path"].as_str()?.to_owned())).collect();
    assert_eq!(added.len(), 1);
    fs::write(table.join(added[0].replace("%20", " ")), "not Parquet").unwrap();
    let now = source(table.to_str().unwrap(), "");
    let york = Some("New York".to_owned());
    assert_eq!(trained(&now, asked(&[(1, 25), (2, 29)])).await, [(Some(1), york), (Some(102), None)]);
    let instant = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
    for (end, is_read) in [(29, true), (30, false)] {
        let request = LatestRequest { view: view(&now), start: instant(0), end: instant(end) };
        assert_eq!(store().latest(request).await.is_ok(), is_read, "until {end}");
    }
}

/// A table as Spark writes it: columns have other names in the files, and a vector says which rows are deleted. Columns
/// are found by name, and the vector is in the log; or they are found by id, and the vector is in a file of its own.
async fn deleted_rows_and_renamed_columns(table: &Path, mapping: &str) {
    let by_id = mapping == "id";
    let n_rows = 6i64;
    let times = TimestampMicrosecondArray::from_iter_values((0..n_rows).map(|row| row * 10_000_000));
    // `trips` was dropped once and made again: the file still has the old column, under the new one's name.
    let columns: [(&str, ArrayRef); 4] = [
        ("trips", Arc::new(Int64Array::from_value(-1, n_rows as usize))),
        ("col-1", Arc::new(Int64Array::from_iter_values((0..n_rows).map(|row| row % 2)))),
        ("col-2", Arc::new(times.with_timezone("UTC"))),
        ("col-3", Arc::new(Int64Array::from_iter_values(0..n_rows))),
    ];
    let fields = columns.iter().zip([9, 1, 2, 3]).map(|((name, array), id)| {
        // Where columns have ids, their names mean nothing: here each has that of the next.
        let name = if by_id { format!("col-{}", id % 3 + 1) } else { (*name).to_owned() };
        let field = ArrowField::new(name, array.data_type().clone(), true);
        let ids = by_id.then(|| (PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string()));
        field.with_metadata(ids.into_iter().collect())
    });
    // Two columns of one name are none of this test.
    let skipped = usize::from(by_id);
    let fields: Vec<ArrowField> = fields.skip(skipped).collect();
    let arrays = columns.iter().skip(skipped).map(|(_, array)| Arc::clone(array)).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    fs::create_dir_all(table.join("_delta_log")).unwrap();
    let path = table.join("a b.parquet");
    let properties =
        parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(4)).build();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();

    let column = |name: &str, id: i64, data_type: &str| {
        serde_json::json!({"name": name, "type": data_type, "nullable": true, "metadata": {
            "delta.columnMapping.id": id, "delta.columnMapping.physicalName": format!("col-{id}")}})
    };
    let fields = [
        column("driver_id", 1, "long"),
        column("event_timestamp", 2, "timestamp"),
        column("trips", 3, "long"),
        column("city", 4, "string"),
    ];
    let schema = serde_json::json!({"type": "struct", "fields": fields}).to_string();
    let deletion = |rows: &[u16]| {
        let vector = deletion_vector(rows);
        let (kind, place, offset) = match by_id {
            false => ("i", z85(&vector), None),
            true => ("u", vector_file(table, &vector), Some(1)),
        };
        serde_json::json!({"storageType": kind, "pathOrInlineDv": place, "offset": offset,
            "sizeInBytes": vector.len(), "cardinality": rows.len()})
    };
    let add = |deletion: serde_json::Value| {
        serde_json::json!({"add": {"path": "a%20b.parquet", "partitionValues": {"col-4": "Oslo"},
            "size": fs::metadata(&path).unwrap().len(), "modificationTime": 1, "dataChange": true,
            "deletionVector": deletion}})
    };
    let first = [
        serde_json::json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": ["deletionVectors", "columnMapping"], "writerFeatures": ["deletionVectors", "columnMapping"]}}),
        serde_json::json!({"metaData": {"id": "x", "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
            "partitionColumns": ["city"], "configuration": {"delta.columnMapping.mode": mapping,
            "delta.columnMapping.maxColumnId": "4", "delta.enableDeletionVectors": "true"}}}),
        add(serde_json::Value::Null),
    ];
    let lines = |actions: &[serde_json::Value]| actions.iter().map(|action| format!("{action}\n")).collect::<String>();
    fs::write(table.join("_delta_log/00000000000000000000.json"), lines(&first)).unwrap();
    // Of the first row group the row 2 is deleted, of the second the row 5.
    let second = [
        serde_json::json!({"remove": {"path": "a%20b.parquet", "deletionTimestamp": 2, "dataChange": true}}),
        add(deletion(&[2, 5])),
    ];
    fs::write(table.join("_delta_log/00000000000000000001.json"), lines(&second)).unwrap();

    let oslo = Some("Oslo".to_owned());
    let table = table.to_str().unwrap();
    let entity = || asked(&[(0, 25), (0, 100), (1, 100)]);
    let all = [(Some(2), oslo.clone()), (Some(4), oslo.clone()), (Some(5), oslo.clone())];
    assert_eq!(trained(&source(&format!("{table}@v0"), ""), entity()).await, all);
    let left = [(Some(0), oslo.clone()), (Some(4), oslo.clone()), (Some(3), oslo)];
    let now = source(table, "");
    assert_eq!(trained(&now, entity()).await, left);
    assert_eq!(latest(&now).await, [(0, 4), (1, 3)]);
    // The greatest time of the file is that of a deleted row.
    let newest = store().newest(&now, false).await.unwrap();
    assert_eq!(newest.time, NewestValue::of_micros(Some(40_000_000)));
    let read = collected(store().read_dataset(table).await.unwrap()).await;
    assert_eq!(read.column_by_name("trips").unwrap().as_primitive::<Int64Type>().values(), &[0, 1, 3, 4]);
    assert!(read.column_by_name("city").unwrap().as_string_opt::<i32>().is_some());
    assert!(read.column_by_name("rating").and_then(|column| column.as_primitive_opt::<Float64Type>()).is_none());
}

/// A deletion vector: an array of a 64-bit roaring bitmap.
fn deletion_vector(rows: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(1_681_511_377u32.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    // One container of single values, without runs; its values begin at byte 16.
    bytes.extend(12346u32.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(0u16.to_le_bytes());
    bytes.extend((rows.len() as u16 - 1).to_le_bytes());
    bytes.extend(16u32.to_le_bytes());
    rows.iter().for_each(|row| bytes.extend(row.to_le_bytes()));
    bytes
}

/// Writes a vector as the only one of a file beside the data; returns how the log names that file.
fn vector_file(table: &Path, vector: &[u8]) -> String {
    let id: [u8; 16] = *b"sixteen bytes id";
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    // The version of the format; the length, the vector and its checksum.
    let mut bytes = vec![1u8];
    bytes.extend((vector.len() as u32).to_be_bytes());
    bytes.extend(vector);
    bytes.extend(crc32(vector).to_be_bytes());
    fs::write(table.join(format!("deletion_vector_{name}.bin")), bytes).unwrap();
    z85(&id)
}

fn crc32(bytes: &[u8]) -> u32 {
    let of_byte = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(sum & 1)))
    };
    !bytes.iter().fold(u32::MAX, of_byte)
}

fn z85(bytes: &[u8]) -> String {
    let alphabet = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    let of_chunk = |chunk: &[u8]| {
        let number = u32::from_be_bytes(chunk.try_into().unwrap());
        (0..5u32).rev().map(move |power| char::from(alphabet[(number / 85u32.pow(power) % 85) as usize]))
    };
    bytes.chunks(4).flat_map(of_chunk).collect()
}
