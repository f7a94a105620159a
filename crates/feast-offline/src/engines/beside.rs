//! Training data of computed views beside that of views which a database joins itself.
//!
//! The database is asked for the other views first; its answer has the entity rows, to which the computed views are joined
//! here. It waits in memory, as entity rows do for a database.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, SchemaRef};
use feast_core::{Error, Result, RetrievalPlan};
use futures::stream::{self, TryStreamExt};

use super::computed::Computer;
use super::history::Asked;
use crate::entity_rows::{EntityRows, EntitySource};
use crate::historical::output_schema;
use crate::store::Entity;
use crate::view_columns::record_batch;
use crate::{BatchStream, HistoricalRequest, HistoricalStream};

impl Computer<'_> {
    /// As [`LocalEngine::historical`](super::LocalEngine::historical), where the rows of sources are in a database;
    /// `computed` are the positions of the views that are computed here.
    pub(super) async fn beside_database(
        self,
        request: HistoricalRequest,
        computed: &[usize],
    ) -> Result<HistoricalStream> {
        let HistoricalRequest { plan, entity, tables, filter_by_created_timestamp, as_of } = request;
        if let EntitySource::Range { .. } = entity {
            return Err(Error::unsupported(format!(
                "entity rows of feature view `{}`, which is computed from the rows of a database",
                plan.views[computed[0]].name
            ))
            .with_hint("give entity rows instead of a start and an end"));
        }
        let is_computed = |view: usize| computed.contains(&view);
        let stored = some_views(&plan, |view| !is_computed(view));
        let stored = HistoricalRequest { plan: stored, entity, tables, filter_by_created_timestamp, as_of };
        let stored = self.offline.historical(stored).await?;
        let HistoricalStream { entity_columns, event_timestamp_column, batches, .. } = stored;
        let stored_schema = Arc::clone(batches.schema());
        let batches: Vec<RecordBatch> = batches.collect().await?;
        let columns: Vec<usize> = (0..entity_columns).collect();
        let entity_schema: SchemaRef = Arc::new(stored_schema.project(&columns)?);
        let rows = batches
            .iter()
            .map(|batch| record_batch(&entity_schema, batch.columns()[..entity_columns].to_vec(), batch.num_rows()));
        let entity = Entity::Rows(EntityRows::new(Arc::clone(&entity_schema), rows.collect::<Result<_>>()?)?);

        let asked = Asked { entity: &entity, known_at_entity_time: filter_by_created_timestamp, as_of };
        let own = some_views(&plan, is_computed);
        let (own, files) = self.with_history(&own, (0..computed.len()).collect(), asked).await?;
        let joined = self.files.open(own, entity, filter_by_created_timestamp, as_of).await?.start();

        // Which side has each view, and where.
        let (mut at, mut sources) = ([entity_columns, entity_columns], Vec::new());
        for (index, view) in plan.views.iter().enumerate() {
            let side = usize::from(is_computed(index));
            sources.push((side, at[side]..at[side] + view.features.len()));
            at[side] += view.features.len();
        }
        let schemas = [stored_schema, Arc::clone(joined.batches.schema())];
        let fields = plan.views.iter().zip(&sources).map(|(view, (side, columns))| {
            let fields = schemas[*side].fields()[columns.clone()].iter().zip(&view.features);
            fields.map(|(field, feature)| field.as_ref().clone().with_name(&*feature.output)).collect()
        });
        let fields: Vec<Vec<Field>> = fields.collect();
        let fields: Vec<&[Field]> = fields.iter().map(Vec::as_slice).collect();
        let schema = output_schema(&entity_schema, &plan, &fields)?;
        joined.explanation.step(1, format!("the other feature views are joined by {}", self.offline));
        let sides = Sides {
            joined: joined.batches,
            stored: batches.into(),
            stored_schema: Arc::clone(&schemas[0]),
            sources,
            entity_columns,
            schema: Arc::clone(&schema),
        };
        let output =
            stream::try_unfold(sides, async |mut sides: Sides| Ok(sides.next().await?.map(|batch| (batch, sides))));
        Ok(HistoricalStream {
            batches: BatchStream::new(schema, output).holding(files),
            entity_columns,
            event_timestamp_column,
            min_event_timestamp: joined.min_event_timestamp,
            max_event_timestamp: joined.max_event_timestamp,
            explanation: joined.explanation,
        })
    }
}

/// The plan with some of its views.
fn some_views(plan: &RetrievalPlan, wanted: impl Fn(usize) -> bool) -> Arc<RetrievalPlan> {
    let views = plan.views.iter().enumerate().filter(|(index, _)| wanted(*index)).map(|(_, view)| view.clone());
    Arc::new(RetrievalPlan { views: views.collect(), ..plan.clone() })
}

/// Both halves of the answer; they have the same rows in the same order.
struct Sides {
    joined: BatchStream,
    stored: VecDeque<RecordBatch>,
    stored_schema: SchemaRef,
    /// View by view, the half that has its features, and the columns there.
    sources: Vec<(usize, std::ops::Range<usize>)>,
    entity_columns: usize,
    schema: SchemaRef,
}

impl Sides {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(joined) = self.joined.try_next().await? else { return Ok(None) };
        let stored = self.stored_rows(joined.num_rows())?;
        let mut columns: Vec<ArrayRef> = joined.columns()[..self.entity_columns].to_vec();
        for (side, range) in &self.sources {
            let batch = if *side == 0 { &stored } else { &joined };
            columns.extend_from_slice(&batch.columns()[range.clone()]);
        }
        record_batch(&self.schema, columns, joined.num_rows()).map(Some)
    }

    /// The next rows of the other half.
    fn stored_rows(&mut self, n_rows: usize) -> Result<RecordBatch> {
        if n_rows == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.stored_schema)));
        }
        let (mut parts, mut missing) = (Vec::new(), n_rows);
        loop {
            let first = self.stored.pop_front().ok_or_else(|| Error::internal("the database sent fewer rows"))?;
            let taken = first.num_rows().min(missing);
            parts.push(first.slice(0, taken));
            if taken < first.num_rows() {
                self.stored.push_front(first.slice(taken, first.num_rows() - taken));
            }
            missing -= taken;
            if missing == 0 {
                return match parts.as_slice() {
                    [part] => Ok(part.clone()),
                    parts => Ok(concat_batches(parts[0].schema_ref(), parts)?),
                };
            }
        }
    }
}
