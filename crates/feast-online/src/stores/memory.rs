//! Rows in the memory of the process, for tests and for trying things out. They are gone when the process ends.

use std::fmt;
use std::sync::RwLock;

use arrow::array::TimestampMicrosecondBuilder;
use async_trait::async_trait;
use feast_core::{
    Error, ErrorCode, Field, NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Result,
    TableChange,
};
use feast_proto::value_codec::{ColumnDecoder, encode_column};
use hashbrown::HashMap;
use serde_json::Value;

use super::newest::{Recency, Recent as _, newest_rows};
use crate::write::record_batch;

/// Rows in the memory of the process.
#[derive(Default)]
pub struct MemoryStore {
    tables: RwLock<HashMap<String, Table>>,
}

/// A store without rows.
///
/// # Errors
/// `InvalidConfiguration` for any option: there are none.
pub fn connect(options: &Value) -> Result<MemoryStore> {
    match options.as_object().and_then(|options| options.keys().next()) {
        None => Ok(MemoryStore::default()),
        Some(key) => {
            Err(Error::invalid_configuration(format!("`online_store.{key}` is not a key of online store `memory`"))
                .with_hint("its only key is `type`"))
        }
    }
}

#[derive(Default)]
struct Table {
    columns: Vec<String>,
    rows: HashMap<Vec<u8>, Row>,
}

struct Row {
    recency: Recency,
    /// One serialized `Value` per column of the table.
    cells: Vec<Box<[u8]>>,
}

impl Table {
    fn positions<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<Option<usize>> {
        names.map(|name| self.columns.iter().position(|known| known == name)).collect()
    }

    fn set_columns(&mut self, columns: &[Field]) {
        let from = self.positions(columns.iter().map(|column| column.name.as_str()));
        self.columns = columns.iter().map(|column| column.name.clone()).collect();
        for row in self.rows.values_mut() {
            let cells = from.iter().map(|position| position.map(|position| std::mem::take(&mut row.cells[position])));
            row.cells = cells.map(Option::unwrap_or_default).collect();
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl fmt::Display for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

/// A table that nobody created.
pub(super) fn missing_table(table: &OnlineTable, store: &dyn fmt::Display) -> Error {
    Error::new(
        ErrorCode::FeatureViewNotFound,
        format!("feature view `{}` of project `{}` has no table in the online store", table.view, table.project),
    )
    .with_context("online store", store)
    .with_hint("run `feast apply` to create it, then materialize")
}

#[async_trait]
impl OnlineStore for MemoryStore {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        let tables = self.tables.read().map_err(poisoned)?;
        let read_one = |read: &OnlineRead<'_>| {
            let table = tables.get(&read.wanted.table.name()).ok_or_else(|| missing_table(&read.wanted.table, self))?;
            let wanted = read.wanted.fields();
            let positions = table.positions(wanted.clone().map(|column| column.name.as_str()));
            let mut times = TimestampMicrosecondBuilder::with_capacity(read.keys.len()).with_timezone("UTC");
            let mut columns: Vec<ColumnDecoder> =
                wanted.clone().map(|column| ColumnDecoder::new(column.value_type, read.keys.len())).collect();
            for key in read.keys.encoded.iter() {
                let row = table.rows.get(key.unwrap_or_default());
                times.append_option(row.map(|row| row.recency.event));
                for ((column, position), field) in columns.iter_mut().zip(&positions).zip(wanted.clone()) {
                    match (row, position) {
                        (Some(row), Some(position)) => column
                            .push(&row.cells[*position])
                            .map_err(|error| error.with_context("feature", &field.name))?,
                        _ => column.push_null(),
                    }
                }
            }
            let values = columns.into_iter().map(ColumnDecoder::finish).collect::<Result<_>>()?;
            Ok(OnlineRows { values: record_batch(wanted, values, read.keys.len())?, event_timestamps: times.finish() })
        };
        reads.iter().map(read_one).collect()
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        let columns = write.table.columns.iter().zip(write.rows.columns());
        let cells = columns
            .map(|(field, column)| {
                encode_column(column, field.value_type).map_err(|error| error.with_context("feature", &field.name))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut tables = self.tables.write().map_err(poisoned)?;
        let table = tables.get_mut(&write.table.name()).ok_or_else(|| missing_table(write.table, self))?;
        let from: Vec<Option<usize>> = table
            .columns
            .iter()
            .map(|name| write.table.columns.iter().position(|column| column.name == *name))
            .collect();
        for row in newest_rows(&write) {
            let recency = write.recency(row);
            let key = write.keys.encoded.value(row);
            if table.rows.get(key).is_some_and(|stored| stored.recency > recency) {
                continue;
            }
            let cells = from.iter().map(|column| column.map(|column| cells[column].value(row).into()));
            let cells = cells.map(Option::unwrap_or_default).collect();
            table.rows.insert(key.to_vec(), Row { recency, cells });
        }
        Ok(())
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        let mut tables = self.tables.write().map_err(poisoned)?;
        for change in changes {
            match change {
                TableChange::Ensure(table) => tables.entry(table.name()).or_default().set_columns(&table.columns),
                TableChange::Drop(table) => drop(tables.remove(&table.name())),
            }
        }
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    fn preferred_batch_rows(&self) -> usize {
        65_536
    }

    async fn newest(&self, table: &OnlineTable) -> Result<NewestValue> {
        let tables = self.tables.read().map_err(poisoned)?;
        let rows = &tables.get(&table.name()).ok_or_else(|| missing_table(table, self))?.rows;
        Ok(NewestValue::of_micros(rows.values().map(|row| row.recency.event).max()))
    }
}

fn poisoned<T>(_: std::sync::PoisonError<T>) -> Error {
    Error::internal("a call to the memory store panicked before")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use feast_testing::StartedStore;

    use super::MemoryStore;

    async fn start() -> StartedStore {
        StartedStore::new(Arc::new(MemoryStore::default()))
    }

    feast_testing::online_store_conformance!(super::start);
}
