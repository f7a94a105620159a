//! What the registry records about an object beside its definition: times, and numbered snapshots of views.
//!
//! A new view starts with snapshot 0; a change of its schema or its code makes the next one; a change of
//! descriptions, tags or owners makes none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use feast_core::{
    Error, FeatureView, FeatureViewKind, Field, Meta, ObjectRef, PastDefinition, ProjectContents, RegistryObject,
    RegistrySnapshot, Result, SavedDatasetMeta, Timestamp, ValueType, VersionRecord,
};
use serde::Serialize;
use uuid::Uuid;

use crate::pins;

/// What a registry has of the snapshots of a project's views.
pub(crate) struct Recorded<'a> {
    snapshot: &'a RegistrySnapshot,
    project: &'a str,
    /// The newest numbers by view.
    newest: HashMap<&'a str, i32>,
}

impl<'a> Recorded<'a> {
    /// Of the snapshots of these objects.
    pub(crate) fn of<'b>(
        snapshot: &'a RegistrySnapshot,
        project: &'a str,
        objects: impl IntoIterator<Item = &'b ObjectRef>,
    ) -> Self {
        let views = objects.into_iter().filter(|object| object.kind.is_feature_view());
        let views: HashSet<&str> = views.map(|object| object.name.as_str()).collect();
        let mut newest: HashMap<&str, i32> = HashMap::new();
        for record in snapshot.versions.iter().filter(|record| views.contains(record.feature_view.as_str())) {
            if record.project == project {
                let known = newest.entry(&record.feature_view).or_insert(record.version_number);
                *known = record.version_number.max(*known);
            }
        }
        Self { snapshot, project, newest }
    }
}

/// Returns the object as it is to be stored, and the snapshots that go with it.
///
/// # Errors
/// `InvalidDefinition` for a view whose version is none.
pub(crate) fn stamp(
    object: &RegistryObject,
    stored: Option<&RegistryObject>,
    recorded: &Recorded<'_>,
    now: Timestamp,
) -> Result<(RegistryObject, Vec<VersionRecord>)> {
    macro_rules! with_meta {
        ($variant:ident, $object:expr) => {{
            let mut object = (**$object).clone();
            let created = match stored {
                Some(RegistryObject::$variant(stored)) => stored.meta.created,
                _ => None,
            };
            object.meta = Meta { created: created.or(Some(now)), updated: Some(now) };
            (RegistryObject::$variant(Arc::new(object)), Vec::new())
        }};
    }
    Ok(match object {
        RegistryObject::Project(object) => with_meta!(Project, object),
        RegistryObject::Entity(object) => with_meta!(Entity, object),
        RegistryObject::DataSource(object) => with_meta!(DataSource, object),
        RegistryObject::FeatureService(object) => with_meta!(FeatureService, object),
        RegistryObject::Permission(object) => with_meta!(Permission, object),
        RegistryObject::SavedDataset(object) => {
            let mut object = (**object).clone();
            let created = match stored {
                Some(RegistryObject::SavedDataset(stored)) => stored.meta.created,
                _ => None,
            };
            object.meta = SavedDatasetMeta { created: created.or(Some(now)), updated: Some(now), ..object.meta };
            (RegistryObject::SavedDataset(Arc::new(object)), Vec::new())
        }
        RegistryObject::ValidationReference(_) => (object.clone(), Vec::new()),
        RegistryObject::FeatureView(view) => {
            let old = match stored {
                Some(RegistryObject::FeatureView(stored)) => Some(stored),
                _ => None,
            };
            stamp_view(view, old, recorded, now)?
        }
    })
}

