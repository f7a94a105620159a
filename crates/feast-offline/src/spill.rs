//! Batches that wait in a temporary file, so that they need no memory.
//!
//! The file has no name any more once it is open: nothing is left behind, however the process ends.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use feast_core::{Error, Result};

/// Batches on their way into a file.
pub(crate) struct SpillWriter {
    writer: StreamWriter<BufWriter<File>>,
    size: usize,
}

impl SpillWriter {
    /// An empty file for batches of this schema.
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Self { writer: StreamWriter::try_new_buffered(file, schema)?, size: 0 })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for array in batch.columns() {
            // Of a slice, only its own part.
            self.size += array.to_data().get_slice_memory_size()?;
        }
        self.writer.write(batch).map_err(|error| failed(std::io::Error::other(error)))
    }

    /// No more batches.
    pub(crate) fn finish(self) -> Result<Spill> {
        let buffer = self.writer.into_inner().map_err(|error| failed(std::io::Error::other(error)))?;
        let file = buffer.into_inner().map_err(|error| failed(error.into_error()))?;
        Ok(Spill { file, size: self.size })
    }
}

/// Batches in a file.
pub(crate) struct Spill {
    file: File,
    size: usize,
}

impl Spill {
    /// Bytes of the batches in memory.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The batches in the order in which they were written. They are read once at a time.
    pub(crate) fn read(&self) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
        let mut file = self.file.try_clone().map_err(failed)?;
        file.rewind().map_err(failed)?;
        let reader = StreamReader::try_new(BufReader::new(file), None)?;
        Ok(reader.map(|batch| batch.map_err(|error| failed(std::io::Error::other(error)))))
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::unavailable("rows that do not fit the memory limit could not be kept in a temporary file")
        .with_source(error)
        .with_hint("make room in the folder for temporary files (`TMPDIR`), or raise `memory_limit`")
}
