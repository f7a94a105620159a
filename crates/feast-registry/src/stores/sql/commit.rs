//! One commit: from changes to the rows that change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use chrono::Utc;
use feast_core::{
    Error, ErrorCode, ObjectKind, ObjectRef, Project, RegistryChange, RegistryChanges, RegistryObject, RegistryVersion,
    Result, list_names,
};
use indexmap::IndexMap;
use uuid::Uuid;

use super::super::document::{TableEdit, edit_tables};
use super::database::{Dialect, Session, Value};
use super::refresh::Standing;
use super::state::{Difference, Key, Stamp, State, StoredRow, digest};
use super::tables::{COMMITS, HISTORY, INFRA_NAME, METADATA, OBJECT_TABLES, ObjectTable, table_names, table_of};
use super::versions::{self, VersionsOf};
use super::{MOST_NAMES, SqlRegistry, marks};

/// Bytes of values in one statement, about: servers refuse packets that are too large.
const MOST_BYTES: usize = 2 << 20;

/// Where the summary of the older definitions is: behind those of the tables.
const OLDER: usize = OBJECT_TABLES.len();

/// How many commits the history keeps.
const KEPT_COMMITS: i64 = 10_000;

/// What a commit wrote, before it is committed. What others wrote in the same moment is not in it, so that the next
/// reader finds it.
pub(super) struct Written {
    pub(super) standing: Standing,
    pub(super) difference: Difference,
    /// Seconds since the epoch when the tables were those of the base.
    pub(super) read_at: i64,
}

/// Why nothing was written.
pub(super) struct Refused {
    pub(super) error: Error,
    /// Whether a row differed from that of the base although the version was the same.
    pub(super) moved: bool,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, moved: false }
    }
}

/// A row as it is to be.
enum Wanted {
    Message(Vec<u8>),
    Gone,
    /// `managed_infra`: what to do with the message that is there.
    Edited(Vec<InfraEdit>),
}

enum InfraEdit {
    Put(feast_core::ManagedTable),
    Delete(String),
}

/// The changes by table, later ones before earlier ones.
#[derive(Default)]
struct Writes {
    /// By place of the table and name.
    rows: BTreeMap<usize, IndexMap<String, Wanted>>,
    versions: IndexMap<String, VersionsOf>,
    deleted_projects: BTreeSet<String>,
    /// Whether the project itself stays or comes.
    wants_project: bool,
}

fn place_of(kind: ObjectKind) -> usize {
    OBJECT_TABLES.iter().position(|table| *table == *table_of(kind)).unwrap_or_default()
}

impl Writes {
    fn of(changes: &RegistryChanges) -> Self {
        let project = changes.project.as_str();
        let mut writes = Self { wants_project: true, ..Self::default() };
        for change in &changes.changes {
            match change {
                RegistryChange::Put(object) => {
                    writes.wants_project = true;
                    if object.kind().is_feature_view() {
                        // Names of views are unique among all kinds.
                        for kind in ObjectKind::ALL.iter().filter(|kind| kind.is_feature_view()) {
                            writes.set(*kind, object.name(), Wanted::Gone);
                        }
                    }
                    let message = feast_proto::encode_object(object, project);
                    writes.set(object.kind(), object.name(), Wanted::Message(message));
                }
                RegistryChange::Delete(object) if object.kind == ObjectKind::Project => {
                    writes.deleted_projects.insert(object.name.clone());
                    if object.name == project {
                        writes.wants_project = false;
                        writes.rows.clear();
                        writes.versions.clear();
                    }
                }
                RegistryChange::Delete(object) => writes.set(object.kind, &object.name, Wanted::Gone),
                RegistryChange::PutVersion(record) => {
                    let of = writes.versions.entry(record.feature_view.clone()).or_default();
                    of.put.retain(|other| other.version_number != record.version_number);
                    of.put.push(record.clone());
                }
                RegistryChange::DeleteVersions(view) => {
                    writes.versions.insert(view.clone(), VersionsOf { delete: true, put: Vec::new() });
                }
                RegistryChange::PutManagedTable(table) => writes.edit_infra(InfraEdit::Put(table.clone())),
                RegistryChange::DeleteManagedTable(name) => writes.edit_infra(InfraEdit::Delete(name.clone())),
            }
        }
        writes
    }

