//! What can be computed of the rows of an entity key: Feast's aggregations, for one span of time.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn;
use datafusion::logical_expr::{Expr, ExprFunctionExt, ident, lit, when};
use datafusion::prelude::DataFrame;
use feast_core::{Aggregation, Error, FeatureView, FeatureViewKind, Result, Timestamp, list_names};

use super::computed::failed;

/// A function of the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Sum,
    Max,
    Min,
    Count,
    Mean,
    CountDistinct,
    /// Of a sample: null for a single value.
    Std,
}

impl Function {
    /// By the name in an aggregation; `avg` is another word for `mean`.
    const NAMES: [(&str, Self); 8] = [
        ("sum", Self::Sum),
        ("max", Self::Max),
        ("min", Self::Min),
        ("count", Self::Count),
        ("mean", Self::Mean),
        ("avg", Self::Mean),
        ("count_distinct", Self::CountDistinct),
        ("std", Self::Std),
    ];

    pub(super) fn of(view: &FeatureView, aggregation: &Aggregation) -> Result<Self> {
        let name = aggregation.function.as_str();
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, function)| *function).ok_or_else(|| {
            Error::invalid_definition(format!(
                "feature view `{}` aggregates by `{name}`, which is not known",
                view.name
            ))
            .with_hint(format!("known functions are {}", list_names(Self::NAMES.map(|(name, _)| name))))
        })
    }

    fn over(self, value: Expr) -> Expr {
        match self {
            Self::Sum => expr_fn::sum(value),
            Self::Max => expr_fn::max(value),
            Self::Min => expr_fn::min(value),
            Self::Count => expr_fn::count(value),
            Self::Mean => expr_fn::avg(value),
            Self::CountDistinct => expr_fn::count_distinct(value),
            Self::Std => expr_fn::stddev(value),
        }
    }

    /// The number beyond all finite ones that DataFusion does not find where there is nothing else: its least number of a
    /// group begins with the greatest finite one, and its greatest with the least.
    fn overlooked(self, column: &DataType) -> Option<ScalarValue> {
        let infinity = match self {
            Self::Min => f64::INFINITY,
            Self::Max => f64::NEG_INFINITY,
            _ => return None,
        };
        match column {
            DataType::Float64 => Some(ScalarValue::Float64(Some(infinity))),
            DataType::Float32 => Some(ScalarValue::Float32(Some(infinity as f32))),
            _ => None,
        }
    }

    /// Type of the answer for a column of this type; `None` where there is none.
    pub(super) fn output_type(self, column: &DataType) -> Option<DataType> {
        let is_whole = column.is_integer() || *column == DataType::Boolean;
        match self {
            Self::Count | Self::CountDistinct => Some(DataType::Int64),
            Self::Max | Self::Min => Some(column.clone()),
            Self::Sum if is_whole => Some(DataType::Int64),
            Self::Sum | Self::Mean | Self::Std => (is_whole || column.is_numeric()).then_some(DataType::Float64),
        }
    }
}

/// The aggregations of a view.
pub(super) fn aggregations(view: &FeatureView) -> &[Aggregation] {
    match &view.kind {
        FeatureViewKind::Batch(batch) => &batch.aggregations,
        FeatureViewKind::Stream(stream) => &stream.aggregations,
        FeatureViewKind::OnDemand(_) | FeatureViewKind::Label(_) => &[],
    }
}

/// A column of the rows that a view aggregates.
pub(super) fn column(view: &FeatureView, frame: &DataFrame, name: &str) -> Result<Expr> {
    let schema = frame.schema().as_arrow();
    match schema.index_of(name) {
        Ok(_) => Ok(ident(name)),
        Err(_) => Err(Error::invalid_definition(format!(
            "feature view `{}` aggregates column `{name}`, which its rows do not have",
            view.name
        ))
        .with_hint(format!("they have {}", list_names(schema.fields().iter().map(|field| field.name().as_str()))))),
    }
}

/// One row per entity key. A time window ends where the run does, both ends included; without one, the rows of the run
/// count. The row is of the time of the newest row that it counts.
pub(super) fn aggregated(
    view: &FeatureView,
    frame: DataFrame,
    event: &str,
    (start, end): (Timestamp, Timestamp),
) -> Result<DataFrame> {
    let column = |name: &str| column(view, &frame, name);
    let keys = view.entity_columns.iter().map(|key| column(&key.name)).collect::<Result<Vec<_>>>()?;
    let time = column(event)?;
    let mut aggregates = vec![expr_fn::max(time.clone()).alias(event)];
    let mut features: Vec<Expr> = keys.iter().cloned().chain([ident(event)]).collect();
    for aggregation in aggregations(view) {
        let function = Function::of(view, aggregation)?;
        let value = function.over(column(&aggregation.column)?);
        let first = aggregation.time_window.and_then(|window| end.checked_sub_signed(window)).unwrap_or(start);
        let first = ScalarValue::TimestampMicrosecond(Some(first.timestamp_micros()), Some(Arc::from("UTC")));
        let inside = time.clone().gt_eq(lit(first));
        let name = aggregation.feature_name();
        let mut feature = ident(&name);
        let data_type = frame.schema().as_arrow().field_with_name(&aggregation.column).map(|field| field.data_type());
        if let Some(infinity) = data_type.ok().and_then(|data_type| function.overlooked(data_type)) {
            let (some, others) = (format!("{name}__some"), format!("{name}__others"));
            let column = column(&aggregation.column)?;
            let count = |which: Expr| expr_fn::count(column.clone()).filter(which).build();
            let is_other = column.clone().not_eq(lit(infinity.clone()));
            let counts = [(&some, count(inside.clone())), (&others, count(inside.clone().and(is_other)))];
            for (name, count) in counts {
                aggregates.push(count.map_err(|error| failed(view, error))?.alias(name));
            }
            let only_infinite = ident(&some).gt(lit(0_i64)).and(ident(&others).eq(lit(0_i64)));
            let known = when(only_infinite, lit(infinity)).otherwise(feature);
            feature = known.map_err(|error| failed(view, error))?.alias(&name);
        }
        features.push(feature);
        // A filter makes DataFusion forget that only different values count.
        let value = match function {
            Function::CountDistinct => value.filter(inside).distinct().build(),
            _ => value.filter(inside).build(),
        };
        aggregates.push(value.map_err(|error| failed(view, error))?.alias(name));
    }
    let aggregated = frame.aggregate(keys, aggregates).and_then(|aggregated| aggregated.select(features));
    aggregated.map_err(|error| failed(view, error))
}
