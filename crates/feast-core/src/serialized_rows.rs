//! Rows of a table as stores keep them: keys and values that are serialized, one after the other.

/// Rows of `n_columns` values each, in the order in which they were added.
///
/// Everything lies in one piece of memory: a push of one row is not worth an Arrow column for each of its values.
#[derive(Debug, Clone, Default)]
pub struct SerializedRows {
    n_columns: usize,
    /// Of each row the entity key, then its values.
    bytes: Vec<u8>,
    /// Where each key and each value ends.
    ends: Vec<usize>,
    /// Event time and created time of each row, in microseconds.
    times: Vec<(i64, Option<i64>)>,
}

impl SerializedRows {
    /// Room for some rows of `n_columns` values.
    pub fn with_capacity(n_columns: usize, n_rows: usize) -> Self {
        let n_pieces = n_rows * (n_columns + 1);
        Self {
            n_columns,
            bytes: Vec::with_capacity(n_pieces * 12 + n_rows * 48),
            ends: Vec::with_capacity(n_pieces),
            times: Vec::with_capacity(n_rows),
        }
    }

    /// Adds a row: `put` appends its entity key when it is called with `None`, and the serialized value of a column, or
    /// nothing for null, when it is called with the position of that. A `put` that gives `None` ends this with `None`,
    /// after which the rows are of no use.
    pub fn push(
        &mut self,
        event_timestamp: i64,
        created_timestamp: Option<i64>,
        mut put: impl FnMut(Option<usize>, &mut Vec<u8>) -> Option<()>,
    ) -> Option<()> {
        for piece in std::iter::once(None).chain((0..self.n_columns).map(Some)) {
            put(piece, &mut self.bytes)?;
            self.ends.push(self.bytes.len());
        }
        self.times.push((event_timestamp, created_timestamp));
        Some(())
    }

    /// Adds rows of as many columns.
    pub fn append(&mut self, others: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&others.bytes);
        self.ends.extend(others.ends.iter().map(|end| start + end));
        self.times.extend_from_slice(&others.times);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The serialized entity key of a row.
    pub fn key(&self, row: usize) -> &[u8] {
        self.piece(row * (self.n_columns + 1))
    }

    /// The serialized value of a column in a row; zero bytes are null.
    pub fn cell(&self, row: usize, column: usize) -> &[u8] {
        self.piece(row * (self.n_columns + 1) + 1 + column)
    }

    /// When a row became true, in microseconds since the epoch, UTC.
    pub fn event_timestamp(&self, row: usize) -> i64 {
        self.times[row].0
    }

    /// When its source wrote a row, in microseconds since the epoch, UTC, where that is known.
    pub fn created_timestamp(&self, row: usize) -> Option<i64> {
        self.times[row].1
    }

    fn piece(&self, number: usize) -> &[u8] {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.bytes[start..self.ends[number]]
    }
}