    fn set(&mut self, kind: ObjectKind, name: &str, wanted: Wanted) {
        self.rows.entry(place_of(kind)).or_default().insert(name.to_owned(), wanted);
    }

    fn edit_infra(&mut self, edit: InfraEdit) {
        let rows = self.rows.entry(OBJECT_TABLES.len() - 1).or_default();
        match rows.entry(INFRA_NAME.to_owned()).or_insert_with(|| Wanted::Edited(Vec::new())) {
            Wanted::Edited(edits) => edits.push(edit),
            other => *other = Wanted::Edited(vec![edit]),
        }
    }
}

/// A row that is there, read under lock.
struct Present {
    time: i64,
    message: Vec<u8>,
}

impl Present {
    fn stamp(&self) -> Stamp {
        Stamp { time: self.time, length: self.message.len() as i64 }
    }
}

/// One object before and after the commit.
struct Revision {
    kind: &'static str,
    name: String,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
}

/// Writes the changes in the open transaction.
pub(super) async fn write(
    registry: &SqlRegistry,
    session: &mut dyn Session,
    state: &State,
    base: Option<&RegistryVersion>,
    changes: &RegistryChanges,
    commit_id: &str,
) -> Result<Written, Refused> {
    let tables = registry.tables(&registry.writes, session).await?;
    let missing: Vec<&str> = table_names().filter(|name| !tables.contains(name)).collect();
    if !missing.is_empty() {
        return Err(Refused::from(
            Error::invalid_configuration(format!("{registry} lacks the tables {}", list_names(missing)))
                .with_hint("create them with `feast registry create-schema`, or set `schema_mode: auto`"),
        ));
    }
    let project = changes.project.as_str();
    let dialect = registry.writes.database.dialect();
    let now = Utc::now().timestamp();

    // Ours wait here for each other.
    let locked = session
        .execute(
            &format!("UPDATE {COMMITS} SET commit_id = ? WHERE id = ?"),
            vec![Value::text(commit_id), Value::Integer(1)],
        )
        .await?;
    let current = registry.standing(&registry.writes, session, &tables, state).await?;
    let version = current.as_ref().map(Standing::version);
    if version.as_ref() != base {
        return Err(conflict(registry, base, version.as_ref()).into());
    }
    let mut standing = current.unwrap_or_else(Standing::empty);
    standing.commits += 1;
    if locked == 0 {
        let sql = format!("INSERT INTO {COMMITS} (id, commits, commit_id) VALUES (?, ?, ?)");
        session.execute(&sql, vec![Value::Integer(1), Value::Integer(0), Value::text(commit_id)]).await?;
    }
    session
        .execute(&format!("UPDATE {COMMITS} SET commits = commits + 1 WHERE id = ?"), vec![Value::Integer(1)])
        .await?;

    let mut writes = Writes::of(changes);
    let mut difference = Difference::default();
    let mut revisions = Vec::new();
    for deleted in &writes.deleted_projects {
        for place in 0..OBJECT_TABLES.len() {
            for (key, row) in delete_project(session, dialect, place, deleted).await? {
                standing.summaries[place].replace(Some(row.stamp()), None);
                revisions.extend(revision(place, &key.1, Some(row.message), None));
                difference.rows.push((place, key, None));
            }
        }
        let gone = versions::delete_project(session, dialect, deleted, &mut standing.summaries[OLDER]).await?;
        difference.versions.extend(gone);
        session.execute(&format!("DELETE FROM {METADATA} WHERE project_id = ?"), vec![Value::text(deleted)]).await?;
    }
    if writes.wants_project {
        let place = place_of(ObjectKind::Project);
        let named = writes.rows.get(&place).is_some_and(|rows| rows.contains_key(project));
        let there = present_rows(session, dialect, place, project, &[project.to_owned()]).await?;
        if !named && there.is_empty() {
            let object = RegistryObject::Project(Project::new(project).into());
            writes.set(ObjectKind::Project, project, Wanted::Message(feast_proto::encode_object(&object, project)));
        }
        if there.is_empty() && !registry.purge_metadata {
            put_metadata(session, dialect, project, "project_uuid", &Uuid::new_v4().to_string(), now, false).await?;
        }
    }

    let known_base = state.version.is_some() && state.version.as_ref() == base;
    let mut moved = Vec::new();
    let mut statements = Vec::new();
    for (place, wanted) in writes.rows {
        let names: Vec<String> = wanted.keys().cloned().collect();
        let mut present = if writes.deleted_projects.contains(project) {
            HashMap::new()
        } else {
            present_rows(session, dialect, place, project, &names).await?
        };
        let mut changed = Vec::new();
        let mut added = Vec::new();
        let mut gone = Vec::new();
        for (name, wanted) in wanted {
            let there = present.remove(&name);
            if known_base && !writes.deleted_projects.contains(project) {
                let key = (project.to_owned(), name.clone());
                let known = state.tables[place].get(&key).map(|row| row.digest);
                if known != there.as_ref().map(|row| digest(&row.message)) {
                    moved.push(described(place, &name));
                    continue;
                }
            }
            let message = match wanted {
                Wanted::Message(message) => Some(message),
                Wanted::Gone => None,
                Wanted::Edited(edits) => edited(there.as_ref(), &edits),
            };
            match (there, message) {
                (None, None) => {}
                (Some(there), Some(message)) if there.message == message => {}
                (Some(there), Some(message)) => {
                    // Two changes within a second have two times, so that readers see both.
                    let time = now.max(there.time + 1);
                    let stamp = Stamp { time, length: message.len() as i64 };
                    standing.summaries[place].replace(Some(there.stamp()), Some(stamp));
                    revisions.extend(revision(place, &name, Some(there.message), Some(message.clone())));
                    changed.push((name, time, message));
                }
                (None, Some(message)) => {
                    let stamp = Stamp { time: now, length: message.len() as i64 };
                    standing.summaries[place].replace(None, Some(stamp));
                    revisions.extend(revision(place, &name, None, Some(message.clone())));
                    added.push((name, now, message));
                }
                (Some(there), None) => {
                    standing.summaries[place].replace(Some(there.stamp()), None);
                    revisions.extend(revision(place, &name, Some(there.message), None));
                    gone.push(name);
                }
            }
        }
        statements.push((place, added, changed, gone));
    }
    if !moved.is_empty() {
        let names = moved.join(", ");
        let error = Error::new(ErrorCode::Conflict, format!("{registry} was changed by somebody else: {names}"))
            .with_hint("read the registry again and repeat the change");
        return Err(Refused { error, moved: true });
    }
    for (place, added, changed, gone) in statements {
        let table = &OBJECT_TABLES[place];
        put_rows(session, dialect, table, project, &added, false).await?;
        put_rows(session, dialect, table, project, &changed, true).await?;
        for names in gone.chunks(MOST_NAMES) {
            let sql = format!(
                "DELETE FROM {} WHERE project_id = ? AND {} IN ({})",
                table.name,
                table.key,
                marks(names.len())
            );
            let parameters = std::iter::once(project).chain(names.iter().map(String::as_str)).map(Value::text);
            session.execute(&sql, parameters.collect()).await?;
        }
        for (name, time, message) in added.into_iter().chain(changed) {
            let row = StoredRow::read(table.kind, time, &message)?;
            difference.rows.push((place, (project.to_owned(), name), Some(row)));
        }
        difference.rows.extend(gone.into_iter().map(|name| (place, (project.to_owned(), name), None)));
    }
    let older = &mut standing.summaries[OLDER];
    difference.versions.extend(versions::write(session, dialect, project, writes.versions, older).await?);
    if registry.purge_metadata {
        session.execute(&format!("DELETE FROM {METADATA} WHERE project_id = ?"), vec![Value::text(project)]).await?;
    } else if writes.wants_project {
        put_metadata(session, dialect, project, "last_updated_timestamp", &now.to_string(), now, true).await?;
    }
    write_history(registry, session, dialect, changes, standing.commits, commit_id, revisions).await?;
    Ok(Written { standing, difference, read_at: now })
}

