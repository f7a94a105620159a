//! The history of a registry in a bucket: one object per commit, named after its number, project and version.
//!
//! The names sort as the commits came, and tell which objects have to be read. Old ones are removed.

use feast_core::RegistryVersion;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, Result};
use serde_json::Value;

use crate::stores::history::{RawRevision, line};

/// Commits that are kept, at least.
const KEPT: u64 = 5_000;
/// Every so many commits, older ones are removed.
const SWEEP: u64 = 500;
const AT_ONCE: usize = 16;
/// Length of the versions that this product gives.
const VERSION_LENGTH: usize = 36;

/// The objects below a folder.
pub(super) struct BucketHistory<'a> {
    pub(super) store: &'a dyn ObjectStore,
    pub(super) folder: Key,
}

impl BucketHistory<'_> {
    /// Adds a commit.
    pub(super) async fn add(
        &self,
        number: u64,
        version: &RegistryVersion,
        project: &str,
        author: &str,
        revisions: &[RawRevision],
    ) -> Result<()> {
        if revisions.is_empty() {
            return Ok(());
        }
        let key = self.folder.clone().join(format!("{number:012}-{project}-{version}.json"));
        let line = line(number, project, author, revisions).to_string();
        self.store.put(&key, line.into()).await?;
        if number.is_multiple_of(SWEEP) {
            let old = self.keys(0).await?.into_iter().filter(|key| number_of(key).is_some_and(|of| of + KEPT < number));
            self.delete(old.collect()).await?;
        }
        Ok(())
    }

    /// The number of the newest commit; 0 when there is none.
    pub(super) async fn last_number(&self) -> Result<u64> {
        Ok(self.keys(0).await?.last().and_then(number_of).unwrap_or_default())
    }

    /// The commits to a project with numbers above `after`, of them the newest `most`, oldest first.
    pub(super) async fn read(&self, project: &str, after: u64, most: usize) -> Result<Vec<(u64, Value)>> {
        // A key has some characters of names in another form.
        let project = Key::from(project.to_owned()).to_string();
        let mut keys = self.keys(after).await?;
        keys.retain(|key| project_of(key) == Some(&project));
        keys.drain(..keys.len().saturating_sub(most));
        let lines = stream::iter(keys).map(|key| async move {
            let bytes = self.store.get(&key).await?.bytes().await?;
            let Some(number) = number_of(&key) else { return Ok(None) };
            let line = serde_json::from_slice(&bytes).map_err(|error| object_store::Error::Generic {
                store: "history",
                source: format!("`{key}` is no record of a commit: {error}").into(),
            })?;
            Ok::<_, object_store::Error>(Some((number, line)))
        });
        let lines: Vec<Option<(u64, Value)>> = lines.buffered(AT_ONCE).try_collect().await?;
        Ok(lines.into_iter().flatten().collect())
    }

    /// Removes all of it.
    pub(super) async fn remove(&self) -> Result<()> {
        self.delete(self.keys(0).await?).await
    }

    async fn delete(&self, keys: Vec<Key>) -> Result<()> {
        let deleted = stream::iter(keys).map(|key| async move {
            match self.store.delete(&key).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                deleted => deleted,
            }
        });
        deleted.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// The objects of commits with numbers above `after`, in order.
    async fn keys(&self, after: u64) -> Result<Vec<Key>> {
        let offset = self.folder.clone().join(format!("{:012}", after.saturating_add(1)));
        let found = self.store.list_with_offset(Some(&self.folder), &offset);
        let mut keys: Vec<Key> = found.map_ok(|object| object.location).try_collect().await?;
        // Not every server knows of offsets, and other objects may lie here.
        keys.retain(|key| number_of(key).is_some_and(|number| number > after));
        keys.sort();
        Ok(keys)
    }
}

fn number_of(key: &Key) -> Option<u64> {
    key.filename()?.split_once('-')?.0.parse().ok()
}

fn project_of(key: &Key) -> Option<&str> {
    let (_, rest) = key.filename()?.strip_suffix(".json")?.split_once('-')?;
    rest.get(..rest.len().checked_sub(VERSION_LENGTH + 1)?)
}
