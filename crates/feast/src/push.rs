//! Fresh values: into the online store, the offline store, or both.
//!
//! Of both, the online store is written first and the history last, after it was asked whether it takes the rows. A push
//! that failed may thus be sent again: what the online store has already it takes again without a change, and the history
//! has none of it. Only who was never told that a push succeeded, because the connection or the process ended in the
//! moment between, adds its rows to the history twice by sending them again.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use feast_core::{
    DataSource, EntityKeyEncoder, Error, ErrorCode, FeatureView, OnlineTable, ProjectContents, Result, Timestamp,
};
use feast_online::{OwnedWrite, online_rows};

use crate::on_demand::is_fed_by;
use crate::{Event, FeatureStore};

/// Where pushed rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum PushTarget {
    Online,
    Offline,
    OnlineAndOffline,
}

impl FromStr for PushTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "online" => Ok(Self::Online),
            "offline" => Ok(Self::Offline),
            "online_and_offline" => Ok(Self::OnlineAndOffline),
            other => Err(Error::invalid_request(format!("`{other}` is not a target of a push"))
                .with_hint("use `online`, `offline` or `online_and_offline`")),
        }
    }
}

impl FeatureStore {
    /// Writes rows to every view that the push source feeds, and to the stored on-demand views that follow from them.
    ///
    /// # Errors
    /// As [`push_rows`](Self::push_rows).
    pub async fn push(&self, push_source: &str, rows: &RecordBatch, target: PushTarget) -> Result<()> {
        self.push_rows(push_source, rows, target, true).await
    }

    /// Writes rows to every view that the push source feeds; with `transform_on_write` also to the stored on-demand
    /// views that can be computed from them. All rows are checked, and all functions run, before the first is written.
    /// A call that failed may be repeated: rows that were written are written again without a change, and the history
    /// comes last.
    ///
    /// # Errors
    /// `PushSourceNotFound`; one push to both stores for a view whose rows are computed; missing columns and values that do not fit, naming column, row and value;
    /// `TransformationFailed`.
    pub async fn push_rows(
        &self,
        push_source: &str,
        rows: &RecordBatch,
        target: PushTarget,
        transform_on_write: bool,
    ) -> Result<()> {
        let snapshot = self.registry.snapshot_checked().await?;
        let contents = self.project_of(&snapshot)?;
        let views = contents.views_of_push_source(push_source)?;
        if target == PushTarget::OnlineAndOffline
            && let Some(view) = views.iter().find(|view| view.is_computed())
        {
            let message = format!(
                "the rows of {} are computed: its history takes rows before that, the online store rows after it",
                view.reference()
            );
            return Err(Error::invalid_request(message)
                .with_hint("push to `offline` and materialize, or push rows that you computed to `online`"));
        }
        let online = target != PushTarget::Offline;
        let mut writes = Vec::new();
        for view in views.iter().filter(|_| online) {
            writes.push(self.checked_rows(view, rows)?);
        }
        if online && transform_on_write {
            writes.extend(self.computed_rows(contents, &views, rows).await?);
        }
        let mut appended: Vec<&DataSource> = Vec::new();
        if target != PushTarget::Online {
            for view in &views {
                let source = batch_source(view)?;
                check_history(view, source, rows)?;
                // Views of one push source share its batch source: the rows belong there once.
                if !appended.iter().any(|known| known.name == source.name) {
                    appended.push(source);
                }
            }
        }
        if !online {
            for source in appended {
                self.offline.append(source, rows.clone()).await?;
            }
            return Ok(());
        }
        // What the history refuses is not served either.
        let mut prepared = Vec::with_capacity(appended.len());
        for source in appended {
            prepared.push(self.offline.prepare_append(source, rows.clone()).await?);
        }
        for (table, write) in &writes {
            self.write_rows(table, write).await?;
        }
        for append in prepared {
            append.commit().await?;
        }
        Ok(())
    }

    /// Whether a push of rows to these views makes functions of on-demand views run.
    pub fn computes_on_push(contents: &ProjectContents, pushed: &[Arc<FeatureView>]) -> bool {
        let mut views = contents.feature_views.values();
        views.any(|view| view.on_demand().is_some_and(|on_demand| is_fed_by(view, on_demand, pushed)))
    }

    async fn write_rows(&self, table: &OnlineTable, write: &OwnedWrite) -> Result<()> {
        let write = write.as_write(table);
        self.online_store()?.write(write).await?;
        let newest = arrow::compute::max(write.event_timestamps).and_then(Timestamp::from_timestamp_micros);
        if let Some(newest) = newest {
            self.observer.on(&Event::FeaturesWritten { view: table.view.clone(), newest });
        }
        Ok(())
    }

