//! The latest row of each key in a window of time: what materialization writes.
//!
//! Memory grows with the number of distinct keys, not with the rows: a first look reads keys and times and keeps one
//! position per key, then the winning rows are read and handed out in batches. Sources that cannot be read twice keep
//! the leading rows themselves.
//!
//! Where the keys do not fit the memory limit, a pass considers only a part of them, by their hash, and leaves the rest
//! to the next pass. How large a part fits shows while it is filled: whenever it is full, the later half is dropped.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use feast_core::{DUMMY_JOIN_KEY_VALUE, Error, FeatureView, Field, Result, Timestamp, ValueType, timestamp_type};

use crate::batch_stream::{BatchSender, BatchStream};
use crate::cast::to_declared;
use crate::join_keys::{KeyTable, NO_KEY, canonical, common_type};
use crate::kept_rows::KeptRows;
use crate::parallel;
use crate::point_in_time::{FeatureRows, NO_ROW, Slot};
use crate::row_positions::RowPositions;
use crate::sources::{SourceTable, Texts, Window};
use crate::timestamps::micros_array;
use crate::view_columns::{Scanned, ViewColumns, batch_source, declared_columns, output_field, record_batch};

/// Name of the event time column of [`OfflineStore::latest`](crate::OfflineStore::latest).
pub const EVENT_TIMESTAMP_COLUMN: &str = "__event_timestamp";
/// Name of the created time column of [`OfflineStore::latest`](crate::OfflineStore::latest).
pub const CREATED_TIMESTAMP_COLUMN: &str = "__created_timestamp";

/// A request for the latest row of each key.
#[derive(Debug, Clone)]
pub struct LatestRequest {
    /// The view whose source is read.
    pub view: Arc<FeatureView>,
    /// First event time that counts.
    pub start: Timestamp,
    /// Last event time that counts.
    pub end: Timestamp,
}

/// A request whose source is open.
pub(crate) struct Latest {
    view: Arc<FeatureView>,
    table: SourceTable,
    columns: ViewColumns,
    /// The join keys with their declared types, the dummy key of entity-less views included.
    keys: Vec<Field>,
    key_types: Vec<DataType>,
    schema: SchemaRef,
    first: i64,
    last: i64,
    /// Bytes that may be used for keys, about.
    memory: usize,
}

impl Latest {
    /// Finds the columns of the view in its source.
    ///
    /// What is kept of the keys takes about `memory` bytes at most; more keys take more passes over the source.
    pub(crate) fn new(
        request: LatestRequest,
        memory: usize,
        open: impl FnOnce() -> Result<SourceTable>,
    ) -> Result<Self> {
        let LatestRequest { view, start, end } = request;
        if start > end {
            return Err(Error::invalid_request(format!("the start {start} is after the end {end}"))
                .with_hint("swap the two dates"));
        }
        let table = open().map_err(|error| error.with_context("feature view", &view.name))?;
        let source = batch_source(&view)?;
        let keys = view.key_columns();
        let columns =
            ViewColumns::find(&view, &table, source, keys.iter().map(|key| key.name.as_str()), view.features.iter())?;
        let key_types = columns
            .keys
            .iter()
            .map(|column| {
                let data_type = table.data_type(*column);
                common_type(data_type, data_type).ok_or_else(|| {
                    Error::invalid_definition(format!(
                        "{} has type {data_type}, which cannot be a join key",
                        table.describe(*column)
                    ))
                    .with_hint(
                        "join keys are integers, texts, bytes, times or booleans: convert the column in the source",
                    )
                })
            })
            .collect::<Result<_>>()?;
        let mut fields: Vec<ArrowField> = keys.iter().map(|key| key.value_type.arrow_field(&key.name)).collect();
        for (feature, (column, declared)) in view.features.iter().zip(&columns.features) {
            fields.push(output_field(&feature.name, *declared, &table, *column));
        }
        fields.push(ArrowField::new(EVENT_TIMESTAMP_COLUMN, timestamp_type(), true));
        fields.push(ArrowField::new(CREATED_TIMESTAMP_COLUMN, timestamp_type(), true));
        let schema = Arc::new(Schema::new(fields));
        let (first, last) = (start.timestamp_micros(), end.timestamp_micros());
        Ok(Self { view, table, columns, keys, key_types, schema, first, last, memory })
    }

