//! From rows to the commands that write them.

use std::sync::Arc;

use arrow::array::BinaryArray;
use feast_core::{Memo, OnlineTable, OnlineWrite, Result, SerializedWrite};
use feast_proto::value_codec::encode_column;

use super::commands::{Pipeline, put_argument};
use super::layout::{feature_fields, put_time, time_field};
use super::{WRITE, dump};
use crate::stores::newest::{Recency, Recent};

/// Rows per call of the script, which blocks the server meanwhile: a fraction of a millisecond.
const ROWS_PER_CALL: usize = 64;

/// Bytes of values per call of the script, for wide rows.
const BYTES_PER_CALL: usize = 1 << 16;

/// Rows whose values are serialized.
pub(super) trait Cells: Recent {
    /// Zero bytes are null.
    fn cell(&self, row: usize, column: usize) -> &[u8];
}

impl Cells for SerializedWrite<'_> {
    fn cell(&self, row: usize, column: usize) -> &[u8] {
        self.rows.cell(row, column)
    }
}

/// Columns, and their values serialized.
pub(super) struct Columns<'a> {
    write: OnlineWrite<'a>,
    cells: Vec<BinaryArray>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(write: OnlineWrite<'a>) -> Result<Self> {
        let columns = write.table.columns.iter().zip(write.rows.columns());
        let cells = columns.map(|(field, column)| {
            encode_column(column, field.value_type).map_err(|error| error.with_context("feature", &field.name))
        });
        Ok(Self { cells: cells.collect::<Result<_>>()?, write })
    }
}

impl Recent for Columns<'_> {
    fn n_rows(&self) -> usize {
        self.write.n_rows()
    }

    fn key(&self, row: usize) -> &[u8] {
        self.write.key(row)
    }

    fn recency(&self, row: usize) -> Recency {
        self.write.recency(row)
    }
}

impl Cells for Columns<'_> {
    fn cell(&self, row: usize, column: usize) -> &[u8] {
        self.cells[column].value(row)
    }
}

/// The names of a table's fields, in the forms in which commands have them.
pub(super) struct FieldNames {
    time: Vec<u8>,
    features: Vec<[u8; 4]>,
    /// How many features there are and all of these names, as arguments of a command.
    arguments: Vec<u8>,
}

impl FieldNames {
    pub(super) fn of(table: &OnlineTable) -> Self {
        let names = table.columns.iter().map(|column| column.name.as_str());
        let features: Vec<[u8; 4]> = names.map(feature_fields(&table.view)).collect();
        let (time, mut arguments) = (time_field(&table.view), Vec::new());
        put_argument(&mut arguments, features.len().to_string().as_bytes());
        put_argument(&mut arguments, &time);
        features.iter().for_each(|name| put_argument(&mut arguments, name));
        Self { time, features, arguments }
    }

    /// Those that are remembered.
    pub(super) fn remembered(table: &OnlineTable, memo: &Memo) -> Arc<Self> {
        memo.get(|| Ok::<_, std::convert::Infallible>(Self::of(table))).unwrap_or_else(|never| match never {})
    }
}

/// A write of some rows.
pub(super) struct PreparedWrite<'a, R> {
    pub(super) table: &'a OnlineTable,
    pub(super) rows: R,
    pub(super) names: Arc<FieldNames>,
}

