//! The batch path: training data by point-in-time join, the latest row per key for materialization, and where
//! rows rest: files, buckets and databases.
//!
//! This crate knows no registry, no online store and no protobuf. It is handed resolved plans and data sources and
//! gives Arrow batches. DataFusion is used here only, and only for entity rows that are given as SQL.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use feast_core::DataSource;
//! use feast_offline::OfflineStore;
//!
//! # async fn example() -> feast_core::Result<()> {
//! let store = OfflineStore::connect(&serde_json::json!({ "type": "file" }), Path::new("feature_repo"))?;
//! let source = DataSource::file("driver_stats", "data/driver_stats.parquet", "event_timestamp");
//! println!("{}", store.schema(&source).await?);
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: the rules of time and value ([`OfflineStore::historical`] applies them through `point_in_time`),
//! what they need (`join_keys`, `timestamps`, `cast`), where rows rest (`sources`), then one file per verb
//! (`historical`, `latest`, `append`, `dataset`, `logs`, `sql`), what computes with them (`engines`), and the databases
//! that do all of that themselves (`warehouses`).

mod point_in_time;
mod regions;
mod table;
mod timelines;
mod waiting_rows;

mod cast;
mod join_keys;
mod kept_rows;
mod packed_rows;
mod row_positions;
mod timestamps;

mod sources;

mod batch_stream;
mod entity_rows;
mod explain;
mod spill;
mod view_columns;

mod append;
mod append_turns;
mod compaction;
mod dataset;
mod entity_range;
mod found_features;
mod historical;
mod latest;
mod leaks;
mod logs;
mod newest;
mod parallel;
mod part_join;
mod sql;
mod store;
mod warehouses;
mod window_rows;
mod winners;

mod engines;

#[cfg(test)]
mod oracle;

pub use batch_stream::{BatchStream, ExpectedRows};
pub use dataset::WriteOptions;
pub use engines::{ComputeEngine, LocalEngine, MaterializationTask, Materialized};
pub use entity_rows::EntitySource;
pub use explain::{ExplainedStep, Explanation};
pub use historical::{HistoricalRequest, HistoricalStream};
pub use latest::{CREATED_TIMESTAMP_COLUMN, EVENT_TIMESTAMP_COLUMN, LatestRequest};
pub use leaks::{FeatureLeak, LeakReport};
pub use newest::{NewestRead, NewestRow};
pub use sources::csv::codes_as_text;
pub use store::{Append, OfflineStore};