fn stamp_view(
    view: &FeatureView,
    old: Option<&Arc<FeatureView>>,
    recorded: &Recorded<'_>,
    now: Timestamp,
) -> Result<(RegistryObject, Vec<VersionRecord>)> {
    let mut view = view.clone();
    let newest = recorded.newest.get(view.name.as_str()).copied();
    let numbered = number_of(&view, old, recorded)?;
    let mut records = Vec::new();
    let record = |view: &FeatureView, number: i32| VersionRecord {
        project: recorded.project.to_owned(),
        feature_view: view.name.clone(),
        kind: view.object_kind(),
        version_number: number,
        definition: PastDefinition::Read(Arc::new(view.clone())),
        created: Some(now),
        description: String::new(),
        version_id: view.meta.version_id.clone(),
    };
    match old {
        None => {
            // What an object of another registry has seen is not in this one's online store.
            view.meta.materialization_intervals.clear();
            view.meta.shard_progress.clear();
            view.meta.created = Some(now);
            view.meta.current_version_number = numbered.number;
            view.meta.version_id = Uuid::new_v4().to_string();
            records.push(record(&view, view.meta.current_version_number));
        }
        Some(old) => {
            // Everything the registry records stays, also what was materialized, as long as the rows can be found.
            view.meta = old.meta.clone();
            let other_table =
                recorded.snapshot.versions_have_tables && numbered.number != old.meta.current_version_number;
            if other_table || !keeps_rows(old, &view) {
                view.meta.materialization_intervals.clear();
                view.meta.shard_progress.clear();
            }
            view.meta.current_version_number = numbered.number;
            if let Some(restored) = numbered.restored {
                view.meta.version_id.clone_from(&restored.version_id);
            } else if numbered.is_new {
                if newest.is_none() && old.meta.current_version_number != numbered.number {
                    records.push(record(old, old.meta.current_version_number));
                }
                view.meta.version_id = Uuid::new_v4().to_string();
                records.push(record(&view, view.meta.current_version_number));
            }
        }
    }
    view.meta.updated = Some(now);
    Ok((RegistryObject::FeatureView(Arc::new(view)), records))
}

/// The version that a definition is or becomes.
pub(crate) struct Numbered<'a> {
    pub(crate) number: i32,
    /// Whether there was none with this number.
    is_new: bool,
    /// The record that the definition brings back.
    restored: Option<&'a VersionRecord>,
}

/// Which version a definition is beside the one that the registry has.
///
/// # Errors
/// `InvalidDefinition` for a view whose version is none.
pub(crate) fn number_of<'a>(
    view: &FeatureView,
    old: Option<&Arc<FeatureView>>,
    recorded: &Recorded<'a>,
) -> Result<Numbered<'a>> {
    let newest = recorded.newest.get(view.name.as_str()).copied();
    let pinned = pins::pinned(view).map_err(|problem| {
        Error::invalid_definition(format!("{} {}", problem.object, problem.message)).with_hint_opt(problem.hint)
    })?;
    let Some(old) = old else {
        let number = pinned.unwrap_or_else(|| newest.map_or(0, |newest| newest + 1));
        return Ok(Numbered { number, is_new: true, restored: None });
    };
    let current = old.meta.current_version_number;
    let restored = pinned.and_then(|number| pins::snapshot_of(recorded.snapshot, recorded.project, &view.name, number));
    Ok(match restored {
        Some(record) => Numbered { number: record.version_number, is_new: false, restored },
        // A number that there is not becomes that of the definition, changed or not, as in Feast.
        None if makes_version(old, view) || pinned.is_some_and(|number| number != current) => {
            let next = newest.unwrap_or(current) + 1;
            Numbered { number: pinned.unwrap_or(next), is_new: true, restored: None }
        }
        None => Numbered { number: current, is_new: false, restored: None },
    })
}

/// A definition that becomes a version, but not the current one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldBack {
    /// Name of the view.
    pub name: String,
    /// The number that the definition gets.
    pub version: i32,
    /// The number that stays the current one.
    pub current: i32,
    #[serde(skip)]
    pub(crate) view: Arc<FeatureView>,
}

