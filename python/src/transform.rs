//! Runs the functions of on-demand views in this interpreter: Arrow in, one call, Arrow out.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, Float64Type, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use feast_core::{
    Error, ErrorCode, FeatureView, Field, ObjectKind, RegistryObject, Result, Transformation, Transformer, ValueType,
};
use feast_online::{EntityColumn, EntityRows, FunctionMode as Mode, coerce_column};
use feast_server::{Wanted, WorkerAnswer, WorkerRequest};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyFloat, PyList, PyMapping, PyString, PyTuple};
use pyo3_arrow::{PyArray, PyRecordBatch};

use crate::errors::IntoPyResult;
use crate::online_features::{Classes, Place, entity_value, values};

/// The module that loads functions and calls those that take frames.
const HELPERS: &str = "feast.transformation._functions";
/// The module that reads what functions compute.
const EXPRESSIONS: &str = "feast.transformation._expressions";
/// Functions kept; views come and go in a process that lives long.
const MOST_FUNCTIONS: usize = 1024;

/// Runs functions in this process, for processes that are the user's own.
#[derive(Default)]
pub(crate) struct InProcessPython(Functions);

/// The functions of a process.
#[derive(Default)]
struct Functions {
    /// By hash of the code they were made from: a changed view has another function.
    functions: Mutex<HashMap<u64, Py<PyAny>>>,
    hasher: RandomState,
}

impl fmt::Debug for InProcessPython {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcessPython")
    }
}

#[async_trait]
impl Transformer for InProcessPython {
    async fn apply(&self, view: &FeatureView, input: RecordBatch) -> Result<RecordBatch> {
        with_python(|py| {
            let call = self.0.prepare(py, view, &input)?;
            let result = call.on_own_thread(py).map_err(|error| raised(py, view, error))?;
            call.rows(py, view, &WorkerAnswer::schema(view), result)
        })
    }

    async fn infer(&self, view: &FeatureView, sample: RecordBatch) -> Result<Vec<Field>> {
        with_python(|py| {
            let call = self.0.prepare(py, view, &sample)?;
            let result = call.on_own_thread(py).map_err(|error| raised(py, view, error))?;
            call.types(py, view, result)
        })
    }

    async fn expressions(&self, view: &FeatureView) -> Result<Option<String>> {
        let code = Function::of(view)?;
        with_python(|py| code.expressions(py).map_err(|error| raised(py, view, error)))
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Holds the interpreter for one call. On a thread of the runtime another one takes over its other work meanwhile.
fn with_python<T>(call: impl FnOnce(Python<'_>) -> Result<T>) -> Result<T> {
    tokio::task::block_in_place(|| {
        Python::try_attach(call).unwrap_or_else(|| Err(Error::unavailable("the interpreter is about to end")))
    })
}

/// What a view says about its function.
struct Function<'a> {
    name: &'a str,
    text: &'a str,
    body: &'a [u8],
    mode: Mode,
}

impl<'a> Function<'a> {
    fn of(view: &'a FeatureView) -> Result<Self> {
        let on_demand = view.on_demand().ok_or_else(|| Error::internal("a stored view was to be computed"))?;
        let function = match (&on_demand.transformation, &on_demand.user_defined_function) {
            (Some(Transformation::UserDefinedFunction(function)), _) | (None, Some(function)) => function,
            (Some(Transformation::Substrait(_)), _) => return Err(other_mode(view, "substrait")),
            (None, None) => {
                return Err(failed(view, "has no function").with_hint("declare one, and run `feast apply`"));
            }
        };
        let mode = Mode::of(on_demand, function).map_err(|other| other_mode(view, other))?;
        Ok(Self { name: &function.name, text: &function.body_text, body: &function.body, mode })
    }

    /// What it computes, where that can be told from its source text.
    fn expressions(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let arguments = (self.name, self.text, PyBytes::new(py, self.body), self.mode.name());
        py.import(EXPRESSIONS)?.call_method1("expressions_of", arguments)?.extract()
    }

    /// Makes the function of its code.
    fn load<'py>(&self, py: Python<'py>, view: &FeatureView) -> Result<Bound<'py, PyAny>> {
        let load = || {
            let body = PyBytes::new(py, self.body);
            py.import(HELPERS)?.call_method1("load", (view.name.as_str(), self.name, self.text, body))
        };
        load().map_err(|exception| {
            let reason = exception.value(py).to_string();
            failed(view, "has a function that does not load")
                .with_source(Cause { reason, exception })
                .with_hint("correct its function, and run `feast apply`")
        })
    }
}

