//! A serialized `feast.core.Registry` that can be changed without understanding all of it.
//!
//! The message is split into its fields, and only fields that a change names are taken apart or replaced. Everything
//! else, be it of a later Feast or of a plug-in, leaves as it came, byte for byte.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use feast_core::{
    ManagedTable, ObjectKind, ObjectRef, Project, RegistryChange, RegistryChanges, RegistryObject, RegistryVersion,
};
use feast_proto::core::{FeatureViewVersionRecord, ProjectMetadata, Registry};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

use super::history::RawRevision;

/// Numbers of the fields of `Registry` that are not objects.
const SCHEMA_VERSION: u32 = 3;
const VERSION_ID: u32 = 4;
const LAST_UPDATED: u32 = 5;
const INFRA: u32 = 10;
const PROJECT_METADATA: u32 = 15;
const VERSION_HISTORY: u32 = 18;

/// Where a kind of object is in a registry, and where its message has its name and its project.
struct Place {
    field: u32,
    name: &'static [u32],
    project: &'static [u32],
}

fn place(kind: ObjectKind) -> Place {
    let (field, name, project): (u32, &[u32], &[u32]) = match kind {
        ObjectKind::Entity => (1, &[1, 1], &[1, 9]),
        ObjectKind::FeatureView => (6, &[1, 1], &[1, 2]),
        ObjectKind::FeatureService => (7, &[1, 1], &[1, 2]),
        ObjectKind::OnDemandFeatureView => (8, &[1, 1], &[1, 2]),
        ObjectKind::SavedDataset => (11, &[1, 1], &[1, 2]),
        ObjectKind::DataSource => (12, &[20], &[21]),
        ObjectKind::ValidationReference => (13, &[1], &[3]),
        ObjectKind::StreamFeatureView => (14, &[1, 1], &[1, 2]),
        ObjectKind::Permission => (16, &[1, 1], &[1, 2]),
        ObjectKind::Project => (17, &[1, 1], &[1, 1]),
        ObjectKind::LabelView => (19, &[1, 1], &[1, 2]),
    };
    Place { field, name, project }
}

/// The kind of the objects in fields with this number.
fn kind_of(number: u32) -> Option<ObjectKind> {
    ObjectKind::ALL.iter().copied().find(|kind| place(*kind).field == number)
}

/// One field as it stands in a message.
#[derive(Debug, Clone)]
struct Field {
    number: u32,
    /// Key, length and value.
    whole: Bytes,
    /// The value of a length-delimited field; empty for others.
    value: Bytes,
}

impl Field {
    fn new(number: u32, value: impl Into<Bytes>) -> Self {
        let value = value.into();
        let mut whole = BytesMut::with_capacity(value.len() + 10);
        encode_key(number, WireType::LengthDelimited, &mut whole);
        encode_varint(value.len() as u64, &mut whole);
        whole.extend_from_slice(&value);
        Self { number, whole: whole.freeze(), value }
    }

    fn message(number: u32, message: &impl Message) -> Self {
        Self::new(number, message.encode_to_vec())
    }

    /// Whether the text at `path` is `expected`.
    fn says(&self, path: &[u32], expected: &str) -> bool {
        last(&self.value, path).unwrap_or_default() == expected.as_bytes()
    }
}

/// Takes the next field off a message: its number, all of it, and its value, which is empty unless it is length-delimited.
/// `None` when it is no field.
fn take_field<'a>(message: &mut &'a [u8]) -> Option<(u32, &'a [u8], &'a [u8])> {
    let before = *message;
    let (number, wire_type) = decode_key(message).ok()?;
    let value = if wire_type == WireType::LengthDelimited {
        let length = usize::try_from(decode_varint(message).ok()?).ok()?;
        let (value, rest) = message.split_at_checked(length)?;
        *message = rest;
        value
    } else {
        skip_field(wire_type, number, message, DecodeContext::default()).ok()?;
        &[]
    };
    Some((number, &before[..before.len() - message.len()], value))
}

/// Takes a message apart; `None` when it is none.
fn split(message: &Bytes) -> Option<Vec<Field>> {
    let mut rest = &message[..];
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (number, whole, value) = take_field(&mut rest)?;
        fields.push(Field { number, whole: message.slice_ref(whole), value: message.slice_ref(value) });
    }
    Some(fields)
}

/// The value at a path of field numbers. Of fields that appear several times, the last one counts.
fn last<'a>(mut message: &'a [u8], path: &[u32]) -> Option<&'a [u8]> {
    let Some((wanted, inner)) = path.split_first() else { return Some(message) };
    let mut found = None;
    while !message.is_empty() {
        let (number, _, value) = take_field(&mut message)?;
        if number == *wanted {
            found = last(value, inner).or(found);
        }
    }
    found
}

