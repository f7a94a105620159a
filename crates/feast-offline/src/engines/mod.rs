//! What computes the rows that a materialization writes: the local engine, or one of the caller's own.

mod aggregates;
mod beside;
mod computed;
mod history;
mod local;
mod steps;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use feast_core::{FeatureView, Result, Shard, Timestamp};

use crate::BatchStream;

pub use local::LocalEngine;

/// A view and the span of event times that is to be served of it.
#[derive(Debug, Clone)]
pub struct MaterializationTask {
    /// Owning project.
    pub project: String,
    /// The view, as the registry knows it.
    pub view: Arc<FeatureView>,
    /// First event time that counts.
    pub start: Timestamp,
    /// Last event time that counts.
    pub end: Timestamp,
    /// Which entity keys will be written. An engine may hand out the rows of all keys: the others are left out later.
    pub shard: Shard,
}

/// What became of a task.
#[derive(Debug)]
pub enum Materialized {
    /// The rows to write, with the columns and the promises of [`OfflineStore::latest`](crate::OfflineStore::latest).
    Rows(BatchStream),
    /// The engine has written them itself and all of them were acknowledged.
    Written {
        /// How many, if it knows.
        rows: Option<u64>,
    },
}

/// Computes the newest row of each entity key of a view.
///
/// An engine is given the whole task rather than a query plan: engines that a team brings along run whole tasks, on
/// clusters that read the sources and write the online store themselves.
#[async_trait]
pub trait ComputeEngine: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Runs a task. Sources are opened and columns checked before this returns; rows come as the stream is read.
    /// Dropping the future or the stream stops the work. Running a task again gives the same rows, so that whoever was
    /// interrupted can start over. Nothing is recorded about the task here.
    async fn materialize(&self, task: MaterializationTask) -> Result<Materialized>;
}
