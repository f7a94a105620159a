//! From the offline to the online store: the newest row of each entity key in a span of time.
//!
//! An interval is recorded only after all its rows were acknowledged, and in a split run only after all shards have
//! loaded it. Running again, or over an overlapping span, changes nothing: the online store keeps the newest event time.
//!
//! Three steps work at the same time: the engine computes rows, threads bring them into the form of the store, and the
//! store writes. Each waits for the next one when it is ahead, so that a few chunks of rows are in memory at any time.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{BatchCoalescer, filter_record_batch};
use chrono::{DateTime, Utc};
use feast_core::{
    BatchFeatures, EntityKeyEncoder, Error, ErrorCode, FeatureView, FeatureViewKind, FeatureViewState, Interval,
    LoadOrder, OnlineTable, ProjectContents, RegistryChange, RegistryChanges, RegistryObject, Result, Shard, Timestamp,
    Wait, Window, complete_shard,
};
use feast_offline::{
    BatchStream, CREATED_TIMESTAMP_COLUMN, ComputeEngine, EVENT_TIMESTAMP_COLUMN, MaterializationTask, Materialized,
};
use feast_online::{OwnedWrite, entity_keys, online_rows};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::on_demand::follows_from_history;
use crate::pins;
use crate::sink::{kept, sink_of};
use crate::{Event, FeatureStore};

/// Writes in flight at the same time.
const CONCURRENT_WRITES: usize = 2;

/// Chunks that are brought into the form of the store at the same time.
const CONCURRENT_CHUNKS: usize = 2;

/// What to materialize.
#[derive(Debug, Clone, PartialEq)]
pub struct MaterializeRequest {
    /// Which span.
    pub window: Window,
    /// Which views; empty: all that are served online.
    pub feature_views: Vec<String>,
    /// Which entity keys; [`Shard::WHOLE`]: all.
    pub shard: Shard,
    /// Which version of the one view, such as `v2`; `None` and `latest`: the current one. What is loaded of another is
    /// not recorded.
    pub version: Option<String>,
}

/// What was materialized.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MaterializeReport {
    /// View by view; none where a server did it.
    pub feature_views: Vec<MaterializedView>,
    /// The server that did it, or was told to: the one that is the online store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
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
    /// Shards of the same run that have not loaded the interval yet; it is recorded when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_shards: Vec<String>,
}

impl FeatureStore {
    /// Loads the newest row of each entity key into the online store, view by view. Where that is a feature server, the
    /// server is told to load them from its history; a shard is loaded from here.
    ///
    /// # Errors
    /// Unknown, disabled or offline-only views; what goes wrong while reading or writing. Views that were finished
    /// before the error stay recorded; nothing is recorded for the others.
    pub async fn materialize(&self, request: MaterializeRequest) -> Result<MaterializeReport> {
        self.materialize_and_wait(request, Wait::UntilDone).await
    }

    /// The same; `wait` says when a server is waited for no longer. What is loaded from here is always waited for.
    ///
    /// # Errors
    /// As [`FeatureStore::materialize`].
    pub async fn materialize_and_wait(&self, request: MaterializeRequest, wait: Wait) -> Result<MaterializeReport> {
        if let Window::Between(start, end) = request.window
            && start > end
        {
            return Err(Error::invalid_request(format!("the start {start} lies after the end {end}"))
                .with_hint("give a start before the end"));
        }
        if let Some(online) = &self.online
            && let Some(server) = online.loading_server()
            && request.shard == Shard::WHOLE
        {
            let MaterializeRequest { window, feature_views, version, .. } = &request;
            let order = LoadOrder { window: *window, feature_views, version: version.as_deref(), wait };
            server.load(&order).await?;
            return Ok(MaterializeReport { feature_views: Vec::new(), server: Some(online.to_string()) });
        }
        let mut views = self.views_to_materialize(&request.feature_views).await?;
        let contents = self.contents(false).await?;
        let mut is_recorded = true;
        if let Some(version) = &request.version
            && let Some(view) = self.in_version(version, &request.feature_views).await?
        {
            let current = contents.feature_view(&view.name)?;
            is_recorded = current.meta.current_version_number == view.meta.current_version_number;
            views = vec![view];
        }
        if !views.is_empty() {
            // Loading takes long, and is worth nothing when it cannot be recorded.
            self.registry().store().check_writable().await?;
        }
        let mut report = MaterializeReport::default();
        for view in views {
            let view = with_known_inputs(&view, &contents);
            let materialized = self
                .materialize_view(&view, request.window, request.shard, is_recorded)
                .await
                .map_err(|error| error.with_context("feature view", &view.name))?;
            report.feature_views.push(materialized);
        }
        Ok(report)
    }

