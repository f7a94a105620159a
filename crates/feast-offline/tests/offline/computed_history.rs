//! Training data of computed views is what a materialization up to the time of each entity row would have served:
//! random rows, every function, windows and ttl.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use chrono::TimeDelta;
use feast_core::{
    Aggregation, BatchFeatures, DataSource, ErrorCode, FeatureSelection, FeatureView, FeatureViewKind, Field, Project,
    ProjectContents, RegistryObject, RetrievalPlan, Shard, Timestamp, ValueType,
};
use feast_offline::{
    BatchStream, ComputeEngine, EntitySource, HistoricalRequest, LocalEngine, MaterializationTask, Materialized,
    OfflineStore, WriteOptions,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const FUNCTIONS: [&str; 7] = ["sum", "max", "min", "count", "mean", "count_distinct", "std"];

/// A key, a time and a value.
type Row = (i64, i64, Option<i64>);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).unwrap()
}

fn seconds(times: impl Iterator<Item = i64>) -> ArrayRef {
    let times: TimestampMicrosecondArray = times.map(|time| Some(time * 1_000_000)).collect();
    Arc::new(times.with_timezone("UTC"))
}

fn feature_rows(rows: &[Row]) -> RecordBatch {
    let whole: Int64Array = rows.iter().map(|(.., value)| *value).collect();
    // Values that a sum which subtracts would never get rid of.
    let broken =
        rows.iter().map(|(.., value)| value.map(|value| if value == 0 { f64::INFINITY } else { value as f64 }));
    RecordBatch::try_from_iter([
        ("id", Arc::new(rows.iter().map(|(id, ..)| *id).collect::<Int64Array>()) as ArrayRef),
        ("event_timestamp", seconds(rows.iter().map(|(_, time, _)| *time))),
        ("whole", Arc::new(whole)),
        ("broken", Arc::new(broken.collect::<Float64Array>())),
    ])
    .unwrap()
}

fn view(name: &str, kind: BatchFeatures, ttl: i64) -> FeatureView {
    let mut view = FeatureView::new(name, FeatureViewKind::Batch(kind));
    view.entities = vec!["id".to_owned()];
    view.entity_columns = vec![Field::new("id", ValueType::Int64)];
    view.ttl = Some(TimeDelta::seconds(ttl));
    view
}

/// Every function of both columns, over the given windows; none is all that the ttl lets live.
fn aggregations(windows: &[Option<i64>]) -> Vec<Aggregation> {
    let mut all = Vec::new();
    for window in windows {
        for column in ["whole", "broken"] {
            for function in FUNCTIONS {
                all.push(Aggregation {
                    name: format!("{function}_{column}_{}", window.unwrap_or(0)),
                    column: column.to_owned(),
                    function: function.to_owned(),
                    time_window: window.map(TimeDelta::seconds),
                    slide_interval: None,
                });
            }
        }
    }
    all
}

fn aggregated(name: &str, kind: BatchFeatures, windows: &[Option<i64>], ttl: i64) -> FeatureView {
    let aggregations = aggregations(windows);
    let mut view = view(name, BatchFeatures { aggregations: aggregations.clone(), ..kind }, ttl);
    view.features = aggregations.into_iter().map(|made| Field::new(made.name, ValueType::Double)).collect();
    view
}

fn engine(folder: &Path) -> (Arc<OfflineStore>, LocalEngine) {
    let offline = Arc::new(OfflineStore::connect(&serde_json::Value::Null, folder).unwrap());
    (Arc::clone(&offline), LocalEngine::new(offline, None))
}

fn request(view: &FeatureView, entity: EntitySource) -> HistoricalRequest {
    let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
    contents.put(RegistryObject::FeatureView(Arc::new(view.clone())));
    let names = view.features.iter().map(|feature| format!("{}:{}", view.name, feature.name));
    let plan = RetrievalPlan::resolve(&contents, &FeatureSelection::References(names.collect()), false).unwrap();
    HistoricalRequest {
        plan: Arc::new(plan),
        entity,
        tables: Vec::new(),
        filter_by_created_timestamp: false,
        as_of: None,
    }
}

fn entity_rows(rows: &[(i64, i64)]) -> EntitySource {
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(rows.iter().map(|(id, _)| *id).collect::<Int64Array>()) as ArrayRef),
        ("event_timestamp", seconds(rows.iter().map(|(_, time)| *time))),
    ]);
    let batch = batch.unwrap();
    EntitySource::Batches(batch.schema(), vec![batch])
}

async fn trained(engine: &LocalEngine, view: &FeatureView, rows: &[(i64, i64)]) -> feast_core::Result<RecordBatch> {
    let stream = engine.historical(request(view, entity_rows(rows))).await?.batches;
    let schema = Arc::clone(stream.schema());
    Ok(concat_batches(&schema, &stream.collect().await?)?)
}

