//! Which feature row belongs to which entity row: the only module that knows.
//!
//! **The rule.** An entity row with key `k` at time `t` gets the feature row of key `k` with the greatest event time
//! `e` for which `t - ttl <= e <= t`, both ends included; without ttl there is no lower end. At equal event times the
//! greatest created time wins, a missing one being the smallest; at equal created times the later row of the source,
//! files in order of their paths. Where rows must have been known at `t`, a row counts from its created time on, and
//! rows without created time never count. Null keys and null times match nothing.
//!
//! **The way.** Entity rows are sorted by key and time ([`Timelines`]); the feature side, as a rule the big one, is
//! never sorted. Each entity row has one [`Slot`]. A feature row goes into the slot of the first entity row of its key
//! that may see it, if it beats what is there; offers commute, so threads share the slots. One pass over each key then
//! carries the best so far forward. This is linear in the feature rows and takes memory for the entity rows only.
//!
//! These are plain functions over batches, not a node of a query plan: nothing here needs a planner yet. Entity rows
//! beyond memory will be split by key, both sides alike, with this module run on each part.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use feast_core::{Error, Result, TimeToLive};

use crate::join_keys::{KeyTable, NO_KEY};

/// Stands for the feature row of an entity row that has none.
pub(crate) const NO_ROW: u64 = u64::MAX;

/// The best feature row so far, for one entity row or one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    event: i64,
    created: i64,
    row: u64,
}

impl Slot {
    /// Nothing yet.
    pub(crate) const EMPTY: Self = Self { event: i64::MIN, created: i64::MIN, row: NO_ROW };

    /// Position of the feature row in its source; [`NO_ROW`] when there is none.
    pub(crate) fn row(&self) -> u64 {
        self.row
    }

    /// Event time of the feature row.
    pub(crate) fn event(&self) -> i64 {
        self.event
    }

    /// Takes the offered row if it is better: later event, else later created, else later in the source.
    pub(crate) fn offer(&mut self, other: Self) -> bool {
        let better =
            self.row == NO_ROW || (other.event, other.created, other.row) > (self.event, self.created, self.row);
        if better {
            *self = other;
        }
        better
    }
}

/// Feature rows of one batch, in source order.
#[derive(Clone, Copy)]
pub(crate) struct FeatureRows<'a> {
    /// Position of the first row in the source.
    pub(crate) first_row: u64,
    /// When each row became true.
    pub(crate) event: &'a TimestampMicrosecondArray,
    /// When each row was written, where the source says so.
    pub(crate) created: Option<&'a TimestampMicrosecondArray>,
}

impl FeatureRows<'_> {
    /// Row `index` as an offer; `None` when it has no event time.
    pub(crate) fn slot(&self, index: usize) -> Option<Slot> {
        if self.event.is_null(index) {
            return None;
        }
        let created = self.created.filter(|created| created.is_valid(index));
        Some(Slot {
            event: self.event.value(index),
            created: created.map_or(i64::MIN, |created| created.value(index)),
            row: self.first_row + index as u64,
        })
    }
}

/// The times of all entity rows, by key and in order: what feature rows are matched against.
pub(crate) struct Timelines {
    keys: KeyTable,
    /// Timeline `k` is `starts[k]..starts[k + 1]`.
    starts: Vec<u32>,
    times: Vec<i64>,
    /// The entity row of each time.
    rows: Vec<u32>,
    n_entity_rows: usize,
}

impl Timelines {
    /// Sorts entity rows by key and time. `key_batches` holds the key columns batch by batch, in the types given.
    pub(crate) fn new(
        types: &[DataType],
        key_batches: &[(usize, Vec<ArrayRef>)],
        entity_times: &TimestampMicrosecondArray,
    ) -> Result<Self> {
        let n_entity_rows = entity_times.len();
        if n_entity_rows >= NO_KEY as usize {
            return Err(Error::unsupported(format!("{n_entity_rows} entity rows in one request"))
                .with_hint("split the entity rows into several requests of less than four billion rows"));
        }
        let mut keys = KeyTable::new(types)?;
        let mut numbers = Vec::with_capacity(n_entity_rows);
        for (n_rows, columns) in key_batches {
            keys.number(columns, *n_rows, &mut numbers)?;
        }
        // Counting sort by key, then each key's few rows by time.
        let counts = |row: usize| numbers[row] != NO_KEY && entity_times.is_valid(row);
        let mut starts = vec![0u32; keys.len() + 1];
        for row in (0..n_entity_rows).filter(|row| counts(*row)) {
            starts[numbers[row] as usize + 1] += 1;
        }
        for key in 0..keys.len() {
            starts[key + 1] += starts[key];
        }
        let mut next = starts.clone();
        let mut sorted = vec![(0i64, 0u32); starts[keys.len()] as usize];
        for row in (0..n_entity_rows).filter(|row| counts(*row)) {
            let place = &mut next[numbers[row] as usize];
            sorted[*place as usize] = (entity_times.value(row), row as u32);
            *place += 1;
        }
        for key in 0..keys.len() {
            sorted[starts[key] as usize..starts[key + 1] as usize].sort_unstable();
        }
        let (times, rows) = sorted.into_iter().unzip();
        Ok(Self { keys, starts, times, rows, n_entity_rows })
    }
}

