//! All rows of a source in a window of time, for those who compute with them here.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use feast_core::{DataSource, Error, Result, Timestamp};
use futures::stream;

use super::Postgres;
use super::answer::Answer;
use super::copy::Kind;
use super::relation::open;
use super::statements;
use crate::BatchStream;
use crate::entity_rows::OUTPUT_ROWS;
use crate::view_columns::record_batch;

impl Postgres {
    /// As [`OfflineStore::rows`](crate::OfflineStore::rows).
    pub(crate) async fn window(&self, source: &DataSource, start: Timestamp, end: Timestamp) -> Result<BatchStream> {
        let session = self.server.connect().await?;
        let relation = open(&session, source).await?;
        let batch = source.batch().unwrap_or(source);
        let event = relation.time(relation.known.column(batch, &batch.timestamp_field)?);
        let columns: Vec<String> = (0..relation.columns.len()).map(|column| relation.expression(column)).collect();
        let kinds: Vec<Kind> = relation.columns.iter().map(|column| column.kind.clone()).collect();
        let fields = relation.columns.iter().map(|column| {
            let field = column.field();
            match batch.field_mapping.get(&column.name) {
                Some(name) => field.with_name(name),
                None => field,
            }
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        let statement = statements::window(&columns, &relation.from, &event, relation.stored, start, end);
        let answer = Answer::new(session, "reading the rows of a source", &statement, &kinds);
        let output = Arc::clone(&schema);
        let batches = stream::try_unfold(answer, move |mut answer| {
            let output = Arc::clone(&output);
            async move {
                let Some((n_rows, arrays)) = answer.next(OUTPUT_ROWS).await? else { return Ok(None) };
                Ok::<_, Error>(Some((record_batch(&output, arrays, n_rows)?, answer)))
            }
        });
        Ok(BatchStream::new(schema, batches))
    }
}
