//! The verbs on the embedded default: file registry, SQLite online store, Parquet files.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float32Type, Int64Type};
use chrono::{DateTime, TimeDelta, Utc};
use feast::{
    ApplyOptions, Definitions, FeatureStore, HistoricalFeatures, MaterializeRequest, MaterializedView, OnlineRequest,
    PushTarget, RepoConfig, Window,
};
use feast_core::{
    BatchFeatures, DataSource, DataSourceOptions, Entity, ErrorCode, FeatureSelection, FeatureView, FeatureViewKind,
    Field, Interval, ObjectKind, ObjectRef, Project, ProjectContents, RegistryObject, Result, Shard, ValueType,
};
use feast_offline::{BatchStream, EntitySource, WriteOptions};
use feast_online::{EntityColumn, EntityRows, EntityValue, OnlineFeatures};

/// 2026-11-20T12:00:00Z.
const T0: i64 = 1_795_176_000;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn times(seconds: &[i64]) -> ArrayRef {
    let micros: Vec<i64> = seconds.iter().map(|second| second * 1_000_000).collect();
    Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
}

/// Driver, event time, created time, conv_rate, trips, city.
type Row = (i64, i64, i64, f64, i64, Option<&'static str>);

fn rows(rows: &[Row]) -> RecordBatch {
    let column = |pick: fn(&Row) -> i64| -> Vec<i64> { rows.iter().map(pick).collect() };
    RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from(column(|row| row.0))) as ArrayRef),
        ("event_timestamp", times(&column(|row| row.1))),
        ("created", times(&column(|row| row.2))),
        ("conv_rate", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.3))) as ArrayRef),
        ("trips", Arc::new(Int64Array::from(column(|row| row.4))) as ArrayRef),
        ("city", Arc::new(StringArray::from(rows.iter().map(|row| row.5).collect::<Vec<_>>())) as ArrayRef),
    ])
    .unwrap()
}

fn driver_rows() -> RecordBatch {
    rows(&[
        (1001, T0 - 7200, T0 - 7200, 0.1, 10, Some("a")),
        (1001, T0, T0, 0.2, 20, Some("b")),
        (1001, T0, T0 + 60, 0.3, 30, Some("c")),
        (1002, T0 - 3600, T0, 0.4, 40, None),
        (1003, T0 - 3 * 86_400, T0, 0.5, 50, Some("e")),
    ])
}

/// A view over `stats.parquet` and one that is pushed to, of the same entity.
fn definitions() -> Definitions {
    let file = |name: &str| {
        let mut source = DataSource::file(name, format!("{name}.parquet"), "event_timestamp");
        source.created_timestamp_column = "created".to_owned();
        source
    };
    let view = |name: &str, batch: DataSource, stream: Option<DataSource>, ttl: i64| {
        let kind = BatchFeatures { batch_source: Some(batch), stream_source: stream, ..BatchFeatures::default() };
        let mut view = FeatureView::new(name, FeatureViewKind::Batch(kind));
        view.entities = vec!["driver".to_owned()];
        view.ttl = Some(TimeDelta::seconds(ttl));
        view.features = vec![
            Field::new("conv_rate", ValueType::Float),
            Field::new("trips", ValueType::Int64),
            Field::new("city", ValueType::String),
        ];
        view
    };
    let push = DataSource {
        name: "fresh".to_owned(),
        options: DataSourceOptions::Push,
        batch_source: Some(Box::new(file("pushed"))),
        class_type: "feast.data_source.PushSource".to_owned(),
        ..DataSource::default()
    };
    let mut contents = ProjectContents { project: Project::new("proj"), ..ProjectContents::default() };
    contents.put(RegistryObject::Entity(Arc::new(Entity::new("driver", "driver_id", ValueType::Int64))));
    for source in [file("stats"), file("pushed"), push.clone()] {
        contents.put(RegistryObject::DataSource(Arc::new(source)));
    }
    contents.put(RegistryObject::FeatureView(Arc::new(view("driver_stats", file("stats"), None, 86_400))));
    contents.put(RegistryObject::FeatureView(Arc::new(view("driver_push", file("pushed"), Some(push), 0))));
    Definitions { contents, ..Definitions::default() }
}

