//! Sources, added rows, kept datasets, queries and ranges, on real files.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::pretty::pretty_format_batches;
use chrono::{DateTime, TimeDelta};
use feast_core::{
    BatchFeatures, DataSource, DataSourceOptions, ErrorCode, FeatureSelection, FeatureView, FeatureViewKind, Field,
    LoggingDestination, Project, ProjectContents, RegistryObject, RetrievalPlan, Timestamp, ValueType,
};
use feast_offline::{BatchStream, EntitySource, HistoricalRequest, LatestRequest, OfflineStore, WriteOptions};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

/// Rows `(driver_id, event time in seconds, trips)`.
fn rows(rows: &[(i64, i64, i64)]) -> RecordBatch {
    let column = |pick: fn(&(i64, i64, i64)) -> i64| Int64Array::from_iter_values(rows.iter().map(pick));
    let times = TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.1 * 1_000_000_000));
    RecordBatch::try_from_iter([
        ("driver_id", Arc::new(column(|row| row.0)) as ArrayRef),
        ("event_timestamp", Arc::new(times)),
        ("trips", Arc::new(column(|row| row.2))),
    ])
    .unwrap()
}

fn write_parquet(path: &Path, batch: &RecordBatch) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn store() -> (TempDir, OfflineStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = OfflineStore::connect(&serde_json::json!({ "type": "file" }), folder.path()).unwrap();
    (folder, store)
}

fn source(path: &str) -> DataSource {
    DataSource::file("stats", path, "event_timestamp")
}

fn view(source: &DataSource, features: &[(&str, ValueType)]) -> Arc<FeatureView> {
    let batch = BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
    let mut view = FeatureView::new("driver_stats", FeatureViewKind::Batch(batch));
    view.entities = vec!["driver".to_owned()];
    view.entity_columns = vec![Field::new("driver_id", ValueType::Int64)];
    view.features = features.iter().map(|(name, value_type)| Field::new(*name, *value_type)).collect();
    Arc::new(view)
}

fn plan(views: &[Arc<FeatureView>], references: &[&str]) -> Arc<RetrievalPlan> {
    let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
    for view in views {
        contents.put(RegistryObject::FeatureView(Arc::clone(view)));
    }
    let references = references.iter().map(|reference| (*reference).to_owned()).collect();
    Arc::new(RetrievalPlan::resolve(&contents, &FeatureSelection::References(references), false).unwrap())
}

fn at(seconds: i64) -> Timestamp {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

async fn collected(stream: BatchStream) -> RecordBatch {
    let schema = Arc::clone(stream.schema());
    concat_batches(&schema, &stream.collect().await.unwrap()).unwrap()
}

/// The latest `(driver_id, trips)` of each key, by key.
async fn latest_trips(store: &OfflineStore, source: &DataSource) -> Vec<(i64, i64)> {
    let view = view(source, &[("trips", ValueType::Int64)]);
    let request = LatestRequest { view, start: at(0), end: at(1_000_000) };
    let batch = collected(store.latest(request).await.unwrap()).await;
    let column = |index: usize| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
    let mut pairs: Vec<(i64, i64)> = column(0).into_iter().zip(column(1)).collect();
    pairs.sort_unstable();
    pairs
}

async fn historical(
    store: &OfflineStore,
    plan: Arc<RetrievalPlan>,
    entity: EntitySource,
    tables: Vec<Arc<DataSource>>,
) -> feast_core::Result<RecordBatch> {
    let request = HistoricalRequest { plan, entity, tables, filter_by_created_timestamp: false, as_of: None };
    Ok(collected(store.historical(request).await?.batches).await)
}

fn trips(batch: &RecordBatch) -> Vec<Option<i64>> {
    batch.column_by_name("trips").unwrap().as_primitive::<Int64Type>().iter().collect()
}

#[tokio::test]
async fn one_file_a_url_a_directory_and_a_glob_hold_the_same_rows() {
    let (folder, store) = store();
    write_parquet(&folder.path().join("one.parquet"), &rows(&[(1, 10, 1), (2, 10, 2), (1, 20, 3)]));
    write_parquet(&folder.path().join("many/a.parquet"), &rows(&[(1, 10, 1), (2, 10, 2)]));
    write_parquet(&folder.path().join("many/b.parquet"), &rows(&[(1, 20, 3)]));
    fs::write(folder.path().join("many/_SUCCESS"), "").unwrap();
    let url = url::Url::from_file_path(folder.path().join("one.parquet")).unwrap();
    for path in ["one.parquet", url.as_str(), "many", "many/*.parquet", "man?/[ab].parquet"] {
        assert_eq!(latest_trips(&store, &source(path)).await, [(1, 3), (2, 2)], "{path}");
        let schema = store.schema(&source(path)).await.unwrap();
        assert_eq!(schema.fields().len(), 3, "{path}");
    }
    let error = store.schema(&source("none/*.parquet")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FileNotFound);
    assert!(error.to_string().contains("`none/*.parquet`") && error.to_string().contains("feature repository"));
    fs::create_dir(folder.path().join("nameless")).unwrap();
    fs::copy(folder.path().join("one.parquet"), folder.path().join("nameless/rows")).unwrap();
    assert_eq!(store.schema(&source("nameless")).await.unwrap_err().code(), ErrorCode::FileNotFound);
    assert_eq!(store.schema(&source("nameless/rows")).await.unwrap().fields().len(), 3);
}

#[cfg(unix)]
#[tokio::test]
async fn rows_go_where_a_link_leads() {
    let (folder, store) = store();
    let (target, link) = (folder.path().join("data/rows.parquet"), folder.path().join("link.parquet"));
    write_parquet(&target, &rows(&[(1, 10, 1)]));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    store.append(&source("link.parquet"), rows(&[(1, 20, 2)])).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(latest_trips(&store, &source("data/rows.parquet")).await, [(1, 2)]);
}

#[tokio::test]
async fn added_rows_win_over_equal_ones_whatever_the_files_are_called() {
    let (folder, store) = store();
    for name in ["a.parquet", "rows-9.parquet", "z.parquet", "zone/a.parquet"] {
        write_parquet(&folder.path().join("many").join(name), &rows(&[(1, 10, 1)]));
    }
    for trips in 2..5 {
        store.append(&source("many"), rows(&[(1, 10, trips)])).await.unwrap();
        assert_eq!(latest_trips(&store, &source("many")).await, [(1, trips)]);
    }
}

#[tokio::test]
async fn hive_partitions_are_columns() {
    let (folder, store) = store();
    let part = |day: &str, batch: &RecordBatch| {
        write_parquet(&folder.path().join(format!("stats/day={day}/part.parquet")), batch);
    };
    part("2024-01-01", &rows(&[(1, 10, 1)]));
    part("2024-01-02", &rows(&[(1, 20, 2)]));
    let source = source("stats");
    let schema = store.schema(&source).await.unwrap();
    assert_eq!(schema.field_with_name("day").unwrap().data_type(), &DataType::Date32);
    let plan = plan(
        &[view(&source, &[("day", ValueType::String), ("trips", ValueType::Int64)])],
        &["driver_stats:day", "driver_stats:trips"],
    );
    let entity = rows(&[(1, 15, 0), (1, 25, 0)]).project(&[0, 1]).unwrap();
    let answer = EntitySource::Batches(entity.schema(), vec![entity]);
    let answer = historical(&store, plan, answer, Vec::new()).await.unwrap();
    assert_eq!(answer.column(2).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["2024-01-01", "2024-01-02"]);

    // A batch with rows of two days goes into the folders of both, one of them new.
    let more = rows(&[(1, 30, 3), (2, 30, 4)]);
    let mut columns = more.columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["2024-01-02", "2024-01-03"])));
    let names = ["driver_id", "event_timestamp", "trips", "day"];
    let more = RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap();
    assert_eq!(store.append(&source, more).await.unwrap(), 2);
    assert_eq!(latest_trips(&store, &source).await, [(1, 3), (2, 4)]);
    assert_eq!(fs::read_dir(folder.path().join("stats/day=2024-01-02")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(folder.path().join("stats/day=2024-01-03")).unwrap().count(), 1);
}

