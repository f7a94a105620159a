//! Whether a feature view is in use, and how far it is on its way to being served.

use std::sync::Arc;

use chrono::Utc;
use feast_core::{
    Error, FeatureView, FeatureViewState, ObjectRef, RegistryChange, RegistryChanges, RegistryObject, Result,
    list_names,
};

use crate::FeatureStore;

impl FeatureStore {
    /// Lets a feature view be materialized and served, or keeps it from both. Returns which view it is, and whether
    /// that is a change.
    ///
    /// # Errors
    /// `FeatureViewNotFound`; those of the commit.
    pub async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(ObjectRef, bool)> {
        self.change_view(name, |view| {
            let changes = view.disabled == enabled;
            view.disabled = !enabled;
            Ok(changes)
        })
        .await
    }

    /// Sets where a feature view stands, where that follows on the state that it has. Returns which view it is.
    ///
    /// # Errors
    /// `InvalidRequest` naming the states that can follow; `FeatureViewNotFound`; those of the commit.
    pub async fn set_state(&self, name: &str, state: FeatureViewState) -> Result<ObjectRef> {
        let changed = self.change_view(name, |view| {
            let before = view.meta.state;
            // A view is created when it is applied, whether or not that was written down.
            let from = if before == FeatureViewState::Unspecified { FeatureViewState::Created } else { before };
            let next = from.successors();
            if from != state && !next.contains(&state) {
                let next = list_names(next.iter().map(|state| state.name()));
                return Err(Error::invalid_request(format!("{} cannot go from {from} to {state}", view.reference()))
                    .with_hint(format!("from {from} it can go to {next}")));
            }
            view.meta.state = state;
            Ok(before != state)
        });
        Ok(changed.await?.0)
    }

    /// Changes a view as the registry has it at that moment, so that nothing is lost that somebody else changes at the
    /// same time. `change` returns whether there is anything to commit.
    async fn change_view(
        &self,
        name: &str,
        change: impl Fn(&mut FeatureView) -> Result<bool> + Send + Sync,
    ) -> Result<(ObjectRef, bool)> {
        let mut done = None;
        self.registry
            .commit_with(|snapshot| {
                let mut view = FeatureView::clone(self.project_of(snapshot)?.feature_view(name)?);
                let is_change = change(&mut view)?;
                done = Some((view.reference(), is_change));
                view.meta.updated = Some(Utc::now());
                let put = RegistryChange::Put(RegistryObject::FeatureView(Arc::new(view)));
                let changes = is_change.then_some(put).into_iter().collect();
                Ok(RegistryChanges::new(self.project(), changes))
            })
            .await?;
        done.ok_or_else(|| Error::internal("a commit looked at no state of the registry"))
    }
}