fn other_mode(view: &FeatureView, mode: &str) -> Error {
    Error::unsupported(format!("on-demand feature view `{}` has mode `{mode}`, which does not run here yet", view.name))
        .with_hint("use mode `python` or `pandas`")
}

/// A message that begins with the view.
fn failed(view: &FeatureView, what: impl fmt::Display) -> Error {
    Error::new(ErrorCode::TransformationFailed, format!("on-demand feature view `{}` {what}", view.name))
}

impl Functions {
    /// The function of a view, made when it is first needed.
    fn function<'py>(&self, py: Python<'py>, view: &FeatureView, code: &Function<'_>) -> Result<Bound<'py, PyAny>> {
        let hash = self.hasher.hash_one((&view.name, code.name, code.text, code.body));
        let known = |functions: &HashMap<u64, Py<PyAny>>| functions.get(&hash).map(|one| one.bind(py).clone());
        if let Some(function) = known(&self.functions.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(function);
        }
        // Not under the lock: it runs Python, which may give other threads their turn.
        let function = code.load(py, view)?;
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if functions.len() >= MOST_FUNCTIONS {
            functions.clear();
        }
        functions.insert(hash, function.clone().unbind());
        Ok(function)
    }

    /// The call that computes a view for an input.
    fn prepare<'py>(&self, py: Python<'py>, view: &FeatureView, input: &RecordBatch) -> Result<Call<'py>> {
        let code = Function::of(view)?;
        let function = self.function(py, view, &code)?;
        Call::of(py, code.mode, &function, input).map_err(|error| raised(py, view, error))
    }
}

/// A call of a user's function, to be made from Python. Code of others may give up the interpreter and come back to this
/// library, to read a stream of ours or to wait for the feature store; below a call from here it would count as holding
/// the interpreter all the time.
struct Call<'py> {
    function: Bound<'py, PyAny>,
    arguments: Bound<'py, PyTuple>,
    mode: Mode,
    n_rows: usize,
    /// The frame that the function is given.
    given: Option<Bound<'py, PyAny>>,
}

impl<'py> Call<'py> {
    fn of(py: Python<'py>, mode: Mode, function: &Bound<'py, PyAny>, input: &RecordBatch) -> PyResult<Self> {
        let n_rows = input.num_rows();
        let (function, arguments, given) = match mode {
            Mode::Frame => {
                let frame = frame(py, input)?;
                (function.clone(), PyTuple::new(py, [&frame])?, Some(frame))
            }
            Mode::Columns => (function.clone(), PyTuple::new(py, [columns(py, input)?])?, None),
            Mode::Rows => {
                let arguments = (function, columns(py, input)?, n_rows).into_pyobject(py)?;
                (helper(py, "call_singly")?, arguments, None)
            }
        };
        Ok(Self { function, arguments, mode, n_rows, given })
    }

    /// Makes the call on a thread that Python has started, and waits.
    fn on_own_thread(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let all: Vec<Bound<'_, PyAny>> = iter::once(self.function.clone()).chain(self.arguments.iter()).collect();
        py.import("feast._own_thread")?.getattr("run")?.call1(PyTuple::new(py, all)?)
    }