fn open(folder: &Path) -> FeatureStore {
    let text = "project: proj\nregistry: data/registry.db\nonline_store:\n  type: sqlite\n  path: data/online.db\n";
    FeatureStore::open(RepoConfig::parse_with(text, folder, &|_| None).unwrap()).unwrap()
}

/// A repository whose definitions are applied.
async fn applied(folder: &Path) -> FeatureStore {
    let store = open(folder);
    for name in ["stats.parquet", "pushed.parquet"] {
        let batch = driver_rows();
        let stream = BatchStream::from_batches(batch.schema(), vec![batch]);
        store.offline_store().write_dataset(name, stream, WriteOptions::default()).await.unwrap();
    }
    store.apply(&definitions(), &ApplyOptions::default()).await.unwrap();
    store
}

fn references(features: &[&str]) -> FeatureSelection {
    FeatureSelection::References(features.iter().map(|feature| (*feature).to_owned()).collect())
}

async fn online(store: &FeatureStore, features: &[&str], drivers: &[i64]) -> Result<OnlineFeatures> {
    let drivers = drivers.iter().map(|driver| EntityValue::Int(*driver)).collect();
    let entity_rows = EntityRows::new(vec![("driver_id".to_owned(), EntityColumn::Values(drivers))])?;
    let selection = references(features);
    store.get_online_features(OnlineRequest { selection, entity_rows, full_feature_names: false }).await
}

/// The trips of one driver as served now.
async fn trips(store: &FeatureStore, view: &str, driver: i64) -> Option<i64> {
    let answer = online(store, &[&format!("{view}:trips")], &[driver]).await.unwrap();
    let values = answer.columns[1].values.as_primitive::<Int64Type>().clone();
    values.iter().next().flatten()
}

async fn materialize_shard(store: &FeatureStore, window: Window, shard: Shard) -> MaterializedView {
    let feature_views = vec!["driver_stats".to_owned()];
    let report = store.materialize(MaterializeRequest { window, feature_views, shard, version: None }).await;
    report.unwrap().feature_views.remove(0)
}

async fn materialize(store: &FeatureStore, window: Window) -> u64 {
    materialize_shard(store, window, Shard::WHOLE).await.rows
}

async fn intervals(store: &FeatureStore) -> Vec<Interval> {
    let contents = store.contents(true).await.unwrap();
    contents.feature_view("driver_stats").unwrap().meta.materialization_intervals.clone()
}

#[tokio::test]
async fn applying_twice_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let plan = store.plan(&definitions(), &ApplyOptions::default()).await.unwrap();
    assert!(plan.is_empty(), "{:?}", plan.diff);
}

#[tokio::test]
async fn a_changed_definition_keeps_what_was_materialized() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    materialize(&store, Window::Between(at(T0 - 86_400), at(T0))).await;
    let mut changed = definitions();
    let view = changed.contents.feature_views.get_mut("driver_stats").unwrap();
    Arc::make_mut(view).tags.insert("team".to_owned(), "x".to_owned());
    let plan = store.apply(&changed, &ApplyOptions::default()).await.unwrap();
    assert_eq!(plan.diff.changes.len(), 1);
    assert_eq!(intervals(&store).await, [Interval { start: at(T0 - 86_400), end: at(T0) }]);
    assert_eq!(trips(&store, "driver_stats", 1001).await, Some(30));
}

/// The definitions with another set of features and another pin.
fn versioned(features: &[&str], version: &str) -> Definitions {
    let mut definitions = definitions();
    let view = Arc::make_mut(definitions.contents.feature_views.get_mut("driver_stats").unwrap());
    view.features.retain(|field| features.contains(&field.name.as_str()));
    view.version = version.to_owned();
    definitions
}

