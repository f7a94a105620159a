//! Rows that wait for more of their region.

use crate::point_in_time::Slot;
use crate::regions::Regions;
use crate::table::Table;

/// Rows with the numbers of their keys, by region, as one thread found them: feature rows on their way to slots, and entity
/// rows on their way to timelines.
///
/// They lie in blocks of one table that is as large as they may become, so that letting rows wait moves none of them
/// again, and takes no memory but theirs and the rest of the blocks that were begun last. What they took once is kept.
pub(crate) struct WaitingRows {
    /// Rows of [`NARROW`] or [`WIDE`] words: event time, position, key's number, and created time if there is any.
    words: Table<i64>,
    width: usize,
    regions: Regions,
    /// By region: where the next row goes. They are near while rows come in.
    cursors: Vec<Cursor>,
    /// By region: where its blocks begin.
    blocks: Vec<Vec<usize>>,
    n_blocks: usize,
    n_rows: usize,
    most: usize,
    /// Positions are counted from here.
    first_row: u64,
}

/// A place in the last block of a region.
#[derive(Clone, Copy, Default)]
struct Cursor {
    next: usize,
    /// Where the block ends.
    end: usize,
}

/// Rows of a block.
const BLOCK: usize = if cfg!(test) { 2 } else { 256 };
const NARROW: usize = 2;
const WIDE: usize = 3;

impl WaitingRows {
    /// Bytes of a row, at most.
    pub(crate) const MOST_ROW_SIZE: usize = WIDE * size_of::<i64>();
    /// Bytes of a block, at most. Each region has one that is not full.
    pub(crate) const BLOCK_SIZE: usize = BLOCK * Self::MOST_ROW_SIZE;

    /// Room for so many rows; created times are kept where there are any.
    pub(crate) fn new(regions: Regions, most: usize, has_created: bool) -> Self {
        let width = if has_created { WIDE } else { NARROW };
        Self {
            words: Table::zeroed((most / BLOCK + regions.len()) * BLOCK * width),
            width,
            regions,
            cursors: vec![Cursor::default(); regions.len()],
            blocks: vec![Vec::new(); regions.len()],
            n_blocks: 0,
            n_rows: 0,
            most,
            first_row: 0,
        }
    }

    /// Puts rows with the numbers of their keys behind those that wait; gives the first back for which there is no room.
    pub(crate) fn extend(&mut self, rows: &mut impl Iterator<Item = (u32, Slot)>) -> Option<(u32, Slot)> {
        let Self { words, width, regions, cursors, blocks, n_blocks, n_rows, most, first_row } = self;
        let words = &mut **words;
        for (number, slot) in rows {
            if *n_rows == 0 {
                // Threads take turns with what waits, so that rows before the first come as well.
                *first_row = slot.row.saturating_sub(1 << 31);
            }
            // What is before that wraps around to far away.
            let row = slot.row.wrapping_sub(*first_row);
            if *n_rows == *most || row > u64::from(u32::MAX) {
                return Some((number, slot));
            }
            *n_rows += 1;
            let region = regions.of(number);
            let cursor = &mut cursors[region];
            if cursor.next == cursor.end {
                cursor.next = *n_blocks * BLOCK * *width;
                cursor.end = cursor.next + BLOCK * *width;
                blocks[region].push(cursor.next);
                *n_blocks += 1;
            }
            let words = &mut words[cursor.next..cursor.next + *width];
            cursor.next += *width;
            words[0] = slot.event;
            words[1] = (u64::from(number) << u32::BITS | row).cast_signed();
            if let Some(created) = words.get_mut(NARROW) {
                *created = slot.created;
            }
        }
        None
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.n_rows
    }

    /// How many rows of a region there are.
    pub(crate) fn len_of(&self, region: usize) -> usize {
        let Cursor { next, end } = self.cursors[region];
        self.blocks[region].len() * BLOCK - (end - next) / self.width
    }

    /// The rows of a region with the numbers of their keys.
    pub(crate) fn of(&self, region: usize) -> impl Iterator<Item = (u32, Slot)> {
        let (words, next) = (&*self.words, self.cursors[region].next);
        self.blocks[region].iter().flat_map(move |start| {
            let end = start + BLOCK * self.width;
            let end = if (*start..=end).contains(&next) { next } else { end };
            words[*start..end].chunks_exact(self.width).map(|words| {
                let word = words[1].cast_unsigned();
                let row = self.first_row + u64::from(word as u32);
                let created = words.get(NARROW).copied().unwrap_or(i64::MIN);
                ((word >> u32::BITS) as u32, Slot { event: words[0], created, row })
            })
        })
    }

    /// Lets go of all rows.
    pub(crate) fn clear(&mut self) {
        self.cursors.fill(Cursor::default());
        self.blocks.iter_mut().for_each(Vec::clear);
        (self.n_blocks, self.n_rows) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_by_region_until_there_is_no_room() {
        // As many rows as it takes to have a region for each key.
        let regions = Regions::new(3, 1000);
        assert_eq!(regions.len(), 3);
        for has_created in [false, true] {
            let mut waiting = WaitingRows::new(regions, 10, has_created);
            let slot = |at: i64| Slot {
                event: -at,
                created: if has_created { at } else { i64::MIN },
                row: at.cast_unsigned().wrapping_add(1 << 40),
            };
            let is_full = |waiting: &mut WaitingRows, key: u32, at: i64| {
                let left = waiting.extend(&mut [(key, slot(at))].into_iter());
                left.map(|(number, slot)| (number, slot.row)) == Some((key, slot(at).row))
            };
            for _ in 0..2 {
                assert!(!is_full(&mut waiting, 2, 5));
                assert!(is_full(&mut waiting, 0, -1 << 33), "rows far before the first are too far away");
                assert!(is_full(&mut waiting, 0, 1 << 33), "as are those far behind it");
                let mut rows = (6..14).rev().map(|at| ((at % 3) as u32, slot(at)));
                assert!(waiting.extend(&mut rows).is_none());
                assert!(!is_full(&mut waiting, 0, -14));
                assert!(is_full(&mut waiting, 0, 15), "there are ten");
                let found = |region: u32| -> Vec<(i64, i64, u64)> {
                    let rows = waiting.of(region as usize).inspect(|(number, _)| assert_eq!(*number, region));
                    rows.map(|(_, slot)| (slot.event, slot.created, slot.row)).collect()
                };
                let expected = |ats: &[i64]| -> Vec<(i64, i64, u64)> {
                    ats.iter().map(|at| (-at, slot(*at).created, slot(*at).row)).collect()
                };
                assert_eq!(found(0), expected(&[12, 9, 6, -14]));
                assert_eq!(found(1), expected(&[13, 10, 7]));
                assert_eq!(found(2), expected(&[5, 11, 8]));
                assert_eq!(([0, 1, 2].map(|region| waiting.len_of(region)), waiting.len()), ([4, 3, 3], 10));
                waiting.clear();
                assert!((0..3).all(|region| waiting.len_of(region) == 0 && waiting.of(region).next().is_none()));
            }
        }
    }
}
