//! The answer of an online request, as Python values, Arrow columns or Feast's message.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchIterator};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use feast::OnlineAnswer;
use feast_core::{Error, Result, ValueType};
use feast_online::{EntityColumn, EntityRows, EntityValue, StoredFeatures};
use feast_proto::types::Value;
use feast_proto::types::value::Val;
use feast_proto::value_codec::{bool_of, double_of, float_of, int32_of, int64_of, text_of};
use prost::Message;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBool, PyBytes, PyCapsule, PyDict, PyFloat, PyInt, PyList, PySet, PyString, PyTuple};

use crate::errors::{IntoPyResult, to_python};
use crate::frames::export;

/// The answer of an online request, and its columns once somebody asked for them.
#[pyclass(module = "feast._feast", frozen)]
pub(crate) struct OnlineFeatures {
    stored: Option<StoredFeatures>,
    columns: OnceLock<feast_online::OnlineFeatures>,
}

impl From<OnlineAnswer> for OnlineFeatures {
    fn from(answer: OnlineAnswer) -> Self {
        match answer {
            OnlineAnswer::Stored(features) => Self { stored: Some(features), columns: OnceLock::new() },
            OnlineAnswer::Columns(features) => Self { stored: None, columns: features.into() },
        }
    }
}

impl OnlineFeatures {
    fn columns(&self) -> Result<&feast_online::OnlineFeatures> {
        if let (None, Some(stored)) = (self.columns.get(), &self.stored) {
            // Of two that do it at the same time one is kept.
            let _kept = self.columns.set(stored.columns()?);
        }
        self.columns.get().ok_or_else(|| Error::internal("an answer has no columns"))
    }
}

#[pymethods]
impl OnlineFeatures {
    /// Column name -> values, in response order; with event timestamps also `<column>__ts` -> epoch seconds.
    #[pyo3(signature = (include_event_timestamps=false))]
    fn to_dict<'py>(&self, py: Python<'py>, include_event_timestamps: bool) -> PyResult<Bound<'py, PyDict>> {
        let classes = Classes::default();
        if let (Some(stored), false) = (&self.stored, include_event_timestamps) {
            return stored_dict(py, stored, &classes);
        }
        let answer = PyDict::new(py);
        let features = self.columns().py()?;
        for column in &features.columns {
            answer.set_item(&*column.name, values(py, &column.values, column.value_type, &classes)?)?;
        }
        if include_event_timestamps {
            for column in &features.columns {
                let seconds = (0..features.n_rows).map(|row| column.event_timestamp_micros(row).div_euclid(1_000_000));
                answer.set_item(format!("{}__ts", column.name), PyList::new(py, seconds.collect::<Vec<i64>>())?)?;
            }
        }
        Ok(answer)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let features = self.columns().py()?;
        let fields: Vec<_> =
            features.columns.iter().map(|column| column.value_type.arrow_field(&column.name)).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let columns: Vec<ArrayRef> = features.columns.iter().map(|column| Arc::clone(&column.values)).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(Error::from).py()?;
        export(py, Box::new(RecordBatchIterator::new([Ok(batch)], schema)), requested_schema)
    }

    /// Serialized `feast.serving.GetOnlineFeaturesResponse`.
    fn to_proto<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let message = feast_server::online_response(self.columns().py()?).py()?;
        Ok(PyBytes::new(py, &message.encode_to_vec()))
    }

    /// Number of rows.
    fn __len__(&self) -> PyResult<usize> {
        match &self.stored {
            Some(stored) => Ok(stored.n_rows),
            None => Ok(self.columns().py()?.n_rows),
        }
    }
}

