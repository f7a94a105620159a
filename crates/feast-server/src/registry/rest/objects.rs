//! Lists, single objects and deletions, kind by kind.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use feast_core::{ObjectKind, ObjectRef, ProjectContents, RegistryObject, Result};
use feast_proto::registry::PaginationMetadata;
use feast_proto::{encode_object, message_to_json, to_json};
use prost::Message;
use serde_json::{Map, Value, json};

use super::super::Registry;
use super::super::lineage::{self, Relation};
use super::super::read::{FeatureOfView, Listing, ViewFilter};
use super::super::service::feature_message;
use super::asked::{Answer, Asked, Refusal, page_of};

/// How Feast names a kind of object in addresses, bodies and lineages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resource {
    pub(super) path: &'static str,
    pub(super) kind: ObjectKind,
    pub(super) key: &'static str,
    pub(super) node: &'static str,
}

pub(super) const ENTITIES: Resource =
    Resource { path: "entities", kind: ObjectKind::Entity, key: "entities", node: lineage::ENTITY };
pub(super) const DATA_SOURCES: Resource =
    Resource { path: "data_sources", kind: ObjectKind::DataSource, key: "dataSources", node: lineage::DATA_SOURCE };
pub(super) const FEATURE_SERVICES: Resource = Resource {
    path: "feature_services",
    kind: ObjectKind::FeatureService,
    key: "featureServices",
    node: lineage::FEATURE_SERVICE,
};
pub(super) const SAVED_DATASETS: Resource = Resource {
    path: "saved_datasets",
    kind: ObjectKind::SavedDataset,
    key: "savedDatasets",
    node: lineage::SAVED_DATASET,
};
pub(super) const LABEL_VIEWS: Resource =
    Resource { path: "label_views", kind: ObjectKind::LabelView, key: "featureViews", node: lineage::FEATURE_VIEW };
pub(super) const PERMISSIONS: Resource =
    Resource { path: "permissions", kind: ObjectKind::Permission, key: "permissions", node: "permission" };
/// Views of all kinds but label views.
pub(super) const FEATURE_VIEWS: Resource =
    Resource { path: "feature_views", kind: ObjectKind::FeatureView, key: "featureViews", node: lineage::FEATURE_VIEW };

/// The kinds that have lists of their own.
pub(super) const RESOURCES: [Resource; 6] =
    [ENTITIES, DATA_SOURCES, FEATURE_SERVICES, SAVED_DATASETS, LABEL_VIEWS, PERMISSIONS];

/// An object as JSON. Feast's objects do not know their project; views say what kind they are.
pub(super) fn object_json(object: &RegistryObject) -> Result<Value> {
    let mut value = to_json(object.kind(), &encode_object(object, ""))?;
    let kind = match object.kind() {
        ObjectKind::FeatureView => "featureView",
        ObjectKind::StreamFeatureView => "streamFeatureView",
        ObjectKind::OnDemandFeatureView => "onDemandFeatureView",
        ObjectKind::LabelView => "labelView",
        _ => return Ok(value),
    };
    if let Value::Object(members) = &mut value {
        members.insert("type".to_owned(), kind.into());
    }
    Ok(value)
}

pub(super) fn objects_json(objects: &[RegistryObject]) -> Result<Vec<Value>> {
    objects.iter().map(object_json).collect()
}

pub(super) fn pagination_json(pagination: &PaginationMetadata) -> Result<Value> {
    message_to_json("feast.registry.PaginationMetadata", &pagination.encode_to_vec())
}

pub(super) fn feature_json(feature: &FeatureOfView) -> Result<Value> {
    message_to_json("feast.registry.Feature", &feature_message(feature).encode_to_vec())
}

pub(super) fn relation_json(relation: &Relation) -> Value {
    let node = |node: &lineage::Node| json!({"type": node.kind, "name": node.name});
    json!({"source": node(&relation.source), "target": node(&relation.target)})
}

