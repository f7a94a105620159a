//! The feature rows that were chosen, and by which entity rows.

use crate::packed_rows::NO_RANK;

/// Chosen rows of a source.
pub(crate) struct Winners {
    /// Ascending and distinct.
    pub(crate) rows: Vec<u64>,
    /// Position in `rows` by entity row; [`NO_RANK`] where there is none.
    pub(crate) ranks: Vec<u32>,
}

impl Winners {
    /// Of entity rows and the rows they chose.
    pub(crate) fn new(n_entity_rows: usize, chosen: impl Iterator<Item = (u32, u64)> + Clone) -> Self {
        let (mut n_chosen, mut past) = (0u64, 0);
        chosen.clone().for_each(|(_, row)| {
            n_chosen += 1;
            past = past.max(row + 1);
        });
        // A bit per row of the source takes less than a number per winner, unless winners are few and far between.
        if past <= 64 * n_chosen {
            Self::dense(n_entity_rows, chosen, past)
        } else {
            Self::sparse(n_entity_rows, chosen)
        }
    }

    /// By a bit for each row of the source up to the last winner.
    fn dense(n_entity_rows: usize, chosen: impl Iterator<Item = (u32, u64)> + Clone, past: u64) -> Self {
        let place = |row: u64| ((row / 64) as usize, 1u64 << (row % 64));
        let mut words = vec![0u64; past.div_ceil(64) as usize];
        chosen.clone().for_each(|(_, row)| {
            let (word, bit) = place(row);
            words[word] |= bit;
        });
        let mut rows = Vec::with_capacity(words.iter().map(|word| word.count_ones() as usize).sum());
        let mut before = Vec::with_capacity(words.len());
        for (index, word) in (0..).zip(&words) {
            before.push(rows.len() as u32);
            let mut rest = *word;
            while rest != 0 {
                rows.push(index * 64 + u64::from(rest.trailing_zeros()));
                rest &= rest - 1;
            }
        }
        let mut ranks = vec![NO_RANK; n_entity_rows];
        chosen.for_each(|(entity, row)| {
            let (word, bit) = place(row);
            ranks[entity as usize] = before[word] + (words[word] & (bit - 1)).count_ones();
        });
        Self { rows, ranks }
    }

    /// By sorting.
    fn sparse(n_entity_rows: usize, chosen: impl Iterator<Item = (u32, u64)>) -> Self {
        let mut order: Vec<(u64, u32)> = chosen.map(|(entity, row)| (row, entity)).collect();
        order.sort_unstable();
        let mut winners = Self { rows: Vec::new(), ranks: vec![NO_RANK; n_entity_rows] };
        for (row, entity) in order {
            if winners.rows.last() != Some(&row) {
                winners.rows.push(row);
            }
            winners.ranks[entity as usize] = (winners.rows.len() - 1) as u32;
        }
        winners
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        size_of_val(self.rows.as_slice()) + size_of_val(self.ranks.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_and_few_winners_are_ranked_alike() {
        let chosen = [(0, 7), (7, 0), (2, 64), (3, 7), (4, 63), (5, 200)];
        let chosen = || chosen.iter().copied();
        for winners in [Winners::dense(8, chosen(), 201), Winners::sparse(8, chosen()), Winners::new(8, chosen())] {
            assert_eq!(winners.rows, [0, 7, 63, 64, 200]);
            assert_eq!(winners.ranks, [1, NO_RANK, 3, 1, 2, 4, NO_RANK, 0]);
        }
        assert!(Winners::new(1, [].into_iter()).rows.is_empty());
    }
}
