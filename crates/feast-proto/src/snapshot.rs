//! `feast.core.Registry`: all objects of a registry, as a snapshot or as the contents of one project.

use std::sync::Arc;

use bytes::Bytes;
use feast_core::{
    Error, ErrorCode, ManagedTable, ObjectKind, Project, ProjectContents, RegistryObject, RegistrySnapshot,
    RegistryVersion, Result, VersionRecord,
};

use crate::core;
use crate::malformed::{CORRUPT_HINT, decode};
use crate::object::{AnyMessage, decode_object, encode_object, from_message, from_message_or, to_message};
use crate::time;

/// The one version of the layout of registries.
pub const REGISTRY_SCHEMA_VERSION: &str = "1";

/// Reads a serialized `feast.core.Registry`.
///
/// # Errors
/// `CorruptRegistry` when the bytes are not such a message.
pub fn decode_registry(bytes: &[u8]) -> Result<core::Registry> {
    decode(bytes, "registry")
}

/// The snapshot that a registry message describes. Its version is the `version_id` of the message, if it has one.
///
/// # Errors
/// `CorruptRegistry`, naming the object, when one of them cannot be read.
#[expect(deprecated, reason = "registries older than projects list them in their metadata only")]
pub fn snapshot_from_registry(registry: &core::Registry) -> Result<RegistrySnapshot> {
    let mut snapshot = RegistrySnapshot::default();
    if !registry.version_id.is_empty() {
        snapshot.version = Some(RegistryVersion(registry.version_id.clone()));
    }
    let corrupt = |what: &str, error: crate::malformed::Malformed| error.of(ErrorCode::CorruptRegistry, what);
    snapshot.updated = time::timestamp(registry.last_updated).map_err(|error| corrupt("registry", error))?;

    let mut projects = indexmap::IndexMap::<String, ProjectContents>::new();
    for message in &registry.projects {
        let object = from_message(AnyMessage::Project(message.clone()))?;
        projects.entry(object.name().to_owned()).or_default().put(object);
    }
    for metadata in &registry.project_metadata {
        contents_of(&mut projects, &metadata.project);
    }
    for message in objects(registry) {
        let object = from_message(message)?;
        contents_of(&mut projects, project_of(&object)).put(object);
    }
    snapshot.projects = projects.into_iter().map(|(name, contents)| (name, Arc::new(contents))).collect();

    for record in registry.feature_view_version_history.iter().flat_map(|history| &history.records) {
        if let Some(record) = version_from_message(record)? {
            snapshot.versions.push(record);
        }
    }
    snapshot.managed_tables = registry.infra.iter().flat_map(tables_of).collect();
    Ok(snapshot)
}

/// The tables in a serialized `feast.core.Infra`.
///
/// # Errors
/// `CorruptRegistry` when the bytes are not such a message.
pub fn managed_tables(bytes: &[u8]) -> Result<Vec<ManagedTable>> {
    let infra: core::Infra = decode(bytes, "record of the online store's tables")?;
    Ok(tables_of(&infra).collect())
}

fn tables_of(infra: &core::Infra) -> impl Iterator<Item = ManagedTable> {
    infra.infra_objects.iter().filter_map(table_from_message)
}

/// The table that a message records; `None` for what is not a table of SQLite.
pub fn table_from_message(object: &core::InfraObject) -> Option<ManagedTable> {
    match &object.infra_object {
        Some(core::infra_object::InfraObject::SqliteTable(table)) => Some(ManagedTable {
            class_type: object.infra_object_class_type.clone(),
            name: table.name.clone(),
            path: table.path.clone(),
        }),
        _ => None,
    }
}

