//! The tables: what is there, what is missing, and the statements that make up for it.

use std::collections::BTreeSet;

use deadpool_postgres::ClientWrapper;
use feast_core::{Error, OnlineTable, Result, StoredTable, TableChange, ValueType, list_names};
use hashbrown::HashMap;

use super::super::memory::missing_table;
use super::super::retry::Failure;
use super::super::sql::UPDATE_TIMEOUT;
use super::{LOCK_FAMILY, Postgres};

/// Tables of a schema whose names start so and that look like ours: name, columns.
const TABLES: &str = "SELECT c.relname::text, array_agg(a.attname::text) FROM pg_class c \
                      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                      WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) \
                      AND c.relkind IN ('r', 'p') AND starts_with(c.relname, $2) \
                      GROUP BY c.relname HAVING array_agg(a.attname::text) @> ARRAY['entity_key', 'feature_name'] \
                      ORDER BY 1";

/// Columns of tables given by name: table, column, type.
const COLUMNS: &str = "SELECT t.name, a.attname::text, format_type(a.atttypid, NULL) \
                       FROM unnest($1::text[]) AS t(name) \
                       JOIN pg_attribute a ON a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped";

/// Which optional columns a table has; tables written by older versions of Feast lack some.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Shape {
    pub(super) value_text: bool,
    pub(super) value_num: bool,
    /// The type of `vector_value`.
    pub(super) vector_value: Option<String>,
}

impl Shape {
    fn of<'a>(columns: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut shape = Self::default();
        for (name, sql_type) in columns {
            match name {
                "value_text" => shape.value_text = true,
                "value_num" => shape.value_num = true,
                "vector_value" => shape.vector_value = Some(sql_type.to_owned()),
                _ => {}
            }
        }
        shape
    }
}

