//! Training sets that are kept, with how they were made.

use std::path::PathBuf;
use std::sync::Arc;

use feast_core::{RegistryObject, Result, SavedDataset};
use feast_offline::{HistoricalStream, WriteOptions};

use crate::FeatureStore;

/// What to record about a dataset that is being kept.
#[derive(Debug)]
pub struct SaveDataset {
    /// Name, storage, tags and how the rows were made; times are filled in.
    pub dataset: SavedDataset,
    /// Whether an existing file may be replaced.
    pub allow_overwrite: bool,
}

impl FeatureStore {
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