#[tokio::test]
async fn numbers_that_come_with_a_dictionary_are_numbers() {
    let (folder, store) = store();
    let times = TimestampMicrosecondArray::from(vec![10_000_000, 20_000_000, 30_000_000]);
    let wide = DictionaryArray::new(Int8Array::from(vec![1, 0, 1]), Arc::new(Int64Array::from(vec![100, 200])));
    let narrow = DictionaryArray::new(Int32Array::from(vec![0, 1, 1]), Arc::new(Float32Array::from(vec![1.5, 2.5])));
    let batch = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ("event_timestamp", Arc::new(times)),
        ("wide", Arc::new(wide)),
        ("narrow", Arc::new(narrow)),
    ]);
    write_parquet(&folder.path().join("rows.parquet"), &batch.unwrap());
    let source = source("rows.parquet");
    let plan = plan(
        &[view(&source, &[("wide", ValueType::Int64), ("narrow", ValueType::Float)])],
        &["driver_stats:wide", "driver_stats:narrow"],
    );
    let entity = rows(&[(3, 40, 0), (2, 40, 0), (1, 40, 0)]).project(&[0, 1]).unwrap();
    let entity = EntitySource::Batches(entity.schema(), vec![entity]);
    let found = historical(&store, plan, entity, Vec::new()).await.unwrap();
    let column = |name: &str| found.column_by_name(name).unwrap();
    assert_eq!(column("wide").as_primitive::<Int64Type>().values(), &[200, 100, 200]);
    assert_eq!(column("narrow").as_primitive::<Float32Type>().values(), &[2.5, 2.5, 1.5]);
}

#[tokio::test]
async fn csv_is_read_plain_and_compressed() {
    let (folder, store) = store();
    let text =
        "driver_id,event_timestamp,trips\n1,1970-01-01T00:00:10Z,1\n2,1970-01-01 00:00:10,2\n1,1970-01-01T00:00:20,3\n";
    fs::write(folder.path().join("a.csv"), text).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(
        File::create(folder.path().join("b.csv.gz")).unwrap(),
        flate2::Compression::fast(),
    );
    std::io::Write::write_all(&mut zipped, text.as_bytes()).unwrap();
    zipped.finish().unwrap();
    for path in ["a.csv", "b.csv.gz"] {
        assert_eq!(latest_trips(&store, &source(path)).await, [(1, 3), (2, 2)], "{path}");
    }
    let error = store.append(&source("a.csv"), rows(&[(1, 1, 1)])).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
}

