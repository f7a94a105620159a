//! Names, keys and times as the tables hold them, and the statements that insert rows.

use std::fmt::Write as _;

use chrono::DateTime;
use feast_core::{Error, OnlineWrite, Result, TableChange, list_names};
use hashbrown::HashMap;
use mysql_async::{Row, Value};

use super::super::cells::WriteColumn;
use super::super::newest::{Recency, Recent as _};
use super::{MOST_KEY_BYTES, MOST_STATEMENT_BYTES, MOST_VALUE_BYTES};

/// How a recency becomes one number: the event time counts in units that no created time reaches, and a created time is
/// more than none.
pub(super) const EVENT_UNIT: i128 = 18_500_000_000_000_000_000;

pub(super) const CREATED_SHIFT: i128 = 9_223_372_036_854_775_809;

/// Our columns.
pub(super) const MICROS: [&str; 2] = ["event_ts_micros", "created_ts_micros"];

/// Statements that write rows whatever is stored.
pub(super) fn inserts(
    table: &str,
    write: &OnlineWrite<'_>,
    columns: &[WriteColumn<'_>],
    rows: &[(usize, &String)],
    exact: bool,
) -> Vec<Vec<u8>> {
    let (micros_names, micros_updates) = match exact {
        true => (
            ", event_ts_micros, created_ts_micros",
            ", event_ts_micros = VALUES(event_ts_micros), created_ts_micros = VALUES(created_ts_micros)",
        ),
        false => ("", ""),
    };
    let start =
        format!("INSERT INTO {table} (entity_key, feature_name, value, event_ts, created_ts{micros_names}) VALUES ");
    // Also the name: the database may have it in another case.
    let end = format!(
        " ON DUPLICATE KEY UPDATE feature_name = VALUES(feature_name), value = VALUES(value), \
         event_ts = VALUES(event_ts), created_ts = VALUES(created_ts){micros_updates}"
    );
    let names: Vec<String> = columns.iter().map(|column| name_list([column.field.name.as_str()])).collect();
    let (mut statements, mut statement) = (Vec::new(), Vec::new());
    for (row, key) in rows {
        let recency = write.recency(*row);
        let mut times = format!(", {}, {}", timestamp(Some(recency.event)), timestamp(recency.created));
        if exact {
            let created = recency.created.map_or_else(|| "NULL".to_owned(), |created| created.to_string());
            let _ = write!(times, ", {}, {created}", recency.event);
        }
        for (column, name) in columns.iter().zip(&names) {
            statement.extend_from_slice(if statement.is_empty() { start.as_bytes() } else { b", " });
            statement.extend_from_slice(format!("('{key}', {name}, _binary'").as_bytes());
            for byte in column.cells.value(*row) {
                statement.push(*byte);
                if *byte == b'\'' {
                    statement.push(b'\'');
                }
            }
            statement.push(b'\'');
            statement.extend_from_slice(times.as_bytes());
            statement.push(b')');
            if statement.len() > MOST_STATEMENT_BYTES {
                statement.extend_from_slice(end.as_bytes());
                statements.push(std::mem::take(&mut statement));
            }
        }
    }
    if !statement.is_empty() {
        statement.extend_from_slice(end.as_bytes());
        statements.push(statement);
    }
    statements
}

/// A time of a table in microseconds: ours, unless Feast has written the row since.
pub(super) fn micros(column: &str, exact: bool) -> String {
    let seconds = format!("CAST(UNIX_TIMESTAMP(t.{column}) AS SIGNED)");
    match exact {
        true => format!(
            "CASE WHEN t.{column}_micros IS NOT NULL AND (t.{column} IS NULL OR {seconds} = \
             t.{column}_micros DIV 1000000) THEN t.{column}_micros ELSE {seconds} * 1000000 END"
        ),
        false => format!("{seconds} * 1000000"),
    }
}

/// A recency as the number that the lock statement makes of it.
pub(super) fn comparable(recency: Recency, exact: bool) -> i128 {
    let round = |micros: i64| i128::from(if exact { micros } else { micros.div_euclid(1_000_000) * 1_000_000 });
    let created = recency.created.map_or(0, |created| round(created) + CREATED_SHIFT);
    round(recency.event).saturating_mul(EVENT_UNIT).saturating_add(created)
}

/// What TIMESTAMP can hold of an instant: whole seconds from 1970 to 2038.
pub(super) fn timestamp(micros: Option<i64>) -> String {
    let seconds =
        micros.map(|micros| micros.div_euclid(1_000_000)).filter(|seconds| (1..=0x7fff_ffff).contains(seconds));
    let time = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.map_or_else(|| "NULL".to_owned(), |time| time.format("'%Y-%m-%d %H:%M:%S'").to_string())
}

pub(super) fn refuse_long(write: &OnlineWrite<'_>, columns: &[WriteColumn<'_>]) -> Result<()> {
    for row in 0..write.keys.len() {
        let length = write.keys.encoded.value(row).len();
        if length > MOST_KEY_BYTES {
            return Err(Error::invalid_request(format!(
                "the key in row {row} has {length} bytes, and MySQL's table holds {MOST_KEY_BYTES}"
            ))
            .with_hint("use shorter values or names of join keys"));
        }
        if let Some(column) = columns.iter().find(|column| column.cells.value(row).len() > MOST_VALUE_BYTES) {
            return Err(Error::invalid_request(format!(
                "the value of `{}` in row {row} has {} bytes, and MySQL's table holds {MOST_VALUE_BYTES}",
                column.field.name,
                column.cells.value(row).len()
            )));
        }
    }
    Ok(())
}

/// The database takes names that differ only in case for the same.
pub(super) fn refuse_same_features(changes: &[TableChange]) -> Result<()> {
    for change in changes {
        let TableChange::Ensure(table) = change else { continue };
        let mut taken: HashMap<String, &str> = HashMap::new();
        for column in &table.columns {
            if let Some(other) = taken.insert(column.name.to_lowercase(), &column.name) {
                return Err(Error::invalid_definition(format!(
                    "features {} of `{}` differ only in case, and MySQL takes them for the same",
                    list_names([other, column.name.as_str()]),
                    table.view
                ))
                .with_hint("rename one of them"));
            }
        }
    }
    Ok(())
}

pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Keys in hexadecimal digits, as a list of literals.
pub(super) fn key_list<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = keys.map(|key| format!("'{key}'")).collect();
    quoted.join(", ")
}

/// Any names, as a list of literals.
pub(super) fn name_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let literals: Vec<String> = names.into_iter().map(|name| format!("_utf8mb4 X'{}'", hex(name.as_bytes()))).collect();
    literals.join(", ")
}

/// A cell of an answer in the text protocol.
pub(super) fn bytes(row: &Row, column: usize) -> &[u8] {
    match row.as_ref(column) {
        Some(Value::Bytes(bytes)) => bytes,
        _ => &[],
    }
}

pub(super) fn integer(row: &Row, column: usize) -> Option<i128> {
    std::str::from_utf8(bytes(row, column)).ok()?.parse().ok()
}
