//! Training data: for each entity row the values as they were known at its time.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, new_empty_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use feast_core::{
    Error, ErrorCode, FeatureSelection, Field, PlannedFeature, PlannedJoinKey, PlannedOnDemandView, PlannedView,
    ProjectContents, Result, RetrievalPlan, Timestamp, Transformer, list_names,
};
use feast_offline::{BatchStream, EntitySource, HistoricalRequest, HistoricalStream, LeakReport};
use feast_online::{coerce_column, computed_columns, on_demand_input};
use futures::{StreamExt, TryStreamExt};

use crate::FeatureStore;
use crate::materialize::with_known_inputs;
use crate::on_demand::computed_on_read;

/// What entity rows call their times.
const ENTITY_TIME: &str = "event_timestamp";

/// A request for historical features.
#[derive(Debug)]
pub struct HistoricalFeatures {
    /// Which features.
    pub selection: FeatureSelection,
    /// For which entities at which times.
    pub entity: EntitySource,
    /// Whether output names carry the name of their view.
    pub full_feature_names: bool,
    /// Only values that had been written by the time of the entity row.
    pub filter_by_created_timestamp: bool,
    /// Only values that had happened and been written by then.
    pub as_of: Option<Timestamp>,
}

impl FeatureStore {
    /// The plan of a request and the objects it was made from.
    ///
    /// # Errors
    /// Unknown features; `Unsupported` for on-demand views where no Python runs.
    pub async fn resolve_historical(
        &self,
        selection: &FeatureSelection,
        full_feature_names: bool,
    ) -> Result<(Arc<RetrievalPlan>, Arc<ProjectContents>)> {
        let snapshot = self.snapshot(true).await?;
        let contents = Arc::clone(self.project_of(&snapshot)?);
        let mut plan = snapshot.resolve(self.project(), selection, full_feature_names)?;
        // Stored or not, on-demand views have no history: they are computed from that of their sources.
        if plan.views.iter().any(|planned| planned.view.on_demand().is_some()) {
            let (contents, versions) = (computed_on_read(&contents), snapshot.versions());
            plan = Arc::new(RetrievalPlan::resolve_with(&contents, versions, selection, full_feature_names)?);
        }
        let not_here = || plan.on_demand.iter().filter(|view| !self.transformer.computes(&view.view));
        if not_here().next().is_some() {
            let names = list_names(not_here().map(|view| view.name.as_str()));
            return Err(Error::unsupported(format!(
                "the on-demand views {names} cannot be computed here, without Python"
            ))
            .with_hint("ask for stored features only, or use a process that runs Python"));
        }
        if plan.views.iter().any(|planned| planned.view.is_computed()) {
            for planned in &mut Arc::make_mut(&mut plan).views {
                planned.view = with_known_inputs(&planned.view, &contents);
            }
        }
        leave_out_times(&mut plan);
        Ok((plan, contents))
    }

    /// Joins features to entity rows at their times; the rows stream out as they are computed. On-demand views are
    /// computed batch by batch.
    ///
    /// # Errors
    /// As [`FeatureStore::resolve_historical`], and what is wrong with the entity rows or the sources.
    pub async fn get_historical_features(&self, request: HistoricalFeatures) -> Result<HistoricalStream> {
        let request = self.historical_request(request).await?;
        let plan = Arc::clone(&request.plan);
        let joined = self.local.historical(request).await?;
        if plan.on_demand.is_empty() {
            return Ok(joined);
        }
        OnDemandSteps::new(plan, Arc::clone(&self.transformer) as _, &joined)?.applied_to(joined)
    }

    /// How often features would have other values had later corrections been used.
    ///
    /// # Errors
    /// As [`FeatureStore::get_historical_features`].
    pub async fn leak_report(&self, request: HistoricalFeatures) -> Result<LeakReport> {
        self.local.leaks(self.historical_request(request).await?).await
    }

    async fn historical_request(&self, request: HistoricalFeatures) -> Result<HistoricalRequest> {
        let (plan, contents) = self.resolve_historical(&request.selection, request.full_feature_names).await?;
        Ok(HistoricalRequest {
            plan,
            entity: request.entity,
            tables: contents.data_sources.values().cloned().collect(),
            filter_by_created_timestamp: request.filter_by_created_timestamp,
            as_of: request.as_of,
        })
    }
}

/// A view may declare the column of its event times as a feature, which has the name of that of the entity rows: as in Feast,
/// the answer has the one of the entity rows. Who asks for nothing else is told of the collision.
fn leave_out_times(plan: &mut Arc<RetrievalPlan>) {
    let is_time = |planned: &PlannedView, feature: &PlannedFeature| {
        let source = planned.view.batch_source();
        feature.returned
            && &*feature.output == ENTITY_TIME
            && source.is_some_and(|source| source.timestamp_field == feature.field.name)
    };
    let has_time = |planned: &PlannedView| planned.features.iter().any(|feature| is_time(planned, feature));
    if !plan.on_demand.is_empty() || !plan.views.iter().any(has_time) {
        return;
    }
    for planned in &mut Arc::make_mut(plan).views {
        let others: Vec<PlannedFeature> =
            planned.features.iter().filter(|feature| !is_time(planned, feature)).cloned().collect();
        if !others.is_empty() {
            planned.features = others;
        }
    }
}

/// What becomes of the joined rows: on-demand features are added, what was read only for them goes.
pub(crate) struct OnDemandSteps {
    plan: Arc<RetrievalPlan>,
    transformer: Arc<dyn Transformer>,
    /// How many of the columns are the caller's.
    entity_columns: usize,
    /// Position of their times.
    time: usize,
    /// Positions of request data and of join keys among the caller's columns.
    request: Vec<(Field, usize)>,
    keys: Vec<(PlannedJoinKey, usize)>,
    /// Positions of the joined columns that are returned.
    returned: Vec<usize>,
    schema: SchemaRef,
}

