//! On-demand views whose results are stored: computed from the rows that are written, or from the history of their
//! sources.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, new_empty_array};
use arrow::datatypes::{Field as ArrowField, Schema};
use arrow::row::{RowConverter, SortField};
use chrono::Utc;
use feast_core::{
    EntityKeyEncoder, Error, ErrorCode, FeatureSelection, FeatureView, FeatureViewKind, Field, OnDemandFeatures,
    OnlineTable, PlannedOnDemandView, ProjectContents, RegistryObject, Result, RetrievalPlan, TimeToLive, Timestamp,
    Transformer, list_names, timestamp_type,
};
use feast_offline::{EVENT_TIMESTAMP_COLUMN, EntitySource, HistoricalRequest, LatestRequest};
use feast_online::{OwnedWrite, coerce_column, computed_columns, on_demand_input, online_rows};
use futures::{StreamExt, TryStreamExt};

use crate::FeatureStore;
use crate::get_historical_features::OnDemandSteps;
use crate::materialize::with_known_inputs;
use crate::transformations::needs_python;

/// Column of the entity rows that carries the time under which a computed row is stored.
const STORED_TIME: &str = "__stored_time";

/// A plan that computes all features of an on-demand view, also of one whose features are stored.
///
/// # Errors
/// Sources that do not exist.
pub(crate) fn computing_plan(contents: &ProjectContents, view: &FeatureView) -> Result<RetrievalPlan> {
    let mut contents = contents.clone();
    let mut computed = FeatureView::clone(view);
    computed.disabled = false;
    if let FeatureViewKind::OnDemand(on_demand) = &mut computed.kind {
        on_demand.write_to_online_store = false;
    }
    let references = computed.features.iter().map(|feature| format!("{}:{}", view.name, feature.name)).collect();
    contents.put(RegistryObject::FeatureView(Arc::new(computed)));
    RetrievalPlan::resolve(&contents, &FeatureSelection::References(references), false)
}

/// The same objects with every on-demand view computed when it is read, as training data has them.
pub(crate) fn computed_on_read(contents: &ProjectContents) -> ProjectContents {
    let mut contents = contents.clone();
    for view in contents.feature_views.values_mut() {
        if view.on_demand().is_some_and(|on_demand| on_demand.write_to_online_store) {
            let mut computed = FeatureView::clone(view);
            if let FeatureViewKind::OnDemand(on_demand) = &mut computed.kind {
                on_demand.write_to_online_store = false;
            }
            *view = Arc::new(computed);
        }
    }
    contents
}

impl FeatureStore {
    /// Whether functions of on-demand views can be run.
    ///
    /// # Errors
    /// Why not, and what has to be done so that they can.
    pub async fn check_transformer(&self) -> Result<()> {
        self.transformer.check().await
    }

    /// Whether all on-demand views of a plan are known to be computed here, without a function being called.
    pub fn computes_quickly(&self, plan: &RetrievalPlan) -> bool {
        plan.on_demand.iter().all(|planned| self.transformer.is_quick(&planned.view))
    }

    /// The names of the on-demand views that need a function to be served.
    ///
    /// # Errors
    /// Those of reading the registry.
    pub async fn views_with_functions(&self) -> Result<Vec<String>> {
        let contents = self.contents(false).await?;
        let views = contents.feature_views.values().filter(|view| !view.disabled);
        let views = views.filter(|view| view.on_demand().is_some_and(|on_demand| !on_demand.write_to_online_store));
        let views = views.filter(|view| needs_python(view));
        Ok(views.map(|view| view.name.clone()).collect())
    }