/// The relations of objects of one kind, direct ones and others, by name.
pub(super) fn relations_json<'a>(
    contents: Option<&Arc<ProjectContents>>,
    node: &str,
    names: impl Iterator<Item = &'a str>,
) -> Map<String, Value> {
    let all = contents.map(|contents| {
        let direct = lineage::direct(contents);
        let indirect = lineage::indirect(contents, &direct);
        direct.into_iter().chain(indirect).collect::<Vec<_>>()
    });
    let of = |name: &str| {
        let touching = all.iter().flatten().filter(|relation| relation.touches(node, name));
        touching.map(relation_json).collect::<Vec<_>>()
    };
    names.map(|name| (name.to_owned(), of(name).into())).collect()
}

/// `GET /entities` and its like.
pub(super) async fn list(resource: Resource, registry: Registry, asked: Asked) -> Answer {
    let listing = asked.listing(asked.required("project")?)?;
    let (objects, pagination) = of_project(&registry, resource, &listing, &asked).await?;
    let mut answer = json!({"pagination": pagination_json(&pagination)?});
    answer[resource.key] = objects_json(&objects)?.into();
    if resource.kind == ObjectKind::SavedDataset {
        let contents = registry.contents(&listing.project, listing.allow_cache).await?;
        name_sources(&mut answer[resource.key], contents.as_deref());
    }
    if asked.with_relations()? {
        let contents = registry.contents(&listing.project, listing.allow_cache).await?;
        let names = objects.iter().map(RegistryObject::name);
        answer["relationships"] = relations_json(contents.as_ref(), resource.node, names).into();
    }
    Ok(Json(answer))
}

async fn of_project(
    registry: &Registry,
    resource: Resource,
    listing: &Listing,
    asked: &Asked,
) -> Answer<(Vec<RegistryObject>, PaginationMetadata)> {
    if resource.path == FEATURE_VIEWS.path {
        let updated_since = asked.text("updated_since").map(time).transpose()?;
        let filter = ViewFilter {
            entity: asked.or_empty("entity"),
            feature: asked.or_empty("feature"),
            feature_service: asked.or_empty("feature_service"),
            data_source: asked.or_empty("data_source"),
            updated_since,
        };
        return Ok(registry.views(listing, &filter).await?);
    }
    let chosen = |key: &str, found: &str| asked.text(key).is_none_or(|wanted| wanted.is_empty() || wanted == found);
    let wanted = |object: &RegistryObject| match object {
        RegistryObject::FeatureService(service) => {
            let view = asked.text("feature_view").filter(|view| !view.is_empty());
            view.is_none_or(|view| service.projections.iter().any(|one| one.feature_view_name == view))
        }
        RegistryObject::SavedDataset(dataset) => {
            chosen("namespace", &dataset.namespace) && chosen("collection", &dataset.collection)
        }
        _ => true,
    };
    Ok(registry.list(resource.kind, listing, wanted).await?)
}

fn time(text: &str) -> Answer<feast_core::Timestamp> {
    let read = chrono::DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).ok();
    let naive = || text.parse::<chrono::NaiveDateTime>().ok().map(|time| time.and_utc());
    let date = || text.parse::<chrono::NaiveDate>().ok()?.and_hms_opt(0, 0, 0).map(|time| time.and_utc());
    read.or_else(naive).or_else(date).ok_or_else(|| {
        Refusal::bad(format!("`updated_since` is `{text}`, expected a time such as 2026-01-01T00:00:00Z"))
    })
}