    /// What the function returned, as the features of the view, whose schema this is.
    fn rows(
        &self,
        py: Python<'py>,
        view: &FeatureView,
        schema: &SchemaRef,
        result: Bound<'py, PyAny>,
    ) -> Result<RecordBatch> {
        let raised = |error: PyErr| raised(py, view, error);
        let n_rows = self.n_rows;
        let returned: Vec<Returned<'_>> = match &self.given {
            Some(frame) => {
                let wanted: Vec<(&str, bool)> =
                    view.features.iter().map(|field| (field.name.as_str(), wants_objects(field.value_type))).collect();
                let columns = helper(py, "columns_of_frame")
                    .and_then(|helper| helper.call1((result, frame, view.name.as_str(), wanted)))
                    .and_then(|columns| columns.extract::<Vec<Bound<'_, PyAny>>>())
                    .map_err(raised)?;
                let columns = view.features.iter().zip(columns);
                columns
                    .map(|(field, column)| Returned {
                        field,
                        column: Some(column).filter(|column| !column.is_none()),
                        is_of_frame: true,
                    })
                    .collect()
            }
            None => {
                let result = result.cast_into::<PyMapping>().map_err(|error| {
                    failed(
                        view,
                        format_args!("returned {}, expected a dictionary of columns", kind(&error.into_inner())),
                    )
                })?;
                let find = |field: &Field| {
                    if result.contains(&field.name)? {
                        return result.get_item(&field.name).map(Some);
                    }
                    let full = format!("{}__{}", view.name, field.name);
                    if result.contains(&full)? { result.get_item(full).map(Some) } else { Ok(None) }
                };
                view.features
                    .iter()
                    .map(|field| Ok(Returned { field, column: find(field).map_err(raised)?, is_of_frame: false }))
                    .collect::<Result<_>>()?
            }
        };
        let columns = returned.iter().map(|column| column.array(py, view, n_rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }

    /// The columns that the function returned.
    fn types(&self, py: Python<'py>, view: &FeatureView, result: Bound<'py, PyAny>) -> Result<Vec<Field>> {
        let name = if self.mode == Mode::Frame { "types_of_frame" } else { "types_of_columns" };
        let look = || helper(py, name)?.call1((result,))?.extract::<Vec<(String, i32)>>();
        let types = look().map_err(|error| raised(py, view, error))?;
        Ok(types
            .into_iter()
            .map(|(name, number)| Field::new(name, ValueType::from_number(number).unwrap_or_default()))
            .collect())
    }
}

/// The type of a column of an input.
fn type_of(field: &ArrowField) -> ValueType {
    ValueType::of_arrow_field(field).unwrap_or_default()
}

/// The columns of an input as lists, by name. A column with two names is one list.
fn columns<'py>(py: Python<'py>, input: &RecordBatch) -> PyResult<Bound<'py, PyDict>> {
    let inputs = PyDict::new(py);
    let classes = Classes::default();
    let mut made: Vec<(&ArrayRef, Bound<'_, PyList>)> = Vec::new();
    for (field, column) in input.schema_ref().fields().iter().zip(input.columns()) {
        let list = match made.iter().find(|(known, _)| Arc::ptr_eq(known, column)) {
            Some((_, list)) => list.clone(),
            None => {
                let list = values(py, column, type_of(field), &classes)?;
                made.push((column, list.clone()));
                list
            }
        };
        inputs.set_item(field.name(), list)?;
    }
    Ok(inputs)
}

/// The input as a pandas frame. Numbers have the types that Python's own have, as when Feast serves them.
fn frame<'py>(py: Python<'py>, input: &RecordBatch) -> PyResult<Bound<'py, PyAny>> {
    if let Some(frame) = frame_of_numbers(py, input)? {
        return Ok(frame);
    }
    let objects = PyDict::new(py);
    let classes = Classes::default();
    let mut fields = Vec::with_capacity(input.num_columns());
    let mut arrays = Vec::with_capacity(input.num_columns());
    for (field, column) in input.schema_ref().fields().iter().zip(input.columns()) {
        let value_type = type_of(field);
        if wants_objects(value_type) {
            objects.set_item(field.name(), values(py, column, value_type, &classes)?)?;
        }
        let array = match widened(column.data_type()) {
            Some(wide) => cast(column, &wide).map_err(Error::from).py()?,
            None => Arc::clone(column),
        };
        fields.push(ArrowField::new(field.name(), array.data_type().clone(), true));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(input.num_rows()));
    let batch =
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(Error::from).py()?;
    helper(py, "frame")?.call1((PyRecordBatch::new(batch).into_pyarrow(py)?, objects))
}