/// The desired objects of `project`, as the definitions of a repository are handed over: whatever project they name,
/// they belong to this one. Objects may not appear twice. Without a project among them, the project of the contents
/// stays without a name.
///
/// # Errors
/// `InvalidDefinition` when an object cannot be read, appears twice, or when the project is defined under another
/// name.
pub fn contents_from_registry(registry: &core::Registry, project: &str) -> Result<ProjectContents> {
    let mut contents = ProjectContents::default();
    let read = |message| from_message_or(ErrorCode::InvalidDefinition, message);
    match registry.projects.as_slice() {
        [] => {}
        [message] => {
            let object = read(AnyMessage::Project(message.clone()))?;
            if object.name() != project {
                return Err(Error::invalid_definition(format!(
                    "the repository defines project `{}`, but its configuration names project `{project}`",
                    object.name()
                ))
                .with_hint("use the same name in `Project(name=...)` and in `project:` of feature_store.yaml"));
            }
            contents.put(object);
        }
        several => {
            return Err(Error::invalid_definition(format!("the repository defines {} projects", several.len()))
                .with_hint("keep one; a repository belongs to one project"));
        }
    }
    for message in objects(registry) {
        let mut object = read(message)?;
        // Views of different kinds may not share a name either.
        let same_view = object.kind().is_feature_view() && contents.feature_views.contains_key(object.name());
        if same_view || contents.get(&object.reference()).is_some() {
            return Err(Error::invalid_definition(format!("{} is defined twice", object.reference()))
                .with_hint("rename or remove one of them"));
        }
        set_project(&mut object, project);
        contents.put(object);
    }
    Ok(contents)
}

/// The registry message of a snapshot: of one project, or of all of them.
///
/// Made for readers (dumps, servers, the Python objects): what a snapshot does not hold, such as infrastructure of
/// other stores, is not in it.
pub fn registry_from_snapshot(snapshot: &RegistrySnapshot, project: Option<&str>) -> core::Registry {
    let mut registry = core::Registry {
        registry_schema_version: REGISTRY_SCHEMA_VERSION.to_owned(),
        version_id: snapshot.version.as_ref().map(ToString::to_string).unwrap_or_default(),
        last_updated: time::optional_timestamp_message(snapshot.updated),
        ..core::Registry::default()
    };
    let wanted = |name: &str| project.is_none_or(|project| project == name);
    for (name, contents) in snapshot.projects.iter().filter(|(name, _)| wanted(name)) {
        push(&mut registry, to_message(&RegistryObject::Project(Arc::new(contents.project.clone())), name));
        for object in contents.objects() {
            push(&mut registry, to_message(&object, name));
        }
    }
    let records: Vec<_> =
        snapshot.versions.iter().filter(|record| wanted(&record.project)).map(version_message).collect();
    if !records.is_empty() {
        registry.feature_view_version_history = Some(core::FeatureViewVersionHistory { records });
    }
    if !snapshot.managed_tables.is_empty() {
        let infra_objects = snapshot.managed_tables.iter().map(managed_table_message).collect();
        registry.infra = Some(core::Infra { infra_objects });
    }
    registry
}

/// The message of an older definition.
pub fn version_message(record: &VersionRecord) -> core::FeatureViewVersionRecord {
    let view = RegistryObject::FeatureView(Arc::clone(&record.view));
    core::FeatureViewVersionRecord {
        feature_view_name: record.view.name.clone(),
        project_id: record.project.clone(),
        version_number: record.version_number,
        feature_view_type: view.kind().identifier().to_owned(),
        feature_view_proto: Bytes::from(encode_object(&view, &record.project)),
        created_timestamp: time::optional_timestamp_message(record.created),
        description: record.description.clone(),
        version_id: record.version_id.clone(),
    }
}

/// An older definition; `None` for a kind of view that this version does not know, which stays in the registry unread.
///
/// # Errors
/// `CorruptRegistry`, naming the view, when its message cannot be read.
pub fn version_from_message(record: &core::FeatureViewVersionRecord) -> Result<Option<VersionRecord>> {
    let name = &record.feature_view_name;
    let number = record.version_number;
    let corrupt = || {
        Error::new(
            ErrorCode::CorruptRegistry,
            format!("version {number} of feature view `{name}` cannot be read in the version history"),
        )
        .with_hint(CORRUPT_HINT)
    };
    let kind =
        ObjectKind::ALL.iter().find(|kind| kind.is_feature_view() && kind.identifier() == record.feature_view_type);
    let Some(kind) = kind else { return Ok(None) };
    let object = decode_object(*kind, &record.feature_view_proto).map_err(|error| corrupt().with_source(error))?;
    let RegistryObject::FeatureView(view) = object else { return Err(corrupt()) };
    Ok(Some(VersionRecord {
        project: record.project_id.clone(),
        version_number: number,
        view,
        created: time::timestamp(record.created_timestamp).map_err(|_| corrupt())?,
        description: record.description.clone(),
        version_id: record.version_id.clone(),
    }))
}

