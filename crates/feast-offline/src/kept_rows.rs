//! Rows of a source that cannot be read twice, kept while they lead and dropped when they have lost.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use feast_core::Result;

use crate::view_columns::record_batch;

/// Rows kept so far, in source order.
pub(crate) struct KeptRows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    positions: Vec<u64>,
    /// Rows at which losers are dropped.
    limit: usize,
    /// Bytes of the batches.
    size: usize,
}

/// Below this many rows, dropping losers is not worth the copy.
const LEAST_LIMIT: usize = 65_536;

impl KeptRows {
    /// Keeps rows of these columns.
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema, batches: Vec::new(), positions: Vec::new(), limit: LEAST_LIMIT, size: 0 }
    }

    /// Keeps the taken rows of a batch that begins at `first_row`.
    pub(crate) fn keep(&mut self, first_row: u64, columns: Vec<ArrayRef>, taken: Vec<bool>) -> Result<()> {
        if !taken.contains(&true) {
            return Ok(());
        }
        self.positions.extend((first_row..).zip(&taken).filter(|(_, taken)| **taken).map(|(position, _)| position));
        let batch = record_batch(&self.schema, columns, taken.len())?;
        let batch = filter_record_batch(&batch, &BooleanArray::from(taken))?;
        self.size += batch.get_array_memory_size();
        self.batches.push(batch);
        Ok(())
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Whether it is time to [`retain`](Self::retain).
    pub(crate) fn is_full(&self) -> bool {
        self.positions.len() > self.limit
    }

    /// Drops all rows but those at the given ascending positions.
    pub(crate) fn retain(&mut self, leading: &[u64]) -> Result<()> {
        let leads: Vec<bool> = self.positions.iter().map(|position| leading.binary_search(position).is_ok()).collect();
        let mut start = 0;
        let mut batches = Vec::new();
        for batch in &self.batches {
            let end = start + batch.num_rows();
            batches.push(filter_record_batch(batch, &BooleanArray::from(leads[start..end].to_vec()))?);
            start = end;
        }
        let batch = concat_batches(&self.schema, &batches)?;
        self.size = batch.get_array_memory_size();
        self.batches = vec![batch];
        let mut leads = leads.into_iter();
        self.positions.retain(|_| leads.next() == Some(true));
        // At least as many rows again arrive before the next copy, so that copying stays linear.
        self.limit = LEAST_LIMIT.max(2 * self.positions.len());
        Ok(())
    }

    /// The kept rows at exactly the given ascending positions.
    pub(crate) fn into_batches(mut self, positions: &[u64]) -> Result<Vec<RecordBatch>> {
        self.retain(positions)?;
        Ok(self.batches)
    }
}
