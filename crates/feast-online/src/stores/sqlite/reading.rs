//! Reading: all tables of a request in one transaction, an entity by a statement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, BinaryArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondBuilder};
use arrow::datatypes::SchemaRef;
use feast_core::{Error, Field, OnlineRead, OnlineRows, OnlineTable, Result};
use feast_proto::value_codec::ColumnDecoder;
use hashbrown::HashMap;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::super::memory::missing_table;
use super::file::{Database, Opened};
use super::tables::{Shape, quoted};
use crate::write::plain_schema;

/// How soon it shows that another process has added our columns to a table of Feast's.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A read that can move to another thread.
pub(super) struct OwnedRead {
    wanted: Arc<Wanted>,
    keys: BinaryArray,
}

/// What is read of a table, which is the same for every request with the same plan.
struct Wanted {
    /// The table, without what reading does not need.
    table: OnlineTable,
    /// Its name in the database.
    name: String,
    fields: Vec<Field>,
    /// Where each feature is among the fields.
    positions: HashMap<Vec<u8>, usize>,
    schema: SchemaRef,
    /// The statement that reads one entity: with our column for parts of seconds, and without.
    exact: String,
    whole_seconds: String,
    /// Whether every feature of the table is wanted, so that the statement names none.
    all: bool,
}

impl OwnedRead {
    pub(super) fn of(read: &OnlineRead<'_>) -> Result<Self> {
        let wanted = read.wanted.memo.get(|| Ok::<_, Error>(Wanted::of(read)))?;
        Ok(Self { wanted, keys: read.keys.encoded.clone() })
    }
}

impl Wanted {
    fn of(read: &OnlineRead<'_>) -> Self {
        let table = OnlineTable {
            project: read.wanted.table.project.clone(),
            view: read.wanted.table.view.clone(),
            join_keys: Vec::new(),
            columns: Vec::new(),
            tags: feast_core::Tags::new(),
        };
        let wanted = read.wanted.fields().map(|field| Field::new(&field.name, field.value_type));
        let fields: Vec<Field> = wanted.collect();
        let name = table.name();
        let all = fields.len() == read.wanted.table.columns.len();
        let filter = match all {
            true => String::new(),
            false => format!(" AND feature_name IN ({})", vec!["?"; fields.len()].join(", ")),
        };
        let select = |fraction: &str| {
            let table = quoted(&name);
            format!("SELECT feature_name, value, event_ts, {fraction} FROM {table} WHERE entity_key = ?{filter}")
        };
        let positions = fields.iter().enumerate().map(|(position, field)| (field.name.clone().into_bytes(), position));
        Self {
            positions: positions.collect(),
            schema: plain_schema(&fields),
            exact: select("event_ts_micros"),
            whole_seconds: select("NULL"),
            table,
            name,
            fields,
            all,
        }
    }
}

/// All that is read sees the file as of one moment.
struct Moment<'c>(&'c Connection);

impl<'c> Moment<'c> {
    fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self(connection))
    }
}

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        let ended = self.0.prepare_cached("ROLLBACK").and_then(|mut rollback| rollback.execute([]));
        if let Err(error) = ended {
            tracing::debug!(%error, "the end of a read transaction");
        }
    }
}

impl Database {
    pub(super) fn read(&self, reads: &[OwnedRead]) -> Result<Vec<OnlineRows>> {
        let Some(mut reader) = self.reader()? else {
            return match reads.first() {
                Some(read) => Err(missing_table(&read.wanted.table, self)),
                None => Ok(Vec::new()),
            };
        };
        let mut answer = self.read_with(&mut reader, reads);
        if answer.is_err() && !reader.exact.is_empty() {
            // Another program may have made a table anew, without our columns.
            reader.exact.clear();
            answer = self.read_with(&mut reader, reads);
        }
        self.give_back(reader);
        answer
    }

