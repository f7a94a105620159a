//! Training data of computed views: at each time, what a materialization up to then would have made of the view.
//!
//! How that is found depends on what computes the rows. A transformation of a source is run once, over all rows that any
//! entity row can need, as Feast's engine does it, and its rows are joined like those of every other view: a row must
//! depend only on rows that are not newer. Aggregates become the steps of their values. Views over views take the newest
//! row of each key of their inputs, which are others at each time: they are read from their sink, or computed once for
//! each different time of the entity rows, if these are few.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use feast_core::{Error, ErrorCode, FeatureView, PlannedView, Result, RetrievalPlan, TimeToLive, Timestamp};
use futures::StreamExt;

use super::aggregates::aggregations;
use super::computed::{Computer, Rows, Scratch, whole};
use super::steps::steps;
use crate::entity_rows::EntityRows;
use crate::store::Entity;
use crate::timestamps::{instant, micros_array};
use crate::{BatchStream, EVENT_TIMESTAMP_COLUMN};

/// For how many different times a view over other views is computed at most: each is a run of the view.
const MOST_TIMES: usize = 1000;

/// What training data is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) entity: &'a Entity,
    /// Rows count from their created time on.
    pub(super) known_at_entity_time: bool,
    /// Rows that became true or were written later do not count.
    pub(super) as_of: Option<Timestamp>,
}

impl Computer<'_> {
    /// The positions of the views in a plan whose rows must be computed.
    pub(super) async fn computed_views(self, plan: &RetrievalPlan) -> Result<Vec<usize>> {
        let mut computed = Vec::new();
        for (index, planned) in plan.views.iter().enumerate() {
            let view = &planned.view;
            if !view.is_computed() || self.has_sink(view).await? {
                continue;
            }
            computed.push(index);
        }
        Ok(computed)
    }

    /// Whether the rows of a view over other views rest in its sink.
    async fn has_sink(self, view: &FeatureView) -> Result<bool> {
        let Some(sink) = view.sink() else { return Ok(false) };
        match self.offline.schema(sink).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == ErrorCode::FileNotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The plan with views replaced by views over files of their rows, which vanish with what is returned beside it.
    pub(super) async fn with_history(
        self,
        plan: &RetrievalPlan,
        views: Vec<usize>,
        asked: Asked<'_>,
    ) -> Result<(Arc<RetrievalPlan>, Vec<Scratch>)> {
        let (mut plan, mut files) = (plan.clone(), Vec::new());
        for index in views {
            let planned = &mut plan.views[index];
            let view = Arc::clone(&planned.view);
            let history = self.history(planned, &view, asked).await;
            files.push(history.map_err(|error| error.with_context("feature view", &view.name))?);
        }
        Ok((Arc::new(plan), files))
    }

    /// Computes the rows of a view and plans to read those instead.
    async fn history(self, planned: &mut PlannedView, view: &FeatureView, asked: Asked<'_>) -> Result<Scratch> {
        let (least, greatest) = match asked.entity {
            Entity::Rows(rows) => rows.bounds().unwrap_or_default(),
            Entity::Range(first, last) => (first.timestamp_micros(), last.timestamp_micros()),
        };
        let is_chained = !view.source_views().is_empty();
        let (computed, file) = match asked.entity {
            _ if !is_chained && aggregations(view).is_empty() => {
                // A transformation must not see what had not happened yet.
                let last = asked.as_of.map_or(at(greatest), |as_of| as_of.min(at(greatest)));
                self.compute(view, beginning(view, least).min(last), last).await?
            }
            _ if asked.known_at_entity_time || asked.as_of.is_some() => {
                return Err(Error::unsupported(format!(
                    "the values of feature view `{}` are made of several rows, and it is not known which of them had \
                     been written by some time",
                    view.name
                ))
                .with_hint("ask without `filter_by_created_timestamp` and `as_of`"));
            }
            Entity::Range(..) => {
                return Err(Error::unsupported(format!(
                    "the values of feature view `{}` have no times of their own, so entity rows cannot be taken from it",
                    view.name
                ))
                .with_hint("give entity rows instead of a start and an end"));
            }
            Entity::Rows(entity) if is_chained => {
                planned.ttl = TimeToLive::INSTANT;
                self.at_each(view, entity).await?
            }
            Entity::Rows(_) => {
                // The steps know the ttl.
                planned.ttl = TimeToLive::new(None);
                self.stepwise(view, (least, greatest)).await?
            }
        };
        planned.view = Arc::new(computed);
        Ok(file)
    }

    /// The aggregates of a view over a source.
    async fn stepwise(self, view: &FeatureView, between: (i64, i64)) -> Result<(FeatureView, Scratch)> {
        let first = beginning(view, between.0);
        let windows = aggregations(view).iter().filter_map(|aggregation| aggregation.time_window);
        let first = windows.filter_map(|window| at(between.0).checked_sub_signed(window)).fold(first, Timestamp::min);
        let rows = self.transformed_rows(view, first, at(between.1)).await?;
        let steps = steps(view, self.frame(view, &rows).await?, &rows.event, between).await?;
        let scratch = Scratch::of(self.files, steps.holding(rows.scratch)).await?;
        Ok(Rows { scratch, event: rows.event, created: String::new() }.under(view))
    }

    /// What a view is at each of the times of entity rows.
    async fn at_each(self, view: &FeatureView, entity: &EntityRows) -> Result<(FeatureView, Scratch)> {
        let times = entity.distinct_times(MOST_TIMES)?.ok_or_else(|| {
            Error::unsupported(format!(
                "the entity rows have more than {MOST_TIMES} different times, and feature view `{}`, which is made of \
                 other views, would be computed anew for each",
                view.name
            ))
            .with_hint(
                "declare it with `offline=True`, materialize it, and its values are read from its sink; or round the \
                 times of the entity rows",
            )
        })?;
        // Of no entity rows, the columns are needed all the same.
        let times = if times.is_empty() { vec![0] } else { times };
        let mut scratch: Option<Scratch> = None;
        for time in times {
            let (start, end) = (beginning(view, time), at(time));
            let (computed, rows) = Box::pin(self.compute(view, start, end)).await?;
            let newest = self.files.latest(whole(&computed)).await?.holding(rows);
            let seen = seen_at(newest, start.timestamp_micros(), time);
            match &mut scratch {
                Some(scratch) => scratch.add(self.files, seen).await?,
                None => scratch = Some(Scratch::of(self.files, seen).await?),
            }
        }
        let scratch = scratch.ok_or_else(|| Error::internal("a view was computed for no time"))?;
        Ok(Rows { scratch, event: EVENT_TIMESTAMP_COLUMN.to_owned(), created: String::new() }.under(view))
    }
}