fn numbers(column: &ArrayRef) -> Vec<Option<f64>> {
    cast(column, &DataType::Float64).unwrap().as_primitive::<Float64Type>().iter().collect()
}

/// What a materialization up to a time writes, by key; what is past the ttl then would not be served.
async fn served(engine: &LocalEngine, view: &FeatureView, time: i64) -> BTreeMap<i64, Vec<Option<f64>>> {
    let ttl = view.ttl.unwrap().num_seconds();
    let start = if ttl > 0 { time - ttl } else { -1000 };
    let task = MaterializationTask {
        project: "p".to_owned(),
        view: Arc::new(view.clone()),
        start: at(start),
        end: at(time),
        shard: Shard::WHOLE,
    };
    let Materialized::Rows(rows) = engine.materialize(task).await.unwrap() else { panic!("no rows") };
    let mut found = BTreeMap::new();
    for batch in rows.collect().await.unwrap() {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let n_features = view.features.len();
        let events = batch.column(n_features + 1).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        let columns: Vec<_> = batch.columns()[1..=n_features].iter().map(numbers).collect();
        for row in (0..batch.num_rows()).filter(|row| events.value(*row) >= start * 1_000_000) {
            found.insert(ids.value(row), columns.iter().map(|column| column[row]).collect());
        }
    }
    found
}

fn alike(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) if one.is_finite() && other.is_finite() => (one - other).abs() < 1e-6,
        (Some(one), Some(other)) => one == other || (one.is_nan() && other.is_nan()),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Compares all entity rows with materializations and returns how many values there were that are not null.
async fn compare(engine: &LocalEngine, view: &FeatureView, rows: &[(i64, i64)]) -> usize {
    let answer = trained(engine, view, rows).await.unwrap();
    assert_eq!(answer.num_rows(), rows.len());
    let columns: Vec<_> = answer.columns()[2..].iter().map(numbers).collect();
    let mut found = 0;
    for (row, (id, time)) in rows.iter().enumerate() {
        let expected = served(engine, view, *time).await.remove(id);
        for (feature, (column, field)) in columns.iter().zip(&view.features).enumerate() {
            let expected = expected.as_ref().and_then(|values| values[feature]);
            let given = column[row];
            assert!(alike(given, expected), "{} of {id} at {time}: {given:?}, expected {expected:?}", field.name);
            found += usize::from(given.is_some());
        }
    }
    found
}

#[tokio::test]
async fn the_least_and_the_greatest_of_infinite_numbers_are_infinite() {
    let folder = tempfile::tempdir().unwrap();
    let (offline, engine) = engine(folder.path());
    let rows = [
        (1, f64::INFINITY, f64::INFINITY),
        (2, f64::NEG_INFINITY, f64::NEG_INFINITY),
        (3, f64::INFINITY, 2.0),
        (4, f64::MAX, f64::MIN),
        (5, f64::NEG_INFINITY, f64::INFINITY),
    ];
    let values: Float64Array = rows.iter().flat_map(|(_, one, other)| [Some(*one), Some(*other), None]).collect();
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(rows.iter().flat_map(|(id, ..)| [*id; 3]).collect::<Int64Array>()) as ArrayRef),
        ("event_timestamp", seconds(0..15)),
        ("float", cast(&values, &DataType::Float32).unwrap()),
        ("double", Arc::new(values)),
    ]);
    let stream = BatchStream::from_batches(batch.as_ref().unwrap().schema(), vec![batch.unwrap()]);
    offline.write_dataset("rows.parquet", stream, WriteOptions::default()).await.unwrap();
    let kind = BatchFeatures {
        batch_source: Some(DataSource::file("rows", "rows.parquet", "event_timestamp")),
        aggregations: ["double", "float"]
            .into_iter()
            .flat_map(|column| ["min", "max"].map(|function| (column, function)))
            .map(|(column, function)| Aggregation {
                name: format!("{function}_{column}"),
                column: column.to_owned(),
                function: function.to_owned(),
                time_window: None,
                slide_interval: None,
            })
            .collect(),
        ..BatchFeatures::default()
    };
    let mut made = view("made", kind, 0);
    made.features = ["min_double", "max_double"].map(|name| Field::new(name, ValueType::Double)).to_vec();
    made.features.extend(["min_float", "max_float"].map(|name| Field::new(name, ValueType::Float)));
    let found = served(&engine, &made, 20).await;
    for (id, one, other) in rows {
        let [least, greatest] = [one.min(other), one.max(other)];
        let [least_float, greatest_float] = [least, greatest].map(|number| f64::from(number as f32));
        assert_eq!(found[&id], [least, greatest, least_float, greatest_float].map(Some), "{id}");
    }
}