#[tokio::test]
async fn numbers_in_csv_that_begin_with_zeros_stay_what_they_are() {
    let (folder, store) = store();
    let text = "driver_id,event_timestamp,zip,trips,share,version,block,rate\n\
                1,1970-01-01T00:00:10Z,10115,05,0.5,1.10,1e3,1e3\n\
                2,1970-01-01T00:00:10Z,01067,12,-0.25,2.0,2e5,2.5\n";
    fs::write(folder.path().join("a.csv"), text).unwrap();
    let source = source("a.csv");
    let schema = store.schema(&source).await.unwrap();
    let types: Vec<&DataType> = schema.fields().iter().skip(2).map(|field| field.data_type()).collect();
    let (text, number) = (&DataType::Utf8, &DataType::Float64);
    assert_eq!(types, [text, text, number, number, text, text]);
    let declared = [
        ("zip", ValueType::String),
        ("trips", ValueType::Int64),
        ("share", ValueType::Double),
        ("version", ValueType::String),
        ("block", ValueType::String),
        ("rate", ValueType::Double),
    ];
    let references = declared.map(|(name, _)| format!("driver_stats:{name}"));
    let plan = plan(&[view(&source, &declared)], &references.each_ref().map(String::as_str));
    let entity = rows(&[(1, 40, 0), (2, 40, 0)]).project(&[0, 1]).unwrap();
    let entity = EntitySource::Batches(entity.schema(), vec![entity]);
    let found = historical(&store, plan, entity, Vec::new()).await.unwrap();
    let column = |name: &str| found.column_by_name(name).unwrap();
    assert_eq!(column("zip").as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["10115", "01067"]);
    assert_eq!(column("trips").as_primitive::<Int64Type>().values(), &[5, 12]);
    assert_eq!(column("share").as_primitive::<Float64Type>().values(), &[0.5, -0.25]);
    assert_eq!(column("version").as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1.10", "2.0"]);
    assert_eq!(column("block").as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1e3", "2e5"]);
    assert_eq!(column("rate").as_primitive::<Float64Type>().values(), &[1000.0, 2.5]);
}

#[tokio::test]
async fn numbers_of_partitions_that_begin_with_zeros_stay_what_they_are() {
    let (folder, store) = store();
    for (zip, driver) in [("01067", 1), ("10115", 2)] {
        write_parquet(&folder.path().join(format!("stats/zip={zip}/part.parquet")), &rows(&[(driver, 10, 5)]));
    }
    let source = source("stats");
    let schema = store.schema(&source).await.unwrap();
    assert_eq!(schema.field_with_name("zip").unwrap().data_type(), &DataType::Utf8);
    for (value_type, expected) in [(ValueType::String, ["01067", "10115"]), (ValueType::Int64, ["1067", "10115"])] {
        let plan = plan(&[view(&source, &[("zip", value_type)])], &["driver_stats:zip"]);
        let entity = rows(&[(1, 40, 0), (2, 40, 0)]).project(&[0, 1]).unwrap();
        let entity = EntitySource::Batches(entity.schema(), vec![entity]);
        let found = historical(&store, plan, entity, Vec::new()).await.unwrap();
        let zips = cast(found.column_by_name("zip").unwrap(), &DataType::Utf8).unwrap();
        assert_eq!(zips.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn json_lines_are_read_plain_and_compressed_with_times_of_any_unit() {
    let (folder, store) = store();
    fs::create_dir(folder.path().join("days")).unwrap();
    let texts = [
        // Text in ISO 8601; what a line lacks is null.
        (
            "a.json",
            r#"{"driver_id": 1, "event_timestamp": "1970-01-01T00:00:10Z", "trips": 1}
{"driver_id": 2, "event_timestamp": "1970-01-01 00:00:10", "trips": 2, "note": {"by": ["me"]}}

{"driver_id": 1, "event_timestamp": "1970-01-01T02:00:20+02:00", "trips": 3}
"#,
        ),
        // Seconds.
        (
            "b.ndjson",
            r#"{"driver_id": 1, "event_timestamp": 10, "trips": 1}
{"driver_id": 2, "event_timestamp": 10.5, "trips": 2}
{"trips": 3, "driver_id": 1, "event_timestamp": 20}"#,
        ),
        // Several files have one type per column.
        ("days/1.jsonl", "{\"driver_id\": 1, \"event_timestamp\": 10, \"trips\": 1}\n"),
        (
            "days/2.jsonl",
            "{\"driver_id\": 2, \"event_timestamp\": 10.25, \"trips\": 2}\n{\"driver_id\": 1, \"event_timestamp\": 20, \"trips\": 3}\n",
        ),
    ];
    for (name, text) in texts {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let file = File::create(folder.path().join("c.jsonl.gz")).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    std::io::Write::write_all(&mut zipped, texts[0].1.as_bytes()).unwrap();
    zipped.finish().unwrap();
    for path in ["a.json", "b.ndjson", "c.jsonl.gz", "days", "days/*.jsonl"] {
        assert_eq!(latest_trips(&store, &source(path)).await, [(1, 3), (2, 2)], "{path}");
    }

    // Larger numbers count smaller units.
    let of = |number: i64| format!("{{\"driver_id\": 1, \"event_timestamp\": {number}, \"trips\": 7}}\n");
    for (index, scale) in [1, 1000, 1_000_000, 1_000_000_000].into_iter().enumerate() {
        let name = format!("unit-{index}.jsonl");
        fs::write(folder.path().join(&name), of(1_700_000_000 * scale)).unwrap();
        let view = view(&source(&name), &[("trips", ValueType::Int64)]);
        let request = LatestRequest { view, start: at(1_700_000_000), end: at(1_700_000_000) };
        assert_eq!(collected(store.latest(request).await.unwrap()).await.num_rows(), 1, "{name}");
    }

    // Training data and queries over the same lines.
    let view = view(&source("b.ndjson"), &[("trips", ValueType::Int64)]);
    let sql = "SELECT driver_id, event_timestamp FROM stats ORDER BY event_timestamp, driver_id";
    let tables = vec![Arc::new(source("b.ndjson"))];
    let trained =
        historical(&store, plan(&[view], &["driver_stats:trips"]), EntitySource::Sql(sql.into()), tables).await;
    assert_eq!(trips(&trained.unwrap()), [Some(1), Some(2), Some(3)]);

    for (text, message) in [
        ("[\n{}\n]", "torn.jsonl` is not readable as JSON lines"),
        ("{\"driver_id\": 1", "torn.jsonl` is not readable as JSON lines"),
        ("", "torn.jsonl` is empty"),
    ] {
        fs::write(folder.path().join("torn.jsonl"), text).unwrap();
        let error = store.schema(&source("torn.jsonl")).await.unwrap_err();
        assert!(error.message().ends_with(message), "{error}");
    }
    let error = store.append(&source("a.json"), rows(&[(1, 1, 1)])).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
}

/// Times as old writers of Parquet kept them: 96 bits, which nothing writes any more.
#[tokio::test]
async fn files_with_old_times_can_be_extended() {
    use parquet::data_type::{Int64Type as Int64Column, Int96, Int96Type};
    let (folder, store) = store();
    let schema = "message m { optional int64 driver_id; optional int96 event_timestamp; optional int64 trips; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let file = File::create(folder.path().join("old.parquet")).unwrap();
    let mut writer = parquet::file::writer::SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut row_group = writer.next_row_group().unwrap();
    let mut time = Int96::new();
    // Ten seconds after midnight, in nanoseconds, of the Julian day on which 1970 begins.
    time.set_data(1_410_065_408, 2, 2_440_588);
    for column in 0..3 {
        let mut writer = row_group.next_column().unwrap().unwrap();
        match column {
            1 => writer.typed::<Int96Type>().write_batch(&[time], Some(&[1]), None).unwrap(),
            _ => writer.typed::<Int64Column>().write_batch(&[1], Some(&[1]), None).unwrap(),
        };
        writer.close().unwrap();
    }
    row_group.close().unwrap();
    writer.close().unwrap();
    assert_eq!(latest_trips(&store, &source("old.parquet")).await, [(1, 1)]);
    store.append(&source("old.parquet"), rows(&[(1, 20, 2), (2, 20, 3)])).await.unwrap();
    assert_eq!(latest_trips(&store, &source("old.parquet")).await, [(1, 2), (2, 3)]);
}

#[tokio::test]
async fn logs_grow_by_whole_batches() {
    let (folder, store) = store();
    let log = |path: &str, partition_by: &[&str]| LoggingDestination::File {
        path: path.to_owned(),
        s3_endpoint_override: String::new(),
        partition_by: partition_by.iter().map(|name| (*name).to_owned()).collect(),
    };
    for trips in 1..=20 {
        store.write_log(&log("log", &[]), rows(&[(1, trips, trips), (2, trips, trips)])).await.unwrap();
    }
    assert_eq!(latest_trips(&store, &source("log")).await, [(1, 20), (2, 20)]);
    assert_eq!(collected(store.read_dataset("log").await.unwrap()).await.num_rows(), 40);
    assert!(fs::read_dir(folder.path().join("log")).unwrap().count() < 10, "small files are merged");
    assert_eq!(store.write_log(&log("days", &["driver_id"]), rows(&[(1, 1, 5), (2, 1, 6)])).await.unwrap(), 2);
    assert!(folder.path().join("days/driver_id=1").is_dir() && folder.path().join("days/driver_id=2").is_dir());
    assert_eq!(latest_trips(&store, &source("days")).await, [(1, 5), (2, 6)]);
    let error = store.write_log(&log("days", &["day"]), rows(&[(1, 1, 5)])).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::MissingColumns);
    let elsewhere = LoggingDestination::BigQuery { table_ref: "t".to_owned() };
    let error = store.write_log(&elsewhere, rows(&[(1, 1, 5)])).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
}

#[tokio::test]
async fn a_new_file_fits_the_pattern_it_is_added_to() {
    let (folder, store) = store();
    write_parquet(&folder.path().join("a/day-1-x.parquet"), &rows(&[(1, 10, 1)]));
    write_parquet(&folder.path().join("a/other.parquet"), &rows(&[(1, 10, 9)]));
    for trips in 2..5 {
        store.append(&source("a/day-*-x.parquet"), rows(&[(1, 10, trips)])).await.unwrap();
        assert_eq!(latest_trips(&store, &source("a/day-*-x.parquet")).await, [(1, trips)], "the later row wins");
    }
    // Directories that a pattern names stand for all files in them.
    write_parquet(&folder.path().join("b/zz.parquet"), &rows(&[(1, 10, 1)]));
    store.append(&source("[ab]*"), rows(&[(2, 10, 5)])).await.unwrap();
    assert_eq!(latest_trips(&store, &source("b")).await, [(1, 1), (2, 5)]);
    let error = store.append(&source("a/other.parque?"), rows(&[(1, 10, 1)])).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert!(error.message().starts_with("no new file fits the pattern"), "{error}");
}

#[tokio::test]
async fn sources_that_are_not_readable_files_are_explained() {
    let (folder, store) = store();
    fs::write(folder.path().join("torn.parquet"), "PAR1 and nothing else").unwrap();
    let error = store.schema(&source("torn.parquet")).await.unwrap_err();
    assert!(error.message().ends_with("torn.parquet` is not a readable Parquet file"), "{error}");
    let error = store.schema(&source("hdfs://host/stats.parquet")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    let warehouse = DataSource { options: DataSourceOptions::BigQuery(Default::default()), ..source("") };
    let error = store.schema(&warehouse).await.unwrap_err();
    assert!(error.message().contains("`stats` is a bigquery source"), "{error}");
    write_parquet(&folder.path().join("good.parquet"), &rows(&[(1, 1, 1)]));
    let request =
        LatestRequest { view: view(&source("good.parquet"), &[("trip", ValueType::Int64)]), start: at(0), end: at(1) };
    let error = store.latest(request).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::MissingColumns);
    assert_eq!(error.message(), "data source `stats` has no column for `trip` of feature view `driver_stats`");
    assert_eq!(error.hint(), Some("did you mean `trips`?"));
}

#[tokio::test]
async fn the_latest_row_has_declared_types_and_both_times() {
    let (folder, store) = store();
    write_parquet(&folder.path().join("s.parquet"), &rows(&[(1, 10, 1), (1, 20, 2), (1, 30, 3)]));
    let view = view(&source("s.parquet"), &[("trips", ValueType::Float)]);
    let request = LatestRequest { view, start: at(10), end: at(20) };
    let batch = collected(store.latest(request).await.unwrap()).await;
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["driver_id", "trips", "__event_timestamp", "__created_timestamp"]);
    assert_eq!(batch.column(1).data_type(), &DataType::Float32);
    assert_eq!(batch.column(2).as_primitive::<TimestampMicrosecondType>().value(0), 20_000_000);
    assert!(batch.column(3).is_null(0));
    assert_eq!(batch.num_rows(), 1);
}

#[tokio::test]
async fn added_rows_must_have_the_columns_of_the_source() {
    let (folder, store) = store();
    write_parquet(&folder.path().join("s.parquet"), &rows(&[(1, 10, 1)]));
    let source = source("s.parquet");
    let wrong = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("city", Arc::new(StringArray::from(vec!["Oslo"]))),
    ])
    .unwrap();
    let error = store.append(&source, wrong).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::MissingColumns);
    assert_eq!(
        error.message(),
        "the rows do not have the columns of data source `stats`: missing `event_timestamp` and `trips`, unexpected `city`"
    );

    // Other order, other types: cast to those of the file, behind the rows there are.
    let more = RecordBatch::try_from_iter([
        ("trips", Arc::new(Float64Array::from(vec![2.0])) as ArrayRef),
        ("event_timestamp", Arc::new(TimestampMicrosecondArray::from(vec![10_000_000]).with_timezone("UTC"))),
        ("driver_id", Arc::new(Int64Array::from(vec![1]))),
    ])
    .unwrap();
    let before = store.schema(&source).await.unwrap();
    assert_eq!(store.append(&source, more).await.unwrap(), 1);
    assert_eq!(store.schema(&source).await.unwrap(), before);
    assert_eq!(latest_trips(&store, &source).await, [(1, 2)], "a correction of the same time wins");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_all_of_a_batch_or_nothing() {
    for path in ["s.parquet", "stats"] {
        let (folder, store) = store();
        let first = if path == "stats" { "stats/part-0.parquet" } else { path };
        write_parquet(&folder.path().join(first), &rows(&[(0, 1, 0); 100]));
        let source = source(path);
        let done = Arc::new(AtomicBool::new(false));
        let reader = {
            let (store, source, done) = (store.clone(), source.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let DataSourceOptions::File { uri, .. } = &source.options else { unreachable!() };
                    seen.push(collected(store.read_dataset(uri).await.unwrap()).await.num_rows());
                }
                seen
            })
        };
        // Writers at the same time take turns; none is lost.
        let writers = (1..=6).map(|number| {
            let (store, source) = (store.clone(), source.clone());
            tokio::spawn(async move { store.append(&source, rows(&vec![(number, 2, number); 100])).await })
        });
        for writer in writers.collect::<Vec<_>>() {
            assert_eq!(writer.await.unwrap().unwrap(), 100);
        }
        done.store(true, Ordering::Relaxed);
        let seen = reader.await.unwrap();
        assert!(seen.iter().all(|n_rows| n_rows % 100 == 0), "{path}: {seen:?}");
        assert_eq!(collected(store.read_dataset(path).await.unwrap()).await.num_rows(), 700);
    }
}