impl<R: Cells> PreparedWrite<'_, R> {
    pub(super) fn n_features(&self) -> usize {
        self.names.features.len()
    }

    fn put_key(&self, key: &mut Vec<u8>, row: usize) {
        key.clear();
        key.extend_from_slice(self.rows.key(row));
        key.extend_from_slice(self.table.project.as_bytes());
    }

    fn put_time(&self, time: &mut Vec<u8>, row: usize) {
        time.clear();
        put_time(time, self.rows.recency(row).event);
    }

    /// The fields of some features of a row with their values.
    fn features(&self, row: usize, columns: std::ops::Range<usize>) -> impl Iterator<Item = [&[u8]; 2]> {
        columns.map(move |column| [self.names.features[column].as_slice(), self.rows.cell(row, column)])
    }

    /// About how many bytes the values of a row have.
    fn row_bytes(&self, row: usize) -> usize {
        self.features(row, 0..self.n_features()).map(|[_, value]| value.len() + 8).sum()
    }

    /// Whether `RESTORE` may take a row: Redis itself would keep it in the same form.
    pub(super) fn fits_whole(&self, row: usize) -> bool {
        let fits = |length: usize| length <= dump::MOST_BYTES;
        fits(self.names.time.len()) && self.features(row, 0..self.n_features()).all(|[_, value]| fits(value.len()))
    }

    /// Commands for so many rows, of about so many bytes beside those of the values.
    fn pipeline(&self, n_rows: usize, row_bytes: usize, is_cluster: bool) -> Pipeline {
        let mut pipeline = if is_cluster { Pipeline::default() } else { Pipeline::for_one() };
        pipeline.reserve(n_rows, n_rows * (128 + row_bytes + self.n_features() * 16));
        pipeline
    }

    /// Room for a key, and for a time.
    fn scratch(&self) -> (Vec<u8>, Vec<u8>) {
        (Vec::with_capacity(96), Vec::with_capacity(16))
    }

    /// One `RESTORE` per row, which fails where the key is there.
    pub(super) fn whole(&self, rows: &[usize], ttl: Option<u32>, is_cluster: bool) -> Pipeline {
        let mut pipeline = self.pipeline(rows.len(), self.n_features() * 8, is_cluster);
        let ((mut key, mut time), mut hash, mut scratch) = (self.scratch(), Vec::new(), Vec::new());
        let ttl = (u64::from(ttl.unwrap_or(0)) * 1000).to_string();
        for row in rows {
            self.put_key(&mut key, *row);
            self.put_time(&mut time, *row);
            let features = self.features(*row, 0..self.n_features());
            dump::put_hash(&mut hash, &mut scratch, [[self.names.time.as_slice(), &time]].into_iter().chain(features));
            pipeline.begin(4);
            pipeline.argument(b"RESTORE");
            pipeline.argument(&key);
            pipeline.argument(ttl.as_bytes());
            pipeline.argument(&hash);
            pipeline.end(Some(&key));
        }
        pipeline
    }

    /// Calls of the script, each with several rows where their keys may be together.
    pub(super) fn scripted(&self, rows: &[usize], ttl: Option<u32>, is_cluster: bool) -> Pipeline {
        let mut pipeline = self.pipeline(rows.len(), 64, is_cluster);
        let most = if is_cluster { 1 } else { ROWS_PER_CALL };
        let (mut key, mut time) = self.scratch();
        let mut rest = rows;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take(most).take_while(|row| {
                let fits = bytes < BYTES_PER_CALL;
                bytes += self.row_bytes(**row);
                fits
            });
            let (call, others) = rest.split_at(fitting.count());
            rest = others;
            pipeline.begin(6 + self.n_features() + call.len() * (2 + self.n_features()));
            pipeline.argument(b"EVALSHA");
            pipeline.argument(WRITE.sha1.as_bytes());
            pipeline.number(call.len());
            for row in call {
                self.put_key(&mut key, *row);
                pipeline.argument(&key);
            }
            pipeline.number(ttl.unwrap_or(0) as usize);
            pipeline.arguments(&self.names.arguments);
            for row in call {
                self.put_time(&mut time, *row);
                pipeline.argument(&time);
                self.features(*row, 0..self.n_features()).for_each(|[_, value]| pipeline.argument(value));
            }
            // In a cluster it is the only key.
            pipeline.end(Some(&key));
        }
        pipeline
    }

    /// One `HSET` per row, whatever is stored.
    pub(super) fn plain(&self, rows: &[usize], ttl: Option<u32>, is_cluster: bool) -> Pipeline {
        let mut pipeline = self.pipeline(rows.len(), self.n_features() * 20, is_cluster);
        let (mut key, mut time) = self.scratch();
        for row in rows {
            self.put_key(&mut key, *row);
            self.put_time(&mut time, *row);
            pipeline.begin(4 + 2 * self.n_features());
            pipeline.argument(b"HSET");
            pipeline.argument(&key);
            pipeline.argument(&self.names.time);
            pipeline.argument(&time);
            self.features(*row, 0..self.n_features()).flatten().for_each(|argument| pipeline.argument(argument));
            pipeline.end(Some(&key));
            if let Some(ttl) = ttl.filter(|ttl| *ttl > 0) {
                pipeline.begin(3);
                pipeline.argument(b"EXPIRE");
                pipeline.argument(&key);
                pipeline.number(ttl as usize);
                pipeline.end(Some(&key));
            }
        }
        pipeline
    }
}
