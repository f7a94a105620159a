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
//! that may see it, if it beats what is there; offers commute, so threads make them in any order. One pass over each key
//! then carries the best so far forward. This is linear in the feature rows and takes memory for the entity rows only.
//!
//! Slots of many entity rows do not fit a cache, and feature rows go to them in no order. Rows therefore wait, by
//! regions of keys whose slots do fit as a rule, until there are about as many as entity rows; each region is then gone
//! through at once. Slots outlive that only where more rows follow.
//!
//! These are plain functions over batches, not a node of a query plan: nothing here needs a planner yet. Entity rows
//! are independent of each other, so that this module can be run on any part of them.

use std::mem;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Drain;

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use feast_core::{Result, TimeToLive};

use crate::join_keys::NO_KEY;
use crate::parallel;
use crate::regions::Regions;
use crate::table::Table;
use crate::timelines::{Timelines, n_before};
use crate::waiting_rows::WaitingRows;

/// Stands for the feature row of an entity row that has none.
pub(crate) const NO_ROW: u64 = u64::MAX;

/// A row as it is offered; kept, the best feature row so far, for one entity row or one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    /// Event time of the feature row.
    pub(crate) event: i64,
    /// Its created time; the least where it has none.
    pub(crate) created: i64,
    /// Its position in the source; [`NO_ROW`] when there is none.
    pub(crate) row: u64,
}

impl Slot {
    /// Nothing yet.
    pub(crate) const EMPTY: Self = Self { event: i64::MIN, created: i64::MIN, row: NO_ROW };

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

/// A [`Slot`] for each of some entity rows; none at all before the first row is offered.
#[derive(Default)]
struct Slots {
    best: Vec<Best>,
    /// Empty where the source has no created times.
    created: Vec<i64>,
}

/// A slot without its created time.
#[derive(Clone, Copy)]
struct Best {
    event: i64,
    row: u64,
}

impl Slots {
    /// Makes room if nobody has done so.
    fn prepare(&mut self, n_slots: usize, has_created: bool) {
        if self.best.len() < n_slots {
            self.best.resize(n_slots, Best { event: i64::MIN, row: NO_ROW });
            self.created.resize(if has_created { n_slots } else { 0 }, i64::MIN);
        }
    }

    #[inline]
    fn get(&self, place: usize) -> Slot {
        let Best { event, row } = self.best[place];
        Slot { event, row, created: self.created.get(place).copied().unwrap_or(i64::MIN) }
    }

    #[inline]
    fn offer(&mut self, place: usize, offered: Slot) -> bool {
        // Nearly all that lose do so by their event time.
        if offered.event < self.best[place].event || !offered.beats(&self.get(place)) {
            return false;
        }
        self.best[place] = Best { event: offered.event, row: offered.row };
        if let Some(created) = self.created.get_mut(place) {
            *created = offered.created;
        }
        true
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
    has_created: bool,
    /// By region; each is made when rows are first brought to it.
    slots: Vec<Mutex<Slots>>,
    /// Rows that wait, each by one thread; a thread takes one, or begins one.
    waiting: Mutex<Vec<WaitingRows>>,
}

/// Rows looked at together: enough that waiting for memory overlaps, few enough to stay in the nearest cache. Tests have
/// few rows and want several of them.
const CHUNK: usize = if cfg!(test) { 3 } else { 256 };

impl PointInTimeJoin {
    /// Bytes for each entity row, at most, where so many threads offer: a slot with its created time, rows that wait, and
    /// the row chosen.
    pub(crate) const fn most_size(threads: usize) -> usize {
        let waiting = WaitingRows::MOST_ROW_SIZE / 4 * 5;
        // Of each region each thread may keep a chunk, and a block of which nothing is used.
        let of_region = threads * (CHUNK * WaitingRows::MOST_ROW_SIZE + WaitingRows::BLOCK_SIZE);
        size_of::<Best>() + size_of::<i64>() + size_of::<u64>() + waiting + of_region.div_ceil(Regions::LEAST_ROWS)
    }

    /// A join that has seen no feature row. `has_created` says whether the source has created times.
    pub(crate) fn new(timelines: Arc<Timelines>, rule: Rule, has_created: bool) -> Self {
        let (first, last) = timelines.bounds();
        let ttl = rule.ttl.micros();
        let first = ttl.map_or(i64::MIN, |ttl| first.saturating_sub(ttl));
        let last = rule.known_until.map_or(last, |until| last.min(until));
        let slots = (0..timelines.regions().len()).map(|_| Mutex::default()).collect();
        Self { timelines, rule, ttl, window: (first, last), has_created, slots, waiting: Mutex::default() }
    }

