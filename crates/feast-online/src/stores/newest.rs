//! Which row of several with the same key counts.

use feast_core::OnlineWrite;

/// How recent a row is: its event time, then its created time, in microseconds. A row without a created time is older
/// than one with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Recency {
    pub(crate) event: i64,
    pub(crate) created: Option<i64>,
}

impl Recency {
    pub(crate) fn of(write: &OnlineWrite<'_>, row: usize) -> Self {
        use arrow::array::Array;
        let created = write.created_timestamps.filter(|created| created.is_valid(row));
        Self { event: write.event_timestamps.value(row), created: created.map(|created| created.value(row)) }
    }
}

/// The rows of a write that count: the most recent one of each key, the later one of equals; in order of their keys,
/// which is the order in which a tree likes to be written.
pub(crate) fn newest_rows(write: &OnlineWrite<'_>) -> Vec<usize> {
    let key = |row: usize| write.keys.encoded.value(row);
    let mut rows: Vec<usize> = (0..write.keys.len()).collect();
    rows.sort_unstable_by(|a, b| {
        key(*a).cmp(key(*b)).then_with(|| Recency::of(write, *b).cmp(&Recency::of(write, *a))).then(b.cmp(a))
    });
    rows.dedup_by(|next, kept| key(*next) == key(*kept));
    rows
}
