//! Values that a store keeps serialized go into answers as they are. The answers are those that columns give, byte for
//! byte, or the same errors.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::Array;
use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::Request;
use feast::FeatureStore;
use feast_core::{
    CellPlace, OnlineRead, OnlineRows, OnlineStore, OnlineWrite, Reading, Result, StoredCells, StoredRows, TableChange,
    ValueType,
};
use feast_proto::value_codec::encode_column;
use feast_server::{ServeOptions, router};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::fixture;

/// The store of the repository, which gives away what it keeps, some of it damaged.
#[derive(Debug)]
struct Serialized {
    store: Arc<dyn OnlineStore>,
    /// A feature whose values are of another type than declared.
    changed: Option<(&'static str, ValueType)>,
    n_reads: AtomicUsize,
}

impl fmt::Display for Serialized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl Serialized {
    /// Every row in a part of its own, and null as no cell or as an empty one.
    fn stored(&self, read: &OnlineRead<'_>, rows: &OnlineRows) -> StoredRows {
        let (n_rows, n_columns) = (rows.values.num_rows(), rows.values.num_columns());
        let columns: Vec<_> = read
            .wanted
            .fields()
            .zip(rows.values.columns())
            .map(|(field, column)| match self.changed.filter(|(name, _)| *name == field.name) {
                None => encode_column(column, field.value_type).unwrap(),
                Some((_, value_type)) => {
                    let other = arrow::compute::cast(column, &value_type.arrow_type()).unwrap();
                    encode_column(&other, value_type).unwrap()
                }
            })
            .collect();
        let (mut parts, mut places) = (Vec::new(), Vec::new());
        for row in 0..n_rows {
            // The first column is none of those that are wanted.
            let mut part = b"other".to_vec();
            places.push(CellPlace::new(0, part.len()).unwrap());
            for (cells, column) in columns.iter().zip(rows.values.columns()) {
                let place = CellPlace::new(part.len(), cells.value_length(row) as usize).unwrap();
                places.push(if column.is_null(row) && row % 2 == 0 { CellPlace::NONE } else { place });
                part.extend_from_slice(cells.value(row));
            }
            parts.push(Bytes::from(part));
        }
        let cells = StoredCells::new(parts, (0..n_rows as u32).collect(), places, n_columns + 1);
        let event_timestamps = rows.event_timestamps.clone();
        StoredRows { cells: Arc::new(cells), first_column: 1, n_columns, event_timestamps }
    }
}

#[async_trait]
impl OnlineStore for Serialized {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        self.store.read(reads).await
    }
    fn read_stored<'a>(&'a self, reads: &'a [OnlineRead<'a>]) -> Option<Reading<'a, Vec<StoredRows>>> {
        self.n_reads.fetch_add(1, Ordering::Relaxed);
        Some(Box::pin(async move {
            let rows = self.store.read(reads).await?;
            Ok(reads.iter().zip(&rows).map(|(read, rows)| self.stored(read, rows)).collect())
        }))
    }
    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        self.store.write(write).await
    }
    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        self.store.update(changes).await
    }
    async fn check(&self) -> Result<()> {
        self.store.check().await
    }
    fn preferred_batch_rows(&self) -> usize {
        self.store.preferred_batch_rows()
    }
}

async fn servers(
    more: &str,
    changed: Option<(&'static str, ValueType)>,
) -> (tempfile::TempDir, [Router; 2], Arc<Serialized>) {
    let (folder, store) = fixture::feature_store().await;
    let online = Arc::clone(store.online_store().unwrap());
    let serialized = Arc::new(Serialized { store: Arc::clone(&online), changed, n_reads: AtomicUsize::new(0) });
    let both = [online, Arc::clone(&serialized) as Arc<dyn OnlineStore>].map(|online| {
        let builder = FeatureStore::builder(fixture::config(folder.path(), more));
        router(builder.online_store(online).open().unwrap(), &ServeOptions::default())
    });
    (folder, both, serialized)
}

async fn ask(router: &Router, body: &Value) -> (u16, String) {
    let request = Request::post("/get-online-features").body(Body::from(body.to_string())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn requests() -> Vec<Value> {
    let shapes = "d f b i l s y t dl fl sl il bl tl".split(' ').map(|name| format!("shapes:{name}"));
    let ids: Vec<String> = (0..14).map(|id| id.to_string()).collect();
    let drivers = json!([1001, 7, 1003, 1001, 1002]);
    let features = json!(["driver_stats:trips", "glob:g", "driver_push:city", "driver_stats:conv_rate"]);
    vec![
        json!({"features": shapes.collect::<Vec<_>>(), "entities": {"id": ids}}),
        json!({"features": features, "entities": {"driver_id": drivers}}),
        json!({"features": features, "entities": {"driver_id": [1002], "id": ["1"]}, "full_feature_names": true}),
        json!({"features": ["glob:g"], "entities": {"driver_id": []}}),
        json!({"features": ["extras:m", "extras:j", "extras:u"], "entities": {"id": ["", "1"]}}),
        json!({"feature_service": "driver_service", "entities": {"driver_id": drivers},
               "include_feature_view_version_metadata": true}),
        json!({"features": features, "entities": {"driver_id": [null]}}),
    ]
}

#[tokio::test]
async fn answers_are_those_of_columns() {
    for policy in ["ignore", "status", "hide"] {
        let (_folder, [columns, serialized], store) =
            servers(&format!("online_serving: {{ttl_policy: {policy}}}\n"), None).await;
        for request in requests() {
            assert_eq!(ask(&serialized, &request).await, ask(&columns, &request).await, "{policy}: {request}");
        }
        assert!(store.n_reads.load(Ordering::Relaxed) >= 5);
    }
}

#[tokio::test]
async fn values_of_other_types_convert_or_are_refused_by_name() {
    let request = json!({"features": ["driver_stats:conv_rate", "driver_stats:trips"],
                         "entities": {"driver_id": [1001, 7, 1002]}});
    let (_folder, [columns, serialized], _) = servers("", Some(("trips", ValueType::Int32))).await;
    let found = ask(&serialized, &request).await;
    assert_eq!(found, ask(&columns, &request).await);
    assert!(found.1.contains("[30,null,40]"), "{}", found.1);
    let (_folder, [_, serialized], _) = servers("", Some(("trips", ValueType::String))).await;
    let (status, text) = ask(&serialized, &request).await;
    assert!(status >= 400, "{status}");
    for part in ["a value of type STRING was found where INT64 is declared", "trips", "driver_stats"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn views_that_may_fall_back_are_read_as_columns() {
    let (_folder, [columns, serialized], store) =
        servers("online_serving: {fallback_views: all}\n", Some(("trips", ValueType::String))).await;
    let request = json!({"features": ["driver_stats:trips"], "entities": {"driver_id": [1001]}});
    assert_eq!(ask(&serialized, &request).await, ask(&columns, &request).await);
    assert_eq!(store.n_reads.load(Ordering::Relaxed), 0);
}
