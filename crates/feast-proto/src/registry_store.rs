//! Messages of the service beside Feast's by which our clients use a registry server of ours as if it were the store
//! behind it: whole commits on top of a version, which Feast's service has no words for.

use feast_core::{
    CommitRecord, Error, ObjectKind, ObjectRef, ObjectRevision, RegistryChange, RegistryChanges, RegistryVersion,
    Result,
};
use prost::{Message, Oneof};

use crate::{
    core, decode_object, encode_object, managed_table_message, table_from_message, time, version_from_message,
    version_message,
};

/// Full name of the service. Its methods are `Version`, `Load`, `Commit`, `Teardown` and `History`.
pub const REGISTRY_STORE_SERVICE: &str = "feast_rs.registry.RegistryStore";

/// The stored version; none when there is no registry.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Version {
    #[prost(string, optional, tag = "1")]
    pub version: Option<String>,
}

/// What the client has already.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct LoadRequest {
    #[prost(string, optional, tag = "1")]
    pub known: Option<String>,
}

/// The whole registry; or, with a `base`, what differs from that version.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Loaded {
    #[prost(string, optional, tag = "1")]
    pub version: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub registry: Option<core::Registry>,
    #[prost(string, optional, tag = "3")]
    pub base: Option<String>,
    #[prost(message, repeated, tag = "4")]
    pub gone: Vec<Gone>,
    #[prost(message, repeated, tag = "5")]
    pub gone_versions: Vec<GoneVersion>,
    /// Whether the records of tables in `registry` replace the known ones.
    #[prost(bool, tag = "6")]
    pub tables_changed: bool,
}

/// An object that is not there any more; a project with all that was in it.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Gone {
    #[prost(string, tag = "1")]
    pub project: String,
    #[prost(message, optional, tag = "2")]
    pub object: Option<Object>,
}

/// An older definition that is not there any more.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct GoneVersion {
    #[prost(string, tag = "1")]
    pub project: String,
    #[prost(string, tag = "2")]
    pub feature_view: String,
    #[prost(int32, tag = "3")]
    pub version_number: i32,
}

/// Changes to one project on top of a version.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Commit {
    #[prost(string, optional, tag = "1")]
    pub base: Option<String>,
    #[prost(string, tag = "2")]
    pub project: String,
    #[prost(message, repeated, tag = "3")]
    pub changes: Vec<Change>,
    /// Who makes them; none of clients that do not say.
    #[prost(string, optional, tag = "4")]
    pub author: Option<String>,
}

/// One change.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Change {
    #[prost(oneof = "ChangeKind", tags = "1, 2, 3, 4, 5, 6")]
    pub change: Option<ChangeKind>,
}

/// The kinds of changes.
#[derive(Clone, PartialEq, Oneof)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ChangeKind {
    #[prost(message, tag = "1")]
    Put(Object),
    #[prost(message, tag = "2")]
    Delete(Object),
    #[prost(message, tag = "3")]
    PutVersion(core::FeatureViewVersionRecord),
    #[prost(string, tag = "4")]
    DeleteVersions(String),
    #[prost(message, tag = "5")]
    PutManagedTable(core::InfraObject),
    #[prost(string, tag = "6")]
    DeleteManagedTable(String),
}

/// An object by kind, and by name or as its message.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Object {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bytes = "vec", tag = "3")]
    pub message: Vec<u8>,
}

/// Which commits are asked for.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct HistoryRequest {
    #[prost(string, tag = "1")]
    pub project: String,
    #[prost(uint64, tag = "2")]
    pub after: u64,
    #[prost(uint64, tag = "3")]
    pub most: u64,
}

/// Commits, oldest first.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct History {
    #[prost(message, repeated, tag = "1")]
    pub commits: Vec<PastCommit>,
}

/// One commit.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PastCommit {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(string, tag = "2")]
    pub project: String,
    #[prost(string, tag = "3")]
    pub author: String,
    #[prost(message, optional, tag = "4")]
    pub time: Option<prost_types::Timestamp>,
    #[prost(message, repeated, tag = "5")]
    pub revisions: Vec<Revision>,
}

/// One object before and after a commit.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Revision {
    #[prost(message, optional, tag = "1")]
    pub object: Option<Object>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub before: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub after: Option<Vec<u8>>,
}

/// The message of a commit by a client that `opener` runs.
pub fn commit_message(base: Option<&RegistryVersion>, changes: &RegistryChanges, opener: &str) -> Commit {
    let project = changes.project.as_str();
    let one = |change: &RegistryChange| match change {
        RegistryChange::Put(object) => {
            ChangeKind::Put(Object { message: encode_object(object, project), ..named(&object.reference()) })
        }
        RegistryChange::Delete(object) => ChangeKind::Delete(named(object)),
        RegistryChange::PutVersion(record) => ChangeKind::PutVersion(version_message(record)),
        RegistryChange::DeleteVersions(view) => ChangeKind::DeleteVersions(view.clone()),
        RegistryChange::PutManagedTable(table) => ChangeKind::PutManagedTable(managed_table_message(table)),
        RegistryChange::DeleteManagedTable(name) => ChangeKind::DeleteManagedTable(name.clone()),
    };
    Commit {
        base: base.map(|version| version.0.clone()),
        project: project.to_owned(),
        changes: changes.changes.iter().map(|change| Change { change: Some(one(change)) }).collect(),
        author: Some(changes.author_or(opener)).filter(|author| !author.is_empty()).map(str::to_owned),
    }
}