/// Puts the views that the registry has in the place of definitions that would make new versions, and gives those that
/// are not the newest version already. A pin says which version is to be the current one, and is left alone. Pure.
///
/// # Errors
/// As [`number_of`].
pub(crate) fn hold_back(
    desired: &mut ProjectContents,
    current: Option<&ProjectContents>,
    snapshot: &RegistrySnapshot,
) -> Result<Vec<HeldBack>> {
    let Some(current) = current else { return Ok(Vec::new()) };
    let views: Vec<Arc<FeatureView>> = desired.feature_views.values().cloned().collect();
    let references: Vec<ObjectRef> = views.iter().map(|view| view.reference()).collect();
    let project = desired.project.name.clone();
    let recorded = Recorded::of(snapshot, &project, &references);
    let mut held = Vec::new();
    for view in views {
        let Some(stored) = current.feature_views.get(&view.name) else { continue };
        let is_pinned = pins::pinned(&view).is_ok_and(|number| number.is_some());
        let numbered = number_of(&view, Some(stored), &recorded)?;
        if is_pinned || !numbered.is_new {
            continue;
        }
        desired.put(RegistryObject::FeatureView(Arc::clone(stored)));
        let newest = numbered.number - 1;
        let record = pins::snapshot_of(snapshot, &project, &view.name, newest);
        let is_recorded = record.and_then(|record| record.view().ok()).is_some_and(|known| pins::same(&view, &known));
        if !is_recorded {
            let current = stored.meta.current_version_number;
            held.push(HeldBack { name: view.name.clone(), version: numbered.number, current, view });
        }
    }
    Ok(held)
}

/// Whether the rows that were materialized for the old definition are good for the new one: in the online store, under
/// the same keys, and of the same types. A feature that is new is null until newer rows come.
fn keeps_rows(old: &FeatureView, new: &FeatureView) -> bool {
    let keys = |view: &FeatureView| -> BTreeMap<String, ValueType> {
        view.key_columns().into_iter().map(|key| (key.name, key.value_type)).collect()
    };
    let same_type = |field: &Field| old.feature(&field.name).is_none_or(|old| old.value_type == field.value_type);
    new.has_online_table() && old.has_online_table() && keys(old) == keys(new) && new.features.iter().all(same_type)
}

/// Whether the schema or the code of a view changed.
fn makes_version(old: &FeatureView, new: &FeatureView) -> bool {
    let shape = |view: &FeatureView| -> Vec<_> {
        view.features.iter().chain(&view.entity_columns).map(|field| (field.name.clone(), field.value_type)).collect()
    };
    let code = |view: &FeatureView| match &view.kind {
        FeatureViewKind::Batch(batch) => (batch.transformation.clone(), batch.aggregations.clone()),
        FeatureViewKind::Stream(stream) => (stream.transformation.clone(), Vec::new()),
        FeatureViewKind::OnDemand(on_demand) => (on_demand.transformation.clone(), Vec::new()),
        FeatureViewKind::Label(_) => (None, Vec::new()),
    };
    let code = |view| serde_json::to_value(code(view)).ok();
    shape(old) != shape(new) || code(old) != code(new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use chrono::Utc;
    use feast_core::{BatchFeatures, ErrorCode};

    use super::*;

    #[test]
    fn a_version_that_is_none_is_told_and_not_taken_for_the_latest() {
        let mut view = FeatureView::new("rides", FeatureViewKind::Batch(BatchFeatures::default()));
        let stamped = |view: &FeatureView| {
            let object = RegistryObject::FeatureView(Arc::new(view.clone()));
            stamp(&object, None, &Recorded::of(&RegistrySnapshot::default(), "p", []), Utc::now())
        };
        view.version = "newest".to_owned();
        let error = stamped(&view).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidDefinition);
        assert_eq!(error.to_string(), "feature view `rides` has the version `newest`");
        view.version = "v3".to_owned();
        assert_eq!(stamped(&view).unwrap().1[0].version_number, 3);
    }
}
