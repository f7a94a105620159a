//! A registry that is stored as a whole: a serialized `feast.core.Registry` in a file or in an object of a bucket.
//!
//! What is stored is looked at before it is believed, and the next state is made from it; how one takes the place of the
//! other is up to the store.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::SystemTime;

use bytes::Bytes;
use feast_core::{Error, ErrorCode, RegistryChanges, RegistrySnapshot, RegistryVersion, Result};
use uuid::Uuid;

use super::document::RegistryDocument;
use super::history::RawRevision;

/// A registry as it is stored.
#[derive(Debug)]
pub(super) struct Stored {
    bytes: Bytes,
    document: RegistryDocument,
}

impl Stored {
    /// The registry in these bytes, which were found at `place`. Only its outline is looked at.
    pub(super) fn parse(bytes: Bytes, place: &dyn Display) -> Result<Self> {
        let corrupt = |message: String| {
            Error::new(ErrorCode::CorruptRegistry, message).with_hint(
                "restore the file from a backup, or remove it and run `feast apply` in the feature repository to make \
                 it again",
            )
        };
        if bytes.is_empty() {
            return Err(corrupt(format!("registry file `{place}` is empty")));
        }
        let document = RegistryDocument::parse(&bytes).ok_or_else(|| {
            corrupt(format!(
                "`{place}` is not a registry file, or it is truncated: its {} bytes make no sense",
                bytes.len()
            ))
        })?;
        match document.schema_version().as_str() {
            feast_proto::REGISTRY_SCHEMA_VERSION => Ok(Self { bytes, document }),
            "" => Err(corrupt(format!("`{place}` is not a registry file: it has no schema version"))),
            other => Err(Error::new(
                ErrorCode::CorruptRegistry,
                format!("registry file `{place}` has schema version `{other}`, expected `1`"),
            )
            .with_hint("read it with the release that wrote it")),
        }
    }

    /// The bytes as they are stored.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The `version_id`. A registry without one is named by its bytes.
    pub(super) fn version(&self) -> RegistryVersion {
        let id = self.document.version_id();
        if !id.is_empty() {
            return RegistryVersion(id);
        }
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        RegistryVersion(format!("bytes-{:016x}", hasher.finish()))
    }

    /// Everything in it.
    pub(super) fn snapshot(&self, place: &dyn Display) -> Result<RegistrySnapshot> {
        let in_file = |error: Error| error.with_context("file", place);
        let registry = feast_proto::decode_registry(&self.bytes).map_err(in_file)?;
        let mut snapshot = feast_proto::snapshot_from_registry(&registry).map_err(in_file)?;
        snapshot.version = Some(self.version());
        Ok(snapshot)
    }
}

/// The state after a commit, and what the commit changed.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) version: RegistryVersion,
    pub(super) stored: Stored,
    pub(super) revisions: Vec<RawRevision>,
}

impl Next {
    /// Applies changes to what is stored, which must be the version they are based on.
    pub(super) fn make(
        stored: Option<&Stored>,
        base: Option<&RegistryVersion>,
        changes: &RegistryChanges,
        place: &dyn Display,
    ) -> Result<Self> {
        let current = stored.map(Stored::version);
        if current.as_ref() != base {
            return Err(conflict(place, base, current.as_ref()));
        }
        let mut document = stored.map(|stored| stored.document.clone()).unwrap_or_default();
        let before = document.named(changes);
        document.apply(changes, &Uuid::new_v4().to_string());
        let mut after = document.named(changes);
        let version = RegistryVersion(Uuid::new_v4().to_string());
        document.set_version(&version, SystemTime::now());
        let revisions = before
            .into_iter()
            .map(|(object, before)| {
                let after = after.remove(&object).flatten();
                RawRevision { object, before: before.map(Vec::from), after: after.map(Vec::from) }
            })
            .filter(|revision| revision.before != revision.after)
            .collect();
        Ok(Self { version, stored: Stored { bytes: document.encode().into(), document }, revisions })
    }
}

/// Somebody else was faster.
pub(super) fn conflict(place: &dyn Display, base: Option<&RegistryVersion>, found: Option<&RegistryVersion>) -> Error {
    let name = |version: Option<&RegistryVersion>| version.map_or("none".to_owned(), ToString::to_string);
    Error::new(ErrorCode::Conflict, format!("registry file `{place}` was changed by somebody else since it was read"))
        .with_context("expected version", name(base))
        .with_context("found", name(found))
        .with_hint("read the registry again and repeat the change")
}
