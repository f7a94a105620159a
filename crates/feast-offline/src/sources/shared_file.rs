//! An open file that several threads read at once.
//!
//! The file stays the one that was opened, also when another is renamed over it meanwhile.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use feast_core::Result;
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, Length};

use super::file::unreadable;

/// Length and time of the last change of a file.
pub(crate) type Stamp = (u64, Option<SystemTime>);

/// An open file, read by position.
#[derive(Debug, Clone)]
pub(crate) struct SharedFile {
    file: Arc<File>,
    length: u64,
    modified: Option<SystemTime>,
}

impl SharedFile {
    /// Opens a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, error))?;
        let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
        Ok(Self { file: Arc::new(file), length: metadata.len(), modified: metadata.modified().ok() })
    }

    /// Length and time of the last change at opening: equal stamps, equal contents.
    pub(crate) fn stamp(&self) -> Stamp {
        (self.length, self.modified)
    }

    /// Whether nobody has written into the file since it was opened.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|now| (now.len(), now.modified().ok()) == self.stamp())
    }
}

impl Length for SharedFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for SharedFile {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::new(From { file: Arc::clone(&self.file), position: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut bytes = Vec::with_capacity(length);
        From { file: Arc::clone(&self.file), position: start }.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(parquet::errors::ParquetError::EOF(format!("{} of {length} bytes", bytes.len())));
        }
        Ok(bytes.into())
    }
}

/// A file from a position on. Readers of one file do not move each other.
#[derive(Debug)]
pub(crate) struct From {
    file: Arc<File>,
    position: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.position)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
