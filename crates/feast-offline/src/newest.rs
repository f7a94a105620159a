//! The greatest event time of a source: from the footers of its files where they tell, else from its rows.

use std::sync::Mutex;
use std::sync::PoisonError;

use feast_core::{DataSource, NewestValue, Result};

use crate::sources::SourceTable;
use crate::timestamps::to_micros;

/// The newest row of a source, and how it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewestRow {
    /// Its event time.
    pub time: NewestValue,
    /// What was read for that.
    pub read: NewestRead,
}

/// What was read to find the newest row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewestRead {
    /// The statistics in the footers of files.
    Statistics,
    /// A column of times, wholly or where statistics were missing.
    Rows,
    /// A statement was run in a database.
    Statement,
}

/// Finds the newest row of the files of a source. With `statistics_only` no rows are read: where footers do not tell,
/// nothing is told.
pub(crate) fn newest(table: &SourceTable, source: &DataSource, statistics_only: bool) -> Result<NewestRow> {
    let batch = source.batch().unwrap_or(source);
    let column = table.column(batch, &batch.timestamp_field)?;
    let (known, unknown) = table.newest_by_statistics(column);
    if !unknown {
        return Ok(NewestRow { time: NewestValue::of_micros(known), read: NewestRead::Statistics });
    }
    if statistics_only {
        return Ok(NewestRow { time: NewestValue::NotTold, read: NewestRead::Statistics });
    }
    let greatest: Mutex<Option<i64>> = Mutex::new(None);
    let threads = crate::parallel::threads();
    table.scan(&[column], None, threads, &|_, rows| {
        let times = to_micros(rows.column(0), &table.describe(column))?;
        let found = arrow::compute::max(&times);
        let mut greatest = greatest.lock().unwrap_or_else(PoisonError::into_inner);
        *greatest = (*greatest).max(found);
        Ok(())
    })?;
    let greatest = greatest.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(NewestRow { time: NewestValue::of_micros(greatest), read: NewestRead::Rows })
}
