//! An open file, or an object in a bucket, that several threads read at once.
//!
//! It stays the one that was opened, also when another takes its name meanwhile.

use std::fs::{File, Metadata};
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use feast_core::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, RowSelection};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use super::bucket::{Object, ObjectReader};
use super::file::unreadable;

/// A file of so many bytes is read at once by who wants most of it.
const SMALL: u64 = 4 << 20;

/// Length and time of the last change of a file.
pub(crate) type Stamp = (u64, Option<SystemTime>);

/// An open file, read by position.
#[derive(Debug, Clone)]
pub(crate) struct SharedFile {
    contents: Contents,
    length: u64,
    modified: Option<SystemTime>,
    identity: Option<Identity>,
}

/// What tells one file of this machine from all others: device, number, length and time of the last change.
pub(crate) type Identity = (u64, u64, u64, SystemTime);

#[derive(Debug, Clone)]
enum Contents {
    File(Arc<File>),
    /// All of a file.
    Whole(Bytes),
    Object(Arc<Object>),
}

impl SharedFile {
    /// Opens a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, error))?;
        let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
        Ok(Self {
            contents: Contents::File(Arc::new(file)),
            length: metadata.len(),
            modified: metadata.modified().ok(),
            identity: identity(&metadata),
        })
    }

    /// An object in a bucket.
    pub(crate) fn of_object(object: Object, modified: SystemTime) -> Self {
        Self {
            length: object.length,
            contents: Contents::Object(Arc::new(object)),
            modified: Some(modified),
            identity: None,
        }
    }

    /// The same file with all of it at hand, where it is small or reads take long.
    pub(crate) fn at_hand(self) -> ParquetResult<Self> {
        let contents = match &self.contents {
            Contents::File(_) if self.length <= SMALL => Contents::Whole(self.get_bytes(0, self.length as usize)?),
            Contents::File(_) | Contents::Whole(_) => return Ok(self),
            Contents::Object(object) => Contents::Object(Arc::new(object.whole().map_err(external)?)),
        };
        Ok(Self { contents, ..self })
    }

    /// The same file, with all that a read of these columns of a row group needs at hand, where reads take long.
    pub(crate) fn prefetched(
        self,
        footer: &ArrowReaderMetadata,
        row_group: usize,
        columns: &ProjectionMask,
        selection: Option<&RowSelection>,
    ) -> Result<Self> {
        let Contents::Object(object) = &self.contents else { return Ok(self) };
        let metadata = footer.metadata();
        let mut ranges = Vec::new();
        let chunks = metadata.row_group(row_group).columns().iter().enumerate();
        for (column, chunk) in chunks.filter(|(column, _)| columns.leaf_included(*column)) {
            let (start, length) = chunk.byte_range();
            let pages = metadata.offset_index().map(|index| index[row_group][column].page_locations().as_slice());
            match (selection, pages) {
                (Some(selection), Some(pages @ [first, ..])) => {
                    // What precedes the first page is the dictionary.
                    ranges.push(start..first.offset as u64);
                    ranges.extend(selection.scan_ranges(pages));
                }
                _ => ranges.push(start..start + length),
            }
        }
        Ok(Self { contents: Contents::Object(Arc::new(object.with(ranges)?)), ..self })
    }

    /// Length and time of the last change at opening: equal stamps, equal contents.
    pub(crate) fn stamp(&self) -> Stamp {
        (self.length, self.modified)
    }

    /// What tells it from all other files; `None` where nobody can tell.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Whether nobody has written into the file since it was opened.
    pub(crate) fn is_unchanged(&self) -> bool {
        match &self.contents {
            Contents::File(file) => file.metadata().is_ok_and(|now| (now.len(), now.modified().ok()) == self.stamp()),
            // What was read stays, and reads of an object that is another by now fail.
            Contents::Whole(_) | Contents::Object(_) => true,
        }
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<Identity> {
    None
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl Length for SharedFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for SharedFile {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::new(match &self.contents {
            Contents::File(file) => From::File(FromPosition { file: Arc::clone(file), position: start }),
            Contents::Whole(bytes) => From::Memory(bytes.slice(bytes.len().min(start as usize)..).reader()),
            Contents::Object(object) => From::Object(ObjectReader::new(object.as_ref().clone(), start)),
        }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let file = match &self.contents {
            Contents::File(file) => file,
            Contents::Whole(bytes) => return bytes.get_bytes(start, length),
            Contents::Object(object) => return object.read(start, length).map_err(external),
        };
        let mut bytes = Vec::with_capacity(length);
        FromPosition { file: Arc::clone(file), position: start }.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("{} of {length} bytes", bytes.len())));
        }
        Ok(bytes.into())
    }
}

/// A file or an object from a position on.
#[derive(Debug)]
pub(crate) enum From {
    File(FromPosition),
    Memory(Reader<Bytes>),
    Object(ObjectReader),
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Memory(bytes) => bytes.read(buffer),
            Self::Object(object) => object.read(buffer),
        }
    }
}

/// A file from a position on. Readers of one file do not move each other.
#[derive(Debug)]
pub(crate) struct FromPosition {
    file: Arc<File>,
    position: u64,
}

impl Read for FromPosition {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.position)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
