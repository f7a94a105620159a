//! The trait of what runs the user's functions.

use std::fmt;

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::{FeatureView, Result};

/// Runs the function of an on-demand view on a batch.
#[async_trait]
pub trait Transformer: fmt::Debug + Send + Sync + 'static {
    /// Returns one row per input row, in order, with one column per feature of `view`, of the declared types.
    /// Pure per batch: online and offline use the same call.
    async fn apply(&self, view: &FeatureView, input: RecordBatch) -> Result<RecordBatch>;
}
