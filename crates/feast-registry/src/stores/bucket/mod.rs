//! The registry as one object in a bucket of S3 (`s3://bucket/key`) or Google Cloud Storage (`gs://bucket/key`), in
//! Feast's layout: a serialized `feast.core.Registry`.
//!
//! **Commit.** The object is replaced under the condition that it still is the one that was read (`If-Match` with its
//! ETag, or its generation); a new one is made under the condition that there is none. Whoever loses the race gets a
//! conflict and starts over. When the answer to a write is lost, the object is read again: if it has the version that
//! was written, the commit stands. Feast itself writes without condition: a client of Feast that read before a commit
//! and writes after it takes the commit back.
//!
//! **Refresh.** The object is asked for under the condition that it changed, so a refresh without changes reads
//! nothing.
//!
//! **History.** One object per commit in `<key>.history/`; their numbers are handed on in the metadata of the registry.
//!
//! **Rights.** Reading needs the right to get the object, and nothing else.

mod history;
mod options;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use feast_core::{
    CommitRecord, Error, ErrorCode, RegistryChanges, RegistryHistory, RegistrySnapshot, RegistryStore, RegistryVersion,
    Result,
};
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, Error as Cause, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, TagSet,
    UpdateVersion,
};

use self::history::BucketHistory;
use super::RegistrySettings;
use super::whole::{Memo, Next, Stored, conflict};

/// The metadata that holds the number of the last commit.
const NUMBER: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("feast-rs-commit"));

/// A registry in a bucket.
pub struct BucketRegistry {
    store: Arc<dyn ObjectStore>,
    key: Key,
    /// `s3://bucket/key`.
    url: String,
    author: String,
    attributes: Attributes,
    tags: TagSet,
    /// What was read or written last.
    known: Mutex<Option<Arc<Known>>>,
    memo: Arc<Memo>,
}

/// An object that is or was the registry.
struct Known {
    object: UpdateVersion,
    stored: Stored,
    /// `None` when a client of Feast wrote it.
    number: Option<u64>,
}

/// Connects the object that the configuration names. Nothing is requested yet.
pub(super) fn connect(settings: &RegistrySettings<'_>) -> Result<Arc<dyn RegistryStore>> {
    let object = options::open(settings.path, settings.options)?;
    Ok(Arc::new(BucketRegistry {
        store: object.store,
        key: object.key,
        url: settings.path.to_owned(),
        author: settings.author.to_owned(),
        attributes: object.attributes,
        tags: object.tags,
        known: Mutex::default(),
        memo: Arc::default(),
    }))
}

impl fmt::Debug for BucketRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BucketRegistry").field(&self.url).finish()
    }
}

impl fmt::Display for BucketRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry file `{}`", self.url)
    }
}

#[async_trait]
impl RegistryStore for BucketRegistry {
    async fn load(&self) -> Result<RegistrySnapshot> {
        let Some(known) = self.fetch().await? else { return Ok(RegistrySnapshot::default()) };
        let (url, memo) = (self.url.clone(), Arc::clone(&self.memo));
        tokio::task::spawn_blocking(move || known.stored.snapshot(&memo, &url))
            .await
            .map_err(|error| Error::internal("decoding the registry failed").with_source(error))?
    }

    async fn commit(&self, base: Option<&RegistryVersion>, changes: &RegistryChanges) -> Result<RegistryVersion> {
        let found = self.fetch().await?;
        let next = Next::make(found.as_ref().map(|known| &known.stored), base, changes, &self.url)?;
        let history = self.history_objects();
        let last = match found.as_ref().and_then(|known| known.number) {
            Some(number) => Ok(number),
            None => history.last_number().await,
        };
        // Whoever may not list objects commits without history; a number that is only unknown must not be given twice.
        let number = match last {
            Ok(last) => Some(last + 1),
            Err(cause) if is_refusal(&cause) => None,
            Err(cause) => return Err(self.failed(cause)),
        };
        let mut attributes = self.attributes.clone();
        if let Some(number) = number {
            attributes.insert(NUMBER, number.to_string().into());
        }
        let mode = found.map_or(PutMode::Create, |known| PutMode::Update(known.object.clone()));
        let options = PutOptions { mode, attributes, tags: self.tags.clone(), ..PutOptions::default() };
        let bytes = Bytes::clone(next.stored.bytes());
        match self.store.put_opts(&self.key, bytes.into(), options).await {
            Ok(put) => {
                let object = UpdateVersion { e_tag: put.e_tag, version: put.version };
                self.remember(Some(Arc::new(Known { object, stored: next.stored, number })));
            }
            Err(Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. }) => return Err(self.read_only()),
            Err(cause) => {
                // A request that was tried again meets its own first attempt.
                let current = self.fetch().await?.map(|known| known.stored.version());
                if current.as_ref() != Some(&next.version) {
                    return Err(match cause {
                        Cause::Precondition { .. } | Cause::AlreadyExists { .. } => {
                            conflict(&self.url, base, current.as_ref())
                        }
                        cause => self.failed(cause),
                    });
                }
            }
        }
        // The commit stands, whatever becomes of its history.
        let author = changes.author_or(&self.author);
        let added = match number {
            Some(number) => history.add(number, &next.version, &changes.project, author, &next.revisions).await,
            None => {
                tracing::warn!(
                    registry = self.url,
                    "a commit is missing in the history: its objects may not be listed"
                );
                Ok(())
            }
        };
        if let Err(error) = added {
            tracing::warn!(registry = self.url, %error, "a commit is missing in the history");
        }
        Ok(next.version)
    }

    async fn version(&self) -> Result<Option<RegistryVersion>> {
        Ok(self.fetch().await?.map(|known| known.stored.version()))
    }

    async fn teardown(&self) -> Result<()> {
        match self.store.delete(&self.key).await {
            Ok(()) | Err(Cause::NotFound { .. }) => {}
            Err(Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. }) => return Err(self.read_only()),
            Err(cause) => return Err(self.failed(cause)),
        }
        self.remember(None);
        self.history_objects().remove().await.map_err(|cause| self.failed(cause))
    }

    fn history(&self) -> Option<&dyn RegistryHistory> {
        Some(self)
    }
}

