//! PostgreSQL as offline store, on a real server.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use chrono::{DateTime, TimeDelta};
use feast_core::{
    Aggregation, BatchFeatures, BatchFunctions, DataSource, DataSourceOptions, ErrorCode, FeatureSelection,
    FeatureView, FeatureViewKind, Field, NewestValue, Project, ProjectContents, RegistryObject, RetrievalPlan, Rows,
    Timestamp, Transformation, UserDefinedFunction, ValueType,
};
use feast_offline::{
    BatchStream, EntitySource, HistoricalRequest, HistoricalStream, LatestRequest, LocalEngine, NewestRead,
    OfflineStore, WriteOptions,
};
use feast_testing::services::postgres::{self, PostgresServer};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use serde_json::json;

fn server() -> &'static PostgresServer {
    PostgresServer::shared()
}

fn config(database: &str) -> serde_json::Value {
    json!({
        "type": "postgres", "host": server().host(), "port": server().port(), "database": database,
        "user": postgres::USER, "password": postgres::PASSWORD, "sslmode": "disable",
    })
}

/// A store on an empty database.
fn store() -> (OfflineStore, String) {
    let database = server().create_database();
    (OfflineStore::connect(&config(&database), Path::new("/")).unwrap(), database)
}

fn relation(table: &str, query: &str) -> DataSourceOptions {
    let configuration = json!({"name": "stats", "query": query, "table": table}).to_string();
    DataSourceOptions::Custom { configuration: configuration.into_bytes().into() }
}

fn source(table: &str, query: &str) -> DataSource {
    DataSource {
        name: "stats".to_owned(),
        timestamp_field: "event_timestamp".to_owned(),
        class_type: "feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source.PostgreSQLSource".into(),
        options: relation(table, query),
        ..DataSource::default()
    }
}

fn view(name: &str, source: &DataSource, keys: &[(&str, ValueType)], features: &[(&str, ValueType)]) -> FeatureView {
    let batch = BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
    let mut view = FeatureView::new(name, FeatureViewKind::Batch(batch));
    view.entities = keys.iter().map(|(key, _)| (*key).to_owned()).collect();
    view.entity_columns = keys.iter().map(|(key, value_type)| Field::new(*key, *value_type)).collect();
    view.features = features.iter().map(|(name, value_type)| Field::new(*name, *value_type)).collect();
    view
}

fn plan(views: Vec<FeatureView>, references: &[&str]) -> Arc<RetrievalPlan> {
    let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
    for view in views {
        contents.put(RegistryObject::FeatureView(Arc::new(view)));
    }
    let references = references.iter().map(|reference| (*reference).to_owned()).collect();
    Arc::new(RetrievalPlan::resolve(&contents, &FeatureSelection::References(references), true).unwrap())
}

async fn collected(stream: BatchStream) -> RecordBatch {
    let schema = Arc::clone(stream.schema());
    concat_batches(&schema, &stream.collect().await.unwrap()).unwrap()
}

fn request(
    plan: &Arc<RetrievalPlan>,
    entity: EntitySource,
    (known, as_of): (bool, Option<Timestamp>),
) -> HistoricalRequest {
    let plan = Arc::clone(plan);
    HistoricalRequest { plan, entity, tables: Vec::new(), filter_by_created_timestamp: known, as_of }
}

async fn start(
    store: &OfflineStore,
    plan: &Arc<RetrievalPlan>,
    entity: EntitySource,
    known: (bool, Option<Timestamp>),
) -> feast_core::Result<HistoricalStream> {
    store.historical(request(plan, entity, known)).await
}

async fn historical(store: &OfflineStore, plan: &Arc<RetrievalPlan>, entity: EntitySource) -> RecordBatch {
    collected(start(store, plan, entity, (false, None)).await.unwrap().batches).await
}

fn shown(batch: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string()
}

fn at(seconds: i64) -> Timestamp {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn seconds(times: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let times: TimestampMicrosecondArray = times.map(|time| time.map(|time| time * 1_000_000)).collect();
    Arc::new(times.with_timezone("UTC"))
}

/// The same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn sometimes<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(10) > 0).then(|| value(self))
    }
}

