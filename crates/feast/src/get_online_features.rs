//! The newest values of features for the entities of a request.

use chrono::Utc;
use feast_core::{Error, FeatureSelection, Result};
use feast_online::{EntityRows, OnlineFeatures, RetrieveOptions, TtlPolicy, retrieve};

use crate::FeatureStore;

/// A request for online features.
#[derive(Debug)]
pub struct OnlineRequest {
    /// Which features.
    pub selection: FeatureSelection,
    /// For which entities, with the values of request sources.
    pub entity_rows: EntityRows,
    /// Whether output names carry the name of their view.
    pub full_feature_names: bool,
}

impl FeatureStore {
    /// Reads the newest values: one plan, one read of the online store, one row per entity row, in order.
    ///
    /// # Errors
    /// Unknown features, missing join keys, values that are no entity; `Unsupported` without an online store.
    pub async fn get_online_features(&self, request: OnlineRequest) -> Result<OnlineFeatures> {
        let store = self.online_store()?;
        let snapshot = self.registry.snapshot_checked().await?;
        self.project_of(&snapshot)?;
        let plan = snapshot.resolve(self.project(), &request.selection, request.full_feature_names)?;
        if let Some(view) = plan.views.iter().find(|view| !view.view.has_online_table()) {
            return Err(Error::invalid_request(format!("feature view `{}` is not served online", view.view.name))
                .with_hint("declare it with `online=True`, apply and materialize it"));
        }
        let options = RetrieveOptions {
            now: Utc::now(),
            ttl_policy: TtlPolicy::Ignore,
            key_version: self.config.entity_key_serialization_version,
        };
        retrieve(&plan, &request.entity_rows, store.as_ref(), self.transformer.as_deref(), &options).await
    }
}
