//! Buckets of S3 (`s3://bucket/key`) and Google Cloud Storage (`gs://bucket/key`), used from threads that may block.
//!
//! Credentials, region and endpoint come from the environment, as the tools of the two clouds have them (`AWS_…`,
//! `GOOGLE_…`), or from the machine's role; a source can name another endpoint. Requests are tried again for a minute,
//! with growing pauses of random length. An object is either there as a whole or not there.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use feast_core::{Error, ErrorCode, Result};
use feast_net::{bucket_retries, s3_builder};
use futures::{StreamExt, TryStreamExt};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Key;
use object_store::{
    ClientConfigKey, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion,
    WriteMultipart, coalesce_ranges,
};
use tokio::runtime::Handle;

/// Reads that lie so near to each other are one request.
const COALESCED: u64 = 1 << 20;
/// What is read at a time from a file that is read from one end to the other.
const CHUNK: u64 = 8 << 20;
/// What is read of the end of a Parquet file at first: enough for most footers.
const TAIL: u64 = 64 << 10;
/// Objects larger than this are uploaded in parts of this size, several at once.
const PART: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 4;
const DELETES_AT_ONCE: usize = 16;

/// Whether a path names an object or a folder in a bucket.
pub(crate) fn is_in_bucket(path: &str) -> bool {
    ["s3://", "s3a://", "gs://", "gcs://"].iter().any(|scheme| path.starts_with(scheme))
}

/// A bucket, and the runtime on which its requests run.
#[derive(Clone)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// `s3://name`.
    url: String,
    runtime: Handle,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.url).finish()
    }
}

impl Bucket {
    /// The bucket of a URL, and the key in it. Nothing is requested yet.
    pub(crate) fn of(path: &str, endpoint: &str) -> Result<(Self, String)> {
        let invalid = || {
            Error::invalid_definition(format!("`{path}` does not name a place in a bucket"))
                .with_hint("write `s3://bucket/folder/file.parquet`")
        };
        let (scheme, rest) = path.split_once("://").ok_or_else(invalid)?;
        let (name, key) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() || name.contains(['@', ':']) {
            return Err(invalid());
        }
        let key: Vec<&str> = key.split('/').filter(|part| !part.is_empty()).collect();
        let key = key.join("/");
        // Timeouts (5 seconds to connect, 30 for a request) and all else of the client come from the environment too.
        let store: std::result::Result<Arc<dyn ObjectStore>, _> = if scheme.starts_with('s') {
            s3_builder(name, endpoint).build().map(|store| Arc::new(store) as _)
        } else {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(name).with_retry(bucket_retries());
            if !endpoint.is_empty() {
                let allow_http = GoogleConfigKey::Client(ClientConfigKey::AllowHttp);
                builder = builder
                    .with_config(GoogleConfigKey::BaseUrl, endpoint)
                    .with_config(allow_http, endpoint.starts_with("http://").to_string());
            }
            builder.build().map(|store| Arc::new(store) as _)
        };
        let url = format!("{scheme}://{name}");
        let store = store.map_err(|error| failed(&url, error))?;
        let runtime = Handle::try_current().map_err(|_| Error::internal("buckets are used outside of a runtime"))?;
        Ok((Self { store, url, runtime }, key))
    }

    /// The URL of a key.
    pub(crate) fn url(&self, key: &str) -> PathBuf {
        PathBuf::from(format!("{}/{key}", self.url))
    }

    /// The key of a URL that [`url`](Self::url) made.
    pub(crate) fn key(&self, url: &std::path::Path) -> String {
        let text = url.to_string_lossy();
        text.strip_prefix(&self.url).unwrap_or(&text).trim_start_matches('/').to_owned()
    }

    fn parse(&self, key: &str) -> Result<Key> {
        Key::parse(key).map_err(|error| {
            Error::invalid_definition(format!("`{}/{key}` is not the name of an object", self.url))
                .with_source(error)
                .with_hint("write `s3://bucket/folder/file.parquet`")
        })
    }