#[tokio::test]
async fn datasets_are_written_whole_and_read_back_in_order() {
    let (folder, store) = store();
    let batch = rows(&[(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4), (5, 5, 5)]);
    let stream = || BatchStream::from_batches(batch.schema(), vec![batch.slice(0, 3), batch.slice(3, 2)]);
    let written = store.write_dataset("sets/a.parquet", stream(), WriteOptions::default()).await.unwrap();
    assert_eq!(written, [folder.path().join("sets/a.parquet")]);
    let parts = WriteOptions { rows_per_file: 2, ..WriteOptions::default() };
    let written = store.write_dataset("sets/b", stream(), parts).await.unwrap();
    assert_eq!(written.len(), 3);
    for path in ["sets/a.parquet", "sets/b"] {
        assert_eq!(collected(store.read_dataset(path).await.unwrap()).await.columns(), batch.columns());
        let error = store.write_dataset(path, stream(), WriteOptions::default()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::SavedDatasetLocationExists);
        let overwrite = WriteOptions { overwrite: true, ..WriteOptions::default() };
        let one = BatchStream::from_batches(batch.schema(), vec![batch.slice(0, 1)]);
        store.write_dataset(path, one, overwrite).await.unwrap();
        assert_eq!(collected(store.read_dataset(path).await.unwrap()).await.num_rows(), 1);
    }
    fs::write(folder.path().join("sets/b/notes.txt"), "mine").unwrap();
    let overwrite = WriteOptions { overwrite: true, ..WriteOptions::default() };
    let error = store.write_dataset("sets/b", stream(), overwrite).await.unwrap_err();
    assert!(error.message().contains("`notes.txt`"), "{error}");

    // A stream that fails leaves nothing.
    let failing = futures::stream::iter([Ok(batch.clone()), Err(feast_core::Error::invalid_request("no more"))]);
    let failing = BatchStream::new(batch.schema(), failing);
    assert!(store.write_dataset("sets/c", failing, WriteOptions::default()).await.is_err());
    let empty = BatchStream::from_batches(batch.schema(), Vec::new());
    store.write_dataset("empty", empty, WriteOptions::default()).await.unwrap();
    assert_eq!(store.read_dataset("empty").await.unwrap().schema().fields().len(), 3);
    let mut left: Vec<_> = fs::read_dir(folder.path().join("sets")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.parquet", "b"]);
}

#[tokio::test]
async fn entity_rows_come_from_a_query_or_a_file() {
    let (folder, store) = store();
    write_parquet(&folder.path().join("s.parquet"), &rows(&[(1, 10, 1), (2, 10, 2), (1, 20, 3)]));
    fs::create_dir(folder.path().join("orders")).unwrap();
    fs::write(folder.path().join("orders/a.csv"), "driver_id,placed\n2,1970-01-01T00:00:12\n1,1970-01-01T00:00:15\n")
        .unwrap();
    let stats = source("s.parquet");
    let orders = DataSource::file("Shop.Orders", "orders", "placed");
    let plan = plan(&[view(&stats, &[("trips", ValueType::Int64)])], &["driver_stats:trips"]);
    let tables = vec![Arc::new(stats), Arc::new(orders)];
    for query in [
        "SELECT driver_id, placed AS event_timestamp FROM orders ORDER BY placed",
        "SELECT o.driver_id, o.placed FROM \"Shop.Orders\" o JOIN stats s USING (driver_id) WHERE s.trips < 3 ORDER BY 2",
    ] {
        let entity = EntitySource::Sql(query.to_owned());
        let answer = historical(&store, Arc::clone(&plan), entity, tables.clone()).await.unwrap();
        assert_eq!(trips(&answer), [Some(2), Some(1)], "{query}");
    }
    // What else lies in a directory is left alone, as when the source itself is read.
    fs::write(folder.path().join("orders/_SUCCESS"), "").unwrap();
    fs::write(folder.path().join("orders/.a.csv.tmp"), "half").unwrap();
    let entity = EntitySource::Sql("SELECT driver_id, placed FROM orders ORDER BY placed".to_owned());
    assert_eq!(trips(&historical(&store, Arc::clone(&plan), entity, tables.clone()).await.unwrap()).len(), 2);
    let answer = historical(&store, Arc::clone(&plan), EntitySource::File("orders".into()), Vec::new()).await.unwrap();
    assert_eq!(trips(&answer), [Some(2), Some(1)]);
    for (query, message) in [
        ("SELECT * FORM stats", "the entity query cannot be run"),
        ("SELECT * FROM ordrs", "the entity query names a table `ordrs`, which is not a data source"),
        ("SELECT nothing FROM stats", "the entity query cannot be run: Schema error: No field named nothing"),
        ("DROP TABLE stats", "the entity query cannot be run"),
        ("COPY stats TO 'x.parquet'", "the entity query cannot be run"),
    ] {
        let entity = EntitySource::Sql(query.to_owned());
        let error = historical(&store, Arc::clone(&plan), entity, tables.clone()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidRequest, "{query}");
        assert!(error.message().starts_with(message), "{query}: {error}");
    }
}

#[tokio::test]
async fn without_entity_rows_every_key_and_time_of_the_range_is_one() {
    let (folder, store) = store();
    write_parquet(
        &folder.path().join("s.parquet"),
        &rows(&[(1, 10, 1), (2, 10, 2), (1, 20, 3), (1, 20, 4), (1, 40, 5)]),
    );
    let mut view = view(&source("s.parquet"), &[("trips", ValueType::Int64)]);
    let plan_of = |view: &Arc<FeatureView>| plan(&[Arc::clone(view)], &["driver_stats:trips"]);
    let range = EntitySource::Range { start: Some(at(10)), end: Some(at(20)) };
    let answer = historical(&store, plan_of(&view), range, Vec::new()).await.unwrap();
    let expected = "\
+----------------------+-----------+-------+
| event_timestamp      | driver_id | trips |
+----------------------+-----------+-------+
| 1970-01-01T00:00:10Z | 1         | 1     |
| 1970-01-01T00:00:10Z | 2         | 2     |
| 1970-01-01T00:00:20Z | 1         | 4     |
+----------------------+-----------+-------+";
    assert_eq!(pretty_format_batches(&[answer]).unwrap().to_string(), expected);
    // The start defaults to the longest ttl before the end.
    Arc::make_mut(&mut view).ttl = Some(TimeDelta::seconds(10));
    let range = EntitySource::Range { start: None, end: Some(at(45)) };
    let answer = historical(&store, plan_of(&view), range, Vec::new()).await.unwrap();
    assert_eq!(trips(&answer), [Some(5)]);
    let range = EntitySource::Range { start: Some(at(2)), end: Some(at(1)) };
    assert!(historical(&store, plan_of(&view), range, Vec::new()).await.is_err());
}

#[tokio::test]
async fn entity_rows_that_arrive_in_many_batches_keep_their_order() {
    let (folder, store) = store();
    write_parquet(&folder.path().join("s.parquet"), &rows(&(0..1000).map(|n| (n, n, n)).collect::<Vec<_>>()));
    let plan = plan(&[view(&source("s.parquet"), &[("trips", ValueType::Int64)])], &["driver_stats:trips"]);
    let all = rows(&(0..150_000).map(|n| (n % 1000, 2000 + n, n)).collect::<Vec<_>>()).project(&[0, 1]).unwrap();
    let batches: Vec<RecordBatch> = (0..150).map(|part| all.slice(part * 1000, 1000)).collect();
    let entity = EntitySource::Stream(BatchStream::from_batches(all.schema(), batches));
    let request =
        HistoricalRequest { plan, entity, tables: Vec::new(), filter_by_created_timestamp: false, as_of: None };
    let stream = store.historical(request).await.unwrap();
    assert_eq!(stream.min_event_timestamp, Some(at(2000)));
    assert_eq!(stream.max_event_timestamp, Some(at(151_999)));
    assert_eq!((stream.entity_columns, stream.event_timestamp_column.as_str()), (2, "event_timestamp"));
    let answer = collected(stream.batches).await;
    assert_eq!(answer.columns()[..2], all.columns()[..]);
    assert_eq!(trips(&answer), (0..150_000).map(|n| Some(n % 1000)).collect::<Vec<_>>());
}

/// Many rows of many drivers in no order: `(driver_id, event time in seconds, trips)`.
fn many(n_rows: i64, n_drivers: i64, seed: u64) -> Vec<(i64, i64, i64)> {
    let mut state = seed;
    let mut random = move |below: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i64 % below
    };
    (0..n_rows).map(|row| (random(n_drivers), random(900_000), row)).collect()
}

