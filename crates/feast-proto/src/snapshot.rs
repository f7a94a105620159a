//! `feast.core.Registry`: all objects of a registry, as a snapshot or as the contents of one project.

use std::sync::Arc;

use bytes::Buf;
use feast_core::{
    Error, ErrorCode, FeatureView, ManagedTable, ObjectKind, PastDefinition, Project, ProjectContents, RegistryObject,
    RegistrySnapshot, RegistryVersion, Result, VersionRecord,
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
pub fn decode_registry(bytes: impl Buf) -> Result<core::Registry> {
    decode(bytes, "registry")
}

/// The snapshot that a registry message describes. Its version is the `version_id` of the message, if it has one.
///
/// # Errors
/// `CorruptRegistry`, naming the object, when one of them cannot be read.
pub fn snapshot_from_registry(mut registry: core::Registry) -> Result<RegistrySnapshot> {
    let projects = std::mem::take(&mut registry.projects).into_iter().map(AnyMessage::Project);
    let messages = projects.chain(take_objects(&mut registry));
    let objects = messages.map(from_message).collect::<Result<Vec<_>>>()?;
    snapshot_from_objects(registry, objects)
}

/// The snapshot of a registry whose objects are already read; those in `rest` do not count.
///
/// # Errors
/// `CorruptRegistry` when what stands beside the objects cannot be read.
#[expect(deprecated, reason = "registries older than projects list them in their metadata only")]
pub fn snapshot_from_objects(rest: core::Registry, objects: Vec<RegistryObject>) -> Result<RegistrySnapshot> {
    let mut snapshot = RegistrySnapshot::default();
    if !rest.version_id.is_empty() {
        snapshot.version = Some(RegistryVersion(rest.version_id));
    }
    snapshot.updated =
        time::timestamp(rest.last_updated).map_err(|error| error.of(ErrorCode::CorruptRegistry, "registry"))?;

    let mut projects = indexmap::IndexMap::<String, ProjectContents>::new();
    let (owners, owned): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|object| object.kind() == ObjectKind::Project);
    for object in owners {
        projects.entry(object.name().to_owned()).or_default().put(object);
    }
    for metadata in &rest.project_metadata {
        contents_of(&mut projects, &metadata.project);
    }
    for object in owned {
        contents_of(&mut projects, project_of(&object)).put(object);
    }
    snapshot.projects = projects.into_iter().map(|(name, contents)| (name, Arc::new(contents))).collect();

    let records = rest.feature_view_version_history.into_iter().flat_map(|history| history.records);
    let records = records.map(version_from_message).filter_map(Result::transpose);
    snapshot.versions = Arc::new(records.map(|record| record.map(Arc::new)).collect::<Result<_>>()?);
    snapshot.managed_tables = Arc::new(rest.infra.iter().flat_map(tables_of).collect());
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
pub fn contents_from_registry(mut registry: core::Registry, project: &str) -> Result<ProjectContents> {
    let mut contents = ProjectContents::default();
    let read = |message| from_message_or(ErrorCode::InvalidDefinition, message);
    match registry.projects.as_mut_slice() {
        [] => {}
        [message] => {
            let object = read(AnyMessage::Project(std::mem::take(message)))?;
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
    for message in take_objects(&mut registry) {
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
    let records: Vec<_> = snapshot
        .versions
        .iter()
        .filter(|record| wanted(&record.project))
        .map(|record| version_message(record))
        .collect();
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
    let definition = match &record.definition {
        PastDefinition::Read(view) => {
            encode_object(&RegistryObject::FeatureView(Arc::clone(view)), &record.project).into()
        }
        PastDefinition::Unread { message, .. } => message.clone(),
    };
    core::FeatureViewVersionRecord {
        feature_view_name: record.feature_view.clone(),
        project_id: record.project.clone(),
        version_number: record.version_number,
        feature_view_type: record.kind.identifier().to_owned(),
        feature_view_proto: definition,
        created_timestamp: time::optional_timestamp_message(record.created),
        description: record.description.clone(),
        version_id: record.version_id.clone(),
    }
}

/// An older definition, which is not read yet; `None` for a kind of view that this version does not know, which stays in
/// the registry as it is.
///
/// # Errors
/// `CorruptRegistry`, naming the view, when its time makes no sense.
pub fn version_from_message(message: core::FeatureViewVersionRecord) -> Result<Option<VersionRecord>> {
    let kind =
        ObjectKind::ALL.iter().find(|kind| kind.is_feature_view() && kind.identifier() == message.feature_view_type);
    let Some(kind) = kind else { return Ok(None) };
    let record = VersionRecord {
        project: message.project_id,
        feature_view: message.feature_view_name,
        kind: *kind,
        version_number: message.version_number,
        definition: PastDefinition::Unread { message: message.feature_view_proto, read: read_version },
        created: None,
        description: message.description,
        version_id: message.version_id,
    };
    match time::timestamp(message.created_timestamp) {
        Ok(created) => Ok(Some(VersionRecord { created, ..record })),
        Err(_) => Err(corrupt_version(&record)),
    }
}

fn read_version(record: &VersionRecord, message: &[u8]) -> Result<Arc<FeatureView>> {
    match decode_object(record.kind, message) {
        Ok(RegistryObject::FeatureView(view)) => Ok(view),
        Ok(_) => Err(corrupt_version(record)),
        Err(error) => Err(corrupt_version(record).with_source(error)),
    }
}

fn corrupt_version(record: &VersionRecord) -> Error {
    let VersionRecord { version_number: number, feature_view: name, .. } = record;
    Error::new(
        ErrorCode::CorruptRegistry,
        format!("version {number} of feature view `{name}` cannot be read in the version history"),
    )
    .with_hint(CORRUPT_HINT)
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

/// Takes all objects but projects out of a registry, kind by kind.
fn take_objects(registry: &mut core::Registry) -> impl Iterator<Item = AnyMessage> + use<> {
    macro_rules! take {
        ($field:ident, $kind:ident) => {
            std::mem::take(&mut registry.$field).into_iter().map(AnyMessage::$kind)
        };
    }
    take!(entities, Entity)
        .chain(take!(data_sources, DataSource))
        .chain(take!(feature_views, FeatureView))
        .chain(take!(stream_feature_views, StreamFeatureView))
        .chain(take!(on_demand_feature_views, OnDemandFeatureView))
        .chain(take!(label_views, LabelView))
        .chain(take!(feature_services, FeatureService))
        .chain(take!(saved_datasets, SavedDataset))
        .chain(take!(validation_references, ValidationReference))
        .chain(take!(permissions, Permission))
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
