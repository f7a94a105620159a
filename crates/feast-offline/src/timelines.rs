//! The times of entity rows, by key and in order.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use feast_core::{Error, Result};

use crate::join_keys::{KeyIndex, NO_KEY};
use crate::parallel;
use crate::point_in_time::Slot;
use crate::regions::Regions;
use crate::table::Table;
use crate::waiting_rows::WaitingRows;

/// The times of all entity rows, by key and in order: what feature rows are matched against.
pub(crate) struct Timelines {
    keys: KeyIndex,
    regions: Regions,
    /// Timeline `k` is `starts[k]..starts[k + 1]`.
    starts: Vec<u32>,
    times: Table<i64>,
    /// The entity row of each time.
    rows: Table<u32>,
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
        let regions = Regions::new(keys.len(), n_entity_rows);
        let mut waiting = WaitingRows::new(regions, n_entity_rows, false);
        let mut bounds = (i64::MAX, i64::MIN);
        let mut first_row = 0;
        for times in entity_times {
            let numbers = &numbers[first_row..first_row + times.len()];
            let left = waiting.extend(&mut numbers.iter().enumerate().filter_map(|(index, number)| {
                if *number == NO_KEY || times.is_null(index) {
                    return None;
                }
                let time = times.value(index);
                bounds = (bounds.0.min(time), bounds.1.max(time));
                Some((*number, Slot { event: time, created: i64::MIN, row: (first_row + index) as u64 }))
            }));
            if left.is_some() {
                return Err(Error::internal("an entity row found no room"));
            }
            first_row += times.len();
        }
        drop(numbers);
        let mut starts = vec![0u32; keys.len() + 1];
        let mut times = Table::<i64>::zeroed(waiting.len());
        let mut rows = Table::<u32>::zeroed(waiting.len());
        let mut tasks = Vec::with_capacity(regions.len());
        let (mut rest_starts, mut rest_times, mut rest_rows) = (&mut *starts, &mut *times, &mut *rows);
        let mut first = 0;
        for region in 0..regions.len() {
            let n_rows = waiting.len_of(region);
            let of_region;
            (of_region, rest_starts) = rest_starts.split_at_mut(regions.keys(region).len());
            let mut task = RegionTimelines { first, starts: of_region, times: &mut [], rows: &mut [] };
            (task.times, rest_times) = rest_times.split_at_mut(n_rows);
            (task.rows, rest_rows) = rest_rows.split_at_mut(n_rows);
            tasks.push(Mutex::new(task));
            first += n_rows as u32;
        }
        rest_starts.fill(first);
        parallel::for_each(parallel::threads(), tasks.len(), &|region| {
            let mut task = tasks[region].lock().map_err(|_| Error::internal("a thread failed"))?;
            let first_key = regions.keys(region).start as u32;
            task.sort(|| waiting.of(region).map(|(number, slot)| ((number - first_key) as usize, slot)), bounds);
            Ok(())
        })?;
        drop(tasks);
        Ok(Self { keys, regions, starts, times, rows, n_entity_rows, bounds })
    }

    /// How many entity rows can match anything: the times of all keys, one after the other, are their positions.
    pub(crate) fn len(&self) -> usize {
        self.starts[self.keys.len()] as usize
    }

    /// The keys by regions.
    pub(crate) fn regions(&self) -> Regions {
        self.regions
    }

    /// The positions of a region.
    pub(crate) fn positions(&self, region: usize) -> Range<usize> {
        let keys = self.regions.keys(region);
        self.starts[keys.start] as usize..self.starts[keys.end] as usize
    }

    /// The positions of a key.
    #[inline]
    pub(crate) fn positions_of(&self, key: usize) -> Range<usize> {
        self.starts[key] as usize..self.starts[key + 1] as usize
    }

    /// How many entity rows there are, with those that match nothing.
    pub(crate) fn n_entity_rows(&self) -> usize {
        self.n_entity_rows
    }

    /// Least and greatest time; the wrong way round where there is none.
    pub(crate) fn bounds(&self) -> (i64, i64) {
        self.bounds
    }

    /// Appends the number of each row's key, [`NO_KEY`] for keys of no entity row.
    pub(crate) fn find(&self, keys: &[ArrayRef], n_rows: usize, numbers: &mut Vec<u32>) -> Result<()> {
        self.keys.find(keys, n_rows, numbers)
    }

    /// The times by position.
    pub(crate) fn times(&self) -> &[i64] {
        &self.times
    }

    /// The times by position, as memory for something else; they are copied where others need them.
    pub(crate) fn take_times(shared: &mut Arc<Self>) -> Table<i64> {
        match Arc::get_mut(shared) {
            Some(own) => std::mem::replace(&mut own.times, Table::zeroed(0)),
            None => {
                let mut copy = Table::zeroed(shared.times.len());
                copy.copy_from_slice(&shared.times);
                copy
            }
        }
    }

    /// The entity row of each position.
    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        self.keys.size() + 4 * self.starts.len() + (8 + 4) * self.times.len()
    }
}

/// The timelines of a region while they are made.
struct RegionTimelines<'a> {
    /// Position of the first row.
    first: u32,
    starts: &'a mut [u32],
    times: &'a mut [i64],
    rows: &'a mut [u32],
}

impl RegionTimelines<'_> {
    /// Counting sort by key, then each key's few rows by time. Keys are numbered from the first of the region.
    fn sort<I: Iterator<Item = (usize, Slot)>>(&mut self, rows: impl Fn() -> I, bounds: (i64, i64)) {
        rows().for_each(|(key, _)| self.starts[key] += 1);
        let mut next = 0;
        for start in &mut *self.starts {
            (*start, next) = (next, next + *start);
        }
        // Each start becomes the end of its key, which is the start of the next.
        for (key, slot) in rows() {
            let place = self.starts[key] as usize;
            self.times[place] = slot.event;
            self.rows[place] = slot.row as u32;
            self.starts[key] += 1;
        }
        let mut order = TimeOrder::new(bounds);
        let mut start = 0;
        for end in &mut *self.starts {
            let of_key = start..*end as usize;
            start = *end as usize;
            *end = self.first + of_key.start as u32;
            order.sort(&mut self.times[of_key.clone()], &mut self.rows[of_key]);
        }
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

/// How many of some ascending times lie before an instant.
#[inline]
pub(crate) fn n_before(times: &[i64], instant: i64) -> usize {
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