/// The same for an input that is all numbers, as pandas keeps them: one block of floats, one of whole numbers. A whole
/// number that is missing makes its column one of floats, as it does when Arrow makes the frame, which takes ten times as
/// long.
fn frame_of_numbers<'py>(py: Python<'py>, input: &RecordBatch) -> PyResult<Option<Bound<'py, PyAny>>> {
    let n_rows = input.num_rows();
    if n_rows == 0 || input.num_columns() == 0 {
        return Ok(None);
    }
    let mut kinds = String::with_capacity(input.num_columns());
    let (mut floats, mut wholes) = (Vec::new(), Vec::new());
    for (field, column) in input.schema_ref().fields().iter().zip(input.columns()) {
        if !matches!(type_of(field), ValueType::Int32 | ValueType::Int64 | ValueType::Float | ValueType::Double) {
            return Ok(None);
        }
        let is_whole = column.data_type().is_integer() && column.null_count() == 0;
        let wide = if is_whole { DataType::Int64 } else { DataType::Float64 };
        let column = match *column.data_type() == wide {
            true => Arc::clone(column),
            false => cast(column, &wide).map_err(Error::from).py()?,
        };
        if is_whole {
            kinds.push('i');
            wholes.push(column.as_primitive::<Int64Type>().values().inner().clone());
        } else {
            kinds.push('f');
            let column = column.as_primitive::<Float64Type>();
            floats.push(match column.null_count() {
                0 => column.values().inner().clone(),
                _ => Buffer::from_iter(column.iter().map(|value| value.unwrap_or(f64::NAN))),
            });
        }
    }
    let block = |columns: &[Buffer]| {
        let size = n_rows * size_of::<f64>();
        PyByteArray::new_with(py, columns.len() * size, |bytes| {
            for (place, column) in bytes.chunks_exact_mut(size).zip(columns) {
                place.copy_from_slice(column.as_slice());
            }
            Ok(())
        })
    };
    let names = PyTuple::new(py, input.schema_ref().fields().iter().map(|field| PyString::intern(py, field.name())))?;
    let arguments = (names, kinds, n_rows, block(&floats)?, block(&wholes)?);
    helper(py, "frame_of_numbers")?.call1(arguments).map(Some)
}

fn widened(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Float32 => Some(DataType::Float64),
        DataType::Int32 => Some(DataType::Int64),
        DataType::List(item) => {
            let wide = widened(item.data_type())?;
            Some(DataType::List(Arc::new(ArrowField::new("item", wide, true))))
        }
        _ => None,
    }
}

/// A function of the module of helpers.
fn helper<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import(HELPERS).map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

/// Whether pandas has no type of its own for values of this type.
fn wants_objects(value_type: ValueType) -> bool {
    use ValueType as T;
    value_type.is_opaque()
        || value_type.is_set()
        || matches!(value_type, T::Json | T::Uuid | T::TimeUuid | T::Decimal)
        || value_type.item().is_some_and(wants_objects)
}

/// What a function returned for a feature.
struct Returned<'py> {
    field: &'py Field,
    column: Option<Bound<'py, PyAny>>,
    /// Whether pandas made the column, where a missing number is one that is none.
    is_of_frame: bool,
}

