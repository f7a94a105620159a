//! What separates the definitions of a repository from the registry.

use std::sync::Arc;

use chrono::TimeDelta;
use serde::Serialize;
use serde_json::Value;

use crate::time_to_live::seconds_text;
use crate::{ObjectKind, ObjectRef, Objects, ProjectContents, RegistryObject};

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The registry does not have it yet.
    Create,
    /// The registry has another definition.
    Update,
    /// The repository does not define it any more.
    Delete,
}

/// One field that differs; `None` where one side does not have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Dotted path, such as `features.conv_rate.value_type`.
    pub field: String,
    /// Value in the registry.
    pub before: Option<Value>,
    /// Value in the repository.
    pub after: Option<Value>,
}

/// How much a change means for those who use the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeClass {
    /// The object is new: nobody uses it yet.
    Addition,
    /// Descriptions, tags, owners: nothing that is computed or stored.
    Metadata,
    /// What is computed or stored changes, and everything that worked goes on working.
    Schema,
    /// Something that worked may not work any more: features or keys are gone or have another type.
    Breaking,
}

/// What happens to one object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectChange {
    /// What happens.
    pub action: Action,
    /// To which object.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// For updates, what differs.
    pub fields: Vec<FieldChange>,
    /// How much it means.
    pub class: ChangeClass,
    /// What of the registry uses the object: views, feature services, saved datasets.
    pub affects: Vec<ObjectRef>,
    /// The new definition; `None` for deletes.
    #[serde(skip)]
    pub definition: Option<RegistryObject>,
}

/// All differences of a project, kind by kind, in order of names.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct RegistryDiff {
    /// The project.
    pub project: String,
    /// What happens to which object.
    pub changes: Vec<ObjectChange>,
    /// Objects of the registry that the repository does not define and that stay.
    pub undefined: Vec<ObjectRef>,
}

impl ObjectChange {
    /// What happens to an object that `current` may have.
    pub fn new(
        action: Action,
        object: ObjectRef,
        fields: Vec<FieldChange>,
        definition: Option<RegistryObject>,
        current: Option<&ProjectContents>,
    ) -> Self {
        let class = class_of(action, object.kind, &fields, definition.as_ref());
        let affects = match (class, current) {
            (ChangeClass::Addition | ChangeClass::Metadata, _) | (_, None) => Vec::new(),
            (_, Some(current)) => users_of(current, &object),
        };
        Self { action, object, fields, class, affects, definition }
    }
}

