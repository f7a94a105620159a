//! The traits of what runs the user's functions.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
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

    /// What the function of a view computes, as expressions that `feast_online` evaluates; nothing where it has to be
    /// called.
    ///
    /// # Errors
    /// Why nobody can tell now.
    async fn expressions(&self, view: &FeatureView) -> Result<Option<String>> {
        let _ = view;
        Ok(None)
    }

    /// Whether functions can be run at all.
    ///
    /// # Errors
    /// Why not, and what has to be done so that they can.
    async fn check(&self) -> Result<()>;
}

/// Rows and their schema.
pub type Rows = (SchemaRef, Vec<RecordBatch>);

/// Runs the functions of batch views: rows in, any number of other rows out.
#[async_trait]
pub trait BatchFunctions: fmt::Debug + Send + Sync + 'static {
    /// The query that the function of a view in mode `sql` returns for the names of its inputs.
    async fn query(&self, view: &FeatureView, inputs: &[String]) -> Result<String>;

    /// The rows that the function of a view returns for all rows of each of its inputs. The columns of the answer are
    /// found by name; what is missing is the caller's to find out.
    async fn rows(&self, view: &FeatureView, inputs: Vec<Rows>) -> Result<Rows>;
}
