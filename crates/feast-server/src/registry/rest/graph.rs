//! `/lineage/…`: what is made from what, and everything that an interface shows of a project.

use axum::Json;
use axum::extract::{Path, State};
use feast_core::{RegistryObject, Result};
use feast_proto::registry::{PaginationParams, SortingParams};
use serde_json::{Value, json};

use super::super::Registry;
use super::super::lineage::{self, Relation};
use super::super::page::page;
use super::super::read::Listing;
use super::super::service::relation_key;
use super::asked::{Answer, Asked, Refusal};
use super::objects::{
    DATA_SOURCES, ENTITIES, FEATURE_SERVICES, LABEL_VIEWS, Resource, SAVED_DATASETS, feature_json, object_json,
    objects_json, pagination_json, relation_json,
};

/// A page of relations, and where it stands.
fn paged(relations: Vec<Relation>, pages: &PaginationParams, sorting: &SortingParams) -> Result<(Value, Value)> {
    let (relations, pagination) = page(relations, Some(pages), Some(sorting), relation_key);
    Ok((relations.iter().map(relation_json).collect(), pagination_json(&pagination)?))
}

/// `GET /lineage/registry`
pub(super) async fn registry(State(registry): State<Registry>, asked: Asked) -> Answer {
    let (kind, name) = (asked.or_empty("filter_object_type"), asked.or_empty("filter_object_name"));
    let (direct, indirect) = registry.lineage(&asked.required("project")?, &kind, &name, asked.allow_cache()?).await?;
    let (pages, sorting) = (asked.pagination()?, asked.sorting()?);
    let ((direct, direct_page), (indirect, indirect_page)) =
        (paged(direct, &pages, &sorting)?, paged(indirect, &pages, &sorting)?);
    Ok(Json(json!({
        "relationships": direct,
        "indirect_relationships": indirect,
        "relationships_pagination": direct_page,
        "indirect_relationships_pagination": indirect_page,
    })))
}

/// `GET /lineage/registry/all`
pub(super) async fn registry_of_all(State(registry): State<Registry>, asked: Asked) -> Answer {
    let (kind, name) = (asked.or_empty("filter_object_type"), asked.or_empty("filter_object_name"));
    let listing = Listing { allow_cache: asked.allow_cache()?, ..Listing::default() };
    let (mut direct, mut indirect): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for project in registry.projects(&listing).await?.0.iter().map(RegistryObject::name) {
        let of_project = |relation: &Relation| {
            let mut value = relation_json(relation);
            value["project"] = project.into();
            value
        };
        let (one, other) = registry.lineage(project, &kind, &name, true).await?;
        direct.extend(one.iter().map(of_project));
        indirect.extend(other.iter().map(of_project));
    }
    Ok(Json(json!({"relationships": direct, "indirect_relationships": indirect})))
}

/// `GET /lineage/objects/{object_type}/{object_name}`
pub(super) async fn object(
    State(registry): State<Registry>,
    Path((kind, name)): Path<(String, String)>,
    asked: Asked,
) -> Answer {
    lineage::check_kind(&kind).map_err(Refusal::from)?;
    let indirect = asked.flag("include_indirect", false)?;
    let relations =
        registry.relations(&asked.required("project")?, &kind, &name, indirect, asked.allow_cache()?).await?;
    let (relations, pagination) = paged(relations, &asked.pagination()?, &asked.sorting()?)?;
    let mut answer = json!({"pagination": pagination});
    // As protobuf's JSON, where an empty list is no list.
    if relations != json!([]) {
        answer["relationships"] = relations;
    }
    Ok(Json(answer))
}

/// Everything of a project: objects and, kind by kind, where their pages stand.
async fn everything(registry: &Registry, listing: &Listing) -> Result<(Value, Value)> {
    let (mut objects, mut pages) = (json!({}), json!({}));
    let kinds: [(&str, Resource); 5] = [
        ("entities", ENTITIES),
        ("dataSources", DATA_SOURCES),
        ("labelViews", LABEL_VIEWS),
        ("featureServices", FEATURE_SERVICES),
        ("savedDatasets", SAVED_DATASETS),
    ];
    for (key, resource) in kinds {
        let (list, pagination) = registry.list(resource.kind, listing, |_| true).await?;
        objects[key] = objects_json(&list)?.into();
        pages[key] = pagination_json(&pagination)?;
    }
    let (views, pagination) = registry.views(listing, &super::super::read::ViewFilter::default()).await?;
    let wrapped = views.iter().map(|view| {
        let mut view = object_json(view)?;
        let kind = view.as_object_mut().and_then(|members| members.remove("type"));
        Ok(json!({kind.as_ref().and_then(Value::as_str).unwrap_or_default(): view}))
    });
    objects["featureViews"] = wrapped.collect::<Result<Vec<_>>>()?.into();
    pages["featureViews"] = pagination_json(&pagination)?;
    // Among the features of everything are the labels, too.
    for (key, kind) in [("features", ""), ("labels", "label")] {
        let (features, pagination) = registry.features(listing, "", "", kind).await?;
        objects[key] = features.iter().map(feature_json).collect::<Result<Vec<_>>>()?.into();
        pages[key] = pagination_json(&pagination)?;
    }
    // Views say what they are by the key that they are under.
    for view in objects["labelViews"].as_array_mut().into_iter().flatten() {
        view.as_object_mut().map(|members| members.remove("type"));
    }
    Ok((objects, pages))
}

/// `GET /lineage/complete`
pub(super) async fn complete(State(registry): State<Registry>, asked: Asked) -> Answer {
    let listing = Listing { tags: feast_core::Tags::new(), ..asked.listing(asked.required("project")?)? };
    let (objects, mut pages) = everything(&registry, &listing).await?;
    let (direct, indirect) = registry.lineage(&listing.project, "", "", listing.allow_cache).await?;
    let (wanted, sorting) = (asked.pagination()?, asked.sorting()?);
    let (direct, direct_page) = paged(direct, &wanted, &sorting)?;
    let (indirect, indirect_page) = paged(indirect, &wanted, &sorting)?;
    pages["relationships"] = direct_page;
    pages["indirectRelationships"] = indirect_page;
    Ok(Json(json!({
        "project": listing.project,
        "objects": objects,
        "relationships": direct,
        "indirectRelationships": indirect,
        "pagination": pages,
    })))
}

/// `GET /lineage/complete/all`
pub(super) async fn complete_of_all(State(registry): State<Registry>, asked: Asked) -> Answer {
    let listing = Listing { allow_cache: asked.allow_cache()?, ..Listing::default() };
    let mut all = Vec::new();
    for project in registry.projects(&listing).await?.0.iter().map(RegistryObject::name) {
        let listing = Listing { project: project.to_owned(), allow_cache: true, ..Listing::default() };
        let (mut objects, _) = everything(&registry, &listing).await?;
        for list in objects.as_object_mut().into_iter().flat_map(|members| members.values_mut()) {
            list.as_array_mut().into_iter().flatten().for_each(|object| object["project"] = project.into());
        }
        let (direct, indirect) = registry.lineage(project, "", "", true).await?;
        let json_of = |relations: &[Relation]| relations.iter().map(relation_json).collect::<Vec<_>>();
        all.push(json!({
            "project": project,
            "objects": objects,
            "relationships": json_of(&direct),
            "indirectRelationships": json_of(&indirect),
        }));
    }
    Ok(Json(json!({"projects": all})))
}
