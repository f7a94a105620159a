//! What clients of a registry server ask for: changes to one object at a time, in any project.
//!
//! Only the registry is touched. A client looks after its own online store, in its own order: it deletes a source
//! before the view that reads it, so nothing here asks who still uses an object.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use feast_core::{
    Error, ErrorCode, FeatureView, FeatureViewState, Interval, ManagedTable, ObjectKind, ObjectRef, ProjectContents,
    RegistryChange, RegistryChanges, RegistryObject, RegistrySnapshot, Result, changed_fields, merge_intervals,
};

use crate::delete::online_tables;
use crate::versions::{self, Recorded};
use crate::{FeatureStore, pins};

impl FeatureStore {
    /// Adds or replaces one object of a project; the project is created when it does not exist. Times, version numbers
    /// and what was materialized are the registry's: what the caller sends of them counts for new views only, and the
    /// state of a view wherever it says one. An object that is there already stays as it is.
    ///
    /// # Errors
    /// `InvalidRequest` for an object or a project without a name; `ConflictingFeatureViewNames` when a view of another
    /// kind has the name; those of the commit.
    pub async fn put_into(&self, project: &str, object: RegistryObject) -> Result<()> {
        named(project, &ObjectRef::new(ObjectKind::Project, project))?;
        named(project, &object.reference())?;
        self.registry()
            .commit_with(|snapshot| {
                let contents = snapshot.projects.get(project).map(Arc::as_ref);
                let object = match &object {
                    RegistryObject::FeatureView(view) => {
                        RegistryObject::FeatureView(resolved(view, contents, snapshot, project)?)
                    }
                    other => other.clone(),
                };
                let stored = contents.and_then(|contents| contents.get(&object.reference()));
                if stored.as_ref().is_some_and(|stored| says_the_same(stored, &object)) {
                    return Ok(RegistryChanges::default());
                }
                let recorded = Recorded::of(snapshot, project, [&object.reference()]);
                let (mut stamped, records) = versions::stamp(&object, stored.as_ref(), &recorded, Utc::now())?;
                if let (RegistryObject::FeatureView(new), RegistryObject::FeatureView(sent)) = (&mut stamped, &object)
                    && sent.meta.state != FeatureViewState::Unspecified
                {
                    Arc::make_mut(new).meta.state = sent.meta.state;
                }
                let mut changes: Vec<RegistryChange> = records.into_iter().map(RegistryChange::PutVersion).collect();
                changes.push(RegistryChange::Put(stamped));
                Ok(RegistryChanges::new(project, changes))
            })
            .await?;
        Ok(())
    }

    /// Deletes one object of a project, or a project with all its objects. Any kind of feature view finds the view with
    /// the name, whatever its kind.
    ///
    /// # Errors
    /// The `NotFound` error of the kind; those of the commit.
    pub async fn delete_from(&self, project: &str, object: &ObjectRef) -> Result<()> {
        self.registry()
            .commit_with(|snapshot| {
                let absent = || object.not_found(project);
                let contents = snapshot.projects.get(project).ok_or_else(absent)?;
                let object = match object.kind.is_feature_view() {
                    true => contents.feature_view(&object.name)?.reference(),
                    false => contents.require(object)?.reference(),
                };
                let mut changes = vec![RegistryChange::Delete(object.clone())];
                if object.kind.is_feature_view() {
                    changes.push(RegistryChange::DeleteVersions(object.name.clone()));
                }
                if object.kind == ObjectKind::Project {
                    let tables = online_tables(snapshot, project, contents);
                    changes.extend(tables.iter().map(|table| RegistryChange::DeleteManagedTable(table.name())));
                }
                Ok(RegistryChanges::new(project, changes))
            })
            .await?;
        Ok(())
    }

    /// Records that somebody has materialized a view. Intervals that touch are merged.
    ///
    /// # Errors
    /// `FeatureViewNotFound`; `InvalidRequest` for a label view, whose rows come by pushes only; those of the commit.
    pub async fn record_materialization(&self, project: &str, view: &str, interval: Interval) -> Result<()> {
        let object = ObjectRef::new(ObjectKind::FeatureView, view);
        self.registry()
            .commit_with(|snapshot| {
                let contents = snapshot.projects.get(project).ok_or_else(|| object.not_found(project))?;
                let mut stored = FeatureView::clone(contents.feature_view(view)?);
                if stored.object_kind() == ObjectKind::LabelView {
                    return Err(Error::invalid_request(format!("label view `{view}` cannot be materialized"))
                        .with_hint("write labels with `push`"));
                }
                let known = stored.meta.materialization_intervals.iter().copied();
                stored.meta.materialization_intervals = merge_intervals(known.chain([interval]));
                stored.meta.state = FeatureViewState::AvailableOnline;
                stored.meta.updated = Some(Utc::now());
                let changes = vec![RegistryChange::Put(RegistryObject::FeatureView(Arc::new(stored)))];
                Ok(RegistryChanges::new(project, changes))
            })
            .await?;
        Ok(())
    }

