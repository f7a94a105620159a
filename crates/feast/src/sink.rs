//! The sink of a view over other views: the rows that its materializations computed, kept offline, where training data
//! reads them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use feast_core::{DUMMY_JOIN_KEY, DataSource, ErrorCode, FeatureView, Result};
use feast_offline::{BatchStream, CREATED_TIMESTAMP_COLUMN, EVENT_TIMESTAMP_COLUMN, OfflineStore, WriteOptions};
use futures::{TryStreamExt, stream};

/// Rows that are added at a time: a reader sees all of them or none, and adding to a single file writes it anew.
const CHUNK_ROWS: usize = 1 << 20;

/// The sink that materializations of a view fill, if it has one.
pub(crate) fn sink_of(view: &FeatureView) -> Option<&DataSource> {
    view.sink().filter(|_| view.offline)
}

/// The same rows, added to a sink as they pass. Rows that are added twice answer every question as if added once.
pub(crate) fn kept(rows: BatchStream, sink: &DataSource, offline: Arc<OfflineStore>) -> BatchStream {
    let schema = Arc::clone(rows.schema());
    let sink = Sink { source: sink.clone(), offline, waiting: Vec::new(), n_waiting: 0 };
    let passing = stream::try_unfold((rows, sink), async |(mut rows, mut sink)| {
        let batch = rows.try_next().await?;
        sink.take(batch.as_ref()).await?;
        Ok(batch.map(|batch| (batch, (rows, sink))))
    });
    BatchStream::new(schema, passing)
}

struct Sink {
    source: DataSource,
    offline: Arc<OfflineStore>,
    waiting: Vec<RecordBatch>,
    n_waiting: usize,
}

impl Sink {
    /// Keeps rows, or what waits when there are no more.
    async fn take(&mut self, batch: Option<&RecordBatch>) -> Result<()> {
        if let Some(batch) = batch.filter(|batch| batch.num_rows() > 0) {
            self.waiting.push(self.as_stored(batch)?);
            self.n_waiting += batch.num_rows();
        }
        let (Some(first), true) = (self.waiting.first(), batch.is_none() || self.n_waiting >= CHUNK_ROWS) else {
            return Ok(());
        };
        let rows = concat_batches(first.schema_ref(), &self.waiting)?;
        (self.waiting, self.n_waiting) = (Vec::new(), 0);
        match self.offline.append(&self.source, rows.clone()).await {
            Err(error) if error.code() == ErrorCode::FileNotFound => {
                let rows = BatchStream::from_batches(rows.schema(), vec![rows]);
                self.offline.write_storage(&self.source.options, rows, WriteOptions::default()).await.map(drop)
            }
            added => added.map(drop),
        }
    }

    /// The columns under the names of the sink.
    fn as_stored(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let source = &self.source;
        let name_of = |name: &str| match name {
            EVENT_TIMESTAMP_COLUMN => Some(source.unmapped(&source.timestamp_field).to_owned()),
            CREATED_TIMESTAMP_COLUMN if source.created_timestamp_column.is_empty() => None,
            CREATED_TIMESTAMP_COLUMN => Some(source.unmapped(&source.created_timestamp_column).to_owned()),
            DUMMY_JOIN_KEY => None,
            name => Some(source.unmapped(name).to_owned()),
        };
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns = columns.filter_map(|(field, column)| {
            Some((field.as_ref().clone().with_name(name_of(field.name())?), Arc::clone(column)))
        });
        let (fields, columns): (Vec<_>, Vec<_>) = columns.unzip();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}
