//! Connections: how they are opened, and what their errors mean.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use feast_core::{Error, ErrorCode, OnlineTable};
use mysql_async::{Conn, Opts, OptsBuilder};

use super::super::memory::missing_table;
use super::super::retry::Failure;
use super::{Mysql, MysqlConfig};

/// Error numbers of the server.
mod number {
    pub(super) const ACCESS_DENIED: &[u16] = &[1044, 1045, 1142, 1227, 1370, 1698];
    pub(super) const UNKNOWN_DATABASE: u16 = 1049;
    pub(super) const UNKNOWN_COLUMN: u16 = 1054;
    pub(super) const BAD_NAME: &[u16] = &[1059, 1103];
    pub(super) const DUPLICATE_COLUMN: u16 = 1060;
    pub(super) const DUPLICATE_INDEX: u16 = 1061;
    pub(super) const NO_SUCH_TABLE: u16 = 1146;
    pub(super) const WRONG_VALUES: &[u16] = &[1264, 1292, 1366, 1406, 1153];
    /// Too many connections, shutting down, lock wait timeout, deadlock, changed meanwhile, killed, changed table.
    pub(super) const TRANSIENT: &[u16] = &[1040, 1053, 1205, 1213, 1020, 1927, 1412, 1203, 3024, 1969];
}

/// Whether somebody else has made the same change in the meantime.
pub(super) fn is_made_already(error: &mysql_async::Error) -> bool {
    let made = [number::DUPLICATE_COLUMN, number::DUPLICATE_INDEX];
    matches!(error, mysql_async::Error::Server(answer) if made.contains(&answer.code))
}

/// Since when connections are good: those that were opened before are taken for lost.
#[derive(Debug, Clone, Default)]
pub(super) struct Lost(Arc<Mutex<Option<Instant>>>);

impl Lost {
    fn until_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn includes(&self, opened: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|lost| opened <= lost)
    }
}

/// Opens connections. They come back to the pool as they are; a stale one is noticed by its use.
#[derive(Debug)]
pub(in super::super) struct Connections {
    options: Opts,
    lost: Lost,
}

impl Connections {
    pub(super) fn new(config: &MysqlConfig, lost: Lost) -> Self {
        let options = OptsBuilder::default()
            .ip_or_hostname(config.host.clone())
            .tcp_port(config.port)
            .user(Some(config.user.clone()))
            .pass(Some(config.password.0.clone()))
            .db_name(Some(config.database.clone()))
            .prefer_socket(false)
            .setup(vec![
                "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES', \
                 innodb_lock_wait_timeout = 20"
                    .to_owned(),
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
            ]);
        Self { options: options.into(), lost }
    }
}

impl Manager for Connections {
    type Type = Conn;
    type Error = mysql_async::Error;

    async fn create(&self) -> Result<Conn, mysql_async::Error> {
        Conn::new(self.options.clone()).await
    }

    async fn recycle(&self, _: &mut Conn, metrics: &Metrics) -> RecycleResult<mysql_async::Error> {
        match self.lost.includes(metrics.created) {
            true => Err(RecycleError::message("another connection of its time was lost")),
            false => Ok(()),
        }
    }
}

impl Mysql {
    pub(super) fn failed(&self, doing: &str, error: mysql_async::Error) -> Failure {
        let (code, hint, transient) = match &error {
            mysql_async::Error::Server(answer) => match answer.code {
                number if number::ACCESS_DENIED.contains(&number) => (
                    ErrorCode::PermissionDenied,
                    "check `user` and `password`, and what the user may do in the database",
                    false,
                ),
                number::UNKNOWN_DATABASE => {
                    (ErrorCode::Unavailable, "create the database, or correct `online_store.database`", false)
                }
                number::UNKNOWN_COLUMN => {
                    self.exact.forget_all();
                    (ErrorCode::Unavailable, "run `feast apply` to bring the table up to date", true)
                }
                number if number::BAD_NAME.contains(&number) => (
                    ErrorCode::InvalidDefinition,
                    "rename the feature view or the project: they may have 60 characters together, and end without a space",
                    false,
                ),
                number if number::WRONG_VALUES.contains(&number) => {
                    (ErrorCode::InvalidRequest, "the database cannot hold a value of the rows", false)
                }
                number => (ErrorCode::Unavailable, "see the log of the server", number::TRANSIENT.contains(&number)),
            },
            _ => {
                // The server may have been started anew: what is idle is as dead as this one.
                self.lost.until_now();
                (ErrorCode::Unavailable, "check `host` and `port`, and that the server runs", true)
            }
        };
        let text = match error {
            mysql_async::Error::Server(answer) => answer.message,
            other => other.to_string(),
        };
        let error = Error::new(code, format!("could not {doing} the online store"))
            .with_context("online store", self)
            .with_source(text)
            .with_hint(hint);
        Failure { error, transient }
    }

    pub(super) fn table_failure(&self, doing: &str, table: &OnlineTable, error: mysql_async::Error) -> Failure {
        match &error {
            mysql_async::Error::Server(answer) if answer.code == number::NO_SUCH_TABLE => {
                self.exact.forget(&table.name());
                Failure::from(missing_table(table, self))
            }
            _ => self.failed(doing, error),
        }
    }
}