    /// Whether there is an entity row that a feature row could match.
    pub(crate) fn can_match(&self) -> bool {
        self.timelines.len() > 0
    }

    /// First and last event time that can match, both included.
    pub(crate) fn window(&self) -> (i64, i64) {
        self.window
    }

    /// Offers feature rows with their key columns.
    pub(crate) fn offer(&self, keys: &[ArrayRef], rows: FeatureRows<'_>) -> Result<()> {
        let waiting = self.wait(keys, rows, |_, _| ())?;
        held(&self.waiting).push(waiting);
        Ok(())
    }

    /// Offers feature rows at once, and returns which of them are the best of a slot for now. All rows of a join are
    /// offered in this way, or none.
    pub(crate) fn offer_now(&self, keys: &[ArrayRef], rows: FeatureRows<'_>) -> Result<Vec<bool>> {
        let mut taken = vec![false; rows.event.len()];
        let mut tell = |slot: Slot, better| taken[(slot.row - rows.first_row) as usize] = better;
        let mut waiting = self.wait(keys, rows, &mut tell)?;
        self.settle(&mut waiting, &mut tell);
        held(&self.waiting).push(waiting);
        Ok(taken)
    }

    /// Puts rows that are admitted behind those that wait, which are settled where there is no room.
    fn wait(&self, keys: &[ArrayRef], rows: FeatureRows<'_>, mut tell: impl FnMut(Slot, bool)) -> Result<WaitingRows> {
        let numbers = self.numbers(keys, rows)?;
        let mut admitted = (0..).zip(numbers).filter_map(|(index, number)| self.admitted(rows, index, number));
        let known = held(&self.waiting).pop();
        let mut waiting =
            known.unwrap_or_else(|| WaitingRows::new(self.timelines.regions(), self.most_waiting(), self.has_created));
        let mut left = waiting.extend(&mut admitted);
        while left.is_some() {
            self.settle(&mut waiting, &mut tell);
            left = waiting.extend(&mut left.into_iter().chain(&mut admitted));
        }
        Ok(waiting)
    }

    /// Rows that wait at most, of each thread: with those of all threads about as many as there are slots, so that
    /// those which come near are used as often as they can be.
    fn most_waiting(&self) -> usize {
        // Some threads get more rows than others.
        let of_thread = self.timelines.len() / parallel::threads() / 4 * 5;
        if cfg!(test) { 16 } else { of_thread.max(CHUNK * self.slots.len()) }
    }