    /// Loads the newest rows of a view with the engine of this process, and records nothing: what an engine of the caller's
    /// own may leave to us. Returns the number of rows.
    ///
    /// # Errors
    /// What goes wrong while reading or writing.
    pub async fn load(&self, task: MaterializationTask) -> Result<u64> {
        let (view, shard) = (Arc::clone(&task.view), task.shard);
        match self.local.materialize(task).await? {
            Materialized::Rows(rows) => self.write(&view, rows, shard).await,
            Materialized::Written { rows } => Ok(rows.unwrap_or(0)),
        }
    }

    /// The views that a materialization of `names` would load; of all that are served online when there are none.
    ///
    /// # Errors
    /// Unknown and disabled views, and those that are neither served online nor have a sink to be kept in; `Unsupported`
    /// without an online store.
    pub async fn views_to_materialize(&self, names: &[String]) -> Result<Vec<Arc<FeatureView>>> {
        let contents = self.contents(true).await?;
        let is_served = |view: &FeatureView| view.has_online_table() && !matches!(view.kind, FeatureViewKind::Label(_));
        if names.is_empty() {
            self.online_store()?;
            let views = contents.feature_views.values();
            // What only a request or a caller can complete is written by them.
            let complete = |view: &FeatureView| view.on_demand().is_none() || follows_from_history(&contents, view);
            return Ok(views.filter(|view| is_served(view) && !view.disabled && complete(view)).cloned().collect());
        }
        names
            .iter()
            .map(|name| {
                let view = contents.feature_view(name)?;
                if view.disabled {
                    return Err(Error::invalid_request(format!("feature view `{name}` is disabled"))
                        .with_hint(format!("enable it with `feast feature-views enable {name}`")));
                }
                if is_served(view) {
                    self.online_store()?;
                } else if sink_of(view).is_none() {
                    return Err(Error::invalid_request(format!(
                        "{} is not configured to be served online from its source",
                        view.reference()
                    ))
                    .with_hint(match view.on_demand() {
                        Some(_) => "declare it with `write_to_online_store=True` and apply it; it is computed when it is pushed",
                        None => "declare it with `online=True` and apply it",
                    }));
                }
                Ok(Arc::clone(view))
            })
            .collect()
    }

    /// The one view that is asked for in a version; `None` for the latest.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no version, several views, and where versions have no tables;
    /// `FeatureViewVersionNotFound`.
    async fn in_version(&self, version: &str, names: &[String]) -> Result<Option<Arc<FeatureView>>> {
        let asked = pins::asked(version)?;
        let [name] = names else {
            return Err(Error::invalid_request("a version is that of one feature view")
                .with_hint("name exactly one feature view with it"));
        };
        let Some(number) = asked else { return Ok(None) };
        let snapshot = self.snapshot(false).await?;
        let contents = self.project_of(&snapshot)?;
        let view = snapshot.versions().of(contents, contents.feature_view(name)?, number)?;
        if !snapshot.versions_have_tables && number != contents.feature_view(name)?.meta.current_version_number {
            return Err(Error::invalid_request(format!(
                "version `v{number}` of feature view `{name}` has no table in the online store"
            ))
            .with_hint(
                "keep the values of each version with `enable_online_feature_view_versioning: true` below `registry` in \
                 feature_store.yaml, where the online store can",
            ));
        }
        Ok(Some(view))
    }