#[tokio::test]
async fn a_small_memory_limit_takes_more_passes_and_gives_the_same_rows() {
    let (folder, unlimited) = store();
    let limited = unlimited.clone().with_memory_limit("1MiB").unwrap();
    for part in 0..3 {
        write_parquet(&folder.path().join(format!("stats/{part}.parquet")), &rows(&many(20_000, 5000, part)));
    }
    let source = source("stats");
    let view = view(&source, &[("trips", ValueType::Int64)]);
    let plan = plan(&[Arc::clone(&view)], &["driver_stats:trips"]);
    let entity = rows(&many(30_000, 6000, 7));
    let entity = entity.project(&[0, 1]).unwrap();
    write_parquet(&folder.path().join("entity.parquet"), &entity);
    let pieces = || -> Vec<RecordBatch> {
        (0..entity.num_rows()).step_by(1000).map(|start| entity.slice(start, 1000)).collect()
    };
    let tables = vec![Arc::new(DataSource::file("wanted", "entity.parquet", "event_timestamp"))];
    let ways: [fn(&RecordBatch, Vec<RecordBatch>) -> EntitySource; 5] = [
        |entity, pieces| EntitySource::Batches(entity.schema(), pieces),
        |entity, pieces| EntitySource::Stream(BatchStream::from_batches(entity.schema(), pieces)),
        |_, _| EntitySource::File("entity.parquet".into()),
        |_, _| EntitySource::Sql("SELECT driver_id, event_timestamp FROM wanted".to_owned()),
        |_, _| EntitySource::Range { start: Some(at(100_000)), end: Some(at(700_000)) },
    ];
    for (index, way) in ways.into_iter().enumerate() {
        let answer = async |store: &OfflineStore| {
            let entity = way(&entity, pieces());
            historical(store, Arc::clone(&plan), entity, tables.clone()).await.unwrap()
        };
        let expected = answer(&unlimited).await;
        assert!(expected.num_rows() > 10_000 && expected.column(2).null_count() < expected.num_rows());
        assert_eq!(answer(&limited).await, expected, "way {index}");
    }

    let request = LatestRequest { view, start: at(0), end: at(800_000) };
    let latest = async |store: &OfflineStore| {
        let stream = store.latest(request.clone()).await.unwrap();
        let expected = stream.expected_rows();
        let batch = collected(stream).await;
        let column = |index: usize| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
        let mut pairs: Vec<(i64, i64)> = column(0).into_iter().zip(column(1)).collect();
        pairs.sort_unstable();
        (pairs, expected.get())
    };
    let (expected, n_rows) = latest(&unlimited).await;
    assert!(expected.len() > 4900 && n_rows == Some(expected.len() as u64));
    // With several passes, nobody knows how many rows there will be.
    let limited = limited.with_memory_limit("256KiB").unwrap();
    assert_eq!(latest(&limited).await, (expected, None));
}

