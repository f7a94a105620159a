//! Aggregates as functions of time: rows that each hold from their time on, until the next row of the same key.
//!
//! At any instant the row that holds is what [`aggregated`](super::aggregates::aggregated) makes of a run that ends
//! then. The value changes where a row comes in and where one leaves a window, so a key with `n` rows has at most `n`
//! steps per window and as many again; each row enters and leaves once, whatever the length of the windows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array,
    make_comparator,
};
use arrow::compute::{SortOptions, cast, concat_batches, partition, take};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{Row, RowConverter, SortField};
use datafusion::logical_expr::cast as cast_expr;
use datafusion::prelude::DataFrame;
use feast_core::{Error, FeatureView, Result, timestamp_type};
use futures::{StreamExt, stream};

use super::aggregates::{Function, aggregations, column};
use super::computed::{failed, stream_of};
use crate::BatchStream;

/// The steps of the aggregates of `view` over its rows, from the one that holds at the first of two instants to the
/// last one that begins by the second.
///
/// Columns: the join keys, `event`, and a feature per aggregation. A row that is past the ttl of the view is a step to
/// nulls. Memory is that of the rows of one key, and of a batch.
pub(super) async fn steps(
    view: &FeatureView,
    frame: DataFrame,
    event: &str,
    between: (i64, i64),
) -> Result<BatchStream> {
    let n_keys = view.entity_columns.len();
    let named = |name: &str| column(view, &frame, name);
    let mut deciding = view.entity_columns.iter().map(|key| named(&key.name)).collect::<Result<Vec<_>>>()?;
    deciding.push(cast_expr(named(event)?, timestamp_type()));
    let mut columns = deciding.clone();
    columns[n_keys] = columns[n_keys].clone().alias(event);
    for (index, aggregation) in aggregations(view).iter().enumerate() {
        // A column may be counted several times, and may be a key.
        columns.push(named(&aggregation.column)?.alias(format!("__value_{index}")));
    }
    let order = deciding.iter().map(|column| column.clone().sort(true, false)).collect();
    let sorted = deciding
        .into_iter()
        .try_fold(frame, |frame, column| frame.filter(column.is_not_null()))
        .and_then(|frame| frame.sort(order))
        .and_then(|frame| frame.select(columns));
    let rows = stream_of(view, sorted.map_err(|error| failed(view, error))?).await?;
    let shape = Arc::new(Shape::new(view, rows.schema(), event, between)?);
    let schema = Arc::clone(&shape.schema);
    let rows = rows.map(Some).chain(stream::once(async { None }));
    // The rows of the last key may go on in the next batch.
    let steps = rows.scan(Vec::new(), move |open: &mut Vec<RecordBatch>, batch| {
        let step = batch.transpose().and_then(|batch| shape.advance(open, batch));
        async move { Some(step) }
    });
    Ok(BatchStream::new(schema, steps))
}

/// One aggregation, as it is computed here.
struct Aggregate {
    function: Function,
    /// Position among the limits.
    limit: usize,
}

/// What is made of the sorted rows.
struct Shape {
    n_keys: usize,
    schema: SchemaRef,
    aggregates: Vec<Aggregate>,
    /// How far the windows reach back, each once; `i64::MAX` without end.
    limits: Vec<i64>,
    ttl: Option<i64>,
    between: (i64, i64),
}

impl Shape {
    fn new(view: &FeatureView, rows: &SchemaRef, event: &str, between: (i64, i64)) -> Result<Self> {
        let n_keys = view.entity_columns.len();
        let ttl = view.time_to_live().micros();
        let mut fields: Vec<Field> = rows.fields()[..n_keys].iter().map(|field| field.as_ref().clone()).collect();
        fields.push(Field::new(event, timestamp_type(), false));
        let (mut aggregates, mut limits) = (Vec::new(), Vec::new());
        for (aggregation, value) in aggregations(view).iter().zip(&rows.fields()[n_keys + 1..]) {
            let function = Function::of(view, aggregation)?;
            let output = function.output_type(value.data_type()).ok_or_else(|| {
                Error::invalid_definition(format!(
                    "feature view `{}` takes the {} of column `{}`, which is {}",
                    view.name,
                    aggregation.function,
                    aggregation.column,
                    value.data_type()
                ))
                .with_hint("name a column of numbers")
            })?;
            fields.push(Field::new(aggregation.feature_name(), output, true));
            let window = aggregation.time_window.and_then(|window| window.num_microseconds());
            let limit = window.or(ttl).unwrap_or(i64::MAX);
            let position = limits.iter().position(|known| *known == limit).unwrap_or_else(|| {
                limits.push(limit);
                limits.len() - 1
            });
            aggregates.push(Aggregate { function, limit: position });
        }
        Ok(Self { n_keys, schema: Arc::new(Schema::new(fields)), aggregates, limits, ttl, between })
    }