#[test]
fn aggregates_are_what_a_materialization_would_have_served() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let row = (0..4i64, 0..60i64, prop::option::weighted(0.8, 0..6i64));
    let case = (
        prop::collection::vec(row, 1..40),
        prop::collection::vec((0..5i64, 0..90i64), 6),
        prop_oneof![Just(0i64), Just(15), Just(40)],
    );
    let config = ProptestConfig { cases: 12, source_file: Some(file!()), ..ProptestConfig::default() };
    let found = std::cell::Cell::new(0);
    let check = |(rows, asked, ttl): (Vec<Row>, Vec<(i64, i64)>, i64)| {
        let folder = tempfile::tempdir().unwrap();
        let (offline, engine) = engine(folder.path());
        let batch = feature_rows(&rows);
        let source = DataSource::file("rows", "rows.parquet", "event_timestamp");
        let over = || BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
        let made = aggregated("made", over(), &[None, Some(10), Some(25)], ttl);
        runtime.block_on(async {
            let stream = BatchStream::from_batches(batch.schema(), vec![batch]);
            offline.write_dataset("rows.parquet", stream, WriteOptions::default()).await.unwrap();
            found.set(found.get() + compare(&engine, &made, &asked).await);
            // The same over the newest rows of another view.
            let mut plain = view("plain", over(), ttl);
            plain.features = vec![Field::new("whole", ValueType::Int64), Field::new("broken", ValueType::Double)];
            let chained = BatchFeatures { source_views: vec![plain], ..BatchFeatures::default() };
            let chained = aggregated("chained", chained, &[Some(10)], ttl);
            found.set(found.get() + compare(&engine, &chained, &asked[..3]).await);
        });
        Ok(())
    };
    TestRunner::new(config).run(&case, check).unwrap();
    assert!(found.get() > 500, "only {} values were compared", found.get());
}

#[tokio::test]
async fn many_rows_of_few_keys_go_on_from_batch_to_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (offline, engine) = engine(folder.path());
    let rows: Vec<Row> = (0..30_000).map(|number| (number % 2, number, Some(number % 7 + 1))).collect();
    let batch = feature_rows(&rows);
    let stream = BatchStream::from_batches(batch.schema(), vec![batch]);
    offline.write_dataset("rows.parquet", stream, WriteOptions::default()).await.unwrap();
    let source = DataSource::file("rows", "rows.parquet", "event_timestamp");
    let over = BatchFeatures { batch_source: Some(source), ..BatchFeatures::default() };
    let made = aggregated("made", over, &[None, Some(20_000)], 0);
    assert_eq!(compare(&engine, &made, &[(0, 29_998), (1, 25_001), (1, 3), (5, 100)]).await, 3 * 28);
}

#[tokio::test]
async fn what_cannot_be_answered_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (offline, engine) = engine(folder.path());
    let batch = feature_rows(&[(1, 1, Some(1)), (1, 5, Some(2))]);
    let stream = BatchStream::from_batches(batch.schema(), vec![batch]);
    offline.write_dataset("rows.parquet", stream, WriteOptions::default()).await.unwrap();
    let source = DataSource::file("rows", "rows.parquet", "event_timestamp");
    let sink = DataSource::file("sink", "sink.parquet", "event_timestamp");
    let over = || BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
    let mut plain = view("plain", over(), 0);
    plain.features = vec![Field::new("whole", ValueType::Int64)];
    let chained = BatchFeatures { source_views: vec![plain.clone()], batch_source: Some(sink), ..Default::default() };
    let mut chained = view("chained", chained, 0);
    chained.features = plain.features.clone();
    let refused = |error: feast_core::Error, message: &str| {
        assert_eq!(error.code(), ErrorCode::Unsupported);
        assert!(error.to_string().contains(message), "{error}");
    };
    let many: Vec<(i64, i64)> = (0..1001).map(|time| (1, time)).collect();
    refused(trained(&engine, &chained, &many).await.unwrap_err(), "more than 1000 different times");
    let made = aggregated("made", over(), &[None], 0);
    let range = EntitySource::Range { start: Some(at(0)), end: Some(at(9)) };
    refused(engine.historical(request(&made, range)).await.unwrap_err(), "have no times of their own");
    let known = HistoricalRequest { as_of: Some(at(9)), ..request(&made, entity_rows(&[(1, 5)])) };
    refused(engine.historical(known).await.unwrap_err(), "had been written by some time");
    // No entity rows are no failure.
    assert_eq!(trained(&engine, &chained, &[]).await.unwrap().num_rows(), 0);
    assert_eq!(trained(&engine, &made, &[]).await.unwrap().num_rows(), 0);
    // Many times are none too many where the rows rest in the sink.
    let sunk = feature_rows(&[(1, 3, Some(7))]);
    let stream = BatchStream::from_batches(sunk.schema(), vec![sunk]);
    offline.write_dataset("sink.parquet", stream, WriteOptions::default()).await.unwrap();
    let answer = trained(&engine, &chained, &many).await.unwrap();
    assert_eq!(answer.column(2).null_count(), 3);
    assert_eq!(numbers(answer.column(2))[1000], Some(7.0));
}
