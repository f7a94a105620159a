//! What separates the definitions of a repository from the registry.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::{ObjectKind, ObjectRef, ProjectContents, RegistryObject};

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
    for kind in ObjectKind::ALL {
        let mut wanted = desired.list(*kind);
        wanted.sort_by(|a, b| a.name().cmp(b.name()));
        for object in wanted {
            let stored = current.and_then(|contents| contents.get(&object.reference()));
            let change = |action, fields| ObjectChange {
                action,
                object: object.reference(),
                fields,
                definition: Some(object.clone()),
            };
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
        let Some(current) = current else { continue };
        let prunable = matches!(kind, ObjectKind::Entity | ObjectKind::DataSource | ObjectKind::FeatureService)
            || kind.is_feature_view();
        for object in current.list(*kind) {
            let reference = object.reference();
            if !prunable || reference.name == crate::DUMMY_ENTITY || desired.get(&reference).is_some() {
                continue;
            }
            if prune {
                let fields = Vec::new();
                result.changes.push(ObjectChange {
                    action: Action::Delete,
                    object: reference,
                    fields,
                    definition: None,
                });
            } else {
                result.undefined.push(reference);
            }
        }
    }
    result
}

/// The fields in which two definitions of an object differ.
fn compare(stored: &RegistryObject, desired: &RegistryObject) -> Vec<FieldChange> {
    if let (RegistryObject::FeatureView(a), RegistryObject::FeatureView(b)) = (stored, desired)
        && Arc::ptr_eq(a, b)
    {
        return Vec::new();
    }
    let mut changes = Vec::new();
    let before = serde_json::to_value(stored).unwrap_or(Value::Null);
    let after = serde_json::to_value(desired).unwrap_or(Value::Null);
    compare_values("", Some(&before), Some(&after), &mut changes);
    changes
}

fn compare_values(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<FieldChange>) {
    if before == after {
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
    fn objects_without_definition_stay_unless_pruned() {
        let current = contents(&[]);
        let desired = ProjectContents { project: crate::Project::new("p"), ..ProjectContents::default() };
        let kept = diff(Some(&current), &desired, false);
        assert_eq!((kept.changes.len(), kept.undefined.len()), (0, 2));
        let pruned = diff(Some(&current), &desired, true);
        assert!(pruned.changes.iter().all(|change| change.action == Action::Delete) && pruned.changes.len() == 2);
    }
}
