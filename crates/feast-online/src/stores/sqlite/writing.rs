//! Writing: the rows of a key are replaced together, unless what is stored for it is newer.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::{concat, concat_batches, take};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use feast_core::{EntityKeys, Error, Field, OnlineTable, OnlineWrite, Result, ValueType};
use hashbrown::HashMap;
use rusqlite::types::{ToSql, ToSqlOutput, Value as SqlValue, ValueRef};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::super::cells::WriteColumn;
use super::super::memory::missing_table;
use super::super::newest::{Recency, Recent as _, newest_rows};
use super::file::Database;
use super::reading::{seconds, with_fraction};
use super::tables::{Shape, quoted};

/// Rows of one transaction: many enough to be fast, and few enough that others who write wait for a moment only.
pub(super) const TRANSACTION_ROWS: usize = 20_000;

/// Writes of so many rows are put together with others that wait.
const SMALL_WRITE_ROWS: usize = 1_000;

/// Features that one statement inserts.
const STATEMENT_FEATURES: usize = 64;

pub(super) struct OwnedRows {
    pub(super) table: OnlineTable,
    pub(super) keys: EntityKeys,
    pub(super) rows: RecordBatch,
    pub(super) event_timestamps: TimestampMicrosecondArray,
    pub(super) created_timestamps: Option<TimestampMicrosecondArray>,
}

impl OwnedRows {
    /// The rows of several writes to the same table, in order.
    fn joined(writes: &[&Self]) -> Result<Self> {
        let first = writes.first().ok_or_else(|| Error::internal("there is nothing to write"))?;
        let times = |times: &dyn Fn(&Self) -> Option<TimestampMicrosecondArray>| -> Result<_> {
            let times: Vec<_> = writes.iter().filter_map(|write| times(write)).collect();
            let times: Vec<&dyn Array> = times.iter().map(|times| times as &dyn Array).collect();
            Ok(concat(&times)?.as_primitive::<TimestampMicrosecondType>().clone())
        };
        let encoded: Vec<&dyn Array> = writes.iter().map(|write| &write.keys.encoded as &dyn Array).collect();
        Ok(Self {
            table: first.table.clone(),
            keys: EntityKeys {
                columns: concat_batches(
                    first.keys.columns.schema_ref(),
                    writes.iter().map(|write| &write.keys.columns),
                )?,
                encoded: concat(&encoded)?.as_binary().clone(),
            },
            rows: concat_batches(first.rows.schema_ref(), writes.iter().map(|write| &write.rows))?,
            event_timestamps: times(&|write| Some(write.event_timestamps.clone()))?,
            created_timestamps: match &first.created_timestamps {
                Some(_) => Some(times(&|write| write.created_timestamps.clone())?),
                None => None,
            },
        })
    }

    fn as_write(&self) -> OnlineWrite<'_> {
        OnlineWrite {
            table: &self.table,
            keys: &self.keys,
            rows: &self.rows,
            event_timestamps: &self.event_timestamps,
            created_timestamps: self.created_timestamps.as_ref(),
        }
    }
}

impl Database {
    /// Writes rows. Small writes that wait for the same moment are one transaction.
    pub(super) fn write(&self, rows: OwnedRows) -> Result<()> {
        let n_rows = rows.keys.len();
        if n_rows > SMALL_WRITE_ROWS {
            return self.write_alone(&rows);
        }
        let written = self.writes.run(rows, n_rows, |waiting| match waiting.as_slice() {
            // Together or not at all; then each by itself, so that nobody gets somebody else's error.
            [_, _, ..] if self.write_together(&waiting).is_ok() => waiting.iter().map(|_| Ok(())).collect(),
            rows => rows.iter().map(|rows| self.write_alone(rows)).collect(),
        });
        written.unwrap_or_else(|| Err(Error::internal("whoever was to write the rows has not")))
    }

    fn write_together(&self, writes: &[OwnedRows]) -> Result<()> {
        let writes = joined(writes)?;
        let writes: Vec<OnlineWrite<'_>> = writes.iter().map(OwnedRows::as_write).collect();
        let parts = writes.iter().map(|write| Part::new(write, &newest_rows(write))).collect::<Result<Vec<_>>>()?;
        let written = self.with_writer(false, |connection| {
            let begin = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let transaction = begin.map_err(|error| self.failed("write to", error))?;
            for (write, part) in writes.iter().zip(&parts) {
                self.write_part(&transaction, write.table, part)?;
            }
            transaction.commit().map_err(|error| self.failed("write to", error))
        })?;
        written.ok_or_else(|| Error::internal("there is no file to write to"))
    }