    /// Takes in a batch, or the end; gives the steps of the keys that are complete then.
    fn advance(&self, open: &mut Vec<RecordBatch>, batch: Option<RecordBatch>) -> Result<RecordBatch> {
        let none = || Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        let Some(batch) = batch else {
            return match std::mem::take(open).as_slice() {
                [] => none(),
                rows => self.steps(&concat_batches(rows[0].schema_ref(), rows)?),
            };
        };
        if batch.num_rows() == 0 {
            return none();
        }
        let last_key = self.keys(&batch)?.pop().map_or(0, |rows| rows.start);
        let goes_on = match open.last() {
            Some(before) if last_key == 0 => {
                let border = [before.slice(before.num_rows() - 1, 1), batch.slice(0, 1)];
                self.keys(&concat_batches(batch.schema_ref(), &border)?)?.len() == 1
            }
            _ => false,
        };
        if goes_on {
            open.push(batch);
            return none();
        }
        let mut complete = std::mem::take(open);
        complete.push(batch.slice(0, last_key));
        open.push(batch.slice(last_key, batch.num_rows() - last_key));
        self.steps(&concat_batches(batch.schema_ref(), &complete)?)
    }

    /// The rows of each key.
    fn keys(&self, rows: &RecordBatch) -> Result<Vec<Range<usize>>> {
        Ok(match self.n_keys {
            0 => std::iter::once(0..rows.num_rows()).collect(),
            n_keys => partition(&rows.columns()[..n_keys])?.ranges(),
        })
    }

    /// The steps of keys that are complete.
    fn steps(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let times = rows.column(self.n_keys).as_primitive::<TimestampMicrosecondType>().values();
        let mut steps = Steps { times: Vec::new(), keys: Vec::new(), live: Vec::new(), windows: Vec::new() };
        steps.windows.resize_with(self.limits.len(), Vec::new);
        for key in self.keys(rows)?.into_iter().filter(|key| !key.is_empty()) {
            self.add_steps(&mut steps, times, key);
        }
        let keys = UInt32Array::from(steps.keys);
        let mut columns: Vec<ArrayRef> =
            rows.columns()[..self.n_keys].iter().map(|key| take(key, &keys, None)).collect::<Result<_, _>>()?;
        columns.push(Arc::new(TimestampMicrosecondArray::from(steps.times).with_timezone("UTC")));
        for (index, aggregate) in self.aggregates.iter().enumerate() {
            let column = rows.column(self.n_keys + 1 + index);
            columns.push(value(aggregate.function, column, &steps.windows[aggregate.limit], &steps.live)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Finds where the values of a key change, and which of its rows count there.
    fn add_steps(&self, steps: &mut Steps, times: &[i64], key: Range<usize>) {
        let (first, last) = self.between;
        let reaches = self.limits.iter().chain(&self.ttl).filter(|limit| **limit < i64::MAX);
        let leaves = reaches
            .flat_map(|limit| times[key.clone()].iter().map(|time| time.saturating_add(*limit).saturating_add(1)));
        let mut changes: Vec<i64> = times[key.clone()].iter().copied().chain(leaves).collect();
        changes.retain(|change| *change <= last);
        changes.sort_unstable();
        changes.dedup();
        // What ends before anybody asks is left out.
        let unseen = changes.partition_point(|change| *change <= first).saturating_sub(1);
        let mut end = key.start;
        let mut starts = vec![key.start; self.limits.len()];
        for change in changes.drain(unseen..) {
            end += times[end..key.end].partition_point(|time| *time <= change);
            steps.times.push(change);
            steps.keys.push(key.start as u32);
            steps.live.push(self.ttl.is_none_or(|ttl| times[end - 1] >= change.saturating_sub(ttl)));
            for ((limit, start), windows) in self.limits.iter().zip(&mut starts).zip(&mut steps.windows) {
                *start += times[*start..end].partition_point(|time| *time < change.saturating_sub(*limit));
                windows.push(*start..end);
            }
        }
    }
}

/// Steps of several keys, in the order of the keys and of time.
struct Steps {
    times: Vec<i64>,
    /// A row of the key.
    keys: Vec<u32>,
    /// Whether the newest row is within the ttl.
    live: Vec<bool>,
    /// By limit, the rows that count. Neither end ever goes back.
    windows: Vec<Vec<Range<usize>>>,
}

/// The values of an aggregate, null where there are none and where the key is not live.
fn value(function: Function, column: &ArrayRef, windows: &[Range<usize>], live: &[bool]) -> Result<ArrayRef> {
    let valid = |row: usize| column.is_valid(row);
    let whole = |counts: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(counts.into_iter().zip(live).map(|(count, live)| count.filter(|_| *live))))
    };
    let broken = |numbers: Vec<Option<f64>>| -> ArrayRef {
        Arc::new(Float64Array::from_iter(numbers.into_iter().zip(live).map(|(number, live)| number.filter(|_| *live))))
    };
    let numbers =
        || -> Result<Float64Array> { Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone()) };
    Ok(match function {
        Function::Count => {
            let counts = slide(windows, |row| valid(row).then_some(1), |a, b| a + b);
            whole(counts.into_iter().map(|count| Some(count.unwrap_or(0))).collect())
        }
        Function::CountDistinct => whole(distinct(column, windows)?),
        Function::Sum if function.output_type(column.data_type()) == Some(DataType::Int64) => {
            let numbers = cast(column, &DataType::Int64)?;
            let numbers = numbers.as_primitive::<Int64Type>();
            whole(slide(windows, |row| valid(row).then(|| numbers.value(row)), i64::wrapping_add))
        }
        Function::Sum => {
            let numbers = numbers()?;
            broken(slide(windows, |row| valid(row).then(|| numbers.value(row)), |a, b| a + b))
        }
        Function::Mean | Function::Std => {
            let numbers = numbers()?;
            let moments = slide(windows, |row| valid(row).then(|| Moments::of(numbers.value(row))), Moments::merge);
            let told = if function == Function::Mean { Moments::mean } else { Moments::deviation };
            broken(moments.into_iter().map(|moments| moments.and_then(told)).collect())
        }
        Function::Min | Function::Max => {
            let compare = make_comparator(column, column, SortOptions::default())?;
            let better = |a: u32, b: u32| {
                let order = compare(a as usize, b as usize);
                let keeps = if function == Function::Min { order.is_le() } else { order.is_ge() };
                if keeps { a } else { b }
            };
            let rows = slide(windows, |row| valid(row).then_some(row as u32), better);
            let rows = rows.into_iter().zip(live).map(|(row, live)| row.filter(|_| *live));
            take(column, &UInt32Array::from_iter(rows), None)?
        }
    })
}

