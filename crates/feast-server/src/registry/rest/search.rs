//! `/search` and `/metrics/…`: finding things, and counting them.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use feast_core::{ObjectKind, ProjectContents, RegistryObject, Tags};
use feast_proto::registry::SortingParams;
use indexmap::IndexMap;
use serde_json::{Value, json};

use super::super::Registry;
use super::super::read::{Listing, ViewFilter, tags_of, views_in_order};
use super::asked::{Answer, Asked, Refusal, page_of};

/// How similar two texts must be to be taken for the same, and what the ways to be found are worth.
const SIMILAR: f64 = 0.75;
const BY_NAME: f64 = 100.0;
const BY_DESCRIPTION: f64 = 80.0;
const BY_TAG: f64 = 60.0;

/// `GET /search`
pub(super) async fn search(State(registry): State<Registry>, asked: Asked) -> Answer {
    let query = asked.required("query")?;
    let allow_cache = asked.allow_cache()?;
    let sorting = sorting(&asked)?;
    let page = in_range(&asked, "page", 1, i32::MAX, 1)?;
    let limit = in_range(&asked, "limit", 1, 100, 50)?;
    let snapshot = registry.snapshot(allow_cache).await?;
    let (visible, _) = registry.projects(&Listing { allow_cache: true, ..Listing::default() }).await?;
    let visible: Vec<&str> = visible.iter().map(RegistryObject::name).collect();
    let wanted = asked.texts("projects");
    let mut errors = Vec::new();
    let unknown: Vec<&str> = wanted.iter().copied().filter(|name| !visible.contains(name)).collect();
    if visible.is_empty() {
        errors.push("No projects found".to_owned());
    } else if !unknown.is_empty() {
        errors.push(format!("Following projects do not exist: {}", unknown.join(", ")));
    }
    let searched: Vec<&str> = visible.into_iter().filter(|name| wanted.is_empty() || wanted.contains(name)).collect();
    if searched.is_empty() {
        let nothing = json!({
            "query": query, "projects_searched": searched, "results": [], "pagination": {}, "errors": errors,
        });
        return Ok(Json(nothing));
    }
    let tags = asked.tags();
    let contents = searched.iter().filter_map(|name| Some((*name, snapshot.projects.get(*name)?)));
    let candidates = contents.flat_map(|(name, contents)| candidates(name, contents, &tags));
    let found: Vec<Value> = candidates.filter_map(|candidate| candidate.matched(&query)).collect();
    let (results, pagination) = page_of(found, page, limit, &sorting);
    Ok(Json(json!({
        "query": query,
        "projects_searched": searched,
        "results": results,
        "pagination": pagination,
        "errors": errors,
    })))
}

fn sorting(asked: &Asked) -> Answer<SortingParams> {
    let one_of = |key: &str, valid: &[&str], default: &str| match asked.text(key) {
        None | Some("") => Ok(default.to_owned()),
        Some(text) if valid.contains(&text) => Ok(text.to_owned()),
        Some(text) => {
            let valid = valid.iter().map(|one| format!("'{one}'")).collect::<Vec<_>>().join(", ");
            Err(Refusal::bad(format!("Invalid {key} parameter: '{text}'. Valid options are: [{valid}]")))
        }
    };
    Ok(SortingParams {
        sort_by: one_of("sort_by", &["match_score", "name", "type"], "match_score")?,
        sort_order: one_of("sort_order", &["asc", "desc"], "desc")?,
    })
}

fn in_range(asked: &Asked, key: &str, least: i32, most: i32, default: i32) -> Answer<i32> {
    match asked.number::<i32>(key)? {
        None => Ok(default),
        Some(number) if number < least => {
            Err(Refusal::bad(format!("Invalid {key} parameter: '{number}'. Must be greater than or equal to {least}")))
        }
        Some(number) if number > most => {
            Err(Refusal::bad(format!("Invalid {key} parameter: '{number}'. Must be less than or equal to {most}")))
        }
        Some(number) => Ok(number),
    }
}

/// Something that may be what is looked for.
struct Candidate<'a> {
    kind: &'static str,
    name: &'a str,
    description: &'a str,
    project: &'a str,
    tags: Tags,
    /// Where a feature or a label is.
    view: Option<(&'static str, String)>,
}