#[tokio::test]
async fn a_pin_brings_an_older_definition_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let described = async || {
        let contents = store.contents(true).await.unwrap();
        let view = contents.feature_view("driver_stats").unwrap();
        let names: Vec<String> = view.features.iter().map(|field| field.name.clone()).collect();
        (names.join(" "), view.meta.current_version_number)
    };
    assert_eq!(described().await, ("conv_rate trips city".to_owned(), 0));
    store.apply(&versioned(&["trips"], "latest"), &ApplyOptions::default()).await.unwrap();
    assert_eq!(described().await, ("trips".to_owned(), 1));
    store.apply(&versioned(&["trips"], "v0"), &ApplyOptions::default()).await.unwrap();
    assert_eq!(described().await, ("conv_rate trips city".to_owned(), 0));
    assert!(
        store
            .plan(&versioned(&["trips", "conv_rate", "city"], "v0"), &ApplyOptions::default())
            .await
            .unwrap()
            .is_empty()
    );
    let changed = versioned(&["city"], "v1");
    let error = store.apply(&changed, &ApplyOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FeatureViewPinConflict);
    let error = error.to_string();
    assert!(error.contains("is pinned to `v1` and changed at the same time"), "{error}");
    let error = store.apply(&versioned(&["city"], "newest"), &ApplyOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("has the version `newest`"), "{error}");
}

/// As in Feast, where such a pin declares the version; it may as well be a slip of the pen, so it is told.
#[tokio::test]
async fn a_pin_to_a_version_that_there_is_not_makes_it_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let all = ["conv_rate", "trips", "city"];
    let plan = store.apply(&versioned(&all, "v12"), &ApplyOptions::default()).await.unwrap();
    assert_eq!(
        plan.warnings,
        ["feature view `driver_stats` has no version v12, only `v0`: this definition becomes v12"]
    );
    let snapshot = store.snapshot(true).await.unwrap();
    let numbers: Vec<i32> =
        snapshot.versions.iter().filter(|r| r.feature_view == "driver_stats").map(|r| r.version_number).collect();
    assert_eq!(numbers, [0, 12]);
    let plan = store.plan(&versioned(&all, "v12"), &ApplyOptions::default()).await.unwrap();
    assert!(plan.is_empty() && plan.warnings.is_empty(), "{plan:?}");
    store.apply(&versioned(&all, "v0"), &ApplyOptions::default()).await.unwrap();
    let contents = store.contents(true).await.unwrap();
    assert_eq!(contents.feature_view("driver_stats").unwrap().meta.current_version_number, 0);
}

#[tokio::test]
async fn objects_that_are_not_defined_any_more_stay_unless_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let mut fewer = definitions();
    fewer.contents.feature_views.shift_remove("driver_push");
    fewer.contents.data_sources.shift_remove("fresh");
    fewer.contents.data_sources.shift_remove("pushed");
    let kept = store.apply(&fewer, &ApplyOptions::default()).await.unwrap();
    assert!(kept.is_empty());
    assert_eq!(kept.diff.undefined.len(), 3);
    store.apply(&fewer, &ApplyOptions { prune: true, ..ApplyOptions::default() }).await.unwrap();
    let error = online(&store, &["driver_push:trips"], &[1001]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FeatureViewNotFound);
}

#[tokio::test]
async fn all_problems_of_the_definitions_are_told_at_once_and_nothing_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let mut wrong = definitions();
    let view = Arc::make_mut(wrong.contents.feature_views.get_mut("driver_stats").unwrap());
    view.features.push(Field::new("conv_rat", ValueType::Float));
    view.entities.push("rider".to_owned());
    wrong.locations.insert("feature_view/driver_stats".to_owned(), "repo.py:7".to_owned());
    let error = store.apply(&wrong, &ApplyOptions::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("the definitions have 2 problems"), "{text}");
    assert!(text.contains("repo.py:7: feature view `driver_stats` refers to entity `rider`"), "{text}");
    assert!(text.contains("did you mean `conv_rate`?"), "{text}");
    assert!(store.plan(&definitions(), &ApplyOptions::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_newest_row_of_each_key_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    assert_eq!(materialize(&store, Window::Between(at(T0 - 86_400), at(T0))).await, 2);
    let answer = online(&store, &["driver_stats:conv_rate", "driver_stats:city"], &[1001, 1002, 9999]).await.unwrap();
    let names: Vec<&str> = answer.columns.iter().map(|column| &*column.name).collect();
    assert_eq!(names, ["driver_id", "conv_rate", "city"]);
    let rates: Vec<Option<f32>> = answer.columns[1].values.as_primitive::<Float32Type>().iter().collect();
    assert_eq!(rates, [Some(0.3), Some(0.4), None]);
    let cities: Vec<Option<&str>> = answer.columns[2].values.as_string::<i32>().iter().collect();
    assert_eq!(cities, [Some("c"), None, None]);
    let statuses: Vec<&str> = answer.columns[2].statuses.iter().map(|status| status.name()).collect();
    assert_eq!(statuses, ["PRESENT", "PRESENT", "NOT_FOUND"]);
}

#[tokio::test]
async fn an_older_interval_never_takes_a_value_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    materialize(&store, Window::Between(at(T0 - 86_400), at(T0))).await;
    materialize(&store, Window::Between(at(T0 - 86_400), at(T0 - 3600))).await;
    assert_eq!(trips(&store, "driver_stats", 1001).await, Some(30));
    assert_eq!(intervals(&store).await, [Interval { start: at(T0 - 86_400), end: at(T0) }]);
}

