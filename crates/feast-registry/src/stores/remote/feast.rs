//! The words of Feast's registry server for what a store does.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use feast_core::{
    BatchFeatures, Error, ErrorCode, ErrorKind, FeatureView, FeatureViewKind, Interval, ManagedTable, ObjectKind,
    ObjectRef, Project, RegistryChange, RegistryChanges, RegistryObject, RegistrySnapshot, RegistryVersion, Result,
    changed_fields,
};
use feast_proto::{
    AnyMessage, core, managed_table_message, registry as wire, snapshot_from_registry, table_from_message, to_message,
};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use wire::apply_feature_view_request::BaseFeatureView as View;

use super::connection::{Connection, Repeat};
use crate::handle::pause;

const SERVICE: &str = "feast.registry.RegistryServer";

/// How many projects are asked for their tables at the same time.
const CONCURRENT: usize = 8;

/// How often a registry is read again that changes meanwhile.
const ATTEMPTS: u32 = 10;

pub(super) async fn load(server: &Connection) -> Result<RegistrySnapshot> {
    let registry = registry_of_projects(server).await?;
    let mut snapshot =
        snapshot_from_registry(registry.named).map_err(|error| error.with_context("registry server", server.path()))?;
    snapshot.version = registry.version;
    let projects: Vec<String> = snapshot.projects.keys().cloned().collect();
    let tables: Vec<Vec<ManagedTable>> = stream::iter(projects)
        .map(|project| async move { tables_of(server, &project).await })
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    let mut known = BTreeSet::new();
    let tables = tables.into_iter().flatten().filter(|table| known.insert(table.name.clone()));
    snapshot.managed_tables = Arc::new(tables.collect());
    Ok(snapshot)
}

/// A registry in which every object names its project.
struct Named {
    named: core::Registry,
    version: Option<RegistryVersion>,
}

/// Feast's server tells all objects with all that belongs to them, project by project, but not where one project ends;
/// and tells the objects of one project without their functions. Together that is what is asked for.
async fn registry_of_projects(server: &Connection) -> Result<Named> {
    for attempt in 1..=ATTEMPTS {
        let mut named = registry(server).await?;
        let version = digest(&named);
        let projects: Vec<String> =
            named.projects.iter().filter_map(|project| project.spec.as_ref()).map(|spec| spec.name.clone()).collect();
        let lists: Vec<core::Registry> = match projects.as_slice() {
            // Nothing has to be told apart.
            [_] => vec![named.clone()],
            several => {
                stream::iter(several.to_vec())
                    .map(|project| async move { lists_of(server, &project).await })
                    .buffered(CONCURRENT)
                    .try_collect()
                    .await?
            }
        };
        if name_projects(&mut named, &projects, &lists) {
            return Ok(Named { named, version });
        }
        pause(attempt).await;
    }
    Err(Error::new(ErrorCode::Conflict, format!("the registry of server `{}` keeps changing", server.path()))
        .with_hint("try again when fewer processes change it"))
}

/// The objects of one project.
async fn lists_of(server: &Connection, project: &str) -> Result<core::Registry> {
    let mut lists = core::Registry::default();
    macro_rules! list {
        ($method:literal, $Request:ident, $Response:ident, $field:ident) => {
            let asked = wire::$Request { project: project.to_owned(), ..wire::$Request::default() };
            let answer: wire::$Response = server.call(SERVICE, $method, &asked, Repeat::Yes).await?;
            lists.$field = answer.$field;
        };
    }
    list!("ListEntities", ListEntitiesRequest, ListEntitiesResponse, entities);
    list!("ListDataSources", ListDataSourcesRequest, ListDataSourcesResponse, data_sources);
    list!("ListFeatureViews", ListFeatureViewsRequest, ListFeatureViewsResponse, feature_views);
    list!(
        "ListStreamFeatureViews",
        ListStreamFeatureViewsRequest,
        ListStreamFeatureViewsResponse,
        stream_feature_views
    );
    list!(
        "ListOnDemandFeatureViews",
        ListOnDemandFeatureViewsRequest,
        ListOnDemandFeatureViewsResponse,
        on_demand_feature_views
    );
    list!("ListLabelViews", ListLabelViewsRequest, ListLabelViewsResponse, label_views);
    list!("ListFeatureServices", ListFeatureServicesRequest, ListFeatureServicesResponse, feature_services);
    list!("ListSavedDatasets", ListSavedDatasetsRequest, ListSavedDatasetsResponse, saved_datasets);
    list!(
        "ListValidationReferences",
        ListValidationReferencesRequest,
        ListValidationReferencesResponse,
        validation_references
    );
    list!("ListPermissions", ListPermissionsRequest, ListPermissionsResponse, permissions);
    Ok(lists)
}