/// What a project has, kind by kind; tags choose objects, not features.
fn candidates<'a>(project: &'a str, contents: &'a ProjectContents, wanted: &Tags) -> Vec<Candidate<'a>> {
    let chosen = |tags: &Tags| wanted.iter().all(|(key, value)| tags.get(key) == Some(value));
    let mut all = Vec::new();
    let mut add = |kind, name: &'a str, description: &'a str, tags: &'a Tags| {
        if chosen(tags) {
            all.push(Candidate { kind, name, description, project, tags: tags.clone(), view: None });
        }
    };
    contents.entities.values().for_each(|one| add("entity", &one.name, &one.description, &one.tags));
    contents.data_sources.values().for_each(|one| add("dataSource", &one.name, &one.description, &one.tags));
    let views: Vec<_> =
        views_in_order(contents).iter().filter_map(|view| contents.feature_views.get(&view.name)).collect();
    for view in &views {
        let kind = if view.object_kind() == ObjectKind::LabelView { "labelView" } else { "featureView" };
        add(kind, &view.name, &view.description, &view.tags);
    }
    // Labels are found as features, too.
    let of_views = |label: bool| {
        let views = views.iter().filter(move |view| !label || view.object_kind() == ObjectKind::LabelView);
        let (kind, key) = if label { ("label", "labelView") } else { ("feature", "featureView") };
        views.flat_map(move |view| {
            view.features.iter().map(move |feature| Candidate {
                kind,
                name: &feature.name,
                description: &feature.description,
                project,
                tags: tags_of(feature),
                view: Some((key, view.name.clone())),
            })
        })
    };
    let features: Vec<Candidate<'a>> = of_views(false).chain(of_views(true)).collect();
    let objects = all.len();
    let mut add = |kind, name: &'a str, description: &'a str, tags: &'a Tags| {
        if chosen(tags) {
            all.push(Candidate { kind, name, description, project, tags: tags.clone(), view: None });
        }
    };
    contents.feature_services.values().for_each(|one| add("featureService", &one.name, &one.description, &one.tags));
    contents.saved_datasets.values().for_each(|one| add("savedDataset", &one.name, &one.description, &one.tags));
    let rest = all.split_off(objects);
    all.extend(features);
    all.extend(rest);
    all
}

impl Candidate<'_> {
    /// The result, if this is one: by name, description, tag, or a similar name.
    fn matched(&self, query: &str) -> Option<Value> {
        let query = query.to_lowercase();
        let mut result = json!({
            "type": self.kind, "name": self.name, "description": self.description, "project": self.project,
        });
        if let Some((key, view)) = &self.view {
            result[*key] = view.as_str().into();
        }
        if query.is_empty() {
            result["matched_tags"] = json!(self.tags);
            return Some(result);
        }
        let (mut tags, mut exact, mut closest) = (Tags::new(), false, 0.0_f64);
        for (key, value) in &self.tags {
            let text = format!("{key}={value}").to_lowercase();
            let similar = similarity(&query, &text);
            if text.contains(&query) {
                exact = true;
            } else if similar >= SIMILAR {
                closest = closest.max(similar);
            } else {
                continue;
            }
            tags.insert(key.clone(), value.clone());
        }
        result["matched_tags"] = json!(tags);
        let named = similarity(&query, &self.name.to_lowercase());
        let score = if self.name.to_lowercase().contains(&query) {
            BY_NAME
        } else if self.description.to_lowercase().contains(&query) {
            BY_DESCRIPTION
        } else if exact {
            BY_TAG
        } else if closest >= SIMILAR {
            closest * 100.0
        } else if named >= SIMILAR {
            named * 100.0
        } else {
            return None;
        };
        result["match_score"] = if score.fract() == 0.0 { json!(score as i64) } else { json!(score) };
        Some(result)
    }
}

/// How many letters two texts have in common, of all they have.
fn similarity(a: &str, b: &str) -> f64 {
    let (a, b): (BTreeSet<char>, BTreeSet<char>) = (a.chars().collect(), b.chars().collect());
    if a.is_empty() || b.is_empty() {
        return 0.0;
    }
    a.intersection(&b).count() as f64 / a.union(&b).count() as f64
}

