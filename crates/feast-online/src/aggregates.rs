//! Aggregations of on-demand views: of the rows of one request, those with the same entity are one group, and each row
//! has the aggregates of its group.
//!
//! A request has one moment, training data have many: there, rows are of one group when their time is the same, too. So no
//! row learns anything of another time, and a training row has what a request for all rows of its time would have got.
//! Nulls do not count. A view without entities has one group per moment.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::row::{RowConverter, SortField};
use feast_core::{Aggregation, Error, ErrorCode, FeatureView, Problem, Result, ValueType, list_names};

const FUNCTIONS: [&str; 8] = ["sum", "max", "min", "count", "mean", "avg", "count_distinct", "std"];

/// What is wrong with the aggregations of an on-demand view, whatever its inputs are.
pub fn check_aggregations(view: &FeatureView) -> Option<Problem> {
    let on_demand = view.on_demand()?;
    on_demand.aggregations.iter().find_map(|aggregation| {
        if !FUNCTIONS.contains(&aggregation.function.as_str()) {
            let what = format!("aggregates by `{}`, which is not known", aggregation.function);
            return Some(
                Problem::new(view.reference(), what)
                    .with_hint(format!("known functions are {}", list_names(FUNCTIONS))),
            );
        }
        if aggregation.time_window.is_some_and(|window| !window.is_zero()) {
            let what = format!("aggregates `{}` over a time window, but a request has one moment", aggregation.column);
            return Some(
                Problem::new(view.reference(), what).with_hint("aggregate over time in a batch or stream feature view"),
            );
        }
        None
    })
}

/// The groups of the rows of an input.
struct Groups {
    /// The number of the group of each row.
    of_row: Vec<u32>,
    count: usize,
}

impl Groups {
    /// Groups by the entity of the view and by moment; `column` finds the columns of the input.
    fn of<'a>(
        view: &FeatureView,
        column: &dyn Fn(&str) -> Option<&'a ArrayRef>,
        moments: Option<&'a ArrayRef>,
        n_rows: usize,
    ) -> Result<Self> {
        let mut keys: Vec<ArrayRef> = Vec::new();
        for key in view.join_keys().filter(|_| !view.is_entity_less()) {
            let found = column(key).ok_or_else(|| {
                Error::new(
                    ErrorCode::MissingColumns,
                    format!(
                        "on-demand feature view `{}` aggregates by `{key}`, which its sources do not have",
                        view.name
                    ),
                )
                .with_hint("name the entities of its sources, or none")
            })?;
            keys.push(Arc::clone(found));
        }
        keys.extend(moments.cloned());
        if keys.is_empty() {
            return Ok(Self { of_row: vec![0; n_rows], count: 1 });
        }
        let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&keys)?;
        let mut numbers: HashMap<&[u8], u32> = HashMap::new();
        let mut of_row = Vec::with_capacity(n_rows);
        for row in &rows {
            let next = numbers.len() as u32;
            of_row.push(*numbers.entry(row.data()).or_insert(next));
        }
        let count = numbers.len();
        Ok(Self { of_row, count })
    }

    /// Calls `add` with the group of each row whose value is not null.
    fn each(&self, values: &dyn Array, mut add: impl FnMut(usize, usize)) {
        for (row, group) in self.of_row.iter().enumerate() {
            if values.is_valid(row) {
                add(*group as usize, row);
            }
        }
    }
}

/// The aggregates of a view, each under its feature's name with a value per row. `column` finds the columns of its input;
/// `moments` are the times of the rows, without which all are of one.
pub(crate) fn aggregates<'a>(
    view: &FeatureView,
    aggregations: &[Aggregation],
    column: &dyn Fn(&str) -> Option<&'a ArrayRef>,
    moments: Option<&'a ArrayRef>,
    n_rows: usize,
) -> Result<Vec<(String, ValueType, ArrayRef)>> {
    let groups = Groups::of(view, column, moments, n_rows)?;
    let of_row = UInt32Array::from_iter_values(groups.of_row.iter().copied());
    let aggregates = aggregations.iter().map(|aggregation| {
        let failed = |what: String| {
            Error::invalid_definition(format!("on-demand feature view `{}` {what}", view.name))
                .with_hint("correct its aggregations")
        };
        let values = column(&aggregation.column)
            .ok_or_else(|| failed(format!("aggregates `{}`, which is none of its inputs", aggregation.column)))?;
        let name = aggregation.feature_name();
        let (value_type, of_groups) = aggregated(&aggregation.function, values, &groups)?.ok_or_else(|| {
            failed(format!(
                "cannot aggregate `{}` by `{}`: it holds {}",
                aggregation.column,
                aggregation.function,
                values.data_type()
            ))
        })?;
        Ok((name, value_type, take(&of_groups, &of_row, None)?))
    });
    aggregates.collect()
}