/// Writes rows as statements that insert them in their order.
fn insert(table: &str, rows: &RecordBatch) -> String {
    let options = FormatOptions::new();
    let mut statements = String::new();
    for row in 0..rows.num_rows() {
        let cells = rows.columns().iter().map(|array| match array.is_null(row) {
            true => "NULL".to_owned(),
            false => format!("'{}'", ArrayFormatter::try_new(array, &options).unwrap().value(row)),
        });
        write!(statements, "INSERT INTO {table} VALUES ({});", cells.collect::<Vec<_>>().join(", ")).unwrap();
    }
    statements
}

/// Random rows answer as they do in files, where a naive twin of the rule has judged them.
#[tokio::test(flavor = "multi_thread")]
async fn tables_answer_as_files_do() {
    let mut random = Random(7);
    let (folder, (store, database)) = (tempfile::tempdir().unwrap(), store());
    let mut leaked = 0;
    for round in 0..24 {
        let files = OfflineStore::connect(&serde_json::Value::Null, folder.path()).unwrap();
        let n_rows = random.below(if round % 2 == 0 { 12 } else { 200 }) as usize;
        let cities = ["a", "bb"];
        let mut column = |limit: u64| -> Vec<Option<i64>> {
            (0..n_rows).map(|_| random.sometimes(|random| random.below(limit) as i64)).collect()
        };
        let (ids, events, written) = (column(3), column(20), column(20));
        let city: StringArray = column(2).into_iter().map(|city| city.map(|city| cities[city as usize])).collect();
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(ids.iter().map(|id| id.map(|id| id as i32)).collect::<Int32Array>()) as ArrayRef, true),
            ("city", Arc::new(city), true),
            ("event_timestamp", seconds(events.into_iter()), true),
            ("written", seconds(written.into_iter()), true),
            ("position", Arc::new(Int64Array::from_iter_values(0..n_rows as i64)), true),
        ])
        .unwrap();
        let mut writer =
            ArrowWriter::try_new(File::create(folder.path().join("stats.parquet")).unwrap(), rows.schema(), None)
                .unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        // Times with and without zone, with and without an index.
        let zone = if round % 3 == 0 { "timestamp" } else { "timestamptz" };
        let mut statements = format!(
            "DROP TABLE IF EXISTS stats, asked; CREATE TABLE stats (id int4, city text, event_timestamp {zone}, written {zone}, position int8);"
        );
        statements += &insert("stats", &rows);
        if round % 4 < 2 {
            statements += "CREATE INDEX ON stats (city, id, event_timestamp);";
        }
        server().execute(&database, &statements);

        let n_entities = random.below(60) as usize + 1;
        let mut column = |limit: u64| -> Vec<Option<i64>> {
            (0..n_entities).map(|_| random.sometimes(|random| random.below(limit) as i64)).collect()
        };
        let (ids, times) = (column(4), column(24));
        let city: StringArray = column(2).into_iter().map(|city| city.map(|city| cities[city as usize])).collect();
        let entity = RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(ids)) as ArrayRef, true),
            ("city", Arc::new(city), true),
            ("event_timestamp", seconds(times.into_iter()), true),
        ])
        .unwrap();
        let ttl = (random.below(2) == 0).then(|| TimeDelta::seconds(random.below(6) as i64 + 1));
        let created = if random.below(2) == 0 { "written" } else { "" };
        let known = (random.below(2) == 0, (random.below(3) == 0).then(|| at(random.below(16) as i64)));
        let views = |source: &DataSource| {
            let mut source = source.clone();
            created.clone_into(&mut source.created_timestamp_column);
            let (id, city) = (("id", ValueType::Int64), ("city", ValueType::String));
            let features = [("position", ValueType::Int64)];
            let mut both = view("both", &source, &[id, city], &features);
            both.ttl = ttl;
            let mut none = view("none", &source, &[], &features);
            none.ttl = ttl;
            vec![both, view("id", &source, &[id], &features), none]
        };
        let references = ["both:position", "id:position", "none:position"];
        let in_files = views(&DataSource::file("stats", "stats.parquet", "event_timestamp"));
        let in_tables = views(&source("stats", ""));
        let batches =
            || EntitySource::Batches(entity.schema(), vec![entity.slice(0, 1), entity.slice(1, n_entities - 1)]);
        let expected = start(&files, &plan(in_files.clone(), &references), batches(), known).await.unwrap();
        let expected_range = (expected.min_event_timestamp, expected.max_event_timestamp);
        let expected = collected(expected.batches).await;
        let found = start(&store, &plan(in_tables.clone(), &references), batches(), known).await.unwrap();
        assert_eq!((found.min_event_timestamp, found.max_event_timestamp), expected_range);
        let explanation = found.explanation.clone();
        let found = collected(found.batches).await;
        let steps = explanation.steps();
        assert_eq!((steps.len(), steps[0].rows), (4, n_entities as u64), "{explanation}");
        let told = format!("round {round}, created `{created}`, ttl {ttl:?}, known {known:?}\n{}", shown(&rows));
        assert_eq!(shown(&found), shown(&expected), "{told}");

        let told_later = files.leaks(request(&plan(in_files.clone(), &references), batches(), known)).await.unwrap();
        let leaks = store.leaks(request(&plan(in_tables.clone(), &references), batches(), known)).await.unwrap();
        assert_eq!(leaks, told_later, "leaks, {told}");
        leaked += leaks.features.iter().map(|feature| feature.changed).sum::<u64>();

        // The same entity rows as a query of the database.
        server().execute(
            &database,
            &format!(
                "CREATE TABLE asked (id int8, city varchar(9), event_timestamp timestamptz);{}",
                insert("asked", &entity)
            ),
        );
        let query = EntitySource::Sql("SELECT * FROM asked ORDER BY ctid;".to_owned());
        let asked = start(&store, &plan(in_tables.clone(), &references), query, known).await.unwrap();
        assert_eq!((asked.min_event_timestamp, asked.max_event_timestamp), expected_range);
        assert_eq!(shown(&collected(asked.batches).await), shown(&expected), "query, {told}");

        // No entity rows at all.
        let between = || EntitySource::Range { start: Some(at(3)), end: Some(at(15)) };
        let expected =
            collected(start(&files, &plan(in_files.clone(), &references), between(), known).await.unwrap().batches)
                .await;
        let found =
            collected(start(&store, &plan(in_tables.clone(), &references), between(), known).await.unwrap().batches)
                .await;
        assert_eq!(shown(&found), shown(&expected), "range, {told}");

        // The latest rows.
        for (in_file, in_table) in in_files.into_iter().zip(in_tables) {
            let latest = async |store: &OfflineStore, view: FeatureView| {
                let request = LatestRequest { view: Arc::new(view), start: at(2), end: at(15) };
                let batch = collected(store.latest(request).await.unwrap()).await;
                let mut lines: Vec<String> = shown(&batch).lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(latest(&store, in_table).await, latest(&files, in_file).await, "latest, {told}");
        }
    }
    assert!(leaked > 50, "only {leaked} values leaked");
}

