//! What a data source is in the database: a table or a query, and its columns.

use std::sync::Arc;

use arrow::datatypes::Schema;
use feast_core::{DataSource, DataSourceOptions, Error, Result, list_names};
use serde_json::Value;

use super::connection::Session;
use super::copy::Column;
use crate::sources::SourceColumns;
use crate::timestamps::is_text;

/// How the class of the source is called in Feast.
pub(super) const SOURCE_CLASS: &str = "PostgreSQLSource";

/// A table or query that holds rows of a source.
#[derive(Debug)]
pub(super) struct Relation {
    /// What stands behind FROM.
    pub(super) from: String,
    /// The name of the table; empty for a query.
    pub(super) table: String,
    /// Whether its rows know where they are stored.
    pub(super) stored: bool,
    pub(super) columns: Vec<Column>,
    /// The same, for those who look for the columns of views.
    pub(super) known: SourceColumns,
}

impl Relation {
    /// A column, as a value of its kind.
    pub(super) fn expression(&self, column: usize) -> String {
        self.columns[column].expression("s")
    }

    /// A column that holds times, as something that can be compared with a time.
    pub(super) fn time(&self, column: usize) -> String {
        let expression = self.expression(column);
        if is_text(self.known.data_type(column)) { format!("({expression})::timestamptz") } else { expression }
    }
}

/// The name of the table or the text of the query in the options of a source or dataset.
pub(crate) fn relation_of(options: &DataSourceOptions) -> Option<(String, String)> {
    let DataSourceOptions::Custom { configuration } = options else { return None };
    let configuration: Value = serde_json::from_slice(configuration).ok()?;
    let text = |key: &str| configuration.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (table, query) = (text("table"), text("query"));
    (!table.is_empty() || !query.is_empty()).then_some((table, query))
}

/// Finds the relation of the batch side of a source, and its columns.
pub(super) async fn open(session: &Session, source: &DataSource) -> Result<Relation> {
    let batch = source.batch().ok_or_else(|| {
        Error::invalid_definition(format!("{} source `{}` has no batch source", source.kind(), source.name))
            .with_hint("declare it with `batch_source=PostgreSQLSource(...)`")
    })?;
    let relation = relation_of(&batch.options).filter(|_| batch.class_type.ends_with(SOURCE_CLASS));
    let (table, query) = relation.ok_or_else(|| {
        Error::unsupported(format!(
            "data source `{}` is a {} source, and the postgres offline store reads tables of PostgreSQL only",
            batch.name,
            batch.kind()
        ))
        .with_hint("declare it as `PostgreSQLSource(table=...)`, or use the offline store that belongs to the source")
    })?;
    let from = if table.is_empty() {
        format!("({}) AS s", query.trim().trim_end_matches(';'))
    } else {
        format!("{table} AS s")
    };
    let doing = "reading the columns of a source";
    let columns = columns_of(session, &format!("SELECT * FROM {from}"), doing)
        .await
        .map_err(|error| error.with_context("data source", &batch.name))?;
    let stored = "SELECT count(*) > 0 FROM pg_class WHERE oid = to_regclass($1) AND relkind IN ('r', 'm')";
    let stored = !table.is_empty()
        && session.client.query_one(stored, &[&table]).await.map_err(|error| session.refused(doing, error))?.get(0);
    let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
    Ok(Relation { from, table, stored, columns, known: SourceColumns::new(&batch.name, schema) })
}

/// The columns that a statement would give.
pub(super) async fn columns_of(session: &Session, statement: &str, doing: &str) -> Result<Vec<Column>> {
    let prepared = session.client.prepare(statement).await.map_err(|error| session.refused(doing, error))?;
    Ok(prepared.columns().iter().map(|column| Column::new(column.name(), column.type_())).collect())
}

/// The error for a storage that is not of this store.
pub(crate) fn not_a_table(what: &str) -> Error {
    Error::unsupported(format!("the postgres offline store keeps {what} in tables only"))
        .with_hint(format!("use {}", list_names(["SavedDatasetPostgreSQLStorage(table_ref=...)"])))
}
