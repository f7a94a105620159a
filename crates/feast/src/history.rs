//! What was committed, and the way back.

use feast_core::{
    CommitRecord, Error, ErrorCode, ObjectKind, RegistryHistory, RegistryObject, Result, changed_fields, net_revisions,
};

use crate::{ApplyOptions, ApplyPlan, Definitions, FeatureStore};

impl FeatureStore {
    /// The commits to this project with numbers above `after`, of them the newest `most`, oldest first.
    ///
    /// # Errors
    /// `Unsupported` for registries without history, and those of reading it.
    pub async fn history(&self, after: u64, most: usize) -> Result<Vec<CommitRecord>> {
        self.registry_history()?.commits(self.project(), after, most).await
    }

    fn registry_history(&self) -> Result<&dyn RegistryHistory> {
        let store = self.registry.store();
        store.history().ok_or_else(|| Error::unsupported(format!("{store} keeps no history")))
    }

    /// Brings the definitions of this project back to what they were after commit `number`, online tables included.
    /// That is a commit of its own. What was materialized stays recorded where the rows are still good.
    ///
    /// # Errors
    /// `InvalidRequest` when the history does not reach back so far; `Conflict` when somebody who writes no history,
    /// such as a Feast client, changed an object meanwhile; and as [`FeatureStore::apply`].
    pub async fn rollback(&self, number: u64) -> Result<ApplyPlan> {
        let commits = self.history(0, usize::MAX).await?;
        let (Some(first), Some(last)) = (commits.first(), commits.last()) else {
            return Err(Error::invalid_request(format!("project `{}` has no history", self.project()))
                .with_hint("`feast apply` starts one"));
        };
        if number < first.number || number > last.number {
            return Err(Error::invalid_request(format!(
                "the history of project `{}` has the commits {} to {}, not {number}",
                self.project(),
                first.number,
                last.number
            ))
            .with_hint("choose one of those that `feast registry log` shows"));
        }
        let later: Vec<CommitRecord> = commits.into_iter().filter(|commit| commit.number > number).collect();
        let contents = self.contents(true).await?;
        let mut definitions = Definitions::default();
        let mut options = ApplyOptions {
            skip_source_validation: true,
            skip_feature_view_validation: true,
            ..ApplyOptions::default()
        };
        let same = |a: Option<&RegistryObject>, b: Option<&RegistryObject>| match (a, b) {
            (Some(a), Some(b)) => changed_fields(a, b).is_empty(),
            (a, b) => a.is_none() && b.is_none(),
        };
        let mut moved = Vec::new();
        for revision in net_revisions(&later) {
            let stored = contents.get(&revision.object);
            if same(stored.as_ref(), revision.before.as_ref()) {
                continue;
            }
            if !same(stored.as_ref(), revision.after.as_ref()) {
                moved.push(revision.object.to_string());
                continue;
            }
            match revision.before {
                Some(before) => definitions.contents.put(before),
                None if revision.object.kind == ObjectKind::Project => {}
                None => options.delete.push(revision.object),
            }
        }
        if !moved.is_empty() {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!("{} changed in a way that the history does not have", moved.join(", ")),
            )
            .with_hint("somebody changed it with a client that writes no history, such as Feast's: apply it anew"));
        }
        let mut plan = self.apply(&definitions, &options).await?;
        // Everything that did not change since is left as it is, which is no news here.
        plan.diff.undefined.clear();
        Ok(plan)
    }
}
