//! Entity rows for a request that has none: every key and event time that its views have in a span.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::datatypes::{Field as ArrowField, Schema};
use arrow::row::{RowConverter, SortField};
use chrono::{TimeDelta, Utc};
use feast_core::{DUMMY_JOIN_KEY, Error, PlannedJoinKey, Result, RetrievalPlan, Timestamp, timestamp_type};

use crate::cast::to_declared;
use crate::entity_rows::{EntityRows, EntityRowsBuilder, OUTPUT_ROWS};
use crate::historical::OpenPlan;
use crate::parallel;
use crate::sources::Window;
use crate::timestamps::micros_array;
use crate::view_columns::{Scanned, record_batch};

/// How far a request without entity rows looks back when no view has a ttl.
const DEFAULT_LOOK_BACK: TimeDelta = TimeDelta::days(30);

/// The span of a request without entity rows.
pub(crate) fn asked_range(
    plan: &RetrievalPlan,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
) -> Result<(Timestamp, Timestamp)> {
    let end = end.unwrap_or_else(Utc::now);
    let look_back = plan.longest_ttl().unwrap_or(DEFAULT_LOOK_BACK);
    let start = start.or_else(|| end.checked_sub_signed(look_back)).unwrap_or(Timestamp::MIN_UTC);
    if start > end {
        return Err(
            Error::invalid_request(format!("the start {start} is after the end {end}")).with_hint("swap the two dates")
        );
    }
    Ok((start, end))
}

impl OpenPlan {
    /// Every key and event time the views have between two instants, as entity rows in order of time and key.
    ///
    /// A view without one of the join keys contributes rows in which it is null. Entity-less views contribute times
    /// only when there is no other view.
    ///
    /// Where more than `limit` bytes would be needed, the span is split and the sources are read once for each part.
    pub(crate) fn range(&self, (start, end): (Timestamp, Timestamp), limit: usize) -> Result<EntityRows> {
        if self.views.is_empty() {
            return Err(Error::invalid_request(
                "there are no entity rows, and no stored feature view to take them from",
            )
            .with_hint("give entity rows, or ask for features of a stored feature view"));
        }
        let (first, last) = (start.timestamp_micros(), end.timestamp_micros());
        let keys: Vec<_> = self.plan.join_keys.iter().filter(|key| key.key != DUMMY_JOIN_KEY).collect();
        let mut fields = vec![ArrowField::new("event_timestamp", timestamp_type(), true)];
        fields.extend(keys.iter().map(|key| ArrowField::new(&key.column, key.value_type.arrow_type(), true)));
        let schema = Arc::new(Schema::new(fields));
        let sort_fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(sort_fields)?;
        let mut entity = EntityRowsBuilder::new(Arc::clone(&schema), limit)?;
        let mut first = Some(first);
        while let Some(from) = first {
            let mut seen = DistinctRows::new(limit);
            self.collect_range(&keys, &converter, (from, last), &mut seen)?;
            let (rows, rest) = seen.into_rows();
            let parser = converter.parser();
            for rows in rows.chunks(OUTPUT_ROWS) {
                let columns = converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?;
                entity.push(record_batch(&schema, columns, rows.len())?)?;
            }
            first = rest;
        }
        entity.finish()
    }

