//! The newest values of features for the entities of a request.

use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use feast_core::{Error, FeatureSelection, RegistrySnapshot, Result, RetrievalPlan};
use feast_online::{EntityRows, OnlineFeatures, RetrieveOptions, StoredFeatures, retrieve, retrieve_stored};

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

/// An answer in the form that costs least.
#[derive(Debug)]
pub enum OnlineAnswer {
    /// As the online store keeps the values.
    Stored(StoredFeatures),
    /// As columns, where the store keeps something else or values are computed.
    Columns(OnlineFeatures),
}

impl OnlineAnswer {
    /// The answer as columns.
    ///
    /// # Errors
    /// Values that do not fit their types.
    pub fn into_columns(self) -> Result<OnlineFeatures> {
        match self {
            Self::Stored(features) => features.columns(),
            Self::Columns(features) => Ok(features),
        }
    }
}

impl FeatureStore {
    /// Reads the newest values: one plan, one read of the online store, one row per entity row, in order.
    ///
    /// # Errors
    /// Unknown features, missing join keys, values that are no entity; `Unsupported` without an online store.
    pub async fn get_online_features(&self, request: OnlineRequest) -> Result<OnlineFeatures> {
        self.answer_online(request).await?.into_columns()
    }

    /// [`get_online_features`](Self::get_online_features), for who may not need columns. Values that are stored are not
    /// looked into: whether they fit their types is found by who does.
    ///
    /// # Errors
    /// Those of [`get_online_features`](Self::get_online_features).
    pub async fn answer_online(&self, request: OnlineRequest) -> Result<OnlineAnswer> {
        let OnlineRequest { selection, entity_rows, full_feature_names } = request;
        let plan =
            self.online_plan(|snapshot, project| snapshot.resolve(project, &selection, full_feature_names)).await?;
        match self.retrieve_stored(&plan, &entity_rows, None).await? {
            Some(features) => Ok(OnlineAnswer::Stored(features)),
            None => self.retrieve_online(&plan, &entity_rows, None).await.map(OnlineAnswer::Columns),
        }
    }

    /// The plan that `resolve` finds in the current snapshot for this project, once it is known that it can be read
    /// online.
    ///
    /// # Errors
    /// Those of `resolve`; `InvalidRequest` for views that are not served online; `Unsupported` without an online
    /// store.
    pub async fn online_plan(
        &self,
        resolve: impl FnOnce(&RegistrySnapshot, &str) -> Result<Arc<RetrievalPlan>>,
    ) -> Result<Arc<RetrievalPlan>> {
        self.online_store()?;
        let snapshot = self.registry.snapshot_checked().await?;
        self.project_of(&snapshot)?;
        let plan = resolve(&snapshot, self.project())?;
        if let Some(view) = plan.views.iter().find(|view| !view.view.has_online_table()) {
            return Err(Error::invalid_request(format!("feature view `{}` is not served online", view.view.name))
                .with_hint("declare it with `online=True`, apply and materialize it"));
        }
        Ok(plan)
    }

    /// Answers a planned request, before the deadline if there is one.
    ///
    /// # Errors
    /// Those of [`retrieve`].
    pub async fn retrieve_online(
        &self,
        plan: &RetrievalPlan,
        entity_rows: &EntityRows,
        deadline: Option<Instant>,
    ) -> Result<OnlineFeatures> {
        let options = self.retrieve_options(deadline);
        retrieve(plan, entity_rows, self.online_store()?.as_ref(), Some(self.transformer.as_ref()), &options).await
    }

    /// [`retrieve_online`](Self::retrieve_online), with values as the online store keeps them; `None` where that cannot
    /// be, before anything is read.
    ///
    /// # Errors
    /// Those of [`retrieve_stored`].
    pub async fn retrieve_stored(
        &self,
        plan: &Arc<RetrievalPlan>,
        entity_rows: &EntityRows,
        deadline: Option<Instant>,
    ) -> Result<Option<StoredFeatures>> {
        retrieve_stored(plan, entity_rows, self.online_store()?.as_ref(), &self.retrieve_options(deadline)).await
    }

    fn retrieve_options(&self, deadline: Option<Instant>) -> RetrieveOptions {
        RetrieveOptions {
            now: Utc::now(),
            ttl_policy: self.config.online_serving.ttl_policy,
            key_version: self.config.entity_key_serialization_version,
            deadline,
            fallback: self.config.online_serving.fallback.clone(),
        }
    }
}
