//! Removing objects, and removing everything.

use feast_core::{
    Error, FeatureView, ObjectKind, ObjectRef, OnlineTable, ProjectContents, RegistryChange, RegistryChanges,
    RegistryObject, RegistrySnapshot, Result, TableChange, did_you_mean,
};

use crate::versions::{self, Recorded};
use crate::{Event, FeatureStore};

impl FeatureStore {
    /// Deletes one object, and the online table of a view.
    ///
    /// # Errors
    /// The `NotFound` error of the kind; `InvalidRequest` when a feature service or a view still uses the object.
    pub async fn delete(&self, object: &ObjectRef) -> Result<()> {
        if object.kind == ObjectKind::Project {
            return self.delete_project(&object.name).await;
        }
        if object.kind.is_feature_view() {
            self.check_tables().await?;
        }
        let mut tables = Vec::new();
        self.registry
            .commit_with(|snapshot| {
                let contents = self.project_of(snapshot)?;
                let stored = contents.require(object)?;
                if let Some(user) = user_of(contents, object) {
                    return Err(Error::invalid_request(format!("{object} is still used by {user}"))
                        .with_hint(format!("delete or change {user} first")));
                }
                let mut changes = vec![RegistryChange::Delete(object.clone())];
                if object.kind.is_feature_view() {
                    changes.push(RegistryChange::DeleteVersions(object.name.clone()));
                }
                tables = match &stored {
                    RegistryObject::FeatureView(view) => tables_of(snapshot, self.project(), view),
                    _ => Vec::new(),
                };
                changes.extend(tables.iter().map(|table| RegistryChange::DeleteManagedTable(table.name())));
                Ok(RegistryChanges::new(self.project(), changes))
            })
            .await?;
        if let Some(online) = self.online.as_ref().filter(|_| !tables.is_empty()) {
            self.observer.on(&Event::TableChanged { view: object.name.clone(), dropped: true });
            let drops: Vec<TableChange> = tables.into_iter().map(TableChange::Drop).collect();
            online.update(&drops).await?;
        }
        Ok(())
    }

    /// Finds the object with this name, whatever its kind, for `feast delete NAME`.
    ///
    /// # Errors
    /// `NotFound` with the closest name; `InvalidRequest` when objects of several kinds have the name.
    pub async fn find(&self, name: &str) -> Result<ObjectRef> {
        let contents = self.contents(true).await?;
        let found: Vec<ObjectRef> =
            contents.objects().map(|object| object.reference()).filter(|object| object.name == name).collect();
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => {
                let all: Vec<RegistryObject> = contents.objects().collect();
                Err(Error::new(
                    feast_core::ErrorCode::FeatureViewNotFound,
                    format!("project `{}` has no object `{name}`", self.project()),
                )
                .with_hint_opt(did_you_mean(name, all.iter().map(RegistryObject::name))))
            }
            several => Err(Error::invalid_request(format!(
                "`{name}` is the name of {}",
                several.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
            ))
            .with_hint("delete it with the command of its kind, such as `feast feature-views delete`")),
        }
    }

    /// Adds or replaces one object of the registry without touching the online store.
    ///
    /// # Errors
    /// Those of the commit.
    pub async fn put(&self, object: RegistryObject) -> Result<()> {
        self.registry
            .commit_with(|snapshot| {
                let stored = snapshot.projects.get(self.project()).and_then(|c| c.get(&object.reference()));
                let now = chrono::Utc::now();
                let recorded = Recorded::of(snapshot, self.project(), [&object.reference()]);
                let (mut stamped, records) = versions::stamp(&object, stored.as_ref(), &recorded, now)?;
                if let (RegistryObject::FeatureView(new), RegistryObject::FeatureView(sent)) = (&mut stamped, &object) {
                    // The state is the one recorded thing that callers set by hand.
                    std::sync::Arc::make_mut(new).meta.state = sent.meta.state;
                }
                let mut changes: Vec<RegistryChange> = records.into_iter().map(RegistryChange::PutVersion).collect();
                changes.push(RegistryChange::Put(stamped));
                Ok(RegistryChanges::new(self.project(), changes))
            })
            .await?;
        Ok(())
    }

    /// Deletes a project with all its objects and online tables.
    ///
    /// # Errors
    /// `ProjectNotFound`; `InvalidRequest` for a project that is protected.
    pub async fn delete_project(&self, name: &str) -> Result<()> {
        self.check_tables().await?;
        let mut drops = Vec::new();
        self.registry
            .commit_with(|snapshot| {
                let contents = snapshot.project(name)?;
                if contents.project.is_protected() {
                    return Err(Error::invalid_request(format!("project `{name}` is protected"))
                        .with_hint("remove its tag `feast.dev/protected-project` to delete it"));
                }
                let tables = online_tables(snapshot, name, contents);
                let mut changes = vec![RegistryChange::Delete(ObjectRef::new(ObjectKind::Project, name))];
                changes.extend(tables.iter().map(|table| RegistryChange::DeleteManagedTable(table.name())));
                drops = tables.into_iter().map(TableChange::Drop).collect();
                Ok(RegistryChanges::new(name, changes))
            })
            .await?;
        match &self.online {
            Some(online) => online.update(&drops).await,
            None => Ok(()),
        }
    }

    /// Fails when tables cannot be changed, while nothing has been deleted yet.
    async fn check_tables(&self) -> Result<()> {
        match &self.online {
            Some(online) => online.update(&[]).await,
            None => Ok(()),
        }
    }

    /// Removes the project, its online tables, and the registry when no other project is left in it.
    ///
    /// # Errors
    /// `InvalidRequest` for a project that is protected; those of the stores. Tearing down what is not there is no
    /// error.
    pub async fn teardown(&self) -> Result<()> {
        // No rows are dropped of what cannot be removed.
        self.registry.store().check_writable().await?;
        let snapshot = self.registry.refresh().await?;
        if snapshot.projects.contains_key(self.project()) {
            self.delete_project(self.project()).await?;
        }
        // Somebody may have applied another project meanwhile.
        if self.registry.refresh().await?.projects.is_empty() {
            self.registry.teardown().await?;
        }
        Ok(())
    }
}