impl OnDemandSteps {
    pub(crate) fn new(
        plan: Arc<RetrievalPlan>,
        transformer: Arc<dyn Transformer>,
        joined: &HistoricalStream,
    ) -> Result<Self> {
        let input = joined.batches.schema();
        let position = |name: &str| input.index_of(name).ok().filter(|position| *position < joined.entity_columns);
        let request = plan.request_fields.iter();
        let request = request.filter_map(|field| Some((field.clone(), position(&field.name)?))).collect();
        let key_position = |key: &PlannedJoinKey| {
            let aliases = plan.entity_aliases.iter().filter(|alias| alias.join_key == key.column);
            position(&key.column).or_else(|| aliases.map(|alias| alias.entity.as_str()).find_map(position))
        };
        let keys = plan.join_keys.iter().filter_map(|key| Some((key.clone(), key_position(key)?))).collect();
        let stored = plan.views.iter().flat_map(|view| &view.features).zip(joined.entity_columns..);
        let mut returned: Vec<usize> = (0..joined.entity_columns).collect();
        returned.extend(stored.filter(|(feature, _)| feature.returned).map(|(_, position)| position));
        let mut fields: Vec<ArrowField> = returned.iter().map(|position| input.field(*position).clone()).collect();
        let taken: HashSet<String> = fields[..joined.entity_columns].iter().map(|field| field.name().clone()).collect();
        for feature in plan.on_demand.iter().flat_map(|view| &view.features) {
            if taken.contains(&*feature.output) {
                return Err(Error::new(
                    ErrorCode::FeatureNameCollision,
                    format!(
                        "the entity rows have a column `{}` already, as a requested feature is called",
                        feature.output
                    ),
                )
                .with_hint("use full feature names, or rename the column of the entity rows"));
            }
            let value_type = feature.field.value_type;
            fields.push(match value_type.is_opaque() {
                true => ArrowField::new(&*feature.output, DataType::Utf8, true),
                false => value_type.arrow_field(&feature.output),
            });
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        let time = input.index_of(&joined.event_timestamp_column)?;
        Ok(Self { entity_columns: joined.entity_columns, time, plan, transformer, request, keys, returned, schema })
    }

    pub(crate) fn applied_to(self, joined: HistoricalStream) -> Result<HistoricalStream> {
        let steps = Arc::new(self);
        let schema = Arc::clone(&steps.schema);
        let aggregates = |view: &PlannedOnDemandView| {
            view.view.on_demand().is_some_and(|on_demand| !on_demand.aggregations.is_empty())
        };
        if steps.plan.on_demand.iter().any(aggregates) {
            // The rows of one moment may be anywhere among them.
            let (input, rows) = (Arc::clone(joined.batches.schema()), joined.batches);
            let all = futures::stream::once(async move {
                let batches: Vec<RecordBatch> = rows.try_collect().await?;
                steps.apply(&concat_batches(&input, &batches)?).await
            });
            return Ok(HistoricalStream { batches: BatchStream::new(schema, all), ..joined });
        }
        let batches = joined.batches.then(move |batch| {
            let steps = Arc::clone(&steps);
            async move { steps.apply(&batch?).await }
        });
        Ok(HistoricalStream { batches: BatchStream::new(schema, batches), ..joined })
    }

    async fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let n_rows = batch.num_rows();
        let typed =
            |field: &Field, position: usize| coerce_column(batch.column(position), field.value_type, &field.name);
        let request = self.request.iter().map(|(field, position)| Ok((field, typed(field, *position)?)));
        let request = request.collect::<Result<Vec<_>>>()?;
        let keys = self
            .keys
            .iter()
            .map(|(key, position)| Ok((key, coerce_column(batch.column(*position), key.value_type, &key.column)?)));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let mut position = self.entity_columns;
        let mut stored: Vec<Vec<ArrayRef>> = Vec::with_capacity(self.plan.views.len());
        for view in &self.plan.views {
            let columns =
                view.features.iter().zip(position..).map(|(feature, position)| typed(&feature.field, position));
            stored.push(columns.collect::<Result<_>>()?);
            position += view.features.len();
        }
        let mut columns: Vec<ArrayRef> =
            self.returned.iter().map(|position| Arc::clone(batch.column(*position))).collect();
        for view in &self.plan.on_demand {
            if n_rows == 0 {
                let start = columns.len();
                let fields = &self.schema.fields()[start..start + view.features.len()];
                columns.extend(fields.iter().map(|field| new_empty_array(field.data_type())));
                continue;
            }
            let input =
                on_demand_input(&self.plan, view, &stored, &request, &keys, Some(batch.column(self.time)), n_rows)?;
            let computed = self.transformer.apply(&view.view, input).await?;
            for (feature, column) in view.features.iter().zip(computed_columns(view, &computed, n_rows)?) {
                columns.push(match feature.field.value_type.is_opaque() {
                    true => json_texts(&column)?,
                    false => column,
                });
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// Values that Arrow has no type for, as JSON: frames and files can hold that.
fn json_texts(column: &ArrayRef) -> Result<ArrayRef> {
    let cells = column.as_binary::<i32>();
    let text = |cell: &[u8]| feast_proto::value_codec::value_to_json(cell).map(|json| json.to_string());
    let texts: StringArray = cells.iter().map(|cell| cell.map(text).transpose()).collect::<Result<_>>()?;
    Ok(Arc::new(texts))
}