/// Where the objects of a registry are: by number of their field, name and project.
type Index = HashMap<(u32, Bytes, Bytes), Vec<usize>>;

/// A registry, split into its fields.
#[derive(Debug, Clone, Default)]
pub(super) struct RegistryDocument {
    fields: Vec<Field>,
}

/// Changes to a registry. Fields that go are marked first and removed together at the end, so that positions stay.
struct Edit<'a> {
    document: &'a mut RegistryDocument,
    index: Index,
    project: &'a str,
}

/// What the messages of objects are.
type Messages = BTreeMap<ObjectRef, Option<Bytes>>;

/// Replaces the first field that `matches`, removes any others, and adds the field where none does.
fn put(fields: &mut Vec<Field>, new: Field, matches: impl Fn(&Field) -> bool) {
    let position = fields.iter().position(&matches);
    fields.retain({
        let mut index = 0;
        move |field| {
            let keep = Some(index) == position || !matches(field);
            index += 1;
            keep
        }
    });
    match position {
        Some(position) => fields[position] = new,
        None => fields.push(new),
    }
}

/// The number of a field that goes; no field has it.
const GONE: u32 = 0;

/// What an object is found by. A project belongs to itself.
fn key(object: &ObjectRef, project: &str) -> (u32, Bytes, Bytes) {
    let project = if object.kind == ObjectKind::Project { "" } else { project };
    let of = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    (place(object.kind).field, of(&object.name), of(project))
}

impl RegistryDocument {
    /// Takes the bytes of a registry apart; `None` when they are none.
    pub(super) fn parse(bytes: &Bytes) -> Option<Self> {
        split(bytes).map(|fields| Self { fields })
    }

    /// The version of the layout; empty when the registry does not say.
    pub(super) fn schema_version(&self) -> String {
        self.text(SCHEMA_VERSION)
    }

    /// The `version_id`; empty when the registry has none.
    pub(super) fn version_id(&self) -> String {
        self.text(VERSION_ID)
    }

    fn text(&self, number: u32) -> String {
        let value = self.fields.iter().rev().find(|field| field.number == number).map(|field| &field.value[..]);
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    }

    /// The messages of all objects, kind by kind.
    pub(super) fn objects(&self) -> Vec<(ObjectKind, Bytes)> {
        let object = |field: &Field| Some((kind_of(field.number)?, field.value.clone()));
        let mut objects: Vec<_> = self.fields.iter().filter_map(object).collect();
        objects.sort_by_key(|(kind, _)| *kind);
        objects
    }

    /// Everything but the objects, and what only looks like one: a number where a message should be has no value.
    pub(super) fn rest(&self) -> Bytes {
        let is_rest = |field: &&Field| kind_of(field.number).is_none() || field.value.is_empty();
        join(self.fields.iter().filter(is_rest)).into()
    }