/// Column name -> values, from values as the store keeps them.
fn stored_dict<'py>(py: Python<'py>, features: &StoredFeatures, classes: &Classes) -> PyResult<Bound<'py, PyDict>> {
    let answer = PyDict::new(py);
    for column in &features.entity_columns {
        answer.set_item(&column.name, values(py, &column.values, column.value_type, classes)?)?;
    }
    for (view, stored) in features.plan.views.iter().zip(&features.views) {
        for (position, feature) in view.features.iter().enumerate().filter(|(_, feature)| feature.returned) {
            let value_type = feature.field.value_type;
            let list = match stored_values(py, stored.values(position), value_type)? {
                Some(list) => list,
                None => values(py, &features.column(view, stored, position).py()?, value_type, classes)?,
            };
            answer.set_item(&*feature.output, list)?;
        }
    }
    Ok(answer)
}

/// Values of an ordinary type as a list; `None` where one of them is something else.
fn stored_values<'py, 'a>(
    py: Python<'py>,
    cells: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
    value_type: ValueType,
) -> PyResult<Option<Bound<'py, PyList>>> {
    let is_other = Cell::new(false);
    macro_rules! list {
        ($value_of:expr) => {
            PyList::new(
                py,
                cells.map(|cell| {
                    let cell = cell.filter(|cell| !cell.is_empty() && !is_other.get())?;
                    let value = $value_of(cell);
                    is_other.set(value.is_none());
                    value
                }),
            )?
        };
    }
    let list = match value_type {
        ValueType::Int32 => list!(int32_of),
        ValueType::Int64 => list!(int64_of),
        ValueType::Float => list!(|cell| float_of(cell).map(f64::from)),
        ValueType::Double => list!(double_of),
        ValueType::Bool => list!(bool_of),
        ValueType::String => list!(|cell| text_of(ValueType::String, cell)),
        _ => return Ok(None),
    };
    Ok((!is_other.get()).then_some(list))
}

/// Python classes that values are made with, looked up once per answer.
#[derive(Default)]
pub(crate) struct Classes {
    uuid: std::cell::OnceCell<Py<PyAny>>,
    decimal: std::cell::OnceCell<Py<PyAny>>,
    json: std::cell::OnceCell<Py<PyAny>>,
    datetime: std::cell::OnceCell<(Py<PyAny>, Py<PyAny>)>,
}

impl Classes {
    fn uuid<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
        lookup(py, &self.uuid, "uuid", "UUID")?.bind(py).call1((text,))
    }

    fn decimal<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
        lookup(py, &self.decimal, "decimal", "Decimal")?.bind(py).call1((text,))
    }

    fn json<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
        lookup(py, &self.json, "json", "loads")?.bind(py).call1((text,))
    }

    /// A `datetime` in UTC.
    fn datetime<'py>(&self, py: Python<'py>, micros: i64) -> PyResult<Bound<'py, PyAny>> {
        let (epoch, duration) = match self.datetime.get() {
            Some(classes) => classes,
            None => {
                let epoch = py.import("feast._frames")?.getattr("EPOCH")?.unbind();
                let duration = py.import("datetime")?.getattr("timedelta")?.unbind();
                self.datetime.get_or_init(|| (epoch, duration))
            }
        };
        epoch.bind(py).add(duration.bind(py).call1((0, 0, micros))?)
    }
}

fn lookup<'a>(
    py: Python<'_>,
    cell: &'a std::cell::OnceCell<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'a Py<PyAny>> {
    if cell.get().is_none() {
        let found = py.import(module)?.getattr(name)?.unbind();
        let _ = cell.set(found);
    }
    cell.get().ok_or_else(|| to_python(&Error::internal("a Python class was not kept")))
}

/// A column as a list of Python values.
pub(crate) fn values<'py>(
    py: Python<'py>,
    column: &ArrayRef,
    value_type: ValueType,
    classes: &Classes,
) -> PyResult<Bound<'py, PyList>> {
    // Ordinary types need no look at the type of each value.
    match value_type {
        ValueType::Int32 => PyList::new(py, column.as_primitive::<Int32Type>()),
        ValueType::Int64 => PyList::new(py, column.as_primitive::<Int64Type>()),
        ValueType::Float => PyList::new(py, column.as_primitive::<Float32Type>().iter().map(|it| it.map(f64::from))),
        ValueType::Double => PyList::new(py, column.as_primitive::<Float64Type>()),
        ValueType::Bool => PyList::new(py, column.as_boolean()),
        ValueType::String => PyList::new(py, column.as_string::<i32>()),
        _ => {
            let values = (0..column.len()).map(|row| value(py, column, value_type, row, classes));
            PyList::new(py, values.collect::<PyResult<Vec<_>>>()?)
        }
    }
}

