//! Saved datasets as tables.

use std::pin::pin;
use std::sync::Arc;

use arrow::array::ArrayRef;
use feast_core::{DataSource, DataSourceOptions, Error, ErrorCode, Result};
use futures::{SinkExt, StreamExt, stream};

use super::Postgres;
use super::answer::Answer;
use super::connection::quoted;
use super::copy::{Encoder, Kind};
use super::relation::{SOURCE_CLASS, open};
use super::rows::ROWS_SENT;
use crate::BatchStream;
use crate::cast::cast_to;
use crate::entity_rows::OUTPUT_ROWS;
use crate::view_columns::record_batch;

impl Postgres {
    /// Writes rows as a new table; all of them or, when anything fails, none.
    pub(crate) async fn write_table(&self, table: &str, mut rows: BatchStream, overwrite: bool) -> Result<u64> {
        let mut session = self.server.connect().await?;
        let doing = "writing a dataset";
        session.run(doing, "BEGIN").await?;
        let exists = session.client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await;
        let exists: bool = exists.map_err(|error| session.refused(doing, error))?.get(0);
        if exists && !overwrite {
            return Err(Error::new(
                ErrorCode::SavedDatasetLocationExists,
                format!("there is a table `{table}` already"),
            )
            .with_hint("choose another name, or allow overwriting"));
        }
        let schema = Arc::clone(rows.schema());
        let kinds = schema.fields().iter().map(|field| {
            Kind::for_arrow(field.data_type()).ok_or_else(|| {
                Error::unsupported(format!(
                    "column `{}` holds {}, for which there is no type in PostgreSQL",
                    field.name(),
                    field.data_type()
                ))
                .with_hint("leave the column out, or keep the dataset in files")
            })
        });
        let kinds: Vec<Kind> = kinds.collect::<Result<_>>()?;
        let typed = schema.fields().iter().zip(&kinds);
        let typed = typed.map(|(field, kind)| format!("{} {}", quoted(field.name()), kind.name()));
        let drop_old = if exists { format!("DROP TABLE {table}; ") } else { String::new() };
        let create = format!("{drop_old}CREATE TABLE {table} ({})", typed.collect::<Vec<_>>().join(", "));
        session.run(doing, &create).await?;
        let copy = format!("COPY {table} FROM STDIN (FORMAT binary)");
        let sink = session.client.copy_in(&copy).await.map_err(|error| session.refused(doing, error))?;
        let mut sink = pin!(sink);
        let mut encoder = Encoder::new(kinds.clone());
        let mut n_rows = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let columns =
                batch.columns().iter().zip(schema.fields()).zip(&kinds).map(|((array, field), kind)| {
                    cast_to(array, &kind.data_type(), &format!("column `{}`", field.name()))
                });
            let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
            for start in (0..batch.num_rows()).step_by(ROWS_SENT) {
                let part: Vec<ArrayRef> =
                    columns.iter().map(|column| column.slice(start, ROWS_SENT.min(batch.num_rows() - start))).collect();
                let bytes = encoder.encode(&part, ROWS_SENT.min(batch.num_rows() - start)).freeze();
                sink.feed(bytes).await.map_err(|error| session.refused(doing, error))?;
            }
            n_rows += batch.num_rows() as u64;
        }
        sink.send(encoder.end().freeze()).await.map_err(|error| session.refused(doing, error))?;
        sink.as_mut().finish().await.map_err(|error| session.refused(doing, error))?;
        session.run(doing, "COMMIT").await?;
        session.done();
        Ok(n_rows)
    }

    /// Reads all rows of a table or query.
    pub(crate) async fn read(&self, options: &DataSourceOptions) -> Result<BatchStream> {
        let session = self.server.connect().await?;
        let source = DataSource {
            name: "dataset".to_owned(),
            class_type: SOURCE_CLASS.to_owned(),
            options: options.clone(),
            ..DataSource::default()
        };
        let relation = open(&session, &source).await?;
        let columns: Vec<String> = (0..relation.columns.len()).map(|column| relation.expression(column)).collect();
        let kinds: Vec<Kind> = relation.columns.iter().map(|column| column.kind.clone()).collect();
        let statement = format!("SELECT {} FROM {}", columns.join(", "), relation.from);
        let answer = Answer::new(session, "reading a dataset", &statement, &kinds);
        let schema = Arc::clone(relation.known.schema());
        let output = Arc::clone(&schema);
        let batches = stream::try_unfold(answer, move |mut answer| {
            let output = Arc::clone(&output);
            async move {
                let Some((n_rows, columns)) = answer.next(OUTPUT_ROWS).await? else { return Ok(None) };
                Ok::<_, Error>(Some((record_batch(&output, columns, n_rows)?, answer)))
            }
        });
        Ok(BatchStream::new(schema, batches))
    }
}