    /// The registry as a message, fields in order of their numbers as Feast writes them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields: Vec<&Field> = self.fields.iter().collect();
        fields.sort_by_key(|field| field.number);
        join(fields)
    }

    /// Marks the registry as a new version of now.
    pub(super) fn set_version(&mut self, version: &RegistryVersion, now: SystemTime) {
        let header = Registry {
            registry_schema_version: feast_proto::REGISTRY_SCHEMA_VERSION.to_owned(),
            version_id: version.0.clone(),
            last_updated: Some(now.into()),
            ..Registry::default()
        };
        self.fields.retain(|field| ![SCHEMA_VERSION, VERSION_ID, LAST_UPDATED].contains(&field.number));
        let header = split(&header.encode_to_vec().into()).expect("a message that was just encoded");
        self.fields.extend(header);
    }

    /// Applies changes in order and tells what they changed; `project_uuid` names the project if these changes create it.
    pub(super) fn apply(&mut self, changes: &RegistryChanges, project_uuid: &str) -> Vec<RawRevision> {
        let project = changes.project.as_str();
        let index = self.index();
        let mut edit = Edit { document: self, index, project };
        let existed = edit.has_project();
        let before = edit.named(&changes.changes);
        let mut wanted = true;
        for change in &changes.changes {
            match change {
                RegistryChange::Put(object) => {
                    wanted = true;
                    edit.put_object(object);
                }
                RegistryChange::Delete(object) if object.kind == ObjectKind::Project => {
                    wanted &= object.name != project;
                    edit.document.delete_project(&object.name);
                    edit.index = edit.document.index();
                }
                RegistryChange::Delete(object) => edit.delete_object(object),
                RegistryChange::PutVersion(_)
                | RegistryChange::DeleteVersions(_)
                | RegistryChange::PutManagedTable(_)
                | RegistryChange::DeleteManagedTable(_) => {}
            }
        }
        if wanted {
            edit.ensure_project(existed, project_uuid);
        }
        let revisions = before.into_iter().map(|(object, before)| {
            let after = edit.message(&object);
            RawRevision { object, before, after }
        });
        let revisions = revisions.filter(|revision| revision.before != revision.after).collect();
        self.fields.retain(|field| field.number != GONE);
        // Of the version history and the tables a registry has one field each, which is taken apart once.
        let any = |wanted: fn(&RegistryChange) -> bool| changes.changes.iter().any(wanted);
        if any(|change| matches!(change, RegistryChange::PutVersion(_) | RegistryChange::DeleteVersions(_))) {
            self.edit(VERSION_HISTORY, |records| change_versions(records, &changes.changes, project));
        }
        if any(|change| matches!(change, RegistryChange::PutManagedTable(_) | RegistryChange::DeleteManagedTable(_))) {
            self.edit(INFRA, |objects| {
                let edits = changes.changes.iter().filter_map(|change| match change {
                    RegistryChange::PutManagedTable(table) => Some(TableEdit::Put(table)),
                    RegistryChange::DeleteManagedTable(name) => Some(TableEdit::Delete(name)),
                    _ => None,
                });
                edit_tables_in(objects, edits);
            });
        }
        revisions
    }

    /// Where the objects are.
    fn index(&self) -> Index {
        let mut index = Index::new();
        for (position, field) in self.fields.iter().enumerate() {
            let Some(kind) = kind_of(field.number) else { continue };
            let Place { name, project, .. } = place(kind);
            let of = |path| field.value.slice_ref(last(&field.value, path).unwrap_or_default());
            let project = if kind == ObjectKind::Project { Bytes::new() } else { of(project) };
            index.entry((field.number, of(name), project)).or_default().push(position);
        }
        index
    }

    fn delete_project(&mut self, project: &str) {
        self.fields.retain(|field| {
            let of_project = match kind_of(field.number) {
                Some(kind) => field.says(place(kind).project, project),
                None => field.number == PROJECT_METADATA && field.says(&[1], project),
            };
            !of_project
        });
        self.edit(VERSION_HISTORY, |records| records.retain(|record| !record.says(&[2], project)));
    }

    /// Changes the fields of a message that the registry has once.
    fn edit(&mut self, number: u32, change: impl FnOnce(&mut Vec<Field>)) {
        let parts: Vec<Bytes> =
            self.fields.iter().filter(|field| field.number == number).map(|field| field.value.clone()).collect();
        // What cannot be taken apart stays whole: the next reader reports it.
        let Some(mut inner) = split(&parts.concat().into()) else { return };
        change(&mut inner);
        let joined = join(&inner);
        if joined.is_empty() {
            self.fields.retain(|field| field.number != number);
        } else {
            put(&mut self.fields, Field::new(number, joined), |field| field.number == number);
        }
    }
}