/// One value as Feast's users know it; a missing value is `None`.
fn value<'py>(
    py: Python<'py>,
    array: &ArrayRef,
    value_type: ValueType,
    row: usize,
    classes: &Classes,
) -> PyResult<Bound<'py, PyAny>> {
    use ValueType as T;
    if array.is_null(row) {
        return Ok(py.None().into_bound(py));
    }
    Ok(match value_type {
        T::Int32 => array.as_primitive::<Int32Type>().value(row).into_pyobject(py)?.into_any(),
        T::Int64 => array.as_primitive::<Int64Type>().value(row).into_pyobject(py)?.into_any(),
        T::Float => f64::from(array.as_primitive::<Float32Type>().value(row)).into_pyobject(py)?.into_any(),
        T::Double => array.as_primitive::<Float64Type>().value(row).into_pyobject(py)?.into_any(),
        T::Bool => PyBool::new(py, array.as_boolean().value(row)).to_owned().into_any(),
        T::String => PyString::new(py, array.as_string::<i32>().value(row)).into_any(),
        T::Json => classes.json(py, array.as_string::<i32>().value(row))?,
        T::Uuid | T::TimeUuid => classes.uuid(py, array.as_string::<i32>().value(row))?,
        T::Decimal => classes.decimal(py, array.as_string::<i32>().value(row))?,
        T::Bytes => PyBytes::new(py, array.as_binary::<i32>().value(row)).into_any(),
        T::UnixTimestamp => classes.datetime(py, array.as_primitive::<TimestampMicrosecondType>().value(row))?,
        other => match other.item() {
            Some(item) => {
                let items = array.as_list::<i32>().value(row);
                let list = PyList::empty(py);
                for position in 0..items.len() {
                    list.append(value(py, &items, item, position, classes)?)?;
                }
                if other.is_set() { PySet::new(py, list.iter())?.into_any() } else { list.into_any() }
            }
            None => {
                let message = Value::decode(array.as_binary::<i32>().value(row))
                    .map_err(|error| to_python(&Error::internal("a stored value is no message").with_source(error)))?;
                message_value(py, &message, classes)?
            }
        },
    })
}