#[tokio::test]
async fn incremental_runs_continue_where_the_last_one_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    // A view that was never materialized starts as far before the end as its values live: driver 1003 is older.
    assert_eq!(materialize(&store, Window::Until(at(T0 - 3600))).await, 2);
    assert_eq!(materialize(&store, Window::Until(at(T0))).await, 2);
    assert_eq!(materialize(&store, Window::Until(at(T0 - 60))).await, 0);
    assert_eq!(intervals(&store).await, [Interval { start: at(T0 - 3600 - 86_400), end: at(T0) }]);
}

#[tokio::test]
async fn an_end_in_the_future_is_not_recorded_as_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let before = Utc::now();
    materialize(&store, Window::Between(at(T0 - 86_400), before + TimeDelta::days(365))).await;
    let recorded = intervals(&store).await;
    assert!(recorded[0].end >= before.min(at(T0)) && recorded[0].end <= Utc::now(), "{recorded:?}");
}

#[tokio::test]
async fn a_push_reaches_both_stores_and_newer_values_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let fresh = rows(&[(1001, T0 + 3600, T0 + 3600, 0.9, 90, Some("z"))]);
    store.push("fresh", &fresh, PushTarget::OnlineAndOffline).await.unwrap();
    assert_eq!(trips(&store, "driver_push", 1001).await, Some(90));
    let late = rows(&[(1001, T0, T0 + 7200, 0.8, 80, None)]);
    store.push("fresh", &late, PushTarget::Online).await.unwrap();
    assert_eq!(trips(&store, "driver_push", 1001).await, Some(90));
    let history = historical(&store, "driver_push:trips", &[(1001, T0 + 3600)]).await.unwrap();
    assert_eq!(history, [Some(90)]);
    let error = store.push("frsh", &fresh, PushTarget::Online).await.unwrap_err();
    assert_eq!((error.code(), error.hint()), (ErrorCode::PushSourceNotFound, Some("did you mean `fresh`?")));
}

#[tokio::test]
async fn a_push_that_failed_halfway_is_in_the_history_once_when_it_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let count = async || {
        let batches = store.offline_store().read_dataset("pushed.parquet").await.unwrap().collect().await.unwrap();
        batches.iter().map(RecordBatch::num_rows).sum::<usize>() - driver_rows().num_rows()
    };
    let fresh = rows(&[(1001, T0 + 3600, T0 + 3600, 0.9, 90, Some("z"))]);
    let database = folder.path().join("data/online.db");
    let away = database.with_extension("away");
    std::fs::rename(&database, &away).unwrap();
    std::fs::create_dir(&database).unwrap();
    for _ in 0..2 {
        open(folder.path()).push("fresh", &fresh, PushTarget::OnlineAndOffline).await.unwrap_err();
        assert_eq!(count().await, 0);
    }
    std::fs::remove_dir(&database).unwrap();
    std::fs::rename(&away, &database).unwrap();
    store.push("fresh", &fresh, PushTarget::OnlineAndOffline).await.unwrap();
    assert_eq!((count().await, trips(&store, "driver_push", 1001).await), (1, Some(90)));

    // What the history refuses is not served.
    let later = rows(&[(1001, T0 + 7200, T0 + 7200, 0.9, 91, Some("z"))]);
    let wrong = later.project(&[0, 1, 2, 3, 4]).unwrap();
    store.push("fresh", &wrong, PushTarget::OnlineAndOffline).await.unwrap_err();
    assert_eq!((count().await, trips(&store, "driver_push", 1001).await), (1, Some(90)));
}

