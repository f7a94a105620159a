//! What a process that is killed in the middle of its work leaves to others: whole rows, whole files, a whole registry.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use chrono::DateTime;
use feast::{
    ApplyOptions, Definitions, FeatureStore, MaterializeRequest, OnlineRequest, PushTarget, RepoConfig, Window,
};
use feast_core::{
    BatchFeatures, DataSource, DataSourceOptions, Entity, FeatureSelection, FeatureView, FeatureViewKind, Field,
    Project, ProjectContents, RegistryObject, Shard, ValueType,
};
use feast_offline::{BatchStream, WriteOptions};
use feast_online::{EntityColumn, EntityRows, EntityValue};

const DRIVERS: i64 = 200;

/// In the folder of a process that is to be killed.
const MARK: &str = "works-until-killed";

/// One row per driver: both features are `number`, and so is the time.
fn rows(number: i64) -> RecordBatch {
    let column = |value: i64| Arc::new(Int64Array::from(vec![value; DRIVERS as usize])) as ArrayRef;
    let times = TimestampMicrosecondArray::from(vec![number * 1_000_000; DRIVERS as usize]).with_timezone("UTC");
    RecordBatch::try_from_iter([
        ("driver_id", Arc::new(Int64Array::from_iter_values(0..DRIVERS)) as ArrayRef),
        ("event_timestamp", Arc::new(times)),
        ("one", column(number)),
        ("two", column(number)),
    ])
    .unwrap()
}

fn definitions(number: i64) -> Definitions {
    let source = DataSource::file("rows", "rows.parquet", "event_timestamp");
    let push = DataSource {
        name: "fresh".to_owned(),
        options: DataSourceOptions::Push,
        batch_source: Some(Box::new(source.clone())),
        ..DataSource::default()
    };
    let kind = BatchFeatures {
        batch_source: Some(source.clone()),
        stream_source: Some(push.clone()),
        ..BatchFeatures::default()
    };
    let mut view = FeatureView::new("stats", FeatureViewKind::Batch(kind));
    view.entities = vec!["driver".to_owned()];
    view.features = ["one", "two"].map(|name| Field::new(name, ValueType::Int64)).to_vec();
    view.tags.insert("number".to_owned(), number.to_string());
    let mut contents = ProjectContents { project: Project::new("proj"), ..ProjectContents::default() };
    contents.put(RegistryObject::Entity(Arc::new(Entity::new("driver", "driver_id", ValueType::Int64))));
    contents.put(RegistryObject::DataSource(Arc::new(source)));
    contents.put(RegistryObject::DataSource(Arc::new(push)));
    contents.put(RegistryObject::FeatureView(Arc::new(view)));
    Definitions { contents, ..Definitions::default() }
}

fn open(folder: &Path) -> FeatureStore {
    let text = "project: proj\nregistry: data/registry.db\nonline_store: sqlite\n";
    FeatureStore::open(RepoConfig::parse_with(text, folder, &|_| None).unwrap()).unwrap()
}

/// The newest value everywhere: of each feature and driver online, and the numbers of the batches in the file.
async fn served(folder: &Path) -> (Vec<i64>, BTreeSet<i64>) {
    let store = open(folder);
    let drivers = EntityColumn::Values((0..DRIVERS).map(EntityValue::Int).collect());
    let request = OnlineRequest {
        selection: FeatureSelection::References(vec!["stats:one".to_owned(), "stats:two".to_owned()]),
        entity_rows: EntityRows::new(vec![("driver_id".to_owned(), drivers)]).unwrap(),
        full_feature_names: false,
    };
    let answer = store.get_online_features(request).await.unwrap();
    let mut values: Vec<i64> = answer.columns[1..]
        .iter()
        .flat_map(|column| column.values.as_primitive::<Int64Type>().values().to_vec())
        .collect();
    values.dedup();
    let batches = store.offline_store().read_dataset("rows.parquet").await.unwrap().collect().await.unwrap();
    let n_rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(n_rows % DRIVERS as usize, 0, "a part of a batch is in the file");
    let numbers = batches
        .iter()
        .flat_map(|batch| batch.column_by_name("one").unwrap().as_primitive::<Int64Type>().values().to_vec());
    (values, numbers.collect())
}

/// The process that is killed: it pushes, materializes and applies, and tells what is done.
#[tokio::test]
async fn work_until_killed() {
    let folder = std::env::current_dir().unwrap();
    if !folder.join(MARK).exists() {
        return;
    }
    let store = open(&folder);
    // Whoever sent this was perhaps never told that it is there, and sends it again.
    let mut number = served(&folder).await.0[0] - 1;
    let told = |what: &str, number: i64| {
        std::io::stdout().write_all(format!("{what} {number}\n").as_bytes()).unwrap();
    };
    loop {
        number += 1;
        store.push("fresh", &rows(number), PushTarget::OnlineAndOffline).await.unwrap();
        told("pushed", number);
        let window = Window::Between(DateTime::UNIX_EPOCH, DateTime::from_timestamp(number, 0).unwrap());
        store
            .materialize(MaterializeRequest { window, feature_views: Vec::new(), shard: Shard::WHOLE, version: None })
            .await
            .unwrap();
        told("materialized", number);
        store.apply(&definitions(number), &ApplyOptions::default()).await.unwrap();
        told("applied", number);
    }
}

#[tokio::test]
async fn a_killed_process_leaves_everything_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = BatchStream::from_batches(rows(1).schema(), vec![rows(1)]);
    store.offline_store().write_dataset("rows.parquet", first, WriteOptions::default()).await.unwrap();
    store.apply(&definitions(1), &ApplyOptions::default()).await.unwrap();
    store.push("fresh", &rows(1), PushTarget::Online).await.unwrap();
    std::fs::write(folder.path().join(MARK), "").unwrap();
    let (mut pushed, mut applied) = (1, 1);
    for n_told in [0, 1, 2, 3, 4, 5, 9] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::work_until_killed", "--nocapture"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let told = lines.filter(|line| ["pushed ", "materialized ", "applied "].iter().any(|w| line.starts_with(w)));
        for line in told.take(n_told) {
            let (what, number) = line.split_once(' ').unwrap();
            match what {
                "pushed" => pushed = number.parse().unwrap(),
                "applied" => applied = number.parse().unwrap(),
                _ => {}
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (values, numbers) = served(folder.path()).await;
        assert_eq!(values.len(), 1, "rows of several pushes are served together: {values:?}");
        assert!(values[0] >= pushed, "{values:?} is older than {pushed}");
        // The last one may be on its way.
        let last = pushed.max(values[0] - 1);
        assert!((1..=last).all(|number| numbers.contains(&number)), "{numbers:?} are in the file, {pushed} was pushed");
        let contents = open(folder.path()).contents(true).await.unwrap();
        let view = contents.feature_view("stats").unwrap();
        assert!(view.tags["number"].parse::<i64>().unwrap() >= applied);
        assert!(view.meta.materialization_intervals.iter().all(|interval| interval.end.timestamp() <= values[0]));
    }
}