/// A value of an open type (map, struct, nested list) as Python objects.
fn message_value<'py>(py: Python<'py>, message: &Value, classes: &Classes) -> PyResult<Bound<'py, PyAny>> {
    macro_rules! list {
        ($list:expr) => {
            PyList::new(py, $list.val.iter().cloned())?.into_any()
        };
    }
    let map = |map: &feast_proto::types::Map| -> PyResult<Bound<'py, PyAny>> {
        let dict = PyDict::new(py);
        for (key, entry) in &map.val {
            dict.set_item(key, message_value(py, entry, classes)?)?;
        }
        Ok(dict.into_any())
    };
    let maps = |maps: &feast_proto::types::MapList| -> PyResult<Bound<'py, PyAny>> {
        let made: PyResult<Vec<_>> = maps.val.iter().map(map).collect();
        Ok(PyList::new(py, made?)?.into_any())
    };
    let texts = |texts: &[String], make: &dyn Fn(&str) -> PyResult<Bound<'py, PyAny>>| -> PyResult<Bound<'py, PyAny>> {
        let made: PyResult<Vec<_>> = texts.iter().map(|text| make(text)).collect();
        Ok(PyList::new(py, made?)?.into_any())
    };
    let nested = |values: &feast_proto::types::RepeatedValue| -> PyResult<Bound<'py, PyAny>> {
        let made: PyResult<Vec<_>> = values.val.iter().map(|value| message_value(py, value, classes)).collect();
        Ok(PyList::new(py, made?)?.into_any())
    };
    let uuid = |text: &str| classes.uuid(py, text);
    let decimal = |text: &str| classes.decimal(py, text);
    let json = |text: &str| classes.json(py, text);
    let seconds = |seconds: i64| classes.datetime(py, seconds.saturating_mul(1_000_000));
    Ok(match &message.val {
        None | Some(Val::NullVal(_)) => py.None().into_bound(py),
        Some(Val::BytesVal(bytes)) => PyBytes::new(py, bytes).into_any(),
        Some(Val::StringVal(text)) => PyString::new(py, text).into_any(),
        Some(Val::Int32Val(number)) => number.into_pyobject(py)?.into_any(),
        Some(Val::Int64Val(number)) => number.into_pyobject(py)?.into_any(),
        Some(Val::DoubleVal(number)) => number.into_pyobject(py)?.into_any(),
        Some(Val::FloatVal(number)) => f64::from(*number).into_pyobject(py)?.into_any(),
        Some(Val::BoolVal(flag)) => PyBool::new(py, *flag).to_owned().into_any(),
        Some(Val::UnixTimestampVal(at)) => seconds(*at)?,
        Some(Val::BytesListVal(bytes)) => {
            PyList::new(py, bytes.val.iter().map(|item| PyBytes::new(py, item)))?.into_any()
        }
        Some(Val::StringListVal(list)) => list!(list),
        Some(Val::Int32ListVal(list)) => list!(list),
        Some(Val::Int64ListVal(list)) => list!(list),
        Some(Val::DoubleListVal(list)) => list!(list),
        Some(Val::FloatListVal(list)) => list!(list),
        Some(Val::BoolListVal(list)) => list!(list),
        Some(Val::UnixTimestampListVal(list)) => {
            let made: PyResult<Vec<_>> = list.val.iter().map(|at| seconds(*at)).collect();
            PyList::new(py, made?)?.into_any()
        }
        Some(Val::BytesSetVal(bytes)) => {
            PySet::new(py, bytes.val.iter().map(|item| PyBytes::new(py, item)))?.into_any()
        }
        Some(Val::StringSetVal(set)) => PySet::new(py, set.val.iter())?.into_any(),
        Some(Val::Int32SetVal(set)) => PySet::new(py, set.val.iter())?.into_any(),
        Some(Val::Int64SetVal(set) | Val::UnixTimestampSetVal(set)) => PySet::new(py, set.val.iter())?.into_any(),
        Some(Val::DoubleSetVal(set)) => PySet::new(py, set.val.iter())?.into_any(),
        Some(Val::FloatSetVal(set)) => PySet::new(py, set.val.iter())?.into_any(),
        Some(Val::BoolSetVal(set)) => PySet::new(py, set.val.iter())?.into_any(),
        Some(Val::MapVal(entries) | Val::StructVal(entries)) => map(entries)?,
        Some(Val::MapListVal(list) | Val::StructListVal(list)) => maps(list)?,
        Some(Val::JsonVal(text)) => json(text)?,
        Some(Val::JsonListVal(list)) => texts(&list.val, &json)?,
        Some(Val::UuidVal(text) | Val::TimeUuidVal(text)) => uuid(text)?,
        Some(Val::UuidListVal(list) | Val::TimeUuidListVal(list)) => texts(&list.val, &uuid)?,
        Some(Val::UuidSetVal(set) | Val::TimeUuidSetVal(set)) => {
            PySet::new(py, texts(&set.val, &uuid)?.try_iter()?.collect::<PyResult<Vec<_>>>()?)?.into_any()
        }
        Some(Val::DecimalVal(text)) => decimal(text)?,
        Some(Val::DecimalListVal(list)) => texts(&list.val, &decimal)?,
        Some(Val::DecimalSetVal(set)) => {
            PySet::new(py, texts(&set.val, &decimal)?.try_iter()?.collect::<PyResult<Vec<_>>>()?)?.into_any()
        }
        Some(Val::ListVal(list) | Val::SetVal(list)) => nested(list)?,
        Some(Val::ZonedTimestampVal(at)) => {
            let zone = py.import("zoneinfo")?.getattr("ZoneInfo")?.call1((at.zone.as_str(),))?;
            seconds(at.unix_timestamp)?.call_method1("astimezone", (zone,))?
        }
        Some(Val::ScalarMapVal(entries)) => {
            use feast_proto::types::map_key::Key;
            let dict = PyDict::new(py);
            for entry in &entries.val {
                let key = match entry.key.as_ref().and_then(|key| key.key.as_ref()) {
                    Some(Key::Int32Key(key)) => key.into_pyobject(py)?.into_any(),
                    Some(Key::Int64Key(key)) => key.into_pyobject(py)?.into_any(),
                    Some(Key::FloatKey(key)) => f64::from(*key).into_pyobject(py)?.into_any(),
                    Some(Key::DoubleKey(key)) => key.into_pyobject(py)?.into_any(),
                    Some(Key::BoolKey(key)) => PyBool::new(py, *key).to_owned().into_any(),
                    Some(Key::UnixTimestampKey(key)) => seconds(*key)?,
                    Some(Key::BytesKey(key)) => PyBytes::new(py, key).into_any(),
                    Some(Key::UuidKey(key) | Key::TimeUuidKey(key)) => uuid(key)?,
                    Some(Key::DecimalKey(key)) => decimal(key)?,
                    None => continue,
                };
                let held = entry.value.clone().unwrap_or_default();
                dict.set_item(key, message_value(py, &held, classes)?)?;
            }
            dict.into_any()
        }
    })
}