#[tokio::test]
async fn many_entity_rows_of_a_view_without_entities_fit_a_small_memory_limit() {
    let (folder, unlimited) = store();
    let limited = unlimited.clone().with_memory_limit("1MiB").unwrap();
    let features = many(200_000, 1, 3);
    write_parquet(&folder.path().join("stats.parquet"), &rows(&features));
    let source = source("stats.parquet");
    let mut view = Arc::unwrap_or_clone(view(&source, &[("trips", ValueType::Int64)]));
    (view.entities, view.entity_columns) = (Vec::new(), Vec::new());
    let plan = plan(&[Arc::new(view)], &["driver_stats:trips"]);
    let wanted = many(30_000, 1, 4);

    // The last row at or before, and of several the last of the file.
    let mut sorted: Vec<(i64, i64)> = features.iter().map(|(_, time, trips)| (*time, *trips)).collect();
    sorted.sort_unstable();
    let expected = wanted.iter().map(|(_, time, _)| {
        let n_before = sorted.partition_point(|(event, _)| event <= time);
        n_before.checked_sub(1).map(|last| sorted[last].1)
    });
    let expected: Vec<Option<i64>> = expected.collect();
    for store in [unlimited, limited] {
        let entity = rows(&wanted).project(&[0, 1]).unwrap();
        let entity = EntitySource::Batches(entity.schema(), vec![entity]);
        assert_eq!(trips(&historical(&store, Arc::clone(&plan), entity, Vec::new()).await.unwrap()), expected);
    }
}

