//! Closed intervals of time and their union.

use serde::Serialize;

use crate::Timestamp;

/// A span of time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Interval {
    /// First instant.
    pub start: Timestamp,
    /// Last instant.
    pub end: Timestamp,
}

impl Interval {
    /// The interval between two instants; the ends are swapped when they are given the wrong way round.
    pub fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start: start.min(end), end: start.max(end) }
    }
}

/// Returns the union as disjoint intervals in order of time; intervals that touch are joined.
///
/// Inverted intervals, which Feast can record, are read with their ends swapped.
pub fn merge_intervals(intervals: impl IntoIterator<Item = Interval>) -> Vec<Interval> {
    let mut sorted: Vec<Interval> = intervals.into_iter().map(|i| Interval::new(i.start, i.end)).collect();
    sorted.sort();
    let mut merged: Vec<Interval> = Vec::with_capacity(sorted.len());
    for next in sorted {
        match merged.last_mut() {
            Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
            _ => merged.push(next),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn interval(start: i64, end: i64) -> Interval {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).expect("in range");
        Interval { start: at(start), end: at(end) }
    }

    #[test]
    fn touching_and_inverted_intervals_are_joined() {
        let merged = merge_intervals([interval(30, 20), interval(0, 10), interval(10, 15), interval(40, 41)]);
        assert_eq!(merged, [interval(0, 15), interval(20, 30), interval(40, 41)]);
    }
}
