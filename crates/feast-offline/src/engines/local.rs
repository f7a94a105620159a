//! The engine of this process.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use feast_core::{BatchFunctions, Result};

use super::computed::{Computer, whole};
use super::{ComputeEngine, MaterializationTask, Materialized};
use crate::{LatestRequest, OfflineStore};

/// Computes in this process, on the rows of an offline store.
#[derive(Debug)]
pub struct LocalEngine {
    offline: Arc<OfflineStore>,
    functions: Option<Arc<dyn BatchFunctions>>,
}

impl LocalEngine {
    /// An engine over the rows of `offline`; without `functions` it refuses views that are computed by one.
    pub fn new(offline: Arc<OfflineStore>, functions: Option<Arc<dyn BatchFunctions>>) -> Self {
        Self { offline, functions }
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
        if !view.is_computed() {
            return self.offline.latest(LatestRequest { view, start, end }).await.map(Materialized::Rows);
        }
        let computer = Computer { offline: &self.offline, functions: self.functions.as_deref() };
        let (view, rows) = Box::pin(computer.compute(&view, start, end)).await?;
        let latest = self.offline.latest(whole(&view)).await?;
        Ok(Materialized::Rows(latest.holding(rows)))
    }
}