fn conflict(registry: &SqlRegistry, base: Option<&RegistryVersion>, current: Option<&RegistryVersion>) -> Error {
    let name = |version: Option<&RegistryVersion>| version.map_or("none".to_owned(), ToString::to_string);
    Error::new(ErrorCode::Conflict, format!("{registry} was changed by somebody else since it was read"))
        .with_context("expected version", name(base))
        .with_context("found", name(current))
        .with_hint("read the registry again and repeat the change")
}

fn described(place: usize, name: &str) -> String {
    match OBJECT_TABLES[place].kind {
        Some(kind) => ObjectRef::new(kind, name).to_string(),
        None => "the tables of the online store".to_owned(),
    }
}

fn revision(place: usize, name: &str, before: Option<Vec<u8>>, after: Option<Vec<u8>>) -> Option<Revision> {
    let kind = OBJECT_TABLES[place].kind?.identifier();
    Some(Revision { kind, name: name.to_owned(), before, after })
}

/// The message of a project's tables after some edits; `None` when nothing is left of it.
fn edited(there: Option<&Present>, edits: &[InfraEdit]) -> Option<Vec<u8>> {
    let message = Bytes::from(there.map(|row| row.message.clone()).unwrap_or_default());
    let edits = edits.iter().map(|edit| match edit {
        InfraEdit::Put(table) => TableEdit::Put(table),
        InfraEdit::Delete(name) => TableEdit::Delete(name),
    });
    let message = edit_tables(&message, edits);
    (there.is_some() || !message.is_empty()).then(|| message.to_vec())
}