impl Edit<'_> {
    /// The objects that changes name, and what their messages are now.
    fn named(&self, changes: &[RegistryChange]) -> Messages {
        let mut named = Messages::new();
        let mut name = |object: ObjectRef| {
            let message = self.message(&object);
            named.insert(object, message);
        };
        // Creating a project is a change, too.
        name(ObjectRef::new(ObjectKind::Project, self.project));
        for change in changes {
            match change {
                RegistryChange::Put(object) if object.kind().is_feature_view() => {
                    let kinds = ObjectKind::ALL.iter().filter(|kind| kind.is_feature_view());
                    kinds.for_each(|kind| name(ObjectRef::new(*kind, object.name())));
                }
                RegistryChange::Put(object) => name(object.reference()),
                RegistryChange::Delete(object) if object.kind == ObjectKind::Project => {
                    for kind in ObjectKind::ALL {
                        let place = place(*kind);
                        let of_project =
                            |field: &&Field| field.number == place.field && field.says(place.project, &object.name);
                        for field in self.document.fields.iter().filter(of_project) {
                            let found = last(&field.value, place.name).unwrap_or_default();
                            name(ObjectRef::new(*kind, String::from_utf8_lossy(found)));
                        }
                    }
                }
                RegistryChange::Delete(object) => name(object.clone()),
                _ => {}
            }
        }
        named
    }

    fn message(&self, object: &ObjectRef) -> Option<Bytes> {
        let position = self.index.get(&key(object, self.project))?.last()?;
        Some(self.document.fields[*position].value.clone())
    }

    /// Records a project the way Feast does. A project that Feast recorded otherwise stays as it is.
    fn ensure_project(&mut self, existed: bool, project_uuid: &str) {
        let project = self.project;
        let missing = !self.has_project();
        if missing {
            self.put_object(&RegistryObject::Project(Project::new(project).into()));
        }
        let of_project = |field: &Field| field.number == PROJECT_METADATA && field.says(&[1], project);
        if (missing || !existed) && !self.document.fields.iter().any(of_project) {
            let metadata = ProjectMetadata { project: project.to_owned(), project_uuid: project_uuid.to_owned() };
            self.document.fields.push(Field::message(PROJECT_METADATA, &metadata));
        }
    }

    fn has_project(&self) -> bool {
        self.index.contains_key(&key(&ObjectRef::new(ObjectKind::Project, self.project), self.project))
    }

    /// Replaces the object where it is first, removes it elsewhere, and adds it where it is not.
    fn put_object(&mut self, object: &RegistryObject) {
        let reference = object.reference();
        if reference.kind.is_feature_view() {
            // Names of views are unique among all kinds.
            for kind in ObjectKind::ALL.iter().filter(|kind| kind.is_feature_view() && **kind != reference.kind) {
                self.delete_object(&ObjectRef::new(*kind, &reference.name));
            }
        }
        let new = Field::new(place(reference.kind).field, feast_proto::encode_object(object, self.project));
        let positions = self.index.entry(key(&reference, self.project)).or_default();
        match positions.first() {
            Some(first) => {
                self.document.fields[*first] = new;
                for more in positions.drain(1..) {
                    self.document.fields[more].number = GONE;
                }
            }
            None => {
                positions.push(self.document.fields.len());
                self.document.fields.push(new);
            }
        }
    }

    fn delete_object(&mut self, object: &ObjectRef) {
        for position in self.index.remove(&key(object, self.project)).into_iter().flatten() {
            self.document.fields[position].number = GONE;
        }
    }
}

/// Applies what changes say about older definitions.
fn change_versions(records: &mut Vec<Field>, changes: &[RegistryChange], project: &str) {
    let mut positions: HashMap<(String, i32), usize> = HashMap::new();
    for (position, record) in records.iter().enumerate() {
        if record.says(&[2], project)
            && let Ok(stored) = FeatureViewVersionRecord::decode(record.value.clone())
        {
            positions.insert((stored.feature_view_name, stored.version_number), position);
        }
    }
    for change in changes {
        match change {
            RegistryChange::PutVersion(record) => {
                let mut message = feast_proto::version_message(record);
                message.project_id = project.to_owned();
                let new = Field::message(1, &message);
                let key = (record.feature_view.clone(), record.version_number);
                match positions.get(&key) {
                    Some(position) => records[*position] = new,
                    None => {
                        positions.insert(key, records.len());
                        records.push(new);
                    }
                }
            }
            RegistryChange::DeleteVersions(view) => positions.retain(|(name, _), position| {
                let goes = name == view;
                if goes {
                    records[*position].number = GONE;
                }
                !goes
            }),
            _ => {}
        }
    }
    records.retain(|record| record.number != GONE);
}

/// The message of fields, in their order.
fn join<'a>(fields: impl IntoIterator<Item = &'a Field>) -> Vec<u8> {
    let parts: Vec<&[u8]> = fields.into_iter().map(|field| &field.whole[..]).collect();
    parts.concat()
}

/// A change of the records of tables.
pub(super) enum TableEdit<'a> {
    Put(&'a ManagedTable),
    Delete(&'a str),
}

/// Adds, replaces and removes the records of tables in a serialized `feast.core.Infra`.
pub(super) fn edit_tables<'a>(infra: &Bytes, edits: impl Iterator<Item = TableEdit<'a>>) -> Bytes {
    // What cannot be taken apart stays whole: the next reader reports it.
    let Some(mut objects) = split(infra) else { return infra.clone() };
    edit_tables_in(&mut objects, edits);
    join(&objects).into()
}

