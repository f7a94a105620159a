//! Which feature row belongs to which entity row: the only module that knows.
//!
//! **The rule.** An entity row with key `k` at time `t` gets the feature row of key `k` with the greatest event time
//! `e` for which `t - ttl <= e <= t`, both ends included; without ttl there is no lower end. At equal event times the
//! greatest created time wins, a missing one being the smallest; at equal created times the later row of the source,
//! files in order of their paths. Where rows must have been known at `t`, a row counts from its created time on, and
//! rows without created time never count. Null keys and null times match nothing.
//!
//! **The way.** Entity rows are sorted by key and time ([`Timelines`]); the feature side, as a rule the big one, is
//! never sorted. Each entity row has one slot. A feature row goes into the slot of the first entity row of its key
//! that may see it, if it beats what is there; offers commute, so threads share the slots. One pass over each key then
//! carries the best so far forward. This is linear in the feature rows and takes memory for the entity rows only.
//!
//! These are plain functions over batches, not a node of a query plan: nothing here needs a planner yet. Entity rows
//! are independent of each other, so that this module can be run on any part of them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{hint, iter, mem, thread};

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use feast_core::{Error, Result, TimeToLive};

use crate::join_keys::{KeyIndex, NO_KEY};

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

    /// Whether this row wins against another: later event, else later created, else later in the source.
    fn beats(&self, other: &Self) -> bool {
        other.row == NO_ROW || (self.event, self.created, self.row) > (other.event, other.created, other.row)
    }

    /// Takes the offered row if it is better.
    pub(crate) fn offer(&mut self, other: Self) -> bool {
        let better = other.beats(self);
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
    #[inline]
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

/// A [`Slot`] for each entity row, shared by threads.
///
/// The row of a slot is its lock as well. Event times only grow, so that a row which is too early is refused without
/// taking the lock.
struct SharedSlots {
    slots: Vec<SharedSlot>,
    /// Empty where the source has no created times.
    created: Vec<AtomicI64>,
}

struct SharedSlot {
    event: AtomicI64,
    row: AtomicU64,
}

/// Stands in the place of a row while a thread works on the slot.
const LOCKED: u64 = u64::MAX - 1;

impl SharedSlots {
    fn new(n_slots: usize, has_created: bool) -> Self {
        let empty = || SharedSlot { event: AtomicI64::new(i64::MIN), row: AtomicU64::new(NO_ROW) };
        Self {
            slots: (0..n_slots).map(|_| empty()).collect(),
            created: (0..if has_created { n_slots } else { 0 }).map(|_| AtomicI64::new(i64::MIN)).collect(),
        }
    }

    /// Whether a row of this event time could win; also brings the slot near, before it is locked.
    #[inline]
    fn may_win(&self, position: usize, event: i64) -> bool {
        event >= self.slots[position].event.load(Ordering::Relaxed)
    }

    fn offer(&self, position: usize, offered: Slot) -> bool {
        let slot = &self.slots[position];
        let mut row = slot.row.load(Ordering::Relaxed);
        let mut waited = 0u32;
        loop {
            if row == LOCKED {
                waited += 1;
                // A slot is held for an instant, unless its thread was put to sleep meanwhile.
                if waited.is_multiple_of(64) {
                    thread::yield_now()
                } else {
                    hint::spin_loop()
                }
                row = slot.row.load(Ordering::Relaxed);
                continue;
            }
            match slot.row.compare_exchange_weak(row, LOCKED, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => row = now,
            }
        }
        let better = offered.beats(&self.read(position, row));
        if better {
            slot.event.store(offered.event, Ordering::Relaxed);
            if let Some(created) = self.created.get(position) {
                created.store(offered.created, Ordering::Relaxed);
            }
        }
        slot.row.store(if better { offered.row } else { row }, Ordering::Release);
        better
    }

    fn read(&self, position: usize, row: u64) -> Slot {
        let created = self.created.get(position).map_or(i64::MIN, |created| created.load(Ordering::Relaxed));
        Slot { event: self.slots[position].event.load(Ordering::Relaxed), created, row }
    }

    /// What is in a slot; only while no thread offers.
    fn get(&self, position: usize) -> Slot {
        self.read(position, self.slots[position].row.load(Ordering::Acquire))
    }
}

/// The times of all entity rows, by key and in order: what feature rows are matched against.
pub(crate) struct Timelines {
    keys: KeyIndex,
    /// Timeline `k` is `starts[k]..starts[k + 1]`.
    starts: Vec<u32>,
    times: Vec<i64>,
    /// The entity row of each time.
    rows: Vec<u32>,
    n_entity_rows: usize,
    /// Least and greatest time; the wrong way round where there is none.
    bounds: (i64, i64),
}

impl Timelines {
    /// Sorts entity rows by key and time. `key_batches` holds the key columns batch by batch, in the types given.
    pub(crate) fn new(
        types: &[DataType],
        key_batches: &[(usize, Vec<ArrayRef>)],
        entity_times: &[TimestampMicrosecondArray],
    ) -> Result<Self> {
        let n_entity_rows = entity_times.iter().map(Array::len).sum();
        if n_entity_rows >= NO_KEY as usize {
            return Err(Error::unsupported(format!("{n_entity_rows} entity rows in one request"))
                .with_hint("split the entity rows into several requests of less than four billion rows"));
        }
        let (keys, numbers) = KeyIndex::new(types, key_batches)?;
        // Counting sort by key, then each key's few rows by time.
        let mut starts = vec![0u32; keys.len() + 1];
        each_that_counts(&numbers, entity_times, |_, number, _| starts[number + 1] += 1);
        for key in 0..keys.len() {
            starts[key + 1] += starts[key];
        }
        let mut next = starts.clone();
        let mut times = vec![0i64; starts[keys.len()] as usize];
        let mut rows = vec![0u32; times.len()];
        each_that_counts(&numbers, entity_times, |row, number, time| {
            let place = &mut next[number];
            times[*place as usize] = time;
            rows[*place as usize] = row as u32;
            *place += 1;
        });
        let bounds =
            times.iter().fold((i64::MAX, i64::MIN), |(least, greatest), time| (least.min(*time), greatest.max(*time)));
        let mut order = TimeOrder::new(bounds);
        for key in 0..keys.len() {
            let of = starts[key] as usize..starts[key + 1] as usize;
            order.sort(&mut times[of.clone()], &mut rows[of]);
        }
        Ok(Self { keys, starts, times, rows, n_entity_rows, bounds })
    }

    /// How many entity rows can match anything.
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        self.keys.size() + 4 * self.starts.len() + (8 + 4) * self.times.len()
    }
}