    /// Makes these the recorded tables of a project. Those of other projects stay: a registry may not say which table
    /// is whose.
    ///
    /// # Errors
    /// Those of the commit.
    pub async fn replace_managed_tables(&self, project: &str, tables: &[ManagedTable]) -> Result<()> {
        self.registry()
            .commit_with(|snapshot| {
                let known = managed_tables(snapshot, project);
                let gone = known.iter().filter(|known| tables.iter().all(|table| table.name != known.name));
                let mut changes: Vec<RegistryChange> =
                    gone.map(|table| RegistryChange::DeleteManagedTable(table.name.clone())).collect();
                let new = tables.iter().filter(|table| !snapshot.managed_tables.contains(table));
                changes.extend(new.cloned().map(RegistryChange::PutManagedTable));
                Ok(RegistryChanges::new(project, changes))
            })
            .await?;
        Ok(())
    }
}

/// The recorded tables that are not those of another project: whose one is, its name tells, and where the names of two
/// projects leave that open, the views they have.
pub fn managed_tables<'a>(snapshot: &'a RegistrySnapshot, project: &str) -> Vec<&'a ManagedTable> {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for (name, contents) in &snapshot.projects {
        owners.extend(online_tables(snapshot, name, contents).into_iter().map(|table| (table.name(), name.as_str())));
    }
    let owner = |table: &str| {
        let by_name = || {
            let names = snapshot.projects.keys().map(String::as_str).chain([project]);
            let prefixes = names.filter(|name| table.strip_prefix(name).is_some_and(|rest| rest.starts_with('_')));
            prefixes.max_by_key(|name| name.len())
        };
        owners.get(table).copied().or_else(by_name)
    };
    snapshot.managed_tables.iter().filter(|table| owner(&table.name).is_none_or(|owner| owner == project)).collect()
}

fn named(project: &str, object: &ObjectRef) -> Result<()> {
    if object.name.is_empty() {
        let place = if project.is_empty() { String::new() } else { format!(" for project `{project}`") };
        return Err(Error::invalid_request(format!("a {} without a name was sent{place}", object.kind)));
    }
    Ok(())
}

/// The view as its version says, when its name is free.
fn resolved(
    view: &Arc<FeatureView>,
    contents: Option<&ProjectContents>,
    snapshot: &RegistrySnapshot,
    project: &str,
) -> Result<Arc<FeatureView>> {
    let same_name = |known: &&Arc<FeatureView>| {
        known.name.eq_ignore_ascii_case(&view.name)
            && (known.name != view.name || known.object_kind() != view.object_kind())
    };
    if let Some(known) = contents.and_then(|contents| contents.feature_views.values().find(same_name)) {
        return Err(Error::new(
            ErrorCode::ConflictingFeatureViewNames,
            format!("{} and {} of project `{project}` have the same name", view.reference(), known.reference()),
        )
        .with_hint(
            "names of feature views are unique among all kinds, ignoring case: rename one, or delete the other",
        ));
    }
    let mut desired = ProjectContents { project: feast_core::Project::new(project), ..ProjectContents::default() };
    desired.put(RegistryObject::FeatureView(Arc::clone(view)));
    if let Some(problem) = pins::pin(&mut desired, contents, snapshot).into_iter().next() {
        let message = format!("{} {}", problem.object, problem.message);
        return Err(Error::invalid_request(message).with_hint_opt(problem.hint));
    }
    Ok(desired.feature_views.swap_remove(&view.name).unwrap_or_else(|| Arc::clone(view)))
}

/// Whether putting an object over the stored one would change nothing.
fn says_the_same(stored: &RegistryObject, sent: &RegistryObject) -> bool {
    let recorded = match (stored, sent) {
        (RegistryObject::FeatureView(stored), RegistryObject::FeatureView(sent)) => {
            sent.meta.state == FeatureViewState::Unspecified || sent.meta.state == stored.meta.state
        }
        (RegistryObject::SavedDataset(stored), RegistryObject::SavedDataset(sent)) => {
            let span = |dataset: &feast_core::SavedDataset| {
                (dataset.meta.min_event_timestamp, dataset.meta.max_event_timestamp)
            };
            span(stored) == span(sent)
        }
        _ => true,
    };
    recorded && changed_fields(stored, sent).is_empty()
}