/// `GET /entities/all` and its like: of all projects.
pub(super) async fn list_all(resource: Resource, registry: Registry, asked: Asked) -> Answer {
    let snapshot = registry.snapshot(asked.allow_cache()?).await?;
    let (projects, _) = registry.projects(&Listing { allow_cache: true, ..Listing::default() }).await?;
    let with_relations = asked.with_relations()?;
    let mut relations = Map::new();
    let mut items = Vec::new();
    for project in projects.iter().map(RegistryObject::name) {
        let listing = Listing { project: project.to_owned(), allow_cache: true, ..Listing::default() };
        let (objects, _) = of_project(&registry, resource, &listing, &asked).await?;
        for object in &objects {
            let mut value = object_json(object)?;
            value["project"] = project.into();
            items.push(value);
        }
        if with_relations {
            let names = objects.iter().map(RegistryObject::name);
            relations.extend(relations_json(snapshot.projects.get(project), resource.node, names));
        }
    }
    let (items, pagination) = page_of_all(items, &asked)?;
    let mut answer = json!({"pagination": pagination});
    answer[resource.key] = items.into();
    if resource.kind == ObjectKind::SavedDataset {
        for dataset in answer[resource.key].as_array_mut().into_iter().flatten() {
            let project = dataset["project"].as_str().unwrap_or_default().to_owned();
            name_source(dataset, snapshot.projects.get(&project).map(Arc::as_ref));
        }
    }
    if with_relations {
        answer["relationships"] = relations.into();
    }
    Ok(Json(answer))
}

fn page_of_all(items: Vec<Value>, asked: &Asked) -> Answer<(Vec<Value>, Value)> {
    let pagination = asked.pagination()?;
    let limit = if pagination.limit == 0 { 50 } else { pagination.limit };
    Ok(page_of(items, pagination.page.max(1), limit, &asked.sorting()?))
}

/// The sources whose views a dataset is made of.
fn name_sources(datasets: &mut Value, contents: Option<&ProjectContents>) {
    datasets.as_array_mut().into_iter().flatten().for_each(|dataset| name_source(dataset, contents));
}

fn name_source(dataset: &mut Value, contents: Option<&ProjectContents>) {
    let Some(contents) = contents else { return };
    let mut names: Vec<&str> = Vec::new();
    let features = dataset.pointer("/spec/features").and_then(Value::as_array);
    for view in features.into_iter().flatten().filter_map(Value::as_str).filter_map(|one| one.split_once(':')) {
        let source = contents.feature_views.get(view.0).and_then(|view| view.batch_source());
        if let Some(source) = source.filter(|source| !names.contains(&source.name.as_str())) {
            names.push(&source.name);
        }
    }
    if !names.is_empty() {
        dataset["spec"]["dataSources"] = names.into();
    }
}

/// `GET /entities/{name}` and its like.
pub(super) async fn get(resource: Resource, registry: Registry, name: String, asked: Asked) -> Answer {
    let (project, allow_cache) = (asked.required("project")?, asked.allow_cache()?);
    let object = match resource.path == FEATURE_VIEWS.path {
        true => registry.get_any_view(&project, &name, allow_cache).await?,
        false => registry.get(resource.kind, &project, &name, allow_cache).await?,
    };
    let mut answer = object_json(&object)?;
    let contents = registry.contents(&project, true).await?;
    let relations =
        relations_json(contents.as_ref(), resource.node, [name.as_str()].into_iter()).remove(&name).unwrap_or_default();
    match resource.kind {
        ObjectKind::Entity => {
            let contents = contents.as_deref();
            let targets = relations.as_array().into_iter().flatten();
            let mut sources = Vec::new();
            for target in targets.map(|one| &one["target"]).filter(|one| one["type"] == lineage::DATA_SOURCE) {
                let source = target["name"].as_str().and_then(|name| contents?.data_sources.get(name)).cloned();
                if let Some(source) = source {
                    let source = object_json(&RegistryObject::DataSource(source))?;
                    if !sources.contains(&source) {
                        sources.push(source);
                    }
                }
            }
            answer["dataSources"] = sources.into();
        }
        ObjectKind::SavedDataset => name_source(&mut answer, contents.as_deref()),
        _ => {}
    }
    if asked.with_relations()? {
        answer["relationships"] = relations;
    }
    Ok(Json(answer))
}

