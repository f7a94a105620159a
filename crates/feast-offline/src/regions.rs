//! Keys whose times and slots fit a near cache together, as a rule: where no key has many more rows than others.

use std::ops::Range;

/// Runs of keys, by their numbers.
///
/// What lies in no order is first brought to its region, which is a few streams through memory, and then put into its
/// place within the region, for which memory is near.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Regions {
    n_keys: usize,
    /// How far to shift a key's number for its region. Few rows are in one region, and so are all rows of one key.
    shift: u32,
}

/// Bytes that stay in a near cache while rows go to them. Tests have few rows and want several regions.
const SIZE: usize = if cfg!(test) { 64 } else { 256 << 10 };
/// Bytes of a row: its time, and its slot without a created time.
const ROW: usize = 24;

impl Regions {
    /// More regions would be more streams of rows than a processor writes at a time.
    const MOST: usize = 1024;
    /// Rows for each region, where there are several.
    pub(crate) const LEAST_ROWS: usize = SIZE / ROW;

    /// For so many keys with so many rows in all.
    pub(crate) fn new(n_keys: usize, n_rows: usize) -> Self {
        let wanted = (n_rows * ROW / SIZE).clamp(1, Self::MOST);
        Self { n_keys, shift: n_keys.div_ceil(wanted).max(1).next_power_of_two().trailing_zeros() }
    }

    /// How many regions there are, at least one.
    pub(crate) fn len(&self) -> usize {
        ((self.n_keys.max(1) - 1) >> self.shift) + 1
    }

    /// The region of a key.
    #[inline]
    pub(crate) fn of(&self, number: u32) -> usize {
        (number >> self.shift) as usize
    }

    /// The keys of a region.
    pub(crate) fn keys(&self, region: usize) -> Range<usize> {
        region << self.shift..((region + 1) << self.shift).min(self.n_keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_one_region() {
        for (n_keys, n_rows) in [(0, 0), (1, 1000), (5, 3), (100, 100), (1000, 1 << 30)] {
            let regions = Regions::new(n_keys, n_rows);
            let keys: Vec<usize> = (0..regions.len()).flat_map(|region| regions.keys(region)).collect();
            assert_eq!(keys, (0..n_keys).collect::<Vec<_>>());
            assert!(keys.iter().all(|key| regions.keys(regions.of(*key as u32)).contains(key)));
        }
        assert_eq!(
            (Regions::new(0, 0).len(), Regions::new(9, 0).len(), Regions::new(100_000, 1 << 40).len()),
            (1, 1, 782)
        );
    }
}
