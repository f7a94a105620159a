//! Tables across the border: Arrow C streams in both directions, without copying.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchReader, StructArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;
use feast_core::Error;
use feast_offline::BatchStream;
use futures::StreamExt;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::PyRecordBatchReader;
use pyo3_arrow::ffi::{ArrayIterator, to_stream_pycapsule};

use crate::errors::{IntoPyResult, to_python};
use crate::runtime::runtime;

/// All batches of an object with `__arrow_c_stream__`, with their schema.
pub(crate) fn read_batches(frame: &Bound<'_, PyAny>) -> PyResult<(SchemaRef, Vec<RecordBatch>)> {
    let reader = frame.extract::<PyRecordBatchReader>().map_err(|_| {
        let kind = frame.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        to_python(
            &Error::invalid_request(format!("a table was expected, found an object of type `{kind}`")).with_hint(
                "give a pandas DataFrame, a PyArrow table, a Polars frame, or anything with the Arrow C stream interface",
            ),
        )
    })?;
    let reader = reader.into_reader()?;
    let schema = reader.schema();
    let batches: std::result::Result<Vec<RecordBatch>, ArrowError> = reader.collect();
    Ok((schema, batches.map_err(Error::from).py()?))
}

/// The rows of an object with `__arrow_c_stream__` as one batch.
pub(crate) fn read_batch(frame: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let (schema, batches) = read_batches(frame)?;
    concat_batches(&schema, &batches).map_err(Error::from).py()
}

type Reader = Box<dyn RecordBatchReader + Send>;

/// Hands a reader to Python as the capsule of an Arrow C stream.
pub(crate) fn export<'py>(
    py: Python<'py>,
    reader: Reader,
    requested_schema: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let schema = reader.schema();
    let field = Field::new_struct("", schema.fields().clone(), false).with_metadata(schema.metadata().clone());
    let arrays = reader.map(|batch| Ok(Arc::new(StructArray::from(batch?)) as ArrayRef));
    Ok(to_stream_pycapsule(py, Box::new(ArrayIterator::new(arrays, Arc::new(field))), requested_schema)?)
}

/// Reads an asynchronous stream of batches from a thread that waits for each of them.
struct Waiting(BatchStream);

impl Iterator for Waiting {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let external = |error: Error| ArrowError::ExternalError(Box::new(error));
        match runtime() {
            Ok(runtime) => runtime.block_on(self.0.next()).map(|batch| batch.map_err(external)),
            Err(error) => Some(Err(external(error))),
        }
    }
}

impl RecordBatchReader for Waiting {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.schema())
    }
}

/// A reader over an asynchronous stream.
pub(crate) fn reader_of(stream: BatchStream) -> Reader {
    Box::new(Waiting(stream))
}

/// Rows on their way to Python; they can be read once.
#[pyclass(module = "feast._feast", frozen)]
pub(crate) struct ArrowStream(Mutex<Option<Reader>>);

impl ArrowStream {
    pub(crate) fn new(reader: Reader) -> Self {
        Self(Mutex::new(Some(reader)))
    }
}

#[pymethods]
impl ArrowStream {
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let reader = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reader = reader.ok_or_else(|| Error::invalid_request("these rows were read already")).py()?;
        export(py, reader, requested_schema)
    }
}