/// `DELETE /entities/{name}` and its like.
pub(super) async fn delete(resource: Resource, registry: Registry, name: String, asked: Asked) -> Answer {
    let project = asked.required("project")?;
    registry.delete(&project, ObjectRef::new(resource.kind, &name)).await?;
    let status = if resource.kind == ObjectKind::SavedDataset { "ok" } else { "deleted" };
    Ok(Json(json!({"name": name, "project": project, "status": status})))
}

/// `GET /projects`
pub(super) async fn projects(State(registry): State<Registry>, asked: Asked) -> Answer {
    let (projects, pagination) = registry.projects(&asked.listing(String::new())?).await?;
    Ok(Json(json!({"projects": objects_json(&projects)?, "pagination": pagination_json(&pagination)?})))
}

/// `GET /projects/{name}`
pub(super) async fn project(State(registry): State<Registry>, Path(name): Path<String>, asked: Asked) -> Answer {
    let project = registry.get(ObjectKind::Project, "", &name, asked.allow_cache()?).await?;
    Ok(Json(object_json(&project)?))
}

/// `GET /features` and `GET /labels`
pub(super) async fn features(kind: &'static str, registry: Registry, asked: Asked) -> Answer {
    let listing = asked.listing(asked.required("project")?)?;
    let (view, name) = (asked.or_empty("feature_view"), asked.or_empty("name"));
    let (features, pagination) = registry.features(&listing, &view, &name, kind).await?;
    let key = if kind == "label" { "labels" } else { "features" };
    let mut answer = json!({"pagination": pagination_json(&pagination)?});
    answer[key] = features.iter().map(feature_json).collect::<Result<Vec<_>>>()?.into();
    if asked.with_relations()? {
        let contents = registry.contents(&listing.project, listing.allow_cache).await?;
        let names = features.iter().map(|feature| feature.field.name.as_str());
        answer["relationships"] = relations_json(contents.as_ref(), lineage::FEATURE, names).into();
    }
    Ok(Json(answer))
}

/// `GET /features/all` and `GET /labels/all`
pub(super) async fn features_of_all(kind: &'static str, registry: Registry, asked: Asked) -> Answer {
    let snapshot = registry.snapshot(asked.allow_cache()?).await?;
    let (projects, _) = registry.projects(&Listing { allow_cache: true, ..Listing::default() }).await?;
    let with_relations = asked.with_relations()?;
    let (mut items, mut relations) = (Vec::new(), Map::new());
    for project in projects.iter().map(RegistryObject::name) {
        let listing = Listing { project: project.to_owned(), allow_cache: true, ..Listing::default() };
        let (features, _) = registry.features(&listing, "", "", kind).await?;
        for feature in &features {
            let mut value = feature_json(feature)?;
            value["project"] = project.into();
            items.push(value);
        }
        if with_relations {
            let names = features.iter().map(|feature| feature.field.name.as_str());
            relations.extend(relations_json(snapshot.projects.get(project), lineage::FEATURE, names));
        }
    }
    let (items, pagination) = page_of_all(items, &asked)?;
    let mut answer = json!({"pagination": pagination});
    answer[if kind == "label" { "labels" } else { "features" }] = items.into();
    if with_relations {
        answer["relationships"] = relations.into();
    }
    Ok(Json(answer))
}

/// `GET /features/{feature_view}/{name}`
pub(super) async fn feature(
    State(registry): State<Registry>,
    Path((view, name)): Path<(String, String)>,
    asked: Asked,
) -> Answer {
    let project = asked.required("project")?;
    let feature = registry.feature(&project, &view, &name, asked.allow_cache()?).await?;
    let mut answer = feature_json(&feature)?;
    if asked.with_relations()? {
        let contents = registry.contents(&project, true).await?;
        let mut relations = relations_json(contents.as_ref(), lineage::FEATURE, [name.as_str()].into_iter());
        answer["relationships"] = relations.remove(&name).unwrap_or_default();
    }
    Ok(Json(answer))
}