/// The rows with these names, kept from changing until the transaction ends.
async fn present_rows(
    session: &mut dyn Session,
    dialect: &Dialect,
    place: usize,
    project: &str,
    names: &[String],
) -> Result<HashMap<String, Present>> {
    let ObjectTable { name: table, key, message, .. } = &OBJECT_TABLES[place];
    let mut present = HashMap::new();
    for names in names.chunks(MOST_NAMES) {
        let sql = format!(
            "SELECT {key}, last_updated_timestamp, {message} FROM {table} WHERE project_id = ? AND {key} IN ({}){}",
            marks(names.len()),
            dialect.for_update
        );
        let parameters = std::iter::once(project).chain(names.iter().map(String::as_str)).map(Value::text);
        for mut row in session.query(&sql, parameters.collect()).await? {
            present.insert(row.text()?, Present { time: row.integer()?, message: row.bytes()? });
        }
    }
    Ok(present)
}

/// Deletes the rows of a project; returns what they were.
async fn delete_project(
    session: &mut dyn Session,
    dialect: &Dialect,
    place: usize,
    project: &str,
) -> Result<Vec<(Key, Present)>> {
    let ObjectTable { name: table, key, message, .. } = &OBJECT_TABLES[place];
    let sql = format!(
        "SELECT {key}, last_updated_timestamp, {message} FROM {table} WHERE project_id = ?{}",
        dialect.for_update
    );
    let mut deleted = Vec::new();
    for mut row in session.query(&sql, vec![Value::text(project)]).await? {
        let key = (project.to_owned(), row.text()?);
        deleted.push((key, Present { time: row.integer()?, message: row.bytes()? }));
    }
    session.execute(&format!("DELETE FROM {table} WHERE project_id = ?"), vec![Value::text(project)]).await?;
    Ok(deleted)
}