    fn write_part(&self, transaction: &Connection, table: &OnlineTable, part: &Part<'_>) -> Result<()> {
        let name = table.name();
        let shape = Shape::of(transaction, &name)
            .map_err(|error| self.failed("write to", error))?
            .ok_or_else(|| missing_table(table, self))?;
        self.upsert(transaction, &name, shape, part).map_err(|error| self.failed("write to", error))
    }

    fn write_alone(&self, rows: &OwnedRows) -> Result<()> {
        let write = rows.as_write();
        let newest = newest_rows(&write);
        // Even nothing is not written to a table that does not exist.
        let parts = newest.chunks(TRANSACTION_ROWS).chain(newest.is_empty().then_some(newest.as_slice()));
        for part in parts {
            // Made without the lock, so that another write can go on meanwhile.
            let part = Part::new(&write, part)?;
            let written = self.with_writer(false, |connection| {
                let begin = connection.transaction_with_behavior(TransactionBehavior::Immediate);
                let transaction = begin.map_err(|error| self.failed("write to", error))?;
                self.write_part(&transaction, write.table, &part)?;
                transaction.commit().map_err(|error| self.failed("write to", error))
            })?;
            written.ok_or_else(|| missing_table(write.table, self))?;
        }
        Ok(())
    }

    fn upsert(&self, connection: &Connection, name: &str, shape: Shape, part: &Part<'_>) -> rusqlite::Result<()> {
        let cells = Cells {
            value_text: shape.value_text,
            value_num: shape.value_num && self.config.enable_openai_compatible_store,
            vector_value: shape.vector_value && self.config.vector_enabled,
            exact: shape.exact,
        };
        let table = quoted(name);
        // The features of a key are inserted by one statement, unless they are very many.
        let mut upserts = Vec::new();
        for features in part.columns.chunks(STATEMENT_FEATURES) {
            let mut upsert = connection.prepare_cached(&cells.upsert(&table, features.len()))?;
            for (at, column) in features.iter().enumerate() {
                upsert.raw_bind_parameter(cells.parameter(at), column.field.name.as_str())?;
            }
            upserts.push((upsert, features));
        }
        let fractions = if shape.exact { "event_ts_micros, created_ts_micros" } else { "NULL, NULL" };
        let mut stored = connection.prepare_cached(&format!(
            "SELECT event_ts, created_ts, {fractions}, feature_name, rowid FROM {table} WHERE entity_key = ?"
        ))?;
        let mut update = connection.prepare_cached(&cells.update(&table))?;
        let mut remove = connection.prepare_cached(&format!("DELETE FROM {table} WHERE entity_key = ?"))?;
        let features: HashMap<&[u8], usize> =
            part.columns.iter().enumerate().map(|(at, column)| (column.field.name.as_bytes(), at)).collect();
        let mut places = vec![None; part.columns.len()];
        let is_empty =
            connection.query_row(&format!("SELECT 1 FROM {table} LIMIT 1"), [], |_| Ok(())).optional()?.is_none();
        for (row, recency) in part.recencies.iter().enumerate() {
            let key = part.keys.value(row);
            if !is_empty {
                let stored = StoredRow::of(&mut stored, key, &features, &mut places)?;
                if stored.newest.is_some_and(|stored| stored > self.rounded(*recency, shape)) {
                    continue;
                }
                if stored.has_more {
                    remove.execute([key])?;
                } else if places.iter().all(Option::is_some) {
                    // What is there already is found by its place, without a look into the index of names.
                    cells.bind_times(&mut update, *recency)?;
                    for (column, place) in part.columns.iter().zip(&places) {
                        update.raw_bind_parameter(1, place)?;
                        cells.bind_feature(&mut update, cells.parameter(0) + 1, column, row)?;
                        update.raw_execute()?;
                    }
                    continue;
                }
            }
            for (upsert, features) in &mut upserts {
                upsert.raw_bind_parameter(1, key)?;
                cells.bind_times(upsert, *recency)?;
                for (at, column) in features.iter().enumerate() {
                    cells.bind_feature(upsert, cells.parameter(at) + 1, column, row)?;
                }
                upsert.raw_execute()?;
            }
        }
        Ok(())
    }

