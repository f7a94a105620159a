//! The tables: what is there, what is missing, and the statements that make up for it.

use feast_core::{OnlineTable, StoredTable, TableChange};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::super::memory::missing_table;
use super::super::retry::Failure;
use super::Mysql;
use super::connection::is_made_already;
use super::layout::{MICROS, bytes, name_list, quoted};

impl Mysql {
    /// Whether a table has our columns.
    pub(super) async fn is_exact(&self, connection: &mut Conn, table: &OnlineTable) -> Result<bool, Failure> {
        let name = table.name();
        if let Some(exact) = self.exact.get(&name) {
            return Ok(exact);
        }
        let columns = columns_of(connection, &name).await.map_err(|error| self.failed("read", error))?;
        if columns.is_empty() {
            return Err(Failure::from(missing_table(table, self)));
        }
        let exact = MICROS.iter().all(|name| columns.iter().any(|has| has == name));
        self.exact.keep(name, exact);
        Ok(exact)
    }

    /// Each change is a step of its own, because the database commits each; all of them can be repeated.
    pub(super) async fn change(&self, connection: &mut Conn, changes: &[TableChange]) -> Result<(), Failure> {
        let failed = |error| self.failed("update", error);
        for change in changes {
            let (TableChange::Ensure(table) | TableChange::Drop(table)) = change;
            let name = table.name();
            self.exact.forget(&name);
            let statements = match change {
                TableChange::Ensure(_) => missing(connection, &name).await.map_err(failed)?,
                TableChange::Drop(_) => vec![format!("DROP TABLE IF EXISTS {}", quoted(&name))],
            };
            for statement in statements {
                match connection.query_drop(statement).await {
                    Err(error) if is_made_already(&error) => {}
                    done => done.map_err(failed)?,
                }
            }
        }
        Ok(())
    }
}

/// Tables in our layout whose names start with that of the project.
pub(super) async fn list(connection: &mut Conn, project: &str) -> Result<Vec<StoredTable>, mysql_async::Error> {
    let prefix = name_list([format!("{project}_").as_str()]);
    let list = format!(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() \
             AND LEFT(table_name, CHAR_LENGTH({prefix})) = {prefix} ORDER BY table_name"
    );
    let rows: Vec<Row> = connection.query(list).await?;
    let text = |row: &Row, column| String::from_utf8_lossy(bytes(row, column)).into_owned();
    let mut tables: Vec<(String, Vec<String>)> = Vec::new();
    for row in &rows {
        let (table, column) = (text(row, 0), text(row, 1).to_lowercase());
        match tables.last_mut().filter(|(last, _)| *last == table) {
            Some((_, columns)) => columns.push(column),
            None => tables.push((table, vec![column])),
        }
    }
    let has = |columns: &[String], name: &str| columns.iter().any(|column| column == name);
    tables.retain(|(_, columns)| has(columns, "entity_key") && has(columns, "feature_name"));
    let missing =
        |columns: &[String]| MICROS.iter().filter(|name| !has(columns, name)).map(|name| (*name).to_owned()).collect();
    let tables = tables.into_iter().map(|(name, columns)| StoredTable { missing_columns: missing(&columns), name });
    Ok(tables.collect())
}

async fn columns_of(connection: &mut Conn, table: &str) -> Result<Vec<String>, mysql_async::Error> {
    let columns = format!(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = {}",
        name_list([table])
    );
    let rows: Vec<Row> = connection.query(columns).await?;
    Ok(rows.iter().map(|row| String::from_utf8_lossy(bytes(row, 0)).to_lowercase()).collect())
}

/// What a table lacks.
async fn missing(connection: &mut Conn, name: &str) -> Result<Vec<String>, mysql_async::Error> {
    let columns = columns_of(connection, name).await?;
    let table = quoted(name);
    let mut statements = Vec::new();
    if columns.is_empty() {
        statements.push(format!(
            "CREATE TABLE IF NOT EXISTS {table} (entity_key VARCHAR(512), feature_name VARCHAR(256), value BLOB, \
             event_ts timestamp NULL DEFAULT NULL, created_ts timestamp NULL DEFAULT NULL, \
             event_ts_micros BIGINT NULL DEFAULT NULL, created_ts_micros BIGINT NULL DEFAULT NULL, \
             PRIMARY KEY(entity_key, feature_name))"
        ));
    }
    for column in MICROS {
        if !columns.is_empty() && !columns.iter().any(|known| known == column) {
            statements.push(format!("ALTER TABLE {table} ADD COLUMN {column} BIGINT NULL DEFAULT NULL"));
        }
    }
    let index = format!("{name}_ek");
    let indexes = format!(
        "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = {} \
         AND index_name = {}",
        name_list([name]),
        name_list([index.as_str()])
    );
    if connection.query::<Row, _>(indexes).await?.is_empty() {
        statements.push(format!("ALTER TABLE {table} ADD INDEX {} (entity_key)", quoted(&index)));
    }
    Ok(statements)
}