    /// Runs the function of an on-demand view on rows that hold what it is computed from, source features under their
    /// full or their short names. Returns its features under their full names, of their declared types.
    ///
    /// # Errors
    /// `OnDemandFeatureViewNotFound`; missing columns, values that do not fit, and what the function does wrong.
    pub async fn transform(&self, view: &str, rows: &RecordBatch) -> Result<RecordBatch> {
        let snapshot = self.registry.snapshot_checked().await?;
        let contents = self.project_of(&snapshot)?;
        let view = contents.feature_view(view)?;
        if view.on_demand().is_none() {
            return Err(Error::invalid_request(format!("{} has no function to run", view.reference()))
                .with_hint("name an on-demand feature view"));
        }
        let plan = computing_plan(contents, view)?;
        let planned = &plan.on_demand[0];
        let input = input_of_rows(&plan, planned, rows, None, false)?;
        let computed = self.transformer.apply(&planned.view, input).await?;
        let columns = computed_columns(planned, &computed, rows.num_rows())?;
        let fields = planned.features.iter().map(|feature| {
            ArrowField::new(
                format!("{}__{}", view.name, feature.field.name),
                feature.field.value_type.arrow_type(),
                true,
            )
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }

    /// The rows to store for an on-demand view: its function runs on the rows given, unless they hold its features
    /// already. Their time is that of `times`, or now.
    ///
    /// # Errors
    /// Missing columns, values that do not fit, and what the function does wrong.
    pub(crate) async fn on_demand_rows(
        &self,
        contents: &ProjectContents,
        view: &FeatureView,
        rows: &RecordBatch,
        times: Option<ArrayRef>,
        transform: bool,
    ) -> Result<(OnlineTable, OwnedWrite)> {
        if !view.has_online_table() {
            return Err(Error::invalid_request(format!(
                "{} is not stored, but computed when it is read",
                view.reference()
            ))
            .with_hint("declare it with `write_to_online_store=True` and apply it"));
        }
        if view.is_entity_less() {
            check_keys(view, &computing_plan(contents, view)?)?;
        }
        let table = self.online_table(view);
        let encoder = EntityKeyEncoder::new(&table.join_keys, self.config.entity_key_serialization_version)?;
        let times = match times {
            Some(times) => times,
            None => {
                let now = vec![Utc::now().timestamp_micros(); rows.num_rows()];
                Arc::new(TimestampMicrosecondArray::from(now).with_timezone("UTC"))
            }
        };
        let moments = Arc::clone(&times);
        let mut columns: Vec<(&str, ArrayRef)> = vec![(STORED_TIME, times)];
        let given = |name: &str| rows.column_by_name(name).map(|column| (name.to_owned(), Arc::clone(column)));
        let keys: Vec<(String, ArrayRef)> = table.join_keys.iter().filter_map(|key| given(&key.name)).collect();
        columns.extend(keys.iter().map(|(name, column)| (name.as_str(), Arc::clone(column))));
        let features = if transform && rows.num_rows() > 0 {
            let plan = computing_plan(contents, view)?;
            let input = input_of_rows(&plan, &plan.on_demand[0], rows, Some(&moments), true)?;
            let computed = self.transformer.apply(&plan.on_demand[0].view, input).await?;
            let features = plan.on_demand[0].features.iter().map(|feature| feature.field.name.clone());
            features.zip(computed_columns(&plan.on_demand[0], &computed, rows.num_rows())?).collect()
        } else if transform {
            let none = |field: &Field| (field.name.clone(), new_empty_array(&field.value_type.arrow_type()));
            view.features.iter().map(none).collect()
        } else {
            view.features.iter().filter_map(|feature| given(&feature.name)).collect::<Vec<_>>()
        };
        columns.extend(features.iter().map(|(name, column)| (name.as_str(), Arc::clone(column))));
        let fields: Vec<ArrowField> =
            columns.iter().map(|(name, column)| ArrowField::new(*name, column.data_type().clone(), true)).collect();
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let write = online_rows(&table, &encoder, &batch, STORED_TIME, None)
            .map_err(|error| error.with_context("feature view", &view.name))?;
        Ok((table, write))
    }

    /// Computes the newest rows of an on-demand view from the history of its sources, and stores them.
    ///
    /// # Errors
    /// `Unsupported` for views that need a request, or whose sources have other join keys; what goes wrong while
    /// reading, computing or writing.
    pub(crate) async fn store_on_demand_view(
        &self,
        view: &FeatureView,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<u64> {
        let contents = self.contents(false).await?;
        let mut plan = computing_plan(&contents, view)?;
        check_keys(view, &plan)?;
        check_materializable(view, &plan)?;
        for source in &mut plan.views {
            source.view = with_known_inputs(&source.view, &contents);
            // The newest value counts, however old it is.
            source.ttl = TimeToLive::new(None);
        }
        let entity = self.newest_keys(&plan, start, end).await?;
        if entity.num_rows() == 0 {
            return Ok(0);
        }
        let transformer = Arc::clone(&self.transformer) as _;
        let plan = Arc::new(plan);
        let joined = self
            .local
            .historical(HistoricalRequest {
                plan: Arc::clone(&plan),
                entity: EntitySource::Batches(entity.schema(), vec![entity]),
                tables: contents.data_sources.values().cloned().collect(),
                filter_by_created_timestamp: false,
                as_of: None,
            })
            .await?;
        let computed = OnDemandSteps::new(plan, transformer, &joined)?.applied_to(joined)?;
        let online = self.online_store()?;
        let table = self.online_table(view);
        let encoder = EntityKeyEncoder::new(&table.join_keys, self.config.entity_key_serialization_version)?;
        let most = self.config.online_write_batch_size.unwrap_or_else(|| online.preferred_batch_rows()).max(1);
        let mut batches = computed.batches;
        let mut written = 0;
        while let Some(batch) = batches.try_next().await? {
            for start in (0..batch.num_rows()).step_by(most) {
                let chunk = batch.slice(start, most.min(batch.num_rows() - start));
                let write = online_rows(&table, &encoder, &chunk, STORED_TIME, None)?;
                online.write(write.as_write(&table)).await?;
                written += write.len() as u64;
            }
        }
        Ok(written)
    }

    /// Every key that a source has in the window, with the time of its newest row, as entity rows at the end of it.
    async fn newest_keys(&self, plan: &RetrievalPlan, start: Timestamp, end: Timestamp) -> Result<RecordBatch> {
        let sort_fields = plan.join_keys.iter().map(|key| SortField::new(key.value_type.arrow_type())).collect();
        let converter = RowConverter::new(sort_fields)?;
        let mut newest: HashMap<Box<[u8]>, i64> = HashMap::new();
        for source in &plan.views {
            let request = LatestRequest { view: Arc::clone(&source.view), start, end };
            let mut latest = self.local.latest(request).await?;
            while let Some(batch) = latest.next().await {
                let batch = batch?;
                let column = |name: &str| {
                    batch.column_by_name(name).ok_or_else(|| Error::internal(format!("column `{name}` is gone")))
                };
                let keys = plan.join_keys.iter().map(|key| {
                    let own = source.join_keys.iter().find(|own| own.column == key.column);
                    let name = own.map_or(key.column.as_str(), |own| own.key.as_str());
                    coerce_column(column(name)?, key.value_type, name)
                });
                let keys = converter.convert_columns(&keys.collect::<Result<Vec<_>>>()?)?;
                let times =
                    coerce_column(column(EVENT_TIMESTAMP_COLUMN)?, feast_core::ValueType::UnixTimestamp, "time")?;
                let times = times.as_any().downcast_ref::<TimestampMicrosecondArray>();
                let times = times.ok_or_else(|| Error::internal("event times are of another type"))?;
                for (key, time) in keys.iter().zip(times) {
                    let Some(time) = time else { continue };
                    let known = newest.entry(key.data().into()).or_insert(time);
                    *known = time.max(*known);
                }
            }
        }
        let (keys, times): (Vec<Box<[u8]>>, Vec<i64>) = newest.into_iter().unzip();
        let parser = converter.parser();
        let mut columns = converter.convert_rows(keys.iter().map(|key| parser.parse(key)))?;
        let mut fields: Vec<ArrowField> =
            plan.join_keys.iter().map(|key| ArrowField::new(&key.column, key.value_type.arrow_type(), true)).collect();
        let utc = |micros: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"));
        columns.push(utc(vec![end.timestamp_micros(); times.len()]));
        fields.push(ArrowField::new("event_timestamp", timestamp_type(), true));
        columns.push(utc(times));
        fields.push(ArrowField::new(STORED_TIME, timestamp_type(), true));
        let schema = Arc::new(Schema::new(fields));
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

/// Feast applies on-demand views that store their results under no entity: all would have one row.
fn check_keys(view: &FeatureView, plan: &RetrievalPlan) -> Result<()> {
    if !view.is_entity_less() || plan.join_keys.is_empty() {
        return Ok(());
    }
    let keys = list_names(plan.join_keys.iter().map(|key| key.column.as_str()));
    Err(Error::invalid_definition(format!(
        "{} stores its results under no entity, although its sources have the join keys {keys}",
        view.reference()
    ))
    .with_hint("apply it again, which gives it the entities of its sources, or name them with `entities=[...]`"))
}

/// The input of a view, out of rows that hold it under full or short names.
///
/// Without `all_keys`, join keys that are not there are left out: few functions look at them.
fn input_of_rows(
    plan: &RetrievalPlan,
    view: &PlannedOnDemandView,
    rows: &RecordBatch,
    moments: Option<&ArrayRef>,
    all_keys: bool,
) -> Result<RecordBatch> {
    let mut missing: Vec<String> = Vec::new();
    let mut stored: Vec<Vec<ArrayRef>> = Vec::with_capacity(plan.views.len());
    for source in &plan.views {
        let mut columns = Vec::with_capacity(source.features.len());
        for feature in &source.features {
            let name = &feature.field.name;
            let full = format!("{}__{name}", source.name);
            match rows.column_by_name(&full).or_else(|| rows.column_by_name(name)) {
                Some(column) => columns.push(coerce_column(column, feature.field.value_type, name)?),
                None => missing.push(name.clone()),
            }
        }
        stored.push(columns);
    }
    let mut request = Vec::with_capacity(plan.request_fields.len());
    for field in &plan.request_fields {
        match rows.column_by_name(&field.name) {
            Some(column) => request.push((field, coerce_column(column, field.value_type, &field.name)?)),
            None => missing.push(field.name.clone()),
        }
    }
    let mut keys = Vec::with_capacity(plan.join_keys.len());
    for key in &plan.join_keys {
        match rows.column_by_name(&key.column) {
            Some(column) => keys.push((key, coerce_column(column, key.value_type, &key.column)?)),
            None if all_keys => missing.push(key.column.clone()),
            None => {}
        }
    }
    if !missing.is_empty() {
        let given: Vec<&str> = rows.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        return Err(Error::new(
            ErrorCode::MissingColumns,
            format!(
                "the rows lack {}, which on-demand view `{}` is computed from",
                list_names(missing.iter().map(String::as_str)),
                view.name
            ),
        )
        .with_hint(format!("the columns given are {}", list_names(given))));
    }
    on_demand_input(plan, view, &stored, &request, &keys, moments, rows.num_rows())
}

/// Whether the rows of a view follow from the history of its sources alone.
pub(crate) fn follows_from_history(contents: &ProjectContents, view: &FeatureView) -> bool {
    computing_plan(contents, view).is_ok_and(|plan| check_materializable(view, &plan).is_ok())
}

/// Says why the rows of a view do not follow from the history of its sources alone.
fn check_materializable(view: &FeatureView, plan: &RetrievalPlan) -> Result<()> {
    let refused = |what: String| {
        Err(Error::unsupported(format!("on-demand feature view `{}` cannot be materialized: {what}", view.name))
            .with_hint("write its rows with `write_to_online_store`"))
    };
    if !plan.request_fields.is_empty() {
        let names = list_names(plan.request_fields.iter().map(|field| field.name.as_str()));
        return refused(format!("it needs {names}, which only a request has"));
    }
    let own: Vec<&str> = view.join_keys().collect();
    for source in &plan.views {
        let keys: Vec<&str> = source.join_keys.iter().map(|key| key.column.as_str()).collect();
        if keys.len() != own.len() || keys.iter().any(|key| !own.contains(key)) {
            return refused(format!(
                "its rows are known by {}, those of its source `{}` by {}",
                list_names(own.iter().copied()),
                source.name,
                list_names(keys.iter().copied())
            ));
        }
    }
    Ok(())
}

/// Whether an on-demand view that is stored can be computed from rows that are pushed to `views`.
pub(crate) fn is_fed_by(view: &FeatureView, on_demand: &OnDemandFeatures, views: &[Arc<FeatureView>]) -> bool {
    let fed = |name: &str| views.iter().any(|view| view.name == name);
    on_demand.write_to_online_store
        && !view.disabled
        && on_demand.sources.values().all(|source| match source {
            feast_core::OnDemandSource::FeatureView(source) => fed(&source.name),
            feast_core::OnDemandSource::Projection(projection) => fed(&projection.feature_view_name),
            feast_core::OnDemandSource::Request(_) => false,
        })
}
