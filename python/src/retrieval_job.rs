//! Training data that is computed when it is read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use feast::{HistoricalFeatures, SaveDataset};
use feast_core::{Error, FeatureSelection, ObjectKind, RegistryObject, Result, RetrievalPlan, SavedDataset, Timestamp};
use feast_offline::{EntitySource, HistoricalStream, WriteOptions};
use futures::TryStreamExt;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use serde_json::{Value, json};

use crate::errors::IntoPyResult;
use crate::frames::{ArrowStream, export, reader_of};
use crate::runtime::wait_long;
use crate::store::Store;

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
    /// Asked for its parts at each reading, because this process may be a fork of the one that made the request.
    pub(crate) store: Py<Store>,
    pub(crate) plan: Arc<RetrievalPlan>,
    pub(crate) selection: FeatureSelection,
    pub(crate) entity: EntityRows,
    pub(crate) full_feature_names: bool,
    pub(crate) filter_by_created_timestamp: bool,
    pub(crate) as_of: Option<Timestamp>,
}

impl RetrievalJob {
    fn request(&self) -> HistoricalFeatures {
        HistoricalFeatures {
            selection: self.selection.clone(),
            entity: self.entity.source(),
            full_feature_names: self.full_feature_names,
            filter_by_created_timestamp: self.filter_by_created_timestamp,
            as_of: self.as_of,
        }
    }

    fn start(&self, py: Python<'_>) -> PyResult<HistoricalStream> {
        let (store, request) = (self.store.get().store().py()?, self.request());
        wait_long(py, async move { store.get_historical_features(request).await })
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
        let rows = self.start(py)?;
        export(py, reader_of(rows.batches)?, requested_schema)
    }

    /// The rows, for the Python side to read: failures keep their exception, and the time can be limited to seconds.
    /// Whether all of them are `kept` decides what is in memory meanwhile.
    #[pyo3(signature = (timeout=None, kept=false))]
    fn rows(&self, py: Python<'_>, timeout: Option<f64>, kept: bool) -> PyResult<ArrowStream> {
        let (started, timeout) = (Instant::now(), time_limit(timeout));
        let rows = self.start(py)?.batches;
        if kept {
            rows.will_be_kept();
        }
        ArrowStream::new(rows, timeout, started)
    }

    /// Least and greatest time of the entity rows, in microseconds since 1970.
    fn time_range(&self, py: Python<'_>) -> PyResult<(Option<i64>, Option<i64>)> {
        let micros = |time: Timestamp| time.timestamp_micros();
        if let EntityRows::Range { start, end } = &self.entity {
            return Ok((start.map(micros), end.map(micros)));
        }
        let rows = self.start(py)?;
        Ok((rows.min_event_timestamp.map(micros), rows.max_event_timestamp.map(micros)))
    }

    /// Feature references and join keys.
    fn metadata_json(&self) -> String {
        let keys: Vec<&str> = self.plan.join_keys.iter().map(|key| key.column.as_str()).collect();
        json!({"features": self.plan.references(), "keys": keys}).to_string()
    }

    /// Reads all rows, and says what each step took.
    fn explain(&self, py: Python<'_>) -> PyResult<String> {
        let (store, request) = (self.store.get().store().py()?, self.request());
        wait_long(py, async move {
            let mut rows = store.get_historical_features(request).await?;
            while rows.batches.try_next().await?.is_some() {}
            Ok(rows.explanation.to_string())
        })
    }

    /// How often features would have other values had later corrections been used, as JSON.
    fn leak_report(&self, py: Python<'_>) -> PyResult<String> {
        let (store, request) = (self.store.get().store().py()?, self.request());
        let report = wait_long(py, async move { store.leak_report(request).await })?;
        serde_json::to_string(&report)
            .map_err(|error| Error::internal("the report cannot be written as JSON").with_source(error))
            .py()
    }

    /// What is read and joined, view by view.
    fn plan(&self) -> String {
        self.plan
            .views
            .iter()
            .map(|view| {
                let features: Vec<&str> = view.features.iter().map(|feature| feature.field.name.as_str()).collect();
                let source = view.view.batch_source().map_or("none", |source| source.name.as_str());
                let ttl = view.ttl.limit().map_or_else(|| "none".to_owned(), |ttl| format!("{}s", ttl.num_seconds()));
                format!("point-in-time join {} (source {source}, ttl {ttl}): {}\n", view.name, features.join(", "))
            })
            .chain(self.plan.on_demand.iter().map(|view| {
                let features: Vec<&str> = view.features.iter().map(|feature| feature.field.name.as_str()).collect();
                format!("compute {}: {}\n", view.name, features.join(", "))
            }))
            .collect()
    }

    /// Writes the rows as Parquet and returns the files.
    fn write(&self, py: Python<'_>, path: String, allow_overwrite: bool) -> PyResult<Vec<String>> {
        let (store, request) = (self.store.get().store().py()?, self.request());
        let options = WriteOptions { overwrite: allow_overwrite, ..WriteOptions::default() };
        let files = wait_long(py, async move {
            let rows = store.get_historical_features(request).await?;
            store.offline_store().write_dataset(&path, rows.batches, options).await
        })?;
        Ok(files.iter().map(|file| file.display().to_string()).collect())
    }

    /// Writes the rows to the storage of a dataset (a `feast.core.SavedDataset`) and records it in the registry.
    fn save(&self, py: Python<'_>, dataset: &[u8], allow_overwrite: bool) -> PyResult<()> {
        let RegistryObject::SavedDataset(dataset) =
            feast_proto::decode_object(ObjectKind::SavedDataset, dataset).py()?
        else {
            return Err(Error::internal("a saved dataset was decoded as something else")).py();
        };
        let (store, request) = (self.store.get().store().py()?, self.request());
        let dataset = SaveDataset { dataset: SavedDataset::clone(&dataset), allow_overwrite };
        wait_long(py, async move {
            let rows = store.get_historical_features(request).await?;
            store.create_saved_dataset(dataset, rows).await.map(drop)
        })
    }
}

/// A timeout in seconds; one that is no time at all, or longer than clocks count, is none.
pub(crate) fn time_limit(seconds: Option<f64>) -> Option<Duration> {
    let limit = Duration::try_from_secs_f64(seconds?.max(0.0)).ok()?;
    Instant::now().checked_add(limit).map(|_| limit)
}

/// The options of a call.
pub(crate) fn parse_options(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::internal("the options of a call are not JSON").with_source(error))
}

/// An instant from microseconds since the epoch.
pub(crate) fn instant(micros: i64) -> Result<Timestamp> {
    DateTime::<Utc>::from_timestamp_micros(micros).ok_or_else(|| {
        Error::invalid_request(format!("{micros} microseconds since 1970 is no valid time"))
            .with_hint("give a time between the years 1 and 9999")
    })
}