/// Inserts rows, or updates those that are there. What a Feast client inserted meanwhile is a conflict.
async fn put_rows(
    session: &mut dyn Session,
    dialect: &Dialect,
    table: &ObjectTable,
    project: &str,
    rows: &[(String, i64, Vec<u8>)],
    update: bool,
) -> Result<()> {
    let ObjectTable { key, message, .. } = table;
    let primary_key: &[&str] =
        if table.kind == Some(ObjectKind::Project) { &["project_id"] } else { &[key, "project_id"] };
    let head = format!("INSERT INTO {} ({key}, project_id, last_updated_timestamp, {message}) VALUES ", table.name);
    let tail =
        if update { dialect.or_update(primary_key, &["last_updated_timestamp", message]) } else { String::new() };
    let rows = rows.iter().map(|(name, time, message)| {
        [Value::text(name), Value::text(project), Value::Integer(*time), Value::Bytes(message.clone())]
    });
    insert(session, dialect, &head, &tail, rows.collect()).await
}

/// Inserts rows in as few statements as servers take.
pub(super) async fn insert<const N: usize>(
    session: &mut dyn Session,
    dialect: &Dialect,
    head: &str,
    tail: &str,
    rows: Vec<[Value; N]>,
) -> Result<()> {
    let mut parameters = Vec::new();
    let mut bytes = 0;
    let n_rows = rows.len();
    for (number, row) in rows.into_iter().enumerate() {
        for value in &row {
            bytes += if let Value::Bytes(value) = value { value.len() } else { 0 };
        }
        parameters.extend(row);
        let full = bytes > MOST_BYTES || parameters.len() + N > dialect.most_parameters;
        if full || number + 1 == n_rows {
            let values = vec![format!("({})", marks(N)); parameters.len() / N].join(", ");
            session.execute(&format!("{head}{values}{tail}"), std::mem::take(&mut parameters)).await?;
            bytes = 0;
        }
    }
    Ok(())
}

/// Writes a row of `feast_metadata`; one that is there stays, unless it is to be replaced.
async fn put_metadata(
    session: &mut dyn Session,
    dialect: &Dialect,
    project: &str,
    key: &str,
    value: &str,
    now: i64,
    replace: bool,
) -> Result<()> {
    let columns: &[&str] =
        if replace { &["metadata_value", "last_updated_timestamp"] } else { &["last_updated_timestamp"] };
    let head =
        format!("INSERT INTO {METADATA} (project_id, metadata_key, metadata_value, last_updated_timestamp) VALUES ");
    let tail = dialect.or_update(&["project_id", "metadata_key"], columns);
    let row = [Value::text(project), Value::text(key), Value::text(value), Value::Integer(now)];
    insert(session, dialect, &head, &tail, vec![row]).await
}

async fn write_history(
    registry: &SqlRegistry,
    session: &mut dyn Session,
    dialect: &Dialect,
    changes: &RegistryChanges,
    number: i64,
    commit_id: &str,
    revisions: Vec<Revision>,
) -> Result<()> {
    let committed = Utc::now().timestamp_micros();
    let head = format!(
        "INSERT INTO {HISTORY} (version, item, commit_id, project_id, author, committed, kind, name, before_proto, \
         after_proto) VALUES "
    );
    let bytes = |message: Option<Vec<u8>>| message.map_or(Value::Null, Value::Bytes);
    let rows = revisions.into_iter().enumerate().map(|(item, revision)| {
        [
            Value::Integer(number),
            Value::Integer(item as i64),
            Value::text(commit_id),
            Value::text(&changes.project),
            Value::text(changes.author_or(&registry.author)),
            Value::Integer(committed),
            Value::text(revision.kind),
            Value::Text(revision.name),
            bytes(revision.before),
            bytes(revision.after),
        ]
    });
    insert(session, dialect, &head, "", rows.collect()).await?;
    let sql = format!("DELETE FROM {HISTORY} WHERE version <= ?");
    if number % 100 == 0 {
        session.execute(&sql, vec![Value::Integer(number - KEPT_COMMITS)]).await?;
    }
    Ok(())
}