#[tokio::test]
async fn a_request_explains_what_its_steps_took() {
    let (folder, store) = store();
    write_parquet(&folder.path().join("stats.parquet"), &rows(&many(1000, 10, 1)));
    let source = source("stats.parquet");
    let plan = plan(&[view(&source, &[("trips", ValueType::Int64)])], &["driver_stats:trips"]);
    let entity = rows(&[(1, 800_000, 0), (2, 800_000, 0), (11, 800_000, 0)]).project(&[0, 1]).unwrap();
    let entity = EntitySource::Batches(entity.schema(), vec![entity]);
    let request =
        HistoricalRequest { plan, entity, tables: Vec::new(), filter_by_created_timestamp: false, as_of: None };
    let stream = store.historical(request).await.unwrap();
    let explanation = stream.explanation;
    collected(stream.batches).await;
    let steps = explanation.steps();
    let told: Vec<_> = steps.iter().map(|step| (step.depth, step.name.as_str(), step.rows)).collect();
    let expected = [
        (0, "entity rows with their features", 3),
        (1, "`driver_stats`: 1 feature of the winning rows", 2),
        (2, "point-in-time join on driver_id, ttl none", 2),
        (3, "scan of `stats`: 1 of 1 row groups", 1000),
        (1, "entity rows sorted by key and time", 3),
    ];
    assert_eq!(told, expected);
    assert!(steps.iter().all(|step| step.bytes > 0));
    assert!(explanation.to_string().lines().count() == 6);
}

