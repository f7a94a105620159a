//! An online store that a team wrote in Python against Feast's base class.

use std::fmt;
use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::{Field as ArrowField, Schema};
use async_trait::async_trait;
use feast::RepoConfig;
use feast_core::{
    ENTITY_KEY_VERSION, Error, ErrorCode, Field, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Result,
    TableChange,
};
use feast_proto::value_codec::{ColumnDecoder, encode_column};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use serde_json::json;

use crate::adapters::{Class, in_thread, told};

/// Rows per call: each value becomes an object of Python.
const BATCH_ROWS: usize = 2_000;

/// The store that the configuration names by the path of a class. The class is imported when it is first used.
pub(crate) struct PythonOnlineStore(Arc<Class>);

impl PythonOnlineStore {
    /// # Errors
    /// `InvalidConfiguration` where entity keys are serialized in a form that the class would not get them in.
    pub(crate) fn new(path: &str, config: &RepoConfig) -> Result<Self> {
        if config.entity_key_serialization_version < ENTITY_KEY_VERSION {
            return Err(Error::invalid_configuration(format!(
                "online store `{path}` is a class of Python, for which `entity_key_serialization_version` has to be 3"
            ))
            .with_hint("leave the key out: it only says how our own stores write entity keys"));
        }
        Ok(Self(Arc::new(Class::new("feast._online_store", "Store", path, config))))
    }

    /// Calls the class on a thread that may wait.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T> + Send + 'static,
    ) -> Result<T> {
        let class = Arc::clone(&self.0);
        in_thread(move || Python::attach(|py| work(class.instance(py)?.bind(py)))).await?.map_err(|error| {
            told(error, ErrorCode::Unavailable, format!("the online store `{self}` failed"))
                .with_hint("the store is code of your own: correct it, or the line in feature_store.yaml")
        })
    }
}

/// The configuration may hold secrets.
impl fmt::Debug for PythonOnlineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonOnlineStore").field("class", &self.0.path()).finish_non_exhaustive()
    }
}

impl fmt::Display for PythonOnlineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.path())
    }
}

/// A table as the Python side reads it.
fn described(table: &OnlineTable) -> String {
    let fields = |fields: &[Field]| -> Vec<_> {
        fields.iter().map(|field| (field.name.clone(), field.value_type.name())).collect()
    };
    let table = json!({
        "project": table.project, "view": table.view, "join_keys": fields(&table.join_keys),
        "columns": fields(&table.columns), "tags": table.tags,
    });
    table.to_string()
}

fn to_bytes<'py>(py: Python<'py>, cells: &BinaryArray) -> Vec<Option<Bound<'py, PyBytes>>> {
    cells.iter().map(|cell| cell.map(|cell| PyBytes::new(py, cell))).collect()
}

/// Event time of each key, and for each wanted column a cell of each key.
type ReadRows = (Vec<Option<i64>>, Vec<Vec<Option<PyBackedBytes>>>);

fn rows_of(fields: &[Field], (times, columns): ReadRows) -> Result<OnlineRows> {
    let n_rows = times.len();
    let mut arrays = Vec::with_capacity(fields.len());
    for (field, cells) in fields.iter().zip(columns) {
        let mut column = ColumnDecoder::new(field.value_type, n_rows);
        for cell in cells {
            match cell {
                Some(cell) => column.push(&cell).map_err(|error| error.with_context("feature", &field.name))?,
                None => column.push_null(),
            }
        }
        arrays.push(column.finish()?);
    }
    // Without marks of opaque types, as rows of every store.
    let plain = |field: &Field| ArrowField::new(&field.name, field.value_type.arrow_type(), true);
    let schema = Schema::new(fields.iter().map(plain).collect::<Vec<_>>());
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    let values = RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)?;
    Ok(OnlineRows { values, event_timestamps: TimestampMicrosecondArray::from(times).with_timezone("UTC") })
}

#[async_trait]
impl OnlineStore for PythonOnlineStore {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        let asked = |read: &OnlineRead<'_>| {
            let fields: Vec<Field> = read.wanted.fields().cloned().collect();
            (described(&read.wanted.table), fields, read.keys.encoded.clone())
        };
        let asked: Vec<_> = reads.iter().map(asked).collect();
        let read = self.call(move |store| {
            let one = |(table, fields, keys): (String, Vec<Field>, BinaryArray)| {
                let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                let keys = to_bytes(store.py(), &keys);
                let rows: ReadRows = store.call_method1("read", (table, keys, names))?.extract()?;
                Ok((fields, rows))
            };
            asked.into_iter().map(one).collect::<PyResult<Vec<_>>>()
        });
        read.await?.into_iter().map(|(fields, rows)| rows_of(&fields, rows)).collect()
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        let columns = write.table.columns.iter().zip(write.rows.columns());
        let cells = columns
            .map(|(field, column)| {
                encode_column(column, field.value_type).map_err(|error| error.with_context("feature", &field.name))
            })
            .collect::<Result<Vec<_>>>()?;
        let (table, keys) = (described(write.table), write.keys.encoded.clone());
        let micros = |times: &TimestampMicrosecondArray| times.iter().collect::<Vec<_>>();
        let (events, created) = (micros(write.event_timestamps), write.created_timestamps.map(micros));
        self.call(move |store| {
            let py = store.py();
            let cells: Vec<_> = cells.iter().map(|column| to_bytes(py, column)).collect();
            store.call_method1("write", (table, to_bytes(py, &keys), cells, events, created)).map(drop)
        })
        .await
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        let changes: Vec<(bool, String)> = changes
            .iter()
            .map(|change| match change {
                TableChange::Ensure(table) => (true, described(table)),
                TableChange::Drop(table) => (false, described(table)),
            })
            .collect();
        self.call(move |store| store.call_method1("update", (changes,)).map(drop)).await
    }

    /// That the class can be made is all that can be asked of it.
    async fn check(&self) -> Result<()> {
        self.call(|_| Ok(())).await
    }

    fn has_tables_of_versions(&self) -> bool {
        false
    }

    fn preferred_batch_rows(&self) -> usize {
        BATCH_ROWS
    }
}