/// Writes into each object the project in whose list it is; `false` when the lists are not those of this registry.
fn name_projects(registry: &mut core::Registry, projects: &[String], lists: &[core::Registry]) -> bool {
    let mut fit = true;
    macro_rules! name {
        (@plain $field:ident) => {
            let mut objects = registry.$field.iter_mut();
            for (project, list) in projects.iter().zip(lists) {
                for listed in &list.$field {
                    let Some(object) = objects.next() else {
                        fit = false;
                        break;
                    };
                    fit &= listed.name == object.name;
                    object.project.clone_from(project);
                }
            }
            fit &= objects.next().is_none();
        };
        ($field:ident) => {
            for object in registry.$field.iter_mut().filter(|object| object.spec.is_none()) {
                object.spec = Some(Default::default());
            }
            let mut objects = registry.$field.iter_mut().filter_map(|object| object.spec.as_mut());
            for (project, list) in projects.iter().zip(lists) {
                for listed in &list.$field {
                    let Some(object) = objects.next() else {
                        fit = false;
                        break;
                    };
                    fit &= listed.spec.as_ref().is_some_and(|listed| listed.name == object.name);
                    object.project.clone_from(project);
                }
            }
            fit &= objects.next().is_none();
        };
    }
    name!(entities);
    name!(feature_views);
    name!(stream_feature_views);
    name!(on_demand_feature_views);
    name!(label_views);
    name!(feature_services);
    name!(saved_datasets);
    name!(permissions);
    name!(@plain data_sources);
    name!(@plain validation_references);
    fit
}

pub(super) async fn version(server: &Connection) -> Result<Option<RegistryVersion>> {
    Ok(digest(&registry(server).await?))
}

async fn registry(server: &Connection) -> Result<core::Registry> {
    server.call(SERVICE, "Proto", &(), Repeat::Yes).await
}

/// Equal digests have equal contents. A server without projects has no registry yet.
fn digest(registry: &core::Registry) -> Option<RegistryVersion> {
    if registry.projects.is_empty() {
        return None;
    }
    let mut registry = registry.clone();
    // The server makes the sources of requests anew, with the time of now, whenever it tells them.
    let views = registry.on_demand_feature_views.iter_mut().filter_map(|view| view.spec.as_mut());
    for source in views.flat_map(|spec| spec.sources.values_mut()).filter_map(|source| source.source.as_mut()) {
        if let core::on_demand_source::Source::RequestDataSource(request) = source {
            request.meta = None;
        }
    }
    // Encoded again, since others write the entries of maps in any order.
    let bytes = registry.encode_to_vec();
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, &bytes).hash(&mut hasher);
        hasher.finish()
    };
    Some(RegistryVersion(format!("{:016x}{:016x}", half(0), half(1))))
}

async fn tables_of(server: &Connection, project: &str) -> Result<Vec<ManagedTable>> {
    let asked = wire::GetInfraRequest { project: project.to_owned(), allow_cache: false };
    let infra: core::Infra = server.call(SERVICE, "GetInfra", &asked, Repeat::Yes).await?;
    Ok(infra.infra_objects.iter().filter_map(table_from_message).collect())
}

