//! From the offline to the online store: the newest row of each entity key in a span of time.
//!
//! An interval is recorded only after all its rows were acknowledged. Running again, or over an overlapping span,
//! changes nothing: the online store keeps the newest event time.

use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use feast_core::{
    EntityKeyEncoder, Error, ErrorCode, FeatureView, FeatureViewKind, FeatureViewState, Interval, OnlineTable,
    RegistryChange, RegistryChanges, RegistryObject, Result, Timestamp, merge_intervals,
};
use feast_offline::{CREATED_TIMESTAMP_COLUMN, EVENT_TIMESTAMP_COLUMN, LatestRequest};
use feast_online::online_rows;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::on_demand::follows_from_history;
use crate::{Event, FeatureStore};

/// Writes in flight at the same time.
const CONCURRENT_WRITES: usize = 2;

/// The span of event times to materialize; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Window {
    /// From one instant to another.
    Between(Timestamp, Timestamp),
    /// From where each view stands to this instant.
    Until(Timestamp),
    /// From the epoch to now, for sources whose times mean nothing.
    Everything,
}

/// What to materialize.
#[derive(Debug, Clone, PartialEq)]
pub struct MaterializeRequest {
    /// Which span.
    pub window: Window,
    /// Which views; empty: all that are served online.
    pub feature_views: Vec<String>,
}

/// What was materialized.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MaterializeReport {
    /// View by view.
    pub feature_views: Vec<MaterializedView>,
}

/// What was materialized of one view.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MaterializedView {
    /// Name of the view.
    pub name: String,
    /// The span, or `None` when there was nothing to do.
    pub interval: Option<Interval>,
    /// Rows written, one per entity key.
    pub rows: u64,
}

impl FeatureStore {
    /// Loads the newest row of each entity key into the online store, view by view.
    ///
    /// # Errors
    /// Unknown, disabled or offline-only views; what goes wrong while reading or writing. Views that were finished
    /// before the error stay recorded; nothing is recorded for the others.
    pub async fn materialize(&self, request: MaterializeRequest) -> Result<MaterializeReport> {
        if let Window::Between(start, end) = request.window
            && start > end
        {
            return Err(Error::invalid_request(format!("the start {start} lies after the end {end}"))
                .with_hint("give a start before the end"));
        }
        let views = self.views_to_materialize(&request.feature_views).await?;
        let mut report = MaterializeReport::default();
        for view in views {
            let materialized = self
                .materialize_view(&view, request.window)
                .await
                .map_err(|error| error.with_context("feature view", &view.name))?;
            report.feature_views.push(materialized);
        }
        Ok(report)
    }

    /// The views that a materialization of `names` would load; of all that are served online when there are none.
    ///
    /// # Errors
    /// Unknown, disabled or offline-only views; `Unsupported` without an online store.
    pub async fn views_to_materialize(&self, names: &[String]) -> Result<Vec<Arc<FeatureView>>> {
        self.online_store()?;
        let contents = self.contents(true).await?;
        let materializable =
            |view: &FeatureView| view.has_online_table() && !matches!(view.kind, FeatureViewKind::Label(_));
        if names.is_empty() {
            let views = contents.feature_views.values();
            // What only a request or a caller can complete is written by them.
            let complete = |view: &FeatureView| view.on_demand().is_none() || follows_from_history(&contents, view);
            return Ok(views
                .filter(|view| materializable(view) && !view.disabled && complete(view))
                .cloned()
                .collect());
        }
        names
            .iter()
            .map(|name| {
                let view = contents.feature_view(name)?;
                if view.disabled {
                    return Err(Error::invalid_request(format!("feature view `{name}` is disabled"))
                        .with_hint(format!("enable it with `feast feature-views enable {name}`")));
                }
                if !materializable(view) {
                    return Err(Error::invalid_request(format!(
                        "{} is not configured to be served online from its source",
                        view.reference()
                    ))
                    .with_hint("declare it with `online=True` and apply it"));
                }
                Ok(Arc::clone(view))
            })
            .collect()
    }

    async fn materialize_view(&self, view: &Arc<FeatureView>, window: Window) -> Result<MaterializedView> {
        refuse_transformations(view)?;
        let now = Utc::now();
        let (start, end) = match window {
            Window::Between(start, end) => (start, end),
            Window::Everything => (DateTime::UNIX_EPOCH, now),
            Window::Until(end) => match incremental_start(view, end) {
                start if start <= end => (start, end),
                start => {
                    let reason = format!("everything up to {start} is materialized already");
                    self.observer.on(&Event::MaterializationSkipped { view: view.name.clone(), reason });
                    return Ok(MaterializedView { name: view.name.clone(), interval: None, rows: 0 });
                }
            },
        };
        self.observer.on(&Event::MaterializationStarted { view: view.name.clone(), start, end });
        if view.on_demand().is_some() {
            // Its sources know what was materialized; newer rows win in any case, so nothing is recorded.
            let rows = self.store_on_demand_view(view, start, end).await?;
            self.observer.on(&Event::MaterializationFinished { view: view.name.clone(), rows });
            return Ok(MaterializedView { name: view.name.clone(), interval: None, rows });
        }
        let rows = self.write_latest(view, start, end).await?;
        // What lies in the future was not there yet: the next run must look at it again.
        let interval = (start <= now).then(|| Interval::new(start, end.min(now)));
        if let Some(interval) = interval {
            self.record(view, interval).await?;
        }
        self.observer.on(&Event::MaterializationFinished { view: view.name.clone(), rows });
        Ok(MaterializedView { name: view.name.clone(), interval, rows })
    }

