//! Which row of several with the same key counts.

use arrow::array::Array as _;
use feast_core::{OnlineWrite, SerializedWrite};

/// How recent a row is: its event time, then its created time, in microseconds. A row without a created time is older
/// than one with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Recency {
    pub(crate) event: i64,
    pub(crate) created: Option<i64>,
}

/// Rows of which the most recent one of each key counts.
pub(crate) trait Recent {
    fn n_rows(&self) -> usize;

    /// The serialized entity key of a row.
    fn key(&self, row: usize) -> &[u8];

    fn recency(&self, row: usize) -> Recency;
}

impl Recent for OnlineWrite<'_> {
    fn n_rows(&self) -> usize {
        self.keys.len()
    }

    fn key(&self, row: usize) -> &[u8] {
        self.keys.encoded.value(row)
    }

    fn recency(&self, row: usize) -> Recency {
        let created = self.created_timestamps.filter(|created| created.is_valid(row));
        Recency { event: self.event_timestamps.value(row), created: created.map(|created| created.value(row)) }
    }
}

impl Recent for SerializedWrite<'_> {
    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn key(&self, row: usize) -> &[u8] {
        self.rows.key(row)
    }

    fn recency(&self, row: usize) -> Recency {
        Recency { event: self.rows.event_timestamp(row), created: self.rows.created_timestamp(row) }
    }
}

/// The rows of a write that count: the most recent one of each key, the later one of equals; in order of their keys,
/// which is the order in which a tree likes to be written.
pub(crate) fn newest_rows(write: &impl Recent) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..write.n_rows()).collect();
    rows.sort_unstable_by(|a, b| {
        let newer = || write.recency(*b).cmp(&write.recency(*a));
        write.key(*a).cmp(write.key(*b)).then_with(newer).then(b.cmp(a))
    });
    rows.dedup_by(|next, kept| write.key(*next) == write.key(*kept));
    rows
}
