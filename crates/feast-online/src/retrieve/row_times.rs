//! What is known of each row of an answer, and which row of the store it is.

use arrow::array::{Array as _, TimestampMicrosecondArray};
use feast_core::{PlannedView, Timestamp, is_expired};

use super::{FieldStatus, RetrieveOptions, TtlPolicy};

/// What is known of the rows of a view, one per row of the request.
pub(super) struct RowTimes {
    pub(super) statuses: Vec<FieldStatus>,
    /// When their values became true, the epoch where nobody knows.
    pub(super) micros: Vec<i64>,
    /// Whether values that are too old become null.
    pub(super) hides: bool,
}

impl RowTimes {
    pub(super) fn of(
        view: &PlannedView,
        times: &TimestampMicrosecondArray,
        row_of_request: &Option<Vec<u32>>,
        n_rows: usize,
        options: &RetrieveOptions,
    ) -> Self {
        let checks_age = options.ttl_policy != TtlPolicy::Ignore && view.ttl.limit().is_some();
        let mut statuses = Vec::with_capacity(n_rows);
        let mut micros = Vec::with_capacity(n_rows);
        for row in 0..n_rows {
            let key = row_of_request.as_ref().map_or(row, |rows| rows[row] as usize);
            if times.is_null(key) {
                statuses.push(FieldStatus::NotFound);
                micros.push(0);
                continue;
            }
            let time = times.value(key);
            let expired = checks_age
                && Timestamp::from_timestamp_micros(time).is_some_and(|time| is_expired(view.ttl, time, options.now));
            statuses.push(if expired { FieldStatus::OutsideMaxAge } else { FieldStatus::Present });
            micros.push(time);
        }
        let hides = options.ttl_policy == TtlPolicy::Hide && statuses.contains(&FieldStatus::OutsideMaxAge);
        Self { statuses, micros, hides }
    }
}

/// Which row of an answer each row of the request has; none where it is hidden.
pub(super) fn indices<'a>(
    statuses: &'a [FieldStatus],
    hides: bool,
    row_of_request: &'a Option<Vec<u32>>,
) -> impl Iterator<Item = Option<u32>> + 'a {
    statuses.iter().enumerate().map(move |(row, status)| {
        let shown = !hides || *status != FieldStatus::OutsideMaxAge;
        shown.then(|| row_of_request.as_ref().map_or(row as u32, |rows| rows[row]))
    })
}