/// The message of a table that Feast's `plan` expects to find.
pub fn managed_table_message(table: &ManagedTable) -> core::InfraObject {
    core::InfraObject {
        infra_object_class_type: table.class_type.clone(),
        infra_object: Some(core::infra_object::InfraObject::SqliteTable(core::SqliteTable {
            path: table.path.clone(),
            name: table.name.clone(),
        })),
    }
}

fn contents_of<'a>(
    projects: &'a mut indexmap::IndexMap<String, ProjectContents>,
    name: &str,
) -> &'a mut ProjectContents {
    projects
        .entry(name.to_owned())
        .or_insert_with(|| ProjectContents { project: Project::new(name), ..ProjectContents::default() })
}

/// All objects but projects, kind by kind.
fn objects(registry: &core::Registry) -> impl Iterator<Item = AnyMessage> {
    let views = registry.feature_views.iter().cloned().map(AnyMessage::FeatureView);
    let stream_views = registry.stream_feature_views.iter().cloned().map(AnyMessage::StreamFeatureView);
    let on_demand_views = registry.on_demand_feature_views.iter().cloned().map(AnyMessage::OnDemandFeatureView);
    let label_views = registry.label_views.iter().cloned().map(AnyMessage::LabelView);
    registry
        .entities
        .iter()
        .cloned()
        .map(AnyMessage::Entity)
        .chain(registry.data_sources.iter().cloned().map(AnyMessage::DataSource))
        .chain(views.chain(stream_views).chain(on_demand_views).chain(label_views))
        .chain(registry.feature_services.iter().cloned().map(AnyMessage::FeatureService))
        .chain(registry.saved_datasets.iter().cloned().map(AnyMessage::SavedDataset))
        .chain(registry.validation_references.iter().cloned().map(AnyMessage::ValidationReference))
        .chain(registry.permissions.iter().cloned().map(AnyMessage::Permission))
}

fn push(registry: &mut core::Registry, message: AnyMessage) {
    match message {
        AnyMessage::Project(message) => registry.projects.push(message),
        AnyMessage::Entity(message) => registry.entities.push(message),
        AnyMessage::DataSource(message) => registry.data_sources.push(message),
        AnyMessage::FeatureView(message) => registry.feature_views.push(message),
        AnyMessage::StreamFeatureView(message) => registry.stream_feature_views.push(message),
        AnyMessage::OnDemandFeatureView(message) => registry.on_demand_feature_views.push(message),
        AnyMessage::LabelView(message) => registry.label_views.push(message),
        AnyMessage::FeatureService(message) => registry.feature_services.push(message),
        AnyMessage::SavedDataset(message) => registry.saved_datasets.push(message),
        AnyMessage::ValidationReference(message) => registry.validation_references.push(message),
        AnyMessage::Permission(message) => registry.permissions.push(message),
    }
}

fn project_of(object: &RegistryObject) -> &str {
    match object {
        RegistryObject::Project(object) => &object.name,
        RegistryObject::Entity(object) => &object.project,
        RegistryObject::DataSource(object) => &object.project,
        RegistryObject::FeatureView(object) => &object.project,
        RegistryObject::FeatureService(object) => &object.project,
        RegistryObject::SavedDataset(object) => &object.project,
        RegistryObject::ValidationReference(object) => &object.project,
        RegistryObject::Permission(object) => &object.project,
    }
}

fn set_project(object: &mut RegistryObject, project: &str) {
    let project = project.to_owned();
    match object {
        RegistryObject::Project(_) => {}
        RegistryObject::Entity(object) => Arc::make_mut(object).project = project,
        RegistryObject::DataSource(object) => Arc::make_mut(object).project = project,
        RegistryObject::FeatureView(object) => Arc::make_mut(object).project = project,
        RegistryObject::FeatureService(object) => Arc::make_mut(object).project = project,
        RegistryObject::SavedDataset(object) => Arc::make_mut(object).project = project,
        RegistryObject::ValidationReference(object) => Arc::make_mut(object).project = project,
        RegistryObject::Permission(object) => Arc::make_mut(object).project = project,
    }
}
