//! Times a point-in-time join and a read of the latest rows on made-up rows:
//! `cargo run --release -p feast-offline --example point_in_time -- [entity rows] [feature rows] [features]`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use feast_core::{
    BatchFeatures, DataSource, FeatureSelection, FeatureView, FeatureViewKind, Field, Project, ProjectContents,
    RegistryObject, Result, RetrievalPlan, Timestamp, ValueType,
};
use feast_offline::{EntitySource, HistoricalRequest, LatestRequest, OfflineStore};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;

const MINUTE: i64 = 60_000_000;

#[tokio::main]
async fn main() -> Result<()> {
    let numbers: Vec<i64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let number = |index: usize, default: i64| numbers.get(index).copied().unwrap_or(default);
    let (n_entity, n_features, n_columns) = (number(0, 100_000), number(1, 1_000_000), number(2, 10));
    let n_keys = (n_features / 100).max(1);
    let folder = std::env::temp_dir().join(format!("feast-point-in-time-{n_features}-{n_columns}"));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("stats.parquet");
    if !path.exists() {
        write(&path, n_features, n_columns, n_keys);
    }

    let source = DataSource::file("stats", "stats.parquet", "event_timestamp");
    let batch = BatchFeatures { batch_source: Some(source), ..BatchFeatures::default() };
    let mut view = FeatureView::new("stats", FeatureViewKind::Batch(batch));
    view.entities = vec!["driver".to_owned()];
    view.entity_columns = vec![Field::new("driver_id", ValueType::Int64)];
    view.features = (0..n_columns).map(|n| Field::new(format!("f{n}"), ValueType::Double)).collect();
    let view = Arc::new(view);
    let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
    contents.put(RegistryObject::FeatureView(Arc::clone(&view)));
    let references = (0..n_columns).map(|n| format!("stats:f{n}")).collect();
    let plan = RetrievalPlan::resolve(&contents, &FeatureSelection::References(references), false)?;

    let store = OfflineStore::connect(&serde_json::Value::Null, &folder)?;
    let entity = keys_and_times(n_entity, n_keys, 7);
    let started = Instant::now();
    let request = HistoricalRequest {
        plan: Arc::new(plan),
        entity: EntitySource::Batches(entity.schema(), vec![entity]),
        tables: Vec::new(),
        filter_by_created_timestamp: false,
        as_of: None,
    };
    let mut stream = store.historical(request).await?.batches;
    let (mut n_rows, mut n_found) = (0, 0);
    while let Some(batch) = stream.next().await.transpose()? {
        n_rows += batch.num_rows();
        n_found += batch.num_rows() - batch.column(2).null_count();
    }
    println!("point-in-time join: {n_rows} rows, {n_found} found, {:.3} s", started.elapsed().as_secs_f64());

    let started = Instant::now();
    let request = LatestRequest { view, start: Timestamp::UNIX_EPOCH, end: Timestamp::MAX_UTC };
    let mut stream = store.latest(request).await?;
    let mut n_rows = 0;
    while let Some(batch) = stream.next().await.transpose()? {
        n_rows += batch.num_rows();
    }
    println!("latest rows: {n_rows} of {n_features}, {:.3} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Keys and times in no order, the same for the same seed.
fn keys_and_times(n_rows: i64, n_keys: i64, seed: u64) -> RecordBatch {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i64
    };
    let keys = Int64Array::from_iter_values((0..n_rows).map(|_| random() % n_keys));
    let times = TimestampMicrosecondArray::from_iter_values((0..n_rows).map(|_| random() % 100_000 * MINUTE));
    RecordBatch::try_from_iter([
        ("driver_id", Arc::new(keys) as ArrayRef),
        ("event_timestamp", Arc::new(times.with_timezone("UTC"))),
    ])
    .unwrap()
}

fn write(path: &Path, n_rows: i64, n_columns: i64, n_keys: i64) {
    let mut writer = None;
    for start in (0..n_rows).step_by(100_000) {
        let n_rows = 100_000.min(n_rows - start);
        let rows = keys_and_times(n_rows, n_keys, start as u64);
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("driver_id".to_owned(), Arc::clone(rows.column(0))),
            ("event_timestamp".to_owned(), Arc::clone(rows.column(1))),
        ];
        for column in 0..n_columns {
            let values = (start..start + n_rows).map(|row| (row * 31 + column) as f64 / 7.0);
            columns.push((format!("f{column}"), Arc::new(Float64Array::from_iter_values(values))));
        }
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let writer = writer
            .get_or_insert_with(|| ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap());
        writer.write(&batch).unwrap();
    }
    writer.unwrap().close().unwrap();
}