/// PostgreSQL cuts names after 63 bytes: two views could share a table without anybody noticing.
pub(super) fn refuse_shared_tables(changes: &[TableChange]) -> Result<()> {
    let mut taken: HashMap<Vec<u8>, String> = HashMap::new();
    for change in changes {
        let TableChange::Ensure(table) = change else { continue };
        let name = table.name();
        let mut end = name.len().min(63);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        if let Some(other) = taken.insert(name.as_bytes()[..end].to_vec(), name.clone()).filter(|other| *other != name)
        {
            return Err(Error::invalid_definition(format!(
                "the tables of {} would be one, because PostgreSQL cuts names after 63 bytes",
                list_names([other.as_str(), name.as_str()])
            ))
            .with_hint("give one of the views a shorter name"));
        }
    }
    Ok(())
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Postgres {
    /// Which optional columns a table has.
    pub(super) async fn shape(&self, client: &ClientWrapper, table: &OnlineTable) -> Result<Shape, Failure> {
        let name = table.name();
        if let Some(shape) = self.shapes.get(&name) {
            return Ok(shape);
        }
        let rows = client
            .query(COLUMNS, &[&vec![self.qualified(&name)]])
            .await
            .map_err(|error| self.failed("write to", error))?;
        if rows.is_empty() {
            return Err(Failure::from(missing_table(table, self)));
        }
        let shape = Shape::of(rows.iter().map(|row| (row.get(1), row.get(2))));
        self.shapes.keep(name, shape.clone());
        Ok(shape)
    }

    /// Tables in our layout whose names start with that of the project.
    pub(super) async fn stored_tables(
        &self,
        client: &ClientWrapper,
        project: &str,
    ) -> Result<Vec<StoredTable>, Failure> {
        let rows = client
            .query(TABLES, &[&self.config.schema(), &format!("{project}_")])
            .await
            .map_err(|error| self.failed("read", error))?;
        let tables = rows.iter().map(|row| {
            let columns: Vec<&str> = row.get(1);
            let missing = self.missing_columns(&columns).into_iter().map(|(name, _)| name.to_owned());
            StoredTable { name: row.get(0), missing_columns: missing.collect() }
        });
        Ok(tables.collect())
    }

    /// Makes changes in one transaction.
    pub(super) async fn change(&self, client: &ClientWrapper, changes: &[TableChange]) -> Result<(), Failure> {
        let failed = |error| self.failed("update", error);
        // Those who change tables wait for each other: PostgreSQL's own `IF NOT EXISTS` does not hold against others
        // who do the same at the same moment.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout TO {}; \
             SELECT pg_advisory_xact_lock({})",
            UPDATE_TIMEOUT.as_millis(),
            LOCK_FAMILY << 8
        );
        client.batch_execute(&begin).await.map_err(failed)?;
        let statements = self.statements(client, changes).await?;
        for statement in &statements {
            client.batch_execute(statement).await.map_err(failed)?;
        }
        client.batch_execute("COMMIT").await.map_err(failed)?;
        self.shapes.forget_all();
        Ok(())
    }

    /// What is to be done, given what is there: a user who may not create anything can apply what changes nothing.
    async fn statements(&self, client: &ClientWrapper, changes: &[TableChange]) -> Result<Vec<String>, Failure> {
        let failed = |error| self.failed("update", error);
        let schema = self.config.schema();
        let mut statements = Vec::new();
        let creates = changes.iter().any(|change| matches!(change, TableChange::Ensure(_)));
        let found = client.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema]).await.map_err(failed)?;
        if creates && found.is_empty() {
            statements.push(format!(
                "CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}",
                quoted(schema),
                quoted(&self.config.user)
            ));
        }
        let ensured = |change: &TableChange| match change {
            TableChange::Ensure(table) => Some(table.name()),
            TableChange::Drop(_) => None,
        };
        let tables: Vec<String> = changes.iter().filter_map(ensured).collect();
        let wanted: Vec<String> = tables.iter().map(|table| self.qualified(table)).collect();
        let rows = client.query(COLUMNS, &[&wanted]).await.map_err(failed)?;
        let mut columns: HashMap<&str, Vec<&str>> = HashMap::new();
        for row in &rows {
            columns.entry(row.get(0)).or_default().push(row.get(1));
        }
        let indexes = tables.iter().flat_map(|table| [format!("{table}_ek"), format!("{table}_fts_idx")]);
        let indexes: Vec<String> = indexes.map(|index| self.qualified(&index)).collect();
        let rows = client
            .query("SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL", &[&indexes])
            .await
            .map_err(failed)?;
        let mut indexes: BTreeSet<&str> = rows.iter().map(|row| row.get(0)).collect();
        for change in changes {
            match change {
                TableChange::Ensure(table) => {
                    let name = table.name();
                    let qualified = self.qualified(&name);
                    match columns.get(qualified.as_str()) {
                        None => statements.push(self.create(&qualified)),
                        Some(found) => {
                            let missing = self.missing_columns(found);
                            let added = missing.iter().map(|(name, sql_type)| {
                                format!("ALTER TABLE {qualified} ADD COLUMN IF NOT EXISTS {name} {sql_type} NULL")
                            });
                            statements.extend(added);
                        }
                    }
                    let ek = format!("{name}_ek");
                    if !indexes.contains(self.qualified(&ek).as_str()) {
                        statements
                            .push(format!("CREATE INDEX IF NOT EXISTS {} ON {qualified} (entity_key)", quoted(&ek)));
                    }
                    let fts = format!("{name}_fts_idx");
                    let has_text = table.columns.iter().any(|column| column.value_type == ValueType::String);
                    if has_text && !indexes.contains(self.qualified(&fts).as_str()) {
                        statements.push(format!(
                            "CREATE INDEX IF NOT EXISTS {} ON {qualified} USING GIN (to_tsvector('english', value_text))",
                            quoted(&fts)
                        ));
                    }
                }
                TableChange::Drop(table) => {
                    let name = self.qualified(&table.name());
                    columns.remove(name.as_str());
                    for index in ["_ek", "_fts_idx"] {
                        indexes.remove(self.qualified(&format!("{}{index}", table.name())).as_str());
                    }
                    statements.push(format!("DROP TABLE IF EXISTS {name}"));
                }
            }
        }
        Ok(statements)
    }

    fn create(&self, qualified: &str) -> String {
        let number = if self.config.enable_openai_compatible_store { "value_num DOUBLE PRECISION NULL, " } else { "" };
        format!(
            "CREATE TABLE IF NOT EXISTS {qualified} (entity_key BYTEA, feature_name TEXT, value BYTEA, \
             value_text TEXT NULL, {number}vector_value {} NULL, event_ts TIMESTAMPTZ, created_ts TIMESTAMPTZ, \
             PRIMARY KEY(entity_key, feature_name))",
            self.vector_type()
        )
    }

    /// Names and types of what a table lacks.
    fn missing_columns(&self, found: &[&str]) -> Vec<(&'static str, &'static str)> {
        let mut wanted =
            vec![("value_text", "TEXT"), ("vector_value", self.vector_type()), ("created_ts", "TIMESTAMPTZ")];
        if self.config.enable_openai_compatible_store {
            wanted.push(("value_num", "DOUBLE PRECISION"));
        }
        wanted.retain(|(name, _)| !found.contains(name));
        wanted
    }

    fn vector_type(&self) -> &'static str {
        if self.config.vector_enabled { "vector" } else { "BYTEA" }
    }

    /// `"schema"."name"`.
    pub(super) fn qualified(&self, name: &str) -> String {
        format!("{}.{}", quoted(self.config.schema()), quoted(name))
    }
}
