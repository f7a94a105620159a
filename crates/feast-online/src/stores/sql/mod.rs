//! What the stores on SQL servers share: rows are written in Feast's layout, one row of the table per entity and feature,
//! over a pool of connections, within deadlines and with further attempts. What differs is a [`Dialect`].
//!
//! A connection on which a call fails or is cancelled is closed, not given back: an answer may still be on its way, or a
//! transaction open.

mod connections;
mod seen;
#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool::managed::{Manager, Pool};
use feast_core::{
    NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Result, StoredTable, TableChange,
};
pub(super) use seen::Seen;

use super::cells::WriteColumn;
use super::newest::newest_rows;
use super::per_process::PerProcess;
use super::retry::{Attempts, Failure};

/// How long opening a connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a read or a chunk of a write may take, with all attempts.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long changing tables may take: an index is built over all rows that are there.
pub(super) const UPDATE_TIMEOUT: Duration = Duration::from_secs(600);

/// How one kind of server is spoken to. Each call is one attempt on a connection that nobody else uses meanwhile.
#[async_trait]
pub(super) trait Dialect: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Opens connections.
    type Connections: Manager;

    /// Rows that are worth a call.
    const BATCH_ROWS: usize;

    /// What to do when all connections are busy.
    const BUSY_HINT: &'static str;

    fn connections(&self) -> Self::Connections;

    /// Connections at most; more calls wait.
    fn most_connections(&self) -> usize;

    /// Connections that are opened before anybody asks for them.
    fn connections_ahead(&self) -> usize {
        0
    }

    /// What an error of the server or of the connection means.
    fn failure(&self, doing: &str, error: ErrorOf<Self>) -> Failure;

    async fn ping(&self, connection: &mut ConnectionOf<Self>) -> Result<(), Failure>;

    async fn read(
        &self,
        connection: &mut ConnectionOf<Self>,
        reads: &[OnlineRead<'_>],
    ) -> Result<Vec<OnlineRows>, Failure>;

    /// Splits rows into those of one transaction each.
    ///
    /// # Errors
    /// `InvalidRequest` where the table cannot hold a row.
    fn chunks<'a>(
        &self,
        write: &OnlineWrite<'_>,
        columns: &[WriteColumn<'_>],
        rows: &'a [usize],
    ) -> Result<Vec<&'a [usize]>>;

    /// Writes rows in one transaction: each of them whole, unless a newer one is stored.
    async fn write(
        &self,
        connection: &mut ConnectionOf<Self>,
        write: &OnlineWrite<'_>,
        columns: &[WriteColumn<'_>],
        rows: &[usize],
    ) -> Result<(), Failure>;

    /// # Errors
    /// `InvalidDefinition` where the server would take two names for the same.
    fn refuse_same_names(&self, changes: &[TableChange]) -> Result<()>;

    async fn update(&self, connection: &mut ConnectionOf<Self>, changes: &[TableChange]) -> Result<(), Failure>;

    /// Tables in our layout whose names start with that of the project.
    async fn list(&self, connection: &mut ConnectionOf<Self>, project: &str) -> Result<Vec<StoredTable>, Failure>;

    /// The newest event time of a table in microseconds. Reads all of it: its index is by entity.
    async fn newest(&self, connection: &mut ConnectionOf<Self>, table: &OnlineTable) -> Result<Option<i64>, Failure>;
}

pub(super) type ConnectionOf<D> = <<D as Dialect>::Connections as Manager>::Type;
pub(super) type ErrorOf<D> = <<D as Dialect>::Connections as Manager>::Error;

/// An online store on a SQL server.
pub(super) struct SqlStore<D: Dialect> {
    dialect: D,
    pool: PerProcess<Pool<D::Connections>>,
}

impl<D: Dialect> SqlStore<D> {
    /// Nothing is opened before the first call.
    pub(super) fn new(dialect: D) -> Self {
        Self { dialect, pool: PerProcess::default() }
    }
}

impl<D: Dialect> fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.dialect, f)
    }
}

impl<D: Dialect> fmt::Display for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.dialect, f)
    }
}

#[async_trait]
impl<D: Dialect> OnlineStore for SqlStore<D> {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let read_once = || async {
            let mut lease = self.lease().await?;
            let answers = self.dialect.read(&mut lease, reads).await;
            // Nothing is left open by a read that was refused, of a table that does not exist for example: the next one
            // need not connect anew.
            if !matches!(&answers, Err(failure) if failure.transient) {
                lease.give_back();
            }
            answers
        };
        Attempts::within(CALL_TIMEOUT).call(self, read_once).await
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        let columns = write.table.columns.iter().zip(write.rows.columns());
        let mut columns =
            columns.map(|(field, array)| WriteColumn::new(field, Arc::clone(array))).collect::<Result<Vec<_>>>()?;
        // All writers lock the rows of a key in the same order.
        columns.sort_by(|a, b| a.field.name.cmp(&b.field.name));
        let (write, columns) = (&write, &columns);
        for rows in self.dialect.chunks(write, columns, &newest_rows(write))? {
            let write_once = || async {
                let mut lease = self.lease().await?;
                self.dialect.write(&mut lease, write, columns, rows).await?;
                lease.give_back();
                Ok(())
            };
            // Writing rows again changes nothing, so what may have been written is written again.
            Attempts::within(CALL_TIMEOUT).call(self, write_once).await?;
        }
        Ok(())
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        self.dialect.refuse_same_names(changes)?;
        let update_once = || async {
            let mut lease = self.lease().await?;
            self.dialect.update(&mut lease, changes).await?;
            lease.give_back();
            Ok(())
        };
        Attempts::within(UPDATE_TIMEOUT).call(self, update_once).await
    }

    async fn check(&self) -> Result<()> {
        let ping_once = || async {
            let mut lease = self.lease().await?;
            self.dialect.ping(&mut lease).await?;
            lease.give_back();
            Ok(())
        };
        Attempts::within(CONNECT_TIMEOUT * 2).call(self, ping_once).await
    }

    fn preferred_batch_rows(&self) -> usize {
        D::BATCH_ROWS
    }

    async fn stored_tables(&self, project: &str) -> Result<Option<Vec<StoredTable>>> {
        let list_once = || async {
            let mut lease = self.lease().await?;
            let tables = self.dialect.list(&mut lease, project).await?;
            lease.give_back();
            Ok(tables)
        };
        Attempts::within(CALL_TIMEOUT).call(self, list_once).await.map(Some)
    }

    async fn newest(&self, table: &OnlineTable) -> Result<NewestValue> {
        let newest_once = || async {
            let mut lease = self.lease().await?;
            let micros = self.dialect.newest(&mut lease, table).await?;
            lease.give_back();
            Ok(micros)
        };
        Attempts::within(CALL_TIMEOUT).call(self, newest_once).await.map(NewestValue::of_micros)
    }
}