pub(super) async fn commit(
    server: &Connection,
    base: Option<&RegistryVersion>,
    changes: &RegistryChanges,
) -> Result<RegistryVersion> {
    let registry = registry_of_projects(server).await?;
    if registry.version.as_ref() != base {
        return Err(Error::new(
            ErrorCode::Conflict,
            format!("the registry of server `{}` has changed since it was read", server.path()),
        ));
    }
    let stored = snapshot_from_registry(registry.named)?;
    let project = changes.project.as_str();
    let stored = stored.projects.get(project);
    let puts_project =
        changes.changes.iter().any(|change| matches!(change, RegistryChange::Put(RegistryObject::Project(_))));
    if stored.is_none() && !puts_project {
        put(server, project, &RegistryObject::Project(Arc::new(Project::new(project))), None).await?;
    }
    for change in &changes.changes {
        match change {
            RegistryChange::Put(object) => {
                let before = stored.and_then(|stored| stored.get(&object.reference()));
                put(server, project, object, before.as_ref()).await?;
            }
            RegistryChange::Delete(object) => delete(server, project, object).await?,
            // The server keeps its own snapshots of definitions.
            RegistryChange::PutVersion(_) | RegistryChange::DeleteVersions(_) => {}
            // All at once, below.
            RegistryChange::PutManagedTable(_) | RegistryChange::DeleteManagedTable(_) => {}
        }
    }
    update_tables(server, changes).await?;
    version(server)
        .await?
        .ok_or_else(|| Error::unavailable(format!("server `{}` has no registry after a commit", server.path())))
}

async fn put(
    server: &Connection,
    project: &str,
    object: &RegistryObject,
    before: Option<&RegistryObject>,
) -> Result<()> {
    let (project, commit) = (project.to_owned(), true);
    let apply_view = async |view: View, project: String| {
        let request = wire::ApplyFeatureViewRequest { base_feature_view: Some(view), project, commit };
        server.call::<_, ()>(SERVICE, "ApplyFeatureView", &request, Repeat::No).await
    };
    let message = to_message(object, &project);
    if let (RegistryObject::FeatureView(view), Some(RegistryObject::FeatureView(old))) = (object, before) {
        record(server, &project, view, old).await?;
        let state = old.meta.state == view.meta.state;
        if state && before.is_some_and(|before| changed_fields(before, object).is_empty()) {
            return Ok(());
        }
    }
    macro_rules! send {
        ($method:literal, $Request:ident, $field:ident, $message:ident) => {{
            let request = wire::$Request { $field: Some($message), project, commit };
            server.call(SERVICE, $method, &request, Repeat::No).await
        }};
    }
    match message {
        AnyMessage::Project(message) => {
            let request = wire::ApplyProjectRequest { project: Some(message), commit };
            server.call(SERVICE, "ApplyProject", &request, Repeat::No).await
        }
        AnyMessage::Entity(message) => send!("ApplyEntity", ApplyEntityRequest, entity, message),
        AnyMessage::DataSource(message) => send!("ApplyDataSource", ApplyDataSourceRequest, data_source, message),
        AnyMessage::FeatureView(message) => apply_view(View::FeatureView(message), project).await,
        AnyMessage::StreamFeatureView(message) => apply_view(View::StreamFeatureView(message), project).await,
        AnyMessage::OnDemandFeatureView(message) => apply_view(View::OnDemandFeatureView(message), project).await,
        AnyMessage::LabelView(message) => apply_view(View::LabelView(message), project).await,
        AnyMessage::FeatureService(message) => {
            send!("ApplyFeatureService", ApplyFeatureServiceRequest, feature_service, message)
        }
        AnyMessage::SavedDataset(message) => {
            send!("ApplySavedDataset", ApplySavedDatasetRequest, saved_dataset, message)
        }
        AnyMessage::ValidationReference(message) => {
            send!("ApplyValidationReference", ApplyValidationReferenceRequest, validation_reference, message)
        }
        AnyMessage::Permission(message) => send!("ApplyPermission", ApplyPermissionRequest, permission, message),
    }
}

