//! Some rows of a source by their positions, and the rank of each among them.

use std::ops::Range;

/// Distinct rows of a source.
pub(crate) enum RowPositions {
    /// A bit for each row of the source up to the last of them.
    Bits {
        words: Vec<u64>,
        /// How many rows there are before each word.
        before: Vec<u32>,
        n_rows: usize,
    },
    /// The rows themselves, ascending.
    List(Vec<u64>),
}

impl RowPositions {
    /// Of rows in any order, fewer than four billion of them; one may come several times.
    pub(crate) fn new(rows: impl Iterator<Item = u64> + Clone) -> Self {
        let (mut n_rows, mut past) = (0u64, 0);
        rows.clone().for_each(|row| {
            n_rows += 1;
            past = past.max(row + 1);
        });
        // A bit per row of the source takes less than a number per row wanted, unless those are few and far between.
        if past <= 64 * n_rows { Self::bits(rows, past) } else { Self::list(rows.collect()) }
    }

    fn bits(rows: impl Iterator<Item = u64>, past: u64) -> Self {
        let mut words = vec![0u64; past.div_ceil(u64::from(u64::BITS)) as usize];
        rows.for_each(|row| words[word_of(row)] |= bit_of(row));
        let mut n_rows = 0;
        let before = words.iter().map(|word| {
            let before = n_rows;
            n_rows += word.count_ones();
            before
        });
        Self::Bits { before: before.collect(), words, n_rows: n_rows as usize }
    }

    /// Of rows in any order.
    pub(crate) fn list(mut rows: Vec<u64>) -> Self {
        rows.sort_unstable();
        rows.dedup();
        Self::List(rows)
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bits { n_rows, .. } => *n_rows,
            Self::List(rows) => rows.len(),
        }
    }

    /// How many of the rows lie before a position: the rank of the row there, if it is one of them.
    #[inline]
    pub(crate) fn rank(&self, position: u64) -> usize {
        match self {
            Self::Bits { words, before, n_rows } => match words.get(word_of(position)) {
                Some(word) => {
                    before[word_of(position)] as usize + (word & (bit_of(position) - 1)).count_ones() as usize
                }
                None => *n_rows,
            },
            Self::List(rows) => rows.partition_point(|row| *row < position),
        }
    }

    /// The rows in a range of positions, ascending.
    pub(crate) fn within(&self, range: Range<u64>) -> Vec<u64> {
        let ranks = self.rank(range.start)..self.rank(range.end);
        match self {
            Self::List(rows) => rows[ranks].to_vec(),
            Self::Bits { words, .. } => {
                let mut rows = Vec::with_capacity(ranks.len());
                let first = word_of(range.start).min(words.len());
                for (index, word) in words.iter().enumerate().skip(first) {
                    let mut rest = *word;
                    while rest != 0 {
                        let row = index as u64 * u64::from(u64::BITS) + u64::from(rest.trailing_zeros());
                        if row >= range.end {
                            return rows;
                        }
                        if row >= range.start {
                            rows.push(row);
                        }
                        rest &= rest - 1;
                    }
                }
                rows
            }
        }
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Bits { words, before, .. } => size_of_val(words.as_slice()) + size_of_val(before.as_slice()),
            Self::List(rows) => size_of_val(rows.as_slice()),
        }
    }
}

fn word_of(row: u64) -> usize {
    (row / u64::from(u64::BITS)) as usize
}

fn bit_of(row: u64) -> u64 {
    1 << (row % u64::from(u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_and_few_rows_are_ranked_and_found_alike() {
        let rows = [7, 0, 64, 7, 63, 200];
        let rows = || rows.iter().copied();
        for positions in
            [RowPositions::bits(rows(), 201), RowPositions::list(rows().collect()), RowPositions::new(rows())]
        {
            assert_eq!(positions.len(), 5);
            assert_eq!([0, 7, 63, 64, 65, 200, 201, 999].map(|row| positions.rank(row)), [0, 1, 2, 3, 4, 4, 5, 5]);
            assert_eq!(positions.within(0..u64::MAX), [0, 7, 63, 64, 200]);
            assert_eq!(positions.within(7..64), [7, 63]);
            assert_eq!(positions.within(64..200), [64]);
            assert!(positions.within(201..500).is_empty());
        }
        assert!(RowPositions::new([].into_iter()).within(0..10).is_empty());
    }
}