/// Sorts the few rows of one key after those of another.
struct TimeOrder {
    bounds: (i64, i64),
    /// Times in the upper bits, as distances from the least of all, and places among the rows in the lower ones: one
    /// number is compared and moved faster than a pair.
    packed: Vec<u64>,
    pairs: Vec<(i64, u32)>,
    rows: Vec<u32>,
}

impl TimeOrder {
    const PLACE_BITS: u32 = 16;

    /// For times between two, both included.
    fn new(bounds: (i64, i64)) -> Self {
        Self { bounds, packed: Vec::new(), pairs: Vec::new(), rows: Vec::new() }
    }

    /// Brings times into ascending order and rows with them; rows that ascend at equal times still do so.
    fn sort(&mut self, times: &mut [i64], rows: &mut [u32]) {
        if times.is_sorted() {
            return;
        }
        let (least, greatest) = self.bounds;
        let is_packable =
            greatest.abs_diff(least) >> (u64::BITS - Self::PLACE_BITS) == 0 && times.len() <= 1 << Self::PLACE_BITS;
        if !is_packable {
            self.pairs.clear();
            self.pairs.extend(times.iter().copied().zip(rows.iter().copied()));
            self.pairs.sort_unstable();
            for ((time, row), sorted) in times.iter_mut().zip(rows).zip(&self.pairs) {
                (*time, *row) = *sorted;
            }
            return;
        }
        self.packed.clear();
        self.packed
            .extend((0..).zip(times.iter()).map(|(place, time)| time.abs_diff(least) << Self::PLACE_BITS | place));
        self.packed.sort_unstable();
        self.rows.clear();
        self.rows.extend_from_slice(rows);
        for ((time, row), packed) in times.iter_mut().zip(rows).zip(&self.packed) {
            *time = least.wrapping_add((packed >> Self::PLACE_BITS) as i64);
            *row = self.rows[(packed & ((1 << Self::PLACE_BITS) - 1)) as usize];
        }
    }
}

/// Visits each entity row that has a key and a time, with the number of its key.
fn each_that_counts(numbers: &[u32], times: &[TimestampMicrosecondArray], mut visit: impl FnMut(usize, usize, i64)) {
    let mut first = 0;
    for times in times {
        for (index, number) in numbers[first..first + times.len()].iter().enumerate() {
            if *number != NO_KEY && times.is_valid(index) {
                visit(first + index, *number as usize, times.value(index));
            }
        }
        first += times.len();
    }
}