    /// The object with exactly this key, if there is one.
    pub(crate) fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        if key.is_empty() {
            return Ok(None);
        }
        match self.runtime.block_on(self.store.head(&self.parse(key)?)) {
            Ok(object) => Ok(Some(object)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&self.url(key).to_string_lossy(), error)),
        }
    }

    /// All objects below a folder, at any depth.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        let prefix = if folder.is_empty() { None } else { Some(self.parse(folder)?) };
        self.runtime
            .block_on(self.store.list(prefix.as_ref()).try_collect())
            .map_err(|error| failed(&self.url(folder).to_string_lossy(), error))
    }

    /// Whether there is any object below a folder.
    pub(crate) fn holds(&self, folder: &str) -> Result<bool> {
        let prefix = self.parse(folder)?;
        let first = self.runtime.block_on(self.store.list(Some(&prefix)).try_next());
        first.map(|found| found.is_some()).map_err(|error| failed(&self.url(folder).to_string_lossy(), error))
    }

    /// The store itself, for readers that take one.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Starts an object of any size, which appears when it is finished.
    pub(crate) fn upload(&self, key: &str) -> Result<Upload> {
        Ok(Upload { bucket: self.clone(), key: self.parse(key)?, buffer: Vec::new(), parts: None })
    }

    /// Writes an object anew, unless it is not any more the one that was found.
    pub(crate) fn replace(&self, found: &ObjectMeta, bytes: Vec<u8>) -> Result<()> {
        let version = UpdateVersion { e_tag: found.e_tag.clone(), version: found.version.clone() };
        let put = self.store.put_opts(&found.location, bytes.into(), PutMode::Update(version).into());
        let put = self.runtime.block_on(put).map(drop);
        put.map_err(|error| failed(&self.url(found.location.as_ref()).to_string_lossy(), error))
    }

    /// Deletes objects; those that are gone already do not matter.
    pub(crate) fn delete(&self, keys: &[String]) -> Result<()> {
        let keys: Vec<Key> = keys.iter().map(|key| self.parse(key)).collect::<Result<_>>()?;
        let deletes = futures::stream::iter(keys.iter().map(|key| async {
            match self.store.delete(key).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(failed(&self.url(key.as_ref()).to_string_lossy(), error)),
            }
        }));
        self.runtime.block_on(deletes.buffer_unordered(DELETES_AT_ONCE).try_collect::<Vec<()>>()).map(drop)
    }

    /// An object, read by position.
    pub(crate) fn object(&self, found: &ObjectMeta) -> Object {
        Object {
            bucket: self.clone(),
            key: found.location.clone(),
            length: found.size,
            version: found.e_tag.clone(),
            at_hand: Vec::new(),
        }
    }
}

/// An object that is read by position. It stays the one that was found: when another takes its place, reads fail.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    bucket: Bucket,
    key: Key,
    pub(crate) length: u64,
    version: Option<String>,
    /// Parts that were read ahead, by where they start.
    at_hand: Vec<(u64, Bytes)>,
}

impl Object {
    /// The same object with parts of it at hand, read by as few requests as pays.
    pub(crate) fn with(&self, mut ranges: Vec<Range<u64>>) -> Result<Self> {
        ranges.retain(|range| range.start < range.end && self.cached(range.start, 1).is_none());
        ranges.sort_unstable_by_key(|range| range.start);
        let fetched = self.bucket.runtime.block_on(coalesce_ranges(&ranges, |range| self.fetch(range), COALESCED));
        let mut at_hand = self.at_hand.clone();
        at_hand.extend(ranges.iter().map(|range| range.start).zip(fetched?));
        at_hand.sort_unstable_by_key(|(start, _)| *start);
        Ok(Self { at_hand, ..self.clone() })
    }

    /// The same object with its end at hand, where Parquet files say what they hold.
    pub(crate) fn with_tail(&self) -> Result<Self> {
        let tail = self.length.saturating_sub(TAIL)..self.length;
        self.with(std::iter::once(tail).collect())
    }

    /// The same object with all of it at hand.
    pub(crate) fn whole(&self) -> Result<Self> {
        let whole = self.bucket.runtime.block_on(self.fetch(0..self.length))?;
        Ok(Self { at_hand: vec![(0, whole)], ..self.clone() })
    }

    /// Exactly these bytes.
    pub(crate) fn read(&self, start: u64, length: usize) -> Result<Bytes> {
        match self.cached(start, length) {
            Some(bytes) => Ok(bytes),
            None if length == 0 => Ok(Bytes::new()),
            None => self.bucket.runtime.block_on(self.fetch(start..start + length as u64)),
        }
    }

    /// Some bytes from a position on; none at the end.
    fn read_some(&self, start: u64) -> Result<Bytes> {
        let before = self.at_hand.partition_point(|(from, _)| *from <= start);
        if let Some((from, bytes)) = before.checked_sub(1).map(|last| &self.at_hand[last])
            && start - from < bytes.len() as u64
        {
            return Ok(bytes.slice((start - from) as usize..));
        }
        self.read(start, (self.length.saturating_sub(start)).min(CHUNK) as usize)
    }

