//! What a registry server answers from a snapshot, in words of no protocol.

use std::sync::Arc;

use feast_core::{
    Error, ErrorCode, ErrorKind, FeatureView, Field, ObjectKind, ObjectRef, OnDemandSource, ProjectContents,
    RegistryObject, RegistrySnapshot, Result, Tags, Timestamp, ValueType,
};
use feast_proto::registry::{PaginationMetadata, PaginationParams, SortingParams};

use super::Registry;
use super::lineage::{self, Relation};
use super::page::{SortKey, key_of, page, times};

/// Tags by which Feast remembers what is inside of a collection of collections, and of a struct.
const NESTED_TYPE: &str = "feast:nested_inner_type";
const STRUCT_SCHEMA: &str = "feast:struct_schema";

/// What a list is asked for.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) project: String,
    pub(super) allow_cache: bool,
    /// Objects must have all of them.
    pub(super) tags: Tags,
    pub(super) pagination: Option<PaginationParams>,
    pub(super) sorting: Option<SortingParams>,
}

/// What views of all kinds are chosen by; empty texts choose nothing.
#[derive(Debug, Default)]
pub(super) struct ViewFilter {
    pub(super) entity: String,
    pub(super) feature: String,
    pub(super) feature_service: String,
    pub(super) data_source: String,
    pub(super) updated_since: Option<Timestamp>,
}

/// A feature with its view.
#[derive(Debug, Clone)]
pub(super) struct FeatureOfView {
    pub(super) view: Arc<FeatureView>,
    pub(super) field: Field,
}

impl FeatureOfView {
    /// `label` for what people say, `feature` for what is measured.
    pub(super) fn kind(&self) -> &'static str {
        if self.view.object_kind() == ObjectKind::LabelView { "label" } else { "feature" }
    }

    /// The type as it is declared, with what is inside of nested collections and structs: tags remember that.
    pub(super) fn declared_type(&self) -> String {
        let Field { value_type, tags, .. } = &self.field;
        let inside = |tag: &str| tags.get(tag).map(String::as_str);
        match (value_type, inside(NESTED_TYPE), inside(STRUCT_SCHEMA).and_then(struct_type)) {
            (ValueType::ValueList | ValueType::ValueSet, Some(whole), _) => declared(whole),
            (ValueType::Struct, _, Some(schema)) => schema,
            (ValueType::StructList, _, Some(schema)) => format!("Array({schema})"),
            _ => value_type.declared_name(),
        }
    }

    /// The tags that people have given.
    pub(super) fn tags(&self) -> Tags {
        tags_of(&self.field)
    }
}