    async fn materialize_view(
        &self,
        view: &Arc<FeatureView>,
        window: Window,
        shard: Shard,
        is_recorded: bool,
    ) -> Result<MaterializedView> {
        let now = Utc::now();
        let (start, end) = match window {
            Window::Between(start, end) => (start, end),
            Window::Everything => (DateTime::UNIX_EPOCH, now),
            Window::Until(end) => match incremental_start(view, end) {
                start if start <= end => (start, end),
                start => {
                    let reason = format!("everything up to {start} is materialized already");
                    self.observer.on(&Event::MaterializationSkipped { view: view.name.clone(), reason });
                    return Ok(MaterializedView {
                        name: view.name.clone(),
                        interval: None,
                        rows: 0,
                        missing_shards: Vec::new(),
                    });
                }
            },
        };
        self.observer.on(&Event::MaterializationStarted { view: view.name.clone(), start, end });
        if view.on_demand().is_some() {
            // Its sources know what was materialized; newer rows win in any case, so nothing is recorded.
            let rows = self.store_on_demand_view(view, start, end).await?;
            self.observer.on(&Event::MaterializationFinished { view: view.name.clone(), rows });
            return Ok(MaterializedView { name: view.name.clone(), interval: None, rows, missing_shards: Vec::new() });
        }
        let (project, task_view) = (self.project().to_owned(), Arc::clone(view));
        let task = MaterializationTask { project, view: task_view, start, end, shard };
        let rows = match self.engine().materialize(task).await? {
            Materialized::Rows(rows) => {
                // A sink has the rows of all shards from the first one.
                let rows = match sink_of(view).filter(|_| shard.number() == 1) {
                    Some(sink) => kept(rows, sink, Arc::clone(&self.offline)),
                    None => rows,
                };
                self.write(view, rows, shard).await?
            }
            Materialized::Written { rows } => rows.unwrap_or(0),
        };
        // What lies in the future was not there yet: the next run must look at it again.
        let interval = (start <= now).then(|| Interval::new(start, end.min(now)));
        let missing_shards = match interval.filter(|_| is_recorded) {
            Some(interval) => self.record(view, shard, interval).await?,
            None => Vec::new(),
        };
        self.observer.on(&Event::MaterializationFinished { view: view.name.clone(), rows });
        Ok(MaterializedView { name: view.name.clone(), interval, rows, missing_shards })
    }

    /// Streams rows into the online store, if the view is served from there, and returns how many belong to the shard.
    async fn write(&self, view: &Arc<FeatureView>, latest: BatchStream, shard: Shard) -> Result<u64> {
        if !view.has_online_table() {
            return latest.try_fold(0, async |rows, batch| Ok(rows + batch.num_rows() as u64)).await;
        }
        let online = self.online_store()?;
        let table = Arc::new(self.online_table(view));
        let encoder = EntityKeyEncoder::new(&table.join_keys, self.config.entity_key_serialization_version)?;
        let encoder = Arc::new(encoder);
        let most = self.config.online_write_batch_size.unwrap_or_else(|| online.preferred_batch_rows()).max(1);
        let expected = latest.expected_rows();
        let mut rows = 0;
        let mut writes = rechunk(latest, most)
            .map(|chunk| {
                let (table, encoder) = (Arc::clone(&table), Arc::clone(&encoder));
                async move {
                    let chunk = chunk?;
                    let work = move || owned_write(&table, &encoder, &chunk, shard);
                    let done = tokio::task::spawn_blocking(work).await;
                    done.map_err(|error| Error::internal("preparing rows for the store panicked").with_source(error))?
                }
            })
            .buffered(CONCURRENT_CHUNKS)
            .map(|write| {
                let table = &table;
                async move {
                    let write = write?;
                    online.write(write.as_write(table)).await?;
                    Ok::<u64, Error>(write.len() as u64)
                }
            })
            // Each key occurs once: the order of the chunks means nothing.
            .buffer_unordered(CONCURRENT_WRITES);
        while let Some(written) = writes.try_next().await? {
            rows += written;
            let total = expected.get().map(|rows| rows / u64::from(shard.of()));
            self.observer.on(&Event::RowsWritten { view: view.name.clone(), rows, total });
        }
        Ok(rows)
    }

