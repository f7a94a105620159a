//! The trait of what runs the user's functions.

use std::fmt;

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::{FeatureView, Field, Result};

/// Runs the function of an on-demand view on a batch.
#[async_trait]
pub trait Transformer: fmt::Debug + Send + Sync + 'static {
    /// Returns one row per input row, in order, with one column per feature of `view`, of the declared types.
    /// Pure per batch: online and offline use the same call.
    ///
    /// # Errors
    /// `TransformationFailed` naming the view, and what its function did instead.
    async fn apply(&self, view: &FeatureView, input: RecordBatch) -> Result<RecordBatch>;

    /// The columns that the function returns for a sample, in its order, whatever the view declares.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    async fn infer(&self, view: &FeatureView, sample: RecordBatch) -> Result<Vec<Field>>;
}