/// The tables of a project in its online store.
pub(crate) fn online_tables(
    snapshot: &RegistrySnapshot,
    project: &str,
    contents: &ProjectContents,
) -> Vec<OnlineTable> {
    contents.feature_views.values().flat_map(|view| tables_of(snapshot, project, view)).collect()
}

/// The tables of a view, that of the current version first.
pub(crate) fn tables_of(snapshot: &RegistrySnapshot, project: &str, view: &FeatureView) -> Vec<OnlineTable> {
    let current = view.meta.current_version_number;
    let own = view.has_online_table().then(|| OnlineTable::of(project, view));
    if !snapshot.versions_have_tables {
        return own.into_iter().collect();
    }
    let records = snapshot.versions.iter().filter(|record| record.is_of(project, &view.name));
    let others = records.filter(|record| record.version_number != current).filter_map(|record| {
        // Of a definition that cannot be read the table cannot be told.
        let view = record.view().ok().filter(|view| view.has_online_table())?;
        Some(OnlineTable::of(project, &view).in_version(record.version_number))
    });
    own.into_iter().map(|table| table.in_version(current)).chain(others).collect()
}

/// An object that still refers to `object`.
pub(crate) fn user_of(contents: &ProjectContents, object: &ObjectRef) -> Option<ObjectRef> {
    if object.kind.is_feature_view() {
        let uses = |projections: &[feast_core::FeatureViewProjection]| {
            projections.iter().any(|projection| projection.feature_view_name == object.name)
        };
        let service = contents.feature_services.values().find(|service| uses(&service.projections));
        return service.map(|service| ObjectRef::new(ObjectKind::FeatureService, &service.name)).or_else(|| {
            contents
                .feature_views
                .values()
                .filter(|view| view.name != object.name)
                .find(|view| {
                    view.on_demand().is_some_and(|on_demand| {
                        on_demand.sources.values().any(|source| match source {
                            feast_core::OnDemandSource::FeatureView(view) => view.name == object.name,
                            feast_core::OnDemandSource::Projection(projection) => {
                                projection.feature_view_name == object.name
                            }
                            feast_core::OnDemandSource::Request(_) => false,
                        })
                    })
                })
                .map(|view| view.reference())
        });
    }
    let uses = |view: &feast_core::FeatureView| match object.kind {
        ObjectKind::Entity => view.entities.contains(&object.name),
        ObjectKind::DataSource => view.data_sources().iter().any(|source| source.name == object.name),
        _ => false,
    };
    contents.feature_views.values().find(|view| uses(view)).map(|view| view.reference())
}
