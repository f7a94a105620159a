//! The functions of on-demand views, run once on a made-up row before they are applied: what they return completes
//! the schema, or has to agree with it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Field as ArrowField;
use chrono::Utc;
use feast_core::{
    ErrorCode, FeatureView, Field, Problem, ProjectContents, RegistryObject, Result, Transformer, ValueType,
    did_you_mean, infer_projections, list_names,
};
use feast_online::{check_aggregations, on_demand_input};
use feast_proto::value_codec::json_to_value;

use crate::on_demand::computing_plan;

/// Stands for the features of a view while it is tried.
const PLACEHOLDER: &str = "__placeholder__";

/// Tries the on-demand views that are new or changed.
pub(crate) async fn try_on_demand_views(
    desired: &mut ProjectContents,
    staying: Option<&ProjectContents>,
    transformer: &dyn Transformer,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut completed = false;
    let views: Vec<Arc<FeatureView>> = desired.feature_views.values().cloned().collect();
    for view in views {
        let Some(on_demand) = view.on_demand() else { continue };
        if let Some(problem) = check_aggregations(&view) {
            problems.push(problem);
            continue;
        }
        let has_function = on_demand.transformation.is_some() || on_demand.user_defined_function.is_some();
        if !has_function && on_demand.aggregations.is_empty() {
            continue;
        }
        let known = staying.and_then(|staying| staying.feature_views.get(&view.name));
        if known.is_some_and(|known| same_computation(known, &view)) {
            continue;
        }
        // What its sources lack is reported where they are checked.
        let sample = match sample(desired, staying, &view) {
            Ok(sample) => sample,
            Err(error) if !on_demand.aggregations.is_empty() => {
                let mut problem = Problem::new(view.reference(), format!("cannot be aggregated: {error}"));
                if let Some(hint) = error.hint() {
                    problem = problem.with_hint(hint);
                }
                problems.push(problem);
                continue;
            }
            Err(_) => continue,
        };
        let inputs: Vec<String> = sample.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
        match transformer.infer(&view, sample).await {
            // What cannot be computed here may still be defined and listed, if it says what it computes.
            Err(error) if error.code() == ErrorCode::Unsupported && !view.features.is_empty() => {}
            Err(error) => problems.push(
                Problem::new(view.reference(), format!("cannot be computed for a made-up row: {error}")).with_hint(
                    error.hint().map_or_else(
                        || format!("its inputs are {}", list_names(inputs.iter().map(String::as_str))),
                        str::to_owned,
                    ),
                ),
            ),
            Ok(returned) if view.features.is_empty() => {
                let mut complete = FeatureView::clone(&view);
                complete.features = returned;
                desired.put(RegistryObject::FeatureView(Arc::new(complete)));
                completed = true;
            }
            Ok(returned) => {
                problems.extend(view.features.iter().filter_map(|declared| differs(&view, declared, &returned)))
            }
        }
    }
    if completed {
        infer_projections(desired, staying);
    }
    problems
}

/// Whether a registered view computes the same from the same sources, so that it was tried before.
fn same_computation(known: &FeatureView, view: &FeatureView) -> bool {
    known.features == view.features && serde_json::to_value(&known.kind).ok() == serde_json::to_value(&view.kind).ok()
}

/// One row of made-up values for every input of a view.
fn sample(
    desired: &ProjectContents,
    staying: Option<&ProjectContents>,
    view: &FeatureView,
) -> Result<arrow::array::RecordBatch> {
    let mut contents = staying.cloned().unwrap_or_default();
    contents.feature_views.extend(desired.feature_views.clone());
    contents.entities.extend(desired.entities.clone());
    let mut tried = FeatureView::clone(view);
    // One is enough, and a view without schema has none yet.
    tried.features = vec![Field::new(PLACEHOLDER, ValueType::Double)];
    let plan = computing_plan(&contents, &tried)?;
    let stored = plan.views.iter().map(|view| view.features.iter().map(|f| value_of(f.field.value_type)).collect());
    let stored: Vec<Vec<ArrayRef>> = stored.collect();
    let request: Vec<_> = plan.request_fields.iter().map(|field| (field, value_of(field.value_type))).collect();
    let keys: Vec<_> = plan.join_keys.iter().map(|key| (key, value_of(key.value_type))).collect();
    on_demand_input(&plan, &plan.on_demand[0], &stored, &request, &keys, None, 1)
}