    /// The rows of the stored on-demand views that follow from pushed rows alone.
    async fn computed_rows(
        &self,
        contents: &ProjectContents,
        pushed: &[Arc<FeatureView>],
        rows: &RecordBatch,
    ) -> Result<Vec<(OnlineTable, OwnedWrite)>> {
        let mut writes = Vec::new();
        for view in contents.feature_views.values() {
            if !view.on_demand().is_some_and(|on_demand| is_fed_by(view, on_demand, pushed)) {
                continue;
            }
            let Some(source) = pushed.iter().find_map(|view| view.batch_source().or(view.stream_source())) else {
                continue;
            };
            let renamed = rename(rows, source)?;
            let times = renamed.column_by_name(source.mapped(&source.timestamp_field)).cloned();
            writes.push(self.on_demand_rows(contents, view, &renamed, times, true).await?);
        }
        Ok(writes)
    }

    /// Writes rows of one view to the online store. On-demand views are computed from them with `transform_on_write`;
    /// without it, the rows hold their features.
    ///
    /// # Errors
    /// `FeatureViewNotFound`; missing columns and values that do not fit; `TransformationFailed`.
    pub async fn write_to_online_store(
        &self,
        feature_view: &str,
        rows: &RecordBatch,
        transform_on_write: bool,
    ) -> Result<()> {
        let snapshot = self.registry.snapshot_checked().await?;
        let contents = self.project_of(&snapshot)?;
        let view = contents.feature_view(feature_view)?;
        let (table, write) = match view.on_demand() {
            Some(_) => self.on_demand_rows(contents, view, rows, None, transform_on_write).await?,
            None => self.checked_rows(view, rows)?,
        };
        self.write_rows(&table, &write).await
    }

    /// Appends rows to the batch source of a view. A reader sees all of them or none.
    ///
    /// # Errors
    /// `FeatureViewNotFound`; columns that differ from those of the source.
    pub async fn write_to_offline_store(&self, feature_view: &str, rows: RecordBatch) -> Result<u64> {
        let snapshot = self.registry.snapshot_checked().await?;
        let view = self.project_of(&snapshot)?.feature_view(feature_view)?;
        let source = batch_source(view)?;
        check_history(view, source, &rows)?;
        self.offline.append(source, rows).await
    }

    fn checked_rows(&self, view: &FeatureView, rows: &RecordBatch) -> Result<(OnlineTable, OwnedWrite)> {
        if !view.has_online_table() {
            return Err(Error::invalid_request(format!("{} is not served online", view.reference()))
                .with_hint("declare it with `online=True` and apply it"));
        }
        let source = view.batch_source().or(view.stream_source()).ok_or_else(|| {
            Error::invalid_request(format!("{} has no source, so its event time column is not known", view.reference()))
                .with_hint("give the feature view a `source`")
        })?;
        let table = self.online_table(view);
        let encoder = EntityKeyEncoder::new(&table.join_keys, self.config.entity_key_serialization_version)?;
        let created = Some(source.created_timestamp_column.as_str()).filter(|name| !name.is_empty());
        let renamed = rename(rows, source)?;
        let write = online_rows(
            &table,
            &encoder,
            &renamed,
            source.mapped(&source.timestamp_field),
            created.map(|created| source.mapped(created)),
        )
        .map_err(|error| error.with_context("feature view", &view.name))?;
        Ok((table, write))
    }
}

fn batch_source(view: &FeatureView) -> Result<&DataSource> {
    view.batch_source().ok_or_else(|| {
        Error::invalid_request(format!("{} has no batch source to append to", view.reference()))
            .with_hint("give its push source a `batch_source`, or push to `online` only")
    })
}

/// Rows without key or time would rest in the history, and no query would ever find them.
fn check_history(view: &FeatureView, source: &DataSource, rows: &RecordBatch) -> Result<()> {
    let null_in = |name: &str| {
        let column = rows.column_by_name(source.unmapped(name)).or_else(|| rows.column_by_name(name))?;
        let nulls = column.logical_nulls()?;
        (0..nulls.len()).find(|row| nulls.is_null(*row))
    };
    let keys = view.join_keys().filter(|_| !view.is_entity_less());
    if let Some((key, row)) = keys.filter_map(|key| Some((key, null_in(key)?))).next() {
        return Err(Error::new(ErrorCode::MissingJoinKey, format!("join key `{key}` is null in row {row}"))
            .with_context("feature view", &view.name)
            .with_hint("every row needs a value for each join key"));
    }
    let time = source.timestamp_field.as_str();
    if let Some(row) = null_in(time) {
        return Err(Error::new(ErrorCode::InvalidEventTimestamp, format!("column `{time}` is null in row {row}"))
            .with_context("feature view", &view.name)
            .with_hint("every row needs the time at which it became true"));
    }
    Ok(())
}

/// The rows with the names that the view uses instead of those of its source.
fn rename(rows: &RecordBatch, source: &DataSource) -> Result<RecordBatch> {
    if source.field_mapping.is_empty() {
        return Ok(rows.clone());
    }
    let fields: Vec<_> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_name(source.mapped(field.name())))
        .collect();
    Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), rows.columns().to_vec())?)
}