/// The caller's columns: lists of plain Python values.
fn entity_rows(entities: &Bound<'_, PyDict>) -> PyResult<EntityRows> {
    let columns: PyResult<Vec<(String, EntityColumn)>> = entities
        .iter()
        .map(|(name, list)| {
            let name: String = name.extract()?;
            let place = Place { table: "the entity rows", column: &name };
            let column: PyResult<Vec<EntityValue>> = list.try_iter()?.map(|item| entity_value(place, &item?)).collect();
            Ok((name, EntityColumn::Values(column?)))
        })
        .collect();
    EntityRows::new(columns?).py()
}

/// The rows of the caller. Nearly all are dictionaries of plain values; any others are brought to columns by Python, which
/// also tells what is wrong with them.
pub(crate) fn given_rows(rows: &Bound<'_, PyAny>) -> PyResult<EntityRows> {
    if let Some(plain) = rows.cast_exact::<PyList>().ok().and_then(plain_rows) {
        return Ok(plain);
    }
    let columns = rows.py().import("feast._store.entity_rows")?.call_method1("entity_columns", (rows,))?;
    entity_rows(columns.cast::<PyDict>()?)
}

/// Rows that are dictionaries with the same names and values that are plain already; `None` for any others.
fn plain_rows(rows: &Bound<'_, PyList>) -> Option<EntityRows> {
    let rows: Vec<Bound<'_, PyDict>> = rows.iter().map(|row| row.cast_into_exact().ok()).collect::<Option<_>>()?;
    let names: Vec<Bound<'_, PyString>> =
        rows.first()?.keys().iter().map(|name| name.cast_into_exact().ok()).collect::<Option<_>>()?;
    if rows.iter().any(|row| row.len() != names.len()) {
        return None;
    }
    let column = |name: &Bound<'_, PyString>| {
        let values = rows.iter().map(|row| plain_value(&row.get_item(name).ok()??));
        Some((name.to_str().ok()?.to_owned(), EntityColumn::Values(values.collect::<Option<_>>()?)))
    };
    EntityRows::new(names.iter().map(column).collect::<Option<_>>()?).ok()
}

