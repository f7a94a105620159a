//! What the registry needs of a database: sessions that run statements, and the few words in which dialects differ.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use feast_core::{Error, ErrorCode, Result};

/// A value of a statement or of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// One row of an answer.
#[derive(Debug)]
pub(super) struct Row(pub(super) std::vec::IntoIter<Value>);

impl Row {
    pub(super) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    /// The next column, a text. Drivers of MySQL give texts of some tables as bytes.
    pub(super) fn text(&mut self) -> Result<String> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(text),
            Some(Value::Bytes(bytes)) => {
                String::from_utf8(bytes).map_err(|error| unexpected("text in UTF-8").with_source(error))
            }
            _ => Err(unexpected("text")),
        }
    }

    /// The next column, bytes.
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>> {
        match self.0.next() {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            Some(Value::Text(text)) => Ok(text.into_bytes()),
            _ => Err(unexpected("bytes")),
        }
    }

    /// The next column, bytes or null.
    pub(super) fn optional_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        match self.0.as_slice().first() {
            Some(Value::Null) => {
                self.0.next();
                Ok(None)
            }
            _ => self.bytes().map(Some),
        }
    }

    /// The next column, a number.
    pub(super) fn integer(&mut self) -> Result<i64> {
        match self.0.next() {
            Some(Value::Integer(number)) => Ok(number),
            _ => Err(unexpected("a number")),
        }
    }

    /// The next column, a text or null, which is empty.
    pub(super) fn optional_text(&mut self) -> Result<String> {
        match self.0.as_slice().first() {
            Some(Value::Null) => {
                self.0.next();
                Ok(String::new())
            }
            _ => self.text(),
        }
    }
}

fn unexpected(expected: &str) -> Error {
    Error::new(
        ErrorCode::CorruptRegistry,
        format!("a column of the SQL registry has another type than {expected}, which it has in Feast"),
    )
    .with_hint("compare its tables with those that `feast registry create-schema` makes in an empty database")
}

/// A connection, and the transaction on it.
#[async_trait]
pub(super) trait Session: Send {
    /// Runs a query. Parameters stand as `?`.
    async fn query(&mut self, sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>>;

    /// Runs a statement; returns how many rows it changed, or matched.
    async fn execute(&mut self, sql: &str, parameters: Vec<Value>) -> Result<u64>;

    /// Whether the server still answers on it.
    async fn is_alive(&mut self) -> bool;

    /// Whether it may be kept for later.
    fn may_be_kept(&self) -> bool {
        true
    }

    /// Whether the tables that were there once stay there.
    fn tables_stay(&self) -> bool {
        true
    }

    /// What this session sees of the database, where that costs nothing to ask.
    async fn seen(&mut self) -> Result<Option<Seen>> {
        Ok(None)
    }
}

/// What one session sees of a database: as long as it is the same, nobody but the session itself has changed anything.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Names the session.
    pub(super) session: Arc<()>,
    pub(super) number: i64,
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.session, &other.session) && self.number == other.number
    }
}

/// A database that sessions can be opened to.
#[async_trait]
pub(super) trait Database: fmt::Debug + fmt::Display + Send + Sync {
    fn dialect(&self) -> &'static Dialect;

    /// Opens a connection.
    async fn connect(&self) -> Result<Box<dyn Session>>;

    /// Makes what has to be there before the first transaction that writes.
    async fn prepare_write(&self) -> Result<()> {
        Ok(())
    }
}

/// The words in which databases differ.
#[derive(Debug)]
pub(super) struct Dialect {
    /// Type of serialized messages.
    pub(super) bytes: &'static str,
    /// What to cast numbers to.
    pub(super) integer: &'static str,
    /// Length of a column of bytes.
    pub(super) length: &'static str,
    /// Begins a transaction that sees one state and writes nothing.
    pub(super) begin_read: &'static str,
    /// Begins a transaction that writes.
    pub(super) begin_write: &'static str,
    /// What a query ends with that keeps others from changing its rows until the transaction ends.
    pub(super) for_update: &'static str,
    /// Whether indexes are created together with their table.
    pub(super) inline_index: bool,
    /// Names the tables that the connection sees without schema.
    pub(super) list_tables: &'static str,
    /// Names the schemas that have tables of a registry and may not be looked into.
    pub(super) hidden_tables: Option<&'static str>,
    /// Whether `ON CONFLICT` is said as `ON DUPLICATE KEY`.
    pub(super) on_duplicate_key: bool,
    /// Parameters in one statement, at most.
    pub(super) most_parameters: usize,
}

impl Dialect {
    /// The end of an `INSERT` that updates `columns` where a row with the same key exists.
    pub(super) fn or_update(&self, key: &[&str], columns: &[&str]) -> String {
        let set = |value: &dyn Fn(&str) -> String| {
            columns.iter().map(|column| format!("{column} = {}", value(column))).collect::<Vec<_>>().join(", ")
        };
        if self.on_duplicate_key {
            format!(" ON DUPLICATE KEY UPDATE {}", set(&|column| format!("VALUES({column})")))
        } else {
            let key = key.join(", ");
            format!(" ON CONFLICT ({key}) DO UPDATE SET {}", set(&|column| format!("excluded.{column}")))
        }
    }
}

/// What a database said, in the errors of this product. `what` is the registry.
pub(super) fn refused(what: &dyn fmt::Display, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Conflict => Error::new(ErrorCode::Conflict, format!("{what} was changed by somebody else meanwhile"))
            .with_hint("read the registry again and repeat the change"),
        Refusal::ReadOnly => Error::new(ErrorCode::ReadOnlyRegistry, format!("{what} may only be read by this user"))
            .with_hint("give the user of the registry's `path` the right to change its tables, or use another one"),
        Refusal::MayNotRead => Error::new(ErrorCode::PermissionDenied, format!("{what} may not be read by this user"))
            .with_hint("give the user of the registry's `path` the right to read its tables"),
        Refusal::UnknownUser => Error::new(ErrorCode::PermissionDenied, format!("{what} refuses the user or password"))
            .with_hint("correct user and password in `path` below `registry` in feature_store.yaml"),
        Refusal::UnknownDatabase => {
            Error::invalid_configuration(format!("{what} does not exist: the server has no such database"))
                .with_hint("correct the name of the database in `path` below `registry`, or create the database")
        }
        Refusal::Unreachable => Error::unavailable(format!("{what} cannot be reached"))
            .with_hint("see whether the server runs and the network lets through to its host and port"),
        Refusal::Late => Error::new(ErrorCode::Timeout, format!("{what} did not answer in time"))
            .with_hint("see whether the server is overloaded, or somebody holds its rows in an open transaction"),
        Refusal::Failed => Error::unavailable(format!("{what} could not run a statement"))
            .with_hint("the message of the database says why"),
    }
}

/// Why a database did not do what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Somebody else was faster, or the database chose this transaction to end a deadlock.
    Conflict,
    ReadOnly,
    MayNotRead,
    UnknownUser,
    UnknownDatabase,
    Unreachable,
    Late,
    Failed,
}
