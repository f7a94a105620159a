//! The verbs with tables of PostgreSQL as history: apply, materialize, push, training data and saved datasets.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int64Type};
use chrono::DateTime;
use feast::{
    ApplyOptions, Definitions, FeatureStore, HistoricalFeatures, MaterializeRequest, OnlineRequest, PushTarget,
    RepoConfig, SaveDataset, Window,
};
use feast_core::{
    BatchFeatures, DataSource, DataSourceOptions, Entity, FeatureSelection, FeatureView, FeatureViewKind, Project,
    ProjectContents, RegistryObject, SavedDataset, SavedDatasetStorage, Shard, ValueType,
};
use feast_offline::EntitySource;
use feast_online::{EntityColumn, EntityRows, EntityValue};
use feast_testing::services::postgres::{self, PostgresServer};

fn relation(table: &str) -> DataSourceOptions {
    let configuration = serde_json::json!({"name": table, "query": "", "table": table}).to_string();
    DataSourceOptions::Custom { configuration: configuration.into_bytes().into() }
}

/// A view over the table `stats`, to which rows can be pushed; its features and types are left open.
fn definitions() -> Definitions {
    let stats = DataSource {
        name: "stats".to_owned(),
        created_timestamp_column: "created".to_owned(),
        class_type: "feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source.PostgreSQLSource".into(),
        options: relation("stats"),
        timestamp_field: "event_timestamp".to_owned(),
        ..DataSource::default()
    };
    let push = DataSource {
        name: "fresh".to_owned(),
        options: DataSourceOptions::Push,
        batch_source: Some(Box::new(stats.clone())),
        class_type: "feast.data_source.PushSource".to_owned(),
        ..DataSource::default()
    };
    let kind = BatchFeatures {
        batch_source: Some(stats.clone()),
        stream_source: Some(push.clone()),
        ..BatchFeatures::default()
    };
    let mut view = FeatureView::new("driver_stats", FeatureViewKind::Batch(kind));
    view.entities = vec!["driver".to_owned()];
    let mut contents = ProjectContents { project: Project::new("proj"), ..ProjectContents::default() };
    contents.put(RegistryObject::Entity(Arc::new(Entity::new("driver", "driver_id", ValueType::Invalid))));
    contents.put(RegistryObject::DataSource(Arc::new(stats)));
    contents.put(RegistryObject::DataSource(Arc::new(push)));
    contents.put(RegistryObject::FeatureView(Arc::new(view)));
    Definitions { contents, ..Definitions::default() }
}

async fn trips(store: &FeatureStore, driver: i64) -> Option<i64> {
    let drivers = EntityColumn::Values(vec![EntityValue::Int(driver)]);
    let request = OnlineRequest {
        selection: FeatureSelection::References(vec!["driver_stats:trips".to_owned()]),
        entity_rows: EntityRows::new(vec![("driver_id".to_owned(), drivers)]).unwrap(),
        full_feature_names: false,
    };
    let answer = store.get_online_features(request).await.unwrap();
    answer.columns[1].values.as_primitive::<Int64Type>().iter().next().flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_verbs_work_on_tables() {
    let (folder, server) = (tempfile::tempdir().unwrap(), PostgresServer::shared());
    let database = server.create_database();
    server.execute(
        &database,
        "CREATE TABLE stats (driver_id int8, event_timestamp timestamptz, created timestamptz, trips int8, rate float8);
         INSERT INTO stats SELECT g % 3, to_timestamp(1700000000 + g), to_timestamp(1700000000 + g), g, g / 2.0
         FROM generate_series(0, 8) g",
    );
    let text = format!(
        "project: proj\nregistry: data/registry.db\nonline_store:\n  type: sqlite\n  path: data/online.db\n\
         offline_store:\n  type: postgres\n  host: {}\n  port: {}\n  database: {database}\n  user: {}\n  \
         password: ${{SECRET}}\n  sslmode: disable\n",
        server.host(),
        server.port(),
        postgres::USER
    );
    let secret = |name: &str| (name == "SECRET").then(|| postgres::PASSWORD.to_owned());
    let store = FeatureStore::open(RepoConfig::parse_with(&text, folder.path(), &secret).unwrap()).unwrap();

    // What the definitions leave open is read from the database.
    store.apply(&definitions(), &ApplyOptions::default()).await.unwrap();
    assert!(store.plan(&definitions(), &ApplyOptions::default()).await.unwrap().is_empty());
    let contents = store.contents(true).await.unwrap();
    let view = contents.feature_view("driver_stats").unwrap();
    let features: Vec<_> = view.features.iter().map(|field| (field.name.as_str(), field.value_type)).collect();
    assert_eq!(features, [("trips", ValueType::Int64), ("rate", ValueType::Double)]);

    let instant = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
    let window = Window::Between(instant(1_700_000_000), instant(1_700_000_007));
    let report = store
        .materialize(MaterializeRequest { window, feature_views: Vec::new(), shard: Shard::WHOLE, version: None })
        .await
        .unwrap();
    assert_eq!(report.feature_views[0].rows, 3);
    assert_eq!([trips(&store, 0).await, trips(&store, 1).await, trips(&store, 2).await], [Some(6), Some(7), Some(5)]);

    let time = |seconds: i64| {
        Arc::new(TimestampMicrosecondArray::from(vec![seconds * 1_000_000]).with_timezone("UTC")) as ArrayRef
    };
    let pushed = RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("event_timestamp", time(1_700_000_020)),
        ("created", time(1_700_000_020)),
        ("trips", Arc::new(Int64Array::from(vec![99]))),
        ("rate", Arc::new(Float64Array::from(vec![0.5]))),
    ])
    .unwrap();
    store.push("fresh", &pushed, PushTarget::OnlineAndOffline).await.unwrap();
    assert_eq!(trips(&store, 1).await, Some(99));
    assert_eq!(server.execute(&database, "SELECT trips, rate FROM stats WHERE trips > 50"), "99|0.5");

    let request = || HistoricalFeatures {
        selection: FeatureSelection::References(vec!["driver_stats:trips".to_owned(), "driver_stats:rate".to_owned()]),
        entity: EntitySource::Sql("SELECT DISTINCT driver_id, now() AS event_timestamp FROM stats ORDER BY 1".into()),
        full_feature_names: false,
        filter_by_created_timestamp: false,
        as_of: None,
    };
    let dataset = SavedDataset {
        name: "kept".to_owned(),
        storage: SavedDatasetStorage(relation("kept")),
        ..SavedDataset::default()
    };
    let rows = store.get_historical_features(request()).await.unwrap();
    store.create_saved_dataset(SaveDataset { dataset, allow_overwrite: false }, rows).await.unwrap();
    let stream = store.offline_store().read_storage(&relation("kept")).await.unwrap();
    let schema = Arc::clone(stream.schema());
    let kept = concat_batches(&schema, &stream.collect().await.unwrap()).unwrap();
    let trips: Vec<_> = kept.column_by_name("trips").unwrap().as_primitive::<Int64Type>().iter().collect();
    assert_eq!(trips, [Some(6), Some(99), Some(8)]);
    let rates: Vec<_> = kept.column_by_name("rate").unwrap().as_primitive::<Float64Type>().iter().collect();
    assert_eq!(rates, [Some(3.0), Some(0.5), Some(4.0)]);
}
