//! Training data: for each entity row the values as they were known at its time.

use std::sync::Arc;

use feast_core::{Error, FeatureSelection, ProjectContents, Result, RetrievalPlan, Timestamp};
use feast_offline::{EntitySource, HistoricalRequest, HistoricalStream, LeakReport};

use crate::FeatureStore;

/// A request for historical features.
#[derive(Debug)]
pub struct HistoricalFeatures {
    /// Which features.
    pub selection: FeatureSelection,
    /// For which entities at which times.
    pub entity: EntitySource,
    /// Whether output names carry the name of their view.
    pub full_feature_names: bool,
    /// Only values that had been written by the time of the entity row.
    pub filter_by_created_timestamp: bool,
    /// Only values that had happened and been written by then.
    pub as_of: Option<Timestamp>,
}

impl FeatureStore {
    /// The plan of a request and the objects it was made from.
    ///
    /// # Errors
    /// Unknown features; on-demand views, which are not computed here yet.
    pub async fn resolve_historical(
        &self,
        selection: &FeatureSelection,
        full_feature_names: bool,
    ) -> Result<(Arc<RetrievalPlan>, Arc<ProjectContents>)> {
        let snapshot = self.snapshot(true).await?;
        let contents = Arc::clone(self.project_of(&snapshot)?);
        let plan = snapshot.resolve(self.project(), selection, full_feature_names)?;
        if let Some(view) = plan.on_demand.first() {
            return Err(Error::unsupported(format!(
                "on demand feature view `{}` cannot be computed here yet",
                view.view.name
            ))
            .with_hint("ask for the features of its source views"));
        }
        Ok((plan, contents))
    }

    /// Joins features to entity rows at their times; the rows stream out as they are computed.
    ///
    /// # Errors
    /// As [`FeatureStore::resolve_historical`], and what is wrong with the entity rows or the sources.
    pub async fn get_historical_features(&self, request: HistoricalFeatures) -> Result<HistoricalStream> {
        self.offline.historical(self.historical_request(request).await?).await
    }

    /// How often features would have other values had later corrections been used.
    ///
    /// # Errors
    /// As [`FeatureStore::get_historical_features`].
    pub async fn leak_report(&self, request: HistoricalFeatures) -> Result<LeakReport> {
        self.offline.leaks(self.historical_request(request).await?).await
    }

    async fn historical_request(&self, request: HistoricalFeatures) -> Result<HistoricalRequest> {
        let (plan, contents) = self.resolve_historical(&request.selection, request.full_feature_names).await?;
        Ok(HistoricalRequest {
            plan,
            entity: request.entity,
            tables: contents.data_sources.values().cloned().collect(),
            filter_by_created_timestamp: request.filter_by_created_timestamp,
            as_of: request.as_of,
        })
    }
}