    /// Starts the work; it runs as batches are read. The order of the rows is not promised.
    pub(crate) fn start(self) -> BatchStream {
        BatchStream::from_blocking(Arc::clone(&self.schema), move |sender| self.run(sender))
    }

    fn run(&self, sender: &BatchSender) -> Result<()> {
        let mut keys = KeyTable::new(&self.key_types)?;
        let mut part = Part { first: 0, last: u32::MAX };
        loop {
            let (rows, rest) = self.pass(keys, part, sender)?;
            keys = rows;
            match rest {
                Some(next) => part = next,
                None => return Ok(()),
            }
        }
    }

    /// Hands out the latest rows of a part of the keys; returns the table for reuse, and the part that comes next.
    fn pass(&self, keys: KeyTable, part: Part, sender: &BatchSender) -> Result<(KeyTable, Option<Part>)> {
        let all = Scanned::new(self.columns.deciding().chain(self.columns.feature_columns()));
        let seekable = self.table.is_seekable();
        let scanned =
            if seekable { Scanned::new(self.columns.deciding()) } else { Scanned::new(all.columns.iter().copied()) };
        let leaders = Mutex::new(Leaders {
            keys,
            part,
            slots: Vec::new(),
            kept: KeptRows::new(Arc::new(self.table.schema().project(&all.columns)?)),
        });
        let window = Window { column: self.columns.event, first: self.first, last: self.last };
        self.table.scan(&scanned.columns, Some(window), parallel::threads(), &|first_row, batch| {
            sender.check()?;
            let event = scanned.times(&batch, self.columns.event, &self.table)?;
            let created =
                self.columns.created.map(|created| scanned.times(&batch, created, &self.table)).transpose()?;
            let rows = FeatureRows { first_row, event: &event, created: created.as_ref() };
            let keys = self.columns.keys.iter().zip(&self.key_types).map(|(column, key_type)| {
                canonical(scanned.array(&batch, *column)?, key_type, &self.table.describe(*column))
            });
            let keys = keys.collect::<Result<Vec<_>>>()?;
            let mut leaders = leaders.lock().map_err(|_| Error::internal("a thread failed"))?;
            let taken = leaders.offer(&keys, rows, (self.first, self.last))?;
            if !seekable {
                leaders.kept.keep(first_row, batch.columns().to_vec(), taken)?;
                if leaders.kept.is_full() {
                    leaders.drop_losers()?;
                }
            }
            leaders.fit(self.memory)
        })?;
        let mut leaders = leaders.into_inner().map_err(|_| Error::internal("a thread failed"))?;
        let rows = leaders.rows();
        if leaders.part.is_all() {
            sender.expect(rows.len());
        }
        let next = leaders.part.next();
        leaders.slots = Vec::new();
        leaders.keys.retain(|_| false);
        if !seekable {
            let kept = leaders.kept.into_batches(&rows)?;
            kept.iter().try_for_each(|batch| sender.send(self.output(&all, batch)?))?;
        } else {
            let rows = RowPositions::list(rows);
            self.table.fetch(&all.columns, &rows, parallel::threads(), Texts::Whole, &|_, batch| {
                sender.send(self.output(&all, &batch)?)
            })?;
        }
        Ok((leaders.keys, next))
    }

    fn output(&self, scanned: &Scanned, batch: &RecordBatch) -> Result<RecordBatch> {
        let n_rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        if self.columns.keys.is_empty() {
            // Entity-less views have one row, under the key that stands for no entity.
            columns.push(Arc::new(StringArray::from(vec![DUMMY_JOIN_KEY_VALUE; n_rows])));
        }
        for (key, column) in self.keys.iter().zip(&self.columns.keys) {
            let declared = match key.value_type {
                ValueType::Invalid => {
                    return Err(Error::invalid_definition(format!(
                        "join key `{}` of feature view `{}` has no type",
                        key.name, self.view.name
                    ))
                    .with_hint("run `feast apply`, which infers it"));
                }
                known => known,
            };
            columns.push(to_declared(scanned.array(batch, *column)?, declared, &self.table.describe(*column))?);
        }
        let features = scanned.project(batch, &self.columns.feature_columns())?;
        columns.extend(declared_columns(&features, &self.columns.features, &self.table)?);
        columns.push(micros_array(scanned.times(batch, self.columns.event, &self.table)?));
        columns.push(match self.columns.created {
            Some(created) => micros_array(scanned.times(batch, created, &self.table)?),
            None => new_null_array(&timestamp_type(), n_rows),
        });
        record_batch(&self.schema, columns, n_rows)
    }
}