fn edit_tables_in<'a>(objects: &mut Vec<Field>, edits: impl Iterator<Item = TableEdit<'a>>) {
    // Thousands of tables may be made at once.
    let mut places: HashMap<Bytes, Vec<usize>> = HashMap::new();
    for (place, object) in objects.iter().enumerate().filter(|(_, object)| object.number == 1) {
        if let Some(name) = last(&object.value, &[4, 2]) {
            places.entry(object.value.slice_ref(name)).or_default().push(place);
        }
    }
    for edit in edits {
        let (name, put) = match edit {
            TableEdit::Put(table) => (table.name.as_str(), Some(table)),
            TableEdit::Delete(name) => (name, None),
        };
        let mut there = places.remove(name.as_bytes()).unwrap_or_default().into_iter();
        if let Some(table) = put {
            let field = Field::message(1, &feast_proto::managed_table_message(table));
            let place = there.next().unwrap_or(objects.len());
            match objects.get_mut(place) {
                Some(object) => *object = field,
                None => objects.push(field),
            }
            places.insert(Bytes::copy_from_slice(name.as_bytes()), vec![place]);
        }
        there.for_each(|place| objects[place].number = GONE);
    }
    objects.retain(|object| object.number != GONE);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use feast_core::{Entity, ValueType};

    use super::*;

    const FEAST_REGISTRY: &[u8] = include_bytes!("../../../../tests/formats/registry/feast-0.67.0.pb");

    fn changes(changes: Vec<RegistryChange>) -> RegistryChanges {
        RegistryChanges::new("rides", changes)
    }

    #[test]
    fn feasts_registry_leaves_as_it_came() {
        let document = RegistryDocument::parse(&Bytes::from_static(FEAST_REGISTRY)).unwrap();
        assert_eq!(document.encode(), FEAST_REGISTRY);
        assert_eq!(document.schema_version(), "1");
    }

    #[test]
    fn what_no_change_names_keeps_its_bytes() {
        let mut bytes = FEAST_REGISTRY.to_vec();
        bytes.extend_from_slice(&Field::new(4000, b"of a later release".to_vec()).whole);
        let before = RegistryDocument::parse(&bytes.into()).unwrap();
        let mut after = before.clone();
        let city = Entity { description: "new".to_owned(), ..Entity::new("city", "city", ValueType::String) };
        let table = ManagedTable { class_type: "x".to_owned(), name: "rides_new".to_owned(), path: "y".to_owned() };
        after.apply(
            &changes(vec![
                RegistryChange::Put(RegistryObject::Entity(city.into())),
                RegistryChange::PutManagedTable(table),
                RegistryChange::DeleteVersions("labels".to_owned()),
            ]),
            "",
        );
        let kept = |document: &RegistryDocument| -> Vec<Bytes> {
            let changed = |field: &&Field| {
                field.number != INFRA
                    && field.number != VERSION_HISTORY
                    && !(field.number == 1 && field.says(&[1, 1], "city") && field.says(&[1, 9], "rides"))
            };
            document.fields.iter().filter(changed).map(|field| field.whole.clone()).collect()
        };
        assert_eq!(kept(&before), kept(&after));

        let read = |document: &RegistryDocument| Registry::decode(document.encode().as_slice()).unwrap();
        let (before, after) = (read(&before), read(&after));
        let names = |registry: &Registry| -> Vec<String> {
            registry.entities.iter().map(|entity| entity.spec.clone().unwrap().name).collect()
        };
        assert_eq!(names(&before), names(&after), "an object that is replaced keeps its position");
        let (before_infra, after_infra) = (before.infra.unwrap().infra_objects, after.infra.unwrap().infra_objects);
        assert_eq!(after_infra[..before_infra.len()], before_infra[..]);
        let (before_history, after_history) =
            (before.feature_view_version_history.unwrap().records, after.feature_view_version_history.unwrap().records);
        let others: Vec<_> = before_history.into_iter().filter(|record| record.feature_view_name != "labels").collect();
        assert_eq!(after_history, others);
    }

    #[test]
    fn a_new_project_is_recorded_as_feast_does() {
        let mut document = RegistryDocument::default();
        document.apply(&changes(Vec::new()), "the-uuid");
        document.set_version(&RegistryVersion("v".to_owned()), SystemTime::UNIX_EPOCH);
        let registry = Registry::decode(document.encode().as_slice()).unwrap();
        assert_eq!(registry.projects[0].spec.as_ref().unwrap().name, "rides");
        #[expect(deprecated, reason = "Feast writes it")]
        let metadata = registry.project_metadata;
        assert_eq!(metadata[0].project_uuid, "the-uuid");
        assert_eq!((registry.registry_schema_version.as_str(), registry.version_id.as_str()), ("1", "v"));
    }

    #[test]
    fn malformed_messages_are_refused() {
        for bytes in [&b"\x0a\xff"[..], b"\x0b", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"project: rides\n"] {
            assert!(RegistryDocument::parse(&Bytes::copy_from_slice(bytes)).is_none(), "{bytes:?}");
        }
    }
}