impl RegistryDiff {
    /// Whether the repository and the registry agree.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Compares the desired objects of a project with those of the registry.
///
/// What only the registry records (times, intervals, states, version numbers) is not compared. With `prune`, objects
/// that are not desired are deleted, otherwise they are listed as undefined. Saved datasets, validation references,
/// permissions and the dummy entity are made by other means than a repository and are never pruned.
pub fn diff(current: Option<&ProjectContents>, desired: &ProjectContents, prune: bool) -> RegistryDiff {
    let mut result = RegistryDiff { project: desired.project.name.clone(), ..RegistryDiff::default() };
    let mut gone = current.map(|current| not_desired(current, desired)).unwrap_or_default();
    for kind in ObjectKind::ALL {
        let mut wanted = desired.list(*kind);
        wanted.sort_by(|a, b| a.name().cmp(b.name()));
        for object in wanted {
            let stored = current.and_then(|contents| contents.get(&object.reference()));
            let change =
                |action, fields| ObjectChange::new(action, object.reference(), fields, Some(object.clone()), current);
            match stored {
                None => result.changes.push(change(Action::Create, Vec::new())),
                Some(stored) => {
                    let fields = compare(&stored, &object);
                    if !fields.is_empty() {
                        result.changes.push(change(Action::Update, fields));
                    }
                }
            }
        }
        let gone = gone.extract_if(.., |object| object.kind == *kind);
        if prune {
            result
                .changes
                .extend(gone.map(|object| ObjectChange::new(Action::Delete, object, Vec::new(), None, current)));
        } else {
            result.undefined.extend(gone);
        }
    }
    result
}

/// What a repository could define and does not. Of thousands of views only the name and the kind are looked at.
fn not_desired(current: &ProjectContents, desired: &ProjectContents) -> Vec<ObjectRef> {
    fn names<'a, T>(current: &'a Objects<T>, desired: &'a Objects<T>) -> impl Iterator<Item = &'a String> {
        current.keys().filter(|name| !desired.contains_key(*name))
    }
    let of_kind = |kind: ObjectKind| move |name: &String| ObjectRef::new(kind, name);
    let entities = names(&current.entities, &desired.entities).filter(|name| *name != crate::DUMMY_ENTITY);
    let sources = names(&current.data_sources, &desired.data_sources);
    let services = names(&current.feature_services, &desired.feature_services);
    let views = current.feature_views.values().filter(|view| {
        let same = desired.feature_views.get(&view.name).filter(|other| other.object_kind() == view.object_kind());
        same.is_none()
    });
    entities
        .map(of_kind(ObjectKind::Entity))
        .chain(sources.map(of_kind(ObjectKind::DataSource)))
        .chain(services.map(of_kind(ObjectKind::FeatureService)))
        .chain(views.map(|view| view.reference()))
        .collect()
}

/// Fields that only people read.
const METADATA: &[&str] = &["description", "tags", "owner", "org"];

fn class_of(
    action: Action,
    kind: ObjectKind,
    fields: &[FieldChange],
    definition: Option<&RegistryObject>,
) -> ChangeClass {
    match action {
        Action::Create => ChangeClass::Addition,
        Action::Delete if kind.is_feature_view() || kind == ObjectKind::FeatureService => ChangeClass::Breaking,
        Action::Delete => ChangeClass::Schema,
        Action::Update => {
            let class = |change: &FieldChange| field_class(kind, change, definition);
            fields.iter().map(class).max().unwrap_or(ChangeClass::Metadata)
        }
    }
}

fn field_class(kind: ObjectKind, change: &FieldChange, definition: Option<&RegistryObject>) -> ChangeClass {
    let parts: Vec<&str> = change.field.split('.').collect();
    let (first, last) = (parts.first().copied().unwrap_or_default(), parts.last().copied().unwrap_or_default());
    // Features and projections have names of their own, which may be `tags` or `owner`.
    let of_item = match first {
        "features" | "entity_columns" | "projections" => parts.get(2).copied().unwrap_or_default(),
        _ => last,
    };
    if METADATA.contains(&first) || METADATA.contains(&of_item) || kind == ObjectKind::Project {
        return ChangeClass::Metadata;
    }
    let gone = change.before.is_some() && change.after.is_none();
    let breaking = match first {
        "features" => match parts.len() {
            // Lists that cannot be compared item by item: by their names.
            1 => !keeps_names(change),
            2 => gone,
            _ => last == "value_type",
        },
        "entities" | "entity_columns" | "join_key" | "value_type" => true,
        "projections" => match parts.len() {
            1 => !keeps_names(change),
            2 => gone,
            _ => gone || matches!(last, "alias" | "value_type" | "join_key_map") || !keeps_names(change),
        },
        "online" => change.after == Some(Value::Bool(false)),
        "disabled" => change.after == Some(Value::Bool(true)),
        _ => false,
    };
    let other_kind = kind.is_feature_view() && definition.is_some_and(|object| object.kind() != kind);
    if breaking || other_kind { ChangeClass::Breaking } else { ChangeClass::Schema }
}

/// Whether all names of a list that was before are in it afterwards.
fn keeps_names(change: &FieldChange) -> bool {
    let names = |value: &Option<Value>| -> Vec<String> {
        let items = value.as_ref().and_then(Value::as_array);
        items.into_iter().flatten().filter_map(name_of).map(str::to_owned).collect()
    };
    let after = names(&change.after);
    names(&change.before).iter().all(|name| after.contains(name))
}

/// What of the registry uses an object, also by way of others.
fn users_of(current: &ProjectContents, object: &ObjectRef) -> Vec<ObjectRef> {
    let views: Vec<ObjectRef> = match object.kind {
        ObjectKind::Entity => current
            .feature_views
            .values()
            .filter(|view| view.entities.contains(&object.name))
            .map(|view| view.reference())
            .collect(),
        ObjectKind::DataSource => current
            .feature_views
            .values()
            .filter(|view| view.data_sources().iter().any(|source| source.name == object.name))
            .map(|view| view.reference())
            .collect(),
        _ => Vec::new(),
    };
    let mut names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
    if object.kind.is_feature_view() {
        names.push(&object.name);
    }
    let reads = |projections: &[crate::FeatureViewProjection]| {
        projections.iter().any(|projection| names.contains(&projection.feature_view_name.as_str()))
    };
    let on_demand = current.feature_views.values().filter(|view| {
        view.on_demand().is_some_and(|on_demand| {
            on_demand.sources.values().any(|source| match source {
                crate::OnDemandSource::FeatureView(view) => names.contains(&view.name.as_str()),
                crate::OnDemandSource::Projection(projection) => names.contains(&projection.feature_view_name.as_str()),
                crate::OnDemandSource::Request(_) => false,
            })
        })
    });
    let on_demand: Vec<ObjectRef> = on_demand.map(|view| view.reference()).collect();
    let services = current.feature_services.values().filter(|service| reads(&service.projections));
    let services: Vec<ObjectRef> =
        services.map(|service| ObjectRef::new(ObjectKind::FeatureService, &service.name)).collect();
    let datasets = current.saved_datasets.values().filter(|dataset| {
        let of_view = |feature: &String| feature.split(':').next().is_some_and(|view| names.contains(&view));
        dataset.features.iter().any(of_view)
            || services.iter().any(|service| service.name == dataset.feature_service_name)
            || object.kind == ObjectKind::FeatureService && dataset.feature_service_name == object.name
    });
    let datasets: Vec<ObjectRef> =
        datasets.map(|dataset| ObjectRef::new(ObjectKind::SavedDataset, &dataset.name)).collect();
    let mut users = views.clone();
    users.extend(on_demand);
    users.extend(services);
    users.extend(datasets);
    users.retain(|user| user != object);
    users
}

/// The fields in which two definitions of an object differ, whatever a registry records beside them.
pub fn changed_fields(before: &RegistryObject, after: &RegistryObject) -> Vec<FieldChange> {
    compare(before, after)
}

/// The fields in which two definitions of an object differ.
fn compare(stored: &RegistryObject, desired: &RegistryObject) -> Vec<FieldChange> {
    if let (RegistryObject::FeatureView(a), RegistryObject::FeatureView(b)) = (stored, desired)
        && Arc::ptr_eq(a, b)
    {
        return Vec::new();
    }
    // Most objects of a large repository are as they were: texts are cheaper to compare than trees.
    if let (Ok(before), Ok(after)) = (serde_json::to_vec(stored), serde_json::to_vec(desired))
        && before == after
    {
        return Vec::new();
    }
    let mut changes = Vec::new();
    let [before, after] = [stored, desired].map(|object| {
        let mut value = serde_json::to_value(object).unwrap_or(Value::Null);
        if object.kind() == ObjectKind::StreamFeatureView {
            settle_stream_view(&mut value);
        }
        value
    });
    compare_values("", Some(&before), Some(&after), &mut changes);
    // Feast leaves the class of a source out of SQL registries; it follows from the kind of the source.
    changes.retain(|change| !(change.field == "class_type" && change.before.as_ref().is_none_or(is_empty_text)));
    // Who takes a view from the registry and applies it again may have the other way to say "without limit".
    changes.retain(|change| !(change.field == "ttl" && has_no_limit(&change.before) && has_no_limit(&change.after)));
    changes
}

/// Feast writes the features of a stream view in no order, the join keys among them, and its function twice: as every
/// view has it, and as only stream views once had it.
fn settle_stream_view(view: &mut Value) {
    let join_keys: Vec<String> =
        view["entity_columns"].as_array().into_iter().flatten().filter_map(name_of).map(str::to_owned).collect();
    if let Some(features) = view["features"].as_array_mut() {
        features.retain(|feature| name_of(feature).is_none_or(|name| !join_keys.iter().any(|key| key == name)));
        features.sort_by(|a, b| name_of(a).cmp(&name_of(b)));
    }
    let stream = &mut view["stream"];
    if !stream["transformation"].is_null() {
        stream["user_defined_function"] = Value::Null;
    }
}

/// Whether two texts are the same JSON object: the options of sources that Feast has no message for are written as
/// such, and the order of their members means nothing.
fn same_configuration(path: &str, before: Option<&Value>, after: Option<&Value>) -> bool {
    let parsed = |value: Option<&Value>| serde_json::from_str::<serde_json::Map<_, _>>(value?.as_str()?).ok();
    path.ends_with(".configuration") && parsed(before).is_some_and(|before| Some(before) == parsed(after))
}

fn has_no_limit(ttl: &Option<Value>) -> bool {
    ttl.as_ref().is_none_or(|ttl| ttl.is_null() || *ttl == seconds_text(TimeDelta::zero()))
}

fn is_empty_text(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

fn compare_values(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<FieldChange>) {
    if before == after || same_configuration(path, before, after) {
        return;
    }
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for (name, value) in old {
                compare_values(&child(name), Some(value), new.get(name), changes);
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                compare_values(&child(name), None, Some(value), changes);
            }
        }
        // Lists of named things (features, projections) are compared by name, so that an insertion is one change.
        (Some(Value::Array(old)), Some(Value::Array(new)))
            if old.iter().chain(new).all(|item| name_of(item).is_some()) && same_order(old, new) =>
        {
            let find = |items: &[Value], name: &str| items.iter().find(|item| name_of(item) == Some(name)).cloned();
            for item in old {
                let name = name_of(item).unwrap_or_default();
                compare_values(&child(name), Some(item), find(new, name).as_ref(), changes);
            }
            for item in new.iter().filter(|item| find(old, name_of(item).unwrap_or_default()).is_none()) {
                compare_values(&child(name_of(item).unwrap_or_default()), None, Some(item), changes);
            }
        }
        _ => changes.push(FieldChange { field: path.to_owned(), before: before.cloned(), after: after.cloned() }),
    }
}