async fn historical(store: &FeatureStore, feature: &str, entity_rows: &[(i64, i64)]) -> Result<Vec<Option<i64>>> {
    let drivers: Vec<i64> = entity_rows.iter().map(|row| row.0).collect();
    let seconds: Vec<i64> = entity_rows.iter().map(|row| row.1).collect();
    let batch = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from(drivers)) as ArrayRef),
        ("event_timestamp", times(&seconds)),
    ])?;
    let request = HistoricalFeatures {
        selection: references(&[feature]),
        entity: EntitySource::Batches(batch.schema(), vec![batch]),
        full_feature_names: false,
        filter_by_created_timestamp: false,
        as_of: None,
    };
    let answer = store.get_historical_features(request).await?.batches.collect().await?;
    Ok(answer.iter().flat_map(|batch| batch.column(2).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect())
}

#[tokio::test]
async fn training_rows_see_only_their_past() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let rows = [(1001, T0 - 1), (1001, T0), (1003, T0 - 2 * 86_400), (1003, T0 - 2 * 86_400 + 1), (1001, T0 - 1)];
    let answer = historical(&store, "driver_stats:trips", &rows).await.unwrap();
    assert_eq!(answer, [Some(10), Some(30), Some(50), None, Some(10)]);
}

#[tokio::test]
async fn objects_in_use_are_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let error = store.delete(&ObjectRef::new(ObjectKind::Entity, "driver")).await.unwrap_err();
    assert!(error.to_string().starts_with("entity `driver` is still used by feature view `driver_"), "{error}");
    store.delete(&store.find("driver_stats").await.unwrap()).await.unwrap();
    assert!(store.contents(true).await.unwrap().feature_view("driver_stats").is_err());
}

#[tokio::test]
async fn reading_without_a_registry_asks_for_apply_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let error = online(&store, &["driver_stats:trips"], &[1]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ProjectNotFound);
    assert!(error.hint().unwrap().contains("feast apply"), "{error:?}");
    assert!(!folder.path().join("data/registry.db").exists());
}

#[tokio::test]
async fn teardown_removes_everything_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    store.teardown().await.unwrap();
    store.teardown().await.unwrap();
    assert!(store.contents(true).await.is_err());
}

#[tokio::test]
async fn concurrent_materializations_lose_no_interval() {
    let folder = tempfile::tempdir().unwrap();
    drop(applied(folder.path()).await);
    let runs = (0..8).map(|day| {
        // Each run has a store of its own, as separate processes would.
        let store = open(folder.path());
        async move {
            let (start, end) = (at(T0 - (day + 1) * 86_400), at(T0 - day * 86_400 - 1));
            materialize(&store, Window::Between(start, end)).await
        }
    });
    futures::future::join_all(runs).await;
    let recorded = intervals(&open(folder.path())).await;
    assert_eq!(recorded.len(), 8, "{recorded:?}");
}

#[tokio::test]
async fn entity_columns_that_clash_with_features_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let batch = driver_rows();
    let request = HistoricalFeatures {
        selection: references(&["driver_stats:trips"]),
        entity: EntitySource::Batches(batch.schema(), vec![batch]),
        full_feature_names: false,
        filter_by_created_timestamp: false,
        as_of: None,
    };
    let error = store.get_historical_features(request).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FeatureNameCollision);
}

fn changed(change: impl FnOnce(&mut FeatureView)) -> Definitions {
    let mut definitions = definitions();
    change(Arc::make_mut(definitions.contents.feature_views.get_mut("driver_stats").unwrap()));
    definitions
}

#[tokio::test]
async fn a_view_that_comes_back_online_is_loaded_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    materialize(&store, Window::Until(at(T0))).await;
    store.apply(&changed(|view| view.online = false), &ApplyOptions::default()).await.unwrap();
    store.apply(&definitions(), &ApplyOptions::default()).await.unwrap();
    assert_eq!(intervals(&store).await, []);
    assert_eq!(materialize(&store, Window::Until(at(T0))).await, 2);
    assert_eq!(trips(&store, "driver_stats", 1002).await, Some(40));
}