impl Returned<'_> {
    /// The column in its declared type, with one value per row.
    fn array(&self, py: Python<'_>, view: &FeatureView, n_rows: usize) -> Result<ArrayRef> {
        let column = self.loose_array(py, view, n_rows)?;
        match self.field.value_type {
            ValueType::Json => Ok(Arc::new(json_texts(column.as_string()))),
            ValueType::JsonList => {
                let list = column.as_list::<i32>();
                let texts = Arc::new(json_texts(list.values().as_string()));
                let (item, offsets, _, nulls) = list.clone().into_parts();
                Ok(Arc::new(ListArray::try_new(item, offsets, texts, nulls)?))
            }
            _ => Ok(column),
        }
    }

    /// The same, where text that is to be JSON is still any text.
    fn loose_array(&self, py: Python<'_>, view: &FeatureView, n_rows: usize) -> Result<ArrayRef> {
        let Field { name, value_type, .. } = self.field;
        let Some(column) = &self.column else {
            return Err(failed(view, format_args!("did not return `{name}`, which it declares"))
                .with_hint("the function must return every feature that the view declares"));
        };
        let wrong_length = |found: usize| {
            failed(view, format_args!("returned {found} values for `{name}`, expected {n_rows}, one for each row"))
                .with_hint("the function must return one value per input row, in order")
        };
        let unfit = |error: Error| {
            failed(view, format_args!("returned a wrong value: {}", error.message()))
                .with_hint(format!("return values that {value_type} can hold, or declare another type"))
        };
        let is_list = |value: &Bound<'_, PyAny>| value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>();
        let mut list = column.clone();
        if !is_list(column) {
            if self.is_of_frame
                && let Some(numbers) = numbers(py, column)
            {
                if numbers.len() != n_rows {
                    return Err(wrong_length(numbers.len()));
                }
                return coerce_column(&numbers, *value_type, name).map_err(unfit);
            }
            if column.hasattr("__arrow_c_array__").unwrap_or(false) {
                let array = column.extract::<PyArray>().map_err(|error| raised(py, view, error))?.into_inner().0;
                if array.len() != n_rows {
                    return Err(wrong_length(array.len()));
                }
                return coerce_column(&array, *value_type, name).map_err(unfit);
            }
            // NumPy arrays and pandas series become lists.
            list = column.call_method0("tolist").unwrap_or(list);
        }
        if !is_list(&list) {
            return Err(failed(
                view,
                format_args!("returned {} for `{name}`, expected a list of {n_rows} values", kind(column)),
            )
            .with_hint("the function must return a list with one value per input row"));
        }
        let found = list.len().map_err(|error| raised(py, view, error))?;
        if found != n_rows {
            return Err(wrong_length(found));
        }
        if *value_type == ValueType::Double
            && let Some(floats) = floats(&list)
        {
            return Ok(floats);
        }
        let place = Place { table: "the result", column: name };
        let items = || list.try_iter()?.map(|item| entity_value(place, &item?)).collect::<PyResult<Vec<_>>>();
        let items = items().map_err(|error| {
            let reason = error.value(py).to_string();
            failed(view, format_args!("returned a wrong value: {reason}"))
        })?;
        let rows = EntityRows::new(vec![(name.clone(), EntityColumn::Values(items))])?;
        rows.column(0, *value_type).map_err(unfit)
    }
}

/// Functions are given JSON as Python has it: a text there is a text, which JSON puts in quotes, unless the function made
/// JSON of it.
fn json_texts(texts: &StringArray) -> StringArray {
    let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
    if texts.iter().flatten().all(is_json) {
        return texts.clone();
    }
    let quoted = |text: &str| match is_json(text) {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    };
    texts.iter().map(|text| text.map(quoted)).collect()
}

/// The fast way for what most functions return.
fn floats(list: &Bound<'_, PyAny>) -> Option<ArrayRef> {
    let list = list.cast::<PyList>().ok()?;
    let mut floats = arrow::array::Float64Builder::with_capacity(list.len());
    for item in list.iter() {
        if item.is_none() {
            floats.append_null();
        } else {
            floats.append_value(item.cast_exact::<PyFloat>().ok()?.value());
        }
    }
    Some(Arc::new(floats.finish()))
}

