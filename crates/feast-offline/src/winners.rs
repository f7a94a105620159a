//! The feature rows that were chosen, and by which entity rows.

use crate::packed_rows::NO_RANK;
use crate::row_positions::RowPositions;
use crate::table::Table;

/// Chosen rows of a source.
pub(crate) struct Winners {
    pub(crate) rows: RowPositions,
    /// Rank in `rows` by entity row; [`NO_RANK`] where there is none.
    pub(crate) ranks: Table<u32>,
}

impl Winners {
    /// Of entity rows and the rows they chose.
    pub(crate) fn new(n_entity_rows: usize, chosen: impl Iterator<Item = (u32, u64)> + Clone) -> Self {
        let rows = RowPositions::new(chosen.clone().map(|(_, row)| row));
        let mut ranks = Table::filled(n_entity_rows, NO_RANK);
        let places = &mut *ranks;
        chosen.for_each(|(entity, row)| places[entity as usize] = rows.rank(row) as u32);
        Self { rows, ranks }
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        self.rows.size() + size_of_val(&*self.ranks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_rows_are_pointed_at_the_rows_they_chose() {
        let chosen = [(0, 7), (7, 0), (2, 64), (3, 7), (4, 63), (5, 200)];
        let winners = Winners::new(8, chosen.into_iter());
        assert_eq!(winners.rows.within(0..u64::MAX), [0, 7, 63, 64, 200]);
        assert_eq!(*winners.ranks, [1, NO_RANK, 3, 1, 2, 4, NO_RANK, 0]);
        assert_eq!(Winners::new(1, [].into_iter()).rows.len(), 0);
    }
}
