//! On-demand views: what their functions are given, and what has to come back.
//!
//! Online and offline build the input with the same code from the same plan, so that a function cannot tell where it
//! runs. It sees what the view declares as its sources and nothing else of the request.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use feast_core::{
    DataSourceOptions, Error, ErrorCode, Field, OnDemandSource, PlannedJoinKey, PlannedOnDemandView, PlannedView,
    Result, RetrievalPlan, ValueType,
};

use crate::aggregates::aggregates;
use crate::coerce_column;
use crate::write::marked_batch;

/// The input of one on-demand view: its source features under their full and their short names, its request data, the
/// join keys of its sources, and its aggregations. A short name that two sources have is left out, since nobody could say
/// which is meant.
///
/// `stored` are the columns of the views of the plan, in the declared types; `request_columns` and `entity_columns`
/// those of the caller. `moments` are the times of the rows, which are aggregated apart; without them, all are of one.
///
/// # Errors
/// `InvalidRequest` for values that do not fit; `InvalidDefinition` for aggregations that these inputs do not have.
pub fn on_demand_input(
    plan: &RetrievalPlan,
    view: &PlannedOnDemandView,
    stored: &[Vec<ArrayRef>],
    request_columns: &[(&Field, ArrayRef)],
    entity_columns: &[(&PlannedJoinKey, ArrayRef)],
    moments: Option<&ArrayRef>,
    n_rows: usize,
) -> Result<RecordBatch> {
    let mut input = Input::default();
    let sources = || view.view.on_demand().into_iter().flat_map(|on_demand| on_demand.sources.values());
    let mut short: Vec<(&str, ValueType, &ArrayRef)> = Vec::new();
    let mut ambiguous: Vec<&str> = Vec::new();
    let mut keys: Vec<&PlannedJoinKey> = Vec::new();
    for source in sources() {
        let Some((planned, values)) = planned_source(plan, stored, source) else { continue };
        keys.extend(&planned.join_keys);
        let declared = features_of(source);
        let wanted = |name: &str| declared.is_empty() || declared.iter().any(|field| field.name == name);
        for (feature, values) in planned.features.iter().zip(values).filter(|(feature, _)| wanted(&feature.field.name))
        {
            let (name, value_type) = (feature.field.name.as_str(), feature.field.value_type);
            input.push(&format!("{}__{name}", planned.name), value_type, values);
            if planned.name != planned.view.name {
                input.push(&format!("{}__{name}", planned.view.name), value_type, values);
            }
            match short.iter().any(|(known, ..)| *known == name) {
                true => ambiguous.push(name),
                false => short.push((name, value_type, values)),
            }
        }
    }
    for (name, value_type, values) in short.into_iter().filter(|(name, ..)| !ambiguous.contains(name)) {
        input.push(name, value_type, values);
    }
    for field in sources().flat_map(request_fields) {
        let Some((known, values)) = request_columns.iter().find(|(known, _)| known.name == field.name) else {
            continue;
        };
        match known.value_type == field.value_type {
            true => input.push(&field.name, field.value_type, values),
            false => {
                let values = coerce_column(values, field.value_type, &field.name)?;
                input.push(&field.name, field.value_type, &values);
            }
        }
    }
    for (key, values) in entity_columns.iter().filter(|(key, _)| keys.iter().any(|own| own.column == key.column)) {
        input.push(&key.column, key.value_type, values);
    }
    let aggregations = view.view.on_demand().map(|on_demand| on_demand.aggregations.as_slice()).unwrap_or_default();
    if !aggregations.is_empty() {
        let find = |name: &str| {
            let position = input.fields.iter().position(|field| field.name == name)?;
            Some(&input.columns[position])
        };
        for (name, value_type, values) in aggregates(&view.view, aggregations, &find, moments, n_rows)? {
            input.push(&name, value_type, &values);
        }
    }
    marked_batch(&input.fields, input.columns, n_rows)
}

/// Columns with distinct names: of several with one name the first counts.
#[derive(Default)]
struct Input {
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl Input {
    fn push(&mut self, name: &str, value_type: ValueType, values: &ArrayRef) {
        if !self.fields.iter().any(|known| known.name == name) {
            self.fields.push(Field::new(name, value_type));
            self.columns.push(Arc::clone(values));
        }
    }
}

/// The stored view that is a source, with its columns.
fn planned_source<'a>(
    plan: &'a RetrievalPlan,
    stored: &'a [Vec<ArrayRef>],
    source: &OnDemandSource,
) -> Option<(&'a PlannedView, &'a Vec<ArrayRef>)> {
    let (name, view, version) = match source {
        OnDemandSource::FeatureView(view) => (view.name.as_str(), view.name.as_str(), None),
        OnDemandSource::Projection(projection) => (
            projection.name_to_use(),
            projection.feature_view_name.as_str(),
            projection.version_tag.filter(|_| projection.alias.is_empty()),
        ),
        OnDemandSource::Request(_) => return None,
    };
    let versioned = version.map(|version| format!("{name}@v{version}"));
    let name = versioned.as_deref().unwrap_or(name);
    plan.views.iter().zip(stored).find(|(planned, _)| planned.name == name && planned.view.name == view)
}

/// The features that a source declares to give; empty: all.
fn features_of(source: &OnDemandSource) -> &[Field] {
    match source {
        OnDemandSource::FeatureView(view) => &view.features,
        OnDemandSource::Projection(projection) => &projection.features,
        OnDemandSource::Request(_) => &[],
    }
}

fn request_fields(source: &OnDemandSource) -> &[Field] {
    match source {
        OnDemandSource::Request(request) => match &request.options {
            DataSourceOptions::Request { schema } => schema,
            _ => &[],
        },
        _ => &[],
    }
}

/// The features asked for, out of what a transformer returned.
///
/// # Errors
/// `TransformationFailed` when rows or columns are missing or values do not fit.
pub fn computed_columns(view: &PlannedOnDemandView, computed: &RecordBatch, n_rows: usize) -> Result<Vec<ArrayRef>> {
    let failed = |problem: String| {
        Error::new(ErrorCode::TransformationFailed, format!("on-demand feature view `{}` {problem}", view.view.name))
    };
    if computed.num_rows() != n_rows {
        return Err(failed(format!("returned {} rows for {n_rows}", computed.num_rows()))
            .with_hint("the function must return one row per input row, in order"));
    }
    let features = view.features.iter().map(|feature| {
        let column = computed.column_by_name(&feature.field.name).ok_or_else(|| {
            failed(format!("did not return `{}`", feature.field.name))
                .with_hint("the function must return every feature that the view declares")
        })?;
        if *column.data_type() == feature.field.value_type.arrow_type() {
            return Ok(Arc::clone(column));
        }
        coerce_column(column, feature.field.value_type, &feature.field.name).map_err(|error| {
            failed(format!("returned a wrong column: {error}")).with_hint_opt(error.hint().map(str::to_owned))
        })
    });
    features.collect()
}