/// The numbers of an array of NumPy's, where they are of 64 bits.
fn numbers(py: Python<'_>, array: &Bound<'_, PyAny>) -> Option<ArrayRef> {
    if let Ok(floats) = PyBuffer::<f64>::get(array) {
        let floats = floats.to_vec(py).ok()?;
        let missing = floats.iter().any(|value| value.is_nan());
        let nulls = missing.then(|| NullBuffer::from_iter(floats.iter().map(|value| !value.is_nan())));
        return Some(Arc::new(Float64Array::new(floats.into(), nulls)));
    }
    let wholes = PyBuffer::<i64>::get(array).ok()?.to_vec(py).ok()?;
    Some(Arc::new(Int64Array::from(wholes)))
}

fn kind(value: &Bound<'_, PyAny>) -> String {
    let name = value.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
    format!("a value of type `{name}`")
}

/// The error for a function that raised.
fn raised(py: Python<'_>, view: &FeatureView, exception: PyErr) -> Error {
    let line = helper(py, "line_of")
        .and_then(|helper| helper.call1((view.name.as_str(), exception.traceback(py))))
        .and_then(|line| line.extract::<Option<u32>>())
        .unwrap_or_default();
    let place = line.map(|line| format!(" in line {line} of its function")).unwrap_or_default();
    let told = helper(py, "told").and_then(|helper| helper.call1((exception.value(py),)));
    let reason = told.and_then(|text| text.extract()).unwrap_or_else(|_| exception.to_string());
    failed(view, format_args!("failed{place}")).with_source(Cause { reason, exception })
}

/// The exception behind an error, for a caller in the same process.
pub(crate) struct Cause {
    reason: String,
    pub(crate) exception: PyErr,
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Cause {}

/// What a worker process runs: requests as `feast_server`'s workers send them, answered one after the other.
#[pyclass(module = "feast._feast", frozen)]
pub(crate) struct Transformations {
    /// The views that were computed here, those of late first. To compare messages costs less than to hash one.
    views: Mutex<Vec<Arc<Known>>>,
}

/// A view as it came, and what was made of it once.
struct Known {
    message: Vec<u8>,
    view: Arc<FeatureView>,
    mode: Mode,
    function: Py<PyAny>,
    /// What is computed.
    features: SchemaRef,
    /// The last schema of an input, as it came and as it is.
    input: Mutex<Option<(Vec<u8>, SchemaRef)>>,
}

/// A request, while its calls are made.
#[pyclass(module = "feast._feast", frozen)]
pub(crate) struct Prepared {
    known: Arc<Known>,
    wanted: Wanted,
    /// For each call the number of its rows, and its frame.
    calls: Vec<(usize, Option<Py<PyAny>>)>,
}

#[pymethods]
impl Transformations {
    #[new]
    fn new() -> Self {
        Self { views: Mutex::default() }
    }

