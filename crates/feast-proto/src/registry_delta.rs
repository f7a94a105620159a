//! What a client of a registry server is told that knows an earlier state: only what differs from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use feast_core::{
    Error, ObjectKind, ObjectRef, ProjectContents, RegistrySnapshot, RegistryVersion, Result, VersionRecord,
};

use crate::registry_store::{Gone, GoneVersion, Loaded, named, reference};
use crate::{registry_from_snapshot, snapshot_from_registry};

/// Names an older definition.
type VersionKey<'a> = (&'a str, &'a str, i32);

fn key_of(record: &VersionRecord) -> VersionKey<'_> {
    (&record.project, &record.feature_view, record.version_number)
}

/// The message of a snapshot, for a client that has `known`.
pub fn loaded_message(known: Option<&RegistrySnapshot>, snapshot: &RegistrySnapshot) -> Loaded {
    let version = snapshot.version.as_ref().map(ToString::to_string);
    let base = known.and_then(|known| Some((known, known.version.as_ref()?)));
    let Some((known, base)) = base.filter(|_| version.is_some()) else {
        return Loaded { version, registry: Some(registry_from_snapshot(snapshot, None)), ..Loaded::default() };
    };
    let mut part = RegistrySnapshot::default();
    part.version.clone_from(&snapshot.version);
    part.updated = snapshot.updated;
    let mut gone = Vec::new();
    for (project, contents) in &snapshot.projects {
        let before = known.projects.get(project);
        if before.is_some_and(|before| Arc::ptr_eq(before, contents)) {
            continue;
        }
        let mut changed = ProjectContents { project: contents.project.clone(), ..ProjectContents::default() };
        for object in contents.objects() {
            let known = before.and_then(|before| before.get(&object.reference()));
            if known.is_none_or(|known| !known.is_same(&object)) {
                changed.put(object);
            }
        }
        for object in before.iter().flat_map(|before| before.objects()).map(|object| object.reference()) {
            if contents.get(&object).is_none() {
                gone.push(Gone { project: project.clone(), object: Some(named(&object)) });
            }
        }
        part.projects.insert(project.clone(), Arc::new(changed));
    }
    for project in known.projects.keys().filter(|project| !snapshot.projects.contains_key(*project)) {
        let object = ObjectRef::new(ObjectKind::Project, project);
        gone.push(Gone { project: project.clone(), object: Some(named(&object)) });
    }
    let (versions, gone_versions) = changed_versions(known, snapshot);
    part.versions = Arc::new(versions);
    let tables_changed = known.managed_tables != snapshot.managed_tables;
    if tables_changed {
        part.managed_tables = Arc::clone(&snapshot.managed_tables);
    }
    let registry = Some(registry_from_snapshot(&part, None));
    Loaded { version, registry, base: Some(base.to_string()), gone, gone_versions, tables_changed }
}

fn changed_versions(
    known: &RegistrySnapshot,
    snapshot: &RegistrySnapshot,
) -> (Vec<Arc<VersionRecord>>, Vec<GoneVersion>) {
    if Arc::ptr_eq(&known.versions, &snapshot.versions) {
        return Default::default();
    }
    // A definition gets its identifier with its number: what has the same is the same.
    let mut before: HashMap<VersionKey<'_>, &VersionRecord> =
        known.versions.iter().map(|record| (key_of(record), record.as_ref())).collect();
    let same = |a: &VersionRecord, b: &VersionRecord| {
        (&a.version_id, a.created, &a.description) == (&b.version_id, b.created, &b.description)
    };
    let mut versions = Vec::new();
    for record in snapshot.versions.iter() {
        if before.remove(&key_of(record)).is_none_or(|known| !same(known, record)) {
            versions.push(Arc::clone(record));
        }
    }
    let gone = before.into_keys().map(|(project, feature_view, version_number)| GoneVersion {
        project: project.to_owned(),
        feature_view: feature_view.to_owned(),
        version_number,
    });
    (versions, gone.collect())
}

