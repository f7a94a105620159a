//! A registry that is stored as a whole: a serialized `feast.core.Registry` in a file or in an object of a bucket.
//!
//! What is stored is looked at before it is believed, and the next state is made from it; how one takes the place of the
//! other is up to the store.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use feast_core::{
    Error, ErrorCode, ObjectKind, RegistryChanges, RegistryObject, RegistrySnapshot, RegistryVersion, Result,
};
use uuid::Uuid;

use super::document::RegistryDocument;
use super::history::RawRevision;
use crate::parallel::map_in_parallel;

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

    /// Everything in it. What `memo` remembers is not read again.
    pub(super) fn snapshot(&self, memo: &Memo, place: &dyn Display) -> Result<RegistrySnapshot> {
        let in_file = |error: Error| error.with_context("file", place);
        let rest = feast_proto::decode_registry(self.document.rest()).map_err(in_file)?;
        let objects = memo.read(self.document.objects()).map_err(in_file)?;
        let mut snapshot = feast_proto::snapshot_from_objects(rest, objects).map_err(in_file)?;
        snapshot.version = Some(self.version());
        Ok(snapshot)
    }
}

/// The objects that were read last, by their messages: of a registry that changed a little, only that is read anew.
#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<HashMap<Message, RegistryObject>>);

/// The message of an object.
type Message = (ObjectKind, Bytes);

impl Memo {
    /// The objects in these messages, which are remembered in the place of those before them.
    fn read(&self, messages: Vec<Message>) -> Result<Vec<RegistryObject>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |message: Message| {
            let object = match known.get(&message) {
                Some(object) => object.clone(),
                None => feast_proto::decode_object(message.0, &message.1)?,
            };
            Ok((message, object))
        };
        let read = map_in_parallel(messages, read)?;
        let objects = read.iter().map(|(_, object)| object.clone()).collect();
        *known = read.into_iter().collect();
        Ok(objects)
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
        let revisions = document.apply(changes, &Uuid::new_v4().to_string());
        let version = RegistryVersion(Uuid::new_v4().to_string());
        document.set_version(&version, SystemTime::now());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use feast_core::{Entity, ObjectKind, ObjectRef, RegistryChange, RegistryObject, ValueType};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const FEAST_REGISTRY: &[u8] = include_bytes!("../../../../tests/formats/registry/feast-0.67.0.pb");

    /// Whatever is stored: it is read, or said to be damaged; and a commit to what was taken apart makes a registry that
    /// can be taken apart again.
    fn is_read_or_refused(bytes: Vec<u8>) {
        let stored = match Stored::parse(bytes.into(), &"the file") {
            Ok(stored) => stored,
            Err(error) => return assert_eq!(error.code(), ErrorCode::CorruptRegistry, "{error}"),
        };
        if let Err(error) = stored.snapshot(&Memo::default(), &"the file") {
            assert_eq!(error.code(), ErrorCode::CorruptRegistry, "{error}");
        }
        let entity = Entity::new("new", "new", ValueType::Int64);
        let changes = vec![
            RegistryChange::Put(RegistryObject::Entity(entity.into())),
            RegistryChange::Delete(ObjectRef::new(ObjectKind::FeatureView, "stats")),
            RegistryChange::DeleteVersions("stats".to_owned()),
            RegistryChange::DeleteManagedTable("rides_stats".to_owned()),
        ];
        let changes = RegistryChanges::new("rides", changes);
        let next = Next::make(Some(&stored), Some(&stored.version()), &changes, &"the file").unwrap();
        let again = Stored::parse(next.stored.bytes().clone(), &"the file").unwrap();
        assert_eq!(again.version(), next.version);
        // What was damaged may have been replaced; what was whole stays so.
        assert!(
            again.snapshot(&Memo::default(), &"the file").is_ok()
                || stored.snapshot(&Memo::default(), &"the file").is_err()
        );
    }

    #[test]
    fn a_registry_that_was_cut_anywhere_is_read_or_refused() {
        // At most places the cut is noticed; where an object ends, nothing tells that another came.
        (0..FEAST_REGISTRY.len()).for_each(|length| is_read_or_refused(FEAST_REGISTRY[..length].to_vec()));
    }

    #[test]
    fn nesting_and_lengths_that_are_out_of_bounds_are_refused() {
        let mut nested = Vec::new();
        for _ in 0..10_000 {
            let mut outer = vec![0x0a];
            prost::encoding::encode_varint(nested.len() as u64, &mut outer);
            outer.append(&mut nested);
            nested = outer;
        }
        let header = b"\x1a\x011";
        is_read_or_refused([header, nested.as_slice()].concat());
        for length in [u64::MAX, u64::from(u32::MAX), i64::MAX as u64] {
            let mut claimed = header.to_vec();
            claimed.push(0x32);
            prost::encoding::encode_varint(length, &mut claimed);
            assert!(Stored::parse(claimed.into(), &"the file").is_err());
        }
        // Groups, which nobody writes any more, opened and never closed.
        is_read_or_refused([header, [0x33_u8; 10_000].as_slice()].concat());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bits_that_tipped_over_are_read_or_refused(flips in vec((any::<Index>(), 0_u8..8), 1..8)) {
            let mut bytes = FEAST_REGISTRY.to_vec();
            flips.iter().for_each(|(at, bit)| bytes[at.index(FEAST_REGISTRY.len())] ^= 1 << bit);
            is_read_or_refused(bytes);
        }

        #[test]
        fn pieces_that_were_moved_are_read_or_refused(
            pieces in vec((any::<Index>(), 0_usize..400), 1..6), foreign in vec(any::<u8>(), 0..40), at in any::<Index>(),
        ) {
            let mut bytes = FEAST_REGISTRY.to_vec();
            for (from, length) in pieces {
                let from = from.index(bytes.len());
                let piece: Vec<u8> = bytes[from..(from + length).min(bytes.len())].to_vec();
                let at = at.index(bytes.len());
                bytes.splice(at..at, piece);
            }
            let at = at.index(bytes.len());
            bytes.splice(at..at, foreign);
            is_read_or_refused(bytes);
        }

        #[test]
        fn foreign_bytes_are_read_or_refused(tail in vec(any::<u8>(), 0..200)) {
            is_read_or_refused(tail.clone());
            is_read_or_refused([b"\x1a\x011".as_slice(), &tail].concat());
        }
    }
}