#[async_trait]
impl RegistryHistory for BucketRegistry {
    async fn commits(&self, project: &str, after: u64, most: usize) -> Result<Vec<CommitRecord>> {
        let refused = |cause: Cause| match is_refusal(&cause) {
            true => Error::new(
                ErrorCode::PermissionDenied,
                format!("the history of registry file `{}` may not be read with these credentials", self.url),
            )
            .with_hint("give them the right to list the bucket and to get the objects of the history"),
            false => self.failed(cause),
        };
        let lines = self.history_objects().read(project, after, most).await.map_err(refused)?;
        lines.iter().map(|(number, line)| super::history::commit(line, *number)).collect()
    }
}

impl BucketRegistry {
    /// The object as it is now; `None` when there is none.
    async fn fetch(&self) -> Result<Option<Arc<Known>>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let if_none_match = known.as_ref().and_then(|known| known.object.e_tag.clone());
        let read = async {
            let got = self.store.get_opts(&self.key, GetOptions { if_none_match, ..GetOptions::default() }).await?;
            let object = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
            let number = got.attributes.get(&NUMBER).and_then(|number| number.parse().ok());
            Ok((object, number, got.bytes().await?))
        };
        match read.await {
            Ok((object, number, bytes)) => {
                let stored = Stored::parse(bytes, &self.url)?;
                let known = Arc::new(Known { object, stored, number });
                self.remember(Some(Arc::clone(&known)));
                Ok(Some(known))
            }
            Err(Cause::NotModified { .. }) if known.is_some() => Ok(known),
            Err(Cause::NotFound { source, .. }) => {
                // A bucket that is misspelled is no empty registry.
                if source.to_string().contains("NoSuchBucket") {
                    return Err(self.no_bucket());
                }
                self.remember(None);
                Ok(None)
            }
            Err(cause) => Err(self.failed(cause)),
        }
    }

    fn remember(&self, known: Option<Arc<Known>>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn history_objects(&self) -> BucketHistory<'_> {
        BucketHistory { store: &*self.store, folder: Key::from(format!("{}.history", self.key)) }
    }

    /// What the cloud says is not repeated here either.
    fn read_only(&self) -> Error {
        Error::new(
            ErrorCode::ReadOnlyRegistry,
            format!("registry file `{}` is read-only for these credentials", self.url),
        )
        .with_hint("give them the right to put and delete objects, or run the command where others are set")
    }

    fn no_bucket(&self) -> Error {
        Error::invalid_configuration(format!("registry file `{}` is in a bucket that does not exist", self.url))
            .with_hint("correct `registry` in feature_store.yaml, or create the bucket")
    }

    /// What a cloud has against a request. What it says about credentials is not repeated: it may hold parts of them.
    fn failed(&self, cause: Cause) -> Error {
        let text = cause.to_string();
        let place = format!("registry file `{}`", self.url);
        if is_refusal(&cause) || text.contains("AccessKey") || text.contains("Signature") {
            return Error::new(ErrorCode::PermissionDenied, format!("access to {place} was refused")).with_hint(
                "check that the object exists, the credentials in the environment and the rights of their owner",
            );
        }
        match cause {
            Cause::NotFound { .. } => self.no_bucket(),
            // Whoever was asked for credentials has said it already.
            Cause::Generic { source, .. } if source.is::<Error>() => match source.downcast::<Error>() {
                Ok(error) => error.with_context("registry file", &self.url),
                Err(source) => Error::unavailable(format!("{place} could not be reached")).with_source(source),
            },
            cause => Error::unavailable(format!("{place} could not be reached"))
                .with_source(cause)
                .with_hint("check the endpoint, the region and the network; then run it again"),
        }
    }
}

/// Whether a right is missing. Of lists the library says that in its text only.
fn is_refusal(cause: &Cause) -> bool {
    matches!(cause, Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. })
        || cause.to_string().contains("403 Forbidden")
}