    /// What of a recency a table can keep.
    fn rounded(&self, recency: Recency, shape: Shape) -> Recency {
        let round = |micros: i64| if shape.exact { micros } else { micros.div_euclid(1_000_000) * 1_000_000 };
        Recency { event: round(recency.event), created: recency.created.map(round) }
    }
}

/// The writes, those to the same table as one: of rows with the same key, the newest alone is written.
fn joined(writes: &[OwnedRows]) -> Result<Vec<OwnedRows>> {
    let mut tables: Vec<Vec<&OwnedRows>> = Vec::new();
    for write in writes {
        let same = |known: &&mut Vec<&OwnedRows>| {
            known[0].table == write.table && known[0].created_timestamps.is_some() == write.created_timestamps.is_some()
        };
        match tables.iter_mut().find(same) {
            Some(table) => table.push(write),
            None => tables.push(vec![write]),
        }
    }
    tables.iter().map(|writes| OwnedRows::joined(writes)).collect()
}

/// What is stored for a key.
#[derive(Default)]
struct StoredRow {
    /// The most recent of its features.
    newest: Option<Recency>,
    /// Whether there are features that the view had once. They would come back with it, although they are older.
    has_more: bool,
}

impl StoredRow {
    /// Also says in which row of the table each feature is.
    fn of(
        statement: &mut rusqlite::CachedStatement<'_>,
        key: &[u8],
        features: &HashMap<&[u8], usize>,
        places: &mut [Option<i64>],
    ) -> rusqlite::Result<Self> {
        let mut rows = statement.query([key])?;
        places.fill(None);
        let mut stored = Self::default();
        while let Some(row) = rows.next()? {
            let created = match row.get_ref(1)? {
                ValueRef::Null => None,
                value => Some(with_fraction(seconds(value), row.get_ref(3)?)),
            };
            let event = with_fraction(seconds(row.get_ref(0)?), row.get_ref(2)?);
            stored.newest = stored.newest.max(Some(Recency { event, created }));
            match row.get_ref(4)?.as_bytes().ok().and_then(|name| features.get(name)) {
                Some(feature) => places[*feature] = Some(row.get(5)?),
                None => stored.has_more = true,
            }
        }
        Ok(stored)
    }
}

/// Rows of one transaction: each key once, in order of the keys.
struct Part<'a> {
    keys: BinaryArray,
    recencies: Vec<Recency>,
    columns: Vec<WriteColumn<'a>>,
}

impl<'a> Part<'a> {
    fn new(write: &OnlineWrite<'a>, rows: &[usize]) -> Result<Self> {
        let indices = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
        let columns = write.table.columns.iter().zip(write.rows.columns());
        let column = |(field, array): (&'a Field, &ArrayRef)| WriteColumn::new(field, take(array, &indices, None)?);
        Ok(Self {
            keys: take(&write.keys.encoded, &indices, None)?.as_binary().clone(),
            recencies: rows.iter().map(|row| write.recency(*row)).collect(),
            columns: columns.map(column).collect::<Result<_>>()?,
        })
    }
}

/// Which columns are written, and where their values are among the parameters of a statement: first what all features
/// of a row share, then name and cells of each feature.
#[derive(Clone, Copy)]
struct Cells {
    value_text: bool,
    value_num: bool,
    vector_value: bool,
    exact: bool,
}

impl Cells {
    /// Key, event time and created time, each time with its fraction.
    const SHARED: usize = 5;

    fn per_feature(self) -> usize {
        2 + usize::from(self.value_text) + usize::from(self.value_num) + usize::from(self.vector_value)
    }

    /// The number of the first parameter of a feature.
    fn parameter(self, feature: usize) -> usize {
        Self::SHARED + 1 + feature * self.per_feature()
    }

    fn upsert(self, table: &str, n_features: usize) -> String {
        let optional =
            [(self.value_text, "value_text"), (self.value_num, "value_num"), (self.vector_value, "vector_value")];
        let of_feature = ["feature_name", "value"]
            .into_iter()
            .chain(optional.into_iter().filter_map(|(has, name)| has.then_some(name)));
        let of_row = ["entity_key", "event_ts", "created_ts"].into_iter();
        let fractions = ["event_ts_micros", "created_ts_micros"].into_iter().filter(|_| self.exact);
        let names: Vec<&str> = of_row.chain(fractions).chain(of_feature).collect();
        let shared = if self.exact { "?1, ?2, ?3, ?4, ?5" } else { "?1, ?2, ?3" };
        let tuples: Vec<String> = (0..n_features)
            .map(|feature| {
                let first = self.parameter(feature);
                let own: Vec<String> = (first..first + self.per_feature()).map(|number| format!("?{number}")).collect();
                format!("({shared}, {})", own.join(", "))
            })
            .collect();
        let is_value = |name: &&&str| !["entity_key", "feature_name"].contains(*name);
        let updates: Vec<String> =
            names.iter().filter(is_value).map(|name| format!("{name} = excluded.{name}")).collect();
        format!(
            "INSERT INTO {table} ({}) VALUES {} ON CONFLICT (entity_key, feature_name) DO UPDATE SET {}",
            names.join(", "),
            tuples.join(", "),
            updates.join(", ")
        )
    }

