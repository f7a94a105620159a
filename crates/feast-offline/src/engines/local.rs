//! The engine of this process.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use feast_core::{BatchFunctions, Error, Result};

use super::computed::{Computer, Scratch, whole};
use super::history::Asked;
use super::{ComputeEngine, MaterializationTask, Materialized};
use crate::historical::Historical;
use crate::parallel::blocking;
use crate::{BatchStream, HistoricalRequest, HistoricalStream, LatestRequest, LeakReport, OfflineStore};

/// Computes in this process, on the rows of an offline store.
#[derive(Debug)]
pub struct LocalEngine {
    offline: Arc<OfflineStore>,
    /// Where rows that were computed rest.
    files: OfflineStore,
    functions: Option<Arc<dyn BatchFunctions>>,
}

impl LocalEngine {
    /// An engine over the rows of `offline`; without `functions` it refuses views that are computed by one.
    pub fn new(offline: Arc<OfflineStore>, functions: Option<Arc<dyn BatchFunctions>>) -> Self {
        Self { files: offline.on_files(), offline, functions }
    }

    /// The same engine on the rows of another store.
    #[must_use]
    pub fn on(&self, offline: Arc<OfflineStore>) -> Self {
        Self::new(offline, self.functions.clone())
    }

    /// As [`OfflineStore::latest`], computed views included.
    ///
    /// # Errors
    /// Those of the offline store and of the functions of the views.
    pub async fn latest(&self, request: LatestRequest) -> Result<BatchStream> {
        if !request.view.is_computed() {
            return self.offline.latest(request).await;
        }
        let LatestRequest { view, start, end } = request;
        let (view, rows) = Box::pin(self.computer().compute(&view, start, end)).await?;
        Ok(self.files.latest(whole(&view)).await?.holding(rows))
    }

    /// As [`OfflineStore::historical`], computed views included: each entity row gets of them what a materialization up
    /// to its time would have served. Views over other views are read from their sink, where it is there.
    ///
    /// # Errors
    /// Those of the offline store and of the functions of the views; `Unsupported` for views over views that would have
    /// to be computed for too many times, and for computed views without entity rows.
    pub async fn historical(&self, request: HistoricalRequest) -> Result<HistoricalStream> {
        let computed = self.computer().computed_views(&request.plan).await?;
        if computed.is_empty() {
            return self.offline.historical(request).await;
        }
        if self.offline.is_a_database() {
            return Box::pin(self.computer().beside_database(request, &computed)).await;
        }
        let (historical, files) = Box::pin(self.prepare(request, computed)).await?;
        let stream = historical.start();
        Ok(HistoricalStream { batches: stream.batches.holding(files), ..stream })
    }

    /// As [`OfflineStore::leaks`], computed views included.
    ///
    /// # Errors
    /// As [`historical`](Self::historical), and those of its stream.
    pub async fn leaks(&self, request: HistoricalRequest) -> Result<LeakReport> {
        let computed = self.computer().computed_views(&request.plan).await?;
        if computed.is_empty() {
            return self.offline.leaks(request).await;
        }
        if self.offline.is_a_database() {
            return Err(Error::unsupported("leak reports of computed feature views over the rows of a database")
                .with_hint("ask for the report without them: of views over several rows it is not known when those were written"));
        }
        let (historical, _files) = Box::pin(self.prepare(request, computed)).await?;
        blocking(move || historical.leaks()).await
    }

    /// Computes views and opens what their rows became.
    async fn prepare(&self, request: HistoricalRequest, views: Vec<usize>) -> Result<(Historical, Vec<Scratch>)> {
        let HistoricalRequest { plan, entity, tables, filter_by_created_timestamp, as_of } = request;
        let entity = self.offline.entity(entity, &tables, &plan).await?;
        let asked = Asked { entity: &entity, known_at_entity_time: filter_by_created_timestamp, as_of };
        let (plan, files) = self.computer().with_history(&plan, views, asked).await?;
        Ok((self.offline.open(plan, entity, filter_by_created_timestamp, as_of).await?, files))
    }

    fn computer(&self) -> Computer<'_> {
        Computer { offline: &self.offline, files: &self.files, functions: self.functions.as_deref() }
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
        self.latest(LatestRequest { view, start, end }).await.map(Materialized::Rows)
    }
}