    /// Adds an interval to those that a shard of a view has loaded, and to those of the view if all shards have.
    /// Returns the shards that have not. Intervals that touch are merged, so that the list does not grow.
    async fn record(&self, view: &FeatureView, shard: Shard, interval: Interval) -> Result<Vec<String>> {
        let snapshot = self
            .registry
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
                let meta = &mut stored.meta;
                meta.materialization_intervals =
                    complete_shard(&mut meta.shard_progress, &meta.materialization_intervals, shard, interval);
                if covers(&meta.materialization_intervals, interval) {
                    meta.state = FeatureViewState::AvailableOnline;
                }
                meta.updated = Some(Utc::now());
                let changes = vec![RegistryChange::Put(RegistryObject::FeatureView(Arc::new(stored)))];
                Ok(RegistryChanges::new(self.project(), changes))
            })
            .await?;
        let meta = &snapshot.project(self.project())?.feature_view(&view.name)?.meta;
        if covers(&meta.materialization_intervals, interval) {
            return Ok(Vec::new());
        }
        let has_loaded = |shard: &Shard| {
            meta.shard_progress.iter().any(|known| known.shard == *shard && covers(&known.intervals, interval))
        };
        let shards = (1..=shard.of()).filter_map(|number| Shard::new(number, shard.of()).ok());
        Ok(shards.filter(|shard| !has_loaded(shard)).map(|shard| shard.to_string()).collect())
    }
}

fn covers(intervals: &[Interval], interval: Interval) -> bool {
    intervals.iter().any(|known| known.start <= interval.start && interval.end <= known.end)
}

/// The rows of a shard as the store takes them.
fn owned_write(
    table: &OnlineTable,
    encoder: &EntityKeyEncoder,
    rows: &RecordBatch,
    shard: Shard,
) -> Result<OwnedWrite> {
    let whole =
        |rows: &RecordBatch| online_rows(table, encoder, rows, EVENT_TIMESTAMP_COLUMN, Some(CREATED_TIMESTAMP_COLUMN));
    if shard == Shard::WHOLE {
        return whole(rows);
    }
    let keys = entity_keys(encoder, rows)?;
    let mine: BooleanArray = keys.encoded.iter().map(|key| Some(key.is_some_and(|key| shard.has(key)))).collect();
    whole(&filter_record_batch(rows, &mine)?)
}

/// The same rows in chunks of `most` rows, the last one aside.
fn rechunk(rows: BatchStream, most: usize) -> BoxStream<'static, Result<RecordBatch>> {
    let coalescer = BatchCoalescer::new(Arc::clone(rows.schema()), most);
    stream::try_unfold((rows.fuse(), coalescer), async |(mut rows, mut coalescer)| {
        loop {
            if let Some(chunk) = coalescer.next_completed_batch() {
                return Ok(Some((chunk, (rows, coalescer))));
            }
            match rows.try_next().await? {
                Some(batch) => coalescer.push_batch(batch)?,
                None if coalescer.is_empty() => return Ok(None),
                None => coalescer.finish_buffered_batch()?,
            }
        }
    })
    .boxed()
}

/// A view whose input views are as the registry knows them: a definition has copies of them, from before they were
/// completed.
pub(crate) fn with_known_inputs(view: &Arc<FeatureView>, contents: &ProjectContents) -> Arc<FeatureView> {
    let FeatureViewKind::Batch(BatchFeatures { source_views, .. }) = &view.kind else { return Arc::clone(view) };
    if source_views.is_empty() {
        return Arc::clone(view);
    }
    let known = |input: &FeatureView| -> FeatureView {
        let known = contents.feature_views.get(&input.name).cloned().unwrap_or_else(|| Arc::new(input.clone()));
        FeatureView::clone(&with_known_inputs(&known, contents))
    };
    let known: Vec<FeatureView> = source_views.iter().map(known).collect();
    let mut view = FeatureView::clone(view);
    if let FeatureViewKind::Batch(batch) = &mut view.kind {
        batch.source_views = known;
    }
    Arc::new(view)
}

/// Where an incremental run begins: where the last one ended; for a view that was never materialized, as far back as
/// its values live now, or at the end where that has passed, and without ttl at the beginning of time, so that no row is
/// left behind.
fn incremental_start(view: &FeatureView, end: Timestamp) -> Timestamp {
    match (view.most_recent_end(), view.time_to_live().limit()) {
        (Some(most_recent), _) => most_recent.min(Utc::now()),
        (None, Some(ttl)) => end.min(Utc::now()).checked_sub_signed(ttl).unwrap_or(DateTime::UNIX_EPOCH),
        (None, None) => DateTime::UNIX_EPOCH,
    }
}