impl Registry {
    /// The state to answer from: as it is stored now, or the newest known one. When the store cannot be reached, the
    /// newest known one answers, too.
    pub(super) async fn snapshot(&self, allow_cache: bool) -> Result<Arc<RegistrySnapshot>> {
        let registry = self.store.registry();
        if allow_cache {
            return registry.snapshot_checked().await;
        }
        match registry.refresh().await {
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
                let age = registry.health().age;
                let Some(age) = age else { return Err(error) };
                tracing::warn!(%error, age_seconds = age.as_secs(), "answering from the last snapshot");
                registry.snapshot().await
            }
            refreshed => refreshed,
        }
    }

    /// A project's objects; none for a project that does not exist.
    pub(super) async fn contents(&self, project: &str, allow_cache: bool) -> Result<Option<Arc<ProjectContents>>> {
        Ok(self.snapshot(allow_cache).await?.projects.get(project).cloned())
    }

    /// One object.
    pub(super) async fn get(
        &self,
        kind: ObjectKind,
        project: &str,
        name: &str,
        allow_cache: bool,
    ) -> Result<RegistryObject> {
        let object = ObjectRef::new(kind, name);
        let project = if kind == ObjectKind::Project { name } else { project };
        match self.contents(project, allow_cache).await? {
            Some(contents) => contents.require(&object),
            None => Err(object.not_found(project)),
        }
    }

    /// The view with this name, whatever its kind.
    pub(super) async fn get_any_view(&self, project: &str, name: &str, allow_cache: bool) -> Result<RegistryObject> {
        match self.contents(project, allow_cache).await? {
            Some(contents) => contents.feature_view(name).cloned().map(RegistryObject::FeatureView),
            None => Err(ObjectRef::new(ObjectKind::FeatureView, name).not_found(project)),
        }
    }

    /// The objects of a kind in a project, those that `wanted` wants.
    pub(super) async fn list(
        &self,
        kind: ObjectKind,
        asked: &Listing,
        wanted: impl Fn(&RegistryObject) -> bool,
    ) -> Result<(Vec<RegistryObject>, PaginationMetadata)> {
        let contents = self.contents(&asked.project, asked.allow_cache).await?;
        let objects = contents.map(|contents| contents.list(kind)).unwrap_or_default();
        Ok(asked.page(objects.into_iter().filter(wanted)))
    }

    /// The projects, but for those that are hidden.
    pub(super) async fn projects(&self, asked: &Listing) -> Result<(Vec<RegistryObject>, PaginationMetadata)> {
        let snapshot = self.snapshot(asked.allow_cache).await?;
        let projects = snapshot.projects.values().map(|contents| contents.project.clone());
        let visible = projects.filter(|project| !project.is_protected());
        Ok(asked.page(visible.map(|project| RegistryObject::Project(Arc::new(project)))))
    }

    /// The views of all kinds but label views.
    pub(super) async fn views(
        &self,
        asked: &Listing,
        filter: &ViewFilter,
    ) -> Result<(Vec<RegistryObject>, PaginationMetadata)> {
        let contents = self.contents(&asked.project, asked.allow_cache).await?.unwrap_or_default();
        let views = views_in_order(&contents).into_iter().filter(|view| view.object_kind() != ObjectKind::LabelView);
        let views = views.filter(|view| filter.takes(view, &contents));
        Ok(asked.page(views.map(RegistryObject::FeatureView)))
    }

    /// The features of a project. Empty texts choose nothing.
    pub(super) async fn features(
        &self,
        asked: &Listing,
        view: &str,
        name: &str,
        kind: &str,
    ) -> Result<(Vec<FeatureOfView>, PaginationMetadata)> {
        let contents = self.contents(&asked.project, asked.allow_cache).await?.unwrap_or_default();
        let chosen = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let mut features = features_of(&contents);
        features.retain(|feature| {
            chosen(view, &feature.view.name) && chosen(name, &feature.field.name) && chosen(kind, feature.kind())
        });
        let key = |feature: &FeatureOfView, key: &str| match key {
            "name" => SortKey::text(&feature.field.name),
            "feature_view" => SortKey::text(&feature.view.name),
            "type" => SortKey::text(&feature.declared_type()),
            "description" => SortKey::text(&feature.field.description),
            "kind" => SortKey::text(feature.kind()),
            _ => SortKey::Absent,
        };
        Ok(page(features, asked.pagination.as_ref(), asked.sorting.as_ref(), key))
    }

    /// One feature.
    pub(super) async fn feature(
        &self,
        project: &str,
        view: &str,
        name: &str,
        allow_cache: bool,
    ) -> Result<FeatureOfView> {
        let contents = self.contents(project, allow_cache).await?.unwrap_or_default();
        let found =
            features_of(&contents).into_iter().find(|feature| feature.view.name == view && feature.field.name == name);
        found.ok_or_else(|| {
            Error::new(
                ErrorCode::FeatureNotFound,
                format!("feature view `{view}` of project `{project}` has no feature `{name}`"),
            )
        })
    }

    /// What is made from what in a project, directly and through views. An empty kind or name chooses nothing.
    pub(super) async fn lineage(
        &self,
        project: &str,
        kind: &str,
        name: &str,
        allow_cache: bool,
    ) -> Result<(Vec<Relation>, Vec<Relation>)> {
        let contents = self.contents(project, allow_cache).await?.unwrap_or_default();
        let mut direct = lineage::direct(&contents);
        let mut indirect = lineage::indirect(&contents, &direct);
        if !kind.is_empty() && !name.is_empty() {
            direct.retain(|relation| relation.touches(kind, name));
            indirect.retain(|relation| relation.touches(kind, name));
        }
        Ok((direct, indirect))
    }

    /// The relations of one object.
    pub(super) async fn relations(
        &self,
        project: &str,
        kind: &str,
        name: &str,
        include_indirect: bool,
        allow_cache: bool,
    ) -> Result<Vec<Relation>> {
        lineage::check_kind(kind)?;
        let (mut relations, indirect) = self.lineage(project, kind, name, allow_cache).await?;
        if include_indirect {
            relations.extend(indirect);
        }
        if name.is_empty() {
            relations.clear();
        }
        Ok(relations)
    }
}