    /// A function, the arguments of each call and what [`finish`](Self::finish) needs; or the answer, where there is
    /// nothing to call.
    fn prepare<'py>(&self, py: Python<'py>, request: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let answer = match WorkerRequest::decode(request) {
            Ok(request) if request.wanted == Wanted::Expressions => expressions(py, request.view),
            Ok(request) => match self.prepared(py, &request) {
                Ok((function, arguments, prepared)) => {
                    return Ok((function, arguments, Bound::new(py, prepared)?).into_pyobject(py)?.into_any());
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        Ok(PyBytes::new(py, &answer.unwrap_or_else(|error| WorkerAnswer::failure(&error))).into_any())
    }

    /// The answer to a request of whose calls these were made: for each whether the function returned, and what it
    /// returned or raised.
    fn finish<'py>(
        &self,
        py: Python<'py>,
        prepared: &Prepared,
        made: Vec<(bool, Bound<'py, PyAny>)>,
    ) -> Bound<'py, PyBytes> {
        let Prepared { known, wanted, calls } = prepared;
        let Known { view, mode, features, .. } = known.as_ref();
        let mut types = None;
        let results = made.into_iter().zip(calls).map(|((returned, result), (n_rows, given))| {
            if !returned {
                return Err(raised(py, view, PyErr::from_value(result)));
            }
            let given = given.as_ref().map(|frame| frame.bind(py).clone());
            let (function, arguments) = (known.function.bind(py).clone(), PyTuple::empty(py));
            let call = Call { function, arguments, mode: *mode, n_rows: *n_rows, given };
            if *wanted == Wanted::Fields {
                types = Some(call.types(py, view, result)?);
                return Ok(RecordBatch::new_empty(Arc::clone(features)));
            }
            call.rows(py, view, features, result)
        });
        let results: Vec<Result<RecordBatch>> = results.collect();
        let answer = match types {
            Some(types) => WorkerAnswer::Fields(types),
            None => WorkerAnswer::Calls(results),
        };
        PyBytes::new(py, &answer.encode(features))
    }
}

/// The view of a message.
fn view_of(message: &[u8]) -> Result<Arc<FeatureView>> {
    match feast_proto::decode_object(ObjectKind::OnDemandFeatureView, message)? {
        RegistryObject::FeatureView(view) => Ok(view),
        _ => Err(Error::internal("a view was decoded as something else")),
    }
}

/// The answer that tells what the function of a view computes.
fn expressions(py: Python<'_>, message: &[u8]) -> Result<Vec<u8>> {
    let view = view_of(message)?;
    let text = Function::of(&view)?.expressions(py).map_err(|error| raised(py, &view, error))?;
    Ok(WorkerAnswer::Expressions(text).encode(&WorkerAnswer::schema(&view)))
}

impl Transformations {
    fn prepared<'py>(
        &self,
        py: Python<'py>,
        request: &WorkerRequest<'_>,
    ) -> Result<(Bound<'py, PyAny>, Bound<'py, PyList>, Prepared)> {
        let known = self.known(py, request.view)?;
        let raised = |error: PyErr| raised(py, &known.view, error);
        let input = request.input(&known.schema(request.schema)?)?;
        let (mut start, mut function) = (0, known.function.bind(py).clone());
        let arguments = PyList::empty(py);
        let mut calls = Vec::with_capacity(request.calls.len());
        for n_rows in request.calls.iter().copied() {
            let call = Call::of(py, known.mode, known.function.bind(py), &input.slice(start, n_rows));
            let call = call.map_err(raised)?;
            arguments.append(call.arguments).map_err(raised)?;
            function = call.function;
            calls.push((n_rows, call.given.map(Bound::unbind)));
            start += n_rows;
        }
        Ok((function, arguments, Prepared { known: Arc::clone(&known), wanted: request.wanted, calls }))
    }

    /// The view of a message.
    fn known(&self, py: Python<'_>, message: &[u8]) -> Result<Arc<Known>> {
        {
            let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = views.iter().position(|known| known.message == message) {
                views[..=at].rotate_right(1);
                return Ok(Arc::clone(&views[0]));
            }
        }
        let view = view_of(message)?;
        let code = Function::of(&view)?;
        let (mode, function) = (code.mode, code.load(py, &view)?.unbind());
        let (message, features, input) = (message.to_vec(), WorkerAnswer::schema(&view), Mutex::default());
        let known = Arc::new(Known { message, view, mode, function, features, input });
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.truncate(MOST_FUNCTIONS - 1);
        views.insert(0, Arc::clone(&known));
        Ok(known)
    }
}

impl Known {
    fn schema(&self, bytes: &[u8]) -> Result<SchemaRef> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        match &*input {
            Some((known, schema)) if known == bytes => Ok(Arc::clone(schema)),
            _ => {
                let schema = WorkerRequest::schema_of(bytes)?;
                *input = Some((bytes.to_vec(), Arc::clone(&schema)));
                Ok(schema)
            }
        }
    }
}