fn plain_value(value: &Bound<'_, PyAny>) -> Option<EntityValue> {
    if value.is_exact_instance_of::<PyInt>() {
        return value.extract().ok().map(EntityValue::Int);
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        return text.to_str().ok().map(|text| EntityValue::String(text.to_owned()));
    }
    if value.is_exact_instance_of::<PyFloat>() {
        return value.extract().ok().map(EntityValue::Float);
    }
    None
}

/// Where a value stands, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'static str,
    pub(crate) column: &'a str,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "column `{}` of {}", self.column, self.table)
    }
}

/// A plain Python value.
pub(crate) fn entity_value(place: Place<'_>, item: &Bound<'_, PyAny>) -> PyResult<EntityValue> {
    if item.is_none() {
        return Ok(EntityValue::Null);
    }
    // `bool` is a subclass of `int`, so it comes first.
    if let Ok(flag) = item.cast::<PyBool>() {
        return Ok(EntityValue::Bool(flag.is_true()));
    }
    if item.is_instance_of::<PyInt>() {
        return item.extract().map(EntityValue::Int).map_err(|_| {
            let digits: String = item.to_string().chars().take(40).collect();
            to_python(
                &Error::invalid_request(format!("{place} holds {digits}, which is no 64 bit integer"))
                    .with_hint("give a value between -2^63 and 2^63 - 1, or use text"),
            )
        });
    }
    if item.is_instance_of::<PyFloat>() {
        return Ok(EntityValue::Float(item.extract()?));
    }
    if let Ok(text) = item.cast::<PyString>() {
        return text.to_str().map(|text| EntityValue::String(text.to_owned())).map_err(|_| {
            let message = format!("{place} holds text that is not valid Unicode");
            to_python(&Error::invalid_request(message).with_hint("remove its surrogates"))
        });
    }
    if let Ok(bytes) = item.cast::<PyBytes>() {
        return Ok(EntityValue::Bytes(bytes.as_bytes().to_vec()));
    }
    let kind = item.get_type().name()?.to_string();
    // What pandas calls missing.
    if matches!(kind.as_str(), "NaTType" | "NAType") {
        return Ok(EntityValue::Null);
    }
    if item.hasattr("timestamp")? {
        let zone = item.getattr("tzinfo").ok().filter(|zone| !zone.is_none());
        let instant = match zone {
            Some(_) => item.clone(),
            // Without a zone it is UTC; Python would take the zone of the machine.
            None => {
                let utc = item.py().import("datetime")?.getattr("timezone")?.getattr("utc")?;
                item.call_method("replace", (), Some(&[("tzinfo", utc)].into_py_dict(item.py())?))?
            }
        };
        let seconds: f64 = instant.call_method0("timestamp")?.extract()?;
        return Ok(EntityValue::TimestampMicros((seconds * 1e6).round() as i64));
    }
    // NumPy scalars become plain ones, and its arrays lists.
    if let Ok(plain) = item.call_method0("tolist")
        && !plain.is(item)
    {
        return entity_value(place, &plain);
    }
    if item.is_instance_of::<PyList>() || item.is_instance_of::<PyTuple>() || item.is_instance_of::<PySet>() {
        let items: PyResult<Vec<EntityValue>> = item.try_iter()?.map(|item| entity_value(place, &item?)).collect();
        return Ok(EntityValue::List(items?));
    }
    if let Ok(dict) = item.cast::<PyDict>() {
        let entries: PyResult<Vec<(String, EntityValue)>> =
            dict.iter().map(|(key, item)| Ok((key.str()?.to_string(), entity_value(place, &item)?))).collect();
        return Ok(EntityValue::Map(entries?));
    }
    // UUID and Decimal are known by their text.
    if matches!(kind.as_str(), "UUID" | "Decimal") {
        return Ok(EntityValue::String(item.str()?.to_str()?.to_owned()));
    }
    Err(to_python(
        &Error::invalid_request(format!("{place} holds a value of type `{kind}`, which is not understood"))
            .with_hint("give numbers, texts, bytes, booleans, times, lists or dictionaries"),
    ))
}
