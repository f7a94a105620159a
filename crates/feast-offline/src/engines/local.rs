//! The engine of this process.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use feast_core::Result;

use super::{ComputeEngine, MaterializationTask, Materialized};
use crate::{LatestRequest, OfflineStore};

/// Computes in this process, on the rows of an offline store.
#[derive(Debug)]
pub struct LocalEngine {
    offline: Arc<OfflineStore>,
}

impl LocalEngine {
    /// An engine over the rows of `offline`.
    pub fn new(offline: Arc<OfflineStore>) -> Self {
        Self { offline }
    }
}

impl fmt::Display for LocalEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this process, on {}", self.offline)
    }
}

#[async_trait]
impl ComputeEngine for LocalEngine {
    async fn materialize(&self, task: MaterializationTask) -> Result<Materialized> {
        let MaterializationTask { view, start, end, .. } = task;
        self.offline.latest(LatestRequest { view, start, end }).await.map(Materialized::Rows)
    }
}