/// One value per group; nothing where the function has no meaning for such values.
fn aggregated(function: &str, values: &ArrayRef, groups: &Groups) -> Result<Option<(ValueType, ArrayRef)>> {
    let int64 = |values: Vec<Option<i64>>| Some((ValueType::Int64, Arc::new(Int64Array::from(values)) as ArrayRef));
    let float64 =
        |values: Vec<Option<f64>>| Some((ValueType::Double, Arc::new(Float64Array::from(values)) as ArrayRef));
    let mut counts = vec![0_i64; groups.count];
    groups.each(values, |group, _| counts[group] += 1);
    if function == "count" {
        return Ok(int64(counts.into_iter().map(Some).collect()));
    }
    if function == "count_distinct" {
        let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
        let rows = converter.convert_columns(&[Arc::clone(values)])?;
        let mut seen = vec![std::collections::HashSet::new(); groups.count];
        groups.each(values, |group, row| {
            seen[group].insert(rows.row(row));
        });
        return Ok(int64(seen.into_iter().map(|seen| Some(seen.len() as i64)).collect()));
    }
    let is_whole = values.data_type().is_integer() || *values.data_type() == DataType::Boolean;
    if !is_whole && !values.data_type().is_floating() {
        return Ok(None);
    }
    if is_whole && matches!(function, "sum" | "min" | "max") {
        let values = cast(values, &DataType::Int64)?;
        let values = values.as_primitive::<Int64Type>();
        let mut results: Vec<Option<i64>> = vec![None; groups.count];
        let mut has_overflown = false;
        groups.each(values, |group, row| {
            let value = values.value(row);
            let result = results[group].map_or(Some(value), |known| match function {
                "sum" => known.checked_add(value),
                "min" => Some(known.min(value)),
                _ => Some(known.max(value)),
            });
            has_overflown |= result.is_none();
            results[group] = result;
        });
        if has_overflown {
            return Err(Error::invalid_request("a sum is larger than 64 bits hold").with_hint("aggregate floats"));
        }
        return Ok(int64(results));
    }
    let values = cast(values, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>();
    let mut results: Vec<Option<f64>> = vec![None; groups.count];
    groups.each(values, |group, row| {
        let value = values.value(row);
        results[group] = Some(results[group].map_or(value, |known| match function {
            "min" => known.min(value),
            "max" => known.max(value),
            _ => known + value,
        }));
    });
    if matches!(function, "mean" | "avg" | "std") {
        for (sum, count) in results.iter_mut().zip(&counts) {
            *sum = sum.map(|sum| sum / *count as f64);
        }
    }
    if function == "std" {
        let mut squares = vec![0.0; groups.count];
        groups.each(values, |group, row| squares[group] += (values.value(row) - results[group].unwrap_or(0.0)).powi(2));
        // Of a sample: one value has none.
        let deviation = |(square, count): (f64, i64)| (count > 1).then(|| (square / (count - 1) as f64).sqrt());
        results = squares.into_iter().zip(counts).map(deviation).collect();
    }
    Ok(float64(results))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::StringArray;
    use feast_core::{FeatureViewKind, OnDemandFeatures};

    use super::*;

    fn values(function: &str, moments: Option<Vec<i64>>) -> Vec<Option<f64>> {
        let mut view = FeatureView::new("view", FeatureViewKind::OnDemand(OnDemandFeatures::default()));
        view.entities = vec!["driver".to_owned()];
        view.entity_columns = vec![feast_core::Field::new("driver_id", ValueType::Int64)];
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1, 1, 2]));
        let column: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(5.0), Some(3.0), None]));
        let moments: Option<ArrayRef> = moments.map(|moments| Arc::new(Int64Array::from(moments)) as ArrayRef);
        let find = |name: &str| match name {
            "driver_id" => Some(&keys),
            "amount" => Some(&column),
            _ => None,
        };
        let aggregation =
            Aggregation { column: "amount".to_owned(), function: function.to_owned(), ..Aggregation::default() };
        let found = aggregates(&view, &[aggregation], &find, moments.as_ref(), 5).unwrap();
        assert_eq!(found[0].0, format!("{function}_amount"));
        cast(&found[0].2, &DataType::Float64).unwrap().as_primitive::<Float64Type>().iter().collect()
    }

    #[test]
    fn rows_have_the_aggregates_of_their_group() {
        let both = |first: f64, second: Option<f64>| vec![Some(first), second, Some(first), Some(first), second];
        assert_eq!(values("sum", None), both(9.0, None));
        assert_eq!(values("mean", None), both(3.0, None));
        assert_eq!(values("min", None), both(1.0, None));
        assert_eq!(values("max", None), both(5.0, None));
        assert_eq!(values("std", None), both(2.0, None));
        assert_eq!(values("count", None), both(3.0, Some(0.0)));
        assert_eq!(values("count_distinct", None), both(3.0, Some(0.0)));
        let moments = Some(vec![1, 1, 2, 1, 2]);
        assert_eq!(values("sum", moments), [Some(4.0), None, Some(5.0), Some(4.0), None]);
    }

    #[test]
    fn texts_are_counted_only() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
        let groups = Groups { of_row: vec![0, 0, 1], count: 2 };
        assert!(aggregated("sum", &texts, &groups).unwrap().is_none());
        let (_, counts) = aggregated("count_distinct", &texts, &groups).unwrap().unwrap();
        assert_eq!(counts.as_primitive::<Int64Type>().values(), &[2, 1]);
    }
}
