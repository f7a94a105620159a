//! Training sets that are kept, with how they were made.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field as ArrowField, Schema};
use feast_core::{Error, FeatureSelection, ObjectKind, ObjectRef, RegistryObject, Result, SavedDataset};
use feast_offline::{EntitySource, HistoricalStream, WriteOptions};
use futures::StreamExt;

use crate::{FeatureStore, HistoricalFeatures};

/// What to record about a dataset that is being kept.
#[derive(Debug)]
pub struct SaveDataset {
    /// Name, storage, tags and how the rows were made; times are filled in.
    pub dataset: SavedDataset,
    /// Whether an existing file may be replaced.
    pub allow_overwrite: bool,
}

/// A dataset that is made of history in one go.
#[derive(Debug)]
pub struct DatasetFromHistory {
    /// Name, storage and tags; what the rows are made of is filled in.
    pub dataset: SavedDataset,
    /// Which features.
    pub selection: FeatureSelection,
    /// For which entities at which times.
    pub rows: DatasetRows,
    /// Columns with one value for all rows: name, and an array of that value.
    pub constants: Vec<(String, ArrayRef)>,
    /// Whether an existing file may be replaced.
    pub allow_overwrite: bool,
}

/// Entity rows, at hand or in a file.
#[derive(Debug)]
pub enum DatasetRows {
    /// The rows.
    Given(RecordBatch),
    /// A Parquet or CSV file, directory or glob; relative paths start at the feature repository.
    File(String),
}

impl FeatureStore {
    /// Makes training data, writes it to the storage and records the dataset in the registry.
    ///
    /// # Errors
    /// As [`FeatureStore::get_historical_features`] and [`FeatureStore::create_saved_dataset`].
    pub async fn create_dataset_from_history(&self, request: DatasetFromHistory) -> Result<()> {
        let DatasetFromHistory { mut dataset, selection, rows, constants, allow_overwrite } = request;
        let rows = match rows {
            DatasetRows::Given(rows) => vec![rows],
            DatasetRows::File(path) => self.offline.read_dataset(&path).await?.collect().await?,
        };
        let rows = rows.iter().map(|rows| with_constants(rows, &constants)).collect::<Result<Vec<_>>>()?;
        let schema = rows.first().map(RecordBatch::schema).ok_or_else(|| {
            Error::invalid_request("a dataset was asked for without entity rows").with_hint("give at least one row")
        })?;
        let (plan, _) = Box::pin(self.resolve_historical(&selection, dataset.full_feature_names)).await?;
        dataset.features = plan.references();
        dataset.join_keys = plan.join_keys.iter().map(|key| key.column.clone()).collect();
        if let FeatureSelection::ServiceName(service) = &selection {
            dataset.feature_service_name.clone_from(service);
        }
        let history = HistoricalFeatures {
            selection,
            entity: EntitySource::Batches(schema, rows),
            full_feature_names: dataset.full_feature_names,
            filter_by_created_timestamp: false,
            as_of: None,
        };
        let history = Box::pin(self.get_historical_features(history)).await?;
        self.create_saved_dataset(SaveDataset { dataset, allow_overwrite }, history).await.map(drop)
    }

    /// The first rows of a saved dataset.
    ///
    /// # Errors
    /// `SavedDatasetNotFound`, and those of reading its storage.
    pub async fn head_of_dataset(&self, name: &str, n_rows: usize) -> Result<Vec<RecordBatch>> {
        let contents = self.contents(false).await?;
        let dataset = contents.saved_datasets.get(name);
        let dataset =
            dataset.ok_or_else(|| ObjectRef::new(ObjectKind::SavedDataset, name).not_found(self.project()))?;
        let mut batches = self.offline.read_storage(&dataset.storage.0).await?;
        let mut head = Vec::new();
        let mut left = n_rows;
        while left > 0
            && let Some(batch) = batches.next().await
        {
            let batch = batch?;
            let taken = batch.num_rows().min(left);
            left -= taken;
            head.push(batch.slice(0, taken));
        }
        Ok(head)
    }

    /// Writes rows to the storage and records the dataset in the registry.
    ///
    /// # Errors
    /// `SavedDatasetLocationExists` unless overwriting is allowed; `Unsupported` for storages that the offline store does not have.
    pub async fn create_saved_dataset(&self, request: SaveDataset, rows: HistoricalStream) -> Result<Vec<PathBuf>> {
        let mut dataset = request.dataset;
        dataset.meta.min_event_timestamp = rows.min_event_timestamp;
        dataset.meta.max_event_timestamp = rows.max_event_timestamp;
        let options = WriteOptions { overwrite: request.allow_overwrite, ..WriteOptions::default() };
        let files = self.offline.write_storage(&dataset.storage.0, rows.batches, options).await?;
        self.put(RegistryObject::SavedDataset(Arc::new(dataset))).await?;
        Ok(files)
    }
}

/// The rows with a column more for each constant; one that is there already is replaced.
fn with_constants(rows: &RecordBatch, constants: &[(String, ArrayRef)]) -> Result<RecordBatch> {
    let schema = rows.schema();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    let mut columns = rows.columns().to_vec();
    for (name, value) in constants {
        let column = take(value, &UInt32Array::from(vec![0; rows.num_rows()]), None)?;
        let field = Arc::new(ArrowField::new(name, column.data_type().clone(), true));
        match schema.index_of(name) {
            Ok(position) => (fields[position], columns[position]) = (field, column),
            Err(_) => {
                fields.push(field);
                columns.push(column);
            }
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