/// The keys that a pass considers: those whose hash is not outside.
#[derive(Debug, Clone, Copy)]
struct Part {
    first: u32,
    last: u32,
}

impl Part {
    fn contains(self, hash: u32) -> bool {
        (self.first..=self.last).contains(&hash)
    }

    fn is_all(self) -> bool {
        (self.first, self.last) == (0, u32::MAX)
    }

    /// The first half.
    fn halved(self) -> Self {
        Self { last: self.first + (self.last - self.first) / 2, ..self }
    }

    /// Twice as much, behind this one: were it halved too often, the next passes make up for it.
    fn next(self) -> Option<Self> {
        let first = self.last.checked_add(1)?;
        Some(Self { first, last: first.saturating_add((self.last - self.first).saturating_mul(2)) })
    }
}

/// The best row so far of every key of a part.
struct Leaders {
    keys: KeyTable,
    part: Part,
    /// By number of the key.
    slots: Vec<Slot>,
    kept: KeptRows,
}

impl Leaders {
    /// Offers the rows inside the window; returns which of them lead for now.
    fn offer(&mut self, keys: &[ArrayRef], rows: FeatureRows<'_>, (first, last): (i64, i64)) -> Result<Vec<bool>> {
        let n_rows = rows.event.len();
        let mut taken = vec![false; n_rows];
        let counts = |index: usize| rows.slot(index).is_some_and(|slot| (first..=last).contains(&slot.event));
        let mut inside: Vec<bool> = (0..n_rows).map(counts).collect();
        if !self.part.is_all() {
            let mut hashes = Vec::with_capacity(n_rows);
            self.keys.hash(keys, n_rows, &mut hashes)?;
            inside.iter_mut().zip(hashes).for_each(|(inside, hash)| *inside &= self.part.contains(hash));
        }
        // Keys of rows that do not count take no memory.
        let wanted = BooleanArray::from(inside);
        let indices: Vec<usize> = wanted.values().set_indices().collect();
        let narrowed: Vec<ArrayRef> = match indices.len() == n_rows {
            true => keys.to_vec(),
            false => keys.iter().map(|key| Ok(filter(key, &wanted)?)).collect::<Result<_>>()?,
        };
        let mut numbers = Vec::with_capacity(indices.len());
        self.keys.number(&narrowed, indices.len(), &mut numbers)?;
        self.slots.resize(self.keys.len(), Slot::EMPTY);
        for (index, number) in indices.into_iter().zip(numbers).filter(|(_, number)| *number != NO_KEY) {
            if let Some(slot) = rows.slot(index) {
                taken[index] = self.slots[number as usize].offer(slot);
            }
        }
        Ok(taken)
    }

    /// Leaves keys to the next pass while there are more than fit.
    fn fit(&mut self, memory: usize) -> Result<()> {
        // Beside a slot, each key will have a position to be read at.
        while self.keys.size() + self.slots.len() * (size_of::<Slot>() + 8) + self.kept.size() > memory
            && self.slots.len() > LEAST_KEYS
            && self.part.first < self.part.last
        {
            self.part = self.part.halved();
            let part = self.part;
            let former = self.keys.retain(|hash| part.contains(hash));
            self.slots = former.into_iter().map(|number| self.slots[number as usize]).collect();
            if self.kept.size() > 0 {
                self.drop_losers()?;
            }
        }
        Ok(())
    }

    fn drop_losers(&mut self) -> Result<()> {
        let leading = self.rows();
        self.kept.retain(&leading)
    }

    /// Positions of the leading rows, ascending.
    fn rows(&self) -> Vec<u64> {
        let mut rows: Vec<u64> = self.slots.iter().map(|slot| slot.row).filter(|row| *row != NO_ROW).collect();
        rows.sort_unstable();
        rows
    }
}

/// Fewer keys than this are not worth another pass. Tests have few keys and want several passes.
const LEAST_KEYS: usize = if cfg!(test) { 4 } else { 1024 };