fn name_of(item: &Value) -> Option<&str> {
    item.get("name").or_else(|| item.get("feature_view_name"))?.as_str()
}

/// Whether the names that both lists have stand in the same order and none stands twice.
fn same_order(old: &[Value], new: &[Value]) -> bool {
    let names = |items: &[Value]| -> Vec<String> { items.iter().filter_map(name_of).map(str::to_owned).collect() };
    let (old, new) = (names(old), names(new));
    let distinct = |names: &[String]| names.iter().collect::<std::collections::HashSet<_>>().len() == names.len();
    let common = |from: &[String], other: &[String]| -> Vec<String> {
        from.iter().filter(|name| other.contains(name)).cloned().collect()
    };
    distinct(&old) && distinct(&new) && common(&old, &new) == common(&new, &old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entity, FeatureView, FeatureViewKind, Field, ValueType};

    fn contents(features: &[(&str, ValueType)]) -> ProjectContents {
        let mut view = FeatureView::new("driver_stats", FeatureViewKind::Batch(crate::BatchFeatures::default()));
        view.features = features.iter().map(|(name, value_type)| Field::new(*name, *value_type)).collect();
        let mut contents = ProjectContents { project: crate::Project::new("p"), ..ProjectContents::default() };
        contents.put(RegistryObject::Entity(Arc::new(Entity::new("driver", "driver_id", ValueType::Int64))));
        contents.put(RegistryObject::FeatureView(Arc::new(view)));
        contents
    }

    #[test]
    fn equal_contents_have_no_difference() {
        let current = contents(&[("trips", ValueType::Int64)]);
        assert!(diff(Some(&current), &contents(&[("trips", ValueType::Int64)]), true).is_empty());
    }

    #[test]
    fn a_changed_feature_is_named_by_its_path() {
        let current = contents(&[("trips", ValueType::Int64), ("rate", ValueType::Float)]);
        let desired = contents(&[("trips", ValueType::Int32), ("rate", ValueType::Float), ("city", ValueType::String)]);
        let changes = diff(Some(&current), &desired, false).changes;
        assert_eq!(changes.len(), 1);
        let fields: Vec<&str> = changes[0].fields.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(fields, ["features.trips.value_type", "features.city"]);
    }

    #[test]
    fn what_feast_writes_in_another_way_is_no_difference() {
        let stream = |names: &[&str], old: bool| {
            let function = || {
                let body_text = "def f(rows): return rows".to_owned();
                Some(crate::UserDefinedFunction { name: "f".to_owned(), body_text, ..Default::default() })
            };
            let kind = crate::StreamFeatures {
                transformation: function().map(crate::Transformation::UserDefinedFunction),
                user_defined_function: function().filter(|_| old),
                ..crate::StreamFeatures::default()
            };
            let mut view = FeatureView::new("clicks", FeatureViewKind::Stream(kind));
            view.entity_columns = vec![Field::new("driver_id", ValueType::Int64)];
            view.features = names.iter().map(|name| Field::new(*name, ValueType::Int64)).collect();
            RegistryObject::FeatureView(view.into())
        };
        assert_eq!(compare(&stream(&["driver_id", "b", "a"], true), &stream(&["a", "b"], false)), []);
        assert_eq!(compare(&stream(&["a"], true), &stream(&["a", "b"], false)).len(), 1);
        let source = |configuration: &str| {
            let options = crate::DataSourceOptions::Custom { configuration: configuration.to_owned().into() };
            RegistryObject::DataSource(crate::DataSource { options, ..crate::DataSource::default() }.into())
        };
        assert_eq!(compare(&source(r#"{"a": 1, "b": {"c": 2}}"#), &source(r#"{"b":{"c":2},"a":1}"#)), []);
        assert_eq!(compare(&source(r#"{"a": 1}"#), &source(r#"{"a": 2}"#)).len(), 1);
    }

    #[test]
    fn changes_are_classed_by_what_they_mean_for_users() {
        let mut current = contents(&[("trips", ValueType::Int64), ("rate", ValueType::Float)]);
        let projection =
            crate::FeatureViewProjection { feature_view_name: "driver_stats".to_owned(), ..Default::default() };
        let service = crate::FeatureService {
            name: "model".to_owned(),
            projections: vec![projection],
            ..crate::FeatureService::default()
        };
        current.put(RegistryObject::FeatureService(Arc::new(service)));
        let class = |change: &dyn Fn(&mut FeatureView)| {
            let mut desired = contents(&[("trips", ValueType::Int64), ("rate", ValueType::Float)]);
            let mut view = FeatureView::clone(&desired.feature_views["driver_stats"]);
            change(&mut view);
            desired.put(RegistryObject::FeatureView(Arc::new(view)));
            let changes = diff(Some(&current), &desired, false).changes;
            assert_eq!(changes.len(), 1);
            (changes[0].class, changes[0].affects.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let model = vec!["feature service `model`".to_owned()];
        let described = class(&|view| view.description = "new".to_owned());
        assert_eq!(described, (ChangeClass::Metadata, Vec::new()));
        let tagged = class(&|view| drop(view.features[0].tags.insert("a".to_owned(), "b".to_owned())));
        assert_eq!(tagged, (ChangeClass::Metadata, Vec::new()));
        let added = class(&|view| view.features.push(Field::new("city", ValueType::String)));
        assert_eq!(added, (ChangeClass::Schema, model.clone()));
        assert_eq!(class(&|view| drop(view.features.pop())), (ChangeClass::Breaking, model.clone()));
        let retyped = class(&|view| view.features[0].value_type = ValueType::Int32);
        assert_eq!(retyped, (ChangeClass::Breaking, model.clone()));
        assert_eq!(class(&|view| view.features.reverse()).0, ChangeClass::Schema);
        assert_eq!(class(&|view| view.entities.push("driver".to_owned())), (ChangeClass::Breaking, model));
    }

    #[test]
    fn objects_without_definition_stay_unless_pruned() {
        let current = contents(&[]);
        let desired = ProjectContents { project: crate::Project::new("p"), ..ProjectContents::default() };
        let kept = diff(Some(&current), &desired, false);
        assert_eq!((kept.changes.len(), kept.undefined.len()), (0, 2));
        let pruned = diff(Some(&current), &desired, true);
        assert!(pruned.changes.iter().all(|change| change.action == Action::Delete) && pruned.changes.len() == 2);
    }
}