    fn cached(&self, start: u64, length: usize) -> Option<Bytes> {
        let before = self.at_hand.partition_point(|(from, _)| *from <= start);
        let (from, bytes) = &self.at_hand[before.checked_sub(1)?];
        let offset = usize::try_from(start - from).ok()?;
        (offset + length <= bytes.len()).then(|| bytes.slice(offset..offset + length))
    }

    async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        let wanted = range.end - range.start;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: self.version.clone(),
            ..GetOptions::default()
        };
        let read = async { self.bucket.store.get_opts(&self.key, options).await?.bytes().await };
        let url = self.bucket.url(self.key.as_ref());
        match read.await {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(_) | Err(object_store::Error::Precondition { .. }) => {
                Err(Error::new(ErrorCode::Conflict, format!("`{}` changed while it was read", url.display()))
                    .with_hint("run the request again"))
            }
            Err(error) => Err(failed(&url.to_string_lossy(), error)),
        }
    }
}

/// An object from a position on.
#[derive(Debug)]
pub(crate) struct ObjectReader {
    object: Object,
    position: u64,
    chunk: Bytes,
}

impl ObjectReader {
    /// Reads from a position to the end.
    pub(crate) fn new(object: Object, position: u64) -> Self {
        Self { object, position, chunk: Bytes::new() }
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && self.position < self.object.length {
            self.chunk = self.object.read_some(self.position).map_err(io::Error::other)?;
        }
        let taken = self.chunk.split_to(buffer.len().min(self.chunk.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        self.position += taken.len() as u64;
        Ok(taken.len())
    }
}

/// An object that is being written. Dropped before it is finished, it leaves nothing.
pub(crate) struct Upload {
    bucket: Bucket,
    key: Key,
    buffer: Vec<u8>,
    parts: Option<WriteMultipart>,
}

impl Upload {
    /// Makes the object appear.
    pub(crate) fn finish(mut self) -> Result<()> {
        let url = self.bucket.url(self.key.as_ref()).to_string_lossy().into_owned();
        let buffer = std::mem::take(&mut self.buffer);
        let finished = match self.parts.take() {
            None => self.bucket.runtime.block_on(self.bucket.store.put(&self.key, buffer.into())).map(drop),
            Some(mut parts) => self.bucket.runtime.block_on(async {
                parts.write(&buffer);
                parts.finish().await.map(drop)
            }),
        };
        finished.map_err(|error| failed(&url, error))
    }

    fn send(&mut self) -> std::result::Result<(), object_store::Error> {
        let buffer = std::mem::take(&mut self.buffer);
        self.bucket.runtime.clone().block_on(async {
            if self.parts.is_none() {
                let upload = self.bucket.store.put_multipart(&self.key).await?;
                self.parts = Some(WriteMultipart::new_with_chunk_size(upload, PART));
            }
            if let Some(parts) = &mut self.parts {
                parts.wait_for_capacity(PARTS_AT_ONCE).await?;
                parts.write(&buffer);
            }
            Ok(())
        })
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART {
            let url = self.bucket.url(self.key.as_ref()).to_string_lossy().into_owned();
            self.send().map_err(|error| io::Error::other(failed(&url, error)))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            // Parts that cannot be dropped now are what the rules of the bucket are for.
            drop(self.bucket.runtime.block_on(parts.abort()));
        }
    }
}

/// What a cloud has against a request. What it says about credentials is not repeated: it may hold parts of them.
pub(crate) fn failed(url: &str, error: object_store::Error) -> Error {
    use object_store::Error as Cause;
    match error {
        Cause::NotFound { .. } => Error::new(ErrorCode::FileNotFound, format!("there is nothing at `{url}`"))
            .with_hint("check the names of the bucket and of the file"),
        Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. } => {
            Error::new(ErrorCode::PermissionDenied, format!("access to `{url}` was refused"))
                .with_hint("check the credentials in the environment and the rights of their owner")
        }
        Cause::AlreadyExists { .. } | Cause::Precondition { .. } => {
            Error::new(ErrorCode::Conflict, format!("somebody else wrote `{url}` at the same time"))
                .with_hint("run the request again")
        }
        error if error.to_string().contains("AccessKey") || error.to_string().contains("Signature") => {
            Error::new(ErrorCode::PermissionDenied, format!("access to `{url}` was refused"))
                .with_hint("check the credentials in the environment")
        }
        error => Error::unavailable(format!("`{url}` could not be reached"))
            .with_source(error)
            .with_hint("check the endpoint, the region and the network; then run it again"),
    }
}