/// Number, sum, mean and squared distances from the mean of some values.
#[derive(Clone, Copy)]
struct Moments {
    n: f64,
    sum: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(value: f64) -> Self {
        Self { n: 1.0, sum: value, mean: value, squares: 0.0 }
    }

    /// Those of both together (Chan, Golub and LeVeque 1979).
    fn merge(self, other: Self) -> Self {
        let n = self.n + other.n;
        let distance = other.mean - self.mean;
        Self {
            n,
            sum: self.sum + other.sum,
            mean: self.mean + distance * other.n / n,
            squares: self.squares + other.squares + distance * distance * self.n * other.n / n,
        }
    }

    fn mean(self) -> Option<f64> {
        Some(self.sum / self.n)
    }

    fn deviation(self) -> Option<f64> {
        // Nothing has a distance from an infinite mean.
        let deviation = if self.mean.is_finite() { (self.squares / (self.n - 1.0)).sqrt() } else { f64::NAN };
        Some(deviation).filter(|_| self.n > 1.0)
    }
}

/// Folds the values in windows whose ends never go back. Nothing is ever subtracted: a value that has left, infinite or
/// not a number, leaves no trace. Each value is merged a few times in all (a queue of two stacks).
fn slide<S: Copy>(
    windows: &[Range<usize>],
    value: impl Fn(usize) -> Option<S>,
    merge: impl Fn(S, S) -> S,
) -> Vec<Option<S>> {
    let merged = |a: Option<S>, b: Option<S>| match (a, b) {
        (Some(a), Some(b)) => Some(merge(a, b)),
        (a, b) => a.or(b),
    };
    // The fold of `front[i]` is that of `offset + i..middle`, that of `back` is of `middle..end`.
    let (mut front, mut offset, mut middle, mut end) = (Vec::new(), 0, 0, 0);
    let mut back = None;
    windows
        .iter()
        .map(|window| {
            if window.start >= middle {
                let mut fold = None;
                front = window
                    .clone()
                    .rev()
                    .map(|row| {
                        fold = merged(value(row), fold);
                        fold
                    })
                    .collect();
                front.reverse();
                (offset, middle, end, back) = (window.start, window.end, window.end, None);
            }
            while end < window.end {
                back = merged(back, value(end));
                end += 1;
            }
            merged(front.get(window.start - offset).copied().flatten(), back)
        })
        .collect()
}

/// How many different values there are in windows whose ends never go back.
fn distinct(column: &ArrayRef, windows: &[Range<usize>]) -> Result<Vec<Option<i64>>> {
    let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
    let values = converter.convert_columns(std::slice::from_ref(column))?;
    let mut counts: HashMap<Row<'_>, usize> = HashMap::new();
    let (mut start, mut end) = (0, 0);
    let mut found = Vec::with_capacity(windows.len());
    for window in windows {
        while end < window.end {
            if column.is_valid(end) {
                *counts.entry(values.row(end)).or_default() += 1;
            }
            end += 1;
        }
        while start < window.start {
            if column.is_valid(start)
                && let Entry::Occupied(mut count) = counts.entry(values.row(start))
            {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            start += 1;
        }
        found.push(Some(counts.len() as i64));
    }
    Ok(found)
}