#[tokio::test]
async fn rows_under_other_keys_are_loaded_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    materialize(&store, Window::Until(at(T0))).await;
    let mut narrow = definitions();
    let entity = Entity::new("driver", "driver_id", ValueType::Int32);
    narrow.contents.put(RegistryObject::Entity(Arc::new(entity)));
    store.apply(&narrow, &ApplyOptions::default()).await.unwrap();
    assert_eq!(materialize(&store, Window::Until(at(T0))).await, 2);
    assert_eq!(trips(&store, "driver_stats", 1002).await, Some(40));
}

#[tokio::test]
async fn values_of_another_type_are_loaded_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    materialize(&store, Window::Until(at(T0))).await;
    let texts = changed(|view| view.features[1].value_type = ValueType::String);
    store.apply(&texts, &ApplyOptions::default()).await.unwrap();
    // What is stored is not served as something else.
    assert!(online(&store, &["driver_stats:trips"], &[1001]).await.is_err());
    assert_eq!(materialize(&store, Window::Until(at(T0))).await, 2);
    let answer = online(&store, &["driver_stats:trips"], &[1001]).await.unwrap();
    assert_eq!(answer.columns[1].values.as_string::<i32>().value(0), "30");
}

#[tokio::test]
async fn a_feature_that_comes_back_has_no_value_of_another_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let push = |seconds: i64, trips: i64| rows(&[(1001, T0 + seconds, T0, 0.5, trips, None)]);
    store.push("fresh", &push(0, 10), PushTarget::Online).await.unwrap();
    let mut fewer = definitions();
    let view = Arc::make_mut(fewer.contents.feature_views.get_mut("driver_push").unwrap());
    view.features.retain(|feature| feature.name != "trips");
    store.apply(&fewer, &ApplyOptions::default()).await.unwrap();
    store.push("fresh", &push(60, 20), PushTarget::Online).await.unwrap();
    store.apply(&definitions(), &ApplyOptions::default()).await.unwrap();
    assert_eq!(trips(&store, "driver_push", 1001).await, None);
}

#[tokio::test]
async fn what_is_still_used_is_not_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let mut fewer = definitions();
    fewer.contents.entities.clear();
    let prune = ApplyOptions { prune: true, ..ApplyOptions::default() };
    let error = store.apply(&fewer, &prune).await.unwrap_err().to_string();
    assert!(error.contains("feature view `driver_push` refers to entity `driver`, which does not exist"), "{error}");
    let delete = vec![ObjectRef::new(ObjectKind::Entity, "driver")];
    let partial = Definitions { contents: ProjectContents::default(), ..Definitions::default() };
    let error = store.apply(&partial, &ApplyOptions { delete, ..ApplyOptions::default() }).await.unwrap_err();
    assert!(error.to_string().contains("is still used by feature view `driver_"), "{error}");
}

#[tokio::test]
async fn two_projects_never_share_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let other = |path: &str| {
        let text = format!(
            "project: proj_driver\nregistry: data/registry.db\nonline_store:\n  type: sqlite\n  path: data/{path}\n"
        );
        FeatureStore::open(RepoConfig::parse_with(&text, folder.path(), &|_| None).unwrap()).unwrap()
    };
    let mut theirs = definitions();
    theirs.contents.project = Project::new("proj_driver");
    theirs.contents.feature_views.retain(|name, _| name == "driver_stats");
    let mut view = FeatureView::clone(&theirs.contents.feature_views.shift_remove("driver_stats").unwrap());
    view.name = "Stats".to_owned();
    theirs.contents.put(RegistryObject::FeatureView(Arc::new(view)));
    let error = other("online.db").apply(&theirs, &ApplyOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("which belongs to view `driver_stats` of project `proj`"), "{error}");
    other("own.db").apply(&theirs, &ApplyOptions::default()).await.unwrap();
    materialize(&store, Window::Until(at(T0))).await;
    assert_eq!(trips(&store, "driver_stats", 1002).await, Some(40));
}