/// The snapshot that a message tells a client that has `known`; `None` when that is still the state.
///
/// # Errors
/// `CorruptRegistry`, naming the object, when one of them cannot be read; `Internal` when the message tells what differs
/// from another state than the known one.
pub fn snapshot_from_loaded(known: Option<&RegistrySnapshot>, loaded: Loaded) -> Result<Option<RegistrySnapshot>> {
    let version = loaded.version.map(RegistryVersion);
    if known.is_some_and(|known| known.version == version) {
        return Ok(None);
    }
    let Some(registry) = loaded.registry.filter(|_| version.is_some()) else {
        return Ok(Some(RegistrySnapshot::default()));
    };
    let part = snapshot_from_registry(registry)?;
    let mut snapshot = RegistrySnapshot::default();
    snapshot.version = version;
    snapshot.updated = part.updated;
    let Some(base) = loaded.base else {
        snapshot.projects = part.projects;
        snapshot.versions = part.versions;
        snapshot.managed_tables = part.managed_tables;
        return Ok(Some(snapshot));
    };
    let known = known
        .filter(|known| known.version.as_ref().is_some_and(|version| version.0 == base))
        .ok_or_else(|| Error::internal("a registry server told what differs from a state that nobody asked about"))?;
    snapshot.projects.clone_from(&known.projects);
    for (name, changed) in part.projects {
        let contents = Arc::make_mut(snapshot.projects.entry(name).or_default());
        contents.project = changed.project.clone();
        for object in changed.objects() {
            contents.put(object);
        }
    }
    for gone in loaded.gone {
        let object = reference(&gone.object.unwrap_or_default())?;
        if object.kind == ObjectKind::Project {
            snapshot.projects.shift_remove(&gone.project);
        } else if let Some(contents) = snapshot.projects.get_mut(&gone.project) {
            Arc::make_mut(contents).remove(&object);
        }
    }
    let replaced: HashSet<VersionKey<'_>> = part.versions.iter().map(|record| key_of(record)).collect();
    let gone = loaded.gone_versions.iter();
    let gone: HashSet<VersionKey<'_>> =
        gone.map(|one| (one.project.as_str(), one.feature_view.as_str(), one.version_number)).collect();
    let stays = |record: &&Arc<VersionRecord>| !replaced.contains(&key_of(record)) && !gone.contains(&key_of(record));
    let versions = known.versions.iter().filter(stays).chain(part.versions.iter()).cloned();
    snapshot.versions = Arc::new(versions.collect());
    snapshot.managed_tables =
        if loaded.tables_changed { part.managed_tables } else { Arc::clone(&known.managed_tables) };
    Ok(Some(snapshot))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use feast_core::{
        BatchFeatures, Entity, FeatureView, FeatureViewKind, ManagedTable, PastDefinition, RegistryObject, ValueType,
    };
    use prost::Message;

    use super::*;

    fn record(view: &str, version_number: i32, version_id: &str) -> Arc<VersionRecord> {
        let definition = FeatureView::new(view, FeatureViewKind::Batch(BatchFeatures::default()));
        Arc::new(VersionRecord {
            project: "rides".to_owned(),
            feature_view: view.to_owned(),
            kind: ObjectKind::FeatureView,
            version_number,
            definition: PastDefinition::Read(Arc::new(definition)),
            created: None,
            description: String::new(),
            version_id: version_id.to_owned(),
        })
    }

    fn snapshot(
        version: &str,
        projects: &[(&str, &[&Arc<Entity>])],
        versions: Vec<Arc<VersionRecord>>,
    ) -> RegistrySnapshot {
        let mut snapshot = RegistrySnapshot::default();
        snapshot.version = Some(RegistryVersion(version.to_owned()));
        for (project, entities) in projects {
            let project = feast_core::Project::new(*project);
            let mut contents = ProjectContents { project, ..ProjectContents::default() };
            entities.iter().for_each(|entity| contents.put(RegistryObject::Entity(Arc::clone(entity))));
            snapshot.projects.insert(contents.project.name.clone(), Arc::new(contents));
        }
        snapshot.versions = Arc::new(versions);
        let table = ManagedTable { class_type: "c".to_owned(), name: version.to_owned(), path: "p".to_owned() };
        snapshot.managed_tables = Arc::new(vec![table]);
        snapshot
    }

    fn told(snapshot: &RegistrySnapshot) -> String {
        format!("{:?}", registry_from_snapshot(snapshot, None))
    }

    #[test]
    fn what_differs_makes_the_new_state_of_the_known_one() {
        let entity = |name: &str, description: &str| {
            let entity = Entity::new(name, name, ValueType::Int64);
            Arc::new(Entity { description: description.to_owned(), project: "rides".to_owned(), ..entity })
        };
        let (stays, goes, changed) = (entity("stays", ""), entity("goes", ""), entity("changes", "before"));
        let known = snapshot(
            "1",
            &[("rides", &[&stays, &goes, &changed]), ("gone", &[])],
            vec![record("a", 0, "x"), record("b", 0, "y"), record("b", 1, "z")],
        );
        let (changed, added) = (entity("changes", "after"), entity("added", ""));
        let new = snapshot(
            "2",
            &[("rides", &[&stays, &changed, &added]), ("new", &[])],
            vec![record("a", 0, "x"), record("b", 1, "other")],
        );
        let message = loaded_message(Some(&known), &new);
        let entities: Vec<String> = message
            .registry
            .iter()
            .flat_map(|registry| &registry.entities)
            .map(|entity| entity.spec.clone().unwrap().name)
            .collect();
        assert_eq!(entities, ["changes", "added"], "what stays is not told");
        let message = Loaded::decode(message.encode_to_vec().as_slice()).unwrap();
        let read = snapshot_from_loaded(Some(&known), message.clone()).unwrap().unwrap();
        assert_eq!(told(&read), told(&new));
        assert!(Arc::ptr_eq(&read.projects["rides"].entities["stays"], &stays));
        assert!(snapshot_from_loaded(None, message).is_err(), "nobody knows the state it differs from");
        assert!(snapshot_from_loaded(Some(&new), loaded_message(Some(&new), &new)).unwrap().is_none());
        let whole = snapshot_from_loaded(None, loaded_message(None, &new)).unwrap().unwrap();
        assert_eq!(told(&whole), told(&new));
    }

    #[test]
    fn a_registry_that_is_gone_is_empty() {
        let known = snapshot("1", &[("rides", &[])], Vec::new());
        let message = loaded_message(Some(&known), &RegistrySnapshot::default());
        let read = snapshot_from_loaded(Some(&known), message).unwrap().unwrap();
        assert!(read.version.is_none() && read.projects.is_empty());
    }
}