/// The rows of a run that ended at `time`, from event times of `first` on, as rows of that time.
fn seen_at(rows: BatchStream, first: i64, time: i64) -> BatchStream {
    let n_columns = rows.schema().fields().len();
    // The event time is the last column but the created time.
    let event = n_columns - 2;
    let schema = Arc::new(Schema::new(rows.schema().fields()[..=event].to_vec()));
    let target = Arc::clone(&schema);
    let seen = move |batch: RecordBatch| {
        let events = batch.column(event).as_primitive::<TimestampMicrosecondType>();
        let counts =
            BooleanArray::from_iter(events.iter().map(|event| Some(event.is_some_and(|event| event >= first))));
        let batch = filter_record_batch(&batch, &counts)?;
        let mut columns: Vec<ArrayRef> = batch.columns()[..event].to_vec();
        columns.push(micros_array(TimestampMicrosecondArray::from_value(time, batch.num_rows())));
        Ok(RecordBatch::try_new(Arc::clone(&target), columns)?)
    };
    BatchStream::new(schema, rows.map(move |batch| batch.and_then(&seen)))
}

/// Where a run that ends at a time begins: as far back as values live.
fn beginning(view: &FeatureView, end: i64) -> Timestamp {
    let first = view.time_to_live().limit().and_then(|ttl| at(end).checked_sub_signed(ttl));
    first.unwrap_or(Timestamp::MIN_UTC)
}

/// A time of entity rows; what lies beyond the calendar is its end.
fn at(micros: i64) -> Timestamp {
    instant(micros).unwrap_or(if micros < 0 { Timestamp::MIN_UTC } else { Timestamp::MAX_UTC })
}