/// The base and the changes of a commit.
///
/// # Errors
/// `InvalidRequest` for a change that this version does not know; `CorruptRegistry` for an object that cannot be read.
pub fn commit_from_message(commit: Commit) -> Result<(Option<RegistryVersion>, RegistryChanges)> {
    let unknown = || {
        Error::invalid_request("a commit has a change that this version does not know")
            .with_hint("use the same version of feast-rs on both sides")
    };
    let one = |change: Change| -> Result<RegistryChange> {
        Ok(match change.change.ok_or_else(unknown)? {
            ChangeKind::Put(object) => RegistryChange::Put(decode_object(reference(&object)?.kind, &object.message)?),
            ChangeKind::Delete(object) => RegistryChange::Delete(reference(&object)?),
            ChangeKind::PutVersion(record) => {
                let record = version_from_message(record)?.ok_or_else(unknown)?;
                // Whoever looks at it later must be able to read it.
                record.view()?;
                RegistryChange::PutVersion(record)
            }
            ChangeKind::DeleteVersions(view) => RegistryChange::DeleteVersions(view),
            ChangeKind::PutManagedTable(table) => {
                RegistryChange::PutManagedTable(table_from_message(&table).ok_or_else(unknown)?)
            }
            ChangeKind::DeleteManagedTable(name) => RegistryChange::DeleteManagedTable(name),
        })
    };
    let changes = commit.changes.into_iter().map(one).collect::<Result<_>>()?;
    let changes = RegistryChanges { author: commit.author, ..RegistryChanges::new(commit.project, changes) };
    Ok((commit.base.map(RegistryVersion), changes))
}

/// The message of commits.
pub fn history_message(commits: &[CommitRecord]) -> History {
    let revision = |project: &str, revision: &ObjectRevision| Revision {
        object: Some(named(&revision.object)),
        before: revision.before.as_ref().map(|object| encode_object(object, project)),
        after: revision.after.as_ref().map(|object| encode_object(object, project)),
    };
    let one = |commit: &CommitRecord| PastCommit {
        number: commit.number,
        project: commit.project.clone(),
        author: commit.author.clone(),
        time: time::optional_timestamp_message(Some(commit.time)),
        revisions: commit.revisions.iter().map(|one| revision(&commit.project, one)).collect(),
    };
    History { commits: commits.iter().map(one).collect() }
}

/// The commits of a message.
///
/// # Errors
/// `CorruptRegistry` for an object that cannot be read.
pub fn history_from_message(history: History) -> Result<Vec<CommitRecord>> {
    let one = |commit: PastCommit| -> Result<CommitRecord> {
        let revision = |one: Revision| -> Result<ObjectRevision> {
            let object = reference(&one.object.unwrap_or_default())?;
            let read = |message: Option<Vec<u8>>| message.map(|bytes| decode_object(object.kind, &bytes)).transpose();
            Ok(ObjectRevision { before: read(one.before)?, after: read(one.after)?, object })
        };
        let time = time::timestamp(commit.time).ok().flatten();
        Ok(CommitRecord {
            number: commit.number,
            project: commit.project,
            author: commit.author,
            time: time.ok_or_else(|| Error::invalid_request("a commit of the history has no time"))?,
            revisions: commit.revisions.into_iter().map(revision).collect::<Result<_>>()?,
        })
    };
    history.commits.into_iter().map(one).collect()
}

pub(crate) fn named(object: &ObjectRef) -> Object {
    Object { kind: object.kind.identifier().to_owned(), name: object.name.clone(), message: Vec::new() }
}

pub(crate) fn reference(object: &Object) -> Result<ObjectRef> {
    Ok(ObjectRef::new(object.kind.parse::<ObjectKind>()?, &object.name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use feast_core::{Entity, ManagedTable, RegistryObject, ValueType};

    use super::*;

    #[test]
    fn a_commit_comes_back() {
        let entity = Entity { project: "rides".to_owned(), ..Entity::new("driver", "id", ValueType::Int64) };
        let entity = RegistryObject::Entity(entity.into());
        let table = ManagedTable { class_type: "c".to_owned(), name: "t".to_owned(), path: "/p".to_owned() };
        let changes = vec![
            RegistryChange::Put(entity.clone()),
            RegistryChange::Delete(entity.reference()),
            RegistryChange::DeleteVersions("view".to_owned()),
            RegistryChange::PutManagedTable(table),
            RegistryChange::DeleteManagedTable("t".to_owned()),
        ];
        let changes = RegistryChanges::new("rides", changes);
        let base = RegistryVersion("1".to_owned());
        let message = commit_message(Some(&base), &changes, "ada@laptop");
        let message = Commit::decode(message.encode_to_vec().as_slice()).unwrap();
        let (read_base, read) = commit_from_message(message).unwrap();
        assert_eq!(read_base, Some(base));
        assert_eq!(format!("{:?}", read.changes), format!("{:?}", changes.changes));
        assert_eq!(read.author_or("server"), "ada@laptop");
        let unknown = Commit { changes: vec![Change { change: None }], ..Commit::default() };
        assert!(commit_from_message(unknown).is_err());
    }
}