    /// Changes one feature, whose row is the first parameter; the others are those of an upsert of one feature.
    fn update(self, table: &str) -> String {
        let value = self.parameter(0) + 1;
        let mut names = vec![("event_ts", 2), ("created_ts", 3)];
        if self.exact {
            names.extend([("event_ts_micros", 4), ("created_ts_micros", 5)]);
        }
        let optional =
            [(self.value_text, "value_text"), (self.value_num, "value_num"), (self.vector_value, "vector_value")];
        let cells = optional.into_iter().filter_map(|(has, name)| has.then_some(name));
        names.extend(std::iter::once("value").chain(cells).zip(value..));
        let changes: Vec<String> = names.iter().map(|(name, number)| format!("{name} = ?{number}")).collect();
        format!("UPDATE {table} SET {} WHERE rowid = ?1", changes.join(", "))
    }

    fn bind_times(self, upsert: &mut rusqlite::Statement<'_>, recency: Recency) -> rusqlite::Result<()> {
        upsert.raw_bind_parameter(2, recency.event.div_euclid(1_000_000))?;
        upsert.raw_bind_parameter(3, recency.created.map(|created| created.div_euclid(1_000_000)))?;
        if self.exact {
            let fraction = |micros: i64| Some(micros.rem_euclid(1_000_000)).filter(|micros| *micros > 0);
            upsert.raw_bind_parameter(4, fraction(recency.event))?;
            upsert.raw_bind_parameter(5, recency.created.and_then(fraction))?;
        }
        Ok(())
    }

    fn bind_feature(
        self,
        upsert: &mut rusqlite::Statement<'_>,
        first: usize,
        column: &WriteColumn<'_>,
        row: usize,
    ) -> rusqlite::Result<()> {
        upsert.raw_bind_parameter(first, column.cells.value(row))?;
        let mut parameter = first;
        if self.value_text {
            parameter += 1;
            upsert.raw_bind_parameter(parameter, column.text(row))?;
        }
        if self.value_num {
            parameter += 1;
            upsert.raw_bind_parameter(parameter, column.number(row))?;
        }
        if self.vector_value {
            upsert.raw_bind_parameter(parameter + 1, vector(column, row))?;
        }
        Ok(())
    }
}

/// What Feast keeps for its vector search: vectors as 32 bit floats, plain values as they are.
fn vector<'a>(column: &'a WriteColumn<'_>, row: usize) -> SqlCell<'a> {
    if column.array.is_null(row) {
        return SqlCell(ToSqlOutput::Owned(SqlValue::Null));
    }
    let cell = match column.field.value_type {
        ValueType::FloatList => {
            let items = column.array.as_list::<i32>().value(row);
            let floats = items.as_primitive::<Float32Type>().values().iter();
            SqlValue::Blob(floats.flat_map(|float| float.to_le_bytes()).collect())
        }
        ValueType::String => {
            return SqlCell(ToSqlOutput::Borrowed(column.array.as_string::<i32>().value(row).into()));
        }
        ValueType::Bytes => {
            return SqlCell(ToSqlOutput::Borrowed(ValueRef::Blob(column.array.as_binary::<i32>().value(row))));
        }
        ValueType::Int32 => SqlValue::Integer(i64::from(column.array.as_primitive::<Int32Type>().value(row))),
        ValueType::Int64 => SqlValue::Integer(column.array.as_primitive::<Int64Type>().value(row)),
        ValueType::Bool => SqlValue::Integer(i64::from(column.array.as_boolean().value(row))),
        ValueType::Float | ValueType::Double => column.number(row).map_or(SqlValue::Null, SqlValue::Real),
        _ => SqlValue::Null,
    };
    SqlCell(ToSqlOutput::Owned(cell))
}

struct SqlCell<'a>(ToSqlOutput<'a>);

impl ToSql for SqlCell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.clone())
    }
}