    fn read_with(&self, reader: &mut Opened, reads: &[OwnedRead]) -> Result<Vec<OnlineRows>> {
        // One transaction: all tables as of one moment.
        let moment = Moment::begin(&reader.connection).map_err(|error| self.failed("read", error))?;
        let mut answers = Vec::with_capacity(reads.len());
        for read in reads {
            let name = &read.wanted.name;
            let exact = match reader.exact.get(name) {
                Some((exact, known)) if *exact || known.elapsed() < LOOK_AGAIN => *exact,
                _ => {
                    let shape = Shape::of(moment.0, name)
                        .map_err(|error| self.failed("read", error))?
                        .ok_or_else(|| missing_table(&read.wanted.table, self))?;
                    reader.exact.insert(name.clone(), (shape.exact, Instant::now()));
                    shape.exact
                }
            };
            answers.push(self.read_table(moment.0, exact, read)?);
        }
        Ok(answers)
    }

    fn read_table(&self, connection: &Connection, exact: bool, read: &OwnedRead) -> Result<OnlineRows> {
        let Wanted { table, fields, .. } = &*read.wanted;
        let failed = |error: rusqlite::Error| match &error {
            rusqlite::Error::SqliteFailure(_, Some(message)) if message.starts_with("no such table") => {
                missing_table(table, self)
            }
            _ => self.failed("read", error),
        };
        let sql = if exact { &read.wanted.exact } else { &read.wanted.whole_seconds };
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        if !read.wanted.all {
            for (position, column) in fields.iter().enumerate() {
                statement.raw_bind_parameter(position + 2, column.name.as_str()).map_err(failed)?;
            }
        }
        let mut columns: Vec<ColumnDecoder> =
            fields.iter().map(|column| ColumnDecoder::new(column.value_type, read.keys.len())).collect();
        let mut times = TimestampMicrosecondBuilder::with_capacity(read.keys.len()).with_timezone("UTC");
        let mut found = vec![false; fields.len()];
        for key in read.keys.iter() {
            statement.raw_bind_parameter(1, key.unwrap_or_default()).map_err(failed)?;
            let mut newest: Option<i64> = None;
            found.fill(false);
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next().map_err(failed)? {
                let seconds = seconds(row.get_ref(2).map_err(failed)?);
                let micros = with_fraction(seconds, row.get_ref(3).map_err(failed)?);
                newest = newest.max(Some(micros));
                let name = row.get_ref(0).map_err(failed)?.as_bytes().unwrap_or_default();
                let Some(position) = read.wanted.positions.get(name) else { continue };
                let cell = match row.get_ref(1).map_err(failed)? {
                    ValueRef::Blob(cell) => cell,
                    _ => &[],
                };
                columns[*position].push(cell).map_err(|error| {
                    error.with_context("feature", &fields[*position].name).with_context("feature view", &table.view)
                })?;
                found[*position] = true;
            }
            drop(rows);
            for (column, _) in columns.iter_mut().zip(&found).filter(|(_, found)| !**found) {
                column.push_null();
            }
            times.append_option(newest);
        }
        let values = columns.into_iter().map(ColumnDecoder::finish).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(read.keys.len()));
        let values = RecordBatch::try_new_with_options(Arc::clone(&read.wanted.schema), values, &options)?;
        Ok(OnlineRows { values, event_timestamps: times.finish() })
    }
}

/// A stored time: whole seconds, or the ISO 8601 text that old versions of Feast wrote.
pub(super) fn seconds(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(seconds) => seconds,
        ValueRef::Real(seconds) => seconds as i64,
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text).replace(' ', "T");
            let naive =
                || chrono::NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc());
            let zoned = chrono::DateTime::parse_from_rfc3339(&text).map(|time| time.to_utc());
            zoned.or_else(|_| naive()).map_or(0, |time| time.timestamp())
        }
        ValueRef::Null | ValueRef::Blob(_) => 0,
    }
}

pub(super) fn with_fraction(seconds: i64, fraction: ValueRef<'_>) -> i64 {
    let micros = match fraction {
        ValueRef::Integer(micros @ 0..1_000_000) => micros,
        _ => 0,
    };
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}