/// One view joined to the entity rows: the rule it follows and the best rows so far.
pub(crate) struct PointInTimeJoin {
    timelines: Arc<Timelines>,
    ttl: TimeToLive,
    known_at_entity_time: bool,
    /// Event times outside can match no entity row.
    window: (i64, i64),
    shards: Vec<Mutex<Vec<Slot>>>,
}

/// Slots that share a lock: few enough that threads rarely meet, many enough that locks cost little memory.
const SHARD: usize = 1 << 12;

impl PointInTimeJoin {
    /// A join that has seen no feature row. With `known_at_entity_time`, rows count from their created time on.
    pub(crate) fn new(timelines: Arc<Timelines>, ttl: TimeToLive, known_at_entity_time: bool) -> Self {
        let n_slots = timelines.times.len();
        let shards = (0..n_slots.div_ceil(SHARD))
            .map(|shard| Mutex::new(vec![Slot::EMPTY; SHARD.min(n_slots - shard * SHARD)]))
            .collect();
        let first = timelines.times.iter().min().copied().unwrap_or(i64::MAX);
        let last = timelines.times.iter().max().copied().unwrap_or(i64::MIN);
        let first = ttl.micros().map_or(i64::MIN, |ttl| first.saturating_sub(ttl));
        Self { timelines, ttl, known_at_entity_time, window: (first, last), shards }
    }

    /// Whether there is an entity row that a feature row could match.
    pub(crate) fn can_match(&self) -> bool {
        !self.timelines.times.is_empty()
    }

    /// First and last event time that can match, both included.
    pub(crate) fn window(&self) -> (i64, i64) {
        self.window
    }

    /// Offers feature rows with their key columns. Returns which rows are the best of a slot for now, if asked.
    pub(crate) fn offer(
        &self,
        keys: &[ArrayRef],
        rows: FeatureRows<'_>,
        mut taken: Option<&mut Vec<bool>>,
    ) -> Result<()> {
        let n_rows = rows.event.len();
        if let Some(taken) = &mut taken {
            taken.resize(n_rows, false);
        }
        let mut numbers = Vec::with_capacity(n_rows);
        self.timelines.keys.find(keys, n_rows, &mut numbers)?;
        let (first, last) = self.window();
        let mut held: Option<(usize, MutexGuard<'_, Vec<Slot>>)> = None;
        for (index, number) in numbers.into_iter().enumerate().filter(|(_, number)| *number != NO_KEY) {
            let Some(slot) = rows.slot(index).filter(|slot| (first..=last).contains(&slot.event)) else { continue };
            let visible_from = match (self.known_at_entity_time, rows.created) {
                (true, Some(created)) if created.is_null(index) => continue,
                (true, Some(_)) => slot.event.max(slot.created),
                _ => slot.event,
            };
            let start = self.timelines.starts[number as usize] as usize;
            let end = self.timelines.starts[number as usize + 1] as usize;
            let timeline = &self.timelines.times[start..end];
            let position = start + timeline.partition_point(|time| *time < visible_from);
            // Too old for the first entity row that sees it is too old for all after it.
            if position == end || self.is_too_old(slot.event, self.timelines.times[position]) {
                continue;
            }
            let shard = position / SHARD;
            let slots = match held {
                Some((held_shard, ref mut slots)) if held_shard == shard => slots,
                _ => {
                    // Never hold two locks: threads would wait for each other.
                    drop(held.take());
                    &mut held.insert((shard, lock(&self.shards[shard]))).1
                }
            };
            if slots[position % SHARD].offer(slot)
                && let Some(taken) = &mut taken
            {
                taken[index] = true;
            }
        }
        Ok(())
    }

    /// The feature rows that are the best of a slot for now, in source order. Rows not listed have lost for good.
    pub(crate) fn leading_rows(&self) -> Vec<u64> {
        let mut rows = Vec::new();
        for shard in &self.shards {
            rows.extend(lock(shard).iter().map(Slot::row).filter(|row| *row != NO_ROW));
        }
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// The feature row of each entity row, in the order of the entity rows; [`NO_ROW`] where there is none.
    pub(crate) fn finish(self) -> Vec<u64> {
        let mut shards = self.shards.iter();
        let mut slots: Vec<Slot> = Vec::new();
        let mut winners = vec![NO_ROW; self.timelines.n_entity_rows];
        let mut read = 0;
        for key in self.timelines.starts.windows(2) {
            let mut best = Slot::EMPTY;
            for position in key[0] as usize..key[1] as usize {
                if read == slots.len() {
                    // Positions run through the shards in order.
                    slots = shards.next().map(|shard| std::mem::take(&mut *lock(shard))).unwrap_or_default();
                    read = 0;
                }
                let slot = slots[read];
                read += 1;
                if slot.row != NO_ROW {
                    best.offer(slot);
                }
                if best.row != NO_ROW && !self.is_too_old(best.event, self.timelines.times[position]) {
                    winners[self.timelines.rows[position] as usize] = best.row;
                }
            }
        }
        winners
    }

    fn is_too_old(&self, event: i64, entity_time: i64) -> bool {
        self.ttl.micros().is_some_and(|ttl| event < entity_time.saturating_sub(ttl))
    }
}

/// A thread that panicked while it held the lock left whole slots behind.
fn lock(shard: &Mutex<Vec<Slot>>) -> MutexGuard<'_, Vec<Slot>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
