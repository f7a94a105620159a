//! Training sets that are kept, with how they were made.

use std::path::PathBuf;
use std::sync::Arc;

use feast_core::{DataSourceOptions, Error, RegistryObject, Result, SavedDataset, SavedDatasetStorage};
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
    /// `SavedDatasetLocationExists` unless overwriting is allowed; `Unsupported` for other storages than files.
    pub async fn create_saved_dataset(&self, request: SaveDataset, rows: HistoricalStream) -> Result<Vec<PathBuf>> {
        let path = storage_path(&request.dataset.storage)?.to_owned();
        let mut dataset = request.dataset;
        dataset.meta.min_event_timestamp = rows.min_event_timestamp;
        dataset.meta.max_event_timestamp = rows.max_event_timestamp;
        let options = WriteOptions { overwrite: request.allow_overwrite, ..WriteOptions::default() };
        let files = self.offline.write_dataset(&path, rows.batches, options).await?;
        self.put(RegistryObject::SavedDataset(Arc::new(dataset))).await?;
        Ok(files)
    }
}

/// The path of a file storage.
fn storage_path(storage: &SavedDatasetStorage) -> Result<&str> {
    match &storage.0 {
        DataSourceOptions::File { uri, .. } => Ok(uri),
        _ => Err(Error::unsupported("saved datasets can be kept in files only, so far")
            .with_hint("use `SavedDatasetFileStorage(path=...)`")),
    }
}