/// Which rows of a view count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// How old a row may be.
    pub(crate) ttl: TimeToLive,
    /// Rows count from their created time on.
    pub(crate) known_at_entity_time: bool,
    /// Rows that became true or were written later do not count at all.
    pub(crate) known_until: Option<i64>,
}

impl Rule {
    /// From when on a row counts; `None` when it never does.
    #[inline]
    fn visible_from(&self, slot: Slot, created_is_missing: bool) -> Option<i64> {
        if (self.known_at_entity_time || self.known_until.is_some()) && created_is_missing {
            return None;
        }
        let known = slot.event.max(slot.created);
        if self.known_until.is_some_and(|until| known > until) {
            return None;
        }
        Some(if self.known_at_entity_time { known } else { slot.event })
    }
}

/// One view joined to the entity rows: the rule it follows and the best rows so far.
pub(crate) struct PointInTimeJoin {
    timelines: Arc<Timelines>,
    rule: Rule,
    /// Of the rule, in microseconds.
    ttl: Option<i64>,
    /// Event times outside can match no entity row.
    window: (i64, i64),
    slots: SharedSlots,
    /// How far to shift a key's number for the region of its slots; all are in one region where memory is near anyway.
    region_shift: u32,
    n_regions: usize,
    /// Rows that wait for more of their region; a thread takes one, or begins one.
    waiting: Mutex<Vec<Waiting>>,
}

/// Rows looked at together: enough that waiting for memory overlaps, few enough to stay in the nearest cache.
const CHUNK: usize = 256;
/// Bytes of slots that stay in a near cache while rows go to them. Tests have few slots and want several regions.
const REGION: usize = if cfg!(test) { 64 } else { 384 << 10 };
/// More regions would be more streams of rows than a processor writes at a time.
const MOST_REGIONS: usize = 256;

/// Rows that wait at most, for each thread.
const MOST_WAITING: usize = 1 << 20;

/// Feature rows that were admitted, by region of the slots they go to.
///
/// Slots of many entity rows do not fit a cache, and feature rows go to them in no order. Letting rows wait until there
/// are many for a region and then going through them region by region costs writing and reading a few bytes per row,
/// and saves most of the waiting for memory.
#[derive(Default)]
struct Waiting {
    regions: Vec<Region>,
    len: usize,
    /// Rows are counted from here.
    first_row: u64,
}

#[derive(Default)]
struct Region {
    rows: Vec<WaitingRow>,
    /// Empty where the source has no created times.
    created: Vec<i64>,
}

struct WaitingRow {
    event: i64,
    number: u32,
    row: u32,
}

impl PointInTimeJoin {
    /// Bytes of waiting rows for each thread, at most.
    pub(crate) const MOST_WAITING_SIZE: usize = MOST_WAITING * (size_of::<WaitingRow>() + size_of::<i64>());

    /// A join that has seen no feature row. `has_created` says whether the source has created times.
    pub(crate) fn new(timelines: Arc<Timelines>, rule: Rule, has_created: bool) -> Self {
        let n_slots = timelines.times.len();
        let slots = SharedSlots::new(n_slots, has_created);
        let (first, last) = timelines.bounds;
        let ttl = rule.ttl.micros();
        let first = ttl.map_or(i64::MIN, |ttl| first.saturating_sub(ttl));
        let last = rule.known_until.map_or(last, |until| last.min(until));
        let n_keys = timelines.keys.len().max(1);
        let size = n_slots * (size_of::<i64>() + size_of::<SharedSlot>() + if has_created { 8 } else { 0 });
        let wanted = (size / REGION).clamp(1, MOST_REGIONS);
        let region_shift = n_keys.div_ceil(wanted).next_power_of_two().trailing_zeros();
        let n_regions = ((n_keys - 1) >> region_shift) + 1;
        let waiting = Mutex::default();
        Self { timelines, rule, ttl, window: (first, last), slots, region_shift, n_regions, waiting }
    }

    /// Whether there is an entity row that a feature row could match.
    pub(crate) fn can_match(&self) -> bool {
        !self.timelines.times.is_empty()
    }

    /// First and last event time that can match, both included.
    pub(crate) fn window(&self) -> (i64, i64) {
        self.window
    }