/// A column of one made-up value.
fn value_of(value_type: ValueType) -> ArrayRef {
    use ValueType as T;
    match value_type {
        T::Bytes => Arc::new(BinaryArray::from(vec![b"hello world".as_slice()])),
        T::String => Arc::new(StringArray::from(vec!["hello world"])),
        T::Json => Arc::new(StringArray::from(vec![r#"{"key": "value"}"#])),
        T::Uuid | T::TimeUuid => Arc::new(StringArray::from(vec!["6f2c9b0e-54a5-11f0-9c3e-0242ac120002"])),
        T::Decimal => Arc::new(StringArray::from(vec!["1.0"])),
        T::Int32 => Arc::new(Int32Array::from(vec![1])),
        T::Int64 => Arc::new(Int64Array::from(vec![1])),
        T::Double => Arc::new(Float64Array::from(vec![1.0])),
        T::Float => Arc::new(Float32Array::from(vec![1.0])),
        T::Bool => Arc::new(BooleanArray::from(vec![true])),
        T::UnixTimestamp => {
            Arc::new(TimestampMicrosecondArray::from(vec![Utc::now().timestamp_micros()]).with_timezone("UTC"))
        }
        other => match other.item() {
            Some(item) => {
                let field = Arc::new(ArrowField::new("item", item.arrow_type(), true));
                Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([1]), value_of(item), None))
            }
            None => {
                let json = match other {
                    T::Map | T::Struct => serde_json::json!({"key": "value"}),
                    T::MapList | T::StructList => serde_json::json!([{"key": "value"}]),
                    T::ZonedTimestamp => serde_json::json!("2026-01-01T00:00:00Z"),
                    _ => serde_json::Value::Null,
                };
                match json_to_value(&json, other) {
                    Ok(cell) if !cell.is_empty() => Arc::new(BinaryArray::from(vec![cell.as_slice()])),
                    _ => new_null_array(&other.arrow_type(), 1),
                }
            }
        },
    }
}

/// What is wrong with a declared feature, given what the function returned.
fn differs(view: &FeatureView, declared: &Field, returned: &[Field]) -> Option<Problem> {
    let problem = |text: String| Problem::new(view.reference(), text);
    let full = format!("{}__{}", view.name, declared.name);
    let Some(found) = returned.iter().find(|field| field.name == declared.name || field.name == full) else {
        let names = || returned.iter().map(|field| field.name.as_str());
        let returned = if returned.is_empty() { "nothing".to_owned() } else { list_names(names()) };
        return Some(
            problem(format!("declares feature `{}`, but its function returns {returned}", declared.name))
                .with_hint_opt(did_you_mean(&declared.name, names()))
                .with_hint_opt(
                    did_you_mean(&declared.name, names())
                        .is_none()
                        .then(|| "return the feature, or remove it from the schema".to_owned()),
                ),
        );
    };
    (!becomes(found.value_type, declared.value_type)).then(|| {
        problem(format!(
            "declares feature `{}` as {}, but its function returns {}",
            declared.name, declared.value_type, found.value_type
        ))
        .with_hint("declare the type that the function returns, or return the declared one")
    })
}

/// Whether values of one type can become another without a loss that a made-up row would not show.
fn becomes(returned: ValueType, declared: ValueType) -> bool {
    use ValueType as T;
    let integer = |value_type| matches!(value_type, T::Int32 | T::Int64);
    let number = |value_type| integer(value_type) || matches!(value_type, T::Float | T::Double);
    match (returned, declared) {
        (same, other) if same == other => true,
        // A missing value, or what Python cannot tell.
        (T::Null | T::Invalid, _) => true,
        (from, to) if integer(from) && number(to) => true,
        (T::Float | T::Double, T::Float | T::Double) => true,
        (T::String, T::Json | T::Uuid | T::TimeUuid | T::Decimal | T::ZonedTimestamp | T::UnixTimestamp) => true,
        (T::Uuid, T::TimeUuid | T::String) | (T::UnixTimestamp, T::ZonedTimestamp) => true,
        (T::Bytes, to) | (_, to) if to.is_opaque() => true,
        (T::Map | T::Struct, T::Json) => true,
        // Items are looked at when there are some; an array by its name, as in Feast.
        (from, to) => from.item().is_some() && to.item().is_some() || from == T::ValueList && to.item().is_some(),
    }
}