#[tokio::test]
async fn what_was_written_later_is_not_known_and_counted_as_a_leak() {
    let (folder, store) = store();
    let batch = rows(&[(1, 10, 1), (1, 20, 2), (2, 10, 3), (3, 10, 4)]);
    // The second row of driver 1 and the row of driver 2 were written at 100, that of driver 3 nobody knows when.
    let written = TimestampMicrosecondArray::from(
        vec![Some(10), Some(100), Some(100), None]
            .into_iter()
            .map(|at| at.map(|at: i64| at * 1_000_000))
            .collect::<Vec<_>>(),
    );
    let mut columns: Vec<(String, ArrayRef)> =
        batch.schema().fields().iter().map(|field| field.name().clone()).zip(batch.columns().iter().cloned()).collect();
    columns.push(("written".to_owned(), Arc::new(written)));
    write_parquet(&folder.path().join("stats.parquet"), &RecordBatch::try_from_iter(columns).unwrap());
    let mut source = source("stats.parquet");
    "written".clone_into(&mut source.created_timestamp_column);
    let plan = plan(&[view(&source, &[("trips", ValueType::Int64)])], &["driver_stats:trips"]);
    let entity = rows(&[(1, 30, 0), (2, 30, 0), (3, 30, 0), (1, 200, 0), (1, 15, 0)]).project(&[0, 1]).unwrap();
    let request = |known: bool, as_of: Option<i64>| HistoricalRequest {
        plan: Arc::clone(&plan),
        entity: EntitySource::Batches(entity.schema(), vec![entity.clone()]),
        tables: Vec::new(),
        filter_by_created_timestamp: known,
        as_of: as_of.map(at),
    };
    let answer = async |request| trips(&collected(store.historical(request).await.unwrap().batches).await);
    assert_eq!(answer(request(false, None)).await, [Some(2), Some(3), Some(4), Some(2), Some(1)]);
    assert_eq!(answer(request(true, None)).await, [Some(1), None, None, Some(2), Some(1)]);
    assert_eq!(answer(request(false, Some(99))).await, [Some(1), None, None, Some(1), Some(1)]);
    assert_eq!(answer(request(false, Some(100))).await, [Some(2), Some(3), None, Some(2), Some(1)]);
    let leaks = async |request| {
        let report = store.leaks(request).await.unwrap();
        assert_eq!((report.rows, report.features.len()), (5, 1));
        (report.features[0].changed, report.features[0].not_yet_known)
    };
    assert_eq!(leaks(request(false, None)).await, (3, 2));
    assert_eq!(leaks(request(false, Some(99))).await, (4, 2));
}

#[tokio::test]
async fn files_of_days_outside_are_not_read() {
    let (folder, store) = store();
    for day in 1..=9 {
        let batch = rows(&[(1, 0, day)]).project(&[0, 2]).unwrap();
        write_parquet(&folder.path().join(format!("stats/day=1970-01-{day:02}/rows.parquet")), &batch);
    }
    let source = DataSource::file("stats", "stats", "day");
    let mut view = FeatureView::clone(&view(&source, &[("trips", ValueType::Int64)]));
    view.ttl = Some(TimeDelta::days(2));
    let plan = plan(&[Arc::new(view)], &["driver_stats:trips"]);
    let entity = rows(&[(1, 4 * 86_400, 0)]).project(&[0, 1]).unwrap();
    let entity = EntitySource::Batches(entity.schema(), vec![entity]);
    let request =
        HistoricalRequest { plan, entity, tables: Vec::new(), filter_by_created_timestamp: false, as_of: None };
    let stream = store.historical(request).await.unwrap();
    assert!(stream.explanation.steps().iter().any(|step| step.name == "scan of `stats`: 3 of 9 row groups"));
    assert_eq!(trips(&collected(stream.batches).await), [Some(5)]);
}