    /// Offers feature rows with their key columns.
    pub(crate) fn offer(&self, keys: &[ArrayRef], rows: FeatureRows<'_>) -> Result<()> {
        let numbers = self.numbers(keys, rows)?;
        let admitted = (0..).zip(numbers).filter_map(|(index, number)| self.admitted(rows, index, number));
        if self.n_regions == 1 {
            self.settle_all(admitted, |_, _| ());
            return Ok(());
        }
        let mut waiting = self.waiting().pop().unwrap_or_default();
        waiting.regions.resize_with(self.n_regions, Region::default);
        let last_row = rows.first_row + rows.event.len() as u64;
        if rows.first_row < waiting.first_row || last_row - waiting.first_row > u64::from(u32::MAX) {
            self.settle(&mut waiting);
        }
        if waiting.len == 0 {
            waiting.first_row = rows.first_row;
        }
        let has_created = rows.created.is_some();
        for (number, slot) in admitted {
            let region = &mut waiting.regions[(number >> self.region_shift) as usize];
            let row = (slot.row - waiting.first_row) as u32;
            region.rows.push(WaitingRow { event: slot.event, number, row });
            if has_created {
                region.created.push(slot.created);
            }
            waiting.len += 1;
        }
        // So many that most slots which come near are used several times.
        let full = if cfg!(test) { 16 } else { self.timelines.times.len().clamp(1 << 14, MOST_WAITING) };
        if waiting.len >= full {
            self.settle(&mut waiting);
        }
        self.waiting().push(waiting);
        Ok(())
    }

    /// Offers feature rows at once, and returns which of them are the best of a slot for now.
    pub(crate) fn offer_now(&self, keys: &[ArrayRef], rows: FeatureRows<'_>) -> Result<Vec<bool>> {
        let numbers = self.numbers(keys, rows)?;
        let mut taken = vec![false; numbers.len()];
        let admitted = (0..).zip(numbers).filter_map(|(index, number)| self.admitted(rows, index, number));
        self.settle_all(admitted, |slot, better| taken[(slot.row - rows.first_row) as usize] = better);
        Ok(taken)
    }

    fn numbers(&self, keys: &[ArrayRef], rows: FeatureRows<'_>) -> Result<Vec<u32>> {
        let mut numbers = Vec::with_capacity(rows.event.len());
        self.timelines.keys.find(keys, rows.event.len(), &mut numbers)?;
        Ok(numbers)
    }

    /// A feature row with the number of its key, if any entity row could see it.
    #[inline]
    fn admitted(&self, rows: FeatureRows<'_>, index: usize, number: u32) -> Option<(u32, Slot)> {
        if number == NO_KEY {
            return None;
        }
        let (first, last) = self.window;
        let slot = rows.slot(index).filter(|slot| (first..=last).contains(&slot.event))?;
        let created_is_missing = rows.created.is_some_and(|created| created.is_null(index));
        self.rule.visible_from(slot, created_is_missing)?;
        Some((number, slot))
    }

    /// Brings waiting rows to their slots, region by region.
    fn settle(&self, waiting: &mut Waiting) {
        let first_row = waiting.first_row;
        for region in &mut waiting.regions {
            let created = region.created.drain(..).map(Some).chain(iter::repeat(None));
            let rows = region.rows.drain(..).zip(created).map(|(waiting, created)| {
                let row = first_row + u64::from(waiting.row);
                (waiting.number, Slot { event: waiting.event, created: created.unwrap_or(i64::MIN), row })
            });
            self.settle_all(rows, |_, _| ());
        }
        waiting.len = 0;
    }

    /// Brings rows to their slots, and tells of each that has one whether it is the best for now.
    fn settle_all(&self, rows: impl Iterator<Item = (u32, Slot)>, mut tell: impl FnMut(Slot, bool)) {
        let mut rows = rows.filter_map(|(number, slot)| Some((self.position(number, slot)?, slot)));
        let mut near: Vec<(usize, Slot)> = Vec::with_capacity(CHUNK);
        // Each step touches memory that the next one needs; doing a step for many rows overlaps the waiting.
        loop {
            near.extend(rows.by_ref().take(CHUNK));
            if near.is_empty() {
                return;
            }
            near.retain(|(position, slot)| self.slots.may_win(*position, slot.event));
            for (position, slot) in near.drain(..) {
                tell(slot, self.slots.offer(position, slot));
            }
        }
    }

