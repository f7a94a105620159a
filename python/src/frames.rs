//! Tables across the border: Arrow C streams in both directions, without copying.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchIterator, RecordBatchReader, StructArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;
use feast_core::{Error, ErrorCode};
use feast_offline::BatchStream;
use futures::{FutureExt, StreamExt};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::PyRecordBatchReader;
use pyo3_arrow::ffi::{ArrayIterator, to_stream_pycapsule};
use tokio::runtime::Runtime;

use crate::errors::{IntoPyResult, to_python};
use crate::runtime::{runtime, watched};

/// All batches of an object with `__arrow_c_stream__`, with their schema.
pub(crate) fn read_batches(frame: &Bound<'_, PyAny>) -> PyResult<(SchemaRef, Vec<RecordBatch>)> {
    let reader = frame.extract::<PyRecordBatchReader>().map_err(|_| {
        let kind = frame.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        to_python(&Error::invalid_request(format!("a table was expected, found an object of type `{kind}`")).with_hint(
            "give a pandas DataFrame, a PyArrow table, a Polars frame, or anything with the Arrow C stream interface",
        ))
    })?;
    let reader = reader.into_reader()?;
    let schema = reader.schema();
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Error::invalid_request(format!("the rows have more than one column named `{name}`"))
            .with_hint("rename or drop one"))
        .py();
    }
    // Whoever makes the batches may need the interpreter on another thread.
    let batches: std::result::Result<Vec<RecordBatch>, ArrowError> = frame.py().detach(|| reader.collect());
    let unreadable = |error| {
        Error::invalid_request("the rows cannot be read").with_source(error).with_hint("check where they come from")
    };
    Ok((schema, batches.map_err(unreadable).py()?))
}

/// Rows as an object with `__arrow_c_stream__`.
pub(crate) fn rows_to_python(py: Python<'_>, schema: SchemaRef, rows: Vec<RecordBatch>) -> PyResult<Py<ArrowStream>> {
    let reader: Reader = Box::new(RecordBatchIterator::new(rows.into_iter().map(Ok), schema));
    Py::new(py, ArrowStream { reader: Mutex::new(Some(reader)), failure: Arc::default() })
}

/// The rows of an object with `__arrow_c_stream__` as one batch.
pub(crate) fn read_batch(frame: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let (schema, batches) = read_batches(frame)?;
    concat_batches(&schema, &batches).map_err(Error::from).py()
}

pub(crate) type Reader = Box<dyn RecordBatchReader + Send>;

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
struct Waiting {
    rows: BatchStream,
    runtime: Arc<Runtime>,
    /// The process that reads: the threads behind the stream are not in its children.
    process: u32,
    deadline: Option<Deadline>,
    failure: Failure,
}

#[derive(Clone, Copy)]
struct Deadline {
    end: Instant,
    timeout: Duration,
}

/// Why a stream stopped, as the exception that it was: an Arrow stream itself carries only a text.
#[derive(Clone)]
enum Failure {
    /// Kept for whoever reads on our behalf.
    Kept(Arc<Mutex<Option<PyErr>>>),
    /// A library that we do not know reads; it tells the text. Ctrl-C comes back after it, or it would be lost.
    Told,
}

impl Waiting {
    fn wait(&mut self) -> PyResult<Option<RecordBatch>> {
        if std::process::id() != self.process {
            let error = Error::unavailable("these rows were being read when the process forked");
            return Err(error.with_hint("ask for them again in the new process")).py();
        }
        if let Some(deadline) = self.deadline.filter(|deadline| deadline.end <= Instant::now()) {
            return Err(too_slow(deadline.timeout)).py();
        }
        // A batch that is there already costs no dealing with the interpreter.
        if let Some(batch) = self.rows.next().now_or_never() {
            return batch.transpose().py();
        }
        let deadline = self.deadline;
        let waiting = async {
            match deadline {
                None => Ok(self.rows.next().await),
                Some(deadline) => tokio::time::timeout_at(deadline.end.into(), self.rows.next())
                    .await
                    .map_err(|_| too_slow(deadline.timeout)),
            }
        };
        let runtime = &self.runtime;
        let batch = Python::try_attach(|py| watched(py, runtime, waiting));
        let ended = || to_python(&Error::unavailable("the interpreter is about to end"));
        batch.unwrap_or_else(|| Err(ended()))?.py()?.transpose().py()
    }
}

fn too_slow(timeout: Duration) -> Error {
    let message = format!("the query took longer than the timeout of {} s", timeout.as_secs_f64());
    Error::new(ErrorCode::Timeout, message).with_hint("ask for less, or give it more time")
}

impl Failure {
    fn keep(&self, failure: PyErr) -> ArrowError {
        Python::attach(|py| {
            let text = failure.value(py).to_string();
            match self {
                Self::Kept(place) => *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure),
                Self::Told if failure.is_instance_of::<PyKeyboardInterrupt>(py) => {
                    let again = py.import("_thread").and_then(|thread| thread.call_method0("interrupt_main"));
                    drop(again);
                    return ArrowError::ExternalError("interrupted".into());
                }
                Self::Told => {}
            }
            ArrowError::ExternalError(text.into())
        })
    }
}

impl Iterator for Waiting {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.wait().map_err(|failure| self.failure.keep(failure)).transpose()
    }
}

impl RecordBatchReader for Waiting {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.rows.schema())
    }
}

/// Rows on their way to Python; they can be read once.
#[pyclass(module = "feast._feast", frozen)]
pub(crate) struct ArrowStream {
    reader: Mutex<Option<Reader>>,
    failure: Arc<Mutex<Option<PyErr>>>,
}

impl ArrowStream {
    /// Rows that are read by us, so that a failure keeps its exception; within `timeout`, counted from `started` on.
    pub(crate) fn new(rows: BatchStream, timeout: Option<Duration>, started: Instant) -> PyResult<Self> {
        let failure: Arc<Mutex<Option<PyErr>>> = Arc::default();
        let deadline = timeout.map(|timeout| Deadline { end: started + timeout, timeout });
        let reader = waiting(rows, deadline, Failure::Kept(Arc::clone(&failure)))?;
        Ok(Self { reader: Mutex::new(Some(reader)), failure })
    }
}

/// A reader for a library that we do not know.
pub(crate) fn reader_of(rows: BatchStream) -> PyResult<Reader> {
    waiting(rows, None, Failure::Told)
}

fn waiting(rows: BatchStream, deadline: Option<Deadline>, failure: Failure) -> PyResult<Reader> {
    let runtime = runtime().py()?;
    Ok(Box::new(Waiting { rows, runtime, process: std::process::id(), deadline, failure }))
}

#[pymethods]
impl ArrowStream {
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reader = reader
            .ok_or_else(|| Error::invalid_request("these rows were read already").with_hint("call the method again"))
            .py()?;
        export(py, reader, requested_schema)
    }
    /// The exception that ended the reading early, once.
    fn failure(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map(|failure| failure.into_value(py).into_any())
    }
}