const TYPES: &str = "CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TABLE stats (
        driver_id uuid, event_timestamp timestamp, b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8,
        n numeric(12, 3), t text, v varchar(20), c char(3), j json, jb jsonb, raw bytea, d date, tz timestamptz,
        m mood, list int8[], texts varchar[], \"Odd \"\"name\" int4);
    INSERT INTO stats VALUES (
        '00000000-0000-0000-0000-000000000001', '2024-01-01 08:00:00', true, -1, 2, 3, 0.5, -0.25,
        123.456, 'größer', 'v', 'c', '{\"a\": 1}', '{\"b\": 2}', '\\x00ff', '2024-02-03', '2024-01-01 08:00:00+09',
        'bad', '{1,NULL,3}', '{a,b}', 7);";

#[tokio::test(flavor = "multi_thread")]
async fn columns_have_types_of_their_own_and_of_their_features() {
    let (store, database) = store();
    server().execute(&database, TYPES);
    let source = source("stats", "");
    let schema = store.schema(&source).await.unwrap();
    let types: Vec<String> = schema.fields().iter().map(|field| format!("{}", field.data_type())).collect();
    let time = DataType::Timestamp(TimeUnit::Microsecond, None).to_string();
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())).to_string();
    assert_eq!(types[..6], ["Utf8", &time, "Boolean", "Int16", "Int32", "Int64"]);
    assert_eq!(types[6..15], ["Float32", "Float64", "Float64", "Utf8", "Utf8", "Utf8", "Utf8", "Utf8", "Binary"]);
    assert_eq!(types[15..18], ["Date32", &zoned, "Utf8"]);
    assert_eq!(types[18..], ["List(Int64)", "List(Utf8)", "Int32"]);
    let features = [
        ("n", ValueType::Double),
        ("t", ValueType::String),
        ("raw", ValueType::Bytes),
        ("tz", ValueType::UnixTimestamp),
        ("list", ValueType::Int64List),
        ("i2", ValueType::Int64),
        ("Odd \"name", ValueType::Int32),
    ];
    let view = view("v", &source, &[("driver_id", ValueType::String)], &features);
    let references: Vec<String> = features.iter().map(|(name, _)| format!("v:{name}")).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let entity = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(StringArray::from(vec!["00000000-0000-0000-0000-000000000001", "no"])) as ArrayRef),
        ("event_timestamp", Arc::new(TimestampNanosecondArray::from(vec![1_704_096_000_000_000_000; 2]))),
    ])
    .unwrap();
    let entity = EntitySource::Batches(entity.schema(), vec![entity]);
    let found = historical(&store, &plan(vec![view], &references), entity).await;
    let line = shown(&found).lines().nth(3).unwrap().to_owned();
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    assert_eq!(
        cells[2..],
        ["2024-01-01T08:00:00", "123.456", "größer", "00ff", "2023-12-31T23:00:00Z", "[1, , 3]", "-1", "7", ""]
    );
    assert!((2..9).all(|column| found.column(column).is_null(1)), "{}", shown(&found));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_added_in_one_transaction() {
    let (store, database) = store();
    server().execute(&database, TYPES);
    let source = source("stats", "");
    let rows = |id: &str, number: f64| {
        let read = || async { collected(store.read_storage(&relation("stats", "")).await.unwrap()).await };
        let (id, read) = (id.to_owned(), read());
        async move {
            let batch = read.await.slice(0, 1);
            let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, array)| {
                let array: ArrayRef = match field.name().as_str() {
                    "driver_id" => Arc::new(StringArray::from(vec![id.clone()])),
                    "n" => Arc::new(Float64Array::from(vec![number])),
                    _ => Arc::clone(array),
                };
                (field.name().clone(), array, true)
            });
            RecordBatch::try_from_iter_with_nullable(columns.collect::<Vec<_>>()).unwrap()
        }
    };
    // Every type arrives as it left.
    let second = rows("00000000-0000-0000-0000-000000000002", 0.001).await;
    assert_eq!(store.append(&source, second).await.unwrap(), 1);
    let all_but = "SELECT count(DISTINCT (event_timestamp, b, i2, i4, i8, f4, f8, t, v, c, j::text, jb, raw, d, tz, m, list, \
                   texts, \"Odd \"\"name\")), string_agg(n::text, ' ' ORDER BY n) FROM stats";
    assert_eq!(server().execute(&database, all_but), "1|0.001 123.456");
    // What does not fit leaves nothing.
    let error = store.append(&source, rows("nobody", 1.0).await).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRequest, "{error}");
    let error = store.append(&source, rows("x", 1.0).await.project(&[0, 1]).unwrap()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::MissingColumns);
    assert_eq!(server().execute(&database, "SELECT count(*) FROM stats"), "2");
    // Plain types take the short way.
    server().execute(&database, "CREATE TABLE plain (driver_id int8, event_timestamp timestamptz, trips int8)");
    let many = 20_000;
    let batch = RecordBatch::try_from_iter([
        ("trips", Arc::new(Int64Array::from_iter_values(0..many)) as ArrayRef),
        ("driver_id", Arc::new(Int64Array::from(vec![1; many as usize]))),
        ("event_timestamp", seconds((0..many).map(Some))),
    ])
    .unwrap();
    assert_eq!(store.append(&self::source("plain", ""), batch).await.unwrap(), 20_000);
    let sums =
        server().execute(&database, "SELECT count(*), sum(trips), max(event_timestamp AT TIME ZONE 'UTC') FROM plain");
    assert_eq!(sums, "20000|199990000|1970-01-01 05:33:19");
    let error = store.append(&self::source("", "SELECT * FROM plain"), rows("x", 1.0).await).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    // The newest row is asked for, unless nothing may be run; a table without rows has none.
    for source in [self::source("plain", ""), self::source("", "SELECT * FROM plain")] {
        let newest = store.newest(&source, false).await.unwrap();
        assert_eq!((newest.time, newest.read), (NewestValue::At(at(19_999)), NewestRead::Statement));
        assert_eq!(store.newest(&source, true).await.unwrap().time, NewestValue::NotTold);
    }
    server().execute(&database, "INSERT INTO plain VALUES (1, 'infinity', 1)");
    assert_eq!(store.newest(&self::source("plain", ""), false).await.unwrap().time, NewestValue::At(at(19_999)));
    server().execute(&database, "TRUNCATE plain");
    assert_eq!(store.newest(&self::source("plain", ""), false).await.unwrap().time, NewestValue::Empty);
}

