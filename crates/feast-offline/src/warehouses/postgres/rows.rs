//! Rows on their way into the database.

use std::pin::pin;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use bytes::Bytes;
use feast_core::{DataSource, Error, Result};
use futures::SinkExt;

use super::Postgres;
use super::connection::{Session, quoted};
use super::copy::{Column, Encoder, Kind};
use super::relation::open;
use super::statements::identifiers;

/// Rows that are encoded at a time.
pub(super) const ROWS_SENT: usize = 8192;

/// Rows that a table has taken, but shows nobody yet. Dropping them takes them back.
pub(crate) struct Taken {
    session: Session,
    n_rows: u64,
}

impl Taken {
    /// Shows them.
    pub(crate) async fn commit(self) -> Result<u64> {
        let Self { mut session, n_rows } = self;
        session.run("adding rows", "COMMIT").await?;
        session.done();
        Ok(n_rows)
    }
}

impl Postgres {
    /// Adds rows to the table of a source, in a transaction that stays open.
    pub(crate) async fn take(&self, source: &DataSource, rows: &RecordBatch) -> Result<Taken> {
        let session = self.server.connect().await?;
        session.run("beginning", "BEGIN").await?;
        let relation = open(&session, source).await?;
        if relation.table.is_empty() {
            return Err(Error::unsupported(format!(
                "data source `{}` is a query, to which rows cannot be added",
                source.name
            ))
            .with_hint("declare the source with `table=`"));
        }
        let rows = crate::append::conform(&relation.known, rows)?;
        // Values that travel as something else are cast where they arrive.
        let direct = |column: &Column| column.cast.is_none() && !matches!(column.kind, Kind::List(_));
        let kinds: Vec<Kind> = relation
            .columns
            .iter()
            .map(
                |column| if column.cast.is_some() && !is_list(&column.kind) { Kind::Text } else { column.kind.clone() },
            )
            .collect();
        let columns = rows.columns().iter().zip(&kinds).map(|(array, kind)| Ok(cast(array, &kind.data_type())?));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let names = identifiers(relation.columns.iter().map(|column| column.name.as_str()));
        let doing = "adding rows";
        if relation.columns.iter().all(direct) {
            let target = format!("{} ({names})", relation.table);
            send(&session, doing, &target, kinds, &columns, rows.num_rows()).await?;
        } else {
            let typed = relation
                .columns
                .iter()
                .zip(&kinds)
                .map(|(column, kind)| format!("{} {}", quoted(&column.name), kind.name()));
            let create =
                format!("CREATE TEMP TABLE feast_rows ({}) ON COMMIT DROP", typed.collect::<Vec<_>>().join(", "));
            session.run(doing, &create).await?;
            send(&session, doing, "feast_rows", kinds, &columns, rows.num_rows()).await?;
            let cast = relation.columns.iter().map(|column| {
                let found = &column.found;
                format!("{}::{}.{}", quoted(&column.name), quoted(found.schema()), quoted(found.name()))
            });
            let cast = cast.collect::<Vec<_>>().join(", ");
            let insert = format!("INSERT INTO {} ({names}) SELECT {cast} FROM feast_rows", relation.table);
            session.run(doing, &insert).await?;
        }
        Ok(Taken { session, n_rows: rows.num_rows() as u64 })
    }
}

fn is_list(kind: &Kind) -> bool {
    matches!(kind, Kind::List(_))
}

/// Copies rows into a table.
pub(super) async fn send(
    session: &Session,
    doing: &str,
    target: &str,
    kinds: Vec<Kind>,
    columns: &[ArrayRef],
    n_rows: usize,
) -> Result<()> {
    let copy = format!("COPY {target} FROM STDIN (FORMAT binary)");
    let sink = session.client.copy_in::<_, Bytes>(&copy).await.map_err(|error| session.refused(doing, error))?;
    let mut sink = pin!(sink);
    let mut encoder = Encoder::new(kinds);
    for start in (0..n_rows).step_by(ROWS_SENT) {
        let n_sent = ROWS_SENT.min(n_rows - start);
        let part: Vec<ArrayRef> = columns.iter().map(|column| column.slice(start, n_sent)).collect();
        let bytes = encoder.encode(&part, n_sent).freeze();
        sink.feed(bytes).await.map_err(|error| session.refused(doing, error))?;
    }
    sink.send(encoder.end().freeze()).await.map_err(|error| session.refused(doing, error))?;
    sink.as_mut().finish().await.map(drop).map_err(|error| session.refused(doing, error))
}
