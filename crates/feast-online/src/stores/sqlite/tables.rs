//! The tables: what they look like, made and dropped, listed.

use feast_core::{NewestValue, OnlineTable, Result, StoredTable, TableChange};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::super::memory::missing_table;
use super::file::{Database, lock};
use super::reading::{seconds, with_fraction};

/// A column that tables have today.
struct Column {
    name: &'static str,
    sql_type: &'static str,
}

/// Which optional columns a table has; tables written by older versions of Feast lack some.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    pub(super) value_text: bool,
    pub(super) value_num: bool,
    pub(super) vector_value: bool,
    event_ts_micros: bool,
    created_ts_micros: bool,
    /// Both columns for parts of seconds.
    pub(super) exact: bool,
}

impl Shape {
    /// `None` when there is no such table.
    pub(super) fn of(connection: &Connection, table: &str) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection.prepare_cached("SELECT name FROM pragma_table_info(?)")?;
        let mut rows = statement.query([table])?;
        let mut shape = Self::default();
        let mut exists = false;
        while let Some(row) = rows.next()? {
            exists = true;
            match row.get_ref(0)?.as_str()? {
                "value_text" => shape.value_text = true,
                "value_num" => shape.value_num = true,
                "vector_value" => shape.vector_value = true,
                "event_ts_micros" => shape.event_ts_micros = true,
                "created_ts_micros" => shape.created_ts_micros = true,
                _ => {}
            }
        }
        shape.exact = shape.event_ts_micros && shape.created_ts_micros;
        Ok(exists.then_some(shape))
    }
}

impl Database {
    pub(super) fn update(&self, changes: &[TableChange]) -> Result<()> {
        let create = changes.iter().any(|change| matches!(change, TableChange::Ensure(_)));
        self.with_writer(create, |connection| {
            let begin = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let apply = |transaction: &Connection| {
                changes.iter().try_for_each(|change| match change {
                    TableChange::Ensure(table) => self.ensure(transaction, &table.name()),
                    TableChange::Drop(table) => {
                        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", quoted(&table.name())))
                    }
                })
            };
            begin
                .and_then(|transaction| apply(&transaction).and_then(|()| transaction.commit()))
                .map_err(|error| self.failed("update", error))
        })?;
        for reader in lock(&self.readers).iter_mut() {
            reader.exact.clear();
        }
        Ok(())
    }

    pub(super) fn stored_tables(&self, prefix: &str) -> Result<Vec<StoredTable>> {
        let Some(reader) = self.reader()? else { return Ok(Vec::new()) };
        let list = || {
            let connection = &reader.connection;
            let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1";
            let mut statement = connection.prepare(sql)?;
            let names = statement.query_map([prefix], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            let mut tables = Vec::with_capacity(names.len());
            for name in names {
                let shape = Shape::of(connection, &name)?.unwrap_or_default();
                let missing = self.missing_columns(shape).map(|column| column.name.to_owned());
                tables.push(StoredTable { missing_columns: missing.collect(), name });
            }
            Ok(tables)
        };
        let tables = list().map_err(|error| self.failed("read", error));
        self.give_back(reader);
        tables
    }

    /// Reads the whole table: its index is by entity.
    pub(super) fn newest(&self, table: &OnlineTable) -> Result<NewestValue> {
        let reader = self.reader()?.ok_or_else(|| missing_table(table, self))?;
        let name = table.name();
        let read = || {
            let Some(shape) = Shape::of(&reader.connection, &name)? else { return Ok(None) };
            let fraction = if shape.event_ts_micros { "event_ts_micros" } else { "NULL" };
            let sql = format!(
                "SELECT event_ts, {fraction} FROM {} WHERE event_ts IS NOT NULL ORDER BY 1 DESC, 2 DESC LIMIT 1",
                quoted(&name)
            );
            let micros = |row: &rusqlite::Row<'_>| Ok(with_fraction(seconds(row.get_ref(0)?), row.get_ref(1)?));
            reader.connection.query_row(&sql, [], micros).optional().map(Some)
        };
        let newest = read().map_err(|error| self.failed("read", error));
        self.give_back(reader);
        newest?.map(NewestValue::of_micros).ok_or_else(|| missing_table(table, self))
    }

    /// What a table lacks, in order.
    fn missing_columns(&self, shape: Shape) -> impl Iterator<Item = Column> {
        let number = self.config.enable_openai_compatible_store;
        [
            (shape.value_text, Column { name: "value_text", sql_type: "TEXT" }),
            (shape.value_num || !number, Column { name: "value_num", sql_type: "REAL" }),
            (shape.vector_value, Column { name: "vector_value", sql_type: "BLOB" }),
            (shape.event_ts_micros, Column { name: "event_ts_micros", sql_type: "INTEGER" }),
            (shape.created_ts_micros, Column { name: "created_ts_micros", sql_type: "INTEGER" }),
        ]
        .into_iter()
        .filter(|(has, _)| !has)
        .map(|(_, column)| column)
    }

    fn ensure(&self, connection: &Connection, name: &str) -> rusqlite::Result<()> {
        let table = quoted(name);
        let value_num = if self.config.enable_openai_compatible_store { " value_num REAL," } else { "" };
        // Feast also indexes `entity_key`; the index of the primary key starts with it and does the same.
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {table} (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT,{value_num} \
             vector_value BLOB, event_ts timestamp, created_ts timestamp, event_ts_micros INTEGER, \
             created_ts_micros INTEGER, PRIMARY KEY(entity_key, feature_name))"
        ))?;
        let Some(shape) = Shape::of(connection, name)? else { return Ok(()) };
        for Column { name, sql_type } in self.missing_columns(shape) {
            connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {sql_type}"))?;
        }
        Ok(())
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
