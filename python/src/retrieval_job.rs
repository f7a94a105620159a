//! Training data that is computed when it is read.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use feast::{FeatureStore, HistoricalFeatures};
use feast_core::{Error, FeatureSelection, Result, RetrievalPlan, Timestamp};
use feast_offline::{EntitySource, WriteOptions};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use serde_json::{Value, json};

use crate::errors::IntoPyResult;
use crate::frames::{export, reader_of};
use crate::runtime::wait;

/// Entity rows that can be handed out again for each reading.
#[derive(Debug, Clone)]
pub(crate) enum EntityRows {
    Batches(SchemaRef, Vec<RecordBatch>),
    File(PathBuf),
    Sql(String),
    Range { start: Option<Timestamp>, end: Option<Timestamp> },
}

impl EntityRows {
    fn source(&self) -> EntitySource {
        match self.clone() {
            Self::Batches(schema, batches) => EntitySource::Batches(schema, batches),
            Self::File(path) => EntitySource::File(path),
            Self::Sql(query) => EntitySource::Sql(query),
            Self::Range { start, end } => EntitySource::Range { start, end },
        }
    }
}

/// A request for historical features. Each reading computes it anew.
#[pyclass(module = "feast._feast", frozen)]
pub(crate) struct RetrievalJob {
    pub(crate) store: FeatureStore,
    pub(crate) plan: Arc<RetrievalPlan>,
    pub(crate) selection: FeatureSelection,
    pub(crate) entity: EntityRows,
    pub(crate) full_feature_names: bool,
    pub(crate) filter_by_created_timestamp: bool,
}

impl RetrievalJob {
    fn request(&self) -> HistoricalFeatures {
        HistoricalFeatures {
            selection: self.selection.clone(),
            entity: self.entity.source(),
            full_feature_names: self.full_feature_names,
            filter_by_created_timestamp: self.filter_by_created_timestamp,
        }
    }
}

#[pymethods]
impl RetrievalJob {
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let rows = wait(py, self.store.get_historical_features(self.request()))?;
        export(py, reader_of(rows.batches), requested_schema)
    }

    /// Features, join keys and times, as Feast's retrieval metadata has them.
    fn metadata_json(&self) -> String {
        let keys: Vec<&str> = self.plan.join_keys.iter().map(|key| key.column.as_str()).collect();
        let (start, end) = match &self.entity {
            EntityRows::Range { start, end } => (start.map(|t| t.to_rfc3339()), end.map(|t| t.to_rfc3339())),
            _ => (None, None),
        };
        json!({
            "features": self.plan.references(),
            "keys": keys,
            "min_event_timestamp": start,
            "max_event_timestamp": end,
            "full_feature_names": self.full_feature_names,
            "on_demand_feature_views": self.plan.on_demand.iter().map(|view| view.name.clone()).collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// What is read and joined, view by view.
    fn explain(&self) -> String {
        self.plan
            .views
            .iter()
            .map(|view| {
                let features: Vec<&str> = view.features.iter().map(|feature| feature.field.name.as_str()).collect();
                let source = view.view.batch_source().map_or("none", |source| source.name.as_str());
                let ttl = view.ttl.limit().map_or_else(|| "none".to_owned(), |ttl| format!("{}s", ttl.num_seconds()));
                format!("point-in-time join {} (source {source}, ttl {ttl}): {}\n", view.name, features.join(", "))
            })
            .collect()
    }

    /// Writes the rows as Parquet and returns the files.
    fn write(&self, py: Python<'_>, path: &str, options_json: &str) -> PyResult<Vec<String>> {
        let options: Value = parse_options(options_json).py()?;
        let options = WriteOptions {
            overwrite: options["allow_overwrite"].as_bool().unwrap_or(false),
            ..WriteOptions::default()
        };
        let files = wait(py, async {
            let rows = self.store.get_historical_features(self.request()).await?;
            self.store.offline_store().write_dataset(path, rows.batches, options).await
        })?;
        Ok(files.iter().map(|file| file.display().to_string()).collect())
    }
}

/// The options of a call.
pub(crate) fn parse_options(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::internal("the options of a call are not JSON").with_source(error))
}

/// An instant from microseconds since the epoch.
pub(crate) fn instant(micros: i64) -> Result<Timestamp> {
    DateTime::<Utc>::from_timestamp_micros(micros)
        .ok_or_else(|| Error::invalid_request(format!("{micros} microseconds since 1970 is no valid time")))
}