    /// Streams the newest rows into the online store and returns how many there were.
    async fn write_latest(&self, view: &Arc<FeatureView>, start: Timestamp, end: Timestamp) -> Result<u64> {
        let online = self.online_store()?;
        let table = OnlineTable::of(self.project(), view);
        let encoder = EntityKeyEncoder::new(&table.join_keys, self.config.entity_key_serialization_version)?;
        let latest = self.offline.latest(LatestRequest { view: Arc::clone(view), start, end }).await?;
        let most = self.config.online_write_batch_size.unwrap_or_else(|| online.preferred_batch_rows()).max(1);
        let expected = latest.expected_rows();
        let mut rows = 0;
        let mut writes = latest
            .flat_map(|batch| stream::iter(chunks(batch, most)))
            .map(|chunk| {
                let (table, encoder) = (&table, &encoder);
                async move {
                    let write =
                        online_rows(table, encoder, &chunk?, EVENT_TIMESTAMP_COLUMN, Some(CREATED_TIMESTAMP_COLUMN))?;
                    online.write(write.as_write(table)).await?;
                    Ok::<u64, Error>(write.len() as u64)
                }
            })
            .buffered(CONCURRENT_WRITES);
        while let Some(written) = writes.try_next().await? {
            rows += written;
            self.observer.on(&Event::RowsWritten { view: view.name.clone(), rows, total: expected.get() });
        }
        Ok(rows)
    }

    /// Adds an interval to those of a view. Intervals that touch are merged, so that the list does not grow.
    async fn record(&self, view: &FeatureView, interval: Interval) -> Result<()> {
        self.registry
            .commit_with(|snapshot| {
                let contents = snapshot.project(self.project())?;
                let mut stored = FeatureView::clone(contents.feature_view(&view.name)?);
                // The rows that were written are those of the definition that was read.
                if stored.meta.version_id != view.meta.version_id || stored.meta.created != view.meta.created {
                    return Err(Error::new(
                        ErrorCode::Conflict,
                        format!("feature view `{}` was changed while its rows were loaded", view.name),
                    )
                    .with_hint("materialize it again"));
                }
                let known = stored.meta.materialization_intervals.iter().copied();
                stored.meta.materialization_intervals = merge_intervals(known.chain([interval]));
                stored.meta.state = FeatureViewState::AvailableOnline;
                stored.meta.updated = Some(Utc::now());
                let changes = vec![RegistryChange::Put(RegistryObject::FeatureView(Arc::new(stored)))];
                Ok(RegistryChanges { project: self.project().to_owned(), changes })
            })
            .await?;
        Ok(())
    }
}

/// A batch as slices of at most `most` rows.
fn chunks(batch: Result<RecordBatch>, most: usize) -> Vec<Result<RecordBatch>> {
    match batch {
        Err(error) => vec![Err(error)],
        Ok(batch) => (0..batch.num_rows())
            .step_by(most)
            .map(|start| Ok(batch.slice(start, most.min(batch.num_rows() - start))))
            .collect(),
    }
}

/// Where an incremental run begins: where the last one ended; for a view that was never materialized, as far back as
/// its values live, and without ttl at the beginning of time, so that no row is left behind.
fn incremental_start(view: &FeatureView, end: Timestamp) -> Timestamp {
    match (view.most_recent_end(), view.time_to_live().limit()) {
        (Some(most_recent), _) => most_recent.min(Utc::now()),
        (None, Some(ttl)) => end.checked_sub_signed(ttl).unwrap_or(DateTime::UNIX_EPOCH),
        (None, None) => DateTime::UNIX_EPOCH,
    }
}

/// Views that compute their rows are not run by this engine yet; their source rows must not be served instead.
fn refuse_transformations(view: &FeatureView) -> Result<()> {
    let computed = match &view.kind {
        FeatureViewKind::Batch(batch) => batch.transformation.is_some() || !batch.source_views.is_empty(),
        FeatureViewKind::Stream(stream) => {
            stream.transformation.is_some() || stream.user_defined_function.is_some() || !stream.aggregations.is_empty()
        }
        FeatureViewKind::OnDemand(_) | FeatureViewKind::Label(_) => false,
    };
    if computed {
        return Err(Error::new(
            ErrorCode::Unsupported,
            format!("the transformation of feature view `{}` cannot be run here yet", view.name),
        )
        .with_hint("compute its rows into the source, or push them"));
    }
    Ok(())
}