#[tokio::test]
async fn an_endless_ttl_has_no_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let endless = changed(|view| view.ttl = Some(TimeDelta::MAX));
    store.apply(&endless, &ApplyOptions::default()).await.unwrap();
    assert_eq!(materialize(&store, Window::Until(at(T0))).await, 3);
    let request = HistoricalFeatures {
        selection: references(&["driver_stats:trips"]),
        entity: EntitySource::Range { start: None, end: Some(at(T0)) },
        full_feature_names: false,
        filter_by_created_timestamp: false,
        as_of: None,
    };
    let answer = store.get_historical_features(request).await.unwrap().batches.collect().await.unwrap();
    assert_eq!(answer.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
}

#[tokio::test]
async fn concurrent_applies_all_land() {
    let folder = tempfile::tempdir().unwrap();
    drop(applied(folder.path()).await);
    let applies = (0..24).map(|number| {
        let store = open(folder.path());
        async move {
            let mut one = definitions();
            let mut view = FeatureView::clone(&one.contents.feature_views["driver_stats"]);
            view.name = format!("view_{number}");
            one.contents.feature_views.clear();
            one.contents.put(RegistryObject::FeatureView(Arc::new(view)));
            store.apply(&one, &ApplyOptions::default()).await.map(drop)
        }
    });
    futures::future::try_join_all(applies).await.unwrap();
    assert_eq!(open(folder.path()).contents(true).await.unwrap().feature_views.len(), 26);
}

/// Who loses the race for one object is told which it was, and overwrites nothing; the other objects of the loser wait
/// for its decision, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_apply_that_meets_another_change_of_its_object_says_what_moved() {
    let folder = tempfile::tempdir().unwrap();
    drop(applied(folder.path()).await);
    let applies = (0..24).map(|number| {
        let store = open(folder.path());
        tokio::spawn(async move {
            let one = changed(|view| view.description = format!("by {number}"));
            store.apply(&one, &ApplyOptions::default()).await.map(drop)
        })
    });
    let mut refused = 0;
    for apply in futures::future::join_all(applies).await {
        if let Err(error) = apply.unwrap() {
            assert_eq!(error.code(), ErrorCode::Conflict);
            assert_eq!(error.message(), "somebody else has just changed feature view `driver_stats`");
            refused += 1;
        }
    }
    assert!((1..24).contains(&refused), "{refused}");
    let contents = open(folder.path()).contents(true).await.unwrap();
    assert!(contents.feature_views["driver_stats"].description.starts_with("by "));
}

/// Applies another definition as soon as rows are being loaded.
#[derive(Debug)]
struct Meddler(std::path::PathBuf);

impl feast::Observer for Meddler {
    fn on(&self, event: &feast::Event) {
        if matches!(event, feast::Event::MaterializationStarted { .. }) {
            let folder = self.0.clone();
            let apply = move || {
                let fewer = changed(|view| view.features.truncate(1));
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(open(&folder).apply(&fewer, &ApplyOptions::default())).map(drop)
            };
            std::thread::spawn(apply).join().unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn rows_of_an_older_definition_are_not_recorded_for_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    let meddled = store.observed_by(Arc::new(Meddler(folder.path().to_owned())));
    let feature_views = vec!["driver_stats".to_owned()];
    let request =
        MaterializeRequest { window: Window::Until(at(T0)), feature_views, shard: Shard::WHOLE, version: None };
    assert_eq!(meddled.materialize(request).await.unwrap_err().code(), ErrorCode::Conflict);
    assert_eq!(intervals(&store).await, []);
}

#[tokio::test]
async fn deleting_a_project_by_name_takes_its_tables_along() {
    let folder = tempfile::tempdir().unwrap();
    let store = applied(folder.path()).await;
    store.push("fresh", &rows(&[(1001, T0, T0, 0.5, 10, None)]), PushTarget::Online).await.unwrap();
    store.delete(&ObjectRef::new(ObjectKind::Project, "proj")).await.unwrap();
    store.apply(&definitions(), &ApplyOptions::default()).await.unwrap();
    assert_eq!(trips(&store, "driver_push", 1001).await, None);
}