impl Listing {
    /// Of the objects those with the tags, in order, and the page of them.
    fn page(&self, objects: impl Iterator<Item = RegistryObject>) -> (Vec<RegistryObject>, PaginationMetadata) {
        let has_tags = |object: &RegistryObject| {
            let tags = object.tags();
            self.tags.iter().all(|(key, value)| tags.get(key) == Some(value))
        };
        page(objects.filter(has_tags).collect(), self.pagination.as_ref(), self.sorting.as_ref(), key_of)
    }
}

impl ViewFilter {
    fn takes(&self, view: &Arc<FeatureView>, contents: &ProjectContents) -> bool {
        let chosen = |wanted: &str, has: &dyn Fn(&str) -> bool| wanted.is_empty() || has(wanted);
        let in_service = |service: &str| {
            let service = contents.feature_services.get(service);
            service.is_some_and(|service| service.projections.iter().any(|one| one.feature_view_name == view.name))
        };
        let reads = |source: &str| {
            let requests = view.on_demand().into_iter().flat_map(|on_demand| on_demand.sources.values());
            let mut requests = requests.filter_map(|source| match source {
                OnDemandSource::Request(source) => Some(source),
                _ => None,
            });
            let mut own = [view.batch_source(), view.stream_source()].into_iter().flatten();
            own.any(|own| own.name == source) || requests.any(|request| request.name == source)
        };
        let (_, updated) = times(&RegistryObject::FeatureView(Arc::clone(view)));
        chosen(&self.entity, &|entity| view.entities.iter().any(|own| own == entity))
            && chosen(&self.feature, &|feature| view.feature(feature).is_some())
            && chosen(&self.feature_service, &in_service)
            && chosen(&self.data_source, &reads)
            && self.updated_since.is_none_or(|since| updated.is_some_and(|updated| updated >= since))
    }
}

/// Views kind by kind: batch, stream, on-demand and label views.
pub(super) fn views_in_order(contents: &ProjectContents) -> Vec<Arc<FeatureView>> {
    let kinds = [
        ObjectKind::FeatureView,
        ObjectKind::StreamFeatureView,
        ObjectKind::OnDemandFeatureView,
        ObjectKind::LabelView,
    ];
    let of_kind = |kind| contents.feature_views.values().filter(move |view| view.object_kind() == kind).cloned();
    kinds.into_iter().flat_map(of_kind).collect()
}

fn features_of(contents: &ProjectContents) -> Vec<FeatureOfView> {
    let of_view = |view: Arc<FeatureView>| {
        let fields = view.features.clone();
        fields.into_iter().map(move |field| FeatureOfView { view: Arc::clone(&view), field })
    };
    views_in_order(contents).into_iter().flat_map(of_view).collect()
}

/// The tags of a field that people have given.
pub(super) fn tags_of(field: &Field) -> Tags {
    let own = field.tags.iter().filter(|(key, _)| *key != NESTED_TYPE && *key != STRUCT_SCHEMA);
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// `{"x": "INT64"}` as `Struct({x: Int64})`; `None` for what is no such text.
fn struct_type(schema: &str) -> Option<String> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(schema).ok()?;
    let field = |(name, inner): (&String, &serde_json::Value)| Some(format!("{name}: {}", declared(inner.as_str()?)));
    let fields: Vec<String> = fields.iter().map(field).collect::<Option<_>>()?;
    Some(format!("Struct({{{}}})", fields.join(", ")))
}

/// `Array(UNIX_TIMESTAMP)` as `Array(UnixTimestamp)`.
fn declared(text: &str) -> String {
    let nested: Option<serde_json::Value> = serde_json::from_str(text).ok();
    if let Some(schema) = nested.as_ref().and_then(|nested| nested.get("__struct__")) {
        return struct_type(&schema.to_string()).unwrap_or_else(|| "Struct".to_owned());
    }
    let mut declared = String::with_capacity(text.len());
    for word in text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
        if word.chars().any(|letter| letter.is_ascii_lowercase()) {
            declared.push_str(word);
            continue;
        }
        for part in word.split('_') {
            let (first, rest) = part.split_at(part.len().min(1));
            declared.push_str(first);
            declared.push_str(&rest.to_ascii_lowercase());
        }
    }
    declared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_as_they_are_declared() {
        assert_eq!(declared("Array(UNIX_TIMESTAMP)"), "Array(UnixTimestamp)");
        assert_eq!(declared("FLOAT32"), "Float32");
        let schema = r#"{"x": "INT64", "y": "Array(FLOAT32)"}"#;
        assert_eq!(struct_type(schema).as_deref(), Some("Struct({x: Int64, y: Array(Float32)})"));
        assert_eq!(struct_type("nonsense"), None);
    }
}