/// Tells what was materialized since. The server takes intervals of views by this call only, and each as one more.
async fn record(server: &Connection, project: &str, view: &FeatureView, old: &FeatureView) -> Result<()> {
    let known = |interval: &Interval| {
        old.meta.materialization_intervals.iter().any(|old| old.start <= interval.start && interval.end <= old.end)
    };
    for interval in view.meta.materialization_intervals.iter().filter(|interval| !known(interval)) {
        // A stream view goes by the message of a batch view: the server looks for its name in both.
        let batch = BatchFeatures { batch_source: view.batch_source().cloned(), ..BatchFeatures::default() };
        let named = FeatureView { kind: FeatureViewKind::Batch(batch), ..view.clone() };
        let message = to_message(&RegistryObject::FeatureView(Arc::new(named)), project);
        let AnyMessage::FeatureView(message) = message else { continue };
        let time = |time: feast_core::Timestamp| prost_types::Timestamp {
            seconds: time.timestamp(),
            nanos: time.timestamp_subsec_nanos() as i32,
        };
        let request = wire::ApplyMaterializationRequest {
            feature_view: Some(message),
            project: project.to_owned(),
            start_date: Some(time(interval.start)),
            end_date: Some(time(interval.end)),
            commit: true,
        };
        server.call::<_, ()>(SERVICE, "ApplyMaterialization", &request, Repeat::No).await?;
    }
    Ok(())
}

async fn delete(server: &Connection, project: &str, object: &ObjectRef) -> Result<()> {
    let (project, name, commit) = (project.to_owned(), object.name.clone(), true);
    macro_rules! send {
        ($method:literal, $Request:ident) => {{
            let request = wire::$Request { name, project, commit };
            server.call::<_, ()>(SERVICE, $method, &request, Repeat::No).await
        }};
    }
    let deleted = match object.kind {
        ObjectKind::Project => {
            let request = wire::DeleteProjectRequest { name, commit };
            server.call::<_, ()>(SERVICE, "DeleteProject", &request, Repeat::No).await
        }
        ObjectKind::Entity => send!("DeleteEntity", DeleteEntityRequest),
        ObjectKind::DataSource => send!("DeleteDataSource", DeleteDataSourceRequest),
        ObjectKind::FeatureView
        | ObjectKind::StreamFeatureView
        | ObjectKind::OnDemandFeatureView
        | ObjectKind::LabelView => send!("DeleteFeatureView", DeleteFeatureViewRequest),
        ObjectKind::FeatureService => send!("DeleteFeatureService", DeleteFeatureServiceRequest),
        ObjectKind::SavedDataset => send!("DeleteSavedDataset", DeleteSavedDatasetRequest),
        ObjectKind::ValidationReference => send!("DeleteValidationReference", DeleteValidationReferenceRequest),
        ObjectKind::Permission => send!("DeletePermission", DeletePermissionRequest),
    };
    match deleted {
        // What is gone already is as it should be.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        deleted => deleted,
    }
}

/// The server takes the tables of a project all at once.
async fn update_tables(server: &Connection, changes: &RegistryChanges) -> Result<()> {
    let concerns = |change: &RegistryChange| {
        matches!(change, RegistryChange::PutManagedTable(_) | RegistryChange::DeleteManagedTable(_))
    };
    if !changes.changes.iter().any(concerns) {
        return Ok(());
    }
    let asked = wire::GetInfraRequest { project: changes.project.clone(), allow_cache: false };
    let mut infra: core::Infra = server.call(SERVICE, "GetInfra", &asked, Repeat::Yes).await?;
    let named = |object: &core::InfraObject, name: &str| table_from_message(object).is_some_and(|t| t.name == name);
    for change in &changes.changes {
        match change {
            RegistryChange::PutManagedTable(table) => {
                infra.infra_objects.retain(|object| !named(object, &table.name));
                infra.infra_objects.push(managed_table_message(table));
            }
            RegistryChange::DeleteManagedTable(name) => infra.infra_objects.retain(|object| !named(object, name)),
            _ => {}
        }
    }
    let request = wire::UpdateInfraRequest { infra: Some(infra), project: changes.project.clone(), commit: true };
    server.call(SERVICE, "UpdateInfra", &request, Repeat::No).await
}

/// Deletes every project.
pub(super) async fn teardown(server: &Connection) -> Result<()> {
    for project in registry(server).await?.projects {
        let name = project.spec.unwrap_or_default().name;
        delete(server, &name, &ObjectRef::new(ObjectKind::Project, &name)).await?;
    }
    Ok(())
}