#[tokio::test(flavor = "multi_thread")]
async fn datasets_are_tables() {
    let (store, database) = store();
    let batch = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from_iter_values(0..30_000)) as ArrayRef),
        ("event_timestamp", seconds((0..30_000).map(Some))),
        ("rate", Arc::new(Float64Array::from_iter_values((0..30_000).map(f64::from)))),
    ])
    .unwrap();
    let stream =
        || BatchStream::from_batches(batch.schema(), vec![batch.slice(0, 20_000), batch.slice(20_000, 10_000)]);
    let storage = relation("sets", "");
    store.write_storage(&storage, stream(), WriteOptions::default()).await.unwrap();
    assert_eq!(collected(store.read_storage(&storage).await.unwrap()).await.columns(), batch.columns());
    let error = store.write_storage(&storage, stream(), WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::SavedDatasetLocationExists);
    // A stream that fails leaves what was there.
    let overwrite = || WriteOptions { overwrite: true, ..WriteOptions::default() };
    let failing = futures::stream::iter([Ok(batch.slice(0, 9)), Err(feast_core::Error::invalid_request("no more"))]);
    let failing = BatchStream::new(batch.schema(), failing);
    assert_eq!(store.write_storage(&storage, failing, overwrite()).await.unwrap_err().message(), "no more");
    assert_eq!(server().execute(&database, "SELECT count(*) FROM sets"), "30000");
    let one = BatchStream::from_batches(batch.schema(), vec![batch.slice(0, 1)]);
    store.write_storage(&storage, one, overwrite()).await.unwrap();
    assert_eq!(server().execute(&database, "SELECT count(*) FROM sets"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_sources_and_schemas_of_the_database_are_found() {
    let (_, database) = store();
    server().execute(
        &database,
        "CREATE SCHEMA other; CREATE TABLE other.stats AS SELECT g AS driver_id,
        to_timestamp(g) AS event_timestamp, g * 10 AS trips FROM generate_series(1, 5) g",
    );
    let mut config = config(&database);
    config["db_schema"] = json!("other");
    let store = OfflineStore::connect(&config, Path::new("/")).unwrap();
    for source in [source("stats", ""), source("other.stats", ""), source("", "SELECT * FROM stats WHERE trips > 10;")]
    {
        let view = view("v", &source, &[("driver_id", ValueType::Int64)], &[("trips", ValueType::Int64)]);
        let sql =
            EntitySource::Sql("SELECT driver_id, now() AS event_timestamp FROM stats WHERE driver_id IN (2, 4)".into());
        let found = historical(&store, &plan(vec![view], &["v:trips"]), sql).await;
        let mut trips: Vec<_> = found.column(2).as_primitive::<Int64Type>().iter().collect();
        trips.sort_unstable();
        assert_eq!(trips, [Some(20), Some(40)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_explained_and_tell_no_secrets() {
    let (store, database) = store();
    let error = store.schema(&source("none", "")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FileNotFound);
    assert!(error.message().contains("\"none\" does not exist"), "{error}");
    let error = store.schema(&DataSource::file("f", "f.parquet", "event_timestamp")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    server().execute(&database, "CREATE TABLE stats (driver_id int8, event_timestamp timestamptz, trips int8)");
    let source = source("stats", "");
    let view = || view("v", &source, &[("driver_id", ValueType::Int64)], &[("trips", ValueType::Int64)]);
    for sql in
        ["SELECT nothing FROM stats", "DELETE FROM stats", "SELECT 1; DROP TABLE stats", "SELECT driver_id FROM stats"]
    {
        let error =
            start(&store, &plan(vec![view()], &["v:trips"]), EntitySource::Sql(sql.to_owned()), (false, None)).await;
        let code = error.unwrap_err().code();
        assert!(matches!(code, ErrorCode::InvalidRequest | ErrorCode::InvalidEventTimestamp), "{sql}: {code:?}");
    }
    assert_eq!(server().execute(&database, "SELECT count(*) FROM stats"), "0");

    let mut wrong = config(&database);
    wrong["password"] = json!("another-s3cret");
    let refused = OfflineStore::connect(&wrong, Path::new("/")).unwrap();
    let error = refused.schema(&source).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PermissionDenied);
    wrong["sslmode"] = json!("require");
    let unencrypted = OfflineStore::connect(&wrong, Path::new("/")).unwrap();
    let second = unencrypted.schema(&source).await.unwrap_err();
    assert_eq!(second.code(), ErrorCode::Unavailable, "{second}");
    for text in [format!("{error} {error:?} {refused:?} {refused}"), format!("{second} {second:?} {unencrypted:?}")] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    for (key, value) in
        [("passwort", json!("x")), ("port", json!("x")), ("sslmode", json!("x")), ("password", json!([1]))]
    {
        let mut wrong = config(&database);
        wrong[key] = value;
        let error = OfflineStore::connect(&wrong, Path::new("/")).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfiguration, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_is_as_strict_as_asked() {
    let server = PostgresServer::start_encrypting();
    let database = server.create_database();
    server.execute(&database, "CREATE TABLE stats (driver_id int8, event_timestamp timestamptz)");
    let authority = server.authority().to_string_lossy().into_owned();
    for (mode, host, root, works) in [
        ("disable", "localhost", None, true),
        ("prefer", "127.0.0.1", None, true),
        ("require", "127.0.0.1", None, true),
        ("require", "127.0.0.1", Some(&authority), true),
        ("verify-ca", "127.0.0.1", Some(&authority), true),
        ("verify-full", "localhost", Some(&authority), true),
        // The certificate is for `localhost`.
        ("verify-full", "127.0.0.1", Some(&authority), false),
        // The authority is not among those that the machine knows.
        ("verify-ca", "localhost", None, false),
    ] {
        let mut config = json!({
            "type": "postgres", "host": host, "port": server.port(), "database": database,
            "user": postgres::USER, "password": postgres::PASSWORD, "sslmode": mode,
        });
        if let Some(root) = root {
            config["sslrootcert_path"] = json!(root);
        }
        let store = OfflineStore::connect(&config, Path::new("/")).unwrap();
        let answer = store.schema(&source("stats", "")).await;
        assert_eq!(answer.is_ok(), works, "{mode} {host} {root:?}: {answer:?}");
        if let Err(error) = answer {
            assert_eq!(error.hint(), Some("check `sslmode` and `sslrootcert_path`"));
        }
    }
    // Whether a connection is encrypted, the server knows.
    let config = json!({
        "type": "postgres", "host": "localhost", "port": server.port(), "database": database,
        "user": postgres::USER, "password": postgres::PASSWORD,
    });
    let store = OfflineStore::connect(&config, Path::new("/")).unwrap();
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let answer = collected(store.read_storage(&relation("", encrypted)).await.unwrap()).await;
    assert!(answer.column(0).as_boolean().value(0));
}

/// Whoever stops reading stops the server's work too.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_request_ends_on_the_server() {
    let (store, database) = store();
    server().execute(&database, "CREATE TABLE stats (driver_id int8, event_timestamp timestamptz, trips int8)");
    let storage = relation("", "SELECT g FROM generate_series(1, 100000000) g, pg_sleep(0) ORDER BY g % 7, g");
    let mut rows = store.read_storage(&storage).await.unwrap();
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(300), rows.next()).await;
    assert!(waiting.is_err(), "the sort takes longer");
    drop(rows);
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'feast-rs' AND datname = current_database()";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while server().execute(&database, running) != "0" {
        assert!(std::time::Instant::now() < deadline, "the query still runs");
    }
}

/// A query in the place of the Python function that would return it.
#[derive(Debug)]
struct Doubled;

#[async_trait::async_trait]
impl BatchFunctions for Doubled {
    async fn query(&self, _: &FeatureView, inputs: &[String]) -> feast_core::Result<String> {
        let input = &inputs[0];
        // It names its input twice.
        Ok(format!(
            "SELECT id, event_timestamp, written, 2 * whole AS twice FROM {input} \
             WHERE whole < (SELECT max(whole) FROM {input})"
        ))
    }

    async fn rows(&self, _: &FeatureView, _: Vec<Rows>) -> feast_core::Result<Rows> {
        unreachable!("the view is computed by a query")
    }
}

/// Views of every kind over a source: one as it is, a query, aggregates, and aggregates of the newest rows of the first.
fn computed_views(source: &DataSource) -> Vec<FeatureView> {
    let mut source = source.clone();
    "written".clone_into(&mut source.created_timestamp_column);
    let id = [("id", ValueType::Int64)];
    let with = |name: &str, features: &[(&str, ValueType)], change: &dyn Fn(&mut BatchFeatures)| {
        let mut view = view(name, &source, &id, features);
        view.ttl = Some(TimeDelta::seconds(30));
        if let FeatureViewKind::Batch(batch) = &mut view.kind {
            change(batch);
        }
        view
    };
    let sums = |window: Option<i64>| -> Vec<Aggregation> {
        let sum = |function: &str| Aggregation {
            name: format!("{function}_whole"),
            column: "whole".to_owned(),
            function: function.to_owned(),
            time_window: window.map(TimeDelta::seconds),
            slide_interval: None,
        };
        ["sum", "count"].map(sum).to_vec()
    };
    let features = [("sum_whole", ValueType::Double), ("count_whole", ValueType::Double)];
    let plain = with("plain", &[("whole", ValueType::Int64)], &|_| ());
    let doubled = with("doubled", &[("twice", ValueType::Int64)], &|batch| {
        batch.mode = "sql".to_owned();
        let function = UserDefinedFunction { mode: "sql".to_owned(), ..UserDefinedFunction::default() };
        batch.transformation = Some(Transformation::UserDefinedFunction(function));
    });
    let made = with("made", &features, &|batch| batch.aggregations = sums(Some(10)));
    let chained = with("chained", &features, &|batch| {
        batch.aggregations = sums(None);
        batch.batch_source = None;
        batch.source_views = vec![plain.clone()];
    });
    vec![plain, doubled, made, chained]
}

#[tokio::test(flavor = "multi_thread")]
async fn computed_views_over_tables_are_those_over_files() {
    let (folder, (tables, database)) = (tempfile::tempdir().unwrap(), store());
    let files = OfflineStore::connect(&serde_json::Value::Null, folder.path()).unwrap();
    let mut random = Random(11);
    let mut column = |n_rows: usize, limit: u64| -> Vec<Option<i64>> {
        (0..n_rows).map(|_| random.sometimes(|random| random.below(limit) as i64)).collect()
    };
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(column(200, 5))) as ArrayRef, true),
        ("event_timestamp", seconds(column(200, 60).into_iter()), true),
        ("written", seconds(column(200, 60).into_iter()), true),
        ("whole", Arc::new(Int64Array::from(column(200, 9))), true),
    ])
    .unwrap();
    let entity = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(column(40, 6))) as ArrayRef, true),
        ("event_timestamp", seconds(column(40, 90).into_iter()), true),
        // A second time, and a name that a feature has without its view.
        ("whole", seconds(column(40, 90).into_iter()), true),
    ])
    .unwrap();
    let stream = BatchStream::from_batches(rows.schema(), vec![rows.clone()]);
    files.write_dataset("stats.parquet", stream, WriteOptions::default()).await.unwrap();
    let create = "CREATE TABLE stats (id int8, event_timestamp timestamptz, written timestamptz, whole int8);
                  CREATE TABLE asked (id int8, event_timestamp timestamptz, whole timestamptz);";
    server().execute(&database, &format!("{create}{}{}", insert("stats", &rows), insert("asked", &entity)));
    let references = [
        "made:sum_whole",
        "plain:whole",
        "chained:sum_whole",
        "doubled:twice",
        "made:count_whole",
        "chained:count_whole",
    ];
    let in_files = computed_views(&DataSource::file("stats", "stats.parquet", "event_timestamp"));
    let in_tables = computed_views(&source("stats", ""));
    let engine = |store: OfflineStore| LocalEngine::new(Arc::new(store), Some(Arc::new(Doubled)));
    let (over_files, over_tables) = (engine(files), engine(tables));
    let answer = async |engine: &LocalEngine, views: &[FeatureView], references: &[&str], entity: EntitySource| {
        let asked = request(&plan(views.to_vec(), references), entity, (false, None));
        shown(&collected(engine.historical(asked).await.unwrap().batches).await)
    };
    let batches = || EntitySource::Batches(entity.schema(), vec![entity.slice(0, 3), entity.slice(3, 37)]);
    for references in [&references[..], &references[..1]] {
        let expected = answer(&over_files, &in_files, references, batches()).await;
        assert!(expected.matches(".0").count() > 20, "{expected}");
        assert_eq!(answer(&over_tables, &in_tables, references, batches()).await, expected);
        let query = EntitySource::Sql("SELECT * FROM asked ORDER BY ctid".to_owned());
        assert_eq!(answer(&over_tables, &in_tables, references, query).await, expected);
    }
    let none = EntitySource::Batches(entity.schema(), Vec::new());
    let asked = request(&plan(in_tables.clone(), &references), none, (false, None));
    assert_eq!(collected(over_tables.historical(asked).await.unwrap().batches).await.num_rows(), 0);

    for (in_files, in_tables) in in_files.into_iter().zip(in_tables.clone()) {
        let name = in_files.name.clone();
        let newest = async |engine: &LocalEngine, view: FeatureView| {
            let asked = LatestRequest { view: Arc::new(view), start: at(5), end: at(50) };
            let rows = shown(&collected(engine.latest(asked).await.unwrap()).await);
            let mut rows: Vec<String> = rows.lines().map(str::to_owned).collect();
            rows.sort();
            rows
        };
        let expected = newest(&over_files, in_files).await;
        assert!(expected.len() > 6, "{name}: {expected:?}");
        assert_eq!(newest(&over_tables, in_tables).await, expected, "{name}");
    }

    let range = EntitySource::Range { start: Some(at(3)), end: Some(at(15)) };
    let asked = request(&plan(in_tables.clone(), &references), range, (false, None));
    assert_eq!(over_tables.historical(asked).await.unwrap_err().code(), ErrorCode::Unsupported);
    let asked = request(&plan(in_tables, &references), batches(), (false, None));
    assert_eq!(over_tables.leaks(asked).await.unwrap_err().code(), ErrorCode::Unsupported);
}