/// `GET /metrics/resource_counts`
pub(super) async fn resource_counts(State(registry): State<Registry>, asked: Asked) -> Answer {
    let snapshot = registry.snapshot(asked.allow_cache()?).await?;
    let updated = snapshot.updated.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
    let summary = |project: &str, contents: &ProjectContents| {
        let views = views_in_order(contents);
        let n_features: usize = views.iter().map(|view| view.features.len()).sum();
        let views = views.iter().filter(|view| view.object_kind() != ObjectKind::LabelView);
        let views: Vec<Value> = views
            .map(|view| {
                let kind = match view.object_kind() {
                    ObjectKind::StreamFeatureView => "streamFeatureView",
                    ObjectKind::OnDemandFeatureView => "onDemandFeatureView",
                    _ => "featureView",
                };
                json!({"name": view.name, "project": project, "type": kind, "featureCount": view.features.len()})
            })
            .collect();
        let services = contents.feature_services.values();
        let services: Vec<Value> = services.map(|one| json!({"name": one.name, "project": project})).collect();
        let counts = json!({
            "entities": contents.entities.len(),
            "dataSources": contents.data_sources.len(),
            "savedDatasets": contents.saved_datasets.len(),
            "features": n_features,
            "featureViews": views.len(),
            "featureServices": services.len(),
        });
        (counts, services, views)
    };
    if let Some(project) = asked.text("project").filter(|project| !project.is_empty()) {
        let contents = snapshot.projects.get(project).cloned().unwrap_or_default();
        let (counts, services, views) = summary(project, &contents);
        return Ok(Json(json!({
            "project": project,
            "counts": counts,
            "featureServices": services,
            "featureViews": views,
            "projects": [{"name": project}],
            "registryLastUpdated": updated,
        })));
    }
    let (mut services, mut views, mut projects) = (Vec::new(), Vec::new(), Vec::new());
    let (mut per_project, mut total) = (json!({}), json!({}));
    let empty = summary("", &ProjectContents::default()).0;
    total.clone_from(&empty);
    for project in registry.projects(&Listing { allow_cache: true, ..Listing::default() }).await?.0 {
        let contents = snapshot.projects.get(project.name()).cloned().unwrap_or_default();
        let (counts, of_services, of_views) = summary(project.name(), &contents);
        for (key, count) in counts.as_object().into_iter().flatten() {
            total[key] = (total[key].as_u64().unwrap_or_default() + count.as_u64().unwrap_or_default()).into();
        }
        per_project[project.name()] = counts;
        services.extend(of_services);
        views.extend(of_views);
        projects.push(json!({"name": project.name(), "description": contents.project.description}));
    }
    Ok(Json(json!({
        "total": total,
        "perProject": per_project,
        "featureServices": services,
        "featureViews": views,
        "projects": projects,
        "registryLastUpdated": updated,
    })))
}

/// `GET /metrics/popular_tags`
pub(super) async fn popular_tags(State(registry): State<Registry>, asked: Asked) -> Answer {
    let limit = asked.number::<usize>("limit")?.unwrap_or(4);
    let allow_cache = asked.allow_cache()?;
    let projects = match asked.text("project").filter(|project| !project.is_empty()) {
        Some(project) => vec![project.to_owned()],
        None => {
            let (all, _) = registry.projects(&Listing { allow_cache, ..Listing::default() }).await?;
            all.iter().map(|project| project.name().to_owned()).collect()
        }
    };
    // Keys, and values below each, in the order in which they are first seen.
    let mut tags: IndexMap<String, IndexMap<String, Vec<Value>>> = IndexMap::new();
    let mut n_views = 0;
    for project in projects {
        let listing = Listing { project: project.clone(), allow_cache, ..Listing::default() };
        let (views, _) = registry.views(&listing, &ViewFilter::default()).await?;
        n_views += views.len();
        for view in &views {
            for (key, value) in view.tags() {
                let values = tags.entry(key.clone()).or_default().entry(value.clone()).or_default();
                values.push(json!({"name": view.name(), "project": project}));
            }
        }
    }
    let mut popular: Vec<(String, String, Vec<Value>)> = tags
        .into_iter()
        .flat_map(|(key, values)| values.into_iter().map(move |(value, views)| (key.clone(), value, views)))
        .collect();
    popular.sort_by(|(a_key, _, a), (b_key, _, b)| (b.len(), b_key).cmp(&(a.len(), a_key)));
    let n_tags = popular.len();
    let popular: Vec<Value> = popular
        .into_iter()
        .take(limit)
        .map(|(key, value, views)| {
            json!({"tag_key": key, "tag_value": value, "total_feature_views": views.len(), "feature_views": views})
        })
        .collect();
    Ok(Json(json!({
        "popular_tags": popular,
        "metadata": {"totalFeatureViews": n_views, "totalTags": n_tags, "limit": limit},
    })))
}

/// `GET /metrics/recently_visited`: reading leaves no trace in this registry.
pub(super) async fn recently_visited(asked: Asked) -> Answer {
    asked.pagination()?;
    Ok(Json(json!({"visits": [], "pagination": {"totalCount": 0}})))
}
