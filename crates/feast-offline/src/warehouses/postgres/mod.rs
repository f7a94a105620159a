//! PostgreSQL as offline store: it finds the rows itself, and only those that are wanted travel.
//!
//! A request has one connection. The keys and times of entity rows, which are kept in memory here, go into a temporary
//! table by binary `COPY`; what an entity query selects becomes such a table in the database. One statement joins all
//! views, and its rows are read as they arrive. Times without zone count as UTC. Rows are added and datasets written in
//! one transaction each.

mod connection;
mod copy;
mod statements;

mod answer;
mod relation;

mod datasets;
mod historical;
mod latest;
mod rows;
mod window;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use feast_core::{DataSource, NewestValue, Result};
use serde_json::Value;

use self::connection::Server;
use self::relation::open;
use crate::{NewestRead, NewestRow};

pub(crate) use self::relation::{not_a_table, relation_of};
pub(crate) use self::rows::Taken;

/// A database that holds feature rows.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    server: Server,
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

impl Postgres {
    /// Reads the configuration. Nothing is connected yet.
    pub(crate) fn new(config: &Value) -> Result<Self> {
        Ok(Self { server: Server::new(config)? })
    }

    /// The columns of a data source.
    pub(crate) async fn schema(&self, source: &DataSource) -> Result<SchemaRef> {
        let mut session = self.server.connect().await?;
        let relation = open(&session, source).await?;
        session.done();
        Ok(Arc::clone(relation.known.schema()))
    }

    /// The newest row of a source: an index on its time makes that quick.
    pub(crate) async fn newest(&self, source: &DataSource) -> Result<NewestRow> {
        let mut session = self.server.connect().await?;
        let relation = open(&session, source).await?;
        let batch = source.batch().unwrap_or(source);
        let time = relation.time(relation.known.column(batch, &batch.timestamp_field)?);
        let query = format!(
            "SELECT (extract(epoch FROM max({time}) FILTER (WHERE isfinite({time}))) * 1000000)::int8 FROM {}",
            relation.from
        );
        let row = session.client.query_one(&query, &[]).await;
        let row = row.map_err(|error| session.refused("looking for the newest row", error))?;
        session.done();
        Ok(NewestRow { time: NewestValue::of_micros(row.get(0)), read: NewestRead::Statement })
    }
}