    /// The distinct keys and times of all views in a window.
    fn collect_range(
        &self,
        keys: &[&PlannedJoinKey],
        converter: &RowConverter,
        (first, last): (i64, i64),
        seen: &mut DistinctRows,
    ) -> Result<()> {
        let seen = Mutex::new(seen);
        for (view, planned) in self.views.iter().zip(&self.plan.views) {
            if view.columns.keys.is_empty() && !keys.is_empty() {
                continue;
            }
            let table = &self.tables[view.table];
            let scanned = Scanned::new(view.columns.keys.iter().copied().chain([view.columns.event]));
            let window = Window { column: view.columns.event, first, last };
            let own_keys: Vec<Option<usize>> =
                keys.iter().map(|key| planned.join_keys.iter().position(|own| own.column == key.column)).collect();
            table.scan(&scanned.columns, Some(window), parallel::threads(), &|_, batch| {
                let times = scanned.times(&batch, view.columns.event, table)?;
                let inside: Vec<bool> =
                    times.iter().map(|time| time.is_some_and(|time| (first..=last).contains(&time))).collect();
                let mut columns: Vec<ArrayRef> = vec![micros_array(times.clone())];
                for (key, own) in keys.iter().zip(&own_keys) {
                    columns.push(match own {
                        None => new_null_array(&key.value_type.arrow_type(), batch.num_rows()),
                        Some(own) => {
                            let column = view.columns.keys[*own];
                            let array = scanned.array(&batch, column)?;
                            to_declared(array, key.value_type, &table.describe(column))?
                        }
                    });
                }
                let rows = converter.convert_columns(&columns)?;
                let mut seen = seen.lock().map_err(|_| Error::internal("a thread failed"))?;
                for (index, row) in rows.iter().enumerate() {
                    let whole = (0..keys.len()).all(|key| own_keys[key].is_none() || columns[key + 1].is_valid(index));
                    if inside[index] && whole {
                        seen.add(times.value(index), row.data());
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Distinct encoded rows within a number of bytes: where there are too many, the latest are left to another pass.
struct DistinctRows {
    rows: HashSet<(i64, Box<[u8]>)>,
    size: usize,
    limit: usize,
    /// Rows of this time and later ones are left out.
    cut: Option<i64>,
}

impl DistinctRows {
    /// What a row takes beside its bytes.
    const ENTRY: usize = 48;

    fn new(limit: usize) -> Self {
        Self { rows: HashSet::new(), size: 0, limit, cut: None }
    }

    fn add(&mut self, time: i64, row: &[u8]) {
        if self.cut.is_some_and(|cut| time >= cut) || !self.rows.insert((time, row.into())) {
            return;
        }
        self.size += row.len() + Self::ENTRY;
        if self.size > self.limit {
            self.halve();
        }
    }

    /// Leaves out the later half of the rows; rows of one time stay together.
    fn halve(&mut self) {
        let mut times: Vec<i64> = self.rows.iter().map(|(time, _)| *time).collect();
        let middle = times.len() / 2;
        let (before, median, _) = times.select_nth_unstable(middle);
        let cut = *median;
        if before.iter().all(|time| *time == cut) {
            // As good as all rows have one time; let them be.
            self.limit = self.limit.max(self.size).saturating_mul(2);
            return;
        }
        self.rows.retain(|(time, _)| *time < cut);
        self.size = self.rows.iter().map(|(_, row)| row.len() + Self::ENTRY).sum();
        self.cut = Some(cut);
    }

    /// The rows in order, and the time from which on there are more.
    fn into_rows(self) -> (Vec<Box<[u8]>>, Option<i64>) {
        let mut rows: Vec<Box<[u8]>> = self.rows.into_iter().map(|(_, row)| row).collect();
        // The encoding sorts as the columns do: by time, then by key.
        rows.sort_unstable();
        (rows, self.cut)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn distinct_rows_beyond_the_limit_come_in_later_passes() {
        let given: Vec<i64> = (0..1000).map(|number| number * 37 % 100).collect();
        let (mut from, mut passes, mut all) = (Some(i64::MIN), 0, Vec::new());
        while let Some(first) = from {
            let mut rows = DistinctRows::new(1000);
            given.iter().filter(|time| **time >= first).for_each(|time| rows.add(*time, &time.to_be_bytes()));
            let (rows, rest) = rows.into_rows();
            all.extend(rows.iter().map(|row| i64::from_be_bytes(row.as_ref().try_into().unwrap())));
            (from, passes) = (rest, passes + 1);
        }
        assert_eq!(all, (0..100).collect::<Vec<i64>>());
        assert!(passes > 3);
        let mut same = DistinctRows::new(100);
        (0..100u8).for_each(|key| same.add(5, &[key]));
        assert_eq!(same.into_rows().0.len(), 100);
    }
}