    fn numbers(&self, keys: &[ArrayRef], rows: FeatureRows<'_>) -> Result<Vec<u32>> {
        let mut numbers = Vec::with_capacity(rows.event.len());
        self.timelines.find(keys, rows.event.len(), &mut numbers)?;
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

    /// Brings waiting rows to their slots, region by region, and tells of each that has one whether it is the best for now.
    fn settle(&self, waiting: &mut WaitingRows, mut tell: impl FnMut(Slot, bool)) {
        for region in (0..self.slots.len()).filter(|region| waiting.len_of(*region) > 0) {
            let positions = self.timelines.positions(region);
            let times = &self.timelines.times()[positions.clone()];
            self.find_places(waiting.of(region), times, positions.start, |found| {
                // Others search while this thread has the slots.
                let mut slots = held(&self.slots[region]);
                slots.prepare(positions.len(), self.has_created);
                found.for_each(|(place, slot)| tell(slot, slots.offer(place, slot)));
            });
        }
        waiting.clear();
    }

    /// Finds, for some rows at a time, the slots they go to, which begin at a position and have these times.
    fn find_places(
        &self,
        rows: impl Iterator<Item = (u32, Slot)>,
        times: &[i64],
        first: usize,
        mut offer: impl FnMut(Drain<'_, (usize, Slot)>),
    ) {
        let mut rows = rows.filter_map(|(number, slot)| Some((self.place(number, slot, times, first)?, slot)));
        let mut near: Vec<(usize, Slot)> = Vec::with_capacity(CHUNK);
        // Finding the slot touches memory, and so does looking into it; doing a step for many rows overlaps the waiting.
        loop {
            near.extend(rows.by_ref().take(CHUNK));
            if near.is_empty() {
                return;
            }
            offer(near.drain(..));
        }
    }

    /// The place of the first entity row of a key that may see an admitted feature row, if any may.
    #[inline]
    fn place(&self, number: u32, slot: Slot, times: &[i64], first: usize) -> Option<usize> {
        let visible_from = self.rule.visible_from(slot, false)?;
        let positions = self.timelines.positions_of(number as usize);
        let timeline = &times[positions.start - first..positions.end - first];
        let ahead = n_before(timeline, visible_from);
        // Too old for the first entity row that sees it is too old for all after it.
        let time = timeline.get(ahead)?;
        (!self.is_too_old(slot.event, *time)).then_some(positions.start - first + ahead)
    }

    /// The feature rows that are the best of a slot for now, in source order. Rows of [`offer_now`](Self::offer_now) that
    /// are not listed have lost for good, as long as no thread offers meanwhile.
    pub(crate) fn leading_rows(&self) -> Vec<u64> {
        let mut rows = Vec::new();
        for slots in &self.slots {
            rows.extend(held(slots).best.iter().map(|best| best.row).filter(|row| *row != NO_ROW));
        }
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// The feature row of each entity row.
    pub(crate) fn finish(mut self, threads: usize) -> Result<ChosenRows> {
        let mut waiting = mem::take(&mut *held(&self.waiting));
        // Where there are fewer regions than threads, places are better found by all threads.
        if self.slots.len() < threads {
            let of_threads: Vec<_> = waiting.drain(..).map(Mutex::new).collect();
            parallel::for_each(threads, of_threads.len(), &|index| {
                self.settle(&mut held(&of_threads[index]), |_, _| ());
                Ok(())
            })?;
        }
        // The time of an entity row gives way to its feature row.
        let mut chosen = Timelines::take_times(&mut self.timelines);
        let mut tasks = Vec::with_capacity(self.slots.len());
        let mut rest = &mut *chosen;
        for region in 0..self.slots.len() {
            let (of_region, others) = rest.split_at_mut(self.timelines.positions(region).len());
            rest = others;
            tasks.push(Mutex::new(of_region));
        }
        parallel::for_each(threads, tasks.len(), &|region| {
            let mut times = held(&tasks[region]);
            let first = self.timelines.positions(region).start;
            let mut slots = mem::take(&mut *held(&self.slots[region]));
            slots.prepare(times.len(), self.has_created);
            for waiting in &waiting {
                self.find_places(waiting.of(region), &times, first, |found| {
                    found.for_each(|(place, slot)| {
                        slots.offer(place, slot);
                    });
                });
            }
            for key in self.timelines.regions().keys(region) {
                let positions = self.timelines.positions_of(key);
                let places = positions.start - first..positions.end - first;
                self.carry_forward(&slots, places.clone(), &mut times[places]);
            }
            Ok(())
        })?;
        drop(tasks);
        Ok(ChosenRows { timelines: self.timelines, rows: chosen.cast() })
    }

    /// Puts in the place of each time of a key the best feature row so far, if it is not too old.
    fn carry_forward(&self, slots: &Slots, places: Range<usize>, times: &mut [i64]) {
        let mut best = Slot::EMPTY;
        for (place, time) in places.zip(times) {
            let slot = slots.get(place);
            if slot.row != NO_ROW {
                best.offer(slot);
            }
            let found = best.row != NO_ROW && !self.is_too_old(best.event, *time);
            *time = (if found { best.row } else { NO_ROW }).cast_signed();
        }
    }

    fn is_too_old(&self, event: i64, entity_time: i64) -> bool {
        self.ttl.is_some_and(|ttl| event < entity_time.saturating_sub(ttl))
    }
}

/// Nothing fails while these are held.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The feature row of each entity row that has one.
pub(crate) struct ChosenRows {
    timelines: Arc<Timelines>,
    /// By position in the timelines.
    rows: Table<u64>,
}

impl ChosenRows {
    /// How many entity rows there are, with those that have none.
    pub(crate) fn n_entity_rows(&self) -> usize {
        self.timelines.n_entity_rows()
    }

    /// Entity rows and their feature rows, key by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64)> + Clone {
        let rows = self.timelines.rows().iter().copied().zip(self.rows.iter().copied());
        rows.filter(|(_, row)| *row != NO_ROW)
    }
}
