//! What was last read: every row by name, so that a refresh fetches only the rows that changed, and readers keep the
//! objects that did not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::DateTime;
use feast_core::{
    ManagedTable, ObjectKind, ObjectRef, Project, ProjectContents, RegistryObject, RegistrySnapshot, RegistryVersion,
    Result, VersionRecord,
};
use indexmap::IndexMap;

use super::database::Seen;
use super::refresh::Standing;
use super::tables::OBJECT_TABLES;
use super::versions::{ChangedVersions, StoredVersion, VersionKey};

/// Project and name.
pub(super) type Key = (String, String);

/// What tells one state of a table from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Summary {
    pub(super) n_rows: i64,
    pub(super) times: i64,
    pub(super) lengths: i64,
}

impl Summary {
    /// The summary of the table with one row replaced, added or removed.
    pub(super) fn replace(&mut self, before: Option<Stamp>, after: Option<Stamp>) {
        for (stamp, sign) in before.map(|stamp| (stamp, -1)).into_iter().chain(after.map(|stamp| (stamp, 1))) {
            self.n_rows += sign;
            self.times += sign * stamp.time;
            self.lengths += sign * stamp.length;
        }
    }
}

/// What tells one state of a row from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) time: i64,
    pub(super) length: i64,
}

/// A row of a table with objects.
#[derive(Debug, Clone)]
pub(super) struct StoredRow {
    pub(super) stamp: Stamp,
    /// Of the bytes of the message.
    pub(super) digest: u64,
    pub(super) content: Content,
}

/// What the message of a row says.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Object(RegistryObject),
    Tables(Vec<ManagedTable>),
}

impl StoredRow {
    /// Reads a message.
    ///
    /// # Errors
    /// `CorruptRegistry`, naming the object.
    pub(super) fn read(kind: Option<ObjectKind>, time: i64, message: &[u8]) -> Result<Self> {
        let content = match kind {
            Some(kind) => Content::Object(feast_proto::decode_object(kind, message)?),
            None => Content::Tables(feast_proto::managed_tables(message)?),
        };
        Ok(Self { stamp: Stamp { time, length: message.len() as i64 }, digest: digest(message), content })
    }
}

/// A short name of some bytes.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, bytes)
}

/// One state of the registry.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) version: Option<RegistryVersion>,
    /// One per table, in the order of [`OBJECT_TABLES`]; behind them that of the older definitions.
    pub(super) summaries: Vec<Summary>,
    /// One per table, in the order of [`OBJECT_TABLES`].
    pub(super) tables: Vec<BTreeMap<Key, StoredRow>>,
    pub(super) versions: BTreeMap<VersionKey, StoredVersion>,
    /// Seconds since the epoch when it was the database's.
    pub(super) read_at: i64,
    /// What the session saw then that read it.
    pub(super) seen: Option<Seen>,
    /// The number of our commits.
    commits: i64,
    /// What readers get of all this.
    shown: Shown,
}

#[derive(Debug, Default)]
struct Shown {
    projects: IndexMap<String, Arc<ProjectContents>>,
    versions: Arc<Vec<Arc<VersionRecord>>>,
    managed_tables: Arc<Vec<ManagedTable>>,
    /// Seconds since the epoch of the youngest row.
    updated: Option<i64>,
}

/// What differs between two states.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// The rows by place of their table; `None` for rows that are gone.
    pub(super) rows: Vec<(usize, Key, Option<StoredRow>)>,
    /// The older definitions; `None` for those that are gone.
    pub(super) versions: ChangedVersions,
}

impl State {
    /// The state of a registry without rows.
    pub(super) fn empty() -> Self {
        Self {
            summaries: vec![Summary::default(); OBJECT_TABLES.len() + 1],
            tables: vec![BTreeMap::new(); OBJECT_TABLES.len()],
            ..Self::default()
        }
    }

