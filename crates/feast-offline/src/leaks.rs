//! Which training values would be others had later corrections been used: what a model would have learned from the
//! future.
//!
//! The same entity rows are joined twice, once by what was known at the time of each row and once by what the sources
//! say today, and the values are compared. Only views whose source has a created time can differ.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::row::{RowConverter, SortField};
use feast_core::{Result, RetrievalPlan};
use serde::Serialize;

/// How often knowledge of later times would have changed features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeakReport {
    /// Entity rows that were looked at.
    pub rows: u64,
    /// Every feature of the request, in its order.
    pub features: Vec<FeatureLeak>,
}

/// How often knowledge of later times would have changed one feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeatureLeak {
    /// The feature view, or its alias.
    pub feature_view: String,
    /// The feature.
    pub feature: String,
    /// Whether the source says when its rows were written; if not, nothing can be found out.
    pub has_created_timestamp: bool,
    /// Entity rows whose value would be another.
    pub changed: u64,
    /// Those of them for which nothing was known yet.
    pub not_yet_known: u64,
}

impl LeakReport {
    /// A report of no rows. `has_created` says it of each view of the plan.
    pub(crate) fn new(plan: &RetrievalPlan, has_created: &[bool]) -> Self {
        let features = plan.views.iter().zip(has_created).flat_map(|(view, has_created)| {
            view.features.iter().map(|feature| FeatureLeak {
                feature_view: view.name.clone(),
                feature: feature.field.name.clone(),
                has_created_timestamp: *has_created,
                changed: 0,
                not_yet_known: 0,
            })
        });
        Self { rows: 0, features: features.collect() }
    }

    /// Counts some rows; both sides hold the feature columns in the order of the report.
    pub(crate) fn count(&mut self, n_rows: usize, known: &[ArrayRef], today: &[ArrayRef]) -> Result<()> {
        self.rows += n_rows as u64;
        for ((feature, known), today) in self.features.iter_mut().zip(known).zip(today) {
            let differs = differences(known, today)?;
            feature.changed += differs.iter().filter(|differs| **differs).count() as u64;
            feature.not_yet_known +=
                (0..).zip(differs).filter(|(row, differs)| *differs && known.is_null(*row)).count() as u64;
        }
        Ok(())
    }
}

/// Where two columns of the same type have different values; nulls are equal to each other.
fn differences(left: &ArrayRef, right: &ArrayRef) -> Result<Vec<bool>> {
    if Arc::ptr_eq(left, right) {
        return Ok(vec![false; left.len()]);
    }
    let fields = vec![SortField::new(left.data_type().clone())];
    if RowConverter::supports_fields(&fields) {
        let converter = RowConverter::new(fields)?;
        let left = converter.convert_columns(&[Arc::clone(left)])?;
        let right = converter.convert_columns(&[Arc::clone(right)])?;
        return Ok(left.iter().zip(right.iter()).map(|(left, right)| left != right).collect());
    }
    let differs = |row: usize| left.slice(row, 1).to_data() != right.slice(row, 1).to_data();
    Ok((0..left.len()).map(differs).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{Float64Array, ListArray, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn values_differ_as_wholes_and_nulls_do_not() {
        let floats = |values: Vec<Option<f64>>| Arc::new(Float64Array::from(values)) as ArrayRef;
        let (left, right) = (
            floats(vec![Some(1.0), Some(f64::NAN), None, None]),
            floats(vec![Some(2.0), Some(f64::NAN), None, Some(0.0)]),
        );
        assert_eq!(differences(&left, &right).unwrap(), [true, false, false, true]);
        let lists = |lists: Vec<Option<Vec<Option<i32>>>>| {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)) as ArrayRef
        };
        let (left, right) =
            (lists(vec![Some(vec![Some(1)]), Some(vec![])]), lists(vec![Some(vec![Some(1), None]), Some(vec![])]));
        assert_eq!(differences(&left, &right).unwrap(), [true, false]);
        let texts = Arc::new(StringArray::from(vec!["a"])) as ArrayRef;
        assert_eq!(differences(&texts, &texts).unwrap(), [false]);
    }
}
