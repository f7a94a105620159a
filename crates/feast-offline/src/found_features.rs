//! The feature values of entity rows, as they wait for being handed out.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use feast_core::{Error, Result};

use crate::entity_rows::OUTPUT_ROWS;
use crate::packed_rows::PackedRows;
use crate::parallel;
use crate::table::Table;

/// The feature values of one view for all entity rows of a part.
pub(crate) enum FoundFeatures {
    /// Which row belongs to each entity row.
    Packed { ranks: Table<u32>, rows: PackedRows },
    /// The columns of every so many entity rows.
    Ready { step: usize, columns: Vec<Vec<ArrayRef>> },
}

impl FoundFeatures {
    /// Lets go of the rows where they take about as much as the answer made of them.
    pub(crate) fn ready(self, threads: usize) -> Result<Self> {
        // Columns of some rows together: enough for huge pages, and several for each thread.
        const SIZE: usize = 32 << 20;
        match self {
            Self::Packed { ranks, rows } if !ranks.is_empty() && 2 * rows.len() >= ranks.len() => {
                let step = (SIZE / rows.width().max(1))
                    .min(ranks.len().div_ceil(threads))
                    .max(1)
                    .next_multiple_of(OUTPUT_ROWS);
                let steps: Vec<&[u32]> = ranks.chunks(step).collect();
                let columns: Vec<Mutex<Vec<ArrayRef>>> = steps.iter().map(|_| Mutex::default()).collect();
                parallel::for_each(threads, steps.len(), &|step| {
                    *columns[step].lock().map_err(|_| Error::internal("a thread failed"))? =
                        rows.gather(steps[step])?;
                    Ok(())
                })?;
                let columns = columns.into_iter().map(Mutex::into_inner).collect::<std::result::Result<_, _>>();
                let columns = columns.map_err(|_| Error::internal("a thread failed"))?;
                Ok(Self::Ready { step, columns })
            }
            other => Ok(other),
        }
    }

    /// The columns for some entity rows.
    fn columns(&self, rows: Range<usize>) -> Result<Vec<ArrayRef>> {
        let (step, columns) = match self {
            Self::Packed { ranks, rows: packed } => return packed.gather(&ranks[rows]),
            Self::Ready { step, columns } => (*step, columns),
        };
        let pieces = (rows.start / step..rows.end.div_ceil(step)).map(|index| {
            let (start, end) = (rows.start.max(index * step), rows.end.min((index + 1) * step));
            let piece = |column: &ArrayRef| column.slice(start - index * step, end - start);
            columns[index].iter().map(piece).collect::<Vec<_>>()
        });
        let pieces: Vec<Vec<ArrayRef>> = pieces.collect();
        if let [all] = pieces.as_slice() {
            return Ok(all.clone());
        }
        let n_columns = pieces.first().map_or(0, Vec::len);
        let joined = (0..n_columns).map(|column| {
            let parts: Vec<&dyn Array> = pieces.iter().map(|piece| piece[column].as_ref()).collect();
            Ok(concat(&parts)?)
        });
        joined.collect()
    }
}

/// The feature columns of several runs of entity rows, view by view.
pub(crate) fn gather(found: &[FoundFeatures], runs: &[Range<usize>]) -> Result<Vec<Vec<ArrayRef>>> {
    let pieces: Vec<Mutex<Vec<ArrayRef>>> = (0..runs.len() * found.len()).map(|_| Mutex::default()).collect();
    // Threads cost more than they save on a few rows.
    let n_rows: usize = runs.iter().map(ExactSizeIterator::len).sum();
    let threads = if n_rows < 4096 { 1 } else { parallel::threads() };
    parallel::for_each(threads, pieces.len(), &|piece| {
        let (run, view) = (&runs[piece / found.len()], &found[piece % found.len()]);
        *pieces[piece].lock().map_err(|_| Error::internal("a thread failed"))? = view.columns(run.clone())?;
        Ok(())
    })?;
    // None may be left out: those behind it would take its place.
    let mut pieces = pieces.into_iter().map(|piece| piece.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(runs.iter().map(|_| pieces.by_ref().take(found.len()).flatten().collect()).collect())
}