    /// Goes on to the state that differs in this, as it stood at `read_at`.
    pub(super) fn apply(&mut self, difference: Difference, standing: Standing, read_at: i64) {
        let mut touched: BTreeMap<String, Vec<ObjectRef>> = BTreeMap::new();
        let mut new: BTreeSet<String> = BTreeSet::new();
        let mut touched_tables = false;
        for (place, key, row) in difference.rows {
            match OBJECT_TABLES[place].kind {
                Some(_) if new.contains(&key.0) => {}
                Some(_) if !self.shown.projects.contains_key(&key.0) => drop(new.insert(key.0.clone())),
                Some(kind) => touched.entry(key.0.clone()).or_default().push(ObjectRef::new(kind, &key.1)),
                None => touched_tables = true,
            }
            self.shown.updated = self.shown.updated.max(row.as_ref().map(|row| row.stamp.time));
            match row {
                Some(row) => drop(self.tables[place].insert(key, row)),
                None => drop(self.tables[place].remove(&key)),
            }
        }
        for project in new {
            self.show_new_project(project);
        }
        for (project, objects) in touched {
            self.show_project(&project, &objects);
        }
        if touched_tables {
            let rows = self.tables.last().into_iter().flat_map(BTreeMap::values);
            let tables = rows.flat_map(|row| match &row.content {
                Content::Tables(tables) => tables.as_slice(),
                Content::Object(_) => &[],
            });
            self.shown.managed_tables = Arc::new(tables.cloned().collect());
        }
        if !difference.versions.is_empty() {
            for (key, row) in difference.versions {
                match row {
                    Some(row) => drop(self.versions.insert(key, row)),
                    None => drop(self.versions.remove(&key)),
                }
            }
            self.shown.versions = Arc::new(self.versions.values().filter_map(|row| row.record.clone()).collect());
        }
        self.version = Some(standing.version());
        self.commits = standing.commits;
        self.summaries = standing.summaries;
        self.seen = standing.seen;
        self.read_at = read_at;
    }

    /// Shows a project of which nothing was shown: all that the tables have of it. Views of all kinds share their names: of
    /// two with the same, that of the later table counts.
    fn show_new_project(&mut self, project: String) {
        let mut contents = ProjectContents { project: Project::new(&project), ..ProjectContents::default() };
        let mut has_rows = false;
        let start = (project, String::new());
        let tables = self.tables.split_last().map_or(&[][..], |(_, tables)| tables);
        for rows in tables {
            for (_, row) in rows.range(start.clone()..).take_while(|(key, _)| key.0 == start.0) {
                has_rows = true;
                if let Content::Object(object) = &row.content {
                    contents.put(object.clone());
                }
            }
        }
        if has_rows {
            contents.sort();
            self.shown.projects.insert(start.0, Arc::new(contents));
            self.shown.projects.sort_unstable_keys();
        }
    }

    /// Shows these objects of a project as the tables have them now. All of a project's stand in the order of the
    /// tables and, within each, of their names.
    fn show_project(&mut self, project: &str, objects: &[ObjectRef]) {
        let of_project = |table: &BTreeMap<Key, StoredRow>| {
            let mut rows = table.range((project.to_owned(), String::new())..);
            rows.next().is_some_and(|((of, _), _)| of == project)
        };
        let tables = self.tables.split_last().map_or(&[][..], |(_, tables)| tables);
        if !tables.iter().any(of_project) {
            self.shown.projects.shift_remove(project);
            return;
        }
        let Some(contents) = self.shown.projects.get_mut(project).map(Arc::make_mut) else { return };
        for object in objects {
            let key = (project.to_owned(), object.name.clone());
            // Views of all kinds share their names: of two with the same, that of the later table counts.
            let same =
                |kind: ObjectKind| kind == object.kind || kind.is_feature_view() && object.kind.is_feature_view();
            let places = OBJECT_TABLES.iter().zip(tables).filter(|(table, _)| table.kind.is_some_and(same));
            match places.rev().find_map(|(_, rows)| rows.get(&key)).map(|row| &row.content) {
                Some(Content::Object(found)) => contents.put(found.clone()),
                _ => contents.remove(object),
            }
        }
        contents.sort();
    }

    /// Where the tables stood.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.version.as_ref().map(|_| Standing {
            commits: self.commits,
            summaries: self.summaries.clone(),
            seen: self.seen.clone(),
        })
    }

    /// The state for readers.
    pub(super) fn snapshot(&self) -> RegistrySnapshot {
        let mut snapshot = RegistrySnapshot::default();
        snapshot.version.clone_from(&self.version);
        snapshot.projects.clone_from(&self.shown.projects);
        snapshot.versions = Arc::clone(&self.shown.versions);
        snapshot.managed_tables = Arc::clone(&self.shown.managed_tables);
        snapshot.updated = self.shown.updated.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        snapshot
    }
}
