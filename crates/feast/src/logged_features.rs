//! Served features, kept in the log of their feature service.

use arrow::array::RecordBatch;
use feast_core::{Error, FeatureService, Result};

use crate::FeatureStore;

impl FeatureStore {
    /// Adds rows to the log that a feature service names. A reader sees all of them or none.
    ///
    /// # Errors
    /// `InvalidRequest` for a service that logs nowhere; `Unsupported` for other destinations than files.
    pub async fn write_logged_features(&self, service: &FeatureService, rows: RecordBatch) -> Result<u64> {
        let destination =
            service.logging.as_ref().and_then(|logging| logging.destination.as_ref()).ok_or_else(|| {
                Error::invalid_request(format!("feature service `{}` has no logging config", service.name))
                    .with_hint("declare it with `logging_config=LoggingConfig(destination=...)`")
            })?;
        self.offline.write_log(destination, rows).await
    }
}
