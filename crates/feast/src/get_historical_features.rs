//! Training data: for each entity row the values as they were known at its time.

use std::sync::Arc;

use feast_core::{Error, FeatureSelection, ProjectContents, Result, RetrievalPlan};
use feast_offline::{EntitySource, HistoricalRequest, HistoricalStream};

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
        if let Some(view) = plan.views.iter().map(|planned| &planned.view).find(|view| view.is_computed()) {
            return Err(Error::unsupported(format!(
                "training data of feature view `{}` cannot be made: its rows are computed when it is materialized",
                view.name
            ))
            .with_hint("write the computed rows to a source, and ask for the features of a view over it"));
        }
        Ok((plan, contents))
    }

    /// Joins features to entity rows at their times; the rows stream out as they are computed.
    ///
    /// # Errors
    /// As [`FeatureStore::resolve_historical`], and what is wrong with the entity rows or the sources.
    pub async fn get_historical_features(&self, request: HistoricalFeatures) -> Result<HistoricalStream> {
        let (plan, contents) = self.resolve_historical(&request.selection, request.full_feature_names).await?;
        self.offline
            .historical(HistoricalRequest {
                plan,
                entity: request.entity,
                tables: contents.data_sources.values().cloned().collect(),
                filter_by_created_timestamp: request.filter_by_created_timestamp,
            })
            .await
    }
}