    /// The slot of the first entity row of a key that may see an admitted feature row, if any may.
    #[inline]
    fn position(&self, number: u32, slot: Slot) -> Option<usize> {
        let visible_from = self.rule.visible_from(slot, false)?;
        let start = self.timelines.starts[number as usize] as usize;
        let end = self.timelines.starts[number as usize + 1] as usize;
        let timeline = &self.timelines.times[start..end];
        let ahead = n_before(timeline, visible_from);
        // Too old for the first entity row that sees it is too old for all after it.
        let time = timeline.get(ahead)?;
        (!self.is_too_old(slot.event, *time)).then_some(start + ahead)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        // Nothing fails while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The feature rows that are the best of a slot for now, in source order. Rows not listed have lost for good, as
    /// long as no thread offers meanwhile.
    pub(crate) fn leading_rows(&self) -> Vec<u64> {
        let slots = 0..self.slots.slots.len();
        let mut rows: Vec<u64> =
            slots.map(|position| self.slots.get(position).row).filter(|row| *row != NO_ROW).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// The feature row of each entity row.
    pub(crate) fn finish(mut self) -> ChosenRows {
        let rest = mem::take(&mut *self.waiting());
        for mut waiting in rest {
            self.settle(&mut waiting);
        }
        let timelines = Arc::clone(&self.timelines);
        for key in timelines.starts.windows(2) {
            let mut best = Slot::EMPTY;
            for position in key[0] as usize..key[1] as usize {
                let slot = self.slots.get(position);
                if slot.row != NO_ROW {
                    best.offer(slot);
                }
                let found = best.row != NO_ROW && !self.is_too_old(best.event, timelines.times[position]);
                *self.slots.slots[position].row.get_mut() = if found { best.row } else { NO_ROW };
            }
        }
        ChosenRows { timelines, slots: self.slots.slots }
    }

    fn is_too_old(&self, event: i64, entity_time: i64) -> bool {
        self.ttl.is_some_and(|ttl| event < entity_time.saturating_sub(ttl))
    }
}

/// How many of some ascending times lie before an instant.
#[inline]
fn n_before(times: &[i64], instant: i64) -> usize {
    // So few are all compared, which waits for none of them; halving waits for one after the other.
    const FEW: usize = 16;
    let mut rest = times;
    let mut before = 0;
    while rest.len() > FEW {
        let half = rest.len() / 2;
        let (first, second) = rest.split_at(half);
        (rest, before) = if second[0] < instant { (second, before + half) } else { (first, before) };
    }
    for time in rest {
        before += usize::from(*time < instant);
    }
    before
}

/// The feature row of each entity row that has one.
pub(crate) struct ChosenRows {
    timelines: Arc<Timelines>,
    slots: Vec<SharedSlot>,
}

impl ChosenRows {
    /// How many entity rows there are, with those that have none.
    pub(crate) fn n_entity_rows(&self) -> usize {
        self.timelines.n_entity_rows
    }

    /// Entity rows and their feature rows, key by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64)> + Clone {
        let rows = self.timelines.rows.iter().zip(&self.slots);
        rows.map(|(entity, slot)| (*entity, slot.row.load(Ordering::Relaxed))).filter(|(_, row)| *row != NO_ROW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_key_are_sorted_by_time_and_then_by_place() {
        for bounds in [(-3, 3), (i64::MIN, 3), (-3, i64::MAX)] {
            let (mut times, mut rows) = ([3, -3, 0, 3, -3, 1], [0, 1, 2, 3, 4, 5]);
            TimeOrder::new(bounds).sort(&mut times, &mut rows);
            assert_eq!((times, rows), ([-3, -3, 0, 1, 3, 3], [1, 4, 2, 5, 0, 3]), "{bounds:?}");
        }
        let n_rows = 70_000;
        let (mut times, mut rows): (Vec<i64>, Vec<u32>) = (0..n_rows).map(|row| (i64::from(row % 7), row)).unzip();
        TimeOrder::new((0, 6)).sort(&mut times, &mut rows);
        assert!(times.iter().zip(&rows).is_sorted());
        assert!(times.iter().zip(&rows).all(|(time, row)| *time == i64::from(row % 7)));
    }

    #[test]
    fn times_before_an_instant_are_counted() {
        for len in [0, 1, 2, 15, 16, 17, 31, 32, 33, 100, 1000] {
            let times: Vec<i64> = (0..len).map(|time| time / 3 * 2).collect();
            for instant in -1..=len {
                let expected = times.partition_point(|time| *time < instant);
                assert_eq!(n_before(&times, instant), expected, "{len} times, {instant}");
            }
        }
    }
}
