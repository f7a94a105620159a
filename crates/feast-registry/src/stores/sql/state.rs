//! What was last read: every row by name, so that a refresh fetches only the rows that changed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use chrono::DateTime;
use feast_core::{
    ManagedTable, ObjectKind, Project, ProjectContents, RegistryObject, RegistrySnapshot, RegistryVersion, Result,
    VersionRecord,
};
use indexmap::IndexMap;

use super::tables::OBJECT_TABLES;

/// Project and name.
pub(super) type Key = (String, String);

/// What tells one state of a table from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Summary {
    pub(super) n_rows: i64,
    pub(super) times: i64,
    pub(super) lengths: i64,
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
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// One state of the registry.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) version: Option<RegistryVersion>,
    /// One per table, in the order of [`OBJECT_TABLES`]; behind them that of the older definitions.
    pub(super) summaries: Vec<Summary>,
    /// One per table, in the order of [`OBJECT_TABLES`].
    pub(super) tables: Vec<BTreeMap<Key, StoredRow>>,
    pub(super) versions: Vec<VersionRecord>,
    projects: IndexMap<String, Arc<ProjectContents>>,
    /// Seconds since the epoch when the rows were read.
    pub(super) read_at: i64,
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

    /// Puts together again what the rows of these projects say. Others stay as they are.
    pub(super) fn rebuild<'a>(&mut self, projects: impl IntoIterator<Item = &'a String>) {
        for project in projects {
            let mut contents: Option<ProjectContents> = None;
            let from = (project.clone(), String::new());
            for table in &self.tables {
                for (_, row) in table.range(from.clone()..).take_while(|((of, _), _)| of == project) {
                    if let Content::Object(object) = &row.content {
                        let contents = contents.get_or_insert_with(|| ProjectContents {
                            project: Project::new(project.as_str()),
                            ..ProjectContents::default()
                        });
                        contents.put(object.clone());
                    }
                }
            }
            match contents {
                Some(contents) => drop(self.projects.insert(project.clone(), Arc::new(contents))),
                None => drop(self.projects.shift_remove(project)),
            }
        }
        self.projects.sort_unstable_keys();
    }

    /// The state for readers.
    pub(super) fn snapshot(&self) -> RegistrySnapshot {
        let times = self.tables.iter().flat_map(BTreeMap::values).map(|row| row.stamp.time);
        let tables = self.tables.last().into_iter().flat_map(BTreeMap::values);
        let managed_tables = tables.flat_map(|row| match &row.content {
            Content::Tables(tables) => tables.clone(),
            Content::Object(_) => Vec::new(),
        });
        let mut snapshot = RegistrySnapshot::default();
        snapshot.version.clone_from(&self.version);
        snapshot.projects.clone_from(&self.projects);
        snapshot.versions.clone_from(&self.versions);
        snapshot.managed_tables = managed_tables.collect();
        snapshot.updated = times.max().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        snapshot
    }
}
